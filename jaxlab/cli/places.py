"""Directories that a command is given as a bucket's: folders of this machine stand for them while it lasts."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from jaxlab.core.errors import UsageError

_PLACES = ("workdir", "output", "root", "first", "second", "run", "fork_from")
_WRITERS = ("train", "study", "scale", "verify-resume", "reproduce")  # commands that write all of their workdir
_ELSEWHERE = ("slurm", "ray")  # executors whose runs are other machines'
_WITHOUT_ARRAYS = ("check", "compare", "report", "runs")  # commands that read no checkpoint


def in_folders(parsed: argparse.Namespace, do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a command returns that is given folders for the buckets' URLs in its flags, which it names again."""
    given = {name: value for name in _PLACES if isinstance(value := vars(parsed).get(name), str) and "://" in value}
    if not given:
        return do()
    if parsed.command == "study" and parsed.executor in _ELSEWHERE:
        where = f"--executor={parsed.executor}: its machines do not see the folder that stands for {parsed.workdir}"
        raise UsageError(f"{where}; expected a folder that all see, or another executor")
    from jaxlab.run.mirrored import mirrored

    urls: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for name, value in given.items():
            url, at, step = value.rpartition("@") if name == "fork_from" else (value, "", "")
            writes, arrays = name == "workdir" and parsed.command in _WRITERS, parsed.command not in _WITHOUT_ARRAYS
            folder = str(stack.enter_context(mirrored(url, writes=writes, arrays=arrays)))
            urls[folder] = url.rstrip("/")
            setattr(parsed, name, f"{folder}{at}{step}")
        result = do()
    return _named(result, urls)


def _named(value: Any, urls: Mapping[str, str]) -> Any:
    """Return a result with the URLs instead of the folders that stood for them."""
    if isinstance(value, Mapping):
        return {key: _named(child, urls) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_named(child, urls) for child in value]
    if isinstance(value, str):
        for folder, url in urls.items():
            value = value.replace(folder, url)
    return value
