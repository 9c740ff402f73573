"""How fast a run goes, and how much of the time it waits for data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Measures a window: steps a second, and the share of that time that was spent waiting for data."""

    def __init__(self, batch_size: int, step: int) -> None:
        """Begin after `step`; the time before the first dispatch has returned is compilation and does not count."""
        self._batch_size, self._first, self._began, self._waited = batch_size, step, 0.0, 0.0

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
        self._began += time.perf_counter() - max(began, self._began)  # a lap inside has begun a window anew

    def dispatched(self) -> None:
        """Say that the next steps are under way."""
        if not self._began:
            self._began, self._waited = time.perf_counter(), 0.0

    def lap(self, step: int) -> dict[str, float]:
        """Return the speed over the window that ends with `step`, just done, and begin the next."""
        now = time.perf_counter()
        seconds = max(now - self._began, 1e-9)
        rate = (step - self._first) / seconds
        waited = min(self._waited / seconds, 1.0)
        self._first, self._began, self._waited = step, now, 0.0
        return {"steps_per_second": rate, "examples_per_second": rate * self._batch_size, "data_wait": waited}
