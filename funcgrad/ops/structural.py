"""The maps that move elements and add them up: reshape, transpose, broadcast and its transpose, the sum.

They are linear, they are each other's transposes, and every other family needs them for batching and broadcasting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Reduce, View
from ..core.primitive import ZERO, Linear, Primitive
from ..core.trace import STATE
from ..util import canonicalize_axis

__all__ = [
    "bind_checked",
    "broadcast_in_dim",
    "broadcast_in_dim_p",
    "broadcast_to",
    "expand_dims",
    "is_linear_unary",
    "moveaxis",
    "reduce_sum",
    "reduce_sum_p",
    "reshape",
    "reshape_p",
    "shape_of",
    "squeeze",
    "transpose",
    "transpose_p",
    "unbroadcast",
]


def shape_of(x: Any) -> tuple[int, ...]:
    """The shape of an array, tracer or scalar."""
    shape = getattr(x, "shape", ())
    return shape if type(shape) is tuple else tuple(shape)


def bind_checked(primitive: Primitive, *args: Any, **params: Any) -> Any:
    """Bind after the shape rule: for functions whose ``impl`` would let unfit operands pass."""
    if not STATE.trace.checks_shapes:
        primitive.shape(*[aval_of(x) for x in args], **params)
    return primitive.bind(*args, **params)


def move_batch_front(x: Any, dim: int | None) -> Any:
    return x if dim is None or dim == 0 else moveaxis(x, dim, 0)


def linear_jvp(name: str) -> Any:
    """JVP of an operation linear in its only operand: itself."""

    def jvp(primals: Sequence[Any], tangents: Sequence[Any], out: Any, **params: Any) -> Any:
        return _LINEAR[name].bind(tangents[0], **params)

    return jvp


_LINEAR: dict[str, Primitive] = {}


def linear_unary(name: str, **fields: Any) -> Primitive:
    """A primitive linear in its only operand: the JVP is the operation itself."""
    primitive = Primitive(name, jvp=linear_jvp(name), **fields)
    _LINEAR[name] = primitive
    return primitive


def is_linear_unary(primitive: Primitive) -> bool:
    """Whether `linear_unary` made it."""
    return primitive.name in _LINEAR


# reshape --------------------------------------------------------------------------------------------------------


def _reshape_shape(x: ShapedArray, *, shape: tuple[int, ...]) -> ShapedArray:
    out = ShapedArray(shape, x.dtype, x.weak_type)
    if out.size != x.size or any([n < 0 for n in shape]):
        raise ValueError(f"reshape: an array of shape {x.shape} ({x.size} elements) cannot take the shape {shape}")
    return out


def _reshape_batch(size: int, args: Any, dims: Any, *, shape: tuple[int, ...]) -> Any:
    (x,), (dim,) = args, dims
    return reshape(move_batch_front(x, dim), (size, *shape)), 0


reshape_p = linear_unary(
    "reshape",
    impl=lambda x, *, shape: np.reshape(x, shape),
    shape=_reshape_shape,
    transpose=lambda ct, x, *, shape: (reshape(ct, x.aval.shape),),
    batch=_reshape_batch,
    lower=View(lambda layout, *, shape: layout.reshape(shape)),
    samples=lambda rng: [((rng.normal(size=(2, 6)),), {"shape": s}) for s in [(3, 4), (12,), (1, 12, 1), (2, 3, 2)]],
)


def reshape(x: Any, shape: Sequence[int]) -> Any:
    """The elements of ``x`` in row-major order under ``shape`` (one extent may be -1)."""
    shape = tuple([int(n) for n in shape])
    own = shape_of(x)
    if -1 in shape:
        known = int(np.prod([n for n in shape if n != -1], dtype=np.int64))
        total = int(np.prod(own, dtype=np.int64))
        if shape.count(-1) > 1 or known == 0 or total % known:
            raise ValueError(f"reshape: cannot infer the -1 in {shape} for an array of shape {own}")
        shape = tuple([total // known if n == -1 else n for n in shape])
    return x if shape == own else reshape_p.bind(x, shape=shape)


def expand_dims(x: Any, axes: Sequence[int]) -> Any:
    """Insert axes of extent 1 at the positions ``axes`` of the result."""
    rank = len(shape_of(x)) + len(axes)
    axes = sorted(canonicalize_axis(a, rank) for a in axes)
    shape = list(shape_of(x))
    for a in axes:
        shape.insert(a, 1)
    return reshape(x, shape)


def squeeze(x: Any, axes: Sequence[int]) -> Any:
    """Drop the axes ``axes``, each of extent 1."""
    shape = shape_of(x)
    drop = {canonicalize_axis(a, len(shape)) for a in axes}
    for a in drop:
        if shape[a] != 1:
            raise ValueError(f"squeeze: axis {a} has extent {shape[a]}, not 1, in shape {shape}")
    return reshape(x, [n for a, n in enumerate(shape) if a not in drop])


# transpose ------------------------------------------------------------------------------------------------------


def _transpose_shape(x: ShapedArray, *, permutation: tuple[int, ...]) -> ShapedArray:
    shape = x.shape
    if sorted(permutation) != list(range(len(shape))):
        raise ValueError(f"transpose: {permutation} is not a permutation of the axes of shape {shape}")
    return ShapedArray(tuple([shape[p] for p in permutation]), x.dtype, x.weak_type)


def _transpose_batch(size: int, args: Any, dims: Any, *, permutation: tuple[int, ...]) -> Any:
    (x,), (dim,) = args, dims
    return transpose(x, (dim, *[p + (p >= dim) for p in permutation])), 0


def _inverse(permutation: Sequence[int]) -> tuple[int, ...]:
    inverse = [0] * len(permutation)
    for k, p in enumerate(permutation):
        inverse[p] = k
    return tuple(inverse)


transpose_p = linear_unary(
    "transpose",
    impl=lambda x, *, permutation: np.transpose(x, permutation),
    shape=_transpose_shape,
    transpose=lambda ct, x, *, permutation: (transpose(ct, _inverse(permutation)),),
    batch=_transpose_batch,
    lower=View(lambda layout, *, permutation: layout.permute(permutation)),
    samples=lambda rng: [
        ((rng.normal(size=(2, 3, 4)),), {"permutation": p}) for p in [(0, 1, 2), (2, 0, 1), (1, 0, 2)]
    ],
)


def transpose(x: Any, permutation: Sequence[int]) -> Any:
    permutation = tuple([int(p) for p in permutation])
    return x if permutation == tuple(range(len(permutation))) else transpose_p.bind(x, permutation=permutation)


def moveaxis(x: Any, source: int, destination: int) -> Any:
    """Move one axis; ``destination`` counts in the result."""
    rank = len(shape_of(x))
    order = [a for a in range(rank) if a != source]
    order.insert(destination, source)
    return transpose(x, order)


# broadcast and sum ----------------------------------------------------------------------------------------------


def _broadcast_shape(x: ShapedArray, *, shape: tuple[int, ...], dimensions: tuple[int, ...]) -> ShapedArray:
    fits = len(dimensions) == x.ndim and all(
        0 <= a < len(shape) and n in (1, shape[a]) for n, a in zip(x.shape, dimensions, strict=True)
    )
    if not fits or list(dimensions) != sorted(set(dimensions)):
        raise ValueError(f"broadcast: shape {x.shape} does not broadcast to {shape} along axes {dimensions}")
    return ShapedArray(shape, x.dtype, x.weak_type)


def _broadcast_impl(x: Any, *, shape: tuple[int, ...], dimensions: tuple[int, ...]) -> Any:
    aligned = [1] * len(shape)
    for n, a in zip(np.shape(x), dimensions, strict=True):
        aligned[a] = n
    return np.broadcast_to(np.reshape(x, aligned), shape)


def _broadcast_transpose(ct: Any, x: Any, *, shape: tuple[int, ...], dimensions: tuple[int, ...]) -> Any:
    own = x.aval.shape
    added = [a for a in range(len(shape)) if a not in dimensions]
    stretched = [a for n, a in zip(own, dimensions, strict=True) if n != shape[a]]
    return (reshape(reduce_sum(ct, sorted(added + stretched)), own),)


def _broadcast_batch(size: int, args: Any, dims: Any, *, shape: Any, dimensions: Any) -> Any:
    (x,), (dim,) = args, dims
    x = move_batch_front(x, dim)
    return broadcast_in_dim(x, (size, *shape), (0, *[a + 1 for a in dimensions])), 0


broadcast_in_dim_p = linear_unary(
    "broadcast_in_dim",
    impl=_broadcast_impl,
    shape=_broadcast_shape,
    transpose=_broadcast_transpose,
    batch=_broadcast_batch,
    lower=View(lambda layout, *, shape, dimensions: layout.broadcast(shape, dimensions)),
    samples=lambda rng: [
        ((rng.normal(size=(3, 1)),), {"shape": (3, 4), "dimensions": (0, 1)}),
        ((rng.normal(size=(3,)),), {"shape": (2, 3, 4), "dimensions": (1,)}),
        ((rng.normal(size=()),), {"shape": (2, 3), "dimensions": ()}),
    ],
)


def broadcast_in_dim(x: Any, shape: Sequence[int], dimensions: Sequence[int]) -> Any:
    """Lay the axes of ``x`` along ``dimensions`` of ``shape`` and repeat it along all others."""
    shape, dimensions = tuple(shape), tuple(dimensions)
    return x if shape_of(x) == shape else broadcast_in_dim_p.bind(x, shape=shape, dimensions=dimensions)


def broadcast_to(x: Any, shape: Sequence[int]) -> Any:
    """Broadcast as NumPy does, aligned at the last axis."""
    shape = tuple([int(n) for n in shape])
    rank = len(shape_of(x))
    if rank > len(shape):
        raise ValueError(f"broadcast_to: shape {shape_of(x)} has more axes than the target {shape}")
    return broadcast_in_dim(x, shape, range(len(shape) - rank, len(shape)))


def _sum_shape(x: ShapedArray, *, axes: tuple[int, ...]) -> ShapedArray:
    return ShapedArray(reduced_shape(x.shape, axes), x.dtype)


def reduced_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    if any([not 0 <= a < len(shape) for a in axes]) or len(set(axes)) != len(axes):
        raise ValueError(f"reduction axes {axes} do not fit shape {shape}")
    return tuple([n for a, n in enumerate(shape) if a not in axes])


def _sum_transpose(ct: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    shape = x.aval.shape
    return (broadcast_in_dim(ct, shape, [a for a in range(len(shape)) if a not in axes]),)


def reduction_batch(bind: Any) -> Any:
    def rule(size: int, args: Any, dims: Any, *, axes: tuple[int, ...], **params: Any) -> Any:
        (x,), (dim,) = args, dims
        moved = tuple([a + (a >= dim) for a in axes])
        return bind(x, axes=moved, **params), dim - sum(a < dim for a in moved)

    return rule


reduce_sum_p = linear_unary(
    "reduce_sum",
    impl=lambda x, *, axes: np.add.reduce(x, axis=axes, dtype=x.dtype),
    shape=_sum_shape,
    transpose=_sum_transpose,
    batch=reduction_batch(lambda x, **params: reduce_sum_p.bind(x, **params)),
    lower=Reduce("add"),
    samples=lambda rng: [((rng.normal(size=(2, 3, 4)),), {"axes": a}) for a in [(0,), (1,), (2,), (0, 2), (0, 1, 2)]],
)


def reduce_sum(x: Any, axes: Sequence[int]) -> Any:
    """Sum over ``axes`` (non-negative), in the dtype of ``x``."""
    axes = tuple(axes)
    return reduce_sum_p.bind(x, axes=axes) if axes else x


def unbroadcast(ct: Any, operand: Linear) -> Any:
    """The transpose of NumPy broadcasting: sum ``ct`` down to the shape of the operand."""
    if ct is ZERO:
        return ct
    shape = shape_of(ct)
    if not shape:
        return ct
    aval = operand.aval
    if shape == aval.shape:
        return ct
    extra = len(shape) - aval.ndim
    stretched = [extra + a for a, n in enumerate(aval.shape) if n == 1 and shape[extra + a] != 1]
    return reshape(reduce_sum(ct, [*range(extra), *stretched]), aval.shape)
