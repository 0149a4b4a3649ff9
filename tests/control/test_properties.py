"""Random programs with loops and branches: every transform against what it means.

A program is a nest of steps on a state ``(vector, scalar, counter)``; an interpreter of a few lines, which knows no
``lax``, says what it means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import funcgrad as fg
from funcgrad import lax

ATOMS = {
    "sin": lambda s: (np.sin(s[0]), s[1], s[2]),
    "mix": lambda s: (s[0] * s[1], np.cos(s[1]) + s[0][0], s[2]),
    "sum": lambda s: (s[0], s[1] * 0.5 + np.sum(s[0]), s[2]),
    "roll": lambda s: (s[0][::-1] - 0.5, s[1], s[2]),
    "count": lambda s: (s[0] * 0.5, s[1] + s[2], s[2] + 1),
    "swap": lambda s: (s[0] + s[1], s[0][1], s[2]),
    "freeze": lambda s: (s[0] * lax.stop_gradient(s[1]) * 0.5, s[1], s[2]),
    "still": lambda s: s,
}
atoms = st.sampled_from(sorted(ATOMS)).map(lambda name: ("atom", name))
lengths = st.integers(0, 3)


def _nests(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.tuples(st.just("seq"), inner, inner),
        st.tuples(st.just("cond"), st.floats(-1, 1).map(lambda c: round(c, 3) + 0.0005), inner, inner),
        st.tuples(st.just("switch"), inner, inner, inner),
        st.tuples(st.just("fori"), lengths, inner),
        st.tuples(st.just("scan"), st.booleans(), inner),
        st.tuples(st.just("while"), lengths, inner),
        st.tuples(st.sampled_from(["jit", "checkpoint"]), inner),
    )


programs = st.recursive(atoms, _nests, max_leaves=6)


def traced(program: Any, s: Any) -> Any:
    """The program with ``lax``."""
    kind, *parts = program
    if kind == "atom":
        return ATOMS[parts[0]](s)
    if kind == "seq":
        return traced(parts[1], traced(parts[0], s))
    if kind == "cond":
        return lax.cond(np.sum(s[0]) > parts[0], lambda s: traced(parts[1], s), lambda s: traced(parts[2], s), s)
    if kind == "switch":
        return lax.switch(s[2] % 4, [lambda s, p=p: traced(p, s) for p in parts], s)
    if kind == "fori":
        first = s[0]
        return lax.fori_loop(0, parts[0], lambda i, s: _mixed(traced(parts[1], s), first, i), s)
    if kind == "scan":
        step = lambda c, x: (_mixed(traced(parts[1], c), x, 1), c[0] * x)  # noqa: E731
        (v, a, n), ys = lax.scan(step, s, np.stack([s[0], s[0] * 0.3]), reverse=parts[0])
        return v, a + np.sum(ys), n
    if kind == "while":
        going = lambda c: c[0] < parts[0]  # noqa: E731
        return lax.while_loop(going, lambda c: (c[0] + 1, traced(parts[1], c[1])), (0, s))[1]
    return getattr(fg, kind)(lambda *s: traced(parts[0], s))(*s)


def _mixed(s: Any, v: Any, k: Any) -> Any:
    return np.tanh(s[0] + 0.1 * v * k), np.tanh(s[1]), s[2]


def meaning(program: Any, s: Any) -> Any:
    """The program in Python."""
    kind, *parts = program
    if kind == "atom":
        return ATOMS[parts[0]](s)
    if kind == "seq":
        return meaning(parts[1], meaning(parts[0], s))
    if kind == "cond":
        return meaning(parts[1] if np.sum(s[0]) > parts[0] else parts[2], s)
    if kind == "switch":
        return meaning(parts[min(int(s[2] % 4), 2)], s)
    if kind == "fori":
        first = s[0]
        for i in range(parts[0]):
            s = _mixed(meaning(parts[1], s), first, i)
        return s
    if kind == "scan":
        xs, total = [s[0], s[0] * 0.3], 0.0
        for x in xs[::-1] if parts[0] else xs:
            total = total + np.sum(s[0] * x)
            s = _mixed(meaning(parts[1], s), x, 1)
        return s[0], s[1] + total, s[2]
    if kind == "while":
        for _ in range(parts[0]):
            s = meaning(parts[1], s)
        return s
    return meaning(parts[0], s)


def scalar(run: Any, program: Any) -> Any:
    def fun(v: Any, a: Any, n: Any = 1) -> Any:
        v, a, n = run(program, (v, a, n))
        return np.sum(np.sin(v)) + np.sin(a) * np.cos(0.1 * n)

    return fun


V, A = np.array([0.31, -0.62, 0.47]), 0.83
DV, DA = np.array([0.4, 0.9, -0.7]), -0.6
BATCH = np.stack([V, -V, V * 0.5 + 0.2])


@given(programs)
def test_forward(program: Any) -> None:
    f, python = scalar(traced, program), scalar(meaning, program)
    wanted = python(V, A)
    np.testing.assert_allclose(f(V, A), wanted, rtol=1e-12)
    np.testing.assert_allclose(fg.jit(f)(V, A), wanted, rtol=1e-12)
    loop = [python(v, A) for v in BATCH]
    np.testing.assert_allclose(fg.vmap(f, (0, None))(BATCH, A), loop, rtol=1e-11)
    np.testing.assert_allclose(fg.jit(fg.vmap(f, (0, None)))(BATCH, A), loop, rtol=1e-11)
    push = lambda v, a: fg.jvp(f, (v, a), (DV, DA))[1]  # noqa: E731
    tangent = push(V, A)
    np.testing.assert_allclose(fg.jit(push)(V, A), tangent, rtol=1e-10, atol=1e-12)
    if "freeze" not in repr(program):
        h = 1e-4
        values = [python(V + k * h * DV, A + k * h * DA) for k in (-2, -1, 1, 2)]
        slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
        np.testing.assert_allclose(tangent, slope, rtol=1e-5, atol=1e-6)


@settings(max_examples=20)
@given(programs)
def test_reverse(program: Any) -> None:
    f = scalar(traced, program)
    gradient = fg.grad(f, (0, 1))
    gv, ga = gradient(V, A)
    np.testing.assert_allclose(gv @ DV + ga * DA, fg.jvp(f, (V, A), (DV, DA))[1], rtol=1e-9, atol=1e-11)
    for found in (fg.jit(gradient)(V, A), fg.grad(fg.jit(f), (0, 1))(V, A)):
        np.testing.assert_allclose(found[0], gv, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(found[1], ga, rtol=1e-9, atol=1e-11)
    each = np.stack([gradient(v, A)[0] for v in BATCH])
    np.testing.assert_allclose(fg.vmap(gradient, (0, None))(BATCH, A)[0], each, rtol=1e-9, atol=1e-10)
    total = fg.grad(lambda vs: np.sum(fg.vmap(f, (0, None))(vs, A)))(BATCH)
    np.testing.assert_allclose(total, each, rtol=1e-9, atol=1e-10)
    along = lambda d: lambda v: fg.grad(f)(v, A) @ d  # noqa: E731
    e, d = np.array([0.2, -0.5, 0.8]), DV
    symmetric = "freeze" not in repr(program)
    once, twice = fg.grad(along(d))(V) @ e, fg.grad(along(e))(V) @ d
    if symmetric:
        np.testing.assert_allclose(once, twice, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(once, fg.jvp(along(d), (V,), (e,))[1], rtol=1e-8, atol=1e-9)
