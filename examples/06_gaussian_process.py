"""A Gaussian process learns its hyper-parameters: the gradient of a likelihood through a Cholesky factorisation.

Noisy values of an unknown function have the covariance K = a² exp(-d² / 2l²) + s² I, and the negative logarithm of
their likelihood is ½ yᵀK⁻¹y + ½ log det K + const. ``scipy.optimize`` minimises it over the logarithms of length l,
amplitude a and noise s with the exact gradient. Two checks: the textbook's formula for the gradient,
½ tr((K⁻¹ - ααᵀ) dK) with α = K⁻¹y, and the values that the data were drawn with.

    python examples/06_gaussian_process.py
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from scipy.optimize import minimize

import funcgrad as fg

POINTS = 200
LENGTH, AMPLITUDE, NOISE = 0.7, 1.5, 0.2


def signal(log_parameters: Any, x: Any, z: Any) -> Any:
    """Covariance of the function between points ``x`` and ``z``."""
    length, amplitude, _ = np.exp(log_parameters)
    return amplitude**2 * np.exp(-0.5 * ((x[:, None] - z[None, :]) / length) ** 2)


def covariance(log_parameters: Any, x: Any) -> Any:
    return signal(log_parameters, x, x) + (np.exp(2 * log_parameters[2]) + 1e-9) * np.eye(len(x))


def negative_log_likelihood(log_parameters: Any, x: Any, y: Any) -> Any:
    factor = np.linalg.cholesky(covariance(log_parameters, x))
    half = fg.scipy.linalg.solve_triangular(factor, y, lower=True)
    return 0.5 * half @ half + np.sum(np.log(np.diagonal(factor))) + 0.5 * len(x) * np.log(2 * np.pi)


def textbook_gradient(log_parameters: Any, x: Any, y: Any) -> Any:
    """By the formula, with the derivative of the covariance in each parameter."""
    inverse = np.linalg.inv(covariance(log_parameters, x))
    alpha = inverse @ y
    slopes = fg.jacfwd(covariance)(log_parameters, x)
    return 0.5 * np.einsum("ij,jik->k", inverse - np.outer(alpha, alpha), slopes)


def main() -> int:
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(0.0, 10.0, POINTS))
    truth = np.log([LENGTH, AMPLITUDE, NOISE])
    y = np.linalg.cholesky(covariance(truth, x)) @ rng.normal(size=POINTS)

    objective = fg.jit(fg.value_and_grad(negative_log_likelihood))
    start = np.zeros(3)
    difference = float(np.max(np.abs(objective(start, x, y)[1] - textbook_gradient(start, x, y))))
    print(f"gradient against the textbook's formula: {difference:.1e}")

    clock = time.perf_counter()
    found = minimize(objective, start, args=(x, y), jac=True, method="L-BFGS-B")
    elapsed = 1e3 * (time.perf_counter() - clock)
    print(f"{found.nit} iterations, {found.nfev} evaluations, {elapsed:.0f} ms for {POINTS} points\n")
    print(f"{'':<12}{'drawn with':>12}{'found':>10}")
    for name, true, value in zip(("length", "amplitude", "noise"), np.exp(truth), np.exp(found.x), strict=True):
        print(f"{name:<12}{true:>12.3f}{value:>10.3f}")
    better = float(negative_log_likelihood(truth, x, y) - found.fun)
    print(f"\nthe data are e^{better:.2f} times as likely as with the parameters that they were drawn with")

    # what it learned: the function between the points, from half of them
    some, rest = x[::2], x[1::2]
    weights = np.linalg.solve(covariance(found.x, some), y[::2])
    error = float(np.std(signal(found.x, rest, some) @ weights - y[1::2]))
    print(f"points that were left out are predicted within {error:.3f}")

    close = bool(np.all(np.abs(found.x - truth) < [0.3, 0.7, 0.2]))
    good = found.success and difference < 1e-6 and close and better >= 0 and error < 1.5 * NOISE
    print("The process knows its parameters." if good else "The process does NOT know its parameters.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
