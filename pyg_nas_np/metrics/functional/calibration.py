r"""Metrics of a predictive distribution: proper scores and calibration."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.special import ndtr, ndtri

from pyg_nas_np.metrics.functional.inputs import check_finite, check_gaussian, check_vectors
from pyg_nas_np.utils import InvalidLabelsError


def gaussian_nll(mean: Tensor, std: Tensor, target: Tensor) -> Tensor:
    r"""Mean negative log-likelihood of Gaussian predictions, in nats.

    .. math:: \tfrac{1}{2} \log (2 \pi \sigma^2) + \frac{(y - \mu)^2}{2 \sigma^2}

    Args:
        mean: Predicted means, ``[N]``.
        std: Predicted standard deviations, ``[N]``, positive.
        target: True values, ``[N]``.

    Returns:
        A differentiable scalar.

    Raises:
        InvalidLabelsError: If shapes differ, a value is NaN or infinite, or a standard deviation is not positive.

    Example:
        >>> gaussian_nll(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0]))
        tensor(0.9189)
    """
    check_gaussian(mean, std, target)
    z = (target - mean) / std
    return (0.5 * math.log(2 * math.pi) + std.log() + 0.5 * z**2).mean()


def gaussian_crps(mean: Tensor, std: Tensor, target: Tensor) -> Tensor:
    r"""Mean continuous ranked probability score of Gaussian predictions, in the unit of the labels.

    The closed form of `Gneiting et al. <https://doi.org/10.1175/MWR2904.1>`_ with :math:`z = (y - \mu) / \sigma`:

    .. math:: \sigma \left( z (2 \Phi(z) - 1) + 2 \varphi(z) - \tfrac{1}{\sqrt{\pi}} \right)

    Args:
        mean: Predicted means, ``[N]``.
        std: Predicted standard deviations, ``[N]``, positive.
        target: True values, ``[N]``.

    Returns:
        A differentiable scalar, not negative.

    Raises:
        InvalidLabelsError: If shapes differ, a value is NaN or infinite, or a standard deviation is not positive.

    Example:
        >>> gaussian_crps(torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([0.0]))
        tensor(0.2337)
    """
    check_gaussian(mean, std, target)
    z = (target - mean) / std
    density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    score: Tensor = std * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))
    return score.mean()


def sample_crps(samples: Tensor, target: Tensor, *, fair: bool = True) -> Tensor:
    r"""Mean continuous ranked probability score of predictions given as samples, in :math:`O(S \log S)` per label.

    .. math:: \frac{1}{S} \sum_i |x_i - y| - \frac{1}{2 M} \sum_{i, j} |x_i - x_j|

    with :math:`M = S (S - 1)`, which is unbiased for the score of the distribution that was sampled, or
    :math:`M = S^2`, the score of the samples themselves.

    Args:
        samples: Samples of every prediction, ``[S, N]``.
        target: True values, ``[N]``.
        fair: Whether to use the unbiased form; it needs at least two samples.

    Returns:
        A differentiable scalar.

    Raises:
        InvalidLabelsError: If shapes do not match, there are too few samples, or a value is NaN or infinite.

    Example:
        >>> sample_crps(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([1.0, 1.0]), fair=False)
        tensor(0.5000)
    """
    if samples.dim() != 2 or samples.size(1) != target.numel():
        raise InvalidLabelsError(
            f"samples must have shape [S, N] with target [N], got {list(samples.shape)} and {list(target.shape)}"
        )
    count = samples.size(0)
    if count < (2 if fair else 1):
        raise InvalidLabelsError(f"{count} samples per label are too few; fair=False needs 1, fair=True needs 2")
    check_vectors(samples=samples.flatten())
    check_vectors(target=target)
    check_finite(samples=samples, target=target)
    error = (samples - target).abs().mean(dim=0)
    # Among sorted samples, x_(i) is the larger of a pair i - 1 times and the smaller S - i times.
    weight = 2 * torch.arange(count, dtype=samples.dtype, device=samples.device) - (count - 1)
    half_spread = (weight.unsqueeze(1) * samples.sort(dim=0).values).sum(dim=0)
    return (error - half_spread / (count * (count - 1) if fair else count**2)).mean()


def interval_coverage(mean: Tensor, std: Tensor, target: Tensor, level: float = 0.9) -> Tensor:
    r"""Share of the true values inside the central prediction interval; a calibrated model gives :obj:`level`.

    Args:
        mean: Predicted means, ``[N]``.
        std: Predicted standard deviations, ``[N]``, positive.
        target: True values, ``[N]``.
        level: Nominal coverage, in (0, 1); the interval is closed.

    Returns:
        A scalar in [0, 1].

    Raises:
        InvalidLabelsError: If shapes differ, a value is NaN or infinite, or a standard deviation is not positive.
        ValueError: If :obj:`level` is outside (0, 1).

    Example:
        >>> interval_coverage(torch.zeros(3), torch.ones(3), torch.tensor([0.5, -1.0, 3.0]), level=0.9)
        tensor(0.6667)
    """
    check_level(level)
    check_gaussian(mean, std, target)
    half_width = float(ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64, device="cpu")))
    return ((target - mean).abs() <= half_width * std).to(mean.dtype).mean()


def gaussian_pit(mean: Tensor, std: Tensor, target: Tensor) -> Tensor:
    r"""Probability integral transform of the true values; uniform on [0, 1] for a calibrated model.

    Args:
        mean: Predicted means, ``[N]``.
        std: Predicted standard deviations, ``[N]``, positive.
        target: True values, ``[N]``.

    Returns:
        The predicted probability of a smaller value than the true one, ``[N]``.

    Raises:
        InvalidLabelsError: If shapes differ, a value is NaN or infinite, or a standard deviation is not positive.

    Example:
        >>> gaussian_pit(torch.zeros(2), torch.ones(2), torch.tensor([0.0, 1.6449]))
        tensor([0.5000, 0.9500])
    """
    check_gaussian(mean, std, target)
    pit: Tensor = ndtr((target - mean) / std)
    return pit


def calibration_error(pit: Tensor) -> Tensor:
    r"""Distance of probability integral transforms from uniform: 0 is calibrated, the largest value is one half.

    The area between their empirical distribution function and the diagonal (1-Wasserstein distance), which is the
    absolute difference of empirical and nominal quantile coverage averaged over all levels, without bins.

    Args:
        pit: Probability integral transforms, ``[N]``, in [0, 1] (:func:`gaussian_pit`).

    Returns:
        A scalar in [0, 0.5].

    Raises:
        InvalidLabelsError: If :obj:`pit` is not a vector, empty, or has a value outside [0, 1].

    Example:
        >>> calibration_error(torch.tensor([0.25, 0.75])), calibration_error(torch.tensor([0.0, 0.0]))
        (tensor(0.1250), tensor(0.5000))
    """
    check_vectors(pit=pit)
    bad = (pit < 0) | (pit > 1)
    if bool(bad.any()):
        raise InvalidLabelsError(f"pit must lie in [0, 1], got {float(pit[bad][0])}")
    u = pit.sort().values
    count = u.numel()
    lower = torch.arange(count, dtype=u.dtype, device=u.device) / count
    upper = lower + 1 / count
    inside = u.clamp(lower, upper)
    # Each order statistic is compared with the quantiles of its own 1/N-wide segment.
    return (((inside - lower) ** 2 + (upper - inside) ** 2) / 2 + (u - inside).abs() / count).sum()


def check_level(level: float) -> None:
    r"""Checks a nominal coverage.

    Raises:
        ValueError: If :obj:`level` is outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie in (0, 1), got {level}")
