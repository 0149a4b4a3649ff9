"""Sorting as steps of the graph (see ``runtime.sorting``), and the table of all routines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.jaxpr import Eqn
from ..core.layout import Layout
from ..util import prod
from .fourier_rules import fourier_transform
from .graph import INDEX, GraphBuilder, Ref, squeeze, squeeze_shape
from .routine import routine

__all__ = ["library_step"]

_LONG = 1 << 17
"""Elements of a row from which it is sorted in runs."""


def sorting(b: GraphBuilder, eqn: Eqn, refs: list[Ref]) -> Sequence[Ref] | None:
    """One operand is sorted by value; of several, the keys give an order (one key after the other, the least
    significant first) in which all are gathered. None: complex keys among several operands."""
    axis, num_keys = eqn.params["dimension"], eqn.params["num_keys"]
    shape = eqn.outvars[0].aval.shape
    if eqn.outvars[0].aval.size == 0 or shape[axis] == 1:
        return refs
    rows = _Rows(b, eqn, axis, shape)
    if len(refs) == 1:
        return [rows.back(rows.sorted(rows.last(refs[0])))]
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

    def call(self, kind: str, ref: Ref, dtype: np.dtype[Any], *data: Any) -> Ref:
        if ref.value.virtual or not ref.layout.is_contiguous():
            ref = self.b.copy(ref)
        n = self.shape[-1]
        self.b.flops += prod(self.shape) * (1 if kind == "merge" else n.bit_length())
        value = routine(self.b, kind, self.eqn, ref, self.shape, dtype, (prod(self.shape[:-1]), n, *data))
        return self.b.whole(value, self.shape)

    def sorted(self, ref: Ref) -> Ref:
        """Few long rows are sorted in runs, for several threads, and the runs merged."""
        dtype, n = ref.value.dtype, self.shape[-1]
        runs = 1 if n < _LONG else 2 if n < 16 * _LONG else 4
        if runs == 1 or prod(self.shape) // n >= runs or dtype.kind not in "iuf" or dtype.itemsize < 4:
            return self.call("sort", ref, dtype)
        ref = self.call("sort_runs", ref, dtype, runs)
        merged = 1
        while merged < runs:
            ref = self.call("merge", ref, dtype, runs, merged)
            merged *= 2
        return ref

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


_ROUTINES: dict[str, Callable[..., Any]] = {"fft": fourier_transform, "sort": sorting}


def library_step(b: GraphBuilder, eqn: Eqn, name: str, refs: list[Ref]) -> Any:
    """The result of a routine by name, or None where only Python can compute it."""
    return _ROUTINES[name](b, eqn, refs)
