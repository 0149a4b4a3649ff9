"""Handwritten digits: a two-layer network in plain NumPy, trained with ``jit(value_and_grad(loss))``.

The data are the 1797 images of 8x8 pixels of the UCI repository that come with scikit-learn. The program trains on
four fifths of them with mini-batches, and then looks at what it did:

- a gradient check: central differences against the gradient, on some coordinates of every parameter;
- the time of one training step, as NumPy runs it and compiled, and the number of fused kernels it consists of;
- gradients per example, by ``vmap``: which digit pulls hardest at the parameters;
- a picture: the loss curve and the digits it gets wrong.

    python examples/digits.py                       (or: make demo)
    python examples/digits.py --epochs 10 --seed 1 --out pictures

It ends with exit code 0 if at least 96% of the digits it never saw are recognised.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

import funcgrad as fg

try:
    import matplotlib
    from sklearn.datasets import load_digits
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f"This example needs {error.name}. Install the demo extra: python -m pip install '.[demo]'")

matplotlib.use("Agg")  # pictures go to files; no screen is needed
import matplotlib.pyplot as plt

Params = dict[str, Any]

HIDDEN = 64
BATCH = 64
RATE = 0.1
MOMENTUM = 0.9
DECAY = 1e-4  # pulls the weights towards zero a little, which helps on digits it has not seen
NOISE = 0.2  # no image is seen twice: each time its pixels are a little different, for the same reason
WANTED = 0.96
OUTPUT = Path(__file__).resolve().parent / "output"


# the network, in plain NumPy ------------------------------------------------------------------------------------


def logits(params: Params, x: Any) -> Any:
    """Scores of the ten digits: ``x[..., 64]`` to ``[..., 10]``."""
    hidden = np.tanh(x @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


def loss(params: Params, x: Any, y: Any) -> Any:
    """Mean cross-entropy of the right digits (``y``: one-hot), and weight decay."""
    z = logits(params, x)
    z = z - np.max(z, axis=-1, keepdims=True)
    log_p = z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))
    size = np.sum(params["w1"] ** 2) + np.sum(params["w2"] ** 2)
    return -np.mean(np.sum(y * log_p, axis=-1)) + DECAY * size


def update(params: Params, velocity: Params, gradient: Params, rate: Any) -> tuple[Params, Params]:
    """Gradient descent with momentum, on every leaf of the parameters."""
    velocity = fg.tree.map(lambda v, g: MOMENTUM * v - rate * g, velocity, gradient)
    return fg.tree.map(lambda p, v: p + v, params, velocity), velocity


loss_and_gradient = fg.jit(fg.value_and_grad(loss))
compiled_update = fg.jit(update)
per_example_gradients = fg.jit(fg.vmap(fg.grad(loss), in_axes=(None, 0, 0)))


def initial_params(rng: np.random.Generator) -> Params:
    """Weights of the size 1/sqrt(inputs)."""
    return {
        "w1": rng.normal(size=(64, HIDDEN)) / 8,
        "b1": np.zeros(HIDDEN),
        "w2": rng.normal(size=(HIDDEN, 10)) / np.sqrt(HIDDEN),
        "b2": np.zeros(10),
    }


# data and training ----------------------------------------------------------------------------------------------


class Digits(NamedTuple):
    """Images ``x[n, 64]`` in 0..1, labels ``y[n]``."""

    x: np.ndarray
    y: np.ndarray

    @property
    def one_hot(self) -> np.ndarray:
        return np.eye(10)[self.y]


def load(rng: np.random.Generator) -> tuple[Digits, Digits]:
    """The images, shuffled: four fifths to train on, one fifth to test on."""
    data = load_digits()
    order = rng.permutation(len(data.target))
    x, y = data.data[order] / 16.0, data.target[order]
    n = len(y) * 4 // 5
    return Digits(x[:n], y[:n]), Digits(x[n:], y[n:])


def batches(n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of mini-batches in random order. The last is smaller: another shape, but no other compilation."""
    order = rng.permutation(n)
    for start in range(0, n, BATCH):
        yield order[start : start + BATCH]


def train(params: Params, data: Digits, epochs: int, rng: np.random.Generator) -> tuple[Params, list[float]]:
    """The trained parameters and the loss of every step."""
    velocity = fg.tree.map(np.zeros_like, params)
    targets = data.one_hot
    losses: list[float] = []
    terminal = sys.stderr.isatty()
    progress = tqdm(range(epochs), desc="training", unit="epoch", disable=not terminal)
    try:
        for epoch in progress:
            rate = RATE * (1 - epoch / epochs)  # steps get shorter towards the end
            for rows in batches(len(data.y), rng):
                x = data.x[rows] + NOISE * rng.normal(size=(len(rows), 64))
                value, gradient = loss_and_gradient(params, x, targets[rows])
                params, velocity = compiled_update(params, velocity, gradient, rate)
                losses.append(float(value))
            progress.set_postfix(loss=f"{losses[-1]:.4f}")
            if not terminal and (epoch + 1) % max(1, epochs // 5) == 0:
                print(f"    epoch {epoch + 1:>3} of {epochs}: loss {losses[-1]:.4f}", flush=True)
    finally:
        progress.close()
    return params, losses


def accuracy(params: Params, data: Digits) -> float:
    return float(np.mean(np.argmax(logits(params, data.x), axis=-1) == data.y))


# looking at it --------------------------------------------------------------------------------------------------


def gradient_check(params: Params, data: Digits, rng: np.random.Generator, per_leaf: int = 5, h: float = 1e-5) -> float:
    """The largest relative error of the compiled gradient against central differences, on random coordinates."""
    x, y = data.x[:BATCH], data.one_hot[:BATCH]
    _, gradient = loss_and_gradient(params, x, y)
    worst = 0.0
    for name, leaf in params.items():
        for k in rng.choice(leaf.size, per_leaf, replace=False):
            where = np.unravel_index(k, leaf.shape)
            ends = []
            for sign in (1, -1):
                moved = leaf.copy()
                moved[where] += sign * h
                ends.append(loss({**params, name: moved}, x, y))
            numeric = (ends[0] - ends[1]) / (2 * h)
            exact = gradient[name][where]
            worst = max(worst, abs(exact - numeric) / max(abs(exact), abs(numeric), 1e-6))
    return worst


def time_per_step(run: Callable[..., Any], *args: Any, seconds: float = 0.5) -> float:
    """Median time of a call in milliseconds, after one that does not count."""
    run(*args)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        run(*args)
        times.append(time.perf_counter() - start)
    return 1e3 * median(times)


def report_speed(params: Params, data: Digits) -> None:
    args = params, data.x[:BATCH], data.one_hot[:BATCH]
    eager = time_per_step(fg.value_and_grad(loss), *args)
    jitted = time_per_step(loss_and_gradient, *args)
    compiled = loss_and_gradient.lower(*args).compile()
    print(
        f"loss and gradient of a batch of {BATCH}: {eager:.3f} ms eager, {jitted:.3f} ms jitted "
        f"({eager / jitted:.1f} times as fast)"
    )
    operations = len(compiled.traced.jaxpr.jaxpr.eqns)
    cost = compiled.cost_analysis()
    print(
        f"the compiled step: {operations} operations traced, run as {cost['launches']} launches of "
        f"{cost['kernels']} fused kernels"
    )


def report_per_example(params: Params, data: Digits) -> None:
    """The length of every example's own gradient: what each digit would change if it were alone."""
    gradients = per_example_gradients(params, data.x, data.one_hot)
    squares = [np.sum(g.reshape(len(data.y), -1) ** 2, axis=1) for g in fg.tree.leaves(gradients)]
    norms = np.sqrt(np.sum(squares, axis=0))
    means = np.array([norms[data.y == digit].mean() for digit in range(10)])
    print(f"gradients of {len(norms)} single test examples by vmap, mean length per digit:")
    print("    " + "  ".join(f"{digit}: {m:.2f}" for digit, m in enumerate(means)))
    hardest = int(np.argmax(norms))
    print(
        f"    largest on average for the digit {int(np.argmax(means))}; largest of all, {norms[hardest]:.2f}, for "
        f"test image {hardest}, a {data.y[hardest]}"
    )


def draw(losses: list[float], params: Params, data: Digits, path: Path) -> int:
    """The loss curve and the misclassified digits; how many these are."""
    guess = np.argmax(logits(params, data.x), axis=-1)
    wrong = np.flatnonzero(guess != data.y)
    columns, shown = 4, wrong[:16]
    figure = plt.figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subfigures(1, 2)
    axes = left.subplots()
    axes.semilogy(losses, color="0.75", linewidth=0.8, label="every step")
    width = max(1, len(losses) // 50)
    means = np.convolve(losses, np.ones(width) / width, mode="valid")
    axes.semilogy(np.arange(len(means)) + width / 2, means, color="C0", label=f"mean of {width} steps")
    axes.set(title="loss while training", xlabel="step", ylabel="cross-entropy")
    axes.legend()
    right.suptitle(f"{len(wrong)} of {len(data.y)} test digits are misread" if len(wrong) else "no digit is misread")
    if len(shown):
        grid = right.subplots(-(-len(shown) // columns), columns, squeeze=False).ravel()
        for cell in grid:
            cell.set_axis_off()
        for cell, k in zip(grid, shown):
            cell.imshow(data.x[k].reshape(8, 8), cmap="gray_r")
            cell.set_title(f"{data.y[k]}, read as {guess[k]}", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return len(wrong)


def writable_folder(wanted: Path) -> Path:
    """``wanted``, or, where nothing can be written there, a new temporary folder."""
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except OSError as error:
        fallback = Path(tempfile.mkdtemp(prefix="funcgrad-digits-"))
        print(f"cannot write to {wanted} ({error.strerror or error}); using {fallback}")
        return fallback


# the whole ------------------------------------------------------------------------------------------------------


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def run(epochs: int, seed: int, out: Path) -> int:
    rng = np.random.default_rng(seed)
    training, test = load(rng)
    print(
        f"UCI digits: {len(training.y)} images to train on, {len(test.y)} to test on; "
        f"network 64-{HIDDEN}-10, {epochs} epochs of batches of {BATCH}, seed {seed}"
    )
    params = initial_params(rng)
    start = time.perf_counter()
    loss_and_gradient(params, training.x[:BATCH], training.one_hot[:BATCH])
    print(f"first call, traced and compiled (or loaded from the disk cache): {time.perf_counter() - start:.2f} s")
    worst = gradient_check(params, training, rng)
    print(f"gradient check against central differences: largest relative error {worst:.1e}")

    start = time.perf_counter()
    params, losses = train(params, training, epochs, rng)
    elapsed = time.perf_counter() - start
    print(f"trained {len(losses)} steps in {elapsed:.2f} s, {1e3 * elapsed / len(losses):.3f} ms each all in all")
    reached = accuracy(params, test)
    print(f"accuracy: {accuracy(params, training):.2%} on the training set, {reached:.2%} on the test set")

    report_speed(params, training)
    report_per_example(params, test)
    picture = writable_folder(out) / "digits.png"
    n_wrong = draw(losses, params, test, picture)
    print(f"loss curve and {n_wrong} misread digits: {picture}")

    if not worst < 1e-4:
        print(f"FAILED: the gradient differs from central differences by {worst:.1e}; 1e-4 is allowed", file=sys.stderr)
        return 1
    if reached < WANTED:
        hint = "" if epochs >= 30 else f"; {epochs} epochs may be too few, the default is 60"
        print(f"FAILED: {reached:.2%} of the test digits are right, wanted {WANTED:.0%}{hint}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a two-layer network on handwritten digits.")
    parser.add_argument("--epochs", type=positive, default=60, help="passes over the data (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffling and the weights (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUTPUT, help="folder for the picture (default: examples/output)")
    options = parser.parse_args()
    if options.seed < 0:
        parser.error(f"argument --seed: must not be negative: {options.seed}")
    try:
        return run(options.epochs, options.seed, options.out)
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was saved", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
