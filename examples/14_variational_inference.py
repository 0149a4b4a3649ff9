"""Variational inference: the best Gaussian for a posterior, found by gradients through random draws.

The model is linear regression, of which the posterior is known, so the answer can be checked. The approximation is a
normal distribution with mean m and a full covariance L Lᵀ. Draws w = m + L ε are differentiable in m and L; their
average of log p(y, w) - log q(w) is the evidence lower bound (ELBO), which stochastic gradient ascent raises until it
meets the logarithm of the evidence.

    python examples/14_variational_inference.py
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import funcgrad as fg
from funcgrad import lax

NOISE, DIMENSIONS, POINTS = 0.5, 3, 40
STEPS, DRAWS, RATE = 3000, 16, 0.05


def log_joint(w: Any, x: Any, y: Any) -> Any:
    """A standard normal prior for the weights, and normal errors."""
    residual = (y - x @ w) / NOISE
    constants = 0.5 * np.log(2 * np.pi) * (len(y) + len(w)) + len(y) * np.log(NOISE)
    return -0.5 * residual @ residual - 0.5 * w @ w - constants


def factor(q: Any) -> Any:
    """A triangular matrix with a positive diagonal."""
    return np.tril(q["lower"], -1) + np.diag(np.exp(q["log_diagonal"]))


def elbo(q: Any, draws: Any, x: Any, y: Any) -> Any:
    w = q["mean"] + draws @ factor(q).T
    entropy = np.sum(q["log_diagonal"]) + 0.5 * DIMENSIONS * (1 + np.log(2 * np.pi))
    return np.mean(fg.vmap(log_joint, in_axes=(0, None, None))(w, x, y)) + entropy


@fg.jit
def fit(q: Any, noise: Any, x: Any, y: Any) -> Any:
    """All steps of Adam in one compiled loop; the second half of the iterates is averaged."""

    def step(carry: Any, draw: Any) -> Any:
        q, first, second, k = carry
        value, gradient = fg.value_and_grad(elbo)(q, draw, x, y)
        first = fg.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = fg.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
        a, b = 1 - 0.9**k, 1 - 0.999**k
        rate = RATE * (1 - (k - 1) / STEPS)
        q = fg.tree.map(lambda p, m, v: p + rate * (m / a) / (np.sqrt(v / b) + 1e-8), q, first, second)
        return (q, first, second, k + 1), value

    zeros = fg.tree.map(np.zeros_like, q)
    (q, *_), values = lax.scan(step, (q, zeros, zeros, 1.0), noise)
    return q, values


def main() -> int:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(POINTS, DIMENSIONS)) @ np.array([[1.0, 0.8, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 0.5]])
    y = x @ np.array([1.0, -2.0, 0.5]) + NOISE * rng.normal(size=POINTS)
    covariance = np.linalg.inv(np.eye(DIMENSIONS) + x.T @ x / NOISE**2)
    mean = covariance @ x.T @ y / NOISE**2
    marginal = NOISE**2 * np.eye(POINTS) + x @ x.T
    evidence = -0.5 * (y @ np.linalg.solve(marginal, y) + np.linalg.slogdet(2 * np.pi * marginal)[1])

    draws = rng.normal(size=(STEPS, DRAWS // 2, DIMENSIONS))
    draws = np.concatenate([draws, -draws], axis=1)  # in pairs, which halves the variance
    zero = {"mean": np.zeros(3), "lower": np.zeros((3, 3)), "log_diagonal": np.zeros(3)}
    q, values = fit(zero, draws, x, y)
    found = factor(q) @ factor(q).T
    print(f"mean        {q['mean'].round(3)}   true {mean.round(3)}")
    print(f"deviations  {np.sqrt(np.diag(found)).round(4)}   true {np.sqrt(np.diag(covariance)).round(4)}")
    print(f"ELBO        {values[0]:.2f} at first, {values[-100:].mean():.3f} at last; log evidence {evidence:.3f}")
    scale = np.sqrt(np.diag(covariance))
    good = np.all(np.abs(q["mean"] - mean) < 0.1 * scale)
    good = good and np.all(np.abs(found - covariance) < 0.1 * np.outer(scale, scale))
    good = bool(good and abs(values[-100:].mean() - evidence) < 0.05)
    print("The posterior is found." if good else "The posterior is NOT found.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a terminal without Greek letters is no reason to stop
    sys.exit(main())
