"""Freed memory stays with the process, so that a step on the CPU writes to pages that it already has.

XLA asks the C library for a step's buffers anew each step. glibc gives blocks beyond 32 MB back to the kernel as soon
as they are free, and each page is then zeroed and mapped again on its first write: a third of a small CNN's step.
"""

from __future__ import annotations

import ctypes
import os
import platform

_NO_MAPPED_BLOCKS = (-4, 0)  # M_MMAP_MAX: blocks of any size come from the heap, see malloc.h
_NO_TRIMMING = (-1, -1)  # M_TRIM_THRESHOLD: what is free at its end stays
_ONE_ARENA = (-8, 1)  # M_ARENA_MAX: threads' own heaps hold 64 MB at most
_GIVEN = ("MALLOC_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed, and return whether it was told.

    Only with glibc, and where the user's environment does not say how to allocate already. To be called before JAX
    finds its devices: threads that it starts earlier have heaps of their own. What is taken stays at its peak.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(_GIVEN) for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    told = [mallopt(*option) for option in (_NO_MAPPED_BLOCKS, _NO_TRIMMING, _ONE_ARENA)]
    return all(told)
