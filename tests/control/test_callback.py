"""Callbacks: values against NumPy, calls against a log kept by a Python loop, eagerly and compiled."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import ShapeDtypeStruct, lax
from funcgrad.core.jaxpr import check_jaxpr
from funcgrad.passes.pipeline import optimize

SCALAR = ShapeDtypeStruct((), float)
RUNS: dict[str, Callable[..., Any]] = {"eager": lambda f: f, "jit": fg.jit}


class Log(list[Any]):
    """A callback that keeps what it is given."""

    def __call__(self, *args: Any) -> None:
        self.append(tuple([np.asarray(x).tolist() for x in args]))


# Each is a function of a log and a number: it calls the log by debug.callback. Run on plain numbers with the log itself
# in place of the callback, by Python's own loops, it gives the calls that are wanted.


def straight(call: Any, x: Any) -> Any:
    call(x)
    y = x * 2
    call(y, x)
    return y + 1


def of_scan(call: Any, x: Any) -> Any:
    def body(c: Any, a: Any) -> Any:
        call(c, a)
        return c * a, c

    return lax.scan(body, x, np.array([1.0, 2.0, 3.0]))[0]


def of_scan_of_constants(call: Any, x: Any) -> Any:
    def body(c: Any, a: Any) -> Any:
        call(x)  # nothing changes from step to step: it must not move out of the loop
        return c + a, None

    return lax.scan(body, 0.0, np.array([1.0, 2.0, 3.0]))[0]


def of_large_scan(call: Any, x: Any) -> Any:
    def body(c: Any, a: Any) -> Any:
        call(np.sum(c))
        return c + a, None

    return np.sum(lax.scan(body, np.ones(40) * x, np.ones((3, 40)))[0])


def of_while(call: Any, x: Any) -> Any:
    def body(s: Any) -> Any:
        call(*s)
        return s[0] + 1, s[1] * 1.5

    return lax.while_loop(lambda s: s[1] < 10, body, (0, x))[1]


def of_condition(call: Any, x: Any) -> Any:
    def cond(s: Any) -> Any:
        call(s)
        return s < 3

    return lax.while_loop(cond, lambda s: s + 1, x)


def of_branches(call: Any, x: Any) -> Any:
    def yes(y: Any) -> Any:
        call(y)
        return y

    def no(y: Any) -> Any:
        call(y, y)
        return y * 2

    return lax.cond(x > 1, yes, no, x) + lax.cond(x > 100, yes, no, x)


def of_branches_without_results(call: Any, x: Any) -> Any:
    lax.fori_loop(0, 4, lambda i, y: lax.cond(i % 2 == 0, lambda: call(i), lambda: None) or y, x)
    return x


def of_nested_loops(call: Any, x: Any) -> Any:
    def outer(i: Any, y: Any) -> Any:
        call(i, y)
        return lax.fori_loop(0, 2, lambda j, z: (call(i, j), z + 1)[1], y)

    return lax.fori_loop(0, 2, outer, x)


def of_nested_jit(call: Any, x: Any) -> Any:
    f = fg.jit(lambda y: (call(y), y + 1)[1])
    return f(x) + f(x)


def of_checkpoint(call: Any, x: Any) -> Any:
    def f(y: Any) -> Any:
        call(y)
        return np.sin(np.sin(y) * y)

    return fg.checkpoint(lambda y: fg.checkpoint(f)(y) + f(y))(x)


def of_loops_with_checkpoints(call: Any, x: Any) -> Any:
    def body(s: Any) -> Any:
        call(s[1])
        return s[0] + 1, lax.fori_loop(0, 4, lambda j, z: (call(j, z), np.sin(z) * z)[1], s[1], checkpoint=True)

    return lax.while_loop(lambda s: s[0] < 3, body, (0, x), checkpoint=True)[1]


PROGRAMS = {
    f.__name__: f
    for f in (straight, of_scan, of_scan_of_constants, of_large_scan, of_while, of_condition, of_branches,
              of_branches_without_results, of_nested_loops, of_nested_jit, of_checkpoint, of_loops_with_checkpoints)
}  # fmt: skip


class PlainLoops:
    """Control flow by Python."""

    @staticmethod
    def scan(f: Any, c: Any, xs: Any) -> Any:
        for x in xs:
            c, _ = f(c, x)
        return c, None

    @staticmethod
    def while_loop(cond: Any, body: Any, s: Any, checkpoint: Any = None) -> Any:
        while cond(s):
            s = body(s)
        return s

    @staticmethod
    def fori_loop(a: int, b: int, f: Any, x: Any, checkpoint: Any = None) -> Any:
        for i in range(a, b):
            x = f(i, x)
        return x

    @staticmethod
    def cond(p: Any, yes: Any, no: Any, *xs: Any) -> Any:
        return yes(*xs) if p else no(*xs)


def wanted_calls(name: str, x: float, monkeypatch: pytest.MonkeyPatch) -> tuple[Log, Any]:
    log = Log()
    with monkeypatch.context() as m:
        m.setitem(PROGRAMS[name].__globals__, "lax", PlainLoops)
        m.setattr(fg, "jit", lambda f: f)
        m.setattr(fg, "checkpoint", lambda f: f)
        return log, PROGRAMS[name](log, x)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_calls_come_as_often_and_in_the_order_that_is_written(
    name: str, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, value = wanted_calls(name, 1.25, monkeypatch)
    log = Log()
    f = RUNS[run](lambda x: PROGRAMS[name](lambda *xs: fg.debug.callback(log, *xs), x))
    for _ in range(3):  # the compiled program anew, by its entry, and by the built-in
        log.clear()
        np.testing.assert_allclose(f(1.25), value)
        assert log == wanted
    assert wanted


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("derivative", ["grad", "jvp", "value_and_grad of jit"])
def test_derivatives_see_through_debug_callbacks(
    name: str, run: str, derivative: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called once, in the forward pass; and the derivative is that of the program without them."""
    wanted, _ = wanted_calls(name, 1.25, monkeypatch)
    log = Log()

    def f(x: Any) -> Any:
        return PROGRAMS[name](lambda *xs: fg.debug.callback(log, *xs), x)

    def of(f: Any) -> Any:
        if derivative == "grad":
            return fg.grad(f)
        if derivative == "jvp":
            return lambda x: fg.jvp(f, (x,), (1.0,))[1]
        return lambda x: fg.value_and_grad(fg.jit(f))(x)[1]

    found = RUNS[run](of(f))(1.25)
    assert log == wanted
    np.testing.assert_allclose(found, of(lambda x: PROGRAMS[name](lambda *xs: None, x))(1.25), rtol=1e-12)


@pytest.mark.parametrize("name", PROGRAMS)
def test_passes_keep_effects(name: str) -> None:
    log = Log()
    closed = fg.make_jaxpr(lambda x: (PROGRAMS[name](lambda *xs: fg.debug.callback(log, *xs), x), 0.0)[1])(1.25)
    check_jaxpr(optimize(closed, check=True).jaxpr)
    fg.jit(lambda x: (PROGRAMS[name](lambda *xs: fg.debug.callback(log, *xs), x), 0.0)[1])(1.25)
    assert log  # although no result depends on anything


# pure_callback -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS)
def test_pure_callback_of_pytrees(run: str) -> None:
    def spectrum(m: Any, *, scale: Any) -> Any:
        values, vectors = np.linalg.eigh(m["a"])
        return {"values": values * scale[0], "n": np.int32(len(values))}, [vectors]

    def f(m: Any, s: Any) -> Any:
        shapes = ({"values": ShapeDtypeStruct((3,), float), "n": ShapeDtypeStruct((), np.int32)}, [m["a"]])
        out, (vectors,) = fg.pure_callback(spectrum, shapes, m, scale=(s,))
        return out["values"] + 1, out["n"], vectors * 2

    m = {"a": np.diag([3.0, 1.0, 2.0])}
    values, n, vectors = RUNS[run](f)(m, 2.0)
    np.testing.assert_allclose(values, [3.0, 5.0, 7.0])
    assert n == 3 and n.dtype == np.int32
    np.testing.assert_allclose(vectors, 2 * np.linalg.eigh(m["a"])[1])


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("dims", [(0, 0), (1, None), (None, 0)])
@pytest.mark.parametrize("method", ["sequential", "sequential_unrolled", "expand_dims", "broadcast_all"])
def test_vmap_methods(method: str, dims: Any, run: str, rng: np.random.Generator) -> None:
    shapes: list[Any] = []

    def add(a: Any, b: Any) -> Any:
        shapes.append((a.shape, b.shape))
        return a + b

    a = rng.normal(size=(4, 3)) if dims[0] != 1 else rng.normal(size=(3, 4))
    b = rng.normal(size=(4, 3))
    args = [x if d is not None else x[0] for x, d in zip((a, b), dims, strict=True)]

    def f(x: Any, y: Any) -> Any:
        return fg.pure_callback(add, ShapeDtypeStruct((3,), float), x, y, vmap_method=method)

    found = RUNS[run](fg.vmap(f, dims))(*args)
    each = [f(*[x if d is None else np.take(x, k, d) for x, d in zip(args, dims, strict=True)]) for k in range(4)]
    np.testing.assert_array_equal(found, each)
    lone = (1, 3) if method == "expand_dims" else (4, 3)
    batched = tuple([(4, 3) if d is not None else lone for d in dims])
    expected = [((3,), (3,))] * 4 if method.startswith("sequential") else [batched]
    assert shapes[: len(expected)] == expected


def test_vmap_of_vmap() -> None:
    def f(x: Any, y: Any) -> Any:
        return fg.pure_callback(np.add, SCALAR, x, y, vmap_method="broadcast_all")

    x, y = np.arange(3.0), np.arange(4.0) * 10
    for method in ("broadcast_all", "sequential", "expand_dims"):
        g = lambda x, y: fg.pure_callback(np.add, SCALAR, x, y, vmap_method=method)  # noqa: E731, B023
        for run in RUNS.values():
            both = run(fg.vmap(fg.vmap(g, (None, 0)), (0, None)))
            np.testing.assert_array_equal(both(x, y), np.add.outer(x, y))


def test_the_older_form_of_vmap_method() -> None:
    x = np.arange(3.0)
    f = lambda vectorized: fg.vmap(lambda a: fg.pure_callback(np.sin, SCALAR, a, vectorized=vectorized))  # noqa: E731
    np.testing.assert_array_equal(f(True)(x), np.sin(x))
    np.testing.assert_array_equal(f(False)(x), np.sin(x))
    with pytest.raises(ValueError, match="older form"):
        fg.pure_callback(np.sin, SCALAR, 1.0, vectorized=True, vmap_method="sequential")
    with pytest.raises(ValueError, match="must be None or one of"):
        fg.pure_callback(np.sin, SCALAR, 1.0, vmap_method="parallel")
    with pytest.raises(NotImplementedError, match="vmap_method"):
        fg.vmap(lambda a: fg.pure_callback(np.sin, SCALAR, a))(x)


def test_an_empty_batch_calls_nothing() -> None:
    log = Log()
    fg.vmap(lambda x: fg.debug.callback(log, x))(np.zeros((0, 2)))
    out = fg.vmap(lambda x: fg.pure_callback(lambda a: a, SCALAR, x, vmap_method="sequential"))(np.zeros(0))
    assert log == [] and out.shape == (0,)


@pytest.mark.parametrize("derivative", [fg.grad, fg.jit, lambda f: fg.grad(fg.jit(f))])
def test_not_differentiable(derivative: Any) -> None:
    for call in (fg.pure_callback, fg.io_callback):
        f = fg.grad(lambda x: call(np.sin, SCALAR, x)) if derivative is fg.jit else (  # noqa: B023
            lambda x: call(np.sin, SCALAR, x))  # noqa: B023  # fmt: skip
        with pytest.raises(fg.NonDifferentiableError, match="custom_jvp or custom_vjp"):
            derivative(f)(1.0)


def test_not_needed_for_the_derivative() -> None:
    f = lambda x: x * fg.pure_callback(np.sin, SCALAR, lax.stop_gradient(x))  # noqa: E731
    np.testing.assert_allclose(fg.grad(f)(2.0), np.sin(2.0))
    np.testing.assert_allclose(fg.jit(fg.grad(f))(2.0), np.sin(2.0))


# what goes wrong -----------------------------------------------------------------------------------------------------

WRONG = {
    "shape": (lambda x: np.ones(4), ShapeDtypeStruct((3,), float), r"float64\[4\] for result, where float64\[3\]"),
    "dtype": (lambda x: np.ones(3, "f4"), ShapeDtypeStruct((3,), float), r"\.astype\('float64'\)"),
    "an integer as a float": (lambda x: np.arange(3), ShapeDtypeStruct((3,), float), r"int64\[3\]"),
    "a float as an integer": (lambda x: 1.5, ShapeDtypeStruct((), int), r"float64\[\] for result"),
    "structure": (lambda x: (1.0, 2.0), SCALAR, "another structure"),
    "one leaf": (lambda x: {"a": 1.0, "b": np.ones(2)}, {"a": SCALAR, "b": SCALAR}, r"result\['b'\]"),
    "nothing": (lambda x: None, SCALAR, "another structure"),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", WRONG)
def test_results_are_checked(name: str, run: str) -> None:
    callback, shapes, words = WRONG[name]
    with pytest.raises(TypeError, match=words):
        RUNS[run](lambda x: fg.pure_callback(callback, shapes, x))(np.ones(3))


def test_python_numbers_take_the_declared_dtype() -> None:
    for dtype, value in (("f4", 1.5), ("i2", 3), (float, 2), (complex, 1.0), (bool, True)):
        out = fg.jit(lambda: fg.pure_callback(lambda: value, ShapeDtypeStruct((), dtype)))()  # noqa: B023
        assert out == value and out.dtype == dtype


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="argument 'mode'"):
        fg.pure_callback(lambda mode: 1.0, SCALAR, mode="fast")
    with pytest.raises(TypeError, match=r"argument 0\['a'\]"):
        fg.io_callback(lambda x: 1.0, SCALAR, {"a": "text"})
    with pytest.raises(TypeError, match="ShapeDtypeStruct"):
        fg.pure_callback(np.sin, float, 1.0)
    with pytest.raises(TypeError, match="expects a function"):
        fg.debug.callback(3, 1.0)


class Trouble(Exception):
    pass


@pytest.mark.parametrize("run", RUNS)
def test_exceptions_come_through_and_leave_the_program_sound(run: str) -> None:
    calls = itertools.count()

    def sometimes(x: Any) -> Any:
        if next(calls) % 5 == 3:
            raise Trouble("mine", float(np.max(x)))
        return x + 1

    def f(x: Any) -> Any:
        y = lax.fori_loop(
            0, 3, lambda i, y: lax.cond(i < 9, lambda z: fg.pure_callback(sometimes, z, z), lambda z: z, y), x * 2
        )
        return y - 1, np.sum(y)

    g = RUNS[run](f)
    x = np.arange(50.0)
    raised = 0
    for _ in range(20):
        try:
            y, total = g(x)
        except Trouble as error:
            raised += 1
            assert error.args[0] == "mine"
            continue
        np.testing.assert_array_equal(y, 2 * x + 2)
        assert total == np.sum(2 * x + 3)
    assert raised >= 5


def test_arrays_may_be_kept_and_written_to() -> None:
    kept = []

    def keep(x: Any, y: Any) -> Any:
        kept.append(x)
        x[:] = -1  # its own
        return y * 2

    f = fg.jit(lambda x: fg.pure_callback(keep, x, x + 1, x))
    given = np.arange(4.0)
    np.testing.assert_array_equal(f(given), 2 * np.arange(4.0))
    for n in range(1, 4):
        f(np.full(4, float(n)))
    gc.collect()
    np.testing.assert_array_equal(kept, np.full((4, 4), -1.0))
    fg.pure_callback(keep, given, given, given)
    np.testing.assert_array_equal(given, np.arange(4.0))


def test_a_callback_may_return_what_it_was_given() -> None:
    x = np.arange(6.0)
    f = fg.jit(lambda x: (fg.pure_callback(lambda a: a, x, x + 1), fg.pure_callback(lambda a: a[::-1], x, x + 1)))
    for out, wanted in zip(f(x), (x + 1, x[::-1] + 1), strict=True):
        np.testing.assert_array_equal(out, wanted)


def test_a_callback_may_use_the_library() -> None:
    """Also the very function that it is called from, which is busy."""

    @fg.jit
    def f(n: Any) -> Any:
        return lax.cond(n > 0, lambda n: fg.pure_callback(lambda k: k + f(k - 1), n, n), lambda n: n, n)

    assert f(np.int64(5)) == 15


@pytest.mark.parametrize("around", ["eager", "jit", "grad", "vmap", "jit of grad"])
def test_a_callback_computes_with_values(around: str) -> None:
    """Whatever is traced around it: its own operations are not."""

    def inner(x: Any) -> Any:
        return fg.grad(lambda y: fg.numpy.sin(y) ** 2)(float(x)) + fg.numpy.sum(x) * 0

    def f(x: Any) -> Any:
        return fg.pure_callback(inner, SCALAR, lax.stop_gradient(x), vmap_method="sequential") * x

    wanted = np.sin(1.0)
    found = {
        "eager": lambda: f(0.5) / 0.5,
        "jit": lambda: fg.jit(f)(0.5) / 0.5,
        "grad": lambda: fg.grad(f)(0.5),
        "vmap": lambda: fg.vmap(f)(np.array([0.5, 0.5]))[1] / 0.5,
        "jit of grad": lambda: fg.jit(fg.grad(f))(0.5),
    }[around]()
    np.testing.assert_allclose(found, wanted)


def test_a_callback_stays_in_its_loop() -> None:
    """What no step runs must not run, even if nothing in it changes from step to step."""

    def fail(x: Any) -> Any:
        raise Trouble

    @fg.jit
    def f(x: Any, n: Any) -> Any:
        return lax.while_loop(lambda i: i < n, lambda i: i + fg.pure_callback(fail, x, x), 0)

    assert f(np.int64(1), 0) == 0
    with pytest.raises(Trouble):
        f(np.int64(1), 1)


def test_scalars_and_arrays() -> None:
    """0-d values are NumPy's scalars, as everywhere; others arrays in memory of their own."""
    seen: list[Any] = []
    for run in RUNS.values():
        run(lambda x, n: fg.debug.callback(lambda *xs: seen.extend(xs), x, n, np.sum(x)))(np.ones((2, 3)), 4)
    assert [type(x) for x in seen] == 2 * [np.ndarray, np.int64, np.float64]


# io_callback ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS)
def test_io_callback_is_called_though_nobody_reads_it(run: str) -> None:
    counter = itertools.count()

    def draw() -> Any:
        return float(next(counter))

    def f(x: Any) -> Any:
        fg.io_callback(draw, SCALAR)
        a = fg.io_callback(draw, SCALAR, ordered=True)
        b = fg.io_callback(draw, SCALAR, ordered=True)  # must not be taken for the same as a
        return 10 * a + b + 0 * x

    g = RUNS[run](f)
    assert [float(g(1.0)) for _ in range(3)] == [12.0, 45.0, 78.0]


def test_io_callback_under_vmap() -> None:
    log = Log()
    f = lambda ordered: fg.vmap(lambda x: fg.io_callback(log, None, x, ordered=ordered))  # noqa: E731
    f(False)(np.arange(3.0))
    assert log == [(0.0,), (1.0,), (2.0,)]
    with pytest.raises(ValueError, match="ordered=True"):
        f(True)(np.arange(3.0))


def test_io_callback_in_differentiated_loops() -> None:
    """A scan calls it once for each step; a while loop in reverse mode would have to call it again, and says so."""
    data = [2.0, 3.0, 5.0]
    for run in RUNS.values():
        stream = iter(data)
        draw = lambda: next(stream)  # noqa: E731, B023
        f = lambda x: lax.fori_loop(0, 3, lambda i, y: np.sin(y) * fg.io_callback(draw, SCALAR), x)  # noqa: E731, B023

        def plain(x: Any) -> Any:
            for a in data:
                x = np.sin(x) * a
            return x

        np.testing.assert_allclose(run(fg.grad(f))(0.3), fg.grad(plain)(0.3), rtol=1e-12)
        assert next(stream, None) is None

    def once(y: Any) -> Any:
        return np.sin(np.sin(y) * fg.io_callback(lambda: next(stream), SCALAR))

    recomputed = {
        "checkpoint": lambda x: fg.checkpoint(lambda y: fg.checkpoint(once)(2 * y))(x),
        "a call in it": lambda x: fg.checkpoint(fg.jit(lambda y: once(2 * y)))(x),
        "a branch in it": lambda x: fg.checkpoint(lambda y: lax.cond(y > 0, once, lambda z: z, 2 * y))(x),
        "a loop in it": lambda x: fg.checkpoint(lambda y: lax.fori_loop(0, 1, lambda i, z: once(2 * z), y))(x),
        "a loop with it": lambda x: lax.fori_loop(0, 3, lambda i, z: once(2 * z), x, checkpoint=True),
    }
    for name, g in recomputed.items():
        for run in RUNS.values():
            stream = iter(data)  # what was drawn is kept, as nothing else is
            n = 3 if name == "a loop with it" else 1

            def again(x: Any) -> Any:
                for a in data[:n]:  # noqa: B023
                    x = np.sin(np.sin(2 * x) * a)
                return x

            np.testing.assert_allclose(run(fg.grad(g))(0.3), fg.grad(again)(0.3), rtol=1e-12, err_msg=name)
            assert len(list(stream)) == 3 - n

    def loop(x: Any) -> Any:
        return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * fg.io_callback(lambda: 1.0, SCALAR)),
                              (0, x))[1]  # fmt: skip

    with pytest.raises(fg.FuncgradError, match="write the loop with scan"):
        fg.grad(loop)(1.0)


# debug ---------------------------------------------------------------------------------------------------------------


def test_print_per_example_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    def f(x: Any, y: Any) -> Any:
        fg.debug.print("{} {y:.1f} {name}", x, y=y, name="text")
        fg.debug.print("once {{}} {}", 7)
        return x

    fg.jit(fg.vmap(f, (0, None)))(np.arange(2), 2.0)
    assert capsys.readouterr().out == "0 2.0 text\n1 2.0 text\nonce {} 7\n"
    fg.jit(fg.vmap(fg.vmap(lambda x: fg.debug.print("{}", x))))(np.arange(4).reshape(2, 2))
    assert capsys.readouterr().out == "0\n1\n2\n3\n"


FORMATS = {
    "missing": (("{} {x}", 1), {}, "names {x}"),
    "missing position": (("{} {}", 1), {}, "names {1}"),
    "unused": (("x", 1), {}, "argument 0"),
    "unused name": (("{}", 1), {"loss": 2}, "loss="),
    "an f-string": ((f"x = {3}",), {"x": 3}, "f-string"),
    "no string": ((3,), {}, "format string"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_checked_while_tracing(name: str) -> None:
    args, kwargs, words = FORMATS[name]
    with pytest.raises((ValueError, TypeError), match=words):
        fg.jit(lambda: fg.debug.print(*args, **kwargs))()


@pytest.mark.parametrize("transform", [lambda f: f, fg.jit], ids=["eager", "jit"])
def test_formats_that_do_not_fit_the_values_say_so(transform: Any) -> None:
    with pytest.raises(ValueError, match=r"debug.print: the format string '\{:\.2f\}' does not fit values of ndarray"):
        transform(lambda x: fg.debug.print("{:.2f}", x))(np.ones(2))


def test_formats_of_formats(capsys: pytest.CaptureFixture[str]) -> None:
    fg.debug.print("{0:.{n}f}{1[0]}{x.real}", 1.23456, np.ones(1), n=2, x=2j)
    assert capsys.readouterr().out == "1.231.00.0\n"


def test_explain_does_not_repeat_effects() -> None:
    log = Log()
    report = fg.explain(lambda x: lax.fori_loop(0, 3, lambda i, y: (fg.debug.callback(log, i), y * x)[1], x), 2.0)
    assert log == [] and "side effects" in str(report)


def test_threads_share_a_program() -> None:
    f = fg.jit(lambda x: fg.pure_callback(lambda a: a * 2, x, x + 1) - 2)
    f(np.zeros(100))
    wrong: list[Any] = []

    def work(n: int) -> None:
        for _ in range(50):
            if not np.array_equal(f(np.full(100, float(n))), np.full(100, 2.0 * n)):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_interrupt_in_a_callback(repo_root: Path) -> None:
    """Ctrl-C in a callback within a native loop ends the program as KeyboardInterrupt."""
    code = """
import time, numpy as np, funcgrad as fg
def wait(x):
    print("in", flush=True)
    time.sleep(30)
    return x
f = fg.jit(lambda x: fg.lax.fori_loop(0, 5, lambda i, y: fg.pure_callback(wait, y, y), x))
try:
    f(1.0)
except KeyboardInterrupt:
    print("interrupted", flush=True)
g = fg.jit(lambda x: fg.pure_callback(lambda a: a, x, x) + 1)
print(g(1.0))
"""
    env = {**os.environ, "PYTHONPATH": str(repo_root)}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out == "interrupted\n2.0\n"


# rules of one's own ---------------------------------------------------------------------------------------------------


@fg.custom_jvp
def sine(x: Any) -> Any:
    shape = ShapeDtypeStruct(np.shape(x), float)
    return fg.pure_callback(lambda v: np.sin(v), shape, x, vmap_method="expand_dims")


@sine.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (x,), (t,) = primals, tangents
    return sine(x), t * fg.numpy.cos(x)


def test_a_callback_with_its_derivative() -> None:
    x = np.linspace(-1.0, 1.0, 4)
    np.testing.assert_allclose(fg.grad(sine)(0.3), np.cos(0.3))
    np.testing.assert_allclose(fg.jit(fg.vmap(fg.grad(sine)))(x), np.cos(x))
    np.testing.assert_allclose(fg.jit(fg.hessian(lambda x: np.sum(sine(x))))(x), -np.diag(np.sin(x)), atol=1e-14)
    np.testing.assert_allclose(fg.jvp(fg.jit(sine), (x,), (x,))[1], np.cos(x) * x)


def test_looking_at_tangents_in_a_rule() -> None:
    """They are seen on their way forward, also if it is gone backwards."""
    log = Log()

    @fg.custom_jvp
    def f(x: Any) -> Any:
        return x**2

    @f.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        fg.debug.callback(log, tangents[0])
        return f(primals[0]), 2 * primals[0] * tangents[0]

    assert fg.jvp(f, (3.0,), (2.0,))[1] == 12.0 and log == [(2.0,)]
    for g in (fg.grad(f), fg.jit(fg.grad(f)), fg.grad(fg.jit(f))):
        assert g(3.0) == 6.0


def test_io_in_batched_branches_is_refused() -> None:
    """There it would be done for examples that do not ask for it. One predicate for all is no such case."""
    log = Log()

    def f(p: Any, x: Any) -> Any:
        return lax.cond(p, lambda y: (fg.io_callback(log, None, y), y)[1], lambda y: y, x)

    def g(n: Any, x: Any) -> Any:
        return lax.while_loop(
            lambda s: s[0] < n, lambda s: (fg.io_callback(log, None, s[1]), (s[0] + 1, s[1]))[1], (0, x)
        )

    x = np.arange(2.0)
    for h, varying, fixed in ((f, x > 0, True), (g, np.array([1, 2]), 1)):
        with pytest.raises(NotImplementedError, match=r"io_callback in it \(at .*lax\.map"):
            fg.vmap(h)(varying, x)
        assert not log
        fg.jit(fg.vmap(h, (None, 0)))(fixed, x)
        assert log == [(0.0,), (1.0,)]
        log.clear()
