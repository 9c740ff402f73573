"""The ``report`` command: REPORT.md, one self-contained report.html, tables for papers; of a study or of a single run.

Every number stands beside the runs and files it came from. Usage: ``report("studies/NAME")``.
"""

from __future__ import annotations

import importlib
import logging
import os
from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.core.errors import DataError
from jaxlab.core.paths import folder_of
from jaxlab.study.page import HTML, MARKDOWN
from jaxlab.study.read import run_folders
from jaxlab.study.runner import STUDY
from jaxlab.study.sharing import check_output, share
from jaxlab.track import remembered

_log = logging.getLogger("jaxlab")


def report(workdir: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Write the report of a study or a run and return where it stands and its sentences.

    Args:
      workdir: of the study or run.
      output: a directory to copy it into with the files that it leads to, to commit or send; None for none.

    Raises:
      DataError: there is neither, or nothing is finished yet.
      UsageError: `output` is within the study, or a file.
    """
    folder = folder_of(workdir)
    target = None if output is None else folder_of(output)
    if target is not None:
        check_output(folder, target)
    if (folder / STUDY).is_file():
        from jaxlab.study.study_report import write
    elif (folder / record.CONFIG).is_file():
        from jaxlab.study.run_report import write
    else:
        raise DataError(f"--workdir={folder} holds neither a study ({STUDY}) nor a run ({record.CONFIG})")
    found = write(folder)
    publish(folder)
    if target is not None:
        share(folder, target)
    return {
        "workdir": str(folder),
        "report": str(folder / HTML),
        "markdown": str(folder / MARKDOWN),
        "sentences": found,
    }


def publish(folder: Path) -> None:
    """Give the report to the trackers that know the run or runs of the study; one out of reach is no reason to fail."""
    if (folder / STUDY).is_file():
        for run in run_folders(folder):
            remembered.adopt(folder, run)
    for name in remembered.trackers(folder):
        try:
            importlib.import_module(f"jaxlab.track.{name}").publish(folder)
        except Exception as error:
            _log.warning("%s did not get the report: %s: %s", name, type(error).__name__, error)
