"""Rows, config, tags and files of a run to Weights & Biases, online or offline.

Usage: ``config.sinks.wandb = spec("jaxlab.track.wandb:make", project="digits", mode="offline")``, later ``wandb sync``.
Nothing connects before the first row, and then on the sink's own thread: a service that is down costs training nothing.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlab.core import config as configs
from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.track import remembered

NAME = "wandb"
MODES = ("", "online", "offline", "disabled")
_STEP = "step"


class WandB:
    """Writes to one run of a project, the same after a resume."""

    def __init__(self, workdir: Path, project: str, entity: str, mode: str, tags: tuple[str, ...]) -> None:
        """Remember where to; see `make`."""
        self._workdir, self._project, self._entity, self._mode, self._tags = workdir, project, entity, mode, tags
        self._run: Any = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log a row."""
        self._connect()
        self._run.log({_STEP: step, **values})

    def close(self) -> None:
        """Log the run's files and end."""
        if self._run is not None:
            self.upload()
            self._run.finish()

    def upload(self) -> None:
        """Log the files of the run that people look at, as one artifact."""
        import wandb

        self._connect()
        artifact = wandb.Artifact(f"run-{self._run.id}", type="jaxlab-run")
        for file in remembered.files(self._workdir):
            artifact.add_file(str(file), name=str(file.relative_to(self._workdir)))
        self._run.log_artifact(artifact)

    def _connect(self) -> None:
        if self._run is not None:
            return
        import wandb

        known = remembered.read(self._workdir, NAME)
        identity = known[remembered.RUN] if remembered.RUN in known else secrets.token_hex(4)
        self._run = wandb.init(
            project=self._project, entity=self._entity or None, id=identity, resume="allow", name=self._workdir.name,
            mode=self._mode or None, tags=list(self._tags) or None,
            config=json.loads(configs.to_json(remembered.config_of(self._workdir))),
            # read anew: the client remembers where the first run of a process wrote, and a study has many
            dir=os.environ.get("WANDB_DIR"), settings=wandb.Settings(console="off", silent=True),
        )  # fmt: skip
        # the run's own step is the axis: wandb's counts rows and refuses those that a resumed run writes again
        self._run.define_metric(_STEP)
        self._run.define_metric("*", step_metric=_STEP)
        place = {remembered.RUN: identity, "project": self._project, "entity": self._entity, "mode": self._mode}
        remembered.write(self._workdir, NAME, place)


def make(workdir: Path, project: str = "jaxlab", entity: str = "", mode: str = "", tags: tuple[str, ...] = ()) -> WandB:
    """Return the sink.

    Args:
      workdir: the run's directory; wandb keeps its own files where it always does ($WANDB_DIR, else ``./wandb``), as
        they have links to a cache, which a run's directory may not have.
      project: by name.
      entity: the user or team; the user's default if empty.
      mode: online, offline (``wandb sync`` sends it later) or disabled; the environment's WANDB_MODE if empty.
      tags: words.

    Raises:
      ConfigError: wandb is not installed, or no such mode.
    """
    remembered.check_installed("wandb", "wandb")
    if mode not in MODES:
        raise ConfigError(f"mode={mode!r}{did_you_mean(mode, MODES)}")
    return WandB(workdir, project, entity, mode, tags)


def publish(workdir: Path) -> None:
    """Log the files of a run or study that is tracked, such as a report that was written since."""
    known = remembered.read(workdir, NAME)
    sink = WandB(workdir, known["project"], known["entity"], known["mode"], ())
    sink.upload()
    sink.close()
