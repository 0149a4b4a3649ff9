"""The same trees through ``jax.tree_util``, where JAX is installed: leaves, paths and results are equal."""

from __future__ import annotations

import pytest

from tests.tree_classes import register_in
from tests.tree_samples import SAMPLES

jtu = pytest.importorskip("jax.tree_util", reason="JAX, the oracle here, comes with the bench extra only")

from funcgrad import tree_util  # noqa: E402

register_in(jtu)
register_in(tree_util)

each_sample = pytest.mark.parametrize("name", SAMPLES)


@each_sample
def test_leaves_and_structure(name):
    ours, theirs = tree_util.tree_flatten(SAMPLES[name]), jtu.tree_flatten(SAMPLES[name])
    assert ours[0] == theirs[0]
    assert ours[1].num_leaves == theirs[1].num_leaves and ours[1].num_nodes == theirs[1].num_nodes
    assert tree_util.treedef_is_leaf(ours[1]) == jtu.treedef_is_leaf(theirs[1])
    assert len(tree_util.treedef_children(ours[1])) == len(jtu.treedef_children(theirs[1]))


@each_sample
def test_none_as_leaf(name):
    def is_none(x):
        return x is None

    sample = SAMPLES[name]
    assert tree_util.tree_leaves(sample, is_leaf=is_none) == jtu.tree_leaves(sample, is_leaf=is_none)


@each_sample
def test_paths(name):
    ours = [(tree_util.keystr(p), x) for p, x in tree_util.tree_leaves_with_path(SAMPLES[name])]
    theirs = [(jtu.keystr(p), x) for p, x in jtu.tree_leaves_with_path(SAMPLES[name])]
    assert ours == theirs


@each_sample
def test_map_and_reduce(name):
    sample = SAMPLES[name]
    assert tree_util.tree_map(lambda x: [x, x], sample) == jtu.tree_map(lambda x: [x, x], sample)
    count = [m.tree_reduce(lambda n, x: n + 1, sample, 0) for m in (tree_util, jtu)]
    assert count[0] == count[1]
    assert tree_util.tree_all(sample) == jtu.tree_all(sample)


@each_sample
def test_structures_match_pairwise(name):
    """Two samples have equal structures here exactly where they have in JAX."""
    for other in SAMPLES:
        ours = tree_util.tree_structure(SAMPLES[name]) == tree_util.tree_structure(SAMPLES[other])
        theirs = jtu.tree_structure(SAMPLES[name]) == jtu.tree_structure(SAMPLES[other])
        assert ours == theirs, other


def test_broadcast():
    prefix, full = {"a": 1, "b": (2, 3)}, {"a": [0, 0], "b": ({"x": 0}, None)}
    assert tree_util.tree_broadcast(prefix, full) == jtu.tree_map(
        lambda p, sub: jtu.tree_map(lambda _: p, sub), prefix, full
    )


def test_transpose():
    sample = {"a": [1, 2], "b": [3, 4]}
    results = [
        m.tree_transpose(m.tree_structure({"a": 0, "b": 0}), m.tree_structure([0, 0]), sample) for m in (tree_util, jtu)
    ]
    assert results[0] == results[1]


def test_partial():
    for module in (tree_util, jtu):
        assert module.tree_leaves(module.Partial(max, 1, key=2)) == [1, 2]
