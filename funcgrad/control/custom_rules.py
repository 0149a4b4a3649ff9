"""The user's derivative rules, between pytrees and the flat form of ``control.custom``, with all checks of what they
return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import tree
from ..core.avals import FLOAT0, ShapedArray, aval_of, tangent_dtype
from ..core.primitive import ZERO
from ..core.snapshot import Snapshots
from ..core.trace import Tracer
from ..ops.promotion import as_dtype
from ..transforms.flat import argument_name, check_outputs, function_name
from ..transforms.forward import tangent_zeros
from .custom import Rules, no_captured_tracers

__all__ = ["CustomCall", "CustomVJPPrimal", "JVPRule", "SymbolicZero", "VJPRule", "flat_rules", "zero_from_primal"]

_SNAPSHOT_LIMIT = 1 << 16
"""Bytes of a residual below which it is copied; larger ones are checked to be unchanged."""


class SymbolicZero:
    """A tangent or cotangent that is known to be zero, as rules with ``symbolic_zeros=True`` are given it."""

    __slots__ = ("aval",)

    def __init__(self, aval: ShapedArray) -> None:
        self.aval = aval

    @property
    def shape(self) -> tuple[int, ...]:
        return self.aval.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.aval.dtype

    @property
    def ndim(self) -> int:
        return self.aval.ndim

    @property
    def size(self) -> int:
        return self.aval.size

    def __repr__(self) -> str:
        return f"SymbolicZero({self.aval.short()})"


class CustomVJPPrimal:
    """What ``fwd`` is given for each array with ``symbolic_zeros=True``: its ``value``, and whether it is
    ``perturbed``, that is, whether a derivative with respect to it is wanted."""

    __slots__ = ("perturbed", "value")

    def __init__(self, value: Any, perturbed: bool) -> None:
        self.value = value
        self.perturbed = perturbed

    def __repr__(self) -> str:
        return f"CustomVJPPrimal(value={self.value!r}, perturbed={self.perturbed})"


def _zero(aval: ShapedArray, symbolic: bool) -> Any:
    return SymbolicZero(ShapedArray(aval.shape, tangent_dtype(aval.dtype))) if symbolic else tangent_zeros(aval)


def zero_from_primal(val: Any, symbolic_zeros: bool = False) -> Any:
    """The zero tangent of a value: an array (of dtype ``float0`` for integers), or a ``SymbolicZero``.

    >>> zero_from_primal(2.0)
    np.float64(0.0)
    """
    return _zero(aval_of(val), symbolic_zeros)


class JVPRule:
    """``fun(*nondiff_args, primals, tangents) -> (primal result, tangent of the result)``."""

    __slots__ = ("fun", "symbolic_zeros")

    def __init__(self, fun: Callable[..., Any], symbolic_zeros: bool) -> None:
        self.fun = fun
        self.symbolic_zeros = symbolic_zeros


class VJPRule:
    """``fwd(*args) -> (result, residuals)`` and ``bwd(*nondiff_args, residuals, ct) -> tuple of cotangents``."""

    __slots__ = ("bwd", "fwd", "symbolic_zeros")

    def __init__(self, fwd: Callable[..., Any], bwd: Callable[..., Any], symbolic_zeros: bool) -> None:
        self.fwd = fwd
        self.bwd = bwd
        self.symbolic_zeros = symbolic_zeros


class CustomCall:
    """One call of a custom function: its arguments taken apart, and what is known of its result.

    The operands are the traced leaves of the arguments that are not differentiated (``n_fixed`` of them), then all
    leaves of those that are. Only their structure is kept: rules live as long as programs do, values should not.
    """

    def __init__(self, fun: Callable[..., Any], args: Sequence[Any], nondiff: Sequence[int]) -> None:
        self.fun = fun
        self.name = function_name(fun)
        self.nondiff = tuple(nondiff)
        self.n_args = len(args)
        self.positions = [p for p in range(len(args)) if p not in self.nondiff]
        self.in_tree = tree.structure(tuple([args[p] for p in self.positions]))
        others, self._others_tree = tree.flatten(tuple([args[p] for p in self.nondiff]))
        self._traced = [k for k, x in enumerate(others) if isinstance(x, Tracer)]
        self._others = [None if k in self._traced else x for k, x in enumerate(others)]
        self.n_fixed = len(self._traced)
        self.out_tree: tree.PyTreeDef | None = None
        self.out_avals: list[ShapedArray] | None = None

    def operands(self, args: Sequence[Any]) -> list[Any]:
        others = tree.leaves(tuple([args[p] for p in self.nondiff]))
        return [*[others[k] for k in self._traced], *tree.leaves(tuple([args[p] for p in self.positions]))]

    def others(self, fixed: Sequence[Any]) -> tuple[Any, ...]:
        """The arguments that are not differentiated."""
        leaves = list(self._others)
        for k, x in zip(self._traced, fixed, strict=True):
            leaves[k] = x
        return tuple(self._others_tree.unflatten(leaves))

    def arguments(self, fixed: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
        args: list[Any] = [None] * self.n_args
        for p, x in zip(self.nondiff, self.others(fixed), strict=True):
            args[p] = x
        for p, x in zip(self.positions, self.in_tree.unflatten(leaves), strict=True):
            args[p] = x
        return args

    def run(self, *operands: Any) -> list[Any]:
        n = self.n_fixed
        out = self.fun(*self.arguments(operands[:n], operands[n:]))
        flat, out_tree = tree.flatten(out)
        check_outputs(flat, out_tree, self.name)
        self.out_tree = out_tree
        return flat

    def leaf(self, k: int) -> str:
        """``argument 'x'['a']``: leaf number ``k`` of the differentiable arguments."""
        path, _ = tree.flatten_with_path(self.in_tree.unflatten(list(range(self.in_tree.num_leaves))))[0][k]
        return argument_name(self.fun, self.positions[path[0].idx]) + tree.keystr(path[1:])

    # what rules return -----------------------------------------------------------------------------------------------

    def result(self, out: Any, rule: str) -> list[Any]:
        """The leaves of a primal result that a rule gives, which must be of the type of the function's own."""
        flat, out_tree = tree.flatten(out)
        check_outputs(flat, out_tree, rule)
        if self.out_tree is not None and self.out_tree != out_tree:
            raise TypeError(
                f"{rule} must return a primal result of the structure that {self.name} returns: "
                + tree.describe_difference(self.out_tree, out_tree)
            )
        for k, a in enumerate(self.out_avals or ()):
            b = aval_of(flat[k])
            if a.shape != b.shape or a.dtype != b.dtype:
                path = tree.leaf_paths(out_tree)[k]
                raise TypeError(
                    f"{rule} returned {b.short()} as the primal result{path}, where {self.name} returns {a.short()}. "
                    f"Return the value of {self.name} itself{_cast(a, b)}."
                )
        self.out_tree = out_tree
        return flat

    def tangents(self, out: Any, outs: Sequence[Any], rule: str) -> list[Any]:
        """The leaves of a tangent that a rule gives for the result ``outs``; ``ZERO`` for symbolic zeros."""
        flat, found_tree = tree.flatten(out)
        assert self.out_tree is not None
        if found_tree != self.out_tree:
            raise TypeError(
                f"{rule} must return a tangent of the structure of the primal result: "
                + tree.describe_difference(self.out_tree, found_tree)
            )
        what = lambda k: f"{rule} returned, as the tangent of the result{tree.leaf_paths(found_tree)[k]}"  # noqa: E731
        of = "the result"
        return [_checked(t, aval_of(o), what, k, of) for k, (t, o) in enumerate(zip(flat, outs, strict=True))]

    def cotangents(self, out: Any, avals: Sequence[ShapedArray], rule: str) -> list[Any]:
        """A cotangent (or ``ZERO``) per leaf of the differentiable arguments."""
        n = len(self.positions)
        if not isinstance(out, (tuple, list)) or len(out) != n:
            found = f"{len(out)} of them" if isinstance(out, (tuple, list)) else f"a {type(out).__name__}"
            names = ", ".join([argument_name(self.fun, p) for p in self.positions])
            raise TypeError(
                f"{rule} must return a tuple with one cotangent for each of the {n} differentiable argument(s) of "
                f"{self.name} ({names}); it returned {found}. "
                + ("For one argument write (ct,). " if n == 1 else "")
                + "None stands for zero."
            )
        example = self.in_tree.unflatten(list(range(self.in_tree.num_leaves)))
        flat: list[Any] = []
        for p, ct, arg in zip(self.positions, out, example, strict=True):
            what = f"{rule}: the cotangent of {argument_name(self.fun, p)}"
            try:
                spread = tree.broadcast_prefix(ct, arg, is_leaf=_is_zero, what=what, of="the argument")
            except ValueError as error:
                raise TypeError(f"{error}. None may stand for any part of it that is zero.") from None
            given = sum([not _is_zero(x) for x in tree.leaves(ct, is_leaf=_is_zero)])
            if given != sum([not _is_zero(x) for x in spread]):
                raise TypeError(
                    f"{what} must have the structure of the argument, {tree.structure(arg)}; it has the structure "
                    f"{tree.structure(ct)}. None may stand for any part of it that is zero."
                )
            flat += spread
        what_leaf = lambda k: f"{rule} returned, as the cotangent of {self.leaf(k)},"  # noqa: E731
        of = "the argument"
        return [_checked(c, a, what_leaf, k, of) for k, (c, a) in enumerate(zip(flat, avals, strict=True))]


def _is_zero(x: Any) -> bool:
    return x is None or isinstance(x, SymbolicZero)


def _cast(wanted: ShapedArray, found: ShapedArray) -> str:
    return f", for instance by .astype('{wanted.dtype.name}')" if wanted.shape == found.shape else ""


def _checked(t: Any, aval: ShapedArray, what: Callable[[int], str], k: int, of: str) -> Any:
    """A tangent or cotangent of a value, in the value's dtype; ``ZERO`` where it is known to be zero.

    Raises:
        TypeError: it has another shape or dtype.
    """
    if _is_zero(t):
        return ZERO
    wanted = ShapedArray(aval.shape, tangent_dtype(aval.dtype))
    if getattr(t, "dtype", None) == FLOAT0:
        found = ShapedArray(np.shape(t), FLOAT0)
    else:
        try:
            found = aval_of(t)
        except TypeError as error:
            raise TypeError(f"{what(k)} something that is not an array: {error}") from None
    if wanted.dtype == FLOAT0:
        if found.dtype == FLOAT0:
            return ZERO
        raise TypeError(
            f"{what(k)} {found.short()}, but {of} is {aval.short()} and has no derivative: return None for it in bwd, "
            "np.zeros(shape, funcgrad.float0) as a tangent"
        )
    if found.shape == wanted.shape and found.dtype == wanted.dtype:
        return t
    if found.shape == wanted.shape and found.weak_type and np.can_cast(found.dtype, wanted.dtype, "same_kind"):
        return as_dtype(t, wanted.dtype)
    way = (
        f"write .astype('{wanted.dtype.name}')"
        if found.shape == wanted.shape
        else "sum over the axes along which it was broadcast"
        if found.size > wanted.size and of == "the argument"
        else f"give it the shape {wanted.shape}, by np.broadcast_to for instance"
    )
    raise TypeError(f"{what(k)} {found.short()}, but {of} is {aval.short()}, of which it must have the type: {way}")


def _pair(out: Any, rule: str, what: str) -> tuple[Any, Any]:
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        found = f"{len(out)} values" if isinstance(out, (tuple, list)) else f"a {type(out).__name__}"
        raise TypeError(f"{rule} must return a pair ({what}); it returned {found}")
    return out[0], out[1]


def _flat_jvp(call: CustomCall, rule: JVPRule) -> Any:
    text = f"the JVP rule of {call.name} ({function_name(rule.fun)})"

    def jvp(fixed: Sequence[Any], xs: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        pairs = zip(tangents, xs, strict=True)
        ts = [_zero(aval_of(x), rule.symbolic_zeros) if t is ZERO else t for t, x in pairs]
        with no_captured_tracers(text):
            out = rule.fun(*call.others(fixed), call.in_tree.unflatten(xs), call.in_tree.unflatten(ts))
        value, tangent = _pair(out, text, "primal result, tangent of the result")
        outs = call.result(value, text)
        return outs, call.tangents(tangent, outs, text)

    return jvp


def _flat_vjp(call: CustomCall, rule: VJPRule) -> Any:
    fwd_text = f"the fwd function of {call.name} ({function_name(rule.fwd)})"
    bwd_text = f"the bwd function of {call.name} ({function_name(rule.bwd)})"

    def fwd(fixed: Sequence[Any], xs: Sequence[Any], perturbed: Sequence[bool]) -> Any:
        shown: list[Any] = list(xs)
        if rule.symbolic_zeros:
            shown = [CustomVJPPrimal(x, p) for x, p in zip(xs, perturbed, strict=True)]
        with no_captured_tracers(fwd_text):
            out = rule.fwd(*call.arguments(fixed, shown))
        value, residuals = _pair(out, fwd_text, "result, residuals")
        outs = call.result(value, fwd_text)
        out_tree = call.out_tree
        assert out_tree is not None
        in_avals = [aval_of(x) for x in xs]
        leaves, res_tree = tree.flatten(residuals)
        is_array = [_is_array(x) for x in leaves]
        snapshots = Snapshots(limit=_SNAPSHOT_LIMIT)  # bwd runs later: a buffer may have been written to by then
        arrays = [*fixed, *[snapshots(x) for x, a in zip(leaves, is_array, strict=True) if a]]
        statics = [None if a else x for x, a in zip(leaves, is_array, strict=True)]
        out_avals = [aval_of(o) for o in outs]
        n_fixed = len(fixed)

        def pull(res: Sequence[Any], cts: Sequence[Any]) -> list[Any]:
            snapshots.verify()
            rest = iter(res[n_fixed:])
            values = [next(rest) if a else s for a, s in zip(is_array, statics, strict=True)]
            pairs = zip(cts, out_avals, strict=True)
            shown = [_zero(a, rule.symbolic_zeros) if c is ZERO else c for c, a in pairs]
            with no_captured_tracers(bwd_text):
                out = rule.bwd(*call.others(res[:n_fixed]), res_tree.unflatten(values), out_tree.unflatten(shown))
            return call.cotangents(out, in_avals, bwd_text)

        return outs, arrays, pull

    return fwd


def _is_array(x: Any) -> bool:
    try:
        aval_of(x)
    except TypeError:
        return False
    return True


def flat_rules(call: CustomCall, jvp: JVPRule | None, vjp: VJPRule | None) -> Rules:
    """The rules of one call, in flat form."""
    return Rules(
        call.name, None if jvp is None else _flat_jvp(call, jvp), None if vjp is None else _flat_vjp(call, vjp)
    )
