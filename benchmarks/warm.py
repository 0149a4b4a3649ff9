"""Warm calls: all libraries in turns, block by block, and the median of many blocks.

The order of the turns rotates, so that whatever slows the machine for a while slows all of them; the median leaves such
blocks out. Python's garbage collector runs between blocks, not in them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from .compare import disagreements
from .peers.base import Unsupported
from .session import Failed, Process, TimedOut
from .workload import Workload

__all__ = ["Pool", "Settings", "Timing", "measure", "prepared"]


@dataclass(frozen=True)
class Settings:
    """Blocks per library, seconds per block, seconds for one workload's blocks, and for one compilation; and seconds
    before each block, as often as it takes for the threads of all libraries to fall asleep: some wait for work by
    spinning, those of OpenBLAS for a tenth of a second. ``settled``: when to go on even if they do not."""

    rounds: int = 11
    block: float = 0.02
    settle: float = 0.03
    settled: float = 0.3
    together: float = 6.0
    patience: float = 60.0


@dataclass(frozen=True)
class Timing:
    """Seconds per call: the median over blocks, the quartiles around it, and the best block."""

    seconds: float
    low: float
    high: float
    calls: int
    blocks: int
    best: float = float("nan")


def summary(samples: list[float], calls: int) -> Timing:
    low, _, high = quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else (samples[0],) * 3
    return Timing(median(samples), low, high, calls, len(samples), min(samples))


class Pool:
    """The libraries' processes; one that has ended is started again for the next workload."""

    def __init__(self, names: list[str], start: Callable[[str], Any] = Process) -> None:
        self._start = start
        self.processes: dict[str, Any] = {}
        self.missing: dict[str, str] = {}
        for name in names:
            try:
                self.processes[name] = start(name)
            except Failed as error:
                self.missing[name] = str(error)

    def ready(self, name: str) -> Any:
        if not self.processes[name].alive:
            self.processes[name] = self._start(name)
        return self.processes[name]

    def versions(self) -> dict[str, str]:
        return {name: process.version for name, process in self.processes.items()}

    def stop(self) -> None:
        for process in self.processes.values():
            process.stop()


@contextlib.contextmanager
def prepared(
    workload: Workload, pool: Pool, patience: float, tiny: bool
) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """The processes of all libraries that can do the workload, which is compiled in them, and for the others why not.
    Results are compared. Afterwards the processes forget it."""
    notes: dict[str, str] = {}
    asked: dict[str, Any] = {}
    for name in pool.processes:  # all compile at once: nothing is timed yet
        if workload.takes_part(name):
            try:
                process = pool.ready(name)
                process.send("prepare", workload.name, tiny)
                asked[name] = process
            except Failed as error:
                notes[name] = f"failed: {error}"
    results: dict[str, Any] = {}
    deadline = time.perf_counter() + patience
    for name, process in asked.items():
        try:
            results[name] = process.collect(max(1.0, deadline - time.perf_counter()))
        except Unsupported as reason:
            notes[name] = str(reason)
        except TimedOut:  # a compiler that takes minutes is no error, unless it is ours
            kind = "failed" if name == "funcgrad" else "left out"
            notes[name] = f"{kind}: its first call was not done after {patience:.0f} s"
        except Failed as error:
            notes[name] = f"failed: {error}"
    notes |= disagreements(results, workload.tolerance)
    right = {name: asked[name] for name in results if name not in notes}
    del results
    yield right, notes
    for name, process in asked.items():
        if process.alive:
            try:
                process.ask("forget")
            except Failed as error:
                notes.setdefault(name, f"failed: {error}")


def measure(
    workload: Workload, pool: Pool, settings: Settings, tiny: bool = False
) -> tuple[dict[str, Timing], dict[str, str]]:
    """Times of all libraries that can do the workload, and for the others why not. Results are compared first."""
    timings: dict[str, Timing] = {}
    with prepared(workload, pool, settings.patience, tiny) as (processes, notes):
        if processes:
            timings, failed = interleave(processes, settings)
            notes |= failed
    return timings, notes


def _settle(processes: Mapping[str, Any], settings: Settings) -> None:
    """Wait until no library uses the CPU."""

    def used() -> float:
        return sum([p.cpu_seconds() for p in processes.values()])

    deadline, before = time.perf_counter() + settings.settled, used()
    while settings.settle and time.perf_counter() < deadline:
        time.sleep(settings.settle)
        now = used()
        if now - before <= 0.1 * settings.settle:
            return
        before = now


def interleave(processes: Mapping[str, Any], settings: Settings) -> tuple[dict[str, Timing], dict[str, str]]:
    """Time blocks of all processes in turns; and who failed meanwhile."""
    calls: dict[str, int] = {}
    each: dict[str, float] = {}
    failed: dict[str, str] = {}
    samples: dict[str, list[float]] = {}
    for name, process in processes.items():
        try:
            calls[name], each[name] = process.ask("calls_per_block", settings.block)
            samples[name] = []
        except Failed as error:
            failed[name] = f"failed: {error}"
    names = list(calls)
    # long calls have fewer blocks, and no call before them: caches do not matter there
    turn = sum(max(settings.block, t * (2 if t < settings.block else 1)) for t in each.values())
    rounds = max(3, min(settings.rounds, int(settings.together / turn))) if names else 0
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            if name in failed:
                continue
            try:
                _settle(processes, settings)
                samples[name].append(processes[name].ask("block", calls[name], each[name] < 0.1))
            except Failed as error:
                failed[name] = f"failed: {error}"
    return {n: summary(s, calls[n]) for n, s in samples.items() if n not in failed and s}, failed
