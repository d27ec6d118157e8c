r"""Learners that need many labels, which join the neural process once there are enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sklearn.ensemble import GradientBoostingRegressor
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.predictors.gnn import GNNPredictor
from pyg_nas_np.predictors.inputs import Architectures, live_cells
from pyg_nas_np.spaces.base import require_index

BOOSTING_FROM = 100
"""Labels from which boosted trees join."""

NETWORKS_FROM = 150
"""Labels from which trained graph networks join."""

LIFT = 2.0
"""Share of boosted trees for one of bagged trees; chosen on other draws than those that the benchmark reports."""

FOLDS = 5
"""Networks, each of which leaves one part of the labels out."""

MOST = 0.8
"""Largest share of the networks."""

_PROBES = 512


class Stacking:
    r"""Boosted trees and graph networks beside a process; the task decides how much either counts.

    Each of :data:`FOLDS` networks is trained without one part of the labels and predicts that part. Against what the
    process predicts of every label from the others, these left-out predictions tell the share of the networks that
    least squares would choose (:func:`best_share`). Boosted trees err less than the bagged trees that the process
    knows, whose left-out predictions cost nothing: their share is :data:`LIFT` times what is best for those.

    Args:
        columns: Columns of the descriptors that the trees split on.
        num_meta: Number of leading columns of the descriptors that are meta-features.
        boosting: Whether there are trees.
        networks: Whether there are networks; they need :data:`FOLDS` labels or more.
        random_state: Seed.
    """

    def __init__(
        self, columns: Sequence[int], num_meta: int, *, boosting: bool, networks: bool, random_state: int = 0
    ) -> None:
        self.columns, self.num_meta = list(columns), num_meta
        self.boosting, self.random_state = boosting, random_state
        self.networks = [
            GNNPredictor(members=1, folds=0, random_state=random_state + k) for k in range(FOLDS * networks)
        ]
        self.tree_share = self.share = 0.0

    def fit(
        self,
        archs: Architectures | None,
        x: Tensor,
        z: Tensor,
        left_out: Tensor,
        state: Mapping[str, Any] | None = None,
    ) -> Self:
        r"""Trains every learner.

        Args:
            archs: The context, ``n`` architectures; not needed where the networks are trained already.
            x: Its descriptors, ``[n, F]``.
            z: Its scores, or how they differ from a prior mean, ``[n]``.
            left_out: Leave-one-out prediction of each score by each member of the bank, bagged trees last, ``[n, K]``.
            state: That of networks that are trained already, of :meth:`state_dict`.
        """
        if self.boosting:
            bagged = best_share(left_out[:, :-1].mean(dim=1) - z, left_out[:, -1] - z)
            self.tree_share = min(LIFT * bagged, MOST)
            self.trees = GradientBoostingRegressor(
                n_estimators=300,
                learning_rate=0.05,
                max_depth=4,
                subsample=0.8,
                max_features=0.3,
                random_state=self.random_state,
            ).fit(x[:, self.columns].numpy(), z.numpy())
        if state:
            self.share = state["share"]
            for network, weights in zip(self.networks, state["networks"], strict=True):
                network._set_state(weights)
        elif self.networks:
            assert archs is not None
            self._train(archs, x[:, : self.num_meta], z.float(), left_out.mean(dim=1))
        return self

    def _train(self, archs: Architectures, x: Tensor, z: Tensor, left_out: Tensor) -> None:
        space = archs.space
        inputs = *live_cells(space, archs.given), x
        generator = torch.Generator().manual_seed(self.random_state)
        fold = torch.randperm(z.numel(), generator=generator) % FOLDS
        ours = torch.empty_like(z)
        for k, network in enumerate(self.networks):
            kept, out = fold != k, fold == k
            network.space_ = space
            # Small batches beyond 256 labels: the same number of passes needs more steps.
            network.steps = 300 if z.numel() <= 1024 else 1000
            network._fit(tuple(part[kept] for part in inputs), z[kept])
            ours[out] = network._predict(tuple(part[out] for part in inputs), False)[0].float()
        probes = Architectures(space, torch.randperm(len(require_index(space)), generator=generator)[:_PROBES])
        spread = self._scores(probes, shared_descriptors(space).table(probes.given)[:, : self.num_meta]).var(dim=0)
        self.share = best_share(left_out - z, ours - z, float(spread.mean()))

    def _scores(self, archs: Architectures, x: Tensor) -> Tensor:
        """Predictions of each network, ``[FOLDS, m]``."""
        inputs = *live_cells(archs.space, archs.given), x
        return torch.stack([network._predict(inputs, False)[0] for network in self.networks])

    def mean(self, base: Tensor, archs: Architectures, x: Tensor) -> Tensor:
        r"""Returns the weighted mean of a process and the learners.

        Args:
            base: Means of the process at the targets, ``[m]``.
            archs: The targets, ``m`` architectures.
            x: Their descriptors, ``[m, F]``.
        """
        mean = base.double()
        if self.tree_share > 0.0:
            trees = torch.from_numpy(self.trees.predict(x[:, self.columns].numpy()))
            mean = torch.lerp(mean, trees, self.tree_share)
        if self.share > 0.0:
            mean = torch.lerp(mean, self._scores(archs, x[:, : self.num_meta]).mean(dim=0), self.share)
        return mean

    def state_dict(self) -> dict[str, Any]:
        r"""Returns what :meth:`fit` would need long for: the state of the networks, if there are any."""
        if not self.networks:
            return {}
        return {"share": self.share, "networks": [network._state() for network in self.networks]}


def best_share(errors: Tensor, other_errors: Tensor, spread: float = 0.0) -> float:
    r"""Returns the share of a learner that minimises the squared error of its mean with a process.

    With errors :math:`e` of the process and :math:`u` of the learner, where that is the mean of :math:`K` networks
    whose variance :math:`s^2` averaging divides by :math:`K` and :math:`u` are the errors of single ones, it is

    .. math::
        \frac{\overline{e^2} - \overline{e u}}
             {\overline{e^2} - 2 \overline{e u} + \overline{u^2} - (1 - 1 / K) s^2},

    cut to 0 … :data:`MOST`.

    Args:
        errors: Of the process at labels that it was not given, ``[n]``.
        other_errors: Of the learner at labels that it was not given, ``[n]``.
        spread: Variance between networks, if the learner is a mean of :data:`FOLDS` of them.

    Example:
        >>> errors = torch.tensor([1.0, -1.0, 1.0, -1.0])
        >>> best_share(errors, errors.roll(1, 0) * torch.tensor([1.0, 1.0, -1.0, -1.0]))
        0.5
    """
    e, u = errors.double(), other_errors.double()
    gain = e.square().mean() - (e * u).mean()
    gap = (e - u).square().mean() - (1.0 - 1.0 / FOLDS) * spread
    if gain <= 0.0:
        return 0.0
    return MOST if gain >= MOST * gap else float(gain / gap)
