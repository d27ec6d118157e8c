r"""Hyperband, and two fast variants with early stopping within its rungs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import ndtr
from sklearn.base import clone

from pyg_nas_np.curves.base import CurvePredictor
from pyg_nas_np.curves.data import Direction, Floats, LearningCurves
from pyg_nas_np.curves.early_stopping import StoppingRule
from pyg_nas_np.curves.sequential import SequentialRegression


class Run(Protocol):
    r"""A training that can be continued.

    It may have a ``description``, features of its configuration by name; either all runs have one or none. The fast
    variants of Hyperband pass them to their predictors.
    """

    def train_to(self, epoch: int) -> Sequence[float] | Floats:
        r"""Trains to a total of :obj:`epoch` epochs and returns the values of all of them."""


class RecordedRun:
    r"""A recorded training.

    Args:
        curves: Finished trainings.
        index: Position of the training.

    Example:
        >>> RecordedRun(LearningCurves([[0.2, 0.4, 0.5]]), 0).train_to(2)
        array([0.2, 0.4])
    """

    def __init__(self, curves: LearningCurves, index: int) -> None:
        self.values = curves.values[index]
        columns = {**curves.architecture, **curves.hyperparameters}
        self.description = {name: float(column[index]) for name, column in columns.items()}

    def train_to(self, epoch: int) -> Floats:
        r"""Returns the first :obj:`epoch` values."""
        return np.asarray(self.values[:epoch])


class Rung(NamedTuple):
    r"""A number of configurations, and the epochs that each of them has been trained for at the end of the rung."""

    configs: int
    epochs: int


@dataclass
class HyperbandResult:
    r"""Result and cost of a run of Hyperband.

    Args:
        best: Number of the configuration with the best value at the full number of epochs.
        value: That value.
        epochs: Total number of epochs.
        curves: Values of every configuration up to its last epoch, by number.
    """

    best: int
    value: float
    epochs: int
    curves: dict[int, Floats] = field(repr=False)


class Hyperband:
    r"""Hyperband (`Li et al., 2018 <https://arxiv.org/abs/1603.06560>`_).

    Bracket :math:`s` starts :math:`\lceil (s_\max + 1)\, \eta^s / (s + 1) \rceil` configurations with
    :math:`R \eta^{-s}` epochs each; after every rung the best :math:`1/\eta` continue with :math:`\eta` times as many
    epochs. Trainings are continued, not repeated.

    Args:
        max_epochs: :math:`R`, epochs of a full training.
        direction: Whether more or less is better.
        eta: :math:`\eta`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> Hyperband(27, "up").brackets()[0]
        [Rung(configs=27, epochs=1), Rung(configs=9, epochs=3), Rung(configs=3, epochs=9), Rung(configs=1, epochs=27)]
    """

    def __init__(self, max_epochs: int, direction: Direction, eta: float = 3.0) -> None:
        if max_epochs < 1 or not eta > 1.0:
            raise ValueError(f"max_epochs must be at least 1 and eta above 1, but they are {max_epochs} and {eta}")
        if direction not in ("up", "down"):
            raise ValueError(f"direction must be 'up' or 'down' but is {direction!r}")
        self.max_epochs, self.direction, self.eta = max_epochs, direction, eta
        self.sign = 1.0 if direction == "up" else -1.0

    def brackets(self) -> list[list[Rung]]:
        r"""Returns the rungs of each bracket, the widest bracket first."""
        # The logarithm of an exact power must not be rounded down.
        most = int(math.log(self.max_epochs) / math.log(self.eta) + 1e-9)
        plan = []
        for s in range(most, -1, -1):
            count = math.ceil((most + 1) / (s + 1) * self.eta**s - 1e-9)
            plan.append(
                [
                    Rung(max(1, int(count * self.eta**-i + 1e-9)), max(1, round(self.max_epochs * self.eta ** (i - s))))
                    for i in range(s + 1)
                ]
            )
        return plan

    @property
    def num_configs(self) -> int:
        r"""Number of configurations that one call of :meth:`search` starts."""
        return sum(bracket[0].configs for bracket in self.brackets())

    def search(self, start: Callable[[int], Run]) -> HyperbandResult:
        r"""Runs all brackets.

        Args:
            start: Draws configuration number 0, 1, …, without training it.
        """
        curves: dict[int, Floats] = {}
        number = 0
        for bracket in self.brackets():
            runs = {number + i: start(number + i) for i in range(bracket[0].configs)}
            number += len(runs)
            alive = list(runs)
            for position, rung in enumerate(bracket):
                following = bracket[position + 1].configs if position + 1 < len(bracket) else 1
                reached = self._train(runs, alive, rung, following, curves)
                # Ties are resolved in favour of the configuration started first. Stopped ones do not continue.
                alive = sorted(reached, key=lambda config: (-self._score(curves[config]), config))[:following]
        full = {c: self.sign * float(v[-1]) for c, v in curves.items() if len(v) >= self.max_epochs}
        full = {c: v for c, v in full.items() if not math.isnan(v)} or full
        best = max(full, key=lambda config: (full[config], -config))
        return HyperbandResult(best, self.sign * full[best], sum(map(len, curves.values())), curves)

    def _train(
        self, runs: Mapping[int, Run], alive: Sequence[int], rung: Rung, following: int, curves: dict[int, Floats]
    ) -> list[int]:
        """Trains a rung, of which :obj:`following` continue, and returns the configurations that reached its end."""
        for config in alive:
            self._advance(runs, config, rung.epochs, curves)
        return list(alive)

    def _advance(self, runs: Mapping[int, Run], config: int, epochs: int, curves: dict[int, Floats]) -> None:
        """Trains one configuration up to :obj:`epochs`."""
        curves[config] = np.asarray(runs[config].train_to(epochs), dtype=np.float64)

    def _score(self, values: Floats) -> float:
        score = self.sign * float(values[-1])
        return -math.inf if math.isnan(score) else score


class RungModels:
    r"""The memory of fast variants of Hyperband, with a predictor for the end of every rung.

    The memory is kept between searches: later ones start with the predictors of earlier ones. A predictor is fitted to
    the first :obj:`models` trainings that have reached the end of its rung, and again at two, four and eight times as
    many.

    Args:
        ends: Epochs at which rungs end.
        direction: Whether more or less is better.
        predictor: Cloned for every rung.
        models: Number of trainings that must have reached the end of a rung before it is predicted.

    Raises:
        ValueError: If :obj:`models` is less than the predictor needs.
    """

    def __init__(self, ends: Iterable[int], direction: Direction, predictor: CurvePredictor, models: int) -> None:
        if models < predictor.minimum:
            raise ValueError(f"models must be at least {predictor.minimum} but is {models}")
        self.direction, self.predictor, self.models = direction, predictor, models
        self.memory: dict[int, list[tuple[Floats, Mapping[str, float]]]] = {end: [] for end in ends}
        self._fitted: dict[int, tuple[int, CurvePredictor]] = {}

    def add(self, run: Run, before: int, values: Floats) -> None:
        r"""Stores a training that was continued from :obj:`before` epochs to those of :obj:`values`."""
        for end, known in self.memory.items():
            if before < end <= len(values) and np.isfinite(values[:end]).all():
                known.append((values[:end], _description(run)))

    def ends(self, epochs: int) -> LearningCurves:
        r"""Returns the values at the end of a rung, as curves of one epoch."""
        return LearningCurves(np.array([[values[-1]] for values, _ in self.memory[epochs]]), self.direction)

    def ready(self, epochs: int) -> bool:
        r"""Returns whether enough trainings have reached the end of a rung to predict it."""
        return len(self.memory[epochs]) >= self.models

    def predict(self, epochs: int, runs: Sequence[Run], values: Sequence[Floats]) -> tuple[Floats, Floats]:
        r"""Predicts values at the end of a rung, with standard deviations, for trainings of one length."""
        count = self.models * min(2 ** int(math.log2(len(self.memory[epochs]) / self.models)), 8)
        if epochs not in self._fitted or self._fitted[epochs][0] != count:
            known = self.memory[epochs][:count]
            curves = self._curves([v for v, _ in known], [d for _, d in known])
            self._fitted[epochs] = count, clone(self.predictor).fit(curves)
        table = np.full((len(runs), epochs), np.nan)
        table[:, : len(values[0])] = values
        running = self._curves(table, [_description(run) for run in runs])
        return self._fitted[epochs][1].predict(running, return_std=True)

    def _curves(self, values: Sequence[Floats] | Floats, described: Sequence[Mapping[str, float]]) -> LearningCurves:
        columns = {name: np.array([row[name] for row in described]) for name in described[0]}
        return LearningCurves(np.stack(list(values)), self.direction, architecture=columns)


def _description(run: Run) -> Mapping[str, float]:
    return getattr(run, "description", {})


class _LearningHyperband(Hyperband):
    """Hyperband that learns from its trainings how those in a rung will end."""

    def __init__(
        self,
        max_epochs: int,
        direction: Direction,
        eta: float,
        predictor: CurvePredictor | None,
        delta: float,
        models: int,
    ) -> None:
        super().__init__(max_epochs, direction, eta)
        self.rule = StoppingRule(delta)
        ends = {rung.epochs: None for bracket in self.brackets() for rung in bracket}
        default = SequentialRegression("gp", draws=20) if predictor is None else predictor
        self.models = RungModels(ends, direction, default, models)

    def _advance(self, runs: Mapping[int, Run], config: int, epochs: int, curves: dict[int, Floats]) -> None:
        before = len(curves.get(config, ()))
        super()._advance(runs, config, epochs, curves)
        self.models.add(runs[config], before, curves[config])


class FastHyperband(_LearningHyperband):
    r"""Hyperband with early stopping within the rungs (f-Hyperband; Baker et al., 2017, section 4.3).

    It starts as :class:`Hyperband`. Once :obj:`models` trainings of any bracket or search have reached :math:`r_i`
    epochs, a predictor of the value at :math:`r_i` is fitted to them. From then on, a training before :math:`r_i` is
    stopped if its predicted value at :math:`r_i` is, with probability :math:`\Delta`, below the n-th best of all
    trainings that have reached :math:`r_i`; n is the fraction :math:`\kappa` of their number. If fewer than
    :math:`\kappa n_i` of a rung's :math:`n_i` trainings reach :math:`r_i`, those with the best predictions are
    continued until that many have.

    The paper's pseudo-code for this part is not published; this follows its text. The memory of trainings is kept
    between calls of :meth:`search`, see :class:`RungModels`.

    Args:
        max_epochs: :math:`R`, epochs of a full training.
        direction: Whether more or less is better.
        eta: :math:`\eta`.
        predictor: Predicts the value at the end of a rung.
            (default: the Gaussian process of :class:`~pyg_nas_np.curves.SequentialRegression`, because a separate model
            is fitted for every rung and observed length)
        delta: :math:`\Delta`.
        kappa: :math:`\kappa`. (default: :math:`1/\eta`, the fraction that the rung promotes)
        models: Number of trainings that must have reached :math:`r_i`.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        max_epochs: int,
        direction: Direction,
        eta: float = 3.0,
        *,
        predictor: CurvePredictor | None = None,
        delta: float = 0.95,
        kappa: float | None = None,
        models: int = 100,
    ) -> None:
        super().__init__(max_epochs, direction, eta, predictor, delta, models)
        self.kappa = 1.0 / eta if kappa is None else kappa
        if not 0.0 < self.kappa <= 1.0:
            raise ValueError(f"kappa must lie in (0, 1] but is {self.kappa}")

    def _train(
        self, runs: Mapping[int, Run], alive: Sequence[int], rung: Rung, following: int, curves: dict[int, Floats]
    ) -> list[int]:
        reached: list[int] = []
        stopped: dict[int, float] = {}
        for config in alive:
            predicted = self._stopped_at(runs, config, rung.epochs, curves)
            if predicted is None:
                reached.append(config)
            else:
                stopped[config] = predicted
        missing = math.ceil(self.kappa * rung.configs - 1e-9) - len(reached)
        for config in sorted(stopped, key=lambda config: (-stopped[config], config))[: max(missing, 0)]:
            self._advance(runs, config, rung.epochs, curves)
            reached.append(config)
        return reached

    def _stopped_at(self, runs: Mapping[int, Run], config: int, epochs: int, curves: dict[int, Floats]) -> float | None:
        """Trains towards the end of a rung; returns the predicted score there if the training was stopped before."""
        if self.models.ready(epochs):
            ends = self.models.ends(epochs)
            rule = StoppingRule(self.rule.delta, nth_best=math.ceil(self.kappa * len(ends) - 1e-9))
            for epoch in range(len(curves.get(config, ())) or 1, epochs):
                self._advance(runs, config, epoch, curves)
                if not np.isfinite(curves[config]).all():
                    break
                mean, std = self.models.predict(epochs, [runs[config]], [curves[config]])
                if rule.probability(ends, mean, std)[0] >= rule.delta:
                    return self.sign * float(mean[0])
        self._advance(runs, config, epochs, curves)
        return None


class RacingHyperband(_LearningHyperband):
    r"""Hyperband whose trainings race: those that will not be promoted are stopped within the rung.

    :class:`FastHyperband` compares a training with all that have ever reached the end of its rung, and needs a hundred
    of them. Here a training is compared with its rivals in the same rung, and the models need fewer trainings. At up to
    :obj:`checks` points of a rung a training is stopped if, with probability :math:`\Delta`, it is

    * not promoted: its value at the end of the rung is below the n-th best prediction of its rivals;
    * not the best of its bracket: its value at :math:`R` is below their best prediction; or
    * not the best of the search: its value at :math:`R` is below the best of all trainings at :math:`R`.

    Until a training has reached :math:`R`, the one with the best prediction is never stopped; after that, the third
    criterion may end a bracket early. The memory of trainings is kept between calls of :meth:`search`, see
    :class:`RungModels`; the first searches run as :class:`Hyperband`.

    Args:
        max_epochs: :math:`R`, epochs of a full training.
        direction: Whether more or less is better.
        eta: :math:`\eta`.
        predictor: See :class:`FastHyperband`.
        delta: :math:`\Delta`.
        models: Number of trainings that must have reached the end of a rung before it is predicted.
        checks: Number of evenly spaced points of a rung at which the trainings are compared.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> heights = np.random.default_rng(0).uniform(0.5, 0.9, (200, 1))
        >>> curves = LearningCurves(heights * (1 - np.exp(-0.3 * np.arange(1, 28))))
        >>> searches = Hyperband(27, "up"), RacingHyperband(27, "up", predictor=SequentialRegression("ols"), models=5)
        >>> for _ in range(2):
        ...     plain, racing = (search.search(lambda number: RecordedRun(curves, number)) for search in searches)
        >>> plain.value == racing.value, plain.epochs > 2 * racing.epochs
        (True, True)
    """

    def __init__(
        self,
        max_epochs: int,
        direction: Direction,
        eta: float = 3.0,
        *,
        predictor: CurvePredictor | None = None,
        delta: float = 0.95,
        models: int = 20,
        checks: int = 10,
    ) -> None:
        super().__init__(max_epochs, direction, eta, predictor, delta, models)
        if checks < 1:
            raise ValueError(f"checks must be at least 1 but is {checks}")
        self.checks = checks

    def _train(
        self, runs: Mapping[int, Run], alive: Sequence[int], rung: Rung, following: int, curves: dict[int, Floats]
    ) -> list[int]:
        racing = list(alive)
        first = len(curves.get(racing[0], ())) or 1 if racing else 1
        predicted = any(self.models.ready(epochs) for epochs in (rung.epochs, self.max_epochs))
        points = min(self.checks, rung.epochs - first) if predicted else 0
        for epoch in np.unique(np.linspace(first, rung.epochs - 1, points).round().astype(int)).tolist():
            for config in racing:
                self._advance(runs, config, epoch, curves)
            racing = self._survivors(runs, racing, rung, following, curves)
            if not racing:
                break
        for config in racing:
            self._advance(runs, config, rung.epochs, curves)
        return racing

    def _survivors(
        self, runs: Mapping[int, Run], racing: list[int], rung: Rung, following: int, curves: dict[int, Floats]
    ) -> list[int]:
        # A diverged training stays in its rung, as in Hyperband, and is not continued.
        judged = [config for config in racing if np.isfinite(curves[config]).all()]
        if not judged:
            return racing
        done = [self._score(values) for values in curves.values() if len(values) == self.max_epochs]
        chances, favourite = np.zeros(len(judged)), 0
        for epochs, places in {rung.epochs: following, self.max_epochs: 1}.items():
            if not self.models.ready(epochs):
                continue
            mean, std = self.models.predict(epochs, [runs[c] for c in judged], [curves[c] for c in judged])
            score = self.sign * mean
            if len(judged) > places:
                # Both the training and its rival are uncertain.
                chances = np.maximum(chances, _below(score, np.sqrt(2.0) * std, np.sort(score)[-places]))
            if epochs == self.max_epochs and done:
                chances = np.maximum(chances, _below(score, std, max(done)))
            favourite = int(score.argmax())
        if not done:
            chances[favourite] = 0.0  # The two criteria may have different winners; one must reach the end.
        stopped = {config for config, p in zip(judged, chances.tolist(), strict=True) if p >= self.rule.delta}
        return [config for config in racing if config not in stopped]


def _below(score: Floats, std: Floats, level: float) -> Floats:
    """Probability that Gaussian scores are below a level; one half for an exact tie with zero standard deviation."""
    gap = level - score
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(ndtr(np.where(gap == 0.0, 0.0, gap / std)))
