"""LLVM's vectors for instructions that leave nothing for its vectoriser to find out (``blocks``, ``butterflies``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from funcgrad.codegen.vecmath.expr import Body, Kind

__all__ = ["Vectors"]


class Vectors:
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

    def read(self, address: Any) -> Any:
        """All lanes from adjacent elements, wherever they lie."""
        return self.b.load(self.pointer(address), align=self.size, typ=self.type)

    def write(self, address: Any, value: Any) -> None:
        self.b.store(value, self.pointer(address), align=self.size)

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
