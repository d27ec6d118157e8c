r"""Attention over ragged batches of sets: the blocks of the set transformer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch_geometric.utils import to_dense_batch


class MAB(nn.Module):
    r"""Multi-head attention block: the members of one set attend to those of another.

    .. math::
        O = Q + \mathrm{softmax}\!\left(Q K^\top / \sqrt{C}\right) V, \qquad
        \mathrm{MAB} = O + \mathrm{ReLU}(W_o O + b_o)

    with :math:`Q`, :math:`K` and :math:`V` linear in the two sets, attention in ``heads`` parts, scaled by the full
    width ``C``, and no normalisation: the form of MetaD2A (`Lee et al. 2021 <https://arxiv.org/abs/2107.00860>`_) after
    `Lee et al. 2019 <https://arxiv.org/abs/1810.00825>`_.

    Args:
        query_channels: Width of the attending members.
        key_channels: Width of those attended to.
        channels: Width ``C`` of the result.
        heads: Number of heads; divides :obj:`channels`.

    Shapes:
        - **input:** ``query`` ``[N, query_channels]`` with ``query_ptr`` ``[B + 1]``, ``key`` ``[M, key_channels]``
          with ``key_ptr`` ``[B + 1]``: concatenated sets of any sizes. No key set is empty.
        - **output:** ``[N, C]``.

    Raises:
        ValueError: If :obj:`heads` does not divide :obj:`channels`.

    Example:
        >>> ptr = torch.tensor([0, 2, 5])
        >>> MAB(3, 4, 8, heads=2)(torch.randn(5, 3), torch.randn(5, 4), ptr, ptr).shape
        torch.Size([5, 8])
    """

    def __init__(self, query_channels: int, key_channels: int, channels: int, *, heads: int = 4) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"heads must divide channels={channels}, got {heads}")
        self.query_channels, self.key_channels = query_channels, key_channels
        self.channels, self.heads = channels, heads
        self.query = nn.Linear(query_channels, channels)
        self.key = nn.Linear(key_channels, channels)
        self.value = nn.Linear(key_channels, channels)
        self.out = nn.Linear(channels, channels)

    def reset_parameters(self) -> None:
        r"""Draws new weights."""
        for layer in (self.query, self.key, self.value, self.out):
            layer.reset_parameters()

    def forward(self, query: Tensor, key: Tensor, query_ptr: Tensor, key_ptr: Tensor) -> Tensor:
        r"""Attends from each query set to the key set at the same position."""
        padded, present = pad_sets(query, query_ptr)
        return self.forward_dense(padded, *pad_sets(key, key_ptr))[present]

    def forward_dense(self, query: Tensor, key: Tensor, present: Tensor) -> Tensor:
        r"""The same on padded sets.

        Args:
            query: ``[B, n, query_channels]``.
            key: ``[B, m, key_channels]``.
            present: ``[B, m]``, false where the keys are padding.

        Returns:
            ``[B, n, C]``.
        """
        q = self.query(query)
        mixed = scaled_dot_product_attention(
            self._split(q),
            self._split(self.key(key)),
            self._split(self.value(key)),
            attn_mask=present[:, None, None, :],
            scale=1.0 / math.sqrt(self.channels),
        )
        o: Tensor = q + mixed.transpose(1, 2).flatten(2)
        o = o + self.out(o).relu()
        return o

    def _split(self, x: Tensor) -> Tensor:
        parts: Tensor = x.unflatten(2, (self.heads, -1))
        return parts.transpose(1, 2)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.query_channels}, {self.key_channels}, {self.channels}, heads={self.heads})"


class SAB(nn.Module):
    r"""Set attention block: every member attends to all members of its set.

    Args:
        in_channels: Width of the members.
        channels: Width of the result.
        heads: Number of heads.

    Shapes:
        - **input:** ``x`` ``[N, in_channels]``, ``ptr`` ``[B + 1]``.
        - **output:** ``[N, channels]``, equivariant to reordering of the members.
    """

    def __init__(self, in_channels: int, channels: int, *, heads: int = 4) -> None:
        super().__init__()
        self.attend = MAB(in_channels, in_channels, channels, heads=heads)

    def reset_parameters(self) -> None:
        r"""Draws new weights."""
        self.attend.reset_parameters()

    def forward(self, x: Tensor, ptr: Tensor) -> Tensor:
        r"""Updates the members."""
        padded, present = pad_sets(x, ptr)
        return self.attend.forward_dense(padded, padded, present)[present]


class ISAB(nn.Module):
    r"""Induced set attention block: members attend to learned points that have attended to them.

    Its cost is linear in the size of a set, that of :class:`SAB` quadratic.

    Args:
        in_channels: Width of the members.
        channels: Width of the result.
        num_points: Number of learned points.
        heads: Number of heads.

    Shapes:
        - **input:** ``x`` ``[N, in_channels]``, ``ptr`` ``[B + 1]``.
        - **output:** ``[N, channels]``, equivariant to reordering of the members.
    """

    def __init__(self, in_channels: int, channels: int, *, num_points: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.empty(num_points, channels))
        self.gather = MAB(channels, in_channels, channels, heads=heads)
        self.spread = MAB(in_channels, channels, channels, heads=heads)
        nn.init.xavier_uniform_(self.points)

    def reset_parameters(self) -> None:
        r"""Draws new weights."""
        nn.init.xavier_uniform_(self.points)
        self.gather.reset_parameters()
        self.spread.reset_parameters()

    def forward(self, x: Tensor, ptr: Tensor) -> Tensor:
        r"""Updates the members."""
        padded, present = pad_sets(x, ptr)
        points = self.gather.forward_dense(self.points.expand(padded.size(0), -1, -1), padded, present)
        return self.spread.forward_dense(padded, points, present.new_ones(points.shape[:2]))[present]


class PMA(nn.Module):
    r"""Pooling by multi-head attention: learned seeds attend to each set.

    Args:
        channels: Width of the members and of the result.
        num_seeds: Number ``S`` of output vectors per set.
        heads: Number of heads.

    Shapes:
        - **input:** ``x`` ``[N, channels]``, ``ptr`` ``[B + 1]``.
        - **output:** ``[B, S, channels]``, invariant to the order of the members.
    """

    def __init__(self, channels: int, *, num_seeds: int = 1, heads: int = 4) -> None:
        super().__init__()
        self.seeds = nn.Parameter(torch.empty(num_seeds, channels))
        self.attend = MAB(channels, channels, channels, heads=heads)
        nn.init.xavier_uniform_(self.seeds)

    def reset_parameters(self) -> None:
        r"""Draws new weights."""
        nn.init.xavier_uniform_(self.seeds)
        self.attend.reset_parameters()

    def forward(self, x: Tensor, ptr: Tensor) -> Tensor:
        r"""Pools each set."""
        padded, present = pad_sets(x, ptr)
        return self.attend.forward_dense(self.seeds.expand(padded.size(0), -1, -1), padded, present)


def pad_sets(x: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    r"""Pads sets to the size of the largest.

    Args:
        x: Members of ``B`` sets, ``[N, C]``.
        ptr: Where each set starts, ``[B + 1]``.

    Returns:
        ``[B, n, C]``, zero where padded, and ``[B, n]``, false there.

    Raises:
        ValueError: If a set is empty, or the last entry of :obj:`ptr` is not ``N``.

    Example:
        >>> pad_sets(torch.ones(3, 1), torch.tensor([0, 1, 3]))[1]
        tensor([[ True, False],
                [ True,  True]])
    """
    sizes = ptr.diff()
    if sizes.numel() == 0 or int(sizes.min()) < 1 or int(ptr[0]) != 0 or int(ptr[-1]) != x.size(0):
        raise ValueError(f"ptr must rise strictly from 0 to the {x.size(0)} members, got {ptr.tolist()[:20]}")
    largest, count = int(sizes.max()), sizes.numel()
    if largest * count == x.size(0):  # sets of one size need no copy
        return x.view(count, largest, -1), torch.ones(count, largest, dtype=torch.bool, device=x.device)
    owner = torch.arange(count, device=x.device).repeat_interleave(sizes)
    padded, present = to_dense_batch(x, owner, max_num_nodes=largest, batch_size=count)
    return padded, present
