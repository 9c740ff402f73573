"""What a step offers an optimizer, which parameters an evaluation takes, and how a config's optimizer is built."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib
from optim_helpers import DATA, MODEL, OBJECTIVE, assert_close, make_batch, states, trained
from optimizer_cases import PERTURBED, SGD

from jaxlab.core import config as configs
from jaxlab.core.config import spec
from jaxlab.core.errors import ConfigError
from jaxlab.models import mlp
from jaxlab.optim import chain, rules
from jaxlab.optim.evaluation import parameters
from jaxlab.run.optimizer import make_optimizer, rule_matches
from jaxlab.train.eval_step import make_eval_step
from jaxlab.train.step import init_state, make_train_step

PARTS = 4


def mean_loss(params, batch):
    logits = MODEL.apply({"params": params}, batch["image"], train=True)["logits"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()


def recording(like):
    """Return gradient descent whose state is what it makes of the extra arguments, and at first what is `like` it."""

    def update(gradient, state, params, *, value, grad, value_fn, grad_fn, obj_fn):
        elsewhere = jax.tree.map(lambda p: p + 0.1, params)
        made = {
            "value": value, "grad": grad, "value there": value_fn(elsewhere), "grad there": grad_fn(elsewhere, 0),
            "differentiated": jax.grad(value_fn)(elsewhere),
            "curvature": jax.jvp(jax.grad(obj_fn), (params,), (elsewhere,))[1],
        }  # fmt: skip
        return jax.tree.map(lambda g: -g, gradient), made

    return optax.GradientTransformationExtraArgs(like, update)


def expected_arguments(params, batch):
    elsewhere = jax.tree.map(lambda p: p + 0.1, params)
    gradient = jax.grad(mean_loss)
    return {
        "value": mean_loss(params, batch), "grad": gradient(params, batch),
        "value there": mean_loss(elsewhere, batch), "grad there": gradient(elsewhere, batch),
        "differentiated": gradient(elsewhere, batch),
        "curvature": jax.jvp(lambda p: gradient(p, batch), (params,), (elsewhere,))[1],
    }  # fmt: skip


@pytest.mark.parametrize("how", ["one", "accumulated", "devices"])
def test_an_optimizer_is_offered_the_loss_as_a_number_and_as_a_function_of_the_whole_batch(how):
    batch = make_batch(3)
    optimizer = recording(lambda params: expected_arguments(params, batch))
    state = init_state(MODEL, OBJECTIVE, optimizer, batch, 0, ema=False)
    options = {"grad_accumulation": 2} if how == "accumulated" else {}
    if how == "devices":  # as pmap sees them: each has a part of the rows, and sums go over the axis
        options = {"batch_axis": "data"}
    step = make_train_step(MODEL, OBJECTIVE, {}, chain.uniform(optimizer), seed=0, **options)
    if how == "devices":
        batch_D = {name: x.reshape(PARTS, -1, *x.shape[1:]) for name, x in batch.items()}
        after_D, _ = jax.jit(jax.vmap(step, in_axes=(None, 0), axis_name="data"))(state, batch_D)
        for place in range(PARTS):
            found = jax.tree.map(lambda x, place=place: x[place], after_D.opt_state)
            assert_close(found, expected_arguments(state.params, batch), rtol=1e-4, atol=1e-6)
    else:
        after, _ = jax.jit(step)(state, batch)
        assert_close(after.opt_state, expected_arguments(state.params, batch), rtol=1e-4, atol=1e-6)


def test_the_functions_use_the_step_s_own_dropout():
    model = mlp.make(DATA, None, hidden=(16,), dropout=0.5)
    batch = make_batch(0)

    def init(params):
        return {"same": jnp.zeros(()), "other": jnp.zeros(())}

    def update(gradient, state, params, *, value, value_fn, **extra):
        return gradient, {"same": value_fn(params), "other": value}

    optimizer = optax.GradientTransformationExtraArgs(init, update)
    state = init_state(model, OBJECTIVE, optimizer, batch, 0, ema=False)
    after, _ = jax.jit(make_train_step(model, OBJECTIVE, {}, optimizer, seed=0))(state, batch)
    assert float(after.opt_state["same"]) == pytest.approx(float(after.opt_state["other"]), rel=1e-6)


def test_opaque_sharpness_aware_minimisation_is_the_paper_s_step():
    node = spec("optax.contrib:sam", optimizer=SGD, adv_optimizer=PERTURBED, opaque_mode=True)
    first, last = trained(make_optimizer(node), steps=1)
    batch = make_batch(0)
    gradient = jax.grad(mean_loss)(first.params, batch)
    norm = optax.tree.norm(gradient)
    above = jax.tree.map(lambda p, g: p + 0.01 * g / norm, first.params, gradient)
    expected = jax.tree.map(lambda p, g: p - 0.05 * g, first.params, jax.grad(mean_loss)(above, batch))
    assert_close(last.params, expected, rtol=1e-5, atol=1e-7)


def test_transparent_sharpness_aware_minimisation_takes_two_steps_and_is_evaluated_where_it_stood():
    node = spec("optax.contrib:sam", optimizer=SGD, adv_optimizer=PERTURBED)
    optimizer = make_optimizer(node)
    first, away, back = states(optimizer, steps=2)
    assert not np.allclose(away.params["Dense_1"]["kernel"], first.params["Dense_1"]["kernel"])
    assert_close(parameters(away), first.params)
    assert_close(parameters(back), back.params)
    gradient = jax.grad(mean_loss)(away.params, make_batch(1))
    expected = jax.tree.map(lambda p, g: p - 0.05 * g, first.params, gradient)
    assert_close(back.params, expected, rtol=1e-5, atol=1e-7)


NESTED = {
    "alone": lambda inner: inner,
    "in a chain": lambda inner: chain.make((optax.clip_by_global_norm(1.0), inner)),
    "in steps": lambda inner: chain.uniform(optax.MultiSteps(inner, 2)),
    "beside frozen": lambda inner: rules.make(inner, 0.1, freeze=(("Dense_0/.*", True), (".*", False))),
}


@pytest.mark.parametrize("where", NESTED)
def test_schedule_free_is_evaluated_at_its_average_wherever_it_stands(where):
    first, last = trained(NESTED[where](contrib.schedule_free_sgd(0.5, b1=0.7)), steps=6)
    plain, state = trained(contrib.schedule_free_sgd(0.5, b1=0.7), steps=6)
    if where == "alone":
        expected = contrib.schedule_free_eval_params(state.opt_state, state.params)
        assert_close(parameters(last), expected)
    found = parameters(last)
    assert not np.allclose(found["Dense_1"]["kernel"], last.params["Dense_1"]["kernel"], rtol=1e-3)
    frozen = np.array_equal(found["Dense_0"]["kernel"], first.params["Dense_0"]["kernel"])
    assert frozen == (where == "beside frozen")
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, plain.params)


def test_the_average_of_schedule_free_is_the_mean_of_the_base_s_points():
    found = states(contrib.schedule_free_sgd(0.5, b1=0.7, weight_lr_power=0.0), steps=5)[1:]
    points = [state.opt_state.z for state in found]
    mean = jax.tree.map(lambda *z: sum(z) / len(z), *points)  # Defazio et al. 2024, equation 3, unrolled
    assert_close(parameters(found[-1]), mean, rtol=1e-4, atol=1e-5)


def test_an_evaluation_step_takes_the_parameters_that_it_is_told():
    _, state = trained(contrib.schedule_free_sgd(0.5, b1=0.7))
    batch = make_batch(9)
    _, found = make_eval_step(MODEL, OBJECTIVE, {}, parameters=parameters)(state, batch)
    _, raw = make_eval_step(MODEL, OBJECTIVE, {})(state, batch)
    expected = MODEL.apply({"params": parameters(state)}, batch["image"], train=False)["logits"]
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(found["logits"], raw["logits"], rtol=1e-3)
    _, averaged = trained(contrib.schedule_free_sgd(0.5, b1=0.7), ema=0.5)
    assert_close(parameters(averaged), averaged.ema)  # what the config asks for by train.ema comes first


COSINE = spec("jaxlab.optim.schedules:warmup_cosine", peak=0.2, warmup=0.0)


def test_a_factory_that_needs_a_learning_rate_has_that_of_the_node_around_it():
    node = spec("jaxlab.optim.rules:make", optimizer=spec("optax:adam"), learning_rate=COSINE)
    inside = spec("jaxlab.optim.chain:make", transforms=(spec("optax:clip_by_global_norm", max_norm=1.0), node))
    full = copy.deepcopy(node)
    full.optimizer.learning_rate = COSINE
    _, expected = trained(make_optimizer(full, total_steps=6))
    _, found = trained(make_optimizer(node.lock(), total_steps=6))
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    assert "learning_rate" not in node.optimizer  # the config stays as it was written
    trained(make_optimizer(inside, total_steps=6), steps=1)
    own = spec("jaxlab.optim.rules:make", optimizer=spec("optax:adam", learning_rate=0.01), learning_rate=COSINE)
    _, other = trained(make_optimizer(own, total_steps=6))
    assert not np.allclose(other.params["Dense_1"]["kernel"], found.params["Dense_1"]["kernel"], rtol=1e-3)


def test_a_learning_rate_that_stands_nowhere_is_an_error_with_its_path():
    node = spec("jaxlab.optim.chain:make", transforms=(spec("optax:sgd"),))
    with pytest.raises(ConfigError, match=r"config.optimizer.transforms\[0\].learning_rate: optax:sgd needs it"):
        make_optimizer(node)


FAILING = [
    (spec("optax:add_noise", eta=0.1, gamma=0.5, key=0, seed=1), "optax:add_noise fails with ValueError"),
    (spec("optax:polyak_sgd", variant="none"), "fails with ValueError"),
    (spec("optax:constant_schedule", value=0.1), "expected an optax.GradientTransformation, not a function"),
    (spec("optax:masked", inner=SGD, mask=spec("jaxlab.optim.rules:where", rules=(("x", True),))), "no rule covers"),
    (
        spec("optax:sgd", learning_rate=spec("optax:piecewise_constant_schedule", init_value=0.1,
                                             boundaries_and_scales={"3": 0.1})),
        "fails with TypeError",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("node", "message"), FAILING)
def test_whatever_fails_in_an_optimizer_is_an_error_of_the_config(node, message):
    with pytest.raises(ConfigError, match=f"config.optimizer: .*{message}"):
        trained(make_optimizer(node), steps=1)


def test_rules_anywhere_in_an_optimizer_s_node_are_found():
    mask = spec("jaxlab.optim.rules:where", rules=((".*kernel", True),))
    ruled = spec(
        "jaxlab.optim.rules:make", optimizer=spec("optax:adamw", mask=mask), learning_rate=0.1,
        multipliers=spec("jaxlab.optim.rules:layerwise", layers=2),
    )  # fmt: skip
    params = {"layers_0": {"kernel": jnp.ones(2)}, "layers_1": {"bias": jnp.ones(3)}}
    found = rule_matches(spec("jaxlab.optim.chain:make", transforms=(ruled,)), params)
    start = "config.optimizer.transforms[0]"
    assert set(found) == {f"{start}.{x}" for x in ("multipliers", "weight_decay", "freeze", "optimizer.mask.rules")}
    assert [row.value for row in found[f"{start}.multipliers"] if row.names] == [0.75**2, 0.75]
    assert [(row.pattern, row.size) for row in found[f"{start}.optimizer.mask.rules"]] == [
        (".*kernel", 2), ("no rule", 3)
    ]  # fmt: skip


def test_a_config_with_keys_that_json_lacks_is_refused():
    with pytest.raises(ConfigError, match="the key 3 is a int"):
        configs.spec("optax:piecewise_constant_schedule", init_value=0.1, boundaries_and_scales={3: 0.1})
