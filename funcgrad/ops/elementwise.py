"""Arithmetic, comparison, logic, selection and conversion, element by element.

Rules at ties and kinks follow JAX: d max(x, y) splits evenly, d|x| at 0 is that from the right. Where a derivative's
factor may be infinite the product is ``mul_no_nan``, in which zero times anything is zero: a cotangent that ``where``
has masked stays zero instead of becoming NaN. The product is bilinear with itself as its rule, so second derivatives
hold.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.primitive import ZERO, Linear, NotDifferentiable, NotLinear, ZeroDerivative
from ..core.trace import Tracer
from .families import binary, broadcast_shapes, elementwise, of_numbers, predicate, unary
from .structural import broadcast_to, shape_of, unbroadcast

_STEP = ZeroDerivative("it is constant between its steps")
_INTEGER = ZeroDerivative("it acts on integers and booleans")


# arithmetic -----------------------------------------------------------------------------------------------------

neg_p = unary("neg", np.negative, jvp=lambda t, y, x: -t, transpose=lambda ct, x: (-ct,), kinds="iufc")

_FLOATS = frozenset((float, np.float64))

add_p = binary(
    "add",
    of_numbers(np.add, operator.add, _FLOATS),
    jvp=(lambda t, z, x, y: t, lambda t, z, x, y: t),
    transpose=(lambda ct, x, y: ct, lambda ct, x, y: ct),
    kinds="biufc",
)

sub_p = binary(
    "sub",
    of_numbers(np.subtract, operator.sub, _FLOATS),
    jvp=(lambda t, z, x, y: t, lambda t, z, x, y: -t),
    transpose=(lambda ct, x, y: ct, lambda ct, x, y: -ct),
    kinds="iufc",
)

mul_p = binary(
    "mul",
    of_numbers(np.multiply, operator.mul, _FLOATS),
    jvp=(lambda t, z, x, y: t * y, lambda t, z, x, y: t * x),
    transpose=(lambda ct, x, y: ct * y, lambda ct, x, y: x * ct),
    bilinear=True,
    kinds="biufc",
)


def _mul_no_nan_impl(x: Any, y: Any) -> Any:
    if type(x) is np.float64 and type(y) is np.float64:
        return np.float64(float.__mul__(x, y) if x and y else 0.0)  # warns of nothing
    with np.errstate(invalid="ignore", over="ignore"):
        product = np.multiply(x, y)
    return np.where((np.asarray(x) == 0) | (np.asarray(y) == 0), product.dtype.type(0), product)


mul_no_nan_p = binary(
    "mul_no_nan",
    _mul_no_nan_impl,
    jvp=(lambda t, z, x, y: mul_no_nan(t, y), lambda t, z, x, y: mul_no_nan(x, t)),
    transpose=(lambda ct, x, y: mul_no_nan(ct, y), lambda ct, x, y: mul_no_nan(x, ct)),
    bilinear=True,
    kinds="fc",
)
mul_no_nan = mul_no_nan_p.bind

div_p = binary(
    "div",
    of_numbers(np.true_divide, operator.truediv, frozenset((np.float64,))),  # a float / 0.0 raises
    jvp=(
        lambda t, z, x, y: mul_no_nan(t, 1.0 / y),
        lambda t, z, x, y: mul_no_nan(-t, z * (1.0 / y)),  # the other rule's quotient: one division serves both
    ),
    transpose=(lambda ct, x, y: ct / y, None),
    domain=((-2, 2), (0.5, 2)),
)

floor_divide_p = binary("floor_divide", np.floor_divide, jvp=_STEP, kinds="iuf", domain=((-5, 5), (0.6, 2)))

remainder_p = binary(
    "remainder",
    np.remainder,
    jvp=(lambda t, z, x, y: t, lambda t, z, x, y: -t * floor_divide(x, y)),
    kinds="iuf",
    domain=((-5, 5), (1.6, 2)),
)

fmod_p = binary(
    "fmod",
    np.fmod,
    jvp=(lambda t, z, x, y: t, lambda t, z, x, y: -t * trunc(x / y)),
    kinds="iuf",
    domain=((-5, 5), (1.6, 2)),
)

max_p = binary(
    "max",
    np.maximum,
    jvp=(lambda t, z, x, y: t * tie_weight(x, y, z), lambda t, z, x, y: t * tie_weight(y, x, z)),
    kinds="biufc",
)

min_p = binary(
    "min",
    np.minimum,
    jvp=(lambda t, z, x, y: t * tie_weight(x, y, z), lambda t, z, x, y: t * tie_weight(y, x, z)),
    kinds="biufc",
)


def tie_weight(x: Any, y: Any, extreme: Any) -> Any:
    """1 where ``x`` is the extreme of the two, 0 where ``y`` is, 1/2 where they tie."""
    dtype = aval_of(extreme).dtype
    one, half, zero = (dtype.type(v) for v in (1, 0.5, 0))
    return select(eq(x, extreme), select(eq(x, y), half, one), zero)


abs_p = unary(
    "abs",
    np.abs,
    jvp=lambda t, y, x: _abs_jvp(t, y, x),
    kinds="iufc",
    result=lambda dtype: np.empty(0, dtype).real.dtype,
    domain=(0.1, 2.0),
)


def _abs_jvp(t: Any, y: Any, x: Any) -> Any:
    if aval_of(x).dtype.kind != "c":
        one = aval_of(x).dtype.type(1)
        return t * select(lt(x, one * 0), -one, one)  # at 0 as from the right: second derivatives of |x|**2 are 2
    safe = select(eq(y, y * 0), y * 0 + 1, y)
    return real(t * (conj(x) / convert_element_type(safe, aval_of(x).dtype)))


sign_p = unary("sign", np.sign, jvp=_STEP, kinds="iufc", domain=(0.1, 2.0))
floor_p = unary("floor", np.floor, jvp=_STEP, kinds="f")
ceil_p = unary("ceil", np.ceil, jvp=_STEP, kinds="f")
trunc_p = unary("trunc", np.trunc, jvp=_STEP, kinds="f")
rint_p = unary("rint", np.rint, jvp=_STEP, kinds="f")

square_p = unary("square", np.square, jvp=lambda t, y, x: t * (2 * x), kinds="iufc")
reciprocal_p = unary(
    "reciprocal", np.reciprocal, jvp=lambda t, y, x: mul_no_nan(-t, y * y), kinds="fc", domain=(0.5, 2)
)


def _integer_pow_shape(x: ShapedArray, *, y: int) -> ShapedArray:
    if y < 0 and x.dtype.kind in "biu":
        raise ValueError("integers to negative integer powers are not allowed; convert to float first")
    return x


def _integer_pow_impl(x: Any, *, y: int) -> Any:
    dtype = getattr(x, "dtype", None)
    return np.power(x, y if dtype is None or dtype.kind not in "fc" else dtype.type(y))


def _integer_pow_jvp(primals: Any, tangents: Any, out: Any, *, y: int) -> Any:
    if y == 0:
        return ZERO
    slope = integer_pow(primals[0], y - 1) * y
    return tangents[0] * slope if y > 0 else mul_no_nan(tangents[0], slope)


integer_pow_p = elementwise(
    "integer_pow",
    _integer_pow_impl,
    shape=_integer_pow_shape,
    jvp=_integer_pow_jvp,
    transpose=NotLinear(),
    samples=lambda rng: [((rng.uniform(0.5, 2, size=(2, 3)),), {"y": k}) for k in (-3, -1, 0, 1, 2, 3, 7)],
)


def integer_pow(x: Any, y: int) -> Any:
    """``x**y`` for a static integer ``y``."""
    if y == 1:
        return x
    if y == 2:
        return square_p.bind(x)
    return integer_pow_p.bind(x, y=y)


copysign_p = binary(
    "copysign",
    np.copysign,
    jvp=(lambda t, z, x, y: t * (copysign(x * 0 + 1, y) * copysign(x * 0 + 1, x)), None),
    kinds="f",
)
nextafter_p = binary(
    "nextafter", np.nextafter, jvp=NotDifferentiable("nextafter steps through floats one by one"), kinds="f"
)


# comparison and logic -------------------------------------------------------------------------------------------

eq_p = predicate("eq", np.equal, arity=2, kinds="biufc")
ne_p = predicate("ne", np.not_equal, arity=2, kinds="biufc")
lt_p = predicate("lt", np.less, arity=2, kinds="biufc")
le_p = predicate("le", np.less_equal, arity=2, kinds="biufc")
gt_p = predicate("gt", np.greater, arity=2, kinds="biufc")
ge_p = predicate("ge", np.greater_equal, arity=2, kinds="biufc")
is_finite_p = predicate("is_finite", np.isfinite, arity=1, kinds="biufc")
is_nan_p = predicate("is_nan", np.isnan, arity=1, kinds="biufc")
is_inf_p = predicate("is_inf", np.isinf, arity=1, kinds="biufc")

and_p = binary("and", np.bitwise_and, jvp=_INTEGER, kinds="biu")
or_p = binary("or", np.bitwise_or, jvp=_INTEGER, kinds="biu")
xor_p = binary("xor", np.bitwise_xor, jvp=_INTEGER, kinds="biu")
not_p = unary("not", np.invert, jvp=_INTEGER, kinds="biu")
shift_left_p = binary("shift_left", np.left_shift, jvp=_INTEGER, kinds="iu", domain=((-9, 9), (0, 5)))
shift_right_p = binary("shift_right", np.right_shift, jvp=_INTEGER, kinds="iu", domain=((-9, 9), (0, 5)))
population_count_p = unary(
    "population_count", lambda x: np.bitwise_count(x).astype(x.dtype), jvp=_INTEGER, kinds="iu", domain=(0, 99)
)


# selection ------------------------------------------------------------------------------------------------------


def _select_shape(c: ShapedArray, x: ShapedArray, y: ShapedArray) -> ShapedArray:
    if c.dtype.kind != "b":
        raise TypeError(f"select: the condition has dtype {c.dtype.name}, not bool")
    if x.dtype != y.dtype:
        raise TypeError(f"select: the cases have dtypes {x.dtype.name} and {y.dtype.name}; convert one of them")
    return ShapedArray(broadcast_shapes("select", [c.shape, x.shape, y.shape]), x.dtype, x.weak_type and y.weak_type)


def _select_jvp(primals: Any, tangents: Any, out: Any) -> Any:
    c, (_, tx, ty) = primals[0], tangents
    zero = aval_of(out).dtype.type(0)
    t = select(c, zero if tx is ZERO else tx, zero if ty is ZERO else ty)
    shape = shape_of(out)
    return broadcast_to(t, shape) if any(shape_of(p) != shape for p in primals) else t


def _select_transpose(ct: Any, c: Any, x: Any, y: Any) -> Any:
    zero = aval_of(ct).dtype.type(0)
    return (
        None,
        unbroadcast(select(c, ct, zero), x) if type(x) is Linear else None,
        unbroadcast(select(c, zero, ct), y) if type(y) is Linear else None,
    )


select_p = elementwise(
    "select",
    np.where,
    shape=_select_shape,
    jvp=_select_jvp,
    transpose=_select_transpose,
    samples=lambda rng: [
        ((rng.random(s) < 0.5, rng.normal(size=s), rng.normal(size=t)), {})
        for s, t in [((3, 4), (3, 4)), ((2, 3), (3,)), ((), ())]
    ],
)


# conversion -----------------------------------------------------------------------------------------------------


def _convert_jvp(primals: Any, tangents: Any, out: Any, *, dtype: np.dtype[Any], weak: bool) -> Any:
    return convert_element_type(tangents[0], dtype) if dtype.kind in "fc" else ZERO


def _convert_transpose(ct: Any, x: Any, *, dtype: np.dtype[Any], weak: bool) -> Any:
    return (convert_element_type(real(ct) if x.aval.dtype.kind != "c" and dtype.kind == "c" else ct, x.aval.dtype),)


def _convert_impl(x: Any, *, dtype: np.dtype[Any], weak: bool) -> Any:
    x = np.asarray(x)
    if x.dtype.kind == "c" and dtype.kind != "c" and dtype.kind != "b":
        x = x.real
    with np.errstate(invalid="ignore", over="ignore"):
        return x.astype(dtype)


convert_p = elementwise(
    "convert",
    _convert_impl,
    shape=lambda x, *, dtype, weak: ShapedArray(x.shape, dtype, weak),
    jvp=_convert_jvp,
    transpose=_convert_transpose,
    samples=lambda rng: [
        ((rng.normal(size=(2, 3)).astype(a),), {"dtype": np.dtype(b), "weak": False})
        for a, b in [("f8", "f4"), ("f4", "f8"), ("f8", "c16"), ("c16", "f8"), ("f8", "i4"), ("i8", "f8"), ("f8", "?")]
    ],
)


def convert_element_type(x: Any, dtype: Any, weak: bool = False) -> Any:
    """``x`` in ``dtype``; complex to real drops the imaginary part."""
    dtype = np.dtype(dtype)
    aval = aval_of(x)
    if aval.dtype == dtype:
        if aval.weak_type == weak:
            return x
        strong = x.strengthened() if isinstance(x, Tracer) and not weak else None
        if strong is not None:
            return strong
    return convert_p.bind(x, dtype=dtype, weak=weak)


# complex --------------------------------------------------------------------------------------------------------


def _complex_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.complex64 if dtype.itemsize <= 4 else np.complex128)


def _complex_impl(x: Any, y: Any) -> Any:
    out = np.empty(np.broadcast_shapes(np.shape(x), np.shape(y)), _complex_dtype(np.result_type(x, y)))
    out.real, out.imag = x, y
    return out


def _real_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.empty(0, dtype).real.dtype


real_p = unary(
    "real",
    lambda x: np.array(np.real(x)),
    jvp=lambda t, y, x: real(t),
    transpose=lambda ct, x: (complex_(ct, ct * 0),),
    kinds="c",
    result=_real_of,
)
imag_p = unary(
    "imag",
    lambda x: np.array(np.imag(x)),
    jvp=lambda t, y, x: imag(t),
    transpose=lambda ct, x: (complex_(ct * 0, -ct),),
    kinds="c",
    result=_real_of,
)
complex_p = binary(
    "complex",
    _complex_impl,
    jvp=(lambda t, z, x, y: complex_(t, t * 0), lambda t, z, x, y: complex_(t * 0, t)),
    transpose=(lambda ct, x, y: real(ct), lambda ct, x, y: -imag(ct)),
    kinds="f",
    result=_complex_dtype,
)
conj_p = unary("conj", np.conj, jvp=lambda t, y, x: conj(t), transpose=lambda ct, x: (conj(ct),), kinds="c")

neg, add, sub, mul, div = neg_p.bind, add_p.bind, sub_p.bind, mul_p.bind, div_p.bind
floor_divide, remainder, fmod = floor_divide_p.bind, remainder_p.bind, fmod_p.bind
maximum, minimum, absolute, sign = max_p.bind, min_p.bind, abs_p.bind, sign_p.bind
floor, ceil, trunc, rint = floor_p.bind, ceil_p.bind, trunc_p.bind, rint_p.bind
square, reciprocal, copysign, nextafter = square_p.bind, reciprocal_p.bind, copysign_p.bind, nextafter_p.bind
eq, ne, lt, le, gt, ge = eq_p.bind, ne_p.bind, lt_p.bind, le_p.bind, gt_p.bind, ge_p.bind
is_finite, is_nan, is_inf = is_finite_p.bind, is_nan_p.bind, is_inf_p.bind
bitwise_and, bitwise_or, bitwise_xor, bitwise_not = and_p.bind, or_p.bind, xor_p.bind, not_p.bind
shift_left, shift_right, population_count = shift_left_p.bind, shift_right_p.bind, population_count_p.bind
select, real, imag, complex_, conj = select_p.bind, real_p.bind, imag_p.bind, complex_p.bind, conj_p.bind
