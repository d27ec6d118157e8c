"""Spaces of PyTorch modules."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from pyg_nas_np.spaces import BuiltModuleSpace, ModuleSpace, ParameterSpace, modules
from pyg_nas_np.spaces.modules import traced
from pyg_nas_np.spaces.testing import SpaceTestCase
from pyg_nas_np.utils import InvalidArchitectureError

INPUT = torch.empty(1, 8)


def build(width: int, depth: int, activation: str = "relu") -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(8, width)]
    for _ in range(depth):
        layers += [nn.ReLU() if activation == "relu" else nn.GELU(), nn.Linear(width, width)]
    return nn.Sequential(*layers)


PARAMETERS = {"width": [4, 8, 16, 32], "depth": [1, 2, 3, 4], "activation": ["relu", "gelu"]}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYG_NAS_NP_CACHE", str(tmp_path))
    return tmp_path


class TestPoolOfModules(SpaceTestCase):
    symmetric = False

    def make_space(self):
        return ModuleSpace([build(width, depth) for width in (4, 8, 16) for depth in range(1, 6)], INPUT)


class TestBuiltModules(SpaceTestCase):
    def make_space(self):
        return BuiltModuleSpace(build, PARAMETERS, INPUT)


def test_functions_that_make_modules_are_candidates():
    space = ModuleSpace([build(4, 1), functools.partial(build, 4, 1), lambda: build(1 << 20, 1)], INPUT)
    assert space[0] == space[1]
    assert space.costs()["num_parameters"][2] > 1 << 40
    assert list(space.costs()) == ["num_parameters", "flops"]


def test_a_declared_space_and_costs():
    declared = ParameterSpace(PARAMETERS, name="mlp")
    space = ModuleSpace.built(build, declared, INPUT)
    config = {"width": 8, "depth": 2, "activation": "gelu"}
    arch = space.check(config)
    assert space.name == "mlp"
    assert space.records([arch]) == [config]
    costs = space.costs([arch])
    assert costs["num_parameters"].tolist() == [3 * 72.0]
    assert costs["flops"].tolist() == [3 * 64.0]
    assert space.operation_graphs([arch]).of_kind("activation").sum() == 2


def test_traces_are_kept_on_disk(cache, monkeypatch):
    first = traced(build(4, 2), INPUT)
    files = list(cache.rglob("*.json"))
    assert len(files) == 1
    calls = []
    monkeypatch.setattr(modules, "trace", lambda *args: calls.append(args) or first)
    assert traced(build(4, 2), INPUT) == first
    assert calls == []
    # Another width, depth, activation, input: each is traced.
    for module, example in (
        (build(8, 2), INPUT), (build(4, 3), INPUT), (build(4, 2, "gelu"), INPUT), (build(4, 2), torch.empty(3, 8)),
    ):  # fmt: skip
        traced(module, example)
    assert len(calls) == 4
    traced(build(4, 2), INPUT, cache=False)
    assert len(calls) == 5


def test_a_damaged_file_is_written_again(cache):
    first = traced(build(4, 2), INPUT)
    path = next(cache.rglob("*.json"))
    for damage in (b"", b"\xff\x00", b'{"graph": 3}'):
        path.write_bytes(damage)
        assert traced(build(4, 2), INPUT) == first
    assert path.read_text() == first.to_json()


class Scaled(nn.Module):
    """Has a setting that no parameter and no text of a layer tells."""

    def __init__(self, times, extra=None):
        super().__init__()
        self.times, self.extra = times, extra

    def forward(self, x):
        for _ in range(self.times):
            x = torch.relu(x)
        return x


def test_settings_that_are_not_told_are_not_kept(cache):
    assert len(traced(Scaled(2), INPUT).graph.nodes) == 4
    assert len(traced(Scaled(3), INPUT).graph.nodes) == 5
    count = len(list(cache.rglob("*.json")))
    traced(Scaled(3, extra=object()), INPUT)
    hooked = Scaled(2)
    hooked.register_forward_hook(lambda module, args, out: out + 1)
    traced(hooked, INPUT)
    assert len(list(cache.rglob("*.json"))) == count


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(3, 3), "module 1: Linear cannot be traced .* check that example_inputs"),
        ("resnet50", "module 1: a str is neither"),
        (lambda: 3, "module 1: <lambda> returned a int"),
        (functools.partial(build, "wide", 1), r"module 1: build\(\) failed on the meta device"),
    ],
)
def test_what_cannot_be_built_or_traced_is_named(module, message):
    with pytest.raises(InvalidArchitectureError, match=message):
        ModuleSpace([build(4, 1), module], INPUT)


def test_a_configuration_that_fails_is_named():
    space = BuiltModuleSpace(build, {"width": [8], "depth": [1], "typo": [1]}, INPUT)
    with pytest.raises(InvalidArchitectureError, match=r"configuration .*'typo': 1.*unexpected keyword"):
        space.costs([{"width": 8, "depth": 1, "typo": 1}])


def test_few_networks_are_built_to_scale_features():
    space = BuiltModuleSpace(build, {**PARAMETERS, "width": list(range(1, 200))}, INPUT)
    first, again = (space.reference(4096, torch.Generator().manual_seed(0)) for _ in range(2))
    assert len(first) <= modules.NUM_REFERENCE
    assert first == again
