"""Derivatives of small formulas: by funcgrad, by hand, and by central differences.

A derivative says how the result changes when an input changes a little. ``grad(f)`` is a new function that returns it,
exact to the last digits, for whatever Python and NumPy ``f`` is made of. Run it:

    python examples/01_derivatives.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import funcgrad as fg


class Row(NamedTuple):
    """A function, a point, and its value and gradient worked out by hand."""

    text: str
    f: Callable[..., float]
    at: tuple[float, ...]
    value: float
    gradient: tuple[float, ...]


x, y = 0.5, 0.8
t = np.tanh(x * y)

ROWS = [
    Row("x²y + xy²", lambda x, y: x**2 * y + x * y**2, (2.0, 3.0), 30.0, (21.0, 16.0)),  # 2xy + y², x² + 2xy
    Row("x·y + x", lambda x, y: x * y + x, (2.0, 3.0), 8.0, (4.0, 2.0)),  # y + 1, x
    Row("x² + 2x + 1", lambda x: x**2 + 2 * x + 1, (3.0,), 16.0, (8.0,)),  # 2x + 2
    Row(
        "tanh(x·y)·(x + y)",
        lambda x, y: np.tanh(x * y) * (x + y),
        (x, y),
        t * (x + y),
        # product rule and chain rule, with tanh' = 1 - tanh²
        ((1 - t**2) * y * (x + y) + t, (1 - t**2) * x * (x + y) + t),
    ),
    Row("tanh(x)", np.tanh, (0.5,), np.tanh(0.5), (1 - np.tanh(0.5) ** 2,)),
]


def central_differences(f: Callable[..., float], at: tuple[float, ...], h: float = 1e-5) -> tuple[float, ...]:
    """(f(x + h) - f(x - h)) / 2h, one coordinate after the other: approximate, and slow for many coordinates."""

    def moved(k: int, by: float) -> float:
        return f(*(v + by if j == k else v for j, v in enumerate(at)))

    return tuple((moved(k, h) - moved(k, -h)) / (2 * h) for k in range(len(at)))


def show(row: Row) -> bool:
    """Print one row; whether all three answers agree."""
    arguments = tuple(range(len(row.at)))
    value, gradient = fg.value_and_grad(row.f, argnums=arguments)(*row.at)
    numeric = central_differences(row.f, row.at)
    agree = np.allclose(value, row.value, rtol=1e-14) and np.allclose(gradient, row.gradient, rtol=1e-14)
    agree = agree and np.allclose(gradient, numeric, rtol=1e-4)
    print(f"f = {row.text}  at {row.at}")
    print(f"    value                {value:.10g}")
    for name, numbers in (("gradient", gradient), ("by hand", row.gradient), ("by differences", numeric)):
        print(f"    {name:<20} " + ", ".join(f"{g:.10g}" for g in numbers))
    if not agree:
        print("    THESE DO NOT AGREE")
    return bool(agree)


def look_inside() -> None:
    """The program that funcgrad sees, and the program of its derivative."""
    f = lambda x, y: x * y + x  # noqa: E731
    print("\nThe computation graph of x·y + x, as a list of operations:")
    print(fg.make_jaxpr(f)(2.0, 3.0))
    print("\nand that of its gradient:")
    print(fg.make_jaxpr(fg.grad(f, argnums=(0, 1)))(2.0, 3.0))
    print("\nDerivatives of derivatives: sin, and its first four derivatives at 1:")
    derivatives = [np.sin]
    for _ in range(4):
        derivatives.append(fg.grad(derivatives[-1]))
    print("    " + ", ".join(f"{d(1.0):.6f}" for d in derivatives))


def main() -> int:
    agree = [show(row) for row in ROWS]
    look_inside()
    print(f"\n{sum(agree)} of {len(agree)} formulas agree with the derivative worked out by hand.")
    return 0 if all(agree) else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a terminal without Greek letters and squares is no reason to stop
    sys.exit(main())
