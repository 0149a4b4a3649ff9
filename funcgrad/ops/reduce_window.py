"""``lax.reduce_window`` with JAX's arguments, and pooling in terms of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.jaxpr import ClosedJaxpr, Literal
from ..core.primitive import Primitive
from ..core.staging import stage
from ..core.trace import Tracer
from . import elementwise as ew
from .conv import dilated
from .conv_dims import PADDINGS, padtype_to_pads, pairs_of, per_axis
from .promotion import as_dtype
from .shape import pad, pad_p
from .structural import broadcast_to, shape_of
from .window import MONOIDS, identity_of, select_and_gather_add_p, select_and_scatter_add_p, window_extents
from .window_taps import tap

__all__ = ["is_identity", "monoid_of", "reduce_window", "select_and_gather_add", "select_and_scatter_add"]

_MONOID_OF: dict[Primitive, str] = {
    ew.add_p: "add", ew.mul_p: "mul", ew.max_p: "max", ew.min_p: "min", ew.and_p: "and", ew.or_p: "or",
    ew.xor_p: "xor",
}  # fmt: skip


def monoid_of(closed: ClosedJaxpr, dtype: np.dtype[Any]) -> str | None:
    """Which of the known folds a program of two scalars is; None if it is another."""
    jaxpr = closed.jaxpr
    if len(jaxpr.eqns) != 1 or jaxpr.outvars[0] not in jaxpr.eqns[0].outvars:
        return None
    (eqn,) = jaxpr.eqns
    if set(map(id, eqn.invars)) != set(map(id, jaxpr.invars)) or any(type(v) is Literal for v in eqn.invars):
        return None
    name = _MONOID_OF.get(eqn.primitive)
    return {"add": "or", "mul": "and"}.get(str(name), name) if dtype.kind == "b" else name


def is_identity(value: Any, monoid: str, dtype: np.dtype[Any]) -> bool:
    """Whether a fold that begins with ``value`` is the fold of the elements alone."""
    if isinstance(value, Tracer):
        return False
    neutral = identity_of(monoid, dtype)
    return bool(np.asarray(value).astype(dtype) == neutral)


def _padding_of(padding: Any, shape: Sequence[int], window: Any, strides: Any, spread: Any) -> Any:
    if not isinstance(padding, str):
        return pairs_of(padding, len(shape))
    if padding.upper() not in PADDINGS:
        raise ValueError(f"padding must be one of {', '.join(map(repr, PADDINGS))} or pairs, found {padding!r}")
    return tuple(padtype_to_pads(shape, [dilated(k, e) for k, e in zip(window, spread, strict=True)], strides, padding))


def reduce_window(
    operand: Any, init_value: Any, computation: Callable[[Any, Any], Any], window_dimensions: Sequence[int],
    window_strides: Sequence[int] | None = None, padding: Any = "VALID", base_dilation: Sequence[int] | None = None,
    window_dilation: Sequence[int] | None = None,
) -> Any:  # fmt: skip
    """Fold every window of an array.

    Args:
        operand: an array of any rank.
        init_value: a scalar that every fold begins with. Padding and the gaps of ``base_dilation`` count for nothing.
        computation: an associative function of two values, such as ``lax.add`` or ``np.maximum``. Sum, product,
            maximum, minimum, and, or are known by what they do; any other is applied to arrays, element by element.
        window_dimensions: extents of the window, one per axis.
        window_strides: from window to window, per axis; 1 by default.
        padding: ``"VALID"``, ``"SAME"``, ``"SAME_LOWER"``, or ``(low, high)`` per axis.
        base_dilation: distances of the elements of ``operand``.
        window_dilation: distances of the elements of a window.

    Returns:
        One element per window, of the dtype of ``operand``. The derivative of a maximum or minimum goes to the first
        element that attains it.

    Raises:
        ValueError: if the parameters do not fit the shape of ``operand``.

    >>> reduce_window(np.array([1.0, 5.0, 2.0, 3.0]), -np.inf, np.maximum, (2,), (2,))
    array([5., 3.])
    """
    shape, dtype = shape_of(operand), aval_of(operand).dtype
    rank = len(shape)
    if shape_of(init_value) != ():
        raise ValueError(f"reduce_window: init_value must be a scalar, found shape {shape_of(init_value)}")
    window = _per_axis("window_dimensions", window_dimensions, rank)
    strides = _per_axis("window_strides", window_strides, rank)
    base = _per_axis("base_dilation", base_dilation, rank)
    spread = _per_axis("window_dilation", window_dilation, rank)
    pads = _padding_of(padding, shape, window, strides, spread)
    if not callable(computation):
        raise TypeError(f"reduce_window: computation must be a function of two values, found {computation!r}")
    start = _start(init_value, dtype)
    closed = stage(lambda a, b: [computation(a, b)], [ShapedArray((), dtype)] * 2, "reduce_window")
    monoid = monoid_of(closed, dtype)
    params = {"window": window, "strides": strides, "padding": pads, "base_dilation": base, "window_dilation": spread}
    if monoid in MONOIDS:
        folded = _bind(MONOIDS[monoid], operand, params)
        return folded if is_identity(init_value, monoid, dtype) else computation(start, folded)
    return _fold_arrays(operand, start, computation, **params)


def _start(value: Any, dtype: np.dtype[Any]) -> Any:
    """The first value of every fold, in the dtype of the operand: it must be one of its values."""
    order = "biufc"
    if order.index(aval_of(value).dtype.kind) > order.index(dtype.kind) and dtype.kind in "biu":
        exact = not isinstance(value, Tracer) and np.isfinite(value) and dtype.type(value) == value
        if not exact:
            raise TypeError(
                f"reduce_window: init_value {value!r} is no value of the operand's dtype {dtype.name}; a maximum of "
                "integers begins with np.iinfo(dtype).min, a minimum with np.iinfo(dtype).max"
            )
    return as_dtype(value, dtype)


def _fold_arrays(
    x: Any, start: Any, computation: Callable[[Any, Any], Any], window: Any, strides: Any, padding: Any,
    base_dilation: Any, window_dilation: Any,
) -> Any:  # fmt: skip
    """Any function of two values, applied to arrays of all windows; what is not an element of ``x`` is left out."""
    out = window_extents(shape_of(x), window, strides, padding, base_dilation, window_dilation)
    config = [(lo, hi, d - 1) for (lo, hi), d in zip(padding, base_dilation, strict=True)]
    own = pad_p.impl(np.ones(shape_of(x), np.bool_), np.bool_(False), padding_config=tuple(config))
    dtype = aval_of(x).dtype
    total = broadcast_to(start, out)
    x = pad(x, dtype.type(0), config)
    for k in np.ndindex(*window) if 0 not in out else ():
        starts = [i * e for i, e in zip(k, window_dilation, strict=True)]
        there = own[tuple([slice(b, b + (m - 1) * s + 1, s) for b, m, s in zip(starts, out, strides, strict=True)])]
        folded = computation(total, tap(x, k, strides, window_dilation, out))
        total = folded if there.all() else ew.select(there, folded, total)
    return total


def _per_axis(name: str, values: Any, rank: int) -> tuple[int, ...]:
    try:
        return per_axis(name, values, rank)
    except (TypeError, ValueError) as error:
        raise type(error)(f"reduce_window: {error}".replace("spatial ax", "ax")) from None


def _bind(primitive: Primitive, operand: Any, params: dict[str, Any]) -> Any:
    primitive.shape(aval_of(operand), **params)
    return primitive.bind(operand, **params)


def _select_of(name: str, select: Any) -> str:
    """``select`` may be given as ``"ge"``, ``lax.ge``, ``np.greater_equal``, or the primitive itself."""
    text = str(getattr(select, "__name__", select))
    text = {"greater_equal": "ge", "less_equal": "le"}.get(text, text)
    if text not in ("ge", "le"):
        raise ValueError(f"{name}: select must be lax.ge or lax.le, found {select!r}")
    return text


def _selected(primitive: Primitive, values: Any, operand: Any, select: Any, window: Any, strides: Any, padding: Any,
              spread: Any) -> Any:  # fmt: skip
    rank = len(shape_of(operand))
    window, strides = _per_axis("window_dimensions", window, rank), _per_axis("window_strides", strides, rank)
    spread = _per_axis("window_dilation", spread, rank)
    pads = _padding_of(padding, shape_of(operand), window, strides, spread)
    params = {
        "select": _select_of(primitive.name, select), "window": window, "strides": strides, "padding": pads,
        "window_dilation": spread,
    }  # fmt: skip
    primitive.shape(aval_of(values), aval_of(operand), **params)
    return primitive.bind(values, operand, **params)


def select_and_gather_add(
    tangents: Any, operand: Any, select: Any, window_dimensions: Sequence[int],
    window_strides: Sequence[int] | None = None, padding: Any = "VALID", window_dilation: Sequence[int] | None = None,
) -> Any:  # fmt: skip
    """Per window, the element of ``tangents`` where ``operand`` has its largest (``lax.ge``) or smallest
    (``lax.le``) element, the first of several.

    >>> select_and_gather_add(np.array([10.0, 20.0, 30.0]), np.array([3.0, 1.0, 2.0]), "ge", (2,))
    array([10., 30.])
    """
    return _selected(select_and_gather_add_p, tangents, operand, select, window_dimensions, window_strides, padding,
                     window_dilation)  # fmt: skip


def select_and_scatter_add(
    source: Any, operand: Any, select: Any, window_dimensions: Sequence[int],
    window_strides: Sequence[int] | None = None, padding: Any = "VALID", window_dilation: Sequence[int] | None = None,
) -> Any:  # fmt: skip
    """Zeros like ``operand``, to which each window adds its element of ``source`` where ``operand`` has its largest
    (``lax.ge``) or smallest (``lax.le``) element, the first of several: the transpose of
    :func:`select_and_gather_add`.

    >>> select_and_scatter_add(np.array([10.0, 20.0]), np.array([3.0, 1.0, 2.0]), "ge", (2,))
    array([10.,  0., 20.])
    """
    return _selected(select_and_scatter_add_p, source, operand, select, window_dimensions, window_strides, padding,
                     window_dilation)  # fmt: skip
