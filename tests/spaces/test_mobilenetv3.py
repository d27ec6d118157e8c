from __future__ import annotations

import csv
import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch_geometric.data import Data

from pyg_nas_np.spaces import MobileNetV3Arch, MobileNetV3Space, NASBench201Space
from pyg_nas_np.spaces.mobilenetv3 import LAYERS, RESOLUTIONS
from pyg_nas_np.utils import InvalidArchitectureError, SpaceTooLargeError

SPACE = MobileNetV3Space()
SMALLEST = "r128|" + "|".join(["k3e3-k3e3"] * 5)
LARGEST = "r224|" + "|".join(["k7e6-k7e6-k7e6-k7e6"] * 5)

archs = st.integers(0, SPACE.size - 1).map(SPACE.__getitem__)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Squeeze(nn.Module):
    def __init__(self, channels):
        super().__init__()
        inner = round_to_eight(channels // 4)
        self.down, self.up = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x):
        return x * self.up(self.down(x.mean((2, 3), keepdim=True)))


def round_to_eight(value):
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def network(arch):
    """The network itself, as a second opinion on its costs."""

    def conv(source, target, kernel=1, stride=1, groups=1):
        padding = kernel // 2
        return [
            nn.Conv2d(source, target, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(target),
        ]

    layers = [*conv(3, 16, 3, 2), *conv(16, 16, 3, groups=16), *conv(16, 16)]
    source = 16
    plan = zip(arch.stages, (24, 40, 80, 112, 160), (2, 2, 2, 1, 2), (0, 1, 0, 1, 1), strict=True)
    for stage, width, stride, squeeze in plan:
        for position, (kernel, expansion) in enumerate(stage):
            inner = source * expansion
            layers += conv(source, inner)
            layers += conv(inner, inner, kernel, stride if position == 0 else 1, groups=inner)
            layers += [Squeeze(inner)] if squeeze else []
            layers += conv(inner, width)
            source = width
    layers += [*conv(160, 960), nn.AdaptiveAvgPool2d(1), nn.Conv2d(960, 1280, 1, bias=False), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1280, 1000)).eval()


@pytest.mark.parametrize(
    "arch", [SPACE.from_str(SMALLEST), SPACE.from_str(LARGEST), *SPACE.sample(4, seeded())], ids=str
)
def test_costs_are_those_of_the_network(arch):
    macs = 0

    def count(module, inputs, output):
        nonlocal macs
        macs += module.weight[0].numel() * output.numel()

    with torch.device("meta"):
        model = network(arch)
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(count)
        model(torch.empty(1, 3, arch.resolution, arch.resolution))
    assert SPACE.num_parameters(arch) == sum(p.numel() for p in model.parameters())
    assert SPACE.flops(arch) == macs


def test_costs_are_the_measured_ones(shared_data):
    path = shared_data / "ofa_mbv3" / "dynast_ofa_mbv3_w1.0_imagenet_top1.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = [SPACE.from_str(row["arch_json"]) for row in rows]
    assert len(found) == 2223
    assert len(set(found)) == 2162
    assert SPACE.batch_num_parameters(found).tolist() == [int(row["params"]) for row in rows]
    assert SPACE.batch_flops(found).tolist() == [int(row["macs"]) for row in rows]


@given(archs)
def test_every_form_leads_back(arch):
    assert SPACE[SPACE.index(arch)] == arch
    assert SPACE.from_str(SPACE.to_str(arch)) == arch
    assert SPACE.from_dict(SPACE.to_dict(arch)) == arch
    assert SPACE.from_str(json.dumps(SPACE.to_dict(arch))) == arch
    assert arch in SPACE


@given(archs, st.randoms(use_true_random=False))
def test_decode_ignores_the_order_of_nodes(arch, random):
    data = SPACE.encode(arch)
    assert data.num_nodes == 3 + sum(arch.depths)
    assert data.edge_index.size(1) == data.num_nodes - 1
    order = list(range(data.num_nodes))
    random.shuffle(order)
    permutation = torch.tensor(order)
    shuffled = Data(x=data.x[permutation.argsort()], edge_index=permutation[data.edge_index])
    assert SPACE.decode(shuffled) == arch


def test_indices_count_up():
    numbers = [0, 1, 80, 81, 809, 810, 7370, 7371, 7371**5 - 1, 7371**5, SPACE.size - 1]
    assert [SPACE.index(SPACE[i]) for i in numbers] == numbers
    assert str(SPACE[7371**5]) == SMALLEST.replace("r128", "r132")
    assert str(SPACE[SPACE.size - 1]) == LARGEST
    assert [arch.depths[-1] for arch in itertools.islice(SPACE.enumerate(), 82)] == [2] * 81 + [3]
    for wrong in (-1, SPACE.size):
        with pytest.raises(IndexError, match="outside the 543966387314312146275 architectures of mobilenetv3"):
            SPACE[wrong]


def test_what_needs_all_architectures_says_so():
    for call in (
        lambda: len(SPACE),
        SPACE.dense,
        SPACE.batch_flops,
        SPACE.batch_canonical,
        lambda: SPACE.resolve(None),
    ):
        with pytest.raises(SpaceTooLargeError, match=r"5\.4e\+20 architectures, too many for a table"):
            call()
    with pytest.raises(SpaceTooLargeError, match=r"use sample\(\)"):
        SPACE.sample_indices(3)
    assert bool(SPACE)


def test_tensors_of_indices_reach_what_fits_into_them():
    index = torch.tensor([5, 2**63 - 1])
    assert list(SPACE.resolve(index)) == [SPACE[5], SPACE[2**63 - 1]]
    assert SPACE.batch_encode(index).num_graphs == 2
    with pytest.raises(IndexError, match="index -2 is outside"):
        SPACE.batch_flops(torch.tensor([0, -2]))
    with pytest.raises(TypeError, match="one-dimensional integer tensor"):
        SPACE.batch_flops(torch.tensor([0.5]))


def test_samples_are_uniform_distinct_and_follow_the_generator():
    drawn = SPACE.sample(2000, seeded())
    assert drawn == SPACE.sample(2000, seeded())
    assert len(set(drawn)) == 2000
    depths = torch.tensor([arch.depths for arch in drawn])
    for depth, share in ((2, 81 / 7371), (3, 729 / 7371), (4, 6561 / 7371)):
        assert (depths == depth).double().mean().item() == pytest.approx(share, abs=0.01)
    assert {arch.resolution for arch in drawn} == set(RESOLUTIONS)
    assert SPACE.sample(0) == []
    assert len(SPACE.sample(5, seeded(), replace=True)) == 5
    with pytest.raises(ValueError, match="n must not be negative"):
        SPACE.sample(-1)


@settings(max_examples=25)
@given(archs)
def test_neighbors_are_symmetric_and_valid(arch):
    neighbors = SPACE.neighbors(arch)
    assert len(set(neighbors)) == len(neighbors)
    assert arch not in neighbors
    layers = sum(arch.depths)
    sides = 1 if arch.resolution in (RESOLUTIONS[0], RESOLUTIONS[-1]) else 2
    shorter, longer = sum(d > 2 for d in arch.depths), sum(d < 4 for d in arch.depths)
    assert len(neighbors) == 4 * layers + shorter + 9 * longer + sides
    for other in neighbors[:: max(1, len(neighbors) // 8)]:
        assert other in SPACE
        assert arch in SPACE.neighbors(other)


def test_crossover_takes_each_stage_from_a_parent():
    first, second = SPACE.from_str(SMALLEST), SPACE.from_str(LARGEST)
    children = [SPACE.crossover(first, second, seeded(seed)) for seed in range(20)]
    assert len(set(children)) > 10
    for child in children:
        assert child in SPACE
        assert all(s in pair for s, *pair in zip(child.stages, first.stages, second.stages, strict=True))
    assert SPACE.mutate(first, seeded()) in SPACE.neighbors(first)


def test_inactive_entries_are_ignored():
    config = {"d": [2, 3, 2, 4, 3], "ks": [3] * 20, "e": [6] * 20, "r": [224]}
    noisy = {**config, "ks": [3, 3, 7, 5, *([3] * 3), 7, *([3] * 12)]}
    assert SPACE.from_dict(config) == SPACE.from_dict(noisy)
    active = {"d": config["d"], "ks": [3] * 14, "e": [6] * 14}
    assert SPACE.from_dict(active) == SPACE.from_dict(config)


def test_vectorised_forms_agree_with_single_ones():
    some = SPACE.sample(20, seeded(3))
    assert SPACE.batch_num_parameters(some).tolist() == [SPACE.num_parameters(a) for a in some]
    assert SPACE.batch_flops(some).tolist() == [SPACE.flops(a) for a in some]
    for graph, arch in zip(SPACE.batch_encode(some).to_data_list(), some, strict=True):
        assert SPACE.decode(graph) == arch
    assert SPACE.dense([]).ops.shape == (0, 23)


def test_fewer_resolutions_make_a_smaller_space():
    space = MobileNetV3Space(resolutions=(160, 224))
    assert space.size == 2 * 7371**5
    assert {arch.resolution for arch in space.sample(50, seeded())} == {160, 224}
    assert repr(space) == "MobileNetV3Space(4.4e+19, resolutions=160...224)"
    assert repr(MobileNetV3Space((224,))) == "MobileNetV3Space(2.2e+19, resolutions=224)"
    with pytest.raises(InvalidArchitectureError, match=r"resolution 128 is not one of \(160, 224\)"):
        space.from_str(SMALLEST)
    for wrong in ((), (224, 160)):
        with pytest.raises(ValueError, match="resolutions must be ascending"):
            MobileNetV3Space(wrong)
    with pytest.raises(ValueError, match="resolution 225 is not one of"):
        MobileNetV3Space((224, 225))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k3e3", "is not of the form"),
        ("{'d': 1}", "is not JSON"),
        ("{}", "must be a mapping with 'd', 'ks' and 'e'"),
        ('{"d": [2, 2, 2, 2, 5], "ks": [], "e": []}', "d must be five depths among 2, 3 and 4"),
        ('{"d": [2, 2, 2, 2, 2], "ks": [3, 3], "e": [3, 3]}', "20 entries, or 10 for the active layers"),
        ('{"d": [2, 2, 2, 2, 2], "ks": [3, 3, 3, 3, 3, 3, 3, 3, 3, 9], "e": [3, 3, 3, 3, 3, 3, 3, 3, 3, 3]}', "9, 3"),
        (SMALLEST + "|k3e3-k3e3", "6 stages instead of 5"),
        (SMALLEST.replace("k3e3-k3e3|", "k3e3|", 1), "stage 0 has 1 layers"),
        (SMALLEST.replace("k3e3", "k4e3", 1), r"stage 0 has the layer \(4, 3\)"),
        (SMALLEST.replace("r128", "r130"), "resolution 130 is not one of"),
    ],
)
def test_strings_outside_the_space_are_refused(text, message):
    with pytest.raises(InvalidArchitectureError, match=message):
        SPACE.from_str(text)


def test_values_of_other_kinds_are_refused():
    with pytest.raises(InvalidArchitectureError, match="expected a MobileNetV3Arch, got NASBench201Arch"):
        SPACE.check(NASBench201Space()[0])
    for call in (SPACE.index, SPACE.neighbors, SPACE.to_str, SPACE.num_parameters):
        with pytest.raises(InvalidArchitectureError, match="0 stages instead of 5"):
            call(MobileNetV3Arch(()))


def test_graphs_that_are_no_chains_are_refused():
    data = SPACE.encode(SPACE.from_str(SMALLEST))
    count = data.num_nodes
    shortcut = Data(x=data.x, edge_index=torch.cat([data.edge_index, torch.tensor([[0], [2]])], dim=1))
    cycle = Data(x=data.x, edge_index=torch.tensor([range(count), [*range(1, count), 0]]))
    backwards = Data(x=data.x, edge_index=data.edge_index.flip(0))
    for graph in (shortcut, cycle, backwards):
        with pytest.raises(InvalidArchitectureError, match="is not a chain from input"):
            SPACE.decode(graph)
    mixed = Data(x=data.x[[0, 1, *range(11, 1, -1), 12]], edge_index=data.edge_index)
    with pytest.raises(InvalidArchitectureError, match="do not follow the order of the stages"):
        SPACE.decode(mixed)
    with pytest.raises(InvalidArchitectureError, match="x has 7 columns, mobilenetv3 has 72"):
        SPACE.decode(NASBench201Space().encode(NASBench201Space()[0]))


def test_names_and_layers():
    assert len(LAYERS) == 9
    assert len(SPACE.op_names) == len(set(SPACE.op_names)) == 2 + 25 + 45
    assert SPACE.canonical(SPACE[3]) == str(SPACE[3])


def test_batches_are_decoded_together():
    archs = SPACE.sample(30, torch.Generator().manual_seed(0))
    batch = SPACE.batch_encode(archs)
    assert SPACE.batch_decode(batch) == archs == [SPACE.decode(graph) for graph in batch.to_data_list()]
    batch.edge_index = batch.edge_index[:, 1:]
    with pytest.raises(InvalidArchitectureError, match="is not a chain"):
        SPACE.batch_decode(batch)


def test_codes_are_positions_of_layers():
    sides, codes = SPACE.codes([SPACE.from_str("r160|k3e4-k5e3|k3e3-k3e3-k7e6|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3")])
    assert sides.tolist() == [160]
    assert codes[0, :2].tolist() == [[1, 3, -1, -1], [0, 0, 8, -1]]
