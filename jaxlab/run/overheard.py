"""What is logged while a run has no log yet: kept, to be said once it has one.

Usage: ``with overheard(records): ...``, then ``say(records)``.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator

_log = logging.getLogger("jaxlab")


class _Keep(logging.Handler):
    """A handler that appends to a list."""

    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.INFO)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


@contextlib.contextmanager
def overheard(records: list[logging.LogRecord]) -> Iterator[None]:
    """Append to `records` what jaxlab logs of importance or as information; print none of it."""
    handler, level, propagate = _Keep(records), _log.level, _log.propagate
    _log.addHandler(handler)
    _log.setLevel(min(level or logging.INFO, logging.INFO))
    _log.propagate = False
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(level)
        _log.propagate = propagate


def say(records: Iterable[logging.LogRecord]) -> None:
    """Log the records, with the times that they have."""
    for record in records:
        _log.handle(record)
