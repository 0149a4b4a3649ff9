"""The pool of threads on CPUs that others use as well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import funcgrad as fg

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
    while threads.handed_over() == 0 and time.monotonic() < end:
        wrong += f(x).tobytes() != expected
finally:
    other.kill()
print(threads.handed_over() > 0, wrong)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a worker waits for the CPU it has lost")
def test_a_worker_whose_cpu_another_process_takes_gets_the_callers() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU: there is no other one to take")
    env = {**os.environ, "PYTHONPATH": str(Path(fg.__file__).parent.parent)}
    arguments = [sys.executable, "-c", NEXT_TO_ANOTHER_PROCESS]
    result = subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=120)
    assert result.stdout.split() == ["True", "0"], result.stdout + result.stderr
