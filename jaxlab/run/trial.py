"""Trainings in processes of their own, as the command line starts them: they can be killed, and go on other devices.

Usage: ``with Trial(file, workdir, log, surroundings(config)) as trial: trial.finish(60)``; leaving the block kills it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from ml_collections import ConfigDict

from jaxlab.core import trust
from jaxlab.core.errors import JaxlabError, PreemptedError, UsageError
from jaxlab.run.environment import available_cpus
from jaxlab.run.processes import SIGNS

_COMMAND = "import sys; from jaxlab.cli import main; sys.exit(main())"
_DEVICE_FLAG = "--xla_force_host_platform_device_count"
_KINDS: dict[int, type[JaxlabError]] = {2: UsageError, 75: PreemptedError}
PAUSE = 0.002  # seconds between two looks at a run


def surroundings(
    config: ConfigDict,
    devices: int = 0,
    variables: Mapping[str, str] | None = None,
    paths: Sequence[str] = (),
    cwd: Path | None = None,
) -> dict[str, str]:
    """Return the environment of a training: this process's, its import path, and a fixed number of threads.

    Args:
      config: that is trained, and that this process was allowed to build; so is the training then.
      devices: so many of a CPU's (virtual) or the first of GPUs; 0 for what there is.
      variables: set besides.
      paths: looked in for modules before this process's own.
      cwd: the folder that the training is started in, where it is not this process's.
    """
    launched = {sign for signs in SIGNS.values() for sign in signs}  # what says that there are other processes
    found = {name: value for name, value in os.environ.items() if name not in launched} | dict(variables or {})
    here = [place or str(Path.cwd()) for place in sys.path]
    found["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*paths, *here, str(cwd or Path.cwd())]))
    named = (text.partition(":")[0].partition(".")[0] for _, text, _ in trust.import_paths(config))
    found[trust.VARIABLE] = ",".join(dict.fromkeys([*trust.allowed(), *named]))
    found["PYTHONSAFEPATH"] = "1"  # the folder where it is started comes last, not first
    if devices:
        others = [flag for flag in found.get("XLA_FLAGS", "").split() if not flag.startswith(_DEVICE_FLAG)]
        found["XLA_FLAGS"] = " ".join([*others, f"{_DEVICE_FLAG}={devices}"])
        found["NPROC"] = str(2 * devices)  # on jax 0.10 fewer threads deadlock with several devices
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        known = visible if visible != [""] else [str(number) for number in range(devices)]
        found["CUDA_VISIBLE_DEVICES"] = ",".join(known[:devices])
    virtual = re.search(rf"{_DEVICE_FLAG}=(\d+)", found.get("XLA_FLAGS", ""))
    found.setdefault("NPROC", str(max(available_cpus(), 2 * int(virtual[1]) if virtual else 1)))  # bits follow it
    return found


class Trial:
    """One process that trains; it leads a process group, so that its workers end with it."""

    def __init__(
        self,
        config: Path,
        workdir: Path,
        log: Path,
        environment: Mapping[str, str],
        more: Sequence[str] = (),
        cwd: Path | None = None,
    ) -> None:
        """Start ``jaxlab train`` with `more` flags, in the folder `cwd`; what it prints is appended to `log`."""
        self.began, self.log = time.time(), log
        arguments = ["train", f"--config={config}", f"--workdir={workdir}", *more]
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, *arguments], env=dict(environment), start_new_session=True, cwd=cwd,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file,
            )  # fmt: skip

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process and its workers by SIGKILL, and wait for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self, condition: Callable[[], bool], limit: float) -> bool:
        """Wait until `condition` holds and return True, or until the process ends by itself and return False.

        Raises:
          JaxlabError: neither came within `limit` seconds.
        """
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            if condition():
                return self.running
            if not self.running:
                return False
            time.sleep(PAUSE)
        self.kill()
        raise JaxlabError(f"a training came to nothing within {limit:.0f} s and was killed; see {self.log}")

    def finish(self, limit: float, look: Callable[[], None] = lambda: None) -> None:
        """Wait until it has finished; `look` is called meanwhile.

        Raises:
          JaxlabError: it ended otherwise (2: UsageError, 75: PreemptedError), or not within `limit` seconds.
        """

        def ended() -> bool:
            look()
            return not self.running

        self.wait(ended, limit)
        code = self._process.returncode
        if code:
            lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
            last = lines[-1].removeprefix("error: ") if lines else "it printed nothing"
            raise _KINDS.get(code, JaxlabError)(f"a training ended with code {code}: {last} (see {self.log})")
