"""Factorisations of matrices of a few rows, written out element by element: for loops that are one kernel.

Pivoting is a choice of every element, as in ``codegen.lanes``: no row moves, no branch is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .register_values import Elements, Unsupported

__all__ = ["MATRIX_ROUTINES"]

_INT32 = np.dtype(np.int32)
_BOOL = np.dtype(bool)


class _Arithmetic:
    """Operations on names of one dtype."""

    def __init__(self, w: Any, dtype: np.dtype[Any]) -> None:
        if dtype.kind != "f" or dtype.itemsize < 4:
            raise Unsupported
        self.w, self.dtype = w, dtype

    def __call__(self, fn: str, *args: str) -> str:
        result: str = self.w.scalar(fn, args, [self.dtype] * len(args), self.dtype)
        return result

    def greater(self, x: str, y: str) -> str:
        return str(self.w.scalar("gt", [x, y], [self.dtype, self.dtype], _BOOL))

    def select(self, c: str, x: str, y: str, dtype: np.dtype[Any] | None = None) -> str:
        dtype = self.dtype if dtype is None else dtype
        return x if x == y else str(self.w.scalar("select", [c, x, y], [_BOOL, dtype, dtype], dtype))

    def integer(self, k: int) -> str:
        return str(self.w.constant(_INT32.type(k), _INT32))

    def same(self, x: str, k: int) -> str:
        return str(self.w.scalar("eq", [x, self.integer(k)], [_INT32, _INT32], _BOOL))

    def unless_zero(self, x: str) -> str:
        """``x``, or 1 for 0: below a pivot that is zero there are zeros, which stay."""
        zero, one = (str(self.w.constant(self.dtype.type(k), self.dtype)) for k in (0, 1))
        return self.select(str(self.w.scalar("eq", [x, zero], [self.dtype, self.dtype], _BOOL)), one, x)

    def without(self, x: str, y: str, z: str) -> str:
        """``x - y * z``."""
        return self("sub", x, self("mul", y, z))


def _grid(elements: Elements, columns: int) -> list[list[str]]:
    return [list(elements[k : k + columns]) for k in range(0, len(elements), columns)]


def _flat(rows: Sequence[Sequence[str]]) -> Elements:
    return tuple([x for row in rows for x in row])


def _lu(w: Any, eqn: Any, args: Sequence[Elements]) -> list[Elements]:
    """Gaussian elimination: of each column the largest element, the first of equal ones, is brought to its place."""
    shape, dtype = eqn.invars[0].aval.shape, eqn.invars[0].aval.dtype
    if len(shape) != 2:
        raise Unsupported
    m, n = shape
    do = _Arithmetic(w, dtype)
    a = _grid(args[0], n)
    order = [do.integer(k) for k in range(m)]
    pivots = []
    for j in range(min(m, n)):
        best, place = do("abs", a[j][j]), do.integer(j)
        for i in range(j + 1, m):
            size = do("abs", a[i][j])
            larger = do.greater(size, best)
            best = do.select(larger, size, best)
            place = do.select(larger, do.integer(i), place, _INT32)
        pivots.append(place)
        for i in range(j + 1, m):
            chosen = do.same(place, i)
            upper, lower = a[j], a[i]
            a[j] = [do.select(chosen, y, x) for x, y in zip(upper, lower, strict=True)]
            a[i] = [do.select(chosen, x, y) for x, y in zip(upper, lower, strict=True)]
            first, second = order[j], order[i]
            order[j] = do.select(chosen, second, first, _INT32)
            order[i] = do.select(chosen, first, second, _INT32)
        pivot = do.unless_zero(a[j][j])
        for i in range(j + 1, m):
            factor = do("div", a[i][j], pivot)
            a[i][j] = factor
            for k in range(j + 1, n):
                a[i][k] = do.without(a[i][k], factor, a[j][k])
    return [_flat(a), tuple(pivots), tuple(order)]


def _linear_solve(w: Any, eqn: Any, args: Sequence[Elements]) -> list[Elements]:
    """Two triangular systems from the factors of `_lu`, with rows of the right-hand side, or the result, exchanged."""
    _, factors, order, right = args
    shape, dtype = eqn.invars[3].aval.shape, eqn.invars[3].aval.dtype
    if len(shape) != 2:
        raise Unsupported
    n, columns = shape
    do = _Arithmetic(w, dtype)
    f, b = _grid(factors, n), _grid(right, columns)
    transpose = eqn.params["transpose"]
    solved = []
    for c in range(columns):
        column = [row[c] for row in b]
        if not transpose:
            x = [_chosen(do, order[i], column) for i in range(n)]
            for i in range(n):
                for k in range(i):
                    x[i] = do.without(x[i], f[i][k], x[k])
            for i in reversed(range(n)):
                for k in range(i + 1, n):
                    x[i] = do.without(x[i], f[i][k], x[k])
                x[i] = do("div", x[i], f[i][i])
        else:
            x = column
            for i in range(n):
                for k in range(i):
                    x[i] = do.without(x[i], f[k][i], x[k])
                x[i] = do("div", x[i], f[i][i])
            for i in reversed(range(n)):
                for k in range(i + 1, n):
                    x[i] = do.without(x[i], f[k][i], x[k])
            x = [_placed(do, order, x, i) for i in range(n)]
        solved.append(x)
    return [tuple([solved[c][i] for i in range(n) for c in range(columns)])]


def _chosen(do: _Arithmetic, index: str, choices: Sequence[str]) -> str:
    found = choices[0]
    for k, x in enumerate(choices[1:], 1):
        found = do.select(do.same(index, k), x, found)
    return found


def _placed(do: _Arithmetic, order: Elements, values: Sequence[str], row: int) -> str:
    """The value whose row in the order is ``row``."""
    found = values[0]
    for index, x in zip(order[1:], values[1:], strict=True):
        found = do.select(do.same(index, row), x, found)
    return found


MATRIX_ROUTINES = {"lu": _lu, "linear_solve": _linear_solve}
"""Library routines by name."""
