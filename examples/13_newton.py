"""Newton's method and Gauss-Newton: second-order steps from exact derivatives, and how fast they converge.

Newton's method solves equations: x - J⁻¹ r. With the gradient for r and the Hessian for J it finds minima. For sums of
squares Gauss and Newton leave out the second derivatives of the residuals, so that the Jacobian alone is needed. Near
the solution Newton's errors square from step to step; the program checks that they do.

    python examples/13_newton.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

import funcgrad as fg


def circle_and_parabola(x: Any) -> Any:
    """Zero where a circle of radius 2 meets the parabola y = x²; x² = (√17 - 1) / 2 there."""
    return np.stack([x[0] ** 2 + x[1] ** 2 - 4.0, x[1] - x[0] ** 2])


MEETING = np.sqrt((np.sqrt(17.0) - 1) / 2)


def rosenbrock(x: Any) -> Any:
    return 100.0 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2


TIMES = np.linspace(0.0, 4.0, 30)
DECAY = np.array([2.0, 1.3, 0.5])


def decay(p: Any) -> Any:
    """Residuals of a decay curve a exp(-b t) + c; the data are exact."""
    curve = lambda p: p[0] * np.exp(-p[1] * TIMES) + p[2]  # noqa: E731
    return curve(p) - curve(DECAY)


def newton(residual: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return fg.jit(lambda x: x - np.linalg.solve(fg.jacfwd(residual)(x), residual(x)))


def gauss_newton(residual: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return fg.jit(lambda x: x - np.linalg.lstsq(fg.jacfwd(residual)(x), residual(x))[0])


ROWS = [
    ("equations, Newton", newton(circle_and_parabola), np.array([1.0, 2.0]), np.array([MEETING, MEETING**2])),
    ("minimum, Newton", newton(fg.grad(rosenbrock)), np.array([-1.2, 1.0]), np.ones(2)),
    ("least squares, Gauss-Newton", gauss_newton(decay), np.array([1.0, 1.0, 0.0]), DECAY),
]


def converges(title: str, step: Callable[[Any], Any], x: Any, wanted: Any) -> bool:
    errors = []
    for _ in range(9):
        errors.append(float(np.max(np.abs(x - wanted))))
        x = step(x)
    print(f"{title:<29}" + " ".join(f"{e:.0e}" for e in errors))
    squares = [b <= 100 * a**2 + 1e-13 for a, b in pairwise(errors) if a < 1e-2]
    return errors[-1] < 1e-12 and all(squares)


def main() -> int:
    print("errors from step to step")
    good = [converges(*row) for row in ROWS]
    print("All converge quadratically." if all(good) else "NOT all converge quadratically.")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a terminal without superscripts is no reason to stop
    sys.exit(main())
