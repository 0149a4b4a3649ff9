"""The loop that takes steps: step-size control, output times, and a record of the steps for reverse mode.

Steps are as long as the error allows and do not stop at output times: the solution there is the step's polynomial. Only
the last step is cut, so that the equation is never evaluated beyond the last time. Step sizes are constants to every
derivative: what is differentiated is the sum of the very steps that were taken.

The record keeps the states at which steps began, in ``slots`` slots; when they are full, every other one goes and the
spacing doubles. What lies between two is run again, under the same control, from the first of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..control.iterate import scan, while_loop
from ..core.avals import aval_of
from ..ops.dynamic import dynamic_slice, dynamic_update_slice
from ..ops.elementwise import shift_left, shift_right
from ..ops.promotion import as_dtype
from ..ops.shape import concatenate
from ..ops.stop import stop_gradient
from ..ops.structural import expand_dims, reshape, shape_of
from ..transforms.derive import quiet
from .methods import Field, Method, Step, between

__all__ = [
    "FAILED",
    "TOO_MANY_STEPS",
    "TOO_SMALL",
    "Control",
    "Record",
    "Solution",
    "State",
    "attempt",
    "empty",
    "integrate",
    "read",
    "write",
]

TOO_MANY_STEPS, TOO_SMALL = 1, 2
FAILED = {
    TOO_MANY_STEPS: "more than mxstep steps between two times",
    TOO_SMALL: "the step size became too small: the solution is not smooth or not finite, or the system is stiff",
}
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0
_HUGE = 1e10
_INT = np.dtype(np.int64)


class Control(NamedTuple):
    """What a solution is wanted like; all but the tolerances are known while tracing."""

    method: Method
    rtol: Any
    atol: Any
    hmax: Any
    mxstep: int


class State(NamedTuple):
    """Where the integration stands: time, next step size, solution, what the method can use again, the error of the
    last accepted step, and whether the last one was rejected."""

    t: Any
    h: Any
    y: Any
    memo: tuple[Any, ...]
    error: Any
    rejected: Any


class Piece(NamedTuple):
    """The last accepted step: where it began, and its polynomial."""

    t: Any
    h: Any
    y: Any
    dense: tuple[Any, ...]


class Record(NamedTuple):
    """``states`` at which steps began, every ``2**shift``-th of ``count``; the last slot is for what is not kept."""

    states: tuple[Any, ...]
    count: Any
    shift: Any


def _constant(x: Any) -> Any:
    return stop_gradient(x)


def _number(x: Any, like: Any) -> Any:
    return aval_of(like).dtype.type(x)


def _rms(x: Any) -> Any:
    return np.sqrt(np.mean(x**2))


def _either(flag: Any, new: Any, old: Any) -> Any:
    """A scalar or a vector; the old one as long as the flag is not set."""
    return np.where(flag, new, old)


def error_norm(error: Any, y0: Any, y1: Any, control: Control) -> Any:
    """Root mean square of the error in units of the tolerance; huge where it is not finite."""
    scale = control.atol + control.rtol * np.maximum(np.abs(y0), np.abs(y1))
    norm = _rms(error / scale)
    return np.where(norm < _HUGE, norm, _number(_HUGE, norm))


def first_step(f: Field, t: Any, y: Any, end: Any, control: Control) -> Any:
    """Hairer, Nørsett, Wanner I, II.4: as long as an explicit Euler step, and the change of slope over it, allow."""
    scale = control.atol + control.rtol * np.abs(y)
    slope = f(y, t)
    d0, d1 = _rms(y / scale), _rms(slope / scale)
    small = (d0 < 1e-5) | (d1 < 1e-5)
    h0 = np.where(small, _number(1e-6, d0), 0.01 * d0 / np.where(small, _number(1.0, d1), d1))
    h0 = np.minimum(as_dtype(h0, aval_of(t).dtype), end - t)
    span = as_dtype(h0, aval_of(y).dtype)
    d2 = _rms((f(y + span * slope, t + h0) - slope) / scale) / np.where(span > 0, span, _number(1.0, span))
    steep = np.maximum(d1, d2)
    flat = steep <= 1e-15
    power = (0.01 / np.where(flat, _number(1.0, steep), steep)) ** (1.0 / control.method.order)
    h1 = np.where(flat, np.maximum(_number(1e-6, span), span * 1e-3), power)
    h = np.minimum(100.0 * h0, as_dtype(h1, aval_of(t).dtype))
    h = np.minimum(h, end - t)
    h = np.where(np.isfinite(h) & (h > 0), h, (end - t) * 1e-6)
    return _constant(h if control.hmax is None else np.minimum(h, control.hmax))


def begin(f: Field, t: Any, y: Any, end: Any, control: Control) -> State:
    h = first_step(f, t, y, end, control)
    return State(t, h, y, control.method.start(f, t, y), _number(1e-4, y), np.zeros((), bool))


def attempt(f: Field, state: State, end: Any, control: Control) -> tuple[State, Step, Any, Any]:
    """One step, if the error allows it; the step size for the next. Also the step, its size and whether it counts."""
    method = control.method
    t, y = state.t, state.y
    last = _constant(t) + state.h * (1 + 1e-9) >= _constant(end)
    h = _constant(np.where(last, end - t, state.h))
    step = method.step(f, t, h, y, state.memo)
    error = error_norm(_constant(step.error), _constant(y), _constant(step.y), control)
    accepted = error <= 1.0
    power = error**method.alpha
    factor = power / (_SAFETY * state.error**method.beta)
    factor = np.maximum(np.minimum(factor, 1 / _SHRINK), 1 / _GROW)
    factor = np.where(state.rejected, np.maximum(factor, 1.0), factor)
    factor = np.where(accepted, factor, np.minimum(power / _SAFETY, 1 / _SHRINK))
    size = h / as_dtype(factor, aval_of(h).dtype)
    if control.hmax is not None:
        size = np.minimum(size, control.hmax)
    size = np.where(last & accepted, np.maximum(size, state.h), size)
    new = State(
        _either(accepted, np.where(last, end, t + h), t),
        size,
        _either(accepted, step.y, y),
        tuple([_either(accepted, a, b) for a, b in zip(step.memo, state.memo, strict=True)]),
        np.where(accepted, np.maximum(error, _number(1e-4, error)), state.error),
        ~accepted,
    )
    return new, step, h, accepted


# the record ----------------------------------------------------------------------------------------------------------


def read(slots: tuple[Any, ...], k: Any) -> list[Any]:
    """The state in slot ``k``."""
    found = []
    for s in slots:
        shape = shape_of(s)
        window = dynamic_slice(s, [k, *[_INT.type(0)] * (len(shape) - 1)], (1, *shape[1:]))
        found.append(reshape(window, shape[1:]))
    return found


def write(slots: tuple[Any, ...], k: Any, values: Any) -> tuple[Any, ...]:
    return tuple([
        dynamic_update_slice(s, expand_dims(x, (0,)), [k, *[_INT.type(0)] * len(shape_of(x))])
        for s, x in zip(slots, values, strict=True)
    ])  # fmt: skip


def empty(values: Any, slots: int) -> tuple[Any, ...]:
    """Slots for values like these, and one for what is not kept."""
    return tuple([np.zeros((slots + 1, *aval_of(x).shape), aval_of(x).dtype) for x in values])


def kept(state: State) -> tuple[Any, ...]:
    """Of a state, what the record holds. Second derivatives go through the states and times."""
    return (state.t, _constant(state.h), _constant(state.error), state.rejected, state.y)


def _add(record: Record, values: tuple[Any, ...], accepted: Any) -> Record:
    """The state at which an accepted step began."""
    slots = shape_of(record.states[0])[0] - 1
    states, count, shift = record
    full = count == shift_left(_INT.type(slots), shift)
    moves = np.where(full, _INT.type(slots // 2), _INT.type(0))

    def move(carry: Any) -> Any:
        k, states = carry
        return k + 1, write(states, k, read(states, 2 * k))

    _, states = while_loop(lambda carry: carry[0] < moves, move, (_INT.type(0), states))
    shift = shift + as_dtype(full, _INT)
    k = shift_right(count, shift)
    wanted = accepted & (shift_left(k, shift) == count)
    states = write(states, np.where(wanted, k, _INT.type(slots)), values)
    return Record(states, count + as_dtype(accepted, _INT), shift)


# the whole -----------------------------------------------------------------------------------------------------------


class Solution(NamedTuple):
    """States at the times, the status (0, or a key of `FAILED`), how many steps were taken and how many rejected."""

    ys: Any
    status: Any
    steps: Any
    rejected: Any
    record: Record | None


def integrate(f: Field, y0: Any, ts: Any, control: Control, slots: int = 0) -> Solution:
    """The solution through ``y0`` at ``ts[0]``, at increasing times ``ts``; with ``slots``, a record."""
    n_times = shape_of(ts)[0]
    zero = np.zeros((), _INT)
    if n_times == 1:
        return Solution(expand_dims(y0, (0,)), zero, zero, zero, None)
    start, end = ts[0], ts[n_times - 1]
    with quiet():
        state = begin(f, start, y0, end, control)
    blank = np.zeros_like(y0)
    with quiet():
        slope = f(y0, start)
    slope = np.where(np.isfinite(slope), slope, _number(0, y0))
    piece = Piece(state.t, _number(1, state.t), y0, (slope, blank, blank))  # a point, and its slope
    record = Record(empty(kept(state), slots), zero, zero) if slots else None

    def step(carry: Any) -> Any:
        state, piece, counts, left, status, record = carry
        values = kept(state)
        new, taken, h, accepted = attempt(f, state, end, control)
        own = (state.t, h, state.y, *taken.dense)
        held = (piece.t, piece.h, piece.y, *piece.dense)
        t, size, y, *dense = [_either(accepted, a, b) for a, b in zip(own, held, strict=True)]
        piece = Piece(t, size, y, tuple(dense))
        if record is not None:
            values = (values[0], h, *values[2:])
            record = _add(record, values, accepted)
        counts = (counts[0] + as_dtype(accepted, _INT), counts[1] + as_dtype(~accepted, _INT))
        tiny = 4 * np.finfo(aval_of(new.t).dtype).eps * np.abs(_constant(new.t)) + np.finfo(aval_of(new.t).dtype).tiny
        status = np.where((~accepted) & (new.h <= tiny), _INT.type(TOO_SMALL), status)
        left = left - 1
        status = np.where((status == 0) & (left <= 0), _INT.type(TOO_MANY_STEPS), status)
        return new, piece, counts, left, status, record

    def until(carry: Any, target: Any) -> Any:
        state, piece, counts, status, record = carry
        going = lambda c: (c[0].t < target) & (c[4] == 0)  # noqa: E731
        begun = (state, piece, counts, _INT.type(control.mxstep), status, record)
        state, piece, counts, _, status, record = while_loop(going, step, begun)
        status = np.where(state.t >= target, _INT.type(0), status)
        theta = as_dtype((target - piece.t) / piece.h, aval_of(y0).dtype)
        y = between(theta, piece.y, state.y, piece.dense)
        y = np.where(status == 0, y, _number(np.nan, y))
        return (state, piece, counts, status, record), y

    (state, piece, counts, status, record), ys = scan(until, (state, piece, (zero, zero), zero, record), ts[1:])
    ys = concatenate([expand_dims(y0, (0,)), ys], 0)
    return Solution(ys, status, counts[0], counts[1], record)
