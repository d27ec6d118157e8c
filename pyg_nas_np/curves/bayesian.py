r"""A small Bayesian neural network over configurations and epochs, in the manner of Klein et al. (2017)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyg_nas_np.curves.base import CurvePredictor
from pyg_nas_np.curves.data import Floats, LearningCurves
from pyg_nas_np.curves.features import curve_features, wide_columns
from pyg_nas_np.curves.scaling import CurveScale
from pyg_nas_np.utils.defaults import fixed_defaults
from pyg_nas_np.utils.random import drawing_from


class CurveBasisNet(nn.Module):
    r"""Maps a configuration to the curve :math:`y(t) = a + \sum_k w_k \varphi_k(t; \theta_k)` and its noise.

    The basis functions :math:`\varphi_k` are a power law, a saturating exponential, and a logarithm, as in Klein
    et al.'s last layer; asymptote, weights, rates and noise are outputs of a network of the configuration.

    Args:
        features: Number of features of a configuration.
        hidden: Width.
        dropout: Fraction of hidden units dropped, in training and in prediction.
    """

    def __init__(self, features: int, hidden: int = 32, dropout: float = 0.1) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(max(features, 1), hidden), nn.Tanh(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, 7),
        )  # fmt: skip

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns mean and standard deviation, ``[n, T]``, of ``[n, F]`` configurations at ``[T]`` times in (0, 1]."""
        a, w1, w2, w3, r1, r2, noise = self.net(x).unsqueeze(-1).unbind(1)
        power = (1.0 + 20.0 * t) ** -softplus(r1)
        saturation = torch.exp(-10.0 * softplus(r2) * t)
        logarithm = torch.log1p(20.0 * t) / 3.0
        return a - w1 * power - w2 * saturation + w3 * logarithm, 1e-3 + softplus(noise - 2.0).expand(-1, t.numel())


class BayesianCurveNet(CurvePredictor):
    r"""Neural network of `Klein et al., 2017 <https://openreview.net/forum?id=S11KBYclx>`_ for learning curves.

    As in the paper, the inputs are a configuration and an epoch, and the network is trained on all known values,
    including those of running trainings. Each prediction therefore trains a network. An ensemble with dropout
    approximates the posterior, in place of stochastic-gradient Hamiltonian Monte Carlo. The prediction of a running
    training is corrected by the mean residual of its last values.

    Args:
        members: Number of networks.
        steps: Optimiser steps of each.
        random_state: Seed.
    """

    def __init__(self, *, members: int = 5, steps: int = 300, random_state: int = 0) -> None:
        self.members = members
        self.steps = steps
        self.random_state = random_state

    def _fit(self, curves: LearningCurves) -> None:
        self.scale_ = CurveScale(curves)
        self.wide_ = wide_columns(curves)
        self.center_ = self._described(curves).mean(0)
        self.spread_ = self._described(curves).std(0) + 1e-9

    def _described(self, curves: LearningCurves) -> Floats:
        groups = [g for g, c in (("AP", curves.architecture), ("HP", curves.hyperparameters)) if c]
        return curve_features(curves, 1, groups, self.wide_)[0] if groups else np.ones((len(curves), 1))

    @fixed_defaults
    def _predict(self, curves: LearningCurves, tau: int) -> tuple[Floats, Floats]:
        known, running = self.scale_.forward(self.curves_.values), self.scale_.forward(curves.observed(tau))
        total = known.shape[1]
        padded = np.full((len(running), total), np.nan)
        padded[:, :tau] = running
        y = torch.tensor(np.concatenate([known, padded]), dtype=torch.float32)
        x = np.concatenate([self._described(self.curves_), self._described(curves)])
        x_all = torch.tensor((x - self.center_) / self.spread_, dtype=torch.float32)
        t = torch.arange(1, total + 1, dtype=torch.float32) / total
        mask = y.isfinite()
        samples, noises = [], []
        with drawing_from(torch.Generator().manual_seed(self.random_state)):
            for _ in range(self.members):
                net = CurveBasisNet(x_all.size(1))
                optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, weight_decay=1e-4)
                for _ in range(self.steps):
                    mean, std = net(x_all, t)
                    loss = -torch.distributions.Normal(mean[mask], std[mask]).log_prob(y[mask]).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                with torch.no_grad():
                    for _ in range(4):
                        mean, std = net(x_all[len(known) :], t)
                        recent = slice(max(0, tau - 3), tau)
                        shift = (y[len(known) :, recent] - mean[:, recent]).mean(1)
                        samples.append((mean[:, -1] + shift).double())
                        noises.append(std[:, -1].double())
        drawn = torch.stack(samples)
        variance = drawn.var(0, unbiased=False) + torch.stack(noises).square().mean(0)
        return self.scale_.back(drawn.mean(0).numpy(), variance.sqrt().numpy())
