"""NumPy's ufuncs on tracers: a table from ufunc to primitive, and the calling convention they all share.

``funcgrad.numpy.sin`` *is* ``np.sin``: a ufunc finds the tracers among its operands by itself and asks
``call_ufunc``, which promotes as NumPy would (``ufunc.resolve_dtypes``) and binds the primitive. Entries of the table
get operands of the dtypes of NumPy's loop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from ..core.avals import aval_of
from ..core.trace import Tracer, user_source
from ..errors import TracerArrayError
from ..ops import elementwise as ew
from ..ops import transcendental as tr
from ..ops.families import broadcast_shapes
from ..ops.operators import power
from ..ops.promotion import as_dtype, loop_dtypes, promotion_key
from ..ops.structural import broadcast_to, shape_of
from .dispatch import operand, public_name
from .memory import clone, write

__all__ = ["FOREIGN_UFUNCS", "UFUNCS", "call_ufunc", "is_inplace_operator", "quick_ufunc", "store"]

Bind = Callable[..., Any]


def _kind(x: Any) -> str:
    return aval_of(x).dtype.kind


def _constant(like: Any, value: Any) -> Any:
    return aval_of(like).dtype.type(value)


# definitions in terms of other primitives ------------------------------------------------------------------------


def _on(kinds: str, bind: Bind) -> Bind:
    """``bind`` for the dtype kinds it is made for; on all others the function is the identity."""
    return lambda x: bind(x) if _kind(x) in kinds else x


def _scaled(factor: float) -> Bind:
    return lambda x: ew.mul(x, _constant(x, factor))


def _rint(x: Any) -> Any:
    return ew.complex_(ew.rint(ew.real(x)), ew.rint(ew.imag(x))) if _kind(x) == "c" else ew.rint(x)


def _reciprocal(x: Any) -> Any:
    if _kind(x) in "fc":
        return ew.reciprocal(x)
    one, zero = _constant(x, 1), _constant(x, 0)
    other = ew.select(ew.eq(x, _constant(x, -1)), _constant(x, -1), zero) if _kind(x) == "i" else zero
    return ew.select(ew.eq(x, one), one, other)


def _signbit(x: Any) -> Any:
    return ew.lt(ew.copysign(_constant(x, 1), x), _constant(x, 0))


def _heaviside(x: Any, at_zero: Any) -> Any:
    one, zero = _constant(x, 1), _constant(x, 0)
    step = ew.select(ew.lt(x, zero), zero, ew.select(ew.eq(x, zero), at_zero, one))
    return ew.select(ew.is_nan(x), x, step)


def _truth(x: Any) -> Any:
    return x if _kind(x) == "b" else ew.ne(x, _constant(x, 0))


def _logical(bind: Bind) -> Bind:
    return lambda *xs: bind(*[_truth(x) for x in xs])


def _ignoring_nan(bind: Bind) -> Bind:
    def extreme(x: Any, y: Any) -> Any:
        if _kind(x) not in "fc":
            return bind(x, y)
        return ew.select(ew.is_nan(x), y, ew.select(ew.is_nan(y), x, bind(x, y)))

    return extreme


def _float_power(x: Any, y: Any) -> Any:
    return tr.pow_(x, y)


def _ldexp(x: Any, exponent: Any) -> Any:
    dtype = aval_of(x).dtype
    limit = exponent.dtype.type(int(np.finfo(dtype).maxexp) - 2)
    for _ in range(3):  # three powers that are finite reach from the largest number to the smallest
        part = ew.minimum(ew.maximum(exponent, -limit), limit)
        exponent = ew.sub(exponent, part)
        x = ew.mul(x, tr.exp2(ew.convert_element_type(part, dtype)))
    return x


def _modf(x: Any) -> tuple[Any, Any]:
    whole = ew.trunc(x)
    rest = ew.select(ew.is_inf(x), _constant(x, 0), ew.sub(x, whole))
    return ew.copysign(rest, x), whole


def _bitwise_count(x: Any) -> Any:
    return ew.convert_element_type(ew.population_count(x), np.uint8)


def _compare(bind: Bind, flipped: Bind, signed_is_below: bool) -> Bind:
    """Comparison, also of int64 with uint64, which NumPy compares as numbers without a common dtype."""

    def compare(x: Any, y: Any) -> Any:
        kinds = _kind(x) + _kind(y)
        if kinds == "ui":
            return _compare(flipped, bind, not signed_is_below)(y, x)
        if kinds == "iu":
            negative = ew.lt(x, _constant(x, 0))
            other = bind(ew.convert_element_type(x, aval_of(y).dtype), y)
            if signed_is_below:
                return ew.bitwise_or(negative, other)
            return ew.bitwise_and(ew.bitwise_not(negative), other)
        return bind(x, y)

    return compare


UFUNCS: Final[dict[np.ufunc, Bind]] = {
    # arithmetic
    np.add: ew.add, np.subtract: ew.sub, np.multiply: ew.mul, np.true_divide: ew.div,
    np.floor_divide: ew.floor_divide, np.remainder: ew.remainder, np.fmod: ew.fmod,
    np.divmod: lambda x, y: (ew.floor_divide(x, y), ew.remainder(x, y)),
    np.negative: ew.neg, np.positive: lambda x: x, np.absolute: _on("iufc", ew.absolute), np.fabs: ew.absolute,
    np.sign: ew.sign, np.square: ew.square, np.reciprocal: _reciprocal, np.conjugate: _on("c", ew.conj),
    np.power: tr.pow_, np.float_power: _float_power, np.sqrt: tr.sqrt, np.cbrt: tr.cbrt, np.hypot: tr.hypot,
    # rounding and floating point
    np.floor: _on("f", ew.floor), np.ceil: _on("f", ew.ceil), np.trunc: _on("f", ew.trunc), np.rint: _rint,
    np.copysign: ew.copysign, np.nextafter: ew.nextafter, np.signbit: _signbit, np.ldexp: _ldexp, np.modf: _modf,
    np.isfinite: ew.is_finite, np.isnan: ew.is_nan, np.isinf: ew.is_inf,
    # extremes
    np.maximum: ew.maximum, np.minimum: ew.minimum,
    np.fmax: _ignoring_nan(ew.maximum), np.fmin: _ignoring_nan(ew.minimum), np.heaviside: _heaviside,
    # exponentials and trigonometry
    np.exp: tr.exp, np.exp2: tr.exp2, np.expm1: tr.expm1,
    np.log: tr.log, np.log2: tr.log2, np.log10: tr.log10, np.log1p: tr.log1p,
    np.logaddexp: tr.logaddexp, np.logaddexp2: tr.logaddexp2,
    np.sin: tr.sin, np.cos: tr.cos, np.tan: tr.tan, np.arcsin: tr.asin, np.arccos: tr.acos, np.arctan: tr.atan,
    np.arctan2: tr.atan2, np.sinh: tr.sinh, np.cosh: tr.cosh, np.tanh: tr.tanh,
    np.arcsinh: tr.asinh, np.arccosh: tr.acosh, np.arctanh: tr.atanh,
    np.degrees: _scaled(180 / np.pi), np.rad2deg: _scaled(180 / np.pi),
    np.radians: _scaled(np.pi / 180), np.deg2rad: _scaled(np.pi / 180),
    # comparison, logic, bits
    np.equal: ew.eq, np.not_equal: ew.ne,
    np.less: _compare(ew.lt, ew.gt, True), np.less_equal: _compare(ew.le, ew.ge, True),
    np.greater: _compare(ew.gt, ew.lt, False), np.greater_equal: _compare(ew.ge, ew.le, False),
    np.logical_and: _logical(ew.bitwise_and), np.logical_or: _logical(ew.bitwise_or),
    np.logical_xor: _logical(ew.bitwise_xor), np.logical_not: _logical(ew.bitwise_not),
    np.bitwise_and: ew.bitwise_and, np.bitwise_or: ew.bitwise_or, np.bitwise_xor: ew.bitwise_xor,
    np.invert: ew.bitwise_not, np.left_shift: ew.shift_left, np.right_shift: ew.shift_right,
    np.bitwise_count: _bitwise_count,
}  # fmt: skip
"""ufunc -> function of operands in the dtypes of NumPy's loop. ``linalg`` adds the generalized ufuncs."""


FOREIGN_UFUNCS: Final[dict[str, Bind]] = {}
"""Definitions for the ufuncs of ``scipy.special``, by name: nobody has to import it to register them."""


def _definition(ufunc: np.ufunc) -> Bind | None:
    bind = UFUNCS.get(ufunc)
    if bind is None and getattr(sys.modules.get("scipy.special"), ufunc.__name__, None) is ufunc:
        return FOREIGN_UFUNCS.get(ufunc.__name__)
    return bind


def quick_ufunc(ufunc: np.ufunc, inputs: tuple[Any, ...]) -> Any:
    """The common case of ``call_ufunc``: no keywords, and arrays, numbers or tracers as operands."""
    bind = UFUNCS.get(ufunc)
    if bind is None or ufunc.signature is not None or ufunc is np.power or ufunc is np.equal or ufunc is np.not_equal:
        return call_ufunc(ufunc, *inputs)
    for x in inputs:
        if not isinstance(x, (Tracer, np.ndarray, float, int, np.generic)):
            return call_ufunc(ufunc, *inputs)
    if len(inputs) == 1:
        aval = inputs[0].aval
        (dtype,) = loop_dtypes(ufunc, (promotion_key(aval),))
        settled = dtype is aval.dtype and not aval.weak_type
        result = bind(inputs[0] if settled else as_dtype(inputs[0], dtype))
    else:
        dtypes = loop_dtypes(ufunc, tuple([promotion_key(aval_of(x)) for x in inputs]))
        result = bind(*[as_dtype(x, d) for x, d in zip(inputs, dtypes, strict=True)])
    return clone(result) if result is inputs[0] and isinstance(result, Tracer) else result


# the calling convention ------------------------------------------------------------------------------------------


def _resolve(ufunc: np.ufunc, keys: tuple[Any, ...], dtype: Any, casting: str) -> tuple[np.dtype[Any], ...]:
    if dtype is None:
        return loop_dtypes(ufunc, keys)
    if all(isinstance(k, type) for k in keys):
        keys = tuple(np.dtype(k) for k in keys)
    signature = (*[None] * ufunc.nin, *[np.dtype(dtype)] * ufunc.nout)
    operands = (*keys, *[None] * ufunc.nout)
    return ufunc.resolve_dtypes(operands, signature=signature, casting=casting)[: ufunc.nin]


def _apply(ufunc: np.ufunc, bind: Bind, inputs: list[Any], dtype: Any, casting: str) -> Any:
    avals = [aval_of(x) for x in inputs]
    if ufunc is np.power and dtype is None and type(inputs[1]) is int and _static_power(avals[0]):
        return power(inputs[0], inputs[1])
    keys = tuple([promotion_key(a) for a in avals])
    dtypes = _resolve(ufunc, keys, dtype, casting)
    if ufunc is np.equal or ufunc is np.not_equal:
        inputs, dtypes = _mixed_equality(inputs, dtypes)
    return bind(*[as_dtype(x, d) for x, d in zip(inputs, dtypes, strict=True)])


def _static_power(aval: Any) -> bool:
    return aval.dtype.kind in "fc" and not aval.weak_type


def _mixed_equality(inputs: list[Any], dtypes: Any) -> tuple[list[Any], Any]:
    """int64 == uint64: compare the bits where both are in range, and make the others differ."""
    if dtypes[0].kind == dtypes[1].kind or dtypes[0].kind not in "iu":
        return inputs, dtypes
    k = 0 if dtypes[0].kind == "u" else 1
    unsigned = as_dtype(inputs[k], dtypes[k])
    signed = as_dtype(inputs[1 - k], dtypes[1 - k])
    too_large = ew.lt(ew.convert_element_type(unsigned, dtypes[1 - k]), dtypes[1 - k].type(0))
    return [ew.select(too_large, ew.bitwise_not(signed), ew.convert_element_type(unsigned, dtypes[1 - k])), signed], (
        dtypes[1 - k],
        dtypes[1 - k],
    )


def call_ufunc(
    ufunc: np.ufunc,
    *inputs: Any,
    out: tuple[Any, ...] | None = None,
    where: Any = True,
    dtype: Any = None,
    casting: str = "same_kind",
    **unknown: Any,
) -> Any:
    """``ufunc(*inputs, ...)`` with a tracer among the arguments.

    Without ``out``, elements where ``where`` is false are 0 (NumPy leaves them undefined).
    """
    bind = _definition(ufunc)
    if bind is None:
        near = "np.add, np.multiply, np.exp, ..." if ufunc.nin > 1 else "np.exp, np.sin, np.abs, ..."
        raise TypeError(
            f"the ufunc {public_name(ufunc)} cannot be applied to a traced value. Write it with ufuncs that can "
            f"({near}; see funcgrad.numpy), or compute it before the transformed function."
        )
    for name in ("order", "subok"):
        unknown.pop(name, None)
    if ufunc.signature is not None:
        result = bind(*inputs, dtype=dtype, **unknown)
    else:
        if unknown:
            raise TypeError(f"{public_name(ufunc)} on a traced value does not take {', '.join(sorted(unknown))}")
        if len(inputs) != ufunc.nin:
            raise TypeError(f"{public_name(ufunc)} takes {ufunc.nin} operands, found {len(inputs)}")
        result = _apply(ufunc, bind, [operand(x) for x in inputs], dtype, casting)
    results = result if ufunc.nout > 1 else (result,)
    outs = (None,) * len(results) if out is None else out
    finished = tuple([_finish(ufunc, r, o, where, casting, inputs) for r, o in zip(results, outs, strict=True)])
    return finished if ufunc.nout > 1 else finished[0]


def _finish(ufunc: np.ufunc, result: Any, out: Any, where: Any, casting: str, inputs: tuple[Any, ...]) -> Any:
    if where is not True:
        mask = operand(where)
        shape = broadcast_shapes(f"{ufunc.__name__}, where=", [shape_of(mask), shape_of(result)])
        other = _constant(result, 0) if out is None else as_dtype(out, aval_of(result).dtype)
        result = broadcast_to(ew.select(mask, result, other), shape)
    if out is None:
        return clone(result) if isinstance(result, Tracer) and any(result is x for x in inputs) else result
    return store(public_name(ufunc), result, out, casting)


def is_inplace_operator(frame: Any) -> bool:
    """Whether the frame is executing ``a += b`` or its like, so that the result is bound to ``a`` again."""
    code = frame.f_code.co_code
    return bool(code[frame.f_lasti] == _BINARY_OP and code[frame.f_lasti + 1] >= _FIRST_INPLACE)


def _opcodes() -> tuple[int, int]:
    import opcode

    first = 13  # NB_INPLACE_ADD follows the thirteen plain operators
    return opcode.opmap["BINARY_OP"], first


_BINARY_OP, _FIRST_INPLACE = _opcodes()


def store(name: str, result: Any, out: Any, casting: str = "same_kind", sole_owner: bool = False) -> Any:
    """What ``out=`` means: check shape and dtype as NumPy, and let the tracer ``out`` become the result.

    A NumPy array cannot become traced. ``array += x`` may give a tracer in its place if nothing but the variable
    refers to the array (``sole_owner``): nobody can then tell the difference.
    """
    aval, target = aval_of(result), aval_of(out)
    if not np.can_cast(aval.dtype, target.dtype, casting):
        raise TypeError(
            f"{name}: the result has dtype {aval.dtype.name}, which does not go into an array of dtype "
            f"{target.dtype.name} (casting {casting!r}). Write x = x + y instead of x += y, or convert x first."
        )
    if broadcast_shapes(name, [aval.shape, target.shape]) != target.shape:
        raise ValueError(f"{name}: the result has shape {aval.shape}, the output array {target.shape}")
    result = broadcast_to(as_dtype(result, target.dtype), target.shape)
    if isinstance(out, Tracer):
        if result is not out:
            write(out, result)
        return out
    if sole_owner and isinstance(result, Tracer):
        return result
    raise TracerArrayError(
        f"at {user_source()}: {name} writes a traced value into a NumPy array (out= or an operator like +=), which "
        "cannot hold it, and something else refers to the array's memory. Write a = a + x instead of a += x, or make "
        "the array traced from the start with np.zeros_like(x)."
    )


class _Probe:
    """Counts the references to the array in ``array += x`` that CPython itself holds."""

    count = 0

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        _Probe.count = sys.getrefcount(kwargs["out"][0])
        return None


def _calibrate() -> int:
    array: Any = np.zeros(1)
    array += _Probe()
    return _Probe.count


SOLE_OWNER_REFERENCES: Final = _calibrate()
