"""``checkify``: a function whose checks are values. An interpreter of jaxprs.

Each equation is run as it is; a check, or what an operation is checked for, adds a *site* to the program and changes
its *code*: the number of the first site that has failed. What a site's message needs is kept beside it. A program
inside an equation is rewritten into one that returns its own code and payload with its results; what comes of it is
joined to what is known. A loop carries code and payload of its first failure, and a while loop ends with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .. import tree
from ..core.avals import ShapedArray, aval_of
from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Var, subjaxprs
from ..core.lowering import Call, Inline
from ..core.primitive import Primitive
from ..core.staging import stage
from ..core.trace import STATE, acts_for_source
from ..ops.create import instantiate_zeros
from ..ops.elementwise import add, bitwise_and, convert_element_type, eq, gt, select
from ..ops.reduce import argmax
from ..ops.structural import broadcast_in_dim, reshape, shape_of
from ..transforms.derive import quiet
from ..transforms.flat import FlatFunction, check_arguments, check_callable, own_all, wraps
from .batched_effects import set_extraction
from .call import jit_p
from .check import CODE, Error, Site, check_p
from .check_rules import KINDS, Found, picked
from .checkpoint import checkpoint_p
from .cond import cond_p
from .cond_programs import unified
from .custom import custom_p, with_leading_results
from .derived import call_jaxpr, closed_over, per_jaxpr, per_jaxprs, without_constants
from .loop import while_p
from .scan import scan_p

__all__ = ["checkify"]

Errors = frozenset[str]


class _Checks:
    """The state of a straight line: its sites, the code, and the payload, whose parts are in the order of the sites."""

    def __init__(self) -> None:
        self.sites: list[Site] = []
        self.code: Any = None
        self.payload: list[Any] = []

    def join(self, code: Any, payload: Sequence[Any], sites: Sequence[Site]) -> None:
        """Add what another program found, which happened after all that is here."""
        offset = len(self.sites)
        self.sites += sites
        self.payload += payload
        if self.code is None:
            self.code = code
            return
        moved = select(gt(code, CODE.type(0)), add(code, CODE.type(offset)), CODE.type(0))
        self.code = select(eq(self.code, CODE.type(0)), moved, self.code)

    def leaves(self) -> list[Any]:
        return [] if self.code is None else [self.code, *self.payload]


def _payload_avals(sites: Sequence[Site]) -> list[ShapedArray]:
    return [a for s in sites for a in s.avals]


def _state_avals(sites: Sequence[Site]) -> list[ShapedArray]:
    return [ShapedArray((), CODE), *_payload_avals(sites)]


def _first(old: Sequence[Any], new: Sequence[Any]) -> list[Any]:
    """Of two states of the same sites the one that failed, the old one if both did."""
    fresh = eq(old[0], CODE.type(0))
    return [_chosen(fresh, y, x) for x, y in zip(old, new, strict=True)]


def _chosen(flag: Any, x: Any, y: Any) -> Any:
    shape = shape_of(x)
    return select(broadcast_in_dim(flag, shape, ()) if shape else flag, x, y)


# straight lines -------------------------------------------------------------------------------------------------------


@acts_for_source
def _run(closed: ClosedJaxpr, args: Sequence[Any], errors: Errors, checks: _Checks) -> list[Any]:
    """The results of a program in the current trace; what it is checked for is joined to ``checks``."""
    jaxpr = closed.jaxpr
    env: dict[Var, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *args), strict=True))

    def read(a: Atom) -> Any:
        return env[a] if type(a) is Var else a.value  # type: ignore[union-attr]

    asked = STATE.source
    try:
        for eqn in jaxpr.eqns:
            STATE.source = eqn.source or asked
            outs = _equation(eqn, [read(a) for a in eqn.invars], errors, checks)
            env.update(zip(eqn.outvars, outs, strict=True))
    finally:
        STATE.source = asked
    return [read(a) for a in jaxpr.outvars]


def _equation(eqn: Eqn, args: Sequence[Any], errors: Errors, checks: _Checks) -> Sequence[Any]:
    primitive, params = eqn.primitive, eqn.params
    if primitive is check_p:
        if "user" in errors:
            _user_check(args[0], args[1:], params["sites"], checks)
        return ()
    rule = _RULES.get(primitive)
    if rule is not None:
        return rule(args, params, errors, checks)
    lower = primitive.lower
    if subjaxprs(params) and _owns_checks(eqn):
        if isinstance(lower, Call) and isinstance(params.get("jaxpr"), ClosedJaxpr):
            return _run(params["jaxpr"], args, errors, checks)
        if isinstance(lower, Inline):
            expanded = stage(_results_of(lower.fun, eqn), [aval_of(x) for x in args], primitive.name)
            return _run(expanded, args, errors, checks)
    found = Found(eqn, args, errors)
    for x in found.before():
        checks.join(*x)
    out = primitive.bind(*args, **params)
    outs = out if primitive.multiple_results else (out,)
    for x in found.after(outs):
        checks.join(*x)
    return outs


def _results_of(fun: Callable[..., Any], eqn: Eqn) -> Callable[..., list[Any]]:
    def expand(*xs: Any) -> list[Any]:
        out = fun(*xs, **eqn.params)
        return list(out) if eqn.primitive.multiple_results else [out]

    return expand


def _owns_checks(eqn: Eqn) -> bool:
    return eqn.primitive is check_p or any([_owns_checks(e) for j in subjaxprs(eqn.params) for e in j.eqns])


def _user_check(code: Any, payload: Sequence[Any], sites: tuple[Site, ...], checks: _Checks) -> None:
    batch = shape_of(code)
    if not batch:
        checks.join(code, payload, sites)
        return
    n = aval_of(code).size
    if not n:
        return
    flat = reshape(code, (n,))
    lane = argmax(gt(flat, CODE.type(0)), 0)
    rows = [picked(reshape(x, (n, *shape_of(x)[len(batch) :])), lane) for x in payload]
    mapped = [_Mapped(s, batch) for s in sites]
    parts: list[Any] = []
    rest = iter(rows)
    for s in sites:
        parts += [lane, *[next(rest) for _ in s.avals]]
    checks.join(picked(flat, lane), parts, mapped)


class _Mapped(Site):
    """A check over a batch: its payload begins with the number of the example."""

    def __init__(self, site: Site, batch: tuple[int, ...]) -> None:
        def text(lane: Any, *values: Any) -> str:
            index = [] if not batch else [int(lane) // _below(batch, k) % n for k, n in enumerate(batch)]
            return f"at mapped index {', '.join(map(str, index))}: {site.text(*values)}"

        super().__init__(site.kind, text, [ShapedArray((), CODE), *site.avals], site.source)


def _below(batch: tuple[int, ...], k: int) -> int:
    size = 1
    for n in batch[k + 1 :]:
        size *= n
    return size


# programs inside equations --------------------------------------------------------------------------------------------


@per_jaxpr
def _checked(closed: ClosedJaxpr, errors: Errors) -> tuple[ClosedJaxpr, tuple[Site, ...]]:
    """``ins -> (code, payload, outs)`` and the sites; the program itself where there are none."""
    checks = _Checks()

    def fun(*args: Any) -> list[Any]:
        nonlocal checks
        checks = _Checks()
        outs = _run(closed, args, errors, checks)
        return [*checks.leaves(), *outs]

    derived = stage(fun, closed.in_avals, f"checkify({closed.jaxpr.name})")
    return (derived, tuple(checks.sites)) if checks.sites else (closed, ())


def _split(results: Sequence[Any], sites: Sequence[Site], checks: _Checks) -> list[Any]:
    """Join the state with which ``results`` begin; the rest of them."""
    if not sites:
        return list(results)
    n = len(_state_avals(sites))
    checks.join(results[0], results[1:n], sites)
    return list(results[n:])


def _call_rule(primitive: Primitive) -> Any:
    def rule(args: Sequence[Any], params: dict[str, Any], errors: Errors, checks: _Checks) -> Sequence[Any]:
        derived, sites = _checked(params["jaxpr"], errors)
        consts, jaxpr = derived.consts, derived
        if consts:
            jaxpr = closed_over(consts, derived)
        return _split(primitive.bind(*consts, *args, **{**params, "jaxpr": jaxpr}), sites, checks)

    return rule


def _custom(args: Sequence[Any], params: dict[str, Any], errors: Errors, checks: _Checks) -> Sequence[Any]:
    """The call keeps its derivative rules; what is checked has no part in them."""
    derived, sites = _checked(params["jaxpr"], errors)
    if not sites:
        return custom_p.bind(*args, **params)
    program = closed_over(derived.consts, derived)
    n_consts = len(derived.consts) + params["n_consts"]
    rules = with_leading_results(params["rules"], program, len(_state_avals(sites)), n_consts)
    counts = {"n_consts": 0, "n_fixed": n_consts + params["n_fixed"]}
    return _split(custom_p.bind(*derived.consts, *args, jaxpr=program, rules=rules, **counts), sites, checks)


def _cond(args: Sequence[Any], params: dict[str, Any], errors: Errors, checks: _Checks) -> Sequence[Any]:
    consts, branches, sites = _checked_branches(params["branches"], errors)
    return _split(cond_p.bind(args[0], *consts, *args[1:], branches=branches), sites, checks)


@per_jaxprs
def _checked_branches(branches: tuple[ClosedJaxpr, ...], errors: Errors) -> Any:
    """The branches, each with the states of all: its own at its place."""
    found = [_checked(b, errors) for b in branches]
    sites = tuple([s for _, own in found for s in own])
    if not sites:
        return [], branches, ()
    programs = []
    before: list[Site] = []
    for closed, own in found:
        programs.append(_padded(closed, own, len(before), sites))
        before += own
    return *unified(programs), sites


def _padded(closed: ClosedJaxpr, own: Sequence[Site], offset: int, sites: Sequence[Site]) -> ClosedJaxpr:
    def fun(*args: Any) -> list[Any]:
        checks = _Checks()
        outs = _split(call_jaxpr(closed)(*args), own, checks)
        code = CODE.type(0) if checks.code is None else checks.code
        moved = select(gt(code, CODE.type(0)), add(code, CODE.type(offset)), CODE.type(0))
        zeros = [[instantiate_zeros(a) for a in s.avals] for s in sites]
        rest = iter(checks.payload)
        for k in range(offset, offset + len(own)):
            zeros[k] = [next(rest) for _ in zeros[k]]
        return [moved, *[x for group in zeros for x in group], *outs]

    return stage(fun, closed.in_avals, closed.jaxpr.name)


def _start(sites: Sequence[Site]) -> list[Any]:
    return [instantiate_zeros(a) for a in _state_avals(sites)] if sites else []


def _scan(args: Sequence[Any], params: dict[str, Any], errors: Errors, checks: _Checks) -> Sequence[Any]:
    n_consts, n_carry = params["n_consts"], params["n_carry"]
    extra, body, sites = _checked_step(params["jaxpr"], errors, n_consts)
    state = _start(sites)
    counts = {"n_consts": len(extra) + n_consts, "n_carry": len(state) + n_carry}
    operands = [*extra, *args[:n_consts], *state, *args[n_consts:]]
    return _split(scan_p.bind(*operands, **{**params, "jaxpr": body, **counts}), sites, checks)


@per_jaxpr
def _checked_step(closed: ClosedJaxpr, errors: Errors, n_consts: int) -> Any:
    """The body of a loop that carries a state in front of its carry; its constants and sites."""
    derived, sites = _checked(closed, errors)
    if not sites:
        return (), closed, ()
    states = _state_avals(sites)
    m = len(states)

    def step(*args: Any) -> list[Any]:
        consts, state, rest = args[:n_consts], args[n_consts : n_consts + m], args[n_consts + m :]
        results = call_jaxpr(derived)(*consts, *rest)
        return [*_first(state, results[:m]), *results[m:]]

    avals = closed.in_avals
    return *without_constants(stage(step, [*avals[:n_consts], *states, *avals[n_consts:]], closed.jaxpr.name)), sites


def _while(args: Sequence[Any], params: dict[str, Any], errors: Errors, checks: _Checks) -> Sequence[Any]:
    n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
    condition, body = params["cond_jaxpr"], params["body_jaxpr"]
    _, cond_sites = _checked(condition, errors)
    _, body_sites = _checked(body, errors)
    if not cond_sites and not body_sites:
        return while_p.bind(*args, **params)
    sites = (*cond_sites, *body_sites)
    cond_consts, consts, carry = args[:n_cond], args[n_cond : n_cond + n_body], args[n_cond + n_body :]
    extra, test, step = _checked_loop((condition, body), errors, n_cond, n_body)
    first = _Checks()
    (going,) = _split(call_jaxpr(_checked(condition, errors)[0])(*cond_consts, *carry), cond_sites, first)
    state = _start(sites)
    if cond_sites:
        state[: 1 + len(first.payload)] = [first.code, *first.payload]
    counts = {"cond_nconsts": 0, "body_nconsts": len(extra) + n_cond + n_body}
    changed = {**params, "cond_jaxpr": test, "body_jaxpr": step, **counts}
    outs = while_p.bind(*extra, *cond_consts, *consts, *state, going, *carry, **changed)
    results = _split(outs, sites, checks)
    return results[1:]


@per_jaxprs
def _checked_loop(programs: tuple[ClosedJaxpr, ...], errors: Errors, n_cond: int, n_body: int) -> Any:
    """Constants, condition and body of a loop that carries a state and whether it goes on, which the body finds out;
    it ends with the first failure."""
    condition, body = programs
    (cond_checked, cond_sites), (body_checked, body_sites) = _checked(condition, errors), _checked(body, errors)
    sites = (*cond_sites, *body_sites)
    states = _state_avals(sites)
    m, n = len(states), n_cond + n_body
    (flag,) = condition.out_avals

    def step(*args: Any) -> list[Any]:
        cond_consts, consts, state, carry = args[:n_cond], args[n_cond:n], args[n : n + m], args[n + m + 1 :]
        of_body, of_condition = _Checks(), _Checks()
        values = _split(call_jaxpr(body_checked)(*consts, *carry), body_sites, of_body)
        (going,) = _split(call_jaxpr(cond_checked)(*cond_consts, *values), cond_sites, of_condition)
        zero = CODE.type(0)
        code = zero if of_body.code is None else of_body.code
        code = select(gt(code, zero), add(code, CODE.type(len(cond_sites))), zero)
        if of_condition.code is not None:
            code = select(eq(code, zero), of_condition.code, code)
        return [*_first(state, [code, *of_condition.payload, *of_body.payload]), going, *values]

    avals = [*condition.in_avals[:n_cond], *body.in_avals[:n_body], *states, flag, *body.in_avals[n_body:]]
    extra, stepping = without_constants(stage(step, avals, body.jaxpr.name))
    test = stage(
        lambda *xs: [bitwise_and(xs[m], eq(xs[0], CODE.type(0)))], [*states, flag, *body.in_avals[n_body:]], "going"
    )
    return extra, test, stepping


_RULES: dict[Primitive, Callable[..., Sequence[Any]]] = {
    jit_p: _call_rule(jit_p),
    checkpoint_p: _call_rule(checkpoint_p),
    cond_p: _cond,
    custom_p: _custom,
    scan_p: _scan,
    while_p: _while,
}


def _extraction(primitive: Primitive, params: dict[str, Any]) -> Callable[..., Any] | None:
    """See ``control.batched_effects``."""
    if not any([_owns_checks(e) for j in subjaxprs(params) for e in j.eqns]):
        return None

    def run(*args: Any) -> Sequence[Any]:
        checks = _Checks()
        outs = _RULES[primitive](args, params, frozenset({"user"}), checks)
        check_p.bind(*checks.leaves(), sites=tuple(checks.sites))
        return outs

    return run


set_extraction(_extraction)


# for users ------------------------------------------------------------------------------------------------------------


def checkify(fun: Callable[..., Any], errors: Iterable[str] = frozenset({"user"})) -> Callable[..., Any]:
    """``fun``, which returns ``(error, result)``: an `Error` that says which check failed first, if one did.

    Args:
        fun: a function of pytrees of arrays.
        errors: what is checked: ``user_checks`` (what `check` says), ``nan_checks`` (no operation gives a NaN),
            ``index_checks`` (no index is out of bounds), ``div_checks`` (nothing is divided by zero), ``float_checks``
            (NaNs and divisions), ``automatic_checks`` (all but the user's), ``all_checks``; they are sets: join them
            with ``|``.

    Returns:
        A function with the signature of ``fun``. It can be jitted, batched and differentiated: the error is a pytree.
        The result is that of ``fun`` if there is no error; with one, a while loop in which it happened has ended.

    >>> import numpy as np
    >>> from funcgrad import checkify, jit
    >>> def f(x, i):
    ...     checkify.check(np.all(x > 0), "not positive: {}", x)
    ...     return np.log(x)[i]
    >>> checked = jit(checkify.checkify(f, errors=checkify.all_checks))
    >>> error, value = checked(np.array([1.0, 2.0]), 0)
    >>> error.get(), value
    (None, np.float64(0.0))
    >>> checked(np.array([1.0, 2.0]), 5)[0].get()
    'out-of-bounds indexing for array of shape (2,): index 5 is out of bounds for axis 0 with size 2, at ...'
    """
    check_callable(fun, "checkify")
    chosen = frozenset([errors] if isinstance(errors, str) else errors)
    if not chosen <= KINDS:
        raise ValueError(
            f"checkify: errors must be a set of checks such as checkify.user_checks | checkify.nan_checks, found "
            f"{errors!r}"
        )

    @wraps(fun, "checkify", "Takes the same arguments; returns an Error and the result.")
    def checked_fun(*args: Any, **kwargs: Any) -> Any:
        leaves, in_tree = tree.flatten((args, kwargs))
        check_arguments(fun, args, kwargs, leaves, "checkify")
        flat = FlatFunction(fun, in_tree)
        closed = stage(flat, [aval_of(x) for x in leaves], flat.__name__)
        checks = _Checks()
        with quiet():
            outs = _run(closed, leaves, chosen, checks)
        code = CODE.type(0) if checks.code is None else convert_element_type(checks.code, CODE)
        error = Error(code, checks.payload, tuple(checks.sites))
        return error, flat.out_tree.unflatten(own_all(outs, leaves))

    return checked_fun
