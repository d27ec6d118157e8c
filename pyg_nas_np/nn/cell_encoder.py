r"""A graph neural network over cells, on PyG batches and on padded tensors without scattered sums."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing, global_add_pool, global_mean_pool

from pyg_nas_np.spaces.dense import DenseGraphs

OUTPUT = 1
"""Operation id of the output node in every space."""


class BidirectionalConv(MessagePassing):  # type: ignore[misc]
    r"""Sums the states of predecessors and of successors, and maps them with separate weights.

    .. math::
        h'_i = h_i + \mathrm{GELU}\Big(W_0 \tilde h_i + W_1 \sum_{j \to i} \tilde h_j + W_2 \sum_{i \to j} \tilde h_j
        + b\Big), \qquad \tilde h = \mathrm{LayerNorm}(h)

    Args:
        channels: Width of the states.

    Shapes:
        - **input:** ``h`` ``[N, channels]``, ``edge_index`` ``[2, E]``.
        - **output:** ``[N, channels]``.

    Example:
        >>> BidirectionalConv(8)(torch.randn(3, 8), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([3, 8])
    """

    def __init__(self, channels: int) -> None:
        super().__init__(aggr="sum")
        self.channels = channels
        self.norm = nn.LayerNorm(channels)
        self.linear = nn.Linear(3 * channels, channels)

    def reset_parameters(self) -> None:
        r"""Draws new weights."""
        self.norm.reset_parameters()
        self.linear.reset_parameters()

    def forward(self, h: Tensor, edge_index: Tensor) -> Tensor:
        r"""Updates the states."""
        normed = self.norm(h)
        before = self.propagate(edge_index, x=normed)
        after = self.propagate(edge_index.flip(0), x=normed)
        return self._update(h, normed, before, after)

    def forward_dense(self, h: Tensor, adjacency: Tensor) -> Tensor:
        r"""Updates padded states ``[B, V, channels]`` along ``adjacency`` ``[B, V, V]`` of the same type."""
        normed = self.norm(h)
        return self._update(h, normed, adjacency.mT @ normed, adjacency @ normed)

    def _update(self, h: Tensor, normed: Tensor, before: Tensor, after: Tensor) -> Tensor:
        mixed = self.linear(torch.cat([normed, before, after], dim=-1))
        return h + nn.functional.gelu(mixed)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels})"


class CellEncoder(nn.Module):
    r"""Encodes each cell of a batch as one vector that does not depend on the order of its nodes.

    Layers of :class:`BidirectionalConv` pass information along and against the edges. The result concatenates the state
    of the output node, the mean and the sum of all states, and the meta-features of the cell.

    Args:
        num_ops: Number of operations, the columns of ``x``; column 1 marks the output node.
        channels: Width of the states.
        num_layers: Number of layers.
        num_meta: Number of meta-features ``F``.

    Shapes:
        - **input:** ``x`` ``[N, num_ops]`` one-hot operations, ``edge_index`` ``[2, E]``, ``batch`` ``[N]``, ``meta``
          ``[B, F]``.
        - **output:** ``[B, out_channels]`` with ``out_channels = 3 * channels + F``.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> cells = space.batch_encode(torch.arange(5))
        >>> encoder = CellEncoder(num_ops=7)
        >>> encoder
        CellEncoder(7, channels=64, layers=4, meta=0)
        >>> encoder(cells.x, cells.edge_index, cells.batch).shape
        torch.Size([5, 192])
        >>> encoder.forward_dense(space.dense(torch.arange(5))).shape
        torch.Size([5, 192])
    """

    def __init__(self, num_ops: int, *, channels: int = 64, num_layers: int = 4, num_meta: int = 0) -> None:
        super().__init__()
        self.num_ops, self.channels, self.num_layers, self.num_meta = num_ops, channels, num_layers, num_meta
        self.out_channels = 3 * channels + num_meta
        self.embed = nn.Linear(num_ops, channels)
        self.layers = nn.ModuleList(BidirectionalConv(channels) for _ in range(num_layers))
        self.norm = nn.LayerNorm(channels)

    def reset_parameters(self) -> None:
        r"""Draws new weights."""
        for module in (self.embed, *self.layers, self.norm):
            module.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        meta: Tensor | None = None,
        *,
        batch_size: int | None = None,
    ) -> Tensor:
        r"""Encodes cells given as a PyG batch.

        Args:
            x: ``[N, num_ops]``.
            edge_index: ``[2, E]``.
            batch: Cell of each node, ``[N]``. (default: all nodes are one cell)
            meta: ``[B, F]``, if the encoder was built for meta-features.
            batch_size: Number of cells ``B``. (default: one more than the largest entry of :obj:`batch`)

        Raises:
            ValueError: If the columns of :obj:`x` or the meta-features do not match the encoder.
        """
        if x.size(-1) != self.num_ops:
            raise ValueError(f"x must have shape [num_nodes, {self.num_ops}], got {list(x.shape)}")
        h = self.embed(x)
        for layer in self.layers:
            h = layer(h, edge_index)
        h = self.norm(h)
        if batch is None:
            batch, batch_size = edge_index.new_zeros(x.size(0)), batch_size or 1
        output = global_add_pool(h * x[:, OUTPUT : OUTPUT + 1], batch, batch_size)
        mean, total = global_mean_pool(h, batch, batch_size), global_add_pool(h, batch, batch_size)
        return self._join(output, mean, total, meta)

    def forward_dense(self, graphs: DenseGraphs, meta: Tensor | None = None) -> Tensor:
        r"""Encodes padded cells; equals :meth:`forward` on the same cells.

        Args:
            graphs: ``B`` cells.
            meta: ``[B, F]``, if the encoder was built for meta-features.

        Raises:
            ValueError: If an operation or the meta-features do not match the encoder.
        """
        if graphs.ops.numel() and int(graphs.ops.max()) >= self.num_ops:
            raise ValueError(f"operation id {int(graphs.ops.max())} is none of the encoder's {self.num_ops}")
        weight = self.embed.weight
        adjacency = graphs.adjacency.to(weight.dtype)
        # Padding has the id -1 and no edges, so only the pooling must mask it.
        h = nn.functional.embedding(graphs.ops.clamp_min(0), weight.t()) + self.embed.bias
        for layer in self.layers:
            assert isinstance(layer, BidirectionalConv)
            h = layer.forward_dense(h, adjacency)
        h = self.norm(h)
        total = sum_over(h, graphs.ops >= 0)
        mean = total / graphs.num_nodes.clamp_min(1).unsqueeze(1)
        return self._join(sum_over(h, graphs.ops == OUTPUT), mean, total, meta)

    def _join(self, output: Tensor, mean: Tensor, total: Tensor, meta: Tensor | None) -> Tensor:
        given = 0 if meta is None else meta.size(-1)
        if given != self.num_meta:
            raise ValueError(f"the encoder was built for {self.num_meta} meta-features a cell, got {given}")
        parts = [output, mean, total] if meta is None else [output, mean, total, meta]
        return torch.cat(parts, dim=1)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.num_ops}, channels={self.channels}, layers={self.num_layers}, "
            f"meta={self.num_meta})"
        )


def sum_over(h: Tensor, mask: Tensor) -> Tensor:
    r"""Sums states ``[B, V, C]`` over the nodes where :obj:`mask` ``[B, V]`` is true, ``[B, C]``."""
    return (mask.to(h.dtype).unsqueeze(1) @ h).squeeze(1)
