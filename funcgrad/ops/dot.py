"""Contractions: ``dot_general``, and ``matmul``, ``tensordot`` and ``einsum`` in terms of it.

``dimension_numbers = ((lhs_contract, rhs_contract), (lhs_batch, rhs_batch))`` names the axes that are summed in pairs
and those that run in parallel; the result's axes are the batch axes, the free axes of the left, the free axes of the
right. It is bilinear, and both transposes are contractions again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray
from ..core.lowering import Contract
from ..core.primitive import ZERO, Linear, Primitive
from ..util import canonicalize_axis
from .elementwise import add
from .promotion import promote_dtypes
from .structural import reshape, shape_of, transpose

__all__ = ["dot", "dot_general", "dot_general_p", "inner", "matmul", "outer", "tensordot", "vdot"]

Axes = tuple[int, ...]
DimensionNumbers = tuple[tuple[Axes, Axes], tuple[Axes, Axes]]


def free_axes(rank: int, *used: Axes) -> Axes:
    """The axes that are neither contracted nor batched."""
    taken = {a for axes in used for a in axes}
    return tuple([a for a in range(rank) if a not in taken])


def _dot_shape(x: ShapedArray, y: ShapedArray, *, dimension_numbers: DimensionNumbers) -> ShapedArray:
    (xc, yc), (xb, yb) = dimension_numbers
    if x.dtype != y.dtype:
        raise TypeError(f"dot_general: operands have dtypes {x.dtype.name} and {y.dtype.name}; convert one of them")
    s, t = x.shape, y.shape
    for name, shape, c, b in (("left", s, xc, xb), ("right", t, yc, yb)):
        named = {*c, *b}
        if len(named) != len(c) + len(b) or not named.issubset(range(len(shape))):
            raise ValueError(f"dot_general: axes {c} and {b} do not name distinct axes of {name} shape {shape}")
    for what, xs, ys in (("contracting", xc, yc), ("batch", xb, yb)):
        if [s[a] for a in xs] != [t[a] for a in ys]:
            raise ValueError(f"dot_general: shapes {s} and {t} differ along the {what} axes {xs} and {ys}")
    left, right = free_axes(len(s), xc, xb), free_axes(len(t), yc, yb)
    return ShapedArray((*[s[a] for a in xb], *[s[a] for a in left], *[t[a] for a in right]), x.dtype)


def _dot_impl(x: Any, y: Any, *, dimension_numbers: DimensionNumbers) -> Any:
    (xc, yc), (xb, yb) = dimension_numbers
    x, y = np.asarray(x), np.asarray(y)
    if not xb and len(xc) == 1 and x.ndim in (1, 2) and y.ndim in (1, 2):
        return np.dot(x if xc[0] == x.ndim - 1 else x.T, y if yc[0] == 0 else y.T)
    xf, yf = free_axes(x.ndim, xc, xb), free_axes(y.ndim, yc, yb)
    batch = [x.shape[a] for a in xb]
    inner = math.prod([x.shape[a] for a in xc])
    rows, columns = [x.shape[a] for a in xf], [y.shape[a] for a in yf]
    left = np.transpose(x, (*xb, *xf, *xc)).reshape((*batch, math.prod(rows), inner))
    right = np.transpose(y, (*yb, *yc, *yf)).reshape((*batch, inner, math.prod(columns)))
    return np.matmul(left, right).reshape((*batch, *rows, *columns))


def _dot_jvp(primals: Any, tangents: Any, out: Any, *, dimension_numbers: DimensionNumbers) -> Any:
    (x, y), (tx, ty) = primals, tangents
    parts = []
    if tx is not ZERO:
        parts.append(dot_general_p.bind(tx, y, dimension_numbers=dimension_numbers))
    if ty is not ZERO:
        parts.append(dot_general_p.bind(x, ty, dimension_numbers=dimension_numbers))
    return parts[0] if len(parts) == 1 else add(*parts)


def _inverse(permutation: Sequence[int]) -> Axes:
    return tuple(sorted(range(len(permutation)), key=lambda k: permutation[k]))


def _dot_transpose_operand(ct: Any, other: Any, rank: int, dims: DimensionNumbers, own_is_left: bool) -> Any:
    """Contract ``ct`` with the other operand along the other's free axes, and put the axes back in place."""
    (own_c, other_c), (own_b, other_b) = dims
    own_free = free_axes(rank, own_c, own_b)
    other_free = free_axes(len(shape_of(other)), other_c, other_b)
    nb = len(own_b)
    start = nb + len(own_free) if own_is_left else nb
    ct_contract = tuple(range(start, start + len(other_free)))
    out = dot_general(ct, other, ((ct_contract, other_free), (tuple(range(nb)), other_b)))
    own_c_in_order = [own_c[k] for k in sorted(range(len(own_c)), key=lambda k: other_c[k])]
    return transpose(out, _inverse([*own_b, *own_free, *own_c_in_order]))


def _dot_transpose(ct: Any, x: Any, y: Any, *, dimension_numbers: DimensionNumbers) -> Any:
    if type(x) is Linear:
        return _dot_transpose_operand(ct, y, x.aval.ndim, dimension_numbers, True), None
    (xc, yc), (xb, yb) = dimension_numbers
    return None, _dot_transpose_operand(ct, x, y.aval.ndim, ((yc, xc), (yb, xb)), False)


def _shifted(axes: Axes, dim: int) -> Axes:
    return tuple([a + (a >= dim) for a in axes])


def _dot_batch(size: int, args: Any, dims: Any, *, dimension_numbers: DimensionNumbers) -> Any:
    (xc, yc), (xb, yb) = dimension_numbers
    (x, y), (dx, dy) = args, dims
    if dx is not None:
        xc, xb = _shifted(xc, dx), _shifted(xb, dx)
    if dy is not None:
        yc, yb = _shifted(yc, dy), _shifted(yb, dy)
    if dx is not None and dy is not None:
        return dot_general(x, y, ((xc, yc), ((dx, *xb), (dy, *yb)))), 0
    out = dot_general(x, y, ((xc, yc), (xb, yb)))  # the batch axis is one more free axis
    x_free = free_axes(len(shape_of(x)), xc, xb)
    if dx is not None:
        return out, len(xb) + x_free.index(dx)
    return out, len(xb) + len(x_free) + free_axes(len(shape_of(y)), yc, yb).index(dy)


dot_general_p = Primitive(
    "dot_general",
    impl=_dot_impl,
    shape=_dot_shape,
    jvp=_dot_jvp,
    transpose=_dot_transpose,
    batch=_dot_batch,
    lower=Contract(),
    samples=lambda rng: [
        ((rng.normal(size=s), rng.normal(size=t)), {"dimension_numbers": d})
        for s, t, d in [
            ((3, 4), (4, 2), (((1,), (0,)), ((), ()))),
            ((4,), (4,), (((0,), (0,)), ((), ()))),
            ((4, 3), (2, 4), (((0,), (1,)), ((), ()))),
            ((2, 3, 4), (2, 4, 5), (((2,), (1,)), ((0,), (0,)))),
            ((3, 2, 4), (4, 3, 2), (((0, 2), (1, 0)), ((), ()))),
            ((2, 3), (3, 2), (((0, 1), (1, 0)), ((), ()))),
            ((2, 3, 4, 2), (4, 2, 3, 2), (((1, 2), (2, 0)), ((3,), (1,)))),
            ((2,), (3,), (((), ()), ((), ()))),
            ((2, 3), (2,), (((), ()), ((0,), (0,)))),
            ((2, 0), (0, 3), (((1,), (0,)), ((), ()))),
            ((), (2,), (((), ()), ((), ()))),
        ]
    ],
)


def _axes(axes: Sequence[int], rank: int, name: str) -> Axes:
    return tuple([canonicalize_axis(a, rank, name) for a in axes])


def dot_general(lhs: Any, rhs: Any, dimension_numbers: Any) -> Any:
    """Contract ``lhs`` and ``rhs`` (of one dtype): ``((lhs_contract, rhs_contract), (lhs_batch, rhs_batch))``.

    Result axes: batch, free axes of ``lhs``, free axes of ``rhs``.
    """
    (xc, yc), (xb, yb) = dimension_numbers
    m, n = len(shape_of(lhs)), len(shape_of(rhs))
    numbers = (
        (_axes(xc, m, "lhs_contract"), _axes(yc, n, "rhs_contract")),
        (_axes(xb, m, "lhs_batch"), _axes(yb, n, "rhs_batch")),
    )
    return dot_general_p.bind(lhs, rhs, dimension_numbers=numbers)


def _promoted(x: Any, y: Any) -> list[Any]:
    dtype = getattr(x, "dtype", None)
    return [x, y] if dtype is not None and dtype == getattr(y, "dtype", None) else promote_dtypes(x, y)


def _matmul_error(x: tuple[int, ...], y: tuple[int, ...], why: str) -> ValueError:
    return ValueError(f"matmul: shapes {x} and {y} do not fit: {why}")


# rows and columns of a matrix product without leading axes, by the ranks of the operands
_PLAIN: dict[tuple[int, int], DimensionNumbers] = {(m, n): (((m - 1,), (0,)), ((), ())) for m in (1, 2) for n in (1, 2)}


def matmul(x: Any, y: Any) -> Any:
    """``x @ y`` as NumPy's: vectors, matrices, and stacks of matrices that broadcast over their leading axes."""
    x, y = _promoted(x, y)
    s, t = shape_of(x), shape_of(y)
    if not s or not t:
        raise _matmul_error(s, t, "scalars are not matrices; use *")
    rows = max(len(t) - 2, 0)
    if s[-1] != t[rows]:
        raise _matmul_error(s, t, f"{s[-1]} columns of the left against {t[rows]} rows of the right")
    plain = _PLAIN.get((len(s), len(t)))
    if plain is not None:
        return dot_general_p.bind(x, y, dimension_numbers=plain)
    return _stacked_matmul(x, y, s, t, rows)


def _stacked_matmul(x: Any, y: Any, s: tuple[int, ...], t: tuple[int, ...], rows: int) -> Any:
    """Leading axes run in parallel where both have them, and are free where the other has extent 1 or none."""
    left, right = s[:-2], t[:-2]
    rank = max(len(left), len(right))
    pairs: list[tuple[int, int]] = []
    drop_x: list[int] = []
    drop_y: list[int] = []
    wanted: list[tuple[str, int]] = []  # the result's axes, by where they come from
    for k in range(rank):
        i, j = k - (rank - len(left)), k - (rank - len(right))
        if i >= 0 and j >= 0 and left[i] == right[j]:
            wanted.append(("batch", len(pairs)))
            pairs.append((i, j))
        elif j >= 0 and (i < 0 or left[i] == 1):
            wanted.append(("y", j))
            drop_x += [i] if i >= 0 else []
        elif i >= 0 and (j < 0 or right[j] == 1):
            wanted.append(("x", i))
            drop_y += [j] if j >= 0 else []
        else:
            raise _matmul_error(s, t, f"leading axes {left} and {right} do not broadcast")
    wanted += [("x", len(s) - 2)] if len(s) > 1 else []
    wanted += [("y", len(t) - 1)] if len(t) > 1 else []
    x_axes = [a for a in range(len(s)) if a not in drop_x]
    y_axes = [a for a in range(len(t)) if a not in drop_y]
    x_batch, y_batch = [i for i, _ in pairs], [j for _, j in pairs]
    numbers = (
        ((x_axes.index(len(s) - 1),), (y_axes.index(rows),)),
        ([x_axes.index(i) for i in x_batch], [y_axes.index(j) for j in y_batch]),
    )
    out = dot_general(reshape(x, [s[a] for a in x_axes]), reshape(y, [t[a] for a in y_axes]), numbers)
    found = [("batch", k) for k in range(len(pairs))]
    found += [("x", a) for a in x_axes if a not in x_batch and a != len(s) - 1]
    found += [("y", a) for a in y_axes if a not in y_batch and a != rows]
    return transpose(out, [found.index(w) for w in wanted])


def tensordot(x: Any, y: Any, axes: Any = 2) -> Any:
    """``np.tensordot``: ``axes`` is a number of axes, or a pair of axes (or sequences of them)."""
    x, y = _promoted(x, y)
    m, n = len(shape_of(x)), len(shape_of(y))
    if isinstance(axes, (int, np.integer)):
        if not 0 <= axes <= min(m, n):
            raise ValueError(f"tensordot: cannot sum {axes} axes of shapes {shape_of(x)} and {shape_of(y)}")
        xc, yc = tuple(range(m - axes, m)), tuple(range(axes))
    else:
        xc, yc = (tuple(a) if isinstance(a, (tuple, list)) else (a,) for a in axes)
        if len(xc) != len(yc):
            raise ValueError(f"tensordot: axes {tuple(axes)} name different numbers of axes")
    xc, yc = _axes(xc, m, "axes[0]"), _axes(yc, n, "axes[1]")
    s, t = shape_of(x), shape_of(y)
    if [s[a] for a in xc] != [t[a] for a in yc]:
        raise ValueError(f"tensordot: shapes {s} and {t} differ along the summed axes {xc} and {yc}")
    return dot_general(x, y, ((xc, yc), ((), ())))


def dot(x: Any, y: Any) -> Any:
    """``np.dot``: the last axis of ``x`` against the last but one of ``y``; a product if one is a scalar."""
    m, n = len(shape_of(x)), len(shape_of(y))
    if not m or not n:
        return tensordot(x, y, 0)
    s, t, rows = shape_of(x), shape_of(y), max(n - 2, 0)
    if s[-1] != t[rows]:
        raise ValueError(f"dot: shapes {s} and {t} not aligned: {s[-1]} (dim {m - 1}) != {t[rows]} (dim {rows})")
    return tensordot(x, y, ((m - 1,), (rows,)))


def vdot(x: Any, y: Any, conj: Any) -> Any:
    """``np.vdot`` of the flattened operands; ``conj`` is the conjugation to apply to the first."""
    x, y = _promoted(x, y)
    x, y = (reshape(v, (math.prod(shape_of(v)),)) for v in (x, y))
    return dot(conj(x), y)


def inner(x: Any, y: Any) -> Any:
    """``np.inner``: the last axes summed in pairs; a product if one is a scalar."""
    m, n = len(shape_of(x)), len(shape_of(y))
    if not m or not n:
        return tensordot(x, y, 0)
    if shape_of(x)[-1] != shape_of(y)[-1]:
        raise ValueError(f"inner: shapes {shape_of(x)} and {shape_of(y)} differ along their last axes")
    return tensordot(x, y, ((m - 1,), (n - 1,)))


def outer(x: Any, y: Any) -> Any:
    """``np.outer`` of the flattened operands."""
    x, y = (reshape(v, (math.prod(shape_of(v)),)) for v in promote_dtypes(x, y))
    return tensordot(x, y, 0)
