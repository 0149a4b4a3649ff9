"""What a value is in a loop that is one kernel: a name for each element, or, where it is large, a place in memory.

A large value is one that the loop reads (an operand) or updates in place (something carried, whose memory is that of
the loop's result). It is read and written through windows alone, so it never passes through registers as a whole. Since
jaxprs have values and memory has states, a large value bears a *version*: an update makes a new one, and whoever reads
an old one afterwards cannot be written in this form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ..core.avals import ShapedArray
from ..core.layout import Layout
from ..record import field, record
from .scalar import suffix

__all__ = [
    "MOST_ELEMENTS",
    "Buffer",
    "Elements",
    "Memory",
    "Unsupported",
    "positions",
    "read_places",
    "read_window",
    "write_window",
]

MOST_ELEMENTS: Final = 16
"""Of a value that lies in registers."""

Elements = tuple[str, ...]


class Unsupported(Exception):
    """The loop must run kernel by kernel."""


@record(eq=False)
class Buffer:
    """Memory at a pointer, under the number that its loads and stores bear; ``version`` is what it holds now."""

    pointer: str
    number: int
    aval: ShapedArray
    writable: bool
    version: object = field(default_factory=object)


@record(frozen=True)
class Memory:
    """A value that lies in a buffer, as long as the buffer is of this version."""

    buffer: Buffer
    version: object

    def check(self) -> Buffer:
        if self.buffer.version is not self.version:
            raise Unsupported
        return self.buffer


def positions(layout: Layout) -> list[int]:
    """The positions of a layout's elements, in row-major order."""
    places = np.full(layout.shape, layout.offset)
    for axis, (n, stride) in enumerate(zip(layout.shape, layout.strides, strict=True)):
        shape = [1] * len(layout.shape)
        shape[axis] = n
        places = places + (np.arange(n) * stride).reshape(shape)
    return [int(k) for k in places.ravel()]


def _window(w: Any, full: ShapedArray, shape: Sequence[int], starts: Sequence[str]) -> tuple[str, list[int]]:
    """Where a window begins, its start clamped, and where its elements lie from there."""
    whole = Layout.contiguous(full.shape)
    terms = []
    for start, n, m, stride in zip(starts, full.shape, shape, whole.strides, strict=True):
        if n == m:
            continue
        limit = w.constant(np.int64(n - m), np.dtype(np.int64))
        clamped = f"min_i64(max_i64({start}, i64(0)), {limit})"
        terms.append(clamped if stride == 1 else f"{clamped} * {w.constant(np.int64(stride), np.dtype(np.int64))}")
    return w.let(" + ".join(terms)) if terms else "i64(0)", positions(Layout(tuple(shape), whole.strides, 0))


def _at(base: str, offset: int) -> str:
    return f"{base} + {offset}" if offset else base


def read_places(w: Any, memory: Memory, places: Sequence[int]) -> Elements:
    buffer = memory.check()
    kind, index = suffix(buffer.aval.dtype), np.dtype(np.int64)
    numbers = [w.constant(np.int64(k), index) for k in places]
    return tuple([w.let(f"load_{kind}({buffer.pointer}, {k}, {buffer.number})") for k in numbers])


def read_window(w: Any, memory: Memory, shape: Sequence[int], starts: Sequence[str]) -> Elements:
    buffer = memory.check()
    base, offsets = _window(w, buffer.aval, shape, starts)
    kind = suffix(buffer.aval.dtype)
    return tuple([w.let(f"load_{kind}({buffer.pointer}, {_at(base, k)}, {buffer.number})") for k in offsets])


def write_window(w: Any, memory: Memory, update: Elements, shape: Sequence[int], starts: Sequence[str]) -> Memory:
    buffer = memory.check()
    if not buffer.writable:
        raise Unsupported
    base, offsets = _window(w, buffer.aval, shape, starts)
    kind = suffix(buffer.aval.dtype)
    for k, x in zip(offsets, update, strict=True):
        w.line(f"store_{kind}({buffer.pointer}, {_at(base, k)}, {buffer.number}, {x})")
    buffer.version = object()
    return Memory(buffer, buffer.version)
