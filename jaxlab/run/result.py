"""A run as Python sees it: what stands in its directory, as tables and pictures.

Usage: ``run = jaxlab.train(config, workdir)``, then ``run.history``, ``run.plot()``, ``run.evaluate("test")``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.paths import folder_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Run:
    """A run's directory; every attribute is read from it, so that a run of long ago gives the same object."""

    def __init__(self, workdir: str | os.PathLike[str]) -> None:
        """Point at a run's directory.

        Raises:
          DataError: there is no run.
        """
        self.workdir = folder_of(workdir)
        record.read_config(self.workdir)

    def __repr__(self) -> str:
        """Name the directory and how far the run is."""
        return f"Run({str(self.workdir)!r}, {'finished' if self.summary else 'not finished'})"

    @property
    def config(self) -> ConfigDict:
        """The resolved config."""
        return record.read_config(self.workdir)

    @property
    def summary(self) -> dict[str, Any]:
        """The summary; empty while the run is not finished."""
        return record.read_json(self.workdir / record.SUMMARY)

    @property
    def history(self) -> pd.DataFrame:
        """One row a logged step, one column a metric."""
        from jaxlab.run import draw

        return draw.history(self.workdir)

    def plot(self) -> Figure:
        """Draw the learning curve, save it under ``plots/`` and return the figure."""
        from jaxlab.run import draw

        return draw.learning_curve(self.workdir)[0]

    def evaluate(
        self, split: str = "test", step: str = "best", parameters: str = "", by: Sequence[str] = (), plots: bool = True
    ) -> dict[str, Any]:
        """Measure a checkpoint on a split, as ``jaxlab evaluate`` does, and return the result."""
        from jaxlab.run.evaluate import evaluate

        return evaluate(self.workdir, split, step, parameters=parameters, by=by, plots=plots)
