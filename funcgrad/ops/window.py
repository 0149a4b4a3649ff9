"""Folds over windows: ``reduce_window`` and what its derivatives need.

A window is a box of ``window`` elements, ``window_dilation`` apart, that moves over every axis of the operand in steps
of ``strides``. The operand is first dilated (``base_dilation``) and padded with the fold's neutral element.

The derivative of a sum is a sum. That of a maximum or minimum passes the tangent of the element that attains it, of
several the first in row-major order, as JAX does: ``select_and_gather_add``, linear in the tangents, and its transpose
``select_and_scatter_add``, which writes a cotangent per window back to that element.

Compiled, each becomes a handful of maps over whole arrays (``ops.window_taps``), which fuse with what is around them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Inline
from ..core.primitive import ZERO, Linear, NotLinear, Primitive, ZeroDerivative
from ..util import prod
from .conv import dilated, result_extents
from .create import instantiate_zeros
from .elementwise import add, bitwise_and, bitwise_or, maximum, minimum, mul
from .shape import batch_axis_to, insert_at, pad, pad_p
from .structural import linear_unary, shape_of
from .window_taps import fold_taps, gather_selected, product_tangent, scatter_selected, sum_phases

__all__ = ["MONOIDS", "identity_of", "select_and_gather_add_p", "select_and_scatter_add_p", "window_extents"]

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]
UFUNCS: dict[str, np.ufunc] = {
    "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum, "and": np.bitwise_and,
    "or": np.bitwise_or,
}  # fmt: skip
FUNCTIONS = {"add": add, "mul": mul, "max": maximum, "min": minimum, "and": bitwise_and, "or": bitwise_or}


def identity_of(monoid: str, dtype: np.dtype[Any]) -> Any:
    """The neutral element of a fold."""
    if monoid in ("max", "min"):
        low = monoid == "max"
        if dtype.kind == "b":
            return np.bool_(not low)
        if dtype.kind in "iu":
            return dtype.type(np.iinfo(dtype).min if low else np.iinfo(dtype).max)
        end = -np.inf if low else np.inf
        return dtype.type(complex(end, end) if dtype.kind == "c" else end)
    if monoid == "and":
        return np.bool_(True) if dtype.kind == "b" else np.array(-1).astype(dtype)[()]
    return dtype.type(monoid == "mul")


def window_extents(shape: Ints, window: Ints, strides: Ints, padding: Padding, base: Ints, spread: Ints) -> Ints:
    """How many windows fit along each axis."""
    return result_extents(shape, window, strides, padding, base, spread)


def _check(name: str, x: ShapedArray, window: Ints, strides: Ints, padding: Padding, base: Ints, spread: Ints) -> Ints:
    for what, values in (("window", window), ("strides", strides), ("padding", padding), ("base_dilation", base),
                         ("window_dilation", spread)):  # fmt: skip
        if len(values) != x.ndim:
            raise ValueError(f"{name}: {what} {values} must have an entry for each axis of shape {x.shape}")
    if any(v < 1 for v in (*window, *strides, *base, *spread)):
        raise ValueError(
            f"{name}: window {window}, strides {strides} and dilations {base} and {spread} must be positive"
        )
    for n, (lo, hi), d in zip(x.shape, padding, base, strict=True):
        if lo + hi + dilated(n, d) < 0:
            raise ValueError(f"{name}: padding ({lo}, {hi}) crops more than an axis of {dilated(n, d)} elements has")
    return window_extents(x.shape, window, strides, padding, base, spread)


def pad_window(x: Any, fill: Any, padding: Padding, base: Ints) -> Any:
    return pad(x, fill, [(lo, hi, d - 1) for (lo, hi), d in zip(padding, base, strict=True)])


def _windows(x: Any, fill: Any, window: Ints, strides: Ints, padding: Padding, base: Ints, spread: Ints) -> Any:
    """A NumPy view ``(*results, *window)`` of the padded array."""
    x = np.asarray(x)
    out = window_extents(x.shape, window, strides, padding, base, spread)
    config = tuple([(lo, hi, d - 1) for (lo, hi), d in zip(padding, base, strict=True)])
    x = pad_p.impl(x, fill, padding_config=config)
    if 0 in out:
        return np.empty((*out, *window), x.dtype)
    steps = [s * k for s, k in zip(x.strides, strides, strict=True)]
    return as_strided(x, (*out, *window), (*steps, *[s * e for s, e in zip(x.strides, spread, strict=True)]))


# folds ----------------------------------------------------------------------------------------------------------


def _reduce_shape(name: str, kinds: str) -> Any:
    def shape(x: ShapedArray, *, window: Ints, strides: Ints, padding: Padding, base_dilation: Ints,
              window_dilation: Ints) -> ShapedArray:  # fmt: skip
        if x.dtype.kind not in kinds:
            raise TypeError(f"{name} does not take operands of dtype {x.dtype.name}")
        return ShapedArray(_check(name, x, window, strides, padding, base_dilation, window_dilation), x.dtype)

    return shape


def _reduce_impl(monoid: str) -> Any:
    ufunc = UFUNCS[monoid]

    def impl(x: Any, *, window: Ints, strides: Ints, padding: Padding, base_dilation: Ints,
             window_dilation: Ints) -> Any:  # fmt: skip
        x = np.asarray(x)
        fill = identity_of(monoid, x.dtype)
        seen = _windows(x, fill, window, strides, padding, base_dilation, window_dilation)
        return ufunc.reduce(seen, axis=tuple(range(x.ndim, 2 * x.ndim)), dtype=x.dtype)

    return impl


def _reduce_lower(monoid: str) -> Inline:
    def expand(x: Any, *, window: Ints, strides: Ints, padding: Padding, base_dilation: Ints,
               window_dilation: Ints) -> Any:  # fmt: skip
        if monoid == "add" and any(d > 1 for d in base_dilation) and all(s == 1 for s in strides):
            return sum_phases(x, window, padding, base_dilation, window_dilation)
        out = window_extents(shape_of(x), window, strides, padding, base_dilation, window_dilation)
        x = pad_window(x, identity_of(monoid, aval_of(x).dtype), padding, base_dilation)
        return fold_taps(monoid, FUNCTIONS[monoid], x, window, strides, window_dilation, out)

    return Inline(expand)


def _reduce_batch(name: str) -> Any:
    def batch(size: int, args: Any, dims: Any, **params: Any) -> Any:
        (x,), (dim,) = args, dims
        return _PRIMITIVES[name].bind(x, **with_axis(params, dim)), dim

    return batch


def with_axis(params: dict[str, Any], dim: int) -> dict[str, Any]:
    """The parameters of a window, with one more axis along which it has one element."""
    return {k: v if k == "select" else insert_at(v, dim, (0, 0) if k == "padding" else 1) for k, v in params.items()}


def _transposed_params(x: ShapedArray, ct: Any, *, window: Ints, strides: Ints, padding: Padding, base_dilation: Ints,
                       window_dilation: Ints) -> dict[str, Any]:  # fmt: skip
    """The windows of the transpose of a sum: as in ``ops.conv``, with a kernel of ones."""
    pads = []
    for n, t, k, s, (lo, _), d, e in zip(
        x.shape, shape_of(ct), window, strides, padding, base_dilation, window_dilation, strict=True
    ):
        low = dilated(k, e) - 1 - lo
        pads.append((low, (n - 1) * d + dilated(k, e) - dilated(t, s) - low))
    return {"window": window, "strides": base_dilation, "padding": tuple(pads), "base_dilation": strides,
            "window_dilation": window_dilation}  # fmt: skip


def _sum_transpose(ct: Any, x: Any, **params: Any) -> Any:
    if 0 in shape_of(ct) or 0 in x.aval.shape:
        return (instantiate_zeros(x.aval),)
    return (reduce_window_sum_p.bind(ct, **_transposed_params(x.aval, ct, **params)),)


def _extreme_jvp(monoid: str, select: str) -> Any:
    def jvp(primals: Any, tangents: Any, out: Any, *, window: Ints, strides: Ints, padding: Padding,
            base_dilation: Ints, window_dilation: Ints) -> Any:  # fmt: skip
        (x,), (t,) = primals, tangents
        if any(d > 1 for d in base_dilation):
            dtype = aval_of(x).dtype
            x = pad_window(x, identity_of(monoid, dtype), padding, base_dilation)
            t = pad_window(t, dtype.type(0), padding, base_dilation)
            padding = ((0, 0),) * len(window)
        return select_and_gather_add_p.bind(
            t, x, select=select, window=window, strides=strides, padding=padding, window_dilation=window_dilation
        )

    return jvp


def _product_jvp(primals: Any, tangents: Any, out: Any, *, window: Ints, strides: Ints, padding: Padding,
                 base_dilation: Ints, window_dilation: Ints) -> Any:  # fmt: skip
    (x,), (t,) = primals, tangents
    dtype = aval_of(x).dtype
    x = pad_window(x, dtype.type(1), padding, base_dilation)
    t = pad_window(t, dtype.type(0), padding, base_dilation)
    return product_tangent(x, t, window, strides, window_dilation, shape_of(out))


def _distinct(rng: np.random.Generator, shape: Ints) -> Any:
    size = prod(shape)
    return (rng.permutation(size) / max(size, 1) + 0.3).reshape(shape)


_ROWS: list[tuple[Ints, Ints, Ints, Padding, Ints, Ints]] = [
    ((5,), (2,), (1,), ((0, 0),), (1,), (1,)),
    ((6,), (2,), (2,), ((1, 1),), (1,), (2,)),
    ((3,), (4,), (1,), ((1, 2),), (3,), (1,)),
    ((2, 5, 4, 2), (1, 3, 2, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (0, 0), (0, 0)), (1, 1, 1, 1), (1, 1, 1, 1)),
    ((4, 4), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), (1, 1)),
    ((4, 3), (4, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1)),
    ((3, 3), (2, 1), (2, 1), ((0, 0), (-1, 0)), (2, 1), (1, 1)),
    ((2,), (3,), (1,), ((0, 0),), (1,), (1,)),
    ((), (), (), (), (), ()),
    ((0, 2), (1, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1)),
]
_LARGE: list[tuple[Ints, Ints, Ints, Padding, Ints, Ints]] = [
    ((40, 3), (33, 1), (2, 1), ((2, 1), (0, 0)), (1, 1), (1, 1)),
    ((9, 8), (6, 7), (1, 1), ((2, 2), (3, 3)), (1, 1), (1, 1)),
]


def _reduce_samples(kinds: str) -> Any:
    def samples(rng: np.random.Generator) -> list[Any]:
        made = []
        for shape, window, strides, padding, base, spread in [*_ROWS, *_LARGE]:
            x = _distinct(rng, shape)
            x = x if "f" in kinds else (x * 20).astype(np.int64)
            made.append(
                ((x,), {"window": window, "strides": strides, "padding": padding, "base_dilation": base,
                        "window_dilation": spread})
            )  # fmt: skip
        return made

    return samples


_PRIMITIVES: dict[str, Primitive] = {}


def _fold(name: str, monoid: str, jvp: Any, kinds: str) -> Primitive:
    return Primitive(
        name,
        impl=_reduce_impl(monoid),
        shape=_reduce_shape(name, kinds),
        jvp=jvp,
        transpose=NotLinear(),
        batch=_reduce_batch(name),
        lower=_reduce_lower(monoid),
        samples=_reduce_samples(kinds),
    )


reduce_window_sum_p = linear_unary(
    "reduce_window_sum",
    impl=_reduce_impl("add"),
    shape=_reduce_shape("reduce_window_sum", "iufc"),
    transpose=_sum_transpose,
    batch=_reduce_batch("reduce_window_sum"),
    lower=_reduce_lower("add"),
    samples=_reduce_samples("f"),
)
_LOGIC = ZeroDerivative("it acts on integers and booleans")
MONOIDS: dict[str, Primitive] = {
    "add": reduce_window_sum_p,
    "mul": _fold("reduce_window_prod", "mul", _product_jvp, "iufc"),
    "max": _fold("reduce_window_max", "max", _extreme_jvp("max", "ge"), "biufc"),
    "min": _fold("reduce_window_min", "min", _extreme_jvp("min", "le"), "biufc"),
    "and": _fold("reduce_window_and", "and", _LOGIC, "biu"),
    "or": _fold("reduce_window_or", "or", _LOGIC, "biu"),
}
_PRIMITIVES.update({p.name: p for p in MONOIDS.values()})


# the element that attains the extreme ---------------------------------------------------------------------------

_SELECT = {"ge": ("max", np.greater_equal), "le": ("min", np.less_equal)}


def _select_shape(name: str, scatters: bool) -> Any:
    def shape(t: ShapedArray, x: ShapedArray, *, select: str, window: Ints, strides: Ints, padding: Padding,
              window_dilation: Ints) -> ShapedArray:  # fmt: skip
        if select not in _SELECT:
            raise ValueError(f"{name}: select must be 'ge' or 'le', found {select!r}")
        out = _check(name, x, window, strides, padding, (1,) * x.ndim, window_dilation)
        wanted = out if scatters else x.shape
        if t.shape != wanted or t.dtype != x.dtype:
            what = "one element per window" if scatters else "the operand's shape"
            raise ValueError(
                f"{name}: found {t.dtype.name}{list(t.shape)} beside an operand {x.dtype.name}{list(x.shape)}; wanted "
                f"{what}, {x.dtype.name}{list(wanted)}"
            )
        return ShapedArray(x.shape if scatters else out, x.dtype)

    return shape


def _taps(x: Any, window: Ints, strides: Ints, spread: Ints, out: Ints) -> Iterator[Any]:
    """The elements number ``k`` of all windows over a padded array, a view for each ``k``."""
    for k in np.ndindex(*window):
        starts = [i * e for i, e in zip(k, spread, strict=True)]
        yield x[(..., *[slice(b, b + (m - 1) * s + 1, s) for b, m, s in zip(starts, out, strides, strict=True)])]


def _chosen(x: Any, select: str, window: Ints, strides: Ints, padding: Padding, spread: Ints, out: Ints) -> Any:
    """The number of the element that is taken, in each window."""
    monoid, keeps = _SELECT[select]
    x = _padded(x, identity_of(monoid, x.dtype), padding)
    best, number = None, np.zeros(out, np.int32)
    for k, tap in enumerate(_taps(x, window, strides, spread, out)):
        if best is None:
            best = tap
            continue
        better = ~keeps(best, tap)
        best = np.where(better, tap, best)
        number[better] = k
    return number


def _padded(x: Any, fill: Any, padding: Padding) -> Any:
    return pad_p.impl(x, fill, padding_config=tuple([(lo, hi, 0) for lo, hi in padding]))


def _gather_impl(
    t: Any, x: Any, *, select: str, window: Ints, strides: Ints, padding: Padding, window_dilation: Ints
) -> Any:
    t, x = np.asarray(t), np.asarray(x)
    out = window_extents(x.shape, window, strides, padding, (1,) * x.ndim, window_dilation)
    made = np.zeros(out, x.dtype)
    if made.size:
        number = _chosen(x, select, window, strides, padding, window_dilation, out)
        for k, tap in enumerate(_taps(_padded(t, t.dtype.type(0), padding), window, strides, window_dilation, out)):
            np.copyto(made, tap, where=number == k)
    return made


def _scatter_impl(
    t: Any, x: Any, *, select: str, window: Ints, strides: Ints, padding: Padding, window_dilation: Ints
) -> Any:
    t, x = np.asarray(t), np.asarray(x)
    made = _padded(np.zeros_like(x), x.dtype.type(0), padding)
    if t.size:
        number = _chosen(x, select, window, strides, padding, window_dilation, t.shape)
        for k, tap in enumerate(_taps(made, window, strides, window_dilation, t.shape)):
            np.add(tap, t, out=tap, where=number == k)
    return _padded(made, x.dtype.type(0), tuple([(-lo, -hi) for lo, hi in padding]))


def _select_jvp(name: str) -> Any:
    """Linear in the first operand; which elements are chosen is locally constant."""

    def jvp(primals: Any, tangents: Any, out: Any, **params: Any) -> Any:
        return ZERO if tangents[0] is ZERO else _SELECTORS[name].bind(tangents[0], primals[1], **params)

    return jvp


def _select_transpose(other: str) -> Any:
    def transpose(ct: Any, t: Any, x: Any, **params: Any) -> Any:
        if type(t) is not Linear:
            raise TypeError("select_and_gather_add and select_and_scatter_add are linear in their first operand only")
        return _SELECTORS[other].bind(ct, x, **params), None

    return transpose


def _select_batch(name: str) -> Any:
    def batch(size: int, args: Any, dims: Any, **params: Any) -> Any:
        t, x = (batch_axis_to(v, d, size) for v, d in zip(args, dims, strict=True))
        return _SELECTORS[name].bind(t, x, **with_axis(params, 0)), 0

    return batch


def _select_samples(scatters: bool) -> Any:
    def samples(rng: np.random.Generator) -> list[Any]:
        made = []
        for k, (shape, window, strides, padding, base, spread) in enumerate([*_ROWS, *_LARGE]):
            if any(d > 1 for d in base):
                continue
            out = window_extents(shape, window, strides, padding, base, spread)
            t = rng.normal(size=out if scatters else shape)
            x = _distinct(rng, shape)
            made.append(
                ((t, x), {"select": "le" if k % 3 == 1 else "ge", "window": window, "strides": strides,
                          "padding": padding, "window_dilation": spread})
            )  # fmt: skip
        return made

    return samples


def _gather_expand(
    t: Any, x: Any, *, select: str, window: Ints, strides: Ints, padding: Padding, window_dilation: Ints
) -> Any:
    ones = (1,) * len(window)
    out = window_extents(shape_of(x), window, strides, padding, ones, window_dilation)
    x = pad_window(x, identity_of(_SELECT[select][0], aval_of(x).dtype), padding, ones)
    t = pad_window(t, aval_of(t).dtype.type(0), padding, ones)
    return gather_selected(t, x, select, window, strides, window_dilation, out)


def _scatter_expand(
    t: Any, x: Any, *, select: str, window: Ints, strides: Ints, padding: Padding, window_dilation: Ints
) -> Any:
    fill = identity_of(_SELECT[select][0], aval_of(x).dtype)
    padded = pad_window(x, fill, padding, (1,) * len(window))
    return scatter_selected(t, padded, shape_of(x), select, window, strides, padding, window_dilation)


select_and_gather_add_p = Primitive(
    "select_and_gather_add",
    impl=_gather_impl,
    shape=_select_shape("select_and_gather_add", False),
    jvp=_select_jvp("select_and_gather_add"),
    transpose=_select_transpose("select_and_scatter_add"),
    batch=_select_batch("select_and_gather_add"),
    lower=Inline(_gather_expand),
    samples=_select_samples(False),
)
select_and_scatter_add_p = Primitive(
    "select_and_scatter_add",
    impl=_scatter_impl,
    shape=_select_shape("select_and_scatter_add", True),
    jvp=_select_jvp("select_and_scatter_add"),
    transpose=_select_transpose("select_and_gather_add"),
    batch=_select_batch("select_and_scatter_add"),
    lower=Inline(_scatter_expand),
    samples=_select_samples(True),
)
_SELECTORS = {p.name: p for p in (select_and_gather_add_p, select_and_scatter_add_p)}
