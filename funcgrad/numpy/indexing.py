"""NumPy's indexing as primitives: ``x[index]`` for every index that NumPy has, static or traced.

An index is read into one entry per axis. Static slices and integers become slices and reversals, which are views;
a traced integer becomes a window at a computed start; only integer arrays become a gather. Static indices out of range
raise ``IndexError`` as in NumPy; traced ones cannot, so that a read takes the nearest element and a write is dropped,
as in JAX. Negative ones count from the end.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..core.trace import Tracer, user_source
from ..errors import TracerIndexError
from ..ops import elementwise as ew
from ..ops.dynamic import dynamic_slice, dynamic_update_slice
from ..ops.indexing import gather, scatter
from ..ops.promotion import as_dtype
from ..ops.shape import rev, strided_slice
from ..ops.structural import broadcast_to, reshape, shape_of, transpose
from ..record import record
from .dispatch import contains_tracer, operand
from .memory import mark_view

__all__ = ["Plan", "getitem", "overwritten", "plan_index", "read", "view_or_read", "write_window"]


@record(frozen=True, slots=True)
class Plan:
    """An index, taken apart.

    ``starts, counts, steps`` describe the static window, one entry per axis of the (expanded) operand; ``dynamic`` are
    traced integers by axis; ``arrays`` are index arrays by axis, all of one shape; ``drop`` are axes that vanish.
    ``layout`` lists the result's axes: an axis of the operand, ``None`` for a new one, or ``"arrays"`` for theirs.
    """

    operand_shape: tuple[int, ...]
    starts: tuple[int, ...]
    counts: tuple[int, ...]
    steps: tuple[int, ...]
    dynamic: dict[int, Any]
    arrays: dict[int, Any]
    layout: tuple[Any, ...]
    traced: bool

    @property
    def array_shape(self) -> tuple[int, ...]:
        return shape_of(next(iter(self.arrays.values()))) if self.arrays else ()

    @property
    def result_shape(self) -> tuple[int, ...]:
        shape: list[int] = []
        for axis in self.layout:
            shape += self.array_shape if axis == "arrays" else (1,) if axis is None else (self.counts[axis],)
        return tuple(shape)

    @property
    def is_whole(self) -> bool:
        """The static window is all of the operand, in order."""
        return self.counts == self.operand_shape and all([k == 1 for k in self.steps])


# reading an index -----------------------------------------------------------------------------------------------


def _is_integer(i: Any) -> bool:
    return isinstance(i, (int, np.integer)) and not isinstance(i, (bool, np.bool_))


def _array_entry(i: Any) -> Any:
    """A list, array or tracer in an index, as an array of integers or booleans."""
    if isinstance(i, (list, tuple)):
        i = operand(list(i)) if contains_tracer(i) else np.asarray(i)
        if isinstance(i, np.ndarray) and not i.size and i.dtype == np.float64:
            i = i.astype(np.intp)
    elif not isinstance(i, (Tracer, np.ndarray, np.generic, bool)):
        if not hasattr(i, "__array__"):
            raise IndexError(
                "only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and integer or boolean arrays "
                f"are valid indices; found {i!r} of type {type(i).__name__}"
            )
        i = np.asarray(i)
    kind = aval_of(i).dtype.kind
    if kind not in "biu":
        if isinstance(i, Tracer):
            raise TracerIndexError(
                f"at {user_source()}: an index must be of integer (or boolean) dtype, found {i.aval}. "
                "Convert it: x[i.astype(int)]."
            )
        raise IndexError("arrays used as indices must be of integer (or boolean) type")
    if kind == "b" and isinstance(i, Tracer):
        raise TracerIndexError(
            f"at {user_source()}: x[mask] with a traced mask {i.aval}: how many elements it selects is not known while "
            "funcgrad traces. Write np.where(mask, x, 0) (and reduce that, with mask.sum() for the count), "
            "np.where(mask, value, x) to assign, or compute the mask from static values."
        )
    return i


def _expand_ellipsis(entries: list[Any], consumed: int, rank: int) -> list[Any]:
    found = [k for k, e in enumerate(entries) if e is Ellipsis]
    if len(found) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if consumed > rank:
        raise IndexError(f"too many indices for array: array is {rank}-dimensional, but {consumed} were indexed")
    at = found[0] if found else len(entries)
    rest = entries[at + 1 :] if found else []
    return [*entries[:at], *[slice(None)] * (rank - consumed), *rest]


def _mask_arrays(mask: Any, shape: tuple[int, ...], axis: int) -> tuple[Any, ...]:
    for k, n in enumerate(mask.shape):
        if shape[axis + k] != n:
            raise IndexError(
                f"boolean index did not match indexed array along axis {axis + k}; size of axis is "
                f"{shape[axis + k]} but size of corresponding boolean axis is {n}"
            )
    return np.nonzero(mask)


class _Reader:
    """Walks the entries of an index along the axes of the operand."""

    def __init__(self, shape: tuple[int, ...], check: bool) -> None:
        self.shape = list(shape)  # grows where a 0-d boolean adds an axis
        self.check = check
        self.starts: list[int] = []
        self.counts: list[int] = []
        self.steps: list[int] = []
        self.dynamic: dict[int, Any] = {}
        self.arrays: dict[int, Any] = {}
        self.order: list[Any] = []  # per entry: axis of a slice, None, or ("array", axis)
        self.traced = False

    def window(self, start: int, count: int, step: int = 1) -> int:
        self.starts.append(start)
        self.counts.append(count)
        self.steps.append(step)
        return len(self.starts) - 1

    def slice(self, s: slice) -> None:
        n = self.shape[len(self.starts)]
        start, stop, step = s.indices(n)
        self.order.append(self.window(start, len(range(start, stop, step)), step))

    def integer(self, i: Any, several: bool) -> None:
        axis = len(self.starts)
        n = self.shape[axis]
        if isinstance(i, Tracer):
            self.traced = True
            if n == 0 and self.check:
                raise IndexError(f"index is out of bounds for axis {axis} with size 0")
            (self.arrays if several else self.dynamic)[self.window(0, n)] = _wrapped(i, n)
        else:
            i = operator.index(i)
            if self.check and not -n <= i < n:
                raise IndexError(f"index {i} is out of bounds for axis {axis} with size {n}")
            i += n if i < 0 else 0
            if several:
                self.arrays[self.window(0, n)] = np.intp(i)
            else:
                self.window(i, 1)
        self.order.append(("array", axis))

    def array(self, i: Any) -> None:
        axis = len(self.starts)
        n = self.shape[axis]
        if isinstance(i, Tracer):
            self.traced = True
            if n == 0 and i.size and self.check:
                raise IndexError(f"index is out of bounds for axis {axis} with size 0")
        elif self.check and i.size:
            worst = i.min() if i.min() < -n else i.max()
            if not -n <= worst < n:
                raise IndexError(f"index {worst} is out of bounds for axis {axis} with size {n}")
        self.arrays[self.window(0, n)] = _wrapped(i, n)
        self.order.append(("array", axis))

    def boolean_scalar(self, i: Any) -> None:
        self.shape.insert(len(self.starts), 1)
        self.array(np.nonzero(np.atleast_1d(np.asarray(i)))[0])


def _wrapped(i: Any, n: int) -> Any:
    """Negative indices counted from the end, as intp."""
    dtype = aval_of(i).dtype
    if not isinstance(i, Tracer):
        i = np.asarray(i)
        return np.where(i < 0, i + np.intp(n), i).astype(np.intp) if dtype.kind == "i" else i.astype(np.intp)
    if dtype.kind == "u":
        return as_dtype(i, dtype)
    i = as_dtype(i, np.dtype(np.intp))
    return ew.select(ew.lt(i, np.intp(0)), ew.add(i, np.intp(n)), i)


def _entries(index: Any) -> list[Any]:
    raw = index if isinstance(index, tuple) else (index,)
    return [e if e is None or e is Ellipsis or isinstance(e, slice) or _is_integer(e) else _array_entry(e) for e in raw]


def _axes_taken(entry: Any) -> int:
    if entry is None or entry is Ellipsis:
        return 0
    if isinstance(entry, (bool, np.bool_, np.ndarray)) and aval_of(entry).dtype.kind == "b":
        return np.ndim(entry)
    return 1


def plan_index(shape: tuple[int, ...], index: Any, check: bool = True, windows: bool = True) -> Plan:
    """Read ``index`` against an operand of ``shape``.

    Args:
        shape: of the operand.
        index: what stands between the brackets.
        check: raise on static indices out of range.
        windows: let a traced integer be a window (clamped); without it, it is an index array like others.

    Raises:
        IndexError: NumPy's own, and ``TracerIndexError`` for indices that cannot be traced.
    """
    entries = _entries(index)
    entries = _expand_ellipsis(entries, sum([_axes_taken(e) for e in entries]), len(shape))
    several = not check or any([_is_array(e) for e in entries])
    several = several or (not windows and any([isinstance(e, Tracer) for e in entries]))
    reader = _Reader(shape, check)
    for e in entries:
        if e is None:
            reader.order.append(None)
        elif isinstance(e, slice):
            reader.slice(e)
        elif _is_array(e) and aval_of(e).dtype.kind == "b":
            if np.ndim(e) == 0:
                reader.boolean_scalar(e)
            else:
                for i in _mask_arrays(e, tuple(reader.shape), len(reader.starts)):
                    reader.array(i)
        elif _is_array(e):
            reader.array(e)
        else:
            reader.integer(e[()] if isinstance(e, np.ndarray) else e, several)
    return _finished(reader)


def _is_array(entry: Any) -> bool:
    """Whether an entry makes the index an advanced one: arrays, and booleans of any rank."""
    if isinstance(entry, (np.ndarray, np.generic, bool, Tracer)):
        return aval_of(entry).dtype.kind == "b" or len(shape_of(entry)) > 0
    return False


def _finished(reader: _Reader) -> Plan:
    arrays = reader.arrays
    if arrays:
        try:
            common = np.broadcast_shapes(*[shape_of(i) for i in arrays.values()])
        except ValueError:
            shapes = ", ".join([str(shape_of(i)) for i in arrays.values()])
            raise IndexError(
                f"shape mismatch: indexing arrays could not be broadcast together with shapes {shapes}"
            ) from None
        arrays = {axis: broadcast_to(i, common) for axis, i in arrays.items()}
    return Plan(
        tuple(reader.shape), tuple(reader.starts), tuple(reader.counts), tuple(reader.steps), reader.dynamic, arrays,
        _layout(reader.order, arrays), reader.traced,
    )  # fmt: skip


def _layout(order: list[Any], arrays: dict[int, Any]) -> tuple[Any, ...]:
    """The result's axes. NumPy puts those of the index arrays where the arrays stood if they stood side by side."""
    positions = [k for k, e in enumerate(order) if isinstance(e, tuple)]
    kept = [e for e in order if not isinstance(e, tuple)]
    if not arrays:
        return tuple(kept)
    together = positions == list(range(positions[0], positions[-1] + 1))
    at = positions[0] if together else 0
    return (*kept[:at], "arrays", *kept[at:])


# reading --------------------------------------------------------------------------------------------------------


def _window(x: Any, plan: Plan) -> Any:
    """The static window: a slice with positive steps, reversed where the step is negative."""
    if plan.is_whole:
        return x
    starts, limits, steps, reversed_axes = [], [], [], []
    for axis, (b, n, k) in enumerate(zip(plan.starts, plan.counts, plan.steps, strict=True)):
        if k < 0:
            b, k = b + (n - 1) * k, -k
            if n > 1:
                reversed_axes.append(axis)
        if n == 0:
            b, k = 0, 1
        starts.append(b)
        limits.append(b + (n - 1) * k + 1 if n else b)
        steps.append(k)
    return rev(strided_slice(x, starts, limits, steps), reversed_axes)


def _dynamic(x: Any, plan: Plan) -> Any:
    if not plan.dynamic:
        return x
    shape = shape_of(x)
    starts = [plan.dynamic.get(a, np.intp(0)) for a in range(len(shape))]
    return dynamic_slice(x, starts, [1 if a in plan.dynamic else n for a, n in enumerate(shape)])


def _array_order(plan: Plan) -> tuple[list[int], list[int]]:
    """Permutation that takes a gather's result (array axes first) to the plan's layout, and its extents' order."""
    kept = [a for a in plan.layout if a is not None and a != "arrays"]
    rank = len(plan.array_shape)
    at = [a for a in plan.layout if a is not None].index("arrays")
    order = [*range(rank, rank + at), *range(rank), *range(rank + at, rank + len(kept))]
    return order, kept


def read(x: Any, plan: Plan, mode: str = "clip") -> Any:
    """``x[index]``; ``mode`` says what traced indices out of bounds give, as ``ops.indexing.gather`` does."""
    if shape_of(x) != plan.operand_shape:
        x = reshape(x, plan.operand_shape)
    x = _window(x, plan)
    if plan.arrays:
        axes = tuple(plan.arrays)
        x = transpose(gather(x, list(plan.arrays.values()), axes, mode), _array_order(plan)[0])
    else:
        x = _dynamic(x, plan)
    return reshape(x, plan.result_shape)


def view_or_read(x: Any, index: Any) -> Any:
    """``x[index]`` of a tracer, remembered as a view where NumPy gives one."""
    plan = plan_index(shape_of(x), index)
    result = read(x, plan)
    if plan.arrays or not plan.result_shape:
        return result
    return mark_view(result, x, "a slice", lambda base: read(base, plan), index)


def getitem(x: Any, index: Any) -> Any:
    """``x[index]`` of an array or tracer."""
    return view_or_read(x, index) if isinstance(x, Tracer) else read(x, plan_index(shape_of(x), index))


# writing --------------------------------------------------------------------------------------------------------


def _in_window_layout(value: Any, plan: Plan) -> Any:
    """``value``, of the result's shape, laid out as the window: array axes first, then the kept axes in order."""
    shape = [n for n, a in zip(_layout_extents(plan), plan.layout, strict=True) if a is not None]
    value = reshape(value, [n for part in shape for n in part])
    if plan.arrays:
        order, _ = _array_order(plan)
        value = transpose(value, [order.index(k) for k in range(len(order))])
        return value
    return reshape(value, _window_shape(plan))


def _layout_extents(plan: Plan) -> list[tuple[int, ...]]:
    return [plan.array_shape if a == "arrays" else (1,) if a is None else (plan.counts[a],) for a in plan.layout]


def _window_shape(plan: Plan) -> tuple[int, ...]:
    kept = {a for a in plan.layout if a is not None and a != "arrays"}
    return tuple([n if a in kept else 1 for a, n in enumerate(plan.counts)])


def _put_window(x: Any, window: Any, plan: Plan) -> Any:
    """``x`` with its static window replaced."""
    if plan.is_whole:
        return window
    if 0 in plan.counts:
        return x
    if all([k == 1 or n == 1 for k, n in zip(plan.steps, plan.counts, strict=True)]):
        return dynamic_update_slice(x, window, [np.intp(b) for b in plan.starts])
    axes = [a for a, n in enumerate(plan.operand_shape)
            if plan.counts[a] != n or plan.steps[a] != 1]  # fmt: skip
    rank = len(axes)
    indices = []
    for k, a in enumerate(axes):
        positions = plan.starts[a] + plan.steps[a] * np.arange(plan.counts[a])
        indices.append(positions.reshape([-1 if j == k else 1 for j in range(rank)]))
    rest = [a for a in range(len(plan.counts)) if a not in axes]
    return scatter(x, transpose(window, [*axes, *rest]), indices, axes, "promise_in_bounds", unique=True)


def overwritten(x: Any, plan: Plan, value: Any) -> Any:
    """``x`` with a static window replaced by ``value``, of the result's shape: nothing is read."""
    shape = shape_of(x)
    if shape != plan.operand_shape:
        x = reshape(x, plan.operand_shape)
    return reshape(_put_window(x, _in_window_layout(value, plan), plan), shape)


def write_window(x: Any, plan: Plan, update: Any) -> Any:
    """``x`` with the indexed part changed by ``update(window, index arrays, their axes, lay_out)``.

    ``lay_out`` takes a value of the result's shape to the window's order of axes: those of the index arrays first. The
    plan must be one without dynamic windows, which are clamped where a write is to be dropped.
    """
    shape = shape_of(x)
    if shape != plan.operand_shape:
        x = reshape(x, plan.operand_shape)
    new = update(_window(x, plan), list(plan.arrays.values()), list(plan.arrays), lambda v: _in_window_layout(v, plan))
    return reshape(_put_window(x, new, plan), shape)
