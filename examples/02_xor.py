"""A two-layer network learns XOR, the smallest problem that one layer cannot solve.

Two neurons' worth of straight lines are needed to part {01, 10} from {00, 11}, so there is a hidden layer. The network
is a pure function of its parameters, a nested structure of NumPy arrays; ``value_and_grad`` gives a gradient of the
same structure; ``jit`` compiles the whole training step, gradient and update, into one program.

    python examples/02_xor.py
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from typing import Any

import numpy as np

import funcgrad as fg

X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y = np.array([0.0, 1.0, 1.0, 0.0])
STEPS = 2000
RATE = 0.5


def neuron(params: dict[str, Any], x: Any) -> Any:
    """A layer of neurons: a weighted sum of the inputs each, squashed by tanh."""
    return np.tanh(x @ params["w"] + params["b"])


def network(params: list[dict[str, Any]], x: Any) -> Any:
    """The layers one after the other; a vector of inputs to one number in (-1, 1)."""
    for layer in params:
        x = neuron(layer, x)
    return x[0]


def loss(params: list[dict[str, Any]]) -> Any:
    """Mean squared distance from the targets -1 and 1, over the batch that ``vmap`` makes."""
    out = fg.vmap(network, in_axes=(None, 0))(params, X)
    return np.mean((out - (2 * Y - 1)) ** 2)


def initial_params(rng: np.random.Generator, sizes: tuple[int, ...] = (2, 4, 1)) -> list[dict[str, Any]]:
    """Weights of the size 1/sqrt(inputs): neither dead nor saturated at the start."""
    return [
        {"w": rng.normal(size=(n_in, n_out)) / np.sqrt(n_in), "b": np.zeros(n_out)} for n_in, n_out in pairwise(sizes)
    ]


@fg.jit
def step(params: list[dict[str, Any]]) -> tuple[Any, list[dict[str, Any]]]:
    """One step of gradient descent; the loss before it, and the new parameters."""
    value, gradient = fg.value_and_grad(loss)(params)
    return value, fg.tree.map(lambda p, g: p - RATE * g, params, gradient)


def main() -> int:
    params = initial_params(np.random.default_rng(0))
    start = time.perf_counter()
    value, params = step(params)
    print(f"first step, compiled        {1e3 * (time.perf_counter() - start):8.1f} ms")
    start = time.perf_counter()
    for k in range(1, STEPS):
        value, params = step(params)
        if k in (10, 100, 1000):
            print(f"    loss after {k:>5} steps  {value:.6f}")
    elapsed = time.perf_counter() - start
    print(f"every further step          {1e6 * elapsed / (STEPS - 1):8.1f} µs")
    out = fg.vmap(network, in_axes=(None, 0))(params, X)
    for (a, b), target, o in zip(X.astype(int), Y, out):
        print(f"    {a} xor {b} = {int(o > 0)}   (network: {o:+.4f}, wanted {2 * target - 1:+.0f})")
    solved = bool(np.all((out > 0) == (Y > 0.5)))
    print("XOR is solved." if solved else "XOR is NOT solved.")
    return 0 if solved else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a terminal without Greek letters and squares is no reason to stop
    sys.exit(main())
