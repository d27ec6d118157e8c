from __future__ import annotations

import torch

from pyg_nas_np.convnp import BankPredictor
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.predictors import Predictor


def test_predictor_is_the_mean_of_the_bank(toy_space, tmp_path):
    rows = torch.arange(0, 128, 4)
    graphs, y = toy_space.batch_encode(rows), toy_space.batch_flops(rows).double() ** 2 + 0.1 * rows
    model = BankPredictor(toy_space).fit(graphs, y)
    test = toy_space.batch_encode(torch.arange(50))
    mean, std = model.predict_scores(test)
    moments = model.bank_.predict(shared_descriptors(toy_space).table(torch.arange(50)))
    torch.testing.assert_close(mean.float(), moments[..., 0].mean(dim=1), rtol=1e-4, atol=1e-4)
    mixture = (moments[..., 1].exp().square() + moments[..., 0].square()).mean(dim=1) - mean.float().square()
    torch.testing.assert_close(std.float(), mixture.sqrt(), rtol=1e-3, atol=1e-3)
    model.save(tmp_path / "bank.pt")
    loaded = Predictor.load(tmp_path / "bank.pt", toy_space)
    torch.testing.assert_close(loaded.predict(test), model.predict(test), rtol=1e-4, atol=1e-3)
