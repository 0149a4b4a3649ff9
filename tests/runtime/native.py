"""Hand-written kernels that the tests of the runtime share, and a way to run a script in a process of its
own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from funcgrad.runtime.compile import CompiledKernel, compile_runtime_kernel

ROOT = Path(__file__).resolve().parents[2]

# y[i] = x[i] + c over int64; ints: slot of x, slot of y, c
ADD = """
def kernel(slots, ints, lo, hi):
    x = load(slots + 8 * load(ints))
    y = load(slots + 8 * load(ints + 8))
    for i in range(lo, hi):
        store(y + 8 * i, load(x + 8 * i) + load(ints + 16))
"""

# rows of a linear congruential generator: y[i] = f^n(x[i]); ints: slot of x, slot of y, n
MIX = """
def kernel(slots, ints, lo, hi):
    x = load(slots + 8 * load(ints))
    y = load(slots + 8 * load(ints + 8))
    for i in range(lo, hi):
        v = load(x + 8 * i)
        for k in range(load(ints + 16)):
            v = (v * 6364136223846793005 + 1442695040888963407) ^ (v >> 13)
        store(y + 8 * i, v)
"""


def kernel(source: str) -> CompiledKernel:
    """A hand-written kernel, in the words of the runtime's own functions."""
    return compile_runtime_kernel(source)


def run_script(text: str, **environment: str) -> str:
    """The output of a Python process that runs `text` with this directory importable; warnings go to
    stdout."""
    paths = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
    result = subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
