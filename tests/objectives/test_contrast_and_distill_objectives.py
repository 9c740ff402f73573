"""Contrastive and distilling losses are their formulas in float64, and what they promise of gradients holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_helpers import check_laws, data_of, judge, masked, parts_of

from jaxlab.core import config as configs
from jaxlab.core.errors import ConfigError
from jaxlab.objectives import classify, contrast, distill

B, D, C = 6, 3, 4
random = np.random.default_rng(0)


def draw(*shape):
    return random.normal(0, 2, shape).astype(np.float32)


VIEWS = {"view": draw(B, D), "other_view": draw(B, D)}
PAIR = {"image_embedding": draw(B, D), "text_embedding": draw(B, D)}
TAUGHT = {"image": draw(B, 2), "label": np.arange(B, dtype=np.int32) % C, "teacher_logits": draw(B, C)}
CLASSES = {"classes": tuple("abcd")}
STUDENT = {"logits": draw(B, C)}
PAIRED = {"inputs": ("view",)}


def unit(x):
    return x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)


def embed(x):
    """Stand in for a model whose embedding is its input."""
    return {"embedding": x}, {"state": 3}


def test_nt_xent_is_simclrs_equation():
    batch, temperature = masked(VIEWS), 0.3
    loss = contrast.make(data_of(VIEWS), temperature=temperature)(embed, batch)
    real = batch["mask"] > 0
    views = np.concatenate([unit(VIEWS["view"][real]), unit(VIEWS["other_view"][real])])
    count, total = real.sum(), 0.0
    for i in range(2 * count):
        similarity = np.exp(views @ views[i] / temperature)
        total -= np.log(similarity[(i + count) % (2 * count)] / (similarity.sum() - similarity[i]))
    assert float(loss.total / loss.weight) == pytest.approx(total / (2 * count), rel=1e-5)
    assert float(loss.weight) == count
    assert np.array_equal(loss.outputs["other_embedding"], VIEWS["other_view"])


def test_the_symmetric_loss_is_clips():
    batch, temperature = masked(VIEWS), 0.3
    loss = judge(contrast.paired(data_of(VIEWS), **PAIRED, temperature=temperature), batch, PAIR)
    real = np.flatnonzero(batch["mask"])
    logits = unit(PAIR["image_embedding"][real]) @ unit(PAIR["text_embedding"][real]).T / temperature
    right = np.arange(len(real))
    each = [-jax.nn.log_softmax(x, axis=-1)[right, right] for x in (logits, logits.T)]
    assert float(loss.total) == pytest.approx(float(sum(each).sum() / 2), rel=1e-5)
    assert float(loss.weight) == len(real)


def test_equal_views_far_from_the_others_cost_nothing_and_a_single_real_row_neither():
    fields = {"view": 50 * np.eye(B, dtype=np.float32), "other_view": np.eye(B, dtype=np.float32)}
    assert float(contrast.make(data_of(fields), temperature=0.01)(embed, masked(fields)).total) < 1e-5
    alone = {**VIEWS, "mask": np.eye(B, dtype=np.float32)[2]}
    assert float(contrast.make(data_of(VIEWS))(embed, alone).total) == pytest.approx(0, abs=1e-6)
    assert float(judge(contrast.paired(data_of(VIEWS), **PAIRED), alone, PAIR).total) == pytest.approx(0, abs=1e-5)


def test_a_zero_embedding_has_a_finite_gradient():
    batch = masked(VIEWS, ())
    slope = jax.jit(jax.grad(lambda x: contrast.make(data_of(VIEWS))(embed, {**batch, "view": x}).total))
    assert np.isfinite(slope(jnp.zeros((B, D)))).all()


@pytest.mark.parametrize("name", ["first", "second"])
def test_padding_gives_nt_xent_no_gradient_and_has_none(name):
    batch = masked(VIEWS)
    hidden = batch["mask"][:, None] == 0
    spoilt = {**batch, **{n: np.where(hidden, np.nan, VIEWS[n]) for n in VIEWS}}
    objective, field = contrast.make(data_of(VIEWS)), {"first": "view", "second": "other_view"}[name]
    keep = np.flatnonzero(batch["mask"])
    expected = objective(embed, parts_of(batch, keep))
    found = objective(embed, spoilt)
    assert float(found.total) == pytest.approx(float(expected.total), rel=1e-5)
    slope = jax.jit(jax.grad(lambda x, batch: objective(embed, {**batch, field: x}).total))
    gradient = slope(jnp.asarray(spoilt[field]), spoilt)
    np.testing.assert_allclose(gradient[keep], slope(VIEWS[field][keep], parts_of(batch, keep)), atol=1e-5)
    assert not gradient[hidden[:, 0]].any()


def test_the_others_keep_the_laws():
    check_laws(contrast.paired(data_of(VIEWS), **PAIRED), VIEWS, PAIR, adds_up=False)
    check_laws(contrast.make(data_of(VIEWS)), VIEWS, {"embedding": VIEWS["view"]}, adds_up=False)
    check_laws(distill.make(data_of(TAUGHT, **CLASSES), temperature=3.0, soft=0.6), TAUGHT, STUDENT)


@pytest.mark.parametrize(("temperature", "soft"), [(1.0, 1.0), (4.0, 0.7), (0.5, 0.2)])
def test_distillation_is_hintons_formula(temperature, soft):
    batch = masked(TAUGHT)
    loss = judge(distill.make(data_of(TAUGHT, **CLASSES), temperature=temperature, soft=soft), batch, STUDENT)

    def softmax(logits_BC):
        power_BC = np.exp(logits_BC.astype(np.float64))
        return power_BC / power_BC.sum(axis=1, keepdims=True)

    teacher, student = (softmax(x / temperature) for x in (TAUGHT["teacher_logits"], STUDENT["logits"]))
    kl_B = (teacher * np.log(teacher / student)).sum(axis=1)
    hard_B = -np.log(softmax(STUDENT["logits"])[np.arange(B), TAUGHT["label"]])
    total = ((soft * temperature**2 * kl_B + (1 - soft) * hard_B) * batch["mask"]).sum()
    assert float(loss.total) == pytest.approx(total, rel=1e-5)
    assert float(loss.weight) == batch["mask"].sum()


def test_without_a_teachers_share_it_is_classification():
    data, batch = data_of(TAUGHT, **CLASSES), masked(TAUGHT)
    expected = judge(classify.make(data), batch, STUDENT)
    found = judge(distill.make(data, soft=0.0), batch, STUDENT)
    assert float(found.total) == pytest.approx(float(expected.total), rel=1e-6)
    assert np.array_equal(found.outputs["target"], expected.outputs["target"])


def test_a_student_like_the_teacher_has_nothing_to_learn_and_a_hot_one_the_gradient_of_the_logits_difference():
    data, batch = data_of(TAUGHT, **CLASSES), masked(TAUGHT, ())

    def slope(logits, **options):
        objective = distill.make(data, soft=1.0, **options)
        return jax.jit(jax.grad(lambda x: judge(objective, batch, {"logits": x}).total))(logits)

    np.testing.assert_allclose(slope(TAUGHT["teacher_logits"]), 0, atol=1e-5)
    difference = STUDENT["logits"] - TAUGHT["teacher_logits"]  # equation 4 there: of logits with mean 0, over C
    expected = (difference - difference.mean(axis=1, keepdims=True)) / C
    np.testing.assert_allclose(slope(STUDENT["logits"], temperature=2000.0), expected, atol=2e-2)


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("contrast:make", {"first": ("veiw",)}, "did you mean 'view'"),
        ("contrast:make", {"temperature": 0.0}, "temperature=0.0: expected a number above 0"),
        ("contrast:make", {"second": ()}, r"second=\(\): expected the names of the fields"),
        ("distill:make", {"teacher": "mask"}, r"the data's mask has the shape \(\)"),
        ("contrast:paired", {}, "the objective names the field 'tokens'"),
        ("contrast:paired", {"inputs": ("view",), "temperature": -1.0}, "temperature=-1.0"),
        ("distill:make", {"teacher": "teacher_logit"}, "did you mean 'teacher_logits'"),
        ("distill:make", {"teacher": "image"}, r"the data's image has the shape \(2,\); the objective expected \(4,\)"),
        ("distill:make", {"temperature": 0.0}, "temperature=0.0"),
        ("distill:make", {"soft": 1.1}, "soft=1.1: expected a number from 0 to 1"),
    ],
)
def test_what_cannot_be_is_an_error_that_names_the_config_path(factory, options, message):
    data = data_of({**VIEWS, **TAUGHT}, **CLASSES)
    with pytest.raises(ConfigError, match=f"^config.objective: .*{message}"):
        configs.build(configs.spec(f"jaxlab.objectives.{factory}", **options), path="config.objective", data=data)
