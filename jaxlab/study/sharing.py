"""A report to commit or to send: copied with the files that it leads to, and nothing else of gigabytes of runs.

Usage: ``share(Path("studies/NAME"), Path("experiments/NAME"))``.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from jaxlab.core import record
from jaxlab.core.errors import UsageError
from jaxlab.study.analysis import RESULTS
from jaxlab.study.page import HTML, MARKDOWN
from jaxlab.study.runner import STUDY

_LINK = re.compile(r"\]\(([^)\s#]+)\)")


def check_output(folder: Path, output: Path) -> None:
    """Raise a UsageError, before a report is written, where the output is the study, within it, or a file."""
    if output == folder or folder in output.parents or output.is_file():
        raise UsageError(f"--output={output}: expected a directory outside {folder}")


def share(folder: Path, output: Path) -> None:
    """Copy a report and what it leads to; of a run's directory that is a link, its config."""
    places = {folder / MARKDOWN, folder / HTML}
    for link in _LINK.findall((folder / MARKDOWN).read_text()):
        place = (folder / link).resolve()
        if folder in place.parents:  # a README's own links may lead anywhere
            places.add(place / record.CONFIG if place.is_dir() else place)
    for place in sorted(places):
        if place.is_file():
            target = output / place.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place, target)
    file = record.read_json(folder / STUDY).get("file", "")
    for place in (output / STUDY, output / RESULTS):
        if file and place.is_file():  # where the study's file lay on this machine is nobody's concern
            record.write_json(place, {**record.read_json(place), "file": short_name(Path(file))})


def short_name(file: Path) -> str:
    """Return a study's file as it is named from the top of its repository: ``experiments/NAME/study.py``."""
    return "/".join(file.parts[-3:])
