"""``sanity``: every broken pipeline is caught by the check that is for it, and right ones pass all of them."""

import math
from pathlib import Path

import broken_pipelines as pipelines
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxlab.core import record
from jaxlab.core.config import build, load, spec
from jaxlab.core.errors import UsageError
from jaxlab.core.types import DataSpec
from jaxlab.run.assemble import assemble
from jaxlab.run.sanity import print_sanity, sanity
from jaxlab.run.sanity_fit import overfit
from jaxlab.run.sanity_labels import Losses, labels
from jaxlab.run.sanity_probe import make_probe
from jaxlab.run.sanity_rows import independence
from jaxlab.run.sanity_stand_ins import best_results, fields_read, loss_of, zeros
from jaxlab.run.sanity_start import first_steps, initial_loss

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAMES = [
    "initial_loss", "gradients", "dead_units", "inputs_read", "independence", "overfit", "shuffled_labels",
    "true_labels",
]  # fmt: skip


def probe_of(config, steps=100):
    return make_probe(assemble(config, ("train", "valid")), steps, seconds=600)


def named(findings, name):
    (finding,) = [finding for finding in findings if finding.name == name]
    return finding


def verdicts(result):
    return {finding["name"]: finding["verdict"] for finding in result["findings"]}


@pytest.mark.parametrize("config", ["mlp", "regression"])
def test_a_right_pipeline_passes_every_check_opens_no_test_split_and_writes_nothing(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    right = {"mlp": lambda: pipelines.config_of("Right"), "regression": pipelines.regression}[config]()
    result = sanity(right, seconds=600)
    assert verdicts(result) == dict.fromkeys(NAMES, "passed"), result
    assert (result["errors"], result["warnings"], result["cut"]) == (0, 0, 0)
    assert record.jsonable(result)["findings"][0]["numbers"]["theory"] > 0
    assert not list(tmp_path.iterdir())


def test_a_network_with_batch_statistics_and_dropout_passes_as_its_averages_may_catch_up():
    finding, _ = overfit(probe_of(load(ROOT / "tests/train/tiny.py:cnn"), steps=200))
    assert finding.verdict == "passed", finding


def test_a_language_model_passes_and_has_no_labels_to_shuffle():
    config = pipelines.config_of("Right")
    config.data.train = spec("test_sanity:tokens")
    del config.data.valid
    config.model = spec("jaxlab.models.decoder:gpt2", width=16, depth=1, heads=2, max_length=8, dropout=0.0)
    config.objective = spec("jaxlab.objectives.language:causal")
    result = sanity(config, seconds=600)
    expected = dict.fromkeys(NAMES, "passed") | dict.fromkeys(NAMES[-2:], "not applicable")
    assert verdicts(result) == expected, result
    theory = result["findings"][0]["numbers"]["theory"]
    assert theory == pytest.approx(math.log(11), rel=1e-5)


def tokens():
    from jaxlab.data.arrays import ArraySource

    return ArraySource({"tokens": np.random.default_rng(0).integers(0, 11, (64, 8))}, {"vocabulary_size": 11})


def test_shuffled_labels_find_a_target_among_the_inputs():
    finding = named(
        labels(probe_of(pipelines.config_of("Right", inputs=("features", "label"))), 1e-2), "shuffled_labels"
    )
    assert finding.verdict == "failed", finding
    assert finding.numbers["shuffled_loss"] < finding.numbers["nothing_loss"] / 2


def test_shuffled_labels_find_a_transform_that_writes_the_label_into_the_inputs():
    config = pipelines.config_of("Right")
    config.data.transforms = (spec("broken_pipelines:make_told"),)
    assert named(labels(probe_of(config), 1e-2), "shuffled_labels").verdict == "failed"


def test_labels_of_other_rows_teach_no_more_than_shuffled_ones():
    shuffled, true = labels(probe_of(pipelines.config_of("Right", strangers=True)), 1e-3)
    assert (shuffled.verdict, true.verdict) == ("passed", "failed"), true


def test_without_a_validation_split_training_rows_are_held_out_to_judge_by():
    config = pipelines.config_of("Right")
    del config.data.valid
    shuffled, true = labels(probe_of(config), 1e-3)
    assert (shuffled.verdict, true.verdict) == ("passed", "passed")
    assert true.numbers["rows"] == pipelines.ROWS["train"] // 2


@pytest.mark.parametrize(
    ("model", "field", "shown_by"),
    [("Batchwise", "features", "gradient"), ("Batchwise", "token", "change"), ("Rounded", "features", "change")],
)
def test_a_result_that_depends_on_the_batchs_other_rows_is_named(model, field, shown_by):
    probe = probe_of(pipelines.config_of(model, inputs=(field,)))
    finding = independence(probe, probe.start)
    assert finding.verdict == "failed"
    assert finding.meaning.startswith("logits of one row depends on other rows")
    assert finding.numbers[shown_by]["logits"] > 0
    assert finding.numbers[shown_by].get("own", 0) == 0


def test_rows_of_a_right_model_are_independent_in_half_precision_too():
    config = pipelines.config_of("Right", inputs=("features", "token"))
    config.train.precision = "bfloat16"
    probe = probe_of(config)
    finding = independence(probe, probe.start)
    assert finding.verdict == "passed", finding
    assert finding.numbers["gradient"] == {"logits": 0}


def test_a_field_that_the_model_ignores_and_a_layer_that_is_0_for_every_input_are_named():
    findings, _ = first_steps(probe_of(pipelines.config_of("Dead", inputs=("features", "other"))))
    deaf, dead = named(findings, "inputs_read"), named(findings, "dead_units")
    assert (deaf.verdict, deaf.numbers["ignored"]) == ("failed", ["other"])
    assert dead.verdict == "failed"
    assert dead.meaning.startswith("silent: no gradient at all")
    assert (dead.numbers["dead"], dead.numbers["units"]) == (32, 36)


def test_a_part_of_dead_units_is_a_warning():
    config = pipelines.config_of("Dead")
    config.model.share = 0.25
    findings, _ = first_steps(probe_of(config))
    finding = named(findings, "dead_units")
    assert finding.verdict == "warning"
    assert finding.numbers["shares"] == {"silent": 0.25}


def test_a_layer_that_the_config_freezes_need_not_have_a_gradient():
    config, freeze = pipelines.config_of("Dead"), (("silent/.*", True), (".*", False))
    config.optimizer = spec("jaxlab.optim.rules:make", optimizer=spec("optax:adam"), learning_rate=1e-3, freeze=freeze)
    findings, _ = first_steps(probe_of(config))
    finding = named(findings, "dead_units")
    assert finding.verdict == "passed", finding
    assert finding.numbers["frozen"] == ["silent/bias", "silent/kernel"]


def test_a_gradient_that_is_not_finite_is_named():
    findings, _ = first_steps(probe_of(pipelines.config_of("Rooted")))
    finding = named(findings, "gradients")
    assert finding.verdict == "failed"
    assert "root" in finding.meaning


@pytest.mark.parametrize("config", [pipelines.config_of("Loud"), pipelines.config_of("Right", scale=100.0)])
def test_weights_or_inputs_of_a_wrong_scale_are_seen_in_the_first_loss(config):
    finding = initial_loss(probe_of(config))
    assert finding.verdict == "failed"
    assert finding.numbers["theory"] == pytest.approx(math.log(pipelines.CLASSES), rel=1e-5)


def test_targets_far_from_what_the_model_returns_are_a_warning():
    config = pipelines.regression()
    config.data.train = spec("test_sanity:far")
    finding = initial_loss(probe_of(config))
    assert finding.verdict == "warning", finding


def far():
    from jaxlab.data.arrays import ArraySource

    fields = pipelines.points(regression=True).__getitems__(np.arange(100))
    return ArraySource({**fields, "target": fields["target"] + 1000}, {"classes": tuple("abcd")})


def test_a_model_without_the_means_cannot_learn_a_batch_by_heart():
    finding, _ = overfit(probe_of(pipelines.config_of("Narrow")))
    assert finding.verdict == "failed"
    assert finding.meaning.startswith("one batch can't be learnt by heart")
    assert finding.numbers["closed"] < 0.5


def test_a_model_that_forgets_in_evaluation_is_told_from_one_that_cannot_learn():
    finding, _ = overfit(probe_of(pipelines.config_of("Forgetful"), steps=200))
    assert finding.verdict == "failed"
    assert "in training but not in evaluation" in finding.meaning


def test_what_the_time_does_not_allow_is_reported_as_cut_and_is_no_error(capsys):
    result = sanity(pipelines.config_of("Narrow"), seconds=1e-6)
    assert verdicts(result) == {name: "cut" if name != "initial_loss" else "passed" for name in NAMES}
    assert (result["errors"], result["cut"]) == (0, 7)
    print_sanity(result)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("passed: initial_loss: ")
    assert lines[-1].startswith("cut: true_labels: the time was up")


@pytest.mark.parametrize(("flag", "value"), [("steps", 0), ("seconds", 0.0), ("seconds", math.nan)])
def test_too_few_steps_or_seconds_are_a_usage_error(flag, value):
    with pytest.raises(UsageError, match=f"--{flag}={value}"):
        sanity(pipelines.config_of("Right"), **{flag: value})


def batch_of(**fields):
    count = len(next(iter(fields.values())))
    return {name: jnp.asarray(x) for name, x in fields.items()} | {"mask": jnp.ones(count), "id": jnp.arange(count)}


def objective_of(name, fields, meta=None, **options):
    example = {n: jnp.zeros(np.shape(x)[1:], np.asarray(x).dtype) for n, x in fields.items()}
    data = DataSpec(example, len(next(iter(fields.values()))), meta or {"classes": tuple("abc")})
    return build(spec(f"jaxlab.objectives.{name}", **options), path="config.objective", data=data)


X = np.arange(8, dtype=np.float32).reshape(8, 1)
LABEL = np.array([0, 0, 0, 0, 1, 1, 2, 2], np.int32)
TARGET = np.array([[0.5], [1], [2], [-1], [3], [0], [1], [2.5]], np.float32)
SHARES = np.array([0.5, 0.25, 0.25])


@pytest.mark.parametrize(
    ("name", "answers", "results", "options", "theory"),
    [
        ("classify:make", {"label": LABEL}, {"logits": (8, 3)}, {}, math.log(3)),
        ("classify:make", {"label": LABEL}, {"logits": (8, 3)}, {"class_weights": (1.0, 2.0, 5.0)}, math.log(3)),
        ("classify:multi_label", {"labels": TARGET > 1}, {"logits": (8, 1)}, {}, math.log(2)),
        ("regress:make", {"target": TARGET}, {"forecast": (8, 1)}, {}, float(np.mean(TARGET**2))),
        ("regress:absolute", {"target": TARGET}, {"forecast": (8, 1)}, {}, float(np.mean(abs(TARGET)))),
        ("contrast:make", {"other": X}, {"embedding": (8, 4)}, {"second": ("other",)}, math.log(15)),
        ("rank:bpr", {"item": LABEL}, {"score": (8,), "negative_scores": (8, 3)}, {"shifts": 3}, math.log(2)),
    ],
)  # fmt: skip
def test_the_loss_of_zeros_is_the_theory_of_each_objective(name, answers, results, options, theory):
    fields = {"x": X, **answers}
    option = "first" if name == "contrast:make" else "inputs"
    objective = objective_of(name, fields, **{option: ("x",)}, **options)
    like = [{n: jnp.ones(shape) for n, shape in results.items()}] * (2 if name == "contrast:make" else 1)
    assert loss_of(objective, zeros(like), batch_of(**fields), {}) == pytest.approx(theory, rel=1e-5)


def test_the_best_results_are_the_entropies_that_theory_says():
    fields = {"x": X, "label": LABEL}
    objective = objective_of("classify:make", fields, inputs=("x",), label_smoothing=0.3)
    smoothed = np.full(3, 0.1) + np.array([0.7, 0, 0])
    like = [{"logits": jnp.zeros((8, 3)), "steps": jnp.zeros(8, jnp.int32)}]
    floor, _ = best_results(objective, batch_of(**fields), {}, like, constant=False)
    constant, results = best_results(objective, batch_of(**fields), {}, like, constant=True)
    assert floor == pytest.approx(stats.entropy(smoothed), rel=1e-3)
    assert constant == pytest.approx(stats.entropy(0.7 * SHARES + 0.1), rel=1e-3)
    assert np.ptp(np.asarray(results[0]["logits"]), axis=0).max() == 0


def test_the_best_constant_of_squares_is_the_mean_whose_loss_is_the_variance():
    fields = {"x": X, "target": TARGET}
    objective = objective_of("regress:make", fields, inputs=("x",))
    constant, results = best_results(
        objective, batch_of(**fields), {}, [{"forecast": jnp.zeros((8, 1))}], constant=True
    )
    assert constant == pytest.approx(TARGET.var(), rel=1e-4)
    np.testing.assert_allclose(results[0]["forecast"], TARGET.mean(), rtol=1e-3)


def test_the_fields_that_the_model_and_only_the_loss_read_are_found_by_calling_the_objective():
    fields = {"x": X, "same": np.ones((8, 1), np.float32), "spare": X, "label": LABEL}
    objective = objective_of("classify:make", fields, inputs=("x", "same"))
    inputs, answers = fields_read(objective, batch_of(**fields), {}, [{"logits": jnp.zeros((8, 3))}])
    assert (inputs, answers) == (["x"], ["label"])


def test_the_standard_errors_between_two_models_are_those_of_the_paired_t_test():
    generator = np.random.default_rng(0)
    one, two = (Losses(generator.gamma(2, size=50), 50.0) for _ in range(2))
    assert one.better_than(two) == pytest.approx(stats.ttest_rel(two.totals, one.totals).statistic)
    assert one.better_than(one) == 0
