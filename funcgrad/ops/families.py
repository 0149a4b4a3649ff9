"""Families of elementwise primitives: what is common to them, so that a declaration states only the exception.

    sin_p = unary("sin", np.sin, jvp=lambda t, y, x: t * cos(x))

Operands broadcast against each other as in NumPy and share one dtype (``select``'s condition is boolean). JVPs are
given per operand, ``rule(t, out, *operands)``, and must be linear in ``t``; the family adds them up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..core.avals import ShapedArray
from ..core.lowering import Scalar
from ..core.primitive import ZERO, Linear, NotDifferentiable, NotLinear, Primitive, ZeroDerivative, not_linear
from .structural import broadcast_to, expand_dims, moveaxis, shape_of, unbroadcast

__all__ = ["batch_elementwise", "binary", "broadcast_shapes", "elementwise", "predicate", "unary"]

Rule = Callable[..., Any]
_BOOL = np.dtype(np.bool_)


_broadcast = lru_cache(maxsize=4096)(np.broadcast_shapes)


def broadcast_shapes(name: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """NumPy's broadcasting of shapes, with an error that names the operation and every shape."""
    first = shapes[0]
    if all([s == first for s in shapes]):
        return first
    try:
        return _broadcast(*shapes)
    except ValueError:
        listed = " and ".join(map(str, shapes))
        raise ValueError(
            f"{name}: shapes {listed} do not broadcast: aligned at the last axis, extents must agree or be 1"
        ) from None


def _common_dtype(name: str, avals: Sequence[ShapedArray]) -> np.dtype[Any]:
    dtype = avals[0].dtype
    for a in avals[1:]:
        if a.dtype != dtype:
            given = ", ".join(x.dtype.name for x in avals)
            raise TypeError(
                f"{name}: operands have dtypes {given}, and a primitive wants one dtype. Convert with "
                "astype, or call the function of the same name in funcgrad.numpy, which promotes."
            )
    return dtype


def _shape_rule(name: str, kinds: str, result: Callable[[np.dtype[Any]], np.dtype[Any]] | None) -> Rule:
    def shape(*avals: ShapedArray, **params: Any) -> ShapedArray:
        first = avals[0]
        dtype = first.dtype if len(avals) == 1 else _common_dtype(name, avals)
        if dtype.kind not in kinds:
            raise TypeError(f"{name} does not take operands of dtype {dtype.name}")
        out = first.shape if len(avals) == 1 else broadcast_shapes(name, [a.shape for a in avals])
        if result is not None:
            dtype = result(dtype)
        return ShapedArray(out, dtype, all([a.weak_type for a in avals]))

    return shape


def _unary_jvp(rule: Rule) -> Rule:
    def jvp(primals: Sequence[Any], tangents: Sequence[Any], out: Any, **params: Any) -> Any:
        return rule(tangents[0], out, primals[0], **params)

    return jvp


def _binary_jvp(left: Rule | None, right: Rule | None) -> Rule:
    def jvp(primals: Sequence[Any], tangents: Sequence[Any], out: Any, **params: Any) -> Any:
        x, y = primals
        s, t = tangents
        total = ZERO if s is ZERO or left is None else left(s, out, x, y, **params)
        if t is not ZERO and right is not None:
            part = right(t, out, x, y, **params)
            total = part if total is ZERO else total + part
        return total if total is ZERO or shape_of(x) == shape_of(y) else broadcast_to(total, shape_of(out))

    return jvp


def batch_elementwise(name: str) -> Rule:
    """Align ranks so that NumPy's own broadcasting does the rest."""

    def batch(size: int, args: Sequence[Any], dims: Sequence[int | None], **params: Any) -> Any:
        bind = _PRIMITIVES[name].bind
        batched = [d for d in dims if d is not None]
        shapes = [shape_of(x) for x in args]
        rank = max([len(s) - (d is not None) for s, d in zip(shapes, dims, strict=True)])
        first = batched[0]
        if all([not s if d is None else d == first and len(s) == rank + 1 for s, d in zip(shapes, dims, strict=True)]):
            return bind(*args, **params), first
        moved = []
        for x, s, d in zip(args, shapes, dims, strict=True):
            if d is not None:
                x = moveaxis(x, d, 0)
                missing = rank + 1 - len(s)
                x = expand_dims(x, range(1, 1 + missing)) if missing else x
            moved.append(x)
        return bind(*moved, **params), 0

    return batch


_PRIMITIVES: dict[str, Primitive] = {}


def elementwise(
    name: str,
    impl: Rule,
    *,
    shape: Rule,
    jvp: Any,
    transpose: Any,
    samples: Rule | None = None,
) -> Primitive:
    primitive = Primitive(
        name,
        impl=impl,
        shape=shape,
        jvp=jvp,
        transpose=transpose,
        batch=batch_elementwise(name),
        lower=Scalar(name),
        samples=samples,
    )
    _PRIMITIVES[name] = primitive
    return primitive


def _sample_dtype(kinds: str) -> Any:
    """The dtype that an operation is mostly used with."""
    for kind, dtype in (("f", np.float64), ("c", np.complex128), ("i", np.int64)):
        if kind in kinds:
            return dtype
    return np.bool_


def unary_samples(domain: tuple[float, float], kinds: str) -> Rule:
    low, high = domain

    def samples(rng: np.random.Generator) -> list[Any]:
        dtype = _sample_dtype(kinds)
        values = rng.uniform(low, high, size=(3, 4))
        arrays = [values.astype(dtype), dtype(values[0, 0]), np.zeros((0, 2), dtype)]
        rows: list[Any] = [((x,), {}) for x in arrays]
        if "c" in kinds:
            rows.append(((values[0] + 0.3j * values[1],), {}))
        return rows

    return samples


def unary(
    name: str,
    impl: Rule,
    *,
    jvp: Rule | ZeroDerivative | NotDifferentiable,
    transpose: Rule | None = None,
    kinds: str = "fc",
    result: Callable[[np.dtype[Any]], np.dtype[Any]] | None = None,
    domain: tuple[float, float] = (-2.0, 2.0),
) -> Primitive:
    """An operation on one operand. ``kinds`` are the dtype kinds it takes, ``domain`` where the tests sample."""
    return elementwise(
        name,
        impl,
        shape=_shape_rule(name, kinds, result),
        jvp=_unary_jvp(jvp) if callable(jvp) else jvp,
        transpose=NotLinear() if transpose is None else transpose,
        samples=unary_samples(domain, kinds),
    )


def binary_samples(domains: Sequence[tuple[float, float]], kinds: str) -> Rule:
    def samples(rng: np.random.Generator) -> list[Any]:
        dtype = _sample_dtype(kinds)
        rows: list[Any] = []
        for shapes in [((3, 4), (3, 4)), ((3, 4), (4,)), ((), (2, 3)), ((2, 1), (1, 3)), ((), ()), ((0, 2), (2,))]:
            pair = [rng.uniform(*d, size=s) for d, s in zip(domains, shapes, strict=True)]
            rows.append((tuple([np.asarray(v).astype(dtype)[()] for v in pair]), {}))
        if "c" in kinds:
            rows.append((tuple([rng.uniform(*d, size=4) + 0.3j * rng.uniform(*d, size=4) for d in domains]), {}))
        return rows

    return samples


def binary(
    name: str,
    impl: Rule,
    *,
    jvp: Sequence[Rule | None] | ZeroDerivative | NotDifferentiable,
    transpose: Sequence[Rule | None] | None = None,
    bilinear: bool = False,
    kinds: str = "fc",
    result: Callable[[np.dtype[Any]], np.dtype[Any]] | None = None,
    domain: tuple[float, float] | tuple[tuple[float, float], tuple[float, float]] = (-2.0, 2.0),
) -> Primitive:
    """An operation on two operands; ``transpose`` rules ``rule(ct, x, y)`` for the operands it is linear in.

    ``bilinear``: linear in each operand while the other is held fixed, but not in both together.
    """
    domains = domain if isinstance(domain[0], tuple) else (domain, domain)
    return elementwise(
        name,
        impl,
        shape=_shape_rule(name, kinds, result),
        jvp=_binary_jvp(*jvp) if isinstance(jvp, Sequence) else jvp,
        transpose=NotLinear() if transpose is None else operand_transposes(name, transpose, bilinear),
        samples=binary_samples(domains, kinds),
    )


def operand_transposes(name: str, rules: Sequence[Rule | None], bilinear: bool) -> Rule:
    left, right = rules

    def transpose(ct: Any, x: Any, y: Any, **params: Any) -> Any:
        in_x, in_y = type(x) is Linear, type(y) is Linear
        if bilinear and in_x and in_y:
            raise not_linear(name, NotLinear("both of its operands depend on the input, which makes it quadratic"))
        return (
            unbroadcast(left(ct, x, y, **params), x) if in_x and left is not None else None,
            unbroadcast(right(ct, x, y, **params), y) if in_y and right is not None else None,
        )

    return transpose


def of_numbers(ufunc: np.ufunc, operator: Rule, numbers: frozenset[type]) -> Rule:
    """``ufunc``, but for two ``numbers`` the operator of Python, which takes a tenth of the time."""

    def impl(x: Any, y: Any) -> Any:
        return operator(x, y) if type(x) in numbers and type(y) in numbers else ufunc(x, y)

    return impl


def predicate(name: str, impl: Rule, *, arity: int, kinds: str) -> Primitive:
    """An operation whose result is boolean."""
    return elementwise(
        name,
        impl,
        shape=_shape_rule(name, kinds, lambda dtype: _BOOL),
        jvp=ZeroDerivative("its result is boolean"),
        transpose=NotLinear(),
        samples=unary_samples((-2, 2), kinds) if arity == 1 else binary_samples(((-2, 2), (-2, 2)), kinds),
    )
