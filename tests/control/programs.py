# ruff: noqa: E731
"""Programs with loops and branches, each beside the Python code that it means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from funcgrad import at, checkpoint, jit, lax

_rng = np.random.default_rng(0)
W, XS, V = 0.5 * _rng.normal(size=(3, 3)), _rng.normal(size=(5, 3)), _rng.normal(size=3)


@dataclass(frozen=True)
class Row:
    """``program(*args)``, a scalar, is ``meaning(*args)``.

    ``unknown_length``: it takes a number of steps that is not known, so that ``meaning`` needs concrete values.
    """

    program: Callable[..., Any]
    meaning: Callable[..., Any]
    args: tuple[Any, ...]
    unknown_length: bool = False


ROWS: dict[str, Row] = {}


def row(*args: Any, **options: Any) -> Callable[[Callable[[], Any]], None]:
    def add(make: Callable[[], Any]) -> None:
        program, meaning = make()
        ROWS[make.__name__] = Row(program, meaning, args, **options)

    return add


# branches -----------------------------------------------------------------------------------------------------------


def _branch(x):
    return np.sum(np.sin(x) * x) if np.sum(x) > 0 else np.sum(x**3)


@row(V)
def cond_taken():
    program = lambda x: lax.cond(np.sum(x) > 0, lambda x: np.sum(np.sin(x) * x), lambda x: np.sum(x**3), x)
    return program, _branch


@row(-V)
def cond_not_taken():
    program = lambda x: lax.cond(np.sum(x) > 0, lambda x: np.sum(np.sin(x) * x), lambda x: np.sum(x**3), x)
    return program, _branch


@row(V, 0.7)
def cond_closures():
    """Branches read what is around them, and only one has a derivative in y."""

    def program(x, y):
        z = x * y
        a, b = lax.cond(y > 0.5, lambda: (z * y, 2.0), lambda: (x, 1.0))
        return np.sum(a) * b

    return program, lambda x, y: np.sum(x * y * y) * 2.0 if y > 0.5 else np.sum(x)


@row(V)
def cond_constant_branch():
    return (
        lambda x: np.sum(lax.cond(x[0] > 9, lambda x: x * x, lambda x: np.ones_like(x), x)) + x[0],
        lambda x: 3.0 + x[0],
    )


@row(0.8)
def cond_nested():
    def program(x):
        inner = lambda x: lax.cond(x > 0.5, np.sin, np.cos, x) * x
        return lax.cond(x > 0, inner, lambda x: x, x)

    return program, lambda x: np.sin(x) * x if x > 0.5 else np.cos(x) * x


@row(0.3, 1.7)
def cond_shares_residuals():
    """Both branches keep residuals of the same type, and one of another."""
    left = lambda x, y: np.sum(np.exp(x * y) * np.arange(3.0))
    right = lambda x, y: np.sin(x) * np.cos(y)
    return lambda x, y: lax.cond(x < 1, left, right, x, y), left


@row(1.3)
def switch_three():
    branches = [lambda x: x, lambda x: x**2, lambda x: np.sin(x) * 3]
    program = lambda x: sum(lax.switch(k, branches, x * (k + 2)) for k in (-1, 0, 1, 2, 7))
    meaning = lambda x: x + 2 * x + (3 * x) ** 2 + np.sin(4 * x) * 3 + np.sin(9 * x) * 3
    return program, meaning


# scans --------------------------------------------------------------------------------------------------------------


@row(W, XS, V)
def rnn():
    def program(W, xs, h):
        def step(h, x):
            h = np.tanh(W @ h + x)
            return h, h * x

        h, ys = lax.scan(step, h, xs)
        return np.sum(ys) + np.sum(h**2)

    def meaning(W, xs, h):
        total = 0.0
        for x in xs:
            h = np.tanh(W @ h + x)
            total = total + np.sum(h * x)
        return total + np.sum(h**2)

    return program, meaning


@row(W, XS)
def reversed_pytree():
    def program(W, xs):
        def step(carry, x):
            s = np.sin(carry["s"]) + x[0] @ W
            return {"s": s, "n": carry["n"] + 1}, (s[0] * x[1], {"k": carry["n"]})

        carry, (a, b) = lax.scan(step, {"s": xs[0], "n": 0}, (xs, xs[:, 0]), reverse=True)
        return np.sum(carry["s"]) * carry["n"] + np.sum(a * b["k"])

    def meaning(W, xs):
        s, n, total = xs[0], 0, 0.0
        for x in xs[::-1]:
            s = np.sin(s) + x @ W
            total = total + s[0] * x[0] * n
            n += 1
        return np.sum(s) * n + total

    return program, meaning


@row(V, 0.3)
def invariant_residuals():
    """What does not depend on the step is kept once, and a carry that nothing differentiates needs no tangent."""

    def program(x, y):
        def step(carry, _):
            a, b = carry
            return (a * np.exp(y) + np.sin(x), b + 1.0), None

        (a, b), _ = lax.scan(step, (x, 0.0), None, length=4)
        return np.sum(a) * b

    def meaning(x, y):
        a = x
        for _ in range(4):
            a = a * np.exp(y) + np.sin(x)
        return np.sum(a) * 4.0

    return program, meaning


@row(V)
def late_tangents():
    """A carry gets a tangent only through another one: the fixpoint takes several rounds."""

    def program(x):
        def step(carry, _):
            a, b, c = carry
            return (a + np.sum(np.sin(x)), b + a, c + b), c

        (_, b, c), cs = lax.scan(step, (0.0, 1.0, 2.0), None, length=5)
        return c * b + np.sum(cs)

    def meaning(x):
        a, b, c, total = 0.0, 1.0, 2.0, 0.0
        for _ in range(5):
            total = total + c
            a, b, c = a + np.sum(np.sin(x)), b + a, c + b
        return c * b + total

    return program, meaning


@row(V)
def empty_scan():
    program = lambda x: np.sum(lax.scan(lambda c, y: (c * y, c), x, np.ones((0, 3), x.dtype))[0] ** 2)
    return program, lambda x: np.sum(x**2)


@row(V)
def one_step():
    program = lambda x: np.sum(lax.scan(lambda c, y: (c * y, c + y), x, (2 * x)[None])[1] ** 2)
    return program, lambda x: np.sum((x + 2 * x) ** 2)


@row(W, V)
def fori_with_index():
    def program(W, x):
        return np.sum(lax.fori_loop(1, 6, lambda i, x: np.tanh(W @ x) * i + at(W)[i % 3].get(), x))

    def meaning(W, x):
        for i in range(1, 6):
            x = np.tanh(W @ x) * i + W[i % 3]
        return np.sum(x)

    return program, meaning


@row(XS)
def fori_in_place():
    """A loop that writes into its carry, as one writes it with NumPy."""

    def program(a):
        def body(i, a):
            a[i] = np.sin(a[i - 1]) + a[i]
            return a

        return np.sum(lax.fori_loop(1, 5, body, a * 1.0) ** 2)

    def meaning(a):
        rows = [a[0]]
        for i in range(1, 5):
            rows.append(np.sin(rows[-1]) + a[i])
        return sum(np.sum(r**2) for r in rows)

    return program, meaning


@row(XS)
def map_rows():
    def program(xs):
        ys = lax.map(lambda x: np.sum(x) * x, xs)
        zs = lax.map(lambda x: np.sum(x) * x, xs, batch_size=2)
        return np.sum(ys * zs)

    return program, lambda xs: np.sum((xs.sum(1, keepdims=True) * xs) ** 2)


@row(XS)
def associative():
    def program(xs):
        a = lax.associative_scan(np.multiply, xs)
        b = lax.associative_scan(np.multiply, xs, reverse=True, axis=1)
        return np.sum(a) + np.sum(b * b)

    return program, lambda xs: np.sum(np.cumprod(xs, 0)) + np.sum(np.cumprod(xs[:, ::-1], 1) ** 2)


# nested -------------------------------------------------------------------------------------------------------------


@row(W, V)
def scan_in_scan():
    def program(W, x):
        def outer(c, w):
            inner = lambda d, v: (np.sin(d * v) + c, d)
            d, ds = lax.scan(inner, c, w)
            return d, np.sum(ds)

        c, ys = lax.scan(outer, x[0], W)
        return c + np.sum(ys)

    def meaning(W, x):
        c, total = x[0], 0.0
        for w in W:
            d = c
            for v in w:
                total = total + d
                d = np.sin(d * v) + c
            c = d
        return c + total

    return program, meaning


@row(W, V)
def cond_in_scan():
    def program(W, x):
        def step(c, w):
            return lax.cond(np.sum(w) > 0, lambda c: np.sin(c) * w, lambda c: c + 2 * w, c), np.sum(c)

        c, ys = lax.scan(step, x, W)
        return np.sum(c * c) + np.sum(ys)

    def meaning(W, x):
        total = 0.0
        for w in W:
            total = total + np.sum(x)
            x = np.sin(x) * w if np.sum(w) > 0 else x + 2 * w
        return np.sum(x * x) + total

    return program, meaning


@row(V, 0.4)
def scan_in_cond():
    def program(x, y):
        loop = lambda x: np.sum(lax.scan(lambda c, v: (c * v + np.sin(y), c), y, x)[1])
        return lax.cond(y > 0, loop, lambda x: np.sum(x), x)

    def meaning(x, y):
        c, total = y, 0.0
        for v in x:
            total = total + c
            c = c * v + np.sin(y)
        return total

    return program, meaning


@row(W, V)
def calls_in_scan():
    """Bodies that are jitted and checkpointed themselves."""

    def program(W, x):
        step = jit(lambda c, w: (np.tanh(c * w), np.sum(c)))
        kept = checkpoint(lambda c, w: step(np.sin(c), w))
        c, ys = lax.scan(kept, x, W)
        return np.sum(c) + np.sum(ys)

    def meaning(W, x):
        total = 0.0
        for w in W:
            x = np.sin(x)
            total = total + np.sum(x)
            x = np.tanh(x * w)
        return np.sum(x) + total

    return program, meaning


@row(W, V)
def checkpointed_scan():
    def program(W, x):
        return checkpoint(lambda W, x: np.sum(lax.scan(lambda c, w: (np.tanh(c * w + x), c), x, W)[1]))(W, x)

    def meaning(W, x):
        c, total = x, 0.0
        for w in W:
            total = total + np.sum(c)
            c = np.tanh(c * w + x)
        return total

    return program, meaning


@row(np.array([0.5 + 0.3j, -0.2j]), 0.7)
def complex_carry():
    def program(z, y):
        w = lax.fori_loop(0, 4, lambda i, w: w * w * 0.5 + z * y, z)
        return np.sum(np.real(w * np.conj(w)))

    def meaning(z, y):
        w = z
        for _ in range(4):
            w = w * w * 0.5 + z * y
        return np.sum(np.real(w * np.conj(w)))

    return program, meaning


# loops of unknown length ----------------------------------------------------------------------------------------------


@row(V, unknown_length=True)
def while_scaled():
    def program(x):
        x, n = lax.while_loop(lambda c: np.sum(c[0] ** 2) < 50, lambda c: (c[0] * 1.5 + np.sin(c[0]), c[1] + 1), (x, 0))
        return np.sum(x) * n

    def meaning(x):
        n = 0
        while np.sum(x**2) < 50:
            x, n = x * 1.5 + np.sin(x), n + 1
        return np.sum(x) * n

    return program, meaning


@row(0.6, 2.3, unknown_length=True)
def while_newton():
    """A square root: what is searched enters as a constant of body and condition."""

    def program(x, a):
        return lax.while_loop(lambda x: np.abs(x * x - a) > 1e-14, lambda x: 0.5 * (x + a / x), x)

    def meaning(x, a):
        while np.abs(x * x - a) > 1e-14:
            x = 0.5 * (x + a / x)
        return x

    return program, meaning


@row(V, unknown_length=True)
def fori_of_unknown_length():
    def program(x):
        n = (np.sum(x * x) * 0 + 4).astype(int)
        return np.sum(lax.fori_loop(0, n, lambda i, c: np.sin(c) * x + i, x))

    def meaning(x):
        c = x
        for i in range(4):
            c = np.sin(c) * x + i
        return np.sum(c)

    return program, meaning


@row(W, unknown_length=True)
def while_in_scan():
    def program(W):
        def step(c, w):
            d = lax.while_loop(lambda d: np.sum(d) < 5, lambda d: d * 1.3 + 0.5, np.abs(w) + c)
            return c + np.sin(d[0]), np.sum(d)

        c, ys = lax.scan(step, 0.1, W)
        return c + np.sum(ys)

    def meaning(W):
        c, total = 0.1, 0.0
        for w in W:
            d = np.abs(w) + c
            while np.sum(d) < 5:
                d = d * 1.3 + 0.5
            c, total = c + np.sin(d[0]), total + np.sum(d)
        return c + total

    return program, meaning


@row(V, unknown_length=True)
def scan_in_while():
    def program(x):
        body = lambda x: lax.scan(lambda c, v: (c + v * 0.5, c), x, np.stack([x, 2 * x]))[0] + 0.1
        return np.sum(lax.while_loop(lambda x: np.sum(x**2) < 30, body, x))

    def meaning(x):
        while np.sum(x**2) < 30:
            x = x + 0.5 * x + x + 0.1
        return np.sum(x)

    return program, meaning


@row(0.3, unknown_length=True)
def while_in_while():
    def program(x):
        inner = lambda y: lax.while_loop(lambda z: z < 2, lambda z: z * 1.7 + x, y)
        return lax.while_loop(lambda y: y < 9, lambda y: y + inner(np.sin(y) ** 2 + 0.2), x)

    def meaning(x):
        y = x
        while y < 9:
            z = np.sin(y) ** 2 + 0.2
            while z < 2:
                z = z * 1.7 + x
            y = y + z
        return y

    return program, meaning
