"""erfinv: erfinv(x) = x P(w) with w = -log(1 - x**2), by polynomials in w and, further out, in sqrt(w)."""

from __future__ import annotations

from typing import NamedTuple

from .expr import F32, F64, Scalar, chain, fabs, fma, select, small_integer_to_float, sqrt
from .logarithm import log1p_shifted, log_of_parts, split_exponent
from .registry import function


class _Piece(NamedTuple):
    """P as a polynomial around `centre`, for arguments below `end`."""

    centre: float
    end: float
    coefficients: tuple[float, ...]


_h = float.fromhex
NEAR = {  # in w
    32: _Piece(
        2.5,
        5.0,
        tuple(
            map(
                _h,
                (
                    "0x1.805c5d2009e7cp+0",
                    "0x1.f91e8ad67f628p-3",
                    "-0x1.11c4ebac24614p-8",
                    "-0x1.4866155e830b3p-10",
                    "0x1.c9e6c8a4af8d0p-13",
                    "-0x1.4d159e0cae3a5p-18",
                    "-0x1.d0c1b3c7e059cp-19",
                    "0x1.f48b7cec23f4fp-22",
                    "0x1.8f22df800e859p-26",
                    "-0x1.2e0d3c0c24138p-27",
                ),
            )
        ),
    ),
    64: _Piece(
        3.125,
        6.25,
        tuple(
            map(
                _h,
                (
                    "0x1.a755e7c99ae86p+0",
                    "0x1.ebd80d9b13df7p-3",
                    "-0x1.8b6c33114ee57p-8",
                    "-0x1.8457694834208p-11",
                    "0x1.879c2a20d78e7p-13",
                    "-0x1.d1d1f7cafbe42p-17",
                    "-0x1.6e8a53eeeb8afp-20",
                    "0x1.c6b4f8ad0ed38p-22",
                    "-0x1.f36ce519cf3a0p-26",
                    "-0x1.1a9eb68a320cbp-28",
                    "0x1.20f4e9dca161bp-30",
                    "-0x1.dc3deb4f2878ap-35",
                    "-0x1.c895d83657b59p-37",
                    "0x1.7230f6775d254p-39",
                    "-0x1.6d940ce4ede5cp-44",
                    "-0x1.6837b4002cf31p-45",
                    "0x1.db3dc93fbbf47p-48",
                    "-0x1.889b28eede2dfp-55",
                    "-0x1.2bf5f0e242427p-53",
                    "0x1.2249efb1bd6dep-56",
                    "0x1.526a2f2503ae3p-60",
                    "-0x1.a4ead87170b3fp-62",
                    "-0x1.3dda329d2eaedp-70",
                    "0x1.fb337ed14a0f9p-69",
                ),
            )
        ),
    ),
}
FAR = {  # in sqrt(w), by ascending ends
    32: (
        _Piece(
            3.03,
            4.03,
            tuple(
                map(
                    _h,
                    (
                        "0x1.6e77f1359beb5p+1",
                        "0x1.00919adf30335p+0",
                        "0x1.1ff685177209dp-7",
                        "-0x1.c9f8cef2079e6p-8",
                        "0x1.527c767c5078ap-8",
                        "-0x1.b399c704db2b4p-9",
                        "0x1.8211035afc63cp-10",
                        "-0x1.2ba7944c44e02p-13",
                        "-0x1.2a3af888dc957p-12",
                        "0x1.07edded442660p-13",
                    ),
                )
            ),
        ),
    ),
    64: (
        _Piece(
            3.25,
            4.0,
            tuple(
                map(
                    _h,
                    (
                        "0x1.8abcc380d5a48p+1",
                        "0x1.0158a6d641d57p+0",
                        "0x1.5ffcfe5b7276cp-8",
                        "-0x1.ebadabba1f4f3p-9",
                        "0x1.468eeca6bb3a2p-9",
                        "-0x1.ba9240d19e0b7p-10",
                        "0x1.f3cc55401c76dp-11",
                        "-0x1.7448be46b32b9p-12",
                        "0x1.932d4f48a7d18p-16",
                        "0x1.1e6ae8f36f545p-14",
                        "-0x1.8cf051ebd7aaap-15",
                        "0x1.a23b8828b2a4ap-17",
                        "0x1.889955c3aa60ep-19",
                        "-0x1.0b586af6283c8p-18",
                        "0x1.92a0f61eca9ecp-20",
                        "-0x1.07e90732c12d0p-25",
                        "-0x1.24a4cfa443a4dp-22",
                        "0x1.2064870459349p-23",
                        "0x1.48fea4ad41c2fp-30",
                        "-0x1.1801dabb08177p-26",
                    ),
                )
            ),
        ),
        _Piece(
            5.0,
            6.05,
            tuple(
                map(
                    _h,
                    (
                        "0x1.3664ddd1ad7fbp+2",
                        "0x1.02a30d1fba10ep+0",
                        "-0x1.22ea5df06c817p-13",
                        "-0x1.c2f36aa26f96bp-13",
                        "0x1.3ebf4eb5d9b61p-14",
                        "-0x1.4a348fca2266ep-16",
                        "0x1.2fbd278bf8e9bp-18",
                        "-0x1.0a9068693995ep-20",
                        "0x1.ebc99179987bep-23",
                        "-0x1.222b0f5d8b834p-24",
                        "0x1.f4b7fccf656c7p-26",
                        "-0x1.05eb0192a04fep-26",
                        "0x1.05bb7190c3a8ap-27",
                        "-0x1.dec326c4ffbb7p-29",
                        "0x1.9e4812d5a0228p-30",
                        "-0x1.d86ff11f9b323p-32",
                        "-0x1.dcc78e6bfb6fap-36",
                        "0x1.671634d2b87edp-35",
                    ),
                )
            ),
        ),
    ),
}


def _factor(w: Scalar, precision: int) -> Scalar:
    """P(w) to the given precision in bits of width."""
    near, far = NEAR[precision], FAR[precision]
    root = sqrt(w)
    factor = chain(root - far[-1].centre, far[-1].coefficients)
    for piece in reversed(far[:-1]):
        factor = select(root < piece.end, chain(root - piece.centre, piece.coefficients), factor)
    return select(w < near.end, chain(w - near.centre, near.coefficients), factor)


def _at_the_ends(x: Scalar, y: Scalar) -> Scalar:
    a = fabs(x)
    return select(a <= 1.0, select(a.eq(1.0), x * float("inf"), y), float("nan"))


@function([F64], name="erfinv")
def erfinv_f64(x: Scalar) -> Scalar:
    square = x * x
    w = -log1p_shifted(-square, -fma(x, x, -square))
    return _at_the_ends(x, x * _factor(w, 64))


@function([F32], name="erfinv")
def erfinv_f32(x: Scalar) -> Scalar:
    """In float64, in which x**2 is exact and the polynomials of float32 do not lose a bit."""
    wide = x.to(F64)
    k, m = split_exponent(fma(-wide, wide, 1.0))
    w = -log_of_parts(small_integer_to_float(k), m - 1.0)
    return _at_the_ends(x, (wide * _factor(w, 32)).to(F32))
