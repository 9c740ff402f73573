"""Checks a study's statistics by simulation: ``python scripts/study_statistics.py --output=docs``.

Studies are drawn whose truth is known, and the functions that reports use are asked: how often a study with no true
difference claims any (family-wise error), how often intervals hold the truth, how often a difference of the detectable
size is found. Prints a table and, as the last line, JSON; with ``--output`` also writes ``study_statistics.md`` there.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxlab.study import statistics

ARMS, SEED_NOISE, SHARED = 4, 0.010, 0.006  # arms beside the baseline; deviations over seeds, own and shared
COUNTS = (3, 5, 10, 20)
Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
NOISES: dict[str, Noise] = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "heavy tails (t, 4 degrees)": lambda generator, shape: generator.standard_t(4, shape) / math.sqrt(2),
    "skewed (exponential)": lambda generator, shape: 1 - generator.exponential(size=shape),
}


def main() -> int:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description="Check the statistics of studies by simulation.")
    parser.add_argument("--studies", type=int, default=4000, help="simulated for each row")
    parser.add_argument("--output", type=Path, help="folder to write the table to")
    arguments = parser.parse_args()
    rows = [row(name, n, arguments.studies) for name in NOISES for n in COUNTS]
    text = table(rows, arguments.studies)
    print(text)
    if arguments.output:
        (arguments.output / "study_statistics.md").write_text(text + "\n")
    print(json.dumps({"studies": arguments.studies, "rows": rows}))
    return 0


def row(noise: str, n: int, studies: int) -> dict[str, Any]:
    """Return the shares of `studies` with `n` seeds."""
    generator = np.random.Generator(np.random.Philox(n))
    draw = NOISES[noise]
    claimed = covered = paired = found = 0
    deviation = SEED_NOISE * math.sqrt(2)  # of a difference
    least = statistics.minimum_detectable(deviation, n, ARMS)
    for _ in range(studies):
        values_AN = SEED_NOISE * draw(generator, (ARMS + 1, n)) + SHARED * draw(generator, (1, n))
        base_N, others_AN = values_AN[0], values_AN[1:]
        compared = [statistics.compare(other_N, base_N) for other_N in others_AN]
        claimed += any(p < 0.05 for p in statistics.holm([each.t_p for each in compared]))
        spread = statistics.spread(base_N, "max")
        covered += spread.low <= 0 <= spread.high
        paired += compared[0].low <= 0 <= compared[0].high
        better = [statistics.compare(others_AN[0] + least, base_N), *compared[1:]]
        found += statistics.holm([each.t_p for each in better])[0] < 0.05
    return {
        "noise": noise, "n": n, "family_wise_error": claimed / studies, "coverage_of_means": covered / studies,
        "coverage_of_differences": paired / studies, "power_at_detectable": found / studies,
    }  # fmt: skip


def table(rows: list[dict[str, Any]], studies: int) -> str:
    """Return the result as Markdown."""
    error = 1.96 * math.sqrt(0.05 * 0.95 / studies)
    lines = [
        "# A study's statistics, by simulation",
        "",
        f"`python scripts/study_statistics.py --output=docs`: {studies:,} studies a row, {ARMS} arms and a baseline, "
        f"seeds paired. The simulation's own error is ± {error:.3f} at 0.05. Asked: family-wise error at most 0.05, "
        "coverage 0.95 ± 0.02, power 0.8 or more at the difference that the report calls detectable.",
        "",
        "| noise over seeds | seeds | family-wise error | coverage of means | of differences | power at detectable |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['noise']} | {r['n']} | {r['family_wise_error']:.3f} | {r['coverage_of_means']:.3f} | "
        f"{r['coverage_of_differences']:.3f} | {r['power_at_detectable']:.3f} |"
        for r in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
