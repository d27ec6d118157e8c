r"""Stacking of the process with learners that need many labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sklearn.ensemble import GradientBoostingRegressor
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.convnp.forest import LAG, continues
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.features.tables import KeptRows
from pyg_nas_np.ops import TreeEnsemble, tree_sum
from pyg_nas_np.predictors.gnn import GNNPredictor
from pyg_nas_np.predictors.inputs import Architectures, live_cells
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.spaces.base import require_cells, require_index
from pyg_nas_np.utils import map_chunks

BOOSTING_FROM = 100
"""Number of labels from which boosted trees are stacked."""

NETWORKS_FROM = 150
"""Number of labels from which trained graph networks are stacked."""

LIFT = 2.0
"""Stacking weight of the boosted trees over that of the bagged trees; chosen on other draws than those that the
benchmark reports."""

FOLDS = 5
"""Number of networks; each is trained without one fold of the labels."""

MOST = 0.8
"""Largest stacking weight."""

GROWTH = 1.1
"""Networks serve until there are so many times the labels that they were trained on."""

CHUNK = 1 << 12
"""Architectures that are predicted at a time."""

_PROBES = 512


class Stacking:
    r"""Boosted trees and graph networks, averaged with a process by stacking weights.

    Each of :data:`FOLDS` networks is trained without one fold of the labels and predicts that fold. The stacking weight
    of the networks is the least-squares weight of these held-out predictions against the leave-one-out predictions of
    the bank (:func:`best_share`). Held-out predictions of boosted trees would need further fits. Their stacking weight
    is :data:`LIFT` times the least-squares weight of the bank's bagged trees, whose out-of-bag predictions are known.

    Args:
        columns: Columns of the descriptors that the trees split on.
        num_meta: Number of leading columns of the descriptors that are meta-features.
        boosting: Whether to use boosted trees.
        networks: Whether to use networks; they need at least :data:`FOLDS` labels.
        device: Where the networks run, see :func:`~pyg_nas_np.utils.devices.as_device`.
        random_state: Seed.
    """

    trees: GradientBoostingRegressor
    _nodes: TreeEnsemble

    def __init__(
        self,
        columns: Sequence[int],
        num_meta: int,
        *,
        boosting: bool,
        networks: bool,
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        self.columns, self.num_meta = list(columns), num_meta
        self.boosting, self.random_state = boosting, random_state
        self.networks = [
            GNNPredictor(members=1, folds=0, device=device, random_state=random_state + k)
            for k in range(FOLDS * networks)
        ]
        self.tree_share = self.share = 0.0
        self._trained_on: tuple[Tensor, Tensor] | None = None
        self._boosted_on: tuple[Tensor, Tensor] | None = None
        # Searches ask for the same architectures again and again.
        self._known = KeptRows(self._learned)

    def fit(
        self,
        archs: Architectures | None,
        x: Tensor,
        z: Tensor,
        held_out: Tensor,
        state: Mapping[str, Any] | None = None,
        *,
        start: Stacking | None = None,
    ) -> Self:
        r"""Trains every learner.

        Args:
            archs: The context, ``n`` architectures; not needed if the networks are already trained.
            x: Its descriptors, ``[n, F]``.
            z: Its scores, or their differences from a prior mean, ``[n]``.
            held_out: Leave-one-out prediction of each score by each member of the bank, bagged trees last, ``[n, K]``.
            state: State of trained networks, from :meth:`state_dict`.
            start: Another one, whose networks are taken over, with their stacking weight, where they were trained on
                the first of these labels (:func:`~pyg_nas_np.convnp.forest.continues`) and there are few new ones
                (:data:`GROWTH`); so are its boosted trees (:data:`~pyg_nas_np.convnp.forest.LAG`). (default: none)
        """
        if self.boosting:
            bagged = best_share(held_out[:, :-1].mean(dim=1) - z, held_out[:, -1] - z)
            self.tree_share = min(LIFT * bagged, MOST)
        seen = x[:, self.columns]
        if self.tree_share > 0.0 and start is not None and _serves(start._boosted_on, seen, z, 1.0 + LAG):
            self.trees, self._nodes, self._boosted_on = start.trees, start._nodes, start._boosted_on
        elif self.tree_share > 0.0:
            self.trees = GradientBoostingRegressor(
                n_estimators=300,
                learning_rate=0.05,
                max_depth=4,
                subsample=0.8,
                max_features=0.3,
                random_state=self.random_state,
            ).fit(seen.numpy(), z.numpy())
            self._nodes, self._boosted_on = TreeEnsemble.from_sklearn(self.trees.estimators_[:, 0]), (seen, z)
        if state:
            self.share = state["share"]
            for network, weights in zip(self.networks, state["networks"], strict=True):
                network._set_state(weights)
        elif self.networks and start is not None and _serves(start._trained_on, x[:, : self.num_meta], z, GROWTH):
            self.networks, self.share, self._trained_on = start.networks, start.share, start._trained_on
            self._known = start._known
        elif self.networks:
            assert archs is not None
            self._train(archs, x[:, : self.num_meta], z.float(), held_out.mean(dim=1))
            self._trained_on = x[:, : self.num_meta], z
        return self

    def _train(self, archs: Architectures, x: Tensor, z: Tensor, held_out: Tensor) -> None:
        space = archs.space
        inputs = *live_cells(space, archs.given), x
        generator = torch.Generator().manual_seed(self.random_state)
        fold = torch.randperm(z.numel(), generator=generator) % FOLDS
        ours = torch.empty_like(z)

        def train(k: int) -> None:
            network, kept, out = self.networks[k], fold != k, fold == k
            network.space_ = space
            # Batches hold at most 256 labels, so more labels need more steps for the same number of epochs.
            network.steps = 300 if z.numel() <= 1024 else 1000
            with torch.enable_grad():
                network._fit(tuple(part[kept] for part in inputs), z[kept])
            ours[out] = network._predict(tuple(part[out] for part in inputs), False)[0].float()

        # One thread for each network: their operations are too short for more.
        map_chunks(train, range(FOLDS))
        probes = Architectures(space, torch.randperm(len(require_index(space)), generator=generator)[:_PROBES])
        spread = self._scores(probes, shared_descriptors(space).table(probes.given)[:, : self.num_meta]).var(dim=0)
        self.share = best_share(held_out - z, ours - z, float(spread.mean()))

    def _scores(self, archs: Architectures, x: Tensor) -> Tensor:
        """Predictions of each network, ``[FOLDS, m]``."""
        inputs = *live_cells(archs.space, archs.given), x
        return torch.stack([network._predict(inputs, False)[0] for network in self.networks])

    def mean(self, base: Tensor, archs: Architectures, x: Tensor) -> Tensor:
        r"""Returns the weighted mean of a process and the learners.

        Args:
            base: Means of the process at the targets, ``[m]``, on any device.
            archs: The targets, ``m`` architectures.
            x: Their descriptors, ``[m, F]``, on the same device.
        """
        mean = base.double()
        if self.tree_share > 0.0:
            nodes = self._nodes.to(x.device)
            boosted = torch.cat(map_chunks(lambda part: self._boosted(nodes, part), x.split(CHUNK)))
            mean = torch.lerp(mean, boosted, self.tree_share)
        if self.share > 0.0:
            learned = self._known(archs.index.tolist(), require_cells(archs.space)).squeeze(1)
            mean = torch.lerp(mean, learned.to(mean.device), self.share)
        return mean

    def _boosted(self, nodes: TreeEnsemble, x: Tensor) -> Tensor:
        """Predictions of the boosted trees, ``[m]``."""
        total = tree_sum(x[:, self.columns].float(), nodes)
        return total.mul_(self.trees.learning_rate).add_(float(self.trees.init_.constant_[0, 0]))

    def _learned(self, index: Sequence[int], space: CellSpace[Any]) -> Tensor:
        """Mean prediction of the networks at official indices, ``[m, 1]``."""
        rows = torch.tensor(index)
        x = shared_descriptors(space).features.table(rows)
        parts = zip(rows.split(CHUNK), x.split(CHUNK), strict=True)
        means = map_chunks(lambda part: self._scores(Architectures(space, part[0]), part[1]).mean(dim=0), parts)
        return torch.cat(means).unsqueeze(1)

    def run_on(self, device: str) -> None:
        r"""Sets where the networks run from now on."""
        for network in self.networks:
            network.device = device

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the state of the networks, which are slow to train, if there are any."""
        if not self.networks:
            return {}
        return {"share": self.share, "networks": [network._state() for network in self.networks]}


def _serves(known: tuple[Tensor, Tensor] | None, x: Tensor, z: Tensor, growth: float) -> bool:
    """Whether what was learned from a context serves for another one, which is the same and at most so much larger."""
    if known is None or z.numel() > growth * known[1].numel():
        return False
    return continues(*(part.numpy() for part in (*known, x, z)))


def best_share(errors: Tensor, other_errors: Tensor, spread: float = 0.0) -> float:
    r"""Returns the stacking weight of a learner: that of the weighted mean with the smallest squared error.

    Let :math:`e` be the errors of the process and :math:`u` those of the learner. If the learner is the mean of
    :math:`K` networks with variance :math:`s^2` between them, :math:`u` are the errors of single networks, and
    averaging divides their variance by :math:`K`. The weight is

    .. math::
        \frac{\overline{e^2} - \overline{e u}}
             {\overline{e^2} - 2 \overline{e u} + \overline{u^2} - (1 - 1 / K) s^2},

    clipped to 0 … :data:`MOST`.

    Args:
        errors: Held-out errors of the process, ``[n]``.
        other_errors: Held-out errors of the learner, ``[n]``.
        spread: Variance between the networks, if the learner is the mean of :data:`FOLDS` networks.

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
