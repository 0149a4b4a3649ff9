"""How each lowering is written out element by element, in a loop that is one kernel (``codegen.registers``).

A rule takes the writer, the equation, its lowering and its arguments, names of elements or memory, to its results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..core import lowering as L
from ..core.avals import ShapedArray
from ..core.jaxpr import ClosedJaxpr, Eqn
from ..core.layout import Layout
from ..core.staging import stage
from ..kernels.graph import kept_params
from ..kernels.rules import BOOL_MONOIDS, identity_of
from ..util import prod
from .nest import indent
from .register_matrices import MATRIX_ROUTINES
from .register_values import (
    MOST_ELEMENTS,
    Elements,
    Memory,
    Unsupported,
    positions,
    read_places,
    read_window,
    write_window,
)
from .scalar import literal, suffix

if TYPE_CHECKING:
    from .registers import RegisterWriter

__all__ = ["ON_MEMORY", "RULES", "left", "variables"]

_UNROLLED_SCAN: Final = 8


def _scalar(w: RegisterWriter, eqn: Eqn, lower: L.Scalar, args: list[Elements]) -> list[Elements]:
    aval = eqn.outvars[0].aval
    sources = [a.aval.dtype for a in eqn.invars]
    params = kept_params(lower.fn, eqn.params)
    places = [
        positions(Layout.contiguous(a.aval.shape).broadcast(aval.shape, _trailing(a.aval, aval))) for a in eqn.invars
    ]
    return [
        tuple([
            w.scalar(lower.fn, [x[p[e]] for x, p in zip(args, places, strict=True)], sources, aval.dtype, params)
            for e in range(aval.size)
        ])
    ]  # fmt: skip


def _trailing(own: ShapedArray, whole: ShapedArray) -> range:
    return range(whole.ndim - own.ndim, whole.ndim)


def _view(w: RegisterWriter, eqn: Eqn, lower: L.View, args: list[Any]) -> list[Elements]:
    layout = lower.rule(Layout.contiguous(eqn.invars[0].aval.shape), **eqn.params)
    if layout is None:
        raise Unsupported
    w.small(eqn.outvars[0].aval)
    if type(args[0]) is Memory:
        return [read_places(w, args[0], positions(layout))]
    return [tuple([args[0][k] for k in positions(layout)])]


def _generate(w: RegisterWriter, eqn: Eqn, lower: L.Generate, args: list[Elements]) -> list[Elements]:
    aval = eqn.outvars[0].aval
    numbers = np.indices(aval.shape)[eqn.params["dimension"]].ravel()
    return [tuple([literal(aval.dtype.type(n), aval.dtype) for n in numbers])]


def _chain(w: RegisterWriter, monoid: str, dtype: Any, elements: Sequence[str]) -> str:
    total = None
    for x in elements:
        total = x if total is None else w.scalar(monoid, [total, x], [dtype, dtype], dtype)
    return literal(identity_of(monoid, dtype), dtype) if total is None else total


def _monoid(name: str, dtype: Any) -> str:
    return BOOL_MONOIDS.get(name, name) if dtype.kind == "b" else name


def _reduce(w: RegisterWriter, eqn: Eqn, lower: L.Reduce, args: list[Elements]) -> list[Elements]:
    aval, axes = eqn.invars[0].aval, eqn.params["axes"]
    kept = [a for a in range(aval.ndim) if a not in axes]
    order = np.arange(aval.size).reshape(aval.shape).transpose([*kept, *axes])
    rows = order.reshape(prod([aval.shape[a] for a in kept]), -1)
    return [
        tuple([_chain(w, _monoid(lower.monoid, aval.dtype), aval.dtype, [args[0][k] for k in row]) for row in rows])
    ]


def _arg_reduce(w: RegisterWriter, eqn: Eqn, lower: L.ArgReduce, args: list[Elements]) -> list[Elements]:
    """The index of the first extreme element along an axis; the first NaN wins."""
    aval, axis, out = eqn.invars[0].aval, eqn.params["axis"], eqn.outvars[0].aval
    if aval.dtype.kind == "c" or not aval.size:
        raise Unsupported
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


def _cumulate(w: RegisterWriter, eqn: Eqn, lower: L.Cumulate, args: list[Elements]) -> list[Elements]:
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


def _assemble(w: RegisterWriter, eqn: Eqn, lower: L.Assemble, args: list[Elements]) -> list[Elements]:
    found: dict[int, str] = {}
    for piece in lower.rule(*[a.aval for a in eqn.invars], **eqn.params):
        for source, target in zip(positions(piece.source), positions(piece.target), strict=True):
            found[target] = args[piece.operand][source]
    return [tuple([found[k] for k in range(eqn.outvars[0].aval.size)])]


def _contract(w: RegisterWriter, eqn: Eqn, lower: L.Contract, args: list[Elements]) -> list[Elements]:
    (xc, yc), (xb, yb) = eqn.params["dimension_numbers"]
    x, y = (a.aval for a in eqn.invars)
    dtype = eqn.outvars[0].aval.dtype
    if x.dtype != dtype or y.dtype != dtype or dtype.kind == "b":
        raise Unsupported
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
        raise Unsupported
    return axes[0] if axes else None


def _start(w: RegisterWriter, eqn: Eqn, first: int, axis: int, limit: int, args: list[Elements]) -> str:
    """The start of a window, clamped."""
    (start,), dtype = args[first + axis], eqn.invars[first + axis].aval.dtype
    start = w.scalar("convert", [start], [dtype], np.dtype(np.int64))
    return w.let(f"min_i64(max_i64({start}, i64(0)), i64({limit}))")


def _chosen(w: RegisterWriter, index: str, choices: Sequence[str], dtype: Any) -> str:
    """``choices[index]`` by comparisons."""
    kind = "f32" if suffix(dtype) == "f16" else suffix(dtype)
    found = choices[0]
    for k, x in enumerate(choices[1:], 1):
        if x != found:
            found = w.let(f"select_{kind}(eq_i64({index}, i64({k})), {x}, {found})")
    return found


def _starts(w: RegisterWriter, eqn: Eqn, first: int, args: list[Any]) -> list[str]:
    """Starts of a window in memory."""
    pairs = zip(args[first:], eqn.invars[first:], strict=True)
    return [w.scalar("convert", [x], [a.aval.dtype], np.dtype(np.int64)) for (x,), a in pairs]


def _dynamic_slice(w: RegisterWriter, eqn: Eqn, lower: L.DynamicSlice, args: list[Any]) -> list[Any]:
    x, out = eqn.invars[0].aval, eqn.outvars[0].aval
    if type(args[0]) is Memory:
        w.small(out)
        return [read_window(w, args[0], out.shape, _starts(w, eqn, 1, args))]
    axis = _moving_axis(x.shape, out.shape)
    if axis is None:
        return [args[0]]
    limit = x.shape[axis] - out.shape[axis]
    index = _start(w, eqn, 1, axis, limit, args)
    whole = Layout.contiguous(x.shape)
    places = [positions(Layout(out.shape, whole.strides, k * whole.strides[axis])) for k in range(limit + 1)]
    return [tuple([_chosen(w, index, [args[0][p[e]] for p in places], x.dtype) for e in range(out.size)])]


def _dynamic_update(w: RegisterWriter, eqn: Eqn, lower: L.DynamicUpdate, args: list[Any]) -> list[Any]:
    x, update = eqn.invars[0].aval, eqn.invars[1].aval
    if type(args[0]) is Memory:
        w.small(update)
        return [write_window(w, args[0], args[1], update.shape, _starts(w, eqn, 2, args))]
    axis = _moving_axis(x.shape, update.shape)
    if axis is None:
        return [args[1]]
    limit = x.shape[axis] - update.shape[axis]
    index = _start(w, eqn, 2, axis, limit, args)
    whole = Layout.contiguous(x.shape)
    choices = [[e] * (limit + 1) for e in args[0]]
    for k in range(limit + 1):
        for source, target in enumerate(positions(Layout(update.shape, whole.strides, k * whole.strides[axis]))):
            choices[target][k] = args[1][source]
    return [tuple([_chosen(w, index, each, x.dtype) for each in choices])]


def _library(w: RegisterWriter, eqn: Eqn, lower: L.Library, args: list[Elements]) -> list[Elements]:
    routine = MATRIX_ROUTINES.get(lower.routine)
    if routine is None:
        raise Unsupported
    return routine(w, eqn, args)


def _inline(w: RegisterWriter, eqn: Eqn, lower: L.Inline, args: list[Any]) -> list[Any]:
    def flat(*xs: Any) -> Sequence[Any]:
        out = lower.fun(*xs, **eqn.params)
        return out if isinstance(out, (tuple, list)) else (out,)

    closed = stage(flat, [a.aval for a in eqn.invars], str(eqn.primitive))
    return w.run(closed.jaxpr, args, closed.consts)


def _call(w: RegisterWriter, eqn: Eqn, lower: L.Call, args: list[Any]) -> list[Any]:
    closed = eqn.params["jaxpr"]
    return w.run(closed.jaxpr, args, closed.consts)


def _scan(w: RegisterWriter, eqn: Eqn, lower: L.Scan, args: list[Any]) -> list[Any]:
    """A loop in the loop: written out where it is short, else without slices."""
    closed, length = eqn.params["jaxpr"], eqn.params["length"]
    n_consts, n_carry = eqn.params["n_consts"], eqn.params["n_carry"]
    consts, carry, xs = args[:n_consts], args[n_consts : n_consts + n_carry], args[n_consts + n_carry :]
    if any([type(x) is Memory for x in xs]) or any([v.aval.size > MOST_ELEMENTS for v in eqn.outvars[n_carry:]]):
        raise Unsupported
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
        raise Unsupported
    names = variables(w, carry)

    def body() -> None:
        w.carry(names, w.run(closed.jaxpr, [*consts, *names], closed.consts))

    w.line(f"for {w.fresh('t')} in range({length}):")
    w.lines += indent(w.within(body) or ["pass"], 1)
    return left(names, consts)


def variables(w: RegisterWriter, values: Sequence[Any]) -> list[Any]:
    """Variables of their own that begin with these values; memory stays what it is, and is carried once."""
    buffers = [x.check() for x in values if type(x) is Memory]
    if len(set(map(id, buffers))) != len(buffers):
        raise Unsupported
    return [xs if type(xs) is Memory else tuple([w.held(x) for x in xs]) for xs in values]


def left(names: Sequence[Any], consts: Sequence[Any]) -> list[Any]:
    """What a loop leaves behind in what it carries. What it reads as a constant it must not have changed."""
    for x in consts:
        if type(x) is Memory:
            x.check()
    return [Memory(x.buffer, x.buffer.version) if type(x) is Memory else x for x in names]


def _while(w: RegisterWriter, eqn: Eqn, lower: L.While, args: list[Any]) -> list[Any]:
    condition, body = eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]
    n_cond, n_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    tested, consts, carry = args[:n_cond], args[n_cond : n_cond + n_body], args[n_cond + n_body :]
    names = variables(w, carry)

    def emit() -> None:
        ((going,),) = w.run(condition.jaxpr, [*tested, *names], condition.consts)
        w.line(f"if not {going}:")
        w.line("    break")
        w.carry(names, w.run(body.jaxpr, [*consts, *names], body.consts))

    w.line("while True:")
    w.lines += indent(w.within(emit), 1)
    return left(names, [*tested, *consts])


def _branch(w: RegisterWriter, eqn: Eqn, lower: L.Branch, args: list[Any]) -> list[Any]:
    if any([type(x) is Memory for x in args]) or any([v.aval.size > MOST_ELEMENTS for v in eqn.outvars]):
        raise Unsupported  # what one branch changes, the others must not
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


RULES: Final[dict[type, Callable[..., list[Elements]]]] = {
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
    L.Library: _library,
    L.Inline: _inline,
    L.Call: _call,
    L.Scan: _scan,
    L.While: _while,
    L.Branch: _branch,
}
ON_MEMORY: Final = {L.View, L.Barrier, L.DynamicSlice, L.DynamicUpdate, L.Inline, L.Call, L.Scan, L.While, L.Branch}
"""What takes large values."""
