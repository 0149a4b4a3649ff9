"""jit: same values, dtypes and shapes as un-jitted; traces and compiles when it must and not otherwise."""

from __future__ import annotations

import functools
import gc
import pickle
import sys
import threading

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.compiler import compile_jaxpr
from funcgrad.control import derived
from funcgrad.runtime.compile import stats

jit_module = sys.modules["funcgrad.jit"]


def mlp(params, x):
    for w, b in params[:-1]:
        x = np.tanh(x @ w + b)
    w, b = params[-1]
    return x @ w + b


def loss(params, x, y):
    z = mlp(params, x)
    z = z - np.max(z, axis=1, keepdims=True)
    return np.mean(np.log(np.sum(np.exp(z), axis=1)) - np.take_along_axis(z, y[:, None], 1)[:, 0])


@pytest.fixture
def problem(rng):
    sizes = [(5, 8), (8, 8), (8, 3)]
    params = [(rng.normal(size=s) * 0.5, rng.normal(size=s[1])) for s in sizes]
    return params, rng.normal(size=(7, 5)), rng.integers(0, 3, size=7)


def test_training_step_equals_eager(problem) -> None:
    value, g = fg.jit(fg.value_and_grad(loss))(*problem)
    expected, expected_g = fg.value_and_grad(loss)(*problem)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for a, b in zip(fg.tree.leaves(g), fg.tree.leaves(expected_g), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)
        assert type(a) is np.ndarray and a.dtype == b.dtype


f = lambda x: np.sum(np.tanh(x) * np.exp(-(x**2)))  # noqa: E731
COMPOSITIONS = {
    "jit grad": lambda: fg.jit(fg.grad(f)),
    "grad jit": lambda: fg.grad(fg.jit(f)),
    "grad jit grad": lambda: fg.grad(lambda x: np.sum(fg.jit(fg.grad(fg.jit(f)))(x) ** 2)),
    "jit grad grad": lambda: fg.jit(fg.grad(lambda x: np.sum(fg.grad(f)(x) ** 2))),
    "jit hessian": lambda: fg.jit(fg.hessian(f)),
    "hessian jit": lambda: fg.hessian(fg.jit(f)),
    "jit vmap grad": lambda: fg.jit(fg.vmap(lambda x: fg.grad(lambda t: np.sin(t) * t)(x))),
    "vmap jit grad": lambda: fg.vmap(fg.jit(fg.grad(lambda t: np.sin(t) * t))),
    "jvp jit": lambda: lambda x: fg.jvp(fg.jit(f), (x,), (np.cos(x),))[1],
    "jit jvp jit": lambda: fg.jit(lambda x: fg.jvp(fg.jit(f), (x,), (np.cos(x),))[1]),
    "jit checkpoint": lambda: fg.jit(fg.grad(fg.checkpoint(f))),
    "jit jacrev": lambda: fg.jit(fg.jacrev(lambda x: np.sin(x) * np.sum(x))),
    "jit linearize": lambda: fg.jit(lambda x: fg.linearize(f, x)[1](np.cos(x))),
}
EAGER = {
    "jit grad": lambda: fg.grad(f),
    "grad jit": lambda: fg.grad(f),
    "grad jit grad": lambda: fg.grad(lambda x: np.sum(fg.grad(f)(x) ** 2)),
    "jit grad grad": lambda: fg.grad(lambda x: np.sum(fg.grad(f)(x) ** 2)),
    "jit hessian": lambda: fg.hessian(f),
    "hessian jit": lambda: fg.hessian(f),
    "jit vmap grad": lambda: lambda x: np.sin(x) + x * np.cos(x),
    "vmap jit grad": lambda: lambda x: np.sin(x) + x * np.cos(x),
    "jvp jit": lambda: lambda x: np.sum(fg.grad(f)(x) * np.cos(x)),
    "jit jvp jit": lambda: lambda x: np.sum(fg.grad(f)(x) * np.cos(x)),
    "jit checkpoint": lambda: fg.grad(f),
    "jit jacrev": lambda: fg.jacrev(lambda x: np.sin(x) * np.sum(x)),
    "jit linearize": lambda: lambda x: np.sum(fg.grad(f)(x) * np.cos(x)),
}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_transforms_compose(name, rng) -> None:
    x = rng.normal(size=6)
    np.testing.assert_allclose(COMPOSITIONS[name]()(x), EAGER[name]()(x), rtol=1e-10, atol=1e-13)


def test_second_shape_compiles_nothing(rng) -> None:
    g = fg.jit(fg.grad(lambda w, x: np.sum(np.tanh(x @ w) ** 2)))
    g(rng.normal(size=(30, 20)), rng.normal(size=(10, 30)))
    before = stats().compiles
    w, x = rng.normal(size=(31, 22)), rng.normal(size=(57, 31))
    np.testing.assert_allclose(g(w, x), fg.grad(lambda w, x: np.sum(np.tanh(x @ w) ** 2))(w, x), rtol=1e-11)
    assert stats().compiles == before


def test_traces_once_per_signature() -> None:
    traces = []

    @fg.jit
    def g(x, y=1.0):
        traces.append(x)
        return x * y

    for _ in range(3):
        g(np.ones(3))
        g(np.ones(3), y=2.0)
        g(np.ones((2, 2)))
        g(1.0)
        g({"a": 1.0}["a"])
    assert len(traces) == 4
    assert g(3.0, y=np.float64(2.0)) == 6.0


@pytest.mark.parametrize(
    ("args", "expr"),
    [
        ((np.float32([1, 2]), 2.0), lambda x, y: x * y),
        ((np.float32([1, 2]), np.float64(2.0)), lambda x, y: x * y),
        ((np.int8([1, 2]), 3), lambda x, y: x + y),
        ((np.int32([7, -7]), 2), lambda x, y: (x / y, x // y, x % y)),
        ((np.array([True, False]), True), lambda x, y: (x & y, x | y, ~x, x + y)),
        ((2.0, np.float32([1, 2])), lambda x, y: (x * x) * y),
        ((2, np.int16([1, 2])), lambda x, y: x * y + x),
        ((1 + 2j, np.complex64([1j, 2])), lambda x, y: (x * y, np.abs(y), np.conj(y) / x)),
        ((np.float16([1.1, 2.2]), 3), lambda x, y: np.exp(x) * y),
        ((np.zeros((0, 3)), 1.0), lambda x, y: (x + y, np.sum(x), np.sum(x, axis=0))),
        ((np.uint8([250, 3]), np.uint8(10)), lambda x, y: (x + y, x * y, x - y)),
    ],
)
def test_dtypes_are_those_of_numpy(args, expr) -> None:
    with np.errstate(all="ignore"):
        expected = fg.tree.leaves(expr(*args))
    found = fg.tree.leaves(fg.jit(expr)(*args))
    for a, b in zip(found, expected, strict=True):
        b = np.asarray(b)[()] if np.ndim(b) == 0 else b
        assert type(a) is type(b), (a, b)
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=2e-3 if a.dtype == np.float16 else 1e-6)


def test_layouts_of_arguments(rng) -> None:
    a = rng.normal(size=(6, 8))
    g = fg.jit(lambda x: np.sum(np.sin(x) * np.arange(x.shape[1]), axis=0))
    for x in (a, a.T, a[::2, ::-1], np.asfortranarray(a), a[:, 3:4], np.broadcast_to(a[0], (4, 8)), a.astype(">f8")):
        np.testing.assert_allclose(g(x), np.sum(np.sin(x) * np.arange(x.shape[1]), axis=0), rtol=1e-12)


def test_outputs_never_alias() -> None:
    x = np.ones(4)
    a, b, c = fg.jit(lambda x: (x, x, x + 0.0))(x)
    a[0] = 5
    assert x[0] == 1 and b[0] == 1 and c[0] == 1
    k = np.arange(3.0)
    g = fg.jit(lambda x: k)
    g(1.0)[0] = 9
    assert k[0] == 0 and g(1.0)[0] == 0


def test_captured_arrays_are_constants() -> None:
    k = np.ones(3)
    g = fg.jit(lambda x: x + k)
    g(1.0)
    k[:] = 100
    np.testing.assert_array_equal(g(1.0), [2, 2, 2])


def test_static_arguments() -> None:
    traces = []

    def power(x, n, *, flip=False):
        traces.append(n)
        return -(x**n) if flip else x**n

    for g in (fg.jit(power, static_argnums=1, static_argnames="flip"), fg.jit(power, static_argnames=("n", "flip"))):
        traces.clear()
        assert g(2.0, 3) == 8 and g(3.0, n=3) == 27 and g(2.0, 3, flip=True) == -8 and g(2.0, 2) == 4
        g(5.0, 3)
        assert len(traces) == 4
    with pytest.raises(ValueError, match=r"static argument at position 1 of power is a list.*tuple instead"):
        fg.jit(power, static_argnums=1)(2.0, [1])
    with pytest.raises(ValueError, match="static_argnames names 'm'"):
        fg.jit(power, static_argnames="m")
    with pytest.raises(ValueError, match="donate_argnames names 'm'"):
        fg.jit(power, donate_argnames="m")
    with pytest.raises(ValueError, match=r"static_argnums \(2,\) wants positional argument 2, but power takes 2"):
        fg.jit(power, static_argnums=2)
    with pytest.raises(ValueError, match="argument 1 is both static and donated"):
        fg.jit(power, static_argnums=1, donate_argnums=1)


def test_negative_positions_are_those_of_the_signature() -> None:
    scale = fg.jit(lambda x, n=2: x * n, static_argnums=-1)
    assert scale(3.0) == 6 and scale(4.0) == 8 and scale._cache_size() == 1 and scale(4.0, 3) == 12
    x, y = np.ones(5), np.ones(5)
    fg.jit(lambda a, n, b: a * n + b, static_argnums=-2, donate_argnums=-3)(x, 2, y)
    assert np.all(y == 1)


def test_static_arguments_that_python_holds_equal() -> None:
    scale = fg.jit(lambda x, s: x * s[0], static_argnums=1)
    for s in ((1,), (1.0,), (True,), (1j,)):
        assert scale(np.arange(2), s).dtype == (np.arange(2) * s[0]).dtype
    sign = fg.jit(lambda x, *, s: np.copysign(x, s), static_argnames="s")
    assert sign(1.0, s=0.0) == 1 and sign(1.0, s=-0.0) == -1
    for _ in range(3):
        sign(1.0, s=float("nan"))
    assert sign._cache_size() == 3


def test_jit_inside_jit_and_functions_of_all_kinds() -> None:
    class Model:
        def __init__(self, w):
            self.w = w

        def plain(self, x):
            return x * self.w

        def __call__(self, x):
            return x + self.w

        @functools.partial(fg.jit, static_argnums=0)
        def method(self, x):
            return x * self.w

    @functools.partial(fg.jit, static_argnums=1)
    def power(x, n):
        return x if n == 0 else x * power(x, n - 1)

    model, other = Model(3.0), Model(5.0)
    assert fg.jit(model.plain)(2.0) == 6 and fg.jit(model)(2.0) == 5
    assert model.method(2.0) == 6 and other.method(2.0) == 10 and fg.grad(other.method)(2.0) == 5
    assert fg.jit(functools.partial(lambda a, b, c: a + b * c, 1.0, c=3.0))(2.0) == 7
    assert power(2.0, 5) == 64 and fg.grad(power)(2.0, 3) == 32
    assert fg.jit(abs)(-2.0) == 2 and fg.jit(sum)([1.0, 2.0]) == 3 and fg.jit(fg.jit(np.negative))(1.0) == -1
    assert fg.grad(lambda x: fg.jit(lambda y: x * y)(2.0))(3.0) == 2
    np.testing.assert_array_equal(fg.vmap(lambda x: fg.jit(lambda y: x * y)(2.0))(np.arange(3.0)), [0, 2, 4])


def test_nothing_accumulates() -> None:
    fg.clear_caches()
    for k in range(30):
        fg.grad(fg.jit(lambda x, k=k: np.sin(x) * k))(1.0)
    gc.collect()
    assert len(jit_module._executables) == 0 and not any(map(len, derived._caches))


def test_arguments_that_are_no_arrays() -> None:
    g = fg.jit(lambda a, b: a)
    with pytest.raises(TypeError, match=r"jit: argument 'b'\['k'\] of <lambda>: 's' of type.*static_argnums"):
        g(1.0, {"k": "s"})
    with pytest.raises(TypeError, match="jit: argument 'b' of <lambda>: array has dtype object"):
        g(1.0, np.array([None]))
    with pytest.raises(TypeError, match="jit: argument 'a' of <lambda>: a ShapeDtypeStruct has no value"):
        g(fg.ShapeDtypeStruct((), float), 1.0)
    with pytest.raises(TypeError, match="mask would be lost"):
        g(np.ma.array([1.0], mask=[1]), 1.0)
    with pytest.raises(OverflowError, match=r"does not fit int64.*pass it as a float"):
        g(2**70, 1.0)


def test_decorator_forms_and_methods() -> None:
    @fg.jit
    def a(x):
        """Doc."""
        return x + 1

    @fg.jit(static_argnums=(1,))
    def b(x, n):
        return x * n

    class Model:
        def __init__(self, w):
            self.w = w

        @fg.jit
        def call(self, x):
            return x * 2

    assert a.__name__ == "a" and a.__doc__ == "Doc."
    assert a(1.0) == 2 and b(2.0, 3) == 6
    with pytest.raises(TypeError, match="Model"):
        Model(1.0).call(2.0)


def test_stages_show_their_text(rng) -> None:
    g = fg.jit(lambda x: np.exp(x) / np.sum(np.exp(x), axis=1, keepdims=True))
    traced = g.trace(np.ones((3, 4)))
    assert "exp" in traced.as_text()
    lowered = traced.lower()
    assert "def kernel" in lowered.as_text()
    compiled = lowered.compile()
    x = rng.normal(size=(3, 4))
    np.testing.assert_allclose(compiled(x), g(x))
    assert "define" in compiled.as_text("llvm")
    assert compiled.memory_analysis() is not None and compiled.cost_analysis() is not None
    with pytest.raises(TypeError, match="was compiled for"):
        compiled(np.ones((2, 2)))
    assert g.eval_shape(np.ones((3, 4))) == fg.ShapeDtypeStruct((3, 4), float)


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def layer_norm(x, g, b):
    mu = np.mean(x, axis=-1, keepdims=True)
    var = np.mean((x - mu) ** 2, axis=-1, keepdims=True)
    return (x - mu) / np.sqrt(var + 1e-5) * g + b


@pytest.mark.parametrize(
    ("fun", "shapes", "count"),
    [
        (softmax, [(64, 50)], 1),
        (layer_norm, [(64, 50), (50,), (50,)], 1),
        (lambda x: np.tanh(x) * np.exp(-x) + 2 * x, [(1000,)], 1),
        (lambda x: (np.mean(x, axis=1), np.var(x, axis=1)), [(64, 50)], 1),
        (lambda x: np.log(np.sum(np.exp(x), axis=1)), [(64, 50)], 1),
    ],
)
def test_kernel_counts(fun, shapes, count, rng) -> None:
    args = [rng.normal(size=s) for s in shapes]
    closed = fg.make_jaxpr(fun)(*args)
    executable = compile_jaxpr(closed)
    assert len(executable.kernels) == count
    for a, b in zip(executable(args), fg.tree.leaves(fun(*args)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def test_many_threads_share_one_function(rng) -> None:
    g = fg.jit(fg.grad(lambda x: np.sum(np.sin(x) * x)))
    inputs = [rng.normal(size=n) for n in (3, 100, 5000, 200_000)]
    expected = [np.cos(x) * x + np.sin(x) for x in inputs]
    wrong = []

    def work() -> None:
        for _ in range(20):
            for x, e in zip(inputs, expected, strict=True):
                if not np.allclose(g(x), e, rtol=1e-12):
                    wrong.append(len(x))

    workers = [threading.Thread(target=work) for _ in range(8)]
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    assert not wrong


def test_deep_chain_compiles_without_recursion() -> None:
    def chain(x):
        for _ in range(3000):
            x = x * 1.0001 + 0.001
        return x

    assert np.isclose(fg.jit(chain)(1.0), chain(1.0), rtol=1e-12)


def test_errors_of_tracing() -> None:
    with pytest.raises(fg.errors.TracerBoolError, match=r"(?s)test_jit\.py.*lax\.cond|np\.where"):
        fg.jit(lambda x: x if x > 0 else -x)(1.0)
    with pytest.raises(TypeError, match="not an array"):
        fg.jit(lambda x: x)("text")
    with pytest.raises(TypeError, match="returned something that is not an array"):
        fg.jit(lambda x: "text")(1.0)
    with pytest.raises(TypeError, match="expects a function"):
        fg.jit(3)


def test_clear_caches() -> None:
    g = fg.jit(lambda x: x + 1)
    assert g(1.0) == 2 and g._cache_size() == 1
    fg.clear_caches()
    assert g._cache_size() == 0
    assert g(1.0) == 2


@fg.jit
def module_level(x):
    return x + 1


def test_pickles_by_name_or_by_function() -> None:
    assert pickle.loads(pickle.dumps(module_level)) is module_level
    again = pickle.loads(pickle.dumps(fg.jit(np.multiply, static_argnums=1)))
    assert again(3.0, 2) == 6.0
