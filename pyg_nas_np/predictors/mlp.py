r"""An ensemble of perceptrons on path encodings, as in BANANAS."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pyg_nas_np.features.dag import OUTPUT, path_statistics
from pyg_nas_np.features.path_encoding import PathEncoding
from pyg_nas_np.predictors.labels import LabelScale
from pyg_nas_np.predictors.neural import NeuralPredictor
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.base import require_cells
from pyg_nas_np.spaces.dense import DenseGraphs


class _MLP(nn.Module):
    def __init__(self, num_columns: int, channels: int, num_layers: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in [num_columns] + [channels] * (num_layers - 1):
            layers += [nn.Linear(width, channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.layers(x)
        return value.squeeze(1)


class MLPEnsemblePredictor(NeuralPredictor):
    r"""Perceptrons on path encodings, the predictor of `BANANAS <https://arxiv.org/abs/1910.11858>`_.

    Each cell is encoded by :class:`~pyg_nas_np.features.path_encoding.PathEncoding`: the number of live paths from the
    input to the output with each sequence of operations, up to the longest path of the labelled cells. The paper
    encodes whether there is such a path; its networks have ten layers of 20 units and minimise a percentage error of
    accuracies. These minimise the squared error of standardised scores.

    Args:
        space: The search space. (default: that of the data set)
        channels: Width of the hidden layers.
        num_layers: Number of hidden layers.
        members: Number of networks.
        steps: Training steps of each.
        lr: Peak learning rate.
        weight_decay: Of AdamW.
        folds: Folds of the cross-validation; 0 for none; the variance is then only that between the members.
        maximize: Whether larger labels are better. (default: as the data set says, otherwise true)
        labels: How labels become scores, see :data:`~pyg_nas_np.predictors.labels.LabelScale`.
        device: Where the networks run, see :func:`~pyg_nas_np.utils.devices.as_device`; not saved.
        random_state: Seed.

    Example:
        >>> import torch
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> graphs, y = space.batch_encode(torch.arange(40)), space.batch_flops(torch.arange(40))
        >>> MLPEnsemblePredictor(space, members=2, steps=100).fit(graphs, y).score(graphs, y) > 0.8
        True
    """

    def __init__(
        self,
        space: SearchSpace[Any] | None = None,
        *,
        channels: int = 128,
        num_layers: int = 3,
        members: int = 5,
        steps: int = 200,
        lr: float = 5e-3,
        weight_decay: float = 1e-3,
        folds: int = 4,
        maximize: bool | None = None,
        labels: LabelScale = "auto",
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        super().__init__(
            space,
            members=members,
            steps=steps,
            lr=lr,
            weight_decay=weight_decay,
            folds=folds,
            maximize=maximize,
            labels=labels,
            device=device,
            random_state=random_state,
        )
        self.channels = channels
        self.num_layers = num_layers

    def _tensors(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (self._encoding(self.sizes_["max_length"])(DenseGraphs(*inputs)),)

    def _sizes(self, *inputs: Tensor) -> dict[str, int]:
        live = DenseGraphs(*inputs)
        inner = (live.ops > OUTPUT).float().unsqueeze(2)
        # Sequences longer than any path of a labelled cell cannot be learned.
        max_length = int(path_statistics(live, inner).maximum.max())
        return {"max_length": max_length, "num_columns": self._encoding(max_length).num_columns}

    def _network(self, **sizes: int) -> nn.Module:
        return _MLP(sizes["num_columns"], self.channels, self.num_layers)

    def _encoding(self, max_length: int) -> PathEncoding:
        space = require_cells(self.space_)
        names, zero = space.op_names, space.zero_ops
        return PathEncoding([op for op in range(2, len(names)) if names[op] not in zero], max_length)
