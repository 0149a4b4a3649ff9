"""What the solvers share: the unknown as one vector, options, and a solution that is differentiated as such."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import tree
from ...control.solves import custom_root
from ...core.avals import aval_of
from ...core.trace import EVAL, STATE
from ...flatten_util import ravel_pytree
from ...numpy.dispatch import operand
from ...ops.promotion import as_dtype
from ...ops.structural import shape_of
from ...transforms.derive import quiet
from ...transforms.flat import function_name
from ...transforms.jacobian import jacfwd

__all__ = ["Problem", "chosen_options", "dense_solve"]


def dense_solve(g: Callable[[Any], Any], y: Any) -> Any:
    """``g(x) = y`` for a linear function of vectors, by its matrix."""
    return np.linalg.solve(jacfwd(g)(np.zeros(shape_of(y), aval_of(y).dtype)), y)


def chosen_options(what: str, defaults: dict[str, Any], options: Any, tolerance: str, tol: Any) -> dict[str, Any]:
    """The defaults, with what the user gives in their place. ``tol`` stands for the option ``tolerance``."""
    given = dict(options or {})
    unknown = [name for name in given if name not in defaults]
    if unknown:
        raise ValueError(f"{what}: unknown option {unknown[0]!r}; there are {', '.join(sorted(defaults))}")
    if tol is not None:
        given.setdefault(tolerance, tol)
    return {**defaults, **given}


class Problem:
    """``fun(x, *args)`` as a function of one real vector."""

    def __init__(self, what: str, fun: Callable[..., Any], x0: Any, args: Any) -> None:
        self.what = what
        self.fun = fun
        self.args = args if isinstance(args, tuple) else (args,)
        leaves, self.tree = tree.flatten(x0)
        if not leaves:
            raise ValueError(f"{what}: x0 holds no arrays")
        for path, x in zip(tree.leaf_paths(self.tree), leaves, strict=True):
            try:
                kind = aval_of(x).dtype.kind
            except TypeError as error:
                raise TypeError(f"{what}: x0{path}: {error}") from None
            if kind == "c":
                raise TypeError(f"{what}: x0{path} is complex; give its real and imaginary part as two unknowns")
        floats = [_float(operand(x)) for x in leaves]
        self.start, self.unravel = ravel_pytree(self.tree.unflatten(floats))
        self.n = shape_of(self.start)[0]
        self.dtype = aval_of(self.start).dtype

    def on_vectors(self, v: Any) -> Any:
        return self.fun(self.unravel(v), *self.args)

    @property
    def __name__(self) -> str:
        return function_name(self.fun)

    def typed(self, x: Any) -> Any:
        """A result of the user's function in the dtype of the unknown."""
        return as_dtype(operand(x), self.dtype)

    def ravel(self, value: Any, role: str) -> Any:
        """A value of the structure of ``x0`` that the user's function ``role`` returned, as a vector."""
        found = tree.structure(value)
        if found != self.tree:
            raise TypeError(
                f"{self.what}: {role} must return the structure of x0: {tree.describe_difference(self.tree, found)}"
            )
        wanted = [shape_of(x) for x in tree.leaves(self.unravel(self.start))]
        shapes = [shape_of(operand(x)) for x in tree.leaves(value)]
        if wanted != shapes:
            raise ValueError(f"{self.what}: {role} must return the shapes of x0, {wanted}; it returned {shapes}")
        return self.typed(ravel_pytree(value)[0])

    def solved(
        self,
        condition: Callable[[Any], Any],
        solve: Callable[[Any, Any], tuple[Any, Any]],
        tangent_solve: Callable[[Any, Any], Any],
    ) -> tuple[Any, Any, bool]:
        """``solve``'s results, and whether they are traced: then they are differentiated as a root of ``condition``."""
        traced = STATE.trace is not EVAL
        with quiet():
            if not traced:
                return *solve(condition, self.start), False
            x, rest = custom_root(condition, self.start, solve, tangent_solve, has_aux=True)
            return x, rest, True


def _float(x: Any) -> Any:
    return x if aval_of(x).dtype.kind == "f" else as_dtype(x, np.dtype(np.float64))
