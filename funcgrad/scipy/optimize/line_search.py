"""A step that satisfies the strong Wolfe conditions (Nocedal and Wright, Numerical Optimization, algorithms 3.5, 3.6).

Bracketing and zooming are one loop, so that batches of searches share their evaluations. Close to a minimum, where
the decrease is lost in rounding, the approximate condition of Hager and Zhang (SIAM J. Optim. 16, 2005) takes its
place: it asks of slopes what the values cannot tell any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...control.iterate import while_loop

__all__ = ["Step", "line_search"]

DECREASE, CURVATURE = 1e-4, 0.9


class Point(NamedTuple):
    """A place on the line: the step, the value there and the slope."""

    a: Any
    f: Any
    d: Any


class Step(NamedTuple):
    """``ok``: a lower point was found; ``a, f, g``: the step, the value and the gradient there; ``n``: evaluations."""

    ok: Any
    a: Any
    f: Any
    g: Any
    n: Any


class _State(NamedTuple):
    low: Point  # the best point so far that decreases enough
    high: Point  # the other end of the bracket
    g_low: Any
    a: Any  # where to look next
    zooming: Any
    done: Any  # the conditions hold at ``low``
    over: Any  # there is nothing left to look at
    n: Any


def _chosen(which: Any, x: Any, y: Any) -> Point:
    return Point(*[np.where(which, a, b) for a, b in zip(x, y, strict=True)])


def _between(p: Point, q: Point) -> Any:
    """The minimum of the cubic through two points, well inside of them; the middle where there is none."""
    width = q.a - p.a
    e = p.d + q.d - 3 * (p.f - q.f) / (p.a - q.a)
    root = np.sign(width) * np.sqrt(e**2 - p.d * q.d)
    a = q.a - width * (q.d + root - e) / (q.d - p.d + 2 * root)
    share = (a - p.a) / width
    return p.a + width * np.where(np.isfinite(share), np.clip(share, 0.1, 0.9), 0.5)


def line_search(
    value_and_grad: Callable[[Any], tuple[Any, Any]], x: Any, f: Any, g: Any, p: Any, first: Any, maxls: Any
) -> Step:
    """Search along ``p`` from ``x``, where value and gradient are ``f`` and ``g``, with ``first`` as first step."""
    slope = np.vdot(p, g)
    eps = np.finfo(x.dtype).eps
    slack = 10 * eps * np.abs(f)

    def look(s: _State) -> _State:
        value, gradient = value_and_grad(x + s.a * p)
        here = Point(s.a, value, np.vdot(gradient, p))
        nearly = (here.f <= f + slack) & (here.d <= (2 * DECREASE - 1) * slope)
        enough = (here.f <= f + DECREASE * here.a * slope) | nearly
        finite = np.isfinite(here.f) & np.isfinite(here.d)
        above = ~finite | ~enough | ((here.f >= s.low.f) & ~nearly)
        done = ~above & (np.abs(here.d) <= -CURVATURE * slope)
        rising = ~above & np.where(s.zooming, here.d * (s.high.a - s.low.a) >= 0, here.d >= 0)
        zooming = s.zooming | above | rising
        high = _chosen(above, here, _chosen(rising, s.low, s.high))
        low = _chosen(above, s.low, here)
        g_low = np.where(above, s.g_low, gradient)
        a = np.where(zooming, _between(low, high), 2 * here.a)
        over = zooming & (np.abs(high.a - low.a) <= eps * np.abs(high.a))
        return _State(low, high, g_low, a, zooming, done, over, s.n + 1)

    zero = x.dtype.type(0)
    start = Point(zero, f, slope)
    first = np.where(np.isfinite(first), first, 1)
    no = np.bool_(False)
    begin = _State(start, start, g, first, no, no, no, 0)
    s = while_loop(lambda s: ~s.done & ~s.over & (s.n < maxls), look, begin)
    return Step(s.done | (s.low.f < f), s.low.a, s.low.f, s.g_low, s.n)
