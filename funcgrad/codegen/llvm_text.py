"""What LLVM assembly is made of, by its text: types, values, instructions, functions and modules (see `writer`)."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

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

Undefined: Final = object()
"""As a constant: any value will do."""


# types ----------------------------------------------------------------------------------------------------------


class Type:
    """A type by its text. ``elements`` are those of an aggregate, ``pointee`` what a pointer was made for."""

    __slots__ = ("args", "elements", "pointee", "result", "text", "width")

    def __init__(self, text: str, width: int = 0) -> None:
        self.text = text
        self.width = width
        self.elements: Sequence[Type] = ()
        self.pointee: Type | None = None
        self.result: Type | None = None
        self.args: Sequence[Type] = ()

    def __call__(self, value: Any) -> Constant:
        return Constant(self, value)

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Type) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def as_pointer(self) -> Type:
        return PointerType(self)

    @property
    def intrinsic_name(self) -> str:
        """In the name of an intrinsic."""
        return {"ptr": "p0", "double": "f64", "float": "f32", "half": "f16"}.get(self.text, self.text)


@cache
def IntType(width: int) -> Type:
    return Type(f"i{width}", width)


@cache
def HalfType() -> Type:
    return Type("half", 16)


@cache
def FloatType() -> Type:
    return Type("float", 32)


@cache
def DoubleType() -> Type:
    return Type("double", 64)


@cache
def VoidType() -> Type:
    return Type("void")


@cache
def PointerType(pointee: Type | None = None) -> Type:
    made = Type("ptr")
    made.pointee = pointee
    return made


def VectorType(element: Type, count: int) -> Type:
    made = Type(f"<{count} x {element.text}>")
    made.elements = [element] * count
    return made


def ArrayType(element: Type, count: int) -> Type:
    made = Type(f"[{count} x {element.text}]")
    made.elements = [element] * count
    return made


def LiteralStructType(elements: Sequence[Type]) -> Type:
    made = Type("{" + ", ".join([e.text for e in elements]) + "}")
    made.elements = list(elements)
    return made


def FunctionType(result: Type, args: Sequence[Type]) -> Type:
    made = Type(f"{result.text} ({', '.join([a.text for a in args])})")
    made.result, made.args = result, list(args)
    return made


# values ---------------------------------------------------------------------------------------------------------


class Value:
    """A type and a reference."""

    __slots__ = ("ref", "type")

    def __init__(self, kind: Type, ref: str) -> None:
        self.type = kind
        self.ref = ref

    def __str__(self) -> str:
        return f"{self.type.text} {self.ref}"


class Constant(Value):
    """A number, None for zero, `Undefined`, bytes, or the constants that make up a vector or an array."""

    __slots__ = ("constant",)

    def __init__(self, kind: Type, value: Any) -> None:
        self.type = kind
        self.constant = value
        self.ref = _constant_text(kind, value)


def _constant_text(kind: Type, value: Any) -> str:
    if value is None:
        return "zeroinitializer"
    if value is Undefined:
        return "undef"
    if kind.text in ("double", "float", "half"):
        return _float_text(kind.text, float(value))
    if isinstance(value, bytes | bytearray):
        return 'c"' + "".join([f"\\{byte:02x}" for byte in value]) + '"'
    if isinstance(value, list | tuple):
        opening, closing = kind.text[0], {"<": ">", "[": "]", "{": "}"}[kind.text[0]]
        return opening + ", ".join([str(v) for v in value]) + closing
    return str(int(value))


def _float_text(kind: str, value: float) -> str:
    """A float by the bits of the double that it equals: decimal text would be rounded."""
    if kind != "double":
        code = "f" if kind == "float" else "e"
        with contextlib.suppress(OverflowError):
            (value,) = struct.unpack(code, struct.pack(code, value))
    return f"0x{struct.unpack('Q', struct.pack('d', value))[0]:016x}"


class Argument(Value):
    """A parameter of a function."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return self.ref


class Instruction(Value):
    """A line, and the value that it makes."""

    __slots__ = ("line",)

    def __init__(self, kind: Type, ref: str, line: str) -> None:
        self.type = kind
        self.ref = ref
        self.line = line

    def set_metadata(self, name: str, node: Metadata) -> None:
        self.line += f", !{name} {node.ref}"


class Branch(Instruction):
    __slots__ = ("module",)

    module: Module

    def set_weights(self, weights: Sequence[int]) -> None:
        """How often it goes which way."""
        counts = [Constant(IntType(32), w) for w in weights]
        self.set_metadata("prof", self.module.add_metadata(["branch_weights", *counts]))


class Alloca(Instruction):
    """Memory of the frame; ``align`` may be set."""

    __slots__ = ()

    @property
    def align(self) -> int:
        raise AttributeError("the alignment of an alloca can only be set")

    @align.setter
    def align(self, value: int) -> None:
        self.line += f", align {value}"


class Phi(Instruction):
    __slots__ = ("incoming",)

    def __init__(self, kind: Type, ref: str) -> None:
        self.type = kind
        self.ref = ref
        self.incoming: list[str] = []

    def add_incoming(self, value: Value, block: Block) -> None:
        self.incoming.append(f"[{value.ref}, %{block.name}]")

    @property
    def line(self) -> str:  # type: ignore[override]
        return f"{self.ref} = phi {self.type.text} {', '.join(self.incoming)}"


class Metadata:
    __slots__ = ("ref",)

    def __init__(self, ref: str) -> None:
        self.ref = ref


class Block:
    __slots__ = ("function", "is_terminated", "lines", "name")

    def __init__(self, function: Function, name: str) -> None:
        self.function = function
        self.name = name
        self.lines: list[Instruction] = []
        self.is_terminated = False


# globals --------------------------------------------------------------------------------------------------------


class Module:
    """Functions, constants and metadata, and their text (``str``)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.globals: dict[str, Any] = {}
        self._metadata: dict[str, Metadata] = {}

    def add_metadata(self, parts: Sequence[Any]) -> Metadata:
        """A node of strings, constants and other nodes; equal ones are one."""
        shown = [f'!"{p}"' if isinstance(p, str) else p.ref if isinstance(p, Metadata) else str(p) for p in parts]
        text = ", ".join(shown)
        node = self._metadata.get(text)
        if node is None:
            node = self._metadata[text] = Metadata(f"!{len(self._metadata)}")
        return node

    def add_loop(self, *hint: Any) -> Metadata:
        """A node of one loop, with what is asked of LLVM's passes for it."""
        asked = self.add_metadata(hint)
        node = Metadata(f"!{len(self._metadata)}")
        self._metadata[f"{node.ref}, {asked.ref}"] = node  # by its own number it is no other loop's
        return node

    def declare_intrinsic(self, name: str, types: Sequence[Type] = (), fnty: Type | None = None) -> Any:
        """An intrinsic of a type that is given, or ``llvm.memmove``."""
        full = ".".join([name, *[t.intrinsic_name for t in types]])
        found = self.globals.get(full)
        if found is not None:
            return found
        if fnty is None:
            if name != "llvm.memmove":
                raise NotImplementedError(f"declare_intrinsic: give the type of {name}")
            fnty = FunctionType(VoidType(), [*types, IntType(1)])
        return Function(self, fnty, full)

    def __str__(self) -> str:
        lines: list[str] = []
        for item in self.globals.values():
            item.write(lines)
        lines += [f"{node.ref} = !{{ {text} }}" for text, node in self._metadata.items()]
        return "\n".join(lines) + "\n"


class GlobalVariable(Value):
    """Data of the module."""

    __slots__ = ("content_type", "global_constant", "initializer", "linkage")

    def __init__(self, module: Module, kind: Type, name: str) -> None:
        super().__init__(PointerType(), f"@{name}")
        self.content_type = kind
        self.initializer: Constant | None = None
        self.global_constant = False
        self.linkage = ""
        module.globals[name] = self

    def write(self, lines: list[str]) -> None:
        kind = "constant" if self.global_constant else "global"
        content = self.content_type.text if self.initializer is None else str(self.initializer)
        lines.append(f"{self.ref} = {self.linkage or 'external'} {kind} {content}")


class Function(Value):
    """Declared, or defined where it has blocks."""

    __slots__ = ("args", "attributes", "blocks", "count", "ftype", "linkage", "module", "name")

    def __init__(self, module: Module, kind: Type, name: str) -> None:
        super().__init__(PointerType(kind), f"@{name}")
        self.module = module
        self.ftype = kind
        self.name = name
        self.linkage = ""
        self.attributes: set[str] = set()
        self.blocks: list[Block] = []
        self.args = [Argument(a, f"%a{k}") for k, a in enumerate(kind.args)]
        self.count = 0
        module.globals[name] = self

    @property
    def entry_basic_block(self) -> Block:
        return self.blocks[0]

    def append_basic_block(self, name: str = "") -> Block:
        self.count += 1
        block = Block(self, f"{name}.{self.count}")
        self.blocks.append(block)
        return block

    def write(self, lines: list[str]) -> None:
        attributes = " ".join(sorted(self.attributes))
        result = self.ftype.result
        if not self.blocks:
            args = ", ".join([a.text for a in self.ftype.args])
            lines.append(f"declare {result} {self.ref}({args}) {attributes}")
            return
        args = ", ".join([str(a) for a in self.args])
        lines.append(f"define {self.linkage} {result} {self.ref}({args}) {attributes} {{")
        for block in self.blocks:
            lines.append(block.name + ":")
            lines += [x.line for x in block.lines]
        lines.append("}")
