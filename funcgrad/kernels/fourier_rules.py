"""Fourier transforms as steps of the graph, axis by axis. See ``runtime.fourier`` and ``runtime.lanes``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.jaxpr import Eqn
from ..core.layout import Layout
from ..util import prod
from .fourier_plan import LANES, LONGEST, FourierPass, factors, smooth
from .graph import INDEX, GraphBuilder, Ref
from .routine import routine

__all__ = ["fourier_transform"]

LONG_ALONE, LONG_TOGETHER = 256, 4096
"""Elements from which transforms of our own are done in two passes: one or a few of them, and many, which are done side
by side as long as their tile stays in the second-level cache."""
LONG = 1 << 17
"""Elements from which another complex transform is done by factors; before, one by pocketfft stays in a cache."""
SHORTEST_FACTOR = 32


def fourier_transform(b: GraphBuilder, eqn: Eqn, refs: list[Ref]) -> Ref:
    """Axis by axis: a real transform first (or last, if it is the inverse), then the others, the last axis first."""
    kind, lengths, aval = eqn.params["fft_type"], eqn.params["fft_lengths"], eqn.outvars[0].aval
    if aval.size == 0:
        return b.fill(0, aval)
    rank = len(aval.shape)
    axes = list(range(rank - 1, rank - 1 - len(lengths), -1))
    kinds = [kind] + [{"RFFT": "FFT", "IRFFT": "IFFT"}.get(kind, kind)] * (len(axes) - 1)
    passes = list(zip(axes, kinds, lengths[::-1], strict=True))
    if kind == "IRFFT":
        passes = [*passes[1:], passes[0]]
    ref = refs[0]
    for axis, each, n in passes:
        ref = _way(each, n, axis, ref.layout)(b, eqn, ref, axis, each, n)
    return ref


def _way(kind: str, n: int, axis: int, layout: Layout) -> Callable[..., Ref]:
    """How to transform along an axis. What lies side by side in memory is better left there."""
    least, most = factors(n)
    if kind not in ("FFT", "IFFT") or least < 2:
        return _one_axis
    count = layout.size // n
    adjacent = layout.strides[axis] == 1 and prod(layout.shape[axis + 1 :]) == 1
    long = n >= (LONG_ALONE if count < LANES else LONG_TOGETHER) and (adjacent or count == 1)
    if long and least >= LANES and most <= LONGEST and smooth(n):
        return _in_two_passes
    return _by_factors if n >= LONG and least >= SHORTEST_FACTOR else _one_axis


def _in_two_passes(b: GraphBuilder, eqn: Eqn, ref: Ref, axis: int, kind: str, n: int) -> Ref:
    """A long transform along the last axis as many short ones: with n = n1 n2, j = n2 j1 + j2 and k = k1 + n1 k2,

        y[k] = sum_j2 w^(j2 k1) (sum_j1 x[j] exp(-2πi j1 k1 / n1)) exp(-2πi j2 k2 / n2),    w = exp(-2πi/n)

    that is, columns of a matrix, each result with a factor, and rows, which are written as columns.
    """
    shape, (n1, n2) = ref.layout.shape, factors(n)
    batch = prod(shape[:axis])
    stride = _stride(ref.layout, axis)
    if ref.value.virtual or stride is None or ref.layout.strides[axis] != 1:
        ref, stride = b.copy(ref), n
    dtype = ref.value.dtype
    first = FourierPass(kind, n1, batch, n2, (stride, 1, n2), (n, 1, n2), n)
    value = routine(b, "fft", eqn, ref, (batch, n1, n2), dtype, first)
    ref = b.whole(value, (batch, n1, n2))
    second = FourierPass(kind, n2, batch, n1, (n, n2, 1), (n, 1, n1))
    b.flops += 5 * batch * n * (n.bit_length() - 1)
    return b.whole(routine(b, "fft", eqn, ref, (batch, n2, n1), dtype, second), shape)


def _stride(layout: Layout, rank: int) -> int | None:
    """The one stride along which all of the first ``rank`` axes lie, if there is one."""
    groups = [(m, s) for m, s in zip(layout.shape[:rank], layout.strides[:rank], strict=True) if m > 1]
    if any(outer != m * s for (_, outer), (m, s) in itertools.pairwise(groups)):
        return None
    return groups[-1][1] if groups else 0


def _by_factors(b: GraphBuilder, eqn: Eqn, ref: Ref, axis: int, kind: str, n: int) -> Ref:
    """The same along any axis and for any factors, with a pass for the factors of the results. It stays in caches and
    is shared by threads, which one long transform by pocketfft does not and is not."""
    shape, (n1, n2) = ref.layout.shape, factors(n)
    matrix = (*shape[:axis], n1, n2, *shape[axis + 1 :])
    ref = b.view(ref, lambda layout: layout.reshape(matrix))
    ref = _one_axis(b, eqn, ref, axis, kind, n1)
    w = _twiddles(b, n1, n2, ref.value.dtype, kind == "IFFT")
    w = Ref(w.value, w.layout.broadcast(matrix, (axis, axis + 1)))
    ref = b.map("mul", [ref, w], ref.value.dtype, matrix)
    ref = _one_axis(b, eqn, ref, axis + 1, kind, n2)
    swapped = [*range(axis), axis + 1, axis, *range(axis + 2, len(matrix))]
    return b.view(Ref(ref.value, ref.layout.permute(swapped)), lambda layout: layout.reshape(shape))


def _twiddles(b: GraphBuilder, n1: int, n2: int, dtype: np.dtype[Any], inverse: bool) -> Ref:
    """The matrix ``exp(∓2πi j k / (n1 n2))`` as an expression; the angle is reduced to half a turn exactly."""
    shape, n, f64 = (n1, n2), n1 * n2, np.dtype(np.float64)
    lines = []
    for axis, extent in enumerate(shape):
        line = b.new("iota", (extent,), INDEX)
        line.weight = 1
        lines.append(Ref(line, Layout.contiguous((extent,)).broadcast(shape, [axis])))
    turn = b.map("mul", lines, INDEX, shape)
    far = b.map("gt", [turn, b.scalar(n // 2, INDEX)], np.dtype(np.bool_), shape)
    turn = b.map("select", [far, b.map("sub", [turn, b.scalar(n, INDEX)], INDEX, shape), turn], INDEX, shape)
    unit = b.scalar((1 if inverse else -1) * 2 * math.pi / n, f64)
    angle = b.map("mul", [b.map("convert", [turn], f64, shape), unit], f64, shape)
    parts = [b.map(fn, [angle], f64, shape) for fn in ("cos", "sin")]
    real = np.dtype(np.float32) if dtype == np.complex64 else f64
    if real != f64:
        parts = [b.map("convert", [x], real, shape) for x in parts]
    return b.map("complex", parts, dtype, shape)


def _one_axis(b: GraphBuilder, eqn: Eqn, ref: Ref, axis: int, kind: str, n: int) -> Ref:
    layout = ref.layout
    if ref.value.virtual or any(s == 0 and m > 1 for s, m in zip(layout.strides, layout.shape, strict=True)):
        ref = b.copy(ref)
        layout = ref.layout
    shape = list(layout.shape)
    shape[axis] = n // 2 + 1 if kind == "RFFT" else n
    steps = [abs(s) if m > 1 else 0 for s, m in zip(layout.strides, layout.shape, strict=True)]
    order = sorted(range(len(shape)), key=lambda a: -steps[a])  # axes as they lie in memory
    inverse = sorted(range(len(shape)), key=order.__getitem__)
    physical = tuple([shape[a] for a in order])
    out = Layout.contiguous(physical).permute(inverse)
    batch = [a for a in order if a != axis and shape[a] > 1]
    groups: list[list[int]] = []  # runs of batch axes with one stride: [count, stride in, stride out]
    for a in batch:
        m, s, t = layout.shape[a], layout.strides[a], out.strides[a]
        if groups and groups[-1][1] == m * s and groups[-1][2] == m * t:
            groups[-1] = [groups[-1][0] * m, s, t]
        else:
            groups.append([m, s, t])
    by_rows = not batch or steps[batch[-1]] >= steps[axis]
    if len(groups) > (1 if by_rows else 2):
        return _one_axis(b, eqn, b.copy(ref), axis, kind, n)
    one = [1, 0, 0]
    outer, inner = (groups or [one])[0], one
    if not by_rows:
        outer, inner = ([one, *groups])[-2:]
    data = FourierPass(
        kind,
        n,
        outer[0],
        inner[0],
        (outer[1], inner[1], layout.strides[axis]),
        (outer[2], inner[2], out.strides[axis]),
    )
    dtype = ref.value.dtype
    if kind in ("RFFT", "IRFFT"):
        dtype = eqn.outvars[0].aval.dtype
    b.flops += 5 * prod(shape) * max(1, n.bit_length() - 1)
    return Ref(routine(b, "fft", eqn, ref, physical, dtype, data), out)
