"""Expressions over LLVM values, so that a scalar function reads like its mathematics.

A `Scalar` is one SSA value together with the function body (`Body`) that it lives in. Its operators append
instructions; Python numbers become typed constants of the other operand's type, so that one description serves
float32 and float64::

    def hypot_naive(x: Scalar, y: Scalar) -> Scalar:
        return sqrt(fma(x, x, y * y))

Nothing here branches: `select` takes both sides, which is what lets LLVM widen a loop around the function.
`x.bits()` and `i.as_float()` reinterpret, `x.to(kind)` converts. llvmlite is imported when the first body is built,
never at import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ...record import record

Number: TypeAlias = int | float
Operand: TypeAlias = "Scalar | int | float"


@record(frozen=True)
class Kind:
    """A scalar machine type: `f` float, `i` signed, `u` unsigned, `b` boolean, `c` complex, with its width in bits."""

    name: str
    code: str
    width: int

    @property
    def is_float(self) -> bool:
        return self.code == "f"

    @property
    def signed(self) -> bool:
        return self.code == "i"

    @property
    def integer(self) -> Kind:
        """The signed integer of the same width."""
        return KINDS[f"i{self.width}"]

    @property
    def part(self) -> Kind:
        """The float of which a complex number has two."""
        return KINDS[f"f{self.width // 2}"]


KINDS: dict[str, Kind] = {
    **{f"f{w}": Kind(f"f{w}", "f", w) for w in (32, 64)},
    **{f"{c}{w}": Kind(f"{c}{w}", c, w) for c in "iu" for w in (8, 16, 32, 64)},
    "b1": Kind("b1", "b", 1),
    **{f"c{w}": Kind(f"c{w}", "c", w) for w in (64, 128)},
}
F32, F64, I32, I64, U32, U64, B1 = (KINDS[k] for k in ("f32", "f64", "i32", "i64", "u32", "u64", "b1"))
COMPLEX = (KINDS["c64"], KINDS["c128"])


class Body:
    """The LLVM function under construction: its builder, module and the types and intrinsics already made."""

    def __init__(self, builder: Any) -> None:
        self.ir = _types_of(builder)
        self.builder = builder
        self.module = builder.module
        self._types: dict[str, Any] = {}

    def llvm_type(self, kind: Kind) -> Any:
        made = self._types.get(kind.name)
        if made is None:
            made = self._types[kind.name] = llvm_type(self.ir, kind)
        return made

    def constant(self, kind: Kind, value: Number) -> Scalar:
        if kind.is_float:
            number: Number = float(value)
        else:
            number = int(value)
            if kind.code != "b" and not -(1 << (kind.width - 1)) <= number < (1 << kind.width):
                raise ValueError(f"constant {value} does not fit {kind.name}")
        return Scalar(self, kind, self.ir.Constant(self.llvm_type(kind), number))

    def intrinsic(self, name: str, result: Kind, args: Sequence[Scalar]) -> Scalar:
        """A call of an LLVM intrinsic by its full name, for example `llvm.fma.f64`."""
        return self.call(self.declare(name, result, [a.kind for a in args]), result, args)

    def declare(self, name: str, result: Kind, args: Sequence[Kind]) -> Any:
        function = self.module.globals.get(name)
        if function is None:
            signature = self.ir.FunctionType(self.llvm_type(result), [self.llvm_type(a) for a in args])
            function = self.ir.Function(self.module, signature, name)
        return function

    def define(self, function: Any, emit: Callable[..., Scalar], kinds: Sequence[Kind]) -> None:
        """Give a declared function the body that `emit` makes of its arguments."""
        function.attributes.add("nounwind")
        function.attributes.add("readnone")
        inner = Body(self.ir.IRBuilder(function.append_basic_block("entry")))
        operands = [Scalar(inner, k, v) for k, v in zip(kinds, function.args, strict=True)]
        inner.builder.ret(emit(*operands).value)

    def call(self, function: Any, result: Kind, args: Sequence[Scalar]) -> Scalar:
        return Scalar(self, result, self.builder.call(function, [a.value for a in args]))


def _types_of(builder: Any) -> Any:
    """The module whose types go with a builder: our own (`codegen.writer`), which says so, or `llvmlite.ir`."""
    own = getattr(builder, "ir", None)
    if own is not None:
        return own
    import llvmlite.ir

    return llvmlite.ir


def llvm_type(ir: Any, kind: Kind) -> Any:
    """The type of a value of this kind; ``ir`` is `codegen.writer` or `llvmlite.ir`."""
    if kind.code == "c":
        return ir.LiteralStructType([llvm_type(ir, kind.part)] * 2)
    if kind.is_float:
        return ir.FloatType() if kind.width == 32 else ir.DoubleType()
    return ir.IntType(kind.width)


class Scalar:
    """One value in a body. Operators emit instructions; comparisons are ordered, so NaN compares false but `!=`."""

    __slots__ = ("body", "kind", "value")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, body: Body, kind: Kind, value: Any) -> None:
        self.body = body
        self.kind = kind
        self.value = value

    def like(self, other: Operand) -> Scalar:
        """`other` as a value of my kind: numbers become constants, a value must already have the kind."""
        if isinstance(other, Scalar):
            if other.kind.width != self.kind.width or other.kind.is_float != self.kind.is_float:
                raise TypeError(f"operands of kinds {self.kind.name} and {other.kind.name} do not mix")
            return other
        return self.body.constant(self.kind, other)

    def const(self, value: Number) -> Scalar:
        return self.body.constant(self.kind, value)

    def _emit(self, opcode: str, left: Scalar, right: Scalar) -> Scalar:
        return Scalar(self.body, self.kind, getattr(self.body.builder, opcode)(left.value, right.value))

    def _arith(self, other: Operand, float_op: str, int_op: str, swap: bool = False) -> Scalar:
        right = self.like(other)
        opcode = float_op if self.kind.is_float else int_op
        return self._emit(opcode, right, self) if swap else self._emit(opcode, self, right)

    def __add__(self, other: Operand) -> Scalar:
        return self._arith(other, "fadd", "add")

    __radd__ = __add__

    def __sub__(self, other: Operand) -> Scalar:
        return self._arith(other, "fsub", "sub")

    def __rsub__(self, other: Operand) -> Scalar:
        return self._arith(other, "fsub", "sub", swap=True)

    def __mul__(self, other: Operand) -> Scalar:
        return self._arith(other, "fmul", "mul")

    __rmul__ = __mul__

    def __truediv__(self, other: Operand) -> Scalar:
        return self._emit("fdiv", self, self.like(other))

    def __rtruediv__(self, other: Operand) -> Scalar:
        return self._emit("fdiv", self.like(other), self)

    def __neg__(self) -> Scalar:
        builder = self.body.builder
        return Scalar(self.body, self.kind, (builder.fneg if self.kind.is_float else builder.neg)(self.value))

    def __and__(self, other: Operand) -> Scalar:
        return self._emit("and_", self, self.like(other))

    def __or__(self, other: Operand) -> Scalar:
        return self._emit("or_", self, self.like(other))

    def __xor__(self, other: Operand) -> Scalar:
        return self._emit("xor", self, self.like(other))

    def __invert__(self) -> Scalar:
        return Scalar(self.body, self.kind, self.body.builder.not_(self.value))

    def __lshift__(self, other: Operand) -> Scalar:
        return self._emit("shl", self, self.like(other))

    def __rshift__(self, other: Operand) -> Scalar:
        """Arithmetic for signed kinds, logical for unsigned ones."""
        return self._emit("ashr" if self.kind.signed else "lshr", self, self.like(other))

    def shift_right_logical(self, other: Operand) -> Scalar:
        return self._emit("lshr", self, self.like(other))

    def divide_integer(self, other: Operand) -> Scalar:
        """Machine division towards zero: the caller excludes 0 and the overflowing quotient."""
        return self._emit("sdiv" if self.kind.signed else "udiv", self, self.like(other))

    def remainder_integer(self, other: Operand) -> Scalar:
        return self._emit("srem" if self.kind.signed else "urem", self, self.like(other))

    def compare(self, relation: str, other: Operand) -> Scalar:
        """`relation` is one of < <= == != >= >; ordered, but for `!=`, which holds for NaN."""
        builder, right = self.body.builder, self.like(other)
        if self.kind.is_float:
            compare = builder.fcmp_unordered if relation == "!=" else builder.fcmp_ordered
        else:
            compare = builder.icmp_signed if self.kind.signed else builder.icmp_unsigned
        return Scalar(self.body, B1, compare(relation, self.value, right.value))

    def __lt__(self, other: Operand) -> Scalar:
        return self.compare("<", other)

    def __le__(self, other: Operand) -> Scalar:
        return self.compare("<=", other)

    def __gt__(self, other: Operand) -> Scalar:
        return self.compare(">", other)

    def __ge__(self, other: Operand) -> Scalar:
        return self.compare(">=", other)

    def eq(self, other: Operand) -> Scalar:
        return self.compare("==", other)

    def ne(self, other: Operand) -> Scalar:
        """True for NaN against anything, as in IEEE 754."""
        return self.compare("!=", other)

    def bits(self) -> Scalar:
        """My bit pattern as a signed integer of the same width."""
        return self._cast("bitcast", self.kind.integer)

    def as_float(self) -> Scalar:
        """The float whose bit pattern I am."""
        return self._cast("bitcast", KINDS[f"f{self.kind.width}"])

    def as_unsigned(self) -> Scalar:
        return Scalar(self.body, KINDS[f"u{self.kind.width}"], self.value)

    def as_signed(self) -> Scalar:
        return Scalar(self.body, self.kind.integer, self.value)

    def to(self, kind: Kind) -> Scalar:
        """Numeric conversion; from float to integer the value must be in range."""
        opcode = _conversion(self.kind, kind)
        return Scalar(self.body, kind, self.value) if opcode is None else self._cast(opcode, kind)

    def _cast(self, opcode: str, kind: Kind) -> Scalar:
        made = getattr(self.body.builder, opcode)(self.value, self.body.llvm_type(kind))
        return Scalar(self.body, kind, made)


def _conversion(source: Kind, target: Kind) -> str | None:
    if source.is_float and target.is_float:
        return None if source.width == target.width else ("fpext" if source.width < target.width else "fptrunc")
    if source.is_float:
        return "fptosi" if target.signed else "fptoui"
    if target.is_float:
        return "sitofp" if source.signed else "uitofp"
    if source.width == target.width:
        return None
    if source.width > target.width:
        return "trunc"
    return "sext" if source.signed else "zext"


def select(condition: Scalar, yes: Operand, no: Operand) -> Scalar:
    """`yes` where the condition holds, else `no`; both are evaluated."""
    if isinstance(yes, Scalar):
        left, right = yes, yes.like(no)
    elif isinstance(no, Scalar):
        left, right = no.like(yes), no
    else:
        raise TypeError("select needs a value on one side at least; write x.const(number)")
    made = condition.body.builder.select(condition.value, left.value, right.value)
    return Scalar(condition.body, left.kind, made)


def _float_intrinsic(name: str, x: Scalar, *more: Operand) -> Scalar:
    return x.body.intrinsic(f"llvm.{name}.{x.kind.name}", x.kind, [x, *(x.like(m) for m in more)])


def fma(a: Scalar, b: Operand, c: Operand) -> Scalar:
    """`a * b + c` with one rounding. Error-free transformations rest on it."""
    return _float_intrinsic("fma", a, b, c)


def sqrt(x: Scalar) -> Scalar:
    return _float_intrinsic("sqrt", x)


def fabs(x: Scalar) -> Scalar:
    return _float_intrinsic("fabs", x)


def copysign(magnitude: Scalar, sign: Operand) -> Scalar:
    return _float_intrinsic("copysign", magnitude, sign)


def unary_intrinsic(name: str) -> Callable[[Scalar], Scalar]:
    """The function of one float that LLVM has under this name."""
    return lambda x: _float_intrinsic(name, x)


floor = unary_intrinsic("floor")
ceil = unary_intrinsic("ceil")
trunc = unary_intrinsic("trunc")
rint = unary_intrinsic("roundeven")


def horner(x: Scalar, coefficients: Sequence[float]) -> Scalar:
    """The polynomial with these coefficients, lowest degree first: its even and its odd part by fused steps in x**2.

    That is one multiplication more than one chain of fused steps, and half the latency. Loops do overlap elements,
    but no more of them than the processor's schedulers hold waiting instructions.
    """
    if len(coefficients) < 5:
        return chain(x, coefficients)
    square = x * x
    return fma(x, chain(square, coefficients[1::2]), chain(square, coefficients[::2]))


def chain(x: Scalar, coefficients: Sequence[float]) -> Scalar:
    """The same by one chain of fused steps: for few coefficients, or where x is not small and rounding adds up."""
    value: Operand = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        value = fma(x, value, c)
    return value if isinstance(value, Scalar) else x.const(value)


def divide(n: Scalar, n_tail: Operand, d: Scalar, d_tail: Operand) -> Scalar:
    """(n + n_tail) / (d + d_tail) almost correctly rounded, for the price of one division."""
    inverse = 1.0 / d
    q = n * inverse
    left = fma(-q, n.like(d_tail), fma(-q, d, n))
    return fma(left if isinstance(n_tail, float) and n_tail == 0.0 else left + n_tail, inverse, q)


def round_to_integer(x: Scalar, factor: float | None = None) -> tuple[Scalar, Scalar]:
    """(n, bits): x (times the factor) rounded to the nearest integer, as a float and as an integer pattern whose low
    bits hold n.

    Adding 1.5 * 2**(p-1) pushes the fraction out of the significand: two additions, no conversion instruction,
    valid for |x| < 2**(p-2). Only the low half of `bits` means anything.
    """
    magic = MAGIC[x.kind.width]
    shifted = x + magic if factor is None else fma(x, factor, magic)
    return shifted - magic, shifted.bits()


def small_integer_to_float(i: Scalar) -> Scalar:
    """A signed integer of float width with |i| < 2**(p-2), as a float, without a conversion instruction."""
    magic = i.body.constant(KINDS[f"f{i.kind.width}"], MAGIC[i.kind.width])
    return (i + magic.bits()).as_float() - magic


MAGIC = {32: 1.5 * 2.0**23, 64: 1.5 * 2.0**52}
