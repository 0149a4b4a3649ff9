"""The instruction of Fourier transforms of which each lane of the registers does one: a stage's butterflies.

Transforms that lie side by side need no shuffles: a register holds the same element of several of them. In *planar*
memory an element is one register of real parts and one of imaginary parts, one after the other. The first stage reads
the user's memory, where the two parts alternate, the last one writes it.

A stage of radix r (Stockham's, decimating in frequency) makes of r elements

    y[k] = exp(-2πi p k / (r P)) sum_j x[j] exp(-2πi j k / r)

The sum is written out: by coprime factors of r without twiddle factors between them, by other ones with constants, and
for primes by sums and differences of the elements j and r - j.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from funcgrad.codegen.instruction import IMMEDIATE, Instruction
from funcgrad.codegen.vecmath.expr import F32, F64, I64, Body, Kind, Scalar
from funcgrad.runtime.roots import root
from funcgrad.runtime.vectors import Vectors

__all__ = ["BUTTERFLIES", "PLANAR", "PRIMES", "TURNED", "USERS"]

PLANAR, TURNED, USERS = range(3)
"""What a stage reads or writes: planar memory of our own, the user's elements turned into it or to be turned out of it,
the user's memory."""
PRIMES = (2, 3, 5, 7, 11, 13)

Complex = tuple[Any, Any]


class _Sums:
    """Arithmetic with complex numbers in registers, and the transforms of a few of them."""

    def __init__(self, v: Vectors) -> None:
        self.v, self.b = v, v.b

    def number(self, x: float) -> Any:
        return self.v.ir.Constant(self.v.type, [self.v.scalar(x)] * self.v.lanes)

    def plus(self, x: Complex, y: Complex) -> Complex:
        return self.b.fadd(x[0], y[0]), self.b.fadd(x[1], y[1])

    def minus(self, x: Complex, y: Complex) -> Complex:
        return self.b.fsub(x[0], y[0]), self.b.fsub(x[1], y[1])

    def times(self, x: Complex, c: Any, s: Any) -> Complex:
        """``x (c + is)``."""
        v, b = self.v, self.b
        real = v.fma(x[0], c, b.fneg(b.fmul(x[1], s)))
        return real, v.fma(x[0], s, b.fmul(x[1], c))

    def turned(self, x: Complex, k: int, n: int) -> Complex:
        """``x exp(-2πi k / n)``."""
        b, eighths = self.b, 8 * (k % n)
        if eighths % n:
            c, s = root(k, n)
            return self.times(x, self.number(c), self.number(s))
        quarters, rest = divmod(eighths // n, 2)
        if rest:
            half = self.number(math.sqrt(0.5))
            x = b.fmul(b.fadd(x[0], x[1]), half), b.fmul(b.fsub(x[1], x[0]), half)
        for _ in range(quarters):
            x = x[1], b.fneg(x[0])
        return x

    def transform(self, x: Sequence[Complex]) -> list[Complex]:
        n = len(x)
        first = next((p for p in (4, *PRIMES) if n % p == 0 and n > p), n)
        if n == 1:
            return list(x)
        if n == 2:
            return [self.plus(*x), self.minus(*x)]
        if first == n:
            return self._prime(x) if n != 4 else self._by_factors(x, 2)
        return self._by_coprimes(x, first) if math.gcd(first, n // first) == 1 else self._by_factors(x, first)

    def _by_factors(self, x: Sequence[Complex], p: int) -> list[Complex]:
        n, q = len(x), len(x) // p
        columns = [self.transform(x[j::q]) for j in range(q)]
        found: list[Any] = [None] * n
        for k in range(p):
            found[k::p] = self.transform([self.turned(column[k], j * k, n) for j, column in enumerate(columns)])
        return found

    def _by_coprimes(self, x: Sequence[Complex], p: int) -> list[Complex]:
        n, q = len(x), len(x) // p
        columns = [self.transform([x[(q * i + p * j) % n] for i in range(p)]) for j in range(q)]
        rows = [self.transform([column[k] for column in columns]) for k in range(p)]
        return [rows[k % p][k % q] for k in range(n)]

    def _prime(self, x: Sequence[Complex]) -> list[Complex]:
        v, b, p = self.v, self.b, len(x)
        half = range(1, (p + 1) // 2)
        sums = [self.plus(x[j], x[p - j]) for j in half]
        differences = [self.minus(x[j], x[p - j]) for j in half]
        first = x[0]
        for each in sums:
            first = self.plus(first, each)
        found: list[Any] = [first] + [None] * (p - 1)
        for k in half:
            turns = [root(j * k, p) for j in half]
            cosines, sines = [self.number(c) for c, _ in turns], [self.number(-s) for _, s in turns]
            even = x[0]
            odd = b.fmul(differences[0][0], sines[0]), b.fmul(differences[0][1], sines[0])
            for j, each in enumerate(sums):
                even = v.fma(each[0], cosines[j], even[0]), v.fma(each[1], cosines[j], even[1])
            for j, each in list(enumerate(differences))[1:]:
                odd = v.fma(each[0], sines[j], odd[0]), v.fma(each[1], sines[j], odd[1])
            found[k] = b.fadd(even[0], odd[1]), b.fsub(even[1], odd[0])
            found[p - k] = b.fsub(even[0], odd[1]), b.fadd(even[1], odd[0])
        return found


def _butterflies(kind: Kind) -> Callable[..., None]:
    """``butterflies(source, next, across, target, target_next, along, twiddles, near, far, scale, ahead, count, RADIX,
    LANES, READS, WRITES, TWIDDLED, WEIGHTED, SWAPS)``: ``count`` butterflies of elements ``across`` bytes apart, to
    elements ``along`` apart; the next butterfly begins ``next`` bytes further on.

    TWIDDLED: result k is multiplied by number k - 1 of those at ``twiddles``, in all lanes and all butterflies.
    WEIGHTED: each is multiplied by one number from ``far``, the same in all lanes, and one from ``near``, planar; both
    lie in the order of planar results. SWAPS: what is read from or written to the user's memory has its parts
    exchanged, which makes an inverse transform of a forward one, and what is written is multiplied by the number at
    ``scale``. What lies ``ahead`` bytes further on in the user's memory is prefetched.
    """

    def emit(
        body: Body, source: Scalar, source_next: Scalar, across: Scalar, target: Scalar, target_next: Scalar,
        along: Scalar, twiddles: Scalar, near: Scalar, far: Scalar, scale: Scalar, ahead: Scalar,
        count: Scalar, radix: int,
        lanes: int, reads: int, writes: int, twiddled: int, weighted: int, swaps: int,
    ) -> None:  # fmt: skip
        v = Vectors(body, kind, lanes)
        build, sums, width = body.builder, _Sums(v), lanes * v.size
        real, imaginary = range(0, 2 * lanes, 2), range(1, 2 * lanes, 2)
        low = [i // 2 + lanes * (i % 2) for i in range(lanes)]
        high = [i + lanes // 2 for i in low]
        jumps = [build.mul(across.value, v.i64(j)) for j in range(radix)]
        falls = [build.mul(along.value, v.i64(j)) for j in range(radix)]
        beyond = build.add(ahead.value, v.i64(width))
        if writes != PLANAR and swaps:
            factor = v.element(scale.value)
        behind = [build.mul(count.value, v.i64(k)) for k in range(radix)] if weighted else []
        steps_near = [build.mul(x, v.i64(2 * width)) for x in behind]
        steps_far = [build.mul(x, v.i64(2 * v.size)) for x in behind]

        def read(address: Any) -> Complex:
            first, second = v.read(address), v.read(v.add(address, width))
            if reads == USERS:
                v.prefetch(build.add(address, ahead.value), False)
                v.prefetch(build.add(address, beyond), False)
                first, second = v.shuffle(first, second, real), v.shuffle(first, second, imaginary)
            return (second, first) if swaps and reads != PLANAR else (first, second)

        def write(address: Any, x: Complex) -> None:
            first, second = x
            if swaps and writes != PLANAR:
                first, second = build.fmul(second, factor), build.fmul(first, factor)
            if writes == USERS:
                first, second = v.shuffle(first, second, low), v.shuffle(first, second, high)
            v.write(address, first)
            v.write(v.add(address, width), second)

        def step(places: Sequence[Any], _: Sequence[Any]) -> list[Any]:
            at, to, by_near, by_far = places
            values = sums.transform([read(build.add(at, jump)) for jump in jumps])
            for k, value in enumerate(values):
                if twiddled and k:
                    place = v.add(twiddles.value, 2 * v.size * (k - 1))
                    value = sums.times(value, v.element(place), v.element(v.add(place, v.size)))
                if weighted:
                    place = build.add(by_far, steps_far[k])
                    value = sums.times(value, v.element(place), v.element(v.add(place, v.size)))
                    place = build.add(by_near, steps_near[k])
                    value = sums.times(value, v.read(place), v.read(v.add(place, width)))
                write(build.add(to, falls[k]), value)
            return []

        moving = [
            (source.value, source_next.value), (target.value, target_next.value),
            (near.value, v.i64(2 * width)), (far.value, v.i64(2 * v.size)),
        ]  # fmt: skip
        v.loop(count.value, moving, [], step)

    return emit


BUTTERFLIES: Final[dict[str, Instruction]] = {
    f"butterflies_{kind.name}": Instruction(
        f"butterflies_{kind.name}", _butterflies(kind), (I64,) * 12 + (IMMEDIATE,) * 7, None
    )
    for kind in (F32, F64)
}
"""By their names in kernels."""
