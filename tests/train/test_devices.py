"""A checkpoint belongs to no number of devices and to no strategy: a run goes on elsewhere as if it had begun there."""

from __future__ import annotations

import json

import pytest
from train_helpers import ROOT, finish, start

MOVES = ["jit to jit on 1", "jit to jit on 2", "jit to pmap", "pmap to jit", "pmap to pmap on 2"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    program = str(ROOT / "tests/train/devices_program.py")
    code, output, errors = finish(start(program, str(tmp_path_factory.mktemp("devices")), devices=8))
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert result["devices"] == 8
    assert set(result["finished"]) == set(MOVES)
    return result


def test_runs_on_8_devices_stop_at_the_step_they_are_asked_at(moved):
    assert moved["stopped at"] == {"jit": [6, 7], "pmap": [6, 7]}


@pytest.mark.parametrize("move", MOVES)
def test_a_run_that_goes_on_elsewhere_has_the_rows_of_one_that_was_never_moved(moved, move):
    # the same examples stand in every batch, or the means would differ by far more than rounding
    found = moved["finished"][move]["rows"]
    assert [(row["step"], sorted(row)) for row in found] == [(row["step"], sorted(row)) for row in moved["whole"]]
    for one, other in zip(found, moved["whole"], strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("move", MOVES)
def test_a_run_that_goes_on_elsewhere_ends_in_the_same_state(moved, move):
    distance = moved["finished"][move]["distance"]
    assert any(name.startswith("state/ema/") for name in distance)
    assert any(name.startswith("state/opt_state/") for name in distance)
    far = {name: value for name, value in distance.items() if name.startswith("state/") and not value <= 1e-5}
    assert not far
