r"""Learning curves of many trainings: values per epoch, direction, and features of each configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyg_nas_np.utils import InvalidCurvesError

Direction = Literal["up", "down"]
Floats: TypeAlias = NDArray[np.float64]
Index: TypeAlias = "slice | Sequence[int] | Sequence[bool] | NDArray[Any]"


@dataclass(frozen=True, eq=False)
class LearningCurves:
    r"""Validation curves of ``N`` configurations over the same ``T`` epochs; ragged ends and gaps are NaN.

    A value is finite (measured), NaN (not measured, or not yet) or infinite (the training diverged there). The arrays
    are NumPy's, because the regressors on curves are scikit-learn's.

    Args:
        values: ``[N, T]``.
        direction: ``"up"`` where more is better (accuracy), ``"down"`` where less is (loss, perplexity).
        epochs: ``T`` strictly increasing epoch numbers. (default: 1 to ``T``)
        architecture: Numbers that describe the architectures, name to ``[N]``.
        hyperparameters: Numbers that describe the trainings, name to ``[N]``.
        configs: ``N`` names of the configurations. (default: their positions)

    Raises:
        InvalidCurvesError: If shapes disagree, epochs do not increase, a feature is not finite, or the direction is
            neither.

    Example:
        >>> nan = float("nan")
        >>> curves = LearningCurves([[0.2, 0.4, 0.5], [0.1, nan, nan], [0.3, 0.6, 0.7]])
        >>> curves
        LearningCurves(3 configurations x 3 epochs, 2 finished, up)
        >>> curves.lengths.tolist(), curves.final.tolist()
        ([3, 1, 3], [0.5, nan, 0.7])
    """

    values: Floats
    direction: Direction = "up"
    epochs: tuple[int, ...] = ()
    architecture: Mapping[str, Floats] = field(default_factory=dict)
    hyperparameters: Mapping[str, Floats] = field(default_factory=dict)
    configs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            values = np.array(self.values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidCurvesError(f"values must be numbers, one row a configuration: {error}") from error
        if values.ndim != 2 or values.shape[1] == 0:
            raise InvalidCurvesError(f"values must have shape [configurations, epochs] but have {list(values.shape)}")
        if self.direction not in ("up", "down"):
            raise InvalidCurvesError(f"direction must be 'up' or 'down' but is {self.direction!r}")
        count, length = values.shape
        epochs = tuple(int(e) for e in self.epochs) or tuple(range(1, length + 1))
        if len(epochs) != length:
            raise InvalidCurvesError(f"{len(epochs)} epochs for values of {length} columns")
        for before, after in pairwise(epochs):
            if after <= before:
                raise InvalidCurvesError(f"epochs must increase strictly, but {after} follows {before}")
        configs = tuple(self.configs) or tuple(str(i) for i in range(count))
        if len(configs) != count:
            raise InvalidCurvesError(f"{len(configs)} names for {count} configurations")
        values.flags.writeable = False
        for name, value in (
            ("values", values),
            ("epochs", epochs),
            ("configs", configs),
            ("architecture", _columns(self.architecture, count, configs)),
            ("hyperparameters", _columns(self.hyperparameters, count, configs)),
        ):
            object.__setattr__(self, name, value)

    # -- measurements -----------------------------------------------------------------------------------------------

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        r"""Whether a finite value was measured, ``[N, T]``."""
        return np.isfinite(self.values)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        r"""Number of columns that each training has passed, measured or diverged, int64 ``[N]``."""
        seen = ~np.isnan(self.values)
        return np.where(seen.any(1), self.values.shape[1] - seen[:, ::-1].argmax(1), 0)

    @cached_property
    def diverged(self) -> NDArray[np.bool_]:
        r"""Whether a training has become infinite, ``[N]``."""
        return np.asarray(np.isinf(self.values).any(1))

    @property
    def finished(self) -> NDArray[np.bool_]:
        r"""Whether the last epoch was measured and nothing diverged, ``[N]``."""
        return np.asarray(self.mask[:, -1] & ~self.diverged)

    @property
    def final(self) -> Floats:
        r"""Values at the last epoch, ``[N]``; NaN if a training is not finished."""
        return np.where(self.finished, self.values[:, -1], np.nan)

    @property
    def sign(self) -> float:
        r"""1 if more is better, otherwise -1, so that ``sign * values`` is to be maximised."""
        return 1.0 if self.direction == "up" else -1.0

    @property
    def looks_reversed(self) -> bool:
        r"""Whether nine in ten of at least ten finished trainings end worse than they began.

        If so, :attr:`direction` is probably wrong.
        """
        done = self[self.finished & (self.lengths > 1)]
        if len(done) < 10 or done.values.shape[1] < 2:
            return False
        gain = done.sign * (done.values[:, -1] - done.observed(done.values.shape[1])[:, 0])
        return bool((gain < 0).mean() > 0.9)

    def prefix(self, fraction: float) -> int:
        r"""Returns the number of columns after a fraction of the training, rounded down, at least 1.

        The fraction is that of the last epoch's number; an epoch 0, the untrained network, is counted in addition.

        Example:
            >>> LearningCurves(np.zeros((1, 50))).prefix(0.25)
            12
        """
        if not 0.0 < fraction <= 1.0:
            raise InvalidCurvesError(f"fraction must lie in (0, 1] but is {fraction}")
        return max(1, sum(epoch <= fraction * self.epochs[-1] + 1e-9 for epoch in self.epochs))

    def observed(self, tau: int) -> Floats:
        r"""Returns the first :obj:`tau` columns without gaps, ``[N, tau]``.

        A missing value repeats the previous one, so that no later value is used; missing values before the first
        measured one repeat the latter. Divergence counts as missing.

        Raises:
            InvalidCurvesError: If :obj:`tau` is not between 1 and ``T``, or nothing was measured in a prefix.
        """
        if not 1 <= tau <= self.values.shape[1]:
            raise InvalidCurvesError(f"tau must lie in [1, {self.values.shape[1]}] but is {tau}")
        mask = self.mask[:, :tau]
        if not mask.any(1).all():
            config = self.configs[int((~mask.any(1)).argmax())]
            raise InvalidCurvesError(f"configuration '{config}' has no finite value in its first {tau} epochs")
        source = np.maximum.accumulate(np.where(mask, np.arange(tau), -1), axis=1)
        source = np.where(source < 0, mask.argmax(1)[:, None], source)
        return np.take_along_axis(self.values[:, :tau], source, axis=1)

    def equals(self, other: LearningCurves) -> bool:
        r"""Returns whether both have the same epochs, direction, features and values; names are ignored."""
        return (
            (self.epochs, self.direction) == (other.epochs, other.direction)
            and np.array_equal(self.values, other.values, equal_nan=True)
            and all(
                list(mine) == list(theirs) and all(np.array_equal(mine[name], theirs[name]) for name in mine)
                for mine, theirs in (
                    (self.architecture, other.architecture),
                    (self.hyperparameters, other.hyperparameters),
                )
            )
        )

    # -- parts ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def __getitem__(self, index: Index) -> LearningCurves:
        rows = np.arange(len(self))[np.asarray(index) if not isinstance(index, slice) else index]
        rows = np.atleast_1d(rows)
        return LearningCurves(
            self.values[rows],
            self.direction,
            self.epochs,
            {name: column[rows] for name, column in self.architecture.items()},
            {name: column[rows] for name, column in self.hyperparameters.items()},
            tuple(self.configs[i] for i in rows.tolist()),
        )

    def truncate(self, tau: int) -> LearningCurves:
        r"""Returns the same configurations with only their first :obj:`tau` epochs measured; ``T`` stays.

        Example:
            >>> LearningCurves([[0.2, 0.4, 0.5]]).truncate(2).lengths
            array([2])
        """
        values = self.values.copy()
        values[:, tau:] = np.nan
        return self.with_values(values)

    def with_values(self, values: Floats) -> LearningCurves:
        r"""Returns the same configurations with other values ``[N, T]``."""
        return LearningCurves(
            values, self.direction, self.epochs, self.architecture, self.hyperparameters, self.configs
        )

    def unique(self) -> LearningCurves:
        r"""Returns the curves without duplicates (same features and values).

        Duplicates on both sides of a split would leak.
        """
        columns = [*self.architecture.values(), *self.hyperparameters.values()]
        table = np.nan_to_num(np.column_stack([self.values, *columns]), nan=-1.2345678e300)
        _, first = np.unique(table, axis=0, return_index=True)
        return self[np.sort(first)]

    @classmethod
    def concat(cls, parts: Sequence[LearningCurves]) -> LearningCurves:
        r"""Concatenates curves of the same epochs, direction and features.

        Raises:
            InvalidCurvesError: If they disagree, or there is none.
        """
        if not parts:
            raise InvalidCurvesError("nothing to join")
        first = parts[0]
        for part in parts[1:]:
            if (part.epochs, part.direction) != (first.epochs, first.direction):
                raise InvalidCurvesError(
                    f"curves over {len(part.epochs)} epochs ({part.direction}) cannot be joined with curves over "
                    f"{len(first.epochs)} ({first.direction})"
                )
            for group in ("architecture", "hyperparameters"):
                names, expected = list(getattr(part, group)), list(getattr(first, group))
                if names != expected:
                    raise InvalidCurvesError(f"{group} {names} cannot be joined with {expected}")
        return cls(
            np.concatenate([part.values for part in parts]),
            first.direction,
            first.epochs,
            {name: np.concatenate([part.architecture[name] for part in parts]) for name in first.architecture},
            {name: np.concatenate([part.hyperparameters[name] for part in parts]) for name in first.hyperparameters},
            tuple(config for part in parts for config in part.configs),
        )

    def __repr__(self) -> str:
        count, length = self.values.shape
        return (
            f"LearningCurves({count} configurations x {length} epochs, {int(self.finished.sum())} finished, "
            f"{self.direction})"
        )


def _columns(given: Mapping[str, ArrayLike], count: int, configs: Sequence[str]) -> dict[str, Floats]:
    columns = {}
    for name, column in given.items():
        array = np.array(column, dtype=np.float64)
        if array.shape != (count,):
            raise InvalidCurvesError(f"feature '{name}' has shape {list(array.shape)}, expected [{count}]")
        if not np.isfinite(array).all():
            raise InvalidCurvesError(
                f"feature '{name}' of configuration '{configs[int((~np.isfinite(array)).argmax())]}' is not finite"
            )
        array.flags.writeable = False
        columns[name] = array
    return columns
