"""Rules over parameter names: the first full match decides, and nothing is decided by accident."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab.core.errors import ConfigError
from jaxlab.core.tree import match, match_tree, named_leaves, pack, packed_shape, replaced, unpack

PARAMS = {
    "Dense_0": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "blocks": [{"scale": jnp.ones(1)}, {"scale": jnp.zeros(1)}],
    "head": (jnp.ones(4),),
}


def test_leaves_are_named_by_their_whole_path_in_the_trees_own_order():
    named = named_leaves(PARAMS)
    assert list(named) == ["Dense_0/bias", "Dense_0/kernel", "blocks/0/scale", "blocks/1/scale", "head/0"]
    assert all(ours is theirs for ours, theirs in zip(named.values(), jax.tree.leaves(PARAMS), strict=True))


def test_the_first_rule_that_matches_wins_whatever_follows():
    names = ["Dense_0/kernel", "Dense_0/bias", "head/kernel"]
    assert list(match([(r".*/bias", 0), (r"Dense.*", 1), (r".*", 2)], names).values()) == [1, 0, 2]
    assert list(match([(r".*", 2), (r".*/bias", 0)], names).values()) == [2, 2, 2]


def test_a_rule_must_match_the_whole_name():
    with pytest.raises(ConfigError, match="Dense_0/kernel"):
        match([("kernel", 1), ("Dense_0", 1)], ["Dense_0/kernel"])


@pytest.mark.parametrize("rules", [[], [(r".*/kernel", 1)]])
def test_a_name_that_no_rule_covers_is_an_error_that_names_it_and_lists_the_rules(rules):
    with pytest.raises(ConfigError, match=r"head/bias.*(kernel|none)"):
        match(rules, ["head/bias"])


def test_a_rule_that_is_no_regular_expression_is_a_config_error():
    with pytest.raises(ConfigError, match=r"\*bias"):
        match([("*bias", 1)], ["head/bias"])


def test_match_tree_keeps_the_structure_and_puts_each_value_at_its_leaf():
    rules = [(r"blocks/1/.*", "frozen"), (r".*/bias", "no decay"), (r".*", "decay")]
    assert match_tree(rules, PARAMS) == {
        "Dense_0": {"kernel": "decay", "bias": "no decay"},
        "blocks": [{"scale": "decay"}, {"scale": "frozen"}],
        "head": ("decay",),
    }


def test_match_tree_places_values_that_are_trees_themselves():
    assert match_tree([(r".*", None)], {"a": jnp.ones(1)}) == {"a": None}
    assert match_tree([(r".*", (1, 2))], {"a": jnp.ones(1)}) == {"a": (1, 2)}


def test_unpacking_gives_back_what_was_packed():
    tree = {"b": jnp.float32(3.5), "a": {"x": jnp.arange(6.0).reshape(2, 3), "y": jnp.ones((1,))}}
    shapes = jax.eval_shape(lambda: tree)
    vector = pack(tree)
    assert vector.shape == packed_shape(shapes).shape == (8,)
    found = unpack(np.asarray(vector), shapes)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, found, tree)


def test_replacing_named_leaves_keeps_the_others_the_structure_and_the_dtypes():
    found = replaced(PARAMS, {"head/0": np.zeros(4, np.float64), "blocks/1/scale": np.array([7])})
    assert jax.tree.structure(found) == jax.tree.structure(PARAMS)
    assert found["head"][0].dtype == jnp.float32
    assert found["head"][0].sum() == 0
    assert found["blocks"][1]["scale"] == 7
    assert found["Dense_0"]["kernel"] is PARAMS["Dense_0"]["kernel"]


@pytest.mark.parametrize(
    ("values", "message"), [({"head/1": np.zeros(4)}, "did you mean 'head/0'"), ({"head/0": np.zeros(3)}, r"\(4,\)")]
)
def test_replacing_what_is_not_there_or_of_another_shape_is_an_error(values, message):
    with pytest.raises(ConfigError, match=message):
        replaced(PARAMS, values)
