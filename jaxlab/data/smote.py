"""SMOTE for tables: new rows of the rare classes, between neighbours of one class (arXiv 1106.1813).

Works on the training split only: give it to no other. Uses imbalanced-learn, an extra. Knows no transform.
Usage: ``spec("jaxlab.data.smote:make", source=spec("..."), columns=("age", "income"), ratio=0.5)``.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import Source
from jaxlab.data.arrays import ArraySource
from jaxlab.data.subset import fingerprint
from jaxlab.data.table_columns import checked, choose, layout_of, numbers, read


def make(
    source: Source,
    columns: tuple[str, ...] = (),
    label: str = "label",
    ratio: float = 1.0,
    neighbours: int = 5,
    standardise: bool = True,
    seed: int = 0,
) -> ArraySource:
    """Return the source's rows, then synthetic ones, in memory: the columns as float32 and the label.

    The spec's meta gets ``synthetic``, the number of new rows of each class.

    Args:
      source: the training split.
      columns: numeric columns [N] or [N, K]; () means all but label, target, group, time, id and mask. Other fields
        are left out, as a synthetic row has no value for them.
      label: the class of each row [N], integers.
      ratio: each class is brought up to this share of the largest class's rows.
      neighbours: a new row lies between a row and one of its so many nearest of the same class.
      standardise: whether distances are measured in standard deviations of each column.
      seed: decides the new rows.

    Raises:
      ConfigError: imbalanced-learn is not installed, or a parameter out of range.
      DataError: missing or infinite values, no class, or a class with too few rows for `neighbours`.
    """
    if not 0 < ratio <= 1 or neighbours < 1:
        raise ConfigError(f"smote: ratio={ratio}, neighbours={neighbours}: expected 0 < ratio <= 1 and neighbours >= 1")
    names = choose("smote", checked("smote", columns), layout_of(source.spec), text=False)
    fields = read(source, (*names, label))
    labels_N = fields.pop(label)
    if labels_N.ndim != 1 or labels_N.dtype.kind not in "iu":
        raise DataError(f"smote: field {label!r} holds {labels_N.dtype} {labels_N.shape}; expected one class a row")
    parts = {name: _finite(name, fields[name]) for name in names}
    x_NF = np.concatenate([part.reshape(len(part), -1) for part in parts.values()], axis=1)
    wanted = _wanted(source, labels_N, ratio, neighbours)
    new_MF, new_labels_M = _synthesise(x_NF, labels_N, wanted, neighbours, standardise, seed)
    arrays: dict[str, np.ndarray] = {}
    start = 0
    for name, part in parts.items():
        stop = start + int(np.prod(part.shape[1:], dtype=int))
        arrays[name] = np.concatenate([part, new_MF[:, start:stop].reshape(-1, *part.shape[1:])]).astype(np.float32)
        start = stop
    arrays[label] = np.concatenate([labels_N, new_labels_M]).astype(labels_N.dtype)
    made = {_class_name(source, code): int((new_labels_M == code).sum()) for code in np.unique(labels_N)}
    settings = (fingerprint(source), names, label, ratio, neighbours, standardise, seed)
    known = f"smote:{hashlib.sha256(repr(settings).encode()).hexdigest()}"
    return ArraySource(arrays, {**source.spec.meta, "synthetic": made, "fingerprint": known})


def _finite(name: str, column: np.ndarray) -> np.ndarray:
    x = numbers(name, column)
    wrong = int((~np.isfinite(x)).sum())
    if wrong:
        raise DataError(
            f"smote: column {name!r}: {wrong} values in {len(x)} rows are missing or infinite, which no row lies "
            'between; leave their rows out first with spec("jaxlab.data.splits:drop_missing")'
        )
    return x


def _wanted(source: Source, labels_N: np.ndarray, ratio: float, neighbours: int) -> dict[int, int]:
    """Return how many rows each class shall have."""
    values, counts = np.unique(labels_N, return_counts=True)
    if len(values) < 2:
        raise DataError("smote: the data has only one class")
    wanted = {int(value): max(int(n), round(ratio * counts.max())) for value, n in zip(values, counts, strict=True)}
    for value, count in zip(values, counts, strict=True):
        if wanted[int(value)] > count and count <= neighbours:
            raise DataError(
                f"smote: class {_class_name(source, value)!r} has {count} rows, too few for neighbours={neighbours}; "
                "it needs one more than that"
            )
    return wanted


def _class_name(source: Source, code: Any) -> str:
    classes = source.spec.meta.get("classes") or ()
    return str(classes[int(code)]) if 0 <= code < len(classes) else str(int(code))


def _synthesise(
    x_NF: np.ndarray, labels_N: np.ndarray, wanted: dict[int, int], neighbours: int, standardise: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the new rows [M, F] and their labels [M]."""
    try:
        from imblearn.over_sampling import SMOTE
    except ImportError as error:
        raise ConfigError("smote: imbalanced-learn is not installed; run: pip install jaxlab[imbalance]") from error
    centre_F, spread_F = x_NF.mean(0), x_NF.std(0)
    if not standardise:
        centre_F, spread_F = np.zeros_like(centre_F), np.ones_like(spread_F)
    spread_F = np.where(spread_F > 0, spread_F, 1.0)
    sampler = SMOTE(sampling_strategy=wanted, k_neighbors=neighbours, random_state=seed)
    grown_NF, grown_labels_N = sampler.fit_resample((x_NF - centre_F) / spread_F, labels_N)
    return grown_NF[len(x_NF) :] * spread_F + centre_F, grown_labels_N[len(x_NF) :]
