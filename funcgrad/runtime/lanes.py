"""Fourier transforms as steps of a native program, as many side by side as a register has lanes.

Where neighbours in memory belong to different transforms, no operation of a transform has to move anything between
lanes: its element k is one register of real and one of imaginary parts. A *tile* of transforms goes through its stages
(see ``butterflies``) in memory of its own that stays in the second-level cache; the first stage reads the user's array
and the last one writes it, where neighbours lie side by side there, else the tile is turned in and out by squares.
Two passes of this kind make one long transform, the first of them with a factor for each result: factor
exp(-2πi j k / N) is the product of one that belongs to the tile's first transform, in all lanes, and one that belongs
to the lane, so tables are short beside the data.

The last tile begins early enough to be whole. A transform goes through the same operations in any lane, so results
depend neither on that nor on the number of threads. Everything but radices and directions is data.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from funcgrad.kernels.fourier_plan import LONGEST, PRIMES, FourierPass
from funcgrad.runtime.butterflies import PLANAR, TURNED, USERS
from funcgrad.runtime.compile import compile_all_vectors, compile_runtime
from funcgrad.runtime.cython_api import libc
from funcgrad.runtime.executor import Step
from funcgrad.runtime.roots import roots
from funcgrad.runtime.target import wide

__all__ = ["lane_step", "radices"]

_MOST_RADIX, _EASY_RADIX = 16, 8
"""Beyond 8 elements, a butterfly and its factors do not fit into 32 registers."""
_NANOSECONDS = 0.25  # per element and binary digit of the length
_WORTH_A_THREAD = 15_000  # nanoseconds

_STAGE = """
def stage(source, step, target, along, twiddles, outer, inner, near, far, scale, ahead):
    across = outer * inner * step
    for p in range(outer):
        butterflies_KIND(source, step, across, target, along, inner * along, twiddles, near, far, scale, ahead, inner,
                         RADIX, LANES, READS, WRITES, TWIDDLED, WEIGHTED, SWAPS)
        source += inner * step
        target += RADIX * inner * along
        twiddles += (RADIX - 1) * 2 * SIZE
"""
_TURN_IN = """
def turn_in(planar, user, row, count):
    pack_turned_KIND(user, row, planar, LANES * SIZE, 2 * count, LANES, LANES)
"""
_TURN_OUT = """
def turn_out(planar, user, row, count):
    for e in range(0, 2 * count, LANES):
        pack_turned_KIND(planar, LANES * SIZE, user, row, LANES, min_i64(2 * count - e, LANES), LANES)
        planar += LANES * LANES * SIZE
        user += LANES * SIZE
"""

# slots of the input and the output | byte offset of the input | ...; then for each stage its machine code, its twiddle
# factors, the butterflies that differ in these and the ones that share them
_WORDS = (
    "slot_in", "slot_out", "offset", "n", "tiles", "inner", "lanes", "outer_in", "outer_out", "side_in", "side_out",
    "step_in", "step_out", "turn_in", "turn_out", "stages", "planar", "near", "far", "far_tile", "scale", "malloc",
    "free",
)  # fmt: skip
_TABLE = 8 * len(_WORDS)
_LANES = f"""
def fft_lanes(slots, ints, lo, hi):
    {"; ".join([f"{name} = load(ints + {8 * i})" for i, name in enumerate(_WORDS)])}
    block = call1(malloc, 2 * n * planar + 64)
    if block == 0:
        fail(slots)
        return
    first = (block + 63) & -64
    second = first + n * planar
    for number in range(lo, hi):
        i = number // tiles
        t = number - i * tiles
        j = min(t * lanes, inner - lanes)
        source = load(slots + 8 * slot_in) + offset + i * outer_in + j * side_in
        target = load(slots + 8 * slot_out) + i * outer_out + j * side_out
        x = source
        step = step_in
        y = first
        z = second
        if turn_in != 0:
            call4(turn_in, second, source, side_in, n)
            x = second
            step = planar
        for s in range(stages):
            entry = ints + {_TABLE} + 32 * s
            to = y
            along = planar
            if s == stages - 1 and turn_out == 0:
                to = target
                along = step_out
            call11(load(entry), x, step, to, along, load(entry + 8), load(entry + 16), load(entry + 24), near,
                   far + t * far_tile, scale, planar)
            x = y
            y = z
            z = x
            step = planar
        if turn_out != 0:
            call4(turn_out, x, target, side_out, n)
    call1(free, block)
"""


@cache
def radices(n: int) -> tuple[int, ...] | None:
    """Of the stages for transforms of length ``n``, by estimated time; None where a prime factor is too large."""
    best: dict[int, tuple[float, tuple[int, ...]]] = {1: (0.0, ())}
    for d in [d for d in range(2, n + 1) if n % d == 0]:
        options = [
            (best[d // r][0] + _cost(r), tuple(sorted((*best[d // r][1], r), reverse=True)))
            for r in range(2, _MOST_RADIX + 1)
            if d % r == 0 and d // r in best
        ]
        if options:
            best[d] = min(options)
    return best[n][1] if n in best and n > 1 else None


@cache
def _cost(radix: int) -> float:
    """Operations for an element in a stage: loads, stores, a twiddle factor, sums."""
    rest, sums = radix, 0.0
    for p in PRIMES:
        while rest % p == 0:
            rest, sums = rest // p, sums + (2.0 if p == 2 else p + 2.0)
    return math.inf if rest > 1 else (8 + sums) * (1 if radix <= _EASY_RADIX else 1.4)


def _filled(text: str, kind: str, **words: int) -> str:
    for name, value in {"SIZE": 4 if kind == "f32" else 8, **words}.items():
        text = text.replace(name, str(int(value)))
    return text.replace("KIND", kind)


@cache
def _driver() -> int:
    return compile_runtime(_LANES, "fft_lanes", 4, returns=False)


def lane_step(work: FourierPass, real: np.dtype[Any], slot_in: int, slot_out: int, offset: int) -> Step | None:
    """The step that does this pass of ``FFT`` or ``IFFT``, or None where lanes do not suit it."""
    stages = radices(work.n) if work.n <= LONGEST else None
    if work.kind not in ("FFT", "IFFT") or stages is None:
        return None
    lanes, element = (64 if wide() else 32) // real.itemsize, 2 * real.itemsize
    outer, inner = work.outer, work.inner
    outer_in, side_in, step_in = work.strides_in
    outer_out, side_out, step_out = work.strides_out
    if inner == 1:
        outer, inner = 1, outer
        outer_in, side_in, outer_out, side_out = 0, outer_in, 0, outer_out
    turns = side_in != 1, side_out != 1
    if inner < lanes or (turns[0] and step_in != 1) or (turns[1] and step_out != 1):
        return None
    tiles = -(-inner // lanes)
    codes, turn_in, turn_out = _codes(work, stages, real, lanes, turns)
    factors, table, left, done = list[np.ndarray](), list[int](), work.n, 1
    for code, radix in zip(codes, stages, strict=True):
        left //= radix
        factors.append(roots(done * np.arange(left)[:, None] * np.arange(1, radix), work.n, real))
        table += [code, factors[-1].ctypes.data, left, done]
        done *= radix
    near, far = _weights(work.weights, work.n, inner, lanes, real) if work.weights else (factors[0], factors[0])
    scale = np.array([1 / work.n], real)
    words = {
        "slot_in": slot_in, "slot_out": slot_out, "offset": offset, "n": work.n, "tiles": tiles, "inner": inner,
        "lanes": lanes, "outer_in": outer_in * element, "outer_out": outer_out * element, "side_in": side_in * element,
        "side_out": side_out * element, "step_in": step_in * element, "step_out": step_out * element,
        "turn_in": turn_in, "turn_out": turn_out, "stages": len(stages), "planar": lanes * element,
        "near": near.ctypes.data, "far": far.ctypes.data, "far_tile": work.n * element if work.weights else 0,
        "scale": scale.ctypes.data, **libc(),
    }  # fmt: skip
    cost = _NANOSECONDS * lanes * work.n * max(1.0, math.log2(work.n)) + 50
    worth = outer * tiles > 1 and outer * tiles * cost > 2 * _WORTH_A_THREAD
    grain = max(1, round(_WORTH_A_THREAD / cost)) if worth else 0
    ints = [*[words[name] for name in _WORDS], *table]
    return Step(_driver(), ints, outer * tiles, grain, checks=True, keep=(factors, near, far, scale))


def _codes(
    work: FourierPass, stages: tuple[int, ...], real: np.dtype[Any], lanes: int, turns: tuple[bool, bool]
) -> tuple[list[int], int, int]:
    """Machine code for each stage, for turning in and for turning out (0 where there is nothing to turn)."""
    kind = "f64" if real == np.float64 else "f32"
    sources = []
    for s, radix in enumerate(stages):
        first, last = s == 0, s == len(stages) - 1
        text = _filled(
            _STAGE, kind, RADIX=radix, LANES=lanes,
            READS=(TURNED if turns[0] else USERS) if first else PLANAR,
            WRITES=(TURNED if turns[1] else USERS) if last else PLANAR,
            TWIDDLED=not last, WEIGHTED=last and work.weights > 0, SWAPS=work.kind == "IFFT" and (first or last),
        )  # fmt: skip
        sources.append((text, "stage", 11))
    for text, name, turn in ((_TURN_IN, "turn_in", turns[0]), (_TURN_OUT, "turn_out", turns[1])):
        if turn:
            sources.append((_filled(text, kind, LANES=lanes), name, 4))
    codes = compile_all_vectors(sources)
    turn_out = codes.pop() if turns[1] else 0
    turn_in = codes.pop() if turns[0] else 0
    return codes, turn_in, turn_out


def _weights(n: int, results: int, inner: int, lanes: int, real: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
    """The factors ``exp(-2πi j k / n)`` of result k of transform j: of lanes, planar, and of the tiles' first ones."""
    k, lane = np.arange(results), np.arange(lanes)
    near = np.ascontiguousarray(np.moveaxis(roots(k[:, None] * lane, n, real), -1, 1))
    start = np.minimum(np.arange(0, inner, lanes), inner - lanes)
    return near, roots(start[:, None] * k, n, real)
