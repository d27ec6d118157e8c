r"""Training of MetaD2A's generator on a database, weighted towards accurate architectures."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.features.descriptors import NETWORKS
from pyg_nas_np.metad2a.database import FeatureSets, MetaD2ADatabase
from pyg_nas_np.metad2a.generator import LIMITED, MetaD2AGenerator, cost_of
from pyg_nas_np.predictors.gaussian_process import GaussianProcess
from pyg_nas_np.predictors.kernels import Precomputed
from pyg_nas_np.spaces.graph_codec import GraphCodec, graph_codec
from pyg_nas_np.utils import InvalidLabelsError, drawing_from, fixed_defaults

logger = logging.getLogger(__name__)

CELL_GROUPS = ("live", "paths", "bigrams", NETWORKS)
"""Groups of descriptors with separate kernels."""


class Explained(NamedTuple):
    r"""Accuracies of a database as a sum of a data-set effect and an architecture effect.

    Shapes:
        - **dataset:** ``[n]`` float64, data-set effect in percent.
        - **cell:** ``[n]`` float64, architecture effect in percent.
    """

    dataset: Tensor
    cell: Tensor


@fixed_defaults
def explain(database: MetaD2ADatabase, *, noise: float = 20.0) -> Explained:
    r"""Splits accuracies into a data-set effect and an architecture effect.

    Most of the variance in such a database is between data sets, which is irrelevant to the choice of an architecture.
    A Gaussian process with a sum of kernels separates the two. The data-set kernels are linear in the mean class
    prototype and in the spread of the prototypes (variances 30 and 5, in squared percent). The architecture kernels are
    linear in the types of vertices and their pairs (4) and squared-exponential in each of :data:`CELL_GROUPS` (3). The
    variances maximise the correlation on held-out data sets of MetaD2A's database; no other label was used.

    Args:
        database: The database.
        noise: Variance of the noise.

    Raises:
        InvalidLabelsError: If there are fewer than two tuples.
    """
    if len(database) < 2:
        raise InvalidLabelsError(f"at least two tuples are needed, got {len(database)}")
    used, dataset = database.dataset.unique(return_inverse=True)
    # Tuples of one data set, and of one cell, have equal rows, so kernels are computed for the distinct ones only.
    over_datasets = _dataset_kernel(database.sets(used))
    cells, cell = database.arch.unique(return_inverse=True)
    over_cells = _cell_kernel(database, cells)
    kernels = {
        "data set": Precomputed(lambda a, b: over_datasets[dataset[a]][:, dataset[b]]),
        "cell": Precomputed(lambda a, b: over_cells[cell[a]][:, cell[b]]),
    }
    rows, center = torch.arange(len(database)), database.accuracy.double().mean()
    log_noise = torch.tensor([math.log(noise)], dtype=torch.float64)
    gp = GaussianProcess(kernels).condition(rows, database.accuracy - center, log_noise)
    parts = gp.parts(rows)
    return Explained(center + parts["data set"], parts["cell"])


def _dataset_kernel(sets: FeatureSets) -> Tensor:
    prototypes = sets.prototypes()
    owner = torch.arange(len(sets)).repeat_interleave(sets.dataset_ptr.diff())
    count = sets.dataset_ptr.diff().unsqueeze(1)
    rows = prototypes.features.double()
    mean = rows.new_zeros(len(sets), rows.size(1)).index_add(0, owner, rows) / count
    spread = torch.log(
        (rows.square().new_zeros(len(sets), rows.size(1)).index_add(0, owner, rows.square()) / count - mean.square())
        .clamp_min(0)
        .sum(dim=1, keepdim=True)
        + 1e-8
    )
    return 30.0 * _linear(mean) + 5.0 * _linear(spread)


def _cell_kernel(database: MetaD2ADatabase, cells: Tensor) -> Tensor:
    codec = graph_codec(database.space)
    one = torch.nn.functional.one_hot(codec.types(cells), codec.num_types).double().flatten(1)
    first, second = torch.triu_indices(one.size(1), one.size(1), 1)
    kernel = 4.0 * _linear(torch.cat([one, 0.5 * one[:, first] * one[:, second]], dim=1))
    descriptors = shared_descriptors(database.space)
    table = descriptors.table(cells).double()
    for group in CELL_GROUPS:
        x = table[:, descriptors.groups[group]]
        x = (x - x.mean(dim=0)) / (x.std(dim=0) + 1e-6)
        kernel += 3.0 * torch.exp(-torch.cdist(x, x).square() / (2 * 0.7**2 * x.size(1)))
    return kernel


def _linear(x: Tensor) -> Tensor:
    """Linear kernel of centred features, scaled to a mean variance of one."""
    x = x - x.mean(dim=0)
    return x @ x.mT / x.square().sum(dim=1).mean().clamp_min(1e-12)


@fixed_defaults
def train_generator(
    database: MetaD2ADatabase,
    *,
    steps: int = 1000,
    batch_size: int = 128,
    lr: float = 1e-3,
    sharpness: float = 1.0,
    feature_noise: float = 0.5,
    hidden_channels: int = 56,
    seed: int = 0,
) -> tuple[MetaD2AGenerator, dict[str, Any]]:
    r"""Trains a generator, weighted towards architectures that are accurate on their data set.

    The weight of a tuple is :math:`\exp(\text{sharpness} \cdot s)`, where ``s`` is the architecture effect
    (:func:`explain`) in standard deviations over the database. Each step adds noise to the features of the classes and
    draws limits of cost; tuples beyond the limits have weight zero.

    Args:
        database: The database.
        steps: Gradient steps of AdamW, with a cosine schedule to zero.
        batch_size: Tuples in a step.
        lr: Peak learning rate.
        sharpness: Exponent of the weights; 0 weights all tuples equally.
        feature_noise: Standard deviation of the noise of features, relative to theirs. It makes the generator robust to
            prototypes from other images, or from a classifier instead of images.
        hidden_channels: Width of the generator.
        seed: Seed of weights, batches and noise.

    Returns:
        The generator and its card.
    """
    model = new_generator(graph_codec(database.space), database.classes.num_features, hidden_channels, seed)
    merit = explain(database).cell
    weight = torch.exp(sharpness * (merit - merit.mean()) / merit.std().clamp_min(1e-8)).float()
    types = model.codec.types(database.arch)
    place = model.positions({name: cost_of(database.space, name)(database.arch) for name in LIMITED})
    pool = database.classes
    scale = feature_noise * pool.features.std(dim=0)
    members = database.dataset_classes.split(database.dataset_ptr.diff().tolist())

    def batch(draw: torch.Generator) -> Batch:
        rows = torch.randint(len(database), (batch_size,), generator=draw)
        noisy = pool.features + scale * torch.randn(pool.features.shape, generator=draw)
        classes = [members[dataset] for dataset in database.dataset[rows].tolist()]
        sizes = torch.tensor([0, *map(len, classes)])
        limits = torch.rand(batch_size, len(LIMITED), generator=draw)
        # Each cost is unlimited for three of four tuples, because most uses have no limit.
        limits[torch.rand(limits.shape, generator=draw) < 0.75] = 1.0
        within = (place[rows] <= limits).all(dim=1)
        owners = torch.arange(batch_size)
        sets = noisy, pool.class_ptr, torch.cat(classes), sizes.cumsum(0)
        return Batch(*sets, owners, types[rows], limits, weight[rows] * within)

    card = {
        "tuples": len(database),
        "datasets": int(database.dataset.unique().numel()),
        "cells": int(database.arch.unique().numel()),
        "batch_size": batch_size,
        "sharpness": sharpness,
        "feature_noise": feature_noise,
        **optimize(model, batch, steps=steps, lr=lr, seed=seed),
    }
    return model.eval(), card


class Batch(NamedTuple):
    r"""The batch of a training step: ``B`` architectures of ``T`` data sets over a pool of ``C`` classes.

    Shapes:
        - **features:** ``[N, F]``, of the pool.
        - **class_ptr:** ``[C + 1]``, where the features of each class start.
        - **classes:** classes of each data set, concatenated.
        - **dataset_ptr:** ``[T + 1]``, where the classes of each data set start.
        - **dataset:** ``[B]``, data set of each architecture.
        - **types:** ``[B, V]``.
        - **limits:** ``[B, 2]``, positions of the limits of its costs.
        - **weight:** ``[B]``, weight of each architecture.
    """

    features: Tensor
    class_ptr: Tensor
    classes: Tensor
    dataset_ptr: Tensor
    dataset: Tensor
    types: Tensor
    limits: Tensor
    weight: Tensor


@fixed_defaults
def new_generator(codec: GraphCodec[Any], in_channels: int, hidden_channels: int, seed: int) -> MetaD2AGenerator:
    r"""Returns an untrained generator with seeded weights."""
    with drawing_from(torch.Generator().manual_seed(seed)):
        return MetaD2AGenerator(codec, in_channels, hidden_channels=hidden_channels)


@fixed_defaults
def optimize(
    model: MetaD2AGenerator,
    batch: Callable[[torch.Generator], Batch],
    *,
    steps: int,
    lr: float,
    seed: int,
    constrained: bool = False,
) -> dict[str, float]:
    r"""Trains a generator by AdamW with a cosine schedule to zero.

    Args:
        model: The generator.
        batch: Draws the batch of a step.
        steps: Gradient steps.
        lr: Peak learning rate.
        seed: Seed of batches and noise.
        constrained: See :meth:`MetaD2AGenerator.loss <pyg_nas_np.metad2a.generator.MetaD2AGenerator.loss>`.

    Returns:
        What a model card tells of it: the arguments, the minutes that it took, and the mean reconstruction loss of the
        last hundred steps, in nats.
    """
    started = time.perf_counter()
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    recent: list[float] = []
    for step in range(steps):
        seen = batch(draw)
        # Classes belong to many data sets: each is encoded once.
        prototypes = model.set_encoder.prototypes(seen.features, seen.class_ptr)
        v = model.set_encoder.between(prototypes[seen.classes], seen.dataset_ptr)[seen.dataset]
        loss = model.loss(v, seen.types, seen.limits, seen.weight, draw, constrained=constrained)
        optimizer.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent = [*recent[-99:], float(loss.reconstruction.detach())]
        if (step + 1) % 100 == 0:
            logger.info("Step %d: reconstruction %.3f nats", step + 1, sum(recent) / len(recent))
    return {
        "steps": steps,
        "lr": lr,
        "seed": seed,
        "reconstruction_nats": round(sum(recent) / max(len(recent), 1), 4),
        "minutes": round((time.perf_counter() - started) / 60, 1),
    }
