"""What compiling leaves behind: the machine code, and nothing of the compiler's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.native import ROOT, run_script

GROWTH = """
import ctypes, gc
from pathlib import Path
from funcgrad.runtime.compile import compile_kernel

def kernel(k):
    compile_kernel(f'''
def kernel(slots, ints, lo, hi):
    p0 = base(slots, ints, 0, 2)
    p1 = base(slots, ints, 1, 3)
    for i in range(lo, hi):
        store_f64(p1, i, 1, exp_f64(load_f64(p0, i, 0) + f64({k}.5)))
''')

def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1])

for k in range(20):
    kernel(k)
before = resident()
for k in range(100, 200):
    kernel(k)
print((resident() - before) / 100)
"""


QUIET = """
import numpy as np
import funcgrad as fg

for k in range(1, 6):  # the sine's long way round for large arguments is a function that the optimiser leaves alone
    fg.jit(lambda x: np.tanh(np.sin(np.cos(x) * k)) + k)(np.ones(5))
"""


def test_the_compiler_says_nothing() -> None:
    """A pass builder that is used twice calls into what has been freed: it shows in words on the error stream."""
    result = subprocess.run(
        [sys.executable, "-c", QUIET],
        env={**os.environ, "PYTHONPATH": str(ROOT), "FUNCGRAD_CACHE": "0"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say what a process holds")
def test_a_compiled_kernel_leaves_its_code_behind_and_no_compiler() -> None:
    """Kilobytes for each kernel: pages of code and its text. LLVM's passes, where they stay, are another 100."""
    assert float(run_script(GROWTH, FUNCGRAD_CACHE="0")) < 50
