r"""The flagship: a meta-trained convolutional neural process behind the estimator interface."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from pyg_nas_np.nn.convnp import ConvNP
from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.labels import LabelScale
from pyg_nas_np.predictors.weights import read_weights, shipped_model
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.tasks import TaskBatch

CHUNK = 1 << 14


class ConvNPPredictor(Predictor):
    r"""Ranks a search space from a few labels by a meta-trained convolutional neural process.

    Fitting only conditions: no gradient step is taken, the labelled architectures become the context of the process.

    Args:
        space: The search space. (default: that of the data set)
        labels: How labels become scores, ``"rank"`` or, for accuracies, ``"robust"``.
        weights: File written by :func:`~pyg_nas_np.predictors.pretraining.pretrain`. (default: those shipped for the space)

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
        self.model_ = self.model
        self.x_, self.z_ = inputs.float(), z.float()

    @torch.no_grad()
    def _predict(self, inputs: Tensor, return_std: bool) -> tuple[Tensor, Tensor | None]:
        means, stds = [], []
        context = torch.tensor([0, self.z_.numel()])
        for x in inputs.split(CHUNK):
            tasks = TaskBatch(self.x_, self.z_, x, context, torch.tensor([0, x.size(0)]))
            mean, std = self.model_(tasks)
            means.append(mean)
            stds.append(std)
        return torch.cat(means), torch.cat(stds) if return_std else None

    def _state(self) -> dict[str, Any]:
        return {"x": self.x_, "z": self.z_}

    def _set_state(self, state: dict[str, Any]) -> None:
        self.x_, self.z_ = state["x"], state["z"]
