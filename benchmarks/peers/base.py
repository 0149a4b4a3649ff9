"""The face that all libraries are given: arrays, derivatives, a compiler and loops under one set of names.

A workload is written once, against this face. What a library cannot do raises `Unsupported` with the reason, and the
workload is left out for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

__all__ = ["EagerLoops", "Function", "Named", "Peer", "Unsupported", "tree_map"]

Function = Callable[..., Any]


class Unsupported(Exception):
    """This library does not take part; the text says why."""


def tree_map(f: Function, tree: Any) -> Any:
    """``f`` of each leaf of nested dicts, lists and tuples."""
    if isinstance(tree, dict):
        return {k: tree_map(f, v) for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(tree_map(f, v) for v in tree)
    return f(tree)


class Named:
    """A namespace in which what is missing says so by `Unsupported`; ``own`` names go before the library's."""

    def __init__(self, title: str, library: Any, **own: Any) -> None:
        self._title, self._library = title, library
        self.__dict__.update(own)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self._library, name, None)
        if found is None:
            raise Unsupported(f"{self._title} has no {name}")
        return found


class EagerLoops:
    """``lax`` for libraries that run line by line: loops are Python's, as their users write them."""

    def __init__(self, xp: Any) -> None:
        self._xp = xp

    def scan(self, f: Function, init: Any, xs: Any, length: int | None = None) -> Any:
        count = length if xs is None else len(first_leaf(xs))
        carry, ys = init, []
        for k in range(count or 0):
            carry, y = f(carry, None if xs is None else tree_map(lambda x, k=k: x[k], xs))
            ys.append(y)
        return carry, self._stack(ys)

    def _stack(self, ys: list[Any]) -> Any:
        first = ys[0]
        if first is None:
            return None
        if isinstance(first, (tuple, list)):
            return type(first)(self._stack([y[k] for y in ys]) for k in range(len(first)))
        return self._xp.stack(ys)

    @staticmethod
    def fori_loop(lower: int, upper: int, body: Function, init: Any) -> Any:
        for k in range(lower, upper):
            init = body(k, init)
        return init

    @staticmethod
    def while_loop(cond: Function, body: Function, init: Any) -> Any:
        while cond(init):
            init = body(init)
        return init

    @staticmethod
    def cond(pred: Any, true: Function, false: Function, *operands: Any) -> Any:
        return true(*operands) if pred else false(*operands)


def first_leaf(tree: Any) -> Any:
    if isinstance(tree, dict):
        return first_leaf(next(iter(tree.values())))
    if isinstance(tree, (list, tuple)):
        return first_leaf(tree[0])
    return tree


class Peer:
    """One library.

    ``np`` is its NumPy-like namespace, ``special`` has ``erf``, ``expit`` and ``logsumexp``, ``lax`` the loops.
    ``arguments`` turns NumPy arrays into its own, outside the clock; ``wait`` makes an asynchronous result be there,
    inside it (None where results are there at once).
    """

    name = ""
    title = ""
    version = ""
    np: Any = None
    special: Any = None
    lax: Any = None
    scipy: Any = None
    wait: Function | None = None

    def unsupported(self, what: str) -> NoReturn:
        raise Unsupported(f"{self.title} has no {what}")

    def has(self, path: str) -> bool:
        """Whether ``numpy.linalg.cholesky``, ``lax.scan`` and their like are there."""
        place: Any = {"numpy": self.np, "special": self.special, "lax": self.lax, "scipy": self.scipy}[
            path.split(".")[0]
        ]
        try:
            for name in path.split(".")[1:]:
                place = getattr(place, name)
        except (Unsupported, AttributeError):
            return False
        return place is not None

    # transforms
    def jit(self, f: Function) -> Function:
        return f

    def grad(self, f: Function) -> Function:
        self.unsupported("derivatives")

    def value_and_grad(self, f: Function) -> Function:
        self.unsupported("derivatives")

    def hessian(self, f: Function) -> Function:
        self.unsupported("second derivatives")

    def hvp(self, f: Function) -> Function:
        """``(x, v)`` to the Hessian of ``f`` at ``x`` times ``v``."""
        self.unsupported("second derivatives")

    def vmap(self, f: Function) -> Function:
        self.unsupported("vmap")

    # what NumPy's names do not cover
    def add_at(self, x: Any, index: Any, value: Any) -> Any:
        """A new array: ``x`` with ``value`` added at ``index``, more than once where an element is named repeatedly."""
        return x.at[index].add(value)

    def set_at(self, x: Any, index: Any, value: Any) -> Any:
        return x.at[index].set(value)

    def sigmoid(self, x: Any) -> Any:
        """Written so that no exponential overflows."""
        return 0.5 * (self.np.tanh(0.5 * x) + 1.0)

    def cast(self, x: Any, dtype: str) -> Any:
        return x.astype(dtype)

    # arrays in, arrays out
    def arguments(self, tree: Any) -> Any:
        return tree

    def to_numpy(self, tree: Any) -> Any:
        return tree_map(np.asarray, tree)

    def forget(self) -> None:
        """Drop what has been compiled, between workloads."""
