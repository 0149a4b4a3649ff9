"""Schur forms, Sylvester equations, and the square root of a matrix, whose derivative is one.

``sylvester`` solves ``a x + x b = q`` by the Schur forms of a and b, which come as operands: values follow the factors,
derivatives the matrices. Its derivative is another right-hand side, ``a dx + dx b = dq - da x - x db``, and its
transpose the equation of the transposed matrices, by the same factors; so derivatives of any order factor each matrix
once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Host, Inline, Library
from ..core.primitive import ZERO, Linear, NotDifferentiable, NotLinear, Primitive
from .elementwise import convert_element_type, neg
from .matrices import adjoint, batch_leading, broadcast_stacks, check_matrices, conj, matmul, mT, separated
from .stop import stop_gradient
from .structural import bind_checked, shape_of

__all__ = ["complex_dtype", "each_matrix", "schur", "schur_p", "sqrtm", "sqrtm_p", "sylvester", "sylvester_p"]


def complex_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.result_type(dtype, np.complex64)


def each_matrix(fun: Callable[..., Any], dtype: np.dtype[Any], *stacks: Any) -> Any:
    """``fun`` of each matrix of stacks of equal shapes, in double precision; NaN where an element is not finite."""
    first = np.asarray(stacks[0])
    out = np.empty(first.shape, dtype)
    if out.size:
        for k in np.ndindex(first.shape[:-2]):
            matrices = [x[k].astype(np.result_type(x, np.float64)) for x in map(np.asarray, stacks)]
            out[k] = fun(*matrices) if all([np.isfinite(x).all() for x in matrices]) else np.nan
    return out


# Schur forms ----------------------------------------------------------------------------------------------------


def _schur_shape(a: ShapedArray) -> tuple[ShapedArray, ...]:
    check_matrices("schur", a, square=True)
    return a.strong(), a.strong()


def _schur_impl(a: Any) -> tuple[Any, Any]:
    from scipy.linalg import schur

    a = np.asarray(a)
    t, z = np.empty(a.shape, a.dtype), np.empty(a.shape, a.dtype)
    if a.size:
        for k in np.ndindex(a.shape[:-2]):
            finite = np.isfinite(a[k]).all()
            t[k], z[k] = schur(a[k], output="complex" if a.dtype.kind == "c" else "real") if finite else (np.nan,) * 2
    return t, z


schur_p: Primitive = Primitive(
    "schur",
    impl=_schur_impl,
    shape=_schur_shape,
    jvp=NotDifferentiable(
        "a Schur form is one of many, and which one is no smooth function of the matrix; differentiate what is "
        "computed with it: solve_sylvester, sqrtm, logm, expm, eigvals"
    ),
    transpose=NotLinear(),
    batch=batch_leading(lambda a: schur_p.bind(a)),
    lower=Library("schur", operands=("columns",), results=("columns", "columns"), overwrites=((0, 0),)),
    multiple_results=True,
    samples=lambda rng: [((separated(rng, *s),), {}) for s in [(3, 3), (1, 1), (2, 4, 4), (0, 0), (0, 2, 2)]],
)


def schur(a: Any) -> tuple[Any, Any]:
    """``(t, z)`` with ``a = z t zᴴ``, z unitary; t upper triangular, of real matrices with blocks of two on the
    diagonal for complex pairs of eigenvalues."""
    t, z = bind_checked(schur_p, a)
    return t, z


# triangular equations ---------------------------------------------------------------------------------------------


def _trsyl_shape(a: ShapedArray, b: ShapedArray, c: ShapedArray, *, adjoint: bool) -> ShapedArray:
    m, _ = check_matrices("solve_sylvester", a, square=True)
    n, _ = check_matrices("solve_sylvester", b, square=True)
    stacks = {x.shape[:-2] for x in (a, b, c)}
    if check_matrices("solve_sylvester", c) != (m, n) or len(stacks) != 1:
        raise ValueError(
            f"solve_sylvester: for a of shape {a.shape} and b of shape {b.shape} q must have {m} rows and {n} columns, "
            f"found shape {c.shape}"
        )
    return c.strong()


def _trsyl_impl(a: Any, b: Any, c: Any, *, adjoint: bool) -> Any:
    from scipy.linalg.lapack import get_lapack_funcs

    c = np.asarray(c)
    out = np.empty(c.shape, np.result_type(a, b, c))
    if not out.size:
        return out
    (trsyl,) = get_lapack_funcs(("trsyl",), (out,))
    trans = "N" if not adjoint else "C" if out.dtype.kind == "c" else "T"
    for k in np.ndindex(out.shape[:-2]):
        out[k], scale, info = trsyl(a[k], b[k], c[k], trana=trans, tranb=trans)
        if info or scale != 1:
            raise np.linalg.LinAlgError(
                "solve_sylvester: a and -b have an eigenvalue in common, or nearly: the equation is singular"
            )
    return out


def _trsyl_samples(rng: np.random.Generator) -> list[Any]:
    rows = []
    for s, m, n in [((), 3, 2), ((), 1, 1), ((2,), 2, 4), ((), 0, 2), ((0,), 2, 2)]:
        a, b = (np.triu(separated(rng, *s, k, k)) for k in (m, n))
        rows += [((a, b, rng.normal(size=(*s, m, n))), {"adjoint": f}) for f in (False, True)]
    return rows


trsyl_p: Primitive = Primitive(
    "trsyl",
    impl=_trsyl_impl,
    shape=_trsyl_shape,
    jvp=NotDifferentiable("it is a part of sylvester, which has the derivative"),
    transpose=NotLinear(),
    batch=batch_leading(lambda *args, **params: trsyl_p.bind(*args, **params)),
    lower=Library("trsyl", operands=("columns", "columns", "columns"), results=("columns",), overwrites=((0, 2),)),
    samples=_trsyl_samples,
)


# Sylvester equations ------------------------------------------------------------------------------------------------


def _sylvester_shape(
    a: ShapedArray, b: ShapedArray, ta: Any, za: Any, tb: Any, zb: Any, q: ShapedArray, *, transpose: bool
) -> ShapedArray:
    return _trsyl_shape(a, b, q, adjoint=transpose)


def _sylvester_value(a: Any, b: Any, ta: Any, za: Any, tb: Any, zb: Any, q: Any, *, transpose: bool) -> Any:
    if transpose:  # what LAPACK knows is the adjoint: the conjugate of it all
        c = conj(matmul(mT(za), matmul(q, conj(zb))))
        return matmul(conj(za), matmul(conj(trsyl_p.bind(ta, tb, c, adjoint=True)), mT(zb)))
    c = matmul(adjoint(za), matmul(q, zb))
    return matmul(za, matmul(trsyl_p.bind(ta, tb, c, adjoint=False), adjoint(zb)))


def _sylvester_jvp(primals: Any, tangents: Any, out: Any, *, transpose: bool) -> Any:
    *matrices, _ = primals
    da, db, *_, dq = tangents
    parts = [] if dq is ZERO else [dq]
    if da is not ZERO:
        parts.append(neg(matmul(mT(da) if transpose else da, out)))
    if db is not ZERO:
        parts.append(neg(matmul(out, mT(db) if transpose else db)))
    if not parts:
        return ZERO
    return sylvester_p.bind(*matrices, sum(parts[1:], parts[0]), transpose=transpose)


def _sylvester_transpose(ct: Any, *operands: Any, transpose: bool) -> Any:
    *matrices, _ = operands
    if any([type(x) is Linear for x in matrices]):
        raise TypeError("solve_sylvester is not linear in its matrices")
    return *[None] * len(matrices), sylvester_p.bind(*matrices, ct, transpose=not transpose)


def _sylvester_samples(rng: np.random.Generator) -> list[Any]:
    rows = []
    for s, m, n in [((), 3, 2), ((), 1, 1), ((2,), 2, 3), ((), 0, 2)]:
        a, b = separated(rng, *s, m, m), separated(rng, *s, n, n)
        factors = *_schur_impl(a), *_schur_impl(b)
        rows += [((a, b, *factors, rng.normal(size=(*s, m, n))), {"transpose": t}) for t in (False, True)]
    return rows


sylvester_p: Primitive = Primitive(
    "sylvester",
    impl=_sylvester_value,
    shape=_sylvester_shape,
    jvp=_sylvester_jvp,
    transpose=_sylvester_transpose,
    batch=batch_leading(lambda *args, **params: sylvester_p.bind(*args, **params)),
    lower=Inline(_sylvester_value),
    samples=_sylvester_samples,
)


def sylvester(a: Any, b: Any, q: Any) -> Any:
    """``x`` with ``a x + x b = q``, for stacks of matrices of one dtype.

    Raises:
        LinAlgError: a and -b have an eigenvalue in common (compiled: the result is NaN).
    """
    a, b, q = broadcast_stacks("solve_sylvester", (a, b, q), (2, 2, 2))
    ta, za = schur(stop_gradient(a))
    tb, zb = schur(stop_gradient(b))
    return bind_checked(sylvester_p, a, b, ta, za, tb, zb, q, transpose=False)


# square roots -----------------------------------------------------------------------------------------------------


def _sqrtm_impl(a: Any) -> Any:
    from scipy.linalg import sqrtm

    return each_matrix(sqrtm, complex_dtype(np.asarray(a).dtype), a)


def _sqrtm_shape(a: ShapedArray) -> ShapedArray:
    check_matrices("sqrtm", a, square=True)
    return ShapedArray(a.shape, complex_dtype(a.dtype))


def _sqrtm_jvp(primals: Any, tangents: Any, x: Any) -> Any:
    """``x dx + dx x = da``."""
    t, dtype = tangents[0], aval_of(x).dtype
    t = t if aval_of(t).dtype == dtype else convert_element_type(t, dtype)
    if 0 in shape_of(x):
        return t
    factors = schur(stop_gradient(x))
    return sylvester_p.bind(x, x, *factors, *factors, t, transpose=False)


sqrtm_p: Primitive = Primitive(
    "sqrtm",
    impl=_sqrtm_impl,
    shape=_sqrtm_shape,
    jvp=_sqrtm_jvp,
    transpose=NotLinear(),
    batch=batch_leading(lambda a: sqrtm_p.bind(a)),
    lower=Host("SciPy's square root of a triangular matrix has no C interface; the derivative runs LAPACK"),
    samples=lambda rng: [((separated(rng, *s),), {}) for s in [(3, 3), (1, 1), (2, 2, 2), (0, 0)]],
)


def sqrtm(a: Any) -> Any:
    """The principal square root, complex always: whether it is real depends on the values."""
    return bind_checked(sqrtm_p, a)
