"""A study's numbers for other programs: a CSV with a row a run, one with a row an arm, and a LaTeX table.

Usage: ``write(folder, results)`` writes ``runs.csv``, ``arms.csv`` and ``table.tex``.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.study.words import BETTER, WORSE, number, p_value

RUNS, ARMS, LATEX = "runs.csv", "arms.csv", "table.tex"
_ESCAPED = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_ESCAPED |= {sign: f"\\{sign}" for sign in "&%$#_{}"}


def write(folder: Path, results: Mapping[str, Any]) -> None:
    """Write all three."""
    metric = results["metric"]
    runs = [
        (arm["label"], arm["key"], seed, value, arm["runs"][seed])
        for arm in results["arms"]
        for seed, value in arm["values"].items()
    ]
    record.write_atomically(folder / RUNS, _csv(("arm", "key", "seed", metric, "run"), runs))
    names = ("n", "mean", "low", "high", "deviation", "median", "best", "worst")
    compared = (
        "difference", "low", "high", "t_p", "holm_p", "permutation_p", "permutation_holm_p", "effect",
        "minimum_detectable", "sample_deviation", "verdict",
    )  # fmt: skip
    rows = []
    for arm in results["arms"]:
        if arm["spread"]:
            c = None if arm["baseline"] else arm["comparison"]
            own = [arm["spread"][name] for name in names]
            rows.append((arm["label"], arm["key"], *own, *(c[name] if c else "" for name in compared)))
    header = (
        "arm",
        "key",
        *names,
        *(f"difference_{n}" if n in ("low", "high", "sample_deviation") else n for n in compared),
    )
    record.write_atomically(folder / ARMS, _csv(header, rows))
    record.write_atomically(folder / LATEX, latex(results))


def latex(results: Mapping[str, Any]) -> str:
    """Return a table for a paper that uses booktabs: mean and half interval, † better, ‡ worse than the baseline."""
    lines = [
        "% Needs \\usepackage{booktabs}. Mean and half of Student's 95 % interval over seeds.",
        "% \\dagger better, \\ddagger worse than the baseline by Student's paired test, Holm-corrected, at 5 %.",
        r"\begin{tabular}{lrlr}",
        r"\toprule",
        rf"arm & $n$ & {escaped(results['metric'])} & Holm $p$ \\",
        r"\midrule",
    ]
    for arm in results["arms"]:
        if not arm["spread"]:
            continue
        s, c = arm["spread"], None if arm["baseline"] else arm["comparison"]
        half = s["mean"] - s["low"]
        around = "" if math.isnan(half) else rf" \pm {number(half)}"
        mark = {BETTER: r"^\dagger", WORSE: r"^\ddagger"}.get(c["verdict"], "") if c else ""
        p = "" if c is None else p_value(c["holm_p"]).replace("–", "--")
        p = f"${p}$" if p.startswith("<") else p
        lines.append(rf"{escaped(arm['label'])} & {s['n']} & ${number(s['mean'])}{around}{mark}$ & {p} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def escaped(text: str) -> str:
    """Return text as LaTeX prints it."""
    return "".join(_ESCAPED.get(sign, sign) for sign in text).replace("×", r"$\times$")


def _csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
