"""The programs of a conditional's transforms: what becomes of its branches in forward mode, linearized, transposed,
batched.

Each is worked out once for a tuple of branches. The linear program of a branch keeps residuals; branches share the
slots in which theirs are passed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.avals import ShapedArray, aval_of
from ..core.jaxpr import ClosedJaxpr, Jaxpr, Var
from ..core.primitive import ZERO
from ..core.staging import stage
from ..ops.create import instantiate_zeros
from ..ops.elementwise import convert_element_type
from ..record import record
from ..transforms.batch import batch_subtrace, move_batch
from ..transforms.forward import instantiate, jvp_flat
from ..transforms.linear import linear_function, linearize_flat
from .body import same_type
from .derived import call_jaxpr, grown, live_jaxpr, per_jaxprs

__all__ = [
    "Branches",
    "Linearized",
    "Slots",
    "batched_branches",
    "jvp_branches",
    "linearized_branches",
    "transposed_branches",
    "unified",
    "with_slots",
]

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


# forward mode -----------------------------------------------------------------------------------------------------


@per_jaxprs
def jvp_branches(branches: Branches, nonzero: tuple[bool, ...]) -> tuple[list[Any], Branches, tuple[bool, ...]]:
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


# reverse mode -----------------------------------------------------------------------------------------------------


@record(frozen=True)
class Linearized:
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
def linearized_branches(branches: Branches, nonzero: tuple[bool, ...]) -> Linearized:
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
    return Linearized(consts, primals, tuple(kept), n_outs, linear_consts, linears, out_nonzero)


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


@per_jaxprs
def transposed_branches(
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


# batching ---------------------------------------------------------------------------------------------------------


@per_jaxprs
def batched_branches(
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
