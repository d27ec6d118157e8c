from __future__ import annotations

import pytest
import torch

from pyg_nas_np.datasets.mobilenetv3 import SubNetworks
from pyg_nas_np.metad2a.mobilenetv3.predictor_training import (
    fit_sub_networks,
    held_out_spearman,
    select_sub_networks,
    train_sub_network_model,
)
from pyg_nas_np.spaces import MobileNetV3Space
from pyg_nas_np.utils import InvalidLabelsError

SPACE = MobileNetV3Space((224,))


def measured(count, noise=0.05, seed=0):
    """Accuracies that grow with computation and with the kernels of the third stage."""
    generator = torch.Generator().manual_seed(seed)
    archs = SPACE.sample(count, generator)
    kernels = torch.tensor([sum(k for k, _ in arch.stages[2]) for arch in archs]).double()
    y = 40 + 2 * SPACE.batch_flops(archs).double().log() + 0.1 * kernels
    y = (y + noise * torch.randn(count, generator=generator, dtype=torch.float64)).unsqueeze(1)
    return SubNetworks(tuple(archs), y, y, y, torch.ones(count, dtype=torch.long))


@pytest.fixture(scope="module")
def table():
    return measured(300)


def test_learns_what_makes_sub_networks_accurate(table):
    model, new = fit_sub_networks(table, SPACE), measured(200, noise=0.0, seed=1)
    cells = model.table(new.archs)
    mean, std = model.predict("gp", None, None, cells)  # type: ignore[arg-type]
    truth = new.values[:, 0]
    assert float(torch.corrcoef(torch.stack([mean.double(), truth]))[0, 1]) > 0.98
    noisy = measured(200, noise=0.05, seed=2)
    mean, std = model.predict("gp", None, None, model.table(noisy.archs))  # type: ignore[arg-type]
    assert 0.8 < float(((noisy.values[:, 0] - mean).abs() < 1.645 * std).double().mean()) <= 1


def test_equals_the_process_in_function_space(table):
    from pyg_nas_np.metad2a.mobilenetv3.features import mobilenetv3_features
    from pyg_nas_np.predictors.gaussian_process import GaussianProcess
    from pyg_nas_np.predictors.kernels import additive_kernels

    features = mobilenetv3_features(SPACE)
    model, x, y = fit_sub_networks(table, SPACE), features.table(table.archs), table.values[:, 0]
    kernels = additive_kernels(features.groups, linear=tuple(features.groups))
    process = GaussianProcess(kernels).fit(x, (y - y.mean()) / y.std())
    mean, std = process.predict(features.table(measured(20, seed=3).archs))
    own = model.predict("gp", None, None, model.table(measured(20, seed=3).archs))  # type: ignore[arg-type]
    torch.testing.assert_close(own[0].double(), y.mean() + y.std() * mean, atol=1e-3, rtol=0)
    torch.testing.assert_close(own[1].double(), y.std() * std, atol=1e-3, rtol=1e-3)


def test_correlation_on_what_is_held_out(table):
    assert 0.9 < held_out_spearman(table, SPACE) < 1
    assert held_out_spearman(table, SPACE) == held_out_spearman(table, SPACE)


def test_selects_rows(table):
    part = select_sub_networks(table, torch.tensor([5, 2]))
    assert part.archs == (table.archs[5], table.archs[2])
    assert torch.equal(part.values, table.values[[5, 2]])
    assert part.n_meas.numel() == 2


@pytest.mark.parametrize("rows", [[0], []])
def test_needs_different_accuracies(table, rows):
    with pytest.raises(InvalidLabelsError, match="at least two different accuracies"):
        fit_sub_networks(select_sub_networks(table, torch.tensor(rows, dtype=torch.long)), SPACE)


def test_the_card_tells_the_correlation_on_what_is_held_out():
    model, card = train_sub_network_model(measured(60))
    assert card["sub-networks"] == 60
    assert card["Spearman on a fifth, fitted without it"] > 0.5
    assert model.resolutions == (224,)
