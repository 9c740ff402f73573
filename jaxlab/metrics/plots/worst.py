"""The examples on which a model did worst, as a table.

Shape letters: N examples, C classes, Q labels. Usage: ``of_classes(id_N, logits_NC, target_N, prediction_N, names)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import log_softmax

MOST = 50


def of_classes(
    id_N: np.ndarray, logits_NC: np.ndarray, target_N: np.ndarray, prediction_N: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """Return the examples of the highest cross-entropy, the highest first; logits that are not finite are left out.

    Columns: ``id``, ``target``, ``prediction`` (names), ``confidence`` (the probability of the prediction), ``loss``.
    The index is the row.
    """
    rows = np.flatnonzero(np.isfinite(logits_NC).all(axis=1))
    log_NC = log_softmax(logits_NC[rows].astype(np.float64), axis=1)
    every = np.arange(len(rows))
    loss_N = -log_NC[every, target_N[rows]]
    first = np.argsort(-loss_N, kind="stable")[:MOST]
    rows, names = rows[first], np.asarray(classes, object)
    said = prediction_N[rows]
    columns = {
        "id": id_N[rows], "target": names[target_N[rows]], "prediction": names[said],
        "confidence": np.exp(log_NC[first, said]), "loss": loss_N[first],
    }  # fmt: skip
    return pd.DataFrame(columns, index=rows)


def of_numbers(id_N: np.ndarray, target: np.ndarray, prediction: np.ndarray) -> pd.DataFrame:
    """Return the examples of the largest mean absolute error, the largest first; nan where a number is missing.

    Columns: ``id``, ``mean_absolute_error``, and of one number an example ``target`` and ``prediction``.
    """
    error = np.abs(prediction - target).reshape(len(id_N), -1)
    known = np.isfinite(error)
    count_N = known.sum(axis=1)
    error_N = np.where(known, error, 0.0).sum(axis=1) / np.maximum(count_N, 1)
    rows = np.flatnonzero(count_N)
    rows = rows[np.argsort(-error_N[rows], kind="stable")[:MOST]]
    columns = {"id": id_N[rows], "mean_absolute_error": error_N[rows]}
    if error.shape[1] == 1:
        columns |= {"target": target.reshape(-1)[rows], "prediction": prediction.reshape(-1)[rows]}
    return pd.DataFrame(columns, index=rows)
