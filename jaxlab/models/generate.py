"""Texts written token by token by any model of `jaxlab.models.continuation`: the likeliest token, or one at random.

Truncation to the `top_k` likeliest tokens (Fan et al. 2018, arXiv 1805.04833, section 5) and to the smallest set that
holds `top_p` of the probability (Holtzman et al. 2019, arXiv 1904.09751, section 3.1). All rows are written together,
in one compiled loop that ends with the last open row. For beams see `jaxlab.models.beam`.
Shape letters: B rows, T = `max_length` new tokens, V vocabulary.
Usage: ``texts = greedy(Cached(model), {"params": params}, (prompt_BP,), max_length=20, eos=2)``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Array, PyTree
from jaxlab.models.continuation import Continuation


class Texts(NamedTuple):
    """What was written: ``tokens`` [..., T] without the prompt, ``lengths`` [...] and ``scores`` [...].

    A text ends with `eos`, which its length counts, or after T tokens; then there is `pad`. The score is the sum of
    its tokens' log-probabilities, `eos` included: of the model as it is, whatever temperature and truncation chose by.
    """

    tokens: Array
    lengths: Array
    scores: Array


class _Writing(NamedTuple):
    """The loop's state: texts up to `place`, the rows still open, and the model's carry."""

    place: Array
    texts: Texts
    open: Array
    carry: PyTree


def greedy(
    model: Continuation, variables: PyTree, inputs: tuple[Array | None, ...], *, max_length: int, eos: int = -1,
    pad: int = 0,
) -> Texts:  # fmt: skip
    """Write the likeliest token again and again; of equally likely ones the first.

    Args:
      model: an adapter of `jaxlab.models.continuation`.
      variables: the model's, ``{"params": ...}``.
      inputs: what the adapter's `begin` reads, each with leading axis B; another batch of the same shapes compiles
        nothing anew.
      max_length: T, the most tokens to write, `eos` included.
      eos: the token that ends a text; -1 for none.
      pad: what follows it.

    Raises:
      ConfigError: `max_length` below 1 or beyond the model's positions, or an id outside the vocabulary.
    """
    check("max_length", max_length, max_length >= 1, "1 or more")
    return _greedy(model, variables, inputs, max_length, eos, pad)


def sample(
    model: Continuation, variables: PyTree, inputs: tuple[Array | None, ...], keys_B: Array, *, max_length: int,
    eos: int = -1, pad: int = 0, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
) -> Texts:  # fmt: skip
    """Draw each token by its probability at the temperature, among the `top_k` and then the `top_p` likeliest.

    Args:
      model: as in `greedy`, and so are the arguments not named here.
      variables: the model's.
      inputs: what `begin` reads.
      keys_B: one random key a row, as by `row_keys`; a row's text depends on its own key and inputs alone.
      max_length: T, the most tokens to write.
      eos: the token that ends a text; -1 for none.
      pad: what follows it.
      temperature: divides the logits; 0 is `greedy`.
      top_k: how many tokens may be drawn; 0 for all.
      top_p: share of the probability that the tokens which may be drawn must reach; 1 for all.

    Raises:
      ConfigError: an option out of its range, or what `greedy` refuses.
    """
    check("max_length", max_length, max_length >= 1, "1 or more")
    check("temperature", temperature, 0 <= temperature < float("inf"), "0 or more")
    check("top_k", top_k, top_k >= 0, "1 or more, or 0 for all tokens")
    check("top_p", top_p, 0 < top_p <= 1, "above 0 and up to 1")
    if keys_B.ndim != 1:
        raise ValueError(f"keys_B of shape {keys_B.shape}: expected one random key a row, as by row_keys(key, ids)")
    chosen_by = (jnp.float32(temperature), jnp.int32(min(top_k, 2**31 - 1)), jnp.float32(top_p))
    return _sample(model, variables, inputs, keys_B, chosen_by, max_length, eos, pad, bool(top_k or top_p < 1))


def row_keys(key: Array, id_B: Array) -> Array:
    """Return a random key [B] for each row, by its id, so that the same row has the same key in any batch."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.asarray(id_B))


def truncate(logits_BV: Array, top_k: int | Array, top_p: float | Array) -> Array:
    """Return the logits, -inf where they are not among the `top_k` likeliest, or beyond the `top_p` of those.

    The latter is the fewest tokens, likeliest first, whose probabilities among the `top_k` add up to `top_p` or more.
    Of equally likely tokens the first come first. `top_k` 0 and `top_p` 1 keep all.
    """
    V = logits_BV.shape[-1]
    order_BV = jnp.argsort(logits_BV, axis=-1, descending=True, stable=True)
    sorted_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
    kept_BV = jnp.arange(V) < jnp.where(top_k == 0, V, top_k)
    share_BV = jax.nn.softmax(jnp.where(kept_BV, sorted_BV, -jnp.inf), axis=-1)
    before_BV = jnp.pad(jnp.cumsum(share_BV, axis=-1)[:, :-1], ((0, 0), (1, 0)))
    kept_BV &= (before_BV < top_p) | (jnp.asarray(top_p) >= 1)  # rounding must not take the last ones away
    kept_BV = jnp.take_along_axis(kept_BV, jnp.argsort(order_BV, axis=-1), axis=-1)
    return jnp.where(kept_BV, logits_BV, -jnp.inf)


def check(name: str, value: float, fits: bool, expected: str) -> None:
    """Refuse an option's value."""
    if not fits:
        raise ConfigError(f"{name}={value}: expected {expected}")


def check_ids(eos: int, pad: int, vocabulary_size: int) -> None:
    """Refuse ids that the model does not have."""
    check("eos", eos, -1 <= eos < vocabulary_size, f"one of the model's {vocabulary_size} token ids, or -1 for none")
    check("pad", pad, 0 <= pad < vocabulary_size, f"one of the model's {vocabulary_size} token ids")


@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5))
def _greedy(
    model: Continuation, variables: PyTree, inputs: tuple[Array | None, ...], max_length: int, eos: int, pad: int
) -> Texts:
    return _write(model, variables, inputs, lambda logits_BV, place: logits_BV.argmax(axis=-1), max_length, eos, pad)


@functools.partial(jax.jit, static_argnums=(0, 5, 6, 7, 8))
def _sample(
    model: Continuation, variables: PyTree, inputs: tuple[Array | None, ...], keys_B: Array,
    chosen_by: tuple[Array, Array, Array], max_length: int, eos: int, pad: int, truncated: bool,
) -> Texts:  # fmt: skip
    temperature, top_k, top_p = chosen_by

    def draw(logits_BV: Array, place: Array) -> Array:
        below_BV = logits_BV - logits_BV.max(axis=-1, keepdims=True)  # so that no small temperature makes it inf
        scaled_BV = below_BV / jnp.maximum(temperature, jnp.finfo(jnp.float32).tiny)
        if truncated:
            scaled_BV = truncate(scaled_BV, top_k, top_p)
        key_B = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_B, place)
        drawn_B = jax.vmap(jax.random.categorical)(key_B, scaled_BV)
        return jnp.where(temperature > 0, drawn_B, logits_BV.argmax(axis=-1))

    return _write(model, variables, inputs, draw, max_length, eos, pad)


def _write(
    model: Continuation, variables: PyTree, inputs: tuple[Array | None, ...], choose: Callable[[Array, Array], Array],
    max_length: int, eos: int, pad: int,
) -> Texts:  # fmt: skip
    """Write until all rows have ended: the model reads a token only where one more is to come."""

    def place_token(writing: _Writing, logits_BV: Array, carry: PyTree) -> _Writing:
        (tokens_BT, length_B, score_B), open_B = writing.texts, writing.open
        logits_BV = logits_BV.astype(jnp.float32)
        token_B = choose(logits_BV, writing.place).astype(jnp.int32)
        gain_B = jnp.take_along_axis(jax.nn.log_softmax(logits_BV), token_B[:, None], axis=-1)[:, 0]
        texts = Texts(
            tokens_BT.at[:, writing.place].set(jnp.where(open_B, token_B, pad)),
            length_B + open_B,
            score_B + jnp.where(open_B, gain_B, 0),
        )
        return _Writing(writing.place + 1, texts, open_B & (token_B != eos), carry)

    def more(writing: _Writing) -> Array:
        return (writing.place < max_length) & writing.open.any()

    def go_on(writing: _Writing) -> _Writing:
        logits_BV, carry = model.step(variables, writing.carry, writing.texts.tokens[:, writing.place - 1])
        return place_token(writing, logits_BV, carry)

    logits_BV, carry = model.begin(variables, max_length, *inputs)
    B, V = logits_BV.shape
    check_ids(eos, pad, V)
    nothing = Texts(jnp.full((B, max_length), pad, jnp.int32), jnp.zeros(B, jnp.int32), jnp.zeros(B, jnp.float32))
    first = _Writing(jnp.array(0, jnp.int32), nothing, jnp.ones(B, bool), carry)
    return jax.lax.while_loop(more, go_on, place_token(first, logits_BV, carry)).texts
