"""The gradient of a Kalman filter's likelihood: how noisy is the sensor, and how fast does the signal wander?

A level wanders with a slope, and is observed with noise. The filter is a ``scan`` over the observations that carries
mean and covariance and adds up the log-likelihood; its gradient with respect to the logarithms of the variances drives
an optimizer. Value and gradient are checked against the whole joint normal distribution, written out as one covariance
matrix.

    python examples/11_kalman_filter.py
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from scipy.optimize import minimize

import funcgrad as fg
from funcgrad import lax

F = np.array([[1.0, 1.0], [0.0, 1.0]])  # level += slope
H = np.array([1.0, 0.0])  # the level is seen
PRIOR = np.eye(2)
TRUE = np.log([0.5, 0.01, 2.0])  # variances: of the level's steps, of the slope's, of the sensor


def negative_log_likelihood(theta: Any, ys: Any) -> Any:
    level, slope, sensor = np.exp(theta)
    q = np.diag(np.stack([level, slope]))

    def step(carry: Any, y: Any) -> Any:
        mean, cov = carry
        surprise, variance = y - H @ mean, H @ cov @ H + sensor
        gain = cov @ H / variance
        mean, cov = mean + gain * surprise, cov - np.outer(gain, H @ cov)
        return (F @ mean, F @ cov @ F.T + q), np.log(2 * np.pi * variance) + surprise**2 / variance

    _, terms = lax.scan(step, (np.zeros(2), PRIOR), ys)
    return 0.5 * np.sum(terms)


def dense(theta: Any, ys: Any) -> Any:
    """The same from the covariance of all observations: cov(y_j, y_k) = H F^(k-j) P_j H, plus the sensor's."""
    level, slope, sensor = np.exp(theta)
    q, n = np.diag(np.stack([level, slope])), len(ys)
    rows, p = [[0.0] * n for _ in range(n)], PRIOR
    for j in range(n):
        ahead = p @ H
        for k in range(j, n):
            rows[j][k] = rows[k][j] = H @ ahead + (sensor if j == k else 0.0)
            ahead = F @ ahead
        p = F @ p @ F.T + q
    cov = np.stack([np.stack(row) for row in rows])
    factor = np.linalg.cholesky(cov)
    z = np.linalg.solve(factor, ys)
    return 0.5 * z @ z + np.sum(np.log(np.diagonal(factor))) + 0.5 * n * np.log(2 * np.pi)


def simulate(rng: np.random.Generator, n: int) -> Any:
    level, slope, sensor = np.exp(TRUE)
    x, ys = rng.normal(size=2), []
    for _ in range(n):
        ys.append(x[0] + np.sqrt(sensor) * rng.normal())
        x = F @ x + np.sqrt([level, slope]) * rng.normal(size=2)
    return np.array(ys)


def main() -> int:
    ys = simulate(np.random.default_rng(5), 2000)
    few = ys[:12]
    ours, theirs = (fg.value_and_grad(f)(TRUE, few) for f in (negative_log_likelihood, dense))
    print(f"12 observations: filter {ours[0]:.10f}, joint distribution {theirs[0]:.10f}")
    print(f"      gradients: {ours[1].round(8)}, {theirs[1].round(8)}")
    agree = np.allclose(ours[0], theirs[0], rtol=1e-10) and np.allclose(ours[1], theirs[1], rtol=1e-8)
    objective = fg.jit(fg.value_and_grad(negative_log_likelihood))
    found = minimize(objective, np.zeros(3), args=(ys,), jac=True, method="BFGS", options={"gtol": 1e-3})
    deviation = np.sqrt(np.diag(np.linalg.inv(fg.jit(fg.hessian(negative_log_likelihood))(found.x, ys))))
    for name, x, true, d in zip(("level", "slope", "sensor"), found.x, TRUE, deviation):
        print(f"    variance of the {name:<7}{np.exp(x):8.4f}   true {np.exp(true):7.4f}   ({(x - true) / d:+.1f} sd)")
    good = bool(agree and np.all(np.abs(found.x - TRUE) < 4 * deviation))
    print("The variances are found." if good else "The variances are NOT found.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
