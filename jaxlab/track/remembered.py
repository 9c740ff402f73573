"""What trackers have in common: the id of a run at theirs, kept in its directory, and the files that they are given.

Usage: ``write(workdir, "mlflow", {"run": id})``; after a resume ``read(workdir, "mlflow")["run"]``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.core.errors import ConfigError

FILE = "tracking.json"
_FILES = (record.CONFIG, record.ENVIRONMENT, record.SUMMARY, "evaluation.json", "REPORT.md", "report.html")
_PICTURES = (".png", ".svg")


def read(workdir: Path, tracker: str) -> dict[str, Any]:
    """Return what a tracker remembers of a run; empty where it does not know it yet."""
    return record.read_json(workdir / FILE).get(tracker, {})


def write(workdir: Path, tracker: str, place: Mapping[str, Any]) -> None:
    """Remember where a tracker has a run."""
    record.write_json(workdir / FILE, {**record.read_json(workdir / FILE), tracker: dict(place)})


def trackers(workdir: Path) -> list[str]:
    """Return the names of the trackers that know a run."""
    return sorted(record.read_json(workdir / FILE))


def files(workdir: Path) -> list[Path]:
    """Return the files of a run that a tracker is given: config, receipts, results, report and pictures."""
    pictures = [file for file in sorted((workdir / record.PLOTS).rglob("*")) if file.suffix in _PICTURES]
    return [file for file in (*(workdir / name for name in _FILES), *pictures) if file.is_file()]


def check_installed(package: str, extra: str) -> None:
    """Raise a ConfigError that says what to install, before the run begins."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"{package} is not installed; pip install 'jaxlab[{extra}]'")


def pairs(tags: Sequence[str]) -> dict[str, str]:
    """Return ``name=value`` texts as a dict."""
    for tag in tags:
        if "=" not in tag:
            raise ConfigError(f"tags: {tag!r}: expected name=value")
    return {name: value for name, _, value in (tag.partition("=") for tag in tags)}
