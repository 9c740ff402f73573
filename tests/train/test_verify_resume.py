"""`jaxlab verify-resume` says equal bits of a run that is exact, and names leaf and step of one that is not."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

import jaxlab
from jaxlab.core import record
from jaxlab.core.errors import ConfigError, UsageError
from jaxlab.run.judge import TOLERANCE, judge
from jaxlab.run.leaves import Reader, differing, distances
from jaxlab.run.moments import KINDS, Timeline, Watch, draw_aims, phase_of
from jaxlab.run.verify_resume import print_verification, verify_resume
from jaxlab.train import manifest

FICKLE = """
import os
import numpy as np
import jaxlab
from jaxlab.data import digits

def make(split="train"):
    inner = digits.make(split)
    rows = dict(inner.__getitems__(np.arange(len(inner))))
    rows["image"] = rows["image"] * (1 + os.getpid() % 97 / 1000)
    return jaxlab.ArraySource(rows, inner.spec.meta)
"""


def short(config, steps=40):
    config.train.update({"steps": steps, "log_every": 5, "eval_every": 10, "checkpoint_every": 7})
    return config


@pytest.mark.slow
def test_a_run_killed_at_random_moments_has_the_bits_of_the_undisturbed_one(tmp_path, capsys):
    result = verify_resume(short(tiny.mlp()), tmp_path / "both", kills=3)
    assert (result["verdict"], result["errors"], result["problems"]) == ("equal bits", 0, [])
    assert result["ids"] == "equal"
    assert result["leaves"] > 10
    assert result["rows"] == 40 / 5 + 40 / 10
    assert 1 <= result["landed"] == sum(result["phases"].values()) <= 3
    assert result["lost"]["most"] <= 7
    print_verification(result)
    assert "equal bits: " in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_whose_data_depend_on_the_process_is_caught_by_leaf_and_step(tmp_path, capsys, monkeypatch):
    (tmp_path / "fickle.py").write_text(FICKLE)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = short(tiny.mlp(), steps=12)
    config.data.train = jaxlab.spec("fickle:make")
    result = verify_resume(config, tmp_path / "both", kills=1)
    assert (result["verdict"], result["errors"]) == ("different", 1)
    assert result["first"]["leaf"].startswith("state/params/")
    assert result["first"]["step"] == 5
    assert result["ids"] == "equal"  # the same rows; it is their values that are others
    print_verification(result)
    assert "different: the state at step 12: state/params/Dense_0/bias has SHA-256" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_goes_on_on_fewer_devices_with_the_same_examples_and_near_values(tmp_path):
    result = verify_resume(short(tiny.mlp(), steps=80), tmp_path / "both", kills=1, devices="4:2")
    assert (result["verdict"], result["errors"], result["ids"]) == ("within tolerance", 0, "equal"), result
    assert result["kills"][0]["restored"] > 0
    receipts = [record.read_json(tmp_path / "both" / run / record.ENVIRONMENT) for run in ("undisturbed", "killed")]
    assert [receipt["devices"]["count"] for receipt in receipts] == [4, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kills": 0}, "--kills=0: expected 1 or more"),
        ({"devices": "8"}, "--devices=8: expected BEFORE:AFTER, such as 8:2"),
        ({"devices": "0:2"}, "--devices=0:2: expected"),
        ({"workdir": str(Path(__file__).parent)}, "is not empty; choose another"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_trained(options, message):
    with pytest.raises(UsageError, match=message):
        verify_resume(tiny.mlp(), **options)


def test_a_config_that_fixes_its_devices_cannot_change_them():
    config = tiny.mlp()
    config.parallel.mesh.data = 2
    with pytest.raises(ConfigError, match=r"config\.parallel\.mesh=.*expected -1 for an axis with --devices"):
        verify_resume(config, devices="8:2")


@pytest.mark.slow
def test_what_the_training_itself_refuses_is_said_in_its_words(tmp_path):
    config = tiny.mlp()
    config.train.batch_size = 100_000
    with pytest.raises(UsageError, match=r"ended with code 2: config\.train\.batch_size=100000"):
        verify_resume(config, tmp_path / "both", kills=1)


TIMES = Timeline(life=20.0, rows=[(8.0 + i, 5 * i) for i in range(1, 11)], evaluation=0.3, save=0.2)


@given(st.integers(1, 60), st.booleans(), st.integers(0, 2**31))
def test_one_run_can_meet_the_moments_in_their_order_and_all_kinds_come(count, evaluates, seed):
    aims = draw_aims(count, TIMES, evaluates, random.Random(seed))
    later = [aim for aim in aims if aim.kind != "start"]
    assert len(aims) == count
    assert [aim.step for aim in later] == sorted(aim.step for aim in later)
    assert all(0 <= aim.delay <= TIMES.life for aim in aims)
    assert all(aim.step <= 50 for aim in aims)
    if count >= len(KINDS):
        wanted = {"save", "row", *(["evaluate"] if evaluates else [])}
        assert wanted <= {aim.kind for aim in aims}
    assert evaluates or "evaluate" not in {aim.kind for aim in aims}


def test_moments_are_spread_over_the_whole_life_of_a_run():
    aims = draw_aims(3000, TIMES, True, random.Random(0))
    moments = [aim for aim in aims if aim.kind in ("start", "moment")]
    starts = [aim for aim in moments if aim.kind == "start"]
    assert len(starts) / len(moments) == pytest.approx(9.0 / 20.0, abs=0.05)  # of 20 s, 9 come before the first row
    steps = np.array([aim.step for aim in moments if aim.kind == "moment"])
    assert np.bincount(steps // 5)[1:].min() > 30


def directory(folder, rows, log="begun\n", checkpoints=(), saving=()):
    """Write what a process leaves, with rows given as (step, name)."""
    (folder / record.CHECKPOINTS).mkdir(parents=True)
    (folder / record.LOG).write_text(log)
    (folder / record.METRICS).write_text("".join(json.dumps({"step": s, f"{n}/loss": 1.0}) + "\n" for s, n in rows))
    for step in (*checkpoints, *saving):
        place = folder / record.CHECKPOINTS / (str(step) if step in checkpoints else f".saving-{step}")
        place.mkdir()
        if step in checkpoints:
            (place / manifest.NAME).write_text("{}")


@pytest.mark.parametrize(
    ("left", "phase"),
    [
        ({"rows": [], "log": ""}, "start"),
        ({"rows": [], "saving": [7]}, "save"),
        ({"rows": []}, "compile"),
        ({"rows": [(5, "train")]}, "step"),
        ({"rows": [(10, "train")]}, "evaluate"),
        ({"rows": [(10, "train"), (10, "valid")]}, "step"),
        ({"rows": [(10, "train"), (10, "valid")], "checkpoints": [7], "saving": [10]}, "save"),
        ({"rows": [(40, "train")]}, "evaluate"),
    ],
)
def test_what_a_killed_process_was_doing_is_told_from_what_it_left(tmp_path, left, phase):
    watch = Watch(tmp_path / "run", short(tiny.mlp()))
    watch.look()
    directory(tmp_path / "run", [], log=left.get("log", "begun\n"))
    watch.look()  # as it does all the while
    shutil.rmtree(tmp_path / "run")
    directory(tmp_path / "run", **left)
    watch.look()
    assert phase_of(watch) == phase


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return a run of two steps, and a copy of it."""
    folder = tmp_path_factory.mktemp("pair")
    config = short(tiny.mlp(), steps=2)
    config.train.log_every = 1
    jaxlab.train(config, folder / "one")
    return folder / "one"


def edited(one, folder, step, name, value):
    """Return a copy of a run with another value in a row."""
    shutil.copytree(one, folder)
    rows = [json.loads(line) for line in (one / record.METRICS).read_text().splitlines()]
    changed = [row | {name: value} if row["step"] == step and name in row else row for row in rows]
    (folder / record.METRICS).write_text("".join(json.dumps(row) + "\n" for row in changed))
    return folder


def test_a_copy_is_equal_whatever_the_time_it_took(pair, tmp_path):
    copy = edited(pair, tmp_path / "copy", 1, "wall", 1e6)
    found = judge(Reader(pair), pair, copy, 2, 2)
    assert (found["verdict"], found["problems"], found["largest"]) == ("equal bits", [], {})


@pytest.mark.parametrize(("factor", "verdict"), [(1 + TOLERANCE / 2, "within tolerance"), (1.1, "different")])
def test_a_row_that_differs_is_named_with_its_step(pair, tmp_path, factor, verdict):
    loss = next(row["train/loss"] for row in record.read_metrics(pair) if row["step"] == 2)
    found = judge(Reader(pair), pair, edited(pair, tmp_path / "copy", 2, "train/loss", loss * factor), 2, 2)
    assert (found["verdict"], found["first"]) == (verdict, {"step": 2, "column": "train/loss", "leaf": None})


def test_other_examples_are_never_within_tolerance(pair, tmp_path):
    found = judge(Reader(pair), pair, edited(pair, tmp_path / "copy", 2, "data/ids", 7.0), 2, 2)
    assert (found["verdict"], found["ids"]) == ("different", "different")
    assert "other examples were seen: data/ids differs from the row of step 2 on" in found["problems"]


def test_a_row_that_lacks_or_comes_twice_makes_runs_different(pair, tmp_path):
    lines = (pair / record.METRICS).read_text().splitlines(keepends=True)
    for name, kept in {"fewer": lines[:-1], "twice": [lines[0], *lines]}.items():
        shutil.copytree(pair, tmp_path / name)
        (tmp_path / name / record.METRICS).write_text("".join(kept))
        assert judge(Reader(pair), pair, tmp_path / name, 2, 2)["verdict"] == "different"


LEAVES = {"state/params/a": np.arange(4.0, dtype=np.float32), "state/step": np.int32(3)}


def test_one_changed_bit_of_a_leaf_is_seen_and_measured():
    other = dict(LEAVES)
    other["state/params/a"] = LEAVES["state/params/a"].copy()
    other["state/params/a"].view(np.uint8)[0] ^= 1  # zero becomes the smallest number above it
    assert differing(LEAVES, other) == ["state/params/a"]
    assert 0 < distances(LEAVES, other)["state/params"] < 1e-30
    assert differing(LEAVES, {**LEAVES, "state/params/a": LEAVES["state/params/a"].astype(np.float64)}) != []
    assert differing(LEAVES, {"state/step": LEAVES["state/step"]}) == ["state/params/a"]


def test_integers_are_the_same_or_infinitely_far():
    assert distances(LEAVES, {**LEAVES, "state/step": np.int32(4)})["state/step"] == float("inf")
    assert distances(LEAVES, LEAVES) == {"state/params": 0.0, "state/step": 0.0}
