"""``debug_nans``: the operation, the line, the pass and the step that are named are those where the NaN was made."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import NonFiniteError, lax
from funcgrad.core.trace import EvalTrace, Trace
from funcgrad.debug import Input, Origin
from funcgrad.jit import Compiled, JitFunction


def line_of(marker: str) -> int:
    """The line of this file that ends with ``# marker``."""
    for number, line in enumerate(Path(__file__).read_text(encoding="utf-8").splitlines(), 1):
        if line.endswith(f"# {marker}"):
            return number
    raise LookupError(marker)


# programs: function, argument, marker of the line, primitive, backward, steps of loops


def log_of_negative(x: Any) -> Any:
    y = x * 2
    z = np.log(y)  # log
    return np.sum(z + 1)


def root_of_nothing(x: Any) -> Any:
    squares = x**2  # squares
    return np.sqrt(np.sum(squares))


def in_a_scan(x: Any) -> Any:
    def body(c: Any, a: Any) -> Any:
        c = np.sqrt(c - a)  # scan body
        return c, c

    return lax.scan(body, x, np.arange(5.0))[0]


def in_a_reversed_scan(x: Any) -> Any:
    def body(c: Any, a: Any) -> Any:
        return c + np.log(a), None  # reversed body

    return lax.scan(body, x, np.array([1.0, -1.0, 1.0, 1.0]), reverse=True)[0]


def in_a_while(x: Any) -> Any:
    def body(s: Any) -> Any:
        i, y = s
        return i + 1, np.sqrt(y - 1.0)  # while body

    return lax.while_loop(lambda s: s[0] < 5, body, (0, x))[1]  # while loop


def in_a_branch(x: Any) -> Any:
    return lax.cond(x > 0, lambda y: y, lambda y: np.log(y), x)  # branch


def in_nested_loops(x: Any) -> Any:
    def outer(i: Any, y: Any) -> Any:
        return lax.fori_loop(0, 3, lambda j, z: z + np.log(5.0 - i * 3 - j), y)  # nested

    return lax.fori_loop(0, 4, outer, x)


def in_a_jit(x: Any) -> Any:
    return fg.jit(log_of_negative)(x)


def in_a_checkpoint(x: Any) -> Any:
    return fg.checkpoint(log_of_negative)(x)


def in_loops_with_checkpoints(x: Any) -> Any:
    def outer(s: Any) -> Any:
        i, y = s
        inner = lambda z, j: (z + np.log(3.5 - 2 * i - j), None)  # noqa: E731  # checkpoints
        return i + 1, lax.scan(inner, y, np.arange(3.0))[0]

    return lax.while_loop(lambda s: s[0] < 3, outer, (0, x), checkpoint=True)[1]


def backward_of_scan(x: Any) -> Any:
    def body(c: Any, a: Any) -> Any:
        return root_of_nothing(c * a * np.ones(2)), None

    return lax.scan(body, x, np.array([1.0, 0.0, 1.0]))[0]


ones = np.array([1.0, -1.0])
FORWARD: dict[str, tuple[Callable[..., Any], Any, str, str, list[int]]] = {
    "straight": (log_of_negative, ones, "log", "log", []),
    "scan": (in_a_scan, 4.0, "scan body", "sqrt", [2]),
    "reversed scan": (in_a_reversed_scan, 1.0, "reversed body", "log", [1]),
    "while": (in_a_while, 4.0, "while body", "sqrt", [2]),
    "branch": (in_a_branch, -1.0, "branch", "log", []),
    "nested loops": (in_nested_loops, 0.0, "nested", "log", [2, 0]),
    "jit": (in_a_jit, ones, "log", "log", []),
    "checkpoint": (in_a_checkpoint, ones, "log", "log", []),
    "loops with checkpoints": (in_loops_with_checkpoints, 1.0, "checkpoints", "log", [1, 2]),
}
WAYS: dict[str, Callable[[Any], Any]] = {
    "jit": fg.jit,
    "jit of jit": lambda f: fg.jit(fg.jit(f)),
    "eager value_and_grad": lambda f: lambda x: fg.value_and_grad(f)(x),
    "value_and_grad of jit": lambda f: lambda x: fg.value_and_grad(fg.jit(f))(x),
    "jit of value_and_grad": lambda f: fg.jit(fg.value_and_grad(f)),
    "jit of jvp": lambda f: fg.jit(lambda x: fg.jvp(f, (x,), (x,))),
    "vmap": lambda f: lambda x: fg.vmap(f)(np.stack([x, x])),
    "compiled": lambda f: lambda x: fg.jit(f).lower(x).compile()(x),
    "jit of vmap": lambda f: lambda x: fg.jit(fg.vmap(f))(np.stack([x, x])),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FORWARD)
def test_forward(name: str, way: str) -> None:
    fun, x, marker, primitive, steps = FORWARD[name]
    with fg.debug_nans(), pytest.raises(FloatingPointError, match="NaN in the result of") as caught:
        WAYS[way](fun)(x)
    assert isinstance(caught.value, NonFiniteError)
    origin = caught.value.origin
    assert isinstance(origin, Origin)
    assert origin.source is not None and origin.primitive.name == primitive
    assert (origin.source.filename, origin.source.line) == (__file__, line_of(marker))
    assert not origin.source.backward and "in the forward pass" in str(caught.value)
    if not ("vmap" in way and name == "branch"):
        assert [k for _, k, _ in origin.steps] == steps
    assert not any([np.isnan(v).any() for v in origin.operands]) and np.isnan(origin.result).any()


@pytest.mark.parametrize("way", ["jit of value_and_grad", "value_and_grad of jit", "eager value_and_grad"])
@pytest.mark.parametrize("name", ["straight", "scan", "checkpoint"])
def test_backward(name: str, way: str) -> None:
    """The value is 0, its derivative infinity times 0, of the line of the squares."""
    fun: Callable[..., Any] = {
        "straight": root_of_nothing,
        "scan": backward_of_scan,
        "checkpoint": lambda x: fg.checkpoint(root_of_nothing)(x),
    }[name]
    x = 1.0 if name == "scan" else np.zeros(3)
    with fg.debug_nans(), pytest.raises(NonFiniteError, match="in the backward pass") as caught:
        WAYS[way](fun)(x)
    origin = caught.value.origin
    assert origin.source.backward and origin.source.line == line_of("squares")
    if name == "scan":
        assert [k for _, k, _ in origin.steps] == [2]  # from the last step back, the first whose root is of zero


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_loops_that_a_derivative_runs_again_keep_their_lines() -> None:
    """The way back through a while loop is expanded where it is looked at, and not asked for there."""
    with fg.debug_nans(), pytest.raises(NonFiniteError) as caught:
        fg.jit(fg.grad(in_a_while))(4.0)
    origin = caught.value.origin
    assert isinstance(origin, Origin)
    assert origin.source is not None and origin.source.line == line_of("while body")
    assert len(origin.steps) > 1
    assert {line.line for _, _, line in origin.steps if line is not None} == {line_of("while loop")}


@pytest.mark.parametrize(
    "name, x, steps",
    [("cholesky", -np.eye(2), []), ("inv", np.zeros((2, 2)), []), ("in a scan", np.eye(2), [2])],
)
def test_factorisations_that_numpy_refuses(name: str, x: Any, steps: list[int]) -> None:
    """Compiled they give NaN, un-jitted, as when the origin is sought, they raise LinAlgError."""

    def shifted(a: Any) -> Any:
        return lax.scan(lambda c, _: (c - 0.5 * np.eye(2), np.linalg.cholesky(c)), a, None, 4)[1]

    fun = {"cholesky": np.linalg.cholesky, "inv": np.linalg.inv, "in a scan": shifted}[name]
    with fg.debug_nans(), pytest.raises(NonFiniteError, match="made by") as caught:
        fg.jit(lambda a: np.sum(fun(a)))(x)
    origin = caught.value.origin
    assert isinstance(origin, Origin)
    assert origin.source is not None and origin.source.filename == __file__
    assert [k for _, k, _ in origin.steps] == steps


def test_the_message_tells_all_that_is_known() -> None:
    with fg.debug_nans(), pytest.raises(NonFiniteError) as caught:
        fg.jit(log_of_negative)(np.array([1.0, 4.0, -0.5]))
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines == [
        f"NaN in the result of log_of_negative: made by log at {__file__}:{line_of('log')} (log_of_negative), "
        "in the forward pass",
        "operand 0: f64[3], from -1.0 to 8.0",
        f"result: 1 of the 3 elements of f64[3], from {np.log(2.0)} to {np.log(8.0)}, 1 NaN, the first at index (2,)",
        "there operand 0 is -1.0",
    ]


def test_a_nan_that_was_given_is_said_to_be() -> None:
    bad = np.array([1.0, np.nan])
    with fg.debug_nans():
        with pytest.raises(
            NonFiniteError, match=r"argument 'x' holds it already: 1 of the 2 .* index \(1,\)"
        ) as caught:
            fg.jit(log_of_negative)(bad)
        assert isinstance(caught.value.origin, Input) and caught.value.origin.index == 0
        with pytest.raises(NonFiniteError, match=r"argument 'p'\['b'\] holds it already"):
            fg.jit(lambda p: p["a"] + p["b"])({"a": 1.0, "b": np.nan})
        with pytest.raises(NonFiniteError, match="captures"):
            fg.jit(lambda x: x + bad)(np.ones(2))
        with pytest.raises(NonFiniteError, match="was given"):
            fg.grad(lambda x: np.sum(x * bad))(np.ones(2))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_reaches_no_result_does_no_harm() -> None:
    def masked(x: Any) -> Any:
        return np.sum(np.where(x > 0, np.log(np.where(x > 0, x, 1.0)), 0.0) + np.where(x > 0, np.sqrt(x), 1.0))

    x = np.array([4.0, -1.0])
    with fg.debug_nans():
        np.testing.assert_allclose(fg.jit(masked)(x), np.log(4.0) + 3.0)
        np.testing.assert_array_equal(fg.grad(lambda x: np.sum(np.where(x > -5, x, np.log(x))))(x), 1)
        assert np.isfinite(fg.jit(fg.vmap(masked))(x[:, None])).all()
        fg.vmap(masked)(x[:, None])


def test_infinities() -> None:
    f = fg.jit(lambda x: np.sum(1 / x))  # quotient
    x = np.array([1.0, 0.0])
    with fg.debug_nans():
        assert f(x) == np.inf
    with fg.debug_infs(), pytest.raises(NonFiniteError, match="an infinity in the result of <lambda>: made by div"):
        f(x)
    with fg.debug_infs():
        assert np.isnan(fg.jit(lambda x: x * np.nan)(1.0))
    with fg.debug_infs(), fg.debug_nans(), pytest.raises(NonFiniteError, match="made by div"):
        fg.jit(lambda x: np.sum(1 / x) * 0)(x)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_single_operations() -> None:
    with fg.debug_nans():
        with pytest.raises(NonFiniteError, match="NaN in the result of log: made by log at"):
            lax.log(-1.0)
        assert lax.log(1.0) == 0
    assert np.isnan(lax.log(-1.0))


def test_donated_arguments_are_sought_in_as_they_were() -> None:
    f = fg.jit(lambda x: np.log(x - 1), donate_argnums=0)
    with fg.debug_nans(), pytest.raises(NonFiniteError, match="operand 0: f64") as caught:
        f(np.zeros(5))
    np.testing.assert_array_equal(caught.value.origin.operands[0], -np.ones(5))


def test_static_arguments() -> None:
    f = fg.jit(lambda n, x: np.log(x) * n, static_argnums=0)
    with fg.debug_nans(), pytest.raises(NonFiniteError, match="made by log"):
        f(2, np.float64(-1.0))


def test_running_again_is_silent() -> None:
    """Prints do not come twice, and what is drawn from outside is not drawn twice."""
    seen: list[float] = []
    calls: list[int] = []

    def f(x: Any) -> Any:
        def body(i: Any, y: Any) -> Any:
            fg.debug.callback(lambda v: seen.append(float(v)), y)
            return np.log(y)

        return lax.fori_loop(0, 3, body, x)

    with fg.debug_nans(), pytest.raises(NonFiniteError, match="step 2 of the scan"):
        fg.jit(f)(1.5)
    assert len(seen) == 3

    def draw() -> float:
        calls.append(1)
        return -1.0

    with fg.debug_nans(), pytest.raises(NonFiniteError, match="cannot be sought by running it again: io_callback at"):
        fg.jit(lambda: np.log(fg.io_callback(draw, fg.ShapeDtypeStruct((), float))))()
    assert calls == [1]


def test_a_switch_is_of_its_thread() -> None:
    f = fg.jit(lambda x: np.log(x))
    found: list[Any] = []
    with fg.debug_nans():
        thread = threading.Thread(target=lambda: found.append(f(np.float64(-1.0))))
        thread.start()
        thread.join()
        with fg.debug_nans(False):
            f(np.float64(-1.0))
        with pytest.raises(NonFiniteError):
            f(np.float64(-1.0))
    assert np.isnan(found[0])


def test_nobody_watching_leaves_everything_as_it_was() -> None:
    """The methods that calls go through are the original ones again: the switch costs nothing while it is off."""
    before = [JitFunction.__call__, Compiled.__call__, EvalTrace.process, Trace.look_at_rule]
    with fg.debug_nans(), fg.debug_infs():
        during = [JitFunction.__call__, Compiled.__call__, EvalTrace.process, Trace.look_at_rule]
    after = [JitFunction.__call__, Compiled.__call__, EvalTrace.process, Trace.look_at_rule]
    assert all([a is b for a, b in zip(before, after, strict=True)])
    assert not any([a is b for a, b in zip(before, during, strict=True)])
    assert inspect.getmodule(JitFunction.__call__) is inspect.getmodule(JitFunction)


def test_config() -> None:
    f = fg.jit(lambda x: np.log(x))
    fg.config.update("jax_debug_nans", True)
    try:
        assert fg.config.debug_nans and fg.config.jax_debug_nans and not fg.config.debug_infs
        with pytest.raises(NonFiniteError):
            f(np.float64(-1.0))
        with fg.debug_nans(False):
            assert np.isnan(f(np.float64(-1.0)))
    finally:
        fg.config.update("debug_nans", False)
    assert np.isnan(f(np.float64(-1.0)))
    fg.config.update("jax_enable_x64", True)
    assert fg.config.enable_x64
    with pytest.raises(ValueError, match="float32"):
        fg.config.update("jax_enable_x64", False)
    for act in (lambda: fg.config.update("jax_speed", 9), lambda: fg.config.speed):
        with pytest.raises(AttributeError, match="debug_nans"):
            act()


def test_environment(repo_root: Path) -> None:
    code = "import numpy as np, funcgrad as fg; print(fg.config); fg.jit(np.log)(np.float64(-1))"
    env = {**os.environ, "PYTHONPATH": str(repo_root), "FUNCGRAD_DEBUG_NANS": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert result.stdout == "Config(debug_nans=True, debug_infs=False, enable_x64=True)\n"
    assert "NonFiniteError: NaN in the result of log: made by log at <string>:1" in result.stderr


def test_in_a_backward_rule() -> None:
    """The line of the rule itself."""

    @fg.custom_vjp
    def f(x: Any) -> Any:
        return x * 2

    def bwd(x: Any, ct: Any) -> Any:
        return (ct * np.log(x),)  # rule

    f.defvjp(lambda x: (f(x), x), bwd)
    with (
        fg.debug_nans(),
        pytest.raises(NonFiniteError, match=r"made by log at .* \(bwd\), in the backward pass") as caught,
    ):
        fg.jit(fg.grad(lambda x: f(x) + 1))(-2.0)
    assert caught.value.origin.source.line == line_of("rule")
