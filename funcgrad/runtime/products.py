"""Matrix products of our own, where registers have 512 bits: a block of C in registers, operands read where they lie.

A block is 6 rows of 4 registers (or another of ``SHAPES``): each step of the sum loads one row of B into registers and
multiplies it with 6 elements of A, which the multiply-add reads from memory itself. On a Zen 5 that is 126 of the 140
GFLOP/s that one thread has in float64; OpenBLAS gives 105, and 90 for matrices of order 128, which it packs first.
Nothing is packed here as long as it is small and stored by rows. Of a B that does not fit into the second-level cache,
and of a B or a large A stored by columns, each tile copies what it is about to multiply into rows of its own.

C is cut into tiles, the step's parallel axis. An element of C is the sum, in order, of sums over ``DEPTH`` products,
each a chain of fused multiply-adds, wherever it lies in a tile: so results depend neither on the tiles nor on the
number of threads, and tiles may be as small as sharing them evenly asks for, on a machine where others work too.

Sizes are data: one adapter for all products, one piece of machine code for each shape of block.
"""

from __future__ import annotations

import os
from functools import cache
from math import lcm
from typing import Any

import numpy as np

from funcgrad.record import record
from funcgrad.runtime.compile import compile_runtime, compile_vectors
from funcgrad.runtime.cython_api import libc
from funcgrad.runtime.executor import Step
from funcgrad.runtime.target import wide

__all__ = ["Operand", "product_step", "suits"]

KINDS = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64"}
REGISTER_BYTES = 64
SHAPES = {4: (6, 1.0), 3: (8, 1.05), 2: (12, 1.04), 1: (14, 1.3)}
"""Registers in a row of a block: its rows, and the time of a multiply-add, by measurement."""
DEPTH = 256
"""Products in a sum before it is added to C: a panel of B of this depth stays in the first-level cache."""

ROWS, MOST_ROWS = 12, 96
"""Rows of a tile, at least and at most."""
PACKING_ROWS = 192
"""At most, where each tile packs B."""
COLUMNS = 512
"""Of a tile, where B is too large for the second-level cache."""
IN_CACHE = 2 << 20
"""Bytes of B up to which tiles take whole rows of it."""
LARGE, LARGE_ROWS = 1 << 20, 48
"""Bytes of B beyond which, and rows of A from which, it pays to pack a B that is stored by rows."""
TURNED = 256 << 10
"""Bytes of A from which it pays to turn it, if it is stored by columns."""
LINE = 64

LEAST_USE = 0.6
"""Of a block's registers, by what is asked for."""
BLAS_SMALL = 100**3
"""Multiply-adds up to which OpenBLAS does not pack either, and is as quick."""
IN_MEMORY = 16 << 20
"""Bytes of B that no cache holds: with few rows of A, the product is as quick as they are read in order."""
TILE_WORK = 100_000
"""Multiply-adds that are worth fetching by a thread that works already."""
TILES = max(16, 4 * (os.cpu_count() or 1))
"""That are enough to share them evenly."""


@record(frozen=True, slots=True)
class Operand:
    """Matrices in a program's memory: slot, byte offset, byte strides from matrix to matrix, row to row, and element to
    element."""

    slot: int
    offset: int
    batch: int
    down: int
    right: int


# -- machine code

_STRIPS = """
def strips(a, a_row, a_next, b, b_next, c, c_row, depth, rows, columns, adds):
    for row in range(0, rows, HEIGHT):
        multiply_KIND(a, a_row, a_next, b, b_next, c, c_row, depth, min_i64(rows - row, HEIGHT), columns, adds,
                      HEIGHT, WIDTH, LANES)
        a += HEIGHT * a_row
        c += HEIGHT * c_row
"""

# slots of A, B, C | byte offsets | ...; then for each panel of a tile, and again for each of the last tile of a row:
# its first column, columns and the address of `strips`
_WORDS = (
    "tiles", "down", "m", "k", "height", "a_batch", "a_row", "a_next", "b_batch", "b_tile", "b_next", "b_column",
    "c_batch", "c_row", "c_tile", "size", "panels", "last_panels", "memory", "malloc", "free", "turn", "turned_row",
    "turns", "pack", "packed_row", "packs",
)  # fmt: skip
_TABLE = 8 * (6 + len(_WORDS))

_PRODUCT = f"""
def product(slots, ints, lo, hi):
    {"; ".join([f"{name} = load(ints + {8 * (6 + i)})" for i, name in enumerate(_WORDS)])}
    block = 0
    if memory > 0:
        block = call1(malloc, memory)
        if block == 0:
            fail(slots)
            return
    packed = (block + 63) & -64
    turned = packed + {DEPTH} * packed_row
    for number in range(lo, hi):
        i = number // tiles
        t = number - i * tiles
        across = t // down
        row = (t - across * down) * height
        rows = min(height, m - row)
        panel = ints + {_TABLE}
        count = panels
        if t >= tiles - down:
            panel += 24 * panels
            count = last_panels
        a = load(slots + 8 * load(ints)) + load(ints + 24) + i * a_batch + row * a_row
        b = load(slots + 8 * load(ints + 8)) + load(ints + 32) + i * b_batch + across * b_tile
        c = load(slots + 8 * load(ints + 16)) + load(ints + 40) + i * c_batch + row * c_row + across * c_tile
        start = 0
        while start < k:
            depth = min({DEPTH}, k - start)
            left = a
            left_row = a_row
            left_next = a_next
            if turn != 0:
                j = 0
                while j < depth:
                    call7(turn, a + j * a_next, a_row, a_next, turned + j * size, turned_row, rows,
                          min(turns, depth - j))
                    j += turns
                left = turned
                left_row = turned_row
                left_next = size
            for p in range(panel, panel + 24 * count, 24):
                first = load(p)
                columns = load(p + 8)
                right = b + first * b_column
                right_next = b_next
                if pack != 0:
                    j = 0
                    while j < columns:
                        call7(pack, right + j * b_column, b_next, b_column, packed + j * size, packed_row, depth,
                              min(packs, columns - j))
                        j += packs
                    right = packed
                    right_next = packed_row
                call11(load(p + 16), left, left_row, left_next, right, right_next, c + first * size, c_row, depth, rows,
                       columns, start)
            a += depth * a_next
            b += depth * b_next
            start += depth
    if memory > 0:
        call1(free, block)
"""
_LINES = """
def lines(source, row, column, target, to_row, count, columns):
    pack_lines_KIND(source, row, target, to_row, count, columns, 4, LANES)
"""
_TURNED = """
def turned(source, row, column, target, to_row, count, columns):
    pack_turned_KIND(source, column, target, to_row, count, columns, LANES)
"""
_TURNED_LANES = 8
"""The elements to a side of the squares that are transposed in registers."""


def _lanes(kind: str) -> int:
    return REGISTER_BYTES // _size(kind)


def _size(kind: str) -> int:
    return 4 if kind == "f32" else 8


def _filled(text: str, **words: object) -> str:
    for name, value in words.items():
        text = text.replace(name, str(value))
    return text


@cache
def _strips(kind: str, width: int) -> int:
    text = _filled(_STRIPS, KIND=kind, HEIGHT=SHAPES[width][0], WIDTH=width, LANES=_lanes(kind))
    return compile_vectors(text, "strips", 11)


@cache
def _move(kind: str, turned: bool) -> tuple[int, int]:
    """Machine code that packs some columns, and how many at most."""
    if turned:
        return compile_vectors(_filled(_TURNED, KIND=kind, LANES=_TURNED_LANES), "turned", 7), _TURNED_LANES
    return compile_vectors(_filled(_LINES, KIND=kind, LANES=_lanes(kind)), "lines", 7), 4 * _lanes(kind)


@cache
def _product() -> int:
    return compile_runtime(_PRODUCT, "product", 4, returns=False)


# -- what is done where


def suits(dtype: np.dtype[Any], m: int, n: int, k: int) -> bool:
    """Whether a product of m times k and k times n is done here, rather than by BLAS (which is level with us in float32
    where B comes from memory, and nearer to what the multipliers give: there is less to gain)."""
    if dtype not in KINDS or not wide() or m * n * k <= BLAS_SMALL:
        return False
    if dtype.itemsize == 4 and n * k * dtype.itemsize > IN_CACHE:
        return False
    if m < MOST_ROWS and n * k * dtype.itemsize > IN_MEMORY:
        return False
    _, cost = _panels(-(-n // _lanes(KINDS[dtype])), m)
    return m * n >= LEAST_USE * cost * _lanes(KINDS[dtype])


@cache
def _panels(registers: int, rows: int) -> tuple[tuple[int, ...], float]:
    """The widths of panels, in registers, for a row of so many, and what they cost: the cheapest for these rows."""
    whole = max(0, (registers - 12) // 4)  # beyond, the widest ones
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    cost = {w: -(-rows // h) * h * w * time for w, (h, time) in SHAPES.items()}
    for r in range(1, registers - 4 * whole + 1):
        best.append(min([(best[r - w][0] + cost[w], (*best[r - w][1], w)) for w in SHAPES if w <= r]))
    found, widths = best[-1]
    return (*[4] * whole, *sorted(widths, reverse=True)), found + whole * cost[4]


def _tiles(dtype: np.dtype[Any], batch: int, m: int, n: int, k: int, packs: bool) -> tuple[int, int]:
    """Rows and columns of a tile. Where B is packed, it is better cut along its columns."""
    size, lanes = dtype.itemsize, _lanes(KINDS[dtype])
    across = -(-n // COLUMNS) if n * k * size > IN_CACHE else 1
    wanted = max(1, -(-min(TILES, batch * m * n * k // TILE_WORK) // batch))
    unit = lcm(*[SHAPES[w][0] for w in _panels(-(-n // (across * lanes)), m)[0]])
    if packs:
        height = -(-m // -(-m // PACKING_ROWS))
    else:
        height = min(max(-(-m * across // wanted), ROWS), MOST_ROWS)
    height = min(-(-height // unit) * unit, m)
    across = max(across, min(-(-wanted // -(-m // height)), n // (4 * lanes)))
    return height, min(n, -(-n // (across * 4 * lanes)) * 4 * lanes)


def product_step(
    dtype: np.dtype[Any], batch: int, shape: tuple[int, int, int], a: Operand, b: Operand, c: Operand
) -> Step | None:
    """The step ``C = A B`` for each of a batch of matrices; ``shape``: (m, n, k). C is stored by rows, B by rows or by
    columns, A anyhow. None where BLAS is the better choice."""
    if not suits(dtype, *shape):
        return None
    (m, n, k), size, kind = shape, dtype.itemsize, KINDS[dtype]
    by_columns = b.right != size
    packs = by_columns or (n * k * size > LARGE and m >= LARGE_ROWS)
    turned = a.right != size and a.down == size and m * k * size > TURNED
    height, width = _tiles(dtype, batch, m, n, k, packs)
    down, across = -(-m // height), -(-n // width)
    turn, turns = _move(kind, True) if turned else (0, 1)
    pack, step = _move(kind, by_columns) if packs else (0, 1)
    turned_row, packed_row = (DEPTH * size + LINE if turn else 0), (4 * REGISTER_BYTES if pack else 0)
    memory = height * turned_row + DEPTH * packed_row
    panels = [_table(kind, columns, height) for columns in (width, n - (across - 1) * width)]
    words = {
        "tiles": down * across, "down": down, "m": m, "k": k, "height": height, "a_batch": a.batch, "a_row": a.down,
        "a_next": a.right, "b_batch": b.batch, "b_tile": width * b.right, "b_next": b.down, "b_column": b.right,
        "c_batch": c.batch, "c_row": c.down, "c_tile": width * size, "size": size, "panels": len(panels[0]) // 3,
        "last_panels": len(panels[1]) // 3, "memory": memory + LINE if memory else 0, **libc(), "turn": turn,
        "turned_row": turned_row, "turns": turns, "pack": pack, "packed_row": packed_row, "packs": step,
    }  # fmt: skip
    ints = [
        a.slot, b.slot, c.slot, a.offset, b.offset, c.offset, *[words[name] for name in _WORDS], *panels[0], *panels[1]
    ]  # fmt: skip
    tiles = batch * down * across
    grain = max(1, TILE_WORK * down * across // (m * n * k)) if tiles > 1 else 0
    return Step(_product(), ints, tiles, grain, checks=memory > 0)


def _table(kind: str, columns: int, rows: int) -> list[int]:
    """First column, columns and machine code of each panel of a tile."""
    lanes, first, found = _lanes(kind), 0, list[int]()
    for width in _panels(-(-columns // lanes), rows)[0]:
        found += [first, min(width * lanes, columns - first), _strips(kind, width)]
        first += width * lanes
    return found
