r"""The additive Gaussian process on meta-features as a predictor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyg_nas_np.features import shared_descriptors, shared_features
from pyg_nas_np.features.descriptors import NETWORKS
from pyg_nas_np.predictors.gaussian_process import GaussianProcess
from pyg_nas_np.predictors.inputs import Architectures, ArchitecturesLike
from pyg_nas_np.predictors.joint import JointSamples
from pyg_nas_np.predictors.kernels import KernelName, additive_kernels
from pyg_nas_np.predictors.labels import LabelScale
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.utils import check_count, fixed_defaults, seeded

PATH_GROUPS = ("live", "paths", "strings")
"""If all cells share one topology, these groups describe the function of a cell completely."""


def feature_columns(space: SearchSpace[Any], groups: Sequence[str] | None = None) -> dict[str, list[int]]:
    r"""Returns the columns of the feature groups of an additive kernel.

    Args:
        space: The search space.
        groups: Names of the groups. (default: all of the space; if its cells share one topology, :data:`PATH_GROUPS`)

    Raises:
        ValueError: If the space has no group of this name.
    """
    present = shared_features(space).feature_groups
    unknown = [group for group in groups or () if group not in present]
    if unknown:
        raise ValueError(f"groups names {unknown[0]!r}; groups of {space.name}: {', '.join(present)}")
    chosen = groups or (PATH_GROUPS if "paths" in present else present)
    return {group: present[group] for group in chosen if group in present}


class GPPredictor(JointSamples):
    r"""Exact Gaussian process on features, additive over their groups, and on random networks.

    Groups are those of the meta-features of cells, and one for each parameter in spaces of configurations.

    .. math::
        k(x, x') = \sum_g s_g\, \kappa\!\left(\frac{\lVert x_g - x'_g \rVert}{\ell_g \sqrt{D_g}}\right)
        + s\, \langle \phi(x), \phi(x') \rangle + \sigma^2\, [x = x']

    with one signal variance :math:`s_g` and one length-scale :math:`\ell_g` for each group of :math:`D_g` features, and
    the coordinates :math:`\phi` of :class:`~pyg_nas_np.features.RandomNetworks`. Hyperparameters are the maximum a
    posteriori under :math:`\log \ell_g \sim N(0.3, 0.7^2)`, :math:`\log s_g \sim N(-1, 1.5^2)` and
    :math:`\log \sigma^2 \sim N(\log 0.08, 1)`, found by L-BFGS with exact gradients on at most 512 of the labelled
    architectures (drawn with a fixed seed). The posterior uses all.

    Args:
        space: The search space. (default: that of the data set)
        kernel: ``"matern32"``, ``"matern52"`` or ``"rbf"``.
        groups: Feature groups, each with its own term. (default: all of the space; if its cells share one topology,
            those of live paths: ``live``, ``paths`` and ``strings``)
        networks: Whether the kernel has the term of the random networks, if architectures are graphs.
        maximize: Whether larger labels are better. (default: as the data set says, otherwise true)
        labels: How labels become scores, see :data:`~pyg_nas_np.predictors.labels.LabelScale`.
        max_iter: Iterations of L-BFGS.

    Example:
        >>> import torch
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> graphs = [space.encode(space[i]) for i in range(40)]
        >>> gp = GPPredictor(space).fit(graphs, space.batch_flops(torch.arange(40)))
        >>> mean, std = gp.predict(graphs[:5], return_std=True)
        >>> mean.shape, bool((std > 0).all())
        (torch.Size([5]), True)
    """

    def __init__(
        self,
        space: SearchSpace[Any] | None = None,
        *,
        kernel: KernelName = "matern32",
        groups: Sequence[str] | None = None,
        networks: bool = True,
        maximize: bool | None = None,
        labels: LabelScale = "auto",
        max_iter: int = 60,
    ) -> None:
        super().__init__(space, maximize=maximize, labels=labels)
        self.kernel = kernel
        self.groups = groups
        self.networks = networks
        self.max_iter = max_iter

    @property
    def hyperparameters(self) -> dict[str, Any]:
        r"""Fitted ``length_scale`` and ``variance`` of each group, and ``noise`` (a variance), on the score scale."""
        return self.gp_.hyperparameters

    @fixed_defaults
    def sample_scores(self, x: ArchitecturesLike, num: int = 1, generator: torch.Generator | None = None) -> Tensor:
        r"""Draws joint samples of the Gaussian process, see :meth:`JointSamples.sample_scores`."""
        archs = self._known(x)
        if not self.transform_.informative:
            return torch.zeros(num, len(archs), dtype=torch.float64)
        return self.gp_.sample(self._inputs(archs), num, seeded(0) if generator is None else generator)

    def _inputs(self, archs: Architectures) -> Tensor:
        features = shared_descriptors(self.space_) if self.networks else shared_features(self.space_)
        return features.table(archs.given)

    def _fit(self, inputs: Tensor, z: Tensor) -> None:
        check_count("max_iter", self.max_iter, 0)
        columns = feature_columns(self.space_, self.groups)
        if self.networks and NETWORKS in (present := shared_descriptors(self.space_).groups):
            columns[NETWORKS] = present[NETWORKS]
        self.gp_ = self._unfitted(columns).fit(inputs, z)
        self.columns_ = columns

    def _unfitted(self, columns: dict[str, list[int]]) -> GaussianProcess:
        linear = (NETWORKS,) if NETWORKS in columns else ()
        return GaussianProcess(additive_kernels(columns, self.kernel, linear=linear), max_iter=self.max_iter)

    def _predict(self, inputs: Tensor, return_std: bool) -> tuple[Tensor, Tensor | None]:
        return self.gp_.predict(inputs, return_std)

    def _state(self) -> dict[str, Any]:
        return {"columns": self.columns_, "theta": self.gp_.theta, "x": self.gp_.x, "z": self.gp_.z}

    def _set_state(self, state: dict[str, Any]) -> None:
        self.columns_ = state["columns"]
        self.gp_ = self._unfitted(self.columns_).condition(state["x"], state["z"], state["theta"])
