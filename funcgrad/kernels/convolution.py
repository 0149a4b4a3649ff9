"""How a convolution becomes steps: patches times a kernel, without a matrix of all patches in memory.

``out[g, m, o] = sum over x of lhs[g, m + x] * rhs[g, x, o]``, where ``m`` runs over images and results, ``x`` over the
elements of the kernel and channels, and ``m + x`` stands for a walk that is affine in both. One of the two index sets
gives the *positions*, the other one the *taps*: a position sees one element of ``lhs`` per tap. The runtime takes
some positions at a time (``runtime.convolution``) and multiplies:

* positions are results (the convolution itself): ``out[positions] = patches @ rhs``;
* positions are contracted (the gradient of the kernel, which runs over all images and places, where these are many):
  for each part of the positions ``out += patches.T @ rhs[positions]``, and the parts' sums are added up.

Whatever BLAS does not multiply, or not well, is a generated loop over the same overlapping view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core import lowering as L
from ..core.avals import ShapedArray
from ..core.jaxpr import Eqn
from ..core.layout import Layout
from ..record import record
from ..util import prod
from .graph import GraphBuilder, Ref
from .indexed_rules import in_memory, stored
from .rules import GEMM_DTYPES, inline, reduce_values

__all__ = ["Patches", "convolve"]

Walked = tuple[tuple[int, int], ...]
"""Axes: extents and strides, in elements."""

FEW = 4
"""Channels (or images) times features up to which sums of products beat BLAS: a matrix is hardly more than a vector."""
MOST_AXES = 4
"""Axes of positions that the runtime walks."""
MANY_POSITIONS = 4
"""How many positions per row or column of the result it takes to contract over them."""
MOST_TAPS = 1 << 15
TILE_BYTES = 384 << 10
"""What a tile of patches may take, so that it stays in the second-level cache."""
LEAST_TILE = 128
BLOCK_WORK = 1 << 22
"""Multiply-adds of a block of positions, whose sum is kept apart."""
MOST_PARTS = 8


@record(frozen=True)
class Patches:
    """A convolution as the runtime runs it. Strides are in elements; ``lhs``, ``rhs`` and ``out`` are offset and
    stride per group. ``rhs`` is a matrix with ``rhs_rows`` as its row stride and adjacent columns, and so is ``out``.

    Positions are gathered ``tile`` at a time and shared out in parts of ``span``. ``contracts``: their products are
    added up, a part's in a result of its own, ``part_stride`` elements from the one before."""

    groups: int
    positions: Walked
    taps: Walked
    features: int
    lhs: tuple[int, int]
    rhs: tuple[int, int]
    out: tuple[int, int]
    rhs_rows: int
    out_rows: int
    tile: int
    span: int
    contracts: bool
    part_stride: int = 0


def convolve(b: GraphBuilder, eqn: Eqn, lower: L.Convolve, refs: list[Ref]) -> Any:
    aval = eqn.outvars[0].aval
    x, w = refs
    if aval.size == 0 or w.layout.size == 0:
        return b.fill(0, aval)
    name, (lhs, rhs), params = str(eqn.primitive), [a.aval for a in eqn.invars], eqn.params
    other = lower.simpler(lhs, rhs, **params)
    if other is None and (any(map(any, params["padding"])) or any(d > 1 for d in params["lhs_dilation"])):
        x = _padded(b, name, lower, x, params["padding"], params["lhs_dilation"])
        nothing = {"padding": ((0, 0),) * len(params["padding"]), "lhs_dilation": (1,) * len(params["padding"])}
        lhs = ShapedArray(x.layout.shape, lhs.dtype)
        other = lower.simpler(lhs, rhs, **{**params, **nothing})
    if other is not None:
        return inline(b, name, other, (lhs, rhs), (x, w))
    b.flops += 2 * aval.size * prod(w.layout.shape[1:-1])
    strides, dilation = params["strides"], params["rhs_dilation"]
    rank = len(strides)
    images, results = aval.shape[1], aval.shape[2:-1]
    kernel, channels = w.layout.shape[1:-2], w.layout.shape[-2]
    degenerate = min(channels, images) * aval.shape[-1] <= FEW
    if aval.dtype not in GEMM_DTYPES or rank >= MOST_AXES or degenerate:
        return _loops(b, x, w, aval, strides, dilation)
    x = in_memory(b, x)
    steps = x.layout.strides
    space = steps[2:-1]
    rows = ((images, steps[1]), *_pairs(results, [s * k for s, k in zip(space, strides, strict=True)]))
    inner = (*_pairs(kernel, [s * e for s, e in zip(space, dilation, strict=True)]), (channels, steps[-1]))
    m, k = images * prod(results), prod(kernel) * channels
    contracts = k >= MANY_POSITIONS * max(m, aval.shape[-1])
    if (m if contracts else k) > MOST_TAPS:
        contracts = not contracts
        if (m if contracts else k) > MOST_TAPS:
            return _loops(b, x, w, aval, strides, dilation)
    return (_by_contraction if contracts else _by_rows)(b, eqn, x, w, rows, inner)


def _padded(b: GraphBuilder, name: str, lower: L.Convolve, x: Ref, padding: Any, dilation: Any) -> Ref:
    """``x`` padded and dilated, in memory in the order in which it lies there now."""
    inner = [(lo, hi, d - 1) for (lo, hi), d in zip(padding, dilation, strict=True)]
    config = [(0, 0, 0), (0, 0, 0), *inner, (0, 0, 0)]
    layout, dtype = x.layout, x.value.dtype
    order = sorted(range(len(config)), key=lambda a: -abs(layout.strides[a]))
    turned = Ref(x.value, layout.permute(order))

    def pad(x: Any) -> Any:
        return lower.pad(x, dtype.type(0), [config[a] for a in order])

    ((value, layout),) = inline(b, name, pad, [ShapedArray(turned.layout.shape, dtype)], [turned])
    return Ref(value, layout.permute([order.index(a) for a in range(len(order))]))


def _pairs(extents: Sequence[int], strides: Sequence[int]) -> Walked:
    return tuple(zip(extents, strides, strict=True))


def merged(axes: Walked) -> Walked:
    """The fewest axes that walk the same way."""
    made: list[tuple[int, int]] = []
    for extent, stride in axes:
        if extent == 1:
            continue
        if made and made[-1][1] == extent * stride:
            made[-1] = (made[-1][0] * extent, stride)
        else:
            made.append((extent, stride))
    return tuple(made)


def _interleaved(layout: Layout) -> bool:
    """Whether groups lie within the images: they were cut from channels, and the result should be whole again."""
    return layout.shape[0] > 1 and layout.shape[1] > 1 and abs(layout.strides[0]) < abs(layout.strides[1])


def _by_rows(b: GraphBuilder, eqn: Eqn, x: Ref, w: Ref, rows: Walked, inner: Walked) -> Ref:
    """Positions in the order in which they lie in ``lhs``, which is that of the result then; taps in that of
    ``rhs``."""
    aval = eqn.outvars[0].aval
    groups, features, m = aval.shape[0], aval.shape[-1], prod([n for n, _ in rows])
    w, inner = _matrices(b, w, inner)
    positions, own = _sorted(rows)
    tile = min(_tile(m, prod([n for n, _ in inner]), aval.dtype.itemsize), max(LEAST_TILE, m // (4 * MOST_PARTS) * 8))
    between = _interleaved(x.layout)
    data = Patches(
        groups, merged(positions), merged(inner), features, (x.layout.offset, x.layout.strides[0]),
        (w.layout.offset, w.layout.strides[0]), (0, features if between else m * features), w.layout.strides[1],
        groups * features if between else features, tile, tile, False,
    )  # fmt: skip
    extents = [n for n, _ in positions]
    (out,) = b.call("conv", eqn, [x, w], data, [_memory(groups, extents, features, between)])
    return _arranged(out, own, between)


def _by_contraction(b: GraphBuilder, eqn: Eqn, x: Ref, w: Ref, rows: Walked, inner: Walked) -> Ref:
    """Positions in the order in which they lie in ``rhs``, taps in that of ``lhs``, which is the result's then."""
    aval = eqn.outvars[0].aval
    groups, features, m = aval.shape[0], aval.shape[-1], prod([n for n, _ in rows])
    w, positions = _matrices(b, w, inner)
    taps, own = _sorted(rows)
    k = prod([n for n, _ in positions])
    wanted = max(1, min(MOST_PARTS, m * k * features // BLOCK_WORK, k // max(m, features)))
    tiles = -(-k // wanted // _tile(k, m, aval.dtype.itemsize))  # of a part
    tile = -(-k // (wanted * tiles))
    span = tiles * tile
    between = _interleaved(x.layout)
    data = Patches(
        groups, merged(positions), merged(taps), features, (x.layout.offset, x.layout.strides[0]),
        (w.layout.offset, w.layout.strides[0]), (0, features if between else m * features), w.layout.strides[1],
        groups * features if between else features, tile, span, True, groups * m * features,
    )  # fmt: skip
    memory = _memory(groups, [n for n, _ in taps], features, between)
    (out,) = b.call("conv", eqn, [x, w], data, [(-(-k // span), *memory)])
    return _arranged(reduce_values(b, "add", out, [0], memory), own, between)


def _sorted(axes: Walked) -> tuple[Walked, list[int]]:
    """Axes from the longest stride to the shortest, and where each of them is then."""
    order = sorted(range(len(axes)), key=lambda a: -abs(axes[a][1]))
    return tuple([axes[a] for a in order]), [order.index(a) for a in range(len(axes))]


def _memory(groups: int, extents: Sequence[int], features: int, between: bool) -> tuple[int, ...]:
    return (*extents, groups, features) if between else (groups, *extents, features)


def _arranged(out: Ref, own: Sequence[int], between: bool) -> Ref:
    """From the order of memory to that of the primitive: group, rows, features."""
    group, first = (len(own), 0) if between else (0, 1)
    return Ref(out.value, out.layout.permute((group, *[first + a for a in own], len(own) + 1)))


def _tile(positions: int, taps: int, itemsize: int) -> int:
    """How many positions are gathered at a time."""
    return min(positions, max(LEAST_TILE, TILE_BYTES // (taps * itemsize) // 8 * 8))


def _matrices(b: GraphBuilder, w: Ref, inner: Walked) -> tuple[Ref, Walked]:
    """``rhs`` as a matrix of adjacent columns per group, and the axes of its rows in the order in which they lie."""
    order = sorted(range(len(inner)), key=lambda a: -abs(w.layout.strides[1 + a]))
    axes = tuple([inner[a] for a in order])
    turned = Ref(w.value, w.layout.permute((0, *[1 + a for a in order], len(inner) + 1)))
    shape = (w.layout.shape[0], prod([n for n, _ in inner]), w.layout.shape[-1])
    layout = turned.layout.reshape(shape)
    if layout is not None and not w.value.virtual:
        (_, rows, columns), (_, down, right) = shape, layout.strides
        if (right == 1 or columns == 1) and (down >= columns or rows == 1):
            return Ref(w.value, Layout(shape, (layout.strides[0], max(down, columns), 1), layout.offset)), axes
    return b.view(b.copy(turned), lambda x: x.reshape(shape)), axes


def _loops(b: GraphBuilder, x: Ref, w: Ref, aval: Any, strides: Sequence[int], dilation: Sequence[int]) -> Ref:
    """A fold over the overlapping view of ``lhs``."""
    rank = len(strides)
    x, w = stored(b, x), stored(b, w, row_major=True)
    steps = x.layout.strides
    space = steps[2:-1]
    kernel = w.layout.shape[1:-1]
    domain = (*aval.shape, *kernel)
    walked = (
        *steps[:2], *[s * k for s, k in zip(space, strides, strict=True)], 0,
        *[s * e for s, e in zip(space, dilation, strict=True)], steps[-1],
    )  # fmt: skip
    seen = Ref(x.value, Layout(domain, walked, x.layout.offset))
    order = w.layout.permute((0, rank + 2, *range(1, rank + 2)))
    weights = Ref(w.value, order.broadcast(domain, (0, *range(rank + 2, len(domain)))))
    product = b.map("mul", [seen, weights], aval.dtype, domain)
    return reduce_values(b, "add", product, range(rank + 3, len(domain)), aval.shape)
