from __future__ import annotations

import gc
import weakref

import pytest

from pyg_nas_np.spaces import (
    Float,
    MobileNetV3Space,
    NASBench101Space,
    NASBench201Space,
    NASBenchGraphSpace,
    ParameterSpace,
)
from pyg_nas_np.spaces.registry import SPACES, declared_space, shared_space, space_by_name
from pyg_nas_np.utils import InvalidSpaceError


def test_spaces_have_their_names():
    assert list(SPACES.values()) == [NASBench201Space, NASBench101Space, NASBenchGraphSpace, MobileNetV3Space]
    assert list(SPACES) == ["nasbench201", "nasbench101", "nasbenchgraph", "mobilenetv3"]


@pytest.mark.parametrize("name", SPACES)
def test_one_object_a_name(name):
    space = space_by_name(name)
    assert type(space) is SPACES[name]
    assert space.name == name
    assert space_by_name(name) is space


def test_hyphens_do_not_matter():
    assert space_by_name("nasbench-graph") is space_by_name("nasbenchgraph")
    assert space_by_name("nasbench-201") is space_by_name("nasbench201")


def test_unknown_names():
    with pytest.raises(ValueError, match="no search space is called 'darts'; there are nasbench201, nasbench101"):
        space_by_name("darts")


def test_a_shared_space_lives_as_long_as_it_is_used():
    space = space_by_name("nasbenchgraph")
    assert space_by_name("NAS-Bench-Graph") is space
    gone = weakref.ref(space)
    space.keep(type(space).batch_flops)
    del space
    gc.collect()
    assert gone() is None


def test_arguments_tell_spaces_apart():
    assert shared_space(NASBench201Space, dataset="cifar10") is space_by_name("nasbench201")
    assert shared_space(NASBench201Space, dataset="cifar100") is not space_by_name("nasbench201")
    with pytest.raises(ValueError, match="dataset must be one of"):
        shared_space(NASBench201Space, dataset="mnist")


def test_declarations_lead_back_with_costs_and_pool():
    space = ParameterSpace(
        {"width": Float(1.0, 64.0, log=True)}, costs={"latency": "ms"}, pool=[{"width": 2.0, "ms": 3.5}, {"width": 4.0}]
    )
    again = declared_space(space.declaration())
    assert (again.parameters, again.name, again.pool) == (space.parameters, space.name, space.pool)
    assert again.costs(again.pool)["latency"].tolist()[0] == 3.5
    assert ParameterSpace({"width": [1, 2]}, costs={"n": lambda arch: arch["width"]}).declaration() is None
    assert space_by_name("nasbench201").declaration() is None


@pytest.mark.parametrize(
    "wrong", [{}, {"kind": "Path"}, {"kind": "ParameterSpace", "space": {}, "costs": 3, "pool": []}]
)
def test_wrong_declarations(wrong):
    with pytest.raises(InvalidSpaceError):
        declared_space(wrong)
