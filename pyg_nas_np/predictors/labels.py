r"""Targets: from measured labels to a well-behaved scale and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from pyg_nas_np.utils import InvalidLabelsError

LabelScale = Literal["auto", "rank", "robust"]
"""``"rank"``: Gaussian scores of the ranks; ``"robust"``: their mean with the clipped, robustly standardised logits of
accuracies; ``"auto"``: ``"robust"`` for labels from 0 to 100, which may be accuracies, and the same with the values
themselves for others."""

Labels = Tensor | np.ndarray[Any, Any] | Sequence[float] | Any
"""One number an architecture: a tensor, an array, a pandas series or one-column frame, or a sequence of numbers."""

_CLIP = 3.0
_REACH = 0.5
_LEAST = 1e-6


def check_labels(y: Labels, count: int | None = None, *, least: int = 1) -> Tensor:
    r"""Returns labels as a float64 tensor ``[n]``.

    Args:
        y: ``[n]`` or ``[n, 1]``. Masked entries count as missing; the index of a pandas series is ignored.
        count: Number of architectures that the labels must belong to.
        least: Number of labels that are needed, 0 or 1.

    Raises:
        InvalidLabelsError: If there is no label but :obj:`least` is 1, a label is missing, NaN or infinite, or there
            are not :obj:`count` of them.

    Example:
        >>> check_labels([93.5, 91.0])
        tensor([93.5000, 91.0000], dtype=torch.float64)
    """
    try:
        values = _numbers(y)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise InvalidLabelsError(f"labels must be numbers, got {type(y).__name__}: {error}") from error
    if values.dim() == 2 and values.size(1) == 1:
        values = values.squeeze(1)
    if values.dim() != 1:
        raise InvalidLabelsError(f"labels must be one number an architecture, got shape {list(values.shape)}")
    if values.numel() < least:
        raise InvalidLabelsError("there are no labels; at least 1 labelled architecture is needed")
    if count is not None and values.numel() != count:
        raise InvalidLabelsError(f"there are {values.numel()} labels for {count} architectures; give one each")
    bad = ~values.isfinite()
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise InvalidLabelsError(
            f"{int(bad.sum())} of {values.numel()} labels are missing, NaN or infinite, the first at position {first} "
            f"({float(values[first])}); select labelled architectures, for example dataset[dataset.label_mask]"
        )
    return values


def _numbers(y: Labels) -> Tensor:
    if isinstance(y, Tensor):
        if y.is_complex():
            raise TypeError("complex numbers have no order")
        return y.detach().to_dense().to("cpu", torch.float64)
    if isinstance(y, np.ma.MaskedArray):
        array = np.where(np.ma.getmaskarray(y), np.nan, np.ma.getdata(y).astype(np.float64))
    elif hasattr(y, "to_numpy"):
        # pandas and polars: nullable types know how to become floats themselves.
        array = np.asarray(y.to_numpy(), dtype=object)
        array = np.array([math.nan if _missing(v) else float(v) for v in array.ravel()]).reshape(array.shape)
    else:
        array = np.asarray(y)
        if array.dtype == object:
            array = np.array([math.nan if _missing(v) else float(v) for v in array.ravel()]).reshape(array.shape)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"not numbers but {array.dtype}")
    return torch.from_numpy(np.array(array, dtype=np.float64))


def _missing(value: Any) -> bool:
    if isinstance(value, str):
        raise TypeError(f"{value!r} is text")
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def rank_gauss(y: Tensor) -> Tensor:
    r"""Gaussian scores :math:`\Phi^{-1}((r_i - 1/2) / n)` of the ranks :math:`r_i`, ties averaged.

    Example:
        >>> rank_gauss(torch.tensor([10.0, 30.0, 20.0, 20.0]))
        tensor([-1.1503,  1.1503,  0.0000,  0.0000], dtype=torch.float64)
    """
    ranks = torch.from_numpy(rankdata(y.numpy()))
    scores: Tensor = torch.special.ndtri((ranks - 0.5) / y.numel())
    return scores


def known_ranks(values: Tensor) -> Tensor:
    r"""Gaussian scores of the ranks of finite values; 0, their mean, where one is NaN or infinite.

    Example:
        >>> known_ranks(torch.tensor([10.0, float("nan"), 30.0, 20.0]))
        tensor([-0.9674,  0.0000,  0.9674,  0.0000], dtype=torch.float64)
    """
    values, known = values.double(), values.isfinite()
    return torch.zeros_like(values).masked_scatter(known, rank_gauss(values[known]))


def robust_logit(y: Tensor) -> Tensor:
    r"""Logit of an accuracy, centred by the median, scaled by the interquartile range, clipped to :math:`\pm 3`.

    The interquartile range is divided by 1.349, so that it estimates the standard deviation of a Gaussian. Labels up to
    1 are read as fractions, larger ones as percent. Accuracies below 0.01 % and above 99.99 % count as these.

    Raises:
        InvalidLabelsError: If a label is not an accuracy.
    """
    low, high = float(y.min()), float(y.max())
    if low < 0.0 or high > 100.0:
        raise InvalidLabelsError(
            f"labels='robust' is for accuracies, as fractions or in percent; labels range from {low:g} to {high:g}. "
            f"Use labels='rank'"
        )
    fraction = (y if high <= 1.0 else y / 100.0).clamp(1e-4, 1.0 - 1e-4)
    return _robust(fraction.logit())


def robust_scores(values: Tensor) -> Tensor:
    r"""Standardised mean of the Gaussian scores of the ranks and the clipped, robustly standardised values.

    What ``"robust"`` does with logits of accuracies.

    Example:
        >>> robust_scores(torch.tensor([-9.0, -1.0, 0.0, 1.0, 2.0], dtype=torch.float64)).round(decimals=1)
        tensor([-1.7000, -0.4000,  0.1000,  0.7000,  1.3000], dtype=torch.float64)
    """
    z = 0.5 * rank_gauss(values) + 0.5 * _robust(values)
    return (z - z.mean()) / z.std(unbiased=False).clamp_min(1e-12)


def _robust(values: Tensor) -> Tensor:
    quartiles = torch.quantile(values, torch.tensor([0.25, 0.5, 0.75], dtype=values.dtype))
    spread = float(quartiles[2] - quartiles[0]) / 1.349
    if spread <= 0.0:
        return torch.zeros_like(values)
    return ((values - quartiles[1]) / spread).clamp(-_CLIP, _CLIP)


class LabelTransform:
    r"""Maps labels to standardised scores, larger is better, and predicted scores back to the scale of the labels.

    Fitting gives strictly monotone pairs (score, label). The way back interpolates them linearly. Beyond the best
    and the worst label it bends off towards a bound that is as far from that label as the median is, so that the whole
    map is strictly monotone: predictions keep the order of their scores.

    Labels are centred and scaled in double precision first, so that neither large offsets nor magnitudes up to 1e300
    cost anything.

    One label, or equal labels, have no scale. Then :attr:`informative` is false, and every prediction is the label
    with the standard deviation :math:`|y| / n` (:math:`1 / n` for :math:`y = 0`).

    Without labels, the scale is not known (:attr:`labelled` is false). Then predictions are the scores themselves,
    negative ones where labels are minimised.

    Args:
        kind: See :data:`LabelScale`. Scores have mean 0 and standard deviation 1 over the labels.
        maximize: Whether larger labels are better. Otherwise the largest label has the lowest score.

    Raises:
        ValueError: If :obj:`kind` is unknown.

    Example:
        >>> transform = LabelTransform()
        >>> z = transform.fit(torch.tensor([90.0, 94.0, 93.0, 70.0], dtype=torch.float64))
        >>> transform.inverse(z)[0]
        tensor([90., 94., 93., 70.], dtype=torch.float64)
    """

    def __init__(self, kind: LabelScale = "auto", *, maximize: bool = True) -> None:
        if kind not in get_args(LabelScale):
            raise ValueError(f"labels must be one of {', '.join(get_args(LabelScale))}, got {kind!r}")
        self.kind = kind
        self.maximize = bool(maximize)

    def fit(self, y: Tensor) -> Tensor:
        r"""Learns the map from labels ``[n]`` float64 (see :func:`check_labels`) and returns their scores ``[n]``."""
        self.labelled = y.numel() > 0
        self.informative = self.labelled and bool((y != y[0]).any())
        if not self.labelled:
            return torch.zeros_like(y)
        if not self.informative:
            self.constant = float(y[0])
            self.spread = (abs(self.constant) or 1.0) / y.numel()
            return torch.zeros_like(y)
        sign = 1.0 if self.maximize else -1.0
        self._centre = float(y.median())
        centred = sign * (y - self._centre)
        self._unit = sign * float(centred.abs().max())
        centred = centred / abs(self._unit)
        z = rank_gauss(centred)
        accuracies = float(y.min()) >= 0.0 and float(y.max()) <= 100.0
        if self.kind == "robust" or (self.kind == "auto" and accuracies):
            z = 0.5 * z + 0.5 * sign * robust_logit(y)
        elif self.kind == "auto":
            z = 0.5 * z + 0.5 * _robust(centred)
        z = (z - z.mean()) / z.std(unbiased=False)
        self.labels, where = torch.unique(centred, return_inverse=True)
        self.scores = torch.zeros_like(self.labels).scatter_(0, where, z)
        reach = float(self.labels[-1] - self.labels[0])
        self._lower = self._end(0, float(self.labels[0]) or -reach)
        self._upper = self._end(-1, float(self.labels[-1]) or reach)
        return z

    def inverse(self, mean: Tensor, std: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        r"""Maps predicted scores to labels.

        Args:
            mean: Scores, any shape.
            std: Their standard deviations; become half the difference between the images of mean ± one deviation, at
                least a millionth of the range of the labels.

        Returns:
            Labels and their standard deviations (:obj:`None` without :obj:`std`), float64.
        """
        mean = mean.double()
        if not self.labelled:
            return mean if self.maximize else -mean, None if std is None else std.double()
        if not self.informative:
            return torch.full_like(mean, self.constant), None if std is None else torch.full_like(mean, self.spread)
        label = self._centre + self._unit * self._label(mean)
        if std is None:
            return label, None
        std = std.double()
        half = (self._label(mean + std) - self._label(mean - std)) / 2
        # Far outside the labels the map is so flat that the difference vanishes in rounding.
        return label, abs(self._unit) * half.clamp_min(_LEAST * float(self.labels[-1] - self.labels[0]))

    def gain(self, scores: Tensor) -> Tensor:
        r"""Returns by how much labels would be better than the best one, float64; 0 where they are not.

        Beyond the best label the map goes on straight, where :meth:`inverse` bends off: what may be gained is not
        bounded by what was measured.

        Args:
            scores: Scores, any shape, of labels that have a scale.
        """
        best, _, slope, _ = self._upper
        return abs(self._unit) * slope * (scores.double() - best).clamp_min(0.0)

    def score_std(self, y: Tensor, std: Tensor) -> Tensor:
        r"""Maps standard deviations of labels to those of their scores, by the mean slope over ``y`` ± ``std``.

        Args:
            y: Labels, ``[n]`` float64.
            std: Their standard deviations, ``[n]``, not negative.

        Returns:
            ``[n]`` float64; zeros if the labels have no scale.
        """
        if not self.informative:
            return torch.zeros_like(y)
        unit, ends = abs(self._unit), (float(self.labels[0]), float(self.labels[-1]))
        centre, half = (y - self._centre) / self._unit, std.double() / unit
        # An infinitesimal interval would see one pair of neighbouring labels alone.
        reach = half.clamp_min(_LEAST * (ends[1] - ends[0]))
        low, high = ((centre + sign * reach).clamp(*ends) for sign in (-1.0, 1.0))
        slope = (self._score(high) - self._score(low)) / (high - low).clamp_min(_LEAST * (ends[1] - ends[0]))
        return half * slope

    def _score(self, label: Tensor) -> Tensor:
        """Inverse of :meth:`_label` inside the range of the labels."""
        return torch.from_numpy(np.interp(label.numpy(), self.labels.numpy(), self.scores.numpy()))

    def _end(self, position: int, bound: float) -> tuple[float, float, float, float]:
        """Score and label of an end, slope beyond it, and the limit of the label's excess."""
        score, label = self.scores[position], self.labels[position]
        # A pair of almost equal labels says nothing about the slope; look some way into the data.
        far = (self.scores - score).abs() >= _REACH
        inner = far.nonzero()[0 if position == 0 else -1] if bool(far.any()) else torch.tensor([-1 - position])
        slope = (self.labels[inner] - label) / (self.scores[inner] - score)
        return float(score), float(label), float(slope), bound

    def _label(self, z: Tensor) -> Tensor:
        right = torch.searchsorted(self.scores, z).clamp(1, self.scores.numel() - 1)
        left = right - 1
        weight = (z - self.scores[left]) / (self.scores[right] - self.scores[left])
        label = torch.lerp(self.labels[left], self.labels[right], weight)
        for (score, end, slope, bound), outside in (
            (self._lower, z < self.scores[0]),
            (self._upper, z > self.scores[-1]),
        ):
            step = slope * (z - score) / bound
            label = torch.where(outside, end + bound * step / (1.0 + step), label)
        return label


def check_deviations(y_std: Labels | None, values: Tensor) -> Tensor:
    r"""Returns known standard deviations of labels, ``[n]`` float64, 0 where none is known.

    Args:
        y_std: One for each label, or none.
        values: The labels.

    Raises:
        InvalidLabelsError: If there is not one a label, or one is negative, NaN or infinite.

    Example:
        >>> check_deviations([0.1, 0.0], torch.tensor([91.0, 93.0])).tolist()
        [0.1, 0.0]
    """
    if y_std is None:
        return torch.zeros_like(values)
    try:
        std = check_labels(y_std, values.numel())
    except InvalidLabelsError as error:
        raise InvalidLabelsError(f"y_std: {error}") from error
    if bool((std < 0.0).any()):
        row = int((std < 0.0).nonzero()[0])
        raise InvalidLabelsError(f"y_std must not be negative, got {float(std[row]):g} at position {row}")
    return std


class LogTransform(LabelTransform):
    r"""Maps positive labels to standardised negative logarithms, of which larger ones are better, and back.

    For labels that are multiplicative, such as latencies: scores have mean 0 and standard deviation 1 over the labels,
    and a factor in all labels changes no score. One label, or equal labels, have the scale 1.

    A predicted label is the median: the mean of the logarithm, mapped back. Standard deviations become half the
    difference between the images of mean ± one deviation.

    Example:
        >>> transform = LogTransform()
        >>> z = transform.fit(torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64))
        >>> bool(z[0] > z[1] > z[2]), transform.inverse(z)[0].round().tolist()
        (True, [1.0, 10.0, 100.0])
    """

    def __init__(self) -> None:
        super().__init__("auto", maximize=False)

    def fit(self, y: Tensor) -> Tensor:
        r"""Learns the scale of labels ``[n]`` float64 and returns their scores ``[n]``.

        Raises:
            InvalidLabelsError: If a label is not positive.
        """
        if bool((y <= 0).any()):
            first = int((y <= 0).nonzero()[0])
            raise InvalidLabelsError(
                f"the label at position {first} is {float(y[first]):g}; latencies must be positive, measure it again"
            )
        self.labelled = self.informative = y.numel() > 0
        self.centre = float(y.log().mean()) if self.labelled else 0.0
        spread = float(y.log().std(unbiased=False)) if self.labelled else 0.0
        self.unit = spread if spread > _LEAST else 1.0
        return self.scores_of(y)

    def scores_of(self, y: Tensor | float) -> Tensor:
        r"""Returns the scores of positive labels."""
        return (self.centre - torch.as_tensor(y, dtype=torch.float64).log()) / self.unit

    def inverse(self, mean: Tensor, std: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        r"""Maps predicted scores, and their standard deviations, to labels; see :meth:`LabelTransform.inverse`."""
        mean, std = mean.double(), None if std is None else std.double()
        if not self.labelled:
            return -mean, std
        label = (self.centre - self.unit * mean).exp()
        return label, None if std is None else label * (self.unit * std).sinh()

    def score_std(self, y: Tensor, std: Tensor) -> Tensor:
        r"""Maps standard deviations of labels to those of their scores, to first order."""
        return std.double() / (y.double() * self.unit)
