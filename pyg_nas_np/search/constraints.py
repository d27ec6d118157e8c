r"""Constraints of a search that are learned from few measurements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from sklearn.base import clone
from torch import Tensor

from pyg_nas_np.convnp import DeviceBasis, DeviceTable, LatencyPredictor
from pyg_nas_np.predictors import Architectures
from pyg_nas_np.predictors.inputs import ArchitecturesLike, as_architectures
from pyg_nas_np.predictors.labels import Labels, check_labels
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.utils import InvalidLabelsError


class LatencyLimit:
    r"""The constraint "latency on a device is at most a limit", as a probability.

    A latency that was measured decides by itself: 1 or 0, by the mean of repeats. That of any other architecture is
    predicted. Before the first measurement every architecture is taken to be within the limit. Measurements may be told
    at any time, of architectures that the search trains or of any others.

    Args:
        space: The search space.
        limit: The largest latency, in the unit of the measurements.
        devices: What is known of other devices, see :meth:`LatencyPredictor.fit
            <pyg_nas_np.convnp.LatencyPredictor.fit>`. (default: nothing, so that two measurements are needed)
        predictor: A predictor of latencies; a clone of it is fitted. (default: one with its defaults)

    Raises:
        ValueError: If the limit is not positive and finite.

    Example:
        >>> from pyg_nas_np.predictors import RidgePredictor
        >>> from pyg_nas_np.search import PredictorSearch
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> work = space.batch_flops().double() / 1e6 + 1
        >>> limit = LatencyLimit(space, 60.0, {"phone": 0.1 * work, "laptop": work.sqrt(), "board": 20 + work})
        >>> shown = torch.tensor([3, 700, 1500, 6111])
        >>> limit.tell(shown, 0.5 * work[shown])
        >>> search = PredictorSearch(space, RidgePredictor(), initial=4, constraints=[limit])
        >>> search.tell(torch.arange(8), space.batch_flops(torch.arange(8)))
        >>> bool(0.5 * work[space.index(search.ask()[0])] <= 70)
        True
    """

    def __init__(
        self,
        space: SearchSpace[Any],
        limit: float,
        devices: DeviceTable | DeviceBasis | Mapping[str, Labels] | None = None,
        *,
        predictor: LatencyPredictor | None = None,
    ) -> None:
        if not 0 < limit < float("inf"):
            raise ValueError(f"the limit of the latency must be positive and finite, got {limit}")
        self.space, self.limit, self.devices = space, float(limit), devices
        self.predictor: LatencyPredictor = clone(LatencyPredictor() if predictor is None else predictor)
        self.predictor.set_params(space=space)
        self._archs: list[Any] = []
        self._y: list[float] = []

    def tell(self, archs: ArchitecturesLike, y: Labels) -> None:
        r"""Adds measured latencies.

        A call that fails adds nothing.

        Args:
            archs: ``n`` architectures.
            y: Their latencies, ``[n]``.

        Raises:
            InvalidLabelsError: If a latency is missing, not positive or infinite.
            InvalidArchitectureError: If something is not an architecture of the space.
        """
        added = as_architectures(archs, self.space)
        values = check_labels(y, len(added))
        if bool((values <= 0).any()):
            raise InvalidLabelsError(f"latencies must be positive, got {float(values.min()):g}; measure it again")
        every, latencies = [*self._archs, *added], [*self._y, *values.tolist()]
        if self.devices is not None or len(every) > 1:
            self.predictor.fit(every, latencies, self.devices)
            # What is known of other devices is learned once.
            self.devices = self.predictor.basis_
        self._archs, self._y = every, latencies

    def __call__(self, archs: Architectures) -> Tensor:
        r"""Returns the probability to be within the limit, ``[n]`` float64."""
        if not self.predictor.labelled:
            return torch.ones(len(archs), dtype=torch.float64, device="cpu")
        probability = self.predictor.probability_within(archs, self.limit)
        known: dict[Any, list[float]] = {}
        for arch, latency in zip(self._archs, self._y, strict=True):
            known.setdefault(arch, []).append(latency)
        for i, arch in enumerate(archs):
            if arch in known:
                probability[i] = float(sum(known[arch]) / len(known[arch]) <= self.limit)
        return probability
