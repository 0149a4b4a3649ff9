"""Which inputs each element of a program's results may depend on: of the program of ``jvp``, from tangents to tangents,
the sparsity of a Jacobian.

``dependence(reach, closed, inputs)`` takes the ``Rows`` (sets of inputs, see ``dependence``) of each input to those of
each result; None is no dependence. There is one rule for each kind of lowering and none for single primitives: what
moves elements is run on an array of integers; elementwise operations unite their operands' sets; folds, products and
convolutions those of the elements that they combine; routines on matrices all of a matrix; and what is not known,
everything. An operation that is locally constant (``ZeroDerivative``: comparisons, ``sign``, ``floor``, integers)
gives no dependence.

The answer holds for every value of the inputs. Values that do not depend on them (captured arrays and what is
computed from these) are known: they say where a gather reads, and a product with a known zero is no dependence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from ..core import lowering as L
from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Jaxpr, Var, has_effect, last_uses
from ..core.primitive import ZeroDerivative
from ..ops.conv import pad_config, result_extents
from ..ops.dot import free_axes
from ..ops.indexing import gather_p, other_axes
from ..ops.shape import pad_p
from ..util import prod
from .dependence import LIMIT, Rows, constant_set, gather_sets, selected, union

__all__ = ["UNKNOWN", "Reach", "dependence"]

UNKNOWN: Final = object()
"""Stands for a value that depends on the inputs."""

Sets = Rows | None
_CONTROL = (L.Scan, L.While, L.Branch, L.Call, L.Host)


class Reach:
    """Walks jaxprs. ``control`` holds the rules of loops and branches, which walk theirs with this again."""

    def __init__(self, control: dict[type, Callable[..., list[Sets]]]) -> None:
        self.rules: dict[type, Callable[..., list[Sets]]] = {**RULES, **control}

    def run(
        self, jaxpr: Jaxpr, consts: Sequence[Any], ins: Sequence[Sets], values: Sequence[Any]
    ) -> tuple[list[Sets], list[Any]]:
        """Sets and values (or ``UNKNOWN``) of the results, from those of the inputs."""
        sets: dict[Var, Sets] = dict.fromkeys(jaxpr.constvars) | dict(zip(jaxpr.invars, ins, strict=True))
        known: dict[Var, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *values), strict=True))

        def value(a: Atom) -> Any:
            return known[a] if type(a) is Var else a.value  # type: ignore[union-attr]

        def reach(a: Atom) -> Sets:
            return sets[a] if type(a) is Var else None

        for eqn, gone in zip(jaxpr.eqns, last_uses(jaxpr), strict=True):
            operands, given = [reach(a) for a in eqn.invars], [value(a) for a in eqn.invars]
            known.update(zip(eqn.outvars, _values(eqn, given), strict=True))
            sets.update(zip(eqn.outvars, self.equation(eqn, operands, given), strict=True))
            for v in gone:
                del sets[v], known[v]
        return [reach(a) for a in jaxpr.outvars], [value(a) for a in jaxpr.outvars]

    def equation(self, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
        primitive = eqn.primitive
        if isinstance(primitive.jvp, ZeroDerivative) or all([s is None for s in operands]):
            return [None] * len(eqn.outvars)
        rule = self.rules.get(type(primitive.lower), _everything)
        outs = rule(self, eqn, operands, values)
        return [s if v.aval.dtype.kind in "fc" else None for s, v in zip(outs, eqn.outvars, strict=True)]


def _values(eqn: Eqn, given: list[Any]) -> list[Any]:
    """What an equation of known operands gives. Loops are not run, nor what has effects."""
    count = len(eqn.outvars)
    if any([v is UNKNOWN for v in given]) or isinstance(eqn.primitive.lower, _CONTROL) or has_effect(eqn):
        return [UNKNOWN] * count
    try:
        with np.errstate(all="ignore"):
            out = eqn.primitive.bind(*given, **eqn.params)
    except (ValueError, ArithmeticError):  # a singular matrix: the program raises it, where it is run
        return [UNKNOWN] * count
    return list(out) if eqn.primitive.multiple_results else [out]


# rules ----------------------------------------------------------------------------------------------------------


def _shape(eqn: Eqn) -> tuple[int, ...]:
    return eqn.outvars[0].aval.shape


def _operand_shape(eqn: Eqn, k: int = 0) -> tuple[int, ...]:
    return eqn.invars[k].aval.shape


def _everything(reach: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    every = constant_set([s for s in operands if s is not None], ())
    return [Rows(every.table, np.zeros(v.aval.shape, np.intp)) for v in eqn.outvars]


def _elementwise(reach: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    shape, fn = _shape(eqn), eqn.primitive.lower.fn  # type: ignore[union-attr]
    if fn == "select" and values[0] is not UNKNOWN:
        taken = [None if s is None else Rows(s.table, np.broadcast_to(s.which, shape)) for s in operands[1:]]
        index = np.arange(prod(shape)).reshape(shape)
        return [selected(taken, [prod(shape)] * 2, np.where(values[0], index, index + prod(shape)))]
    if fn in ("mul", "mul_no_nan") and None in operands:
        k = operands.index(None)
        other = operands[1 - k]
        assert other is not None
        if values[k] is not UNKNOWN and not np.all(values[k]):
            return [Rows(other.table, np.broadcast_to(other.which, shape)).masked(np.asarray(values[k]) != 0)]
    return [union(operands, shape)]


def _view(reach: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    (rows,) = operands
    assert rows is not None
    return [rows.moved(lambda which: eqn.primitive.impl(which, **eqn.params))]


def _assemble(reach: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    """Pieces of operands: run on numbers that count through all of them."""
    sizes = [prod(a.aval.shape) for a in eqn.invars]
    starts = np.cumsum([0, *sizes])
    numbers = [
        np.arange(b, b + n).reshape(a.aval.shape)[()] for a, b, n in zip(eqn.invars, starts, sizes, strict=False)
    ]
    return [selected(operands, sizes, eqn.primitive.impl(*numbers, **eqn.params))]


def _folded(rows: Rows, axes: Sequence[int]) -> Rows:
    """Elements along ``axes`` united, which drops these axes."""
    kept = other_axes(len(rows.shape), tuple(axes))
    shape = [rows.shape[a] for a in kept]
    if rows.is_full() and prod(rows.shape):
        return Rows(rows.table, np.zeros(shape, np.intp))
    sources = np.arange(prod(rows.shape)).reshape(rows.shape).transpose([*kept, *axes]).ravel()
    count = prod([rows.shape[a] for a in axes])
    return gather_sets(rows, np.repeat(np.arange(prod(shape)), count), sources, shape)


def _spread(rows: Rows, shape: Sequence[int], axes: Sequence[int]) -> Rows:
    """Lay the axes along ``axes`` of ``shape`` and repeat along all others."""
    aligned = [1] * len(shape)
    for n, a in zip(rows.shape, axes, strict=True):
        aligned[a] = n
    return rows.moved(lambda which: np.broadcast_to(which.reshape(aligned), tuple(shape)))


def _along(rows: Rows, axes: Sequence[int]) -> Rows:
    """Every element gets all that is along ``axes``."""
    return _spread(_folded(rows, axes), rows.shape, other_axes(len(rows.shape), tuple(axes)))


def _reduce(reach: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    assert operands[0] is not None
    return [_folded(operands[0], eqn.params["axes"])]


def _cumulate(reach: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    (rows,), axis, shape = operands, eqn.params["axis"], _shape(eqn)
    assert rows is not None
    n = shape[axis]
    if rows.table.shape[0] == 1 or (prod(shape) // max(n, 1)) * n * (n + 1) // 2 > LIMIT // 8:
        return [_along(rows, (axis,))]
    first, last = np.tril_indices(n)
    if eqn.params["reverse"]:
        first, last = last, first
    numbers = np.moveaxis(np.arange(prod(shape)).reshape(shape), axis, 0)
    return [gather_sets(rows, numbers[first].ravel(), numbers[last].ravel(), shape)]


def _contract(reach: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    (contracted, batch), shape = eqn.params["dimension_numbers"], _shape(eqn)
    free = [free_axes(a.aval.ndim, c, b) for a, c, b in zip(eqn.invars, contracted, batch, strict=True)]
    n_batch, n_left = len(batch[0]), len(free[0])
    places = [
        range(n_batch + n_left),
        [*range(n_batch), *range(n_batch + n_left, len(shape))],
    ]
    parts: list[Sets] = []
    for k in range(2):
        rows, other = operands[k], values[1 - k]
        if rows is None:
            continue
        ordered = rows.moved(partial(np.transpose, axes=(*batch[k], *free[k], *contracted[k])))
        if other is not UNKNOWN and not np.all(other):
            weights = np.transpose(other, (*batch[1 - k], *free[1 - k], *contracted[1 - k]))
            part = _sparse_product(ordered, weights, n_batch, len(contracted[0]), k == 0)
            if part is not None:
                parts.append(part)
                continue
        last = range(n_batch + len(free[k]), len(ordered.shape))
        parts.append(_spread(_folded(ordered, list(last)), shape, list(places[k])))
    return [union(parts, shape)]


def _sparse_product(rows: Rows, weights: Any, n_batch: int, n_contracted: int, is_left: bool) -> Rows | None:
    """``rows`` (batch, own free, contracted) times known ``weights`` (batch, other free, contracted), of which only
    the nonzeros count; None where that is too much to write out."""
    batch = weights.shape[:n_batch]
    own = rows.shape[n_batch : len(rows.shape) - n_contracted]
    other = weights.shape[n_batch : weights.ndim - n_contracted]
    nb, m, n, inner = prod(batch), prod(own), prod(other), prod(weights.shape[weights.ndim - n_contracted :])
    b, j, k = np.nonzero(np.reshape(weights, (nb, n, inner)))
    if len(b) * m > LIMIT // 8:
        return None
    i = np.arange(m)[:, None]
    sources = (b * m + i) * inner + k
    shape = (*batch, *own, *other) if is_left else (*batch, *other, *own)
    targets = (b * m + i) * n + j if is_left else (b * n + j) * m + i
    return gather_sets(rows, targets.ravel(), sources.ravel(), shape)


def _convolve(reach: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    (x, w), shape, params = operands, _shape(eqn), eqn.params
    rank = len(params["strides"])
    parts: list[Sets] = []
    if w is not None:
        parts.append(_spread(_folded(w, range(1, rank + 2)), shape, (0, rank + 2)))
    if x is not None and prod(shape):
        pixels = _folded(x, (rank + 2,))
        kernel = _operand_shape(eqn, 1)[1:-2]
        out = result_extents(pixels.shape[2:], kernel, *[params[k] for k in _CONV])
        config = pad_config(params["padding"], params["lhs_dilation"])[:-1]
        numbers = pad_p.impl(np.arange(prod(pixels.shape)).reshape(pixels.shape), -1, padding_config=config)
        seen = []
        for tap in np.ndindex(*kernel):
            starts = [i * e for i, e in zip(tap, params["rhs_dilation"], strict=True)]
            index = [slice(b, b + (t - 1) * s + 1, s) for b, t, s in zip(starts, out, params["strides"], strict=True)]
            seen.append(numbers[(slice(None), slice(None), *index)].ravel())
        sources = np.concatenate(seen)
        targets = np.tile(np.arange(len(seen[0])), len(seen))
        inside = sources >= 0
        parts.append(_spread(gather_sets(pixels, targets[inside], sources[inside], shape[:-1]), shape, range(rank + 2)))
    return [union(parts, shape)]


_CONV = ("strides", "padding", "lhs_dilation", "rhs_dilation")


def _numbers(shape: Sequence[int]) -> Any:
    """Positions from 1: what an operation that fills in zeros, or the least integer, is run on."""
    return np.arange(1, prod(shape) + 1).reshape(shape)


def _positions(numbers: Any) -> Any:
    return np.maximum(np.asarray(numbers), 0) - 1


def _gather(reach: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    rows, axes = operands[0], eqn.params["axes"]
    assert rows is not None
    unknown = [a for a, v in zip(axes, values[1:], strict=True) if v is UNKNOWN]
    rows = _along(rows, unknown) if unknown else rows
    indices = [np.zeros(a.aval.shape, np.intp) if v is UNKNOWN else v
               for a, v in zip(eqn.invars[1:], values[1:], strict=True)]  # fmt: skip
    found = gather_p.impl(_numbers(rows.shape), *indices, **eqn.params)
    return [selected([rows], [prod(rows.shape)], _positions(found))]


def _scatter(reach: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    (x, updates, *_), axes, shape = operands, eqn.params["axes"], _shape(eqn)
    combine, update_shape = eqn.primitive.lower.combine, _operand_shape(eqn, 1)  # type: ignore[union-attr]
    unknown = [a for a, v in zip(axes, values[2:], strict=True) if v is UNKNOWN]
    if combine == "set" and not unknown:
        size = prod(shape)
        numbers = np.arange(size).reshape(shape), np.arange(size, size + prod(update_shape)).reshape(update_shape)
        found = eqn.primitive.impl(*numbers, *values[2:], **eqn.params)
        return [selected([x, updates], [size, prod(update_shape)], found)]
    if updates is None or not prod(shape):
        return [x]
    # an update whose place is not known along an axis may arrive anywhere along it
    reduced = tuple([1 if a in unknown else n for a, n in enumerate(shape)])
    indices = [np.zeros(a.aval.shape, np.intp) if v is UNKNOWN else v
               for a, v in zip(eqn.invars[2:], values[2:], strict=True)]  # fmt: skip
    mode = {"drop": "zero"}.get(eqn.params["mode"], eqn.params["mode"])
    targets = _positions(gather_p.impl(_numbers(reduced), *indices, axes=axes, mode=mode)).ravel()
    sources = np.flatnonzero(targets >= 0)
    arrived = gather_sets(updates, targets[sources], sources, reduced)
    return [union([x, arrived], shape)]


def _dynamic_slice(reach: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    rows, sizes = operands[0], eqn.params["sizes"]
    assert rows is not None
    moving = [a for a, n in enumerate(rows.shape) if sizes[a] < n and values[1 + a] is UNKNOWN]
    if not prod(sizes):
        return [None]
    rows = _along(rows, moving) if moving else rows
    starts = [0 if v is UNKNOWN else v for v in values[1:]]
    return [rows.moved(lambda which: eqn.primitive.impl(which, *starts, **eqn.params))]


def _dynamic_update(reach: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    (x, updates, *_), shape, window = operands, _shape(eqn), _operand_shape(eqn, 1)
    size = prod(shape)
    if any([v is UNKNOWN for v in values[2:]]):
        moving = [a for a, n in enumerate(shape) if window[a] < n]
        rest = None if updates is None else _folded(updates, moving)
        spread = None if rest is None else _spread(rest, shape, other_axes(len(shape), tuple(moving)))
        return [union([x, spread], shape)]
    numbers = np.arange(size).reshape(shape), np.arange(size, size + prod(window)).reshape(window)
    found = eqn.primitive.impl(*numbers, *values[2:], **eqn.params)
    return [selected([x, updates], [size, prod(window)], found)]


def _library(reach: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    """Routines on matrices (and on rows, sorted or transformed): all of one matrix, nothing of its neighbours."""
    lower, params = eqn.primitive.lower, eqn.params
    assert isinstance(lower, L.Library)
    if lower.routine == "sort":
        return [None if s is None else _along(s, (params["dimension"],)) for s in operands]
    if lower.routine == "fft":
        core = [len(params["fft_lengths"])]
    elif lower.results:
        core = [1 if kind == "vectors" else 2 for kind in lower.operands]
    else:
        return _everything(reach, eqn, operands, values)
    batches = {_operand_shape(eqn, k)[: len(_operand_shape(eqn, k)) - c] for k, c in enumerate(core)}
    batch = batches.pop()
    if batches or len(core) != len(operands) or any(v.aval.shape[: len(batch)] != batch for v in eqn.outvars):
        return _everything(reach, eqn, operands, values)
    whole = [None if s is None else _folded(s, range(len(batch), len(s.shape))) for s in operands]
    total = union(whole, batch)
    return [None if total is None else _spread(total, v.aval.shape, range(len(batch))) for v in eqn.outvars]


RULES: dict[type, Callable[..., list[Sets]]] = {
    L.Scalar: _elementwise,
    L.View: _view,
    L.Assemble: _assemble,
    L.Reduce: _reduce,
    L.Cumulate: _cumulate,
    L.Contract: _contract,
    L.Convolve: _convolve,
    L.Gather: _gather,
    L.Scatter: _scatter,
    L.DynamicSlice: _dynamic_slice,
    L.DynamicUpdate: _dynamic_update,
    L.Library: _library,
}


def dependence(reach: Reach, closed: ClosedJaxpr, inputs: Sequence[Sets]) -> list[Sets]:
    """The sets of the results of a program without calls, whose inputs have the sets ``inputs``."""
    return reach.run(closed.jaxpr, closed.consts, inputs, [UNKNOWN] * len(inputs))[0]
