"""Library functions as kernels: BLAS, by the function pointers of SciPy's Cython API.

A matrix product is one step: an adapter kernel with the uniform ABI, compiled once for all products, whose
table of integers holds the BLAS function's address and the very words it takes by reference (BLAS takes
everything by reference; a 32-bit integer is the low half of our 64-bit word). Its parallel axis is the batch.

BLAS is column-major; C = op(A) op(B) in row-major storage is C^T = op(B)^T op(A)^T to it, so operands are
swapped and nothing is copied. An operand may be stored either way round: one of its two strides must be one
element.

Threads: the OpenBLAS inside SciPy runs a pool of its own (OPENBLAS_NUM_THREADS, one thread per CPU by
default), and uses it for products of more than 64^3 multiply-adds. So a batch of small products is spread
over our pool, one BLAS call in one thread; a large product is one call on the calling thread, spread by BLAS.
The two never nest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from funcgrad.runtime.compile import compile_runtime
from funcgrad.runtime.cython_api import cython_function
from funcgrad.runtime.executor import Step

__all__ = ["GEMM_DTYPES", "Matrix", "gemm_step"]

GEMM_DTYPES = {"float32": "s", "float64": "d", "complex64": "c", "complex128": "z"}
"""The dtypes BLAS multiplies, and the letter of their functions."""

_BLAS_OWN_THREADS = 64**3  # multiply-adds up to which OpenBLAS stays on one thread
_WORTH_A_THREAD = 200_000  # multiply-adds

# slots of A, B, C | byte offsets | batch strides in bytes | function | transposes of A, B |
# m n k | lda ldb ldc | alpha (2 words) | beta (2 words)
_GEMM = """
def gemm(slots, ints, lo, hi):
    a = load(slots + 8 * load(ints)) + load(ints + 24)
    b = load(slots + 8 * load(ints + 8)) + load(ints + 32)
    c = load(slots + 8 * load(ints + 16)) + load(ints + 40)
    for i in range(lo, hi):
        call13(load(ints + 72), ints + 80, ints + 88, ints + 96, ints + 104, ints + 112, ints + 144,
               a + i * load(ints + 48), ints + 120, b + i * load(ints + 56), ints + 128, ints + 160,
               c + i * load(ints + 64), ints + 136)
"""

# slots of A, x, y | byte offsets | batch strides in bytes | function | transpose of A | m n | lda incx incy |
# alpha (2 words) | beta (2 words)
_GEMV = """
def gemv(slots, ints, lo, hi):
    a = load(slots + 8 * load(ints)) + load(ints + 24)
    x = load(slots + 8 * load(ints + 8)) + load(ints + 32)
    y = load(slots + 8 * load(ints + 16)) + load(ints + 40)
    for i in range(lo, hi):
        call11(load(ints + 72), ints + 80, ints + 88, ints + 96, ints + 128,
               a + i * load(ints + 48), ints + 104, x + i * load(ints + 56), ints + 112, ints + 144,
               y + i * load(ints + 64), ints + 120)
"""


@dataclass(frozen=True)
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
    if dtype.name not in GEMM_DTYPES:
        raise ValueError(f"gemm_step: dtype must be one of {', '.join(GEMM_DTYPES)}, not {dtype}")
    (m, k), (k2, n) = a.shape, b.shape
    if k != k2 or c.shape != (m, n):
        raise ValueError(f"gemm_step: A{list(a.shape)} @ B{list(b.shape)} does not give C{list(c.shape)}")
    if max(m, n, k) >= 2**31:
        raise ValueError(f"gemm_step: BLAS counts in 32 bits, and {max(m, n, k)} is more than that")
    scalars = [*_words(alpha, dtype), *_words(beta, dtype)]
    work = m * n * k
    grain = max(1, _WORTH_A_THREAD // max(work, 1)) if batch > 1 and work <= _BLAS_OWN_THREADS else 0
    vector = _gemv_ints(dtype, a, b, c) if n == 1 else _gemv_ints(dtype, b.T, a.T, c.T) if m == 1 else None
    if vector is not None:
        return Step(_address("gemv"), [*vector, *scalars], batch, grain)
    return Step(_address("gemm"), [*_gemm_ints(dtype, a, b, c), *scalars], batch, grain)


def _gemm_ints(dtype: np.dtype, a: Matrix, b: Matrix, c: Matrix) -> list[int]:
    flipped, ldc = _storage(c, dtype, "C")
    if flipped:  # C is stored by columns: C^T = B^T A^T is stored by rows
        a, b, c = b.T, a.T, c.T
    (trans_a, lda), (trans_b, ldb) = _storage(a, dtype, "A"), _storage(b, dtype, "B")
    (m, n), k = c.shape, a.shape[1]
    # BLAS sees every stored matrix transposed: it is given B, then A.
    return [
        b.slot, a.slot, c.slot, b.offset, a.offset, c.offset, b.batch_stride, a.batch_stride, c.batch_stride,
        cython_function("cython_blas", GEMM_DTYPES[dtype.name] + "gemm"),
        ord("T" if trans_b else "N"), ord("T" if trans_a else "N"), n, m, k, ldb, lda, ldc,
    ]  # fmt: skip


def _gemv_ints(dtype: np.dtype, a: Matrix, x: Matrix, y: Matrix) -> list[int] | None:
    """The product with one column, twice as fast as a gemm of that shape; None where gemv cannot express
    it."""
    m, k = a.shape
    incx, incy = (v.strides[0] // dtype.itemsize if v.shape[0] > 1 else 1 for v in (x, y))
    strides_fit = x.strides[0] % dtype.itemsize == 0 and y.strides[0] % dtype.itemsize == 0
    if m == 0 or k == 0 or incx < 1 or incy < 1 or not strides_fit:
        return None
    trans, lda = _storage(a, dtype, "A")
    rows, columns = (m, k) if trans else (k, m)  # as BLAS sees the stored matrix
    return [
        a.slot, x.slot, y.slot, a.offset, x.offset, y.offset, a.batch_stride, x.batch_stride, y.batch_stride,
        cython_function("cython_blas", GEMM_DTYPES[dtype.name] + "gemv"),
        ord("N" if trans else "T"), rows, columns, lda, incx, incy,
    ]  # fmt: skip


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


def _words(value: complex, dtype: np.dtype) -> list[int]:
    words = np.zeros(2, np.int64)
    words.view(dtype)[0] = value if dtype.kind == "c" else complex(value).real
    return words.tolist()


@cache
def _address(name: str) -> int:
    return compile_runtime({"gemm": _GEMM, "gemv": _GEMV}[name], name, 4, returns=False)
