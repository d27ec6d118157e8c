r"""Encoders of sets and of data sets: attention within classes, then between them."""

from __future__ import annotations

from torch import Tensor, nn

from pyg_nas_np.nn.set_transformer import PMA, SAB


class SetEncoder(nn.Module):
    r"""Encodes each set of a ragged batch as one vector: two attention blocks, pooling, a linear layer.

    Args:
        in_channels: Width of the members.
        channels: Width of the result.
        heads: Number of heads.

    Shapes:
        - **input:** ``x`` ``[N, in_channels]``, ``ptr`` ``[B + 1]``.
        - **output:** ``[B, channels]``, invariant to the order of the members.
    """

    def __init__(self, in_channels: int, channels: int, *, heads: int = 4) -> None:
        super().__init__()
        self.first = SAB(in_channels, channels, heads=heads)
        self.second = SAB(channels, channels, heads=heads)
        self.pool = PMA(channels, heads=heads)
        self.out = nn.Linear(channels, channels)

    def reset_parameters(self) -> None:
        r"""Draws new weights."""
        for module in (self.first, self.second, self.pool, self.out):
            module.reset_parameters()

    def forward(self, x: Tensor, ptr: Tensor) -> Tensor:
        r"""Encodes the sets."""
        hidden = self.second(self.first(x, ptr), ptr)
        encoded: Tensor = self.out(self.pool(hidden, ptr).squeeze(1))
        return encoded


class DatasetEncoder(nn.Module):
    r"""Encodes data sets: the images of a class as a prototype, the prototypes of a data set as one vector.

    The set encoder of MetaD2A (`Lee et al. 2021 <https://arxiv.org/abs/2107.00860>`_), with any number of classes and
    of images per class.

    Args:
        in_channels: Width ``F`` of the features.
        hidden_channels: Width of prototypes and of the result.
        heads: Number of heads.

    Shapes:
        - **input:** ``features`` ``[N, F]``, ``class_ptr`` ``[K + 1]``, ``dataset_ptr`` ``[T + 1]``: the parts of
          :class:`~pyg_nas_np.metad2a.FeatureSets`.
        - **output:** ``[T, hidden_channels]``.

    Example:
        >>> import torch
        >>> from pyg_nas_np.metad2a import FeatureSets
        >>> sets = FeatureSets.from_datasets([[torch.randn(3, 16), torch.randn(5, 16)], [torch.randn(2, 16)]])
        >>> encoder = DatasetEncoder(16, hidden_channels=8)
        >>> encoder(sets.features, sets.class_ptr, sets.dataset_ptr).shape
        torch.Size([2, 8])
    """

    def __init__(self, in_channels: int, hidden_channels: int = 56, *, heads: int = 4) -> None:
        super().__init__()
        self.in_channels, self.hidden_channels = in_channels, hidden_channels
        self.within = SetEncoder(in_channels, hidden_channels, heads=heads)
        self.between = SetEncoder(hidden_channels, hidden_channels, heads=heads)

    def reset_parameters(self) -> None:
        r"""Draws new weights."""
        self.within.reset_parameters()
        self.between.reset_parameters()

    def forward(self, features: Tensor, class_ptr: Tensor, dataset_ptr: Tensor) -> Tensor:
        r"""Encodes the data sets.

        Raises:
            ValueError: If the features are of another width, or a class or data set is empty.
        """
        if features.dim() != 2 or features.size(1) != self.in_channels:
            raise ValueError(f"features must have shape [N, {self.in_channels}], got {list(features.shape)}")
        encoded: Tensor = self.between(self.prototypes(features, class_ptr), dataset_ptr)
        return encoded

    def prototypes(self, features: Tensor, class_ptr: Tensor) -> Tensor:
        r"""Encodes the classes alone, ``[K, hidden_channels]``."""
        encoded: Tensor = self.within(features, class_ptr)
        return encoded

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, hidden_channels={self.hidden_channels})"
