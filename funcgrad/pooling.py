"""Pooling layers as in ``flax.linen``: windows over the spatial axes of channels-last images.

>>> x = np.arange(16.0).reshape(1, 4, 4, 1)
>>> max_pool(x, (2, 2), strides=(2, 2))[0, :, :, 0]
array([[ 5.,  7.],
       [13., 15.]])
>>> avg_pool(x, (2, 2), strides=(2, 2))[0, :, :, 0]
array([[ 2.5,  4.5],
       [10.5, 12.5]])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .core.avals import aval_of
from .numpy.dispatch import operand
from .ops.reduce_window import reduce_window
from .ops.structural import shape_of
from .ops.window import identity_of
from .util import prod

__all__ = ["avg_pool", "max_pool", "min_pool", "pool"]


def pool(
    inputs: Any, init: Any, reduce_fn: Callable[[Any, Any], Any], window_shape: Sequence[int],
    strides: Sequence[int] | None = None, padding: Any = "VALID",
) -> Any:  # fmt: skip
    """Fold windows over the spatial axes of ``inputs``.

    Args:
        inputs: ``(*batch, *spatial, channels)``, with as many spatial axes as ``window_shape`` has entries.
        init: what every fold begins with.
        reduce_fn: an associative function of two values; see :func:`funcgrad.lax.reduce_window`.
        window_shape: extents of the window.
        strides: from window to window; 1 by default.
        padding: ``"VALID"``, ``"SAME"``, or ``(low, high)`` per spatial axis.

    Raises:
        ValueError: if these do not fit together.
    """
    x = operand(inputs)
    spatial, rank = len(window_shape), len(shape_of(x))
    leading = rank - spatial - 1
    if leading < 0:
        raise ValueError(
            f"pool: inputs of shape {shape_of(x)} have no {spatial} spatial axes and one of channels; window_shape "
            f"is {tuple(window_shape)}"
        )
    steps = (1,) * spatial if strides is None else tuple(strides)
    if len(steps) != spatial:
        raise ValueError(f"pool: strides {steps} must have an entry for each of window_shape {tuple(window_shape)}")
    if not isinstance(padding, str):
        if len(padding) != spatial:
            raise ValueError(f"pool: padding {padding!r} must have a pair for each of {spatial} spatial axes")
        padding = [(0, 0)] * leading + [tuple(pair) for pair in padding] + [(0, 0)]
    ones = (1,) * leading
    return reduce_window(x, init, reduce_fn, (*ones, *window_shape, 1), (*ones, *steps, 1), padding)


def _extreme(monoid: str, function: Any) -> Callable[..., Any]:
    def apply(
        inputs: Any, window_shape: Sequence[int], strides: Sequence[int] | None = None, padding: Any = "VALID"
    ) -> Any:
        x = operand(inputs)
        return pool(x, identity_of(monoid, aval_of(x).dtype), function, window_shape, strides, padding)

    return apply


_max_pool, _min_pool = _extreme("max", np.maximum), _extreme("min", np.minimum)


def max_pool(
    inputs: Any, window_shape: Sequence[int], strides: Sequence[int] | None = None, padding: Any = "VALID"
) -> Any:
    """The largest element of each window; its gradient goes to the first of several. See :func:`pool`."""
    return _max_pool(inputs, window_shape, strides, padding)


def min_pool(
    inputs: Any, window_shape: Sequence[int], strides: Sequence[int] | None = None, padding: Any = "VALID"
) -> Any:
    """The smallest element of each window; its gradient goes to the first of several. See :func:`pool`."""
    return _min_pool(inputs, window_shape, strides, padding)


def avg_pool(
    inputs: Any, window_shape: Sequence[int], strides: Sequence[int] | None = None, padding: Any = "VALID",
    count_include_pad: bool = True,
) -> Any:  # fmt: skip
    """The mean of each window, with padding counted as zeros, or not at all. See :func:`pool`."""
    x = operand(inputs)
    dtype = aval_of(x).dtype
    if dtype.kind not in "fc":
        raise TypeError(f"avg_pool: inputs must be floating point, found dtype {dtype.name}")
    total = pool(x, 0, np.add, window_shape, strides, padding)
    if count_include_pad:
        return np.divide(total, dtype.type(prod(window_shape)))
    leading = len(shape_of(x)) - len(window_shape) - 1
    ones = np.ones((*[1] * leading, *shape_of(x)[leading:-1], 1), dtype)
    return np.divide(total, pool(ones, 0, np.add, window_shape, strides, padding))
