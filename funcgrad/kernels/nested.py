"""Programs inside a program: the bodies of loops and the branches of conditionals.

Each is lowered by itself, with buffers and a memory plan of its own. In the program around it the whole loop is one
step, whose scratch memory holds the *frames* of its programs (a header and one address for each of their buffers),
their temporaries, and a second buffer for what a loop carries:

    frame of program 0 | frame of program 1 | ... | arena | second buffers | condition

An operand reaches an inner program by its address alone. A carried value alternates between the step's result and the
second buffer, so that nothing is copied from iteration to iteration; if the body can write it over the value that it
read, it stays where it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from ..core.jaxpr import ClosedJaxpr, Eqn, Jaxpr
from ..core.layout import Layout
from ..core.lowering import Branch, Scan, While
from ..record import field, record
from .assemble import Launch
from .fuse import form_groups
from .graph import INDEX, Call, Graph, GraphBuilder, Ref, build_graph
from .pipeline import build_steps
from .plan import ALIGNMENT, MemoryPlan, make_plan

__all__ = [
    "FRAME_HEADER",
    "Carried",
    "Control",
    "Moving",
    "Nested",
    "Registers",
    "lower_branch",
    "lower_scan",
    "lower_while",
]

FRAME_HEADER = 8
"""Words of a frame before its buffers' addresses."""


@record(eq=False)
class Nested:
    """An inner program. ``fixed`` says which of its buffers (inputs, then outputs) stay in one place: those of
    operand ``k`` of the step around it, or of result ``-1 - k``. ``frame`` and ``arena`` are offsets in the scratch
    memory."""

    closed: ClosedJaxpr
    graph: Graph
    steps: list[Launch | Call]
    plan: MemoryPlan
    fixed: list[tuple[int, int]] = field(default_factory=list)
    frame: int = 0
    arena: int = 0

    @property
    def frame_bytes(self) -> int:
        graph = self.graph
        buffers = len(graph.inputs) + len(graph.outputs) + len(graph.constants) + len(self.plan.offsets)
        return _rounded(8 * (FRAME_HEADER + buffers))


@record(frozen=True)
class Moving:
    """A buffer that moves through operand ``k`` or result ``-1 - k``, from byte ``first`` by ``step`` an iteration."""

    buffer: int
    of: int
    first: int
    step: int


@record(frozen=True)
class Carried:
    """A carried value: the buffers in which the body reads and writes it and the condition tests it (-1: there is no
    condition), the operand that it begins as, the result that it ends in, and the place of its second buffer in the
    scratch memory. ``in_place``: the body writes it over what it reads."""

    reads: int
    writes: int
    tests: int
    operand: int
    result: int
    nbytes: int
    second: int
    in_place: bool


@record(eq=False)
class Control:
    """What a step of control flow is made of: the body of a scan; condition and body of a while; the branches.

    ``length`` is the number of iterations, -1 where it depends on the condition, whose value lies in the scratch
    memory at ``condition``.
    """

    programs: list[Nested]
    scratch: int = 0
    carried: list[Carried] = field(default_factory=list)
    moving: list[Moving] = field(default_factory=list)
    length: int = -1
    condition: int = 0


@record(eq=False)
class Registers:
    """A loop that is one kernel. ``loop`` is the code generator's, with its ``source`` and ``constants``; ``places``
    are its operands (``k``, or ``-1 - k`` for a result), each with a first byte and a step; see ``Moving``."""

    loop: Any
    places: list[tuple[int, int, int]]
    length: int = -1


def _rounded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


_lowered: WeakKeyDictionary[Jaxpr, dict[Any, tuple[Graph, list[Launch | Call], MemoryPlan]]] = WeakKeyDictionary()


def _nest(b: GraphBuilder, closed: ClosedJaxpr, heirs: Mapping[int, int] | None = None) -> Nested:
    """Lower an inner program; ``heirs``: which outputs may be written over which inputs.

    It is done once for a body, which loops of any number of steps have in common (see ``core.intern``).
    """
    heirs = heirs or {}
    if closed.consts:
        return Nested(closed, *_lower(b, closed, heirs))
    known = _lowered.setdefault(closed.jaxpr, {})
    key = (type(b.backend), tuple(heirs.items()))
    if key not in known:
        known[key] = _lower(b, closed, heirs)
    return Nested(closed, *known[key])


def _lower(
    b: GraphBuilder, closed: ClosedJaxpr, heirs: Mapping[int, int]
) -> tuple[Graph, list[Launch | Call], MemoryPlan]:
    graph = build_graph(closed, b.rules, b.backend)
    steps = build_steps(graph, form_groups(graph))
    given = set(heirs.values())
    donated = [k in given for k in range(len(graph.inputs))]
    plan = make_plan(steps, graph.inputs, graph.outputs, [v for v, _ in graph.constants], donated, heirs)
    return graph, steps, plan


def _place(programs: Sequence[Nested], together: bool) -> int:
    """Give programs their places in the scratch memory, one after the other, and return its size so far.

    ``together``: only one of them runs, so they share one place.
    """
    at = size = 0
    for p in programs:
        if together:
            at = 0
        p.frame, p.arena = at, at + p.frame_bytes
        at = p.arena + _rounded(p.plan.arena_bytes)
        size = max(size, at)
    return size


def _carried(
    body: Nested, closed: ClosedJaxpr, counts: tuple[int, int, int], first_test: int | None, at: int
) -> tuple[list[Carried], int]:  # fmt: skip
    """The carried values and the scratch memory's size behind their second buffers.

    ``counts``: constants of the body, carried values, operands of the step before the carried ones.
    """
    n_consts, n_carry, n_before = counts
    outputs = len(body.graph.inputs)
    found = []
    for k in range(n_carry):
        nbytes = closed.out_avals[k].nbytes
        in_place = body.plan.donations.get(k) == n_consts + k
        tests = -1 if first_test is None else first_test + k
        found.append(Carried(n_consts + k, outputs + k, tests, n_before + k, k, nbytes, at, in_place))
        at += 0 if in_place else _rounded(nbytes)
    return found, at


def lower_scan(b: GraphBuilder, eqn: Eqn, lower: Scan, refs: list[Ref]) -> tuple[Ref, ...]:
    closed, length, reverse = (eqn.params[k] for k in ("jaxpr", "length", "reverse"))
    n_consts, n_carry = eqn.params["n_consts"], eqn.params["n_carry"]
    first_x = n_consts + n_carry
    operands = [b.contiguous(x) for x in refs[:first_x]] + [_sliceable(b, x) for x in refs[first_x:]]
    last = max(length - 1, 0) if reverse else 0
    loop = b.backend.register_loop(eqn)
    if loop is not None:
        return _in_registers(b, eqn, loop, operands, length, reverse)
    body = _nest(b, closed, {k: n_consts + k for k in range(n_carry)})
    body.fixed = [(k, k) for k in range(n_consts)]
    moving = []
    for k, x in enumerate(operands[first_x:], first_x):
        step, size = x.layout.strides[0], x.value.dtype.itemsize
        moving.append(Moving(k, k, (x.layout.offset + last * step) * size, -step * size if reverse else step * size))
    for k in range(n_carry, len(closed.out_avals)):
        step = closed.out_avals[k].nbytes
        moving.append(Moving(len(operands) + k, -1 - k, last * step, -step if reverse else step))
    carried, scratch = _carried(body, closed, (n_consts, n_carry, n_consts), None, _place([body], False))
    b.flops += length * body.graph.flops
    return b.call("scan", eqn, operands, Control([body], scratch, carried, moving, length), scratch=scratch)


def _sliceable(b: GraphBuilder, ref: Ref) -> Ref:
    """A ref in memory of which each row lies together; rows may have any distance."""
    rows = Layout(ref.layout.shape[1:], ref.layout.strides[1:])
    return ref if not ref.value.virtual and rows.is_contiguous() else b.copy(ref)


def _in_registers(
    b: GraphBuilder, eqn: Eqn, loop: Any, operands: list[Ref], length: int, reverse: bool
) -> tuple[Ref, ...]:  # fmt: skip
    places = []
    slices = eqn.params.get("n_consts", len(operands)) + eqn.params.get("n_carry", 0)
    for k in loop.operands:
        first = step = 0
        if k >= 0:
            value, layout = operands[k]
            first = layout.offset * value.dtype.itemsize
            step = layout.strides[0] * value.dtype.itemsize if k >= slices else 0
        elif -1 - k >= eqn.params.get("n_carry", len(eqn.outvars)):
            aval = eqn.outvars[-1 - k].aval
            step = aval.nbytes // max(length, 1)
        if reverse:
            first, step = first + max(length - 1, 0) * step, -step
        places.append((k, first, step))
    scratch = ALIGNMENT if loop.has_condition else 0
    return b.call("registers", eqn, operands, Registers(loop, places, length), scratch=scratch)


def lower_while(b: GraphBuilder, eqn: Eqn, lower: While, refs: list[Ref]) -> tuple[Ref, ...]:
    loop = b.backend.register_loop(eqn)
    if loop is not None:
        return _in_registers(b, eqn, loop, [b.contiguous(x) for x in refs], -1, False)
    n_cond, n_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    closed = eqn.params["body_jaxpr"]
    n_carry = len(closed.out_avals)
    condition = _nest(b, eqn.params["cond_jaxpr"])
    body = _nest(b, closed, {k: n_body + k for k in range(n_carry)})
    condition.fixed = [(k, k) for k in range(n_cond)]
    body.fixed = [(k, n_cond + k) for k in range(n_body)]
    place = _place([condition, body], False)
    counts = (n_body, n_carry, n_cond + n_body)
    carried, scratch = _carried(body, closed, counts, n_cond, place + ALIGNMENT)
    control = Control([condition, body], scratch, carried, condition=place)
    return b.call("while", eqn, [b.contiguous(x) for x in refs], control, scratch=scratch)


def lower_branch(b: GraphBuilder, eqn: Eqn, lower: Branch, refs: list[Ref]) -> tuple[Ref, ...]:
    index, *operands = refs
    if index.value.dtype != INDEX:
        index = b.map("convert", [index], INDEX, ())
    programs = [_nest(b, closed) for closed in eqn.params["branches"]]
    for p in programs:
        n = len(p.graph.inputs)
        p.fixed = [(k, 1 + k) for k in range(n)] + [(n + k, -1 - k) for k in range(len(p.graph.outputs))]
    scratch = _place(programs, True)
    b.flops += max([p.graph.flops for p in programs])
    inputs = [b.contiguous(x) for x in (index, *operands)]
    return b.call("branch", eqn, inputs, Control(programs, scratch), scratch=scratch)
