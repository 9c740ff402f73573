"""The house style that machines can check."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("command", ["ruff check .", "ruff format --check .", "mypy"])
def test_the_tree_is_clean(command):
    arguments = [sys.executable, "-m", *command.split()]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_lint_is_suppressed_anywhere():
    marks = ("# no" + "qa", "# type: ig" + "nore", "# pyright: ig" + "nore")
    files = [path for folder in ("jaxlab", "configs", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")]
    files.remove(ROOT / "tests/test_architecture.py")  # which plants such marks, to see that it finds them
    found = [str(path) for path in files if any(mark in path.read_text() for mark in marks)]
    assert not found
