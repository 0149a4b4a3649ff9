"""Sparse Jacobians and Hessians: the pattern from the program, a few products, a SciPy matrix.

``sparse_jacobian(f)`` reads off the traced program which result depends on which input (`passes.sparsity`), colours
columns or rows so that those of one colour do not meet (`runtime.coloring`), computes one compiled product for each
colour, all together by ``vmap``, and puts the numbers in their places. Pattern and colouring are kept for each
combination of shapes, so that later calls are products only: the Jacobian of a stencil of five points costs seven
derivatives along a direction, however many unknowns there are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import tree
from .core.avals import ShapedArray, aval_of
from .core.jaxpr import ClosedJaxpr
from .core.trace import EVAL, STATE, Tracer
from .jit import jit
from .passes.dependence import LIMIT, Rows, identity, selected
from .passes.pipeline import optimize
from .passes.sparsity import dependence
from .passes.sparsity_control import reach
from .record import record
from .runtime.coloring import Coloring, color_matrix, color_symmetric
from .transforms.derive import grad, jvp, vjp
from .transforms.flat import (
    canonical_argnums,
    check_arguments,
    check_callable,
    check_chosen,
    chosen_name,
    function_name,
)
from .transforms.inspect import stage_call
from .transforms.vmap import vmap

__all__ = ["SparseHessian", "SparseJacobian", "sparse_hessian", "sparse_jacobian"]

_CHUNK = 1 << 22
"""Elements of the directions that are pushed (or pulled) at once; of what is computed from them there may be many
times as much."""

_PLANS = 16
"""Combinations of shapes whose patterns are kept."""


@record(frozen=True)
class _Plan:
    """What is known for one combination of shapes: everything but the numbers."""

    pattern: Any
    coloring: Coloring
    dtype: np.dtype[Any]
    seeds: dict[bool, np.ndarray]
    """Directions of all columns (True) and all rows (False), where these are few enough to be kept."""


class _Compressed:
    """What Jacobians and Hessians share: plans by shapes, seeds, and assembly."""

    transform = ""

    def __init__(self, fun: Callable[..., Any], argnums: Any, sparsity: Any) -> None:
        check_callable(fun, self.transform)
        if isinstance(argnums, (tuple, list)):
            raise TypeError(
                f"{self.transform}: argnums must be one integer, found {argnums!r}; to differentiate with respect to "
                "several arguments give the function one that is a tuple of them: the columns then follow each other"
            )
        self._fun = fun
        self._argnums = argnums
        self._sparsity = None if sparsity is None else _given_pattern(sparsity, self.transform)
        self._plans: OrderedDict[Any, _Plan] = OrderedDict()
        self._push = jit(self._pushed)
        self._pull = jit(self._pulled)

    def __repr__(self) -> str:
        return f"{self.transform}({function_name(self._fun)})"

    def pattern(self, *args: Any, **kwargs: Any) -> Any:
        """The boolean matrix of the entries that may be other than zero, for arguments of these shapes and dtypes.

        Nothing is computed: ``ShapeDtypeStruct`` will do for an array.
        """
        return self._plan(args, kwargs).pattern.copy()

    def coloring(self, *args: Any, **kwargs: Any) -> Coloring:
        """Which columns and rows are computed together; its ``n_columns`` and ``n_rows`` are the numbers of products
        in forward and in reverse mode."""
        return self._plan(args, kwargs).coloring

    # -- the plan

    def _plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Plan:
        leaves, in_tree = tree.flatten((args, kwargs))
        if STATE.trace is not EVAL or any([isinstance(x, Tracer) for x in leaves]):
            raise TypeError(
                f"{self.transform}({function_name(self._fun)}) makes a SciPy matrix and cannot be called inside of "
                "jit, vmap, grad or another transformation; it compiles what it computes itself. Inside of one, use "
                "jvp and vjp for products with the matrix."
            )
        check_arguments(self._fun, args, kwargs, leaves, self.transform, abstract=True)
        key = in_tree, tuple([aval_of(x) for x in leaves])
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._new_plan(args, kwargs)
            while len(self._plans) > _PLANS:
                self._plans.popitem(last=False)
        return plan

    def _new_plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Plan:
        (position,) = canonical_argnums(self._argnums, len(args), self.transform)
        check_chosen(self._fun, args, (position,), self.transform)
        for k, x in enumerate(tree.leaves(args[position])):
            dtype = aval_of(x).dtype
            if dtype.kind != "f":
                name = chosen_name(self._fun, args, (position,), k)
                way = "split it into real and imaginary part" if dtype.kind == "c" else "convert it with .astype(float)"
                raise TypeError(
                    f"{self.transform} takes real floating-point inputs, but {name} has dtype {dtype.name}: {way}"
                )
        closed, outs, chosen = self._program(args, kwargs, position)
        shape = sum([a.size for a in outs]), sum([a.size for a in chosen])
        if self._sparsity is None:
            pattern = self._finished(_jacobian_pattern(closed, chosen, shape, self.transform))
        elif self._sparsity.shape != shape:
            raise ValueError(
                f"{self.transform}: sparsity has shape {self._sparsity.shape}, but {function_name(self._fun)} has "
                f"{shape[0]} results and {shape[1]} inputs: it must have shape {shape}"
            )
        else:
            pattern = self._sparsity
        dtype = np.result_type(*[a.dtype for a in outs]) if outs else np.dtype(np.float64)
        return _Plan(pattern, self._colored(pattern), dtype, {})

    def _program(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], position: int
    ) -> tuple[ClosedJaxpr, list[ShapedArray], list[ShapedArray]]:
        """The program of the derivative, from arguments and a direction (its last inputs) to the results' tangents;
        and what it says of results and inputs. It is the derivative that is asked for its pattern, not the function:
        a rule of its own may depend on more, or on less."""
        outs: list[ShapedArray] = []

        def derivative(args: Any, kwargs: Any, direction: Any) -> Any:
            fun, x = self._selected(args, kwargs)
            value, tangents = jvp(fun, (x,), (direction,))
            outs[:] = [aval_of(v) for v in tree.leaves(value)]
            self._check_results(outs)
            return tangents

        closed, _ = stage_call(derivative, (args, kwargs, args[position]), {}, self.transform)
        return optimize(closed), outs, closed.in_avals[len(tree.leaves((args, kwargs))) :]

    def _check_results(self, avals: Sequence[ShapedArray]) -> None:
        for a in avals:
            if a.dtype.kind != "f":
                raise TypeError(
                    f"{self.transform}: the result of {function_name(self._fun)} has dtype {a.dtype.name}; it wants "
                    "real floating-point results"
                )

    def _finished(self, pattern: Any) -> Any:
        return pattern

    def _colored(self, pattern: Any) -> Coloring:
        return color_matrix(pattern)

    # -- the numbers

    def _selected(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Callable[[Any], Any], Any]:
        """The function of the chosen argument alone, and that argument."""
        (position,) = canonical_argnums(self._argnums, len(args), self.transform)

        def partial(x: Any) -> Any:
            return self._fun(*[x if k == position else a for k, a in enumerate(args)], **kwargs)

        return partial, args[position]

    def _pushed(self, args: Any, kwargs: Any, seeds: Any) -> Any:
        """Value, and the products with each row of ``seeds`` (k, n): (k, m)."""
        fun, x = self._selected(args, kwargs)
        leaves, treedef = tree.flatten(x)
        directions = treedef.unflatten(_cut(seeds, leaves))
        value, pushed = vmap(lambda s: jvp(fun, (x,), (s,)), out_axes=(None, 0))(directions)
        return value, _rows(tree.leaves(pushed), len(seeds))

    def _pulled(self, args: Any, kwargs: Any, seeds: Any) -> Any:
        """Value, and the products of each row of ``seeds`` (k, m) with the matrix: (k, n)."""
        fun, x = self._selected(args, kwargs)
        value, pull = vjp(fun, x)
        leaves, treedef = tree.flatten(value)
        (pulled,) = vmap(pull)(treedef.unflatten(_cut(seeds, leaves)))
        return value, _rows(tree.leaves(pulled), len(seeds))

    def _value_and_matrix(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        from scipy.sparse import csr_array

        plan = self._plan(args, kwargs)
        coloring = plan.coloring
        parts: list[Any] = []
        value: Any = None
        for product, colors, count, width, forward in [
            (self._push, coloring.columns, coloring.n_columns, len(coloring.rows), True),
            (self._pull, coloring.rows, coloring.n_rows, len(coloring.columns), False),
        ]:
            step = max(1, min(count, _CHUNK // max(len(colors), width, 1)))
            for first in range(0, count, step):
                seeds = plan.seeds.get(forward)
                if seeds is None:
                    seeds = _seeds(colors, first, step, plan.dtype)
                    if step == count:
                        plan.seeds[forward] = seeds
                value, made = product(args, kwargs, seeds)
                parts.append(made[: count - first].ravel())
        if not parts:  # nothing depends on anything: a product with zero gives the value
            value, _ = self._push(args, kwargs, np.zeros((1, len(coloring.columns)), plan.dtype))
        flat = parts[0] if len(parts) == 1 else np.concatenate([*parts, np.zeros(0, plan.dtype)])
        pattern = plan.pattern
        data = flat[coloring.index].astype(plan.dtype, copy=False)
        matrix = csr_array((data, pattern.indices.copy(), pattern.indptr.copy()), shape=pattern.shape)
        matrix.has_canonical_format = True
        return value, matrix


def _given_pattern(sparsity: Any, transform: str) -> Any:
    from scipy.sparse import csr_array, issparse

    if not issparse(sparsity):
        sparsity = np.asarray(sparsity)
        if sparsity.dtype.kind not in "biuf":
            raise TypeError(f"{transform}: sparsity must be a sparse or dense matrix, found {type(sparsity).__name__}")
    if sparsity.ndim != 2:
        raise ValueError(f"{transform}: sparsity must have two axes (results, inputs), found shape {sparsity.shape}")
    pattern = csr_array(sparsity)
    pattern.sum_duplicates()
    return csr_array((np.ones(pattern.nnz, np.bool_), pattern.indices, pattern.indptr), shape=pattern.shape)


def _jacobian_pattern(closed: ClosedJaxpr, chosen: Sequence[ShapedArray], shape: tuple[int, int], name: str) -> Any:
    m, n = shape
    starts = np.cumsum([0, *[a.size for a in chosen]])
    inputs: list[Rows | None] = [None] * (len(closed.in_avals) - len(chosen))
    inputs += [identity(a.shape, int(b), n) for a, b in zip(chosen, starts, strict=False)]
    sets = dependence(reach, closed, inputs)
    rows = selected(sets, [a.size for a in closed.out_avals], np.arange(m))
    if rows is None:
        return _nothing(shape)
    if rows.entries() > LIMIT:
        raise ValueError(
            f"{name}: up to {rows.entries():,} of the {m:,} x {n:,} entries may be other than zero, as far "
            "as the program shows; that is no sparse matrix. If you know better, pass sparsity=, a matrix with an "
            "entry wherever there can be one; else use jacfwd or jacrev, or products by jvp and vjp."
        )
    pattern = rows.matrix().copy()
    pattern.sort_indices()
    return pattern


def _nothing(shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_array

    return csr_array(shape, dtype=np.bool_)


def _seeds(colors: np.ndarray, first: int, count: int, dtype: np.dtype[Any]) -> np.ndarray:
    """One row for each of ``count`` colours from ``first`` on: ones where an element has that colour."""
    seeds = np.zeros((count, len(colors)), dtype)
    places = np.flatnonzero((colors >= first) & (colors < first + count))
    seeds[colors[places] - first, places] = 1
    return seeds


def _cut(seeds: Any, leaves: Sequence[Any]) -> list[Any]:
    """Rows of all elements as arrays ``(k, *shape)`` of the leaves' shapes and dtypes."""
    parts, start = [], 0
    for a in [aval_of(x) for x in leaves]:
        part = seeds[:, start : start + a.size].reshape((seeds.shape[0], *a.shape))
        parts.append(part.astype(a.dtype))
        start += a.size
    return parts


def _rows(leaves: Sequence[Any], count: int) -> Any:
    return np.concatenate([x.reshape((count, aval_of(x).size // count)) for x in leaves], axis=1)


class SparseJacobian(_Compressed):
    """What `sparse_jacobian` returns: a function of the same arguments, with a memory for patterns."""

    transform = "sparse_jacobian"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The Jacobian: a SciPy ``csr_array`` (results, inputs)."""
        return self._value_and_matrix(args, kwargs)[1]

    def value_and(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """``(fun(...), Jacobian)``: the value comes with the products."""
        return self._value_and_matrix(args, kwargs)


class SparseHessian(_Compressed):
    """What `sparse_hessian` returns: a function of the same arguments, with a memory for patterns."""

    transform = "sparse_hessian"

    def __init__(self, fun: Callable[..., Any], argnums: Any, sparsity: Any) -> None:
        super().__init__(fun, argnums, sparsity)
        if self._sparsity is not None:
            if self._sparsity.shape[0] != self._sparsity.shape[1]:
                raise ValueError(f"sparse_hessian: sparsity must be square, found shape {self._sparsity.shape}")
            self._sparsity = (self._sparsity + self._sparsity.T).tocsr()
            self._sparsity.sort_indices()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The Hessian: a symmetric SciPy ``csr_array`` (inputs, inputs)."""
        return self._value_and_matrix(args, kwargs)[1]

    def gradient_and(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """``(gradient, Hessian)``: the gradient comes with the products."""
        return self._value_and_matrix(args, kwargs)

    def _finished(self, pattern: Any) -> Any:
        """Entries that the program shows on one side of the diagonal only are zero: the matrix is symmetric."""
        both = pattern.multiply(pattern.T.tocsr()).tocsr()
        both.sort_indices()
        return both

    def _colored(self, pattern: Any) -> Coloring:
        return color_symmetric(pattern)

    def _selected(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Callable[[Any], Any], Any]:
        """The gradient: operations in which it is linear have disappeared from what it depends on."""
        fun, x = super()._selected(args, kwargs)
        return grad(fun), x


def sparse_jacobian(fun: Callable[..., Any], argnums: int = 0, sparsity: Any = None) -> SparseJacobian:
    """The Jacobian of ``fun`` as a SciPy sparse matrix, at the price of a few directional derivatives.

    Args:
        fun: takes and returns arrays of real floating-point numbers, of any shapes (or pytrees of them). It should be
            pure: it is traced once for each combination of shapes.
        argnums: position of the argument to differentiate.
        sparsity: a matrix (sparse or dense) with an entry other than zero wherever the Jacobian can have one, in place
            of the pattern that is found from the program.

    Returns:
        A `SparseJacobian`: called with the arguments of ``fun`` it gives a ``scipy.sparse.csr_array`` of shape
        (size of the result, size of the argument) and the result's dtype, both in the order of ``ravel``. Entries of
        the pattern that happen to be zero are stored. ``.value_and(...)`` gives ``fun(...)`` as well,
        ``.pattern(...)`` the pattern and ``.coloring(...)`` the products that are made. Keep it: pattern, colouring
        and compiled code are found at the first call for new shapes.

    Raises:
        TypeError: an input or a result is not real floating point, or a call inside of another transformation.
        ValueError: the Jacobian may have more than 2**26 entries, or ``sparsity`` does not fit.

    The pattern is an upper bound that holds for every value of the arguments. An index that depends on them is one
    that may be anything: ``x[i]`` then depends on all of ``x``.

    >>> def residual(u):
    ...     return 2 * u[1:-1] - u[:-2] - u[2:] + np.exp(u[1:-1])
    >>> jacobian = sparse_jacobian(residual)
    >>> jacobian(np.zeros(5)).toarray()
    array([[-1.,  3., -1.,  0.,  0.],
           [ 0., -1.,  3., -1.,  0.],
           [ 0.,  0., -1.,  3., -1.]])
    >>> jacobian.coloring(np.zeros(5)).n_columns
    3
    """
    return SparseJacobian(fun, argnums, sparsity)


def sparse_hessian(fun: Callable[..., Any], argnums: int = 0, sparsity: Any = None) -> SparseHessian:
    """The matrix of second derivatives of a scalar function as a SciPy sparse matrix.

    Args:
        fun: returns a real number; the argument is an array of real floating-point numbers (or a pytree of them).
        argnums, sparsity: as in `sparse_jacobian`; of ``sparsity`` either triangle will do.

    Returns:
        A `SparseHessian`: called with the arguments of ``fun`` it gives a symmetric ``scipy.sparse.csr_array``;
        ``.gradient_and(...)`` gives the gradient as well. The rest is as for `sparse_jacobian`.

    Raises:
        TypeError, ValueError: as `sparse_jacobian`; and where the result is not a scalar.

    >>> def energy(x):
    ...     return np.sum((x[1:] - x[:-1] ** 2) ** 2)
    >>> hessian = sparse_hessian(energy)
    >>> hessian(np.array([1.0, 2.0, 3.0])).toarray()
    array([[ 4., -4.,  0.],
           [-4., 38., -8.],
           [ 0., -8.,  2.]])
    """
    return SparseHessian(fun, argnums, sparsity)
