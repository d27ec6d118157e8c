r"""An Optuna sampler that proposes architectures by a predictor."""

from __future__ import annotations

import itertools
import math
import time
from collections import ChainMap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from pyg_nas_np.convnp import ConvNPPredictor
from pyg_nas_np.integrations.optuna._encodings import (
    Encoding,
    PoolEncoding,
    StudyEncoding,
    Values,
    encoding_of,
)
from pyg_nas_np.predictors import Architectures, Predictor
from pyg_nas_np.predictors.inputs import ArchitecturesLike, as_architectures
from pyg_nas_np.search.predictor_search import Acquisition, PredictorSearch
from pyg_nas_np.spaces import ParameterSpace, SearchSpace
from pyg_nas_np.spaces.base import ArchT
from pyg_nas_np.utils import InvalidArchitectureError, require

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial, TrialState
else:
    optuna = require("optuna", "search")
    BaseSampler = optuna.samplers.BaseSampler
    TrialState = optuna.trial.TrialState

ARCH = "arch"
"""Name of the parameter that holds an architecture, where one parameter does."""

CLAIM = "pyg_nas_np:claim"
"""System attribute of a trial: the values that it claims, and whether the claim is final; ``None`` if withdrawn."""

POLL_SECONDS = 0.02
"""Seconds between two checks of an undecided claim."""

PATIENCE_SECONDS = 10.0
"""Seconds after which the worker of an undecided claim is assumed dead; the claim remains valid."""

COMPLETIONS = 1024
"""Completions of an enqueued trial that is given in part, among which the best is chosen."""

_DONORS = 4
_TRIES = 20


def suggest_arch(trial: Trial, space: SearchSpace[ArchT], name: str = ARCH) -> ArchT:
    r"""Returns the architecture of a trial, whatever the space.

    - **A space of configurations** (:class:`~pyg_nas_np.spaces.ParameterSpace`): one parameter of the trial for each
      active parameter. Layer ``i`` of a list ``layers`` has the parameters ``layers_i_width`` and so on (``width_i``
      if the list ``width`` has nothing else), a list of variable length ``layers_length``, an optional parameter
      ``width_used``.
    - **A space with an official index**: one integer.
    - **Any other space**: Optuna has no parameter with 10^20 choices. The architecture is the user attribute
      :obj:`name` of the trial, as text; the dashboard shows it. The integer parameter :obj:`name` seeds a draw from the
      space, in case that no :class:`ConvNPSampler` has proposed an architecture. To enqueue one, call
      ``study.enqueue_trial({}, user_attrs={"arch": space.to_str(arch)})``.

    It works with every sampler of Optuna.

    Args:
        trial: The trial.
        space: The search space.
        name: Name of the parameter, where there is only one.

    Raises:
        InvalidSpaceError: If two parameters of a configuration would have one name in the trial.
    """
    arch: ArchT = encoding_of(space, name).suggest(trial)
    return arch


def suggest_candidate(trial: Trial, pool: Sequence[ArchT], name: str = ARCH) -> ArchT:
    r"""Returns one of a list of candidates: one integer parameter, its position.

    Args:
        trial: The trial.
        pool: The candidates, in the order that they have in :class:`ConvNPSampler`.
        name: Name of the parameter.
    """
    return pool[trial.suggest_int(name, 0, len(pool) - 1)]


def arch_of(trial: FrozenTrial, space: SearchSpace[ArchT], name: str = ARCH) -> ArchT:
    r"""Returns the architecture of a stored trial, for example of ``study.best_trial``.

    Raises:
        InvalidArchitectureError: If the trial has none.
    """
    encoding = encoding_of(space, name)
    arch: ArchT | None = encoding.read(encoding.values(trial))
    if arch is None:
        raise InvalidArchitectureError(f"trial {trial.number} has no architecture of {space.name}, only {trial.params}")
    return arch


class ConvNPSampler(BaseSampler):
    r"""Proposes what to try next by a predictor fitted to the finished trials of a study.

    There are three ways to say what a trial may try:

    - **Nothing** (``ConvNPSampler()``): any objective that suggests its parameters, architecture and learning rate, as
      for Optuna's own samplers. The space is inferred from the trials so far. A parameter that only trials with some
      value of another one suggested is taken as conditional on it. A proposal holds all parameters that its trial is
      expected to suggest; those that it does not suggest are dropped. :obj:`independent_sampler` draws what it
      suggests beside them: parameters never seen, and values outside the range of a trial, as ranges may change from
      trial to trial (the space has their union).
    - **A space** (``ConvNPSampler(space)``), with :func:`suggest_arch` in the objective. Parameters that do not belong
      to it are drawn by :obj:`independent_sampler`; to search them jointly, declare them in a
      :class:`~pyg_nas_np.spaces.ParameterSpace`.
    - **A pool** (``ConvNPSampler(candidates=...)``), with :func:`suggest_candidate`.

    The sampler has no state: it reads the study, so any number of threads and processes can share one study through its
    storage. Running trials count as measured at their predicted values. Failed and pruned ones are not repeated. Their
    values are not used, because the last report of a pruned trial is not its final value. What ``study.enqueue_trial``
    fixes in part is completed by the predictor, chosen among :data:`COMPLETIONS` random ones.

    **Nothing is proposed twice** while others are left. A trial writes its proposal to the storage as a claim, then
    reads the claims of all other trials. If another claim on the same architecture is final or belongs to an earlier
    trial, it withdraws and proposes again. If the other claim belongs to a later trial, it waits for its withdrawal. It
    makes its claim final only if there is no other. Of two trials with equal claims, the second to write reads the
    claim of the first, so not both can be final. Neither clocks nor locks are needed, only a storage that is
    consistent: after a write, a worker sees everything written before. Every Optuna storage on one server or file is,
    but not one that reads from a replica. The claim of a dead worker remains until Optuna marks its trial as failed.
    Without a declared space this holds for what is proposed, not for what :obj:`independent_sampler` draws, such as the
    first trials before any has suggested a parameter. An objective must suggest the same when it gets the same values.

    Args:
        space: The search space. (default: inferred from the study)
        predictor: The predictor. (default: :class:`~pyg_nas_np.convnp.ConvNPPredictor` without stacking)
        candidates: The pool: whatever a predictor takes as architectures (records, graphs, modules, indices, a data
            set), equal ones once. Their space is :obj:`space`, or else inferred.
        acquisition: As for :class:`~pyg_nas_np.search.PredictorSearch`.
        beta: As for :class:`~pyg_nas_np.search.PredictorSearch`.
        n_startup_trials: Number of trials that are drawn at random.
        name: Name of the parameter given to :func:`suggest_arch` or :func:`suggest_candidate`.
        independent_sampler: Sampler of all other parameters. (default: an unseeded
            :class:`optuna.samplers.RandomSampler`, because workers with one seed would draw the same values)
        seed: Seed of the proposals; the same for all workers.

    Raises:
        MissingExtraError: When this module is imported, if Optuna is not installed.
        InvalidArchitectureError: If a candidate is not an architecture of the space.
        ValueError: If there are no candidates, or a number is out of range; at the first trial, if the study has more
            than one objective, or was made for another space.

    Example:
        >>> import optuna
        >>> from pyg_nas_np.integrations.optuna import ConvNPSampler, suggest_arch
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> def objective(trial):
        ...     loss = abs(trial.suggest_int("depth", 2, 12) - 7) + trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        ...     if trial.suggest_categorical("block", ["conv", "mbconv"]) == "mbconv":
        ...         loss -= trial.suggest_int("expand", 1, 6) / 6
        ...     return loss
        >>> study = optuna.create_study(sampler=ConvNPSampler(n_startup_trials=6))
        >>> study.optimize(objective, n_trials=10)
        >>> len({tuple(trial.params.items()) for trial in study.trials})
        10
        >>> from pyg_nas_np.predictors import GPPredictor
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> study = optuna.create_study(direction="minimize", sampler=ConvNPSampler(space, GPPredictor()))
        >>> study.optimize(lambda trial: space.flops(suggest_arch(trial, space)), n_trials=15)
        >>> len(study.trials)
        15
    """

    def __init__(
        self,
        space: SearchSpace[Any] | None = None,
        predictor: Predictor | None = None,
        *,
        candidates: ArchitecturesLike | None = None,
        acquisition: Acquisition = "ucb",
        beta: float = 1.5,
        n_startup_trials: int = 10,
        name: str = ARCH,
        independent_sampler: BaseSampler | None = None,
        seed: int = 0,
    ) -> None:
        self.seed = seed
        # Training networks at every suggestion is not worth its time.
        self._predictor = ConvNPPredictor(stacking=False) if predictor is None else predictor
        self._options: dict[str, Any] = {
            "acquisition": acquisition,
            "beta": beta,
            "initial": n_startup_trials,
            "seed": seed,
        }
        self._independent = independent_sampler or optuna.samplers.RandomSampler()
        self._encoding: Encoding | None = None
        self._searches: dict[bool, PredictorSearch[Any]] = {}
        if isinstance(candidates, Sequence) and not candidates:
            raise ValueError("candidates is empty; give at least one architecture, or none to search without a pool")
        if candidates is not None:
            self._encoding = PoolEncoding(as_architectures(candidates, space), name)
        elif space is not None:
            self._encoding = encoding_of(space, name)
        if self._encoding is None:
            # Wrong options are refused here rather than at a trial.
            self._new_search(ParameterSpace(any=[0]), True)
        else:
            pool = self._encoding.candidates
            self._searches = {
                maximize: self._new_search(self._encoding.space, maximize, pool) for maximize in (True, False)
            }

    def _new_search(
        self, space: SearchSpace[Any], maximize: bool, candidates: Architectures | Sequence[Any] | None = None
    ) -> PredictorSearch[Any]:
        given: Any = candidates.given if isinstance(candidates, Architectures) else candidates
        return PredictorSearch(space, self._predictor, candidates=given, maximize=maximize, **self._options)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        r"""Returns the parameters of the space; without one, all that any trial of the study has suggested."""
        encoding = self._encoding_of(_others(study, trial))
        return {} if encoding is None else encoding.distributions

    def _encoding_of(self, others: Sequence[FrozenTrial]) -> Encoding | None:
        """None as long as nothing is known."""
        if self._encoding is None:
            return StudyEncoding(others) if any(other.distributions for other in others) else None
        for other in others:
            self._encoding.check(other)
        return self._encoding

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        r"""Returns the parameters of the proposal for a trial.

        Raises:
            ValueError: If the study has more than one objective, or was made for another space.
        """
        if len(study.directions) != 1:
            raise ValueError(f"ConvNPSampler needs a study with one objective, this one has {len(study.directions)}")
        settled = self._settle(study, trial)
        if settled is None:
            return {}
        encoding, values = settled
        for name, value in encoding.attributes(values).items():
            study._storage.set_trial_user_attr(trial._trial_id, name, value)
            trial.user_attrs[name] = value  # The objective's trial does not read the storage again.
        # Another trial may have suggested something new meanwhile.
        return {name: value for name, value in encoding.params(values, trial).items() if name in search_space}

    def _settle(self, study: Study, trial: FrozenTrial) -> tuple[Encoding, Values] | None:
        """The values that a trial has claimed; None if there is nothing to propose."""
        for attempt in itertools.count():
            encoding = self._encoding_of(_others(study, trial))
            if encoding is None:
                return None
            known = encoding.values(trial)
            given = {name: value for name, value in known.items() if not encoding.distributions[name].single()}
            if encoding is self._encoding and encoding.read(given) is not None:
                return None
            values = self._propose(study, trial, encoding, given, attempt)
            # If everything is taken, something must be repeated.
            if values is None or self._claim(study, trial, values):
                return None if values is None else (encoding, values)
        raise AssertionError("unreachable")

    def _propose(
        self, study: Study, trial: FrozenTrial, encoding: Encoding, given: Values, attempt: int
    ) -> Values | None:
        """The best values that no other trial holds; None if there are none."""
        helds = [held for other in _others(study, trial) if (held := _held(other, encoding)) is not None]
        generator = self._generator(trial, attempt)
        maximize = study.direction == optuna.study.StudyDirection.MAXIMIZE
        values = self._best(encoding, maximize, helds, given, generator)
        if values is None or encoding.is_full(values):
            return values
        # What only some trials suggest is proposed in any case.
        return self._best(encoding, maximize, helds, values, generator) or values

    def _best(
        self, encoding: Encoding, maximize: bool, helds: Sequence[_Held], given: Values, generator: torch.Generator
    ) -> Values | None:
        done = [held for held in helds if held.y is not None]
        if given:
            search = self._completing(encoding, maximize, given, [held.values for held in done], generator)
        elif self._searches:
            search = self._searches[maximize].fresh()
        else:
            search = self._new_search(encoding.space, maximize)
        if search is None:
            return None
        search.generator = generator
        for held in helds:
            if held.arch is not None and held.y is None:
                (search.discard if held.ended else search.reserve)([held.arch])
        if done:
            search.tell([held.arch for held in done], [held.y for held in done])
        if encoding is not self._encoding and search.candidates is not None:
            # Trials that suggest less than expected would be the same.
            every = list(search.candidates)
            search.discard([a for a in every if any(held.clashes(encoding.write(a), encoding) for held in helds)])
        for _ in range(_TRIES):
            proposed = search.ask()
            if not proposed:
                return None
            values = {**encoding.write(proposed[0]), **given}
            if not any(held.clashes(values, encoding) for held in helds):
                return values
            search.discard(proposed)
        return None

    def _completing(
        self, encoding: Encoding, maximize: bool, given: Values, done: Sequence[Values], generator: torch.Generator
    ) -> PredictorSearch[Any] | None:
        """A search among completions of what is given."""
        drawn = [encoding.write(arch) for arch in encoding.space.sample(COMPLETIONS, generator, replace=True)]
        values = [*done, *drawn]
        found: dict[Any, None] = {}
        for i in range(len(values)):
            # What one does not have may come from the next ones.
            others = ChainMap(*(values[(i + k) % len(values)] for k in range(_DONORS)))
            arch = encoding.completed(given, others)
            if arch is not None:
                found[arch] = None
        return self._new_search(encoding.space, maximize, list(found)) if found else None

    def _claim(self, study: Study, trial: FrozenTrial, values: Values) -> bool:
        """Claims values; returns whether the claim is final."""

        def write(claim: list[Values | bool] | None) -> None:
            study._storage.set_trial_system_attr(trial._trial_id, CLAIM, claim)

        write([values, False])
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            others = _others(study, trial)
            encoding = self._encoding_of(others)
            assert encoding is not None  # There is a proposal, so something is known.
            held_by = {other.number: _held(other, encoding) for other in others}
            rivals = {number: held for number, held in held_by.items() if held and held.clashes(values, encoding)}
            if not rivals:
                write([values, True])
                return True
            if min(rivals) < trial.number or any(held.kept for held in rivals.values()) or time.monotonic() > deadline:
                write(None)
                return False
            time.sleep(POLL_SECONDS)

    def _generator(self, trial: FrozenTrial, attempt: int) -> torch.Generator:
        # Trials that start together break ties differently, but reproducibly when a study is repeated.
        state = np.random.SeedSequence([self.seed % (1 << 63), trial.number, attempt]).generate_state(1)
        return torch.Generator("cpu").manual_seed(int(state[0]))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        r"""Delegates to the sampler of the other parameters."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        r"""Reseeds the sampler of the other parameters; the proposals depend only on the study."""
        self._independent.reseed_rng()


class _Held(NamedTuple):
    """What a trial has measured, will measure, or claims."""

    values: Values
    arch: Any | None
    """The architecture, if it is one of the space as it is known now."""
    y: float | None = None
    """The measurement, if it is one."""
    kept: bool = True
    """Whether the claim is final."""
    ended: bool = False
    whole: bool = True
    """Whether the trial suggests nothing else."""

    def clashes(self, values: Values, encoding: Encoding) -> bool:
        """Whether a trial with these values would be the same, as far as one can tell."""
        if not self.whole:
            return self.values == values
        # Nobody knows yet whether a running trial suggests what only some trials do.
        mine = self.values if self.ended else encoding.essential(self.values)
        # An objective suggests the same as long as it gets the same values.
        return all(mine[name] == values[name] for name in mine.keys() & values.keys())


def _held(trial: FrozenTrial, encoding: Encoding) -> _Held | None:
    """None if the trial has no architecture, or has withdrawn its claim."""
    values = encoding.values(trial)
    claim: tuple[Values, bool] = trial.system_attrs.get(CLAIM) or ({}, True)
    claimed, kept = claim
    ended = trial.state.is_finished()
    whole = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    if not whole and claimed and (values or not ended):
        # It may have stopped before it suggested everything.
        whole = not ended or values.items() <= claimed.items()
        values = {**claimed, **values}
    if not values:
        return None
    arch = encoding.read(values)
    measured = trial.state == TrialState.COMPLETE and trial.value is not None and math.isfinite(trial.value)
    return _Held(
        values if arch is None else encoding.write(arch),
        arch,
        trial.value if measured and arch is not None else None,
        ended or kept,
        ended,
        whole,
    )


def _others(study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
    # From the storage, because a pruner may show a sampler only a part of the study.
    trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
    return [other for other in trials if other.number != trial.number]
