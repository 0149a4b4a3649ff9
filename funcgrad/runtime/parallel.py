"""Python threads for work that leaves the GIL: LLVM's, a few pieces at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["in_parallel"]

T = TypeVar("T")
R = TypeVar("R")


def _cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def in_parallel(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``[function(x) for x in items]`` on as many threads as there are CPUs; the first exception is raised."""
    results: list[R | None] = [None] * len(items)
    errors: list[BaseException] = []
    waiting = list(reversed(range(len(items))))

    def work() -> None:
        while not errors:
            try:
                k = waiting.pop()
            except IndexError:
                return
            try:
                results[k] = function(items[k])
            except BaseException as error:
                errors.append(error)

    helpers = [threading.Thread(target=work, daemon=True) for _ in range(min(len(items), _cpus()) - 1)]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
    return results  # type: ignore[return-value]
