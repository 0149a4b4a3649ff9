"""Objects called with no Python in between: when they run a program by themselves, and when their method is called."""

from __future__ import annotations

import gc
import pickle
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.jit import JitFunction
from funcgrad.runtime import callables
from funcgrad.runtime.callables import NativelyCalled

X = np.arange(3.0)


def warm(f: Any, *args: Any) -> JitFunction:
    jitted = fg.jit(f)
    for _ in range(3):
        jitted(*args)
    return jitted


@contextmanager
def method_calls() -> Iterator[list[Any]]:
    """The calls of jitted functions that get as far as `_run_known`, that is, to Python."""
    seen: list[Any] = []
    original = JitFunction._run_known

    def run_known(self: JitFunction, args: Any, kwargs: Any) -> Any:
        seen.append(args)
        return original(self, args, kwargs)

    JitFunction._run_known = run_known  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        JitFunction._run_known = original  # type: ignore[method-assign]


def test_types_and_objects_are_laid_out_as_expected_here() -> None:
    """Elsewhere calls go through the method; on the interpreters that we test they must not."""
    assert callables._layout_holds()


def test_a_known_call_does_not_get_to_python() -> None:
    f = warm(lambda x, s: (x * s, np.sum(x)), X, 2.0)
    with method_calls() as seen:
        y, total = f(X + 1, 3.0)
        assert not seen
    assert y.tolist() == [3, 6, 9] and total == 6
    with method_calls() as seen:
        assert f(X, s=3.0)[0].tolist() == [0, 3, 6] and f(X[:2], 3.0)[0].tolist() == [0, 3]
        assert len(seen) == 2


def test_several_signatures_are_known() -> None:
    f = fg.jit(lambda x: x * 2)
    inputs: list[Any] = [np.arange(float(n)) for n in range(6)]
    for x in (*inputs, *inputs):
        f(x)
    with method_calls() as seen:
        for x in inputs:
            np.testing.assert_array_equal(f(x), x * 2)
        assert not seen


def test_more_signatures_than_are_remembered() -> None:
    f = fg.jit(lambda x: x + 1)
    inputs = [np.arange(float(n)) for n in range(20)]
    for _ in range(3):
        for x in inputs:
            np.testing.assert_array_equal(f(x), x + 1)
    assert len(f.programs) == 8 == len(set(f.programs))
    for _ in range(70):  # one that stays gets its place
        f(inputs[19])
    with method_calls() as seen:
        f(inputs[19])
        assert not seen


def test_while_something_is_traced_calls_are_traced() -> None:
    f = warm(lambda x: x**2, 3.0)
    assert "jit" in str(fg.make_jaxpr(lambda x: x + f(2.0))(1.0))
    assert fg.grad(lambda x: f(x) + f(2.0))(3.0) == 6.0
    with method_calls() as seen:
        assert f(2.0) == 4.0 and not seen  # the traces are closed again
    with pytest.raises(ZeroDivisionError):
        fg.make_jaxpr(lambda x: x + 1 / 0)(1.0)
    with method_calls() as seen:
        assert f(2.0) == 4.0 and not seen


def test_a_trace_in_another_thread_changes_no_result() -> None:
    f = warm(lambda x: x * 3, 1.0)
    inside, done = threading.Event(), threading.Event()

    def traced(x: Any) -> Any:
        inside.set()
        assert done.wait(30)
        return x + f(1.0)

    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(str(fg.make_jaxpr(traced)(1.0))))
    thread.start()
    assert inside.wait(30)
    assert f(2.0) == 6.0
    done.set()
    thread.join()
    assert "jit" in found[0] and f(2.0) == 6.0


def test_switches_that_watch_calls_see_them_and_leave_no_trace() -> None:
    f = warm(np.log, 1.0)
    for _ in range(2):
        with fg.debug_nans(), pytest.raises(fg.errors.NonFiniteError), np.errstate(all="ignore"):
            for _ in range(3):
                f(-1.0)
        assert np.isnan(f(-1.0))
        with method_calls() as seen:
            f(1.0)
            f(1.0)
            assert len(seen) <= 1


def test_a_class_with_a_call_of_its_own_keeps_it() -> None:
    class Loud(JitFunction):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return "loud", super().__call__(*args, **kwargs)

    f = Loud(lambda x: x + 1, (), frozenset(), (), frozenset(), False)
    g = warm(lambda x: x + 1, 1.0)
    for _ in range(4):
        assert f(1.0) == ("loud", 2.0) and g(1.0) == 2.0

    class Quiet(JitFunction):
        pass

    h = Quiet(lambda x: x + 1, (), frozenset(), (), frozenset(), False)
    assert [h(1.0) for _ in range(4)] == [2.0] * 4


def test_without_a_method_there_is_nothing_to_call() -> None:
    class Bare(NativelyCalled):
        __slots__ = ()

    with pytest.raises(NotImplementedError):
        Bare()()


def test_forgetting_during_a_call() -> None:
    def forget(x: Any) -> Any:
        fg.clear_caches()
        gc.collect()
        return x

    def f(x: Any) -> Any:
        return fg.pure_callback(forget, fg.ShapeDtypeStruct((3,), np.float64), x) * 2

    g = warm(f, X)
    for _ in range(20):
        assert g(X).tolist() == [0, 2, 4]
        assert not g.programs
        g(X)


def test_exceptions_of_host_steps_come_through() -> None:
    def fail(x: Any) -> Any:
        if x[0] > 0:
            raise KeyError("no such key")
        return x

    f = warm(lambda x: fg.pure_callback(fail, fg.ShapeDtypeStruct((3,), np.float64), x) + 1, X)
    with pytest.raises(KeyError, match="no such key"):
        f(X + 1)
    assert f(X).tolist() == [1, 2, 3]


def test_references_and_pickles() -> None:
    f = warm(lambda x, s: x * s, X, 2.0)
    counts = [sys.getrefcount(o) for o in (f, X, X.dtype, f._programs, np.float64)]
    for _ in range(10_000):
        f(X, 3.0)
    after = [sys.getrefcount(o) for o in (f, X, X.dtype, f._programs, np.float64)]
    assert all(abs(a - b) < 50 for a, b in zip(after, counts, strict=True)), (counts, after)
    g = fg.jit(np.sin)
    g(X)
    g(X)
    copy = pickle.loads(pickle.dumps(g))
    assert copy is not g and not copy.programs
    np.testing.assert_array_equal(copy(X), g(X))


def test_methods() -> None:
    class Model:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        @fg.jit
        def scaled(self, x: Any) -> Any:
            return x * self.factor

    fg.tree_util.register_pytree_node(Model, lambda m: ((m.factor,), None), lambda _, kids: Model(*kids))
    for k in range(4):
        assert Model(k + 0.5).scaled(2.0) == 2 * k + 1
