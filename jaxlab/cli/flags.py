"""Names of commands and their flags, and what ``--config.PATH=VALUE`` says. Imports no JAX."""

from __future__ import annotations

import argparse
from typing import Any

from jaxlab.core.errors import UsageError, did_you_mean

_CONFIG_HELP = "FILE.py, FILE.py:PRESET or a run's config.json; any field is overridden by --config.PATH=VALUE"
COMMANDS = {
    "train": "train; run again, it resumes; done, it says so",
    "check": "check a config without training: data, parameters, cost, warnings",
    "audit": "say what is wrong with a config's data: duplicates, leaks, missing values, overlap of splits",
    "evaluate": "measure a checkpoint on a split: metrics, prediction store, pictures",
    "baseline": "fit simple baselines on the same split and metrics: majority, linear, boosting, n-grams",
    "sanity": "train a little: a wrong pipeline fails by its first loss, one batch, shuffled labels",
    "find-rate": "train a little with a learning rate that rises, and say which one to take",
    "compare": "say what differs between two runs, and whether one is better on the same examples",
    "verify-resume": "kill a training again and again: it must end as if it had not been, bit by bit",
    "reproduce": "run a run again from what it wrote down, and say whether all bits are the same",
    "scale": "train on 1, 2, 4 … devices: what it gains, and that it stays the same training",
    "study": "do all runs of a study that are missing, then write its report; run again, it goes on",
    "runs": "list the runs below a folder, those that fulfil a condition, in an order",
    "report": "write the report of a study or a run: REPORT.md, report.html, tables",
    "autopsy": "say where the first number that is not finite came from, in a run that diverged",
    "doctor": "say what this machine has",
}
_CONFIG = {
    "--config": {"required": True, "help": _CONFIG_HELP, "metavar": "FILE"},
    "--overrides": {"help": "JSON of values by path, such as a search's best.json; flags go before", "metavar": "FILE"},
}
_WORKDIR = {"required": True, "help": "the run's directory", "metavar": "DIR"}
_ALLOW = {"--allow": {"default": "", "help": "packages that a run's config may name besides jaxlab's own"}}
_PROCESSES = {
    "--coordinator": {"help": "of several processes: where the first one listens", "metavar": "HOST:PORT"},
    "--processes": {"type": int, "help": "how many there are (default: as SLURM, Open MPI, GKE or a TPU pod say)"},
    "--process": {"type": int, "help": "which of them this one is, from 0"},
}
_FLAGS: dict[str, dict[str, dict[str, Any]]] = {
    "train": {
        **_CONFIG,
        "--workdir": _WORKDIR,
        "--fork-from": {
            "help": "begin from another run's state: best, latest or a number",
            "metavar": "RUN@STEP",
        },
        "--fallback": {
            "action": "store_true",
            "help": "where the latest checkpoint is damaged, go on from the newest that is not",
        },
        "--cv": {"type": int, "help": "cross-validate: so many folds of config.data.train", "metavar": "K"},
        "--cv_by": {"help": "auto, stratified, grouped, time or random (default: auto, as the data's fields say)"},
        "--cv_field": {"help": "the label, group or time (default: a field of that name)", "metavar": "FIELD"},
        **_PROCESSES,
    },
    "check": {
        **_CONFIG,
        "--workdir": {"help": "where the run would be written", "metavar": "DIR"},
        "--devices": {"type": int, "default": 0, "help": "plan the step for so many: memory by class, what travels"},
        "--hardware": {"default": "", "help": "h100, a100, v4, v5e, v5p or v6e: what fits, how fast, what it costs"},
        "--price": {"type": float, "help": "US dollars a chip and hour (default: a list price)"},
    },
    "audit": {
        **_CONFIG,
        "--output": {
            "default": "audit",
            "help": "where the report is written (default: audit)",
            "metavar": "DIR",
        },
        "--target": {"help": "the field to predict (default: the objective's)", "metavar": "FIELD"},
        "--ignore": {
            "default": "",
            "help": "fields that are no inputs, with commas between",
            "metavar": "FIELDS",
        },
        "--max_rows": {"type": int, "default": 100_000, "help": "look at so many rows of a larger split"},
        "--test_labels": {"action": "store_true", "help": "read the test split's targets too"},
        "--strict": {"action": "store_true", "help": "exit with 1 if there are errors"},
    },
    "evaluate": {
        "--workdir": _WORKDIR,
        "--split": {"default": "test", "help": "train, valid or test (default: test)"},
        "--step": {"help": "best, latest or numbers with commas, or all (default: best, chosen on valid)"},
        "--parameters": {
            "default": "",
            "help": "raw, ema, optimizer, average; several with commas (default: ema if kept)",
        },
        "--by": {
            "default": "",
            "help": "measure the parts that a column tells apart, too",
            "metavar": "COLUMNS",
        },
        "--watch": {
            "action": "store_true",
            "help": "measure each checkpoint of a run that goes on, until its end",
        },
        "--no_plots": {"action": "store_true", "help": "draw nothing, which saves some seconds"},
        "--batch_size": {"type": int, "help": "examples a batch; does not change the result"},
        **_PROCESSES,
    },
    "baseline": {
        **_CONFIG,
        "--workdir": {
            "help": "a run on the same data, beside which evaluate shows the result",
            "metavar": "DIR",
        },
        "--split": {"default": "valid", "help": "train, valid or test (default: valid)"},
        "--seconds": {
            "type": float,
            "default": 300.0,
            "help": "that each baseline may take to fit (default: 300)",
        },
    },
    "sanity": {
        **_CONFIG,
        "--steps": {"type": int, "default": 200, "help": "of each small training, at most (default: 200)"},
        "--seconds": {"type": float, "default": 120.0, "help": "after which the rest is cut (default: 120)"},
    },
    "find-rate": {
        **_CONFIG,
        "--low": {"type": float, "default": 1e-6, "help": "the first rate (default: 1e-6)"},
        "--high": {"type": float, "default": 1.0, "help": "the last rate (default: 1)"},
        "--steps": {"type": int, "default": 150, "help": "of each short training (default: 150)"},
        "--repeats": {"type": int, "default": 3, "help": "trainings, with other seeds (default: 3)"},
    },
    "compare": {
        "first": {"help": "a run's directory", "metavar": "RUN_A"},
        "second": {"help": "another's", "metavar": "RUN_B"},
        "--split": {"help": "train, valid or test (default: test or else valid, where both were evaluated)"},
    },
    "verify-resume": {
        **_CONFIG,
        "--workdir": {
            "help": "for both runs (default: a temporary one, kept if they differ)",
            "metavar": "DIR",
        },
        "--kills": {"type": int, "default": 5, "help": "how often the second run is killed (default: 5)"},
        "--devices": {"default": "", "help": "A:B devices of the first run and of the restarts (default: all)"},
    },
    "reproduce": {
        "run": {"help": "a run's directory", "metavar": "RUN"},
        "--workdir": {
            "help": "of the new run (default: a temporary one, kept if it differs)",
            "metavar": "DIR",
        },
        "--code": {"default": "then", "help": "then or now: whose code runs (default: then)"},
        "--apply_diff": {
            "action": "store_true",
            "help": "apply the changes to the code that stand in RUN, which may be anybody's",
        },
    },
    "scale": {
        **_CONFIG,
        "--workdir": _WORKDIR,
        "--devices": {"default": "1,2,4,8", "help": "how many, with commas between (default: 1,2,4,8)"},
        "--kind": {"default": "strong,weak", "help": "strong keeps the batch, weak that of a device (default: both)"},
        "--steps": {"type": int, "default": 80, "help": "of each training (default: 80)"},
        "--repeats": {"type": int, "default": 3, "help": "of each training, for the intervals (default: 3)"},
    },
    "study": {
        "--study": {"required": True, "help": "FILE.py, whose get_study() returns a jaxlab.Study", "metavar": "FILE"},
        "--workdir": {"required": True, "help": "the study's directory", "metavar": "DIR"},
        "--executor": {
            "default": "inline",
            "help": "inline, local, vmap, slurm, ray or module:attribute; its options are --executor.NAME=VALUE",
        },
        "--no_report": {"action": "store_true", "help": "do the runs alone"},
    },
    "runs": {
        "root": {"nargs": "?", "default": ".", "help": "where to look (default: here)", "metavar": "DIR"},
        "--where": {"default": "", "help": "such as: valid/accuracy > 0.9 and model.dropout in (0.0, 0.1)"},
        "--sort": {"default": "-began", "help": "names with commas; a dash before one for descending (--sort=-seed)"},
        "--columns": {"default": "", "help": "names with commas (default: what differs between the runs)"},
        "--limit": {"type": int, "default": 50, "help": "runs that are shown (default: 50)"},
        "--rebuild": {"action": "store_true", "help": "read all runs anew, whatever the index says"},
    },
    "report": {
        "--workdir": {"required": True, "help": "of a study or a run", "metavar": "DIR"},
        "--output": {"help": "also there, with the files it leads to: to commit or send", "metavar": "DIR"},
    },
    "autopsy": {"workdir": {"help": "a run that diverged", "metavar": "RUN"}},
    "doctor": {},
}


def check_flags(flags: list[str]) -> None:
    """Raise UsageError for an unknown flag, before argparse says that the one it was meant to be is missing."""
    command = next((flag for flag in flags if not flag.startswith("-")), "")
    if command not in COMMANDS:
        return
    known = [*_options(command), "--help"]
    for flag in flags[flags.index(command) + 1 :]:
        name = flag.split("=")[0]
        if name.startswith("--") and name not in known:
            raise UsageError(f"{name}: no such flag of {command}{did_you_mean(name, known)}")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser("jaxlab", description="A JAX research framework.", allow_abbrev=False)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        for flag, options in _options(name).items():
            command.add_argument(flag, **options)
    return parser


def _options(command: str) -> dict[str, dict[str, Any]]:
    """Return the flags of a command."""
    return {**_ALLOW, **_FLAGS[command]}


def split_overrides(given: list[str], prefix: str = "--config.") -> tuple[list[str], dict[str, str]]:
    """Take ``--config.PATH=VALUE`` and ``--config.PATH VALUE`` out of the arguments; a lone flag means true."""
    flags: list[str] = []
    overrides: dict[str, str] = {}
    position = 0
    while position < len(given):
        argument = given[position]
        position += 1
        if not argument.startswith(prefix):
            flags.append(argument)
            continue
        path, equals, value = argument.removeprefix(prefix).partition("=")
        if not equals and position < len(given) and not given[position].startswith("--"):
            value = given[position]
            position += 1
        elif not equals:
            value = "true"
        overrides[path] = value
    return flags, overrides


def names(text: str) -> tuple[str, ...]:
    """Return names that a flag gives with commas between."""
    return tuple(name for name in text.split(",") if name)
