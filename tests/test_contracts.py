"""Every factory that jaxlab ships is found by its annotation and held to its contract on small real data.

Adding a file adds its test. A factory with parameters that neither a default nor the context gives needs a line in
`ARGUMENTS`.
"""

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxlab.core import config as configs
from jaxlab.core.types import DataSpec, HostBatch, Metric, Objective, Periodic, PyTree, Source, Transform
from jaxlab.data.arrays import ArraySource
from jaxlab.data.pipeline import Batches, RowRandomness

LEAVES = ("data", "models", "objectives", "metrics", "optim", "track")
ARGUMENTS = {
    "jaxlab.data.images:standardise": {"mean": (0.5,), "std": (0.25,)},
    "jaxlab.optim.chain:make": {"transforms": (configs.spec("optax:sgd", learning_rate=0.1),)},
    "jaxlab.optim.rules:where": {"rules": ((".*/kernel", True), (".*", False))},
    "jaxlab.data.tfds_source:make": {"name": "fashion_mnist"},
}  # fmt: skip
CLASSES, SIZE = 3, 12
SOURCE = ArraySource(
    {
        "image": np.random.default_rng(0).integers(0, 256, (SIZE, 8, 8, 3)).astype(np.uint8),
        "label": np.arange(SIZE) % CLASSES,
    },
    {"classes": ("a", "b", "c")},
)
DATA = SOURCE.spec._replace(
    example={**SOURCE.spec.example, "image": jax.ShapeDtypeStruct((8, 8, 3), np.float32)}
)  # fmt: skip


class Factory(NamedTuple):
    path: str
    kind: str


def kind_of(returned: Any) -> str | None:
    """Return which contract a return annotation names."""
    exact = [
        (Transform, "transform"), (Objective, "objective"), (Metric, "metric"), (Source, "source"),
        (optax.Schedule, "schedule"), (Callable[[PyTree], PyTree], "mask"), (Periodic, "hook"),
    ]  # fmt: skip
    for annotation, kind in exact:
        if returned is annotation or returned == annotation:
            return kind
    members = typing.get_args(returned) if isinstance(returned, UnionType) else (returned,)
    if not all(isinstance(member, type) for member in members):
        return None
    if all(issubclass(member, nn.Module) for member in members):
        return "model"
    if all(hasattr(member, "__getitems__") and hasattr(member, "spec") for member in members):
        return "source"
    if all(hasattr(member, "write") and hasattr(member, "close") for member in members):
        return "sink"
    return "optimizer" if returned is optax.GradientTransformation else None


def discover() -> list[Factory]:
    """Return the public functions of the leaves whose return annotation is a contract's type."""
    found = []
    for leaf in LEAVES:
        package = importlib.import_module(f"jaxlab.{leaf}")
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            for name, function in inspect.getmembers(module, inspect.isfunction):
                if function.__module__ != info.name or name.startswith("_"):
                    continue
                kind = kind_of(inspect.get_annotations(function, eval_str=True).get("return"))
                if kind is not None:
                    found.append(Factory(f"{info.name}:{name}", kind))
    return found


FACTORIES = discover()


def each(*kinds):
    paths = [factory.path for factory in FACTORIES if factory.kind in kinds]
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.removeprefix("jaxlab."))


def make(path, **context):
    """Build the factory as a run does: from a spec with all defaults, and the context."""
    return configs.build(
        configs.spec(path, **ARGUMENTS.get(path, {})), data=DATA, total_steps=50, batch_axis=None, **context
    )


def make_batch(rows=slice(None)) -> HostBatch:
    batch = Batches(SOURCE, (), SIZE, 0, training=False)[0]
    mask = np.ones(SIZE, np.float32)
    mask[5] = 0
    batch = {**batch, "image": batch["image"].astype(np.float32) / 255, "mask": mask}
    return {name: value[rows] for name, value in batch.items()}


HALVES = (slice(0, SIZE // 2), slice(SIZE // 2, SIZE))


def apply(*inputs):
    """Stand in for a model: a fixed linear map of each row of the first input."""
    x_BD = jnp.reshape(inputs[0], (len(inputs[0]), -1))
    return {"logits": x_BD @ jnp.cos(jnp.arange(x_BD.shape[1] * CLASSES)).reshape(-1, CLASSES)}, {}


def test_the_discovery_finds_what_there_was_when_it_was_written():
    expected = {
        ("data.digits:make", "source"), ("data.tfds_source:make", "source"), ("data.images:rescale", "transform"),
        ("data.images:standardise", "transform"), ("data.images:random_flip", "transform"),
        ("data.images:random_shift", "transform"), ("data.images:random_erase", "transform"),
        ("models.mlp:make", "model"), ("models.cnn:make", "model"), ("models.resnet:make", "model"),
        ("objectives.classify:make", "objective"), ("metrics.classify:accuracy", "metric"),
        ("metrics.classify:cross_entropy", "metric"), ("optim.chain:make", "optimizer"),
        ("optim.schedules:warmup_cosine", "schedule"), ("optim.rules:where", "mask"),
        ("track.console:make", "sink"), ("track.tensorboard:make", "sink"),
    }  # fmt: skip
    assert expected <= {(factory.path.removeprefix("jaxlab."), factory.kind) for factory in FACTORIES}


def test_every_leaf_s_function_named_make_is_found_so_none_escapes_by_its_annotation():
    found = {factory.path for factory in FACTORIES}
    for leaf in LEAVES:
        package = importlib.import_module(f"jaxlab.{leaf}")
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if inspect.isfunction(getattr(importlib.import_module(info.name), "make", None)):
                assert f"{info.name}:make" in found, f"{info.name}:make: annotate what it returns"


@each("source")
def test_a_source_stacks_rows_as_its_spec_says(path, stand_in_fashion_mnist):
    source = make(path)
    spec = source.spec
    assert isinstance(spec, DataSpec)
    assert len(source) == spec.size > 1
    indices = np.array([1, 0, spec.size - 1, 1])
    rows = source.__getitems__(indices)
    assert set(rows) == set(spec.example)
    for name, example in spec.example.items():
        assert rows[name].shape == (4, *example.shape)
        assert rows[name].dtype == example.dtype
        alone = np.stack([source.__getitems__(np.array([i]))[name][0] for i in indices])
        assert np.array_equal(rows[name], alone)


@each("transform")
def test_a_transform_is_pure_and_treats_a_row_alike_whichever_process_reads_it(path):
    transform = make(path)

    def run(rows=slice(None)):
        fields = SOURCE.__getitems__(np.arange(SIZE)[rows])
        for value in fields.values():
            value.setflags(write=False)
        return transform(fields, RowRandomness(np.random.default_rng(3), SIZE, rows))

    whole, again, parts = run(), run(), [run(rows) for rows in HALVES]
    for name in whole:
        assert len(whole[name]) == SIZE
        assert np.array_equal(whole[name], again[name])
        assert np.array_equal(whole[name], np.concatenate([part[name] for part in parts]))


@each("model")
def test_a_model_returns_named_results_with_one_row_an_example(path):
    model = make(path)
    image = make_batch()["image"]

    def run(image):
        return model.init_with_output(jax.random.key(0), image, train=False)[0]

    for batch in (SIZE, 1):
        outputs = jax.eval_shape(run, image[:batch])
        assert isinstance(outputs, Mapping)
        assert outputs["logits"].shape == (batch, CLASSES)
        assert all(value.shape[0] == batch for value in outputs.values())


@each("objective")
def test_an_objective_returns_sums_over_real_rows_and_results_a_row(path):
    objective = make(path)
    whole, *parts = (objective(apply, make_batch(rows)) for rows in (slice(None), *HALVES))
    np.testing.assert_allclose(whole.total, sum(part.total for part in parts), rtol=1e-5)
    np.testing.assert_allclose(whole.weight, sum(part.weight for part in parts), rtol=1e-5)
    without = make_batch(np.delete(np.arange(SIZE), 5))
    np.testing.assert_allclose(objective(apply, without).total, whole.total, rtol=1e-5)
    assert all(value.shape[0] == SIZE for value in whole.outputs.values())


@each("metric")
def test_a_metric_adds_up_over_parts_of_a_batch_and_ignores_padding(path):
    metric = make(path)
    outputs = make("jaxlab.objectives.classify:make")(apply, make_batch()).outputs

    def value(*parts):
        statistics = [
            jax.jit(metric.update)({name: x[rows] for name, x in outputs.items()}, make_batch(rows)) for rows in parts
        ]
        return metric.compute(jax.tree.map(lambda *leaves: sum(map(np.asarray, leaves)), *statistics))

    whole = value(slice(None))
    for other in (value(*HALVES), value(slice(0, 5), slice(6, SIZE))):
        for found, expected in zip(jax.tree.leaves(other), jax.tree.leaves(whole), strict=True):
            assert found == pytest.approx(expected, rel=1e-5)


@each("optimizer")
def test_an_optimizer_returns_updates_like_the_parameters_under_jit(path):
    optimizer = make(path)
    params = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
    updates, state = jax.jit(lambda gradient: optimizer.update(gradient, optimizer.init(params), params))(params)
    assert jax.eval_shape(lambda: updates) == jax.eval_shape(lambda: params)
    assert jax.tree.structure(state) == jax.tree.structure(optimizer.init(params))


@each("schedule")
def test_a_schedule_gives_a_finite_rate_that_is_not_negative_at_every_step_under_jit(path):
    rates = jax.jit(jax.vmap(make(path)))(jnp.arange(60))
    assert rates.shape == (60,)
    assert np.isfinite(rates).all()
    assert (np.asarray(rates) >= 0).all()
    assert (np.asarray(rates)[:50] > 0).any()


@each("mask")
def test_a_mask_has_the_structure_of_the_parameters(path):
    params = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
    assert jax.tree.structure(make(path)(params)) == jax.tree.structure(params)


@each("sink")
def test_a_sink_takes_rows_of_numbers_also_such_as_are_not_finite_and_closes(path, tmp_path):
    sink = make(path, workdir=tmp_path, first_step=0)
    sink.write(1, {"train/loss": 2.5, "steps_per_second": 1.0, "wall": 0.5})
    sink.write(2, {"valid/loss": float("nan"), "valid/accuracy": float("inf")})
    sink.close()
