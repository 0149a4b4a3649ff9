"""Compiled programs: what ``jit`` calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from ..core.jaxpr import ClosedJaxpr
from ..kernels.plan import MemoryPlan
from ..runtime.clock import seconds_per_tick
from ..runtime.compile import CompiledKernel, compile_kernels, compile_kernels_with_numba
from ..runtime.dispatch import builtin_call
from ..runtime.executor import Program
from ..runtime.memory import allocator
from .lowered import Lowered, lower_jaxpr
from .rows import program_of, scratch_bytes

__all__ = ["COMPILERS", "Executable", "compile_jaxpr"]

COMPILERS = {"llvm": compile_kernels, "numba": compile_kernels_with_numba}
"""How a kernel's text becomes machine code: by our front end and LLVM, or by Numba."""


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
        self._donations = list(plan.donations.items())
        self._scalars = [k for k, a in enumerate(avals) if not a.shape]

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        outputs = [make() for make in self._allocators]
        if self._donations:
            inputs = self._donate(inputs, outputs)
        self.program(inputs, outputs)
        for k in self._scalars:
            outputs[k] = outputs[k][()]
        return outputs

    def builtin(self, arguments: Sequence[Any], single: bool) -> Callable[..., Any] | None:
        """The program as a built-in function of arguments like these, where that is possible: ``runtime.dispatch``."""
        if self._donations:
            return None
        return builtin_call(self.program, arguments, self.lowered.closed.out_avals, single)

    def _donate(self, inputs: Sequence[Any], outputs: list[Any]) -> list[Any]:
        """Let outputs be the arrays that were given up for them; a copy of one that others can still see."""
        inputs = list(inputs)
        for k, j in self._donations:
            x = inputs[j]
            others = [y for i, y in enumerate(inputs) if i != j and isinstance(y, np.ndarray)]
            if not x.flags.writeable or any([np.may_share_memory(x, y) for y in others]):
                x = inputs[j] = x.copy()
            outputs[k] = x if x.shape == outputs[k].shape else x.reshape(outputs[k].shape)
        return inputs

    def as_text(self, stage: str = "source") -> str:
        """``stage``: ``source`` (the kernels as Python), ``kernels`` (as IR), ``llvm`` or ``assembly``."""
        if stage == "source":
            return self.lowered.as_text()
        if stage == "kernels":
            return "\n\n".join([str(x.kernel) for x in self.lowered.stages.launches()])
        distinct = {k.key: k for k in self.kernels}.values()
        if stage == "llvm":
            return "\n".join([k.llvm() for k in distinct])
        if stage == "assembly":
            return "\n".join([k.assembly() for k in distinct])
        raise ValueError(f"stage must be 'source', 'kernels', 'llvm' or 'assembly', not {stage!r}")

    def memory_analysis(self) -> dict[str, int]:
        """Bytes that a call needs.

        ``input_bytes``, ``output_bytes`` (without what is written over donated inputs, ``donated_bytes``),
        ``constant_bytes`` (captured arrays), ``temporary_bytes`` (the arena), ``scratch_bytes`` (working memory of
        the kernels, and what host steps return before it is copied: of the step that needs most, on all its threads);
        ``peak_bytes`` is the sum of them. ``in_place`` counts results that took over the memory of an operand.
        """
        closed, donations = self.lowered.closed, self.plan.donations
        sizes = [a.nbytes for a in closed.out_avals]
        found = {
            "input_bytes": sum([a.nbytes for a in closed.in_avals]),
            "output_bytes": sum([n for k, n in enumerate(sizes) if k not in donations]),
            "constant_bytes": sum([v.nbytes for p in self.lowered.stages.programs() for v, _ in p.graph.constants]),
            "temporary_bytes": self.plan.arena_bytes,
            "scratch_bytes": max(
                [scratch_bytes(x) for p in self.lowered.stages.programs() for x in p.steps], default=0
            ),
        }
        return {
            **found,
            "peak_bytes": sum(found.values()),
            "donated_bytes": sum([sizes[k] for k in donations]),
            "in_place": self.plan.in_place,
        }

    def step_seconds(self, inputs: Sequence[Any], passes: int = 25, seconds: float = 0.3) -> list[float]:
        """The median time of each step, from up to ``passes`` runs of the program, but not many after ``seconds``.
        Donated inputs are not written to."""
        taken = []
        begin = perf_counter()
        for count in range(passes):
            if count >= 3 and perf_counter() - begin > seconds:
                break
            outputs = [make() for make in self._allocators]
            given = list(inputs)
            for _, j in self._donations:
                given[j] = given[j].copy()
            taken.append(self.program.timed(self._donate(given, outputs), outputs)())
        medians = np.median(taken, axis=0) * seconds_per_tick()
        return [float(x) for x in medians]

    def cost_analysis(self) -> dict[str, int]:
        """Scalar operations, bytes moved by the kernels, launches, and how many distinct kernels these are."""
        launches = list(self.lowered.stages.launches())
        return {
            "flops": self.lowered.graph.flops,
            "bytes_accessed": sum([s.nbytes for s in launches]),
            "launches": len(self.program.steps),
            "kernels": len({k.key for k in self.kernels}),
        }


def compile_jaxpr(closed: ClosedJaxpr, donated: Sequence[bool] = (), compiler: str = "llvm") -> Executable:
    """Compile a program. See the package's text for the stages.

    ``donated``: for each input, whether an output may be written over it. ``compiler`` is ``llvm`` or ``numba``.
    """
    if compiler not in COMPILERS:
        raise ValueError(f"compiler must be one of {', '.join(map(repr, COMPILERS))}, not {compiler!r}")
    lowered = lower_jaxpr(closed, donated)
    sources = list(lowered.stages.texts())
    kernels = COMPILERS[compiler](sources)
    addresses = {source: kernel.address for source, kernel in zip(sources, kernels, strict=True)}
    program = program_of(lowered.stages, addresses, closed.in_avals)
    return Executable(lowered, program, kernels, lowered.stages.plan)
