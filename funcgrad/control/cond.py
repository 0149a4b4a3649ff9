"""``cond`` and ``switch``: one of several branches runs.

``cond_p`` has an integer scalar and the operands that all branches take; the branches are jaxprs closed over nothing
with the same results. Batched over an index that differs along the batch, all branches run and the results are
selected. The linear program of a branch keeps residuals; branches share the slots in which theirs are passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import tree
from ..core.avals import ShapedArray, aval_of
from ..core.jaxpr import ClosedJaxpr, Jaxpr, Var
from ..core.lowering import Branch
from ..core.primitive import ZERO, Linear, Primitive
from ..core.staging import stage
from ..ops.create import instantiate_zeros
from ..ops.elementwise import convert_element_type, eq, maximum, minimum, ne, select
from ..ops.structural import broadcast_in_dim, shape_of
from ..record import record
from ..transforms.batch import batch_subtrace, move_batch
from ..transforms.flat import argument_name, check_callable
from ..transforms.forward import instantiate, jvp_flat
from ..transforms.linear import linear_function, linearize_flat
from .batched_effects import refuse_io, without_checks
from .body import (
    Body,
    cast_hint,
    check_same_structure,
    converted,
    flatten_operands,
    joined_aval,
    owned_results,
    same_type,
    stage_body,
)
from .derived import call_jaxpr, grown, live_jaxpr, per_jaxprs
from .interpret import execute, interpreter, typed_results

__all__ = ["Slots", "cond", "cond_p", "switch", "with_slots"]

INDEX = np.dtype(np.int64)
Branches = tuple[ClosedJaxpr, ...]


def unified(programs: Sequence[ClosedJaxpr]) -> tuple[list[Any], Branches]:
    """The constants of several programs as leading operands that all of them take, and the programs."""
    consts: list[Any] = []
    if not any([p.consts for p in programs]):
        return consts, tuple(programs)
    position: dict[int, int] = {}
    for program in programs:
        for x in program.consts:
            if id(x) not in position:
                position[id(x)] = len(consts)
                consts.append(x)
    avals = [aval_of(x) for x in consts]
    unified_programs = []
    for program in programs:
        leading = [Var(a) for a in avals]
        for v, x in zip(program.jaxpr.constvars, program.consts, strict=True):
            leading[position[id(x)]] = v
        jaxpr = program.jaxpr
        invars = (*leading, *jaxpr.invars)
        unified_programs.append(ClosedJaxpr(Jaxpr((), invars, jaxpr.eqns, jaxpr.outvars, jaxpr.name)))
    return consts, tuple(unified_programs)


# meaning and type -------------------------------------------------------------------------------------------------


def _interpret(index: Any, *operands: Any, branches: Branches) -> Any:
    chosen = branches[min(max(int(index), 0), len(branches) - 1)]
    return interpreter(chosen)(*operands)


def _out_avals(branches: Branches) -> list[ShapedArray]:
    columns = zip(*[b.out_avals for b in branches], strict=True)
    return [avals[0].update(weak_type=all([a.weak_type for a in avals])) for avals in columns]


def _impl(*args: Any, branches: Branches) -> Any:
    outs = execute(cond_p, _interpret, args, [ShapedArray((), INDEX), *branches[0].in_avals], {"branches": branches})
    return typed_results(outs, _out_avals(branches))


def _shape(index: ShapedArray, *operands: ShapedArray, branches: Branches) -> Any:
    if index.shape != () or index.dtype.kind not in "iu":
        raise TypeError(f"cond: the index must be an integer scalar, found {index}")
    first = branches[0]
    for branch in branches:
        if len(branch.in_avals) != len(operands) or not all(map(same_type, branch.in_avals, operands)):
            raise TypeError(f"cond: a branch takes {branch.in_avals}, but the operands are {list(operands)}")
        if len(branch.out_avals) != len(first.out_avals) or not all(map(same_type, branch.out_avals, first.out_avals)):
            raise TypeError(f"cond: branches give {first.out_avals} and {branch.out_avals}")
    return tuple(_out_avals(branches))


# forward mode -----------------------------------------------------------------------------------------------------


@per_jaxprs
def _jvp_branches(branches: Branches, nonzero: tuple[bool, ...]) -> tuple[list[Any], Branches, tuple[bool, ...]]:
    """``(operands, nonzero tangents) -> (outs, tangents where any branch has one)``."""
    n = len(nonzero)
    found: list[list[bool]] = []
    wanted: tuple[bool, ...] = ()

    def program(branch: ClosedJaxpr) -> ClosedJaxpr:
        def fun(*args: Any) -> list[Any]:
            rest = iter(args[n:])
            tangents = [next(rest) if nz else ZERO for nz in nonzero]
            outs, t_outs = jvp_flat(call_jaxpr(branch), args[:n], tangents)
            found.append([t is not ZERO for t in t_outs])
            chosen = [instantiate(t, o) for o, t, w in zip(outs, t_outs, wanted, strict=True) if w] if wanted else []
            return [*outs, *chosen]

        avals = [*branch.in_avals, *[a.strong() for a, nz in zip(branch.in_avals, nonzero, strict=True) if nz]]
        return stage(fun, avals, f"jvp({branch.jaxpr.name})")

    for branch in branches:
        program(branch)
    wanted = tuple([any(flags) for flags in zip(*found, strict=True)])
    return *unified([program(b) for b in branches]), wanted


def _forward(primals: Sequence[Any], tangents: Sequence[Any], *, branches: Branches) -> Any:
    nonzero = tuple([t is not ZERO for t in tangents[1:]])
    consts, derived, out_nonzero = _jvp_branches(branches, nonzero)
    given = [t for t in tangents[1:] if t is not ZERO]
    results = cond_p.bind(primals[0], *consts, *primals[1:], *given, branches=derived)
    n = len(out_nonzero)
    rest = iter(results[n:])
    return results[:n], [next(rest) if nz else ZERO for nz in out_nonzero]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], out: Any, **params: Any) -> Any:
    return _forward(primals, tangents, **params)[1]


# reverse mode -----------------------------------------------------------------------------------------------------


@record(frozen=True)
class _Linearized:
    """``primal``: ``operands -> (outs, slots of residuals)``. ``linear``: ``(operands that are residuals, slots,
    tangents) -> tangents``; ``kept`` says which operands these are."""

    consts: list[Any]
    primal: Branches
    kept: tuple[int, ...]
    n_outs: int
    linear_consts: list[Any]
    linear: Branches
    out_nonzero: tuple[bool, ...]


class Slots:
    """Places for residuals, shared between branches: each holds values of one type."""

    def __init__(self) -> None:
        self.avals: list[ShapedArray] = []

    def place(self, avals: Sequence[ShapedArray]) -> list[int]:
        """A slot for each, no slot twice."""
        taken: set[int] = set()
        places = []
        for a in avals:
            free = [k for k, b in enumerate(self.avals) if k not in taken and same_type(a, b)]
            if not free:
                free = [len(self.avals)]
                self.avals.append(a.strong())
            taken.add(free[0])
            places.append(free[0])
        return places


@per_jaxprs
def _linearized_branches(branches: Branches, nonzero: tuple[bool, ...]) -> _Linearized:
    halves: list[Any] = []
    for branch in branches:
        halves.append(_linearized_branch(branch, nonzero))
    n_outs = len(branches[0].out_avals)
    out_nonzero = tuple([any(flags) for flags in zip(*[h.out_nonzero for h in halves], strict=True)])
    kept = sorted({k for h in halves for is_operand, k in h.sources if is_operand})
    slots = Slots()
    places = [slots.place([h.residual_avals[k] for k in range(len(h.residual_avals))]) for h in halves]
    primal, linear = [], []
    for half, place in zip(halves, places, strict=True):
        primal.append(with_slots(half.primal, n_outs, slots.avals, place))
        linear.append(_over_slots(half, branches[0], nonzero, kept, slots.avals, place, out_nonzero, n_outs))
    consts, primals = unified(primal)
    linear_consts, linears = unified(linear)
    return _Linearized(consts, primals, tuple(kept), n_outs, linear_consts, linears, out_nonzero)


@record(frozen=True)
class _Half:
    """A branch, linearized: ``sources`` says of each residual of ``linear`` which operand (True) or which of the new
    residuals (False) it is."""

    primal: ClosedJaxpr
    linear: ClosedJaxpr
    sources: list[tuple[bool, int]]
    residual_avals: list[ShapedArray]
    out_nonzero: list[bool]
    out_avals: list[ShapedArray]


def _linearized_branch(branch: ClosedJaxpr, nonzero: tuple[bool, ...]) -> _Half:
    found: dict[str, Any] = {}

    def fun(*args: Any) -> list[Any]:
        outs, lin = linearize_flat(call_jaxpr(branch), args, nonzero)
        linear, residuals = live_jaxpr(*lin.to_jaxpr())
        position = {id(x): k for k, x in enumerate(args)}
        new: list[Any] = []
        sources = []
        for r in residuals:
            if id(r) in position:
                sources.append((True, position[id(r)]))
            else:
                sources.append((False, len(new)))
                new.append(r)
        found.update(linear=linear, sources=sources, keep=(outs, residuals), avals=[aval_of(r) for r in new])
        found["out_nonzero"] = [o is not None for o in lin.outs]
        return [*outs, *new]

    primal = stage(fun, branch.in_avals, branch.jaxpr.name)
    return _Half(primal, found["linear"], found["sources"], found["avals"], found["out_nonzero"], branch.out_avals)


def with_slots(primal: ClosedJaxpr, n_outs: int, avals: Sequence[ShapedArray], place: Sequence[int]) -> ClosedJaxpr:
    """The branch with its residuals in their slots, and zeros in those that it does not use."""

    def fun(*args: Any) -> list[Any]:
        results = call_jaxpr(primal)(*args)
        filled: list[Any] = [None] * len(avals)
        for k, x in zip(place, results[n_outs:], strict=True):
            filled[k] = convert_element_type(x, avals[k].dtype)
        return [
            *results[:n_outs],
            *[instantiate_zeros(a) if x is None else x for a, x in zip(avals, filled, strict=True)],
        ]

    return stage(fun, primal.in_avals, primal.jaxpr.name)


def _over_slots(
    half: _Half,
    branch: ClosedJaxpr,
    nonzero: Sequence[bool],
    kept: Sequence[int],
    avals: Sequence[ShapedArray],
    place: Sequence[int],
    out_nonzero: Sequence[bool],
    n_outs: int,
) -> ClosedJaxpr:
    """The linear program of a branch over the operands and slots that all branches take."""

    def fun(*args: Any) -> list[Any]:
        operands = dict(zip(kept, args, strict=False))
        slots, tangents = args[len(kept) : len(kept) + len(avals)], args[len(kept) + len(avals) :]
        residuals = [operands[k] if is_operand else slots[place[k]] for is_operand, k in half.sources]
        rest = iter(call_jaxpr(half.linear)(*residuals, *tangents))
        results = []
        for own, wanted, aval in zip(half.out_nonzero, out_nonzero, half.out_avals, strict=True):
            if own:
                results.append(next(rest))
            elif wanted:
                results.append(instantiate_zeros(aval))
        return results

    tangents = [a.strong() for a, nz in zip(branch.in_avals, nonzero, strict=True) if nz]
    in_avals = [*[branch.in_avals[k] for k in kept], *avals, *tangents]
    return stage(fun, in_avals, f"linear({half.primal.jaxpr.name})")


def _linearize(nonzero: Sequence[bool], primals: Sequence[Any], *, branches: Branches) -> Any:
    index, *operands = primals
    floats = tuple([nz and a.dtype.kind in "fc" for nz, a in zip(nonzero[1:], branches[0].in_avals, strict=True)])
    lin = _linearized_branches(branches, floats)
    results = cond_p.bind(index, *lin.consts, *operands, branches=lin.primal)
    residuals = [*[operands[k] for k in lin.kept], *results[lin.n_outs :]]

    def apply(*tangents: Any) -> list[Any]:
        flags = [is_float for is_float, nz in zip((False, *floats), nonzero, strict=True) if nz]
        given = [t for t, is_float in zip(tangents, flags, strict=True) if is_float]
        rest = iter(cond_p.bind(index, *lin.linear_consts, *residuals, *given, branches=lin.linear))
        return [next(rest) if nz else ZERO for nz in lin.out_nonzero]

    return results[: lin.n_outs], apply


@per_jaxprs
def _transposed_branches(
    branches: Branches, linear: tuple[bool, ...], nonzero_cts: tuple[bool, ...]
) -> tuple[list[Any], Branches, tuple[bool, ...]]:
    """``(known operands, nonzero cotangents) -> cotangents of the linear operands where any branch has one``."""
    n_known = linear.count(False)
    found: list[list[bool]] = []
    wanted: tuple[bool, ...] | None = None

    def program(branch: ClosedJaxpr) -> ClosedJaxpr:
        lin_avals = [a for a, is_linear in zip(branch.in_avals, linear, strict=True) if is_linear]

        def fun(*args: Any) -> list[Any]:
            known, cts = args[:n_known], iter(args[n_known:])

            def of_linear_operands(*xs: Any) -> list[Any]:
                rest, others = iter(xs), iter(known)
                return call_jaxpr(branch)(*[next(rest) if is_linear else next(others) for is_linear in linear])

            function, _ = linear_function(of_linear_operands, lin_avals)
            pulled = function.transpose([next(cts) if nz else ZERO for nz in nonzero_cts])
            found.append([c is not ZERO for c in pulled])
            if wanted is None:
                return []
            chosen = [(c, a) for c, a, w in zip(pulled, lin_avals, wanted, strict=True) if w]
            return [instantiate_zeros(a.strong()) if c is ZERO else c for c, a in chosen]

        avals = [a for a, is_linear in zip(branch.in_avals, linear, strict=True) if not is_linear]
        avals += [a.strong() for a, nz in zip(branch.out_avals, nonzero_cts, strict=True) if nz]
        return stage(fun, avals, f"transpose({branch.jaxpr.name})")

    for branch in branches:
        program(branch)
    wanted = tuple([any(flags) for flags in zip(*found, strict=True)])
    return *unified([program(b) for b in branches]), wanted


def _transpose(cts: Sequence[Any], index: Any, *operands: Any, branches: Branches) -> Any:
    linear = tuple([type(x) is Linear for x in operands])
    consts, derived, wanted = _transposed_branches(branches, linear, tuple([c is not ZERO for c in cts]))
    known = [x for x in operands if type(x) is not Linear]
    given = [c for c in cts if c is not ZERO]
    results = iter(cond_p.bind(index, *consts, *known, *given, branches=derived))
    flags = iter(wanted)
    return [None, *[(next(results) if next(flags) else ZERO) if is_linear else None for is_linear in linear]]


# batching ---------------------------------------------------------------------------------------------------------


@per_jaxprs
def _batched_branches(
    branches: Branches, size: int, dims: tuple[int | None, ...], axis_name: Any
) -> tuple[list[Any], Branches, tuple[bool, ...]]:
    """The branches over batched operands; results that any branch batches are batched along axis 0."""
    found: list[Sequence[int | None]] = []
    wanted: tuple[bool, ...] | None = None

    def program(branch: ClosedJaxpr) -> ClosedJaxpr:
        def fun(*args: Any) -> list[Any]:
            outs, out_dims = batch_subtrace(call_jaxpr(branch), size, args, dims, axis_name)
            found.append(out_dims)
            if wanted is None:
                return []
            return [move_batch(size, x, d, 0) if w else x for x, d, w in zip(outs, out_dims, wanted, strict=True)]

        return stage(fun, [grown(a, d, size) for a, d in zip(branch.in_avals, dims, strict=True)], branch.jaxpr.name)

    for branch in branches:
        program(branch)
    wanted = tuple([any([d is not None for d in out]) for out in zip(*found, strict=True)])
    return *unified([program(b) for b in branches]), wanted


def _batch(axis: tuple[int, Any], args: Sequence[Any], dims: Sequence[int | None], *, branches: Branches) -> Any:
    size, axis_name = axis
    (index, *operands), (index_dim, *operand_dims) = args, dims
    if index_dim is None:
        consts, derived, wanted = _batched_branches(branches, size, tuple(operand_dims), axis_name)
        outs = cond_p.bind(index, *consts, *operands, branches=derived)
        return outs, [0 if w else None for w in wanted]
    refuse_io(branches, "a cond", "where the predicate differs from example to example all branches are computed")
    run = without_checks(cond_p, {"branches": branches})
    if run is not None:
        return batch_subtrace(run, size, args, dims, axis_name)
    columns = []
    for branch in branches:
        outs, out_dims = batch_subtrace(call_jaxpr(branch), size, operands, operand_dims, axis_name)
        columns.append([move_batch(size, x, d, 0) for x, d in zip(outs, out_dims, strict=True)])
    return [_chosen(index, cases) for cases in zip(*columns, strict=True)], 0


def _chosen(index: Any, cases: Sequence[Any]) -> Any:
    """Of each element of the batch, the case that its index (clamped) names."""
    dtype = aval_of(index).dtype
    last = len(cases) - 1
    index = minimum(maximum(index, dtype.type(0)), dtype.type(last))
    result, shape = cases[-1], shape_of(cases[-1])
    for k in range(last - 1, -1, -1):
        result = select(broadcast_in_dim(eq(index, dtype.type(k)), shape, (0,)), cases[k], result)
    return result


cond_p = Primitive(
    "cond",
    impl=_impl,
    shape=_shape,
    jvp=_jvp,
    transpose=_transpose,
    batch=_batch,
    lower=Branch(),
    multiple_results=True,
    linearize=_linearize,
    forward=_forward,
    needs_axis=True,
)


# for users --------------------------------------------------------------------------------------------------------

_MISSING: Any = object()


def _index_of(pred: Any, what: str) -> Any:
    """The predicate of a cond as the number of the branch: 0 for false, 1 for true."""
    way = "Reduce it with .any() or .all(), or choose element by element with np.where"
    aval = scalar_operand(pred, what, "the predicate", way)
    if aval.dtype.kind == "c":
        raise TypeError(f"{what}: the predicate must be a boolean, found {aval}; write a comparison, as in x != 0")
    if aval.dtype.kind != "b":
        pred = ne(pred, aval.dtype.type(0))
    return convert_element_type(pred, INDEX)


def scalar_operand(x: Any, what: str, name: str, way: str) -> ShapedArray:
    """The aval of a scalar operand.

    Raises:
        TypeError: it is none; ``way`` says what to write instead.
    """
    try:
        aval = aval_of(x)
    except TypeError as error:
        raise TypeError(f"{what}: {name}: {error}") from None
    if aval.shape != ():
        raise TypeError(f"{what}: {name} must be a scalar, found shape {aval.shape}. {way}.")
    return aval


def cond(
    pred: Any,
    true_fun: Callable[..., Any],
    false_fun: Callable[..., Any],
    *operands: Any,
    operand: Any = _MISSING,
    linear: Any = None,
) -> Any:
    """``true_fun(*operands)`` where ``pred`` holds, else ``false_fun(*operands)``; only one of them is computed.

    Args:
        pred: a boolean scalar (a number holds where it is not zero).
        true_fun, false_fun: take the operands, and return pytrees of the same structure, shapes and dtypes. Python
            numbers take the dtype of the other branch.
        operands: pytrees of arrays. The functions may also use what is around them.
        operand: one operand, by name, in JAX's older form.
        linear: accepted for JAX's sake.

    Under `vmap` over ``pred`` both branches are computed, and the results selected.

    Raises:
        TypeError: ``pred`` is no scalar, or the results of the branches differ in structure or type.

    >>> cond(True, lambda x: x + 1, lambda x: x - 1, 3.0)
    4.0
    >>> from funcgrad import grad
    >>> grad(lambda x: cond(x > 0, lambda x: x**2, lambda x: -x, x))(3.0)
    np.float64(6.0)
    """
    check_callable(true_fun, "cond: true_fun")
    check_callable(false_fun, "cond: false_fun")
    if operand is not _MISSING:
        if operands:
            raise TypeError("cond: operands are given by position and as operand=; give them by position")
        operands = (operand,)
    index = _index_of(pred, "cond")
    return _bind_branches("cond", index, [false_fun, true_fun], operands, [1, 0], ["false_fun", "true_fun"])


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any, operand: Any = _MISSING) -> Any:
    """``branches[index](*operands)``, with ``index`` clamped to the branches there are.

    Args:
        index: an integer scalar.
        branches: functions of the operands that return pytrees of the same structure, shapes and dtypes.

    >>> switch(2, [lambda x: x, lambda x: 2 * x, lambda x: x**2], 5.0)
    25.0
    """
    branches = list(branches)
    if not branches:
        raise ValueError("switch: there are no branches")
    for k, fun in enumerate(branches):
        check_callable(fun, f"switch: branches[{k}]")
    if operand is not _MISSING:
        operands = (*operands, operand)
    aval = scalar_operand(index, "switch", "the index", "Use vmap to choose for each element")
    if aval.dtype.kind not in "iu":
        way = "cond for a boolean" if aval.dtype.kind == "b" else ".astype(int)"
        raise TypeError(f"switch: the index must be an integer, found {aval.dtype.name}; use {way}")
    order = range(len(branches))
    names = [f"branches[{k}]" for k in order]
    return _bind_branches("switch", convert_element_type(index, INDEX), branches, operands, order, names)


def _bind_branches(
    what: str,
    index: Any,
    funs: Sequence[Callable[..., Any]],
    operands: tuple[Any, ...],
    order: Sequence[int],
    names: Sequence[str],
) -> Any:
    """Trace the branches and bind; ``order`` and ``names``: how the user gave them, for messages."""
    leaves, in_tree = flatten_operands(operands, what, lambda k: argument_name(funs[order[0]], k))
    avals = [aval_of(x) for x in leaves]
    bodies = [stage_body(f, in_tree, avals) for f in funs]
    bodies = _joined(what, bodies, order, names)
    programs = []
    for body in bodies:
        jaxpr, n = body.jaxpr.jaxpr, len(body.consts)
        closed = Jaxpr(jaxpr.invars[:n], jaxpr.invars[n:], jaxpr.eqns, jaxpr.outvars, jaxpr.name)
        programs.append(ClosedJaxpr(closed, body.consts))
    consts, branches = unified(programs)
    outs = cond_p.bind(index, *consts, *leaves, branches=branches)
    return bodies[0].out_tree.unflatten(owned_results(outs, [*consts, *leaves]))


def _joined(what: str, bodies: Sequence[Body], order: Sequence[int], names: Sequence[str]) -> list[Body]:
    """The branches with results of one type each."""
    first = order[0]
    joined: list[ShapedArray] = []
    for k in order[1:]:
        text = f"{what}: branches must return the same structure, but {names[first]} and {names[k]} differ"
        check_same_structure(text, bodies[first].out_tree, bodies[k].out_tree)
    paths = tree.leaf_paths(bodies[first].out_tree)
    for position, avals in enumerate(zip(*[b.out_avals for b in bodies], strict=True)):
        aval = joined_aval(avals)
        if aval is None:
            wanted = avals[first]
            other = next(k for k in order if not same_type(avals[k], wanted))
            raise TypeError(
                f"{what}: branches must return the same types, but for output{paths[position]} {names[first]} returns "
                f"{wanted.short()} and {names[other]} returns {avals[other].short()}: "
                f"{cast_hint(wanted, avals[other], f'the result of {names[other]}')}"
            )
        joined.append(aval)
    return [converted(b, joined) for b in bodies]
