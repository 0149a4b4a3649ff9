"""The composition root of compilation: a flat jaxpr becomes a program of native kernels.

    build_graph    equations -> values seen through layouts
    form_groups    values -> groups that share a kernel
    build_steps    groups -> kernels and their integer tables
    kernel_source  kernel -> Python text, the key of the cache
    compile_kernels texts -> machine code (memory, disk, or LLVM)
    make_plan      lifetimes -> slots and one arena
    Program        rows for the native executor

Only ``kernel_source`` and ``compile_kernels`` depend on structure alone; all else is data of this shape and takes
microseconds per equation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .codegen.cpu import kernel_source
from .codegen.lanes import lane_source, lane_table
from .codegen.scalar import native
from .core.jaxpr import ClosedJaxpr
from .core.layout import Layout
from .kernels.assemble import Launch
from .kernels.fuse import form_groups
from .kernels.graph import Call, Graph, Ref, build_graph
from .kernels.ir import Kernel, check_kernel
from .kernels.library import RULES
from .kernels.pipeline import build_steps
from .kernels.plan import MemoryPlan, make_plan
from .runtime.compile import CompiledKernel, compile_kernels, compile_kernels_with_numba
from .runtime.executor import ARRAY, SCALAR, Program, Step
from .runtime.host import Operand, host_step
from .runtime.lapack import library_step
from .runtime.libraries import Matrix, gemm_step
from .runtime.memory import allocator

__all__ = ["Executable", "compile_jaxpr", "lower_jaxpr"]

COMPILERS = {"llvm": compile_kernels, "numba": compile_kernels_with_numba}
"""How a kernel's text becomes machine code: by our front end and LLVM, or by Numba."""

SLICE_NANOSECONDS = 15_000
"""Work below which a slice is not worth a thread."""


@dataclass(eq=False)
class Lowered:
    """Everything of a program that is known before machine code is made."""

    closed: ClosedJaxpr
    graph: Graph
    steps: list[Launch | Call]
    sources: list[str]

    def as_text(self) -> str:
        """The kernels in the order in which they run, each as the Python source that is compiled."""
        parts = []
        for step, source in zip(self.steps, self.sources, strict=True):
            parts.append(source if source else f"# {step.kind} {step.eqn.primitive}\n")  # type: ignore[union-attr]
        return "\n".join(parts)


def lower_jaxpr(closed: ClosedJaxpr) -> Lowered:
    """The kernels of a program, as text, without compiling them."""
    graph = build_graph(closed, RULES, native)
    steps = build_steps(graph, form_groups(graph))
    sources: list[str] = []
    known: dict[Kernel, str] = {}
    for step in steps:
        if isinstance(step, Call):
            sources.append(_small_source(step) if step.kind == "small" else "")
            continue
        source = known.get(step.kernel)
        if source is None:
            check_kernel(step.kernel)
            source = known[step.kernel] = kernel_source(step.kernel)
        sources.append(source)
    return Lowered(closed, graph, steps, sources)


class Executable:
    """A compiled program: ``executable(inputs)`` gives its outputs.

    Inputs are C-contiguous arrays of exactly the jaxpr's avals; where these are 0-d, NumPy scalars of the dtype (or
    Python floats and complex numbers). Outputs are new arrays, or NumPy scalars where 0-d.
    """

    __slots__ = ("__weakref__", "_allocators", "_donations", "_scalars", "kernels", "lowered", "plan", "program")

    def __init__(self, lowered: Lowered, program: Program, kernels: list[CompiledKernel], plan: MemoryPlan) -> None:
        avals = lowered.closed.out_avals
        self.lowered = lowered
        self.program = program
        self.kernels = kernels
        """The kernel of each generated launch, in order; equal ones are one object."""
        self.plan = plan
        self._allocators = [allocator(a.shape, a.dtype) for a in avals]
        self._donations = [(k, j) for k, j in plan.donations.items() if avals[k].shape]
        self._scalars = [k for k, a in enumerate(avals) if not a.shape]

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        outputs = [make() for make in self._allocators]
        if self._donations:
            inputs = self._donate(inputs, outputs)
        self.program(inputs, outputs)
        for k in self._scalars:
            outputs[k] = outputs[k][()]
        return outputs

    def _donate(self, inputs: Sequence[Any], outputs: list[Any]) -> list[Any]:
        """Let outputs be the arrays that were given up for them; a copy of one that others can still see."""
        inputs = list(inputs)
        for k, j in self._donations:
            x = inputs[j]
            others = [y for i, y in enumerate(inputs) if i != j and isinstance(y, np.ndarray)]
            if not x.flags.writeable or any([np.may_share_memory(x, y) for y in others]):
                x = inputs[j] = x.copy()
            outputs[k] = x
        return inputs

    def as_text(self, stage: str = "source") -> str:
        """``stage``: ``source`` (the kernels as Python), ``kernels`` (as IR), ``llvm`` or ``assembly``."""
        if stage == "source":
            return self.lowered.as_text()
        if stage == "kernels":
            return "\n\n".join([str(s.kernel) for s in self.lowered.steps if isinstance(s, Launch)])
        distinct = {k.key: k for k in self.kernels}.values()
        if stage == "llvm":
            return "\n".join([k.llvm() for k in distinct])
        if stage == "assembly":
            return "\n".join([k.assembly() for k in distinct])
        raise ValueError(f"stage must be 'source', 'kernels', 'llvm' or 'assembly', not {stage!r}")

    def memory_analysis(self) -> dict[str, int]:
        """Bytes of inputs, outputs and temporaries; ``in_place`` counts results that took over an operand."""
        closed = self.lowered.closed
        return {
            "input_bytes": sum([a.nbytes for a in closed.in_avals]),
            "output_bytes": sum([a.nbytes for a in closed.out_avals]),
            "temporary_bytes": self.plan.arena_bytes,
            "in_place": self.plan.in_place,
        }

    def cost_analysis(self) -> dict[str, int]:
        """Scalar operations, bytes moved by the kernels, launches, and how many distinct kernels these are."""
        launches = [s for s in self.lowered.steps if isinstance(s, Launch)]
        return {
            "flops": self.lowered.graph.flops,
            "bytes_accessed": sum([s.nbytes for s in launches]),
            "launches": len(self.program.steps),
            "kernels": len({k.key for k in self.kernels}),
        }


def compile_jaxpr(closed: ClosedJaxpr, donated: Sequence[bool] = (), compiler: str = "llvm") -> Executable:
    """Compile a program. See the module's text for the stages.

    ``donated``: for each input, whether an output may be written over it. ``compiler`` is ``llvm`` or ``numba``.
    """
    if compiler not in COMPILERS:
        raise ValueError(f"compiler must be one of {', '.join(map(repr, COMPILERS))}, not {compiler!r}")
    lowered = lower_jaxpr(closed)
    graph = lowered.graph
    plan = make_plan(lowered.steps, graph.inputs, graph.outputs, [v for v, _ in graph.constants], donated)
    generated = [k for k, source in enumerate(lowered.sources) if source and k not in plan.elided]
    kernels = COMPILERS[compiler]([lowered.sources[k] for k in generated])
    addresses = {k: kernel.address for k, kernel in zip(generated, kernels, strict=True)}
    rows: list[Step] = []
    for number, step in enumerate(lowered.steps):
        if number in plan.elided:
            continue
        if isinstance(step, Launch):
            rows.append(_launch_row(step, addresses[number], plan))
        elif step.kind == "gemm":
            rows.append(_gemm_row(step, plan))
        elif step.kind == "library":
            rows.append(_library_row(step, plan))
        elif step.kind == "small":
            rows.append(_small_row(step, addresses[number], plan))
        else:
            rows.append(_host_row(step, plan))
    program = Program(
        rows,
        len(graph.inputs),
        len(graph.outputs),
        [np.ascontiguousarray(x, v.dtype) for v, x in graph.constants],
        plan.offsets,
        plan.arena_bytes,
        [ARRAY if a.shape else SCALAR for a in closed.in_avals],
    )
    return Executable(lowered, program, kernels, plan)


def _launch_row(launch: Launch, address: int, plan: MemoryPlan) -> Step:
    ints = list(launch.ints)
    for k, access in enumerate(launch.accesses):
        ints[k] = plan.slots[access.value.index]
    fallible = any([x.role == "scratch" for x in launch.kernel.operands])  # its memory may not be had
    return Step(address, ints, launch.extent, _grain(launch), checks=fallible)


def _grain(launch: Launch) -> int:
    """The shortest slice of the parallel axis worth a thread; 0: run it on the calling thread."""
    if launch.serial or launch.extent < 2:
        return 0
    nanoseconds = launch.operations / 4 + launch.nbytes / 10
    if nanoseconds < 2 * SLICE_NANOSECONDS:
        return 0
    return max(1, round(SLICE_NANOSECONDS * launch.extent / nanoseconds))


def _gemm_row(call: Call, plan: MemoryPlan) -> Step:
    batch, m, n, k = call.data
    out = call.outputs[0]
    left, right = (_matrix(x, plan, shape) for x, shape in zip(call.operands, ((m, k), (k, n)), strict=True))
    product = Ref(out, Layout.contiguous((batch, m, n)))
    return gemm_step(out.dtype, left, right, _matrix(product, plan, (m, n)), batch)


def _matrix(ref: Ref, plan: MemoryPlan, shape: tuple[int, int]) -> Matrix:
    size, layout = ref.value.dtype.itemsize, ref.layout
    step, down, right = (s * size for s in layout.strides)
    return Matrix(plan.slots[ref.value.index], shape, (down, right), layout.offset * size, step)


def _library_row(call: Call, plan: MemoryPlan) -> Step:
    return library_step(*_routine(call, plan))


def _small_source(call: Call) -> str:
    first = call.operands[0]
    return lane_source(call.data[1].routine, first.value.dtype, first.layout.shape[-1])


def _small_row(call: Call, address: int, plan: MemoryPlan) -> Step:
    """Many small matrices at a time, by generated code."""
    ints, tiles = lane_table(*_routine(call, plan))
    nanoseconds = 2 * sum([x.value.nbytes for x in call.operands]) / tiles  # as measured, within a factor of two
    grain = 0 if tiles * nanoseconds < 2 * SLICE_NANOSECONDS else max(1, round(SLICE_NANOSECONDS / nanoseconds))
    return Step(address, ints, tiles, grain)


def _routine(
    call: Call, plan: MemoryPlan
) -> tuple[str, np.dtype[Any], list[Matrix], list[Matrix], int, dict[str, Any]]:
    """What a routine of a library works on."""
    batch, lower = call.data
    operands = [_matrix(x, plan, x.layout.shape[1:]) for x in call.operands]  # type: ignore[arg-type]
    results = []
    for value, v, how in zip(call.outputs, call.eqn.outvars, lower.results, strict=True):
        rank = call.eqn.invars[0].aval.ndim - (1 if lower.operands[0] == "vectors" else 2)
        m, n = (*v.aval.shape[rank:], 1)[:2]
        layout = (
            Layout.contiguous((batch, n, m)).permute((0, 2, 1))
            if how == "columns"
            else Layout.contiguous((batch, m, n))
        )
        results.append(_matrix(Ref(value, layout), plan, (m, n)))
    return lower.routine, call.operands[0].value.dtype, operands, results, batch, call.eqn.params


def _host_row(call: Call, plan: MemoryPlan) -> Step:
    primitive, params = call.eqn.primitive, call.eqn.params

    def run(*arrays: np.ndarray) -> Any:
        return primitive.impl(*[x if x.ndim else x[()] for x in arrays], **params)

    inputs = [_host_operand(x, shape, plan) for x, shape in zip(call.operands, call.shapes, strict=True)]
    outputs = [
        Operand(plan.slots[x.index], v.aval.shape, v.aval.dtype)
        for x, v in zip(call.outputs, call.eqn.outvars, strict=True)
    ]
    return host_step(run, inputs, outputs, primitive.name)


def _host_operand(ref: Ref, shape: Sequence[int], plan: MemoryPlan) -> Operand:
    value = ref.value
    return Operand(plan.slots[value.index], tuple(shape), value.dtype, ref.layout.offset * value.dtype.itemsize)
