"""``minimize``: quasi-Newton methods, with the inverse Hessian as a matrix (BFGS) or as the last few steps (L-BFGS)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...control.iterate import fori_loop, while_loop
from ...control.solves import custom_linear_solve
from ...core.avals import aval_of
from ...numpy.dispatch import operand
from ...transforms.derive import grad
from ...transforms.derive import value_and_grad as both
from ...transforms.flat import check_callable
from ..sparse.linalg import cg
from .line_search import line_search
from .problem import Problem, chosen_options, dense_solve
from .results import CONVERGED, LIMIT, NOT_FINITE, RUNNING, STUCK, OptimizeResults

__all__ = ["minimize"]


class Matrix:
    """The inverse Hessian as a matrix, updated as Broyden, Fletcher, Goldfarb and Shanno do."""

    def __init__(self, n: int, dtype: np.dtype[Any]) -> None:
        self.n = n
        self.dtype = dtype

    def start(self) -> Any:
        return np.eye(self.n, dtype=self.dtype)

    def apply(self, h: Any, g: Any) -> Any:
        return h @ g

    def update(self, h: Any, s: Any, y: Any, fresh: Any) -> Any:
        sy = np.vdot(s, y)
        h = np.where(fresh, (sy / np.vdot(y, y)) * h, h)  # the scale of the problem, known from the first step
        hy = h @ y
        cross = np.outer(s, hy)
        return h - (cross + cross.T) / sy + ((sy + np.vdot(y, hy)) / sy**2) * np.outer(s, s)

    def inverse(self, h: Any) -> Any:
        return h


class _Steps(NamedTuple):
    s: Any
    y: Any
    rho: Any
    scale: Any


class History:
    """The inverse Hessian as the last ``m`` steps and changes of the gradient (two-loop recursion)."""

    def __init__(self, n: int, dtype: np.dtype[Any], m: int) -> None:
        self.n = n
        self.m = m
        self.dtype = dtype

    def start(self) -> _Steps:
        empty = np.zeros((self.m, self.n), self.dtype)
        return _Steps(empty, empty, np.zeros(self.m, self.dtype), self.dtype.type(1))

    def apply(self, h: _Steps, g: Any) -> Any:
        m = self.m

        def back(i: Any, state: Any) -> Any:
            q, alphas = state
            k = m - 1 - i
            alpha = h.rho[k] * np.vdot(h.s[k], q)  # steps that are not there have rho = 0
            return q - alpha * h.y[k], alphas + alpha * (np.arange(m) == k)

        def forth(k: Any, r: Any) -> Any:
            return r + h.s[k] * (alphas[k] - h.rho[k] * np.vdot(h.y[k], r))

        q, alphas = fori_loop(0, m, back, (g, np.zeros(m, self.dtype)))
        return fori_loop(0, m, forth, h.scale * q)

    def update(self, h: _Steps, s: Any, y: Any, fresh: Any) -> _Steps:
        sy = np.vdot(s, y)
        latest = lambda rows, row: np.concatenate([rows[1:], row[None]])  # noqa: E731
        return _Steps(latest(h.s, s), latest(h.y, y), latest(h.rho, 1 / sy), sy / np.vdot(y, y))

    def inverse(self, h: _Steps) -> None:
        return None


class _State(NamedTuple):
    x: Any
    f: Any
    g: Any
    h: Any
    fresh: Any  # the memory is empty: the direction is the gradient's
    status: Any
    nit: Any
    nfev: Any


def _where(which: Any, x: Any, y: Any) -> Any:
    """As ``np.where``, of arrays or tuples of them."""
    if isinstance(x, tuple):
        return type(x)(*[np.where(which, a, b) for a, b in zip(x, y, strict=True)])
    return np.where(which, x, y)


def quasi_newton(
    value_and_grad: Callable[[Any], tuple[Any, Any]],
    x: Any,
    memory: Matrix | History,
    gtol: Any,
    ftol: Any,
    maxiter: Any,
    maxls: Any,
) -> _State:
    """Minimise along quasi-Newton directions. When a search fails, the memory is dropped before giving up."""
    eps = np.finfo(x.dtype).eps

    def status_of(g: Any, nit: Any) -> Any:
        return np.where(np.max(np.abs(g), initial=0) <= gtol, CONVERGED, np.where(nit < maxiter, RUNNING, LIMIT))

    def step(state: _State) -> _State:
        x, f, g, h, fresh, _, nit, nfev = state
        p = -memory.apply(h, g)
        p = np.where(np.vdot(p, g) < 0, p, -g)
        found = line_search(value_and_grad, x, f, g, p, np.where(fresh, 1 / np.maximum(np.linalg.norm(g), 1), 1), maxls)
        s, y = found.a * p, found.g - g
        curved = found.ok & (np.vdot(s, y) > eps * np.linalg.norm(s) * np.linalg.norm(y))
        h = _where(found.ok, _where(curved, memory.update(h, s, y, fresh), h), memory.start())
        still = found.ok & (f - found.f <= ftol * np.maximum(np.maximum(np.abs(f), np.abs(found.f)), 1))
        status = status_of(found.g, nit + 1)
        status = np.where(~found.ok & fresh, STUCK, np.where(still & (ftol > 0), CONVERGED, status))
        fresh = np.where(found.ok, fresh & ~curved, True)
        x = np.where(found.ok, x + s, x)
        return _State(x, found.f, found.g, h, fresh, status, nit + 1, nfev + found.n)

    f, g = value_and_grad(x)
    finite = np.isfinite(f) & np.all(np.isfinite(g))
    status = np.where(finite, status_of(g, 0), NOT_FINITE)
    begin = _State(x, f, g, memory.start(), np.bool_(True), status, 0, 1)
    return while_loop(lambda s: s.status == RUNNING, step, begin)


_BFGS = {"maxiter": None, "gtol": None, "ftol": 0.0, "maxls": 30}
_OPTIONS = {"BFGS": _BFGS, "L-BFGS": {**_BFGS, "maxcor": 10}}
_NAMES = {
    "bfgs": "BFGS",
    "l-bfgs": "L-BFGS",
    "lbfgs": "L-BFGS",
    "l-bfgs-b": "L-BFGS",
    "l-bfgs-experimental-do-not-rely-on-this": "L-BFGS",
}


def _check_gradient(jac: Any) -> None:
    if not callable(jac):
        raise TypeError(
            f"minimize: jac must be a function jac(x, *args) or None, found {jac!r}. The gradient is derived from fun, "
            "which returns the value alone: leave jac out"
        )


def minimize(
    fun: Callable[..., Any],
    x0: Any,
    args: Any = (),
    method: str = "BFGS",
    jac: Callable[..., Any] | None = None,
    tol: Any = None,
    options: dict[str, Any] | None = None,
) -> OptimizeResults:
    """A local minimum of a smooth function.

    Args:
        fun: ``fun(x, *args)`` returns a real scalar.
        x0: where to start: a floating-point array of any shape, or a pytree of them.
        args: further arguments, pytrees of arrays. The minimum may be differentiated with respect to them, and to what
            ``fun`` captures; not with respect to ``x0``.
        method: ``"BFGS"`` keeps a matrix of the size of ``x`` squared; ``"L-BFGS"`` only the last steps, for many
            unknowns. (``"L-BFGS-B"`` is taken for the latter: there are no bounds.)
        jac: ``jac(x, *args)``, if the gradient is to be another one than that of `grad`.
        tol: stands for the option ``gtol``.
        options: ``gtol``, largest element of the gradient at the minimum (by default 1e-5, or what single precision
            allows); ``maxiter``, by default 200 times the number of unknowns (at least 1000); ``maxls``, evaluations in
            one line search, 30; ``ftol``, relative change of the value below which a step is the last one, 0;
            ``maxcor``, the number of steps that L-BFGS keeps, 10.

    Returns:
        `OptimizeResults`, a pytree, with ``x``, ``success``, ``status``, ``fun`` and SciPy's other fields; ``message``
        says what ``status`` means. ``x`` and ``fun`` have derivatives: those of an exact minimum, whatever the method
        did. They solve a system with the Hessian, as a matrix for BFGS, by conjugate gradients for L-BFGS (NaN where
        these do not converge).

    Raises:
        TypeError, ValueError: ``fun`` returns no real scalar, ``x0`` is not real, an unknown method or option.

    Steps satisfy the strong Wolfe conditions.

    >>> import numpy as np
    >>> rosenbrock = lambda x: np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    >>> result = minimize(rosenbrock, np.array([-1.2, 1.0]))
    >>> np.round(result.x, 5), bool(result.success), result.message
    (array([1., 1.]), True, 'The gradient is zero within gtol.')
    """
    check_callable(fun, "minimize")
    kind = _NAMES.get(str(method).lower())
    if kind is None:
        raise ValueError(f"minimize: method must be 'BFGS' or 'L-BFGS', found {method!r}")
    if jac is not None:
        _check_gradient(jac)
    problem = Problem("minimize", fun, x0, args)
    given = chosen_options("minimize", _OPTIONS[kind], options, "gtol", tol)
    n, dtype = problem.n, problem.dtype
    gtol = max(1e-5, float(np.finfo(dtype).eps) ** 0.5) if given["gtol"] is None else given["gtol"]
    maxiter = max(200 * n, 1000) if given["maxiter"] is None else given["maxiter"]
    memory = Matrix(n, dtype) if kind == "BFGS" else History(n, dtype, int(given["maxcor"]))

    def objective(v: Any) -> Any:
        value = operand(problem.on_vectors(v))
        aval = aval_of(value)
        if aval.shape or aval.dtype.kind != "f":
            raise TypeError(
                f"minimize: {problem.__name__} must return a real scalar, found {aval.short()}: reduce it, by "
                "np.sum or np.mean for instance"
            )
        return value

    def gradient(v: Any) -> Any:
        return grad(objective)(v) if jac is None else problem.ravel(jac(problem.unravel(v), *problem.args), "jac")

    def value_and_gradient(v: Any) -> tuple[Any, Any]:
        value, g = both(objective)(v) if jac is None else (objective(v), gradient(v))
        return problem.typed(value), g

    def solve(_: Any, v: Any) -> tuple[Any, Any]:
        s = quasi_newton(value_and_gradient, v, memory, gtol, given["ftol"], maxiter, given["maxls"])
        return s.x, (s.status, s.f, s.g, memory.inverse(s.h), s.nfev, s.nit)

    x, (status, f, g, inverse, nfev, nit), traced = problem.solved(
        gradient, solve, dense_solve if kind == "BFGS" else _conjugate_gradients
    )
    return OptimizeResults(
        x=problem.unravel(x),
        success=status == CONVERGED,
        status=status,
        fun=objective(x) if traced else f,
        jac=problem.unravel(g),
        hess_inv=inverse,
        nfev=nfev,
        njev=nfev,
        nit=nit,
    )


def _conjugate_gradients(g: Callable[[Any], Any], y: Any) -> Any:
    """``g(x) = y`` for a function with a symmetric matrix; NaN where there is no convergence."""

    def solve(g: Callable[[Any], Any], y: Any) -> Any:
        x, info = cg(g, y, tol=float(np.finfo(y.dtype).eps) ** 0.75)
        return np.where(info == 0, x, np.nan)

    return custom_linear_solve(g, y, solve, symmetric=True)
