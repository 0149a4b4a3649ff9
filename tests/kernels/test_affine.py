"""Walks through expressions: composing strides must visit the same elements as indexing twice."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from funcgrad.core.layout import Layout
from funcgrad.kernels.affine import Walk, compose, contiguous_strides, merge_axes


def visited(strides: tuple[int, ...], offset: int, shape: tuple[int, ...]) -> np.ndarray:
    total = np.full(shape, offset)
    for axis, s in enumerate(strides):
        total = total + s * np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return total


@st.composite
def views(draw: st.DrawFn, shape: tuple[int, ...]) -> Layout:
    layout = Layout.contiguous(shape)
    for _ in range(draw(st.integers(0, 3))):
        rank = len(layout.shape)
        kind = draw(st.sampled_from(["permute", "slice", "reverse", "broadcast", "reshape"]))
        if kind == "permute":
            layout = layout.permute(draw(st.permutations(range(rank))))
        elif kind == "slice":
            starts = [draw(st.integers(0, n - 1)) for n in layout.shape]
            steps = [draw(st.integers(1, 2)) for _ in layout.shape]
            counts = [(n - b + k - 1) // k for n, b, k in zip(layout.shape, starts, steps, strict=True)]
            layout = layout.slice(starts, counts, steps)
        elif kind == "reverse" and rank:
            layout = layout.reverse([draw(st.integers(0, rank - 1))])
        elif kind == "broadcast":
            layout = layout.broadcast((*layout.shape, 2), range(rank))
        else:
            layout = layout.reshape((layout.size,)) or layout
    return layout


@given(st.data())
def test_composition_is_indexing_twice(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(2, 4), min_size=1, max_size=3)))
    inner = data.draw(views(shape))  # the array, seen through this layout, is an expression over inner.shape
    squeezed = [a for a, n in enumerate(inner.shape) if n != 1]
    inner = Layout(tuple([inner.shape[a] for a in squeezed]), tuple([inner.strides[a] for a in squeezed]), inner.offset)
    outer = data.draw(views(inner.shape))  # ... which is itself walked like this
    outer_axes = [a for a, n in enumerate(outer.shape) if n != 1]
    domain = tuple([outer.shape[a] for a in outer_axes])
    walk = Walk(tuple([outer.strides[a] for a in outer_axes]), outer.offset)
    made = compose(walk, domain, inner.shape, inner)
    if made is None:
        assert outer.strides != contiguous_strides(inner.shape)
        return
    memory = visited(inner.strides, inner.offset, inner.shape).reshape(-1)
    np.testing.assert_array_equal(
        visited(made.strides, made.offset, domain), memory[visited(walk.strides, walk.offset, domain)]
    )


def test_views_of_contiguous_expressions_always_compose() -> None:
    shape = (3, 4)
    for view in [
        Layout.contiguous(shape).permute((1, 0)),
        Layout.contiguous(shape).reverse([0, 1]),
        Layout.contiguous(shape).slice((1, 0), (2, 2), (1, 2)),
        Layout((12,), (1,)),
        Layout((2, 6), (6, 1)),
        Layout((3, 5, 4), (4, 0, 1)),
    ]:
        assert compose(Walk(view.strides, view.offset), view.shape, shape, Layout.contiguous(shape)) is not None


def test_axes_merge_only_where_all_layouts_agree() -> None:
    shape = (2, 3, 4)
    assert merge_axes(shape, [Layout.contiguous(shape)])[0] == (24,)
    row = Layout(shape, (0, 4, 1))
    assert merge_axes(shape, [Layout.contiguous(shape), row])[0] == (2, 12)
    assert merge_axes(shape, [Layout.contiguous(shape), Layout(shape, (12, 0, 1))])[0] == shape
