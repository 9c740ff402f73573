"""The runs below a folder, in an SQLite index beside them that is only a cache of what stands in their directories.

What has changed since is read again, what is gone leaves, and an index that is damaged or of another version is made
anew. Nothing is written into a run. Usage: ``rows = runs("runs", where="valid/accuracy > 0.9", sort="-seed")``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlab.core import config as configs
from jaxlab.core import record
from jaxlab.core.errors import JaxlabError, UsageError
from jaxlab.core.paths import folder_of
from jaxlab.study.query import condition, order
from jaxlab.study.tasks import EVALUATION

if TYPE_CHECKING:
    import pandas as pd

FILE = ".jaxlab-runs.sqlite"
FINISHED, RUNNING, STOPPED, UNREADABLE = "finished", "running", "stopped", "unreadable"
_VERSION = 1
_READ = (record.CONFIG, record.SUMMARY, record.METRICS, EVALUATION, record.LOCK, record.ENVIRONMENT)
_BELOW = {record.CHECKPOINTS, record.PREDICTIONS, record.PLOTS, record.AUTOPSY, "tensorboard", "wandb"}

_log = logging.getLogger("jaxlab")


def runs(
    root: str | os.PathLike[str] = ".", where: str = "", sort: str = "-began", rebuild: bool = False
) -> list[dict[str, Any]]:
    """Return the facts of the runs below a folder.

    Facts are ``path``, ``status``, ``step``, ``seconds``, ``began``, ``commit``, every value of the config by its path,
    and every metric by its name: of evaluations, or else the last one that was logged.

    Args:
      root: where to look.
      where: see `jaxlab.study.query.condition`.
      sort: see `jaxlab.study.query.order`.
      rebuild: whether to read all runs anew.

    Raises:
      UsageError: no such folder, or a condition that cannot be used.
    """
    folder = folder_of(root)
    if not folder.is_dir():
        raise UsageError(f"{root} is no folder")
    with _opened(folder, rebuild) as index:
        found = _refreshed(index, folder)
    names = {name for facts in found for name in facts}
    if not found:
        return []
    test = condition(where, names)
    return [dict(facts) for facts in order(sort, names)([facts for facts in found if test(facts)])]


def table(root: str | os.PathLike[str] = ".", where: str = "", sort: str = "-began") -> pd.DataFrame:
    """Return `runs` as a table, one column a fact."""
    import pandas as pd

    return pd.DataFrame(runs(root, where, sort))


def facts_of(run: Path, root: Path) -> dict[str, Any]:
    """Return all that a run's directory says of it; one that cannot be read says why."""
    path = str(run.relative_to(root))
    try:
        config = record.read_config(run)
        summary, environment = record.read_json(run / record.SUMMARY), record.read_json(run / record.ENVIRONMENT)
        last: dict[str, Any] = {}
        for row in record.read_metrics(run):
            last |= row
        metrics = {name: value for name, value in last.items() if "/" in name}
        for entry in record.read_json(run / EVALUATION).values():
            metrics |= entry["metrics"]
        status = FINISHED if summary else RUNNING if _is_written(run) else STOPPED
        commit = (environment.get("git") or {}).get("commit")
        return record.jsonable({
            **configs.flatten(config), **metrics, "path": path, "status": status, "step": last.get("step", 0),
            "seconds": last.get("wall", 0.0), "began": (run / record.CONFIG).stat().st_mtime, "commit": commit,
        })  # fmt: skip
    except (JaxlabError, OSError, KeyError, TypeError) as error:
        return {"path": path, "status": UNREADABLE, "problem": f"{type(error).__name__}: {error}"}


def _is_written(run: Path) -> bool:
    """Say whether the process that its lock names is there; taking the lock to see would disturb one that begins."""
    holder = record.read_json(run / record.LOCK)
    if not holder:
        return False
    if holder.get("host") != socket.gethostname():
        return True  # nobody here can know
    try:
        os.kill(int(holder["pid"]), 0)
    except (ProcessLookupError, KeyError, TypeError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def _found(root: Path) -> Iterator[Path]:
    """Yield the run directories below a folder."""
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _BELOW and not name.startswith("."))
        if record.CONFIG in files:
            yield Path(place)


def _stamp(run: Path) -> str:
    """Return what changes when a file of a run does."""
    parts = []
    for name in _READ:
        with contextlib.suppress(OSError):
            found = (run / name).stat()
            parts.append(f"{name} {found.st_mtime_ns} {found.st_size} {found.st_ino}")
    return "; ".join(parts)


def _refreshed(index: sqlite3.Connection, root: Path) -> list[dict[str, Any]]:
    """Return the facts of all runs, after reading those that have changed."""
    known = {path: (stamp, facts) for path, stamp, facts in index.execute("SELECT path, stamp, facts FROM runs")}
    found, there = [], set()
    with index:
        for run in _found(root):
            path, stamp = str(run.relative_to(root)), _stamp(run)
            there.add(path)
            if path in known and known[path][0] == stamp and f'"status": "{RUNNING}"' not in known[path][1]:
                found.append(json.loads(known[path][1]))
                continue
            facts = facts_of(run, root)
            found.append(facts)
            index.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", (path, stamp, json.dumps(facts)))
        index.executemany("DELETE FROM runs WHERE path = ?", [(path,) for path in known.keys() - there])
    return found


@contextlib.contextmanager
def _opened(root: Path, rebuild: bool) -> Iterator[sqlite3.Connection]:
    """Open the index, a new one where that is wanted or needed; in memory where nothing may be written."""
    path = root / FILE
    try:
        if rebuild:
            path.unlink(missing_ok=True)
        index = _connected(path)
    except sqlite3.DatabaseError as error:
        if os.access(root, os.W_OK) and path.is_file():
            _log.warning("%s is made anew: %s", path, error)
            path.unlink(missing_ok=True)
            index = _connected(path)
        else:
            index = _connected(Path(":memory:"))
    except OSError:
        index = _connected(Path(":memory:"))
    with contextlib.closing(index):
        yield index


def _connected(path: Path) -> sqlite3.Connection:
    index = sqlite3.connect(path, timeout=30)
    try:
        with index:
            if index.execute("PRAGMA user_version").fetchone()[0] not in (0, _VERSION):
                raise sqlite3.DatabaseError("it is of another version")
            index.execute("CREATE TABLE IF NOT EXISTS runs (path TEXT PRIMARY KEY, stamp TEXT, facts TEXT)")
            index.execute(f"PRAGMA user_version = {_VERSION}")
            index.execute("SELECT path, stamp, facts FROM runs LIMIT 1").fetchone()
    except sqlite3.DatabaseError:
        index.close()
        raise
    return index
