r"""The base class of predictors that train small networks on the labelled architectures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, softplus

from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.inputs import Architectures, live_cells
from pyg_nas_np.predictors.labels import LabelScale
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.utils import as_device, check_count, drawing_from, on_device, seeded

CHUNK = 2048
"""Architectures predicted at a time; their states fit into the processor's cache."""

BATCH = 256
"""Labelled architectures in one training step."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Maps predicted scores and scores, ``[n]`` each, to a scalar."""


def ranking_loss(predicted: Tensor, z: Tensor) -> Tensor:
    r"""Pairwise logistic loss, with a squared error that fixes the scale.

    .. math::
        \frac{1}{|P|} \sum_{(i, j) \in P} \log\!\big(1 + e^{-3 (f_i - f_j)}\big) + \frac{0.3}{n} \sum_i (f_i - z_i)^2,
        \qquad P = \{(i, j) : z_i > z_j\}

    Example:
        >>> z = torch.tensor([0.0, 1.0, 2.0])
        >>> bool(ranking_loss(z, z) < ranking_loss(-z, z))
        True
    """
    above = z.unsqueeze(1) > z
    gap = (predicted.unsqueeze(1) - predicted)[above]
    order = softplus(-3.0 * gap).mean() if gap.numel() else gap.sum()
    return order + 0.3 * mse_loss(predicted, z)


def train(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    z: Tensor,
    loss: Loss,
    *,
    steps: int,
    lr: float,
    weight_decay: float,
    generator: torch.Generator,
) -> None:
    r"""Trains a network with AdamW on a one-cycle schedule; leaves it in evaluation mode.

    Every step uses all architectures or, if there are more, :data:`BATCH` of them, drawn without replacement.

    Args:
        network: Maps ``inputs`` to scores.
        inputs: Tensors whose first dimension counts the ``n`` architectures.
        z: Scores ``[n]``.
        loss: The loss.
        steps: Number of steps.
        lr: Peak learning rate.
        weight_decay: Of AdamW.
        generator: Source of batches and of dropout masks, on any device.
    """
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    batches = _batches(z.numel(), generator)
    for _ in range(steps):
        rows = next(batches)
        optimizer.zero_grad()
        # Only around the forward pass, because it slows down every operation.
        with drawing_from(generator):
            predicted = network(*(part[rows] for part in inputs))
        loss(predicted, z[rows]).backward()
        optimizer.step()
        schedule.step()
    network.eval()


def _batches(count: int, generator: torch.Generator) -> Iterator[Tensor | slice]:
    while count <= BATCH:
        yield slice(None)
    while True:
        order = torch.randperm(count, generator=generator, device="cpu")
        # The incomplete last batch of a permutation is dropped.
        for start in range(0, count - BATCH + 1, BATCH):
            yield order[start : start + BATCH]


class NeuralPredictor(Predictor):
    r"""Base of predictors that train an ensemble of networks on the labelled architectures.

    The members differ in their initial weights. The mean is that of the members; the variance is that between the
    members plus the mean squared error of cross-validation.

    Runs with the same :obj:`random_state` on one machine's CPU give equal weights. Global random states are neither
    read nor changed. A fitted predictor keeps its networks on the CPU and predicts by copies on the device, so that it
    can be saved and read anywhere. Subclasses implement :meth:`_sizes` and :meth:`_network`.

    Args:
        space: The search space. (default: that of the data set)
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
        super().__init__(space, maximize=maximize, labels=labels)
        self.members = members
        self.steps = steps
        self.lr = lr
        self.weight_decay = weight_decay
        self.folds = folds
        self.device = device
        self.random_state = random_state

    @abstractmethod
    def _sizes(self, *inputs: Tensor) -> dict[str, int]:
        """The arguments of :meth:`_network` for these inputs."""

    @abstractmethod
    def _network(self, **sizes: int) -> nn.Module:
        """A new network from the outputs of :meth:`_tensors` to scores."""

    def _tensors(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The inputs of the networks, from some rows of the outputs of :meth:`_inputs`."""
        return inputs

    def _loss(self, predicted: Tensor, z: Tensor) -> Tensor:
        return mse_loss(predicted, z)

    def _inputs(self, archs: Architectures) -> tuple[Tensor, ...]:
        return tuple(live_cells(self.space_, archs.given))

    def _fit(self, inputs: tuple[Tensor, ...], z: Tensor) -> None:
        for name in ("steps", "channels"):
            check_count(name, getattr(self, name, 1))
        if self.members < 1 or self.folds < 0 or self.folds == 1:
            raise ValueError(
                f"members must be at least 1 and folds 0 or at least 2, got {self.members} and {self.folds}"
            )
        self.sizes_ = self._sizes(*inputs)
        parts, z = self._tensors(*inputs), z.float()
        generator = seeded(self.random_state)
        self.networks_ = [self._trained(parts, z, generator) for _ in range(self.members)]
        fold = torch.randperm(z.numel(), generator=generator, device="cpu") % max(1, self.folds)
        errors = [] if self.folds else [z.new_zeros(1)]
        for k in range(min(self.folds, z.numel())):
            kept, held_out = fold != k, fold == k
            network = self._trained(tuple(part[kept] for part in parts), z[kept], generator)
            errors.append(_apply(network, tuple(part[held_out] for part in parts)) - z[held_out])
        self.noise_ = float(torch.cat(errors).square().mean())

    def _trained(self, inputs: tuple[Tensor, ...], z: Tensor, generator: torch.Generator) -> nn.Module:
        device = as_device(self.device)
        with drawing_from(generator):
            network = self._network(**self.sizes_)
        train(
            network.to(device),
            tuple(part.to(device) for part in inputs),
            z.to(device),
            self._loss,
            steps=self.steps,
            lr=self.lr,
            weight_decay=self.weight_decay,
            generator=generator,
        )
        return network.cpu()

    def _predict(self, inputs: tuple[Tensor, ...], return_std: bool) -> tuple[Tensor, Tensor | None]:
        device, chunks = as_device(self.device), []
        networks = [on_device(network, device) for network in self.networks_]
        for chunk in zip(*(torch.split(part, CHUNK) for part in inputs), strict=True):
            tensors = tuple(part.to(device) for part in self._tensors(*chunk))
            chunks.append(torch.stack([_apply(network, tensors) for network in networks]).cpu())
        scores = torch.cat(chunks, dim=1).double()
        std = (scores.var(dim=0, unbiased=False) + self.noise_).sqrt() if return_std else None
        return scores.mean(dim=0), std

    def _state(self) -> dict[str, Any]:
        weights = [dict(network.state_dict()) for network in self.networks_]
        return {"sizes": self.sizes_, "noise": self.noise_, "weights": weights}

    def _set_state(self, state: dict[str, Any]) -> None:
        self.sizes_, self.noise_ = state["sizes"], state["noise"]
        self.networks_ = []
        for weights in state["weights"]:
            # Initial parameters must not be drawn from the global random state.
            with drawing_from(torch.Generator(device="cpu")):
                network = self._network(**self.sizes_)
            network.load_state_dict(weights)
            self.networks_.append(network.eval())


@torch.no_grad()
def _apply(network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    value: Tensor = network(*inputs)
    return value
