r"""One measured quantity of a benchmark: every seed and epoch, with a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyg_nas_np.utils.errors import DataFileError

_MERITS = ("percent", "fraction", "score", "")


@dataclass(frozen=True, eq=False)
class Metric:
    r"""Measurements of one quantity, never averaged silently.

    Args:
        values: ``[A, S, E]`` float32, one entry per architecture, seed and epoch; NaN where :obj:`mask` is False.
        mask: ``[A, S, E]`` bool, True where a measurement exists.
        seeds: ``S`` names of the seeds (``"777"``), or of aggregates (``"mean of 3"``).
        epochs: ``E`` numbers of completed training epochs.
        unit: ``"percent"``, ``"fraction"`` or ``"score"``, of which more is better; or that of a cost, ``"seconds"``,
            ``"milliseconds"``, ``"nats"``, ``"percent of errors"``, ``"cost"``, ...; or ``""``.
        split: The benchmark's name of the images used for the measurement (``"x-valid"``), or ``""``.

    Example:
        >>> metric = Metric.from_values(torch.tensor([[[90.0], [92.0]], [[80.0], [float("nan")]]]), ("777", "888"),
        ...                             (200,), "percent", "x-valid")
        >>> metric.mean()
        tensor([91., 80.])
    """

    values: Tensor
    mask: Tensor
    seeds: tuple[str, ...]
    epochs: tuple[int, ...]
    unit: str
    split: str = ""

    def __post_init__(self) -> None:
        shape = (self.values.size(0), len(self.seeds), len(self.epochs))
        if tuple(self.values.shape) != shape or tuple(self.mask.shape) != shape:
            raise ValueError(
                f"values {list(self.values.shape)} and mask {list(self.mask.shape)} must both have shape "
                f"[architectures, {len(self.seeds)} seeds, {len(self.epochs)} epochs]"
            )

    @classmethod
    def from_values(
        cls, values: Tensor, seeds: tuple[str, ...], epochs: tuple[int, ...], unit: str, split: str = ""
    ) -> Metric:
        r"""Builds a metric whose mask is "not NaN".

        Raises:
            DataFileError: If a value is infinite.
        """
        if bool(values.isinf().any()):
            raise DataFileError(f"row {int(values.isinf().flatten(1).any(1).nonzero()[0])} holds an infinite value")
        values = values.to(torch.float32)
        return cls(values, ~values.isnan(), tuple(seeds), tuple(epochs), unit, split)

    @property
    def maximize(self) -> bool:
        r"""Whether larger values are better, as the unit tells: not for losses, errors, times and other costs."""
        return self.unit in _MERITS

    def mean(self, epoch: int | None = None) -> Tensor:
        r"""Returns the mean over the measured seeds at :obj:`epoch` (default: the last), ``[A]``, NaN where none."""
        column = len(self.epochs) - 1 if epoch is None else self._column(epoch)
        return self.values[:, :, column].double().nanmean(dim=1).float()

    def curve(self) -> Tensor:
        r"""Returns the mean over the measured seeds at every epoch, ``[A, E]``, NaN where none."""
        return self.values.double().nanmean(dim=1).float()

    def num_seeds(self) -> Tensor:
        r"""Returns how many seeds have a measurement at the last epoch, int64 ``[A]``."""
        return self.mask[:, :, -1].sum(dim=1)

    def _column(self, epoch: int) -> int:
        try:
            return self.epochs.index(epoch)
        except ValueError:
            raise ValueError(f"epoch {epoch} was not recorded; recorded epochs: {list(self.epochs)}") from None

    def to_dict(self) -> dict[str, Any]:
        r"""Returns plain types and tensors only, for ``torch.load(weights_only=True)``; the mask is "not NaN"."""
        return {
            "values": self.values,
            "seeds": list(self.seeds),
            "epochs": list(self.epochs),
            "unit": self.unit,
            "split": self.split,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Metric:
        r"""Inverse of :meth:`to_dict`."""
        values = state["values"]
        return cls(
            values, ~values.isnan(), tuple(state["seeds"]), tuple(state["epochs"]), state["unit"], state["split"]
        )

    def __repr__(self) -> str:
        a, s, e = self.values.shape
        return f"Metric({a} architectures x {s} seeds x {e} epochs, {int(self.mask[:, :, -1].any(1).sum())} labelled)"
