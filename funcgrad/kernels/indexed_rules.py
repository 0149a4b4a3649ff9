"""The rules of reading and writing at computed places, and of arrays that are written part by part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import lowering as L
from ..core.jaxpr import Eqn
from ..core.layout import Layout
from .graph import ALONE, INDEX, INLINED_KINDS, GraphBuilder, Ref, Value, squeeze, squeeze_shape

__all__ = ["clamped", "dynamic_slice", "dynamic_update", "gather", "in_memory", "put", "scatter", "stored", "window"]


def window(
    b: GraphBuilder, source: Ref, places: Sequence[tuple[int, Ref]], shape: tuple[int, ...], fixed: Layout
) -> Ref:
    """Elements of ``source`` over ``shape``: ``fixed`` gives the regular part of the walk, ``places`` the strides of
    the computed indices, each already in range."""
    operands = [Ref(source.value, squeeze(fixed)), *[b.aligned(x, shape) for _, x in places]]
    value = b.new("window", squeeze_shape(shape), source.value.dtype, operands)
    value.mode = tuple([stride for stride, _ in places])
    value.weight, value.heavy = 4, False
    return b.whole(value, shape)


def clamped(b: GraphBuilder, index: Ref, limit: int) -> Ref:
    """An index as int64 within ``0..limit``."""
    shape = index.layout.shape
    if index.value.kind == "iota" and index.value.size <= limit + 1:
        return index
    if index.value.dtype != INDEX:
        if index.value.dtype == np.uint64:
            index = b.map("min", [index, b.scalar(limit, index.value.dtype)], index.value.dtype, shape)
        index = b.map("convert", [index], INDEX, shape)
    index = b.map("max", [index, b.scalar(0, INDEX)], INDEX, shape)
    return b.map("min", [index, b.scalar(limit, INDEX)], INDEX, shape)


def in_memory(b: GraphBuilder, ref: Ref) -> Ref:
    """A ref whose value is certain to be stored: windows read memory."""
    return b.copy(ref) if ref.value.virtual else ref


def dynamic_slice(b: GraphBuilder, eqn: Eqn, lower: L.DynamicSlice, refs: list[Ref]) -> Ref:
    source, *starts = refs
    source = in_memory(b, source)
    aval, shape = eqn.outvars[0].aval, source.layout.shape
    places = []
    for n, m, stride, start in zip(shape, aval.shape, source.layout.strides, starts, strict=True):
        if n != m:
            places.append((stride, clamped(b, start, n - m)))
    fixed = Layout(aval.shape, source.layout.strides, source.layout.offset)
    if not places:
        return Ref(source.value, fixed)
    return window(b, source, places, aval.shape, fixed)


def _updated(b: GraphBuilder, eqn: Eqn, ref: Ref) -> Value:
    """An array that begins as a copy of ``ref``, to be written into. An array that was made for an update and is read
    by nothing else, through no view either, goes on to be used."""
    value, source = ref.value, eqn.invars[0]
    unread = value.kind == "array" and value.uses == 0 and source in b.once and value.index not in b.shared
    if unread and not ref.layout.offset and ref.layout.is_contiguous() and ref.layout.size == value.size:
        b.order.remove(value)
        return value
    return _filled(b, ref, ALONE if value.kind in ("input", "step", "array") else 0)


def _filled(b: GraphBuilder, ref: Ref, mode: int) -> Value:
    """An array that begins as a copy of ``ref``; it has yet to be put in its place in the order."""
    start = b.copy(ref).value
    array = b.new("array", start.shape, start.dtype)
    b.order.pop()
    start.home = Ref(array, Layout.contiguous(array.shape))
    start.mode = mode
    array.parts.append(start)
    return array


def _settled(b: GraphBuilder, ref: Ref, source: Ref) -> Ref:
    """``ref``, put into memory if it is small and made of ``source``, which is about to be written over."""
    if 2 * ref.layout.size > source.layout.size or not _made_of(ref.value, source.value, 24):
        return ref
    array = _filled(b, ref, 0)
    b.order.append(array)
    return b.whole(array, ref.layout.shape)


def _made_of(value: Value, source: Value, steps: int) -> bool:
    """Whether ``source`` would be read where ``value`` is used; after many steps, yes."""
    if value is source or not steps:
        return True
    return value.kind in INLINED_KINDS and any([_made_of(x, source, steps - 1) for x, _ in value.operands])


def stored(b: GraphBuilder, ref: Ref, row_major: bool = False) -> Ref:
    """The same elements, in memory and never computed again: for what reads each of them many times. ``row_major``:
    in the order of the ref's own axes, rather than of its value."""
    value, layout = ref
    if value.kind not in INLINED_KINDS and (layout.is_contiguous() or not row_major):
        return ref
    whole = ref if row_major else b.whole(value)
    array = _filled(b, whole, 0)
    b.order.append(array)
    return b.whole(array, layout.shape) if row_major else Ref(array, layout)


def put(
    b: GraphBuilder, array: Value, update: Ref, fixed: Layout, places: Sequence[tuple[int, Ref]], combine: str,
    guard: Ref | None, unique: bool,
) -> None:  # fmt: skip
    """Write ``update`` into ``array`` along the walk ``fixed`` plus computed ``places``."""
    shape = update.layout.shape
    operands = [b.aligned(update, shape), *[b.aligned(x, shape) for _, x in places]]
    if guard is not None:
        operands.append(b.aligned(guard, shape))
    value = b.new("put", squeeze_shape(shape), array.dtype, operands)
    value.fn = combine
    value.mode = (tuple([s for s, _ in places]), guard is not None, unique)
    value.home = Ref(array, squeeze(fixed))
    array.parts.append(value)


def dynamic_update(b: GraphBuilder, eqn: Eqn, lower: L.DynamicUpdate, refs: list[Ref]) -> Ref:
    source, update, *starts = refs
    aval = eqn.outvars[0].aval
    if update.layout.size == 0:
        return source
    update, *starts = [_settled(b, x, source) for x in (update, *starts)]
    array = _updated(b, eqn, source)
    whole = Layout.contiguous(aval.shape)
    places = []
    for n, m, stride, start in zip(aval.shape, update.layout.shape, whole.strides, starts, strict=True):
        if n != m:
            places.append((stride, clamped(b, start, n - m)))
    put(b, array, update, Layout(update.layout.shape, whole.strides), places, "set", None, True)
    b.order.append(array)
    return b.whole(array, aval.shape)


def _inside(b: GraphBuilder, index: Ref, extent: int) -> Ref:
    """Whether an index is in ``0..extent - 1``, elementwise."""
    shape, dtype = index.layout.shape, index.value.dtype
    boolean = np.dtype(np.bool_)
    if dtype.kind == "u":
        top = min(extent - 1, int(np.iinfo(dtype).max))
        return b.map("le", [index, b.scalar(top, dtype)], boolean, shape)
    if dtype != INDEX:
        index = b.map("convert", [index], INDEX, shape)
    low = b.map("ge", [index, b.scalar(0, INDEX)], boolean, shape)
    return b.map("and", [low, b.map("lt", [index, b.scalar(extent, INDEX)], boolean, shape)], boolean, shape)


def _all_inside(b: GraphBuilder, indices: Sequence[Ref], extents: Sequence[int]) -> Ref:
    inside = [_inside(b, x, n) for x, n in zip(indices, extents, strict=True)]
    total = inside[0]
    for x in inside[1:]:
        total = b.map("and", [total, x], total.value.dtype, total.layout.shape)
    return total


def _spread(ref: Ref, shape: tuple[int, ...]) -> Ref:
    """An index array laid over the leading axes of ``shape``."""
    return Ref(ref.value, ref.layout.broadcast(shape, range(len(ref.layout.shape))))


def _walk_over(indices: Sequence[Ref], layout: Layout, axes: Sequence[int], shape: tuple[int, ...]) -> Layout:
    """The regular part of indexed access: the axes that are not indexed, behind those of the index arrays."""
    rest = [layout.strides[a] for a in range(len(layout.shape)) if a not in axes]
    leading = len(indices[0].layout.shape) if indices else 0
    return Layout(shape, (*[0] * leading, *rest), layout.offset)


def gather(b: GraphBuilder, eqn: Eqn, lower: L.Gather, refs: list[Ref]) -> Ref:
    source, *indices = refs
    axes, mode, aval = eqn.params["axes"], eqn.params["mode"], eqn.outvars[0].aval
    layout, dtype = source.layout, aval.dtype
    missing = b.scalar(_missing(dtype) if mode == "fill" else dtype.type(0), dtype)
    if aval.size == 0 or layout.size == 0:
        return b.map("copy", [missing], dtype, aval.shape)
    if not indices:
        return source
    source = in_memory(b, source)
    layout = source.layout
    places = [
        (layout.strides[a], _spread(clamped(b, x, layout.shape[a] - 1), aval.shape))
        for a, x in zip(axes, indices, strict=True)
    ]
    out = window(b, source, places, aval.shape, _walk_over(indices, layout, axes, aval.shape))
    if mode in ("fill", "zero"):
        inside = _spread(_all_inside(b, indices, [layout.shape[a] for a in axes]), aval.shape)
        out = b.map("select", [inside, out, missing], dtype, aval.shape)
    return out


def _missing(dtype: np.dtype[Any]) -> Any:
    """What a read out of bounds gives: see ``ops.indexing``."""
    if dtype.kind in "fc":
        return dtype.type(np.nan)
    if dtype.kind == "b":
        return np.False_
    limits = np.iinfo(dtype)
    return dtype.type(limits.min if dtype.kind == "i" else limits.max)


def scatter(b: GraphBuilder, eqn: Eqn, lower: L.Scatter, refs: list[Ref]) -> Any:
    source, update, *indices = refs
    aval, axes, mode = eqn.outvars[0].aval, eqn.params["axes"], eqn.params["mode"]
    if update.layout.size == 0 or aval.size == 0:
        return source
    dtype = aval.dtype
    if lower.combine != "set" and not b.native(lower.combine, (dtype, dtype), dtype, ()):
        return b.host(eqn, refs)[0]
    update, *indices = [_settled(b, x, source) for x in (update, *indices)]
    array = _updated(b, eqn, source)
    whole = Layout.contiguous(aval.shape)
    shape = update.layout.shape
    if not indices:
        put(b, array, update, whole, [], lower.combine, None, True)
    else:
        places = [
            (whole.strides[a], _spread(clamped(b, x, aval.shape[a] - 1), shape))
            for a, x in zip(axes, indices, strict=True)
        ]
        guard = None
        if mode == "drop":
            guard = _spread(_all_inside(b, indices, [aval.shape[a] for a in axes]), shape)
        walk = _walk_over(indices, whole, axes, shape)
        put(b, array, update, walk, places, lower.combine, guard, eqn.params["unique"])
    b.order.append(array)
    return b.whole(array, aval.shape)
