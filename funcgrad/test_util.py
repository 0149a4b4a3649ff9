"""Derivatives against differences: JAX's ``jax.test_util``.

A derivative is tried along one random direction, which costs two evaluations whatever the sizes. What is compared is
the tangent (forward mode) or its product with a random cotangent (reverse mode), against the central difference
quotient. Its rounding error is known, and allowed for. Where they differ, each argument is tried by itself, so that the
message can name the one that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from . import tree
from .core.avals import FLOAT0, aval_of
from .transforms.derive import jvp, vjp
from .transforms.flat import check_callable, function_name, leaf_name

__all__ = ["check_grads", "check_jvp", "check_vjp"]

Tolerance = float | Mapping[Any, float] | None

_TOLERANCE = {"float16": 2e-2, "float32": 2e-3, "float64": 1e-5, "complex64": 2e-3, "complex128": 1e-5}
_STEP = {"float16": 3e-2, "float32": 4e-3, "float64": 1e-5, "complex64": 4e-3, "complex128": 1e-5}
"""About the cube root of the rounding error, where differences are best."""


# leaves ---------------------------------------------------------------------------------------------------------------


def _inexact(x: Any) -> bool:
    dtype = getattr(x, "dtype", None)
    return dtype != FLOAT0 and aval_of(x).dtype.kind in "fc"


def _random(rng: np.random.Generator, x: Any) -> Any:
    """A direction of the tangent space of ``x``."""
    if not _inexact(x):
        return np.zeros(np.shape(x), FLOAT0)
    aval = aval_of(x)
    v = rng.normal(size=aval.shape)
    if aval.dtype.kind == "c":
        v = v + 1j * rng.normal(size=aval.shape)
    return np.asarray(v, aval.dtype)[()]


def _moved(xs: Sequence[Any], direction: Sequence[Any], step: float) -> list[Any]:
    moved = []
    for x, v in zip(xs, direction, strict=True):
        if _inexact(x):
            dtype = aval_of(x).dtype
            x = (np.asarray(x, dtype) + np.asarray(step * v, dtype))[()]
        moved.append(x)
    return moved


def _step(xs: Sequence[Any], eps: float | None) -> float:
    return eps if eps is not None else max([_STEP[aval_of(x).dtype.name] for x in xs if _inexact(x)], default=1e-5)


def _tolerance(tol: Tolerance, dtypes: Sequence[np.dtype[Any]]) -> float:
    """The loosest that any of the dtypes asks for."""
    if tol is not None and not isinstance(tol, Mapping):
        return float(tol)
    given = {} if tol is None else {np.dtype(k).name: float(v) for k, v in tol.items()}
    return max([given.get(d.name, _TOLERANCE.get(d.name, 0.0)) for d in dtypes], default=0.0)


class _Trial:
    """``f`` at ``args``, of which leaves are moved along directions."""

    def __init__(self, f: Callable[..., Any], args: Any, eps: float | None, what: str) -> None:
        check_callable(f, what)
        if not isinstance(args, (tuple, list)):
            raise TypeError(f"{what}: args must be a tuple of the arguments, found {type(args).__name__}; write (x,)")
        self.f = f
        self.leaves, self.in_tree = tree.flatten(tuple(args))
        self.args = tuple(args)
        self.step = _step(self.leaves, eps)
        self.out, self.out_tree = tree.flatten(f(*args))
        self.dtypes = [aval_of(x).dtype for x in (*self.leaves, *self.out) if _inexact(x)]
        if not any(map(_inexact, self.leaves)):
            raise TypeError(f"{what}: no argument of {function_name(f)} has a floating-point dtype")

    def differences(self, direction: Sequence[Any]) -> tuple[list[Any], list[float]]:
        """The difference quotient of each inexact result, and its rounding error."""
        ends = []
        for sign in (1.0, -1.0):
            moved = self.in_tree.unflatten(_moved(self.leaves, direction, sign * self.step))
            ends.append(tree.leaves(self.f(*moved)))
        quotients, noise = [], []
        with np.errstate(all="ignore"):
            for x, y in zip(*ends, strict=True):
                if not _inexact(x):
                    continue
                wide = np.complex128 if aval_of(x).dtype.kind == "c" else np.float64
                a, b = np.asarray(x, wide), np.asarray(y, wide)
                quotients.append(np.where(a == b, 0, a - b) / (2 * self.step))
                size = max([float(np.max(np.abs(v), initial=0.0)) for v in (a, b)])
                noise.append(4 * float(np.finfo(aval_of(x).dtype).eps) * size / self.step)
        return quotients, noise

    def alone(self, direction: Sequence[Any], k: int) -> list[Any]:
        """The direction along leaf ``k`` only."""
        return [v if j == k or not _inexact(x) else np.zeros_like(v)
                for j, (x, v) in enumerate(zip(self.leaves, direction, strict=True))]  # fmt: skip

    def name(self, k: int) -> str:
        path = tree.leaves_with_path((self.args, {}))[k][0]
        return leaf_name(self.f, path)

    def guilty(self, direction: Sequence[Any], compare: Callable[[Sequence[Any]], str]) -> str:
        """The arguments along which ``compare(direction)`` gives a complaint, with the first complaint."""
        inexact = [k for k, x in enumerate(self.leaves) if _inexact(x)]
        found = [(self.name(k), compare(self.alone(direction, k))) for k in inexact]
        wrong = [(name, text) for name, text in found if text]
        if not wrong:
            return ""
        right = "" if len(wrong) == len(found) else f" (right for {', '.join([n for n, t in found if not t])})"
        return f" It is the derivative with respect to {', '.join([n for n, _ in wrong])}{right}: {wrong[0][1]}"


def _far(found: Any, wanted: Any, atol: float, rtol: float, noise: float) -> str:
    """How far two arrays are apart; nothing if that is allowed."""
    a, b = np.asarray(found), np.asarray(wanted)
    with np.errstate(all="ignore"):
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b))
        allowed = atol + rtol * np.abs(b) + noise
        bad = ~((apart == 0) | (apart <= allowed))
        if not bad.any():
            return ""
        ratio = np.where(bad, np.where(np.isfinite(apart), apart / allowed, np.inf), 0)
    worst = np.unravel_index(np.argmax(ratio), a.shape) if a.ndim else ()
    place = f" at index {tuple(map(int, worst))}" if a.ndim else ""
    count = f"; {int(bad.sum())} of {a.size} elements are off" if a.size > 1 else ""
    domain = "" if np.isfinite(b[worst]) else "; f is not finite around these arguments"
    return (
        f"{a[worst]}{place}, where differences give {b[worst]}: off by {apart[worst]:.3g}, allowed are "
        f"{np.broadcast_to(allowed, a.shape)[worst]:.3g}{count}{domain}"
    )


def _check_value(trial: _Trial, out: Any, what: str, title: str) -> list[Any]:
    """The value that a transform returned must be the function's."""
    leaves, out_tree = tree.flatten(out)
    if out_tree != trial.out_tree:
        raise AssertionError(f"{title}: the value of {what} has another structure than the function's: "
                             + tree.describe_difference(trial.out_tree, out_tree))  # fmt: skip
    for path, x, y in zip(tree.leaf_paths(out_tree), leaves, trial.out, strict=True):
        if np.shape(x) != np.shape(y):
            raise AssertionError(f"{title}: the value of {what} has shape {np.shape(x)}, not {np.shape(y)}")
        if _inexact(y):
            size = float(np.max(np.abs(np.asarray(y)), initial=0.0))
            far = _far(x, y, 0.0, 0.0, 64 * float(np.finfo(aval_of(y).dtype).eps) * (size if np.isfinite(size) else 1))
        else:
            far = "" if np.array_equal(x, y) else f"{x}, not {y}"
        if far:
            raise AssertionError(f"{title}: result{path} of {what} is {far.replace('differences give', 'f gives')}")
    return leaves


# the checks -----------------------------------------------------------------------------------------------------------


def check_jvp(
    f: Callable[..., Any],
    f_jvp: Callable[..., Any],
    args: Sequence[Any],
    atol: Tolerance = None,
    rtol: Tolerance = None,
    eps: float | None = None,
    err_msg: str = "",
) -> None:
    """Hold ``f_jvp(primals, tangents)``, usually ``partial(jvp, f)``, to differences of ``f`` along a random direction.

    Args:
        args: a tuple of pytrees.
        atol, rtol: a number, or a mapping of dtypes; by default by the dtypes of arguments and results.
        eps: the step of the differences; by default by the dtypes of the arguments.
        err_msg: what the message begins with.

    Raises:
        AssertionError: the derivative is off. The message names the argument, and says by how much.

    >>> from functools import partial
    >>> from funcgrad import jvp
    >>> check_jvp(np.sin, partial(jvp, np.sin), (np.linspace(0.0, 1.0, 5),))
    """
    trial = _Trial(f, args, eps, "check_jvp")
    title = err_msg or f"check_jvp of {function_name(f)}"
    absolute, relative = _tolerance(atol, trial.dtypes), _tolerance(rtol, trial.dtypes)
    rng = np.random.default_rng(0)
    direction = [_random(rng, x) for x in trial.leaves]
    out, _ = f_jvp(trial.args, trial.in_tree.unflatten(direction))
    _check_value(trial, out, "the JVP", title)
    paths = [p for p, x in zip(tree.leaf_paths(trial.out_tree), trial.out, strict=True) if _inexact(x)]

    def compare(direction: Sequence[Any]) -> str:
        tangents = tree.leaves(f_jvp(trial.args, trial.in_tree.unflatten(direction))[1])
        found = [t for t, x in zip(tangents, trial.out, strict=True) if _inexact(x)]
        for path, t, (q, noise) in zip(paths, found, zip(*trial.differences(direction), strict=True), strict=True):
            if np.shape(t) != np.shape(q):
                return f"the tangent of result{path} has shape {np.shape(t)}, not {np.shape(q)}"
            far = _far(t, q, absolute, relative, noise)
            if far:
                return f"the tangent of result{path} is {far}."
        return ""

    text = compare(direction)
    if text:
        raise AssertionError(f"{title}: {text}{trial.guilty(direction, compare)}")


def check_vjp(
    f: Callable[..., Any],
    f_vjp: Callable[..., Any],
    args: Sequence[Any],
    atol: Tolerance = None,
    rtol: Tolerance = None,
    eps: float | None = None,
    err_msg: str = "",
) -> None:
    """Hold ``f_vjp(*primals)``, usually ``partial(vjp, f)``, to differences of ``f``: ``<ct, J v> = <J^T ct, v>``.

    Arguments and errors are those of `check_jvp`.

    >>> from functools import partial
    >>> from funcgrad import vjp
    >>> check_vjp(np.sin, partial(vjp, np.sin), (np.linspace(0.0, 1.0, 5),))
    """
    trial = _Trial(f, args, eps, "check_vjp")
    title = err_msg or f"check_vjp of {function_name(f)}"
    absolute, relative = _tolerance(atol, trial.dtypes), _tolerance(rtol, trial.dtypes)
    rng = np.random.default_rng(0)
    direction = [_random(rng, x) for x in trial.leaves]
    out, pullback = f_vjp(*trial.args)
    # of the traced value: where a dtype depends on values, as that of sqrtm, it is another one
    cts = [_random(rng, x) for x in _check_value(trial, out, "the VJP", title)]
    pulled, pulled_tree = tree.flatten(pullback(trial.out_tree.unflatten(cts)))
    if pulled_tree != trial.in_tree:
        raise AssertionError(f"{title}: cotangents have another structure than the arguments: "
                             + tree.describe_difference(trial.in_tree, pulled_tree))  # fmt: skip
    for k, (c, x) in enumerate(zip(pulled, trial.leaves, strict=True)):
        if np.shape(c) != np.shape(x):
            raise AssertionError(
                f"{title}: the cotangent of {trial.name(k)} has shape {np.shape(c)}, not {np.shape(x)}"
            )
    weights = [np.asarray(c) for c in cts if c.dtype != FLOAT0]

    def compare(direction: Sequence[Any]) -> str:
        quotients, noise = trial.differences(direction)
        with np.errstate(all="ignore"):
            wanted = sum([float(np.sum(np.real(w * q))) for w, q in zip(weights, quotients, strict=True)])
            terms = [np.real(np.asarray(c) * v).astype(float).ravel()
                     for c, v, x in zip(pulled, direction, trial.leaves, strict=True) if _inexact(x)]  # fmt: skip
            found = float(sum([t.sum() for t in terms]))
            size = float(np.sqrt(sum([np.sum(t * t) for t in terms])))
            rounding = sum([float(np.sum(np.abs(w))) * e for w, e in zip(weights, noise, strict=True)])
        slack = relative * size if np.isfinite(size) else 0.0
        far = _far(np.float64(found), np.float64(wanted), absolute, relative, rounding + slack)
        return f"the product of gradient and direction is {far}." if far else ""

    text = compare(direction)
    if text:
        raise AssertionError(f"{title}: {text}{trial.guilty(direction, compare)}")


def check_grads(
    f: Callable[..., Any],
    args: Sequence[Any],
    order: int,
    modes: Sequence[str] = ("fwd", "rev"),
    atol: Tolerance = None,
    rtol: Tolerance = None,
    eps: float | None = None,
) -> None:
    """Hold the derivatives of ``f`` at ``args``, up to ``order``, to differences.

    Args:
        f: a function of pytrees of arrays.
        args: a tuple of its arguments; integers among them stay as they are.
        order: 1 checks first derivatives; 2 also the derivatives of these, in all combinations of modes; and so on.
        modes: ``"fwd"``, ``"rev"`` or both.
        atol, rtol, eps: as in `check_jvp`.

    Raises:
        AssertionError: naming mode, order and argument, and by how much.

    >>> check_grads(lambda x, w: np.tanh(w @ x), (np.ones(2), np.eye(2)), order=2)
    >>> check_grads(lambda x: np.where(x > 0, x, 0.1 * np.floor(x)), (-0.7,), order=1)
    >>> from funcgrad import lax
    >>> check_grads(lambda x: x * lax.stop_gradient(x), (3.0,), order=1, modes=("rev",))
    Traceback (most recent call last):
        ...
    AssertionError: check_grads of <lambda>, mode rev, order 1: the product of gradient and direction is ...
    """
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    if not modes or not set(modes) <= {"fwd", "rev"}:
        raise ValueError(f"check_grads: modes must be 'fwd', 'rev' or both, found {modes!r}")
    if not isinstance(order, (int, np.integer)) or order < 1:
        raise ValueError(f"check_grads: order must be a positive integer, found {order!r}")
    _check(f, tuple(args) if isinstance(args, list) else args, int(order), modes, (), function_name(f),
           {"atol": atol, "rtol": rtol, "eps": eps})  # fmt: skip


def _check(
    f: Callable[..., Any], args: Any, order: int, modes: tuple[str, ...], done: tuple[str, ...], name: str,
    options: dict[str, Any],
) -> None:  # fmt: skip
    for mode in modes:
        path = (*done, mode)
        shown = f"mode {path[0]}" if len(path) == 1 else f"modes {' of '.join(reversed(path))}"
        title = f"check_grads of {name}, {shown}, order {len(path)}"
        if mode == "fwd":
            check_jvp(f, partial(jvp, f), args, err_msg=title, **options)
        else:
            check_vjp(f, partial(vjp, f), args, err_msg=title, **options)
        if order > 1:
            _check(_derivative(f, args, mode), args, order - 1, modes, path, name, options)


def _derivative(f: Callable[..., Any], args: Any, mode: str) -> Callable[..., Any]:
    """The derivative of ``f`` along a fixed direction (of arguments, or of results), as a function of the same
    arguments."""
    rng = np.random.default_rng(1)
    if mode == "fwd":
        direction = tree.map(partial(_random, rng), args)

        def pushed(*xs: Any) -> Any:
            return [t for t in tree.leaves(jvp(f, xs, direction)[1]) if getattr(t, "dtype", None) != FLOAT0]

        derivative: Callable[..., Any] = pushed
    else:
        cts = tree.map(partial(_random, rng), vjp(f, *args)[0])

        def pulled(*xs: Any) -> Any:
            return [c for c in tree.leaves(vjp(f, *xs)[1](cts)) if getattr(c, "dtype", None) != FLOAT0]

        derivative = pulled
    derivative.__wrapped__ = getattr(f, "__wrapped__", f)  # type: ignore[attr-defined]  # its arguments' names
    derivative.__name__ = function_name(f)
    return derivative
