"""The front end of kernels against Numba, which compiles the same texts, and the errors of its language."""

from __future__ import annotations

import ctypes
import re
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.codegen.frontend import lower, parse_signature
from funcgrad.codegen.vocabulary import find_instruction
from funcgrad.core.avals import aval_of
from funcgrad.runtime.compile import compile_native
from tests.kernels.programs import FUSED, WHOLE

PROGRAMS = {k: v[:2] for k, v in {**WHOLE, **FUSED}.items() if k != "batched product"}  # that one is BLAS's alone


@pytest.mark.parametrize("name", PROGRAMS)
def test_numba_compiles_the_same_kernels_to_the_same_results(name: str) -> None:
    f, args = PROGRAMS[name]
    lowered = fg.jit(f).trace(*args).lower()
    ours, numbas = lowered.compile(), lowered.compile(compiler="numba")
    assert ours.as_text() == numbas.as_text() and numbas.executable.kernels
    assert not {k.address for k in ours.executable.kernels} & {k.address for k in numbas.executable.kernels}
    for x, y in zip(fg.tree.leaves(numbas(*args)), fg.tree.leaves(ours(*args)), strict=True):
        assert aval_of(x) == aval_of(y)
        # LLVM may regroup a sum, and so may give another last bit
        np.testing.assert_allclose(x, y, rtol=1e-13 if np.asarray(x).dtype.itemsize >= 8 else 1e-5, atol=1e-300)


def test_an_unknown_compiler_is_an_error() -> None:
    with pytest.raises(ValueError, match="compiler must be one of 'llvm', 'numba', not 'gcc'"):
        fg.jit(np.sin).trace(1.0).lower().compile(compiler="gcc")


def call(source: str, signature: str, *args: Any) -> Any:
    types = {"i64": ctypes.c_int64, "f64": ctypes.c_double, "b1": ctypes.c_bool}
    result, kinds = parse_signature(signature)
    function = compile_native(source, signature, "f")
    prototype = ctypes.CFUNCTYPE(types[result.name] if result else None, *[types[k.name] for k in kinds])
    return prototype(function.address)(*args)


def as_python(source: str) -> Any:
    """The same text as Python runs it, with instructions for 64-bit numbers."""
    scope: dict[str, Any] = {
        "i64": int, "f64": float, "inf": float("inf"), "sqrt_f64": np.sqrt, "lt_f64": lambda x, y: x < y,
        "select_i64": lambda c, x, y: x if c else y,
    }  # fmt: skip
    exec(source, scope)
    return scope["f"]


CONTROL = {
    "while": """
def f(n):
    k = 0
    while n > 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        k += 1
    return k
""",
    "break and continue": """
def f(n):
    s = 0
    for i in range(n):
        if i % 3 == 0:
            continue
        if i > 20:
            break
        s = s + i
    return s
""",
    "forever": """
def f(n):
    while True:
        n = n - 7
        if n < 0:
            return n
""",
    "for with bounds and step": """
def f(n):
    s = 0
    for i in range(-5, n, 3):
        s = (s * 2 + i) & 0xFFFF
    return s
""",
    "nested loops": """
def f(n):
    s = 0
    for i in range(n):
        t = 0
        for j in range(i, n):
            t = t + i * j
        s = s ^ t
    return s
""",
    "and, or, not": """
def f(n):
    if (n > 3 and n < 10) or not (n != 50) or n == -1:
        return 1
    elif n >= 100:
        return 2
    return 0
""",
    "and as a value": """
def f(n):
    c = n > 3 and (n < 10 or n == 50)
    return select_i64(c, 7, n)
""",
    "a chain of ifs": """
def f(n):
    x = 1
    if n > 0:
        x = 2
        if n > 5:
            x = 3
    return x
""",
    "bits": """
def f(n):
    return (n << 3) ^ (n >> 1) | (n & 12) - ~n
""",
    "min and max": """
def f(n):
    return max(min(n, 10), -3) * 2 - -n
""",
    "floats": """
def f(n):
    x = f64(0.5)
    for i in range(n):
        x = x * f64(1.5) - f64(0.25)
    return select_i64(lt_f64(x, f64(inf)), n, -1)
""",
    "the loop's variable afterwards": """
def f(n):
    i = -1
    for i in range(n):
        if i == 13:
            break
    return i
""",
}


@pytest.mark.parametrize("name", CONTROL)
def test_control_flow_is_python_s(name: str) -> None:
    source = CONTROL[name]
    reference = as_python(source)
    for n in (-8, -1, 0, 1, 2, 5, 9, 27, 50, 51, 100, 1001):
        if name in ("while", "nested loops") and not 0 < n < 60:
            continue
        assert call(source, "i64(i64)", n) == reference(n), n


def test_division_is_python_s_and_never_traps() -> None:
    for op in ("//", "%"):
        source = f"def f(x, y):\n    return x {op} y"
        for x in (-7, 7, 0, -(2**63)):
            for y in (-3, 3, 1, -5):
                assert call(source, "i64(i64, i64)", x, y) == eval(f"{x} {op} {y}")
        assert call(source, "i64(i64, i64)", 5, 0) == 0
        call(source, "i64(i64, i64)", -(2**63), -1)


ERRORS = {
    "x = 1.5": "numbers other than integers are typed",
    "x = f64(1.0) + f32(1.0)": "f64 and f32 do not mix",
    "x = n + f64(1.0)": "i64 and f64 do not mix",
    "x = f64(n)": "a literal is a number in the text",
    "x = y": "y has no value here",
    "x = nothing(n)": "there is no instruction named nothing",
    "x = sqrt_f64(n)": "f64 is wanted, this is i64",
    "x = sqrt_f64(f64(1.0), f64(2.0))": "takes 1 operands, not 2",
    "x = load_f64(n, n, n)": "an integer must stand in the text",
    "x = 0\n    x = f64(0.0)\n    x = x": "x is i64 and cannot become f64",
    "x, y = n, n": "only names can be assigned to",
    "n[0] = 1": "only names can be assigned to",
    "with n:\n        pass": "not in the language of kernels",
    "for i in n:\n        pass": r"loops run over range",
    "for i in range(n, 0, -1):\n        pass": "an integer must stand in the text",
    "for i in range(n, 9, 0):\n        pass": "the step of a loop",
    "x = [n]": "not in the language of kernels",
    "n + 1": "only a call can stand alone",
    "x = f64(2.0) % f64(1.0)": "f64 has no such operator",
    "x = release(n)": "this call has no value",
    "x = n < f64(1.0)": "cannot be compared so",
}


@pytest.mark.parametrize("line", ERRORS)
def test_what_is_not_in_the_language_is_an_error(line: str) -> None:
    with pytest.raises(SyntaxError, match=ERRORS[line]) as caught:
        lower(f"def f(n):\n    {line}\n    return n\n", "f", parse_signature("i64(i64)"), find_instruction, "f")
    assert "kernel f, line" in str(caught.value)


def test_a_signature_must_fit() -> None:
    with pytest.raises(SyntaxError, match="takes 1 arguments, its signature 2"):
        lower("def f(n):\n    return n\n", "f", parse_signature("i64(i64, i64)"), find_instruction, "f")


SIDE_BY_SIDE = {
    "one chain": ("s = s + exp_f64(i_f64(i))", [4]),
    "two chains": ("s = s + exp_f64(i_f64(i)) * tan_f64(i_f64(i))", [2]),
    "no chain": ("s = s + i_f64(i) * f64(2.0)", []),
    "a loop around": ("for j in range(i, n):\n            s = s + exp_f64(i_f64(j))", [4]),
    "a fixed length": ("for j in range(8):\n            s = s + exp_f64(i_f64(j))", []),
    "until": ("while s < f64(1.0):\n            s = s + exp_f64(i_f64(i))", []),
}


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_long_chains_are_worked_on_side_by_side(name: str) -> None:
    line, counts = SIDE_BY_SIDE[name]
    line = line.replace("i_f64", "i64_to_f64")
    source = f"def f(n):\n    s = f64(0.0)\n    for i in range(n):\n        {line}\n    return s\n"
    text = lower(source, "f", parse_signature("f64(i64)"), find_instruction, "f")
    loops = dict(re.findall(r"(?m)^(!\d+) = !\{ (!\d+, !\d+) \}$", text))
    hints = dict(re.findall(r'(?m)^(!\d+) = !\{ !"llvm.loop.interleave.count", i32 (\d) \}$', text))
    asked = re.findall(r"br i1 .*!llvm.loop (!\d+)", text)
    assert [int(hints[loops[loop].split(", ")[1]]) for loop in asked] == counts
    assert all(loops[loop].split(", ")[0] == loop for loop in asked)  # its own node
