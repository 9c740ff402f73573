"""A search finds what is good, goes on where it was stopped, and gives arms up for no noise."""

import dataclasses
import json

import numpy as np
import pytest
import small_study

import jaxlab
from jaxlab.cli import main
from jaxlab.core.errors import UsageError
from jaxlab.study.analysis import analyse
from jaxlab.study.grid import Choice, Integers, LogUniform, Uniform
from jaxlab.study.search import Search, is_hopeless, search
from jaxlab.study.searching import BEST, BEST_CONFIG

pytest.importorskip("optuna")
SPACE = {"x": Uniform(-1.0, 1.0), "n": Integers(1, 4), "kind": Choice(("good", "bad"))}


def quality(arm: dict, seed: int) -> float:
    noise = np.random.default_rng((seed, int(1e6 * (arm["x"] + 1)))).normal(0, 0.01)
    return -((arm["x"] - 0.3) ** 2) - 0.1 * arm["n"] - (arm["kind"] == "bad") + noise


def run_search(wanted: Search, folder, stop_after: int = 10**9, seeds: int = 4):
    """Run a search over made-up arms; a KeyboardInterrupt ends it after so many arms."""
    ran = []

    def values(arm, stop):
        if len(ran) >= stop_after:
            raise KeyboardInterrupt
        found = []
        while len(found) < seeds and not (found and stop(found)):
            found.append(quality(arm, len(found)))
        ran.append(arm)
        return found

    return search(wanted, "max", folder, values), ran


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_is_stopped_ends_as_one_that_is_not(tmp_path, sampler):
    wanted = Search(SPACE, trials=14, sampler=sampler, start=4, seed=3)
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole, _ = run_search(wanted, tmp_path / "whole")
    for stop_after in (3, 6):
        with pytest.raises(KeyboardInterrupt):
            run_search(wanted, tmp_path / "stopped", stop_after)
    stopped, ran = run_search(wanted, tmp_path / "stopped")
    assert [each.arm for each in stopped] == [each.arm for each in whole]
    assert [list(each.values) for each in stopped] == [list(each.values) for each in whole]
    assert len(ran) == 14 - 9
    assert all(each.arm["n"] in (1, 2, 3, 4) and -1 <= each.arm["x"] <= 1 for each in whole)
    if sampler == "tpe":
        later = [each.arm["kind"] for each in whole[6:]]
        assert later.count("good") > len(later) / 2  # it has learnt which


def test_hopeless_arms_are_stopped_and_arms_within_the_noise_are_not():
    generator = np.random.default_rng(0)
    best = list(0.9 + generator.normal(0, 0.01, 6))
    other = list(0.85 + generator.normal(0, 0.01, 6))
    assert is_hopeless([0.5], [best, other], "max")
    assert not is_hopeless([0.89], [best, other], "max")
    assert not is_hopeless([0.95], [best, other], "max")
    assert is_hopeless([0.99, 0.98], [[0.5, 0.51, 0.49], [0.6, 0.61]], "min")
    assert not is_hopeless([0.0], [[0.9], [0.8]], "max")  # nothing says how far seeds differ
    assert not is_hopeless([float("nan")], [best, other], "max")
    stopped = sum(is_hopeless([x], [best, other], "max") for x in 0.9 + generator.normal(0, 0.01, 500))
    assert stopped <= 500 * 0.05  # equally good arms


@pytest.mark.slow
def test_the_best_arm_is_written_as_train_takes_it(tmp_path, capsys):
    space = {"optimizer.learning_rate": LogUniform(1e-5, 1e-1)}
    base = jaxlab.Study(small_study.base(), [{}], (0, 1, 2), "valid/accuracy", search=Search(space, trials=3, start=2))
    result = jaxlab.run_study(base, tmp_path / "search")
    assert result["not_finished"] == []
    results = analyse(tmp_path / "search")
    whole = [arm for arm in results["arms"] if len(arm["values"]) == 3]
    best = max(whole, key=lambda arm: arm["spread"]["mean"])
    assert json.loads((tmp_path / "search" / BEST).read_text()) == best["changes"]
    assert results["failures"] == []  # seeds that an arm was not given are none
    again = jaxlab.load_config(tmp_path / "search" / BEST_CONFIG)
    if best["changes"]:
        assert again.optimizer.learning_rate == best["changes"]["optimizer.learning_rate"]
    file = tmp_path / "base.json"
    file.write_text(jaxlab.core.config.to_json(small_study.base()))
    flags = ["check", f"--config={file}", f"--overrides={tmp_path / 'search' / BEST}", "--allow=small_study"]
    assert main(flags) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert shown["config"]["optimizer.learning_rate"] == again.optimizer.learning_rate


def test_a_search_that_makes_no_sense_says_so():
    with pytest.raises(UsageError, match="did you mean 'tpe'"):
        Search(SPACE, 3, sampler="tpee")
    with pytest.raises(UsageError, match="one at least"):
        Search({}, 3)
    assert dataclasses.replace(Search(SPACE, 3), trials=4).trials == 4
