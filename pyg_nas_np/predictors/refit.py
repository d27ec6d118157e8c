r"""Predictors that are saved as their training data and refitted when loaded."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from torch import Tensor

from pyg_nas_np.predictors.base import Predictor


class RefitPredictor(Predictor):
    r"""Base of predictors that are saved as their training data and refitted when loaded.

    Fitting is deterministic, so the file contains numbers only.
    """

    def _fit(self, inputs: Tensor, z: Tensor) -> None:
        self.x_, self.z_ = inputs, z
        self._learn(inputs.numpy(), z.numpy())

    @abstractmethod
    def _learn(self, x: np.ndarray[Any, Any], z: np.ndarray[Any, Any]) -> None:
        """Fits ``[n, F]`` features to ``[n]`` scores, the same way every time."""

    def _state(self) -> dict[str, Any]:
        return {"x": self.x_, "z": self.z_}

    def _set_state(self, state: dict[str, Any]) -> None:
        self._fit(state["x"], state["z"])
