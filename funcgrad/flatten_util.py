"""A pytree as one vector, for optimizers and samplers that want one.

>>> flat, unravel = ravel_pytree({"b": 1.0, "w": np.array([2.0, 3.0])})
>>> flat
array([1., 2., 3.])
>>> unravel(flat * 10)
{'b': np.float64(10.0), 'w': array([20., 30.])}
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from . import tree
from .core.avals import aval_of
from .numpy.dispatch import operand
from .ops.promotion import as_dtype, result_type
from .ops.shape import slice_in_dim
from .ops.structural import reshape
from .util import prod

__all__ = ["ravel_pytree"]


def ravel_pytree(pytree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """All leaves as one vector of their common dtype, and the function that undoes it.

    Args:
        pytree: a pytree of arrays and scalars.

    Returns:
        The vector (of float64 if there are no leaves), and ``unravel``: from a vector of that length and dtype back to
        a pytree of the same structure, shapes and dtypes. It raises ValueError for another shape and TypeError for
        another dtype.
    """
    leaves, treedef = tree.flatten(pytree)
    flat, unravel = _ravel_list(leaves)
    return flat, functools.partial(_unravel_tree, treedef, unravel)


def _unravel_tree(treedef: Any, unravel: Callable[[Any], list[Any]], flat: Any) -> Any:
    return tree.unflatten(treedef, unravel(flat))


def _ravel_list(leaves: list[Any]) -> tuple[Any, Callable[[Any], list[Any]]]:
    if not leaves:
        return np.zeros(0), functools.partial(_unravel_list, [], np.dtype(np.float64))
    leaves = [operand(x) for x in leaves]
    avals = [aval_of(x) for x in leaves]
    common = result_type(*[a.dtype.type(0) for a in avals])
    parts = [reshape(as_dtype(x, common), (a.size,)) for x, a in zip(leaves, avals, strict=True)]
    return np.concatenate(parts), functools.partial(_unravel_list, avals, common)


def _unravel_list(avals: list[Any], common: np.dtype[Any], flat: Any) -> list[Any]:
    flat = operand(flat)
    found = aval_of(flat)
    total = sum(a.size for a in avals)
    if found.shape != (total,):
        raise ValueError(f"unravel was given an array of shape {found.shape}, but the pytree has {total} elements: "
                         f"expected shape {(total,)}")  # fmt: skip
    if found.dtype != common:
        raise TypeError(f"unravel was given an array of dtype {found.dtype.name}, but expected {common.name}; "
                        f"convert it with .astype({common.name!r})")  # fmt: skip
    leaves, start = [], 0
    for a in avals:
        part = reshape(slice_in_dim(flat, start, start + a.size), a.shape)
        part = part if a.dtype == common else as_dtype(part, a.dtype)
        leaves.append(part.copy() if isinstance(part, np.ndarray) and prod(a.shape) else part)
        start += a.size
    return leaves
