"""The report of `explain`, as text and for notebooks."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .explain_report import Equation, ExplainedProgram, ExplainedStep, Explanation

__all__ = ["as_html", "as_text", "quantity"]

_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_LONGEST = 150
_SOURCE_COLUMN = 60


def quantity(x: float, unit: str) -> str:
    """``12.3 MB``: three digits, decimal prefixes."""
    scale, prefix = next((u for u in _UNITS if x >= u[0]), _UNITS[-1])
    return f"{x / scale:.3g} {prefix}{unit}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    scale, unit = next((u for u in _TIMES if seconds >= u[0]), _TIMES[-1])
    return f"{seconds / scale:.3g} {unit}"


def _where(equation: Equation) -> str:
    if not equation.filename:
        return ""
    name = equation.filename
    if os.path.isabs(name):
        near = os.path.relpath(name)
        name = near if not near.startswith("..") else name
    return f"{name}:{equation.line} ({equation.function})"


def _title(step: ExplainedStep) -> str:
    if step.kind == "elided":
        return f"step {step.number}: a copy of memory to itself, left out"
    loops = " x ".join([f"{role} {extent}" for role, extent in step.loops])
    threads = f", {step.threads} threads" if step.threads > 1 else ""
    kind = step.name if step.kind == "kernel" else f"{step.kind} step {step.name}"
    return f"step {step.number}: {kind}{f' over {loops}' if loops else ''}{threads}"


def _costs(step: ExplainedStep) -> str:
    parts = [f"moves {quantity(step.bytes_moved, 'B')}"]
    if step.operations:
        parts.append(f"computes {quantity(step.operations, 'op')}")
    if step.scratch_bytes:
        parts.append(f"scratch {quantity(step.scratch_bytes, 'B')}{' a thread' if step.kind == 'kernel' else ''}")
    parts.append(f"estimated {duration(step.estimated_seconds)}, measured {duration(step.measured_seconds)}")
    return "; ".join(parts)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _memory(e: Explanation) -> str:
    names = {
        "input_bytes": "arguments", "output_bytes": "results", "constant_bytes": "captured",
        "temporary_bytes": "temporaries", "scratch_bytes": "scratch", "peak_bytes": "together",
    }  # fmt: skip
    parts = [f"{name} {quantity(e.memory[key], 'B')}" for key, name in names.items() if e.memory[key]]
    parts.append(f"{_count(e.memory['in_place'], 'result')} in place")
    return ", ".join(parts)


def _summary(e: Explanation) -> list[str]:
    kinds = [s.kind for s in e.all_steps()]
    distinct = f"{e.cost['kernels']} distinct{', with loops in registers' if _has_register_loops(e) else ''}"
    lines = [
        f"{e.name}: {_count(kinds.count('kernel'), 'kernel')} ({distinct}), "
        f"{_count(kinds.count('library'), 'library step')}, {_count(kinds.count('loop'), 'loop')}, "
        f"{_count(kinds.count('host'), 'host step')}; "
        f"{_count(e.machine.threads, 'thread')}",
        f"  time    estimated {duration(e.estimated_seconds)}, measured {duration(e.measured_seconds)}"
        + (f" ({e.note})" if e.note else ""),
        f"  memory  {_memory(e)}",
    ]
    for result, argument in e.donated:
        lines.append(f"  result {result} is written over argument {argument}, which was donated")
    return lines


def _has_register_loops(e: Explanation) -> bool:
    return any([s.kind == "loop" and s.source for s in e.all_steps()])


def as_text(e: Explanation) -> str:
    return "\n".join([*_summary(e), *_program(e)])


def _program(program: Explanation | ExplainedProgram) -> list[str]:
    lines = []
    for step in program.steps:
        boundaries = [
            f"    apart from step {boundary.producer}, which makes {boundary.buffer} "
            f"({quantity(boundary.nbytes, 'B')}): {boundary.reason}"
            for boundary in program.boundaries
            if boundary.consumer == step.number
        ]
        lines += ["", _title(step), *boundaries, *_step(step)]
    if program.views:
        lines += ["", "without a pass over memory (index arithmetic):", *map(_equation_line, program.views)]
    return lines


def _step(step: ExplainedStep) -> list[str]:
    if step.kind == "elided":
        return []
    over = dict(step.in_place)
    written = [f"{w} (over {over[w]})" if w in over else w for w in step.writes]
    lines = [
        f"    {_costs(step)}",
        f"    reads {', '.join(step.reads) or 'nothing'}; writes {', '.join(written) or 'nothing'}",
    ]
    if step.kind == "host":
        lines.append(f"    in Python because: {step.reason}")
    if step.kind == "loop":
        lines.append(f"    {step.reason}")
    lines += map(_equation_line, step.equations)
    if not step.equations:
        lines.append("        a copy, since results are arrays of their own")
    for inner in step.programs:
        inside = [*map(_equation_line, inner.equations), *_program(inner)] or ["nothing: it returns what it is given"]
        first = 1 if not inside[0] else 0
        lines += [f"    {inner.name}:", *[f"        {line}".rstrip() for line in inside[first:]]]
    return lines


def _equation_line(x: Equation) -> str:
    text = " ".join(x.text.split())
    if "lambda" in text:  # it owns programs, which are shown under it
        text = f"{text[: text.index('[', text.index(' = '))]}[...]"
    text += " (again)" if x.again else ""
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    where = _where(x)
    return f"        {text}" if not where else f"        {text:<{_SOURCE_COLUMN}}  {where}"


def as_html(e: Explanation) -> str:
    """A table of the steps, and under it the report."""
    head = "".join([f"<th>{x}</th>" for x in ("step", "kind", "loops", "moves", "ops", "estimated", "measured")])
    rows = _rows(e.steps, "")
    summary = "<br>".join([html.escape(x) for x in _summary(e)])
    return (
        f"<p>{summary}</p><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"<details><summary>all of it</summary><pre>{html.escape(as_text(e))}</pre></details>"
    )


def _rows(steps: Sequence[ExplainedStep], prefix: str) -> list[str]:
    """Rows of the table; those of programs inside a step are numbered ``3 body 0``."""
    rows = []
    for s in steps:
        cells = (
            f"{prefix}{s.number}",
            s.name if s.kind == "kernel" else f"{s.kind} {s.name}",
            " x ".join([f"{role} {extent}" for role, extent in s.loops]),
            quantity(s.bytes_moved, "B"),
            quantity(s.operations, "op"),
            duration(s.estimated_seconds),
            duration(s.measured_seconds),
        )
        rows.append("<tr>" + "".join([f"<td>{html.escape(c)}</td>" for c in cells]) + "</tr>")
        for inner in s.programs:
            rows += _rows(inner.steps, f"{prefix}{s.number} {inner.name} ")
    return rows
