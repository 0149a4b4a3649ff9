"""LAPACK and BLAS routines on stacks of matrices, as steps of a program: a table of adapters.

Each is a `Recipe`, compiled once for all sizes; its parallel axis counts matrices, so that our thread pool runs it.

LAPACK is column-major. What lies in memory by rows is to it the transpose: a lower triangle by rows is an upper one,
`op(A) X = B` becomes `Xᵀ op(A)ᵀ = Bᵀ`, the LQ factors of what it sees are the QR factors of what we mean. So nothing
is copied to turn it. `core.lowering.Library` says for each routine in which order its matrices must come.

Where a routine fails (a matrix that is not positive definite, no convergence) its results are filled with NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from funcgrad.runtime.cython_api import cython_function
from funcgrad.runtime.executor import Step
from funcgrad.runtime.libraries import GEMM_DTYPES, Matrix
from funcgrad.runtime.recipe import ANY, ARRAY, Recipe, aligned, ask, lapack_function, real_work

__all__ = ["library_step"]

_TILE_COLUMNS, _MOST_TILES, _TILE_WORK = 32, 8, 1 << 19
_BLOCK = 64
"""Columns that LAPACK's blocked routines want working memory for."""


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
        potrf=lapack_function("potrf", dtype), uplo=ord("U"), n=n, bytes=n * n * size, row=n * size, size=size
    )  # fmt: skip
    return _CHOLESKY.step([*operands, *results], words, batch, real_work(n**3 // 6, dtype))


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
    work = real_work(n * n * count // 2, dtype)
    words = dict(
        uplo=ord("L" if params["lower"] == by_columns else "U"), diag=ord("U" if params["unit_diagonal"] else "N"),
        n=n, lda=lda,
    )  # fmt: skip
    if count == 1:  # a vector, whose coefficients are op(A), or op(A)^T on the right
        seen = transposed != by_columns
        trans = seen if left else not seen
        words |= dict(
            trsv=cython_function("cython_blas", GEMM_DTYPES[dtype] + "trsv"),
            trans=ord("N" if trans else "T"), one=1, bytes=n * size,
        )  # fmt: skip
        return _TRSV.step([a, b, x], words, batch, work)
    tiles, width = _tiles(count, work, batch)
    pair = (width, count - (tiles - 1) * width)
    m, k = (pair, (n, n)) if left else ((n, n), pair)  # as BLAS sees B
    one = np.zeros(2, np.int64)
    one.view(dtype)[0] = 1
    words |= dict(
        trsm=cython_function("cython_blas", GEMM_DTYPES[dtype] + "trsm"), side=ord("R" if left else "L"),
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
    p = min(max(load_i32(pivots + 4 * j) - 1, j), $m - 1)
    store_i32(pivots + 4 * j, p)
    if p != j:
        own = load_i32(order + 4 * j)
        store_i32(order + 4 * j, load_i32(order + 4 * p))
        store_i32(order + 4 * p, own)
""",
)


def _lu(dtype: np.dtype[Any], operands: Any, results: Any, batch: int, params: Any) -> Step:
    (m, n), size = operands[0].shape, dtype.itemsize
    words = dict(getrf=lapack_function("getrf", dtype), m=m, n=n, k=min(m, n), bytes=m * n * size)
    return _LU.step([*operands, *results], words, batch, real_work(m * n * min(m, n) // 3, dtype))


# Pivots may come from anywhere; those that name no row are taken for the nearest that there is.
_PERMUTATION = Recipe(
    "permutation",
    ("pivots", "order"),
    ("k", "n"),
    """
for j in range($n):
    store_i32(order + 4 * j, j)
for j in range($k):
    p = min(max(load_i32(pivots + 4 * j), 0), $n - 1)
    own = load_i32(order + 4 * j)
    store_i32(order + 4 * j, load_i32(order + 4 * p))
    store_i32(order + 4 * p, own)
""",
)


def _permutation(dtype: np.dtype[Any], operands: Any, results: Any, batch: int, params: Any) -> Step:
    words = dict(k=operands[0].shape[0], n=params["rows"])
    return _PERMUTATION.step([*operands, *results], words, batch, 4 * params["rows"])


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
        gelqf=lapack_function("gelqf", dtype), orglq=lapack_function("orglq", dtype), m=m, n=n, k=k, kq=kq, lwork=lwork,
        bytes=m * n * size, row=n * size, row_q=kq * size, row_k=k * size, size=size, tau=m * n * size,
    )  # fmt: skip
    scratch = (m * n + k + lwork) * size
    return _QR.step([*operands, *results], words, batch, real_work(2 * m * n * k, dtype), scratch)


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
    asked = [ARRAY, ANY] * (3 if dtype.kind == "c" else 2)
    sizes = ask("syevd", dtype, (jobz, uplo, n, ARRAY, n, ARRAY, *asked))
    lwork, lrwork, liwork = (sizes[0], sizes[1] if dtype.kind == "c" else 0, sizes[-1])
    at_copy = aligned(lwork * size)
    at_real = at_copy + (0 if vectors else aligned(n * n * size))
    at_integer = at_real + aligned(lrwork * real)
    words = dict(
        syevd=lapack_function("syevd", dtype), jobz=jobz, uplo=uplo, n=n, lwork=lwork, lrwork=lrwork, liwork=liwork,
        bytes=n * n * size, bytes_w=n * real, copy=at_copy, real=at_real, integer=at_integer,
    )  # fmt: skip
    work = real_work((4 if vectors else 1) * n**3, dtype)
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
    rest = [ARRAY] * (2 if dtype.kind == "c" else 1)
    (lwork,) = ask("gesdd", dtype, (jobz, m, n, ARRAY, m, ARRAY, ARRAY, m, ARRAY, kv, ARRAY, ANY, *rest))
    lwork = max(lwork, 4 * k * k + 7 * k + m + n)
    lrwork = max(5 * k * k + 5 * k, 2 * max(m, n) * k + 2 * k * k + k) if dtype.kind == "c" else 0
    at_copy = aligned(lwork * size)
    at_real = at_copy + aligned(m * n * size)
    at_integer = at_real + aligned(lrwork * real)
    words = dict(
        gesdd=lapack_function("gesdd", dtype), jobz=jobz, m=m, n=n, ldvt=kv, lwork=lwork, bytes=m * n * size,
        bytes_u=m * ku * size, bytes_s=k * real, bytes_vh=kv * n * size, copy=at_copy, real=at_real, integer=at_integer,
    )  # fmt: skip
    recipe = _SVD["complex" if dtype.kind == "c" else "real", vectors]
    work = real_work(4 * m * n * k + 8 * k**3, dtype)
    return recipe.step([*operands, *results], words, batch, work, at_integer + 4 * 8 * k)


# LAPACK stores the vectors of a complex pair of a real matrix as two real columns; here they become complex ones. Words
# of 32 bits serve for both precisions: the last one of a number holds its sign.
_UNPACKED = """
kind = 0
for j in range($n):
    at = w + 2 * j * $size
    call3($memmove, at, work + $wr + j * $size, $size)
    call3($memmove, at + $size, work + $wi + j * $size, $size)
    bits = load_i32(at + 2 * $size - 4) & 2147483647
    if $size == 8:
        bits = bits | load_i32(at + $size)
    if kind == 1:
        kind = 2
    elif bits != 0:
        kind = 1
    else:
        kind = 0
"""
_UNPACKED_VECTORS = """
    source = work + $vr + j * $column
    if kind == 2:
        source = source - $column
    for k in range($n):
        at = v + (j * $n + k) * 2 * $size
        call3($memmove, at, source + k * $size, $size)
        if kind == 0:
            call3($memset, at + $size, 0, $size)
        else:
            call3($memmove, at + $size, source + $column + k * $size, $size)
        if kind == 2:
            last_word = at + 2 * $size - 4
            store_i32(last_word, load_i32(last_word) ^ -2147483648)
"""


def _eig_recipe(kind: str, vectors: bool) -> Recipe:
    v = "v" if vectors else "work"
    if kind == "real":
        call = "&n, work + $copy, &n, work + $wr, work + $wi, work, &n, work + $vr, &n, work, &lwork, info"
        call += ")" + (_UNPACKED.rstrip("\n") + _UNPACKED_VECTORS if vectors else _UNPACKED)
    else:
        call = f"&n, work + $copy, &n, w, work, &n, {v}, &n, work, &lwork, work + $wr, info)\n"
    fill = "call3($memset, v, 255, $bytes_v)" if vectors else "pass"
    return Recipe(
        f"eig_{kind}_{'vectors' if vectors else 'values'}",
        ("a", "w", "v") if vectors else ("a", "w"),
        ("geev", "jobvl", "jobvr", "n", "lwork", "bytes", "bytes_w", "bytes_v", "copy", "wr", "wi", "vr", "column",
         "size"),
        f"""
call3($memmove, work + $copy, a, $bytes)
call14($geev, &jobvl, &jobvr, {call}
if load_i32(info) != 0:
    call3($memset, w, 255, $bytes_w)
    {fill}
""",
    )  # fmt: skip


_EIG = {(kind, vectors): _eig_recipe(kind, vectors) for kind in ("real", "complex") for vectors in (True, False)}


def _eig(dtype: np.dtype[Any], operands: Any, results: Any, batch: int, params: Any) -> Step:
    n, size = operands[0].shape[0], dtype.itemsize
    real, vectors = np.empty(0, dtype).real.dtype.itemsize, len(results) == 2
    lwork = (_BLOCK + 4) * n
    at_copy = aligned(lwork * size)
    at_wr = at_copy + aligned(n * n * size)
    at_wi = at_wr + aligned(2 * n * real)
    at_vr = at_wi + aligned(n * real)
    words = dict(
        geev=lapack_function("geev", dtype), jobvl=ord("N"), jobvr=ord("V" if vectors else "N"), n=n, lwork=lwork,
        bytes=n * n * size, bytes_w=2 * n * real, bytes_v=2 * n * n * real, copy=at_copy, wr=at_wr, wi=at_wi, vr=at_vr,
        column=n * real, size=real,
    )  # fmt: skip
    work = real_work(10 * n**3, dtype)
    recipe = _EIG["complex" if dtype.kind == "c" else "real", vectors]
    return recipe.step([*operands, *results], words, batch, work, at_vr + n * n * real)


def _schur_recipe(kind: str) -> Recipe:
    """Eigenvalues are in two arrays if real, else in one, and there is a real one to work in."""
    rest = "work + $first, work + $second, z, &n, work, &lwork"
    if kind == "complex":
        rest = "work + $first, z, &n, work, &lwork, work + $second"
    return Recipe(
        f"schur_{kind}",
        ("a", "t", "z"),
        ("gees", "jobvs", "sort", "n", "lwork", "bytes", "first", "second"),
        f"""
if a != t:
    call3($memmove, t, a, $bytes)
call15($gees, &jobvs, &sort, 0, &n, t, &n, info + 8, {rest}, 0, info)
if load_i32(info) != 0:
    call3($memset, t, 255, $bytes)
    call3($memset, z, 255, $bytes)
""",
    )


_SCHUR = {kind: _schur_recipe(kind) for kind in ("real", "complex")}


def _schur(dtype: np.dtype[Any], operands: Any, results: Any, batch: int, params: Any) -> Step:
    n, size = operands[0].shape[0], dtype.itemsize
    lwork = (_BLOCK + 4) * n
    first = aligned(lwork * size)
    second = first + aligned(n * size)
    words = dict(
        gees=lapack_function("gees", dtype), jobvs=ord("V"), sort=ord("N"), n=n, lwork=lwork, bytes=n * n * size,
        first=first, second=second,
    )  # fmt: skip
    recipe = _SCHUR["complex" if dtype.kind == "c" else "real"]
    return recipe.step([*operands, *results], words, batch, real_work(10 * n**3, dtype), second + n * size)


# LAPACK scales the right-hand side down where the solution would overflow, and perturbs a singular equation: both are
# failures here. Of the scale, which should be one, the word with the exponent is looked at.
_TRSYL = Recipe(
    "trsyl",
    ("a", "b", "c", "x"),
    ("trsyl", "trans", "sign", "m", "n", "bytes", "at", "one"),
    """
if c != x:
    call3($memmove, x, c, $bytes)
call13($trsyl, &trans, &trans, &sign, &m, &n, a, &m, b, &n, x, &m, info + 16, info)
if load_i32(info) != 0 or load_i32(info + $at) != $one:
    call3($memset, x, 255, $bytes)
""",
)


def _trsyl(dtype: np.dtype[Any], operands: Any, results: Any, batch: int, params: Any) -> Step:
    (m, n), size = operands[2].shape, dtype.itemsize
    double = np.empty(0, dtype).real.dtype.itemsize == 8
    trans = "N" if not params["adjoint"] else "C" if dtype.kind == "c" else "T"
    words = dict(
        trsyl=lapack_function("trsyl", dtype), trans=ord(trans), sign=1, m=m, n=n, bytes=m * n * size,
        at=20 if double else 16, one=0x3FF00000 if double else 0x3F800000,
    )  # fmt: skip
    return _TRSYL.step([*operands, *results], words, batch, real_work(m * n * (m + n) // 2, dtype))


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
    "schur": _schur,
    "trsyl": _trsyl,
    "eig": _eig,
    "eigh": _eigh,
    "eigvals": _eig,
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
