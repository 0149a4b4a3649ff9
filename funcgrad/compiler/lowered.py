"""Programs as kernels' texts, before machine code is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from ..codegen.cpu import kernel_source
from ..codegen.lanes import lane_source
from ..codegen.registers import register_loop
from ..codegen.scalar import native
from ..core.jaxpr import ClosedJaxpr
from ..kernels.all_rules import RULES
from ..kernels.assemble import Launch
from ..kernels.fuse import Refusal, form_groups
from ..kernels.graph import Call, Graph, build_graph
from ..kernels.ir import Kernel, check_kernel
from ..kernels.nested import Control, Registers
from ..kernels.pipeline import build_steps
from ..kernels.plan import MemoryPlan, make_plan
from ..record import field, record

__all__ = ["Lowered", "Stages", "build", "lower_jaxpr"]


class _Cpu:
    """The CPU's code generator, as the graph builder asks it."""

    native = staticmethod(native)
    register_loop = staticmethod(register_loop)


@record(eq=False)
class Stages:
    """The steps of one program, in order, with their texts: of a kernel its source, else nothing. ``inner`` holds, by
    the number of a step, the programs that it owns."""

    graph: Graph
    steps: list[Launch | Call]
    plan: MemoryPlan
    sources: list[str]
    inner: dict[int, list[Stages]] = field(default_factory=dict)

    def running(self) -> Iterator[tuple[int, Launch | Call]]:
        """The steps that do anything, with their numbers."""
        return ((k, step) for k, step in enumerate(self.steps) if k not in self.plan.elided)

    def launches(self) -> Iterator[Launch]:
        """All loop nests that run; those of inner programs in their places."""
        for k, step in self.running():
            if isinstance(step, Launch):
                yield step
            for program in self.inner.get(k, ()):
                yield from program.launches()

    def programs(self) -> Iterator[Stages]:
        """This program and all inner ones."""
        yield self
        for inner in self.inner.values():
            for program in inner:
                yield from program.programs()

    def texts(self) -> Iterator[str]:
        """The sources of all kernels that run, in order; those of inner programs in their places."""
        for k, _ in self.running():
            if self.sources[k]:
                yield self.sources[k]
            for program in self.inner.get(k, ()):
                yield from program.texts()

    def as_text(self) -> str:
        """The kernels in the order in which they run, each as the Python source that is compiled."""
        parts = []
        for k, (step, source) in enumerate(zip(self.steps, self.sources, strict=True)):
            if isinstance(step, Launch) or source:
                parts.append(source)
                continue
            parts.append(f"# {step.kind}{_title(step)}\n")
            for number, program in enumerate(self.inner.get(k, ())):
                text = program.as_text()
                parts.append(
                    "".join([f"    {line}".rstrip() + "\n" for line in (_name(step, number), *text.split("\n"))])
                )
        return "\n".join(parts)


def _title(call: Call) -> str:
    if not isinstance(call.data, Control):
        return f" {call.eqn.primitive}"
    return f" {call.data.length} times" if call.data.length >= 0 else ""


def _name(call: Call, number: int) -> str:
    names = {"scan": ["body"], "while": ["condition", "body"]}.get(call.kind)
    return f"# {names[number] if names else f'branch {number}'}"


@record(eq=False)
class Lowered:
    """Everything of a program that is known before machine code is made."""

    closed: ClosedJaxpr
    stages: Stages

    @property
    def graph(self) -> Graph:
        return self.stages.graph

    @property
    def steps(self) -> list[Launch | Call]:
        return self.stages.steps

    @property
    def sources(self) -> list[str]:
        return self.stages.sources

    def as_text(self) -> str:
        """The kernels in the order in which they run, each as the Python source that is compiled."""
        return self.stages.as_text()


def build(closed: ClosedJaxpr, refusals: list[Refusal] | None = None) -> tuple[Graph, list[Launch | Call]]:
    """The steps of a program. ``refusals`` collects what fusion decided against; it decides the same each time."""
    graph = build_graph(closed, RULES, _Cpu())
    return graph, build_steps(graph, form_groups(graph, refusals))


def lower_jaxpr(closed: ClosedJaxpr, donated: Sequence[bool] = ()) -> Lowered:
    """The kernels of a program, as text, without compiling them.

    ``donated``: for each input, whether an output may be written over it.
    """
    graph, steps = build(closed)
    donated = [d and a.ndim > 0 for d, a in zip(donated, closed.in_avals, strict=False)]  # a number is no memory
    plan = make_plan(steps, graph.inputs, graph.outputs, [v for v, _ in graph.constants], donated)
    return Lowered(closed, _print(graph, steps, plan))


@lru_cache(maxsize=1024)
def _source(kernel: Kernel) -> str:
    """A kernel's text; another shape of a program has the same kernels."""
    check_kernel(kernel)
    return kernel_source(kernel)


def _print(graph: Graph, steps: list[Launch | Call], plan: MemoryPlan) -> Stages:
    stages = Stages(graph, steps, plan, [])
    for number, step in enumerate(steps):
        source = ""
        if isinstance(step, Launch):
            source = _source(step.kernel)
        elif isinstance(step.data, Registers):
            source = step.data.loop.source
        elif step.kind == "small":
            first = step.operands[0]
            source = lane_source(step.data[1].routine, first.value.dtype, first.layout.shape[-1])
        elif isinstance(step.data, Control):
            stages.inner[number] = [_print(p.graph, p.steps, p.plan) for p in step.data.programs]
        stages.sources.append(source)
    return stages
