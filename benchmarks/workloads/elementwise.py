"""Elementwise work: fused expressions, each transcendental function, comparisons, whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..peers.base import Function, Peer
from ..workload import Rng, Workload, vectors
from . import by_hand

GROUP = "elementwise"


def fused(peer: Peer) -> Function:
    xp = peer.np
    return peer.jit(lambda x, y: xp.tanh(x) * y + xp.exp(-x * x) / (1.0 + y * y))


def one(name: str) -> Callable[[Peer], Function]:
    """A function by NumPy's name, or by SciPy's where NumPy has none."""

    def build(peer: Peer) -> Function:
        f = getattr(peer.special if name in ("erf", "expit") else peer.np, name)
        return peer.jit(lambda *x: f(*x))

    return build


def arguments_of(low: float, high: float, count: int, dtype: str) -> Callable[..., tuple[Any, ...]]:
    return lambda rng, n: tuple(rng.uniform(low, high, n).astype(dtype) for _ in range(count))


# name, range of the arguments, number of arguments
FUNCTIONS = (
    ("exp", -10.0, 10.0, 1),
    ("expm1", -2.0, 2.0, 1),
    ("log", 1e-3, 1e3, 1),
    ("log1p", -0.9, 10.0, 1),
    ("sin", -10.0, 10.0, 1),
    ("cos", -10.0, 10.0, 1),
    ("tan", -1.5, 1.5, 1),
    ("tanh", -4.0, 4.0, 1),
    ("sinh", -4.0, 4.0, 1),
    ("cosh", -4.0, 4.0, 1),
    ("arctan", -10.0, 10.0, 1),
    ("arctan2", -10.0, 10.0, 2),
    ("power", 0.1, 4.0, 2),
    ("cbrt", 0.1, 100.0, 1),
    ("erf", -3.0, 3.0, 1),
    ("expit", -8.0, 8.0, 1),
)


def _functions(n: int) -> list[Workload]:
    return [
        Workload(
            f"{'sigmoid' if name == 'expit' else name} 1e6{suffix}",
            GROUP,
            arguments_of(low, high, count, dtype),
            one(name),
            dict(n=n),
            dict(n=5),
            tolerance=tolerance,
            forward=True,
        )
        for name, low, high, count in FUNCTIONS
        for suffix, dtype, tolerance in (("", "float64", 1e-13), (" f32", "float32", 2e-6))
    ]


def options(rng: Rng, n: int) -> tuple[Any, ...]:
    """Price, strike, years, rate, volatility."""
    return tuple(rng.uniform(a, b, n) for a, b in ((80, 120), (80, 120), (0.2, 2.0), (0.01, 0.05), (0.1, 0.4)))


def black_scholes(peer: Peer) -> Function:
    """The price of European calls and its derivatives with respect to all five arguments."""
    xp, erf = peer.np, peer.special.erf

    def total(inputs: Any) -> Any:
        price, strike, years, rate, volatility = inputs
        spread = volatility * xp.sqrt(years)
        d1 = (xp.log(price / strike) + (rate + 0.5 * volatility * volatility) * years) / spread
        d2 = d1 - spread
        cdf = [0.5 * (1.0 + erf(d * 0.7071067811865476)) for d in (d1, d2)]
        return xp.sum(price * cdf[0] - strike * xp.exp(-rate * years) * cdf[1])

    greeks = peer.value_and_grad(total)
    return peer.jit(lambda *inputs: greeks(inputs))


def huber_clip(peer: Peer) -> Function:
    """Comparisons and choices: a clipped, piecewise loss."""
    xp = peer.np

    def f(x: Any, y: Any) -> Any:
        r = xp.abs(x - y)
        loss = xp.where(r < 1.0, 0.5 * r * r, r - 0.5)
        loss = xp.where((x > 2.0) | (y < -2.0), 0.0, loss)
        return xp.where((r > 0.1) & (r <= 3.0), loss, xp.minimum(loss, 1.0))

    return peer.jit(f)


def board(rng: Rng, n: int) -> tuple[Any, ...]:
    return ((rng.uniform(size=(n, n)) < 0.3).astype(np.uint8),)


def life(peer: Peer) -> Function:
    """Conway's game of life on a torus: bytes and truth values."""
    xp = peer.np

    def step(cells: Any) -> Any:
        rows = cells + xp.roll(cells, 1, axis=0) + xp.roll(cells, -1, axis=0)
        around = rows + xp.roll(rows, 1, axis=1) + xp.roll(rows, -1, axis=1) - cells
        return peer.cast(xp.equal(around, 3) | (xp.equal(cells, 1) & xp.equal(around, 2)), "uint8")

    return peer.jit(step)


def hash_bits(peer: Peer) -> Function:
    """Whole numbers: shifts, exclusive or, wrapping products."""

    def f(x: Any) -> Any:
        x = (x ^ (x >> 16)) * 73244475
        x = (x ^ (x >> 16)) * 73244475
        return (x ^ (x >> 16)) & 1023

    return peer.jit(f)


WORKLOADS = (
    *[
        Workload(
            f"fused expression, n={label}{suffix}",
            GROUP,
            vectors(2, dtype),
            fused,
            dict(n=n),
            dict(n=5),
            second=dict(n=n + 3),
            tolerance=tolerance,
            forward=True,
            own={"numba": by_hand.fused},
            slow=n > 1_000_000,
            cold=label == "1e4" and not suffix,
        )
        for label, n in (("1e4", 10_000), ("1e7", 10_000_000))
        for suffix, dtype, tolerance in (("", "float64", 1e-12), (" f32", "float32", 1e-5))
    ],
    *_functions(1_000_000),
    Workload(
        "Black-Scholes value+gradient, 1e6",
        GROUP,
        options,
        black_scholes,
        dict(n=1_000_000),
        dict(n=4),
        second=dict(n=999_000),
        cold=True,
    ),
    Workload("comparisons and where, 1e6", GROUP, vectors(2), huber_clip, dict(n=1_000_000), dict(n=50), forward=True),
    Workload(
        "game of life 1024x1024, uint8",
        GROUP,
        board,
        life,
        dict(n=1024),
        dict(n=8),
        forward=True,
        own={"numba": by_hand.life},
    ),
    Workload(
        "integer hash, 1e6",
        GROUP,
        lambda rng, n: (rng.integers(0, 2**31, n),),
        hash_bits,
        dict(n=1_000_000),
        dict(n=50),
        forward=True,
        without={"pytensor": "PyTensor's arrays have no shifts"},
    ),
)
