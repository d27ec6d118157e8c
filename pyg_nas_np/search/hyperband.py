r"""Hyperband, and fast Hyperband with early stopping inside its rungs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from sklearn.base import clone

from pyg_nas_np.datasets.curves import Direction, Floats, LearningCurves
from pyg_nas_np.predictors.curves import CurvePredictor, SequentialRegression
from pyg_nas_np.search.early_stopping import StoppingRule


class Run(Protocol):
    r"""A training that can be continued."""

    def train_to(self, epoch: int) -> Sequence[float] | Floats:
        r"""Trains until :obj:`epoch` epochs have been done in all and returns the values of all of them."""


class RecordedRun:
    r"""A training that has been recorded.

    Args:
        curves: Finished trainings.
        index: Which of them.

    Example:
        >>> RecordedRun(LearningCurves([[0.2, 0.4, 0.5]]), 0).train_to(2)
        array([0.2, 0.4])
    """

    def __init__(self, curves: LearningCurves, index: int) -> None:
        self.values = curves.values[index]

    def train_to(self, epoch: int) -> Floats:
        r"""Returns the first :obj:`epoch` values."""
        return np.asarray(self.values[:epoch])


class Rung(NamedTuple):
    r"""A number of configurations and the epochs that each of them is trained for, counted from its start."""

    configs: int
    epochs: int


@dataclass
class HyperbandResult:
    r"""What a run of Hyperband found and spent.

    Args:
        best: Number of the configuration with the best value at the full number of epochs.
        value: That value.
        epochs: Epochs that were trained in all.
        curves: Values of every configuration as far as it was trained, by number.
    """

    best: int
    value: float
    epochs: int
    curves: dict[int, Floats] = field(repr=False)


class Hyperband:
    r"""Hyperband (`Li et al., 2018 <https://arxiv.org/abs/1603.06560>`_).

    Bracket :math:`s` starts :math:`\lceil (s_\max + 1)\, \eta^s / (s + 1) \rceil` configurations with
    :math:`R \eta^{-s}` epochs each; after every rung the best :math:`1/\eta` go on with :math:`\eta` times as many.
    Trainings are continued, not repeated.

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
        # The logarithm of an exact power must not be rounded below it.
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
        r"""Configurations that one call of :meth:`search` starts."""
        return sum(bracket[0].configs for bracket in self.brackets())

    def search(self, start: Callable[[int], Run]) -> HyperbandResult:
        r"""Runs all brackets.

        Args:
            start: Draws and starts configuration number 0, 1, …; nothing is trained yet.
        """
        curves: dict[int, Floats] = {}
        number = 0
        for bracket in self.brackets():
            runs = {number + i: start(number + i) for i in range(bracket[0].configs)}
            number += len(runs)
            alive = list(runs)
            for position, rung in enumerate(bracket):
                reached = self._train(runs, alive, rung, curves)
                following = bracket[position + 1].configs if position + 1 < len(bracket) else 1
                # Ties go to the configuration that was started first. Of those that were stopped none goes on.
                alive = sorted(reached, key=lambda config: (-self._score(curves[config]), config))[:following]
        full = {c: self.sign * float(v[-1]) for c, v in curves.items() if len(v) >= self.max_epochs}
        full = {c: v for c, v in full.items() if not math.isnan(v)} or full
        best = max(full, key=lambda config: (full[config], -config))
        return HyperbandResult(best, self.sign * full[best], sum(map(len, curves.values())), curves)

    def _train(self, runs: Mapping[int, Run], alive: Sequence[int], rung: Rung, curves: dict[int, Floats]) -> list[int]:
        """Trains the configurations of a rung, and returns those that came to its end."""
        for config in alive:
            self._advance(runs, config, rung.epochs, curves)
        return list(alive)

    def _advance(self, runs: Mapping[int, Run], config: int, epochs: int, curves: dict[int, Floats]) -> None:
        """Trains one configuration until it has had :obj:`epochs`."""
        curves[config] = np.asarray(runs[config].train_to(epochs), dtype=np.float64)

    def _score(self, values: Floats) -> float:
        score = self.sign * float(values[-1])
        return -math.inf if math.isnan(score) else score


class FastHyperband(Hyperband):
    r"""Hyperband with early stopping inside the rungs (f-Hyperband; Baker et al., 2017, section 4.3).

    It starts as :class:`Hyperband`. As soon as :obj:`models` trainings have reached :math:`r_i` epochs, in whatever
    bracket or search, a predictor of the value at :math:`r_i` is fitted to them. From then on a training on its way to
    :math:`r_i` is stopped once its predicted value there lies with probability :math:`\Delta` below the n-th best of
    all that have come to :math:`r_i`, where n is the share :math:`\kappa` of their number. Where fewer than
    :math:`\kappa n_i` of a rung's :math:`n_i` trainings get to :math:`r_i` in this way, those with the best predictions
    are continued until that many have.

    The paper's pseudo-code of this part is not published; this is its text's reading. Trainings are remembered between
    calls of :meth:`search`: later ones start with the predictors of earlier ones.

    Args:
        max_epochs: :math:`R`, epochs of a full training.
        direction: Whether more or less is better.
        eta: :math:`\eta`.
        predictor: Predicts the value at the end of a rung.
            (default: :class:`~pyg_nas_np.predictors.curves.SequentialRegression`)
        delta: :math:`\Delta`.
        kappa: :math:`\kappa`. (default: :math:`1/\eta`, those that the rung passes on)
        models: Trainings that must have reached :math:`r_i`.

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
        super().__init__(max_epochs, direction, eta)
        self.predictor = SequentialRegression(features=("TS",), draws=100) if predictor is None else predictor
        self.kappa = 1.0 / eta if kappa is None else kappa
        if not 0.0 < self.kappa <= 1.0:
            raise ValueError(f"kappa must lie in (0, 1] but is {self.kappa}")
        if models < self.predictor.minimum:
            raise ValueError(f"models must be at least {self.predictor.minimum} but is {models}")
        self.rule, self.models = StoppingRule(delta), models
        self.memory: dict[int, list[Floats]] = {rung.epochs: [] for plan in self.brackets() for rung in plan}
        self._predictors: dict[int, CurvePredictor] = {}

    def _advance(self, runs: Mapping[int, Run], config: int, epochs: int, curves: dict[int, Floats]) -> None:
        before = len(curves.get(config, ()))
        super()._advance(runs, config, epochs, curves)
        for reached, known in self.memory.items():
            if before < reached <= epochs and np.isfinite(curves[config][:reached]).all():
                known.append(curves[config][:reached])

    def _fitted(self, epochs: int) -> CurvePredictor | None:
        if epochs not in self._predictors and len(self.memory[epochs]) >= self.models:
            curves = LearningCurves(np.stack(self.memory[epochs]), self.direction)
            self._predictors[epochs] = clone(self.predictor).fit(curves)
        return self._predictors.get(epochs)

    def _train(self, runs: Mapping[int, Run], alive: Sequence[int], rung: Rung, curves: dict[int, Floats]) -> list[int]:
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
        """Trains towards the end of a rung; the predicted score there if the training was stopped on its way."""
        predictor = self._fitted(epochs)
        if predictor is not None:
            ends = LearningCurves(np.array([[values[-1]] for values in self.memory[epochs]]), self.direction)
            rule = StoppingRule(self.rule.delta, nth_best=math.ceil(self.kappa * len(ends) - 1e-9))
            for epoch in range(len(curves.get(config, ())) or 1, epochs):
                self._advance(runs, config, epoch, curves)
                if not np.isfinite(curves[config]).all():
                    break
                row = np.full((1, epochs), np.nan)
                row[0, :epoch] = curves[config]
                mean, std = predictor.predict(LearningCurves(row, self.direction), return_std=True)
                if rule.probability(ends, mean, std)[0] >= rule.delta:
                    return self.sign * float(mean[0])
        self._advance(runs, config, epochs, curves)
        return None
