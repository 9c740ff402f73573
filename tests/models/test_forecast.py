"""The forecasting hybrid: what each step of the horizon may depend on, its outputs, and data that does not fit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import DataSpec
from jaxlab.data import windows
from jaxlab.data.column_source import ColumnSource
from jaxlab.models import forecast, tcn

pytestmark = pytest.mark.slow  # compiles much; the contracts try every model in the quick part too

B, L, H, F, K, TARGETS = 3, 7, 4, 3, 2, 2
SMALL = {forecast: {"width": 8, "heads": 2, "attention_layers": 2, "layers": 2}, tcn: {"channels": (6, 8, 6)}}
each_family = pytest.mark.parametrize("family", SMALL, ids=lambda module: module.__name__.rpartition(".")[2])


def data(length=L, horizon=H, targets=TARGETS, known=K):
    shapes = {"past": (length, F), "target": (horizon, targets), **({"future": (horizon, known)} if known else {})}
    return DataSpec({name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}, 10, {})


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


PAST, FUTURE = normal(B, L, F), normal(B, H, K, seed=1)


@functools.cache
def built(family, output="point", known=K):
    """Return the model and parameters that are nowhere zero."""
    model = family.make(data(known=known), output=output, **SMALL[family])
    inputs = (PAST, FUTURE) if known else (PAST,)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs, train=False))
    generator = np.random.default_rng(2)
    return model, jax.tree.map(lambda x: generator.normal(0.1, 0.5, x.shape).astype(np.float32), shapes)


@functools.cache
def forecast_of(family):
    model, variables = built(family)
    return jax.jit(lambda past, future: model.apply(variables, past, future, train=False)["forecast"])


@each_family
def test_a_step_s_forecast_depends_on_all_the_past_and_on_what_is_known_of_it_and_of_steps_before(family):
    @jax.jit
    def gradients(step):
        return jax.grad(lambda past, future: forecast_of(family)(past, future)[1, step].sum(), argnums=(0, 1))(
            PAST, FUTURE
        )

    for step in range(H):
        past, future = gradients(step)
        assert np.flatnonzero(np.abs(past).sum(axis=(1, 2))).tolist() == [1]  # no other row
        assert (np.abs(past[1]) > 0).all()
        assert np.flatnonzero(np.abs(future[1]).sum(axis=-1)).tolist() == list(range(step + 1))
        assert (np.abs(future[1]).sum(axis=0) > 0).all()


@each_family
@pytest.mark.parametrize("output", forecast.OUTPUTS)
@pytest.mark.parametrize("known", [0, K])
def test_the_outputs_have_a_number_or_a_distribution_a_step_and_target(family, output, known):
    model, variables = built(family, output, known)
    inputs = (PAST, FUTURE) if known else (PAST,)
    found = jax.eval_shape(functools.partial(model.apply, train=False), variables, *inputs)
    shape = (B, H, TARGETS)
    others = {"point": {}, "gaussian": {"mean": shape, "log_variance": shape}, "quantile": {"quantiles": (*shape, 3)}}
    assert {name: x.shape for name, x in found.items()} == {"forecast": shape, **others[output]}


def test_the_forecast_is_the_mean_or_the_quantile_nearest_to_the_median():
    x = normal(B, H, 5)
    kernel, bias = normal(5, 2 * TARGETS), normal(2 * TARGETS)
    head = forecast.Head(TARGETS, "gaussian", (0.5,))
    gaussian = head.apply({"params": {"dense": {"kernel": kernel, "bias": bias}}}, x)
    np.testing.assert_array_equal(gaussian["forecast"], gaussian["mean"])
    kernel, bias = normal(5, 3 * TARGETS), normal(3 * TARGETS)
    head = forecast.Head(TARGETS, "quantile", (0.1, 0.4, 0.7))
    found = head.apply({"params": {"dense": {"kernel": kernel, "bias": bias}}}, x)
    np.testing.assert_array_equal(found["forecast"], found["quantiles"][..., 1])


@pytest.mark.parametrize(("family", "known"), [(forecast, 0), (tcn, 0), (tcn, K)])
def test_every_parameter_has_a_part_with_and_without_a_known_future_and_steps_differ(family, known):
    model, variables = built(family, "point", known)
    inputs = (PAST, FUTURE) if known else (PAST,)

    def score(variables):
        found = model.apply(variables, *inputs, train=False)["forecast"]
        return jnp.sin(found).sum(), found

    gradient, found = jax.jit(jax.grad(score, has_aux=True))(variables)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    assert np.ptp(found, axis=1).min() > 0


@pytest.mark.slow
@each_family
def test_dropout_acts_in_training_alone(family):
    model, variables = built(family)
    apply = jax.jit(lambda key: model.apply(variables, PAST, FUTURE, train=True, rngs={"dropout": key})["forecast"])
    first, again, other = (apply(jax.random.key(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


@each_family
def test_the_fields_that_windows_make_are_those_that_the_model_takes_and_the_target_is_not_among_them(family):
    rows = np.arange(20.0)
    source = windows.make(
        ColumnSource({"load": rows, "heat": np.sin(rows), "hour": rows % 24}), L, H, targets=("load", "heat"),
        known_future=("hour",),
    )  # fmt: skip
    batch = source.__getitems__(np.arange(B))
    model = family.make(source.spec, **SMALL[family])
    outputs = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), batch["past"], batch["future"], train=False)[0]
    )
    assert outputs["forecast"].shape == batch["target"].shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 8, "heads": 3}, r"config.model.heads=3.*did you mean"),
        ({"output": "median"}, "config.model.output='median'"),
        ({"output": "quantile", "quantiles": (0.5, 0.1)}, "config.model.quantiles"),
        ({"output": "quantile", "quantiles": ()}, "config.model.quantiles"),
        ({"output": "quantile", "quantiles": (0.0, 0.5)}, "config.model.quantiles"),
        ({"cell": "lst"}, "did you mean 'lstm'"),
        ({"dropout": 1.5}, "config.model.dropout=1.5"),
        ({"width": 0}, "config.model.width=0"),
    ],
)
def test_a_bad_option_is_an_error_that_names_it(options, message):
    with pytest.raises(ConfigError, match=message):
        forecast.make(data(), **options)


@each_family
@pytest.mark.parametrize("missing", ["past", "target"])
def test_data_that_is_no_windows_is_an_error_that_says_what_makes_them(family, missing):
    example = {name: value for name, value in data().example.items() if name != missing}
    with pytest.raises(DataError, match=f"no field '{missing}'.*jaxlab.data.windows:make"):
        family.make(DataSpec(example, 10, {}), **SMALL[family])
