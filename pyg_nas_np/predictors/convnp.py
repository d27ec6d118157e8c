r"""The flagship: a meta-trained convolutional neural process behind the estimator interface."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyg_nas_np.nn.convnp import ConvNP
from pyg_nas_np.predictors.additive_gp import AdditiveGP
from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.gp import feature_columns
from pyg_nas_np.predictors.labels import LabelScale
from pyg_nas_np.predictors.weights import read_weights, shipped_model
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.tasks import Moments, TaskBatch

CHUNK = 1 << 14


def base_moments(columns: Mapping[str, Sequence[int]], *, max_iter: int = 60) -> Moments:
    r"""Returns the base predictors of the process: two additive Gaussian processes over feature groups.

    The first has hyperparameters fitted to the context, the second those at the centre of their priors, which is the
    safer one for contexts of a few points.

    Args:
        columns: Columns of each group.
        max_iter: Iterations of the fit.
    """

    def moments(x_context: Tensor, z_context: Tensor, x_target: Tensor) -> tuple[Tensor, Tensor]:
        process = AdditiveGP(columns, max_iter=max_iter)
        context, target = [], []
        for conditioned in (process.fit, process.condition):
            conditioned(x_context, z_context)
            mean, std = process.leave_one_out()
            context.append(torch.stack([mean, std.log()], dim=1))
            mean, other = process.predict(x_target)
            assert other is not None
            target.append(torch.stack([mean, other.log()], dim=1))
        return torch.stack(context, dim=1).float(), torch.stack(target, dim=1).float()

    return moments


class ConvNPPredictor(Predictor):
    r"""Ranks a search space from a few labels by a meta-trained convolutional neural process.

    Two additive Gaussian processes give a first prediction, whose leave-one-out errors on the context and posterior at
    the targets are input channels; a stack of set convolutions, meta-trained on synthesised tasks, mixes and corrects
    them. The labelled architectures are the context: no weight of the network is changed by fitting.

    Args:
        space: The search space. (default: that of the data set)
        labels: How labels become scores, ``"rank"`` or, for accuracies, ``"robust"``.
        weights: File written by :func:`~pyg_nas_np.predictors.pretraining.pretrain`. (default: those that the package
            ships for the space)

    Raises:
        MissingWeightsError: From :meth:`fit`, if neither :obj:`weights` is given nor weights are shipped for the space.

    Example:
        >>> import torch
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> context, y = space.batch_encode(torch.arange(5)), torch.tensor([82.0, 90.8, 81.9, 91.0, 85.3])
        >>> mean, std = ConvNPPredictor(space).fit(context, y).predict(space.batch_encode(), return_std=True)
        >>> mean.shape, bool((std > 0).all())
        (torch.Size([15625]), True)
    """

    def __init__(
        self,
        space: SearchSpace[Any] | None = None,
        *,
        labels: LabelScale = "rank",
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(space, labels=labels)
        self.weights = weights

    @property
    def model(self) -> ConvNP:
        r"""The process, after :meth:`fit`."""
        return shipped_model(self.space_) if self.weights is None else read_weights(self.weights, self.space_)

    def _fit(self, inputs: Tensor, z: Tensor) -> None:
        _ = self.model  # Missing weights are told now, not at the first prediction.
        self.x_, self.z_ = inputs.float(), z.float()

    @torch.no_grad()
    def _predict(self, inputs: Tensor, return_std: bool) -> tuple[Tensor, Tensor | None]:
        moments = base_moments(feature_columns(self.space_))
        context, target = moments(self.x_, self.z_, inputs)
        model, ptr = self.model, torch.tensor([0, self.z_.numel()])
        means, stds = [], []
        for x, base in zip(torch.split(inputs, CHUNK), torch.split(target, CHUNK), strict=True):
            tasks = TaskBatch(self.x_, self.z_, x, context, base, ptr, torch.tensor([0, x.size(0)]))
            mean, std = model(tasks)
            means.append(mean)
            stds.append(std)
        return torch.cat(means), torch.cat(stds) if return_std else None

    def _state(self) -> dict[str, Any]:
        return {"x": self.x_, "z": self.z_}

    def _set_state(self, state: dict[str, Any]) -> None:
        self.x_, self.z_ = state["x"], state["z"]
