"""Sorting one long row on several threads: runs of it by NumPy's sort, and pairs of runs merged.

Between the two the elements are keys, integers of the same size in whose order the elements are: of floats all NaN one
key, the greatest, and -0.0 before 0.0. So the result is the same, bit for bit, however many runs there are.

A merge is cut into tiles of results. Where a tile begins in the two runs is found by bisection (the "merge path" of
Odeh, Green, Mwassi, Shmueli and Birk, 2012), so that tiles do not wait for one another. Within a tile four pieces are
merged side by side: of one alone, the next comparison would wait for the loads that the last one decided on. Where the
one run ends before the other begins, as in rows that are sorted already, a merge is a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from funcgrad.runtime.compile import compile_runtime_kernel
from funcgrad.runtime.executor import Step
from funcgrad.runtime.host import Operand, host_step
from funcgrad.runtime.numpy_loops import sort_functions
from funcgrad.runtime.sorting import SORT_NANOSECONDS, WORTH_A_THREAD
from funcgrad.runtime.threads import get_num_threads

__all__ = ["merge_step", "run_length", "sort_runs_step"]

_TILE = 8192
_PIECES = 4

_TOP = {4: 0x7FFFFFFF, 8: 0x7FFFFFFFFFFFFFFF}
_INFINITY = {4: 0x7F800000, 8: 0x7FF0000000000000}
_NAN = {4: 0x7FC00000, 8: 0x7FF8000000000000}


def _to_key(kind: str, size: int) -> list[str]:
    """Statements from the bits of an element, with their sign, to its key."""
    top, infinity = _TOP[size], _INFINITY[size]
    if kind == "u":
        return [f"key = (key ^ {-top - 1})"]
    if kind == "f":
        return [
            f"magnitude = key & {top}",
            f"key = key ^ (key >> {8 * size - 1} & {top})",
            f"key = {top} if magnitude > {infinity} else key",
        ]
    return []


def _from_key(kind: str, size: int) -> list[str]:
    if kind == "f":
        return [
            f"bits = key ^ (key >> {8 * size - 1} & {_TOP[size]})",
            f"key = {_NAN[size]} if key == {_TOP[size]} else bits",
        ]
    return _to_key(kind, size)


def _words(size: int) -> tuple[str, str]:
    return ("load", "store") if size == 8 else ("load_i32", "store_i32")


def _block(lines: list[str], indent: int) -> str:
    return "".join([" " * indent + line + "\n" for line in lines])


def _sort_source(kind: str, size: int) -> str:
    load, store = _words(size)
    # slots of input and keys | byte offset of the input | elements of a row | runs of a row | of a run | sort
    return f"""
def sort_runs(slots, ints, lo, hi):
    n = load(ints + 24)
    runs = load(ints + 32)
    run = load(ints + 40)
    failed = 0
    for i in range(lo, hi):
        row = i // runs
        first = (i - row * runs) * run
        count = min(run, n - first)
        at = (row * n + first) * {size}
        source = load(slots + 8 * load(ints)) + load(ints + 16) + at
        keys = load(slots + 8 * load(ints + 8)) + at
        for k in range(count):
            key = {load}(source + {size} * k)
{_block(_to_key(kind, size), 12)}            {store}(keys + {size} * k, key)
        failed = failed | call3(load(ints + 48), keys, count, 0)
    if failed & 0xFFFFFFFF != 0:
        fail(slots)
"""


def _merge_source(kind: str, size: int, last: bool) -> str:
    load, store = _words(size)
    piece = _TILE // _PIECES
    decode = _from_key(kind, size) if last else []

    def bisected(p: int) -> list[str]:
        """How many elements of the left run come before the piece."""
        return [
            f"d{p} = past + {p * piece}",
            f"low = max(0, d{p} - right)",
            f"high = min(d{p}, left)",
            "while low < high:",
            "    middle = (low + high) >> 1",
            f"    if {load}(a + {size} * middle) <= {load}(b + {size} * (d{p} - 1 - middle)):",
            "        low = middle + 1",
            "    else:",
            "        high = middle",
            f"i{p} = low",
        ]

    def quick(p: int) -> list[str]:
        """One result, where neither run is at its end."""
        return [
            f"x = {load}(a + {size} * i{p})",
            f"y = {load}(b + {size} * (d{p} + k - i{p}))",
            "key = min(x, y)",
            *decode,
            f"{store}(target + {size} * (k + {p * piece}), key)",
            f"i{p} += 1 if x <= y else 0",
        ]

    def careful(p: int) -> list[str]:
        return [
            f"j = d{p} + k - i{p}",
            f"x = {load}(a + {size} * min(i{p}, left - 1))",
            f"y = {load}(b + {size} * min(j, right - 1))",
            f"take = j >= right or (i{p} < left and x <= y)",
            "key = x if take else y",
            *decode,
            f"{store}(target + {size} * (k + {p * piece}), key)",
            f"i{p} += 1 if take else 0",
        ]

    def of_all(statements: Callable[[int], list[str]], indent: int) -> str:
        return _block([line for p in range(_PIECES) for line in statements(p)], indent)

    copy = [f"key = {load}(a + {size} * (past + k))", *decode, f"{store}(target + {size} * k, key)"]
    room = [f"room = min(room, min(left - i{p}, right - (d{p} + k - i{p})))" for p in range(_PIECES)]
    # slots of keys and result | elements of a row | of a run | tiles of a row
    return f"""
def merge_runs(slots, ints, lo, hi):
    n = load(ints + 16)
    run = load(ints + 24)
    tiles = load(ints + 32)
    for t in range(lo, hi):
        row = t // tiles
        out = (t - row * tiles) * {_TILE}
        first = out // (2 * run) * (2 * run)
        left = min(run, n - first)
        right = max(0, min(run, n - first - run))
        past = out - first
        count = min({_TILE}, n - out)
        a = load(slots + 8 * load(ints)) + (row * n + first) * {size}
        b = a + left * {size}
        target = load(slots + 8 * load(ints + 8)) + (row * n + out) * {size}
        if right == 0 or {load}(b - {size}) <= {load}(b):
            for k in range(count):
{_block(copy, 16)}        elif count == {_TILE}:
{of_all(bisected, 12)}            begin = 0
            while begin < {piece}:
                k = begin
                room = {piece} - k
{_block(room, 16)}                if room > 0:
                    for k in range(begin, begin + room):
{of_all(quick, 24)}                    begin += room
                else:
{of_all(careful, 20)}                    begin += 1
        else:
{_block(bisected(0), 12)}            for k in range(count):
{_block(careful(0), 16)}"""


def run_length(n: int, runs: int) -> int:
    """Elements of a run of a row of ``n`` that is sorted in so many."""
    return -(-n // (runs * _TILE)) * _TILE


def sort_runs_step(
    slot_in: int, offset: int, slot_out: int, shape: tuple[int, int], run: int, dtype: np.dtype[Any]
) -> Step:
    """Write the keys of the input to the output, sorted within each run of ``run`` elements of a row.

    Elements are integers or floats of 4 or 8 bytes. Where there is one thread, rows are sorted as a whole, and the
    merges find nothing to do.
    """
    rows, n = shape
    if get_num_threads() == 1:
        run = n
    runs = -(-n // run)
    found = sort_functions(f"int{8 * dtype.itemsize}")
    if found is None:
        given, result = Operand(slot_in, shape, dtype, offset), Operand(slot_out, shape, dtype)
        return host_step(_sorted_keys, [given], [result], "sort")
    ints = [slot_in, slot_out, offset, n, runs, run, found.sort]
    cost = SORT_NANOSECONDS * run * run.bit_length()
    address = compile_runtime_kernel(_sort_source(dtype.kind, dtype.itemsize), "sort_runs").address
    return Step(address, ints, rows * runs, max(1, round(WORTH_A_THREAD / cost)), checks=True)


def _sorted_keys(x: np.ndarray) -> np.ndarray:
    """As `sort_runs_step`, of rows that are one run."""
    size = x.dtype.itemsize
    key = np.sort(x).view(f"i{size}")
    if x.dtype.kind == "u":
        key = key ^ (-_TOP[size] - 1)
    if x.dtype.kind == "f":
        nan = key & _TOP[size] > _INFINITY[size]
        key = np.sort(np.where(nan, _TOP[size], key ^ (key >> (8 * size - 1) & _TOP[size])))
    return key.view(x.dtype)


def merge_step(slot_in: int, slot_out: int, shape: tuple[int, int], run: int, dtype: np.dtype[Any], last: bool) -> Step:
    """Merge each pair of runs of keys of a row into one; ``last``: there is one pair, and elements are made of keys."""
    rows, n = shape
    tiles = -(-n // _TILE)
    ints = [slot_in, slot_out, n, run, tiles]
    address = compile_runtime_kernel(_merge_source(dtype.kind, dtype.itemsize, last), "merge_runs").address
    return Step(address, ints, rows * tiles, 2)
