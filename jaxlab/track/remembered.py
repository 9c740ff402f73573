"""What trackers have in common: the id of a run at theirs, kept in its directory, and the files that they are given.

Usage: ``write(workdir, "mlflow", {"run": id})``; after a resume ``read(workdir, "mlflow")["run"]``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.errors import ConfigError

FILE = "tracking.json"
RUN = "run"  # the entry that holds the tracker's own id
_FILES = (
    record.CONFIG, record.ENVIRONMENT, record.SUMMARY, "evaluation.json", "REPORT.md", "report.html",
    "study.json", "results.json", "runs.csv", "arms.csv", "table.tex",  # of a study
)  # fmt: skip
_PICTURES = (".png", ".svg")


def read(workdir: Path, tracker: str) -> dict[str, Any]:
    """Return what a tracker remembers of a run; empty where it does not know it yet."""
    return record.read_json(workdir / FILE).get(tracker, {})


def write(workdir: Path, tracker: str, place: Mapping[str, Any]) -> None:
    """Remember where a tracker has a run."""
    record.write_json(workdir / FILE, {**record.read_json(workdir / FILE), tracker: dict(place)})


def adopt(study: Path, run: Path) -> None:
    """Let a study be tracked where a run of it is; it has an entry of its own there, made with its first report."""
    for tracker, place in record.read_json(run / FILE).items():
        if not read(study, tracker):
            write(study, tracker, {name: value for name, value in place.items() if name != RUN})


def trackers(workdir: Path) -> list[str]:
    """Return the names of the trackers that know a run."""
    return sorted(record.read_json(workdir / FILE))


def is_study(workdir: Path) -> bool:
    """Say whether the directory is of a study, and not of a run."""
    return not (workdir / record.CONFIG).is_file()


def config_of(workdir: Path) -> ConfigDict:
    """Return the config of a run; a study has none of its own."""
    return ConfigDict() if is_study(workdir) else record.read_config(workdir)


def files(workdir: Path) -> list[Path]:
    """Return the files of a run or study that a tracker is given: config, receipts, results, report and pictures."""
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
