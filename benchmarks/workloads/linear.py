"""Linear algebra, sorting, Fourier transforms: what libraries do."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..peers.base import Function, Peer
from ..workload import Rng, Workload, vectors

GROUP = "linear algebra"


def square(rng: Rng, n: int) -> tuple[Any, ...]:
    return rng.normal(size=(n, n)), rng.normal(size=(n, n))


def matmul(peer: Peer) -> Function:
    return peer.jit(lambda a, b: peer.np.matmul(a, b))


def stack_of_matrices(rng: Rng, count: int, n: int) -> tuple[Any, ...]:
    return rng.normal(size=(count, n, n)), rng.normal(size=(count, n, n))


def systems(rng: Rng, count: int, n: int) -> tuple[Any, ...]:
    a = rng.normal(size=(count, n, n))
    return a @ a.swapaxes(1, 2) + n * np.eye(n), rng.normal(size=(count, n, 1))


def cholesky_solve(peer: Peer) -> Function:
    linalg = peer.scipy.linalg
    return peer.jit(lambda a, b: linalg.cho_solve(linalg.cho_factor(a, lower=True), b))


def cholesky_solve_numpy(peer: Peer) -> Function:
    """NumPy has no triangular solver; this is what its users write."""
    return lambda a, b: np.linalg.solve(a, b)


def cholesky_solve_torch(peer: Peer) -> Function:
    import torch

    return peer.jit(lambda a, b: torch.cholesky_solve(b, torch.linalg.cholesky(a)))


def cholesky_solve_pytensor(peer: Peer) -> Function:
    linalg = peer.np.linalg
    return peer.jit(lambda a, b: linalg.cho_solve((linalg.cholesky(a), True), b))


def solve(peer: Peer) -> Function:
    return peer.jit(lambda a, b: peer.np.linalg.solve(a, b))


def gaussian_process_arguments(rng: Rng, n: int) -> tuple[Any, ...]:
    x = np.sort(rng.uniform(0, 10, n))
    return np.array([0.0, 0.0, -1.0]), x, np.sin(x) + 0.1 * rng.normal(size=n)


def gaussian_process_gradient(peer: Peer) -> Function:
    """The gradient of the marginal likelihood with respect to amplitude, length and noise."""
    xp = peer.np

    def loss(log_params: Any, x: Any, y: Any) -> Any:
        amplitude, length, noise = (xp.exp(log_params[k]) for k in range(3))
        d = (x[:, None] - x[None, :]) / length
        eye = xp.eye(x.shape[0])
        k = amplitude * xp.exp(-0.5 * d * d) + noise * eye
        diagonal = xp.sum(eye * xp.linalg.cholesky(k), axis=1)
        return 0.5 * xp.dot(y, xp.linalg.solve(k, y)) + xp.sum(xp.log(diagonal))

    return peer.jit(peer.grad(loss))


def sort(peer: Peer) -> Function:
    return peer.jit(lambda x: peer.np.sort(x))


def fft(peer: Peer) -> Function:
    return peer.jit(lambda x: peer.np.fft.fft(x))


WORKLOADS = (
    *[
        Workload(f"matmul {n}x{n}", GROUP, square, matmul, dict(n=n), dict(n=3), forward=True, slow=n > 1000)
        for n in (32, 128, 512, 2048)
    ],
    Workload(
        "matmul of 10000 8x8",
        GROUP,
        stack_of_matrices,
        matmul,
        dict(count=10_000, n=8),
        dict(count=3, n=2),
        forward=True,
    ),
    Workload(
        "Cholesky solve of 1000 16x16",
        GROUP,
        systems,
        cholesky_solve,
        dict(count=1000, n=16),
        dict(count=3, n=2),
        forward=True,
        needs=("scipy.linalg.cho_factor", "scipy.linalg.cho_solve"),
        own={
            "numpy": cholesky_solve_numpy,
            "torch": cholesky_solve_torch,
            "pytensor": cholesky_solve_pytensor,
        },
    ),
    Workload(
        "solve of 1000 8x8",
        GROUP,
        systems,
        solve,
        dict(count=1000, n=8),
        dict(count=3, n=2),
        forward=True,
        needs=("numpy.linalg.solve",),
    ),
    Workload(
        "Gaussian process likelihood gradient, n=300",
        GROUP,
        gaussian_process_arguments,
        gaussian_process_gradient,
        dict(n=300),
        dict(n=4),
        tolerance=1e-6,
        needs=("numpy.linalg.cholesky", "numpy.linalg.solve"),
    ),
    Workload("sort 1e6", GROUP, vectors(), sort, dict(n=1_000_000), dict(n=6), forward=True, needs=("numpy.sort",)),
    Workload("FFT 1e6", GROUP, vectors(), fft, dict(n=1_000_000), dict(n=6), forward=True, needs=("numpy.fft.fft",)),
)
