"""Every example of docs/own_data.md runs as it stands, in an empty folder, and is as short as the page promises."""

import importlib
import re
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/own_data.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
BLOCKS = [
    pytest.param(block, id=f"{title}-{place}")
    for title, text in SECTIONS.items()
    for place, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_example_runs_as_it_stands(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(block)  # a spec names a function of it by module and name
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "example", raising=False)
    importlib.import_module("example")


@pytest.mark.parametrize("block", BLOCKS)
def test_the_example_has_fewer_than_twenty_lines(block):
    assert len([line for line in block.splitlines() if line.strip()]) < 20


def test_every_kind_of_data_has_its_section_and_the_table_at_the_top_points_to_each():
    expected = {"Arrays", "Tables", "Memory-mapped arrays", "Mixtures", "Windows over a time series"}
    expected |= {"Splits", "Images in folders", "Texts", "Parallel texts", "Hugging Face", "TFDS"}
    assert set(SECTIONS) == expected
    anchors = {title.lower().replace(" ", "-") for title in SECTIONS}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) == anchors


@pytest.mark.parametrize(
    "title", ["Arrays", "Tables", "Memory-mapped arrays", "Mixtures", "Windows over a time series"]
)
def test_the_section_has_an_example(title):
    assert "```python" in SECTIONS[title]
