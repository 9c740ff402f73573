"""The command line: names of commands and their flags; each command's work is a function in `jaxlab.run`.

Progress and logs go to stderr; the last line of stdout is one JSON object, the result. Exit codes: 0 done, 1 failed,
2 wrong usage, config or data, 3 diverged, 75 preempted and resumable.
"""

from __future__ import annotations

import argparse
import errno
import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlab.cli import joint, places, show, studies, training
from jaxlab.cli.flags import check_flags, make_parser, names, split_overrides
from jaxlab.cli.interrupt import CODE, interruptible
from jaxlab.cli.loading import load
from jaxlab.core import record, trust
from jaxlab.core.errors import JaxlabError, UsageError

_VERDICTS = ("sanity", "verify-resume", "reproduce", "scale")  # commands whose errors are their result
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return joint.left(_explained(given))
    except Exception:
        if not joint.joined():
            raise
        traceback.print_exc()
        return joint.left(1)


def _explained(given: list[str]) -> int:
    """Run one command and return its exit code, with a sentence for an error that is explained."""
    debug = "--debug" in given
    try:
        with interruptible():
            return _run([argument for argument in given if argument != "--debug"])
    except JaxlabError as error:
        if debug:
            traceback.print_exc()
        kind = "stopped" if error.exit_code == 75 else "error"
        print(f"{kind}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return CODE
    except OSError as error:
        if error.errno not in _DISK:
            raise
        print(f"error: {error}; what was saved before is whole", file=sys.stderr)
        return 1


def _run(given: list[str]) -> int:
    flags, overrides = split_overrides(given)
    flags, options = split_overrides(flags, "--executor.")
    check_flags(flags)
    parsed = make_parser().parse_args(flags)
    if overrides and "config" not in vars(parsed):
        raise UsageError(f"--config.{next(iter(overrides))}: {parsed.command} takes no config; a run keeps its own")
    here = Path.cwd()
    in_a_run = any((place / record.CONFIG).is_file() for place in (here, *here.parents))  # which may be anybody's
    if not in_a_run and str(here) not in sys.path:
        sys.path.insert(0, str(here))  # a plug-in in the folder where the command is given can be named
    if parsed.allow:
        trust.allow(*names(parsed.allow))
    if options and parsed.command != "study":
        raise UsageError(f"--executor.{next(iter(options))}: {parsed.command} has no executor; study has")
    if parsed.command in training.COMMANDS:  # which join the other processes before they look at folders
        result = getattr(training, parsed.command)(parsed, overrides)
    else:
        result = places.in_folders(parsed, lambda: _result(parsed, overrides, options))
    if joint.is_first():
        print(json.dumps(record.jsonable(result)), flush=True)
    return 1 if (parsed.command in _VERDICTS or getattr(parsed, "strict", False)) and result["errors"] else 0


def _result(parsed: argparse.Namespace, overrides: dict[str, str], options: dict[str, str]) -> dict[str, Any]:
    if parsed.command in studies.COMMANDS:
        return getattr(studies, parsed.command)(parsed, options)
    return globals()[f"_{parsed.command.replace('-', '_')}"](parsed, overrides)


def _check(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    config = load(parsed, overrides)
    from jaxlab.run.check import check
    from jaxlab.run.check_table import print_check

    if parsed.devices < 0:
        raise UsageError(f"--devices={parsed.devices}: expected 1 or more")
    result = check(config, parsed.workdir, parsed.devices, parsed.hardware, parsed.price)
    print_check(result)
    return result


def _audit(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    config = load(parsed, overrides)
    from jaxlab.run.audit import audit

    options = {"max_rows": parsed.max_rows, "target": parsed.target, "ignore": names(parsed.ignore)}
    result = audit(config, parsed.output, **options, test_labels=parsed.test_labels)
    for finding in result.pop("findings"):
        print(finding, file=sys.stderr)
    print(f"written: {result['output']}/audit.html", file=sys.stderr)
    return result


def _baseline(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    config = load(parsed, overrides)
    from jaxlab.run.baseline import baseline, print_baseline

    result = baseline(config, parsed.workdir, parsed.split, parsed.seconds)
    print_baseline(result)
    return result


def _find_rate(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    from jaxlab.run.find_rate import find_rate, print_rates

    result = find_rate(load(parsed, overrides), parsed.low, parsed.high, parsed.steps, range(parsed.repeats))
    print_rates(result)
    return result


def _sanity(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    config = load(parsed, overrides)
    from jaxlab.run.sanity import print_sanity, sanity

    result = sanity(config, parsed.steps, parsed.seconds)
    print_sanity(result)
    return result


def _compare(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    from jaxlab.run.compare import compare, print_comparison

    result = compare(parsed.first, parsed.second, parsed.split)
    print_comparison(result)
    if result["not_compared"] is None:
        show.comparison(result)
    return result


def _verify_resume(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    config = load(parsed, overrides)
    from jaxlab.run.verify_resume import print_verification, verify_resume

    result = verify_resume(config, parsed.workdir, parsed.kills, parsed.devices)
    print_verification(result)
    return result


def _reproduce(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    from jaxlab.run.reproduce import print_reproduction, reproduce

    result = reproduce(parsed.run, parsed.workdir, parsed.code, parsed.apply_diff)
    print_reproduction(result)
    return result


def _scale(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    config = load(parsed, overrides)
    counts = names(parsed.devices)
    if not all(count.isdigit() for count in counts):
        raise UsageError(f"--devices={parsed.devices}: expected numbers, such as 1,2,4,8")
    from jaxlab.run.scale import print_scaling, scale

    kinds = names(parsed.kind)
    result = scale(config, parsed.workdir, [int(count) for count in counts], kinds, parsed.steps, parsed.repeats)
    print_scaling(result)
    return result


def _autopsy(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    from jaxlab.run.autopsy import autopsy, print_autopsy

    report = autopsy(parsed.workdir)
    print_autopsy(report)
    return report


def _doctor(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    from jaxlab.run.doctor import doctor

    result = doctor()
    for warning in result["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    return result
