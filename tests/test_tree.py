"""Pytrees: round trips over all kinds of containers, structures as cache keys, paths, prefixes, errors."""

from __future__ import annotations

import copy
import functools
import pickle
from collections import OrderedDict, defaultdict, deque

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from funcgrad import lax, tree, tree_util
from funcgrad.tree_specialize import LEAF_TYPES, MAX_NODES, specialize
from tests.tree_classes import Config, Keyed, Layer, Method, Plain, Point, register_in
from tests.tree_samples import SAMPLES

register_in(tree_util)

each_sample = pytest.mark.parametrize("name", SAMPLES)
scalars = st.one_of(st.integers(), st.none(), st.floats(allow_nan=False))
trees = st.recursive(
    scalars,
    lambda kids: st.one_of(
        st.lists(kids, max_size=3),
        st.lists(kids, max_size=3).map(tuple),
        st.dictionaries(st.text("abc", max_size=2), kids, max_size=3),
        st.tuples(kids, kids).map(lambda p: Point(*p)),
        st.tuples(kids, kids).map(lambda p: Layer(*p)),
    ),
    max_leaves=12,
)


def naive_leaves(t):
    """An independent walk, by the definition."""
    if t is None or isinstance(t, Config):
        return []
    if isinstance(t, OrderedDict):
        return [x for v in t.values() for x in naive_leaves(v)]
    if isinstance(t, dict):
        return [x for k in sorted(t) for x in naive_leaves(t[k])]
    if isinstance(t, (list, tuple)):
        return [x for v in t for x in naive_leaves(v)]
    if isinstance(t, Layer):
        return naive_leaves([t.weight, t.bias])
    if isinstance(t, Plain):
        return naive_leaves([t.a, t.b])
    return [t]


# ---- flatten and unflatten


@each_sample
def test_round_trip(name):
    sample = SAMPLES[name]
    leaves, treedef = tree.flatten(sample)
    assert leaves == naive_leaves(sample)
    again = tree.unflatten(treedef, leaves)
    assert again == sample and type(again) is type(sample)
    assert treedef.num_leaves == len(leaves)


@given(trees)
def test_round_trip_of_random_trees(t):
    leaves, treedef = tree.flatten(t)
    assert leaves == naive_leaves(t)
    assert tree.unflatten(treedef, leaves) == t
    assert tree.map(lambda x: x, t) == t
    assert [x for _, x in tree.leaves_with_path(t)] == leaves


def test_structures_are_equal_and_hash_alike_exactly_where_the_trees_have_one_shape():
    defs = {name: tree.structure(sample) for name, sample in SAMPLES.items()}
    for name, sample in SAMPLES.items():
        other = tree.structure(tree.map(lambda x: "other leaf", copy.deepcopy(sample)))
        assert other == defs[name] and hash(other) == hash(defs[name])
        assert [n for n in defs if defs[n] == other] == [name]


def test_children_structures_equal_fresh_ones():
    """A structure below a registered class must hit the same cache entry as one made on its own."""
    inner = tree.structure((Plain(1, 2), [3])).children()[1]
    assert inner == tree.structure([3]) and hash(inner) == hash(tree.structure([3]))
    outer = tree.structure((Plain(1, 2), [3]))
    joined = tree.tuple_def([tree.structure(Plain(1, 2)), tree.structure([3])])
    assert joined == outer and hash(joined) == hash(outer)


def test_dict_order_does_not_matter_but_ordered_dict_order_does():
    assert tree.structure({"a": 1, "b": 2}) == tree.structure({"b": 1, "a": 2})
    assert list(tree.map(lambda x: x, {"b": 1, "a": 2})) == ["b", "a"]
    assert tree.structure(OrderedDict(a=1, b=2)) != tree.structure(OrderedDict(b=1, a=2))
    assert tree.structure(defaultdict(int, a=1)) != tree.structure(defaultdict(list, a=1))


def test_subclasses_and_unregistered_classes_are_leaves():
    class MyDict(dict):
        pass

    for leaf in (MyDict(a=1), object(), {1, 2}, "text", np.ones(3), range(3)):
        assert tree.leaves([leaf])[0] is leaf


def test_deque_is_a_sequence():
    assert tree.map(str, deque([1, 2], maxlen=3)) == deque(["1", "2"], maxlen=3)


def test_is_leaf_stops_the_walk():
    sample = {"a": [1, 2], "b": None, "c": (3,)}
    assert tree.leaves(sample, is_leaf=lambda x: x is None) == [1, 2, None, 3]
    assert tree.leaves(sample, is_leaf=lambda x: isinstance(x, list)) == [[1, 2], 3]
    assert tree.map(lambda x: 0, sample, is_leaf=lambda x: x is None) == {"a": [0, 0], "b": 0, "c": (0,)}
    assert [tree.keystr(p) for p, _ in tree.leaves_with_path(sample, is_leaf=lambda x: x is None)] == [
        "['a'][0]",
        "['a'][1]",
        "['b']",
        "['c'][0]",
    ]


def test_structures_pickle():
    treedef = tree.structure({"a": [1, (2, None)]})
    assert pickle.loads(pickle.dumps(treedef)) == treedef


# ---- static data


@pytest.mark.parametrize(
    "aux",
    [
        [1, 2],
        {"a": np.arange(3)},
        np.array([1.0, np.nan]),
        (1, [np.eye(2)]),
        {1, 2},
        np.array(["a", None], dtype=object),
    ],
    ids=lambda aux: type(aux).__name__,
)
def test_unhashable_static_data(aux):
    one, two = (tree.structure(Plain(1, 2, a)) for a in (aux, copy.deepcopy(aux)))
    assert one == two and hash(one) == hash(two)
    assert one != tree.structure(Plain(1, 2, ["something else"]))
    assert tree.map(lambda x: x, Plain(1, 2, aux)).name is aux


def test_mutated_static_data_is_another_structure():
    obj = Plain(1, 2, {"mode": "train"})
    before = tree.structure(obj)
    obj.name["mode"] = "test"
    assert tree.structure(obj) != before


def test_static_fields_are_part_of_the_structure():
    assert tree.structure(Layer(1, 2, "relu")) != tree.structure(Layer(1, 2, "tanh"))
    assert tree.leaves(Config(2)) == [] and tree.structure(Config(2)) != tree.structure(Config(3))


# ---- paths

PATHS = {
    "leaf": [""],
    "list": ["[0]", "[1]", "[2]"],
    "nested": ["['a']['x']", "['b'][0]", "['b'][1][0]"],
    "int keys": ["[-2]", "[1]", "[3]"],
    "ordered": ["['z']", "['a'][0]"],
    "named tuple": [".x", ".y['q'].x"],
    "plain": ["[<flat index 0>]", "[<flat index 1>][0]", "[<flat index 1>][1]"],
    "keyed": ["[0].a['k']", "[0]['b']"],
    "dataclass": [".weight[0]", ".weight[1]"],
    "none": [],
}


@pytest.mark.parametrize("name", PATHS)
def test_paths(name):
    paths, treedef = tree.flatten_with_path(SAMPLES[name])
    assert [tree.keystr(p) for p, _ in paths] == PATHS[name] == tree.leaf_paths(treedef)
    assert [x for _, x in paths] == tree.leaves(SAMPLES[name])


def test_keystr_simple():
    ((path, _),) = tree.leaves_with_path({"a": [Point(0, None)]})
    assert tree.keystr(path, simple=True, separator="/") == "a/0/x"
    assert path == (tree.DictKey("a"), tree.SequenceKey(0), tree.GetAttrKey("x"))
    assert len({path, path}) == 1


def test_map_with_path():
    assert tree.map_with_path(lambda p, x, y: (tree.keystr(p), x + y), [1, {"a": 2}], [10, {"a": 20}]) == [
        ("[0]", 11),
        {"a": ("[1]['a']", 22)},
    ]


# ---- map, reduce, all, transpose


def test_map_takes_subtrees_of_the_rest():
    assert tree.map(lambda x, y: (x, y), [1, 2], [{"a": 3}, None]) == [(1, {"a": 3}), (2, None)]


def test_reduce_and_all():
    assert tree.reduce(lambda a, b: a + b, SAMPLES["mixed"]) == 28
    assert tree.reduce(lambda a, b: a + b, None, 5) == 5
    assert tree.all({"a": 1, "b": [True]}) and not tree.all([1, (0,)]) and tree.all(None)


def test_transpose():
    sample = {"a": [1, 2], "b": [3, 4]}
    outer, inner = tree.structure({"a": 0, "b": 0}), tree.structure([0, 0])
    assert tree.transpose(outer, inner, sample) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    assert tree.transpose(outer, None, sample) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    assert tree.transpose(inner, outer, tree.transpose(outer, inner, sample)) == sample


def test_all_leaves():
    assert tree.all_leaves([1, "a", np.ones(2)])
    assert not tree.all_leaves([1, None]) and not tree.all_leaves([()])
    assert tree.all_leaves([1, None], is_leaf=lambda x: x is None)


# ---- prefixes

PREFIXES = {
    "one leaf for all": (0, {"a": [1, 2], "b": 3}, [0, 0, 0]),
    "same tree": ({"a": 1, "b": (2, 3)}, {"a": 0, "b": (0, 0)}, [1, 2, 3]),
    "part of the way": ({"a": 1, "b": (2, 3)}, {"a": [0, 0], "b": ({"x": 0}, None)}, [1, 1, 2]),
    "none is a leaf": ([None, 1], [(0, 0), 0], [None, None, 1]),
    "dataclass": (Layer(1, 2), Layer([0, 0], 0), [1, 1, 2]),
    "empty": ((), (), []),
}


@pytest.mark.parametrize("name", PREFIXES)
def test_broadcast_prefix(name):
    prefix, full, expected = PREFIXES[name]
    assert tree.broadcast_prefix(prefix, full, lambda x: x is None) == expected
    assert tree.broadcast_prefix_to(prefix, tree.structure(full), lambda x: x is None) == expected


def test_broadcast():
    assert tree.broadcast({"a": 1, "b": 2}, {"a": [0, 0], "b": None}) == {"a": [1, 1], "b": None}


# ---- errors


class Bad:
    """Registered with a flatten function that returns no pair."""


tree.register_pytree_node(Bad, lambda b: 5, lambda aux, c: Bad())


class NoMethods:
    """Has none of the methods that registration needs."""


two = tree.structure({"a": 1, "b": 2})
ERRORS = {
    "too few leaves": (lambda: tree.unflatten(two, [1]), ValueError, "Too few leaves .* expected: 2, got: 1"),
    "too many leaves": (lambda: tree.unflatten(two, [1, 2, 3]), ValueError, "Too many leaves .* expected: 2"),
    "map, other type": (
        lambda: tree.map(max, {"a": [1, (2, 3)]}, {"a": [1, [2, 3]]}),
        ValueError,
        r"tree number 2 has not .* at \['a'\]\[1\]: expected a tuple of length 2, found a list of length 2",
    ),
    "map, third tree": (
        lambda: tree.map(max, [1, (2,)], [1, (2,)], [1, (2, 3)]),
        ValueError,
        r"tree number 3 has not .* at \[1\]: expected a tuple of length 1, found a tuple of length 2",
    ),
    "map, keys": (
        lambda: tree.map(max, {"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "z": 2}}),
        ValueError,
        r"at \['a'\]: expected a dict with keys \['x', 'y'\], found keys \['x', 'z'\] "
        r"\(missing \['y'\], unexpected \['z'\]\)",
    ),
    "map, leaf for a container": (
        lambda: tree.map(max, [[1]], [1]),
        ValueError,
        r"at \[0\]: expected a list of length 1, found a leaf of type int",
    ),
    "map, none": (
        lambda: tree.map(max, {"a": None}, {"a": 1}),
        ValueError,
        r"at \['a'\]: expected None, found a leaf of type int",
    ),
    "map, value for none": (
        lambda: tree.map(max, ((),), (None,)),
        ValueError,
        r"at \[0\]: expected a tuple of length 0, found None",
    ),
    "map, static data": (
        lambda: tree.map(max, [Layer(1, 2, "relu")], [Layer(1, 2, "tanh")]),
        ValueError,
        r"at \[0\]: two Layer nodes carry different static data: .*relu.*tanh",
    ),
    "map, at the top": (lambda: tree.map(max, [1], (1,)), ValueError, "at the top: expected a list"),
    "prefix": (
        lambda: tree.broadcast_prefix((0, {"w": 0}), (1, {"v": 1}), what="in_axes", of="the arguments"),
        ValueError,
        r"in_axes must be a prefix of the tree structure of the arguments; at \[1\]: expected a "
        r"dict with keys \['w'\], found keys \['v'\]",
    ),
    "prefix of a structure": (
        lambda: tree.broadcast_prefix_to([0, 1], tree.structure([0]), what="out_axes", of="the result"),
        ValueError,
        "out_axes .* of the result; at the top: expected a list of length 2, found a list of",
    ),
    "flatten_up_to": (
        lambda: tree.flatten_up_to(two, {"a": 1}, "the cotangent"),
        ValueError,
        r"the cotangent has not the expected structure: at the top: .*\(missing \['b'\]\)",
    ),
    "reduce of nothing": (lambda: tree.reduce(max, []), TypeError, "no leaves; give an initializer"),
    "transpose, mismatch": (
        lambda: tree.transpose(two, tree.structure([0]), {"a": [1], "b": (2,)}),
        TypeError,
        r"at \['b'\]: expected a list of length 1, found a tuple of length 1",
    ),
    "transpose, empty": (
        lambda: tree.transpose(two, tree.structure([]), {"a": [], "b": []}),
        TypeError,
        "must have leaves",
    ),
    "flatten gives no pair": (lambda: tree.leaves([Bad()]), TypeError, "registered for Bad must return a pair"),
    "registered twice": (
        lambda: tree.register_pytree_node(Plain, lambda p: ((), None), lambda a, c: None),
        ValueError,
        "tree_classes.Plain is already a pytree class",
    ),
    "builtin": (
        lambda: tree.register_pytree_node(dict, lambda p: ((), None), lambda a, c: None),
        ValueError,
        "builtins.dict is already",
    ),
    "no class": (lambda: tree.register_static(3), TypeError, "expected a class, found 3"),
    "no methods": (
        lambda: tree.register_pytree_node_class(NoMethods),
        TypeError,
        "NoMethods lacks tree_flatten and tree_unflatten",
    ),
    "no keys method": (
        lambda: tree.register_pytree_with_keys_class(NoMethods),
        TypeError,
        "lacks tree_flatten_with_keys and",
    ),
    "no dataclass": (lambda: tree.register_dataclass(NoMethods), TypeError, "NoMethods is no dataclass"),
    "half of the fields": (lambda: tree.register_dataclass(Layer, ["weight"]), TypeError, "give both"),
    "fields missing": (
        lambda: tree.register_dataclass(Layer, ["weight", "bais"], []),
        ValueError,
        r"does not mention \['activation', 'bias'\] and names unknown \['bais'\]",
    ),
    "fields twice": (lambda: tree.register_dataclass(Layer, ["weight"], ["weight"]), ValueError, "both data and meta"),
    "fields as a string": (
        lambda: tree.register_dataclass(Layer, "weight", []),
        TypeError,
        r"found the string 'weight'; write \['weight'\]",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, kind, words = ERRORS[name]
    with pytest.raises(kind, match=words):
        call()


def test_describe_difference_names_the_value():
    text = tree.describe_difference(tree.structure({"h": (1, 2)}), tree.structure({"h": (1, [2])}), "carry")
    assert text == "at carry['h'][1]: expected a leaf, found a list of length 1"


# ---- tree_util


def test_partial_is_a_pytree():
    def f(a, b, scale=1):
        return (a + b) * scale

    p = tree_util.Partial(f, 1, scale=3)
    assert tree.leaves(p) == [1, 3] and p(2) == 9
    doubled = tree.map(lambda x: 2 * x, p)
    assert type(doubled) is tree_util.Partial and doubled(2) == 24
    assert tree.structure(p) == tree.structure(tree_util.Partial(f, 5, scale=6))
    assert [tree.keystr(path) for path, _ in tree.leaves_with_path(p)] == [".args[0]", ".keywords['scale']"]


def test_partial_of_partial():
    inner = functools.partial(max, 5)
    assert tree.leaves(tree_util.Partial(inner, 1)) == [1] and tree_util.Partial(inner, 1)(7) == 7
    assert tree.structure(tree_util.Partial(inner, 1)) == tree.structure(
        tree_util.Partial(functools.partial(max, 5), 1)
    )
    assert tree.leaves(tree_util.Partial(tree_util.Partial(max, 5), 1)) == [5, 1]


def test_treedef_functions():
    treedef = tree_util.tree_structure((1, [2, None]))
    assert tree_util.treedef_children(treedef) == [tree.structure(1), tree.structure([2, None])]
    assert tree_util.treedef_tuple(tree_util.treedef_children(treedef)) == treedef
    assert tree_util.treedef_is_leaf(tree.structure(1)) and not tree_util.treedef_is_leaf(treedef)
    assert tree_util.build_tree(treedef, (5, [6, None])) == (5, [6, None])


def test_registration_with_own_flatten_and_named_tuple():
    """``tree_flatten`` is preferred where no keys are asked for; a named tuple may be registered."""

    @tree.register_pytree_with_keys_class
    class Both:
        def tree_flatten(self):
            return (1,), "fast"

        def tree_flatten_with_keys(self):
            return ((tree.GetAttrKey("one"), 1),), "fast"

        @classmethod
        def tree_unflatten(cls, aux, children):
            return cls()

    assert tree.leaves(Both()) == [1] and tree.keystr(tree.leaves_with_path(Both())[0][0]) == ".one"

    class Half(Point):
        pass

    tree.register_pytree_node(Half, lambda h: ((h.x,), h.y), lambda y, c: Half(c[0], y))
    assert tree.leaves([Half(1, 2), Point(3, 4)]) == [1, 3, 4]
    assert tree.map(str, Half(1, 2)) == Half("1", 2)


def test_dropped_fields_take_their_defaults():
    import dataclasses

    @dataclasses.dataclass
    class Cached:
        x: int
        cache: int = 0

    tree.register_dataclass(Cached, ["x"], [], drop_fields=["cache"])
    assert tree.leaves(Cached(1, 2)) == [1] and tree.map(str, Cached(1, 2)) == Cached("1", 0)


# ---- specialised flattening


@each_sample
def test_specialized_round_trip(name):
    sample = SAMPLES[name]
    leaves, treedef = tree.flatten(sample)
    fast = specialize(treedef, LEAF_TYPES | {str})
    if name == "default":
        assert fast is None
        return
    assert fast.flatten(copy.deepcopy(sample)) == leaves
    again = fast.unflatten(leaves)
    assert again == sample and tree.structure(again) == treedef


def test_specialized_refuses_every_other_structure():
    for name, sample in SAMPLES.items():
        fast = specialize(tree.structure(sample), LEAF_TYPES | {str})
        for other_name, other in SAMPLES.items():
            if fast is not None and other_name != name:
                assert fast.flatten(other) is None, (name, other_name, fast.source)


@given(trees, trees)
def test_specialized_agrees_with_the_general_walk(t, other):
    leaves, treedef = tree.flatten(t)
    fast = specialize(treedef)
    assert fast.flatten(t) == leaves and fast.unflatten(leaves) == t
    assert fast.flatten(other) == (tree.leaves(other) if tree.structure(other) == treedef else None)


NOT_SURELY = {
    "container for a leaf": ([1], [[1]]),
    "registered class for a leaf": ([1], [Plain(1, 2)]),
    "unknown type": ([1], [object()]),
    "none for a leaf": ([1], [None]),
    "leaf for none": ([None], [1]),
    "longer": ([1], [1, 2]),
    "shorter": ((1, 2), (1,)),
    "other key": ({"a": 1}, {"b": 1}),
    "another key": ({"a": 1}, {"a": 1, "b": 1}),
    "subclass": ({"a": 1}, OrderedDict(a=1)),
    "order": (OrderedDict(a=1, b=2), OrderedDict(b=1, a=2)),
    "static data": (Layer(1, 2, "a"), Layer(1, 2, "b")),
    "unhashable static data": (Plain(1, 2, [1]), Plain(1, 2, [2])),
    "class": (Plain(1, 2), Keyed(1, 2)),
    "method class": (Method(1, 2), Method(1, [2])),
}


@pytest.mark.parametrize("name", NOT_SURELY)
def test_specialized_is_strict(name):
    seen, other = NOT_SURELY[name]
    fast = specialize(tree.structure(seen))
    assert fast.flatten(seen) == tree.leaves(seen)
    assert fast.flatten(other) is None


def test_specialize_gives_up_on_what_is_too_big_or_deep():
    assert specialize(tree.structure([0] * (MAX_NODES + 1))) is None
    deep = 0
    for _ in range(100):
        deep = [deep]
    assert specialize(tree.structure(deep)) is None


def test_leaves_of_a_structure_are_of_no_type() -> None:
    """The branch returns a float: of that the structure knows nothing, so no type is named."""
    with pytest.raises(TypeError, match=r"expected a tuple of length 1, found a leaf$"):
        lax.cond(True, lambda: (1.0,), lambda: 2.0)
