"""How each lowering becomes values of the graph: one function per word of ``core.lowering``.

A rule takes ``(builder, equation, lowering, operand refs)`` and returns the result's ref, or a tuple of refs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core import lowering as L
from ..core.jaxpr import Eqn
from ..core.layout import Layout
from ..util import prod
from .affine import Walk, compose
from .graph import GraphBuilder, Ref, Value, kept_params, squeeze, squeeze_shape

__all__ = ["RULES", "identity_of"]

BLOCK = 8192
"""Elements that one block of a large reduction folds; results do not depend on who computes which block."""
BLOCKED_FROM = 1 << 16

_BOOL_MONOIDS = {"add": "or", "mul": "and", "max": "or", "min": "and"}


def identity_of(monoid: str, dtype: np.dtype[Any]) -> Any:
    """The neutral element of a fold."""
    if monoid in ("max", "min"):
        if dtype.kind == "f":
            return dtype.type(-np.inf if monoid == "max" else np.inf)
        if dtype.kind == "b":
            return np.bool_(monoid == "min")
        if dtype.kind == "c":
            return dtype.type(complex(-np.inf, -np.inf) if monoid == "max" else complex(np.inf, np.inf))
        info = np.iinfo(dtype)
        return dtype.type(info.min if monoid == "max" else info.max)
    if monoid == "and":
        return np.bool_(True) if dtype.kind == "b" else np.array(-1).astype(dtype)[()]
    return dtype.type(1 if monoid == "mul" else 0)


def _scalar(b: GraphBuilder, eqn: Eqn, lower: L.Scalar, refs: list[Ref]) -> Ref:
    aval = eqn.outvars[0].aval
    if lower.fn == "convert" and refs[0].value.dtype == aval.dtype:
        return refs[0]
    params = kept_params(lower.fn, eqn.params)
    if not b.native(lower.fn, tuple([x.value.dtype for x in refs]), aval.dtype, params):
        return _host(b, eqn, lower, refs)[0]
    return b.map(lower.fn, refs, aval.dtype, aval.shape, params)


def _view(b: GraphBuilder, eqn: Eqn, lower: L.View, refs: list[Ref]) -> Ref:
    return b.view(refs[0], lambda layout: lower.rule(layout, **eqn.params))


def _generate(b: GraphBuilder, eqn: Eqn, lower: L.Generate, refs: list[Ref]) -> Ref:
    aval = eqn.outvars[0].aval
    axis = eqn.params["dimension"]
    if aval.shape[axis] == 1 or aval.size == 0:
        return b.fill(0, aval)
    value = b.new("iota", (aval.shape[axis],), np.dtype(np.int64))
    value.weight = 1
    line = Ref(value, Layout.contiguous(value.shape).broadcast(aval.shape, [axis]))
    return line if aval.dtype == value.dtype else b.map("convert", [line], aval.dtype, aval.shape)


def reduce_values(b: GraphBuilder, monoid: str, ref: Ref, axes: Sequence[int], out_shape: tuple[int, ...]) -> Ref:
    """``ref`` folded over ``axes`` of its own (unsqueezed) shape; large folds in two steps, by blocks."""
    dtype, shape = ref.value.dtype, ref.layout.shape
    if dtype.kind == "b":
        monoid = _BOOL_MONOIDS.get(monoid, monoid)
    if 0 in out_shape or any(shape[a] == 0 for a in axes):
        return b.map("copy", [b.scalar(identity_of(monoid, dtype), dtype)], dtype, out_shape)
    layout = squeeze(ref.layout)
    number = np.cumsum([n != 1 for n in shape]) - 1
    kept_axes = [int(number[a]) for a in axes if shape[a] != 1]
    if not kept_axes:
        return b.view(ref, lambda x: x.reshape(out_shape))
    narrow = Ref(ref.value, layout)
    value = _blocked(b, monoid, narrow, sorted(kept_axes), dtype) or b.fold("fold", monoid, narrow, kept_axes, dtype)
    return b.whole(value, out_shape)


def _blocked(b: GraphBuilder, monoid: str, ref: Ref, axes: list[int], dtype: np.dtype[Any]) -> Value | None:
    """A fold with few results and many elements, cut into blocks along its outermost folded axis."""
    shape = ref.layout.shape
    kept = prod([n for a, n in enumerate(shape) if a not in axes])
    limit = 8 if len(shape) - 1 in axes else 512
    if ref.layout.size < BLOCKED_FROM or kept >= limit:
        return None
    first = axes[0]
    rows = max(1, BLOCK * max(1, min(kept, 8)) // max(1, ref.layout.size // shape[first]))
    blocks = -(-shape[first] // rows)
    if blocks < 2:
        return None
    partial = b.fold("fold", monoid, ref, axes, dtype)
    partial.shape = (blocks, *partial.shape)
    partial.block = (first, rows)
    return b.fold("fold", monoid, b.whole(partial), [0], dtype)


def _reduce(b: GraphBuilder, eqn: Eqn, lower: L.Reduce, refs: list[Ref]) -> Ref:
    return reduce_values(b, lower.monoid, refs[0], eqn.params["axes"], eqn.outvars[0].aval.shape)


def _arg_reduce(b: GraphBuilder, eqn: Eqn, lower: L.ArgReduce, refs: list[Ref]) -> Ref:
    (ref,), aval = refs, eqn.outvars[0].aval
    axis = eqn.params["axis"]
    shape = ref.layout.shape
    if aval.size == 0:
        return b.fill(0, aval)
    if shape[axis] == 0:
        raise ValueError(f"{eqn.primitive} of an empty axis {axis} of shape {shape} has no result")
    if shape[axis] == 1:
        return b.fill(0, aval)
    narrow = sum([n != 1 for n in shape[:axis]])
    value = b.fold("argfold", lower.extreme, Ref(ref.value, squeeze(ref.layout)), [narrow], np.dtype(np.int64))
    ref = b.whole(value, aval.shape)
    return ref if aval.dtype == np.int64 else b.map("convert", [ref], aval.dtype, aval.shape)


def _cumulate(b: GraphBuilder, eqn: Eqn, lower: L.Cumulate, refs: list[Ref]) -> Ref:
    (ref,), aval = refs, eqn.outvars[0].aval
    axis, backwards = eqn.params["axis"], eqn.params.get("reverse", False)
    if aval.size == 0 or aval.shape[axis] == 1:
        return ref
    layout = ref.layout.reverse([axis]) if backwards else ref.layout
    monoid = _BOOL_MONOIDS.get(lower.monoid, lower.monoid) if aval.dtype.kind == "b" else lower.monoid
    value = b.new("scan", squeeze_shape(aval.shape), aval.dtype, [Ref(ref.value, squeeze(layout))])
    value.fn = monoid
    value.axes = (sum([n != 1 for n in aval.shape[:axis]]),)
    b.flops += value.size
    out = b.whole(value, aval.shape)
    return Ref(value, out.layout.reverse([axis])) if backwards else out


def _assemble(b: GraphBuilder, eqn: Eqn, lower: L.Assemble, refs: list[Ref]) -> Ref:
    aval = eqn.outvars[0].aval
    pieces = lower.rule(*[a.aval for a in eqn.invars], **eqn.params)
    array = b.new("array", squeeze_shape(aval.shape), aval.dtype)
    b.order.pop()
    covered = 0
    for piece in pieces:
        if piece.target.size == 0:
            continue
        source = b.view(refs[piece.operand], lambda layout, piece=piece: _through(piece.source, layout))
        part = b.copy(Ref(source.value, source.layout)).value
        part.home = Ref(array, squeeze(piece.target))
        part.mode = covered  # parts that overlap earlier ones must come after them
        covered = _covered_after(covered, piece.target, aval.size)
        array.parts.append(part)
    b.order.append(array)
    return b.whole(array, aval.shape)


def _covered_after(covered: int, target: Layout, total: int) -> int:
    """1 once a piece has filled everything: what follows writes over it."""
    return 1 if covered or target.size == total else 0


def _through(view: Layout, layout: Layout) -> Layout | None:
    """``view`` lies over the contiguous operand; the same elements (unit axes dropped) through its own layout."""
    view, layout = squeeze(view), squeeze(layout)
    walk = compose(Walk(view.strides, view.offset), view.shape, layout.shape, layout)
    return None if walk is None else Layout(view.shape, walk.strides, walk.offset)


def _window(
    b: GraphBuilder, source: Ref, kept: Sequence[int], places: Sequence[tuple[int, Ref]], shape: tuple[int, ...],
    fixed: Layout | None, fill: tuple[Ref, Any] | None = None,
) -> Ref:  # fmt: skip
    """Elements of ``source`` over ``shape``: ``fixed`` gives the regular part of the walk, ``places`` the strides of
    the computed indices, each already in range."""
    assert fixed is not None
    operands = [Ref(source.value, squeeze(fixed)), *[b.aligned(x, shape) for _, x in places]]
    value = b.new("window", squeeze_shape(shape), source.value.dtype, operands)
    value.mode = tuple([stride for stride, _ in places])
    value.weight, value.heavy = 4, False
    return b.whole(value, shape)


def clamped(b: GraphBuilder, index: Ref, limit: int) -> Ref:
    """An index as int64 within ``0..limit``."""
    int64, shape = np.dtype(np.int64), index.layout.shape
    if index.value.dtype != int64:
        if index.value.dtype == np.uint64:
            index = b.map("min", [index, b.scalar(limit, index.value.dtype)], index.value.dtype, shape)
        index = b.map("convert", [index], int64, shape)
    index = b.map("max", [index, b.scalar(0, int64)], int64, shape)
    return b.map("min", [index, b.scalar(limit, int64)], int64, shape)


def in_memory(b: GraphBuilder, ref: Ref) -> Ref:
    """A ref whose value is certain to be stored: windows read memory."""
    if ref.value.kind == "const":
        return b.copy(ref)
    return ref


def _dynamic_slice(b: GraphBuilder, eqn: Eqn, lower: L.DynamicSlice, refs: list[Ref]) -> Ref:
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
    return _window(b, source, (), places, aval.shape, fixed)


def _updated(b: GraphBuilder, ref: Ref, shape: tuple[int, ...]) -> tuple[Value, Value]:
    """An array that begins as a copy of ``ref``, to be written into; and that copy."""
    start = b.copy(ref).value
    array = b.new("array", squeeze_shape(shape), ref.value.dtype)
    b.order.pop()
    start.home = Ref(array, Layout.contiguous(array.shape))
    start.mode = 0
    array.parts.append(start)
    return array, start


def put(
    b: GraphBuilder, array: Value, update: Ref, fixed: Layout, places: Sequence[tuple[int, Ref]], combine: str,
    guard: Ref | None = None,
) -> None:  # fmt: skip
    """Write ``update`` into ``array`` along the walk ``fixed`` plus computed ``places``."""
    shape = update.layout.shape
    operands = [b.aligned(update, shape), *[b.aligned(x, shape) for _, x in places]]
    if guard is not None:
        operands.append(b.aligned(guard, shape))
    value = b.new("put", squeeze_shape(shape), array.dtype, operands)
    value.fn = combine
    value.mode = (tuple([s for s, _ in places]), guard is not None)
    value.home = Ref(array, squeeze(fixed))
    array.parts.append(value)


def _dynamic_update(b: GraphBuilder, eqn: Eqn, lower: L.DynamicUpdate, refs: list[Ref]) -> Ref:
    source, update, *starts = refs
    aval = eqn.outvars[0].aval
    if update.layout.size == 0:
        return source
    array, _ = _updated(b, source, aval.shape)
    whole = Layout.contiguous(aval.shape)
    places = []
    for n, m, stride, start in zip(aval.shape, update.layout.shape, whole.strides, starts, strict=True):
        if n != m:
            places.append((stride, clamped(b, start, n - m)))
    put(b, array, update, Layout(update.layout.shape, whole.strides), places, "set")
    b.order.append(array)
    return b.whole(array, aval.shape)


def _host(b: GraphBuilder, eqn: Eqn, lower: Any, refs: list[Ref]) -> tuple[Ref, ...]:
    return b.call("host", eqn, [contiguous(b, x) for x in refs])


def contiguous(b: GraphBuilder, ref: Ref) -> Ref:
    """A ref that lies in memory row-major without gaps (it may begin anywhere)."""
    return ref if ref.layout.is_contiguous() and ref.value.kind != "const" else b.copy(ref)


RULES: dict[type, Callable[..., Any]] = {
    L.Scalar: _scalar,
    L.View: _view,
    L.Generate: _generate,
    L.Reduce: _reduce,
    L.ArgReduce: _arg_reduce,
    L.Cumulate: _cumulate,
    L.Assemble: _assemble,
    L.DynamicSlice: _dynamic_slice,
    L.DynamicUpdate: _dynamic_update,
    L.Host: _host,
    L.Library: _host,
}
