"""Jacobians and Hessians: a derivative pushed (or pulled) along a whole basis at once, by ``vmap``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import tree
from ..core.avals import aval_of
from ..ops.structural import reshape
from .batch import batch_flat
from .derive import jvp, quiet, vjp
from .flat import canonical_argnums, check_callable, check_chosen, chosen_name, function_name, own_all, wraps

__all__ = ["hessian", "jacfwd", "jacrev"]


def _basis(leaves: Sequence[Any]) -> list[Any]:
    """One-hot arrays ``[n, *shape]`` per leaf; together the rows run through all ``n`` elements of all leaves."""
    avals = [aval_of(x) for x in leaves]
    sizes = [a.size for a in avals]
    total = sum(sizes)
    basis, start = [], 0
    for a, size in zip(avals, sizes, strict=True):
        rows = np.zeros((total, size), a.dtype)
        rows[start : start + size] = np.eye(size, dtype=a.dtype)
        basis.append(rows.reshape(total, *a.shape))
        start += size
    return basis


def _split_rows(x: Any, shapes: Sequence[tuple[int, ...]], front: bool) -> list[Any]:
    """Cut axis 0 of ``x`` into one part per shape; the part's basis axes go in front of the others or behind."""
    parts, start = [], 0
    rest = aval_of(x).shape[1:]
    for shape in shapes:
        size = int(np.prod(shape, dtype=np.int64))
        part = x[start : start + size]
        start += size
        if front:
            parts.append(reshape(part, (*shape, *rest)))
        else:
            order = (*range(1, len(rest) + 1), 0)
            moved = part.transpose(order) if rest else part
            parts.append(reshape(moved, (*rest, *shape)))
    return parts


def _selected(fun: Callable[..., Any], positions: Sequence[int], args: tuple[Any, ...], kwargs: Any) -> Any:
    def partial(*chosen: Any) -> Any:
        full = list(args)
        for p, x in zip(positions, chosen, strict=True):
            full[p] = x
        return fun(*full, **kwargs)

    partial.__name__ = function_name(fun)
    return partial


def _check_kind(leaves: Sequence[Any], kinds: str, transform: str, what: Callable[[int], str], hint: str) -> None:
    for k, x in enumerate(leaves):
        dtype = aval_of(x).dtype
        if dtype.kind not in kinds:
            raise TypeError(f"{transform}: {what(k)} has dtype {dtype.name}; {hint}")


def _check_results(leaves: Sequence[Any], fun: Callable[..., Any], transform: str, holomorphic: bool) -> None:
    """Real inputs may have complex results in forward mode; rows of a reverse-mode Jacobian want real ones."""
    _check_kind(
        leaves,
        "c" if holomorphic else "fc" if transform == "jacfwd" else "f",
        transform,
        lambda k: f"the result of {function_name(fun)}",
        "holomorphic=True wants a complex result" if holomorphic else "it wants a real floating-point result",
    )


def jacfwd(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False, holomorphic: bool = False
) -> Callable[..., Any]:
    """The Jacobian of ``fun``, column by column in forward mode: best for few inputs and many outputs.

    Returns:
        A function whose result has the structure of ``fun``'s output with, at each leaf, the structure of the
        argument: blocks of shape ``output shape + input shape``. With ``has_aux`` a pair ``(jacobian, aux)``.

    >>> import numpy as np
    >>> jacfwd(lambda x: x**2)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """
    check_callable(fun, "jacfwd")

    @wraps(fun, "jacfwd", "Takes the same arguments; returns the Jacobian.")
    def jacfwd_fun(*args: Any, **kwargs: Any) -> Any:
        positions = canonical_argnums(argnums, len(args), "jacfwd")
        chosen = tuple(args[p] for p in positions)
        leaves, treedef = tree.flatten(chosen)
        check_chosen(fun, args, positions, "jacfwd")
        _check_kind(
            leaves,
            "c" if holomorphic else "f",
            "jacfwd",
            lambda k: chosen_name(fun, args, positions, k),
            "holomorphic=True takes complex inputs"
            if holomorphic
            else "it takes real floating-point inputs (holomorphic=True for complex ones)",
        )
        result: dict[str, Any] = {}

        def push(*rows: Any) -> list[Any]:
            out = jvp(_selected(fun, positions, args, kwargs), chosen, treedef.unflatten(rows), has_aux=has_aux)
            _check_results(tree.leaves(out[0]), fun, "jacfwd", holomorphic)
            flat, result["tree"] = tree.flatten(out[1])
            if has_aux:
                result["aux"] = out[2]
            return flat

        basis = _basis(leaves)
        aux_holder: list[Any] = []

        def push_with_aux(*rows: Any) -> list[Any]:
            flat = push(*rows)
            aux_flat, result["aux_tree"] = tree.flatten(result.get("aux"))
            aux_holder[:] = aux_flat
            return [*flat, *aux_flat]

        n_rows = basis[0].shape[0] if basis else 0
        with quiet():
            outs = batch_flat(
                push_with_aux,
                n_rows,
                basis,
                [0] * len(basis),
                lambda n: [0] * (n - len(aux_holder)) + [None] * len(aux_holder),
            )
            n_out = len(outs) - len(aux_holder)
            shapes, n = [aval_of(x).shape for x in leaves], len(leaves)
            parts = own_all([part for x in outs[:n_out] for part in _split_rows(x, shapes, front=False)])
            blocks = [treedef.unflatten(parts[k * n : (k + 1) * n]) for k in range(n_out)]
        if not isinstance(argnums, (tuple, list)):
            blocks = [b[0] for b in blocks]
        jacobian = result["tree"].unflatten(blocks)
        return (jacobian, result["aux_tree"].unflatten(outs[n_out:])) if has_aux else jacobian

    return jacfwd_fun


def jacrev(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
) -> Callable[..., Any]:
    """The Jacobian of ``fun``, row by row in reverse mode: best for many inputs and few outputs.

    Arguments and result as for `jacfwd`; ``allow_int`` as for `grad`.

    >>> import numpy as np
    >>> jacrev(lambda x: x**2)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """
    check_callable(fun, "jacrev")

    @wraps(fun, "jacrev", "Takes the same arguments; returns the Jacobian.")
    def jacrev_fun(*args: Any, **kwargs: Any) -> Any:
        positions = canonical_argnums(argnums, len(args), "jacrev")
        chosen = tuple(args[p] for p in positions)
        leaves, treedef = tree.flatten(chosen)
        check_chosen(fun, args, positions, "jacrev")
        _check_kind(
            leaves,
            ("c" if holomorphic else "fc") + ("iub" if allow_int else ""),
            "jacrev",
            lambda k: chosen_name(fun, args, positions, k),
            "holomorphic=True takes complex inputs"
            if holomorphic
            else "it takes floating-point inputs; convert with .astype(float), or pass allow_int=True",
        )
        out, pull, *aux = vjp(_selected(fun, positions, args, kwargs), *chosen, has_aux=has_aux)
        out_leaves, out_tree = tree.flatten(out)
        _check_results(out_leaves, fun, "jacrev", holomorphic)
        basis = _basis(out_leaves)
        n_rows = basis[0].shape[0] if basis else 0
        with quiet():
            rows = batch_flat(
                lambda *cts: tree.leaves(pull(out_tree.unflatten(cts))),
                n_rows,
                basis,
                [0] * len(basis),
                lambda n: [0] * n,
            )
            shapes = [aval_of(x).shape for x in out_leaves]
            parts = own_all([part for x in rows for part in _split_rows(x, shapes, front=True)])
        n_out = len(out_leaves)
        blocks = [treedef.unflatten(parts[k::n_out]) for k in range(n_out)]
        if not isinstance(argnums, (tuple, list)):
            blocks = [b[0] for b in blocks]
        jacobian = out_tree.unflatten(blocks)
        return (jacobian, aux[0]) if has_aux else jacobian

    return jacrev_fun


def hessian(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False, holomorphic: bool = False
) -> Callable[..., Any]:
    """The matrix of second derivatives: forward mode over reverse mode.

    >>> import numpy as np
    >>> hessian(lambda x: np.sum(x**3))(np.array([1.0, 2.0]))
    array([[ 6.,  0.],
           [ 0., 12.]])
    """
    return jacfwd(
        jacrev(fun, argnums, has_aux=has_aux, holomorphic=holomorphic),
        argnums,
        has_aux=has_aux,
        holomorphic=holomorphic,
    )
