r"""An Optuna sampler that proposes architectures by a predictor."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from pyg_nas_np.convnp import ConvNPPredictor
from pyg_nas_np.predictors import Predictor
from pyg_nas_np.search.predictor_search import Acquisition, PredictorSearch
from pyg_nas_np.spaces import EnumerableSpace
from pyg_nas_np.spaces.base import ArchT
from pyg_nas_np.utils import require

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution, IntDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial, TrialState
else:
    optuna = require("optuna", "search")
    IntDistribution = optuna.distributions.IntDistribution
    BaseSampler = optuna.samplers.BaseSampler
    TrialState = optuna.trial.TrialState

ARCH = "arch"
"""Name of the parameter that holds an architecture."""

CLAIM = "pyg_nas_np:claim"
"""System attribute of a trial: the index that it claims, and whether the claim is final; ``None`` if withdrawn."""

POLL_SECONDS = 0.02
"""Seconds between two checks of an undecided claim."""

PATIENCE_SECONDS = 10.0
"""Seconds after which the worker of an undecided claim is assumed dead; the claim remains valid."""


def suggest_arch(trial: Trial, space: EnumerableSpace[ArchT], name: str = ARCH) -> ArchT:
    r"""Returns the architecture of a trial: one integer parameter, its official index.

    Args:
        trial: The trial.
        space: The search space.
        name: Name of the parameter.
    """
    return space[trial.suggest_int(name, 0, len(space) - 1)]


def arch_of(trial: FrozenTrial, space: EnumerableSpace[ArchT], name: str = ARCH) -> ArchT:
    r"""Returns the architecture of a stored trial, for example of ``study.best_trial``."""
    return space[int(trial.params[name])]


class ConvNPSampler(BaseSampler):
    r"""Samples architectures by a predictor fitted to the finished trials of a study.

    The sampler has no state: it reads the study, so any number of threads and processes can share one study through its
    storage. Architectures of running trials count as measured at their predicted values. Those of failed and pruned
    trials are not repeated. Their values are not used, because the last report of a pruned trial is not its final
    value.

    **No architecture is proposed twice** while others are left. A trial writes its proposal to the storage as a claim,
    then reads the claims of all other trials. If another claim on the same architecture is final or belongs to an
    earlier trial, it withdraws and proposes again. If the other claim belongs to a later trial, it waits for its
    withdrawal. It makes its claim final only if there is no other. Of two trials with equal claims, the second to write
    reads the claim of the first, so not both can be final. Neither clocks nor locks are needed, only a storage that is
    consistent: after a write, a worker sees everything written before. Every Optuna storage on one server or file is,
    but not one that reads from a replica. The claim of a dead worker remains until Optuna marks its trial as failed.

    Parameters other than the architecture are sampled by :obj:`independent_sampler`.

    Args:
        space: The search space.
        predictor: The predictor. (default:
            :class:`~pyg_nas_np.convnp.ConvNPPredictor` with shipped weights, without stacking)
        acquisition: As for :class:`~pyg_nas_np.search.PredictorSearch`.
        beta: As for :class:`~pyg_nas_np.search.PredictorSearch`.
        n_startup_trials: Number of trials with random architectures.
        name: Name of the parameter given to :func:`suggest_arch`.
        independent_sampler: Sampler of all other parameters. (default: an unseeded
            :class:`optuna.samplers.RandomSampler`, because workers with one seed would draw the same values)
        seed: Seed of the architectures; the same for all workers.

    Raises:
        MissingExtraError: When this module is imported, if Optuna is not installed.
        ValueError: At the first trial, if the study has more than one objective, or was made for another space.

    Example:
        >>> import optuna
        >>> from pyg_nas_np.predictors import GPPredictor
        >>> from pyg_nas_np.integrations.optuna import ConvNPSampler, suggest_arch
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> space = NASBench201Space()
        >>> study = optuna.create_study(direction="minimize", sampler=ConvNPSampler(space, GPPredictor()))
        >>> study.optimize(lambda trial: space.flops(suggest_arch(trial, space)), n_trials=15)
        >>> len(study.trials)
        15
    """

    def __init__(
        self,
        space: EnumerableSpace[Any],
        predictor: Predictor | None = None,
        *,
        acquisition: Acquisition = "ucb",
        beta: float = 1.5,
        n_startup_trials: int = 10,
        name: str = ARCH,
        independent_sampler: BaseSampler | None = None,
        seed: int = 0,
    ) -> None:
        self.space, self.name, self.seed = space, name, seed
        # Training networks at every suggestion is not worth its time.
        predictor = ConvNPPredictor(stacking=False) if predictor is None else predictor
        self._searches = {
            maximize: PredictorSearch(
                space,
                predictor,
                acquisition=acquisition,
                beta=beta,
                initial=n_startup_trials,
                maximize=maximize,
                seed=seed,
            )
            for maximize in (True, False)
        }
        self._independent = independent_sampler or optuna.samplers.RandomSampler()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        r"""Returns the parameter of the architecture."""
        return {self.name: IntDistribution(0, len(self.space) - 1)}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        r"""Returns the official index of the architecture to measure in a trial.

        Raises:
            ValueError: If the study has more than one objective, or was made for another space.
        """
        if len(study.directions) != 1:
            raise ValueError(f"ConvNPSampler needs a study with one objective, this one has {len(study.directions)}")
        if self.name not in search_space or self._given(trial) is not None:
            return {}  # The architecture is fixed already.
        maximize = study.direction == optuna.study.StudyDirection.MAXIMIZE
        attempt = 0
        while True:
            index = self._propose(study, trial, maximize, attempt)
            # If every architecture is taken, one must be repeated.
            if index is None:
                return {self.name: self.space.index(self.space.sample(1, self._generator(trial, attempt))[0])}
            if self._claim(study, trial, index):
                return {self.name: index}
            attempt += 1

    def _propose(self, study: Study, trial: FrozenTrial, maximize: bool, attempt: int) -> int | None:
        """Official index of the best architecture that no other trial holds; None if there is none."""
        search = self._searches[maximize].fresh()
        search.generator = self._generator(trial, attempt)
        wanted = IntDistribution(0, len(self.space) - 1)
        index: list[int] = []
        y: list[float] = []
        for other in _others(study, trial):
            if other.distributions.get(self.name, wanted) != wanted:
                raise ValueError(
                    f"trial {other.number} draws {self.name!r} from {other.distributions[self.name]}, {self.space!r} "
                    f"needs {wanted}; use one study for one space"
                )
            held = self._held(other)
            if held is None:
                continue
            if other.state == TrialState.COMPLETE and other.value is not None and math.isfinite(other.value):
                index.append(held.arch)
                y.append(other.value)
            elif other.state.is_finished():
                search.discard(torch.tensor([held.arch]))
            else:
                search.reserve(torch.tensor([held.arch]))
        if y:
            search.tell(torch.tensor(index), y)
        proposed = search.ask()
        return self.space.index(proposed[0]) if proposed else None

    def _claim(self, study: Study, trial: FrozenTrial, index: int) -> bool:
        """Claims an architecture; returns whether the claim is final."""

        def write(claim: list[int | bool] | None) -> None:
            study._storage.set_trial_system_attr(trial._trial_id, CLAIM, claim)

        write([index, False])
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            held = {other.number: self._held(other) for other in _others(study, trial)}
            rivals = {number: claim for number, claim in held.items() if claim is not None and claim.arch == index}
            if not rivals:
                write([index, True])
                return True
            if min(rivals) < trial.number or any(c.kept for c in rivals.values()) or time.monotonic() > deadline:
                write(None)
                return False
            time.sleep(POLL_SECONDS)

    def _held(self, trial: FrozenTrial) -> _Claim | None:
        """The architecture that a trial has measured, will measure, or claims."""
        given = self._given(trial)
        if given is not None:
            return _Claim(given, True)
        claim = trial.system_attrs.get(CLAIM)
        # A trial that ended without an architecture has measured none.
        return None if claim is None or trial.state.is_finished() else _Claim(*claim)

    def _given(self, trial: FrozenTrial) -> int | None:
        """The architecture of a trial that has one, from a sampler or from ``study.enqueue_trial``."""
        value = trial.params.get(self.name, trial.system_attrs.get("fixed_params", {}).get(self.name))
        try:
            index = int(value)
        except (TypeError, ValueError, OverflowError):
            return None
        return index if 0 <= index < len(self.space) else None

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
        r"""Reseeds the sampler of the other parameters; the architectures depend only on the study."""
        self._independent.reseed_rng()


class _Claim(NamedTuple):
    arch: int
    kept: bool


def _others(study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
    # From the storage, because a pruner may show a sampler only a part of the study.
    trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
    return [other for other in trials if other.number != trial.number]
