from __future__ import annotations

import pytest
import torch
from sklearn.exceptions import NotFittedError

from pyg_nas_np.convnp import BankPredictor
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.predictors import Predictor
from pyg_nas_np.spaces import Float, Integer, ParameterSpace, Repeat


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


def test_without_labels_sizes_and_depth_rank():
    space = ParameterSpace(
        layers=Repeat({"width": Integer(8, 64)}, 1, 6), costs={"size": lambda a: sum(x["width"] for x in a["layers"])}
    )
    archs = space.sample(200, torch.Generator().manual_seed(0))
    size = space.costs(archs)["size"]
    for maximize, sign in ((True, 1.0), (False, -1.0)):
        mean, std = BankPredictor(space, maximize=maximize).predict(archs, return_std=True)
        assert float(kendall_tau(sign * mean, size)) > 0.8
        assert bool((std > 0.7).all())
    plain = ParameterSpace(act=["relu", "gelu"], lr=Float(0.1, 1.0))
    scores = BankPredictor(plain).fit([]).predict_scores(plain.sample(5))
    torch.testing.assert_close(torch.stack(scores), torch.tensor([[0.0], [1.0]]).double().expand(2, 5))


def test_before_fit_something_must_tell_the_space():
    with pytest.raises(NotFittedError):
        BankPredictor().predict([{"depth": 1}])
