"""What solvers return: tuples with names, which are pytrees and so pass through every transformation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...core.avals import aval_of

__all__ = ["OptimizeResults", "RootResults", "RootScalarResults"]

CONVERGED, LIMIT, STUCK, NOT_FINITE = 0, 1, 2, 3
RUNNING = -1


def _text(status: Any, texts: dict[int, str]) -> str:
    if hasattr(status, "aval") or aval_of(status).shape:
        raise TypeError("message wants one concrete status; inside jit and vmap look at status, which is a number")
    return texts[int(np.asarray(status))]


class OptimizeResults(NamedTuple):
    """The result of `minimize`."""

    x: Any
    """The minimum, of the structure of ``x0``."""
    success: Any
    """Whether the gradient's largest element is at most ``gtol``."""
    status: Any
    """0: converged. 1: ``maxiter`` was reached. 2: the line search found no lower point, neither along the direction
    of the method nor along the gradient: the precision of the function is exhausted, or its gradient wrong. 3: the
    function or its gradient is not finite where it starts."""
    fun: Any
    """The value at ``x``."""
    jac: Any
    """The gradient at ``x``, of its structure. It has no derivative."""
    hess_inv: Any
    """The approximation of the inverse Hessian over all elements of ``x`` (of BFGS; else None). No derivative."""
    nfev: Any
    """How often the function was evaluated, each time with its gradient."""
    njev: Any
    """The same number, under SciPy's other name."""
    nit: Any
    """The number of iterations."""

    @property
    def message(self) -> str:
        """What ``status`` means."""
        return _text(
            self.status,
            {
                CONVERGED: "The gradient is zero within gtol.",
                LIMIT: "The largest number of iterations was reached.",
                STUCK: "The line search found no lower point: the function's precision is exhausted.",
                NOT_FINITE: "The function or its gradient is not finite at x0.",
            },
        )


class RootResults(NamedTuple):
    """The result of `root`."""

    x: Any
    """The root, of the structure of ``x0``."""
    success: Any
    """Whether the values are zero within ``ftol``, or the next Newton step is below ``xtol`` of ``x``."""
    status: Any
    """0: converged. 1: ``maxiter`` was reached. 2: no step makes the values smaller: a minimum of their norm that is
    no root. 3: the values or the Jacobian are not finite where it starts."""
    fun: Any
    """The values at ``x``. They have no derivative."""
    jac: Any
    """The Jacobian matrix at ``x``, over all elements. It has no derivative."""
    nfev: Any
    """How often the function was evaluated."""
    njev: Any
    """How often its Jacobian was."""
    nit: Any
    """The number of iterations."""

    @property
    def message(self) -> str:
        """What ``status`` means."""
        return _text(
            self.status,
            {
                CONVERGED: "The values are zero within ftol, or x is exact within xtol.",
                LIMIT: "The largest number of iterations was reached.",
                STUCK: "No step makes the values smaller: x is a minimum of their norm, or precision is exhausted.",
                NOT_FINITE: "The function or its Jacobian is not finite at x0.",
            },
        )


class RootScalarResults(NamedTuple):
    """The result of `root_scalar`."""

    root: Any
    """The root; NaN where the bracket holds no change of sign."""
    converged: Any
    """Whether the root is exact within ``xtol + rtol * abs(root)``."""
    iterations: Any
    """The number of iterations."""
    function_calls: Any
    """How often the function was evaluated."""
    flag: Any
    """0: converged. 1: ``maxiter`` was reached. 2: no change of sign in the bracket, or a zero derivative. 3: a value
    is not finite."""
