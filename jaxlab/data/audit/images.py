"""Near duplicates among images by a perceptual hash with banding, confirmed on small copies and on the pixels.

The hash is the difference hash: the grey image averaged to 8 x 9, one bit a neighbouring pair, set where the right one
is brighter by `MARGIN` of the image's range, which keeps noise out of flat areas. Hashes that differ in at most
`DISTANCE` of 64 bits agree in one of ``DISTANCE + 1`` bands (pigeonhole), so all such pairs are found without comparing
all. Many different images share a hash; so a pair must also correlate, as 16 x 16 greys and then in its pixels. Knows
no source. Usage: ``near_pairs(fingerprint(train_images), fingerprint(test_images))``, then `correlation` of the pairs.

Shape letters: B images, H height, W width, C channels, N M images of two splits, P pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxlab.data.audit.rows import equal_pairs, unique_pairs

DISTANCE = 3
MARGIN = 0.05
SIMILAR = 0.99  # correlation from which two images are near duplicates
SMALLEST = 8  # height and width of the smallest image
_SMALL = 16
_PARTNERS = (
    100  # images of one hash that an image is compared with: those that nearly all look alike mustn't take hours
)
_MOST = 50_000_000  # pairs with near hashes that are compared, of two splits
_CHUNK = 2**14


class Fingerprint(NamedTuple):
    """What is kept of images to find near duplicates: hashes [N] uint64, and small greys [N, 256] of length 1."""

    hashes: np.ndarray
    small: np.ndarray


def fingerprint(image_BHWC: np.ndarray | Sequence[np.ndarray]) -> Fingerprint:
    """Return the fingerprints of images of one size [B, H, W, C], or of a list of images of any sizes."""
    if not isinstance(image_BHWC, np.ndarray):
        pieces = [fingerprint(np.asarray(image)[None]) for image in image_BHWC]
        return Fingerprint(*(np.concatenate(values) for values in zip(*pieces, strict=True)))
    grey_BHW = np.nan_to_num(image_BHWC).mean(axis=-1, dtype=np.float32)
    nine_BHW = _shrink(grey_BHW, 8, 9)
    span_B = nine_BHW.max(axis=(1, 2)) - nine_BHW.min(axis=(1, 2))
    bits_BHW = nine_BHW[:, :, 1:] > nine_BHW[:, :, :-1] + MARGIN * span_B[:, None, None]
    hashes = np.packbits(bits_BHW.reshape(len(grey_BHW), 64), axis=1).view(np.uint64)[:, 0]
    return Fingerprint(hashes, _centred(_shrink(grey_BHW, _SMALL, _SMALL)))


def hamming_pairs(left: np.ndarray, right: np.ndarray, distance: int = DISTANCE) -> np.ndarray:
    """Return all pairs [P, 2] of positions of hashes [N] and [M] that differ in at most `distance` bits."""
    edges = np.linspace(0, 64, distance + 2).astype(int)
    found = []
    for low, high in itertools.pairwise(edges):
        mask = np.uint64((1 << int(high)) - (1 << int(low)))
        for i, j in equal_pairs(left & mask, right & mask):
            near = np.bitwise_count(left[i] ^ right[j]) <= distance
            found.append((i[near], j[near]))
    return unique_pairs(found)


def near_pairs(left: Fingerprint, right: Fingerprint) -> np.ndarray:
    """Return the pairs [P, 2] with near hashes whose small greys correlate by `SIMILAR` or more."""
    left_hash, left_of = np.unique(left.hashes, return_inverse=True)
    right_hash, right_of = np.unique(right.hashes, return_inverse=True)
    found, seen = [], 0
    near = hamming_pairs(left_hash, right_hash)
    # from pairs of hashes to pairs of images: first the left image of each, then the right
    for i, k in equal_pairs(left_of, near[:, 0]):
        for m, j in equal_pairs(near[k, 1], right_of, most=_PARTNERS):
            seen += len(m)
            found.append(_correlated(left.small, right.small, i[m], j))
            if seen > _MOST:
                return unique_pairs(found)
    return unique_pairs(found)


def correlation(left_BHWC: np.ndarray, right_BHWC: np.ndarray) -> np.ndarray:
    """Return the correlation [B] of the pixels of each pair of equally large images."""
    return (_centred(left_BHWC) * _centred(right_BHWC)).sum(axis=1)


def _correlated(left: np.ndarray, right: np.ndarray, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = np.zeros(len(i), bool)
    for start in range(0, len(i), _CHUNK):
        part = slice(start, start + _CHUNK)
        kept[part] = np.einsum("pk,pk->p", left[i[part]], right[j[part]]) >= SIMILAR
    return i[kept], j[kept]


def _centred(values: np.ndarray) -> np.ndarray:
    """Return rows [B, ...] flat, of mean 0 and length 1; a row without contrast is 0 and correlates with nothing."""
    flat = np.nan_to_num(values.reshape(len(values), -1).astype(np.float32))
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _shrink(grey_BHW: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the images averaged over `height` by `width` equal areas."""
    down, across = _areas(grey_BHW.shape[1], height), _areas(grey_BHW.shape[2], width)
    return np.matmul(np.matmul(down, grey_BHW), across.T)


def _areas(size: int, parts: int) -> np.ndarray:
    """Return the matrix [parts, size] that averages `size` pixels over `parts` equal stretches."""
    edges, pixels = np.arange(parts + 1) * size / parts, np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(overlap, 0, None) * parts / size).astype(np.float32)
