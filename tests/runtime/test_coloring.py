"""Colourings, held to what they are for: every entry of a matrix can be read from the products that they make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from funcgrad.runtime import coloring as coloring_module
from funcgrad.runtime.coloring import Coloring, color_matrix, color_symmetric


def seeds(colors: np.ndarray, count: int) -> np.ndarray:
    return (colors[None, :] == np.arange(count)[:, None]).astype(float)


def read_back(matrix: Any, c: Coloring) -> np.ndarray:
    """The values of the pattern's entries, from the products."""
    forward = seeds(c.columns, c.n_columns) @ matrix.T
    reverse = seeds(c.rows, c.n_rows) @ matrix
    return np.concatenate([forward.ravel(), reverse.ravel()])[c.index]


def with_values(rng: np.random.Generator, pattern: Any) -> tuple[Any, Any]:
    pattern = sparse.csr_array(pattern).astype(bool)
    pattern.sort_indices()
    return pattern, sparse.csr_array(
        (rng.normal(size=pattern.nnz), pattern.indices, pattern.indptr), shape=pattern.shape
    )


def banded(n: int, width: int) -> Any:
    i = np.arange(n)
    return np.abs(i[:, None] - i) <= width


def arrow(n: int, rows: bool, columns: bool) -> Any:
    a = np.eye(n, dtype=bool)
    a[0] |= rows
    a[:, 0] |= columns
    return a


def star_of_stars(n: int) -> Any:
    a = np.eye(n * n, dtype=bool)
    for hub in range(0, n * n, n):
        a[hub, hub : hub + n] = a[hub : hub + n, hub] = True
    return a


# pattern, products in forward mode, products in reverse mode
KNOWN = {
    "diagonal": (np.eye(6, dtype=bool), 1, 0),
    "tridiagonal": (banded(20, 1), 3, 0),
    "five diagonals": (banded(20, 2), 5, 0),
    "a full row": (arrow(30, True, False), 1, 1),
    "a full column": (arrow(30, False, True), 2, 0),
    "an arrow": (arrow(30, True, True), 2, 1),
    "one row": (np.ones((1, 9), bool), 0, 1),
    "one column": (np.ones((9, 1), bool), 1, 0),
    "few full rows": (np.ones((3, 9), bool), 0, 3),
    "few full columns": (np.ones((9, 3), bool), 3, 0),
    "rows of one group": (np.kron(np.eye(8), np.ones((1, 5))).astype(bool), 0, 1),
    "nothing": (np.zeros((4, 5), bool), 0, 0),
    "no rows": (np.zeros((0, 5), bool), 0, 0),
    "no columns": (np.zeros((5, 0), bool), 0, 0),
}


@pytest.mark.parametrize("name", KNOWN)
def test_number_of_products(name: str, rng: np.random.Generator) -> None:
    dense, forward, reverse = KNOWN[name]
    pattern, matrix = with_values(rng, dense)
    c = color_matrix(pattern)
    np.testing.assert_allclose(read_back(matrix, c), matrix.data, rtol=1e-14)
    if dense.any():
        assert (c.n_columns, c.n_rows) == (forward, reverse)
    assert len(c.columns) == dense.shape[1] and len(c.rows) == dense.shape[0]


@pytest.mark.parametrize("seed", range(40))
def test_random_matrices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, n = rng.integers(1, 40, size=2)
    dense = rng.uniform(size=(m, n)) < rng.choice([0.02, 0.1, 0.4])
    dense[rng.integers(m, size=rng.integers(3))] = True
    dense[:, rng.integers(n, size=rng.integers(3))] = True
    pattern, matrix = with_values(rng, dense)
    c = color_matrix(pattern)
    np.testing.assert_allclose(read_back(matrix, c), matrix.data, rtol=1e-13)
    assert c.n_columns + c.n_rows <= min(m, n) + 6  # never much worse than the dense Jacobian


SYMMETRIC = {
    "diagonal": (np.eye(6, dtype=bool), 1),
    "tridiagonal": (banded(20, 1), 3),
    "an arrow": (arrow(30, True, True), 2),
    "an arrow that points down": (arrow(30, True, True)[::-1, ::-1], 2),
    "an arrow without a diagonal": (arrow(30, True, True) & ~np.eye(30, dtype=bool), 2),
    "many stars": (star_of_stars(7), 2),
    "full": (np.ones((5, 5), bool), 5),
}


@pytest.mark.parametrize("work", [coloring_module._STAR_WORK, -1], ids=["star", "columns"])
@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetric(name: str, work: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where star colouring is too much work, and full rows get colours of their own."""
    monkeypatch.setattr(coloring_module, "_STAR_WORK", work)
    dense, count = SYMMETRIC[name]
    pattern, matrix = with_values(rng, dense)
    matrix = sparse.csr_array((matrix + matrix.T).multiply(pattern))
    matrix.sort_indices()
    c = color_symmetric(pattern)
    np.testing.assert_allclose(read_back(matrix, c), matrix.data, rtol=1e-14)
    assert c.n_rows == 0 and (work < 0 or c.n_columns == count)


@pytest.mark.parametrize("limit", [0, 1 << 24])
@pytest.mark.parametrize("seed", range(40))
def test_random_symmetric(seed: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coloring_module, "_TWICE", limit)
    monkeypatch.setattr(coloring_module, "_TABLE", limit)
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    dense = rng.uniform(size=(n, n)) < rng.choice([0.02, 0.1, 0.3])
    dense[rng.integers(n, size=rng.integers(3))] = True
    pattern, matrix = with_values(rng, dense | dense.T)
    matrix = sparse.csr_array(matrix + matrix.T)
    matrix.sort_indices()
    c = color_symmetric(pattern)
    np.testing.assert_allclose(read_back(matrix, c), matrix.data, rtol=1e-13)
    assert c.n_columns <= color_matrix(pattern).n_columns + color_matrix(pattern).n_rows + 3


def test_fewer_colours_than_columns_that_share_no_row() -> None:
    """The five-point stencil: the opposite entry makes up for what a column's product cannot tell."""
    line = sparse.diags_array([np.ones(19), np.ones(20), np.ones(19)], offsets=[-1, 0, 1])
    stencil = sparse.csr_array(sparse.kronsum(line, line) != 0)
    assert color_symmetric(stencil).n_columns < color_matrix(stencil).n_columns
