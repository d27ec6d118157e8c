r"""The graph convolutional network of the Neural Predictor."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pyg_nas_np.nn.cell_encoder import sum_over
from pyg_nas_np.spaces.dense import DenseGraphs


class BidirectionalGCN(nn.Module):
    r"""The regressor of `"Neural Predictor for Neural Architecture Search" <https://arxiv.org/abs/1912.00848>`_.

    .. math::
        H' = \tfrac12\, \mathrm{ReLU}\big(\hat A H W_+\big) + \tfrac12\, \mathrm{ReLU}\big(\hat A^{-} H W_-\big),

    where :math:`\hat A` and :math:`\hat A^{-}` are the adjacency matrices along and against the edges, with self-loops
    and rows that sum to one. The mean over the nodes is the input of a perceptron with one hidden layer.

    Args:
        num_ops: Number of operations.
        channels: Width of the states.
        num_layers: Number of graph convolutions.
        hidden: Width of the hidden layer.
        dropout: Fraction of the hidden layer that is dropped in training.

    Shapes:
        - **input:** ``B`` cells as :class:`~pyg_nas_np.spaces.dense.DenseGraphs`.
        - **output:** ``[B]``.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> BidirectionalGCN(num_ops=7)(NASBench201Space().dense(torch.arange(5))).shape
        torch.Size([5])
    """

    def __init__(
        self, num_ops: int, *, channels: int = 144, num_layers: int = 3, hidden: int = 128, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.num_ops, self.channels, self.num_layers = num_ops, channels, num_layers
        widths = [num_ops] + [channels] * num_layers
        pairs = list(itertools.pairwise(widths))
        self.along = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)
        self.against = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)
        self.hidden = nn.Linear(channels, hidden)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, 1)

    def reset_parameters(self) -> None:
        r"""Draws new weights."""
        for module in (*self.along, *self.against, self.hidden, self.head):
            module.reset_parameters()

    def forward(self, graphs: DenseGraphs) -> Tensor:
        r"""Returns one value for each cell."""
        dtype = self.head.weight.dtype
        loops = graphs.adjacency | torch.eye(graphs.ops.size(1), dtype=torch.bool, device=graphs.ops.device)
        against, along = _row_normalised(loops.to(dtype)), _row_normalised(loops.mT.to(dtype))
        h = one_hot(graphs.ops.clamp_min(0), self.num_ops).to(dtype)
        for forward, reverse in zip(self.along, self.against, strict=True):
            h = 0.5 * (torch.relu(forward(along @ h)) + torch.relu(reverse(against @ h)))
        mean = sum_over(h, graphs.ops >= 0) / graphs.num_nodes.clamp_min(1).unsqueeze(1)
        value: Tensor = self.head(self.dropout(torch.relu(self.hidden(mean)))).squeeze(1)
        return value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_ops}, channels={self.channels}, layers={self.num_layers})"


def _row_normalised(adjacency: Tensor) -> Tensor:
    return adjacency / adjacency.sum(dim=2, keepdim=True)
