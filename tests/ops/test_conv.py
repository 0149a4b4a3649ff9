"""Convolution against JAX, against loops and differences, and compiled against evaluated."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax

PADDINGS = ("VALID", "SAME", "SAME_LOWER", "pairs")


def random_case(rng: np.random.Generator) -> dict[str, Any]:
    """Operands and parameters that fit each other, of any rank, arrangement and grouping."""
    rank = int(rng.integers(1, 4))
    space = "HWD"[:rank]
    feature, batch = [(1, 1), (int(rng.integers(2, 4)), 1), (1, int(rng.integers(2, 4)))][rng.integers(0, 3)]
    groups = feature * batch
    inner, images = int(rng.integers(1, 4)), int(rng.integers(1, 3)) * batch
    channels, outputs = inner * feature, int(rng.integers(1, 4)) * groups
    extents, kernel = rng.integers(3, 8, rank).tolist(), rng.integers(1, 4, rank).tolist()
    strides, stretch, spread = (rng.integers(1, high, rank).tolist() for high in (4, 3, 3))
    padding: Any = PADDINGS[rng.integers(0, 4)]
    if padding == "pairs":
        padding = [tuple(p) for p in rng.integers(-1, 4, (rank, 2)).tolist()]
    else:
        stretch = [1] * rank
    letters = ["".join(rng.permutation(list(s + space))) for s in ("NC", "IO", "NC")]
    sizes = {"N": images, "C": channels, "I": inner, "O": outputs}
    lhs = [sizes.get(c) or extents[space.index(c)] for c in letters[0]]
    rhs = [sizes.get(c) or kernel[space.index(c)] for c in letters[1]]
    order = [c for c in letters[1] if c in space]  # spatial parameters follow the kernel's arrangement
    by = [space.index(c) for c in order]
    if isinstance(padding, list):
        padding = [padding[k] for k in by]
    return {
        "lhs": rng.normal(size=lhs),
        "rhs": rng.normal(size=rhs),
        "window_strides": [strides[k] for k in by],
        "padding": padding,
        "lhs_dilation": [stretch[k] for k in by],
        "rhs_dilation": [spread[k] for k in by],
        "dimension_numbers": tuple(letters),
        "feature_group_count": feature,
        "batch_group_count": batch,
    }


def close(found: Any, wanted: Any, tolerance: float = 1e-11) -> None:
    assert np.shape(found) == np.shape(wanted)
    np.testing.assert_allclose(found, np.asarray(wanted), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("number", range(24))
def test_jax_agrees(number: int, rng: np.random.Generator, jax: Any) -> None:
    """Value and both gradients, evaluated and compiled."""
    case = random_case(rng)
    lhs, rhs = case.pop("lhs"), case.pop("rhs")

    def both(conv: Any) -> Any:
        return lambda x, w: conv(x, w, **case)

    ours, theirs = both(lax.conv_general_dilated), both(jax.lax.conv_general_dilated)
    wanted, pull = jax.vjp(theirs, lhs, rhs)
    ct = rng.normal(size=wanted.shape)
    close(ours(lhs, rhs), wanted)
    close(fg.jit(ours)(lhs, rhs), wanted)
    gradients = pull(ct)
    for way in (lambda f: f, fg.jit):
        found = way(lambda x, w, ct: fg.vjp(ours, x, w)[1](ct))(lhs, rhs, ct)
        for mine, other in zip(found, gradients, strict=True):
            close(mine, other)


@pytest.mark.parametrize("number", range(6))
def test_second_order(number: int, rng: np.random.Generator) -> None:
    """The derivative along a direction of the gradient, against a difference quotient of gradients."""
    case = random_case(rng)
    lhs, rhs = case.pop("lhs"), case.pop("rhs")

    def loss(x: Any, w: Any) -> Any:
        return np.sum(np.tanh(lax.conv_general_dilated(x, w, **case)))

    gradient = fg.grad(loss, argnums=(0, 1))
    v, u, h = rng.normal(size=lhs.shape), rng.normal(size=rhs.shape), 1e-6
    found = fg.jit(lambda x, w: fg.jvp(gradient, (x, w), (v, u))[1])(lhs, rhs)
    after, before = (gradient(lhs + s * v, rhs + s * u) for s in (h, -h))
    for mine, a, b in zip(found, after, before, strict=True):
        close(mine, (a - b) / (2 * h), 2e-7)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, -1)])
def test_vmap_is_a_loop(number: int, axes: Any, rng: np.random.Generator) -> None:
    case = random_case(rng)
    lhs, rhs = case.pop("lhs"), case.pop("rhs")

    def conv(x: Any, w: Any) -> Any:
        return lax.conv_general_dilated(x, w, **case)

    stacks = [x if axis is None else np.stack([x, x + 1, -x], axis) for x, axis in zip((lhs, rhs), axes, strict=True)]
    each = [conv(*[x if a is None else np.take(x, k, a) for x, a in zip(stacks, axes, strict=True)]) for k in range(3)]
    close(fg.vmap(conv, in_axes=axes)(*stacks), np.stack(each))
    close(fg.jit(fg.vmap(conv, in_axes=axes))(*stacks), np.stack(each))


# compiled as products of patches: tiles, parts, and which way they lie --------------------------------------------

IMAGES = {
    "one tile": ((2, 6, 5, 3), (3, 3, 3, 4), (1, 1), "SAME", 1, "NHWC", "HWIO"),
    "tails": ((3, 37, 29, 11), (3, 2, 11, 7), (1, 1), "SAME", 1, "NHWC", "HWIO"),
    "parts": ((16, 28, 28, 16), (3, 3, 16, 24), (1, 1), "SAME", 1, "NHWC", "HWIO"),
    "strided": ((8, 33, 31, 8), (3, 3, 8, 16), (2, 3), "SAME", 1, "NHWC", "HWIO"),
    "one channel": ((16, 28, 28, 1), (5, 5, 1, 12), (1, 1), "VALID", 1, "NHWC", "HWIO"),
    "channels first": ((4, 8, 20, 21), (10, 8, 3, 3), (1, 1), "SAME", 1, "NCHW", "OIHW"),
    "groups": ((4, 20, 21, 12), (3, 3, 4, 18), (1, 1), "SAME", 3, "NHWC", "HWIO"),
    "depthwise": ((3, 12, 11, 10), (3, 3, 1, 20), (1, 2), "SAME", 10, "NHWC", "HWIO"),
    "pointwise": ((3, 12, 11, 10), (1, 1, 10, 6), (2, 1), "VALID", 1, "NHWC", "HWIO"),
    "large kernel": ((2, 30, 30, 3), (27, 25, 3, 4), (1, 1), "VALID", 1, "NHWC", "HWIO"),
    "one result": ((2, 9, 9, 3), (9, 9, 3, 4), (1, 1), "VALID", 1, "NHWC", "HWIO"),
    "line": ((8, 300, 6), (5, 6, 8), (1,), "SAME", 1, "NWC", "WIO"),
    "volume": ((2, 7, 8, 9, 3), (2, 3, 2, 3, 5), (1, 2, 1), "SAME", 1, "NDHWC", "DHWIO"),
    "four spatial axes": ((1, 3, 4, 3, 4, 2), (2, 2, 2, 2, 2, 3), (1, 1, 1, 1), "VALID", 1, "NABDEC", "ABDEIO"),
}


def image_case(name: str, rng: np.random.Generator, dtype: Any) -> Any:
    lhs, rhs, strides, padding, groups, left, right = IMAGES[name]
    x, w = (np.asarray(rng.normal(size=s) + (1j * rng.normal(size=s) if np.dtype(dtype).kind == "c" else 0), dtype)
            for s in (lhs, rhs))  # fmt: skip
    return (
        x,
        w,
        lambda x, w: lax.conv_general_dilated(
            x, w, strides, padding, dimension_numbers=(left, right, left), feature_group_count=groups
        ),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("name", IMAGES)
def test_compiled_is_evaluated(name: str, dtype: Any, rng: np.random.Generator) -> None:
    x, w, conv = image_case(name, rng, dtype)
    out, pull = fg.vjp(conv, x, w)
    ct = np.asarray(rng.normal(size=out.shape), dtype)
    single = np.dtype(dtype).itemsize // (2 if np.dtype(dtype).kind == "c" else 1) == 4
    for found, wanted in zip(
        (fg.jit(conv)(x, w), *fg.jit(lambda x, w, ct: fg.vjp(conv, x, w)[1](ct))(x, w, ct)),
        (out, *pull(ct)),
        strict=True,
    ):
        assert found.dtype == dtype and found.shape == wanted.shape
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(found / scale, wanted / scale, rtol=0, atol=3e-6 if single else 1e-13)


@pytest.mark.parametrize("name", IMAGES)
def test_no_python(name: str, rng: np.random.Generator) -> None:
    x, w, conv = image_case(name, rng, np.float32)
    for fun in (conv, lambda x, w: fg.grad(lambda *a: np.sum(conv(*a) ** 2), argnums=(0, 1))(x, w)):
        assert "# host" not in fg.jit(fun).trace(x, w).lower().as_text()


def test_no_matrix_of_all_patches(rng: np.random.Generator) -> None:
    """Which would be 25 times as large as the image."""
    x, w = rng.normal(size=(8, 32, 32, 16)), rng.normal(size=(5, 5, 16, 12))

    def conv(x: Any, w: Any) -> Any:
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    for fun in (conv, fg.grad(lambda *a: np.sum(conv(*a) ** 2), argnums=(0, 1))):
        assert fg.jit(fun).trace(x, w).lower().compile().memory_analysis()["temporary_bytes"] < 5 * x.nbytes


def test_bias_and_activation_cost_one_kernel(rng: np.random.Generator) -> None:
    """Padding, the product, and one pass for all that follows."""
    x, w, conv = image_case("parts", rng, np.float32)
    b = np.ones(24, np.float32)
    compiled = fg.jit(lambda x, w, b: np.maximum(conv(x, w) + b, np.float32(0)) * b).trace(x, w, b).lower().compile()
    assert compiled.cost_analysis()["launches"] == 3


def test_threads_change_nothing(rng: np.random.Generator) -> None:
    x, w, conv = image_case("parts", rng, np.float32)
    step = fg.jit(lambda x, w: fg.value_and_grad(lambda *a: np.sum(conv(*a) ** 2), argnums=(0, 1))(x, w))
    before, results = fg.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            fg.set_num_threads(threads)
            results.append([np.asarray(leaf).tobytes() for leaf in fg.tree.leaves(step(x, w))])
    finally:
        fg.set_num_threads(before)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, np.float16])
def test_other_dtypes(dtype: Any, rng: np.random.Generator) -> None:
    x, w = rng.integers(0, 4, (2, 5, 6, 3)).astype(dtype), rng.integers(0, 4, (3, 3, 3, 4)).astype(dtype)

    def conv(x: Any, w: Any) -> Any:
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    wanted = conv(x.astype(np.float64), w.astype(np.float64))
    for found in (conv(x, w), fg.jit(conv)(x, w)):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, wanted.astype(dtype))


def test_preferred_element_type() -> None:
    x, w = np.full((1, 1, 3), 200, np.uint8), np.full((1, 1, 2), 2, np.uint8)
    out = lax.conv_general_dilated(x, w, (1,), "VALID", preferred_element_type=np.int32)
    assert out.dtype == np.int32 and out.tolist() == [[[800, 800]]]


DEGENERATE = {
    "no images": ((0, 5, 2), (3, 2, 4)),
    "no channels": ((2, 5, 0), (3, 0, 4)),
    "no features": ((2, 5, 2), (3, 2, 0)),
    "no elements": ((2, 0, 2), (3, 2, 4)),
    "window beyond the image": ((2, 2, 2), (7, 2, 4)),
}


@pytest.mark.parametrize("padding", ["VALID", "SAME", [(1, 0)]])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate(name: str, padding: Any, rng: np.random.Generator, jax: Any) -> None:
    x, w = (rng.normal(size=s) for s in DEGENERATE[name])
    if name == "no elements" and padding == "SAME":
        padding = [(2, 1)]  # JAX divides by the extent

    def conv(module: Any) -> Any:
        return lambda x, w: module.conv_general_dilated(x, w, (1,), padding, dimension_numbers=("NWC", "WIO", "NWC"))

    wanted, pull = jax.vjp(conv(jax.lax), x, w)
    for way in (lambda f: f, fg.jit):
        out, back = way(lambda x, w: fg.vjp(conv(lax), x, w)[0])(x, w), fg.vjp(conv(lax), x, w)[1]
        close(out, wanted)
        for mine, other in zip(way(back)(np.ones(out.shape)), pull(np.ones(out.shape)), strict=True):
            close(mine, other)


# other faces ------------------------------------------------------------------------------------------------------


def test_conv_and_general_padding(rng: np.random.Generator, jax: Any) -> None:
    x, w = rng.normal(size=(2, 3, 7, 6)), rng.normal(size=(4, 3, 2, 3))
    close(lax.conv(x, w, (2, 1), "SAME"), jax.lax.conv(x, w, (2, 1), "SAME"))
    for args in [((1, 2), [(1, 2), (0, 1)], (2, 1), (1, 2)), ((1, 1), "VALID", None, None)]:
        close(lax.conv_with_general_padding(x, w, *args), jax.lax.conv_with_general_padding(x, w, *args))


@pytest.mark.parametrize("padding", ["SAME", "VALID", [(1, 0), (2, 1)]])
@pytest.mark.parametrize(("transpose_kernel", "consistent"), list(itertools.product([False, True], repeat=2)))
def test_conv_transpose(
    padding: Any, transpose_kernel: bool, consistent: bool, rng: np.random.Generator, jax: Any
) -> None:
    x = rng.normal(size=(2, 5, 4, 3))
    w = rng.normal(size=(3, 2, 4, 3) if transpose_kernel else (3, 2, 3, 4))
    for strides, dilation in [((1, 1), None), ((2, 3), None), ((3, 2), (2, 1))]:
        params = {
            "rhs_dilation": dilation, "transpose_kernel": transpose_kernel, "use_consistent_padding": consistent,
        }  # fmt: skip
        wanted = jax.lax.conv_transpose(x, w, strides, padding, **params)
        close(lax.conv_transpose(x, w, strides, padding, **params), wanted)
        close(fg.jit(lambda x, w, s=strides, p=params: lax.conv_transpose(x, w, s, padding, **p))(x, w), wanted)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(("n", "m"), [(7, 3), (3, 7), (5, 5), (40, 33), (1, 1), (200, 150)])
def test_convolve_and_correlate(mode: str, n: int, m: int, rng: np.random.Generator) -> None:
    x, y = rng.normal(size=n), rng.normal(size=m) + 0.3j
    for f in (lambda a, b: np.convolve(a, b, mode), lambda a, b: np.correlate(a, b, mode)):
        close(fg.jit(f)(x, y), f(x, y))
        v, h = rng.normal(size=n), 1e-6
        _, tangent = fg.jvp(lambda a, f=f: f(a, y), (x,), (v,))
        close(tangent, (f(x + h * v, y) - f(x - h * v, y)) / (2 * h), 1e-7)


NHWC = ("NHWC", "HWIO", "NHWC")
ERRORS: dict[str, tuple[Any, Any, dict[str, Any], type[Exception], str]] = {
    "channels": ((1, 4, 4, 3), (2, 2, 4, 5), {}, ValueError, "3 channels.*takes 4"),
    "groups do not divide channels": (
        (1, 4, 4, 3), (2, 2, 1, 4), {"feature_group_count": 2}, ValueError, "3 channels in 2 groups",
    ),
    "groups do not divide outputs": (
        (1, 4, 4, 4), (2, 2, 2, 3), {"feature_group_count": 2}, ValueError, "3 output channels.*feature_group_count=2",
    ),
    "batch groups": ((3, 4, 4, 4), (2, 2, 4, 4), {"batch_group_count": 2}, ValueError, "3 images.*batch_group_count=2"),
    "batch groups and outputs": (
        (4, 4, 4, 4), (2, 2, 4, 3), {"batch_group_count": 2}, ValueError, "3 output channels.*batch_group_count=2",
    ),
    "both groups": (
        (4, 4, 4, 4), (2, 2, 2, 4), {"batch_group_count": 2, "feature_group_count": 2}, ValueError, "must be 1",
    ),
    "no groups": ((4, 4, 4, 4), (2, 2, 4, 4), {"feature_group_count": 0}, ValueError, "must be positive"),
    "ranks": ((1, 4, 3), (2, 2, 3, 5), {}, TypeError, "equally many axes"),
    "letters": ((1, 4, 4, 3), (2, 2, 3, 5), {"dimension_numbers": ("NHWC", "HWOO", "NHWC")}, ValueError, "'HWOO'"),
    "spatial letters": (
        (1, 4, 4, 3), (2, 2, 3, 5), {"dimension_numbers": ("NHWC", "HDIO", "NHWC")}, ValueError, "spatial axes",
    ),
    "length": ((1, 4, 4, 3), (2, 2, 3, 5), {"dimension_numbers": ("NHWC", "HIO", "NHWC")}, TypeError, "each of 4 axes"),
    "no strings": ((1, 4, 4, 3), (2, 2, 3, 5), {"dimension_numbers": "NHWC"}, TypeError, "three strings"),
    "strides": ((1, 4, 4, 3), (2, 2, 3, 5), {"window_strides": (1,)}, ValueError, "window_strides.*2 spatial axes"),
    "no sequence": ((1, 4, 4, 3), (2, 2, 3, 5), {"window_strides": 1}, TypeError, "window_strides must be 2 integers"),
    "fractional groups": (
        (1, 4, 4, 3), (2, 2, 3, 5), {"feature_group_count": 1.0}, TypeError, "feature_group_count must be an integer",
    ),
    "no padding": ((1, 4, 4, 3), (2, 2, 3, 5), {"padding": None}, TypeError, "'SAME'.*pair"),
    "zero stride": ((1, 4, 4, 3), (2, 2, 3, 5), {"window_strides": (0, 1)}, ValueError, "must be positive"),
    "padding name": ((1, 4, 4, 3), (2, 2, 3, 5), {"padding": "FULL"}, ValueError, "'FULL'"),
    "padding pairs": ((1, 4, 4, 3), (2, 2, 3, 5), {"padding": [(1, 1)]}, ValueError, "pair"),
    "padding crops": ((1, 4, 4, 3), (2, 2, 3, 5), {"padding": [(-3, -3), (0, 0)]}, ValueError, "crops more"),
    "named padding of a dilated image": (
        (1, 4, 4, 3), (2, 2, 3, 5), {"padding": "SAME", "lhs_dilation": (2, 1)}, ValueError, "conv_transpose",
    ),
    "kernel of no elements": ((1, 4, 4, 3), (0, 2, 3, 5), {}, ValueError, "must be positive"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    lhs, rhs, params, kind, words = ERRORS[name]
    params = {"window_strides": (1, 1), "padding": "VALID", "dimension_numbers": NHWC, **params}

    def conv(x: Any, w: Any) -> Any:
        return lax.conv_general_dilated(x, w, **params)

    for fun in (conv, fg.jit(conv)):
        with pytest.raises(kind, match=words):
            fun(np.zeros(lhs), np.zeros(rhs))


def test_dtypes_must_agree() -> None:
    with pytest.raises(TypeError, match="preferred_element_type"):
        lax.conv(np.zeros((1, 1, 4)), np.zeros((1, 1, 2), np.float32), (1,), "SAME")
