# ruff: noqa: E731
"""Derivatives of derivatives in every arrangement, holomorphic and complex ones, structures, constants and integers:
each row runs on both libraries, ours un-jitted and compiled, against JAX's result."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax
from funcgrad.ops.transcendental import sin_p

jax = pytest.importorskip("jax", reason="JAX is the oracle")

OURS = SimpleNamespace(
    np=np, lax=lax, **{n: getattr(fg, n) for n in ("grad", "jvp", "vjp", "jacfwd", "jacrev", "hessian", "linearize",
                                                    "value_and_grad", "vmap", "jit", "linear_transpose")}
)  # fmt: skip
THEIRS = SimpleNamespace(
    np=jax.numpy, lax=jax.lax, **{n: getattr(jax, n) for n in ("grad", "jvp", "vjp", "jacfwd", "jacrev", "hessian",
                                                               "linearize", "value_and_grad", "vmap", "jit",
                                                               "linear_transpose")}
)  # fmt: skip

X = np.array([0.3, -0.5, 0.8])
V = np.array([1.0, 2.0, -1.0])
Z = np.array([0.3 + 0.4j, -0.5 + 1j, 0.8 - 0.2j])
P = {"w": np.arange(6.0).reshape(2, 3) / 5, "b": (np.array([0.1, -0.2]), 0.7)}


def f(m: Any) -> Any:
    return lambda x: m.np.sum(m.np.sin(x) ** 2 * m.np.roll(x, 1)) * m.np.exp(x[0])


def net(m: Any) -> Any:
    return lambda p, x: {"y": m.np.tanh(p["w"] @ x + p["b"][0]) * p["b"][1], "s": m.np.sum(x * p["b"][1])}


def looped(m: Any) -> Any:
    def fun(x: Any) -> Any:
        def body(c: Any, t: Any) -> Any:
            c = m.lax.cond(m.np.sum(c) > 0, lambda c: m.np.sin(c) * t, lambda c: m.np.cos(c) + x, c)
            return c, m.np.sum(c**2)

        c, ys = m.lax.scan(m.jit(body), x, m.np.array([0.5, 1.0, 1.5, 2.0]))
        return m.np.sum(c) * m.np.sum(ys)

    return fun


ROWS = {
    "forward over reverse": lambda m: lambda x, v: m.jvp(m.grad(f(m)), (x,), (v,))[1],
    "reverse over forward": lambda m: lambda x, v: m.grad(lambda x: m.jvp(f(m), (x,), (v,))[1])(x),
    "reverse over reverse": lambda m: lambda x, v: m.grad(lambda x: m.np.vdot(m.grad(f(m))(x), v))(x),
    "vjp of grad": lambda m: lambda x, v: m.vjp(m.grad(f(m)), x)[1](v),
    "forward over forward": lambda m: lambda x, v: m.jvp(lambda x: m.jvp(f(m), (x,), (v,))[1], (x,), (v,)),
    "linearized gradient": lambda m: lambda x, v: m.linearize(m.grad(f(m)), x)[1](v),
    "gradient of a linearization": lambda m: lambda x, v: m.grad(lambda x: m.linearize(f(m), x)[1](v))(x),
    "loops, forward over reverse": lambda m: lambda x, v: m.jvp(m.grad(looped(m)), (x,), (v,))[1],
    "loops, reverse over forward": lambda m: lambda x, v: m.grad(lambda x: m.jvp(looped(m), (x,), (v,))[1])(x),
    "loops, reverse over reverse": lambda m: lambda x, v: m.grad(lambda x: m.np.vdot(m.grad(looped(m))(x), v))(x),
    "hessian": lambda m: lambda x, v: m.hessian(f(m))(x),
    "hessian four ways": lambda m: lambda x, v: [a(b(f(m)))(x) for a in (m.jacfwd, m.jacrev) for b in
                                                 (m.jacfwd, m.jacrev)],
    "third derivative": lambda m: lambda x, v: m.jacfwd(m.jacrev(m.jacfwd(f(m))))(x),
    "batched hvp": lambda m: lambda x, v: m.vmap(lambda w: m.jvp(m.grad(f(m)), (x,), (w,))[1])(m.np.stack([x, v])),
    "jacfwd of a structure": lambda m: lambda x, v: m.jacfwd(net(m))(P, x),
    "jacrev of a structure": lambda m: lambda x, v: m.jacrev(net(m), argnums=(0, 1))(P, x),
    "hessian of a structure": lambda m: lambda x, v: m.hessian(lambda p: m.np.sum(net(m)(p, x)["y"]))(P),
    "jacobian with aux": lambda m: lambda x, v: m.jacrev(lambda x: (m.np.sin(x), {"a": x}), has_aux=True)(x),
    "hessian with aux": lambda m: lambda x, v: m.hessian(lambda x: (f(m)(x), x * 2), has_aux=True)(x),
    "stop_gradient": lambda m: lambda x, v: m.grad(lambda x: m.np.sum(x * m.lax.stop_gradient(m.np.sin(x))))(x),
    "stop_gradient in second order": lambda m: lambda x, v: m.hessian(
        lambda x: m.np.sum(m.lax.stop_gradient(x) ** 2 * x**3)
    )(x),
    "stop_gradient of a structure": lambda m: lambda x, v: m.jvp(
        lambda x: m.lax.stop_gradient({"a": x, "b": (x, 3)})["a"] * x, (x,), (v,)
    ),
    "integers beside floats": lambda m: lambda x, v: m.grad(lambda x, k: m.np.sum(x**k))(x, m.np.array([1, 2, 3])),
    "linear transpose": lambda m: lambda x, v: m.linear_transpose(lambda x: m.np.cumsum(2 * x)[::-1], x)(v),
}  # fmt: skip
COMPLEX = {
    "holomorphic gradient": lambda m: lambda z, v: m.grad(lambda z: m.np.sum(z**3 * m.np.exp(z)), holomorphic=True)(z),
    "holomorphic jacfwd": lambda m: lambda z, v: m.jacfwd(lambda z: m.np.sin(z) * z[0], holomorphic=True)(z),
    "holomorphic jacrev": lambda m: lambda z, v: m.jacrev(lambda z: m.np.sin(z) * z[0], holomorphic=True)(z),
    "holomorphic hessian": lambda m: lambda z, v: m.hessian(lambda z: m.np.sum(z**3) * z[0], holomorphic=True)(z),
    "holomorphic structure": lambda m: (
        lambda z, v: m.jacfwd(lambda p: {"a": p["z"] * p["w"], "b": m.np.exp(p["z"])}, holomorphic=True)(
            {"z": z, "w": v + 0j}
        )
    ),
    "real function of complex numbers": lambda m: lambda z, v: m.grad(lambda z: m.np.sum(m.np.abs(z) ** 3))(z),
    "real, imag, conj": lambda m: (
        lambda z, v: m.grad(lambda z: m.np.sum(m.np.real(z * m.np.conj(z) ** 2) + m.np.imag(z) * m.np.real(z)))(z)
    ),
    "complex in between": lambda m: lambda z, v: m.grad(lambda x: m.np.abs(m.np.sum(m.np.exp(1j * x) * z)))(v),
    "jvp": lambda m: lambda z, v: m.jvp(lambda z: m.np.abs(z) * z, (z,), (v + 1j * v,)),
    "vjp": lambda m: lambda z, v: m.vjp(lambda z: z * m.np.conj(z) + z**2, z)[1](v + 1j),
    "hvp": lambda m: lambda z, v: m.jvp(m.grad(lambda z: m.np.sum(m.np.abs(z) ** 4)), (z,), (v + 1j,))[1],
    "loop": lambda m: (
        lambda z, v: m.grad(lambda z: m.np.sum(m.np.abs(m.lax.fori_loop(0, 3, lambda i, c: m.np.sin(c) * z, z)) ** 2))(
            z
        )
    ),
    "jacfwd of real inputs": lambda m: lambda z, v: m.jacfwd(lambda x: m.np.exp(1j * x) * z)(v),
}


def check(row: Any, x: Any) -> None:
    wanted = [np.asarray(w) for w in jax.tree.leaves(row(THEIRS)(x, V))]
    for run in (row(OURS), fg.jit(row(OURS))):
        found = fg.tree.leaves(run(x, V))
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            assert np.shape(a) == b.shape and np.asarray(a).dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ROWS)
def test_real(name: str) -> None:
    check(ROWS[name], X)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COMPLEX)
def test_complex(name: str) -> None:
    check(COMPLEX[name], Z)


def test_float0_for_integers() -> None:
    """Wherever a tangent or cotangent of an integer or boolean appears."""
    k, b = np.arange(3), np.array([True, False, True])
    zeros = np.zeros(3, fg.float0)
    fun = lambda x, k, b: (np.sum(x * k * b), k * 2, b)
    _, ts = fg.jvp(fun, (X, k, b), (V, zeros, zeros))
    assert ts[1].dtype == ts[2].dtype == fg.float0 and ts[1].shape == (3,)
    np.testing.assert_allclose(ts[0], np.sum(V * k * b))
    _, push = fg.linearize(fun, X, k, b)
    assert [np.asarray(t).dtype for t in push(V, zeros, zeros)] == [np.float64, fg.float0, fg.float0]
    _, pull = fg.vjp(fun, X, k, b)
    cts = pull((1.0, zeros, zeros))
    assert [c.dtype for c in cts] == [np.float64, fg.float0, fg.float0]
    found = fg.grad(lambda x, k: np.sum(x * k), (0, 1), allow_int=True)(X, k)
    assert found[1].dtype == fg.float0 and found[1].shape == (3,)
    found = fg.jit(lambda x: fg.grad(lambda x, k: np.sum(x * k), allow_int=True)(x, k))(X)
    np.testing.assert_array_equal(found, k)
    with pytest.raises(TypeError, match="float0"):
        fg.jvp(fun, (X, k, b), (V, k, zeros))


def test_linearize_computes_the_function_once() -> None:
    """The linear function costs its linear operations alone, as often as it is called, also under vmap."""
    calls = []
    impl = sin_p.impl
    object.__setattr__(sin_p, "impl", lambda x: calls.append(1) or impl(x))  # a frozen record
    try:
        _, push = fg.linearize(lambda x: np.cos(np.sin(np.sin(x))), X)
        before = len(calls)
        for v in (X, V):
            push(v)
        fg.vmap(push)(np.eye(3))
        assert before and len(calls) == before
        _, pull = fg.vjp(lambda x: np.cos(np.sin(np.sin(x))), X)
        before = len(calls)
        pull(V)
        fg.vmap(pull)(np.eye(3))
        assert len(calls) == before
    finally:
        object.__setattr__(sin_p, "impl", impl)


NOT_LINEAR = {
    "sine": (np.sin, ["sin cannot be transposed"]),
    "square": (lambda x: x * x, ["linear"]),
    "constant added": (lambda x: x + 1.0, ["it adds something that does not depend", "test_compositions.py"]),
    "quotient": (lambda x: 1.0 / x, ["div", "not linear in its operand 1"]),
    "condition": (lambda x: np.where(x > 0, x, 0.0), ["gt"]),
    "maximum": (np.max, ["reduce_max"]),
    "index": (lambda x: x[np.argmax(x)], ["argmax", "test_compositions.py"]),
    "conversion": (lambda x: x[0] * x.astype(int)[1], ["int64 of the arguments"]),
    "in jit": (lambda x: fg.jit(lambda y: 2 * y - 1)(x), ["it adds something"]),
    "in a branch": (lambda x: lax.cond(V[0] > 0, lambda x: x + 1, lambda x: x, x), ["it adds something"]),
    "in a scan": (lambda x: lax.scan(lambda c, t: (c * t + 1, None), x, V)[0], ["it adds something"]),
    "in a while": (
        lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] - 2), (0, x))[1],
        ["it adds something"],
    ),
    "in a loop": (lambda x: lax.fori_loop(0, 3, lambda i, c: c * c, x), ["mul"]),
}


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_linear_transpose_of_what_is_not_linear(name: str) -> None:
    fun, words = NOT_LINEAR[name]
    ct = np.ones(np.shape(fun(X)))[()]
    with pytest.raises(fg.FuncgradError) as found:
        fg.linear_transpose(fun, X)(ct)
    for w in [*words, "linear_transpose"]:
        assert w in str(found.value)


LINEAR = {
    "zeros added": lambda x: np.zeros(3) + x - np.zeros((1, 1)),
    "written into zeros": lambda x: fg.at(np.zeros(4))[1:].add(2 * x) + 0.0,
    "comparison of something else": lambda x: np.where(V > 0, x, 0.0) + np.where(X > V, 0.0, 3 * x),
    "values that nothing needs": lambda x: (np.max(x) > 0, 2 * x)[1],
    "zeros in loops": lambda x: lax.scan(lambda c, t: (c * t + np.zeros(3), None), x, V)[0],
    "counters": lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * c[0]), (1, x))[1],
    "branches": lambda x: lax.cond(V[0] > 0, lambda x: 2 * x, lambda x: x, x),
    "sums of a scan": lambda x: lax.scan(lambda c, t: (c + t, c), 0.0, x)[1],
    "jit and loops": lambda x: fg.jit(lambda y: lax.fori_loop(0, 3, lambda i, c: c * i + y, y))(x),
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear_transpose_of_what_is(name: str) -> None:
    fun = LINEAR[name]
    ct = np.cos(np.arange(float(np.size(fun(X))))).reshape(np.shape(fun(X)))
    (pulled,) = fg.linear_transpose(fun, X)(ct)
    np.testing.assert_allclose(np.sum(pulled * V), np.sum(fun(V) * ct), rtol=1e-12)
