"""Functional updates: ``x.at[i].set(v)`` and its like on tracers, ``fg.at(x)[i].set(v)`` on everything.

They return a new array and leave ``x`` as it was. Where several indices meet one element, ``add``, ``multiply``,
``min`` and ``max`` apply to it one after the other.

>>> at(np.zeros(3))[1].set(5.0)
array([0., 5., 0.])
>>> at(np.zeros(3))[np.array([0, 0, 2])].add(1.0)
array([2., 0., 1.])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..core.trace import Tracer
from ..ops import elementwise as ew
from ..ops import indexing as ix
from ..ops.promotion import as_dtype
from ..ops.structural import broadcast_to, reshape, shape_of
from .dispatch import operand
from .indexing import Plan, overwritten, plan_index, read, write_window

__all__ = ["At", "IndexedUpdate", "at", "updated"]

_WRITE_MODES = {None: "drop", "drop": "drop", "fill": "drop", "clip": "clip", "promise_in_bounds": "promise_in_bounds"}
_READ_MODES = {None: "clip", "clip": "clip", "fill": "fill", "drop": "fill", "promise_in_bounds": "promise_in_bounds"}


def _mode(mode: Any, known: dict[Any, str]) -> str:
    mode = getattr(mode, "name", mode)
    mode = mode.lower() if isinstance(mode, str) else mode
    if mode not in known:
        raise ValueError(f"at: mode must be one of {', '.join(map(repr, known))}, found {mode!r}")
    return known[mode]


def _fits(own: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether ``own`` broadcasts to ``shape``."""
    tail = shape[len(shape) - len(own) :]
    return len(own) <= len(shape) and all([n in (1, m) for n, m in zip(own, tail, strict=True)])


def _value(name: str, x: Any, v: Any, shape: tuple[int, ...], exact: bool) -> Any:
    """``v`` in the dtype of ``x`` and broadcast to the indexed part; NumPy drops leading axes of extent 1 here."""
    v = operand(v)
    own, dtype = aval_of(v), aval_of(x).dtype
    if own.dtype.kind == "c" and dtype.kind != "c":
        raise TypeError(f"{name}: complex values do not go into an array of dtype {dtype.name}; take .real first")
    if (exact and not own.weak_type and not np.can_cast(own.dtype, dtype, "same_kind")) or (
        exact and own.weak_type and own.dtype.kind == "f" and dtype.kind not in "fc"
    ):
        raise TypeError(
            f"{name}: values of dtype {own.dtype.name} do not go into an array of dtype {dtype.name}; "
            "convert one of them with .astype"
        )
    v = as_dtype(v, dtype)
    while len(shape_of(v)) > len(shape) and shape_of(v)[0] == 1:
        v = reshape(v, shape_of(v)[1:])
    if not _fits(shape_of(v), shape):
        raise ValueError(
            f"could not broadcast input array from shape {shape_of(v)} into shape {shape}: {name} of the indexed part"
        )
    return broadcast_to(v, shape)


# Of each method: what to do with a window that is read as a whole, and the scatter that does it at indices.
_COMBINE: dict[str, tuple[Callable[[Any, Any], Any], Callable[..., Any] | None]] = {
    "set": (lambda part, v: v, ix.scatter),
    "add": (ew.add, ix.scatter_add),
    "multiply": (ew.mul, ix.scatter_mul),
    "min": (ew.minimum, ix.scatter_min),
    "max": (ew.maximum, ix.scatter_max),
}


def _negated(v: Any) -> Any:
    return ew.neg(v) if aval_of(v).dtype.kind != "u" else ew.sub(aval_of(v).dtype.type(0), v)


def updated(x: Any, plan: Plan, method: str, value: Any, mode: str = "drop", unique: bool = False) -> Any:
    """``x`` with ``value`` combined into the planned part by ``set``, ``add``, ``multiply``, ``min`` or ``max``."""
    combine, scatter = _COMBINE[method]
    value = _value(method, x, value, plan.result_shape, exact=method != "set")
    x = as_dtype(x, aval_of(x).dtype)
    if method == "set" and not plan.arrays:
        return overwritten(x, plan, value)

    def update(window: Any, indices: list[Any], axes: list[int], lay_out: Callable[[Any], Any]) -> Any:
        v = lay_out(value)
        if not axes:
            return combine(window, v)
        assert scatter is not None
        return scatter(window, v, indices, axes, mode, unique)

    return write_window(x, plan, update)


def _mask_update(x: Any, mask: Tracer, method: str, value: Any) -> Any:
    """``x.at[mask].set(v)`` with a traced mask: the same everywhere, then chosen."""
    v = operand(value)
    if shape_of(v) != () or mask.shape != shape_of(x)[: mask.ndim]:
        raise IndexError(
            f"a write with a traced mask of shape {mask.shape} to shape {shape_of(x)} takes a scalar value and a mask "
            f"of the array's leading shape; found values of shape {shape_of(v)}. Write np.where(mask, values, x)."
        )
    aligned = reshape(mask, mask.shape + (1,) * (len(shape_of(x)) - mask.ndim))
    v = _value(method, x, v, shape_of(x), exact=method != "set")
    return broadcast_to(ew.select(aligned, _COMBINE[method][0](x, v), x), shape_of(x))


class IndexedUpdate:
    """``x.at[index]``: one place of an array, to be read or written."""

    __slots__ = ("array", "index")

    def __init__(self, array: Any, index: Any) -> None:
        self.array = array
        self.index = index

    def __repr__(self) -> str:
        return f"IndexedUpdate({self.array!r}, {self.index!r})"

    def _plan(self, mode: Any) -> Plan:
        return plan_index(shape_of(self.array), self.index, check=mode is None, windows=False)

    def _update(self, method: str, value: Any, mode: Any, unique: bool) -> Any:
        x, index = self.array, self.index
        if isinstance(index, tuple) and len(index) == 1:
            index = index[0]
        if isinstance(index, Tracer) and index.dtype.kind == "b":
            return _mask_update(x, index, method, value)
        return updated(x, self._plan(mode), method, value, _mode(mode, _WRITE_MODES), unique)

    def set(self, values: Any, *, indices_are_sorted: bool = False, unique_indices: bool = False, mode: Any = None,
            **unused: Any) -> Any:  # fmt: skip
        """``x`` with ``x[index] = values``; of repeated indices the last wins."""
        return self._update("set", values, mode, unique_indices)

    def add(
        self, values: Any, *, indices_are_sorted: bool = False, unique_indices: bool = False, mode: Any = None
    ) -> Any:
        """``x`` with ``x[index] += values``, once for every index."""
        return self._update("add", values, mode, unique_indices)

    def subtract(
        self, values: Any, *, indices_are_sorted: bool = False, unique_indices: bool = False, mode: Any = None
    ) -> Any:
        """``x`` with ``x[index] -= values``, once for every index."""
        dtype = aval_of(self.array).dtype
        values = _value("subtract", self.array, values, shape_of(operand(values)), exact=True)
        return self._update("add", _negated(as_dtype(values, dtype)), mode, unique_indices)

    def multiply(
        self, values: Any, *, indices_are_sorted: bool = False, unique_indices: bool = False, mode: Any = None
    ) -> Any:
        """``x`` with ``x[index] *= values``, once for every index."""
        return self._update("multiply", values, mode, unique_indices)

    mul = multiply

    def divide(
        self, values: Any, *, indices_are_sorted: bool = False, unique_indices: bool = False, mode: Any = None
    ) -> Any:
        """``x`` with ``x[index] /= values``, once for every index."""
        x = self.array
        if aval_of(x).dtype.kind not in "fc":
            raise TypeError(f"divide: an array of dtype {aval_of(x).dtype.name} cannot hold quotients; use .astype")
        ones = np.ones(shape_of(x), aval_of(x).dtype)
        divisor = IndexedUpdate(ones, self.index)._update("multiply", values, mode, unique_indices)
        return ew.div(x, divisor)

    def power(
        self, values: Any, *, indices_are_sorted: bool = False, unique_indices: bool = False, mode: Any = None
    ) -> Any:
        """``x`` with ``x[index] **= values``; repeated indices count once."""
        return self._update("set", self.get(mode=mode) ** values, mode, unique_indices)

    def min(
        self, values: Any, *, indices_are_sorted: bool = False, unique_indices: bool = False, mode: Any = None
    ) -> Any:
        """``x`` with ``x[index] = minimum(x[index], values)``."""
        return self._update("min", values, mode, unique_indices)

    def max(
        self, values: Any, *, indices_are_sorted: bool = False, unique_indices: bool = False, mode: Any = None
    ) -> Any:
        """``x`` with ``x[index] = maximum(x[index], values)``."""
        return self._update("max", values, mode, unique_indices)

    def apply(
        self, func: Callable[[Any], Any], *, indices_are_sorted: bool = False, unique_indices: bool = False,
        mode: Any = None,
    ) -> Any:  # fmt: skip
        """``x`` with ``x[index] = func(x[index])``; repeated indices count once."""
        return self._update("set", func(self.get(mode=mode)), mode, unique_indices)

    def get(
        self, *, indices_are_sorted: bool = False, unique_indices: bool = False, mode: Any = None,
        fill_value: Any = None,
    ) -> Any:  # fmt: skip
        """``x[index]``; with ``mode="fill"`` what is out of bounds gives ``fill_value`` (by default NaN)."""
        x, plan = self.array, self._plan(mode)
        kind = _mode(mode, _READ_MODES)
        part = read(x, plan, kind)
        if kind != "fill" or fill_value is None or not plan.arrays:
            return part
        inside = read(np.ones(shape_of(x), np.bool_), plan, "fill")
        return ew.select(inside, part, as_dtype(operand(fill_value), aval_of(x).dtype))


class At:
    """``x.at``: index it to say where."""

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array

    def __getitem__(self, index: Any) -> IndexedUpdate:
        return IndexedUpdate(self.array, index)


def at(x: Any) -> At:
    """Functional updates of any array: ``at(x)[index].set(v)`` is a copy of ``x`` with ``x[index] = v``."""
    return At(operand(x))
