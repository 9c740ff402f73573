"""Freed memory stays with the process, so that a step on the CPU writes to pages that it already has.

XLA asks the C library for a step's buffers anew each step. glibc gives large blocks back to the kernel as soon as they
are free, and each page is then zeroed and mapped again on its first write: a third of a small CNN's or a Transformer's
step. It keeps what the main thread freed where it is told to; other threads have heaps of 64 MB, and what is larger is
given back whatever it is told. One heap for all would do, but then they wait for each other: a small Transformer's step
takes half as long again. So each keeps its heap, and programs start on the thread that calls them, which asks for the
large blocks.
"""

from __future__ import annotations

import ctypes
import os
import platform

import jax

_NO_MAPPED_BLOCKS = (-4, 0)  # M_MMAP_MAX: blocks of any size come from the heap, see malloc.h
_NO_TRIMMING = (-1, -1)  # M_TRIM_THRESHOLD: what is free at its end stays
_MORE_AT_ONCE = (-2, 128 << 20)  # M_TOP_PAD, bytes: twice the size of a thread's heap, or an empty one is given back
_GIVEN = ("MALLOC_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed, and return whether it was told.

    Only with glibc, and where the user's environment does not say how to allocate already. What is taken stays at its
    peak. To be called before JAX finds its devices, as a CPU's programs start on other threads otherwise.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(_GIVEN) for name in os.environ):
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    mallopt = ctypes.CDLL(None).mallopt
    told = [mallopt(*option) for option in (_NO_MAPPED_BLOCKS, _NO_TRIMMING, _MORE_AT_ONCE)]
    return all(told)
