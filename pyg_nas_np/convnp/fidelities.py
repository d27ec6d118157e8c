r"""A predictor of full trainings that learns from cheap ones too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from sklearn.ensemble import ExtraTreesRegressor
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.convnp.bank import Bank, mixture
from pyg_nas_np.convnp.bank_predictor import bank_of, space_bank
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.predictors.inputs import Architectures, ArchitecturesLike, as_architectures, labels_of, maximize_of
from pyg_nas_np.predictors.joint import JointSamples
from pyg_nas_np.predictors.kernels import Kernel, Linear, Stationary
from pyg_nas_np.predictors.labels import Labels, LabelScale, check_deviations, check_labels
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.base import EnumerableSpace
from pyg_nas_np.utils import InvalidFidelityError, seeded
from pyg_nas_np.utils.defaults import fixed_defaults

SLOPE = 0.7
"""Slope of the scores along those of the level below that is expected before any label."""

WEIGHT = 3.0
"""Number of labels that this expectation counts as."""


Scores = tuple[Tensor, Tensor]
"""Means and variances of the scores of ``m`` architectures at one level, ``[m]`` float64 each."""


class FidelityBank(Bank):
    r"""The bank of a space with two more inputs, mean and variance of the score at the level below.

    Every Gaussian process gets a linear and a radial kernel of the mean, the trees split on it, and all predict the
    difference from a prior mean that is proportional to it. The factor is found by ridge regression around
    :data:`SLOPE`; its square times the variance adds to those of all members.

    Args:
        inner: The bank of the space, not fitted.
        column: Column of the mean; the variance stands behind it. (default: there is no level below)
        alone: Whether the Gaussian process that gives samples their correlations is the only member.
    """

    slope = 0.0
    """The factor of the prior mean."""

    centre = 0.0
    """Mean of the scores below over the context."""

    def __init__(self, inner: Bank, column: int | None = None, *, alone: bool = False) -> None:
        super().__init__(max_iter=inner.max_iter, num_trees=inner.num_trees)
        self.inner, self.column, self.alone = inner, column, alone
        self.noise, self.sampled = inner.noise, inner.sampled

    @property
    def recipes(self) -> dict[str, dict[str, Kernel]]:
        r"""Kernels of each Gaussian process, by name."""
        own: dict[str, Kernel] = {}
        if self.column is not None:
            own = {"below": Stationary([self.column]), "below, linear": Linear([self.column], centre=self.centre)}
        recipes = self.inner.recipes
        return {name: recipes[name] | own for name in ([self.sampled] if self.alone else recipes)}

    @property
    def members(self) -> list[str]:
        r"""Names of the ``K`` members."""
        return [self.sampled] if self.alone else super().members

    @property
    def split_columns(self) -> list[int]:
        r"""Columns that the trees split on."""
        return [*self.inner.split_columns, *([] if self.column is None else [self.column])]

    @property
    def columns(self) -> dict[str, Any]:
        r"""The columns of the bank of the space."""
        return self.inner.columns

    def fit(
        self,
        x: Tensor,
        z: Tensor,
        thetas: Mapping[str, Tensor] | None = None,
        *,
        variances: Tensor | None = None,
        start: Bank | None = None,
    ) -> Self:
        r"""Fits every member; see :meth:`CellBank.fit <pyg_nas_np.convnp.cell_bank.CellBank.fit>`."""
        if self.column is not None:
            below = x[:, self.column].double()
            self.centre = float(below.mean())
            known = below - self.centre
            self.slope = float((known @ z.double() + WEIGHT * SLOPE) / (known @ known + WEIGHT))
            variances = self._from_below(x) if variances is None else variances + self._from_below(x)
        variances = variances if variances is not None and bool(variances.any()) else None
        if self.alone:
            self._trust = 1.0
            self._fit_gps(x, z, thetas, variances, start)
            return self
        super().fit(x, z, thetas, variances=variances, start=start)
        self.context = self._widened(self.context, x)
        return self

    def predict(self, x: Tensor) -> Tensor:
        r"""Returns the moments of the targets ``x`` ``[m, F]``, ``[m, K, 2]``."""
        own = torch.stack(self._gp_moments(x), dim=1).float() if self.alone else super().predict(x)
        return self._widened(own, x)

    def prior(self, x: Tensor) -> Tensor:
        r"""Returns the prior mean at ``x`` ``[m, F]``, ``[m]``."""
        return self.inner.prior(x) if self.column is None else self.slope * (x[:, self.column].double() - self.centre)

    def _prior_of(self, member: str, x: Tensor) -> Tensor:
        return self.inner._prior_of(member, x) if self.column is None else self.prior(x)

    def _from_below(self, x: Tensor) -> Tensor:
        assert self.column is not None
        return self.slope**2 * x[:, self.column + 1].double()

    def _widened(self, moments: Tensor, x: Tensor) -> Tensor:
        if self.column is None:
            return moments
        mean, log_std = moments.unbind(dim=2)
        variance = (2.0 * log_std.double()).exp() + self._from_below(x).unsqueeze(1)
        return torch.stack([mean, 0.5 * variance.log().float()], dim=2)

    def _new_trees(self) -> ExtraTreesRegressor:
        return self.inner._new_trees()


class Measured:
    r"""What was measured at one level, by architecture.

    Args:
        archs: ``n`` labelled architectures, or what :meth:`written` returned.
        z: Their scores, ``[n]``.
        variances: Known variances of the scores, ``[n]``.
    """

    def __init__(self, archs: Architectures | Sequence[int | str], z: Tensor, variances: Tensor) -> None:
        self.space = archs.space if isinstance(archs, Architectures) else None
        self.keys = keys_of(archs) if isinstance(archs, Architectures) else archs
        self.z, self.variances = z, variances

    def pin(self, archs: Architectures, scores: Scores) -> Scores:
        r"""Returns predicted scores with those that were measured in their place.

        Args:
            archs: ``m`` architectures.
            scores: Their predicted scores.
        """
        if self.space is None:
            self.space = archs.space
            self.keys = [self.space.from_str(key) if isinstance(key, str) else key for key in self.keys]
        mean, variance = scores[0].clone(), scores[1].clone()
        keys = keys_of(archs)
        place = [row for row, key in enumerate(keys) if key in self._scores]
        if place:
            known = torch.tensor([self._scores[keys[row]] for row in place], dtype=torch.float64, device="cpu")
            mean[place], variance[place] = known.unbind(dim=1)
        return mean, variance

    @cached_property
    def _scores(self) -> dict[Any, tuple[float, float]]:
        """Mean score and its variance, by architecture."""
        repeats: dict[Any, list[tuple[float, float]]] = {}
        for key, score, variance in zip(self.keys, self.z.tolist(), self.variances.tolist(), strict=True):
            repeats.setdefault(key, []).append((score, variance))
        return {
            key: (sum(z for z, _ in found) / len(found), sum(v for _, v in found) / len(found) ** 2)
            for key, found in repeats.items()
        }

    def written(self) -> list[int | str]:
        r"""Returns the architectures as numbers and strings."""
        if self.space is None:
            return list(self.keys)
        return [key if isinstance(key, int) else self.space.to_str(key) for key in self.keys]


class _Level:
    """What the labels of one level and the posterior of the level below say about this level."""

    def __init__(self, inner: Bank, position: int, measured: Measured, alone: bool) -> None:
        self.inner, self.position, self.measured, self.alone = inner, position, measured, alone

    def fit(self, x: Tensor, below: Scores | None) -> Self:
        return self._condition(_with_below(x, below), None if below is None else x.size(1), None)

    def _condition(self, x: Tensor, column: int | None, thetas: Mapping[str, Tensor] | None) -> Self:
        self.x, self.column = x, column
        self.bank = FidelityBank(self.inner, column, alone=self.alone)
        self.bank.fit(x, self.measured.z, thetas, variances=self.measured.variances)
        return self

    def predict(self, x: Tensor, below: Scores | None) -> Scores:
        mean, std = mixture(self.bank.predict(_with_below(x, below)))
        return mean.double(), std.double().square()

    def state(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "x": self.x,
            "column": self.column,
            "z": self.measured.z,
            "variances": self.measured.variances,
            "keys": self.measured.written(),
            "columns": self.bank.columns,
            "thetas": self.bank.state_dict(),
        }

    @classmethod
    def of(cls, state: Mapping[str, Any], alone: bool) -> Self:
        measured = Measured(state["keys"], state["z"], state["variances"])
        level = cls(bank_of(state["columns"]), state["position"], measured, alone)
        return level._condition(state["x"], state["column"], state["thetas"])


def _with_below(x: Tensor, below: Scores | None) -> Tensor:
    return x if below is None else torch.cat([x, torch.stack(below, dim=1).to(x.dtype)], dim=1)


class FidelityPredictor(JointSamples):
    r"""Predicts labels of full trainings from labels of trainings at several levels of a fidelity.

    A chain from the lowest level up. At each level with labels that differ, the bank of the space (see
    :class:`~pyg_nas_np.convnp.BankPredictor`) is fitted to its labels; where there is a level below, its posterior mean
    :math:`m(x)` is one more input, and the prior mean is :math:`\rho\, m(x)`, with :math:`\rho` by ridge regression
    around :data:`SLOPE` (co-kriging; `Kennedy and O'Hagan, 2000 <https://doi.org/10.1093/biomet/87.1.1>`_). Its
    variance :math:`s^2(x)` adds :math:`\rho^2 s^2(x)` to that of the level. Where the level below was measured,
    :math:`m` is the label and :math:`s` its standard deviation.

    Predictions are of the last level. Without labels there that differ, they rank by the levels below, on the scale of
    the best level that has such labels.

    Args:
        space: The search space. (default: that of the data set)
        fidelity: The levels. (default: every label is one of a full training)
        maximize: Whether larger labels are better. (default: as the data set says, otherwise true)
        labels: How labels of each level become scores, see :data:`~pyg_nas_np.predictors.labels.LabelScale`.
        alone: Whether one Gaussian process stands for the whole bank at each level, which is five times as fast.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space, cells = NASBench201Space(), torch.arange(40)
        >>> flops = space.batch_flops(cells)
        >>> epochs = torch.where(cells < 30, 12, 200)
        >>> predictor = FidelityPredictor(space, fidelity=Fidelity("epochs", (12, 200)))
        >>> predictor.fit(cells, flops, fidelity=epochs).predict(torch.arange(15625)).shape
        torch.Size([15625])
    """

    def __init__(
        self,
        space: SearchSpace[Any] | None = None,
        *,
        fidelity: Fidelity | None = None,
        maximize: bool | None = None,
        labels: LabelScale = "auto",
        alone: bool = False,
    ) -> None:
        super().__init__(space, maximize=maximize, labels=labels)
        self.fidelity = fidelity
        self.alone = alone

    @fixed_defaults
    def fit(
        self,
        x: ArchitecturesLike,
        y: Labels | None = None,
        fidelity: Labels | None = None,
        y_std: Labels | None = None,
    ) -> Self:
        r"""Learns from labelled architectures. A fit that fails leaves the predictor as it was.

        Args:
            x: ``n`` architectures, at least one. The same architecture may occur at several levels, and more than once
                at each.
            y: Their labels, ``[n]``. (default: those that the data set or the graphs carry)
            fidelity: Level of each label, ``[n]``, such as ``[12, 12, 200]``. (default: the last)
            y_std: Standard deviation of each label that is known, ``[n]``: of repeats, or of the mean of some.
                (default: the noise is estimated)

        Raises:
            InvalidLabelsError: If there is no label, one is NaN or infinite, a level is unknown, a standard deviation
                negative, or there is not one of each an architecture.
            InvalidFidelityError: If there are levels, but the predictor has no :obj:`fidelity`.
            InvalidArchitectureError: If something is not an architecture of the space, or the space is not known.
        """
        before = self.__dict__.copy()
        try:
            self._fit_levels(x, y, fidelity, y_std)
        except BaseException:
            self.__dict__ = before
            raise
        return self

    def _fit_levels(
        self, x: ArchitecturesLike, y: Labels | None, fidelity: Labels | None, y_std: Labels | None
    ) -> None:
        archs = as_architectures(x, self.space)
        values = check_labels(labels_of(x) if y is None else y, len(archs))
        std = check_deviations(y_std, values)
        position = positions_of(self, self.fidelity, fidelity, len(archs))
        maximize = maximize_of(x) if self.maximize is None else self.maximize
        self.levels_: list[_Level] = []
        for level in (telling := telling_levels(values, position)):
            rows = position == level
            self._std, self._position = std[rows], level
            self._fit_labels(archs[rows], values[rows], maximize)
        self.missing_ = (0 if self.fidelity is None else self.fidelity.top) - telling[-1]
        del self._std, self._position

    def _inputs(self, archs: Architectures) -> tuple[Architectures, Tensor]:
        return archs, shared_descriptors(self.space_).table(archs.given)

    def _fit(self, inputs: tuple[Architectures, Tensor], z: Tensor) -> None:
        archs, x = inputs
        variances = self.transform_.score_std(self.labels_, self._std).square()
        level = _Level(space_bank(self.space_), self._position, Measured(archs, z, variances), self.alone)
        self.levels_.append(level.fit(x, self._below(archs, x, len(self.levels_))))

    def _below(self, archs: Architectures, x: Tensor, count: int) -> Scores | None:
        """The posterior of the last of the first ``count`` levels, exact where it was measured."""
        scores: Scores | None = None
        for level in self.levels_[:count]:
            scores = level.measured.pin(archs, level.predict(x, scores))
        return scores

    def _predict(self, inputs: tuple[Architectures, Tensor], return_std: bool) -> tuple[Tensor, Tensor | None]:
        archs, x = inputs
        scores = self.levels_[-1].predict(x, self._below(archs, x, len(self.levels_) - 1))
        mean, variance = above(scores, self.missing_)
        return mean, variance.sqrt() if return_std else None

    @fixed_defaults
    def outlook(self, x: ArchitecturesLike) -> tuple[Tensor, Tensor, Tensor]:
        r"""Predicts scores, and says how much of their variance a label at each level would remove.

        Args:
            x: ``n`` architectures.

        Returns:
            Means and standard deviations as of :meth:`predict_scores`, ``[n]``, and shares between 0 and 1, ``[n, L]``:
            0 where a level was measured, or has no labels that differ; 1 at the last.

        Raises:
            InvalidFidelityError: If the predictor has no :obj:`fidelity`.
            sklearn.exceptions.NotFittedError: Before :meth:`fit`.
        """
        if self.fidelity is None:
            raise InvalidFidelityError("the predictor has no levels; take FidelityPredictor(fidelity=Fidelity(...))")
        archs = self._known(x)
        shares = torch.zeros(len(archs), self.fidelity.top + 1, dtype=torch.float64, device="cpu")
        shares[:, -1] = 1.0
        if not self.transform_.informative or len(archs) == 0:
            mean, std = self.predict_scores(archs)
            return mean, std, shares
        table = self._inputs(archs)[1]
        scores: Scores | None = None
        for level in self.levels_:
            shares[:, : level.position] *= level.bank.slope**2
            scores = level.predict(table, scores)
            if level is not self.levels_[-1] or self.missing_:
                pinned = level.measured.pin(archs, scores)
                shares[:, level.position] = pinned[1]
                scores = pinned if level is not self.levels_[-1] else scores
        assert scores is not None
        shares[:, :-1] *= SLOPE ** (2 * self.missing_)
        mean, variance = above(scores, self.missing_)
        shares[:, :-1] /= variance.unsqueeze(1)
        return mean, variance.sqrt(), shares

    @fixed_defaults
    def sample_scores(self, x: ArchitecturesLike, num: int = 1, generator: torch.Generator | None = None) -> Tensor:
        r"""Draws joint samples, see :meth:`JointSamples.sample_scores
        <pyg_nas_np.predictors.JointSamples.sample_scores>`.

        The correlations are those of one Gaussian process of the last level with labels; means and standard deviations
        are those of the predictor.
        """
        archs = self._known(x)
        mean, std = self.predict_scores(archs)
        if not self.transform_.informative or len(archs) == 0:
            return mean.expand(num, -1)
        table = self._inputs(archs)[1]
        inputs = _with_below(table, self._below(archs, table, len(self.levels_) - 1))
        bank = self.levels_[-1].bank
        total = bank.gp.predict(inputs)[1]
        assert total is not None
        noise = (total.square() - bank.gp.variance(inputs)).clamp_min(0.0)
        deviation = bank.sample(inputs, num, seeded(0) if generator is None else generator)
        return mean + (std.square() - noise).clamp_min(0.0).sqrt() * deviation

    # -- files ------------------------------------------------------------------------------------------------------

    def _plain_params(self) -> dict[str, Any]:
        params = super()._plain_params()
        return {**params, "fidelity": None if self.fidelity is None else self.fidelity.to_dict()}

    @classmethod
    def _from_plain_params(cls, space: SearchSpace[Any] | None, params: dict[str, Any]) -> Self:
        declared = params.pop("fidelity")
        return cls(space, **params, fidelity=None if declared is None else Fidelity(**declared))

    def _state(self) -> dict[str, Any]:
        return {"missing": self.missing_, "levels": [level.state() for level in self.levels_]}

    def _set_state(self, state: dict[str, Any]) -> None:
        self.missing_ = state["missing"]
        self.levels_ = [_Level.of(level, self.alone) for level in state["levels"]]


def keys_of(archs: Architectures) -> Sequence[Any]:
    r"""Returns what tells architectures apart: their official index, if there is one, else themselves."""
    space = archs.space
    indexed = isinstance(space, EnumerableSpace) and space.size <= torch.iinfo(torch.long).max
    return archs.index.tolist() if indexed else list(archs.given)


def telling_levels(values: Tensor, position: Tensor) -> list[int]:
    r"""Returns the positions of the levels whose labels differ; where there are none, of the last with a label.

    Args:
        values: Labels, ``[n]``.
        position: Position of the level of each, ``[n]``.
    """
    present = position.unique().tolist()
    return [level for level in present if bool(values[position == level].diff().any())] or present[-1:]


def positions_of(predictor: Predictor, declared: Fidelity | None, levels: Labels | None, count: int) -> Tensor:
    r"""Returns the positions of the levels of ``n`` labels, int64 ``[n]``: by default the last.

    Args:
        predictor: Whose labels they are.
        declared: Its fidelity.
        levels: Level of each label, ``[n]``.
        count: ``n``.

    Raises:
        InvalidFidelityError: If there are levels, but none are declared.
        InvalidLabelsError: If a level is unknown, or there is not one for each label.
    """
    if declared is None:
        if levels is not None:
            raise InvalidFidelityError(
                f"labels have levels, but the predictor does not know them; take "
                f"{type(predictor).__name__}(fidelity=Fidelity('epochs', (12, 200)))"
            )
        return torch.zeros(count, dtype=torch.long, device="cpu")
    if levels is None:
        return torch.full((count,), declared.top, device="cpu")
    return declared.positions(levels, count)


def above(scores: Scores, levels: int) -> Scores:
    r"""Returns what scores tell of a level that is a number of levels above theirs, without a label there.

    Args:
        scores: Means and variances.
        levels: How many levels above.
    """
    mean, variance = scores
    for _ in range(levels):
        mean, variance = SLOPE * mean, SLOPE**2 * variance + 1.0 - SLOPE**2
    return mean, variance
