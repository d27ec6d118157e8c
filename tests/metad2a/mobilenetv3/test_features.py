from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.metad2a.mobilenetv3.features import MobileNetV3Features, mobilenetv3_features
from pyg_nas_np.spaces import MobileNetV3Space

SPACE = MobileNetV3Space()
FEATURES = MobileNetV3Features(SPACE)
TEXT = "r224|k3e4-k5e3|k3e3-k3e3-k7e6|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3-k5e3-k3e4"


def test_golden_row():
    arch = SPACE.from_str(TEXT)
    row, groups = FEATURES.table([arch])[0], FEATURES.groups
    stages = row[groups["stages"]]
    torch.testing.assert_close(stages[2:7], torch.tensor([-1.0, 0.0, -1.0, -1.0, 1.0]).double())
    # Kernels 3 + 5 of the first stage, between 6 and 28.
    assert float(stages[7]) == pytest.approx(2 * (8 - 6) / 22 - 1)
    # Expansions 3 + 3 + 6 of the second stage, between 6 and 24.
    assert float(stages[13]) == pytest.approx(2 * (12 - 6) / 18 - 1)
    layers = row[groups["layers"]].view(5, 4, 6)
    assert layers[0].tolist() == [[1, 0, 0, 0, 1, 0], [0, 1, 0, 1, 0, 0], [0] * 6, [0] * 6]
    assert float(layers.sum()) == 2 * sum(arch.depths)


@given(seed=st.integers(0, 2**31))
def test_bounds_and_products(seed):
    archs = MobileNetV3Space((224,)).sample(5, torch.Generator().manual_seed(seed))
    table = FEATURES.table(archs)
    assert table.shape == (5, FEATURES.num_columns)
    assert float(table.abs().max()) <= 1
    stages, products = (table[:, FEATURES.groups[name]] for name in ("stages", "products"))
    first, second = torch.triu_indices(17, 17)
    torch.testing.assert_close(products, stages[:, first] * stages[:, second])


def test_different_subnets_have_different_features():
    arch = SPACE.from_str(TEXT)
    table = FEATURES.table([arch, *SPACE.neighbors(arch)])
    assert table.unique(dim=0).size(0) == table.size(0)


def test_one_object_a_space():
    assert mobilenetv3_features(SPACE) is mobilenetv3_features(SPACE)
