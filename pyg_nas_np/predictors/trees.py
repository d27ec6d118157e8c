r"""Tree ensembles on meta-features: random forest, gradient boosting."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestRegressor
from torch import Tensor

from pyg_nas_np.predictors.labels import LabelScale
from pyg_nas_np.predictors.refit import RefitPredictor
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.utils import require


class RandomForestPredictor(RefitPredictor):
    r"""Random forest; the standard deviation is that of its trees.

    Args:
        space: The search space. (default: that of the data set)
        n_estimators: Number of trees.
        max_features: Fraction of the features considered at each split.
        min_samples_leaf: Smallest number of labels in a leaf.
        maximize: Whether larger labels are better. (default: as the data set says, otherwise true)
        labels: How labels become scores, see :data:`~pyg_nas_np.predictors.labels.LabelScale`.
        random_state: Seed.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> graphs = [space.encode(space[i]) for i in range(40)]
        >>> forest = RandomForestPredictor(space, n_estimators=20).fit(graphs, space.batch_flops(torch.arange(40)))
        >>> forest.score(graphs, space.batch_flops(torch.arange(40))) > 0.8
        True
    """

    def __init__(
        self,
        space: SearchSpace[Any] | None = None,
        *,
        n_estimators: int = 300,
        max_features: float = 1 / 3,
        min_samples_leaf: int = 1,
        maximize: bool | None = None,
        labels: LabelScale = "auto",
        random_state: int = 0,
    ) -> None:
        super().__init__(space, maximize=maximize, labels=labels)
        self.n_estimators = n_estimators
        self.max_features = max_features
        self.min_samples_leaf = min_samples_leaf
        self.random_state = random_state

    def _learn(self, x: np.ndarray[Any, Any], z: np.ndarray[Any, Any]) -> None:
        self.model_ = RandomForestRegressor(
            n_estimators=self.n_estimators,
            max_features=self.max_features,
            min_samples_leaf=self.min_samples_leaf,
            random_state=self.random_state,
        ).fit(x, z)

    def _predict(self, inputs: Tensor, return_std: bool) -> tuple[Tensor, Tensor | None]:
        # The forest's own predict gives the mean only.
        x = inputs.numpy()
        trees = torch.from_numpy(np.stack([tree.predict(x, check_input=False) for tree in self.model_.estimators_]))
        return trees.mean(dim=0), trees.std(dim=0, unbiased=False) if return_std else None


class XGBoostPredictor(RefitPredictor):
    r"""Gradient-boosted trees (extra ``xgboost``), averaged over seeds.

    The variance is that between seeds plus the mean squared error of five-fold cross-validation.

    Args:
        space: The search space. (default: that of the data set)
        members: Number of seeds.
        n_estimators: Number of trees of each member.
        learning_rate: Shrinkage of each tree.
        max_depth: Depth of a tree.
        subsample: Fraction of the labels used by each tree.
        colsample_bytree: Fraction of the features used by each tree.
        maximize: Whether larger labels are better. (default: as the data set says, otherwise true)
        labels: How labels become scores, see :data:`~pyg_nas_np.predictors.labels.LabelScale`.
        random_state: First seed.

    Raises:
        MissingExtraError: In :meth:`fit`, if xgboost is not installed.
    """

    def __init__(
        self,
        space: SearchSpace[Any] | None = None,
        *,
        members: int = 4,
        n_estimators: int = 300,
        learning_rate: float = 0.05,
        max_depth: int = 4,
        subsample: float = 0.8,
        colsample_bytree: float = 0.5,
        maximize: bool | None = None,
        labels: LabelScale = "auto",
        random_state: int = 0,
    ) -> None:
        super().__init__(space, maximize=maximize, labels=labels)
        self.members = members
        self.n_estimators = n_estimators
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.subsample = subsample
        self.colsample_bytree = colsample_bytree
        self.random_state = random_state

    def _learn(self, x: np.ndarray[Any, Any], z: np.ndarray[Any, Any]) -> None:
        self.models_ = [self._boost(x, z, self.random_state + member) for member in range(self.members)]
        fold = np.random.default_rng(self.random_state).permutation(len(z)) % 5
        errors = [
            self._boost(x[fold != k], z[fold != k], self.random_state).predict(x[fold == k]) - z[fold == k]
            for k in range(min(5, len(z)))
        ]
        self.noise_ = float(np.mean(np.concatenate(errors) ** 2))

    def _boost(self, x: np.ndarray[Any, Any], z: np.ndarray[Any, Any], seed: int) -> Any:
        return (
            require("xgboost", "xgboost")
            .XGBRegressor(
                n_estimators=self.n_estimators,
                learning_rate=self.learning_rate,
                max_depth=self.max_depth,
                subsample=self.subsample,
                colsample_bytree=self.colsample_bytree,
                random_state=seed,
                n_jobs=1,
            )
            .fit(x, z)
        )

    def _predict(self, inputs: Tensor, return_std: bool) -> tuple[Tensor, Tensor | None]:
        scores = torch.stack([torch.from_numpy(model.predict(inputs.numpy())).double() for model in self.models_])
        std = (scores.var(dim=0, unbiased=False) + self.noise_).sqrt() if return_std else None
        return scores.mean(dim=0), std
