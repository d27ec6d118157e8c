r"""A ranking and all that is known about it: what terminal, files, plot and report show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.predictors import Architectures, Predictor
from pyg_nas_np.predictors.attribution import ParameterAttribution
from pyg_nas_np.predictors.evaluation import Evaluation
from pyg_nas_np.spaces import RecordView, SearchSpace
from pyg_nas_np.spaces.base import EnumerableSpace


class HeldOut(NamedTuple):
    r"""Predictions of labels that the predictor was not fitted to, ``[m]`` each.

    Attributes:
        mean: Predicted labels.
        std: Their standard deviations.
        y: The labels.
        how: Which labels they are, in words.
    """

    mean: Tensor
    std: Tensor
    y: Tensor
    how: str


class Latencies(NamedTuple):
    r"""Predicted latencies of the candidates, ``[A]`` each.

    Attributes:
        median: The prediction.
        low: Lower end of the central 90 % interval.
        high: Its upper end.
        limit: The largest allowed latency; :obj:`None` where there is none.
        within: Probability to be within the limit.
    """

    median: Tensor
    low: Tensor
    high: Tensor
    limit: float | None = None
    within: Tensor | None = None


@dataclass(frozen=True)
class Ranking:
    r"""A ranking of ``A`` architectures; the predictor says whether larger labels are better.

    Args:
        archs: The architectures.
        predictor: What ranks, fitted.
        name: Its name.
        mean: Predicted labels, ``[A]``.
        std: Their standard deviations, ``[A]``.
        y: Measured labels, NaN where unknown, ``[A]``.
        seen: Positions of those that the predictor was fitted to.
        label: Name and unit of the labels.
        tested: Predictions of known labels. (default: none)
        scores: Scores on these, by name of the predictor.
        costs: Costs of the architectures by name, ``[A]`` each.
        chance: Probability of each to be the best, ``[A]``. (default: not computed)
        attribution: What the predictions depend on, of records of parameters.
        others: Number of architectures that were ranked behind these and left out.
        latencies: Predicted latencies on the user's device. (default: none)
    """

    archs: Architectures
    predictor: Predictor
    name: str
    mean: Tensor
    std: Tensor
    y: Tensor
    seen: Tensor
    label: str
    tested: HeldOut | None = None
    scores: Mapping[str, Evaluation] = field(default_factory=dict)
    costs: Mapping[str, Tensor] = field(default_factory=dict)
    chance: Tensor | None = None
    attribution: ParameterAttribution | None = None
    others: int = 0
    latencies: Latencies | None = None

    def __len__(self) -> int:
        return len(self.archs)

    @property
    def total(self) -> int:
        r"""Number of ranked architectures."""
        return len(self) + self.others

    @property
    def maximize(self) -> bool:
        r"""Whether larger labels are better."""
        return bool(self.predictor.transform_.maximize)

    @cached_property
    def order(self) -> Tensor:
        r"""Positions, the best prediction first, int64 ``[A]``."""
        return self.mean.argsort(descending=self.maximize, stable=True)

    @cached_property
    def true_ranks(self) -> Tensor:
        r"""Rank of every measured label, 1 is the best, int64 ``[A]``; those without a label come last."""
        merit = (self.y if self.maximize else -self.y).nan_to_num(-math.inf)
        ranks = torch.empty(merit.numel(), dtype=torch.long, device="cpu")
        ranks[merit.argsort(descending=True, stable=True)] = torch.arange(1, merit.numel() + 1, device="cpu")
        return ranks

    @property
    def has_truth(self) -> bool:
        r"""Whether labels of the ranked architectures are known that the predictor was not fitted to."""
        return bool((~self.y.isnan()).sum() > self.seen.unique().numel())

    @cached_property
    def ids(self) -> tuple[str, Tensor]:
        r"""What identifies the architectures, and its values int64 ``[A]``: official indices, or rows from 1 on."""
        if isinstance(self.archs.space, EnumerableSpace):
            return "index", self.archs.index
        return "row", torch.arange(1, len(self) + 1, device="cpu")

    def names(self, positions: Tensor) -> list[str]:
        r"""Returns architectures as text: configurations as ``name=value``, others as the space writes them."""
        return configuration_texts(self.archs.space, list(self.archs[positions]))


def configuration_texts(space: SearchSpace[Any], archs: Sequence[Any]) -> list[str]:
    r"""Returns architectures as text: configurations as ``name=value``, others as the space writes them.

    Example:
        >>> from pyg_nas_np.spaces import Float, ParameterSpace
        >>> space = ParameterSpace(act=["relu", "gelu"], lr=Float(0.001, 0.1))
        >>> configuration_texts(space, [space.check({"act": "gelu", "lr": 0.0123456789})])
        ['act=gelu lr=0.01235']
    """
    if not isinstance(space, RecordView):
        return [space.to_str(arch) for arch in archs]
    return [
        " ".join(f"{name}={value_text(value)}" for name, value in record.items()) for record in space.records(archs)
    ]


def value_text(value: Any) -> str:
    r"""Returns the value of a parameter as text for people: four digits of a number, layers in brackets.

    Example:
        >>> value_text(0.0001234567), value_text([{"width": 8}, {"width": 16}]), value_text(None)
        ('0.0001235', '[8 16]', '–')
    """
    if isinstance(value, list):
        layers = (layer.values() if isinstance(layer, dict) else [layer] for layer in value)
        return f"[{' '.join('/'.join(map(value_text, layer)) for layer in layers)}]"
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def cost_text(cost: float) -> str:
    r"""Returns a cost as text, whole numbers with all their digits.

    Example:
        >>> cost_text(1234567.0), cost_text(0.03125), cost_text(float("nan"))
        ('1,234,567', '0.03125', '–')
    """
    if math.isnan(cost):
        return "–"
    return f"{cost:,.0f}" if cost == round(cost) or abs(cost) >= 1e3 else f"{cost:.4g}"


def latency_columns(ranking: Ranking) -> list[str]:
    r"""Returns the headings of predicted latencies; none where there are none."""
    found = ranking.latencies
    if found is None:
        return []
    return ["latency (90 % interval)", *([] if found.limit is None else [f"within {found.limit:g} with p"])]


def latency_cells(ranking: Ranking, position: int) -> list[str]:
    r"""Returns the predicted latency of an architecture as text, a cell for each of :func:`latency_columns`."""
    found = ranking.latencies
    if found is None:
        return []
    median, low, high = (float(values[position]) for values in (found.median, found.low, found.high))
    cells = [f"{median:.4g} ({low:.4g} to {high:.4g})"]
    return cells if found.within is None else [*cells, f"{float(found.within[position]):.3f}"]
