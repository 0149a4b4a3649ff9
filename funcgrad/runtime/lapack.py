"""LAPACK and BLAS routines on stacks of matrices, as steps of a program: a table of adapters.

An adapter is a kernel whose parallel axis counts the matrices of a stack (and tiles of them), so that our thread pool
runs it. It is written as a `Recipe`: statements for one matrix, in which `$name` is the value and `&name` the address
of a word of the step's table (LAPACK takes everything by reference). Only the recipe is compiled, once; sizes, letters
and the routine's address are words.

LAPACK is column-major. What lies in memory by rows is to it the transpose: a lower triangle by rows is an upper one,
`op(A) X = B` becomes `Xᵀ op(A)ᵀ = Bᵀ`, the LQ factors of what it sees are the QR factors of what we mean. So nothing
is copied to turn it. `core.lowering.Library` says for each routine in which order its matrices must come.

Where a routine fails (a matrix that is not positive definite, no convergence) its results are filled with NaN.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from funcgrad.runtime.compile import compile_runtime
from funcgrad.runtime.cython_api import cython_function
from funcgrad.runtime.executor import Step
from funcgrad.runtime.guard import ENTER, LEAVE, single_threaded
from funcgrad.runtime.libraries import GEMM_DTYPES, Matrix

__all__ = ["library_step"]

_WORTH_A_THREAD = 200_000  # multiply-adds
_TILE_COLUMNS, _MOST_TILES, _TILE_WORK = 32, 8, 1 << 19
_INFO = 64
"""Bytes before the working memory of a slice: LAPACK's return value lies there."""
_BLOCK = 64
"""Columns that LAPACK's blocked routines want working memory for."""


# -- recipes


@dataclass(frozen=True)
class Recipe:
    """`matrices` names the operands and results, in the body the addresses of the current ones; `words` the table.

    In the body `info` is the address of LAPACK's return value, `work` that of `$scratch` bytes.
    """

    name: str
    matrices: tuple[str, ...]
    words: tuple[str, ...]
    body: str

    @property
    def all_words(self) -> tuple[str, ...]:
        return ("malloc", "free", "memmove", "memset", "guard", "scratch", "tiles", *self.words)

    def source(self) -> str:
        first = 4 * len(self.matrices)
        place = {w: 8 * (first + k) for k, w in enumerate(self.all_words)}

        def expand(text: str) -> str:
            text = re.sub(r"&(\w+)", lambda m: f"ints + {place[m[1]]}", text)
            return re.sub(r"\$(\w+)", lambda m: f"load(ints + {place[m[1]]})", text)

        head, each = [], []
        for k, name in enumerate(self.matrices):
            at = 32 * k
            head.append(f"    {name}_0 = load(slots + 8 * load(ints + {at})) + load(ints + {at + 8})")
            each.append(f"        {name} = {name}_0 + i * load(ints + {at + 16}) + t * load(ints + {at + 24})")
        body = "\n".join(["        " + line for line in self.body.strip("\n").splitlines()])
        return expand(
            f"def {self.name}(slots, ints, lo, hi):\n"
            + "\n".join(head)
            + f"""
    info = call1($malloc, $scratch + {_INFO})
    work = info + {_INFO}
    if info == 0:
        store(slots - 8, 1)
        hi = lo
    guard = $guard{ENTER}
    for number in range(lo, hi):
        i = number // $tiles
        t = number - i * $tiles
        last = 8 if t == $tiles - 1 else 0
"""
            + "\n".join(each)
            + f"\n{body}\n{LEAVE}\n    call1($free, info)\n"
        )

    @property
    def address(self) -> int:
        return _compiled(self)

    def step(
        self, matrices: Sequence[Matrix], words: Mapping[str, int], batch: int, work: int, scratch: int = 0,
        tiles: int = 1, strides: Sequence[int] | None = None,
    ) -> Step:  # fmt: skip
        """`work`: multiply-adds for one matrix; `strides`: bytes from tile to tile of each matrix."""
        ints: list[int] = []
        for k, x in enumerate(matrices):
            ints += [x.slot, x.offset, x.batch_stride, strides[k] if strides else 0]
        guard = single_threaded()
        ints += [*_memory_functions(), guard, scratch, tiles]
        ints += [words[name] for name in self.words]
        grain = max(1, _WORTH_A_THREAD * tiles // max(work, 1)) if guard and batch * tiles > 1 else 0
        return Step(self.address, ints, batch * tiles, grain, checks=True)


@cache
def _compiled(recipe: Recipe) -> int:
    return compile_runtime(recipe.source(), recipe.name, 4, returns=False)


@cache
def _memory_functions() -> tuple[int, ...]:
    """The C library's malloc, free, memmove and memset."""
    libc = ctypes.CDLL(None) if os.name == "posix" else ctypes.CDLL("msvcrt")
    found = (libc.malloc, libc.free, ctypes.memmove, ctypes.memset)
    return tuple([ctypes.cast(f, ctypes.c_void_p).value or 0 for f in found])


def _routine(name: str, dtype: np.dtype[Any]) -> int:
    """The address of LAPACK's `name` for a dtype; orthogonal and symmetric ones have other names if complex."""
    letter = GEMM_DTYPES[dtype.name]
    if dtype.kind == "c":
        name = {"orglq": "unglq", "syevd": "heevd"}.get(name, name)
    return cython_function("cython_lapack", letter + name)


_ARRAY, _ANY = 0, -1
"""In a query: an array, and the size of working memory that is asked for."""


def _ask(name: str, dtype: np.dtype[Any], arguments: Sequence[int]) -> list[int]:
    """The sizes of working memory that a routine recommends, in elements: what it writes to the arrays before the
    arguments `_ANY`, whose dtypes are its own, the real one and int32."""
    cells = [(ctypes.c_int64 * 4)(a) for a in (*arguments, _ARRAY)]
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(cells))(_routine(name, dtype))(*map(ctypes.addressof, cells))
    answers = [cells[k - 1] for k, a in enumerate(arguments) if a == _ANY]
    if not answers[1:]:
        dtypes = [dtype]
    else:
        dtypes = [dtype, *[np.empty(0, dtype).real.dtype] * (len(answers) - 2), np.dtype(np.int32)]
    return [int(np.frombuffer(bytes(x), d, 1)[0].real) + 1 for x, d in zip(answers, dtypes, strict=True)]


# -- the adapters

_CHOLESKY = Recipe(
    "cholesky",
    ("a", "l"),
    ("potrf", "uplo", "n", "bytes", "row", "size"),
    """
if a != l:
    call3($memmove, l, a, $bytes)
call5($potrf, &uplo, &n, l, &n, info)
if load_i32(info) != 0:
    call3($memset, l, 255, $bytes)
else:
    for j in range(1, $n):
        call3($memset, l + (j - 1) * $row + j * $size, 0, ($n - j) * $size)
""",
)


def _cholesky(dtype: np.dtype[Any], operands: Any, results: Any, batch: int, params: Any) -> Step:
    n, size = operands[0].shape[0], dtype.itemsize
    words = dict(
        potrf=_routine("potrf", dtype), uplo=ord("U"), n=n, bytes=n * n * size, row=n * size, size=size
    )  # fmt: skip
    return _CHOLESKY.step([*operands, *results], words, batch, _real_work(n**3 // 6, dtype))


_TRSM = Recipe(
    "trsm",
    ("a", "b", "x"),
    ("trsm", "side", "uplo", "trans", "diag", "m", "m_last", "n", "n_last", "alpha", "alpha_imag", "lda", "ldb", "row",
     "bytes", "bytes_last"),
    """
if b != x:
    for j in range(load(&n + last)):
        call3($memmove, x + j * $row, b + j * $row, load(&bytes + last))
call11($trsm, &side, &uplo, &trans, &diag, &m + last, &n + last, &alpha, a, &lda, x, &ldb)
""",
)  # fmt: skip

_TRSV = Recipe(
    "trsv",
    ("a", "b", "x"),
    ("trsv", "uplo", "trans", "diag", "n", "lda", "one", "bytes"),
    """
if b != x:
    call3($memmove, x, b, $bytes)
call8($trsv, &uplo, &trans, &diag, &n, a, &lda, x, &one)
""",
)


def _triangular_solve(dtype: np.dtype[Any], operands: Any, results: Any, batch: int, params: Any) -> Step:
    (a, b), (x,) = operands, results
    left, transposed, size = params["left_side"], params["transpose_a"], dtype.itemsize
    n, (rows, columns) = a.shape[0], b.shape
    by_columns, lda = _storage(a, size)
    count = columns if left else rows
    work = _real_work(n * n * count // 2, dtype)
    words = dict(
        uplo=ord("L" if params["lower"] == by_columns else "U"), diag=ord("U" if params["unit_diagonal"] else "N"),
        n=n, lda=lda,
    )  # fmt: skip
    if count == 1:  # a vector, whose coefficients are op(A), or op(A)^T on the right
        seen = transposed != by_columns
        trans = seen if left else not seen
        words |= dict(
            trsv=cython_function("cython_blas", GEMM_DTYPES[dtype.name] + "trsv"),
            trans=ord("N" if trans else "T"), one=1, bytes=n * size,
        )  # fmt: skip
        return _TRSV.step([a, b, x], words, batch, work)
    tiles, width = _tiles(count, work, batch)
    pair = (width, count - (tiles - 1) * width)
    m, k = (pair, (n, n)) if left else ((n, n), pair)  # as BLAS sees B
    one = np.zeros(2, np.int64)
    one.view(dtype)[0] = 1
    words |= dict(
        trsm=cython_function("cython_blas", GEMM_DTYPES[dtype.name] + "trsm"), side=ord("R" if left else "L"),
        trans=ord("N" if transposed == by_columns else "T"), m=m[0], m_last=m[1], n=k[0], n_last=k[1],
        alpha=int(one[0]), alpha_imag=int(one[1]), ldb=columns, row=columns * size,
        bytes=m[0] * size, bytes_last=m[1] * size,
    )  # fmt: skip
    stride = width * (size if left else columns * size)
    return _TRSM.step([a, b, x], words, batch, work, 0, tiles, (0, stride, stride))


def _tiles(count: int, work: int, batch: int) -> tuple[int, int]:
    """How many pieces the right-hand sides are cut into, and the size of one: from the shape alone."""
    most = min(count // _TILE_COLUMNS, _MOST_TILES // max(batch, 1), work // _TILE_WORK)
    if most < 2:
        return 1, count
    width = -(-count // (most * 8)) * 8
    return -(-count // width), width


_LU = Recipe(
    "lu",
    ("a", "f", "pivots", "order"),
    ("getrf", "m", "n", "k", "bytes"),
    """
if a != f:
    call3($memmove, f, a, $bytes)
call6($getrf, &m, &n, f, &m, pivots, info)
for j in range($m):
    store_i32(order + 4 * j, j)
for j in range($k):
    p = load_i32(pivots + 4 * j) - 1
    store_i32(pivots + 4 * j, p)
    if p != j:
        own = load_i32(order + 4 * j)
        store_i32(order + 4 * j, load_i32(order + 4 * p))
        store_i32(order + 4 * p, own)
""",
)


def _lu(dtype: np.dtype[Any], operands: Any, results: Any, batch: int, params: Any) -> Step:
    (m, n), size = operands[0].shape, dtype.itemsize
    words = dict(getrf=_routine("getrf", dtype), m=m, n=n, k=min(m, n), bytes=m * n * size)
    return _LU.step([*operands, *results], words, batch, _real_work(m * n * min(m, n) // 3, dtype))


_PERMUTATION = Recipe(
    "permutation",
    ("pivots", "order"),
    ("k", "n"),
    """
for j in range($n):
    store_i32(order + 4 * j, j)
for j in range($k):
    p = load_i32(pivots + 4 * j)
    own = load_i32(order + 4 * j)
    store_i32(order + 4 * j, load_i32(order + 4 * p))
    store_i32(order + 4 * p, own)
""",
)


def _permutation(dtype: np.dtype[Any], operands: Any, results: Any, batch: int, params: Any) -> Step:
    words = dict(k=operands[0].shape[0], n=params["size"])
    return _PERMUTATION.step([*operands, *results], words, batch, 4 * params["size"])


# What LAPACK sees is the transpose, n by m, whose LQ factors are wanted. The reflectors go to q, which they become.
_QR = Recipe(
    "qr",
    ("a", "q", "r"),
    ("gelqf", "orglq", "m", "n", "k", "kq", "lwork", "bytes", "row", "row_q", "row_k", "size", "tau"),
    """
call3($memmove, work, a, $bytes)
tau = work + $tau
call8($gelqf, &n, &m, work, &n, tau, tau + $row_k, &lwork, info)
for j in range($kq):
    zeros = min(j, $n) * $size
    call3($memset, r + j * $row, 0, zeros)
    if j < $n:
        call3($memmove, r + j * $row + zeros, work + j * $row + zeros, $row - zeros)
for j in range($m):
    call3($memmove, q + j * $row_q, work + j * $row, $row_k)
call9($orglq, &kq, &m, &k, q, &kq, tau, tau + $row_k, &lwork, info)
""",
)


def _qr(dtype: np.dtype[Any], operands: Any, results: Any, batch: int, params: Any) -> Step:
    (m, n), size = operands[0].shape, dtype.itemsize
    k, kq = min(m, n), results[0].shape[1]
    lwork = _BLOCK * max(m, n, kq)
    words = dict(
        gelqf=_routine("gelqf", dtype), orglq=_routine("orglq", dtype), m=m, n=n, k=k, kq=kq, lwork=lwork,
        bytes=m * n * size, row=n * size, row_q=kq * size, row_k=k * size, size=size, tau=m * n * size,
    )  # fmt: skip
    scratch = (m * n + k + lwork) * size
    return _QR.step([*operands, *results], words, batch, _real_work(2 * m * n * k, dtype), scratch)


def _eigh_recipe(kind: str, vectors: bool) -> Recipe:
    v, own = "v", "if a != v:\n    call3($memmove, v, a, $bytes)"
    if not vectors:
        v, own = "(work + $copy)", "call3($memmove, work + $copy, a, $bytes)"
    rwork = "work + $real, &lrwork, " if kind == "complex" else ""
    rest = f"w, work, &lwork, {rwork}work + $integer, &liwork, info"
    return Recipe(
        f"eigh_{kind}_{'vectors' if vectors else 'values'}",
        ("a", "w", "v") if vectors else ("a", "w"),
        ("syevd", "jobz", "uplo", "n", "lwork", "lrwork", "liwork", "bytes", "bytes_w", "copy", "real", "integer"),
        f"""
{own}
call{13 if rwork else 11}($syevd, &jobz, &uplo, &n, {v}, &n, {rest})
if load_i32(info) != 0:
    call3($memset, w, 255, $bytes_w)
    call3($memset, {v}, 255, $bytes)
""",
    )


_EIGH = {(kind, vectors): _eigh_recipe(kind, vectors) for kind in ("real", "complex") for vectors in (True, False)}


def _eigh(dtype: np.dtype[Any], operands: Any, results: Any, batch: int, params: Any) -> Step:
    n, size = operands[0].shape[0], dtype.itemsize
    real = np.empty(0, dtype).real.dtype.itemsize
    kind, vectors = "complex" if dtype.kind == "c" else "real", len(results) == 2
    jobz, uplo = ord("V" if vectors else "N"), ord("L" if params["lower"] else "U")
    asked = [_ARRAY, _ANY] * (3 if dtype.kind == "c" else 2)
    sizes = _ask("syevd", dtype, (jobz, uplo, n, _ARRAY, n, _ARRAY, *asked))
    lwork, lrwork, liwork = (sizes[0], sizes[1] if dtype.kind == "c" else 0, sizes[-1])
    at_copy = _aligned(lwork * size)
    at_real = at_copy + (0 if vectors else _aligned(n * n * size))
    at_integer = at_real + _aligned(lrwork * real)
    words = dict(
        syevd=_routine("syevd", dtype), jobz=jobz, uplo=uplo, n=n, lwork=lwork, lrwork=lrwork, liwork=liwork,
        bytes=n * n * size, bytes_w=n * real, copy=at_copy, real=at_real, integer=at_integer,
    )  # fmt: skip
    work = _real_work((4 if vectors else 1) * n**3, dtype)
    return _EIGH[kind, vectors].step([*operands, *results], words, batch, work, at_integer + 4 * liwork)


def _svd_recipe(kind: str, vectors: bool) -> Recipe:
    u, vh = ("u", "vh") if vectors else ("work", "work")
    rwork = "work + $real, " if kind == "complex" else ""
    rest = f"work, &lwork, {rwork}work + $integer, info"
    fill = "call3($memset, u, 255, $bytes_u)\n    call3($memset, vh, 255, $bytes_vh)" if vectors else "pass"
    return Recipe(
        f"svd_{kind}_{'vectors' if vectors else 'values'}",
        ("a", "u", "s", "vh") if vectors else ("a", "s"),
        ("gesdd", "jobz", "m", "n", "ldvt", "lwork", "bytes", "bytes_u", "bytes_s", "bytes_vh", "copy", "real",
         "integer"),
        f"""
call3($memmove, work + $copy, a, $bytes)
call{15 if rwork else 14}($gesdd, &jobz, &m, &n, work + $copy, &m, s, {u}, &m, {vh}, &ldvt, {rest})
if load_i32(info) != 0:
    call3($memset, s, 255, $bytes_s)
    {fill}
""",
    )  # fmt: skip


_SVD = {(kind, vectors): _svd_recipe(kind, vectors) for kind in ("real", "complex") for vectors in (True, False)}


def _svd(dtype: np.dtype[Any], operands: Any, results: Any, batch: int, params: Any) -> Step:
    if len(results) == 1:  # by rows; values are those of the transpose
        operands = [operands[0].T]
    (m, n), size = operands[0].shape, dtype.itemsize
    k, real = min(m, n), np.empty(0, dtype).real.dtype.itemsize
    vectors, full = len(results) == 3, params.get("full_matrices", False)
    jobz = ord(("A" if full else "S") if vectors else "N")
    ku, kv = (m, n) if full else (k, k)
    rest = [_ARRAY] * (2 if dtype.kind == "c" else 1)
    (lwork,) = _ask("gesdd", dtype, (jobz, m, n, _ARRAY, m, _ARRAY, _ARRAY, m, _ARRAY, kv, _ARRAY, _ANY, *rest))
    lwork = max(lwork, 4 * k * k + 7 * k + m + n)
    lrwork = max(5 * k * k + 5 * k, 2 * max(m, n) * k + 2 * k * k + k) if dtype.kind == "c" else 0
    at_copy = _aligned(lwork * size)
    at_real = at_copy + _aligned(m * n * size)
    at_integer = at_real + _aligned(lrwork * real)
    words = dict(
        gesdd=_routine("gesdd", dtype), jobz=jobz, m=m, n=n, ldvt=kv, lwork=lwork, bytes=m * n * size,
        bytes_u=m * ku * size, bytes_s=k * real, bytes_vh=kv * n * size, copy=at_copy, real=at_real, integer=at_integer,
    )  # fmt: skip
    recipe = _SVD["complex" if dtype.kind == "c" else "real", vectors]
    work = _real_work(4 * m * n * k + 8 * k**3, dtype)
    return recipe.step([*operands, *results], words, batch, work, at_integer + 4 * 8 * k)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // 64) * 64


def _real_work(multiply_adds: int, dtype: np.dtype[Any]) -> int:
    return multiply_adds * (4 if dtype.kind == "c" else 1)


def _storage(matrix: Matrix, size: int) -> tuple[bool, int]:
    """(stored by columns?, leading dimension) of a square matrix."""
    n, (down, right) = matrix.shape[0], matrix.strides
    if n == 1:
        return False, 1
    return (False, down // size) if right == size else (True, right // size)


ADAPTERS: dict[str, Callable[..., Step]] = {
    "cholesky": _cholesky,
    "triangular_solve": _triangular_solve,
    "lu": _lu,
    "permutation": _permutation,
    "qr": _qr,
    "eigh": _eigh,
    "eigvalsh": _eigh,
    "svd": _svd,
    "svdvals": _svd,
}


def library_step(
    routine: str,
    dtype: np.dtype[Any],
    operands: Sequence[Matrix],
    results: Sequence[Matrix],
    batch: int,
    params: Mapping[str, Any],
) -> Step:
    """The step that applies a routine to each matrix of a batch, none of which is empty."""
    largest = max([max(x.shape) for x in (*operands, *results)])
    if largest >= 2**31:
        raise ValueError(f"{routine}: LAPACK counts in 32 bits, and {largest} is more than that")
    return ADAPTERS[routine](np.dtype(dtype), operands, results, batch, params)
