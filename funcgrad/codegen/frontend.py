"""From the text of a kernel to LLVM: a front end for the flat subset of Numba's Python that kernels are written in.

Numba compiles the same text (`numba_target`), and the tests hold the two equal. But its front end infers types,
which our texts carry already, and takes 60 to 100 ms for what is read off the syntax tree in two. The subset:

    def kernel(slots, ints, lo, hi):         # one function; arguments are of the kinds of its signature
        p0 = base(slots, ints, 0, 2)         # calls of instructions; immediates are integers in the text
        total = f64(0.0)                     # typed literals; plain ones are i64
        for i in range(lo, hi):              # range with a positive literal step
            if i < 10 and not done: ...      # also while, break, continue, return, conditional expressions
            total = total + load_f64(p0, i, 0)

Arithmetic operators take i64 (with Python's floor division) or two floats of a kind; comparisons give b1. A variable
has one kind. A variable that is assigned once, before and around all its uses, is an SSA value; the others live in
memory of the frame, which LLVM turns into registers, and are zero until they are assigned.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

from . import writer as ir
from .instruction import IMMEDIATE, Instruction
from .vecmath.expr import B1, I64, KINDS, Body, Kind, Scalar, llvm_type

__all__ = ["Function", "Signature", "lower", "lower_together", "parse_signature"]

Signature = tuple[Kind | None, tuple[Kind, ...]]
"""Kind of the result (None: nothing) and kinds of the arguments."""

Lookup = Callable[[str], Instruction | None]


class Function(NamedTuple):
    """What to lower: the function ``name`` of ``source``, under ``symbol`` in the object file."""

    source: str
    name: str
    signature: Signature
    symbol: str


_COMPARE = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
_FLOAT = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}
_INTEGER = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.BitAnd: "and_", ast.BitOr: "or_", ast.BitXor: "xor",
    ast.LShift: "shl", ast.RShift: "ashr",
}  # fmt: skip
_DIVISION = {ast.FloorDiv: "floor_divide_i64", ast.Mod: "remainder_i64"}
_NUMBERS = {"inf": float("inf"), "nan": float("nan")}


def parse_signature(text: str) -> Signature:
    """A signature in the notation ``"f64(f64, i64)"``; ``void`` returns nothing."""
    result, _, rest = text.partition("(")
    arguments = [a.strip() for a in rest.rstrip(")").split(",") if a.strip()]
    return (None if result == "void" else KINDS[result]), tuple([KINDS[a] for a in arguments])


def lower(source: str, name: str, signature: Signature, lookup: Lookup, symbol: str) -> str:
    """The LLVM assembly of a module whose one external function, ``symbol``, is the function ``name`` of ``source``.

    ``lookup`` finds instructions by name. Raises ValueError where the source defines no such function, SyntaxError
    for what is not in the subset.
    """
    return lower_together([Function(source, name, signature, symbol)], lookup)


def lower_together(functions: Sequence[Function], lookup: Lookup) -> str:
    """The LLVM assembly of one module with all these functions; they do not know each other."""
    module = ir.Module(functions[0].symbol)
    for function in functions:
        for node in _parse(function.source).body:
            if isinstance(node, ast.FunctionDef) and node.name == function.name:
                _Lowering(module, node, function.signature, lookup, function.symbol).run_through()
                break
        else:
            raise ValueError(f"the kernel source defines no function named {function.name!r}")
    return str(module)


def _parse(source: str) -> ast.Module:
    for _ in range(100):
        with suppress(SystemError):  # CPython 3.11 counts depth for all threads together, and trips over itself
            return ast.parse(source)
    return ast.parse(source)


class _Loop:
    """A loop that is being lowered: where ``continue`` and ``break`` lead, whether it has loops in it, and how many
    long chains of operations there are in its body."""

    __slots__ = ("chains", "end", "following", "outer")

    def __init__(self, following: Any, end: Any) -> None:
        self.following = following
        self.end = end
        self.outer = False
        self.chains = 0


class _Lowering:
    """Lowers one function. A statement method returns nothing, an expression method a ``Scalar``."""

    def __init__(self, module: Any, node: ast.FunctionDef, signature: Signature, lookup: Lookup, symbol: str) -> None:
        self.ir = ir
        self.node = node
        self.result, kinds = signature
        self.lookup = lookup
        names = [a.arg for a in node.args.args]
        uses = _Uses(names, node.body, lookup)
        module.operand_count = max(uses.operands, getattr(module, "operand_count", 0))
        types = [llvm_type(ir, k) for k in kinds]
        returned = ir.VoidType() if self.result is None else llvm_type(ir, self.result)
        function = ir.Function(module, ir.FunctionType(returned, types), symbol)
        function.attributes.add("nounwind")
        self.module = module
        self.entry = function.append_basic_block("entry")  # holds the places of variables, and leads to the start
        self.start = function.append_basic_block("start")
        self.body = Body(ir.IRBuilder(self.start))
        self.b = self.body.builder
        self.values: dict[str, Scalar] = {}
        self.places: dict[str, tuple[Kind, Any]] = {}
        self.loops: list[_Loop] = []
        self.fixed = uses.assigned_once()
        if len(names) != len(kinds):
            self.fail(node, f"{node.name} takes {len(names)} arguments, its signature {len(kinds)}")
        for arg, kind, value in zip(names, kinds, function.args, strict=True):
            self.assign(node, arg, Scalar(self.body, kind, value))

    def run_through(self) -> None:
        self.block(self.node.body)
        if not self.b.block.is_terminated:
            self.leave(None)
        self.b.position_at_end(self.entry)
        self.b.branch(self.start)

    def fail(self, node: ast.AST, message: str) -> NoReturn:
        line = getattr(node, "lineno", 0)
        raise SyntaxError(f"kernel {self.node.name}, line {line}: {message}: {ast.unparse(node)[:100]}")

    # -- variables

    def assign(self, node: ast.AST, name: str, value: Scalar) -> None:
        if name in self.fixed:
            self.values[name] = value
            return
        place = self.places.get(name)
        if place is None:
            with self.b.goto_block(self.entry):
                memory = self.b.alloca(value.value.type, name=name)
                self.b.store(self.ir.Constant(value.value.type, None), memory)
            place = self.places[name] = (value.kind, memory)
        if place[0] != value.kind:
            self.fail(node, f"{name} is {place[0].name} and cannot become {value.kind.name}")
        self.b.store(value.value, place[1])

    def read(self, node: ast.Name) -> Scalar:
        value = self.values.get(node.id)
        if value is not None:
            return value
        place = self.places.get(node.id)
        if place is None:
            self.fail(node, f"{node.id} has no value here")
        kind, memory = place
        return Scalar(self.body, kind, self.b.load(memory, typ=self.body.llvm_type(kind)))

    # -- statements

    def block(self, statements: Sequence[ast.stmt]) -> None:
        for s in statements:
            if self.b.block.is_terminated:
                return  # nothing leads here
            method = getattr(self, f"on_{type(s).__name__}", None)
            if method is None:
                self.fail(s, "this statement is not in the language of kernels")
            method(s)

    def on_Pass(self, s: ast.Pass) -> None:
        pass

    def on_Expr(self, s: ast.Expr) -> None:
        if isinstance(s.value, ast.Call):
            self.call(s.value)
        elif not isinstance(s.value, ast.Constant):  # a docstring is no code
            self.fail(s, "only a call can stand alone")

    def on_Assign(self, s: ast.Assign) -> None:
        (target,) = s.targets
        if not isinstance(target, ast.Name):
            self.fail(s, "only names can be assigned to")
        self.assign(s, target.id, self.expression(s.value))

    def on_AugAssign(self, s: ast.AugAssign) -> None:
        if not isinstance(s.target, ast.Name):
            self.fail(s, "only names can be assigned to")
        old = self.read(s.target)
        self.assign(s, s.target.id, self.binary(s, s.op, old, self.expression(s.value)))

    def on_Return(self, s: ast.Return) -> None:
        calls_nothing = s.value is not None and self.result is None
        if calls_nothing and isinstance(s.value, ast.Call):
            self.call(s.value)  # `return out_of_memory(slots)`
            self.leave(None)
        else:
            self.leave(None if s.value is None else self.expression(s.value))

    def leave(self, value: Scalar | None) -> None:
        if self.result is None:
            self.b.ret_void()
        elif value is None:
            self.b.ret(self.ir.Constant(self.body.llvm_type(self.result), None))
        else:
            self.b.ret(self.fit(self.node, value, self.result).value)

    def on_If(self, s: ast.If) -> None:
        then, after = self.new_block("then"), self.new_block("endif")
        otherwise = self.new_block("else") if s.orelse else after
        self.branch(s.test, then, otherwise)
        self.run(then, s.body, after)
        if s.orelse:
            self.run(otherwise, s.orelse, after)
        self.b.position_at_end(after)

    def on_While(self, s: ast.While) -> None:
        head, inside, after = self.new_block("while"), self.new_block("do"), self.new_block("endwhile")
        self.b.branch(head)
        self.b.position_at_end(head)
        if isinstance(s.test, ast.Constant) and s.test.value is True:
            self.b.branch(inside)
        else:
            self.branch(s.test, inside, after)
        self.enter(_Loop(head, after))
        self.run(inside, s.body, head)
        self.loops.pop()
        self.b.position_at_end(after)

    def on_For(self, s: ast.For) -> None:
        """A counted loop, in the form that LLVM's loop passes want: tested at its end, behind one test before it.

        LLVM works on one vector at a time where a body is long. Where that is a chain of operations, the processor
        waits for each of them, so several vectors are asked for: pow takes 0.7 of the time with four.
        """
        start, stop, step = self.range_of(s)
        assert isinstance(s.target, ast.Name)
        before, inside = self.b.block, self.new_block("for")
        latch, after = self.new_block("next"), self.new_block("endfor")
        self.b.cbranch(self.b.icmp_signed("<", start, stop), inside, after)
        self.b.position_at_end(inside)
        index = self.b.phi(start.type, name=s.target.id)
        index.add_incoming(start, before)
        self.assign(s, s.target.id, Scalar(self.body, I64, index))
        loop = _Loop(latch, after)
        self.enter(loop)
        self.block(s.body)
        self.loops.pop()
        if not self.b.block.is_terminated:
            self.b.branch(latch)
        self.b.position_at_end(latch)
        following = self.b.add(index, start.type(step), flags=("nsw",))
        index.add_incoming(following, latch)
        back = self.b.cbranch(self.b.icmp_signed("<", following, stop), inside, after)
        if loop.chains and not loop.outer and not isinstance(stop, self.ir.Constant):
            count = self.ir.IntType(32)(4 if loop.chains == 1 else 2)
            back.set_metadata("llvm.loop", self.module.add_loop("llvm.loop.interleave.count", count))
        self.b.position_at_end(after)

    def enter(self, loop: _Loop) -> None:
        for around in self.loops:
            around.outer = True
        self.loops.append(loop)

    def range_of(self, s: ast.For) -> tuple[Any, Any, int]:
        call = s.iter
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range"):
            self.fail(s, "loops run over range(...)")
        if s.orelse or not isinstance(s.target, ast.Name):
            self.fail(s, "this form of a loop is not in the language of kernels")
        bounds = [self.fit(s, self.expression(a), I64).value for a in call.args[:2]]
        start = bounds[0] if len(bounds) == 2 else self.ir.IntType(64)(0)
        step = self.integer(call.args[2]) if len(call.args) == 3 else 1
        if step < 1:
            self.fail(s, "the step of a loop is a positive integer")
        return start, bounds[-1], step

    def on_Break(self, s: ast.Break) -> None:
        self.b.branch(self.loops[-1].end)

    def on_Continue(self, s: ast.Continue) -> None:
        self.b.branch(self.loops[-1].following)

    def new_block(self, name: str) -> Any:
        return self.b.append_basic_block(name)

    def run(self, block: Any, statements: Sequence[ast.stmt], after: Any) -> None:
        self.b.position_at_end(block)
        self.block(statements)
        if not self.b.block.is_terminated:
            self.b.branch(after)

    # -- conditions

    def branch(self, test: ast.expr, yes: Any, no: Any) -> None:
        """Branch on a condition; ``and``, ``or`` and ``not`` need no values."""
        if isinstance(test, ast.BoolOp):
            for operand in test.values[:-1]:
                more = self.new_block("more")
                if isinstance(test.op, ast.And):
                    self.branch(operand, more, no)
                else:
                    self.branch(operand, yes, more)
                self.b.position_at_end(more)
            self.branch(test.values[-1], yes, no)
        elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self.branch(test.operand, no, yes)
        else:
            self.b.cbranch(self.truth(test).value, yes, no)

    def truth(self, node: ast.expr) -> Scalar:
        value = self.expression(node)
        return value if value.kind == B1 else value.ne(0)

    def joined(self, node: ast.expr, test: ast.expr, yes: ast.expr | bool, no: ast.expr | bool) -> Scalar:
        """The value of one of two expressions, of which only that one is computed."""
        blocks = [self.new_block("yes"), self.new_block("no")]
        after = self.new_block("joined")
        self.branch(test, *blocks)
        arms = []
        for block, arm in zip(blocks, (yes, no), strict=True):
            self.b.position_at_end(block)
            value = self.body.constant(B1, arm) if isinstance(arm, bool) else self.expression(arm)
            arms.append((value, self.b.block))
            self.b.branch(after)
        self.b.position_at_end(after)
        kind = arms[0][0].kind
        merged = self.b.phi(self.body.llvm_type(kind))
        for value, block in arms:
            if value.kind != kind:
                self.fail(node, f"{kind.name} and {value.kind.name} do not mix")
            merged.add_incoming(value.value, block)
        return Scalar(self.body, kind, merged)

    # -- expressions

    def expression(self, node: ast.expr) -> Scalar:
        if isinstance(node, ast.Name):
            return self.read(node)
        if isinstance(node, ast.Call):
            value = self.call(node)
            if value is None:
                self.fail(node, "this call has no value")
            return value
        if isinstance(node, ast.Constant):
            return self.constant(node)
        if isinstance(node, ast.BinOp):
            return self.binary(node, node.op, self.expression(node.left), self.expression(node.right))
        if isinstance(node, ast.UnaryOp):
            return self.unary(node)
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return self.compare(node)
        if isinstance(node, ast.BoolOp):
            return self.joined(node, node, True, False)
        if isinstance(node, ast.IfExp):
            return self.joined(node, node.test, node.body, node.orelse)
        self.fail(node, "this expression is not in the language of kernels")

    def constant(self, node: ast.Constant) -> Scalar:
        if isinstance(node.value, bool):
            return self.body.constant(B1, node.value)
        if isinstance(node.value, int):
            return self.body.constant(I64, node.value)
        self.fail(node, "numbers other than integers are typed, like f64(0.5)")

    def binary(self, node: ast.AST, op: ast.operator, x: Scalar, y: Scalar) -> Scalar:
        if x.kind != y.kind:
            self.fail(node, f"{x.kind.name} and {y.kind.name} do not mix")
        if x.kind.is_float and type(op) in _FLOAT:
            flags = ("contract",) if type(op) is ast.Mult else ()  # with a sum that asks for it: `fold_add`
            return Scalar(self.body, x.kind, getattr(self.b, _FLOAT[type(op)])(x.value, y.value, flags=flags))
        if x.kind == I64 and type(op) in _INTEGER:
            return Scalar(self.body, I64, getattr(self.b, _INTEGER[type(op)])(x.value, y.value))
        if x.kind == I64 and type(op) in _DIVISION:
            return self.named(node, _DIVISION[type(op)], [x, y])
        self.fail(node, f"{x.kind.name} has no such operator")

    def unary(self, node: ast.UnaryOp) -> Scalar:
        if isinstance(node.op, ast.Not):
            return ~self.truth(node.operand)
        x = self.expression(node.operand)
        if isinstance(node.op, ast.USub) and (x.kind.is_float or x.kind == I64):
            return -x
        if isinstance(node.op, ast.Invert) and x.kind == I64:
            return ~x
        self.fail(node, f"{x.kind.name} has no such operator")

    def compare(self, node: ast.Compare) -> Scalar:
        x, y = self.expression(node.left), self.expression(node.comparators[0])
        relation = _COMPARE.get(type(node.ops[0]))
        if relation is None or x.kind != y.kind:
            self.fail(node, f"{x.kind.name} and {y.kind.name} cannot be compared so")
        return x.compare(relation, y)

    # -- calls

    def call(self, node: ast.Call) -> Scalar | None:
        if not isinstance(node.func, ast.Name) or node.keywords:
            self.fail(node, "only plain calls are in the language of kernels")
        name = node.func.id
        if name in KINDS:
            return self.literal(node, KINDS[name])
        if name in ("min", "max"):
            return self.named(node, f"{name}_i64", [self.expression(a) for a in node.args])
        instruction = self.lookup(name)
        if instruction is None:
            self.fail(node, f"there is no instruction named {name}")
        if len(node.args) != len(instruction.arguments):
            self.fail(node, f"{name} takes {len(instruction.arguments)} operands, not {len(node.args)}")
        operands: list[Any] = [
            self.integer(a) if kind is IMMEDIATE else self.fit(a, self.expression(a), kind)
            for a, kind in zip(node.args, instruction.arguments, strict=True)
        ]
        return self.emitted(instruction, operands)

    def named(self, node: ast.AST, name: str, operands: list[Scalar]) -> Scalar:
        instruction = self.lookup(name)
        assert instruction is not None and len(operands) == len(instruction.arguments), name
        fitted = [self.fit(node, x, k) for x, k in zip(operands, instruction.arguments, strict=True) if k]
        result = self.emitted(instruction, fitted)
        assert result is not None
        return result

    def emitted(self, instruction: Instruction, operands: Sequence[Any]) -> Scalar | None:
        if instruction.chain and self.loops:
            self.loops[-1].chains += 1
        value = instruction.emit(self.body, *operands)
        if value is None or instruction.result is None:
            return None
        return Scalar(self.body, instruction.result, value.value)  # signed or unsigned as declared

    def literal(self, node: ast.Call, kind: Kind) -> Scalar:
        (argument,) = node.args
        sign, number = 1, argument
        if isinstance(argument, ast.UnaryOp) and isinstance(argument.op, ast.USub):
            sign, number = -1, argument.operand
        if isinstance(number, ast.Constant) and isinstance(number.value, int | float):
            return self.body.constant(kind, sign * number.value)
        if isinstance(number, ast.Name) and number.id in _NUMBERS and kind.is_float:
            return self.body.constant(kind, sign * _NUMBERS[number.id])
        self.fail(node, "a literal is a number in the text; to convert, call an instruction")

    def integer(self, node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        self.fail(node, "here an integer must stand in the text")

    def fit(self, node: ast.AST, x: Scalar, kind: Kind | None) -> Scalar:
        """``x`` as an operand of this kind: an integer may change its sign, nothing else."""
        assert kind is not None
        if x.kind == kind:
            return x
        if x.kind.width == kind.width and x.kind.code in "iu" and kind.code in "iu":
            return Scalar(self.body, kind, x.value)
        self.fail(node, f"{kind.name} is wanted, this is {x.kind.name}")


# which variables are values -------------------------------------------------------------------------------------


class _Uses:
    """A walk in the order of the text; ``scope`` is the chain of blocks around the current statement.

    It also counts how many operands the loads and stores number.
    """

    def __init__(self, arguments: Sequence[str], statements: Sequence[ast.stmt], lookup: Lookup) -> None:
        self.lookup = lookup
        self.count: dict[str, int] = {}
        self.home: dict[str, tuple[int, ...]] = {}
        self.escaped: set[str] = set()
        self.scope: tuple[int, ...] = ()
        self.blocks = 0
        self.operands = 0
        for name in arguments:
            self.define(name)
        self.walk(statements)

    def assigned_once(self) -> set[str]:
        """The variables that are assigned in one place which comes before, and encloses, all their uses."""
        return {name for name, count in self.count.items() if count == 1 and name not in self.escaped}

    def define(self, name: str) -> None:
        self.count[name] = self.count.get(name, 0) + 1
        self.home[name] = self.scope

    def use(self, node: ast.AST | None) -> None:
        """What an expression uses. The forms that texts are full of come first: the general way is slow."""
        if isinstance(node, ast.Name):
            home = self.home.get(node.id)
            if home is None or self.scope[: len(home)] != home:
                self.escaped.add(node.id)
        elif isinstance(node, ast.BinOp):
            self.use(node.left)
            self.use(node.right)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            for argument in node.args:
                if not isinstance(argument, ast.Constant):
                    self.use(argument)
            self.number(node.func.id, node.args)
        elif node is not None:
            for child in ast.iter_child_nodes(node):
                self.use(child)

    def number(self, name: str, arguments: Sequence[ast.expr]) -> None:
        instruction = self.lookup(name)
        if instruction is not None and instruction.operand is not None and instruction.operand < len(arguments):
            number = arguments[instruction.operand]
            if isinstance(number, ast.Constant) and isinstance(number.value, int):
                self.operands = max(self.operands, number.value + 1)

    def walk(self, statements: Sequence[ast.stmt], names: Sequence[str] = ()) -> None:
        """The statements of a block of their own, at whose head ``names`` are defined."""
        outer, self.scope = self.scope, (*self.scope, self.blocks)
        self.blocks += 1
        for name in names:
            self.define(name)
        for s in statements:
            if isinstance(s, ast.Assign):
                self.use(s.value)
                for target in s.targets:
                    if isinstance(target, ast.Name):
                        self.define(target.id)
            elif isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name):
                self.use(s.value)
                self.define(s.target.id)
                self.escaped.add(s.target.id)
            elif isinstance(s, ast.For):
                self.use(s.iter)
                self.walk(s.body, [s.target.id] if isinstance(s.target, ast.Name) else [])
            elif isinstance(s, ast.If | ast.While):
                self.use(s.test)
                self.walk(s.body)
                self.walk(s.orelse)
            else:
                self.use(s)
        self.scope = outer
