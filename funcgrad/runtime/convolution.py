"""Convolutions as steps of a program: in registers where that can be done (``direct_convolution``), else on BLAS.

On BLAS, a few positions' patches at a time are gathered into a small matrix and multiplied at once. A matrix of all
patches would be as many times larger than the image as the kernel has elements: most of the time would go into memory.
A tile of it stays in the cache, costs a few per cent of the product, and needs no arrangement of the user's array: what
a position sees is a table of offsets (``runs`` of adjacent elements), and positions are walked along up to four axes
with any strides.

One adapter kernel with the uniform ABI does both products of ``kernels.convolution``. Its parallel axis counts the
*parts* of all groups: tiles where positions are rows of the result, stretches of tiles, each with a partial result of
its own, where they are contracted. Both follow from the shape alone, so a result has the same bits for any number of
threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from math import prod

import numpy as np

from funcgrad.record import record
from funcgrad.runtime.compile import compile_runtime_kernel
from funcgrad.runtime.cython_api import cython_function, libc
from funcgrad.runtime.direct_convolution import advance, block_of, contracting_step, direct_step
from funcgrad.runtime.executor import Step
from funcgrad.runtime.guard import ENTER, LEAVE, single_threaded
from funcgrad.runtime.libraries import GEMM_DTYPES, scalar_words

__all__ = ["Place", "conv_step"]

SHORT_RUN = 64
"""Bytes from which a run is copied by memcpy."""
WORTH_A_THREAD = 200_000
"""Multiply-adds."""

# words: slots of lhs, rhs, out | byte offsets | byte strides per group
_HEAD = 9
# ... then, by name:
_WORDS = (
    "parts", "span", "total", "tile", "guard", "gemm", "malloc", "free", "memcpy", "scratch", "tap_major", "runs",
    "run_bytes", "row_bytes", "size", "e0", "e1", "e2", "s0", "s1", "s2", "s3", "a_position", "c_position", "c_part",
    "trans_a", "trans_b", "m", "n", "n_last", "k", "k_last", "lda", "ldb", "ldc", "alpha", "alpha_", "beta", "beta_",
    "one", "one_",
)  # fmt: skip
_AT = {name: 8 * (_HEAD + i) for i, name in enumerate(_WORDS)}
_TABLE = 8 * (_HEAD + len(_WORDS))


def _copy(indent: int) -> str:
    """``nbytes`` (a multiple of four) from ``source`` to ``target``."""
    lines = f"""
if nbytes >= {SHORT_RUN}:
    call3(memcpy, target, source, nbytes)
else:
    for j in range(nbytes >> 3):
        store(target + 8 * j, load(source + 8 * j))
    if nbytes & 4:
        store_i32(target + nbytes - 4, load_i32(source + nbytes - 4))
"""
    return "\n".join(["    " * indent + line for line in lines.strip().splitlines()]).strip()


def _word(name: str) -> str:
    return f"load(ints + {_AT[name]})"


_LOCALS = (
    "parts", "span", "total", "tile", "guard", "memcpy", "tap_major", "runs", "run_bytes", "row_bytes", "size", "e0",
    "e1", "e2", "s0", "s1", "s2", "s3",
)  # fmt: skip

_CONV = f"""
def conv(slots, ints, lo, hi):
    lhs = load(slots + 8 * load(ints)) + load(ints + 24)
    rhs = load(slots + 8 * load(ints + 8)) + load(ints + 32)
    out = load(slots + 8 * load(ints + 16)) + load(ints + 40)
    {"; ".join([f"{name} = {_word(name)}" for name in _LOCALS])}
    memory = call1({_word("malloc")}, {_word("scratch")} + 64)
    if memory == 0:
        store(slots - 8, 1)
        return
    patches = (memory + 63) & -64{ENTER}
    for number in range(lo, hi):
        group = number // parts
        part = number - group * parts
        first = part * span
        end = min_i64(total, first + span)
        start = first
        while start < end:
            count = min_i64(tile, end - start)
            rest = start // e0
            b0 = start - rest * e0
            b1 = rest % e1
            rest = rest // e1
            b2 = rest % e2
            b3 = rest // e2
            begin = lhs + group * load(ints + 48) + b0 * s0 + b1 * s1 + b2 * s2 + b3 * s3
            if tap_major != 0:
                for tap in range(runs):
                    x = begin + load(ints + {_TABLE} + 8 * tap)
                    target = patches + tap * tile * size
                    i0 = b0
                    i1 = b1
                    i2 = b2
                    left = count
                    while left > 0:
                        width = min_i64(left, e0 - i0)
                        left -= width
                        nbytes = width * size
                        if s0 == size:
                            source = x
                            {_copy(7)}
                        elif size == 4:
                            for j in range(width):
                                store_i32(target + 4 * j, load_i32(x + j * s0))
                        else:
                            for j in range(width):
                                for byte in range(0, size, 8):
                                    store(target + size * j + byte, load(x + j * s0 + byte))
                        target += nbytes
                        x += width * s0
                        i0 += width
                        if i0 == e0:
                            {advance(7)}
            else:
                x = begin
                row = patches
                i0 = b0
                i1 = b1
                i2 = b2
                nbytes = run_bytes
                for position in range(count):
                    for run in range(runs):
                        source = x + load(ints + {_TABLE} + 8 * run)
                        target = row + run * run_bytes
                        {_copy(6)}
                    row += row_bytes
                    x += s0
                    i0 += 1
                    if i0 == e0:
                        {advance(6)}
            last = 8 if count < tile else 0
            beta = {_AT["one"]} if start > first else {_AT["beta"]}
            call13({_word("gemm")}, ints + {_AT["trans_a"]}, ints + {_AT["trans_b"]}, ints + {_AT["m"]},
                   ints + {_AT["n"]} + last, ints + {_AT["k"]} + last, ints + {_AT["alpha"]},
                   rhs + group * load(ints + 56) + start * {_word("a_position")}, ints + {_AT["lda"]},
                   patches, ints + {_AT["ldb"]}, ints + beta,
                   out + group * load(ints + 64) + start * {_word("c_position")} + part * {_word("c_part")},
                   ints + {_AT["ldc"]})
            start += count{LEAVE}
    call1({_word("free")}, memory)
"""


@record(frozen=True)
class Place:
    """An operand in a program's memory: its slot, and where groups begin, in bytes."""

    slot: int
    offset: int
    group_stride: int


@cache
def _address() -> int:
    return compile_runtime_kernel(_CONV, "conv").address


def _tap_table(taps: Sequence[tuple[int, int]], size: int) -> list[int]:
    return [
        sum([i * s for i, (_, s) in zip(place, taps, strict=True)]) * size
        for place in product(*[range(n) for n, _ in taps])
    ]


def _prefers_taps(positions: Sequence[tuple[int, int]], taps: Sequence[tuple[int, int]]) -> bool:
    """Whether elements that are adjacent in memory belong to neighbouring positions rather than taps."""
    along = positions[-1][0] if positions and positions[-1][1] == 1 else 1
    return along > (taps[-1][0] if taps and taps[-1][1] == 1 else 1)


def conv_step(
    dtype: np.dtype, groups: int, positions: Sequence[tuple[int, int]], taps: Sequence[tuple[int, int]], features: int,
    lhs: Place, rhs: Place, out: Place, rhs_rows: int, out_rows: int, tile: int, span: int, contracts: bool,
    part_stride: int,
) -> Step:  # fmt: skip
    """The step that multiplies patches of ``lhs`` with the matrix ``rhs``; see ``kernels.convolution.Patches``.

    ``positions`` (at most four) and ``taps`` are axes, outermost first: extent and stride in elements.

    Raises:
        ValueError: if there are too many axes, or counts that BLAS cannot take.
    """
    size = dtype.itemsize
    if len(positions) > 4:
        raise ValueError(f"conv_step: positions along {len(positions)} axes; at most four are walked")
    total = prod([n for n, _ in positions])
    columns = prod([n for n, _ in taps])
    if max(tile, columns, features, rhs_rows, out_rows) >= 2**31:
        raise ValueError(f"conv_step: BLAS counts in 32 bits, which {columns} taps and {features} features do not fit")
    parts = -(-total // span)
    tail = total % tile or tile
    walk = [(1, 0)] * (4 - len(positions)) + [(n, s * size) for n, s in positions]
    block = block_of(dtype, total, columns, features, contracts)
    operands = [(x.slot, x.offset, x.group_stride) for x in (lhs, rhs, out)]
    if block is not None and contracts:
        return contracting_step(
            dtype, groups, walk, total, _tap_table(taps, size), features, operands, rhs_rows * size, out_rows * size,
            part_stride * size, span, block,
        )  # fmt: skip
    tap_major = block is None and _prefers_taps(positions, taps)
    whole = not tap_major and bool(taps) and taps[-1][1] == 1
    table, run = _tap_table(taps[:-1] if whole else taps, size), taps[-1][0] if whole else 1
    if block is not None:
        return direct_step(
            dtype, groups, walk, total, table, run, features, operands, rhs_rows * size, out_rows * size, tile, block
        )
    (_, s3), (e2, s2), (e1, s1), (e0, s0) = walk
    guard = single_threaded()
    words = {
        "parts": parts, "span": span, "total": total, "tile": tile, "guard": guard,
        "gemm": cython_function("cython_blas", GEMM_DTYPES[dtype] + "gemm"), **libc(),
        "scratch": tile * columns * size, "tap_major": int(tap_major), "runs": len(table), "run_bytes": run * size,
        "row_bytes": columns * size, "size": size, "e0": e0, "e1": e1, "e2": e2, "s0": s0, "s1": s1,
        "s2": s2, "s3": s3, "a_position": rhs_rows * size if contracts else 0,
        "c_position": 0 if contracts else out_rows * size, "c_part": part_stride * size, "trans_a": ord("N"),
        "trans_b": ord("T" if contracts != tap_major else "N"), "m": features,
        "n": columns if contracts else tile, "n_last": columns if contracts else tail,
        "k": tile if contracts else columns, "k_last": tail if contracts else columns,
        "lda": max(rhs_rows, 1), "ldb": tile if tap_major else columns, "ldc": max(out_rows, 1),
    }  # fmt: skip
    for name, value in (("alpha", 1), ("beta", 0), ("one", 1)):
        words[name], words[f"{name}_"] = scalar_words(value, dtype)
    ints = [
        lhs.slot, rhs.slot, out.slot, lhs.offset, rhs.offset, out.offset, lhs.group_stride, rhs.group_stride,
        out.group_stride, *[words[name] for name in _WORDS], *table,
    ]  # fmt: skip
    work = columns * features * span * (4 if dtype.kind == "c" else 1)
    grain = max(1, WORTH_A_THREAD // work) if guard and groups * parts > 1 else 0
    return Step(_address(), ints, groups * parts, grain, checks=True)
