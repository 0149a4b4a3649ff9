"""Stacks of matrices: what the decompositions and their derivatives are written with.

A matrix lies in the last two axes, whatever comes before them is a stack of matrices that are treated alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from .create import broadcasted_iota
from .dot import matmul
from .einsum import diagonal as _diagonal
from .elementwise import conj as _conj
from .elementwise import convert_element_type, eq, ge, mul, real, select
from .families import broadcast_shapes
from .shape import batch_axis_to, slice_in_dim
from .structural import broadcast_in_dim, expand_dims, shape_of, squeeze, transpose

__all__ = [
    "adjoint", "batch_leading", "broadcast_stacks", "check_matrices", "columns", "conj", "diagonal", "entry",
    "extents", "eye_like", "halved_diagonal", "hermitian_part", "lower_part", "mT", "matmul", "on_diagonal",
    "real_diagonal", "rows", "scale_columns", "scale_rows", "separated", "upper_part",
]  # fmt: skip

_INDEX = np.dtype(np.int64)


def check_matrices(name: str, x: ShapedArray, square: bool = False) -> tuple[int, int]:
    """Rows and columns of an operand.

    Raises:
        LinAlgError: if it has fewer than two axes, or is to be square and is not.
        TypeError: if its dtype is not float32, float64 or complex.
    """
    if len(x.shape) < 2:
        raise np.linalg.LinAlgError(
            f"{name}: a matrix has two axes, found shape {x.shape}; add axes with reshape or [:, None]"
        )
    if square and x.shape[-1] != x.shape[-2]:
        raise np.linalg.LinAlgError(
            f"{name}: takes square matrices, found {x.shape[-2]} rows and {x.shape[-1]} columns"
        )
    if x.dtype.kind not in "fc" or x.dtype == np.float16:
        raise TypeError(
            f"{name}: matrices of dtype {x.dtype.name} are not decomposed; convert to float32, float64 or complex"
        )
    return x.shape[-2], x.shape[-1]


def extents(x: Any) -> tuple[int, int]:
    """Rows and columns."""
    return shape_of(x)[-2:]  # type: ignore[return-value]


def rows(x: Any, start: int, stop: int) -> Any:
    """``x[..., start:stop, :]``."""
    return x if (start, stop) == (0, extents(x)[0]) else slice_in_dim(x, start, stop, axis=-2)


def columns(x: Any, start: int, stop: int) -> Any:
    """``x[..., start:stop]``."""
    return x if (start, stop) == (0, extents(x)[1]) else slice_in_dim(x, start, stop, axis=-1)


def entry(x: Any, i: int, j: int) -> Any:
    """``x[..., i, j]``."""
    return squeeze(columns(rows(x, i, i + 1), j, j + 1), (-2, -1))


def mT(x: Any) -> Any:
    """The last two axes swapped."""
    rank = len(shape_of(x))
    return transpose(x, (*range(rank - 2), rank - 1, rank - 2))


def conj(x: Any) -> Any:
    """The complex conjugate, which of a real array is the array."""
    return _conj(x) if aval_of(x).dtype.kind == "c" else x


def adjoint(x: Any) -> Any:
    """The conjugate transpose."""
    return mT(conj(x))


def hermitian_part(x: Any) -> Any:
    """``(x + xᴴ) / 2``."""
    return mul(x + adjoint(x), aval_of(x).dtype.type(0.5))


def diagonal(x: Any) -> Any:
    """The diagonals, in a last axis."""
    rank = len(shape_of(x))
    return _diagonal(x, rank - 2, rank - 1)


def _where(condition: Any, x: Any) -> Any:
    return select(condition, x, np.zeros((), aval_of(x).dtype)[()])


def _positions(m: int, n: int) -> tuple[Any, Any]:
    return broadcasted_iota(_INDEX, (m, n), 0), broadcasted_iota(_INDEX, (m, n), 1)


def lower_part(x: Any, k: int = 0) -> Any:
    """The elements on and below diagonal ``k``, zero elsewhere."""
    row, column = _positions(*extents(x))
    return _where(ge(row, column - k) if k else ge(row, column), x)


def upper_part(x: Any, k: int = 0) -> Any:
    """The elements on and above diagonal ``k``, zero elsewhere."""
    row, column = _positions(*extents(x))
    return _where(ge(column, row + k) if k else ge(column, row), x)


def halved_diagonal(x: Any) -> Any:
    """The lower triangle, with half of the diagonal."""
    row, column = _positions(*extents(x))
    return select(eq(row, column), mul(x, aval_of(x).dtype.type(0.5)), lower_part(x))


def on_diagonal(x: Any) -> Any:
    """Square matrices with ``x`` (..., n) on their diagonals."""
    n = shape_of(x)[-1]
    row, column = _positions(n, n)
    return _where(eq(row, column), expand_dims(x, (-1,)))


def eye_like(x: Any, n: int) -> Any:
    """The identity of order n in the dtype of ``x``."""
    row, column = _positions(n, n)
    return convert_element_type(eq(row, column), aval_of(x).dtype)


def _matching(x: Any, factors: Any) -> Any:
    dtype = aval_of(x).dtype
    return factors if aval_of(factors).dtype == dtype else convert_element_type(factors, dtype)


def scale_columns(x: Any, factors: Any) -> Any:
    """``x @ diag(factors)``."""
    return mul(x, expand_dims(_matching(x, factors), (-2,)))


def scale_rows(x: Any, factors: Any) -> Any:
    """``diag(factors) @ x``."""
    return mul(x, expand_dims(_matching(x, factors), (-1,)))


def broadcast_stacks(name: str, xs: Sequence[Any], axes: Sequence[int]) -> list[Any]:
    """Operands with equal leading axes; ``axes`` says how many trailing axes of each belong to its element."""
    shapes = [shape_of(x) for x in xs]
    stacks = [s[: len(s) - k] for s, k in zip(shapes, axes, strict=True)]
    if all([s == stacks[0] for s in stacks]):
        return list(xs)
    common = broadcast_shapes(name, stacks)
    out = []
    for x, s, k in zip(xs, shapes, axes, strict=True):
        target = (*common, *s[len(s) - k :])
        out.append(x if s == target else broadcast_in_dim(x, target, range(len(target) - len(s), len(target))))
    return out


def batch_leading(bind: Callable[..., Any]) -> Callable[..., Any]:
    """The batching rule of an operation on stacks: one more leading axis."""

    def batch(size: int, args: Sequence[Any], dims: Sequence[int | None], **params: Any) -> Any:
        out = bind(*[batch_axis_to(x, d, size) for x, d in zip(args, dims, strict=True)], **params)
        return out, [0] * len(out) if isinstance(out, (tuple, list)) else 0

    return batch


def real_diagonal(x: Any) -> Any:
    """The real parts of the diagonals."""
    d = diagonal(x)
    return real(d) if aval_of(d).dtype.kind == "c" else d


def separated(rng: np.random.Generator, *shape: int) -> Any:
    """Matrices whose eigenvalues are real and apart from each other: to try operations on."""
    return rng.normal(size=shape) / 4 + np.diag(np.arange(1.0, shape[-1] + 1))
