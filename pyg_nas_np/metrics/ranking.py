r"""Ranking metrics as :class:`torchmetrics.Metric` classes, for training loops and distributed evaluation."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from pyg_nas_np.metrics.functional.inputs import check_vectors
from pyg_nas_np.metrics.functional.ranking import kendall_tau, n_at_k, precision_at_k, regret_at_k, spearman_rho
from pyg_nas_np.utils import InvalidLabelsError


class RankingMetric(Metric):
    r"""Collects predictions and true values over all batches and processes: a ranking needs them all.

    Args:
        **kwargs: Arguments of :class:`torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("preds", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        r"""Adds a batch.

        Args:
            preds: Predictions, ``[B]``.
            target: True values, ``[B]``.

        Raises:
            InvalidLabelsError: If the shapes differ or a value is NaN.
        """
        check_vectors(preds=preds, target=target)
        self.preds.append(preds.detach())
        self.target.append(target.detach())

    def compute(self) -> Tensor:
        r"""Returns the metric over everything added so far.

        Raises:
            InvalidLabelsError: If nothing was added, or the metric is undefined for what was added.
        """
        if len(self.preds) == 0:
            raise InvalidLabelsError(f"{type(self).__name__} has no predictions; call update() first")
        return self._value(dim_zero_cat(self.preds), dim_zero_cat(self.target))

    @abstractmethod
    def _value(self, preds: Tensor, target: Tensor) -> Tensor: ...


class KendallTau(RankingMetric):
    r"""Kendall's tau-b; see :func:`~pyg_nas_np.metrics.functional.kendall_tau`.

    torchmetrics' ``KendallRankCorrCoef`` agrees on ties, but returns NaN for constant values without a word, and takes
    time quadratic in the number of values.

    Args:
        undefined: Value for constant predictions or true values, for example ``0.0`` in the first epochs of a training.
            (default: raise)
        **kwargs: Arguments of :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> metric = KendallTau()
        >>> metric.update(torch.tensor([1.0, 2.0]), torch.tensor([10.0, 30.0]))
        >>> metric.update(torch.tensor([3.0, 4.0]), torch.tensor([20.0, 40.0]))
        >>> metric.compute()
        tensor(0.6667)
    """

    def __init__(self, undefined: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.undefined = undefined

    def _value(self, preds: Tensor, target: Tensor) -> Tensor:
        return kendall_tau(preds, target, undefined=self.undefined)


class SpearmanRho(RankingMetric):
    r"""Spearman's rho; see :func:`~pyg_nas_np.metrics.functional.spearman_rho`.

    torchmetrics' ``SpearmanCorrCoef`` agrees on ties, but returns 0 for constant values without a word.

    Args:
        undefined: Value for constant predictions or true values. (default: raise)
        **kwargs: Arguments of :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> metric = SpearmanRho()
        >>> metric(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([10.0, 30.0, 20.0, 40.0]))
        tensor(0.8000)
    """

    def __init__(self, undefined: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.undefined = undefined

    def _value(self, preds: Tensor, target: Tensor) -> Tensor:
        return spearman_rho(preds, target, undefined=self.undefined)


class SelectionMetric(RankingMetric):
    r"""A metric of the architectures that are predicted best.

    Args:
        k: Number (int) or fraction (float) of architectures to select.
        maximize: Whether large values are good, in predictions and true values.
        **kwargs: Arguments of :class:`torchmetrics.Metric`.
    """

    def __init__(self, k: int | float = 10, maximize: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = k
        self.maximize = maximize


class NAtK(SelectionMetric):
    r"""N@K, the best true rank among the predicted best; see :func:`~pyg_nas_np.metrics.functional.n_at_k`.

    Args:
        k: Number (int) or fraction (float) of architectures to select.
        maximize: Whether large values are good, in predictions and true values.
        **kwargs: Arguments of :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> NAtK(k=2)(torch.tensor([0.1, 0.9, 0.8, 0.2]), torch.tensor([94.0, 91.0, 93.0, 92.0]))
        tensor(2)
    """

    higher_is_better = False

    def _value(self, preds: Tensor, target: Tensor) -> Tensor:
        return n_at_k(preds, target, self.k, maximize=self.maximize)


class PrecisionAtK(SelectionMetric):
    r"""P@K, the fraction of true best in the selection; see :func:`~pyg_nas_np.metrics.functional.precision_at_k`.

    Args:
        k: Number (int) or fraction (float) of architectures to select.
        maximize: Whether large values are good, in predictions and true values.
        **kwargs: Arguments of :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> PrecisionAtK(k=0.5)(torch.tensor([0.1, 0.9, 0.8, 0.2]), torch.tensor([94.0, 91.0, 93.0, 92.0]))
        tensor(0.5000)
    """

    def _value(self, preds: Tensor, target: Tensor) -> Tensor:
        return precision_at_k(preds, target, self.k, maximize=self.maximize)


class RegretAtK(SelectionMetric):
    r"""Regret@K, the loss of the selection; see :func:`~pyg_nas_np.metrics.functional.regret_at_k`.

    Args:
        k: Number (int) or fraction (float) of architectures to select.
        maximize: Whether large values are good, in predictions and true values.
        **kwargs: Arguments of :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> RegretAtK(k=2)(torch.tensor([0.1, 0.9, 0.8, 0.2]), torch.tensor([94.0, 91.0, 93.0, 92.0]))
        tensor(1.)
    """

    higher_is_better = False

    def _value(self, preds: Tensor, target: Tensor) -> Tensor:
        return regret_at_k(preds, target, self.k, maximize=self.maximize)
