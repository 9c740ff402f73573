"""Whether a run fits named hardware, how fast it may be and what it costs: ``check --devices=N --hardware=NAME``.

Memory is linear in the rows of a batch: the config's batch and half of it are compiled, and a larger one follows.
Usage: ``preflight(experiment, devices=8, hardware="h100")``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from jaxlab.core.errors import ConfigError
from jaxlab.core.mesh import DATA, FSDP
from jaxlab.run.assemble import Experiment
from jaxlab.run.check_memory import REMAT, activation_bytes, kept_bytes, with_model_field
from jaxlab.run.collectives import Travel
from jaxlab.run.compiled_memory import Planner, bytes_of
from jaxlab.run.flops import flops_of
from jaxlab.run.hardware import Hardware, chip
from jaxlab.run.placing import described, left_whole
from jaxlab.run.roofline import Work, as_json, estimate

USABLE = 0.92  # of a chip's memory: the rest is the runtime's
SCAN = "scan"  # the field of a model's config that compiles one layer for all


class Line(NamedTuple):
    """Bytes that grow with the rows of a batch on a replica."""

    base: float
    slope: float

    def at(self, rows: int) -> int:
        """Return the bytes for so many rows."""
        return round(self.base + self.slope * rows)


def preflight(experiment: Experiment, devices: int, hardware: str = "", price: float | None = None) -> dict[str, Any]:
    """Return memory by class, FLOPs, what travels, and with `hardware` the verdict, time and cost.

    Args:
      experiment: that would be trained.
      devices: on so many.
      hardware: a chip's name, or empty.
      price: of a chip and hour in US dollars, instead of the list's.

    Raises:
      ConfigError: the mesh or the batch does not fit so many devices.
      UsageError: unknown hardware.
    """
    known = chip(hardware) if hardware else None
    planner = Planner(experiment, devices)
    rows = _rows(experiment, planner)
    total, temporary, travels = lines(planner, rows)
    state = planner.state_bytes()
    flops = counts(experiment)
    gathered = bytes_of(planner.shapes[0].params) // (devices // planner.sizes[DATA] // planner.sizes[FSDP])
    over_data = state["params"] if planner.sizes[DATA] > 1 else 0
    moved = {kind: Travel(found.count, line.at(rows)) for kind, (found, line) in travels.items()}
    if over_data:  # which has links of its own
        found = moved["all-reduce"]
        moved["all-reduce"] = found._replace(bytes=max(0, found.bytes - over_data))
    result: dict[str, Any] = {
        "devices": devices, "mesh": planner.sizes, "rows_a_replica": rows, "flops": flops,
        "memory": {**state, **_classes(state, total, temporary, rows), "total": total.at(rows)},
        "bytes_a_row": round(total.slope), "left_whole": left_whole(planner.placed()),
        "parameters": {p.name.removeprefix("params/"): {"split": described(p), "bytes": p.bytes}
                       for p in planner.placed() if p.name.startswith("params/")},
        "collectives": {kind: found._asdict() for kind, found in moved.items()},
        "gradients_over_data": over_data,
    }  # fmt: skip
    if known is None:
        return result
    work = Work(
        flops["step"] / devices, flops["model"] / devices, sum(state.values()), gathered,
        kept_bytes(experiment) * experiment.config.train.grad_accumulation // devices, moved, state["params"],
    )  # fmt: skip
    result["hardware"] = {"name": hardware, **known._asdict()}
    result["estimate"] = as_json(estimate(work, known, planner.sizes))
    return result | _verdict(experiment, planner, total, rows, known) | _cost(experiment, result, known, price)


def counts(experiment: Experiment) -> dict[str, float | None]:
    """Return FLOPs of a whole step: ``step`` as it is, ``model`` without what remat repeats, ``xla`` as XLA counts.

    XLA counts before it optimises, element-wise operations too, and a scan's body once: it is asked about the same
    model with its layers written out, and told how many microbatches there are.
    """
    written_out = with_model_field(experiment, SCAN, False)
    shapes = jax.eval_shape(written_out.init), experiment.abstract_batch()
    cost = jax.jit(written_out.train_step(None)).lower(*shapes).cost_analysis()
    times = experiment.config.train.grad_accumulation
    return {
        "step": flops_of(experiment),
        "model": flops_of(with_model_field(experiment, REMAT, "none")),
        "xla": float(cost["flops"]) * times if cost and "flops" in cost else None,
    }


def _rows(experiment: Experiment, planner: Planner) -> int:
    size, replicas = experiment.config.train.batch_size, planner.sizes[DATA]
    if size % (replicas * planner.rows):
        raise ConfigError(f"config.train.batch_size={size}: expected a multiple of {replicas * planner.rows}")
    return size // replicas


def _line(first: tuple[int, float], second: tuple[int, float]) -> Line:
    slope = (second[1] - first[1]) / (second[0] - first[0])
    return Line(first[1] - slope * first[0], slope)


def lines(planner: Planner, rows: int) -> tuple[Line, Line, dict[str, tuple[Travel, Line]]]:
    """Return how all memory, temporary memory and what travels grow with the rows of a replica."""
    more = max(rows, 2 * planner.rows)
    few = max(planner.rows, more // 2 // planner.rows * planner.rows)
    small, large = planner.compiled(few), planner.compiled(more)
    travels = {
        kind: (large.travels[kind], _line((few, small.travels.get(kind, Travel(0, 0)).bytes), (more, found.bytes)))
        for kind, found in large.travels.items()
    }
    total = _line((few, small.total), (more, large.total))
    return total, _line((few, small.temporary), (more, large.temporary)), travels


def _classes(state: dict[str, int], total: Line, temporary: Line, rows: int) -> dict[str, int]:
    gradients = min(state["params"], max(0, round(temporary.base)))
    batch = total.at(rows) - temporary.at(rows) - sum(state.values())
    return {
        "batch": max(0, batch), "gradients": gradients, "activations": round(temporary.slope * rows),
        "temporaries": max(0, round(temporary.base) - gradients),
    }  # fmt: skip


def _verdict(experiment: Experiment, planner: Planner, total: Line, rows: int, known: Hardware) -> dict[str, Any]:
    """Return whether it fits, the largest batch that does, and where it does not, what would help."""
    room = USABLE * known.memory
    most = max(0, int((room - total.base) / total.slope)) if total.slope > 0 else rows
    largest = most // planner.rows * planner.rows * planner.sizes[DATA]
    fits = total.at(rows) <= room
    found = {"fits": fits, "usable_bytes": round(room), "largest_batch": largest}
    return found if fits else {**found, "would_fit": _advice(experiment, planner, total, rows, room)}


def _advice(experiment: Experiment, planner: Planner, total: Line, rows: int, room: float) -> list[dict[str, Any]]:
    """Return changes with the bytes that a device would then need, by what is known without compiling each."""
    state, train = planner.state_bytes(), experiment.config.train
    activations, needed = total.slope * rows, total.at(rows)
    options: dict[str, float] = {}
    kept = activation_bytes(experiment)
    if REMAT in experiment.config.model and experiment.config.model[REMAT] != "full":
        share = kept["full"] / max(1, kept[experiment.config.model[REMAT]])
        options["config.model.remat=full"] = needed - activations * (1 - min(1.0, share))
    if rows > planner.rows:
        times = rows // planner.rows
        options[f"config.train.grad_accumulation={train.grad_accumulation * times}"] = needed - activations * (
            1 - 1 / times
        )
    if train.precision == "float32":
        options["config.train.precision=bfloat16"] = needed - activations / 2
    data = planner.sizes[DATA]
    if data > 1:
        whole = sum(state.values()) + state["params"]
        sizes = f"config.parallel.mesh.data=1 --config.parallel.mesh.fsdp={planner.sizes[FSDP] * data}"
        options[sizes] = needed - whole * (1 - 1 / data)
    if not experiment.config.parallel.offload:
        options["config.parallel.offload=optimizer"] = needed - state["opt_state"]
    smaller = max(1, int(rows * (room - total.base) / activations)) if room > total.base else 0
    if 0 < smaller < rows:
        size = smaller // planner.rows * planner.rows * data
        options[f"config.train.batch_size={size}"] = total.at(smaller)
    return [{"change": f"--{name}", "bytes": round(size), "fits": size <= room} for name, size in options.items()]


def _cost(experiment: Experiment, found: dict[str, Any], known: Hardware, price: float | None) -> dict[str, Any]:
    hours = experiment.config.train.steps * found["estimate"]["seconds"] / 3600
    dollars = known.price if price is None else price
    return {"hours": hours, "price_an_hour": dollars, "dollars": hours * dollars * found["devices"]}
