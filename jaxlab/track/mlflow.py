"""Rows, config, tags and files of a run to MLflow: a server, or a SQLite file.

Usage: ``config.sinks.mlflow = spec("jaxlab.track.mlflow:make", uri="http://127.0.0.1:5000", experiment="digits")``.
Nothing connects before the first row, and then on the sink's own thread: a server that is down costs training nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlab.core import config as configs
from jaxlab.track import remembered

NAME = "mlflow"
_LONGEST, _AT_ONCE = 500, 100  # characters of a parameter's value, and parameters in a request, that any server takes
# the client's own seven retries and two minutes each would outlast the run's end, which waits 20 s for its sinks
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MLflow:
    """Writes to one run of an experiment, the same after a resume."""

    def __init__(self, workdir: Path, uri: str, experiment: str, tags: Mapping[str, str], total_steps: int = 0) -> None:
        """Remember where to; see `make`."""
        self._workdir, self._uri, self._experiment, self._tags = workdir, uri, experiment, tags
        self._total, self._step = total_steps, 0
        self._client: Any = None
        self._run, self._running = "", False

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log a row in one request."""
        from mlflow.entities import Metric

        self._connect()
        if not self._running:
            self._client.update_run(self._run, status="RUNNING")
            self._running = True
        now = int(time.time() * 1000)
        self._client.log_batch(self._run, metrics=[Metric(name, value, now, step) for name, value in values.items()])
        self._step = max(self._step, step)

    def close(self) -> None:
        """Log the run's files and say how it ended; a run that can go on is KILLED until it does."""
        if self._client is None:
            return
        self.upload()
        self.end("FINISHED" if self._step >= self._total else "KILLED")

    def end(self, status: str) -> None:
        """Say how it ended."""
        self._client.set_terminated(self._run, status)

    def upload(self) -> None:
        """Log the files of the run that people look at."""
        self._connect()
        for file in remembered.files(self._workdir):
            folder = str(file.relative_to(self._workdir).parent)
            self._client.log_artifact(self._run, str(file), None if folder == "." else folder)

    def _connect(self) -> None:
        if self._client is not None:
            return
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient(tracking_uri=self._uri or None)
        known = remembered.read(self._workdir, NAME)
        if remembered.RUN in known:
            try:
                client.get_run(known[remembered.RUN])
                self._client, self._run = client, known[remembered.RUN]
                return
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        self._client, self._run = client, self._new(client)

    def _new(self, client: Any) -> str:
        """Make a run with the config as its parameters, and remember its id."""
        from mlflow.entities import Param

        found = client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else client.create_experiment(self._experiment)
        tags = {"jaxlab.workdir": str(self._workdir), **self._tags}
        run = client.create_run(experiment, run_name=self._workdir.name, tags=tags).info.run_id
        flat = configs.flatten(remembered.config_of(self._workdir))
        params = [Param(_key(path), str(value)[:_LONGEST]) for path, value in flat.items()]
        for first in range(0, len(params), _AT_ONCE):
            client.log_batch(run, params=params[first : first + _AT_ONCE])
        place = {remembered.RUN: run, "uri": self._uri, "experiment": self._experiment}
        remembered.write(self._workdir, NAME, place)
        return run


def make(
    workdir: Path, total_steps: int, uri: str = "", experiment: str = "jaxlab", tags: tuple[str, ...] = ()
) -> MLflow:
    """Return the sink.

    Args:
      workdir: the run's directory.
      total_steps: at which the run is finished.
      uri: of the server, or ``sqlite:///FILE``; the environment's MLFLOW_TRACKING_URI if empty.
      experiment: by name; made if need be.
      tags: ``name=value``.

    Raises:
      ConfigError: mlflow is not installed, or a tag has no value.
    """
    remembered.check_installed("mlflow", "mlflow")
    return MLflow(workdir, uri, experiment, remembered.pairs(tags), total_steps)


def publish(workdir: Path) -> None:
    """Log the files of a run or study that is tracked, such as a report that was written since."""
    known = remembered.read(workdir, NAME)
    sink = MLflow(workdir, known["uri"], known["experiment"], {})
    sink.upload()
    if remembered.is_study(workdir):
        sink.end("FINISHED")


def _key(path: str) -> str:
    """Return a config path as MLflow takes names: no brackets."""
    return path.replace("[", ".").replace("]", "")
