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
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..core import lowering as L
from ..core.avals import ShapedArray
from ..core.jaxpr import ClosedJaxpr, Eqn, Jaxpr, Literal, Var
from ..core.layout import Layout
from ..core.staging import stage
from ..kernels.graph import kept_params
from ..kernels.rules import BOOL_MONOIDS, identity_of
from ..util import prod
from .nest import indent
from .scalar import Writer, literal, scalar_expression, suffix

__all__ = ["RegisterLoop", "register_loop"]

MOST_ELEMENTS: Final = 16
"""Of a value that lies in registers."""
MOST_LINES: Final = 400
_UNROLLED_SCAN: Final = 8
_TEXT_NUMBERS: Final = (0, 1, -1, 2, 0.5)

Elements = tuple[str, ...]


class _Unsupported(Exception):
    """The loop must run kernel by kernel."""


@dataclass(frozen=True)
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
    try:
        return _Loop(eqn).text()
    except _Unsupported:
        return None


def _index(layout: Layout) -> list[int]:
    """The positions of a layout's elements, in row-major order."""
    places = np.full(layout.shape, layout.offset)
    for axis, (n, stride) in enumerate(zip(layout.shape, layout.strides, strict=True)):
        shape = [1] * len(layout.shape)
        shape[axis] = n
        places = places + (np.arange(n) * stride).reshape(shape)
    return [int(k) for k in places.ravel()]


class _Writer:
    """Equations on registers: each variable of a jaxpr is a tuple of names, one for each element."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.env: dict[Var, Elements] = {}
        self.constants: dict[tuple[str, bytes], int] = {}
        self.values: list[np.generic] = []
        self.count = 0
        self.total = 0

    # -- names and lines

    def line(self, text: str) -> None:
        self.lines.append(text)
        self.total += 1
        if self.total > MOST_LINES:
            raise _Unsupported

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
            raise _Unsupported

    def read(self, atom: Any) -> Elements:
        if isinstance(atom, Literal):
            return (self.constant(atom.value, atom.aval.dtype),) * atom.aval.size
        return self.env[atom]

    def scalar(self, fn: str, args: Sequence[str], sources: Sequence[Any], dtype: Any, params: Any = ()) -> str:
        if dtype.kind == "c" or any(d.kind == "c" for d in sources):
            raise _Unsupported
        w = Writer(self.fresh("w"))
        text = scalar_expression(w, fn, args, sources, dtype, params)
        if text is None:
            raise _Unsupported
        for each in w.lines:
            self.line(each)
        return self.let(text)

    # -- programs

    def run(self, jaxpr: Jaxpr, inputs: Sequence[Elements], consts: Sequence[Any] = ()) -> list[Elements]:
        for v, x in zip(jaxpr.constvars, consts, strict=True):
            self.small(v.aval)
            self.env[v] = tuple([self.constant(e, v.aval.dtype) for e in np.asarray(x).ravel()])
        self.env.update(zip(jaxpr.invars, inputs, strict=True))
        for eqn in jaxpr.eqns:
            rule = _RULES.get(type(eqn.primitive.lower))
            if rule is None:
                raise _Unsupported
            for v in eqn.outvars:
                self.small(v.aval)
            outs = rule(self, eqn, eqn.primitive.lower, [self.read(a) for a in eqn.invars])
            self.env.update(zip(eqn.outvars, outs, strict=True))
        return [self.read(a) for a in jaxpr.outvars]

    def carry(self, names: Sequence[Elements], values: Sequence[Elements]) -> None:
        """Give carried variables their next values, all at once."""
        pairs = [(n, x) for ns, xs in zip(names, values, strict=True) for n, x in zip(ns, xs, strict=True) if n != x]
        targets = {n for n, _ in pairs}
        held = [(n, self.held(x) if x in targets else x) for n, x in pairs]
        for n, x in held:
            self.line(f"{n} = {x}")

    def held(self, name: str) -> str:
        kept = self.fresh("h")
        self.line(f"{kept} = {name}")
        return kept


# one rule for each lowering ---------------------------------------------------------------------------------------


def _scalar(w: _Writer, eqn: Eqn, lower: L.Scalar, args: list[Elements]) -> list[Elements]:
    aval = eqn.outvars[0].aval
    sources = [a.aval.dtype for a in eqn.invars]
    params = kept_params(lower.fn, eqn.params)
    places = [
        _index(Layout.contiguous(a.aval.shape).broadcast(aval.shape, _trailing(a.aval, aval))) for a in eqn.invars
    ]
    return [
        tuple([
            w.scalar(lower.fn, [x[p[e]] for x, p in zip(args, places, strict=True)], sources, aval.dtype, params)
            for e in range(aval.size)
        ])
    ]  # fmt: skip


def _trailing(own: ShapedArray, whole: ShapedArray) -> range:
    return range(whole.ndim - own.ndim, whole.ndim)


def _view(w: _Writer, eqn: Eqn, lower: L.View, args: list[Elements]) -> list[Elements]:
    layout = lower.rule(Layout.contiguous(eqn.invars[0].aval.shape), **eqn.params)
    if layout is None:
        raise _Unsupported
    return [tuple([args[0][k] for k in _index(layout)])]


def _generate(w: _Writer, eqn: Eqn, lower: L.Generate, args: list[Elements]) -> list[Elements]:
    aval = eqn.outvars[0].aval
    numbers = np.indices(aval.shape)[eqn.params["dimension"]].ravel()
    return [tuple([literal(aval.dtype.type(n), aval.dtype) for n in numbers])]


def _chain(w: _Writer, monoid: str, dtype: Any, elements: Sequence[str]) -> str:
    total = None
    for x in elements:
        total = x if total is None else w.scalar(monoid, [total, x], [dtype, dtype], dtype)
    return literal(identity_of(monoid, dtype), dtype) if total is None else total


def _monoid(name: str, dtype: Any) -> str:
    return BOOL_MONOIDS.get(name, name) if dtype.kind == "b" else name


def _reduce(w: _Writer, eqn: Eqn, lower: L.Reduce, args: list[Elements]) -> list[Elements]:
    aval, axes = eqn.invars[0].aval, eqn.params["axes"]
    kept = [a for a in range(aval.ndim) if a not in axes]
    order = np.arange(aval.size).reshape(aval.shape).transpose([*kept, *axes])
    rows = order.reshape(prod([aval.shape[a] for a in kept]), -1)
    return [
        tuple([_chain(w, _monoid(lower.monoid, aval.dtype), aval.dtype, [args[0][k] for k in row]) for row in rows])
    ]


def _arg_reduce(w: _Writer, eqn: Eqn, lower: L.ArgReduce, args: list[Elements]) -> list[Elements]:
    """The index of the first extreme element along an axis; the first NaN wins."""
    aval, axis, out = eqn.invars[0].aval, eqn.params["axis"], eqn.outvars[0].aval
    if aval.dtype.kind == "c" or not aval.size:
        raise _Unsupported
    kind = "f32" if aval.dtype == np.float16 else suffix(aval.dtype)
    word = "more" if lower.extreme == "max" else "less"
    found = []
    for row in np.moveaxis(np.arange(aval.size).reshape(aval.shape), axis, -1).reshape(-1, aval.shape[axis]):
        best, index = args[0][row[0]], "i64(0)"
        for number, k in enumerate(row[1:], 1):
            better = w.let(f"{word}_{kind}({args[0][k]}, {best})")
            best = w.let(f"select_{kind}({better}, {args[0][k]}, {best})")
            index = w.let(f"select_i64({better}, i64({number}), {index})")
        found.append(w.scalar("convert", [index], [np.dtype(np.int64)], out.dtype))
    return [tuple(found)]


def _cumulate(w: _Writer, eqn: Eqn, lower: L.Cumulate, args: list[Elements]) -> list[Elements]:
    aval, axis = eqn.outvars[0].aval, eqn.params["axis"]
    found: dict[int, str] = {}
    rows = np.moveaxis(np.arange(aval.size).reshape(aval.shape), axis, -1).reshape(-1, max(aval.shape[axis], 1))
    for row in rows if aval.size else ():
        total = None
        for k in reversed(row) if eqn.params.get("reverse", False) else row:
            x = args[0][k]
            total = (
                x
                if total is None
                else w.scalar(_monoid(lower.monoid, aval.dtype), [total, x], [aval.dtype] * 2, aval.dtype)
            )
            found[int(k)] = total
    return [tuple([found[k] for k in range(aval.size)])]


def _assemble(w: _Writer, eqn: Eqn, lower: L.Assemble, args: list[Elements]) -> list[Elements]:
    found: dict[int, str] = {}
    for piece in lower.rule(*[a.aval for a in eqn.invars], **eqn.params):
        for source, target in zip(_index(piece.source), _index(piece.target), strict=True):
            found[target] = args[piece.operand][source]
    return [tuple([found[k] for k in range(eqn.outvars[0].aval.size)])]


def _contract(w: _Writer, eqn: Eqn, lower: L.Contract, args: list[Elements]) -> list[Elements]:
    (xc, yc), (xb, yb) = eqn.params["dimension_numbers"]
    x, y = (a.aval for a in eqn.invars)
    dtype = eqn.outvars[0].aval.dtype
    if x.dtype != dtype or y.dtype != dtype or dtype.kind == "b":
        raise _Unsupported
    xf = [a for a in range(x.ndim) if a not in xc and a not in xb]
    yf = [a for a in range(y.ndim) if a not in yc and a not in yb]
    inner = prod([x.shape[a] for a in xc])
    batch = prod([x.shape[a] for a in xb])
    left = np.arange(x.size).reshape(x.shape).transpose([*xb, *xf, *xc]).reshape(batch, -1, inner)
    right = np.arange(y.size).reshape(y.shape).transpose([*yb, *yf, *yc]).reshape(batch, -1, inner)
    out = []
    for b in range(batch):
        for row in left[b]:
            for column in right[b]:
                pairs = [(args[0][i], args[1][j]) for i, j in zip(row, column, strict=True)]
                products = [w.scalar("mul", p, [dtype, dtype], dtype) for p in pairs]
                out.append(_chain(w, "add", dtype, products))
    return [tuple(out)]


def _moving_axis(full: Sequence[int], window: Sequence[int]) -> int | None:
    """The one axis along which a window can move; None where there is none."""
    axes = [a for a, (n, m) in enumerate(zip(full, window, strict=True)) if n != m]
    if len(axes) > 1:
        raise _Unsupported
    return axes[0] if axes else None


def _start(w: _Writer, eqn: Eqn, first: int, axis: int, limit: int, args: list[Elements]) -> str:
    """The start of a window, clamped."""
    (start,), dtype = args[first + axis], eqn.invars[first + axis].aval.dtype
    start = w.scalar("convert", [start], [dtype], np.dtype(np.int64))
    return w.let(f"min_i64(max_i64({start}, i64(0)), i64({limit}))")


def _chosen(w: _Writer, index: str, choices: Sequence[str], dtype: Any) -> str:
    """``choices[index]`` by comparisons."""
    kind = "f32" if suffix(dtype) == "f16" else suffix(dtype)
    found = choices[0]
    for k, x in enumerate(choices[1:], 1):
        if x != found:
            found = w.let(f"select_{kind}(eq_i64({index}, i64({k})), {x}, {found})")
    return found


def _dynamic_slice(w: _Writer, eqn: Eqn, lower: L.DynamicSlice, args: list[Elements]) -> list[Elements]:
    x, out = eqn.invars[0].aval, eqn.outvars[0].aval
    axis = _moving_axis(x.shape, out.shape)
    if axis is None:
        return [args[0]]
    limit = x.shape[axis] - out.shape[axis]
    index = _start(w, eqn, 1, axis, limit, args)
    whole = Layout.contiguous(x.shape)
    places = [_index(Layout(out.shape, whole.strides, k * whole.strides[axis])) for k in range(limit + 1)]
    return [tuple([_chosen(w, index, [args[0][p[e]] for p in places], x.dtype) for e in range(out.size)])]


def _dynamic_update(w: _Writer, eqn: Eqn, lower: L.DynamicUpdate, args: list[Elements]) -> list[Elements]:
    x, update = eqn.invars[0].aval, eqn.invars[1].aval
    axis = _moving_axis(x.shape, update.shape)
    if axis is None:
        return [args[1]]
    limit = x.shape[axis] - update.shape[axis]
    index = _start(w, eqn, 2, axis, limit, args)
    whole = Layout.contiguous(x.shape)
    choices = [[e] * (limit + 1) for e in args[0]]
    for k in range(limit + 1):
        for source, target in enumerate(_index(Layout(update.shape, whole.strides, k * whole.strides[axis]))):
            choices[target][k] = args[1][source]
    return [tuple([_chosen(w, index, each, x.dtype) for each in choices])]


def _inline(w: _Writer, eqn: Eqn, lower: L.Inline, args: list[Elements]) -> list[Elements]:
    def flat(*xs: Any) -> Sequence[Any]:
        out = lower.fun(*xs, **eqn.params)
        return out if isinstance(out, (tuple, list)) else (out,)

    closed = stage(flat, [a.aval for a in eqn.invars], str(eqn.primitive))
    return w.run(closed.jaxpr, args, closed.consts)


def _call(w: _Writer, eqn: Eqn, lower: L.Call, args: list[Elements]) -> list[Elements]:
    closed = eqn.params["jaxpr"]
    return w.run(closed.jaxpr, args, closed.consts)


def _scan(w: _Writer, eqn: Eqn, lower: L.Scan, args: list[Elements]) -> list[Elements]:
    """A loop in the loop: written out where it is short, else without slices."""
    closed, length = eqn.params["jaxpr"], eqn.params["length"]
    n_consts, n_carry = eqn.params["n_consts"], eqn.params["n_carry"]
    consts, carry, xs = args[:n_consts], args[n_consts : n_consts + n_carry], args[n_consts + n_carry :]
    if length <= _UNROLLED_SCAN:
        sizes = [v.aval.size for v in closed.jaxpr.invars[n_consts + n_carry :]]
        ys: list[list[Elements]] = []
        order = range(length)
        for k in reversed(order) if eqn.params["reverse"] else order:
            slices = [x[k * n : (k + 1) * n] for x, n in zip(xs, sizes, strict=True)]
            outs = w.run(closed.jaxpr, [*consts, *carry, *slices], closed.consts)
            carry = outs[:n_carry]
            ys.append(outs[n_carry:])
        if eqn.params["reverse"]:
            ys.reverse()
        stacked = [tuple([e for step in ys for e in step[j]]) for j in range(len(eqn.outvars) - n_carry)]
        return [*carry, *stacked]
    if xs or len(eqn.outvars) > n_carry:
        raise _Unsupported
    names = _variables(w, carry)

    def body() -> None:
        w.carry(names, w.run(closed.jaxpr, [*consts, *names], closed.consts))

    w.line(f"for {w.fresh('t')} in range({length}):")
    w.lines += indent(w.within(body) or ["pass"], 1)
    return names


def _variables(w: _Writer, values: Sequence[Elements]) -> list[Elements]:
    """Variables of their own that begin with these values."""
    return [tuple([w.held(x) for x in xs]) for xs in values]


def _while(w: _Writer, eqn: Eqn, lower: L.While, args: list[Elements]) -> list[Elements]:
    condition, body = eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]
    n_cond, n_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    tested, consts, carry = args[:n_cond], args[n_cond : n_cond + n_body], args[n_cond + n_body :]
    names = _variables(w, carry)

    def emit() -> None:
        ((going,),) = w.run(condition.jaxpr, [*tested, *names], condition.consts)
        w.line(f"if not {going}:")
        w.line("    break")
        w.carry(names, w.run(body.jaxpr, [*consts, *names], body.consts))

    w.line("while True:")
    w.lines += indent(w.within(emit), 1)
    return names


def _branch(w: _Writer, eqn: Eqn, lower: L.Branch, args: list[Elements]) -> list[Elements]:
    branches: Sequence[ClosedJaxpr] = eqn.params["branches"]
    index = w.scalar("convert", args[0], [eqn.invars[0].aval.dtype], np.dtype(np.int64))
    outs = [tuple([w.fresh("o") for _ in range(v.aval.size)]) for v in eqn.outvars]
    for k, closed in enumerate(branches):

        def emit(closed: ClosedJaxpr = closed) -> None:
            for names, values in zip(outs, w.run(closed.jaxpr, args[1:], closed.consts), strict=True):
                for name, value in zip(names, values, strict=True):
                    w.line(f"{name} = {value}")

        last = k == len(branches) - 1
        w.line("else:" if last and k else f"{'el' if k else ''}if {index} <= {k}:" if not last else "if True:")
        w.lines += indent(w.within(emit) or ["pass"], 1)
    return outs


_RULES: Final[dict[type, Callable[..., list[Elements]]]] = {
    L.Scalar: _scalar,
    L.View: _view,
    L.Barrier: lambda w, eqn, lower, args: args,  # in registers there is no memory to save
    L.Generate: _generate,
    L.Reduce: _reduce,
    L.ArgReduce: _arg_reduce,
    L.Cumulate: _cumulate,
    L.Assemble: _assemble,
    L.Contract: _contract,
    L.DynamicSlice: _dynamic_slice,
    L.DynamicUpdate: _dynamic_update,
    L.Inline: _inline,
    L.Call: _call,
    L.Scan: _scan,
    L.While: _while,
    L.Branch: _branch,
}


# the loop itself --------------------------------------------------------------------------------------------------


class _Loop:
    """The kernel of one loop: what it carries, and the memory that it reads and writes.

    ``operands`` numbers that memory: ``k`` is operand ``k`` of the loop, ``-1 - k`` its result ``k``. Loads and stores
    of one number may touch the same memory, of two numbers never: so what a carried value begins as, which may be the
    result itself, is loaded under the result's number.
    """

    def __init__(self, eqn: Eqn) -> None:
        self.w = _Writer()
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

    def _constant(self, operand: int) -> Elements:
        number = self._number(operand)
        return self._loaded(f"p{number}", number, self.eqn.invars[operand].aval)

    def _loaded(self, pointer: str, number: int, aval: ShapedArray) -> Elements:
        self.w.small(aval)
        if aval.dtype.kind == "c":
            raise _Unsupported
        names = [self.w.fresh() for _ in range(aval.size)]
        for k, name in enumerate(names):
            self.w.line(f"{name} = load_{suffix(aval.dtype)}({pointer}, {k}, {number})")
        return tuple(names)

    def _put(self, pointer: str, number: int, dtype: Any, values: Elements) -> None:
        for k, x in enumerate(values):
            self.w.line(f"store_{suffix(dtype)}({pointer}, {k}, {number}, {x})")

    def _begin(self, operand: int, result: int) -> Elements:
        """The variables of a carried value: from the operand at first, then from where the last slice left it."""
        first, then = self._number(operand), self._number(-1 - result)
        pointer = self.w.fresh("c")
        self.w.line(f"{pointer} = p{first} if lo == 0 else p{then}")
        return _variables(self.w, [self._loaded(pointer, then, self.eqn.invars[operand].aval)])[0]

    def _end(self, carry: Sequence[Elements]) -> None:
        for k, values in enumerate(carry):
            number = self.operands.index(-1 - k)
            self._put(f"p{number}", number, self.eqn.outvars[k].aval.dtype, values)

    def _slice(self, operand: int) -> tuple[str, int]:
        """The pointer to this iteration's part of an operand or a result, and its number."""
        j = self._number(operand)
        self.moving.add(j)
        pointer = self.w.fresh("x")
        self.w.line(f"{pointer} = p{j} + t * s{j}")
        return pointer, j

    def _step(self, body: ClosedJaxpr, consts: Sequence[Elements], carry: list[Elements]) -> None:
        first = len(consts) + len(carry)
        inputs = [*consts, *carry]
        for k, v in enumerate(body.jaxpr.invars[first:], first):
            inputs.append(self._loaded(*self._slice(k), v.aval))
        outs = self.w.run(body.jaxpr, inputs, body.consts)
        for k, values in enumerate(outs[len(carry) :], len(carry)):
            self._put(*self._slice(-1 - k), body.out_avals[k].dtype, values)
        self.w.carry(carry, outs[: len(carry)])

    def _repeat(self, body: ClosedJaxpr, consts: Sequence[Elements], carry: list[Elements]) -> None:
        condition, n = self.eqn.params["cond_jaxpr"], self.eqn.params["cond_nconsts"]
        ((going,),) = self.w.run(condition.jaxpr, [*consts[:n], *carry], condition.consts)
        self.w.line(f"if not {going}:")
        self.w.line(f"    store_i64(flag, 0, {len(self.operands)}, i64(1))")
        self.w.line("    break")
        self.w.carry(carry, self.w.run(body.jaxpr, [*consts[n:], *carry], body.consts))
