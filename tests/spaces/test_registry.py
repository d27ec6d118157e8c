from __future__ import annotations

import gc
import weakref

import pytest

from pyg_nas_np.spaces import MobileNetV3Space, NASBench101Space, NASBench201Space, NASBenchGraphSpace
from pyg_nas_np.spaces.registry import SPACES, shared_space, space_by_name


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
