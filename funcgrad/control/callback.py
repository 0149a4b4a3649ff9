"""Python functions inside programs: ``pure_callback``, ``io_callback``, and what ``debug.callback`` binds.

A callback is one equation that owns a ``Function``: the user's function of the leaves of its arguments. Compiled, it
is a host step, at its place among the other effects of the program, in loops and branches too. It gets arrays of its
own, never views of a program's memory; what it returns is checked against what was declared; what it raises reaches
the caller as it is.

Three primitives differ in what others may do with them. A *pure* callback is computation: it may be left out if its
result is not used. An *io* callback and a *debug* callback are effects: they happen as often as is written, in the
order in which they are written. A debug callback has no results, so that derivatives see through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np

from .. import tree
from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Host
from ..core.primitive import NotDifferentiable, NotLinear, Primitive, ZeroDerivative
from ..core.trace import EVAL, STATE, Source, user_source
from ..ops.structural import broadcast_in_dim, expand_dims, moveaxis, shape_of
from ..transforms.flat import check_callable, function_name

__all__ = [
    "VMAP_METHODS",
    "Function",
    "bind_debug",
    "debug_callback_p",
    "io_callback",
    "io_callback_p",
    "pure_callback",
    "pure_callback_p",
]

VMAP_METHODS = ("sequential", "sequential_unrolled", "expand_dims", "broadcast_all", "legacy_vectorized")


class Runnable(Protocol):
    """``run(arrays, avals)``: the results, checked to be of these avals."""

    def run(self, arrays: Sequence[Any], avals: Sequence[ShapedArray]) -> list[Any]: ...


class Function:
    """The user's function, of the leaves of ``(args, kwargs)``; ``fixed`` are those that are no arrays, by position."""

    def __init__(
        self, fun: Callable[..., Any], what: str, in_tree: tree.PyTreeDef, fixed: dict[int, Any], out_tree: Any
    ) -> None:
        self.fun = fun
        self.what = what
        self.in_tree = in_tree
        self.fixed = fixed
        self.out_tree = out_tree
        """The structure that was declared; None: what is returned does not matter."""
        self.source: Source | None = user_source()

    def __repr__(self) -> str:
        return f"<{function_name(self.fun)}>"

    def run(self, arrays: Sequence[Any], avals: Sequence[ShapedArray]) -> list[Any]:
        rest = iter([np.array(x)[()] for x in arrays])  # copies, which the function may keep and write to
        leaves = [self.fixed[k] if k in self.fixed else next(rest) for k in range(self.in_tree.num_leaves)]
        args, kwargs = cast("tuple[tuple[Any, ...], dict[str, Any]]", self.in_tree.unflatten(leaves))
        saved = STATE.trace, STATE.axes
        STATE.trace, STATE.axes = EVAL, ()  # it computes with values, whatever is traced around it
        try:
            out = self.fun(*args, **kwargs)
        finally:
            STATE.trace, STATE.axes = saved
        return [] if self.out_tree is None else self.checked(out, avals)

    def checked(self, out: Any, avals: Sequence[ShapedArray]) -> list[Any]:
        """The leaves of a result, as arrays.

        Raises:
            TypeError: another structure, shape or dtype than was declared.
        """
        leaves, out_tree = tree.flatten(out)
        label = f"{self.what}: {function_name(self.fun)}, called at {self.source},"
        if out_tree != self.out_tree:
            difference = tree.describe_difference(self.out_tree, out_tree)
            raise TypeError(f"{label} returned another structure than result_shape_dtypes declares: {difference}")
        arrays = []
        for path, x, aval in zip(tree.leaf_paths(out_tree), leaves, avals, strict=True):
            array = np.asarray(x)
            number = type(x) in (bool, int, float, complex)
            if number and array.dtype != aval.dtype and np.can_cast(array.dtype, aval.dtype, "same_kind"):
                array = array.astype(aval.dtype)
            if array.shape != aval.shape or array.dtype != aval.dtype:
                found = f"{array.dtype.name}{list(array.shape)}"
                way = (
                    f"return it with .astype('{aval.dtype.name}')" if array.shape == aval.shape
                    else "declare that shape in result_shape_dtypes, or return the one declared"
                )  # fmt: skip
                raise TypeError(
                    f"{label} returned {found} for result{path}, where {aval.dtype.name}{list(aval.shape)} is "
                    f"declared: {way}"
                )
            arrays.append(array)
        return arrays


class PerLane:
    """A callback over a batch, called for one example after the other."""

    def __init__(self, function: Runnable, size: int, dims: Sequence[int | None]) -> None:
        self.function = function
        self.size = size
        self.dims = tuple(dims)

    def __repr__(self) -> str:
        return f"{self.function} for each of {self.size}"

    def run(self, arrays: Sequence[Any], avals: Sequence[ShapedArray]) -> list[Any]:
        lane_avals = [a.update(shape=a.shape[1:]) for a in avals]
        results = [np.empty(a.shape, a.dtype) for a in avals]
        for k in range(self.size):
            lane = [x if d is None else np.take(x, k, d) for x, d in zip(arrays, self.dims, strict=True)]
            for result, value in zip(results, self.function.run(lane, lane_avals), strict=True):
                result[k] = value
        return results


# the primitives -------------------------------------------------------------------------------------------------------


def _impl(*args: Any, function: Runnable, results: tuple[ShapedArray, ...], **params: Any) -> Any:
    return tuple(function.run([_typed(x) for x in args], results))


def _typed(x: Any) -> Any:
    return x if hasattr(x, "dtype") else aval_of(x).dtype.type(x)


def _shape(*avals: ShapedArray, results: tuple[ShapedArray, ...], **params: Any) -> Any:
    return results


def _grown(results: Sequence[ShapedArray], size: int) -> tuple[ShapedArray, ...]:
    return tuple([a.update(shape=(size, *a.shape)) for a in results])


def _each_lane(primitive: Primitive, size: int, args: Sequence[Any], dims: Sequence[int | None], **params: Any) -> Any:
    params["function"] = PerLane(params["function"], size, dims)
    params["results"] = _grown(params["results"], size)
    return primitive.bind(*args, **params), 0


def _pure_batch(size: int, args: Sequence[Any], dims: Sequence[int | None], **params: Any) -> Any:
    method = params["vmap_method"]
    if method is None:
        name = function_name(getattr(params["function"], "fun", params["function"]))
        raise NotImplementedError(
            f"vmap of pure_callback: how {name} takes a batch is not known. Pass vmap_method: 'sequential' calls it "
            "once for each example; with 'expand_dims' or 'broadcast_all' it gets arrays with a leading batch axis (of "
            "extent 1, or repeated, where an argument is not batched) and returns results with one."
        )
    if method.startswith("sequential"):
        return _each_lane(pure_callback_p, size, args, dims, **params)
    batched = []
    for x, d in zip(args, dims, strict=True):
        if d is not None:
            batched.append(moveaxis(x, d, 0))
        elif method == "expand_dims":
            batched.append(expand_dims(x, (0,)))
        elif method == "broadcast_all":
            shape = shape_of(x)
            batched.append(broadcast_in_dim(x, (size, *shape), range(1, len(shape) + 1)))
        else:
            batched.append(x)
    params["results"] = _grown(params["results"], size)
    return pure_callback_p.bind(*batched, **params), 0


def _io_batch(size: int, args: Sequence[Any], dims: Sequence[int | None], **params: Any) -> Any:
    if params["ordered"]:
        raise ValueError(
            "vmap of io_callback with ordered=True: the examples of a batch have no order among the other effects. "
            "Leave ordered out to call it for one example after the other, or write the loop with lax.scan."
        )
    return _each_lane(io_callback_p, size, args, dims, **params)


def _debug_batch(size: int, args: Sequence[Any], dims: Sequence[int | None], **params: Any) -> Any:
    return _each_lane(debug_callback_p, size, args, dims, **params)


_OPAQUE = (
    "it runs a Python function that cannot be looked into. Give its derivative with custom_jvp or custom_vjp around "
    "the call"
)


def _primitive(name: str, **rules: Any) -> Primitive:
    return Primitive(
        name,
        impl=_impl,
        shape=_shape,
        lower=Host("it calls a Python function of yours", pinned=True),
        multiple_results=True,
        **rules,
    )


_UNKNOWN = NotLinear("it runs a Python function that cannot be looked into")

pure_callback_p = _primitive("pure_callback", transpose=_UNKNOWN, jvp=NotDifferentiable(_OPAQUE), batch=_pure_batch)
io_callback_p = _primitive(
    "io_callback", transpose=_UNKNOWN, jvp=NotDifferentiable(_OPAQUE), batch=_io_batch, has_effect=True
)
debug_callback_p: Primitive = _primitive(
    "debug_callback",
    jvp=ZeroDerivative("it has no results"),
    transpose=lambda cts, *operands, **params: [None] * len(operands),  # of tangents it shows them on their way forward
    batch=_debug_batch,
    has_effect=True,
)


# for users ------------------------------------------------------------------------------------------------------------


def _declared(results: Any, what: str) -> tuple[tuple[ShapedArray, ...], tree.PyTreeDef]:
    leaves, out_tree = tree.flatten(results)
    avals = []
    for path, x in zip(tree.leaf_paths(out_tree), leaves, strict=True):
        try:
            shape, dtype = tuple(x.shape), np.dtype(x.dtype)
        except AttributeError:
            raise TypeError(
                f"{what}: result_shape_dtypes{path} must have a shape and a dtype, found {x!r}; write "
                "ShapeDtypeStruct(shape, dtype)"
            ) from None
        avals.append(ShapedArray(shape, dtype))
    return tuple(avals), out_tree


def _split(
    callback: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], what: str, any_leaf: bool
) -> tuple[list[Any], tree.PyTreeDef, dict[int, Any]]:
    """The leaves of the arguments that are arrays, their structure, and the other leaves (if there may be any)."""
    check_callable(callback, what)
    leaves, in_tree = tree.flatten((args, kwargs))
    arrays, fixed = [], {}
    for k, x in enumerate(leaves):
        try:
            aval_of(x)
            arrays.append(x)
        except TypeError as error:
            if not any_leaf:
                path = tree.leaves_with_path((args, kwargs))[k][0]
                name = f"argument {path[1].idx}" if path[0].idx == 0 else f"argument {path[1].key!r}"
                raise TypeError(f"{what}: {name}{tree.keystr(path[2:])} of the callback: {error}") from None
            fixed[k] = x
    return arrays, in_tree, fixed


def _bind(
    primitive: Primitive,
    callback: Callable[..., Any],
    result_shape_dtypes: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    **params: Any,
) -> Any:
    arrays, in_tree, fixed = _split(callback, args, kwargs, primitive.name, False)
    results, out_tree = _declared(result_shape_dtypes, primitive.name)
    function = Function(callback, primitive.name, in_tree, fixed, out_tree)
    outs = primitive.bind(*arrays, function=function, results=results, **params)
    return out_tree.unflatten(outs)


def bind_debug(callback: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], ordered: bool) -> None:
    """Call ``callback`` where the program comes by, for what it does; leaves that are no arrays are passed as they
    are."""
    arrays, in_tree, fixed = _split(callback, args, kwargs, "debug.callback", True)
    function = Function(callback, "debug.callback", in_tree, fixed, None)
    debug_callback_p.bind(*arrays, function=function, results=(), ordered=bool(ordered))


def pure_callback(
    callback: Callable[..., Any],
    result_shape_dtypes: Any,
    *args: Any,
    sharding: Any = None,
    vmap_method: str | None = None,
    vectorized: bool | None = None,
    **kwargs: Any,
) -> Any:
    """``callback(*args, **kwargs)``, a pure Python function, called from a traced or compiled program.

    Args:
        callback: takes NumPy arrays (NumPy scalars where 0-d), which it may keep and write to, and returns a pytree of
            arrays. It must be pure: it may be called any number of times, or not at all if its result is not used.
        result_shape_dtypes: what it returns, a pytree of things with ``shape`` and ``dtype``
            (`ShapeDtypeStruct`, arrays).
        args, kwargs: pytrees of arrays.
        sharding: accepted for JAX's sake.
        vmap_method: what `vmap` does. ``"sequential"``: one call for each example. ``"expand_dims"``,
            ``"broadcast_all"``: one call, with arrays that have a leading batch axis, of extent 1 or repeated where an
            argument is not batched; results have one too. ``"legacy_vectorized"``: arguments that are not batched come
            as they are. None: an error.
        vectorized: JAX's older form: True is ``"legacy_vectorized"``, False ``"sequential"``.

    Raises:
        TypeError: the callback returns another structure, shape or dtype than was declared.
        NonDifferentiableError: on differentiation. Give its derivative with ``custom_jvp`` or ``custom_vjp``.

    >>> import numpy as np
    >>> from funcgrad import ShapeDtypeStruct, jit
    >>> def median(x):  # any code: no tracing goes on in here
    ...     return float(sorted(x)[len(x) // 2])
    >>> @jit
    ... def centred(x):
    ...     return x - pure_callback(median, ShapeDtypeStruct((), x.dtype), x)
    >>> centred(np.array([5.0, 1.0, 2.0]))
    array([ 3., -1.,  0.])
    """
    if vectorized is not None:
        if vmap_method is not None:
            raise ValueError("pure_callback: vectorized is the older form of vmap_method; give vmap_method alone")
        vmap_method = "legacy_vectorized" if vectorized else "sequential"
    if vmap_method is not None and vmap_method not in VMAP_METHODS:
        raise ValueError(f"pure_callback: vmap_method must be None or one of {VMAP_METHODS}, found {vmap_method!r}")
    return _bind(pure_callback_p, callback, result_shape_dtypes, args, kwargs, vmap_method=vmap_method)


def io_callback(
    callback: Callable[..., Any],
    result_shape_dtypes: Any,
    *args: Any,
    sharding: Any = None,
    ordered: bool = False,
    **kwargs: Any,
) -> Any:
    """``callback(*args, **kwargs)``, which may do more than compute, called from a traced or compiled program.

    It is called exactly as often as the program comes by, also if its result is not used, and in the order in which
    effects are written. Under `vmap` it is called for one example after the other.

    Args:
        callback, result_shape_dtypes, args, kwargs, sharding: as in `pure_callback`. ``None`` declares no result.
        ordered: JAX's promise of an order, which always holds here; with it, `vmap` is an error.

    >>> import numpy as np
    >>> from funcgrad import ShapeDtypeStruct, jit
    >>> stream = iter([3.0, 4.0])
    >>> @jit
    ... def step(x):
    ...     return x * io_callback(lambda: next(stream), ShapeDtypeStruct((), x.dtype))
    >>> step(2.0), step(2.0)
    (np.float64(6.0), np.float64(8.0))
    """
    return _bind(io_callback_p, callback, result_shape_dtypes, args, kwargs, ordered=bool(ordered))
