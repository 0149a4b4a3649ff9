"""The adjoint equation: the derivative of the exact solution, by an equation of its own that is solved backwards.

With the cotangent ``a(t)`` of the state, ``da/dt = -a ∂f/∂y``, and the parameters receive ``∫ a ∂f/∂p dt``. The state
is not kept but solved backwards as well, from each output time to the one before, where it starts anew from the
solution there and the cotangent of that output is added (Chen, Rubanova, Bettencourt, Duvenaud, *Neural Ordinary
Differential Equations*, 2018). Memory does not depend on the number of steps; the accuracy is that of the tolerances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..control.iterate import scan
from ..core.avals import aval_of
from ..ops.promotion import as_dtype
from ..ops.shape import concatenate, slice_in_dim, stack
from ..ops.structural import reshape, shape_of
from ..transforms.derive import vjp
from ..util import prod
from .loop import Control, integrate
from .methods import Field

__all__ = ["pull"]


def pull(
    field: Callable[..., Field], params: Sequence[Any], ts: Any, ys: Any, cts: Any, control: Control
) -> tuple[Any, Any, list[Any]]:
    """Cotangents of the first state, of the times and of the parameters; ``ys`` is the solution at the times."""
    n = shape_of(ys)[1]
    dtype = aval_of(ys).dtype
    shapes = [shape_of(p) for p in params]
    dtypes = [aval_of(p).dtype for p in params]
    sizes = [prod(s) for s in shapes]
    complex_params = any([d.kind == "c" for d in dtypes])
    if complex_params:
        raise TypeError(
            "odeint: adjoint='continuous' takes real parameters, found a complex one; use adjoint='discrete'"
        )

    def flat(values: Sequence[Any]) -> list[Any]:
        return [as_dtype(reshape(v, (k,)), dtype) for v, k in zip(values, sizes, strict=True) if k]

    def backwards(z: Any, s: Any) -> Any:
        """The state, its cotangent and the integrals, in time that runs backwards."""
        y, a = z[:n], z[n : 2 * n]
        slope, pullback = vjp(lambda y, *p: field(*p)(y, -s), y, *params)
        from_y, *from_params = pullback(a)
        return concatenate([-slope, from_y, *flat(from_params)], 0)

    def step(carry: Any, x: Any) -> Any:
        a, integrals = carry
        y, ct, t, before = x
        a = a + ct
        to_time = np.sum(ct * field(*params)(y, t))
        z = concatenate([y, a, integrals], 0)
        z = integrate(backwards, z, stack([-t, -before], 0), control).ys[1]
        return (z[n : 2 * n], z[2 * n :]), to_time

    begun = (np.zeros(n, dtype), np.zeros(sum(sizes), dtype))
    (a, integrals), to_times = scan(step, begun, (ys[1:], cts[1:], ts[1:], ts[:-1]), reverse=True)
    to_start = -np.sum(a * field(*params)(ys[0], ts[0]))
    ct_ts = concatenate(
        [reshape(as_dtype(to_start, aval_of(ts).dtype), (1,)), as_dtype(to_times, aval_of(ts).dtype)], 0
    )
    found, start = [], 0
    for shape, size, kind in zip(shapes, sizes, dtypes, strict=True):
        found.append(as_dtype(reshape(slice_in_dim(integrals, start, start + size), shape), kind))
        start += size
    return a + cts[0], ct_ts, found
