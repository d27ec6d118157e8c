r"""The base predictors for cells of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from sklearn.ensemble import ExtraTreesRegressor
from torch import Tensor

from pyg_nas_np.convnp.bank import Bank
from pyg_nas_np.convnp.synthetic import Moments
from pyg_nas_np.features import Descriptors
from pyg_nas_np.features.descriptors import NETWORKS, TREND
from pyg_nas_np.features.space import SCORES, SCORES_SHARE
from pyg_nas_np.predictors.gp import PATH_GROUPS
from pyg_nas_np.predictors.kernels import Kernel, additive_kernels

SLOPE = 0.5
"""Prior slope of the scores along the prior trend."""

LEVEL = 0.9
"""Prior slope of the scores along the mean of the auxiliary labels."""

SHRINKAGE = 10.0
"""Number of labels at which predicted differences from the auxiliary labels are halved; chosen on other draws than
those that the benchmark reports."""

SCORE_SLOPE = 0.6
"""Prior slope of the scores along zero-cost scores and the prior trend."""

AUXILIARY = "tables"
"""Name of the group of auxiliary labels."""

ENCODED = "encoded"
"""Name of the group of scores by encoders that were trained on other spaces."""

SPECIAL = (NETWORKS, TREND, AUXILIARY, SCORES, ENCODED)
"""Names of the groups that are no meta-features."""

LEADING_COORDINATES = 24
"""Number of leading coordinates of the random networks that the trees split on and the process sees. The shipped
weights were trained with this number. Set by hand; no search over it is on record."""


class CellBank(Bank):
    r"""The base predictors for cells.

    - **additive**: a Gaussian process, additive over groups of meta-features;
    - **networks**: the same with the linear kernel of the random networks added;
    - **trend**: the same once more, with a prior mean that rises along the prior trend (where the space has one);
    - **trees**: extremely randomised trees on bootstraps, whose out-of-bag predictions need no further fit.

    With zero-cost scores, the members **networks** and **trend** take them as inputs and have a prior mean that rises
    along their mean and, by a third, along the prior trend. The two others never see them, so that leave-one-out errors
    tell what the scores are worth.

    With auxiliary labels, every member takes them as inputs and predicts the difference of the scores from a prior mean
    proportional to their average. From few random labels this difference is overestimated, so it is shrunk.

    Scores by encoders that were trained on other spaces are inputs of all members but **additive**; Gaussian
    processes have a linear kernel of them, whose slope the labels find.

    Args:
        groups: Columns of each group; ``networks``, ``trend``, ``tables`` (auxiliary labels), ``scores`` and
            ``encoded`` have the roles above.
        max_iter: Iterations of each fit.
        num_trees: Number of trees.
        shrinkage: Predicted differences from the auxiliary labels are multiplied by n / (n + shrinkage).

    Raises:
        ValueError: If :obj:`shrinkage` is negative.
    """

    sampled = "networks"

    def __init__(
        self, groups: Mapping[str, list[int]], *, max_iter: int = 60, num_trees: int = 100, shrinkage: float = SHRINKAGE
    ) -> None:
        super().__init__(max_iter=max_iter, num_trees=num_trees)
        if not shrinkage >= 0.0:
            raise ValueError(f"shrinkage must be at least 0, got {shrinkage}")
        self.groups = {name: list(columns) for name, columns in groups.items()}
        self.shrinkage = shrinkage

    @property
    def recipes(self) -> dict[str, dict[str, Kernel]]:
        r"""Kernels of each Gaussian process, by name."""
        additive = [name for name in self.groups if name not in SPECIAL]
        tables = [AUXILIARY] if AUXILIARY in self.groups else []
        scored = [*tables, *(name for name in (ENCODED, SCORES) if name in self.groups)]
        linear = {"additive": tables, "networks": [NETWORKS, *scored], "trend": [NETWORKS, TREND, *scored]}
        return {
            member: additive_kernels({name: self.groups[name] for name in additive + names}, linear=names)
            for member, names in linear.items()
            if all(name in self.groups for name in names)
        }

    @property
    def split_columns(self) -> list[int]:
        r"""The meta-features and the leading coordinates of the networks."""
        columns = [column for name in self.groups if name not in SPECIAL for column in self.groups[name]]
        given = [column for name in (AUXILIARY, ENCODED) for column in self.groups.get(name, [])]
        return [*columns, *self.groups.get(NETWORKS, [])[:LEADING_COORDINATES], *given]

    @property
    def columns(self) -> dict[str, Any]:
        r"""The groups of columns."""
        return {"groups": self.groups}

    def _new_trees(self) -> ExtraTreesRegressor:
        return ExtraTreesRegressor(self.num_trees, max_features=1 / 3, bootstrap=True, random_state=0)

    def prior(self, x: Tensor) -> Tensor:
        r"""Returns the prior mean at ``x`` ``[m, F]`` from the auxiliary labels, ``[m]``; zero without any."""
        if AUXILIARY not in self.groups:
            return super().prior(x)
        return LEVEL * x[:, self.groups[AUXILIARY]].double().mean(dim=1)

    def _prior_of(self, member: str, x: Tensor) -> Tensor:
        if AUXILIARY in self.groups or member not in (NETWORKS, TREND):
            return self.prior(x)
        trend, scores = (
            x[:, self.groups[name]].double().mean(dim=1) if name in self.groups else None for name in (TREND, SCORES)
        )
        if scores is not None:
            return SCORE_SLOPE * (scores if trend is None else torch.lerp(trend, scores, SCORES_SHARE))
        return self.prior(x) if trend is None or member != TREND else SLOPE * trend

    def _trust_in(self, labels: int) -> float:
        return labels / (labels + self.shrinkage) if AUXILIARY in self.groups else 1.0


def bank_groups(descriptors: Descriptors) -> dict[str, list[int]]:
    r"""Returns the columns of descriptors that the bank of a space uses."""
    present = descriptors.groups
    chosen = PATH_GROUPS if "paths" in present else [name for name in present if name not in SPECIAL]
    return {name: present[name] for name in (*chosen, NETWORKS, TREND) if name in present}


def bank_moments(groups: Mapping[str, list[int]], *, max_iter: int = 30, num_trees: int = 60) -> Moments:
    r"""Returns the base predictions of a task by a bank, for :class:`~pyg_nas_np.convnp.SyntheticTasks`."""
    # Not a closure, because workers of a data loader may unpickle it.
    return partial(_moments, groups, max_iter, num_trees)


def _moments(
    groups: Mapping[str, list[int]],
    max_iter: int,
    num_trees: int,
    x_context: Tensor,
    z_context: Tensor,
    x_target: Tensor,
    variances: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    bank = CellBank(groups, max_iter=max_iter, num_trees=num_trees).fit(x_context, z_context, variances=variances)
    return bank.context, bank.predict(x_target)
