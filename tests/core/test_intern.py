"""Equal programs are one object; programs that differ in anything that can be told are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.compiler import lower_jaxpr
from funcgrad.core.avals import ShapedArray
from funcgrad.core.intern import MOST_PROGRAMS, clear_interned, exact_key, interned
from funcgrad.core.jaxpr import ClosedJaxpr
from funcgrad.core.staging import stage
from funcgrad.passes.pipeline import optimize


def program(fun: Callable[..., Any], shape: tuple[int, ...] = (3,), dtype: Any = float, name: str = "f") -> ClosedJaxpr:
    return interned(stage(lambda x: [fun(x)], [ShapedArray(shape, np.dtype(dtype))], name))


def double(x: Any) -> Any:
    return x * 2.0


PROGRAMS: dict[str, Callable[[], ClosedJaxpr]] = {
    "double": lambda: program(double),
    "another shape": lambda: program(double, (4,)),
    "another dtype": lambda: program(double, dtype=np.float32),
    "another name": lambda: program(double, name="g"),
    "another line": lambda: program(lambda x: x * 2.0),
    "0.0": lambda: program(lambda x: x * 0.0),
    "an integer": lambda: program(lambda x: x * 2),
    "a loop": lambda: program(lambda x: fg.lax.scan(lambda c, _: (c * 2.0, c), x, None, 5)[0]),
    "a parameter": lambda: program(lambda x: np.sum(x, 0)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_one_object(name: str) -> None:
    clear_interned()
    first, *others = [make() for make in (PROGRAMS[name], *PROGRAMS.values())]
    assert [x is first for x in others] == [n == name for n in PROGRAMS]


def test_numbers_by_their_bits() -> None:
    numbers = [0.0, -0.0, np.float32(0.0), float("nan")]
    made = [[program(lambda x, n=n: x + n) for n in numbers] for _ in range(2)]
    assert made[0] == made[1]  # programs are equal if they are one object
    assert len(set(made[0])) == len(numbers)


def test_parameters_by_type_and_value() -> None:
    values: list[Any] = [
        1,
        True,
        1.0,
        1 + 0j,
        np.float64(1),
        np.float32(1),
        "1",
        (1,),
        (True,),
        ((1,),),
        None,
        -0.0,
        0.0,
    ]
    keys = [exact_key(v) for v in values]
    assert len(set(keys)) == len(values) and [exact_key(v) for v in values] == keys


def test_what_is_more_than_data() -> None:
    """A function is a parameter that says nothing of what it does; a constant array may be large."""
    assert len({id(program(lambda x: fg.pure_callback(abs, x, x))) for _ in range(2)}) == 2
    table = np.arange(3.0)
    assert len({id(program(lambda x: x + table)) for _ in range(2)}) == 2


def test_forgotten() -> None:
    clear_interned()
    first = program(double)
    for n in range(MOST_PROGRAMS):
        program(double, (n + 10,))
    assert program(double) is not first


def bodies(steps: int) -> list[Any]:
    """The jaxprs of the loops that the gradient of a loop of so many steps has, optimised."""

    def loss(w: Any, xs: Any) -> Any:
        return fg.lax.scan(lambda c, x: (np.tanh(w @ c + x), np.sum(c)), np.ones(40), xs)[0].sum()

    closed = optimize(fg.jit(fg.grad(loss)).trace(np.eye(40), np.ones((steps, 40))).jaxpr)
    return [e.params["jaxpr"] for e in closed.jaxpr.eqns if e.primitive.name == "scan"]


def test_another_number_of_steps_has_the_same_bodies() -> None:
    first, second = bodies(5), bodies(7)
    assert len(first) == 2 and all(a is b for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("width", [3, 40])  # in registers, and with a program of its own
def test_loops_that_share_a_body_do_not_share_their_places(width: int) -> None:
    """Two loops of one program with equal bodies, and other programs with them, all run after the last is lowered."""

    def twice(x: Any, xs: Any, ys: Any) -> Any:
        def body(c: Any, row: Any) -> Any:
            c = np.sin(c + row)
            return c, c * 2.0

        a, u = fg.lax.scan(body, x, xs)
        b, v = fg.lax.scan(body, a * x, ys, reverse=True)
        return a, b, u, v

    rng = np.random.default_rng(0)
    jitted, rows = fg.jit(twice), []
    for n, m in ((4, 6), (9, 2), (1, 5)):
        rows.append((rng.normal(size=width), rng.normal(size=(n, width)), rng.normal(size=(m, width))))
    for args in (*rows, *rows):
        for got, want in zip(jitted(*args), twice(*args), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-14)


def test_lowering_is_that_of_a_program_met_for_the_first_time() -> None:
    def text(steps: int) -> str:
        f = fg.jit(lambda x: fg.lax.fori_loop(0, steps, lambda i, c: np.outer(c, c).sum(0) / (i + 1.0), x))
        return lower_jaxpr(optimize(f.trace(np.ones(50)).jaxpr)).as_text()

    text(3)
    shared = text(7)
    fg.clear_caches()
    assert text(7) == shared
