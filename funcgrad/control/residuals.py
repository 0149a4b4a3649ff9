"""What reverse mode would keep of a function, and where each value comes from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .. import tree
from ..core.avals import ShapedArray, aval_of
from ..core.jaxpr import ClosedJaxpr, Eqn, Jaxpr, Var
from ..core.lowering import Call, Scan
from ..core.staging import stage
from ..ops.marks import name_p
from ..transforms.flat import FlatFunction, check_arguments, check_callable, function_name, leaf_name
from ..transforms.linear import linearize_flat
from .derived import live_jaxpr

__all__ = ["print_saved_residuals", "saved_residuals"]


def saved_residuals(f: Callable[..., Any], *args: Any, **kwargs: Any) -> list[tuple[ShapedArray, str]]:
    """The values that ``grad`` or ``vjp`` of ``f`` would keep for the backward pass, without running it.

    Args:
        f: any function of arrays.
        args, kwargs: arguments as for a call, arrays or `ShapeDtypeStruct`.

    Returns:
        For each value its type and, in words, where it comes from. Numbers are not counted.

    >>> import numpy as np
    >>> from funcgrad import checkpoint
    >>> [(aval, origin)] = saved_residuals(checkpoint(lambda x: np.sum(np.sin(x))), np.ones(3))
    >>> aval.shape, origin
    ((3,), "from the argument 'x'")
    """
    check_callable(f, "saved_residuals")
    leaves, in_tree = tree.flatten((args, kwargs))
    check_arguments(f, args, kwargs, leaves, "saved_residuals", abstract=True)
    flat = FlatFunction(f, in_tree)
    keep: list[Any] = []

    def residuals(*xs: Any) -> list[Any]:
        _, linear = linearize_flat(flat, xs, user=f)
        keep.append(linear)
        program, traced = live_jaxpr(*linear.to_jaxpr())
        return [*program.consts, *traced]

    closed = stage(residuals, [aval_of(x) for x in leaves], function_name(f))
    jaxpr = closed.jaxpr
    paths = [path for path, _ in tree.leaves_with_path((args, kwargs))]
    inputs = {v: _argument(f, path) for v, path in zip(jaxpr.invars, paths, strict=True)}
    origin = _origins(jaxpr, {**inputs, **dict.fromkeys(jaxpr.constvars, "from a constant")})
    found = dict.fromkeys([v for v in jaxpr.outvars if type(v) is Var])
    return [(v.aval, origin[v]) for v in found]


def _argument(f: Callable[..., Any], path: tuple[Any, ...]) -> str:
    try:
        names = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        names = []
    rest = [p for p in names if p.kind is inspect.Parameter.VAR_POSITIONAL]
    if path[0].idx == 0 and rest and path[1].idx >= len(names) - 1:
        return f"from the argument {rest[0].name}[{path[1].idx - names.index(rest[0])}]{tree.keystr(path[2:])}"
    return f"from the {leaf_name(f, path)}"


def _origins(jaxpr: Jaxpr, inputs: dict[Var, str]) -> dict[Var, str]:
    """Where each variable comes from; what calls and loops give is sought in their programs."""
    origin = dict(inputs)
    for eqn in jaxpr.eqns:
        texts = [_operation(eqn)] * len(eqn.outvars)
        lower, program = eqn.primitive.lower, eqn.params.get("jaxpr")
        if isinstance(lower, (Call, Scan)) and isinstance(program, ClosedJaxpr):
            inner = program.jaxpr
            given = [origin[a] if type(a) is Var else "a number" for a in eqn.invars]
            known = dict.fromkeys(inner.constvars, "from a constant")
            found = _origins(inner, {**dict(zip(inner.invars, given, strict=True)), **known})
            first = 0 if isinstance(lower, Call) else eqn.params["n_carry"]
            steps = "" if isinstance(lower, Call) else ", at every step of a scan"
            for k, a in enumerate(inner.outvars[first:], first):
                texts[k] = (found[a] if type(a) is Var else "a number") + steps
        origin.update(zip(eqn.outvars, texts, strict=True))
    return origin


def _operation(eqn: Eqn) -> str:
    where = f" from {eqn.source}" if eqn.source is not None else ""
    if eqn.primitive is name_p:
        return f"named {eqn.params['name']!r}{where}"
    return f"output of {eqn.primitive}{where}"


def print_saved_residuals(f: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Print what `saved_residuals` finds, a line for each value.

    >>> import numpy as np
    >>> from funcgrad import checkpoint
    >>> print_saved_residuals(checkpoint(lambda w, x: np.tanh(w @ x)), np.ones((2, 3)), np.ones(3))
    f64[2,3] from the argument 'w'
    f64[3] from the argument 'x'
    """
    for aval, origin in saved_residuals(f, *args, **kwargs):
        print(f"{aval.short()} {origin}")
