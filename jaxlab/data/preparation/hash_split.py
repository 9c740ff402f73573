"""Assigns rows to train, valid or test by a hash of a key, so that a row never moves when others come or go.

Knows nothing of rows: a key that several rows share (a user, a file) keeps them in one split.
Usage: ``split_of("shared/01/file.html", valid=5, test=5)``.
"""

from __future__ import annotations

import hashlib

SPLITS = ("train", "valid", "test")


def split_of(key: str, valid: int = 10, test: int = 10) -> str:
    """Return the split of `key`, the same on every machine.

    Args:
      key: what must not be divided between splits.
      valid: percentage of keys in the split ``valid``.
      test: percentage of keys in the split ``test``; the rest is ``train``.
    """
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 100
    return "test" if bucket < test else "valid" if bucket < test + valid else "train"
