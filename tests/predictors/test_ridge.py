"""Ridge regression on meta-features."""

from __future__ import annotations

import torch

from pyg_nas_np.features import shared_features
from pyg_nas_np.predictors import RidgePredictor
from pyg_nas_np.spaces import NASBench201Space

SPACE = NASBench201Space()
INDEX = SPACE.sample_indices(80, torch.Generator().manual_seed(0))
TEST = torch.arange(1000)


def target(index):
    """A linear function of features."""
    features = shared_features(SPACE)
    names = ["live_nor_conv_3x3", "live_nor_conv_1x1", "path_max_work", "dead"]
    columns = features.table(index)[:, [features.feature_names.index(name) for name in names]]
    return 90 + columns @ torch.tensor([2.0, 1.0, 1.0, -3.0])


def test_it_finds_a_linear_function_with_a_calibrated_spread():
    model = RidgePredictor(SPACE).fit(SPACE.batch_encode(INDEX), target(INDEX))
    mean, std = model.predict(SPACE.batch_encode(TEST), return_std=True)
    assert model.score(SPACE.batch_encode(TEST), target(TEST)) > 0.65
    assert ((mean - target(TEST)).abs() <= 3 * std + 1e-3).float().mean() > 0.85
    torch.testing.assert_close(mean, model.predict(SPACE.batch_encode(TEST)))


def test_noise_in_the_labels_is_part_of_the_spread():
    noise = torch.randn(80, generator=torch.Generator().manual_seed(1))
    graphs = SPACE.batch_encode(INDEX)
    quiet, noisy = (RidgePredictor(SPACE).fit(graphs, target(INDEX) + s * noise) for s in (0, 2))
    assert noisy.predict(graphs, return_std=True)[1].min() > quiet.predict(graphs, return_std=True)[1].max()


def test_fitting_is_deterministic():
    first, second = (RidgePredictor(SPACE).fit(SPACE.batch_encode(INDEX), target(INDEX)) for _ in range(2))
    for a, b in zip(*(m.predict(SPACE.batch_encode(TEST), return_std=True) for m in (first, second)), strict=True):
        assert torch.equal(a, b)


def test_two_labels_are_enough():
    model = RidgePredictor(SPACE).fit(SPACE.batch_encode(INDEX[:2]), [90.0, 91.0])
    for values in model.predict(SPACE.batch_encode(TEST[:50]), return_std=True):
        assert values.isfinite().all()
