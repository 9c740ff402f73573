"""The command line: names of commands and their flags; each command's work is a function in `jaxlab.run`.

Progress and logs go to stderr; the last line of stdout is one JSON object, the result. Exit codes: 0 done, 1 failed,
2 wrong usage, config or data, 3 diverged, 75 preempted and resumable.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.core.errors import JaxlabError, UsageError, did_you_mean

_CONFIG_HELP = "FILE.py, FILE.py:PRESET or a run's config.json; any field is overridden by --config.PATH=VALUE"
_COMMANDS = {
    "train": "train; run again, it resumes; done, it says so",
    "check": "check a config without training: data, parameters, cost, warnings",
    "audit": "say what is wrong with a config's data: duplicates, leaks, missing values, overlap of splits",
    "evaluate": "measure a checkpoint on a split: metrics, prediction store, pictures",
    "compare": "say whether a run is better than another on the same examples: differences, intervals, tests",
    "doctor": "say what this machine has",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        return _run([argument for argument in given if argument != "--debug"])
    except JaxlabError as error:
        if debug:
            traceback.print_exc()
        kind = "stopped" if error.exit_code == 75 else "error"
        print(f"{kind}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _run(given: list[str]) -> int:
    flags, overrides = _split_overrides(given)
    _check_flags(flags)
    parsed = _parser().parse_args(flags)
    if overrides and "config" not in vars(parsed):
        raise UsageError(f"--config.{next(iter(overrides))}: {parsed.command} takes no config; a run keeps its own")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a plug-in in the folder where the command is given can be named
    result = globals()[f"_{parsed.command}"](parsed, overrides)
    print(json.dumps(record.jsonable(result)), flush=True)
    return 1 if getattr(parsed, "strict", False) and result["errors"] else 0


def _check_flags(flags: list[str]) -> None:
    """Raise UsageError for an unknown flag, before argparse says that the one it was meant to be is missing."""
    command = next((flag for flag in flags if not flag.startswith("-")), "")
    if command not in _COMMANDS:
        return
    known = [*_options(command), "--help"]
    for flag in flags[flags.index(command) + 1 :]:
        name = flag.split("=")[0]
        if name.startswith("--") and name not in known:
            raise UsageError(f"{name}: no such flag of {command}{did_you_mean(name, known)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("jaxlab", description="A JAX research framework.", allow_abbrev=False)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        for flag, options in _options(name).items():
            command.add_argument(flag, **options)
    return parser


def _options(command: str) -> dict[str, dict[str, Any]]:
    """Return the flags of a command."""
    config = {"--config": {"required": True, "help": _CONFIG_HELP, "metavar": "FILE"}}
    workdir = {"required": True, "help": "the run's directory", "metavar": "DIR"}
    return {
        "train": {**config, "--workdir": workdir},
        "check": {**config, "--workdir": {"help": "where the run would be written", "metavar": "DIR"}},
        "audit": {
            **config,
            "--output": {"default": "audit", "help": "where the report is written (default: audit)", "metavar": "DIR"},
            "--target": {"help": "the field to predict (default: the objective's)", "metavar": "FIELD"},
            "--ignore": {"default": "", "help": "fields that are no inputs, with commas between", "metavar": "FIELDS"},
            "--max_rows": {"type": int, "default": 100_000, "help": "look at so many rows of a larger split"},
            "--test_labels": {"action": "store_true", "help": "read the test split's targets too"},
            "--strict": {"action": "store_true", "help": "exit with 1 if there are errors"},
        },
        "evaluate": {
            "--workdir": workdir,
            "--split": {"default": "test", "help": "train, valid or test (default: test)"},
            "--step": {"default": "best", "help": "best, latest or a number (default: best, chosen on valid)"},
            "--batch_size": {"type": int, "help": "examples a batch; does not change the result"},
        },
        "compare": {
            "first": {"help": "a run's directory", "metavar": "RUN_A"},
            "second": {"help": "another's, measured on the same split", "metavar": "RUN_B"},
            "--split": {"default": "test", "help": "train, valid or test (default: test)"},
        },
        "doctor": {},
    }[command]


def _split_overrides(given: list[str]) -> tuple[list[str], dict[str, str]]:
    """Take ``--config.PATH=VALUE`` and ``--config.PATH VALUE`` out of the arguments; a lone flag means true."""
    flags: list[str] = []
    overrides: dict[str, str] = {}
    position = 0
    while position < len(given):
        argument = given[position]
        position += 1
        if not argument.startswith("--config."):
            flags.append(argument)
            continue
        path, equals, value = argument.removeprefix("--config.").partition("=")
        if not equals and position < len(given) and not given[position].startswith("--"):
            value = given[position]
            position += 1
        elif not equals:
            value = "true"
        overrides[path] = value
    return flags, overrides


def _load(parsed: argparse.Namespace, overrides: dict[str, str]) -> Any:
    from jaxlab.core import config as configs
    from jaxlab.core.override import override

    config = configs.load(parsed.config)
    try:
        return override(config, overrides)
    except UsageError as error:
        raise type(error)(f"--{error} (in {parsed.config})") from error


def _train(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    config = _load(parsed, overrides)
    from jaxlab.run.train import train

    run = train(config, parsed.workdir, {"config": str(Path(parsed.config).resolve()), "overrides": overrides})
    print(f"finished: {run.workdir}", file=sys.stderr)
    return {"workdir": str(run.workdir), **run.summary}


def _check(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    config = _load(parsed, overrides)
    from jaxlab.run.check import check
    from jaxlab.run.check_table import print_check

    result = check(config, parsed.workdir)
    print_check(result)
    return result


def _audit(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    config = _load(parsed, overrides)
    from jaxlab.run.audit import audit

    ignore = tuple(name for name in parsed.ignore.split(",") if name)
    options = {"max_rows": parsed.max_rows, "target": parsed.target, "ignore": ignore}
    result = audit(config, parsed.output, **options, test_labels=parsed.test_labels)
    for finding in result.pop("findings"):
        print(finding, file=sys.stderr)
    print(f"written: {result['output']}/audit.html", file=sys.stderr)
    return result


def _evaluate(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    from jaxlab.run.evaluate import evaluate

    result = evaluate(parsed.workdir, parsed.split, parsed.step, parsed.batch_size)
    for name, value in result["metrics"].items():
        print(f"{name} {_with_interval(value, result['intervals'].get(name), result)}", file=sys.stderr)
    if result["split"] == "test" and result["reads"] > 1:
        print(f"this run has read its test labels {result['reads']} times", file=sys.stderr)
    return result


def _with_interval(value: float, interval: dict[str, Any] | None, result: dict[str, Any]) -> str:
    """Return a number as it is printed: with its interval at 95 %, of how many and by what method."""
    if interval is None:
        return f"{value:.4f}  (n={result['n']}, step {result['step']})"
    about = f"n={interval['n']}, {interval['method']}, step {result['step']}"
    return f"{value:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]  ({about})"


def _compare(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    from jaxlab.run.compare import compare

    result = compare(parsed.first, parsed.second, parsed.split)
    for name, found in result["differences"].items():
        bounds = f"{found['difference']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"
        exact = f", McNemar p={found['mcnemar_p']:.4f}" if "mcnemar_p" in found else ""
        about = f"p={found['p']:.4f}{exact}, n={found['n']}, {found['method']}"
        print(f"{name} {found['first']:.4f} -> {found['second']:.4f}: {bounds}  ({about})", file=sys.stderr)
    return result


def _doctor(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    from jaxlab.run.doctor import doctor

    result = doctor()
    for warning in result["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    return result
