r"""Predicts accuracies of architectures on a new data set from its images and, if known, a few measurements."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args, overload

import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.metad2a.database import FeatureSets
from pyg_nas_np.metad2a.predictor_training import Estimator
from pyg_nas_np.metad2a.predictor_weights import (
    AccuracyModel,
    Conditioned,
    read_performance_model,
    shipped_performance_model,
)
from pyg_nas_np.predictors.inputs import Architectures, ArchitecturesLike, as_architectures, labels_of
from pyg_nas_np.predictors.labels import Labels, check_labels
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.spaces.base import require_cells
from pyg_nas_np.utils import InvalidFeaturesError, fixed_defaults

_LEVEL = 10.0
"""Prior standard deviation, in percent, of the difference in level between a new data set and the database."""


class MetaD2APredictor:
    r"""Predicts the accuracies of architectures on a new data set.

    The features of the images describe the data set. Two estimators are meta-trained on a database of other data sets
    (:func:`~pyg_nas_np.metad2a.predictor_training.train_performance_model`):

    - ``"network"``, the predictor of MetaD2A: a network embeds data set and cell and maps both to an accuracy;
    - ``"gp"``: a Gaussian process over data sets and cells (:class:`~pyg_nas_np.metad2a.joint_gp.JointGP`);
    - ``"both"`` is the mean of the two.

    Accuracies measured on the new data set become the context of a :class:`~pyg_nas_np.convnp.ConvNPPredictor`, with
    the predictions for the whole space as auxiliary labels. ``"network"`` takes no measurements, as in the paper. One
    label, or labels that are all equal, shift the predictions by a constant.

    The available estimators depend on the model of the space. That of the MobileNetV3 space is a Gaussian process of
    one data set, ImageNet (:class:`~pyg_nas_np.metad2a.mobilenetv3.predictor.SubNetworkModel`): measured accuracies
    change its predictions, images do not.

    Accuracies are on the scale of the database. The database behind the shipped weights has data sets of 20 classes. On
    a data set with another number of classes only the order is meaningful until accuracies are measured.

    Args:
        space: The search space. (default: that of the architectures)
        estimator: ``"gp"``, ``"network"`` or ``"both"``.
        weights: File written by :func:`~pyg_nas_np.metad2a.predictor_weights.write_performance_model`. (default:
            the file that the package ships for the space)

    Raises:
        ValueError: If :obj:`estimator` is unknown.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> dataset = FeatureSets.from_datasets([[torch.randn(5, 1280) for _ in range(10)]])
        >>> predictor = MetaD2APredictor(space).fit(dataset)
        >>> mean, std = predictor.predict(space.batch_encode(torch.arange(3)), return_std=True)
        >>> mean.shape, bool((std > 0).all())
        (torch.Size([3]), True)
        >>> cells = space.batch_encode(torch.tensor([1, 5, 9, 700]))
        >>> predictor.fit(dataset, cells, [60.0, 71.5, 58.0, 70.2]).predict(cells).shape
        torch.Size([4])
    """

    def __init__(
        self,
        space: CellSpace[Any] | None = None,
        *,
        estimator: Estimator = "gp",
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        if estimator not in get_args(Estimator):
            raise ValueError(f"estimator must be one of {', '.join(get_args(Estimator))}, got {estimator!r}")
        self.space = space
        self.estimator = estimator
        self.weights = weights
        self._models: dict[Any, AccuracyModel] = {}

    @fixed_defaults
    def model(self, space: CellSpace[Any]) -> AccuracyModel:
        r"""Returns the meta-trained model for a space.

        Raises:
            MissingWeightsError: If neither :obj:`weights` is given nor a model is shipped for the space.
        """
        weights = self.weights
        if (key := (weights, space)) not in self._models:
            model = shipped_performance_model(space) if weights is None else read_performance_model(weights, space)
            self._models = {key: model}
        return self._models[key]

    @fixed_defaults
    def fit(self, dataset: FeatureSets, graphs: ArchitecturesLike | None = None, y: Labels | None = None) -> Self:
        r"""Sets the data set to predict on, and the measurements on it.

        Args:
            dataset: One data set, as of :class:`~pyg_nas_np.metad2a.ImageFeatures` with its default network.
            graphs: ``n`` architectures measured on it. (default: none)
            y: Their accuracies, ``[n]``. (default: those that the graphs carry)

        Raises:
            InvalidFeaturesError: If :obj:`dataset` is not one data set.
            MissingWeightsError: If there is no model for the space.
            InvalidLabelsError: If a label is NaN or infinite, or there is not one an architecture.
            ValueError: If the estimator is ``"network"`` and there are measurements.
        """
        if not isinstance(dataset, FeatureSets):
            raise InvalidFeaturesError(f"fit takes the features of a data set, got {type(dataset).__name__}")
        if len(dataset) != 1:
            raise InvalidFeaturesError(f"fit takes one data set, got {len(dataset)}; index them as sets[i]")
        if graphs is None and y is not None:
            raise ValueError("y are labels of graphs; pass these as well")
        if self.space is not None:
            # A fitted predictor no longer needs the file.
            self.model(self.space)
        context = None
        archs = None if graphs is None else as_architectures(graphs, self.space)
        if graphs is not None and archs is not None and len(archs) > 0:
            if self.estimator == "network":
                raise ValueError("estimator='network' does not learn from measurements; take estimator='gp' or 'both'")
            labels = check_labels(labels_of(graphs) if y is None else y, len(archs))
            context = self._condition(dataset, self.model(require_cells(archs.space)), archs, labels)
        self.dataset_, self.context_ = dataset, context
        return self

    @overload
    def predict(self, graphs: ArchitecturesLike, return_std: Literal[False] = False) -> Tensor: ...
    @overload
    def predict(self, graphs: ArchitecturesLike, return_std: Literal[True]) -> tuple[Tensor, Tensor]: ...
    @fixed_defaults
    def predict(self, graphs: ArchitecturesLike, return_std: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        r"""Predicts accuracies on the data set.

        Args:
            graphs: ``n`` architectures.
            return_std: Whether to return standard deviations too. They are those of a new measurement, noise included.

        Returns:
            Accuracies in percent ``[n]`` float32, or accuracies and their standard deviations.

        Raises:
            InvalidArchitectureError: If a graph is not one of the space.
            sklearn.exceptions.NotFittedError: Before :meth:`fit`.
        """
        if not hasattr(self, "dataset_"):
            raise NotFittedError("this MetaD2APredictor is not fitted yet; call fit with a data set")
        if self.context_ is not None and not isinstance(self.context_, tuple):
            return self.context_.predict(graphs, return_std=True) if return_std else self.context_.predict(graphs)
        archs = as_architectures(graphs, self.space)
        mean, std = self._regress(self.dataset_, self.model(require_cells(archs.space)), archs, return_std)
        shift, spread = self.context_ or (0.0, 0.0)
        return mean + shift if std is None else (mean + shift, (std.square() + spread**2).sqrt())

    def _regress(
        self, dataset: FeatureSets, model: AccuracyModel, archs: Architectures, return_std: bool
    ) -> tuple[Tensor, Tensor | None]:
        cells = model.describe(archs)
        return model.predict(self.estimator, dataset, torch.zeros(cells.size(0), dtype=torch.long), cells, return_std)

    def _condition(
        self, dataset: FeatureSets, model: AccuracyModel, archs: Architectures, y: Tensor
    ) -> Conditioned | tuple[float, float]:
        if bool((y != y[0]).any()):
            return model.condition(self.estimator, dataset, archs, y)
        mean, std = self._regress(dataset, model, archs, True)
        assert std is not None
        noise = float(std.mean()) ** 2 / y.numel()
        share = _LEVEL**2 / (_LEVEL**2 + noise)
        return share * float((y - mean).mean()), (share * noise) ** 0.5
