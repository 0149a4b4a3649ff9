"""The derivative of the steps that were taken: backwards through the record, one step after the other.

A step is a function of the state at which it began, of the parameters and of the times, with the step size held. Its
results are the next state and the polynomial in between, to which the cotangents of the outputs inside it are added.
Where the record is coarser than single steps, those of a segment are taken again from its first state, under the same
control, and kept in slots of their own; so a gradient costs at most one more solution, in memory that does not grow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..control.iterate import while_loop
from ..core.avals import aval_of
from ..ops.dynamic import dynamic_update_slice
from ..ops.elementwise import shift_left, shift_right
from ..ops.promotion import as_dtype
from ..ops.structural import reshape, shape_of
from ..transforms.derive import vjp
from .loop import Control, Record, State, attempt, empty, read, write
from .methods import Field, between

__all__ = ["pull"]

_INT = np.dtype(np.int64)


def _row(x: Any, k: Any) -> Any:
    return read((x,), k)[0]


def pull(
    field: Callable[..., Field],
    params: Sequence[Any],
    ts: Any,
    record: Record,
    cts: Any,
    control: Control,
) -> tuple[Any, Any, list[Any]]:
    """Cotangents of the first state, of the times and of the parameters, from those of the states at the times.

    Args:
        field: ``field(*params)`` is the right-hand side ``f(y, t)``.
        cts: as the solution, (number of times, n).
    """
    f = field(*params)
    states, count, shift = record
    slots = shape_of(states[0])[0] - 1
    end = ts[shape_of(ts)[0] - 1]
    most = control.mxstep * shape_of(ts)[0]
    n_segments = shift_right(count + shift_left(_INT.type(1), shift) - 1, shift)
    dtype = aval_of(states[-1]).dtype

    def one_step(h: Any) -> Callable[..., Any]:
        def step(y: Any, t: Any, *params: Any) -> Any:
            g = field(*params)
            taken = control.method.step(g, t, h, y, control.method.start(g, t, y))
            return taken.y, taken.dense

        return step

    def back(own: tuple[Any, ...], acc: Any) -> Any:
        """One step backwards: first the outputs inside it, then the step."""
        t, h, y = own
        ct_y1, ct_t0, ct_ts, ct_params, output = acc
        (y1, dense), pullback = vjp(one_step(h), y, t, *params)

        def one_output(carry: Any) -> Any:
            k, ct_y0, ct_y1, ct_dense, ct_t, ct_ts = carry
            inside = lambda a, b, q, at, t: between(as_dtype((at - t) / h, dtype), a, b, q)  # noqa: E731
            _, pull_inside = vjp(inside, y, y1, dense, _row(ts, k), t)
            a, b, q, at, before = pull_inside(_row(cts, k))
            ct_ts = dynamic_update_slice(ct_ts, reshape(at, (1,)), [k])
            ct_dense = tuple([x + d for x, d in zip(ct_dense, q, strict=True)])
            return k - 1, ct_y0 + a, ct_y1 + b, ct_dense, ct_t + before, ct_ts

        zero = np.zeros_like(y)
        begun = (output, zero, ct_y1, (zero, zero, zero), np.zeros_like(t), ct_ts)
        going = lambda c: (c[0] > 0) & (_row(ts, np.maximum(c[0], _INT.type(0))) > t)  # noqa: E731
        output, ct_y0, ct_y1, ct_dense, ct_t, ct_ts = while_loop(going, one_output, begun)
        from_y, from_t, *from_params = pullback((ct_y1, ct_dense))
        ct_params = tuple([a + b for a, b in zip(ct_params, from_params, strict=True)])
        return ct_y0 + from_y, ct_t0 + ct_t + from_t, ct_ts, ct_params, output

    def segment(carry: Any) -> Any:
        k, local, acc = carry
        k = k - 1
        t, h, error, rejected, y = read(states, k)
        (following,) = read(states[:1], np.minimum(k + 1, _INT.type(slots)))
        stop = np.where(k + 1 < n_segments, following, end)
        single = shift == 0
        begun = State(t, h, y, control.method.start(f, t, y), error, rejected)
        local = write(local, _INT.type(0), (t, h, y))

        def forwards(carry: Any) -> Any:
            number, state, local, tries = carry
            new, _, h, accepted = attempt(f, state, stop, control)
            local = write(local, np.where(accepted, number, _INT.type(slots)), (state.t, h, state.y))
            return np.minimum(number + as_dtype(accepted, _INT), _INT.type(slots)), new, local, tries + 1

        going = lambda c: ~single & (c[1].t < stop) & (c[0] < slots) & (c[3] < most)  # noqa: E731
        number, _, local, _ = while_loop(going, forwards, (_INT.type(0), begun, local, _INT.type(0)))
        number = np.where(single, _INT.type(1), number)

        def backwards(carry: Any) -> Any:
            number, acc = carry
            return number - 1, back(tuple(read(local, number - 1)), acc)

        _, acc = while_loop(lambda c: c[0] > 0, backwards, (number, acc))
        return k, local, acc

    y, t = states[-1][0], states[0][0]
    n_times = shape_of(ts)[0]
    zeros = tuple([np.zeros(aval_of(p).shape, aval_of(p).dtype) for p in params])
    acc = (np.zeros_like(y), np.zeros_like(t), np.zeros_like(ts), zeros, _INT.type(n_times - 1))
    begun = (n_segments, empty((t, t, y), slots), acc)
    _, _, (ct_y, ct_t0, ct_ts, ct_params, output) = while_loop(lambda c: c[0] > 0, segment, begun)

    slope = f(y, t)

    def at_start(carry: Any) -> Any:
        """Output times that are equal to the first one."""
        k, ct_y, ct_t0, ct_ts = carry
        ct = _row(cts, k)
        along = as_dtype(np.sum(ct * slope), aval_of(ts).dtype)
        return k - 1, ct_y + ct, ct_t0 - along, dynamic_update_slice(ct_ts, reshape(along, (1,)), [k])

    _, ct_y, ct_t0, ct_ts = while_loop(lambda c: c[0] > 0, at_start, (output, ct_y, ct_t0, ct_ts))
    ct_y = ct_y + cts[0]
    ct_ts = dynamic_update_slice(ct_ts, reshape(ct_t0, (1,)), [_INT.type(0)])
    return ct_y, ct_ts, list(ct_params)
