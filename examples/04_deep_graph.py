"""Graphs of 100 to 100,000 additions, forward and backward: how does the time grow?

Two shapes with the same number of nodes: a chain, x + x + x + ..., as deep as it has nodes, and a binary tree, whose
depth is only the logarithm. Engines that walk the graph by recursion stop at Python's recursion limit on the first.
Here the operations stand on a tape, which is walked backward once, so that time and memory are linear in the number
of operations, whatever the shape. The program fits the growth and fails if it is not about linear.

    python examples/04_deep_graph.py
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import funcgrad as fg

SIZES = (100, 1_000, 10_000, 100_000)


def chain(x: Any, n: int) -> Any:
    """x + x + ... + x: n additions, each waiting for the one before."""
    y = x
    for _ in range(n):
        y = y + x
    return y


def binary_tree(x: Any, n: int) -> Any:
    """n additions over n + 1 leaves, in pairs, level by level."""
    level = [x] * (n + 1)
    while len(level) > 1:
        rest = [level[-1]] if len(level) % 2 else []
        level = [a + b for a, b in zip(level[::2], level[1::2])] + rest
    return level[0]


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """The best of some runs: what the work takes when nothing else disturbs it."""
    best = float("inf")
    for _ in range(repeats):
        gc.collect()
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def growth(sizes: list[int], times: list[float]) -> float:
    """The p of time = c · n^p, by least squares between the logarithms."""
    slope, _ = np.polyfit(np.log(sizes), np.log(times), 1)
    return float(slope)


def measure(name: str, graph: Callable[[Any, int], Any], sizes: list[int]) -> bool:
    """Print times for one shape of graph; whether gradients are right and the growth is about linear."""
    print(f"{name}\n{'additions':>12}{'forward ms':>13}{'forward + backward ms':>24}{'µs per addition':>18}")
    forward, both = [], []
    right = True
    for n in sizes:
        repeats = 5 if n <= 10_000 else 2
        derivative = fg.value_and_grad(lambda x, n=n: graph(x, n))
        value, slope = derivative(2.0)
        right = right and value == 2.0 * (n + 1) and slope == n + 1
        forward.append(seconds(lambda n=n: graph(2.0, n), repeats))
        both.append(seconds(lambda d=derivative: d(2.0), repeats))
        print(f"{n:>12,}{1e3 * forward[-1]:>13.3f}{1e3 * both[-1]:>24.2f}{1e6 * both[-1] / n:>18.2f}")
    power = growth(sizes, both)
    print(f"    forward + backward grows like n^{power:.2f}; the gradient is n + 1: {'yes' if right else 'NO'}\n")
    return right and power < 1.25


def main() -> int:
    parser = argparse.ArgumentParser(description="Time of deep graphs, forward and backward.")
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="leave out larger graphs (default: %(default)s)")
    sizes = [n for n in SIZES if n <= parser.parse_args().largest]
    if len(sizes) < 2:
        parser.error(f"--largest must be at least {SIZES[1]}: two sizes are needed to see a growth")
    good = [measure("chain", chain, sizes), measure("binary tree", binary_tree, sizes)]
    print(f"Python's recursion limit is {sys.getrecursionlimit()}; nothing here came near it.")
    if not all(good):
        print("Growth is NOT linear, or a gradient is wrong.")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a terminal without Greek letters and squares is no reason to stop
    sys.exit(main())
