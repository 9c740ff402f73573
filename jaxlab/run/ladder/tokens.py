"""Rungs of token models: how often each token is, and n-grams where what comes before is known.

An n-gram's probabilities are mixed with those of shorter ones, down to all tokens alike, by Witten and Bell's rule
(1991, IEEE Transactions on Information Theory 37, method C): after a context with c tokens of t kinds, a share
t / (c + t) is left to the shorter context. Rows are read as they lie: a context may reach into the document before.
Shape letters: N rows, T places, V vocabulary, P pairs of a context and the token after it, Q different contexts.
Usage: ``fits = rungs(problem)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxlab.run.ladder.problem import TOKENS, Columns, Fit, Fitted, Problem, UnfittedError, cost
from jaxlab.run.ladder.rows import Rows

ORDERS = (2, 3, 4, 5, 6)  # of which validation chooses
_MOST_LOGITS = 2**28  # that are written out; beyond, metrics that read them have no number
_FACTOR, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)  # of a hash of 64 bits, whose values all but never meet

Places = tuple[np.ndarray, np.ndarray]
"""The place of each token [n] in a context's list of followers, and whether it is there."""


class Order(NamedTuple):
    """What is known about contexts of one length."""

    pairs: np.ndarray  # [P], hashes of context and token, rising
    p: np.ndarray  # [P], of the token after the context
    contexts: np.ndarray  # [Q], hashes, rising
    left: np.ndarray  # [Q], the share of the shorter context
    best: np.ndarray  # [Q], the likeliest of the tokens seen after it
    best_p: np.ndarray  # [Q]
    begin: np.ndarray  # [Q + 1], where a context's tokens are in `tokens`
    tokens: np.ndarray  # [P], by context
    p_by_context: np.ndarray  # [P]


def rungs(problem: Problem) -> Mapping[str, Fit]:
    """Return the tokens' frequencies; and n-grams where the model reads the tokens that come before."""
    if problem.kind != TOKENS:
        return {}
    about = "each token's share of training, whatever comes before; of a recommender, its items' popularity"
    found: dict[str, Fit] = {"popularity": lambda: Fitted(_predictor(problem, "", 1), len(problem.train), about)}
    history = find_history(problem.train)
    if history is not None:
        found["n-gram"] = lambda: _ngram(problem, history)
    return found


def find_history(rows: Rows) -> str | None:
    """Return the input [N, T] that holds at each place the token before the target; None where there is none."""
    target_NT, there_NT = rows.answers["target"], rows.answers["token_weight"] > 0
    both_NT = there_NT[:, 1:] & there_NT[:, :-1]
    for name, value in rows.inputs.items():
        whole = value.shape == target_NT.shape and value.dtype.kind in "iu"
        if whole and both_NT.any() and np.array_equal(value[:, 1:][both_NT], target_NT[:, :-1][both_NT]):
            return name
    return None


def _ngram(problem: Problem, history: str) -> Fitted:
    longest = _predictor(problem, history, ORDERS[-1])
    costs = {order: cost(problem, longest(problem.valid, order, False), problem.valid) for order in ORDERS}
    best = min(costs, key=lambda order: costs[order])
    about = f"interpolated {best}-gram (Witten-Bell); its order chosen on valid among {', '.join(map(str, ORDERS))}"
    return Fitted(lambda rows: longest(rows, best), len(problem.train), about)


def _predictor(problem: Problem, history: str, longest: int) -> Callable[..., Columns]:
    """Count contexts of up to `longest` - 1 tokens and return the prediction of rows by them, or by shorter ones."""
    size = problem.shapes["logits"].shape[-1]
    if not (problem.train.answers["token_weight"] > 0).any():
        raise UnfittedError("there is no token to predict in training")
    orders = fit(*_flat(problem.train, history, longest), size)

    def predict(rows: Rows, order: int = longest, logits: bool = problem.reads_logits) -> Columns:
        there_NT = rows.answers["token_weight"] > 0
        contexts, target_n, _ = _flat(rows, history, order)
        p_n, best_n = score(orders[:order], contexts, target_n, size)
        loss_NT, best_NT = np.zeros(there_NT.shape, np.float32), np.zeros(there_NT.shape, np.int32)
        loss_NT[there_NT], best_NT[there_NT] = -np.log(p_n), best_n
        columns = {"token_loss": loss_NT, "prediction": best_NT}
        if logits and there_NT.size * size <= _MOST_LOGITS:
            columns["logits"] = np.zeros((*there_NT.shape, size), np.float32)
            columns["logits"][there_NT] = np.log(distribution(orders[:order], contexts, size))
        return columns

    return predict


def _flat(rows: Rows, history: str, longest: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return hashes of the contexts [n] of 0 to `longest` - 1 tokens before each target, the targets, their weights."""
    weight_NT = rows.answers["token_weight"]
    there_NT = weight_NT > 0
    hash_NT = np.zeros(there_NT.shape, np.uint64)
    contexts = [hash_NT[there_NT]]
    for length in range(1, longest):
        token_NT = np.zeros(there_NT.shape, np.uint64)  # 0: before the row's beginning
        token_NT[:, length - 1 :] = (
            rows.inputs[history][:, : max(0, there_NT.shape[1] - length + 1)].astype(np.uint64) + 1
        )
        hash_NT = _hashed(hash_NT, token_NT)
        contexts.append(hash_NT[there_NT])
    return contexts, rows.answers["target"][there_NT].astype(np.int64), weight_NT[there_NT].astype(np.float64)


def _hashed(context: np.ndarray, token: np.ndarray) -> np.ndarray:
    """Return the hash of contexts with one token more; sums and products go around at 2⁶⁴."""
    mixed = (context + token.astype(np.uint64) + np.uint64(1)) * _FACTOR
    return (mixed ^ (mixed >> _SHIFT)) * _FACTOR


def fit(contexts: Sequence[np.ndarray], target_n: np.ndarray, weight_n: np.ndarray, size: int) -> list[Order]:
    """Return what follows contexts of each length, from the shortest.

    Args:
      contexts: of each length the hashes [n] of what comes before each token.
      target_n: the tokens.
      weight_n: how often each counts.
      size: V.
    """
    orders: list[Order] = []
    for length, context_n in enumerate(contexts):
        pairs, first, pair_n = np.unique(_hashed(context_n, target_n), return_index=True, return_inverse=True)
        count_P, context_P, token_P = np.bincount(pair_n, weight_n), context_n[first], target_n[first]
        found, place_P = np.unique(context_P, return_inverse=True)
        total_Q, kinds_Q = np.bincount(place_P, count_P), np.bincount(place_P)
        shorter_P, _ = score(orders, [context[first] for context in contexts[:length]], token_P, size)
        p_P = (count_P + kinds_Q[place_P] * shorter_P) / (total_Q + kinds_Q)[place_P]
        by = np.lexsort((token_P, -p_P, place_P))  # a context's likeliest token is the first of its
        begin = np.searchsorted(place_P[by], np.arange(len(found) + 1))
        tokens, p = token_P[by], p_P[by]
        left_Q = kinds_Q / (total_Q + kinds_Q)
        orders.append(Order(pairs, p_P, found, left_Q, tokens[begin[:-1]], p[begin[:-1]], begin, tokens, p))
    return orders


def score(
    orders: Sequence[Order], contexts: Sequence[np.ndarray], target_n: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of each target [n], and the likeliest token [n].

    The likeliest is the best of those seen after the context or else that of the shorter context: of the tokens not
    seen none gains on that.
    """
    p_n, best_p_n = np.full(len(target_n), 1 / size), np.full(len(target_n), 1 / size)
    best_n = np.zeros(len(target_n), np.int64)
    for order, context_n in zip(orders, contexts, strict=False):
        place_n, known_n = _find(order.contexts, context_n)
        left_n = np.where(known_n, order.left[place_n], 1.0)
        pair_n, seen_n = _find(order.pairs, _hashed(context_n, target_n))
        p_n = np.where(seen_n, order.p[pair_n], left_n * p_n)
        better_n = known_n & (order.best_p[place_n] >= left_n * best_p_n)
        best_n = np.where(better_n, order.best[place_n], best_n)
        best_p_n = np.where(better_n, order.best_p[place_n], left_n * best_p_n)
    return p_n, best_n


def distribution(orders: Sequence[Order], contexts: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Return the probability of every token [n, V] after each context."""
    p_nV = np.full((len(contexts[0]), size), 1 / size, np.float32)
    for order, context_n in zip(orders, contexts, strict=False):
        place_n, known_n = _find(order.contexts, context_n)
        p_nV *= np.where(known_n, order.left[place_n], 1.0).astype(np.float32)[:, None]
        begin_n = order.begin[place_n]
        count_n = np.where(known_n, order.begin[place_n + 1] - begin_n, 0)
        row = np.repeat(np.arange(len(count_n)), count_n)
        within = np.arange(count_n.sum()) - np.repeat(np.cumsum(count_n) - count_n, count_n)
        pair = np.repeat(begin_n, count_n) + within
        p_nV[row, order.tokens[pair]] = order.p_by_context[pair]
    return p_nV


def _find(known: np.ndarray, wanted_n: np.ndarray) -> Places:
    """Return where among the rising `known` each is [n], 0 where it is not, and whether it is [n]."""
    place_n = np.minimum(np.searchsorted(known, wanted_n), len(known) - 1)
    found_n = known[place_n] == wanted_n
    return np.where(found_n, place_n, 0), found_n
