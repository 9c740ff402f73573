"""Several processes that train together: found by flags or surroundings, joined by ``jax.distributed``, left as one.

A process that is lost ends all others: whoever started them starts them again, from the latest checkpoint.
Usage: ``join(find_place(coordinator, processes, process))`` before JAX has devices; at the end ``leave(code)``.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import jax

from jaxlab.core.errors import ConfigError, PreemptedError, UsageError
from jaxlab.train.board import Board, number

_log = logging.getLogger("jaxlab")
HEARTBEAT = 15  # seconds without a sign of life after which a process is lost
START, SHUTDOWN = 300, 600  # seconds to wait for the others in the beginning, and in the end
BIND = "JAX_COORDINATOR_BIND_ADDRESS"  # JAX's own: where the coordinator listens, if not where it is reached
GRACE = 5.0  # seconds that a process has to end by itself when another one has failed
GOODBYE = GRACE + 3.0  # seconds that process 0 waits for the others to go
FAILED = "failed"
_END = "end"  # the name of what is said in the end
_PROBE = 3.0  # seconds within which a coordinator that is well answers
_ending = threading.Lock()
SIGNS = {
    "SLURM": ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    "Open MPI": ("OMPI_MCA_orte_hnp_uri",),
    "GKE TPU": ("TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID"),
}
"""Variables that launchers set: all of a line have to be there. Elsewhere, as in Kubernetes' jobs, flags say it."""


class Place(NamedTuple):
    """A process among others, and how that was found out."""

    coordinator: str  # HOST:PORT of process 0
    processes: int
    process: int
    local_devices: tuple[int, ...] | None
    found: str


def find_place(coordinator: str | None, processes: int | None, process: int | None) -> Place | None:
    """Return this process's place; None where it is alone.

    Args:
      coordinator: ``HOST:PORT`` of process 0, where the others find it and where alone it listens.
      processes: how many there are; 1 alone means that surroundings are not looked at.
      process: which one this is, from 0.

    Raises:
      UsageError: flags that do not go together, or surroundings that are not what they seem.
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    if processes == 1 and coordinator is None and process in (None, 0):
        return None
    if any(value is not None for value in given.values()):
        lacking = [name for name, value in given.items() if value is None]
        if coordinator is None or processes is None or process is None:
            said = [name for name in given if name not in lacking]
            raise UsageError(f"{', '.join(lacking)}: expected together with {', '.join(said)}")
        return Place(_address(coordinator), *_numbers(processes, process), None, "flags")
    launcher = next((name for name, signs in SIGNS.items() if all(sign in os.environ for sign in signs)), None)
    if launcher is None and _on_cloud_tpu():
        launcher = "Cloud TPU"
    return None if launcher is None else _of_surroundings(launcher)


def _numbers(processes: int, process: int) -> tuple[int, int]:
    if processes < 1:
        raise UsageError(f"--processes={processes}: expected 1 or more")
    if not 0 <= process < processes:
        raise UsageError(f"--process={process}: expected 0 to {processes - 1}, one of --processes={processes}")
    return processes, process


def _address(coordinator: str) -> str:
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isdigit() and 0 < int(port) < 2**16):
        raise UsageError(f"--coordinator={coordinator}: expected HOST:PORT of process 0, such as 127.0.0.1:12345")
    return coordinator


def _on_cloud_tpu() -> bool:
    from jax._src import cloud_tpu_init  # asks nobody; a machine without TPUs has set it to False at import

    return bool(cloud_tpu_init.running_in_cloud_tpu_vm)


def _of_surroundings(name: str) -> Place | None:
    """Return what JAX makes of a launcher's variables; None where it started one process alone."""
    from jax._src.clusters import ClusterEnv

    try:
        found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, START)
    except Exception as error:
        raise UsageError(f"{name}: {error}; --coordinator, --processes and --process say it themselves") from error
    coordinator, processes, process, devices = found
    if coordinator is None or processes is None or process is None or processes == 1:
        return None
    return Place(coordinator, processes, process, None if devices is None else tuple(devices), name)


def join(place: Place) -> None:
    """Join the others, and let the process end with 75 where JAX would end it without.

    Raises:
      UsageError: the coordinator cannot listen there.
      ConfigError: JAX has devices already.
    """
    bind = os.environ.get(BIND, place.coordinator)
    _handle_aborts(_on_abort)
    # JAX's own notice of SIGTERM takes the signal away from whoever handles it; see stopping.py for ours
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            place.coordinator, place.processes, place.process, place.local_devices,
            cluster_detection_method="deactivate", coordinator_bind_address=bind, initialization_timeout=START,
            heartbeat_timeout_seconds=HEARTBEAT, shutdown_timeout_seconds=SHUTDOWN,
        )  # fmt: skip
    except jax.errors.JaxRuntimeError as error:
        raise UsageError(f"the coordinator cannot listen at {bind}: {' '.join(str(error).split())}") from error
    except RuntimeError as error:
        raise ConfigError(f"processes join before JAX has devices, which the config has asked for: {error}") from error
    _log.info("joined %s as process %d of %d (%s)", place.coordinator, place.process, place.processes, place.found)


def joined() -> bool:
    """Say whether this process has joined others."""
    return jax.distributed.is_initialized()


def leave(code: int) -> int:
    """End what `join` began; return the exit code, or end the process where the others may not be there to agree."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        if not Board(_END).under(FAILED):
            jax.distributed.shutdown()  # waits for the others
            _handle_aborts(None)
            return code
    end(code)


def end(code: int, message: str = "", *, patience: float = GOODBYE) -> NoReturn:
    """End this process whatever its threads wait for: an orderly end would wait for processes that are gone.

    Args:
      code: to end with.
      message: written to stderr, once whoever calls.
      patience: seconds for telling the others; process 0, which holds what they tell each other, goes last.
    """
    if not _ending.acquire(blocking=False):
        time.sleep(2 * GOODBYE)  # another thread is ending the process
    bounded(_say_goodbye, patience if number() == 0 else min(patience, _PROBE))
    os.write(2, message.encode())
    for child in multiprocessing.active_children():  # that read data: nobody else would end them
        child.kill()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def say_failed() -> None:
    """Let no process expect an orderly end: one of them has failed."""
    board = Board(_END)
    board.put(f"{FAILED}/{board.process}", "")


def bounded(say: Callable[[], None], seconds: float) -> None:
    """Say something to the other processes, but do not wait longer for that: who would pass it on may be gone."""

    def try_to() -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            say()

    saying = threading.Thread(target=try_to, daemon=True)
    saying.start()
    saying.join(seconds)


def _say_goodbye() -> None:
    board = Board(_END)
    board.put(f"gone/{board.process}", "")
    while board.process == 0 and len(board.under("gone")) < board.processes:
        time.sleep(0.1)


_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int)


def _handle_aborts(handler: Callable[[int], None] | None) -> None:
    """Handle SIGABRT outside of Python, whose own handlers wait for the main thread: JAX aborts on another one."""
    function = ctypes.CDLL(None).signal
    function.argtypes, function.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    function(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p) if handler is not None else None)


@_Handler
def _on_abort(number: int) -> None:
    """End with 75 where the coordinator is lost or has told of a loss; return, and abort, where it is well."""
    well: list[bool] = []
    asking = threading.Thread(target=lambda: well.append(Board(_END).answers()), daemon=True)
    asking.start()
    asking.join(_PROBE)  # JAX aborts with its client locked: no answer then
    if well != [True]:
        message = "stopped: another process is gone or does not answer; run the same command to go on\n"
        end(PreemptedError.exit_code, message, patience=0.0)
