"""Differentiable optimal transport: Sinkhorn's iteration on logarithms, and a cloud of points that flows into another.

Moving n equal heaps at ``x`` to n equal holes at ``y`` at the cost of squared distances is a linear program. With an
entropy of weight ε it is smooth in x, and solved by rescaling rows and columns of exp(-cost/ε) in turn: here 200 times
in a ``scan``, which ``grad`` differentiates. Three checks: finite differences; the envelope theorem, by which the
gradient is 2 Σⱼ Pᵢⱼ (xᵢ - yⱼ) for the plan P; and for small ε the exact solution of the linear program.

    python examples/07_optimal_transport.py
"""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

import funcgrad as fg

POINTS = 30


def costs(x: Any, y: Any) -> Any:
    return np.sum((x[:, None, :] - y[None, :, :]) ** 2, axis=-1)


def plan(x: Any, y: Any, epsilon: float, steps: int = 200) -> Any:
    """How much goes from each heap to each hole; rows and columns add up to 1/n."""
    n = len(x)
    scaled = -costs(x, y) / epsilon

    def step(columns: Any, _: Any) -> Any:
        rows = -np.log(n) - fg.nn.logsumexp(scaled + columns[None, :], axis=1)
        columns = -np.log(n) - fg.nn.logsumexp(scaled + rows[:, None], axis=0)
        return columns, rows

    columns, rows = fg.lax.scan(step, np.zeros(n), None, length=steps)
    return np.exp(scaled + rows[-1][:, None] + columns[None, :])


def distance(x: Any, y: Any, epsilon: float) -> Any:
    """Cost of the plan minus ε times its entropy: what the plan minimises."""
    p = plan(x, y, epsilon)
    return np.sum(p * costs(x, y)) + epsilon * np.sum(p * (np.log(p + 1e-300) - 1))


def main() -> int:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(POINTS, 2)) * 0.3
    angle = 2 * np.pi * np.arange(POINTS) / POINTS
    y = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    gradient = fg.jit(fg.grad(distance))

    g = gradient(x, y, 0.1)
    v, h = rng.normal(size=x.shape), 1e-5
    slope = (distance(x + h * v, y, 0.1) - distance(x - h * v, y, 0.1)) / (2 * h)
    by_differences = abs(float(np.sum(g * v) - slope))
    p = plan(x, y, 0.1)
    by_envelope = float(np.max(np.abs(g - 2 * np.sum(p[:, :, None] * (x[:, None] - y[None]), axis=1))))
    print(f"gradient against finite differences {by_differences:.0e}, against the envelope theorem {by_envelope:.0e}")

    heaps, holes = linear_sum_assignment(costs(x, y))
    exact = float(costs(x, y)[heaps, holes].mean())
    print(f"\n{'epsilon':>8}{'cost of the plan':>18}{'above the exact one':>21}")
    gaps = []
    for epsilon in (0.3, 0.1, 0.03, 0.01):
        gaps.append(float(np.sum(plan(x, y, epsilon, 5000) * costs(x, y))) - exact)
        print(f"{epsilon:>8}{gaps[-1] + exact:>18.5f}{gaps[-1]:>21.5f}")
    print(f"{'exact':>8}{exact:>18.5f}")

    for _ in range(100):  # the heaps flow down the gradient, to the holes
        x = x - 0.3 * POINTS * 0.5 * gradient(x, y, 0.02)
    left = float(np.sqrt(np.min(costs(x, y), axis=0)).max())
    print(f"\nafter the flow the farthest hole has a heap within {left:.3f}")

    falling = all(a > b > -1e-9 for a, b in pairwise(gaps))
    good = by_differences < 1e-6 and by_envelope < 1e-6 and falling and gaps[-1] < 0.02 and left < 0.1
    print("The points form the ring." if good else "The points do NOT form the ring.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
