r"""The interface of all predictors: fit on labelled architectures, predict labels with uncertainty."""

from __future__ import annotations

import os
import pickle
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, overload

import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.features import shared_features
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.predictors.inputs import Graphs, count_graphs, labels_of, meta_features, space_of
from pyg_nas_np.predictors.labels import Labels, LabelScale, LabelTransform, check_labels
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, atomic_path
from pyg_nas_np.utils.defaults import fixed_defaults

FORMAT = "pyg_nas_np.predictor/1"


class Predictor(RegressorMixin, BaseEstimator, ABC):  # type: ignore[misc]
    r"""Predicts one label an architecture, in the manner of a scikit-learn regressor.

    Architectures come as an indexed :class:`~pyg_nas_np.datasets.ArchitectureDataset`, a PyG
    :class:`~torch_geometric.data.Batch` or a list of :class:`~torch_geometric.data.Data`; labels as a tensor, an array
    or a list. Predictions are float32 tensors ``[n]`` on the scale of the labels; they may coincide where they differ
    by less than float32 resolves.

    Inside, a predictor sees standardised scores of the labels (see
    :class:`~pyg_nas_np.predictors.labels.LabelTransform`), and predictions keep the order of predicted scores. Where
    the labels have no scale (a single one, or all equal), every prediction is that label, with the standard deviation
    given there. An architecture may occur more than once, with different labels.

    Subclasses implement :meth:`_fit` and :meth:`_predict`; :meth:`_inputs`, which gives meta-features, may be replaced.

    Args:
        space: The search space. (default: that of the data set)
        labels: How labels become scores, see :data:`~pyg_nas_np.predictors.labels.LabelScale`.
    """

    _classes: ClassVar[dict[str, type[Predictor]]] = {}

    def __init__(self, space: SearchSpace[Any] | None = None, *, labels: LabelScale = "auto") -> None:
        self.space = space
        self.labels = labels

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Predictor._classes[cls.__name__] = cls

    # -- what a predictor provides ----------------------------------------------------------------------------------

    @abstractmethod
    def _fit(self, inputs: Any, z: Tensor) -> None:
        """Learns from inputs and scores ``[n]`` float64, ``n >= 2`` and not all equal."""

    @abstractmethod
    def _predict(self, inputs: Any, return_std: bool) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation of the scores, ``[n]``."""

    def _inputs(self, graphs: Graphs) -> Any:
        """What :meth:`_fit` and :meth:`_predict` receive for graphs of ``self.space_``."""
        return meta_features(graphs, shared_features(self.space_))

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """What :meth:`_fit` learned, as tensors and plain types."""

    @abstractmethod
    def _set_state(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`_state`."""

    # -- scikit-learn -----------------------------------------------------------------------------------------------

    @fixed_defaults
    def fit(self, graphs: Graphs, y: Labels | None = None) -> Self:
        r"""Learns from labelled architectures.

        Args:
            graphs: ``n`` architectures, at least one.
            y: Their labels, ``[n]``. (default: those that the graphs carry)

        Raises:
            InvalidLabelsError: If there is no label, one is NaN or infinite, or there is not one an architecture.
            InvalidArchitectureError: If a graph is not one of the space, or the space is not known.
        """
        space = space_of(graphs, self.space)
        transform = LabelTransform(self.labels)
        values = check_labels(labels_of(graphs) if y is None else y, count_graphs(graphs))
        z = transform.fit(values)
        self.space_ = space
        inputs = self._inputs(graphs)
        if transform.informative:
            self._fit(inputs, z)
        self.space_name_, self.feature_names_ = space.name, shared_features(space).feature_names
        self.labels_, self.transform_ = values, transform
        return self

    @overload
    def predict(self, graphs: Graphs, return_std: Literal[False] = False) -> Tensor: ...
    @overload
    def predict(self, graphs: Graphs, return_std: Literal[True]) -> tuple[Tensor, Tensor]: ...
    @fixed_defaults
    def predict(self, graphs: Graphs, return_std: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        r"""Predicts the labels of architectures.

        Args:
            graphs: ``n`` architectures.
            return_std: Whether to return standard deviations too. They are those of a new measurement, noise included.

        Returns:
            Labels ``[n]`` float32, or labels and their standard deviations.

        Raises:
            InvalidArchitectureError: If a graph is not one of the space.
            sklearn.exceptions.NotFittedError: Before :meth:`fit`.
        """
        score, score_std = self._scores(graphs, return_std)
        mean, std = self.transform_.inverse(score, score_std)
        return mean.float() if std is None else (mean.float(), std.float())

    @fixed_defaults
    def predict_scores(self, graphs: Graphs) -> tuple[Tensor, Tensor]:
        r"""Predicts standardised scores instead of labels: the scale on which the prediction is Gaussian.

        The map from scores to labels is increasing, so that the order is that of :meth:`predict`.

        Args:
            graphs: ``n`` architectures.

        Returns:
            Means and standard deviations (noise included) ``[n]`` float64; 0 and 1 where the labels have no scale.

        Raises:
            InvalidArchitectureError: If a graph is not one of the space.
            sklearn.exceptions.NotFittedError: Before :meth:`fit`.
        """
        mean, std = self._scores(graphs, True)
        assert std is not None
        return mean.double(), std.double()

    @fixed_defaults
    def _scores(self, graphs: Graphs, return_std: bool) -> tuple[Tensor, Tensor | None]:
        inputs = self._prepare(graphs)
        if self.transform_.informative and count_graphs(graphs) > 0:
            return self._predict(inputs, return_std)
        score = torch.zeros(count_graphs(graphs))
        return score, torch.ones_like(score) if return_std else None

    def _prepare(self, graphs: Graphs) -> Any:
        """Checks that the predictor fits the graphs, and returns their inputs."""
        check_is_fitted(self, "transform_")
        self.space_ = space_of(graphs, getattr(self, "space_", None))
        if self.space_.name != self.space_name_:
            raise InvalidArchitectureError(
                f"the predictor was fitted on {self.space_name_}, the graphs are from {self.space_.name}"
            )
        if shared_features(self.space_).feature_names != self.feature_names_:
            raise DataFileError("the predictor was saved by a version with other meta-features; fit it again")
        return self._inputs(graphs)

    def score(self, graphs: Graphs, y: Labels | None = None) -> float:
        r"""Returns Kendall's :math:`\tau_b` between predictions and labels; 0 if either is constant."""
        values = check_labels(labels_of(graphs) if y is None else y, count_graphs(graphs))
        return float(kendall_tau(self.predict(graphs), values, undefined=0.0))

    def __sklearn_clone__(self) -> Self:
        # A space is shared, not copied: it is immutable, may be large, and owns the cached features.
        return type(self)(**self.get_params(deep=False))

    # -- files ------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        r"""Writes the fitted predictor, without its space, as tensors and plain types; atomically.

        Raises:
            sklearn.exceptions.NotFittedError: Before :meth:`fit`.
        """
        check_is_fitted(self, "transform_")
        state = {
            "format": FORMAT,
            "class": type(self).__name__,
            "params": self._plain_params(),
            "space": self.space_name_,
            "features": self.feature_names_,
            "labels": self.labels_,
            "state": self._state() if self.transform_.informative else {},
        }
        with atomic_path(path) as tmp:
            torch.save(state, tmp)

    @classmethod
    @fixed_defaults
    def load(cls, path: str | os.PathLike[str], space: SearchSpace[Any] | None = None) -> Self:
        r"""Reads a predictor written by :meth:`save`; runs no code from the file.

        Args:
            path: The file.
            space: The search space. (default: that of the data set to predict)

        Raises:
            DataFileError: If the file is corrupt, or does not hold a predictor of this class.
            InvalidArchitectureError: If :obj:`space` is not that of the predictor.
        """
        with open(path, "rb") as file:
            try:
                state = torch.load(file, weights_only=True)
            except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
                raise DataFileError(f"{os.fspath(path)} is corrupt or not a saved predictor ({error})") from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise DataFileError(f"{os.fspath(path)} is not a saved predictor of format {FORMAT}")
        found = known_class(state["class"])
        if not issubclass(found, cls):
            raise DataFileError(f"{os.fspath(path)} holds a {state['class']}, which is not a known {cls.__name__}")
        if space is not None and space.name != state["space"]:
            raise InvalidArchitectureError(f"{os.fspath(path)} was fitted on {state['space']}, not on {space.name}")
        predictor = found._from_plain_params(space, state["params"])
        if space is not None:
            predictor.space_ = space
        predictor.space_name_, predictor.feature_names_ = state["space"], state["features"]
        predictor.labels_, predictor.transform_ = state["labels"], LabelTransform(predictor.labels)
        predictor.transform_.fit(predictor.labels_)
        if predictor.transform_.informative:
            predictor._set_state(state["state"])
        return predictor

    def _plain_params(self) -> dict[str, Any]:
        """The parameters without the space, as plain types."""
        params: dict[str, Any] = self.get_params(deep=False)
        del params["space"]
        return params

    @classmethod
    def _from_plain_params(cls, space: SearchSpace[Any] | None, params: dict[str, Any]) -> Self:
        """Inverse of :meth:`_plain_params`."""
        return cls(space, **params)


def known_class(name: str) -> type[Predictor]:
    r"""Returns the predictor class of a name found in a file.

    Raises:
        DataFileError: If no class of this name is defined; importing the module that defines it is the cure.
    """
    if name not in Predictor._classes:
        raise DataFileError(
            f"the file holds a {name}, which is not a known predictor; import the module that defines it"
        )
    return Predictor._classes[name]
