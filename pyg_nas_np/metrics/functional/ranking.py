r"""Metrics of a ranking: correlation with the true order, and the quality of the architectures selected by it."""

from __future__ import annotations

import torch
from scipy.stats import kendalltau
from torch import Tensor

from pyg_nas_np.metrics.functional.inputs import check_finite, check_vectors, resolve_k, result_dtype
from pyg_nas_np.utils import InvalidLabelsError


def kendall_tau(preds: Tensor, target: Tensor, *, undefined: float | None = None) -> Tensor:
    r"""Kendall's rank correlation, `tau-b <https://doi.org/10.1093/biomet/33.3.239>`_, in :math:`O(n \log n)`.

    .. math:: \tau_b = \frac{P - Q}{\sqrt{(n_0 - n_1)(n_0 - n_2)}}, \qquad n_0 = \frac{n (n-1)}{2}

    with :math:`P` concordant and :math:`Q` discordant pairs, and :math:`n_1`, :math:`n_2` pairs tied in one input.

    Args:
        preds: Predicted scores, ``[N]``, on any monotone scale; infinities rank as they compare.
        target: True values, ``[N]``.
        undefined: Returned when all predictions or all true values are equal. (default: raise)

    Returns:
        A scalar in [-1, 1] on the device of :obj:`preds`.

    Raises:
        InvalidLabelsError: If the shapes differ, there are fewer than two values, one is NaN, or one input is constant
            and :obj:`undefined` is not given.

    Example:
        >>> kendall_tau(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([10.0, 30.0, 20.0, 40.0]))
        tensor(0.6667)
    """
    check_vectors(minimum=2, preds=preds, target=target)
    value = _undefined(preds, target, undefined)
    if value is None:
        value = kendalltau(_numpy(preds), _numpy(target)).statistic
    return torch.tensor(value, dtype=result_dtype(preds, target), device=preds.device)


def spearman_rho(preds: Tensor, target: Tensor, *, undefined: float | None = None) -> Tensor:
    r"""Spearman's rank correlation: the Pearson correlation of the ranks, ties with their average rank.

    Args:
        preds: Predicted scores, ``[N]``, on any monotone scale; infinities rank as they compare.
        target: True values, ``[N]``.
        undefined: Returned when all predictions or all true values are equal. (default: raise)

    Returns:
        A scalar in [-1, 1] on the device of :obj:`preds`.

    Raises:
        InvalidLabelsError: As :func:`kendall_tau`.

    Example:
        >>> spearman_rho(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([10.0, 30.0, 20.0, 40.0]))
        tensor(0.8000)
    """
    check_vectors(minimum=2, preds=preds, target=target)
    value = _undefined(preds, target, undefined)
    if value is not None:
        return torch.tensor(value, dtype=result_dtype(preds, target), device=preds.device)
    a, b = (_centred_ranks(x.detach()) for x in (preds, target))
    rho: Tensor = (a @ b) / (a.norm() * b.norm())
    return rho.clamp(-1.0, 1.0).to(result_dtype(preds, target))


def n_at_k(preds: Tensor, target: Tensor, k: int | float = 10, *, maximize: bool = True) -> Tensor:
    r"""N@K: the best true rank among the :obj:`k` architectures predicted best; 1 is a perfect selection.

    Tied true values share their best rank. If predictions tie at the border of the selection, the architectures with
    the worse true values are selected, so that the value does not depend on the order of the inputs and a constant
    predictor has no advantage.

    Args:
        preds: Predicted values, ``[N]``.
        target: True values, ``[N]``.
        k: Number (int) or fraction (float) of architectures to select.
        maximize: Whether large values are good, in both inputs.

    Returns:
        An int64 scalar from 1 to N.

    Raises:
        InvalidLabelsError: If the shapes differ, or a value is NaN.
        ValueError: If :obj:`k` is out of range.

    Example:
        >>> n_at_k(torch.tensor([0.1, 0.9, 0.8, 0.2]), torch.tensor([94.0, 91.0, 93.0, 92.0]), k=2)
        tensor(2)
    """
    truth, chosen = _select(preds, target, k, maximize)
    return (truth > truth[chosen].max()).sum() + 1


def precision_at_k(preds: Tensor, target: Tensor, k: int | float = 10, *, maximize: bool = True) -> Tensor:
    r"""P@K: the fraction of the :obj:`k` architectures predicted best that are among the true best :obj:`k`.

    An architecture is among them if its true value is at least the K-th best one, ties included.
    Predictions that tie at the border are resolved as in :func:`n_at_k`.

    Args:
        preds: Predicted values, ``[N]``.
        target: True values, ``[N]``.
        k: Number (int) or fraction (float) of architectures to select.
        maximize: Whether large values are good, in both inputs.

    Returns:
        A scalar in [0, 1].

    Raises:
        InvalidLabelsError: If the shapes differ, or a value is NaN.
        ValueError: If :obj:`k` is out of range.

    Example:
        >>> precision_at_k(torch.tensor([0.1, 0.9, 0.8, 0.2]), torch.tensor([94.0, 91.0, 93.0, 92.0]), k=2)
        tensor(0.5000)
    """
    truth, chosen = _select(preds, target, k, maximize)
    border = truth.topk(chosen.numel()).values[-1]
    return (truth[chosen] >= border).to(result_dtype(preds, target)).mean()


def regret_at_k(preds: Tensor, target: Tensor, k: int | float = 10, *, maximize: bool = True) -> Tensor:
    r"""Regret@K: how much the best true value exceeds the best one among the :obj:`k` architectures predicted best.

    Predictions that tie at the border of the selection are resolved as in :func:`n_at_k`.

    Args:
        preds: Predicted values, ``[N]``.
        target: True values, ``[N]``; finite.
        k: Number (int) or fraction (float) of architectures to select.
        maximize: Whether large values are good, in both inputs.

    Returns:
        A scalar, not negative, in the unit of the labels.

    Raises:
        InvalidLabelsError: If the shapes differ, a value is NaN, or a true value is infinite.
        ValueError: If :obj:`k` is out of range.

    Example:
        >>> regret_at_k(torch.tensor([0.1, 0.9, 0.8, 0.2]), torch.tensor([94.0, 91.0, 93.0, 92.0]), k=2)
        tensor(1.)
    """
    check_finite(target=target)
    truth, chosen = _select(preds, target, k, maximize)
    return (truth.max() - truth[chosen].max()).to(result_dtype(preds, target))


def _select(preds: Tensor, target: Tensor, k: int | float, maximize: bool) -> tuple[Tensor, Tensor]:
    """Returns the true values as "larger is better", and the positions of the k best predictions."""
    check_vectors(preds=preds, target=target)
    count = resolve_k(k, preds.numel())
    truth, score = (x.detach().double() for x in (target, preds))
    if not maximize:
        truth, score = -truth, -score
    worst_first = truth.argsort()
    best_predicted = score[worst_first].argsort(descending=True, stable=True)
    return truth, worst_first[best_predicted[:count]]


def _undefined(preds: Tensor, target: Tensor, undefined: float | None) -> float | None:
    for name, vector in (("preds", preds), ("target", target)):
        if bool((vector == vector[0]).all()):
            if undefined is None:
                raise InvalidLabelsError(
                    f"all {vector.numel()} values of {name} equal {vector[0].item():g}, so rank correlation is "
                    f"undefined; pass undefined=... to get a value instead"
                )
            return undefined
    return None


def _centred_ranks(x: Tensor) -> Tensor:
    _, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks: Tensor = last - (counts.double() - 1) / 2
    return ranks[inverse] - (x.numel() + 1) / 2


def _numpy(x: Tensor) -> object:
    x = x.detach().cpu()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()
