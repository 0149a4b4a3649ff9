"""``root``: Powell's hybrid method, of steepest descent and Newton steps within a trust region, with exact Jacobians.

The region is a ball in variables that are scaled by the columns of the Jacobian, as in MINPACK's ``hybrj`` (Moré,
Garbow, Hillstrom, 1980); other than there the Jacobian is evaluated at every new point, so that convergence is
quadratic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ... import lax_linalg as linalg
from ...control.iterate import while_loop
from ...ops.structural import shape_of
from ...transforms.flat import check_callable
from ...transforms.jacobian import jacfwd
from .problem import Problem, chosen_options, dense_solve
from .results import CONVERGED, LIMIT, NOT_FINITE, RUNNING, STUCK, RootResults

__all__ = ["root"]


class _State(NamedTuple):
    x: Any
    f: Any
    j: Any
    scale: Any
    radius: Any
    status: Any
    nit: Any
    nfev: Any
    njev: Any


def _dogleg(newton: Any, g: Any, jg: Any, radius: Any) -> tuple[Any, Any]:
    """The step of length at most ``radius``, from the minimum along the gradient ``g`` towards the Newton step, and
    whether that is the Newton step itself. ``jg``: the Jacobian times ``g``."""
    size = np.linalg.norm(g)
    downhill = -g / np.where(size > 0, size, 1)
    cauchy = -(size**2) / np.where(size > 0, np.vdot(jg, jg), 1) * g
    rest = newton - cauchy
    a, b, c = np.vdot(rest, rest), np.vdot(cauchy, rest), np.vdot(cauchy, cauchy) - radius**2
    share = -c / (b + np.sqrt(np.maximum(b**2 - a * c, 0)))
    fits = np.linalg.norm(newton) <= radius  # False of NaN, where the Jacobian is singular
    usable = np.isfinite(share) & np.all(np.isfinite(newton))
    edge = np.where(np.linalg.norm(cauchy) < radius, np.where(usable, cauchy + share * rest, cauchy), radius * downhill)
    return np.where(fits, newton, edge), fits


def _newton_step(j: Any, f: Any) -> Any:
    """Minus the solution of ``j z = f``; NaN where the Jacobian is singular, which np.linalg.solve may not be given."""
    lu, _, permutation = linalg.lu(j)
    singular = np.any(np.diagonal(lu) == 0)
    lu = np.where(singular, np.eye(shape_of(j)[0], dtype=f.dtype), lu)
    y = linalg.triangular_solve(lu, f[permutation], left_side=True, lower=True, unit_diagonal=True)
    return np.where(singular, np.nan, -linalg.triangular_solve(lu, y, left_side=True))


def hybrid(fun: Callable[[Any], Any], x: Any, ftol: Any, xtol: Any, maxiter: Any) -> _State:
    jacobian = jacfwd(fun)
    eps = np.finfo(x.dtype).eps

    def status_of(f: Any, nit: Any) -> Any:
        return np.where(np.max(np.abs(f), initial=0) <= ftol, CONVERGED, np.where(nit < maxiter, RUNNING, LIMIT))

    def columns(j: Any) -> Any:
        return np.sqrt(np.sum(j**2, axis=0))

    def step(s: _State) -> _State:
        scaled = s.j / s.scale
        newton = _newton_step(s.j, s.f) * s.scale
        g = s.f @ scaled
        z, is_newton = _dogleg(newton, g, scaled @ g, s.radius)
        length = np.linalg.norm(z)
        x = s.x + z / s.scale
        f = fun(x)
        before = np.vdot(s.f, s.f)
        model = s.f + scaled @ z
        ratio = (before - np.vdot(f, f)) / (before - np.vdot(model, model))
        taken = ratio > 1e-4  # False of NaN
        radius = np.where(
            ratio >= 0.25,
            np.where((ratio > 0.75) | is_newton, np.maximum(s.radius, 2 * length), s.radius),
            0.25 * length,
        )
        here = np.linalg.norm(s.scale * s.x)
        exact = is_newton & (length <= xtol * here)
        x, f = np.where(taken, x, s.x), np.where(taken, f, s.f)
        j = jacobian(x)
        usable = np.all(np.isfinite(j))
        status = status_of(f, s.nit + 1)
        status = np.where((status != CONVERGED) & (~usable | (radius <= eps * here) | (radius == 0)), STUCK, status)
        status = np.where(exact, CONVERGED, status)
        scale = np.maximum(s.scale, np.where(usable, columns(j), 0))
        return _State(x, f, j, scale, radius, status, s.nit + 1, s.nfev + 1, s.njev + 1)

    f, j = fun(x), jacobian(x)
    scale = columns(j)
    scale = np.where(scale > 0, scale, 1)
    size = np.linalg.norm(scale * x)
    finite = np.all(np.isfinite(f)) & np.all(np.isfinite(j))
    status = np.where(finite, status_of(f, 0), NOT_FINITE)
    begin = _State(x, f, j, scale, 100 * np.where(size > 0, size, 1), status, 0, 1, 1)
    return while_loop(lambda s: s.status == RUNNING, step, begin)


def root(
    fun: Callable[..., Any],
    x0: Any,
    args: Any = (),
    method: str = "hybr",
    tol: Any = None,
    options: dict[str, Any] | None = None,
) -> RootResults:
    """A root of a system of as many equations as unknowns.

    Args:
        fun: ``fun(x, *args)`` returns values of the structure and shapes of ``x``.
        x0: where to start: a floating-point array of any shape, or a pytree of them.
        args: further arguments, pytrees of arrays. The root may be differentiated with respect to them, and to what
            ``fun`` captures; not with respect to ``x0``.
        method: ``"hybr"``, Powell's hybrid method with a trust region. The Jacobian is a matrix, worked out exactly.
        tol: stands for both ``ftol`` and ``xtol``.
        options: ``ftol``, the largest absolute value at the root (by default eps**(2/3), 4e-11 in double precision);
            ``xtol``, the length of a Newton step relative to ``x`` that ends the search (eps**(1/2)); ``maxiter``,
            1000.

    Returns:
        `RootResults`, a pytree, with ``x``, ``success``, ``status``, ``fun``, ``jac`` and counts; ``message`` says what
        ``status`` means. ``x`` has derivatives: those of an exact root.

    Raises:
        TypeError, ValueError: ``fun`` returns another structure or shape, ``x0`` is not real, an unknown option.

    >>> import numpy as np
    >>> import funcgrad as fg
    >>> circle_and_line = lambda x, r: np.stack([x[0] ** 2 + x[1] ** 2 - r**2, x[0] - x[1]])
    >>> result = root(circle_and_line, np.array([1.0, 0.5]), (2.0,))
    >>> np.round(result.x, 6), result.message
    (array([1.414214, 1.414214]), 'The values are zero within ftol, or x is exact within xtol.')
    >>> np.round(fg.jacrev(lambda r: root(circle_and_line, np.array([1.0, 0.5]), (r,)).x)(2.0), 6)
    array([0.707107, 0.707107])
    """
    check_callable(fun, "root")
    if method not in ("hybr", "hybrid", "powell"):
        raise ValueError(f"root: method must be 'hybr', found {method!r}")
    problem = Problem("root", fun, x0, args)
    defaults = {"ftol": None, "xtol": None, "maxiter": 1000}
    given = chosen_options("root", defaults, options, "ftol", tol)
    if tol is not None and given["xtol"] is None:
        given["xtol"] = tol
    eps = float(np.finfo(problem.dtype).eps)
    ftol = eps ** (2 / 3) if given["ftol"] is None else given["ftol"]
    xtol = eps**0.5 if given["xtol"] is None else given["xtol"]

    def values(v: Any) -> Any:
        return problem.ravel(problem.on_vectors(v), f"fun ({problem.__name__})")

    def solve(_: Any, v: Any) -> tuple[Any, Any]:
        s = hybrid(values, v, ftol, xtol, given["maxiter"])
        return s.x, (s.status, s.f, s.j, s.nfev, s.njev, s.nit)

    x, (status, f, j, nfev, njev, nit), _ = problem.solved(values, solve, dense_solve)
    return RootResults(
        x=problem.unravel(x),
        success=status == CONVERGED,
        status=status,
        fun=problem.unravel(f),
        jac=j,
        nfev=nfev,
        njev=njev,
        nit=nit,
    )
