"""Beam search: the best of several texts that are written side by side, for any model of `continuation`.

The best texts are those of the highest score ``log P(Y) / ((5 + |Y|) / 6) ** length_penalty`` (Wu et al. 2016, arXiv
1609.08144, section 7, equation 14, without its coverage penalty). At each place the W open texts are extended by every
token; an extension among the best W that ends is set aside, the best W that do not stay open. A row ends when no open
text, whatever comes, can beat the best that have ended. `keep_greedy`, which is not in the paper, holds one of the W
places for the greedy text for as long as it is open: without it the beam may lose that text and end with a worse one.
Shape letters: B rows, W open texts, K = 2 W extensions, N texts returned, T = `max_length` tokens, V vocabulary.
Usage: ``texts = beam_search(Cached(model), variables, (prompt_BP,), width=4, max_length=20, eos=2)``.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlab.core.types import Array, PyTree
from jaxlab.models.continuation import Continuation
from jaxlab.models.generate import Texts, check, check_ids


class _Options(NamedTuple):
    max_length: int
    eos: int
    pad: int
    width: int
    best: int


class _Search(NamedTuple):
    """The loop's state: texts up to `place`, open and ended, the rows whose first text is greedy, and the carry."""

    place: Array
    tokens: Array
    scores: Array
    ended: Texts
    greedy: Array
    carry: PyTree


def beam_search(
    model: Continuation, variables: PyTree, inputs: tuple[Array | None, ...], *, max_length: int, width: int,
    eos: int = -1, pad: int = 0, best: int = 1, length_penalty: float = 0.0, keep_greedy: bool = True,
) -> Texts:  # fmt: skip
    """Return the best texts found: tokens [B, N, T], lengths [B, N] and scores [B, N], best first.

    A text that has not ended after T tokens is one like the others. Where there are fewer than N, the score is -inf and
    the length 0. With `width` 1 and `length_penalty` 0 and `best` 1, this is greedy decoding.

    Args:
      model: an adapter of `jaxlab.models.continuation`.
      variables: the model's, ``{"params": ...}``.
      inputs: what the adapter's `begin` reads, each with leading axis B.
      max_length: T, the most tokens to write, `eos` included.
      width: W, how many texts are open at once.
      eos: the token that ends a text; -1 for none.
      pad: what follows it.
      best: N, how many texts to return; at most W.
      length_penalty: 0 compares log-probabilities, 1 nearly their means over tokens.
      keep_greedy: whether the greedy text is always among those compared, so that no score is below its.

    Raises:
      ConfigError: an option out of its range, `max_length` beyond the model's positions, or an id outside the
        vocabulary.
    """
    check("max_length", max_length, max_length >= 1, "1 or more")
    check("width", width, width >= 1, "1 or more")
    check("best", best, 1 <= best <= width, f"1 to width={width}")
    check("length_penalty", length_penalty, 0 <= length_penalty < float("inf"), "0 or more")
    options = _Options(max_length, eos, pad, width, best)
    return _beam_search(model, variables, inputs, jnp.float32(length_penalty), jnp.array(keep_greedy), options)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _beam_search(
    model: Continuation, variables: PyTree, inputs: tuple[Array | None, ...], penalty: Array, keep_greedy: Array,
    options: _Options,
) -> Texts:  # fmt: skip
    W = options.width
    logits_BV, carry = model.begin(variables, options.max_length, *inputs)
    B, V = logits_BV.shape
    check_ids(options.eos, options.pad, V)
    first_BW = jnp.arange(B)[:, None] * W

    def extend(search: _Search, logits_MV: Array, carry: PyTree) -> _Search:
        search, origin_BW = _extended(search, logits_MV.reshape(B, W, V), penalty, options)
        return search._replace(carry=model.take(carry, (first_BW + origin_BW).reshape(-1)))

    def more(search: _Search) -> Array:
        reachable_B = search.scores.max(axis=1) / _norm(options.max_length, penalty)  # log-probabilities only fall
        return (search.place < options.max_length) & (search.ended.scores[:, -1] < reachable_B).any()

    def go_on(search: _Search) -> _Search:
        token_M = search.tokens[:, :, search.place - 1].reshape(-1)
        return extend(search, *model.step(variables, search.carry, token_M))

    rows_M = jnp.repeat(jnp.arange(B), W)
    search = extend(_nothing(B, keep_greedy, options), logits_BV[rows_M], model.take(carry, rows_M))
    return _result(jax.lax.while_loop(more, go_on, search), penalty, options)


def _norm(length: int | Array, penalty: Array) -> Array:
    """Return what the log-probability of a text of this length is divided by."""
    return ((5 + jnp.asarray(length, jnp.float32)) / 6) ** penalty


def _nothing(B: int, keep_greedy: Array, options: _Options) -> _Search:
    """Return the empty texts: one open a row, as W equal ones would stay equal."""
    T, W, N = options.max_length, options.width, options.best
    score_BW = jnp.full((B, W), -jnp.inf).at[:, 0].set(0)
    ended = Texts(jnp.full((B, N, T), options.pad, jnp.int32), jnp.zeros((B, N), jnp.int32), jnp.full((B, N), -jnp.inf))
    tokens_BWT = jnp.full((B, W, T), options.pad, jnp.int32)
    return _Search(jnp.array(0, jnp.int32), tokens_BWT, score_BW, ended, jnp.full(B, keep_greedy), None)


def _extended(search: _Search, logits_BWV: Array, penalty: Array, options: _Options) -> tuple[_Search, Array]:
    """Return the state one token on, still without a carry, and which open text [B, W] each open text extends."""
    B, W, V = logits_BWV.shape
    score_BWV = search.scores[:, :, None] + jax.nn.log_softmax(logits_BWV.astype(jnp.float32))
    token_B = logits_BWV[:, 0].argmax(axis=-1)  # the greedy text, while it is open, is the first
    rank_BWV = score_BWV.at[jnp.arange(B), 0, token_B].add(jnp.where(search.greedy, jnp.inf, 0))
    rank_BK, index_BK = jax.lax.top_k(rank_BWV.reshape(B, -1), min(2 * W, W * V))  # W of them do not end at least
    score_BK = jnp.take_along_axis(score_BWV.reshape(B, -1), index_BK, axis=1)
    token_BK = index_BK % V
    ends_BK = token_BK == options.eos
    tokens_BKT = jnp.take_along_axis(search.tokens, (index_BK // V)[:, :, None], axis=1)
    tokens_BKT = tokens_BKT.at[:, :, search.place].set(token_BK)

    length_BW = jnp.full((B, W), search.place + 1, jnp.int32)
    final_BW = jnp.where(ends_BK, score_BK / _norm(search.place + 1, penalty), -jnp.inf)[:, :W]
    ended = _best(search.ended, Texts(tokens_BKT[:, :W], length_BW, final_BW))

    _, open_BW = jax.lax.top_k(jnp.where(ends_BK, -jnp.inf, rank_BK), W)
    score_BW = jnp.take_along_axis(jnp.where(ends_BK, -jnp.inf, score_BK), open_BW, axis=1)
    tokens_BWT = jnp.take_along_axis(tokens_BKT, open_BW[:, :, None], axis=1)
    greedy_B = search.greedy & ~ends_BK[:, 0]
    state = _Search(search.place + 1, tokens_BWT, score_BW, ended, greedy_B, None)
    return state, jnp.take_along_axis(index_BK // V, open_BW, axis=1)


def _best(texts: Texts, others: Texts) -> Texts:
    """Return the best of both as many as the first are, which go before others of the same score."""
    score, place = jax.lax.top_k(jnp.concatenate([texts.scores, others.scores], axis=1), texts.scores.shape[1])
    tokens = jnp.concatenate([texts.tokens, others.tokens], axis=1)
    lengths = jnp.concatenate([texts.lengths, others.lengths], axis=1)
    return Texts(
        jnp.take_along_axis(tokens, place[:, :, None], axis=1), jnp.take_along_axis(lengths, place, axis=1), score
    )


def _result(search: _Search, penalty: Array, options: _Options) -> Texts:
    """Return the best texts, those among them that are still open after T tokens."""
    full = search.place == options.max_length
    score_BW = jnp.where(full, search.scores / _norm(options.max_length, penalty), -jnp.inf)
    length_BW = jnp.full(score_BW.shape, options.max_length, jnp.int32)
    tokens, lengths, scores = _best(search.ended, Texts(search.tokens, length_BW, score_BW))
    real = scores > -jnp.inf
    return Texts(jnp.where(real[:, :, None], tokens, options.pad), jnp.where(real, lengths, 0), scores)
