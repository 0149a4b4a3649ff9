"""Instructions of matrix products: a block of results in registers, and the packing of operands for it.

They are written in LLVM's vectors, so that nothing is left for its vectoriser to find out: a kernel made of them needs
neither the loop passes nor their time. Addresses and strides (in bytes) are integers, as everywhere in the runtime.
The last operands of each are part of the text: the rows of a block, its vectors to a row, the elements of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from funcgrad.codegen.instruction import IMMEDIATE, Instruction
from funcgrad.codegen.vecmath.expr import F32, F64, I64, Body, Kind, Scalar
from funcgrad.runtime.vectors import Vectors

__all__ = ["BLOCKS"]


def _multiply(kind: Kind) -> Callable[..., None]:
    """``multiply(a, a_row, a_next, b, b_next, c, c_row, depth, rows, columns, adds, ROWS, VECTORS, LANES)``: a block of
    C becomes, or grows by if ``adds``, the product of ``rows`` rows of A and ``columns`` columns of B. ``a_next`` and
    ``b_next`` lead to the next of the ``depth`` (at least one) products that are summed; rows of B are adjacent
    elements. Each sum is one chain of fused multiply-adds. C and the following rows of A are prefetched: without it, a
    product of what lies in no cache takes 1.7 times as long."""

    def emit(
        body: Body, a: Scalar, a_row: Scalar, a_next: Scalar, b: Scalar, b_next: Scalar, c: Scalar, c_row: Scalar,
        depth: Scalar, rows: Scalar, columns: Scalar, adds: Scalar, height: int, width: int, lanes: int,
    ) -> None:  # fmt: skip
        v = Vectors(body, kind, lanes)
        build, i64 = body.builder, v.i64
        last = build.sub(rows.value, i64(1))
        lines = [build.add(a.value, build.mul(v.smaller(i64(r), last), a_row.value)) for r in range(height)]
        masks = [v.first(build.sub(columns.value, i64(j * lanes))) for j in range(width)]
        for r in range(height):  # of C, now, while the sums are worked out; of A's next rows, as we go along these
            line = build.add(c.value, build.mul(v.smaller(i64(r), last), c_row.value))
            for j in range(width):
                v.prefetch(v.add(line, j * lanes * v.size), True)
        ahead = build.mul(i64(height), a_row.value)
        following = [build.add(line, ahead) for line in lines]

        def step(places: Sequence[Any], sums: Sequence[Any]) -> list[Any]:
            at, row = places
            for line in following:
                v.prefetch(build.add(line, at), False)
            right = [v.load(v.add(row, j * lanes * v.size), masks[j]) for j in range(width)]
            found = []
            for r in range(height):
                left = v.element(build.add(lines[r], at))
                found += [v.fma(left, right[j], sums[r * width + j]) for j in range(width)]
            return found

        moving = [(i64(0), a_next.value), (b.value, b_next.value)]
        sums = v.loop(depth.value, moving, [v.zero] * (height * width), step)
        grows = build.icmp_signed("!=", adds.value, i64(0))
        old_masks = [build.and_(m, v.splat(grows)) for m in masks]
        for r in range(height):
            with v.when(build.icmp_signed("<", i64(r), rows.value)):
                line = build.add(c.value, build.mul(i64(r), c_row.value))
                for j in range(width):
                    place = v.add(line, j * lanes * v.size)
                    old = v.load(place, old_masks[j])
                    v.store(place, build.fadd(old, sums[r * width + j]), masks[j])

    return emit


def _pack_lines(kind: Kind) -> Callable[..., None]:
    """``pack_lines(source, source_next, target, target_next, depth, columns, VECTORS, LANES)``: copies ``depth`` rows
    of ``columns`` adjacent elements."""

    def emit(
        body: Body, source: Scalar, source_next: Scalar, target: Scalar, target_next: Scalar, depth: Scalar,
        columns: Scalar, width: int, lanes: int,
    ) -> None:  # fmt: skip
        v = Vectors(body, kind, lanes)
        masks = [v.first(body.builder.sub(columns.value, v.i64(j * lanes))) for j in range(width)]

        def step(places: Sequence[Any], _: Sequence[Any]) -> list[Any]:
            for j in range(width):
                at = j * lanes * v.size
                v.store(v.add(places[1], at), v.load(v.add(places[0], at), masks[j]), masks[j])
            return []

        v.loop(depth.value, [(source.value, source_next.value), (target.value, target_next.value)], [], step)

    return emit


def _pack_turned(kind: Kind) -> Callable[..., None]:
    """``pack_turned(source, source_row, target, target_next, depth, rows, LANES)``: ``rows`` rows (at most LANES) of
    ``depth`` adjacent elements become columns: element k of row r goes to place r of row k."""

    def emit(
        body: Body, source: Scalar, source_row: Scalar, target: Scalar, target_next: Scalar, depth: Scalar,
        rows: Scalar, lanes: int,
    ) -> None:  # fmt: skip
        v = Vectors(body, kind, lanes)
        build, i64 = body.builder, v.i64
        last = build.sub(rows.value, i64(1))
        lines = [build.add(source.value, build.mul(v.smaller(i64(r), last), source_row.value)) for r in range(lanes)]
        stored = v.first(rows.value)
        count = build.ashr(build.add(depth.value, i64(lanes - 1)), i64(lanes.bit_length() - 1))

        def step(places: Sequence[Any], _: Sequence[Any]) -> list[Any]:
            at, place, left = places
            mask = v.first(left)
            square = _transposed(v, [v.load(build.add(line, at), mask) for line in lines])
            for k, row in enumerate(square):
                inside = build.icmp_signed("<", i64(k), left)
                address = build.add(place, build.mul(i64(k), target_next.value))
                v.store(address, row, build.and_(stored, v.splat(inside)))
            return []

        jump = build.mul(target_next.value, i64(lanes))
        moving = [(i64(0), i64(lanes * v.size)), (target.value, jump), (depth.value, i64(-lanes))]
        v.loop(count, moving, [], step)

    return emit


def _transposed(v: Vectors, square: list[Any]) -> list[Any]:
    """Rows as columns, by exchanging the off-diagonal quarters of blocks of 2, 4, ... rows."""
    lanes, half = v.lanes, 1
    while half < lanes:
        turned = list(square)
        for i in range(lanes):
            if not i & half:
                j = i | half
                upper = [x if not x & half else lanes + x - half for x in range(lanes)]
                lower = [x + half if not x & half else lanes + x for x in range(lanes)]
                turned[i] = v.shuffle(square[i], square[j], upper)
                turned[j] = v.shuffle(square[i], square[j], lower)
        square, half = turned, 2 * half
    return square


def _instruction(
    name: str, kind: Kind, make: Callable[[Kind], Callable[..., None]], values: int, fixed: int
) -> Instruction:
    return Instruction(f"{name}_{kind.name}", make(kind), (I64,) * values + (IMMEDIATE,) * fixed, None)


BLOCKS: Final[dict[str, Instruction]] = {
    x.name: x
    for kind in (F32, F64)
    for x in (
        _instruction("multiply", kind, _multiply, 11, 3),
        _instruction("pack_lines", kind, _pack_lines, 6, 2),
        _instruction("pack_turned", kind, _pack_turned, 6, 1),
    )
}
"""By their names in kernels."""
