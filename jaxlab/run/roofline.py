"""How long a step takes at least on a chip, by what it computes, moves in memory and sends (Williams et al. 2009).

Usage: ``estimate(work, chip("h100"), sizes)``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxlab.core.mesh import DATA, FSDP
from jaxlab.run.collectives import Travel
from jaxlab.run.hardware import Hardware

EFFICIENCY = 0.7  # of the peak, that large matrix products reach
HIDDEN = 0.5  # of the communication, that goes on beside the computation
ASSUMPTIONS = (
    f"matrix products run at {EFFICIENCY:.0%} of the chip's peak in bfloat16, which config.train.precision has to be",
    f"{HIDDEN:.0%} of the communication is hidden behind computation; the bounds have all and none of it hidden",
    "memory traffic: the state read and written once, gathered parameters read three times, and what every product of"
    " matrices reads and writes; all that is element-wise is fused into those",
    "along fsdp, gradients are reduced by reduce-scatter, half of the all-reduce that XLA's CPU backend plans",
    "bfloat16 activations travel as float32 in that plan: between tensor-parallel layers twice what they would",
    "axes but data lie within the fast links where they are no more than these join; nothing else waits (data, Python)",
)


class Work(NamedTuple):
    """What a step takes of one device; bytes, but for `flops`."""

    flops: float  # with what is computed again
    model_flops: float  # without
    state: int
    gathered: int
    products: int  # what products of matrices read and write
    travels: Mapping[str, Travel]  # of one replica
    gradients: int


class Estimate(NamedTuple):
    """Seconds of a step: expected, at best and at worst, and what they are made of."""

    seconds: float
    best: float
    worst: float
    compute: float
    memory: float
    communication: float
    mfu: float
    mfu_best: float
    mfu_worst: float


def estimate(work: Work, hardware: Hardware, sizes: Mapping[str, int]) -> Estimate:
    """Return the estimate for a device of a mesh with such `sizes`."""
    compute = work.flops / (hardware.flops * EFFICIENCY)
    traffic = 2 * work.state + 3 * work.gathered + work.products
    memory = traffic / hardware.memory_bandwidth
    sent = communication(work, hardware, sizes)
    busy = max(compute, memory)
    best, worst = max(busy, sent), busy + sent
    expected = max(best, busy + (1 - HIDDEN) * sent)
    ideal = work.model_flops / hardware.flops
    return Estimate(expected, best, worst, compute, memory, sent, ideal / expected, ideal / best, ideal / worst)


def communication(work: Work, hardware: Hardware, sizes: Mapping[str, int]) -> float:
    """Return the seconds that everything takes that a device sends, one thing after the other."""
    inner = math.prod(size for axis, size in sizes.items() if axis != DATA)
    rate = hardware.link if inner <= hardware.neighbours else hardware.network
    wire = {"all-reduce": 1.0 if sizes[FSDP] > 1 else 2.0}
    seconds = sum(wire.get(kind, 1.0) * travel.bytes for kind, travel in work.travels.items()) / rate
    if sizes[DATA] > 1:
        outer = hardware.link if inner * sizes[DATA] <= hardware.neighbours else hardware.network
        seconds += 2 * work.gradients / outer
    return seconds


def as_json(found: Estimate) -> dict[str, Any]:
    """Return the estimate and its assumptions."""
    return {**found._asdict(), "assumptions": list(ASSUMPTIONS)}
