"""``conv_general_dilated`` with JAX's arguments: arrangements of axes, padding by name, groups.

An arrangement is a string with a letter per axis, such as ``"NHWC"``: ``N`` and ``C`` are images and channels of the
operand and the result, ``O`` and ``I`` output and input channels of the kernel, any other letters spatial axes, which
are paired by name. Whatever it is, the operands are brought into the arrangement of the primitive (``ops.conv``) and
the result out of it by views.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core.avals import aval_of
from .conv import conv, dilated
from .promotion import as_dtype
from .shape import rev
from .structural import reshape, shape_of, transpose

__all__ = [
    "ConvDimensionNumbers",
    "conv_dimension_numbers",
    "conv_general_dilated",
    "conv_plain",
    "conv_transpose",
    "conv_with_general_padding",
    "padtype_to_pads",
]

Ints = tuple[int, ...]
PADDINGS = ("VALID", "SAME", "SAME_LOWER")


class ConvDimensionNumbers(NamedTuple):
    """Axes by number: ``lhs_spec`` and ``out_spec`` give batch, feature and spatial axes; ``rhs_spec`` output
    feature, input feature and spatial axes."""

    lhs_spec: Sequence[int]
    rhs_spec: Sequence[int]
    out_spec: Sequence[int]


def conv_dimension_numbers(lhs_shape: Sequence[int], rhs_shape: Sequence[int], dimension_numbers: Any) -> Any:
    """Three strings (or None: ``"NCHW", "OIHW", "NCHW"`` and their like) as :class:`ConvDimensionNumbers`.

    Raises:
        TypeError, ValueError: if they do not name the axes of operands of these shapes.

    >>> conv_dimension_numbers((8, 32, 32, 3), (3, 3, 3, 16), ("NHWC", "HWIO", "NHWC"))
    ConvDimensionNumbers(lhs_spec=(0, 3, 1, 2), rhs_spec=(3, 2, 0, 1), out_spec=(0, 3, 1, 2))
    """
    rank = len(lhs_shape)
    if rank != len(rhs_shape):
        raise TypeError(
            f"conv: lhs and rhs must have equally many axes, found shapes {tuple(lhs_shape)} and {tuple(rhs_shape)}"
        )
    if rank < 2:
        raise TypeError(f"conv: operands have a batch and a feature axis at least, found shape {tuple(lhs_shape)}")
    if dimension_numbers is None:
        every = tuple(range(rank))
        return ConvDimensionNumbers(every, every, every)
    if isinstance(dimension_numbers, ConvDimensionNumbers):
        return _checked_numbers(dimension_numbers, rank)
    if not isinstance(dimension_numbers, (tuple, list)) or len(dimension_numbers) != 3 or not all(
        isinstance(s, str) for s in dimension_numbers
    ):  # fmt: skip
        raise TypeError(
            "conv: dimension_numbers are three strings, of lhs, rhs and the result, such as ('NHWC', 'HWIO', "
            f"'NHWC'); found {dimension_numbers!r}"
        )
    for name, text, pair in zip(("lhs", "rhs", "out"), dimension_numbers, ("NC", "OI", "NC"), strict=True):
        if len(text) != rank:
            raise TypeError(
                f"conv: the dimension_numbers of {name} are {text!r}; wanted a letter for each of {rank} axes"
            )
        if len(set(text)) != rank or not set(pair) <= set(text):
            raise ValueError(
                f"conv: the dimension_numbers of {name} are {text!r}; wanted {pair[0]!r} and {pair[1]!r} once each, "
                "and different letters for the spatial axes"
            )
    lhs, rhs, out = dimension_numbers
    spatial = [c for c in rhs if c not in "OI"]
    for name, text in (("lhs", lhs), ("out", out)):
        found = [c for c in text if c not in "NC"]
        if set(found) != set(spatial):
            raise ValueError(
                f"conv: the dimension_numbers of {name} are {text!r} with spatial axes {sorted(found)}; those of rhs, "
                f"{rhs!r}, have {sorted(spatial)}"
            )
    return ConvDimensionNumbers(
        (lhs.index("N"), lhs.index("C"), *[lhs.index(c) for c in spatial]),
        (rhs.index("O"), rhs.index("I"), *[rhs.index(c) for c in spatial]),
        (out.index("N"), out.index("C"), *[out.index(c) for c in spatial]),
    )


def _checked_numbers(numbers: ConvDimensionNumbers, rank: int) -> ConvDimensionNumbers:
    for name, spec in zip(numbers._fields, numbers, strict=True):
        if sorted(spec) != list(range(rank)):
            raise ValueError(f"conv: {name} is {tuple(spec)}, which is no permutation of {rank} axes")
    return ConvDimensionNumbers(*[tuple(spec) for spec in numbers])


def padtype_to_pads(extents: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: str) -> Any:
    """Padding by name as ``(low, high)`` per axis: ``"VALID"`` is none, ``"SAME"`` makes results as many as elements
    by stride, the odd element of padding at the end (``"SAME_LOWER"``: at the beginning).

    >>> padtype_to_pads((5,), (4,), (1,), "SAME"), padtype_to_pads((5,), (4,), (1,), "SAME_LOWER")
    ([(1, 2)], [(2, 1)])
    """
    kind = padding.upper()
    if kind not in PADDINGS:
        raise ValueError(f"padding must be one of {', '.join(map(repr, PADDINGS))} or pairs, found {padding!r}")
    pads = []
    for n, k, s in zip(extents, window, strides, strict=True):
        total = 0 if kind == "VALID" else max((-(-n // s) - 1) * s + k - n, 0)
        low = total // 2 if kind == "SAME" else total - total // 2
        pads.append((low, total - low))
    return pads


def per_axis(name: str, values: Any, rank: int) -> Ints:
    """A parameter with an integer per spatial axis; None is one everywhere."""
    if values is None:
        return (1,) * rank
    try:
        made = tuple([operator.index(v) for v in values])
    except TypeError:
        raise TypeError(f"{name} must be {rank} integers, one for each spatial axis; found {values!r}") from None
    if len(made) != rank:
        raise ValueError(f"{name} must have one entry for each of {rank} spatial axes, found {made}")
    if any(v < 1 for v in made):
        raise ValueError(f"{name} must be positive, found {made}")
    return made


def pairs_of(padding: Any, rank: int) -> tuple[tuple[int, int], ...]:
    """Explicit padding."""
    try:
        made = tuple([tuple([operator.index(v) for v in pair]) for pair in padding])
    except TypeError:
        raise TypeError(
            f"padding must be {', '.join(map(repr, PADDINGS))}, or a pair (low, high) of integers for each of {rank} "
            f"spatial axes; found {padding!r}"
        ) from None
    if len(made) != rank or any(len(pair) != 2 for pair in made):
        raise ValueError(f"padding must have a pair (low, high) for each of {rank} spatial axes, found {padding!r}")
    return made  # type: ignore[return-value]


def conv_general_dilated(
    lhs: Any, rhs: Any, window_strides: Sequence[int], padding: Any, lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None, dimension_numbers: Any = None, feature_group_count: int = 1,
    batch_group_count: int = 1, precision: Any = None, preferred_element_type: Any = None,
) -> Any:  # fmt: skip
    """Convolution (in the sense of neural networks: the kernel is not reversed) over any number of spatial axes.

    Args:
        lhs: images, arranged as ``dimension_numbers[0]`` says.
        rhs: the kernel, of the same dtype, arranged as ``dimension_numbers[1]`` says.
        window_strides: from result to result, per spatial axis.
        padding: ``"VALID"``, ``"SAME"``, ``"SAME_LOWER"``, or ``(low, high)`` per spatial axis; negative ones crop.
        lhs_dilation: distances of the elements of ``lhs``, between which zeros are put. With strides this makes the
            transpose of a convolution.
        rhs_dilation: distances of the elements of the kernel.
        dimension_numbers: three strings, a :class:`ConvDimensionNumbers`, or None: ``("NCHW", "OIHW", "NCHW")``.
        feature_group_count: into how many groups channels are cut, each with a part of the output channels.
        batch_group_count: the same for images.
        precision: ignored: products are as exact as the dtype.
        preferred_element_type: dtype to compute in and to return.

    Returns:
        An array arranged as ``dimension_numbers[2]`` says.

    Raises:
        TypeError, ValueError: saying which argument does not fit which.

    >>> x, w = np.arange(5.0).reshape(1, 1, 5), np.array([1.0, 0.0, -1.0]).reshape(1, 1, 3)
    >>> conv_general_dilated(x, w, (1,), "SAME")
    array([[[-1., -2., -2., -2.,  3.]]])
    """
    if preferred_element_type is not None:
        dtype = np.dtype(preferred_element_type)
        lhs, rhs = as_dtype(lhs, dtype), as_dtype(rhs, dtype)
    left, right = aval_of(lhs), aval_of(rhs)  # raise on what is no array
    numbers = conv_dimension_numbers(left.shape, right.shape, dimension_numbers)
    if left.dtype != right.dtype:
        raise TypeError(
            f"conv: lhs has dtype {left.dtype.name} and rhs {right.dtype.name}; convert one of them, "
            "or say preferred_element_type"
        )
    rank = left.ndim - 2
    strides = per_axis("window_strides", window_strides, rank)
    stretch, spread = per_axis("lhs_dilation", lhs_dilation, rank), per_axis("rhs_dilation", rhs_dilation, rank)
    x = transpose(lhs, [numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1]])  # (N, *S, C)
    w = transpose(rhs, [*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0]])  # (*K, C, O)
    spatial, kernel = shape_of(x)[1:-1], shape_of(w)[:-2]
    _check_groups(shape_of(x), shape_of(w), feature_group_count, batch_group_count)
    if isinstance(padding, str):
        if any(d != 1 for d in stretch):
            raise ValueError(
                f"conv: padding {padding!r} has no meaning with lhs_dilation {stretch}; give pairs, or use "
                "conv_transpose"
            )
        windows = [dilated(k, e) for k, e in zip(kernel, spread, strict=True)]
        padding = padtype_to_pads(spatial, windows, strides, padding)
    out = _grouped(x, w, feature_group_count, batch_group_count, strides, pairs_of(padding, rank), stretch, spread)
    place = [0] * (rank + 2)
    for own, axis in zip((0, rank + 1, *range(1, rank + 1)), numbers.out_spec, strict=True):
        place[axis] = own
    return transpose(out, place)


def _check_groups(x: Ints, w: Ints, features: Any, batches: Any) -> None:
    for name, count in (("feature_group_count", features), ("batch_group_count", batches)):
        if not isinstance(count, (int, np.integer)):
            raise TypeError(f"conv: {name} must be an integer, found {count!r}")
        if count < 1:
            raise ValueError(f"conv: {name} must be positive, found {count}")
    if features > 1 and batches > 1:
        raise ValueError(
            f"conv: one of feature_group_count and batch_group_count must be 1, found {features} and {batches}"
        )
    if x[-1] % features or x[-1] // features != w[-2]:
        groups = f" in {features} groups" if features > 1 else ""
        raise ValueError(
            f"conv: lhs has {x[-1]} channels{groups}, and the kernel takes {w[-2]}"
            + (f": wanted {features} times as many" if features > 1 else "")
            + "; check dimension_numbers and feature_group_count"
        )
    if w[-1] % features:
        raise ValueError(f"conv: {w[-1]} output channels do not divide into feature_group_count={features} groups")
    if x[0] % batches:
        raise ValueError(f"conv: {x[0]} images do not divide into batch_group_count={batches} groups")
    if w[-1] % batches:
        raise ValueError(f"conv: {w[-1]} output channels do not divide into batch_group_count={batches} groups")


def _grouped(x: Any, w: Any, features: int, batches: int, *params: Any) -> Any:
    """Of ``(N, *S, C)`` and ``(*K, C, O)``: ``(N, *T, O)``."""
    groups, rank = features * batches, len(params[0])
    (images, *spatial, channels), (*kernel, inputs, outputs) = shape_of(x), shape_of(w)
    if features > 1:
        x = reshape(x, (images, *spatial, features, channels // features))
        x = transpose(x, (rank + 1, *range(rank + 1), rank + 2))
    else:
        x = reshape(x, (batches, images // batches, *spatial, channels))
    w = reshape(w, (*kernel, inputs, groups, outputs // groups))
    w = transpose(w, (rank + 1, *range(rank + 1), rank + 2))
    out = conv(x, w, *params)
    out = transpose(out, (*range(1, rank + 2), 0, rank + 2))
    return reshape(out, (*shape_of(out)[:-2], outputs))


def conv_plain(
    lhs: Any, rhs: Any, window_strides: Sequence[int], padding: str, precision: Any = None,
    preferred_element_type: Any = None,
) -> Any:  # fmt: skip
    """:func:`conv_general_dilated` of ``NCHW`` images and an ``OIHW`` kernel, without dilation or groups."""
    return conv_general_dilated(
        lhs, rhs, window_strides, padding, precision=precision, preferred_element_type=preferred_element_type
    )


def conv_with_general_padding(
    lhs: Any, rhs: Any, window_strides: Sequence[int], padding: Any, lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None, precision: Any = None, preferred_element_type: Any = None,
) -> Any:  # fmt: skip
    """:func:`conv_general_dilated` of ``NCHW`` images and an ``OIHW`` kernel, without groups."""
    return conv_general_dilated(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, precision=precision,
        preferred_element_type=preferred_element_type,
    )  # fmt: skip


_TRANSPOSE_DEFAULTS = {
    2: ("NC", "IO", "NC"),
    3: ("NHC", "HIO", "NHC"),
    4: ("NHWC", "HWIO", "NHWC"),
    5: ("NHWDC", "HWDIO", "NHWDC"),
}


def _transposed_padding(k: int, s: int, padding: Any) -> tuple[int, int]:
    if padding == "SAME":
        total = k + s - 2
        low = k - 1 if s > k - 1 else -(-total // 2)
    elif padding == "VALID":
        total, low = k + s - 2 + max(k - s, 0), k - 1
    elif isinstance(padding, (tuple, list)) and len(padding) == 2:
        low, total = k - padding[0] - 1, 2 * (k - 1) - sum(padding)
    else:
        raise ValueError(f"conv_transpose: padding must be 'SAME', 'VALID' or pairs, found {padding!r}")
    return low, total - low


def conv_transpose(
    lhs: Any, rhs: Any, strides: Sequence[int], padding: Any, rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None, transpose_kernel: bool = False, precision: Any = None,
    preferred_element_type: Any = None, use_consistent_padding: bool = False,
) -> Any:  # fmt: skip
    """The "transposed convolution" of neural networks: ``lhs`` with ``strides`` as its dilation.

    ``padding`` ``"SAME"`` and ``"VALID"`` are those of the convolution it undoes, and so are pairs with
    ``use_consistent_padding``; else pairs pad the dilated ``lhs``. ``dimension_numbers`` are ``("NHWC", "HWIO",
    "NHWC")`` and their like by default. With ``transpose_kernel`` this is the gradient of the convolution whose
    kernel, reversed and with channels exchanged, is ``rhs``.
    """
    ndim = len(shape_of(lhs))
    if dimension_numbers is None:
        if ndim not in _TRANSPOSE_DEFAULTS:
            raise ValueError(f"conv_transpose: no default dimension_numbers for {ndim} axes; give three strings")
        dimension_numbers = _TRANSPOSE_DEFAULTS[ndim]
    numbers = conv_dimension_numbers(shape_of(lhs), shape_of(rhs), dimension_numbers)
    rank = ndim - 2
    steps, spread = per_axis("strides", strides, rank), per_axis("rhs_dilation", rhs_dilation, rank)
    if use_consistent_padding or isinstance(padding, str):
        each = [padding.upper()] * rank if isinstance(padding, str) else padding
        kernel = [dilated(shape_of(rhs)[a], e) for a, e in zip(numbers.rhs_spec[2:], spread, strict=True)]
        padding = [_transposed_padding(k, s, p) for k, s, p in zip(kernel, steps, each, strict=True)]
    if transpose_kernel:
        order = list(range(ndim))
        out_axis, in_axis = numbers.rhs_spec[:2]
        order[out_axis], order[in_axis] = order[in_axis], order[out_axis]
        rhs = transpose(rev(rhs, tuple(numbers.rhs_spec[2:])), order)
    return conv_general_dilated(
        lhs, rhs, (1,) * rank, padding, steps, spread, numbers, precision=precision,
        preferred_element_type=preferred_element_type,
    )  # fmt: skip
