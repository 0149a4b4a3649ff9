"""What fuses with what: numbers of kernels, their texts at other shapes, their meaning against the interpreter."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from funcgrad.compiler import compile_jaxpr, lower_jaxpr
from funcgrad.core.avals import ShapedArray, aval_of
from funcgrad.core.jaxpr import Literal
from funcgrad.core.staging import stage
from funcgrad.kernels.assemble import Launch
from funcgrad.kernels.ir import Compute, check_kernel
from funcgrad.ops.indexing import scatter_add_p
from funcgrad.ops.shape import rev, strided_slice
from funcgrad.ops.structural import reduce_sum, reshape, transpose
from funcgrad.ops.transcendental import exp, sin, tanh

from .programs import FUSED, INDEX, WHOLE, both, compiled, layer_norm, softmax


@pytest.mark.parametrize("name", FUSED)
def test_number_of_launches(name: str) -> None:
    f, args, launches = FUSED[name]
    assert compiled(f, args).cost_analysis()["launches"] == launches


@pytest.mark.parametrize("name", WHOLE)
def test_compiled_is_interpreted(name: str) -> None:
    f, args = WHOLE[name]
    for found, expected in zip(*both(f, args), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
        assert np.asarray(found).dtype == np.asarray(expected).dtype
        assert isinstance(found, np.ndarray) == bool(np.ndim(expected))


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64", "int32", "bool"])
@pytest.mark.parametrize("name", ["transposed view", "reversed", "strided", "output is a view", "zero rows"])
def test_other_dtypes(name: str, dtype: str) -> None:
    f, args = WHOLE[name]
    args = [(a * 3).astype(dtype) for a in args]
    if dtype in ("int32", "bool"):
        f = {"strided": lambda x: [x[1:, ::2]], "output is a view": f}.get(name, lambda x: [x & x, x == x])
    found, expected = both(f, args)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3 if dtype == "float16" else 1e-6, atol=1e-6)
        assert np.asarray(a).dtype == np.asarray(b).dtype


@pytest.mark.parametrize("name", WHOLE)
def test_heavy_functions_are_computed_once(name: str) -> None:
    """However often a value is used, its transcendental function stands in one kernel, once."""
    f, args = WHOLE[name]
    executable = compiled(f, args)
    written = Counter(e.primitive.name for e in executable.lowered.closed.eqns)
    text = executable.as_text()
    for fn in ("exp", "tanh", "sin", "log"):
        assert text.count(f" {fn}_f64(") <= written[fn]


def source_at(f: Any, shapes: list[tuple[int, ...]]) -> str:
    return lower_jaxpr(stage(f, [ShapedArray(s, np.dtype(np.float64)) for s in shapes])).as_text()


@pytest.mark.parametrize(
    ("f", "first", "second"),
    [
        (softmax, [(5, 7)], [(1000, 33)]),
        (softmax, [(1000, 1000)], [(1001, 1000)]),
        (layer_norm, [(5, 7), (7,), (7,)], [(64, 640), (640,), (640,)]),
        (lambda x: [reduce_sum(x, (0,))], [(50, 7)], [(60, 600)]),
        (lambda x: [reduce_sum(sin(x), (0, 1))], [(1000, 1000)], [(1001, 5000)]),
        (lambda x: [tanh(x * 2.5 + 3.5)], [(10,)], [(10**7,)]),
    ],
)
def test_text_does_not_depend_on_extents(f: Any, first: Any, second: Any) -> None:
    assert source_at(f, first) == source_at(f, second)


def test_scalars_are_data_of_the_launch() -> None:
    """Another learning rate is no other kernel."""
    assert source_at(lambda x: [x * 3.25], [(4,)]) == source_at(lambda x: [x * -1e-3], [(4,)])


def test_every_kernel_is_well_formed() -> None:
    for f, args in WHOLE.values():
        for step in compiled(f, args).lowered.steps:
            if isinstance(step, Launch):
                check_kernel(step.kernel)
                assert str(step.kernel).startswith("kernel over (")


def test_equal_kernels_are_compiled_once() -> None:
    def f(*xs: Any) -> Any:
        return [sin(x) * 2.0 for x in xs]

    executable = compiled(f, [np.ones(n) for n in (3, 4, 5, 6)])
    assert executable.cost_analysis()["launches"] == 4
    assert executable.cost_analysis()["kernels"] == 1


ONE_SHAPE = {
    "n-body", "gradient of a slice", "reshape of a transpose", "output is a view", "pad of a broadcast", "scatter",
    "scatter add", "scatter twice",
}  # fmt: skip
"""Programs in which extents are written down, so that they take no other shape."""


@pytest.mark.parametrize("name", sorted(WHOLE.keys() - ONE_SHAPE))
def test_another_shape_has_the_same_kernels(name: str) -> None:
    """They are the same objects, which are written once, and a constant of one shape does not stay for another."""
    f, args = WHOLE[name]

    def grown(k: int) -> list[Any]:
        """Each extent above 1 is larger by k."""
        shapes = [[n + k if n > 1 else n for n in np.shape(a)] for a in args]
        return [np.resize(a, shape) if shape else a for a, shape in zip(args, shapes, strict=True)]

    lowered = [lower_jaxpr(stage(f, [aval_of(x) for x in grown(k)])) for k in (4, 7)]
    first, second = ([x.kernel for x in program.stages.launches()] for program in lowered)
    if [str(k) for k in first] == [str(k) for k in second]:
        assert all([a is b for a, b in zip(first, second, strict=True)])
    for found, expected in zip(*both(f, grown(7)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_constants_of_a_shape_are_data() -> None:
    """Numbers share a kernel and keep their value; not 0.0, which stands in the text, but -0.0 does."""
    kernels = {}
    for number in (0.1, 0.3, 0.0, -0.0):

        def f(x: Any, number: float = number) -> Any:
            return [sin(x) * number]

        found, expected = both(f, [np.arange(-3.0, 4.0)])
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-14)
        assert np.array_equal(np.signbit(found[0]), np.signbit(expected[0]))
        (launch,) = compiled(f, [np.arange(3.0)]).lowered.stages.launches()
        kernels[str(number)] = launch.kernel
    assert kernels["0.1"] is kernels["0.3"] is kernels["-0.0"]
    assert kernels["0.0"] is not kernels["0.1"]


def test_long_chains_are_cut_and_take_linear_time() -> None:
    def f(x: Any) -> Any:
        for _ in range(5000):
            x = sin(x) * 1.01
        return [x]

    executable = compiled(f, [np.ones(3)])
    counts = executable.cost_analysis()
    assert 80 <= counts["launches"] <= 120
    assert counts["kernels"] <= 3
    for found, expected in zip(*both(f, [np.ones(3)]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("n", [300, 3000])
def test_shared_values_in_long_chains_do_not_multiply(n: int) -> None:
    """Two paths between neighbours are 2**n in all: grouping must not follow them one by one."""

    def f(x: Any) -> Any:
        for _ in range(n):
            x = sin(x) * 0.5 + x
        return [x]

    for found, expected in zip(*both(f, [np.ones(3)]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_temporaries_are_reused() -> None:
    """A chain of sums over alternating axes holds two arrays at a time, not all."""

    def f(x: Any) -> Any:
        for _ in range(10):
            x = exp(x - reduce_sum(x, (0,)))
            x = exp(x - reduce_sum(x, (1,)))
        return [x]

    x = np.full((64, 64), 0.01)
    assert compiled(f, [x]).memory_analysis()["temporary_bytes"] <= 3 * x.nbytes


def test_updates_happen_in_place() -> None:
    def f(x: Any, u: Any) -> Any:
        x = sin(x)
        for _ in range(5):
            x = scatter_add_p.bind(x, u, INDEX, axes=(0,), mode="drop", unique=False)
        return [x]

    x, u = np.ones((100, 40)), np.ones((6, 40))
    executable = compiled(f, [x, u])
    assert executable.memory_analysis()["temporary_bytes"] <= x.nbytes
    assert executable.cost_analysis()["launches"] <= 7


def test_inputs_are_left_alone() -> None:
    for f, args in WHOLE.values():
        copies = [a.copy() for a in args]
        compiled(f, args)(args)
        for a, b in zip(args, copies, strict=True):
            np.testing.assert_array_equal(a, b)


def test_literal_inputs_of_one_program() -> None:
    closed = stage(lambda x: [x + 1.5], [aval_of(np.float64(2.0))])
    assert any(isinstance(a, Literal) for e in closed.eqns for a in e.invars)
    assert compile_jaxpr(closed)([2.0]) == [3.5]


OVERLAPPING = {
    # name: program of y = tanh(x) (n, n); launches
    "transposed": (lambda y: [y * transpose(y, (1, 0))], 2),
    "neighbours": (lambda y: [strided_slice(y, (1, 0), (8, 8)) * strided_slice(y, (0, 0), (7, 8))], 2),
    "reversed, and a result": (lambda y: [y, rev(y, (0,)) * 2.0], 2),
    "columns that do not overlap": (lambda y: [strided_slice(y, (0, 0), (8, 4)) * strided_slice(y, (0, 4), (8, 8))], 1),
    "reshaped": (lambda y: [y * 2.0, reshape(y, (64,)) * sin(reshape(y, (64,)))], 2),
    "one arrangement, read twice": (lambda y: [(lambda r: r * sin(r))(rev(y, (0,)))], 1),
}


@pytest.mark.parametrize("name", OVERLAPPING)
def test_heavy_values_read_in_several_arrangements_are_computed_once(name: str) -> None:
    program, launches = OVERLAPPING[name]
    x = np.linspace(-1.0, 1.0, 64).reshape(8, 8)

    def f(x: Any) -> Any:
        return program(tanh(x))

    executable = compiled(f, [x])
    assert executable.cost_analysis()["launches"] == launches
    statements = [
        s
        for step in executable.lowered.steps
        if isinstance(step, Launch)
        for stage in step.kernel.stages
        for s in stage.body
        if isinstance(s, Compute) and s.fn == "tanh"
    ]
    columns = 2 if name == "columns that do not overlap" else 1  # two halves, each of which has its own elements
    assert len(statements) == columns
    for found, expected in zip(*both(f, [x]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-14)
