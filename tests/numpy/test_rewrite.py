"""Errors of Python's own control flow show the user's statement, rewritten; and what they show runs."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax


def sign(x):
    if x > 0:
        return np.sin(x)
    return -x


def sign_with_else(x):
    if x > 0:
        return np.sin(x)
    else:
        return -x


def assigned(x):
    y = x * 2
    if y > 1:
        y -= 1
    return y


def two_names(x):
    y = x * 2
    if y > 1:
        z = y - 1
        y = np.sin(z)
    else:
        z = y
    return y + z


def expression(x):
    return x + (np.sin(x) if x > 0 else x**2)


def halved(x):
    while x > 1:
        x = x / 2
    return x


def counted(x):
    n = 0
    while x > 1 and True:
        half = x / 2
        x = half
        n += 1
    return x + n


def power(x):
    n, y = np.floor(x).astype(int), x
    for i in range(n):
        y = np.sin(y) * (i + 1)
    return y


def two_sums(x):
    n, a, b = np.floor(x).astype(int), x, x
    for i in range(1, n):
        t = a * i
        a = t + b
        b = t
    return a * b


ROWS = {
    sign: "return lax.cond(x > 0, lambda: np.sin(x), lambda: -x)",
    sign_with_else: "return lax.cond(x > 0, lambda: np.sin(x), lambda: -x)",
    assigned: "y = lax.cond(y > 1, lambda: y - 1, lambda: y)",
    two_names: """
        def then(y):
            z = y - 1
            y = np.sin(z)
            return z, y
        def otherwise(y):
            z = y
            return z, y
        z, y = lax.cond(y > 1, then, otherwise, y)
    """,
    expression: "lax.cond(x > 0, lambda: np.sin(x), lambda: x ** 2)",
    halved: "x = lax.while_loop(lambda x: x > 1, lambda x: x / 2, x)",
    counted: """
        def going(state):
            x, n = state
            return x > 1 and True
        def step(state):
            x, n = state
            half = x / 2
            x = half
            n += 1
            return x, n
        x, n = lax.while_loop(going, step, (x, n))
    """,
    power: "y = lax.fori_loop(0, n, lambda i, y: np.sin(y) * (i + 1), y)",
    two_sums: """
        def step(i, state):
            a, b = state
            t = a * i
            a = t + b
            b = t
            return a, b
        a, b = lax.fori_loop(1, n, step, (a, b))
    """,
}


@pytest.mark.parametrize("fun", ROWS)
def test_the_line_is_rewritten(fun: Any) -> None:
    with pytest.raises(TypeError) as found:
        fg.jit(fun)(2.5)
    wanted = textwrap.dedent(ROWS[fun]).strip()
    assert textwrap.indent(wanted, "    ") in str(found.value)
    assert "In place of `" in str(found.value)


REWRITTEN = {
    sign: lambda x: lax.cond(x > 0, lambda: np.sin(x), lambda: -x),
    assigned: lambda x: (lambda y: lax.cond(y > 1, lambda: y - 1, lambda: y))(x * 2),
    halved: lambda x: lax.while_loop(lambda x: x > 1, lambda x: x / 2, x),
}


@pytest.mark.parametrize("fun", REWRITTEN)
def test_what_is_shown_runs(fun: Any) -> None:
    for x in (-0.3, 0.2, 2.5):
        np.testing.assert_allclose(fg.jit(REWRITTEN[fun])(x), fun(x))


def returns_from_a_loop(x):
    while x > 1:
        if x.size == 1:
            return x
        x = x / 2
    return x


def test_no_suggestion_where_there_is_none() -> None:
    for fun in (returns_from_a_loop, eval("lambda x: x if x > 0 else -x")):
        with pytest.raises(fg.errors.TracerBoolError) as found:
            fg.jit(fun)(2.5)
        assert "In place of" not in str(found.value) and "lax.cond(condition" in str(found.value)


def test_values_decide_under_eager_derivatives() -> None:
    assert fg.grad(sign)(-1.0) == -1
    assert fg.jet.jet(sign, (-1.0,), ([1.0, 0.0],))[1] == [-1, 0]
