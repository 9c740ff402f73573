"""How fast a run goes, and how much of the time it waits for data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Measures a window: steps a second, and the share of that time that was spent waiting for data."""

    def __init__(self, batch_size: int) -> None:
        """Start with no window: the first begins after the first dispatch, which compiles."""
        self._batch_size, self._first, self._began, self._waited = batch_size, -1, 0.0, 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside out of the window: it goes to evaluation and saving."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def dispatched(self, step: int) -> None:
        """Say that the steps up to `step` are under way."""
        if self._first < 0:
            self._first, self._began, self._waited = step, time.perf_counter(), 0.0

    def lap(self, step: int) -> dict[str, float]:
        """Return the speed over the window that ends at `step`, and begin the next."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        rate = (step - self._first) / seconds
        speed = {
            "steps_per_second": rate,
            "examples_per_second": rate * self._batch_size,
            "data_wait": self._waited / seconds,
        }
        self._first, self._began, self._waited = step, time.perf_counter(), 0.0
        return speed
