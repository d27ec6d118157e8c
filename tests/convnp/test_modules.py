"""Ranking modules in one call."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from pyg_nas_np.convnp import rank_modules
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.utils import InvalidArchitectureError, InvalidLabelsError


def build(width: int, depth: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(8, width)]
    for _ in range(depth):
        layers += [nn.ReLU(), nn.Linear(width, width)]
    return nn.Sequential(*layers)


CONFIGS = [(width, depth) for width in (4, 8, 16, 32, 64) for depth in range(1, 6)]
MODULES = [functools.partial(build, *config) for config in CONFIGS]
TRUTH = [width**0.5 - abs(depth - 3) for width, depth in CONFIGS]
INPUT = torch.empty(1, 8)


def test_modules_are_ranked_as_they_are():
    labels = {i: TRUTH[i] for i in range(0, 25, 2)}
    ranked = rank_modules(MODULES, INPUT, labels, cache=False)
    assert sorted(row.position for row in ranked) == list(range(1, 25, 2))
    predicted = [row.predicted for row in ranked]
    assert predicted == sorted(predicted, reverse=True)
    tau = kendall_tau(torch.tensor(predicted), torch.tensor([TRUTH[row.position] for row in ranked]))
    assert float(tau) > 0.6
    best = ranked[0]
    assert best.num_parameters == sum(p.numel() for p in MODULES[best.position]().parameters())
    assert best.std > 0


def test_labels_in_a_list_and_losses():
    labels = [loss if i % 2 else None for i, loss in enumerate(TRUTH)]
    ranked = rank_modules(MODULES, INPUT, labels, maximize=False, predictor=None, cache=False)
    assert [row.predicted for row in ranked] == sorted(row.predicted for row in ranked)


@pytest.mark.parametrize("labels", [{}, [None] * 25, [float("nan")] * 25, {25: 1.0}, {-1: 1.0}])
def test_labels_must_fit(labels):
    with pytest.raises(InvalidLabelsError, match="25 modules"):
        rank_modules(MODULES, INPUT, labels, cache=False)


def test_a_module_that_cannot_be_traced_is_named():
    with pytest.raises(InvalidArchitectureError, match="module 1: Linear cannot be traced"):
        rank_modules([MODULES[0], nn.Linear(3, 3)], INPUT, {0: 1.0}, cache=False)
