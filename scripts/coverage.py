"""How often 95 % intervals hold the truth, on samples of distributions whose truth is known.

python scripts/coverage.py --output=docs/coverage.md
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

from jaxlab.core.types import Interval
from jaxlab.metrics.intervals import Resampling, bootstrap, delong, examples, of_sums, series, wilson
from jaxlab.metrics.intervals import groups as of_groups

Draw = Callable[[np.random.Generator], tuple[Interval, float]]


def mean(sums_S: np.ndarray) -> float:
    """Return the quotient of a sum and its weight."""
    return float(sums_S[0] / sums_S[1])


def drawn(sums_NS: np.ndarray, resampling: Resampling) -> Interval:
    """Return the bootstrap's interval of a mean."""
    return bootstrap([of_sums(sums_NS, mean)], resampling)[""]


def rows(values_N: np.ndarray) -> np.ndarray:
    """Return values with weights of 1."""
    return np.stack([values_N, np.ones(len(values_N))], axis=1)


def normal(generator: np.random.Generator) -> tuple[Interval, float]:
    """Return the interval of a normal mean, and the mean."""
    return drawn(rows(generator.normal(size=200)), examples(200)), 0.0


def losses(generator: np.random.Generator) -> tuple[Interval, float]:
    """Return the interval of an exponential mean, skewed as losses are."""
    return drawn(rows(generator.exponential(size=200)), examples(200)), 1.0


def tokens(generator: np.random.Generator) -> tuple[Interval, float]:
    """Return the interval of a mean over the tokens of texts of 1 to 20 tokens that share a level."""
    length_N = generator.integers(1, 21, 200)
    level_N = generator.normal(size=200)
    sum_N = level_N * length_N + generator.normal(size=200) * np.sqrt(length_N)
    return drawn(np.stack([sum_N, length_N], axis=1), examples(200)), 0.0


def groups(generator: np.random.Generator) -> tuple[Interval, float]:
    """Return the interval of a mean of 100 groups of 5 whose members are alike."""
    value_N = np.repeat(generator.normal(size=100), 5) + 0.5 * generator.normal(size=500)
    return drawn(rows(value_N), of_groups(np.repeat(np.arange(100), 5))), 0.0


def share(p: float, n: int) -> Draw:
    """Return the draw of Wilson's interval of `n` examples that succeed with probability `p`."""
    return lambda generator: (wilson(int(generator.binomial(n, p)), n), p)


def area(generator: np.random.Generator) -> tuple[Interval, float]:
    """Return DeLong's interval of two normal classes one deviation apart."""
    positive_N = np.arange(200) < 60
    return delong(positive_N, generator.normal(size=200) + positive_N), float(stats.norm.cdf(1 / math.sqrt(2)))


def remembering(memory: float) -> Draw:
    """Return the draw of the block bootstrap's interval of the mean of 1,000 steps that remember the one before."""

    def draw(generator: np.random.Generator) -> tuple[Interval, float]:
        noise = generator.normal(size=1100)
        values = np.zeros_like(noise)
        for step in range(1, len(noise)):
            values[step] = memory * values[step - 1] + noise[step]
        sums_NS = rows(values[100:])
        return drawn(sums_NS, series(sums_NS)), 0.0

    return draw


CASES: dict[str, Draw] = {
    "mean of 200, normal": normal,
    "mean of 200, exponential": losses,
    "mean over the tokens of 200 texts": tokens,
    "mean of 100 groups of 5": groups,
    "share of 200, truth 0.5": share(0.5, 200),
    "share of 200, truth 0.97": share(0.97, 200),
    "area under the ROC curve, 60 of 200 positive": area,
    "mean of a series of 1,000, correlation 0.3": remembering(0.3),
    "mean of a series of 1,000, correlation 0.8": remembering(0.8),
}


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("docs/coverage.md"))
    given = parser.parse_args()
    lines = [
        f"How many of {given.draws} intervals hold the truth (`python scripts/coverage.py`); bold: not 93 to 97 %.",
        "",
        "| what | method | hold it |",
        "|---|---|---|",
    ]
    for number, (name, draw) in enumerate(CASES.items()):
        held = 0
        for seed in range(given.draws):
            interval, truth = draw(np.random.default_rng([number, seed]))
            held += interval.low <= truth <= interval.high
        percent = 100 * held / given.draws
        shown = f"{percent:.1f} %" if 93 <= percent <= 97 else f"**{percent:.1f} %**"
        lines.append(f"| {name} | {interval.method} | {shown} |")
        print(lines[-1], flush=True)
    given.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
