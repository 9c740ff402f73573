"""Logits and gradients are those that Hugging Face's transformers gave for the same weights; needs none of it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_cases import CASES, FILE, REGENERATE, formula, summary, weighted

from jaxlab.core.tree import named_leaves
from jaxlab.models.weights.convert import to_ours, to_theirs

GOLDEN = json.loads(FILE.read_text())


def test_the_file_is_small_and_has_every_case():
    assert GOLDEN.keys() - {"made_by"} == CASES.keys(), REGENERATE
    assert FILE.stat().st_size < 50_000


@pytest.mark.parametrize("name", CASES)
def test_logits_and_gradients_are_those_of_transformers(name):
    case, golden = CASES[name], GOLDEN[name]
    shapes = jax.eval_shape(lambda *x: case.model.init(jax.random.key(0), *x, train=False), *case.inputs)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    tensors = {n: formula(n, x.shape) for n, x in to_theirs(zeros, case.family).items()}
    values, _ = to_ours(tensors, shapes, case.family)
    variables = jax.tree.unflatten(jax.tree.structure(shapes), [values[n] for n in named_leaves(shapes)])

    @jax.jit
    def judge(params):
        def total(params):
            logits = case.model.apply({**variables, "params": params}, *case.inputs, train=False)["logits"]
            return jnp.sum(logits * weighted(logits, case.mask)), logits

        return jax.grad(total, has_aux=True)(params)

    gradients, logits = judge(variables["params"])
    where = np.ones_like(logits) if case.mask is None else np.broadcast_to(case.mask, logits.shape)
    expected = np.reshape(golden["logits"], logits.shape)
    np.testing.assert_allclose(logits * where, expected * where, atol=1e-4, rtol=0, err_msg=REGENERATE)
    by_their_names = to_theirs({"params": gradients}, case.family)
    assert by_their_names.keys() == golden["gradients"].keys(), REGENERATE
    rounding = 1e-6 * max(norm for _, norm in golden["gradients"].values())
    for parameter, gradient in by_their_names.items():
        found, (_, norm) = summary(gradient), golden["gradients"][parameter]
        np.testing.assert_allclose(
            found,
            golden["gradients"][parameter],
            atol=1e-3 * norm + rounding,
            rtol=0,
            err_msg=f"{parameter}; {REGENERATE}",
        )
