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
from jaxlab.study.attempts import attempts
from jaxlab.study.grid import Choice, Integers, LogUniform, Uniform
from jaxlab.study.pruning import Bar, Noise, Rest, bar_of, is_hopeless
from jaxlab.study.search import Search, Tried, search
from jaxlab.study.searching import BEST, BEST_CONFIG
from jaxlab.study.tasks import FINISHED, PRUNED, Task, do, done

pytest.importorskip("optuna")
SEED = 5  # a good rate, then one that is far too low
SPACE = {"x": Uniform(-1.0, 1.0), "n": Integers(1, 4), "kind": Choice(("good", "bad"))}


def quality(arm: dict, seed: int) -> float:
    noise = np.random.default_rng((seed, int(1e6 * (arm["x"] + 1)))).normal(0, 0.01)
    return -((arm["x"] - 0.3) ** 2) - 0.1 * arm["n"] - (arm["kind"] == "bad") + noise


def run_search(wanted: Search, folder, stop_after: int = 10**9, seeds: int = 4):
    """Run a search over made-up arms; a KeyboardInterrupt ends it after so many arms."""
    ran = []

    def values(arm, others):
        if len(ran) >= stop_after:
            raise KeyboardInterrupt
        found = []
        while len(found) < seeds and not is_hopeless(found, others, "max"):
            found.append(quality(arm, len(found)))
        ran.append(arm)
        return Tried(found, is_hopeless(found, others, "max"))

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


def curves(count: int, deviation: float) -> tuple[list[dict[int, float]], list[float]]:
    """Return runs that gain 0.2 from step 10 on, give or take."""
    generator = np.random.default_rng(1)
    begun = 0.7 + generator.normal(0, 0.01, count)
    finals = begun + 0.2 + generator.normal(0, deviation, count)
    return [{10: b, 20: f} for b, f in zip(begun, finals, strict=True)], list(finals)


@pytest.mark.parametrize(("direction", "sign"), [("max", 1.0), ("min", -1.0)])
def test_a_run_is_given_up_once_its_end_cannot_reach_the_best_arms_bound(direction, sign):
    begun, finals = curves(6, 0.01)
    begun = [{step: sign * value for step, value in curve.items()} for curve in begun]
    finals = [sign * value for value in finals]
    bar = bar_of(begun, finals, [finals[:3], finals[3:]], direction, "m")
    assert bar.projected(10, sign * 0.5) == pytest.approx(sign * 0.7, abs=0.02)
    assert "given up at step 10" in bar.out_of_reach(10, {"m": sign * 0.5})
    assert bar.out_of_reach(10, {"m": sign * 0.7}) == ""
    assert bar.out_of_reach(20, {"m": sign * 0.7}) != ""  # nothing is gained any more
    for row in ({"other": 0.0}, {"m": float("nan")}):
        assert bar.out_of_reach(10, row) == ""
    assert bar.out_of_reach(15, {"m": sign * 0.1}) == ""  # nobody was measured there


def test_no_run_is_given_up_while_too_little_is_known():
    begun = [{10: value} for value in (0.2, 0.5, 0.7, 0.8, 0.85, 0.3)]
    bar = bar_of(begun, [0.9, 0.91, 0.9, 0.89, 0.9, 0.9], [[0.9, 0.9, 0.91]], "max", "m")
    assert bar.out_of_reach(10, {"m": 0.4}) == ""  # gains differ too much to tell
    begun, finals = curves(4, 0.01)
    assert bar_of(begun, finals, [finals], "max", "m") is None
    begun, finals = curves(6, 0.01)
    assert bar_of(begun, finals, [[0.9], [0.8]], "max", "m") is None


def test_equally_good_runs_are_hardly_ever_given_up():
    generator, wrong = np.random.default_rng(2), 0
    for _ in range(400):
        finals = 0.9 + generator.normal(0, 0.02, 8)
        begun = [{10: final - 0.2 + generator.normal(0, 0.02)} for final in finals]
        bar = bar_of(begun, list(finals), [list(finals[:4]), list(finals[4:])], "max", "m")
        wrong += bool(bar.out_of_reach(10, {"m": 0.7 + generator.normal(0, 0.02)}))
    assert wrong <= 400 * 0.05


@pytest.mark.slow
def test_a_run_below_the_bar_is_saved_and_left(tmp_path):
    noise, rest = Noise(0.01, 0.99), {10: Rest(0.0, 0.01), 20: Rest(0.0, 0.01)}
    bar = Bar("valid/accuracy", 1.0, noise, rest)
    task = Task("a", 0, small_study.base(), tmp_path / "run", (), "best", {}, (), bar)
    found = do(task)
    assert found.status == PRUNED
    assert "given up at step 10" in found.problem
    assert not done(task)
    assert jaxlab.Run(task.folder).history["valid/accuracy"].count() == 1
    assert do(task._replace(bar=None)).status == FINISHED  # nothing is lost: it can go on
    jaxlab.train(small_study.base(), tmp_path / "whole")
    wanted, rows = (jaxlab.Run(place).history["valid/accuracy"].dropna() for place in (tmp_path / "whole", task.folder))
    assert list(wanted) == list(rows)


@pytest.mark.slow
def test_the_best_arm_is_written_as_train_takes_it(tmp_path, capsys):
    space = {"optimizer.learning_rate": LogUniform(1e-5, 1e-1)}
    wanted = Search(space, trials=3, start=3, seed=SEED)
    longer = {"model.hidden": (32,), "train.steps": 60, "train.eval_every": 20}
    config = jaxlab.override(small_study.base(), longer)
    base = jaxlab.Study(config, [{}], (0, 1, 2), "valid/accuracy", search=wanted)
    result = jaxlab.run_study(base, tmp_path / "search")
    assert result["not_finished"] == []
    given_up = [row for row in attempts(tmp_path / "search") if row["status"] == PRUNED]
    assert given_up  # within a run, the second arm
    assert jaxlab.run_study(base, tmp_path / "search") == result  # and not begun again
    assert [row for row in attempts(tmp_path / "search") if row["status"] == PRUNED] == given_up
    results = analyse(tmp_path / "search")
    whole = [arm for arm in results["arms"] if len(arm["values"]) == 3]
    best = max(whole, key=lambda arm: arm["spread"]["mean"])
    assert json.loads((tmp_path / "search" / BEST).read_text()) == best["changes"]
    assert any("was given up by the search" in sentence for sentence in jaxlab.report(tmp_path / "search")["sentences"])
    assert results["failures"] == []  # seeds that an arm was not given are none
    again = jaxlab.load_config(tmp_path / "search" / BEST_CONFIG)
    if best["changes"]:
        assert again.optimizer.learning_rate == best["changes"]["optimizer.learning_rate"]
    file = tmp_path / "base.json"
    file.write_text(jaxlab.core.config.to_json(config))
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
