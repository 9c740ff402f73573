"""docs/transforms.md: its examples run, its lines can be built, and no transform or sampling rule is left out."""

import importlib
import re
import sys
from pathlib import Path

import pytest
from contract_discovery import FOUND
from ml_collections import ConfigDict

from jaxlab.core.config import build, spec
from jaxlab.data.digits import make as digits

PAGE = (Path(__file__).parents[2] / "docs/transforms.md").read_text()
LINES = re.findall(r"^\| `(spec\(.*\))` \|", PAGE, re.MULTILINE)
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_example_runs_as_it_stands(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "transforms_example.py").write_text(block)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "transforms_example", raising=False)
    importlib.import_module("transforms_example")


@pytest.mark.parametrize("line", LINES)
def test_the_line_can_be_built(line):
    node = eval(line, {"spec": spec})
    assert isinstance(node, ConfigDict)
    data = digits("train").spec
    if "class_weights" in line:
        data = data._replace(meta={"classes": ("a", "b", "c")})
    assert build(node, data=data._replace(meta={"class_counts": (9,) * len(data.classes), **data.meta})) is not None


def test_every_transform_and_sampling_rule_has_its_line():
    kinds = {"transform", "fittable", "device", "sampling"}
    expected = {case.path for case in FOUND if case.kind in kinds and case.path.startswith("jaxlab.data.")}
    assert expected == {re.match(r'spec\("([^"]+)', line)[1] for line in LINES if "jaxlab.data." in line}
