"""Results of measuring as a person reads them, on stderr. Imports no JAX."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def evaluation(result: Mapping[str, Any]) -> None:
    """Print an evaluation: each number with its interval, and of slices a table."""
    _numbers(result, f"step {result['step']}, {result['parameters']} parameters")
    for column, slices in result["by"].items():
        _slices(column, slices)
    for line in result["beside"]:
        print(line, file=sys.stderr)
    if result["split"] == "valid" and result["tuned"]:
        print(
            f"note: {', '.join(result['tuned'])} tuned on the very examples that they are measured on", file=sys.stderr
        )
    if result["split"] == "test" and result["reads"] > 1:
        print(f"this run has read its test labels {result['reads']} times", file=sys.stderr)


def cross_validation(result: Mapping[str, Any]) -> None:
    """Print a cross-validation: across folds, and of all held-out predictions together."""
    for name, found in result["across_folds"].items():
        bounds = f" [{found['low']:.4f}, {found['high']:.4f}]" if "low" in found else ""
        spread = f", sd {found['standard_deviation']:.4f}" if "low" in found else ""
        method = f", {found['method']}" if "method" in found else ""
        print(f"{name} {found['mean']:.4f}{bounds}{spread}  ({found['n']} folds{method})", file=sys.stderr)
    _numbers(result["out_of_fold"], f"held-out predictions of all folds, step {result['step']}")
    for note in result["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(f"finished: {result['workdir']}", file=sys.stderr)


def comparison(result: Mapping[str, Any]) -> None:
    """Print the differences of two runs."""
    for name, found in result["differences"].items():
        bounds = f"{found['difference']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"
        exact = f", McNemar p={found['mcnemar_p']:.4f}" if "mcnemar_p" in found else ""
        about = f"p={found['p']:.4f}{exact}, n={found['n']}, {found['method']}"
        print(f"{name} {found['first']:.4f} -> {found['second']:.4f}: {bounds}  ({about})", file=sys.stderr)


def _numbers(found: Mapping[str, Any], about: str) -> None:
    for name, value in found["metrics"].items():
        interval = found["intervals"].get(name)
        if interval is None:
            print(f"{name} {float(value):.4f}  (n={found['n']}, {about})", file=sys.stderr)
            continue
        bounds = f"[{float(interval['low']):.4f}, {float(interval['high']):.4f}]"
        by = f"n={interval['n']}, {interval['method']}, {about}"
        print(f"{name} {float(value):.4f} {bounds}  ({by})", file=sys.stderr)
    for name, why in found["undefined"].items():
        print(f"{name} undefined: {why}", file=sys.stderr)


def _slices(column: str, slices: Mapping[str, Any]) -> None:
    """Print a table: a row a value of the column, with how many examples have it, and a column a number."""
    names = list(dict.fromkeys(name for part in slices.values() for name in part["metrics"]))
    rows = [[column, "n", *(name.partition("/")[2] for name in names)]]
    rows += [[value, str(part["n"]), *(_cell(part, name) for name in names)] for value, part in slices.items()]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip(), file=sys.stderr)


def _cell(part: Mapping[str, Any], name: str) -> str:
    if name not in part["metrics"]:
        return "undefined"
    interval = part["intervals"].get(name)
    bounds = f" [{float(interval['low']):.3f}, {float(interval['high']):.3f}]" if interval else ""
    return f"{float(part['metrics'][name]):.3f}{bounds}"
