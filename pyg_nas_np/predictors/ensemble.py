r"""A weighted mean of any predictors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from sklearn.base import clone
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.predictors.base import Predictor, known_class
from pyg_nas_np.predictors.gnn import GNNPredictor
from pyg_nas_np.predictors.gp import GPPredictor
from pyg_nas_np.predictors.inputs import Architectures
from pyg_nas_np.predictors.labels import LabelScale
from pyg_nas_np.spaces import SearchSpace


class EnsemblePredictor(Predictor):
    r"""Averages the predicted scores of several predictors.

    With weights :math:`w_k` that sum to one, the mean is :math:`\mu = \sum_k w_k \mu_k` and the variance, by the law of
    total variance, :math:`\sum_k w_k \big(\sigma_k^2 + (\mu_k - \mu)^2\big)`.

    The ensemble transforms labels to scores once for all members; their own ``labels``, ``maximize`` and ``space`` are
    not used. It fits copies of the members, :attr:`predictors_`. Parameters of the members are accessible as
    ``name__parameter``.

    Args:
        space: The search space. (default: that of the data set)
        predictors: Predictors by name. (default: ``gp`` and ``gnn``)
        weights: Non-negative weights by name; predictors without an entry have weight zero. (default: all equal)
        maximize: Whether larger labels are better. (default: as the data set says, otherwise true)
        labels: How labels become scores, see :data:`~pyg_nas_np.predictors.labels.LabelScale`.

    Raises:
        ValueError: From :meth:`fit`, if there is no predictor, or a weight is unknown or negative, or all are zero.

    Example:
        >>> from pyg_nas_np.predictors import RidgePredictor
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> graphs, y = space.batch_encode(torch.arange(40)), space.batch_flops(torch.arange(40))
        >>> members = {"gp": GPPredictor(), "ridge": RidgePredictor()}
        >>> ensemble = EnsemblePredictor(space, members, {"gp": 1.0, "ridge": 0.5})
        >>> ensemble.set_params(gp__kernel="rbf").fit(graphs, y).score(graphs, y) > 0.8
        True
    """

    def __init__(
        self,
        space: SearchSpace[Any] | None = None,
        predictors: Mapping[str, Predictor] | None = None,
        weights: Mapping[str, float] | None = None,
        *,
        maximize: bool | None = None,
        labels: LabelScale = "auto",
    ) -> None:
        super().__init__(space, maximize=maximize, labels=labels)
        self.predictors = predictors
        self.weights = weights

    # -- scikit-learn -----------------------------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        r"""Returns the parameters; with :obj:`deep` the members by name, and theirs as ``name__parameter``."""
        params: dict[str, Any] = super().get_params(deep=False)
        if deep:
            for name, member in (self.predictors or {}).items():
                params[name] = member
                params |= {f"{name}__{key}": value for key, value in member.get_params(deep=True).items()}
        return params

    def __sklearn_clone__(self) -> Self:
        copy = super().__sklearn_clone__()
        if self.predictors is not None:
            copy.predictors = {name: clone(member) for name, member in self.predictors.items()}
        return copy

    # -- fitting ----------------------------------------------------------------------------------------------------

    def _members(self) -> Mapping[str, Predictor]:
        return _default_members() if self.predictors is None else self.predictors

    def _shares(self) -> dict[str, float]:
        """Weights that sum to one, of the members that have any."""
        names = list(self._members())
        weights = dict.fromkeys(names, 1.0) if self.weights is None else dict(self.weights)
        unknown = [name for name in weights if name not in names]
        if unknown:
            raise ValueError(f"weights names {unknown[0]!r}; predictors: {', '.join(names) or 'none'}")
        wrong = [name for name, weight in weights.items() if not 0.0 <= weight < float("inf")]
        if wrong:
            raise ValueError(f"weights must be finite and not negative, got {weights[wrong[0]]!r} for {wrong[0]!r}")
        total = sum(weights.values())
        if total == 0.0:
            raise ValueError("an ensemble needs at least one predictor with a positive weight")
        return {name: weight / total for name, weight in weights.items() if weight > 0.0}

    def _inputs(self, archs: Architectures) -> Architectures:
        # Each member computes its own inputs.
        return archs

    def _fit(self, inputs: Architectures, z: Tensor) -> None:
        shares, templates = self._shares(), self._members()
        members = {name: clone(templates[name]) for name in shares}
        for member in members.values():
            member.space_ = self.space_
            member._fit(member._inputs(inputs), z)
        self.predictors_, self.shares_ = members, shares

    def _predict(self, inputs: Architectures, return_std: bool) -> tuple[Tensor, Tensor | None]:
        mean = square = torch.zeros((), dtype=torch.double)
        for name, member in self.predictors_.items():
            member.space_ = self.space_
            score, std = member._predict(member._inputs(inputs), return_std)
            mean = mean + self.shares_[name] * score.double()
            if std is not None:
                square = square + self.shares_[name] * (score.double().square() + std.double().square())
        return mean, (square - mean.square()).clamp_min(0.0).sqrt() if return_std else None

    # -- files ------------------------------------------------------------------------------------------------------

    def _plain_params(self) -> dict[str, Any]:
        params = super()._plain_params()
        if self.predictors is not None:
            members = self.predictors.items()
            params["predictors"] = {name: (type(member).__name__, member._plain_params()) for name, member in members}
        if self.weights is not None:
            params["weights"] = dict(self.weights)
        return params

    @classmethod
    def _from_plain_params(cls, space: SearchSpace[Any] | None, params: dict[str, Any]) -> Self:
        if params["predictors"] is not None:
            members = params["predictors"].items()
            built = {name: known_class(kind)._from_plain_params(None, own) for name, (kind, own) in members}
            params = {**params, "predictors": built}
        return super()._from_plain_params(space, params)

    def _state(self) -> dict[str, Any]:
        return {"shares": self.shares_, "members": {name: member._state() for name, member in self.predictors_.items()}}

    def _set_state(self, state: dict[str, Any]) -> None:
        templates = self._members()
        self.shares_ = state["shares"]
        self.predictors_ = {name: clone(templates[name]) for name in self.shares_}
        for name, member in self.predictors_.items():
            member._set_state(state["members"][name])


def _default_members() -> dict[str, Predictor]:
    return {"gp": GPPredictor(), "gnn": GNNPredictor()}
