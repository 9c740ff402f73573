"""The errors that a user is meant to read, each with the exit code that it ends the command with.

Usage: ``raise ConfigError(f"config.train.stepz: no such field{did_you_mean('stepz', names)}")``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class JaxlabError(Exception):
    """A failure that is explained to the user in a sentence; exit code 1."""

    exit_code = 1


class UsageError(JaxlabError):
    """Wrong usage of a command; exit code 2."""

    exit_code = 2


class ConfigError(UsageError):
    """A config that cannot be used: names the config path, the value and what was expected."""


class DataError(UsageError):
    """Data that is absent or unusable: names the file or field and the command that mends it."""


class CorruptError(JaxlabError):
    """A file is not what was saved: names the file, and what it held; exit code 1."""


class DivergedError(JaxlabError):
    """The loss or the state is no longer finite; exit code 3."""

    exit_code = 3

    def __init__(self, problem: str, step: int) -> None:
        """Say what is not finite, noticed after `step`."""
        super().__init__(problem)
        self.step = step


class PreemptedError(JaxlabError):
    """The run was asked to stop, has saved its state and goes on when run again; exit code 75."""

    exit_code = 75


class UndefinedError(ValueError):
    """A metric has no value on these examples: says why, such as that all are of one class."""


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the candidate nearest to `name`, or the list of all of them."""
    names = sorted({str(candidate) for candidate in candidates})
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    if not names:
        return ""
    return f"; valid names: {', '.join(names)}"
