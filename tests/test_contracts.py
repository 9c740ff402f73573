"""Every factory that jaxlab ships is found by its annotation and held to its contract on small real data.

Adding a file adds its test: `contract_discovery` finds the factories, `contract_cases` has arguments and data for those
that need some, and `test_data_contracts` tests those of the data.
"""

import inspect
import json
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_cases import CASES, SIZE
from contract_discovery import FOUND, HALVES, each, make, make_batch, make_trained, node_of, public_functions

from jaxlab.core import config as configs
from jaxlab.core import record
from jaxlab.core.errors import UndefinedError
from jaxlab.core.factory import import_factory
from jaxlab.core.tree import replaced
from jaxlab.run.base import base_config
from jaxlab.train.apply import Initialising


def stand_in(model):
    """Return a model's stand-in as objectives call it."""

    class Apply:
        """A model that computes its results without its parameters."""

        params: ClassVar = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}

        def __call__(self, *inputs, **options):
            return model(*inputs), {}

    return Apply()


def test_the_discovery_finds_what_there_was_when_it_was_written():
    expected = {
        "source": "digits:make image_folder:make splits:part splits:fold table_source:make text_source:lines "
        "tfds_source:make windows:make",
        "transform": "images:rescale images:random_flip image_colour:colour_jitter rand_augment:make table:date_parts "
        "text_noise:word_swap",
        "fittable": "table:assemble table_numeric:scale table_categories:one_hot tokenize:byte tokenize:bpe",
        "device": "device_augment:mixup device_augment:cutmix",
        "sampling": "sampling:balanced sampling:by_source",
    }
    expected = {(f"data.{name}", kind) for kind, names in expected.items() for name in names.split()} | {
        ("models.mlp:make", "model"), ("models.cnn:make", "model"), ("models.resnet:make", "model"),
        ("objectives.classify:make", "objective"), ("metrics.classify:accuracy", "metric"),
        ("metrics.classify:cross_entropy", "metric"), ("optim.chain:make", "optimizer"),
        ("optim.schedules:warmup_cosine", "schedule"), ("optim.rules:where", "mask"),
        ("track.console:make", "sink"), ("track.tensorboard:make", "sink"),
    }  # fmt: skip
    assert expected <= {(case.path.removeprefix("jaxlab."), case.kind) for case in FOUND}


def test_every_leaf_s_function_named_make_is_found_so_none_escapes_by_its_annotation():
    paths = {case.path for case in FOUND}
    missed = [path for path, _ in public_functions() if path.endswith(":make") and path not in paths]
    assert not missed, f"annotate what they return: {missed}"
    assert not CASES.keys() - paths, "arguments for what is no factory"


@each()
def test_a_factory_can_be_written_in_a_config_with_all_its_defaults_and_read_back(case):
    node = node_of(case)
    parameters = inspect.signature(import_factory(case.path)).parameters
    unwritten = [n for n, p in parameters.items() if p.default is not p.empty and n not in node]
    assert not unwritten, "their defaults are no plain values"
    text = configs.to_json(node)
    again = configs.from_json(text)
    assert configs.to_json(again) == text
    assert not configs.diff(node, again)


@each("model")
def test_a_model_returns_named_results_with_one_row_an_example(case):
    model, objective = make_trained(case)
    for count in (SIZE, 2):
        batch = make_batch(slice(0, count), case.trained.source)
        loss = jax.eval_shape(lambda batch: objective(Initialising(model, 0), batch), batch)
        assert isinstance(loss.outputs, Mapping)
        assert loss.total.shape == loss.weight.shape == ()
        assert loss.outputs
        assert all(value.shape[0] == count for value in loss.outputs.values())


@each("initialiser")
def test_an_initialiser_gives_values_of_the_shapes_that_it_is_told(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    node, source, save = case.begun
    model = configs.build(node, data=source.spec, batch_axis=None)
    rows = next(iter(make_batch(slice(0, 2), source).values()))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), rows, train=False))
    save("weights", jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), shapes))
    found = replaced(shapes, make(case)(shapes))
    assert jax.eval_shape(lambda: found) == shapes
    assert all((np.asarray(leaf) == 0.5).all() for leaf in jax.tree.leaves(found))


@each("objective")
def test_an_objective_returns_sums_over_real_rows_and_results_a_row(case):
    source, model, adds_up = case.judged
    objective = make(case, source.spec)

    def judge(rows):
        return objective(stand_in(model), make_batch(rows, source))

    whole, without = judge(slice(None)), judge(np.delete(np.arange(SIZE), 5))
    np.testing.assert_allclose(without.total, whole.total, rtol=1e-5)
    np.testing.assert_allclose(without.weight, whole.weight, rtol=1e-5)
    assert whole.weight > 0
    assert np.isfinite(whole.total)
    assert all(value.shape[0] == SIZE for value in whole.outputs.values())
    if adds_up:
        parts = [judge(rows) for rows in HALVES]
        np.testing.assert_allclose(whole.total, sum(part.total for part in parts), rtol=1e-5)
        np.testing.assert_allclose(whole.weight, sum(part.weight for part in parts), rtol=1e-5)


@each("metric")
def test_a_metric_adds_up_over_parts_of_a_batch_and_ignores_padding(case):
    node, (source, model, _) = case.measured
    metric = make(case, source.spec)
    outputs = configs.build(node, data=source.spec)(stand_in(model), make_batch(source=source)).outputs

    def value(*parts):
        statistics = [
            jax.jit(metric.update)({name: x[rows] for name, x in outputs.items()}, make_batch(rows, source))
            for rows in parts
        ]
        return metric.compute(jax.tree.map(lambda *leaves: sum(map(np.asarray, leaves)), *statistics))

    whole = value(slice(None))
    for other in (value(*HALVES), value(slice(0, 5), slice(6, SIZE))):
        for found, expected in zip(jax.tree.leaves(other), jax.tree.leaves(whole), strict=True):
            assert found == pytest.approx(expected, rel=1e-5)


def numbers_of(metric, table, tuned, weights=None):
    """Return a table metric's numbers by name; None where it says that there are none."""
    weights = np.ones(len(table["id"])) if weights is None else np.asarray(weights, np.float64)
    try:
        found = metric.prepare(table, tuned)(weights)
    except UndefinedError:
        return None
    numbers = dict(found) if isinstance(found, Mapping) else {"": found}
    assert not any(np.isnan(number) for number in numbers.values()), "undefined is an error, not nan"
    return {name: float(number) for name, number in numbers.items()}


def same(found, expected):
    """Compare numbers by name, or that there are none."""
    return found == expected if None in (found, expected) else found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def tables_of(case):
    """Yield with each table of the case the metric, no more than the columns that it reads, and what it has tuned."""
    for tried in case.tabled:
        metric = make(case, tried.data)
        table = {name: tried.table[name] for name in (*metric.reads, "id")}
        yield metric, table, json.loads(json.dumps(metric.tune(table) if metric.tune else {}))


@each("table_metric")
def test_a_table_metric_counts_a_row_as_often_as_its_weight_says(case):
    random = np.random.default_rng(0)
    for metric, table, tuned in tables_of(case):
        size, defined = len(table["id"]), 0
        assert numbers_of(metric, table, tuned) is not None
        assert numbers_of(metric, table, tuned, np.zeros(size)) is None, "of no rows there is no number"
        for _ in range(20):
            counts = np.bincount(random.integers(0, size, size), minlength=size)
            repeated = {name: np.repeat(value, counts, axis=0) for name, value in table.items()}
            found = numbers_of(metric, table, tuned, counts)
            assert same(found, numbers_of(metric, repeated, tuned))
            defined += found is not None
        assert defined >= 10, "its table in contract_tables is too poor to try it"


@each("table_metric")
def test_a_table_metric_is_the_same_for_any_order_of_the_rows(case):
    for metric, table, tuned in tables_of(case):
        order = np.random.default_rng(1).permutation(len(table["id"]))
        shuffled = {name: value[order] for name, value in table.items()}
        numbers = numbers_of(metric, table, tuned)
        assert same(numbers_of(metric, shuffled, tuned), numbers)
        if metric.tune:
            assert jax.tree.leaves(metric.tune(shuffled)) == pytest.approx(jax.tree.leaves(metric.tune(table)))
        if metric.interval:
            try:
                interval, again = metric.interval(table), metric.interval(shuffled)
            except UndefinedError:  # of this kind of table there is no formula
                continue
            assert interval[:4] == pytest.approx(again[:4], abs=1e-9)
            assert list(numbers.values()) == [pytest.approx(interval.point)]
            assert interval.low <= interval.point <= interval.high


@each("optimizer")
def test_an_optimizer_returns_updates_like_the_parameters_under_jit(case):
    optimizer = make(case)
    params = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
    updates, state = jax.jit(lambda gradient: optimizer.update(gradient, optimizer.init(params), params))(params)
    assert jax.eval_shape(lambda: updates) == jax.eval_shape(lambda: params)
    assert jax.tree.structure(state) == jax.tree.structure(optimizer.init(params))


@each("schedule")
def test_a_schedule_gives_a_finite_rate_that_is_not_negative_at_every_step_under_jit(case):
    rates = jax.jit(jax.vmap(make(case)))(jnp.arange(60))
    assert rates.shape == (60,)
    assert np.isfinite(rates).all()
    assert (np.asarray(rates) >= 0).all()
    assert (np.asarray(rates)[:50] > 0).any()


@each("mask")
def test_a_mask_has_the_structure_of_the_parameters(case):
    params = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
    assert jax.tree.structure(make(case)(params)) == jax.tree.structure(params)


@each("sink")
def test_a_sink_takes_rows_of_numbers_also_such_as_are_not_finite_and_closes(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where trackers put what is not said to be elsewhere
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    record.open_run(tmp_path / "run", base_config(), {})
    sink = make(case, workdir=tmp_path / "run", first_step=0)
    sink.write(1, {"train/loss": 2.5, "steps_per_second": 1.0, "wall": 0.5})
    sink.write(2, {"valid/loss": float("nan"), "valid/accuracy": float("inf")})
    sink.close()
