"""Sorting rows as steps of a native program, by NumPy's sort and argsort.

Both work on C-contiguous rows; rows are the step's parallel axis. NumPy's quick functions (vectorised where the CPU
allows it, several times as fast as its stable ones) do not keep the order of equal keys. After an argsort that order
is restored: positions of equal keys come out as runs, and each run is sorted as the integers that they are. So the
result is the stable one, at the price of one pass over the keys. Keys are 8 bytes wide (narrower ones are converted
before, which changes no order), and equal means: the same bits, or both zero, or both NaN.
"""

from __future__ import annotations

import ctypes
import math
import os
from functools import cache
from typing import Any

import numpy as np

from funcgrad.runtime.compile import compile_runtime, compile_runtime_kernel
from funcgrad.runtime.executor import Step
from funcgrad.runtime.host import Operand, host_step
from funcgrad.runtime.numpy_loops import sort_functions

__all__ = ["argsort_step", "sort_step"]

_WORTH_A_THREAD = 15_000  # nanoseconds
_SORT_NANOSECONDS, _ARGSORT_NANOSECONDS = 0.3, 1.0  # per element and binary digit of the length

# slots of input and output | byte offset of the input | elements of a row | bytes of a row | memcpy | sort
_SORT = """
def sort_rows(slots, ints, lo, hi):
    source = load(slots + 8 * load(ints)) + load(ints + 16)
    target = load(slots + 8 * load(ints + 8))
    size = load(ints + 32)
    for i in range(lo, hi):
        call3(load(ints + 40), target + i * size, source + i * size, size)
        call3(load(ints + 48), target + i * size, load(ints + 24), 0)
"""

# slots of keys and order | byte offset of the keys | elements of a row | argsort | sort of int64
_ARGSORT = """
def argsort_rows(slots, ints, lo, hi):
    n = load(ints + 24)
    for i in range(lo, hi):
        keys = load(slots + 8 * load(ints)) + load(ints + 16) + i * n * 8
        order = load(slots + 8 * load(ints + 8)) + i * n * 8
        for k in range(n):
            store(order + 8 * k, k)
        call_kernel(load(ints + 32), keys, order, n, 0)
        first = 0
        before = load(keys + 8 * load(order))
        for k in range(1, n + 1):
            same = False
            if k < n:
                here = load(keys + 8 * load(order + 8 * k))
                same = here == before{FLOAT}
                before = here
            if not same:
                if k - first > 1:
                    call3(load(ints + 40), order + 8 * first, k - first, 0)
                first = k
"""
_BITS, _INFINITY = 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000
_SAME_FLOATS = f"""
                a = here & {_BITS}
                b = before & {_BITS}
                same = same or a | b == 0 or (a > {_INFINITY} and b > {_INFINITY})"""


def sort_step(slot_in: int, offset: int, slot_out: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> Step:
    """Write the rows of the input, sorted in ascending order with NaN last, to the output."""
    rows, n = shape
    found, memcpy = sort_functions(dtype.name), _memcpy()
    if found is None or not memcpy:
        given, result = Operand(slot_in, shape, dtype, offset), Operand(slot_out, shape, dtype)
        return host_step(np.sort, [given], [result], "sort")
    ints = [slot_in, slot_out, offset, n, n * dtype.itemsize, memcpy, found.sort]
    address = compile_runtime(_SORT, "sort_rows", 4, returns=False)
    return Step(address, ints, rows, _grain(rows, n, _SORT_NANOSECONDS))


def argsort_step(slot_in: int, offset: int, slot_out: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> Step:
    """Write the positions (int64) that sort each row of keys, float64, int64 or uint64, stably to the output."""
    rows, n = shape
    found, integers = sort_functions(dtype.name), sort_functions("int64")
    if found is None or integers is None:
        given, result = Operand(slot_in, shape, dtype, offset), Operand(slot_out, shape, np.dtype(np.int64))
        return host_step(lambda x: np.argsort(x, kind="stable"), [given], [result], "argsort")
    source = _ARGSORT.replace("{FLOAT}", _SAME_FLOATS if dtype.kind == "f" else "")
    ints = [slot_in, slot_out, offset, n, found.argsort, integers.sort]
    address = compile_runtime_kernel(source, "argsort_rows").address
    return Step(address, ints, rows, _grain(rows, n, _ARGSORT_NANOSECONDS))


def _grain(rows: int, n: int, nanoseconds: float) -> int:
    cost = nanoseconds * n * max(1.0, math.log2(n)) + 20
    return max(1, round(_WORTH_A_THREAD / cost)) if rows > 1 and rows * cost > 2 * _WORTH_A_THREAD else 0


@cache
def _memcpy() -> int:
    return ctypes.cast(ctypes.CDLL(None).memcpy, ctypes.c_void_p).value or 0 if os.name == "posix" else 0
