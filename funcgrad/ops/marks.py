"""Identities that say something to whoever compiles or differentiates the program.

``optimization_barrier``: nothing behind it is merged with, or moved to, what comes before it. ``checkpoint_name``: a
value has a name, by which policies of ``checkpoint`` choose what is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.lowering import Barrier, View
from ..core.primitive import ZERO, Linear, Primitive
from .structural import linear_unary

__all__ = ["name_p", "optimization_barrier_p"]


def _among(xs: Sequence[Any]) -> list[Any]:
    """All that are not ``ZERO`` behind one barrier."""
    given = [x for x in xs if x is not ZERO]
    passed = iter(optimization_barrier_p.bind(*given) if given else ())
    return [x if x is ZERO else next(passed) for x in xs]


def _barrier_transpose(cts: Sequence[Any], *operands: Any) -> list[Any]:
    wanted = [c if type(x) is Linear else ZERO for c, x in zip(cts, operands, strict=True)]
    return [c if type(x) is Linear else None for c, x in zip(_among(wanted), operands, strict=True)]


optimization_barrier_p: Primitive = Primitive(
    "optimization_barrier",
    impl=lambda *xs: xs,
    shape=lambda *avals: avals,
    jvp=lambda primals, tangents, out: _among(tangents),
    transpose=_barrier_transpose,
    batch=lambda size, args, dims: (optimization_barrier_p.bind(*args), list(dims)),
    lower=Barrier(),
    multiple_results=True,
    samples=lambda rng: [
        ((rng.normal(size=(2, 3)), rng.normal(size=4)), {}),
        ((rng.normal(size=3), rng.integers(0, 9, size=3)), {}),
    ],
)

name_p: Primitive = linear_unary(
    "name",
    impl=lambda x, *, name: x,
    shape=lambda x, *, name: x,
    transpose=lambda ct, x, *, name: (ct,),
    batch=lambda size, args, dims, *, name: (name_p.bind(args[0], name=name), dims[0]),
    lower=View(lambda layout, *, name: layout),
    samples=lambda rng: [((rng.normal(size=(2, 3)),), {"name": "kept"})],
)
"""Its tangents have the name as well: a policy that keeps them keeps them in higher derivatives."""
