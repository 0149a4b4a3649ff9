"""The IR: staging, printing, checking, evaluating, and programs too deep for recursion."""

from __future__ import annotations

import time

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.core.avals import ShapedArray, aval_of
from funcgrad.core.jaxpr import ClosedJaxpr, Eqn, Jaxpr, Literal, Var, check_jaxpr, eval_jaxpr
from funcgrad.core.layout import Layout
from funcgrad.core.primitive import REGISTRY, NotDifferentiable, NotLinear, ZeroDerivative
from funcgrad.errors import JaxprError
from funcgrad.ops.elementwise import add_p, mul_p


def test_prints_in_jax_notation() -> None:
    text = str(fg.make_jaxpr(lambda x, y: 2.0 * np.sin(x) + y)(np.ones(3, np.float32), 1.0))
    assert text == (
        "{ lambda ; a:f32[3] b:f64[]. let\n"
        "    c:f32[3] = sin a\n"
        "    d:f32[3] = mul 2.0:f32[] c\n"
        "    e:f32[] = convert[dtype=float32 weak=False] b\n"
        "    f:f32[3] = add d e\n"
        "  in (f,) }"
    )


def test_array_constants_become_constvars_once() -> None:
    c = np.arange(3.0)
    closed = fg.make_jaxpr(lambda x: x * c + c)(1.0)
    assert len(closed.jaxpr.constvars) == 1
    np.testing.assert_array_equal(closed.consts[0], c)


def test_scalar_constants_become_typed_literals() -> None:
    closed = fg.make_jaxpr(lambda x: x * 2)(np.float32(1))
    literal = closed.eqns[0].invars[1]
    assert isinstance(literal, Literal)
    assert literal.aval.dtype == np.float32


def test_equations_know_the_users_line() -> None:
    closed = fg.make_jaxpr(lambda x: np.sin(x))(1.0)
    source = closed.eqns[0].source
    assert source is not None
    assert source.filename == __file__


def test_eval_rebinds_in_the_current_trace() -> None:
    closed = fg.make_jaxpr(lambda x: np.sin(x) * x)(1.0)
    f = lambda x: eval_jaxpr(closed.jaxpr, closed.consts, x)[0]  # noqa: E731
    assert f(0.5) == np.sin(0.5) * 0.5
    assert np.isclose(fg.grad(f)(0.5), np.cos(0.5) * 0.5 + np.sin(0.5))


def _broken() -> dict[str, Jaxpr]:
    f64 = ShapedArray((), np.dtype(np.float64))
    a, b, c = Var(f64), Var(f64), Var(f64)
    wrong = Var(ShapedArray((2,), np.dtype(np.float64)))
    eqn = Eqn(add_p, (a, a), {}, (b,))
    return {
        "used before": Jaxpr((), (a,), (Eqn(mul_p, (a, c), {}, (b,)),), (b,)),
        "bound twice": Jaxpr((), (a,), (eqn, eqn), (b,)),
        "gives": Jaxpr((), (a,), (Eqn(add_p, (a, a), {}, (wrong,)),), (wrong,)),
        "results": Jaxpr((), (a,), (Eqn(add_p, (a, a), {}, (b, c)),), (b,)),
    }


@pytest.mark.parametrize("defect", ["used before", "bound twice", "gives", "results"])
def test_checker_finds(defect: str) -> None:
    with pytest.raises(JaxprError, match=defect):
        check_jaxpr(_broken()[defect])


def _chain(n: int):
    def f(x):
        for _ in range(n):
            x = x + 1.0
        return x

    return f


def test_deep_programs_need_no_recursion() -> None:
    n = 100_000
    closed = fg.make_jaxpr(_chain(n))(1.0)
    assert len(closed.eqns) == n
    check_jaxpr(closed.jaxpr)
    assert eval_jaxpr(closed.jaxpr, closed.consts, 1.0)[0] == n + 1.0
    assert fg.grad(_chain(n))(1.0) == 1.0


@pytest.mark.parametrize("transform", [fg.grad, fg.make_jaxpr], ids=["grad", "make_jaxpr"])
def test_cost_is_linear_in_depth(transform) -> None:
    def seconds(n: int) -> float:
        best = np.inf
        for _ in range(3):
            start = time.perf_counter()
            transform(_chain(n))(1.0)
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(16_000) < 4 * 4 * seconds(4_000)  # quadratic growth would be 16 times, linear is 4


def test_registry_has_no_unset_fields() -> None:
    for name, p in REGISTRY.items():
        assert p.name == name
        assert callable(p.impl) and callable(p.shape) and callable(p.batch), name
        assert callable(p.jvp) or (isinstance(p.jvp, (ZeroDerivative, NotDifferentiable)) and p.jvp.reason), name
        assert callable(p.transpose) or (isinstance(p.transpose, NotLinear) and p.transpose.reason), name
        assert p.lower is not None, name


def _numpy_view(layout: Layout, memory: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.as_strided(
        memory[layout.offset :], layout.shape, [s * memory.itemsize for s in layout.strides]
    )


@pytest.mark.parametrize(
    ("ours", "numpys"),
    [
        (lambda x: x.permute((2, 0, 1)), lambda x: x.transpose(2, 0, 1)),
        (lambda x: x.reverse((0, 2)), lambda x: x[::-1, :, ::-1]),
        (lambda x: x.slice((0, 1, 3), (2, 1, 2), (1, 2, -2)), lambda x: x[0:2, 1:3:2, 3::-2]),
        (lambda x: x.reshape((6, 4)), lambda x: x.reshape(6, 4)),
        (lambda x: x.reshape((3, 8)), lambda x: x.reshape(3, 8)),
        (lambda x: x.broadcast((5, 2, 3, 4), (1, 2, 3)), lambda x: np.broadcast_to(x, (5, 2, 3, 4))),
        (lambda x: x.permute((1, 0, 2)).reshape((3, 2, 2, 2)), lambda x: x.transpose(1, 0, 2).reshape(3, 2, 2, 2)),
    ],
)
def test_layouts_are_numpy_views(ours, numpys) -> None:
    memory = np.arange(24.0)
    layout = ours(Layout.contiguous((2, 3, 4)))
    np.testing.assert_array_equal(_numpy_view(layout, memory), numpys(memory.reshape(2, 3, 4)))


def test_reshape_that_needs_a_copy_is_refused() -> None:
    assert Layout.contiguous((2, 3)).permute((1, 0)).reshape((6,)) is None


def test_avals_of_python_scalars_are_weak() -> None:
    assert aval_of(1.0).weak_type and aval_of(1).weak_type and not aval_of(np.float64(1)).weak_type


@pytest.mark.parametrize("bad", [np.array(["a"]), np.array([object()]), np.datetime64("2020-01-01"), "text", None, {}])
def test_unknown_values_are_refused(bad) -> None:
    with pytest.raises(TypeError, match=r"funcgrad cannot trace|is not an array"):
        aval_of(bad)


def test_closed_jaxpr_has_avals() -> None:
    closed = fg.make_jaxpr(lambda x: (x, x * 2))(np.ones(3))
    assert isinstance(closed, ClosedJaxpr)
    assert [a.shape for a in closed.in_avals] == [(3,)]
    assert [a.shape for a in closed.out_avals] == [(3,), (3,)]
