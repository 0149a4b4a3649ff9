"""Routines of a library on stacks of matrices: in which order their operands must lie, which memory they reuse, and
whether many small matrices go to a kernel of our own instead."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..core import lowering as L
from ..core.jaxpr import Eqn
from ..core.layout import Layout
from ..util import prod
from .graph import GraphBuilder, Ref, squeeze_shape
from .library_rules import library_step
from .rules import SMALL_MATRIX, SMALL_STACK, inline, matrices

__all__ = ["library"]


def library(b: GraphBuilder, eqn: Eqn, lower: L.Library, refs: list[Ref]) -> Any:
    """A routine on stacks of matrices, each stored as the routine wants it. What is stored by columns is a view."""
    avals = [v.aval for v in eqn.outvars]
    if all([a.size == 0 for a in avals]) and lower.results:
        return tuple([b.fill(0, a) for a in avals])
    read = [(x, how) for x, how in zip(refs, lower.operands, strict=False) if how != "unread"]
    empty = any([x.layout.size == 0 for x, _ in read])
    first = refs[0].layout.shape
    batch = prod(first[: -1 if lower.operands[:1] == ("vectors",) else -2])
    small = lower.small and not empty and batch >= SMALL_STACK and avals[0].dtype.kind == "f"
    small = small and all([max(x.layout.shape[-2:]) <= SMALL_MATRIX for x, how in read if how != "vectors"])
    small = small and first[-1] == first[-2]
    if lower.otherwise is not None and not small:
        fun = partial(lower.otherwise, **eqn.params)
        return inline(b, str(eqn.primitive), fun, [a.aval for a in eqn.invars], refs)
    if not lower.results:
        results = library_step(b, eqn, lower.routine, refs)
        return b.host(eqn, refs) if results is None else results
    if empty:
        return b.host(eqn, refs)
    if small:  # which reads with any strides, into memory of its own
        operands = [_stack(b, x, how, batch) if how == "vectors" else _seen(b, x, batch) for x, how in read]
        results = b.call("small", eqn, operands, (batch, lower))
    else:
        operands = [_stack(b, x, how, batch) for x, how in read]
        results = b.call("library", eqn, operands, (batch, lower), overwrites=lower.overwrites)
    return tuple([_stored_by(x, how) for x, how in zip(results, lower.results, strict=True)])


def _seen(b: GraphBuilder, ref: Ref, batch: int) -> Ref:
    """``ref`` as ``batch`` matrices that lie in memory, in whatever order."""
    *_, m, n = ref.layout.shape
    return b.view(b.copy(ref) if ref.value.virtual else ref, lambda x: x.reshape((batch, m, n)))


def _stack(b: GraphBuilder, ref: Ref, how: str, batch: int) -> Ref:
    """``ref`` as ``batch`` matrices in the asked-for order."""
    if how == "vectors":
        return b.view(b.contiguous(ref), lambda x: x.reshape((batch, x.shape[-1], 1)))
    *stack, m, n = ref.layout.shape
    if how == "matrix":
        return matrices(b, ref, range(len(stack) + 2), (batch, m, n))
    if how == "rows":
        return b.view(b.contiguous(ref), lambda x: x.reshape((batch, m, n)))
    turned = b.view(b.contiguous(Ref(ref.value, _turned(ref.layout))), lambda x: x.reshape((batch, n, m)))
    return Ref(turned.value, _turned(turned.layout))


def _turned(layout: Layout) -> Layout:
    rank = len(layout.shape)
    return layout.permute((*range(rank - 2), rank - 1, rank - 2))


def _stored_by(ref: Ref, how: str) -> Ref:
    """An output seen through the order in which the routine stores it."""
    if how == "rows":
        return ref
    stored = Layout.contiguous(_turned(ref.layout).shape)
    ref.value.shape = squeeze_shape(stored.shape)
    return Ref(ref.value, _turned(stored))
