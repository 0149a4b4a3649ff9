"""Arrays made from nothing: ``iota``, and constants as broadcast scalars, which cost no memory."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Generate
from ..core.primitive import NotLinear, Primitive, ZeroDerivative
from ..util import canonicalize_axis
from .structural import bind_checked, broadcast_in_dim

__all__ = ["broadcasted_iota", "full", "full_like", "instantiate_zeros", "iota", "iota_p", "zeros_like"]


def _iota_shape(*, shape: tuple[int, ...], dtype: np.dtype[Any], dimension: int) -> ShapedArray:
    if dtype.kind not in "iufc":
        raise TypeError(f"iota: dtype {dtype.name} cannot count; use an integer, float or complex dtype")
    if not 0 <= dimension < len(shape) or any(n < 0 for n in shape):
        raise ValueError(f"iota: dimension {dimension} does not fit shape {shape}")
    return ShapedArray(shape, dtype)


def _iota_impl(*, shape: tuple[int, ...], dtype: np.dtype[Any], dimension: int) -> Any:
    counted = [n if a == dimension else 1 for a, n in enumerate(shape)]
    return np.broadcast_to(np.arange(shape[dimension], dtype=dtype).reshape(counted), shape)


def _iota_batch(size: int, args: Any, dims: Any, **params: Any) -> Any:
    return iota_p.bind(**params), None


iota_p = Primitive(
    "iota",
    impl=_iota_impl,
    shape=_iota_shape,
    jvp=ZeroDerivative("it has no operands"),
    transpose=NotLinear("it has no operands"),
    batch=_iota_batch,
    lower=Generate("iota"),
    samples=lambda rng: [
        ((), {"shape": s, "dtype": np.dtype(t), "dimension": d})
        for s, t, d in [((4,), "i8", 0), ((2, 3), "f8", 1), ((2, 3), "i4", 0), ((0, 2), "f4", 1)]
    ],
)


def broadcasted_iota(dtype: Any, shape: Sequence[int], dimension: int) -> Any:
    """An array of ``shape`` whose elements are their own index along ``dimension``."""
    shape = tuple([operator.index(n) for n in shape])
    return bind_checked(iota_p, shape=shape, dtype=np.dtype(dtype), dimension=canonicalize_axis(dimension, len(shape)))


def iota(dtype: Any, size: int) -> Any:
    """``0, 1, ..., size - 1`` in ``dtype``."""
    return broadcasted_iota(dtype, (size,), 0)


def full(shape: Sequence[int], fill_value: Any, dtype: Any) -> Any:
    """An array of ``shape`` filled with a constant: a broadcast scalar, which no kernel has to write."""
    return broadcast_in_dim(np.dtype(dtype).type(fill_value), tuple(shape), ())


def full_like(x: Any, fill_value: Any) -> Any:
    """A constant with the shape and dtype of ``x``."""
    aval = aval_of(x)
    return full(aval.shape, fill_value, aval.dtype)


def zeros_like(x: Any) -> Any:
    """Zeros with the shape and dtype of ``x``."""
    return full_like(x, 0)


def instantiate_zeros(aval: ShapedArray) -> Any:
    """Zeros of an aval, for tangents and cotangents that an operation needs as an array."""
    return full(aval.shape, 0, aval.dtype)
