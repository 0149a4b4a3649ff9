"""Determinants, by LU factors, with the derivatives of the polynomial that they are.

``det``'s derivative is the matrix of cofactors, ``det(a) a⁻ᵀ``, which is finite at singular matrices where its factors
are not. Its value comes from the LU factors; its derivative from a matrix with three more rows and columns,

    m = (a     s u₃)        det(a) = det(m) det(k),  where  m⁻¹ = (p  b)
        (s v₃ᴴ   0 )                                               (c  k)

(Jacobi's identity; u₃ and v₃ are singular vectors of the three smallest singular values, constants, and s is the
largest value). ``m`` is regular where a's rank is n - 3 or more, and ``k`` has 3 rows, so that its determinant is
written out. At lower rank the second derivative is zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Inline
from ..core.primitive import ZERO, NotLinear, Primitive
from .create import broadcasted_iota, zeros_like
from .elementwise import (
    absolute,
    bitwise_and,
    complex_,
    convert_element_type,
    div,
    eq,
    imag,
    lt,
    mul,
    real,
    select,
)
from .lu import factored, factored_samples, linear_solve_p, solve
from .matrices import (
    batch_leading,
    check_matrices,
    columns,
    diagonal,
    entry,
    eye_like,
    matmul,
    mT,
    on_diagonal,
    rows,
    scale_columns,
)
from .reduce import reduce_max, reduce_prod
from .shape import concatenate
from .spectral import svd
from .stop import stop_gradient
from .structural import broadcast_to, expand_dims, reduce_sum, shape_of
from .transcendental import log

__all__ = ["det", "slogdet"]

_BORDER = 3


def _parity(permutation: Any, dtype: np.dtype[Any]) -> Any:
    """1 or -1, from the number of pairs that are out of order."""
    n = shape_of(permutation)[-1]
    first, second = expand_dims(permutation, (-1,)), expand_dims(permutation, (-2,))
    row, column = broadcasted_iota(np.int64, (n, n), 0), broadcasted_iota(np.int64, (n, n), 1)
    wrong = convert_element_type(bitwise_and(lt(second, first), lt(row, column)), np.dtype(np.int64))
    axes = tuple(range(len(shape_of(wrong)) - 2, len(shape_of(wrong))))
    odd = eq(bitwise_and(reduce_sum(wrong, axes), np.int64(1)), np.int64(1))
    return select(odd, dtype.type(-1), dtype.type(1))


def _determinant_shape(a: ShapedArray, factors: ShapedArray, permutation: ShapedArray) -> ShapedArray:
    check_matrices("det", a, square=True)
    return ShapedArray(a.shape[:-2], a.dtype)


def _det_value(a: Any, factors: Any, permutation: Any) -> Any:
    d = diagonal(factors)
    return mul(reduce_prod(d, (len(shape_of(d)) - 1,)), _parity(permutation, aval_of(a).dtype))


def _over_matrix(fold: Any, x: Any) -> Any:
    rank = len(shape_of(x))
    return fold(x, (rank - 2, rank - 1))


def _traced(x: Any) -> Any:
    """The traces, with axes of extent 1 where the matrices were."""
    d = diagonal(x)
    return expand_dims(reduce_sum(d, (len(shape_of(d)) - 1,)), (-2, -1))


def _det_jvp(primals: Any, tangents: Any, out: Any) -> Any:
    return ZERO if tangents[0] is ZERO else _over_matrix(reduce_sum, mul(_cofactors_p.bind(*primals), tangents[0]))


_det_p: Primitive = Primitive(
    "det",
    impl=lambda a, factors, permutation: _det_value(a, factors, permutation),
    shape=_determinant_shape,
    jvp=_det_jvp,
    transpose=NotLinear(),
    batch=batch_leading(lambda *args: _det_p.bind(*args)),
    lower=Inline(_det_value),
    samples=lambda rng: [(args[:3], {}) for args, params in factored_samples(rng) if not params["transpose"]],
)


def det(a: Any) -> Any:
    """The determinants. Derivatives to the second order are right at singular matrices too."""
    n, _ = check_matrices("det", aval_of(a), square=True)
    if n == 0 or n > _BORDER:
        return _det_p.bind(*factored(a))
    x = [[entry(a, i, j) for j in range(n)] for i in range(n)]
    if n == 1:
        return x[0][0]
    if n == 2:
        return x[0][0] * x[1][1] - x[0][1] * x[1][0]
    minors = [x[1][j] * x[2][k] - x[1][k] * x[2][j] for j, k in ((1, 2), (2, 0), (0, 1))]
    return x[0][0] * minors[0] + x[0][1] * minors[1] + x[0][2] * minors[2]


# cofactors ------------------------------------------------------------------------------------------------------


def _cofactors_value(a: Any, factors: Any, permutation: Any) -> Any:
    """``det(a) a⁻ᵀ``: zero pivots are replaced by tiny ones, which changes that polynomial's value by as little."""
    d = diagonal(factors)
    size = absolute(d)
    dtype = aval_of(size).dtype
    largest = reduce_max(size, (len(shape_of(size)) - 1,)) if shape_of(size)[-1] else size
    tiny = mul(largest, dtype.type(1e-12 if dtype == np.float32 else 1e-60))
    tiny = select(eq(tiny, dtype.type(0)), dtype.type(1e-12), tiny)
    missing = select(eq(size, dtype.type(0)), expand_dims(tiny, (-1,)), dtype.type(0))
    regular = factors + on_diagonal(convert_element_type(missing, aval_of(a).dtype))
    unit = broadcast_to(eye_like(a, shape_of(a)[-1]), shape_of(a))
    inverse = linear_solve_p.bind(a, regular, permutation, unit, transpose=True)
    return mul(expand_dims(_det_value(a, regular, permutation), (-2, -1)), inverse)


def _cofactors_jvp(primals: Any, tangents: Any, out: Any) -> Any:
    """The product rule in ``cᵀ = det(m) (det(k) p - b adj(k) c)``."""
    if tangents[0] is ZERO:
        return ZERO
    a, t = primals[0], tangents[0]
    n = shape_of(a)[-1]
    m = _bordered(a)
    size = n + _BORDER
    w = solve(m, broadcast_to(eye_like(m, size), shape_of(m)))
    upper, lower = rows(w, 0, n), rows(w, n, size)
    p, b, c, k = columns(upper, 0, n), columns(upper, n, size), columns(lower, 0, n), columns(lower, n, size)
    pt, ct = matmul(p, t), matmul(c, t)
    dp, db, dc, dk = matmul(pt, p), matmul(pt, b), matmul(ct, p), matmul(ct, b)  # all times -1
    adj = _adjugate(k)
    det_k = expand_dims(det(k), (-2, -1))
    value = mul(det_k, p) - matmul(matmul(b, adj), c)
    change = mul(_traced(pt), value) - mul(_traced(matmul(adj, dk)), p) - mul(det_k, dp)
    change = change + matmul(matmul(db, adj), c) + matmul(matmul(b, adj), dc)
    change = change + matmul(matmul(b, _adjugate_tangent(k, dk)), c)
    return mT(mul(expand_dims(_det_p.bind(*factored(m)), (-2, -1)), change))


def _bordered(a: Any) -> Any:
    """The matrix ``m`` of the module's text. Further singular values that are lost are replaced by tiny ones: what is
    computed is zero there."""
    n, dtype = shape_of(a)[-1], aval_of(a).dtype
    u, s, vh = svd(stop_gradient(a))
    kind = aval_of(s).dtype
    largest = reduce_max(s, (len(shape_of(s)) - 1,))
    scale = expand_dims(select(eq(largest, kind.type(0)), kind.type(1), largest), (-1,))
    tiny = mul(scale, np.finfo(kind).eps)
    lost = bitwise_and(lt(s, tiny), lt(broadcasted_iota(np.int64, (n,), 0), np.int64(n - _BORDER)))
    a = a + matmul(scale_columns(u, select(lost, broadcast_to(tiny, shape_of(s)), kind.type(0))), vh)
    scale = expand_dims(convert_element_type(scale, dtype), (-1,))
    right, below = mul(scale, columns(u, n - _BORDER, n)), mul(scale, rows(vh, n - _BORDER, n))
    corner = columns(zeros_like(below), 0, _BORDER)
    rank = len(shape_of(a))
    return concatenate([concatenate([a, right], rank - 1), concatenate([below, corner], rank - 1)], rank - 2)


def _adjugate(k: Any) -> Any:
    """Of matrices with three rows, by the theorem of Cayley and Hamilton."""
    square, trace = matmul(k, k), _traced(k)
    half = aval_of(k).dtype.type(0.5)
    return square - mul(trace, k) + mul(mul(half, mul(trace, trace) - _traced(square)), eye_like(k, _BORDER))


def _adjugate_tangent(k: Any, t: Any) -> Any:
    product, trace, change = matmul(k, t), _traced(k), _traced(t)
    outer = product + matmul(t, k) - mul(change, k) - mul(trace, t)
    return outer + mul(mul(trace, change) - _traced(product), eye_like(k, _BORDER))


_cofactors_p: Primitive = Primitive(
    "cofactors",
    impl=lambda a, factors, permutation: _cofactors_value(a, factors, permutation),
    shape=lambda a, factors, permutation: a.strong(),
    jvp=_cofactors_jvp,
    transpose=NotLinear(),
    batch=batch_leading(lambda *args: _cofactors_p.bind(*args)),
    lower=Inline(_cofactors_value),
    samples=lambda rng: [
        (args[:3], {})
        for args, params in factored_samples(rng)
        if not params["transpose"] and shape_of(args[0])[-1] > _BORDER
    ],
)


# logarithms -----------------------------------------------------------------------------------------------------


def _trace_of_solve(a: Any, factors: Any, permutation: Any, t: Any) -> Any:
    """``tr(a⁻¹ t)``."""
    d = diagonal(linear_solve_p.bind(a, factors, permutation, t, transpose=False))
    return reduce_sum(d, (len(shape_of(d)) - 1,))


def _slogdet_shape(a: ShapedArray, factors: ShapedArray, permutation: ShapedArray) -> tuple[ShapedArray, ...]:
    check_matrices("slogdet", a, square=True)
    real = np.empty(0, a.dtype).real.dtype
    return ShapedArray(a.shape[:-2], a.dtype), ShapedArray(a.shape[:-2], real)


def _slogdet_value(a: Any, factors: Any, permutation: Any) -> tuple[Any, Any]:
    d = diagonal(factors)
    size = absolute(d)
    dtype, last = aval_of(a).dtype, (len(shape_of(d)) - 1,)
    signs = div(d, convert_element_type(size, dtype))
    signs = select(eq(size, aval_of(size).dtype.type(0)), dtype.type(0), signs)  # also where there is none
    return mul(reduce_prod(signs, last), _parity(permutation, dtype)), reduce_sum(log(size), last)


def _slogdet_impl(a: Any, factors: Any, permutation: Any) -> tuple[Any, Any]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return _slogdet_value(a, factors, permutation)


def _slogdet_jvp(primals: Any, tangents: Any, out: Any) -> Any:
    """d log det = tr(a⁻¹ da): its real part belongs to the logarithm, its imaginary part turns the sign."""
    if tangents[0] is ZERO:
        return [ZERO, ZERO]
    a, factors, permutation = primals
    t = _trace_of_solve(a, factors, permutation, tangents[0])
    if aval_of(t).dtype.kind != "c":
        return [ZERO, t]
    angle = imag(t)
    return [mul(out[0], complex_(zeros_like(angle), angle)), real(t)]


_slogdet_p: Primitive = Primitive(
    "slogdet",
    impl=_slogdet_impl,
    shape=_slogdet_shape,
    jvp=_slogdet_jvp,
    transpose=NotLinear(),
    batch=batch_leading(lambda *args: _slogdet_p.bind(*args)),
    lower=Inline(_slogdet_value),
    multiple_results=True,
    samples=lambda rng: [(args[:3], {}) for args, params in factored_samples(rng) if not params["transpose"]],
)


def slogdet(a: Any) -> tuple[Any, Any]:
    """Sign (of modulus 1; 0 if singular) and logarithm of the modulus of the determinants."""
    check_matrices("slogdet", aval_of(a), square=True)
    sign, logarithm = _slogdet_p.bind(*factored(a))
    return sign, logarithm
