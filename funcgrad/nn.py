"""Activations, the softmax family and losses, named and defined as in ``jax.nn`` (losses as in optax; pooling as in
flax).

>>> relu(np.array([-1.0, 0.0, 2.0]))
array([0., 0., 2.])
>>> softmax(np.zeros(4))
array([0.25, 0.25, 0.25, 0.25])
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import numpy as _attach_numpy
from .core.avals import aval_of
from .numpy.dispatch import operand
from .ops import transcendental as tr
from .ops.promotion import as_dtype
from .ops.stop import stop_gradient
from .ops.structural import shape_of
from .pooling import avg_pool, max_pool, min_pool, pool
from .util import canonicalize_axes, canonicalize_axis
from .util import prod as int_prod

__all__ = [
    "avg_pool", "celu", "elu", "gelu", "glu", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "identity",
    "leaky_relu", "log1mexp", "log_sigmoid", "log_softmax", "logmeanexp", "logsumexp", "max_pool", "min_pool",
    "mish", "one_hot", "pool", "relu", "relu6", "selu", "sigmoid", "sigmoid_binary_cross_entropy", "silu",
    "soft_sign", "softmax", "softmax_cross_entropy", "softmax_cross_entropy_with_integer_labels", "softplus",
    "sparse_plus", "sparse_sigmoid", "squareplus", "standardize", "swish", "tanh",
]  # fmt: skip

del _attach_numpy


def _float(x: Any) -> Any:
    """``x`` as floating point."""
    x = operand(x)
    dtype = aval_of(x).dtype
    return as_dtype(x, dtype if dtype.kind in "fc" else np.dtype(np.float64))


# activations ----------------------------------------------------------------------------------------------------


def identity(x: Any) -> Any:
    """``x``."""
    return operand(x)


def relu(x: Any) -> Any:
    """``max(x, 0)``; the derivative at 0 is 0."""
    x = operand(x)
    zero = aval_of(x).dtype.type(0)
    return np.where(np.less_equal(x, zero), zero, x)


def relu6(x: Any) -> Any:
    """``min(max(x, 0), 6)``."""
    return np.minimum(np.maximum(operand(x), 0), 6)


def sigmoid(x: Any) -> Any:
    """``1 / (1 + exp(-x))``."""
    return tr.logistic(_float(x))


def softplus(x: Any) -> Any:
    """``log(1 + exp(x))`` without overflow."""
    return np.logaddexp(_float(x), 0)


def sparse_plus(x: Any) -> Any:
    """0 up to -1, ``x`` from 1, and a parabola between."""
    x = _float(x)
    return np.where(np.less_equal(x, -1), 0, np.where(np.greater_equal(x, 1), x, (x + 1) ** 2 / 4))


def sparse_sigmoid(x: Any) -> Any:
    """0 up to -1, 1 from 1, and a line between."""
    return 0.5 * np.clip(_float(x) + 1, 0, 2)


def squareplus(x: Any, b: Any = 4) -> Any:
    """``(x + sqrt(x**2 + b)) / 2``."""
    x = _float(x)
    return (x + np.sqrt(np.square(x) + b)) / 2


def soft_sign(x: Any) -> Any:
    """``x / (|x| + 1)``."""
    x = _float(x)
    return x / (np.abs(x) + 1)


def silu(x: Any) -> Any:
    """``x * sigmoid(x)``, also called swish."""
    x = _float(x)
    return x * tr.logistic(x)


swish = silu


def mish(x: Any) -> Any:
    """``x * tanh(softplus(x))``."""
    x = _float(x)
    return x * np.tanh(softplus(x))


def log_sigmoid(x: Any) -> Any:
    """``log(sigmoid(x))`` without overflow."""
    return -softplus(-_float(x))


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return np.tanh(_float(x))


def elu(x: Any, alpha: Any = 1.0) -> Any:
    """``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere."""
    x = _float(x)
    positive = np.greater(x, 0)
    return np.where(positive, x, alpha * np.expm1(np.where(positive, 0, x)))


def leaky_relu(x: Any, negative_slope: Any = 1e-2) -> Any:
    """``x`` where not negative, ``negative_slope * x`` elsewhere."""
    x = _float(x)
    return np.where(np.greater_equal(x, 0), x, negative_slope * x)


def hard_tanh(x: Any) -> Any:
    """``x`` limited to [-1, 1]."""
    x = _float(x)
    return np.where(np.greater(x, 1), 1, np.where(np.less(x, -1), -1, x))


def celu(x: Any, alpha: Any = 1.0) -> Any:
    """``x`` where positive, ``alpha * (exp(x / alpha) - 1)`` elsewhere."""
    x = _float(x)
    return np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0) / alpha)


def selu(x: Any) -> Any:
    """The self-normalizing ``elu``."""
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return scale * elu(x, alpha)


def gelu(x: Any, approximate: bool = True) -> Any:
    """``x`` times the normal distribution function of ``x``, by default in its tanh approximation."""
    x = _float(x)
    if approximate:
        z = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return x * tr.logistic(2 * z)  # (1 + tanh(z)) / 2, without its cancellation where z is negative
    return 0.5 * x * tr.erfc(-x * math.sqrt(0.5))


def glu(x: Any, axis: int = -1) -> Any:
    """The first half along an axis times the sigmoid of the second."""
    x = _float(x)
    n = shape_of(x)[canonicalize_axis(axis, len(shape_of(x)))]
    if n % 2:
        raise ValueError(f"glu: the extent {n} of axis {axis} is not even")
    first, second = np.split(x, 2, axis)
    return first * sigmoid(second)


def hard_sigmoid(x: Any) -> Any:
    """``relu6(x + 3) / 6``."""
    return relu6(_float(x) + 3) / 6


def hard_silu(x: Any) -> Any:
    """``x * hard_sigmoid(x)``, also called hard swish."""
    x = _float(x)
    return x * hard_sigmoid(x)


hard_swish = hard_silu


def log1mexp(x: Any) -> Any:
    """``log(1 - exp(-x))`` for positive ``x``, accurate near 0 and far from it."""
    x = _float(x)
    near = np.less(x, math.log(2))
    small, large = np.where(near, x, 0.5), np.where(near, 1.0, x)
    return np.where(near, np.log(-np.expm1(-small)), np.log1p(-np.exp(-large)))


# the softmax family ---------------------------------------------------------------------------------------------


def _all_axes(x: Any, axis: Any) -> tuple[int, ...]:
    return canonicalize_axes(axis, len(shape_of(x)))


def _largest(x: Any, axes: tuple[int, ...], where: Any) -> Any:
    """The maximum, to shift by: held constant, for it cancels out, and 0 where it is not finite."""
    x = stop_gradient(x)
    if not int_prod([shape_of(x)[k] for k in axes]):
        return aval_of(x).dtype.type(0)
    if where is not None:
        x = np.where(where, x, -np.inf)
    top = np.max(x, axes, keepdims=True)
    return np.where(np.isfinite(top), top, aval_of(top).dtype.type(0))


def softmax(x: Any, axis: Any = -1, where: Any = None) -> Any:
    """``exp(x) / sum(exp(x))`` along ``axis``; elements where ``where`` is false count as 0."""
    x = _float(x)
    axes = _all_axes(x, axis)
    top = _largest(x, axes, where)
    weights = np.exp((x if where is None else np.where(where, x, -np.inf)) - top)
    return weights / np.sum(weights, axes, keepdims=True)


def log_softmax(x: Any, axis: Any = -1, where: Any = None) -> Any:
    """``log(softmax(x))`` without overflow; ``-inf`` where ``where`` is false."""
    x = _float(x)
    axes = _all_axes(x, axis)
    shifted = (x if where is None else np.where(where, x, -np.inf)) - _largest(x, axes, where)
    return shifted - np.log(np.sum(np.exp(shifted), axes, keepdims=True))


def logsumexp(
    a: Any, axis: Any = None, b: Any = None, keepdims: bool = False, return_sign: bool = False, where: Any = None
) -> Any:
    """``log(sum(b * exp(a)))`` without overflow.

    Args:
        a: exponents.
        axis: along which to sum; all by default.
        b: weights; where one is 0 its exponent is ignored.
        keepdims: keep the summed axes with extent 1.
        return_sign: also return the sign of the sum, whose absolute value's logarithm is then the result.
        where: what to sum.
    """
    x = _float(a)
    if b is not None:
        b = operand(b)
        x, b = np.broadcast_arrays(x, as_dtype(b, aval_of(_float(b) if aval_of(b).dtype.kind not in "fc" else b).dtype))
        x = np.where(np.equal(b, 0), -np.inf, x)
    axes = _all_axes(x, axis)
    top = _largest(x, axes, where)
    masked = x if where is None else np.where(where, x, -np.inf)
    terms = np.exp(masked - top)
    terms = terms if b is None else b * terms
    total = np.sum(terms, axes, keepdims=True)
    sign = None
    if return_sign or b is not None:
        sign = np.sign(total)
        if return_sign:
            total = np.abs(total)
    result = _log(total) + top
    if not keepdims:
        result = np.squeeze(result, axes)
        sign = None if sign is None else np.squeeze(sign, axes)
    return (result, sign if sign is not None else np.ones_like(result)) if return_sign else result


def _log(x: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):  # the logarithm of an empty sum is -inf
        return np.log(x)


def logmeanexp(a: Any, axis: Any = None, where: Any = None, keepdims: bool = False) -> Any:
    """``log(mean(exp(a)))`` without overflow."""
    x = _float(a)
    axes = _all_axes(x, axis)
    total = logsumexp(x, axes, keepdims=keepdims, where=where)
    if where is None:
        return total - math.log(int_prod([shape_of(x)[k] for k in axes]))
    count = np.sum(np.broadcast_to(where, shape_of(x)), axes, keepdims=keepdims)
    return total - np.log(as_dtype(count, aval_of(x).dtype))


def standardize(
    x: Any, axis: Any = -1, mean: Any = None, variance: Any = None, epsilon: Any = 1e-5, where: Any = None
) -> Any:
    """``(x - mean) / sqrt(variance + epsilon)`` along ``axis``."""
    x = _float(x)
    axes = _all_axes(x, axis)
    mask = True if where is None else where
    mean = np.mean(x, axes, keepdims=True, where=mask) if mean is None else mean
    variance = np.var(x, axes, keepdims=True, where=mask) if variance is None else variance
    return (x - mean) * tr.rsqrt(_float(variance + epsilon))


def one_hot(x: Any, num_classes: int, *, dtype: Any = np.float64, axis: int = -1) -> Any:
    """1 at the position that each integer names along a new axis, 0 elsewhere; all 0 if it is out of range."""
    x = operand(x)
    rank = len(shape_of(x)) + 1
    axis = canonicalize_axis(axis, rank)
    classes = np.arange(num_classes).reshape([-1 if k == axis else 1 for k in range(rank)])
    return as_dtype(operand(np.equal(np.expand_dims(x, axis), classes)), np.dtype(dtype))


# losses ---------------------------------------------------------------------------------------------------------


def softmax_cross_entropy(logits: Any, labels: Any, axis: Any = -1) -> Any:
    """``-sum(labels * log_softmax(logits))`` along ``axis``: one loss per example."""
    return -np.sum(np.multiply(labels, log_softmax(logits, axis)), axis)


def softmax_cross_entropy_with_integer_labels(logits: Any, labels: Any, axis: int = -1) -> Any:
    """``-log_softmax(logits)[labels]`` along ``axis``: one loss per example."""
    logits, labels = _float(logits), operand(labels)
    if aval_of(labels).dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, found dtype {aval_of(labels).dtype.name}; for class weights use "
                        "softmax_cross_entropy")  # fmt: skip
    rest = list(shape_of(logits))
    del rest[canonicalize_axis(axis, len(shape_of(logits)))]
    if shape_of(labels) != tuple(rest):
        raise ValueError(f"labels of shape {shape_of(labels)} do not fit logits of shape {shape_of(logits)}; "
                         f"wanted {tuple(rest)}")  # fmt: skip
    chosen = np.squeeze(np.take_along_axis(logits, np.expand_dims(labels, axis), axis), axis)
    return logsumexp(logits, axis) - chosen


def sigmoid_binary_cross_entropy(logits: Any, labels: Any) -> Any:
    """``-labels * log(sigmoid(logits)) - (1 - labels) * log(1 - sigmoid(logits))``, element by element."""
    logits = _float(logits)
    return -np.multiply(labels, log_sigmoid(logits)) - np.subtract(1, labels) * log_sigmoid(-logits)
