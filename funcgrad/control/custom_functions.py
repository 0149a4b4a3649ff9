"""``custom_jvp`` and ``custom_vjp``: functions with derivative rules of their own; ``custom_gradient``,
``closure_convert``.

Both kinds of object take both kinds of rule; they differ in name for JAX's sake, and in which rule they want at least.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from .. import tree
from ..core.avals import aval_of
from ..core.jaxpr import ClosedJaxpr, Jaxpr, eval_jaxpr
from ..core.staging import StageTrace, stage
from ..core.trace import EVAL, STATE, Trace, Tracer
from ..ops.elementwise import add
from ..transforms.batch import BatchTrace
from ..transforms.flat import FlatFunction, canonical_argnums, check_arguments, check_callable, function_name, wraps
from ..transforms.forward import tangent_zeros
from ..transforms.linear import TangentTracer
from .custom import Rules, Unstaged, custom_p
from .custom_rules import CustomCall, JVPRule, SymbolicZero, VJPRule, flat_rules
from .derived import closed_over

__all__ = ["closure_convert", "custom_gradient", "custom_jvp", "custom_vjp"]


def _must_stage(leaves: Sequence[Any]) -> bool:
    """Whether the function's program is wanted: where the values are concrete a rule may take its place."""
    if any([type(x) is TangentTracer for x in leaves]):
        return True
    trace: Trace | None = STATE.trace
    while trace is not None:
        if isinstance(trace, (BatchTrace, StageTrace)):
            return True
        trace = trace.parent
    return False


def _bind(call: CustomCall, operands: Sequence[Any], rules: Rules) -> Any:
    consts: Sequence[Any] = ()
    jaxpr: ClosedJaxpr | Unstaged = Unstaged(call.run, call.name)
    if _must_stage(operands):
        closed = stage(call.run, [aval_of(x) for x in operands], call.name)
        call.out_avals = closed.out_avals
        consts, jaxpr = closed.consts, closed_over(closed.consts, closed)
    outs = custom_p.bind(*consts, *operands, jaxpr=jaxpr, rules=rules, n_consts=len(consts), n_fixed=call.n_fixed)
    assert call.out_tree is not None
    return call.out_tree.unflatten(outs)


def _signature(fun: Callable[..., Any]) -> inspect.Signature | None:
    """The signature of ``fun``; some built-in functions have none."""
    try:
        return inspect.signature(fun)
    except (TypeError, ValueError):
        return None


def _positions(fun: Callable[..., Any], argnums: Any, argnames: Any, transform: str) -> tuple[int, ...]:
    """Positions of the non-differentiable arguments, negative ones as they are (they count from a call's end)."""
    numbers = list(argnums) if isinstance(argnums, (tuple, list)) else [argnums]
    for a in numbers:
        if not isinstance(a, int) or isinstance(a, bool):
            raise TypeError(f"{transform}: nondiff_argnums must be an integer or a tuple of them, found {argnums!r}")
    names = [argnames] if isinstance(argnames, str) else list(argnames)
    if names:
        signature = _signature(fun)
        if signature is None:
            raise TypeError(
                f"{transform}: {function_name(fun)} has no signature for nondiff_argnames; use nondiff_argnums"
            )
        parameters = list(signature.parameters)
        for name in names:
            if name not in parameters:
                raise ValueError(
                    f"{transform}: nondiff_argnames {name!r} is no argument of {function_name(fun)}, which has "
                    f"{', '.join(parameters)}"
                )
            numbers.append(parameters.index(name))
    return tuple(dict.fromkeys(numbers))


class _CustomFunction:
    """A function with rules. Called where nothing is traced, it is the function."""

    _kind = ""
    _how = ""

    def __init__(self, fun: Callable[..., Any], nondiff_argnums: Any = (), nondiff_argnames: Any = ()) -> None:
        check_callable(fun, self._kind)
        self.fun = fun
        self.nondiff_argnums = _positions(fun, nondiff_argnums, nondiff_argnames, self._kind)
        self._signature = _signature(fun)
        self._jvp_rule: JVPRule | None = None
        self._vjp_rule: VJPRule | None = None
        functools.update_wrapper(self, fun)
        self.__name__ = function_name(fun)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        return f"<{self._kind} of {self.__name__}>"

    def defjvp(self, jvp: Callable[..., Any], symbolic_zeros: bool = False) -> Callable[..., Any]:
        """Set the rule of forward mode, also for reverse mode if there is no ``defvjp``. May be used as a decorator.

        Args:
            jvp: ``jvp(*nondiff_args, primals, tangents)`` returns the pair ``(result, tangent of the result)``, the
                latter linear in ``tangents``, of the structure, shapes and dtypes of the result (``float0`` for
                integers). ``primals`` and ``tangents`` are tuples with an entry per differentiable argument.
            symbolic_zeros: tangents that are known to be zero are given as ``SymbolicZero``, not as arrays of zeros.
        """
        check_callable(jvp, "defjvp")
        self._jvp_rule = JVPRule(jvp, symbolic_zeros)
        return jvp

    def defjvps(self, *jvps: Callable[..., Any] | None) -> None:
        """Set the rule of forward mode argument by argument.

        Args:
            jvps: for each argument ``jvp(tangent, result, *args)``, the part of the result's tangent that comes from
                it, or None if it contributes nothing.

        >>> f = custom_jvp(lambda x, y: x * y)
        >>> f.defjvps(lambda t, out, x, y: t * y, None)
        >>> from funcgrad import grad
        >>> grad(f, (0, 1))(2.0, 3.0)
        (np.float64(3.0), np.float64(0.0))
        """
        for rule in jvps:
            if rule is not None:
                check_callable(rule, "defjvps")
        if self.nondiff_argnums:
            raise TypeError(f"{self.__name__} has non-differentiable arguments, for which defjvps has no place: defjvp")

        def jvp(primals: Any, tangents: Any) -> Any:
            if len(primals) != len(jvps):
                raise TypeError(
                    f"{self.__name__} was called with {len(primals)} arguments, but defjvps was given {len(jvps)} "
                    "rules; give one for each argument, or None"
                )
            out = self(*primals)
            total = tree.map(lambda o: SymbolicZero(aval_of(o)), out)
            for rule, t in zip(jvps, tangents, strict=True):
                leaves = tree.leaves(t)
                if rule is None or (leaves and all([isinstance(leaf, SymbolicZero) for leaf in leaves])):
                    continue
                full = tree.map(_instantiated, t)
                total = tree.map(_sum, total, rule(full, out, *primals))
            return out, total

        jvp.__name__ = f"defjvps of {self.__name__}"
        self._jvp_rule = JVPRule(jvp, symbolic_zeros=True)

    def defvjp(
        self,
        fwd: Callable[..., Any],
        bwd: Callable[..., Any],
        symbolic_zeros: bool = False,
        optimize_remat: bool = False,
    ) -> None:
        """Set the rule of reverse mode, also for forward mode if there is no ``defjvp``.

        Args:
            fwd: takes the function's arguments and returns the pair ``(result, residuals)``, residuals being a pytree
                of what ``bwd`` needs.
            bwd: ``bwd(*nondiff_args, residuals, ct)`` returns a tuple with a cotangent for each differentiable
                argument, of its structure, shapes and dtypes. None stands for any part that is zero.
            symbolic_zeros: ``fwd`` is given a ``CustomVJPPrimal`` for each array, which says whether it is perturbed,
                and ``bwd`` a ``SymbolicZero`` for each cotangent that is known to be zero.
            optimize_remat: accepted for JAX's sake.
        """
        check_callable(fwd, "defvjp (fwd)")
        check_callable(bwd, "defvjp (bwd)")
        self._vjp_rule = VJPRule(fwd, bwd, symbolic_zeros)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._jvp_rule is None and self._vjp_rule is None:
            raise AttributeError(f"{self._kind} {self.__name__} has no rule: {self._how}, before calling it")
        if STATE.trace is EVAL:
            return self.fun(*args, **kwargs)
        args = self._by_position(args, kwargs)
        nondiff = self._canonical(len(args))
        call = CustomCall(self.fun, args, nondiff)
        operands = call.operands(args)
        shown = [None if p in nondiff else x for p, x in enumerate(args)]
        try:
            check_arguments(self.fun, shown, {}, operands[call.n_fixed :], self._kind)
        except TypeError as error:
            raise TypeError(f"{error} Or name its argument in nondiff_argnums.") from None
        return _bind(call, operands, flat_rules(call, self._jvp_rule, self._vjp_rule))

    def _by_position(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Arguments as rules take them: by position, defaults included."""
        signature = self._signature
        if signature is None:
            if kwargs:
                raise TypeError(
                    f"{self.__name__} has no signature that would give its keyword arguments positions; pass them by "
                    "position"
                )
            return args
        bound = signature.bind(*args, **kwargs)
        by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
        given = [name for name in bound.arguments if signature.parameters[name].kind in by_name]
        if given:
            raise TypeError(
                f"{self._kind}: {self.__name__} takes {', '.join(given)} by keyword only, but rules take "
                "arguments by position; drop the * from its signature"
            )
        bound.apply_defaults()
        return bound.args

    def _canonical(self, n_args: int) -> tuple[int, ...]:
        if not self.nondiff_argnums:
            return ()
        why = "non-differentiable arguments are counted in the call, defaults included"
        found = canonical_argnums(self.nondiff_argnums, n_args, self._kind, "nondiff_argnums", why)
        return tuple(sorted(found))


def _instantiated(t: Any) -> Any:
    return tangent_zeros(t.aval) if isinstance(t, SymbolicZero) else t


def _sum(x: Any, y: Any) -> Any:
    return y if isinstance(x, SymbolicZero) else x if isinstance(y, SymbolicZero) else add(x, y)


class custom_jvp(_CustomFunction):
    """A function with a forward derivative of its own; reverse mode transposes it.

    Args:
        fun: a function of pytrees of arrays. The rules take all arguments by position.
        nondiff_argnums, nondiff_argnames: arguments that are not differentiated and may be anything, functions for
            instance; the JVP rule takes them first.

    Rules are set by ``defjvp`` or ``defjvps``, before the first call. With ``defvjp`` in addition reverse mode uses
    that. ``fun`` and the rules run on concrete values where there are some (``grad`` and ``jvp`` without ``jit`` or
    ``vmap``), so that they may branch on them.

    Raises:
        AttributeError: called without a rule.
        NonDifferentiableError: differentiated with respect to what ``fun`` closes over.
        TypeError: a rule returns something of the wrong structure, shape or dtype.

    >>> import numpy as np
    >>> import funcgrad as fg
    >>> @custom_jvp
    ... def log1pexp(x):
    ...     return np.log1p(np.exp(x))
    >>> @log1pexp.defjvp
    ... def log1pexp_jvp(primals, tangents):
    ...     (x,), (t,) = primals, tangents
    ...     return log1pexp(x), t * (1 - 1 / (1 + np.exp(x)))
    >>> fg.grad(log1pexp)(1000.0)
    np.float64(1.0)
    """

    _kind = "custom_jvp"
    _how = "set one with defjvp or defjvps"


class custom_vjp(_CustomFunction):
    """A function with a reverse derivative of its own; forward mode transposes that.

    Args:
        fun: a function of pytrees of arrays. The rules take all arguments by position.
        nondiff_argnums, nondiff_argnames: arguments that are not differentiated and may be anything, functions for
            instance; ``fwd`` takes them where ``fun`` does, ``bwd`` first.

    The rule is set by ``defvjp``, before the first call. With ``defjvp`` in addition forward mode uses that; without
    it, the tangent is pushed by the transpose of ``bwd``, which is an error if ``bwd`` is not linear in the cotangent.

    Raises:
        AttributeError: called without a rule.
        NonDifferentiableError: differentiated with respect to what ``fun`` closes over.
        TypeError: a rule returns something of the wrong structure, shape or dtype.

    >>> import numpy as np
    >>> import funcgrad as fg
    >>> @custom_vjp
    ... def clip_gradient(low, high, x):
    ...     return x
    >>> clip_gradient.defvjp(
    ...     lambda low, high, x: (x, (low, high)), lambda res, g: (None, None, np.clip(g, res[0], res[1]))
    ... )
    >>> fg.grad(lambda x: 100 * clip_gradient(-1.0, 1.0, x))(0.5)
    np.float64(1.0)
    """

    _kind = "custom_vjp"
    _how = "set one with defvjp"


class _Pullback:
    """A staged gradient function, as a residual that is no array."""

    __slots__ = ("jaxpr", "out_tree")

    def __init__(self, jaxpr: Jaxpr, out_tree: tree.PyTreeDef) -> None:
        self.jaxpr = jaxpr
        self.out_tree = out_tree


def custom_gradient(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns its value together with the function that pulls cotangents back.

    Args:
        fun: returns ``(result, grad_fun)``; ``grad_fun(ct)`` takes a cotangent of the structure of the result and
            returns a cotangent for each argument: a tuple of them, or, of a single argument, it alone. It may close
            over anything that ``fun`` computed.

    >>> from funcgrad import grad
    >>> f = custom_gradient(lambda x: (x**2, lambda g: g * x))
    >>> f(3.0), grad(f)(3.0)
    (9.0, np.float64(3.0))
    """
    check_callable(fun, "custom_gradient")

    def both(args: Sequence[Any]) -> tuple[Any, Callable[..., Any]]:
        out = fun(*args)
        if not isinstance(out, (tuple, list)) or len(out) != 2 or not callable(out[1]):
            raise TypeError(f"custom_gradient: {function_name(fun)} must return the pair (result, grad_fun)")
        return out[0], out[1]

    def value(*args: Any) -> Any:
        return both(args)[0]

    def fwd(*args: Any) -> Any:
        result, pull = both(args)
        leaves, out_tree = tree.flatten(result)
        flat = FlatFunction(pull, tree.structure(((out_tree.unflatten([0] * len(leaves)),), {})))
        closed = stage(flat, [aval_of(x).strong() for x in leaves], function_name(pull))
        return result, (list(closed.consts), _Pullback(closed.jaxpr, flat.out_tree))

    def bwd(res: Any, ct: Any) -> Any:
        consts, pullback = res
        pulled = pullback.out_tree.unflatten(eval_jaxpr(pullback.jaxpr, consts, *tree.leaves(ct)))
        return pulled if isinstance(pulled, (tuple, list)) else (pulled,)

    functools.update_wrapper(value, fun)
    custom = custom_vjp(value)
    custom.defvjp(fwd, bwd)

    @wraps(fun, "custom_gradient", "Returns the result alone.")
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return custom(*args, **kwargs)

    return wrapped


def closure_convert(fun: Callable[..., Any], *example_args: Any) -> tuple[Callable[..., Any], list[Any]]:
    """Make what a function captures arguments of it.

    A rule cannot differentiate with respect to values that a function argument closes over. Converted, these are
    ordinary arguments.

    Args:
        fun: a function of pytrees of arrays.
        example_args: arguments; only structure, shapes and dtypes matter.

    Returns:
        ``(converted, consts)``: the list of traced values that ``fun`` captures, and a function with
        ``converted(*args, *consts) == fun(*args)`` that captures none.

    >>> import funcgrad as fg
    >>> def root_of_scale(a):
    ...     converted, consts = closure_convert(lambda x: x * a, 1.0)
    ...     return converted(2.0, *consts)
    >>> fg.grad(root_of_scale)(3.0)
    np.float64(2.0)
    """
    check_callable(fun, "closure_convert")
    leaves, in_tree = tree.flatten((example_args, {}))
    check_arguments(fun, example_args, {}, leaves, "closure_convert", abstract=True)
    flat = FlatFunction(fun, in_tree)
    avals = [aval_of(x) for x in leaves]
    closed = stage(flat, avals, flat.__name__)
    out_tree, name, n_args = flat.out_tree, flat.__name__, len(example_args)
    traced = [isinstance(c, Tracer) for c in closed.consts]
    hoisted = [c for c, t in zip(closed.consts, traced, strict=True) if t]
    kept = [None if t else c for c, t in zip(closed.consts, traced, strict=True)]

    def converted(*args: Any) -> Any:
        if len(args) != n_args + len(hoisted):
            raise TypeError(
                f"closure_convert: the converted {name} takes {n_args} argument(s) and {len(hoisted)} captured "
                f"value(s), found {len(args)} in all; call it as converted(*args, *consts)"
            )
        xs, found_tree = tree.flatten((tuple(args[:n_args]), {}))
        if found_tree != in_tree:
            difference = tree.describe_difference(in_tree, found_tree)
            raise TypeError(
                f"closure_convert: arguments of {name} must have the structure of the example: {difference}"
            )
        for path, x, a in zip(tree.leaf_paths(in_tree), xs, avals, strict=True):
            b = aval_of(x)
            if b.shape != a.shape or (b.dtype != a.dtype and not b.weak_type):
                raise TypeError(
                    f"closure_convert: {name} was converted for {a.short()} at args{path[3:]}, and is called with "
                    f"{b.short()}; convert it with an example of that type"
                )
        rest = iter(args[n_args:])
        consts = [next(rest) if t else c for t, c in zip(traced, kept, strict=True)]
        return out_tree.unflatten(eval_jaxpr(closed.jaxpr, consts, *xs))

    converted.__name__ = name
    return converted, hoisted
