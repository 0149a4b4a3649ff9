"""NumPy's protocols on tracers: ``np.sin(x)``, ``np.sum(x)``, ``x += 1``, ``x[i] = v``, and Python's containers.

``__array_ufunc__`` and ``__array_function__`` are how NumPy hands over; what they hand over to is in ``ufuncs`` and in
the table of ``dispatch``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..core.trace import Tracer, user_source
from ..errors import TracerIndexError
from ..ops.operators import is_operand, power
from ..ops.structural import reshape, shape_of
from . import reductions
from .at import At, updated
from .dispatch import IMPLEMENTATIONS, operand, public_name, unsupported
from .indexing import plan_index, view_or_read
from .memory import PendingWrite, clone, is_view, view_base, write
from .ufuncs import SOLE_OWNER_REFERENCES, call_ufunc, is_inplace_operator, quick_ufunc, store

__all__ = ["METHODS", "PROPERTIES"]


# __array_ufunc__ ------------------------------------------------------------------------------------------------

_FOLDS: dict[np.ufunc, Callable[..., Any]] = {
    np.add: reductions.sum, np.multiply: reductions.prod, np.maximum: reductions.max, np.minimum: reductions.min,
    np.logical_and: reductions.all, np.logical_or: reductions.any,
}  # fmt: skip
_SCANS: dict[np.ufunc, Callable[..., Any]] = {
    np.add: reductions.cumsum, np.multiply: reductions.cumprod, np.maximum: reductions.cummax,
    np.minimum: reductions.cummin,
}  # fmt: skip
_AT = {np.add: "add", np.multiply: "multiply", np.maximum: "max", np.minimum: "min"}


def _method_error(ufunc: np.ufunc, method: str, known: Any) -> TypeError:
    names = ", ".join(sorted(f"np.{u.__name__}.{method}" for u in known))
    return TypeError(
        f"{public_name(ufunc)}.{method} cannot be applied to a traced value"
        f"{f'; funcgrad can trace {names}' if names else ''}. Write it with functions of funcgrad.numpy."
    )


def _single(out: Any) -> Any:
    return out[0] if isinstance(out, tuple) else out


def _reduce(
    ufunc: np.ufunc, x: Any, axis: Any = 0, dtype: Any = None, out: Any = None, *args: Any, **kwargs: Any
) -> Any:
    fold = _FOLDS.get(ufunc)
    if fold is None:
        raise _method_error(ufunc, "reduce", _FOLDS)
    if ufunc is np.add or ufunc is np.multiply:
        kwargs["dtype"] = dtype
    return fold(x, axis, *args, out=_single(out), **kwargs)


def _accumulate(ufunc: np.ufunc, x: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
    scan = _SCANS.get(ufunc)
    if scan is None:
        raise _method_error(ufunc, "accumulate", _SCANS)
    return scan(x, axis, dtype, _single(out))


def _outer(ufunc: np.ufunc, x: Any, y: Any, **kwargs: Any) -> Any:
    x, y = operand(x), operand(y)
    return ufunc(reshape(x, shape_of(x) + (1,) * len(shape_of(y))), y, **kwargs)


def _ufunc_at(ufunc: np.ufunc, x: Any, index: Any, value: Any = None) -> None:
    method = _AT.get(ufunc)
    if method is None:
        raise _method_error(ufunc, "at", _AT)
    if not isinstance(x, Tracer):
        raise TypeError(
            f"at {user_source()}: {public_name(ufunc)}.at writes traced values or indices into a NumPy array. Write "
            f"x = fg.at(x)[index].{method}(values)."
        )
    write(x, updated(x, plan_index(x.shape, index, windows=False), method, value))


_UFUNC_METHODS = {"reduce": _reduce, "accumulate": _accumulate, "outer": _outer, "at": _ufunc_at}


def _array_ufunc(self: Tracer, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
    if method == "__call__":
        if not kwargs:
            return quick_ufunc(ufunc, inputs)
        if "out" in kwargs and ufunc.nout == 1 and type(kwargs["out"][0]) is np.ndarray:
            references = sys.getrefcount(kwargs["out"][0])
            return _into_array(ufunc, references, sys._getframe(1), inputs, kwargs)
        return call_ufunc(ufunc, *inputs, **kwargs)
    fun = _UFUNC_METHODS.get(method)
    if fun is None:
        raise _method_error(ufunc, method, ())
    return fun(ufunc, *inputs, **kwargs)


def _into_array(ufunc: np.ufunc, references: int, frame: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``array += x``: fine if only that variable holds the array, for the variable then holds the traced sum."""
    array = kwargs.pop("out")[0]
    sole = is_inplace_operator(frame) and references <= SOLE_OWNER_REFERENCES and array.base is None
    result = call_ufunc(ufunc, *inputs, **kwargs)
    return store(f"{public_name(ufunc)}(..., out=array)", result, array, sole_owner=sole)


# __array_function__ ---------------------------------------------------------------------------------------------


def _array_function(self: Tracer, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    fun = IMPLEMENTATIONS.get(function)
    if fun is None:
        raise unsupported(function)
    return fun(*args, **kwargs)


# in place -------------------------------------------------------------------------------------------------------

_INPLACE = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "floordiv": np.floor_divide,
    "mod": np.remainder, "pow": np.power, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "lshift": np.left_shift, "rshift": np.right_shift, "matmul": np.matmul,
}  # fmt: skip


def _inplace(name: str, ufunc: np.ufunc) -> Callable[[Any, Any], Any]:
    def operator(self: Tracer, other: Any) -> Any:
        if not (is_operand(other) or isinstance(other, (list, tuple))):
            return NotImplemented
        if not self.ndim:  # NumPy's scalars are immutable: x += 1 gives the name x a new value
            return getattr(self, f"__{name}__")(other)
        plain = power(self, other) if ufunc is np.power else ufunc(self, other)
        base = view_base(self)
        if base is None or self._views.how != "a slice" or is_view(base):
            return store(f"x {_SYMBOL[name]} y", plain, self)
        index = self._views.index
        value = store(f"x {_SYMBOL[name]} y", plain, clone(self))
        write(base, updated(base, plan_index(base.shape, index, windows=False), "set", value))
        return PendingWrite(base, index)

    return operator


_SYMBOL = {
    "add": "+=", "sub": "-=", "mul": "*=", "truediv": "/=", "floordiv": "//=", "mod": "%=", "pow": "**=", "and": "&=",
    "or": "|=", "xor": "^=", "lshift": "<<=", "rshift": ">>=", "matmul": "@=",
}  # fmt: skip


def _setitem(self: Tracer, index: Any, value: Any) -> None:
    if isinstance(value, PendingWrite):
        if not value.closes(self, index):
            value.refuse()
        return
    if isinstance(index, Tracer) and index.dtype.kind == "b":
        write(self, At(self)[index].set(value))
    else:
        write(self, updated(self, plan_index(self.shape, index, windows=False), "set", value))


def _delitem(self: Tracer, index: Any) -> None:
    raise ValueError("cannot delete array elements; use np.delete or np.concatenate of the parts that stay")


# operators and containers ----------------------------------------------------------------------------------------


def _binary(ufunc: np.ufunc, reflected: bool = False) -> Callable[[Any, Any], Any]:
    def operator(self: Any, other: Any) -> Any:
        if not is_operand(other):
            return NotImplemented
        return call_ufunc(ufunc, other, self) if reflected else call_ufunc(ufunc, self, other)

    return operator


def _pow(self: Tracer, other: Any) -> Any:
    if not is_operand(other):
        return NotImplemented
    result = power(self, other)
    return clone(self) if result is self else result


def _round(self: Tracer, digits: int | None = None) -> Any:
    return np.round(self, 0 if digits is None else digits)


def _len(self: Tracer) -> int:
    if not self.ndim:
        raise TypeError("len() of unsized object: a traced 0-d array")
    return self.shape[0]


def _iter(self: Tracer) -> Iterator[Any]:
    if not self.ndim:
        raise TypeError(
            f"iteration over a 0-d array, a traced value {self.aval}. To unpack several results return a tuple; a "
            "loop takes a number that is known, such as an extent of a shape."
        )
    return iter([view_or_read(self, k) for k in range(self.shape[0])])


def _reversed(self: Tracer) -> Iterator[Any]:
    return reversed(list(self))


def _contains(self: Tracer, value: Any) -> bool:
    return bool(np.any(np.equal(self, value)))


def _deepcopy(self: Tracer, memo: Any = None) -> Tracer:
    return clone(self)


def _index_by_tracer(self: Tracer, *args: Any) -> Any:
    raise TracerIndexError(
        f"at {user_source()}: a traced value has no buffer to share. Return it from the transformed function."
    )


METHODS: dict[str, Any] = {
    "__array_ufunc__": _array_ufunc,
    "__array_function__": _array_function,
    "__getitem__": view_or_read,
    "__setitem__": _setitem,
    "__delitem__": _delitem,
    "__matmul__": _binary(np.matmul),
    "__rmatmul__": _binary(np.matmul, reflected=True),
    "__divmod__": _binary(np.divmod),
    "__rdivmod__": _binary(np.divmod, reflected=True),
    "__pow__": _pow,
    "__pos__": clone,
    "__round__": _round,
    "__len__": _len,
    "__iter__": _iter,
    "__reversed__": _reversed,
    "__contains__": _contains,
    "__copy__": clone,
    "__deepcopy__": _deepcopy,
    "__dlpack__": _index_by_tracer,
    **{f"__i{name}__": _inplace(name, ufunc) for name, ufunc in _INPLACE.items()},
}

PROPERTIES: dict[str, Any] = {"at": property(At, doc="Functional updates: ``x.at[i].set(v)`` is a changed copy.")}
