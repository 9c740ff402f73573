"""What accelerators can do, for estimates: one chip each, as vendors state it.

Sources: NVIDIA's data sheets of H100 SXM (989 TFLOP/s without sparsity, NVLink 900 GB/s both ways) and A100 80 GB SXM;
cloud.google.com/tpu/docs, the pages of v4, v5e, v5p and v6e (interconnect both ways, halved here). Networks: 400 Gb/s
an H100 as in torchtitan's benchmarks/llama3_h100_202412, 200 Gb/s an A100, the TPU pages' data-center network. Prices
are list prices on demand in the US (TPU: Google Cloud; GPU: an eighth of AWS's p5 and p4de), noted in 2025: they change
often, and `jaxlab check --price` takes yours.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxlab.core.errors import UsageError, did_you_mean

TERA, GIGA, GIB = 1e12, 1e9, 2**30


class Hardware(NamedTuple):
    """One chip."""

    flops: float  # a second, matrix products in bfloat16
    memory: int  # bytes
    memory_bandwidth: float  # bytes a second
    link: float  # bytes a second, one way, to its fast neighbours
    neighbours: int  # chips that these links join
    network: float  # bytes a second, one way, beyond them
    price: float  # US dollars an hour


CHIPS = {
    "h100": Hardware(989 * TERA, 80 * 10**9, 3.35 * TERA, 450 * GIGA, 8, 50 * GIGA, 6.88),
    "a100": Hardware(312 * TERA, 80 * 10**9, 2.04 * TERA, 300 * GIGA, 8, 25 * GIGA, 3.43),
    "v4": Hardware(275 * TERA, 32 * GIB, 1.2 * TERA, 150 * GIGA, 4096, 3 * GIGA, 3.22),
    "v5e": Hardware(197 * TERA, 16 * 10**9, 0.819 * TERA, 200 * GIGA, 256, 3 * GIGA, 1.20),
    "v5p": Hardware(459 * TERA, 95 * GIB, 2.765 * TERA, 600 * GIGA, 8960, 6 * GIGA, 4.20),
    "v6e": Hardware(918 * TERA, 32 * 10**9, 1.64 * TERA, 400 * GIGA, 256, 12 * GIGA, 2.70),
}


def chip(name: str) -> Hardware:
    """Return a chip by its name.

    Raises:
      UsageError: it is not known.
    """
    if name not in CHIPS:
        raise UsageError(f"--hardware={name}{did_you_mean(name, CHIPS)}")
    return CHIPS[name]
