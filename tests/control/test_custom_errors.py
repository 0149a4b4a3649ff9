"""Wrong rules: each error names the function, the rule and the argument, and says what to return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.custom_derivatives import linear_call

V = np.ones(3)


def scale(x, y):
    return x * y


def by_vjp(bwd: Any, fwd: Any = lambda x, y: (x * y, (x, y))) -> Any:
    f = fg.custom_vjp(scale)
    f.defvjp(fwd, bwd)
    return lambda: fg.grad(lambda x, y: np.sum(f(x, y)), (0, 1))(V, 2.0)


def by_jvp(rule: Any) -> Any:
    f = fg.custom_jvp(scale)
    f.defjvp(rule)
    return lambda: fg.grad(lambda x, y: np.sum(f(x, y)), (0, 1))(V, 2.0)


def tuple_bwd(res, ct):
    return (ct,)


WRONG = {
    "no tuple": (by_vjp(lambda r, c: c), TypeError, "bwd function of scale .*a tuple with one cotangent for each of"),
    "too few": (by_vjp(tuple_bwd), TypeError, r"tuple_bwd\).*2 differentiable.*'x', argument 'y'\); it returned 1"),
    "shape": (by_vjp(lambda r, c: (c, c)), TypeError, r"cotangent of argument 'y', f64\[3\], but .* f64\[\].*sum over"),
    "thin": (by_vjp(lambda r, c: (c[0], None)), TypeError, r"argument 'x', f64\[\], but .* f64\[3\].*broadcast_to"),
    "dtype": (by_vjp(lambda r, c: (c.astype("f"), None)), TypeError, r"f32\[3\], but .*write .astype\('float64'\)"),
    "tree": (by_vjp(lambda r, c: ({"a": c}, None)), TypeError, "cotangent of argument 'x'.*None may stand"),
    "no array": (by_vjp(lambda r, c: ("c", None)), TypeError, "argument 'x', something that is not an array: 'c'"),
    "fwd no pair": (by_vjp(tuple_bwd, scale), TypeError, r"fwd function of scale.*pair \(result, residuals\)"),
    "jvp no pair": (by_jvp(lambda p, t: p[0]), TypeError, r"JVP rule of scale.*pair \(primal result, tangent"),
    "tangent tree": (by_jvp(lambda p, t: (p[0], [t[0]])), TypeError, "tangent of the structure of the primal result"),
    "tangent shape": (by_jvp(lambda p, t: (p[0], t[1])), TypeError, r"tangent of the result f64\[\], but .*f64\[3\]"),
    "tangent dtype": (by_jvp(lambda p, t: (p[0], t[0].astype("f"))), TypeError, r"f32\[3\], but.*astype\('float64'\)"),
    "constant": (by_jvp(lambda p, t: (p[0], np.ones(3))), TypeError, "not linear in the tangents it was given"),
    "square": (by_jvp(lambda p, t: (p[0], t[0] ** 2)), fg.NonDifferentiableError, "scale is not linear.*square"),
    "mixed up": (by_jvp(lambda p, t: (t[0], t[0])), TypeError, "primal result that depends on the tangents"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_rules(name: str) -> None:
    run, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        run()


def test_primal_results_of_another_type() -> None:
    """Where the function's own result is known, a rule's is compared with it."""
    f = fg.custom_vjp(scale)
    f.defvjp(lambda x, y: (np.sum(x), None), lambda res, ct: (None, None))
    with pytest.raises(TypeError, match=r"fwd function of scale.*returned f64\[\] as the primal result, where scale"):
        fg.jit(fg.grad(lambda x: np.sum(f(x, 2.0))))(V)
    f.defvjp(lambda x, y: ([x * y], None), lambda res, ct: (None, None))
    with pytest.raises(TypeError, match=r"fwd function of scale.*of the structure that scale returns"):
        fg.vmap(fg.grad(lambda x: np.sum(f(x, 2.0))))(np.ones((2, 3)))
    f = fg.custom_jvp(scale)
    f.defjvp(lambda p, t: (p[0].astype("f"), t[0]))
    with pytest.raises(TypeError, match=r"JVP rule of scale.*f32\[3\].*astype\('float64'\)"):
        fg.jit(fg.jacfwd(lambda x: f(x, 2.0)))(V)


def test_integers_want_none() -> None:
    f = fg.custom_vjp(lambda x, n: x * n)
    f.defvjp(lambda x, n: (x * n, n), lambda n, ct: (ct * n, 0))
    with pytest.raises(TypeError, match=r"argument 'n'.*has no derivative: return None for it in bwd"):
        fg.grad(f)(2.0, 3)


def clipped():
    f = fg.custom_vjp(lambda x: x)
    f.__name__ = "clipped"
    f.defvjp(lambda x: (x, None), lambda res, ct: (np.clip(ct, -1, 1),))
    return f


BWDS = {
    "clip": lambda res, ct: (np.clip(ct, -1, 1),),
    "branch": lambda res, ct: (ct if ct > 0 else -ct,),
    "noise": lambda res, ct: (ct + 0.1,),
    "square": lambda res, ct: (ct * ct,),
}


@pytest.mark.parametrize("name", BWDS)
def test_forward_mode_of_a_bwd_that_is_not_linear(name: str) -> None:
    def kept(x):
        return x

    f = fg.custom_vjp(kept)
    f.defvjp(lambda x: (x, None), BWDS[name])
    assert fg.grad(f)(2.0) == BWDS[name](None, 1.0)[0]
    with pytest.raises(
        fg.NonDifferentiableError, match=r"(?s)kept has a VJP rule and no JVP rule.*kept\.defjvp\(rule\)"
    ):
        fg.jvp(f, (2.0,), (1.0,))
    f.defjvp(lambda primals, tangents: (primals[0], 4 * tangents[0]))
    assert fg.jvp(f, (2.0,), (1.0,))[1] == 4.0


def captured(y):
    f = fg.custom_vjp(lambda x: np.sin(x) * y)
    f.__name__ = "captured"
    f.defvjp(lambda x: (np.sin(x) * y, x), lambda x, ct: (np.cos(x) * ct * y,))
    return f


PROGRAMS = {
    "both": lambda y: fg.grad(lambda y: captured(y)(y))(y),
    "only captured": lambda y: fg.grad(lambda y: captured(y)(2.0))(y),
    "batched rules": lambda y: fg.grad(lambda x: fg.vmap(lambda y: captured(y)(x))(np.ones(2))[0])(y),
    "ended trace": lambda y: fg.grad(fg.jit(lambda x, y: captured(y)(x)))(y, 2.0),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_captured_tracers(name: str) -> None:
    for over in (lambda f: f, fg.jit):
        with pytest.raises((fg.LeakedTracerError, fg.NonDifferentiableError), match=r"argument of the function"):
            over(PROGRAMS[name])(1.0)


def test_declarations() -> None:
    with pytest.raises(AttributeError, match=r"custom_jvp scale has no rule: set one with defjvp"):
        fg.custom_jvp(scale)(1.0, 2.0)
    with pytest.raises(AttributeError, match=r"custom_vjp scale has no rule: set one with defvjp"):
        fg.grad(fg.custom_vjp(scale))(1.0, 2.0)
    with pytest.raises(TypeError, match=r"custom_jvp expects a function"):
        fg.custom_jvp(3)
    with pytest.raises(TypeError, match=r"nondiff_argnums must be an integer"):
        fg.custom_jvp(scale, nondiff_argnums=("x",))
    with pytest.raises(ValueError, match=r"nondiff_argnames 'z' is no argument of scale, which has x, y"):
        fg.custom_vjp(scale, nondiff_argnames="z")
    with pytest.raises(TypeError, match=r"non-differentiable arguments, for which defjvps"):
        fg.custom_jvp(scale, nondiff_argnums=0).defjvps(None)
    f = fg.custom_jvp(scale)
    f.defjvps(None)
    with pytest.raises(TypeError, match=r"called with 2 arguments, but defjvps was given 1"):
        fg.grad(f)(1.0, 2.0)
    g = fg.custom_vjp(lambda x, *, k: x)
    g.defvjp(lambda x: (x, None), lambda r, c: (c,))
    with pytest.raises(TypeError, match=r"takes k by keyword only"):
        fg.grad(lambda x: g(x, k=1))(1.0)
    with pytest.raises(TypeError, match=r"argument 'x' of scale.*Or name its argument in nondiff_argnums"):
        fg.grad(lambda y: f("x", y))(1.0)
    h = fg.custom_jvp(scale, nondiff_argnums=5)
    h.defjvp(lambda n, p, t: None)
    with pytest.raises(ValueError, match=r"nondiff_argnums .* wants positional argument 5"):
        fg.grad(h)(1.0, 2.0)


def test_conversions_and_linear_calls() -> None:
    converted, _ = fg.closure_convert(lambda x: x, V)
    with pytest.raises(TypeError, match=r"takes 1 argument\(s\) and 0 captured value\(s\), found 2"):
        converted(V, 1.0)
    with pytest.raises(TypeError, match=r"converted for f64\[3\] .* called with f64\[2\]"):
        converted(np.ones(2))
    with pytest.raises(TypeError, match=r"must return the pair \(result, grad_fun\)"):
        fg.grad(fg.custom_gradient(lambda x: x))(1.0)
    with pytest.raises(TypeError, match=r"linear_args.*int64.*pass it among residual_args"):
        linear_call(lambda r, x: x, lambda r, x: x, (), 3)
    with pytest.raises(TypeError, match=r"must return a cotangent of the structure of linear_args"):
        fg.grad(lambda x: linear_call(lambda r, x: x, lambda r, x: [x], (), x))(1.0)
    with pytest.raises(ValueError, match=r"returned f64\[\] for linear_args, which is f64\[3\]"):
        fg.vjp(lambda x: linear_call(lambda r, x: x, lambda r, x: x[0], (), x), V)[1](V)


def test_a_jvp_rule_that_adds_something_of_its_own() -> None:
    f = fg.custom_jvp(lambda x: x)
    f.defjvp(lambda p, t: (p[0], t[0] * p[0] + 1.0))
    for transform in (lambda f: f, fg.jit, fg.checkpoint):
        with pytest.raises(fg.NonDifferentiableError, match="adds something that does not depend on its argument"):
            fg.grad(transform(f))(3.0)
    f.defjvp(lambda p, t: (p[0], t[0] * p[0] + 0.0))
    assert fg.grad(f)(3.0) == 3.0
