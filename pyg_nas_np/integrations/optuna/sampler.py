r"""An Optuna sampler that proposes architectures by a predictor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from pyg_nas_np.convnp import ConvNPPredictor
from pyg_nas_np.predictors import Predictor
from pyg_nas_np.search.predictor_search import Acquisition, PredictorSearch
from pyg_nas_np.spaces import SearchSpace
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

MAX_AHEAD = 15
"""A worker leaves at most this many places of the batch to others that have not drawn yet."""


def suggest_arch(trial: Trial, space: SearchSpace[ArchT], name: str = ARCH) -> ArchT:
    r"""Returns the architecture of a trial: one integer parameter, its official index.

    Args:
        trial: The trial.
        space: The search space.
        name: Name of the parameter.
    """
    return space[trial.suggest_int(name, 0, len(space) - 1)]


def arch_of(trial: FrozenTrial, space: SearchSpace[ArchT], name: str = ARCH) -> ArchT:
    r"""Returns the architecture of a trial that is stored, for example of ``study.best_trial``."""
    return space[int(trial.params[name])]


class ConvNPSampler(BaseSampler):
    r"""Samples architectures by a predictor fitted to the finished trials of a study.

    The sampler keeps nothing between trials: it reads the study, so that any number of workers, in any number of
    processes, share one study through its storage. Trials that are running count as measured at their predicted
    values. Workers that have not drawn yet are served in the order of their trial numbers, so that those who start
    together get different architectures; they should use the same arguments. Failed and pruned trials are not repeated,
    and their values not used: what a pruned trial reported last is not what it would have reached.

    Parameters other than the architecture are left to :obj:`independent_sampler`.

    Args:
        space: The search space.
        predictor: The predictor. (default:
            :class:`~pyg_nas_np.convnp.ConvNPPredictor` with shipped weights, without experts)
        acquisition: As for :class:`~pyg_nas_np.search.PredictorSearch`.
        beta: As for :class:`~pyg_nas_np.search.PredictorSearch`.
        n_startup_trials: Trials with architectures drawn at random.
        name: Name of the parameter that :func:`suggest_arch` was given.
        independent_sampler: Sampler of all other parameters. (default: an unseeded
            :class:`optuna.samplers.RandomSampler`, as workers of one seed would repeat each other)
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
        space: SearchSpace[Any],
        predictor: Predictor | None = None,
        *,
        acquisition: Acquisition = "ucb",
        beta: float = 1.5,
        n_startup_trials: int = 10,
        name: str = ARCH,
        independent_sampler: BaseSampler | None = None,
        seed: int = 0,
    ) -> None:
        self.space = space
        self.name = name
        self.seed = seed
        self.acquisition: Acquisition = acquisition
        self.beta = beta
        self.n_startup_trials = n_startup_trials
        # Trained networks at every suggestion would cost more than they bring.
        self._predictor = ConvNPPredictor(stacking=False) if predictor is None else predictor
        # Built now, so that wrong arguments are told here; each direction has a search of its own, for its caches.
        self._searches = {True: self._search(True)}
        self._independent = independent_sampler or optuna.samplers.RandomSampler()

    def _search(self, maximize: bool) -> PredictorSearch[Any]:
        return PredictorSearch(
            self.space,
            self._predictor,
            acquisition=self.acquisition,
            beta=self.beta,
            initial=self.n_startup_trials,
            maximize=maximize,
            seed=self.seed,
        )

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
        maximize = study.direction == optuna.study.StudyDirection.MAXIMIZE
        search = self._searches.get(maximize)
        if search is None:
            search = self._searches[maximize] = self._search(maximize)
        search.reset()
        wanted = IntDistribution(0, len(self.space) - 1)
        index: list[int] = []
        y: list[float] = []
        ahead = 0
        for other in study.get_trials(deepcopy=False):
            if other.number == trial.number:
                continue
            if self.name not in other.params:
                ahead += other.state == TrialState.RUNNING and other.number < trial.number
                continue
            if other.distributions[self.name] != wanted:
                raise ValueError(
                    f"trial {other.number} draws {self.name!r} from {other.distributions[self.name]}, {self.space!r} "
                    f"needs {wanted}; use one study for one space"
                )
            drawn = int(other.params[self.name])
            if other.state == TrialState.COMPLETE and other.value is not None and math.isfinite(other.value):
                index.append(drawn)
                y.append(other.value)
            elif other.state.is_finished():
                search.discard(torch.tensor([drawn]))
            else:
                search.reserve(torch.tensor([drawn]))
        if y:
            search.tell(torch.tensor(index), y)
        # Whoever has seen the same trials ranks the same way, and takes the place that its number gives it.
        search.generator.manual_seed(self.seed + len(y))
        proposed = search.ask(1 + min(ahead, MAX_AHEAD))
        # Once every architecture is taken, the only thing left is to repeat one.
        arch = proposed[-1] if proposed else self.space.sample(1, search.generator)[0]
        return {self.name: self.space.index(arch)}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        r"""Asks the sampler of all other parameters."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        r"""Reseeds the sampler of all other parameters; the architectures depend on the study alone."""
        self._independent.reseed_rng()
