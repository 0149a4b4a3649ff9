"""``explain``: kernels, boundaries and their reasons, host steps, memory and times, for every stage of ``jit``."""

from __future__ import annotations

import inspect
from time import perf_counter

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.core.avals import ShapedArray
from funcgrad.core.lowering import Host
from funcgrad.core.primitive import REGISTRY, NotDifferentiable, NotLinear, Primitive
from funcgrad.explain_text import duration, quantity
from funcgrad.runtime.clock import seconds_per_tick
from funcgrad.runtime.executor import Program
from funcgrad.runtime.host import Operand, host_step

X = np.linspace(0.1, 1.0, 60_000).reshape(200, 300)


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def line_of(fun, text: str) -> int:
    lines, first = inspect.getsourcelines(fun)
    return first + next(k for k, line in enumerate(lines) if text in line)


def reasons(report: fg.Explanation) -> str:
    return "\n".join(b.reason for b in report.boundaries)


def test_one_kernel_with_its_loops_equations_and_lines() -> None:
    report = fg.explain(softmax, X)
    (step,) = report.steps
    assert step.kind == "kernel" and step.loops == (("parallel", 200), ("inner", 300))
    assert report.boundaries == ()
    assert step.name == "kernel 0" and step.source.startswith("def kernel(")
    names = [e.text.split("= ")[1].split(" ")[0].split("[")[0] for e in step.equations]
    assert names == ["reduce_max", "sub", "exp", "reduce_sum", "div"]
    (exp,) = (e for e in step.equations if "= exp" in e.text)
    assert (exp.filename, exp.line, exp.function) == (__file__, line_of(softmax, "np.exp"), "softmax")
    assert {e.text.split("= ")[1].split("[")[0] for e in report.views} == {"reshape"}
    assert step.bytes_moved == 2 * X.nbytes
    assert report.memory["temporary_bytes"] == 0


def long_chain(x):
    y = x
    for _ in range(50):
        y = y * x + 1.0
    return y


ROWS = {
    "different domain": (lambda x: (y := np.tanh(x), np.sum(y[1:] * y[:-1]))[1:] + (y,), (X,), "different domain"),
    "needed whole": (lambda x: np.cumsum(x) * np.cumsum(x)[::-1], (X[0],), "needed whole before"),
    "long reduction": (lambda x: x / np.max(np.exp(x)), (X.repeat(2, 0),), "long reduction"),
    "other axes": (lambda x: (np.sum(np.exp(x), 0), np.sum(np.exp(x), 1)), (X,), "folds axes [1], "),
    "gemm reads": (lambda x: np.exp(x) @ x.T, (X,), "the library step gemm reads it"),
    "gemm makes": (lambda x: np.exp(x @ x.T), (X,), "the library step gemm makes it"),
    "host reads": (lambda x: np.nextafter(np.exp(x), 9.0), (X,), "the host step nextafter reads it"),
    "host makes": (lambda x: np.exp(np.nextafter(x, 9.0)), (X,), "the host step nextafter makes it"),
    "scatter": (lambda x, i: np.exp(fg.at(x)[i].add(1.0)), (X[0], np.arange(5)), "writing at computed places"),
    "gather": (lambda x, i: np.exp(x)[i] * 2, (X[0], np.array([3, 1, 2])), "needed whole before"),
    "transposed": (lambda x: (y := long_chain(x)) * y.T, (X[:, :200],), "is read in several arrangements"),
}


@pytest.mark.parametrize("name", ROWS)
def test_boundaries_have_reasons(name: str) -> None:
    fun, args, words = ROWS[name]
    report = fg.explain(fun, *args)
    assert words in reasons(report), report
    for b in report.boundaries:
        assert b.producer < b.consumer and b.nbytes > 0
        assert b.buffer in report.steps[b.producer].writes
    assert words in str(report)


def test_heavy_values_of_two_kernels() -> None:
    """The tanh is stored for the second reader, and the report says that it is not computed twice."""
    report = fg.explain(lambda x: (np.sum(np.tanh(x), 0), np.tanh(x)[::-1] @ x.T), X)
    tanh = [s.number for s in report.steps if any("tanh" in e.text and not e.again for e in s.equations)]
    assert len(tanh) == 1


def test_equal_kernels_have_one_name() -> None:
    report = fg.explain(lambda x, y: (np.sin(x), np.sin(y), np.sin(np.cos(x) @ np.ones((300, 5)))), X, X[:50])
    names = [s.name for s in report.kernels]
    sines = [s for s in report.kernels if any("= sin" in e.text for e in s.equations)]
    assert report.cost["kernels"] == len(set(names)) == len({s.source for s in report.kernels}) == 2
    assert len(sines) == 3 and sines[1].name == sines[2].name


def test_cheap_values_are_marked_when_computed_again() -> None:
    report = fg.explain(lambda x: (np.sum(x * 2.0, 0), np.sum(x * 2.0, 1)), X)
    again = [(s.number, e.again) for s in report.steps for e in s.equations if "mul" in e.text]
    assert len(again) == 2 and [flag for _, flag in again] == [False, True]
    assert "(again)" in str(report)


def test_host_steps_say_why() -> None:
    report = fg.explain(lambda x: np.sort(np.nextafter(x, 1.0)), X[0])
    found = {s.name: s.reason for s in report.host_steps}
    assert found.keys() == {"nextafter"}
    assert [s.name for s in report.steps if s.kind == "library"] == ["sort"]
    lower = REGISTRY["nextafter"].lower
    assert found["nextafter"] == (lower.reason if isinstance(lower, Host) else found["nextafter"]) != ""
    assert all(s.measured_seconds is not None and s.estimated_seconds is None for s in report.host_steps)
    assert report.estimated_seconds is None and report.measured_seconds is not None
    assert f"in Python because: {found['nextafter']}" in str(report)
    complex_report = fg.explain(np.tanh, X[0] + 1j)
    if complex_report.host_steps:
        assert "complex128" in complex_report.host_steps[0].reason


def test_library_steps_count_their_work() -> None:
    a, b = np.ones((64, 128), np.float32), np.ones((128, 96), np.float32)
    (step,) = fg.explain(lambda a, b: a @ b, a, b).steps
    assert (step.kind, step.name) == ("library", "gemm")
    assert step.loops == (("rows", 64), ("columns", 96), ("inner", 128))
    assert step.operations == 2 * 64 * 96 * 128
    assert step.bytes_moved == a.nbytes + b.nbytes + 4 * 64 * 96


def test_a_loop_writes_its_results() -> None:
    report = fg.explain(lambda x: fg.lax.scan(lambda c, y: (np.sort(c) + y, np.sum(c)), x[0], x), np.ones((3, 40)))
    (step,) = report.steps
    assert len(step.writes) == 2  # and not its working memory
    assert "2 kernels (2 distinct)" in str(report)


def test_loops_show_the_programs_in_them() -> None:
    def body(c, y):
        return np.tanh(np.sort(c) + y), np.sum(c)

    report = fg.explain(lambda x: np.exp(fg.lax.scan(body, x[0], x)[0]), np.ones((30, 400)))
    loop, last = report.steps
    (program,) = loop.programs
    assert (loop.kind, loop.loops, program.name) == ("loop", (("iterations", 30),), "body")
    assert [s.kind for s in program.steps].count("library") == 1  # the sort
    inner = [s for s in program.steps if s.kind == "kernel"]
    (tanh,) = (e for s in inner for e in s.equations if "= tanh" in e.text)
    assert (tanh.filename, tanh.line) == (__file__, line_of(body, "np.tanh"))
    assert any("sort" in b.reason for b in program.boundaries)
    assert set(report.kernels) == {*inner, last} and len({s.name for s in report.kernels}) == len(report.kernels)
    assert loop.operations == 30 * sum(s.operations for s in program.steps)
    assert loop.estimated_seconds is None  # there is none for the sort
    text = str(report)
    assert "    body:\n        step 0: " in text and "{ lambda" not in text
    assert report._repr_html_().count("<tr>") == 1 + len(list(report.all_steps()))


def test_a_loop_of_kernels_alone_is_estimated() -> None:
    report = fg.explain(lambda x: fg.lax.fori_loop(0, 20, lambda i, y: np.exp(-y), x), np.ones(20_000))
    (loop,) = report.steps
    (kernel,) = loop.programs[0].steps
    assert loop.estimated_seconds == pytest.approx(20 * kernel.estimated_seconds)
    assert loop.measured_seconds is not None


def test_while_loops_and_branches_show_the_programs_in_them() -> None:
    def halve(x):
        return fg.lax.while_loop(lambda y: np.max(y) > 1.0, lambda y: y / 2, x)

    report = fg.explain(halve, np.linspace(0.0, 99.0, 5000))
    assert [p.name for p in report.steps[0].programs] == ["condition", "body"]
    assert report.steps[0].estimated_seconds is None
    report = fg.explain(
        lambda k, x: fg.lax.switch(k, [np.exp, lambda x: np.nextafter(x, 9.0), lambda x: x], x), 1, np.ones(5000)
    )
    (branch,) = (s for s in report.steps if s.kind == "loop")
    assert [p.name for p in branch.programs] == ["branch 0", "branch 1", "branch 2"]
    assert [s.name for s in report.host_steps] == ["nextafter"] and "but for its host steps" in branch.reason


def test_systems_and_determinants_in_and_out_of_loops() -> None:
    a = 3 * np.eye(20) + np.cos(np.arange(400.0)).reshape(20, 20)
    solve = lambda a, b: fg.lax.fori_loop(0, 10, lambda i, x: np.linalg.solve(a, x) + 1, b)  # noqa: E731
    report = fg.explain(solve, a, a[0])
    assert [s.name for s in report.steps if s.kind == "library"] == ["lu"]  # once, before the loop
    (loop,) = (s for s in report.steps if s.kind == "loop")
    assert "triangular_solve" in [s.name for s in loop.programs[0].steps]
    report = fg.explain(lambda a: np.linalg.slogdet(a)[1] + np.linalg.det(a), a)
    assert "the library step lu makes it" in reasons(report)
    assert all(name for s in report.steps for name in (*s.reads, *s.writes))


def test_a_loop_in_registers_shows_its_equations_and_its_text() -> None:
    report = fg.explain(lambda x: fg.lax.fori_loop(0, 50, lambda i, y: np.sin(y) * 0.5, x), 1.0)
    (loop,) = report.steps
    (program,) = loop.programs
    assert program.steps == () and [e.text.split("= ")[1].split(" ")[0] for e in program.equations] == ["sin", "mul"]
    assert "def " in loop.source and "in registers" in str(report)


def test_in_place_and_donated() -> None:
    x = X.copy()
    report = fg.explain(fg.jit(lambda u: u * 2 - 1, donate_argnums=0), x)
    assert report.donated == ((0, 0),) and report.memory["donated_bytes"] == x.nbytes
    np.testing.assert_array_equal(x, X)  # the run for the clock is not to be seen
    assert report.steps[0].in_place == ((report.steps[0].writes[0], "a"),)
    assert "was donated" in str(report)
    report = fg.explain(lambda x: np.exp(x @ x.T), X)
    ((result, old),) = report.steps[1].in_place
    assert old in report.steps[0].writes and result in report.steps[1].writes
    report = fg.explain(lambda x, i: fg.at(np.sort(x))[i].add(1.0), X[0], np.arange(5))
    assert [s.kind for s in report.steps].count("elided") == 1  # the copy that the update would need


STAGES = {
    "function": lambda f: f,
    "jitted": fg.jit,
    "traced": lambda f: fg.jit(f).trace(X),
    "lowered": lambda f: fg.jit(f).lower(X),
    "compiled": lambda f: fg.jit(f).lower(X).compile(),
}


@pytest.mark.parametrize("stage", STAGES)
def test_stages(stage: str) -> None:
    report = fg.explain(STAGES[stage](softmax), X)
    assert report.name == "softmax" and len(report.kernels) == 1
    assert report.measured_seconds is not None and report.measured_seconds > 0
    assert report.estimated_seconds is not None and report.estimated_seconds > 0
    html = report._repr_html_()
    assert html.startswith("<p>softmax") and html.count("<tr>") == 2 and "<lambda" not in html


def test_without_values_nothing_is_measured() -> None:
    for report in (fg.explain(fg.jit(softmax).lower(X)), fg.explain(softmax, fg.ShapeDtypeStruct((3, 4), float))):
        assert report.measured_seconds is None and "no values were given" in str(report)


def test_static_arguments_and_pytrees() -> None:
    f = fg.jit(lambda n, p: {"y": p["x"] ** n}, static_argnums=0)
    report = fg.explain(f, 3, {"x": X})
    assert report.measured_seconds is not None and "integer_pow" in report.jaxpr


def test_side_effects_are_not_repeated() -> None:
    calls = []

    def impl(x):
        calls.append(1)
        return np.asarray(x)

    effect = Primitive(
        "explain_effect", impl=impl, shape=lambda a: ShapedArray(a.shape, a.dtype), jvp=NotDifferentiable("a test"),
        transpose=NotLinear(), batch=lambda size, args, dims: (impl(*args), dims[0]),
        lower=Host("it is an effect"), has_effect=True,
    )  # fmt: skip
    try:
        report = fg.explain(lambda x: effect.bind(x * 2), X[0])
        assert calls == [] and "side effects" in report.note
        assert report.host_steps[0].reason == "it is an effect"
    finally:
        del REGISTRY["explain_effect"]


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="explain: expected a function or a stage of jit, found int"):
        fg.explain(3)  # type: ignore[arg-type]
    compiled = fg.jit(softmax).lower(X).compile()
    with pytest.raises(TypeError, match=r"traced for float64.*given float64"):
        fg.explain(compiled, X[:3])
    with pytest.raises(TypeError, match="another structure"):
        fg.explain(compiled, [X])


def test_a_timed_run_gives_what_the_program_gives() -> None:
    """The clock runs the very steps, over slots of its own."""
    f = fg.jit(lambda x, s: (np.sort(np.tanh(x) * s) @ x.T, np.sum(x)))
    executable = f.lower(X, 2.0).executable
    expected = executable([X, 2.0])
    outputs = [make() for make in executable._allocators]
    ticks = executable.program.timed([X, 2.0], outputs)()
    assert len(ticks) == len(executable.program.steps) and (ticks > 0).all()
    for a, b in zip(expected, outputs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_times_of_steps_add_up_to_the_time_of_the_program() -> None:
    def chain(x):
        for k in range(40):
            x = np.cumsum(x, axis=k % 2) * 0.5
        return x

    x = np.ones((100, 100))
    executable = fg.jit(chain).lower(x).executable
    outputs = [make() for make in executable._allocators]
    once = executable.program.timed([x], outputs)
    ratios = []
    for _ in range(9):  # whatever else the machine does in a run is in both times
        start = perf_counter()
        ticks = once()
        ratios.append(ticks.sum() * seconds_per_tick() / (perf_counter() - start))
    assert 0.7 < np.median(ratios) < 1.05, ratios


def test_errors_of_steps_that_are_timed_reach_the_caller() -> None:
    def complain(x):
        raise KeyError("no")

    step = host_step(complain, [Operand(0, (2,), np.dtype(float))], [Operand(1, (2,), np.dtype(float))])
    program = Program([step], 1, 1)
    with pytest.raises(KeyError, match="no"):
        program.timed([np.ones(2)], [np.ones(2)])()


def test_long_programs_are_explained_in_little_memory_and_time() -> None:
    def chain(x):
        for k in range(400):
            x = np.cumsum(x, axis=k % 2) * 0.5
        return x

    report = fg.explain(chain, np.ones((3, 4)))
    assert len(report.steps) >= 400 and report.measured_seconds is not None
    assert len(str(report)) > 10_000


def test_quantities() -> None:
    assert [quantity(x, "B") for x in (0, 12, 1234, 5e6, 7.25e9)] == ["0 B", "12 B", "1.23 kB", "5 MB", "7.25 GB"]
    assert [duration(x) for x in (None, 2e-9, 3.456e-5, 0.25, 2)] == ["-", "2 ns", "34.6 µs", "250 ms", "2 s"]
