"""Reductions, row by row work (softmax, layer norm), running sums, pairwise sums without the n^2 array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..peers.base import Function, Peer
from ..workload import Rng, Workload, vectors
from . import by_hand

GROUP = "reductions"


def matrix(rng: Rng, rows: int, columns: int) -> tuple[Any, ...]:
    return (rng.normal(size=(rows, columns)),)


def reduction(name: str, axis: int | None) -> Callable[[Peer], Function]:
    return lambda peer: peer.jit(lambda x: getattr(peer.np, name)(x, axis=axis))


def logsumexp(peer: Peer) -> Function:
    return peer.jit(lambda x: peer.special.logsumexp(x, axis=-1))


def softmax_of(xp: Any) -> Function:
    def f(x: Any) -> Any:
        e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
        return e / xp.sum(e, axis=-1, keepdims=True)

    return f


def softmax(peer: Peer) -> Function:
    return peer.jit(softmax_of(peer.np))


def softmax_gradient(peer: Peer) -> Function:
    xp, f = peer.np, softmax_of(peer.np)
    return peer.jit(peer.grad(lambda x: xp.sum(f(x) ** 2)))


def layer_norm_of(xp: Any) -> Function:
    def f(x: Any, scale: Any, shift: Any) -> Any:
        centred = x - xp.mean(x, axis=-1, keepdims=True)
        variance = xp.mean(centred * centred, axis=-1, keepdims=True)
        return centred / xp.sqrt(variance + 1e-5) * scale + shift

    return f


def layer_norm(peer: Peer) -> Function:
    return peer.jit(layer_norm_of(peer.np))


def layer_norm_gradient(peer: Peer) -> Function:
    xp, f = peer.np, layer_norm_of(peer.np)
    return peer.jit(peer.grad(lambda x, scale, shift: xp.sum(f(x, scale, shift) ** 3)))


def layer_norm_arguments(rng: Rng, rows: int, columns: int) -> tuple[Any, ...]:
    return rng.normal(size=(rows, columns)), rng.normal(size=columns), rng.normal(size=columns)


def cumsum(peer: Peer) -> Function:
    return peer.jit(lambda x: peer.np.cumsum(x, axis=0))


def bodies(rng: Rng, n: int) -> tuple[Any, ...]:
    return tuple(rng.normal(size=n) for _ in range(3))


def n_body_gradient(peer: Peer) -> Function:
    """The force on each of n bodies: the gradient of the sum of 1/distance over all pairs."""
    xp = peer.np

    def energy(position: Any) -> Any:
        square = 0.01
        for x in position:
            d = x[:, None] - x[None, :]
            square = square + d * d
        return -xp.sum(1.0 / xp.sqrt(square))

    gradient = peer.grad(energy)
    return peer.jit(lambda *position: gradient(position))


def smoothness(peer: Peer) -> Function:
    """The sum of squared differences of neighbours along each axis of a volume (jax #37465)."""
    xp = peer.np

    def cost(x: Any) -> Any:
        total = xp.sum((x[1:] - x[:-1]) ** 2)
        total = total + xp.sum((x[:, 1:] - x[:, :-1]) ** 2)
        return total + xp.sum((x[:, :, 1:] - x[:, :, :-1]) ** 2)

    return cost


def volume(rng: Rng, n: int) -> tuple[Any, ...]:
    return (rng.normal(size=(n, n, n)).astype(np.float32),)


MATRIX, SMALL, OTHER = dict(rows=4096, columns=1000), dict(rows=3, columns=4), dict(rows=2048, columns=999)


def _reduction(label: str, name: str, axis: int | None) -> Workload:
    return Workload(f"{label} 4096x1000", GROUP, matrix, reduction(name, axis), MATRIX, SMALL, OTHER, forward=True)


WORKLOADS = (
    _reduction("sum of all", "sum", None),
    _reduction("sum over axis 0", "sum", 0),
    _reduction("sum over axis 1", "sum", 1),
    _reduction("max over axis 1", "max", 1),
    _reduction("var over axis 1", "var", 1),
    _reduction("argmax over axis 1", "argmax", 1),
    Workload("logsumexp 4096x1000", GROUP, matrix, logsumexp, MATRIX, SMALL, OTHER, forward=True),
    Workload("softmax 4096x1000", GROUP, matrix, softmax, MATRIX, SMALL, OTHER, forward=True, cold=True, busy=True),
    Workload("softmax gradient 4096x1000", GROUP, matrix, softmax_gradient, MATRIX, SMALL, OTHER),
    Workload("layer norm 4096x1000", GROUP, layer_norm_arguments, layer_norm, MATRIX, SMALL, OTHER, forward=True),
    Workload("layer norm gradient 4096x1000", GROUP, layer_norm_arguments, layer_norm_gradient, MATRIX, SMALL, OTHER),
    Workload(
        "cumsum 1e6",
        GROUP,
        vectors(),
        cumsum,
        dict(n=1_000_000),
        dict(n=9),
        forward=True,
        own={"numba": by_hand.cumsum},
    ),
    Workload(
        "n-body gradient, n=2000",
        GROUP,
        bodies,
        n_body_gradient,
        dict(n=2000),
        dict(n=4),
        second=dict(n=1500),
        own={"numba": by_hand.n_body_gradient},
    ),
    Workload(
        "neighbour differences 256^3 f32 (jax #37465)",
        GROUP,
        volume,
        lambda p: p.jit(smoothness(p)),
        dict(n=256),
        dict(n=3),
        tolerance=1e-4,
        forward=True,
    ),
    Workload(
        "neighbour differences gradient 256^3 f32 (jax #37465)",
        GROUP,
        volume,
        lambda p: p.jit(p.grad(smoothness(p))),
        dict(n=256),
        dict(n=3),
        tolerance=1e-5,
    ),
)
