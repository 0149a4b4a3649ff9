"""How it is timed: all peers in one process, in turns, and the median of many blocks.

A block is as many calls as fill some milliseconds. Peers take turns block by block, in an order that rotates, so that
whatever slows the machine for a while slows all of them; the median leaves such blocks out. Python's garbage collector
runs between blocks, not in them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import numpy as np

from .peers import Peer, Unsupported
from .workloads import Workload

__all__ = ["Settings", "Timing", "compare", "measure"]

Call = Callable[[], Any]


@dataclass(frozen=True)
class Settings:
    """Blocks per peer, and seconds per block."""

    rounds: int = 15
    block: float = 0.03


@dataclass(frozen=True)
class Timing:
    """Seconds per call: the median over blocks, and the quartiles around it."""

    seconds: float
    low: float
    high: float
    calls: int


def _calls_per_block(call: Call, block: float) -> int:
    """How many calls fill a block, found after warming up."""
    n = 1
    while True:
        start = time.perf_counter()
        for _ in range(n):
            call()
        elapsed = time.perf_counter() - start
        if elapsed >= block / 4:
            return max(1, round(n * block / elapsed))
        n *= 4


def interleave(calls: Mapping[str, Call], settings: Settings) -> dict[str, Timing]:
    """Time all calls in turns."""
    sizes = {name: _calls_per_block(call, settings.block) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    gc.collect()
    gc.disable()
    try:
        for turn in range(settings.rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                call, n = calls[name], sizes[name]
                call()  # brings caches and threads back to this peer
                start = time.perf_counter()
                for _ in range(n):
                    call()
                samples[name].append((time.perf_counter() - start) / n)
            gc.collect()
    finally:
        gc.enable()
    return {name: _summary(s, sizes[name]) for name, s in samples.items()}


def _summary(samples: list[float], calls: int) -> Timing:
    low, _, high = quantiles(samples, n=4) if len(samples) > 1 else (samples[0],) * 3
    return Timing(median(samples), low, high, calls)


def _leaves(x: Any) -> list[Any]:
    if isinstance(x, dict):
        return [leaf for k in sorted(x) for leaf in _leaves(x[k])]
    if isinstance(x, (list, tuple)):
        return [leaf for item in x for leaf in _leaves(item)]
    return [np.asarray(x)]


def compare(found: Any, expected: Any, tolerance: float) -> str:
    """What differs between two results; empty if they agree in structure, shape, dtype and, about, value."""
    a, b = _leaves(found), _leaves(expected)
    if len(a) != len(b):
        return f"{len(a)} results instead of {len(b)}"
    for k, (x, y) in enumerate(zip(a, b)):
        if x.shape != y.shape or x.dtype != y.dtype:
            return f"result {k} is {x.dtype}{list(x.shape)}, expected {y.dtype}{list(y.shape)}"
        if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
            return f"result {k} is not finite"
        scale = float(np.max(np.abs(y), initial=0.0)) or 1.0
        error = float(np.max(np.abs(x - y), initial=0.0)) / scale
        if error > tolerance:
            return f"result {k} differs by {error:.1e} of its largest element; {tolerance:.0e} is allowed"
    return ""


def _bind(workload: Workload, peer: Peer, args: tuple[Any, ...]) -> Call:
    function, own, wait = workload.build(peer), peer.device(args), peer.wait
    if wait is None:
        return lambda: function(*own)
    return lambda: wait(function(*own))


def measure(
    workload: Workload, peers: Mapping[str, Peer], settings: Settings
) -> tuple[dict[str, Timing], dict[str, str]]:
    """Times of all peers that can do the workload, and for the others why not.

    Results are checked first, against NumPy's or, for derivatives, against the first other peer's.
    """
    calls: dict[str, Call] = {}
    results: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for name, peer in peers.items():
        if not workload.takes_part(name):
            continue
        args = workload.arguments(np.random.default_rng(0))
        try:
            call = _bind(workload, peer, args)
            results[name] = call()
            call()
            calls[name] = call
        except Unsupported as reason:
            skipped[name] = str(reason)
        except Exception as error:
            skipped[name] = f"failed with {type(error).__name__}: {error}"
    witness = next((n for n in ("numpy", "jax", "autograd", "funcgrad") if n in results), None)
    for name in list(calls):
        difference = compare(results[name], results[witness], workload.tolerance) if witness else ""
        if difference:
            skipped[name] = f"WRONG, compared with {witness}: {difference}"
            del calls[name]
    del results
    return (interleave(calls, settings) if calls else {}), skipped
