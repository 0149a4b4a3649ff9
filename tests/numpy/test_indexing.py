"""Indexing, functional updates and in-place writes of tracers against NumPy."""
# ruff: noqa: E501  (a row of a table is one line)

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import funcgrad as fg
import funcgrad.numpy as jnp
from funcgrad.core.avals import aval_of
from funcgrad.core.jaxpr import eval_jaxpr
from funcgrad.core.staging import stage
from funcgrad.errors import TracerArrayError, TracerIndexError, TracerIntegerError, ViewWriteError


def staged(fun: Callable[..., Any], *args: Any) -> Any:
    closed = stage(lambda *xs: [fun(*xs)], [aval_of(x) for x in args])
    return eval_jaxpr(closed.jaxpr, closed.consts, *args)[0]


def array(*shape: int) -> Any:
    return np.asarray(np.arange(np.prod(shape), dtype=np.float64).reshape(shape) + 0.5)


# random indices -------------------------------------------------------------------------------------------------

SLICES = st.builds(
    slice,
    st.none() | st.integers(-6, 6),
    st.none() | st.integers(-6, 6),
    st.none() | st.integers(-3, 3).filter(bool),
)


@st.composite
def indices(draw: Any) -> tuple[tuple[int, ...], Any]:
    """A shape, and an index that fits it: integers, slices, None, Ellipsis, integer arrays and boolean masks."""
    shape = tuple(draw(st.lists(st.integers(0, 4), min_size=0, max_size=4)))
    common = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    entries: list[Any] = []
    axis = 0
    while axis < len(shape):
        n = shape[axis]
        kind = draw(st.sampled_from(["slice", "slice", "int", "array", "mask", "none", "stop"]))
        if kind == "stop":
            break
        if kind == "none":
            entries.append(None)
            continue
        if kind == "mask":
            entries.append(np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool))
            if common and entries[-1].sum() not in (1, common[-1]):
                entries.pop()
                entries.append(slice(None))
        elif kind == "array" and n:
            size = int(np.prod(common))
            values = draw(st.lists(st.integers(-n, n - 1), min_size=size, max_size=size))
            entries.append(np.array(values, np.int64).reshape(common))
        elif kind == "int" and n:
            entries.append(draw(st.integers(-n, n - 1)))
        else:
            entries.append(draw(SLICES))
        axis += 1
    if axis == len(shape) or draw(st.booleans()):
        entries.insert(draw(st.integers(0, len(entries))), Ellipsis)
        if axis < len(shape) and entries[-1] is not Ellipsis:  # an ellipsis in front moves the others to later axes
            entries = [e for e in entries if e is not Ellipsis]
    if len(entries) == 1 and draw(st.booleans()):
        return shape, entries[0]
    return shape, tuple(entries)


def outcome(fun: Callable[..., Any], *args: Any) -> Any:
    try:
        return fun(*args)
    except IndexError:
        return IndexError


@settings(max_examples=300)
@given(indices())
def test_read_as_numpy(case: tuple[tuple[int, ...], Any]) -> None:
    shape, index = case
    x = array(*shape)
    wanted = outcome(lambda v: v[index], x)
    found = outcome(lambda: staged(lambda v: v[index], x))
    if wanted is IndexError or found is IndexError:
        assert wanted is found
        return
    np.testing.assert_array_equal(found, wanted)
    assert np.shape(found) == np.shape(wanted)


@settings(max_examples=200)
@given(indices(), st.booleans())
def test_write_as_numpy(case: tuple[tuple[int, ...], Any], scalar: bool) -> None:
    shape, index = case
    x = array(*shape)
    if outcome(lambda v: v[index], x) is IndexError:
        return
    value = np.float64(-1.0) if scalar else -array(*np.shape(x[index]))
    wanted = x.copy()
    wanted[index] = value

    def write(v: Any) -> Any:
        v = v.copy()
        v[index] = value
        return v

    np.testing.assert_array_equal(staged(write, x), wanted)
    np.testing.assert_array_equal(fg.at(x)[index].set(value), wanted)
    added = x.copy()
    np.add.at(added, index, value)
    np.testing.assert_allclose(staged(lambda v: v.at[index].add(value), x), added)


@settings(max_examples=100)
@given(indices())
def test_traced_index_arrays(case: tuple[tuple[int, ...], Any]) -> None:
    """The same with every integer and integer array traced."""
    shape, index = case
    x = array(*shape)
    entries = index if isinstance(index, tuple) else (index,)
    if outcome(lambda v: v[index], x) is IndexError:
        return
    dynamic = [e for e in entries if isinstance(e, int) or (isinstance(e, np.ndarray) and e.dtype != bool)]

    def read(v: Any, *parts: Any) -> Any:
        rest = iter(parts)
        return v[tuple([next(rest) if any(e is d for d in dynamic) else e for e in entries])]

    args = [np.asarray(d)[()] if isinstance(d, int) else d for d in dynamic]
    np.testing.assert_array_equal(staged(read, x, *args), read(x, *args))


# rows -----------------------------------------------------------------------------------------------------------


def test_out_of_range() -> None:
    x = array(3, 2)
    for index in (3, -4, (0, 2), [0, 3], np.array([-4]), (slice(None), [2])):
        with pytest.raises(IndexError, match="out of bounds"):
            staged(lambda v, i=index: v[i], x)
    with pytest.raises(IndexError, match="too many indices"):
        staged(lambda v: v[0, 0, 0], x)
    with pytest.raises(IndexError, match="boolean index did not match"):
        staged(lambda v: v[np.array([True, False])], x)
    i = np.int64
    np.testing.assert_array_equal(staged(lambda v, k: v[k], x, i(7)), x[2])
    np.testing.assert_array_equal(staged(lambda v, k: v[k], x, i(-1)), x[2])
    np.testing.assert_array_equal(staged(lambda v, k: v[k], x, np.array([9, -1, 0])), x[[2, 2, 0]])
    np.testing.assert_array_equal(staged(lambda v, k: v.at[k].set(0), x, i(7)), x)
    np.testing.assert_array_equal(
        staged(lambda v, k: v.at[k, 0].add(1), x, np.array([5, -1]))[:, 0], x[:, 0] + [0, 0, 1]
    )


def test_at_methods() -> None:
    x = array(5)
    i = np.array([0, 2, 2])
    rows = {
        "set": (7.0, lambda y: y.__setitem__(i, 7.0)),
        "add": (2.0, lambda y: np.add.at(y, i, 2.0)),
        "subtract": (2.0, lambda y: np.subtract.at(y, i, 2.0)),
        "multiply": (3.0, lambda y: np.multiply.at(y, i, 3.0)),
        "divide": (4.0, lambda y: np.divide.at(y, i, 4.0)),
        "power": (2, lambda y: y.__setitem__(i, y[i] ** 2)),
        "min": (1.0, lambda y: np.minimum.at(y, i, 1.0)),
        "max": (1.0, lambda y: np.maximum.at(y, i, 1.0)),
        "apply": (np.exp, lambda y: y.__setitem__(i, np.exp(y[i]))),
    }
    for method, (value, change) in rows.items():
        wanted = x.copy()
        change(wanted)
        np.testing.assert_allclose(getattr(fg.at(x)[i], method)(value), wanted, err_msg=method)
        found = staged(lambda v, k, m=method, a=value: getattr(v.at[k], m)(a), x, i)
        np.testing.assert_allclose(found, wanted, err_msg=method)
        assert (x == array(5)).all()


def test_at_get_modes() -> None:
    x = array(3)
    k = np.array([-1, 5, 1])
    found = staged(lambda v, i: v.at[i].get(mode="fill"), x, k)
    np.testing.assert_array_equal(found, [2.5, np.nan, 1.5])
    found = staged(lambda v, i: v.at[i].get(mode="fill", fill_value=9), x, k)
    np.testing.assert_array_equal(found, [2.5, 9, 1.5])
    np.testing.assert_array_equal(staged(lambda v, i: v.at[i].get(mode="clip"), x, k), [2.5, 2.5, 1.5])
    assert np.isnan(staged(lambda v, i: v.at[i].get(mode="fill"), x, np.int64(4)))
    np.testing.assert_array_equal(fg.at(x)[7].get(mode="fill", fill_value=0.0), 0)
    np.testing.assert_array_equal(fg.at(x)[np.array([0, 7])].set(9, mode="drop"), [9, 1.5, 2.5])
    with pytest.raises(ValueError, match=r"mode must be one of"):
        fg.at(x)[0].get(mode="bounce")
    with pytest.raises(IndexError, match="out of bounds"):
        fg.at(x)[7].get()


def test_update_dtypes() -> None:
    ints = np.arange(3)
    np.testing.assert_array_equal(staged(lambda v: v.at[0].set(2.7), ints), [2, 1, 2])
    with pytest.raises(TypeError, match="do not go into an array of dtype int64"):
        staged(lambda v: v.at[0].add(1.5), ints)
    with pytest.raises(TypeError, match=r"take \.real first"):
        staged(lambda v: v.at[0].set(1j), array(3))
    with pytest.raises(ValueError, match="could not broadcast"):
        staged(lambda v: v.at[:2].set(np.ones(3)), array(3))
    assert staged(lambda v: v.at[0].add(1), np.ones(3, np.float32)).dtype == np.float32


def test_traced_masks() -> None:
    x, mask = array(2, 3), np.array([[True, False, True], [False, False, True]])

    def assign(v: Any, m: Any) -> Any:
        v = v.copy()
        v[m] = 0
        return v

    np.testing.assert_array_equal(staged(assign, x, mask), assign(x, mask))
    np.testing.assert_array_equal(staged(lambda v, m: v.at[m].add(1), x, mask), x + mask)
    with pytest.raises(TracerIndexError, match=r"np.where\(mask, x, 0\)"):
        staged(lambda v, m: v[m], x, mask)
    with pytest.raises(IndexError, match="takes a scalar value"):
        staged(lambda v, m: v.at[m].set(np.ones(3)), x, mask)


def test_traced_slice_bounds() -> None:
    with pytest.raises(TracerIntegerError, match=r"lax.dynamic_slice with a fixed length"):
        staged(lambda v, k: v[k:], array(3), np.int64(1))
    with pytest.raises(TracerIndexError, match=r"x\[i.astype\(int\)\]"):
        staged(lambda v, k: v[k], array(3), np.float64(1))


def test_primitives_of_basic_indexing() -> None:
    """Static indices are views, traced scalars windows; only index arrays gather."""

    def names(fun: Callable[..., Any], *args: Any) -> set[str]:
        return {e.primitive.name for e in fg.make_jaxpr(fun)(*args).eqns}

    x = array(4, 5)
    assert names(lambda v: v[1:3, ::-1][:, None, 0], x) <= {"slice", "rev", "reshape"}
    assert names(lambda v, i: v[i], x, np.int64(1)) <= {"lt", "add", "select", "dynamic_slice", "reshape"}
    assert "gather" in names(lambda v: v[[0, 2]], x)
    assert names(lambda v: v.at[1:3].set(0), x) <= {"broadcast_in_dim", "dynamic_update_slice", "reshape"}
    assert "gather" not in names(lambda v: v.at[1:3, ::2].add(1.0), x)


# in place -------------------------------------------------------------------------------------------------------


def same_as_numpy(fun: Callable[[Any], Any], x: Any) -> None:
    """A function with in-place writes, on an array and on tracers."""
    wanted = fun(x.copy())
    np.testing.assert_allclose(staged(fun, x), wanted)
    np.testing.assert_allclose(fg.jvp(fun, (x,), (np.zeros_like(x),))[0], wanted)
    np.testing.assert_allclose(fg.vmap(fun)(np.stack([x, x]))[1], wanted)
    fg.grad(lambda v: np.sum(fun(v)))(x)


def write_item(x: Any) -> Any:
    x[0] = 5.0
    x[1, 2] = x[0, 0] * 2
    return x


def write_alias(x: Any) -> Any:
    y = x
    y[0] = 1.0
    y *= 2
    return x + y


def write_copy(x: Any) -> Any:
    y = x.copy()
    y[0] = 7
    z = +x
    z += 1
    w = x.astype(x.dtype)
    w[:] = 0
    return x + y * z + w


def write_under_row(x: Any) -> Any:
    for k in range(x.shape[0]):
        row = x[k]
        x[k] = row / np.sum(row)
    return x + row


def write_under_transpose(x: Any) -> Any:
    t = x.T
    x[0] = -1
    x[1] *= 3
    return t.T * 2 + x


def write_likes(x: Any) -> Any:
    y = np.zeros_like(x)
    z = np.empty_like(x[0])
    y[1:] = x[:-1]
    z[...] = 2
    y[0] = z
    return y


def accumulate_in_array(x: Any) -> Any:
    total = np.zeros(x.shape[1])
    for row in x:
        total += row
    return total


def accumulate_scalar(x: Any) -> Any:
    total = 0.0
    for row in x:
        total += row[0]
    other = total
    total *= 2
    return total + other


def write_advanced(x: Any) -> Any:
    x[[0, 2]] += 1
    x[np.array([True, False, True, False])] *= 2
    np.add.at(x, [1, 1], 1.0)
    return x


def write_out(x: Any) -> Any:
    y = np.zeros_like(x)
    np.multiply(x, 2, out=y)
    np.sum(x, axis=0, out=y[0].copy())
    y.sort(axis=0)
    z = x * 1
    z.fill(3)
    return y + z


IN_PLACE = [write_item, write_alias, write_copy, write_under_row, write_under_transpose, write_likes,
            accumulate_in_array, accumulate_scalar, write_advanced, write_out]  # fmt: skip


@pytest.mark.parametrize("fun", IN_PLACE, ids=lambda f: f.__name__)
def test_in_place(fun: Callable[[Any], Any]) -> None:
    same_as_numpy(fun, array(4, 3))


def test_in_place_on_slices() -> None:
    def f(x: Any) -> Any:
        x[1:-1] += x[:-2] * 2
        x[:, ::2] -= 1
        x[1] /= 2
        return x

    same_as_numpy(f, array(4, 3))


def test_gradient_through_writes() -> None:
    def f(x: Any) -> Any:
        y = np.zeros_like(x)
        y[1:] = x[:-1] ** 2
        y[0] += x[-1]
        y *= x
        return np.sum(y)

    x = array(4)
    np.testing.assert_allclose(fg.grad(f)(x), [2 * x[0] * x[1] + x[3], x[0] ** 2 + 2 * x[1] * x[2], x[1] ** 2 + 2 * x[2] * x[3],
                                               x[2] ** 2 + x[0]])  # fmt: skip


def write_through(x: Any, view: Callable[[Any], Any]) -> None:
    y = view(x)
    y[0] = 5.0


@pytest.mark.parametrize(
    "view",
    [lambda x: x[1:], lambda x: x.T, lambda x: x.reshape(-1), np.ravel, lambda x: x[1], lambda x: np.swapaxes(x, 0, 1),
     lambda x: x[:, None], lambda x: np.flip(x), lambda x: x[1:][1:]],
)  # fmt: skip
def test_write_through_a_view(view: Callable[[Any], Any]) -> None:
    with pytest.raises(ViewWriteError, match=r"write through a .* of a traced array float64\[4,3\].*copy\(\)"):
        staged(lambda x: write_through(x, view), array(4, 3))


def test_write_under_a_reshape() -> None:
    def f(x: Any) -> Any:
        y = x.reshape(-1)
        x[0] = 1
        return y

    with pytest.raises(ViewWriteError, match=r"while a reshape of it is alive.*\.copy\(\)"):
        staged(f, array(4, 3))

    def g(x: Any) -> Any:
        total = x.reshape(-1).sum()
        x[0] = total
        return x

    gc.collect()
    assert staged(g, array(4, 3))[0, 0] == array(4, 3).sum()


def test_addition_to_a_view() -> None:
    """y = x[1:]; y += 1 writes to x, as in NumPy; the name y is then closed."""

    def f(x: Any) -> Any:
        y = x[1:]
        y += 1
        return x

    np.testing.assert_array_equal(staged(f, array(3)), array(3) + [0, 1, 1])

    def g(x: Any) -> Any:
        y = x[1:]
        y += 1
        return y * 2

    with pytest.raises(ViewWriteError, match=r"Write x\[1:\] \+= v and read x again"):
        staged(g, array(3))

    def h(x: Any) -> Any:
        y = x[1:]
        y += 1
        x[:2] = y
        return x

    with pytest.raises(ViewWriteError):
        staged(h, array(3))


def test_dtype_and_shape_of_in_place() -> None:
    def add(y: Any) -> Callable[[Any], Any]:
        def f(x: Any) -> Any:
            x += y
            return x

        return f

    assert staged(add(1), np.arange(3)).dtype == np.int64
    with pytest.raises(TypeError, match=r"x \+= y: the result has dtype float64"):
        staged(add(1.5), np.arange(3))
    with pytest.raises(ValueError, match=r"result has shape \(2, 3\)"):
        staged(add(np.ones((2, 3))), array(3))
    assert staged(add(np.float64(1)), np.ones(3, np.float32)).dtype == np.float32


def test_traced_values_into_arrays() -> None:
    def aliased(x: Any) -> Any:
        a = np.zeros(3)
        b = a
        a += x
        return a, b

    def viewed(x: Any) -> Any:
        a = np.zeros(3)
        b = a[1:]
        a += x
        return a, b

    def item(x: Any) -> Any:
        a = np.zeros(3)
        a[0] = x[0]
        return a

    def part(x: Any) -> Any:
        a = np.zeros(3)
        a[:2] = x[:2]
        return a

    def out(x: Any) -> Any:
        a = np.zeros(3)
        np.add(x, 1, out=a)
        return a

    for f in (aliased, viewed, out):
        for transform in (staged, lambda f, x: fg.jvp(f, (x,), (x,))):
            with pytest.raises(TracerArrayError, match="cannot hold it"):
                transform(f, array(3))
    for transform in (staged, lambda f, x: fg.jvp(f, (x,), (x,))):
        with pytest.raises((TypeError, ValueError)) as info:
            transform(item, array(3))
        assert "np.zeros_like(x)" in str(info.value) + str(info.value.__cause__)
        with pytest.raises(TypeError, match=r"np.zeros_like\(x\)"):
            transform(part, array(3))


def test_write_to_an_outer_value() -> None:
    def f(x: Any) -> Any:
        def inner(y: Any) -> Any:
            x[0] = y
            return y * 2

        return fg.grad(inner)(x[1] * 1)

    with pytest.raises(ViewWriteError, match="must not change what it did not make"):
        fg.vmap(f)(array(2, 3))


def test_arguments_keep_their_values() -> None:
    x = array(3)
    assert fg.grad(lambda v: write_zero(v))(x).tolist() == [0, 1, 1]
    np.testing.assert_array_equal(x, array(3))


def write_zero(v: Any) -> Any:
    v[0] = 0.0
    return np.sum(v)


def test_take_of_an_array_by_a_traced_index() -> None:
    table = array(3, 2)
    np.testing.assert_array_equal(staged(lambda i: jnp.take(table, i, axis=0), np.int64(1)), table[1])
    np.testing.assert_array_equal(staged(lambda i: fg.at(table)[i].get(), np.array([2, 0])), table[[2, 0]])


def test_fresh_arrays_can_be_written_under_nested_transforms() -> None:
    def f(x: Any) -> Any:
        y = np.zeros_like(x)
        y[1:3] = x[:2]
        return np.sum(y**2)

    x = np.arange(4.0)
    wanted = [0.0, 2.0, 0.0, 0.0]
    np.testing.assert_allclose(fg.jit(fg.grad(f))(x), wanted)
    np.testing.assert_allclose(fg.vmap(fg.jit(fg.grad(f)))(np.stack([x, x])), [wanted, wanted])
    np.testing.assert_allclose(fg.jit(fg.vmap(fg.grad(f)))(np.stack([x, x])), [wanted, wanted])
