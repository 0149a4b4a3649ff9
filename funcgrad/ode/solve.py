"""A solution with its derivatives: one operation, whose tangents are one linear call.

Forward mode pushes tangents along with the steps. Reverse mode goes back through the record of the steps
(``ode.discrete``), or solves the adjoint equation backwards (``ode.continuous``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..control.custom_functions import custom_jvp
from ..control.linear_call import linear_call
from ..core.avals import aval_of
from ..ops.elementwise import convert_element_type
from ..ops.stop import stop_gradient
from ..ops.structural import shape_of
from ..transforms.derive import jvp, quiet
from . import continuous, discrete
from .loop import Control, Solution, integrate
from .methods import Field

__all__ = ["ADJOINTS", "Problem", "solve"]

ADJOINTS = ("discrete", "continuous")
_MOST_SLOTS, _FEWEST_SLOTS, _RECORD = 512, 64, 8192


class Problem(NamedTuple):
    """``field(*fixed, *params)`` is the right-hand side; ``fixed`` are what no derivative is taken by."""

    field: Callable[..., Field]
    fixed: tuple[Any, ...]
    params: tuple[Any, ...]


def _slots(n: int, n_times: int, control: Control) -> int:
    """So many that two levels of them hold all the steps that there may be."""
    least = math.isqrt(max(n_times - 1, 1) * control.mxstep) + 2
    chosen = max(least, min(max(_RECORD // max(n, 1), _FEWEST_SLOTS), _MOST_SLOTS))
    return chosen + chosen % 2


def solve(problem: Problem, y0: Any, ts: Any, control: Control, adjoint: str) -> Solution:
    """The solution through ``y0`` at the increasing times ``ts``; differentiable by ``y0``, ``ts`` and the params."""
    fixed = tuple([stop_gradient(x) for x in problem.fixed])
    tolerances = (stop_gradient(control.rtol), stop_gradient(control.atol))

    def at(fixed: Sequence[Any]) -> Callable[..., Field]:
        return lambda *params: problem.field(*fixed, *params)

    def run(fixed: Any, tolerances: Any, y0: Any, ts: Any, params: Any, slots: int = 0) -> Solution:
        wanted = control._replace(rtol=tolerances[0], atol=tolerances[1])
        with quiet():  # values that are not finite are a status, not a warning
            return integrate(at(fixed)(*params), y0, ts, wanted, slots)

    def results(solution: Solution) -> Any:
        """The counts as floating-point numbers, which have tangents, of zero."""
        numbers = (solution.status, solution.steps, solution.rejected)
        return solution.ys, tuple([convert_element_type(x, np.dtype(np.float64)) for x in numbers])

    @custom_jvp
    def solution(fixed: Any, tolerances: Any, y0: Any, ts: Any, params: Any) -> Any:
        return results(run(fixed, tolerances, y0, ts, params))

    def rule(primals: Any, tangents: Any) -> Any:
        fixed, tolerances, y0, ts, params = primals
        n_times, n = shape_of(ts)[0], shape_of(y0)[0]
        slots = _slots(n, n_times, control) if adjoint == "discrete" and n_times > 1 else 0
        solved = run(fixed, tolerances, y0, ts, params, slots)
        known = (fixed, tolerances, y0, ts, params, solved.ys, solved.status, solved.record)
        ys_dot = linear_call(push, pull, known, tuple(tangents[2:]))
        ys, numbers = results(solved)
        return (ys, numbers), (ys_dot, tuple([np.zeros_like(x) for x in numbers]))

    def push(known: Any, tangents: Any) -> Any:
        fixed, tolerances, y0, ts, params, *_ = known
        moved = lambda y0, ts, params: run(fixed, tolerances, y0, ts, params).ys  # noqa: E731
        return jvp(moved, (y0, ts, params), tangents)[1]

    def pull(known: Any, cts: Any) -> Any:
        fixed, tolerances, _, ts, params, ys, status, record = known
        wanted = control._replace(rtol=tolerances[0], atol=tolerances[1])
        if shape_of(ts)[0] == 1:
            return cts[0], np.zeros_like(ts), tuple([np.zeros_like(p) for p in params])
        if adjoint == "discrete":
            record = record._replace(count=np.where(status == 0, record.count, np.zeros((), record.count.dtype)))
            pulled = discrete.pull(at(fixed), params, ts, record, cts, wanted)
        else:
            pulled = continuous.pull(at(fixed), params, ts, ys, cts, wanted)
        ct_y, ct_ts, ct_params = pulled
        ct_y, ct_ts, *ct_params = [
            np.where(status == 0, x, aval_of(x).dtype.type(np.nan)) for x in (ct_y, ct_ts, *ct_params)
        ]
        return ct_y, ct_ts, tuple(ct_params)

    solution.defjvp(rule)
    ys, numbers = solution(fixed, tolerances, y0, ts, problem.params)
    status, steps, rejected = [convert_element_type(x, np.dtype(np.int64)) for x in numbers]
    return Solution(ys, status, steps, rejected, None)
