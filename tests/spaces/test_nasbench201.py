r"""Golden values: formats.md of the project's references, sections 5 and 7."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from pyg_nas_np.spaces import NASBench201Space
from pyg_nas_np.spaces.dense import from_batch
from pyg_nas_np.spaces.nasbench201 import OPS, NASBench201Arch
from pyg_nas_np.utils import InvalidArchitectureError

SPACE = NASBench201Space()

GOLDEN = [
    # index, digits, string, parameters in units (K = 10, 100, 120), multiply-accumulates in units of ten
    (
        0,
        "421211",
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
        (129306, 135156, 136456),
        (15.64737, 15.65322, 3.91948),
    ),
    (
        9,
        "400103",
        "|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
        (316346, 322196, 323496),
        (43.17249, 43.17834, 10.80076),
    ),
    (
        11,
        "334034",
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|",
        (802426, 808276, 809576),
        (113.95137, 113.95722, 28.49548),
    ),
    (
        123,
        "442043",
        "|avg_pool_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|",
        (344346, 350196, 351496),
        (47.10465, 47.11050, 11.78380),
    ),
    (
        284,
        "111020",
        "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|none~0|nor_conv_1x1~1|none~2|",
        (101306, 107156, 108456),
        (11.71521, 11.72106, 2.93644),
    ),
    (
        6111,
        "333132",
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",
        (1073466, 1079316, 1080616),
        (153.27297, 153.27882, 38.32588),
    ),
    (
        15624,
        "202022",
        "|nor_conv_1x1~0|+|none~0|nor_conv_1x1~1|+|none~0|nor_conv_1x1~1|nor_conv_1x1~2|",
        (185306, 191156, 192456),
        (23.51169, 23.51754, 5.88556),
    ),
]

archs = st.tuples(*[st.sampled_from(OPS)] * 6).map(NASBench201Arch)
permutations = st.permutations(range(8))


@pytest.mark.parametrize(("index", "digits", "string", "params", "macs"), GOLDEN)
def test_golden_values(index, digits, string, params, macs):
    arch = SPACE[index]
    assert SPACE.to_str(arch) == string
    assert SPACE.to_digits(arch) == digits
    assert SPACE.index(SPACE.from_str(string)) == index
    assert SPACE.index(SPACE.from_digits(digits)) == index
    for dataset, p, m in zip(("cifar10", "cifar100", "ImageNet16-120"), params, macs, strict=True):
        space = NASBench201Space(dataset)
        assert space.num_parameters(arch) == p
        assert space.flops(arch) / 1e6 == pytest.approx(m, abs=5.1e-6)


@pytest.mark.parametrize(
    ("dataset", "params", "macs"),
    [
        ("cifar10", (73306, 1531546), (7.78305, 220.11969)),
        ("cifar100", (79156, 1537396), (7.78890, 220.12554)),
        ("ImageNet16-120", (80456, 1538696), (1.95340, 55.03756)),
    ],
)
def test_cost_ranges(dataset, params, macs):
    space = NASBench201Space(dataset)
    counts, flops = space.batch_num_parameters(), space.batch_flops()
    assert (int(counts.min()), int(counts.max())) == params
    assert (float(flops.min()) / 1e6, float(flops.max()) / 1e6) == pytest.approx(macs, abs=5.1e-6)
    assert counts.unique().numel() == flops.unique().numel() == 28


@pytest.mark.parametrize(
    ("rule", "classes"), [("skip", 12751), ("official", 6466), ("zero", 5390), ("flat", 4930), ("linear", 4660)]
)
def test_equivalence_classes(rule, classes):
    keys = SPACE.batch_canonical(rule=rule)
    assert len(set(keys)) == classes
    assert keys[11] == SPACE.canonical(SPACE[11], rule)


def test_rules_only_merge_classes():
    finer, coarser = SPACE.batch_canonical(rule="official"), SPACE.batch_canonical(rule="flat")
    merged = dict(zip(finer, coarser, strict=True))
    assert all(merged[f] == c for f, c in zip(finer, coarser, strict=True))


def test_dead_output():
    assert sum(key == "#" for key in SPACE.batch_canonical(rule="flat")) == 341


def test_whole_space_is_indexed_once():
    assert len({SPACE.index(arch) for arch in SPACE.enumerate()}) == len(SPACE) == 15625
    assert SPACE.index(SPACE[4242]) == 4242


@given(archs)
def test_round_trips(arch):
    assert SPACE.from_str(SPACE.to_str(arch)) == arch
    assert SPACE.from_digits(SPACE.to_digits(arch)) == arch
    assert SPACE.from_naslib(SPACE.to_naslib(arch)) == arch
    assert SPACE[SPACE.index(arch)] == arch
    assert SPACE.decode(SPACE.encode(arch)) == arch
    assert SPACE.decode(SPACE.encode(arch, view="edge")) == arch


@given(archs, permutations, st.permutations(range(10)))
def test_decode_ignores_node_and_edge_order(arch, nodes, edges):
    data = SPACE.encode(arch)
    shuffled = Data(x=torch.empty_like(data.x), edge_index=torch.tensor(nodes)[data.edge_index][:, edges])
    shuffled.x[list(nodes)] = data.x
    assert SPACE.decode(shuffled) == arch


@given(archs, st.permutations(range(4)), st.permutations(range(6)))
def test_decode_edge_view_ignores_order(arch, nodes, edges):
    data = SPACE.encode(arch, view="edge")
    shuffled = Data(
        x=torch.empty_like(data.x),
        edge_index=torch.tensor(nodes)[data.edge_index][:, edges],
        edge_attr=data.edge_attr[list(edges)],
    )
    shuffled.x[list(nodes)] = data.x
    assert SPACE.decode(shuffled) == arch


def test_naslib_and_analog_order():
    # t -> string order [t0, t1, t3, t2, t4, t5] with ids skip, none, 3x3, 1x1, pool
    arch = SPACE.from_naslib((0, 1, 2, 3, 4, 0))
    assert arch.ops == (
        "skip_connect",
        "none",
        "nor_conv_1x1",
        "nor_conv_3x3",
        "avg_pool_3x3",
        "skip_connect",
    )


@given(archs, st.integers(0, 2**31))
def test_edits_stay_in_the_space(arch, seed):
    generator = torch.Generator().manual_seed(seed)
    neighbors = SPACE.neighbors(arch)
    assert len(set(neighbors)) == 24
    assert arch not in neighbors
    assert all(sum(a != b for a, b in zip(n.ops, arch.ops, strict=True)) == 1 for n in neighbors)
    assert SPACE.mutate(arch, generator) in neighbors
    other = SPACE[seed % 15625]
    child = SPACE.crossover(arch, other, generator)
    assert all(c in pair for c, pair in zip(child.ops, zip(arch.ops, other.ops, strict=True), strict=True))


def test_sample_is_seeded_and_distinct():
    first = SPACE.sample(100, torch.Generator().manual_seed(1))
    assert first == SPACE.sample(100, torch.Generator().manual_seed(1))
    assert len(set(first)) == 100
    with pytest.raises(ValueError, match="n=15626"):
        SPACE.sample(15626)
    with pytest.raises(ValueError, match="-1"):
        SPACE.sample(-1)
    assert len(SPACE.sample(20000, replace=True)) == 20000


def test_batch_encode_equals_pyg_batch():
    index = torch.tensor([3, 0, 3, 15624])
    ours = SPACE.batch_encode(index)
    theirs = Batch.from_data_list([SPACE.encode(SPACE[i]) for i in index.tolist()])
    assert torch.equal(ours.x, theirs.x)
    assert torch.equal(ours.edge_index, theirs.edge_index)
    assert torch.equal(ours.batch, theirs.batch)
    assert torch.equal(ours.ptr, theirs.ptr)
    assert SPACE.decode(ours[1]) == SPACE[0]
    dense = from_batch(ours.x, ours.edge_index, ours.batch)
    assert all(torch.equal(a, b) for a, b in zip(dense, SPACE.dense(index), strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("|nor_conv_3x3~0|", "not of the form"),
        ("|nor_conv_3x3~1|+|none~0|none~1|+|none~0|none~1|none~2|", "not of the form"),
        ("|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|", "unknown operation 'conv'"),
    ],
)
def test_from_str_names_the_problem(text, message):
    with pytest.raises(InvalidArchitectureError, match=message):
        SPACE.from_str(text)


def test_invalid_input():
    assert SPACE[0] in SPACE
    assert "cell" not in SPACE
    assert not SPACE.is_valid(NASBench201Arch(("none",) * 5))
    assert "6 operations" in SPACE.is_valid(NASBench201Arch(("none",) * 5)).reason
    with pytest.raises(IndexError, match="15625"):
        SPACE[15625]
    with pytest.raises(IndexError, match="-1"):
        SPACE.dense(torch.tensor([-1]))
    with pytest.raises(TypeError, match="float32"):
        SPACE.dense(torch.tensor([1.0]))
    with pytest.raises(InvalidArchitectureError, match="'42'"):
        SPACE.from_digits("42")
    with pytest.raises(InvalidArchitectureError, match="six operation ids"):
        SPACE.from_naslib((0, 1, 2, 3, 4, 5))
    with pytest.raises(ValueError, match="svhn"):
        NASBench201Space("svhn")
    with pytest.raises(ValueError, match="rule"):
        SPACE.canonical(SPACE[0], "pool")
    with pytest.raises(ValueError, match="view"):
        SPACE.encode(SPACE[0], view="both")


def test_decode_refuses_other_graphs():
    data = SPACE.encode(SPACE[0])
    cyclic = data.clone()
    cyclic.edge_index = torch.cat([data.edge_index, torch.tensor([[6], [1]])], dim=1)
    with pytest.raises(InvalidArchitectureError, match="not the node view"):
        SPACE.decode(cyclic)
    missing = data.clone()
    missing.edge_index = data.edge_index[:, 1:]
    with pytest.raises(InvalidArchitectureError, match="not the node view"):
        SPACE.decode(missing)
    soft = data.clone()
    soft.x[2] = 0.5
    with pytest.raises(InvalidArchitectureError, match="row 2"):
        SPACE.decode(soft)
    with pytest.raises(InvalidArchitectureError, match="8, 7"):
        SPACE.decode(Data(x=torch.eye(7), edge_index=data.edge_index))
    edge = SPACE.encode(SPACE[0], view="edge")
    edge.edge_index = edge.edge_index.flip(0)[:, [0, 0, 2, 3, 4, 5]]
    with pytest.raises(InvalidArchitectureError, match="not those of a cell"):
        SPACE.decode(edge)
