"""``funcgrad.scipy.fft`` against SciPy: values eager and compiled, inverses, derivatives as transposes of a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.fft

import funcgrad as fg

NAMES = ["dct", "idct", "dst", "idst"]
KINDS = [1, 2, 3, 4]
NORMS = [None, "ortho", "forward"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_values(name: str, kind: int, rng: np.random.Generator) -> None:
    ours, theirs = getattr(fg.scipy.fft, name), getattr(scipy.fft, name)
    for n in (2, 3, 4, 7, 12):
        x = rng.normal(size=(2, n))
        for norm in NORMS:
            np.testing.assert_allclose(ours(x, kind, norm=norm), theirs(x, kind, norm=norm), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_compiled_in_single_precision_along_an_axis(name: str, rng: np.random.Generator) -> None:
    ours, theirs = getattr(fg.scipy.fft, name), getattr(scipy.fft, name)
    x = rng.normal(size=(5, 3)).astype(np.float32)
    for kind in KINDS:
        for n in (None, 4, 7):
            found = fg.jit(lambda x, kind=kind, n=n: ours(x, kind, n, 0))(x)
            wanted = theirs(x, kind, n, 0)
            assert found.dtype == wanted.dtype
            np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["dctn", "idctn", "dstn", "idstn"])
def test_several_axes(name: str, rng: np.random.Generator) -> None:
    ours, theirs = getattr(fg.scipy.fft, name), getattr(scipy.fft, name)
    x = rng.normal(size=(4, 3, 5))
    for s, axes in [(None, None), (None, (0, 2)), ((2, 6), None), ((6,), (1,)), ((4, -1), (1, 2))]:
        if s == (4, -1):
            wanted = theirs(x, 2, (4, 5), axes, "ortho")
        else:
            wanted = theirs(x, 2, s, axes, "ortho")
        np.testing.assert_allclose(ours(x, 2, s, axes, "ortho"), wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_transposed(name: str, kind: int, rng: np.random.Generator) -> None:
    """The pullback is the transpose of the matrix that SciPy applies, also of a batch."""
    ours, theirs = getattr(fg.scipy.fft, name), getattr(scipy.fft, name)
    matrix = theirs(np.eye(6), kind, axis=0, norm="ortho", orthogonalize=False)
    ct = rng.normal(size=(3, 6))

    def pull(c: Any) -> Any:
        return fg.vjp(lambda x: ours(x, kind, norm="ortho", orthogonalize=False), np.zeros(6))[1](c)[0]

    np.testing.assert_allclose(fg.jit(fg.vmap(pull))(ct), ct @ matrix, rtol=1e-12, atol=1e-12)


def test_errors() -> None:
    with pytest.raises(ValueError, match="dct: type must be 1, 2, 3 or 4, found 5"):
        fg.scipy.fft.dct(np.ones(3), 5)
    with pytest.raises(ValueError, match="idst: norm must be"):
        fg.scipy.fft.idst(np.ones(3), norm="unit")
    with pytest.raises(ValueError, match="dct: type 1 needs at least 2 elements"):
        fg.scipy.fft.dct(np.ones(1), 1)
    with pytest.raises(TypeError, match="dct: the input is complex"):
        fg.scipy.fft.dct(np.ones(3, complex))
    with pytest.raises(ValueError, match="invalid number of data points"):
        fg.scipy.fft.dct(np.ones(3), n=0)
    with pytest.raises(ValueError, match="dctn: s has 1 lengths and axes has 2"):
        fg.scipy.fft.dctn(np.ones((3, 3)), s=(3,), axes=(0, 1))
