"""Loops and branches: their bodies are optimised like any program, and what need not be inside them moves out.

- What a loop computes from its constants alone is the same at every step: it is computed once, before.
- A carry that is never changed is a constant; a constant that is a number is written into the body.
- A result that repeats another, or an operand, is that.
- A scan of one step, and a branch whose index is known, are no control flow at all.

Values that cost no arithmetic (views, ``iota``, broadcast numbers) stay inside, where they cost no memory either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..control.cond import cond_p
from ..control.derived import per_jaxpr, without_constants
from ..control.loop import while_p
from ..control.scan import scan_p
from ..core.avals import aval_of
from ..core.intern import interned
from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Jaxpr, Literal, Var, has_effect, subjaxprs
from ..core.lowering import Generate, Host, View
from ..core.staging import stage
from ..ops.structural import broadcast_in_dim, expand_dims, reshape
from .rewrite import Substitution, rebuild

__all__ = ["simplify_control"]

Optimize = Callable[[ClosedJaxpr], ClosedJaxpr]


def simplify_control(closed: ClosedJaxpr, optimize: Optimize) -> ClosedJaxpr:
    """``optimize`` is the whole pipeline, for bodies."""
    if not any([eqn.primitive in (scan_p, while_p, cond_p) for eqn in closed.jaxpr.eqns]):
        return closed
    out = _Output(closed, optimize)
    for eqn in closed.jaxpr.eqns:
        eqn = out.substitute.eqn(eqn)
        rule = _RULES.get(eqn.primitive)
        if rule is None:
            out.eqns.append(eqn)
        else:
            rule(eqn, out)
    result = rebuild(closed, out.eqns, out.substitute)
    jaxpr = result.jaxpr
    return ClosedJaxpr(
        Jaxpr(tuple(out.constvars), jaxpr.invars, jaxpr.eqns, jaxpr.outvars, jaxpr.name), tuple(out.consts)
    )


class _Output:
    """The program as it is rewritten."""

    def __init__(self, closed: ClosedJaxpr, optimize: Optimize) -> None:
        self.substitute = Substitution()
        self.eqns: list[Eqn] = []
        self.constvars, self.consts = list(closed.jaxpr.constvars), list(closed.consts)
        self.optimize = optimize

    def constant(self, value: Any) -> Var:
        self.constvars.append(Var(aval_of(value)))
        self.consts.append(value)
        return self.constvars[-1]

    def copy(self, eqns: Sequence[Eqn], env: Substitution) -> None:
        """Equations of another program, with fresh variables: it may be used more than once."""
        for e in eqns:
            outvars = tuple([Var(v.aval) for v in e.outvars])
            self.eqns.append(Eqn(e.primitive, tuple([env(a) for a in e.invars]), e.params, outvars, e.source))
            env.update(zip(e.outvars, outvars, strict=True))

    def apply(self, fun: Callable[..., Any], *atoms: Atom) -> Atom:
        """A function of tracers, applied to values of the program."""
        staged = stage(lambda *xs: [fun(*xs)], [a.aval for a in atoms])
        env = Substitution(zip(staged.jaxpr.invars, atoms, strict=True))
        self.copy(staged.jaxpr.eqns, env)
        return env(staged.jaxpr.outvars[0])

    def inline(self, closed: ClosedJaxpr, atoms: Sequence[Atom]) -> list[Atom]:
        env = Substitution(zip(closed.jaxpr.invars, atoms, strict=True))
        self.copy(closed.jaxpr.eqns, env)
        return [env(a) for a in closed.jaxpr.outvars]

    def program(self, closed: ClosedJaxpr) -> tuple[list[Var], ClosedJaxpr]:
        """A body, optimised, with the constants that this made as leading operands."""
        values, jaxpr = _optimized(closed, self.optimize)
        return [self.constant(x) for x in values], jaxpr


@per_jaxpr
def _optimized(closed: ClosedJaxpr, optimize: Optimize) -> tuple[tuple[Any, ...], ClosedJaxpr]:
    return without_constants(optimize(closed))


# what both kinds of loops have ---------------------------------------------------------------------------------------


class _Loop:
    """A body under work: constants come first among its inputs, then the carry, then the rest."""

    def __init__(self, body: ClosedJaxpr, consts: Sequence[Atom]) -> None:
        jaxpr = body.jaxpr
        self.name = jaxpr.name
        self.constvars = list(jaxpr.invars[: len(consts)])
        self.consts: list[Atom] = list(consts)
        self.eqns: Sequence[Eqn] = jaxpr.eqns
        self.env = Substitution()
        self.results: set[Var] = set()

    def bind(self, v: Var, atom: Atom) -> None:
        """An input of the body that is the same value at every step."""
        self.constvars.append(v)
        self.consts.append(atom)

    def settle(self, out: _Output) -> None:
        """Write numbers into the body, unify equal constants, move what is invariant out."""
        first: dict[Atom, Var] = {}
        constvars: list[Var] = []
        consts: list[Atom] = []
        for v, a in zip(self.constvars, self.consts, strict=True):
            if isinstance(a, Literal):
                self.env[v] = a
            elif a in first:
                self.env[v] = first[a]
            else:
                first[a] = v
                constvars.append(v)
                consts.append(a)
        self.constvars, self.consts = constvars, consts
        self.eqns = [self.env.eqn(eqn) for eqn in self.eqns]
        self._hoist(out)

    def _hoist(self, out: _Output) -> None:
        invariant = set(self.constvars)
        moved: dict[Var, Eqn] = {}
        for eqn in self.eqns:
            if all([isinstance(a, Literal) or a in invariant for a in eqn.invars]) and _may_move(eqn):
                invariant.update(eqn.outvars)
                moved.update(dict.fromkeys(eqn.outvars, eqn))
        wanted = [eqn for eqn in dict.fromkeys(moved.values()) if _worth_moving(eqn)]
        needed: dict[Eqn, None] = {}
        for eqn in wanted:
            self._needed(eqn, moved, needed)
        env = Substitution(zip(self.constvars, self.consts, strict=True))
        out.copy([eqn for eqn in self.eqns if eqn in needed], env)
        gone = set(wanted)
        self.eqns = [eqn for eqn in self.eqns if eqn not in gone]
        read = {a for eqn in self.eqns for a in eqn.invars if type(a) is Var} | self.results
        for eqn in wanted:
            for v in eqn.outvars:
                if v in read:
                    self.bind(v, env(v))

    def _needed(self, eqn: Eqn, moved: dict[Var, Eqn], needed: dict[Eqn, None]) -> None:
        work = [eqn]
        while work:
            e = work.pop()
            if e not in needed:
                needed[e] = None
                work += [moved[a] for a in e.invars if type(a) is Var and a in moved]

    def closed(self, invars: Sequence[Var], outs: Sequence[Atom]) -> ClosedJaxpr:
        """The body with its constants in front of ``invars``."""
        outvars = tuple([self.env(a) for a in outs])
        return interned(ClosedJaxpr(Jaxpr((), (*self.constvars, *invars), tuple(self.eqns), outvars, self.name)))


def _may_move(eqn: Eqn) -> bool:
    """A loop without end, or a function of the user's, must not run where no step would have run it."""
    return not has_effect(eqn) and not _stays(eqn)


def _stays(eqn: Eqn) -> bool:
    lower = eqn.primitive.lower
    if eqn.primitive is while_p or (isinstance(lower, Host) and lower.pinned):
        return True
    return any([_stays(e) for j in subjaxprs(eqn.params) for e in j.eqns])


def _worth_moving(eqn: Eqn) -> bool:
    """It does arithmetic, and its result takes no more memory than its operands."""
    if isinstance(eqn.primitive.lower, (View, Generate)) or not any([type(a) is Var for a in eqn.invars]):
        return False
    return sum([v.aval.nbytes for v in eqn.outvars]) <= 2 * sum([a.aval.nbytes for a in eqn.invars]) + 64


# rules ---------------------------------------------------------------------------------------------------------------


def _scan(eqn: Eqn, out: _Output) -> None:
    params = eqn.params
    n_consts, n_carry, length = params["n_consts"], params["n_carry"], params["length"]
    extra, body = out.program(params["jaxpr"])
    consts = [*extra, *eqn.invars[:n_consts]]
    init, xs = eqn.invars[n_consts : n_consts + n_carry], eqn.invars[n_consts + n_carry :]
    if length == 1:
        slices = [out.apply(lambda x: reshape(x, x.shape[1:]), x) for x in xs]
        results = out.inline(body, [*consts, *init, *slices])
        results = [*results[:n_carry], *[out.apply(lambda y: expand_dims(y, (0,)), y) for y in results[n_carry:]]]
        _replace_all(out, eqn.outvars, results)
        return
    invars = body.jaxpr.invars[len(consts) :]
    carry_vars, x_vars = invars[:n_carry], invars[n_carry:]
    loop = _Loop(body, consts)
    carries: list[tuple[Var, Atom, Atom, Var]] = []
    for v, start, a, o in zip(carry_vars, init, body.jaxpr.outvars[:n_carry], eqn.outvars[:n_carry], strict=True):
        if a is v:
            loop.bind(v, start)
            out.substitute.replace(o, start)
        else:
            carries.append((v, start, a, o))
    slices_of: dict[Atom, Var] = {}
    kept_xs: list[tuple[Var, Atom]] = []
    for v, x in zip(x_vars, xs, strict=True):
        if x in slices_of:
            loop.env[v] = slices_of[x]
        else:
            slices_of[x] = v
            kept_xs.append((v, x))
    loop.results = {a for a in body.jaxpr.outvars if type(a) is Var}
    loop.settle(out)
    values = dict(zip(loop.constvars, loop.consts, strict=True))
    arrays = dict(kept_xs)
    ys: dict[Atom, Var] = {}
    for a, o in zip(body.jaxpr.outvars[n_carry:], eqn.outvars[n_carry:], strict=True):
        a = loop.env(a)
        if a in ys:
            out.substitute.replace(o, ys[a])
        elif a in arrays:
            out.substitute.replace(o, arrays[a])
        elif isinstance(a, Literal) or a in values:
            out.substitute.replace(o, out.apply(_repeated(length), values.get(a, a)))  # type: ignore[arg-type]
        else:
            ys[a] = o
    inner = loop.closed([*[v for v, *_ in carries], *[v for v, _ in kept_xs]], [*[a for *_, a, _ in carries], *ys])
    operands = (*loop.consts, *[start for _, start, _, _ in carries], *[x for _, x in kept_xs])
    counts = {"n_consts": len(loop.consts), "n_carry": len(carries)}
    outvars = (*[o for *_, o in carries], *ys.values())
    out.eqns.append(Eqn(scan_p, operands, {**params, "jaxpr": inner, **counts}, outvars, eqn.source))


def _repeated(length: int) -> Callable[[Any], Any]:
    return lambda x: broadcast_in_dim(x, (length, *x.shape), range(1, len(x.shape) + 1))


def _while(eqn: Eqn, out: _Output) -> None:
    params = eqn.params
    n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
    cond_extra, condition = out.program(params["cond_jaxpr"])
    extra, body = out.program(params["body_jaxpr"])
    cond_loop = _Loop(condition, [*cond_extra, *eqn.invars[:n_cond]])
    loop = _Loop(body, [*extra, *eqn.invars[n_cond : n_cond + n_body]])
    init = eqn.invars[n_cond + n_body :]
    cond_vars, carry_vars = condition.jaxpr.invars[len(cond_loop.consts) :], body.jaxpr.invars[len(loop.consts) :]
    carries = []
    for c, v, start, a, o in zip(cond_vars, carry_vars, init, body.jaxpr.outvars, eqn.outvars, strict=True):
        if a is v:
            cond_loop.bind(c, start)
            loop.bind(v, start)
            out.substitute.replace(o, start)
        else:
            carries.append((c, v, start, a, o))
    for part, jaxpr in ((cond_loop, condition.jaxpr), (loop, body.jaxpr)):
        part.results = {a for a in jaxpr.outvars if type(a) is Var}
        part.settle(out)
    changed = {
        "cond_jaxpr": cond_loop.closed([c for c, *_ in carries], condition.jaxpr.outvars),
        "body_jaxpr": loop.closed([v for _, v, *_ in carries], [a for *_, a, _ in carries]),
        "cond_nconsts": len(cond_loop.consts),
        "body_nconsts": len(loop.consts),
    }
    operands = (*cond_loop.consts, *loop.consts, *[start for _, _, start, _, _ in carries])
    out.eqns.append(Eqn(while_p, operands, changed, tuple([o for *_, o in carries]), eqn.source))


def _cond(eqn: Eqn, out: _Output) -> None:
    index, *operands = eqn.invars
    programs = [out.program(b) for b in eqn.params["branches"]]
    if isinstance(index, Literal):
        extra, chosen = programs[min(max(int(index.value), 0), len(programs) - 1)]
        _replace_all(out, eqn.outvars, out.inline(chosen, [*extra, *operands]))
        return
    first: dict[Atom, int] = {}
    kept = [k for k, a in enumerate(operands) if not isinstance(a, Literal) and first.setdefault(a, k) == k]
    leading = [v for extra, _ in programs for v in extra]
    branches = []
    start = 0
    for extra, closed in programs:
        jaxpr = closed.jaxpr
        own, ins = jaxpr.invars[: len(extra)], jaxpr.invars[len(extra) :]
        env = Substitution({ins[k]: a if isinstance(a, Literal) else ins[first[a]] for k, a in enumerate(operands)})
        others = [Var(v.aval) for v in leading]
        others[start : start + len(extra)] = own
        start += len(extra)
        invars = (*others, *[ins[k] for k in kept])
        eqns = tuple([env.eqn(e) for e in jaxpr.eqns])
        outvars = tuple([env(a) for a in jaxpr.outvars])
        branches.append(ClosedJaxpr(Jaxpr((), invars, eqns, outvars, jaxpr.name)))
    atoms = [*leading, *[operands[k] for k in kept]]
    keep = []
    for k, o in enumerate(eqn.outvars):
        same = _same_result([b.jaxpr.outvars[k] for b in branches], [b.jaxpr.invars for b in branches], atoms)
        if same is None:
            keep.append(k)
        else:
            out.substitute.replace(o, same)
    if not keep and not has_effect(eqn):
        return
    trimmed = [
        interned(ClosedJaxpr(Jaxpr((), j.invars, j.eqns, tuple([j.outvars[k] for k in keep]), j.name)))
        for j in [b.jaxpr for b in branches]
    ]
    left = tuple([eqn.outvars[k] for k in keep])
    out.eqns.append(Eqn(cond_p, (index, *atoms), {"branches": tuple(trimmed)}, left, eqn.source))


def _same_result(results: Sequence[Atom], inputs: Sequence[Sequence[Var]], atoms: Sequence[Atom]) -> Atom | None:
    """The operand that every branch returns, if there is one."""
    if not all([a in ins for a, ins in zip(results, inputs, strict=True)]):
        return None
    positions = {list(ins).index(a) for a, ins in zip(results, inputs, strict=True)}  # type: ignore[arg-type]
    return atoms[positions.pop()] if len(positions) == 1 else None


def _replace_all(out: _Output, outvars: Sequence[Var], results: Sequence[Atom]) -> None:
    for v, a in zip(outvars, results, strict=True):
        out.substitute.replace(v, a)


_RULES: dict[Any, Callable[[Eqn, _Output], None]] = {scan_p: _scan, while_p: _while, cond_p: _cond}
