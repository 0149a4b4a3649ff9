"""Statistics of pytrees against NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import debug

ARRAYS = {
    "matrix": lambda rng: rng.normal(size=(3, 4)),
    "single": lambda rng: rng.normal(size=7).astype("f4"),
    "integers": lambda rng: rng.integers(-5, 5, size=(2, 3)),
    "flags": lambda rng: rng.random(9) > 0.5,
    "complex": lambda rng: rng.normal(size=5) + 1j * rng.normal(size=5),
    "zeros": lambda rng: np.array([0.0, -0.0, 3.0]),
    "large": lambda rng: np.array([1e200, -3e200, 1e190]),  # whose squares overflow
    "number": lambda rng: 2.5,
}


@pytest.mark.parametrize("name", ARRAYS)
def test_numbers(name: str, rng: np.random.Generator) -> None:
    x = ARRAYS[name](rng)
    a = np.asarray(x)
    wide = np.abs(a) if a.dtype.kind == "c" else a.astype(float)
    row = debug.statistics({"x": x})["['x']"]
    assert (row.shape, row.dtype, row.size) == (a.shape, a.dtype, a.size)
    scale = np.abs(wide).max()
    wanted = [wide.mean(), scale * (wide / scale).std(), wide.min(), wide.max(), np.mean(wide == 0)]
    np.testing.assert_allclose([row.mean, row.std, row.min, row.max, row.zeros], wanted, rtol=1e-12)
    np.testing.assert_allclose(row.norm, scale * np.linalg.norm(wide / scale), rtol=1e-12)
    assert row.nans == row.infs == 0


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    s = debug.statistics([np.array([1.0, np.nan, np.inf, 3.0]), np.full(2, np.nan), np.zeros(0), [np.float32(np.inf)]])
    assert [(r.nans, r.infs) for r in s] == [(1, 1), (2, 0), (0, 0), (0, 1)]
    assert (s[0].mean, s[0].max) == (2.0, 3.0) and np.isnan(s[1].norm) and not s.finite
    assert s.norm == np.sqrt(10.0)
    huge = debug.statistics([np.full(3, 1e300), np.full(2, 1e-300)])
    np.testing.assert_allclose([huge.norm, huge[1:][0].norm], [np.sqrt(3) * 1e300, np.sqrt(2) * 1e-300])
    assert "1.73e+300" in str(huge).splitlines()[-1]
    assert [r.path for r in s] == ["[0]", "[1]", "[2]", "[3][0]"]
    assert len(str(s).splitlines()) == 6 and str(debug.statistics([])).count("\n") == 1


def test_columns_line_up() -> None:
    lines = str(debug.statistics({"a": np.ones(3), "long name": np.array([1e-12, -2e9])})).splitlines()
    end = lines[0].index("norm") + 4
    assert all([line[end - 1] != " " and line[end] == " " for line in lines])


def test_errors() -> None:
    with pytest.raises(KeyError, match="no leaf has the path"):
        debug.statistics({"a": 1.0})["['b']"]
    with pytest.raises(TypeError, match=r"leaf\['a'\]: "):
        debug.statistics({"a": "text"})
    with pytest.raises(TypeError, match=r"debug\.callback"):
        fg.jit(lambda x: debug.statistics({"a": x}) and x)(1.0)


def test_statistics_of_a_gradient_while_it_runs() -> None:
    found: list[Any] = []

    @fg.jit
    def step(p: Any) -> Any:
        g = fg.grad(lambda p: np.sum(p["w"] ** 2))(p)
        debug.callback(lambda g: found.append(debug.statistics(g)), g)
        return {"w": p["w"] - 0.5 * g["w"]}

    np.testing.assert_array_equal(step({"w": np.array([3.0, 4.0])})["w"], 0)
    assert found[0].norm == 10.0


@pytest.mark.parametrize("run", [lambda f: f, fg.jit])
def test_check_finite(run: Any) -> None:
    def f(x: Any) -> Any:
        debug.check_finite({"a": 1, "b": [x]}, "the state")
        return x

    run(f)(np.ones(2))
    with pytest.raises(fg.NonFiniteError, match=r"the state\['b'\]\[0\] is not finite: .* 1 NaN, first at \(1, 0\)"):
        run(f)(np.array([[1.0], [np.nan]]))
    with pytest.raises(fg.NonFiniteError, match=r"is not finite: f64\[\] = inf"):
        run(f)(np.inf)
