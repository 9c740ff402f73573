"""Which examples a run has seen at which step: by arithmetic from its config and data, checked against its rows.

Rows carry a hash of the ids seen since the row before, made on the devices; the order that the config names must give
the same hash. Usage: ``compare_data(one, other)``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlab.core import record
from jaxlab.core.errors import JaxlabError
from jaxlab.core.types import Array
from jaxlab.data.pipeline import Batches
from jaxlab.data.subset import Subset
from jaxlab.run.assemble import assemble
from jaxlab.run.differences import rows_of
from jaxlab.run.fingerprints import data_fingerprint
from jaxlab.run.journal import IDS
from jaxlab.run.rollback import training_batches
from jaxlab.train.seen import roll

MOST_IDS = 20_000_000  # that are computed of a run: some seconds
_AT_ONCE = 2**20  # ids


class Order(NamedTuple):
    """Training batches; what their ids are rows of, the whole data of a split's; and which rows, where not all."""

    batches: Batches
    source: str
    rows: np.ndarray | None

    def rows_at(self, first: int, count: int) -> np.ndarray:
        """Return the rows of the data [count, B] that stand in the batches of `count` steps."""
        ids = self.batches.indices(first, count)[0]
        return ids if self.rows is None else self.rows[ids]


def compare_data(one: Path, other: Path) -> dict[str, Any]:
    """Return where two runs' data part, and whether each run's rows agree with its order.

    Returns:
      ``first_step``: the first step whose batches are not of the same rows, 1 being the first of all, by arithmetic and
      with today's data; None where there is none up to ``compared_steps``. ``same_source``: whether ids of both mean
      rows of the same data. ``first_row``: the step of the first row whose hash of ids differs, of rows that span the
      same steps. ``orders``: of each run what `check_order` says. ``why``: why there is no arithmetic.
    """
    found: dict[str, Any] = {"first_step": None, "compared_steps": 0, "same_source": None, "orders": [], "why": None}
    found["first_row"] = first_hash(one, other)
    orders = []
    for folder in (one, other):
        try:
            orders.append(order_of(folder))
        except (JaxlabError, OSError) as error:  # data that are not here any more
            return {**found, "why": f"{folder}: {error}"}
    steps = min(max((row["step"] for row in rows_of(folder)), default=0) for folder in (one, other))
    steps = min(steps, MOST_IDS // max(order.batches.batch_size for order in orders))
    checks = [check_order(folder, order.batches) for folder, order in zip((one, other), orders, strict=True)]
    return {
        **found, "first_step": first_different_step(*orders, steps), "compared_steps": steps,
        "same_source": orders[0].source == orders[1].source, "orders": checks,
    }  # fmt: skip


def order_of(folder: Path) -> Order:
    """Return the order of a run's training examples, without the data that rollbacks have left out.

    Raises:
      ConfigError, DataError: its data cannot be had.
    """
    experiment = assemble(record.trusted_config(folder), ("train",), record.read_learnt(folder))
    batches, source = training_batches(folder, experiment), experiment.sources["train"]
    if isinstance(source, Subset):
        return Order(batches, source.base_fingerprint, source.indices)
    known = data_fingerprint(source)
    return Order(batches, f"{known['fingerprint']} {known['sample']}", None)


def first_different_step(one: Order, other: Order, steps: int) -> int | None:
    """Return the first of `steps` steps, counted from 1, at which batches hold other rows; None where none does."""
    if one.batches.batch_size != other.batches.batch_size or one.source != other.source:
        return 1 if steps else None
    size = max(1, _AT_ONCE // one.batches.batch_size)
    for first in range(0, steps, size):
        pair = [order.rows_at(first, min(size, steps - first)) for order in (one, other)]
        odd = np.flatnonzero((pair[0] != pair[1]).any(axis=1))
        if len(odd):
            return first + int(odd[0]) + 1
    return None


def first_hash(one: Path, other: Path) -> int | None:
    """Return the step of the first row whose hash of ids is another, of those that span the same steps in both."""
    spans = [{(first, last): value for first, last, value in hashes(folder)} for folder in (one, other)]
    odd = [span[1] for span, value in spans[0].items() if value != spans[1].get(span, value)]
    return min(odd, default=None)


def hashes(folder: Path) -> list[tuple[int, int, int]]:
    """Return (step before, step, hash) of each row of training that carries a hash of ids.

    The first row of a run that was forked from another is left out: it is not written down where that began.
    """
    rows = [row for row in rows_of(folder) if IDS in row]
    before = [0, *(row["step"] for row in rows)][: len(rows)]
    found = [(first, row["step"], int(row[IDS])) for first, row in zip(before, rows, strict=True)]
    return found[1:] if record.read_json(folder / record.OVERRIDES).get("fork") else found


def check_order(folder: Path, batches: Batches) -> dict[str, Any]:
    """Return how many ``rows`` have the hash that the order gives, of those ``checked``, and the first that has not.

    ``first_odd`` is that row's step: from then on the run saw other examples than its config says with today's data.
    """
    checked, steps_left = 0, MOST_IDS // batches.batch_size
    for first, last, known in hashes(folder):
        if last - first > steps_left:
            break
        if order_hash(batches, first, last) != known:
            return {"rows": checked, "checked": checked + 1, "first_odd": last}
        checked, steps_left = checked + 1, steps_left - (last - first)
    return {"rows": checked, "checked": checked, "first_odd": None}


def order_hash(batches: Batches, first: int, last: int) -> int:
    """Return the hash of the ids of the batches after `first` and up to `last` steps."""
    ids, size = jax.numpy.uint32(0), max(1, _AT_ONCE // batches.batch_size)
    for start in range(first, last, size):
        ids = _rolled(ids, batches.indices(start, min(size, last - start))[0].astype(np.int32))
    return int(ids)


@jax.jit
def _rolled(ids: Array, id_KB: np.ndarray) -> Array:
    return jax.lax.scan(lambda ids, id_B: (roll(ids, id_B, None), None), ids, id_KB)[0]


def _last_step(folder: Path) -> int:
    return max((row["step"] for row in rows_of(folder)), default=0)
