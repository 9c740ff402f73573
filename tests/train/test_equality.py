"""One step is one step: on one device, many, or in microbatches, however unevenly the padding falls.

Sums are added and divided once, so that all ways agree up to the rounding of a different order of addition.
"""

from __future__ import annotations

import json

import pytest
from train_helpers import ROOT, finish, start

TOLERANCE = 1e-6  # float32, relative to the largest number of each leaf
CASES = [
    "mlp, jit x 8",
    "mlp, pmap x 8",
    "mlp, 4 microbatches",
    "mlp, jit x 8, 4 microbatches",
    "mlp, pmap x 8, 4 microbatches",
    "cnn, jit x 8",
    "cnn, pmap x 8, 4 microbatches",
    "batch norm, jit x 8",
    "batch norm, pmap x 8",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured():
    code, output, errors = finish(start(str(ROOT / "tests/train/equality_program.py"), devices=8))
    assert code == 0, errors
    found = json.loads(output)
    assert found["devices"] == 8
    return found["differences"]


def check(steps):
    for step, leaves in enumerate(steps):
        assert {"params", "statistics"} <= {name.split("/")[0] for name in leaves}
        differing = {name: difference for name, difference in leaves.items() if not difference <= TOLERANCE}
        assert not differing, f"after step {step + 1}"


@pytest.mark.parametrize("case", CASES)
def test_steps_on_an_unevenly_padded_batch_are_those_of_one_device(measured, case):
    check(measured[case])


def test_every_case_is_checked_over_several_steps_with_an_average_and_class_weights(measured):
    assert set(measured) == set(CASES)
    assert all(len(steps) > 2 for steps in measured.values())
    assert any(name.startswith("ema/") for name in measured["mlp, jit x 8"][0])
