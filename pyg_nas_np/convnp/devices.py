r"""What is known of other devices: their latencies of some architectures, continued to all of a space."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, get_type_hints

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.convnp.device_process import grid_chances
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.predictors.inputs import Architectures, ArchitecturesLike, as_architectures
from pyg_nas_np.predictors.labels import Labels
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.base import EnumerableSpace
from pyg_nas_np.utils import InvalidLabelsError

UNIT = 300.0
"""From this factor on between the medians of latencies on the same architectures, one may be in another unit."""

LEAST = 5
"""Latencies that a device needs to be of use."""

RIDGE = 1e-12
"""Keeps the length of a direction positive."""

ALPHAS = np.logspace(-2, 4, 13)
"""Penalties among which generalised cross-validation chooses, for each device."""


class DeviceTable:
    r"""Latencies of ``R`` architectures on ``D`` known devices.

    Args:
        archs: The architectures. (default: the whole space in official order)
        latencies: Latencies by name of the device, ``[R]`` each, positive; NaN where one was not measured. The unit
            does not matter, it may even differ between devices.

    Raises:
        InvalidLabelsError: From :meth:`resolve`, if a latency is not positive or infinite, there is not one an
            architecture, a device has less than :data:`LEAST`, or no architecture was measured on two devices.

    Example:
        >>> DeviceTable({"phone": [12.0, 9.5], "laptop": [4.1, 3.0]}).names
        ['phone', 'laptop']
    """

    def __init__(self, latencies: Mapping[str, Labels], archs: ArchitecturesLike | None = None) -> None:
        self.archs = archs
        self.latencies = latencies

    @property
    def names(self) -> list[str]:
        r"""Names of the devices."""
        return [str(name) for name in self.latencies]

    def resolve(self, space: SearchSpace[Any]) -> tuple[Architectures, Tensor]:
        r"""Returns the architectures and the logarithms of their latencies, ``[R, D]`` float64 with NaN.

        Args:
            space: The search space.
        """
        if self.archs is None and not isinstance(space, EnumerableSpace):
            raise InvalidLabelsError(f"{space.name} has no official order; give DeviceTable the architectures (archs=)")
        archs = Architectures(space) if self.archs is None else as_architectures(self.archs, space)
        if not self.latencies:
            raise InvalidLabelsError("the table of devices has no device; leave devices= out")
        columns = [_column(name, values, len(archs)) for name, values in self.latencies.items()]
        table = torch.stack(columns, dim=1)
        if len(columns) > 1 and not bool(((~table.isnan()).sum(dim=1) > 1).any()):
            raise InvalidLabelsError(
                f"the devices {', '.join(self.names)} have no common row: no architecture was measured on two of them"
            )
        _check_units(table, self.names)
        return archs, table


def _column(name: str, given: Labels, count: int) -> Tensor:
    try:
        values = torch.as_tensor(np.asarray(given, dtype=np.float64).copy()).flatten()
    except (TypeError, ValueError) as error:
        raise InvalidLabelsError(f"latencies of {name!r} must be numbers: {error}") from error
    if values.numel() != count:
        raise InvalidLabelsError(
            f"device {name!r} has {values.numel()} latencies for {count} architectures; give one "
            "each, NaN where there is none"
        )
    wrong = (values <= 0) | values.isinf()
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise InvalidLabelsError(
            f"device {name!r}, row {row}: the latency {float(values[row]):g} is not positive and finite; leave it out "
            f"(NaN)"
        )
    if (known := int((~values.isnan()).sum())) < LEAST:
        raise InvalidLabelsError(f"device {name!r} has {known} latencies, at least {LEAST} are needed; leave it out")
    return values.log()


def _check_units(table: Tensor, names: Sequence[str]) -> None:
    """Warns if a device is about a factor of 1000 away from all others on common rows."""
    for i, name in enumerate(names):
        others = [j for j in range(len(names)) if j != i]
        gaps = [(table[:, i] - table[:, j]).nanmedian() for j in others]
        warn_of_unit(f"device {name!r}", [float(gap) for gap in gaps if not bool(gap.isnan())])


def warn_of_unit(what: str, gaps: Sequence[float]) -> None:
    r"""Warns that latencies seem to be in another unit than all others.

    Args:
        what: Whose latencies.
        gaps: Medians of the differences of logarithms to each other device, on common rows.
    """
    if not gaps or min(map(abs, gaps)) < np.log(UNIT):
        return
    factor = float(np.exp(np.median(gaps)))
    said = f"{factor:,.0f} times" if factor > 1 else f"a {1 / factor:,.0f}th of"
    warnings.warn(
        f"{what}: latencies are about {said} those of all other devices on common architectures; a factor of 1000 is "
        f"one between s, ms and µs. Predictions stay in the unit that was given",
        stacklevel=2,
    )


class DeviceBasis:
    r"""Log latencies on the known devices as functions of any architecture of a space, centred.

    Where a device was measured, its function has the measured value. Elsewhere it is what ridge regression on the
    descriptors of the space predicts.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> flops = space.batch_flops().double() + 1e6
        >>> basis = DeviceBasis().fit(DeviceTable({"slow": flops, "slower": 2 * flops, "level": flops.sqrt()}), space)
        >>> basis(Architectures(space, torch.arange(4)))[0].shape
        torch.Size([4, 3])
    """

    names: list[str]
    """Names of the devices."""

    rows: list[str]
    """The architectures of the table, by index or as text."""

    logs: Tensor
    """Logarithms of their latencies, NaN where not measured, ``[R, D]``."""

    levels: Tensor
    """Means of the functions over the table, which are subtracted, ``[D]``."""

    spreads: Tensor
    """Standard deviations of the functions over the table, ``[D]``."""

    coefficients: Tensor
    """Of the descriptors, ``[F, D]``."""

    intercepts: Tensor
    """Their constants, ``[D]``."""

    errors: Tensor
    """Mean squared errors of the regression on latencies that it has seen, ``[D]``."""

    chances: Tensor
    """What the known devices say of a new one, see :func:`~pyg_nas_np.convnp.device_process.grid_chances`, ``[G]``."""

    def fit(self, devices: DeviceTable, space: SearchSpace[Any], seed: int = 0) -> Self:
        r"""Learns the functions from a table of latencies.

        Args:
            devices: The table.
            space: The search space.
            seed: Seed of the sets of architectures on which known devices play the new one.
        """
        archs, self.logs = devices.resolve(space)
        self.names, self.rows = devices.names, _keys(archs)
        x, known = shared_descriptors(space).table(archs.given).double(), ~self.logs.isnan()
        self.coefficients = x.new_zeros(x.size(1), len(self.names))
        self.intercepts, self.errors = x.new_zeros(len(self.names)), x.new_zeros(len(self.names))
        for mask in known.unique(dim=1).T:
            chosen = (known == mask.unsqueeze(1)).all(dim=0).nonzero().flatten()
            model = RidgeCV(ALPHAS, alpha_per_target=True).fit(x[mask].numpy(), self.logs[mask][:, chosen].numpy())
            self.coefficients[:, chosen] = torch.from_numpy(model.coef_.reshape(len(chosen), -1).T.copy())
            self.intercepts[chosen] = torch.from_numpy(np.atleast_1d(model.intercept_))
        smooth = x @ self.coefficients + self.intercepts
        self.errors = (self.logs - smooth).square().nanmean(dim=0)
        values = torch.where(known, self.logs, smooth)
        self.levels, self.spreads = values.mean(dim=0), values.std(dim=0).clamp_min(1e-9)
        self.chances = grid_chances(values - self.levels, known, seed)
        return self

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.rows)}

    def places(self, archs: Architectures) -> Tensor:
        r"""Returns the row of the table of each architecture, -1 where there is none, int64 ``[n]``."""
        return torch.tensor([self._places.get(key, -1) for key in _keys(archs)], dtype=torch.long, device="cpu")

    def measured(self, archs: Architectures) -> Tensor:
        r"""Returns measured log latencies of ``n`` architectures, NaN where there is none, ``[n, D]``."""
        rows = self.places(archs)
        return self.logs[rows].where((rows >= 0).unsqueeze(1), torch.nan)

    def __call__(self, archs: Architectures) -> tuple[Tensor, Tensor]:
        r"""Returns the functions at ``n`` architectures and the variances of their errors, ``[n, D]`` float64 each."""
        smooth = shared_descriptors(archs.space).table(archs.given).double() @ self.coefficients + self.intercepts
        logs = self.measured(archs)
        known = ~logs.isnan()
        return torch.where(known, logs, smooth) - self.levels, torch.where(known, 0.0, self.errors)

    def suggest(self, archs: Architectures, count: int = 10) -> Tensor:
        r"""Returns which architectures to measure on a new device.

        Each has the largest variance given those before, a pivoted Cholesky factor of the covariance that the known
        devices span. The first one differs most from the mean architecture.

        Args:
            archs: ``A`` architectures that can be measured.
            count: How many to choose.

        Returns:
            Positions of at most :obj:`count` and ``A`` architectures, int64.
        """
        features = self(archs)[0] / self.spreads
        # The level is unknown too.
        features = torch.cat([features - features.mean(dim=0), torch.ones_like(features[:, :1])], dim=1)
        chosen: list[int] = []
        for _ in range(min(count, len(archs))):
            merit = features.square().sum(dim=1)
            merit[chosen] = -1.0
            chosen.append(int(merit.argmax()))
            direction = features[chosen[-1]] / (features[chosen[-1]].norm() + RIDGE)
            features = features - torch.outer(features @ direction, direction)
        return torch.tensor(chosen, dtype=torch.long, device="cpu")

    def state_dict(self) -> dict[str, Any]:
        r"""Returns what was learned, as tensors and plain types."""
        return {name: getattr(self, name) for name in get_type_hints(DeviceBasis)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        r"""Inverse of :meth:`state_dict`."""
        basis = cls()
        for name in get_type_hints(DeviceBasis):
            setattr(basis, name, state[name])
        return basis


def _keys(archs: Architectures) -> list[str]:
    if isinstance(archs.space, EnumerableSpace):
        return list(map(str, archs.index.tolist()))
    return [archs.space.to_str(arch) for arch in archs]
