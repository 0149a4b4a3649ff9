"""``scipy.linalg`` for functions that are differentiated, batched and compiled.

Called without a tracer among the arguments, each function *is* SciPy's, with its checks and errors. On traced values
leading axes are stacks of matrices, ``overwrite_*`` and ``check_finite`` have no meaning, and what fails because of a
matrix's values behaves as in ``funcgrad.numpy.linalg``.

>>> import numpy as np
>>> import funcgrad as fg
>>> def log_likelihood(k, y):
...     factor = fg.scipy.linalg.cho_factor(k, lower=True)
...     alpha = fg.scipy.linalg.cho_solve(factor, y)
...     return -0.5 * y @ alpha - np.sum(np.log(np.diagonal(factor[0])))
>>> k, y = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([1.0, -1.0])
>>> fg.jit(fg.grad(log_likelihood))(k, y).shape
(2, 2)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..numpy import linalg as nl
from ..numpy.decompositions import inexact
from ..ops import cholesky as chol
from ..ops import lu as factors
from ..ops import spectral
from ..ops.matrices import adjoint, columns, conj, eye_like, lower_part, matmul, mT, rows, upper_part
from ..ops.promotion import as_dtype
from ..ops.structural import broadcast_to, expand_dims, shape_of, squeeze
from .face import linalg_face as _face
from .matrix_functions import (
    coshm,
    cosm,
    expm,
    expm_frechet,
    fractional_matrix_power,
    logm,
    schur,
    sinhm,
    sinm,
    solve_continuous_lyapunov,
    solve_discrete_lyapunov,
    solve_lyapunov,
    solve_sylvester,
    sqrtm,
    tanhm,
    tanm,
)

__all__ = [
    "block_diag",
    "cho_factor",
    "cho_solve",
    "cholesky",
    "circulant",
    "coshm",
    "cosm",
    "det",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "expm",
    "expm_frechet",
    "fractional_matrix_power",
    "hankel",
    "inv",
    "logm",
    "lstsq",
    "lu",
    "lu_factor",
    "lu_solve",
    "norm",
    "pinv",
    "polar",
    "qr",
    "schur",
    "sinhm",
    "sinm",
    "solve",
    "solve_continuous_lyapunov",
    "solve_discrete_lyapunov",
    "solve_lyapunov",
    "solve_sylvester",
    "solve_triangular",
    "sqrtm",
    "svd",
    "svdvals",
    "tanhm",
    "tanm",
    "toeplitz",
]  # fmt: skip


def _as_columns(a: Any, b: Any) -> tuple[Any, bool]:
    """A right-hand side as matrices, and whether it was a vector."""
    vector = len(shape_of(b)) == 1
    return (expand_dims(b, (-1,)) if vector else b), vector


# factors and systems ------------------------------------------------------------------------------------------------


@_face
def cholesky(a: Any, lower: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The Cholesky factor: upper by default, as in SciPy. One triangle of ``a`` is read, the one that is returned."""
    (x,) = inexact(a)
    return nl.cholesky(x, upper=not lower)


@_face
def cho_factor(
    a: Any, lower: bool = False, overwrite_a: bool = False, check_finite: bool = True
) -> tuple[Any, bool]:  # fmt: skip
    """The factor for ``cho_solve``; its other triangle holds zeros (SciPy: anything)."""
    return nl.cholesky(*inexact(a), upper=not lower), lower


@_face
def cho_solve(
    c_and_lower: tuple[Any, bool], b: Any, overwrite_b: bool = False, check_finite: bool = True
) -> Any:  # fmt: skip
    """The solution of ``a x = b`` from the Cholesky factor of ``a``."""
    factor, lower = c_and_lower
    c, b = inexact(factor, b)
    b, vector = _as_columns(c, b)
    for adjoint_first in (not lower, lower):
        b = chol.triangular_solve(
            c, b, left_side=True, lower=lower, transpose_a=adjoint_first, conjugate_a=adjoint_first
        )
    return squeeze(b, (-1,)) if vector else b


_TRANS = {0: "N", 1: "T", 2: "C", "N": "N", "T": "T", "C": "C"}


@_face
def solve_triangular(
    a: Any,
    b: Any,
    trans: Any = 0,
    lower: bool = False,
    unit_diagonal: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> Any:
    """The solution of ``op(a) x = b`` for triangular ``a``; ``trans`` is 0 or ``"N"``, 1 or ``"T"``, 2 or ``"C"``."""
    a, b = inexact(a, b)
    b, vector = _as_columns(a, b)
    op = _TRANS[trans]
    x = chol.triangular_solve(
        a, b, left_side=True, lower=lower, transpose_a=op != "N", conjugate_a=op == "C", unit_diagonal=unit_diagonal
    )
    return squeeze(x, (-1,)) if vector else x


@_face
def lu_factor(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> tuple[Any, Any]:
    """``(lu, piv)`` for ``lu_solve``."""
    return factors.lu(*inexact(a))[:2]


@_face
def lu_solve(
    lu_and_piv: tuple[Any, Any], b: Any, trans: int = 0, overwrite_b: bool = False, check_finite: bool = True
) -> Any:
    """The solution of ``op(a) x = b`` from the LU factors of ``a``."""
    packed, pivots = lu_and_piv
    packed, b = inexact(packed, b)
    b, vector = _as_columns(packed, b)
    order = factors.pivots_to_permutation(as_dtype(pivots, np.dtype(np.int32)), shape_of(packed)[-1])

    def half(b: Any, lower: bool) -> Any:
        return chol.triangular_solve(
            packed, b, left_side=True, lower=lower, transpose_a=trans != 0, conjugate_a=trans == 2, unit_diagonal=lower
        )

    if trans == 0:
        x = half(half(np.take_along_axis(b, expand_dims(order, (-1,)), -2), True), False)
    else:
        x = np.take_along_axis(half(half(b, False), True), expand_dims(factors.inverse(order), (-1,)), -2)
    return squeeze(x, (-1,)) if vector else x


@_face
def lu(
    a: Any, permute_l: bool = False, overwrite_a: bool = False, check_finite: bool = True, p_indices: bool = False
) -> tuple[Any, ...]:
    """``(p, l, u)`` with ``a = p l u``; ``(p l, u)`` if ``permute_l``; indices for p if ``p_indices``."""
    (x,) = inexact(a)
    packed, _, order = factors.lu(x)
    m, n = shape_of(x)[-2:]
    k = min(m, n)
    low = columns(lower_part(packed, -1), 0, k)
    low = low + columns(eye_like(x, m), 0, k)
    up = rows(upper_part(packed), 0, k)
    inverse = factors.inverse(order)
    if permute_l:
        return np.take_along_axis(low, expand_dims(inverse, (-1,)), -2), up
    if p_indices:
        return inverse, low, up
    p = np.equal(expand_dims(order, (-2,)), expand_dims(np.arange(m, dtype=np.int32), (-1,)))
    real = np.empty(0, aval_of(x).dtype).real.dtype
    return as_dtype(p, real), low, up


@_face
def solve(
    a: Any,
    b: Any,
    lower: bool = False,
    overwrite_a: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
    assume_a: str | None = None,
    transposed: bool = False,
) -> Any:
    """The solution of ``a x = b``; a matrix that is assumed positive definite is factored by Cholesky."""
    a, b = inexact(a, b)
    if assume_a in ("pos", "positive definite"):
        return cho_solve((nl.cholesky(a, upper=not lower), lower), b)
    if assume_a in ("lower triangular", "upper triangular"):
        return solve_triangular(a, b, trans=int(transposed), lower=assume_a[0] == "l")
    if assume_a in ("sym", "symmetric", "her", "hermitian"):  # of which one triangle is read
        own = lower_part(a) if lower else upper_part(a)
        other = lower_part(a, -1) if lower else upper_part(a, 1)
        a = own + (adjoint(other) if assume_a[0] == "h" else mT(other))
    elif assume_a not in (None, "gen", "general", "diagonal", "tridiagonal", "banded"):
        raise ValueError(f"solve: assume_a={assume_a!r} is not known; take 'gen', 'pos', 'sym' or 'her'")
    b, vector = _as_columns(a, b)
    x = factors.solve(mT(a) if transposed else a, b)
    return squeeze(x, (-1,)) if vector else x


@_face
def inv(a: Any, overwrite_a: bool = False, check_finite: bool = True, **kwargs: Any) -> Any:
    """The inverse."""
    return nl.inv(a)


@_face
def det(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The determinant."""
    return nl.det(a)


@_face
def lstsq(a: Any, b: Any, cond: Any = None, **kwargs: Any) -> tuple[Any, Any, Any, Any]:
    """Least squares: ``(x, residuals, rank, s)``."""
    return nl.lstsq(a, b, cond)


@_face
def pinv(
    a: Any, *, atol: Any = None, rtol: Any = None, return_rank: bool = False, check_finite: bool = True
) -> Any:  # fmt: skip
    """The pseudo-inverse."""
    if atol is not None or return_rank:
        raise TypeError("pinv: atol and return_rank are not supported on traced values; give rtol")
    return nl.pinv(a, rtol=rtol)


# decompositions -----------------------------------------------------------------------------------------------------


@_face
def qr(
    a: Any, overwrite_a: bool = False, lwork: Any = None, mode: str = "full", pivoting: bool = False,
    check_finite: bool = True,
) -> Any:  # fmt: skip
    """``(q, r)``; ``mode`` is ``full``, ``economic`` or ``r``."""
    if pivoting or mode not in ("full", "economic", "r"):
        raise ValueError(f"qr: of traced values modes are 'full', 'economic', 'r', without pivoting; found {mode!r}")
    (x,) = inexact(a)
    q, r = spectral.qr(x, full_matrices=mode != "economic")
    return (r,) if mode == "r" else (q, r)


@_face
def svd(
    a: Any, full_matrices: bool = True, compute_uv: bool = True, overwrite_a: bool = False, check_finite: bool = True,
    lapack_driver: str = "gesdd",
) -> Any:  # fmt: skip
    """``(u, s, vh)``, or ``s``."""
    (x,) = inexact(a)
    return spectral.svd(x, full_matrices=full_matrices) if compute_uv else spectral.svdvals(x)


@_face
def svdvals(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """Singular values, descending."""
    return spectral.svdvals(*inexact(a))


@_face
def eigh(a: Any, b: Any = None, *, lower: bool = True, eigvals_only: bool = False, **kwargs: Any) -> Any:
    """Eigenvalues and eigenvectors of a Hermitian matrix, or with ``b`` of the pair: ``a v = w b v``."""
    unknown = {
        k: v for k, v in kwargs.items() if k in ("subset_by_index", "subset_by_value", "type") and v not in (None, 1)
    }
    if unknown:
        raise TypeError(f"eigh: {', '.join(unknown)} cannot be given with traced values")
    if b is None:
        (x,) = inexact(a)
        return spectral.eigvalsh(x, lower) if eigvals_only else spectral.eigh(x, lower)
    x, y = inexact(a, b)
    if not lower:
        x, y = adjoint(x), adjoint(y)
    x = lower_part(x) + adjoint(lower_part(x, -1))
    factor = chol.cholesky(y)
    x = chol.triangular_solve(factor, x, left_side=True, lower=True)
    x = chol.triangular_solve(factor, x, lower=True, transpose_a=True, conjugate_a=True)
    if eigvals_only:
        return spectral.eigvalsh(x)
    w, v = spectral.eigh(x)
    v = chol.triangular_solve(factor, v, left_side=True, lower=True, transpose_a=True, conjugate_a=True)
    return w, v


@_face
def eigvalsh(a: Any, b: Any = None, *, lower: bool = True, **kwargs: Any) -> Any:
    """Eigenvalues of a Hermitian matrix, or of a pair."""
    return eigh(a, b, lower=lower, eigvals_only=True, **kwargs)


@_face
def eig(
    a: Any, b: Any = None, left: bool = False, right: bool = True, overwrite_a: bool = False,
    overwrite_b: bool = False, check_finite: bool = True, homogeneous_eigvals: bool = False,
) -> Any:  # fmt: skip
    """Eigenvalues and right eigenvectors of a square matrix."""
    if b is not None or left or homogeneous_eigvals:
        raise TypeError("eig: of traced values there are right eigenvectors of one matrix only")
    (x,) = inexact(a)
    return spectral.eig(x) if right else spectral.eigvals(x)


@_face
def eigvals(
    a: Any, b: Any = None, overwrite_a: bool = False, check_finite: bool = True, homogeneous_eigvals: bool = False
) -> Any:
    """Eigenvalues of a square matrix."""
    return eig(a, b, right=False, homogeneous_eigvals=homogeneous_eigvals)


@_face
def norm(a: Any, ord: Any = None, axis: Any = None, keepdims: bool = False, check_finite: bool = True) -> Any:
    """Norm of vectors or matrices."""
    return nl.norm(a, ord, axis, keepdims)


@_face
def polar(a: Any, side: str = "right") -> tuple[Any, Any]:
    """``(u, p)``: a matrix as isometry times Hermitian (``right``), or Hermitian times isometry (``left``)."""
    if side not in ("right", "left"):
        raise ValueError(f"polar: side must be 'right' or 'left', found {side!r}")
    (x,) = inexact(a)
    u, s, vh = spectral.svd(x, full_matrices=False)
    scaled = np.multiply(as_dtype(s, aval_of(x).dtype)[..., :, None], vh if side == "right" else adjoint(u))
    return matmul(u, vh), matmul(adjoint(vh) if side == "right" else u, scaled)


# matrices of a shape --------------------------------------------------------------------------------------------


@_face
def block_diag(*arrs: Any) -> Any:
    """Matrices along a diagonal, zeros elsewhere."""
    dtype = np.result_type(*[aval_of(x).dtype for x in arrs])
    blocks = [as_dtype(np.atleast_2d(x), dtype) for x in arrs]
    stack = np.broadcast_shapes(*[shape_of(x)[:-2] for x in blocks])
    total = sum([shape_of(x)[-1] for x in blocks])
    lines, before = [], 0
    for x in blocks:
        m, n = shape_of(x)[-2:]
        x = x if shape_of(x)[:-2] == stack else broadcast_to(x, (*stack, m, n))
        lines.append(np.pad(x, [(0, 0)] * (len(stack) + 1) + [(before, total - before - n)]))
        before += n
    return np.concatenate(lines, axis=-2)


def _by_distance(values: Any, rows_: int, columns_: int, sign: int) -> Any:
    """``out[i, j] = values[i + j]`` (sign 1), or ``values[i - j + columns - 1]`` (sign -1)."""
    i, j = np.arange(rows_)[:, None], np.arange(columns_)[None, :]
    return values[..., i + j if sign > 0 else i - j + columns_ - 1]


@_face
def toeplitz(c: Any, r: Any = None) -> Any:
    """Constant diagonals, from the first column and the first row (None: the conjugate of the column)."""
    r = conj(c) if r is None else r
    m, n = shape_of(c)[-1], shape_of(r)[-1]
    return _by_distance(np.concatenate([np.flip(r[..., 1:], -1), c], axis=-1), m, n, -1)


@_face
def hankel(c: Any, r: Any = None) -> Any:
    """Constant anti-diagonals, from the first column and the last row (None: zeros)."""
    r = np.zeros_like(c) if r is None else r
    return _by_distance(np.concatenate([c, r[..., 1:]], axis=-1), shape_of(c)[-1], shape_of(r)[-1], 1)


@_face
def circulant(c: Any) -> Any:
    """Every column is the one before it, turned by one."""
    n = shape_of(c)[-1]
    return c[..., (np.arange(n)[:, None] - np.arange(n)[None, :]) % n]
