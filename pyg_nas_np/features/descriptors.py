r"""All features of a cell in one table: meta-features, random networks, a prior trend."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyg_nas_np.features.meta import MetaFeatures
from pyg_nas_np.features.random_networks import RandomNetworks
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.spaces.base import Archs
from pyg_nas_np.utils.defaults import fixed_defaults

NETWORKS, TREND = "networks", "trend"
"""Names of the two groups behind the meta-features."""

SIZES = ("log_params", "log_flops", "depth")
"""Meta-features along which accuracies are expected to rise where the space has no prior trend."""


class Descriptors:
    r"""Meta-features, coordinates of random networks, and a prior trend, concatenated.

    The groups of the meta-features keep their names and columns. ``networks`` are the coordinates of
    :class:`~pyg_nas_np.features.RandomNetworks`. ``trend`` is one column of prior knowledge about accuracy: computation
    and a path of identities only increase it, pooling and the lack of a live path decrease it. It is absent in spaces
    without :attr:`~pyg_nas_np.spaces.CellSpace.averaging_ops`, that is, outside convolutional networks.

    Args:
        features: Standardised meta-features of a space.
        networks: Random networks of the same space.

    Raises:
        ValueError: If the two are of different spaces, or the meta-features are not standardised.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> descriptors = Descriptors(MetaFeatures(space), RandomNetworks(space, num_functions=32, rank=8))
        >>> table = descriptors.table(torch.arange(4))
        >>> table[:, descriptors.groups["networks"]].shape, table[:, descriptors.groups["trend"]].shape
        (torch.Size([4, 8]), torch.Size([4, 1]))
    """

    def __init__(self, features: MetaFeatures, networks: RandomNetworks) -> None:
        if features.space is not networks.space:
            raise ValueError(f"features are of {features.space!r}, networks of {networks.space!r}; take one space")
        if not features.standardize:
            raise ValueError("descriptors need standardised features; take MetaFeatures(space, standardize=True)")
        self.space: CellSpace[Any] = features.space
        self.features = features
        self.networks = networks

    @property
    def groups(self) -> Mapping[str, list[int]]:
        r"""Columns of each group."""
        start = len(self.features.feature_names)
        stop = start + self.networks.num_coordinates
        groups = {**self.features.feature_groups, NETWORKS: list(range(start, stop))}
        return {**groups, TREND: [stop]} if self.space.averaging_ops else groups

    @property
    def num_columns(self) -> int:
        r"""Number of columns."""
        return 1 + max(columns[-1] for columns in self.groups.values())

    @fixed_defaults
    def table(self, archs: Archs = None) -> Tensor:
        r"""Descriptors of many architectures.

        Args:
            archs: Architectures, a tensor of official indices, or :obj:`None` for the whole space.

        Returns:
            ``[B, num_columns]`` float32.
        """
        return torch.cat(self.parts(archs), dim=1)

    @fixed_defaults
    def parts(self, archs: Archs = None) -> list[Tensor]:
        r"""Returns meta-features, networks and trend of :meth:`table` apart, for those who add columns."""
        meta = self.features.table(archs)
        parts = [meta, self.networks.table(archs)]
        return [*parts, self._trend(meta)] if TREND in self.groups else parts

    def prior_trend(self, table: Tensor) -> Tensor:
        r"""Returns what accuracies are expected to follow before any label, ``[B]``.

        It is the column ``trend``, or where there is none the mean of log parameters, log multiply-accumulates and
        depth.

        Args:
            table: Descriptors, ``[B, num_columns]``.
        """
        names = self.features.feature_names
        sizes = [names.index(name) for name in SIZES if name in names]
        columns = self.groups.get(TREND, sizes)
        return table[:, columns].mean(dim=1) if columns else torch.zeros_like(table[:, 0])

    def _trend(self, meta: Tensor) -> Tensor:
        names = self.features.feature_names
        terms = {"log_flops": 1.0, "bypass": 0.5, "dead": -0.5}
        terms |= {f"path_mean_{op}": -1.0 for op in self.space.averaging_ops}
        total = torch.zeros(meta.size(0))
        length = math.sqrt(sum(weight * weight for weight in terms.values()))
        for name, weight in terms.items():
            if name in names:
                total += weight * meta[:, names.index(name)]
        # The terms are standardised and nearly independent; clipped, so that the few cells without a path do not
        # dominate.
        return (total / length).clamp(-2.5, 2.5).unsqueeze(1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.features!r}, {self.networks!r})"
