# ruff: noqa: E731
"""Custom derivative rules. Rules that say another derivative than the function has show which of them was used;
rules that say the true one are held to the function without rules, in every nesting."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax
from funcgrad.custom_derivatives import CustomVJPPrimal, SymbolicZero, linear_call, zero_from_primal

_rng = np.random.default_rng(0)
V, XS = _rng.normal(size=3), _rng.normal(size=(4, 3))
S = 0.7


def plain(x, y):
    return {"a": np.sin(x) * y, "b": (np.sum(x) * y**2,)}


def _jvp(primals, tangents):
    (x, y), (tx, ty) = primals, tangents
    a = np.cos(x) * y * tx + np.sin(x) * ty
    return plain(x, y), {"a": a, "b": (np.sum(tx) * y**2 + 2 * np.sum(x) * y * ty,)}


def _fwd(x, y):
    return plain(x, y), {"x": x, "y": y, "tag": "kept"}


def _bwd(res, ct):
    assert res["tag"] == "kept"
    x, y = res["x"], res["y"]
    a, (b,) = ct["a"], ct["b"]
    return a * np.cos(x) * y + b * y**2, np.sum(a * np.sin(x)) + 2 * b * np.sum(x) * y


def with_jvp():
    f = fg.custom_jvp(plain)
    f.defjvp(_jvp)
    return f


def with_vjp():
    f = fg.custom_vjp(plain)
    f.defvjp(_fwd, _bwd)
    return f


def with_both():
    f = with_vjp()
    f.defjvp(_jvp)
    return f


KINDS = {"jvp": with_jvp, "vjp": with_vjp, "both": with_both}


def scalar(f):
    def loss(x, y):
        out = f(x, y)
        return np.sum(out["a"] ** 2) + np.sin(out["b"][0])

    return loss


def scanned(f):
    def loss(x, y):
        def step(c, row):
            out = f(c + row, y)
            return out["a"], out["b"][0]

        c, ys = lax.scan(step, x, XS)
        return np.sum(c**2) + np.sum(np.cos(ys))

    return loss


def looped(f):
    def loss(x, y):
        step = lambda c: (c[0] + 1, f(c[1], y)["a"] + x)
        n, c = lax.while_loop(lambda c: c[0] < 3, step, (0, x))
        return np.sum(c**2) * n

    return loss


def branched(f):
    return lambda x, y: lax.cond(y > 0, scalar(f), lambda x, y: np.sum(x) * y, x, y)


def batched(f):
    def loss(x, y):
        out = fg.vmap(f, (0, None), {"a": 0, "b": 0})(np.stack([x, 2 * x]), y)
        mixed = fg.vmap(f, (None, 0))(x, np.stack([y, y + 1]))
        return np.sum(out["a"] ** 2) + np.sum(out["b"][0]) * np.sum(np.sin(mixed["a"])) + np.sum(mixed["b"][0])

    return loss


def checkpointed(f):
    return lambda x, y: fg.checkpoint(scalar(f))(x, y) * y


def nested(f):
    """A custom function whose rules call a custom function."""
    g = fg.custom_jvp(lambda x, y: scalar(f)(x, y))

    @g.defjvp
    def rule(primals, tangents):
        return fg.jvp(scalar(f), primals, tangents)

    return lambda x, y: g(x, y) * y + np.sum(x)


PROGRAMS = {
    "scalar": scalar, "scanned": scanned, "looped": looped, "branched": branched, "batched": batched,
    "checkpointed": checkpointed, "nested": nested, "jitted": lambda f: fg.jit(scalar(f)),
    "jit_inside": lambda f: scalar(fg.jit(f)),
}  # fmt: skip

TRANSFORMS = {
    "value": lambda f: f,
    "grad": lambda f: fg.grad(f, (0, 1)),
    "jacfwd": lambda f: fg.jacfwd(f, (0, 1)),
    "jit_grad": lambda f: fg.jit(fg.grad(f, (0, 1))),
    "jit_jacfwd": lambda f: fg.jit(fg.jacfwd(f, (0, 1))),
    "fwd_fwd": lambda f: fg.jacfwd(fg.jacfwd(f, (0, 1)), (0, 1)),
    "fwd_rev": lambda f: fg.jacfwd(fg.jacrev(f, (0, 1)), (0, 1)),
    "rev_fwd": lambda f: fg.jacrev(fg.jacfwd(f, (0, 1)), (0, 1)),
    "rev_rev": lambda f: fg.jacrev(fg.jacrev(f, (0, 1)), (0, 1)),
    "jit_rev_rev": lambda f: fg.jit(fg.jacrev(fg.jacrev(f))),
    "jit_fwd_rev": lambda f: fg.jit(fg.jacfwd(fg.jacrev(f))),
    "linearize": lambda f: lambda x, y: fg.linearize(f, x, y)[1](x + 1, 2.0),
    "transposed_linearize": lambda f: lambda x, y: fg.linear_transpose(fg.linearize(f, x, y)[1], x, y)(1.5),
    "vmap_grad": lambda f: lambda x, y: fg.vmap(fg.grad(f, (0, 1)), (0, None))(XS, y),
    "jit_vmap_grad": lambda f: lambda x, y: fg.jit(fg.vmap(fg.grad(f, 1)))(XS, np.arange(4.0)),
    "grad_vmap": lambda f: lambda x, y: fg.grad(lambda x, y: np.sum(fg.vmap(f, (0, None))(x, y)), (0, 1))(XS, y),
}


def assert_same(found: Any, wanted: Any, rtol: float = 1e-9) -> None:
    assert fg.tree.structure(found) == fg.tree.structure(wanted)
    for a, b in zip(fg.tree.leaves(found), fg.tree.leaves(wanted), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_true_rules_change_nothing(program: str, transform: str, kind: str) -> None:
    make, over = PROGRAMS[program], TRANSFORMS[transform]
    assert_same(over(make(KINDS[kind]()))(V, S), over(make(plain))(V, S))


def marked():
    """d/dx is 2 by the JVP rule and 3 by the VJP rule; of neither is the function's own, 1."""
    f = fg.custom_jvp(lambda x: x * 1.0)
    f.defjvp(lambda primals, tangents: (f(*primals), 2 * tangents[0]))
    f.defvjp(lambda x: (f(x), None), lambda res, ct: (3 * ct,))
    return f


NESTINGS = {
    "plain": lambda f: f,
    "jit": lambda f: fg.jit(f),
    "scan": lambda f: lambda x: lax.scan(lambda c, _: (f(c), None), x, None, length=1)[0],
    "while": lambda f: lambda x: lax.while_loop(lambda c: c[0] < 1, lambda c: (c[0] + 1, f(c[1])), (0, x))[1],
    "cond": lambda f: lambda x: lax.cond(x > 0, f, f, x),
    "vmap": lambda f: lambda x: fg.vmap(f)(np.stack([x]))[0],
    "checkpoint": lambda f: fg.checkpoint(f),
}


@pytest.mark.parametrize("name", NESTINGS)
def test_forward_mode_takes_the_jvp_and_reverse_mode_the_vjp(name: str) -> None:
    f = NESTINGS[name](marked())
    for over in (lambda f: f, fg.jit):
        assert over(f)(0.5) == 0.5
        assert over(fg.grad(f))(0.5) == 3.0
        assert over(fg.jacrev(f))(0.5) == 3.0
        assert over(fg.jacfwd(f))(0.5) == 2.0
        assert over(lambda x: fg.vjp(f, x)[1](1.0)[0])(0.5) == 3.0
        assert over(lambda x: fg.linearize(f, x)[1](1.0))(0.5) == 2.0


def test_one_rule_serves_both_modes() -> None:
    f = fg.custom_jvp(lambda x: x * 1.0)
    f.defjvp(lambda primals, tangents: (f(*primals), 2 * tangents[0]))
    g = fg.custom_vjp(lambda x: x * 1.0)
    g.defvjp(lambda x: (g(x), None), lambda res, ct: (3 * ct,))
    for over in (lambda f: f, fg.jit):
        assert over(fg.grad(f))(0.5) == over(fg.jacfwd(f))(0.5) == 2.0
        assert over(fg.grad(g))(0.5) == over(fg.jacfwd(g))(0.5) == 3.0


def test_python_control_flow_on_values() -> None:
    """Without jit and vmap the function and its rules see values."""

    @fg.custom_jvp
    def f(x):
        return np.sin(x) if x > 0 else np.cos(x)

    @f.defjvp
    def rule(primals, tangents):
        (x,), (t,) = primals, tangents
        return (f(x), 2 * t) if x > 0 else (f(x), 3 * t)

    assert fg.grad(f)(1.0) == 2.0 and fg.grad(f)(-1.0) == 3.0
    assert fg.jvp(f, (1.0,), (1.0,)) == (np.sin(1.0), 2.0)


def test_the_function_is_not_run_under_a_derivative() -> None:
    calls = []

    def untraceable(x):
        calls.append(x)
        return float(x) ** 2

    f = fg.custom_vjp(untraceable)
    f.defvjp(lambda x: (np.float64(untraceable(x)), x), lambda x, ct: (2 * x * ct,))
    assert fg.grad(f)(3.0) == 6.0
    assert calls == [3.0]


def test_called_with_values_it_is_the_function() -> None:
    f = fg.custom_jvp(lambda x: [x, "as it is"])
    f.defjvp(lambda primals, tangents: None)
    assert f(2) == [2, "as it is"]


def test_defjvps() -> None:
    f = fg.custom_jvp(lambda x, y, z: {"r": x * y * z})
    f.defjvps(lambda t, out, x, y, z: {"r": 5 * t}, None, lambda t, out, x, y, z: {"r": t * out["r"]})
    loss = lambda x, y, z: f(x, y, z)["r"]
    for over in (lambda f: f, fg.jit):
        assert over(fg.grad(loss, (0, 1, 2)))(2.0, 3.0, 4.0) == (5.0, 0.0, 24.0)
        assert over(fg.jacfwd(loss, (0, 1, 2)))(2.0, 3.0, 4.0) == (5.0, 0.0, 24.0)


def test_keywords_defaults_and_names() -> None:
    @partial(fg.custom_vjp, nondiff_argnames=("power",))
    def f(x, scale=2.0, power=3):
        return scale * x**power

    f.defvjp(
        lambda x, scale, power: (f(x, scale, power), (x, scale)),
        lambda power, res, ct: (ct * 100 * power, None),
    )
    assert f(2.0) == 16.0
    assert fg.grad(f)(2.0) == 300.0
    assert fg.grad(lambda x: f(power=2, x=x))(2.0) == 200.0
    assert fg.jit(fg.grad(lambda x: f(x, power=2)))(2.0) == 200.0


@partial(fg.custom_jvp, nondiff_argnums=(0, 2))
def apply(fun, x, n):
    return fun(x) * n


@apply.defjvp
def _(fun, n, primals, tangents):
    (x,), (t,) = primals, tangents
    return apply(fun, x, n), 7 * t * n


def test_nondiff_arguments() -> None:
    assert fg.grad(lambda x: apply(np.sin, x, 2))(1.0) == 14.0
    assert fg.jit(fg.grad(lambda x: apply(np.sin, x, 2)))(1.0) == 14.0
    np.testing.assert_array_equal(fg.vmap(fg.grad(lambda x: apply(np.sin, x, 2)))(V), np.full(3, 14.0))


def test_traced_nondiff_arguments() -> None:
    """They are operands like the others, without a derivative."""
    g = lambda x, n: apply(np.sin, x, n)
    assert fg.jit(fg.grad(g))(1.0, 2.0) == 14.0
    assert fg.grad(fg.jit(g))(1.0, 2.0) == 14.0
    np.testing.assert_array_equal(fg.vmap(fg.grad(g), (None, 0))(1.0, V), 7 * V)
    loss = lambda x: np.sum(fg.vmap(g, (None, 0))(x, V))
    np.testing.assert_allclose(fg.grad(loss)(1.0), 7 * V.sum())
    with pytest.raises(fg.NonDifferentiableError, match="apply is differentiated with respect to a non-diff"):
        fg.grad(g, 1)(1.0, 2.0)


@pytest.mark.parametrize("zero", [None, np.zeros((), fg.float0)])
def test_integers(zero: Any) -> None:
    f = fg.custom_vjp(lambda x, n: (x * n, n + 1))

    def bwd(res, ct):
        assert ct[1].dtype == fg.float0
        return ct[0] * 5, zero

    f.defvjp(lambda x, n: (f(x, n), n), bwd)
    for over in (lambda f: f, fg.jit):
        assert over(fg.grad(lambda x, n: f(x, n)[0]))(2.0, 3) == 5.0
    out, tangent = fg.jvp(lambda x: f(x, 3), (2.0,), (1.0,))
    assert out == (6.0, 4) and tangent[0] == 5.0 and tangent[1].dtype == fg.float0
    assert fg.grad(lambda n: f(2.0, n)[0], allow_int=True)(3).dtype == fg.float0


def test_none_stands_for_any_part() -> None:
    f = fg.custom_vjp(lambda p, q: p["a"] * p["b"][0] * q)
    f.defvjp(lambda p, q: (f(p, q), p), lambda p, ct: ({"a": None, "b": [ct * 2.0, None]}, None))
    p = {"a": 3.0, "b": [2.0, (V, V)]}
    for over in (lambda f: f, fg.jit):
        g = over(fg.grad(f, (0, 1)))(p, 5.0)
        assert_same(g, ({"a": np.float64(0), "b": [np.float64(2), (0 * V, 0 * V)]}, np.float64(0)))


def test_symbolic_zeros_of_a_vjp() -> None:
    seen: list[Any] = []

    def fwd(x, y):
        seen.append((x, y))
        return (x.value * y.value, x.value + y.value), y.value

    def bwd(y, cts):
        seen.append(cts)
        return cts[0] * y, None

    f = fg.custom_vjp(lambda x, y: (x * y, x + y))
    f.defvjp(fwd, bwd, symbolic_zeros=True)
    assert fg.grad(lambda x: f(x, 3.0)[0])(2.0) == 3.0
    (x, y), (ct, zero) = seen
    assert type(x) is CustomVJPPrimal and (x.value, x.perturbed, y.value, y.perturbed) == (2.0, True, 3.0, False)
    assert ct == 1.0 and type(zero) is SymbolicZero and zero.shape == () and zero.dtype == np.float64


def test_symbolic_zeros_of_a_jvp() -> None:
    seen: list[Any] = []
    f = fg.custom_jvp(lambda x, y: x * y)

    def rule(primals, tangents):
        seen.append(tangents)
        return f(*primals), tangents[0] * primals[1]

    f.defjvp(rule, symbolic_zeros=True)
    assert fg.jvp(lambda x: f(x, 3.0), (2.0,), (1.0,))[1] == 3.0
    assert fg.grad(lambda x: f(x, 3.0))(2.0) == 3.0
    assert [type(t[1]) for t in seen] == [SymbolicZero, SymbolicZero]
    f.defjvp(lambda primals, tangents: (f(*primals), zero_from_primal(primals[0], symbolic_zeros=True)))
    assert fg.grad(f)(2.0, 3.0) == 0.0


def test_complex_numbers() -> None:
    f = lambda z: np.exp(z) * np.conj(z)
    g = fg.custom_vjp(f)
    g.defvjp(lambda z: (f(z), z), lambda z, ct: fg.vjp(f, z)[1](ct))
    z = 0.3 + 0.7j
    loss = lambda f: lambda z: np.abs(f(z)) ** 2
    for over in (fg.grad, lambda h: fg.jit(fg.grad(h)), lambda h: lambda z: fg.jvp(h, (z,), (1.0 - 2j,))):
        assert_same(over(loss(g))(z), over(loss(f))(z))
    assert_same(fg.jvp(g, (z,), (1 - 2j,)), fg.jvp(f, (z,), (1 - 2j,)))


def test_collectives_in_function_and_rules() -> None:
    total = lambda x: x * lax.psum(x, "i")
    f = fg.custom_vjp(total)
    f.defvjp(lambda x: (total(x), x), lambda x, ct: fg.vjp(total, x)[1](ct))
    g = fg.custom_jvp(total)
    g.defjvp(lambda p, t: fg.jvp(total, p, t))
    for over in (lambda h: h, fg.jit):
        for transform in (lambda h: fg.vmap(h, axis_name="i"), lambda h: fg.vmap(fg.grad(h), axis_name="i")):
            want = over(transform(total))(V)
            assert_same(over(transform(f))(V), want)
            assert_same(over(transform(g))(V), want)
        loss = lambda h: fg.grad(lambda x: np.sum(np.sin(fg.vmap(h, axis_name="i")(x))))
        assert_same(over(loss(f))(V), over(loss(total))(V))
        assert_same(over(loss(g))(V), over(loss(total))(V))


def test_captured_values() -> None:
    """What encloses the transformations may be captured, by the function and by the rules."""

    def scaled(y):
        f = fg.custom_vjp(lambda x: np.sin(x) * y)
        f.defvjp(lambda x: (np.sin(x) * y, x), lambda x, ct: (10 * np.cos(x) * ct * y,))
        return f

    assert_same(fg.jit(lambda y: scaled(y)(2.0))(3.0), np.float64(np.sin(2.0) * 3))
    assert_same(fg.vmap(lambda y: scaled(y)(2.0))(V), np.sin(2.0) * V)
    assert_same(fg.jit(lambda y: fg.grad(scaled(y))(2.0))(3.0), np.float64(30 * np.cos(2.0)))
    assert_same(fg.vmap(lambda y: fg.grad(scaled(y))(2.0))(V), 10 * np.cos(2.0) * V)
    assert_same(fg.grad(lambda y: fg.grad(scaled(y))(2.0))(3.0), np.float64(10 * np.cos(2.0)))


def test_residual_buffers_are_kept() -> None:
    """A work array that fwd fills again and again holds, in bwd, what it held then; a large one is an error."""
    for size, raises in ((3, False), (20_000, True)):
        work = np.empty(size)

        def fwd(x, work=work):
            work[:] = x
            return np.sum(x**2), work

        f = fg.custom_vjp(lambda x: np.sum(x**2))
        f.defvjp(fwd, lambda res, ct: (2 * res * ct,))
        x = np.arange(1.0, size + 1)
        loss = lambda x, f=f: f(x) + f(3 * x)
        if raises:
            with pytest.raises(ValueError, match="written to in place"):
                fg.grad(loss)(x)
        else:
            assert_same(fg.grad(loss)(x), 20 * x)


def test_what_no_rule_keeps_is_freed() -> None:
    seen: list[Any] = []

    def fwd(x, options):
        seen.append(weakref.ref(x))
        return np.sum(x), None

    f = fg.custom_vjp(lambda x, options: np.sum(x))
    f.defvjp(fwd, lambda res, ct: (ct * np.ones(3), None))
    _, pull = fg.vjp(lambda x: f(3 * x, {"scale": x}), V)
    assert seen[0]() is None
    assert_same(pull(2.0), (6 * np.ones(3),))
    jitted = fg.jit(lambda x: f(3 * x, {"scale": x}))
    jitted.trace(V)
    grown = weakref.ref(jitted)
    del jitted
    gc.collect()
    assert grown() is None


def test_checks_and_prints_inside(capsys: pytest.CaptureFixture[str]) -> None:
    """Effects of the function and of the rules happen, and a checked function keeps its rules."""

    def root(x, limit):
        fg.checkify.check(x > limit, "{x} is too small", x=x)
        return np.sqrt(x)

    f = fg.custom_jvp(root)
    f.defjvp(lambda p, t: (root(*p), 7 * t[0]))
    g = fg.custom_vjp(root)
    g.defvjp(lambda x, limit: (root(x, limit), None), lambda res, ct: (7 * ct, None))
    for h in (f, g):
        for over in (lambda k: k, fg.jit):
            call = over(fg.checkify.checkify(lambda x, h=h: h(x, 0.5)))
            for x, failed in ((4.0, False), (0.25, True)):
                error, value = call(x)
                assert (error.get() is not None) is failed and value == np.sqrt(x)
                error, value = fg.checkify.checkify(over(fg.grad(lambda x, h=h: h(x, 0.5))))(x)
                assert (error.get() is not None) is failed and value == 7.0
            assert over(fg.grad(lambda x, call=call: call(x)[1]))(4.0) == 7.0
            assert over(fg.jacfwd(lambda x, call=call: call(x)[1]))(4.0) == 7.0
            np.testing.assert_array_equal(over(fg.vmap(fg.grad(lambda x, call=call: call(x)[1])))(V**2 + 1), [7.0] * 3)

    def loud(x):
        fg.debug.print("x is {x}", x=x)
        return x

    h = fg.custom_vjp(loud)
    h.defvjp(lambda x: (loud(x), None), lambda res, ct: (ct,))
    assert fg.jit(h)(1.0) == 1.0 and fg.jit(fg.grad(h))(2.0) == 1.0
    assert capsys.readouterr().out == "x is 1.0\nx is 2.0\n"


def test_ufuncs_and_callable_objects() -> None:
    class Twice:
        def __call__(self, x):
            return 2 * x

    for fun, value in ((np.sin, np.sin(1.0)), (Twice(), 2.0)):
        f = fg.custom_jvp(fun)
        f.defjvp(lambda p, t, fun=fun: (fun(p[0]), 7 * t[0]))
        assert f(1.0) == fg.jit(f)(1.0) == value
        assert fg.grad(f)(1.0) == fg.jit(fg.grad(f))(1.0) == 7.0


def test_methods() -> None:
    class Model:
        def __init__(self, scale):
            self.scale = scale

        @partial(fg.custom_jvp, nondiff_argnums=(0,))
        def run(self, x):
            return self.scale * x

        @run.defjvp
        def rule(self, primals, tangents):
            return self.run(*primals), 10 * self.scale * tangents[0]

    assert Model(2.0).run(3.0) == 6.0
    assert fg.grad(Model(2.0).run)(3.0) == 20.0
    assert fg.jit(fg.grad(Model(2.0).run))(3.0) == 20.0


def test_custom_gradient() -> None:
    @fg.custom_gradient
    def f(x, y):
        s = np.sin(x)
        return s * y, lambda ct: (ct * 10 * y, ct * s)

    assert fg.grad(f, (0, 1))(2.0, 3.0) == (30.0, np.sin(2.0))
    assert fg.jit(fg.grad(f, (0, 1)))(2.0, 3.0) == (30.0, np.sin(2.0))
    assert_same(fg.vmap(fg.grad(f, (0, 1)))(V, V), (10 * V, np.sin(V)))
    assert_same(fg.grad(lambda x: np.sum(fg.vmap(f)(x, x)))(V), 10 * V + np.sin(V))
    assert fg.grad(fg.grad(f, 1))(2.0, 3.0) == np.cos(2.0)


def test_closure_convert() -> None:
    def converted_call(a, x):
        captured = {"tracer": a * 2, "array": V}
        fun = lambda t: t * captured["tracer"] + captured["array"]
        converted, consts = fg.closure_convert(fun, x)
        assert len(consts) == 1
        return np.sum(converted(x, *consts))

    plain = lambda a, x: np.sum(x * a * 2 + V)
    for over in (lambda f: fg.grad(f, (0, 1)), lambda f: fg.jit(fg.grad(f, (0, 1)))):
        assert_same(over(converted_call)(3.0, V), over(plain)(3.0, V))
    assert_same(fg.vmap(converted_call)(V, XS[:3]), fg.vmap(plain)(V, XS[:3]))
    converted, consts = fg.closure_convert(lambda x: x * V, V)
    assert consts == []
    assert_same(converted(V), V * V)


def divide(s, x):
    """Division, whose transpose says ten times more."""
    return linear_call(lambda s, x: {"q": x / s}, lambda s, ct: 10 * ct["q"] / s, s, x)["q"]


def test_linear_call() -> None:
    ones = np.ones(3)
    for over in (lambda f: f, fg.jit):
        assert_same(over(divide)(2.0, V), V / 2)
        assert_same(over(fg.jacfwd(divide, 1))(2.0, V), np.eye(3) / 2)
        assert_same(over(fg.jacrev(divide, 1))(2.0, V), 5 * np.eye(3))
        assert_same(over(fg.grad(lambda s, x: np.sum(divide(s, x))))(2.0, V), np.sum(-V / 4))
        assert_same(over(fg.linear_transpose(lambda x: divide(2.0, x), V))(ones), (5 * ones,))
        twice = lambda c: fg.linear_transpose(lambda x: divide(2.0, x), V)(c)[0]
        assert_same(over(fg.linear_transpose(twice, V))(V), (V / 2,))
        assert_same(over(fg.vmap(divide, (None, 0)))(2.0, XS), XS / 2)
        assert_same(over(fg.vmap(fg.grad(lambda s, x: divide(s, x), 1), (0, None)))(V, 1.0), 10 / V)
        loss = lambda s, x: np.sum(fg.vmap(divide, (0, None))(s, x) ** 2)
        assert_same(over(fg.grad(loss, 1))(V, V), over(fg.grad(lambda s, x: 10 * loss_of(s, x), 1))(V, V))


def loss_of(s, x):
    return np.sum((x[None] / s[:, None]) ** 2)


DOUBLE = np.array([1, 0, 3])
OPERANDS = {
    "mask": (lambda x, t: t * (x > 0), lambda x: (x > 0) * 1.0),
    "integers": (lambda x, t: t * DOUBLE, lambda x: DOUBLE),
    "an integer": (lambda x, t: np.int32(3) * t - t * True, lambda x: 2.0 + 0 * x),
    "float32": (lambda x, t: t * np.float32(0.5), lambda x: 0.5 + 0 * x),
    "a list": (lambda x, t: t * [1.0, 0.0, 3.0], lambda x: DOUBLE),
    "sum": (lambda x, t: sum([t, t]), lambda x: 2.0 + 0 * x),
    "zeros": (lambda x, t: t + np.zeros(3, int) - 0, lambda x: 1.0 + 0 * x),
}


@pytest.mark.parametrize("name", OPERANDS)
def test_rules_promote_as_numpy_does(name: str) -> None:
    """Tangents that are recorded take operands of any dtype, as those that are arrays do."""
    rule, slope = OPERANDS[name]
    forward = fg.custom_jvp(lambda x: x)
    forward.defjvp(lambda primals, tangents: (primals[0], rule(primals[0], tangents[0])))
    backward = fg.custom_vjp(lambda x: x)
    backward.defvjp(lambda x: (x, x), lambda x, ct: (rule(x, ct),))
    for f in (forward, backward):
        for derivative in (fg.jacfwd(f), fg.jacrev(f), fg.jit(fg.jacfwd(f)), fg.jit(fg.jacrev(f))):
            assert_same(derivative(V), np.diag(1.0 * slope(V)))


def test_rules_do_not_write_to_tangents() -> None:
    def rule(primals, tangents):
        (t,) = tangents
        t[0] = 0.0
        return primals[0], t

    f = fg.custom_jvp(lambda x: x)
    f.defjvp(rule)
    with pytest.raises(TypeError, match=r"cannot write to a tangent.*funcgrad\.at\(t\)\[i\]\.set"):
        fg.jacrev(f)(V)


def looped(x, y):
    swung = lax.fori_loop(0, 2, lambda i, c: lax.scan(lambda c, _: (np.sin(c) * y, c), c, None, 3)[0], x)
    return swung, {"a": lax.cond(x[0] > 0, np.sin, np.cos, y), "b": fg.checkpoint(np.tanh)(x)}


RULES_OF_JVP = {
    "jvp": lambda primals, tangents: fg.jvp(looped, primals, tangents),
    "jvp of jit": lambda primals, tangents: fg.jvp(fg.jit(looped), primals, tangents),
    "jit of jvp": fg.jit(lambda primals, tangents: fg.jvp(looped, primals, tangents)),
}


@pytest.mark.parametrize("name", RULES_OF_JVP)
def test_rules_take_primals_and_tangents_through_loops(name: str) -> None:
    """One loop, branch or jitted function makes the result and its tangent: each is told from the other."""
    by_rule = fg.custom_jvp(looped)
    by_rule.defjvp(RULES_OF_JVP[name])
    loss = lambda f: lambda x, y: sum([np.sum(leaf**2) for leaf in fg.tree.leaves(f(x, y))])
    x, y = np.array([0.5, 0.7]), np.array([1.3, 1.1])
    for over in (lambda f: f, fg.jit):
        for d in (lambda f: fg.grad(f, (0, 1)), lambda f: fg.grad(f, 1), lambda f: fg.hessian(f, (0, 1))):
            assert_same(over(d(loss(by_rule)))(x, y), d(loss(looped))(x, y))
        assert_same(over(fg.vmap(fg.grad(loss(by_rule))))(x[None], y[None])[0], fg.grad(loss(looped))(x, y))


@pytest.mark.parametrize(
    "rule, message",
    [
        (lambda p, t: (p**2, t**2), "is not linear in the tangents.*square cannot be transposed"),
        (lambda p, t: (p**2, np.maximum(t, 0.0)), "is not linear in the tangents.*max cannot be transposed"),
        (lambda p, t: (p**2 + t, t), "a primal result that depends on the tangents"),
    ],
)
def test_jitted_rules_are_held_to_linearity(rule: Any, message: str) -> None:
    f = fg.custom_jvp(lambda x: x**2)
    f.defjvp(fg.jit(lambda primals, tangents: rule(*primals, *tangents)))
    with pytest.raises((TypeError, fg.NonDifferentiableError), match=message):
        fg.grad(f)(2.0)
