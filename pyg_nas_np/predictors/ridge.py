r"""Ridge regression on meta-features."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import BayesianRidge
from torch import Tensor

from pyg_nas_np.predictors.refit import RefitPredictor


class RidgePredictor(RefitPredictor):
    r"""Bayesian ridge regression with both precisions by maximum evidence; the standard deviation includes the noise.

    Args:
        space: The search space. (default: that of the data set)
        maximize: Whether larger labels are better. (default: as the data set says, otherwise true)
        labels: How labels become scores, see :data:`~pyg_nas_np.predictors.labels.LabelScale`.
    """

    def _learn(self, x: np.ndarray[Any, Any], z: np.ndarray[Any, Any]) -> None:
        self.model_ = BayesianRidge().fit(x, z)

    def _predict(self, inputs: Tensor, return_std: bool) -> tuple[Tensor, Tensor | None]:
        if not return_std:
            return torch.from_numpy(self.model_.predict(inputs.numpy())), None
        mean, std = self.model_.predict(inputs.numpy(), return_std=True)
        return torch.from_numpy(mean), torch.from_numpy(std)
