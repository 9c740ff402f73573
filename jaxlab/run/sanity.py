"""The ``sanity`` command: small trainings that a wrong pipeline fails in seconds. Writes nothing, opens no test split.

The config's data, transforms, model and objective are taken as they are; augmentation, schedule and weight decay are
not, as they would hide what is looked for. Checks, in this order:

- ``initial_loss``: against the loss of a model that says nothing.
- ``gradients``, ``dead_units``, ``inputs_read``: in the first steps.
- ``independence``: of the examples of a batch, in evaluation.
- ``overfit``: one batch is learnt by heart.
- ``shuffled_labels`` must teach nothing about the validation split, and ``true_labels`` something.

Usage: ``jaxlab sanity --config=configs/digits_cnn.py``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from jaxlab.core.errors import UsageError
from jaxlab.run.assemble import assemble
from jaxlab.run.sanity_fit import RATES, overfit
from jaxlab.run.sanity_labels import labels
from jaxlab.run.sanity_probe import CUT, FAILED, WARNING, Finding, Probe, make_probe
from jaxlab.run.sanity_rows import independence
from jaxlab.run.sanity_start import first_steps, initial_loss

STEPS, SECONDS = 200, 120.0  # a small model takes 10 to 30 seconds, most of which compile


def sanity(config: ConfigDict, steps: int = STEPS, seconds: float = SECONDS) -> dict[str, Any]:
    """Return the findings of all checks: ``findings``, each with name, verdict, meaning and numbers; ``errors``, how
    many failed; ``warnings`` and ``cut``, how many of these; ``seconds`` that it took.

    Args:
      config: complete.
      steps: of each training, at most: one batch by heart at each rate, shuffled labels, right labels.
      seconds: after which no check and no training goes on; what compiles is waited for.

    Raises:
      ConfigError, DataError: what would stop a run.
      UsageError: steps or seconds that are too few.
    """
    if steps < 1:
        raise UsageError(f"--steps={steps}: expected 1 or more")
    if not seconds > 0:
        raise UsageError(f"--seconds={seconds}: expected more than 0")
    began = time.monotonic()
    probe = make_probe(assemble(config, ("train", "valid")), steps, seconds)
    findings = _all(probe)
    verdicts = [finding.verdict for finding in findings]
    return {
        "errors": verdicts.count(FAILED), "warnings": verdicts.count(WARNING), "cut": verdicts.count(CUT),
        "seconds": round(time.monotonic() - began, 1), "findings": [finding._asdict() for finding in findings],
    }  # fmt: skip


def print_sanity(result: dict[str, Any]) -> None:
    """Print a line a finding to stderr, the worst last."""
    order = ("passed", "not applicable", CUT, WARNING, FAILED)
    for finding in sorted(result["findings"], key=lambda finding: order.index(finding["verdict"])):
        print(f"{finding['verdict']}: {finding['name']}: {finding['meaning']}{_numbers(finding)}", file=sys.stderr)


def _all(probe: Probe) -> list[Finding]:
    findings, state, rate = [initial_loss(probe)], probe.start, RATES[0]

    def in_time(names: tuple[str, ...], check: Callable[[], None]) -> None:
        if probe.left() > 0:
            check()
        else:
            findings.extend(Finding(name, CUT, "the time was up; give more by --seconds") for name in names)

    def begin() -> None:
        nonlocal state
        found, state = first_steps(probe)
        findings.extend(found)

    def learn() -> None:
        nonlocal rate
        found, rate = overfit(probe)
        findings.append(found)

    in_time(("gradients", "dead_units", "inputs_read"), begin)
    in_time(("independence",), lambda: findings.append(independence(probe, state)))
    in_time(("overfit",), learn)
    in_time(("shuffled_labels", "true_labels"), lambda: findings.extend(labels(probe, rate)))
    return findings


def _numbers(finding: dict[str, Any]) -> str:
    """Return the plain numbers of a finding as they are printed."""
    shown = [f"{n} {x:.4g}" for n, x in finding["numbers"].items() if isinstance(x, int | float)]
    return f"  ({', '.join(shown)})" if shown else ""
