"""Hamiltonian Monte Carlo: samples from a density, by the gradient of its logarithm.

A particle gets a random momentum and slides over the surface -log p for a while; where it arrives is the next sample,
accepted with a probability that makes up for the error of the steps. The whole chain is one compiled ``scan``; random
numbers are drawn by NumPy beforehand and passed in. Two targets of which the moments are known: a correlated Gaussian,
and a funnel, whose width varies by orders of magnitude.

    python examples/12_hamiltonian_monte_carlo.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import funcgrad as fg
from funcgrad import lax

COVARIANCE = np.array([[1.0, 0.9], [0.9, 2.0]])
PRECISION = np.linalg.inv(COVARIANCE)
SAMPLES, CHAINS = 4000, 8


def gaussian(x: Any) -> Any:
    return -0.5 * x @ PRECISION @ x


def funnel(x: Any) -> Any:
    """The first coordinate v is normal; the others are normal with variance exp(v)."""
    v, rest = x[0], x[1:]
    return -0.5 * v**2 - 0.5 * np.sum(rest**2) * np.exp(-v) - 0.5 * len(rest) * v


def chain(log_p: Callable[[Any], Any], start: Any, momenta: Any, thresholds: Any, size: float, leaps: int) -> Any:
    """All positions, and how many moves were accepted."""
    slope = fg.grad(log_p)

    def leap(_: Any, state: Any) -> Any:
        x, p = state
        p = p + 0.5 * size * slope(x)
        x = x + size * p
        return x, p + 0.5 * size * slope(x)

    def move(x: Any, draw: Any) -> Any:
        p, threshold = draw
        y, q = lax.fori_loop(0, leaps, leap, (x, p))
        gained = log_p(y) - 0.5 * q @ q - (log_p(x) - 0.5 * p @ p)
        accepted = np.log(threshold) < gained
        x = np.where(accepted, y, x)
        return x, (x, accepted)

    return lax.scan(move, start, (momenta, thresholds))[1]


def sample(log_p: Callable[[Any], Any], dimensions: int, size: float, leaps: int, rng: np.random.Generator) -> Any:
    momenta = rng.normal(size=(CHAINS, SAMPLES, dimensions))
    thresholds = rng.uniform(size=(CHAINS, SAMPLES))
    starts = rng.normal(size=(CHAINS, dimensions))
    run = fg.jit(lambda s, m, t: chain(log_p, s, m, t, size, leaps))
    clock = time.perf_counter()
    results = [run(*each) for each in zip(starts, momenta, thresholds)]
    seconds = time.perf_counter() - clock
    positions = np.concatenate([x[SAMPLES // 10 :] for x, _ in results])
    rate = np.mean([a for _, a in results])
    print(f"    {CHAINS} chains of {SAMPLES} samples in {seconds:.2f} s, {100 * rate:.0f} % accepted")
    return positions


def main() -> int:
    rng = np.random.default_rng(3)
    print("a correlated Gaussian")
    x = sample(gaussian, 2, 0.5, 8, rng)
    found = np.cov(x.T)
    print(f"    covariance {found.round(2).tolist()}, true {COVARIANCE.tolist()}")
    good = np.abs(found - COVARIANCE).max() < 0.1 and np.abs(x.mean(0)).max() < 0.05
    print("a funnel")
    v = sample(funnel, 3, 0.2, 24, rng)[:, 0]
    print(f"    neck coordinate: mean {v.mean():+.3f}, standard deviation {v.std():.3f}; true 0 and 1")
    good = bool(good and abs(v.mean()) < 0.15 and abs(v.std() - 1) < 0.1)
    print("The moments are right." if good else "The moments are NOT right.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
