"""Taylor mode: the derivatives of a function along a curve, all orders in one sweep.

A ``JetTracer`` is a value with its derivatives ``x1, x2, ..`` along the curve. Most operations need no rule of their
own. Their JVP says what ``y'`` is, given ``x``, ``x'`` and ``y``; run on truncated series in place of values, of one
order less, it gives the series of ``y'``, which is that of ``y`` from the second term on. A rule that reads ``y`` is an
ordinary differential equation, whose terms are found one by one (``exp``: ``y' = x' y``). A rule that reads other
functions of ``x`` asks for their series, of lower order again (``sin``: ``y' = x' cos(x)``). So whatever can be
differentiated has its Taylor series.

Products, which this would make exponential, have Leibniz's rule; what is linear acts term by term.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..core.avals import ShapedArray, aval_of
from ..core.primitive import ZERO, NotDifferentiable, Primitive, ZeroDerivative
from ..core.trace import STATE, Trace, Tracer, opened
from ..ops.conv import conv_p
from ..ops.dot import dot_general_p
from ..ops.elementwise import (
    add_p,
    conj_p,
    convert_p,
    div_p,
    imag_p,
    mul,
    mul_no_nan_p,
    mul_p,
    neg_p,
    real_p,
    square_p,
    sub_p,
)
from ..ops.marks import optimization_barrier_p
from ..ops.structural import broadcast_to, is_linear_unary, shape_of
from ..ops.transcendental import exp, log, pow_p
from .forward import refuse, tangent_zeros

__all__ = ["RULES", "JetTrace", "JetTracer", "jet_flat", "terms_of"]

Series = list[Any]
"""The derivatives of a value from the first on; ``ZERO`` where one is known to be zero."""

Rule = Callable[..., tuple[Any, Any]]
RULES: dict[Primitive, Rule] = {}
"""``rule(order, primals, series, **params)``: the result and its series (tuples of them for several), where a rule of
its own is better than what follows from the JVP. A series is a list of ``order`` terms."""


class _NotKnownYet(Exception):
    """The series of a result was read before it is known."""


class JetTracer(Tracer):
    """A value with its derivatives; ``series`` is None for a result whose derivatives are only being worked out."""

    __slots__ = ("primal", "series")
    contents = ("primal", "series")

    def __init__(self, trace: JetTrace, primal: Any, series: Series | None) -> None:
        self._trace = trace
        self._views = None
        self.primal = primal
        self.series = series

    @property
    def aval(self) -> ShapedArray:
        return aval_of(self.primal)

    def origin(self) -> str:
        return "a jet" + self._trace.of_user()


class JetTrace(Trace):
    __slots__ = ("order",)

    def __init__(self, parent: Trace, order: int, user: Callable[..., Any] | None = None) -> None:
        super().__init__(parent, user)
        self.order = order

    def split(self, x: Any) -> tuple[Any, Series | None]:
        if type(x) is JetTracer and x._trace is self:
            return x.primal, x.series
        return x, [ZERO] * self.order

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        pairs = [self.split(x) for x in args]
        primals = tuple([p for p, _ in pairs])
        rule = primitive.jvp
        parent = self.parent
        assert parent is not None
        series: list[Series] = []
        constant = isinstance(rule, ZeroDerivative)
        for _, s in pairs:
            if s is None:
                if not constant:
                    raise _NotKnownYet
            else:
                series.append(s)
        if constant or all([t is ZERO for s in series for t in s]):
            return parent.process(primitive, primals, params)
        if isinstance(rule, NotDifferentiable):
            raise refuse(primitive, rule)
        saved, STATE.trace = STATE.trace, parent
        try:
            own = _linear(primitive) if is_linear_unary(primitive) else RULES.get(primitive)
            if own is not None:
                out, terms = own(self.order, primals, series, **params)
            else:
                out, terms = _from_jvp(primitive, self.order, primals, series, params)
        finally:
            STATE.trace = saved
        if primitive.multiple_results:
            return tuple([self.tracer(y, t) for y, t in zip(out, terms, strict=True)])
        return self.tracer(out, terms)

    def tracer(self, primal: Any, series: Series) -> Any:
        return primal if all([t is ZERO for t in series]) else JetTracer(self, primal, series)


def jet_flat(
    fun: Callable[..., Sequence[Any]],
    primals: Sequence[Any],
    series: Sequence[Series],
    order: int,
    user: Callable[..., Any] | None = None,
) -> tuple[list[Any], list[Series]]:
    """``fun(*primals)`` and the series of its results, all flat; every series has ``order`` terms."""
    trace = JetTrace(STATE.trace, order, user)
    with opened(trace):
        outs = fun(*[trace.tracer(p, list(s)) for p, s in zip(primals, series, strict=True)])
    pairs = [trace.split(x) for x in outs]
    return [p for p, _ in pairs], [[ZERO] * order if s is None else s for _, s in pairs]


def terms_of(primal: Any, series: Series) -> list[Any]:
    """The terms as values, zeros where they are ``ZERO``."""
    return [tangent_zeros(aval_of(primal)) if t is ZERO else t for t in series]


# what follows from the JVP --------------------------------------------------------------------------------------------


def _from_jvp(
    primitive: Primitive, order: int, primals: tuple[Any, ...], series: list[Series], params: dict[str, Any]
) -> Any:
    out = primitive.bind(*primals, **params)
    outs = tuple(out) if primitive.multiple_results else (out,)
    try:
        rates = _rates(primitive, order - 1, primals, series, outs, [None] * len(outs), params)
    except _NotKnownYet:
        known: list[Series] = [[] for _ in outs]
        for k in range(order):
            rates = _rates(primitive, k, primals, series, outs, known, params)
            for s, r in zip(known, rates, strict=True):
                s.append(r[k])
        rates = known
    return (out, rates) if primitive.multiple_results else (out, rates[0])


def _rates(
    primitive: Primitive,
    order: int,
    primals: tuple[Any, ...],
    series: list[Series],
    outs: tuple[Any, ...],
    known: Sequence[Series | None],
    params: dict[str, Any],
) -> list[Series]:
    """The first ``order + 1`` terms of the results, by the JVP rule on series of ``order`` terms. ``known``: as many
    terms of the results, or None."""
    trace = JetTrace(STATE.trace, order)

    def value(x: Any, terms: Series) -> Any:
        return trace.tracer(x, terms[:order])

    def rate(x: Any, terms: Series) -> Any:
        if all([t is ZERO for t in terms[: order + 1]]):
            return ZERO
        first = tangent_zeros(aval_of(x)) if terms[0] is ZERO else terms[0]
        return trace.tracer(first, terms[1 : order + 1])

    pairs = list(zip(primals, series, strict=True))
    tangents = [rate(x, s) for x, s in pairs]
    if all([t is ZERO for t in tangents]):
        return [[ZERO] * (order + 1) for _ in outs]
    results = [
        y if not order or aval_of(y).dtype.kind not in "fc" else JetTracer(trace, y, None if s is None else s[:order])
        for y, s in zip(outs, known, strict=True)
    ]
    with opened(trace):
        given = tuple(results) if primitive.multiple_results else results[0]
        assert callable(primitive.jvp)
        t = primitive.jvp([value(x, s) for x, s in pairs], tangents, given, **params)
    ts = t if primitive.multiple_results else (t,)
    rates = []
    for r in ts:
        if r is ZERO:
            rates.append([ZERO] * (order + 1))
            continue
        first, rest = trace.split(r)
        if rest is None:
            raise _NotKnownYet
        rates.append([first, *rest])
    return rates


# rules of their own -------------------------------------------------------------------------------------------------


def _times(k: int, x: Any) -> Any:
    return x if k == 1 else mul(aval_of(x).dtype.type(k), x)


def _add(x: Any, y: Any) -> Any:
    return y if x is ZERO else x if y is ZERO else add_p.bind(x, y)


def _bilinear(primitive: Primitive) -> Rule:
    """Leibniz: ``(x y)_n`` is the sum of ``binomial(n, k) x_k y_(n-k)``."""

    def rule(order: int, primals: Sequence[Any], series: Sequence[Series], **params: Any) -> Any:
        xs, ys = ([p, *s] for p, s in zip(primals, series, strict=True))
        terms = []
        for n in range(1, order + 1):
            total: Any = ZERO
            for k in range(n + 1):
                if xs[k] is not ZERO and ys[n - k] is not ZERO:
                    product = primitive.bind(xs[k], ys[n - k], **params)
                    total = _add(total, _times(math.comb(n, k), product))
            terms.append(total)
        return primitive.bind(*primals, **params), terms

    return rule


def _square(order: int, primals: Sequence[Any], series: Sequence[Series]) -> Any:
    _, terms = RULES[mul_p](order, (primals[0], primals[0]), (series[0], series[0]))
    return square_p.bind(primals[0]), terms


def _divide(order: int, primals: Sequence[Any], series: Sequence[Series]) -> Any:
    """``z y = x``, solved for the last term of ``z``."""
    (x, y), (xs, ys) = primals, series
    out = div_p.bind(x, y)
    shape = shape_of(out)
    zs = [out]
    for n in range(1, order + 1):
        total: Any = ZERO
        for k in range(1, n + 1):
            if ys[k - 1] is not ZERO and zs[n - k] is not ZERO:
                total = _add(total, _times(math.comb(n, k), mul(ys[k - 1], zs[n - k])))
        over = xs[n - 1]
        if total is not ZERO:
            over = neg_p.bind(total) if over is ZERO else sub_p.bind(over, total)
        zs.append(ZERO if over is ZERO else broadcast_to(div_p.bind(over, y), shape))
    return out, zs[1:]


def _sum(primitive: Primitive) -> Rule:
    def rule(order: int, primals: Sequence[Any], series: Sequence[Series]) -> Any:
        out = primitive.bind(*primals)
        shape = shape_of(out)
        terms = []
        for x, y in zip(*series, strict=True):
            if y is ZERO:
                terms.append(x if x is ZERO else broadcast_to(x, shape))
            elif x is ZERO:
                terms.append(broadcast_to(y if primitive is add_p else neg_p.bind(y), shape))
            else:
                terms.append(primitive.bind(x, y))
        return out, terms

    return rule


def _linear(primitive: Primitive) -> Rule:
    def rule(order: int, primals: Sequence[Any], series: Sequence[Series], **params: Any) -> Any:
        terms = [t if t is ZERO else primitive.bind(t, **params) for t in series[0]]
        return primitive.bind(*primals, **params), terms

    return rule


def _convert(order: int, primals: Sequence[Any], series: Sequence[Series], **params: Any) -> Any:
    out = convert_p.bind(*primals, **params)
    if params["dtype"].kind not in "fc":
        return out, [ZERO] * order
    strong = {**params, "weak": False}
    return out, [t if t is ZERO else convert_p.bind(t, **strong) for t in series[0]]


def _power(order: int, primals: Sequence[Any], series: Sequence[Series]) -> Any:
    """A constant exponent falls from order to order; one that varies is that of an exponential."""
    if all([t is ZERO for t in series[1]]):
        return _from_jvp(pow_p, order, tuple(primals), list(series), {})
    (_,), (terms,) = jet_flat(lambda x, y: [exp(mul(y, log(x)))], primals, series, order)
    return pow_p.bind(*primals), terms


def _barrier(order: int, primals: Sequence[Any], series: Sequence[Series]) -> Any:
    given = [t for s in series for t in s if t is not ZERO]
    passed = iter(optimization_barrier_p.bind(*primals, *given))
    outs = [next(passed) for _ in primals]
    return outs, [[t if t is ZERO else next(passed) for t in s] for s in series]


RULES.update({p: _bilinear(p) for p in (mul_p, mul_no_nan_p, dot_general_p, conv_p)})
RULES.update({p: _linear(p) for p in (neg_p, real_p, imag_p, conj_p)})
RULES.update({p: _sum(p) for p in (add_p, sub_p)})
RULES.update({square_p: _square, div_p: _divide, convert_p: _convert, pow_p: _power, optimization_barrier_p: _barrier})
