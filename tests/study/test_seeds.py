"""Seeds that train in one process: the same beginnings and data as alone, ordinary runs, and none disturbs another."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small_study

import jaxlab
from jaxlab.core import record
from jaxlab.core.errors import ConfigError, DivergedError, UsageError
from jaxlab.run.assemble import assemble, strategy_of
from jaxlab.run.seed_programs import beginning, in_pairs, one_by_one, together
from jaxlab.run.seeds import hindrance, train_seeds
from jaxlab.train import manifest

FORMS = ("together", "in_pairs", "in_turn")
UNEQUAL = ("wall", "steps_per_second", "examples_per_second", "data_wait")


def config(**changes):
    return jaxlab.override(small_study.base(), {path.replace("__", "."): value for path, value in changes.items()})


def rows(folder: Path) -> list[dict]:
    """Return the rows without the times."""
    return [{n: v for n, v in row.items() if n not in UNEQUAL} for row in record.read_metrics(folder)]


def final_state(folder: Path) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of every array's files in the last checkpoint."""
    steps = [path for path in (folder / record.CHECKPOINTS).iterdir() if path.name.isdigit()]
    files = manifest.read(max(steps, key=lambda path: int(path.name))).files
    return {name: digest for name, digest in files.items() if name.startswith(f"{manifest.ITEM}/state.")}


MADE = {
    "together": together,
    "in_pairs": lambda experiment, count: in_pairs(one_by_one(experiment)),
    "in_turn": lambda experiment, count: one_by_one(experiment),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_the_beginning_is_that_of_a_run_alone_bit_by_bit(make):
    seeds = (0, 7, 2**31 + 5)
    experiment = assemble(config(model__dropout=0.5, train__ema=0.9))
    programs = make(experiment, len(seeds))
    for group in [seeds[first : first + programs.count] for first in range(0, len(seeds), programs.count)]:
        states, _ = beginning(programs, group, {})
        for place, seed in enumerate(group):
            own = config(seed=seed, model__dropout=0.5, train__ema=0.9)
            alone = strategy_of(own).init(assemble(own).init)
            same = jax.tree.map(np.array_equal, programs.lift.lane(states, place), alone)
            assert all(jax.tree.leaves(same))


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_call", [1, 4])
@pytest.mark.parametrize("form", FORMS)
def test_every_seed_sees_the_data_and_takes_the_steps_of_its_run_alone(tmp_path, form, steps_per_call):
    wanted = config(model__dropout=0.3, train__steps_per_call=steps_per_call, train__log_every=1)
    train_seeds(wanted, {seed: tmp_path / str(seed) for seed in (3, 5)}, form)
    for seed in (3, 5):
        alone = rows(jaxlab.train(jaxlab.override(wanted, {"seed": seed}), tmp_path / f"alone-{seed}").workdir)
        found = rows(tmp_path / str(seed))
        assert [row["step"] for row in found] == [row["step"] for row in alone]
        assert [row.get("data/ids") for row in found] == [row.get("data/ids") for row in alone]
        first, first_alone = found[0], alone[0]
        assert first.keys() == first_alone.keys()
        assert all(first[name] == pytest.approx(first_alone[name], rel=1e-6) for name in first)
        assert all(a.keys() == b.keys() for a, b in zip(found, alone, strict=True))
        assert found[-1]["valid/loss"] == pytest.approx(alone[-1]["valid/loss"], rel=1e-3)
        assert jaxlab.Run(tmp_path / str(seed)).summary.keys() == jaxlab.Run(tmp_path / f"alone-{seed}").summary.keys()


@pytest.mark.slow
def test_seeds_of_one_data_order_share_their_batches(tmp_path):
    wanted = config(data__seed=11)
    train_seeds(wanted, {seed: tmp_path / str(seed) for seed in (0, 1)}, "together")
    alone = jaxlab.train(jaxlab.override(wanted, {"seed": 1}), tmp_path / "alone")
    ids = [[row["data/ids"] for row in rows(tmp_path / name) if "data/ids" in row] for name in ("0", "1", "alone")]
    assert ids[0] == ids[1] == ids[2]
    losses = [rows(tmp_path / name)[0]["train/loss"] for name in ("0", "1", "alone")]
    assert losses[0] != losses[1] == pytest.approx(losses[2], rel=1e-6)
    assert alone.config.data.seed == 11


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_seeds_that_were_interrupted_end_as_if_they_had_not_been(tmp_path, form):
    wanted = jaxlab.override(config(model__dropout=0.3), {"hooks.trap.kind": "raise"})
    whole = jaxlab.override(wanted, {"hooks.trap.times": 0})
    train_seeds(whole, {seed: tmp_path / f"whole-{seed}" for seed in (0, 1)}, form)
    places = {seed: tmp_path / str(seed) for seed in (0, 1)}
    for _ in range(2 if form == "in_turn" else 1):  # in turn, each seed comes to its own trap
        with pytest.raises(RuntimeError, match="the trap"):
            train_seeds(wanted, places, form)
    (places[1] / "trapped").write_text("x")  # together, the first seed's trap was all
    assert train_seeds(wanted, places, form) == {0: "", 1: ""}
    for seed in (0, 1):
        assert rows(places[seed]) == rows(tmp_path / f"whole-{seed}")
        assert final_state(places[seed]) == final_state(tmp_path / f"whole-{seed}") != {}
    before = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))]
    assert train_seeds(wanted, places, form) == {0: "", 1: ""}
    assert before == [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))]  # nothing was done again


@pytest.mark.slow
def test_seeds_two_at_a_time_end_with_the_bits_of_seeds_in_turn(tmp_path):
    places = {form: {seed: tmp_path / form / str(seed) for seed in range(3)} for form in ("in_pairs", "in_turn")}
    for form, folders in places.items():
        assert train_seeds(config(model__dropout=0.3), folders, form) == dict.fromkeys(folders, "")
    for seed, folder in places["in_pairs"].items():
        assert rows(folder) == rows(places["in_turn"][seed])
        assert final_state(folder) == final_state(places["in_turn"][seed]) != {}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["together", "in_pairs"])
def test_a_seed_that_diverges_leaves_the_others_alone(tmp_path, form):
    wanted = config(data__device_augment=(jaxlab.spec("small_study:poison", share=0.02),), train__log_every=1)
    seeds = range(4)
    found = train_seeds(wanted, {seed: tmp_path / str(seed) for seed in seeds}, form)
    diverged = {seed for seed in seeds if found[seed]}
    assert 0 < len(diverged) < 4
    for seed in seeds:
        alone = tmp_path / f"alone-{seed}"
        if seed in diverged:
            with pytest.raises(DivergedError):
                jaxlab.train(jaxlab.override(wanted, {"seed": seed}), alone)
            assert not jaxlab.Run(tmp_path / str(seed)).summary
        else:
            jaxlab.train(jaxlab.override(wanted, {"seed": seed}), alone)
            last, last_alone = rows(tmp_path / str(seed))[-1], rows(alone)[-1]
            assert last["valid/loss"] == pytest.approx(last_alone["valid/loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("path", "value"),
    [("parallel.strategy", "pmap"), ("parallel.mesh.fsdp", 2), ("train.non_finite", "rollback"),
     ("data.buckets.lengths", (4, 8)), ("parallel.offload", "optimizer")],
)  # fmt: skip
def test_what_cannot_share_a_program_is_told_by_its_path(tmp_path, path, value):
    wanted = jaxlab.override(small_study.base(), {path: value})
    with pytest.raises(ConfigError, match=rf"config\.{path}"):
        train_seeds(wanted, {0: tmp_path / "0"})
    assert "config.seed" in hindrance(small_study.base(), {-1: None})
    assert not list(tmp_path.iterdir())


def test_a_directory_of_another_run_is_refused(tmp_path):
    folder = tmp_path / "0"
    record.open_run(folder, config(seed=0, train__steps=999), {})
    with pytest.raises(UsageError, match=r"config\.train\.steps: 999 there, 30 now"):
        train_seeds(config(), {0: folder, 1: tmp_path / "1"})


@pytest.mark.slow
def test_seeds_lie_on_different_devices_and_send_nothing(tmp_path):
    program = Path(__file__).with_name("seeds_program.py")
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "NPROC": "8"}
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)], env=environment, capture_output=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 4
    assert found["shards"] == [2, 2, 2, 2]  # seeds on each device
    assert found["collectives"] == 0
    assert found["losses"] == pytest.approx(found["losses_alone"], rel=1e-5)
