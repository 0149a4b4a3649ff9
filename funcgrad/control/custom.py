"""``custom_p``: a call of a function that brings derivative rules of its own.

Operands are ``(*consts, *fixed, *xs)``: what the function captures, traced values in its non-differentiable arguments,
and the arguments that the rules differentiate. ``rules`` holds the user's rules in flat form:

``jvp(fixed, xs, tangents) -> (outs, tangents of outs)``
``fwd(fixed, xs, perturbed) -> (outs, residuals, pull)`` with ``pull(residuals, cts) -> cotangents of xs``

A tangent or cotangent may be ``ZERO`` everywhere. Rules stay Python callables and run when a transformation asks for
them, on the values of the trace below: concrete ones in eager mode, so that they may branch on them. Forward mode
prefers ``jvp``, reverse mode ``fwd`` and ``pull``; each is derived from the other where it is missing. What both modes
share is ``linear_call_p``, a linear operation that is pushed forward by the one and pulled back by the other.

The function itself is staged where a trace batches or writes down (``jaxpr`` is then a ``ClosedJaxpr``); where all
values are concrete it is not (``Unstaged``), and under a derivative it does not even run: the rule gives its result.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.jaxpr import ClosedJaxpr, eval_jaxpr
from ..core.lowering import Call
from ..core.primitive import ZERO, Linear, NotLinear, Primitive
from ..core.snapshot import Snapshots
from ..core.staging import is_staging, stage
from ..core.trace import EVAL, STATE
from ..errors import ConcretizationError, FuncgradError, LeakedTracerError, NonDifferentiableError
from ..record import record
from ..transforms.batch import batch_subtrace, move_batch
from ..transforms.forward import tangent_zeros
from ..transforms.linear import LinearFunction, TangentTracer, linear_function, linearize_flat
from ..transforms.linearity import check_linear
from .derived import batched_jaxpr
from .linear_call import batched_pull, check_no_offset, linear_call_p

__all__ = ["Rules", "Unstaged", "custom_p", "no_captured_tracers", "with_leading_results"]

Values = Sequence[Any]


@contextmanager
def no_captured_tracers(what: str) -> Iterator[None]:
    """Say in an error about a leaked tracer that ``what`` captured it."""
    try:
        yield
    except LeakedTracerError as error:
        raise LeakedTracerError(
            f"{what} uses a traced value that it closes over and that belongs to the transformation being applied to "
            "the function. Custom rules say how to differentiate with respect to the arguments alone: make the value "
            f"an argument of the function, or apply funcgrad.closure_convert to what captures it. ({error})"
        ) from error


@record(frozen=True, eq=False)
class Rules:
    name: str
    jvp: Callable[[Values, Values, Values], tuple[Values, Values]] | None
    fwd: Callable[[Values, Values, Sequence[bool]], tuple[Values, Values, Callable[..., Values]]] | None

    def __repr__(self) -> str:
        given = [kind for kind, rule in (("jvp", self.jvp), ("vjp", self.fwd)) if rule is not None]
        return f"{self.name}({', '.join(given)})"


@record(frozen=True, eq=False)
class Unstaged:
    """A function that has not been traced: all values are concrete."""

    run: Callable[..., Sequence[Any]]
    name: str

    def __repr__(self) -> str:
        return self.name


def _call(jaxpr: ClosedJaxpr | Unstaged, args: Values) -> Sequence[Any]:
    if isinstance(jaxpr, Unstaged):
        return jaxpr.run(*args)
    return eval_jaxpr(jaxpr.jaxpr, jaxpr.consts, *args)


def _impl(*args: Any, jaxpr: ClosedJaxpr | Unstaged, rules: Rules, **_: Any) -> Sequence[Any]:
    if not isinstance(jaxpr, Unstaged):
        return _call(jaxpr, args)
    saved, STATE.trace = STATE.trace, EVAL
    try:
        with no_captured_tracers(rules.name):
            return jaxpr.run(*args)
    finally:
        STATE.trace = saved


def _shape(*avals: ShapedArray, jaxpr: ClosedJaxpr | Unstaged, **_: Any) -> Any:
    if isinstance(jaxpr, Unstaged):
        return tuple(stage(jaxpr.run, avals, jaxpr.name).out_avals)
    return tuple(jaxpr.out_avals)


def _operands(args: Values, rules: Rules, tangents: Values, n_consts: int, n_fixed: int) -> tuple[Values, Values]:
    """``(fixed, xs)``, where neither what is captured nor what is fixed may have a tangent."""
    for k, (x, t) in enumerate(zip(args[: n_consts + n_fixed], tangents, strict=False)):
        if t is not ZERO and aval_of(x).dtype.kind in "fc":
            what = "a value that the function closes over" if k < n_consts else "a non-differentiable argument"
            raise NonDifferentiableError(
                f"{rules.name} is differentiated with respect to {what} ({aval_of(x).short()}), for which its custom "
                "rules have no derivative. Pass it as a differentiable argument of the function, or apply "
                "lax.stop_gradient to it if its derivative is not wanted."
            )
    return args[n_consts : n_consts + n_fixed], args[n_consts + n_fixed :]


def _forward(
    primals: Values, tangents: Values, *, jaxpr: ClosedJaxpr | Unstaged, rules: Rules, n_consts: int, n_fixed: int
) -> Any:
    fixed, xs = _operands(primals, rules, tangents, n_consts, n_fixed)
    ts = tangents[n_consts + n_fixed :]
    if rules.jvp is not None and (rules.fwd is None or not is_staging()):
        return rules.jvp(fixed, xs, ts)
    # A program that is written down may be transposed later (a while loop's body is), for which the pull is kept.
    active = [t is not ZERO and aval_of(x).dtype.kind in "fc" for t, x in zip(ts, xs, strict=True)]
    outs, apply = _linearize_by_vjp(rules, fixed, xs, active)
    return outs, apply(*itertools.compress(ts, active))


def _jvp(primals: Values, tangents: Values, out: Any, **params: Any) -> Any:
    return _forward(primals, tangents, **params)[1]


def _linearize(
    nonzero: Sequence[bool],
    primals: Values,
    *,
    jaxpr: ClosedJaxpr | Unstaged,
    rules: Rules,
    n_consts: int,
    n_fixed: int,
) -> Any:
    marks = [True if nz else ZERO for nz in nonzero]
    fixed, xs = _operands(primals, rules, marks, n_consts, n_fixed)
    active = [nz and aval_of(x).dtype.kind in "fc" for nz, x in zip(nonzero, primals, strict=True)]
    by = _linearize_by_jvp if rules.fwd is None else _linearize_by_vjp
    outs, apply = by(rules, fixed, xs, active[n_consts + n_fixed :])
    used = list(itertools.compress(active, nonzero))
    return outs, lambda *tangents: apply(*itertools.compress(tangents, used))


def _linearize_by_jvp(rules: Rules, fixed: Values, xs: Values, active: Sequence[bool]) -> Any:
    outs: Values = ()

    def fun(*ts: Any) -> list[Any]:
        nonlocal outs
        outs, tangents = rules.jvp(fixed, xs, _spread(ts, active))  # type: ignore[misc]
        return list(tangents)

    function, tangents = linear_function(fun, [aval_of(x).strong() for x in itertools.compress(xs, active)])
    if any([type(o) is TangentTracer and o._trace is function.trace for o in outs]):
        return _linearize_together(rules, fixed, xs, active, function)
    for t, mine in zip(tangents, function.outs, strict=True):
        if mine is None and isinstance(t, (np.ndarray, np.generic, float, complex)) and _nonzero(t):
            raise TypeError(
                f"the JVP rule of {rules.name} returned a tangent that is not linear in the tangents it was given: it "
                "does not depend on them and is not zero. Multiply by the tangent, or return zeros."
            )
    used = {o for o in function.outs if o is not None}
    for node in reversed(function.tape):
        if used.isdisjoint(node.outs):
            continue
        used.update([node.args[k] for k in node.linear])
        if isinstance(node.primitive.transpose, NotLinear):
            raise NonDifferentiableError(
                f"the JVP rule of {rules.name} is not linear in the tangents: it applies {node.primitive} to them, so "
                "that reverse mode cannot transpose it. The tangent of the result is a sum of products of tangents "
                "with what depends on the primals alone."
            )
    try:
        check_no_offset(function)
    except FuncgradError as error:
        raise NonDifferentiableError(
            f"the JVP rule of {rules.name} is not linear in the tangents ({error}), which reverse mode would drop. The "
            "tangent of the result is a sum of products of tangents with what depends on the primals alone."
        ) from error
    return outs, lambda *ts: function.apply(list(ts))


def _linearize_together(
    rules: Rules, fixed: Values, xs: Values, active: Sequence[bool], recorded: LinearFunction
) -> Any:
    """As `_linearize_by_jvp`, where primals and tangents went together through a loop, a branch or a jitted function.

    What depends on the tangents is told apart by linearizing the rule in them, at zero.
    """
    n_outs = 0

    def fun(*ts: Any) -> list[Any]:
        nonlocal n_outs
        outs, tangents = rules.jvp(fixed, xs, _spread(ts, active))  # type: ignore[misc]
        n_outs = len(outs)
        return [*outs, *tangents]

    zeros = [tangent_zeros(aval_of(x).strong()) for x in itertools.compress(xs, active)]
    results, function = linearize_flat(fun, zeros, snapshots=Snapshots())
    if any([o is not None for o in function.outs[:n_outs]]):
        raise TypeError(
            f"the JVP rule of {rules.name} returned a primal result that depends on the tangents; the first of "
            "the pair that it returns is the value of the function, a function of the primals alone"
        )
    program, residuals = recorded.to_jaxpr()
    try:
        check_linear(program, [k >= len(residuals) for k in range(len(program.jaxpr.invars))], offsets=False)
    except FuncgradError as error:
        raise NonDifferentiableError(
            f"the JVP rule of {rules.name} is not linear in the tangents, so that reverse mode cannot transpose it: "
            f"{error}"
        ) from error
    return results[:n_outs], lambda *ts: function.apply(list(ts))[n_outs:]


def _nonzero(t: Any) -> bool:
    return bool(np.asarray(t).dtype.kind in "fc" and np.any(t))


def _spread(ts: Sequence[Any], active: Sequence[bool]) -> list[Any]:
    rest = iter(ts)
    return [next(rest) if a else ZERO for a in active]


def _linearize_by_vjp(rules: Rules, fixed: Values, xs: Values, active: Sequence[bool]) -> Any:
    outs, res, pull = rules.fwd(fixed, xs, active)  # type: ignore[misc]
    inexact = [aval_of(o).dtype.kind in "fc" for o in outs]
    avals = tuple([aval_of(o).strong() for o in itertools.compress(outs, inexact)])
    jvp, name = rules.jvp, rules.name
    kept = [*fixed, *xs] if jvp is not None else []
    n_fixed, n_kept = len(fixed), len(kept)

    def pulled(residuals: Values, cts: Values) -> list[Any]:
        return list(itertools.compress(pull(residuals[n_kept:], _spread(cts, inexact)), active))

    def pushed(residuals: Values, ts: Values) -> Any:
        if jvp is None:
            return _transposed_pull(name, pulled, residuals, ts, avals)
        _, tangents = jvp(residuals[:n_fixed], residuals[n_fixed:n_kept], _spread(ts, active))
        return list(itertools.compress(tangents, inexact))

    residuals = [*kept, *res]

    def apply(*ts: Any) -> list[Any]:
        results = linear_call_p.bind(
            *residuals, *ts, push=pushed, pull=pulled, n_res=len(residuals), out_avals=avals, name=name
        )
        return _spread(results, inexact)

    return outs, apply


def _transposed_pull(name: str, pull: Any, res: Values, ts: Values, out_avals: Sequence[ShapedArray]) -> list[Any]:
    """The JVP that a VJP rule implies: the transpose of its pull, which must be linear in the cotangent."""
    try:
        function, _ = linear_function(lambda *cts: pull(res, cts), out_avals)
        check_no_offset(function)
        return function.transpose(ts)
    except (LeakedTracerError, NonDifferentiableError):
        raise
    except FuncgradError as error:
        how = "branches on the cotangent" if isinstance(error, ConcretizationError) else "is not linear in it"
        raise _not_derivable(name, f"{how} ({error})") from error


def _not_derivable(name: str, reason: str) -> NonDifferentiableError:
    return NonDifferentiableError(
        f"{name} has a VJP rule and no JVP rule. Forward mode (jvp, jacfwd, hessian) then pushes tangents by the "
        f"transpose of the bwd function, which must be linear in the cotangent; but it {reason}. "
        f"Give the forward derivative too: {name}.defjvp(rule), with rule(primals, tangents) returning the pair "
        "(result, tangent of the result)."
    )


def _transpose(cts: Sequence[Any], *operands: Any, jaxpr: ClosedJaxpr | Unstaged, **_: Any) -> list[Any]:
    """Of a call in a function that is given to linear_transpose, the function's own operations are transposed."""
    linear = [type(x) is Linear for x in operands]

    def fun(*xs: Any) -> Sequence[Any]:
        rest = iter(xs)
        return _call(jaxpr, [next(rest) if is_l else x for is_l, x in zip(linear, operands, strict=True)])

    function = linear_function(fun, [x.aval for x in operands if type(x) is Linear])[0]
    return _spread(function.transpose(cts), linear)


def _batch(
    axis: tuple[int, Any],
    args: Values,
    dims: Sequence[int | None],
    *,
    jaxpr: ClosedJaxpr,
    rules: Rules,
    n_consts: int,
    n_fixed: int,
) -> Any:
    size, axis_name = axis
    derived, out_dims = batched_jaxpr(jaxpr, size, tuple(dims), axis_name)
    if any([d is not None for d in (*dims, *out_dims)]):
        # A rule's result may depend on the batch where the function's does not, so all results carry the axis.
        derived = _with_batch_in_front(derived, size, out_dims)
        out_dims = (0,) * len(out_dims)
    batched = _batched_rules(rules, size, axis_name, dims[n_consts:], out_dims, n_fixed)
    return custom_p.bind(*args, jaxpr=derived, rules=batched, n_consts=n_consts, n_fixed=n_fixed), out_dims


def _with_batch_in_front(closed: ClosedJaxpr, size: int, dims: Sequence[int | None]) -> ClosedJaxpr:
    if all([d == 0 for d in dims]):
        return closed

    def fun(*args: Any) -> list[Any]:
        return [move_batch(size, o, d, 0) for o, d in zip(_call(closed, args), dims, strict=True)]

    return stage(fun, closed.in_avals, closed.jaxpr.name)


def _batched_rules(
    rules: Rules, size: int, axis_name: Any, dims: Sequence[int | None], out_dims: Sequence[int | None], n_fixed: int
) -> Rules:
    name = f"vmap({rules.name})"
    jvp, fwd = rules.jvp, rules.fwd
    x_dims = dims[n_fixed:]

    def moved(x: Any, found: int | None, wanted: int | None) -> Any:
        if wanted is not None:
            return move_batch(size, x, found, wanted)
        if found is not None:
            raise ValueError(
                f"a rule of {rules.name} returned a result that depends on the vmapped axis {axis_name!r}, where the "
                "function's own result does not. Pass lax.axis_index as an argument, or make the result depend on it."
            )
        return x

    def batched_jvp(fixed: Values, xs: Values, tangents: Values) -> tuple[Values, Values]:
        assert jvp is not None
        present = [t is not ZERO for t in tangents]
        there: list[bool] = []

        def fun(*args: Any) -> list[Any]:
            nonlocal there
            ts = _spread(args[len(dims) :], present)
            outs, t_outs = jvp(args[:n_fixed], args[n_fixed : len(dims)], ts)
            there = [t is not ZERO for t in t_outs]
            return [*outs, *itertools.compress(t_outs, there)]

        with no_captured_tracers(f"the JVP rule of {rules.name}"):
            values, found = batch_subtrace(
                fun,
                size,
                [*fixed, *xs, *itertools.compress(tangents, present)],
                [*dims, *itertools.compress(x_dims, present)],
                axis_name,
            )
        wanted = [*out_dims, *itertools.compress(out_dims, there)]
        results = [moved(*triple) for triple in zip(values, found, wanted, strict=True)]
        return results[: len(out_dims)], _spread(results[len(out_dims) :], there)

    def batched_fwd(fixed: Values, xs: Values, perturbed: Sequence[bool]) -> tuple[Values, Values, Any]:
        assert fwd is not None
        n_outs = len(out_dims)
        pull: Any = None

        def fun(*args: Any) -> list[Any]:
            nonlocal pull
            outs, res, pull = fwd(args[:n_fixed], args[n_fixed:], perturbed)
            return [*outs, *res]

        with no_captured_tracers(f"the fwd function of {rules.name}"):
            values, found = batch_subtrace(fun, size, [*fixed, *xs], dims, axis_name)
        outs = [moved(*triple) for triple in zip(values, found, out_dims, strict=False)]
        res_dims = found[n_outs:]
        return outs, values[n_outs:], batched_pull(pull, size, axis_name, res_dims, out_dims, x_dims)

    return Rules(name, None if jvp is None else batched_jvp, None if fwd is None else batched_fwd)


def with_leading_results(rules: Rules, program: ClosedJaxpr, n_leading: int, n_consts: int) -> Rules:
    """Rules of ``program``, which gives ``n_leading`` results, without derivatives, before those of the function.

    Its fixed operands are ``n_consts`` that the function's rules do not know, then theirs.
    """
    jvp, fwd = rules.jvp, rules.fwd

    def leading(fixed: Values, xs: Values) -> list[Any]:
        return list(_call(program, [*fixed, *xs])[:n_leading])

    def leading_jvp(fixed: Values, xs: Values, tangents: Values) -> tuple[Values, Values]:
        assert jvp is not None
        outs, t_outs = jvp(fixed[n_consts:], xs, tangents)
        return [*leading(fixed, xs), *outs], [*[ZERO] * n_leading, *t_outs]

    def leading_fwd(fixed: Values, xs: Values, perturbed: Sequence[bool]) -> tuple[Values, Values, Any]:
        assert fwd is not None
        outs, res, pull = fwd(fixed[n_consts:], xs, perturbed)
        return [*leading(fixed, xs), *outs], res, lambda res, cts: pull(res, cts[n_leading:])

    return Rules(rules.name, None if jvp is None else leading_jvp, None if fwd is None else leading_fwd)


custom_p = Primitive(
    "custom_call",
    impl=_impl,
    shape=_shape,
    jvp=_jvp,
    transpose=_transpose,
    batch=_batch,
    lower=Call(),
    multiple_results=True,
    needs_axis=True,
    linearize=_linearize,
    forward=_forward,
)
