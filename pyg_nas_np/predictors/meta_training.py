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
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from pyg_nas_np.datasets import FeatureSets, MetaDataset
from pyg_nas_np.features import Descriptors, shared_descriptors
from pyg_nas_np.features.descriptors import NETWORKS, TREND
from pyg_nas_np.nn.meta_regressor import MetaRegressor
from pyg_nas_np.predictors.bank import bank_groups
from pyg_nas_np.predictors.weights import WEIGHTS
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, MissingWeightsError, atomic_path

logger = logging.getLogger(__name__)

FORMAT = "pyg_nas_np.meta_performance/1"
PROBE = "descriptors of the first architectures"
_COORDINATES = 32
_LEAST_SCALE = 1e-3


@dataclass(frozen=True, eq=False)
class MetaModel:
    r"""An ensemble of :class:`~pyg_nas_np.nn.MetaRegressor`, each trained without one fold of the tasks.

    Args:
        members: The networks.
        mean: Mean of the accuracies of the database.
        scale: Their standard deviation.
        noise: Root mean squared error of a member on tasks that it was trained without, in percent.
    """

    members: tuple[MetaRegressor, ...]
    mean: float
    scale: float
    noise: float

    @torch.no_grad()
    def predict(self, sets: FeatureSets, task: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        r"""Predicts accuracies in percent.

        Args:
            sets: ``T`` data sets.
            task: The data set of each pair, ``[n]``.
            cells: The descriptors that :func:`cell_inputs` selects, ``[n, D]``.

        Returns:
            Means and standard deviations of a new measurement, ``[n]``.
        """
        guesses = torch.stack(
            [member(sets.features, sets.class_ptr, sets.task_ptr, task, cells) for member in self.members]
        )
        spread = guesses.var(dim=0, unbiased=False) * self.scale**2
        return self.mean + self.scale * guesses.mean(dim=0), (spread + self.noise**2).sqrt()


def cell_inputs(descriptors: Descriptors) -> list[int]:
    r"""Returns the columns of descriptors that the networks see."""
    groups = bank_groups(descriptors)
    chosen = [column for name, part in groups.items() if name != NETWORKS for column in part]
    cost = [column for column in descriptors.groups.get("cost", []) if column not in chosen]
    return [*chosen, *cost, *groups[NETWORKS][:_COORDINATES]]


def meta_train(
    database: MetaDataset,
    *,
    members: int = 5,
    epochs: int = 25,
    width: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    dropout: float = 0.1,
    batch_size: int = 256,
    seed: int = 0,
) -> MetaModel:
    r"""Trains an ensemble on a database.

    Member ``k`` is trained without fold ``k`` of the tasks; what it gets wrong there is the noise of the predictions.

    Args:
        database: The tuples to learn from: of a split, its training part.
        members: Number of networks, at least 2.
        epochs: Passes over the tuples.
        width: Dimensions that the features of classes are projected to: their leading principal components.
        lr: Highest learning rate of the one-cycle schedule.
        weight_decay: Weight decay of AdamW.
        dropout: Share of activations that training drops.
        batch_size: Number of tuples in a batch.
        seed: Seed of folds, weights and batches.

    Raises:
        ValueError: If there are fewer class lists with tuples than :obj:`members`.
    """
    start = time.perf_counter()
    columns = cell_inputs(shared_descriptors(database.space))
    cells = shared_descriptors(database.space).table(database.arch)[:, columns]
    projection = _projection(database.classes, width)
    cell_scale = cells.std(dim=0).clamp_min(_LEAST_SCALE)
    mean, scale = float(database.accuracy.mean()), float(database.accuracy.std()) or 1.0
    target = ((database.accuracy - mean) / scale).float()
    trained, squares = [], torch.zeros(())
    # disable=None: no bar where the output is not a terminal.
    for k in tqdm(range(members), desc="meta-training", disable=None):
        split = database.split_by_task(members, k, seed=seed)
        # Layers draw their weights from the global generator; its state is given back.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * members + k)
            network = MetaRegressor(projection, cell_scale, dropout=dropout)
            pairs = _Pairs(network, database, cells)
            _train(network, pairs, target, split.train, epochs, lr, weight_decay, batch_size)
        network.eval()
        with torch.no_grad():
            error = (pairs(split.test) - target[split.test]).square()
        squares += error.sum()
        trained.append(network)
        logger.info(
            "Member %d: error %.2f %% on tasks left out (%.0f s)",
            k,
            scale * float(error.mean().sqrt()),
            time.perf_counter() - start,
        )
    return MetaModel(tuple(trained), mean, scale, scale * float((squares / len(database)).sqrt()))


class _Pairs:
    """Predictions of a network in training for tuples of a database, each class encoded once a batch."""

    def __init__(self, network: MetaRegressor, database: MetaDataset, cells: Tensor) -> None:
        self.network, self.database, self.cells = network, database, cells
        self.projected = network.project(database.classes.features, database.classes.class_ptr)

    def __call__(self, rows: Tensor) -> Tensor:
        tasks, where = self.database.task[rows].unique(return_inverse=True)
        classes, task_ptr = self.database.members(tasks)
        prototypes = self.network.within(self.projected)[classes]
        return self.network.join(self.network.between(prototypes, task_ptr)[where], self.cells[rows])


def _train(
    network: MetaRegressor,
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
    for _ in range(epochs):
        for batch in rows[torch.randperm(rows.numel())].split(batch_size):
            loss = (pairs(batch) - target[batch]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()


def _projection(classes: FeatureSets, width: int) -> Tensor:
    """Leading principal axes of the classes' directions, scaled to projections of typical norm ``width ** 0.25``."""
    directions = normalize(classes.prototypes().features, dim=1)
    leading = torch.linalg.svd(directions, full_matrices=False).Vh[:width].t()
    return (leading * (width**0.25 / (directions @ leading).norm(dim=1).mean())).contiguous()


# -- files ----------------------------------------------------------------------------------------------------------


def write_meta_model(
    path: str | os.PathLike[str], model: MetaModel, space: SearchSpace[Any], card: Mapping[str, Any]
) -> None:
    r"""Writes a model as safetensors, with the descriptors that it expects of a few cells, atomically."""
    first = model.members[0]
    tensors = {"projection": first.projection, "cell_scale": first.cell_scale, PROBE: _probe(space)}
    for k, member in enumerate(model.members):
        tensors |= {f"{k}.{name}": value for name, value in member.named_parameters()}
    metadata = {
        "format": FORMAT,
        "space": space.name,
        "config": json.dumps(first.config),
        "scalars": json.dumps([len(model.members), model.mean, model.scale, model.noise]),
        "card": json.dumps(card),
    }
    with atomic_path(path) as tmp:
        save_file({name: value.detach().contiguous() for name, value in tensors.items()}, tmp, metadata)


def read_meta_model(path: str | os.PathLike[str], space: SearchSpace[Any]) -> MetaModel:
    r"""Reads a model for a space.

    Raises:
        DataFileError: If the file is missing, corrupt or of another format.
        InvalidArchitectureError: If the model is for another space, or for other descriptors of it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataFileError(f"{os.fspath(path)} is missing, corrupt or not a safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise DataFileError(f"{os.fspath(path)} has format {metadata.get('format')!r}, expected {FORMAT!r}")
    probe, projection, cell_scale = state.pop(PROBE), state.pop("projection"), state.pop("cell_scale")
    own = _probe(space) if metadata["space"] == space.name else None
    if own is None or probe.shape != own.shape or not torch.allclose(probe, own, atol=1e-2, rtol=1e-2):
        raise InvalidArchitectureError(
            f"{os.fspath(path)} was trained for other descriptors of {metadata['space']}; train again with meta_train()"
        )
    count, mean, scale, noise = json.loads(metadata["scalars"])
    members = []
    for k in range(count):
        member = MetaRegressor(projection, cell_scale, **json.loads(metadata["config"]))
        own_state = {name.partition(".")[2]: value for name, value in state.items() if name.startswith(f"{k}.")}
        member.load_state_dict(own_state | {"projection": projection, "cell_scale": cell_scale})
        members.append(member.eval())
    return MetaModel(tuple(members), mean, scale, noise)


@lru_cache(maxsize=4)
def shipped_meta_model(space: SearchSpace[Any]) -> MetaModel:
    r"""Returns the model that the package ships for a space.

    Raises:
        MissingWeightsError: If it ships none.
    """
    path = WEIGHTS / f"metad2a-predictor-{space.name}.safetensors"
    if not path.exists():
        raise MissingWeightsError(
            f"no meta-trained predictor is shipped for the space '{space.name}'; train one with meta_train(), write it "
            f"with write_meta_model() and pass MetaPerformancePredictor(weights=path)"
        )
    return read_meta_model(path, space)


def _probe(space: SearchSpace[Any]) -> Tensor:
    """Descriptors of a few cells; not the costs, which differ between the tasks of one space."""
    descriptors = shared_descriptors(space)
    varying = {column for name in ("cost", TREND) for column in descriptors.groups.get(name, [])}
    columns = [column for column in cell_inputs(descriptors) if column not in varying]
    return descriptors.table(torch.arange(min(8, len(space))))[:, columns]
