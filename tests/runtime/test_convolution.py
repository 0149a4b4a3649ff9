"""The convolution adapter by itself: patches times a matrix, in every way that they can lie, against loops."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from funcgrad.runtime import convolution, direct_convolution
from funcgrad.runtime.compile import compile_runtime_kernel
from funcgrad.runtime.convolution import Place, conv_step
from funcgrad.runtime.executor import Program

# positions and taps as (extent, stride) axes over a vector; groups; features; tile; span
ROWS: dict[str, tuple[Any, Any, int, int, int, int]] = {
    "a vector": (((7, 1),), ((3, 1),), 1, 2, 7, 7),
    "adjacent taps": (((2, 60), (4, 12), (5, 3)), ((2, 12), (6, 1)), 1, 4, 8, 8),
    "adjacent positions": (((3, 40), (30, 1)), ((5, 3), (2, 2)), 1, 3, 7, 7),
    "no unit stride": (((9, 6), (2, 2)), ((2, 2), (3, 4)), 2, 3, 4, 4),
    "four axes": (((2, 50), (2, 20), (3, 4), (2, 2)), ((3, 1),), 1, 5, 5, 5),
    "groups": (((6, 8), (3, 2)), ((2, 8), (2, 1)), 3, 2, 16, 16),
    "one position": ((), ((4, 2), (2, 1)), 1, 3, 1, 1),
    "one tap": (((11, 3),), (), 2, 3, 4, 4),
    "long runs": (((5, 7),), ((2, 9), (40, 1)), 1, 3, 2, 2),
    "several tiles to a part": (((40, 3),), ((5, 1),), 2, 4, 6, 18),
    # features in whole registers: blocks in registers, with short last blocks of positions and taps, and several tiles
    "registers": (((3, 60), (7, 12), (5, 3)), ((3, 12), (7, 1)), 1, 64, 30, 60),
    "registers, two blocks": (((5, 20), (9, 2)), ((4, 20), (5, 1)), 2, 128, 16, 32),
    "registers, half": (((5, 20), (9, 1)), ((3, 2), (3, 20), (2, 1)), 2, 96, 9, 27),
    "registers, one": (((50, 3),), ((23, 2),), 3, 48, 20, 20),
    "registers, exactly": (((14, 5),), ((2, 9), (14, 1)), 1, 16, 14, 14),
    "registers, long": (((1500, 2),), ((17, 3),), 1, 16, 1500, 1500),
    "registers, four axes": (((2, 90), (3, 30), (4, 7), (5, 1)), ((4, 90), (5, 2)), 1, 32, 16, 48),
}


def offsets(axes: Any) -> np.ndarray:
    total = np.zeros((), np.int64)
    for extent, stride in axes:
        total = np.add.outer(total, np.arange(extent) * stride)
    return total.ravel()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("contracts", [False, True])
@pytest.mark.parametrize("name", ROWS)
def test_against_indexing(name: str, contracts: bool, dtype: Any, rng: np.random.Generator) -> None:
    positions, taps, groups, features, tile, span = ROWS[name]
    where, seen = offsets(positions), offsets(taps)
    reach, size = int(where[-1] + seen[-1]) + 1, np.dtype(dtype).itemsize
    x = np.asarray(rng.normal(size=(groups, reach)), dtype)
    rows = len(where) if contracts else len(seen)
    w = np.asarray(rng.normal(size=(groups, rows, features)), dtype)
    parts = -(-len(where) // span)
    patches = x[:, where[:, None] + seen]
    if contracts:
        out = np.full((parts, groups, len(seen), features), np.nan, dtype)
        wanted = np.matmul(patches.transpose(0, 2, 1), w)
    else:
        out, wanted = np.full((groups, len(where), features), np.nan, dtype), np.matmul(patches, w)
    step = conv_step(
        np.dtype(dtype), groups, positions, taps, features, Place(0, 0, reach * size),
        Place(1, 0, rows * features * size), Place(2, 0, out.shape[-2] * features * size), features, features, tile,
        span if contracts else tile, contracts, out[0].size if contracts else 0,
    )  # fmt: skip
    Program([step], 2, 1)([x, w], [out])
    found = out.sum(0) if contracts else out
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 if size // (1 + (x.dtype.kind == "c")) == 8 else 2e-4)


@pytest.mark.parametrize(("features", "registers", "rows"), [(64, 4, 6), (32, 2, 8), (16, 1, 14)])
@pytest.mark.parametrize("contracts", [False, True])
def test_sums_stay_in_registers(contracts: bool, features: int, registers: int, rows: int) -> None:
    """One multiply-add per register of the block, and none besides: nothing was split or done twice."""
    block = direct_convolution.block_of(np.dtype(np.float32), 100, 24 * 7, features, contracts)
    if block is None:
        pytest.skip("this CPU has no registers of 512 bits")
    assert block == (rows, 16 * registers)
    source = direct_convolution.contracting_source if contracts else direct_convolution.direct_source
    assembly = compile_runtime_kernel(source("f32", *block), "conv").assembly()
    assert assembly.count("vfmadd") == registers * rows


@pytest.mark.parametrize(("features", "taps"), [(24, 27), (3, 27), (64, 9)])
def test_what_blas_does_better(features: int, taps: int) -> None:
    assert direct_convolution.block_of(np.dtype(np.float32), 1000, taps, features, False) is None
    assert direct_convolution.block_of(np.dtype(np.complex64), 1000, 27, 64, False) is None


@pytest.mark.parametrize(("taps", "rows"), [(9, 9), (27, 14), (5, 5), (28, 14), (29, 10), (100, 14)])
def test_blocks_fit_the_taps(taps: int, rows: int) -> None:
    block = direct_convolution.block_of(np.dtype(np.float32), 1000, taps, 16, True)
    assert block is None or block == (rows, 16)


def step_of(positions: Any, taps: Any, features: int = 2) -> Any:
    place = Place(0, 0, 0)
    return conv_step(
        np.dtype(np.float32), 1, positions, taps, features, place, place, place, features, features, 8, 8, False, 0
    )


def test_errors() -> None:
    with pytest.raises(ValueError, match="5 axes"):
        step_of(((2, 2),) * 5, ((2, 1),))
    with pytest.raises(ValueError, match="32 bits"):
        step_of(((8, 1),), ((1 << 20, 1), (1 << 12, 1)))


def test_no_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(lambda size: None)
    address = ctypes.cast(nothing, ctypes.c_void_p).value
    known = convolution.libc()
    monkeypatch.setattr(convolution, "libc", lambda: {**known, "malloc": address})
    x, w, out = np.ones(9, np.float32), np.ones((2, 2), np.float32), np.zeros((8, 2), np.float32)
    places = [Place(k, 0, 0) for k in range(3)]
    step = conv_step(np.dtype(np.float32), 1, ((8, 1),), ((2, 1),), 2, *places, 2, 2, 8, 8, False, 0)
    with pytest.raises(MemoryError):
        Program([step], 2, 1)([x, w], [out])
