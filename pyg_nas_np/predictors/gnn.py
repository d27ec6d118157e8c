r"""Graph neural networks trained on the labelled architectures."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pyg_nas_np.features import shared_features
from pyg_nas_np.nn.bidirectional_gcn import BidirectionalGCN
from pyg_nas_np.nn.cell_encoder import CellEncoder
from pyg_nas_np.predictors.inputs import Architectures
from pyg_nas_np.predictors.labels import LabelScale
from pyg_nas_np.predictors.neural import NeuralPredictor, ranking_loss
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.base import require_cells
from pyg_nas_np.spaces.dense import DenseGraphs


class _Regressor(nn.Module):
    def __init__(self, encoder: CellEncoder, hidden: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.Linear(encoder.out_channels, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, adjacency: Tensor, ops: Tensor, num_nodes: Tensor, meta: Tensor) -> Tensor:
        value: Tensor = self.head(self.encoder.forward_dense(DenseGraphs(adjacency, ops, num_nodes), meta))
        return value.squeeze(1)


class GNNPredictor(NeuralPredictor):
    r"""An ensemble of :class:`~pyg_nas_np.nn.CellEncoder` networks with meta-features, trained with a ranking loss.

    The inputs are the live part of each cell and its meta-features. The networks minimise
    :func:`~pyg_nas_np.predictors.neural.ranking_loss`. The variance is that between the members plus the mean squared
    error of cross-validation.

    Args:
        space: The search space. (default: that of the data set)
        channels: Width of the states.
        num_layers: Number of message passing layers.
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
        >>> GNNPredictor(space, members=1, steps=50).fit(graphs, y).score(graphs, y) > 0.8
        True
    """

    def __init__(
        self,
        space: SearchSpace[Any] | None = None,
        *,
        channels: int = 64,
        num_layers: int = 4,
        members: int = 2,
        steps: int = 200,
        lr: float = 5e-3,
        weight_decay: float = 1e-4,
        folds: int = 3,
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

    def _inputs(self, archs: Architectures) -> tuple[Tensor, ...]:
        return *super()._inputs(archs), shared_features(self.space_).table(archs.given)

    def _sizes(self, *inputs: Tensor) -> dict[str, int]:
        return {"num_ops": len(require_cells(self.space_).op_names), "num_meta": inputs[-1].size(1)}

    def _network(self, **sizes: int) -> nn.Module:
        return _Regressor(CellEncoder(channels=self.channels, num_layers=self.num_layers, **sizes), 2 * self.channels)

    def _loss(self, predicted: Tensor, z: Tensor) -> Tensor:
        return ranking_loss(predicted, z)


class _DenseGCN(BidirectionalGCN):
    def forward(self, adjacency: Tensor, ops: Tensor, num_nodes: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(DenseGraphs(adjacency, ops, num_nodes))


class GCNPredictor(NeuralPredictor):
    r"""The `Neural Predictor <https://arxiv.org/abs/1912.00848>`_: graph convolutions along and against the edges.

    Network and loss (the squared error) are those of the paper. The paper trains on accuracies for 300 epochs with
    batches of 10; here every step uses the standardised scores of all labels. The input is the live part of each cell;
    on NAS-Bench-101 this is the whole cell, as in the paper.

    Args:
        space: The search space. (default: that of the data set)
        channels: Width of the states.
        num_layers: Number of graph convolutions.
        dropout: Fraction of the hidden layer that is dropped in training.
        members: Number of networks.
        steps: Training steps of each.
        lr: Peak learning rate.
        weight_decay: Of AdamW.
        folds: Folds of the cross-validation; 0 for none; the variance is then only that between the members.
        maximize: Whether larger labels are better. (default: as the data set says, otherwise true)
        labels: How labels become scores, see :data:`~pyg_nas_np.predictors.labels.LabelScale`.
        device: Where the networks run, see :func:`~pyg_nas_np.utils.devices.as_device`; not saved.
        random_state: Seed.
    """

    def __init__(
        self,
        space: SearchSpace[Any] | None = None,
        *,
        channels: int = 144,
        num_layers: int = 3,
        dropout: float = 0.1,
        members: int = 1,
        steps: int = 200,
        lr: float = 5e-3,
        weight_decay: float = 1e-3,
        folds: int = 3,
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
        self.dropout = dropout

    def _sizes(self, *inputs: Tensor) -> dict[str, int]:
        return {"num_ops": len(require_cells(self.space_).op_names)}

    def _network(self, **sizes: int) -> nn.Module:
        return _DenseGCN(channels=self.channels, num_layers=self.num_layers, dropout=self.dropout, **sizes)
