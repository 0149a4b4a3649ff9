"""What this machine can do, measured once per process in a few milliseconds: the yardstick of `explain`.

Bandwidth is that of a kernel that reads one array and writes another, at sizes that lie in the inner caches, in the
outer ones, and in memory; arithmetic is a chain of additions and multiplications that stays in registers, on one
thread; a product of matrices is one under `jit`. All of it is measured through programs of our own, on the threads
that they would have.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import log
from time import perf_counter
from typing import Any

import numpy as np

from .jit import jit
from .record import record
from .runtime.threads import get_num_threads

__all__ = ["Machine", "machine"]

_STREAM_BYTES = (1 << 18, 1 << 22, 1 << 26)
_CHAIN = 32
_CHAIN_SIZE = 2048
_MATRIX = 384


@record(frozen=True)
class Machine:
    """Rates per second. ``bandwidth`` lists (bytes moved, bytes per second) with growing sizes; ``scalar_ops`` are of
    one thread in float64, ``product_flops`` of all threads in float64."""

    threads: int
    bandwidth: tuple[tuple[int, float], ...]
    scalar_ops: float
    product_flops: float

    def stream_seconds(self, nbytes: float) -> float:
        """Moving that many bytes by a kernel that does nothing else."""
        if nbytes <= 0:
            return 0.0
        low = self.bandwidth[0]
        for high in self.bandwidth[1:]:
            if nbytes < high[0]:
                share = max(0.0, log(nbytes / low[0]) / log(high[0] / low[0]))
                return float(nbytes / (low[1] ** (1 - share) * high[1] ** share))
            low = high
        return nbytes / low[1]

    def scalar_seconds(self, operations: float, itemsize: int, threads: int) -> float:
        """That many scalar operations on numbers of that size; vectors hold more of the smaller ones."""
        return operations / (self.scalar_ops * threads * 8 / max(1, min(itemsize, 8)))

    def product_seconds(self, flops: float, itemsize: int) -> float:
        return flops / (self.product_flops * 8 / max(1, min(itemsize, 8)))


def _best(function: Callable[..., Any], *args: Any, repeat: int = 5) -> float:
    function(*args)
    times: list[float] = []
    for _ in range(repeat):
        start = perf_counter()
        function(*args)
        times.append(perf_counter() - start)
    return float(min(times))


def _stream(x: Any) -> Any:
    return x + 1.0


def _chain(x: Any) -> Any:
    y = x
    for _ in range(_CHAIN):
        y = y * 0.999 + x
    return y


@cache
def _measured(threads: int) -> Machine:
    stream, chain, product = jit(_stream), jit(_chain), jit(lambda a, b: a @ b)
    nothing = _best(stream, np.zeros(8), repeat=20)
    bandwidth = []
    for nbytes in _STREAM_BYTES:
        x = np.zeros(nbytes // 16)
        bandwidth.append((nbytes, nbytes / max(_best(stream, x, repeat=5) - nothing, 1e-9)))
    x = np.ones(_CHAIN_SIZE)
    ops = 2 * _CHAIN * x.size / max(_best(chain, x, repeat=20) - nothing, 1e-9)
    a = np.ones((_MATRIX, _MATRIX))
    flops = 2 * _MATRIX**3 / max(_best(product, a, a) - nothing, 1e-9)
    return Machine(threads, tuple(bandwidth), ops, flops)


def machine() -> Machine:
    """This machine, with the present number of threads."""
    return _measured(get_num_threads())
