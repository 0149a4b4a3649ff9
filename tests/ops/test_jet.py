"""Taylor mode of every primitive that has a derivative, against derivatives of derivatives along the same curve."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from funcgrad.core.avals import aval_of
from funcgrad.core.jaxpr import check_jaxpr, eval_jaxpr
from funcgrad.core.staging import stage
from funcgrad.transforms.forward import jvp_flat
from funcgrad.transforms.taylor import jet_flat, terms_of

from .test_registry import SMOOTH, STRUCTURE, Row, instantiated, random_like

ORDER = 5


def along(row: Row, series: list[list[Any]], order: int) -> list[list[Any]]:
    """The derivatives of a row's results along the curve of the given derivatives, by nested JVPs."""

    def at(t: Any) -> list[Any]:
        moved = []
        for x, s in zip(row.primals, series, strict=True):
            dtype = np.asarray(x).dtype
            for k, term in enumerate(s, 1):
                x = x + term * (t**k * dtype.type(1 / math.factorial(k)))
            moved.append(x)
        return row(*moved)

    derivatives = [at]
    for _ in range(order):
        inner = derivatives[-1]

        def next_one(t: Any, inner: Any = inner) -> list[Any]:
            outs, ts = jvp_flat(inner, [t], [np.float64(1.0)])
            return instantiated(ts, outs)

        derivatives.append(next_one)
    return [list(column) for column in zip(*[d(np.float64(0.0)) for d in derivatives], strict=True)]


@pytest.mark.parametrize("name", SMOOTH)
def test_against_nested_jvps(name: str, rng: np.random.Generator) -> None:
    row = SMOOTH[name]
    kind = STRUCTURE.get(row.primitive.name, lambda x: x)
    order = ORDER
    series = [[kind(random_like(rng, x)) for _ in range(order)] for x in row.primals]
    if not all([np.asarray(x).dtype == np.float64 for x in row.primals]):
        order = 1
        series = [s[:1] for s in series]
        outs, ts = jvp_flat(row, row.primals, [s[0] for s in series])
        expected = [[y, t] for y, t in zip(outs, instantiated(ts, outs), strict=True)]
    else:
        expected = along(row, series, order)
    outs, found = jet_flat(row, row.primals, series, order)
    for y, s, column in zip(outs, found, expected, strict=True):
        for k, (a, b) in enumerate(zip([y, *terms_of(y, s)], column, strict=True)):
            scale = 1 + float(np.max(np.abs(b), initial=0.0))
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8 * scale, err_msg=f"order {k}")


@pytest.mark.parametrize("name", [n for n in SMOOTH if n.endswith("-0")])
def test_staged(name: str, rng: np.random.Generator) -> None:
    """On tracers that know only shapes: the program checks, and evaluates to the same."""
    row = SMOOTH[name]
    kind = STRUCTURE.get(row.primitive.name, lambda x: x)
    series = [[kind(random_like(rng, x)) for _ in range(2)] for x in row.primals]
    n = len(row.primals)

    def fun(*args: Any) -> list[Any]:
        outs, found = jet_flat(row, args[:n], [list(args[n + 2 * k : n + 2 * k + 2]) for k in range(n)], 2)
        return [*outs, *[t for y, s in zip(outs, found, strict=True) for t in terms_of(y, s)]]

    args = [*row.primals, *[t for s in series for t in s]]
    closed = stage(fun, [aval_of(x) for x in args])
    check_jaxpr(closed.jaxpr)
    for a, b in zip(eval_jaxpr(closed.jaxpr, closed.consts, *args), fun(*args), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
