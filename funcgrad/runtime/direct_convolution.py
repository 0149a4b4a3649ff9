"""Convolutions without BLAS: a block of results in registers, operands read where they lie.

Where the CPU has registers of 512 bits, a block of ``rows`` positions times ``columns`` features fits into them, and
the plain loop over taps, each a multiply-add of one element of the image with a row of the kernel, runs at nearly what
the multipliers give: 240 GFLOP/s of float32 on one thread of a Zen 5, where OpenBLAS gives 170 on patches that have to
be gathered for it first (and 100, where it takes the CPU for an older one). Nothing is gathered here.

The text holds the sizes of the block, so that LLVM unrolls the loops over features and keeps the sums in registers. The
last block begins early enough to be whole; what the one before has done is not stored again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from funcgrad.runtime.compile import compile_runtime_kernel
from funcgrad.runtime.executor import Step
from funcgrad.runtime.target import wide

__all__ = ["advance", "block_of", "contracting_source", "contracting_step", "direct_source", "direct_step"]

KINDS = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64"}
REGISTER_BYTES = 64
BLOCKS = ((4, 6), (2, 8), (1, 14))
"""Registers of features and rows of positions in a block, the best first, by measurement."""
CHUNK_BYTES = 128 << 10
"""What the taps of one block of features may take that are summed up before the next ones: each block of positions
reads them, out of the second-level cache."""
MOST_POSITIONS = 504
"""Of a tile; a multiple of the rows of every block."""
LEAST_ROWS = 4
"""Below so many, a multiply-add waits for the one before it."""
FEW_TAPS = 16
"""Below so many, a block's sums are over before its addresses are worked out."""
CONTRACTED_BYTES = 256 << 10
"""What the rows of ``rhs`` may take that are contracted before the next tile of them: each block of taps reads them."""
WORTH_A_THREAD = 200_000
"""Multiply-adds."""

# words: slots of lhs, rhs, out | byte offsets | byte strides per group | ...
_NAMES = (
    "parts", "tile", "total", "runs", "run", "together", "features", "kernel_row", "out_row", "e0", "e1", "e2", "s0",
    "s1", "s2", "s3",
)  # fmt: skip
_CONTRACTING = (
    "parts", "span", "tile", "total", "taps", "features", "rhs_row", "out_row", "out_part", "e0", "e1", "e2", "s0",
    "s1", "s2", "s3",
)  # fmt: skip
_AT = {name: 8 * (9 + i) for i, name in enumerate(_NAMES)}
_TABLE = 8 * (9 + len(_NAMES))


def advance(indent: int) -> str:
    """The next value of the second digit, once the first has come to its end."""
    lines = """
i0 = 0
x += s1 - e0 * s0
i1 += 1
if i1 == e1:
    i1 = 0
    x += s2 - e1 * s1
    i2 += 1
    if i2 == e2:
        i2 = 0
        x += s3 - e2 * s2
"""
    return "\n".join(["    " * indent + line for line in lines.strip().splitlines()]).strip()


def block_of(dtype: np.dtype[Any], total: int, taps: int, features: int, contracts: bool) -> tuple[int, int] | None:
    """Rows and columns of the blocks for this convolution; None if it is better left to BLAS."""
    if dtype not in KINDS or not wide():
        return None
    for registers, rows in BLOCKS:
        columns = registers * REGISTER_BYTES // dtype.itemsize
        if features % columns:
            continue
        if contracts and taps >= LEAST_ROWS:
            return _fitting(rows, taps), columns
        if not contracts and total >= rows and taps >= FEW_TAPS:
            return rows, columns
    return None


def _fitting(rows: int, taps: int) -> int:
    """At most ``rows``, fewer where the last block of taps would repeat more than an eighth of them."""
    if 8 * (-(-taps // rows) * rows) <= 9 * taps:
        return rows
    return min(range(min(rows, taps), LEAST_ROWS - 1, -1), key=lambda n: -(-taps // n) * n)


def _stored(kind: str, r: int, columns: int) -> list[str]:
    """Row ``r`` of a block into the result, unless the block before has done it."""
    move = f"store_{kind}(y{r}, f + j, 2, load_{kind}(a{r}, j, {3 + r}))"
    return [f"if done <= {r}:", f"    for j in range({columns}):", f"        {move}"]


def direct_source(kind: str, rows: int, columns: int) -> str:
    """A block is ``rows`` positions times ``columns`` features; the loop runs over taps."""
    size = 4 if kind == "f32" else 8
    each = range(rows)

    def lines(indent: int, *texts: str) -> str:
        return "\n".join([" " * indent + text for text in texts])

    return f"""
def conv(slots, ints, lo, hi):
    lhs = load(slots + 8 * load(ints)) + load(ints + 24)
    rhs = load(slots + 8 * load(ints + 8)) + load(ints + 32)
    out = load(slots + 8 * load(ints + 16)) + load(ints + 40)
{lines(4, *[f"{name} = load(ints + {at})" for name, at in _AT.items()])}
    places = stack({8 * MOST_POSITIONS})
{lines(4, *[f"a{r} = stack({columns * size})" for r in each])}
    for number in range(lo, hi):
        group = number // parts
        first = (number - group * parts) * tile
        end = min_i64(first + tile, total)
        base = lhs + group * load(ints + 48)
        kernel = rhs + group * load(ints + 56)
        results = out + group * load(ints + 64)
        place = places
        for begin in range(first, end, {rows}):
            p = min_i64(begin, total - {rows})
            rest = p // e0
            i0 = p - rest * e0
            i1 = rest % e1
            rest = rest // e1
            i2 = rest % e2
            x = base + i0 * s0 + i1 * s1 + i2 * s2 + (rest // e2) * s3
            for r in range({rows}):
                store(place, x)
                place += 8
                x += s0
                i0 += 1
                if i0 == e0:
                    {advance(5)}
        for f in range(0, features, {columns}):
            chunk = 0
            while chunk < runs:
                last = min_i64(chunk + together, runs)
                place = places
                for begin in range(first, end, {rows}):
                    p = min_i64(begin, total - {rows})
                    done = begin - p
{lines(20, *[f"x{r} = load(place + {8 * r})" for r in each])}
{lines(20, *[f"y{r} = results + (p + {r}) * out_row" for r in each])}
                    place += {8 * rows}
                    if chunk > 0:
                        for j in range({columns}):
{lines(28, *[f"store_{kind}(a{r}, j, {3 + r}, load_{kind}(y{r}, f + j, 2))" for r in each])}
                    else:
                        for j in range({columns}):
{lines(28, *[f"store_{kind}(a{r}, j, {3 + r}, {kind}(0.0))" for r in each])}
                    row = kernel + f * {size} + chunk * run * kernel_row
                    for t in range(chunk, last):
                        offset = load(ints + {_TABLE} + 8 * t)
                        for c in range(run):
{lines(28, *[f"v{r} = load_{kind}(x{r} + offset, c, 0)" for r in each])}
                            for j in range({columns}):
                                w = load_{kind}(row, j, 1)
{lines(32, *[f"store_{kind}(a{r}, j, {3 + r}, fma_{kind}(v{r}, w, load_{kind}(a{r}, j, {3 + r})))" for r in each])}
                            row += kernel_row
{lines(20, *[text for r in each for text in _stored(kind, r, columns)])}
                chunk = last
"""


def contracting_source(kind: str, rows: int, columns: int) -> str:
    """A block is ``rows`` taps times ``columns`` features; the loop runs over positions. Taps of the last block that
    the one before has done are not stored again."""
    size = 4 if kind == "f32" else 8
    each = range(rows)
    table = 8 * (9 + len(_CONTRACTING))

    def lines(indent: int, *texts: str) -> str:
        return "\n".join([" " * indent + text for text in texts])

    return f"""
def conv(slots, ints, lo, hi):
    lhs = load(slots + 8 * load(ints)) + load(ints + 24)
    rhs = load(slots + 8 * load(ints + 8)) + load(ints + 32)
    out = load(slots + 8 * load(ints + 16)) + load(ints + 40)
{lines(4, *[f"{name} = load(ints + {8 * (9 + i)})" for i, name in enumerate(_CONTRACTING)])}
{lines(4, *[f"a{r} = stack({columns * size})" for r in each])}
    for number in range(lo, hi):
        group = number // parts
        part = number - group * parts
        first = part * span
        end = min_i64(first + span, total)
        matrix = rhs + group * load(ints + 56)
        results = out + group * load(ints + 64) + part * out_part
        start = first
        while start < end:
            count = min_i64(tile, end - start)
            rest = start // e0
            b0 = start - rest * e0
            b1 = rest % e1
            rest = rest // e1
            b2 = rest % e2
            begin = lhs + group * load(ints + 48) + b0 * s0 + b1 * s1 + b2 * s2 + (rest // e2) * s3
            for block in range(0, taps, {rows}):
                tap = min_i64(block, taps - {rows})
                done = block - tap
{lines(16, *[f"o{r} = load(ints + {table + 8 * r} + 8 * tap)" for r in each])}
{lines(16, *[f"y{r} = results + (tap + {r}) * out_row" for r in each])}
                for f in range(0, features, {columns}):
                    if start > first:
                        for j in range({columns}):
{lines(28, *[f"store_{kind}(a{r}, j, {3 + r}, load_{kind}(y{r}, f + j, 2))" for r in each])}
                    else:
                        for j in range({columns}):
{lines(28, *[f"store_{kind}(a{r}, j, {3 + r}, {kind}(0.0))" for r in each])}
                    row = matrix + start * rhs_row + f * {size}
                    x = begin
                    i0 = b0
                    i1 = b1
                    i2 = b2
                    left = count
                    while left > 0:
                        width = min_i64(left, e0 - i0)
                        left -= width
                        for c in range(width):
{lines(28, *[f"v{r} = load_{kind}(x + o{r}, 0, 0)" for r in each])}
                            for j in range({columns}):
                                w = load_{kind}(row, j, 1)
{lines(32, *[f"store_{kind}(a{r}, j, {3 + r}, fma_{kind}(v{r}, w, load_{kind}(a{r}, j, {3 + r})))" for r in each])}
                            row += rhs_row
                            x += s0
                        i0 += width
                        if i0 == e0:
                            {advance(7)}
{lines(20, *[text for r in each for text in _stored(kind, r, columns)])}
            start += count
"""


def contracting_step(
    dtype: np.dtype[Any], groups: int, walk: Sequence[tuple[int, int]], total: int, table: Sequence[int],
    features: int, operands: Sequence[tuple[int, int, int]], rhs_row: int, out_row: int, out_part: int, span: int,
    block: tuple[int, int],
) -> Step:  # fmt: skip
    """The step that computes, for each part of ``span`` positions, ``out = patches.T @ rhs[positions]``.

    Operands as in :func:`direct_step`; ``table``: a byte offset for every tap.
    """
    parts = -(-total // span)
    tile = max(64, min(1024, CONTRACTED_BYTES // (features * dtype.itemsize)))
    (_, s3), (e2, s2), (e1, s1), (e0, s0) = walk
    words = {
        "parts": parts, "span": span, "tile": tile, "total": total, "taps": len(table), "features": features,
        "rhs_row": rhs_row, "out_row": out_row, "out_part": out_part, "e0": e0, "e1": e1, "e2": e2, "s0": s0,
        "s1": s1, "s2": s2, "s3": s3,
    }  # fmt: skip
    ints = [*[x[k] for k in range(3) for x in operands], *[words[name] for name in _CONTRACTING], *table]
    grain = max(1, WORTH_A_THREAD // (len(table) * features * span)) if groups * parts > 1 else 0
    return Step(_contracting_address(KINDS[dtype], *block), ints, groups * parts, grain)


@cache
def _contracting_address(kind: str, rows: int, columns: int) -> int:
    return compile_runtime_kernel(contracting_source(kind, rows, columns), "conv").address


def direct_step(
    dtype: np.dtype[Any], groups: int, walk: Sequence[tuple[int, int]], total: int, table: Sequence[int], run: int,
    features: int, operands: Sequence[tuple[int, int, int]], kernel_row: int, out_row: int, tile: int,
    block: tuple[int, int],
) -> Step:  # fmt: skip
    """The step that computes ``out[positions] = patches @ rhs``.

    ``walk``: extents and byte strides of positions along exactly four axes, outermost first; ``table``: byte offsets of
    runs of ``run`` adjacent taps; ``operands``: slot, byte offset and byte stride per group of ``lhs``, ``rhs`` and
    the result; row strides in bytes; ``block`` from :func:`block_of`.
    """
    rows, columns = block
    tile = min(MOST_POSITIONS, -(-tile // rows) * rows)
    row_bytes = columns * dtype.itemsize
    piece = max([n for n in range(1, run + 1) if run % n == 0 and n * row_bytes <= CHUNK_BYTES])
    table = [at + k * dtype.itemsize for at in table for k in range(0, run, piece)]
    run, together = piece, max(1, CHUNK_BYTES // (piece * row_bytes))
    parts = -(-total // tile)
    (_, s3), (e2, s2), (e1, s1), (e0, s0) = walk
    words = {
        "parts": parts, "tile": tile, "total": total, "runs": len(table), "run": run, "together": together,
        "features": features,
        "kernel_row": kernel_row, "out_row": out_row, "e0": e0, "e1": e1, "e2": e2, "s0": s0, "s1": s1, "s2": s2,
        "s3": s3,
    }  # fmt: skip
    ints = [*[x[k] for k in range(3) for x in operands], *[words[name] for name in _NAMES], *table]
    work = len(table) * run * features * tile
    grain = max(1, WORTH_A_THREAD // work) if groups * parts > 1 else 0
    return Step(_address(KINDS[dtype], rows, columns), ints, groups * parts, grain)


@cache
def _address(kind: str, rows: int, columns: int) -> int:
    return compile_runtime_kernel(direct_source(kind, rows, columns), "conv").address
