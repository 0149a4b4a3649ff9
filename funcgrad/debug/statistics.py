"""Statistics of the leaves of a pytree: gradients at a glance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .. import tree
from ..control.callback import bind_debug
from ..core.avals import aval_of
from ..core.trace import Tracer
from ..errors import NonFiniteError
from ..record import record
from .origin import summary

__all__ = ["LeafStatistics", "Statistics", "check_finite", "statistics"]


@record(frozen=True)
class LeafStatistics:
    """One array. Means and extremes are of its finite elements (of complex numbers: of their magnitudes), in float64;
    NaN where there are none. ``zeros`` is a fraction, ``nans`` and ``infs`` are counts."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    mean: float
    std: float
    norm: float
    min: float
    max: float
    zeros: float
    nans: int
    infs: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Statistics(Sequence[LeafStatistics]):
    """One `LeafStatistics` for each leaf, in order; printed as a table. ``s["['w']"]`` finds one by its path."""

    def __init__(self, rows: Sequence[LeafStatistics]) -> None:
        self.rows = tuple(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[LeafStatistics]:
        return iter(self.rows)

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self.rows[key]
        for row in self.rows:
            if row.path == key:
                return row
        raise KeyError(f"no leaf has the path {key!r}; there are {[r.path for r in self.rows]}")

    @property
    def norm(self) -> float:
        """Of all leaves together."""
        return math.hypot(*[r.norm for r in self.rows if not math.isnan(r.norm)])

    @property
    def finite(self) -> bool:
        return not any([r.nans or r.infs for r in self.rows])

    def __str__(self) -> str:
        head = ("leaf", "type", "mean", "std", "norm", "min", "max", "zeros", "NaN", "inf")
        body = [
            (r.path or "(the array)", f"{_type(r)}", *[f"{v:.3g}" for v in (r.mean, r.std, r.norm, r.min, r.max)],
             f"{100 * r.zeros:.3g} %", str(r.nans or ""), str(r.infs or ""))
            for r in self.rows
        ]  # fmt: skip
        if len(body) != 1:
            size = sum([r.size for r in self.rows])
            nans, infs = sum([r.nans for r in self.rows]), sum([r.infs for r in self.rows])
            zeros = sum([r.zeros * r.size for r in self.rows]) / max(size, 1)
            body.append(("all", f"[{size}]", "", "", f"{self.norm:.3g}", "", "", f"{100 * zeros:.3g} %",
                         str(nans or ""), str(infs or "")))  # fmt: skip
        table = [head, *body]
        widths = [max([len(row[k]) for row in table]) for k in range(len(head))]
        return "\n".join(
            "  ".join([c.ljust(w) if k < 2 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))])
            .rstrip()
            for row in table
        )  # fmt: skip

    def __repr__(self) -> str:
        return str(self)


def _type(row: LeafStatistics) -> str:
    return f"{row.dtype.name}[{','.join(map(str, row.shape))}]"


def statistics(values: Any) -> Statistics:
    """Shape, dtype, mean, standard deviation, norm, extremes, zeros, NaNs and infinities of each leaf of a pytree.

    Args:
        values: a pytree of arrays, gradients for instance.

    Raises:
        TypeError: a leaf is no array, or has no value yet because it is traced.

    >>> s = statistics({"w": np.array([[3.0, 0.0], [0.0, 4.0]]), "b": np.array([1.0, np.nan])})
    >>> print(s)
    leaf   type          mean   std  norm  min  max  zeros  NaN  inf
    ['b']  float64[2]       1     0     1    1    1    0 %    1
    ['w']  float64[2,2]  1.75  1.79     5    0    4   50 %
    all    [6]                        5.1             33.3 %    1
    >>> s["['w']"].norm, s.finite
    (5.0, False)
    """
    leaves, treedef = tree.flatten(values)
    return Statistics([_row(path, x) for path, x in zip(tree.leaf_paths(treedef), leaves, strict=True)])


def _row(path: str, x: Any) -> LeafStatistics:
    if isinstance(x, Tracer):
        raise TypeError(
            f"statistics: the leaf{path} is traced ({x.aval}) and has no value yet. Take statistics outside, or when "
            "it runs: debug.callback(lambda g: print(debug.statistics(g)), grads)"
        )
    try:
        aval = aval_of(x)
    except TypeError as error:
        raise TypeError(f"statistics: the leaf{path}: {error}") from None
    a = np.asarray(x)
    wide = np.abs(a).astype(np.float64) if a.dtype.kind == "c" else a.astype(np.float64)
    nan, inf = np.isnan(wide), np.isinf(wide)
    finite = wide if not (nan.any() or inf.any()) else wide[~(nan | inf)]
    if finite.size:
        largest = float(np.abs(finite).max()) or 1.0
        scaled = finite / largest  # squares of large numbers overflow
        mean, std, norm = largest * scaled.mean(), largest * scaled.std(), largest * np.linalg.norm(scaled)
        numbers = (float(mean), float(std), float(norm), float(finite.min()), float(finite.max()))
    else:
        numbers = (math.nan,) * 5
    zeros = float(np.mean(wide == 0)) if wide.size else 0.0
    return LeafStatistics(path, aval.shape, aval.dtype, *numbers, zeros, int(nan.sum()), int(inf.sum()))


def check_finite(values: Any, what: str = "the values") -> None:
    """Raise if a leaf of a pytree holds a NaN or an infinity, naming it. In a traced function: when it runs.

    Args:
        values: a pytree of arrays.
        what: what they are, for the message.

    Raises:
        NonFiniteError: with the path of the first such leaf.

    >>> check_finite({"w": np.ones(2)}, "the gradient")
    >>> check_finite({"w": np.array([1.0, np.inf])}, "the gradient")
    Traceback (most recent call last):
        ...
    funcgrad.errors.NonFiniteError: the gradient['w'] is not finite: f64[2], from 1.0 to 1.0, 1 infinite, first at (1,)
    """

    def look(values: Any) -> None:
        leaves, treedef = tree.flatten(values)
        for path, x in zip(tree.leaf_paths(treedef), leaves, strict=True):
            a = np.asarray(x)
            if a.dtype.kind in "fc" and not np.isfinite(a).all():
                first = tuple([int(k) for k in np.argwhere(~np.isfinite(a))[0]])
                place = f", first at {first}" if a.ndim else ""
                raise NonFiniteError(f"{what}{path} is not finite: {summary(x)}{place}")

    if any([isinstance(x, Tracer) for x in tree.leaves(values)]):
        bind_debug(look, (values,), {}, True)
    else:
        look(values)
