"""Small calls: what a call costs beside its arithmetic, and what optimisers make of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.optimize

from ..peers.base import Function, Peer
from ..workload import Rng, Workload, vectors
from . import by_hand

GROUP = "dispatch"


def affine(peer: Peer) -> Function:
    return peer.jit(lambda x: 2.0 * x + 1.0)


def scalar_formula(xp: Any) -> Function:
    """Five operations."""
    return lambda x: xp.tanh(x * x) * xp.exp(x) + x


def rosenbrock_of(xp: Any) -> Function:
    return lambda x: xp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def rosenbrock(peer: Peer) -> Function:
    return peer.jit(peer.value_and_grad(rosenbrock_of(peer.np)))


def hessian(peer: Peer) -> Function:
    return peer.jit(peer.hessian(rosenbrock_of(peer.np)))


def hessian_vector(peer: Peer) -> Function:
    product = peer.hvp(rosenbrock_of(peer.np))
    return peer.jit(lambda x, v: product(x, v))


# the chain and the tree of additions: how the cost of an eager gradient grows with the graph
def chain(peer: Peer, steps: int) -> Function:
    def f(x: Any) -> Any:
        total = x
        for _ in range(steps):
            total = total + x
        return total

    return peer.grad(f)


def tree(peer: Peer, steps: int) -> Function:
    def f(x: Any) -> Any:
        level = [x] * steps
        while len(level) > 1:
            level = [a + b for a, b in zip(level[::2], level[1::2])] + level[len(level) & ~1 :]
        return level[0]

    return peer.grad(f)


XOR_X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR_Y = np.array([[-1.0], [1.0], [1.0], [-1.0]])


def xor_arguments(rng: Rng) -> tuple[Any, ...]:
    """Twelve leaves: four parameters and Adam's two running means of each."""
    params = {"w1": rng.normal(size=(2, 4)), "b1": np.zeros(4), "w2": rng.normal(size=(4, 1)), "b2": np.zeros(1)}
    return params, {k: np.zeros_like(v) for k, v in params.items()}, {k: np.ones_like(v) for k, v in params.items()}


def xor_step(peer: Peer) -> Function:
    """One step of Adam on the XOR network."""
    xp = peer.np
    inputs, targets = xp.asarray(XOR_X), xp.asarray(XOR_Y)

    def loss(p: Any) -> Any:
        hidden = xp.tanh(xp.dot(inputs, p["w1"]) + p["b1"])
        return xp.mean((xp.tanh(xp.dot(hidden, p["w2"]) + p["b2"]) - targets) ** 2)

    gradient = peer.grad(loss)

    def step(p: Any, m: Any, v: Any) -> Any:
        g = gradient(p)
        m = {k: 0.9 * m[k] + 0.1 * g[k] for k in p}
        v = {k: 0.999 * v[k] + 0.001 * g[k] ** 2 for k in p}
        return {k: p[k] - 0.01 * m[k] / (xp.sqrt(v[k]) + 1e-8) for k in p}, m, v

    return peer.jit(step)


def start(rng: Rng, n: int) -> tuple[Any, ...]:
    return (0.5 + 0.1 * rng.normal(size=n),)


def _on_numpy(peer: Peer, f: Function) -> Function:
    """SciPy calls with its own arrays and wants NumPy's back."""
    return lambda *args: peer.to_numpy(f(*peer.arguments(args)))


def _minimised(x: Any, **how: Any) -> np.ndarray:
    return np.asarray(scipy.optimize.minimize(x0=np.asarray(x), **how).x)


def minimize_bfgs(peer: Peer) -> Function:
    f = _on_numpy(peer, rosenbrock(peer))
    return lambda x: _minimised(x, fun=f, jac=True, method="BFGS")


def minimize_newton(peer: Peer) -> Function:
    f, product = _on_numpy(peer, rosenbrock(peer)), _on_numpy(peer, hessian_vector(peer))
    return lambda x: _minimised(x, fun=f, jac=True, hessp=product, method="Newton-CG", options={"xtol": 1e-8})


NO_EAGER = {"pytensor": "PyTensor has no eager mode"}

WORKLOADS = (
    Workload("jit call, scalar", GROUP, lambda rng: (np.float64(0.5),), affine, forward=True),
    Workload("jit call, 10 elements", GROUP, vectors(), affine, dict(n=10), dict(n=3), forward=True),
    Workload(
        "gradient of 5 scalar ops, eager",
        GROUP,
        lambda rng: (np.float64(0.5),),
        lambda p: p.grad(scalar_formula(p.np)),
        without=NO_EAGER,
    ),
    Workload(
        "gradient of 5 scalar ops, jit",
        GROUP,
        lambda rng: (np.float64(0.5),),
        lambda p: p.jit(p.grad(scalar_formula(p.np))),
    ),
    Workload(
        "gradient of a chain of 1000 additions, eager",
        GROUP,
        lambda rng: (np.float64(0.5),),
        chain,
        steps=1000,
        tiny_steps=3,
        without=NO_EAGER,
    ),
    Workload(
        "gradient of a tree of 1000 additions, eager",
        GROUP,
        lambda rng: (np.float64(0.5),),
        tree,
        steps=1000,
        tiny_steps=5,
        without=NO_EAGER,
    ),
    *[
        Workload(
            f"rosenbrock value+gradient, n={label}",
            GROUP,
            vectors(),
            rosenbrock,
            dict(n=n),
            dict(n=5),
            second=dict(n=n + 3),
            own={"numba": by_hand.rosenbrock},
            cold=n == 1000,
            busy=n == 1_000_000,
        )
        for label, n in (("10", 10), ("1e3", 1_000), ("1e6", 1_000_000))
    ],
    Workload("rosenbrock hessian, n=100", GROUP, vectors(), hessian, dict(n=100), dict(n=4)),
    Workload("rosenbrock hessian-vector, n=1e4", GROUP, vectors(2), hessian_vector, dict(n=10_000), dict(n=4)),
    Workload("XOR step, Adam, 12 leaves", GROUP, xor_arguments, xor_step, cold=True),
    Workload(
        "scipy minimize BFGS, rosenbrock n=10", GROUP, start, minimize_bfgs, dict(n=10), dict(n=3), tolerance=1e-4
    ),
    Workload(
        "scipy minimize Newton-CG, rosenbrock n=10",
        GROUP,
        start,
        minimize_newton,
        dict(n=10),
        dict(n=3),
        tolerance=1e-4,
    ),
)
