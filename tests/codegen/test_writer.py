"""Our writer of LLVM assembly against llvmlite's: every instruction, written by both, is the same machine code."""

from __future__ import annotations

from typing import Any

import llvmlite.ir
import pytest

from funcgrad.codegen import writer
from funcgrad.codegen.basic import BASIC
from funcgrad.codegen.instruction import IMMEDIATE, Instruction, from_definition
from funcgrad.codegen.memory import MEMORY
from funcgrad.codegen.vecmath.expr import Body, Scalar, llvm_type
from funcgrad.codegen.vecmath.registry import DEFINITIONS
from funcgrad.runtime import target
from funcgrad.runtime.blocks import BLOCKS
from funcgrad.runtime.intrinsics import INTRINSICS

SCALARS = {k: from_definition(d) for k, d in {**BASIC, **DEFINITIONS}.items()}
INSTRUCTIONS = {**SCALARS, **MEMORY, **INTRINSICS, **BLOCKS}


def written(ir: Any, instructions: list[Instruction]) -> str:
    """A module with a function for each instruction, whose parameters are its operands."""
    module = ir.Module("m")
    for k, instruction in enumerate(instructions):
        kinds = [x for x in instruction.arguments if x is not IMMEDIATE]
        result = ir.VoidType() if instruction.result is None else llvm_type(ir, instruction.result)
        function = ir.Function(module, ir.FunctionType(result, [llvm_type(ir, x) for x in kinds]), f"f{k}")
        function.append_basic_block("entry")
        start = function.append_basic_block("start")
        body = Body(ir.IRBuilder(start))
        given = iter([Scalar(body, x, a) for x, a in zip(kinds, function.args, strict=True)])
        value = instruction.emit(body, *[4 if x is IMMEDIATE else next(given) for x in instruction.arguments])
        if instruction.result is None:
            body.builder.ret_void()
        else:
            assert value is not None
            body.builder.ret(value.value)
        body.builder.position_at_end(function.entry_basic_block)
        body.builder.branch(start)
    return str(module)


def machine_code(assembly: str) -> bytes:
    return target.emit(target.optimised(assembly, glue=True), glue=True)


@pytest.mark.parametrize("part", range(12))
def test_every_instruction_is_the_same_machine_code(part: int) -> None:
    chosen = [INSTRUCTIONS[name] for name in sorted(INSTRUCTIONS)[part::12]]
    assert len(chosen) > 20
    ours, theirs = written(writer, chosen), written(llvmlite.ir, chosen)
    assert "ModuleID" in theirs and "ModuleID" not in ours
    assert machine_code(ours) == machine_code(theirs)


def test_names_that_are_the_same_in_two_scopes_are_two() -> None:
    module = writer.Module("m")
    function = writer.Function(module, writer.FunctionType(writer.IntType(64), [writer.IntType(64)]), "f")
    builder = writer.IRBuilder(function.append_basic_block("x"))
    one = builder.add(function.args[0], writer.IntType(64)(1), name="x")
    two = builder.add(one, one, name="x")
    builder.ret(two)
    assert one.ref != two.ref
    assert len(machine_code(str(module))) > 100


@pytest.mark.parametrize("value", [0.1, -0.0, float("inf"), float("nan"), 1e-310, 3.4e38, 1e300])
@pytest.mark.parametrize("kind", ["FloatType", "DoubleType"])
def test_floats_are_written_as_llvmlite_writes_them(kind: str, value: float) -> None:
    if kind == "FloatType" and value == 1e300:
        value = 1.5
    ours = getattr(writer, kind)()(value).ref
    assert int(ours, 16) == int(llvmlite.ir.Constant(getattr(llvmlite.ir, kind)(), value).get_reference(), 16)


def test_what_llvmlite_can_and_we_cannot_is_said() -> None:
    with pytest.raises(NotImplementedError, match=r"give the type of llvm\.powi"):
        writer.Module("m").declare_intrinsic("llvm.powi", [writer.DoubleType()])
