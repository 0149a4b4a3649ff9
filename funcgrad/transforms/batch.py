"""Batching: run a function once on arrays that carry a batch axis, instead of once per element.

A ``BatchTracer`` is a value with the position of its batch axis. Collectives over the axis's name (``psum``) are
processed by the trace that owns the name; all other operations by the primitive's batching rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.avals import ShapedArray, aval_of
from ..core.primitive import Primitive
from ..core.trace import STATE, Trace, Tracer, axis_environment, inside_transform, opened
from ..ops.structural import broadcast_in_dim, moveaxis, shape_of

__all__ = ["NO_NAME", "BatchTrace", "BatchTracer", "batch_flat", "move_batch"]

NO_NAME = object()
"""The name of a vmapped axis that the user did not name."""


class BatchTracer(Tracer):
    __slots__ = ("dim", "val")
    contents = ("dim", "val")

    def __init__(self, trace: BatchTrace, val: Any, dim: int) -> None:
        self._trace = trace
        self._views = None
        self.val = val
        self.dim = dim

    @property
    def aval(self) -> ShapedArray:
        aval = aval_of(self.val)
        return ShapedArray(aval.shape[: self.dim] + aval.shape[self.dim + 1 :], aval.dtype, aval.weak_type)

    def origin(self) -> str:
        return "a vmap" + self._trace.of_user()


class BatchTrace(Trace):
    __slots__ = ("axis_name", "size")

    def __init__(
        self, parent: Trace, size: int, axis_name: Any = NO_NAME, user: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(parent, user)
        self.size = size
        self.axis_name = axis_name

    def split(self, x: Any) -> tuple[Any, int | None]:
        return (x.val, x.dim) if type(x) is BatchTracer and x._trace is self else (x, None)

    @inside_transform
    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        vals, dims = zip(*map(self.split, args), strict=True) if args else ((), ())
        parent = self.parent
        assert parent is not None
        mine = primitive.collective is not None and params.get("axis_name") == self.axis_name
        inside = primitive.needs_axis and self.axis_name is not NO_NAME
        if not mine and not inside and all([d is None for d in dims]):
            return parent.process(primitive, vals, params)
        rule = primitive.collective if mine else primitive.batch
        assert rule is not None
        size = (self.size, self.axis_name) if primitive.needs_axis else self.size
        saved, STATE.trace = STATE.trace, parent
        try:
            out, out_dims = rule(size, vals, dims, **params)
        finally:
            STATE.trace = saved
        if primitive.multiple_results:
            if not isinstance(out_dims, (tuple, list)):
                out_dims = (out_dims,) * len(out)
            return tuple([self.wrap(o, d) for o, d in zip(out, out_dims, strict=True)])
        return self.wrap(out, out_dims)

    def wrap(self, val: Any, dim: int | None) -> Any:
        return val if dim is None else BatchTracer(self, val, dim)


def move_batch(size: int, x: Any, dim: int | None, out_dim: int) -> Any:
    """The batch axis of ``x`` at ``out_dim``; an unbatched value is repeated along it."""
    shape = shape_of(x)
    if dim is None:
        target = (*shape[:out_dim], size, *shape[out_dim:])
        return broadcast_in_dim(x, target, [a + (a >= out_dim) for a in range(len(shape))])
    return x if dim == out_dim else moveaxis(x, dim, out_dim)


def batch_flat(
    fun: Callable[..., Sequence[Any]],
    size: int,
    args: Sequence[Any],
    dims: Sequence[int | None],
    out_dims: Sequence[int | None] | Callable[[int], Sequence[int | None]],
    axis_name: Any = NO_NAME,
    user: Callable[..., Any] | None = None,
) -> list[Any]:
    """``fun`` over the batch axes ``dims`` of ``args``; results carry theirs at ``out_dims``.

    ``out_dims`` may be a function of the number of results. An ``out_dim`` of None asks for a result that does not
    depend on the batch. ``user`` is the user's function, for messages.
    """
    vals, found = batch_subtrace(fun, size, args, dims, axis_name, user)
    wanted = out_dims(len(vals)) if callable(out_dims) else out_dims
    results = []
    for x, d, w in zip(vals, found, wanted, strict=True):
        if w is None:
            if d is not None:
                raise ValueError(
                    "vmap: an entry of out_axes is None, but the result it stands for depends on the mapped axis. "
                    "Give the axis at which to stack it, for instance 0."
                )
            results.append(x)
        else:
            results.append(move_batch(size, x, d, w))
    return results


def batch_subtrace(
    fun: Callable[..., Sequence[Any]],
    size: int,
    args: Sequence[Any],
    dims: Sequence[int | None],
    axis_name: Any = NO_NAME,
    user: Callable[..., Any] | None = None,
) -> tuple[list[Any], list[int | None]]:
    """As ``batch_flat``, leaving each result's batch axis where it fell (None: not batched)."""
    trace = BatchTrace(STATE.trace, size, axis_name, user)
    tracers = [trace.wrap(x, d) for x, d in zip(args, dims, strict=True)]
    with axis_environment(axis_name, size), opened(trace):
        outs = fun(*tracers)
    pairs = [trace.split(x) for x in outs]
    return [v for v, _ in pairs], [d for _, d in pairs]
