"""Sample pytrees, made of all kinds of containers."""

from __future__ import annotations

from collections import OrderedDict, defaultdict

from tests.tree_classes import Config, Keyed, Layer, Method, Plain, Point

SAMPLES = {
    "leaf": 1,
    "none": None,
    "empty tuple": (),
    "empty dict": {},
    "list": [1, 2, 3],
    "nested": {"b": [1, (2, None)], "a": {"x": 3}},
    "single": ((1,),),
    "int keys": {3: 1, 1: 2, -2: 3},
    "tuple keys": {(1, "a"): 1, (0, "b"): 2},
    "none inside": [None, 1, None, (None,)],
    "ordered": OrderedDict([("z", 1), ("a", [2])]),
    "default": defaultdict(list, {"b": 1, "a": (2, 3)}),
    "named tuple": Point(1, {"q": Point(2, None)}),
    "plain": Plain(1, [2, 3]),
    "keyed": [Keyed({"k": 1}, 2, "other")],
    "method": {"m": Method((1, 2), 3)},
    "dataclass": Layer([1, 2], None, "relu"),
    "static": (Config(3), 1),
    "mixed": {"layers": [Layer(1, 2), Layer(3, 4)], "head": Plain(Point(5, 6), Config(1)), "step": 7},
    "string leaves": ["a", {"b": "c"}],
}
