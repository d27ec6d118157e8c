r"""One protocol for all predictors: fit on the training part of a split, score on its test part."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from sklearn.base import clone
from torch import Tensor

from pyg_nas_np.datasets import ArchitectureDataset, Split, TableDataset
from pyg_nas_np.metrics import functional as metrics
from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.utils import seeded


@dataclass(frozen=True)
class Evaluation:
    r"""Scores of one predictor on the test part of one split.

    The best labels are the largest, or the smallest where the predictor minimises them.

    Args:
        kendall_tau: Kendall's :math:`\tau_b`.
        spearman: Spearman's rank correlation.
        n_at_5: True rank of the best of the five best predictions, 1 is the optimum.
        n_at_10: The same among ten.
        precision_at_1_percent: Share of the predicted best percent that belongs to the true best percent.
        regret_at_1: Distance of the label of the best prediction from the best label, in the unit of the labels.
        regret_at_10: The same for the best label among the ten best predictions.
        nll: Mean negative log density of the labels under the Gaussian prediction.
        crps: Mean continuous ranked probability score, in the unit of the labels.
        coverage_90: Share of labels inside the central 90 % interval.
        fit_seconds: Wall-clock time of fitting.
        predict_seconds: Wall-clock time of predicting every architecture given.
    """

    kendall_tau: float
    spearman: float
    n_at_5: float
    n_at_10: float
    precision_at_1_percent: float
    regret_at_1: float
    regret_at_10: float
    nll: float
    crps: float
    coverage_90: float
    fit_seconds: float
    predict_seconds: float

    def to_dict(self) -> dict[str, float]:
        r"""Returns the scores by name."""
        return asdict(self)


def evaluate(
    predictor: Predictor,
    dataset: ArchitectureDataset | TableDataset,
    split: Split,
    y: Tensor | None = None,
    **fit: Any,
) -> tuple[Evaluation, Tensor, Tensor]:
    r"""Fits a predictor and scores it.

    Whether larger labels are better is for the predictor to say, and for the data set where it leaves that open.

    Args:
        predictor: Any predictor.
        dataset: The whole data set; ``dataset[i]`` must be architecture ``i``.
        split: Indices to fit on and to score on; the rest is predicted too.
        y: Labels of every architecture of the data set, ``[A]``. (default: its own)
        fit: Further arguments of :meth:`~pyg_nas_np.predictors.Predictor.fit`.

    Returns:
        The scores, and mean ``[A]`` and standard deviation ``[A]`` of every architecture of the data set.
    """
    train, labels = dataset[split.train], dataset.y if y is None else y
    start = time.perf_counter()
    predictor.fit(train, labels[split.train], **fit)
    fitted = time.perf_counter()
    mean, std = predictor.predict(dataset, return_std=True)
    done = time.perf_counter()
    parts = mean[split.test], std[split.test], labels[split.test]
    scores = _scores(*parts, predictor.transform_.maximize, fitted - start, done - fitted)
    return scores, mean, std


def cross_validate(
    predictor: Predictor, dataset: ArchitectureDataset | TableDataset, groups: Tensor, *, folds: int = 5, seed: int = 0
) -> tuple[Evaluation, Tensor, Tensor]:
    r"""Predicts every label of a data set from those of other architectures, and scores the predictions.

    Args:
        predictor: Any predictor; clones of it are fitted.
        dataset: ``n`` architectures, all of which have labels.
        groups: Architectures with equal numbers are in one fold, ``[n]``: repeats of one architecture.
        folds: Number of folds; fewer where there are fewer groups.
        seed: Seed of the draw.

    Returns:
        The scores over all folds together (seconds: of one fit, and of predicting all), and the held-out means and
        standard deviations, ``[n]`` float64.

    Raises:
        ValueError: If there are fewer than two folds or groups.
    """
    numbers, which = groups.unique(return_inverse=True)
    folds = min(folds, numbers.numel())
    if folds < 2:
        raise ValueError(f"at least two folds and two different architectures are needed, got {folds}")
    order = torch.randperm(numbers.numel(), generator=seeded(seed), device="cpu")
    fold = (order.argsort() % folds)[which]
    mean = torch.empty(len(dataset), dtype=torch.float64, device="cpu")
    std = torch.empty_like(mean)
    fit_seconds = predict_seconds = 0.0
    for k in range(folds):
        inside = (fold == k).nonzero().flatten()
        start = time.perf_counter()
        fitted = clone(predictor).fit(dataset[(fold != k).nonzero().flatten()])
        middle = time.perf_counter()
        mean[inside], std[inside] = fitted.predict(dataset[inside], return_std=True)
        fit_seconds += (middle - start) / folds
        predict_seconds += time.perf_counter() - middle
    maximize = fitted.transform_.maximize
    return _scores(mean, std, dataset.y, maximize, fit_seconds, predict_seconds), mean, std


def _scores(m: Tensor, s: Tensor, y: Tensor, maximize: bool, fit_seconds: float, predict_seconds: float) -> Evaluation:
    ten = min(10, y.numel())
    # A constant predictor orders nothing.
    return Evaluation(
        kendall_tau=float(metrics.kendall_tau(m, y, undefined=0.0)),
        spearman=float(metrics.spearman_rho(m, y, undefined=0.0)),
        n_at_5=float(metrics.n_at_k(m, y, min(5, y.numel()), maximize=maximize)),
        n_at_10=float(metrics.n_at_k(m, y, ten, maximize=maximize)),
        precision_at_1_percent=float(metrics.precision_at_k(m, y, 0.01, maximize=maximize)),
        regret_at_1=float(metrics.regret_at_k(m, y, 1, maximize=maximize)),
        regret_at_10=float(metrics.regret_at_k(m, y, ten, maximize=maximize)),
        nll=float(metrics.gaussian_nll(m, s, y)),
        crps=float(metrics.gaussian_crps(m, s, y)),
        coverage_90=float(metrics.interval_coverage(m, s, y, 0.9)),
        fit_seconds=fit_seconds,
        predict_seconds=predict_seconds,
    )


def calibration_curve(mean: Tensor, std: Tensor, y: Tensor, num_levels: int = 19) -> tuple[Tensor, Tensor]:
    r"""Returns nominal levels and the observed coverage of the central intervals, ``[num_levels]`` each.

    Example:
        >>> y = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
        >>> nominal, observed = calibration_curve(torch.zeros(10_000), torch.ones(10_000), y)
        >>> bool((nominal - observed).abs().max() < 0.02)
        True
    """
    nominal = torch.linspace(0.05, 0.95, num_levels)
    observed = [float(metrics.interval_coverage(mean, std, y, float(level))) for level in nominal]
    return nominal, torch.tensor(observed)
