"""Baselines for what comes next: n-grams of tokens or items, and forecasts that repeat the past.

Shape letters: N examples, T positions, V vocabulary, J contexts, L steps of past, H of horizon, S series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from scipy import sparse

from jaxlab.run.ladder_tables import is_numbers, numbers
from jaxlab.run.ladder_task import Answer, Rung, Task

_ORDERS = (1, 2, 3, 4, 5)
_SEASONS = (1, 7, 12, 24, 48, 96, 168, 336)
_AT_ONCE = 2**22  # probabilities in memory
_MOST_LOGITS = 2**28


class Level(NamedTuple):
    """What followed contexts of one length in training."""

    keys: np.ndarray  # [J]: of the shorter context and the token before it, rising
    counts: sparse.csr_array  # [J, V]
    total: np.ndarray  # [J]
    kinds: np.ndarray  # [J]: different successors


class Texts(NamedTuple):
    """Rows of tokens and what is to be predicted at each place."""

    tokens: np.ndarray  # [N, T]
    targets: np.ndarray
    weights: np.ndarray

    def take(self, rows: np.ndarray) -> Texts:
        """Return some of the rows."""
        return Texts(*(x[rows] for x in self))


def ngrams(task: Task) -> Answer | None:
    """Answer by n-grams with Witten & Bell's interpolation (1991, IEEE Trans. Inf. Theory 37); the order by a tenth."""
    if "token_loss" not in task.results or "tokens" not in task.node:
        return None
    train, held = (_texts(task, rows.fields) for rows in (task.train, task.held))
    size = int(task.results["logits"].shape[-1])
    order = np.random.default_rng(task.experiment.config.seed).permutation(len(train.tokens))
    few, many = order[: max(1, len(order) // 10)], order[max(1, len(order) // 10) :]
    losses = {n: _mean_loss(train.take(few), fit(train.take(many), n, size), size) for n in _ORDERS}
    best = min(losses, key=lambda n: losses[n])
    levels = fit(train, best, size)
    loss_NT, prediction_NT = np.zeros(held.targets.shape, np.float32), np.zeros(held.targets.shape, np.int32)
    whole = held.targets.size * size <= _MOST_LOGITS
    logits_NTV = np.zeros((*held.targets.shape, size), np.float32) if whole else None
    for rows, log_NTV in log_probabilities(held.tokens, levels, size):
        picked = np.take_along_axis(log_NTV, held.targets[rows][..., None], axis=-1)[..., 0]
        loss_NT[rows], prediction_NT[rows] = -picked, log_NTV.argmax(axis=-1)
        if logits_NTV is not None:
            logits_NTV[rows] = log_NTV
    columns = {
        "target": held.targets.astype(np.int32), "prediction": prediction_NT, "token_loss": loss_NT,
        "token_weight": held.weights.astype(np.float32),
    }  # fmt: skip
    columns |= {} if logits_NTV is None else {"logits": logits_NTV}
    name = "how often each is there" if best == 1 else f"{best}-grams"
    return Answer(columns, len(train.tokens), f"{name}, interpolated with shorter ones")


def fit(texts: Texts, order: int, size: int) -> list[Level]:
    """Return the counts of contexts of 0 to `order` - 1 tokens; `size` is V."""
    there_NT = texts.weights > 0
    target = texts.targets[there_NT]
    context_NT = np.zeros(texts.tokens.shape, np.int64)
    levels: list[Level] = []
    for length in range(order):
        if length:
            context_NT = _longer(context_NT, texts.tokens, length, size)
        keys, row = np.unique(context_NT[there_NT], return_inverse=True)
        shape = (len(keys), size)
        counts = sparse.coo_array((np.ones(len(target), np.float32), (row, target)), shape).tocsr()
        counts.sum_duplicates()
        levels.append(Level(keys, counts, counts.sum(axis=1), np.diff(counts.indptr)))
        context_NT = _places(keys, context_NT)
    return levels


def log_probabilities(token_NT: np.ndarray, levels: list[Level], size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield slices of rows and the log-probabilities [n, T, V] of what comes after each place, one after another."""
    step = max(1, _AT_ONCE // (token_NT.shape[1] * size))
    found = (slice(start, start + step) for start in range(0, len(token_NT), step))
    return ((rows, np.log(_probabilities(token_NT[rows], levels, size))) for rows in found)


def _probabilities(token_NT: np.ndarray, levels: list[Level], size: int) -> np.ndarray:
    p_PV = np.full((token_NT.size, size), 1 / size)
    context_NT = np.zeros(token_NT.shape, np.int64)
    for length, level in enumerate(levels):
        if length:
            context_NT = _longer(context_NT, token_NT, length, size)
        context_NT = _places(level.keys, context_NT)
        seen_P = np.flatnonzero(context_NT.reshape(-1) >= 0)
        place = context_NT.reshape(-1)[seen_P]
        kinds, total = level.kinds[place][:, None], level.total[place][:, None]
        p_PV[seen_P] = (level.counts[place].toarray() + kinds * p_PV[seen_P]) / (total + kinds)
    return p_PV.reshape(*token_NT.shape, size)


def _longer(context_NT: np.ndarray, token_NT: np.ndarray, length: int, size: int) -> np.ndarray:
    """Return keys of contexts of `length` tokens, from the places of those that are one shorter; -1 stays unseen."""
    reached = np.full(token_NT.shape, size, np.int64)  # before a row's first token there is none
    reached[:, length - 1 :] = token_NT[:, : token_NT.shape[1] - length + 1]
    return np.where(context_NT < 0, -1, context_NT * (size + 1) + reached)


def _places(keys: np.ndarray, context_NT: np.ndarray) -> np.ndarray:
    place_NT = np.searchsorted(keys, context_NT).clip(max=len(keys) - 1)
    return np.where(keys[place_NT] == context_NT, place_NT, -1)


def _mean_loss(texts: Texts, levels: list[Level], size: int) -> float:
    total = 0.0
    for rows, log_NTV in log_probabilities(texts.tokens, levels, size):
        picked = np.take_along_axis(log_NTV, texts.targets[rows][..., None], axis=-1)[..., 0]
        total -= float((picked * texts.weights[rows]).sum())
    return total / max(float(texts.weights.sum()), 1.0)


def _texts(task: Task, fields: Mapping[str, np.ndarray]) -> Texts:
    """Return what `jaxlab.objectives.language:causal` reads and predicts."""
    node, token_NT = task.node, fields[task.node.tokens].astype(np.int64)
    if node.targets in fields:
        return Texts(token_NT, fields[node.targets].astype(np.int64), fields[node.target_mask].astype(np.float64))
    mask_NT = fields[node.token_mask] if node.token_mask in fields else np.ones(token_NT.shape)
    target_NT, weight_NT = np.zeros_like(token_NT), np.zeros(token_NT.shape)
    target_NT[:, :-1], weight_NT[:, :-1] = token_NT[:, 1:], mask_NT[:, 1:] * mask_NT[:, :-1]
    return Texts(token_NT, target_NT, weight_NT)


def last_value(task: Task) -> Answer | None:
    """Answer that nothing changes."""
    return _repeated(task, 1, "the last value")


def seasonal(task: Task) -> Answer | None:
    """Answer what was there a season before, the season chosen on the training windows."""
    if _past(task, task.train.fields) is None:
        return None
    past_NLS, target = _past(task, task.train.fields), task.train.fields[task.target]
    fitting = [season for season in _SEASONS if 1 < season <= past_NLS.shape[1]]
    if not fitting:
        return None
    errors = {season: np.abs(repeat(past_NLS, season, target.shape[1]) - target).mean() for season in fitting}
    best = min(errors, key=lambda season: errors[season])
    return _repeated(task, best, f"what was {best} steps before")


def repeat(past_NLS: np.ndarray, season: int, horizon: int) -> np.ndarray:
    """Return the seasonal naive forecast [N, H, S]: the last `season` steps, again and again."""
    return past_NLS[:, past_NLS.shape[1] - season + np.arange(horizon) % season]


def _repeated(task: Task, season: int, about: str) -> Answer | None:
    past_NLS = _past(task, task.held.fields)
    if past_NLS is None or past_NLS.shape[1] < season:
        return None
    found = repeat(past_NLS, season, task.held.fields[task.target].shape[1])
    return numbers(task, found, len(task.train.fields[task.target]), about)


def _past(task: Task, fields: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return the targets' own past [N, L, S], where the data are windows whose inputs hold it, a column a field."""
    meta = task.experiment.data.meta
    if not is_numbers(task) or "past" not in fields or "targets" not in meta or fields[task.target].ndim != 3:
        return None
    inputs, targets = meta["inputs"], meta["targets"]
    if len(inputs) != fields["past"].shape[2] or not set(targets) <= set(inputs):
        return None
    return fields["past"][:, :, [inputs.index(name) for name in targets]]


RUNGS: dict[str, Rung] = {"n-grams": ngrams, "last value": last_value, "seasonal": seasonal}
