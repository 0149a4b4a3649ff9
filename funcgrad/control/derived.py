"""Derived programs: the batched, linearized or transposed form of a jaxpr, worked out once.

A primitive that owns a jaxpr transforms by transforming the jaxpr. Results are kept per jaxpr object (weakly: they
die with it) and per what was asked.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from ..core.avals import ShapedArray, aval_of
from ..core.intern import clear_interned
from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Jaxpr, Var, eval_jaxpr, has_effect, live_eqns
from ..core.primitive import ZERO
from ..core.staging import stage
from ..core.trace import STATE, Tracer
from ..errors import FuncgradError
from ..record import record
from ..transforms.batch import batch_subtrace
from ..transforms.forward import jvp_flat
from ..transforms.linear import linear_function, linearize_flat

__all__ = [
    "Linearized",
    "ValueOfEffectError",
    "batched_jaxpr",
    "call_jaxpr",
    "clear_derived",
    "closed_over",
    "grown",
    "jvp_jaxpr",
    "linearize_by_running",
    "linearized_jaxpr",
    "live_jaxpr",
    "per_jaxpr",
    "per_jaxprs",
    "select_program",
    "silent",
    "silent_eqn",
    "transposed_jaxpr",
    "without_constants",
]

F = TypeVar("F", bound=Callable[..., Any])
_caches: list[WeakKeyDictionary[Jaxpr, dict[Any, Any]]] = []


def per_jaxpr(fun: F) -> F:
    """Memoise ``fun(closed, *hashable)``, dropping entries when the jaxpr dies."""
    cache: WeakKeyDictionary[Jaxpr, dict[Any, Any]] = WeakKeyDictionary()
    _caches.append(cache)

    def memoised(closed: ClosedJaxpr, *key: Any) -> Any:
        if any(isinstance(c, Tracer) for c in closed.consts):
            return fun(closed, *key)
        per = cache.setdefault(closed.jaxpr, {})
        full = (STATE.axes, key)
        if full not in per:
            per[full] = fun(closed, *key)
        return per[full]

    return memoised  # type: ignore[return-value]


def per_jaxprs(fun: F) -> F:
    """As `per_jaxpr`, of a tuple of programs without constants: kept with the first."""
    cache: WeakKeyDictionary[Jaxpr, dict[Any, Any]] = WeakKeyDictionary()
    _caches.append(cache)

    def memoised(programs: tuple[ClosedJaxpr, ...], *key: Any) -> Any:
        per = cache.setdefault(programs[0].jaxpr, {})
        full = (STATE.axes, tuple([weakref.ref(p.jaxpr) for p in programs[1:]]), key)
        if full not in per:
            per[full] = fun(programs, *key)
        return per[full]

    return memoised  # type: ignore[return-value]


def clear_derived() -> None:
    clear_interned()
    for cache in _caches:
        cache.clear()


def call_jaxpr(closed: ClosedJaxpr) -> Callable[..., list[Any]]:
    """The jaxpr as a function, interpreted in the current trace."""
    return lambda *args: eval_jaxpr(closed.jaxpr, closed.consts, *args)


@per_jaxpr
def jvp_jaxpr(closed: ClosedJaxpr, nonzero: tuple[bool, ...]) -> tuple[ClosedJaxpr, tuple[bool, ...]]:
    """``(primals, nonzero tangents) -> (outs, nonzero tangent outs)`` and which tangent outs those are."""
    n = len(closed.in_avals)
    out_nonzero: tuple[bool, ...] = ()

    def fun(*args: Any) -> list[Any]:
        nonlocal out_nonzero
        rest = iter(args[n:])
        tangents = [next(rest) if nz else ZERO for nz in nonzero]
        outs, t_outs = jvp_flat(call_jaxpr(closed), args[:n], tangents)
        out_nonzero = tuple([t is not ZERO for t in t_outs])
        return [*outs, *[t for t in t_outs if t is not ZERO]]

    avals = [*closed.in_avals, *[a.strong() for a, nz in zip(closed.in_avals, nonzero, strict=True) if nz]]
    return stage(fun, avals, f"jvp({closed.jaxpr.name})"), out_nonzero


@record(frozen=True)
class Linearized:
    """``primal``: ``ins -> (outs, new residuals)``. A residual is an input, an output or new: ``sources`` are indices
    into ``[*ins, *primal's results]``. ``linear``: ``(residuals, nonzero tangents) -> nonzero tangent outs``."""

    primal: ClosedJaxpr
    linear: ClosedJaxpr
    sources: tuple[int, ...]
    n_outs: int
    out_nonzero: tuple[bool, ...]


@per_jaxpr
def linearized_jaxpr(closed: ClosedJaxpr, nonzero: tuple[bool, ...]) -> Linearized:
    found: dict[str, Any] = {}

    def fun(*args: Any) -> list[Any]:
        outs, lin = linearize_flat(call_jaxpr(closed), args, nonzero)
        linear, residuals = lin.to_jaxpr()
        known = {id(x): k for k, x in enumerate(args)}
        results = list(outs)
        for k, x in enumerate(results):
            known.setdefault(id(x), len(args) + k)
        sources = []
        for r in residuals:
            if id(r) not in known:
                known[id(r)] = len(args) + len(results)
                results.append(r)
            sources.append(known[id(r)])
        found.update(linear=linear, sources=tuple(sources), n_outs=len(outs), keep=results)
        found["out_nonzero"] = tuple([o is not None for o in lin.outs])
        return results

    primal = stage(fun, closed.in_avals, closed.jaxpr.name)
    return Linearized(primal, found["linear"], found["sources"], found["n_outs"], found["out_nonzero"])


@per_jaxpr
def transposed_jaxpr(
    closed: ClosedJaxpr, linear: tuple[bool, ...], nonzero_cts: tuple[bool, ...]
) -> tuple[ClosedJaxpr, tuple[bool, ...]]:
    """``(non-linear operands, nonzero cotangents) -> nonzero cotangents of the linear operands``, and which."""
    n_known = linear.count(False)
    out_nonzero: tuple[bool, ...] = ()

    def fun(*args: Any) -> list[Any]:
        nonlocal out_nonzero
        known, cts = iter(args[:n_known]), iter(args[n_known:])

        def of_linear_operands(*xs: Any) -> list[Any]:
            rest = iter(xs)
            return call_jaxpr(closed)(*[next(rest) if is_linear else next(known) for is_linear in linear])

        function, _ = linear_function(of_linear_operands, list(itertools.compress(closed.in_avals, linear)))
        pulled = function.transpose([next(cts) if nz else ZERO for nz in nonzero_cts])
        out_nonzero = tuple([c is not ZERO for c in pulled])
        return [c for c in pulled if c is not ZERO]

    avals = [a for a, is_linear in zip(closed.in_avals, linear, strict=True) if not is_linear]
    avals += [a.strong() for a, nz in zip(closed.out_avals, nonzero_cts, strict=True) if nz]
    return stage(fun, avals, f"transpose({closed.jaxpr.name})"), out_nonzero


def grown(a: ShapedArray, d: int | None, size: int) -> ShapedArray:
    """The aval with a batch axis at ``d``."""
    return a if d is None else a.update(shape=(*a.shape[:d], size, *a.shape[d:]))


@per_jaxpr
def batched_jaxpr(
    closed: ClosedJaxpr, size: int, dims: tuple[int | None, ...], axis_name: Any
) -> tuple[ClosedJaxpr, tuple[int | None, ...]]:
    """The jaxpr over batched operands, and the batch axis of each result."""
    out_dims: tuple[int | None, ...] = ()

    def fun(*args: Any) -> list[Any]:
        nonlocal out_dims
        outs, found = batch_subtrace(call_jaxpr(closed), size, args, dims, axis_name)
        out_dims = tuple(found)
        return outs

    avals = [grown(a, d, size) for a, d in zip(closed.in_avals, dims, strict=True)]
    return stage(fun, avals, f"vmap({closed.jaxpr.name})"), out_dims


def select_program(
    closed: ClosedJaxpr, inputs: Sequence[int], outs: Sequence[Atom], effects: bool = False
) -> ClosedJaxpr:
    """The part of a jaxpr that computes ``outs`` (variables of it) from some of its inputs. ``effects``: and that has
    its effects; there must be one such part."""
    jaxpr = closed.jaxpr
    invars = tuple([jaxpr.invars[k] for k in inputs])
    eqns = tuple(live_eqns(jaxpr.eqns, outs, effects))
    part = ClosedJaxpr(Jaxpr(jaxpr.constvars, invars, eqns, tuple(outs), jaxpr.name), closed.consts)
    return part if effects else silent(part)


class ValueOfEffectError(FuncgradError):
    """A program is to be run once more that has a value from an effect; ``where`` names that."""

    def __init__(self, eqn: Eqn) -> None:
        self.where = f"{eqn.primitive} at {eqn.source}"
        super().__init__(
            f"{self.where} gives a value inside a loop that this derivative runs more than once: it would be called "
            "again and may answer otherwise. Call it before the loop, or write the loop with scan (without checkpoint)."
        )


@per_jaxpr
def silent(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The program without its effects, to compute its values once more; the same object where it has none.

    Raises:
        ValueOfEffectError: a value comes from an effect, so that it cannot be had twice.
    """
    jaxpr = closed.jaxpr
    if not any(map(has_effect, jaxpr.eqns)):
        return closed
    eqns = tuple([silent_eqn(e) for e in live_eqns(jaxpr.eqns, jaxpr.outvars, effects=False)])
    return ClosedJaxpr(Jaxpr(jaxpr.constvars, jaxpr.invars, eqns, jaxpr.outvars, jaxpr.name), closed.consts)


def silent_eqn(eqn: Eqn) -> Eqn:
    if not has_effect(eqn):
        return eqn
    if eqn.primitive.has_effect:
        raise ValueOfEffectError(eqn)
    params = {
        k: silent(v) if isinstance(v, ClosedJaxpr)
        else tuple([silent(x) if isinstance(x, ClosedJaxpr) else x for x in v]) if isinstance(v, tuple) else v
        for k, v in eqn.params.items()
    }  # fmt: skip
    return Eqn(eqn.primitive, eqn.invars, params, eqn.outvars, eqn.source)


def linearize_by_running(fun: Callable[..., Sequence[Any]]) -> Callable[..., Any]:
    """The ``linearize`` rule of a primitive that is its function ``fun(*args, **params)``: linearize what it does.

    (Its JVP would carry primals and tangents through the same loops, of which the transpose wants them apart.)
    """

    def linearize(nonzero: Sequence[bool], primals: Sequence[Any], **params: Any) -> Any:
        floats = [nz and aval_of(x).dtype.kind in "fc" for nz, x in zip(nonzero, primals, strict=True)]
        outs, linear = linearize_flat(lambda *xs: fun(*xs, **params), primals, floats)
        used = list(itertools.compress(floats, nonzero))
        return outs, lambda *tangents: linear.apply(list(itertools.compress(tangents, used)))

    return linearize


def live_jaxpr(closed: ClosedJaxpr, residuals: Sequence[Any]) -> tuple[ClosedJaxpr, list[Any]]:
    """A linear program ``(residuals, tangents)`` and its residuals, without those that no result needs. Residuals
    that are arrays already become constants of the program."""
    jaxpr, n = closed.jaxpr, len(residuals)
    eqns = tuple(live_eqns(jaxpr.eqns, jaxpr.outvars))
    used = {a for a in (*jaxpr.outvars, *[a for eqn in eqns for a in eqn.invars]) if type(a) is Var}
    pairs = [(v, x) for v, x in zip(jaxpr.invars[:n], residuals, strict=True) if v in used]
    fixed = [(v, x) for v, x in pairs if not isinstance(x, Tracer)]
    traced = [(v, x) for v, x in pairs if isinstance(x, Tracer)]
    constvars = (*jaxpr.constvars, *[v for v, _ in fixed])
    live = Jaxpr(constvars, (*[v for v, _ in traced], *jaxpr.invars[n:]), eqns, jaxpr.outvars, jaxpr.name)
    return ClosedJaxpr(live, (*closed.consts, *[x for _, x in fixed])), [x for _, x in traced]


def without_constants(closed: ClosedJaxpr) -> tuple[tuple[Any, ...], ClosedJaxpr]:
    """The constants, and the jaxpr with them as leading inputs."""
    return closed.consts, closed_over(closed.consts, closed) if closed.consts else closed


def closed_over(consts: Sequence[Any], closed: ClosedJaxpr) -> ClosedJaxpr:
    """The jaxpr with its constants as leading inputs."""
    jaxpr = closed.jaxpr
    assert len(consts) == len(jaxpr.constvars)
    invars: tuple[Var, ...] = (*jaxpr.constvars, *jaxpr.invars)
    return ClosedJaxpr(Jaxpr((), invars, jaxpr.eqns, jaxpr.outvars, jaxpr.name))
