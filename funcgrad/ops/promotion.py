"""NumPy 2's promotion, asked of NumPy itself: ``ufunc.resolve_dtypes`` says which loop would run.

Python scalars are weak: ``x32 * 2.0`` stays float32. A tracer of a Python scalar is weak too, so that a traced
function promotes as the same code does untraced; under Python's operators weak meets weak gives weak, NumPy's
functions always give a strong result, as NumPy's own do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.primitive import Primitive
from .elementwise import convert_element_type

__all__ = ["apply_operator", "as_dtype", "common_dtype", "promote_dtypes", "result_type"]

_PYTHON_TYPE: Final = {"i": int, "f": float, "c": complex}
_PYTHON_SCALARS: Final = (float, int, complex)  # bool is np.bool_ to NumPy, except that bool() keeps it exact


def promotion_key(aval: ShapedArray) -> Any:
    """What NumPy's resolver wants to know of an operand: a dtype, or a Python type if weak."""
    return _PYTHON_TYPE.get(aval.dtype.kind, aval.dtype) if aval.weak_type else aval.dtype


@lru_cache(maxsize=4096)
def loop_dtypes(ufunc: np.ufunc, keys: tuple[Any, ...]) -> tuple[np.dtype[Any], ...]:
    """The operand dtypes of the loop that NumPy would run.

    Raises:
        TypeError: NumPy's own, where it has no loop (``-`` of booleans, say).
    """
    if all(isinstance(k, type) for k in keys):  # the resolver wants one dtype; weak scalars alone are default-typed
        keys = tuple(np.dtype(k) for k in keys)
    return ufunc.resolve_dtypes((*keys, *([None] * ufunc.nout)))[: ufunc.nin]


def as_dtype(x: Any, dtype: np.dtype[Any], weak: bool = False) -> Any:
    """``x`` in ``dtype``; Python scalars become NumPy scalars (or stay, if the result is to be weak)."""
    kind = type(x)
    if kind is float or kind is int or kind is complex or kind is bool:
        return _PYTHON_TYPE[dtype.kind](x) if weak and dtype.kind in _PYTHON_TYPE else dtype.type(x)
    return convert_element_type(x, dtype, weak)


def apply_operator(ufunc: np.ufunc, primitive: Primitive, x: Any, y: Any) -> Any:
    """``x op y`` of Python: promotes like ``ufunc``; weak operands give a weak result."""
    a, b = aval_of(x), aval_of(y)
    if a.dtype is b.dtype and not (a.weak_type or b.weak_type):
        dtypes = loop_dtypes(ufunc, (a.dtype, b.dtype))
        if dtypes[0] is a.dtype and dtypes[1] is b.dtype:
            return primitive.bind(x, y)
    dtypes = loop_dtypes(ufunc, (promotion_key(a), promotion_key(b)))
    weak = a.weak_type and b.weak_type
    x = x if a.dtype == dtypes[0] and hasattr(x, "dtype") else as_dtype(x, dtypes[0], weak)
    y = y if b.dtype == dtypes[1] and hasattr(y, "dtype") else as_dtype(y, dtypes[1], weak)
    return primitive.bind(x, y)


@lru_cache(maxsize=4096)
def _result_type(keys: tuple[Any, ...]) -> np.dtype[Any]:
    samples = [k if isinstance(k, np.dtype) else k(0) for k in keys]
    return np.result_type(*samples)


def result_type(*args: Any) -> np.dtype[Any]:
    """``np.result_type`` of arrays, scalars and tracers."""
    return _result_type(tuple([promotion_key(aval_of(x)) for x in args]))


def common_dtype(avals: Sequence[ShapedArray]) -> np.dtype[Any]:
    """`result_type` of avals."""
    return _result_type(tuple([promotion_key(a) for a in avals]))


def promote_dtypes(*args: Any) -> list[Any]:
    """All operands in their common dtype, strongly typed."""
    dtype = result_type(*args)
    return [as_dtype(x, dtype) for x in args]
