# ruff: noqa: E731
"""checkpoint with policies: what is kept, that it is not computed again, that nothing else changes, and that compiled
programs need less memory for it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax
from funcgrad.core.jaxpr import Jaxpr, subjaxprs
from funcgrad.passes.pipeline import optimize

P = fg.checkpoint_policies
W = np.linspace(-0.9, 1.1, 16).reshape(4, 4)
X = np.linspace(0.3, 1.2, 4)
POLICIES = {
    "nothing": None,
    "nothing, by name": P.nothing_saveable,
    "everything": P.everything_saveable,
    "dots": P.dots_saveable,
    "dots without batch": P.dots_with_no_batch_dims_saveable,
    "named": P.save_only_these_names("a"),
    "any name but": P.save_any_names_but_these("a"),
    "all but named": P.save_anything_except_these_names("a"),
    "both": P.save_from_both_policies(P.dots_saveable, P.save_only_these_names("a")),
    "user's": lambda prim, *avals, **params: prim.name == "tanh",
}


def step(w: Any, x: Any) -> Any:
    a = fg.checkpoint_name(np.exp(np.sin(x @ w)), "a")
    return fg.checkpoint_name(np.tanh(a + x), "b") * x


def in_scan(w: Any, x: Any) -> Any:
    def body(c: Any, s: Any) -> Any:
        y = step(w, c * s)
        return y, np.sin(y)

    c, ys = lax.scan(body, x, np.linspace(0.5, 1.0, 5))
    return c + np.sum(ys, axis=0)


def in_cond(w: Any, x: Any) -> Any:
    return lax.cond(x[0] > 0, lambda x: step(w, x), lambda x: np.cos(step(w, np.sin(x) @ w)), x) * x


def in_while(w: Any, x: Any) -> Any:
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, step(w, c[1])), (0, x))[1]


BODIES = {
    "plain": step,
    "scan": in_scan,
    "cond": in_cond,
    "while": in_while,
    "jit": lambda w, x: fg.jit(step)(w, fg.jit(step)(w, x)),
    "nested": lambda w, x: fg.checkpoint(lambda x: step(w, np.sin(x)), policy=P.dots_saveable)(step(w, x)),
    "scan in jit in cond": lambda w, x: lax.cond(x[0] > 0, fg.jit(in_scan), in_scan, w, x),
}
USES = {
    "gradient": lambda f: fg.grad(lambda w, x: np.sum(f(w, x) ** 2), (0, 1))(W, X),
    "compiled": lambda f: fg.jit(fg.grad(lambda w, x: np.sum(f(w, x) ** 2), (0, 1)))(W, X),
    "hessian": lambda f: fg.hessian(lambda x: np.sum(f(W, x) ** 2))(X),
    "reverse over reverse": lambda f: fg.jit(fg.jacrev(fg.grad(lambda x: np.sum(f(W, x) ** 2))))(X),
    "reverse over forward": lambda f: fg.grad(lambda x: np.sum(fg.jvp(lambda x: f(W, x), (x,), (X,))[1]))(X),
    "batched": lambda f: fg.jit(fg.vmap(fg.grad(lambda w, x: np.sum(f(w, x)), 1), (None, 0)))(W, np.outer([1, -1], X)),
    "linearized": lambda f: fg.linearize(f, W, X)[1](W, X),
    "aux": lambda f: fg.jit(lambda x: fg.vjp(lambda x: f(W, x), x)[1](X))(X),
}


@pytest.mark.parametrize(("body", "use"), list(itertools.product(BODIES, USES)))
def test_changes_no_number(body: str, use: str) -> None:
    expected = fg.tree.leaves(USES[use](BODIES[body]))
    second = use in ("hessian", "reverse over reverse")
    for name in ("nothing", "dots", "all but named") if second else POLICIES:
        policy = POLICIES[name]
        found = fg.tree.leaves(USES[use](fg.checkpoint(BODIES[body], policy=policy)))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12, err_msg=name)


def operations(jaxpr: Jaxpr, name: str) -> int:
    inner = [operations(j, name) for e in jaxpr.eqns for j in subjaxprs(e.params)]
    return sum([e.primitive.name == name for e in jaxpr.eqns]) + sum(inner)


def compiled_operations(fun: Any, args: Any, name: str) -> int:
    return operations(optimize(fg.make_jaxpr(fun)(*args), check=True).jaxpr, name)


def loss(f: Any) -> Any:
    return lambda w, x: np.sum(f(w, x))


@pytest.mark.parametrize("body", ["plain", "scan", "jit"])
def test_what_is_kept_is_not_computed_again(body: str) -> None:
    """exp once per forward pass, and again in the backward pass unless it is kept."""
    f = BODIES[body]
    once = compiled_operations(fg.value_and_grad(loss(f)), (W, X), "exp")

    def count(policy: Any, **kwargs: Any) -> int:
        return compiled_operations(fg.value_and_grad(loss(fg.checkpoint(f, policy=policy, **kwargs))), (W, X), "exp")

    assert count(None) == 2 * once
    assert count(P.everything_saveable) == count(P.save_only_these_names("a")) == once
    assert count(P.dots_saveable) == 2 * once
    products = lambda policy: compiled_operations(
        fg.value_and_grad(loss(fg.checkpoint(f, policy=policy))), (W, X), "dot_general"
    )
    assert products(None) - once == products(P.dots_saveable) == products(P.everything_saveable)
    if body != "scan":  # loops are not merged
        assert count(None, prevent_cse=False) == once


def test_eager_computes_again_only_what_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from funcgrad.ops.transcendental import exp_p

    calls = []
    impl = exp_p.impl
    object.__setattr__(exp_p, "impl", lambda x: calls.append(x) or impl(x))  # a frozen record
    try:
        for policy, n in ((None, 2), (P.save_only_these_names("a"), 1), (P.save_only_these_names("b"), 2)):
            calls.clear()
            fg.grad(lambda x, policy=policy: np.sum(fg.checkpoint(step, policy=policy)(W, x)))(X)
            assert len(calls) == n
    finally:
        object.__setattr__(exp_p, "impl", impl)


def kept(f: Any, *args: Any) -> list[str]:
    return [f"{a.short()} {text.split(' from ')[0]}" for a, text in fg.saved_residuals(f, *args)]


def test_saved_residuals() -> None:
    inputs = ["f64[4,4] from the argument 'w'", "f64[4] from the argument 'x'"]
    found = lambda policy, f=step: sorted(
        [f"{a.short()} {t.split(' from /')[0]}" for a, t in fg.saved_residuals(fg.checkpoint(f, policy=policy), W, X)]
    )
    assert found(None) == sorted(inputs)
    assert found(P.dots_saveable) == sorted([*inputs, "f64[4] output of dot_general"])
    assert found(P.save_only_these_names("a")) == sorted([*inputs, "f64[4] named 'a'"])
    assert found(P.save_only_these_names("a", "c")) == sorted([*inputs, "f64[4] named 'a'"])
    assert "f64[5,4] named 'a'" in found(P.save_only_these_names("a"), in_scan)
    assert len([t for t in kept(step, W, X) if "output" in t]) >= 3


def test_print_saved_residuals(capsys: pytest.CaptureFixture[str]) -> None:
    fg.print_saved_residuals(fg.checkpoint(lambda a, *rest, k: np.sin(a * rest[1]) * k), 1.0, X, X, k=X)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "f64[] from the argument 'a'",
        "f64[4] from the argument rest[1]",
        "f64[4] from the keyword argument 'k'",
    ]


def chain(wrap: Any, depth: int) -> Any:
    def block(x: Any, w: Any) -> Any:
        for _ in range(4):
            x = np.sin(np.tanh(x @ w) + x)
        return x

    f = wrap(block)

    def total(x: Any, w: Any) -> Any:
        for _ in range(depth):
            x = f(x, w)
        return np.sum(x**2)

    return fg.grad(total)


def temporaries(wrap: Any, depth: int, n: int = 64) -> float:
    x = np.linspace(-1, 1, n * n).reshape(n, n)
    return fg.jit(chain(wrap, depth)).lower(x, x / n).executable.memory_analysis()["temporary_bytes"] / x.nbytes


def test_compiled_memory_of_a_deep_chain() -> None:
    """Two values a layer without; the input of each block of four layers with, and one block in work."""
    plain, saved = temporaries(lambda f: f, 12), temporaries(fg.checkpoint, 12)
    assert plain >= 12 * 4 + 4
    assert saved <= 12 + 16
    assert temporaries(lambda f: fg.checkpoint(f, prevent_cse=False), 12) >= 12 * 4
    assert temporaries(lambda f: fg.checkpoint(f, policy=P.everything_saveable), 12) >= plain - 4
    assert saved - temporaries(fg.checkpoint, 6) <= 6.1  # a block more is one array more


def test_compiled_memory_against_jax(jax: Any) -> None:
    n, depth = 64, 8
    x = np.linspace(-1, 1, n * n).reshape(n, n)
    w = x / n

    def block(np: Any) -> Any:
        def fun(x: Any) -> Any:
            for _ in range(4):
                x = np.sin(np.tanh(x @ w) + x)
            return x

        return fun

    def total(f: Any, np: Any) -> Any:
        def fun(x: Any) -> Any:
            for _ in range(depth):
                x = f(x)
            return np.sum(x**2)

        return fun

    ours = fg.jit(fg.grad(total(fg.checkpoint(block(np)), np))).lower(x)
    theirs = jax.jit(jax.grad(total(jax.checkpoint(block(jax.numpy)), jax.numpy))).lower(x).compile()
    found = ours.executable.memory_analysis()["temporary_bytes"]
    assert found <= 1.1 * theirs.memory_analysis().temp_size_in_bytes
    expected = jax.grad(total(jax.checkpoint(block(jax.numpy)), jax.numpy))(x)
    np.testing.assert_allclose(fg.jit(fg.grad(total(fg.checkpoint(block(np)), np)))(x), expected, rtol=1e-10)


def test_optimization_barrier() -> None:
    """Equal computations on both sides of a barrier are two; its derivative is the identity."""

    def twice(x: Any, barrier: Any) -> Any:
        return np.exp(x) + 2 * np.exp(barrier(x))

    assert compiled_operations(lambda x: twice(x, lambda x: x), (X,), "exp") == 1
    assert compiled_operations(lambda x: twice(x, lax.optimization_barrier), (X,), "exp") == 2
    kernels = lambda f: fg.jit(f).lower(X).executable.cost_analysis()["kernels"]
    assert kernels(lambda x: (np.exp(x), 2 * np.exp(x))) == 1
    assert kernels(lambda x: (np.exp(x), 2 * np.exp(lax.optimization_barrier(x)))) == 2
    assert kernels(lambda x: np.cos(lax.optimization_barrier(np.sin(x) * 2))) == 2  # nor does it move behind
    tree = {"a": X, "b": (2.0, np.arange(3))}
    found = fg.jit(lax.optimization_barrier)(tree)
    assert fg.tree.structure(found) == fg.tree.structure(tree)
    np.testing.assert_array_equal(found["b"][1], np.arange(3))
    for f in (fg.grad, lambda f: fg.jit(fg.grad(f))):
        np.testing.assert_allclose(f(lambda x: np.sum(twice(x, lax.optimization_barrier)))(X), 3 * np.exp(X))
    np.testing.assert_allclose(fg.vmap(lambda x: twice(x, lax.optimization_barrier))(W), 3 * np.exp(W))


ERRORS = {
    "policy is no function": (lambda: fg.checkpoint(step, policy="dots"), TypeError, ["policy must be a function"]),
    "no function": (lambda: fg.checkpoint(3), TypeError, ["checkpoint expects a function"]),
    "names in a list": (lambda: P.save_only_these_names(["a", "b"]), TypeError, ["separate strings", "['a', 'b']"]),
    "name is no string": (lambda: fg.checkpoint_name(X, 3), TypeError, ["must be a string, found 3"]),
    "named text": (lambda: fg.checkpoint_name("x", "a"), TypeError, ["checkpoint_name: 'x'"]),
    "residuals of text": (lambda: fg.saved_residuals(step, "x", X), TypeError, ["argument 'w'"]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_message(name: str) -> None:
    call, kind, words = ERRORS[name]
    with pytest.raises(kind) as found:
        call()
    for w in words:
        assert w in str(found.value)


def test_ways_to_decorate() -> None:
    from functools import partial

    @partial(fg.checkpoint, policy=P.dots_saveable, static_argnums=(1,))
    def f(x: Any, n: int) -> Any:
        """Powers."""
        return x**n

    @fg.checkpoint(policy=P.dots_saveable)
    def g(x: Any) -> Any:
        return x**3

    assert fg.grad(f)(2.0, 3) == fg.grad(g)(2.0) == 12
    assert f.__name__ == "f" and "Powers." in f.__doc__
