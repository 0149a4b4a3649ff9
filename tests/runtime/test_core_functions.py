"""The runtime's own functions that every program needs, and LLVM's library, made ready beside other work."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from funcgrad.codegen.llvm import llvm_library
from funcgrad.runtime import preload
from funcgrad.runtime.parallel import in_parallel, prompt_threads
from tests.runtime.native import run_script

CORE = """
import ctypes
from funcgrad.runtime.compile import compile_kernel, core_function, stats
twice = core_function("def twice(x):\\n    return 2 * x\\n", "twice", 1)
thrice = core_function("def thrice(x, y):\\n    return 3 * x + y\\n", "thrice", 2)
if {first}:
    compile_kernel("def kernel(slots, ints, lo, hi):\\n    pass\\n")
    assert stats().compiles in (0, 2)  # the kernel and, beside it, the core
word = ctypes.c_int64
assert ctypes.CFUNCTYPE(word, word)(twice())(21) == 42
assert ctypes.CFUNCTYPE(word, word, word)(thrice())(5, 6) == 21
late = core_function("def late(x):\\n    return x - 1\\n", "late", 1)
assert ctypes.CFUNCTYPE(word, word)(late())(1) == 0 and late() == late()
print(stats().compiles, stats().cache_hits)
"""


@pytest.mark.parametrize("first", [True, False])
def test_core_functions_are_one_object_and_may_be_declared_late(tmp_path: Path, first: bool) -> None:
    script = CORE.format(first=first)
    objects = 2 + first  # the first two functions, the late one, the kernel
    assert run_script(script, FUNCGRAD_CACHE_DIR=str(tmp_path)) == f"{objects} 0"
    assert run_script(script, FUNCGRAD_CACHE_DIR=str(tmp_path)) == f"0 {objects}"


def test_threads_are_prompt_only_within() -> None:
    before = sys.getswitchinterval()
    with prompt_threads():
        assert sys.getswitchinterval() < 0.001
        assert in_parallel(lambda x: x + 1, range(5), 5) == [1, 2, 3, 4, 5]
    assert sys.getswitchinterval() == before
    with prompt_threads():
        sys.setswitchinterval(0.002)  # whoever sets it meanwhile is right
    changed = sys.getswitchinterval()
    sys.setswitchinterval(before)
    assert changed == pytest.approx(0.002)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is loaded ahead")
def test_the_library_is_there_before_llvmlite_is_imported() -> None:
    script = """
import sys
from pathlib import Path
from funcgrad.runtime.preload import preload, wait
preload()
preload()
wait()
assert "llvmlite.binding" not in sys.modules
print("libllvmlite" in Path("/proc/self/maps").read_text())
from funcgrad.runtime import target
target.describe()
"""
    assert run_script(script, FUNCGRAD_CACHE="0") == "True"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_or_the_end_in_the_midst_of_loading() -> None:
    script = """
import os
from funcgrad.runtime.preload import preload
preload()
child = os.fork()
if child == 0:
    import funcgrad as fg
    os._exit(0 if fg.jit(lambda x: x + 1.0)(1.0) == 2.0 else 1)
print(os.waitpid(child, 0)[1])
"""
    assert run_script(script, FUNCGRAD_CACHE="0") == "0"
    assert run_script("from funcgrad.runtime.preload import preload; preload(); print(1)", FUNCGRAD_CACHE="0") == "1"


def _missing(name: str) -> None:
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("answer", [lambda name: None, _missing])
def test_a_library_that_is_not_where_we_look_is_left_to_llvmlite(
    answer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", answer)
    llvm_library.cache_clear()
    preload._load()  # says nothing, raises nothing
    assert llvm_library() is None
    llvm_library.cache_clear()
