"""The primitives under JAX's names: exact, without NumPy's promotion; and control flow.

Operands of one function share a dtype (Python scalars take that of the others); shapes broadcast as in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import lax_linalg as linalg
from . import tree
from .control.cond import cond, switch
from .control.fold import reduce
from .control.iterate import associative_scan, fori_loop, scan, while_loop
from .control.iterate import map_ as map
from .control.solves import custom_linear_solve, custom_root
from .core.avals import aval_of
from .core.trace import Tracer
from .numpy.dispatch import operand
from .numpy.dispatch import operand as _operand
from .ops import collective
from .ops import create as _create
from .ops import dot as _dot
from .ops import dynamic as _dynamic
from .ops import elementwise as ew
from .ops import reduce as _reduce
from .ops import transcendental as tr
from .ops.collective import axis_index, axis_size
from .ops.conv_dims import (
    ConvDimensionNumbers,
    conv_dimension_numbers,
    conv_general_dilated,
    conv_transpose,
    conv_with_general_padding,
    padtype_to_pads,
)
from .ops.conv_dims import conv_plain as conv
from .ops.cumulative import cumlogsumexp, cummax, cummin, cumprod, cumsum
from .ops.fourier import FftType, fft
from .ops.marks import optimization_barrier_p as _optimization_barrier_p
from .ops.promotion import as_dtype
from .ops.reduce import reduce_and, reduce_max, reduce_min, reduce_or, reduce_prod, reduce_xor
from .ops.reduce_window import reduce_window, select_and_gather_add, select_and_scatter_add
from .ops.shape import concatenate, pad, rev, slice_in_dim, split
from .ops.shape import strided_slice as slice
from .ops.sort import sort as _sort
from .ops.sort import top_k as _top_k
from .ops.stop import stop_gradient as _stop_gradient
from .ops.structural import broadcast_in_dim, reduce_sum, reshape, shape_of, squeeze, transpose
from .ops.structural import broadcast_to as _broadcast_to
from .ops.structural import expand_dims as _expand_dims

__all__ = [
    "ConvDimensionNumbers", "FftType", "abs", "acos", "acosh", "add", "all_gather", "all_to_all", "argmax", "argmin",
    "asin", "asinh", "associative_scan", "atan", "atan2", "atanh", "axis_index", "axis_size", "batch_matmul",
    "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "broadcast", "broadcast_in_dim", "broadcast_shapes",
    "broadcasted_iota", "cbrt", "ceil", "clamp", "collapse", "complex", "concatenate", "cond", "conj", "conv",
    "conv_dimension_numbers", "conv_general_dilated", "conv_transpose", "conv_with_general_padding",
    "convert_element_type", "cos", "cosh", "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum",
    "custom_linear_solve", "custom_root", "digamma", "div",
    "dot", "dot_general", "dynamic_index_in_dim", "dynamic_slice", "dynamic_slice_in_dim",
    "dynamic_update_index_in_dim", "dynamic_update_slice", "dynamic_update_slice_in_dim", "eq", "erf", "erf_inv",
    "erfc", "exp", "exp2", "expand_dims", "expm1", "fft", "floor", "fori_loop", "full", "full_like", "ge", "gt", "imag",
    "index_in_dim", "integer_pow", "iota", "is_finite", "le", "lgamma", "linalg", "log", "log1p", "logistic", "lt",
    "map", "max", "min", "mul", "ne", "neg", "nextafter", "pad", "padtype_to_pads", "pmax", "pmean", "pmin",
    "polygamma", "population_count", "pow", "ppermute", "pshuffle", "psum", "pswapaxes", "real", "reciprocal", "reduce",
    "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum", "reduce_window", "reduce_xor",
    "rem", "reshape", "rev", "round", "rsqrt", "scan", "select", "select_and_gather_add", "select_and_scatter_add",
    "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "slice",
    "slice_in_dim", "sort", "sort_key_val", "split", "sqrt", "square", "squeeze", "stop_gradient", "sub", "switch",
    "tan", "tanh", "top_k", "transpose", "while_loop",
]  # fmt: skip


_SCALARS = (int, float, complex, bool)


# elementwise ----------------------------------------------------------------------------------------------------


def _same_dtype(xs: Sequence[Any]) -> list[Any]:
    """Python scalars take the dtype of the arrays beside them."""
    xs = [operand(x) for x in xs]
    dtypes = [aval_of(x).dtype for x in xs if type(x) not in _SCALARS]
    dtype = dtypes[0] if dtypes else aval_of(xs[0]).dtype
    return [as_dtype(x, dtype) if type(x) in _SCALARS else x for x in xs]


def _elementwise(name: str, bind: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*operands: Any) -> Any:
        return bind(*_same_dtype(operands))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"The primitive ``{name}``, element by element; operands of one dtype."
    return apply


abs = _elementwise("abs", ew.absolute)
acos = _elementwise("acos", tr.acos)
acosh = _elementwise("acosh", tr.acosh)
add = _elementwise("add", ew.add)
asin = _elementwise("asin", tr.asin)
asinh = _elementwise("asinh", tr.asinh)
atan = _elementwise("atan", tr.atan)
atan2 = _elementwise("atan2", tr.atan2)
atanh = _elementwise("atanh", tr.atanh)
bitwise_and = _elementwise("bitwise_and", ew.bitwise_and)
bitwise_not = _elementwise("bitwise_not", ew.bitwise_not)
bitwise_or = _elementwise("bitwise_or", ew.bitwise_or)
bitwise_xor = _elementwise("bitwise_xor", ew.bitwise_xor)
cbrt = _elementwise("cbrt", tr.cbrt)
ceil = _elementwise("ceil", ew.ceil)
complex = _elementwise("complex", ew.complex_)
conj = _elementwise("conj", ew.conj)
cos = _elementwise("cos", tr.cos)
cosh = _elementwise("cosh", tr.cosh)
digamma = _elementwise("digamma", tr.digamma)
eq = _elementwise("eq", ew.eq)
erf = _elementwise("erf", tr.erf)
erf_inv = _elementwise("erf_inv", tr.erf_inv)
erfc = _elementwise("erfc", tr.erfc)
exp = _elementwise("exp", tr.exp)
exp2 = _elementwise("exp2", tr.exp2)
expm1 = _elementwise("expm1", tr.expm1)
floor = _elementwise("floor", ew.floor)
ge = _elementwise("ge", ew.ge)
gt = _elementwise("gt", ew.gt)
imag = _elementwise("imag", ew.imag)
is_finite = _elementwise("is_finite", ew.is_finite)
le = _elementwise("le", ew.le)
lgamma = _elementwise("lgamma", tr.lgamma)
log = _elementwise("log", tr.log)
log1p = _elementwise("log1p", tr.log1p)
logistic = _elementwise("logistic", tr.logistic)
lt = _elementwise("lt", ew.lt)
max = _elementwise("max", ew.maximum)
min = _elementwise("min", ew.minimum)
mul = _elementwise("mul", ew.mul)
ne = _elementwise("ne", ew.ne)
neg = _elementwise("neg", ew.neg)
nextafter = _elementwise("nextafter", ew.nextafter)
polygamma = _elementwise("polygamma", tr.polygamma)
population_count = _elementwise("population_count", ew.population_count)
real = _elementwise("real", ew.real)
reciprocal = _elementwise("reciprocal", ew.reciprocal)
rem = _elementwise("rem", ew.fmod)
rsqrt = _elementwise("rsqrt", tr.rsqrt)
shift_left = _elementwise("shift_left", ew.shift_left)
shift_right_arithmetic = _elementwise("shift_right_arithmetic", ew.shift_right)
sign = _elementwise("sign", ew.sign)
sin = _elementwise("sin", tr.sin)
sinh = _elementwise("sinh", tr.sinh)
sqrt = _elementwise("sqrt", tr.sqrt)
square = _elementwise("square", ew.square)
sub = _elementwise("sub", ew.sub)
tan = _elementwise("tan", tr.tan)
tanh = _elementwise("tanh", tr.tanh)


def div(x: Any, y: Any) -> Any:
    """Division: of integers, rounded towards zero as in JAX."""
    x, y = _same_dtype((x, y))
    if aval_of(x).dtype.kind in "fc":
        return ew.div(x, y)
    quotient = ew.floor_divide(x, y)
    inexact = ew.ne(ew.mul(quotient, y), x)
    negative = ew.lt(quotient, aval_of(quotient).dtype.type(0))
    return ew.add(quotient, ew.convert_element_type(ew.bitwise_and(inexact, negative), aval_of(x).dtype))


def pow(x: Any, y: Any) -> Any:
    """``x**y``; an integer exponent may differ in dtype from its base."""
    x, y = operand(x), operand(y)
    if type(y) is int and aval_of(x).dtype.kind in "fc":
        return integer_pow(x, y)
    return tr.pow_(*[as_dtype(v, aval_of(x).dtype) for v in (x, y)])


def integer_pow(x: Any, y: int) -> Any:
    """``x**y`` for a static integer ``y``."""
    return ew.integer_pow(operand(x), y)


def shift_right_logical(x: Any, y: Any) -> Any:
    """Shift right with zeros coming in from the left, whatever the sign."""
    x, y = _same_dtype((x, y))
    dtype = aval_of(x).dtype
    unsigned = np.dtype(f"u{dtype.itemsize}")
    shifted = ew.shift_right(*[ew.convert_element_type(v, unsigned) for v in (x, y)])
    return ew.convert_element_type(shifted, dtype)


def round(x: Any) -> Any:
    """To the nearest integer, halves to even."""
    return ew.rint(operand(x))


def convert_element_type(operand: Any, new_dtype: Any) -> Any:
    """The elements in another dtype; complex to real drops the imaginary part."""
    return as_dtype(operand, np.dtype(new_dtype))


def clamp(min: Any, x: Any, max: Any) -> Any:
    """``x`` limited to ``[min, max]``; its derivative at the bounds is shared as that of max and min."""
    low, x, high = _same_dtype((min, x, max))
    return ew.minimum(ew.maximum(low, x), high)


def select(pred: Any, on_true: Any, on_false: Any) -> Any:
    """Elements of one or the other operand."""
    on_true, on_false = _same_dtype((on_true, on_false))
    return ew.select(pred, on_true, on_false)


def select_n(which: Any, *cases: Any) -> Any:
    """At each position, the element of case number ``which`` (False and True are 0 and 1)."""
    parts = _same_dtype(cases)
    which = operand(which)
    if aval_of(which).dtype.kind == "b":
        if len(parts) != 2:
            raise ValueError(f"select_n: a boolean chooses between two cases, found {len(parts)}")
        return ew.select(which, parts[1], parts[0])
    dtype = aval_of(which).dtype
    result = parts[-1]
    for k in range(len(parts) - 2, -1, -1):
        result = ew.select(ew.le(which, dtype.type(k)), parts[k], result)
    return result


def stop_gradient(x: Any) -> Any:
    """A pytree of values that every derivative treats as constants."""
    return tree.map(lambda leaf: _stop_gradient(operand(leaf)), x)


def optimization_barrier(operand: Any) -> Any:
    """A pytree of arrays unchanged, which compilation keeps apart: what is computed from the results is merged with
    nothing that is computed before, and runs after it.

    >>> from funcgrad import jit
    >>> @jit
    ... def twice(x):                       # two kernels: the second sine is computed anew
    ...     return np.sin(x) + np.sin(optimization_barrier(x))
    >>> twice(np.array([0.0, 1.0])).round(6)
    array([0.      , 1.682942])
    """
    leaves, treedef = tree.flatten(operand)
    return treedef.unflatten(_optimization_barrier_p.bind(*[_operand(x) for x in leaves]) if leaves else leaves)


# shapes ---------------------------------------------------------------------------------------------------------


def broadcast(operand: Any, sizes: Sequence[int]) -> Any:
    """New leading axes of the given extents."""
    return _broadcast_to(operand, (*sizes, *shape_of(operand)))


def broadcast_shapes(*shapes: Any) -> tuple[int, ...]:
    """The shape that shapes broadcast to."""
    return np.broadcast_shapes(*shapes)


def expand_dims(array: Any, dimensions: Sequence[int]) -> Any:
    """New axes of extent 1 at positions of the result."""
    return _expand_dims(operand(array), tuple(dimensions))


def collapse(operand: Any, start_dimension: int, stop_dimension: int | None = None) -> Any:
    """Neighbouring axes flattened into one."""
    shape = shape_of(operand)
    start, stop, _ = _builtin_slice(start_dimension, stop_dimension).indices(len(shape))
    return reshape(operand, (*shape[:start], math.prod(shape[start:stop]), *shape[stop:]))


_builtin_slice = type(np.s_[:])


def full(shape: Sequence[int], fill_value: Any, dtype: Any = None) -> Any:
    """An array filled with one value."""
    dtype = aval_of(fill_value).dtype if dtype is None else np.dtype(dtype)
    if isinstance(fill_value, Tracer):
        return _broadcast_to(as_dtype(fill_value, dtype), tuple(shape))
    return np.full(shape, fill_value, dtype)


def full_like(x: Any, fill_value: Any, dtype: Any = None, shape: Sequence[int] | None = None) -> Any:
    """A constant with the shape and dtype of ``x``."""
    aval = aval_of(x)
    return full(aval.shape if shape is None else shape, fill_value, aval.dtype if dtype is None else dtype)


iota, broadcasted_iota = _create.iota, _create.broadcasted_iota


# windows --------------------------------------------------------------------------------------------------------


def _starts(x: Any, indices: Any) -> list[Any]:
    """Start indices, wrapped where negative as in JAX."""
    parts = [operand(i) for i in (indices if isinstance(indices, (tuple, list)) else list(indices))]
    wrapped = []
    for i, n in zip(parts, shape_of(x), strict=True):
        i = as_dtype(i, np.dtype(np.intp))
        wrapped.append(ew.select(ew.lt(i, np.intp(0)), ew.add(i, np.intp(n)), i))
    return wrapped


def dynamic_slice(operand: Any, start_indices: Any, slice_sizes: Sequence[int]) -> Any:
    """The window of shape ``slice_sizes`` at ``start_indices``, clamped so that it fits."""
    return _dynamic.dynamic_slice(operand, _starts(operand, start_indices), slice_sizes)


def dynamic_update_slice(operand: Any, update: Any, start_indices: Any) -> Any:
    """``operand`` with the window at ``start_indices`` replaced; clamped so that it fits."""
    update = as_dtype(update, aval_of(operand).dtype) if type(update) in _SCALARS else update
    return _dynamic.dynamic_update_slice(operand, update, _starts(operand, start_indices))


def _at_axis(x: Any, start: Any, axis: int) -> list[Any]:
    starts: list[Any] = [0] * len(shape_of(x))
    starts[axis] = start
    return starts


def dynamic_slice_in_dim(operand: Any, start_index: Any, slice_size: int, axis: int = 0) -> Any:
    """``slice_size`` elements from ``start_index`` along one axis, clamped so that they fit."""
    sizes = list(shape_of(operand))
    sizes[axis] = slice_size
    return dynamic_slice(operand, _at_axis(operand, start_index, axis), sizes)


def dynamic_update_slice_in_dim(operand: Any, update: Any, start_index: Any, axis: int) -> Any:
    """``operand`` with elements from ``start_index`` along one axis replaced."""
    return dynamic_update_slice(operand, update, _at_axis(operand, start_index, axis))


def dynamic_index_in_dim(operand: Any, index: Any, axis: int = 0, keepdims: bool = True) -> Any:
    """The element at a computed index along one axis, clamped."""
    result = dynamic_slice_in_dim(operand, index, 1, axis)
    return result if keepdims else squeeze(result, (axis,))


def dynamic_update_index_in_dim(operand: Any, update: Any, index: Any, axis: int) -> Any:
    """``operand`` with the element at a computed index along one axis replaced."""
    if len(shape_of(update)) != len(shape_of(operand)):
        update = _expand_dims(update, (axis,))
    return dynamic_update_slice_in_dim(operand, update, index, axis)


def index_in_dim(operand: Any, index: int, axis: int = 0, keepdims: bool = True) -> Any:
    """The element at a static index along one axis."""
    n = shape_of(operand)[axis]
    if not -n <= index < n:
        raise IndexError(f"index_in_dim: index {index} is out of bounds for axis {axis} with size {n}")
    index %= n
    result = slice_in_dim(operand, index, index + 1, axis=axis)
    return result if keepdims else squeeze(result, (axis,))


# products, reductions, order --------------------------------------------------------------------------------------


def dot_general(
    lhs: Any, rhs: Any, dimension_numbers: Any, precision: Any = None, preferred_element_type: Any = None
) -> Any:
    """Contract over ``((lhs_contract, rhs_contract), (lhs_batch, rhs_batch))``; ``precision`` is ignored."""
    if preferred_element_type is not None:
        dtype = np.dtype(preferred_element_type)
        lhs, rhs = as_dtype(lhs, dtype), as_dtype(rhs, dtype)
    return _dot.dot_general(lhs, rhs, dimension_numbers)


def dot(lhs: Any, rhs: Any, precision: Any = None, preferred_element_type: Any = None) -> Any:
    """Vector-vector, matrix-vector and matrix-matrix products."""
    ranks = len(shape_of(lhs)), len(shape_of(rhs))
    if not set(ranks) <= {1, 2}:
        raise ValueError(f"dot: operands are vectors or matrices, found dimensions {ranks}; use dot_general")
    return dot_general(lhs, rhs, (((ranks[0] - 1,), (0,)), ((), ())), precision, preferred_element_type)


def batch_matmul(lhs: Any, rhs: Any, precision: Any = None) -> Any:
    """Products of matrices with the same leading axes."""
    rank = len(shape_of(lhs))
    if rank < 2 or len(shape_of(rhs)) != rank:
        raise ValueError(f"batch_matmul: operands of equal rank, at least 2; found {shape_of(lhs)}, {shape_of(rhs)}")
    batch = tuple(range(rank - 2))
    return dot_general(lhs, rhs, (((rank - 1,), (rank - 2,)), (batch, batch)))


def argmax(operand: Any, axis: int, index_dtype: Any = np.intp) -> Any:
    """Index of the first largest element along ``axis``."""
    return as_dtype(_reduce.argmax(operand, axis), np.dtype(index_dtype))


def argmin(operand: Any, axis: int, index_dtype: Any = np.intp) -> Any:
    """Index of the first smallest element along ``axis``."""
    return as_dtype(_reduce.argmin(operand, axis), np.dtype(index_dtype))


def sort(operand: Any, dimension: int = -1, is_stable: bool = True, num_keys: int = 1) -> Any:
    """Sort along ``dimension``, ascending, NaN last; always stably.

    A tuple or list of operands of one shape is sorted together by its first ``num_keys`` members, lexicographically,
    and gives a tuple.
    """
    return _sort(operand, dimension, num_keys)


def sort_key_val(keys: Any, values: Any, dimension: int = -1, is_stable: bool = True) -> Any:
    """Keys sorted, and values in the order of their keys."""
    return sort((keys, values), dimension, num_keys=1)


def top_k(operand: Any, k: int, *, axis: int = -1) -> tuple[Any, Any]:
    """The ``k`` largest elements along ``axis``, descending, and their indices."""
    return _top_k(_operand(operand), k, axis)


# collectives ----------------------------------------------------------------------------------------------------


def _over_pytrees(fun: Callable[..., Any]) -> Callable[..., Any]:
    def apply(x: Any, *args: Any, **kwargs: Any) -> Any:
        return tree.map(lambda leaf: fun(leaf, *args, **kwargs), x)

    apply.__name__ = apply.__qualname__ = fun.__name__
    apply.__doc__ = (fun.__doc__ or "") + " ``x`` may be a pytree."
    return apply


psum, pmean = _over_pytrees(collective.psum), _over_pytrees(collective.pmean)
pmax, pmin = _over_pytrees(collective.pmax), _over_pytrees(collective.pmin)
all_gather, all_to_all = _over_pytrees(collective.all_gather), _over_pytrees(collective.all_to_all)
ppermute, pshuffle = _over_pytrees(collective.ppermute), _over_pytrees(collective.pshuffle)
pswapaxes = _over_pytrees(collective.pswapaxes)
