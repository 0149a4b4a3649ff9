"""Where a NaN was made: a program is run again, operation by operation, and gone through backwards from the result.

Only what reaches the result counts. From the value that is NaN the walk goes to an operand that is NaN, and on, to the
operation that made one of operands that are not (or to an argument that holds one already). An operation that owns a
program is entered, a loop at the step in which its carry or a result of its turned NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..control.cond import cond_p
from ..control.derived import silent
from ..control.loop import while_p
from ..control.scan import scan_p
from ..core.avals import aval_of
from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Var
from ..core.lowering import Call, Inline
from ..core.primitive import Primitive
from ..core.staging import stage
from ..core.trace import EVAL, STATE, Source, acts_for_source, evaluate
from ..record import record, replace

__all__ = ["Input", "Origin", "Test", "Walk", "find_origin", "summary"]

Test = Callable[[Any], Any]
"""Elementwise: which elements are meant (``np.isnan``)."""


@record(frozen=True, eq=False)
class Origin:
    """The operation that made a value that is meant, of operands that are not.

    ``source``: the user's line; ``source.backward``: what was done was its part in the backward pass. ``steps``: of the
    loops that it is in, from the outermost, each ``(what, step, line)``.
    """

    primitive: Primitive
    source: Source | None
    operands: tuple[Any, ...]
    result: Any
    steps: tuple[tuple[str, int, Source | None], ...] = ()


@record(frozen=True, eq=False)
class Input:
    """The value came from outside: input number ``index`` of the program, -1 for a captured array or a constant."""

    index: int
    value: Any
    steps: tuple[tuple[str, int, Source | None], ...] = ()


def _meant(test: Test, x: Any) -> bool:
    aval = aval_of(x)
    return aval.dtype.kind in "fc" and bool(np.any(test(x)))


class Walk:
    """Searches with one test for what is meant."""

    def __init__(self, test: Test) -> None:
        self.test = test

    def meant(self, x: Any) -> bool:
        return _meant(self.test, x)

    def program(self, closed: ClosedJaxpr, args: Sequence[Any]) -> Origin | Input | None:
        """The origin of the first result that is meant; None if there is none."""
        jaxpr = closed.jaxpr
        env, makers = self._run(closed, args)
        for a in jaxpr.outvars:
            if self.meant(env[a] if type(a) is Var else a.value):  # type: ignore[union-attr]
                break
        else:
            return None
        atom: Atom = a
        while type(atom) is Var and atom in makers:
            eqn = makers[atom]
            values = [env[x] if type(x) is Var else x.value for x in eqn.invars]  # type: ignore[union-attr]
            before = [x for x, value in zip(eqn.invars, values, strict=True) if self.meant(value)]
            if not before:
                return self.operation(eqn.primitive, values, eqn.params, env[atom], eqn.source)
            atom = before[0]
        index = jaxpr.invars.index(atom) if atom in jaxpr.invars else -1
        return Input(index, env[atom] if type(atom) is Var else atom.value)  # type: ignore[union-attr]

    def operation(
        self, primitive: Primitive, args: Sequence[Any], params: dict[str, Any], out: Any, source: Source | None
    ) -> Origin:
        """The origin of ``out``, one of the results of an operation none of whose operands is meant."""
        found: Origin | Input | None = None
        lower = primitive.lower
        if primitive is scan_p:
            found = self._scan(args, source, **params)
        elif primitive is while_p:
            found = self._while(args, source, **params)
        elif primitive is cond_p:
            branches = params["branches"]
            found = self.program(branches[min(max(int(args[0]), 0), len(branches) - 1)], args[1:])
        elif isinstance(lower, Call) and isinstance(params["jaxpr"], ClosedJaxpr):
            found = self.program(params["jaxpr"], args)
        elif isinstance(lower, Inline):
            found = self.program(_expansion(primitive, lower, args, params, source), args)
            if isinstance(found, Origin) and found.source is None:
                found = replace(found, source=source)
        if isinstance(found, Origin):
            return found
        return Origin(primitive, source, tuple(args), out)

    def _run(self, closed: ClosedJaxpr, args: Sequence[Any]) -> tuple[dict[Var, Any], dict[Var, Eqn]]:
        """The values of all variables, and the equation that makes each."""
        jaxpr = closed.jaxpr
        env: dict[Var, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *args), strict=True))
        makers: dict[Var, Eqn] = {}
        for eqn in jaxpr.eqns:
            values = [env[a] if type(a) is Var else _typed(a) for a in eqn.invars]
            env.update(zip(eqn.outvars, self._results(eqn, values), strict=True))
            makers.update(dict.fromkeys(eqn.outvars, eqn))
        return env, makers

    def _results(self, eqn: Eqn, values: Sequence[Any]) -> Sequence[Any]:
        if isinstance(eqn.primitive.lower, Call) and isinstance(eqn.params["jaxpr"], ClosedJaxpr):
            return self._call(eqn.params["jaxpr"], values)
        try:
            out = evaluate(eqn.primitive, tuple(values), eqn.params)
        except np.linalg.LinAlgError:  # where a compiled program gives NaN
            return [_unknown(v) for v in eqn.outvars]
        return list(out) if eqn.primitive.multiple_results else [out]

    def _call(self, closed: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
        env, _ = self._run(closed, args)
        return [env[a] if type(a) is Var else a.value for a in closed.jaxpr.outvars]  # type: ignore[union-attr]

    def _step(self, what: str, k: int, line: Source | None, closed: ClosedJaxpr, args: Sequence[Any]) -> Any:
        found = self.program(closed, args)
        return None if found is None else replace(found, steps=((what, k, line), *found.steps))

    def _scan(
        self,
        args: Sequence[Any],
        line: Source | None,
        *,
        jaxpr: ClosedJaxpr,
        length: int,
        reverse: bool,
        n_consts: int,
        n_carry: int,
        **_: Any,
    ) -> Any:
        consts, carry, xs = args[:n_consts], args[n_consts : n_consts + n_carry], args[n_consts + n_carry :]
        for k in reversed(range(length)) if reverse else range(length):
            inputs = [*consts, *carry, *[x[k] for x in xs]]
            outs = self._call(jaxpr, inputs)
            if any(map(self.meant, outs)):
                return self._step("scan", k, line, jaxpr, inputs)
            carry = outs[:n_carry]
        return None

    def _while(
        self,
        args: Sequence[Any],
        line: Source | None,
        *,
        cond_jaxpr: ClosedJaxpr,
        body_jaxpr: ClosedJaxpr,
        cond_nconsts: int,
        body_nconsts: int,
        **_: Any,
    ) -> Any:
        cond_consts, consts = args[:cond_nconsts], args[cond_nconsts : cond_nconsts + body_nconsts]
        carry, k = list(args[cond_nconsts + body_nconsts :]), 0
        while self._call(cond_jaxpr, [*cond_consts, *carry])[0]:
            outs = self._call(body_jaxpr, [*consts, *carry])
            if any(map(self.meant, outs)):
                return self._step("while loop", k, line, body_jaxpr, [*consts, *carry])
            carry, k = outs, k + 1
        return None


def _unknown(v: Var) -> Any:
    aval = v.aval
    return np.full(aval.shape, np.nan if aval.dtype.kind in "fc" else 0, aval.dtype)[()]


def _typed(a: Any) -> Any:
    return a.value if a.aval.weak_type else a.aval.dtype.type(a.value)


@acts_for_source
def _expansion(
    primitive: Primitive, lower: Inline, args: Sequence[Any], params: dict[str, Any], source: Source | None
) -> ClosedJaxpr:
    """What an operation at ``source`` is expanded to."""

    def expand(*xs: Any) -> list[Any]:
        out = lower.fun(*xs, **params)
        return list(out) if primitive.multiple_results else [out]

    asked = STATE.source
    STATE.source = source
    try:
        return stage(expand, [aval_of(x) for x in args], primitive.name)
    finally:
        STATE.source = asked


def find_origin(test: Test, closed: ClosedJaxpr, args: Sequence[Any]) -> Origin | Input | None:
    """Where the first result of a program on ``args`` that is meant comes from. Debug callbacks stay silent.

    Raises:
        ValueOfEffectError: an ``io_callback`` gives values, which cannot be had a second time.
    """
    saved = STATE.trace
    STATE.trace = EVAL
    try:
        with np.errstate(all="ignore"):
            return Walk(test).program(silent(closed), args)
    finally:
        STATE.trace = saved


def summary(x: Any) -> str:
    """Type and range of a value, in a line.

    >>> summary(np.array([1.0, np.nan, -np.inf]))
    'f64[3], from 1.0 to 1.0, 1 NaN, 1 infinite'
    """
    a = np.asarray(x)
    text = aval_of(x).short()
    if a.dtype.kind not in "biufc" or not a.size:
        return text
    if not a.ndim:
        return f"{text} = {a[()]}"
    with np.errstate(all="ignore"):
        finite = a[np.isfinite(a)]
        nans, infinite = int(np.isnan(a).sum()), int(np.isinf(a).sum())
    if a.dtype.kind == "c":
        text += f", magnitude up to {np.abs(finite).max()}" if finite.size else ""
    elif finite.size:
        text += f", from {finite.min()} to {finite.max()}"
    return text + (f", {nans} NaN" if nans else "") + (f", {infinite} infinite" if infinite else "")
