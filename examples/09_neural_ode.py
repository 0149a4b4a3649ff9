"""A neural ODE learns a spiral: the right-hand side of a differential equation is a network, fitted through the solver.

The data are pieces of one trajectory of dy/dt = A y³. The network f(y) is trained such that the solutions of
dy/dt = f(y) follow them; ``odeint`` takes its own steps, and the gradient goes back through these very steps. Then the
learned equation is solved over a time three times as long as any piece that it has seen.

    python examples/09_neural_ode.py
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

import funcgrad as fg
from funcgrad.scipy.integrate import odeint

A = np.array([[-0.1, 2.0], [-2.0, -0.1]])
TIMES = np.linspace(0.0, 1.0, 6)
STEPS, BATCH, RATE = 500, 20, 0.05


def truth(y: Any, t: Any) -> Any:
    return y**3 @ A.T


def network(y: Any, t: Any, params: dict[str, Any]) -> Any:
    return np.tanh(y**3 @ params["w1"] + params["b1"]) @ params["w2"]


def predict(params: Any, start: Any, times: Any) -> Any:
    return odeint(network, start, times, params, rtol=1e-5, atol=1e-5)


def loss(params: Any, starts: Any, pieces: Any) -> Any:
    """All starts at once, as one system."""
    return np.mean((predict(params, starts, TIMES) - pieces) ** 2)


@fg.jit
def step(params: Any, moments: Any, starts: Any, pieces: Any, k: Any) -> Any:
    """One step of Adam, whose rate falls to zero."""
    value, gradient = fg.value_and_grad(loss)(params, starts, pieces)
    first = fg.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradient)
    second = fg.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, moments[1], gradient)
    a, b, rate = 1 - 0.9**k, 1 - 0.99**k, RATE * (1 - k / (STEPS + 1))
    move = lambda p, m, v: p - rate * (m / a) / (np.sqrt(v / b) + 1e-8)  # noqa: E731
    return value, fg.tree.map(move, params, first, second), (first, second)


def main() -> int:
    rng = np.random.default_rng(0)
    long_times = np.linspace(0.0, 6.0, 121)
    path = odeint(truth, np.array([1.5, 0.0]), long_times)
    starts = path[:100]
    pieces = odeint(truth, starts, TIMES)
    normal = lambda *shape: rng.normal(size=shape) / np.sqrt(shape[0])  # noqa: E731
    params = {"w1": normal(2, 24), "b1": np.zeros(24), "w2": 0.1 * normal(24, 2)}
    moments = (fg.tree.map(np.zeros_like, params),) * 2
    clock = time.perf_counter()
    for k in range(1, STEPS + 1):
        chosen = rng.integers(len(starts), size=BATCH)
        value, params, moments = step(params, moments, starts[chosen], pieces[:, chosen], float(k))
        if k == 1 or k % 125 == 0:
            print(f"    step {k:>4}   mean squared distance {value:.6f}")
    print(f"trained in {time.perf_counter() - clock:.1f} s")
    learned = fg.jit(predict)(params, path[0], long_times[:61])
    distance = float(np.sqrt(np.mean(np.sum((learned - path[:61]) ** 2, axis=1))))
    print(f"three times as long as it has seen: distance {distance:.3f} on a spiral of radius 1.5")
    good = distance < 0.3
    print("The network has learned the spiral." if good else "The network has NOT learned the spiral.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a terminal without superscripts is no reason to stop
    sys.exit(main())
