from __future__ import annotations

import pytest
import torch

from pyg_nas_np.features import MetaFeatures
from pyg_nas_np.features.blocks import BLOCKS, Cells
from pyg_nas_np.spaces import NASBench201Space

SPACE = NASBench201Space()
RAW = MetaFeatures(SPACE, standardize=False)


def row(digits):
    """Raw features of one cell by name; columns that are constant over the space are absent."""
    return dict(zip(RAW.feature_names, RAW.table([SPACE.from_digits(digits)])[0].tolist(), strict=True))


def test_golden_cell_with_dead_edges():
    # 0→1 none, so 1→2 and 1→3 are dead although they hold operations; 0→2 conv3x3, 2→3 pool, 0→3 skip.
    features = row("032134")  # none~0 | conv3~0, conv1~1 | skip~0, conv3~1, pool~2
    expected = {
        "count_none": 1,
        "count_nor_conv_3x3": 2,
        "live_nor_conv_3x3": 1,
        "live_nor_conv_1x1": 0,
        "live_avg_pool_3x3": 1,
        "live_skip_connect": 1,
        "path_min_work": 0,
        "path_max_work": 2,
        "path_mean_work": 1,
        "path_max_nor_conv_3x3": 1,
        "path_mean_avg_pool_3x3": 0.5,
        "dead": 0,
        "bypass": 1,
        "live_nodes": 5,
        "live_edges": 5,
        "live_paths": 2,
        "depth": 3,
        "width": 2,
        "output_degree": 2,
        "edge_nor_conv_3x3>avg_pool_3x3": 1,
        "edge_input>skip_connect": 1,
        "edge_nor_conv_1x1>nor_conv_1x1": 0,
        "path_0-3_alive": 1,
        "path_0-3_skip_connect": 1,
        "path_0-1-3_alive": 0,
        "path_0-1-3_nor_conv_3x3": 0,
        "path_0-2-3_alive": 1,
        "path_0-2-3_nor_conv_3x3": 1,
        "path_0-2-3_avg_pool_3x3": 1,
        "path_0-1-2-3_alive": 0,
        "string_identity": 1,
        "string_nor_conv_3x3>avg_pool_3x3": 1,
        "string_avg_pool_3x3>nor_conv_3x3": 0,
    }
    assert {name: features[name] for name in expected} == pytest.approx(expected)


def test_skip_connections_write_no_letter():
    features = row("313133")  # conv3~0 | skip~0, conv3~1 | skip~0, conv3~1, conv3~2
    assert features["string_identity"] == 1
    assert features["string_nor_conv_3x3"] == 1  # 0→2 skip, 2→3 conv3
    assert features["string_nor_conv_3x3>nor_conv_3x3"] == 1  # 0→1→3
    assert features["string_nor_conv_3x3>nor_conv_3x3>nor_conv_3x3"] == 1
    two = row("313330")  # 0→3 conv3; 0→1→3 conv3 conv3; 2→3 none
    assert two["string_nor_conv_3x3"] == 1
    same = row("300330")  # 0→3 conv3; 0→1→3 conv3 conv3
    assert same["string_nor_conv_3x3>nor_conv_3x3"] == 1
    twice = row("303313")  # 0→3 conv3; 0→1 conv3, 1→3 skip: two paths spell conv3
    assert twice["string_nor_conv_3x3"] == pytest.approx(2**0.5)


def test_exactly_the_dead_cells_are_dead():
    table = RAW.table()
    dead = table[:, RAW.feature_names.index("dead")] == 1
    assert dead.tolist() == [key == "#" for key in SPACE.batch_canonical(rule="flat")]
    paths = table[:, [name.endswith("_alive") for name in RAW.feature_names]]
    assert torch.equal(paths.sum(1), table[:, RAW.feature_names.index("live_paths")])
    assert not paths[dead].any()


def test_costs_are_those_of_the_space():
    features = row("333132")
    assert features["params"] == pytest.approx(1.073466)
    assert features["flops"] == pytest.approx(153.27297, abs=1e-5)


def test_blocks_have_one_name_per_column(toy_space):
    for space in (SPACE, toy_space):
        archs = torch.arange(20)
        cells = Cells(space, space.dense(archs), space.batch_num_parameters(archs), space.batch_flops(archs))
        for block in BLOCKS.values():
            names, values = block(cells)
            assert values.shape == (20, len(names))


def test_functional_twins_share_live_features():
    """Cells that differ in dead edges only have the same live features."""
    groups = MetaFeatures(SPACE, groups=("live", "paths", "strings", "bigrams", "spectrum"))
    twins = [SPACE.from_digits(digits) for digits in ("032134", "030104", "031124")]
    table = groups.table(twins)
    torch.testing.assert_close(table[0], table[1])
    torch.testing.assert_close(table[0], table[2])
