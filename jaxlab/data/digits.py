"""Handwritten digits, 1,797 images of 8×8, as scikit-learn ships them (UCI Optical Recognition of Handwritten Digits).

Usage: ``spec("jaxlab.data.digits:make", split="train")``.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from jaxlab.core.errors import DataError, did_you_mean
from jaxlab.data.arrays import ArraySource


def make(
    split: str = "train", valid_fraction: float = 0.1, test_fraction: float = 0.2, split_seed: int = 0
) -> ArraySource:
    """Return one split: ``image`` [8, 8, 1] float32 in [0, 1] and ``label`` int32.

    Args:
      split: train, valid, test, or train+valid; each stratified by class.
      valid_fraction: share of all examples that is kept for choosing the model.
      test_fraction: share of all examples that is held out.
      split_seed: decides the splits, apart from the run's seed: runs with other seeds see the same test data.

    Raises:
      DataError: no such split.
    """
    images, labels = load_digits(return_X_y=True)
    everything = np.arange(len(labels))
    rest, test = train_test_split(everything, test_size=test_fraction, stratify=labels, random_state=split_seed)
    share = valid_fraction / (1 - test_fraction)
    train, valid = train_test_split(rest, test_size=share, stratify=labels[rest], random_state=split_seed)
    splits = {"train": train, "valid": valid, "test": test, "train+valid": rest}
    if split not in splits:
        raise DataError(f"digits has no split {split!r}{did_you_mean(split, splits)}")
    rows = np.sort(splits[split])
    arrays = {"image": images[rows].reshape(-1, 8, 8, 1) / 16.0, "label": labels[rows]}
    return ArraySource(arrays, {"name": "digits", "split": split, "classes": tuple("0123456789")})
