r"""The interface of all predictors: fit on labelled architectures, predict labels with uncertainty."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, overload

import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.features import shared_features
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.predictors.inputs import Architectures, ArchitecturesLike, as_architectures, labels_of, maximize_of
from pyg_nas_np.predictors.labels import Labels, LabelScale, LabelTransform, check_labels
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.registry import declared_space
from pyg_nas_np.utils import (
    DataFileError,
    InvalidArchitectureError,
    InvalidLabelsError,
    foreign_file,
    read_state,
    write_state,
)
from pyg_nas_np.utils.defaults import fixed_defaults
from pyg_nas_np.utils.state_files import Kinds

FORMAT = "pyg_nas_np.predictor/3"
_ENTRIES: Kinds = {
    "class": str,
    "params": dict,
    "space": str,
    "declared": dict,
    "features": (list, tuple),
    "labels": Tensor,
    "maximize": bool,
    "state": dict,
}


class Predictor(RegressorMixin, BaseEstimator, ABC):  # type: ignore[misc]
    r"""Predicts one label for each architecture, with the interface of a scikit-learn regressor.

    Architectures come as an indexed :class:`~pyg_nas_np.datasets.ArchitectureDataset`, a tensor of official indices, a
    PyG :class:`~torch_geometric.data.Batch`, a list of graphs, of architectures or of their strings (see
    :func:`~pyg_nas_np.predictors.inputs.as_architectures`); labels as a tensor, an array, a series or a list.
    Predictions are float64 tensors ``[n]`` on the scale of the labels.

    Internally, labels are transformed to standardised scores, of which larger ones are better (see
    :class:`~pyg_nas_np.predictors.labels.LabelTransform`). Predictions have the order of the predicted scores. If the
    labels have no scale (a single one, or all equal), every prediction is that label, with the standard deviation given
    there. An architecture may occur more than once, with different labels.

    Predictors that have a **prior** need no label: after ``fit([])``, and before any ``fit`` if they were given a
    space, they rank by it. The scale of the labels is not known then (:attr:`labelled` is false). Predictions are
    standard scores, with mean 0 and standard deviation about 1 over the space; smaller ones are better where labels are
    minimised.

    Subclasses implement :meth:`_fit` and :meth:`_predict`. They may override :meth:`_inputs`, whose default is the
    meta-features. Those with a prior set :attr:`has_prior` and implement :meth:`_prior`.

    Args:
        space: The search space. (default: that of the data set)
        maximize: Whether larger labels are better; false for losses, errors and times. (default: as the data set says,
            otherwise true)
        labels: How labels become scores, see :data:`~pyg_nas_np.predictors.labels.LabelScale`.
    """

    has_prior: ClassVar[bool] = False
    """Whether the predictor ranks without any label."""

    _classes: ClassVar[dict[str, type[Predictor]]] = {}

    def __init__(
        self, space: SearchSpace[Any] | None = None, *, maximize: bool | None = None, labels: LabelScale = "auto"
    ) -> None:
        self.space = space
        self.maximize = maximize
        self.labels = labels

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Predictor._classes[cls.__name__] = cls

    # -- for subclasses ---------------------------------------------------------------------------------------------

    @abstractmethod
    def _fit(self, inputs: Any, z: Tensor) -> None:
        """Learns from inputs and scores ``[n]`` float64, ``n >= 2`` and not all equal."""

    @abstractmethod
    def _predict(self, inputs: Any, return_std: bool) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation of the scores, ``[n]``."""

    def _prior(self, archs: Architectures) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scores before any label, ``[n]``; only with a prior."""
        raise self._needs_labels()

    def _inputs(self, archs: Architectures) -> Any:
        """What :meth:`_fit` and :meth:`_predict` receive for architectures of ``self.space_``."""
        return shared_features(self.space_).table(archs.given)

    def _new_transform(self, maximize: bool) -> LabelTransform:
        """How labels become scores, not fitted."""
        return LabelTransform(self.labels, maximize=maximize)

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """What :meth:`_fit` learned, as tensors and plain types."""

    @abstractmethod
    def _set_state(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`_state`."""

    def _prior_state(self) -> dict[str, Any]:
        """What :meth:`_prior` depends on beside the space, as tensors and plain types."""
        return {}

    def _set_prior_state(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`_prior_state`."""

    # -- scikit-learn -----------------------------------------------------------------------------------------------

    @fixed_defaults
    def fit(self, x: ArchitecturesLike, y: Labels | None = None) -> Self:
        r"""Learns from labelled architectures.

        A fit that fails leaves the predictor as it was.

        Args:
            x: ``n`` architectures, at least one unless the predictor has a prior.
            y: Their labels, ``[n]``. (default: those that the data set or the graphs carry)

        Raises:
            InvalidLabelsError: If there is no label and no prior, a label is NaN or infinite, or there is not one an
                architecture.
            InvalidArchitectureError: If something is not an architecture of the space, or the space is not known.
        """
        before = self.__dict__.copy()
        try:
            self._fit_all(x, y)
        except BaseException:
            self.__dict__ = before
            raise
        return self

    def _fit_all(self, x: ArchitecturesLike, y: Labels | None) -> None:
        archs = as_architectures(x, self.space)
        values = self._check_labels(labels_of(x) if y is None else y, len(archs))
        self._fit_labels(archs, values, maximize_of(x) if self.maximize is None else self.maximize)

    def _fit_labels(self, archs: Architectures, values: Tensor, maximize: bool) -> None:
        transform = self._new_transform(maximize)
        z = transform.fit(values)
        self.space_ = archs.space
        self.labels_, self.transform_ = values, transform
        if transform.labelled:
            inputs = self._inputs(archs)
            if transform.informative:
                self._fit(inputs, z)
        self.space_name_, self.feature_names_ = archs.space.name, shared_features(archs.space).signature

    def _check_labels(self, y: Labels, count: int) -> Tensor:
        values = check_labels(y, count, least=int(count > 0))
        if values.numel() == 0 and not self.has_prior:
            raise self._needs_labels()
        return values

    def _needs_labels(self) -> InvalidLabelsError:
        return InvalidLabelsError(
            f"there are no labels; {type(self).__name__} needs at least 1 labelled architecture. Without any, take "
            f"ConvNPPredictor or BankPredictor, which have a prior"
        )

    @property
    def labelled(self) -> bool:
        r"""Whether predictions are on the scale of labels; false before the first label, when they are standard scores.

        Example:
            >>> from pyg_nas_np.convnp import BankPredictor
            >>> from pyg_nas_np.spaces import NASBench201Space
            >>> predictor = BankPredictor(NASBench201Space())
            >>> predictor.labelled, predictor.predict(torch.tensor([6111])).item() > 0
            (False, True)
        """
        return hasattr(self, "transform_") and self.transform_.labelled

    def _ready(self) -> Self:
        """The predictor, or where it was never fitted but has prior and space, a copy that was fitted to no label."""
        if hasattr(self, "transform_") or self.space is None or not self.has_prior:
            return self
        return self.__sklearn_clone__().fit([])

    @overload
    def predict(self, x: ArchitecturesLike, return_std: Literal[False] = False) -> Tensor: ...
    @overload
    def predict(self, x: ArchitecturesLike, return_std: Literal[True]) -> tuple[Tensor, Tensor]: ...
    @fixed_defaults
    def predict(self, x: ArchitecturesLike, return_std: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        r"""Predicts the labels of architectures.

        Args:
            x: ``n`` architectures.
            return_std: Whether to also return standard deviations of a new measurement, noise included.

        Returns:
            Labels ``[n]`` float64, or labels and their standard deviations; standard scores before the first label.

        Raises:
            InvalidArchitectureError: If something is not an architecture of the space.
            sklearn.exceptions.NotFittedError: Before :meth:`fit`, without a space or a prior.
        """
        fitted = self._ready()
        score, score_std = fitted._scores(x, return_std)
        mean, std = fitted.transform_.inverse(score, score_std)
        return mean if std is None else (mean, std)

    @fixed_defaults
    def predict_scores(self, x: ArchitecturesLike) -> tuple[Tensor, Tensor]:
        r"""Predicts standardised scores instead of labels: the scale on which the prediction is Gaussian.

        Larger scores are better, also if labels are minimised.

        Args:
            x: ``n`` architectures.

        Returns:
            Means and standard deviations (noise included) ``[n]`` float64; 0 and 1 if the labels have no scale.

        Raises:
            InvalidArchitectureError: If something is not an architecture of the space.
            sklearn.exceptions.NotFittedError: Before :meth:`fit`, without a space or a prior.
        """
        mean, std = self._ready()._scores(x, True)
        assert std is not None
        return mean.double(), std.double()

    @fixed_defaults
    def _scores(self, x: ArchitecturesLike, return_std: bool) -> tuple[Tensor, Tensor | None]:
        archs = self._known(x)
        if not self.transform_.labelled and len(archs) > 0:
            mean, std = self._prior(archs)
            return mean, std if return_std else None
        if self.transform_.informative and len(archs) > 0:
            return self._predict(self._inputs(archs), return_std)
        score = torch.zeros(len(archs), dtype=torch.float64, device="cpu")
        return score, torch.ones_like(score) if return_std else None

    def _known(self, x: ArchitecturesLike) -> Architectures:
        """The architectures, after a check that the predictor fits their space."""
        check_is_fitted(self, "transform_")
        archs = as_architectures(x, getattr(self, "space_", None))
        if archs.space.name != self.space_name_:
            raise InvalidArchitectureError(
                f"the predictor was fitted on {self.space_name_}, the architectures are of {archs.space.name}"
            )
        if shared_features(archs.space).signature != self.feature_names_:
            raise DataFileError(
                f"the predictor was saved by a version with other meta-features of {self.space_name_}, or fitted with "
                f"another pool of it, by which features are standardised; fit it again"
            )
        self.space_ = archs.space
        return archs

    def score(self, x: ArchitecturesLike, y: Labels | None = None) -> float:
        r"""Returns Kendall's :math:`\tau_b` between predictions and labels; 0 if either is constant."""
        values = check_labels(labels_of(x) if y is None else y)
        return float(kendall_tau(self.predict(x), values, undefined=0.0))

    def __sklearn_clone__(self) -> Self:
        # A space is shared, not copied: it is immutable, may be large, and owns the cached features.
        return type(self)(**self.get_params(deep=False))

    # -- files ------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        r"""Writes the fitted predictor as tensors and plain types; atomically.

        Its space is written too if it can be declared (:meth:`SearchSpace.declaration
        <pyg_nas_np.spaces.SearchSpace.declaration>`): one that was inferred from records, for example.

        Raises:
            sklearn.exceptions.NotFittedError: Before :meth:`fit`.
            UnwritableFileError: If the disk is full, or the folder cannot be written.
        """
        write_state(path, self._whole_state())

    def _whole_state(self) -> dict[str, Any]:
        """All that :meth:`save` writes."""
        check_is_fitted(self, "transform_")
        # A predictor that was read from a file may not have met its space yet.
        declared = self.space_.declaration() if hasattr(self, "space_") else None
        return {
            "format": FORMAT,
            "class": type(self).__name__,
            "params": self._plain_params(),
            "space": self.space_name_,
            "declared": declared or {},
            "features": self.feature_names_,
            "labels": self.labels_,
            "maximize": self.transform_.maximize,
            "state": self._state() if self.transform_.informative else self._prior_state(),
        }

    @classmethod
    @fixed_defaults
    def load(cls, path: str | os.PathLike[str], space: SearchSpace[Any] | None = None) -> Self:
        r"""Reads a predictor written by :meth:`save`; runs no code from the file.

        Args:
            path: The file.
            space: The search space. (default: the one in the file, or that of the data set to predict)

        Raises:
            DataFileError: If the file is missing or damaged, does not hold a predictor of this class, or its state does
                not fit the class.
            InvalidArchitectureError: If :obj:`space` is not that of the predictor.
        """
        state = read_state(path, "a saved predictor", _ENTRIES, form=FORMAT, cure="fit and save it again")
        name = os.fspath(path)
        found = known_class(state["class"])
        if not issubclass(found, cls):
            raise DataFileError(f"{name} holds a {state['class']}, which is not a known {cls.__name__}")
        if space is not None and space.name != state["space"]:
            raise InvalidArchitectureError(f"{name} was fitted on {state['space']}, not on {space.name}")
        with foreign_file(name, f"a saved {state['class']}", "fit and save it again"):
            return found._of_whole_state(state, space)

    @classmethod
    def _of_whole_state(cls, state: dict[str, Any], space: SearchSpace[Any] | None) -> Self:
        """Inverse of :meth:`_whole_state`."""
        predictor = cls._from_plain_params(space, state["params"])
        if space is not None:
            predictor.space_ = space
        elif state["declared"]:
            predictor.space_ = declared_space(state["declared"])
        predictor.space_name_, predictor.feature_names_ = state["space"], state["features"]
        predictor.labels_ = check_labels(state["labels"], state["labels"].numel(), least=int(not cls.has_prior))
        predictor.transform_ = predictor._new_transform(state["maximize"])
        predictor.transform_.fit(predictor.labels_)
        if predictor.transform_.informative:
            predictor._set_state(state["state"])
        else:
            predictor._set_prior_state(state["state"])
        return predictor

    def _plain_params(self) -> dict[str, Any]:
        """The parameters without the space and the device, as plain types."""
        params: dict[str, Any] = self.get_params(deep=False)
        del params["space"]
        # A file may be read on another machine.
        params.pop("device", None)
        return params

    @classmethod
    def _from_plain_params(cls, space: SearchSpace[Any] | None, params: dict[str, Any]) -> Self:
        """Inverse of :meth:`_plain_params`."""
        return cls(space, **params)


def known_class(name: str) -> type[Predictor]:
    r"""Returns the predictor class of a name found in a file.

    Raises:
        DataFileError: If no class of this name is defined; import the module that defines it.
    """
    if name not in Predictor._classes:
        raise DataFileError(
            f"the file holds a {name}, which is not a known predictor; import the module that defines it"
        )
    return Predictor._classes[name]
