r"""Training of the generator of MobileNetV3 sub-networks, weighted towards those that are accurate within a budget."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.datasets.mobilenetv3 import SubNetworks
from pyg_nas_np.metad2a.generator import LIMITED, MetaD2AGenerator, cost_of
from pyg_nas_np.metad2a.generator_training import Batch, new_generator, optimize
from pyg_nas_np.metad2a.mobilenetv3.predictor import SubNetworkModel
from pyg_nas_np.metad2a.mobilenetv3.predictor_training import fit_sub_networks
from pyg_nas_np.spaces import MobileNetV3Arch, MobileNetV3Space
from pyg_nas_np.spaces.graph_codec import MobileNetV3GraphCodec
from pyg_nas_np.utils import fixed_defaults

logger = logging.getLogger(__name__)

SET_SIZES = (2, 100)
"""Bounds of the number of classes in a data set of the training."""

_SETS = 16
_MUTATED = 0.5


class Pool(NamedTuple):
    r"""Architectures for the training.

    Args:
        archs: ``N`` different sub-networks.
        score: Their accuracies in standard deviations of the measured ones, ``[N]`` float64.
        place: Positions of their costs, ``[N, 2]``.
    """

    archs: list[MobileNetV3Arch]
    score: Tensor
    place: Tensor


@fixed_defaults
def grow_pool(
    table: SubNetworks,
    model: SubNetworkModel,
    generator: MetaD2AGenerator,
    *,
    rounds: int = 6,
    size: int = 4000,
    sharpness: float = 10.0,
    seed: int = 0,
) -> Pool:
    r"""Adds sub-networks of predicted accuracy to the measured ones.

    A generator overfits a table of two thousand rows. The pool starts with the measured sub-networks and :obj:`size`
    random ones. Each round adds :obj:`size` children: limits of cost are drawn, then parents within them by
    :func:`draw_rows`, and every stage is taken from either parent; half of the children are then mutated. Accuracies of
    sub-networks without a measurement are predicted.

    Args:
        table: Measured sub-networks.
        model: Predicts the accuracies of the others.
        generator: Gives the positions of costs.
        rounds: Number of rounds.
        size: Number of children per round.
        sharpness: Exponent of the preference for accurate parents.
        seed: Seed of all draws.
    """
    draw = torch.Generator().manual_seed(seed)
    codec: Any = generator.codec
    space = codec.space
    pool = _measure(generator, model, list(table.archs))
    pool.score[:] = (table.values[:, 0] - model.mean) / model.scale
    pool = _joined(pool, [*codec.extremes(), *space.sample(size, draw)], model, generator)
    for number in range(rounds):
        limits = draw_limits(size, draw)
        pairs = draw_rows(pool, limits, 2, sharpness, draw).tolist()
        changed = (torch.rand(size, generator=draw) < _MUTATED).tolist()
        children = []
        for (one, two), change in zip(pairs, changed, strict=True):
            child = space.crossover(pool.archs[one], pool.archs[two], draw)
            children.append(space.mutate(child, draw) if change else child)
        pool = _joined(pool, children, model, generator)
        logger.info("Round %d: %d sub-networks, best %.2f", number + 1, len(pool.archs), float(pool.score.max()))
    return pool


def draw_limits(count: int, draw: torch.Generator) -> Tensor:
    r"""Draws positions of limits, ``[count, 2]``; each cost is unlimited with probability one half."""
    limits = torch.rand(count, len(LIMITED), generator=draw)
    limits[torch.rand(limits.shape, generator=draw) < 0.5] = 1.0
    return limits


def draw_rows(pool: Pool, limits: Tensor, count: int, sharpness: float, draw: torch.Generator) -> Tensor:
    r"""Draws rows of a pool within limits, in proportion to :math:`\exp(\text{sharpness} \cdot \text{score})`.

    Args:
        pool: The pool; its cheapest architecture is within any limit.
        limits: ``[T, 2]``.
        count: Rows for each limit.
        sharpness: Exponent of the preference for accurate architectures.
        draw: Source of randomness.

    Returns:
        ``[T, count]``.
    """
    rows = []
    for part in limits.split(256):
        within = (pool.place[None] <= part[:, None]).all(dim=2)
        logits = (sharpness * pool.score).float().expand_as(within).masked_fill(~within, -torch.inf)
        rows.append(torch.multinomial(logits.softmax(dim=1), count, replacement=True, generator=draw))
    return torch.cat(rows)


@fixed_defaults
def train_sub_network_generator(
    table: SubNetworks,
    classes: Tensor,
    *,
    steps: int = 2000,
    batch_size: int = 256,
    lr: float = 2e-3,
    sharpness: float = 10.0,
    feature_noise: float = 0.5,
    hidden_channels: int = 80,
    rounds: int = 6,
    pool_size: int = 4000,
    seed: int = 0,
) -> tuple[MetaD2AGenerator, dict[str, Any]]:
    r"""Trains a generator on measured sub-networks of Once-for-All and on their children.

    Each step draws data sets and limits of cost, and architectures within the limits by :func:`draw_rows`.

    All accuracies are of one data set. The data sets of the training are random sets of classes, so the generator
    accepts any data set and learns to ignore it.

    Args:
        table: Measured sub-networks; the first column of its values is the accuracy in percent.
        classes: One feature vector for each of the classes that data sets are drawn from, ``[C, F]``.
        steps: Gradient steps of AdamW, with a cosine schedule to zero.
        batch_size: Architectures in a step, a multiple of 16.
        lr: Peak learning rate.
        sharpness: Exponent of the preference for accurate architectures.
        feature_noise: Standard deviation of the noise of features, relative to theirs.
        hidden_channels: Width of the generator.
        rounds: Rounds of :func:`grow_pool`.
        pool_size: Sub-networks that each round adds.
        seed: Seed of weights, pool, batches and noise.

    Returns:
        The generator and its card.
    """
    if batch_size % _SETS:
        raise ValueError(f"batch_size must be a multiple of {_SETS}, got {batch_size}")
    space = MobileNetV3Space()
    # Measurements at one resolution do not apply to others.
    codec = MobileNetV3GraphCodec(space, max(arch.resolution for arch in table.archs))
    model = new_generator(codec, classes.size(1), hidden_channels, seed)
    known = fit_sub_networks(table, space)
    pool = grow_pool(table, known, model, rounds=rounds, size=pool_size, sharpness=sharpness, seed=seed)
    types = codec.types(pool.archs)
    scale = feature_noise * classes.std(dim=0)
    owners = torch.arange(_SETS).repeat_interleave(batch_size // _SETS)

    def batch(draw: torch.Generator) -> Batch:
        low, high = torch.tensor(SET_SIZES).clamp(max=classes.size(0)).log()
        sizes = (low + (high - low) * torch.rand(_SETS, generator=draw)).exp().round().long()
        members = torch.cat([torch.randperm(classes.size(0), generator=draw)[:n] for n in sizes.tolist()])
        noisy = classes[members] + scale * torch.randn(members.numel(), classes.size(1), generator=draw)
        each = torch.arange(members.numel() + 1)
        limits = draw_limits(batch_size // 8, draw)
        rows = draw_rows(pool, limits, 8, sharpness, draw).flatten()
        # Architectures of one limit belong to different data sets.
        shuffled = owners[torch.randperm(batch_size, generator=draw)]
        dataset_ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        limits = limits.repeat_interleave(8, dim=0)
        return Batch(noisy, each, each[:-1], dataset_ptr, shuffled, types[rows], limits, torch.ones(batch_size))

    card = {
        "measured": len(table.archs),
        "pool": len(pool.archs),
        "classes": classes.size(0),
        "batch_size": batch_size,
        "sharpness": sharpness,
        "feature_noise": feature_noise,
        **optimize(model, batch, steps=steps, lr=lr, seed=seed, constrained=True),
    }
    return model.eval(), card


def _measure(generator: MetaD2AGenerator, model: SubNetworkModel, archs: list[MobileNetV3Arch]) -> Pool:
    score = model.table(archs) @ model.weights
    costs = {name: cost_of(generator.codec.space, name)(archs) for name in LIMITED}
    return Pool(archs, score, generator.positions(costs))


def _joined(pool: Pool, archs: list[MobileNetV3Arch], model: SubNetworkModel, generator: MetaD2AGenerator) -> Pool:
    known, codec = set(pool.archs), generator.codec
    # The codec has one resolution, whatever resolution was drawn.
    fresh = [arch for arch in dict.fromkeys(codec.archs(codec.types(archs))) if arch not in known]
    new = _measure(generator, model, fresh)
    return Pool(pool.archs + new.archs, torch.cat([pool.score, new.score]), torch.cat([pool.place, new.place]))
