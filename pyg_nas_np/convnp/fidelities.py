r"""A predictor of full trainings that learns from cheap ones too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from sklearn.ensemble import ExtraTreesRegressor
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.convnp.bank import Bank, mixture
from pyg_nas_np.convnp.bank_predictor import bank_of, space_bank
from pyg_nas_np.convnp.level_kernels import AlongLevels, LowerNoise, Shared
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.predictors.gaussian_process import GaussianProcess
from pyg_nas_np.predictors.inputs import Architectures, ArchitecturesLike, as_architectures, labels_of, maximize_of
from pyg_nas_np.predictors.joint import JointSamples
from pyg_nas_np.predictors.kernels import Kernel, LogPrior
from pyg_nas_np.predictors.labels import Labels, LabelScale, check_deviations, check_labels
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.base import EnumerableSpace
from pyg_nas_np.utils import InvalidFidelityError, seeded
from pyg_nas_np.utils.defaults import fixed_defaults

SLOPE = 0.7
"""Slope of the scores along those of the level below that is expected before any label."""

WEIGHT = 3.0
"""Number of labels that this expectation counts as."""

PECULIAR = LogPrior(math.log(0.15), 1.0)
"""Prior of the variance of what is peculiar to an architecture and persists from level to level."""

OFFSET = LogPrior(math.log(0.1), 1.0)
"""Prior of the variance of the mean of a level's scores, which are standardised over its own architectures alone."""

LOWER_NOISE = LogPrior(math.log(0.15), 1.2)
"""Prior of the noise variance that the lowest level has more than the highest."""

TRUST, TEMPER = 0.8, 0.5
"""Probability of the joint model before any label, and the power of the likelihoods that change it: held-out errors
are not independent."""

LEAST_DENSITY = -8.0
"""Least log density of a single held-out label."""

LARGEST = 512
"""Number of labels of lower levels that the joint model uses."""

MEAN, VARIANCE, NUMBER, PLACE = range(4)
"""What stands behind the descriptors where there are labels of lower levels; see :meth:`Below.columns`."""

_IGNORING = "ignoring/"


Scores = tuple[Tensor, Tensor]
"""Means and variances of the scores of ``m`` architectures at one level, ``[m]`` float64 each."""


class FidelityBank(Bank):
    r"""The bank of a space with the labels of the levels below: a joint model, and what ignores these labels.

    - **Gaussian processes** of the bank over pairs of an architecture and a level, fitted to the labels of all levels
      at once. Each of their effects is a kernel of the bank, continued to lower levels as
      :class:`~pyg_nas_np.convnp.level_kernels.AlongLevels` says: the labels find how far it persists there, and with
      which sign. What is peculiar to an architecture persists in the same way. Levels have an offset and noise of their
      own. So hyperparameters are known from many cheap labels where full ones are few.
    - **Trees** split on the mean of the score at the level below too, and predict the difference from a prior mean
      proportional to it. The factor is found by ridge regression around :data:`SLOPE`; its square times the variance
      below adds to their variance.
    - **The bank of the space**, fitted to the labels of the level alone.

    Each member is a mixture of two: with the labels below, and without them. The weight is the same for all members. It
    is a posterior probability, from :data:`TRUST` and the held-out density of the labels of the level, tempered by
    :data:`TEMPER`; the Gaussian processes predict a label without any label of the same architecture.

    Args:
        inner: The bank of the space, not fitted.
        below: The labels of lower levels; behind the columns of the bank, inputs have those of :meth:`Below.columns`.
            (default: there are none, and this is the bank of the space)
        alone: Whether the Gaussian process that gives samples their correlations is the only member.
    """

    weight = 0.0
    """Probability of the joint model."""

    slope = 0.0
    """The factor of the prior mean of the trees."""

    centre = 0.0
    """Mean of the scores below over the context."""

    def __init__(self, inner: Bank, below: Below | None = None, *, alone: bool = False) -> None:
        super().__init__(max_iter=inner.max_iter, num_trees=inner.num_trees)
        self.inner, self.below, self.alone = inner, below, alone
        self.noise, self.sampled = inner.noise, inner.sampled
        self.column = None if below is None else below.width
        self.ignoring = None if below is None else FidelityBank(inner, alone=True) if alone else inner

    @property
    def recipes(self) -> dict[str, dict[str, Kernel]]:
        r"""Kernels of each Gaussian process, by name."""
        recipes = self.inner.recipes
        recipes = {name: recipes[name] for name in ([self.sampled] if self.alone else recipes)}
        return recipes if self.column is None else {n: _joint(kernels, self.column) for n, kernels in recipes.items()}

    @property
    def members(self) -> list[str]:
        r"""Names of the ``K`` members."""
        return [self.sampled] if self.alone else super().members

    @property
    def split_columns(self) -> list[int]:
        r"""Columns that the trees split on."""
        return [*self.inner.split_columns, *([] if self.column is None else [self.column + MEAN])]

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
        variances = variances if variances is not None and bool(variances.any()) else None
        if self.column is not None:
            below = x[:, self.column + MEAN].double()
            self.centre = float(below.mean())
            known = below - self.centre
            self.slope = float((known @ z.double() + WEIGHT * SLOPE) / (known @ known + WEIGHT))
        if self.alone:
            self._trust = 1.0
            self._fit_gps(x, z, thetas, variances, start)
            moments = [self._moments(name, x, *self._held_out(name, x)) for name in self.gps]
            self.context = torch.stack(moments, dim=1).float()
        else:
            super().fit(x, z, thetas, variances=variances, start=start)
            self.context[:, -1] = self._widened(self.context[:, -1], x)
        if self.ignoring is not None:
            others = None if thetas is None else _named(thetas)
            first = start.ignoring if isinstance(start, FidelityBank) else None
            self.ignoring.fit(self._own(x), z, others, variances=variances, start=first)
            gain = _likelihood(self.context, z) - _likelihood(self.ignoring.context, z)
            self.weight = float(torch.tensor(TEMPER * gain + math.log(TRUST / (1.0 - TRUST))).sigmoid())
            self.context = self._mixed(self.context, self.ignoring.context)
        return self

    def on(self, device: torch.device) -> Self:
        r"""Returns the bank for predictions of inputs on a device: itself on the CPU, a copy elsewhere."""
        there = super().on(device)
        if there is not self and self.ignoring is not None:
            there.ignoring = self.ignoring.on(device)
        return there

    def predict(self, x: Tensor) -> Tensor:
        r"""Returns the moments of the targets ``x`` ``[m, F]``, ``[m, K, 2]``, on their device; see :meth:`on`."""
        if self.alone:
            own = torch.stack(self._gp_moments(x), dim=1).float()
        else:
            own = super().predict(x)
            own[:, -1] = self._widened(own[:, -1], x)
        # At another place than that of the bank's level, what ignores the other levels knows nothing.
        if self.ignoring is None or bool(x[:, -1].any()):
            return own
        return self._mixed(own, self.ignoring.predict(self._own(x)))

    def removed(self, x: Tensor, place: float) -> Tensor:
        r"""Returns by how much a label at another place reduces the variance of scores, ``[m]``.

        Args:
            x: Inputs, ``[m, F]``.
            place: Place of the label.
        """
        gp, kernels = self.gp, self.gp.kernels.values()
        there = x.clone()
        there[:, -1] = place
        *thetas, log_noise = gp._split(gp.theta)
        prior = torch.zeros(len(x), dtype=torch.float64, device="cpu")
        for kernel, theta in zip(kernels, thetas, strict=True):
            if isinstance(kernel, AlongLevels):
                prior += kernel.from_top(x, place, theta)
        here, other = (
            torch.linalg.solve_triangular(gp.factor, gp.covariance(part).double().t(), upper=False)
            for part in (x, there)
        )
        covariance = prior - (here * other).sum(dim=0)
        variance = gp.diagonal(there) + log_noise.exp() - other.square().sum(dim=0)
        reduction: Tensor = self.weight * covariance.square() / variance.clamp_min(1e-12)
        return reduction

    def state_dict(self) -> dict[str, Tensor]:
        r"""Returns the hyperparameters of the Gaussian processes: with the context, all that :meth:`fit` needs."""
        others = {} if self.ignoring is None else self.ignoring.state_dict()
        return super().state_dict() | {f"{_IGNORING}{name}": theta for name, theta in others.items()}

    def prior(self, x: Tensor) -> Tensor:
        r"""Returns the prior mean of the trees at ``x`` ``[m, F]``, ``[m]``."""
        if self.column is None:
            return self.inner.prior(x)
        return self.slope * (x[:, self.column + MEAN].double() - self.centre)

    def _prior_of(self, member: str, x: Tensor) -> Tensor:
        return self.inner._prior_of(member, x)

    def _fit_gp(
        self,
        gp: GaussianProcess,
        x: Tensor,
        z: Tensor,
        theta: Tensor | None,
        variances: Tensor | None,
        start: Tensor | None,
    ) -> GaussianProcess:
        if self.below is not None:
            x, z, variances = self.below.joined(x, z, variances)
        if theta is None:
            theta = gp.maximize(x, z, variances, start=start)[0]
        return gp.condition(x, z, theta, variances=variances, statistics=gp.statistics(x))

    def _held_out(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each label without any label of the same architecture."""
        gp = self.gps[name]
        if self.column is None:
            return gp.leave_one_out()
        numbers = gp.x[:, self.column + NUMBER]
        inverse, moments = torch.cholesky_inverse(gp.factor), []
        for row in range(len(gp.x) - len(x), len(gp.x)):
            group = (numbers == numbers[row]) if numbers[row] >= 0 else torch.zeros_like(numbers, dtype=torch.bool)
            group[row] = True
            rows = group.nonzero().flatten()
            at = int((rows == row).nonzero())
            covariance = torch.linalg.inv(inverse[rows][:, rows])
            moments.append(torch.stack([gp.z[row] - (covariance @ gp.weights[rows])[at], covariance[at, at].sqrt()]))
        mean, std = torch.stack(moments).unbind(dim=1)
        return mean, std

    def _own(self, x: Tensor) -> Tensor:
        return x[:, : self.column]

    def _mixed(self, joint: Tensor, ignoring: Tensor) -> Tensor:
        """Moments of the mixture of each member's two forms."""
        (a, log_a), (b, log_b) = (part.double().unbind(dim=2) for part in (joint, ignoring))
        share = self.weight
        mean = share * a + (1.0 - share) * b
        variance = share * (2.0 * log_a).exp() + (1.0 - share) * (2.0 * log_b).exp()
        variance += share * (1.0 - share) * (a - b).square()
        return torch.stack([mean, 0.5 * variance.log()], dim=2).float()

    def _widened(self, moments: Tensor, x: Tensor) -> Tensor:
        """Moments of the trees with the variance of the scores below."""
        if self.column is None:
            return moments
        mean, log_std = moments.unbind(dim=1)
        variance = (2.0 * log_std.double()).exp() + self.slope**2 * x[:, self.column + VARIANCE].double()
        return torch.stack([mean, 0.5 * variance.log().float()], dim=1)

    def _new_trees(self) -> ExtraTreesRegressor:
        return self.inner._new_trees()


def _joint(kernels: Mapping[str, Kernel], column: int) -> dict[str, Kernel]:
    """Kernels over pairs of an architecture and a level, from those over architectures."""
    number, place = column + NUMBER, column + PLACE
    return {
        **{name: AlongLevels(kernel, place) for name, kernel in kernels.items()},
        "architecture": AlongLevels(Shared(number, PECULIAR, unknown=-1.0), place),
        "level": Shared(place, OFFSET),
        "noise of lower levels": LowerNoise(place, LOWER_NOISE),
    }


def _likelihood(context: Tensor, z: Tensor) -> float:
    """Log density of held-out labels under the mixture of the members; no label has the whole say."""
    mean, std = (part.double() for part in mixture(context))
    return float((-0.5 * ((z.double() - mean) / std).square() - std.log()).clamp_min(LEAST_DENSITY).sum())


def _named(thetas: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(_IGNORING): theta for name, theta in thetas.items() if name.startswith(_IGNORING)}


class Below:
    r"""The labels of the levels below one, for its bank.

    Args:
        fidelity: The levels.
        position: Position of the level above.
        labels: Position of each level with labels below it, descriptors ``[n, F]`` of its architectures, and what was
            measured; the lowest first.
    """

    def __init__(self, fidelity: Fidelity, position: int, labels: Sequence[tuple[int, Tensor, Measured]]) -> None:
        self.fidelity, self.position, self.labels = fidelity, position, labels
        self.width = labels[0][1].size(1)
        self._known: dict[Any, int] = {}

    def place(self, position: int) -> float:
        r"""Returns the place of a level: 0 at the level of the bank, -1 at the lowest, between them by logarithms."""
        levels = self.fidelity.levels
        reach = math.log(levels[self.position] / levels[0])
        return math.log(levels[position] / levels[self.position]) / reach

    def columns(self, archs: Architectures, scores: Scores) -> Tensor:
        r"""Returns what stands behind the descriptors of architectures, ``[m, 4]`` float32.

        They are mean and variance of the score at the level below, the number of the architecture among those that were
        measured at lower levels (-1 if it was not), and its place (0).

        Args:
            archs: ``m`` architectures.
            scores: Means and variances of their scores at the level below.
        """
        known = self._numbers_in(archs.space)
        numbers = torch.tensor([known.get(key, -1) for key in keys_of(archs)], device="cpu")
        places = torch.zeros(len(archs), device="cpu")
        return torch.stack([*scores, numbers, places], dim=1).float()

    def joined(self, x: Tensor, z: Tensor, variances: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        r"""Returns inputs, scores and variances of the bank's own labels behind those of lower levels."""
        lower, scores, known = self._lower
        own = torch.zeros_like(z) if variances is None else variances
        known = torch.cat([known.double(), own.double()])
        return torch.cat([lower, x.float()]), torch.cat([scores.double(), z.double()]), known if known.any() else None

    def measured_at(self, position: int, archs: Architectures) -> Tensor:
        r"""Returns which architectures were measured at a level, bool ``[m]``."""
        known = {key for at, _, measured in self.labels if at == position for key in measured.keys_in(archs.space)}
        return torch.tensor([key in known for key in keys_of(archs)], dtype=torch.bool, device="cpu")

    def _numbers_in(self, space: SearchSpace[Any]) -> dict[Any, int]:
        """Numbers by what tells architectures of the space apart."""
        if not self._known:
            for _, _, measured in self.labels:
                numbers = (self._numbers[text] for text in measured.written())
                self._known |= zip(measured.keys_in(space), numbers, strict=True)
        return self._known

    @cached_property
    def _numbers(self) -> dict[int | str, int]:
        """Numbers by what is written to files: a predictor that was read from one may not have met its space yet."""
        texts = (text for _, _, measured in self.labels for text in measured.written())
        return {text: number for number, text in enumerate(dict.fromkeys(texts))}

    @cached_property
    def _lower(self) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, scores and variances of at most :data:`LARGEST` labels, the highest of each architecture first."""
        rows, z, variances, rank = [], [], [], []
        seen: dict[int, int] = {}
        for position, x, measured in reversed(self.labels):
            numbers = [self._numbers[text] for text in measured.written()]
            for number in numbers:
                seen[number] = seen.get(number, 0) + 1
                rank.append(seen[number])
            ends = torch.zeros(len(x), 4, device="cpu")
            ends[:, NUMBER] = torch.tensor(numbers, dtype=torch.float32, device="cpu")
            ends[:, PLACE] = self.place(position)
            rows.append(torch.cat([x.float(), ends], dim=1))
            z.append(measured.z)
            variances.append(measured.variances)
        kept = torch.tensor(rank, device="cpu").argsort(stable=True)[:LARGEST]
        return torch.cat(rows)[kept], torch.cat(z)[kept], torch.cat(variances)[kept]


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
        self.keys_in(archs.space)
        mean, variance = scores[0].clone(), scores[1].clone()
        keys = keys_of(archs)
        place = [row for row, key in enumerate(keys) if key in self._scores]
        if place:
            known = torch.tensor([self._scores[keys[row]] for row in place], dtype=torch.float64, device="cpu")
            mean[place], variance[place] = known.unbind(dim=1)
        return mean, variance

    def keys_in(self, space: SearchSpace[Any]) -> Sequence[Any]:
        r"""Returns what tells the architectures apart in their space."""
        if self.space is None:
            self.space = space
            self.keys = [space.from_str(key) if isinstance(key, str) else key for key in self.keys]
        return self.keys

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
    """The labels of one level, and the bank that is fitted to them."""

    def __init__(self, position: int, measured: Measured, x: Tensor, below: Below | None) -> None:
        self.position, self.measured, self.x, self.below = position, measured, x, below

    def fit(self, inner: Bank, alone: bool, thetas: Mapping[str, Tensor] | None = None) -> Self:
        self.bank = FidelityBank(inner, self.below, alone=alone)
        self.bank.fit(self.x, self.measured.z, thetas, variances=self.measured.variances)
        return self

    @property
    def fitted(self) -> bool:
        return hasattr(self, "bank")

    @property
    def descriptors(self) -> Tensor:
        return self.x if self.below is None else self.x[:, : self.below.width]

    def inputs(self, archs: Architectures, x: Tensor, below: Scores | None) -> Tensor:
        if self.below is None:
            return x
        # A single Gaussian process sees the labels below, not what they predict.
        unknown = torch.zeros(len(x), dtype=torch.float64, device="cpu")
        return torch.cat([x, self.below.columns(archs, below or (unknown, unknown))], dim=1)

    def predict(self, inputs: Tensor) -> Scores:
        mean, std = mixture(self.bank.predict(inputs))
        return mean.double(), std.double().square()

    def state(self) -> dict[str, Any]:
        fitted = {"columns": self.bank.columns, "thetas": self.bank.state_dict()} if self.fitted else {}
        return {
            "position": self.position,
            "x": self.x,
            "z": self.measured.z,
            "variances": self.measured.variances,
            "keys": self.measured.written(),
            **fitted,
        }


class FidelityPredictor(JointSamples):
    r"""Predicts labels of full trainings from labels of trainings at several levels of a fidelity.

    A :class:`FidelityBank` is fitted to the labels of the last level and of all levels below. Its Gaussian processes
    are over pairs of an architecture and a level (as co-kriging of `Kennedy and O'Hagan, 2000
    <https://doi.org/10.1093/biomet/87.1.1>`_, and with effects that may change their sign between the levels). Its
    trees see the posterior mean of the level below, for which a bank of the same kind is fitted to that level, and so
    on; where that level was measured, they see the label. How far the levels below are followed at all is decided by
    held-out labels.

    Predictions are of the last level. Without labels there that differ, they continue what changes between the levels
    below, on the scale of the best level that has such labels.

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
            self._std, self._position, self._last = std[rows], level, level == telling[-1]
            self._fit_labels(archs[rows], values[rows], maximize)
        self.missing_ = (0 if self.fidelity is None else self.fidelity.top) - telling[-1]
        del self._std, self._position, self._last

    def _inputs(self, archs: Architectures) -> tuple[Architectures, Tensor]:
        return archs, shared_descriptors(self.space_).table(archs.given)

    def _fit(self, inputs: tuple[Architectures, Tensor], z: Tensor) -> None:
        archs, x = inputs
        measured = Measured(archs, z, self.transform_.score_std(self.labels_, self._std).square())
        scores, below = self._below(archs, x, self.levels_), self._labels_below(self._position)
        level = _Level(self._position, measured, x, below)
        level.x = level.inputs(archs, x, scores)
        # One Gaussian process of all levels needs no predictions of lower ones.
        self.levels_.append(level.fit(space_bank(self.space_), self.alone) if self._last or not self.alone else level)

    def _labels_below(self, position: int) -> Below | None:
        if not self.levels_:
            return None
        assert self.fidelity is not None
        labels = [(level.position, level.descriptors, level.measured) for level in self.levels_]
        return Below(self.fidelity, position, labels)

    def _below(self, archs: Architectures, x: Tensor, levels: Sequence[_Level]) -> Scores | None:
        """The posterior of the last of some levels, exact where it was measured."""
        scores: Scores | None = None
        for level in levels:
            if level.fitted:
                scores = level.measured.pin(archs, level.predict(level.inputs(archs, x, scores)))
        return scores

    def _top_inputs(self, archs: Architectures, x: Tensor) -> Tensor:
        """Inputs of the best level with labels, at the place of the last level."""
        level = self.levels_[-1]
        inputs = level.inputs(archs, x, self._below(archs, x, self.levels_[:-1]))
        return at_top(inputs, level.below)

    def _predict(self, inputs: tuple[Architectures, Tensor], return_std: bool) -> tuple[Tensor, Tensor | None]:
        scores = self.levels_[-1].predict(self._top_inputs(*inputs))
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
        last = self.levels_[-1]
        inputs = self._top_inputs(*self._inputs(archs))
        scores = last.predict(inputs)
        for level in self.levels_[:-1]:
            assert last.below is not None
            removed = last.bank.removed(inputs, last.below.place(level.position))
            shares[:, level.position] = removed.masked_fill(last.below.measured_at(level.position, archs), 0.0)
        if self.missing_:
            shares[:, last.position] = last.measured.pin(archs, scores)[1]
        shares[:, :-1] *= SLOPE ** (2 * self.missing_)
        mean, variance = above(scores, self.missing_)
        shares[:, :-1] = (shares[:, :-1] / variance.unsqueeze(1)).clamp_max(1.0)
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
        inputs, bank = self._top_inputs(*self._inputs(archs)), self.levels_[-1].bank
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
        # The name says which model: files of version 0.2.0 have "levels" of another one.
        return {"missing": self.missing_, "joint levels": [level.state() for level in self.levels_]}

    def _set_state(self, state: dict[str, Any]) -> None:
        self.missing_, self.levels_ = state["missing"], []
        for saved in state["joint levels"]:
            measured = Measured(saved["keys"], saved["z"], saved["variances"])
            level = _Level(saved["position"], measured, saved["x"], self._labels_below(saved["position"]))
            self.levels_.append(
                level.fit(bank_of(saved["columns"]), self.alone, saved["thetas"]) if "thetas" in saved else level
            )


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


def at_top(inputs: Tensor, below: Below | None) -> Tensor:
    r"""Returns inputs at the place of the last level, where labels of two levels or more tell how scores go on.

    Args:
        inputs: Those of the bank of the best level with labels, ``[m, F]``.
        below: The labels below it.
    """
    if below is None or below.position == below.fidelity.top:
        return inputs
    inputs = inputs.clone()
    inputs[:, -1] = below.place(below.fidelity.top)
    return inputs
