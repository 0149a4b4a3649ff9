"""Functions that move elements: shapes, axes, joining, splitting, repeating, padding, picking."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..core.trace import Tracer
from ..ops import indexing as ix
from ..ops import shape as sh
from ..ops.families import broadcast_shapes
from ..ops.promotion import as_dtype, result_type
from ..ops.search import searchsorted
from ..ops.structural import broadcast_to as _broadcast_to
from ..ops.structural import expand_dims as _expand_dims
from ..ops.structural import reshape as _reshape
from ..ops.structural import shape_of
from ..ops.structural import squeeze as _squeeze
from ..ops.structural import transpose as _transpose
from ..util import canonicalize_axes, canonicalize_axis
from .at import at
from .dispatch import implements, operand
from .indexing import getitem
from .memory import clone, mark_view
from .ufuncs import store

__all__ = [
    "append", "array_split", "atleast_1d", "atleast_2d", "atleast_3d", "block", "broadcast_arrays",
    "broadcast_shapes", "broadcast_to", "column_stack", "concat", "concatenate", "delete", "dsplit", "dstack",
    "expand_dims", "flip", "fliplr", "flipud", "hsplit", "hstack", "insert", "moveaxis", "pad", "permute_dims",
    "put_along_axis", "ravel", "repeat", "reshape", "resize", "roll", "rollaxis", "rot90", "split", "squeeze",
    "stack", "swapaxes", "take", "take_along_axis", "tile", "transpose", "unstack", "vsplit", "vstack",
]  # fmt: skip


def _view(x: Any, how: str, fun: Any) -> Any:
    """``fun(x)``, remembered as a view of ``x``."""
    return mark_view(fun(x), x, how, fun)


# shapes and axes ------------------------------------------------------------------------------------------------


def _order_error(name: str, order: str) -> NotImplementedError:
    return NotImplementedError(f"{name}: order={order!r} is not supported on traced values; transpose before and after")


def fortran_or_c(name: str, order: str) -> bool:
    if order not in ("C", "F", "A", "K", None):
        raise _order_error(name, order)
    return order == "F"


@implements(np.reshape, view=True)
def reshape(a: Any, /, shape: Any = None, order: str = "C", *, copy: Any = None, newshape: Any = None) -> Any:
    """The same elements under another shape."""
    x = operand(a)
    shape = newshape if shape is None else shape
    target = tuple(shape) if isinstance(shape, (tuple, list, np.ndarray)) else (shape,)
    target = tuple([operator.index(n) for n in target])
    if fortran_or_c("reshape", order):
        reversed_x = _transpose(x, range(len(shape_of(x)))[::-1])
        return _transpose(_reshape(reversed_x, target[::-1]), range(len(target))[::-1])
    result = _reshape(x, target)
    return clone(result) if copy and result is x else result if copy else mark_view(result, x, "a reshape")


@implements(np.ravel, view=True)
def ravel(a: Any, order: str = "C") -> Any:
    """The elements in one row."""
    return reshape(a, (-1,) if shape_of(operand(a)) and math.prod(shape_of(operand(a))) else (
        math.prod(shape_of(operand(a))),), order)  # fmt: skip


@implements(np.transpose, np.permute_dims, view=True)
def transpose(a: Any, axes: Any = None) -> Any:
    """The axes in another order; reversed by default."""
    x = operand(a)
    rank = len(shape_of(x))
    order = tuple(range(rank))[::-1] if axes is None else canonicalize_axes(tuple(axes), rank, "axes")
    if len(order) != rank:
        raise ValueError(f"transpose: axes {tuple(axes)} do not match an array of {rank} dimensions")
    return _view(x, "a transpose", lambda base: _transpose(base, order))


permute_dims = transpose


@implements(np.swapaxes, view=True)
def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    """Two axes exchanged."""
    x = operand(a)
    order = list(range(len(shape_of(x))))
    i, j = canonicalize_axis(axis1, len(order), "axis1"), canonicalize_axis(axis2, len(order), "axis2")
    order[i], order[j] = order[j], order[i]
    return transpose(x, order)


@implements(np.moveaxis, view=True)
def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    """Some axes moved to other positions; the rest keep their order."""
    x = operand(a)
    rank = len(shape_of(x))
    sources, targets = (canonicalize_axes(v, rank, n) for v, n in ((source, "source"), (destination, "destination")))
    if len(sources) != len(targets):
        raise ValueError(f"moveaxis: {len(sources)} source axes, {len(targets)} destinations")
    order = [a for a in range(rank) if a not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return transpose(x, order)


@implements(np.rollaxis, view=True)
def rollaxis(a: Any, axis: int, start: int = 0) -> Any:
    """One axis moved back until it stands before ``start``; see ``moveaxis``."""
    rank = len(shape_of(operand(a)))
    axis = canonicalize_axis(axis, rank)
    start = start + rank if start < 0 else start
    return moveaxis(a, axis, start - 1 if axis < start else start)


@implements(np.expand_dims, view=True)
def expand_dims(a: Any, axis: Any) -> Any:
    """New axes of extent 1 at the given positions of the result."""
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    return _view(operand(a), "an expand_dims", lambda base: _expand_dims(base, axes))


@implements(np.squeeze, view=True)
def squeeze(a: Any, axis: Any = None) -> Any:
    """Without the axes of extent 1, or without those given."""
    x = operand(a)
    shape = shape_of(x)
    axes = tuple([k for k, n in enumerate(shape) if n == 1]) if axis is None else canonicalize_axes(axis, len(shape))
    return _view(x, "a squeeze", lambda base: _squeeze(base, axes))


def _at_least(rank: int, numpy_function: Any) -> Any:
    def atleast(*arys: Any) -> Any:
        results = tuple([_with_rank(operand(x), rank) for x in arys])
        return results if len(results) != 1 else results[0]

    atleast.__name__ = atleast.__qualname__ = numpy_function.__name__
    return implements(numpy_function, view=True)(atleast)


def _with_rank(x: Any, rank: int) -> Any:
    own = len(shape_of(x))
    if own >= rank:
        return x
    before = {(3, 1): 1, (3, 2): 0}.get((rank, own), rank - own)
    return expand_dims(x, [*range(before), *range(own + before, rank)])


atleast_1d, atleast_2d, atleast_3d = (
    _at_least(k, f) for k, f in ((1, np.atleast_1d), (2, np.atleast_2d), (3, np.atleast_3d))
)


@implements(np.broadcast_to, view=True)
def broadcast_to(array: Any, shape: Any, subok: bool = False) -> Any:
    """The array repeated along new and stretched axes."""
    target = tuple(shape) if isinstance(shape, (tuple, list)) else (operator.index(shape),)
    return _view(operand(array), "a broadcast_to", lambda base: _broadcast_to(base, target))


@implements(np.broadcast_arrays, view=True)
def broadcast_arrays(*args: Any, subok: bool = False) -> Any:
    """The arrays broadcast against each other."""
    xs = [operand(x) for x in args]
    shape = broadcast_shapes("broadcast_arrays", [shape_of(x) for x in xs])
    return tuple([broadcast_to(x, shape) for x in xs])


def _axes_or_all(axis: Any, x: Any) -> tuple[int, ...]:
    return canonicalize_axes(axis, len(shape_of(x)))


@implements(np.flip, view=True)
def flip(m: Any, axis: Any = None) -> Any:
    """The order of elements reversed along axes."""
    x = operand(m)
    axes = _axes_or_all(axis, x)
    return _view(x, "a flip", lambda base: sh.rev(base, axes))


@implements(np.fliplr, view=True)
def fliplr(m: Any) -> Any:
    """The second axis reversed."""
    return flip(m, 1)


@implements(np.flipud, view=True)
def flipud(m: Any) -> Any:
    """The first axis reversed."""
    return flip(m, 0)


@implements(np.rot90, view=True)
def rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> Any:
    """Rotated by 90 degrees ``k`` times in the plane of two axes."""
    i, j = canonicalize_axes(tuple(axes), len(shape_of(operand(m))))
    k %= 4
    if k == 0:
        return operand(m)
    if k == 2:
        return flip(m, (i, j))
    return swapaxes(flip(m, j), i, j) if k == 1 else flip(swapaxes(m, i, j), j)


@implements(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    """Elements shifted cyclically; ``shift`` may be traced if ``axis`` is one axis."""
    x = operand(a)
    if axis is None:
        return _reshape(roll(ravel(x), shift, 0), shape_of(x))
    if isinstance(shift, Tracer):
        n = shape_of(x)[canonicalize_axis(axis, len(shape_of(x)))]
        return take(x, np.remainder(np.subtract(np.arange(n), shift), max(n, 1)), axis)
    shifts, axes = np.broadcast_arrays(np.atleast_1d(shift), np.atleast_1d(axis))
    for s, k in zip(shifts.tolist(), axes.tolist(), strict=True):
        k = canonicalize_axis(k, len(shape_of(x)))
        n = shape_of(x)[k]
        s = s % n if n else 0
        if s:
            x = sh.concatenate([sh.slice_in_dim(x, n - s, n, axis=k), sh.slice_in_dim(x, 0, n - s, axis=k)], k)
    return x


# joining and splitting --------------------------------------------------------------------------------------------


def _array_dtype(x: Any) -> np.dtype[Any]:
    return aval_of(x).dtype


def _joined(arrays: Any, dtype: Any, name: str) -> list[Any]:
    xs = [operand(x) for x in arrays]
    if not xs:
        raise ValueError(f"{name}: need at least one array")
    common = np.dtype(dtype) if dtype is not None else result_type(*[_array_dtype(x).type(0) for x in xs])
    return [as_dtype(x, common) for x in xs]


def _into(name: str, result: Any, out: Any, casting: str = "same_kind") -> Any:
    return result if out is None else store(name, result, out, casting)


@implements(np.concatenate)
def concatenate(
    arrays: Any, /, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind"
) -> Any:
    """Arrays end to end along an axis (flattened first if it is None)."""
    xs = _joined(arrays, dtype, "concatenate")
    if axis is None:
        xs, axis = [ravel(x) for x in xs], 0
    return _into("concatenate", sh.concatenate(xs, axis), out, casting)


concat = concatenate


@implements(np.stack)
def stack(arrays: Any, axis: int = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    """Arrays of one shape along a new axis."""
    return _into("stack", sh.stack(_joined(arrays, dtype, "stack"), axis), out, casting)


@implements(np.unstack)
def unstack(x: Any, /, *, axis: int = 0) -> Any:
    """The pieces along an axis, without it."""
    return tuple(moveaxis(x, axis, 0))


@implements(np.vstack)
def vstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    """Rows on top of each other."""
    return concatenate([atleast_2d(operand(x)) for x in tup], 0, dtype=dtype)


@implements(np.hstack)
def hstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    """Arrays side by side."""
    xs = [atleast_1d(operand(x)) for x in tup]
    return concatenate(xs, 0 if xs and len(shape_of(xs[0])) == 1 else 1, dtype=dtype)


@implements(np.dstack)
def dstack(tup: Any) -> Any:
    """Arrays along the third axis."""
    return concatenate([atleast_3d(operand(x)) for x in tup], 2)


@implements(np.column_stack)
def column_stack(tup: Any) -> Any:
    """Vectors as the columns of a matrix."""
    xs = [operand(x) for x in tup]
    return concatenate([expand_dims(atleast_1d(x), 1) if len(shape_of(x)) < 2 else x for x in xs], 1)


def _block(arrays: Any, depth: int) -> Any:
    if isinstance(arrays, list):
        return concatenate([_block(a, depth - 1) for a in arrays], -depth)
    return arrays


def _depth(arrays: Any) -> int:
    return 1 + max([_depth(a) for a in arrays]) if isinstance(arrays, list) else 0


@implements(np.block)
def block(arrays: Any) -> Any:
    """An array from nested lists of blocks."""
    depth = _depth(arrays)

    def lift(a: Any) -> Any:
        return [lift(x) for x in a] if isinstance(a, list) else operand(a)

    def rank_of(a: Any) -> int:
        return max([rank_of(x) for x in a]) if isinstance(a, list) else len(shape_of(a))

    arrays = lift(arrays)
    rank = max(depth, rank_of(arrays))

    def pad_rank(a: Any) -> Any:
        if isinstance(a, list):
            return [pad_rank(x) for x in a]
        return expand_dims(a, list(range(rank - len(shape_of(a))))) if len(shape_of(a)) < rank else a

    return _block(pad_rank(arrays), depth)


@implements(np.append)
def append(arr: Any, values: Any, axis: Any = None) -> Any:
    """Values after an array, along an axis or flattened."""
    return concatenate([arr, values], axis)


def _cuts(n: int, sections: Any, equal: bool) -> list[int]:
    if isinstance(sections, (int, np.integer)):
        if sections < 1:
            raise ValueError("split: the number of sections must be larger than 0")
        if equal and n % sections:
            raise ValueError(f"array split does not result in an equal division: {n} into {sections}")
        each, extra = divmod(n, int(sections))
        sizes = [each + 1] * extra + [each] * (int(sections) - extra)
        return np.cumsum([0, *sizes]).tolist()
    return [0, *[operator.index(k) for k in sections], n]


def _split(ary: Any, sections: Any, axis: int, equal: bool) -> list[Any]:
    x = operand(ary)
    axis = canonicalize_axis(axis, len(shape_of(x)))
    cuts = _cuts(shape_of(x)[axis], sections, equal)
    pieces = []
    for b, e in pairwise(cuts):
        pieces.append(x[(slice(None),) * axis + (slice(b, e),)])
    return pieces


@implements(np.split, view=True)
def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    """Equal pieces, or pieces between given positions, along an axis."""
    return _split(ary, indices_or_sections, axis, True)


@implements(np.array_split, view=True)
def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    """As ``split``, the first pieces one longer where the division is not equal."""
    return _split(ary, indices_or_sections, axis, False)


@implements(np.vsplit, view=True)
def vsplit(ary: Any, indices_or_sections: Any) -> Any:
    """``split`` along the first axis."""
    return _split(ary, indices_or_sections, 0, True)


@implements(np.hsplit, view=True)
def hsplit(ary: Any, indices_or_sections: Any) -> Any:
    """``split`` along the second axis (the first of a vector)."""
    return _split(ary, indices_or_sections, 1 if len(shape_of(operand(ary))) > 1 else 0, True)


@implements(np.dsplit, view=True)
def dsplit(ary: Any, indices_or_sections: Any) -> Any:
    """``split`` along the third axis."""
    return _split(ary, indices_or_sections, 2, True)


# repeating ------------------------------------------------------------------------------------------------------


@implements(np.tile)
def tile(A: Any, reps: Any) -> Any:
    """The array repeated as a whole, ``reps[k]`` times along axis ``k``."""
    x = operand(A)
    reps = tuple(reps) if isinstance(reps, (tuple, list, np.ndarray)) else (reps,)
    reps = tuple([operator.index(r) for r in reps])
    rank = max(len(reps), len(shape_of(x)))
    reps = (1,) * (rank - len(reps)) + reps
    shape = (1,) * (rank - len(shape_of(x))) + shape_of(x)
    spread = _reshape(x, [n for pair in zip([1] * rank, shape, strict=True) for n in pair])
    wide = _broadcast_to(spread, [n for pair in zip(reps, shape, strict=True) for n in pair])
    return _reshape(wide, [r * n for r, n in zip(reps, shape, strict=True)])


@implements(np.repeat, extras=("total_repeat_length",))
def repeat(a: Any, repeats: Any, axis: Any = None, *, total_repeat_length: int | None = None) -> Any:
    """Each element repeated. Traced ``repeats`` need ``total_repeat_length``, the extent of the result."""
    x = operand(a)
    if axis is None:
        x, axis = ravel(x), 0
    axis = canonicalize_axis(axis, len(shape_of(x)))
    n = shape_of(x)[axis]
    if isinstance(repeats, Tracer) or total_repeat_length is not None:
        return _repeat_traced(x, operand(repeats), axis, n, total_repeat_length)
    counts = np.asarray(repeats)
    if counts.ndim == 0:
        x = _expand_dims(x, (axis + 1,))
        shape = list(shape_of(x))
        shape[axis + 1] = operator.index(counts[()])
        return _reshape(_broadcast_to(x, shape), [*shape[:axis], n * shape[axis + 1], *shape[axis + 2 :]])
    return take(x, np.repeat(np.arange(n), counts), axis)


def _repeat_traced(x: Any, repeats: Any, axis: int, n: int, total: int | None) -> Any:
    if total is None:
        raise ValueError(
            "repeat: with traced repeats the extent of the result is not known; pass total_repeat_length=..."
        )
    ends = np.cumsum(np.broadcast_to(repeats, (n,)))
    source = searchsorted(as_dtype(ends, np.dtype(np.intp)), np.arange(total), True)
    return take(x, np.minimum(source, n - 1), axis)


@implements(np.resize)
def resize(a: Any, new_shape: Any) -> Any:
    """The elements repeated or cut to fill a shape."""
    x = ravel(operand(a))
    target = tuple(new_shape) if isinstance(new_shape, (tuple, list)) else (new_shape,)
    size, own = math.prod(target), shape_of(x)[0]
    if not own:
        return np.zeros(target, aval_of(x).dtype)
    return _reshape(sh.slice_in_dim(tile(x, -(-size // own)), 0, size), target)


# padding --------------------------------------------------------------------------------------------------------


def _pad_widths(pad_width: Any, rank: int) -> list[tuple[int, int]]:
    if isinstance(pad_width, dict):
        full: list[Any] = [(0, 0)] * rank
        for axis, width in pad_width.items():
            full[axis] = (width, width) if isinstance(width, (int, np.integer)) else tuple(width)
        pad_width = full
    widths = np.broadcast_to(np.asarray(pad_width), (rank, 2))
    if widths.dtype.kind not in "iu" or (widths.size and widths.min() < 0):
        raise ValueError(f"pad: widths must be integers that are not negative, found {pad_width!r}")
    return [(int(lo), int(hi)) for lo, hi in widths]


def _pad_constant(x: Any, widths: Sequence[tuple[int, int]], values: Any) -> Any:
    dtype, rank = aval_of(x).dtype, len(shape_of(x))
    if np.ndim(values) == 0 or (isinstance(values, Tracer) and not values.ndim):
        return sh.pad(x, as_dtype(operand(values), dtype), [(lo, hi, 0) for lo, hi in widths])
    table = np.broadcast_to(np.asarray(values), (rank, 2))
    for axis, (lo, hi) in enumerate(widths):
        for width, value in (((lo, 0, 0), table[axis, 0]), ((0, hi, 0), table[axis, 1])):
            x = sh.pad(x, dtype.type(value), [width if a == axis else (0, 0, 0) for a in range(rank)])
    return x


_PAD_MODES = ("edge", "reflect", "symmetric", "wrap")


@implements(np.pad)
def pad(array: Any, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> Any:
    """The array with a border: ``constant``, ``edge``, ``reflect``, ``symmetric`` or ``wrap``."""
    x = operand(array)
    x = as_dtype(x, aval_of(x).dtype)
    widths = _pad_widths(pad_width, len(shape_of(x)))
    if mode == "constant":
        return _pad_constant(x, widths, kwargs.get("constant_values", 0))
    if mode == "empty":
        return _pad_constant(x, widths, 0)
    if mode not in _PAD_MODES or kwargs.get("reflect_type", "even") != "even":
        raise NotImplementedError(f"pad: mode {mode!r} is not supported on traced values; take constant, "
                                  f"{', '.join(_PAD_MODES)} (reflect_type 'even')")  # fmt: skip
    for axis, (lo, hi) in enumerate(widths):
        if lo or hi:
            n = shape_of(x)[axis]
            if not n:
                raise ValueError(f"can't extend empty axis {axis} using modes other than 'constant' or 'empty'")
            positions = np.pad(np.arange(n), (lo, hi), mode=mode)
            x = take(x, positions, axis)
    return x


# picking --------------------------------------------------------------------------------------------------------


@implements(np.take, extras=("fill_value", "unique_indices", "indices_are_sorted"))
def take(
    a: Any, indices: Any, axis: Any = None, out: Any = None, mode: Any = "raise", *, fill_value: Any = None,
    **unused: Any,
) -> Any:  # fmt: skip
    """Elements at indices along an axis. Traced indices out of range take the nearest element."""
    x, index = operand(a), operand(indices)
    if axis is None:
        x, axis = ravel(x), 0
    axis = canonicalize_axis(axis, len(shape_of(x)))
    mode = "raise" if mode is None else mode
    n = shape_of(x)[axis]
    if mode == "wrap":
        index = np.remainder(index, max(n, 1))
    elif mode == "clip":
        index = np.minimum(np.maximum(index, 0), max(n - 1, 0))
    where = (slice(None),) * axis + (index,)
    if mode in ("raise", "wrap", "clip"):
        return _into("take", getitem(x, where), out)
    return _into("take", at(x)[where].get(mode=mode, fill_value=fill_value), out)


def _open_grid(shape: tuple[int, ...], indices: Any, axis: int) -> tuple[Any, ...]:
    rank = len(shape)
    grid = [np.arange(n).reshape([-1 if j == k else 1 for j in range(rank)]) for k, n in enumerate(shape)]
    return (*grid[:axis], indices, *grid[axis + 1 :])


@implements(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Any:
    """At each position, the element with that index along an axis; negative indices count from the end."""
    x, index = operand(arr), operand(indices)
    if aval_of(index).dtype.kind not in "iu":
        raise IndexError("`indices` must be an integer array")
    if axis is None:
        x, axis = ravel(x), 0
    axis = canonicalize_axis(axis, len(shape_of(x)))
    n = shape_of(x)[axis]
    if not isinstance(index, Tracer) and index.size and not (-n <= index.min() and index.max() < n):
        raise IndexError(f"take_along_axis: an index is out of bounds for axis {axis} with size {n}")
    if aval_of(index).dtype.kind == "i":
        index = np.where(np.less(index, 0), np.add(index, n), index)
    return ix.take_along_axis(x, index, axis)


@implements(np.put_along_axis)
def put_along_axis(arr: Any, indices: Any, values: Any, axis: Any) -> None:
    """Write values at indices along an axis of a traced array, in place."""
    if not isinstance(arr, Tracer):
        raise TypeError("put_along_axis writes traced values into a NumPy array; make it with zeros_like(x)")
    if axis is None:
        raise NotImplementedError("put_along_axis of a traced array needs an axis; or write x[index] = values")
    axis = canonicalize_axis(axis, arr.ndim)
    shape = tuple([n if k != axis else 1 for k, n in enumerate(arr.shape)])
    arr[_open_grid(shape, indices, axis)] = values


@implements(np.delete)
def delete(arr: Any, obj: Any, axis: Any = None) -> Any:
    """Without the elements at static positions along an axis."""
    x = operand(arr)
    if axis is None:
        x, axis = ravel(x), 0
    axis = canonicalize_axis(axis, len(shape_of(x)))
    if isinstance(obj, Tracer):
        raise TypeError("delete: the positions must be static, for they give the shape; found a traced value")
    return take(x, np.delete(np.arange(shape_of(x)[axis]), obj), axis)


@implements(np.insert)
def insert(arr: Any, obj: Any, values: Any, axis: Any = None) -> Any:
    """With values inserted before static positions along an axis."""
    x = operand(arr)
    if axis is None:
        x, axis = ravel(x), 0
    axis = canonicalize_axis(axis, len(shape_of(x)))
    if isinstance(obj, Tracer):
        raise TypeError("insert: the positions must be static, for they give the shape; found a traced value")
    n = shape_of(x)[axis]
    v = as_dtype(operand(values), aval_of(x).dtype)
    v = _expand_dims(v, range(len(shape_of(x)) - len(shape_of(v))))
    count: Any = 1
    if np.ndim(obj) == 0 and not isinstance(obj, slice):  # all values go to one position, by NumPy's rule
        v = moveaxis(v, 0, axis)
        count = shape_of(v)[axis]
    order = np.insert(np.arange(n), obj, np.full(count, -1))
    new = order == -1
    count = int(new.sum())
    v = _broadcast_to(v, [*shape_of(x)[:axis], count, *shape_of(x)[axis + 1 :]])
    order[new] = n + np.arange(count)
    return take(sh.concatenate([x, v], axis), order, axis)
