r"""The path encoding: counts of the paths from the input to the output by their sequences of operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.features.dag import INPUT, OUTPUT
from pyg_nas_np.spaces.dense import DenseGraphs
from pyg_nas_np.utils.defaults import fixed_defaults

MAX_COLUMNS = 4096
"""Largest number of columns of a path encoding before long sequences share columns."""


class PathEncoding(NamedTuple):
    r"""Counts the paths of cells by their sequences of operations, the encoding of `"BANANAS: Bayesian Optimization
    with Neural Architectures for Neural Architecture Search" <https://arxiv.org/abs/1910.11858>`_ (section 3).

    There is one block of columns for each length of a sequence. If all sequences would need more than
    :obj:`max_columns` columns, the longest ones share a column with all sequences of the same length and the same last
    operations.

    Args:
        alphabet: Ids of the operations that may lie on a path; paths with any other are not counted.
        max_length: Longest sequence that is counted.
        max_columns: Limit of :attr:`num_columns`, unless single operations need more.

    Example:
        >>> adjacency = torch.tensor([[[0, 1, 1], [0, 0, 1], [0, 0, 0]]], dtype=torch.bool)
        >>> cell = DenseGraphs(adjacency, torch.tensor([[0, 3, 1]]), torch.tensor([3]))
        >>> encoding = PathEncoding(alphabet=(2, 3), max_length=1)
        >>> encoding.words()
        [(), (2,), (3,)]
        >>> encoding(cell)
        tensor([[1., 0., 1.]])
    """

    alphabet: Sequence[int]
    max_length: int
    max_columns: int = MAX_COLUMNS

    @property
    def suffix(self) -> int:
        r"""Longest sequence with its own column; longer ones are identified by this many last operations."""
        length = 1
        while length < self.max_length and self._columns(length + 1) <= self.max_columns:
            length += 1
        return length

    @property
    def num_columns(self) -> int:
        r"""Number of columns."""
        return self._columns(self.suffix)

    def _columns(self, suffix: int) -> int:
        return sum(len(self.alphabet) ** min(length, suffix) for length in range(self.max_length + 1))

    def words(self) -> list[tuple[int, ...]]:
        r"""Returns the sequence of each column, or its common suffix if sequences share the column."""
        suffix, base = self.suffix, len(self.alphabet)
        return [
            tuple(self.alphabet[code // base**place % base] for place in reversed(range(min(length, suffix))))
            for length in range(self.max_length + 1)
            for code in range(base ** min(length, suffix))
        ]

    @fixed_defaults
    def __call__(self, graphs: DenseGraphs) -> Tensor:
        r"""Encodes cells.

        A dynamic program over the nodes propagates the counts of all sequences, so the cost does not depend on the
        number of paths.

        Args:
            graphs: ``B`` cells in topological order.

        Returns:
            ``[B, num_columns]`` float32.
        """
        base, suffix = len(self.alphabet), self.suffix
        letter = (graphs.ops.unsqueeze(2) == torch.tensor(self.alphabet, dtype=torch.long)).float()
        edge = graphs.adjacency.float()
        size, width = graphs.ops.shape
        # reached[length][:, v]: paths from the input to node v, its own operation included, by their code.
        reached = [torch.zeros(size, width, base ** min(length, suffix)) for length in range(self.max_length + 1)]
        reached[0][:, :, 0] = (graphs.ops == INPUT).float()
        arrived = [torch.zeros(size, block.size(2)) for block in reached]
        for v in range(1, width):
            last = (graphs.ops[:, v] == OUTPUT).float().unsqueeze(1)
            incoming = edge[:, :v, v].unsqueeze(1)
            for length, block in enumerate(reached):
                # Only a prefix of at most v - 1 operations can lead to node v.
                if length >= v:
                    break
                paths = (incoming @ block[:, :v]).squeeze(1)
                arrived[length] += last * paths
                if length == self.max_length:
                    break
                if length >= suffix:
                    # Makes room for one more operation by dropping the first one.
                    paths = paths.view(size, base, -1).sum(dim=1)
                reached[length + 1][:, v] = (paths.unsqueeze(2) * letter[:, v].unsqueeze(1)).flatten(1)
        return torch.cat(arrived, dim=1)
