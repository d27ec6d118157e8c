r"""Searches that spend a total budget on trainings of several fidelities."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Generic, NamedTuple

import torch
from sklearn.base import clone
from torch import Tensor

from pyg_nas_np.convnp.fidelities import FidelityPredictor
from pyg_nas_np.predictors import Architectures
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.predictors.labels import Labels
from pyg_nas_np.search.acquisition import expected_improvement, upper_confidence_bound
from pyg_nas_np.search.candidates import ENUMERABLE, Candidates, Key
from pyg_nas_np.search.predictor_search import cost_function
from pyg_nas_np.search.resumable import CURE, Resumable
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.base import Archs, ArchT
from pyg_nas_np.utils import InvalidFidelityError, InvalidLabelsError, check_count, experimental, foreign_file, seeded
from pyg_nas_np.utils.state_files import Kinds

Price = Callable[[Architectures], Tensor]
"""Price of full trainings: ``n`` architectures to positive numbers ``[n]``."""

Step = tuple[Key, int]
"""A training of an architecture to a level, by its position."""

PARENTS = 10
"""Number of best architectures whose neighbors are candidates in large spaces."""

FAILURES = 3
"""Number of trainings of an architecture that failed without any label after which engines count it as diverged."""

SHORTLIST, SHORTLIST_BETA = 1024, 3.0
"""So many candidates with the largest upper confidence bounds can be the best, and the weight of their deviations."""

DRAWS = 2048
"""Joint samples by which it is told what more trainings can bring."""

_ROUNDING = 1e-9


class Training(NamedTuple, Generic[ArchT]):
    r"""A training to run.

    Args:
        arch: The architecture.
        level: The level to train to, such as 12 epochs.
        start: The level to go on from, or :obj:`None` for a new training.
        price: What it costs, in the unit of the budget.
    """

    arch: ArchT
    level: float
    start: float | None
    price: float


class Prospect(NamedTuple):
    r"""What more full trainings can bring.

    Args:
        probability: Probability that a candidate is better than the best full training by more than a margin.
        gain: Expected improvement of the best label by the next full training, per price, in the unit of the labels.
    """

    probability: float
    gain: float


@experimental
class BudgetedSearch(Candidates[ArchT], Resumable):
    r"""Finds the best architecture within a total price of trainings, cheap ones included.

    :meth:`ask` proposes trainings, each to a level of the fidelity; :meth:`tell` takes labels. The first trainings
    are random ones at the lowest level. The best of them is then trained through all levels (or :obj:`first` of them,
    spread over their ranking). After that, a :class:`~pyg_nas_np.convnp.fidelities.FidelityPredictor` is fitted to
    all labels before each decision. The candidate with the largest upper confidence bound of its label at the last
    level is trained in full if its lower levels are measured, or are not worth their price: a level is worth it if
    the share of the variance that its label removes exceeds its price relative to a full training. Otherwise the
    candidates with the largest bounds that lack this level are trained to it: :obj:`screen` of them at the lowest
    level, as many as cost the same at higher ones.

    **Prices.** A training is paid for when it is proposed. Only architectures are considered whose way to the last
    level the rest of the budget can pay for, so that the budget is never exceeded. The unit is one full training, or
    that of :obj:`price`; prices are declared, no clock is read. Labels of trainings that were not proposed cost
    nothing.

    **Several workers.** Proposed trainings are *pending* until told. Full ones are believed to end at their predicted
    labels. A training whose worker died is freed by :meth:`release`, and may be proposed again.

    **Labels** may come late, in any order, and repeatedly (repeats are averaged by the predictor). A training may
    report levels that it passes. A label that is NaN or infinite means that the training diverged: the architecture
    is not proposed again, and counts as the worst label of its level.

    Args:
        space: The search space.
        fidelity: The levels and their prices.
        budget: The total price; infinite if there is no limit.
        price: Price of a full training by architecture: a function, or the name of a cost of the space. The candidate
            is then the one with the largest expected improvement per price. (default: 1 for all)
        initial: Number of random trainings at the lowest level.
        first: Number of them that are trained through all levels before anything is predicted.
        screen: Number of trainings to the lowest level that are proposed at a time.
        beta: Weight of the standard deviation in the upper confidence bound.
        least_gain: :meth:`ask` ends early where the expected gain per price (:meth:`prospect`) is less.
        predictor: The predictor; a clone of it is fitted. (default: one Gaussian process a
            level; whole banks were no better)
        proposals: Number of random candidates in large spaces, in addition to the neighbors of the best.
        candidates: Official indices ``[K]`` or architectures that may be asked for. (default: the whole space)
        maximize: Whether larger labels are better.
        seed: Seed of the search.

    Raises:
        InvalidFidelityError: If :obj:`fidelity` is none.
        ValueError: If a number is out of range, the cost is unknown, or there are no candidates. From :meth:`ask`, if
            the price of an architecture is not a positive number.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> search = BudgetedSearch(space, Fidelity("epochs", (12, 200)), budget=3, initial=8, first=1)
        >>> while trainings := search.ask():
        ...     for arch, epochs, _, _ in trainings:
        ...         search.tell([arch], epochs, space.batch_flops([arch]) * epochs)
        >>> round(search.spent, 2) <= 3, search.best[1] > 0
        (True, True)
    """

    state_format = "pyg_nas_np.budgeted_search/1"
    state_entries: ClassVar[Kinds] = {
        "space": str,
        "maximize": bool,
        "fidelity": dict,
        "spent": float,
        "told": list,
        "positions": list,
        "y": list,
        "pending": list,
        "queue": list,
        "generator": Tensor,
    }
    state_kind = "budgeted search"

    def __init__(
        self,
        space: SearchSpace[ArchT],
        fidelity: Fidelity,
        budget: float,
        *,
        price: str | Price | None = None,
        initial: int = 30,
        first: int = 1,
        screen: int = 8,
        beta: float = 0.7,
        least_gain: float = 0.0,
        predictor: FidelityPredictor | None = None,
        proposals: int = 2048,
        candidates: Archs = None,
        maximize: bool = True,
        seed: int = 0,
    ) -> None:
        if not isinstance(fidelity, Fidelity):
            raise InvalidFidelityError(f"fidelity must be a Fidelity('epochs', (12, 200)), got {fidelity!r}")
        if not budget > 0.0:
            raise ValueError(f"budget must be positive, got {budget!r}")
        for name, count in (("initial", initial), ("first", first), ("screen", screen), ("proposals", proposals)):
            check_count(name, count)
        for name, number in (("beta", beta), ("least_gain", least_gain)):
            if not 0.0 <= number < math.inf:
                raise ValueError(f"{name} must be at least 0, got {number!r}")
        Candidates.__init__(self, space, candidates, seed)
        Resumable.__init__(self)
        predictor = FidelityPredictor(alone=True) if predictor is None else clone(predictor)
        self.predictor = predictor.set_params(space=space, fidelity=fidelity, maximize=maximize)
        self.fidelity, self.budget, self.maximize = fidelity, float(budget), maximize
        self.price = cost_function(space, price) if isinstance(price, str) else price
        self.initial, self.first, self.screen = initial, first, screen
        self.beta, self.least_gain, self.proposals = beta, least_gain, proposals
        self.reset()

    def reset(self) -> None:
        r"""Resets the search."""
        self.generator = seeded(self.seed)
        self.spent = 0.0
        self._told: list[Step] = []
        self._y: list[float] = []
        self._reached: dict[Key, int] = {}
        self._diverged: set[Key] = set()
        self._pending: dict[Step, float] = {}
        self._queue: list[Step] = []

    # -- the protocol -----------------------------------------------------------------------------------------------

    def ask(self, batch: int = 1) -> list[Training[ArchT]]:
        r"""Returns the trainings to run next.

        They are fewer than asked for, or none, where the budget does not pay for more, all candidates are trained, or
        the expected gain is below the bound.

        Args:
            batch: Number of trainings.

        Raises:
            ValueError: If :obj:`batch` is not positive.
        """
        count = check_count("batch", batch)
        chosen: list[Training[ArchT]] = []
        with self._lock:
            while len(chosen) < count and (step := self._next()) is not None:
                chosen.append(self._propose(step))
        return chosen

    def reserve(self, archs: Archs, level: float) -> list[Training[ArchT]]:
        r"""Proposes trainings that the caller has chosen: they are paid for and pending, as after :meth:`ask`.

        Args:
            archs: Architectures or official indices.
            level: The level to train to.

        Raises:
            InvalidArchitectureError: If an architecture is not one of the space.
            InvalidLabelsError: If the level is unknown.
            ValueError: If one of them is pending, has reached the level or diverged, or the budget does not pay for it.
        """
        position = int(self.fidelity.positions([level])[0])
        chosen: list[Training[ArchT]] = []
        with self._lock:
            for key in self._keys(archs):
                what = f"{self.space.to_str(self._archs([key])[0])} at {self.fidelity.name} {level:g}"
                if not self._is_open((key, position)):
                    raise ValueError(f"{what} is pending or measured, or has diverged; choose another training")
                if (price := self._price_of((key, position))) > self.left + _ROUNDING:
                    raise ValueError(f"{what} costs {price:g}, but {self.left:g} is left; raise the budget")
                chosen.append(self._propose((key, position)))
                self._queue = [step for step in self._queue if step != (key, position)]
        return chosen

    def _propose(self, step: Step) -> Training[ArchT]:
        key, position = step
        price, start = self._price_of(step), self._start(key)
        self._pending[step] = price
        self.spent += price
        level = None if start is None else self.fidelity.levels[start]
        return Training(self._archs([key])[0], self.fidelity.levels[position], level, price)

    def tell(self, archs: Archs, level: float | Labels, y: Labels) -> None:
        r"""Takes labels.

        Args:
            archs: ``n`` architectures or official indices.
            level: Their level, or one each.
            y: Their labels, ``[n]``; NaN or infinite if the training diverged.

        Raises:
            InvalidArchitectureError: If an architecture is not one of the space.
            InvalidLabelsError: If a level is unknown, a training reports beyond the last one for example, or there is
                not one label an architecture.
        """
        keys = self._keys(archs)
        levels = [level] * len(keys) if isinstance(level, (int, float)) else level
        positions = self.fidelity.positions(levels, len(keys)).tolist() if keys else []
        values = _values(y, len(keys))
        with self._lock:
            for key, position, value in zip(keys, positions, values, strict=True):
                self._told.append((key, position))
                self._y.append(value)
                self._pending.pop((key, position), None)
                if math.isfinite(value):
                    self._reached[key] = max(position, self._reached.get(key, 0))
                else:
                    self._diverged.add(key)
            self._queue = [step for step in self._queue if self._is_open(step)]

    def release(self, archs: Archs, level: float, paid: float = 0.0) -> None:
        r"""Frees pending trainings whose workers died; they may be proposed again.

        Args:
            archs: Architectures or official indices.
            level: The level that they were to reach.
            paid: Share of their price that is spent nevertheless, between 0 and 1.

        Raises:
            InvalidLabelsError: If the level is unknown.
            ValueError: If one of them is not pending, or :obj:`paid` is no share.
        """
        if not 0.0 <= paid <= 1.0:
            raise ValueError(f"paid must be a share of the price between 0 and 1, got {paid!r}")
        position = int(self.fidelity.positions([level])[0])
        steps = [(key, position) for key in self._keys(archs)]
        with self._lock:
            for key, _ in steps:
                if (key, position) not in self._pending:
                    raise ValueError(
                        f"{self.space.to_str(self._archs([key])[0])} is not pending at {self.fidelity.name} {level:g}; "
                        f"release what ask() returned and tell() did not take"
                    )
            for step in steps:
                self.spent -= (1.0 - paid) * self._pending.pop(step)

    # -- results ----------------------------------------------------------------------------------------------------

    @property
    def left(self) -> float:
        r"""What is left of the budget."""
        return self.budget - self.spent

    @property
    def pending(self) -> list[Training[ArchT]]:
        r"""Trainings that were proposed and not told yet."""
        found = []
        for (key, position), price in self._pending.items():
            start = self._start(key)
            level = None if start is None else self.fidelity.levels[start]
            found.append(Training(self._archs([key])[0], self.fidelity.levels[position], level, price))
        return found

    @property
    def measured(self) -> tuple[Architectures, Tensor, Tensor]:
        r"""All labels in the order of telling: ``n`` architectures, their levels and labels, ``[n]`` float64 each."""
        levels = [self.fidelity.levels[position] for _, position in self._told]
        return self._archs([key for key, _ in self._told]), _float(levels), _float(self._y)

    @property
    def best(self) -> tuple[ArchT, float]:
        r"""The best architecture at the last level and its label, the first among equals.

        Raises:
            InvalidLabelsError: If no training of the last level was told.
        """
        full = [(key, y) for (key, position), y in self._labels() if position == self.fidelity.top]
        if not full:
            raise InvalidLabelsError(
                f"no training reached {self.fidelity.name} {self.fidelity.levels[-1]:g} yet; tell() at least one"
            )
        key, y = max(full, key=lambda found: found[1] if self.maximize else -found[1])
        return self._archs([key])[0], y

    def prospect(self, margin: float = 0.0) -> Prospect:
        r"""Tells whether to train one more.

        By joint samples of the labels of the candidates that the budget can pay for. Their scale is estimated from the
        ``n`` labels of full trainings, so that all deviations of a sample are multiplied by the same factor
        :math:`\sqrt{\nu / \chi^2_\nu}`, :math:`\nu = n + 1`: labels have Student's distribution. Nothing is known
        (a probability of 1, an infinite gain) while there are fewer than two different labels of full trainings.
        ``benchmarks/train_one_more.py`` measures how far such probabilities can be trusted.

        Args:
            margin: Improvement of the best label that counts, in its unit.

        Raises:
            ValueError: If :obj:`margin` is negative.
        """
        if not 0.0 <= margin < math.inf:
            raise ValueError(f"margin must be at least 0, got {margin!r}")
        with self._lock:
            free = self._free()
            if not free:
                return Prospect(0.0, 0.0)
            if not self._fit() or self.predictor.missing_:
                return Prospect(1.0, math.inf)
            archs = self._archs(free)
            mean, std = self.predictor.predict_scores(archs)
            short = upper_confidence_bound(mean, std, SHORTLIST_BETA).topk(min(SHORTLIST, len(free))).indices
            drawn = self._label_draws(archs[short], mean[short], std[short])
            gains = self.predictor.transform_.gain(drawn)
            prices = self._full_prices([free[i] for i in short.tolist()])
        better = (gains.amax(dim=1) > margin).double().mean()
        return Prospect(float(better), float((gains.mean(dim=0) / prices).max()))

    def _label_draws(self, archs: Architectures, mean: Tensor, std: Tensor) -> Tensor:
        """Scores of labels of full trainings, drawn jointly, ``[DRAWS, n]``."""
        generator = seeded(self.seed)
        deviations = self.predictor.sample_scores(archs, DRAWS, generator) - mean
        noise = (std.square() - deviations.var(dim=0)).clamp_min(0.0).sqrt()
        normal = torch.randn(deviations.shape, generator=generator, dtype=torch.float64, device="cpu")
        freedom = 1 + sum(position == self.fidelity.top for (_, position), _ in self._labels())
        squares = torch.randn(DRAWS, freedom, generator=generator, dtype=torch.float64, device="cpu").square()
        factor = squares.mean(dim=1, keepdim=True).rsqrt()
        drawn: Tensor = mean + factor * (deviations + noise * normal)
        return drawn

    # -- choosing ---------------------------------------------------------------------------------------------------

    def _next(self) -> Step | None:
        while self._queue:
            step = self._queue.pop(0)
            if self._affordable([step[0]], step[1]):
                return step
        return self._opening() or self._by_model()

    def _opening(self) -> Step | None:
        """Random trainings at the lowest level, then some of them through all levels."""
        top, started = self.fidelity.top, {key for key, _ in [*self._told, *self._pending]}
        if len(started) < self.initial:
            fresh = self._affordable(self._random(1, started), 0)
            if fresh:
                return fresh[0], 0
        seeds = [key for key, position in [*self._told, *self._pending] if position == top]
        if len(dict.fromkeys(seeds)) >= self.first:
            return None
        lowest = {key: y for (key, position), y in self._labels() if position == 0}
        ranked = sorted(lowest, key=lambda key: -lowest[key] if self.maximize else lowest[key])
        places = [ranked[i * len(ranked) // self.first] for i in range(self.first)] if ranked else []
        for key in places:
            # On the way of one schedule the levels in between are passed at no price.
            step = (key, top if self.fidelity.continued else min(top, self._reached.get(key, -1) + 1))
            if self._is_open(step) and not self._is_busy(key) and self._affordable([key], step[1]):
                return step
        return None

    def _by_model(self) -> Step | None:
        free = self._free()
        if not free:
            return None
        if not self._fit():
            # Nothing to learn from yet, while workers wait.
            key = self._random(1, self._taken())
            return next(
                ((key[0], position) for position in (0, self.fidelity.top) if self._affordable(key, position)), None
            )
        if self.least_gain > 0.0 and self.prospect().gain < self.least_gain:
            return None
        if waiting := [key for key, position in self._pending if position == self.fidelity.top]:
            believed = self.predictor.predict(self._archs(waiting)).tolist()
            self._fit([((key, self.fidelity.top), y) for key, y in zip(waiting, believed, strict=True)])
        mean, std, shares = self.predictor.outlook(self._archs(free))
        merit = upper_confidence_bound(mean, std, self.beta)
        if self.price is not None:
            merit = expected_improvement(mean, std, self._best_score()) / self.price(self._archs(free)).double()
        order = merit.argsort(descending=True, stable=True).tolist()
        best = order[0]
        position = self._worthwhile(free[best], shares[best].tolist())
        if position == self.fidelity.top or not self._affordable([free[best]], position):
            return free[best], self.fidelity.top
        reached = self._start(free[best])
        prices = self.fidelity.prices
        count = max(1, round(self.screen * prices[0] / prices[position]))
        alike = [free[i] for i in order if self._start(free[i]) == reached]
        self._queue = [(key, position) for key in self._distinct(alike, count)]
        return self._queue.pop(0)

    def _worthwhile(self, key: Key, shares: list[float]) -> int:
        """The next level of an architecture whose label is worth its price."""
        start = self._start(key)
        for position in range(0 if start is None else start + 1, self.fidelity.top):
            if shares[position] > self.fidelity.price(position, start):
                return position
        return self.fidelity.top

    def _distinct(self, keys: list[Key], count: int) -> list[Key]:
        """The first ones that are not equivalent: to train one function twice tells less."""
        rows = self.predictor._inputs(self._archs(keys[: 8 * count]))[1]
        _, group = torch.unique(rows, dim=0, return_inverse=True)
        first: dict[int, Key] = {}
        for key, of in zip(keys, group.tolist(), strict=False):
            first.setdefault(of, key)
        return list(first.values())[:count]

    def _fit(self, believed: Iterable[tuple[Step, float]] = ()) -> bool:
        """Whether there is something to learn from."""
        labels = [*self._labels(), *believed]
        worst: dict[int, float] = {}
        for (_, position), y in labels:
            worst[position] = min(y, worst.get(position, y)) if self.maximize else max(y, worst.get(position, y))
        if not worst:
            return False
        for step, y in zip(self._told, self._y, strict=True):
            if not math.isfinite(y) and step[1] in worst:
                labels.append((step, worst[step[1]]))
        levels = [self.fidelity.levels[position] for (_, position), _ in labels]
        self.predictor.fit(self._archs([key for (key, _), _ in labels]), [y for _, y in labels], fidelity=levels)
        return bool(self.predictor.transform_.informative)

    def _best_score(self) -> Tensor:
        full = [key for (key, position), _ in self._labels() if position == self.fidelity.top]
        known = full or [key for (key, _), _ in self._labels()]
        reached: Tensor = self.predictor.predict_scores(self._archs(known))[0]
        return reached.max()

    # -- candidates -------------------------------------------------------------------------------------------------

    def _free(self) -> list[Key]:
        """Candidates that are not trained in full, not busy, and affordable."""
        if self._size is not None and self._size <= ENUMERABLE:
            pool: list[Key] = list(range(self._size)) if self._pool_keys is None else list(self._pool_keys)
        else:
            taken = self._taken()
            near = dict.fromkeys(key for parent in self._parents() for key in self._neighbors(parent, taken))
            pool = [*self._reached, *near, *self._random(self.proposals, taken.union(near))]
        busy = {key for key, _ in self._pending} | self._diverged
        top = self.fidelity.top
        return self._affordable([key for key in pool if key not in busy and self._reached.get(key, -1) < top])

    def _parents(self) -> list[Key]:
        """The best architectures at the highest level that has labels."""
        labels = self._labels()
        highest = max((position for (_, position), _ in labels), default=0)
        ranked = sorted(labels, key=lambda label: (-label[0][1], -label[1] if self.maximize else label[1]))
        return list(dict.fromkeys(key for (key, position), _ in ranked if position == highest))[:PARENTS]

    def _affordable(self, keys: list[Key], position: int | None = None) -> list[Key]:
        """Those whose way to the last level the rest of the budget pays for, over a level or directly."""
        if not keys or math.isinf(self.budget):
            return keys
        top, price = self.fidelity.top, self.fidelity.price
        # Levels that are skipped cost nothing, so that the direct way is the cheapest.
        if position is None or position == top:
            shares = _float([price(top, self._start(key)) for key in keys])
        else:
            shares = _float([price(position, self._start(key)) + price(top, position) for key in keys])
        fits = (shares * self._full_prices(keys) <= self.left + _ROUNDING).tolist()
        return [key for key, kept in zip(keys, fits, strict=True) if kept]

    def _full_prices(self, keys: list[Key]) -> Tensor:
        if self.price is None:
            return torch.ones(len(keys), dtype=torch.float64, device="cpu")
        archs = self._archs(keys)
        prices = torch.as_tensor(self.price(archs), dtype=torch.float64)
        bad = (~(prices > 0.0) | prices.isinf()).nonzero().flatten()
        if bad.numel():
            row = int(bad[0])
            raise ValueError(
                f"the price of {self.space.to_str(archs[row])} is {float(prices[row]):g}; prices must be positive "
                f"numbers, so leave such architectures out of candidates="
            )
        return prices

    def _price_of(self, step: Step) -> float:
        key, position = step
        return self.fidelity.price(position, self._start(key)) * float(self._full_prices([key])[0])

    def _start(self, key: Key) -> int | None:
        """The level that an architecture has reached."""
        return self._reached.get(key)

    def _is_open(self, step: Step) -> bool:
        key, position = step
        return key not in self._diverged and self._reached.get(key, -1) < position and step not in self._pending

    def _is_busy(self, key: Key) -> bool:
        return any(key == other for other, _ in self._pending)

    def _taken(self) -> set[Key]:
        return {key for key, _ in [*self._told, *self._pending]}

    def _labels(self) -> list[tuple[Step, float]]:
        return [(step, y) for step, y in zip(self._told, self._y, strict=True) if math.isfinite(y)]

    # -- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the state for :meth:`load_state_dict`, as tensors and plain types."""
        with self._lock:
            return {
                "format": self.state_format,
                "space": self.space.name,
                "maximize": self.maximize,
                "fidelity": self.fidelity.to_dict(),
                "spent": self.spent,
                "told": self._written(key for key, _ in self._told),
                "positions": [position for _, position in self._told],
                "y": list(self._y),
                "pending": self._steps_written(self._pending, self._pending.values()),
                "queue": self._steps_written(self._queue, [0.0] * len(self._queue)),
                "generator": self.generator.get_state(),
            }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Restores the state of a search of the same space, fidelity and direction; the budget may be another.

        Raises:
            DataFileError: If the state is not one of such a search.
            InvalidArchitectureError: If it is from another space.
        """
        self._check_state(state, self.space.name, {"maximize": self.maximize, "fidelity": self.fidelity.to_dict()})
        # Everything is checked before anything changes.
        with foreign_file("the state", "that of a budgeted search", CURE):
            told = self._read(state["told"])
            levels = [self.fidelity.levels[int(position)] for position in state["positions"]]
            y = _values(state["y"], len(told))
            pending, queue = (self._steps_read(state[name]) for name in ("pending", "queue"))
            spent = float(state["spent"])
            if len(levels) != len(told) or not spent >= 0.0:
                raise ValueError(f"{len(told)} labels with {len(levels)} levels, {spent} spent")
            torch.Generator(device="cpu").set_state(state["generator"])
        self.reset()
        if told:
            self.tell(self._archs(told).given, levels, y)
        self._pending.update(pending)
        self._queue, self.spent = list(queue), spent
        self.generator.set_state(state["generator"])

    def _steps_written(self, steps: Iterable[Step], prices: Iterable[float]) -> list[tuple[int | str, int, float]]:
        steps = list(steps)
        keys: list[int | str] = [*self._written(key for key, _ in steps)]
        return [(key, position, price) for key, (_, position), price in zip(keys, steps, prices, strict=True)]

    def _steps_read(self, written: list[Any]) -> dict[Step, float]:
        keys = self._read([key for key, _, _ in written])
        return {
            (key, range(self.fidelity.top + 1)[position]): float(price)
            for key, (_, position, price) in zip(keys, written, strict=True)
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space!r}, {self.spent:g} of {self.budget:g} spent)"


def _values(y: Labels, count: int) -> list[float]:
    """Labels as numbers; NaN and infinite ones are diverged trainings."""
    try:
        values = torch.as_tensor(y, dtype=torch.float64, device="cpu").detach().reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidLabelsError(f"labels must be numbers, got {type(y).__name__}: {error}") from error
    if values.numel() != count:
        raise InvalidLabelsError(f"there are {values.numel()} labels for {count} architectures; give one each")
    return [*values.tolist()]


def _float(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64, device="cpu")
