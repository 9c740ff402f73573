"""Importing jaxlab is cheap and touches no device: a notebook or a login node may do it at any time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def modules_after(statement: str) -> set[str]:
    """Return the names of all modules that a fresh interpreter holds after `statement`."""
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_jaxlab_imports_neither_jax_nor_tensorflow_so_it_starts_no_backend():
    modules = modules_after("import jaxlab")
    assert "jaxlab" in modules
    assert not modules & {"jax", "jaxlib", "tensorflow", "flax", "orbax", "pandas", "torch"}


@pytest.mark.parametrize("module", ["core.record", "core.config", "core.override", "core.errors", "cli"])
def test_what_reports_and_the_command_line_need_first_imports_no_jax(module):
    modules = modules_after(f"import jaxlab.{module}")
    assert f"jaxlab.{module}" in modules
    assert not modules & {"jax", "jaxlib", "tensorflow", "flax", "orbax"}


@pytest.mark.parametrize("module", ["tree", "rng", "types"])
def test_the_rest_of_core_imports_jax_without_starting_a_backend_or_tensorflow(module):
    no_backend = "from jax._src import xla_bridge; assert not xla_bridge.backends_are_initialized()"
    modules = modules_after(f"import jaxlab.core.{module}; {no_backend}")
    assert "jax" in modules
    assert "tensorflow" not in modules
