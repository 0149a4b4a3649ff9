"""Programs as built-in functions: what they take, what they decline, and that nothing is leaked or shared."""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.jit import JitFunction
from funcgrad.runtime import dispatch


def warm(f: Any, *args: Any) -> JitFunction:
    jitted = fg.jit(f)
    for _ in range(2):
        jitted(*args)
    return jitted


def program(f: JitFunction) -> Any:
    """The program that is tried first."""
    first, *_ = f.programs
    return first


def test_calls_of_a_known_signature_go_through_the_builtin() -> None:
    f = warm(lambda x, y: x * y + 1, np.arange(3.0), 2.0)
    out = program(f)(np.arange(3.0), 5.0)
    assert type(out) is np.ndarray and out.tolist() == [1, 6, 11]
    assert type(program(f)).__name__ == "builtin_function_or_method"


MATRIX = np.arange(12.0).reshape(3, 4)
MISALIGNED = np.frombuffer(b"\0" + MATRIX.tobytes(), np.uint8)[1:].view(np.float64).reshape(3, 4)


class Subclass(np.ndarray):
    pass


@pytest.mark.parametrize(
    "x",
    [
        np.arange(12.0).reshape(4, 3),
        np.arange(12.0),
        np.arange(8.0).reshape(2, 4),
        MATRIX.astype(np.float32),
        MATRIX.astype(">f8"),
        np.asfortranarray(MATRIX),
        np.arange(24.0).reshape(3, 8)[:, ::2],
        MATRIX[::-1],
        MISALIGNED,
        MATRIX.view(Subclass),
        MATRIX.tolist(),
        2.0,
        np.float64(2),
        None,
    ],
    ids=lambda x: f"{type(x).__name__}{getattr(x, 'shape', '')}{getattr(x, 'strides', '')}{getattr(x, 'dtype', '')}",
)
def test_what_is_not_of_the_signature_is_declined(x: Any) -> None:
    f = warm(lambda x: x + 1, MATRIX)
    run = program(f)
    assert run(x) is None
    assert run() is None and run(MATRIX, MATRIX) is None
    np.testing.assert_array_equal(run(MATRIX), MATRIX + 1)


def test_other_signatures_get_their_own_results() -> None:
    f = fg.jit(lambda x: np.sin(x) * 2)
    inputs = [MATRIX, np.asfortranarray(MATRIX), MATRIX[::-1], MATRIX[:, ::2], MATRIX.astype(np.float32), 0.5]
    for _ in range(4):
        for x in inputs:
            np.testing.assert_allclose(f(x), np.sin(x) * 2, rtol=1e-6)


def test_results_are_new_arrays() -> None:
    f = warm(lambda x: (x + 1, x * 2, np.sum(x)), np.arange(4.0))
    kept = [f(np.full(4, float(k))) for k in range(5)]
    for k, (a, b, c) in enumerate(kept):
        assert a.tolist() == [k + 1.0] * 4 and b.tolist() == [k * 2.0] * 4 and c == 4 * k
        assert type(c) is np.float64 and a.flags.owndata and a.flags.writeable


def test_read_only_arguments_and_empty_arrays() -> None:
    x = np.arange(3.0)
    x.flags.writeable = False
    f = warm(lambda x: x + 1, x)
    assert f(x).tolist() == [1, 2, 3]
    g = warm(lambda x: (x * 2, x.sum()), np.empty((0, 3)))
    out, total = g(np.empty((0, 3)))
    assert out.shape == (0, 3) and total == 0


@pytest.mark.parametrize("code", "?bhilqBHILQefdFD")
def test_scalars_of_every_dtype(code: str) -> None:
    value = np.dtype(code).type(3)
    f = warm(lambda x: x, value)
    assert f(value) == value and type(f(value)) is type(value)


def test_references_are_balanced() -> None:
    x = np.arange(5.0)
    f = warm(lambda x, s: (x * s, np.sum(x), x + s), x, 2.0)
    gc.collect()
    counts = [sys.getrefcount(o) for o in (x, x.dtype, np.float64, np.ndarray)]
    for _ in range(10_000):
        f(x, 3.0)
        program(f)(x)  # declined
    after = [sys.getrefcount(o) for o in (x, x.dtype, np.float64, np.ndarray)]
    assert all(abs(a - b) < 100 for a, b in zip(after, counts, strict=True)), (counts, after)


def test_the_builtin_outlives_the_function_it_came_from() -> None:
    builtin = program(warm(lambda x: x + 1, np.arange(3.0)))
    fg.clear_caches()
    gc.collect()
    assert builtin(np.arange(3.0)).tolist() == [1, 2, 3]


def test_threads_that_meet_in_one_program() -> None:
    f = warm(lambda x: np.cumsum(np.tanh(x))[::2], np.zeros(4000))  # long enough to give the GIL away
    failures: list[Any] = []

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).normal(size=4000)
        expected = np.cumsum(np.tanh(x))[::2]
        for _ in range(200):
            if not np.allclose(f(x), expected, rtol=1e-10):
                failures.append(seed)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_structured_arguments() -> None:
    f = fg.jit(lambda p, x: {"y": p["w"] * x + p["b"], "n": (p["b"],)})
    p = {"w": np.arange(3.0), "b": 1.0}
    for k in range(5):
        out = f(p, np.full(3, float(k)))
        assert out["y"].tolist() == [1, 1 + k, 1 + 2 * k] and out["n"][0] == 1
    assert f._last_structured is not None
    assert f({"w": np.arange(2.0), "b": 2.0}, np.ones(2))["y"].tolist() == [2, 3]
    assert f({"w": np.arange(3.0), "b": 2}, np.ones(3))["y"].tolist() == [2, 3, 4]
    f.clear_cache()
    assert f(p, np.ones(3))["y"].tolist() == [1, 2, 3]


def test_under_another_transformation_nothing_is_run_early() -> None:
    f = warm(lambda x: x**2, 3.0)
    assert fg.grad(lambda x: f(x) + f(2.0))(3.0) == 6.0
    assert "jit" in str(fg.make_jaxpr(lambda x: x + f(2.0))(1.0))


def test_objects_and_numpy_s_functions_are_as_expected_here() -> None:
    """Elsewhere calls go the long way; on the interpreters that we test they must not."""
    assert dispatch._numpy_functions() is not None
