"""When threads are woken, and what they do where others use their CPUs as well."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.runtime import threads


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = fg.get_num_threads()
    fg.set_num_threads(2)
    threads.start()
    yield
    fg.set_num_threads(before)


def shared_loops(call: Callable[[], Any]) -> int:
    """How many loops of this call, made while the workers sleep, are shared with them."""
    pool = threads.running_pool()
    assert pool is not None
    time.sleep(0.02)
    before = pool.shared
    call()
    return pool.shared - before


def short(x: Any) -> Any:
    return x * 0.5 + 1.0


@pytest.mark.skipif(os.name != "posix", reason="loops are serial without POSIX threads")
def test_sleeping_workers_are_woken_for_long_loops_and_for_many_short_ones(two_threads: None) -> None:
    f, x = fg.jit(short), np.ones(20_000)
    g, y = fg.jit(lambda x: np.sin(x) * np.exp(-x)), np.ones(500_000)
    loop = fg.jit(lambda x: fg.lax.fori_loop(0, 2000, lambda i, x: short(x), x))
    assert f.lower(x).executable.program.parallel
    f(x), g(y), loop(x)
    assert min(shared_loops(lambda: f(x)) for _ in range(5)) == 0
    assert shared_loops(lambda: g(y)) == 1
    assert shared_loops(lambda: loop(x)) > 1


NEXT_TO_ANOTHER_PROCESS = """
import os, subprocess, sys, threading, time
import numpy as np, funcgrad as fg
from funcgrad.runtime import threads

here, there = sorted(os.sched_getaffinity(0))[:2]
os.sched_setaffinity(0, {here, there})
fg.set_num_threads(2)
x = np.random.default_rng(0).normal(size=200_000)
f = fg.jit(lambda x: np.sin(x) * np.exp(-x * x))
expected = f(x).tobytes()
os.sched_setaffinity(threading.get_native_id(), {here})
spin = f"import os\\nos.sched_setaffinity(0, {{{there}}})\\nwhile True: pass"
other = subprocess.Popen([sys.executable, "-c", spin])
wrong, end = 0, time.monotonic() + 60
try:
    while threads.running_pool().handed_over == 0 and time.monotonic() < end:
        wrong += f(x).tobytes() != expected
finally:
    other.kill()
print(threads.running_pool().handed_over > 0, wrong)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a worker waits for the CPU it has lost")
def test_a_worker_whose_cpu_another_process_takes_gets_the_callers() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU: there is no other one to take")
    env = {**os.environ, "PYTHONPATH": str(Path(fg.__file__).parent.parent)}
    arguments = [sys.executable, "-c", NEXT_TO_ANOTHER_PROCESS]
    result = subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=120)
    assert result.stdout.split() == ["True", "0"], result.stdout + result.stderr
