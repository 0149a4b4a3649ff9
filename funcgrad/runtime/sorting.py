"""Sorting rows as steps of a native program, by NumPy's sort and argsort.

All work on C-contiguous rows; rows are the step's parallel axis. NumPy's quick sorts are vectorised where the CPU
allows it, several times as fast as its stable ones, but do not keep the order of equal elements: of values alone that
does not show. A stable argsort is made of a quick sort of values: of integers that have the key in their upper bits
and the position, which makes them all different, in the lower ones.

* Keys of 4 bytes (floats by an integer of the same order) leave room for 32 bits of position.
* Of keys of 8 bytes the least is subtracted. If what is left and the position are no longer than 63 bits, that is all;
  else the lowest bits of the keys are left out, and runs of elements that agree in the others, rare ones if keys are
  anything like random, are put in order by insertion. Where that takes too long, NumPy's quick argsort is asked, and
  the positions in each run of equal keys are sorted.
* Keys of 1 or 2 bytes NumPy's stable functions sort by digits.
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

__all__ = ["SORT_NANOSECONDS", "WORTH_A_THREAD", "argsort_step", "sort_step"]

WORTH_A_THREAD = 15_000  # nanoseconds
SORT_NANOSECONDS, _ARGSORT_NANOSECONDS = 0.3, 1.0  # per element and binary digit of the length

# slots of input and output | byte offset of the input | elements of a row | bytes of a row | memcpy | sort
_SORT = """
def sort_rows(slots, ints, lo, hi):
    source = load(slots + 8 * load(ints)) + load(ints + 16)
    target = load(slots + 8 * load(ints + 8))
    size = load(ints + 32)
    failed = 0
    for i in range(lo, hi):
        call3(load(ints + 40), target + i * size, source + i * size, size)
        failed = failed | call3(load(ints + 48), target + i * size, load(ints + 24), 0)
    if failed & 0xFFFFFFFF != 0:
        store(slots - 8, 1)
"""

# slots of keys and order | byte offset of the keys | elements of a row | bytes of a row of keys | stable argsort
_STABLE_ARGSORT = """
def stable_argsort_rows(slots, ints, lo, hi):
    keys = load(slots + 8 * load(ints)) + load(ints + 16)
    n = load(ints + 24)
    failed = 0
    for i in range(lo, hi):
        order = load(slots + 8 * load(ints + 8)) + i * n * 8
        for k in range(n):
            store(order + 8 * k, k)
        failed = failed | call4(load(ints + 40), keys + i * load(ints + 32), order, n, 0)
    if failed & 0xFFFFFFFF != 0:
        store(slots - 8, 1)
"""

# slots of keys and order | byte offset of the keys | elements of a row | argsort | sort of int64 | bits of a position
_ARGSORT = """
def argsort_rows(slots, ints, lo, hi):
    n = load(ints + 24)
    bits = load(ints + 48)
    mask = (1 << bits) - 1
    limit = 8 * n
    for i in range(lo, hi):
        keys = load(slots + 8 * load(ints)) + load(ints + 16) + i * n * 8
        order = load(slots + 8 * load(ints + 8)) + i * n * 8
        least = {TOP}
        most = -{TOP} - 1
        for k in range(n):
            key = load(keys + 8 * k){KEY}
            least = min(least, key)
            most = max(most, key)
        span = most - least
        shift = 0
        if span < 0:
            span = span >> 1 & {TOP}
            shift = 1
        while span >> (63 - bits) != 0:
            span = span >> 1
            shift = shift + 1
        whole = {TOP} >> max(shift - 1, 0) if shift > 0 else -1
        for k in range(n):
            key = load(keys + 8 * k){KEY}
            store(order + 8 * k, (key - least >> shift & whole) << bits | k)
        call3(load(ints + 40), order, n, 0)
        moves = 0
        if shift > 0:
            first = 0
            before = load(order) >> bits
            for k in range(1, n + 1):
                same = False
                if k < n:
                    here = load(order + 8 * k) >> bits
                    same = here == before
                    before = here
                if not same:
                    if k - first > 1:
                        for j in range(first, k):
                            place = load(order + 8 * j) & mask
                            key = load(keys + 8 * place){KEY}
                            mine = key
                            at = j
                            going = at > first and moves < limit
                            while going:
                                other = load(order + 8 * (at - 1))
                                key = load(keys + 8 * other){KEY}
                                going = key > mine
                                if going:
                                    store(order + 8 * at, other)
                                    at = at - 1
                                    moves = moves + 1
                                    going = at > first and moves < limit
                            store(order + 8 * at, place)
                    first = k
        if moves < limit:
            for k in range(n):
                store(order + 8 * k, load(order + 8 * k) & mask)
        else:
            for k in range(n):
                store(order + 8 * k, k)
            call_kernel(load(ints + 32), keys, order, n, 0)
            first = 0
            key = load(keys + 8 * load(order)){KEY}
            last = key
            for k in range(1, n + 1):
                same = False
                if k < n:
                    key = load(keys + 8 * load(order + 8 * k)){KEY}
                    same = key == last
                    last = key
                if not same:
                    if k - first > 1:
                        call3(load(ints + 40), order + 8 * first, k - first, 0)
                    first = k
"""
_TOP = 0x7FFFFFFFFFFFFFFF
_KEYS = {
    "i": [],
    "u": ["key = key ^ 1 << 63"],
    "f": [
        f"size = key & {_TOP}",
        f"key = key ^ (key >> 63 & {_TOP})",
        "key = 0 if size == 0 else key",
        f"key = {_TOP} if size > 0x7FF0000000000000 else key",
    ],
}
"""From the bits of a key to an integer of the same order, all zeros one and all NaN one."""


def _argsort_source(kind: str) -> str:
    lines = []
    for line in _ARGSORT.replace("{TOP}", str(_TOP)).split("\n"):
        lines.append(line.replace("{KEY}", ""))
        if "{KEY}" in line:
            space = line[: len(line) - len(line.lstrip())]
            lines += [space + each for each in _KEYS[kind]]
    return "\n".join(lines)


# slots of keys and order | byte offset of the keys | elements of a row | sort of int64
_NARROW_ARGSORT = """
def narrow_argsort_rows(slots, ints, lo, hi):
    n = load(ints + 24)
    for i in range(lo, hi):
        keys = load(slots + 8 * load(ints)) + load(ints + 16) + i * n * 4
        order = load(slots + 8 * load(ints + 8)) + i * n * 8
        for k in range(n):
            key = load_i32(keys + 4 * k){KEY}
            store(order + 8 * k, key << 32 | k)
        call3(load(ints + 32), order, n, 0)
        for k in range(n):
            store(order + 8 * k, load(order + 8 * k) & 0xFFFFFFFF)
"""
_NARROW_KEYS = {
    "i": "",
    "u": """
            key = (key & 0xFFFFFFFF) - 0x80000000""",
    "f": """
            size = key & 0x7FFFFFFF
            key = key ^ (key >> 31 & 0x7FFFFFFF)
            key = 0 if size == 0 else key
            key = 0x7FFFFFFF if size > 0x7F800000 else key""",
}
"""From the bits of a key to an integer of the same order, all zeros one and all NaN one."""


def sort_step(slot_in: int, offset: int, slot_out: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> Step:
    """Write the rows of the input, sorted in ascending order with NaN last, to the output."""
    rows, n = shape
    found, memcpy = sort_functions(dtype.name), _memcpy()
    if found is None or not memcpy:
        given, result = Operand(slot_in, shape, dtype, offset), Operand(slot_out, shape, dtype)
        return host_step(np.sort, [given], [result], "sort")
    function = found.stable_sort if dtype.itemsize == 1 else found.sort  # of bytes, the stable one counts digits
    ints = [slot_in, slot_out, offset, n, n * dtype.itemsize, memcpy, function]
    address = compile_runtime(_SORT, "sort_rows", 4, returns=False)
    return Step(address, ints, rows, _grain(rows, n, SORT_NANOSECONDS), checks=True)


def argsort_step(slot_in: int, offset: int, slot_out: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> Step:
    """Write the positions (int64) that sort each row of keys stably to the output.

    Keys are integers, booleans, float32 or float64; rows of 4-byte keys have less than 2**32 elements.
    """
    rows, n = shape
    found, integers = sort_functions(dtype.name), sort_functions("int64")
    if found is None or integers is None:
        given, result = Operand(slot_in, shape, dtype, offset), Operand(slot_out, shape, np.dtype(np.int64))
        return host_step(lambda x: np.argsort(x, kind="stable"), [given], [result], "argsort")
    grain = _grain(rows, n, _ARGSORT_NANOSECONDS)
    if dtype.itemsize <= 2:
        ints = [slot_in, slot_out, offset, n, n * dtype.itemsize, found.stable_argsort]
        address = compile_runtime_kernel(_STABLE_ARGSORT, "stable_argsort_rows").address
        return Step(address, ints, rows, grain, checks=True)
    if dtype.itemsize == 4:
        ints = [slot_in, slot_out, offset, n, integers.sort]
        source = _NARROW_ARGSORT.replace("{KEY}", _NARROW_KEYS[dtype.kind])
        address = compile_runtime_kernel(source, "narrow_argsort_rows").address
        return Step(address, ints, rows, _grain(rows, n, SORT_NANOSECONDS))
    ints = [slot_in, slot_out, offset, n, found.argsort, integers.sort, max(1, (n - 1).bit_length())]
    address = compile_runtime_kernel(_argsort_source(dtype.kind), "argsort_rows").address
    return Step(address, ints, rows, grain)


def _grain(rows: int, n: int, nanoseconds: float) -> int:
    cost = nanoseconds * n * max(1.0, math.log2(n)) + 20
    return max(1, round(WORTH_A_THREAD / cost)) if rows > 1 and rows * cost > 2 * WORTH_A_THREAD else 0


@cache
def _memcpy() -> int:
    return ctypes.cast(ctypes.CDLL(None).memcpy, ctypes.c_void_p).value or 0 if os.name == "posix" else 0
