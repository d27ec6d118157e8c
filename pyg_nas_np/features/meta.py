r"""Hand-designed, vectorised meta-features of a cell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.dense import DenseGraphs, from_batch


class MetaFeatures(BaseTransform):  # type: ignore[misc]
    r"""Adds ``data.meta`` ``[1, F]``: named, standardised features of an architecture."""

    def __init__(self, space: SearchSpace[Any]) -> None:
        self.space = space

    @property
    def feature_names(self) -> list[str]:
        r"""Names of the columns."""
        return [f"count_{op}" for op in self.space.op_names[2:]]

    def table(self, archs: Any = None) -> Tensor:
        r"""Features of many architectures, ``[B, F]`` float32."""
        return self._features(self.space.dense(archs))

    def forward(self, data: Data) -> Data:
        r"""Adds ``data.meta``."""
        data.meta = self._features(from_batch(data.x, data.edge_index))
        return data

    def _features(self, graphs: DenseGraphs) -> Tensor:
        return torch.stack([(graphs.ops == i).sum(1) for i in range(2, len(self.space.op_names))], dim=1).float()
