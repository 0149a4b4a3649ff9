"""Library functions as kernels: BLAS, by the function pointers of SciPy's Cython API.

A matrix product is one step: an adapter kernel with the uniform ABI, compiled once for all products, whose
table of integers holds the BLAS function's address and the very words it takes by reference (BLAS takes
everything by reference; a 32-bit integer is the low half of our 64-bit word).

BLAS is column-major; C = op(A) op(B) in row-major storage is C^T = op(B)^T op(A)^T to it, so operands are
swapped and nothing is copied. An operand may be stored either way round: one of its two strides must be one
element.

Products of real matrices that OpenBLAS would pack first are our own where that is quicker: see `products`.

Threads: the OpenBLAS inside SciPy has a pool of its own, in which every thread waits for every other one: on
a machine where others work too, that costs milliseconds for each product. So a large product is cut into
tiles along the longer side of C, the tiles of the whole batch are the step's parallel axis, and our pool runs
them, each a BLAS call in one thread. Tiles follow from the shape and the machine, so a result has the same bits
for any number of threads. They are few, because BLAS repacks for each tile the operand that it shares with the others.

OpenBLAS knows only one number of threads, for the whole process, and it is the user's: the adapter sets it to
one while tiles run, and back when the last of them is done (`single_threaded`). Where that cannot be done
(another BLAS, or OpenBLAS on OpenMP) a large product is one call on the calling thread, and BLAS spreads it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache

import numpy as np

from funcgrad.record import record
from funcgrad.runtime.compile import compile_runtime
from funcgrad.runtime.cython_api import cython_function
from funcgrad.runtime.executor import Step
from funcgrad.runtime.guard import ENTER, LEAVE, single_threaded
from funcgrad.runtime.products import Operand, product_step

__all__ = ["GEMM_DTYPES", "Matrix", "gemm_step", "scalar_words"]

GEMM_DTYPES = {np.dtype(t): letter for t, letter in (("f4", "s"), ("f8", "d"), ("c8", "c"), ("c16", "z"))}
"""The dtypes BLAS multiplies, and the letter of their functions."""

# Multiply-adds from which OpenBLAS uses its own threads: for a gemv, and (64^3) for a gemm.
_GEMV_THREADS, _GEMM_THREADS = 9_000, 64**3
_WORTH_A_THREAD = 200_000  # multiply-adds

# The shapes of tiles, by measurement (AVX-512, one thread, against no tiles: tiles of 128 rows cost 5 to 8 %, of 64
# rows 13 %; 16 tiles of 128 rows 20 %, because the shared operand no longer stays in the cache). On two CPUs two tiles
# of 64 rows take 0.55 of the time of one of 128, and two of 256 rows 0.95 of that of four of 128.
_MOST_TILES, _FEW_TILES = 64, 8
_TILE_ROWS, _MANY_TILES_ROWS = 64, 256
_TILE_WORK = 1 << 19  # real multiply-adds
_VECTOR_TILES, _VECTOR_TILE_BYTES, _PIECE_BYTES = 16, 1 << 19, 4000


# -- the adapters

# Both take tiles: tile t of matrix i is number i * tiles + t of the parallel axis. Sizes come in pairs, that of
# a tile and that of the last tile.

# slots of A, B, C | byte offsets | batch strides in bytes | tile strides in bytes | tiles | guard | function |
# transposes of A, B | m m' n n' k | lda ldb ldc | alpha (2 words) | beta (2 words)
_GEMM = f"""
def gemm(slots, ints, lo, hi):
    a = load(slots + 8 * load(ints)) + load(ints + 24)
    b = load(slots + 8 * load(ints + 8)) + load(ints + 32)
    c = load(slots + 8 * load(ints + 16)) + load(ints + 40)
    tiles = load(ints + 96)
    guard = load(ints + 104){ENTER}
    for number in range(lo, hi):
        i = number // tiles
        t = number - i * tiles
        last = 8 if t == tiles - 1 else 0
        call13(load(ints + 112), ints + 120, ints + 128, ints + 136 + last, ints + 152 + last, ints + 168, ints + 200,
               a + i * load(ints + 48) + t * load(ints + 72), ints + 176,
               b + i * load(ints + 56) + t * load(ints + 80), ints + 184, ints + 216,
               c + i * load(ints + 64) + t * load(ints + 88), ints + 192){LEAVE}
"""

# slots of A, x, y | byte offsets | batch strides in bytes | tile strides in bytes | tiles | guard | function |
# transpose of A | m m' n n' | lda incx incy | alpha (2 words) | beta (2 words)
_GEMV = f"""
def gemv(slots, ints, lo, hi):
    a = load(slots + 8 * load(ints)) + load(ints + 24)
    x = load(slots + 8 * load(ints + 8)) + load(ints + 32)
    y = load(slots + 8 * load(ints + 16)) + load(ints + 40)
    tiles = load(ints + 96)
    guard = load(ints + 104){ENTER}
    for number in range(lo, hi):
        i = number // tiles
        t = number - i * tiles
        last = 8 if t == tiles - 1 else 0
        call11(load(ints + 112), ints + 120, ints + 128 + last, ints + 144 + last, ints + 184,
               a + i * load(ints + 48) + t * load(ints + 72), ints + 160,
               x + i * load(ints + 56) + t * load(ints + 80), ints + 168, ints + 200,
               y + i * load(ints + 64) + t * load(ints + 88), ints + 176){LEAVE}
"""


@record(frozen=True, slots=True)
class Matrix:
    """A batch of matrices in a program's memory. Offset and strides are in bytes; one stride of the two is an
    element.

    A vector is a matrix with one column or one row. The batch stride 0 uses one matrix for the whole batch.
    """

    slot: int
    shape: tuple[int, int]
    strides: tuple[int, int]
    offset: int = 0
    batch_stride: int = 0

    @property
    def T(self) -> Matrix:
        return Matrix(self.slot, self.shape[::-1], self.strides[::-1], self.offset, self.batch_stride)


def gemm_step(
    dtype: np.dtype, a: Matrix, b: Matrix, c: Matrix, batch: int = 1, alpha: complex = 1, beta: complex = 0
) -> Step:
    """The step C = alpha * A @ B + beta * C for each matrix of a batch (beta = 0: C is only written).

    `a.T` multiplies by the transpose. Raises ValueError where shapes do not fit or an operand has no unit
    stride.
    """
    dtype = np.dtype(dtype)
    if dtype not in GEMM_DTYPES:
        raise ValueError(f"gemm_step: dtype must be one of {', '.join(map(str, GEMM_DTYPES))}, not {dtype}")
    (m, k), (k2, n) = a.shape, b.shape
    if k != k2 or c.shape != (m, n):
        raise ValueError(f"gemm_step: A{list(a.shape)} @ B{list(b.shape)} does not give C{list(c.shape)}")
    if max(m, n, k) >= 2**31:
        raise ValueError(f"gemm_step: BLAS counts in 32 bits, and {max(m, n, k)} is more than that")
    scalars = [*scalar_words(alpha, dtype), *scalar_words(beta, dtype)]
    if n == 1 or m == 1:
        operands = (a, b, c) if n == 1 else (b.T, a.T, c.T)
        vector = _gemv_step(dtype, *operands, batch, scalars)
        if vector is not None:
            return vector
    return _gemm_step(dtype, a, b, c, batch, scalars, (alpha, beta) == (1, 0))


def _gemm_step(dtype: np.dtype, a: Matrix, b: Matrix, c: Matrix, batch: int, scalars: Sequence[int], own: bool) -> Step:
    flipped, ldc = _storage(c, dtype, "C")
    if flipped:  # C is stored by columns: C^T = B^T A^T is stored by rows
        a, b, c = b.T, a.T, c.T
    (trans_a, lda), (trans_b, ldb) = _storage(a, dtype, "A"), _storage(b, dtype, "B")
    (m, n), k = c.shape, a.shape[1]
    if own and min(m, n, k) > 0:
        left, right, out = [Operand(x.slot, x.offset, x.batch_stride, *x.strides) for x in (a, b, c)]
        step = product_step(dtype, batch, (m, n, k), left, right, out)
        if step is not None:
            return step
    work = m * n * k * (4 if dtype.kind == "c" else 1)
    guard = single_threaded() if work > _GEMV_THREADS else 0
    rows, columns = Tiles(1, m), Tiles(1, n)
    if guard and m >= n:
        rows = _gemm_tiles(m, work, batch)
    elif guard:
        columns = _gemm_tiles(n, work, batch)
    # BLAS sees every stored matrix transposed: it is given B, then A.
    ints = [
        b.slot, a.slot, c.slot, b.offset, a.offset, c.offset, b.batch_stride, a.batch_stride, c.batch_stride,
        columns.stride(b.strides[1]), rows.stride(a.strides[0]),
        columns.stride(c.strides[1]) + rows.stride(c.strides[0]),
        rows.count * columns.count, guard, cython_function("cython_blas", GEMM_DTYPES[dtype] + "gemm"),
        ord("T" if trans_b else "N"), ord("T" if trans_a else "N"), *columns.sizes(n), *rows.sizes(m), k,
        ldb, lda, ldc, *scalars,
    ]  # fmt: skip
    return _step("gemm", ints, batch, rows.count * columns.count, work, guard != 0 or work <= _GEMM_THREADS)


def _gemv_step(dtype: np.dtype, a: Matrix, x: Matrix, y: Matrix, batch: int, scalars: Sequence[int]) -> Step | None:
    """The product with one column, twice as fast as a gemm of that shape; None where gemv cannot express
    it."""
    m, k = a.shape
    incx, incy = (v.strides[0] // dtype.itemsize if v.shape[0] > 1 else 1 for v in (x, y))
    strides_fit = x.strides[0] % dtype.itemsize == 0 and y.strides[0] % dtype.itemsize == 0
    if m == 0 or k == 0 or incx < 1 or incy < 1 or not strides_fit:
        return None
    trans, lda = _storage(a, dtype, "A")
    work = m * k * (4 if dtype.kind == "c" else 1)
    guard = single_threaded() if work > _GEMV_THREADS else 0
    tiles = _gemv_tiles(m, k, dtype.itemsize, batch, trans) if guard else Tiles(1, m)
    sizes = (tiles.sizes(m), (k, k)) if trans else ((k, k), tiles.sizes(m))  # as BLAS sees the stored matrix
    ints = [
        a.slot, x.slot, y.slot, a.offset, x.offset, y.offset, a.batch_stride, x.batch_stride, y.batch_stride,
        tiles.stride(a.strides[0]), 0, tiles.stride(y.strides[0]),
        tiles.count, guard, cython_function("cython_blas", GEMM_DTYPES[dtype] + "gemv"),
        ord("N" if trans else "T"), *sizes[0], *sizes[1], lda, incx, incy, *scalars,
    ]  # fmt: skip
    return _step("gemv", ints, batch, tiles.count, work, guard != 0 or work <= _GEMM_THREADS)


def _step(name: str, ints: Sequence[int], batch: int, tiles: int, work: int, ours: bool) -> Step:
    """`work`: multiply-adds of one matrix; `ours`: whether BLAS leaves the threads to us."""
    grain = max(1, _WORTH_A_THREAD * tiles // max(work, 1)) if ours and batch * tiles > 1 else 0
    return Step(_address(name), ints, batch * tiles, grain)


# -- tiles


@record(frozen=True, slots=True)
class Tiles:
    """A side of C in `count` pieces of `size`, the last one perhaps smaller."""

    count: int
    size: int

    def sizes(self, whole: int) -> tuple[int, int]:
        """Of a tile, and of the last tile."""
        return self.size, whole - (self.count - 1) * self.size

    def stride(self, row_bytes: int) -> int:
        """From tile to tile."""
        return self.size * row_bytes if self.count > 1 else 0


def _cut(whole: int, most: int, unit: int) -> Tiles:
    """At most `most` tiles, in multiples of `unit`: a power of two of them, which threads can share evenly."""
    if most < 2:
        return Tiles(1, whole)
    count = 1 << (most.bit_length() - 1)
    size = -(-whole // (count * unit)) * unit
    return Tiles(-(-whole // size), size)


@cache
def _cpus() -> int:
    return os.cpu_count() or 1


def _gemm_tiles(rows: int, work: int, batch: int) -> Tiles:
    """Few tiles, one for each CPU of the machine, may have fewer rows than many."""
    few = min(max(_cpus(), 2), _FEW_TILES)
    most = min(rows // _TILE_ROWS, max(few // max(batch, 1), rows // _MANY_TILES_ROWS))
    return _cut(rows, min(most, _MOST_TILES // max(batch, 1), work // _TILE_WORK), 8)


def _gemv_tiles(rows: int, columns: int, itemsize: int, batch: int, by_columns: bool) -> Tiles:
    """A matrix stored by rows may be cut anywhere (BLAS takes four at a time); of one stored by columns, a
    tile is a piece of each column, which should be about a page."""
    most = rows * itemsize // _PIECE_BYTES if by_columns else rows // 4
    enough = rows * columns * itemsize // _VECTOR_TILE_BYTES
    return _cut(rows, min(most, enough, _VECTOR_TILES // max(batch, 1)), 8 if by_columns else 4)


# -- operands


def _storage(matrix: Matrix, dtype: np.dtype, name: str) -> tuple[bool, int]:
    """(stored by columns?, leading dimension in elements)."""
    (rows, columns), (down, right), size = matrix.shape, matrix.strides, dtype.itemsize
    if rows == 0 or columns == 0:
        return False, max(1, columns)
    if (right == size or columns == 1) and (rows == 1 or (down % size == 0 and down // size >= columns)):
        return False, down // size if rows > 1 else columns
    if (down == size or rows == 1) and (columns == 1 or (right % size == 0 and right // size >= rows)):
        return True, right // size if columns > 1 else rows
    raise ValueError(
        f"gemm_step: {name} of shape {list(matrix.shape)} has strides {list(matrix.strides)} bytes; "
        f"BLAS wants rows or columns of adjacent {dtype} elements: copy the operand first"
    )


@cache
def scalar_words(value: complex, dtype: np.dtype) -> tuple[int, int]:
    """A scalar of BLAS as two words of the integer table."""
    words = np.zeros(2, np.int64)
    words.view(dtype)[0] = value if dtype.kind == "c" else complex(value).real
    first, second = words.tolist()
    return first, second


@cache
def _address(name: str) -> int:
    return compile_runtime({"gemm": _GEMM, "gemv": _GEMV}[name], name, 4, returns=False)
