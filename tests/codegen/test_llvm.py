"""Our declarations of llvmlite's library against llvmlite's own: the same functions, the same machine code."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import llvmlite
import llvmlite.binding
import pytest

from funcgrad.codegen import llvm
from funcgrad.codegen.llvm import KNOWN_VERSIONS, Binding, Llvmlite, binding, llvm_library
from funcgrad.runtime import target
from tests.runtime.native import run_script

IS_KNOWN = llvmlite.__version__ in KNOWN_VERSIONS and sys.platform == "linux" and os.uname().machine == "x86_64"
known = pytest.mark.skipif(not IS_KNOWN, reason="of another llvmlite, or elsewhere, llvmlite's own binding is used")

LOOP = """
define void @add(ptr %x, i64 %n) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %at = getelementptr double, ptr %x, i64 %i
  %v = load double, ptr %at
  %w = fadd double %v, 1.5
  store double %w, ptr %at
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}
define weak_odr double @half(double %x) alwaysinline {
  %y = fmul double %x, 0.5
  ret double %y
}
define double @quarter(double %x) {
  %y = call double @half(double %x)
  %z = call double @half(double %y)
  ret double %z
}
"""


@pytest.fixture
def ours() -> Any:
    return Binding(ctypes.CDLL(str(llvm_library())))


@known
@pytest.mark.parametrize("name", llvm._DECLARATIONS)
def test_declarations(name: str) -> None:
    """As many arguments of the same sizes, and such a result, as far as llvmlite declares them."""
    import llvmlite.binding.newpassmanagers

    result, *arguments = llvm._DECLARATIONS[name]
    theirs = getattr(llvmlite.binding.ffi.lib, f"LLVMPY_{name}")
    numbers = (ctypes.c_int, ctypes.c_uint, ctypes.c_bool, ctypes.c_size_t, ctypes.c_char_p)

    def kind(x: Any) -> Any:
        return x if x in numbers else "pointer"

    if theirs.argtypes is not None:
        assert [kind(x) for x in arguments] == [kind(x) for x in theirs.argtypes]
    if result is not None:
        assert kind(result) == kind(theirs.restype)
    else:
        assert theirs.restype in (None, ctypes.c_int)  # ctypes' default


@known
def test_it_is_used() -> None:
    script = """
import sys
from funcgrad.codegen.llvm import Binding, binding
import funcgrad as fg
assert fg.jit(lambda x: x + 1.5)(1.0) == 2.5
print(type(binding()) is Binding, "llvmlite.binding" in sys.modules)
"""
    assert run_script(script, FUNCGRAD_CACHE="0") == "True False"
    other = "from funcgrad.codegen import llvm; llvm.KNOWN_VERSIONS = frozenset()" + script
    assert run_script(other, FUNCGRAD_CACHE="0") == "False True"


@known
def test_both_say_the_same_of_the_machine(ours: Any) -> None:
    theirs = Llvmlite()
    for name in ("get_process_triple", "get_host_cpu_name", "get_host_cpu_features"):
        assert getattr(ours, name)() == getattr(theirs, name)()
    assert ours.get_host_cpu_features().flatten() == theirs.get_host_cpu_features().flatten()
    assert ours.llvm_version_info == theirs.llvm_version_info
    assert ours.address_of_symbol("malloc") == theirs.address_of_symbol("malloc")
    assert ours.address_of_symbol("no_such_function") is None


def made(llvm: Any, text: str, glue: bool) -> tuple[bytes, str, str]:
    """What `target` makes of a module with one of the bindings."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    kept = target._llvm, target._unused
    target._llvm, target._unused = lambda: llvm, {False: [], True: []}
    try:
        module = target.optimised(text, glue)
        return target.emit(module, glue), target.assembly_of(module), str(module)
    finally:
        target._llvm, target._unused = kept


@known
@pytest.mark.parametrize("glue", [False, True])
def test_same_machine_code(ours: Any, glue: bool) -> None:
    first, second = made(ours, LOOP, glue), made(Llvmlite(), LOOP, glue)
    assert first == second
    assert first[0].startswith(b"\x7fELF") and ("zmm" in first[1] or "ymm" in first[1] or "xmm" in first[1])
    assert "weak_odr" not in first[2]


@pytest.mark.parametrize("which", ["ours", "theirs"])
def test_errors_are_llvms_words(which: str, ours: Any) -> None:
    if which == "ours" and not IS_KNOWN:
        pytest.skip("of another llvmlite, or elsewhere, llvmlite's own binding is used")
    llvm = ours if which == "ours" else Llvmlite()
    with pytest.raises(RuntimeError, match="expected top-level entity"):
        llvm.parse_assembly("nonsense", llvm.create_context())
    module = llvm.parse_assembly("define i32 @f() {\n  %x = add i32 %x, 1\n  ret i32 %x\n}", llvm.create_context())
    with pytest.raises(RuntimeError, match="Only PHI nodes may reference their own value"):
        module.verify()
    with pytest.raises(RuntimeError):
        llvm.Target.from_triple("nonsense-of-nobody")
    with pytest.raises(RuntimeError):
        llvm.load_library_permanently("/nowhere/at_all.so")


def test_a_library_that_lacks_a_function_is_left_to_llvmlite(monkeypatch: pytest.MonkeyPatch) -> None:
    for change in ({"NoSuchFunction": (None,)}, {}):
        monkeypatch.setattr(llvm, "_DECLARATIONS", {**llvm._DECLARATIONS, **change})
        assert isinstance(binding.__wrapped__(), Llvmlite) or not change
