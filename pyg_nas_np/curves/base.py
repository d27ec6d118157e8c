r"""The interface of all curve predictors: fit on finished curves, predict final values of running ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, overload

import numpy as np
from scipy.special import ndtr
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

from pyg_nas_np.curves.data import Floats, LearningCurves
from pyg_nas_np.utils import InvalidCurvesError


def gaussian_below(gap: Floats, std: Floats) -> Floats:
    r"""Returns the probability that Gaussian errors of a standard deviation are below gaps.

    With zero standard deviation, an exact tie has probability one half.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z = np.where(gap == 0.0, 0.0, gap / std)
    return np.asarray(ndtr(z))


class CurvePredictor(BaseEstimator, ABC):  # type: ignore[misc]
    r"""Predicts the final value of running trainings from their first epochs.

    Predictions are on the scale of the curves. Standard deviations are those of the final value given the observed
    epochs, its noise included. If all finished trainings end at the same value, every prediction is that value with
    standard deviation 0.

    Subclasses implement :meth:`_fit` and :meth:`_predict`.
    """

    minimum = 3
    """Number of finished curves that :meth:`fit` needs."""

    uses_stopped = False
    """Whether :meth:`fit` uses unfinished curves too, and uncertainties hold from :attr:`minimum` finished ones on."""

    @abstractmethod
    def _fit(self, curves: LearningCurves) -> None:
        """Learns from finished curves whose final values are not all equal."""

    @abstractmethod
    def _predict(self, curves: LearningCurves, tau: int) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the final values, ``[n]``, from the first :obj:`tau` columns."""

    def fit(self, curves: LearningCurves) -> Self:
        r"""Learns from the finished curves; unfinished and diverged ones are ignored.

        Raises:
            InvalidCurvesError: If fewer than :attr:`minimum` are finished.
        """
        if not isinstance(curves, LearningCurves):
            raise InvalidCurvesError(f"fit takes LearningCurves, got {type(curves).__name__}; make them of the values")
        done = curves[curves.finished]
        if len(done) < self.minimum:
            state = "all of them diverged" if len(curves) and curves.diverged.all() else "train more to the end"
            raise InvalidCurvesError(
                f"{type(self).__name__} needs {self.minimum} curves that reach epoch {curves.epochs[-1]}, but only "
                f"{len(done)} of {len(curves)} do: {state}"
            )
        self.curves_ = done
        self.constant_ = bool(np.ptp(done.final) == 0.0)
        if not self.constant_:
            self._fit(done)
        return self

    @overload
    def predict(self, curves: LearningCurves, tau: int | None = None, return_std: Literal[False] = False) -> Floats: ...
    @overload
    def predict(
        self, curves: LearningCurves, tau: int | None = None, *, return_std: Literal[True]
    ) -> tuple[Floats, Floats]: ...
    def predict(
        self, curves: LearningCurves, tau: int | None = None, return_std: bool = False
    ) -> Floats | tuple[Floats, Floats]:
        r"""Predicts final values.

        Args:
            curves: Trainings, with the epochs and features of :meth:`fit`.
            tau: Number of columns to use; later values are ignored. (default: all that each training has)
            return_std: Whether to return standard deviations too.

        Returns:
            Final values ``[n]``, or these and their standard deviations.

        Raises:
            InvalidCurvesError: If epochs, direction or features differ from those of the finished curves, a curve
                is shorter than :obj:`tau`, or has no finite value.
            sklearn.exceptions.NotFittedError: Before :meth:`fit`.
        """
        check_is_fitted(self, "curves_")
        self._check_like(curves)
        if tau is not None and (curves.lengths < tau).any():
            worst = int(curves.lengths.argmin())
            raise InvalidCurvesError(
                f"configuration '{curves.configs[worst]}' has {curves.lengths[worst]} epochs, fewer than tau = {tau}; "
                f"leave tau out to use what each has"
            )
        lengths = curves.lengths if tau is None else np.full(len(curves), tau)
        mean, std = np.empty(len(curves)), np.zeros(len(curves))
        for length in np.unique(lengths).tolist():
            rows = np.flatnonzero(lengths == length)
            part = curves[rows]
            observed = part.observed(length)  # Raises if nothing was measured.
            if length == len(curves.epochs):
                mean[rows] = observed[:, -1]
            elif self.constant_:
                mean[rows] = self.curves_.final[0]
            else:
                mean[rows], std[rows] = self._predict(part.truncate(length), length)
        return (mean, std) if return_std else mean

    def probability_not_better(self, curves: LearningCurves, value: float, tau: int | None = None) -> Floats:
        r"""Returns the probability that final values are not better than a value, ``[n]``.

        It is that of a Gaussian with the moments of :meth:`predict`, whose arguments and errors it shares.

        Example:
            >>> from pyg_nas_np.curves import LastSeenValue
            >>> curves = LearningCurves([[0.2, 0.4, 0.5], [0.1, 0.3, 0.3], [0.3, 0.6, 0.7]])
            >>> LastSeenValue().fit(curves).probability_not_better(curves, 0.5, tau=2).round(2)
            array([0.89, 0.99, 0.11])
        """
        mean, std = self.predict(curves, tau, return_std=True)
        return gaussian_below(curves.sign * (value - mean), std)

    def score(self, curves: LearningCurves, tau: int) -> float:
        r"""Returns :math:`R^2` of the predictions at :obj:`tau` for finished curves."""
        final = curves.final
        if np.isnan(final).any():
            raise InvalidCurvesError("a score needs curves that are all finished")
        total = np.square(final - final.mean()).sum()
        return float(1.0 - np.square(final - self.predict(curves, tau)).sum() / total)

    def _context(self, tau: int) -> LearningCurves:
        """The finished curves with a value among the first :obj:`tau`; others would have to use a later one."""
        known = self.curves_[np.asarray(self.curves_.mask[:, :tau].any(1))]
        if len(known) < self.minimum:
            raise InvalidCurvesError(
                f"{type(self).__name__} needs {self.minimum} finished curves with a value among their first {tau}, but "
                f"only {len(known)} of {len(self.curves_)} have one"
            )
        return known

    def _check_like(self, curves: LearningCurves) -> None:
        for name, mine, theirs in (
            ("epochs", self.curves_.epochs, curves.epochs),
            ("direction", self.curves_.direction, curves.direction),
            ("architecture features", list(self.curves_.architecture), list(curves.architecture)),
            ("hyperparameters", list(self.curves_.hyperparameters), list(curves.hyperparameters)),
        ):
            if mine != theirs:
                raise InvalidCurvesError(f"the predictor was fitted on {name} {mine}, the curves have {theirs}")
