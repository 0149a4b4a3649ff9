# ruff: noqa: E731
"""Custom rules with JAX as the oracle (bench extra): the same text under both libraries, with rules that say another
derivative than the function has."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax as fg_lax

jax = pytest.importorskip("jax", reason="JAX is an oracle, installed with the bench extra only")
jnp = pytest.importorskip("jax.numpy", reason="JAX is an oracle, installed with the bench extra only")
custom_derivatives = pytest.importorskip("jax.custom_derivatives", reason="JAX is an oracle")

x, y = np.random.default_rng(0).normal(size=(2, 4))
X = np.random.default_rng(1).normal(size=(3, 4))
CASES = {}


def case(f):
    CASES[f.__name__] = f
    return f


@pytest.fixture(autouse=True)
def _double_precision():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def jvp_function(m, np):
    @m.custom_jvp
    def f(x, y):
        return np.sin(x) * y

    @f.defjvp
    def rule(primals, tangents):
        x, y = primals
        return f(x, y), 2 * np.cos(x) * tangents[0] * y + 3 * tangents[1] * np.sin(x)

    return f


def vjp_function(m, np):
    f = m.custom_vjp(lambda x, y: np.sin(x) * y)
    f.defvjp(lambda x, y: (f(x, y), (x, y)), lambda r, ct: (2 * np.cos(r[0]) * ct * r[1], 3 * ct * np.sin(r[0])))
    return f


def _everywhere(m, np, lax, f, modes):
    loss = lambda x, y: np.sum(f(x, y) ** 2)
    step = lambda x: lax.scan(lambda c, v: (f(c, v), f(v, c)), x, X)
    scanned = lambda x: np.sum(step(x)[0]) + np.sum(step(x)[1] ** 2)
    branched = lambda p, x: np.sum(lax.cond(p > 0, lambda x: f(x, y), lambda x: f(x * 2, x), x))
    results = [f(x, y), m.jit(f)(x, y), m.vmap(f, (0, None), 1)(X, y)]
    for d in modes:
        results += [
            d(loss, (0, 1))(x, y),
            m.jit(d(loss))(x, y),
            m.vmap(d(loss, (0, 1)), (0, None))(X, y),
            d(lambda x: np.sum(m.vmap(loss, (0, None))(X * x, x)))(x),
            d(scanned)(x),
            m.jit(m.vmap(d(scanned)))(X),
            d(branched, 1)(1.0, x),
            m.vmap(d(branched, 1))(np.arange(3.0) - 1, X),
            d(m.checkpoint(loss))(x, y),
        ]
    for a in modes:  # (of scans JAX's reverse mode forgets in second order that the primal pass has rules)
        for b in modes:
            results += [a(b(loss))(x, y), m.jit(a(b(loss)))(x, y), a(b(m.jit(loss), (0, 1)), 1)(x, y)]
    return results


@case
def custom_jvp_everywhere(m, np, lax):
    return _everywhere(m, np, lax, jvp_function(m, np), (m.jacfwd, m.jacrev))


@case
def custom_vjp_everywhere(m, np, lax):
    return _everywhere(m, np, lax, vjp_function(m, np), (m.jacrev,))


@case
def while_loops(m, np, lax):
    f = jvp_function(m, np)
    loop = lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, f(c[1], x)), (0, x))[1]
    return m.jvp(loop, (x,), (y,)), m.jit(m.jacfwd(loop))(x), m.vmap(lambda t: m.jvp(loop, (x,), (t,)))(X)


@case
def nested_rules(m, np, lax):
    inner = vjp_function(m, np)
    f = m.custom_vjp(lambda x: np.sum(inner(x, x)))
    f.defvjp(lambda x: m.vjp(lambda x: np.sum(inner(x, x) * 2), x), lambda pull, ct: pull(ct))
    return f(x), m.grad(f)(x), m.jit(m.grad(f))(x), m.vmap(m.grad(f))(X), m.grad(lambda x: m.grad(f)(x)[0])(x)


@case
def nondiff_arguments(m, np, lax):
    f = partial(m.custom_jvp, nondiff_argnums=(0,))(lambda g, x: g(x))
    f.defjvp(lambda g, p, t: (g(p[0]), 5 * t[0]))
    h = partial(m.custom_vjp, nondiff_argnums=(1,))(lambda x, k: x**k)
    h.defvjp(lambda x, k: (x**k, x), lambda k, x, ct: (ct * 10 * k * x,))
    return (
        m.grad(lambda x: np.sum(f(np.sin, x)))(x),
        m.jit(m.vmap(m.jacfwd(lambda x: f(np.sin, x))))(X),
        m.grad(lambda x: np.sum(h(x, 3)))(x),
        m.jit(m.vmap(m.jacrev(lambda x: h(x, 2))))(X),
    )


@case
def gradients_and_closures(m, np, lax):
    cd = m.custom_derivatives
    f = cd.custom_gradient(lambda x: (np.sum(x**2), lambda g: g * 10 * x))

    @partial(m.custom_vjp, nondiff_argnums=(0,))
    def call(fun, x, *consts):
        return fun(x, *consts)

    call.defvjp(
        lambda fun, x, *consts: (fun(x, *consts), (x, consts)),
        lambda fun, res, ct: m.vjp(fun, res[0], *res[1])[1](2 * ct),
    )

    def captured(a, x):
        fun, consts = m.closure_convert(lambda x: np.sin(x) * a, x)
        return np.sum(call(fun, x, *consts))

    return (
        m.grad(f)(x), m.jit(m.grad(f))(x), m.vmap(m.grad(f))(X),
        m.grad(captured, (0, 1))(x, y), m.jit(m.grad(captured, (0, 1)))(x, y),
    )  # fmt: skip


@case
def linear_calls(m, np, lax):
    def f(s, x):
        return m.custom_derivatives.linear_call(lambda s, x: x / s, lambda s, c: 7 * c / s, s, x)

    return (
        f(y, x),
        m.linear_transpose(lambda x: f(y, x), x)(x),
        m.jit(m.linear_transpose(lambda x: f(y, x), x))(x),
        m.linear_transpose(lambda c: m.linear_transpose(lambda x: f(y, x), x)(c)[0], x)(x),
    )


@case
def symbolic_zeros(m, np, lax):
    f = m.custom_vjp(lambda x, y: (x * y, x + y))
    fwd = lambda x, y: ((x.value * y.value, x.value + y.value), (x.value, y.perturbed))
    f.defvjp(fwd, lambda r, ct: (ct[0] * (10 if r[1] else 5), None), symbolic_zeros=True)
    g = m.custom_jvp(lambda x, y: x * y)
    zero = m.custom_derivatives.SymbolicZero
    g.defjvp(lambda p, t: (g(*p), t[0] * (3 if type(t[1]) is zero else 4)), symbolic_zeros=True)
    return (
        m.grad(lambda x: np.sum(f(x, y)[0]))(x), m.grad(lambda x, y: np.sum(f(x, y)[0]), (0, 1))(x, y),
        m.jvp(lambda x: g(x, y), (x,), (x,)), m.jvp(g, (x, y), (x, y)), m.grad(lambda x: np.sum(g(x, y)))(x),
    )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_same_as_jax(name) -> None:
    expected = fg.tree.leaves(CASES[name](jax, jnp, jax.lax))
    found = fg.tree.leaves(CASES[name](fg, np, fg_lax))
    assert len(found) == len(expected)
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert np.shape(a) == np.shape(b), f"leaf {k}"
        assert np.asarray(a).dtype == np.asarray(b).dtype, f"leaf {k}"
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=f"leaf {k}")
