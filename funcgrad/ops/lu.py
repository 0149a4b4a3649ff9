"""LU factors, and linear systems and inverses by them.

A linear system is differentiated as an implicit function: with ``a x = b``, ``a dx = db - da x``. ``linear_solve``
takes the matrix and its factors. Values come from the factors, which are constants to it, derivatives from the
matrix; so every derivative, forward or reverse and of any order, reuses the one factorisation, and none is taken of
the factorisation itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Library
from ..core.primitive import ZERO, Linear, NotLinear, Primitive, ZeroDerivative
from .cholesky import triangular_solve_p
from .create import broadcasted_iota, zeros_like
from .elementwise import (
    convert_element_type,
    lt,
    neg,
)
from .indexing import scatter, take_along_axis
from .matrices import (
    batch_leading,
    broadcast_stacks,
    check_matrices,
    columns,
    extents,
    eye_like,
    lower_part,
    matmul,
    mT,
    on_diagonal,
    rows,
    upper_part,
)
from .shape import batch_axis_to, pad
from .stop import stop_gradient
from .structural import bind_checked, expand_dims, moveaxis, reshape, shape_of

__all__ = [
    "factored",
    "factored_samples",
    "inverse",
    "linear_solve",
    "linear_solve_p",
    "lu",
    "lu_p",
    "pivots_to_permutation",
    "solve",
]

_INT32 = np.dtype(np.int32)


# factors --------------------------------------------------------------------------------------------------------


def _lu_shape(a: ShapedArray) -> tuple[ShapedArray, ...]:
    m, n = check_matrices("lu", a)
    stack = a.shape[:-2]
    return a.strong(), ShapedArray((*stack, min(m, n)), _INT32), ShapedArray((*stack, m), _INT32)


def _lu_impl(a: Any) -> tuple[Any, Any, Any]:
    from scipy.linalg.lapack import get_lapack_funcs  # 0.1 s to import: only where it is needed

    a = np.asarray(a)
    m, n = a.shape[-2:]
    factors, pivots = np.empty(a.shape, a.dtype), np.empty((*a.shape[:-2], min(m, n)), _INT32)
    permutation = np.empty((*a.shape[:-2], m), _INT32)
    permutation[...] = np.arange(m, dtype=_INT32)
    if a.size:
        (getrf,) = get_lapack_funcs(("getrf",), (a,))
        for k in np.ndindex(a.shape[:-2]):
            factors[k], pivots[k], _ = getrf(a[k])
            _exchange(permutation[k], pivots[k])
    return factors, pivots, permutation


def _lu_jvp(primals: Any, tangents: Any, out: Any) -> Any:
    """With ``p a = l u``: ``dl = l tril(m, -1)``, ``du = triu(m) u``, where ``m = l⁻¹ p da u⁻¹``."""
    factors, _, permutation = out
    m, n = extents(factors)
    k = min(m, n)
    t = take_along_axis(tangents[0], expand_dims(permutation, (-1,)), -2, "promise_in_bounds")
    lower = _padded(columns(lower_part(factors, -1), 0, k), m, m - k)
    lower = lower + eye_like(factors, m)
    upper = _padded(rows(upper_part(factors), 0, k), n, n - k)
    if n > k:  # the rows that u does not have: those of the identity
        row = broadcasted_iota(np.int64, (n,), 0)
        upper = upper + on_diagonal(convert_element_type(lt(np.int64(k - 1), row), aval_of(factors).dtype))
    inner = triangular_solve_p.bind(lower, t, left_side=True, lower=True, transpose_a=False, unit_diagonal=True)
    inner = triangular_solve_p.bind(upper, inner, left_side=False, lower=False, transpose_a=False, unit_diagonal=False)
    return [matmul(lower, lower_part(inner, -1)) + matmul(upper_part(inner), upper), ZERO, ZERO]


def _padded(x: Any, n: int, missing: int) -> Any:
    """A square matrix of order n with ``x`` in its corner."""
    if not missing:
        return x
    height, width = extents(x)
    config = [(0, 0, 0)] * (len(shape_of(x)) - 2) + [(0, n - height, 0), (0, n - width, 0)]
    return pad(x, aval_of(x).dtype.type(0), config)


lu_p: Primitive = Primitive(
    "lu",
    impl=_lu_impl,
    shape=_lu_shape,
    jvp=_lu_jvp,
    transpose=NotLinear(),
    batch=batch_leading(lambda a: lu_p.bind(a)),
    lower=Library("lu", operands=("columns",), results=("columns", "rows", "rows"), overwrites=((0, 0),), small=True),
    multiple_results=True,
    samples=lambda rng: [
        ((rng.normal(size=s),), {})
        for s in [(3, 3), (1, 1), (2, 4, 4), (4, 2), (2, 4), (3, 1), (2, 1, 3, 3), (0, 0), (0, 2, 2), (3, 0)]
    ],
)


def lu(a: Any) -> tuple[Any, Any, Any]:
    """``(lu, pivots, permutation)`` with partial pivoting: ``a[permutation] = L U``.

    ``lu`` holds L, whose unit diagonal is not stored, below the diagonal, and U on and above it. ``pivots[i]`` (int32,
    from 0) is the row that was exchanged with row i, ``permutation`` the order of rows that results.
    """
    factors, pivots, permutation = bind_checked(lu_p, a)
    return factors, pivots, permutation


def _permutation_shape(pivots: ShapedArray, *, rows: int) -> ShapedArray:
    if not pivots.shape or pivots.dtype != _INT32:
        raise TypeError(f"pivots: takes int32 vectors, found {pivots.dtype.name} of shape {pivots.shape}")
    if rows < pivots.shape[-1]:
        raise ValueError(f"pivots: {pivots.shape[-1]} exchanges do not fit a permutation of {rows} rows")
    return ShapedArray((*pivots.shape[:-1], rows), _INT32)


def _permutation_impl(pivots: Any, *, rows: int) -> Any:
    order = np.empty((*np.shape(pivots)[:-1], rows), _INT32)
    order[...] = np.arange(rows, dtype=_INT32)
    for k in np.ndindex(order.shape[:-1]):
        _exchange(order[k], pivots[k])
    return order


def _exchange(order: Any, pivots: Any) -> None:
    for i, j in enumerate(pivots):
        order[i], order[j] = order[j], order[i]


pivots_to_permutation_p: Primitive = Primitive(
    "pivots_to_permutation",
    impl=_permutation_impl,
    shape=_permutation_shape,
    jvp=ZeroDerivative("it acts on integers"),
    transpose=NotLinear(),
    batch=batch_leading(lambda pivots, **params: pivots_to_permutation_p.bind(pivots, **params)),
    lower=Library("permutation", operands=("vectors",), results=("rows",)),
    samples=lambda rng: [
        ((np.array(p, _INT32),), {"rows": n}) for p, n in [([2, 1, 2], 3), ([[1, 1], [0, 1]], 3), ([], 2), ([[[0]]], 1)]
    ],
)


def pivots_to_permutation(pivots: Any, size: int) -> Any:
    """The order of ``size`` rows after row i was exchanged with row ``pivots[i]``, for each i in turn (int32)."""
    return bind_checked(pivots_to_permutation_p, pivots, rows=size)


# linear systems -------------------------------------------------------------------------------------------------


def factored(a: Any) -> tuple[Any, Any, Any]:
    """``(a, lu, permutation)``: a matrix with its factors, which are constants to every derivative."""
    factors, _, permutation = bind_checked(lu_p, stop_gradient(a))
    return a, factors, permutation


def _linear_shape(
    a: ShapedArray, factors: ShapedArray, permutation: ShapedArray, b: ShapedArray, *, transpose: bool
) -> ShapedArray:
    n, _ = check_matrices("solve", a, square=True)
    height, _ = check_matrices("solve", b)
    if a.dtype != b.dtype:
        raise TypeError(f"solve: operands have dtypes {a.dtype.name} and {b.dtype.name}; convert one of them")
    if height != n or a.shape[:-2] != b.shape[:-2]:
        raise ValueError(f"solve: a of shape {a.shape} does not fit b of shape {b.shape}")
    return b.strong()


def _linear_impl(a: Any, factors: Any, permutation: Any, b: Any, *, transpose: bool) -> Any:
    from scipy.linalg.lapack import get_lapack_funcs

    out = np.empty(np.shape(b), np.asarray(b).dtype)
    if out.size == 0:
        return out
    if not np.all(np.diagonal(factors, axis1=-2, axis2=-1)):
        raise np.linalg.LinAlgError("Singular matrix")
    (getrs,) = get_lapack_funcs(("getrs",), (out,))
    own = np.arange(out.shape[-2], dtype=np.intc)  # no exchanges: the permutation is applied here
    for k in np.ndindex(out.shape[:-2]):
        order = permutation[k]
        if transpose:
            out[k][order] = getrs(factors[k], own, b[k], trans=1)[0]
        else:
            out[k] = getrs(factors[k], own, b[k][order])[0]
    return out


def _linear_jvp(primals: Any, tangents: Any, out: Any, *, transpose: bool) -> Any:
    a, factors, permutation, _ = primals
    ta, _, _, tb = tangents
    rhs = tb
    if ta is not ZERO:
        moved = neg(matmul(mT(ta) if transpose else ta, out))
        rhs = moved if tb is ZERO else tb + moved
    if rhs is ZERO:
        return ZERO
    return linear_solve_p.bind(a, factors, permutation, rhs, transpose=transpose)


def _linear_transpose(ct: Any, a: Any, factors: Any, permutation: Any, b: Any, *, transpose: bool) -> Any:
    if type(a) is Linear:
        raise TypeError("solve is not linear in its matrix")
    return None, None, None, linear_solve_p.bind(a, factors, permutation, ct, transpose=not transpose)


def _linear_batch(size: int, args: Any, dims: Any, *, transpose: bool) -> Any:
    *matrix, b = args
    *own, db = dims
    if any([d is not None for d in own]):
        moved = [batch_axis_to(x, d, size) for x, d in zip(args, dims, strict=True)]
        return linear_solve_p.bind(*moved, transpose=transpose), 0
    place = len(shape_of(b)) - 2  # one matrix for the whole batch: its right-hand sides side by side
    b = moveaxis(b, db, place)
    shape = shape_of(b)
    out = linear_solve_p.bind(
        *matrix, reshape(b, (*shape[:place], shape[place] * shape[place + 1])), transpose=transpose
    )
    return reshape(out, shape), place


def _linear_inline(a: Any, factors: Any, permutation: Any, b: Any, *, transpose: bool) -> Any:
    """Two triangular systems, with the rows of ``b``, or of the result, exchanged."""

    def half(b: Any, lower: bool) -> Any:
        return triangular_solve_p.bind(
            factors, b, left_side=True, lower=lower, transpose_a=transpose, unit_diagonal=lower
        )

    if transpose:
        order = expand_dims(inverse(permutation), (-1,))
        return take_along_axis(half(half(b, False), True), order, -2, "promise_in_bounds")
    b = take_along_axis(b, expand_dims(permutation, (-1,)), -2, "promise_in_bounds")
    return half(half(b, True), False)


def inverse(permutation: Any) -> Any:
    """The inverse of permutations in the last axis."""
    shape = shape_of(permutation)
    flat = reshape(permutation, (math.prod(shape[:-1]), shape[-1]))
    grid = shape_of(flat)
    row, column = broadcasted_iota(np.int64, grid, 0), broadcasted_iota(_INT32, grid, 1)
    index = convert_element_type(flat, np.dtype(np.int64))
    made = scatter(zeros_like(flat), column, [row, index], (0, 1), "promise_in_bounds", unique=True)
    return reshape(made, shape)


def factored_samples(rng: np.random.Generator) -> list[Any]:
    samples = []
    for s, t in [((3, 3), (3, 2)), ((2, 4, 4), (2, 4, 1)), ((1, 1), (1, 1)), ((0, 0), (0, 1)), ((2, 3, 3), (2, 3, 0))]:
        factors = rng.uniform(0.5, 1, size=s) / max(s[-1], 1) + np.eye(s[-1])
        permutation = np.argsort(rng.uniform(size=s[:-1]), axis=-1).astype(_INT32)
        for transpose in (False, True):
            samples.append(((factors, factors, permutation, rng.normal(size=t)), {"transpose": transpose}))
    return samples


linear_solve_p: Primitive = Primitive(
    "linear_solve",
    impl=_linear_impl,
    shape=_linear_shape,
    jvp=_linear_jvp,
    transpose=_linear_transpose,
    batch=_linear_batch,
    lower=Library(
        "linear_solve",
        operands=("unread", "matrix", "vectors", "rows"),
        results=("rows",),
        overwrites=((0, 2),),
        small=True,
        otherwise=_linear_inline,
    ),
    samples=factored_samples,
)


def linear_solve(matrix: tuple[Any, Any, Any], b: Any, transpose: bool = False) -> Any:
    """``x`` with ``a x = b`` (or ``aᵀ x = b``) for a matrix that comes with its factors, and ``b`` (..., n, k)."""
    *matrix_, b = broadcast_stacks("solve", (*matrix, b), (2, 2, 1, 2))
    return bind_checked(linear_solve_p, *matrix_, b, transpose=transpose)


def solve(a: Any, b: Any) -> Any:
    """``x`` with ``a x = b``, for ``b`` (..., n, k); leading axes broadcast.

    A singular matrix is a LinAlgError where it is concrete, and gives infinities and NaN in a compiled program.
    """
    return linear_solve(factored(a), b)
