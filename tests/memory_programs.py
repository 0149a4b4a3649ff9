"""Programs whose memory the tests measure. `build(name, size)` gives the function and its arguments.

Run as a script, `python memory_programs.py NAME SIZE` prints two numbers: the bytes by which this process grew at its
peak during one call, compiled before, and the bytes that `memory_analysis` says the call needs beside its inputs.
"""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import funcgrad as fg


def softmax(x: Any) -> Any:
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def mlp_step(np: Any, grad: Any) -> Callable[..., Any]:
    def step(p: Any, x: Any, y: Any) -> Any:
        def loss(p: Any) -> Any:
            h = np.tanh(x @ p[0] + p[1])
            return np.mean((np.tanh(h @ p[2] + p[3]) - y) ** 2)

        return [a - 0.1 * b for a, b in zip(p, grad(loss)(p), strict=True)]

    return step


def build(name: str, n: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    rng = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return rng.random(shape)

    if name == "fused chain":
        return lambda x, y: (np.sin(x) * y + np.exp(-x), np.cumsum(x * y)), (array(n * n), array(n * n))
    if name == "softmax gradient":
        return fg.grad(lambda x, t: np.sum(softmax(x) * t)), (array(n, n), array(n, n))
    if name == "mlp step":
        return mlp_step(np, fg.grad), ([array(n, n), array(n), array(n, n), array(n)], array(n, n), array(n, n))
    if name == "transposes":
        return lambda x: np.cumsum(np.cumsum(x, axis=0).T + x, axis=1), (array(n, n),)
    if name == "scatter":
        index = rng.integers(0, n * n, n * n // 2)
        return lambda x, i, u: np.sum(fg.at(np.sin(x))[i].add(u) ** 2), (array(n * n), index, array(n * n // 2))
    if name == "host step":
        return lambda x: np.cumsum(np.sort(np.sin(x), axis=-1), axis=-1) * 2, (array(n, n),)
    if name == "donated":
        step = fg.jit(lambda m, v, g: (0.9 * m + 0.1 * g, 0.9 * v + 0.1 * g**2), donate_argnums=(0, 1))
        return step, (array(n, n), array(n, n), array(n, n))
    if name == "scratch":  # the row of exponentials is wanted again after its sum, but is no result
        return lambda x: np.sum(np.tanh(np.exp(x) / np.sum(np.exp(x), axis=1, keepdims=True)), axis=1), (array(8, n),)
    raise ValueError(f"no program {name!r}")


NAMES = ("fused chain", "softmax gradient", "mlp step", "transposes", "scatter", "host step", "donated")


def _status(key: str) -> int:
    match = re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def measure(name: str, n: int) -> tuple[int, int]:
    """(growth at the peak, what ``memory_analysis`` says of it)."""
    fun, _ = build(name, 64)
    f = fun if isinstance(fun, fg.jit(fun).__class__) else fg.jit(fun)
    for small in (64, 256):  # compiles, starts the threads, lets BLAS take its own memory
        f(*build(name, small)[1])
    args = build(name, n)[1]
    said = f.lower(*args).executable.memory_analysis()
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    kept = f(*args)
    growth = _status("VmHWM") - before
    del kept
    return growth, said["peak_bytes"] - said["input_bytes"] - said["constant_bytes"]


if __name__ == "__main__":
    print(*measure(sys.argv[1], int(sys.argv[2])))
