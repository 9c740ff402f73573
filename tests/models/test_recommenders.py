"""The recommenders: scores by their formulas, masks, causality by gradients, and ids that no table has a row for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import DataSpec
from jaxlab.models import factorisation, sasrec, two_tower

pytestmark = pytest.mark.slow  # compiles much; the contracts try every model in the quick part too

B, T, USERS, ITEMS, ALL = 5, 6, 4, 7, {"users": 4, "items": 7}
INT, FLOAT = np.int32, np.float32


def data(**facts):
    shapes = {"user": ((), INT), "item": ((), INT), "rating": ((), FLOAT), "genres": ((3,), np.uint8)}
    shapes |= {"items": ((T,), INT), "item_mask": ((T,), FLOAT)}
    return DataSpec({name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}, 10, facts)


def rows(seed=0):
    generator = np.random.default_rng(seed)
    return {
        "user": np.array([0, 1, 2, 3, 1], INT),
        "item": np.array([6, 0, 3, 2, 5], INT),
        "genres": generator.integers(0, 2, (B, 3)).astype(np.uint8),
        "negatives": np.arange(2 * B).reshape(B, 2) % ITEMS,
        "items": generator.integers(0, ITEMS, (B, T)).astype(INT),
    }


def variables_of(model, *fields, **options):
    """Return parameters without a zero."""
    generator = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *fields, **options))
    return jax.tree.map(lambda x: generator.normal(0.2, 0.5, x.shape).astype(FLOAT), shapes)


def test_a_score_is_offset_biases_and_the_product_of_factors():
    model, batch = factorisation.make(data(), **ALL, factors=3), rows()
    variables = variables_of(model, batch["user"], batch["item"])
    p = variables["params"]
    offset, table = p["offset"], {name: x["embedding"] for name, x in p.items() if name != "offset"}
    everyone = offset + table["user_bias"] + table["item_bias"].T + table["user_factors"] @ table["item_factors"].T
    found = model.apply(variables, batch["user"], batch["item"], batch["negatives"])
    np.testing.assert_allclose(found["score"], everyone[batch["user"], batch["item"]], rtol=1e-5)
    np.testing.assert_allclose(
        found["negative_scores"], everyone[batch["user"][:, None], batch["negatives"]], rtol=1e-5
    )
    np.testing.assert_array_equal(found["prediction"], found["score"])
    all_items = model.apply(variables, batch["user"], method="scores")["scores"]
    np.testing.assert_allclose(all_items, everyone[batch["user"]], rtol=1e-5)


def test_without_factors_of_users_a_score_is_its_biases_which_start_at_the_mean():
    model, batch = factorisation.make(data(), **ALL, mean=3.5, scale=0.0), rows()
    start = model.init(jax.random.key(0), batch["user"], batch["item"])
    assert np.all(model.apply(start, batch["user"], batch["item"])["score"] == 3.5)
    bias = np.arange(float(ITEMS))[:, None]
    start["params"]["item_bias"]["embedding"] = bias
    found = model.apply(start, batch["user"], batch["item"])["score"]
    np.testing.assert_allclose(found, 3.5 + bias[batch["item"], 0])


def test_the_factors_that_a_score_moves_are_those_of_its_user_and_item_alone():
    model, batch = factorisation.make(data(), **ALL, factors=3), rows()
    variables = variables_of(model, batch["user"], batch["item"])
    one = jax.grad(lambda v: model.apply(v, batch["user"], batch["item"])["score"][2])(variables)["params"]
    moved = {name: np.flatnonzero(np.abs(x["embedding"]).sum(axis=1)) for name, x in one.items() if name != "offset"}
    assert {name: x.tolist() for name, x in moved.items()} == {
        "user_factors": [2], "user_bias": [2], "item_factors": [3], "item_bias": [3],
    }  # fmt: skip
    assert one["offset"] == 1


TOWERS = {"query": ("user",), "candidate": ("genres", "item"), "numeric": ("genres",), "hidden": (8,), "width": 4}
TOWERS |= {"sizes": (("user", USERS), ("item", ITEMS)), "embedding_width": 3}


def test_each_tower_sees_its_own_fields_alone_and_gives_vectors_of_length_one():
    model, batch = two_tower.make(data(), **TOWERS), rows()
    fields = batch["user"], batch["genres"].astype(FLOAT), batch["item"]
    variables = variables_of(model, *fields, train=False)
    apply = jax.jit(functools.partial(model.apply, variables, train=False))
    found, other = apply(*fields), apply((fields[0] + 1) % USERS, *fields[1:])
    for name in ("query", "candidate"):
        np.testing.assert_allclose(np.linalg.norm(found[name], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found["candidate"], other["candidate"])
    np.testing.assert_allclose(found["score"], (found["query"] * found["candidate"]).sum(axis=1), rtol=1e-5)
    assert not np.allclose(found["query"], other["query"])
    method = functools.partial(model.apply, variables, train=False)
    np.testing.assert_allclose(method(fields[0], method="queries")["query"], found["query"], rtol=1e-5)
    np.testing.assert_allclose(method(*fields[1:], method="candidates")["candidate"], found["candidate"], rtol=1e-5)


def test_every_parameter_of_both_towers_has_a_part_in_the_products():
    model, batch = two_tower.make(data(), **TOWERS), rows()
    fields = batch["user"], batch["genres"].astype(FLOAT), batch["item"]
    variables = variables_of(model, *fields, train=False)

    @jax.jit
    @jax.grad
    def gradient(variables):
        found = model.apply(variables, *fields, train=False)
        return jnp.sum(found["query"] @ found["candidate"].T * np.cos(np.arange(B * B)).reshape(B, B))

    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient(variables)))


def test_vectors_keep_their_length_where_they_are_not_normalised_and_zeros_stay_zeros():
    np.testing.assert_array_equal(two_tower.unit(jnp.zeros((2, 3))), np.zeros((2, 3)))
    assert np.isfinite(jax.jacobian(two_tower.unit)(jnp.zeros((1, 3)))).all()
    model, batch = two_tower.make(data(), **{**TOWERS, "normalise": False}), rows()
    fields = batch["user"], batch["genres"].astype(FLOAT), batch["item"]
    found = model.apply(variables_of(model, *fields, train=False), *fields, train=False)["query"]
    assert not np.allclose(np.linalg.norm(found, axis=1), 1, rtol=0.01)


def test_a_tower_called_with_other_fields_says_so():
    model, batch = two_tower.make(data(), **TOWERS), rows()
    with pytest.raises(ConfigError, match="called with 1 fields; expected 2: genres, item"):
        model.init(jax.random.key(0), batch["user"], batch["item"], train=False)


SEQUENCES = sasrec.make(data(), items=ITEMS, width=8, dropout=0.5)
RIGHT = (np.arange(T) < np.array([[6], [4], [3], [1], [2]])).astype(FLOAT)


@functools.cache
def sequences_variables():
    return variables_of(SEQUENCES, rows()["items"], RIGHT, train=False)


@jax.jit
def read(items_BT, mask_BT):
    return SEQUENCES.apply(sequences_variables(), items_BT, mask_BT, train=False)["logits"]


@jax.jit
def best(items_BT, mask_BT):
    return SEQUENCES.apply(sequences_variables(), items_BT, mask_BT, train=False, method="scores")["scores"]


def test_the_logits_of_a_place_have_a_gradient_of_its_own_position_and_those_before_it_alone():
    params = sequences_variables()["params"]

    @jax.jit
    @jax.jacobian
    def by_position(table_PD):
        changed = {"params": {**params, "positions": {"embedding": table_PD}}}
        logits_BTV = SEQUENCES.apply(changed, rows()["items"], train=False)["logits"]
        return jnp.einsum("BTV,V->T", logits_BTV, jnp.cos(jnp.arange(ITEMS)))

    seen_TP = np.abs(by_position(params["positions"]["embedding"])).sum(axis=2) > 0
    np.testing.assert_array_equal(seen_TP, np.tril(np.ones((T, T), bool)))


def test_padding_on_either_side_and_what_it_holds_change_nothing():
    items_BT, lengths = rows()["items"], RIGHT.sum(axis=1).astype(int)
    expected, scores = read(items_BT, RIGHT), best(items_BT, RIGHT)
    junk = np.where(RIGHT > 0, items_BT, (items_BT + 3) % ITEMS)
    left, left_mask = np.full_like(items_BT, 2), RIGHT[:, ::-1]
    for row, length in enumerate(lengths):
        left[row, T - length :] = items_BT[row, :length]
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(read(junk, RIGHT)[row, :length], expected[row, :length], atol=1e-5)
        np.testing.assert_allclose(read(left, left_mask)[row, T - length :], expected[row, :length], atol=1e-5)
        np.testing.assert_allclose(scores[row], expected[row, length - 1], atol=1e-5)
    np.testing.assert_allclose(best(left, left_mask), scores, atol=1e-5)
    assert np.isfinite(read(items_BT, np.zeros_like(RIGHT))).all()


def test_targets_and_negatives_are_scored_as_among_all_items():
    batch, target_BT = rows(), rows(1)["items"]
    negatives_BTN = np.stack([target_BT, (target_BT + 1) % ITEMS], axis=-1)
    logits_BTV = read(batch["items"], RIGHT)
    found = SEQUENCES.apply(
        sequences_variables(), batch["items"], RIGHT, target_BT, negatives_BTN, train=False
    )  # fmt: skip
    assert set(found) == {"score", "negative_scores"}
    expected = np.take_along_axis(logits_BTV, negatives_BTN, axis=-1)
    np.testing.assert_allclose(found["negative_scores"], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["score"], expected[..., 0], rtol=1e-4, atol=1e-4)


def test_every_parameter_of_the_sequence_model_learns_and_dropout_needs_a_key_in_training_alone():
    items_BT = rows()["items"]

    @functools.partial(jax.jit, static_argnums=1)
    @functools.partial(jax.grad, has_aux=True)
    def gradient(variables, train, seed):
        rngs = {"params": jax.random.key(seed)} if train else None
        logits_BTV = SEQUENCES.apply(variables, items_BT, RIGHT, train=train, rngs=rngs)["logits"]
        return jnp.sum(jnp.square(logits_BTV) * RIGHT[..., None]), logits_BTV

    found, _ = gradient(sequences_variables(), False, 0)
    sizes = {jax.tree_util.keystr(path): np.abs(x).max() for path, x in jax.tree_util.tree_leaves_with_path(found)}
    still = {name for name, size in sizes.items() if size < 1e-4}
    assert still == {name for name in sizes if "['key']['bias']" in name}  # it shifts all scores of a query alike
    (_, first), (_, again), (_, other) = (gradient(sequences_variables(), True, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_the_data_says_how_many_items_there_are_as_names_or_as_a_vocabulary():
    named = {"categories:item": tuple("abcdefg"), "categories:user": tuple("wxyz")}
    model = factorisation.make(data(**named))
    assert (model.users, model.items) == (USERS, ITEMS)
    assert sasrec.make(data(vocabulary_size=9)).items == 9
    assert sasrec.make(data(vocabulary_size=9), items=12).items == 12


@pytest.mark.parametrize(
    ("factory", "options", "error", "message"),
    [
        (factorisation.make, {}, DataError, "how many codes 'user' has.*config.model.users"),
        (factorisation.make, {"users": 4}, DataError, "how many codes 'item' has.*config.model.items"),
        (factorisation.make, {**ALL, "factors": 0}, ConfigError, "config.model.factors=0"),
        (factorisation.make, {**ALL, "scale": -1.0}, ConfigError, "config.model.scale=-1"),
        (factorisation.make, {**ALL, "user": "users"}, ConfigError, "no field 'users'; did you mean 'user'"),
        (factorisation.make, {**ALL, "user": "rating"}, ConfigError, "'rating' holds float32; expected codes"),
        (two_tower.make, {}, DataError, "how many codes 'user' has"),
        (two_tower.make, {"numeric": ("age",)}, ConfigError, "'age' is in neither query"),
        (two_tower.make, {**TOWERS, "numeric": (), "query": ()}, ConfigError, "at least one field"),
        (two_tower.make, {**TOWERS, "width": 0}, ConfigError, "config.model.width=0"),
        (two_tower.make, {**TOWERS, "dropout": 1.0}, ConfigError, "config.model.dropout=1.0"),
        (sasrec.make, {}, DataError, "how many codes 'items' has"),
        (sasrec.make, {"items": ITEMS, "field": "item"}, ConfigError, "config.model.field='item': has 0 axes"),
        (sasrec.make, {"items": ITEMS, "max_length": 3}, ConfigError, "config.model.max_length=3: expected 6"),
        (sasrec.make, {"items": ITEMS, "heads": 5}, ConfigError, "config.model.heads=5.*did you mean 4"),
    ],
)
def test_what_cannot_be_is_an_error_before_anything_is_compiled(factory, options, error, message):
    with pytest.raises(error, match=message):
        factory(data(), **options)


def test_fewer_users_or_items_than_the_data_has_are_an_error():
    facts = {"categories:user": tuple("wxyz"), "vocabulary_size": 9}
    with pytest.raises(ConfigError, match=r"config.model.users: 3 codes for 'user'; expected at least 4"):
        factorisation.make(data(**facts), users=3, items=7)
    with pytest.raises(ConfigError, match=r"config.model.items: 8 codes for 'items'; expected at least 9"):
        sasrec.make(data(**facts), items=8)
