"""Transforms that disturb token fields: ``tokens`` [B, T] int32 and ``token_mask`` [B, T] float32 (1 a real token).

Vectorised over the batch; padding and the special ids stay where they are. Each works on tokens, so on words where the
tokens are words, and comes before packing. Knows no tokenizer: every id is a parameter.
Shape letters: B examples, T positions, R what is drawn at each position.
Usage: ``data.augment = (spec("jaxlab.data.text_noise:token_dropout", probability=0.1, replacement_id=1),)``.
"""

from __future__ import annotations

import numpy as np

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import Randomness, Transform
from jaxlab.data.images import Fields, check_share


def token_dropout(
    replacement_id: int, probability: float = 0.1, special_ids: tuple[int, ...] = (),
    field: str = "tokens", mask: str = "token_mask",
) -> Transform:  # fmt: skip
    """Return the transform that overwrites each token with `replacement_id`, such as that of the unknown word.

    Word dropout (Iyyer et al. 2015, section 3.1; Bowman et al. 2015, arXiv 1511.06349). To leave tokens out, see
    `word_deletion`.

    Args:
      replacement_id: what is written.
      probability: of overwriting, a token.
      special_ids: ids that are never overwritten.
      field: the field of tokens.
      mask: the field that is 1 at real tokens.
    """
    check_share("token_dropout: probability", probability)

    def transform(fields: Fields, randomness: Randomness) -> Fields:
        token_BT, free_BT = _tokens(fields, field, mask, special_ids)
        chosen_BT = free_BT & (randomness.uniform(0.0, 1.0, token_BT.shape[1:]) < probability)
        return {**fields, field: np.where(chosen_BT, np.asarray(replacement_id, token_BT.dtype), token_BT)}

    return transform


def word_swap(
    probability: float = 0.05, special_ids: tuple[int, ...] = (), field: str = "tokens", mask: str = "token_mask"
) -> Transform:
    """Return the transform that swaps tokens with their right neighbours.

    A pair is chosen with the given probability; of pairs that overlap, every second one is swapped, so that a token
    moves by one place at most.

    Args:
      probability: of choosing, a pair of neighbours.
      special_ids: ids that keep their places.
      field: the field of tokens.
      mask: the field that is 1 at real tokens.
    """
    check_share("word_swap: probability", probability)

    def transform(fields: Fields, randomness: Randomness) -> Fields:
        token_BT, free_BT = _tokens(fields, field, mask, special_ids)
        chosen_BT = free_BT & (randomness.uniform(0.0, 1.0, token_BT.shape[1:]) < probability)
        chosen_BT[:, :-1] &= free_BT[:, 1:]
        chosen_BT[:, -1:] = False
        first_BT = chosen_BT & ((_since(~chosen_BT) - 1) % 2 == 0)  # the first, third, … of a run of chosen ones
        source_BT = np.arange(token_BT.shape[1]) + first_BT
        source_BT[:, 1:] -= first_BT[:, :-1]
        return {**fields, field: np.take_along_axis(token_BT, source_BT, axis=1)}

    return transform


def word_deletion(
    probability: float = 0.1, special_ids: tuple[int, ...] = (), pad_id: int = 0,
    field: str = "tokens", mask: str = "token_mask",
) -> Transform:  # fmt: skip
    """Return the transform that leaves tokens out and closes the gaps, with padding at the end.

    Where all tokens but special ones would go, one stays.

    Args:
      probability: of leaving out, a token.
      special_ids: ids that are never left out.
      pad_id: what is written at the places that become free.
      field: the field of tokens.
      mask: the field that is 1 at real tokens.
    """
    check_share("word_deletion: probability", probability)

    def transform(fields: Fields, randomness: Randomness) -> Fields:
        token_BT, free_BT = _tokens(fields, field, mask, special_ids)
        draw_BT = np.where(free_BT, randomness.uniform(0.0, 1.0, token_BT.shape[1:]), -1.0)
        gone_BT = free_BT & (draw_BT < probability)
        all_B = gone_BT.sum(axis=1) == free_BT.sum(axis=1)
        gone_BT[np.flatnonzero(all_B), draw_BT.argmax(axis=1)[all_B]] = False
        mask_BT = np.where(gone_BT, np.zeros((), fields[mask].dtype), fields[mask])
        order_BT = np.argsort(mask_BT == 0, axis=1, kind="stable")
        kept_BT = np.where(gone_BT, np.asarray(pad_id, token_BT.dtype), token_BT)
        return {**fields, field: _in_order(kept_BT, order_BT), mask: _in_order(mask_BT, order_BT)}

    return transform


def span_masking(
    mask_id: int, vocabulary_size: int, special_ids: tuple[int, ...] = (), probability: float = 0.15,
    mean_span: float = 1.0, longest_span: int = 10, mask_share: float = 0.8, random_share: float = 0.1,
    field: str = "tokens", mask: str = "token_mask",
) -> Transform:  # fmt: skip
    """Return the transform to masked language modelling: hidden tokens, ``targets`` [B, T] and ``target_mask`` [B, T].

    The tokens of a row are cut into spans of random (geometric) lengths, and random spans are taken until they hold
    exactly `probability` of the row's tokens, a fraction of a token being rounded up or down at random; the last span
    may be cut short. A span is hidden in one way: by the mask, by random tokens, or not at all. With spans of one token
    that is BERT (Devlin et al. 2018, arXiv 1810.04805, section 3.1); SpanBERT (Joshi et al. 2019, arXiv 1907.10529)
    has ``mean_span=5``, at most 10. ``targets`` is what the tokens were, ``target_mask`` float32, 1 where they are to
    be predicted.

    Args:
      mask_id: the token that stands for a hidden one.
      vocabulary_size: random tokens are below it, and neither special nor the mask.
      special_ids: ids that are never hidden; the mask is one of them.
      probability: share of a row's tokens, special ones not counted, that is to be predicted.
      mean_span: mean length of a span, before it is cut by special tokens, the row's end or `longest_span`.
      longest_span: largest length of a span.
      mask_share: share of the spans that the mask hides.
      random_share: share of the spans that random tokens replace; the rest stays as it is.
      field: the field of tokens.
      mask: the field that is 1 at real tokens.
    """
    for name, value in {"probability": probability, "mask_share": mask_share, "random_share": random_share}.items():
        check_share(f"span_masking: {name}", value)
    check_share("span_masking: mask_share + random_share", round(mask_share + random_share, 9))
    if mean_span < 1 or longest_span < 1:
        raise ConfigError(f"span_masking: mean_span={mean_span}, longest_span={longest_span}: expected 1 or more")
    if not 0 <= mask_id < vocabulary_size:
        raise ConfigError(f"span_masking: mask_id={mask_id}: expected an id below vocabulary_size={vocabulary_size}")
    fixed_ids = (*special_ids, mask_id)
    ordinary = np.setdiff1d(np.arange(vocabulary_size), fixed_ids)
    if not len(ordinary):
        raise ConfigError(f"span_masking: all {vocabulary_size} ids are special; expected ordinary ones beside them")

    def transform(fields: Fields, randomness: Randomness) -> Fields:
        token_BT, free_BT = _tokens(fields, field, mask, fixed_ids)
        draw_BTR = randomness.uniform(0.0, 1.0, (token_BT.shape[1], 4))
        random_BT = ordinary[randomness.integers(0, len(ordinary), token_BT.shape[1:])]
        count_B = np.floor(probability * free_BT.sum(axis=1) + randomness.uniform(0.0, 1.0)).astype(np.int64)
        start_BT = _span_starts(free_BT, draw_BTR[..., 0], mean_span, longest_span)
        priority_BT, way_BT, cut_BT = np.moveaxis(_in_order(draw_BTR[..., 1:], start_BT[..., None]), 2, 0)
        # the span that is cut short loses its end or its beginning alike, so that no place is favoured
        place_BT = np.where(cut_BT < 0.5, 1, -1) * np.arange(token_BT.shape[1])
        order_BT = np.lexsort((place_BT, np.where(free_BT, priority_BT, np.inf)), axis=1)
        chosen_BT = np.zeros(token_BT.shape, bool)
        np.put_along_axis(chosen_BT, order_BT, np.arange(token_BT.shape[1]) < count_B[:, None], axis=1)
        hidden_BT = np.where(way_BT < mask_share, mask_id, random_BT)
        hidden_BT = np.where(chosen_BT & (way_BT < mask_share + random_share), hidden_BT, token_BT)
        return {
            **fields,
            field: hidden_BT.astype(token_BT.dtype),
            "targets": token_BT,
            "target_mask": chosen_BT.astype(np.float32),
        }

    return transform


def _span_starts(free_BT: np.ndarray, draw_BT: np.ndarray, mean: float, longest: int) -> np.ndarray:
    """Return for each position where its span begins; a token begins one with probability 1 / mean."""
    begins_BT = ~free_BT | (draw_BT < 1 / mean)
    begins_BT[:, :1] = True
    begins_BT[:, 1:] |= ~free_BT[:, :-1]
    positions, length_BT = np.arange(free_BT.shape[1]), _since(begins_BT)
    return positions - length_BT % longest


def _since(event_BT: np.ndarray) -> np.ndarray:
    """Return how many positions back the last event lies, counted from just before the row where there is none."""
    positions = np.arange(event_BT.shape[1])
    return positions - np.maximum.accumulate(np.where(event_BT, positions, -1), axis=1)


def _in_order(value: np.ndarray, order: np.ndarray) -> np.ndarray:
    return np.take_along_axis(value, order, axis=1)


def _tokens(fields: Fields, field: str, mask: str, special_ids: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens and where they are real and not special."""
    for name in (field, mask):
        if name not in fields:
            raise ConfigError(f"a transform of {name!r} is configured, but the data has the fields {', '.join(fields)}")
    token_BT, mask_BT = fields[field], fields[mask]
    if token_BT.ndim != 2 or token_BT.dtype.kind not in "iu" or mask_BT.shape != token_BT.shape:
        raise DataError(
            f"fields {field!r} ({token_BT.dtype}, shape {token_BT.shape}) and {mask!r} (shape {mask_BT.shape}): "
            "expected whole numbers [rows, positions] and a mask of the same shape"
        )
    return token_BT, (mask_BT > 0) & ~np.isin(token_BT, special_ids)
