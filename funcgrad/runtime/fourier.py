"""Fourier transforms along one axis as steps of a native program: by our own (see ``lanes``) or by NumPy's pocketfft.

The latter does real transforms, lengths with a prime factor beyond 13, and batches of fewer transforms than a register
has lanes.

A *pass* is a batch of transforms: ``outer`` times ``inner`` of them, each over elements ``step`` bytes apart. Where
the batch is one stack of rows (``inner`` is 1), pocketfft reads and writes the rows where they are. Where neighbours
in memory belong to different transforms (the axis is not the last one), some neighbouring columns are gathered
into rows, transformed there, and put back: every cache line is read and written once, where taking column by column
reads a line for each element. Unless the lines of one column stay in the cache for the next: then pocketfft may as
well do that.

The batch is the step's parallel axis. A transform is done by one thread, always by the same sequence of operations,
so results do not depend on the number of threads. Small transforms call pocketfft directly; where its loops cannot be
had, and for the few transforms so long that pocketfft might find no memory, a host step calls ``np.fft``.
"""

from __future__ import annotations

import ctypes
import math
import os
from functools import cache
from typing import Any

import numpy as np

from funcgrad.kernels.fourier_plan import FourierPass
from funcgrad.runtime.compile import compile_runtime, compile_runtime_kernel
from funcgrad.runtime.executor import Step
from funcgrad.runtime.host import Operand, host_step
from funcgrad.runtime.lanes import lane_step
from funcgrad.runtime.numpy_loops import fft_loop

__all__ = ["fft_step"]

# Neighbours that are read and written together, by measurement (1024 x 1024 complex128, one thread: 64 bytes 9.2 ms,
# 128 6.6, 256 6.4, 512 5.7; NumPy 9.8); fewer where the gathered rows would not stay in a cache.
TILE_BYTES_MOST, TILE_BYTES_LEAST, SCRATCH_BYTES = 512, 128, 1 << 20
PADDING = 64  # bytes between gathered rows: lengths are powers of two, and such strides share few places of a cache
_LONGEST = 1 << 22  # elements; pocketfft's failure to get memory can be reported through Python only
_NANOSECONDS = 0.4  # per element and binary digit of the length
_WORTH_A_THREAD = 15_000  # nanoseconds

# slots of the input and the output | byte offset of the input | loop | its data | malloc | free | factor | 0 |
# byte strides: outer in, outer out, element in, element out | elements in, out | inner | byte stride inner in | tile |
# byte stride inner out
_ROWS = """
def fft_rows(slots, ints, lo, hi):
    block = call1(load(ints + 40), 88)
    if block == 0:
        store(slots - 8, 1)
    else:
        store(block, load(slots + 8 * load(ints)) + load(ints + 16) + lo * load(ints + 72))
        store(block + 8, ints + 56)
        store(block + 16, load(slots + 8 * load(ints + 8)) + lo * load(ints + 80))
        store(block + 24, hi - lo)
        store(block + 32, load(ints + 104))
        store(block + 40, load(ints + 112))
        store(block + 48, load(ints + 72))
        store(block + 56, 0)
        store(block + 64, load(ints + 80))
        store(block + 72, load(ints + 88))
        store(block + 80, load(ints + 96))
        call_kernel(load(ints + 24), block, block + 24, block + 48, load(ints + 32))
        call1(load(ints + 48), block)
"""


# Some columns at once, where they are.
_STRIDED = """
def fft_strided(slots, ints, lo, hi):
    source = load(slots + 8 * load(ints)) + load(ints + 16)
    target = load(slots + 8 * load(ints + 8))
    inner = load(ints + 120)
    tile = load(ints + 136)
    tiles = (inner + tile - 1) // tile
    block = call1(load(ints + 40), 88)
    if block == 0:
        store(slots - 8, 1)
    else:
        store(block + 8, ints + 56)
        store(block + 32, load(ints + 104))
        store(block + 40, load(ints + 112))
        store(block + 48, load(ints + 128))
        store(block + 56, 0)
        store(block + 64, load(ints + 144))
        store(block + 72, load(ints + 88))
        store(block + 80, load(ints + 96))
        for t in range(lo, hi):
            i = t // tiles
            j = (t - i * tiles) * tile
            store(block, source + i * load(ints + 72) + j * load(ints + 128))
            store(block + 16, target + i * load(ints + 80) + j * load(ints + 144))
            store(block + 24, min(inner - j, tile))
            call_kernel(load(ints + 24), block, block + 24, block + 48, load(ints + 32))
        call1(load(ints + 48), block)
"""


def _stays_in_cache(n: int, step_bytes: int) -> bool:
    """Whether the cache lines that a column touches are still there for the next column: they are few, and do not
    share a few places only, as at strides of powers of two."""
    lines = abs(step_bytes) // 64
    places = 64 // math.gcd(lines, 64) if lines else 64
    return n <= min(16 * places, 512)


def _tile(row_bytes: int, element_bytes: int, inner: int) -> int:
    """How many columns to take at once."""
    fits = SCRATCH_BYTES // row_bytes * element_bytes
    shared = inner // 8 * element_bytes  # there should be some tiles for each thread
    return min(inner, max(TILE_BYTES_LEAST, min(TILE_BYTES_MOST, fits, shared)) // element_bytes)


def _copy(size: int, target: str, source: str) -> str:
    """One element from one address to another, as lines of the innermost loop below."""
    if size == 4:
        return f"store_i32({target}, load_i32({source}))"
    moves = [f"store({target} + {k}, load({source} + {k}))" for k in range(0, size, 8)]
    return f"\n{' ' * 20}".join(moves)


def _columns(size_in: int, size_out: int) -> str:
    """The adapter for elements of these sizes; a transform whose elements keep their size is done in place."""
    room = int(size_in != size_out)  # rows apart from those of the result
    gather = _copy(size_in, f"into + c * row_in + k * {size_in}", "at + k * step_in + c * side_in")
    scatter = _copy(size_out, f"at + k * step_out + c * {size_out}", f"out + c * row_out + k * {size_out}")
    return f"""
def fft_columns(slots, ints, lo, hi):
    source = load(slots + 8 * load(ints)) + load(ints + 16)
    target = load(slots + 8 * load(ints + 8))
    n_in = load(ints + 104)
    n_out = load(ints + 112)
    inner = load(ints + 120)
    outer_in = load(ints + 72)
    outer_out = load(ints + 80)
    step_in = load(ints + 88)
    step_out = load(ints + 96)
    side_in = load(ints + 128)
    row_in = n_in * {size_in} + {PADDING}
    row_out = n_out * {size_out} + {PADDING}
    loop = load(ints + 24)
    data = load(ints + 32)
    tile = load(ints + 136)
    tiles = (inner + tile - 1) // tile
    block = call1(load(ints + 40), 152 + tile * (row_in * {room} + row_out))
    if block == 0:
        store(slots - 8, 1)
    else:
        into = (block + 151) & -64
        out = into + tile * row_in * {room}
        store(block, into)
        store(block + 8, ints + 56)
        store(block + 16, out)
        store(block + 32, n_in)
        store(block + 40, n_out)
        store(block + 48, row_in)
        store(block + 56, 0)
        store(block + 64, row_out)
        store(block + 72, {size_in})
        store(block + 80, {size_out})
        for t in range(lo, hi):
            i = t // tiles
            j = (t - i * tiles) * tile
            width = min(inner - j, tile)
            store(block + 24, width)
            at = source + i * outer_in + j * side_in
            for k in range(n_in):
                for c in range(width):
                    {gather}
            call_kernel(loop, block, block + 24, block + 48, data)
            at = target + i * outer_out + j * {size_out}
            for k in range(n_out):
                for c in range(width):
                    {scatter}
        call1(load(ints + 48), block)
"""


def fft_step(
    work: FourierPass, dtype_in: np.dtype[Any], dtype_out: np.dtype[Any], slot_in: int, slot_out: int, offset: int
) -> Step:
    """The step that writes all of slot ``slot_out``. ``offset``: where the input begins in its slot, in bytes."""
    size_in, size_out = dtype_in.itemsize, dtype_out.itemsize
    real = np.dtype(np.float64 if max(size_in, size_out) == 16 else np.float32)
    own = lane_step(work, real, slot_in, slot_out, offset)
    if own is not None:
        return own
    assert not work.weights, "a pass with factors for its results is one of our own"
    suffix = f"_n_{'odd' if work.n % 2 else 'even'}" if work.kind == "RFFT" else ""
    allocator = malloc_and_free()
    loop = fft_loop(work.kind.lower() + suffix, real.name) if work.n <= _LONGEST else None
    source = (work.outer, work.inner, work.counts[0]), tuple([s * size_in for s in work.strides_in])
    target = (work.outer, work.inner, work.counts[1]), tuple([s * size_out for s in work.strides_out])
    if loop is None or allocator is None:
        transform: Any = {"FFT": np.fft.fft, "IFFT": np.fft.ifft, "RFFT": np.fft.rfft, "IRFFT": np.fft.irfft}[work.kind]
        given = Operand(slot_in, source[0], dtype_in, offset, source[1])
        result = Operand(slot_out, target[0], dtype_out, 0, target[1])
        return host_step(lambda x: transform(x, work.n), [given], [result], "fft")
    factor = np.zeros(1, np.int64)
    factor.view(real)[0] = 1 / work.n if work.kind in ("IFFT", "IRFFT") else 1
    ints = [
        slot_in, slot_out, offset, loop.function, loop.data, *allocator, int(factor[0]), 0,
        source[1][0], target[1][0], source[1][2], target[1][2], *work.counts, work.inner, source[1][1],
    ]  # fmt: skip
    extent, cost = work.outer, _NANOSECONDS * work.n * max(1.0, math.log2(work.n)) + 20
    if work.inner == 1:
        address = compile_runtime(_ROWS, "fft_rows", 4, returns=False)
    else:
        width = _tile(work.n * 2 * real.itemsize, 2 * real.itemsize, work.inner)
        ints += [width, target[1][1]]
        extent, cost = extent * -(-work.inner // width), 1.5 * width * cost
        strided = _stays_in_cache(work.n, max(abs(source[1][2]), abs(target[1][2])))
        if strided:
            address = compile_runtime(_STRIDED, "fft_strided", 4, returns=False)
        else:
            address = compile_runtime_kernel(_columns(size_in, size_out), "fft_columns").address
    worth = extent > 1 and extent * cost > 2 * _WORTH_A_THREAD
    return Step(address, ints, extent, max(1, round(_WORTH_A_THREAD / cost)) if worth else 0, checks=True)


@cache
def malloc_and_free() -> tuple[int, int] | None:
    """Their addresses, where the C library can be asked for them."""
    if os.name != "posix":
        return None
    libc = ctypes.CDLL(None)
    malloc, free = (ctypes.cast(getattr(libc, f), ctypes.c_void_p).value or 0 for f in ("malloc", "free"))
    return malloc, free
