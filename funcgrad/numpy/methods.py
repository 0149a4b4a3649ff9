"""ndarray's methods and properties on tracers, and the attachment of all of them to ``Tracer``.

A method is the function of the same name where their signatures agree; a table says which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.avals import check_dtype
from ..core.trace import Tracer, user_source
from ..errors import TracerArrayError, ViewWriteError
from ..ops.promotion import as_dtype
from . import concretize, linalg, manipulation, ordering, protocols, reductions, selection
from .dispatch import operand
from .memory import clone, write

__all__ = ["attach"]


def _reshape(self: Tracer, *shape: Any, order: str = "C", copy: Any = None) -> Any:
    target = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list, np.ndarray)) else shape
    return manipulation.reshape(self, target, order, copy=copy)


def _transpose(self: Tracer, *axes: Any) -> Any:
    chosen = axes[0] if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))) else axes
    return manipulation.transpose(self, chosen if chosen else None)


def _astype(
    self: Tracer, dtype: Any, order: str = "K", casting: str = "unsafe", subok: bool = True, copy: bool = True
) -> Any:
    target = check_dtype(np.dtype(dtype), "astype")
    if not np.can_cast(self.dtype, target, casting):
        raise TypeError(f"Cannot cast array data from {self.dtype!r} to {target!r} according to the rule {casting!r}")
    result = as_dtype(self, target)
    return clone(self) if result is self and copy else result


def _flatten(self: Tracer, order: str = "C") -> Any:
    result = manipulation.ravel(self, order)
    return clone(result)


def _copy(self: Tracer, order: str = "C") -> Any:
    return clone(self)


def _conj(self: Tracer) -> Any:
    return np.conjugate(self)


def _fill(self: Tracer, value: Any) -> None:
    self[...] = value


def _sort(self: Tracer, axis: int = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> None:
    write(self, ordering.sort(self, axis))


def _put(self: Tracer, indices: Any, values: Any, mode: str = "raise") -> None:
    where = np.unravel_index(np.asarray(indices), self.shape)
    self[where] = values


def _clip(self: Tracer, min: Any = None, max: Any = None, out: Any = None, **unused: Any) -> Any:
    return np.clip(self, min, max, out)


def _round(self: Tracer, decimals: int = 0, out: Any = None) -> Any:
    return np.round(self, decimals, out)


def _dot(self: Tracer, b: Any, out: Any = None) -> Any:
    return linalg.dot(self, b, out)


def _choose(self: Tracer, choices: Any, out: Any = None, mode: str = "raise") -> Any:
    return np.choose(self, choices, out, mode)


def _compress(self: Tracer, condition: Any, axis: Any = None, out: Any = None) -> Any:
    if isinstance(condition, Tracer):
        return np.compress(condition, self, axis)
    return manipulation.take(self, np.flatnonzero(condition), axis, out)


def _refuse(name: str, instead: str) -> Callable[..., Any]:
    def method(self: Tracer, *args: Any, **kwargs: Any) -> Any:
        raise TracerArrayError(
            f"at {user_source()}: .{name} needs the memory of {concretize.describe(self)}, which has none. {instead}"
        )

    return method


def _resize(self: Tracer, *args: Any, **kwargs: Any) -> None:
    raise ViewWriteError(f"at {user_source()}: a traced array keeps its shape; write x = np.resize(x, shape)")


_MEMORY = "Return the value from the transformed function and use the result there."
_REFUSED = {
    "view": "Convert the values with .astype(dtype).",
    "tobytes": _MEMORY, "tofile": _MEMORY, "dump": _MEMORY, "dumps": _MEMORY, "byteswap": _MEMORY,
    "getfield": _MEMORY, "setfield": _MEMORY, "setflags": _MEMORY, "newbyteorder": _MEMORY,
}  # fmt: skip

METHODS: dict[str, Any] = {
    "reshape": _reshape, "transpose": _transpose, "astype": _astype, "flatten": _flatten, "copy": _copy,
    "conj": _conj, "conjugate": _conj, "fill": _fill, "sort": _sort, "put": _put, "clip": _clip, "round": _round,
    "dot": _dot, "choose": _choose, "compress": _compress, "resize": _resize,
    **{name: getattr(reductions, name) for name in (
        "sum", "prod", "mean", "var", "std", "min", "max", "argmin", "argmax", "all", "any", "cumsum", "cumprod")},
    **{name: getattr(manipulation, name) for name in ("ravel", "squeeze", "swapaxes", "take", "repeat")},
    **{name: getattr(linalg, name) for name in ("diagonal", "trace")},
    **{name: getattr(ordering, name) for name in ("argsort", "searchsorted", "partition", "argpartition")},
    "nonzero": selection.nonzero,
    **{name: _refuse(name, instead) for name, instead in _REFUSED.items()},
}  # fmt: skip


def _matrix_transpose(self: Tracer) -> Any:
    if self.ndim < 2:
        raise ValueError(f"matrix transpose with ndim < 2 is undefined: the array has shape {self.shape}")
    return linalg.matrix_transpose(self)


class _Flat:
    """``x.flat``: the elements in one row, to read, index and loop over."""

    __slots__ = ("array",)

    def __init__(self, array: Tracer) -> None:
        self.array = array

    def __getitem__(self, index: Any) -> Any:
        return clone_of(manipulation.ravel(self.array)[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        flat = clone_of(manipulation.ravel(self.array))
        flat[index] = value
        write(self.array, manipulation.reshape(flat, self.array.shape))

    def __iter__(self) -> Any:
        return iter(manipulation.ravel(self.array))

    def __len__(self) -> int:
        return self.array.size


def clone_of(x: Any) -> Any:
    """The value as a tracer that is nobody's view."""
    return clone(x) if isinstance(x, Tracer) else x


def _set_part(name: str, other: str, build: Callable[[Any, Any], Any]) -> Callable[[Tracer, Any], None]:
    def assign(self: Tracer, value: Any) -> None:
        if self.dtype.kind != "c":
            if name == "imag":
                raise TypeError("array does not have imaginary part to set")
            self[...] = value
            return
        part = as_dtype(operand(value), np.empty(0, self.dtype).real.dtype)
        write(self, as_dtype(build(np.broadcast_to(part, self.shape), getattr(np, other)(self)), self.dtype))

    return assign


_PROPERTIES: dict[str, Any] = {
    "T": property(lambda self: manipulation.transpose(self), doc="The transpose."),
    "mT": property(_matrix_transpose, doc="The transpose of the last two axes."),
    "real": property(selection.real, _set_part("real", "imag", lambda p, q: p + 1j * q), doc="The real part."),
    "imag": property(selection.imag, _set_part("imag", "real", lambda p, q: q + 1j * p), doc="The imaginary part."),
    "flat": property(_Flat, lambda self, value: _Flat(self).__setitem__(slice(None), value), doc="As one row."),
    "itemsize": property(lambda self: self.dtype.itemsize, doc="Bytes of one element."),
    "nbytes": property(lambda self: self.aval.nbytes, doc="Bytes of all elements."),
    "device": property(lambda self: "cpu", doc="Where the array lives."),
    "weak_type": property(lambda self: self.aval.weak_type, doc="Whether the dtype is only a Python scalar's."),
}


def _to_device(self: Tracer, device: Any, /, *, stream: Any = None) -> Any:
    if device != "cpu":
        raise ValueError(f"to_device: unknown device {device!r}; a traced array of the CPU stays on 'cpu'")
    return self


def attach() -> None:
    """Give ``Tracer`` all methods of this package."""
    tables = (concretize.METHODS, protocols.METHODS, protocols.PROPERTIES, METHODS, _PROPERTIES)
    for table in tables:
        for name, member in table.items():
            setattr(Tracer, name, member)
    Tracer.to_device = _to_device  # type: ignore[attr-defined]
