"""Checks: which one fails, with what values and at which line, against a Python run that stops at the first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import checkify, lax
from funcgrad.checkify import CheckError, check


def line_of(marker: str) -> int:
    for number, line in enumerate(Path(__file__).read_text(encoding="utf-8").splitlines(), 1):
        if line.endswith(f"# {marker}"):
            return number
    raise LookupError(marker)


def message(text: str, marker: str, function: str) -> str:
    return f"{text}, at {__file__}:{line_of(marker)} ({function})"


RUNS: dict[str, Callable[..., Any]] = {"eager": lambda f: f, "jit": fg.jit}


# Programs with a check that fails for x < 0 or so: function, and for some arguments the message.


def straight(x: Any) -> Any:
    check(x > 0, "{} is not positive, {y}", x, y=2 * x)  # straight
    check(x < 10, "too large")  # too large
    return np.log(x)


def two(x: Any) -> Any:
    straight(x)
    check(x > 1, "second")  # second
    return x


def of_scan(x: Any) -> Any:
    def body(c: Any, a: Any) -> Any:
        check(c < 3, "{c} at {a}", c=c, a=a)  # scan
        return c + 1, c

    return lax.scan(body, x, np.arange(5.0))[0]


def of_while(x: Any) -> Any:
    def body(s: Any) -> Any:
        check(s[1] < 5, "{}", s[1])  # while
        return s[0] - 1, s[1] + 1

    return lax.while_loop(lambda s: s[0] > 0, body, (x, 0))[1]


def of_condition(x: Any) -> Any:
    def cond(s: Any) -> Any:
        check(s < 5, "cond {}", s)  # condition
        return s < x

    return lax.while_loop(cond, lambda s: s + 1, 0)


def of_both(x: Any) -> Any:
    def cond(s: Any) -> Any:
        check(s != 4, "cond {}", s)  # both, condition
        return s < x

    def body(s: Any) -> Any:
        check(s != 2, "body {}", s)  # both, body
        return s + 1

    return lax.while_loop(cond, body, lax.cond(x > 90, lambda: 3, lambda: 0))


def of_branch(x: Any) -> Any:
    def yes(y: Any) -> Any:
        check(y < 5, "yes {}", y)  # yes
        return y

    def no(y: Any) -> Any:
        check(y > -5, "no {}", y)  # no
        return -y

    return lax.cond(x > 0, yes, no, x)


def of_jit(x: Any) -> Any:
    return fg.jit(straight)(x) + fg.jit(straight)(x + 1)


def of_checkpoint(x: Any) -> Any:
    return fg.checkpoint(straight)(x)


STRAIGHT = ("straight", "straight")
CASES: dict[str, tuple[Callable[..., Any], dict[float, tuple[str, str, str] | None]]] = {
    "straight": (
        straight,
        {1.0: None, -1.0: ("-1.0 is not positive, -2.0", *STRAIGHT), 12.0: ("too large", "too large", "straight")},
    ),
    "two": (two, {2.0: None, 0.5: ("second", "second", "two"), -1.0: ("-1.0 is not positive, -2.0", *STRAIGHT)}),
    "scan": (of_scan, {-2.0: None, 1.0: ("3.0 at 2.0", "scan", "body")}),
    "while": (of_while, {5: None, 7: ("5", "while", "body")}),
    "condition": (of_condition, {4: None, 9: ("cond 5", "condition", "cond")}),
    "both": (of_both, {2: None, 3: ("body 2", "both, body", "body"), 91: ("cond 4", "both, condition", "cond")}),
    "branch": (of_branch, {3.0: None, 7.0: ("yes 7.0", "yes", "yes"), -4.0: None, -7.0: ("no -7.0", "no", "no")}),
    "jit": (of_jit, {1.0: None, 9.5: ("too large", "too large", "straight")}),
    "checkpoint": (of_checkpoint, {1.0: None, -1.0: ("-1.0 is not positive, -2.0", *STRAIGHT)}),
}


def wanted(name: str, x: float) -> str | None:
    found = CASES[name][1][x]
    return None if found is None else message(f"{found[0]} (`check` failed)", *found[1:])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("run", [*RUNS, "inner jit"])
@pytest.mark.parametrize("name", CASES)
def test_errors_are_values(name: str, run: str) -> None:
    fun, cases = CASES[name]
    checked = checkify.checkify(fg.jit(fun)) if run == "inner jit" else RUNS[run](checkify.checkify(fun))
    for x in cases:
        error, out = checked(x)
        assert error.get() == wanted(name, x)
        if cases[x] is None:
            error.throw()
            np.testing.assert_array_equal(out, fun(x))
        else:
            with pytest.raises(CheckError) as caught:
                error.throw()
            assert str(caught.value) == error.get() and isinstance(caught.value, ValueError)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", CASES)
def test_without_checkify_a_check_raises(name: str, run: str) -> None:
    fun, cases = CASES[name]
    f = RUNS[run](fun)
    for x in [*cases, *cases]:
        if cases[x] is None:
            f(x)
        else:
            with pytest.raises(CheckError) as caught:
                f(x)
            assert str(caught.value) == wanted(name, x)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", CASES)
def test_each_example_has_its_error(name: str, run: str) -> None:
    """vmap of checkify."""
    fun, cases = CASES[name]
    xs = np.array(list(cases))
    error, out = RUNS[run](fg.vmap(checkify.checkify(fun)))(xs)
    lines = [f"at mapped index {k}: {wanted(name, x)}" for k, x in enumerate(cases) if cases[x] is not None]
    assert error.get() == "\n".join(lines)
    for k, x in enumerate(cases):
        if cases[x] is None:
            np.testing.assert_array_equal(out[k], fun(x))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", [n for n in CASES if n not in ("scan",)])
def test_checkify_of_vmap(name: str, run: str) -> None:
    """The first example that fails is told; what a batch computes and throws away does not fail."""
    fun, cases = CASES[name]
    good = np.array([x for x, found in cases.items() if found is None] * 2)
    error, _ = RUNS[run](checkify.checkify(fg.vmap(fun)))(good)
    assert error.get() is None
    for x, found in cases.items():
        if found is not None:
            error, _ = RUNS[run](checkify.checkify(fg.vmap(fun)))(np.array([good[0], x, x], dtype=good.dtype))
            text = wanted(name, x)
            assert error.get() == f"at mapped index 1: {text}"
            with pytest.raises(CheckError, match="at mapped index 1"):
                RUNS[run](fg.vmap(fun))(np.array([good[0], x], dtype=good.dtype))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", ["straight", "two", "scan", "branch", "jit", "checkpoint"])
def test_derivatives(name: str, run: str) -> None:
    """checkify of grad, and grad of checkify: the gradient is that of the function, the error as before."""
    fun, cases = CASES[name]
    for x, found in cases.items():
        error, g = RUNS[run](checkify.checkify(fg.grad(fun)))(float(x))
        assert error.get() == wanted(name, x)
        _, (aux, g2) = None, RUNS[run](fg.grad(lambda y: checkify.checkify(fun)(y)[::-1], has_aux=True))(float(x))[::-1]
        assert aux.get() == wanted(name, x)
        if found is None:
            np.testing.assert_allclose([g, g2], fg.grad(fun)(float(x)))


# checks that are made of operations ----------------------------------------------------------------------------------


def div(x: Any, y: Any) -> Any:
    return x / y  # div


AUTOMATIC: dict[str, tuple[Any, Any, tuple[Any, ...], str | None]] = {
    "nan": (checkify.nan_checks, np.log, (-1.0,), "nan generated by primitive: log"),
    "no nan": (checkify.nan_checks, np.log, (0.0,), None),
    "nan of zero by zero": (checkify.nan_checks, div, (0.0, 0.0), "nan generated by primitive: div"),
    "nan in an array": (checkify.nan_checks, np.sqrt, (np.array([[1.0, -1.0]]),), "nan generated by primitive: sqrt"),
    "nan in a product": (checkify.nan_checks, np.dot, (np.array([np.inf, 0]), np.array([0.0, 1])), "dot_general"),
    "div": (checkify.div_checks, div, (1.0, 0.0), "division by zero"),
    "div, array": (checkify.div_checks, div, (1.0, np.array([1.0, 0.0])), "division by zero"),
    "floor_divide": (checkify.div_checks, lambda x, y: x // y, (1, 0), "division by zero"),
    "remainder": (checkify.div_checks, lambda x, y: x % y, (1, 0), "division by zero"),
    "no div": (checkify.div_checks, div, (0.0, 1.0), None),
    "first of float": (checkify.float_checks, div, (0.0, 0.0), "division by zero"),
    "index": (
        checkify.index_checks,
        lambda x, i: x[i],
        (np.arange(3.0), 5),
        "(3,): index 5 is out of bounds for axis 0 with size 3",
    ),
    "negative index": (checkify.index_checks, lambda x, i: x[i], (np.arange(3.0), -1), None),
    "two indices": (
        checkify.index_checks,
        lambda x, i, j: x[i, j],
        (np.ones((2, 3)), 1, np.array([0, 7])),
        "index 7 is out of bounds for axis 1 with size 3",
    ),
    "write": (checkify.index_checks, lambda x, i: fg.at(x)[i].add(1.0), (np.arange(3.0), np.array([1, 4])), "index 4"),
    "window": (checkify.index_checks, lambda x, i: lax.dynamic_slice(x, (i,), (2,)), (np.arange(3.0), 2), "start at 1"),
    "no index": (checkify.index_checks, lambda x, i: x[i], (np.arange(3.0), np.array([0, 2])), None),
    "not asked for": (checkify.user_checks, lambda x, i: np.log(x)[i] / 0, (np.arange(3.0), 9), None),
    "all": (checkify.all_checks, lambda x, i: straight(x[i]), (-np.arange(3.0), 1), "-1.0 is not positive"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", AUTOMATIC)
def test_automatic_checks(name: str, run: str) -> None:
    errors, fun, args, text = AUTOMATIC[name]
    error, out = RUNS[run](checkify.checkify(fun, errors=errors))(*args)
    found = error.get()
    if text is None:
        assert found is None
    else:
        assert text in found and (
            f", at {__file__}:" in found or "np." in repr(fun) or isinstance(fun, np.ufunc) or fun is np.dot
        )
    np.testing.assert_array_equal(out, fg.jit(fun)(*args) if name != "all" else out)


def test_automatic_checks_in_loops_and_backwards() -> None:
    def loop(x: Any) -> Any:
        return lax.fori_loop(0, 3, lambda i, y: np.sqrt(y - 1), x)  # in a loop

    error, _ = fg.jit(checkify.checkify(loop, errors=checkify.nan_checks))(2.0)
    assert error.get() == message("nan generated by primitive: sqrt", "in a loop", "<lambda>")

    def norm(x: Any) -> Any:
        squares = x**2  # squares
        return np.sqrt(np.sum(squares))

    error, _ = fg.jit(checkify.checkify(fg.grad(norm), errors=checkify.nan_checks))(np.zeros(2))
    assert error.get() == message("nan generated by primitive: mul", "squares", "norm") + ", in the backward pass"


# pieces --------------------------------------------------------------------------------------------------------------


def test_handing_errors_on() -> None:
    def outer(x: Any) -> Any:
        error, out = checkify.checkify(straight)(x)
        checkify.check_error(error)
        return out

    for run in RUNS.values():
        error, _ = run(checkify.checkify(outer))(-1.0)
        assert error.get() == wanted("straight", -1.0)
        with pytest.raises(CheckError, match="not positive"):
            run(outer)(-1.0)
        assert run(outer)(1.0) == 0
    with pytest.raises(TypeError, match="Return it from the function"):
        fg.jit(lambda x: checkify.checkify(straight)(x)[0].get() and x)(1.0)


def test_an_error_is_a_pytree() -> None:
    error, _ = checkify.checkify(straight)(-1.0)
    again = fg.tree.unflatten(fg.tree.structure(error), fg.tree.leaves(error))
    assert again.get() == error.get() and "not positive" in repr(error)
    none, _ = checkify.checkify(np.sin)(1.0)
    assert none.get() is None and repr(none) == "Error(None)" and fg.tree.leaves(none) == [0]


def test_bad_arguments() -> None:
    for act, words in (
        (lambda: check(np.ones(2, bool), "x"), r"\.all\(\) or \.any\(\)"),
        (lambda: check(1.0, "x"), "boolean scalar"),
        (lambda: check("yes", "x"), "predicate"),
        (lambda: check(True, "{}"), "names {0}"),
        (lambda: check(True, "x", 1), "does not use"),
        (lambda: checkify.checkify(np.sin, errors={"floats"}), "checkify.user_checks"),
        (lambda: checkify.checkify(3), "expects a function"),
        (lambda: checkify.check_error("no"), "Error that checkify returns"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            act()


def test_strings_fill_messages() -> None:
    error, _ = fg.jit(checkify.checkify(lambda x: check(x > 0, "{name}: {}", x, name="rate")))(-2.0)
    assert error.get().startswith("rate: -2.0 (")


def test_jax_says_the_same(jax: Any) -> None:
    """The messages begin as JAX's (which have no lines)."""
    from jax.experimental import checkify as theirs

    x = np.array([1.0, -1.0, 12.0])

    def f(x: Any) -> Any:
        theirs.check(x > 0, "{} is not positive, {y}", x, y=2 * x)
        theirs.check(x < 10, "too large")
        return jax.numpy.log(x)

    error, _ = jax.vmap(theirs.checkify(f))(jax.numpy.asarray(x))
    own, _ = fg.vmap(checkify.checkify(straight))(x)
    for ours, line in zip(own.get().splitlines(), error.get().splitlines(), strict=True):
        assert ours.startswith(line)


def test_custom_rules_are_kept() -> None:
    @fg.custom_jvp
    def root(x: Any) -> Any:
        check(x > -5, "{}", x)  # custom
        return np.sqrt(x)

    root.defjvp(lambda primals, tangents: (fg.numpy.sqrt(primals[0]), tangents[0] * 7.0))
    for run in RUNS.values():
        error, g = run(checkify.checkify(fg.grad(root)))(4.0)
        assert (error.get(), g) == (None, 7.0)
        g, error = run(fg.grad(lambda x: checkify.checkify(root)(x)[::-1], has_aux=True))(4.0)
        assert (error.get(), g) == (None, 7.0)
        g, error = run(fg.grad(lambda x: checkify.checkify(root)(x)[::-1], has_aux=True))(-9.0)
        assert error.get() == message("-9.0 (`check` failed)", "custom", "root") and g == 7.0
        error, _ = run(checkify.checkify(root, errors=checkify.nan_checks))(-1.0)
        assert error.get().startswith("nan generated by primitive: sqrt")
