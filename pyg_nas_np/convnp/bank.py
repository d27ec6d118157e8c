r"""The base predictors of the process: a few Gaussian processes and a forest, fitted to one context."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesRegressor
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.convnp.general_bank import GeneralBank, mixture, standard_deviations
from pyg_nas_np.convnp.synthetic import Moments
from pyg_nas_np.features import Descriptors, shared_descriptors
from pyg_nas_np.features.descriptors import NETWORKS, TREND
from pyg_nas_np.features.space import Families
from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.gaussian_process import GaussianProcess
from pyg_nas_np.predictors.gp import PATH_GROUPS
from pyg_nas_np.predictors.inputs import Architectures
from pyg_nas_np.predictors.kernels import additive_kernels
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.utils import map_chunks

SLOPE = 0.5
"""Prior slope of the scores along the prior trend."""

LEVEL = 0.9
"""Prior slope of the scores along the mean of the auxiliary labels."""

SHRINKAGE = 10.0
"""Number of labels at which predicted differences from the auxiliary labels are halved; chosen on other draws than
those that the benchmark reports."""

AUXILIARY = "tables"
"""Name of the group of auxiliary labels."""

LEADING_COORDINATES = 24
"""Number of leading coordinates of the random networks that the trees split on and the process sees. The shipped
weights were trained with this number. Set by hand; no search over it is on record."""


class Bank:
    r"""Diverse base predictors fitted to one context, with their leave-one-out predictions.

    - **additive**: a Gaussian process, additive over groups of meta-features;
    - **networks**: the same with the linear kernel of the random networks added;
    - **trend**: the same once more, with a prior mean that rises along the prior trend (where the space has one);
    - **trees**: extremely randomised trees on bootstraps, whose out-of-bag predictions need no further fit.

    With auxiliary labels, every member takes them as inputs and predicts the difference of the scores from a prior mean
    proportional to their average. From few random labels this difference is overestimated, so it is shrunk.

    Hyperparameters of the Gaussian processes are fitted to the context, see
    :class:`~pyg_nas_np.predictors.gaussian_process.GaussianProcess`.

    Args:
        groups: Columns of each group; ``networks``, ``trend`` and ``tables`` (auxiliary labels) have the roles above.
        max_iter: Iterations of each fit.
        num_trees: Number of trees.
        shrinkage: Predicted differences from the auxiliary labels are multiplied by n / (n + shrinkage).

    Raises:
        ValueError: If :obj:`shrinkage` is negative.

    :attr:`split_columns` are the columns that the trees split on: the meta-features and the leading coordinates of the
    networks.

    Shapes:
        - **moments:** ``[n, K, 2]``, mean and log standard deviation by each of the ``K`` members.
    """

    def __init__(
        self, groups: Mapping[str, list[int]], *, max_iter: int = 60, num_trees: int = 100, shrinkage: float = SHRINKAGE
    ) -> None:
        if not shrinkage >= 0.0:
            raise ValueError(f"shrinkage must be at least 0, got {shrinkage}")
        self.groups = {name: list(columns) for name, columns in groups.items()}
        self.max_iter, self.num_trees, self.shrinkage = max_iter, num_trees, shrinkage
        special = (NETWORKS, TREND, AUXILIARY)
        additive = [name for name in groups if name not in special]
        tables = [AUXILIARY] if AUXILIARY in groups else []
        recipes = {
            "additive": tables,
            "networks": [NETWORKS, *tables],
            "trend": [NETWORKS, TREND, *tables],
        }
        self._additive = additive
        self._recipes = {name: linear for name, linear in recipes.items() if all(group in groups for group in linear)}
        self.split_columns = [column for name in additive for column in groups[name]]
        self.split_columns += [*groups.get(NETWORKS, [])[:LEADING_COORDINATES], *groups.get(AUXILIARY, [])]

    @property
    def members(self) -> list[str]:
        r"""Names of the ``K`` members."""
        return [*self._recipes, "trees"]

    def fit(self, x: Tensor, z: Tensor, thetas: Mapping[str, Tensor] | None = None) -> Self:
        r"""Fits every member.

        Args:
            x: Descriptors of the context, ``[n, F]``.
            z: Its scores, ``[n]``.
            thetas: Hyperparameters of the Gaussian processes, if they are already known.
        """

        def fitted(name: str) -> GaussianProcess:
            linear = self._recipes[name]
            kernels = additive_kernels({group: self.groups[group] for group in self._additive + linear}, linear=linear)
            gp = GaussianProcess(kernels, mean=partial(self._prior, name), max_iter=self.max_iter)
            return gp.fit(x, z) if thetas is None else gp.condition(x, z, thetas[name])

        self.gps = dict(zip(self._recipes, map_chunks(fitted, self._recipes), strict=True))
        self.trees = ExtraTreesRegressor(
            self.num_trees, max_features=1 / 3, bootstrap=True, oob_score=_no_score, random_state=0
        )
        self._trust = z.numel() / (z.numel() + self.shrinkage) if AUXILIARY in self.groups else 1.0
        prior = self.prior(x)
        self.trees.fit(self._tree_inputs(x), (z - prior).float().numpy())
        held_out = prior + self._trust * torch.from_numpy(np.nan_to_num(np.ravel(self.trees.oob_prediction_)))
        self._tree_noise = float((held_out - z).square().mean())
        moments = [self._moments(name, x, *gp.leave_one_out()) for name, gp in self.gps.items()]
        spread = torch.full_like(held_out, 0.5 * math.log(self._tree_noise + 1e-6))
        moments.append(torch.stack([held_out, spread], dim=1))
        self.context = torch.stack(moments, dim=1).float()
        return self

    def predict(self, x: Tensor) -> Tensor:
        r"""Returns the moments of the targets ``x`` ``[m, F]``, ``[m, K, 2]``."""
        moments = [self._moments(name, x, *gp.predict(x)) for name, gp in self.gps.items()]
        inputs = self._tree_inputs(x)
        # The overhead of the forest's own predict exceeds the cost of its trees.
        vote = np.mean([tree.tree_.predict(inputs)[:, 0] for tree in self.trees.estimators_], axis=0)
        mean = self.prior(x) + self._trust * torch.from_numpy(vote)
        spread = torch.full_like(mean, 0.5 * math.log(self._tree_noise + 1e-6))
        moments.append(torch.stack([mean, spread], dim=1))
        return torch.stack(moments, dim=1).float()

    @property
    def gp(self) -> GaussianProcess:
        r"""The Gaussian process that gives samples their correlations."""
        return self.gps["networks"]

    def sample(self, x: Tensor, num: int, generator: torch.Generator) -> Tensor:
        r"""Draws joint, standardised deviations from the mean at ``x`` ``[m, F]``: ``[num, m]``."""
        return standard_deviations(self.gp, x, num, generator)

    def state_dict(self) -> dict[str, Tensor]:
        r"""Returns the hyperparameters of the Gaussian processes: with the context, all that :meth:`fit` needs."""
        return {name: gp.theta for name, gp in self.gps.items()}

    def prior(self, x: Tensor) -> Tensor:
        r"""Returns the prior mean at ``x`` ``[m, F]`` from the auxiliary labels, ``[m]``; zero without any."""
        if AUXILIARY not in self.groups:
            return torch.zeros(x.size(0), dtype=torch.float64)
        return LEVEL * x[:, self.groups[AUXILIARY]].double().mean(dim=1)

    def _prior(self, member: str, x: Tensor) -> Tensor:
        if member == "trend" and AUXILIARY not in self.groups:
            return SLOPE * x[:, self.groups[TREND]].double().mean(dim=1)
        return self.prior(x)

    def _moments(self, member: str, x: Tensor, mean: Tensor, std: Tensor | None) -> Tensor:
        """Mean and log standard deviation; the difference of the mean from the prior mean is shrunk."""
        assert std is not None
        prior = self._prior(member, x)
        return torch.stack([prior + self._trust * (mean - prior), std.log()], dim=1)

    def _tree_inputs(self, x: Tensor) -> np.ndarray[Any, Any]:
        return x[:, self.split_columns].numpy()


class BankPredictor(Predictor):
    r"""The plain mean of the bank that suits the space, without any training.

    That is a :class:`Bank` for cells (the prediction of a process before any meta-training), and a
    :class:`~pyg_nas_np.convnp.general_bank.GeneralBank` for all other spaces.

    Args:
        space: The search space. (default: that of the data set)
        maximize: Whether larger labels are better. (default: as the data set says, otherwise true)
        labels: How labels become scores, see :data:`~pyg_nas_np.predictors.labels.LabelScale`.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> graphs = space.batch_encode(torch.arange(20))
        >>> BankPredictor(space).fit(graphs, space.batch_flops(torch.arange(20))).predict(graphs).shape
        torch.Size([20])
    """

    def _inputs(self, archs: Architectures) -> Tensor:
        return shared_descriptors(self.space_).table(archs.given)

    def _fit(self, inputs: Tensor, z: Tensor) -> None:
        self.x_, self.z_ = inputs, z.float()
        self.bank_ = space_bank(self.space_).fit(self.x_, self.z_)

    def _predict(self, inputs: Tensor, return_std: bool) -> tuple[Tensor, Tensor | None]:
        mean, std = mixture(self.bank_.predict(inputs))
        return mean, std if return_std else None

    def _state(self) -> dict[str, Any]:
        return {"x": self.x_, "z": self.z_, "columns": bank_columns(self.bank_), "thetas": self.bank_.state_dict()}

    def _set_state(self, state: dict[str, Any]) -> None:
        self.x_, self.z_ = state["x"], state["z"]
        self.bank_ = bank_of(state["columns"]).fit(self.x_, self.z_, state["thetas"])


def space_bank(space: SearchSpace[Any]) -> Bank | GeneralBank:
    r"""Returns the bank that suits a space, not fitted."""
    descriptors = shared_descriptors(space)
    if isinstance(descriptors, Descriptors):
        return Bank(bank_groups(descriptors))
    return GeneralBank(descriptors.families)


def bank_columns(bank: Bank | GeneralBank) -> dict[str, Any]:
    r"""Returns all that :func:`bank_of` needs, as plain types."""
    return {"groups": bank.groups} if isinstance(bank, Bank) else {"families": bank.families._asdict()}


def bank_of(columns: Mapping[str, Any], *, shrinkage: float = SHRINKAGE) -> Bank | GeneralBank:
    r"""Returns the bank on these columns, not fitted."""
    if "families" in columns:
        return GeneralBank(Families(**columns["families"]))
    return Bank(columns["groups"], shrinkage=shrinkage)


def bank_groups(descriptors: Descriptors) -> dict[str, list[int]]:
    r"""Returns the columns of descriptors that the bank of a space uses."""
    present = descriptors.groups
    chosen = PATH_GROUPS if "paths" in present else [name for name in present if name not in (NETWORKS, TREND)]
    return {name: present[name] for name in (*chosen, NETWORKS, TREND) if name in present}


def bank_moments(groups: Mapping[str, list[int]], *, max_iter: int = 30, num_trees: int = 60) -> Moments:
    r"""Returns the base predictions of a task by a :class:`Bank`, for :class:`~pyg_nas_np.convnp.SyntheticTasks`."""
    # Not a closure, because workers of a data loader may unpickle it.
    return partial(_moments, groups, max_iter, num_trees)


def _moments(
    groups: Mapping[str, list[int]],
    max_iter: int,
    num_trees: int,
    x_context: Tensor,
    z_context: Tensor,
    x_target: Tensor,
) -> tuple[Tensor, Tensor]:
    bank = Bank(groups, max_iter=max_iter, num_trees=num_trees).fit(x_context, z_context)
    return bank.context, bank.predict(x_target)


def _no_score(truth: np.ndarray[Any, Any], prediction: np.ndarray[Any, Any]) -> float:
    # scikit-learn's own score warns if a point is in every bootstrap; such predictions are replaced by 0.
    return -float(np.nanmean((truth - prediction) ** 2))
