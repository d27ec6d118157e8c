from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.spaces import MobileNetV3Space, NASBench101Space, NASBench201Space
from pyg_nas_np.spaces.graph_codec import (
    END,
    START,
    MobileNetV3GraphCodec,
    NASBench201GraphCodec,
    graph_codec,
    is_flow_graph,
)
from pyg_nas_np.utils import InvalidArchitectureError

CODECS = [NASBench201GraphCodec(), MobileNetV3GraphCodec()]


def follow(codec, count, seed):
    """Types drawn uniformly among the allowed ones."""
    draw = torch.Generator().manual_seed(seed)
    types = torch.empty(count, 0, dtype=torch.long)
    for _ in range(codec.num_vertices):
        allowed = codec.allowed(types).double()
        types = torch.cat([types, torch.multinomial(allowed, 1, generator=draw)], dim=1)
    return types


def test_nasbench201_is_the_form_of_the_published_database():
    codec = NASBench201GraphCodec()
    edges = {(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (1, 3), (1, 5), (2, 6), (3, 6)}
    assert {tuple(edge) for edge in codec.adjacency.nonzero().tolist()} == edges
    cell = codec.space.from_str("|nor_conv_1x1~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_3x3~1|none~2|")
    assert codec.types([cell]).tolist() == [[0, 4, 2, 3, 6, 5, 2, 1]]


def test_nasbench201_types_reach_every_cell_once():
    codec = NASBench201GraphCodec()
    types = codec.types()
    assert types.unique(dim=0).size(0) == 15625
    assert bool(codec.obeys(types).all())
    archs = codec.archs(types[:200])
    assert archs == [codec.space[i] for i in range(200)]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.space.name)
@given(seed=st.integers(0, 2**31))
def test_what_obeys_is_an_architecture_and_comes_back(codec, seed):
    types = follow(codec, 8, seed)
    assert bool(codec.obeys(types).all())
    archs = codec.archs(types)
    assert all(codec.space.is_valid(arch) for arch in archs)
    assert torch.equal(codec.types(archs), types)
    graphs = codec.graphs(archs)
    assert bool(codec.contains(graphs).all())
    assert bool(is_flow_graph(graphs).all())


def test_mobilenetv3_round_trip():
    codec = MobileNetV3GraphCodec(MobileNetV3Space(resolutions=(224,)))
    archs = codec.space.sample(100, torch.Generator().manual_seed(0))
    assert codec.archs(codec.types(archs)) == archs
    assert codec.types(archs).shape == (100, 22)


def test_mobilenetv3_stage_shares_its_depth():
    codec = MobileNetV3GraphCodec()
    types = codec.types([codec.space.from_str("r224|k3e4-k5e3|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3")])
    types[0, 2] += 9
    with pytest.raises(InvalidArchitectureError, match="no mobilenetv3 architecture"):
        codec.archs(types)


def test_an_inactive_layer_is_written_in_one_way():
    codec = MobileNetV3GraphCodec()
    types = codec.types([codec.space.from_str("r224|k3e4-k5e3|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3")])
    types[0, 4] += 1
    assert not bool(codec.obeys(types)[0])


def test_mobilenetv3_refuses_an_unknown_resolution():
    with pytest.raises(ValueError, match="resolution 100"):
        MobileNetV3GraphCodec(resolution=100)


def test_extremes_bound_all_costs():
    codec = MobileNetV3GraphCodec()
    low, high = codec.extremes()
    drawn = codec.archs(follow(codec, 500, 0))
    for cost in (codec.space.batch_num_parameters, codec.space.batch_flops):
        values, (least, most) = cost(drawn), cost([low, high])
        assert int(least) < int(values.min()) < int(values.max()) < int(most)
    assert NASBench201GraphCodec().extremes() is None


@pytest.mark.parametrize("change", [(0, END), (7, START), (3, START), (3, 7), (3, -1)])
def test_obeys_finds_a_wrong_type(change):
    codec = NASBench201GraphCodec()
    types = codec.types(torch.arange(2))
    types[1, change[0]] = change[1]
    assert codec.obeys(types).tolist() == [True, False]


def test_obeys_refuses_another_shape():
    with pytest.raises(InvalidArchitectureError, match=r"\[num_graphs, 8\]"):
        NASBench201GraphCodec().obeys(torch.zeros(2, 7, dtype=torch.long))


def test_flow_graphs_are_told_by_degrees_ends_and_order():
    codec = NASBench201GraphCodec()
    good = codec.graphs(torch.arange(6))
    adjacency, ops = good.adjacency.clone(), good.ops.clone()
    adjacency[1, :, 4] = False  # nothing feeds vertex 4
    adjacency[2, 4] = False  # vertex 4 feeds nothing
    adjacency[3, 5, 2] = True  # backwards
    ops[4, 3] = START  # a second start
    ops[5, 3] = END
    changed = good._replace(adjacency=adjacency, ops=ops)
    assert is_flow_graph(changed).tolist() == [True, False, False, False, False, False]
    # Another edge is still a valid graph in the paper's sense, but no cell.
    adjacency = good.adjacency.clone()
    adjacency[0, 0, 7] = True
    more = good._replace(adjacency=adjacency)
    assert bool(is_flow_graph(more)[0])
    assert not bool(codec.contains(more)[0])


def test_graph_codec_by_space():
    assert graph_codec(NASBench201Space()).num_vertices == 8
    with pytest.raises(ValueError, match="no graph form of the space 'nasbench101'"):
        graph_codec(NASBench101Space())
