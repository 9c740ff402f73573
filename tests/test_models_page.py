"""docs/models.md names every model and objective that ships, and nothing else."""

import re
from pathlib import Path

from contract_discovery import FOUND

PAGE = (Path(__file__).parents[1] / "docs/models.md").read_text()


def named():
    """Return the factories of the page's tables; ``:name`` alone is of the module before it in its line."""
    found = set()
    for line in re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE):
        module = ""
        for path, attribute in re.findall(r"`(?:spec\(\"([\w.]+))?:(\w+)", line):
            module = path or module
            found.add(f"{module}:{attribute}")
    return found


def test_every_model_and_objective_has_its_line():
    packages = ("jaxlab.models.", "jaxlab.objectives.")
    kinds = ("model", "objective")
    assert named() == {case.path for case in FOUND if case.kind in kinds and case.path.startswith(packages)}


def test_the_pages_it_points_to_are_there():
    links = re.findall(r"\]\(([^)#]+)", PAGE)
    assert links
    assert not [link for link in links if not (Path(__file__).parents[1] / "docs" / link).exists()]
