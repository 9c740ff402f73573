"""The laws of every objective, tried on given results of a model: what a test of one needs beside its formula."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from jaxlab.core.types import DataSpec

PADDED = (1, 4)


def data_of(batch, **facts):
    """Return the spec of data with the fields of a batch."""
    example = {n: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for n, x in batch.items() if n != "mask"}
    return DataSpec(example, len(next(iter(batch.values()))), facts)


def masked(fields, padded=PADDED):
    """Return a batch of the fields whose rows `padded` are padding."""
    mask = np.ones(len(next(iter(fields.values()))), np.float32)
    mask[list(padded)] = 0
    return {**fields, "mask": mask}


def judge(objective, batch, outputs):
    """Return the loss of a model that returns `outputs` whatever it is called with."""
    return objective(lambda *inputs, **options: (outputs, {"state": 3}), batch)


def parts_of(tree, rows):
    return jax.tree.map(lambda x: x[rows], tree)


def spoilt(tree, rows):
    """Return a copy that holds nan, or for whole numbers a number without meaning, in the given rows."""

    def spoil(x):
        x = np.array(x)
        x[list(rows)] = np.nan if x.dtype.kind == "f" else -7
        return x

    return jax.tree.map(spoil, tree)


def check_laws(objective, fields, outputs, adds_up=True):
    """Assert what holds for each objective: padding does not show, sums add up, the gradient is the slope.

    Args:
      objective: to be tried.
      fields: a batch without its mask.
      outputs: what the model returns for it, with respect to which the gradient is taken.
      adds_up: whether sums over parts of the batch make that of the batch.
    """
    batch = masked(fields)
    keep = np.flatnonzero(batch["mask"])
    loss = jax.jit(lambda batch, outputs: judge(objective, batch, outputs)[:3])
    total, weight, results = loss(batch, outputs)
    assert total.shape == weight.shape == ()
    assert np.isfinite(total)
    assert weight > 0
    assert all(len(x) == len(batch["mask"]) for x in results.values())

    spoilt_batch = {**spoilt(fields, PADDED), "mask": batch["mask"]}
    for other in (loss(spoilt_batch, spoilt(outputs, PADDED)), loss(*parts_of((batch, outputs), keep))):
        np.testing.assert_allclose(other[0], total, rtol=1e-5)
        np.testing.assert_allclose(other[1], weight, rtol=1e-6)
    slope = jax.jit(jax.grad(lambda outputs: judge(objective, spoilt_batch, outputs).total))
    for name, gradient in slope(spoilt(outputs, PADDED)).items():
        assert np.isfinite(gradient).all(), name
        assert not gradient[np.array(PADDED)].any(), name

    if adds_up:
        halves = [loss(*parts_of((batch, outputs), rows)) for rows in (slice(0, 3), slice(3, None))]
        np.testing.assert_allclose(sum(half[0] for half in halves), total, rtol=1e-5)
        np.testing.assert_allclose(sum(half[1] for half in halves), weight, rtol=1e-6)

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), outputs)
        check_grads(
            jax.jit(lambda outputs: judge(objective, batch, outputs).total), (wide,), 1, modes=("rev",), eps=1e-5
        )
