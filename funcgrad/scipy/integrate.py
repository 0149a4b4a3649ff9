"""Integration of ordinary differential equations, with derivatives, batching and compilation.

>>> import funcgrad as fg
>>> decay = lambda y, t, rate: -rate * y
>>> t = np.array([0.0, 1.0, 2.0])
>>> odeint(decay, 1.0, t, 0.5).round(6)
array([1.      , 0.606531, 0.367879])
>>> fg.grad(lambda rate: odeint(decay, 1.0, t, rate)[-1])(0.5).round(6)        # -t exp(-rate t)
np.float64(-0.735759)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import tree
from ..control.derived import call_jaxpr, without_constants
from ..core.avals import ShapedArray, aval_of
from ..core.staging import stage
from ..core.trace import Tracer
from ..numpy.dispatch import operand
from ..ode.loop import FAILED, Control, Solution
from ..ode.methods import METHODS, Field
from ..ode.solve import ADJOINTS, Problem, solve
from ..ops.promotion import as_dtype, result_type
from ..ops.shape import concatenate, slice_in_dim
from ..ops.stop import stop_gradient
from ..ops.structural import reshape, shape_of
from ..transforms.flat import FlatFunction, check_arguments, check_callable, function_name, own_all
from ..util import prod

__all__ = ["ODEInfo", "OdeResult", "odeint", "solve_ivp"]

_NOT_MONOTONE = 3
_MESSAGES = {0: "success", **FAILED, _NOT_MONOTONE: "the times are not monotone"}
_NAMES = {"dopri5": "dopri5", "RK45": "dopri5", "rodas5p": "rodas5p", "Rodas5P": "rodas5p"}
_STIFF = ("Radau", "BDF", "LSODA")


class ODEInfo(NamedTuple):
    """How an integration went. ``status``: 0 success, 1 more than ``mxstep`` steps between two times, 2 the step size
    became too small (the solution is not finite, or not smooth), 3 the times are not monotone. ``steps`` were taken,
    ``rejected`` tried in vain."""

    status: Any
    steps: Any
    rejected: Any

    @property
    def message(self) -> str:
        """The status in words (of a concrete one)."""
        return _MESSAGES[int(self.status)]


class OdeResult(NamedTuple):
    """What `solve_ivp` returns: times ``t``, states ``y`` of shape ``(n, len(t))``, ``success``, and the fields of
    `ODEInfo`."""

    t: Any
    y: Any
    success: Any
    status: Any
    steps: Any
    rejected: Any

    @property
    def message(self) -> str:
        """The status in words (of a concrete one)."""
        return _MESSAGES[int(self.status)]


def odeint(
    func: Callable[..., Any],
    y0: Any,
    t: Any,
    *args: Any,
    rtol: Any = 1.4e-8,
    atol: Any = 1.4e-8,
    mxstep: int = 10_000,
    hmax: Any = np.inf,
    method: str = "dopri5",
    adjoint: str = "discrete",
    full_output: bool = False,
) -> Any:
    """The solution of ``dy/dt = func(y, t, *args)``, ``y(t[0]) = y0``, at the times ``t``.

    Args:
        func: takes the state, the time and ``args`` to the slope, of the structure and shapes of ``y0``.
        y0: a pytree of real arrays. Integers become float64.
        t: shape (m,), increasing or decreasing; equal times are allowed.
        args: pytrees of arrays. What ``func`` captures is differentiated as well.
        rtol, atol: the error of a step, in the root mean square over all elements of the state, is at most
            ``atol + rtol * abs(y)``. Between the ends of steps, where results are interpolated, nothing is tested: of
            a stiff system with a fast forcing they may be far off there, unless ``hmax`` is given.
        mxstep: the most steps between two times.
        hmax: the longest step.
        method: ``"dopri5"``, explicit, of Dormand and Prince; ``"rodas5p"`` for stiff systems, a Rosenbrock method
            (one Jacobian of ``func`` and one factorisation for each step; L-stable). Both have order 5 and adapt their
            steps.
        adjoint: what reverse mode does. ``"discrete"`` goes back through the very steps that were taken: the exact
            derivative of the numbers returned, with the step sizes held. ``"continuous"`` solves the adjoint equation
            backwards, as JAX does; its error is that of the tolerances, and the state itself is solved backwards,
            which systems that lose information do not bear. Both keep memory that does not grow with the number of
            steps. Forward mode is always discrete.
        full_output: return ``(ys, info)``, with an `ODEInfo`.

    Returns:
        A pytree like ``y0`` whose leaves have a leading axis for the times. The last step ends at the last time;
        between the ends of a step, a polynomial of fourth order is evaluated.

    Where an integration fails (too many steps, a step size of zero, values that are not finite), what comes after is
    NaN, as are all gradients; ``full_output`` says why. Under `vmap` each element has its own steps.

    Raises:
        TypeError, ValueError: ``func`` returns another structure or shape than ``y0`` has; ``t`` is not a monotone
            vector; an option is not one that there is.

    See ``jax.experimental.ode.odeint`` and ``scipy.integrate.odeint``.

    >>> pendulum = lambda y, t: {"angle": y["speed"], "speed": -np.sin(y["angle"])}
    >>> ys = odeint(pendulum, {"angle": 1.0, "speed": 0.0}, np.linspace(0.0, 1.0, 3))
    >>> ys["angle"].round(4)
    array([1.    , 0.896 , 0.6001])
    """
    what = "odeint"
    control = _control(what, method, rtol, atol, hmax, mxstep, adjoint)
    check_callable(func, f"{what}: func")
    ys, info = _integrate(what, func, y0, t, args, control, adjoint, "t")
    return (ys, info) if full_output else ys


def solve_ivp(
    fun: Callable[..., Any],
    t_span: Sequence[Any],
    y0: Any,
    method: str = "RK45",
    t_eval: Any = None,
    dense_output: bool = False,
    events: Any = None,
    vectorized: bool = False,
    args: Sequence[Any] = (),
    *,
    rtol: Any = 1e-3,
    atol: Any = 1e-6,
    max_step: Any = np.inf,
    mxstep: int = 10_000,
    adjoint: str = "discrete",
) -> OdeResult:
    """The solution of ``dy/dt = fun(t, y, *args)`` in SciPy's convention, at fixed times.

    Args:
        fun: takes the time, the state and ``args`` to the slope, of the shape of ``y0``.
        t_span: the first and the last time.
        y0: shape (n,).
        method: ``"RK45"`` (that of Dormand and Prince), or ``"Rodas5P"`` for stiff systems.
        t_eval: the times of the result; the ends of ``t_span`` if None. (SciPy returns every step then, which is a
            number of rows that only the values tell.)
        args, rtol, atol, max_step: as in SciPy.
        mxstep, adjoint: as in `odeint`.

    Returns:
        An `OdeResult`; ``y`` has shape (n, len(t_eval)).

    Raises:
        NotImplementedError: for ``dense_output`` and ``events``.
        TypeError, ValueError: as `odeint`.

    >>> out = solve_ivp(lambda t, y: [y[1], -y[0]], (0.0, np.pi), np.array([0.0, 1.0]), rtol=1e-8, atol=1e-8)
    >>> bool(out.success), np.abs(out.y[:, -1] - [0.0, -1.0]).max() < 1e-6
    (True, np.True_)
    """
    what = "solve_ivp"
    if dense_output:
        raise NotImplementedError(f"{what}: dense_output is not there; give the times that you want as t_eval")
    if events is not None:
        raise NotImplementedError(f"{what}: events are not detected; look for sign changes in the result at t_eval")
    control = _control(what, method, rtol, atol, max_step, mxstep, adjoint)
    check_callable(fun, f"{what}: fun")
    if not isinstance(args, (tuple, list)):
        raise TypeError(f"{what}: args must be a tuple, found {type(args).__name__}; write args=(x,)")
    if len(shape_of(operand(y0))) != 1:
        raise ValueError(f"{what}: y0 must be a vector, found shape {shape_of(operand(y0))}; odeint takes any pytree")
    start, end = _span(what, t_span)
    times = _times(what, np.stack([start, end]) if t_eval is None else t_eval, "t_eval")
    _check_within(what, start, end, times)
    whole = concatenate([reshape(start, (1,)), times, reshape(end, (1,))], 0)

    def swapped(y: Any, t: Any, *args: Any) -> Any:
        slope = fun(t, y, *args)
        return operand(slope) if isinstance(slope, (list, tuple)) else slope

    swapped.__name__ = function_name(fun)
    ys, info = _integrate(what, swapped, operand(y0), whole, tuple(args), control, adjoint, "t_eval")
    ys = np.transpose(slice_in_dim(ys, 1, shape_of(ys)[0] - 1))
    return OdeResult(times, ys, info.status == 0, *info)


# arguments ------------------------------------------------------------------------------------------------------------


def _control(what: str, method: Any, rtol: Any, atol: Any, hmax: Any, mxstep: Any, adjoint: Any) -> Control:
    if method in _STIFF:
        raise ValueError(f"{what}: method {method!r} is not there; for stiff systems write method='Rodas5P'")
    if method not in _NAMES:
        raise ValueError(f"{what}: method must be one of {', '.join(map(repr, _NAMES))}, found {method!r}")
    if adjoint not in ADJOINTS:
        raise ValueError(f"{what}: adjoint must be one of {', '.join(map(repr, ADJOINTS))}, found {adjoint!r}")
    for name, x in (("rtol", rtol), ("atol", atol)):
        aval = aval_of(x)
        if aval.dtype.kind not in "fiu" or (name == "rtol" and aval.shape):
            raise TypeError(f"{what}: {name} must be a positive number, found {aval.short()}")
        if not isinstance(x, Tracer) and not np.all(np.asarray(x) >= 0):
            raise ValueError(f"{what}: {name} must not be negative, found {x}")
    if not isinstance(rtol, Tracer) and not isinstance(atol, Tracer) and not np.all(np.asarray(rtol) + atol > 0):
        raise ValueError(f"{what}: rtol and atol must not both be zero")
    if isinstance(mxstep, bool) or not isinstance(mxstep, (int, np.integer)) or mxstep < 1:
        raise ValueError(f"{what}: mxstep must be a positive integer, found {mxstep!r}")
    if not isinstance(hmax, Tracer):
        if aval_of(hmax).shape or not hmax > 0:
            raise ValueError(f"{what}: the longest step must be a positive number, found {hmax}")
        hmax = None if np.isinf(hmax) else hmax
    return Control(METHODS[_NAMES[method]], rtol, atol, hmax, int(mxstep))


def _times(what: str, t: Any, name: str) -> Any:
    t = operand(t)
    aval = aval_of(t)
    if aval.ndim != 1 or not aval.size:
        raise ValueError(f"{what}: {name} must be a vector of at least one time, found shape {aval.shape}")
    if aval.dtype.kind not in "fiu":
        raise TypeError(f"{what}: {name} must be real numbers, found {aval.dtype.name}")
    t = t if aval.dtype.kind == "f" else as_dtype(t, np.dtype(np.float64))
    if not isinstance(t, Tracer):
        steps = np.diff(t)
        if not np.all(np.isfinite(t)):
            raise ValueError(f"{what}: {name} must be finite, found {t}")
        if np.any(steps > 0) and np.any(steps < 0):
            k = int(np.flatnonzero(steps * np.sign(steps[steps != 0][0]) < 0)[0])
            raise ValueError(
                f"{what}: {name} must be increasing or decreasing, but {name}[{k}] = {t[k]} and {name}[{k + 1}] = "
                f"{t[k + 1]} turn round; sort it"
            )
    return t


def _span(what: str, t_span: Any) -> tuple[Any, Any]:
    shape = shape_of(operand(t_span))
    if shape != (2,):
        raise ValueError(f"{what}: t_span must be a pair (first time, last time), found shape {shape}")
    start, end = operand(t_span)
    dtype = result_type(start, end)
    dtype = dtype if dtype.kind == "f" else np.dtype(np.float64)
    return as_dtype(start, dtype), as_dtype(end, dtype)


def _check_within(what: str, start: Any, end: Any, times: Any) -> None:
    if any([isinstance(x, Tracer) for x in (start, end, times)]):
        return
    low, high = min(start, end), max(start, end)
    if np.any(times < low) or np.any(times > high):
        raise ValueError(
            f"{what}: t_eval must lie within t_span = ({start}, {end}), found {times.min()} to {times.max()}"
        )


def _real_leaves(what: str, y0: Any) -> tuple[list[Any], tree.PyTreeDef]:
    leaves, treedef = tree.flatten(y0)
    if not leaves:
        raise ValueError(f"{what}: y0 has no arrays")
    found = []
    for path, x in zip(tree.leaf_paths(treedef), leaves, strict=True):
        try:
            x = operand(x)
            aval = aval_of(x)
        except TypeError as error:
            raise TypeError(f"{what}: y0{path}: {error}") from None
        if aval.dtype.kind not in "fiub":
            raise TypeError(
                f"{what}: y0{path} has dtype {aval.dtype.name}; states are real: write a complex one as its real and "
                "imaginary parts"
            )
        found.append(x if aval.dtype.kind == "f" and not aval.weak_type else as_dtype(x, result_type(x, 0.0)))
    if not sum([aval_of(x).size for x in found]):
        raise ValueError(f"{what}: the arrays of y0 have no elements")
    return found, treedef


# from pytrees to vectors and back -----------------------------------------------------------------------------------


def _integrate(
    what: str,
    func: Callable[..., Any],
    y0: Any,
    t: Any,
    args: tuple[Any, ...],
    control: Control,
    adjoint: str,
    name: str,
) -> tuple[Any, ODEInfo]:
    leaves, y_tree = _real_leaves(what, y0)
    ts = _times(what, t, name)
    avals = [aval_of(x) for x in leaves]
    dtype = np.result_type(*[a.dtype for a in avals])
    given, _ = tree.flatten(args)
    check_arguments(func, (y0, t, *args), {}, tree.leaves((y0, t, *args)), what)
    given = [operand(x) for x in given]
    time = ShapedArray((), aval_of(ts).dtype)
    consts, program = _program(what, func, y_tree, avals, time, args, given)
    operands = [*consts, *given]
    free = [aval_of(x).dtype.kind in "fc" for x in operands]
    sign, ts, monotone = _direction(ts)

    def field(*values: Any) -> Field:
        turn, *rest = values
        n_fixed = free.count(False)
        fixed, params = iter(rest[:n_fixed]), iter(rest[n_fixed:])
        known = [next(params) if f else next(fixed) for f in free]
        k = len(consts)

        def f(y: Any, t: Any) -> Any:
            t = t if turn is None else as_dtype(turn, aval_of(t).dtype) * t
            slope = _flat(program(*known[:k], *_parts(y, avals), t, *known[k:]), dtype)
            return slope if turn is None else as_dtype(turn, dtype) * slope

        return f

    if isinstance(sign, int):  # known: no sign at all, or that of a constant
        turn: tuple[Any, ...] = ()
        factor = None if sign > 0 else np.float64(-1.0)
        whole = lambda *values: field(factor, *values)  # noqa: E731
    else:
        turn, whole = (sign,), field
    fixed = [x for x, f in zip(operands, free, strict=True) if not f]
    params = [x for x, f in zip(operands, free, strict=True) if f]
    problem = Problem(whole, (*turn, *fixed), tuple(params))
    solved = solve(problem, _flat(leaves, dtype), ts, control, adjoint)
    info, ys = _checked(solved, monotone)
    n_times = shape_of(ts)[0]
    outs, start = [], 0
    for a in avals:
        part = slice_in_dim(ys, start, start + a.size, axis=1)
        outs.append(as_dtype(reshape(part, (n_times, *a.shape)), a.dtype))
        start += a.size
    return y_tree.unflatten(own_all(outs)), info


def _checked(solved: Solution, monotone: Any) -> tuple[ODEInfo, Any]:
    """With times that are found not to be monotone, there is no solution."""
    status, ys = solved.status, solved.ys
    if monotone is not None:
        status = np.where(monotone, status, np.int64(_NOT_MONOTONE))
        ys = np.where(monotone, ys, aval_of(ys).dtype.type(np.nan))
    return ODEInfo(status, solved.steps, solved.rejected), ys


def _direction(ts: Any) -> tuple[Any, Any, Any]:
    """The sign of time, the times turned so that they increase, and whether they do, where that is not known."""
    n = shape_of(ts)[0]
    if not isinstance(ts, Tracer):
        return (-1, -ts, None) if ts[-1] < ts[0] else (1, ts, None)
    last, first = slice_in_dim(ts, n - 1, n), slice_in_dim(ts, 0, 1)
    sign = stop_gradient(reshape(np.where(last < first, -1.0, 1.0), ()))
    ts = as_dtype(sign, aval_of(ts).dtype) * ts
    return sign, ts, np.all(slice_in_dim(ts, 1, n) >= slice_in_dim(ts, 0, n - 1))


def _program(
    what: str,
    func: Callable[..., Any],
    y_tree: tree.PyTreeDef,
    avals: Sequence[ShapedArray],
    time: ShapedArray,
    args: tuple[Any, ...],
    given: Sequence[Any],
) -> tuple[Sequence[Any], Callable[..., Any]]:
    """``func`` on leaves, traced once, and what it captures, which comes first among its arguments."""
    in_tree = tree.structure(((y_tree.unflatten([0] * len(avals)), 0, *args), {}))
    flat = FlatFunction(func, in_tree)
    closed = stage(flat, [*[a.strong() for a in avals], time, *[aval_of(x) for x in given]], flat.__name__)
    label = function_name(func)
    if flat.out_tree != y_tree:
        raise TypeError(
            f"{what}: {label} must return the slope in the structure of y0: "
            + tree.describe_difference(y_tree, flat.out_tree)
        )
    for path, a, b in zip(tree.leaf_paths(y_tree), avals, closed.out_avals, strict=True):
        if a.shape != b.shape:
            raise ValueError(
                f"{what}: {label} must return the slope in the shape of y0: y0{path} has shape {a.shape}, but the "
                f"slope has shape {b.shape}"
            )
        if b.dtype.kind == "c":
            raise TypeError(f"{what}: {label} must return real slopes, found {b.dtype.name} for y0{path}")
    consts, jaxpr = without_constants(closed)
    return consts, call_jaxpr(jaxpr)


def _flat(leaves: Sequence[Any], dtype: np.dtype[Any]) -> Any:
    parts = [as_dtype(reshape(x, (prod(shape_of(x)),)), dtype) for x in leaves]
    return parts[0] if len(parts) == 1 else concatenate(parts, 0)


def _parts(y: Any, avals: Sequence[ShapedArray]) -> list[Any]:
    found, start = [], 0
    for a in avals:
        part = y if a.size == shape_of(y)[0] else slice_in_dim(y, start, start + a.size)
        found.append(as_dtype(reshape(part, a.shape), a.dtype))
        start += a.size
    return found
