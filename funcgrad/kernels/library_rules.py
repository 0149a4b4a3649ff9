"""Library routines as steps of the graph: Fourier transforms and sorting. See ``runtime.fourier``, ``runtime.sorting``.

A routine reads its operand where it lies if the layout allows it, and writes a buffer of its own in the order in
memory that suits it; the result is that buffer seen through a layout. So no pass over memory is spent on transposing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core.jaxpr import Eqn
from ..core.layout import Layout
from ..util import prod
from .graph import INDEX, Call, GraphBuilder, Ref, Value, squeeze, squeeze_shape

__all__ = ["FourierPass", "library_step"]


def routine(
    b: GraphBuilder, kind: str, eqn: Eqn, operand: Ref, shape: Sequence[int], dtype: np.dtype[Any], data: Any
) -> Value:
    """A call with one operand and one result, of which ``shape`` is the order in memory."""
    call = Call(kind, eqn, (operand,), (operand.layout.shape,), data=data)
    operand.value.uses += 1
    b.order.append(call)
    value = Value("step", squeeze_shape(tuple(shape)), dtype, b.count)
    b.count += 1
    value.call, value.eqn = call, eqn
    call.outputs = (value,)
    return value


# Fourier transforms ---------------------------------------------------------------------------------------------


LONG = 1 << 17
"""Elements from which a complex transform is done by factors; before, one by pocketfft stays in a cache."""
SHORTEST_FACTOR = 32


class FourierPass(NamedTuple):
    """Transforms along one axis: ``outer`` times ``inner`` of them; strides (outer, inner, element) in elements."""

    kind: str
    n: int
    outer: int
    inner: int
    strides_in: tuple[int, int, int]
    strides_out: tuple[int, int, int]


def fourier(b: GraphBuilder, eqn: Eqn, refs: list[Ref]) -> Ref:
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
        factors = _factors(n) if each in ("FFT", "IFFT") and n >= LONG else (1, n)
        transform = _one_axis if min(factors) < SHORTEST_FACTOR else _by_factors
        ref = transform(b, eqn, ref, axis, each, n)
    return ref


def _factors(n: int) -> tuple[int, int]:
    """Two factors of ``n`` as close to each other as may be."""
    first = next(k for k in range(math.isqrt(n), 0, -1) if n % k == 0)
    return first, n // first


def _by_factors(b: GraphBuilder, eqn: Eqn, ref: Ref, axis: int, kind: str, n: int) -> Ref:
    """A long transform as many short ones: with n = n1 n2, j = n2 j1 + j2 and k = k1 + n1 k2,

        y[k] = sum_j2 w^(j2 k1) (sum_j1 x[j] exp(-2πi j1 k1 / n1)) exp(-2πi j2 k2 / n2),    w = exp(-2πi/n)

    that is, columns of a matrix, a twiddle factor for each element, rows, and a transposition. All of it stays in
    caches and is shared by threads, which one long transform by pocketfft does not and is not.
    """
    shape, (n1, n2) = ref.layout.shape, _factors(n)
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


# sorting --------------------------------------------------------------------------------------------------------


def sorting(b: GraphBuilder, eqn: Eqn, refs: list[Ref]) -> Sequence[Ref] | None:
    """One operand is sorted by value; of several, the keys give an order (one key after the other, the least
    significant first) in which all are gathered. None: complex keys among several operands."""
    axis, num_keys = eqn.params["dimension"], eqn.params["num_keys"]
    shape = eqn.outvars[0].aval.shape
    if eqn.outvars[0].aval.size == 0 or shape[axis] == 1:
        return refs
    rows = _Rows(b, eqn, axis, shape)
    if len(refs) == 1:
        return [rows.back(rows.call("sort", rows.last(refs[0]), refs[0].value.dtype))]
    if any(ref.value.dtype.kind == "c" for ref in refs[:num_keys]):
        return None
    order: Ref | None = None
    for key in refs[num_keys - 1 :: -1] if num_keys > 1 else refs[:1]:
        key = rows.last(_sortable(b, key))
        found = rows.call("argsort", key if order is None else rows.take(key, order), INDEX)
        order = found if order is None else rows.take(order, found)
    assert order is not None
    return [rows.back(order if rows.counts(x) else rows.take(rows.last(x), order)) for x in refs]


class _Rows:
    """Arrays with the sorted axis moved to the end."""

    def __init__(self, b: GraphBuilder, eqn: Eqn, axis: int, shape: tuple[int, ...]) -> None:
        self.b = b
        self.eqn = eqn
        self.axis = axis
        self.moved = (*[a for a in range(len(shape)) if a != axis], axis)
        self.shape = tuple([shape[a] for a in self.moved])
        self.inverse = sorted(range(len(shape)), key=self.moved.__getitem__)

    def last(self, ref: Ref) -> Ref:
        return Ref(ref.value, ref.layout.permute(self.moved))

    def back(self, ref: Ref) -> Ref:
        return Ref(ref.value, ref.layout.permute(self.inverse))

    def call(self, kind: str, ref: Ref, dtype: np.dtype[Any]) -> Ref:
        if ref.value.virtual or not ref.layout.is_contiguous():
            ref = self.b.copy(ref)
        n = self.shape[-1]
        self.b.flops += prod(self.shape) * n.bit_length()
        value = routine(self.b, kind, self.eqn, ref, self.shape, dtype, (prod(self.shape[:-1]), n))
        return self.b.whole(value, self.shape)

    def take(self, ref: Ref, order: Ref) -> Ref:
        """Elements of each row in an order."""
        if ref.value.virtual:
            ref = self.b.copy(ref)
        layout = ref.layout
        fixed = Layout(self.shape, (*layout.strides[:-1], 0), layout.offset)
        value = self.b.new(
            "window", squeeze_shape(self.shape), ref.value.dtype,
            [Ref(ref.value, squeeze(fixed)), self.b.aligned(order, self.shape)],
        )  # fmt: skip
        value.mode = (layout.strides[-1],)
        value.weight, value.heavy = 4, False
        return self.b.whole(value, self.shape)

    def counts(self, ref: Ref) -> bool:
        """Whether the elements are their own positions along the axis."""
        steps = [s for a, s in enumerate(ref.layout.strides) if ref.layout.shape[a] > 1 and a != self.axis]
        return (
            ref.value.kind == "iota"
            and ref.value.dtype == INDEX
            and not ref.layout.offset
            and not any(steps)
            and ref.layout.strides[self.axis] == 1
        )


def _sortable(b: GraphBuilder, ref: Ref) -> Ref:
    """Keys in the same order of a dtype that can be sorted by: half floats as single ones; beyond 2**32 elements, 4
    bytes as 8."""
    dtype, wide = ref.value.dtype, ref.value.dtype
    if dtype == np.float16:
        wide = np.dtype(np.float32)
    elif dtype.itemsize == 4 and max(ref.layout.shape) >= 1 << 32:
        wide = np.dtype(f"{dtype.kind}8")
    return ref if dtype == wide else b.map("convert", [ref], wide, ref.layout.shape)


_ROUTINES: dict[str, Callable[..., Any]] = {"fft": fourier, "sort": sorting}


def library_step(b: GraphBuilder, eqn: Eqn, name: str, refs: list[Ref]) -> Any:
    """The result of a routine by name, or None where only Python can compute it."""
    return _ROUTINES[name](b, eqn, refs)
