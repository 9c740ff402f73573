"""What an evaluation stores of each row: ranks that brute force finds again, no logits of tokens that nobody reads."""

import jax
import numpy as np
import pytest
import small_tasks as tasks

from jaxlab.run.assemble import assemble
from jaxlab.run.evaluate import evaluate
from jaxlab.run.evaluator import open_evaluator, unread_results
from jaxlab.run.store import read_arrays
from jaxlab.run.train import train


def trained(config, folder):
    config.train.steps = config.train.eval_every = config.train.checkpoint_every = 4
    config.sinks = type(config)()
    train(config, folder)
    return folder


def unread(config):
    experiment = assemble(config)
    return unread_results(experiment, jax.eval_shape(experiment.init))


def test_logits_are_left_out_of_the_store_where_they_are_of_tokens_and_no_metric_reads_them():
    config = tasks.tokens()  # whose rankings read them
    assert unread(config) == frozenset()
    del config.metrics.mrr
    assert unread(config) == {"logits"}
    assert unread(tasks.classes()) == frozenset()
    assert unread(tasks.numbers()) == frozenset()


@pytest.mark.slow
def test_without_the_logits_of_tokens_all_other_results_and_numbers_are_the_same(tmp_path):
    config = tasks.tokens()
    whole = evaluate(trained(config, tmp_path / "whole"), "test", plots=False)
    del config.metrics.mrr
    small = evaluate(trained(config, tmp_path / "small"), "test", plots=False)
    stores = [read_arrays(tmp_path / name, "test", 4) for name in ("whole", "small")]
    assert set(stores[0]) - set(stores[1]) == {"logits"}
    assert stores[0]["logits"].shape == (120, 10, 12)
    for name, values in stores[1].items():
        np.testing.assert_array_equal(values, stores[0][name])
    for name, value in small["metrics"].items():
        assert whole["metrics"][name] == value
    assert set(whole["metrics"]) - set(small["metrics"]) == {"test/mrr"}


@pytest.mark.slow
def test_the_stored_ranks_are_those_of_the_checkpoints_scores_and_so_are_the_numbers(tmp_path):
    folder = trained(tasks.recommended(), tmp_path / "run")
    result = evaluate(folder, "test", "latest", batch_size=16, plots=False)  # 40 rows: the last batch is padded
    evaluator = open_evaluator(folder, ("test",))
    with evaluator.checkpoints() as checkpoints:
        p = jax.device_get(evaluator.restore(checkpoints, 4, "raw")[0].params)
    user, item = (p[f"{name}_factors"]["embedding"] for name in ("user", "item"))
    score_UV = user @ item.T + p["item_bias"]["embedding"].T  # the rest is the same for all items
    train_rows, test_rows = (tasks.likes(split)._arrays for split in ("train", "test"))
    ranks = []
    for u, v in zip(test_rows["user"], test_rows["item"], strict=True):
        had = set(train_rows["item"][train_rows["user"] == u].tolist())
        ranks.append(1 + sum(score_UV[u, w] >= score_UV[u, v] for w in range(12) if w != v and w not in had))
    stored = read_arrays(folder, "test", 4)
    assert stored["rank"].tolist() == ranks
    assert result["metrics"]["test/hit_rate_3"] == pytest.approx(np.mean(np.array(ranks) <= 3))
    assert result["metrics"]["test/mrr"] == pytest.approx(np.mean(1 / np.array(ranks)))
    interval = result["intervals"]["test/hit_rate_3"]
    assert interval["method"] == "Wilson"
    assert interval["low"] < interval["point"] < interval["high"]
