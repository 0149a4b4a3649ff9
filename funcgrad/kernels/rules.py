"""How each lowering becomes values of the graph: one function per word of ``core.lowering``.

A rule takes ``(builder, equation, lowering, operand refs)`` and returns the result's ref, or a tuple of refs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..core import lowering as L
from ..core.avals import ShapedArray
from ..core.jaxpr import Eqn
from ..core.layout import Layout
from ..core.staging import stage
from ..util import prod
from .affine import Walk, compose
from .graph import INDEX, GraphBuilder, Ref, Value, kept_params, squeeze, squeeze_shape
from .indexed_rules import dynamic_slice, dynamic_update, gather, scatter, window
from .nested import lower_branch, lower_scan, lower_while

__all__ = [
    "BASIC_RULES",
    "BOOL_MONOIDS",
    "GEMM_DTYPES",
    "SMALL_MATRIX",
    "SMALL_STACK",
    "identity_of",
    "inline",
    "matrices",
    "reduce_values",
]

BLOCK = 8192
"""Elements that one block of a large reduction folds; results do not depend on who computes which block."""
BLOCKED_FROM = 1 << 16
UNROLLED = 4
"""Elements up to which a fold is written out."""

BOOL_MONOIDS = {"add": "or", "mul": "and", "max": "or", "min": "and"}


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
    if monoid == "logaddexp":
        return dtype.type(-np.inf)
    return dtype.type(1 if monoid == "mul" else 0)


def _scalar(b: GraphBuilder, eqn: Eqn, lower: L.Scalar, refs: list[Ref]) -> Ref:
    aval = eqn.outvars[0].aval
    if lower.fn == "convert" and refs[0].value.dtype == aval.dtype:
        return refs[0]
    params = kept_params(lower.fn, eqn.params)
    if not b.native(lower.fn, tuple([x.value.dtype for x in refs]), aval.dtype, params):
        return b.host(eqn, refs)[0]
    if lower.fn == "mul":  # gradients are full of multiplications by one
        for one, other in (refs, refs[::-1]):
            if one.value.kind == "const" and one.value.mode == 1:
                return Ref(other.value, other.layout.broadcast(aval.shape, _trailing(other.layout.shape, aval.shape)))
    return b.map(lower.fn, refs, aval.dtype, aval.shape, params)


def _trailing(own: tuple[int, ...], shape: tuple[int, ...]) -> range:
    """The axes of ``shape`` that an array of shape ``own`` broadcasts to."""
    return range(len(shape) - len(own), len(shape))


def _view(b: GraphBuilder, eqn: Eqn, lower: L.View, refs: list[Ref]) -> Ref:
    return b.view(refs[0], lambda layout: lower.rule(layout, **eqn.params))


def _barrier(b: GraphBuilder, eqn: Eqn, lower: L.Barrier, refs: list[Ref]) -> tuple[Ref, ...]:
    return b.barrier(refs)


def _generate(b: GraphBuilder, eqn: Eqn, lower: L.Generate, refs: list[Ref]) -> Ref:
    aval = eqn.outvars[0].aval
    axis = eqn.params["dimension"]
    if aval.shape[axis] == 1 or aval.size == 0:
        return b.fill(0, aval)
    value = b.new("iota", (aval.shape[axis],), np.dtype(np.int64))
    value.weight = 1
    line = Ref(value, Layout.contiguous(value.shape).broadcast(aval.shape, [axis]))
    return line if aval.dtype == value.dtype else b.map("convert", [line], aval.dtype, aval.shape)


def reduce_values(
    b: GraphBuilder, monoid: str, ref: Ref, axes: Sequence[int], out_shape: tuple[int, ...], unrolled: int = UNROLLED
) -> Ref:
    """``ref`` folded over ``axes`` of its own (unsqueezed) shape; large folds in two steps, by blocks, and those of
    at most ``unrolled`` elements as an expression."""
    dtype, shape = ref.value.dtype, ref.layout.shape
    if dtype.kind == "b":
        monoid = BOOL_MONOIDS.get(monoid, monoid)
    if 0 in out_shape or any(shape[a] == 0 for a in axes):
        return b.map("copy", [b.scalar(identity_of(monoid, dtype), dtype)], dtype, out_shape)
    layout = squeeze(ref.layout)
    kept_axes = [a - shape[:a].count(1) for a in axes if shape[a] != 1]
    if not kept_axes:
        return b.view(ref, lambda x: x.reshape(out_shape))
    if prod([layout.shape[a] for a in kept_axes]) <= unrolled and _cheap(ref.value):
        return _unrolled(b, monoid, ref, axes, out_shape)
    narrow = Ref(ref.value, layout)
    value = _blocked(b, monoid, narrow, sorted(kept_axes), dtype) or b.fold("fold", monoid, narrow, kept_axes, dtype)
    return b.whole(value, out_shape)


def _cheap(value: Value) -> bool:
    """Whether a few elements of ``value`` may be computed in several places (a rough guess: uses are not known)."""
    if value.kind != "map":
        return not value.virtual
    inner = [x for x, _ in value.operands if x.kind == "map"]
    return not value.heavy and not any(x.heavy for x in inner) and len(inner) <= 2


def _unrolled(b: GraphBuilder, monoid: str, ref: Ref, axes: Sequence[int], out_shape: tuple[int, ...]) -> Ref:
    """A fold over a few elements as an expression, which fuses with whatever surrounds it."""
    layout = ref.layout
    kept = [a for a in range(len(layout.shape)) if a not in axes]
    total: Ref | None = None
    for place in np.ndindex(*[layout.shape[a] for a in axes]):
        offset = layout.offset + sum([i * layout.strides[a] for i, a in zip(place, axes, strict=True)])
        element = Ref(ref.value, Layout(out_shape, tuple([layout.strides[a] for a in kept]), offset))
        total = element if total is None else b.map(monoid, [total, element], ref.value.dtype, out_shape)
    assert total is not None
    return total


def _blocks(shape: tuple[int, ...], axes: Sequence[int]) -> tuple[int, int]:
    """How many rows of the outermost folded axis a block has, and how many blocks there are."""
    kept, size = prod([n for a, n in enumerate(shape) if a not in axes]), prod(shape)
    limit = 8 if len(shape) - 1 in axes else 512
    if size < BLOCKED_FROM or kept >= limit:
        return shape[axes[0]], 1
    rows = max(1, BLOCK * max(1, min(kept, 8)) // max(1, size // shape[axes[0]]))
    return rows, -(-shape[axes[0]] // rows)


def _blocked(b: GraphBuilder, monoid: str, ref: Ref, axes: list[int], dtype: np.dtype[Any]) -> Value | None:
    """A fold with few results and many elements, cut into blocks along its outermost folded axis."""
    first = axes[0]
    rows, blocks = _blocks(ref.layout.shape, axes)
    if blocks < 2:
        return None
    partial = _by_blocks(b.fold("fold", monoid, ref, axes, dtype), blocks, first, rows)
    return b.fold("fold", monoid, b.whole(partial), [0], dtype)


def _by_blocks(partial: Value, blocks: int, axis: int, rows: int) -> Value:
    """A fold that is done for each block of ``rows`` along an axis by itself."""
    partial.shape = (blocks, *partial.shape)
    partial.block = (axis, rows)
    return partial


def _reduce(b: GraphBuilder, eqn: Eqn, lower: L.Reduce, refs: list[Ref]) -> Ref:
    """Folds over complex extremes and the like, which have no scalar function, run in Python."""
    dtype = refs[0].value.dtype
    if not b.native(lower.monoid, (dtype, dtype), dtype, ()):
        return b.host(eqn, refs)[0]
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
    if ref.value.dtype.kind == "c":
        return b.host(eqn, refs)[0]
    narrow = sum([n != 1 for n in shape[:axis]])
    source = Ref(ref.value, squeeze(ref.layout))
    rows, blocks = _blocks(source.layout.shape, [narrow])
    value = b.fold("argfold", lower.extreme, source, [narrow], INDEX)
    if blocks > 1:  # the places of the blocks' extremes, of which the extreme block has the right one
        dtype = source.value.dtype
        monoid = BOOL_MONOIDS[lower.extreme] if dtype.kind == "b" else lower.extreme
        extremes = _by_blocks(b.fold("fold", monoid, source, [narrow], dtype), blocks, narrow, rows)
        places = b.whole(_by_blocks(value, blocks, narrow, rows))
        best = b.whole(b.fold("argfold", lower.extreme, b.whole(extremes), [0], INDEX))
        kept = Layout(places.layout.shape[1:], places.layout.strides[1:])
        value = window(b, places, [(places.layout.strides[0], best)], kept.shape, kept).value
    ref = b.whole(value, aval.shape)
    return ref if aval.dtype == np.int64 else b.map("convert", [ref], aval.dtype, aval.shape)


def _cumulate(b: GraphBuilder, eqn: Eqn, lower: L.Cumulate, refs: list[Ref]) -> Ref:
    (ref,), aval = refs, eqn.outvars[0].aval
    axis, backwards = eqn.params["axis"], eqn.params.get("reverse", False)
    if aval.size == 0 or aval.shape[axis] == 1:
        return ref
    if not b.native(lower.monoid, (aval.dtype, aval.dtype), aval.dtype, ()):
        return b.host(eqn, refs)[0]
    layout = ref.layout.reverse([axis]) if backwards else ref.layout
    monoid = BOOL_MONOIDS.get(lower.monoid, lower.monoid) if aval.dtype.kind == "b" else lower.monoid
    value = b.new("scan", squeeze_shape(aval.shape), aval.dtype, [Ref(ref.value, squeeze(layout))])
    value.fn = monoid
    value.axes = (sum([n != 1 for n in aval.shape[:axis]]),)
    b.flops += value.size
    out = b.whole(value, aval.shape)
    return Ref(value, out.layout.reverse([axis])) if backwards else out


def _assemble(b: GraphBuilder, eqn: Eqn, lower: L.Assemble, refs: list[Ref]) -> Ref:
    aval = eqn.outvars[0].aval
    pieces = [p for p in lower.rule(*[a.aval for a in eqn.invars], **eqn.params) if p.target.size]
    if len(pieces) == 1:  # it covers everything
        source = b.view(refs[pieces[0].operand], lambda layout: _through(pieces[0].source, layout))
        if pieces[0].target == Layout.contiguous(aval.shape):
            return Ref(source.value, unsqueezed(source.layout, aval.shape))
    if len(pieces) == 2:
        padded = _padded(b, pieces, refs, aval)
        if padded is not None:
            return padded
    array = b.new("array", squeeze_shape(aval.shape), aval.dtype)
    b.order.pop()
    covered = 0
    for piece in pieces:
        source = b.view(refs[piece.operand], partial(_through, piece.source))
        part = b.copy(Ref(source.value, source.layout)).value
        part.home = Ref(array, squeeze(piece.target))
        part.mode = covered  # parts that overlap earlier ones must come after them
        covered = _covered_after(covered, piece.target, aval.size)
        array.parts.append(part)
    b.order.append(array)
    return b.whole(array, aval.shape)


def _padded(b: GraphBuilder, pieces: Sequence[L.Piece], refs: list[Ref], aval: ShapedArray) -> Ref | None:
    """One value within a margin of a scalar: an expression, which costs no pass over memory."""
    fill, piece = pieces
    whole = Layout.contiguous(aval.shape)
    if fill.target != whole or any(fill.source.strides) or refs[fill.operand].layout.size != 1:
        return None
    if any(s != t and n > 1 for s, t, n in zip(piece.target.strides, whole.strides, piece.target.shape, strict=True)):
        return None
    layout = _through(piece.source, refs[piece.operand].layout)
    if layout is None:
        return None
    counts = piece.target.shape
    layout = unsqueezed(layout, counts)
    lows, rest = [], piece.target.offset
    for stride in whole.strides:
        lows.append(rest // stride)
        rest -= lows[-1] * stride
    keep = [a for a, n in enumerate(aval.shape) if n != 1]
    inner = Layout(tuple([counts[a] for a in keep]), tuple([layout.strides[a] for a in keep]), layout.offset)
    shape = tuple([aval.shape[a] for a in keep])
    scalar = Ref(refs[fill.operand].value, Layout(shape, (0,) * len(shape), refs[fill.operand].layout.offset))
    value = b.new("padded", shape, aval.dtype, [Ref(refs[piece.operand].value, inner), scalar])
    value.mode = tuple([lows[a] for a in keep])
    value.weight = 3
    return b.whole(value, aval.shape)


def unsqueezed(layout: Layout, shape: tuple[int, ...]) -> Layout:
    """A squeezed layout with its axes of extent 1 again."""
    strides = iter(layout.strides)
    return Layout(shape, tuple([0 if n == 1 else next(strides) for n in shape]), layout.offset)


def _covered_after(covered: int, target: Layout, total: int) -> int:
    """1 once a piece has filled everything: what follows writes over it."""
    return 1 if covered or target.size == total else 0


def _through(view: Layout, layout: Layout) -> Layout | None:
    """``view`` lies over the contiguous operand; the same elements (unit axes dropped) through its own layout."""
    view, layout = squeeze(view), squeeze(layout)
    walk = compose(Walk(view.strides, view.offset), view.shape, layout.shape, layout)
    return None if walk is None else Layout(view.shape, walk.strides, walk.offset)


# contractions ---------------------------------------------------------------------------------------------------

SMALL_MATRIX, SMALL_STACK = 16, 8
"""Orders up to which, and numbers from which, matrices are worked on many at a time by a kernel of our own."""
SMALL_PRODUCT = 2048
"""Multiply-adds up to which a matrix product is a generated loop: a call of BLAS costs more."""


def _contract(b: GraphBuilder, eqn: Eqn, lower: L.Contract, refs: list[Ref]) -> Any:
    (xc, yc), (xb, yb) = eqn.params["dimension_numbers"]
    x, y = refs
    aval = eqn.outvars[0].aval
    xs, ys = x.layout.shape, y.layout.shape
    xf = [a for a in range(len(xs)) if a not in xc and a not in xb]
    yf = [a for a in range(len(ys)) if a not in yc and a not in yb]
    batch, rows = [xs[a] for a in xb], [xs[a] for a in xf]
    columns, inner = [ys[a] for a in yf], [xs[a] for a in xc]
    n_batch, m, n, k = prod(batch), prod(rows), prod(columns), prod(inner)
    if k == 0 or aval.size == 0:
        return b.fill(0, aval)
    b.flops += 2 * n_batch * m * n * k
    small = m == 1 or n == 1 or k == 1 or n_batch * m * n * k <= SMALL_PRODUCT
    many = not small and n_batch >= SMALL_STACK and max(m, n, k) <= SMALL_MATRIX
    small = small or many
    if small or aval.dtype not in GEMM_DTYPES:
        domain = (*batch, *rows, *columns, *inner)
        first = len(batch)
        x_axes = [*range(first), *range(first, first + len(rows)), *range(len(domain) - len(inner), len(domain))]
        y_axes = [*range(first), *range(first + len(rows), len(domain))]
        left = Ref(x.value, x.layout.permute((*xb, *xf, *xc)).broadcast(domain, x_axes))
        right = Ref(y.value, y.layout.permute((*yb, *yf, *yc)).broadcast(domain, y_axes))
        product = b.map("mul", [left, right], aval.dtype, domain)
        # Of many small matrices a product is written out along k: BLAS needs two to ten times as long (2 to 16 rows).
        folded = range(len(domain) - len(inner), len(domain))
        return reduce_values(b, "add", product, folded, aval.shape, SMALL_MATRIX if many else UNROLLED)
    x = matrices(b, x, (*xb, *xf, *xc), (n_batch, m, k))
    y = matrices(b, y, (*yb, *yc, *yf), (n_batch, k, n))
    return b.call("gemm", eqn, [x, y], (n_batch, m, n, k))


GEMM_DTYPES = frozenset([np.dtype(t) for t in (np.float32, np.float64, np.complex64, np.complex128)])


def matrices(b: GraphBuilder, ref: Ref, permutation: Sequence[int], shape: tuple[int, int, int]) -> Ref:
    """A batch of matrices that BLAS can read: rows or columns of adjacent elements."""
    permuted = Ref(ref.value, ref.layout.permute(permutation))
    layout = permuted.layout.reshape(shape)
    if layout is not None and not ref.value.virtual:
        (_, rows, columns), (_, down, right) = layout.shape, layout.strides
        plain = (right == 1 or columns == 1) and (down >= columns or rows == 1)
        turned = (down == 1 or rows == 1) and (right >= rows or columns == 1)
        if plain or turned:
            return Ref(ref.value, layout)
    return b.view(b.copy(permuted), lambda x: x.reshape(shape))


def _inline(b: GraphBuilder, eqn: Eqn, lower: L.Inline, refs: list[Ref]) -> tuple[Ref, ...]:
    return inline(b, str(eqn.primitive), partial(lower.fun, **eqn.params), [a.aval for a in eqn.invars], refs)


def inline(
    b: GraphBuilder, name: str, fun: Callable[..., Any], avals: Sequence[ShapedArray], refs: Sequence[Ref]
) -> tuple[Ref, ...]:
    """Expand a function of tracers, written with other primitives."""

    def flat(*args: Any) -> Sequence[Any]:
        out = fun(*args)
        return out if isinstance(out, (tuple, list)) else (out,)

    closed = stage(flat, avals, name)
    return tuple(b.run(closed.jaxpr, [*[constant(b, x) for x in closed.consts], *refs]))


def constant(b: GraphBuilder, x: Any) -> Ref:
    """An array of the program's own."""
    array = np.asarray(x)
    value = b.new("input", squeeze_shape(array.shape), array.dtype)
    b.constants.append((value, array))
    return b.whole(value, array.shape)


def _host(b: GraphBuilder, eqn: Eqn, lower: L.Host, refs: list[Ref]) -> tuple[Ref, ...]:
    return b.host(eqn, refs)


BASIC_RULES: dict[type, Callable[..., Any]] = {
    L.Scalar: _scalar,
    L.View: _view,
    L.Barrier: _barrier,
    L.Generate: _generate,
    L.Reduce: _reduce,
    L.ArgReduce: _arg_reduce,
    L.Cumulate: _cumulate,
    L.Assemble: _assemble,
    L.DynamicSlice: dynamic_slice,
    L.DynamicUpdate: dynamic_update,
    L.Gather: gather,
    L.Scatter: scatter,
    L.Scan: lower_scan,
    L.While: lower_while,
    L.Branch: lower_branch,
    L.Contract: _contract,
    L.Inline: _inline,
    L.Host: _host,
}
