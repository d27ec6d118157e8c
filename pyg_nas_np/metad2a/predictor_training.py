r"""Meta-training of the predictor on a database of many data sets."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from pyg_nas_np.convnp.cell_bank import bank_groups
from pyg_nas_np.convnp.predictor import ConvNPPredictor
from pyg_nas_np.features import Descriptors, shared_descriptors
from pyg_nas_np.features.descriptors import NETWORKS
from pyg_nas_np.metad2a.database import FeatureSets, MetaD2ADatabase
from pyg_nas_np.metad2a.joint_gp import JointGP
from pyg_nas_np.metad2a.pair_regressor import PairRegressor
from pyg_nas_np.predictors.inputs import Architectures
from pyg_nas_np.utils import (
    InvalidFeaturesError,
    drawing_from,
    fixed_defaults,
)

logger = logging.getLogger(__name__)

Estimator = Literal["both", "gp", "network"]
"""The mean of the two, the Gaussian process alone, or the network alone."""

AUXILIARY = "MetaD2A"
_COORDINATES = 32
_LEAST_SCALE, _IGNORED = 1e-3, 1e30


@dataclass(frozen=True, eq=False)
class PerformanceModel:
    r"""Two estimators of accuracies on a new data set, fitted to a database of many.

    Args:
        gp: The Gaussian process.
        network: The network.
        mean: Mean of the accuracies that the network was trained on.
        scale: Their standard deviation.
        noise: Root mean squared error of the network on held-out data sets, in percent.
    """

    # Chosen on CIFAR-10 and CIFAR-100; weights from .25 to 2 rank better cells first than 0 on both.
    prior: ClassVar[float] = 0.5
    note: ClassVar[str] = (
        "Accuracies are on the scale of the 20-class data sets of the meta-training; their order is what counts."
    )

    gp: JointGP
    network: PairRegressor
    mean: float
    scale: float
    noise: float

    @fixed_defaults
    def describe(self, archs: Architectures) -> Tensor:
        r"""Returns all descriptors of the architectures, ``[n, D]``."""
        cells: Tensor = shared_descriptors(self.gp.space).table(archs.given)
        return cells

    @fixed_defaults
    def condition(self, estimator: Estimator, sets: FeatureSets, archs: Architectures, y: Tensor) -> ConvNPPredictor:
        r"""Returns a ConvNP predictor with measurements on a data set as context.

        Predictions for the whole space are its auxiliary labels.

        Args:
            estimator: The estimator that predicts.
            sets: The data set.
            archs: ``n`` architectures.
            y: Their accuracies, ``[n]``, at least two different ones.
        """
        space = self.gp.space
        cells = shared_descriptors(space).table()
        table, _ = self.predict(estimator, sets, torch.zeros(cells.size(0), dtype=torch.long), cells, False)
        return ConvNPPredictor(space).fit(archs, y, auxiliary={AUXILIARY: table})

    @torch.no_grad()
    @fixed_defaults
    def predict(
        self, estimator: Estimator, sets: FeatureSets, dataset: Tensor, cells: Tensor, return_std: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        r"""Predicts accuracies in percent.

        Args:
            estimator: The estimator that predicts.
            sets: ``T`` data sets.
            dataset: The data set of each pair, ``[n]``.
            cells: All descriptors of its architecture, ``[n, D]``.
            return_std: Whether to return standard deviations, which take longer than the means.

        Returns:
            Means and standard deviations of a new measurement or :obj:`None`, ``[n]`` float32.

        Raises:
            InvalidFeaturesError: If the features have another width than those of the database.
        """
        if sets.num_features != self.network.in_channels:
            raise InvalidFeaturesError(
                f"the predictor was trained on {self.network.in_channels} features a class, got {sets.num_features}; "
                f"compute them with the same network as those of the database"
            )
        if estimator == "gp":
            return self.gp.predict(sets, dataset, cells, return_std)
        if estimator == "both":
            one, one_std = self.predict("gp", sets, dataset, cells, return_std)
            other, other_std = self.predict("network", sets, dataset, cells, return_std)
            mean = (one + other) / 2
            if one_std is None or other_std is None:
                return mean, None
            # Law of total variance over the two.
            variance = (one_std.square() + other_std.square()) / 2 + ((one - other) / 2).square()
            return mean, variance.sqrt()
        columns = cell_inputs(shared_descriptors(self.gp.space))
        guess = self.network(sets.features, sets.class_ptr, sets.dataset_ptr, dataset, cells[:, columns])
        return self.mean + self.scale * guess, torch.full_like(guess, self.noise) if return_std else None


def cell_inputs(descriptors: Descriptors) -> list[int]:
    r"""Returns the columns of descriptors that the network sees."""
    groups = bank_groups(descriptors)
    chosen = [column for name, part in groups.items() if name != NETWORKS for column in part]
    cost = [column for column in descriptors.groups.get("cost", []) if column not in chosen]
    return [*chosen, *cost, *groups[NETWORKS][:_COORDINATES]]


@fixed_defaults
def train_performance_model(
    database: MetaD2ADatabase,
    *,
    epochs: int = 25,
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    dropout: float = 0.1,
    batch_size: int = 256,
    seed: int = 0,
) -> PerformanceModel:
    r"""Trains both estimators on a database.

    The network is trained on nine of ten folds of the data sets. Its root mean squared error on the tenth is the
    standard deviation of its predictions.

    Args:
        database: The tuples to learn from: of a split, its training part.
        epochs: Passes of the network over the tuples.
        lr: Highest learning rate of its one-cycle schedule.
        weight_decay: Weight decay of AdamW.
        dropout: Share of activations that training drops.
        batch_size: Number of tuples in a batch.
        seed: Seed of folds, weights and batches.

    Raises:
        ValueError: If there are fewer than ten class lists with tuples.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from pyg_nas_np.metad2a import build_database
        >>> from pyg_nas_np.spaces.registry import space_by_name
        >>> pool = [torch.randn(5, 8) for _ in range(30)]
        >>> with TemporaryDirectory() as folder:
        ...     space = space_by_name("nasbench201")
        ...     database = build_database(folder, space, pool, lambda arch, dataset: 50.0 + dataset[0], num_tuples=20)
        >>> train_performance_model(database, epochs=1).gp.hyperparameters.keys()
        dict_keys(['live', 'paths', 'strings', 'networks', 'interaction', 'classes_0.7', 'classes_1.5', 'noise'])
    """
    start = time.perf_counter()
    gp = JointGP().fit(database)
    logger.info("Fitted the GP (%.0f s): %s", time.perf_counter() - start, gp.hyperparameters)
    columns = cell_inputs(shared_descriptors(database.space))
    cells = shared_descriptors(database.space).table(database.arch)[:, columns]
    mean, scale = gp.mean, gp.scale
    target = ((database.accuracy - mean) / scale).float()
    split = database.split_by_dataset(10, 0, seed=seed)
    with drawing_from(torch.Generator().manual_seed(seed)):
        scales = cells.std(dim=0)
        # Descriptors that are constant in the database are divided by a huge number, so that they are ignored.
        scales = torch.where(scales < _LEAST_SCALE, _IGNORED, scales)
        network = PairRegressor(database.classes.num_features, scales, dropout=dropout)
        pairs = _Pairs(network, database, cells)
        _train(network, pairs, target, split.train, epochs, lr, weight_decay, batch_size)
    network.eval()
    with torch.no_grad():
        noise = scale * float((pairs(split.test) - target[split.test]).square().mean().sqrt())
    logger.info("Trained the network (%.0f s): error %.2f %% on held-out data sets", time.perf_counter() - start, noise)
    return PerformanceModel(gp, network, mean, scale, noise)


class _Pairs:
    """Predictions of a network in training for tuples of a database; each class is encoded once per batch."""

    def __init__(self, network: PairRegressor, database: MetaD2ADatabase, cells: Tensor) -> None:
        self.network, self.database, self.cells = network, database, cells

    def __call__(self, rows: Tensor) -> Tensor:
        datasets, where = self.database.dataset[rows].unique(return_inverse=True)
        classes, dataset_ptr = self.database.members(datasets)
        pool = self.database.classes
        prototypes = self.network.within(pool.features, pool.class_ptr)[classes]
        return self.network.join(self.network.between(prototypes, dataset_ptr)[where], self.cells[rows])


def _train(
    network: PairRegressor,
    pairs: _Pairs,
    target: Tensor,
    rows: Tensor,
    epochs: int,
    lr: float,
    weight_decay: float,
    batch_size: int,
) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay)
    steps = epochs * math.ceil(rows.numel() / batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    network.train()
    # disable=None: no bar if the output is not a terminal.
    for _ in tqdm(range(epochs), desc="meta-training", disable=None):
        for batch in rows[torch.randperm(rows.numel())].split(batch_size):
            loss = (pairs(batch) - target[batch]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
