"""Pictures of a run, from what stands in its directory."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from jaxlab.core import record
from jaxlab.metrics import plots


def history(workdir: Path) -> pd.DataFrame:
    """Return one row a logged step, one column a metric."""
    rows = record.read_metrics(workdir)
    return pd.DataFrame(rows).groupby("step").last() if rows else pd.DataFrame()


def learning_curve(workdir: Path) -> tuple[Figure, Path]:
    """Draw the learning curve and return it and where it was saved."""
    figure = plots.learning_curve(history(workdir))
    return figure, plots.save(figure, workdir / record.PLOTS / "learning_curve.png")


def confusion_matrix(workdir: Path, split: str, step: int, table: pd.DataFrame, classes: tuple[str, ...]) -> Path:
    """Draw the confusion matrix of stored predictions and return where it was saved."""
    figure = plots.confusion_matrix(table["target"].to_numpy(), table["prediction"].to_numpy(), classes)
    return plots.save(figure, workdir / record.PLOTS / f"confusion_matrix-{split}-{step}.png")
