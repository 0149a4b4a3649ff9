"""``einsum``: subscripts into transposes, sums, products and ``dot_general``.

Each operand is first reduced to distinct labels (a repeated label is a diagonal, which is a strided view). Operands are
then combined pairwise along NumPy's cheapest path: labels shared by two operands are contracted if nobody else needs
them and run in parallel otherwise; where nothing is contracted the product is elementwise, so that it fuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .dot import dot_general
from .elementwise import mul
from .promotion import promote_dtypes
from .shape import strided_slice
from .structural import reduce_sum, reshape, shape_of, transpose

__all__ = ["diagonal", "einsum"]

Labels = str

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""``string.ascii_letters``; that module's import takes half a millisecond."""


def diagonal(x: Any, axis1: int, axis2: int) -> Any:
    """The main diagonal of two axes (non-negative, of any extents), as a new last axis: a view."""
    shape = shape_of(x)
    m, n = shape[axis1], shape[axis2]
    rest = [a for a in range(len(shape)) if a not in (axis1, axis2)]
    kept = tuple([shape[a] for a in rest])
    x = transpose(x, (*rest, axis1, axis2))
    count = min(m, n)
    x = strided_slice(x, [0] * len(shape), (*kept, count, n))
    x = reshape(x, (*kept, count * n))
    limit = (count - 1) * (n + 1) + 1 if count else 0
    return strided_slice(x, [0] * (len(kept) + 1), (*kept, limit), (*([1] * len(kept)), n + 1))


def _letters(operands: Sequence[Any]) -> tuple[str, list[Any]]:
    """``einsum(x, [0, 1], y, [1, 2], [0, 2])`` as subscripts and arrays."""

    def text(labels: Sequence[Any]) -> str:
        for k in labels:
            if k is not Ellipsis and not (isinstance(k, (int, np.integer)) and 0 <= k < 52):
                raise ValueError(f"einsum: sublist labels are integers from 0 to 51 or Ellipsis, found {k!r}")
        return "".join(["..." if k is Ellipsis else LETTERS[k] for k in labels])

    arrays, lists = list(operands[0:-1:2]), list(operands[1::2])
    terms = ",".join([text(labels) for labels in lists])
    return (f"{terms}->{text(operands[-1])}" if len(operands) % 2 else terms), arrays


def _expand(term: str, rank: int, spare: str, k: int) -> Labels:
    """An operand's term with its ellipsis replaced by the last of the ``spare`` labels it stands for."""
    if "..." not in term:
        if len(term) != rank:
            raise ValueError(f"einsum: operand {k} has {rank} axes, but its subscripts {term!r} name {len(term)}")
        return term
    hidden = rank - (len(term) - 3)
    if term.count("...") > 1 or hidden < 0:
        raise ValueError(f"einsum: subscripts {term!r} do not fit operand {k}, which has {rank} axes")
    return term.replace("...", spare[len(spare) - hidden :])


@lru_cache(maxsize=1024)
def _parse(subscripts: str, ranks: tuple[int, ...]) -> tuple[tuple[Labels, ...], Labels]:
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    bad = set(text.replace("->", "").replace("...", "")) - set(LETTERS + ",")
    if bad or "->" in right or "," in right:
        raise ValueError(f"einsum: subscripts {subscripts!r} are letters, commas, '...' and one '->'")
    if len(terms) != len(ranks):
        raise ValueError(f"einsum: {subscripts!r} has terms for {len(terms)} operands, found {len(ranks)}")
    hidden = max([n - (len(t) - 3) for t, n in zip(terms, ranks, strict=True) if "..." in t], default=0)
    unused = [c for c in map(chr, range(0x100, 0x400)) if c.isalpha()]
    spare = "".join(unused[: max(hidden, 0)])
    inputs = tuple([_expand(t, n, spare, k) for k, (t, n) in enumerate(zip(terms, ranks, strict=True))])
    joined = "".join(inputs)
    if arrow:
        if spare and "..." not in right:
            raise ValueError(
                f"einsum: {subscripts!r} sums over the axes that '...' stands for; name them, or keep '...'"
            )
        output = right.replace("...", spare)
    else:
        output = spare + "".join(sorted([c for c in set(joined) - set(spare) if joined.count(c) == 1]))
    for c in output:
        if c not in joined:
            raise ValueError(f"einsum: output label {c!r} of {subscripts!r} appears in no operand")
        if output.count(c) > 1:
            raise ValueError(f"einsum: output label {c!r} of {subscripts!r} appears twice")
    return inputs, output


def _label_sizes(subscripts: str, inputs: Sequence[Labels], shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for labels, shape in zip(inputs, shapes, strict=True):
        for c, n in zip(labels, shape, strict=True):
            if sizes.setdefault(c, n) != n and n != 1:
                if sizes[c] != 1:
                    raise ValueError(
                        f"einsum: label {c!r} of {subscripts!r} has extents {sizes[c]} and {n} "
                        f"in operands of shapes {', '.join(map(str, shapes))}"
                    )
                sizes[c] = n
    return sizes


@lru_cache(maxsize=1024)
def _path(inputs: tuple[Labels, ...], output: Labels, sizes: tuple[tuple[str, int], ...]) -> list[tuple[int, ...]]:
    """Which operands to combine, step by step; NumPy looks only at shapes, so it gets arrays without memory."""
    if len(inputs) <= 2:
        return [tuple(range(len(inputs)))]
    if len(sizes) > len(LETTERS):
        return [(0, 1)] * (len(inputs) - 1)
    rename = str.maketrans({c: LETTERS[k] for k, (c, _) in enumerate(sizes)})
    extent = dict(sizes)
    dummies = [np.broadcast_to(np.float64(0), [extent[c] for c in labels]) for labels in inputs]
    text = f"{','.join(inputs)}->{output}".translate(rename)
    method = "optimal" if len(inputs) <= 4 else "greedy"
    return [tuple(step) for step in np.einsum_path(text, *dummies, optimize=method)[0][1:]]


def _take_diagonals(x: Any, labels: Labels) -> tuple[Any, Labels]:
    for c in dict.fromkeys(labels):
        while labels.count(c) > 1:
            i = labels.index(c)
            j = labels.index(c, i + 1)
            if shape_of(x)[i] != shape_of(x)[j]:
                raise ValueError(
                    f"einsum: label {c!r} appears twice in one operand, with extents {shape_of(x)[i]} "
                    f"and {shape_of(x)[j]}"
                )
            x = diagonal(x, i, j)
            labels = "".join([d for k, d in enumerate(labels) if k not in (i, j)]) + c
    return x, labels


def _drop_stretched(x: Any, labels: Labels, sizes: dict[str, int]) -> tuple[Any, Labels]:
    """Axes of extent 1 that broadcast against a longer one elsewhere need no label."""
    kept = [k for k, c in enumerate(labels) if shape_of(x)[k] == sizes[c]]
    if len(kept) == len(labels):
        return x, labels
    return reshape(x, [shape_of(x)[k] for k in kept]), "".join([labels[k] for k in kept])


def _sum_out(x: Any, labels: Labels, keep: set[str]) -> tuple[Any, Labels]:
    gone = [k for k, c in enumerate(labels) if c not in keep]
    return reduce_sum(x, gone), "".join([c for c in labels if c in keep])


def _combine(x: Any, a: Labels, y: Any, b: Labels, needed: set[str]) -> tuple[Any, Labels]:
    x, a = _sum_out(x, a, needed | set(b))
    y, b = _sum_out(y, b, needed | set(a))
    shared = [c for c in a if c in b]
    batch = [c for c in shared if c in needed]
    contract = [c for c in shared if c not in needed]
    own = [c for c in a if c not in shared]
    other = [c for c in b if c not in shared]
    labels = "".join([*batch, *own, *other])
    if contract:
        numbers = [([a.index(c) for c in group], [b.index(c) for c in group]) for group in (contract, batch)]
        return dot_general(x, y, numbers), labels
    x = transpose(x, [a.index(c) for c in (*batch, *own)])
    y = transpose(y, [b.index(c) for c in (*batch, *other)])
    x = reshape(x, shape_of(x) + (1,) * len(other)) if other else x
    if own and other:
        extents = shape_of(y)
        y = reshape(y, extents[: len(batch)] + (1,) * len(own) + extents[len(batch) :])
    elif own:
        y = reshape(y, shape_of(y) + (1,) * len(own))
    return mul(x, y), labels


def einsum(*operands: Any) -> Any:
    """``np.einsum``: ``einsum("ij,jk->ik", x, y)`` or ``einsum(x, [0, 1], y, [1, 2], [0, 2])``.

    Repeated labels, sums, ellipses, implicit output and any number of operands; axes of extent 1 broadcast.
    """
    if not operands:
        raise ValueError("einsum: no subscripts and no operands")
    if isinstance(operands[0], str):
        subscripts, arrays = operands[0], list(operands[1:])
    else:
        subscripts, arrays = _letters(operands)
    if not arrays:
        raise ValueError(f"einsum: no operands for {subscripts!r}")
    arrays = promote_dtypes(*arrays)
    shapes = [shape_of(x) for x in arrays]
    inputs, output = _parse(subscripts, tuple([len(s) for s in shapes]))
    sizes = _label_sizes(subscripts, inputs, shapes)
    terms = []
    for x, labels in zip(arrays, inputs, strict=True):
        x, labels = _take_diagonals(x, labels)
        terms.append(_drop_stretched(x, labels, sizes))
    for step in _path(tuple([labels for _, labels in terms]), output, tuple(sizes.items())):
        chosen = [terms.pop(k) for k in sorted(step, reverse=True)][::-1]
        needed = set(output).union(*[labels for _, labels in terms])
        x, labels = chosen[0]
        for n, (y, more) in enumerate(chosen[1:], 2):
            later = {c for _, rest in chosen[n:] for c in rest}
            x, labels = _combine(x, labels, y, more, needed | later)
        terms.append((x, labels))
    x, labels = terms[0]
    x, labels = _sum_out(x, labels, set(output))
    return transpose(x, [labels.index(c) for c in output])
