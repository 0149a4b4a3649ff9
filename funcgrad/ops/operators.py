"""Python's operators on tracers: ``x * y`` binds ``mul`` after NumPy's promotion.

They are attached to ``Tracer`` here, below the transforms, because derivative rules are written with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.primitive import Primitive
from ..core.trace import Tracer
from . import elementwise as ew
from . import transcendental as tr
from .promotion import apply_operator, as_dtype, loop_dtypes, promotion_key

__all__ = ["OPERATORS", "power"]

OPERATORS: dict[str, tuple[np.ufunc, Primitive]] = {
    "add": (np.add, ew.add_p),
    "sub": (np.subtract, ew.sub_p),
    "mul": (np.multiply, ew.mul_p),
    "truediv": (np.true_divide, ew.div_p),
    "floordiv": (np.floor_divide, ew.floor_divide_p),
    "mod": (np.remainder, ew.remainder_p),
    "and": (np.bitwise_and, ew.and_p),
    "or": (np.bitwise_or, ew.or_p),
    "xor": (np.bitwise_xor, ew.xor_p),
    "lshift": (np.left_shift, ew.shift_left_p),
    "rshift": (np.right_shift, ew.shift_right_p),
    "eq": (np.equal, ew.eq_p),
    "ne": (np.not_equal, ew.ne_p),
    "lt": (np.less, ew.lt_p),
    "le": (np.less_equal, ew.le_p),
    "gt": (np.greater, ew.gt_p),
    "ge": (np.greater_equal, ew.ge_p),
}
_COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}


def is_operand(x: Any) -> bool:
    """Whether an operator should handle ``x`` or leave it to the other operand's class."""
    return isinstance(x, (Tracer, np.ndarray, np.generic, float, int, complex))


def _forward(ufunc: np.ufunc, primitive: Primitive) -> Callable[[Any, Any], Any]:
    def operator(self: Any, other: Any) -> Any:
        if is_operand(other):
            return apply_operator(ufunc, primitive, self, other)
        return ufunc(self, other) if isinstance(other, (list, tuple)) else NotImplemented

    return operator


def _reflected(ufunc: np.ufunc, primitive: Primitive) -> Callable[[Any, Any], Any]:
    def operator(self: Any, other: Any) -> Any:
        if is_operand(other):
            return apply_operator(ufunc, primitive, other, self)
        return ufunc(other, self) if isinstance(other, (list, tuple)) else NotImplemented

    return operator


def power(x: Any, y: Any) -> Any:
    """``x ** y``; a static integer exponent becomes repeated multiplication, exact and differentiable everywhere."""
    if type(y) is int and isinstance(x, Tracer):
        if x.dtype.kind in "fc":
            return ew.integer_pow(x, y) if y != 0 else ew.integer_pow_p.bind(x, y=0)
        if y >= 0 and x.dtype.kind in "iu":
            return ew.integer_pow(x, y)
        if x.dtype.kind in "iu":
            raise ValueError("integers to negative integer powers are not allowed; convert to float first")
    return apply_operator(np.power, tr.pow_p, x, y)


def _unary(ufunc: np.ufunc, primitive: Primitive) -> Callable[[Any], Any]:
    def operator(self: Any) -> Any:
        aval = self.aval
        (dtype,) = loop_dtypes(ufunc, (promotion_key(aval),))
        return primitive.bind(self if dtype == aval.dtype else as_dtype(self, dtype, aval.weak_type))

    return operator


def _positive(self: Any) -> Any:
    loop_dtypes(np.positive, (promotion_key(self.aval),))
    return self


def _attach() -> None:
    for name, (ufunc, primitive) in OPERATORS.items():
        setattr(Tracer, f"__{name}__", _forward(ufunc, primitive))
        if name not in _COMPARISONS:
            setattr(Tracer, f"__r{name}__", _reflected(ufunc, primitive))
    methods = {
        "__pow__": lambda self, other: power(self, other) if is_operand(other) else NotImplemented,
        "__rpow__": lambda self, other: power(other, self) if is_operand(other) else NotImplemented,
        "__neg__": _unary(np.negative, ew.neg_p),
        "__abs__": _unary(np.absolute, ew.abs_p),
        "__invert__": _unary(np.invert, ew.not_p),
        "__pos__": _positive,
    }
    for name, method in methods.items():
        setattr(Tracer, name, method)


_attach()
