"""What is measured. A workload is a name, its arguments, and a function of a peer that gives what is called.

Everything is written once, against ``peer.numpy``; results are compared between peers before anything is timed.
Arguments are float64 unless the name says f32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .peers import Peer

__all__ = ["WORKLOADS", "Workload", "mlp_arguments", "mlp_step", "xor_arguments", "xor_step"]

Rng = np.random.Generator


@dataclass(frozen=True)
class Workload:
    """``build(peer)`` is called with ``arguments(rng)``.

    ``tolerance`` is the difference allowed between peers, relative to the largest element of each result.
    ``derivatives`` is false where NumPy computes the same, so that autograd has nothing to add to it.
    ``slow`` ones are left out by ``--quick``.
    """

    name: str
    arguments: Callable[[Rng], tuple[Any, ...]]
    build: Callable[[Peer], Callable[..., Any]]
    tolerance: float = 1e-10
    derivatives: bool = True
    slow: bool = False

    def takes_part(self, peer: str) -> bool:
        return self.derivatives or peer != "autograd"


# small calls ----------------------------------------------------------------------------------------------------


def small(peer: Peer) -> Any:
    return peer.jit(lambda x: 2.0 * x + 1.0)


def scalar_formula(xp: Any) -> Any:
    """Five operations."""
    return lambda x: xp.tanh(x * x) * xp.exp(x) + x


# arrays ---------------------------------------------------------------------------------------------------------


def rosenbrock(peer: Peer) -> Any:
    xp = peer.numpy

    def f(x: Any) -> Any:
        return xp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)

    return peer.jit(peer.value_and_grad(f))


def elementwise(peer: Peer) -> Any:
    xp = peer.numpy
    return peer.jit(lambda x, y: xp.tanh(x) * y + xp.exp(-x * x) / (1.0 + y * y))


def softmax(peer: Peer) -> Any:
    xp = peer.numpy

    def f(x: Any) -> Any:
        e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
        return e / xp.sum(e, axis=-1, keepdims=True)

    return peer.jit(f)


def layer_norm_of(xp: Any) -> Any:
    def f(x: Any, scale: Any, shift: Any) -> Any:
        centred = x - xp.mean(x, axis=-1, keepdims=True)
        variance = xp.mean(centred * centred, axis=-1, keepdims=True)
        return centred / xp.sqrt(variance + 1e-5) * scale + shift

    return f


def layer_norm_gradient(peer: Peer) -> Any:
    f = layer_norm_of(peer.numpy)
    return peer.jit(peer.grad(lambda x, scale, shift: peer.numpy.sum(f(x, scale, shift) ** 3)))


def matrix(rng: Rng) -> tuple[Any, ...]:
    return (rng.normal(size=(4096, 1000)),)


def layer_norm_arguments(rng: Rng) -> tuple[Any, ...]:
    return rng.normal(size=(4096, 1000)), rng.normal(size=1000), rng.normal(size=1000)


# networks -------------------------------------------------------------------------------------------------------


def mlp_arguments(rng: Rng, batch: int = 128) -> tuple[Any, ...]:
    sizes = (784, 512, 512, 10)
    params = [
        ((rng.normal(size=(n, m)) / np.sqrt(n)).astype(np.float32), np.zeros(m, np.float32)) for n, m in pairwise(sizes)
    ]
    x = rng.normal(size=(batch, 784)).astype(np.float32)
    y = np.eye(10, dtype=np.float32)[rng.integers(0, 10, batch)]
    return params, x, y


def mlp_step(peer: Peer) -> Any:
    """Cross-entropy of a network with two hidden layers, its gradient, and a step of gradient descent."""
    xp = peer.numpy

    def loss(params: Any, x: Any, y: Any) -> Any:
        for w, b in params[:-1]:
            x = xp.tanh(xp.dot(x, w) + b)
        w, b = params[-1]
        z = xp.dot(x, w) + b
        z = z - xp.max(z, axis=-1, keepdims=True)
        log_p = z - xp.log(xp.sum(xp.exp(z), axis=-1, keepdims=True))
        return -xp.mean(xp.sum(y * log_p, axis=-1))

    gradient = peer.value_and_grad(loss)

    def step(params: Any, x: Any, y: Any) -> Any:
        value, grads = gradient(params, x, y)
        rate = np.float32(0.1)
        return value, [(w - rate * dw, b - rate * db) for (w, b), (dw, db) in zip(params, grads)]

    return peer.jit(step)


XOR_X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR_Y = np.array([[-1.0], [1.0], [1.0], [-1.0]])


def xor_arguments(rng: Rng) -> tuple[Any, ...]:
    """Twelve leaves: four parameters and Adam's two running means of each."""
    params = {"w1": rng.normal(size=(2, 4)), "b1": np.zeros(4), "w2": rng.normal(size=(4, 1)), "b2": np.zeros(1)}
    return params, {k: np.zeros_like(v) for k, v in params.items()}, {k: np.ones_like(v) for k, v in params.items()}


def xor_step(peer: Peer) -> Any:
    """One step of Adam on the XOR network."""
    xp = peer.numpy

    def loss(p: Any) -> Any:
        hidden = xp.tanh(xp.dot(XOR_X, p["w1"]) + p["b1"])
        return xp.mean((xp.tanh(xp.dot(hidden, p["w2"]) + p["b2"]) - XOR_Y) ** 2)

    gradient = peer.grad(loss)

    def step(p: Any, m: Any, v: Any) -> Any:
        g = gradient(p)
        m = {k: 0.9 * m[k] + 0.1 * g[k] for k in p}
        v = {k: 0.999 * v[k] + 0.001 * g[k] ** 2 for k in p}
        return {k: p[k] - 0.01 * m[k] / (xp.sqrt(v[k]) + 1e-8) for k in p}, m, v

    return peer.jit(step)


# linear algebra -------------------------------------------------------------------------------------------------


def gaussian_process(peer: Peer) -> Any:
    """The marginal likelihood of a Gaussian process, and its gradient in three hyperparameters."""
    xp = peer.numpy

    def loss(p: Any, x: Any, y: Any) -> Any:
        difference = (x[:, None, :] - x[None, :, :]) / xp.exp(p[0])
        kernel = xp.exp(p[1]) * xp.exp(-0.5 * xp.sum(difference * difference, axis=-1))
        one = xp.eye(x.shape[0])
        kernel = kernel + xp.exp(p[2]) * one
        diagonal = xp.sum(xp.linalg.cholesky(kernel) * one, axis=-1)  # autograd has no rule for diagonal
        return 0.5 * xp.dot(y, xp.linalg.solve(kernel, y)) + xp.sum(xp.log(diagonal))

    return peer.jit(peer.value_and_grad(loss))


def gaussian_process_arguments(rng: Rng) -> tuple[Any, ...]:
    return np.array([0.1, 0.2, -1.0]), rng.normal(size=(300, 3)), rng.normal(size=300)


def systems(peer: Peer) -> Any:
    return peer.jit(lambda a, b: peer.numpy.linalg.solve(a, b))


def systems_arguments(rng: Rng) -> tuple[Any, ...]:
    return rng.normal(size=(1000, 8, 8)) + 4 * np.eye(8), rng.normal(size=(1000, 8, 1))


# the list -------------------------------------------------------------------------------------------------------


def vectors(n: int, count: int = 1) -> Callable[[Rng], tuple[Any, ...]]:
    return lambda rng: tuple(rng.normal(size=n) for _ in range(count))


WORKLOADS: tuple[Workload, ...] = (
    Workload("dispatch: jit call, scalar", lambda rng: (0.5,), small, derivatives=False),
    Workload("dispatch: jit call, 10 elements", vectors(10), small, derivatives=False),
    Workload("grad of 5 scalar ops, eager", lambda rng: (0.5,), lambda p: p.grad(scalar_formula(p.numpy))),
    Workload("grad of 5 scalar ops, jit", lambda rng: (0.5,), lambda p: p.jit(p.grad(scalar_formula(p.numpy)))),
    Workload("rosenbrock value+grad, n=10", vectors(10), rosenbrock),
    Workload("rosenbrock value+grad, n=1e3", vectors(1_000), rosenbrock),
    Workload("rosenbrock value+grad, n=1e6", vectors(1_000_000), rosenbrock),
    Workload("fused elementwise, n=1e4", vectors(10_000, 2), elementwise, derivatives=False),
    Workload("fused elementwise, n=1e7", vectors(10_000_000, 2), elementwise, derivatives=False, slow=True),
    Workload("softmax 4096x1000", matrix, softmax, derivatives=False),
    Workload("layer norm 4096x1000", layer_norm_arguments, lambda p: p.jit(layer_norm_of(p.numpy)), derivatives=False),
    Workload("layer norm gradient 4096x1000", layer_norm_arguments, layer_norm_gradient, tolerance=1e-9, slow=True),
    Workload("MLP step 784-512-512-10, batch 128, f32", mlp_arguments, mlp_step, tolerance=1e-4),
    Workload("XOR step, Adam, 12 leaves", xor_arguments, xor_step, tolerance=1e-9),
    Workload("Gaussian process value+grad, n=300", gaussian_process_arguments, gaussian_process, tolerance=1e-8),
    Workload("1000 linear systems 8x8", systems_arguments, systems, derivatives=False),
)
