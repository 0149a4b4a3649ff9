"""QR, eigenvalues and singular values.

Derivatives are safe in the gauge: where a decomposition is not unique, the parts of its derivative that nothing
determines are zero, and never NaN or infinite. So it is with the eigenvectors of equal eigenvalues (and the singular
vectors of equal or vanishing singular values), with the columns that complete a basis (``full_matrices``), and with
the phases of complex vectors. Values count as equal if they agree to rounding: to 8 eps times the
root of the order times the largest.

So symmetric functions of a group of equal values, and of the space that their vectors span (the projector on it), have
their true first derivatives; second ones are finite, and true where values are distinct. What depends on single vectors
of a group has none, and gets a finite number. Beware of ``v f(w) vᴴ``, which is a smooth function of the matrix: where
eigenvalues are equal its derivative in v mixes vectors within the group by an amount that only the limit of unequal
ones would give, and which is taken as zero here. Write such functions in closed form (``pinv``, ``expm``, ``solve``),
whose derivatives hold there too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Library
from ..core.primitive import NotLinear, Primitive
from .cholesky import positive_definite, triangular_solve
from .create import zeros_like
from .elementwise import absolute, bitwise_or, complex_, convert_element_type, div, imag, le, mul, neg, select, sub
from .lu import solve
from .matrices import (
    adjoint,
    batch_leading,
    check_matrices,
    columns,
    diagonal,
    extents,
    hermitian_part,
    lower_part,
    matmul,
    on_diagonal,
    real_diagonal,
    rows,
    scale_columns,
    scale_rows,
    separated,
)
from .reduce import reduce_max
from .shape import concatenate
from .structural import bind_checked, expand_dims, shape_of, squeeze

__all__ = [
    "eig", "eig_p", "eigh", "eigh_p", "eigvals", "eigvals_p", "eigvalsh", "eigvalsh_p", "qr", "qr_p", "svd", "svd_p",
    "svdvals", "svdvals_p",
]  # fmt: skip


def _real(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.empty(0, dtype).real.dtype


def _tolerance(values: Any, order: int) -> Any:
    """Up to which differences of ``values`` (..., n) are rounding, with two more axes."""
    size = absolute(values)
    dtype = aval_of(size).dtype
    largest = reduce_max(size, (len(shape_of(size)) - 1,))
    return expand_dims(mul(largest, dtype.type(8 * math.sqrt(order) * np.finfo(dtype).eps)), (-2, -1))


def _reciprocal(x: Any, undetermined: Any) -> Any:
    """``1 / x``, and 0 where nothing determines it."""
    one = aval_of(x).dtype.type(1)
    return select(undetermined, aval_of(x).dtype.type(0), div(one, select(undetermined, one, x)))


# qr -------------------------------------------------------------------------------------------------------------


def _qr_shape(a: ShapedArray, *, full_matrices: bool) -> tuple[ShapedArray, ...]:
    m, n = check_matrices("qr", a)
    k = m if full_matrices else min(m, n)
    stack = a.shape[:-2]
    return ShapedArray((*stack, m, k), a.dtype), ShapedArray((*stack, k, n), a.dtype)


def _qr_impl(a: Any, *, full_matrices: bool) -> tuple[Any, Any]:
    return tuple(np.linalg.qr(a, "complete" if full_matrices else "reduced"))  # type: ignore[return-value]


def _qr_thin(t: Any, q: Any, r: Any) -> tuple[Any, Any]:
    """``dq``, ``dr`` of the factors q (m, k) and r (k, k) of a matrix with tangent ``t`` (m, k)."""
    along = triangular_solve(r, t)  # t r⁻¹
    inner = matmul(adjoint(q), along)
    below = lower_part(inner, -1)
    turn = below - adjoint(below)  # skew: how q turns within its own columns
    if aval_of(inner).dtype.kind == "c":  # the diagonal of r stays real
        d = diagonal(inner)
        turn = turn + on_diagonal(complex_(zeros_like(imag(d)), imag(d)))
    return matmul(q, turn - inner) + along, matmul(inner - turn, r)


def _qr_jvp(primals: Any, tangents: Any, out: Any, *, full_matrices: bool) -> Any:
    (t,), (q, r) = tangents, out
    m, n = extents(t)
    k = min(m, n)
    thin = columns(q, 0, k)
    dq, dr = _qr_thin(columns(t, 0, k), thin, columns(rows(r, 0, k), 0, k))
    if n > k:  # the other columns: q r₂ = a₂
        rest = matmul(adjoint(thin), columns(t, k, n) - matmul(dq, columns(rows(r, 0, k), k, n)))
        dr = concatenate([dr, rest], len(shape_of(dr)) - 1)
    if full_matrices and m > k:
        other = columns(q, k, m)
        dq = concatenate([dq, neg(matmul(thin, matmul(adjoint(dq), other)))], len(shape_of(dq)) - 1)
        dr = concatenate([dr, zeros_like(rows(r, k, m))], len(shape_of(dr)) - 2)
    return [dq, dr]


qr_p: Primitive = Primitive(
    "qr",
    impl=_qr_impl,
    shape=_qr_shape,
    jvp=_qr_jvp,
    transpose=NotLinear(),
    batch=batch_leading(lambda a, **params: qr_p.bind(a, **params)),
    lower=Library("qr", operands=("rows",), results=("rows", "rows")),
    multiple_results=True,
    samples=lambda rng: [
        ((rng.normal(size=s),), {"full_matrices": f})
        for s, f in [((3, 3), False), ((4, 2), False), ((2, 4), False), ((1, 1), False), ((2, 3, 2), False),
                     ((3, 3), True), ((2, 3), True), ((0, 0), False), ((0, 3, 2), False), ((3, 0), False)]
    ],
)  # fmt: skip


def qr(a: Any, full_matrices: bool = True) -> tuple[Any, Any]:
    """``(q, r)`` with ``a = q r``, q of orthonormal columns and r upper triangular, by Householder's reflections."""
    q, r = bind_checked(qr_p, a, full_matrices=full_matrices)
    return q, r


# eigenvalues of Hermitian matrices --------------------------------------------------------------------------------


def _eigh_shape(a: ShapedArray, *, lower: bool) -> tuple[ShapedArray, ...]:
    check_matrices("eigh", a, square=True)
    return ShapedArray(a.shape[:-1], _real(a.dtype)), a.strong()


def _eigh_jvp(primals: Any, tangents: Any, out: Any, *, lower: bool) -> Any:
    """``vᴴ dv = F ∘ (vᴴ da v)`` with ``F[i, j] = 1 / (w[j] - w[i])``."""
    w, v = out
    if not shape_of(w)[-1]:
        return [zeros_like(w), zeros_like(v)]
    turned = matmul(adjoint(v), matmul(hermitian_part(tangents[0]), v))
    gaps = sub(expand_dims(w, (-2,)), expand_dims(w, (-1,)))
    inverse = _reciprocal(gaps, le(absolute(gaps), _tolerance(w, shape_of(w)[-1])))
    dv = matmul(v, mul(convert_element_type(inverse, aval_of(v).dtype), turned))
    return [real_diagonal(turned), dv]


def _spread(rng: np.random.Generator, *shape: int) -> Any:
    return positive_definite(rng, *shape) + np.diag(np.arange(shape[-1]))


eigh_p: Primitive = Primitive(
    "eigh",
    impl=lambda a, *, lower: tuple(np.linalg.eigh(a, "L" if lower else "U")),
    shape=_eigh_shape,
    jvp=_eigh_jvp,
    transpose=NotLinear(),
    batch=batch_leading(lambda a, **params: eigh_p.bind(a, **params)),
    lower=Library("eigh", operands=("columns",), results=("rows", "columns"), overwrites=((1, 0),)),
    multiple_results=True,
    samples=lambda rng: [
        ((_spread(rng, *s),), {"lower": k % 2 == 0})
        for k, s in enumerate([(3, 3), (4, 4), (1, 1), (2, 3, 3), (2, 2, 2, 2), (0, 0), (0, 2, 2)])
    ],
)


def eigh(a: Any, lower: bool = True) -> tuple[Any, Any]:
    """``(w, v)`` with ``a v = v diag(w)``, w ascending, of stacks of Hermitian matrices.

    One triangle of ``a`` is read; gradients are Hermitian. See the module's text for equal eigenvalues.
    """
    w, v = bind_checked(eigh_p, a, lower=lower)
    return w, v


def _eigvalsh_shape(a: ShapedArray, *, lower: bool) -> ShapedArray:
    check_matrices("eigvalsh", a, square=True)
    return ShapedArray(a.shape[:-1], _real(a.dtype))


def _eigvalsh_jvp(primals: Any, tangents: Any, out: Any, *, lower: bool) -> Any:
    _, v = eigh_p.bind(primals[0], lower=lower)
    return real_diagonal(matmul(adjoint(v), matmul(hermitian_part(tangents[0]), v)))


eigvalsh_p: Primitive = Primitive(
    "eigvalsh",
    impl=lambda a, *, lower: np.linalg.eigvalsh(a, "L" if lower else "U"),
    shape=_eigvalsh_shape,
    jvp=_eigvalsh_jvp,
    transpose=NotLinear(),
    batch=batch_leading(lambda a, **params: eigvalsh_p.bind(a, **params)),
    lower=Library("eigvalsh", operands=("columns",), results=("rows",)),
    samples=lambda rng: [((_spread(rng, *s),), {"lower": s != (3, 3)}) for s in [(3, 3), (1, 1), (2, 3, 3), (0, 2, 2)]],
)


def eigvalsh(a: Any, lower: bool = True) -> Any:
    """The eigenvalues of Hermitian matrices, ascending; one triangle is read."""
    return bind_checked(eigvalsh_p, a, lower=lower)


# singular values ------------------------------------------------------------------------------------------------


def _svd_shape(a: ShapedArray, *, full_matrices: bool) -> tuple[ShapedArray, ...]:
    m, n = check_matrices("svd", a)
    k, stack = min(m, n), a.shape[:-2]
    s = ShapedArray((*stack, k), _real(a.dtype))
    left, right = (m, n) if full_matrices else (k, k)
    return ShapedArray((*stack, m, left), a.dtype), s, ShapedArray((*stack, right, n), a.dtype)


def _svd_jvp(primals: Any, tangents: Any, out: Any, *, full_matrices: bool) -> Any:
    (t,) = tangents
    m, n = extents(t)
    k = min(m, n)
    u, s, vh = out
    if not k:
        return [zeros_like(u), zeros_like(s), zeros_like(vh)]
    du, ds, dv = _svd_thin(t, columns(u, 0, k), s, rows(vh, 0, k), max(m, n))
    if full_matrices and m > k:
        du = _completed(du, u, k)
    if full_matrices and n > k:
        dv = _completed(dv, adjoint(vh), k)
    return [du, ds, adjoint(dv)]


def _svd_thin(t: Any, u: Any, s: Any, vh: Any, order: int) -> tuple[Any, Any, Any]:
    v = adjoint(vh)
    inner = matmul(adjoint(u), matmul(t, v))
    tolerance = _tolerance(s, order)
    right, left = expand_dims(s, (-2,)), expand_dims(s, (-1,))
    gap, total = sub(right, left), right + left
    undetermined = bitwise_or(le(absolute(gap), tolerance), le(total, tolerance))
    squares = convert_element_type(_reciprocal(mul(gap, total), undetermined), aval_of(u).dtype)
    inverse = _reciprocal(s, le(s, squeeze(tolerance, (-1,))))
    du = mul(squares, scale_columns(inner, s) + scale_rows(adjoint(inner), s))
    dv = mul(squares, scale_rows(inner, s) + scale_columns(adjoint(inner), s))
    if aval_of(u).dtype.kind == "c":  # of the phases only their difference is determined; u takes it
        angle = mul(imag(diagonal(inner)), inverse)
        du = du + on_diagonal(complex_(zeros_like(angle), angle))
    du, dv = matmul(u, du), matmul(v, dv)
    m, k = extents(u)
    n = extents(v)[0]
    if m > k:
        along = scale_columns(matmul(t, v), inverse)
        du = du + along - matmul(u, matmul(adjoint(u), along))
    if n > k:
        along = scale_columns(matmul(adjoint(t), u), inverse)
        dv = dv + along - matmul(v, matmul(adjoint(v), along))
    return du, real_diagonal(inner), dv


def _completed(d: Any, basis: Any, k: int) -> Any:
    """The tangent of a whole basis from that of its first k columns: the others turn along, and no further."""
    first, other = columns(basis, 0, k), columns(basis, k, extents(basis)[1])
    return concatenate([d, neg(matmul(first, matmul(adjoint(d), other)))], len(shape_of(d)) - 1)


svd_p: Primitive = Primitive(
    "svd",
    impl=lambda a, *, full_matrices: tuple(np.linalg.svd(a, full_matrices)),
    shape=_svd_shape,
    jvp=_svd_jvp,
    transpose=NotLinear(),
    batch=batch_leading(lambda a, **params: svd_p.bind(a, **params)),
    lower=Library("svd", operands=("columns",), results=("columns", "rows", "columns")),
    multiple_results=True,
    samples=lambda rng: [
        ((rng.normal(size=s),), {"full_matrices": f})
        for s, f in [((3, 3), False), ((4, 2), False), ((2, 4), False), ((1, 1), False), ((2, 3, 2), False),
                     ((3, 3), True), ((0, 3, 2), False), ((0, 0), False)]
    ],
)  # fmt: skip


def _svdvals_shape(a: ShapedArray) -> ShapedArray:
    m, n = check_matrices("svdvals", a)
    return ShapedArray((*a.shape[:-2], min(m, n)), _real(a.dtype))


def _svdvals_jvp(primals: Any, tangents: Any, out: Any) -> Any:
    u, _, vh = svd_p.bind(primals[0], full_matrices=False)
    return real_diagonal(matmul(adjoint(u), matmul(tangents[0], adjoint(vh))))


svdvals_p: Primitive = Primitive(
    "svdvals",
    impl=lambda a: np.linalg.svd(a, compute_uv=False),
    shape=_svdvals_shape,
    jvp=_svdvals_jvp,
    transpose=NotLinear(),
    batch=batch_leading(lambda a: svdvals_p.bind(a)),
    lower=Library("svdvals", operands=("rows",), results=("rows",)),
    samples=lambda rng: [((rng.normal(size=s),), {}) for s in [(3, 4), (2, 3, 3), (2, 1), (0, 0), (0, 2, 2)]],
)


def svd(a: Any, full_matrices: bool = True) -> tuple[Any, Any, Any]:
    """``(u, s, vh)`` with ``a = u diag(s) vh``, s descending."""
    u, s, vh = bind_checked(svd_p, a, full_matrices=full_matrices)
    return u, s, vh


def svdvals(a: Any) -> Any:
    """The singular values, descending."""
    return bind_checked(svdvals_p, a)


# eigenvalues of general matrices ----------------------------------------------------------------------------------


def _complex(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.result_type(dtype, np.complex64)


def _eig_shape(a: ShapedArray) -> tuple[ShapedArray, ...]:
    check_matrices("eig", a, square=True)
    return ShapedArray(a.shape[:-1], _complex(a.dtype)), ShapedArray(a.shape, _complex(a.dtype))


def _eig_impl(a: Any) -> tuple[Any, Any]:
    w, v = np.linalg.eig(a)
    dtype = _complex(np.asarray(a).dtype)
    return w.astype(dtype), v.astype(dtype)


def _eig_jvp(primals: Any, tangents: Any, out: Any) -> Any:
    """As ``eigh``, with the inverse for the adjoint; vectors keep their length."""
    w, v = out
    dtype = aval_of(v).dtype
    if not shape_of(w)[-1]:
        return [zeros_like(w), zeros_like(v)]
    t = tangents[0]
    t = t if aval_of(t).dtype == dtype else convert_element_type(t, dtype)
    turned = solve(v, matmul(t, v))
    gaps = sub(expand_dims(w, (-2,)), expand_dims(w, (-1,)))
    undetermined = le(absolute(gaps), _tolerance(w, shape_of(w)[-1]))
    dv = matmul(v, mul(_reciprocal(gaps, undetermined), turned))
    lengthened = real_diagonal(matmul(adjoint(v), dv))
    return [diagonal(turned), sub(dv, scale_columns(v, lengthened))]


eig_p: Primitive = Primitive(
    "eig",
    impl=_eig_impl,
    shape=_eig_shape,
    jvp=_eig_jvp,
    transpose=NotLinear(),
    batch=batch_leading(lambda a: eig_p.bind(a)),
    lower=Library("eig", operands=("columns",), results=("rows", "columns")),
    multiple_results=True,
    samples=lambda rng: [((separated(rng, *s),), {}) for s in [(3, 3), (1, 1), (2, 2, 2), (0, 0)]],
)


def _eigvals_shape(a: ShapedArray) -> ShapedArray:
    check_matrices("eigvals", a, square=True)
    return ShapedArray(a.shape[:-1], _complex(a.dtype))


eigvals_p: Primitive = Primitive(
    "eigvals",
    impl=lambda a: np.linalg.eigvals(a).astype(_complex(np.asarray(a).dtype)),
    shape=_eigvals_shape,
    jvp=lambda primals, tangents, out: _eig_jvp(primals, tangents, eig_p.bind(primals[0]))[0],
    transpose=NotLinear(),
    batch=batch_leading(lambda a: eigvals_p.bind(a)),
    lower=Library("eigvals", operands=("columns",), results=("rows",)),
    samples=lambda rng: [((separated(rng, *s),), {}) for s in [(3, 3), (1, 1), (2, 2, 2), (0, 2, 2)]],
)


def eig(a: Any) -> tuple[Any, Any]:
    """``(w, v)`` with ``a v = v diag(w)``, always complex: whether all are real is not known while tracing.

    Vectors have length 1. See the module's text for equal eigenvalues.
    """
    w, v = bind_checked(eig_p, a)
    return w, v


def eigvals(a: Any) -> Any:
    """The eigenvalues of square matrices, always complex."""
    return bind_checked(eigvals_p, a)
