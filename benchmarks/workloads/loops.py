"""Loops by ``lax``: recurrences, integrators, filters, samplers, stencils, and what JAX is known to be slow at."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..peers.base import Function, Peer
from ..workload import Rng, Workload
from . import by_hand
from .learning import lstm_arguments, lstm_cell

GROUP = "loops"


# recurrent networks
def rnn_arguments(rng: Rng, steps: int, width: int) -> tuple[Any, ...]:
    return rng.normal(size=(width, width)) / np.sqrt(width), rng.normal(size=(steps, width))


def rnn_gradient(peer: Peer) -> Function:
    xp = peer.np

    def loss(w: Any, xs: Any) -> Any:
        last, _ = peer.lax.scan(lambda h, x: (xp.tanh(xp.dot(h, w) + x), None), 0.0 * xs[0], xs)
        return xp.sum(last**2)

    return peer.jit(peer.grad(loss))


def lstm_gradient(peer: Peer) -> Function:
    xp = peer.np

    def loss(p: Any, xs: Any) -> Any:
        zero = 0.0 * xs[0]
        (h, _), _ = peer.lax.scan(lambda state, x: (lstm_cell(peer, p, state, x), None), (zero, zero), xs)
        return xp.mean(h**2)

    return peer.jit(peer.grad(loss))


# integrators
def lorenz(peer: Peer, steps: int) -> Function:
    xp, dt = peer.np, 1e-4

    def body(_: Any, state: Any) -> Any:
        x, y, z = state
        return x + dt * 10.0 * (y - x), y + dt * (x * (28.0 - z) - y), z + dt * (x * y - 8.0 / 3.0 * z)

    def f(start: Any) -> Any:
        return xp.stack(peer.lax.fori_loop(0, steps, body, (start[0], start[1], start[2])))

    return peer.jit(f)


def rk4_gradient(peer: Peer, steps: int) -> Function:
    """Predator and prey, for many starts at once: the gradient of the end with respect to the start."""
    xp, h = peer.np, 0.02

    def slope(s: Any) -> Any:
        x, y = s
        return x * (1.1 - 0.4 * y), y * (0.1 * x - 0.4)

    def along(s: Any, d: Any, t: float) -> Any:
        return s[0] + t * d[0], s[1] + t * d[1]

    def body(s: Any, _: Any) -> Any:
        k1 = slope(s)
        k2 = slope(along(s, k1, h / 2))
        k3 = slope(along(s, k2, h / 2))
        k4 = slope(along(s, k3, h))
        total = tuple(a + 2 * b + 2 * c + d for a, b, c, d in zip(k1, k2, k3, k4))
        return along(s, total, h / 6), None

    def end(start: Any) -> Any:
        (x, y), _ = peer.lax.scan(body, (start[0], start[1]), None, length=steps)
        return xp.sin(x) * y

    return peer.jit(peer.vmap(peer.grad(end)))


def kepler(peer: Peer) -> Function:
    """Kepler's equation by Newton's method, until it is solved, for many orbits at once."""
    xp = peer.np

    def solve(mean: Any, eccentricity: Any) -> Any:
        def residual(e: Any) -> Any:
            return e - eccentricity * xp.sin(e) - mean

        return peer.lax.while_loop(
            lambda e: xp.abs(residual(e)) > 1e-10,
            lambda e: e - residual(e) / (1.0 - eccentricity * xp.cos(e)),
            mean,
        )

    return peer.jit(peer.vmap(solve))


def heat(peer: Peer, steps: int) -> Function:
    def body(_: Any, u: Any) -> Any:
        inner = slice(1, -1)
        around = u[2:, inner] + u[:-2, inner] + u[inner, 2:] + u[inner, :-2]
        return peer.add_at(u, (inner, inner), 0.1 * (around - 4.0 * u[inner, inner]))

    return peer.jit(lambda u: peer.lax.fori_loop(0, steps, body, u))


# statistics
def kalman_arguments(rng: Rng, steps: int) -> tuple[Any, ...]:
    return np.array([-1.0, 0.5]), rng.normal(size=(steps, 2))


def kalman_gradient(peer: Peer) -> Function:
    """A body in the plane, seen with noise: the likelihood's gradient with respect to both noises."""
    xp = peer.np
    move = np.eye(4) + 0.1 * np.eye(4, k=2)
    drive = np.diag([0.001, 0.001, 0.1, 0.1])
    move, drive, see = xp.asarray(move), xp.asarray(drive), xp.asarray(np.eye(2, 4))
    eye2, eye4 = xp.asarray(np.eye(2)), xp.asarray(np.eye(4))
    adjugate = xp.asarray(np.array([[0.0, 1.0], [-1.0, 0.0]]))

    def loss(noise: Any, observed: Any) -> Any:
        q, r = xp.exp(noise[0]), xp.exp(noise[1])

        def body(carry: Any, y: Any) -> Any:
            mean, cov = carry
            mean = xp.dot(move, mean)
            cov = xp.dot(xp.dot(move, cov), move.T) + q * drive
            wrong = y - xp.dot(see, mean)
            s = xp.dot(xp.dot(see, cov), see.T) + r * eye2
            det = s[0, 0] * s[1, 1] - s[0, 1] * s[1, 0]
            inverse = xp.dot(xp.dot(adjugate, s.T), adjugate.T) / det
            gain = xp.dot(xp.dot(cov, see.T), inverse)
            mean = mean + xp.dot(gain, wrong)
            cov = xp.dot(eye4 - xp.dot(gain, see), cov)
            return (mean, cov), xp.dot(wrong, xp.dot(inverse, wrong)) + xp.log(det)

        start = (0.0 * move[0] * q, eye4 * (1.0 + 0.0 * q))
        return 0.5 * xp.sum(peer.lax.scan(body, start, observed)[1])

    return peer.jit(peer.grad(loss))


def hmc_arguments(rng: Rng, samples: int, width: int) -> tuple[Any, ...]:
    return rng.normal(size=width), rng.normal(size=(samples, width)), rng.uniform(size=samples)


def hmc(peer: Peer, steps: int) -> Function:
    """Hamiltonian Monte Carlo on a banana-shaped density; the random numbers are arguments."""
    xp, size = peer.np, 0.05

    def energy(x: Any) -> Any:
        return xp.sum(0.5 * x[:-1] ** 2 + 2.0 * (x[1:] - 0.5 * x[:-1] ** 2) ** 2)

    force = peer.grad(energy)

    def sample(x: Any, draws: Any) -> Any:
        momentum, uniform = draws

        def leap(_: Any, state: Any) -> Any:
            x, p = state
            p = p - 0.5 * size * force(x)
            x = x + size * p
            return x, p - 0.5 * size * force(x)

        new, p = peer.lax.fori_loop(0, steps, leap, (x, momentum))
        change = energy(new) - energy(x) + 0.5 * xp.sum(p * p) - 0.5 * xp.sum(momentum * momentum)
        x = xp.where(xp.log(uniform) < -change, new, x)
        return x, x

    return peer.jit(lambda x, momenta, uniforms: peer.lax.scan(sample, x, (momenta, uniforms))[1])


# loops that got slow with JAX's present CPU runtime, by the numbers of its issues
def quasiseparable_arguments(rng: Rng, n: int) -> tuple[Any, ...]:
    p, q = rng.normal(size=(2, n, 3)) * 0.3
    a = np.eye(3) * 0.6 + 0.1 * rng.normal(size=(n, 3, 3))
    return 5.0 + rng.uniform(size=n), p, q, a


def quasiseparable_cholesky(peer: Peer) -> Function:
    """The Cholesky factor of a quasiseparable matrix, carried by a 3x3 matrix (jax #36799)."""
    xp = peer.np

    def body(f: Any, data: Any) -> Any:
        d, p, q, a = data
        fp = xp.dot(f, p)
        c = xp.sqrt(d - xp.dot(p, fp))
        w = (q - xp.dot(a, fp)) / c
        return xp.dot(xp.dot(a, f), a.T) + w[:, None] * w[None, :], (c, w)

    return peer.jit(lambda d, p, q, a: peer.lax.scan(body, 0.0 * a[0], (d, p, q, a))[1])


def neuron_arguments(rng: Rng, compartments: int) -> tuple[Any, ...]:
    """Conductances, and the current that is put in."""
    ones = np.ones(compartments)
    return {"na": 120.0 * ones, "k": 36.0 * ones, "leak": 0.3 * ones}, 10.0 + rng.normal(size=compartments)


def neuron_gradient(peer: Peer, steps: int) -> Function:
    """A cable of Hodgkin-Huxley membrane, implicit in the voltage: the gradient of the trace with respect to the
    conductances (jax #26145)."""
    xp, dt, coupling = peer.np, 0.025, 0.5

    def rates(v: Any) -> Any:
        am = 0.1 * (v + 40.0001) / (1.0 - xp.exp(-(v + 40.0001) / 10.0))
        an = 0.01 * (v + 55.0001) / (1.0 - xp.exp(-(v + 55.0001) / 10.0))
        return (
            (am, 4.0 * xp.exp(-(v + 65.0) / 18.0)),
            (0.07 * xp.exp(-(v + 65.0) / 20.0), 1.0 / (1.0 + xp.exp(-(v + 35.0) / 10.0))),
            (an, 0.125 * xp.exp(-(v + 65.0) / 80.0)),
        )

    def gate(x: Any, rate: Any) -> Any:
        opening, closing = rate
        steady = opening / (opening + closing)
        return steady + (x - steady) * xp.exp(-dt * (opening + closing))

    def tridiagonal(diagonal: list[Any], right: list[Any], off: float) -> Any:
        """Gauss's elimination; all elements beside the diagonal are ``off``."""
        for k in range(1, len(diagonal)):
            factor = off / diagonal[k - 1]
            diagonal[k] = diagonal[k] - factor * off
            right[k] = right[k] - factor * right[k - 1]
        solution = [right[-1] / diagonal[-1]]
        for k in range(len(diagonal) - 2, -1, -1):
            solution.append((right[k] - off * solution[-1]) / diagonal[k])
        return xp.stack(solution[::-1])

    def loss(g: Any, current: Any) -> Any:
        def body(state: Any, _: Any) -> Any:
            v, m, h, n = state
            m, h, n = (gate(x, rate) for x, rate in zip((m, h, n), rates(v)))
            na, k = g["na"] * m * m * m * h, g["k"] * n * n * n * n
            total = na + k + g["leak"]
            push = na * 50.0 - k * 77.0 - g["leak"] * 54.4 + current
            count = 4
            neighbours = [1.0 if j in (0, count - 1) else 2.0 for j in range(count)]
            diagonal = [1.0 + dt * (total[j] + coupling * neighbours[j]) for j in range(count)]
            right = [v[j] + dt * push[j] for j in range(count)]
            v = tridiagonal(diagonal, right, -dt * coupling)
            return (v, m, h, n), xp.mean(v)

        zero = 0.0 * current
        start = (zero - 65.0, zero + 0.05, zero + 0.6, zero + 0.32)
        return xp.mean((peer.lax.scan(body, start, None, length=steps)[1] / 50.0) ** 2)

    return peer.jit(peer.grad(loss))


def scalars_arguments(rng: Rng, count: int) -> tuple[Any, ...]:
    return tuple(rng.normal(size=count)), rng.normal(size=8)


def scalars_gradient(peer: Peer, steps: int) -> Function:
    """A ring of oscillators, each a scalar of its own in the carry (jax #40150)."""
    xp = peer.np

    def loss(start: Any) -> Any:
        def body(state: Any, _: Any) -> Any:
            following = state[1:] + state[:1]
            return tuple(x + 0.01 * xp.sin(y - x) for x, y in zip(state, following)), None

        last, _ = peer.lax.scan(body, start, None, length=steps)
        return sum(x * x for x in last)

    gradient = peer.grad(loss)
    return peer.jit(lambda start, _: gradient(start))


NO_LOOPS = {"torch": "torch.compile unrolls loops"}

WORKLOADS = (
    Workload(
        "RNN gradient, 1000 steps of 32",
        GROUP,
        rnn_arguments,
        rnn_gradient,
        dict(steps=1000, width=32),
        dict(steps=3, width=2),
        second=dict(steps=900, width=32),
        needs=("lax.scan",),
        without=NO_LOOPS,
    ),
    Workload(
        "LSTM gradient by scan, 100 steps, f32",
        GROUP,
        lstm_arguments,
        lstm_gradient,
        dict(steps=100, batch=32, width=64),
        dict(steps=3, batch=2, width=2),
        tolerance=1e-4,
        needs=("lax.scan",),
        without=NO_LOOPS,
    ),
    Workload(
        "Lorenz, 1e5 steps",
        GROUP,
        lambda rng: (np.array([1.0, 1.0, 20.0]),),
        lorenz,
        steps=100_000,
        tiny_steps=4,
        tolerance=1e-7,  # chaos: differences of the last bit grow
        forward=True,
        needs=("lax.fori_loop",),
        without=NO_LOOPS,
        own={"numba": by_hand.lorenz},
    ),
    Workload(
        "RK4 gradient, vmap of 1000, 100 steps",
        GROUP,
        lambda rng, n: (rng.uniform(1.0, 5.0, (n, 2)),),
        rk4_gradient,
        dict(n=1000),
        dict(n=3),
        steps=100,
        tiny_steps=2,
        needs=("lax.scan",),
        without=NO_LOOPS,
    ),
    Workload(
        "Newton's method in a while loop, vmap of 1e4",
        GROUP,
        lambda rng, n: (rng.uniform(0.1, 3.0, n), rng.uniform(0.0, 0.7, n)),
        kepler,
        dict(n=10_000),
        dict(n=4),
        needs=("lax.while_loop",),
        without=NO_LOOPS,
    ),
    Workload(
        "Kalman filter gradient, 200 steps",
        GROUP,
        kalman_arguments,
        kalman_gradient,
        dict(steps=200),
        dict(steps=3),
        tolerance=1e-7,
        needs=("lax.scan",),
        without=NO_LOOPS,
    ),
    Workload(
        "heat equation 512x512, 100 steps in place",
        GROUP,
        lambda rng, n: (rng.normal(size=(n, n)),),
        heat,
        dict(n=512),
        dict(n=5),
        steps=100,
        tiny_steps=2,
        forward=True,
        needs=("lax.fori_loop",),
        without=NO_LOOPS,
    ),
    Workload(
        "HMC, 100 samples of 10 leaps, 50 dimensions",
        GROUP,
        hmc_arguments,
        hmc,
        dict(samples=100, width=50),
        dict(samples=2, width=3),
        steps=10,
        tiny_steps=2,
        tolerance=1e-6,
        needs=("lax.scan", "lax.fori_loop"),
        without=NO_LOOPS,
    ),
    Workload(
        "quasiseparable Cholesky, 2000 steps (jax #36799)",
        GROUP,
        quasiseparable_arguments,
        quasiseparable_cholesky,
        dict(n=2000),
        dict(n=3),
        forward=True,
        needs=("lax.scan",),
        without=NO_LOOPS,
    ),
    Workload(
        "Hodgkin-Huxley cable gradient, 400 steps (jax #26145)",
        GROUP,
        neuron_arguments,
        neuron_gradient,
        dict(compartments=4),
        dict(compartments=4),
        steps=400,
        tiny_steps=3,
        tolerance=1e-6,
        needs=("lax.scan",),
        without=NO_LOOPS,
    ),
    Workload(
        "gradient with 60 scalars carried, 600 steps (jax #40150)",
        GROUP,
        scalars_arguments,
        scalars_gradient,
        dict(count=60),
        dict(count=3),
        steps=600,
        tiny_steps=2,
        needs=("lax.scan",),
        without=NO_LOOPS,
        slow=True,
    ),
)
