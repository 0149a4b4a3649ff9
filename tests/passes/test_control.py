# ruff: noqa: E731
"""What passes do to loops and branches: each row, a program and what is left of its loop."""

from __future__ import annotations

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax
from funcgrad.core.jaxpr import ClosedJaxpr, Eqn, check_jaxpr, eval_jaxpr
from funcgrad.passes.pipeline import optimize

V = np.array([0.3, -0.4, 0.5])
W = np.arange(9.0).reshape(3, 3) / 9


def loops(closed: ClosedJaxpr) -> list[Eqn]:
    return [e for e in closed.eqns if e.primitive.name in ("scan", "while", "cond")]


def names(closed: ClosedJaxpr) -> list[str]:
    return [e.primitive.name for e in closed.eqns]


def better(f, *args) -> ClosedJaxpr:
    closed = fg.make_jaxpr(f)(*args)
    found = optimize(closed, check=True)
    wanted = eval_jaxpr(closed.jaxpr, closed.consts, *args)
    for a, b in zip(eval_jaxpr(found.jaxpr, found.consts, *args), wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    return found


def test_unused_results_go() -> None:
    """Of three carries and three ys one is read, and with it only what it depends on."""

    def f(x, ws):
        def step(c, w):
            a, b, d = c
            return (np.sin(a), b + a, d * w), (a, b * 2, np.sum(w))

        (_, b, _), _ = lax.scan(step, (x, x, x), ws)
        return b

    (scan,) = loops(better(f, V, W))
    assert scan.params["n_carry"] == 2 and scan.params["n_consts"] == 0
    assert len(scan.invars) == 2 and len(scan.outvars) == 2  # the arrays are not gone along
    assert names(scan.params["jaxpr"]) == ["sin", "add"]


def test_unused_loop_goes() -> None:
    f = lambda x: (lax.while_loop(lambda c: c[0] < 9, lambda c: c + 1, x), x * 2)[1]
    assert loops(better(f, V)) == []


def test_unused_carries_of_a_while_loop_go() -> None:
    f = lambda x: lax.while_loop(lambda c: c[0] < 9, lambda c: (c[0] + 1, c[1] * c[0], c[2] + c[1]), (x, x, x))[1]
    (loop,) = loops(better(f, 0.5))
    assert len(loop.outvars) == 2


def test_unused_operands_of_branches_go() -> None:
    f = lambda p, x, y: lax.cond(p > 0, lambda x, y: (x, y * x), lambda x, y: (x * 2, y), x, y)[0]
    (branch,) = loops(better(f, 1.0, V, W))
    assert len(branch.invars) == 2 and len(branch.outvars) == 1


def test_invariant_equations_move_out() -> None:
    """``exp(w)`` is computed once; the counter that nobody reads goes; a broadcast number stays inside."""

    def f(x, w):
        return lax.fori_loop(0, 9, lambda i, c: c * np.exp(w) + np.full(3, 2.0), x)

    closed = better(f, V, V * 2)
    (scan,) = loops(closed)
    assert "exp" in names(closed) and "exp" not in names(scan.params["jaxpr"])
    assert "broadcast_in_dim" not in names(closed)
    assert scan.params["n_carry"] == 1


def test_invariant_equations_move_out_of_while_loops() -> None:
    f = lambda x, w: lax.while_loop(lambda c: np.sum(c) < np.sum(np.exp(w)), lambda c: c + np.sin(w) ** 2, x)
    closed = better(f, V, V * 2)
    (loop,) = loops(closed)
    inside = names(loop.params["body_jaxpr"]) + names(loop.params["cond_jaxpr"])
    assert "sin" not in inside and "exp" not in inside and {"sin", "exp"} <= set(names(closed))


def test_a_loop_without_end_does_not_move_out() -> None:
    """Of a loop that takes no step, nothing runs."""
    endless = lambda x: lax.while_loop(lambda c: c == c, lambda c: c + 1, x)
    f = lambda n, x: lax.fori_loop(0, n, lambda i, c: c + endless(x), 0.0)
    assert fg.jit(f)(0, 1.0) == 0.0


def test_constant_carry() -> None:
    f = lambda x, y: lax.scan(lambda c, w: ((c[0] * c[1] + w, c[1]), c[1]), (x, y), W)
    (scan,) = loops(better(f, V, 2 * V))
    assert scan.params["n_carry"] == 1 and len(scan.outvars) == 1


def test_numbers_are_written_into_the_body() -> None:
    f = lambda x: lax.while_loop(lambda c: c[0] < c[1], lambda c: (c[0] * 2, c[1]), (x, 9.0))[0]
    (loop,) = loops(better(f, 0.5))
    assert len(loop.invars) == 1


def test_repeated_results() -> None:
    f = lambda x: lax.scan(lambda c, w: (c + w, (c, c, w, 1.0)), x, W)
    (scan,) = loops(better(f, V))
    assert len(scan.outvars) == 2


def test_one_step_is_no_loop() -> None:
    f = lambda x: lax.scan(lambda c, w: (c * w, c), x, W[:1])
    assert loops(better(f, V)) == []


def test_known_branch() -> None:
    f = lambda x: lax.switch(1, [np.sin, np.cos, np.tan], x)
    assert names(better(f, V)) == ["cos"]


def test_same_results_of_all_branches() -> None:
    f = lambda p, x: lax.cond(p > 0, lambda x: (x, np.sin(x)), lambda x: (x, x), x)
    (branch,) = loops(better(f, 1.0, V))
    assert len(branch.outvars) == 1


def test_bodies_are_optimised_at_any_depth() -> None:
    inner = lambda c, w: (lax.cond(w[0] > 1, lambda c: c * 1.0 * w, lambda c: 1.0 * c, c), np.sin(c))
    f = lambda x: lax.fori_loop(0, 2, lambda i, c: lax.scan(fg.jit(inner), c, W)[0], x)
    (outer,) = loops(better(f, V))
    (scan,) = loops(outer.params["jaxpr"])
    assert "sin" not in names(scan.params["jaxpr"])
    (branch,) = loops(scan.params["jaxpr"])
    assert [names(b) for b in branch.params["branches"]] == [[], ["mul"]]


def test_residuals_of_a_gradient() -> None:
    """What does not depend on the step is not stacked; what nobody needs is not carried."""

    def f(x, w):
        return np.sum(lax.fori_loop(0, 5, lambda i, c: c * np.exp(w) + 1.0, x))

    closed = better(fg.grad(f, (0, 1)), V, V)
    forward, backward = loops(closed)
    assert [v.aval.shape for v in forward.outvars] == [(3,), (5, 3)]
    assert backward.params["reverse"] and [v.aval.shape for v in backward.outvars] == [(3,), (3,)]
    (only,) = loops(better(fg.grad(f), V, V))  # the derivative in x keeps nothing
    assert only.params["n_carry"] == 1 and len(only.outvars) == 1


@pytest.mark.parametrize("index", [-3, 0, 1, 5])
def test_inlined_branch_is_clamped(index: int) -> None:
    f = lambda x: lax.switch(index, [np.sin, np.cos], x)
    closed = fg.make_jaxpr(f)(V)
    check_jaxpr(optimize(closed).jaxpr)
    np.testing.assert_array_equal(fg.jit(f)(V), f(V))
