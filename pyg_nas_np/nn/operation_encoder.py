r"""A graph neural network over graphs of described operations of any space."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.nn import global_add_pool, global_mean_pool

from pyg_nas_np.features.operation_inputs import GRAPH_CHANNELS, NODE_CHANNELS
from pyg_nas_np.nn.cell_encoder import BidirectionalConv

_TYPICAL_NODES = 8.0


class Encoded(NamedTuple):
    r"""What an encoder says of ``B`` graphs.

    Shapes:
        - **embedding:** ``[B, out_channels]``.
        - **score:** ``[B]``, larger for architectures that are expected to be better; comparable within a space only.
    """

    embedding: Tensor
    score: Tensor


class OperationEncoder(nn.Module):
    r"""Encodes graphs of operations of any space, and scores them.

    Layers of :class:`~pyg_nas_np.nn.BidirectionalConv` pass information along and against the edges. The embedding
    reads the mean and the sum of the states and the sizes of the graph; the score is a linear function of its positive
    part. Inputs are those of :class:`~pyg_nas_np.features.OperationInputs`, which no space has names of its own in, so
    that one set of weights reads all spaces.

    Args:
        channels: Width of the states.
        num_layers: Number of layers.
        out_channels: Width of the embedding.
        in_channels: Width of the inputs of a node.
        graph_channels: Number of sizes and marks of a graph.

    Shapes:
        - **input:** ``x`` ``[N, in_channels]``, ``edge_index`` ``[2, E]``, ``batch`` ``[N]``, ``sizes`` ``[B,
          graph_channels]``.
        - **output:** :class:`Encoded`.

    Example:
        >>> from pyg_nas_np.features import OperationInputs
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> inputs = OperationInputs(NASBench201Space())(torch.arange(5))
        >>> embedding, score = OperationEncoder()(*inputs)
        >>> embedding.shape, score.shape
        (torch.Size([5, 32]), torch.Size([5]))
    """

    def __init__(
        self,
        *,
        channels: int = 64,
        num_layers: int = 4,
        out_channels: int = 32,
        in_channels: int = NODE_CHANNELS,
        graph_channels: int = GRAPH_CHANNELS,
    ) -> None:
        super().__init__()
        self.config = {
            "channels": channels,
            "num_layers": num_layers,
            "out_channels": out_channels,
            "in_channels": in_channels,
            "graph_channels": graph_channels,
        }
        self.embed = nn.Linear(in_channels, channels)
        self.layers = nn.ModuleList(BidirectionalConv(channels) for _ in range(num_layers))
        self.norm = nn.LayerNorm(channels)
        self.read = nn.Sequential(
            nn.Linear(2 * channels + graph_channels, channels), nn.GELU(), nn.Linear(channels, out_channels)
        )
        self.score = nn.Linear(out_channels, 1)

    def reset_parameters(self) -> None:
        r"""Draws new weights."""
        for module in (self.embed, *self.layers, self.norm, *self.read, self.score):
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor, sizes: Tensor) -> Encoded:
        r"""Encodes and scores the graphs.

        Raises:
            ValueError: If the inputs have other widths than the encoder.
        """
        if x.size(-1) != self.config["in_channels"] or sizes.size(-1) != self.config["graph_channels"]:
            raise ValueError(
                f"x and sizes must have {self.config['in_channels']} and {self.config['graph_channels']} columns, got "
                f"{list(x.shape)} and {list(sizes.shape)}"
            )
        count = sizes.size(0)
        h = self.embed(x)
        for layer in self.layers:
            h = layer(h, edge_index)
        h = self.norm(h)
        total = global_add_pool(h, batch, count) / _TYPICAL_NODES
        embedding = self.read(torch.cat([global_mean_pool(h, batch, count), total, sizes], dim=1))
        return Encoded(embedding, self.score(embedding.relu()).squeeze(1))

    def __repr__(self) -> str:
        config = self.config
        return (
            f"{type(self).__name__}(channels={config['channels']}, num_layers={config['num_layers']}, "
            f"out_channels={config['out_channels']})"
        )
