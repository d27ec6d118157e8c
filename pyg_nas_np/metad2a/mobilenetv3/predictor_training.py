r"""Fits the predictor of the MobileNetV3 space to measured sub-networks of Once-for-All.

    python -m pyg_nas_np.metad2a.mobilenetv3.predictor_training TABLE --output weights.safetensors

``TABLE`` is a DyNAS-T table in the form of :func:`~pyg_nas_np.datasets.mobilenetv3.read_accuracies`.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import torch
from torch import Tensor

from pyg_nas_np.datasets.mobilenetv3 import Subnets, read_accuracies
from pyg_nas_np.metad2a.mobilenetv3.features import mobilenetv3_features
from pyg_nas_np.metad2a.mobilenetv3.predictor import SubnetModel, write_subnet_model
from pyg_nas_np.metrics.functional import spearman_rho
from pyg_nas_np.predictors.gaussian_process import GaussianProcess, stable_cholesky
from pyg_nas_np.predictors.kernels import additive_kernels
from pyg_nas_np.spaces import MobileNetV3Space
from pyg_nas_np.utils import InvalidLabelsError

logger = logging.getLogger(__name__)

HELD_OUT = 0.2
"""Share of the sub-networks that the correlation in the card is measured on."""


def fit_subnets(table: Subnets, space: MobileNetV3Space) -> SubnetModel:
    r"""Fits the model to measured sub-networks.

    Variances of the groups and of the noise maximise the posterior, as in
    :class:`~pyg_nas_np.predictors.gaussian_process.GaussianProcess`; the posterior is then written in weight
    space, so that the file need not hold the measurements.

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
    return SubnetModel(space, resolutions, weights, root, mean, scale, float(noise.sqrt()))


def select_subnets(table: Subnets, rows: Tensor) -> Subnets:
    r"""Returns the sub-networks of a table at :obj:`rows`."""
    archs = tuple(table.archs[i] for i in rows.tolist())
    return Subnets(archs, *(column[rows] for column in table[1:]))


def held_out_spearman(table: Subnets, space: MobileNetV3Space, seed: int = 0) -> float:
    r"""Returns the rank correlation on a random fifth of the sub-networks of a model fitted to the others."""
    order = torch.randperm(len(table.archs), generator=torch.Generator().manual_seed(seed))
    tested, trained = order.tensor_split([max(2, round(HELD_OUT * order.numel()))])
    model = fit_subnets(select_subnets(table, trained), space)
    held = select_subnets(table, tested)
    return float(spearman_rho(model.table(held.archs) @ model.weights, held.values[:, 0]))


def main(arguments: list[str] | None = None) -> None:
    r"""The command of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="measured sub-networks, .csv or .csv.gz")
    parser.add_argument("--output", type=Path, required=True, help="weights to write, .safetensors")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    started = time.perf_counter()
    table, space = read_accuracies(given.table), MobileNetV3Space()
    card = {
        "data": f"{given.table.name}, {len(table.archs)} distinct sub-networks, all of them",
        "command": "python -m pyg_nas_np.metad2a.mobilenetv3.predictor_training TABLE --output FILE",
        "Spearman on a fifth, fitted without it": round(held_out_spearman(table, space), 4),
        "seed of that split": 0,
    }
    model = fit_subnets(table, space)
    card["seconds"] = round(time.perf_counter() - started, 1)
    write_subnet_model(given.output, model, card)
    logger.info("Wrote %s: %s", given.output, card)


if __name__ == "__main__":
    main()
