r"""Metrics of predictive distributions as :class:`torchmetrics.Metric` classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from pyg_nas_np.metrics.functional.calibration import (
    calibration_error,
    check_level,
    gaussian_crps,
    gaussian_nll,
    gaussian_pit,
    interval_coverage,
    sample_crps,
)
from pyg_nas_np.utils import InvalidLabelsError


class MeanMetric(Metric):
    r"""A mean over labels, kept as a float64 sum and a count over all batches and processes.

    Args:
        **kwargs: Arguments of :class:`torchmetrics.Metric`.
    """

    is_differentiable = True
    higher_is_better: bool | None = False
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.zeros((), dtype=torch.float64, device="cpu"), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.long, device="cpu"), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        r"""Returns the mean over everything added so far.

        Raises:
            InvalidLabelsError: If nothing was added.
        """
        if int(self.count) == 0:
            raise InvalidLabelsError(f"{type(self).__name__} has no predictions; call update() first")
        return (self.total / self.count).float()

    def _add(self, mean: Tensor, count: int) -> None:
        self.total = self.total + mean.double() * count
        self.count = self.count + count


class GaussianNLL(MeanMetric):
    r"""Mean negative log-likelihood, in nats; see :func:`~pyg_nas_np.metrics.functional.gaussian_nll`.

    Args:
        **kwargs: Arguments of :class:`torchmetrics.Metric`.

    Example:
        >>> metric = GaussianNLL()
        >>> metric.update(torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([0.0]))
        >>> metric.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]), torch.tensor([1.0, 2.0]))
        >>> metric.compute()
        tensor(0.9189)
    """

    def update(self, mean: Tensor, std: Tensor, target: Tensor) -> None:
        r"""Adds a batch of predicted means, standard deviations and true values, each ``[B]``."""
        self._add(gaussian_nll(mean, std, target), target.numel())


class GaussianCRPS(MeanMetric):
    r"""Mean continuous ranked probability score; see :func:`~pyg_nas_np.metrics.functional.gaussian_crps`.

    Args:
        **kwargs: Arguments of :class:`torchmetrics.Metric`.

    Example:
        >>> GaussianCRPS()(torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([0.0]))
        tensor(0.2337)
    """

    def update(self, mean: Tensor, std: Tensor, target: Tensor) -> None:
        r"""Adds a batch of predicted means, standard deviations and true values, each ``[B]``."""
        self._add(gaussian_crps(mean, std, target), target.numel())


class SampleCRPS(MeanMetric):
    r"""Mean continuous ranked probability score of samples; see :func:`~pyg_nas_np.metrics.functional.sample_crps`.

    Args:
        fair: Whether to use the unbiased form.
        **kwargs: Arguments of :class:`torchmetrics.Metric`.

    Example:
        >>> SampleCRPS(fair=False)(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([1.0, 1.0]))
        tensor(0.5000)
    """

    def __init__(self, fair: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fair = fair

    def update(self, samples: Tensor, target: Tensor) -> None:
        r"""Adds a batch of samples ``[S, B]`` and true values ``[B]``."""
        self._add(sample_crps(samples, target, fair=self.fair), target.numel())


class IntervalCoverage(MeanMetric):
    r"""Coverage of the central interval; see :func:`~pyg_nas_np.metrics.functional.interval_coverage`.

    Args:
        level: Nominal coverage, in (0, 1).
        **kwargs: Arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If :obj:`level` is outside (0, 1).

    Example:
        >>> IntervalCoverage(level=0.9)(torch.zeros(3), torch.ones(3), torch.tensor([0.5, -1.0, 3.0]))
        tensor(0.6667)
    """

    is_differentiable = False
    # Neither too much nor too little coverage is good.
    higher_is_better = None

    def __init__(self, level: float = 0.9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_level(level)
        self.level = level

    def update(self, mean: Tensor, std: Tensor, target: Tensor) -> None:
        r"""Adds a batch of predicted means, standard deviations and true values, each ``[B]``."""
        self._add(interval_coverage(mean, std, target, self.level), target.numel())


class CalibrationError(Metric):
    r"""Area between nominal and empirical coverage; see :func:`~pyg_nas_np.metrics.functional.calibration_error`.

    Args:
        **kwargs: Arguments of :class:`torchmetrics.Metric`.

    Example:
        >>> CalibrationError()(torch.zeros(2), torch.ones(2), torch.tensor([-0.6745, 0.6745]))
        tensor(0.1250)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    pit: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("pit", default=[], dist_reduce_fx="cat")

    def update(self, mean: Tensor, std: Tensor, target: Tensor) -> None:
        r"""Adds a batch of predicted means, standard deviations and true values, each ``[B]``."""
        self.pit.append(gaussian_pit(mean, std, target).detach())

    def compute(self) -> Tensor:
        r"""Returns the calibration error over everything added so far.

        Raises:
            InvalidLabelsError: If nothing was added.
        """
        if len(self.pit) == 0:
            raise InvalidLabelsError(f"{type(self).__name__} has no predictions; call update() first")
        return calibration_error(dim_zero_cat(self.pit))
