"""The code of a run as git has it: what a receipt says of the working directory's repository, and bringing it back.

Nothing here changes a repository's files; a tree of old code is a worktree of its own, removed when it is done with.
Usage: ``state = git_state()``; later ``with code_of(state) as code: ...``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxlab.core import record
from jaxlab.core.errors import UsageError
from jaxlab.run.fingerprints import file_hash, package_folder

LONGEST_DIFF = 1_000_000  # characters
_MOST_UNTRACKED = 200
_SECONDS = 20  # that a git command may take


class Code(NamedTuple):
    """Where code of a receipt stands: a tree's folder and the repository's, or why it cannot be had."""

    tree: Path | None
    root: Path | None
    problem: str


def git_state(folder: Path | None = None) -> dict[str, Any]:
    """Return the commit of a folder's repository and what differs from it; empty outside of one.

    ``diff`` is what ``git apply`` takes; a longer one is left out, and ``cut`` says so. ``untracked`` are hashes of the
    Python files that no commit holds.
    """
    top = git(folder, "rev-parse", "--show-toplevel", "HEAD")
    if top is None:
        return {}
    root, commit = top.splitlines()
    diff = git(Path(root), "diff", "HEAD", "--binary", "--no-ext-diff", "--no-color", "--no-textconv",
               "--src-prefix=a/", "--dst-prefix=b/")  # fmt: skip
    listed = git(Path(root), "ls-files", "--others", "--exclude-standard", "-z", "--", "*.py")
    names = [name for name in (listed or "").split("\0") if name and Path(root, name).is_file()]
    cut = diff is None or listed is None or len(diff) > LONGEST_DIFF or len(names) > _MOST_UNTRACKED
    return {
        "root": root,
        "commit": commit,
        "dirty": bool(diff) or bool(names),
        "diff": "" if cut else diff,
        "cut": cut,
        "untracked": {name: file_hash(Path(root, name)) for name in sorted(names)[:_MOST_UNTRACKED]},
    }


@contextlib.contextmanager
def code_of(state: Mapping[str, Any], run: Path, apply_diff: bool = False) -> Iterator[Code]:
    """Give a tree with the code that a receipt's ``git`` names: the repository as it is, if it holds just that.

    Args:
      state: may be anybody's.
      run: the run's directory, within which no repository is looked for.
      apply_diff: whether what differed from the commit may be taken from the receipt.

    Raises:
      UsageError: the receipt's own code would be needed, and `apply_diff` does not allow it.
    """
    problem = _malformed(state)
    root = None if problem else _repository(state, run)
    problem = problem or _problem(state, root)
    if problem or root is None:
        yield Code(None, root, problem)
    elif same_code(git_state(root), state):
        yield Code(root, root, "")
    else:
        if state["diff"] and not apply_diff:
            raise UsageError(
                f"{run / record.ENVIRONMENT} says what differed from the commit {state['commit'][:12]}: code that a "
                "run directory holds, which may be anybody's; if you trust it, add --apply_diff, or take today's code "
                "by --code=now"
            )
        with tempfile.TemporaryDirectory(prefix="jaxlab-code-") as folder:
            tree = Path(folder).resolve() / "tree"
            try:
                problem = _laid_out(state, root, tree)
                yield Code(None, root, problem) if problem else Code(tree, root, "")
            finally:
                git(root, "worktree", "remove", "--force", str(tree))
                git(root, "worktree", "prune")


def same_code(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Say whether two receipts' ``git`` name the same code, so far as they can say."""
    if not one or not other or one["cut"] or other["cut"]:
        return False
    return all(one.get(name) == other.get(name) for name in ("commit", "diff", "untracked"))


def git(folder: Path | None, *arguments: str, text: str | None = None) -> str | None:
    """Return what a git command prints; None where it fails. Bytes that are no UTF-8 are kept, as surrogates."""
    command = ["git", *(["-C", str(folder)] if folder else []), *arguments]
    given = (text or "").encode("utf-8", "surrogateescape")
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else None


def _malformed(state: Mapping[str, Any]) -> str:
    """Say that a receipt's ``git`` is not as it is written, or nothing; an empty one is none."""
    kinds = {"commit": str, "diff": str, "cut": bool, "untracked": dict}
    wrong = [name for name, kind in kinds.items() if state and not isinstance(state.get(name), kind)]
    if not wrong and state and not re.fullmatch(r"[0-9a-f]{40,64}", state["commit"]):  # no option of git's
        wrong = ["commit"]
    return f"the receipt's git.{wrong[0]} is not as it is written today" if wrong else ""


def _repository(state: Mapping[str, Any], run: Path) -> Path | None:
    """Return the repository at hand that has the commit: where it was, here, or where jaxlab's files stand."""
    if not state:
        return None
    for folder in (state.get("root"), Path.cwd(), package_folder()):
        if not isinstance(folder, str | Path) or not Path(folder).is_dir():
            continue
        if Path(folder).resolve().is_relative_to(run):
            continue  # a repository's settings can make git run programs
        there = git(Path(folder), "rev-parse", "--show-toplevel")
        if there is not None and git(Path(folder), "cat-file", "-e", f"{state['commit']}^{{commit}}") is not None:
            return Path(there.rstrip("\n"))
    return None


def _problem(state: Mapping[str, Any], root: Path | None) -> str:
    """Say why code cannot be had, as far as that is known before it is tried."""
    if not state:
        return "the receipt names no commit: the run was started outside of a repository"
    if root is None:
        return f"no repository at hand has the commit {state['commit'][:12]}"
    if state["cut"]:
        return f"the receipt lacks what differed from the commit {state['commit'][:12]}: it was too much"
    return ""


def _laid_out(state: Mapping[str, Any], root: Path, tree: Path) -> str:
    """Write the commit, the diff and the untracked files to `tree`; say what went wrong, or nothing."""
    add = ("worktree", "add", "--detach", "--force", str(tree), state["commit"])
    if git(root, "-c", f"core.hooksPath={os.devnull}", *add) is None:
        return f"git worktree add {state['commit'][:12]} fails in {root}"
    if state["diff"] and git(tree, "apply", "--whitespace=nowarn", "-", text=state["diff"]) is None:
        return f"the receipt's diff does not apply to the commit {state['commit'][:12]}"
    missing = []
    for name, known in state["untracked"].items():
        here, there = root / name, tree / name
        if not there.resolve().is_relative_to(tree) or not here.is_file() or file_hash(here) != known:
            missing.append(name)
            continue
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(here, there)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return f"files that no commit holds are gone or have changed: {', '.join(missing[:3])}{more}"
    return ""


def within(path: str | os.PathLike[str], code: Code) -> str:
    """Return where a path of the repository stands in the tree; another path as it is."""
    whole = Path(path).resolve()
    if code.tree is None or code.root is None or not whole.is_relative_to(code.root.resolve()):
        return str(path)
    return str(code.tree / whole.relative_to(code.root.resolve()))
