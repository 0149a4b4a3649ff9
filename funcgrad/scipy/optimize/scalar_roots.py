"""Roots of scalar functions: bisection and Brent's method in a bracket, Newton's method from a start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...control.iterate import while_loop
from ...control.solves import custom_root
from ...core.avals import aval_of
from ...core.trace import EVAL, STATE
from ...numpy.dispatch import operand
from ...ops.promotion import as_dtype, result_type
from ...ops.structural import shape_of
from ...transforms.derive import jvp, quiet
from ...transforms.flat import check_callable, function_name
from .results import CONVERGED, LIMIT, NOT_FINITE, RUNNING, STUCK, RootScalarResults

__all__ = ["bisect", "brentq", "root_scalar"]


class _Bracket(NamedTuple):
    """Brent's state: ``b`` is the best point, ``c`` the other end of the bracket, ``a`` the point before ``b``; ``d``
    and ``e`` are the last two steps."""

    a: Any
    b: Any
    c: Any
    fa: Any
    fb: Any
    fc: Any
    d: Any
    e: Any
    status: Any
    n: Any


def _turned(s: _Bracket) -> _Bracket:
    """The same state with the change of sign between ``b`` and ``c``, and ``b`` the better of them."""
    same = np.sign(s.fb) == np.sign(s.fc)
    c, fc = np.where(same, s.a, s.c), np.where(same, s.fa, s.fc)
    d, e = np.where(same, s.b - s.a, s.d), np.where(same, s.b - s.a, s.e)
    swap = np.abs(fc) < np.abs(s.fb)
    a, fa = np.where(swap, s.b, s.a), np.where(swap, s.fb, s.fa)
    b, fb = np.where(swap, c, s.b), np.where(swap, fc, s.fb)
    c, fc = np.where(swap, a, c), np.where(swap, fa, fc)
    return _Bracket(a, b, c, fa, fb, fc, d, e, s.status, s.n)


def _bracketed(
    f: Callable[[Any], Any], a: Any, b: Any, xtol: Any, rtol: Any, maxiter: Any, interpolate: bool
) -> _Bracket:
    """Brent's ``zero`` (Algorithms for Minimization without Derivatives, 1973, chapter 4)."""

    def tolerance(b: Any) -> Any:
        return 0.5 * (xtol + rtol * np.abs(b))

    def settled(s: _Bracket) -> _Bracket:
        """Turned, with the status that it then has."""
        s = _turned(s)
        done = (np.abs(0.5 * (s.c - s.b)) <= tolerance(s.b)) | (s.fb == 0)
        status = np.where(done, CONVERGED, np.where(s.n < maxiter, RUNNING, LIMIT))
        return s._replace(status=np.where(np.isfinite(s.fb), status, NOT_FINITE))

    def step(s: _Bracket) -> _Bracket:
        tol, middle = tolerance(s.b), 0.5 * (s.c - s.b)
        d = e = middle
        if interpolate:
            u, q, r = s.fb / s.fa, s.fa / s.fc, s.fb / s.fc
            secant = s.a == s.c
            p = np.where(secant, 2 * middle * u, u * (2 * middle * q * (q - r) - (s.b - s.a) * (r - 1)))
            q = np.where(secant, 1 - u, (q - 1) * (r - 1) * (u - 1))
            q = np.where(p > 0, -q, q)
            p = np.abs(p)
            good = (np.abs(s.e) >= tol) & (np.abs(s.fa) > np.abs(s.fb))
            good = good & (2 * p < np.minimum(3 * middle * q - np.abs(tol * q), np.abs(s.e * q)))
            d, e = np.where(good, p / np.where(good, q, 1), middle), np.where(good, s.d, middle)
        b = s.b + np.where(np.abs(d) > tol, d, np.copysign(tol, middle))
        return settled(_Bracket(s.b, b, s.c, s.fb, f(b), s.fc, d, e, s.status, s.n + 1))

    fa, fb = f(a), f(b)
    s = settled(_Bracket(a, b, a, fa, fb, fa, b - a, b - a, RUNNING, 0))
    crossing = np.sign(fa) * np.sign(fb) <= 0
    finite = np.isfinite(fa) & np.isfinite(fb) & np.isfinite(a) & np.isfinite(b)
    status = np.where(finite, np.where(crossing, s.status, STUCK), NOT_FINITE)
    s = while_loop(lambda s: s.status == RUNNING, step, s._replace(status=status))
    return s


class _Newton(NamedTuple):
    x: Any
    status: Any
    n: Any


def _newton(f: Callable[[Any], Any], x: Any, xtol: Any, rtol: Any, maxiter: Any) -> _Newton:
    def step(s: _Newton) -> _Newton:
        value, slope = jvp(f, (s.x,), (np.ones_like(s.x),))
        move = np.where(value == 0, 0, value / slope)
        x = s.x - move
        done = np.abs(move) <= xtol + rtol * np.abs(x)
        status = np.where(done, CONVERGED, np.where(s.n + 1 < maxiter, RUNNING, LIMIT))
        bad = np.where(np.isfinite(value) & (slope == 0), STUCK, NOT_FINITE)
        fine = np.isfinite(move)
        return _Newton(np.where(fine, x, s.x), np.where(fine, status, bad), s.n + 1)

    begin = _Newton(x, np.where(maxiter > 0, RUNNING, LIMIT), 0)
    return while_loop(lambda s: s.status == RUNNING, step, begin)


def _scalars(what: str, names: str, *values: Any) -> list[Any]:
    found = []
    for name, x in zip(names.split(), values, strict=True):
        try:
            aval = aval_of(x)
        except TypeError as error:
            raise TypeError(f"{what}: {name}: {error}") from None
        if aval.shape or aval.dtype.kind not in "biuf":
            raise TypeError(f"{what}: {name} must be a real scalar, found {aval.short()}; use vmap for many at once")
        found.append(operand(x))
    dtype = result_type(*found)
    dtype = dtype if dtype.kind == "f" else np.dtype(np.float64)
    return [as_dtype(x, dtype) for x in found]


def _solve(what: str, fun: Callable[..., Any], args: Any, start: Any, solve: Callable[..., Any]) -> RootScalarResults:
    args = args if isinstance(args, tuple) else (args,)
    dtype = aval_of(start).dtype

    def f(x: Any) -> Any:
        y = operand(fun(x, *args))
        if shape_of(y) != () or aval_of(y).dtype.kind not in "biuf":
            raise TypeError(f"{what}: {function_name(fun)} must return a real scalar, found {aval_of(y).short()}")
        return as_dtype(y, dtype)

    def solved(f: Any, start: Any) -> tuple[Any, Any]:
        return solve(f, start)

    with quiet():
        if STATE.trace is EVAL:
            x, (status, n, calls) = solved(f, start)
        else:
            x, (status, n, calls) = custom_root(f, start, solved, lambda g, y: y / g(dtype.type(1)), has_aux=True)
        return RootScalarResults(np.where(status == STUCK, np.nan, x)[()], status == CONVERGED, n, calls, status)


_XTOL, _RTOL = 2e-12, 4 * float(np.finfo(np.float64).eps)


def root_scalar(
    f: Callable[..., Any],
    args: Any = (),
    method: str | None = None,
    bracket: Any = None,
    x0: Any = None,
    xtol: Any = None,
    rtol: Any = None,
    maxiter: Any = None,
) -> RootScalarResults:
    """A root of a real function of one real number.

    Args:
        f: ``f(x, *args)`` returns a scalar.
        args: further arguments, with respect to which the root may be differentiated, as to what ``f`` captures.
        method: ``"brentq"`` (by default, if there is a bracket) and ``"bisect"`` want ``bracket``; ``"newton"`` wants
            ``x0``. Newton's derivative is exact; it may diverge, Brent's method cannot.
        bracket: ``(a, b)``, between which ``f`` changes its sign.
        x0: where Newton's method starts.
        xtol, rtol: the root is exact within ``xtol + rtol * abs(root)`` (2e-12 and four times the precision).
        maxiter: by default 100 (Newton: 50).

    Returns:
        `RootScalarResults`, a pytree: ``root``, ``converged``, ``iterations``, ``function_calls``, ``flag`` (a number).

    Raises:
        TypeError, ValueError: arguments are no real scalars or missing.

    >>> import numpy as np
    >>> import funcgrad as fg
    >>> kepler = lambda e, m: root_scalar(lambda x: x - e * np.sin(x) - m, bracket=(0.0, np.pi)).root
    >>> np.round(fg.vmap(fg.grad(kepler), (None, 0))(0.5, np.array([0.5, 1.0])), 6)
    array([1.133331, 1.034667])
    """
    check_callable(f, "root_scalar")
    kind = method or ("newton" if bracket is None else "brentq")
    if kind not in ("brentq", "bisect", "newton"):
        raise ValueError(f"root_scalar: method must be 'brentq', 'bisect' or 'newton', found {method!r}")
    if kind == "newton":
        if x0 is None:
            raise ValueError("root_scalar: give a bracket (a, b), or x0 for Newton's method")
        (start,) = _scalars("root_scalar", "x0", x0)
        limit = 50 if maxiter is None else maxiter
        tolerances = _tolerances(xtol, rtol, start)

        def newton(f: Any, start: Any) -> tuple[Any, Any]:
            s = _newton(f, start, *tolerances, limit)
            return s.x, (s.status, s.n, s.n)

        return _solve("root_scalar", f, args, start, newton)
    if bracket is None or len(bracket) != 2:
        raise ValueError(f"root_scalar: method {kind!r} wants bracket=(a, b), found {bracket!r}")
    a, b = _scalars("root_scalar", "bracket[0] bracket[1]", *bracket)
    return _in_bracket("root_scalar", f, a, b, args, xtol, rtol, maxiter, kind == "brentq")


def _tolerances(xtol: Any, rtol: Any, x: Any) -> tuple[Any, Any]:
    eps = float(np.finfo(aval_of(x).dtype).eps)
    return max(_XTOL, eps) if xtol is None else xtol, 4 * eps if rtol is None else rtol


def _in_bracket(
    what: str, f: Any, a: Any, b: Any, args: Any, xtol: Any, rtol: Any, maxiter: Any, interpolate: bool
) -> RootScalarResults:
    limit = 100 if maxiter is None else maxiter
    tolerances = _tolerances(xtol, rtol, a)

    def solve(f: Any, start: Any) -> tuple[Any, Any]:
        s = _bracketed(f, a, start, *tolerances, limit, interpolate)
        return s.b, (s.status, s.n, s.n + 2)

    return _solve(what, f, args, b, solve)


def _root_alone(what: str, result: RootScalarResults) -> Any:
    """The root, where a number is all that is returned: what has not converged raises, or, traced, is NaN."""
    if STATE.trace is EVAL and not result.converged:
        raise (ValueError if result.flag in (STUCK, NOT_FINITE) else RuntimeError)(
            f"{what}: "
            + {
                STUCK: "f(a) and f(b) must have different signs",
                NOT_FINITE: "an end of the bracket, or the function at a point of it, is not finite",
                LIMIT: f"not converged after {int(result.iterations)} iterations; the last value was {result.root}",
            }[int(result.flag)]
        )
    return np.where(result.converged, result.root, np.nan)[()]


def _bracketing(what: str, interpolate: bool, *given: Any) -> Any:
    f, a, b, args, xtol, rtol, maxiter, full_output = given
    check_callable(f, what)
    a, b = _scalars(what, "a b", a, b)
    result = _in_bracket(what, f, a, b, args, xtol, rtol, maxiter, interpolate)
    return (result.root, result) if full_output else _root_alone(what, result)


def brentq(
    f: Callable[..., Any],
    a: Any,
    b: Any,
    args: Any = (),
    xtol: Any = None,
    rtol: Any = None,
    maxiter: Any = None,
    full_output: bool = False,
) -> Any:
    """The root of ``f`` between ``a`` and ``b`` by Brent's method; the arguments are those of `root_scalar`.

    Returns:
        The root, or ``(root, RootScalarResults)`` if ``full_output``.

    Raises:
        ValueError: no change of sign. RuntimeError: ``maxiter`` was reached. (Traced, the root is then NaN; with
            ``full_output`` the results say it instead.)

    >>> import funcgrad as fg
    >>> fg.grad(lambda a: brentq(lambda x: x**2 - a, 0.0, 10.0))(4.0)
    np.float64(0.25)
    """
    return _bracketing("brentq", True, f, a, b, args, xtol, rtol, maxiter, full_output)


def bisect(
    f: Callable[..., Any],
    a: Any,
    b: Any,
    args: Any = (),
    xtol: Any = None,
    rtol: Any = None,
    maxiter: Any = None,
    full_output: bool = False,
) -> Any:
    """The root of ``f`` between ``a`` and ``b`` by bisection; otherwise as `brentq`.

    >>> round(float(bisect(lambda x: x**3 - 8, 0.0, 10.0)), 9)
    2.0
    """
    return _bracketing("bisect", False, f, a, b, args, xtol, rtol, maxiter, full_output)
