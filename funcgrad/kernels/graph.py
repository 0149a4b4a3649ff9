"""From a flat jaxpr to a graph of values: what is computed, seen through layouts.

A ``Value`` is an array that an operation defines, a ``Ref`` is a value seen through a layout of its row-major index
space. View operations make refs and no values. Axes of extent 1 are dropped, so that ``keepdims`` and its relatives
leave no trace. Whether a value ever lies in memory is decided later, group by group.

The kinds of values:

``input``    already in memory: an argument or constant of the program
``const``    one scalar
``map``      elementwise on its operands;  ``iota``: its own index
``padded``   operand 0 from the indices ``mode`` on, elsewhere operand 1
``window``   elements of operand 0 at computed places
``fold`` ``argfold``   over ``axes`` of its one operand;  ``scan``: the running fold along its axis
``array``    memory written by other values, its ``parts``
``put``      elements written at computed places of an ``array``
``step``     an output of a routine that is not generated: BLAS, library, host
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..core.avals import ShapedArray
from ..core.jaxpr import ClosedJaxpr, Eqn, Jaxpr, Literal, Var
from ..core.layout import Layout
from ..record import record

__all__ = ["Backend", "Call", "Graph", "Ref", "Value"]

HEAVY = frozenset(
    [
        "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
        "cosh", "tanh", "asinh", "acosh", "atanh", "logistic", "cbrt", "erf", "erfc", "erf_inv", "lgamma", "digamma",
        "polygamma", "pow", "atan2", "logaddexp", "logaddexp2", "floor_divide", "remainder", "fmod",
    ]
)  # fmt: skip
"""Scalar functions that are never computed twice for an element: they cost more than storing and loading it."""

WEIGHTS = {"div": 3, "sqrt": 3, "rsqrt": 4, "reciprocal": 3, "hypot": 6}
"""Costs, in additions, of the others that cost more than one."""

CHEAP_WEIGHT = 6
INLINED_KINDS = ("map", "padded", "window")
"""The values that can be computed on the spot where they are used."""
_PARAMS = {"integer_pow": ("y",)}
INDEX = np.dtype(np.int64)
ALONE = -1
"""The ``mode`` of a copy that gets a kernel of its own, so that it can be left out if its memory can be taken over."""


class Ref(NamedTuple):
    value: Value
    layout: Layout


class Value:
    """See the module's text. ``uses`` counts refs from other values, outputs and steps; ``group`` is the number of the
    group that defines the value, ``claimed`` of one that has it computed on the spot, ``consumers`` of its last
    reader. ``meeting`` is the nearest value through which everything made of this one passes. ``eqn`` is the equation
    that it comes from, None for the copy that makes a result an array of its own. ``whole`` values are too heavy to
    compute for each of the overlapping layouts that they are read through: see ``find_whole``. ``floor``: the number of
    the last barrier that the value stands behind, 0 for none. ``fenced`` values are read behind a barrier, from
    memory. ``walks`` go through the operands of a member of a group, over the domain of that group."""

    __slots__ = (
        "axes", "block", "call", "claimed", "consumers", "dtype", "eqn", "fenced", "floor", "fn", "group", "heavy",
        "home", "index", "kind", "meeting", "mode", "operands", "params", "parts", "readers", "shape", "stored",
        "uses", "walks", "weight", "whole",
    )  # fmt: skip

    def __init__(self, kind: str, shape: tuple[int, ...], dtype: np.dtype[Any], index: int) -> None:
        self.kind = kind
        self.shape = shape
        self.dtype = dtype
        self.index = index
        self.fn = ""
        self.params: tuple[tuple[str, Any], ...] = ()
        self.operands: tuple[Ref, ...] = ()
        self.axes: tuple[int, ...] = ()
        self.block: tuple[int, int] | None = None
        self.mode: Any = None
        self.home: Ref | None = None
        self.parts: list[Value] = []
        self.readers = 0
        self.call: Call | None = None
        self.eqn: Eqn | None = None
        self.uses = 0
        self.weight = 0
        self.heavy = False
        self.stored = False
        self.group = -1
        self.consumers = -1
        self.claimed = -1
        self.meeting: Value | None = None
        self.whole = False
        self.floor = 0
        self.fenced = False
        self.walks: Sequence[Any] = ()

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def virtual(self) -> bool:
        """Whether the value never lies in memory: it is made where it is used."""
        return self.kind in ("const", "iota")

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"{self.kind}{self.index}.{self.fn}:{self.dtype}{list(self.shape)}"


@record(eq=False)
class Call:
    """A routine of the runtime: ``kind`` is ``gemm``, ``conv``, ``host``, the name of a library's routine, ``scan``,
    ``while`` or ``branch``, which own programs (``data`` is then a ``nested.Control``), or ``registers``, a loop that
    is one kernel (``nested.Registers``). ``scratch`` is memory that it needs while it runs;
    ``overwrites`` pairs outputs with operands, by position, whose memory they may take over."""

    kind: str
    eqn: Eqn
    operands: tuple[Ref, ...]
    shapes: tuple[tuple[int, ...], ...]
    outputs: tuple[Value, ...] = ()
    data: Any = None
    scratch: Value | None = None
    overwrites: tuple[tuple[int, int], ...] = ()


@record(eq=False)
class Graph:
    """``order`` holds values and calls in an order of evaluation; ``outputs`` contiguous values, each its own."""

    inputs: list[Value]
    constants: list[tuple[Value, Any]]
    order: list[Value | Call]
    outputs: list[Value]
    flops: int = 0


def squeeze(layout: Layout) -> Layout:
    """Without its axes of extent 1."""
    if 1 not in layout.shape:
        return layout
    keep = [a for a, n in enumerate(layout.shape) if n != 1]
    return Layout(tuple([layout.shape[a] for a in keep]), tuple([layout.strides[a] for a in keep]), layout.offset)


class Backend(Protocol):
    """What the code generator can do."""

    def native(
        self, fn: str, sources: tuple[np.dtype[Any], ...], dtype: np.dtype[Any], params: tuple[tuple[str, Any], ...]
    ) -> bool:
        """Whether it knows a scalar function on operands of these dtypes."""

    def register_loop(self, eqn: Eqn) -> Any:
        """A loop as one kernel with everything in registers, or None."""


class GraphBuilder:
    """Reads equations one by one; ``emit_*`` are what the lowering rules are written with."""

    def __init__(self, backend: Backend, rules: dict[type, Callable[..., Any]]) -> None:
        self.backend = backend
        self.native = backend.native
        self.rules = rules
        self.constants: list[tuple[Value, Any]] = []
        self.order: list[Value | Call] = []
        self.env: dict[Var, Ref] = {}
        self.count = 0
        self.flops = 0
        self.once: set[Var] = set()
        """The variables that are read in one place only: by an equation, or as a result."""
        self.shared: set[int] = set()
        """The arrays, by index, that a variable stands for which is read in several places."""
        self.current: Eqn | None = None
        """The equation that is being lowered."""
        self.floor = 0
        """The last barrier that it stands behind."""
        self._barriers = 0
        self._floors: dict[Var, int] = {}
        self._scalars: dict[tuple[np.dtype[Any], bytes], Value] = {}

    def run(self, jaxpr: Jaxpr, inputs: Sequence[Ref]) -> list[Ref]:
        """The results of a jaxpr's equations, given its constants and inputs."""
        self.env.update(zip((*jaxpr.constvars, *jaxpr.invars), inputs, strict=True))
        counts = Counter([a for e in jaxpr.eqns for a in e.invars if type(a) is Var])
        counts.update([a for a in jaxpr.outvars if type(a) is Var])
        self.once.update([v for v, n in counts.items() if n == 1])
        self._note_shared(jaxpr.invars, inputs[len(jaxpr.constvars) :])
        expanded = self.current  # equations of an expansion count as the equation that is expanded
        outer = self.floor
        for eqn in jaxpr.eqns:
            self.current = expanded or eqn
            if self._floors:
                self.floor = max([outer, *[self._floors.get(a, 0) for a in eqn.invars if type(a) is Var]])
            lower = eqn.primitive.lower
            rule = self.rules.get(type(lower))
            if rule is None:
                raise NotImplementedError(f"{eqn.primitive} has the lowering {lower}, which kernels cannot express")
            results = rule(self, eqn, lower, [self.read(a) for a in eqn.invars])
            if type(results) is Ref:
                results = (results,)
            self.env.update(zip(eqn.outvars, results, strict=True))
            if self.floor:
                self._floors.update(dict.fromkeys(eqn.outvars, self.floor))
            self._note_shared(eqn.outvars, results)
        self.current, self.floor = expanded, outer
        return [self.read(a) for a in jaxpr.outvars]

    def _note_shared(self, variables: Sequence[Var], refs: Sequence[Ref]) -> None:
        for v, x in zip(variables, refs, strict=True):
            if x.value.kind == "array" and v not in self.once:
                self.shared.add(x.value.index)

    def barrier(self, refs: Sequence[Ref]) -> tuple[Ref, ...]:
        """The same values, for equations that stand behind a new barrier."""
        self._barriers += 1
        self.floor = self._barriers
        for ref in refs:
            ref.value.fenced = True
        return tuple(refs)

    # -- values

    def new(self, kind: str, shape: tuple[int, ...], dtype: np.dtype[Any], operands: Sequence[Ref] = ()) -> Value:
        value = Value(kind, shape, dtype, self.count)
        self.count += 1
        value.eqn = self.current
        value.floor = self.floor
        value.operands = tuple(operands)
        for ref in operands:
            ref.value.uses += 1
        if kind not in ("input", "const"):
            self.order.append(value)
        return value

    def whole(self, value: Value, shape: Sequence[int] | None = None) -> Ref:
        return Ref(value, Layout.contiguous(value.shape if shape is None else shape))

    def scalar(self, x: Any, dtype: np.dtype[Any]) -> Ref:
        number: Any
        if isinstance(x, np.generic) and x.dtype == dtype:
            number = x
        else:
            number = dtype.type(x) if type(x) is float and dtype.kind == "f" else np.asarray(x).astype(dtype)[()]
        key = (dtype, number.tobytes())
        value = self._scalars.get(key)
        if value is None:
            value = self._scalars[key] = self.new("const", (), dtype)
            value.mode = number
        return Ref(value, Layout((), ()))

    def read(self, atom: Any) -> Ref:
        if type(atom) is Literal:
            return self.scalar(atom.value, atom.aval.dtype)
        return self.env[atom]

    def map(
        self, fn: str, operands: Sequence[Ref], dtype: np.dtype[Any], shape: tuple[int, ...],
        params: tuple[tuple[str, Any], ...] = (),
    ) -> Ref:  # fmt: skip
        """Elementwise over ``shape``, to which the operands broadcast."""
        value = self.new("map", squeeze_shape(shape), dtype, [self.aligned(x, shape) for x in operands])
        value.fn = fn
        value.params = params
        value.heavy = fn in HEAVY
        value.weight = WEIGHTS.get(fn, 1)
        self.flops += value.size
        return self.whole(value, shape)

    def aligned(self, ref: Ref, shape: tuple[int, ...]) -> Ref:
        """``ref`` broadcast to ``shape`` as in NumPy, without axes of extent 1."""
        layout = ref.layout
        if layout.shape != shape:
            first = len(shape) - len(layout.shape)
            layout = layout.broadcast(shape, range(first, len(shape)))
        return Ref(ref.value, squeeze(layout))

    def copy(self, ref: Ref) -> Ref:
        """A value of its own with the elements of ``ref``."""
        return self.map("copy", [ref], ref.value.dtype, ref.layout.shape)

    def contiguous(self, ref: Ref) -> Ref:
        """``ref`` if it lies in memory row-major without gaps (it may begin anywhere), else a copy that does."""
        return ref if ref.layout.is_contiguous() and not ref.value.virtual else self.copy(ref)

    def host(self, eqn: Eqn, refs: Sequence[Ref]) -> tuple[Ref, ...]:
        """A step that runs the primitive's NumPy."""
        return self.call("host", eqn, [self.contiguous(x) for x in refs])

    def fill(self, x: Any, aval: ShapedArray) -> Ref:
        return self.map("copy", [self.scalar(x, aval.dtype)], aval.dtype, aval.shape)

    def view(self, ref: Ref, rule: Callable[[Layout], Layout | None]) -> Ref:
        layout = rule(ref.layout)
        if layout is None:
            ref = self.copy(ref)
            layout = rule(ref.layout)
            assert layout is not None, "a view of a contiguous array needs no copy"
        return Ref(ref.value, layout)

    def fold(self, kind: str, fn: str, ref: Ref, axes: Sequence[int], dtype: np.dtype[Any]) -> Value:
        """``fold`` or ``argfold`` over ``axes`` (of extent > 1) of a squeezed ref."""
        shape = ref.layout.shape
        value = self.new(kind, tuple([n for a, n in enumerate(shape) if a not in axes]), dtype, [ref])
        value.fn = fn
        value.axes = tuple(axes)
        self.flops += ref.layout.size
        return value

    def call(
        self, kind: str, eqn: Eqn, operands: Sequence[Ref], data: Any = None,
        shapes: Sequence[tuple[int, ...]] | None = None, scratch: int = 0,
        overwrites: Sequence[tuple[int, int]] = (),
    ) -> tuple[Ref, ...]:  # fmt: skip
        """A step that gives the equation's results, in memory of ``shapes`` if that is not their own; ``scratch``: the
        bytes it needs while it runs; ``overwrites``: see ``Call``."""
        if shapes is None:
            shapes = [v.aval.shape for v in eqn.outvars]
        call = Call(kind, eqn, tuple(operands), tuple([x.layout.shape for x in operands]), data=data)
        call.overwrites = tuple(overwrites)
        for ref in operands:
            ref.value.uses += 1
        self.order.append(call)
        outs = []
        for v, shape in zip(eqn.outvars, shapes, strict=True):
            value = Value("step", squeeze_shape(shape), v.aval.dtype, self.count)
            self.count += 1
            value.call = call
            value.eqn = self.current or eqn
            value.floor = self.floor
            outs.append(value)
        call.outputs = tuple(outs)
        if scratch:
            call.scratch = Value("step", (scratch,), np.dtype(np.uint8), self.count)
            self.count += 1
        return tuple([self.whole(x, shape) for x, shape in zip(outs, shapes, strict=True)])


def squeeze_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([n for n in shape if n != 1]) if 1 in shape else shape


def build_graph(closed: ClosedJaxpr, rules: dict[type, Callable[..., Any]], backend: Backend) -> Graph:
    """The values of a program; ``rules`` says per lowering type how an equation becomes values."""
    jaxpr = closed.jaxpr
    b = GraphBuilder(backend, rules)
    inputs, refs = [], []
    for v in jaxpr.invars:
        value = b.new("input", squeeze_shape(v.aval.shape), v.aval.dtype)
        inputs.append(value)
        refs.append(b.whole(value, v.aval.shape))
    constants = []
    for v, x in zip(jaxpr.constvars, closed.consts, strict=True):
        value = b.new("input", squeeze_shape(v.aval.shape), v.aval.dtype)
        b.constants.append((value, x))
        constants.append(b.whole(value, v.aval.shape))
    outputs, taken = [], set[int]()
    for ref in b.run(jaxpr, [*constants, *refs]):
        value = ref.value
        own = value.kind != "input" and not value.virtual and value.home is None and value.index not in taken
        if not own or ref.layout.offset or not ref.layout.is_contiguous() or ref.layout.size != value.size:
            value = b.copy(ref).value
        taken.add(value.index)
        value.uses += 1
        outputs.append(value)
    find_meetings(b.order, outputs)
    weigh(b.order)
    find_whole(b.order, outputs)
    return Graph(inputs, b.constants, b.order, outputs, b.flops)


def weigh(order: Sequence[Value | Call]) -> None:
    """Turn the cost of each value's own function into the cost of computing it again where it is used.

    Operands that will lie in memory add nothing: what is not cheap and shared, unless all that is made of it meets
    again (then it is computed along with that), and what is much smaller.
    """
    for value in order:
        if isinstance(value, Call) or value.kind not in INLINED_KINDS:
            continue
        for x, _ in value.operands:
            if x.kind not in INLINED_KINDS or 2 * x.size <= value.size:
                continue
            if x.uses == 1 or x.meeting is not None or (not x.heavy and x.weight <= CHEAP_WEIGHT):
                value.weight = min(value.weight + x.weight, 1000)
                value.heavy = value.heavy or x.heavy


def find_whole(order: Sequence[Value | Call], outputs: Sequence[Value]) -> None:
    """Set ``whole`` for costly values that are read through several layouts which overlap: ``y`` and its transpose, or
    its neighbours. Where they are read, another element is needed than the one at hand, so each layout would have to
    compute it anew. (Layouts that repeat elements are judged where they are used.)"""
    seen: dict[int, set[Layout]] = {}
    values: dict[int, Value] = {}

    def read(value: Value, layout: Layout) -> None:
        if value.uses < 2 or value.kind not in INLINED_KINDS or value.home is not None or 0 in layout.strides:
            return
        if value.heavy or value.weight > CHEAP_WEIGHT:
            layout = squeeze(layout)
            if layout.size == value.size and not layout.offset and layout.is_contiguous():
                layout = Layout.contiguous(value.shape)  # whatever its shape, element for element
            values[value.index] = value
            seen.setdefault(value.index, set()).add(layout)

    for item in order:
        for value, layout in item.operands:
            read(value, layout)
    for value in outputs:
        read(value, Layout.contiguous(value.shape))
    for index, layouts in seen.items():
        value = values[index]
        value.whole = len(layouts) > 1 and sum([x.size for x in layouts]) > value.size


_MEETING_STEPS = 24


def find_meetings(order: Sequence[Value | Call], outputs: Sequence[Value]) -> None:
    """Set ``meeting``: immediate post-dominators, sought a few steps far."""
    nowhere = Value("const", (), INDEX, 1 << 60)
    for value in outputs:
        value.meeting = nowhere
    for item in reversed(order):
        user = nowhere if isinstance(item, Call) else item
        for ref in item.operands:
            found = ref.value.meeting
            ref.value.meeting = user if found is None else _meet(found, user, nowhere)
    for item in order:
        if isinstance(item, Value) and item.meeting is nowhere:
            item.meeting = None


def _meet(a: Value, b: Value, nowhere: Value) -> Value:
    for _ in range(_MEETING_STEPS):
        if a is b:
            return a
        if a.index < b.index:
            a = a.meeting or nowhere
        else:
            b = b.meeting or nowhere
    return a if a is b else nowhere


def kept_params(fn: str, params: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The parameters that a scalar function's template reads."""
    return tuple([(k, params[k]) for k in _PARAMS.get(fn, ())])
