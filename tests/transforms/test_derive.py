"""grad, vjp, jvp, linearize and friends: values from calculus, finite differences and each other."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.core.trace import EVAL, STATE
from funcgrad.errors import FuncgradError, LeakedTracerError

EPS = 1e-6


def central(f, x, v):
    return (f(x + EPS * v) - f(x - EPS * v)) / (2 * EPS)


def program(x):
    y = np.tanh(x @ x.T) * np.exp(-np.sum(x**2, axis=1))
    return np.sum(y * np.cos(x[:, 0])) / (1 + np.sum(x[1:] * x[:-1]) ** 2)


def test_founding_examples() -> None:
    f = lambda x, y: x**2 * y + x * y**2  # noqa: E731
    assert fg.grad(f, argnums=(0, 1))(2.0, 3.0) == (2 * 2 * 3 + 9, 4 + 2 * 2 * 3)
    z, (dx, dy) = fg.value_and_grad(lambda x, y: x * y + x, argnums=(0, 1))(2.0, 3.0)
    assert (z, dx, dy) == (8, 4, 2)
    assert fg.grad(lambda x: x**2 + 2 * x + 1)(3.0) == 8
    assert np.isclose(fg.grad(np.tanh)(0.5), 1 - np.tanh(0.5) ** 2, rtol=1e-15)
    g = lambda x, y: np.tanh(x * y) * (x + y)  # noqa: E731
    assert np.isclose(fg.grad(g)(0.3, 0.7), central(lambda x: g(x, 0.7), 0.3, 1.0), rtol=1e-8)


def test_gradient_agrees_with_finite_differences(rng) -> None:
    x, v = rng.normal(size=(4, 3)) * 0.5, rng.normal(size=(4, 3))
    expected = central(program, x, v)
    g = fg.grad(program)(x)
    assert g.shape == x.shape and g.dtype == x.dtype
    np.testing.assert_allclose(np.sum(g * v), expected, rtol=1e-7)
    np.testing.assert_allclose(fg.jvp(program, (x,), (v,))[1], expected, rtol=1e-7)


def test_second_derivatives_four_ways(rng) -> None:
    x, u, v = rng.normal(size=(4, 3)) * 0.5, rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    expected = central(lambda z: np.sum(fg.grad(program)(z) * u), x, v)
    over = {
        "forward over reverse": np.sum(fg.jvp(fg.grad(program), (x,), (v,))[1] * u),
        "reverse over reverse": np.sum(fg.grad(lambda z: np.sum(fg.grad(program)(z) * u))(x) * v),
        "reverse over forward": np.sum(fg.grad(lambda z: fg.jvp(program, (z,), (u,))[1])(x) * v),
        "forward over forward": fg.jvp(lambda z: fg.jvp(program, (z,), (u,))[1], (x,), (v,))[1],
    }
    for way, found in over.items():
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=way)


def test_hessian_is_symmetric_and_right(rng) -> None:
    x = rng.normal(size=5)
    f = lambda z: np.sum(np.sin(z[1:] * z[:-1]) ** 2)  # noqa: E731
    h = fg.hessian(f)(x)
    columns = np.stack([central(fg.grad(f), x, e) for e in np.eye(5)], axis=1)
    np.testing.assert_allclose(h, columns, atol=1e-8)
    np.testing.assert_allclose(h, h.T, atol=1e-14)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_derivatives_to_any_order(depth: int) -> None:
    f = np.sin
    for _ in range(depth):
        f = fg.grad(f)
    assert np.isclose(f(0.7), np.sin(0.7 + depth * np.pi / 2), rtol=1e-13)


def test_no_perturbation_confusion() -> None:
    # d/dx (x * d/dy (x + y)) at y=x: the inner derivative is 1 whatever the outer perturbation of x
    assert fg.grad(lambda x: x * fg.grad(lambda y: x + y)(x))(1.0) == 1.0
    assert fg.jvp(lambda x: x * fg.jvp(lambda y: x + y, (1.0,), (1.0,))[1], (1.0,), (1.0,))[1] == 1.0
    assert fg.grad(lambda x: x * fg.grad(lambda y: x * y)(2.0))(3.0) == 6.0
    assert fg.grad(lambda x: fg.jvp(lambda y: x * y * y, (x,), (1.0,))[1])(3.0) == 12.0


def test_has_aux_and_pytrees() -> None:
    def loss(params, x):
        y = params["w"] * x + params["b"][0]
        return np.sum(y**2), {"y": y, "note": "any object"}

    params = {"w": np.array([1.0, 2.0]), "b": (np.float64(0.5), None)}
    x = np.array([3.0, 4.0])
    (value, aux), g = fg.value_and_grad(loss, has_aux=True)(params, x)
    y = params["w"] * x + 0.5
    assert value == np.sum(y**2) and aux["note"] == "any object"
    np.testing.assert_array_equal(aux["y"], y)
    assert type(aux["y"]) is np.ndarray
    np.testing.assert_allclose(g["w"], 2 * y * x)
    np.testing.assert_allclose(g["b"][0], np.sum(2 * y))
    assert g["b"][1] is None
    g2, aux2 = fg.grad(loss, has_aux=True)(params, x)
    np.testing.assert_array_equal(g2["w"], g["w"])
    assert aux2["note"] == "any object"


def test_results_are_numpy_and_writable() -> None:
    g = fg.grad(np.sum)(np.ones(3))
    assert type(g) is np.ndarray
    g[0] = 5.0
    assert type(fg.grad(np.sin)(1.0)) is np.float64
    assert fg.grad(lambda x: np.sum(x * np.float32(2)))(np.ones(2, np.float32)).dtype == np.float32


def test_vjp_may_be_called_many_times_and_never_aliases(rng) -> None:
    x = rng.normal(size=3)
    out, pull = fg.vjp(lambda a: a, x)
    ct = np.ones(3)
    (first,) = pull(ct)
    first[0] = 7
    assert ct[0] == 1
    np.testing.assert_array_equal(pull(2 * ct)[0], 2 * np.ones(3))
    np.testing.assert_array_equal(out, x)


def test_linearize_agrees_with_jvp(rng) -> None:
    x, v = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    out, push = fg.linearize(program, x)
    assert out == program(x)
    for t in (v, 2 * v):
        np.testing.assert_allclose(push(t), fg.jvp(program, (x,), (t,))[1], rtol=1e-12)


def test_linear_transpose(rng) -> None:
    a, x, y = rng.normal(size=(2, 3)), rng.normal(size=3), rng.normal(size=2)
    f = lambda z: a @ z * 2.0  # noqa: E731
    (t,) = fg.linear_transpose(f, fg.ShapeDtypeStruct((3,), np.float64))(y)
    np.testing.assert_allclose(np.dot(t, x), np.dot(y, f(x)))
    with pytest.raises(FuncgradError, match="sin cannot be transposed"):
        fg.linear_transpose(np.sin, 1.0)(1.0)
    with pytest.raises(FuncgradError, match="cannot be transposed"):
        fg.linear_transpose(lambda z: z * z, 1.0)(1.0)


def test_jacobians(rng) -> None:
    x = rng.normal(size=3)
    f = lambda z: {"a": np.outer(z, z), "b": np.sum(z**3)}  # noqa: E731
    for jac in (fg.jacfwd, fg.jacrev):
        j = jac(f)(x)
        assert j["a"].shape == (3, 3, 3) and j["b"].shape == (3,)
        np.testing.assert_allclose(j["b"], 3 * x**2)
        for k in range(3):
            e = np.eye(3)[k]
            np.testing.assert_allclose(j["a"][:, :, k], np.outer(e, x) + np.outer(x, e))
    two = fg.jacrev(lambda a, b: a @ b, argnums=(0, 1))(rng.normal(size=(2, 3)), x)
    assert two[0].shape == (2, 2, 3) and two[1].shape == (2, 3)


def test_complex_conventions() -> None:
    z = 1.2 - 0.7j
    # JAX: the gradient of a real function of a complex number is the conjugate of steepest ascent
    assert np.isclose(fg.grad(lambda w: np.abs(w) ** 2)(z), 2 * np.conj(z))
    assert np.isclose(fg.grad(lambda w: w**3, holomorphic=True)(z), 3 * z**2)
    assert np.isclose(fg.grad(lambda w: np.real(w * w))(z), 2 * z)
    out, t = fg.jvp(lambda w: np.exp(1j * w), (z,), (1.0 + 0j,))
    assert np.isclose(t, 1j * out)


def test_nan_safe_where() -> None:
    f = lambda x: np.where(x > 0, np.sqrt(x), 0.0)  # noqa: E731
    assert fg.grad(f)(0.0) == 0.0
    assert np.isclose(fg.grad(f)(4.0), 0.25)
    assert np.isclose(fg.grad(fg.grad(f))(4.0), -0.25 * 4.0**-1.5)
    assert fg.grad(fg.grad(f))(0.0) == 0.0
    assert fg.grad(lambda x: np.where(x > 0, np.log(x), x))(0.0) == 1.0


def test_ties_and_kinks_follow_jax() -> None:
    assert fg.grad(lambda x: np.maximum(x, 1.0))(1.0) == 0.5
    assert fg.grad(np.abs)(0.0) == 1.0
    assert fg.grad(fg.grad(lambda x: np.abs(x) ** 2))(0.0) == 2.0
    np.testing.assert_array_equal(fg.grad(np.max)(np.array([1.0, 3.0, 3.0])), [0, 0.5, 0.5])


def test_power_at_exponent_zero() -> None:
    """d/dx x**y is 0 there, also at x = 0; its derivative in y is 1/x."""
    power = lambda x, y: x**y  # noqa: E731
    for over in (lambda f: f, fg.jit):
        mixed = [over(fg.grad(fg.grad(power, k), 1 - k))(4.0, 0.0) for k in (0, 1)]
        np.testing.assert_allclose(mixed, [0.25, 0.25])
        with np.errstate(all="raise"):
            np.testing.assert_array_equal(over(fg.vmap(fg.grad(power)))(np.array([0.0, -1.0]), np.zeros(2)), 0.0)
    fg.test_util.check_grads(power, (np.array([0.5, 2.0, 3.0]), np.array([0.0, 1.0, -1.0])), order=2)


def test_checkpoint_changes_nothing(rng) -> None:
    x, v = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    f = fg.checkpoint(program)
    np.testing.assert_allclose(fg.grad(f)(x), fg.grad(program)(x), rtol=1e-13)
    np.testing.assert_allclose(fg.jvp(fg.grad(f), (x,), (v,))[1], fg.jvp(fg.grad(program), (x,), (v,))[1], rtol=1e-11)
    batch = np.stack([x, 2 * x])
    np.testing.assert_allclose(fg.vmap(fg.grad(f))(batch)[1], fg.grad(program)(2 * x), rtol=1e-11)


def test_integers_beside_floats() -> None:
    f = lambda x, n: x * n  # noqa: E731
    assert fg.grad(f)(2.0, 3) == 3.0
    g = fg.grad(f, argnums=(0, 1), allow_int=True)(2.0, 3)
    assert g[1].dtype == fg.float0
    _, pull = fg.vjp(f, 2.0, 3)
    assert pull(1.0)[1].dtype == fg.float0
    assert fg.jvp(f, (2.0, 3), (1.0, np.zeros((), fg.float0)))[1] == 3.0


def loss_of_array(x):
    return x * 2.0


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: fg.grad(loss_of_array)(np.ones(3)), TypeError, r"loss_of_array returned shape \(3,\).*np\.sum"),
        (lambda: fg.grad(loss_of_array)(3), TypeError, r"argument 'x' has dtype int64.*write 3\.0"),
        (lambda: fg.grad(lambda p: p["w"][0])({"w": [np.arange(3)]}), TypeError, r"argument 'p'\['w'\]\[0\].*int64"),
        (lambda: fg.grad(lambda x: (x, x))(1.0), TypeError, "returned a tuple"),
        (lambda: fg.grad(lambda x: 1)(1.0), TypeError, "returned int64; its derivative is zero"),
        (lambda: fg.grad(lambda x: x * 1j)(1.0), TypeError, "requires a real result"),
        (lambda: fg.grad(loss_of_array, argnums=1)(1.0), ValueError, "argnums 1 wants positional argument 1"),
        (lambda: fg.grad(loss_of_array, argnums="x")(1.0), TypeError, "argnums must be an integer"),
        (lambda: fg.grad(3), TypeError, "grad expects a function"),
        (lambda: fg.grad(lambda x: "s")(1.0), TypeError, "not an array"),
        (lambda: fg.grad(lambda x: x, has_aux=True)(1.0), TypeError, "must return a pair.*returned one value, float64"),
        (lambda: fg.vjp(lambda x: [x], 1.0, has_aux=True), TypeError, "must return a pair.*returned a list"),
        (lambda: fg.grad(np.sum)(np.ones(2, np.longdouble)), TypeError, "grad: argument.*has dtype float128"),
        (lambda: fg.jvp(np.sin, (1.0,), (np.ones(2),)), ValueError, r"shape \(2,\), but its primal has shape \(\)"),
        (lambda: fg.jvp(np.sin, (np.ones(2),), (np.ones(2, np.float32),)), TypeError, "dtype float32"),
        (lambda: fg.jvp(np.sin, 1.0, 1.0), TypeError, "must be tuples or lists"),
        (lambda: fg.vjp(np.sin, np.ones(2))[1](np.ones(3)), ValueError, r"cotangent.*shape \(3,\)"),
        (lambda: fg.vjp(np.sin, np.ones(2))[1]((np.ones(2),)), TypeError, "structure"),
        (lambda: fg.jacrev(loss_of_array)(np.arange(2)), TypeError, "int64"),
        (lambda: fg.grad(lambda x: x, holomorphic=True)(1.0), TypeError, "requires complex inputs"),
        (lambda: fg.grad(loss_of_array)("s"), TypeError, "grad: argument 'x' of loss_of_array: 's' of type.*array"),
        (lambda: fg.vjp(lambda p: p, {"w": [1.0, None, "s"]}), TypeError, r"vjp: argument 'p'\['w'\]\[2\] of"),
        (lambda: fg.jvp(loss_of_array, ("s",), ("s",)), TypeError, "jvp: argument 'x' of loss_of_array"),
        (lambda: fg.jacfwd(loss_of_array)("s"), TypeError, "jacfwd: argument 'x' of loss_of_array"),
        (lambda: fg.jacfwd(lambda a, b: a * b, (0, 1))(1.0, 2), TypeError, "jacfwd: argument 'b' has dtype int64"),
        (lambda: fg.jacfwd(lambda x: 1)(1.0), TypeError, "the result of <lambda> has dtype int64"),
        (lambda: fg.make_jaxpr(loss_of_array)("s"), TypeError, "make_jaxpr: argument 'x' of loss_of_array"),
        (lambda: fg.checkpoint(loss_of_array)("s"), TypeError, "checkpoint: argument 'x' of loss_of_array"),
        (lambda: fg.checkpoint(loss_of_array, static_argnums=2)(1.0), ValueError, "static_argnums 2 wants"),
        (lambda: fg.make_jaxpr(loss_of_array, static_argnums=2)(1.0), ValueError, r"static_argnums \(2,\) wants"),
        (lambda: fg.grad(lambda a, b: a * b, (0, -2))(1.0, 2.0), ValueError, "names the same argument twice"),
        (lambda: fg.grad(loss_of_array)(fg.ShapeDtypeStruct((), float)), TypeError, "ShapeDtypeStruct has no value"),
        (lambda: fg.grad(np.sum)(np.ma.array([1.0], mask=[1])), TypeError, r"mask would be lost.*x\.filled"),
        (lambda: fg.ShapeDtypeStruct((-1,), float), ValueError, "negative extent"),
        (lambda: fg.ShapeDtypeStruct(3, float), TypeError, "shape must be a sequence of integers, found 3"),
        (lambda: fg.vjp(np.sin, 1.0)[1]("s"), TypeError, "vjp: cotangent: 's'"),
        (lambda: fg.vjp(np.sin, np.ones(2))[1](np.ones(2, int)), TypeError, r"the result has.*\.astype\('float64'\)"),
        (lambda: fg.linear_transpose(np.sin, 1.0)(1.0), FuncgradError, "sin cannot be transposed.*must be linear"),
        (lambda: fg.linear_transpose(lambda x: x * x, 1.0)(1.0), FuncgradError, "quadratic"),
        (lambda: fg.linear_transpose(loss_of_array, 1), TypeError, "argument 'x' has dtype int64"),
        (lambda: fg.linear_transpose(loss_of_array, 1.0)(np.float32(1)), TypeError, "cotangent has dtype float32"),
    ],
)
def test_errors_say_what_to_do(call, error, text) -> None:
    with pytest.raises(error, match=f"(?s){text}"):
        call()


def test_leaked_tracer_is_reported() -> None:
    kept = []

    def f(x):
        kept.append(x * 2)
        return x

    fg.grad(f)(1.0)
    with pytest.raises(LeakedTracerError, match=r"made by a gradient of f at .*py:\d+\. .*leaks when it stores"):
        kept[0] + 1.0
    for run, made in (
        (lambda: fg.jvp(f, (1.0,), (1.0,)), "a jvp of f"),
        (lambda: fg.vmap(f)(np.ones(2)), "a vmap of f"),
    ):
        kept.clear()
        run()
        with pytest.raises(LeakedTracerError, match=rf"made by {made} at .*test_derive\.py:\d+"):
            kept[0] + 1.0
    kept.clear()
    fg.grad(f)(1.0)
    fg.make_jaxpr(f)(1.0)
    with pytest.raises(LeakedTracerError, match=r"made by tracing f at .*test_derive\.py"):
        kept[1] + 1.0


def test_leaks_without_an_operation_are_reported_too() -> None:
    kept = []
    fg.grad(lambda x: kept.append(x) or x)(1.0)
    for call in (lambda: fg.grad(lambda x: kept[0])(1.0), lambda: fg.make_jaxpr(lambda x: kept[0] * x)(1.0)):
        with pytest.raises(LeakedTracerError, match="leaks when it stores a tracer"):
            call()


TRANSFORMS = {
    "grad": fg.grad,
    "jit": fg.jit,
    "vmap": lambda f: lambda x: fg.vmap(f, axis_name="i")(np.full(2, x)),
    "jvp": lambda f: lambda x: fg.jvp(f, (x,), (x,)),
    "vjp": lambda f: lambda x: fg.vjp(f, x)[1](1.0),
    "linearize": lambda f: lambda x: fg.linearize(f, x)[1](x),
    "linear_transpose": lambda f: lambda x: fg.linear_transpose(f, x)(1.0),
    "jacfwd": fg.jacfwd,
    "jacrev": fg.jacrev,
    "checkpoint": fg.checkpoint,
    "make_jaxpr": fg.make_jaxpr,
    "all": lambda f: fg.jit(fg.hessian(fg.checkpoint(fg.jit(f)))),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_exceptions_leave_nothing_behind(name) -> None:
    calls = []

    def fails_at_first(x):
        calls.append(x)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return x * 2.0

    transformed = TRANSFORMS[name](fails_at_first)
    with pytest.raises(KeyboardInterrupt):
        transformed(1.0)
    assert STATE.trace is EVAL and STATE.axes == ()
    transformed(1.0)
    assert len(calls) > 1 and STATE.trace is EVAL and STATE.axes == ()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_tracers_die_with_their_transformation(name) -> None:
    alive = []

    def f(x):
        y = x * 2.0
        alive.append(weakref.ref(y))
        return y

    gc.collect()
    gc.disable()
    try:
        TRANSFORMS[name](f)(1.0)
        assert alive and not any(isinstance(r(), fg.Tracer) for r in alive)
    finally:
        gc.enable()


def test_linear_transpose_of_ordinary_code() -> None:
    matrix = np.arange(6.0).reshape(2, 3)

    def f(x):
        y = np.zeros_like(x)
        y[1:] = x[:-1]
        return matrix @ y

    expected = np.array([[1.0, 2.0, 0.0], [4.0, 5.0, 0.0]])
    pull = fg.linear_transpose(f, np.ones(3))
    matrix[:] = 0  # it was linear at that time
    for transform in (lambda g: g, fg.jit):
        np.testing.assert_array_equal(transform(pull)(np.array([1.0, 0.0]))[0], expected[0])
    np.testing.assert_array_equal(fg.vmap(pull)(np.eye(2))[0], expected)


def test_warnings_of_numpy_stay_away() -> None:
    with np.errstate(all="raise"):
        assert fg.grad(np.sqrt)(0.0) == np.inf


def _refilled(x):
    buffer = np.full(x.shape, 2.0)
    total = np.sum(x * buffer)
    buffer[:] = 3.0
    return total + np.sum(np.sin(x[0]) * buffer[:2])


def test_work_arrays_may_be_written_again() -> None:
    x = np.ones(3)
    expected = np.array([2 + 6 * np.cos(1.0), 2, 2])
    pulled = fg.vjp(_refilled, x)[1](1.0)[0]
    for found in (fg.grad(_refilled)(x), fg.jit(fg.grad(_refilled))(x), pulled, fg.linearize(_refilled, x)[1](x)):
        np.testing.assert_allclose(found, expected if np.ndim(found) else expected.sum(), rtol=1e-15)

    def moving(x):
        weights = np.arange(3.0)
        total = 0.0
        for _ in range(2):
            total = total + np.sum(x * weights)  # broadcast: the trace meets a view
            weights += 1
        return total

    np.testing.assert_array_equal(fg.grad(moving)(np.ones((2, 3))), [[1, 3, 5]] * 2)
    np.testing.assert_array_equal(fg.jit(fg.grad(moving))(np.ones((2, 3))), [[1, 3, 5]] * 2)
    big = np.ones(100_000)
    with pytest.raises(ValueError, match=r"shape \(100000,\).*written to in place.*k\.copy\(\)"):
        fg.grad(_refilled)(big)
    np.testing.assert_allclose(fg.jit(fg.grad(_refilled))(big)[:3], expected)


def test_derivatives_keep_the_point_they_were_taken_at() -> None:
    x = np.array([1.0, 2.0, 3.0])
    out, pull = fg.vjp(np.exp, x)
    out[:], x[:] = 0, 0
    np.testing.assert_allclose(pull(np.ones(3))[0], np.exp([1, 2, 3]))
    x = np.array([1.0, 2.0, 3.0])
    out, push = fg.linearize(np.exp, x)
    out[:], x[:] = 0, 0
    np.testing.assert_allclose(push(np.ones(3)), np.exp([1, 2, 3]))

    def outer(y):
        _, pull = fg.vjp(lambda x: x * x * y, y)
        y[0] = 100.0
        return pull(np.ones(3))[0]

    for transform in (fg.jit, fg.vmap, lambda f: f):
        y = np.array([[1.0, 2.0, 3.0]])
        found = transform(outer)(y if transform is fg.vmap else y[0])
        np.testing.assert_allclose(np.reshape(found, 3), [2, 8, 18])


def test_results_share_no_memory() -> None:
    x, y = np.ones(3), np.ones(3)
    results = {
        "grad": fg.grad(lambda u, v: np.sum((u + v) ** 2), (0, 1))(x, y),
        "grad views": fg.grad(lambda u, v: np.sum((u.reshape(3) + v) ** 2), (0, 1))(np.ones((3, 1)), y),
        "jvp": fg.jvp(lambda u: (u, u), (x,), (y,)),
        "vmap": fg.vmap(lambda u: (u, u))(x),
        "aux": fg.grad(lambda u: (np.sum(u), (u, u)), has_aux=True)(x),
        "vjp": (fg.vjp(lambda u: (u, u), x)[0], fg.vjp(lambda u: (u, u), x)[1]((y, y))),
        "jacfwd": fg.jacfwd(lambda u: (u, u))(x),
        "jacrev": fg.jacrev(lambda u, v: u + v, (0, 1))(x, y),
    }
    for name, result in results.items():
        leaves = [*fg.tree.leaves(result), x, y]
        for k, a in enumerate(leaves):
            assert not any(np.shares_memory(a, b) for b in leaves[:k]), name
