"""Configurations as values, and the conditions of a level."""

from __future__ import annotations

import pickle

import pytest

from pyg_nas_np.spaces import Categorical, Configuration, Integer, Repeat
from pyg_nas_np.spaces.configuration import Level
from pyg_nas_np.utils import InvalidSpaceError


def test_configurations_are_immutable_values():
    arch = Configuration({"depth": 2, "layers": [{"k": 3}, {"k": 5}]})
    same = Configuration({"layers": ({"k": 3}, {"k": 5}), "depth": 2})
    assert arch == same == {"depth": 2, "layers": [{"k": 3}, {"k": 5}]}
    assert hash(arch) == hash(same)
    assert arch != Configuration({"depth": 2, "layers": []})
    assert arch != 3
    assert {arch: 1}[same] == 1
    assert pickle.loads(pickle.dumps(arch)) == arch
    assert arch["layers"][1]["k"] == 5
    assert "width" not in arch
    with pytest.raises(TypeError):
        arch["depth"] = 3
    arch.to_dict()["layers"].clear()
    assert len(arch["layers"]) == 2


def test_conditions_are_followed_in_any_order_of_declaration():
    level = Level({"c": Integer(0, 1, when={"b": 1}), "b": Categorical([0, 1], when={"a": "x"}), "a": ["x", "y"]})
    assert level.order.index("a") < level.order.index("b") < level.order.index("c")
    assert level.read({"a": "x", "b": 1, "c": 0}) == {"c": 0, "b": 1, "a": "x"}
    assert list(level.read({"a": "x", "b": 1, "c": 0})) == ["c", "b", "a"]
    assert sorted(map(len, level.enumerate())) == [1, 2, 3, 3]
    assert level.size == 4


def test_configurations_are_counted():
    assert Level({"a": Integer(0, 10**30)}).size == 10**30 + 1
    assert Level({"a": [1, 2], "b": Integer(0, 9, when={"a": 1}, optional=True)}).size == 12
    assert Level({"l": Repeat({"k": [3, 5, 7]}, 0, 2)}).size == 1 + 3 + 9
    assert Level({"l": Repeat({"k": [3, 5], "e": Integer(1, 2, when={"k": 3})}, 2, 2)}).size == 9
    # More combinations of parents than can be looked at.
    parents = {f"p{i}": Integer(0, 9) for i in range(8)}
    assert Level({**parents, **{f"c{i}": Integer(0, 1, when={f"p{i}": 3}) for i in range(8)}}).size is None


def test_a_layer_has_conditions_of_its_own_only():
    with pytest.raises(InvalidSpaceError, match="names 'a', which is not one of k"):
        Level({"a": [1, 2], "l": Repeat({"k": Integer(0, 1, when={"a": 1})}, 1, 2)})
