r"""Quantiles of numbers that come one part after the other and are not kept."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

BINS = 1 << 16
"""Bins between the smallest and the largest number, at most."""

_LEAST = -1000
"""Smallest width of a bin, as a power of two."""


class Histogram:
    r"""Counts of numbers in bins whose width, a power of two, adapts to their range.

    A bin is ``[i w, (i + 1) w)``. The width ``w`` is the smallest power of two with which the range takes at most
    :data:`BINS` bins, so that it is at most ``2 (maximum - minimum) / (BINS - 2)``: a quantile is off by less than
    3.1e-5 of the range. What is counted does not depend on the order or on the parts that numbers come in, and
    histograms of parts can be merged.

    Example:
        >>> histogram = Histogram()
        >>> histogram.update(np.arange(1000.0))
        >>> histogram.count, histogram.minimum, histogram.maximum, round(histogram.quantile(0.5))
        (1000, 0.0, 999.0, 499)
    """

    def __init__(self) -> None:
        self.minimum, self.maximum = math.inf, -math.inf
        self._exponent, self._first = _LEAST, 0
        self._counts: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    @property
    def count(self) -> int:
        r"""How many numbers were counted."""
        return int(self._counts.sum())

    def update(self, values: NDArray[np.float64]) -> None:
        r"""Counts numbers ``[n]``.

        Raises:
            ValueError: If one is not finite.
        """
        if not len(values):
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"a histogram counts finite numbers, got {low} to {high}")
        self._cover(min(low, self.minimum), max(high, self.maximum), self._exponent)
        places = np.floor(values * 2.0**-self._exponent).astype(np.int64) - self._first
        self._counts += np.bincount(places, minlength=len(self._counts))

    def merge(self, other: Histogram) -> None:
        r"""Counts what another histogram counted."""
        if not len(other._counts):
            return
        self._cover(min(self.minimum, other.minimum), max(self.maximum, other.maximum), other._exponent)
        places = ((np.arange(len(other._counts)) + other._first) >> (self._exponent - other._exponent)) - self._first
        np.add.at(self._counts, places, other._counts)

    def quantile(self, q: float) -> float:
        r"""Returns the smallest number that at least a part :obj:`q` of all does not exceed, as far as bins tell.

        Raises:
            ValueError: If nothing was counted, or :obj:`q` is not from 0 to 1.
        """
        if not 0.0 <= q <= 1.0 or not len(self._counts):
            raise ValueError(f"a quantile needs a number from 0 to 1 and something that was counted, got {q}")
        total = self._counts.cumsum()
        wanted = q * total[-1]
        place = int(min(np.searchsorted(total, wanted), len(total) - 1))
        inside = (wanted - (total[place] - self._counts[place])) / max(self._counts[place], 1)
        value = (self._first + place + min(max(inside, 0.0), 1.0)) * 2.0**self._exponent
        return min(max(float(value), self.minimum), self.maximum)

    def _cover(self, low: float, high: float, exponent: int) -> None:
        """Widens bins as needed for a range, and shifts what was counted."""
        exponent = max(self._exponent, exponent)
        # Fewer bits than a float has, so that the number of a bin is exact.
        if largest := max(abs(low), abs(high)):
            exponent = max(exponent, math.frexp(largest)[1] - 52)
        while math.floor(high * 2.0**-exponent) - math.floor(low * 2.0**-exponent) >= BINS:
            exponent += 1
        first, last = math.floor(low * 2.0**-exponent), math.floor(high * 2.0**-exponent)
        counts = np.zeros(last - first + 1, dtype=np.int64)
        places = ((np.arange(len(self._counts)) + self._first) >> (exponent - self._exponent)) - first
        np.add.at(counts, places, self._counts)
        self._counts, self._first, self._exponent = counts, first, exponent
        self.minimum, self.maximum = low, high
