r"""Ray Tune: a searcher over architectures, and a stopper that predicts final values from learning curves."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pyg_nas_np.curves.early_stopping import Decision, EarlyStopping
from pyg_nas_np.search.base import Search
from pyg_nas_np.spaces import EnumerableSpace, RecordView, SearchSpace
from pyg_nas_np.spaces.base import ArchT
from pyg_nas_np.utils import (
    InvalidArchitectureError,
    InvalidCurvesError,
    InvalidLabelsError,
    foreign_file,
    read_state,
    require,
    write_state,
)

logger = logging.getLogger(__name__)

tune: Any = require("ray.tune", "ray")
Stopper: Any = tune.Stopper
Searcher: Any = require("ray.tune.search", "ray").Searcher

ARCH = "arch"
"""Key of a trial's ``config`` that holds an architecture, where one does."""


def arch_of(config: Mapping[str, Any], space: SearchSpace[ArchT], name: str = ARCH) -> ArchT:
    r"""Returns the architecture of a trial's ``config``, for any space.

    Args:
        config: The ``config`` that :class:`ArchSearcher` made.
        space: The search space.
        name: Key of the architecture.

    Raises:
        InvalidArchitectureError: If there is none in it.
    """
    given = config.get(name)
    arch: ArchT | None = None
    if isinstance(space, RecordView):
        arch = space.check({key: config[key] for key in space.parameters if key in config})
    elif isinstance(given, str):
        arch = space.from_str(given)
    elif isinstance(space, EnumerableSpace) and isinstance(given, int):
        arch = space[given]
    if arch is not None:
        return arch
    raise InvalidArchitectureError(f"the config {dict(config)} has no architecture of {space.name} at {name!r}")


def config_of(arch: ArchT, space: SearchSpace[ArchT], name: str) -> dict[str, Any]:
    """Inverse of :func:`arch_of`."""
    if isinstance(space, RecordView):
        return space.records([arch])[0]
    if isinstance(space, EnumerableSpace):
        return {name: space.index(arch)}
    return {name: space.to_str(arch)}


class ArchSearcher(Searcher):  # type: ignore[misc]
    r"""Proposes the architectures of Ray Tune's trials by any search of this package.

    :func:`arch_of` reads the architecture from a trial's ``config``. Of a space of configurations, ``config`` has their
    entries by name, a list of layers as a list of dictionaries; inactive parameters are absent. Of a space with an
    official index, that is ``config["arch"]``; of any other space ``config["arch"]`` is its text. Constants of the
    tuner's ``param_space`` are added. Architectures of running trials are pending. Those of trials
    that failed or were stopped without a result are discarded. The experiment ends when every architecture was tried.

    Pass it as ``TuneConfig(search_alg=ArchSearcher(search, metric="acc", mode="max"))``; wrap it in
    :class:`ray.tune.search.ConcurrencyLimiter` to limit the number of concurrent trials.

    Args:
        search: The search, for example :class:`~pyg_nas_np.search.PredictorSearch`.
        metric: Key of the result to optimise. (default: that of the tuner)
        mode: ``"max"`` or ``"min"``. (default: that of the tuner)
        name: Key of ``config`` for the index or text.

    Raises:
        MissingExtraError: At import, if Ray Tune is not installed.
        ValueError: If :obj:`mode` is not the direction of the search, or the tuner's ``param_space`` has distributions
            or a constant that is called like a parameter.
        InvalidLabelsError: When a trial ends, if its result lacks the metric.
    """

    def __init__(
        self, search: Search[ArchT], metric: str | None = None, mode: str | None = None, *, name: str = ARCH
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        self._metric, self._mode = metric, mode  # Ray reads these.
        self.search, self.name = search, name
        self._trials: dict[str, Any] = {}
        self._constants: dict[str, Any] = {}
        self._check_mode(mode)

    def _check_mode(self, mode: str | None) -> None:
        wanted = "max" if self.search.maximize else "min"
        if mode not in (None, wanted):
            raise ValueError(f"mode is {mode!r}, the search wants {wanted!r}; make it with maximize={mode == 'max'}")

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        r"""Takes metric, mode and the constants of the tuner."""
        self._check_mode(mode)
        self._metric, self._mode = metric or self._metric, mode or self._mode
        domain, space = require("ray.tune.search.sample", "ray").Domain, self.search.space
        for key, value in config.items():
            if isinstance(value, domain) or (isinstance(value, dict) and "grid_search" in value):
                raise ValueError(f"param_space[{key!r}] is a distribution; ArchSearcher draws architectures only")
            if key == self.name or (isinstance(space, RecordView) and key in space.parameters):
                raise ValueError(f"param_space[{key!r}] would hide a parameter of the space; drop it")
        self._constants = dict(config)
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        r"""Returns the ``config`` of a new trial."""
        proposed = self.search.ask()
        if not proposed:
            finished: str = Searcher.FINISHED
            return finished
        (self._trials[trial_id],) = proposed
        return {**self._constants, **config_of(proposed[0], self.search.space, self.name)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        r"""Takes the last result of a trial."""
        if trial_id not in self._trials:
            return
        archs = [self._trials.pop(trial_id)]
        if error or not result:
            self.search.discard(archs)
            return
        if self._metric not in result:
            self.search.discard(archs)
            raise InvalidLabelsError(
                f"trial {trial_id} did not report {self._metric!r}; it reported {', '.join(sorted(result))}"
            )
        value = float(result[self._metric])
        if math.isfinite(value):
            self.search.tell(archs, [value])
        else:
            self.search.discard(archs)

    def save(self, checkpoint_path: str) -> None:
        r"""Writes the state of the search."""
        trials = {trial: self.search.space.to_str(arch) for trial, arch in self._trials.items()}
        write_state(checkpoint_path, {"search": self.search.state_dict(), "trials": trials})

    def restore(self, checkpoint_path: str) -> None:
        r"""Restores the state written by :meth:`save`.

        Raises:
            DataFileError: If the file is missing or damaged, or not of such a search.
            InvalidArchitectureError: If it is from another space.
        """
        state = read_state(checkpoint_path, "a saved searcher", {"search": dict, "trials": dict})
        self.search.load_state_dict(state["search"])
        with foreign_file(checkpoint_path, "a saved searcher"):
            self._trials = {trial: self.search.space.from_str(text) for trial, text in state["trials"].items()}


class CurveStopper(Stopper):  # type: ignore[misc]
    r"""Stops a trial that is unlikely to beat the best finished one, according to its predicted final value.

    Pass it as ``RunConfig(stop=CurveStopper(...))``. Ray Tune calls a stopper with the results of all trials, so one
    rule learns from all of them. Trials that reach the rule's last epoch are reported to it. Ray saves and restores the
    stopper with the experiment.

    The epoch of a result is its ``training_iteration``. A trial that resumes from a checkpoint overwrites its later
    epochs. A trial that skips an epoch of the rule runs to its end, with a warning.

    Args:
        rule: The rule with its memory.
        metric: Key of the result that the rule judges.
        architecture: Keys of the trial's ``config`` that describe the architecture by numbers.
        hyperparameters: Keys of ``config`` that describe the training, likewise.

    Raises:
        MissingExtraError: At import, if Ray Tune is not installed.
        InvalidCurvesError: When a trial reports, if the metric or a key of its ``config`` is absent or not a number.
    """

    def __init__(
        self,
        rule: EarlyStopping,
        metric: str,
        *,
        architecture: Sequence[str] = (),
        hyperparameters: Sequence[str] = (),
    ) -> None:
        self.rule, self.metric = rule, metric
        self.architecture, self.hyperparameters = tuple(architecture), tuple(hyperparameters)
        self.running: dict[str, dict[int, float]] = {}
        self.decisions: dict[str, Decision] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        r"""Takes a result and returns whether its trial stops; :attr:`decisions` holds the reason."""
        if self.metric not in result:
            raise InvalidCurvesError(
                f"trial {trial_id} did not report '{self.metric}'; it reported {', '.join(sorted(result)) or 'nothing'}"
            )
        epochs, now = self.rule.finished.epochs, int(result["training_iteration"])
        if now not in epochs:
            return False
        seen = {epoch: value for epoch, value in self.running.get(trial_id, {}).items() if epoch < now}
        seen[now] = float(result[self.metric])
        self.running[trial_id] = seen
        expected = epochs[: epochs.index(now) + 1]
        if tuple(seen) != expected:
            if trial_id not in self.decisions or "left out" not in self.decisions[trial_id].reason:
                logger.warning("trial %s left out an epoch of %s: it is not stopped", trial_id, list(expected))
            self.decisions[trial_id] = Decision(False, "an epoch was left out")
            return False
        described = (
            self._numbers(trial_id, result, self.architecture),
            self._numbers(trial_id, result, self.hyperparameters),
        )
        if now == epochs[-1]:
            self.rule.finish(list(seen.values()), *described)
            del self.running[trial_id]
            return False
        decision = self.decisions[trial_id] = self.rule.decide(list(seen.values()), *described)
        if decision.stop:
            logger.info("trial %s stopped after %d epochs: %s", trial_id, len(seen), decision.reason)
            del self.running[trial_id]
        return decision.stop

    def stop_all(self) -> bool:
        r"""Returns :obj:`False`: the experiment ends when its trials do."""
        return False

    @staticmethod
    def _numbers(trial_id: str, result: dict[str, Any], names: Sequence[str]) -> dict[str, float]:
        config = result.get("config", {})
        try:
            return {name: float(config[name]) for name in names}
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidCurvesError(
                f"the config {config} of trial {trial_id} has not all of {', '.join(names)} as numbers"
            ) from error
