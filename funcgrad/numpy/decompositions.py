"""Systems, inverses, determinants and decompositions: the part of ``numpy.linalg`` that LAPACK does.

Values are NumPy's. Gradients with respect to Hermitian matrices (``cholesky``, ``eigh``, ``eigvalsh``) are Hermitian,
as in JAX. Where NumPy raises ``LinAlgError`` because of a matrix's values (singular, not positive definite), so do
these on concrete values, under ``grad`` and ``vmap`` alike; a compiled program gives NaN (or infinities) instead.

>>> import numpy as np
>>> import funcgrad as fg
>>> a, b = np.array([[3.0, 1.0], [1.0, 2.0]]), np.array([9.0, 8.0])
>>> fg.jit(np.linalg.solve)(a, b)
array([2., 3.])
>>> np.allclose(fg.grad(lambda a: np.linalg.slogdet(a)[1])(a), np.linalg.inv(a).T)
True
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..ops import cholesky as chol
from ..ops import determinant, lu, spectral
from ..ops import pinv as pseudo
from ..ops.matrices import adjoint, check_matrices, conj, eye_like, matmul
from ..ops.promotion import as_dtype
from ..ops.structural import expand_dims, reshape, shape_of, squeeze, transpose
from .dispatch import implements, operand

__all__ = [
    "cholesky", "cond", "det", "eig", "eigh", "eigvals", "eigvalsh", "inv", "lstsq", "matrix_rank", "pinv", "qr",
    "slogdet", "solve", "svd", "svdvals", "tensorinv", "tensorsolve",
]  # fmt: skip

_ONE = np.eye(1)
# NumPy's named tuples, which it does not export.
_EIG, _EIGH, _QR = type(np.linalg.eig(_ONE)), type(np.linalg.eigh(_ONE)), type(np.linalg.qr(_ONE))
_SLOGDET, _SVD = type(np.linalg.slogdet(_ONE)), type(np.linalg.svd(_ONE))


def inexact(*xs: Any) -> list[Any]:
    """Operands in NumPy's common dtype of linear algebra: integers become float64."""
    arrays = [operand(x) for x in xs]
    dtypes = [aval_of(x).dtype for x in arrays]
    common = np.result_type(*[d if d.kind in "fc" else np.dtype(np.float64) for d in dtypes])
    return [as_dtype(x, common) for x in arrays]


def _square(name: str, a: Any) -> Any:
    (x,) = inexact(a)
    check_matrices(name, aval_of(x), square=True)
    return x


# systems, inverses, determinants ------------------------------------------------------------------------------------


@implements(np.linalg.solve)
def solve(a: Any, b: Any) -> Any:
    """The solution of ``a x = b``; b is a vector if it has one axis, else matrices."""
    a, b = inexact(a, b)
    check_matrices("solve", aval_of(a), square=True)
    if len(shape_of(b)) == 1:
        return squeeze(lu.solve(a, expand_dims(b, (-1,))), (-1,))
    return lu.solve(a, b)


@implements(np.linalg.inv)
def inv(a: Any) -> Any:
    """The inverse of square matrices."""
    x = _square("inv", a)
    return lu.solve(x, eye_like(x, shape_of(x)[-1]))


@implements(np.linalg.det)
def det(a: Any) -> Any:
    """The determinant. Its first two derivatives are right at singular matrices too."""
    return determinant.det(_square("det", a))


@implements(np.linalg.slogdet)
def slogdet(a: Any) -> Any:
    """Sign and logarithm of the determinant, without overflow."""
    return _SLOGDET(*determinant.slogdet(_square("slogdet", a)))


@implements(np.linalg.cholesky)
def cholesky(a: Any, /, *, upper: bool = False) -> Any:
    """The triangular factor of a Hermitian positive definite matrix, of which one triangle is read."""
    x = _square("cholesky", a)
    return adjoint(chol.cholesky(adjoint(x))) if upper else chol.cholesky(x)


@implements(np.linalg.tensorsolve)
def tensorsolve(a: Any, b: Any, axes: Any = None) -> Any:
    """The solution of ``tensordot(a, x, x.ndim) = b``."""
    a, b = inexact(a, b)
    rank = len(shape_of(a))
    if axes is not None:
        moved = [k % rank for k in axes]
        a = transpose(a, [*[k for k in range(rank) if k not in moved], *moved])
    kept = shape_of(a)[len(shape_of(b)) :]
    n = math.prod(kept)
    if math.prod(shape_of(a)) != n * n:
        raise np.linalg.LinAlgError(
            f"tensorsolve: a of shape {shape_of(a)} is no square matrix for b of shape {shape_of(b)}"
        )
    return reshape(solve(reshape(a, (n, n)), reshape(b, (n,))), kept)


@implements(np.linalg.tensorinv)
def tensorinv(a: Any, ind: int = 2) -> Any:
    """The inverse of ``tensordot(a, ., ind)``."""
    (a,) = inexact(a)
    shape = shape_of(a)
    if ind <= 0:
        raise ValueError(f"tensorinv: ind must be positive, found {ind}")
    rows, columns = math.prod(shape[:ind]), math.prod(shape[ind:])
    return reshape(inv(reshape(a, (rows, columns))), (*shape[ind:], *shape[:ind]))


# decompositions -----------------------------------------------------------------------------------------------------


@implements(np.linalg.qr)
def qr(a: Any, mode: str = "reduced") -> Any:
    """Orthonormal columns times an upper triangle; ``mode`` is ``reduced``, ``complete`` or ``r``."""
    (x,) = inexact(a)
    if mode not in ("reduced", "complete", "r"):
        raise ValueError(f"qr: mode must be 'reduced', 'complete' or 'r' for traced values, found {mode!r}")
    q, r = spectral.qr(x, full_matrices=mode == "complete")
    return r if mode == "r" else _QR(q, r)


def _triangle(name: str, uplo: str) -> bool:
    if uplo.upper() not in ("L", "U"):
        raise ValueError(f"{name}: UPLO must be 'L' or 'U', found {uplo!r}")
    return uplo.upper() == "L"


@implements(np.linalg.eigh)
def eigh(a: Any, UPLO: str = "L") -> Any:
    """Eigenvalues, ascending, and eigenvectors of Hermitian matrices."""
    return _EIGH(*spectral.eigh(_square("eigh", a), _triangle("eigh", UPLO)))


@implements(np.linalg.eigvalsh)
def eigvalsh(a: Any, UPLO: str = "L") -> Any:
    """Eigenvalues of Hermitian matrices, ascending."""
    return spectral.eigvalsh(_square("eigvalsh", a), _triangle("eigvalsh", UPLO))


@implements(np.linalg.eig)
def eig(a: Any) -> Any:
    """Eigenvalues and eigenvectors of square matrices, always complex: tracing knows no values."""
    return _EIG(*spectral.eig(_square("eig", a)))


@implements(np.linalg.eigvals)
def eigvals(a: Any) -> Any:
    """Eigenvalues of square matrices, always complex: tracing knows no values."""
    return spectral.eigvals(_square("eigvals", a))


def _svd_hermitian(x: Any) -> tuple[Any, Any, Any]:
    w, v = spectral.eigh(x)
    order = np.flip(np.argsort(np.abs(w), axis=-1), -1)
    w = np.take_along_axis(w, order, -1)
    u = np.take_along_axis(v, expand_dims(order, (-2,)), -1)
    signs = as_dtype(np.sign(w), aval_of(u).dtype)
    return u, np.abs(w), adjoint(np.multiply(u, expand_dims(signs, (-2,))))


@implements(np.linalg.svd)
def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    """Singular values, descending, between the singular vectors."""
    (x,) = inexact(a)
    if not compute_uv:
        return np.flip(np.sort(np.abs(spectral.eigvalsh(x)), axis=-1), -1) if hermitian else spectral.svdvals(x)
    return _SVD(*(_svd_hermitian(x) if hermitian else spectral.svd(x, full_matrices)))


@implements(np.linalg.svdvals)
def svdvals(x: Any, /) -> Any:
    """Singular values, descending."""
    return spectral.svdvals(*inexact(x))


# what singular values tell ------------------------------------------------------------------------------------------


def _static(name: str, argument: str, value: Any) -> float:
    if np.ndim(value):
        raise TypeError(f"{name}: {argument} of traced values is one number, found shape {np.shape(value)}")
    return float(value)


def _relative(x: Any, rtol: Any) -> float:
    return max(shape_of(x)[-2:]) * float(np.finfo(aval_of(x).dtype).eps) if rtol is None else rtol


@implements(np.linalg.pinv)
def pinv(a: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = np._NoValue) -> Any:
    """The pseudo-inverse. Its derivative takes the rank as constant."""
    (x,) = inexact(a)
    check_matrices("pinv", aval_of(x))
    if rcond is None:
        rcond = 1e-15 if rtol is np._NoValue else _relative(x, rtol)
    elif rtol is not np._NoValue:
        raise ValueError("pinv: rtol and rcond cannot both be given; rtol is the newer name")
    return pseudo.pinv(x, _static("pinv", "rcond", rcond))


@implements(np.linalg.matrix_rank)
def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    """The number of singular values above ``tol``."""
    x = operand(A)
    if len(shape_of(x)) < 2:
        return as_dtype(np.any(np.not_equal(x, 0)), np.dtype(np.int64))
    if tol is not None and rtol is not None:
        raise ValueError("matrix_rank: tol and rtol cannot both be given")
    s = svd(x, compute_uv=False, hermitian=hermitian)
    if tol is None:
        rtol = max(shape_of(x)[-2:]) * float(np.finfo(aval_of(s).dtype).eps) if rtol is None else rtol
        rtol = expand_dims(rtol, (-1,)) if np.ndim(rtol) else rtol
        tol = np.multiply(np.max(s, axis=-1, keepdims=True), rtol)
    elif np.ndim(tol):
        tol = expand_dims(operand(tol), (-1,))
    return np.count_nonzero(np.greater(s, tol), axis=-1)


@implements(np.linalg.cond)
def cond(x: Any, p: Any = None) -> Any:
    """The condition number in the norm of order ``p`` (None and 2: by singular values)."""
    (x,) = inexact(x)
    if p is None or p in (2, -2):
        s = spectral.svdvals(x)
        return np.divide(s[..., -1], s[..., 0]) if p == -2 else np.divide(s[..., 0], s[..., -1])
    check_matrices("cond", aval_of(x), square=True)
    return np.multiply(np.linalg.norm(x, p, axis=(-2, -1)), np.linalg.norm(inv(x), p, axis=(-2, -1)))


@implements(np.linalg.lstsq)
def lstsq(a: Any, b: Any, rcond: Any = None) -> tuple[Any, Any, Any, Any]:
    """Least squares: ``(x, residuals, rank, s)``.

    Residuals are given where a has more rows than columns, as NumPy does if a has full rank; of a matrix of lower rank
    they are given too, because tracing does not know the rank.
    """
    a, b = inexact(a, b)
    m, n = check_matrices("lstsq", aval_of(a))
    if len(shape_of(a)) != 2 or len(shape_of(b)) not in (1, 2) or shape_of(b)[0] != m:
        raise np.linalg.LinAlgError(f"lstsq: a of shape {shape_of(a)} and b of shape {shape_of(b)} do not fit")
    eps = float(np.finfo(aval_of(a).dtype).eps)
    rcond = max(m, n) * eps if rcond is None else eps if rcond == -1 else _static("lstsq", "rcond", rcond)
    columns = b if len(shape_of(b)) == 2 else expand_dims(b, (-1,))
    x = matmul(pseudo.pinv(a, rcond), columns)
    s = spectral.svdvals(a)
    rank = np.count_nonzero(np.greater(s, np.multiply(s[:1], as_dtype(rcond, aval_of(s).dtype))))
    rank = as_dtype(rank, np.dtype(np.int32))
    if m > n:
        left = np.subtract(columns, matmul(a, x))
        squares = np.multiply(left, conj(left))
        residuals = np.sum(np.real(squares) if aval_of(a).dtype.kind == "c" else squares, axis=0)
    else:
        residuals = np.zeros(0, aval_of(s).dtype)
    return (x if len(shape_of(b)) == 2 else squeeze(x, (-1,))), residuals, rank, s
