"""Looking at programs without running them: ``make_jaxpr`` and ``eval_shape``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import tree
from ..core.avals import ShapeDtypeStruct, aval_of
from ..core.jaxpr import ClosedJaxpr
from ..core.staging import stage
from ..core.trace import EVAL, STATE, Tracer, leaked
from .flat import FlatFunction, check_arguments, check_callable, function_name, static_positions, wraps

__all__ = ["ShapeDtypeStruct", "eval_shape", "make_jaxpr", "stage_call"]


def stage_call(
    fun: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], transform: str, static: Sequence[int] = ()
) -> tuple[ClosedJaxpr, Any]:
    """The jaxpr of ``fun(*args, **kwargs)`` over the leaves of its non-static arguments, and the result's structure."""
    fixed = {p: args[p] for p in static_positions(static, len(args), transform)}
    dynamic = [x for p, x in enumerate(args) if p not in fixed]

    def partial(*xs: Any, **kws: Any) -> Any:
        rest = iter(xs)
        return fun(*[fixed[p] if p in fixed else next(rest) for p in range(len(args))], **kws)

    partial.__name__ = function_name(fun)
    leaves, in_tree = tree.flatten((tuple(dynamic), kwargs))
    named = [None if p in fixed else x for p, x in enumerate(args)]
    check_arguments(fun, named, kwargs, leaves, transform, abstract=True)
    flat = FlatFunction(partial, in_tree)
    closed = stage(flat, [aval_of(x) for x in leaves], flat.__name__)
    if STATE.trace is EVAL:
        for const in closed.consts:
            if isinstance(const, Tracer):
                raise leaked(const, flat.__name__)
    return closed, flat.out_tree


def make_jaxpr(
    fun: Callable[..., Any], static_argnums: int | Sequence[int] = (), return_shape: bool = False
) -> Callable[..., Any]:
    """A function that returns the jaxpr of ``fun`` for the shapes and dtypes of its arguments.

    >>> print(make_jaxpr(lambda x: 2.0 * x)(1.0))
    { lambda ; a:f64[]. let
        b:f64[] = mul 2.0:f64[] a
      in (b,) }
    """
    check_callable(fun, "make_jaxpr")
    static = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)

    @wraps(fun, "make_jaxpr", "Takes the same arguments; returns a ClosedJaxpr.")
    def jaxpr_maker(*args: Any, **kwargs: Any) -> Any:
        closed, out_tree = stage_call(fun, args, kwargs, "make_jaxpr", static)
        if return_shape:
            return closed, out_tree.unflatten([ShapeDtypeStruct(a.shape, a.dtype) for a in closed.out_avals])
        return closed

    return jaxpr_maker


def eval_shape(fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result's structure with ``ShapeDtypeStruct`` leaves, found by tracing, without computing anything.

    >>> eval_shape(lambda a, b: a @ b, ShapeDtypeStruct((2, 3), float), ShapeDtypeStruct((3, 5), float))
    ShapeDtypeStruct(shape=(2, 5), dtype=float64)
    """
    check_callable(fun, "eval_shape")
    closed, out_tree = stage_call(fun, args, kwargs, "eval_shape")
    return out_tree.unflatten([ShapeDtypeStruct(a.shape, a.dtype) for a in closed.out_avals])
