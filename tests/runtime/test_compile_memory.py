"""What compiling leaves behind: the machine code, and nothing of the compiler's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.native import run_script

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


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say what a process holds")
def test_a_compiled_kernel_leaves_its_code_behind_and_no_compiler() -> None:
    """Kilobytes for each kernel: pages of code and its text. LLVM's passes, where they stay, are another 100."""
    assert float(run_script(GROWTH, FUNCGRAD_CACHE="0")) < 50
