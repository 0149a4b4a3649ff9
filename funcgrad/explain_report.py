"""What `explain` found, as data: programs, their steps, and what lies between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .calibrate import Machine
from .explain_text import as_html, as_text
from .record import record

__all__ = ["Boundary", "Equation", "ExplainedProgram", "ExplainedStep", "Explanation"]


@record(frozen=True)
class Equation:
    """An equation of the program that was compiled (after the passes), and the user's line that it comes from."""

    text: str
    filename: str
    line: int
    function: str
    again: bool = False
    """Whether an earlier step computes the same: it was cheaper than storing and loading it."""


@record(frozen=True)
class ExplainedStep:
    """One step. ``kind`` is ``kernel``, ``library``, ``loop`` (or branch), ``host`` or ``elided`` (a copy of memory to
    itself).

    Kernels are numbered: those of the same ``name`` are one piece of code, whose Python text ``source`` is.
    ``loops`` are (role, extent): parallel axes outermost first, a ``lane``, then ``inner`` ones, which are folded or
    walked by one parallel iteration. ``reads`` and ``writes`` name variables of the jaxpr; ``in_place`` are pairs
    (result, what it is written over). ``operations`` counts scalar operations, 16 for one like ``exp``; of a product,
    multiplications and additions; of a loop those of all iterations, where it is known how many there are, and of
    branches those of the longest. Times are seconds, None where they are not known. ``reason`` says of a host step why
    it is one. ``programs``: what a loop runs in each iteration, and a branch when it is taken.
    """

    number: int
    kind: str
    name: str
    loops: tuple[tuple[str, int], ...]
    threads: int
    equations: tuple[Equation, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    in_place: tuple[tuple[str, str], ...]
    bytes_moved: int
    operations: int
    scratch_bytes: int
    reason: str = ""
    source: str = ""
    estimated_seconds: float | None = None
    measured_seconds: float | None = None
    programs: tuple[ExplainedProgram, ...] = ()


@record(frozen=True)
class ExplainedProgram:
    """A program that a step owns: the ``body`` or the ``condition`` of a loop, or ``branch 0``, and so on.

    Its variables are named apart from those around it. Its steps have no measured times: the step that owns it is
    measured whole. Of a loop that is one kernel in registers, ``equations`` are what the kernel computes, and there
    are no steps.
    """

    name: str
    steps: tuple[ExplainedStep, ...]
    boundaries: tuple[Boundary, ...]
    views: tuple[Equation, ...]
    equations: tuple[Equation, ...] = ()


@record(frozen=True)
class Boundary:
    """``buffer``, made in step ``producer``, goes through memory to step ``consumer``; ``reason`` says what prevented
    fusion."""

    producer: int
    consumer: int
    buffer: str
    nbytes: int
    reason: str


@record(frozen=True)
class Explanation:
    """What `explain` found. ``str()`` of it is a report, and so is its display in a notebook.

    ``views`` are equations that cost nothing: they became index arithmetic. ``donated`` are pairs (result, argument)
    by position. ``memory`` and ``cost`` are what ``memory_analysis`` and ``cost_analysis`` say.
    """

    name: str
    jaxpr: str
    steps: tuple[ExplainedStep, ...]
    boundaries: tuple[Boundary, ...]
    views: tuple[Equation, ...]
    donated: tuple[tuple[int, int], ...]
    memory: dict[str, int]
    cost: dict[str, int]
    machine: Machine
    note: str = ""

    def all_steps(self) -> Iterator[ExplainedStep]:
        """The steps, each followed by those of the programs that it owns."""
        return _walk(self.steps)

    @property
    def kernels(self) -> tuple[ExplainedStep, ...]:
        """All kernels, also those inside loops. A loop that is one kernel in registers is a loop."""
        return tuple([s for s in self.all_steps() if s.kind == "kernel"])

    @property
    def host_steps(self) -> tuple[ExplainedStep, ...]:
        """All steps that run in Python, also those inside loops."""
        return tuple([s for s in self.all_steps() if s.kind == "host"])

    @property
    def measured_seconds(self) -> float | None:
        """The sum over the steps; None where they were not measured."""
        times = [s.measured_seconds for s in self.steps if s.kind != "elided"]
        return None if any(t is None for t in times) else sum([t for t in times if t is not None])

    @property
    def estimated_seconds(self) -> float | None:
        """The sum over the steps; None where one has no estimate: a host step, a loop of unknown length, a loop in
        registers."""
        times = [s.estimated_seconds for s in self.steps if s.kind != "elided"]
        return None if any(t is None for t in times) else sum([t for t in times if t is not None])

    def __str__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)


def _walk(steps: Sequence[ExplainedStep]) -> Iterator[ExplainedStep]:
    for step in steps:
        yield step
        for program in step.programs:
            yield from _walk(program.steps)
