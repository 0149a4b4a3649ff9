"""Vector mathematics against mpmath, NumPy's special values and NumPy's integer rules.

The functions are tested in the form in which kernels use them: a compiled loop that loads and stores by address.
Accuracy is asserted at 2 ulp for every function, but for `lgamma` (the C library's) and `digamma` (whose negative
zeros are ill-conditioned), which get an absolute bound instead.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

mpmath = pytest.importorskip("mpmath", reason="mpmath is the witness here; the test extra brings it")

from funcgrad.codegen import vecmath  # noqa: E402
from funcgrad.codegen.vecmath import avx512  # noqa: E402
from funcgrad.codegen.vecmath.registry import DEFINITIONS  # noqa: E402
from funcgrad.runtime.compile import compile_native  # noqa: E402

DTYPES = {
    "f32": np.float32,
    "f64": np.float64,
    "b1": np.bool_,
    **{f"{c}{w}": np.dtype(f"{n}{w}").type for c, n in (("i", "int"), ("u", "uint")) for w in (8, 16, 32, 64)},
}
FLOAT_KINDS = ("f32", "f64")
INTEGER_KINDS = tuple(k for k in DTYPES if k[0] in "iu")


class Loop:
    """A compiled elementwise loop around one function; `note` tells apart what differs in nothing of its text."""

    def __init__(self, name, note=""):
        definition = DEFINITIONS[name]
        kinds = [k.name for k in definition.arguments]
        self.dtypes = [DTYPES[k] for k in kinds]
        self.result = DTYPES[definition.result.name]
        arguments = ", ".join(f"a{j}" for j in range(len(kinds)))
        loads = ", ".join(f"load_{k}(a{j}, i, {j})" for j, k in enumerate(kinds))
        source = (
            f"def kernel({arguments}, out, n):  # {note}\n"
            f"    for i in range(n):\n"
            f"        store_{definition.result.name}(out, i, {len(kinds)}, {name}({loads}))\n"
        )
        words = ", ".join(["i64"] * (len(kinds) + 2))
        self.compiled = compile_native(source, f"void({words})", "kernel")
        self.call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * (len(kinds) + 2))(self.compiled.address)

    def __call__(self, *arrays):
        arrays = [
            np.ascontiguousarray(np.broadcast_to(a, np.broadcast_shapes(*(np.shape(b) for b in arrays))), d)
            for a, d in zip(arrays, self.dtypes)
        ]
        out = np.empty(arrays[0].shape, self.result)
        self.call(*(a.ctypes.data for a in arrays), out.ctypes.data, out.size)
        return out


loop = cache(Loop)


def bit_equal(got, want):
    """Equal with equal signs of zero; NaN equals NaN."""
    same = (got == want) & (np.signbit(got) == np.signbit(want))
    return same | (np.isnan(got) & np.isnan(want))


def _rational(function):
    return lambda *args: function(*(mpmath.mpf(float(a)) for a in args))


MP = mpmath.mp
REFERENCES = {
    "exp": mpmath.exp,
    "exp2": lambda x: mpmath.mpf(2) ** x,
    "expm1": mpmath.expm1,
    "log": mpmath.log,
    "log2": lambda x: mpmath.log(x) / mpmath.ln2,
    "log10": mpmath.log10,
    "log1p": mpmath.log1p,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "tan": mpmath.tan,
    "asin": mpmath.asin,
    "acos": mpmath.acos,
    "atan": mpmath.atan,
    "sinh": mpmath.sinh,
    "cosh": mpmath.cosh,
    "tanh": mpmath.tanh,
    "asinh": mpmath.asinh,
    "acosh": mpmath.acosh,
    "atanh": mpmath.atanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "erf": mpmath.erf,
    "erfc": lambda x: mpmath.erfc(x) if x < 1000 else mpmath.mpf(0),  # mpmath overflows where it vanishes
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
    "sqrt": mpmath.sqrt,
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "pow": mpmath.power,
    "atan2": mpmath.atan2,
    "hypot": mpmath.hypot,
}
# Where the function is real: (low, high), the ends excluded unless they are in the special values.
DOMAINS = {
    "log": (0, None),
    "log2": (0, None),
    "log10": (0, None),
    "log1p": (-1, None),
    "sqrt": (0, None),
    "rsqrt": (0, None),
    "asin": (-1, 1),
    "acos": (-1, 1),
    "acosh": (1, None),
    "atanh": (-1, 1),
}
BINARY = ("pow", "atan2", "hypot")
UNARY = tuple(n for n in REFERENCES if n not in BINARY)


def sample(dtype, count, seed):
    """Points over all magnitudes: every exponent, the neighbourhood of 1, and moderate numbers."""
    rng = np.random.default_rng(seed)
    info = np.finfo(dtype)
    exponents = rng.integers(info.minexp - info.nmant, info.maxexp, count)
    everywhere = np.ldexp(rng.uniform(0.5, 1, count), exponents) * rng.choice([-1, 1], count)
    moderate = rng.normal(0, 1, count) * rng.choice([0.1, 1, 3, 10, 30, 100, 700], count)
    near_one = (1 + rng.normal(0, 1, count) * 10.0 ** rng.uniform(-8, 0, count)) * rng.choice([-1, 1], count)
    edges = [info.tiny, info.smallest_subnormal, info.max, np.sqrt(info.max), 0.5, 1, 2, 3, 88.7, 709.7, -745.1]
    with np.errstate(over="ignore"):
        points = np.concatenate([everywhere, moderate, near_one, edges, np.negative(edges)]).astype(dtype)
    return points[np.isfinite(points) & (points != 0)]


def in_domain(name, points):
    low, high = DOMAINS.get(name, (None, None))
    keep = np.ones(points.shape, bool)
    if low is not None:
        keep &= points > low
    if high is not None:
        keep &= points < high
    return points[keep]


def ulp_errors(got, exact, dtype):
    """|got - exact| in units of the last place of the exact value; `exact` are mpmath numbers."""
    info = np.finfo(dtype)
    lowest = int(info.minexp) - int(info.nmant)
    limit = mpmath.mpf(float(info.max)) * (1 + mpmath.mpf(2) ** -(int(info.nmant) + 2))
    errors = np.empty(len(got))
    for i, (g, e) in enumerate(zip(got.tolist(), exact)):
        if abs(e) > limit:
            errors[i] = 0.0 if g == (np.inf if e > 0 else -np.inf) else np.inf
        elif not np.isfinite(g):
            errors[i] = 1.0 if np.isinf(g) and abs(e) > float(info.max) * (1 - 2.0**-20) else np.inf
        else:
            exponent = lowest if e == 0 else max(int(mpmath.frexp(e)[1]) - 1 - int(info.nmant), lowest)
            errors[i] = float(abs(mpmath.mpf(g) - e) * mpmath.mpf(2) ** -exponent)
    return errors


def assert_two_ulp(name, got, exact, points, dtype):
    errors = ulp_errors(got, exact, dtype)
    worst = int(np.argmax(errors))
    at = [float(p[worst]).hex() for p in points]
    assert errors[worst] <= 2, f"{name}: {errors[worst]:.2f} ulp at {at}: {got[worst]!r}, exactly {exact[worst]}"


@pytest.mark.parametrize("kind", FLOAT_KINDS)
@pytest.mark.parametrize("name", UNARY)
def test_unary_accuracy(name, kind):
    dtype = DTYPES[kind]
    points = in_domain(name, sample(dtype, 600 if kind == "f64" else 400, seed=sum(map(ord, name))))
    with MP.workprec(160):
        exact = [_rational(REFERENCES[name])(p) for p in points]
        assert_two_ulp(name, loop(f"{name}_{kind}")(points), exact, [points], dtype)


@pytest.mark.parametrize("kind", FLOAT_KINDS)
@pytest.mark.parametrize("name", BINARY)
def test_binary_accuracy(name, kind):
    dtype = DTYPES[kind]
    rng = np.random.default_rng(5)
    x, y = (rng.permutation(sample(dtype, 700, seed))[:2000] for seed in (1, 2))
    if name == "pow":
        x = np.abs(x)
        # Half of the exponents chosen so that the result is an ordinary number.
        with np.errstate(all="ignore"):
            y[::2] = (rng.uniform(-1, 1, len(y[::2])) * 700 / np.log(x[::2].astype(float))).astype(dtype)
            keep = np.isfinite(y) & (np.abs(np.log(x.astype(float)) * y) < 5000)
        x, y = x[keep], y[keep]
    with MP.workprec(160):
        exact = [_rational(REFERENCES[name])(*p) for p in zip(x, y)]
        assert_two_ulp(name, loop(f"{name}_{kind}")(x, y), exact, [x, y], dtype)


@pytest.mark.parametrize("kind", FLOAT_KINDS)
def test_rsqrt_where_the_estimate_is_worst(kind):
    """Densely between 1 and 4, which is every significand; and next to the least and the largest numbers."""
    dtype = DTYPES[kind]
    info = np.finfo(dtype)
    wide = np.longdouble if kind == "f64" else np.float64
    if np.finfo(wide).nmant < info.nmant + 8:
        pytest.skip("long double is no wider than double here")
    rng = np.random.default_rng(0)
    points = np.concatenate(
        [
            rng.uniform(1, 4, 500_000).astype(dtype),
            info.smallest_subnormal * rng.integers(1, 2**20, 10_000).astype(dtype),
            info.max * rng.uniform(0.5, 1, 10_000).astype(dtype),
        ]
    )
    got = loop(f"rsqrt_{kind}")(points)
    exact = 1 / np.sqrt(points.astype(wide))
    assert (np.abs(got - exact) <= 1.5 * np.spacing(got)).all()
    four = np.ldexp(dtype(1), np.arange(-info.maxexp // 2 + 1, info.maxexp // 2) * 2).astype(dtype)
    assert (loop(f"rsqrt_{kind}")(four) == 1 / np.sqrt(four)).all()


@pytest.mark.parametrize("name", ["rsqrt_f32", "rsqrt_f64", "exp_f32", "sin_f64", "pow_f32"])
def test_a_value_does_not_depend_on_its_place(name):
    """Vectors of all widths, and what is left over, compute alike: so results do not depend on how a loop is cut."""
    rng = np.random.default_rng(1)
    points = [rng.uniform(0.1, 30, 70).astype(DTYPES[name[-3:]]) for _ in DEFINITIONS[name].arguments]
    every = loop(name)(*points)
    for n in range(1, len(every)):
        assert (loop(name)(*(p[:n] for p in points)) == every[:n]).all()
        assert (loop(name)(*(p[n:] for p in points)) == every[n:]).all()


@pytest.mark.parametrize("kind", FLOAT_KINDS)
def test_rsqrt_divides_nothing_where_there_is_an_estimate(kind):
    if not avx512.available():
        pytest.skip("this machine has no estimate of 1 / sqrt(x) of 14 bits")
    text = loop(f"rsqrt_{kind}").compiled.assembly()
    assert "rsqrt14" in text
    assert not re.search(r"v?(div|sqrt|call)[a-z]*\s", text), "a root, a division or a call is left"


@pytest.fixture(params=["by tables", "in double"])
def power_f32(request, monkeypatch):
    """Both ways of pow in float32, each with its largest error in ulp."""
    if request.param == "by tables":
        if not avx512.available():
            pytest.skip("this machine has not the instructions for it")
        return loop("pow_f32"), 1.1
    monkeypatch.setattr(avx512, "available", lambda: False)
    return Loop("pow_f32", request.param), 0.55


def test_power_in_float32_where_its_logarithm_is_worst(power_f32):
    """Where the parts of a table meet, next to 1, and below the normal numbers; powers up to both ends."""
    power, limit = power_f32
    rng = np.random.default_rng(0)
    n = 100_000
    meets = np.repeat(np.arange(0x3F400000, 0x3FC00001, 1 << 19), n // 17) + rng.integers(-2000, 2000, n // 17 * 17)
    x = np.concatenate(
        [
            rng.integers(1, 0x7F800000, n).astype(np.uint32).view(np.float32),
            rng.integers(1, 0x00A00000, n).astype(np.uint32).view(np.float32),
            meets.astype(np.uint32).view(np.float32),
            (1 + rng.normal(0, 1, n) * 2.0 ** rng.uniform(-24, -2, n)).astype(np.float32),
        ]
    )
    x = x[(x > 0) & (x != 1)]
    exponents = np.where(rng.random(x.size) < 0.3, rng.uniform(-149, 128, x.size), rng.choice([-126, 128], x.size))
    exponents[::2] *= rng.random(x[::2].size)
    y = (exponents / np.log2(x.astype(float))).astype(np.float32)
    exact = x.astype(float) ** y.astype(float)
    inside = exact < float(np.finfo(np.float32).max)
    got, exact = power(x, y)[inside], exact[inside]
    unit = np.ldexp(1.0, np.maximum(np.frexp(exact)[1] - 24, -149))
    assert (np.abs(got - exact) / unit).max() <= limit


def test_power_in_float32_of_any_two_patterns(power_f32):
    """NaN, infinities, zeros and signs as C has them in double precision, rounded."""
    power, _ = power_f32
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 1 << 32, 200_000).astype(np.uint32).view(np.float32) for _ in range(2))
    special = np.array(
        [*SPECIALS, 0.5, 2.5, -3, 3, 2**23 + 1, 2**24 - 1, 2**24, -(2**22) - 0.5, 1e-45, -1e-45], np.float32
    )
    x[::3] = rng.choice(special, x[::3].size)
    y[::4] = rng.choice(special, y[::4].size)
    y[1::4] = rng.integers(-20, 20, y[1::4].size)
    with np.errstate(all="ignore"):
        exact = x.astype(float) ** y.astype(float)
        want = exact.astype(np.float32)
    got = power(x, y)
    common = np.isfinite(want) & (np.abs(exact) < np.finfo(np.float32).max)
    assert (np.abs(got[common] - exact[common]) <= 1.1 * np.spacing(np.abs(want[common]))).all()
    assert (bit_equal(got, want) | common).all()
    assert (np.signbit(got) == np.signbit(want))[~np.isnan(want)].all()


def test_power_in_float32_divides_nothing_where_there_are_tables():
    if not avx512.available():
        pytest.skip("this machine has not the instructions for it")
    text = loop("pow_f32").compiled.assembly()
    assert "vscalefps" in text and "vgetmantps" in text
    assert not re.search(r"v?(div|call)[a-z]*\s", text), "a division or a call is left"


def test_trigonometric_functions_of_huge_arguments():
    # The first is the float64 closest to a multiple of pi/2; a reduction with too few bits returns noise there.
    points = np.array(
        [
            6381956970095103.0 * 2.0**797,
            1e22,
            2.0**1023,
            np.finfo(float).max,
            2.0**40,
            2.0**40 - 1,
            np.nextafter(2.0**40, 0),
            1.5e300,
            -7.7e77,
            3.1415926535897931e15,
        ]
    )
    points = np.concatenate([points, np.ldexp(np.random.default_rng(0).uniform(0.5, 1, 300), np.arange(39, 339) * 3)])
    for name in ("sin", "cos", "tan"):
        with MP.workprec(1400):
            exact = [_rational(REFERENCES[name])(p) for p in points]
            assert_two_ulp(name, loop(f"{name}_f64")(points), exact, [points], np.float64)
    single = points[np.abs(points) < 1e38].astype(np.float32)
    for name in ("sin", "cos", "tan"):
        with MP.workprec(400):
            exact = [_rational(REFERENCES[name])(p) for p in single]
            assert_two_ulp(name, loop(f"{name}_f32")(single), exact, [single], np.float32)


def test_multiples_of_half_pi_keep_their_relative_accuracy():
    points = np.arange(1, 1500) * (np.pi / 2)
    for name in ("sin", "cos", "tan"):
        with MP.workprec(200):
            exact = [_rational(REFERENCES[name])(p) for p in points]
            assert_two_ulp(name, loop(f"{name}_f64")(points), exact, [points], np.float64)


SPECIALS = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 2.0, -2.0]
inf, nan = np.inf, np.nan
SPECIAL_VALUES = {  # at SPECIALS; None: an ordinary number, which the accuracy tests see to
    "exp": [1, 1, inf, 0, nan, None, None, None, None],
    "exp2": [1, 1, inf, 0, nan, 2, 0.5, 4, 0.25],
    "expm1": [0, -0.0, inf, -1, nan, None, None, None, None],
    "log": [-inf, -inf, inf, nan, nan, 0, nan, None, nan],
    "log2": [-inf, -inf, inf, nan, nan, 0, nan, 1, nan],
    "log10": [-inf, -inf, inf, nan, nan, 0, nan, None, nan],
    "log1p": [0, -0.0, inf, nan, nan, None, -inf, None, nan],
    "sin": [0, -0.0, nan, nan, nan, None, None, None, None],
    "cos": [1, 1, nan, nan, nan, None, None, None, None],
    "tan": [0, -0.0, nan, nan, nan, None, None, None, None],
    "asin": [0, -0.0, nan, nan, nan, np.pi / 2, -np.pi / 2, nan, nan],
    "acos": [np.pi / 2, np.pi / 2, nan, nan, nan, 0, np.pi, nan, nan],
    "atan": [0, -0.0, np.pi / 2, -np.pi / 2, nan, np.pi / 4, -np.pi / 4, None, None],
    "sinh": [0, -0.0, inf, -inf, nan, None, None, None, None],
    "cosh": [1, 1, inf, inf, nan, None, None, None, None],
    "tanh": [0, -0.0, 1, -1, nan, None, None, None, None],
    "asinh": [0, -0.0, inf, -inf, nan, None, None, None, None],
    "acosh": [nan, nan, inf, nan, nan, 0, nan, None, nan],
    "atanh": [0, -0.0, nan, nan, nan, inf, -inf, nan, nan],
    "sigmoid": [0.5, 0.5, 1, 0, nan, None, None, None, None],
    "erf": [0, -0.0, 1, -1, nan, None, None, None, None],
    "erfc": [1, 1, 0, 2, nan, None, None, None, None],
    "erfinv": [0, -0.0, nan, nan, nan, inf, -inf, nan, nan],
    "cbrt": [0, -0.0, inf, -inf, nan, 1, -1, None, None],
    "sqrt": [0, -0.0, inf, nan, nan, 1, nan, None, nan],
    "rsqrt": [inf, -inf, 0, nan, nan, 1, nan, None, nan],
    "digamma": [-inf, inf, inf, nan, nan, None, nan, None, nan],
    "lgamma": [inf, inf, inf, inf, nan, 0, inf, 0, inf],
}


@pytest.mark.parametrize("kind", FLOAT_KINDS)
@pytest.mark.parametrize("name", SPECIAL_VALUES)
def test_special_values(name, kind):
    dtype = DTYPES[kind]
    stated = [(x, v) for x, v in zip(SPECIALS, SPECIAL_VALUES[name]) if v is not None]
    points, want = (np.array(column, dtype) for column in zip(*stated))
    got = loop(f"{name}_{kind}")(points)
    assert bit_equal(got, want).all(), f"{name} at {points}: {got}, should be {want}"


@pytest.mark.parametrize("kind", FLOAT_KINDS)
@pytest.mark.parametrize("name, ours", [("power", "pow"), ("arctan2", "atan2"), ("hypot", "hypot")])
def test_special_values_of_two_arguments(name, ours, kind):
    dtype = DTYPES[kind]
    info = np.finfo(dtype)
    values = [*SPECIALS, 0.5, -0.5, 3, -3, info.max, -info.max, info.tiny, info.smallest_subnormal, 2.0**24 + 1]
    x, y = (grid.ravel() for grid in np.meshgrid(np.array(values, dtype), np.array(values, dtype)))
    with np.errstate(all="ignore"):
        want = getattr(np, name)(x, y)
    got = loop(f"{ours}_{kind}")(x, y)
    exact = ~np.isfinite(want) | (want == 0) | (np.abs(want) == 1)
    assert bit_equal(got, want)[exact].all()
    np.testing.assert_allclose(got[~exact], want[~exact], rtol=4 * info.eps)


@pytest.mark.parametrize("kind", FLOAT_KINDS)
def test_overflow_and_underflow_thresholds(kind):
    """The last argument with a finite result, and the first without, are the ones the exact function has."""
    dtype = DTYPES[kind]
    top = mpmath.mpf(float(np.finfo(dtype).max))
    for name, inverse in (("exp", mpmath.log), ("expm1", mpmath.log1p), ("sinh", mpmath.asinh), ("cosh", mpmath.acosh)):
        edge = dtype(float(inverse(top)))
        around = np.array(
            [
                np.nextafter(np.nextafter(edge, dtype(0)), dtype(0)),
                np.nextafter(np.nextafter(edge, dtype(inf)), dtype(inf)),
            ]
        )
        below, above = loop(f"{name}_{kind}")(around)
        assert np.isfinite(below) and above == inf, name


@pytest.mark.parametrize("kind", FLOAT_KINDS)
def test_erfinv_is_inverse(kind):
    dtype = DTYPES[kind]
    rng = np.random.default_rng(3)
    tails = 1 - 10.0 ** rng.uniform(-15, 0, 200)
    points = np.concatenate([rng.uniform(-1, 1, 200), 10.0 ** rng.uniform(-30, 0, 100), tails]).astype(dtype)
    points = points[np.abs(points) < 1]
    got = loop(f"erfinv_{kind}")(points)
    with MP.workprec(160):
        exact = [_exact_erfinv(p, g) for p, g in zip(points, got)]
        assert_two_ulp("erfinv", got, exact, [points], dtype)


def _exact_erfinv(x, start):
    """Newton's method on erf, or erfc where that is the well-conditioned one."""
    x, y = mpmath.mpf(float(x)), mpmath.mpf(float(start))
    for _ in range(3):
        miss = mpmath.erf(y) - x if abs(x) < 0.9 else mpmath.sign(y) * ((1 - abs(x)) - mpmath.erfc(abs(y)))
        y -= miss * mpmath.sqrt(mpmath.pi) / 2 * mpmath.exp(y * y)
    return y


@pytest.mark.parametrize("name, reference", [("lgamma", mpmath.loggamma), ("digamma", mpmath.digamma)])
def test_gamma_functions(name, reference):
    rng = np.random.default_rng(4)
    positive = np.concatenate([rng.uniform(0.01, 30, 300), 10.0 ** rng.uniform(-5, 15, 100), rng.uniform(1.2, 1.7, 50)])
    negative = -rng.uniform(0, 8, 100)
    for points, rtol, atol in ((positive, 2e-15, 2e-15 if name == "lgamma" else 0), (negative, 1e-13, 1e-12)):
        exact = [float(mpmath.re(reference(mpmath.mpf(float(p))))) for p in points]
        np.testing.assert_allclose(loop(f"{name}_f64")(points), exact, rtol=rtol, atol=atol)
        np.testing.assert_allclose(
            loop(f"{name}_f32")(points.astype(np.float32)),
            [float(mpmath.re(reference(mpmath.mpf(float(np.float32(p)))))) for p in points],
            rtol=2e-6,
            atol=4e-7,
        )


VECTORISED = (
    UNARY
    + BINARY
    + (
        "digamma",
        "erfinv",
        "fmod",
        "remainder",
        "floor_divide",
        "nextafter",
        "maximum",
        "minimum",
        "fmax",
        "fmin",
        "floor",
        "ceil",
        "trunc",
        "rint",
        "copysign",
        "sign",
        "abs",
    )
)


@pytest.mark.parametrize("kind", FLOAT_KINDS)
@pytest.mark.parametrize("name", VECTORISED)
def test_loop_is_vectorised(name, kind):
    text = loop(f"{name}_{kind}").compiled.llvm()
    element = {"f32": "float", "f64": "double"}[kind]
    body = text[text.index("vector.body:") :] if "vector.body:" in text else ""
    assert re.search(rf"store <(\d+) x {element}>", body), f"{name}_{kind} was not widened"


@pytest.mark.parametrize("kind", [k for k in INTEGER_KINDS if k[1:] != "64"])
@pytest.mark.parametrize("name", ["floor_divide", "remainder", "fmod"])
def test_integer_division_is_vectorised(name, kind):
    text = loop(f"{name}_{kind}").compiled.llvm()
    assert "vector.body:" in text and f"sdiv i{kind[1:]}" not in text and f"udiv i{kind[1:]}" not in text


def test_rare_arguments_leave_no_call_on_the_common_way():
    """The variant that the vectoriser took is in the loop, behind one branch, and the others are gone."""
    text = loop("sin_f64").compiled.llvm()
    assert not re.search(r"@fg\.\w+_v\d+\(", text)
    head = text[text.index("vector.body:") :]
    block = head[: head.index("\n\n")]
    assert "llvm.fma" in block and "call double @fg" not in block


@pytest.mark.parametrize("kind", FLOAT_KINDS)
def test_rare_lanes_among_common_ones(kind):
    dtype = DTYPES[kind]
    rng = np.random.default_rng(12)
    x = rng.uniform(-10, 10, 4096).astype(dtype)
    rare = rng.random(x.size) < 0.02
    x[rare] = (rng.uniform(1, 2, rare.sum()) * 2.0**100).astype(dtype)
    x[::501] = np.nan
    got = loop(f"sin_{kind}")(x)
    alone = np.array([loop(f"sin_{kind}")(x[i : i + 1])[0] for i in range(x.size)])
    assert bit_equal(got, alone).all()


FLOAT_PAIRS = ("maximum", "minimum", "fmax", "fmin", "nextafter", "fmod", "remainder", "floor_divide", "copysign")


@pytest.mark.parametrize("kind", FLOAT_KINDS)
@pytest.mark.parametrize("name", FLOAT_PAIRS)
def test_exact_float_functions_of_two_arguments(name, kind):
    dtype = DTYPES[kind]
    rng = np.random.default_rng(6)
    info = np.finfo(dtype)
    special = np.array([*SPECIALS, 0.5, -0.5, 3, -3, 7, info.max, info.tiny, info.smallest_subnormal, 1e20], dtype)
    grid_x, grid_y = (g.ravel() for g in np.meshgrid(special, special))
    x = np.concatenate([grid_x, rng.normal(0, 10, 3000), rng.integers(-20, 20, 3000) / 10, sample(dtype, 700, 7)])
    y = np.concatenate([grid_y, rng.normal(0, 1, 3000), rng.integers(-5, 5, 3000) / 10, sample(dtype, 700, 8)])
    size = min(len(x), len(y))
    x, y = x[:size].astype(dtype), y[:size].astype(dtype)
    with np.errstate(all="ignore"):
        want = getattr(np, name)(x, y)
    got = loop(f"{name}_{kind}")(x, y)
    same = bit_equal(got, want)
    if name in ("maximum", "minimum", "fmax", "fmin"):
        same |= (got == 0) & (want == 0)  # of two zeros NumPy may take either
    assert same.all(), [(x[i], y[i], got[i], want[i]) for i in np.flatnonzero(~same)[:5]]


EXACT = ("floor", "ceil", "trunc", "rint", "abs", "sign", "isnan", "isinf", "isfinite", "signbit")


@pytest.mark.parametrize("kind", FLOAT_KINDS)
@pytest.mark.parametrize("name", EXACT)
def test_exact_float_functions(name, kind):
    dtype = DTYPES[kind]
    points = np.concatenate([np.array(SPECIALS), np.arange(-9, 9) / 2, sample(np.float32, 300, 9)]).astype(dtype)
    want = getattr(np, name)(points)
    got = loop(f"{name}_{kind}")(points)
    assert (bit_equal(got, want) if want.dtype != bool else got == want).all()


@pytest.mark.parametrize("kind", FLOAT_KINDS)
def test_fma_rounds_once(kind):
    dtype = DTYPES[kind]
    eps = np.finfo(dtype).eps
    x = np.array([1 + eps], dtype)
    assert loop(f"fma_{kind}")(x, x, np.array([-1 - 2 * eps], dtype))[0] == dtype(eps) ** 2


INTEGER_PAIRS = {
    "floor_divide": np.floor_divide,
    "remainder": np.remainder,
    "fmod": np.fmod,
    "left_shift": np.left_shift,
    "right_shift": np.right_shift,
    "pow": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


@pytest.mark.parametrize("kind", INTEGER_KINDS)
@pytest.mark.parametrize("name", INTEGER_PAIRS)
def test_integer_functions_of_two_arguments(name, kind):
    dtype = DTYPES[kind]
    info = np.iinfo(dtype)
    rng = np.random.default_rng(10)
    special = [v for v in (0, 1, -1, 2, -2, 3, 7, info.max, info.max - 1, info.min, info.min + 1) if info.min <= v]
    grid_x, grid_y = (g.ravel() for g in np.meshgrid(np.array(special, dtype), np.array(special, dtype)))
    whole = rng.integers(info.min, info.max, (3, 2000), dtype, endpoint=True)
    small = rng.integers(max(info.min, -9), 9, 2000).astype(dtype)
    x, y = np.concatenate([grid_x, whole[0], whole[1]]), np.concatenate([grid_y, whole[2], small])
    if name == "pow":
        y = np.where(y < 0, y ^ dtype(-1), y).astype(dtype) if info.min < 0 else y
    if "shift" in name:
        y[::2] = np.abs(y[::2] % dtype(info.bits))
    with np.errstate(all="ignore"):
        want = INTEGER_PAIRS[name](x, y)
    got = loop(f"{name}_{kind}")(x, y)
    bad = np.flatnonzero(got != want)
    assert not len(bad), [(x[i], y[i], got[i], want[i]) for i in bad[:5]]


def test_integer_power_with_negative_exponent_truncates():
    x = np.array([1, -1, -1, 2, 0, -3])
    assert loop("pow_i64")(x, np.array([-5, -2, -3, -1, -1, -2])).tolist() == [1, 1, -1, 0, 0, 0]


@pytest.mark.parametrize("kind", INTEGER_KINDS)
def test_integer_functions_of_one_argument(kind):
    dtype = DTYPES[kind]
    info = np.iinfo(dtype)
    points = np.concatenate(
        [
            np.arange(info.min, info.min + 200, dtype=dtype),
            np.arange(0, 100).astype(dtype),
            np.random.default_rng(11).integers(info.min, info.max, 1000, dtype, endpoint=True),
        ]
    )
    for name, reference in (("popcount", np.bitwise_count), ("abs", np.abs), ("sign", np.sign)):
        assert (loop(f"{name}_{kind}")(points) == reference(points)).all(), name


def test_names():
    wanted = (
        "exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh "
        "sigmoid erf erfc erfinv pow cbrt hypot sqrt rsqrt lgamma digamma"
    )
    assert {f"{n}_{k}" for n in wanted.split() for k in FLOAT_KINDS} <= vecmath.NAMES
    assert "exp_f16" not in vecmath.NAMES


def test_names_are_known_without_numba():
    code = (
        "import sys; from funcgrad.codegen import vecmath; assert 'exp_f64' in vecmath.NAMES;"
        "print([m for m in ('numba', 'llvmlite', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numba" not in done.stdout and "llvmlite" not in done.stdout
