"""Freed memory stays: a step whose buffers the process already has touches no new page."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from jaxlab.run.host_memory import keep_freed_memory

told = keep_freed_memory() if sys.argv[1] == "keep" else False
work = jax.jit(lambda x: x * 2)
x = jnp.arange(2.0**24)  # 64 MB: beyond the largest block that glibc keeps of its own accord
for _ in range(20):
    work(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work(x).block_until_ready()
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    environment |= {"JAX_PLATFORMS": "cpu", **variables}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True, timeout=200, env=environment
    )
    told, count = done.stdout.split()
    return told == "True", int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator's options are glibc's")
def test_steps_fault_pages_in_once_and_not_every_time():
    _, without = faults("leave")
    told, kept = faults("keep")
    assert told
    assert without > 5_000
    assert kept < without / 5


def test_what_the_environment_says_about_allocation_stands():
    told, _ = faults("keep", MALLOC_ARENA_MAX="4")
    assert not told
