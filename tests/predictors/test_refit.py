"""Predictors that are saved as their training data."""

from __future__ import annotations

import torch

from pyg_nas_np.predictors.refit import RefitPredictor


class NearestOfRefit(RefitPredictor):
    """The score of the nearest architecture."""

    fits = 0

    def _learn(self, x, z):
        NearestOfRefit.fits += 1
        self.known_ = torch.from_numpy(x), torch.from_numpy(z)

    def _predict(self, inputs, return_std):
        x, z = self.known_
        mean = z[torch.cdist(inputs, x).argmin(dim=1)]
        return mean, torch.ones_like(mean) if return_std else None


def test_it_is_fitted_again_when_loaded(toy_space, tmp_path):
    index = torch.arange(0, 128, 8)
    graphs, y = toy_space.batch_encode(index), toy_space.batch_flops(index)
    predictor = NearestOfRefit(toy_space).fit(graphs, y)
    predictor.save(tmp_path / "file")
    fits = NearestOfRefit.fits
    loaded = NearestOfRefit.load(tmp_path / "file", toy_space)
    assert NearestOfRefit.fits == fits + 1
    torch.testing.assert_close(loaded.predict(graphs), predictor.predict(graphs))


def test_nothing_but_training_data_is_saved(toy_space):
    predictor = NearestOfRefit(toy_space).fit(toy_space.batch_encode(torch.arange(5)), [1.0, 2.0, 3.0, 4.0, 5.0])
    assert {name: tuple(value.shape) for name, value in predictor._state().items()} == {
        "x": tuple(predictor.x_.shape),
        "z": (5,),
    }
