"""Discrete Fourier transforms over the trailing axes.

    FFT    y[k] = sum_n x[n] exp(-2πi k n / N)                complex to complex
    IFFT   its inverse, with the factor 1/N                   complex to complex
    RFFT   FFT of real numbers: only k = 0 .. N//2            real to complex
    IRFFT  the real numbers whose RFFT is given               complex to real

Over several axes the real kinds act on the last one, the others on complex numbers. All are linear. FFT and IFFT are
symmetric matrices, so each is its own transpose. RFFT leaves out the frequencies that are conjugates of others, so
with weights ``w`` of 1 at the frequencies that occur once (0, and N/2 if N is even) and 1/2 at the others

    RFFT^T (c) = N IRFFT(w conj(c)),        IRFFT^T (c) = conj(RFFT(c)) / (N w)

with N the product of all lengths. (Where an imaginary part has no influence, at the frequencies that occur once, the
first drops it and the second gives none.)
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Library
from ..util import prod
from .create import broadcasted_iota, full
from .elementwise import bitwise_and, conj, convert_element_type, gt, lt, mul, select
from .indexing import INDEX
from .structural import bind_checked, linear_unary, move_batch_front, shape_of

__all__ = ["FFT_KINDS", "FftType", "fft", "fft_p"]

FFT_KINDS = ("FFT", "IFFT", "RFFT", "IRFFT")


class FftType(enum.IntEnum):
    """The kinds as JAX names them."""

    FFT, IFFT, RFFT, IRFFT = range(4)


_REAL_OF: dict[str, np.dtype[Any]] = {"complex64": np.dtype(np.float32), "complex128": np.dtype(np.float64)}
_COMPLEX_OF: dict[str, np.dtype[Any]] = {real.name: np.dtype(name) for name, real in _REAL_OF.items()}


def _shape(x: ShapedArray, *, fft_type: str, fft_lengths: tuple[int, ...]) -> ShapedArray:
    if fft_type not in FFT_KINDS:
        raise ValueError(f"fft: fft_type must be one of {', '.join(FFT_KINDS)}, found {fft_type!r}")
    known = _COMPLEX_OF if fft_type == "RFFT" else _REAL_OF
    if x.dtype.name not in known:
        raise TypeError(f"fft: {fft_type} takes {' or '.join(known)}, found {x.dtype.name}")
    rank = len(fft_lengths)
    if not 1 <= rank <= x.ndim:
        raise ValueError(f"fft: {rank} lengths {fft_lengths} do not fit an array of shape {x.shape}")
    if min(fft_lengths) < 1:
        raise ValueError(f"fft: a transform has at least one element, found lengths {fft_lengths}")
    halved = (*fft_lengths[:-1], fft_lengths[-1] // 2 + 1)
    wanted, given = (halved if fft_type == "IRFFT" else fft_lengths), x.shape[x.ndim - rank :]
    if given != wanted:
        raise ValueError(
            f"fft: {fft_type} with lengths {fft_lengths} wants trailing axes {wanted}, found {given} in shape {x.shape}"
        )
    out = halved if fft_type == "RFFT" else fft_lengths
    dtype = {"RFFT": _COMPLEX_OF, "IRFFT": _REAL_OF}.get(fft_type, {}).get(x.dtype.name, x.dtype)
    return ShapedArray((*x.shape[: x.ndim - rank], *out), dtype)


def _impl(x: Any, *, fft_type: str, fft_lengths: tuple[int, ...]) -> Any:
    axes = range(-len(fft_lengths), 0)
    one: Any = {"FFT": np.fft.fft, "IFFT": np.fft.ifft, "RFFT": np.fft.rfft, "IRFFT": np.fft.irfft}[fft_type]
    if len(fft_lengths) == 1:
        return one(x, fft_lengths[0])
    several: Any = {"FFT": np.fft.fftn, "IFFT": np.fft.ifftn, "RFFT": np.fft.rfftn, "IRFFT": np.fft.irfftn}[fft_type]
    return several(x, fft_lengths, axes)


def _weights(shape: tuple[int, ...], n: int, dtype: np.dtype[Any], once: float, twice: float) -> Any:
    """Along the last axis ``once`` at the frequencies 0 and n/2, ``twice`` at those with a conjugate twin."""
    k = broadcasted_iota(INDEX, shape, len(shape) - 1)
    twins = bitwise_and(gt(k, full(shape, 0, INDEX)), lt(k, full(shape, (n + 1) // 2, INDEX)))
    return select(twins, full(shape, twice, dtype), full(shape, once, dtype))


def _transpose(ct: Any, x: Any, *, fft_type: str, fft_lengths: tuple[int, ...]) -> Any:
    if fft_type in ("FFT", "IFFT"):
        return (fft_p.bind(ct, fft_type=fft_type, fft_lengths=fft_lengths),)
    size, n = prod(fft_lengths), fft_lengths[-1]
    if fft_type == "RFFT":
        weights = _weights(shape_of(ct), n, aval_of(ct).dtype, size, size / 2)
        return (fft_p.bind(mul(conj(ct), weights), fft_type="IRFFT", fft_lengths=fft_lengths),)
    half = fft_p.bind(ct, fft_type="RFFT", fft_lengths=fft_lengths)
    return (mul(conj(half), _weights(shape_of(half), n, aval_of(half).dtype, 1 / size, 2 / size)),)


def _batch(size: int, args: Any, dims: Any, **params: Any) -> Any:
    return fft_p.bind(move_batch_front(args[0], dims[0]), **params), 0


def _samples(rng: np.random.Generator) -> list[Any]:
    def normal(*shape: int) -> Any:
        return rng.normal(size=shape)

    rows = []
    for shape, rank in [((5,), 1), ((3, 8), 1), ((2, 4, 3), 2), ((3, 2, 4), 3), ((1,), 1), ((2, 2), 1), ((0, 3), 1)]:
        n = shape[len(shape) - rank :]
        half = (*shape[:-1], shape[-1] // 2 + 1)
        rows += [((normal(*shape) + 1j * normal(*shape),), {"fft_type": t, "fft_lengths": n}) for t in FFT_KINDS[:2]]
        rows.append(((normal(*shape),), {"fft_type": "RFFT", "fft_lengths": n}))
        rows.append(((normal(*half) + 1j * normal(*half),), {"fft_type": "IRFFT", "fft_lengths": n}))
    return rows


fft_p = linear_unary(
    "fft", impl=_impl, shape=_shape, transpose=_transpose, batch=_batch, lower=Library("fft"), samples=_samples
)


def fft(x: Any, fft_type: Any, fft_lengths: Sequence[int]) -> Any:
    """Transform the trailing axes of ``x``, whose extents are ``fft_lengths`` (of the result, if IRFFT).

    ``fft_type`` is ``"FFT"``, ``"IFFT"``, ``"RFFT"`` or ``"IRFFT"`` in any case, or an enum member of that name.
    Integers and half floats become float64 and float32, real numbers complex where the kind wants that.

    >>> fft(np.array([1.0, 2.0, 3.0, 4.0]), "RFFT", (4,))
    array([10.+0.j, -2.+2.j, -2.+0.j])

    Raises:
        ValueError: an unknown kind, or lengths that are not the trailing extents.
        TypeError: complex numbers given to RFFT.
    """
    kind = str(getattr(fft_type, "name", fft_type)).upper()
    dtype = aval_of(x).dtype
    if dtype.kind != "c":
        real = np.dtype(np.float32) if dtype in (np.float16, np.float32) else np.dtype(np.float64)
        x = convert_element_type(x, real if kind == "RFFT" else _COMPLEX_OF[real.name])
    lengths = tuple([int(n) for n in fft_lengths])
    return bind_checked(fft_p, x, fft_type=kind, fft_lengths=lengths)
