"""The processor's counter as a clock for native code: a tick takes the same time on all cores."""

from __future__ import annotations

import ctypes
import time
from functools import cache

from funcgrad.runtime.compile import compile_runtime

__all__ = ["seconds_per_tick"]

_NOW = """
def now():
    return cycles()
"""
_SECONDS = 2e-3  # the two clocks are read some 100 nanoseconds apart


@cache
def seconds_per_tick() -> float:
    """By comparison with Python's clock, in two milliseconds."""
    now = ctypes.PYFUNCTYPE(ctypes.c_int64)(compile_runtime(_NOW, "now", 0))
    ticks, start = now(), time.perf_counter()
    time.sleep(_SECONDS)
    return (time.perf_counter() - start) / max(now() - ticks, 1)
