"""Whole runs that must come to the same: however steps are grouped into calls, batches into microbatches."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from train_helpers import rows, same_bits, saved

import jaxlab
from jaxlab.core import record

ENDS = {"steps": 24, "log_every": 5, "eval_every": 11, "checkpoint_every": 13}


def train(config, workdir, **settings):
    """Train with the settings of ``config.train`` replaced; return the rows without timing, and the last checkpoint."""
    with config.unlocked():
        config.train.update(settings)
    jaxlab.train(config, workdir)
    return rows(workdir), saved(workdir)


@pytest.fixture(scope="module")
def single_mlp(tmp_path_factory):
    return train(tiny.mlp(), tmp_path_factory.mktemp("single") / "run", **ENDS)


@pytest.mark.parametrize("per_call", [4, 7])
def test_steps_taken_several_a_call_leave_the_same_rows_and_the_same_bits(tmp_path, single_mlp, per_call):
    found_rows, found = train(tiny.mlp(), tmp_path / "run", **ENDS, steps_per_call=per_call)
    assert found_rows == single_mlp[0]
    assert same_bits(found, single_mlp[1])


def test_rows_stand_at_every_log_and_evaluation_step_and_at_the_last(single_mlp):
    train_steps = [row["step"] for row in single_mlp[0] if "train/loss" in row]
    valid_steps = [row["step"] for row in single_mlp[0] if "valid/loss" in row]
    assert train_steps == [5, 10, 15, 20, 24]
    assert valid_steps == [11, 22, 24]


@pytest.mark.slow
def test_a_network_with_dropout_and_batch_norm_is_the_same_several_steps_a_call(tmp_path):
    # not bitwise: within a scan XLA fuses other operations together, and rounds at other places
    ends = {**ENDS, "steps": 12, "log_every": 4}
    first_rows, first = train(tiny.cnn(), tmp_path / "single", **ends)
    second_rows, second = train(tiny.cnn(), tmp_path / "several", **ends, steps_per_call=5)
    assert [set(row) for row in first_rows] == [set(row) for row in second_rows]
    for one, other in zip(first_rows, second_rows, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    for name, expected in first.items():
        np.testing.assert_allclose(second[name], expected, rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_run_in_microbatches_is_the_run_without(tmp_path, single_mlp):
    found_rows, found = train(tiny.mlp(), tmp_path / "run", **ENDS, grad_accumulation=4)
    for one, other in zip(found_rows, single_mlp[0], strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    for name, expected in single_mlp[1].items():
        # Adam divides by a root of small numbers, which enlarges the rounding
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_row_is_the_exact_mean_of_its_window(tmp_path, single_mlp):
    each, _ = train(tiny.mlp(), tmp_path / "run", **{**ENDS, "log_every": 1})
    by_step = {row["step"]: row for row in each if "train/loss" in row}
    assert list(by_step) == list(range(1, 25))
    first = 1
    for row in (row for row in single_mlp[0] if "train/loss" in row):
        window = [by_step[step] for step in range(first, row["step"] + 1)]
        for name in (name for name in row if name.startswith("train/")):
            mean = np.mean([step[name] for step in window])
            assert row[name] == pytest.approx(mean, rel=1e-6), (row["step"], name)
        first = row["step"] + 1


def test_the_values_of_a_hook_of_ones_own_stand_among_the_metrics(tmp_path):
    config = tiny.mlp()
    config.hooks.norm = jaxlab.spec("tiny:norm_hook", every=6)
    found, arrays = train(config, tmp_path / "run", **{**ENDS, "steps": 14})
    measured = {row["step"]: row["mine/norm"] for row in found if "mine/norm" in row}
    assert list(measured) == [6, 12, 14]
    assert measured[14] == pytest.approx(np.linalg.norm(arrays["state/params/Dense_0/kernel"]), rel=1e-6)


def test_a_hook_that_measures_something_else_does_not_save_at_each_of_its_steps(tmp_path):
    config = tiny.mlp()
    config.hooks.norm = jaxlab.spec("tiny:norm_hook", every=1)
    train(config, tmp_path / "run", **{**ENDS, "steps": 14, "keep": 20})
    saved_steps = sorted(int(path.name) for path in (tmp_path / "run" / record.CHECKPOINTS).iterdir())
    assert saved_steps == [11, 13, 14]


def test_in_bfloat16_state_and_outputs_stay_float32_and_the_loss_stays_close(tmp_path, single_mlp):
    found_rows, found = train(tiny.mlp(), tmp_path / "run", **ENDS, precision="bfloat16")
    floats = {name: x.dtype for name, x in found.items() if x.dtype.kind == "f" or x.dtype.itemsize == 2}
    assert set(floats.values()) == {np.dtype(np.float32)}
    losses = [[row["train/loss"] for row in r if "train/loss" in row] for r in (found_rows, single_mlp[0])]
    assert losses[0] != losses[1]  # else nothing was computed in bfloat16
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)
