"""Exact scalar operations on machine types, with NumPy's meaning for every dtype, as emitters over ``Scalar``.

Integers wrap around; dividing by zero gives zero and traps nowhere; shifts by the width or more give what an infinite
shift would. Names are ``<operation>_<kind>``; conversions are ``<from>_to_<kind>``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from inspect import signature
from typing import Final

from .vecmath.expr import B1, F32, F64, I64, KINDS, Kind, Scalar, copysign, fabs, fma, select, unary_intrinsic
from .vecmath.registry import FLOATS, INTEGERS, Definition

__all__ = ["BASIC"]

BASIC: Final[dict[str, Definition]] = {}

_BOOL = (B1,)


def _define(
    name: str, kinds: Iterable[Kind], emit: Callable[..., Scalar], result: Kind | None = None,
    arguments: Callable[[Kind], tuple[Kind, ...]] | None = None,
) -> None:  # fmt: skip
    arity = len(signature(emit).parameters)
    for kind in kinds:
        args = arguments(kind) if arguments else (kind,) * arity
        full = f"{name}_{kind.name}"
        BASIC[full] = Definition(full, emit, args, result or kind, small=True)


def _same(kind: Kind, value: Scalar) -> Scalar:
    """``value`` relabelled as signed or unsigned like ``kind``."""
    return Scalar(value.body, kind, value.value)


_define("add", INTEGERS, lambda x, y: _same(x.kind, x + y))
_define("sub", INTEGERS, lambda x, y: _same(x.kind, x - y))
_define("mul", INTEGERS, lambda x, y: _same(x.kind, x * y))
_define("neg", (*INTEGERS, *FLOATS), lambda x: _same(x.kind, -x))
_define("div", FLOATS, lambda x, y: x / y)
_define("fma", FLOATS, lambda x, y, z: fma(x, y, z))
_define("and", (*INTEGERS, B1), lambda x, y: _same(x.kind, x & y))
_define("or", (*INTEGERS, B1), lambda x, y: _same(x.kind, x | y))
_define("xor", (*INTEGERS, B1), lambda x, y: _same(x.kind, x ^ y))
_define("not", (*INTEGERS, B1), lambda x: _same(x.kind, ~x))
_define("select", (*INTEGERS, *FLOATS, B1), lambda c, x, y: select(c, x, y), None, lambda k: (B1, k, k))

for _name, _compare in {
    "eq": Scalar.eq, "ne": Scalar.ne, "lt": Scalar.__lt__, "le": Scalar.__le__, "gt": Scalar.__gt__,
    "ge": Scalar.__ge__,
}.items():  # fmt: skip
    _define(_name, (*INTEGERS, *FLOATS), _compare, B1)


def _bool_compare(name: str, emit: Callable[..., Scalar]) -> None:
    _define(name, _BOOL, emit, B1)


_bool_compare("eq", lambda x, y: ~(x ^ y))
_bool_compare("ne", lambda x, y: x ^ y)
_bool_compare("lt", lambda x, y: ~x & y)
_bool_compare("le", lambda x, y: ~x | y)
_bool_compare("gt", lambda x, y: x & ~y)
_bool_compare("ge", lambda x, y: x | ~y)


def _two_float(name: str) -> Callable[[Scalar, Scalar], Scalar]:
    return lambda x, y: x.body.intrinsic(f"llvm.{name}.{x.kind.name}", x.kind, [x, y])


_define("max", FLOATS, _two_float("maximum"))
_define("min", FLOATS, _two_float("minimum"))
_define("max", INTEGERS, lambda x, y: select(x > y, x, y))
_define("min", INTEGERS, lambda x, y: select(x < y, x, y))
_define("abs", FLOATS, lambda x: fabs(x))
_define("abs", INTEGERS, lambda x: select(x < 0, _same(x.kind, -x), x) if x.kind.signed else x)
_define("copysign", FLOATS, lambda x, y: copysign(x, y))
_define("sqrt", FLOATS, unary_intrinsic("sqrt"))
for _name, _llvm in {"floor": "floor", "ceil": "ceil", "trunc": "trunc", "rint": "roundeven"}.items():
    _define(_name, FLOATS, unary_intrinsic(_llvm))


def _sign(x: Scalar) -> Scalar:
    one, zero = x.const(1), x.const(0)
    if not x.kind.is_float:
        positive = select(x > 0, one, zero)
        return select(x < 0, x.const(-1), positive) if x.kind.signed else positive
    return select(x > 0, one, select(x < 0, x.const(-1), select(x.eq(0), zero, x)))


_define("sign", (*INTEGERS, *FLOATS), _sign)
_define("is_nan", FLOATS, lambda x: x.ne(x), B1)
_define("is_inf", FLOATS, lambda x: fabs(x).eq(float("inf")), B1)
_define("is_finite", FLOATS, lambda x: fabs(x) < float("inf"), B1)


def _shift_left(x: Scalar, y: Scalar) -> Scalar:
    inside = y.as_unsigned() < x.kind.width
    return select(inside, _same(x.kind, x << select(inside, y, y.const(0))), x.const(0))


def _shift_right(x: Scalar, y: Scalar) -> Scalar:
    inside = y.as_unsigned() < x.kind.width
    if x.kind.signed:
        return _same(x.kind, x >> select(inside, y, y.const(x.kind.width - 1)))
    return select(inside, _same(x.kind, x >> select(inside, y, y.const(0))), x.const(0))


_define("shift_left", INTEGERS, _shift_left)
_define("shift_right", INTEGERS, _shift_right)


def _population_count(x: Scalar) -> Scalar:
    magnitude = BASIC[f"abs_{x.kind.name}"].emit(x)
    return magnitude.body.intrinsic(f"llvm.ctpop.i{x.kind.width}", x.kind, [magnitude])


_define("population_count", INTEGERS, _population_count)

# accumulators: a float sum may be regrouped, so that it is kept in the lanes of several registers, and a product may be
# added to it unrounded. (Elsewhere products are rounded, as NumPy has it: ``x * y - y * x`` is zero.)


def _reassociated(instruction: str, *more: str) -> Callable[[Scalar, Scalar], Scalar]:
    def emit(x: Scalar, y: Scalar) -> Scalar:
        made = getattr(x.body.builder, instruction)(x.value, y.value, flags=("reassoc", *more))
        return Scalar(x.body, x.kind, made)

    return emit


def _extreme(name: str) -> Callable[[Scalar, Scalar], Scalar]:
    def emit(x: Scalar, y: Scalar) -> Scalar:
        function = x.body.declare(f"llvm.{name}.{x.kind.name}", x.kind, [x.kind, x.kind])
        return Scalar(x.body, x.kind, x.body.builder.call(function, [x.value, y.value], fastmath=("reassoc",)))

    return emit


_define("fold_add", FLOATS, _reassociated("fadd", "contract"))
_define("fold_mul", FLOATS, _reassociated("fmul"))
_define("fold_max", FLOATS, _extreme("maximum"))
_define("fold_min", FLOATS, _extreme("minimum"))


def _more(x: Scalar, best: Scalar) -> Scalar:
    better = x > best
    return better | (x.ne(x) & ~best.ne(best)) if x.kind.is_float else better


def _less(x: Scalar, best: Scalar) -> Scalar:
    better = x < best
    return better | (x.ne(x) & ~best.ne(best)) if x.kind.is_float else better


_define("more", (*INTEGERS, *FLOATS), _more, B1)
_define("less", (*INTEGERS, *FLOATS), _less, B1)
_define("more", _BOOL, lambda x, best: x & ~best, B1)
_define("less", _BOOL, lambda x, best: ~x & best, B1)


# conversions: out-of-range floats saturate and NaN becomes the least integer, as x86's instruction has it for int64


def _float_to_integer(kind: Kind) -> Callable[[Scalar], Scalar]:
    """As NumPy does on x86 where C leaves it open: through int64, whose out-of-range value is the least int64."""

    def emit(x: Scalar) -> Scalar:
        low, high = -(2.0**63), 2.0**63
        inside = (x >= low) & (x < high)
        i = select(inside, x, x.const(0)).to(I64)
        i = select(inside, i, i.const(-(1 << 63)))
        if kind.name == "u64":
            above = (x >= high) & (x < 2.0**64)
            big = (select(above, x - high, x.const(0))).to(I64) ^ i.const(-(1 << 63))
            i = select(above, big, i)
        return _same(kind, i.to(KINDS[f"i{kind.width}"]))

    return emit


def _from_bool(kind: Kind, x: Scalar) -> Scalar:
    return select(x, x.body.constant(kind, 1), x.body.constant(kind, 0))


def _numeric(kind: Kind, x: Scalar) -> Scalar:
    return _same(kind, x.to(kind))


def _define_conversions() -> None:
    numbers = (*INTEGERS, F32, F64)
    for source in (*numbers, B1):
        for target in numbers:
            if source == target:
                continue
            if source.is_float and not target.is_float:
                emit = _float_to_integer(target)
            elif source.code == "b":
                emit = partial(_from_bool, target)
            else:
                emit = partial(_numeric, target)
            name = f"{source.name}_to_{target.name}"
            BASIC[name] = Definition(name, emit, (source,), target, small=True)
        if source != B1:
            name = f"{source.name}_to_b1"
            BASIC[name] = Definition(name, lambda x: x.ne(0), (source,), B1, small=True)


_define_conversions()
