"""Small loops as one kernel, with everything that they carry in registers.

A loop whose values have a few elements each would spend its time on calls and memory if it ran kernel by kernel. Here
it is written out element by element, from the jaxprs of its body and condition:

    def kernel(slots, ints, lo, hi):            # iterations lo..hi
        ...
        c0 = load_f64(s0, 0, 0)                 # what is carried; from the operand, or the last slice's result
        for t in range(lo, hi):
            x0 = load_f64(x_0, 0, 2)            # this iteration's slices
            v1 = c0 * x0
            store_f64(y_0, 0, 3, v1)
            c0 = v1
        store_f64(q0, 0, 0, c0)

Whoever calls the kernel does so in slices of iterations, and can look after other things between them. The text holds
small extents, and neither the number of iterations nor unusual constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np

from ..core import lowering as L
from ..core.avals import ShapedArray
from ..core.jaxpr import ClosedJaxpr, Eqn, Jaxpr, Literal, Var
from ..record import record
from .nest import indent
from .register_rules import ON_MEMORY, RULES, left, variables
from .register_values import MOST_ELEMENTS, Buffer, Elements, Memory, Unsupported
from .scalar import Writer, literal, scalar_expression, suffix

__all__ = ["RegisterLoop", "register_loop"]

MOST_LINES: Final = 6000
_TEXT_NUMBERS: Final = (0, 1, -1, 2, 0.5)


@record(frozen=True)
class RegisterLoop:
    """A loop as one kernel. ``operands`` numbers the memory that it touches: ``k`` is operand ``k`` of the loop,
    ``-1 - k`` its result ``k``; behind them comes, if it has a condition, the word that becomes 1 once that fails. The
    table of integers holds for each of these its slot, then for each its byte offset, then for each its step from
    iteration to iteration, then the bits of ``constants``."""

    source: str
    operands: tuple[int, ...]
    constants: tuple[np.generic, ...]
    has_condition: bool


def register_loop(eqn: Eqn) -> RegisterLoop | None:
    """``scan`` or ``while`` as one kernel, if its values are small and all of its operations have a scalar form."""
    p = eqn.params
    programs = [p["jaxpr"]] if "jaxpr" in p else [p["body_jaxpr"], p["cond_jaxpr"]]
    if any([x.consts for x in programs]):
        return _made(eqn)
    body, *others = [x.jaxpr for x in programs]
    counts = tuple([p.get(name) for name in ("n_consts", "n_carry", "cond_nconsts", "body_nconsts")])
    operands = tuple([a.aval for a in eqn.invars[: (p["n_consts"] + p["n_carry"]) if "jaxpr" in p else None]])
    known = _loops.setdefault(body, {})
    key = (*others, counts, operands)
    if key not in known:
        known[key] = _made(eqn)
    return known[key]


_loops: WeakKeyDictionary[Jaxpr, dict[Any, RegisterLoop | None]] = WeakKeyDictionary()
"""The text does not depend on the number of steps, in which equal bodies may differ (see ``core.intern``)."""


def _made(eqn: Eqn) -> RegisterLoop | None:
    try:
        return _Loop(eqn).text()
    except Unsupported:
        return None


class RegisterWriter:
    """Equations on registers: each variable of a jaxpr is a tuple of names, one for each element."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.env: dict[Var, Any] = {}
        self.constants: dict[tuple[str, bytes], int] = {}
        self.values: list[np.generic] = []
        self.count = 0
        self.total = 0

    # -- names and lines

    def line(self, text: str) -> None:
        self.lines.append(text)
        self.total += 1
        if self.total > MOST_LINES:
            raise Unsupported

    def fresh(self, prefix: str = "v") -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def let(self, text: str) -> str:
        if text.isidentifier():
            return text
        name = self.fresh()
        self.line(f"{name} = {text}")
        return name

    def within(self, emit: Callable[[], None]) -> list[str]:
        """The lines that ``emit`` writes, taken out."""
        outer, self.lines = self.lines, []
        emit()
        inner, self.lines = self.lines, outer
        return inner

    def constant(self, value: Any, dtype: np.dtype[Any]) -> str:
        number = np.asarray(value).astype(dtype)[()]
        if dtype.kind == "b" or (
            dtype.kind != "c" and any(number == x for x in _TEXT_NUMBERS) and str(number) != "-0.0"
        ):
            return literal(number, dtype)
        key = (dtype.str, number.tobytes())
        if key not in self.constants:
            self.constants[key] = len(self.values)
            self.values.append(number)  # type: ignore[arg-type]
        return f"k{self.constants[key]}"

    def small(self, aval: ShapedArray) -> None:
        if aval.size > MOST_ELEMENTS:
            raise Unsupported

    def read(self, atom: Any) -> Any:
        if isinstance(atom, Literal):
            return (self.constant(atom.value, atom.aval.dtype),) * atom.aval.size
        return self.env[atom]

    def scalar(self, fn: str, args: Sequence[str], sources: Sequence[Any], dtype: Any, params: Any = ()) -> str:
        if dtype.kind == "c" or any(d.kind == "c" for d in sources):
            raise Unsupported
        w = Writer(self.fresh("w"))
        text = scalar_expression(w, fn, args, sources, dtype, params)
        if text is None:
            raise Unsupported
        for each in w.lines:
            self.line(each)
        return self.let(text)

    # -- programs

    def run(self, jaxpr: Jaxpr, inputs: Sequence[Any], consts: Sequence[Any] = ()) -> list[Any]:
        for v, x in zip(jaxpr.constvars, consts, strict=True):
            self.small(v.aval)
            self.env[v] = tuple([self.constant(e, v.aval.dtype) for e in np.asarray(x).ravel()])
        self.env.update(zip(jaxpr.invars, inputs, strict=True))
        for eqn in jaxpr.eqns:
            rule = RULES.get(type(eqn.primitive.lower))
            if rule is None:
                raise Unsupported
            args = [self.read(a) for a in eqn.invars]
            if type(eqn.primitive.lower) not in ON_MEMORY:
                for v in eqn.outvars:
                    self.small(v.aval)
                if any([type(x) is Memory for x in args]):
                    raise Unsupported
            outs = rule(self, eqn, eqn.primitive.lower, args)
            for v, x in zip(eqn.outvars, outs, strict=True):
                if not isinstance(x, Memory):
                    self.small(v.aval)
            self.env.update(zip(eqn.outvars, outs, strict=True))
        return [self.read(a) for a in jaxpr.outvars]

    def carry(self, names: Sequence[Any], values: Sequence[Any]) -> None:
        """Give carried variables their next values, all at once. Memory must have been updated in place."""
        pairs = []
        for ns, xs in zip(names, values, strict=True):
            if type(ns) is Memory:
                if type(xs) is not Memory or xs.check() is not ns.buffer:
                    raise Unsupported
            elif type(xs) is Memory:
                raise Unsupported
            else:
                pairs += [(n, x) for n, x in zip(ns, xs, strict=True) if n != x]
        targets = {n for n, _ in pairs}
        held = [(n, self.held(x) if x in targets else x) for n, x in pairs]
        for n, x in held:
            self.line(f"{n} = {x}")

    def held(self, name: str) -> str:
        kept = self.fresh("h")
        self.line(f"{kept} = {name}")
        return kept


# the loop itself --------------------------------------------------------------------------------------------------


class _Loop:
    """The kernel of one loop: what it carries, and the memory that it reads and writes.

    ``operands`` numbers that memory: ``k`` is operand ``k`` of the loop, ``-1 - k`` its result ``k``. Loads and stores
    of one number may touch the same memory, of two numbers never: so what a carried value begins as, which may be the
    result itself, is loaded under the result's number.
    """

    def __init__(self, eqn: Eqn) -> None:
        self.w = RegisterWriter()
        self.eqn = eqn
        self.operands: list[int] = []
        self.moving: set[int] = set()

    def text(self) -> RegisterLoop:
        eqn, w, p = self.eqn, self.w, self.eqn.params
        is_while = isinstance(eqn.primitive.lower, L.While)
        body: ClosedJaxpr = p["body_jaxpr"] if is_while else p["jaxpr"]
        n_consts = p["cond_nconsts"] + p["body_nconsts"] if is_while else p["n_consts"]
        n_carry = len(body.out_avals) if is_while else p["n_carry"]
        consts = [self._constant(k) for k in range(n_consts)]
        carry = [self._begin(n_consts + k, k) for k in range(n_carry)]
        if is_while:
            loop = w.within(lambda: self._repeat(body, consts, carry))
        else:
            loop = w.within(lambda: self._step(body, consts, carry))
        loop = ["for t in range(lo, hi):", *indent(loop or ["pass"], 1)]
        stores = w.within(lambda: self._end(carry))
        lines = [*self._header(is_while), *w.lines, *loop, *stores]
        source = "\n".join(["def kernel(slots, ints, lo, hi):", *indent(lines, 1)]) + "\n"
        return RegisterLoop(source, tuple(self.operands), tuple(w.values), is_while)

    def _number(self, operand: int) -> int:
        self.operands.append(operand)
        return len(self.operands) - 1

    def _header(self, is_while: bool) -> list[str]:
        n = len(self.operands) + is_while
        lines = [f"p{j} = base(slots, ints, {j}, {n + j})" for j in range(len(self.operands))]
        if is_while:
            lines.append(f"flag = base(slots, ints, {n - 1}, {2 * n - 1})")
        lines += [f"s{j} = integer(ints, {2 * n + j})" for j in sorted(self.moving)]
        return lines + [f"k{i} = const_{suffix(x.dtype)}(ints, {3 * n + i})" for i, x in enumerate(self.w.values)]

    def _constant(self, operand: int) -> Any:
        number = self._number(operand)
        aval = self.eqn.invars[operand].aval
        if aval.size > MOST_ELEMENTS:
            return self._memory(f"p{number}", number, aval, False)
        return self._loaded(f"p{number}", number, aval)

    def _memory(self, pointer: str, number: int, aval: ShapedArray, writable: bool) -> Memory:
        if aval.dtype.kind == "c":
            raise Unsupported
        buffer = Buffer(pointer, number, aval, writable)
        return Memory(buffer, buffer.version)

    def _loaded(self, pointer: str, number: int, aval: ShapedArray) -> Elements:
        self.w.small(aval)
        if aval.dtype.kind == "c":
            raise Unsupported
        names = [self.w.fresh() for _ in range(aval.size)]
        for k, name in enumerate(names):
            self.w.line(f"{name} = load_{suffix(aval.dtype)}({pointer}, {k}, {number})")
        return tuple(names)

    def _put(self, pointer: str, number: int, dtype: Any, values: Elements) -> None:
        for k, x in enumerate(values):
            self.w.line(f"store_{suffix(dtype)}({pointer}, {k}, {number}, {x})")

    def _begin(self, operand: int, result: int) -> Any:
        """The variables of a carried value: from the operand at first, then from where the last slice left it.

        A large one is copied into the result's memory at first, and updated there.
        """
        first, then = self._number(operand), self._number(-1 - result)
        aval = self.eqn.invars[operand].aval
        if aval.size > MOST_ELEMENTS:
            memory = self._memory(f"p{then}", then, aval, True)
            kind, size = suffix(aval.dtype), self.w.constant(np.int64(aval.size), np.dtype(np.int64))
            self.w.line("if lo == 0:")
            self.w.line(f"    for i in range({size}):")
            self.w.line(f"        store_{kind}(p{then}, i, {then}, load_{kind}(p{first}, i, {then}))")
            return memory
        pointer = self.w.fresh("c")
        self.w.line(f"{pointer} = p{first} if lo == 0 else p{then}")
        return variables(self.w, [self._loaded(pointer, then, self.eqn.invars[operand].aval)])[0]

    def _end(self, carry: Sequence[Any]) -> None:
        for k, values in enumerate(carry):
            if type(values) is Memory:
                continue
            number = self.operands.index(-1 - k)
            self._put(f"p{number}", number, self.eqn.outvars[k].aval.dtype, values)

    def _slice(self, operand: int) -> tuple[str, int]:
        """The pointer to this iteration's part of an operand or a result, and its number."""
        j = self._number(operand)
        self.moving.add(j)
        pointer = self.w.fresh("x")
        self.w.line(f"{pointer} = p{j} + t * s{j}")
        return pointer, j

    def _step(self, body: ClosedJaxpr, consts: Sequence[Any], carry: list[Any]) -> None:
        first = len(consts) + len(carry)
        inputs = [*consts, *carry]
        for k, v in enumerate(body.jaxpr.invars[first:], first):
            inputs.append(self._loaded(*self._slice(k), v.aval))
        outs = self.w.run(body.jaxpr, inputs, body.consts)
        left(carry, consts)
        for k, values in enumerate(outs[len(carry) :], len(carry)):
            if type(values) is Memory:
                raise Unsupported
            self._put(*self._slice(-1 - k), body.out_avals[k].dtype, values)
        self.w.carry(carry, outs[: len(carry)])

    def _repeat(self, body: ClosedJaxpr, consts: Sequence[Any], carry: list[Any]) -> None:
        condition, n = self.eqn.params["cond_jaxpr"], self.eqn.params["cond_nconsts"]
        ((going,),) = self.w.run(condition.jaxpr, [*consts[:n], *carry], condition.consts)
        self.w.line(f"if not {going}:")
        self.w.line(f"    store_i64(flag, 0, {len(self.operands)}, i64(1))")
        self.w.line("    break")
        self.w.carry(carry, self.w.run(body.jaxpr, [*consts[n:], *carry], body.consts))
        left(carry, consts)
