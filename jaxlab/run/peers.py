"""The other processes of a run while it trains or evaluates: agreeing on when to stop, and ending when one is lost.

Each process has a box on the board that a thread reads. What stands in it: that one was asked to stop, or that one has
failed. To stop, each says which step it has taken last and takes no further one until all have; the step after the
latest of them is where all stop. No step waits for that otherwise, and no device takes part.
Usage: ``with together(stop) as peers: ...; peers.stopping(step)``; alone, all of this does nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import jax

from jaxlab.core.errors import DivergedError, JaxlabError, PreemptedError
from jaxlab.run import processes
from jaxlab.run.stopping import Stop
from jaxlab.run.topology import topology
from jaxlab.train.board import WAIT, Board

T = TypeVar("T")
_log = logging.getLogger("jaxlab")
_STOP, _CLOSE = "stop", "close"
_WAY_ON = "run the same command to go on"
_LAST = 15.0  # seconds that a process which failed may take to close files and wait for a save
_PATIENCE = 3.0  # seconds to hear why a process is gone
_PATIENT = 20.0  # seconds for threads to answer each other
_STATUS = re.compile("(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION): ")
_LOST = re.compile(r"gloo|nccl|rccl|connection|socket|peer|heartbeat|coordination|barrier", re.I)
_sessions = itertools.count()  # as many on every process: names on the board serve once


class Alone:
    """The only process of a run: has nobody to agree with."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def stopping(self, step: int) -> bool:
        """Say whether to stop after `step`, the same on every process; called after every dispatch."""
        return self._stop.asked()

    def told(self, make: Callable[[], T]) -> T:
        """Return what process 0 makes, as JSON can hold it, on every process."""
        return make()

    def barrier(self) -> None:
        """Wait until every process has come here."""

    def guarded(self) -> contextlib.AbstractContextManager[None]:
        """End all processes with an error of this one before it unwinds, which may wait for them."""
        return contextlib.nullcontext()

    def last_words(self, problem: str) -> None:
        """Say why this process ends at once."""

    @property
    def table(self) -> str:
        """Which processes there are, to be said by the first; empty where there is nothing to say."""
        return ""


class Peers(Alone):
    """One process among several."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop)
        self._board = Board(f"run-{next(_sessions)}")
        self._lock, self._step, self._at, self._asked = threading.Lock(), -1, None, False
        self._count, self._failed = itertools.count(), False
        self._notice: dict[str, Any] | None = None
        self._heard = threading.Event()
        self._table = topology(self._board)
        self._thread = threading.Thread(target=self._read, name="jaxlab-peers", daemon=True)
        self._thread.start()

    # What the run asks of it, on the main thread.

    def stopping(self, step: int) -> bool:
        with self._lock:  # held by the other thread while the processes agree
            self._step, at = step, self._at
        if at is None:
            if self._stop.asked() and not self._asked:
                self._asked = True
                self._post(_STOP)
            return False
        return step >= at

    def told(self, make: Callable[[], T]) -> T:
        key = f"told/{next(self._count)}"
        if self._board.process == 0:
            self._board.put(key, json.dumps(make()))
        return json.loads(self._wait(key))

    def barrier(self) -> None:
        self._board.barrier(f"barrier/{next(self._count)}")

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.fail(error)
            raise

    def last_words(self, problem: str) -> None:
        self._announce(PreemptedError.exit_code, problem)
        processes.end(PreemptedError.exit_code)

    @property
    def table(self) -> str:
        return self._table

    def fail(self, error: BaseException) -> None:
        """Tell the others that this process ends, and see that it does; do not return if another one is the reason."""
        if self._failed or self._agreed(error) or isinstance(error, GeneratorExit):
            return
        self._failed = True
        if _is_loss(error):
            self._heard.wait(_PATIENCE)
            first = re.sub(r"\[.*?\]:?\d* ?", "", str(error).strip().split("\n")[0])[:200].strip()
            lost = {"problem": f"another process is gone ({first})", "code": PreemptedError.exit_code}
            self._end(self._notice or lost, patience=_PATIENCE)
        problem = str(error) if isinstance(error, JaxlabError) else f"{type(error).__name__}: {error}"
        code = error.exit_code if isinstance(error, JaxlabError) else 1
        self._announce(code, problem)
        threading.Thread(target=_end_late, args=(error, code), name="jaxlab-end", daemon=True).start()

    def close(self) -> None:
        """End the thread."""
        if not self._failed:
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                _put_next(self._board, self._board.process, _CLOSE)
                self._thread.join()

    def _agreed(self, error: BaseException) -> bool:
        """Say whether every process raises such an error after the same step."""
        return isinstance(error, DivergedError) or (isinstance(error, PreemptedError) and self._at is not None)

    def _wait(self, key: str) -> str:
        return self._board.take(key, WAIT)

    def _post(self, text: str) -> None:
        for process in range(self._board.processes):
            _put_next(self._board, process, text)

    def _announce(self, code: int, problem: str) -> None:
        process = self._board.process
        notice = {"process": process, "code": code, "problem": f"process {process}: {problem}"}

        def say() -> None:
            processes.say_failed()
            self._post(json.dumps(notice))

        processes.bounded(say, processes.GOODBYE)

    # What the thread does.

    def _read(self) -> None:
        try:
            for number in itertools.count():
                text = self._next(number)
                if text == _CLOSE:
                    return
                if text != _STOP:
                    self._hear(json.loads(text))
                elif self._at is None:
                    self._agree()
        except jax.errors.JaxRuntimeError as error:  # the coordinator is gone: JAX ends the process, see processes.py
            _log.debug("%s", error)

    def _next(self, number: int) -> str:
        while True:
            with contextlib.suppress(TimeoutError):
                return self._board.take(f"box/{self._board.process}/{number}")

    def _agree(self) -> None:
        """Find the step at which all stop, while none takes another."""
        board = self._board
        with self._lock:
            board.put(f"at/{board.process}", str(self._step))
            board.barrier("agree", _PATIENT)
            if board.process == 0:
                board.put("stop", str(1 + max(int(step) for step in board.under("at").values())))
            self._at = int(board.take("stop", _PATIENT))
        _log.info("all processes stop after step %d", self._at)

    def _hear(self, notice: dict[str, Any]) -> None:
        if notice["process"] != self._board.process:
            self._notice = notice
            self._heard.set()
            time.sleep(processes.GRACE)
            self._end(notice)

    def _end(self, notice: dict[str, Any], patience: float = processes.GOODBYE) -> NoReturn:
        """End this process, whose main thread may wait for another one for ever."""
        code, problem = int(notice["code"]), notice["problem"]
        kind = "stopped" if code == PreemptedError.exit_code else "error"
        way_on = "" if kind == "error" or _WAY_ON in problem else f"; {_WAY_ON}"
        processes.end(code, f"{kind}: {problem}{way_on}\n", patience=patience)


def _is_loss(error: BaseException) -> bool:
    """Say whether an error comes from another process that is gone; XLA's own come as several kinds of exceptions."""
    said = isinstance(error, TimeoutError) or _STATUS.match(str(error)) is not None
    return said and not isinstance(error, JaxlabError) and _LOST.search(str(error)) is not None


def _put_next(board: Board, process: int, text: str) -> None:
    """Put a text into a process's box, below what is there."""
    next(number for number in itertools.count() if board.put(f"box/{process}/{number}", text))


def _end_late(error: BaseException, code: int) -> None:
    """End with an error whose way out is barred, such as by a save that waits for other processes."""
    time.sleep(_LAST)
    processes.end(code, "".join(traceback.format_exception(error)))


@contextlib.contextmanager
def together(stop: Stop) -> Iterator[Alone]:
    """Give what a run knows of its other processes."""
    if not processes.joined():
        yield Alone(stop)
        return
    peers = Peers(stop)
    if peers.table:
        print(peers.table, file=sys.stderr, flush=True)
    try:
        with peers.guarded():
            yield peers
    finally:
        peers.close()
