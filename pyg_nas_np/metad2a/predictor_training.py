r"""Meta-training: from a database of many data sets to networks that predict on a new one, and their files."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from pyg_nas_np.convnp.bank import bank_groups
from pyg_nas_np.convnp.predictor import ConvNPPredictor
from pyg_nas_np.convnp.weights import WEIGHTS
from pyg_nas_np.features import Descriptors, shared_descriptors
from pyg_nas_np.features.descriptors import NETWORKS, TREND
from pyg_nas_np.metad2a.database import FeatureSets, MetaD2ADatabase
from pyg_nas_np.metad2a.joint_gp import JointGP
from pyg_nas_np.metad2a.mobilenetv3.predictor import SubnetModel, read_subnet_model
from pyg_nas_np.metad2a.pair_regressor import PairRegressor
from pyg_nas_np.predictors.inputs import Graphs, meta_features
from pyg_nas_np.spaces import MobileNetV3Space, SearchSpace
from pyg_nas_np.utils import (
    InvalidArchitectureError,
    InvalidFeaturesError,
    MissingWeightsError,
    atomic_path,
    read_tensors,
)

logger = logging.getLogger(__name__)

Form = Literal["both", "process", "regression"]
"""The mean of the two, the Gaussian process alone, or the network alone."""

FORMAT = "pyg_nas_np.meta_performance/1"
TABLE = "meta-prediction"
PROBE = "descriptors of the first architectures"
_COORDINATES = 32
_LEAST_SCALE = 1e-3


@dataclass(frozen=True, eq=False)
class PerformanceModel:
    r"""What a database of many data sets teaches about a new one, in two forms.

    Args:
        process: The Gaussian process.
        network: The network.
        mean: Mean of the accuracies that the network was trained on.
        scale: Their standard deviation.
        noise: Root mean squared error of the network on tasks that it was trained without, in percent.
    """

    process: JointGP
    network: PairRegressor
    mean: float
    scale: float
    noise: float

    def describe(self, graphs: Graphs) -> Tensor:
        r"""Returns all descriptors of the architectures, ``[n, D]``."""
        return meta_features(graphs, shared_descriptors(self.process.space))

    def condition(self, form: Form, sets: FeatureSets, graphs: Graphs, y: Tensor) -> ConvNPPredictor:
        r"""Returns a neural process with measurements on a data set as context.

        What is predicted for the whole space stands beside them as the table of another task.

        Args:
            form: Which model predicts.
            sets: The data set.
            graphs: ``n`` architectures.
            y: Their accuracies, ``[n]``, at least two different ones.
        """
        space = self.process.space
        cells = shared_descriptors(space).table()
        table, _ = self.predict(form, sets, torch.zeros(cells.size(0), dtype=torch.long), cells, False)
        return ConvNPPredictor(space).fit(graphs, y, auxiliary={TABLE: table})

    @torch.no_grad()
    def predict(
        self, form: Form, sets: FeatureSets, task: Tensor, cells: Tensor, return_std: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        r"""Predicts accuracies in percent.

        Args:
            form: Which model predicts.
            sets: ``T`` data sets.
            task: The data set of each pair, ``[n]``.
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
        if form == "process":
            return self.process.predict(sets, task, cells, return_std)
        if form == "both":
            one, one_std = self.predict("process", sets, task, cells, return_std)
            other, other_std = self.predict("regression", sets, task, cells, return_std)
            mean = (one + other) / 2
            if one_std is None or other_std is None:
                return mean, None
            # Law of total variance over the two.
            variance = (one_std.square() + other_std.square()) / 2 + ((one - other) / 2).square()
            return mean, variance.sqrt()
        columns = cell_inputs(shared_descriptors(self.process.space))
        guess = self.network(sets.features, sets.class_ptr, sets.task_ptr, task, cells[:, columns])
        return self.mean + self.scale * guess, torch.full_like(guess, self.noise) if return_std else None


AnyPerformanceModel: TypeAlias = PerformanceModel | SubnetModel
"""What predicts on a new data set: describes architectures, predicts, and is conditioned on measurements."""


def cell_inputs(descriptors: Descriptors) -> list[int]:
    r"""Returns the columns of descriptors that the network sees."""
    groups = bank_groups(descriptors)
    chosen = [column for name, part in groups.items() if name != NETWORKS for column in part]
    cost = [column for column in descriptors.groups.get("cost", []) if column not in chosen]
    return [*chosen, *cost, *groups[NETWORKS][:_COORDINATES]]


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
    r"""Trains both forms on a database.

    The network leaves one of ten folds of the tasks out; what it gets wrong there is the noise of its predictions.

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
        ...     database = build_database(folder, space, pool, lambda arch, task: 50.0 + task[0], num_tuples=20)
        >>> train_performance_model(database, epochs=1).process.hyperparameters.keys()
        dict_keys(['live', 'paths', 'strings', 'networks', 'taste', 'classes_0.7', 'classes_1.5', 'noise'])
    """
    start = time.perf_counter()
    process = JointGP().fit(database)
    logger.info("Fitted the process (%.0f s): %s", time.perf_counter() - start, process.hyperparameters)
    columns = cell_inputs(shared_descriptors(database.space))
    cells = shared_descriptors(database.space).table(database.arch)[:, columns]
    mean, scale = process.mean, process.scale
    target = ((database.accuracy - mean) / scale).float()
    split = database.split_by_task(10, 0, seed=seed)
    # Layers draw their weights from the global generator; its state is given back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        scales = cells.std(dim=0)
        # What never varies teaches nothing: divided by infinity, it is ignored where it does vary later.
        scales = torch.where(scales < _LEAST_SCALE, math.inf, scales)
        network = PairRegressor(database.classes.num_features, scales, dropout=dropout)
        pairs = _Pairs(network, database, cells)
        _train(network, pairs, target, split.train, epochs, lr, weight_decay, batch_size)
    network.eval()
    with torch.no_grad():
        noise = scale * float((pairs(split.test) - target[split.test]).square().mean().sqrt())
    logger.info("Trained the network (%.0f s): error %.2f %% on tasks left out", time.perf_counter() - start, noise)
    return PerformanceModel(process, network, mean, scale, noise)


class _Pairs:
    """Predictions of a network in training for tuples of a database, each class encoded once a batch."""

    def __init__(self, network: PairRegressor, database: MetaD2ADatabase, cells: Tensor) -> None:
        self.network, self.database, self.cells = network, database, cells

    def __call__(self, rows: Tensor) -> Tensor:
        tasks, where = self.database.task[rows].unique(return_inverse=True)
        classes, task_ptr = self.database.members(tasks)
        pool = self.database.classes
        prototypes = self.network.within(pool.features, pool.class_ptr)[classes]
        return self.network.join(self.network.between(prototypes, task_ptr)[where], self.cells[rows])


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
    # disable=None: no bar where the output is not a terminal.
    for _ in tqdm(range(epochs), desc="meta-training", disable=None):
        for batch in rows[torch.randperm(rows.numel())].split(batch_size):
            loss = (pairs(batch) - target[batch]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()


# -- files ----------------------------------------------------------------------------------------------------------


def write_performance_model(
    path: str | os.PathLike[str], model: PerformanceModel, space: SearchSpace[Any], card: Mapping[str, Any]
) -> None:
    r"""Writes a model as safetensors, with the descriptors that it expects of a few cells, atomically."""
    tensors = {"cell_scale": model.network.cell_scale, PROBE: _probe(space)}
    tensors |= {f"network.{name}": value for name, value in model.network.named_parameters()}
    tensors |= {f"process.{name}": value for name, value in model.process.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "space": space.name,
        "config": json.dumps({"in_channels": model.network.in_channels, **model.network.config}),
        "scalars": json.dumps([model.mean, model.scale, model.noise]),
        "card": json.dumps(card),
    }
    with atomic_path(path) as tmp:
        save_file({name: value.detach().contiguous() for name, value in tensors.items()}, tmp, metadata)


def read_performance_model(path: str | os.PathLike[str], space: SearchSpace[Any]) -> PerformanceModel:
    r"""Reads a model for a space.

    Raises:
        DataFileError: If the file is missing, corrupt or of another format.
        InvalidArchitectureError: If the model is for another space, or for other descriptors of it.
    """
    metadata, state = read_tensors(path, FORMAT, infinite=("cell_scale",))
    probe, cell_scale = state.pop(PROBE), state.pop("cell_scale")
    own = _probe(space) if metadata["space"] == space.name else None
    if own is None or probe.shape != own.shape or not torch.allclose(probe, own, atol=1e-2, rtol=1e-2):
        raise InvalidArchitectureError(
            f"{os.fspath(path)} was trained for other descriptors of {metadata['space']}; train again with "
            "train_performance_model()"
        )
    config = json.loads(metadata["config"])
    network = PairRegressor(config.pop("in_channels"), cell_scale, **config)
    network.load_state_dict({**_part(state, "network."), "cell_scale": cell_scale})
    process = JointGP().load_state_dict(_part(state, "process."), space)
    return PerformanceModel(process, network.eval(), *json.loads(metadata["scalars"]))


def read_performance_file(path: str | os.PathLike[str], space: SearchSpace[Any]) -> AnyPerformanceModel:
    r"""Reads a model of whichever kind the space has; see :func:`read_performance_model`."""
    return (
        read_subnet_model(path, space) if isinstance(space, MobileNetV3Space) else read_performance_model(path, space)
    )


@lru_cache(maxsize=4)
def shipped_performance_model(space: SearchSpace[Any]) -> AnyPerformanceModel:
    r"""Returns the model that the package ships for a space.

    Raises:
        MissingWeightsError: If it ships none.
    """
    path = WEIGHTS / f"metad2a-predictor-{space.name}.safetensors"
    if not path.exists():
        raise MissingWeightsError(
            f"no meta-trained predictor is shipped for the space '{space.name}'; train one with "
            "train_performance_model(), write it with write_performance_model() and pass MetaD2APredictor(weights=path)"
        )
    return read_performance_file(path, space)


def _probe(space: SearchSpace[Any]) -> Tensor:
    """Descriptors of a few cells; not the costs, which differ between the tasks of one space."""
    descriptors = shared_descriptors(space)
    varying = {column for name in ("cost", TREND) for column in descriptors.groups.get(name, [])}
    columns = [column for column in cell_inputs(descriptors) if column not in varying]
    return descriptors.table(torch.arange(min(8, len(space))))[:, columns]


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
