"""``explain``: what became of a function under ``jit``, and why.

Which equations share a kernel, and what kept others apart; which steps are library or host steps; what is moved,
computed, written in place; how long each step should take on this machine, and how long it does take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import tree
from .calibrate import Machine, machine
from .compiler import Stages, build, threads_of
from .core.avals import ShapeDtypeStruct, aval_of
from .core.jaxpr import ClosedJaxpr, Eqn, Var, has_effect
from .core.lowering import Host, Library, Scan, While
from .core.printer import format_equations
from .explain_report import Boundary, Equation, ExplainedProgram, ExplainedStep, Explanation
from .jit import Compiled, JitFunction, Lowered, Traced, as_input, jit
from .kernels.assemble import Launch
from .kernels.fuse import Refusal, obstacle
from .kernels.graph import Call, Graph, Value
from .kernels.nested import Control, Registers
from .kernels.plan import touched
from .runtime.products import suits

__all__ = ["Explanation", "explain"]


def explain(fun: Callable[..., Any] | Traced | Lowered | Compiled, *args: Any, **kwargs: Any) -> Explanation:
    """Compile ``fun`` for these arguments and say what it became.

    The program is run some times, step by step, for the measured times, unless arguments are ``ShapeDtypeStruct``,
    the program has side effects, or ``fun`` is a ``Traced``, ``Lowered`` or ``Compiled`` given without arguments.
    Donated arguments are not written to.

    Args:
        fun: a function, jitted or not, or a stage of ``jit``.
        args, kwargs: its arguments.

    Returns:
        An `Explanation`: print it, or read its fields.

    Raises:
        TypeError: ``fun`` is none of these, or a stage for arguments of other structure, shapes or dtypes.

    >>> import numpy as np
    >>> def normalised(x):
    ...     return x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True))
    >>> report = explain(normalised, np.ones((100, 20)))
    >>> [(step.kind, step.loops, len(step.equations)) for step in report.steps]
    [('kernel', (('parallel', 100), ('inner', 20)), 4)]
    >>> report.boundaries, report.memory["temporary_bytes"]
    ((), 0)
    """
    traced, leaves = _traced(fun, args, kwargs)
    executable = fun.executable if isinstance(fun, (Lowered, Compiled)) else traced.lower().executable
    inputs, note = None, "not measured: no values were given"
    if leaves is not None and not any(isinstance(x, ShapeDtypeStruct) for x in leaves):
        if any(map(has_effect, executable.lowered.closed.eqns)):
            note = "not measured: running the program step by step would repeat its side effects"
        else:
            inputs, note = [as_input(x, a) for x, a in zip(leaves, traced.jaxpr.in_avals, strict=True)], ""
    closed, stages = executable.lowered.closed, executable.lowered.stages
    program = _Program(closed, stages, machine(), {})
    seconds: dict[int, float] = {}
    if inputs is not None:
        seconds = dict(zip([n for n, _ in stages.running()], executable.step_seconds(inputs), strict=True))
    found = program.explained("", seconds)
    return Explanation(
        traced.fun_name, str(closed), found.steps, found.boundaries, found.views, tuple(stages.plan.donations.items()),
        executable.memory_analysis(), executable.cost_analysis(), program.machine, note,
    )  # fmt: skip


def _traced(fun: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Traced, list[Any] | None]:
    """The stage, and the leaves of its arguments where there are any."""
    if not isinstance(fun, (Traced, Lowered, Compiled)):
        if not callable(fun):
            raise TypeError(f"explain: expected a function or a stage of jit, found {type(fun).__name__}")
        function = fun if isinstance(fun, JitFunction) else jit(fun)
        traced = function.trace(*args, **kwargs)
        _, args, kwargs, _ = function._split_static(args, kwargs)
        return traced, tree.flatten((args, kwargs))[0]
    traced = fun if isinstance(fun, Traced) else fun.traced
    leaves, in_tree = tree.flatten((args, kwargs))
    if not leaves and traced.jaxpr.in_avals:
        return traced, None
    if in_tree != traced.in_tree:
        raise TypeError(
            f"explain: {traced.fun_name} was traced for another structure of arguments: "
            + tree.describe_difference(traced.in_tree, in_tree)
        )
    for path, x, a in zip(tree.leaf_paths(in_tree), leaves, traced.jaxpr.in_avals, strict=True):
        found = aval_of(x)
        if found.shape != a.shape or (found.dtype != a.dtype and not found.weak_type):
            raise TypeError(
                f"explain: {traced.fun_name} was traced for {a} at argument{path[3:]}, but was given {found}"
            )
    return traced, leaves


def host_reason(eqn: Eqn) -> str:
    """Why an equation is a host step."""
    lower = eqn.primitive.lower
    if isinstance(lower, Host):
        return lower.reason
    if isinstance(lower, Library):
        return f"left to the library's {lower.routine}"
    dtypes = ", ".join(sorted({a.aval.dtype.name for a in eqn.invars}))
    return f"no native form of {eqn.primitive} for {dtypes} has been written yet"


class _Program:
    """One program on the way to its explanation; the programs that its steps own are others of this kind.

    ``sources`` numbers the distinct kernels, by their text, in the order in which they are met.
    """

    def __init__(self, closed: ClosedJaxpr, stages: Stages, rates: Machine, sources: dict[str, int]) -> None:
        self.closed = closed
        self.stages = stages
        self.plan = stages.plan
        self.machine = rates
        self.sources = sources
        self.refusals: list[Refusal] = []
        self.graph: Graph
        self.graph, self.steps = build(closed, self.refusals)
        assert len(self.steps) == len(stages.steps), "fusion decides the same each time"
        names, texts = format_equations(closed.jaxpr)
        self.variables: dict[Var, str] = names
        self.texts = {id(e): text for e, text in zip(closed.eqns, texts, strict=True)}
        self.names = self._value_names()
        self.called = {id(step.eqn) for step in self.steps if isinstance(step, Call)}

    def explained(self, name: str, seconds: dict[int, float]) -> ExplainedProgram:
        """``seconds``: measured times by the step's number."""
        known: set[int] = set()
        steps = tuple([self._step(n, step, seconds.get(n), known) for n, step in enumerate(self.steps)])
        used = {id(v.eqn) for step in self.steps for v in _made(step) if v.eqn is not None}
        views = tuple([self._equation(e) for e in self.closed.eqns if id(e) not in used])
        return ExplainedProgram(name, steps, tuple(self._boundaries()), views)

    # -- names

    def _value_names(self) -> dict[int, str]:
        jaxpr, names = self.closed.jaxpr, {}
        for value, v in zip(self.graph.inputs, jaxpr.invars, strict=True):
            names[value.index] = self.variables[v]
        for (value, _), v in zip(self.graph.constants, jaxpr.constvars, strict=False):
            names[value.index] = self.variables[v]
        for k, value in enumerate(self.graph.outputs):
            if value.eqn is None:
                names[value.index] = f"result {k}"
        return names

    def _name(self, value: Value) -> str:
        known = self.names.get(value.index)
        if known is None:
            outvars = value.eqn.outvars if value.eqn is not None else ()
            call = value.call
            position = call.outputs.index(value) if call is not None and call.eqn is value.eqn else 0
            known = self.variables[outvars[position]] if outvars else "a captured array"
            if value.block is not None:
                known = f"blocks of {known}"
            elif value.call is None and id(value.eqn) in self.called:
                known = f"an operand of {known}"
            elif value.call is not None and value.call.eqn is not value.eqn:  # of an equation that was expanded
                known = f"a part of {known}"
            self.names[value.index] = known
        return known

    def _equation(self, eqn: Eqn, again: bool = False) -> Equation:
        return _equation(self.texts[id(eqn)], eqn, again)

    # -- steps

    def _step(self, number: int, step: Launch | Call, measured: float | None, known: set[int]) -> ExplainedStep:
        made = _made(step)
        position = {id(e): k for k, e in enumerate(self.closed.eqns)}
        found: dict[int, tuple[Eqn, bool]] = {}
        for v in made:
            if v.eqn is not None:
                again = v.index in known and found.get(id(v.eqn), (None, True))[1]
                found[id(v.eqn)] = v.eqn, again
        known.update([v.index for v in made])
        ordered = sorted(found.values(), key=lambda item: position[id(item[0])])
        equations = tuple([self._equation(e, again) for e, again in ordered])
        values = touched(step)
        scratch = None if isinstance(step, Launch) else step.scratch
        writes = {v.index: v for v, written in values if written and v is not scratch}
        reads = {v.index: v for v, written in values if not written}
        if isinstance(step, Launch):
            own = {v.index for v in made}  # a row of a result may be read again within the step that writes it
            reads.update({x.value.index: x.value for x in step.accesses if x.loaded and x.value.index not in own})
        common: dict[str, Any] = {
            "number": number,
            "equations": equations,
            "reads": tuple([self._name(v) for v in reads.values()]),
            "writes": tuple([self._name(v) for v in writes.values()]),
            "in_place": tuple(self._in_place(reads, writes)),
            "measured_seconds": measured,
        }
        if isinstance(step, Launch):
            common["source"] = "" if number in self.plan.elided else self.stages.sources[number]
            return self._kernel(step, number in self.plan.elided, common)
        return self._call(step, common)

    def _kernel(self, step: Launch, elided: bool, common: dict[str, Any]) -> ExplainedStep:
        threads = threads_of(step)
        itemsize = max([x.value.dtype.itemsize for x in step.accesses], default=8)
        kernel = self.sources.setdefault(common["source"], len(self.sources)) if not elided else -1
        moving = self.machine.stream_seconds(step.nbytes)
        computing = self.machine.scalar_seconds(step.operations, itemsize, threads)
        return ExplainedStep(
            kind="elided" if elided else "kernel",
            name="copy" if elided else f"kernel {kernel}",
            loops=tuple([x for x in step.loops if x[1] != 1 or len(step.loops) == 1]),
            threads=threads,
            bytes_moved=0 if elided else step.nbytes,
            operations=0 if elided else step.operations,
            scratch_bytes=step.scratch_bytes,
            estimated_seconds=0.0 if elided else max(moving, computing),
            **common,
        )

    def _call(self, step: Call, common: dict[str, Any]) -> ExplainedStep:
        nbytes = sum([x.layout.size * x.value.dtype.itemsize for x in step.operands])
        nbytes += sum([v.nbytes for v in step.outputs])
        if step.kind == "gemm":
            return self._product(step, nbytes, common)
        if isinstance(step.data, (Control, Registers)):
            return self._loop(step, step.data, nbytes, common)
        if step.kind != "host":
            return ExplainedStep(
                kind="library", name=_routine(step), loops=(), threads=self.machine.threads, bytes_moved=nbytes,
                operations=0, scratch_bytes=0, reason=_LIBRARIES.get(step.kind, _NUMPYS),
                estimated_seconds=None, **common,
            )  # fmt: skip
        return ExplainedStep(
            kind="host", name=str(step.eqn.primitive), loops=(), threads=1, bytes_moved=nbytes, operations=0,
            scratch_bytes=sum([v.nbytes for v in step.outputs]), reason=host_reason(step.eqn), **common,
        )  # fmt: skip

    def _product(self, step: Call, nbytes: int, common: dict[str, Any]) -> ExplainedStep:
        batch, m, n, k = step.data
        dtype = step.outputs[0].dtype
        flops = (8 if dtype.kind == "c" else 2) * batch * m * n * k
        computing = self.machine.product_seconds(flops, dtype.itemsize // (2 if dtype.kind == "c" else 1))
        loops = (*[("batch", batch)] * (batch > 1), ("rows", m), ("columns", n), ("inner", k))
        own = suits(dtype, m, n, k)
        reason = "a product of matrices, in blocks that stay in registers" if own else "a product of matrices is BLAS's"
        return ExplainedStep(
            kind="library", name="gemm", loops=loops, threads=self.machine.threads, bytes_moved=nbytes,
            operations=flops, scratch_bytes=0, reason=reason,
            estimated_seconds=max(self.machine.stream_seconds(nbytes), computing), **common,
        )  # fmt: skip

    def _loop(self, step: Call, data: Control | Registers, nbytes: int, common: dict[str, Any]) -> ExplainedStep:
        """A loop or branch: one kernel, or programs of their own."""
        number, times = common["number"], data.length
        operations, estimated = 0, None
        if isinstance(data, Registers):
            reason = "all that it carries is small: one kernel, in registers"
            programs = tuple([_equations_of(name, closed) for name, closed in _owned(step.eqn)])
            common["source"] = self.stages.sources[number]
        else:
            reason = "runs without returning to Python"
            if data.carried:
                kept = sum([c.in_place for c in data.carried])
                reason += f"; {kept} of {len(data.carried)} carried values are updated in place"
            programs = tuple(
                [
                    _Program(closed, stages, self.machine, self.sources).explained(name, {})
                    for (name, closed), stages in zip(_owned(step.eqn), self.stages.inner[number], strict=True)
                ]
            )
            if any([s.kind == "host" for p in programs for s in p.steps]):
                reason = reason.replace("without returning to Python", "natively, but for its host steps")
            if times >= 0 or step.kind == "branch":
                operations = max(times, 1) * max([sum([s.operations for s in p.steps]) for p in programs])
                each = [_estimate(p) for p in programs]
                if None not in each:
                    estimated = max(times, 1) * max([e for e in each if e is not None])
        return ExplainedStep(
            kind="loop", name=str(step.eqn.primitive), loops=(("iterations", times),) if times >= 0 else (), threads=1,
            bytes_moved=nbytes, operations=operations, scratch_bytes=0, reason=reason, programs=programs,
            estimated_seconds=estimated, **common,
        )  # fmt: skip

    def _place(self, value: Value) -> Any:
        """Equal for values in the same memory."""
        slot = self.plan.slots[value.index]
        donated = {k + len(self.graph.inputs): j for k, j in self.plan.donations.items()}
        first = len(self.graph.inputs) + len(self.graph.outputs) + len(self.graph.constants)
        return donated.get(slot, slot) if slot < first else ("arena", self.plan.offsets[slot - first])

    def _in_place(self, reads: dict[int, Value], writes: dict[int, Value]) -> list[tuple[str, str]]:
        places = {self._place(v): v for v in reads.values()}
        pairs = []
        for v in writes.values():
            old = places.get(self._place(v))
            if old is not None and old is not v:
                pairs.append((self._name(v), self._name(old)))
        return pairs

    # -- boundaries

    def _boundaries(self) -> list[Boundary]:
        maker: dict[int, int] = {}
        found: list[Boundary] = []
        for number, step in enumerate(self.steps):
            seen = set()
            for value, _ in touched(step):
                producer = maker.get(value.index)
                if producer is not None and producer != number and value.index not in seen:
                    seen.add(value.index)
                    reason = self._reason(value, producer, number)
                    found.append(Boundary(producer, number, self._name(value), value.nbytes, reason))
            for value, written in touched(step):
                if written:
                    maker[value.index] = number
        return found

    def _reason(self, value: Value, producer: int, consumer: int) -> str:
        made_by, read_by = self.steps[producer], self.steps[consumer]
        if isinstance(read_by, Call):
            return f"{_kind_of(read_by)} reads it from memory"
        if isinstance(made_by, Call):
            return f"{_kind_of(made_by)} makes it: there are no loops to join"
        if not any(x.loaded for x in read_by.accesses if x.value is value) and not read_by.group.sequential:
            return "each writes a part of it"
        if read_by.group.sequential:
            return "writing at computed places is a kernel of its own"
        mine = {v.index for v in read_by.made}
        known = [r for r in self.refusals if r.group == made_by.group.number and r.value.index in mine]
        readers = {v.index for v in read_by.made if any(x.value is value for x in v.operands)}
        known.sort(key=lambda r: (r.value.index not in readers, r.cause is not value))
        if not known:
            return self._unasked(value, made_by, read_by)
        refusal = known[0]
        what = self._name(refusal.value)
        if refusal.cause is not None:
            what = f"{what} needs {self._name(refusal.cause)}, which"
        return f"{what} {refusal.reason}"

    def _unasked(self, value: Value, made_by: Launch, read_by: Launch) -> str:
        """The reason where fusion found a place for the readers before it came to this one."""
        for v in read_by.made:
            if any(x.value is value for x in v.operands):
                reason = obstacle(v, made_by.group)
                if v.kind == "window" and v.operands[0].value is value:
                    reason = "reads it at computed places: it is needed whole before"
                if reason:
                    return f"{self._name(v)} {reason}"
        return "its readers were fused with what else they read"


_LIBRARIES = {
    "library": "a routine of LAPACK's, called natively",
    "small": "generated code, whose vector lanes are matrices",
    "conv": "blocks of results in registers, or products of patches",
}
"""Why a call is one, by its kind."""
_NUMPYS = "a routine of NumPy's, called natively"


def _routine(call: Call) -> str:
    return str(call.data[1].routine) if call.kind in ("library", "small") else call.kind


def _kind_of(call: Call) -> str:
    if call.kind not in ("host", "scan", "while", "branch", "registers"):
        return f"the library step {_routine(call)}"
    kind = "loop" if isinstance(call.data, (Control, Registers)) else "host step"
    return f"the {kind} {call.eqn.primitive}"


def _owned(eqn: Eqn) -> list[tuple[str, ClosedJaxpr]]:
    """The jaxprs that an equation of control flow owns, in the order of its programs."""
    params = eqn.params
    if isinstance(eqn.primitive.lower, Scan):
        return [("body", params["jaxpr"])]
    if isinstance(eqn.primitive.lower, While):
        return [("condition", params["cond_jaxpr"]), ("body", params["body_jaxpr"])]
    return [(f"branch {k}", closed) for k, closed in enumerate(params["branches"])]


def _equations_of(name: str, closed: ClosedJaxpr) -> ExplainedProgram:
    """A program that has no steps of its own."""
    _, texts = format_equations(closed.jaxpr)
    equations = tuple([_equation(text, e) for text, e in zip(texts, closed.eqns, strict=True)])
    return ExplainedProgram(name, (), (), (), equations)


def _estimate(program: ExplainedProgram) -> float | None:
    """Seconds for one run; None where a step has no estimate."""
    times = [s.estimated_seconds for s in program.steps if s.kind != "elided"]
    return None if any([t is None for t in times]) else sum([t for t in times if t is not None])


def _equation(text: str, eqn: Eqn, again: bool = False) -> Equation:
    source = eqn.source
    where = (source.filename, source.line, source.function) if source is not None else ("", 0, "")
    return Equation(text, *where, again)


def _made(step: Launch | Call) -> tuple[Value, ...]:
    return step.made if isinstance(step, Launch) else step.outputs
