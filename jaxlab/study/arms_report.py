"""The part of a study's report about its arms: their numbers, and how far each is from the baseline.

Usage: ``arms_parts(results)``; see `jaxlab.study.study_report`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jaxlab.study import svg
from jaxlab.study.page import Grid, Part, Picture, Text
from jaxlab.study.words import number, p_value, signed

_HOW = (
    "Both p-values are Holm-corrected. Effect size is Hedges' g of paired differences; *detectable* is the least true "
    "difference that this many seeds find with a power of 0.8 after Holm's correction. The deviation over seeds says "
    "how far runs of one arm differ on the same examples; that over examples how far another test set would move a "
    "run's number, or the difference of two runs of a seed that are scored on the same examples. Neither holds the "
    "other, and no number of seeds lessens the second."
)


def arms_parts(results: Mapping[str, Any]) -> list[Part]:
    """Return tables and pictures of all arms."""
    rows, different = [], []
    for place, arm in enumerate(arm for arm in results["arms"] if arm["spread"]):
        rows.append(as_row(arm, place))
        c = None if arm["baseline"] else arm["comparison"]
        if c:
            note = f"{signed(c['difference'])}, Holm p {p_value(c['holm_p'])}"
            different.append(svg.Row(arm["label"], c["difference"], c["low"], c["high"], (), place, note))
    for other in results["published"]:
        low, high = (math.nan if x is None else x for x in (other["low"], other["high"]))
        rows.append(svg.Row(f"published: {other['name']}", other["value"], low, high, (), 6, other["citation"]))
    caption = "Means with 95 % intervals over seeds; pale dots are single runs, each of which is a link."
    parts: list[Part] = [Text("## Arms"), _table(results)]
    parts.append(Picture("arms", svg.intervals(rows, results["metric"]), None, caption))
    if different:
        caption = "Paired differences from the baseline with 95 % intervals, not corrected for their number."
        picture = svg.intervals(different, f"difference in {results['metric']}", zero=True)
        parts += [
            Text("### Against the baseline"),
            _comparisons(results),
            Picture("differences", picture, None, caption),
        ]
        parts.append(Text(_HOW))
    return parts


def as_row(arm: Mapping[str, Any], place: int) -> svg.Row:
    """Return an arm as a row of a picture, in the colour of its `place`."""
    s = arm["spread"]
    points = [svg.Point(v, f"seed {seed}: {number(v)}", arm["runs"][seed]) for seed, v in arm["values"].items()]
    note = f"{number(s['mean'])} [{number(s['low'])}, {number(s['high'])}], n = {s['n']}"
    return svg.Row(arm["label"], s["mean"], s["low"], s["high"], points, place, note)


def _table(results: Mapping[str, Any]) -> Grid:
    header = ("arm", "n:", f"{results['metric']}:", "95 % interval:", "median:", "best:", "worst:", "sd over seeds:",
              "sd over examples:")  # fmt: skip
    rows = []
    for arm in results["arms"]:
        if not arm["spread"]:
            continue
        s = arm["spread"]
        mean = f"[{number(s['mean'])}]({arm['folder']})"
        name = f"`{arm['label']}`{' (baseline)' if arm['baseline'] else ''}"
        rows.append([
            name, str(s["n"]), mean, f"{number(s['low'])} … {number(s['high'])}", number(s["median"]),
            number(s["best"]), number(s["worst"]), number(s["deviation"]), number(arm["sample_deviation"]),
        ])  # fmt: skip
    return Grid(header, rows)


def _comparisons(results: Mapping[str, Any]) -> Grid:
    header = (
        "arm", "so it is", "difference [95 % interval]:", "p, t test:", "p, sign flips:", "effect size:", "detectable:",
        "sd over examples:",
    )  # fmt: skip
    rows = []
    for arm in results["arms"]:
        c = None if arm["baseline"] else arm["comparison"]
        if c:
            bounds = f"[{signed(c['low'])}, {signed(c['high'])}]"
            rows.append([
                f"`{arm['label']}`", c["verdict"], f"{signed(c['difference'])} {bounds}", p_value(c["holm_p"]),
                p_value(c["permutation_holm_p"]), number(c["effect"], 2), number(c["minimum_detectable"]),
                number(c["sample_deviation"]),
            ])  # fmt: skip
    return Grid(header, rows)
