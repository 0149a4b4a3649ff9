"""``jit_p``: a call of a jaxpr that is to be compiled as a unit.

The transforms act on the jaxpr and call the result, so that ``grad(jit(f))`` runs a compiled forward and a compiled
backward program. Inside another compiled program the call is expanded by the ``inline`` pass.

How a call is executed is set by the composition root (``set_executor``): this layer knows no compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.avals import ShapedArray
from ..core.jaxpr import ClosedJaxpr
from ..core.lowering import Call
from ..core.primitive import ZERO, Linear, Primitive
from .derived import batched_jaxpr, call_jaxpr, jvp_jaxpr, linearized_jaxpr, transposed_jaxpr

__all__ = ["jit_p", "set_executor"]


def _interpret(closed: ClosedJaxpr, args: Sequence[Any]) -> Sequence[Any]:
    return call_jaxpr(closed)(*args)


_execute: Callable[[ClosedJaxpr, Sequence[Any]], Sequence[Any]] = _interpret


def set_executor(execute: Callable[[ClosedJaxpr, Sequence[Any]], Sequence[Any]]) -> None:
    """Say how ``jit_p`` runs on concrete arrays."""
    global _execute
    _execute = execute


def _impl(*args: Any, jaxpr: ClosedJaxpr, name: str) -> Any:
    return _execute(jaxpr, args)


def _shape(*avals: ShapedArray, jaxpr: ClosedJaxpr, name: str) -> Any:
    return tuple(jaxpr.out_avals)


def _forward(primals: Sequence[Any], tangents: Sequence[Any], *, jaxpr: ClosedJaxpr, name: str) -> Any:
    nonzero = tuple([t is not ZERO for t in tangents])
    derived, out_nonzero = jvp_jaxpr(jaxpr, nonzero)
    results = jit_p.bind(*primals, *[t for t in tangents if t is not ZERO], jaxpr=derived, name=f"jvp({name})")
    n_outs = len(out_nonzero)
    rest = iter(results[n_outs:])
    return results[:n_outs], [next(rest) if nz else ZERO for nz in out_nonzero]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], out: Any, **params: Any) -> Any:
    return _forward(primals, tangents, **params)[1]


def _linearize(nonzero: Sequence[bool], primals: Sequence[Any], *, jaxpr: ClosedJaxpr, name: str) -> Any:
    lin = linearized_jaxpr(jaxpr, tuple(nonzero))
    results = jit_p.bind(*primals, jaxpr=lin.primal, name=name)
    pool = [*primals, *results]
    residuals = [pool[k] for k in lin.sources]

    def apply(*tangents: Any) -> list[Any]:
        inexact = [
            t
            for t, a in zip(tangents, [a for a, nz in zip(jaxpr.in_avals, nonzero, strict=True) if nz], strict=True)
            if a.dtype.kind in "fc"
        ]
        rest = iter(jit_p.bind(*residuals, *inexact, jaxpr=lin.linear, name=f"linear({name})"))
        return [next(rest) if nz else ZERO for nz in lin.out_nonzero]

    return results[: lin.n_outs], apply


def _transpose(cts: Sequence[Any], *operands: Any, jaxpr: ClosedJaxpr, name: str) -> Any:
    linear = tuple([type(x) is Linear for x in operands])
    nonzero = tuple([c is not ZERO for c in cts])
    derived, out_nonzero = transposed_jaxpr(jaxpr, linear, nonzero)
    known = [x for x in operands if type(x) is not Linear]
    results = iter(jit_p.bind(*known, *[c for c in cts if c is not ZERO], jaxpr=derived, name=f"transpose({name})"))
    flags = iter(out_nonzero)
    return [(next(results) if next(flags) else ZERO) if is_linear else None for is_linear in linear]


def _batch(
    axis: tuple[int, Any], args: Sequence[Any], dims: Sequence[int | None], *, jaxpr: ClosedJaxpr, name: str
) -> Any:
    size, axis_name = axis
    derived, out_dims = batched_jaxpr(jaxpr, size, tuple(dims), axis_name)
    return jit_p.bind(*args, jaxpr=derived, name=f"vmap({name})"), out_dims


jit_p = Primitive(
    "jit",
    impl=_impl,
    shape=_shape,
    jvp=_jvp,
    transpose=_transpose,
    batch=_batch,
    lower=Call(),
    multiple_results=True,
    linearize=_linearize,
    forward=_forward,
    needs_axis=True,
)
