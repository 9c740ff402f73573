"""Sentences made of statistics: what a study may say, and what it may not.

Usage: ``sentences(results)``; see `jaxlab.study.analysis`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

BETTER, WORSE, OPEN = "better", "worse", "not separable"
ERROR = 0.05  # how often a study without any difference may claim one


def verdict(comparison: Mapping[str, Any], direction: str) -> str:
    """Return better, worse or not separable, by Student's paired test with Holm's correction."""
    if not comparison["holm_p"] < ERROR:  # nan: one seed
        return OPEN
    return BETTER if (comparison["difference"] > 0) == (direction == "max") else WORSE


def number(value: float | None, digits: int = 4) -> str:
    """Return a number as it reads well."""
    if value is None or math.isnan(value):
        return "–"
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.3g}"
    return f"{value:.{digits}f}" if abs(value) < 100 else f"{value:,.1f}"


def signed(value: float) -> str:
    """Return a difference with its sign."""
    return f"{'+' if value >= 0 else '−'}{number(abs(value))}"


def p_value(p: float) -> str:
    """Return a p-value as papers write it."""
    if math.isnan(p):
        return "–"
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"


def sentences(results: Mapping[str, Any]) -> list[str]:
    """Return what the study found, an arm a sentence, the baseline first."""
    baseline = next(arm for arm in results["arms"] if arm["baseline"])
    found = []
    if baseline["spread"]:
        found.append(f"{_name(baseline)} reaches {results['metric']} {_interval(baseline['spread'])}.")
    for arm in results["arms"]:
        if not arm["baseline"]:
            found.append(_against(arm, results))
    for each in results["interactions"]:
        found.append(_together(each))
    if results["failures"]:
        count = len(results["failures"])
        found.append(f"{count} run{'s are' if count > 1 else ' is'} missing or failed, and no number is of them.")
    return found


def _name(arm: Mapping[str, Any]) -> str:
    return "The baseline" if arm["label"] == "base" and arm["baseline"] else f"“{arm['label']}”"


def _interval(spread: Mapping[str, Any]) -> str:
    n = f"n = {spread['n']} seed{'s' if spread['n'] > 1 else ''}"
    if spread["n"] == 1:
        return f"{number(spread['mean'])} ({n}: no interval)"
    return f"{number(spread['mean'])} [{number(spread['low'])}, {number(spread['high'])}] ({n})"


def _against(arm: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    comparison = arm["comparison"]
    if not arm["seeds"]:
        return f"{_name(arm)} was given up by the search in its first run."
    if comparison is None:
        return f"{_name(arm)} has no seed in common with the baseline that is finished."
    difference = signed(comparison["difference"])
    if comparison["n"] == 1:
        return f"{_name(arm)} differs by {difference} with the one seed there is, of which nothing follows."
    bounds = f"[{signed(comparison['low'])}, {signed(comparison['high'])}]"
    tests = f"Holm-corrected p {_equals(comparison['holm_p'])}, effect size {number(comparison['effect'], 2)}"
    if comparison["verdict"] != OPEN:
        return f"{_name(arm)} is {comparison['verdict']} by {difference} {bounds} ({tests})."
    n, needed = comparison["n"], _needed(comparison, results)
    return f"{_name(arm)} is not separable from the baseline at n = {n}: {difference} {bounds} ({tests}). {needed}"


def _needed(comparison: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return what it would have taken to tell."""
    if not comparison["deviation"] > 0:
        return "All seeds differ alike."
    smallest = results["smallest"]
    if smallest and -smallest < comparison["low"] and comparison["high"] < smallest:
        return f"The interval holds no difference worth knowing, which begins at {number(smallest)}."
    least = f"This n finds differences from {number(comparison['minimum_detectable'])} on"
    if smallest and comparison["seeds_needed"] is not None and comparison["seeds_needed"] <= comparison["n"]:
        return f"{least}; the interval does not rule out one of {number(smallest)}, the least worth knowing."
    what = "worth knowing" if smallest else "seen here"
    wanted = f"a difference of {number(comparison['wanted'])}, the one {what}"
    if comparison["seeds_needed"] is None:
        return f"{least}; no number of seeds below 100,000 would find {wanted}."
    return f"{least}; about {comparison['seeds_needed']:,} seeds would be needed for {wanted}."


def _together(each: Mapping[str, Any]) -> str:
    excess = f"{signed(each['difference'])} [{signed(each['low'])}, {signed(each['high'])}]"
    what = "interact" if each["holm_p"] < ERROR else "are not seen to interact"
    names, p = f"“{each['first']}” and “{each['second']}”", _equals(each["holm_p"])
    return f"{names} {what}: together they differ from the sum of both by {excess} (Holm-corrected p {p})."


def _equals(p: float) -> str:
    shown = p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"
