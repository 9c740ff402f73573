"""The models of tables: every feature and parameter has its part, a category its embedding, an error its option."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab.core import config as configs
from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import DataSpec
from jaxlab.data.column_source import ColumnSource
from jaxlab.data.fitting import Transformed, fit_all
from jaxlab.models import columns, ft_transformer, tabular

pytestmark = pytest.mark.slow  # compiles much; the contracts try every model in the quick part too

B, F = 6, 3
CODES = {"colour": 4, "shop": 3}
FACTS = {f"categories:{name}": ("(unknown)", "a", "b", "c")[:count] for name, count in CODES.items()}


def data(**facts):
    shapes = {"features": ((F,), np.float32), "age": ((), np.int32), "price": ((2,), np.float32), "name": ((), object)}
    shapes |= dict.fromkeys(CODES, ((), np.int32))
    example = {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items() if shape[1] is not object}
    return DataSpec(example, 10, {"classes": ("x", "y"), **FACTS, **facts})


SMALL = {
    tabular: {"hidden": (8,)},
    ft_transformer: {"width": 8, "depth": 2, "heads": 2, "hidden": 5},
}
each_family = pytest.mark.parametrize("family", SMALL, ids=lambda module: module.__name__.rpartition(".")[2])


@functools.cache
def make(family, **options):
    context = {"batch_axis": None} if family is tabular else {}
    return family.make(data(), **context, **{"categories": ("colour", "shop"), **SMALL[family], **options})


def rows(seed=0):
    generator = np.random.default_rng(seed)
    codes = [np.arange(B, dtype=np.int32) % count for count in CODES.values()]
    return generator.normal(size=(B, F)).astype(np.float32), *codes


def variables_of(model, *fields):
    """Return parameters without a zero."""
    generator = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *fields, train=False))
    params = jax.tree.map(lambda x: generator.normal(0.2, 0.4, x.shape).astype(np.float32), shapes.pop("params"))
    return {"params": params, **jax.tree.map(lambda x: generator.uniform(0.5, 1, x.shape).astype(np.float32), shapes)}


@functools.partial(jax.jit, static_argnums=0)
def logits(model, variables, *fields):
    return model.apply(variables, *fields, train=False)["logits"]


@each_family
def test_every_parameter_and_every_number_has_a_part_in_each_rows_logits_and_in_no_others(family):
    model, fields = make(family), rows()
    variables = variables_of(model, *fields)

    @jax.jit
    def gradients(weight_BC):
        def score(variables, numbers):
            found = model.apply(variables, numbers, *fields[1:], train=False)["logits"]
            return jnp.sum(found * weight_BC)

        return jax.grad(score, argnums=(0, 1))(variables, fields[0])

    gradient, numbers = gradients(np.arange(1.0, 2 * B + 1).reshape(B, 2))
    leaves = jax.tree_util.tree_leaves_with_path(gradient["params"])
    sizes = {jax.tree_util.keystr(path): np.abs(leaf).max() for path, leaf in leaves}
    still = {name for name, size in sizes.items() if size < 1e-4}
    assert still == {name for name in sizes if "['key']['bias']" in name}  # it shifts all scores of a query alike
    assert np.all(np.asarray(numbers) != 0)
    one = np.zeros((B, 2))
    one[2] = 1, 2
    assert np.flatnonzero(np.abs(gradients(one)[1]).sum(axis=1)).tolist() == [2]


@each_family
def test_a_category_that_training_never_saw_has_an_embedding_of_its_own(family):
    model, (numbers, colour, shop) = make(family), rows()
    variables = variables_of(model, numbers, colour, shop)

    @jax.jit
    @jax.grad
    def gradient(variables, colour):
        return model.apply(variables, numbers, colour, shop, train=False)["logits"].sum()

    table = next(
        leaf for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables, np.zeros_like(colour)))
        if "colour_embedding" in jax.tree_util.keystr(path)
    )  # fmt: skip
    assert table.shape[0] == CODES["colour"]
    assert np.flatnonzero(np.abs(table).sum(axis=1)).tolist() == [0]


@each_family
def test_dropout_acts_in_training_alone_and_needs_no_key_in_evaluation(family):
    options = {"dropout": 0.5, "embedding_dropout": 0.5} if family is tabular else {}
    model, fields = make(family, **options), rows()
    variables = variables_of(model, *fields)

    @jax.jit
    def train(seed):
        return model.apply(variables, *fields, train=True, rngs={"params": jax.random.key(seed)})["logits"]

    assert np.array_equal(train(0), train(0))
    assert not np.allclose(train(0), train(1))
    assert np.isfinite(logits(model, variables, *fields)).all()


@each_family
def test_a_target_of_numbers_is_predicted_in_its_shape(family):
    for target, shape in (("age", (B,)), ("price", (B, 2))):
        model = make(family, target=target)
        found, _ = jax.eval_shape(lambda m=model: m.init_with_output(jax.random.key(0), *rows(), train=False))
        assert {name: x.shape for name, x in found.items()} == {"prediction": shape}


@each_family
def test_numbers_alone_or_categories_alone_will_do_and_whole_numbers_are_numbers(family):
    numbers, colour, _ = rows()
    for options, fields in (
        ({"numeric": ("features", "age"), "categories": ()}, (numbers, np.arange(B))),
        ({"numeric": (), "categories": ("colour",)}, (colour,)),
    ):
        model = make(family, **options)
        assert logits(model, variables_of(model, *fields), *fields).shape == (B, 2)


@each_family
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"categories": ("color",)}, ConfigError, "no field 'color'; did you mean 'colour'"),
        ({"numeric": ("feature",)}, ConfigError, "no field 'feature'; did you mean 'features'"),
        ({"numeric": (), "categories": ()}, ConfigError, "at least one field"),
        ({"categories": ("features",)}, ConfigError, "'features' holds float32; expected codes"),
        ({"categories": ("age",)}, DataError, "categories:age.*config.model.sizes"),
        ({"categories": ("colour", "colour")}, ConfigError, "different names"),
        ({"categories": "colour"}, ConfigError, "expected a tuple"),
        ({"sizes": (("colour", 3),)}, ConfigError, "3 codes for 'colour'; expected at least 4"),
        ({"sizes": ("colour", 3)}, ConfigError, "config.model.sizes.*pairs"),
        ({"target": "prise"}, ConfigError, "config.model.target='prise'.*did you mean 'price'"),
        ({"dropout": 1.0}, ConfigError, "config.model.dropout=1.0"),
    ],
)
def test_what_cannot_be_is_an_error_before_anything_is_compiled(family, options, error, message):
    with pytest.raises(error, match=message):
        make(family, **options)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        (tabular, {"hidden": (8, 0)}, "config.model.hidden=0"),
        (tabular, {"embedding_width": -1}, "config.model.embedding_width=-1"),
        (ft_transformer, {"heads": 3}, "config.model.heads=3: expected a divisor of width=8"),
        (ft_transformer, {"hidden": 0}, "config.model.hidden=0"),
        (ft_transformer, {"attention_dropout": 1.5}, "config.model.attention_dropout=1.5"),
    ],
)
def test_a_familys_own_options_are_checked(family, options, message):
    with pytest.raises(ConfigError, match=message):
        make(family, **options)


@each_family
def test_a_call_with_other_fields_than_the_columns_says_which_and_in_what_order(family):
    with pytest.raises(ConfigError, match="called with 1 fields; expected 3, in this order: features, colour, shop"):
        make(family).init(jax.random.key(0), rows()[0], train=False)


def test_a_size_given_by_the_config_stands_in_for_names_the_data_lacks_and_ids_beyond_it_are_never_silent():
    model = make(tabular, categories=("age",), sizes=(("age", 7),))
    fields = rows()[0], np.arange(B)
    variables = variables_of(model, *fields)
    assert variables["params"]["Embedded_0"]["age_embedding"]["embedding"].shape == (7, 4)
    found = logits(model, variables, fields[0], np.arange(B) + 2)
    assert np.isfinite(found[:5]).all()
    assert np.isnan(found[5]).all()


@pytest.mark.parametrize(("count", "width"), [(1, 1), (2, 1), (3, 2), (99, 50), (100, 50), (10_000, 50)])
def test_the_width_of_an_embedding_follows_the_rule(count, width):
    assert columns.embedding_width(count) == width


def test_the_perceptrons_batch_norm_leaves_out_the_rows_that_the_mask_as_last_input_hides():
    model, fields = make(tabular, batch_norm=True), rows()
    variables, mask_B = variables_of(model, *fields), np.array([1.0, 1, 1, 1, 0, 1], np.float32)

    @jax.jit
    def train(numbers):
        return model.apply(variables, numbers, *fields[1:], mask_B, train=True, mutable=["batch_stats"])

    changed = fields[0].copy()
    changed[4] = 100
    (first, state), (second, other) = train(fields[0]), train(changed)
    np.testing.assert_allclose(first["logits"][mask_B > 0], second["logits"][mask_B > 0], atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state, other)
    assert not np.allclose(jax.tree.leaves(state)[0], jax.tree.leaves(variables["batch_stats"])[0])


def test_the_ft_transformer_has_no_order_of_features_features_and_their_weights_permuted_give_the_same():
    model, (numbers, colour, shop) = make(ft_transformer), rows()
    variables, places = variables_of(model, numbers, colour, shop), [2, 0, 1]
    tokenizer = variables["params"]["tokenizer"]
    moved = {**tokenizer, **{name: tokenizer[name][places, :] for name in ("number_weights", "number_biases")}}
    permuted = {"params": {**variables["params"], "tokenizer": moved}}
    expected = logits(model, variables, numbers, colour, shop)
    np.testing.assert_allclose(logits(model, permuted, numbers[:, places], colour, shop), expected, rtol=2e-5)
    assert not np.allclose(logits(model, variables, numbers[:, places], colour, shop), expected, rtol=1e-2)
    swapped = make(ft_transformer, categories=("shop", "colour"))
    np.testing.assert_allclose(logits(swapped, variables, numbers, shop, colour), expected, rtol=2e-5)


def reference(params, model, numbers, codes):
    """Return the logits by the paper's formulas in float64, all tokens asked for in every block."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    t, layers = p["tokenizer"], model.layers

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p[name]["scale"] + p[name]["bias"]

    def dense(x, part):
        return x @ part["kernel"] + part["bias"]

    def heads(x, part):
        return dense(x, part).reshape(*x.shape[:2], layers.heads, -1)

    tokens = [np.broadcast_to(t["cls"], (B, 1, layers.width))]
    tokens.append(numbers[..., None] * t["number_weights"] + t["number_biases"])
    tokens += [(t[f"{n}_embedding"]["embedding"][c] + t[f"{n}_bias"])[:, None] for n, c in codes.items()]
    x = np.concatenate(tokens, axis=1)
    for place in range(layers.depth):
        part, y = p[f"attention_{place}"], x if place == 0 else norm(x, f"attention_norm_{place}")
        q, k, v = (heads(y, part[name]) for name in ("query", "key", "value"))
        score = np.exp(np.einsum("btnh,bsnh->bnts", q, k) / math.sqrt(q.shape[-1]))
        mixed = np.einsum("bnts,bsnh->btnh", score / score.sum(-1, keepdims=True), v).reshape(x.shape)
        x = x + dense(mixed, part["output"])
        part, y = p[f"feed_forward_{place}"], norm(x, f"feed_forward_norm_{place}")
        x = x + dense(np.maximum(dense(y, part["gate"]), 0) * dense(y, part["up"]), part["down"])
    return dense(np.maximum(norm(x, "norm")[:, 0], 0), p["head"]["Dense_0"])


def test_the_ft_transformers_logits_are_those_of_the_papers_formulas():
    model, (numbers, colour, shop) = make(ft_transformer), rows()
    variables = variables_of(model, numbers, colour, shop)
    expected = reference(variables["params"], model, numbers, {"colour": colour, "shop": shop})
    np.testing.assert_allclose(logits(model, variables, numbers, colour, shop), expected, rtol=1e-4, atol=1e-4)


def test_the_ft_transformer_has_the_number_of_parameters_of_its_parts():
    spec = DataSpec({"features": jax.ShapeDtypeStruct((100,), np.float32)}, 1, {"classes": ("a", "b")})
    model, numbers = ft_transformer.make(spec), np.zeros((1, 100), np.float32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), numbers, train=False))
    d, h = 192, 256
    block = 4 * (d * d + d) + 2 * (d * h + h) + (h * d + d) + 2 * 2 * d
    expected = d + 2 * 100 * d + 3 * block - 2 * d + 2 * d + 2 * (d + 1)  # the first norm is not there, the last is
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == expected


def test_a_table_goes_from_its_texts_to_logits_by_a_config():
    colour = np.array(["red", "green", "blue", "red", None, "pink"], object)
    source = ColumnSource(
        {"width": np.arange(6.0), "colour": colour, "label": np.arange(6) % 2}, {"classes": ("x", "y")}
    )
    transforms = configs.build((
        configs.spec("jaxlab.data.table_categories:ordinal", max_categories=3),
        configs.spec("jaxlab.data.table:assemble", columns=("width",)),
    ))  # fmt: skip
    fit = fit_all(transforms, source, None)
    table = Transformed(source, fit.transforms, fit.meta)
    node = configs.spec("jaxlab.models.tabular:make", categories=("colour",), hidden=(8,))
    model = configs.build(node, data=table.spec, batch_axis=None)
    batch = table.__getitems__(np.arange(6))
    objective = configs.build(
        configs.spec("jaxlab.objectives.classify:make", inputs=("features", "colour")), data=table.spec
    )

    def apply(*fields):
        init = jax.jit(lambda *fields: model.init_with_output(jax.random.key(0), *fields, train=False)[0])
        return init(*fields), {}

    loss = objective(apply, {**batch, "mask": np.ones(6, np.float32)})
    assert loss.outputs["logits"].shape == (6, 2)
    assert np.isfinite(loss.total)
