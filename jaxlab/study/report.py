"""The ``report`` command: REPORT.md, one self-contained report.html, tables for papers; of a study or of a single run.

Every number stands beside the runs and files it came from. Usage: ``report("studies/NAME")``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.core.errors import DataError
from jaxlab.study.page import HTML, MARKDOWN
from jaxlab.study.runner import STUDY


def report(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Write the report of a study or a run and return where it stands and its sentences.

    Raises:
      DataError: there is neither, or nothing is finished yet.
    """
    folder = Path(workdir).expanduser().resolve()
    if (folder / STUDY).is_file():
        from jaxlab.study.study_report import write
    elif (folder / record.CONFIG).is_file():
        from jaxlab.study.run_report import write
    else:
        raise DataError(f"--workdir={folder} holds neither a study ({STUDY}) nor a run ({record.CONFIG})")
    found = write(folder)
    return {
        "workdir": str(folder),
        "report": str(folder / HTML),
        "markdown": str(folder / MARKDOWN),
        "sentences": found,
    }
