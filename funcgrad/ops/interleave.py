"""``interleave``: arrays woven into one, each filling every so-many-th element along some axes.

The operands are the *phases* of a grid of ``strides``, in row-major order of the phase: that of phase ``(r0, r1, ...)``
fills the elements ``r0::strides[0], r1::strides[1], ...`` of the result. What comes out of a stride one phase at a time
(the gradient of a strided convolution, of pooling) is put together by it without an intermediate copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.layout import Layout
from ..core.lowering import Assemble, Piece
from ..core.primitive import ZERO, Linear, Primitive
from .create import instantiate_zeros
from .shape import batch_axis_to, strided_slice
from .structural import shape_of

__all__ = ["interleave", "interleave_p", "phase_extents"]

Ints = tuple[int, ...]


def phase_extents(shape: Sequence[int], strides: Sequence[int], phase: Sequence[int]) -> Ints:
    """How many elements of an array of ``shape`` belong to a phase."""
    return tuple([max(0, -((r - n) // s)) for n, s, r in zip(shape, strides, phase, strict=True)])


def _interleave_shape(*avals: ShapedArray, shape: Ints, strides: Ints) -> ShapedArray:
    phases = list(np.ndindex(*strides))
    if len(avals) != len(phases):
        raise ValueError(f"interleave: strides {strides} have {len(phases)} phases, found {len(avals)} operands")
    for a, phase in zip(avals, phases, strict=True):
        wanted = phase_extents(shape, strides, phase)
        if a.shape != wanted or a.dtype != avals[0].dtype:
            raise ValueError(
                f"interleave: phase {phase} is {a.dtype.name}{list(a.shape)}; wanted {avals[0].dtype.name}"
                f"{list(wanted)} for a result of shape {shape}"
            )
    return ShapedArray(shape, avals[0].dtype)


def _interleave_impl(*pieces: Any, shape: Ints, strides: Ints) -> Any:
    out = np.empty(shape, np.asarray(pieces[0]).dtype)
    for piece, phase in zip(pieces, np.ndindex(*strides), strict=True):
        out[tuple([slice(r, None, s) for r, s in zip(phase, strides, strict=True)])] = piece
    return out


def _interleave_pieces(*avals: ShapedArray, shape: Ints, strides: Ints) -> list[Piece]:
    whole = Layout.contiguous(shape)
    return [
        Piece(k, Layout.contiguous(a.shape), whole.slice(phase, a.shape, strides))
        for k, (a, phase) in enumerate(zip(avals, np.ndindex(*strides), strict=True))
    ]


def _interleave_jvp(primals: Any, tangents: Any, out: Any, **params: Any) -> Any:
    parts = [instantiate_zeros(aval_of(p)) if t is ZERO else t for p, t in zip(primals, tangents, strict=True)]
    return interleave_p.bind(*parts, **params)


def _interleave_transpose(ct: Any, *operands: Any, shape: Ints, strides: Ints) -> Any:
    cts: list[Any] = []
    for x, phase in zip(operands, np.ndindex(*strides), strict=True):
        if type(x) is not Linear:
            cts.append(None)
        elif 0 in x.aval.shape:
            cts.append(instantiate_zeros(x.aval))
        else:
            cts.append(strided_slice(ct, phase, shape, strides))
    return cts


def _interleave_batch(size: int, args: Any, dims: Any, *, shape: Ints, strides: Ints) -> Any:
    moved = [batch_axis_to(x, d, size) for x, d in zip(args, dims, strict=True)]
    return interleave_p.bind(*moved, shape=(size, *shape), strides=(1, *strides)), 0


def _samples(rng: np.random.Generator) -> list[Any]:
    rows: list[tuple[Ints, Ints]] = [((5,), (2,)), ((4, 5), (2, 1)), ((3, 4), (2, 3)), ((2, 2), (1, 1))]
    rows.append(((1, 0), (2, 2)))
    return [
        (
            tuple([rng.normal(size=phase_extents(shape, strides, phase)) for phase in np.ndindex(*strides)]),
            {"shape": shape, "strides": strides},
        )
        for shape, strides in rows
    ]


interleave_p = Primitive(
    "interleave",
    impl=_interleave_impl,
    shape=_interleave_shape,
    jvp=_interleave_jvp,
    transpose=_interleave_transpose,
    batch=_interleave_batch,
    lower=Assemble(_interleave_pieces),
    samples=_samples,
)


def interleave(pieces: Sequence[Any], shape: Sequence[int], strides: Sequence[int]) -> Any:
    """The phases of an array of ``shape`` over a grid of ``strides``, in row-major order, put together."""
    if all(s == 1 for s in strides):
        (piece,) = pieces
        if shape_of(piece) == tuple(shape):
            return piece
    return interleave_p.bind(*pieces, shape=tuple(shape), strides=tuple(strides))
