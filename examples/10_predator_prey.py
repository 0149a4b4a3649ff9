"""The four rates of a predator-prey model, fitted to noisy counts by Gauss-Newton through the solver.

Lotka and Volterra: prey grow and are eaten, predators starve and multiply by eating. Residuals are the differences
between a solution and the data; ``jacfwd`` differentiates the solver's steps with respect to the logarithms of the
rates; and least squares gives the next guess.

    python examples/10_predator_prey.py
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import funcgrad as fg
from funcgrad.scipy.integrate import odeint

TRUE = np.array([1.1, 0.4, 0.4, 0.1])
TIMES = np.linspace(0.0, 20.0, 81)
START = np.array([10.0, 5.0])
NOISE = 0.02


def populations(y: Any, t: Any, rates: Any) -> Any:
    prey, predators = y
    growth, eaten, starved, born = rates
    return np.stack([growth * prey - eaten * prey * predators, born * prey * predators - starved * predators])


def residuals(log_rates: Any, data: Any) -> Any:
    """Of logarithms, since counts of 2 and of 20 are equally certain in proportion."""
    ys = odeint(populations, START, TIMES, np.exp(log_rates))
    return (np.log(ys) - np.log(data)).ravel()


@fg.jit
def gauss_newton(log_rates: Any, data: Any) -> Any:
    r, jacobian = residuals(log_rates, data), fg.jacfwd(residuals)(log_rates, data)
    return log_rates - np.linalg.solve(jacobian.T @ jacobian, jacobian.T @ r), np.sqrt(np.mean(r**2)), jacobian


def main() -> int:
    rng = np.random.default_rng(1)
    clean = odeint(populations, START, TIMES, TRUE)
    data = clean * np.exp(NOISE * rng.normal(size=clean.shape))
    guess = np.log(TRUE * np.array([0.9, 1.1, 1.15, 0.9]))
    print(f"{'':<8}{'growth':>9}{'eaten':>9}{'starved':>9}{'born':>9}{'residual':>11}")
    for k in range(8):
        following, residual, jacobian = gauss_newton(guess, data)
        print(f"step {k:<3}" + "".join(f"{x:>9.4f}" for x in np.exp(guess)) + f"{residual:>11.5f}")
        guess = following
    deviation = NOISE * np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))  # of the logarithms
    print(f"{'true':<8}" + "".join(f"{x:>9.4f}" for x in TRUE))
    errors = np.abs(guess - np.log(TRUE)) / deviation
    print("errors in standard deviations: " + ", ".join(f"{e:.1f}" for e in errors))
    good = bool(np.all(errors < 4) and abs(residual - NOISE) < 0.3 * NOISE)
    print("The rates are found to within their uncertainty." if good else "The rates are NOT found.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
