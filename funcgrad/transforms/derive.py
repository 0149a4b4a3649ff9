"""Derivatives: ``grad``, ``value_and_grad``, ``vjp``, ``jvp``, ``linearize``, ``linear_transpose``.

Reverse mode is linearization followed by transposition (``transforms.linear``). The names, signatures and conventions,
also for complex numbers, are JAX's. While a derivative is computed eagerly NumPy's floating-point warnings are off:
rules may pass through infinities that a mask removes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import tree
from ..core.avals import FLOAT0, aval_of, tangent_dtype
from ..core.jaxpr import eval_jaxpr
from ..core.primitive import ZERO
from ..core.snapshot import Snapshots
from ..core.staging import stage
from ..core.trace import EVAL, STATE
from .flat import (
    FlatFunction,
    canonical_argnums,
    check_arguments,
    check_callable,
    check_chosen,
    check_outputs,
    chosen_name,
    function_name,
    kind_of,
    leaf_name,
    own,
    own_all,
    wraps,
)
from .forward import instantiate, jvp_flat
from .linear import LinearFunction, linear_function, linearize_flat
from .linearity import check_linear

__all__ = ["grad", "jvp", "linear_transpose", "linearize", "value_and_grad", "vjp"]


_COPY_LIMIT = 1 << 16
"""Bytes of a captured array below which copying it costs less than what is done with it."""


def quiet() -> np.errstate:
    return np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore")


def _check_input(x: Any, where: str, transform: str, holomorphic: bool) -> None:
    dtype = aval_of(x).dtype
    if holomorphic:
        if dtype.kind != "c":
            raise TypeError(
                f"{transform} with holomorphic=True requires complex inputs, but {where} has dtype {dtype.name}; "
                "convert it with .astype(complex)"
            )
    elif dtype.kind == "c":
        return  # real-valued functions of complex inputs: the conjugate gradient, as in JAX
    elif dtype.kind not in "fc":
        hint = f"write {x!r}.0" if type(x) is int else "convert it with .astype(float)"
        raise TypeError(
            f"{transform} requires inputs of a floating-point dtype, but {where} has dtype {dtype.name}. "
            f"If its derivative is wanted, {hint}; if not, leave it out of argnums, or pass allow_int=True to get "
            "float0 zeros for it."
        )


def _check_scalar_output(out: Any, fun: Callable[..., Any], transform: str, holomorphic: bool) -> None:
    name = function_name(fun)
    aval = aval_of(out)
    if aval.shape != ():
        raise TypeError(
            f"{transform} requires a function with a scalar result, but {name} returned shape {aval.shape}. "
            "Reduce it (np.sum(...), np.mean(...)) or use jacrev, jacfwd or vjp for the derivative of an array."
        )
    if holomorphic:
        if aval.dtype.kind != "c":
            raise TypeError(
                f"{transform} with holomorphic=True requires a complex result, but {name} returned {aval.dtype.name}"
            )
    elif aval.dtype.kind == "c":
        raise TypeError(
            f"{transform} requires a real result, but {name} returned {aval.dtype.name}. Take its real part or "
            "absolute value, or pass holomorphic=True if the function is holomorphic."
        )
    elif aval.dtype.kind != "f":
        raise TypeError(
            f"{transform} requires a result of a floating-point dtype, but {name} returned {aval.dtype.name}; its "
            "derivative is zero wherever it exists"
        )


def _scalar_result(out: Any, fun: Callable[..., Any], transform: str, has_aux: bool) -> tuple[Any, Any]:
    aux = None
    name = function_name(fun)
    if has_aux:
        if not (isinstance(out, tuple) and len(out) == 2):
            raise TypeError(
                f"{name} must return a pair (value, auxiliary data) because has_aux is True; it returned {kind_of(out)}"
            )
        out, aux = out
    flat, out_tree = tree.flatten(out)
    if not out_tree.is_leaf():
        raise TypeError(
            f"{transform} requires a function with a scalar result, but {name} returned a {type(out).__name__}. "
            "Return one number; give back other values with has_aux=True."
        )
    check_outputs(flat, out_tree, name)
    return out, aux


def value_and_grad(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
) -> Callable[..., Any]:
    """The function that returns ``(fun(...), gradient)``.

    Args:
        fun: returns a real scalar (with ``has_aux``: a pair of it and any auxiliary data).
        argnums: position(s) of the argument(s) to differentiate, each a pytree of floating-point arrays.
        has_aux: ``fun`` returns ``(value, aux)``; the result is then ``((value, aux), gradient)``.
        holomorphic: inputs and result are complex and ``fun`` is holomorphic.
        allow_int: integer inputs are accepted and get ``float0`` zeros.

    Returns:
        A function with the signature of ``fun``. The gradient has the structure, shapes and dtypes of the argument;
        a tuple of them if ``argnums`` is a sequence.

    Raises:
        TypeError: the result is not a scalar, or an input is not floating point.

    >>> value_and_grad(lambda x, y: x * y + x)(2.0, 3.0)
    (np.float64(8.0), np.float64(4.0))
    """
    return _value_and_grad(fun, argnums, has_aux, holomorphic, allow_int, "value_and_grad")


def _value_and_grad(
    fun: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool, holomorphic: bool, allow_int: bool, name: str
) -> Callable[..., Any]:
    check_callable(fun, name)

    @wraps(fun, name, "Takes the same arguments; returns the value and the gradient.")
    def value_and_grad_fun(*args: Any, **kwargs: Any) -> Any:
        positions = canonical_argnums(argnums, len(args), name)
        chosen = [args[p] for p in positions]
        leaves, treedef = tree.flatten(chosen)
        _check_inputs(leaves, args, positions, fun, name, holomorphic, allow_int)
        aux = out_tracer = None

        def flat(*tracers: Any) -> list[Any]:
            nonlocal aux, out_tracer
            full = list(args)
            for p, value in zip(positions, treedef.unflatten(tracers), strict=True):
                full[p] = value
            out_tracer, aux = _scalar_result(fun(*full, **kwargs), fun, name, has_aux)
            _check_scalar_output(out_tracer, fun, name, holomorphic)
            return [out_tracer, *aux_leaves(aux)]

        with quiet():
            snapshots = Snapshots(limit=_COPY_LIMIT if STATE.trace is EVAL else None)
            outs, linear = linearize_flat(flat, leaves, snapshots=snapshots, user=fun)
            snapshots.verify()
            value, lowered_aux = own(outs[0]), rebuild_aux(aux, outs[1:], leaves)
            one = aval_of(value).dtype.type(1)
            cts = linear.transpose([one] + [ZERO] * (len(outs) - 1))
            grads = treedef.unflatten(_per_leaf(leaves, cts))
        result = tuple(grads) if isinstance(argnums, (tuple, list)) else grads[0]
        return ((value, lowered_aux), result) if has_aux else (value, result)

    return value_and_grad_fun


def _check_inputs(
    leaves: list[Any],
    args: tuple[Any, ...],
    positions: Sequence[int],
    fun: Callable[..., Any],
    name: str,
    holomorphic: bool,
    allow_int: bool,
) -> None:
    if not holomorphic and all([type(x) is float or (type(x) is np.ndarray and x.dtype.char in "efd") for x in leaves]):
        return
    check_chosen(fun, args, positions, name)
    for k, x in enumerate(leaves):
        kind = aval_of(x).dtype.kind
        if (kind == "f" and not holomorphic) or (allow_int and kind in "biu"):
            continue
        _check_input(x, chosen_name(fun, args, positions, k), name, holomorphic)


def aux_leaves(aux: Any) -> list[Any]:
    return [] if aux is None else [x for x in tree.leaves(aux) if _is_value(x)]


def rebuild_aux(aux: Any, values: Sequence[Any], taken: Sequence[Any]) -> Any:
    """``aux`` with its arrays replaced; leaves that are no arrays (strings, say) pass through untouched. What is
    returned shares no memory with ``taken``."""
    if aux is None:
        return None
    leaves, treedef = tree.flatten(aux)
    remaining = iter(own_all(values, taken))
    return treedef.unflatten([next(remaining) if _is_value(x) else x for x in leaves])


def _is_value(x: Any) -> bool:
    try:
        aval_of(x)
    except TypeError:
        return False
    return True


def _per_leaf(leaves: Sequence[Any], cts: Sequence[Any], taken: Sequence[Any] = ()) -> list[Any]:
    """Cotangents of the inexact leaves, and float0 zeros for the others, in memory of their own."""
    remaining = iter(cts)
    results = []
    for x in leaves:
        aval = aval_of(x)
        inexact = tangent_dtype(aval.dtype) != FLOAT0
        results.append(instantiate(next(remaining) if inexact else ZERO, x))
    return own_all(results, taken)


def grad(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
) -> Callable[..., Any]:
    """The gradient of a function with a scalar result.

    Args:
        fun, argnums, holomorphic, allow_int: as in `value_and_grad`.
        has_aux: ``fun`` returns ``(value, aux)``; the result is then ``(gradient, aux)``.

    >>> grad(lambda x: x**2 + 2 * x + 1)(3.0)
    np.float64(8.0)
    >>> f = lambda x, y: x**2 * y + x * y**2
    >>> grad(f, argnums=(0, 1))(2.0, 3.0)
    (np.float64(21.0), np.float64(16.0))
    """
    value_and_grad_fun = _value_and_grad(fun, argnums, has_aux, holomorphic, allow_int, "grad")

    @wraps(fun, "grad", "Takes the same arguments; returns the gradient.")
    def grad_fun(*args: Any, **kwargs: Any) -> Any:
        value, g = value_and_grad_fun(*args, **kwargs)
        return (g, value[1]) if has_aux else g

    return grad_fun


def _check_tangents(
    primals: Sequence[Any],
    tangents: Sequence[Any],
    what: str,
    paths: Callable[[int], str],
    of: str = "its primal",
) -> list[Any]:
    """Tangents (or cotangents) of the right shape and dtype; zeros of integers become ``ZERO``."""
    checked = []
    for k, (p, t) in enumerate(zip(primals, tangents, strict=True)):
        pa = aval_of(p)
        want = tangent_dtype(pa.dtype)
        if getattr(t, "dtype", None) == FLOAT0:
            ta_shape, ta_dtype = t.shape, FLOAT0
        else:
            try:
                ta = aval_of(t)
            except TypeError as error:
                raise TypeError(f"{what}{paths(k)}: {error}") from None
            ta_shape, ta_dtype = ta.shape, ta.dtype
            if ta.weak_type and want != FLOAT0:
                t, ta_dtype = want.type(t) if not hasattr(t, "aval") else t, want
        if ta_shape != pa.shape:
            raise ValueError(f"{what}{paths(k)} has shape {ta_shape}, but {of} has shape {pa.shape}")
        if ta_dtype != want:
            name = "float0" if want == FLOAT0 else want.name
            way = "np.zeros(shape, funcgrad.float0)" if want == FLOAT0 else f".astype('{name}')"
            raise TypeError(
                f"{what}{paths(k)} has dtype {ta_dtype.name}, but {of} has dtype {pa.dtype.name}, for which it must "
                f"be {name}: write {way}"
            )
        checked.append(ZERO if want == FLOAT0 else t)
    return checked


def _same_structure(expected: tree.PyTreeDef, found: tree.PyTreeDef, what: str) -> None:
    if expected != found:
        raise TypeError(f"{what}: {tree.describe_difference(expected, found)}")


def jvp(fun: Callable[..., Any], primals: Any, tangents: Any, has_aux: bool = False) -> Any:
    """Forward mode: the value of ``fun(*primals)`` and its derivative along ``tangents``.

    Args:
        primals: tuple or list of the positional arguments (pytrees of arrays).
        tangents: the same structure, shapes and dtypes (``float0`` for integers).

    Returns:
        ``(out, tangent_out)``, with ``has_aux`` also the auxiliary data.

    >>> jvp(np.sin, (0.0,), (1.0,))
    (np.float64(0.0), np.float64(1.0))
    """
    check_callable(fun, "jvp")
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise TypeError(
            "jvp: primals and tangents must be tuples or lists, one entry per positional argument; "
            f"found {type(primals).__name__} and {type(tangents).__name__}"
        )
    leaves, in_tree = tree.flatten((tuple(primals), {}))
    t_leaves, t_tree = tree.flatten((tuple(tangents), {}))
    _same_structure(in_tree, t_tree, "jvp: primals and tangents must have the same structure")
    check_arguments(fun, primals, {}, leaves, "jvp")
    checked = _check_tangents(leaves, t_leaves, "jvp: tangent", lambda k: tree.leaf_paths(in_tree)[k][3:])
    flat = FlatFunction(fun, in_tree, has_aux)
    with quiet():
        n = 0

        def with_aux(*xs: Any) -> list[Any]:
            nonlocal n
            outs = flat(*xs)
            n = len(outs)
            return outs + aux_leaves(flat.aux)

        outs, t_outs = jvp_flat(with_aux, leaves, checked, user=fun)
        ts = [instantiate(t, o) for o, t in zip(outs[:n], t_outs[:n], strict=True)]
    owned = own_all([*outs[:n], *ts], [*leaves, *t_leaves])
    result = flat.out_tree.unflatten(owned[:n]), flat.out_tree.unflatten(owned[n:])
    return (*result, rebuild_aux(flat.aux, outs[n:], [*leaves, *t_leaves, *owned])) if has_aux else result


def _linearize(fun: Callable[..., Any], primals: Sequence[Any], has_aux: bool, transform: str) -> Any:
    snapshots = Snapshots()  # the derivative is used later, when the caller may have written to the arguments
    leaves, in_tree = tree.flatten((tuple(primals), {}))
    check_arguments(fun, primals, {}, leaves, transform)
    leaves = [snapshots(x) for x in leaves]
    flat = FlatFunction(fun, in_tree, has_aux)
    n = 0

    def with_aux(*xs: Any) -> list[Any]:
        nonlocal n
        outs = flat(*xs)
        n = len(outs)
        return outs + aux_leaves(flat.aux)

    with quiet():
        outs, linear = linearize_flat(with_aux, leaves, snapshots=snapshots, user=fun)
    linear = LinearFunction(linear.inputs, linear.trace, linear.outs[:n])
    aux = rebuild_aux(flat.aux, outs[n:], outs[n:])  # copies: the linear program may hold the originals
    return leaves, in_tree, outs[:n], flat.out_tree, linear, aux


def vjp(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """Reverse mode: the value of ``fun(*primals)`` and the function that pulls cotangents back.

    Returns:
        ``(out, vjp_fun)``, with ``has_aux`` also the auxiliary data. ``vjp_fun(ct)`` takes a cotangent of the
        structure of ``out`` and returns a tuple with one cotangent per primal. It may be called many times.

    >>> out, pull = vjp(lambda x, y: x * y, 2.0, 3.0)
    >>> pull(1.0)
    (np.float64(3.0), np.float64(2.0))
    """
    check_callable(fun, "vjp")
    leaves, in_tree, outs, out_tree, linear, aux = _linearize(fun, primals, has_aux, "vjp")

    def vjp_fun(ct: Any) -> Any:
        cts, ct_tree = tree.flatten(ct)
        _same_structure(out_tree, ct_tree, "vjp: the cotangent must have the structure of the function's result")
        checked = _check_tangents(outs, cts, "vjp: cotangent", lambda k: tree.leaf_paths(out_tree)[k], "the result")
        with quiet():
            pulled = linear.transpose(checked)
        results = _per_leaf(leaves, pulled, cts)
        return in_tree.unflatten(results)[0]

    out = out_tree.unflatten(own_all(outs, outs))  # copies: the linear program may hold the originals
    return (out, vjp_fun, aux) if has_aux else (out, vjp_fun)


def linearize(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """The value of ``fun(*primals)`` and its derivative there as a linear function of tangents.

    The derivative is worked out once; each call of the linear function costs only its linear operations.

    >>> out, f_jvp = linearize(lambda x: x**3, 2.0)
    >>> f_jvp(1.0)
    np.float64(12.0)
    """
    check_callable(fun, "linearize")
    leaves, in_tree, outs, out_tree, linear, aux = _linearize(fun, primals, has_aux, "linearize")

    def f_jvp(*tangents: Any) -> Any:
        ts, t_tree = tree.flatten((tangents, {}))
        _same_structure(in_tree, t_tree, "linearize: tangents must have the structure of the primals")
        checked = _check_tangents(leaves, ts, "linearize: tangent", lambda k: tree.leaf_paths(in_tree)[k][3:])
        inexact = [t for t, x in zip(checked, leaves, strict=True) if tangent_dtype(aval_of(x).dtype) != FLOAT0]
        with quiet():
            results = [instantiate(t, o) for t, o in zip(linear.apply(inexact), outs, strict=True)]
        return out_tree.unflatten(own_all(results, ts))

    out = out_tree.unflatten(own_all(outs, outs))
    return (out, f_jvp, aux) if has_aux else (out, f_jvp)


def linear_transpose(fun: Callable[..., Any], *primals: Any) -> Callable[[Any], Any]:
    """The transpose of a linear function.

    Args:
        fun: linear in all its arguments.
        primals: example arguments; only shapes and dtypes matter (``ShapeDtypeStruct`` will do).

    Returns:
        A function from a cotangent of ``fun``'s result to a tuple with one cotangent per argument.

    Raises:
        FuncgradError: the function is not linear, or the transpose meets an operation that is not.

    >>> linear_transpose(lambda x: 3.0 * x, 1.0)(2.0)
    (np.float64(6.0),)
    """
    check_callable(fun, "linear_transpose")
    leaves, in_tree = tree.flatten((tuple(primals), {}))
    check_arguments(fun, primals, {}, leaves, "linear_transpose", abstract=True)
    avals = [aval_of(x).strong() for x in leaves]
    for k, a in enumerate(avals):
        if tangent_dtype(a.dtype) == FLOAT0:
            where = leaf_name(fun, tree.leaves_with_path((primals, {}))[k][0])
            raise TypeError(
                f"linear_transpose: {where} has dtype {a.dtype.name}; linear functions act on floating-point or "
                "complex arrays"
            )
    flat = FlatFunction(fun, in_tree)
    closed = stage(flat, avals, flat.__name__)  # the user's code runs once, and may write in place
    check_linear(closed, [True] * len(avals))
    with quiet():
        linear, outs = linear_function(lambda *xs: eval_jaxpr(closed.jaxpr, closed.consts, *xs), avals)

    def transposed(ct: Any) -> Any:
        cts, ct_tree = tree.flatten(ct)
        _same_structure(flat.out_tree, ct_tree, "linear_transpose: the cotangent must have the result's structure")
        paths = tree.leaf_paths(ct_tree)
        checked = _check_tangents(outs, cts, "linear_transpose: cotangent", paths.__getitem__, "the result")
        with quiet():
            pulled = linear.transpose(checked)
            results = [instantiate(c, t) for c, t in zip(pulled, linear.inputs, strict=True)]
        return in_tree.unflatten(own_all(results, cts))[0]

    return transposed
