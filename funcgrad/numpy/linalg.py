"""Products of arrays and norms; with ``decompositions``, which it exports as well, all of ``numpy.linalg``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..ops import dot as contraction
from ..ops import einsum as es
from ..ops import elementwise as ew
from ..ops import spectral
from ..ops.families import broadcast_shapes
from ..ops.promotion import as_dtype, promote_dtypes
from ..ops.structural import broadcast_to, expand_dims, moveaxis, reduce_sum, reshape, shape_of
from ..ops.structural import transpose as permute
from ..util import canonicalize_axes, canonicalize_axis
from .decompositions import (
    cholesky,
    cond,
    det,
    eig,
    eigh,
    eigvals,
    eigvalsh,
    inv,
    lstsq,
    matrix_rank,
    pinv,
    qr,
    slogdet,
    solve,
    svd,
    svdvals,
    tensorinv,
    tensorsolve,
)  # fmt: skip
from .dispatch import IMPLEMENTATIONS, implements, operand
from .memory import mark_view
from .reductions import accumulator_dtype, root
from .ufuncs import UFUNCS, store

__all__ = [
    "LinAlgError", "cholesky", "cond", "cross", "det", "diagonal", "dot", "eig", "eigh", "eigvals", "eigvalsh",
    "einsum", "inner", "inv", "kron", "lstsq", "matmul", "matrix_norm", "matrix_power", "matrix_rank",
    "matrix_transpose", "matvec", "multi_dot", "norm", "outer", "pinv", "qr", "slogdet", "solve", "svd", "svdvals",
    "tensordot", "tensorinv", "tensorsolve", "trace", "vdot", "vecdot", "vecmat", "vector_norm",
]  # fmt: skip


def _strong(*xs: Any) -> list[Any]:
    """The operands promoted together, as NumPy promotes the operands of a product."""
    return promote_dtypes(*[operand(x) for x in xs])


def _conj(x: Any) -> Any:
    return ew.conj(x) if aval_of(x).dtype.kind == "c" else x


def _into(name: str, result: Any, out: Any) -> Any:
    return result if out is None else store(name, result, out)


# products -------------------------------------------------------------------------------------------------------


@implements(np.dot)
def dot(a: Any, b: Any, out: Any = None) -> Any:
    """Dot product: vectors, matrices, and the last axis against the last but one of more."""
    return _into("dot", contraction.dot(*_strong(a, b)), out)


@implements(np.vdot)
def vdot(a: Any, b: Any, /) -> Any:
    """Dot product of the flattened operands, the first conjugated."""
    return contraction.vdot(*_strong(a, b), _conj)


@implements(np.inner)
def inner(a: Any, b: Any, /) -> Any:
    """Sum of products over the last axes."""
    return contraction.inner(*_strong(a, b))


@implements(np.outer)
def outer(a: Any, b: Any, out: Any = None) -> Any:
    """All products of the elements of two flattened arrays."""
    return _into("outer", contraction.outer(*_strong(a, b)), out)


@implements(np.tensordot, np.linalg.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """Sum of products over chosen axes."""
    return contraction.tensordot(*_strong(a, b), axes)


@implements(np.einsum)
def einsum(*operands: Any, out: Any = None, dtype: Any = None, optimize: Any = False, **ignored: Any) -> Any:
    """Sums of products by index notation, ``einsum("ij,jk->ik", x, y)``. The order of products is always optimized."""
    if isinstance(operands[0], str):
        arguments = [operands[0], *[operand(x) for x in operands[1:]]]
    else:
        arguments = [operand(x) if not k % 2 and k != len(operands) - len(operands) % 2 else x
                     for k, x in enumerate(operands)]  # fmt: skip
    result = es.einsum(*arguments)
    return _into("einsum", result if dtype is None else as_dtype(result, np.dtype(dtype)), out)


def _typed(xs: list[Any], dtype: Any) -> list[Any]:
    return xs if dtype is None else [as_dtype(x, np.dtype(dtype)) for x in xs]


def _matmul(x: Any, y: Any, dtype: Any = None, axes: Any = None) -> Any:
    if axes is not None:
        raise TypeError("matmul with axes= is not supported on traced values; use swapaxes before and after")
    return contraction.matmul(*_typed(_strong(x, y), dtype))


def _vecdot(x: Any, y: Any, dtype: Any = None, axis: int = -1, axes: Any = None, keepdims: bool = False) -> Any:
    x, y = _typed(_strong(x, y), dtype)
    if not shape_of(x) or not shape_of(y):
        raise ValueError("vecdot: operands need at least one axis")
    x, y = (moveaxis(v, canonicalize_axis(axis, len(shape_of(v))), len(shape_of(v)) - 1) for v in (x, y))
    if shape_of(x)[-1] != shape_of(y)[-1]:
        raise ValueError(f"vecdot: shapes {shape_of(x)} and {shape_of(y)} differ along axis {axis}")
    broadcast_shapes("vecdot", [shape_of(x), shape_of(y)])
    result = es.einsum("...i,...i->...", _conj(x), y)
    return expand_dims(result, (axis,)) if keepdims else result


def _matvec(x: Any, y: Any, dtype: Any = None) -> Any:
    return es.einsum("...ij,...j->...i", *_typed(_strong(x, y), dtype))


def _vecmat(x: Any, y: Any, dtype: Any = None) -> Any:
    x, y = _typed(_strong(x, y), dtype)
    return es.einsum("...i,...ij->...j", _conj(x), y)


UFUNCS.update({np.matmul: _matmul, np.vecdot: _vecdot})
for _name, _fun in (("matvec", _matvec), ("vecmat", _vecmat)):  # NumPy 2.2 and newer
    if hasattr(np, _name):
        UFUNCS[getattr(np, _name)] = _fun
matmul, vecdot = np.matmul, np.vecdot
matvec, vecmat = getattr(np, "matvec", _matvec), getattr(np, "vecmat", _vecmat)


@implements(np.kron)
def kron(a: Any, b: Any) -> Any:
    """Kronecker product."""
    x, y = _strong(a, b)
    rank = max(len(shape_of(x)), len(shape_of(y)))
    x, y = (expand_dims(v, range(rank - len(shape_of(v)))) for v in (x, y))
    s, t = shape_of(x), shape_of(y)
    x, y = expand_dims(x, range(1, 2 * rank, 2)), expand_dims(y, range(0, 2 * rank, 2))
    return reshape(ew.mul(x, y), [m * n for m, n in zip(s, t, strict=True)])


@implements(np.cross)
def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    """Cross product of vectors of three components (or two, for its third component alone)."""
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = _strong(a, b)
    for v, k, name in ((x, axisa, "axisa"), (y, axisb, "axisb")):
        if shape_of(v)[canonicalize_axis(k, len(shape_of(v)), name)] not in (2, 3):
            raise ValueError(f"cross: vectors have two or three components, found shape {shape_of(v)} along {name}={k}")
    x = moveaxis(x, canonicalize_axis(axisa, len(shape_of(x))), 0)
    y = moveaxis(y, canonicalize_axis(axisb, len(shape_of(y))), 0)
    two = shape_of(x)[0] == shape_of(y)[0] == 2
    p = [x[k] for k in range(shape_of(x)[0])] + [None]
    q = [y[k] for k in range(shape_of(y)[0])] + [None]

    def minor(i: int, j: int) -> Any:
        first = None if p[i] is None or q[j] is None else np.multiply(p[i], q[j])
        second = None if p[j] is None or q[i] is None else np.multiply(p[j], q[i])
        if second is None:
            return first
        return np.negative(second) if first is None else np.subtract(first, second)

    if two:
        return minor(0, 1)
    rank = max(len(shape_of(x)), len(shape_of(y)))
    components = np.broadcast_arrays(minor(1, 2), minor(2, 0), minor(0, 1))
    return np.stack(components, axis=axisc if axisc >= 0 else rank + axisc)


# diagonals and transposes -----------------------------------------------------------------------------------------


def _diagonal(x: Any, offset: int, axis1: int, axis2: int) -> Any:
    rank = len(shape_of(x))
    axis1, axis2 = canonicalize_axis(axis1, rank, "axis1"), canonicalize_axis(axis2, rank, "axis2")
    if axis1 == axis2:
        raise ValueError("diagonal: axis1 and axis2 cannot be the same")
    if offset:
        index: list[Any] = [slice(None)] * rank
        shifted, axis = (abs(offset), axis2 if offset > 0 else axis1)
        index[axis] = slice(shifted, None)
        x = x[tuple(index)]
    return es.diagonal(x, axis1, axis2)


@implements(np.diagonal)
def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonal of two axes, as a last axis."""
    x = operand(a)
    if len(shape_of(x)) < 2:
        raise ValueError("diagonal requires an array of at least two dimensions")
    return mark_view(_diagonal(x, offset, axis1, axis2), x, "a diagonal",
                     lambda base: _diagonal(base, offset, axis1, axis2))  # fmt: skip


@implements(np.trace)
def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None) -> Any:
    """Sum along the diagonal of two axes."""
    x = _diagonal(operand(a), offset, axis1, axis2)
    x = as_dtype(x, accumulator_dtype(aval_of(x).dtype, dtype))
    return _into("trace", reduce_sum(x, (len(shape_of(x)) - 1,)), out)


@implements(np.matrix_transpose, np.linalg.matrix_transpose)
def matrix_transpose(x: Any, /) -> Any:
    """The last two axes swapped."""
    x = operand(x)
    rank = len(shape_of(x))
    if rank < 2:
        raise ValueError(f"matrix_transpose needs at least two dimensions, found shape {shape_of(x)}")
    order = [*range(rank - 2), rank - 1, rank - 2]
    return mark_view(permute(x, order), x, "a transpose", lambda base: permute(base, order))


LinAlgError = np.linalg.LinAlgError


def _last_axes(function: Any) -> Any:
    """Of the last two axes, as in ``numpy.linalg``, where the function of that name in ``numpy`` takes the first."""

    def apply(x: Any, /, *, offset: int = 0, **kwargs: Any) -> Any:
        return function(x, offset=offset, axis1=-2, axis2=-1, **kwargs)

    return apply


def _vectors_outer(x1: Any, x2: Any, /) -> Any:
    if len(shape_of(operand(x1))) != 1 or len(shape_of(operand(x2))) != 1:
        raise ValueError("linalg.outer takes vectors; numpy.outer flattens arrays of any shape")
    return outer(x1, x2)


IMPLEMENTATIONS.update(
    {
        np.linalg.diagonal: _last_axes(diagonal),
        np.linalg.trace: _last_axes(trace),
        np.linalg.outer: _vectors_outer,
        np.linalg.cross: lambda x1, x2, /, *, axis=-1: cross(x1, x2, axis=axis),
        np.linalg.matmul: lambda x1, x2, /: matmul(x1, x2),
        np.linalg.vecdot: lambda x1, x2, /, *, axis=-1: vecdot(x1, x2, axis=axis),
    }
)


# norms ----------------------------------------------------------------------------------------------------------


def _float(x: Any) -> Any:
    dtype = aval_of(x).dtype
    return as_dtype(x, dtype if dtype.kind in "fc" else np.dtype(np.float64))


def _vector_norm(x: Any, order: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    if order is None or order == 2:
        squares = ew.square(x)
        if aval_of(x).dtype.kind == "c":
            squares = ew.add(ew.square(ew.real(x)), ew.square(ew.imag(x)))
        return root(np.sum(squares, axes, keepdims=keepdims))
    size = np.abs(x)
    if order == np.inf:
        return np.max(size, axes, keepdims=keepdims)
    if order == -np.inf:
        return np.min(size, axes, keepdims=keepdims)
    if order == 0:
        return np.sum(as_dtype(np.not_equal(x, 0), aval_of(size).dtype), axes, keepdims=keepdims)
    if order == 1:
        return np.sum(size, axes, keepdims=keepdims)
    if isinstance(order, str):
        raise ValueError(f"norm: order {order!r} is for matrices; vectors take numbers, inf and -inf")
    return np.power(np.sum(np.power(size, order), axes, keepdims=keepdims), 1 / order)


def _matrix_norm(x: Any, order: Any, axes: tuple[int, int], keepdims: bool) -> Any:
    row, column = axes
    if order is None or order == "fro":
        return _vector_norm(x, 2, axes, keepdims)
    if order in (2, -2, "nuc"):
        rank = len(shape_of(x))
        values = spectral.svdvals(permute(x, [*[k for k in range(rank) if k not in axes], row, column]))
        result = {2: np.max, -2: np.min, "nuc": np.sum}[order](values, -1)
        return expand_dims(result, sorted(axes)) if keepdims else result
    across = {1: (row, column, np.max), -1: (row, column, np.min), np.inf: (column, row, np.max),
              -np.inf: (column, row, np.min)}.get(order)  # fmt: skip
    if across is None:
        raise ValueError(f"norm: unknown order {order!r} for matrices; take 'fro', 'nuc', 1, -1, 2, -2, inf or -inf")
    inner_axis, outer_axis, extreme = across
    sums = np.sum(np.abs(x), inner_axis, keepdims=True)
    result = extreme(sums, axis=outer_axis, keepdims=True)
    return result if keepdims else reshape(result, [n for k, n in enumerate(shape_of(result)) if k not in axes])


@implements(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Norm of vectors or matrices. The gradient at 0 is 0."""
    x = _float(operand(x))
    rank = len(shape_of(x))
    if axis is None and (ord is None or rank == 1 or (rank == 2 and ord == "fro")):
        return _vector_norm(x, ord if ord != "fro" else None, tuple(range(rank)), keepdims)
    axes = canonicalize_axes(axis, rank)
    if len(axes) == 1:
        return _vector_norm(x, ord, axes, keepdims)
    if len(axes) != 2:
        raise ValueError(f"norm: the axes {axes} are neither one (vectors) nor two (matrices)")
    return _matrix_norm(x, ord, (axes[0], axes[1]), keepdims)


@implements(np.linalg.vector_norm)
def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    """Norm of vectors along one axis, several, or all."""
    x = _float(operand(x))
    return _vector_norm(x, ord, canonicalize_axes(axis, len(shape_of(x))), keepdims)


@implements(np.linalg.matrix_norm)
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """Norm of the matrices in the last two axes."""
    x = _float(operand(x))
    rank = len(shape_of(x))
    return _matrix_norm(x, ord, (rank - 2, rank - 1), keepdims)


@implements(np.linalg.multi_dot)
def multi_dot(arrays: Any, *, out: Any = None) -> Any:
    """Product of several matrices in the cheapest order; the first and last may be vectors."""
    arrays = [operand(x) for x in arrays]
    if len(arrays) < 2:
        raise ValueError(f"multi_dot needs at least two arrays, found {len(arrays)}")
    ranks = [len(shape_of(x)) for x in arrays]
    if any(r != 2 for r in ranks[1:-1]) or not {ranks[0], ranks[-1]} <= {1, 2}:
        raise ValueError(f"multi_dot takes matrices, and vectors at both ends; found dimensions {ranks}")
    letters = [chr(ord("a") + k) for k in range(len(arrays) + 1)]
    terms = [letters[k] + letters[k + 1] for k in range(len(arrays))]
    if ranks[0] == 1:
        terms[0] = terms[0][1:]
    if ranks[-1] == 1:
        terms[-1] = terms[-1][:-1]
    kept = (letters[0] if ranks[0] == 2 else "") + (letters[-1] if ranks[-1] == 2 else "")
    return _into("multi_dot", es.einsum(f"{','.join(terms)}->{kept}", *arrays), out)


@implements(np.linalg.matrix_power)
def matrix_power(a: Any, n: int) -> Any:
    """Square matrices to a static integer power."""
    x = operand(a)
    shape = shape_of(x)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ValueError(f"matrix_power takes square matrices, found shape {shape}")
    if n < 0:
        x, n = inv(x), -n
    if n == 0:
        return broadcast_to(np.eye(shape[-1], dtype=aval_of(x).dtype), shape)
    result = None
    while n:
        if n & 1:
            result = x if result is None else contraction.matmul(result, x)
        n >>= 1
        x = contraction.matmul(x, x) if n else x
    return result
