"""``scipy.signal`` on traced values: direct convolution and correlation of any rank, as ``funcgrad.lax.conv``.

>>> convolve(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.5]))
array([0. , 1. , 2.5, 4. , 1.5])
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..numpy.dispatch import operand
from ..ops.conv import conv
from ..ops.promotion import as_dtype, promote_dtypes
from ..ops.shape import pad, rev
from ..ops.structural import reshape, shape_of

__all__ = ["convolve", "convolve2d", "correlate", "correlate2d"]

_MODES = ("full", "same", "valid")
_METHODS = ("auto", "direct", "fft")


def _operands(name: str, in1: Any, in2: Any, mode: Any, rank: int | None = None) -> tuple[Any, Any]:
    x, y = promote_dtypes(operand(in1), operand(in2))
    s, t = shape_of(x), shape_of(y)
    if len(s) != len(t) or (rank is not None and len(s) != rank):
        wanted = "equally many axes" if rank is None else f"{rank} axes"
        raise ValueError(f"{name}: operands must have {wanted}, found shapes {s} and {t}")
    if 0 in s + t:
        raise ValueError(f"{name}: operands must not be empty, found shapes {s} and {t}")
    if mode not in _MODES:
        raise ValueError(f"{name}: mode must be 'full', 'same' or 'valid', found {mode!r}")
    if mode == "valid" and not (_covers(s, t) or _covers(t, s)):
        raise ValueError(
            f"{name}: in mode 'valid' one operand must be at least as large as the other along every axis, found "
            f"shapes {s} and {t}"
        )
    return x, y


def _covers(s: tuple[int, ...], t: tuple[int, ...]) -> bool:
    return all([n >= m for n, m in zip(s, t, strict=True)])


def _correlation(x: Any, y: Any, mode: str, fill: Any = 0, late: bool = False) -> Any:
    """``y`` moved over ``x``, which is continued by ``fill``. Of an even extent of ``y``, mode ``same`` puts the middle
    before the centre, or behind it if ``late``."""
    dtype, rank = aval_of(x).dtype, len(shape_of(x))
    if dtype.kind == "b":
        x, y = as_dtype(x, np.dtype(np.int64)), as_dtype(y, np.dtype(np.int64))
    pads = []
    for m in shape_of(y):
        behind = m // 2 if late else (m - 1) // 2
        before = {"full": m - 1, "same": m - 1 - behind, "valid": 0}[mode]
        pads.append((before, {"full": m - 1, "same": behind, "valid": 0}[mode]))
    if not isinstance(fill, (int, float, complex)) or fill != 0:
        x = pad(x, as_dtype(operand(fill), aval_of(x).dtype), [(lo, hi, 0) for lo, hi in pads])
        pads = [(0, 0)] * rank
    x, y = reshape(x, (1, 1, *shape_of(x), 1)), reshape(y, (1, *shape_of(y), 1, 1))
    ones = (1,) * rank
    out = conv(x, y, ones, tuple(pads), ones, ones)
    return as_dtype(reshape(out, shape_of(out)[2:-1]), dtype)


def _method(name: str, method: Any) -> None:
    if method not in _METHODS:
        raise ValueError(f"{name}: method must be one of {', '.join(map(repr, _METHODS))}, found {method!r}")


def convolve(in1: Any, in2: Any, mode: str = "full", method: str = "auto") -> Any:
    """Convolution of two arrays of one rank, as ``scipy.signal.convolve``; always by the direct method."""
    _method("convolve", method)
    x, y = _operands("convolve", in1, in2, mode)
    return _convolved(x, y, mode)


def _convolved(x: Any, y: Any, mode: str, fill: Any = 0) -> Any:
    if mode == "valid" and not _covers(shape_of(x), shape_of(y)):
        x, y = y, x
    return _correlation(x, rev(y, range(len(shape_of(y)))), mode, fill)


def correlate(in1: Any, in2: Any, mode: str = "full", method: str = "auto") -> Any:
    """Cross-correlation of two arrays of one rank, as ``scipy.signal.correlate``; always by the direct method."""
    _method("correlate", method)
    x, y = _operands("correlate", in1, in2, mode)
    axes = range(len(shape_of(x)))
    if mode == "valid" and not _covers(shape_of(x), shape_of(y)):
        return np.conjugate(rev(_correlation(y, np.conjugate(x), mode), axes))
    return _correlation(x, np.conjugate(y), mode)


def _boundary(name: str, boundary: Any) -> None:
    if boundary != "fill":
        raise NotImplementedError(
            f"{name}: boundary {boundary!r} is not there; continue in1 with np.pad(..., mode='wrap' or 'symmetric') "
            "and use mode='valid'"
        )


def convolve2d(in1: Any, in2: Any, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0) -> Any:
    """Convolution of two matrices, as ``scipy.signal.convolve2d``; beyond its edges ``in1`` is ``fillvalue``."""
    _boundary("convolve2d", boundary)
    x, y = _operands("convolve2d", in1, in2, mode, 2)
    return _convolved(x, y, mode, fillvalue)


def correlate2d(in1: Any, in2: Any, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0) -> Any:
    """Cross-correlation of two matrices, as ``scipy.signal.correlate2d``; beyond its edges ``in1`` is ``fillvalue``.

    SciPy's conventions differ from those of ``correlate``: in mode ``"same"`` where an extent of ``in2`` is even, and
    in mode ``"valid"`` where ``in2`` is the larger: it is then ``in1`` whose complex conjugate is taken.
    """
    _boundary("correlate2d", boundary)
    x, y = _operands("correlate2d", in1, in2, mode, 2)
    if mode == "valid" and not _covers(shape_of(x), shape_of(y)):
        return rev(_correlation(y, np.conjugate(x), mode), (0, 1))
    return _correlation(x, np.conjugate(y), mode, fillvalue, late=True)
