r"""An Optuna sampler and its pruner for searches within a budget of trainings, cheap ones included."""

from __future__ import annotations

import logging
import math
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pyg_nas_np.integrations.optuna._encodings import encoding_of
from pyg_nas_np.integrations.optuna.sampler import ARCH, POLL_SECONDS, suggest_arch
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.search.budgeted import FAILURES, Training
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.base import ArchT
from pyg_nas_np.utils import InvalidFidelityError, InvalidLabelsError, experimental, require

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial, TrialState
else:
    optuna = require("optuna", "search")
    BaseSampler = optuna.samplers.BaseSampler
    BasePruner = optuna.pruners.BasePruner
    TrialState = optuna.trial.TrialState

logger = logging.getLogger(__name__)

CLAIM = "pyg_nas_np:training"
"""System attribute of a trial: the training that it runs; ``None`` if nothing was left to run."""

PATIENCE_SECONDS = 60.0
"""Seconds after which the worker of an earlier trial without a claim is assumed dead."""

_SPENT = "the budget is spent, or everything is trained; the study ends"


def suggest_training(trial: Trial, space: SearchSpace[ArchT], name: str = ARCH) -> Training[ArchT]:
    r"""Returns the training that a trial is to run: the architecture, its level, and the level to go on from.

    The architecture has the parameters of :func:`~pyg_nas_np.integrations.optuna.suggest_arch`; level, start and price
    are user attributes of the trial, which dashboards show.

    Args:
        trial: A trial of a study with a :class:`BudgetedSampler`.
        space: The search space.
        name: Name of the parameter, where there is only one.

    Raises:
        optuna.TrialPruned: If the budget is spent; the study ends.
        ValueError: If the study has no :class:`BudgetedSampler`.
    """
    attributes = trial.user_attrs
    if "level" not in attributes:
        if isinstance(trial, optuna.Trial) and isinstance(trial.study.sampler, BudgetedSampler):
            raise optuna.TrialPruned(_SPENT)
        raise ValueError("the trial has no level; create its study with sampler=BudgetedSampler(...)")
    return Training(suggest_arch(trial, space, name), attributes["level"], attributes["start"], attributes["price"])


@experimental
class BudgetedSampler(BaseSampler):
    r"""Decides which architecture a trial trains, and to which level, by a :class:`~pyg_nas_np.search.BudgetedSearch`.

    A trial is one training. It suggests its architecture by :func:`suggest_training`, reports each label with
    ``trial.report(label, step)``, where the step is what is trained so far (epochs, counted from 1), and asks
    ``trial.should_prune()``. :class:`BudgetedPruner` ends it at its level; only trainings to the last level are
    complete, so that ``study.best_trial`` is one of them. ``study.optimize`` ends when the budget is spent.

    **A promotion is a new trial** with the same architecture and a higher level, because Optuna cannot resume a trial,
    and what is worth a promotion is known only after other trials. If the fidelity is continued, only the difference is
    paid for: the objective then loads the checkpoint that it wrote for the architecture (its text
    ``space.to_str(arch)`` is a name) at ``training.start``, and the levels that it passes count as labels too.

    **Any number of threads and processes** may share a study. The only state is its storage: the search is built anew
    from the trials before each decision. A decision waits for those of the running trials with smaller numbers, so that
    each knows of all before it: no training is proposed twice, and the budget is never exceeded. Every worker needs the
    same arguments; the budget may be raised later.

    **Failures.** A trial whose worker died is *failed* by Optuna where the storage has a heartbeat (``RDBStorage``),
    otherwise by ``study.tell(number, state=optuna.trial.TrialState.FAIL)``. Its training is freed and may be proposed
    again; the labels that it reported count and stay paid. After ``FAILURES`` (3) failures without any label the
    architecture counts as diverged. So does one whose last report is NaN or infinite; the pruner ends its trial at
    once. Optuna keeps the first of two reports at one step, and refuses those of a trial that was failed. The value of
    a complete trial is the label of its level if it reported none there.

    **What you add.** Labels of finished trials that others added are used at no price. An enqueued architecture
    (``study.enqueue_trial``, all parameters of it) is trained to the last level.

    Args:
        space: The search space.
        fidelity: The levels, whole numbers, and their prices.
        budget: The total price, in full trainings unless there is a price by architecture.
        name: Name of the parameter given to :func:`suggest_training`.
        independent_sampler: Sampler of all other parameters. (default: :class:`optuna.samplers.RandomSampler`)
        seed: Seed of the proposals; the same for all workers.
        options: Further arguments of :class:`~pyg_nas_np.search.BudgetedSearch`.

    Raises:
        MissingExtraError: When this module is imported, if Optuna is not installed.
        InvalidFidelityError: If a level is not a whole number, as Optuna's steps are.
        ValueError: If an argument is out of range; at a trial, if the study has several objectives or another pruner,
            or was made for other levels or another space.

    Example:
        >>> import optuna
        >>> from pyg_nas_np.spaces import Integer, ParameterSpace
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> space = ParameterSpace(depth=Integer(1, 9), width=Integer(8, 64, step=8))
        >>> def objective(trial):
        ...     arch, level, start, _ = suggest_training(trial, space)
        ...     for epoch in range(1, int(level) + 1):
        ...         accuracy = (1 - 0.7**epoch) / (1 + abs(arch["depth"] - 5))
        ...         trial.report(accuracy, epoch)
        ...         if trial.should_prune():
        ...             raise optuna.TrialPruned
        ...     return accuracy
        >>> sampler = BudgetedSampler(space, Fidelity("epochs", (2, 20)), budget=4, initial=10)
        >>> study = optuna.create_study(direction="maximize", sampler=sampler, pruner=BudgetedPruner())
        >>> study.optimize(objective)
        >>> study.best_trial.user_attrs["level"], sampler.search(study).spent <= 4
        (20.0, True)
    """

    def __init__(
        self,
        space: SearchSpace[Any],
        fidelity: Fidelity,
        budget: float,
        *,
        name: str = ARCH,
        independent_sampler: BaseSampler | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        # Wrong arguments are refused here rather than at a trial.
        self._searches = {
            maximize: BudgetedSearch(space, fidelity, budget, maximize=maximize, seed=seed, **options)
            for maximize in (True, False)
        }
        for level in fidelity.levels:
            if level % 1:
                raise InvalidFidelityError(
                    f"{fidelity.name} {level:g} cannot be a step of Optuna, which are whole numbers; choose another "
                    f"unit, such as percent"
                )
        self.fidelity, self.seed = fidelity, seed
        self._encoding = encoding_of(space, name)
        self._independent = independent_sampler or optuna.samplers.RandomSampler()
        self._empty = {maximize: search.state_dict() for maximize, search in self._searches.items()}
        self._dead: set[int] = set()
        self._lock = threading.RLock()

    # -- the search -------------------------------------------------------------------------------------------------

    def search(self, study: Study) -> BudgetedSearch[Any]:
        r"""Returns the search as the trials of a study leave it: what is spent, pending, measured, best.

        It is the sampler's own, and changes with the next trial.
        """
        with self._lock:
            return self._replayed(study, study.get_trials(deepcopy=False), torch.Generator("cpu"))

    def _replayed(self, study: Study, trials: Sequence[FrozenTrial], generator: torch.Generator) -> BudgetedSearch[Any]:
        maximize = study.direction == optuna.study.StudyDirection.MAXIMIZE
        search = self._searches[maximize]
        told: list[tuple[Any, int, float]] = []
        pending, queue, spent = [], [], 0.0
        failures: Counter[Any] = Counter()
        for trial in trials:
            self._encoding.check(trial)
            claim = trial.system_attrs.get(CLAIM)
            if claim is None:
                if CLAIM not in trial.system_attrs and trial.state.is_finished():
                    told += self._given(search, trial)
                continue
            if tuple(claim["levels"]) != self.fidelity.levels:
                raise ValueError(
                    f"trial {trial.number} has the levels {claim['levels']}, the sampler {[*self.fidelity.levels]}; "
                    f"use one study for one fidelity"
                )
            (key, position, price), queue = claim["training"], claim["queue"]
            labels = self._labels(trial, claim)
            told += [(key, at, y) for at, y in labels.items()]
            spent += price
            if position in labels:
                continue
            if not trial.state.is_finished():
                pending.append([key, position, price])
                continue
            failures[key] += not labels
            if failures[key] >= FAILURES:
                told.append((key, position, math.nan))
                continue
            # Freed; what it measured is paid for.
            start = None if claim["start"] is None else self.fidelity.levels.index(claim["start"])
            paid = self.fidelity.price(max(labels), start) if labels else 0.0
            spent -= price * (1.0 - paid / self.fidelity.price(position, start))
        known = {(key, position) for key, position, _ in [*told, *pending]}
        diverged = {key for key, _, y in told if not math.isfinite(y)}
        search.load_state_dict(
            {
                **self._empty[maximize],
                "spent": max(spent, 0.0),
                "told": [key for key, _, _ in told],
                "positions": [position for _, position, _ in told],
                "y": [y for _, _, y in told],
                "pending": pending,
                "queue": [step for step in queue if (step[0], step[1]) not in known and step[0] not in diverged],
                "generator": generator.get_state(),
            }
        )
        return search

    def _labels(self, trial: FrozenTrial, claim: dict[str, Any]) -> dict[int, float]:
        """The labels of a trial by the position of their levels."""
        position = claim["training"][1]
        reports = trial.intermediate_values
        last = None if trial.last_step is None else reports[trial.last_step]
        if last is not None and not math.isfinite(last):
            return {position: math.nan}
        # On a schedule of its own a training that passes a level is not one of this level.
        counted = range(position + 1) if self.fidelity.continued else (position,)
        found = {at: reports[step] for at in counted if (step := int(self.fidelity.levels[at])) in reports}
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            found.setdefault(position, trial.value)
        return found

    def _given(self, search: BudgetedSearch[Any], trial: FrozenTrial) -> list[tuple[Any, int, float]]:
        """The labels of a trial that no budgeted sampler proposed."""
        arch = self._encoding.read(self._encoding.values(trial))
        steps = [at for at, level in enumerate(self.fidelity.levels) if int(level) in trial.intermediate_values]
        value = trial.value if trial.state == TrialState.COMPLETE else None
        if arch is None or (value is None and not steps):
            return []
        (key,) = search._written(search._keys([arch]))
        counted = steps if self.fidelity.continued else steps[-1:]
        labels = {at: trial.intermediate_values[int(self.fidelity.levels[at])] for at in counted}
        if value is not None:
            labels = {**(labels if self.fidelity.continued else {}), self.fidelity.top: value}
        return [(key, at, y) for at, y in labels.items()]

    # -- decisions --------------------------------------------------------------------------------------------------

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        r"""Decides what a trial trains, and writes that to the storage.

        Raises:
            ValueError: If the study has several objectives or another pruner, or was made for other levels or another
                space.
        """
        try:
            if len(study.directions) != 1:
                raise ValueError(f"BudgetedSampler needs one objective, this study has {len(study.directions)}")
            if not isinstance(study.pruner, BudgetedPruner):
                raise ValueError(
                    f"BudgetedSampler needs pruner=BudgetedPruner() to end trainings at their levels, this study has "
                    f"{type(study.pruner).__name__}"
                )
            claim = self._claim(study, trial)
        except Exception:
            study.tell(trial.number, state=TrialState.FAIL)
            raise
        if claim is not None:
            _, position, price = claim["training"]
            level, attributes = claim["levels"][position], self._encoding.attributes(claim["values"])
            attributes = {**attributes, "level": level, "start": claim["start"], "price": price}
            for name, value in attributes.items():
                study._storage.set_trial_user_attr(trial._trial_id, name, value)
                trial.user_attrs[name] = value  # The objective's trial does not read the storage again.
        elif not self._encoding.values(trial):
            try:
                study.stop()
            except RuntimeError:
                logger.info("%s", _SPENT)  # Asked without a loop.

    def _claim(self, study: Study, trial: FrozenTrial) -> dict[str, Any] | None:
        """The training that a trial has claimed."""
        attempt = 0
        while True:
            others = self._decided(study, trial)
            claim, waits = self._decision(study, trial, others, attempt)
            if waits:
                self._wait_for_change(study, others)
                continue
            study._storage.set_trial_system_attr(trial._trial_id, CLAIM, claim)
            trial.system_attrs[CLAIM] = claim
            if claim is None or not self._conflicts(study, trial, claim, _claims(others)):
                return claim
            attempt += 1

    def _conflicts(self, study: Study, trial: FrozenTrial, claim: dict[str, Any], known: dict[int, Any]) -> bool:
        """Whether a claim contradicts one that its decision did not know; only an overtaken trial's does.

        Of two trials that claim at once, the second to write reads the claim of the first, so not both can miss it.
        """
        others = _others(study, trial)
        new = [other for number, other in _claims(others).items() if known.get(number) != other]
        if not new or any(other["training"][0] == claim["training"][0] for other in new):
            return bool(new)
        with self._lock:
            search = self._replayed(study, [*others, trial], torch.Generator("cpu"))
            return search.spent > search.budget + 1e-9

    def _decided(self, study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
        """All other trials, when those with smaller numbers have their claims."""
        waited_for: set[int] = set()
        deadline = math.inf
        while True:
            others = _others(study, trial)
            missing = {
                other.number
                for other in others
                if other.number < trial.number
                and other.state == TrialState.RUNNING
                and CLAIM not in other.system_attrs
                and other.number not in self._dead
            }
            if not missing:
                return others
            if missing != waited_for:
                waited_for, deadline = missing, time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() > deadline:
                self._dead |= missing
            time.sleep(POLL_SECONDS)

    def _decision(
        self, study: Study, trial: FrozenTrial, others: Sequence[FrozenTrial], attempt: int
    ) -> tuple[dict[str, Any] | None, bool]:
        """A claim; without one whether a running training may bring something to do."""
        state = np.random.SeedSequence([self.seed % (1 << 63), trial.number, attempt]).generate_state(1)
        with self._lock:
            search = self._replayed(study, others, torch.Generator("cpu").manual_seed(int(state[0])))
            if given := self._encoding.values(trial):
                training = self._enqueued(search, trial, given)
            else:
                training = next(iter(search.ask()), None)
            if training is None:
                return None, not given and _may_go_on(search)
            written = search.state_dict()
        return {
            "training": written["pending"][-1],
            "start": training.start,
            "levels": [*self.fidelity.levels],
            "values": self._encoding.write(training.arch),
            "queue": written["queue"],
        }, False

    def _enqueued(self, search: BudgetedSearch[Any], trial: FrozenTrial, given: dict[str, Any]) -> Training[Any] | None:
        arch = self._encoding.read(given)
        if arch is None:
            raise ValueError(
                f"trial {trial.number} was enqueued with {given}, which is no whole architecture of "
                f"{search.space.name}; give all its parameters"
            )
        try:
            return search.reserve([arch], self.fidelity.levels[-1])[0]
        except ValueError as error:
            logger.warning("trial %d was enqueued, but is pruned: %s", trial.number, error)
            return None

    def _wait_for_change(self, study: Study, others: Sequence[FrozenTrial]) -> None:
        before = {other.number: other.state for other in others}
        running = [number for number, state in before.items() if state == TrialState.RUNNING]
        logger.info("what is next depends on the running trials %s; fail those whose workers died", running)
        while {
            other.number: other.state for other in study.get_trials(deepcopy=False) if other.number in before
        } == before:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                optuna.storages.fail_stale_trials(study)
            time.sleep(5 * POLL_SECONDS)

    # -- Optuna's protocol ------------------------------------------------------------------------------------------

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        r"""Returns the parameters of the space."""
        return self._encoding.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        r"""Returns the parameters of the architecture that the trial trains.

        Raises:
            optuna.TrialPruned: If the budget is spent.
        """
        claim = trial.system_attrs.get(CLAIM)
        if claim is None:
            raise optuna.TrialPruned(_SPENT)
        return self._encoding.params(claim["values"], trial)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        r"""Delegates to the sampler of the other parameters."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        r"""Checks that only trainings to the last level are complete.

        Raises:
            InvalidLabelsError: If another one is, because Optuna would compare its value with theirs.
        """
        claim = trial.system_attrs.get(CLAIM)
        if state == TrialState.COMPLETE and claim is not None and claim["training"][1] != self.fidelity.top:
            level = claim["levels"][claim["training"][1]]
            raise InvalidLabelsError(
                f"trial {trial.number} returned its label at {self.fidelity.name} {level:g}, and Optuna would compare "
                f"it with those at {self.fidelity.levels[-1]:g}; report it, then raise TrialPruned if should_prune()"
            )

    def reseed_rng(self) -> None:
        r"""Reseeds the sampler of the other parameters; the proposals depend only on the study."""
        self._independent.reseed_rng()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())


@experimental
class BudgetedPruner(BasePruner):
    r"""Ends each trial of a :class:`BudgetedSampler` at the level that it was to reach, or where it diverges.

    It has neither arguments nor state: the level is an attribute of the trial. A trial at the last level goes on to its
    end, so that it is complete.

    Example:
        >>> import optuna
        >>> study = optuna.create_study(pruner=BudgetedPruner())
    """

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        r"""Returns whether the trial ends; called by ``trial.should_prune``.

        Raises:
            InvalidLabelsError: If the trial reports beyond the last level, or left out the level that it was to reach.
        """
        step = trial.last_step
        if CLAIM not in trial.system_attrs or step is None:
            return False
        claim = trial.system_attrs[CLAIM]
        if claim is None or not math.isfinite(trial.intermediate_values[step]):
            return True
        level, last = int(claim["levels"][claim["training"][1]]), int(claim["levels"][-1])
        if step > last:
            raise InvalidLabelsError(
                f"trial {trial.number} reports at step {step}, beyond the last level {last}; end the training there"
            )
        if step > level and level not in trial.intermediate_values:
            raise InvalidLabelsError(
                f"trial {trial.number} reports at step {step}, but left out {level}, the level that it was to reach; "
                f"report at every level"
            )
        return step >= level and level < last


def _others(study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
    trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
    return sorted((other for other in trials if other.number != trial.number), key=lambda other: other.number)


def _claims(trials: Sequence[FrozenTrial]) -> dict[int, Any]:
    return {trial.number: trial.system_attrs[CLAIM] for trial in trials if trial.system_attrs.get(CLAIM) is not None}


def _may_go_on(search: BudgetedSearch[Any]) -> bool:
    """Whether the rest of the budget pays for the promotion of a pending training."""
    fidelity = search.fidelity
    for _, level, start, price in search.pending:
        position = fidelity.levels.index(level)
        share = fidelity.price(position, None if start is None else fidelity.levels.index(start))
        if position < fidelity.top and price / share * fidelity.price(fidelity.top, position) <= search.left + 1e-9:
            return True
    return False
