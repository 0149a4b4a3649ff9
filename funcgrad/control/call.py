"""Calls of jaxprs: ``jit_p``, which is to be compiled as a unit, and ``named_call_p``, which merely has a name.

The transforms act on the jaxpr and call the result, so that ``grad(jit(f))`` runs a compiled forward and a compiled
backward program. Inside another compiled program the call is expanded by the ``inline`` pass.

How a call is executed is set by the composition root (``set_executor``): this layer knows no compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import tree
from ..core.avals import aval_of
from ..core.jaxpr import ClosedJaxpr
from ..core.lowering import Call
from ..core.primitive import ZERO, Linear, Primitive
from ..core.staging import stage
from ..transforms.flat import FlatFunction, check_arguments, check_callable, function_name, own_all, wraps
from .derived import batched_jaxpr, call_jaxpr, closed_over, jvp_jaxpr, linearized_jaxpr, transposed_jaxpr

__all__ = ["jit_p", "named_call", "named_call_p", "set_executor"]


def _interpret(closed: ClosedJaxpr, args: Sequence[Any]) -> Sequence[Any]:
    return call_jaxpr(closed)(*args)


_execute: Callable[[ClosedJaxpr, Sequence[Any]], Sequence[Any]] = _interpret


def set_executor(execute: Callable[[ClosedJaxpr, Sequence[Any]], Sequence[Any]]) -> None:
    """Say how ``jit_p`` runs on concrete arrays."""
    global _execute
    _execute = execute


def _call_primitive(name: str, run: Callable[[ClosedJaxpr, Sequence[Any]], Sequence[Any]]) -> Primitive:
    """A primitive that is its ``jaxpr``, on concrete values ``run``; transformed, it calls the transformed program."""

    def forward(primals: Sequence[Any], tangents: Sequence[Any], *, jaxpr: ClosedJaxpr, name: str) -> Any:
        nonzero = tuple([t is not ZERO for t in tangents])
        derived, out_nonzero = jvp_jaxpr(jaxpr, nonzero)
        given = [t for t in tangents if t is not ZERO]
        results = primitive.bind(*primals, *given, jaxpr=derived, name=f"jvp({name})")
        n_outs = len(out_nonzero)
        rest = iter(results[n_outs:])
        return results[:n_outs], [next(rest) if nz else ZERO for nz in out_nonzero]

    def jvp(primals: Sequence[Any], tangents: Sequence[Any], out: Any, **params: Any) -> Any:
        return forward(primals, tangents, **params)[1]

    def linearize(nonzero: Sequence[bool], primals: Sequence[Any], *, jaxpr: ClosedJaxpr, name: str) -> Any:
        lin = linearized_jaxpr(jaxpr, tuple(nonzero))
        results = primitive.bind(*primals, jaxpr=lin.primal, name=name)
        pool = [*primals, *results]
        residuals = [pool[k] for k in lin.sources]
        active = [a for a, nz in zip(jaxpr.in_avals, nonzero, strict=True) if nz]

        def apply(*tangents: Any) -> list[Any]:
            inexact = [t for t, a in zip(tangents, active, strict=True) if a.dtype.kind in "fc"]
            rest = iter(primitive.bind(*residuals, *inexact, jaxpr=lin.linear, name=f"linear({name})"))
            return [next(rest) if nz else ZERO for nz in lin.out_nonzero]

        return results[: lin.n_outs], apply

    def transpose(cts: Sequence[Any], *operands: Any, jaxpr: ClosedJaxpr, name: str) -> Any:
        linear = tuple([type(x) is Linear for x in operands])
        nonzero = tuple([c is not ZERO for c in cts])
        derived, out_nonzero = transposed_jaxpr(jaxpr, linear, nonzero)
        known = [x for x in operands if type(x) is not Linear]
        given = [c for c in cts if c is not ZERO]
        results = iter(primitive.bind(*known, *given, jaxpr=derived, name=f"transpose({name})"))
        flags = iter(out_nonzero)
        return [(next(results) if next(flags) else ZERO) if is_linear else None for is_linear in linear]

    def batch(
        axis: tuple[int, Any], args: Sequence[Any], dims: Sequence[int | None], *, jaxpr: ClosedJaxpr, name: str
    ) -> Any:
        size, axis_name = axis
        derived, out_dims = batched_jaxpr(jaxpr, size, tuple(dims), axis_name)
        return primitive.bind(*args, jaxpr=derived, name=f"vmap({name})"), out_dims

    primitive = Primitive(
        name,
        impl=lambda *args, jaxpr, name: run(jaxpr, args),
        shape=lambda *avals, jaxpr, name: tuple(jaxpr.out_avals),
        jvp=jvp,
        transpose=transpose,
        batch=batch,
        lower=Call(),
        multiple_results=True,
        linearize=linearize,
        forward=forward,
        needs_axis=True,
    )
    return primitive


jit_p = _call_primitive("jit", lambda closed, args: _execute(closed, args))
named_call_p = _call_primitive("named_call", _interpret)


def named_call(fun: Callable[..., Any], *, name: str | None = None) -> Callable[..., Any]:
    """``fun`` as a call of its own in the program: its name stands in the jaxpr, and what the transformations make of
    it is ``jvp(name)``, ``transpose(name)`` and so on. Compilation expands it.

    Args:
        name: the function's own by default.

    >>> from funcgrad import make_jaxpr
    >>> print(make_jaxpr(named_call(lambda x: x * 2, name="double"))(1.0))
    { lambda ; a:f64[]. let
        b:f64[] = named_call[
          jaxpr={ lambda ; a:f64[]. let
              b:f64[] = mul a 2.0:f64[]
            in (b,) }
          name=double
        ] a
      in (b,) }
    """
    check_callable(fun, "named_call")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"named_call: name must be a string, found {name!r}")
    text = function_name(fun) if name is None else name

    @wraps(fun, "named_call", "Takes the same arguments.")
    def named(*args: Any, **kwargs: Any) -> Any:
        leaves, in_tree = tree.flatten((args, kwargs))
        check_arguments(fun, args, kwargs, leaves, "named_call")
        flat = FlatFunction(fun, in_tree)
        closed = stage(flat, [aval_of(x) for x in leaves], text)
        program = closed_over(closed.consts, closed)
        outs = named_call_p.bind(*closed.consts, *leaves, jaxpr=program, name=text)
        return flat.out_tree.unflatten(own_all(outs, leaves))

    return named
