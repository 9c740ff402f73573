"""The run directory's schema: what is written where, and how it is read back. Imports no JAX.

Usage: ``record.open_run(workdir, config, origin)``, rows through `MetricsLog`, ``record.finish(workdir, summary)``.
A directory with a config and no ``summary.json`` is a run that was killed or still goes on.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxlab.core import config as configs
from jaxlab.core import limits, paths, trust
from jaxlab.core.errors import ConfigError, DataError, UsageError

CONFIG = "config.json"
OVERRIDES = "overrides.json"
ENVIRONMENT = "environment.json"
PROGRAMS = "programs.json"  # the fingerprint of the compiled step
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
LOG = "log.txt"
LOCK = "lock.json"  # while a process writes
LEARNT = "transforms.json"
SPLIT_INDICES = "splits.json"
TOKENIZER = "tokenizer-{hash}.json"  # of packed texts, as the source that names its file read it
CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions"
PLOTS = "plots"
AUTOPSY = "autopsy"  # what is left of a step that was not finite
ROLLBACKS = "rollbacks.json"  # the data that were left out
_NOT_FINITE = ("nan", "inf", "-inf")  # JSON has no such numbers: rows hold their names


def open_run(workdir: Path, config: ConfigDict, origin: Mapping[str, Any]) -> None:
    """Make the run directory, or check that the one that stands there is of the same config.

    Args:
      workdir: the run's directory.
      config: resolved and complete.
      origin: the config file and the overrides that made the config.

    Raises:
      UsageError: the directory holds a run of another config (naming each difference), or things that are no run.
    """
    if (workdir / CONFIG).exists():
        differences = configs.diff(read_config(workdir), config)
        if differences:
            first = list(differences.items())[:10]
            lines = [f"  config.{path}: {old!r} there, {new!r} now" for path, (old, new) in first]
            more = [f"  and {len(differences) - 10} more"] if len(differences) > 10 else []
            problem = f"{workdir} holds a run of another config; choose another --workdir"
            raise UsageError("\n".join([problem, *lines, *more]))
        return
    claim(workdir)
    write_json(workdir / OVERRIDES, origin)
    write_atomically(workdir / CONFIG, configs.to_json(config))


def claim(workdir: Path) -> None:
    """Make an empty directory for a run, if there is none; errors as `check_free`."""
    check_free(workdir)
    workdir.mkdir(parents=True, exist_ok=True)


def check_free(workdir: Path) -> None:
    """Raise UsageError where there are things in a directory that are no run."""
    own = (LOCK, OVERRIDES, f".{OVERRIDES}.", f".{CONFIG}.")  # all that a start killed half way leaves
    if workdir.is_file() or (workdir.is_dir() and any(not p.name.startswith(own) for p in workdir.iterdir())):
        raise UsageError(f"--workdir={workdir} is not empty and holds no run; choose another")


def read_config(workdir: Path) -> ConfigDict:
    """Return the config of the run at `workdir`.

    It is data: nothing that it names is imported. What is to be built comes from `trusted_config`.

    Raises:
      DataError: there is no run, its config is none, or a link in the directory leads out of it.
    """
    if not (workdir / CONFIG).is_file():
        raise DataError(f"{workdir} holds no run: there is no {CONFIG} in it")
    paths.check_links(workdir)
    try:
        return configs.read(workdir / CONFIG)
    except ConfigError as error:
        raise DataError(str(error)) from error


def trusted_config(workdir: Path) -> ConfigDict:
    """Return the config of the run at `workdir`, of which all that it names may be imported.

    Packages that the user has allowed and that are nowhere else are looked for where the run's config file stood.

    Raises:
      DataError: as `read_config`.
      UsageError: it names code of a package that is not allowed; see `jaxlab.core.trust`.
    """
    config = read_config(workdir)
    origin = read_json(workdir / OVERRIDES).get("config")
    folder = str(Path(origin.partition(".py:")[0]).parent) if isinstance(origin, str) else ""
    packages = trust.check_imports(config, workdir / CONFIG, folder)
    trust.make_importable(packages, folder, workdir)
    return config


def read_json(path: Path, limit: int = limits.LIST_BYTES) -> dict[str, Any]:
    """Return the object in a JSON file of a run, or an empty one where there is no file.

    Raises:
      DataError: it is no JSON object, has more than `limit` bytes, or is a link that leads out of its folder.
    """
    if not path.is_file():
        return {}
    value = limits.read_json(paths.inside(path.parent, path.name), limit)
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds a {type(value).__name__}; expected an object")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    write_atomically(path, json.dumps(jsonable(value), indent=2) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Write `text` beside `path`, flush it to disk and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def finish(workdir: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary, which marks the run as finished."""
    write_json(workdir / SUMMARY, summary)


def write_learnt(workdir: Path, learnt: Sequence[Mapping[str, Any] | None]) -> None:
    """Write what the transforms have learnt, by place, where any has."""
    if any(item is not None for item in learnt):
        write_json(workdir / LEARNT, {"learnt": list(learnt)})


def read_learnt(workdir: Path) -> list[Mapping[str, Any] | None] | None:
    """Return what the run's transforms have learnt, by place; None where nothing was written."""
    found = read_json(workdir / LEARNT).get("learnt")
    if found is not None and not (isinstance(found, list) and all(isinstance(x, dict | None) for x in found)):
        raise DataError(f"{workdir / LEARNT}: 'learnt' is no list of objects")
    return found


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics in order; a torn last line (a killed writer) is left out.

    Raises:
      DataError: a line is no object with a ``step``, or the file is too large.
    """
    path = workdir / METRICS
    if not path.is_file():
        return []
    content = limits.read_bytes(paths.inside(workdir, METRICS), limits.LIST_BYTES)
    return [_row(line, f"{path}: line {i}") for i, line in enumerate(content.split(b"\n")[:-1], 1)]


def _row(line: bytes, where: str) -> dict[str, Any]:
    row = limits.parse_json(line, where)
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        raise DataError(f"{where}: expected an object with a whole number 'step'")
    return {name: float(value) if value in _NOT_FINITE else value for name, value in row.items()}


class MetricsLog:
    """Appends rows to ``metrics.jsonl``, each in one write."""

    def __init__(self, workdir: Path, step: int) -> None:
        """Open the log for a run that goes on after `step`, dropping the rows after it."""
        self._path = workdir / METRICS
        rows = read_metrics(workdir)
        kept = [row for row in rows if row["step"] <= step]
        if len(kept) != len(rows) or (self._path.exists() and not self._path.read_bytes().endswith(b"\n")):
            write_atomically(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self._path.open("ab", buffering=0)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one row."""
        self._file.write((json.dumps(jsonable({"step": step, **values})) + "\n").encode())

    def sync(self) -> None:
        """Flush to disk, so that the rows before a checkpoint outlive a crash of the machine."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def jsonable(value: Any) -> Any:
    """Return `value` with what JSON cannot say (nan, infinities) replaced by its name."""
    if isinstance(value, Mapping):
        return {name: jsonable(child) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(child) for child in value]
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
