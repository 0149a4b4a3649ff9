"""Strict helpers: what they return, and that they refuse what Python would let through."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from funcgrad import util


@given(st.lists(st.integers(-(10**9), 10**9), max_size=8))
def test_prod_is_exact(values):
    assert util.prod(np.array(values, dtype=np.int64)) == math.prod(values)


@pytest.mark.parametrize("ndim", range(4))
def test_canonicalize_axis_is_numpys(ndim):
    for axis in range(-ndim - 2, ndim + 2):
        try:
            np.expand_dims(np.moveaxis(np.empty((1,) * ndim), axis, 0), 0)
        except np.exceptions.AxisError:
            with pytest.raises(np.exceptions.AxisError, match=f"axes {axis} is out of bounds"):
                util.canonicalize_axis(axis, ndim, "axes")
        else:
            assert util.canonicalize_axis(np.int8(axis), ndim) == axis % ndim


ERRORS = {
    "axis type": (lambda: util.canonicalize_axis(1.0, 2), TypeError, "axis must be an integer, found 1.0"),
    "axis of scalar": (lambda: util.canonicalize_axis(0, 0), np.exceptions.AxisError, "0-dimensional"),
    "axes twice": (lambda: util.canonicalize_axes((0, -2), 2), ValueError, "names the same axis twice"),
    "axes type": (lambda: util.canonicalize_axes("x", 2), TypeError, "must be an integer"),
    "prod of floats": (lambda: util.prod([1.5]), TypeError, "integer"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, kind, words = ERRORS[name]
    with pytest.raises(kind, match=words):
        call()


def test_canonicalize_axes_sorts_on_request():
    assert util.canonicalize_axes([-1, 0], 3) == (2, 0)
    assert util.canonicalize_axes([-1, 0], 3, sort=True) == (0, 2)
    assert util.canonicalize_axes(None, 0) == ()
