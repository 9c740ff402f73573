"""Pictures of a run, from what stands in its directory: its learning curve, and what its predictions allow.

Usage: ``evaluation(workdir, "test", 600, read_arrays(workdir, "test", 600), experiment.data.meta)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from jaxlab.core import record
from jaxlab.core.types import Table
from jaxlab.metrics.plots import style
from jaxlab.metrics.plots.training import learning_curve as learning_figure
from jaxlab.run.draw_kinds import Examples, drawings


def history(workdir: Path) -> pd.DataFrame:
    """Return one row a logged step, one column a metric."""
    rows = record.read_metrics(workdir)
    return pd.DataFrame(rows).groupby("step").last() if rows else pd.DataFrame()


def learning_curve(workdir: Path) -> tuple[Figure, Path]:
    """Draw the learning curve and return it and where it was saved as PNG; the SVG is beside it."""
    figure = learning_figure(history(workdir))
    return figure, style.save(figure, workdir / record.PLOTS / "learning_curve.png")[0]


def evaluation(
    workdir: Path,
    split: str,
    step: int | str,
    table: Table,
    meta: Mapping[str, Any],
    examples: Examples | None = None,
) -> list[Path]:
    """Draw what the columns of a prediction store allow and return the files, ``plots/KIND-SPLIT-STEP.png`` and others.

    Each picture is written as PNG and SVG, each table as CSV. What is undefined, such as a ROC curve of one class, is
    not drawn. Clouds of points show a fixed sample of thousands.

    - classes: ``confusion_matrix``, ``reliability``, ``roc`` and ``precision_recall`` (each class against the rest if
      there are more than two, up to 20), ``thresholds`` (two classes), ``worst`` (and ``worst_images``).
    - labels [N, C]: ``roc`` and ``precision_recall`` of each.
    - numbers: ``predicted``, ``residuals``, ``worst``; of forecasts [N, H, T] also ``forecasts`` and ``horizon``.
    - anomaly scores: ``scores``, and with a ``label`` ``roc``, ``precision_recall`` and ``thresholds``.
    - ``attention`` [N, K, T, S]: that of the first example.

    Args:
      workdir: the run's directory.
      split: for the names of the files.
      step: for the names of the files.
      table: the prediction store's columns [N, ...], with ``id``.
      meta: the data's facts; ``classes`` are the names.
      examples: gives the fields of the worst examples: ``image`` is drawn, text goes into their table.
    """
    if not len(table["id"]):
        return []
    written: list[Path] = []
    for kind, drawn in drawings(table, meta, examples):
        path = workdir / record.PLOTS / f"{kind}-{split}-{step}.png"
        if isinstance(drawn, pd.DataFrame):
            written.append(_as_csv(drawn, path.with_name(f"{path.stem}.csv")))
        elif drawn is not None:
            written += style.save(drawn, path)
    return written


def _as_csv(table: pd.DataFrame, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
    return path
