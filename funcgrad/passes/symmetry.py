"""Sums over the two index axes of a symmetric or antisymmetric array are one sum.

What every pair of points contributes, as in forces between bodies, kernels of Gaussian processes or distances, is an
array ``A`` with ``A[j, i] = A[i, j]`` or ``-A[i, j]``: it is built from differences ``x[:, None] - x[None, :]``. Its
gradient sums ``A`` over the rows and over the columns. Here the sum over the earlier axis becomes one over the later
axis, up to its sign, so that one walk of ``A`` gives both and ``A`` itself need not be stored.

``swapped`` finds, for a value and two of its axes, another value (often itself) that it equals, up to the sign, with
these axes exchanged. That holds for every element including NaN and infinities, but zeros may have the other sign;
operations to which a zero's sign matters (division by it) only take operands that are ``exact``, with the same bits.
The terms of a sum stay, and are added in the other axis's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Literal, Var
from ..core.lowering import Reduce, Scalar
from ..ops.elementwise import sub_p
from .cse import eliminate_common_subexpressions, equation_key
from .rewrite import Substitution, rebuild

__all__ = ["share_symmetric_sums"]


class Twin(NamedTuple):
    """The value with two axes exchanged is ``atom``, or its negative; ``exact``: with the same bits."""

    atom: Atom
    negative: bool = False
    exact: bool = True


class Question(NamedTuple):
    """What is this value with axes p and q exchanged?"""

    atom: Var
    p: int
    q: int


_COMMUTE = frozenset(("add", "mul", "mul_no_nan", "max", "min", "eq", "ne", "and", "or", "xor"))
_TO_POSITIVE = frozenset(("square", "abs"))
_COMPARE = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))


def share_symmetric_sums(closed: ClosedJaxpr) -> ClosedJaxpr:
    """Reductions over an axis of values that are symmetric in it and a later axis become reductions over that one."""
    eqns = closed.jaxpr.eqns
    candidates = {i: pairs for i, e in enumerate(eqns) if (pairs := _candidates(e))}
    if not candidates:
        return closed
    program = _Program(eqns)
    made: list[Eqn] = []
    changed = False
    for i, eqn in enumerate(eqns):
        turned = _turned(program, eqn, candidates[i]) if i in candidates else None
        changed |= turned is not None
        made += turned or [eqn]
    return eliminate_common_subexpressions(rebuild(closed, made, Substitution())) if changed else closed


def _candidates(eqn: Eqn) -> list[tuple[int, int]]:
    """Pairs of a reduced axis and a later one that is kept and as long."""
    if not isinstance(eqn.primitive.lower, Reduce) or eqn.invars[0].aval.dtype.kind != "f":
        return []
    axes, shape = eqn.params["axes"], eqn.invars[0].aval.shape
    return [
        (p, q)
        for p in axes
        for q in reversed(range(p + 1, len(shape)))
        if q not in axes and shape[p] == shape[q] and shape[p] > 1
    ]


def _turned(program: _Program, eqn: Eqn, pairs: Sequence[tuple[int, int]]) -> list[Eqn] | None:
    """The equations that compute the same by the later axis."""
    operand = eqn.invars[0]
    axes = eqn.params["axes"]
    for p, q in pairs:
        # The result keeps q where it was: that is the place of p after the exchange if nothing kept lies between.
        if type(operand) is not Var or any(a not in axes for a in range(p + 1, q)):
            continue
        twin = program.swapped(Question(operand, p, q))
        if twin is None or (twin.negative and eqn.primitive.name != "reduce_sum"):
            continue
        params = {**eqn.params, "axes": tuple(sorted(q if a == p else a for a in axes))}
        if not twin.negative:
            return [Eqn(eqn.primitive, (twin.atom,), params, eqn.outvars, eqn.source)]
        total = Var(eqn.outvars[0].aval)
        zero = Literal(operand.aval.dtype.type(0))
        return [
            Eqn(eqn.primitive, (twin.atom,), params, (total,), eqn.source),
            Eqn(sub_p, (zero, total), {}, eqn.outvars, eqn.source),  # not neg: a sum of zeros is 0, not -0
        ]
    return None


class _Program:
    """The equations by what they define and by what they are, and the answers so far."""

    def __init__(self, eqns: Sequence[Eqn]) -> None:
        self.definitions: dict[Atom, Eqn] = {v: e for e in eqns for v in e.outvars}
        self.place: dict[Atom, int] = {v: i for i, e in enumerate(eqns) for v in e.outvars}
        self.values: dict[Any, Var] = {}
        self.transposes: dict[Any, Var] = {}
        self.answers: dict[Question, Twin | None] = {}
        for e in eqns:
            if len(e.outvars) != 1:
                continue
            try:
                self.values.setdefault(equation_key(e), e.outvars[0])
            except TypeError:  # parameters that cannot be hashed
                continue
            if e.primitive.name == "transpose":
                self.transposes[e.invars[0], tuple(e.params["permutation"])] = e.outvars[0]

    def swapped(self, question: Question) -> Twin | None:
        """Without recursion: what a value's answer rests on is answered first."""
        answers, todo = self.answers, [question]
        while todo:
            now = todo[-1]
            if now in answers:
                todo.pop()
                continue
            wanted = self._operands(now)
            missing = [w for w in wanted or () if type(w) is Question and w not in answers]
            if missing:
                todo += missing
                continue
            todo.pop()
            answers[now] = self._answer(now, wanted)
        twin = answers[question]
        # A twin from further on in the program is of no use where this value is reduced.
        return twin if twin is None or self._place(twin.atom) <= self._place(question.atom) else None

    def _place(self, atom: Atom) -> int:
        return self.place.get(atom, -1)

    def _operands(self, at: Question) -> list[Question | Twin | None] | None:
        """What has to be known of each operand; None: the equation is of no kind that passes symmetry on."""
        eqn = self.definitions.get(at.atom)
        if eqn is None:
            return None
        lower, name = eqn.primitive.lower, eqn.primitive.name
        if isinstance(lower, Scalar):
            rank = at.atom.aval.ndim
            return [self._ask(a, at.p - rank + a.aval.ndim, at.q - rank + a.aval.ndim) for a in eqn.invars]
        if isinstance(lower, Reduce):
            kept = [a for a in range(eqn.invars[0].aval.ndim) if a not in eqn.params["axes"]]
            return [self._ask(eqn.invars[0], kept[at.p], kept[at.q])]
        if name == "broadcast_in_dim":
            dimensions = list(eqn.params["dimensions"])
            p, q = (dimensions.index(a) if a in dimensions else -1 for a in (at.p, at.q))
            return [self._ask(eqn.invars[0], p, q)]
        if name == "reshape":
            return [self._ask(eqn.invars[0], *places)] if (places := _unit_reshape(eqn, at)) else None
        return None

    def _ask(self, atom: Atom, p: int, q: int) -> Question | Twin | None:
        """An axis below 0 is one the operand lacks: it has extent 1 there."""
        shape = atom.aval.shape
        lengths = [shape[a] if a >= 0 else 1 for a in (p, q)]
        if lengths == [1, 1]:
            return Twin(atom)
        if isinstance(atom, Literal) or min(p, q) < 0:
            return None
        return Question(atom, p, q)

    def _answer(self, at: Question, wanted: list[Question | Twin | None] | None) -> Twin | None:
        shape = list(range(at.atom.aval.ndim))
        shape[at.p], shape[at.q] = shape[at.q], shape[at.p]
        turned = self.transposes.get((at.atom, tuple(shape)))
        if turned is not None:
            return Twin(turned)
        eqn = self.definitions.get(at.atom)
        if eqn is None:
            return None
        moved = self._moved(eqn, at)
        if moved is not None:
            return Twin(moved)
        if wanted is None:
            return None
        twins = [self.answers[w] if type(w) is Question else w for w in wanted]
        known: list[Twin] = [t for t in twins if isinstance(t, Twin)]
        return self._combined(eqn, known) if len(known) == len(twins) else None

    def _moved(self, eqn: Eqn, at: Question) -> Var | Atom | None:
        """The exchanged value of an equation that only moves its operand, where it is there under another layout."""
        name, params = eqn.primitive.name, eqn.params
        if name == "transpose":
            permutation = list(params["permutation"])
            permutation[at.p], permutation[at.q] = permutation[at.q], permutation[at.p]
            if permutation == sorted(permutation):
                return eqn.invars[0]
            return self._find(eqn, eqn.invars, {"permutation": tuple(permutation)})
        if name == "reshape":
            shape = list(params["shape"])
            if shape[at.p] != 1 and shape[at.q] != 1:
                return None
            if any(n != 1 for n in shape[min(at.p, at.q) + 1 : max(at.p, at.q)]):
                return None
            shape[at.p], shape[at.q] = shape[at.q], shape[at.p]
            if tuple(shape) == eqn.invars[0].aval.shape:
                return eqn.invars[0]
            return self._find(eqn, eqn.invars, {"shape": tuple(shape)})
        if name == "broadcast_in_dim":
            other = {at.p: at.q, at.q: at.p}
            dimensions = tuple(other.get(d, d) for d in params["dimensions"])
            return self._find(eqn, eqn.invars, {**params, "dimensions": dimensions})
        return None

    def _find(self, eqn: Eqn, operands: Sequence[Atom], params: dict[str, Any]) -> Var | None:
        return self.values.get(equation_key(Eqn(eqn.primitive, tuple(operands), params, eqn.outvars)))

    def _combined(self, eqn: Eqn, twins: list[Twin]) -> Twin | None:
        """The twin of an equation from those of its operands."""
        name = eqn.primitive.name
        signs = _result_sign(eqn, twins)
        if signs is None:
            return None
        negative, exact = signs
        operands = [t.atom for t in twins]
        same = self._find(eqn, operands, eqn.params)
        if same is None and name in _COMMUTE:
            same = self._find(eqn, operands[::-1], eqn.params)
        if same is None and name == "sub":
            same, negative, exact = self._find(eqn, operands[::-1], eqn.params), not negative, False
        return None if same is None else Twin(same, negative, exact)


def _result_sign(eqn: Eqn, twins: list[Twin]) -> tuple[bool, bool] | None:
    """(negative, exact) of what the operation makes of its operands' twins; None: it is not determined."""
    name = eqn.primitive.name
    if all(t.exact and not t.negative for t in twins):
        return False, True
    signs = [t.negative for t in twins]
    if name == "abs" and eqn.invars[0].aval.dtype.kind == "u":
        return None  # the difference the other way round is no negative number
    if name in _TO_POSITIVE or (name == "mul" and eqn.invars[0] is eqn.invars[1]):
        return False, True
    if name in ("mul", "mul_no_nan"):
        return signs[0] ^ signs[1], False
    if name in ("reshape", "broadcast_in_dim"):
        return signs[0], twins[0].exact
    if name in ("neg", "add", "sub", "reduce_sum"):
        return (signs[0], False) if len(set(signs)) == 1 else None
    if name in _COMPARE:
        return (False, True) if not any(signs) else None
    if name == "div":
        return (signs[0], False) if twins[1].exact and not signs[1] else None
    if name == "select":
        return (signs[1], False) if signs[1] == signs[2] and twins[0].exact else None
    return None


def _unit_reshape(eqn: Eqn, at: Question) -> tuple[int, int] | None:
    """Where axes p and q are in the operand of a reshape that only adds or drops axes of extent 1."""
    before, after = eqn.invars[0].aval.shape, eqn.params["shape"]
    if [n for n in before if n != 1] != [n for n in after if n != 1] or after[at.p] == 1 or after[at.q] == 1:
        return None
    places = [a for a, n in enumerate(before) if n != 1]
    p, q = (places[sum(n != 1 for n in after[:a])] for a in (at.p, at.q))
    return p, q
