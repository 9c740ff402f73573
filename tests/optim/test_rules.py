"""Rules decide about learning rates, decay and freezing by name and exactly; a parameter that none covers is named."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib
from optim_helpers import assert_close, trained

from jaxlab import cli
from jaxlab.core.errors import ConfigError
from jaxlab.core.tree import named_leaves
from jaxlab.optim import chain, rules, schedules

SCHEDULE = schedules.warmup_cosine(20, peak=0.05)
FREEZE = (("Dense_0/.*", True), (".*", False))


def bits(x):
    return np.asarray(x).tobytes()


@pytest.mark.parametrize(
    "inner",
    [
        optax.adamw(SCHEDULE, weight_decay=0.3),
        optax.sgd(0.1, momentum=0.9),
        optax.chain(optax.clip_by_global_norm(0.1), optax.lion(0.01)),
        contrib.muon(0.01),
        contrib.schedule_free_adamw(0.01),
    ],
    ids=["adamw", "momentum", "clipped lion", "muon", "schedule free"],
)
def test_freezing_leaves_the_bits_untouched_and_keeps_no_state(inner):
    state_free = isinstance(inner.init({"w": jnp.ones(1)}), contrib.ScheduleFreeState)  # it refuses a decay on top
    decay = 0.0 if state_free else 0.5
    optimizer = rules.make(inner, SCHEDULE, freeze=FREEZE, weight_decay=((".*", decay),))
    first, last = trained(optimizer, ema=0.9)
    for name, leaf in named_leaves(first.params).items():
        same = bits(leaf) == bits(named_leaves(last.params)[name])
        assert same == name.startswith("Dense_0/")
        averaged = np.array_equal(leaf, named_leaves(last.ema)[name])
        assert averaged == name.startswith("Dense_0/")
    assert not [name for name in named_leaves(last.opt_state) if "Dense_0" in name]
    assert [name for name in named_leaves(last.opt_state) if "Dense_1" in name]


def test_the_updates_of_a_frozen_parameter_are_zero_whatever_its_gradient():
    optimizer = rules.make(optax.adam(0.1), 0.1, freeze=(("a", True), ("b", False)))
    params = {"a": jnp.ones(3), "b": jnp.ones(3)}
    gradient = {"a": jnp.array([jnp.nan, jnp.inf, 1.0]), "b": jnp.ones(3)}
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["a"], 0.0)
    assert np.signbit(optax.apply_updates({"a": jnp.full(3, -0.0)}, {"a": updates["a"]})["a"]).all()
    assert np.isfinite(updates["b"]).all()  # nor does it reach those that are trained


@pytest.mark.parametrize("make", [optax.sgd, optax.adam, optax.adagrad], ids=["sgd", "adam", "adagrad"])
def test_a_multiplier_is_a_learning_rate_of_so_much(make):
    factor = 0.25
    _, found = trained(rules.make(make(0.1), 0.1, multipliers=(("Dense_1/.*", factor), (".*", 1.0))))
    parts = {"slow": make(0.1 * factor), "fast": make(0.1)}
    label = rules.where((("Dense_1/.*", "slow"), (".*", "fast")))
    _, expected = trained(optax.partition(parts, label))
    assert_close(found.params, expected.params)


def test_a_multiplier_s_schedule_is_that_of_the_optimizer():
    _, found = trained(rules.make(optax.adam(SCHEDULE), SCHEDULE, multipliers=((".*", 0.3),)))
    _, expected = trained(optax.adam(lambda step: 0.3 * SCHEDULE(step)))
    assert_close(found.params, expected.params)


@pytest.mark.parametrize("rate", [0.05, SCHEDULE], ids=["number", "schedule"])
def test_decay_by_rules_is_adamw_with_a_mask(rate):
    rule = ((".*/kernel", 0.2), (".*", 0.0))
    _, found = trained(rules.make(optax.adam(rate), rate, weight_decay=rule))
    mask = rules.where(tuple((pattern, value > 0) for pattern, value in rule))
    _, expected = trained(optax.adamw(rate, weight_decay=0.2, mask=mask))
    assert_close(found.params, expected.params, rtol=1e-5, atol=1e-7)
    _, without = trained(optax.adam(rate))
    assert not np.allclose(found.params["Dense_0"]["kernel"], without.params["Dense_0"]["kernel"], rtol=1e-3)


def test_all_rules_together_are_the_documented_formula():
    params, gradient = {"w": jnp.array([2.0, -1.0])}, {"w": jnp.array([0.5, 0.25])}
    optimizer = rules.make(optax.sgd(SCHEDULE), SCHEDULE, ((".*", 0.3),), ((".*", 0.7),))
    state = optimizer.init(params)
    for step in range(4):
        updates, state = jax.jit(optimizer.update)(gradient, state, params)
        rate = float(SCHEDULE(step))
        expected = 0.3 * (-rate * np.asarray(gradient["w"]) - rate * 0.7 * np.asarray(params["w"]))
        np.testing.assert_allclose(updates["w"], expected, rtol=1e-5)
        params = optax.apply_updates(params, updates)


def test_clipping_inside_does_not_count_what_is_frozen():
    inner = chain.make((optax.clip_by_global_norm(1.0), optax.sgd(1.0)))
    optimizer = rules.make(inner, 1.0, freeze=(("a", True), ("b", False)))
    gradient = {"a": jnp.array([100.0]), "b": jnp.array([0.5])}
    updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    np.testing.assert_allclose(updates["b"], [-0.5])


def layered(scanned, layers=3):
    """Return parameters of `layers` blocks, stacked or each by its own name, with the same values."""
    stack = jnp.arange(layers * 2, dtype=jnp.float32).reshape(layers, 2) + 1
    outer = {"embed": jnp.ones(2), "head": jnp.ones(2)}
    if scanned:
        return {**outer, "layers": {"kernel": stack}}
    return {**outer, **{f"layers_{i}": {"kernel": stack[i]} for i in range(layers)}}


def test_layerwise_multipliers_are_those_of_the_paper():
    found = rules.where(rules.layerwise(3, decay=0.5))(layered(scanned=False))
    assert found == {
        "embed": 0.0625, "layers_0": {"kernel": 0.125}, "layers_1": {"kernel": 0.25}, "layers_2": {"kernel": 0.5},
        "head": 1.0,
    }  # fmt: skip


def test_layerwise_of_twelve_layers_does_not_take_layer_1_for_layer_11():
    params = {f"layers_{i}": {"kernel": jnp.ones(1)} for i in range(12)}
    found = rules.where(rules.layerwise(12, decay=0.75))(params)
    assert {name: value["kernel"] for name, value in found.items()} == {
        f"layers_{i}": 0.75 ** (12 - i) for i in range(12)
    }


def test_stacked_layers_have_the_multipliers_of_separate_ones():
    updates = {}
    for scanned, pattern in ((False, "layers_{}/.*"), (True, "layers/.*")):
        params = layered(scanned)
        optimizer = rules.make(optax.adam(0.1), 0.1, rules.layerwise(3, 0.6, pattern), ((".*kernel", 0.1), (".*", 0.0)))
        state = optimizer.init(params)
        updates[scanned], _ = jax.jit(optimizer.update)(params, state, params)
    separate = [updates[False][f"layers_{i}"]["kernel"] for i in range(3)]
    np.testing.assert_allclose(updates[True]["layers"]["kernel"], jnp.stack(separate), rtol=1e-6)
    assert_close(updates[True]["embed"], updates[False]["embed"])
    assert not np.allclose(separate[0], separate[1])


def test_a_block_beyond_the_layers_is_covered_by_no_rule():
    with pytest.raises(ConfigError, match="no rule covers the parameter 'layers_2/kernel'"):
        rules.make(optax.sgd(0.1), 0.1, rules.layerwise(2)).init(layered(scanned=False))


def test_a_number_a_layer_for_another_number_of_layers_is_an_error():
    params = layered(scanned=True)
    optimizer = rules.make(optax.sgd(0.1), 0.1, rules.layerwise(4, pattern="layers/.*"))
    with pytest.raises(ConfigError, match=r"4 values for the parameter 'layers/kernel' of shape \(3, 2\)"):
        optimizer.update(params, optimizer.init(params), params)


def test_each_rule_is_described_with_what_it_decides():
    params = {"embed": jnp.ones((7, 2)), "dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
    rows = rules.describe(((".*/kernel", 0.1), ("nothing", 0.5), (".*", 0.0)), params)
    assert [(row.pattern, row.value, row.names, row.size) for row in rows] == [
        (".*/kernel", 0.1, ("dense/kernel",), 6),
        ("nothing", 0.5, (), 0),
        (".*", 0.0, ("dense/bias", "embed"), 17),
    ]
    assert sum(row.size for row in rows) == 23


@pytest.mark.parametrize("name", ["multipliers", "weight_decay", "freeze"])
def test_a_parameter_that_nothing_covers_is_an_error_that_names_it(name):
    value = False if name == "freeze" else 1.0
    optimizer = rules.make(optax.sgd(0.1), 0.1, **{name: ((".*/kernel", value),)})
    with pytest.raises(ConfigError, match=f"{name}: no rule covers the parameter 'dense/bias'"):
        optimizer.init({"dense": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}})


BAD = [
    ({"multipliers": ((".*", -1.0),)}, "multipliers: the rule"),
    ({"multipliers": ((".*", "fast"),)}, "multipliers: the rule"),
    ({"multipliers": ((".*", ()),)}, "multipliers: the rule"),
    ({"multipliers": ((".*",),)}, "multipliers: the rule"),
    ({"multipliers": ".*"}, "multipliers: the rule"),
    ({"weight_decay": ((".*", float("inf")),)}, "weight_decay: the rule"),
    ({"weight_decay": ((".*", True),)}, "weight_decay: the rule"),
    ({"weight_decay": ((".*", (0.1, 0.2)),)}, "weight_decay: the rule"),
    ({"freeze": ((".*", 1.0),)}, "freeze: the rule"),
    ({"freeze": ((".*", "yes"),)}, "freeze: the rule"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_a_rule_of_another_kind_is_an_error_that_names_it(options, message):
    with pytest.raises(ConfigError, match=message):
        rules.make(optax.sgd(0.1), 0.1, **options)


def test_a_pattern_that_is_no_regular_expression_is_an_error():
    with pytest.raises(ConfigError, match="is not a regular expression"):
        rules.make(optax.sgd(0.1), 0.1, ((".*(", 1.0),)).init({"a": jnp.ones(1)})


@pytest.mark.parametrize("options", [{"layers": 0}, {"layers": 2, "decay": 0.0}, {"layers": 2, "decay": 1.5}])
def test_layers_or_a_decay_that_make_no_sense_are_an_error(options):
    with pytest.raises(ConfigError, match="expected"):
        rules.layerwise(**options)


@pytest.mark.parametrize(
    "fixed",
    [contrib.schedule_free_sgd(0.1), contrib.sam(optax.sgd(0.1), optax.sgd(0.01)), contrib.mechanize(optax.sgd(0.1))],
    ids=["ScheduleFree", "SAM", "Mechanic"],
)
def test_an_optimizer_whose_updates_must_not_be_changed_is_refused_on_the_inside_alone(fixed, request):
    params = {"a": jnp.ones(2)}
    kind = request.node.callspec.id
    for options in ({"multipliers": ((".*", 0.5),)}, {"weight_decay": ((".*", 0.5),)}):
        with pytest.raises(ConfigError, match=f"the updates of {kind}; put jaxlab.optim.rules:make inside"):
            rules.make(fixed, 0.1, **options).init(params)
    rules.make(fixed, 0.1).init(params)
    contrib.schedule_free(rules.make(optax.sgd(0.1), 0.1, ((".*", 0.5),)), 0.1).init(params)


def test_a_mask_is_a_function_and_never_taken_for_a_tree():
    with pytest.raises(ConfigError, match="where a tree of values is expected"):
        bool(rules.where(((".*", False),)))
    assert dataclasses.is_dataclass(rules.where(()))


CONFIG = """
import sys
sys.path.insert(0, {folder!r})
import tiny
from jaxlab.core.config import spec

def get_config():
    config = tiny.mlp()
    config.optimizer = spec("jaxlab.optim.rules:make", optimizer=spec("optax:adam"), learning_rate=0.1,
                            weight_decay=((".*/kernel", 0.1), {rest}))
    return config
"""


@pytest.mark.parametrize(
    ("rest", "code"), [('("none/.*", 0.5), (".*", 0.0)', 0), ("", 2)], ids=["covered", "uncovered"]
)
def test_check_shows_the_rules_and_ends_with_2_where_none_covers(rest, code, tmp_path, capsys, monkeypatch, request):
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / f"ruled_{code}.py"
    file.write_text(CONFIG.format(folder=str(request.config.rootpath / "tests" / "train"), rest=rest))
    assert cli.main(["check", f"--config={file}"]) == code
    said = capsys.readouterr()
    if code:
        assert "config.optimizer: weight_decay: no rule covers the parameter 'Dense_0/bias'" in said.err
        return
    found = json.loads(said.out.splitlines()[-1])
    decay = found["rules"]["config.optimizer.weight_decay"]
    assert [(row["pattern"], row["value"], len(row["names"]), row["size"]) for row in decay] == [
        (".*/kernel", 0.1, 2, 1184), ("none/.*", 0.5, 0, 0), (".*", 0.0, 2, 26)
    ]  # fmt: skip
    assert set(found["rules"]) == {f"config.optimizer.{name}" for name in ("multipliers", "weight_decay", "freeze")}
    assert "1,184" in said.err
    assert "weight_decay: the rule 'none/.*' decides about no parameter" in " ".join(said.err.split())
