"""Calls beside a busy process: what a user of a shared machine meets. Each call is timed, and the slowest ones count.

One other process computes all the time, wherever the system puts it. A library that waits for all of its threads waits
for the one that has to share its core, if it is not given up in the meantime.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np

from .session import Failed
from .warm import Pool, Settings, prepared
from .workload import Workload

__all__ = ["MEDIAN", "SLOWEST", "measure"]

MEDIAN, SLOWEST = "beside a busy process, median", "beside a busy process, 99th percentile"


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def measure(
    workload: Workload, pool: Pool, settings: Settings, tiny: bool = False
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """By measure and library: seconds of a call. The libraries take turns, three each."""
    calls: dict[str, list[float]] = {}
    with prepared(workload, pool, settings.patience, tiny) as (processes, notes), busy_process():
        for _ in range(3):
            for name, process in processes.items():
                if name not in notes:
                    try:
                        calls.setdefault(name, []).extend(process.ask("each", settings.together / 9))
                    except Failed as error:
                        notes[name] = f"failed: {error}"
    found = {name: np.percentile(times, (50, 99)) for name, times in calls.items() if name not in notes}
    if not found:
        return {}, notes
    return {title: {n: float(p[k]) for n, p in found.items()} for k, title in enumerate((MEDIAN, SLOWEST))}, notes
