"""Folds of whole axes: product, extremes, bitwise and/or/xor, and the positions of extremes.

Derivatives: a product is folded as a tree of pairs, ``d(ab) = da b + a db`` at every node, which is right at zeros and
costs no division; a maximum passes the tangent of the elements that attain it, split evenly between ties.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import ArgReduce, Reduce
from ..core.primitive import ZERO, NotLinear, Primitive, ZeroDerivative
from ..util import canonicalize_axis
from .create import full_like
from .elementwise import add, convert_element_type, div, eq, mul, select
from .shape import slice_in_dim
from .structural import (
    broadcast_in_dim,
    reduce_sum,
    reduced_shape,
    reduction_batch,
    reshape,
    shape_of,
    transpose,
)

__all__ = [
    "argmax",
    "argmax_p",
    "argmin",
    "argmin_p",
    "reduce_and",
    "reduce_and_p",
    "reduce_max",
    "reduce_max_p",
    "reduce_min",
    "reduce_min_p",
    "reduce_or",
    "reduce_or_p",
    "reduce_prod",
    "reduce_prod_p",
    "reduce_xor",
    "reduce_xor_p",
    "share_of_ties",
]


def _reduction_shape(name: str, ufunc: np.ufunc, kinds: str) -> Any:
    def shape(x: ShapedArray, *, axes: tuple[int, ...]) -> ShapedArray:
        if x.dtype.kind not in kinds:
            raise TypeError(f"{name} does not take operands of dtype {x.dtype.name}")
        out = ShapedArray(reduced_shape(x.shape, axes), x.dtype)
        if ufunc.identity is None and not x.size and out.size:
            raise ValueError(
                f"zero-size array to reduction operation {ufunc.__name__} which has no identity: "
                f"{name} over axes {axes} of shape {x.shape}"
            )
        return out

    return shape


def _distinct(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Values that are far enough apart for finite differences through an extreme or a sort."""
    size = int(np.prod(shape))
    return (rng.permutation(size) / max(size, 1) + 0.3).reshape(shape)


def _reduction_samples(kinds: str) -> Any:
    dtype = np.float64 if "f" in kinds else np.bool_

    def samples(rng: np.random.Generator) -> list[Any]:
        rows = [(_distinct(rng, (2, 3, 4)), a) for a in [(0,), (1,), (2,), (0, 2), (0, 1, 2), ()]]
        rows += [(np.zeros((0, 3)), (1,)), (_distinct(rng, (5,)), (0,))]
        return [((x if dtype is np.float64 else x > 0.5,), {"axes": a}) for x, a in rows]

    return samples


def reduction(name: str, ufunc: np.ufunc, monoid: str, *, jvp: Any, kinds: str) -> Primitive:
    """Fold ``params["axes"]`` with a NumPy ufunc, in the dtype of the operand."""

    def impl(x: Any, *, axes: tuple[int, ...]) -> Any:
        return ufunc.reduce(x, axis=axes, dtype=x.dtype)

    primitive: Primitive = Primitive(
        name,
        impl=impl,
        shape=_reduction_shape(name, ufunc, kinds),
        jvp=jvp,
        transpose=NotLinear(),
        batch=reduction_batch(lambda x, **params: primitive.bind(x, **params)),
        lower=Reduce(monoid),
        samples=_reduction_samples(kinds),
    )
    return primitive


# product --------------------------------------------------------------------------------------------------------


def _half(x: Any, start: int, limit: int) -> Any:
    return slice_in_dim(x, start, limit, axis=-1)


def _product_rule(x: Any, t: Any, y: Any, s: Any) -> tuple[Any, Any]:
    return mul(x, y), add(mul(t, y), mul(x, s))


def _prod_jvp(primals: Any, tangents: Any, out: Any, *, axes: tuple[int, ...]) -> Any:
    (x,), (t,) = primals, tangents
    shape = shape_of(x)
    kept = [a for a in range(len(shape)) if a not in axes]
    rows = (*[shape[a] for a in kept], int(np.prod([shape[a] for a in axes], dtype=np.int64)))
    x, t = (reshape(transpose(v, (*kept, *axes)), rows) for v in (x, t))
    tail: tuple[Any, Any] | None = None
    n = rows[-1]
    while n > 1:
        half = n // 2
        if n % 2:  # the odd element joins the others at the end
            odd = _half(x, n - 1, n), _half(t, n - 1, n)
            tail = odd if tail is None else _product_rule(*tail, *odd)
        x, t = _product_rule(_half(x, 0, half), _half(t, 0, half), _half(x, half, 2 * half), _half(t, half, 2 * half))
        n = half
    if tail is not None:
        x, t = _product_rule(x, t, *tail)
    return reshape(t, rows[:-1]) if n else ZERO


reduce_prod_p = reduction("reduce_prod", np.multiply, "mul", jvp=_prod_jvp, kinds="biufc")


# extremes -------------------------------------------------------------------------------------------------------


def share_of_ties(count: Any) -> Any:
    """``1 / count``; NaN where nothing attains the extreme, which happens only where it is NaN itself."""
    none, one = eq(count, full_like(count, 0)), full_like(count, 1)
    return select(none, full_like(count, np.nan), div(one, select(none, one, count)))


def _extreme_jvp(primals: Any, tangents: Any, out: Any, *, axes: tuple[int, ...]) -> Any:
    (x,), (t,) = primals, tangents
    shape = shape_of(x)
    extreme = broadcast_in_dim(out, shape, [a for a in range(len(shape)) if a not in axes])
    attains = convert_element_type(eq(x, extreme), aval_of(x).dtype)
    return mul(reduce_sum(mul(t, attains), axes), share_of_ties(reduce_sum(attains, axes)))


reduce_max_p = reduction("reduce_max", np.maximum, "max", jvp=_extreme_jvp, kinds="biufc")
reduce_min_p = reduction("reduce_min", np.minimum, "min", jvp=_extreme_jvp, kinds="biufc")

_LOGIC = ZeroDerivative("it acts on integers and booleans")
reduce_and_p = reduction("reduce_and", np.bitwise_and, "and", jvp=_LOGIC, kinds="biu")
reduce_or_p = reduction("reduce_or", np.bitwise_or, "or", jvp=_LOGIC, kinds="biu")
reduce_xor_p = reduction("reduce_xor", np.bitwise_xor, "xor", jvp=_LOGIC, kinds="biu")


def _reducer(primitive: Primitive, doc: str) -> Any:
    def reduce(x: Any, axes: Sequence[int]) -> Any:
        axes = tuple(sorted([canonicalize_axis(a, len(shape_of(x)), "axes") for a in axes]))
        return primitive.bind(x, axes=axes) if axes else x

    reduce.__name__ = reduce.__qualname__ = primitive.name
    reduce.__doc__ = doc
    return reduce


reduce_prod = _reducer(reduce_prod_p, "Product over ``axes``, in the dtype of ``x``; no elements give 1.")
reduce_max = _reducer(reduce_max_p, "Largest element over ``axes``; NaN if there is one, as NumPy's max.")
reduce_min = _reducer(reduce_min_p, "Smallest element over ``axes``; NaN if there is one, as NumPy's min.")
reduce_and = _reducer(reduce_and_p, "Bitwise (for booleans: logical) and over ``axes``.")
reduce_or = _reducer(reduce_or_p, "Bitwise (for booleans: logical) or over ``axes``.")
reduce_xor = _reducer(reduce_xor_p, "Bitwise exclusive or over ``axes``; of booleans, whether an odd number is true.")


# positions of extremes ------------------------------------------------------------------------------------------


def _arg_reduction(name: str, impl: Any, extreme: str) -> Primitive:
    def shape(x: ShapedArray, *, axis: int) -> ShapedArray:
        out = reduced_shape(x.shape, (axis,))
        if not x.shape[axis]:
            raise ValueError(f"attempt to get {name} of an empty sequence: axis {axis} of shape {x.shape}")
        return ShapedArray(out, np.dtype(np.intp))

    def batch(size: int, args: Any, dims: Any, *, axis: int) -> Any:
        (x,), (dim,) = args, dims
        axis += axis >= dim
        return primitive.bind(x, axis=axis), dim - (axis < dim)

    primitive = Primitive(
        name,
        impl=lambda x, *, axis: impl(x, axis=axis),
        shape=shape,
        jvp=ZeroDerivative("its result is an index"),
        transpose=NotLinear(),
        batch=batch,
        lower=ArgReduce(extreme),
        samples=lambda rng: [
            ((_distinct(rng, (2, 3, 4)),), {"axis": 0}),
            ((_distinct(rng, (2, 3, 4)),), {"axis": 2}),
            ((rng.integers(0, 3, size=(3, 5)),), {"axis": 1}),
            ((np.array([1.0, np.nan, 3.0, np.nan]),), {"axis": 0}),
        ],
    )
    return primitive


argmax_p = _arg_reduction("argmax", np.argmax, "max")
argmin_p = _arg_reduction("argmin", np.argmin, "min")


def argmax(x: Any, axis: int) -> Any:
    """Index (intp) of the first largest element along ``axis``; the first NaN wins, as in NumPy."""
    return argmax_p.bind(x, axis=canonicalize_axis(axis, len(shape_of(x))))


def argmin(x: Any, axis: int) -> Any:
    """Index (intp) of the first smallest element along ``axis``; the first NaN wins, as in NumPy."""
    return argmin_p.bind(x, axis=canonicalize_axis(axis, len(shape_of(x))))
