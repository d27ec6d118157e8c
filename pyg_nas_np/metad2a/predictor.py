r"""Predicts what architectures reach on a data set of which nothing but its images is known, or a few results."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args, overload

import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.convnp.predictor import ConvNPPredictor
from pyg_nas_np.metad2a.database import FeatureSets
from pyg_nas_np.metad2a.mobilenetv3.predictor import SubnetPosterior
from pyg_nas_np.metad2a.predictor_training import (
    AnyPerformanceModel,
    Form,
    read_performance_file,
    shipped_performance_model,
)
from pyg_nas_np.predictors.inputs import Architectures, ArchitecturesLike, as_architectures, labels_of
from pyg_nas_np.predictors.labels import Labels, check_labels
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.utils import InvalidFeaturesError

_LEVEL = 10.0
"""How far the level of a new data set may lie from that of the database, in percent: a standard deviation."""


class MetaD2APredictor:
    r"""Predicts accuracies on a new data set from its features: the task conditions the prediction.

    Two models are meta-trained (see :func:`~pyg_nas_np.metad2a.predictor_training.train_performance_model`):

    - ``"regression"``, that of MetaD2A: a network embeds data set and cell, and joins them to an accuracy;
    - ``"process"``: a Gaussian process over data sets and cells
      (:class:`~pyg_nas_np.metad2a.joint_gp.JointGP`);
    - ``"both"`` is their mean.

    Accuracies measured on the new data set become the context of the neural process
    (:class:`~pyg_nas_np.convnp.ConvNPPredictor`; not with ``"regression"``, which is the paper's), and what was
    predicted for the whole space stands beside them as the table of another task, which the bank of the neural process
    follows as far as the context bears it out. Labels that are all equal, or a single one, only shift the level.

    In the MobileNetV3 space there is the process only, and it knows one data set, ImageNet
    (:class:`~pyg_nas_np.metad2a.mobilenetv3.predictor.SubnetModel`): the images do not matter, measured accuracies do.

    Accuracies are predicted on the scale of the database that the networks were trained on; the shipped one holds
    20-class tasks. On a data set with more or fewer classes, the order is what counts until something is measured.

    Args:
        space: The search space. (default: that of the architectures)
        form: ``"process"``, ``"regression"`` or ``"both"``.
        weights: File written by :func:`~pyg_nas_np.metad2a.predictor_training.write_performance_model`. (default:
            what the package ships for the space)

    Raises:
        ValueError: If :obj:`form` is unknown.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> task = FeatureSets.from_tasks([[torch.randn(5, 1280) for _ in range(10)]])
        >>> predictor = MetaD2APredictor(space).fit(task)
        >>> mean, std = predictor.predict(space.batch_encode(torch.arange(3)), return_std=True)
        >>> mean.shape, bool((std > 0).all())
        (torch.Size([3]), True)
        >>> cells = space.batch_encode(torch.tensor([1, 5, 9, 700]))
        >>> predictor.fit(task, cells, [60.0, 71.5, 58.0, 70.2]).predict(cells).shape
        torch.Size([4])
    """

    def __init__(
        self,
        space: SearchSpace[Any] | None = None,
        *,
        form: Form = "process",
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        if form not in get_args(Form):
            raise ValueError(f"form must be one of {', '.join(get_args(Form))}, got {form!r}")
        self.space = space
        self.form = form
        self.weights = weights
        self._read: dict[SearchSpace[Any], AnyPerformanceModel] = {}

    def model(self, space: SearchSpace[Any]) -> AnyPerformanceModel:
        r"""Returns the meta-trained model for a space.

        Raises:
            MissingWeightsError: If neither :obj:`weights` is given nor a model is shipped for the space.
        """
        if self.weights is None:
            return shipped_performance_model(space)
        if space not in self._read:
            self._read = {space: read_performance_file(self.weights, space)}
        return self._read[space]

    def fit(self, task: FeatureSets, graphs: ArchitecturesLike | None = None, y: Labels | None = None) -> Self:
        r"""Names the data set to predict on, and what was measured there.

        Args:
            task: One data set, as of :class:`~pyg_nas_np.metad2a.ImageFeatures` with its default network.
            graphs: ``n`` architectures that were measured on it. (default: none)
            y: Their accuracies, ``[n]``. (default: those that the graphs carry)

        Raises:
            InvalidFeaturesError: If :obj:`task` is not one data set.
            InvalidLabelsError: If a label is NaN or infinite, or there is not one an architecture.
            ValueError: If the form is ``"regression"`` and something was measured.
        """
        if len(task) != 1:
            raise InvalidFeaturesError(f"fit takes one data set, got {len(task)}; index them as sets[i]")
        if graphs is None and y is not None:
            raise ValueError("y are labels of graphs; pass these as well")
        context = None
        archs = None if graphs is None else as_architectures(graphs, self.space)
        if graphs is not None and archs is not None and len(archs) > 0:
            if self.form == "regression":
                raise ValueError("form='regression' does not learn from measurements; take form='both'")
            labels = check_labels(labels_of(graphs) if y is None else y, len(archs))
            context = self._condition(task, self.model(archs.space), archs, labels)
        self.task_, self.context_ = task, context
        return self

    @overload
    def predict(self, graphs: ArchitecturesLike, return_std: Literal[False] = False) -> Tensor: ...
    @overload
    def predict(self, graphs: ArchitecturesLike, return_std: Literal[True]) -> tuple[Tensor, Tensor]: ...
    def predict(self, graphs: ArchitecturesLike, return_std: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        r"""Predicts what architectures reach on the data set.

        Args:
            graphs: ``n`` architectures.
            return_std: Whether to return standard deviations too. They are those of a new measurement, noise included.

        Returns:
            Accuracies in percent ``[n]`` float32, or accuracies and their standard deviations.

        Raises:
            InvalidArchitectureError: If a graph is not one of the space.
            sklearn.exceptions.NotFittedError: Before :meth:`fit`.
        """
        if not hasattr(self, "task_"):
            raise NotFittedError("this MetaD2APredictor is not fitted yet; call fit with a data set")
        if self.context_ is not None and not isinstance(self.context_, tuple):
            return self.context_.predict(graphs, return_std=True) if return_std else self.context_.predict(graphs)
        archs = as_architectures(graphs, self.space)
        mean, std = self._regress(self.task_, self.model(archs.space), archs, return_std)
        shift, spread = self.context_ or (0.0, 0.0)
        return mean + shift if std is None else (mean + shift, (std.square() + spread**2).sqrt())

    def _regress(
        self, task: FeatureSets, model: AnyPerformanceModel, archs: Architectures, return_std: bool
    ) -> tuple[Tensor, Tensor | None]:
        cells = model.describe(archs)
        return model.predict(self.form, task, torch.zeros(cells.size(0), dtype=torch.long), cells, return_std)

    def _condition(
        self, task: FeatureSets, model: AnyPerformanceModel, archs: Architectures, y: Tensor
    ) -> ConvNPPredictor | SubnetPosterior | tuple[float, float]:
        if bool((y != y[0]).any()):
            return model.condition(self.form, task, archs, y)
        mean, std = self._regress(task, model, archs, True)
        assert std is not None
        noise = float(std.mean()) ** 2 / y.numel()
        share = _LEVEL**2 / (_LEVEL**2 + noise)
        return share * float((y - mean).mean()), (share * noise) ** 0.5
