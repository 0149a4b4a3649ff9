# ruff: noqa: E731, RUF059, B023
"""Nested transformations with JAX as the oracle (bench extra): the same text under both libraries."""

from __future__ import annotations

import collections

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax as fg_lax

jax = pytest.importorskip("jax", reason="JAX is an oracle, installed with the bench extra only")
jnp = pytest.importorskip("jax.numpy", reason="JAX is an oracle, installed with the bench extra only")

_rng = np.random.default_rng(0)
x, y = _rng.normal(size=(2, 4))
X = _rng.normal(size=(3, 4))
E = x[:0]
CASES = {}


def case(f):
    CASES[f.__name__] = f
    return f


@case
def vmap_vjp_closure(m, np, lax):
    def g(a, b):
        out, pull = m.vjp(lambda t: np.sin(t) * b, a)
        return pull(b)[0] + out

    return m.vmap(g)(X, X[::-1])


@case
def vmap_pull(m, np, lax):
    out, pull = m.vjp(lambda t: np.sin(t) * np.sum(t), x)
    return m.vmap(pull)(np.eye(4))


@case
def jvp_vmap_jit_aux(m, np, lax):
    f = m.jit(m.vmap(lambda t: (np.sin(t).sum(), {"a": t * 2})))
    return m.jvp(f, (X,), (X * 2,), has_aux=True)


@case
def vag_aux_jit_vmap(m, np, lax):
    f = lambda w, t: (np.sum(np.tanh(w * t)), {"k": (w * t, 3)})
    return m.jit(m.vmap(m.value_and_grad(f, has_aux=True), (None, 0)))(x, X)


@case
def vag_aux_jitinner(m, np, lax):
    f = m.jit(lambda w, t: (np.sum(np.tanh(w * t)), {"k": (w * t, 3)}))
    return m.vmap(m.value_and_grad(f, has_aux=True), (None, 0))(x, X)


@case
def jac_pytree(m, np, lax):
    f = lambda p: {"o": np.sin(p["a"]) * p["b"][0], "q": (np.sum(p["a"] ** 2), p["b"][1] * p["b"][0])}
    p = {"a": x, "b": (2.0, X)}
    return m.jacfwd(f)(p), m.jacrev(f)(p)


@case
def jac_pytree_jit(m, np, lax):
    f = lambda p: {"o": np.sin(p["a"]) * p["b"][0], "q": (np.sum(p["a"] ** 2), p["b"][1] * p["b"][0])}
    p = {"a": x, "b": (2.0, X)}
    return m.jit(m.jacfwd(f))(p), m.jit(m.jacrev(f))(p)


@case
def jac_aux(m, np, lax):
    f = lambda a, b: (np.sin(a) * b, {"z": a * 2})
    return (
        m.jacfwd(f, has_aux=True)(x, y),
        m.jacrev(f, has_aux=True)(x, y),
        m.jit(m.jacrev(f, has_aux=True))(x, y),
        m.jit(m.jacfwd(f, has_aux=True))(x, y),
    )


@case
def jac_argnums(m, np, lax):
    f = lambda a, b: np.sin(a) * b[0] * a[1]
    return (
        m.jacfwd(f, (0, 1))(x, y),
        m.jacrev(f, (1, 0))(x, y),
        m.jacfwd(f, argnums=[1])(x, y),
        m.jacfwd(f, -1)(x, y),
    )


@case
def hess_multi(m, np, lax):
    f = lambda a, b: np.sum(np.sin(a) * b) * a[1]
    return m.hessian(f, (0, 1))(x, y), m.jit(m.hessian(f, (1,)))(x, y), m.vmap(m.hessian(f), (0, None))(X, y)


@case
def hess_aux(m, np, lax):
    f = lambda a, b: (np.sum(np.sin(a) * b) * a[1], a * b)
    return m.hessian(f, has_aux=True)(x, y)


@case
def hess_dict(m, np, lax):
    f = lambda p: np.sum(np.sin(p["a"]) * p["b"]) * p["b"]
    return m.hessian(f)({"a": x, "b": 2.0})


@case
def lin_under_jit(m, np, lax):
    return (
        m.jit(lambda t: m.linearize(np.sin, t)[1](t))(x),
        m.grad(lambda t: np.sum(m.linearize(np.sin, t)[1](t * t)))(x),
        m.vmap(lambda t: m.linearize(np.sin, t)[1](t))(X),
    )


@case
def lin_vmap(m, np, lax):
    o, f = m.linearize(lambda a: np.sin(a) * np.sum(a), x)
    return (
        m.vmap(f)(np.eye(4)),
        m.jit(f)(x),
        m.grad(lambda t: np.sum(f(t) ** 2))(x),
        m.jit(m.vmap(f))(np.eye(4)),
    )


@case
def lt(m, np, lax):
    A = X
    T = m.linear_transpose(lambda v: A @ v, x)
    return (
        T(np.ones(3)),
        m.jit(T)(np.ones(3)),
        m.vmap(T)(np.eye(3)),
        m.grad(lambda c: np.sum(T(c)[0] ** 2))(np.ones(3)),
    )


@case
def lt_jit_inner(m, np, lax):
    T = m.linear_transpose(m.jit(lambda v, w: (X @ v + w, w * 2)), x, np.ones(3))
    return T((np.ones(3), np.ones(3) * 3))


@case
def lt_under(m, np, lax):
    return (
        m.jit(lambda c, A: m.linear_transpose(lambda v: A @ v, x)(c))(np.ones(3), X),
        m.grad(lambda A: np.sum(np.sin(m.linear_transpose(lambda v: A @ v, x)(np.ones(3))[0])))(X),
        m.vmap(lambda c: m.linear_transpose(lambda v: v * c, x)(x))(X),
    )


@case
def ckpt_axis(m, np, lax):
    f = m.checkpoint(lambda t: np.sin(t / lax.psum(t, "i")))
    g = m.vmap(m.jit(lambda t: f(t) * 2), axis_name="i")
    return (
        g(X),
        m.grad(lambda z: np.sum(np.cos(g(z))))(X),
        m.jit(m.grad(lambda z: np.sum(np.cos(g(z)))))(X),
        m.jvp(g, (X,), (X,)),
    )


@case
def ckpt_grad_inside_vmap(m, np, lax):
    f = m.checkpoint(lambda t, u: np.sum(np.sin(t) * u))
    return (
        m.vmap(m.jit(m.grad(f, (0, 1))))(X, X * 2),
        m.jit(m.hessian(f))(x, y),
        m.vmap(m.hessian(f), (0, None))(X, y),
    )


P = collections.namedtuple("P", "u v")


@case
def namedtuple_grad(m, np, lax):
    f = lambda p: np.sum(p.u * p.v[0])
    return (
        m.grad(f)(P(x, [2.0, None])),
        m.jit(m.grad(f))(P(x, [2.0, None])),
        m.vmap(m.grad(f), (P(0, None),))(P(X, [2.0, None])),
    )


@case
def none_arg(m, np, lax):
    return (
        m.grad(lambda a, b: a**2 if b is None else a)(2.0, None),
        m.jit(lambda a, b: a**2 if b is None else a)(2.0, None),
        m.vmap(lambda a, b: a, (0, None))(x, None),
        m.vmap(lambda a, b: (a, b))(x, None),
    )


@case
def inner_jit_closure(m, np, lax):
    return (
        m.grad(lambda t: m.jit(lambda u: t * u)(2.0))(3.0),
        m.vmap(lambda t: m.jit(lambda u: t * u)(2.0))(x),
        m.jvp(lambda t: m.jit(lambda u: t * u * t)(2.0), (3.0,), (1.0,)),
        m.jit(m.grad(lambda t: m.jit(lambda u: t * u)(2.0)))(3.0),
    )


@case
def inner_jit_closure2(m, np, lax):
    def f(t):
        g = m.jit(lambda u: np.sum(t * u))
        return g(t) + m.grad(g)(t)[0] + g(2.0)

    return m.grad(f)(x), m.hessian(f)(x), m.jit(m.vmap(m.grad(f)))(X)


@case
def shared_inner_jit(m, np, lax):
    @m.jit
    def g(a):
        return np.sin(a) * 2

    def f(t):
        return np.sum(g(t) * g(t * 2) + g(1.0))

    return m.grad(f)(x), m.jit(m.hessian(f))(x), m.vmap(f)(X)


@case
def jit_shapes(m, np, lax):
    return (
        m.jit(lambda: 3.0)(),
        m.jit(lambda t: None)(x),
        m.jit(lambda t: ())(x),
        m.jit(lambda t: (t, t, t))(x),
        m.jit(lambda t: (1, 2.0, True, 1j, t))(x),
        m.jit(lambda t: np.zeros((0, 3)))(x),
        m.jit(lambda t: t[:0] * 2)(x),
        m.jit(lambda t: np.sum(t[:0]))(x),
        m.jit(lambda t: {})(x),
    )


@case
def jit_scalars(m, np, lax):
    f = m.jit(lambda t: t * 2 + 1)
    return f(1), f(1.0), f(True), f(1j)


@case
def vmap_scalars(m, np, lax):
    return m.vmap(lambda a: 1, axis_size=3, in_axes=None)(2.0), m.vmap(lambda a: (a, 1.0), out_axes=(0, None))(x)


@case
def vmap_kw(m, np, lax):
    return m.vmap(lambda a, *, b=2.0: a * b)(x, b=y), m.vmap(lambda a, b=2.0: a * b)(x)


@case
def grad_int_other(m, np, lax):
    return (
        m.grad(lambda a, n: a * n)(2.0, 3),
        m.grad(lambda a, n: np.where(n, a, -a))(2.0, True),
        m.grad(lambda p: p["a"] * p["n"], allow_int=False)({"a": 2.0, "n": 3.0}),
    )


@case
def hvp(m, np, lax):
    f = lambda a: np.sum(np.sin(a) ** 3) * a[0]
    h1 = lambda a, v: m.jvp(m.grad(f), (a,), (v,))[1]
    h2 = lambda a, v: m.grad(lambda b: np.vdot(m.grad(f)(b), v))(a)
    h3 = lambda a, v: m.grad(lambda b: m.jvp(f, (b,), (v,))[1])(a)
    return [
        z
        for h in (h1, h2, h3)
        for z in (h(x, y), m.jit(h)(x, y), m.vmap(h, (None, 0))(x, X), m.jit(m.vmap(h, (0, None)))(X, y))
    ]


@case
def vjp_aux(m, np, lax):
    o, p, a = m.vjp(lambda t: (np.sin(t), {"q": t * 2}), x, has_aux=True)
    return o, p(o), a


@case
def vjp_vjp(m, np, lax):
    def f(t):
        o, p = m.vjp(lambda u: np.exp(u) * t, t)
        return p(np.sin(t))[0]

    o, p = m.vjp(f, x)
    return o, p(y)


@case
def nested_named(m, np, lax):
    f = lambda a: lax.psum(a, "i") * lax.psum(a, "j") + lax.axis_index("i") * 10 + lax.psum(a, ("i", "j"))
    return (
        m.vmap(m.vmap(f, axis_name="i"), axis_name="j")(X),
        m.jit(m.vmap(m.vmap(f, axis_name="i"), axis_name="j"))(X),
        m.grad(lambda X: np.sum(np.sin(m.vmap(m.vmap(f, axis_name="i"), axis_name="j")(X))))(X),
    )


@case
def collectives_grad(m, np, lax):
    out = []
    for f in (
        lambda a: lax.pmean(a, "i") * a,
        lambda a: lax.all_gather(a, "i").sum() * a,
        lambda a: lax.ppermute(a, "i", [(0, 1), (1, 2), (2, 0)]) * a,
        lambda a: lax.pmax(a, "i") + a,
        lambda a: lax.psum(1, "i") * a,
        lambda a: lax.psum({"a": a, "b": 2.0}, "i")["b"] * a,
    ):
        g = m.vmap(f, axis_name="i")
        out += [g(X), m.jit(g)(X)]
    for f in (
        lambda a: lax.pmean(a, "i") * a,
        lambda a: lax.all_gather(a, "i").sum() * a,
        lambda a: lax.ppermute(a, "i", [(0, 1), (1, 2), (2, 0)]) * a,
    ):
        g = m.vmap(f, axis_name="i")
        out += [m.grad(lambda z: np.sum(np.sin(g(z))))(X)]
    return out


@case
def inner_vmap_in_axis(m, np, lax):
    # grad inside vmap with collectives
    f = lambda a: m.grad(lambda b: np.sum(np.sin(b) * lax.psum(b, "i")))(a)
    return m.vmap(f, axis_name="i")(X), m.jit(m.vmap(f, axis_name="i"))(X)


@case
def jacrev_complex_holo(m, np, lax):
    z = x + 1j * y
    return (
        m.jacrev(lambda t: t**2 * np.sum(t), holomorphic=True)(z),
        m.jacfwd(lambda t: t**2 * np.sum(t), holomorphic=True)(z),
        m.grad(lambda t: np.sum(t**3), holomorphic=True)(z),
        m.vjp(lambda t: np.real(t * t) * np.imag(t), z)[1](x),
        m.jvp(lambda t: np.abs(t), (z,), (z * 1j,)),
    )


@case
def float32_mix(m, np, lax):
    a = np.asarray(x, np.float32)
    return (
        m.grad(lambda t: np.sum(t * 2.0))(a),
        m.hessian(lambda t: np.sum(t**3))(a),
        m.jit(lambda t: t * 2.0 + 1)(a),
        m.jacfwd(lambda t: t * 2.0)(a),
    )


@case
def indexed_update(m, np, lax):
    def f(t):
        t = t.at[0].set(3.0)
        t = t.at[1:].mul(t[:-1])
        return np.sum(t**2)

    return m.grad(f)(x)


@case
def scalar_args(m, np, lax):
    f = lambda a, b: a * b
    return (
        m.jvp(f, (2.0, 3.0), (1.0, 0.0)),
        m.vjp(f, 2.0, 3.0)[1](1.0),
        m.jacfwd(f, (0, 1))(2.0, 3.0),
        m.hessian(f, (0, 1))(2.0, 3.0),
    )


@case
def jac_zero_size(m, np, lax):
    f = lambda a: np.sin(a)
    return m.jacfwd(f)(E), m.jacrev(f)(E), m.grad(lambda a: np.sum(a))(E), m.hessian(lambda a: np.sum(a))(E)


@case
def jac_const(m, np, lax):
    f = lambda a: (np.ones(2), a)
    return m.jacfwd(f)(x), m.jacrev(f)(x), m.jacfwd(lambda a: np.ones(2))(x)


@case
def vmap_out(m, np, lax):
    return m.vmap(lambda a: {"a": a, "b": (a * 2, a[0])}, out_axes={"a": 1, "b": (-1, 0)})(X), m.vmap(
        lambda a, b: a + b, in_axes=(0, None)
    )(X, x)


@pytest.mark.parametrize("name", CASES)
def test_nested_transformations(name) -> None:
    expected = fg.tree.leaves(CASES[name](jax, jnp, jax.lax))
    found = fg.tree.leaves(CASES[name](fg, np, fg_lax))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert np.shape(a) == np.shape(b) and np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12)
