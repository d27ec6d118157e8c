r"""The plain mean of a bank as a predictor, and the bank that suits a space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pyg_nas_np.convnp.bank import Bank, expected, mixture
from pyg_nas_np.convnp.cell_bank import SHRINKAGE, CellBank, bank_groups
from pyg_nas_np.convnp.general_bank import GeneralBank
from pyg_nas_np.features import Descriptors, shared_descriptors
from pyg_nas_np.features.space import Families
from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.inputs import Architectures
from pyg_nas_np.spaces import SearchSpace


class BankPredictor(Predictor):
    r"""The plain mean of the bank that suits the space, without any training.

    That is a :class:`~pyg_nas_np.convnp.cell_bank.CellBank` for cells (the prediction of a process before any
    meta-training), and a :class:`~pyg_nas_np.convnp.general_bank.GeneralBank` for all other spaces. Without labels,
    architectures rank by the prior trend of the space: sizes and depth.

    Args:
        space: The search space. (default: that of the data set)
        maximize: Whether larger labels are better. (default: as the data set says, otherwise true)
        labels: How labels become scores, see :data:`~pyg_nas_np.predictors.labels.LabelScale`.

    Example:
        >>> import torch
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> graphs = space.batch_encode(torch.arange(20))
        >>> BankPredictor(space).fit(graphs, space.batch_flops(torch.arange(20))).predict(graphs).shape
        torch.Size([20])
    """

    has_prior = True

    def _prior(self, archs: Architectures) -> tuple[Tensor, Tensor]:
        return expected(shared_descriptors(self.space_).prior_trend(self._inputs(archs)))

    def _inputs(self, archs: Architectures) -> Tensor:
        return shared_descriptors(self.space_).table(archs.given)

    def _fit(self, inputs: Tensor, z: Tensor) -> None:
        self.x_, self.z_ = inputs, z.float()
        self.bank_ = space_bank(self.space_).fit(self.x_, self.z_)

    def _predict(self, inputs: Tensor, return_std: bool) -> tuple[Tensor, Tensor | None]:
        mean, std = mixture(self.bank_.predict(inputs))
        return mean, std if return_std else None

    def _state(self) -> dict[str, Any]:
        return {"x": self.x_, "z": self.z_, "columns": self.bank_.columns, "thetas": self.bank_.state_dict()}

    def _set_state(self, state: dict[str, Any]) -> None:
        self.x_, self.z_ = state["x"], state["z"]
        self.bank_ = bank_of(state["columns"]).fit(self.x_, self.z_, state["thetas"])


def space_bank(space: SearchSpace[Any]) -> Bank:
    r"""Returns the bank that suits a space, not fitted."""
    descriptors = shared_descriptors(space)
    if isinstance(descriptors, Descriptors):
        return CellBank(bank_groups(descriptors))
    return GeneralBank(descriptors.families)


def bank_of(columns: Mapping[str, Any], *, shrinkage: float = SHRINKAGE) -> Bank:
    r"""Returns the bank on the columns that :attr:`Bank.columns` has named, not fitted."""
    if "families" in columns:
        return GeneralBank(Families(**columns["families"]))
    return CellBank(columns["groups"], shrinkage=shrinkage)
