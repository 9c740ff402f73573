"""A scaling study: the same training on several numbers of devices, in processes of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny

from jaxlab.core import record
from jaxlab.core.errors import ConfigError, UsageError
from jaxlab.run.journal import IDS
from jaxlab.run.scale import STRONG, WEAK, _part, _same, print_scaling, scale


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    return scale(tiny.mlp(), str(folder), (1, 2), (STRONG, WEAK), steps=8, repeats=1)


@pytest.mark.slow
def test_two_devices_see_the_same_examples_and_learn_the_same(study, capsys):
    assert (study["ids"], study["errors"], study["virtual"]) == (True, 0, True)
    assert study["loss_difference"] < 1e-5
    print_scaling(study)
    assert "the same optimisation" in capsys.readouterr().err


@pytest.mark.slow
def test_strong_scaling_keeps_the_batch_and_weak_scaling_that_of_a_device(study):
    sizes = {(row["kind"], row["devices"]): row["batch_size"] for row in study["rows"]}
    base = sizes[STRONG, 1]
    assert sizes == {(STRONG, 1): base, (STRONG, 2): base, (WEAK, 1): base, (WEAK, 2): 2 * base}
    for row in study["rows"]:
        low, point, high = (row["efficiency"][i] for i in (1, 0, 2))
        assert low <= point <= high
        assert point > 0


@pytest.mark.slow
def test_a_study_leaves_runs_result_and_picture(study):
    folder = Path(study["workdir"])
    assert json.loads((folder / "scale.json").read_text())["rows"] == json.loads(json.dumps(study["rows"]))
    assert all((folder / name).stat().st_size for name in study["plots"])
    assert (folder / "strong-2-0" / record.SUMMARY).exists()


@pytest.mark.slow
@pytest.mark.parametrize(("column", "change"), [("train/loss", 0.1), (IDS, 1.0)])
def test_another_loss_or_other_examples_on_more_devices_is_an_error(study, tmp_path, column, change):
    folder = tmp_path / "study"
    shutil.copytree(study["workdir"], folder)
    path = folder / "strong-2-0" / record.METRICS
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [{name: value + change if name == column else value for name, value in row.items()} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in changed))
    parts = [_part(tiny.mlp(), STRONG, count, count, 8) for count in (1, 2)]
    assert _same(folder, parts)["errors"] == 1


@pytest.mark.parametrize(
    ("devices", "kinds", "steps", "repeats", "problem"),
    [
        ((2, 1), (STRONG,), 8, 1, "--devices=2,1: expected rising"),
        ((2, 3), (STRONG,), 8, 1, "expected multiples of the first"),
        ((), (STRONG,), 8, 1, "--devices="),
        ((1, 2), ("week",), 8, 1, "--kind=week"),
        ((1, 2), (STRONG,), 3, 1, "--steps=3"),
        ((1, 2), (STRONG,), 8, 0, "--repeats=0"),
    ],
)
def test_bad_arguments_are_told_before_anything_runs(tmp_path, devices, kinds, steps, repeats, problem):
    with pytest.raises(UsageError, match=problem):
        scale(tiny.mlp(), str(tmp_path / "new"), devices, kinds, steps, repeats)
    assert not (tmp_path / "new").exists()


def test_a_batch_that_does_not_split_and_a_mesh_that_cannot_grow_are_errors_of_the_config():
    config = tiny.mlp()
    with pytest.raises(ConfigError, match=r"config\.train\.batch_size=\d+: expected a multiple of 7"):
        _part(config, STRONG, 7, 7, 8)
    config.parallel.mesh.data = 2
    with pytest.raises(ConfigError, match=r"expected -1 for the axis that grows"):
        _part(config, STRONG, 4, 1, 8)
