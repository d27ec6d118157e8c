r"""Learners that need many labels, which join the neural process once there are enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sklearn.ensemble import GradientBoostingRegressor
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.predictors.gnn import GNNPredictor
from pyg_nas_np.spaces import SearchSpace

BOOSTING_FROM = 100
"""Labels from which boosted trees join."""

NETWORKS_FROM = 150
"""Labels from which trained graph networks join."""


def expert_weights(count: int) -> dict[str, float]:
    r"""Returns the weights of the learners beside a process of weight 1, given the number of labels.

    They were chosen on NAS-Bench-101 and -201, on other draws than those that the benchmark reports; ``networks`` grow
    with the labels, as trained graph networks overtake Gaussian processes on NAS-Bench-101 at a few hundred labels.

    Example:
        >>> expert_weights(50), expert_weights(200)
        ({}, {'boosting': 0.3, 'networks': 0.4})
    """
    weights = {}
    if count >= BOOSTING_FROM:
        weights["boosting"] = 0.3
    if count >= NETWORKS_FROM:
        weights["networks"] = min(1.0, count / 500)
    return weights


class Experts:
    r"""Boosted trees and an ensemble of two trained graph networks, beside a process.

    Args:
        weights: Of ``boosting`` and ``networks`` beside a process of weight 1; a learner without one is not trained.
        columns: Columns of the descriptors that the trees split on.
        num_meta: Number of leading columns of the descriptors that are meta-features.
        random_state: Seed.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        columns: Sequence[int],
        num_meta: int,
        *,
        random_state: int = 0,
    ) -> None:
        self.weights, self.random_state = dict(weights), random_state
        self.columns, self.num_meta = list(columns), num_meta

    def fit(
        self,
        space: SearchSpace[Any] | None,
        index: Tensor,
        x: Tensor,
        z: Tensor,
        networks: Mapping[str, Any] | None = None,
    ) -> Self:
        r"""Trains every learner that has a weight.

        Args:
            space: The search space; not needed where the graph networks are trained already.
            index: Official indices of the context, ``[n]``.
            x: Its descriptors, ``[n, F]``.
            z: Its scores, ``[n]``.
            networks: State of the graph networks, where they are trained already.
        """
        if "boosting" in self.weights:
            self.trees = GradientBoostingRegressor(
                n_estimators=300,
                learning_rate=0.05,
                max_depth=4,
                subsample=0.8,
                max_features=0.3,
                random_state=self.random_state,
            ).fit(x[:, self.columns].numpy(), z.numpy())
        if "networks" in self.weights:
            # Small batches beyond 256 labels: the same number of passes needs more steps.
            steps = 300 if z.numel() <= 1024 else 1000
            self.networks = GNNPredictor(steps=steps, folds=0, random_state=self.random_state)
            if networks is None:
                assert space is not None
                self.networks.space_ = space
                self.networks._fit((index, x[:, : self.num_meta]), z)
            else:
                self.networks._set_state(dict(networks))
        return self

    def mean(self, space: SearchSpace[Any], base: Tensor, index: Tensor, x: Tensor) -> Tensor:
        r"""Returns the weighted mean of a process and the learners.

        Args:
            space: The search space.
            base: Means of the process at the targets, ``[m]``.
            index: Official indices of the targets, ``[m]``.
            x: Their descriptors, ``[m, F]``.
        """
        total = base.double()
        if "boosting" in self.weights:
            total = total + self.weights["boosting"] * torch.from_numpy(self.trees.predict(x[:, self.columns].numpy()))
        if "networks" in self.weights:
            self.networks.space_ = space
            scores = self.networks._predict((index, x[:, : self.num_meta]), False)[0]
            total = total + self.weights["networks"] * scores
        return total / (1.0 + sum(self.weights.values()))

    def state_dict(self) -> dict[str, Any]:
        r"""Returns what :meth:`fit` would need long for: the state of the graph networks, if there are any."""
        return self.networks._state() if "networks" in self.weights else {}
