# ruff: noqa: E731, B023
"""Loops and branches with JAX as the oracle (bench extra): the same text under both libraries."""

from __future__ import annotations

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax as fg_lax

jax = pytest.importorskip("jax", reason="JAX is an oracle, installed with the bench extra only")
jnp = pytest.importorskip("jax.numpy", reason="JAX is an oracle, installed with the bench extra only")

_rng = np.random.default_rng(0)
x, y = _rng.normal(size=(2, 4))
X = _rng.normal(size=(3, 4))
W = 0.4 * _rng.normal(size=(4, 4))
CASES = {}


def case(f):
    CASES[f.__name__] = f
    return f


@case
def cond_everywhere(m, np, lax):
    f = lambda p, a: np.sum(lax.cond(p > 0, lambda a: np.sin(a) * p, lambda a: a * a, a))
    return (
        m.vmap(m.grad(f, (0, 1)))(x, np.stack([x, y, x, y])),
        m.grad(lambda p: np.sum(m.vmap(f, (0, None))(p, x)))(y),
        m.jacfwd(m.grad(f, 1), 1)(0.4, x),
        m.jit(m.vmap(m.hessian(f, 1), (0, None)))(y, x),
        m.vmap(m.vmap(f, (None, 0)), (0, None))(x, X),
    )


@case
def cond_batched_operands_only(m, np, lax):
    f = lambda p: lambda a: lax.cond(p, lambda a: (a, 1.0), lambda a: (a * 0, 2.0), a)
    return m.vmap(f(True))(X), m.vmap(f(False))(X), m.jit(m.vmap(f(True), 1))(X)


@case
def switch_jvp(m, np, lax):
    f = lambda k, a: lax.switch(k, [np.sin, np.cos, lambda t: t * t], a)
    return (
        [m.jvp(lambda a: f(k, a), (x,), (y,)) for k in range(-1, 4)],
        m.vmap(f)(np.arange(3), X),
        m.vmap(lambda k, a: m.jvp(lambda t: f(k, t), (a,), (a,)))(np.arange(3), X),
        m.vmap(lambda k, a: m.vjp(lambda t: f(k, t), a)[1](a))(np.arange(3), X),
    )


@case
def scan_jacobians(m, np, lax):
    def f(W, h):
        h, ys = lax.scan(lambda h, x: (np.tanh(W @ h + x), np.sum(h)), h, X)
        return np.concatenate([h, ys])

    return (
        m.jacfwd(f, (0, 1))(W, x),
        m.jacrev(f, (0, 1))(W, x),
        m.jit(m.jacrev(f))(W, x),
        m.vmap(m.jacrev(f, 1), (None, 0))(W, X),
        m.hessian(lambda h: np.sum(f(W, h) ** 2))(x),
    )


@case
def scan_dtypes(m, np, lax):
    """Python numbers as carries take the type of what the body makes of them."""
    f32 = np.asarray(x, np.float32)
    return (
        lax.scan(lambda c, v: (c + v, c), 0.0, f32),
        lax.scan(lambda c, v: (c + v, c * 2), 0, f32),
        lax.scan(lambda c, v: (c + 1, c > 2), 0, x),
        lax.scan(lambda c, v: ((c[0] * 2, c[1] + 1.5), None), (1, 0), None, length=3),
        lax.fori_loop(0, 3, lambda i, c: c * i + 1, f32),
        lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] + np.sum(f32)), (0, 0)),
        m.jit(lambda n: lax.fori_loop(0, n, lambda i, c: c + 2, 0))(5),
    )


@case
def scan_shapes(m, np, lax):
    return (
        lax.scan(lambda c, v: (c, (v, v[0], c)), x[0], (X, X[:, :2])[0], reverse=True),
        lax.scan(lambda c, v: (c, ()), x, X[:0]),
        lax.scan(lambda c, _: (c * 2, {"a": c}), x, None, length=2, unroll=2),
        lax.scan(lambda c, v: (None, v["b"] * 2), None, {"a": X, "b": X}, unroll=True),
        lax.map(lambda p: p["u"] @ W, {"u": X}),
        lax.map(lambda v: (v * 2, v[0]), X, batch_size=2),
    )


@case
def loop_transforms(m, np, lax):
    f = lambda a: lax.while_loop(lambda c: np.sum(c) < 20, lambda c: c * 1.5 + np.abs(a), np.abs(a))
    return (
        f(x),
        m.jit(f)(x),
        m.vmap(f)(X),
        m.jvp(f, (x,), (y,)),
        m.jacfwd(f)(x),
        m.jit(m.vmap(m.jacfwd(f)))(X),
        m.jvp(m.vmap(f), (X,), (X * 2,)),
    )


@case
def loops_with_batched_constants(m, np, lax):
    f = lambda n, a: lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * a, c[2]), (0, 1.0, a))
    return m.vmap(f)(np.arange(4), x), m.vmap(f, (0, None))(np.arange(4), 2.0), m.vmap(f, (None, 0))(3, x)


@case
def nested_everything(m, np, lax):
    def f(a):
        def outer(c, v):
            inner = lambda i, t: lax.cond(t[0] > 0, lambda t: np.sin(t) * v, lambda t: t + v, t)
            c = m.checkpoint(lambda c: lax.fori_loop(0, 3, inner, c))(c)
            return c, m.grad(lambda t: np.sum(lax.map(lambda s: s**3, t)))(c)

        c, ys = lax.scan(outer, a, X)
        return np.sum(c) + np.sum(ys**2)

    return (
        f(x),
        m.grad(f)(x),
        m.jit(m.grad(f))(x),
        m.vmap(m.grad(f))(X),
        m.hessian(f)(x),
        m.jit(m.vmap(m.hessian(f)))(X),
    )


@case
def named_axes(m, np, lax):
    def f(a):
        step = lambda c, v: (c + lax.psum(v * a[0], "i"), lax.axis_index("i"))
        c, ys = lax.scan(step, 0.0, a)
        d = lax.cond(a[1] > 0, lambda t: t * 2, lambda t: t, lax.pmax(a, "i"))
        return c, ys, d, lax.fori_loop(0, 2, lambda i, c: c + lax.pmean(a, "i"), a)

    g = lambda a: np.sum(lax.scan(lambda c, v: (c * lax.psum(v, "i"), c), 1.0, a)[1])
    return m.vmap(f, axis_name="i")(X), m.vmap(m.grad(g), axis_name="i")(X), m.jit(m.vmap(f, axis_name="i"))(X)


@case
def linear_loops(m, np, lax):
    f = lambda v: lax.scan(lambda c, w: (c * 2 + w @ v, c), 0.0, W)
    g = lambda v: lax.fori_loop(0, 3, lambda i, c: c * i + v, np.zeros(4))
    h = lambda v: lax.cond(True, lambda v: v * 2, lambda v: -v, v)
    return (
        m.linear_transpose(f, x)((2.0, x)),
        m.vjp(g, x)[1](y),
        m.linear_transpose(h, x)(y),
        m.vmap(lambda ct: m.vjp(f, x)[1]((ct[0], ct)))(X),
        m.linearize(f, x)[1](y),
    )


@case
def integers_and_aux(m, np, lax):
    def f(a, n):
        (c, k), ys = lax.scan(lambda c, v: ((c[0] * v, c[1] + n), c[1]), (1.0, 0), a)
        return c, (k, ys)

    return m.grad(f, has_aux=True)(x, 3), m.jit(m.value_and_grad(f, has_aux=True))(x, 3)


@case
def associative_scans(m, np, lax):
    f = lambda a: lax.associative_scan(lambda p, q: (p[0] * q[0], q[0] * p[1] + q[1]), (a, a * 2), axis=1)
    return (
        f(X),
        lax.associative_scan(np.maximum, X, reverse=True),
        lax.associative_scan(np.logical_or, X > 1, axis=-1),
        m.jit(m.vmap(lambda a: lax.associative_scan(np.add, a)))(X),
        m.grad(lambda a: np.sum(f(a)[1]))(X),
        [lax.associative_scan(np.add, np.arange(n)) for n in range(8)],
    )


@pytest.mark.parametrize("name", CASES)
def test_same_as_jax(name) -> None:
    expected = fg.tree.leaves(CASES[name](jax, jnp, jax.lax))
    found = fg.tree.leaves(CASES[name](fg, np, fg_lax))
    assert len(found) == len(expected)
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert np.shape(a) == np.shape(b), f"leaf {k}"
        assert _kind(a) == _kind(b), f"leaf {k}"
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12, err_msg=f"leaf {k}")


def _kind(x):
    """The dtype, as far as both libraries have the same integers."""
    dtype = np.asarray(x).dtype
    return "integer" if dtype.kind in "iu" else dtype
