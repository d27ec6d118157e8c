r"""From a data set and a cell to an accuracy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from pyg_nas_np.nn.set_encoder import DatasetEncoder


class PairRegressor(nn.Module):
    r"""Predicts the accuracy of a cell on a data set from the concatenated embeddings of both.

    MetaD2A's predictor (`Lee et al. 2021 <https://arxiv.org/abs/2107.00860>`_) with the descriptors of a cell in place
    of a graph encoder, for which the database has too few distinct cells. Each class is reduced to the direction of its
    mean feature, which depends neither on the number of images nor on the scale of the features. A model trained on one
    vector per class therefore works on images.

    Args:
        in_channels: Width ``F`` of the features.
        cell_scale: Divides the descriptors of cells, ``[D]``; fixed.
        channels: Width of each embedding.
        hidden_channels: Width of the hidden layers.
        dropout: Share of activations that training drops.

    Shapes:
        - **input:** ``features`` ``[N, F]``, ``class_ptr`` ``[K + 1]``, ``dataset_ptr`` ``[T + 1]`` (the parts of
          :class:`~pyg_nas_np.metad2a.FeatureSets`), ``dataset`` ``[n]`` and ``cells`` ``[n, D]``: the data set and the
          descriptors of each pair.
        - **output:** ``[n]``.

    Raises:
        ValueError: If features or descriptors have another width.

    Example:
        >>> from pyg_nas_np.metad2a import FeatureSets
        >>> sets = FeatureSets.from_datasets([[torch.randn(3, 16), torch.randn(5, 16)], [torch.randn(2, 16)]])
        >>> model = PairRegressor(16, torch.ones(4))
        >>> dataset, cells = torch.tensor([0, 0, 1]), torch.randn(3, 4)
        >>> model(sets.features, sets.class_ptr, sets.dataset_ptr, dataset, cells).shape
        torch.Size([3])
    """

    cell_scale: Tensor

    def __init__(
        self,
        in_channels: int,
        cell_scale: Tensor,
        *,
        channels: int = 56,
        hidden_channels: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.register_buffer("cell_scale", cell_scale)
        self.in_channels = in_channels
        self.config: dict[str, Any] = {"channels": channels, "hidden_channels": hidden_channels, "dropout": dropout}
        self.encoder = DatasetEncoder(in_channels, channels)
        self.drop = nn.Dropout(dropout)
        self.cell = nn.Sequential(
            nn.Linear(cell_scale.numel(), hidden_channels),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_channels, channels),
        )
        self.head = nn.Sequential(
            nn.Linear(2 * channels, hidden_channels), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden_channels, 1)
        )
        self.direct = nn.Linear(2 * channels, 1)

    def reset_parameters(self) -> None:
        r"""Draws new weights."""
        self.encoder.reset_parameters()
        for layer in (*self.cell, *self.head, self.direct):
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()

    def forward(
        self, features: Tensor, class_ptr: Tensor, dataset_ptr: Tensor, dataset: Tensor, cells: Tensor
    ) -> Tensor:
        r"""Predicts pairs of data set and cell."""
        return self.join(self.embed(features, class_ptr, dataset_ptr)[dataset], cells)

    def embed(self, features: Tensor, class_ptr: Tensor, dataset_ptr: Tensor) -> Tensor:
        r"""Encodes data sets, ``[T, channels]``."""
        return self.between(self.within(features, class_ptr), dataset_ptr)

    def within(self, features: Tensor, class_ptr: Tensor) -> Tensor:
        r"""Encodes classes, ``[K, channels]``."""
        if features.dim() != 2 or features.size(1) != self.in_channels:
            raise ValueError(f"features must have shape [N, {self.in_channels}], got {list(features.shape)}")
        directions = class_directions(features, class_ptr)
        ptr = torch.arange(directions.size(0) + 1, device=directions.device)
        # Scaled for the initial weights: between a norm of 1 and entries of size 1.
        return self.encoder.prototypes(self.drop(directions * self.in_channels**0.25), ptr)

    def between(self, prototypes: Tensor, dataset_ptr: Tensor) -> Tensor:
        r"""Encodes data sets from the codes of their classes ``[K, channels]``, ``[T, channels]``."""
        encoded: Tensor = self.encoder.between(self.drop(prototypes), dataset_ptr)
        return encoded

    def join(self, datasets: Tensor, cells: Tensor) -> Tensor:
        r"""Predicts from codes of data sets ``[n, channels]`` and descriptors of cells ``[n, D]``, ``[n]``."""
        if cells.size(-1) != self.cell_scale.numel():
            raise ValueError(f"cells must have {self.cell_scale.numel()} descriptors, got {cells.size(-1)}")
        both = torch.cat([datasets, self.cell(cells / self.cell_scale)], dim=1)
        guess: Tensor = self.head(both) + self.direct(both)
        return guess.squeeze(1)


def class_directions(features: Tensor, class_ptr: Tensor) -> Tensor:
    r"""Returns the direction of the mean feature of each class, ``[K, F]``.

    Example:
        >>> class_directions(torch.tensor([[3.0, 0.0], [3.0, 8.0]]), torch.tensor([0, 2]))
        tensor([[0.6000, 0.8000]])
    """
    sizes = class_ptr.diff()
    owner = torch.arange(sizes.numel(), device=sizes.device).repeat_interleave(sizes)
    # A sum has the direction of the mean.
    total = features.new_zeros(sizes.numel(), features.size(1)).index_add(0, owner, features)
    return normalize(total, dim=1)
