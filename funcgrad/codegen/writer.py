"""LLVM assembly, written while it is built: the part of `llvmlite.ir` that instructions use, at a third of its price.

`llvmlite.ir` keeps a graph of objects and formats it at the end, each name and type many times over; that was half of
what lowering a kernel cost. Here an instruction is a line of text from the start, and a value is a type and what to
call it. Classes and methods have llvmlite's names and arguments, because the same instructions also write into Numba's
modules (see `numba_target`): `Body` takes this module or llvmlite's, as its builder has it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from .llvm_text import (
    Alloca,
    Argument,
    ArrayType,
    Block,
    Branch,
    Constant,
    DoubleType,
    FloatType,
    Function,
    FunctionType,
    GlobalVariable,
    HalfType,
    Instruction,
    IntType,
    LiteralStructType,
    Module,
    Phi,
    PointerType,
    Type,
    Undefined,
    Value,
    VectorType,
    VoidType,
)

__all__ = [
    "Alloca",
    "Argument",
    "ArrayType",
    "Block",
    "Branch",
    "Constant",
    "DoubleType",
    "FloatType",
    "Function",
    "FunctionType",
    "GlobalVariable",
    "HalfType",
    "IRBuilder",
    "Instruction",
    "IntType",
    "LiteralStructType",
    "Module",
    "Phi",
    "PointerType",
    "Type",
    "Undefined",
    "Value",
    "VectorType",
    "VoidType",
]

_SIGNED: Final = {"<": "slt", "<=": "sle", ">": "sgt", ">=": "sge", "==": "eq", "!=": "ne"}
_UNSIGNED: Final = {"<": "ult", "<=": "ule", ">": "ugt", ">=": "uge", "==": "eq", "!=": "ne"}
_ORDERED: Final = {"<": "olt", "<=": "ole", ">": "ogt", ">=": "oge", "==": "oeq", "!=": "one"}
_UNORDERED: Final = {"<": "ult", "<=": "ule", ">": "ugt", ">=": "uge", "==": "ueq", "!=": "une"}


class IRBuilder:
    """Appends instructions at the end of a block."""

    ir = sys.modules[__name__]
    """Where a `Body` finds types and constants that go with this builder."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.function = block.function
        self.module = block.function.module

    # -- where

    def position_at_end(self, block: Block) -> None:
        self.block = block

    def append_basic_block(self, name: str = "") -> Block:
        return self.function.append_basic_block(name)

    @contextlib.contextmanager
    def goto_block(self, block: Block) -> Iterator[None]:
        """Within, write at the end of this block, which has no terminator yet."""
        before, self.block = self.block, block
        try:
            yield
        finally:
            self.block = before

    def goto_entry_block(self) -> contextlib.AbstractContextManager[None]:
        return self.goto_block(self.function.entry_basic_block)

    # -- lines

    def _value(self, kind: Type, text: str, name: str = "") -> Instruction:
        function = self.function
        function.count += 1
        ref = f"%{name}.{function.count}"
        made = Instruction(kind, ref, f"{ref} = {text}")
        self.block.lines.append(made)
        return made

    def _effect(self, text: str) -> Instruction:
        made = Instruction(VoidType(), "", text)
        self.block.lines.append(made)
        return made

    def _end(self, text: str) -> Branch:
        made = Branch(VoidType(), "", text)
        made.module = self.module
        self.block.lines.append(made)
        self.block.is_terminated = True
        return made

    # -- arithmetic (binary operations and conversions are added below the class)

    def neg(self, x: Value) -> Instruction:
        return self._value(x.type, f"sub {x.type.text} 0, {x.ref}")

    def not_(self, x: Value) -> Instruction:
        return self._value(x.type, f"xor {x.type.text} {x.ref}, -1")

    def fneg(self, x: Value) -> Instruction:
        return self._value(x.type, f"fneg {x.type.text} {x.ref}")

    def _compare(self, opcode: str, x: Value, y: Value) -> Instruction:
        return self._value(_truth(x.type), f"{opcode} {x.type.text} {x.ref}, {y.ref}")

    def icmp_signed(self, relation: str, x: Value, y: Value) -> Instruction:
        return self._compare(f"icmp {_SIGNED[relation]}", x, y)

    def icmp_unsigned(self, relation: str, x: Value, y: Value) -> Instruction:
        return self._compare(f"icmp {_UNSIGNED[relation]}", x, y)

    def fcmp_ordered(self, relation: str, x: Value, y: Value) -> Instruction:
        return self._compare(f"fcmp {_ORDERED[relation]}", x, y)

    def fcmp_unordered(self, relation: str, x: Value, y: Value) -> Instruction:
        return self._compare(f"fcmp {_UNORDERED[relation]}", x, y)

    def select(self, condition: Value, yes: Value, no: Value) -> Instruction:
        return self._value(yes.type, f"select {condition}, {yes}, {no}")

    def ctlz(self, x: Value, undefined_at_zero: Value) -> Instruction:
        kind = FunctionType(x.type, [x.type, IntType(1)])
        return self.call(self.module.declare_intrinsic("llvm.ctlz", [x.type], kind), [x, undefined_at_zero])

    # -- memory

    def alloca(self, kind: Type, size: Value | None = None, name: str = "") -> Alloca:
        self.function.count += 1
        ref = f"%{name}.{self.function.count}"
        made = Alloca(PointerType(kind), ref, f"{ref} = alloca {kind.text}" + ("" if size is None else f", {size}"))
        self.block.lines.append(made)
        return made

    def load(self, pointer: Value, name: str = "", align: int | None = None, typ: Type | None = None) -> Instruction:
        kind = typ or pointer.type.pointee
        assert kind is not None, "load: a pointer that does not say to what needs typ"
        return self._value(kind, f"load {kind.text}, ptr {pointer.ref}{_alignment(align)}", name)

    def store(self, value: Value, pointer: Value, align: int | None = None) -> Instruction:
        return self._effect(f"store {value.type.text} {value.ref}, ptr {pointer.ref}{_alignment(align)}")

    def load_atomic(self, pointer: Value, ordering: str, align: int) -> Instruction:
        kind = pointer.type.pointee
        assert kind is not None
        return self._value(kind, f"load atomic {kind.text}, ptr {pointer.ref} {ordering}, align {align}")

    def store_atomic(self, value: Value, pointer: Value, ordering: str, align: int) -> Instruction:
        return self._effect(f"store atomic {value}, ptr {pointer.ref} {ordering}, align {align}")

    def atomic_rmw(self, operation: str, pointer: Value, value: Value, ordering: str) -> Instruction:
        return self._value(value.type, f"atomicrmw {operation} ptr {pointer.ref}, {value} {ordering}")

    def cmpxchg(self, pointer: Value, old: Value, new: Value, ordering: str, failordering: str) -> Instruction:
        kind = LiteralStructType([old.type, IntType(1)])
        return self._value(kind, f"cmpxchg ptr {pointer.ref}, {old}, {new} {ordering} {failordering}")

    def gep(
        self, pointer: Value, indices: Sequence[Value], inbounds: bool = False, source_etype: Type | None = None
    ) -> Instruction:
        kind = source_etype or pointer.type.pointee
        assert kind is not None, "gep: a pointer that does not say to what needs source_etype"
        places = ", ".join([str(i) for i in indices])
        opcode = "getelementptr inbounds" if inbounds else "getelementptr"
        return self._value(PointerType(), f"{opcode} {kind.text}, ptr {pointer.ref}, {places}")

    # -- aggregates

    def extract_value(self, aggregate: Value, index: int) -> Instruction:
        return self._value(aggregate.type.elements[index], f"extractvalue {aggregate}, {index}")

    def insert_value(self, aggregate: Value, value: Value, index: int) -> Instruction:
        return self._value(aggregate.type, f"insertvalue {aggregate}, {value}, {index}")

    def extract_element(self, vector: Value, index: Value) -> Instruction:
        return self._value(vector.type.elements[0], f"extractelement {vector}, {index}")

    def insert_element(self, vector: Value, value: Value, index: Value) -> Instruction:
        return self._value(vector.type, f"insertelement {vector}, {value}, {index}")

    def shuffle_vector(self, x: Value, y: Value, mask: Value) -> Instruction:
        kind = VectorType(x.type.elements[0], len(mask.type.elements))
        return self._value(kind, f"shufflevector {x}, {y}, {mask}")

    # -- control

    @contextlib.contextmanager
    def if_then(self, condition: Value) -> Iterator[Block]:
        """Within, write what runs where the condition holds."""
        inside, after = self.append_basic_block("if"), self.append_basic_block("endif")
        self.cbranch(condition, inside, after)
        self.position_at_end(inside)
        yield after
        if not self.block.is_terminated:
            self.branch(after)
        self.position_at_end(after)

    def phi(self, kind: Type, name: str = "") -> Phi:
        self.function.count += 1
        made = Phi(kind, f"%{name}.{self.function.count}")
        self.block.lines.append(made)
        return made

    def call(self, function: Value, arguments: Sequence[Value], fastmath: Sequence[str] = ()) -> Instruction:
        kind = function.type.pointee
        assert kind is not None and kind.result is not None, "call: a pointer that is not to a function"
        given = ", ".join([f"{a.type.text} {a.ref}" for a in arguments])
        opcode = " ".join(["call", *fastmath])
        text = f"{opcode} {kind.result.text} {function.ref}({given})"
        return self._effect(text) if kind.result.text == "void" else self._value(kind.result, text)

    def branch(self, target: Block) -> Branch:
        return self._end(f"br label %{target.name}")

    def cbranch(self, condition: Value, yes: Block, no: Block) -> Branch:
        return self._end(f"br i1 {condition.ref}, label %{yes.name}, label %{no.name}")

    def ret(self, value: Value) -> Branch:
        return self._end(f"ret {value}")

    def ret_void(self) -> Branch:
        return self._end("ret void")


def _alignment(align: int | None) -> str:
    return "" if align is None else f", align {align}"


def _truth(kind: Type) -> Type:
    return VectorType(IntType(1), len(kind.elements)) if kind.elements else IntType(1)


def _binary(opcode: str) -> Any:
    def method(self: IRBuilder, x: Value, y: Value, name: str = "", flags: Sequence[str] = ()) -> Instruction:
        kind = x.type
        words = " ".join([opcode, *flags]) if flags else opcode
        return self._value(kind, f"{words} {kind.text} {x.ref}, {y.ref}", name)

    return method


def _conversion(opcode: str) -> Any:
    def method(self: IRBuilder, x: Value, kind: Type) -> Value:
        if x.type.text == kind.text and kind.pointee is None:
            return x
        return self._value(kind, f"{opcode} {x.type.text} {x.ref} to {kind.text}")

    return method


_BINARY: Final = "add sub mul sdiv udiv srem urem shl lshr ashr and or xor fadd fsub fmul fdiv frem"
_CONVERSIONS: Final = "trunc zext sext fpext fptrunc fptosi fptoui sitofp uitofp bitcast inttoptr ptrtoint"
for _name in _BINARY.split():
    setattr(IRBuilder, _name + "_" * (_name in ("and", "or")), _binary(_name))
for _name in _CONVERSIONS.split():
    setattr(IRBuilder, _name, _conversion(_name))
