"""``numpy.fft`` for functions that are differentiated, batched and compiled; ``np.fft`` itself works on tracers too.

Crop or pad each axis to its length, move the axes to the end, transform, move them back. float32 gives complex64, as
in NumPy; integers give complex128.

>>> import numpy as np
>>> import funcgrad as fg
>>> fg.jit(np.fft.rfft)(np.array([1.0, 2.0, 3.0, 4.0]))
array([10.+0.j, -2.+2.j, -2.+0.j])
>>> power = lambda x: np.sum(np.abs(np.fft.fft(x)) ** 2)     # Parseval: 3 times the sum of squares
>>> fg.grad(power)(np.array([1.0, 2.0, 3.0]))
array([ 6., 12., 18.])
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from numpy.fft import fftfreq, rfftfreq

from ..core.avals import aval_of
from ..ops import fourier
from ..ops.elementwise import conj, mul
from ..ops.shape import pad, slice_in_dim
from ..ops.structural import shape_of
from ..util import canonicalize_axes, canonicalize_axis
from .dispatch import implements, operand
from .ufuncs import store

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "ifft", "ifft2", "ifftn", "ifftshift", "ihfft", "irfft",
    "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip

_SWAPPED = {None: "forward", "backward": "forward", "ortho": "ortho", "forward": "backward"}


def _resized(x: Any, axis: int, n: int) -> Any:
    """The first ``n`` elements along an axis, zeros where there are not so many."""
    extent = shape_of(x)[axis]
    if n <= extent:
        return slice_in_dim(x, 0, n, axis=axis)
    return pad(x, 0, [(0, n - extent if a == axis else 0, 0) for a in range(len(shape_of(x)))])


def _scale(name: str, norm: Any, inverse: bool, size: int) -> float:
    """By what to multiply: our transforms have no factor forwards, and 1/size backwards."""
    if norm not in _SWAPPED:
        raise ValueError(f"{name}: norm must be 'backward', 'ortho' or 'forward', found {norm!r}")
    if norm in (None, "backward"):
        return 1.0
    power = 0.5 if norm == "ortho" else 1.0
    return math.pow(size, power) if inverse else math.pow(size, -power)


def _transform(name: str, kind: str, x: Any, lengths: list[int], axes: list[int], norm: Any) -> Any:
    """``lengths`` and ``axes`` (non-negative) of one transform; the real kinds halve the last of them."""
    for n in lengths:
        if n < 1:
            raise ValueError(f"{name}: invalid number of data points ({n}); a transform has at least one")
    scale = _scale(name, norm, kind in ("IFFT", "IRFFT"), math.prod(lengths))
    if kind == "RFFT" and aval_of(x).dtype.kind == "c":
        raise TypeError(f"{name}: the input is complex; a real transform takes real numbers, {name[1:]} complex ones")
    if len(set(axes)) != len(axes):  # NumPy transforms a repeated axis again
        if kind not in ("FFT", "IFFT"):
            raise ValueError(f"{name}: an axis occurs twice in {tuple(axes)}")
        for n, a in zip(lengths[::-1], axes[::-1], strict=True):
            x = _transform(name, kind, x, [n], [a], norm)
        return x
    for a, n in zip(axes, lengths, strict=True):
        x = _resized(x, a, n // 2 + 1 if kind == "IRFFT" and a == axes[-1] else n)
    last = list(range(len(shape_of(x)) - len(axes), len(shape_of(x))))
    x = fourier.fft(np.moveaxis(x, axes, last) if axes != last else x, kind, lengths)
    if scale != 1.0:
        x = mul(x, aval_of(x).dtype.type(scale))
    return np.moveaxis(x, last, axes) if axes != last else x


def _one_axis(numpy_function: Any, kind: str, doc: str) -> Any:
    name = numpy_function.__name__

    def function(a: Any, n: Any = None, axis: Any = -1, norm: Any = None, out: Any = None) -> Any:
        x = operand(a)
        axis = canonicalize_axis(axis, len(shape_of(x)))
        if n is None:
            n = shape_of(x)[axis]
            n = 2 * (n - 1) if kind == "IRFFT" else n
        result = _transform(name, kind, x, [operator.index(n)], [axis], norm)
        return result if out is None else store(name, result, out)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return implements(numpy_function)(function)


def _cook(name: str, x: Any, s: Any, axes: Any, inverse_real: bool) -> tuple[list[int], list[int]]:
    shape = shape_of(x)
    if s is None:
        places = list(range(len(shape))) if axes is None else [canonicalize_axis(a, len(shape), "axes") for a in axes]
        lengths = [shape[a] for a in places]
    else:
        lengths = [operator.index(n) for n in s]
        if axes is None and len(lengths) > len(shape):
            raise ValueError(f"{name}: s has {len(lengths)} lengths for an array of shape {shape}")
        places = [canonicalize_axis(a, len(shape), "axes") for a in (range(-len(lengths), 0) if axes is None else axes)]
        if len(places) != len(lengths):
            raise ValueError(f"{name}: s has {len(lengths)} lengths and axes has {len(places)}; they must agree")
        lengths = [shape[a] if n == -1 else n for n, a in zip(lengths, places, strict=True)]
    if not places:
        return [], []
    if inverse_real and s is None:
        lengths[-1] = 2 * (shape[places[-1]] - 1)
    return lengths, places


def _several_axes(numpy_function: Any, kind: str, default: Any, doc: str) -> Any:
    name = numpy_function.__name__

    def function(a: Any, s: Any = None, axes: Any = default, norm: Any = None, out: Any = None) -> Any:
        x = operand(a)
        lengths, places = _cook(name, x, s, axes, kind == "IRFFT")
        if not places:
            if kind in ("RFFT", "IRFFT"):
                raise ValueError(f"{name}: at least 1 axis must be transformed")
            result = x
        else:
            result = _transform(name, kind, x, lengths, places, norm)
        return result if out is None else store(name, result, out)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return implements(numpy_function)(function)


fft = _one_axis(np.fft.fft, "FFT", "The discrete Fourier transform along one axis.")
ifft = _one_axis(np.fft.ifft, "IFFT", "The inverse transform along one axis.")
rfft = _one_axis(np.fft.rfft, "RFFT", "The transform of real numbers: the non-negative half of the frequencies.")
irfft = _one_axis(np.fft.irfft, "IRFFT", "The inverse of ``rfft``; ``n`` is the length of the result.")
fft2 = _several_axes(np.fft.fft2, "FFT", (-2, -1), "The transform over two axes.")
ifft2 = _several_axes(np.fft.ifft2, "IFFT", (-2, -1), "The inverse transform over two axes.")
rfft2 = _several_axes(np.fft.rfft2, "RFFT", (-2, -1), "The transform of real numbers over two axes.")
irfft2 = _several_axes(np.fft.irfft2, "IRFFT", (-2, -1), "The inverse of ``rfft2``.")
fftn = _several_axes(np.fft.fftn, "FFT", None, "The transform over several axes.")
ifftn = _several_axes(np.fft.ifftn, "IFFT", None, "The inverse transform over several axes.")
rfftn = _several_axes(np.fft.rfftn, "RFFT", None, "The transform of real numbers over several axes.")
irfftn = _several_axes(np.fft.irfftn, "IRFFT", None, "The inverse of ``rfftn``.")


def _conjugate(x: Any) -> Any:
    return conj(x) if aval_of(x).dtype.kind == "c" else x


def _swapped(name: str, norm: Any) -> str:
    if norm not in _SWAPPED:
        raise ValueError(f"{name}: norm must be 'backward', 'ortho' or 'forward', found {norm!r}")
    return _SWAPPED[norm]


@implements(np.fft.hfft)
def hfft(a: Any, n: Any = None, axis: Any = -1, norm: Any = None, out: Any = None) -> Any:
    """The transform of a signal with Hermitian symmetry, given its non-negative half: a real spectrum."""
    return irfft(_conjugate(operand(a)), n, axis, _swapped("hfft", norm), out)


@implements(np.fft.ihfft)
def ihfft(a: Any, n: Any = None, axis: Any = -1, norm: Any = None, out: Any = None) -> Any:
    """The inverse of ``hfft``."""
    result = conj(rfft(operand(a), n, axis, _swapped("ihfft", norm)))
    return result if out is None else store("ihfft", result, out)


def _shifted(x: Any, axes: Any, direction: int) -> Any:
    places = canonicalize_axes(axes, len(shape_of(x)), "axes")
    shifts = [shape_of(x)[a] // 2 if direction > 0 else -(shape_of(x)[a] // 2) for a in places]
    return np.roll(x, shifts, places)


@implements(np.fft.fftshift)
def fftshift(x: Any, axes: Any = None) -> Any:
    """The zero frequency moved to the middle of the spectrum."""
    return _shifted(operand(x), axes, 1)


@implements(np.fft.ifftshift)
def ifftshift(x: Any, axes: Any = None) -> Any:
    """The inverse of ``fftshift``."""
    return _shifted(operand(x), axes, -1)
