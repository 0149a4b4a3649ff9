"""Cholesky factors and triangular systems.

``cholesky`` reads the lower triangle of a Hermitian matrix, as NumPy's does. Its derivative is that of a function of
Hermitian matrices: a tangent counts by its Hermitian part, so that gradients are Hermitian, as in JAX. With
``a = L Lᴴ``, ``dL = L tril(L⁻¹ da L⁻ᴴ)``, where the diagonal counts half.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Library
from ..core.primitive import ZERO, Linear, NotLinear, Primitive
from .elementwise import neg
from .matrices import (
    batch_leading,
    broadcast_stacks,
    check_matrices,
    conj,
    halved_diagonal,
    hermitian_part,
    lower_part,
    matmul,
    mT,
    upper_part,
)
from .shape import batch_axis_to
from .structural import bind_checked, moveaxis, reshape, shape_of

__all__ = ["cholesky", "cholesky_p", "triangular_solve", "triangular_solve_p"]


# cholesky -------------------------------------------------------------------------------------------------------


def _cholesky_shape(a: ShapedArray) -> ShapedArray:
    check_matrices("cholesky", a, square=True)
    return a.strong()


def _cholesky_jvp(primals: Any, tangents: Any, out: Any) -> Any:
    (t,) = tangents
    inner = triangular_solve(out, hermitian_part(t), left_side=True, lower=True)
    inner = triangular_solve(out, inner, lower=True, transpose_a=True, conjugate_a=True)
    return matmul(out, halved_diagonal(inner))


def positive_definite(rng: np.random.Generator, *shape: int) -> Any:
    """Well-conditioned samples."""
    n = shape[-1]
    x = rng.normal(size=(*shape[:-2], n, n + 2))
    return x @ np.swapaxes(x, -1, -2) / (n + 1) + np.eye(n)


cholesky_p: Primitive = Primitive(
    "cholesky",
    impl=lambda a: np.linalg.cholesky(a),
    shape=_cholesky_shape,
    jvp=_cholesky_jvp,
    transpose=NotLinear(),
    batch=batch_leading(lambda a: cholesky_p.bind(a)),
    lower=Library("cholesky", operands=("rows",), results=("rows",), overwrites=((0, 0),), small=True),
    samples=lambda rng: [
        ((positive_definite(rng, *s),), {}) for s in [(3, 3), (1, 1), (2, 4, 4), (2, 3, 2, 2), (0, 0), (0, 2, 2)]
    ],
)


def cholesky(a: Any) -> Any:
    """The lower triangular L with ``a = L Lᴴ``, of stacks of Hermitian positive definite matrices.

    Only the lower triangle of ``a`` is read; gradients are Hermitian. A matrix that is not positive definite is a
    LinAlgError where it is concrete, and gives a matrix of NaN in a compiled program.
    """
    return bind_checked(cholesky_p, a)


# triangular systems ---------------------------------------------------------------------------------------------


def _solve_shape(a: ShapedArray, b: ShapedArray, *, left_side: bool, **params: Any) -> ShapedArray:
    n, _ = check_matrices("triangular_solve", a, square=True)
    rows, columns = check_matrices("triangular_solve", b)
    if a.dtype != b.dtype:
        raise TypeError(f"triangular_solve: operands have dtypes {a.dtype.name} and {b.dtype.name}; convert one")
    if a.shape[:-2] != b.shape[:-2]:
        raise ValueError(f"triangular_solve: leading axes of a {a.shape} and b {b.shape} differ")
    if n != (rows if left_side else columns):
        side = f"{rows} rows" if left_side else f"{columns} columns"
        raise ValueError(f"triangular_solve: a of order {n} does not fit b with {side}")
    return b.strong()


def _solve_impl(a: Any, b: Any, *, left_side: bool, lower: bool, transpose_a: bool, unit_diagonal: bool) -> Any:
    from scipy.linalg.blas import get_blas_funcs  # 0.1 s to import: only where it is needed

    out = np.empty(np.shape(b), np.asarray(b).dtype)
    if out.size == 0:
        return out
    (trsm,) = get_blas_funcs(("trsm",), (out,))
    for k in np.ndindex(out.shape[:-2]):
        out[k] = trsm(1.0, a[k], b[k], side=not left_side, lower=lower, trans_a=transpose_a, diag=unit_diagonal)
    return out


def _solve_jvp(primals: Any, tangents: Any, out: Any, **params: Any) -> Any:
    (a, _), (ta, tb) = primals, tangents
    rhs = tb
    if ta is not ZERO:
        part = lower_part if params["lower"] else upper_part
        ta = part(ta, (-1 if params["lower"] else 1) if params["unit_diagonal"] else 0)
        ta = mT(ta) if params["transpose_a"] else ta
        moved = neg(matmul(ta, out) if params["left_side"] else matmul(out, ta))
        rhs = moved if tb is ZERO else tb + moved
    return triangular_solve_p.bind(a, rhs, **params)


def _solve_transpose(ct: Any, a: Any, b: Any, *, transpose_a: bool, **params: Any) -> Any:
    if type(a) is Linear:
        raise TypeError("triangular_solve is not linear in its matrix")
    return None, triangular_solve_p.bind(a, ct, transpose_a=not transpose_a, **params)


def _solve_batch(size: int, args: Any, dims: Any, *, left_side: bool, **params: Any) -> Any:
    (a, b), (da, db) = args, dims
    if da is not None:
        a, b = batch_axis_to(a, da, size), batch_axis_to(b, db, size)
        return triangular_solve_p.bind(a, b, left_side=left_side, **params), 0
    # One matrix for the whole batch: its right-hand sides side by side.
    rank = len(shape_of(b)) - 1
    place = rank - 1 if left_side else rank - 2
    b = moveaxis(b, db, place)
    shape = shape_of(b)
    joined = (*shape[:place], shape[place] * shape[place + 1], *shape[place + 2 :])
    out = triangular_solve_p.bind(a, reshape(b, joined), left_side=left_side, **params)
    return reshape(out, shape), place


def _triangular(rng: np.random.Generator, *shape: int) -> Any:
    """Well-conditioned in any order of its elements; the other triangle, which is not to be read, is not zero."""
    return rng.uniform(0.5, 1, size=shape)


def _solve_samples(rng: np.random.Generator) -> list[Any]:
    rows = []
    for left in (True, False):
        for lower in (True, False):
            for transposed in (True, False):
                shape = (3, 2) if left else (2, 3)
                params = {"left_side": left, "lower": lower, "transpose_a": transposed, "unit_diagonal": False}
                rows.append(((_triangular(rng, 3, 3), rng.normal(size=shape)), params))
    plain = {"left_side": True, "lower": True, "transpose_a": False, "unit_diagonal": False}
    more = [((2, 3, 3), (2, 3, 4)), ((2, 2, 3, 3), (2, 2, 3, 1)), ((1, 1), (1, 2)), ((0, 0), (0, 2)), ((3, 3), (3, 0))]
    rows += [((_triangular(rng, *s), rng.normal(size=t)), plain) for s, t in more]
    unit = {**plain, "unit_diagonal": True, "lower": False}
    rows += [((_triangular(rng, 3, 3), rng.normal(size=(3, 1))), unit)]
    return rows


triangular_solve_p: Primitive = Primitive(
    "triangular_solve",
    impl=_solve_impl,
    shape=_solve_shape,
    jvp=_solve_jvp,
    transpose=_solve_transpose,
    batch=_solve_batch,
    lower=Library("triangular_solve", operands=("matrix", "rows"), results=("rows",), overwrites=((0, 1),), small=True),
    samples=_solve_samples,
)


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
    """Solve ``op(a) x = b``, or ``x op(a) = b`` if not ``left_side``, for triangular ``a``; leading axes broadcast.

    Only the triangle named by ``lower`` is read, and not its diagonal if ``unit_diagonal``. A zero on the diagonal
    gives infinities and NaN.
    """
    params = dict(left_side=left_side, lower=lower, transpose_a=transpose_a, unit_diagonal=unit_diagonal)
    a, b = broadcast_stacks("triangular_solve", (a, b), (2, 2))
    if not conjugate_a or aval_of(a).dtype.kind != "c":
        return bind_checked(triangular_solve_p, a, b, **params)
    return conj(bind_checked(triangular_solve_p, a, conj(b), **params))
