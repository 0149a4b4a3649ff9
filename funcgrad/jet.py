"""Taylor mode: derivatives of any order along a curve, in one sweep, under the names of ``jax.experimental.jet``.

>>> import numpy as np
>>> jet(np.exp, (0.0,), ([2.0, 0.0, 0.0],))         # the derivatives of exp(2 t) at 0
(np.float64(1.0), [np.float64(2.0), np.float64(4.0), np.float64(8.0)])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import tree
from .control import taylor as _control_rules
from .core.avals import aval_of, tangent_dtype
from .core.primitive import ZERO
from .ops.elementwise import mul
from .ops.promotion import as_dtype
from .transforms.derive import quiet
from .transforms.flat import FlatFunction, check_arguments, check_callable, own_all
from .transforms.taylor import Series, jet_flat, terms_of

__all__ = ["jet"]

_ = _control_rules  # imported for what it registers


def jet(
    fun: Callable[..., Any], primals: Sequence[Any], series: Sequence[Any], factorial_scaled: bool = True
) -> tuple[Any, Any]:
    """The value and the derivatives of ``fun`` along a curve.

    With ``x(t)`` the curve that begins at ``primals`` with the derivatives ``series``, these are the derivatives of
    ``fun(x(t))`` at ``t = 0``.

    Args:
        fun: a function of ``len(primals)`` arguments.
        primals: a tuple or list of the arguments, pytrees of arrays.
        series: for each of them a list of as many terms, the first, second, .. derivative of the argument: pytrees as
            the argument is, of the same shapes and dtypes.
        factorial_scaled: terms are derivatives. Otherwise they are the coefficients of the Taylor series, on both
            sides: derivatives divided by factorials.

    Returns:
        ``fun(*primals)``, and the same structure with a list of terms in the place of each leaf.

    Raises:
        TypeError, ValueError: lists of different length, or terms of another structure, shape or dtype.

    >>> y, (dy, d2y) = jet(lambda x: x**3, (2.0,), ([1.0, 0.0],))
    >>> float(y), float(dy), float(d2y)
    (8.0, 12.0, 12.0)
    """
    check_callable(fun, "jet")
    if not isinstance(primals, (tuple, list)) or not isinstance(series, (tuple, list)):
        raise TypeError(
            "jet: primals and series must be tuples or lists, one entry per argument of the function; found "
            f"{type(primals).__name__} and {type(series).__name__}"
        )
    if len(primals) != len(series):
        raise ValueError(f"jet: there are {len(primals)} primals and {len(series)} series; give a series for each")
    leaves, in_tree = tree.flatten((tuple(primals), {}))
    check_arguments(fun, primals, {}, leaves, "jet")
    order = _order(series)
    terms = [t for k, (p, s) in enumerate(zip(primals, series, strict=True)) for t in _columns(p, s, k)]
    scale = [math.factorial(k + 1) for k in range(order)]
    if not factorial_scaled:
        terms = [[_scaled(t, n, False) for t, n in zip(s, scale, strict=True)] for s in terms]
    flat = FlatFunction(fun, in_tree)
    with quiet():
        outs, found = jet_flat(flat, leaves, terms, order, user=fun)
        found = [terms_of(y, s) for y, s in zip(outs, found, strict=True)]
        if not factorial_scaled:
            found = [[_scaled(t, n, True) for t, n in zip(s, scale, strict=True)] for s in found]
    owned = own_all([*outs, *[t for s in found for t in s]], [*leaves, *[t for s in terms for t in s if t is not ZERO]])
    rest = iter(owned[len(outs) :])
    columns = [[next(rest) for _ in range(order)] for _ in outs]
    return flat.out_tree.unflatten(owned[: len(outs)]), flat.out_tree.unflatten(columns)


def _order(series: Sequence[Any]) -> int:
    for k, s in enumerate(series):
        if not isinstance(s, (tuple, list)):
            raise TypeError(
                f"jet: series[{k}] must be a list of terms, the derivatives of argument {k}; found {type(s).__name__}"
            )
    lengths = {len(s) for s in series}
    if len(lengths) != 1 or 0 in lengths:
        found = ", ".join([str(len(s)) for s in series])
        raise ValueError(f"jet: all series must have the same number of terms, at least one; found {found or 'none'}")
    return int(lengths.pop())


def _columns(primal: Any, series: Sequence[Any], position: int) -> list[Series]:
    """For each leaf of an argument its terms, checked."""
    leaves, treedef = tree.flatten(primal)
    columns: list[Series] = [[] for _ in leaves]
    for n, term in enumerate(series):
        where = f"jet: series[{position}][{n}]"
        given, found = tree.flatten(term)
        if found != treedef:
            raise TypeError(f"{where} must have the structure of primals[{position}]: "
                            + tree.describe_difference(treedef, found))  # fmt: skip
        for path, x, t, column in zip(tree.leaf_paths(treedef), leaves, given, columns, strict=True):
            column.append(_checked(x, t, f"{where}{path}"))
    return columns


def _checked(x: Any, t: Any, where: str) -> Any:
    aval = aval_of(x)
    if aval.dtype.kind not in "fc":
        if isinstance(t, np.ndarray) and t.dtype == tangent_dtype(aval.dtype):
            return ZERO
        raise TypeError(
            f"{where}: the argument has dtype {aval.dtype.name}, which has no derivatives; give float0 zeros, or "
            "capture the argument in the function"
        )
    try:
        given = aval_of(t)
    except TypeError as error:
        raise TypeError(f"{where}: {error}") from None
    if given.shape != aval.shape:
        raise ValueError(f"{where} has shape {given.shape}, but its primal has shape {aval.shape}")
    if given.dtype != aval.dtype and not given.weak_type:
        raise TypeError(
            f"{where} has dtype {given.dtype.name}, but its primal has dtype {aval.dtype.name}: write "
            f".astype('{aval.dtype.name}')"
        )
    return as_dtype(t, aval.dtype)


def _scaled(term: Any, factorial: int, down: bool) -> Any:
    if term is ZERO or factorial == 1:
        return term
    return mul(term, aval_of(term).dtype.type(1 / factorial if down else factorial))
