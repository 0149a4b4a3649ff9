"""Steps as rows of a program: addresses, integer tables, and the programs of loops and branches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..codegen.lanes import lane_table
from ..core.avals import ShapedArray
from ..core.layout import Layout
from ..kernels.assemble import Launch, const_bits
from ..kernels.graph import Call, Ref, Value
from ..kernels.nested import Control, Nested, Registers
from ..kernels.plan import MemoryPlan
from ..runtime.control import CarriedSlots, Inner, MovingSlot, branch_step, scan_step, sliced_step, while_step
from ..runtime.convolution import Place, conv_step
from ..runtime.executor import ARRAY, SCALAR, Program, Step
from ..runtime.fourier import fft_step
from ..runtime.host import Operand, host_step
from ..runtime.lapack import library_step
from ..runtime.libraries import Matrix, gemm_step
from ..runtime.merging import merge_step, run_length, sort_runs_step
from ..runtime.sorting import argsort_step, sort_step
from ..runtime.threads import get_num_threads
from .lowered import Stages

__all__ = ["program_of", "scratch_bytes", "threads_of"]

SLICE_NANOSECONDS = 15_000
"""Work below which a slice is not worth a thread."""


SHORT_NANOSECONDS = 5_000
"""Work for which the GIL is kept."""


def program_of(stages: Stages, addresses: Mapping[str, int], in_avals: Sequence[ShapedArray]) -> Program:
    """A program ready to run; ``addresses`` gives the machine code of each kernel's source."""
    graph, plan = stages.graph, stages.plan
    return Program(
        [_row(stages, number, step, addresses) for number, step in stages.running()],
        len(graph.inputs),
        len(graph.outputs),
        [np.ascontiguousarray(x, v.dtype) for v, x in graph.constants],
        plan.offsets,
        plan.arena_bytes,
        [ARRAY if a.shape else SCALAR for a in in_avals],
        release_gil=not _is_short(stages),
    )


def _is_short(stages: Stages) -> bool:
    """Whether a program takes less time than giving the GIL away and getting it back may."""
    steps = [step for _, step in stages.running()]
    return all([isinstance(x, Launch) for x in steps]) and sum(map(_nanoseconds, steps)) < SHORT_NANOSECONDS  # type: ignore[arg-type]


def _row(stages: Stages, number: int, step: Launch | Call, addresses: Mapping[str, int]) -> Step:
    plan = stages.plan
    if isinstance(step, Launch):
        return _launch_row(step, addresses[stages.sources[number]], plan)
    if isinstance(step.data, Control):
        return _control_row(step, plan, stages.inner[number], addresses)
    if isinstance(step.data, Registers):
        return _registers_row(step, plan, addresses[stages.sources[number]])
    if step.kind == "small":
        return _small_row(step, addresses[stages.sources[number]], plan)
    return _ROWS[step.kind](step, plan)


def threads_of(launch: Launch) -> int:
    """How many threads at most work on it."""
    grain = _grain(launch)
    return min(get_num_threads(), -(-launch.extent // grain)) if grain else 1


def scratch_bytes(step: Launch | Call) -> int:
    """Memory that a step takes for itself while it runs."""
    if isinstance(step, Launch):
        return step.scratch_bytes * threads_of(step)
    return sum([v.nbytes for v in step.outputs]) if step.kind == "host" else 0


def _launch_row(launch: Launch, address: int, plan: MemoryPlan) -> Step:
    ints = list(launch.ints)
    for k, access in enumerate(launch.accesses):
        ints[k] = plan.slots[access.value.index]
    fallible = any([x.role == "scratch" for x in launch.kernel.operands])  # its memory may not be had
    return Step(address, ints, launch.extent, _grain(launch), checks=fallible)


def _nanoseconds(launch: Launch) -> float:
    """A guess."""
    return launch.operations / 4 + launch.nbytes / 10


def _grain(launch: Launch) -> int:
    """The shortest slice of the parallel axis worth a thread; 0: run it on the calling thread."""
    if launch.serial or launch.extent < 2:
        return 0
    nanoseconds = _nanoseconds(launch)
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


def _conv_row(call: Call, plan: MemoryPlan) -> Step:
    data, out = call.data, call.outputs[0]
    size = out.dtype.itemsize

    def place(value: Value, offset: int, stride: int) -> Place:
        return Place(plan.slots[value.index], offset * size, stride * size)

    left, right = (x.value for x in call.operands)
    return conv_step(
        out.dtype, data.groups, data.positions, data.taps, data.features, place(left, *data.lhs),
        place(right, *data.rhs), place(out, *data.out), data.rhs_rows, data.out_rows, data.tile, data.span,
        data.contracts, data.part_stride,
    )  # fmt: skip


def _matrix_routine_row(call: Call, plan: MemoryPlan) -> Step:
    return library_step(*_routine(call, plan))


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


def _array_routine_row(call: Call, plan: MemoryPlan) -> Step:
    (ref,), (out,) = call.operands, call.outputs
    dtype, offset = ref.value.dtype, ref.layout.offset * ref.value.dtype.itemsize
    slots = plan.slots[ref.value.index], plan.slots[out.index]
    if call.kind == "fft":
        return fft_step(call.data, dtype, out.dtype, *slots, offset)
    rows, n, *rest = call.data
    if rest:
        runs, *merged = rest
        run = run_length(n, runs)
        if merged:
            return merge_step(*slots, (rows, n), run * merged[0], dtype, last=2 * merged[0] == runs)
        return sort_runs_step(slots[0], offset, slots[1], (rows, n), run, dtype)
    make = sort_step if call.kind == "sort" else argsort_step
    return make(slots[0], offset, slots[1], (rows, n), dtype)


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


_ROWS: dict[str, Callable[[Call, MemoryPlan], Step]] = {
    "gemm": _gemm_row,
    "conv": _conv_row,
    "library": _matrix_routine_row,
    "fft": _array_routine_row,
    "sort": _array_routine_row,
    "argsort": _array_routine_row,
    "sort_runs": _array_routine_row,
    "merge": _array_routine_row,
    "host": _host_row,
}
"""By the kind of a call whose machine code is not generated with the program."""


# control flow -----------------------------------------------------------------------------------------------------


def _control_row(call: Call, plan: MemoryPlan, programs: Sequence[Stages], addresses: Mapping[str, int]) -> Step:
    control: Control = call.data
    inner = [
        _inner(call, plan, nested, program_of(stages, addresses, [v.aval for v in nested.closed.jaxpr.invars]))
        for nested, stages in zip(control.programs, programs, strict=True)
    ]
    assert call.scratch is not None
    scratch = plan.slots[call.scratch.index]
    if call.kind == "branch":
        return branch_step(scratch, _place(call, plan, 0), inner)
    carried = [
        CarriedSlots(
            c.reads, c.writes, c.tests, *_place(call, plan, c.operand), _place(call, plan, -1 - c.result)[0],
            c.second, c.nbytes, c.in_place,
        )
        for c in control.carried
    ]  # fmt: skip
    if call.kind == "while":
        return while_step(scratch, inner[0], inner[1], control.condition, carried)
    moving = [MovingSlot(m.buffer, _place(call, plan, m.of)[0], m.first, m.step) for m in control.moving]
    return scan_step(scratch, inner[0], control.length, carried, moving)


def _registers_row(call: Call, plan: MemoryPlan, address: int) -> Step:
    data: Registers = call.data
    slots = [_place(call, plan, k)[0] for k, _, _ in data.places]
    offsets, steps = [x[1] for x in data.places], [x[2] for x in data.places]
    scratch = -1
    if call.scratch is not None:
        scratch = plan.slots[call.scratch.index]
        slots, offsets, steps = [*slots, scratch], [*offsets, 0], [*steps, 0]
    constants = [const_bits(x, False) for x in data.loop.constants]
    return sliced_step(address, [*slots, *offsets, *steps, *constants], data.length, scratch)


def _inner(call: Call, plan: MemoryPlan, nested: Nested, program: Program) -> Inner:
    links = [(buffer, *_place(call, plan, of)) for buffer, of in nested.fixed]
    return Inner(program, nested.frame, nested.arena, links)


def _place(call: Call, plan: MemoryPlan, of: int) -> tuple[int, int]:
    """Slot and byte offset of operand ``of`` of a step, or of its result ``-1 - of``."""
    if of < 0:
        return plan.slots[call.outputs[-1 - of].index], 0
    value, layout = call.operands[of]
    return plan.slots[value.index], layout.offset * value.dtype.itemsize
