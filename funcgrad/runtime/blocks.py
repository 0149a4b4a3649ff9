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

__all__ = ["BLOCKS"]


class _Vectors:
    """Vectors of ``lanes`` elements of a kind."""

    def __init__(self, body: Body, kind: Kind, lanes: int) -> None:
        self.body, self.ir, self.b, self.lanes = body, body.ir, body.builder, lanes
        self.i64 = body.ir.IntType(64)
        self.scalar = body.llvm_type(kind)
        self.type = body.ir.VectorType(self.scalar, lanes)
        self.mask_type = body.ir.VectorType(body.ir.IntType(1), lanes)
        self.name = f"v{lanes}{kind.name}"
        self.size = kind.width // 8
        self.zero = body.ir.Constant(self.type, None)

    def function(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        found = self.body.module.globals.get(name)
        return found or self.ir.Function(self.body.module, self.ir.FunctionType(result, arguments), name)

    def pointer(self, address: Any) -> Any:
        return self.b.inttoptr(address, self.ir.PointerType())

    def add(self, address: Any, number: int) -> Any:
        return self.b.add(address, self.i64(number)) if number else address

    def constants(self, width: int, numbers: Sequence[int]) -> Any:
        element = self.ir.IntType(width)
        return self.ir.Constant(self.ir.VectorType(element, len(numbers)), [element(n) for n in numbers])

    def shuffle(self, x: Any, y: Any, order: Sequence[int]) -> Any:
        return self.b.shuffle_vector(x, y, self.constants(32, order))

    def splat(self, x: Any) -> Any:
        kind = self.ir.VectorType(x.type, self.lanes)
        one = self.b.insert_element(self.ir.Constant(kind, self.ir.Undefined), x, self.ir.IntType(32)(0))
        return self.b.shuffle_vector(one, one, self.constants(32, [0] * self.lanes))

    def first(self, count: Any) -> Any:
        """The mask of the first ``count`` lanes; none of them, or all, beyond the ends."""
        return self.b.icmp_signed("<", self.constants(64, range(self.lanes)), self.splat(count))

    def load(self, address: Any, mask: Any) -> Any:
        kinds = [self.ir.PointerType(), self.ir.IntType(32), self.mask_type, self.type]
        function = self.function(f"llvm.masked.load.{self.name}.p0", self.type, kinds)
        return self.b.call(function, [self.pointer(address), kinds[1](self.size), mask, self.zero])

    def store(self, address: Any, value: Any, mask: Any) -> None:
        kinds = [self.type, self.ir.PointerType(), self.ir.IntType(32), self.mask_type]
        function = self.function(f"llvm.masked.store.{self.name}.p0", self.ir.VoidType(), kinds)
        self.b.call(function, [value, self.pointer(address), kinds[2](self.size), mask])

    def element(self, address: Any) -> Any:
        """One element from memory in all lanes."""
        return self.splat(self.b.load(self.pointer(address), typ=self.scalar))

    def prefetch(self, address: Any, writes: bool) -> None:
        i32 = self.ir.IntType(32)
        kinds = [self.ir.PointerType(), i32, i32, i32]
        function = self.function("llvm.prefetch.p0", self.ir.VoidType(), kinds)
        self.b.call(function, [self.pointer(address), i32(int(writes)), i32(3), i32(1)])

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        return self.b.call(self.function(f"llvm.fma.{self.name}", self.type, [self.type] * 3), [x, y, z])

    def smaller(self, x: Any, y: Any) -> Any:
        return self.b.select(self.b.icmp_signed("<", x, y), x, y)

    def loop(
        self, count: Any, moving: Sequence[tuple[Any, Any]], carried: Sequence[Any],
        step: Callable[[Sequence[Any], Sequence[Any]], Sequence[Any]],
    ) -> list[Any]:  # fmt: skip
        """``count`` times, at least once: ``moving`` are integers and what they grow by; ``step`` gives the next values
        of what is carried. Returns the last of these."""
        b = self.b
        before, inside, after = b.block, b.append_basic_block("block"), b.append_basic_block("done")
        b.branch(inside)
        b.position_at_end(inside)
        phis = [b.phi(x.type) for x in (count, *[x for x, _ in moving], *carried)]
        left, places, values = phis[0], phis[1 : 1 + len(moving)], phis[1 + len(moving) :]
        found = step(places, values)
        now = [b.sub(left, self.i64(1)), *[b.add(x, by) for x, (_, by) in zip(places, moving, strict=True)], *found]
        for phi, start, value in zip(phis, (count, *[x for x, _ in moving], *carried), now, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(value, b.block)
        b.cbranch(b.icmp_signed(">", now[0], self.i64(0)), inside, after)
        b.position_at_end(after)
        return list(found)

    def when(self, condition: Any) -> Any:
        return self.b.if_then(condition)


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
        v = _Vectors(body, kind, lanes)
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
        v = _Vectors(body, kind, lanes)
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
        v = _Vectors(body, kind, lanes)
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


def _transposed(v: _Vectors, square: list[Any]) -> list[Any]:
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
