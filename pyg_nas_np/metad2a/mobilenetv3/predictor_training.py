r"""Fits the predictor of the MobileNetV3 space to measured sub-networks of Once-for-All."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from pyg_nas_np.datasets.mobilenetv3 import SubNetworks
from pyg_nas_np.metad2a.mobilenetv3.features import mobilenetv3_features
from pyg_nas_np.metad2a.mobilenetv3.predictor import SubNetworkModel
from pyg_nas_np.metrics.functional import spearman_rho
from pyg_nas_np.predictors.gaussian_process import GaussianProcess, stable_cholesky
from pyg_nas_np.predictors.kernels import additive_kernels
from pyg_nas_np.spaces import MobileNetV3Space
from pyg_nas_np.utils import InvalidLabelsError, fixed_defaults

HELD_OUT = 0.2
"""Fraction of the sub-networks held out for the correlation in the card."""


@fixed_defaults
def fit_sub_networks(table: SubNetworks, space: MobileNetV3Space) -> SubNetworkModel:
    r"""Fits the model to measured sub-networks.

    Variances of the groups and of the noise maximise the posterior, as in
    :class:`~pyg_nas_np.predictors.gaussian_process.GaussianProcess`. The posterior is converted to weight space, so the
    file need not contain the measurements.

    Args:
        table: The measurements; the first column of its values is the accuracy in percent.
        space: The search space.

    Raises:
        InvalidLabelsError: If there are fewer than two different accuracies.
    """
    y = table.values[:, 0].double()
    if y.numel() < 2 or bool((y == y[0]).all()):
        raise InvalidLabelsError(f"at least two different accuracies are needed, got {y.unique().numel()}")
    x = mobilenetv3_features(space).table(table.archs)
    groups = mobilenetv3_features(space).groups
    mean, scale = float(y.mean()), float(y.std())
    gp = GaussianProcess(additive_kernels(groups, linear=tuple(groups))).fit(x, (y - mean) / scale)
    *variances, noise = gp.theta.exp()
    prior = torch.empty(x.size(1), dtype=torch.float64)
    for columns, variance in zip(groups.values(), variances, strict=True):
        prior[columns] = variance
    factor = stable_cholesky(x.t() @ x / noise + torch.diag(1 / prior))
    weights = torch.cholesky_solve((x.t() @ ((y - mean) / scale) / noise).unsqueeze(1), factor).squeeze(1)
    root = torch.linalg.solve_triangular(factor, torch.eye(x.size(1)).double(), upper=False)
    resolutions = tuple(sorted({arch.resolution for arch in table.archs}))
    return SubNetworkModel(space, resolutions, weights, root, mean, scale, float(noise.sqrt()))


def select_sub_networks(table: SubNetworks, rows: Tensor) -> SubNetworks:
    r"""Returns the sub-networks of a table at :obj:`rows`."""
    archs = tuple(table.archs[i] for i in rows.tolist())
    return SubNetworks(archs, *(column[rows] for column in table[1:]))


@fixed_defaults
def held_out_spearman(table: SubNetworks, space: MobileNetV3Space, seed: int = 0) -> float:
    r"""Returns the rank correlation on a random fifth of the sub-networks of a model fitted to the others."""
    order = torch.randperm(len(table.archs), generator=torch.Generator().manual_seed(seed))
    tested, trained = order.tensor_split([max(2, round(HELD_OUT * order.numel()))])
    model = fit_sub_networks(select_sub_networks(table, trained), space)
    held = select_sub_networks(table, tested)
    return float(spearman_rho(model.table(held.archs) @ model.weights, held.values[:, 0]))


@fixed_defaults
def train_sub_network_model(table: SubNetworks) -> tuple[SubNetworkModel, dict[str, Any]]:
    r"""Fits the model to a table.

    Returns:
        The model and its card.
    """
    started, space = time.perf_counter(), MobileNetV3Space()
    card = {
        "sub-networks": len(table.archs),
        "Spearman on a fifth, fitted without it": round(held_out_spearman(table, space), 4),
        "seed of that split": 0,
    }
    model = fit_sub_networks(table, space)
    return model, {**card, "seconds": round(time.perf_counter() - started, 1)}
