r"""What a cheap label is: a level of epochs, image size or share of the data, with its price."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pyg_nas_np.predictors.labels import Labels, check_labels
from pyg_nas_np.utils import InvalidFidelityError, InvalidLabelsError


@dataclass(frozen=True)
class Fidelity:
    r"""What is cut in cheap trainings, at which levels, and what each of them costs.

    Args:
        name: ``"epochs"``, ``"image size"``, ``"share of data"``; in files the name of the column.
        levels: The levels in increasing order, the last of which is the one that counts.
        prices: Price of a training at each level in multiples of the last. They may be given in any unit, such as
            seconds, and are divided by the last. (default: proportional to the levels, as of epochs)
        continued: Whether a training goes on from the level below at the difference of the prices, as with epochs of
            one schedule. Otherwise every level is a new training at its full price.

    Raises:
        InvalidFidelityError: If the name is empty, there are no levels, one is not a positive number, they do not
            increase, or there is not one positive price for each that does not fall.

    Example:
        >>> Fidelity("image size", (16, 32, 64), prices=(1, 4, 16)).prices
        (0.0625, 0.25, 1.0)
        >>> Fidelity("epochs", (5, 20), continued=True).price(1, 0)
        0.75
    """

    name: str
    levels: tuple[float, ...]
    prices: tuple[float, ...] = ()
    continued: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidFidelityError(f"a fidelity needs a name such as 'epochs', got {self.name!r}")
        levels = _positive(f"levels of {self.name}", self.levels)
        prices = _positive(f"prices of {self.name}", self.prices or levels)
        if len(prices) != len(levels):
            raise InvalidFidelityError(
                f"{self.name} has {len(levels)} levels {_listed(levels)} and {len(prices)} prices {_listed(prices)}; "
                f"give one price a level"
            )
        for before, after in pairwise(levels):
            if after <= before:
                raise InvalidFidelityError(
                    f"levels of {self.name} must increase, but {after:g} follows {before:g}; give the cheapest first"
                )
        for before, after in pairwise(prices):
            if after < before:
                raise InvalidFidelityError(
                    f"prices of {self.name} must not fall, but {after:g} follows {before:g}; leave out a level that "
                    f"costs more than a better one"
                )
        object.__setattr__(self, "levels", levels)
        object.__setattr__(self, "prices", tuple(price / prices[-1] for price in prices))

    @property
    def top(self) -> int:
        r"""Position of the level that counts."""
        return len(self.levels) - 1

    def price(self, position: int, reached: int | None = None) -> float:
        r"""Returns what a training at a level costs, relative to one at the top.

        Args:
            position: Position of the level.
            reached: Position of the level that the training has reached. (default: none)
        """
        paid = self.prices[reached] if self.continued and reached is not None else 0.0
        return self.prices[position] - paid

    def positions(self, values: Labels, count: int | None = None) -> Tensor:
        r"""Returns the positions of levels, int64 ``[n]``.

        Args:
            values: Levels, ``[n]``.
            count: Number of labels that they belong to.

        Raises:
            InvalidLabelsError: If one is none of the levels, or there are not :obj:`count` of them.
        """
        try:
            given = check_labels(values, count)
        except InvalidLabelsError as error:
            raise InvalidLabelsError(f"{self.name} of the labels: {error}") from error
        known = torch.tensor(self.levels, dtype=torch.float64, device="cpu")
        position = torch.searchsorted(known, given).clamp_max(self.top)
        unknown = (known[position] != given).nonzero().flatten()
        if unknown.numel():
            raise InvalidLabelsError(
                f"{self.name} {float(given[unknown[0]]):g} of the label at position {int(unknown[0])} is none of the "
                f"levels {_listed(self.levels)}; name it among the levels, or report the last level that was reached"
            )
        return position

    def labels_of_curves(
        self, curves: Tensor | Sequence[Sequence[float]], count: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns the labels that learning curves give: their values at the levels that they have reached.

        Levels are numbers of epochs here. A curve that ends between two of them counts at the lower one.

        Args:
            curves: Values after each epoch, ``[n, E]``; NaN from where a training was stopped, and where nothing was
                measured.
            count: Number of architectures that they belong to.

        Returns:
            For each of ``m`` labels the row of its curve, int64 ``[m]``, its value, float64 ``[m]``, and the position
            of its level, int64 ``[m]``; lower levels first.

        Raises:
            InvalidFidelityError: If a level is no whole number.
            InvalidLabelsError: If there is not one curve an architecture, a value is infinite, or a curve has no value
                at any level.

        Example:
            >>> nan = float("nan")
            >>> row, y, position = Fidelity("epochs", (1, 3)).labels_of_curves([[0.2, 0.4, 0.5], [0.1, 0.3, nan]])
            >>> row.tolist(), y.tolist(), position.tolist()
            ([0, 1, 0], [0.2, 0.1, 0.5], [0, 0, 1])
        """
        fraction = next((level for level in self.levels if level != int(level)), None)
        if fraction is not None:
            raise InvalidFidelityError(f"curves need levels in whole epochs, but {fraction:g} of {self.name} is none")
        try:
            values = torch.as_tensor(curves, dtype=torch.float64, device="cpu")
        except (TypeError, ValueError) as error:
            raise InvalidLabelsError(
                f"curves must be rows of numbers of equal length, filled with NaN: {error}"
            ) from error
        if values.dim() != 2 or values.size(0) != (values.size(0) if count is None else count):
            raise InvalidLabelsError(
                f"curves have shape {list(values.shape)}; one row of values for each of {count} architectures is needed"
            )
        diverged = values.isinf().any(dim=1).nonzero().flatten()
        if diverged.numel():
            raise InvalidLabelsError(
                f"the curve at position {int(diverged[0])} is infinite; leave out what diverged, or put NaN from there"
            )
        columns = [int(level) - 1 for level in self.levels if level <= values.size(1)]
        at = values[:, columns]
        empty = at.isnan().all(dim=1).nonzero().flatten()
        if empty.numel():
            raise InvalidLabelsError(
                f"the curve at position {int(empty[0])} has no value at {self.name} {_listed(self.levels)}; name "
                f"a level that it has reached, or leave it out"
            )
        position, row = at.isfinite().t().nonzero(as_tuple=True)
        return row, at[row, position], position

    def to_dict(self) -> dict[str, Any]:
        r"""Returns the arguments as plain types."""
        return {
            "name": self.name,
            "levels": list(self.levels),
            "prices": list(self.prices),
            "continued": self.continued,
        }


def _positive(what: str, values: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise InvalidFidelityError(f"{what} must be a sequence of numbers, got {values!r}") from error
    if not numbers:
        raise InvalidFidelityError(f"there are no {what}; name at least one")
    for number in numbers:
        if not (math.isfinite(number) and number > 0.0):
            raise InvalidFidelityError(f"{what} must be positive, got {number:g} in {_listed(numbers)}")
    return numbers


def _listed(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
