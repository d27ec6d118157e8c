r"""Latencies on a new device from a few measurements, over what is known of other devices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.convnp.bank import expected, mixture
from pyg_nas_np.convnp.bank_predictor import bank_of, space_bank
from pyg_nas_np.convnp.device_process import DeviceProcess
from pyg_nas_np.convnp.devices import DeviceBasis, DeviceTable, warn_of_unit
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.inputs import Architectures, ArchitecturesLike, as_architectures
from pyg_nas_np.predictors.labels import Labels, LabelTransform, LogTransform
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.utils import InvalidLabelsError
from pyg_nas_np.utils.defaults import fixed_defaults


class LatencyPredictor(Predictor):
    r"""Predicts latencies on a device from about ten measurements on it.

    Logarithms of latencies are modelled, because devices differ by factors: multiplying all measurements by a number
    multiplies all predictions by it.

    With a table of other devices (:obj:`devices` of :meth:`fit`), the log latency of architecture :math:`a` is

    .. math::
        y(a) = c + \bar f(a) + \sum_{d=1}^D w_d\, f_d(a) / s_d + \varepsilon, \qquad
        w_d \sim N(0, \sigma^2 / D), \quad \varepsilon \sim N(0, \tau^2)

    with a flat prior of the level :math:`c`, the centred log latencies :math:`f_d` on the known devices, their mean
    :math:`\bar f` and standard deviations :math:`s_d`. Predictions average over a grid of :math:`(\sigma, \tau)` by
    marginal likelihood. The prior over this grid is learned from the known devices: each plays the new one in turn,
    with the rest as known devices. No setting is tuned by hand. A known device is continued to architectures that were
    not measured on it by ridge regression on the descriptors of the space
    (:class:`~pyg_nas_np.convnp.devices.DeviceBasis`); the error of this enters the standard deviation.

    Without such a table, the bank of the space predicts standardised log latencies, whose prior mean rises with sizes.

    Predictions are medians. Without a measurement, architectures rank by their mean on the known devices or by size.

    Args:
        space: The search space. (default: that of the data set)
        random_state: Seed of the sets of architectures on which known devices play the new one.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> work = space.batch_flops().double() / 1e6 + 1
        >>> devices = {"phone": work, "laptop": work.sqrt(), "board": 20 + work}
        >>> shown = torch.tensor([3, 700, 1500, 6111])
        >>> predictor = LatencyPredictor(space).fit(shown, 3 * work[shown] ** 0.8, devices)
        >>> mean, std = predictor.predict(torch.arange(100), return_std=True)
        >>> bool(((mean / (3 * work[:100] ** 0.8)).log().abs() < 0.3).all())
        True
        >>> predictor.probability_within(torch.tensor([6111]), limit=1e6).item()
        1.0
    """

    has_prior = True

    basis_: DeviceBasis | None = None
    """The known devices of the last fit; :obj:`None` without a table of them."""

    def __init__(self, space: SearchSpace[Any] | None = None, *, random_state: int = 0) -> None:
        super().__init__(space, maximize=False)
        self.random_state = random_state

    def fit(
        self,
        x: ArchitecturesLike,
        y: Labels | None = None,
        devices: DeviceTable | DeviceBasis | Mapping[str, Labels] | None = None,
    ) -> Self:
        r"""Learns from latencies on the new device.

        A fit that fails leaves the predictor as it was.

        Args:
            x: ``n`` measured architectures; none for the prior ranking.
            y: Their latencies, positive, ``[n]``, in any unit, which is that of the predictions. (default: labels that
                the data set or the graphs carry)
            devices: Latencies on other devices; a mapping of names to latencies is one of the whole space in official
                order. A basis that was fitted to a table is used as it is. (default: none)

        Raises:
            InvalidLabelsError: If a latency is missing, not positive or infinite, there is not one an architecture, or
                the table of devices is not usable (:meth:`DeviceTable.resolve
                <pyg_nas_np.convnp.devices.DeviceTable.resolve>`).
            InvalidArchitectureError: If something is not an architecture of the space, or the space is not known.

        Warns:
            UserWarning: If the latencies seem to be in another unit than those of all other devices.
        """
        before = self.__dict__.copy()
        try:
            archs = as_architectures(x, self.space)
            self.basis_ = None if devices is None else _basis(archs.space, devices, self.random_state)
            super().fit(x, y)
            if self.basis_ is not None and self.transform_.labelled:
                _warn_of_unit(self.basis_, archs, self.labels_)
        except BaseException:
            self.__dict__ = before
            raise
        return self

    def _new_transform(self, maximize: bool) -> LabelTransform:
        return LogTransform()

    def _inputs(self, archs: Architectures) -> Any:
        if self.basis_ is None:
            return shared_descriptors(self.space_).table(archs.given)
        return self.basis_(archs)

    def _prior(self, archs: Architectures) -> tuple[Tensor, Tensor]:
        inputs = self._inputs(archs)
        if self.basis_ is None:
            mean, std = expected(shared_descriptors(self.space_).prior_trend(inputs))
            return -mean, std
        mean = inputs[0].mean(dim=1) / self.basis_.spreads.mean()
        return -mean, torch.ones_like(mean)

    def _fit(self, inputs: Any, z: Tensor) -> None:
        if self.basis_ is not None:
            self._condition(inputs[0], self.labels_.log())
        elif len(z) > 1:
            self.x_, self.z_ = inputs, -z.float()
            self.bank_ = space_bank(self.space_).fit(self.x_, self.z_)
        else:
            raise InvalidLabelsError(
                "without latencies of other devices (devices=), at least 2 measurements are needed"
            )

    def _condition(self, known: Tensor, y: Tensor) -> None:
        assert self.basis_ is not None
        self.process_ = DeviceProcess(self.basis_.spreads, self.basis_.chances).fit(known, y)

    def _predict(self, inputs: Any, return_std: bool) -> tuple[Tensor, Tensor | None]:
        if self.basis_ is None:
            mean, std = mixture(self.bank_.predict(inputs))
            return -mean, std if return_std else None
        mean, variance = self.process_.predict(*inputs)
        transform = self._log_transform
        return (transform.centre - mean) / transform.unit, variance.sqrt() / transform.unit if return_std else None

    @property
    def _log_transform(self) -> LogTransform:
        assert isinstance(self.transform_, LogTransform)
        return self.transform_

    @fixed_defaults
    def predict_quantiles(self, x: ArchitecturesLike, quantiles: Sequence[float] = (0.05, 0.5, 0.95)) -> Tensor:
        r"""Predicts quantiles of new measurements.

        Args:
            x: ``n`` architectures.
            quantiles: ``Q`` numbers between 0 and 1.

        Returns:
            Latencies, ``[n, Q]`` float64, increasing along the quantiles.

        Raises:
            ValueError: If a quantile is not between 0 and 1.
        """
        q = torch.tensor(quantiles, dtype=torch.float64, device="cpu")
        if not bool(((q > 0) & (q < 1)).all()):
            raise ValueError(f"quantiles must lie between 0 and 1, got {list(quantiles)}")
        mean, std = self.predict_scores(x)
        return self.transform_.inverse(mean.unsqueeze(1) - std.unsqueeze(1) * torch.special.ndtri(q))[0]

    @fixed_defaults
    def probability_within(self, x: ArchitecturesLike, limit: float) -> Tensor:
        r"""Returns the probability that a measurement of the latency is at most a limit.

        Args:
            x: ``n`` architectures.
            limit: The limit, in the unit of the measurements.

        Returns:
            ``[n]`` float64.

        Raises:
            ValueError: If the limit is not positive and finite.
            InvalidLabelsError: If no latency was measured, so that their level is not known.
        """
        if not 0 < limit < math.inf:
            raise ValueError(f"the limit of the latency must be positive and finite, got {limit}")
        if not self.labelled:
            raise InvalidLabelsError("no latency was measured, so that their level is not known; measure one at least")
        mean, std = self.predict_scores(x)
        # Scores of latencies within the limit are at least that of the limit.
        probability: Tensor = torch.special.ndtr((mean - self._log_transform.scores_of(limit)) / std)
        return probability

    # -- files ------------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        if self.basis_ is not None:
            return {**self._prior_state(), "x": self.process_.known}
        return {"x": self.x_, "z": self.z_, "columns": self.bank_.columns, "thetas": self.bank_.state_dict()}

    def _set_state(self, state: dict[str, Any]) -> None:
        if "devices" in state:
            self._set_prior_state(state)
            self._condition(state["x"], self.labels_.log())
            return
        self.x_, self.z_ = state["x"], state["z"]
        self.bank_ = bank_of(state["columns"]).fit(self.x_, self.z_, state["thetas"])

    def _prior_state(self) -> dict[str, Any]:
        return {} if self.basis_ is None else {"devices": self.basis_.state_dict()}

    def _set_prior_state(self, state: dict[str, Any]) -> None:
        self.basis_ = DeviceBasis.from_state(state["devices"]) if "devices" in state else None


def _basis(space: SearchSpace[Any], devices: Any, seed: int) -> DeviceBasis:
    if isinstance(devices, DeviceBasis):
        return devices
    table = devices if isinstance(devices, DeviceTable) else DeviceTable(devices)
    return DeviceBasis().fit(table, space, seed)


def _warn_of_unit(basis: DeviceBasis, archs: Architectures, y: Tensor) -> None:
    """Compares measurements with what was measured on the known devices, on common architectures."""
    gaps = (y.log().unsqueeze(1) - basis.measured(archs)).nanmedian(dim=0).values
    warn_of_unit("the new device", gaps[~gaps.isnan()].tolist())
