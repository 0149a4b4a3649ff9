"""``scipy.fft`` for functions that are differentiated, batched and compiled.

The Fourier transforms are those of ``funcgrad.numpy.fft``. Cosine and sine transforms of types 1 to 4 are written with
them, a real one of the same length for types 2 and 3 (Makhoul's order: even elements forwards, then odd ones
backwards), and take SciPy's ``norm`` and ``orthogonalize``.

>>> import numpy as np
>>> import funcgrad as fg
>>> x = np.array([1.0, 2.0, 4.0])
>>> np.round(fg.scipy.fft.dct(x, norm="ortho"), 6)
array([ 4.041452, -2.12132 ,  0.408248])
>>> energy = lambda x: np.sum(fg.scipy.fft.dct(x, norm="ortho") ** 2)       # an orthogonal matrix: d energy = 2 x
>>> np.round(fg.grad(energy)(x), 6)
array([2., 4., 8.])
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..numpy.dispatch import operand

# isort: off
from ..numpy.fft import (
    fft, fft2, fftfreq, fftn, fftshift, hfft, ifft, ifft2, ifftn, ifftshift, ihfft, irfft, irfft2, irfftn, rfft, rfft2,
    rfftfreq, rfftn,
)  # fmt: skip

# isort: on
from ..ops.elementwise import complex_, imag, mul, real
from ..ops.promotion import as_dtype
from ..ops.shape import concatenate, pad, rev, strided_slice
from ..ops.structural import shape_of
from ..util import canonicalize_axis

__all__ = [
    "dct", "dctn", "dst", "dstn", "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "idct", "idctn", "idst",
    "idstn", "ifft", "ifft2", "ifftn", "ifftshift", "ihfft", "irfft", "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq",
    "rfftn",
]  # fmt: skip

_INVERSE = {1: 1, 2: 3, 3: 2, 4: 4}
_INVERSE_NORM = {None: "forward", "backward": "forward", "ortho": "ortho", "forward": "backward"}
_HALF = math.sqrt(0.5)


# the transforms along the last axis, without factors --------------------------------------------------------------


def _part(x: Any, start: int, stop: int, step: int = 1) -> Any:
    """``x[..., start:stop:step]``."""
    shape = shape_of(x)
    zeros, ones = [0] * (len(shape) - 1), [1] * (len(shape) - 1)
    return strided_slice(x, (*zeros, start), (*shape[:-1], stop), (*ones, step))


def _reversed(x: Any) -> Any:
    return rev(x, (len(shape_of(x)) - 1,))


def _joined(*parts: Any) -> Any:
    return concatenate(list(parts), len(shape_of(parts[0])) - 1)


def _extended(x: Any, before: int, after: int) -> Any:
    return pad(x, 0, [*[(0, 0, 0)] * (len(shape_of(x)) - 1), (before, after, 0)])


def _weighted(x: Any, weights: Any) -> Any:
    return mul(x, np.asarray(weights, aval_of(x).dtype))


def _waves(x: Any, angles: Any) -> Any:
    """A real array times ``exp(i angles)``."""
    return complex_(_weighted(x, np.cos(angles)), _weighted(x, np.sin(angles)))


def _turned(x: Any, angles: Any) -> Any:
    return _weighted(x, np.cos(angles) + 1j * np.sin(angles))


def _cosine_1(x: Any) -> Any:
    n = shape_of(x)[-1]
    return real(rfft(_joined(x, _reversed(_part(x, 1, n - 1)))))


def _cosine_2(x: Any) -> Any:
    n = shape_of(x)[-1]
    folded = _joined(_part(x, 0, n, 2), _reversed(_part(x, 1, n, 2))) if n > 1 else x
    w = _turned(rfft(folded), -np.pi * np.arange(n // 2 + 1) / (2 * n))
    rest = _reversed(_part(imag(w), 1, (n + 1) // 2))
    return _joined(_weighted(real(w), 2), _weighted(rest, -2))


def _cosine_3(x: Any) -> Any:
    n = shape_of(x)[-1]
    half = n // 2 + 1
    angles = np.pi * np.arange(half) / (2 * n)
    mirrored = _part(_extended(_reversed(_part(x, 1, n)), 1, 1), 0, half)  # x[n - k], and 0 for k = 0
    spectrum = _waves(_part(x, 0, half), angles) + _waves(mirrored, angles - np.pi / 2)
    folded = _weighted(irfft(spectrum, n), n)
    even = (n + 1) // 2
    if n == 1:
        return folded
    forwards, backwards = _part(folded, 0, even), _reversed(_part(folded, even, n))
    spread = [*[(0, 0, 0)] * (len(shape_of(x)) - 1), (0, 1 - n % 2, 1)]
    return pad(forwards, 0, spread) + pad(backwards, 0, [*spread[:-1], (1, n % 2, 1)])


def _cosine_4(x: Any) -> Any:
    n = shape_of(x)[-1]
    k = np.arange(n)
    spectrum = _part(fft(_waves(x, -np.pi * k / (2 * n)), 2 * n), 0, n)
    return _weighted(real(_turned(spectrum, -np.pi * (2 * k + 1) / (4 * n))), 2)


def _sine_1(x: Any) -> Any:
    n = shape_of(x)[-1]
    odd = _joined(_extended(x, 1, 1), _weighted(_reversed(x), -1))
    return _weighted(_part(imag(rfft(odd)), 1, n + 1), -1)


def _alternating(x: Any) -> Any:
    return _weighted(x, 1 - 2 * (np.arange(shape_of(x)[-1]) % 2))


_COSINES: dict[int, Callable[[Any], Any]] = {1: _cosine_1, 2: _cosine_2, 3: _cosine_3, 4: _cosine_4}
_SINES: dict[int, Callable[[Any], Any]] = {
    1: _sine_1,
    2: lambda x: _reversed(_cosine_2(_alternating(x))),
    3: lambda x: _alternating(_cosine_3(_reversed(x))),
    4: lambda x: _alternating(_cosine_4(_reversed(x))),
}


# factors and axes -------------------------------------------------------------------------------------------------


def _ends(x: Any, factor: float, first: bool, last: bool) -> Any:
    """The first and the last element of each row times ``factor``."""
    weights = np.ones(shape_of(x)[-1])
    weights[0] = factor if first else 1
    weights[-1] = factor if last else weights[-1]
    return _weighted(x, weights)


def _trigonometric(name: str, sine: bool, kind: int, x: Any, norm: Any, orthogonal: bool | None) -> Any:
    """One transform along the last axis."""
    n = shape_of(x)[-1]
    if kind not in _COSINES:
        raise ValueError(f"{name}: type must be 1, 2, 3 or 4, found {kind!r}")
    if norm not in _INVERSE_NORM:
        raise ValueError(f"{name}: norm must be 'backward', 'ortho' or 'forward', found {norm!r}")
    least = 2 if kind == 1 and not sine else 1
    if n < least:
        raise ValueError(f"{name}: type {kind} needs at least {least} elements along the axis, found {n}")
    orthogonal = norm == "ortho" if orthogonal is None else bool(orthogonal)
    size = 2 * n if kind != 1 else 2 * (n + 1) if sine else 2 * (n - 1)
    both = kind == 1
    if orthogonal and (kind == 3 or (both and not sine)):
        x = _ends(x, 1 / _HALF, both or not sine, both or sine)
    y = (_SINES if sine else _COSINES)[kind](x)
    if orthogonal and (kind == 2 or (both and not sine)):
        y = _ends(y, _HALF, both or not sine, both or sine)
    if norm in (None, "backward"):
        return y
    return _weighted(y, math.sqrt(1 / size) if norm == "ortho" else 1 / size)


def _floating(name: str, x: Any) -> Any:
    x = operand(x)
    dtype = aval_of(x).dtype
    if dtype.kind == "c":
        raise TypeError(f"{name}: the input is complex; transform its real and imaginary parts")
    return as_dtype(x, np.dtype(np.float32) if dtype in (np.float16, np.float32) else np.dtype(np.float64))


def _along(name: str, sine: bool, kind: int, x: Any, n: Any, axis: Any, norm: Any, orthogonal: Any) -> Any:
    axis = canonicalize_axis(axis, len(shape_of(x)))
    x = np.moveaxis(x, axis, -1)
    extent = shape_of(x)[-1]
    if n is not None:
        n = operator.index(n)
        if n < 1:
            raise ValueError(f"{name}: invalid number of data points ({n}); a transform has at least one")
        x = _part(x, 0, n) if n <= extent else _extended(x, 0, n - extent)
    return np.moveaxis(_trigonometric(name, sine, kind, x, norm, orthogonal), -1, axis)


def _function(name: str, sine: bool, inverse: bool) -> Any:
    def transform(
        x: Any, type: int = 2, n: int | None = None, axis: int = -1, norm: str | None = None,
        overwrite_x: bool = False, workers: int | None = None, *, orthogonalize: bool | None = None,
    ) -> Any:  # fmt: skip
        kind, norm = _meant(name, inverse, type, norm)
        return _along(name, sine, kind, _floating(name, x), n, axis, norm, orthogonalize)

    transform.__name__ = transform.__qualname__ = name
    what = ("The inverse of the " if inverse else "The ") + ("sine" if sine else "cosine")
    transform.__doc__ = f"{what} transform of ``type`` 1 to 4 along one axis. See ``scipy.fft.{name}``."
    return transform


def _meant(name: str, inverse: bool, kind: int, norm: Any) -> tuple[int, Any]:
    if not inverse:
        return kind, norm
    if norm not in _INVERSE_NORM:
        raise ValueError(f"{name}: norm must be 'backward', 'ortho' or 'forward', found {norm!r}")
    return _INVERSE.get(kind, kind), _INVERSE_NORM[norm]


def _function_n(name: str, sine: bool, inverse: bool) -> Any:
    def transform(
        x: Any, type: int = 2, s: Any = None, axes: Any = None, norm: str | None = None, overwrite_x: bool = False,
        workers: int | None = None, *, orthogonalize: bool | None = None,
    ) -> Any:  # fmt: skip
        kind, norm = _meant(name, inverse, type, norm)
        x = _floating(name, x)
        rank = len(shape_of(x))
        lengths = None if s is None else [s] if np.ndim(s) == 0 else list(s)
        if axes is None:
            places = list(range(rank)) if lengths is None else list(range(rank - len(lengths), rank))
        else:
            places = [axes] if np.ndim(axes) == 0 else list(axes)
        if lengths is not None and len(lengths) != len(places):
            raise ValueError(f"{name}: s has {len(lengths)} lengths and axes has {len(places)}; they must agree")
        for k, axis in enumerate(places):
            n = None if lengths is None or lengths[k] == -1 else lengths[k]
            x = _along(name, sine, kind, x, n, axis, norm, orthogonalize)
        return x

    transform.__name__ = transform.__qualname__ = name
    what = ("The inverse of the " if inverse else "The ") + ("sine" if sine else "cosine")
    transform.__doc__ = f"{what} transform of ``type`` 1 to 4 along several axes. See ``scipy.fft.{name}``."
    return transform


dct, idct = _function("dct", False, False), _function("idct", False, True)
dst, idst = _function("dst", True, False), _function("idst", True, True)
dctn, idctn = _function_n("dctn", False, False), _function_n("idctn", False, True)
dstn, idstn = _function_n("dstn", True, False), _function_n("idstn", True, True)
