"""Every program of ``programs.py`` under every transform, against Python loops and finite differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.core.jaxpr import check_jaxpr, eval_jaxpr
from funcgrad.passes.pipeline import optimize

from .programs import ROWS, Row

REVERSIBLE = list(ROWS)


def directions(rng: np.random.Generator, args: Sequence[Any]) -> list[Any]:
    found = []
    for x in args:
        v = rng.normal(size=np.shape(x))
        if np.iscomplexobj(x):
            v = v + 1j * rng.normal(size=np.shape(x))
        found.append(np.asarray(v)[()])
    return found


def along(fun: Callable[..., Any], args: Sequence[Any], v: Sequence[Any]) -> Callable[[float], Any]:
    return lambda s: fun(*[x + s * d for x, d in zip(args, v, strict=True)])


def slope(fun: Callable[[float], Any], h: float = 1e-5) -> Any:
    """The derivative at 0 by a difference formula of fourth order."""
    return (8 * (fun(h) - fun(-h)) - (fun(2 * h) - fun(-2 * h))) / (12 * h)


def pairing(cts: Sequence[Any], v: Sequence[Any]) -> float:
    return float(sum(np.real(np.sum(c * d)) for c, d in zip(cts, v, strict=True)))


def positions(row: Row) -> tuple[int, ...]:
    return tuple(range(len(row.args)))


@pytest.mark.parametrize("name", ROWS)
def test_value(name: str) -> None:
    row = ROWS[name]
    wanted = row.meaning(*row.args)
    np.testing.assert_allclose(row.program(*row.args), wanted, rtol=1e-13)
    np.testing.assert_allclose(fg.jit(row.program)(*row.args), wanted, rtol=1e-13)


@pytest.mark.parametrize("name", ROWS)
def test_passes(name: str) -> None:
    """The program and its derivatives check before and after every pass, and mean the same."""
    row = ROWS[name]
    n = len(row.args)
    forward = lambda *xs: fg.jvp(row.program, xs[:n], xs[n:])  # noqa: E731
    for fun, args in ((row.program, row.args), (forward, (*row.args, *row.args))):
        closed = fg.make_jaxpr(fun)(*args)
        check_jaxpr(closed.jaxpr)
        better = optimize(closed, check=True)
        wanted = eval_jaxpr(closed.jaxpr, closed.consts, *args)
        for a, b in zip(eval_jaxpr(better.jaxpr, better.consts, *args), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("name", ROWS)
def test_forward_mode(name: str, rng: np.random.Generator) -> None:
    row = ROWS[name]
    v, w = directions(rng, row.args), directions(rng, row.args)
    push = lambda *args: fg.jvp(row.program, args, tuple(v))[1]  # noqa: E731
    wanted = slope(along(row.meaning, row.args, v))
    np.testing.assert_allclose(push(*row.args), wanted, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(fg.jit(push)(*row.args), push(*row.args), rtol=1e-12)
    second = fg.jvp(push, row.args, tuple(w))[1]
    np.testing.assert_allclose(second, slope(along(push, row.args, w)), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(fg.linearize(row.program, *row.args)[1](*v), push(*row.args), rtol=1e-12)


@pytest.mark.parametrize("name", REVERSIBLE)
def test_reverse_mode(name: str, rng: np.random.Generator) -> None:
    row = ROWS[name]
    v, w = directions(rng, row.args), directions(rng, row.args)
    gradient = fg.grad(row.program, positions(row))
    cts = gradient(*row.args)
    for c, x in zip(cts, row.args, strict=True):
        assert np.shape(c) == np.shape(x) and np.asarray(c).dtype == np.asarray(x).dtype
    np.testing.assert_allclose(pairing(cts, v), fg.jvp(row.program, row.args, tuple(v))[1], rtol=1e-11, atol=1e-12)
    for a, b in zip(fg.jit(gradient)(*row.args), cts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)
    pulled = lambda *args: pairing_traced(gradient(*args), v)  # noqa: E731
    second = fg.jvp(pulled, row.args, tuple(w))[1]  # forward over reverse
    np.testing.assert_allclose(second, slope(along(pulled, row.args, w)), rtol=1e-6, atol=1e-7)
    again = fg.grad(pulled, positions(row))(*row.args)  # reverse over reverse
    np.testing.assert_allclose(pairing(again, w), second, rtol=1e-10, atol=1e-11)
    again = fg.jit(fg.grad(pulled, positions(row)))(*row.args)
    np.testing.assert_allclose(pairing(again, w), second, rtol=1e-10, atol=1e-11)
    push = lambda *args: fg.jvp(row.program, args, tuple(v))[1]  # noqa: E731
    mixed = fg.grad(push, positions(row))(*row.args)  # reverse over forward
    np.testing.assert_allclose(pairing(mixed, w), second, rtol=1e-10, atol=1e-11)


def pairing_traced(cts: Sequence[Any], v: Sequence[Any]) -> Any:
    return sum(np.real(np.sum(c * d)) for c, d in zip(cts, v, strict=True))


def variants(x: Any) -> list[Any]:
    x = np.asarray(x)
    return [x, -x if x.ndim else x * 1.1, x * 0.9]


def check_batched(fun: Callable[..., Any], row: Row) -> None:
    """vmap over every choice of arguments, at the front and at the end, against a loop."""
    values = [variants(x) for x in row.args]
    for chosen in itertools.product((False, True), repeat=len(row.args)):
        if not any(chosen):
            continue
        each = [fun(*[x[k if c else 0] for x, c in zip(values, chosen, strict=True)]) for k in range(3)]
        wanted = fg.tree.map(lambda *xs: np.stack(xs), *each)
        for end in (False, True):
            axes = tuple([(-1 if end else 0) if c else None for c in chosen])
            args = [np.stack(x, axis=a) if a is not None else x[0] for x, a in zip(values, axes, strict=True)]
            found = fg.vmap(fun, axes)(*args)
            fg.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12), found, wanted)
        found = fg.jit(fg.vmap(fun, axes))(*args)
        fg.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12), found, wanted)


@pytest.mark.parametrize("name", ROWS)
def test_batching(name: str) -> None:
    check_batched(ROWS[name].program, ROWS[name])


@pytest.mark.parametrize("name", ROWS)
def test_batched_forward_mode(name: str, rng: np.random.Generator) -> None:
    row = ROWS[name]
    v = directions(rng, row.args)
    check_batched(lambda *args: fg.jvp(row.program, args, tuple(v))[1], row)


@pytest.mark.parametrize("name", REVERSIBLE)
def test_batched_gradient(name: str) -> None:
    row = ROWS[name]
    check_batched(fg.grad(row.program, positions(row)), row)


@pytest.mark.parametrize("name", REVERSIBLE)
def test_gradient_of_batch(name: str) -> None:
    """grad(vmap(f)) is vmap(grad(f)), and the same jitted."""
    row = ROWS[name]
    args = [np.stack(variants(x)) for x in row.args]
    wanted = fg.vmap(fg.grad(row.program, positions(row)))(*args)
    total = fg.grad(lambda *xs: np.sum(fg.vmap(row.program)(*xs)), positions(row))
    for found in (total(*args), fg.jit(total)(*args)):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


DOUBLE = {"cond_shares_residuals", "reversed_pytree"}
"""Programs that multiply by an array of int64, which makes float64 of float32."""


@pytest.mark.parametrize("name", [name for name in REVERSIBLE if name not in DOUBLE])
def test_single_precision(name: str) -> None:
    row = ROWS[name]
    args = [np.asarray(x, np.complex64 if np.iscomplexobj(x) else np.float32)[()] for x in row.args]
    assert np.asarray(row.program(*args)).dtype == np.float32
    for f in (fg.grad(row.program, positions(row)), fg.jit(fg.grad(row.program, positions(row)))):
        assert [np.asarray(c).dtype for c in f(*args)] == [np.asarray(x).dtype for x in args]
