"""``lax.linalg``: the decompositions under JAX's names and signatures, of operands of exact dtypes.

>>> import numpy as np
>>> from funcgrad import lax
>>> a = np.array([[4.0, 2.0], [2.0, 3.0]])
>>> factor = lax.linalg.cholesky(a)
>>> np.allclose(factor @ factor.T, a)
True
"""

from __future__ import annotations

from typing import Any

from .numpy.dispatch import operand
from .ops import cholesky as _cholesky
from .ops import lu as _lu
from .ops import spectral as _spectral
from .ops.matrices import hermitian_part
from .ops.structural import expand_dims, shape_of, squeeze

__all__ = [
    "cholesky", "eig", "eigh", "lu", "lu_pivots_to_permutation", "qr", "svd", "triangular_solve",
]  # fmt: skip


def cholesky(x: Any, *, symmetrize_input: bool = True) -> Any:
    """The lower triangular factor; of the Hermitian part of ``x``, or by its lower triangle alone."""
    x = operand(x)
    return _cholesky.cholesky(hermitian_part(x) if symmetrize_input else x)


def triangular_solve(
    a: Any,
    b: Any,
    *,
    left_side: bool = False,
    lower: bool = False,
    transpose_a: bool = False,
    conjugate_a: bool = False,
    unit_diagonal: bool = False,
) -> Any:
    """Solve ``op(a) x = b`` if ``left_side``, else ``x op(a) = b``; ``b`` may be a vector per matrix."""
    a, b = operand(a), operand(b)
    flags = dict(
        left_side=left_side, lower=lower, transpose_a=transpose_a, conjugate_a=conjugate_a, unit_diagonal=unit_diagonal
    )
    if len(shape_of(b)) != len(shape_of(a)) - 1:
        return _cholesky.triangular_solve(a, b, **flags)
    axis = (-1,) if left_side else (-2,)
    return squeeze(_cholesky.triangular_solve(a, expand_dims(b, axis), **flags), axis)


def lu(x: Any) -> tuple[Any, Any, Any]:
    """``(lu, pivots, permutation)`` with partial pivoting: ``x[permutation] = L U``; pivots count from 0."""
    return _lu.lu(operand(x))


def lu_pivots_to_permutation(pivots: Any, permutation_size: int) -> Any:
    """The permutation of rows that a sequence of exchanges amounts to."""
    return _lu.pivots_to_permutation(operand(pivots), permutation_size)


def qr(x: Any, *, full_matrices: bool = True) -> tuple[Any, Any]:
    """Orthonormal columns times an upper triangle."""
    return _spectral.qr(operand(x), full_matrices)


def eigh(x: Any, *, lower: bool = True, symmetrize_input: bool = True) -> tuple[Any, Any]:
    """``(v, w)``, in JAX's order: eigenvectors, then eigenvalues, ascending."""
    x = operand(x)
    w, v = _spectral.eigh(hermitian_part(x) if symmetrize_input else x, lower)
    return v, w


def svd(x: Any, *, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    """``(u, s, vh)``, or ``s`` alone."""
    return _spectral.svd(operand(x), full_matrices) if compute_uv else _spectral.svdvals(operand(x))


def eig(x: Any, *, compute_left_eigenvectors: bool = False, compute_right_eigenvectors: bool = True) -> list[Any]:
    """``[w, v]``, or ``[w]`` without right eigenvectors. Left ones are not computed: take those of the transpose."""
    if compute_left_eigenvectors:
        raise NotImplementedError("eig: left eigenvectors are not computed; they are the right ones of x's transpose")
    return list(_spectral.eig(operand(x))) if compute_right_eigenvectors else [_spectral.eigvals(operand(x))]
