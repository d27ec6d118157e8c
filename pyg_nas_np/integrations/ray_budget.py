r"""Ray Tune: a searcher and its scheduler for searches within a budget of trainings, cheap ones included."""

from __future__ import annotations

import logging
import math
from collections import Counter
from typing import Any

from pyg_nas_np.integrations.ray import ARCH, ArchSearcher, Searcher, arch_of, config_of
from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.search.budgeted import FAILURES, Training
from pyg_nas_np.spaces import RecordView
from pyg_nas_np.utils import InvalidLabelsError, experimental, foreign_file, read_state, require, write_state

logger = logging.getLogger(__name__)

TrialScheduler: Any = require("ray.tune.schedulers", "ray").TrialScheduler
Trial: Any = require("ray.tune.experiment", "ray").Trial

LEVEL = "level"
"""Key of a trial's ``config`` that holds the level to train to."""

__all__ = ["LEVEL", "BudgetedScheduler", "BudgetedSearcher", "arch_of"]


@experimental
class BudgetedSearcher(ArchSearcher):
    r"""Proposes the trials of Ray Tune by a :class:`~pyg_nas_np.search.BudgetedSearch`; it needs its scheduler.

    Pass both, with as many samples as the budget pays for::

        searcher = BudgetedSearcher(search, "accuracy", "max")
        tune.TuneConfig(
            search_alg=searcher, scheduler=BudgetedScheduler(searcher), num_samples=-1, max_concurrent_trials=2,
            reuse_actors=True,
        )

    A trial reports a label with every ``tune.report``; what it has trained so far, in the unit of the levels, is its
    ``training_iteration`` or what :obj:`time_attr` names.

    **If the fidelity is continued**, a trial is an architecture. It is paused at its level, and resumed from its last
    checkpoint if it is promoted, which frees its worker for others meanwhile. It must report checkpoints; ``config``
    has the last level as its length. The levels that it passes are labels too. **Otherwise** a trial is one training
    to ``config["level"]``, and a promotion is a new trial.

    **Workers.** A training is decided when a worker is free (with ``max_concurrent_trials``), or one ahead. With
    ``reuse_actors=True`` a pause costs no new process. The experiment ends when nothing is left to train; paused trials
    are stopped then.

    **Failures.** Ray resumes a trial whose worker died, ``FailureConfig(max_failures=2)`` says how often. Then its
    training is freed and may be proposed again; after ``FAILURES`` (3) such trials without any label the architecture
    counts as diverged. A label that is NaN or infinite stops its trial, which has diverged. Labels of trials that have
    none to deliver, late ones for example, are ignored.

    Args:
        search: The search.
        metric: Key of the result that is the label. (default: that of the tuner)
        mode: ``"max"`` or ``"min"``. (default: that of the tuner)
        name: Key of ``config`` for the architecture, as for :class:`~pyg_nas_np.integrations.ray.ArchSearcher`.
        time_attr: Key of the result that says what is trained so far.

    Raises:
        MissingExtraError: At import, if Ray Tune is not installed.
        ValueError: If :obj:`mode` is not the direction of the search, or something else is called ``"level"``.
        InvalidLabelsError: When a trial reports, if it left out the level that it was to reach, or reports beyond the
            last one; when it ends, if it did not reach its level.
    """

    search: BudgetedSearch[Any]  # type: ignore[assignment]

    def __init__(
        self,
        search: BudgetedSearch[Any],
        metric: str | None = None,
        mode: str | None = None,
        *,
        name: str = ARCH,
        time_attr: str = "training_iteration",
    ) -> None:
        own: Any = search
        super().__init__(own, metric, mode, name=name)
        if name == LEVEL or (isinstance(search.space, RecordView) and LEVEL in search.space.parameters):
            raise ValueError(f"config[{LEVEL!r}] is the level to train to; rename the parameter of the space")
        self.time_attr = time_attr
        self.limit = math.inf
        self.running: dict[str, Training[Any]] = {}
        self.passed: dict[str, float] = {}
        self.paused: dict[str, str] = {}
        self.failures: Counter[str] = Counter()
        self._decided: Training[Any] | None = None
        self._idle = False

    # -- decisions --------------------------------------------------------------------------------------------------

    def decided(self) -> Training[Any] | None:
        r"""Returns the training that the next free worker runs; :obj:`None` if there is none, or none yet."""
        if self._decided is None and not self._idle and len(self.search.pending) < self.limit:
            self._decided = next(iter(self.search.ask()), None)
            # Nothing changes before the next label.
            self._idle = self._decided is None
        return self._decided

    def take(self, trial_id: str) -> Training[Any]:
        r"""Gives the decided training to a trial."""
        training, self._decided = self._decided, None
        assert training is not None
        self.running[trial_id] = training
        self.paused.pop(self._text(training.arch), None)
        return training

    def give_back(self) -> None:
        r"""Frees the decided training, which no trial can run."""
        if self._decided is not None:
            self.search.release([self._decided.arch], self._decided.level)
            self._decided, self._idle = None, True

    def waiting(self) -> str | None:
        r"""Returns the paused trial that runs the decided training; :obj:`None` if that is a new trial."""
        training = self.decided()
        return None if training is None else self.paused.get(self._text(training.arch))

    def _text(self, arch: Any) -> str:
        return self.search.space.to_str(arch)

    # -- labels -----------------------------------------------------------------------------------------------------

    def report(self, trial_id: str, result: dict[str, Any]) -> str:
        r"""Takes a result and returns what a scheduler decides: ``"CONTINUE"``, ``"PAUSE"`` or ``"STOP"``."""
        continued: bool = self.search.fidelity.continued
        proceed, pause, stop = (str(getattr(TrialScheduler, name)) for name in ("CONTINUE", "PAUSE", "STOP"))
        training = self.running.get(trial_id)
        if training is None:
            # Resumed by Ray with the experiment, not by the search.
            return pause if continued and trial_id in self.paused.values() else stop
        arch, level, start, _ = training
        value, now = (self._number(trial_id, result, key) for key in (self._metric, self.time_attr))
        if not math.isfinite(value):
            self._tell(trial_id, math.nan)
            return stop
        if now > level:
            raise InvalidLabelsError(
                f"trial {trial_id} reports at {self.time_attr} {now:g}, but left out {level:g}, the level that it was "
                f"to reach; report at every level"
            )
        if now < level:
            # A trial that Ray resumed repeats what it did after its checkpoint.
            if continued and now in self.search.fidelity.levels and now > self.passed.get(trial_id, start or 0.0):
                self._told([arch], now, value)
                self.passed[trial_id] = now
            return proceed
        self._tell(trial_id, value)
        if level == self.search.fidelity.levels[-1] or not continued:
            return stop
        self.paused[self._text(arch)] = trial_id
        if self.waiting() != trial_id:
            return pause
        self.take(trial_id)
        return proceed

    def _number(self, trial_id: str, result: dict[str, Any], key: str | None) -> float:
        if key is None or key not in result:
            raise InvalidLabelsError(
                f"trial {trial_id} did not report {key!r}; it reported {', '.join(sorted(result))}"
            )
        return float(result[key])

    def _tell(self, trial_id: str, value: float) -> None:
        training = self.running.pop(trial_id)
        self.passed.pop(trial_id, None)
        self._told([training.arch], training.level, value)

    def _told(self, archs: list[Any], level: float, value: float) -> None:
        self.search.tell(archs, level, [value])
        self._idle = False

    # -- Ray's protocol ---------------------------------------------------------------------------------------------

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        r"""Takes the number of workers; paused trials do not count."""
        self.limit = max_concurrent
        return True

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        r"""Takes metric, mode and the constants of the tuner."""
        if LEVEL in config:
            raise ValueError(f"param_space[{LEVEL!r}] would hide the level to train to; rename it")
        return super().set_search_properties(metric, mode, config, **spec)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        r"""Returns the ``config`` of a new trial; :obj:`None` if there is none yet."""
        training = self.decided()
        if training is None and not self.search.pending:
            finished: str = Searcher.FINISHED
            return finished
        if training is None or self.waiting() is not None:
            return None
        self.take(trial_id)
        level = self.search.fidelity.levels[-1] if self.search.fidelity.continued else training.level
        return {**self._constants, **config_of(training.arch, self.search.space, self.name), LEVEL: level}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        r"""Takes the last result of a trial; frees its training if there is none."""
        if trial_id in self.running and result and not error:
            self.report(trial_id, result)
        self.paused = {text: paused for text, paused in self.paused.items() if paused != trial_id}
        if trial_id not in self.running:
            return
        training = self.running[trial_id]
        arch, level, _, _ = training
        if not error and result:
            raise InvalidLabelsError(
                f"trial {trial_id} ended at {self.time_attr} {result[self.time_attr]:g}, before its level {level:g}; "
                f"train to config[{LEVEL!r}]"
            )
        text, paid = self._text(arch), self._paid(training, self.passed.get(trial_id))
        self.failures[text] += paid == 0.0
        if self.failures[text] >= FAILURES:
            self._tell(trial_id, math.nan)
            return
        del self.running[trial_id]
        self.passed.pop(trial_id, None)
        self.search.release([arch], level, paid)
        self._idle = False

    def _paid(self, training: Training[Any], passed: float | None) -> float:
        """The share of its price that the labels of a training cost, before it failed."""
        fidelity = self.search.fidelity
        level, start, reached = (
            None if one is None else fidelity.levels.index(one) for one in (training.level, training.start, passed)
        )
        return 0.0 if reached is None else fidelity.price(reached, start) / fidelity.price(level or 0, start)

    def save(self, checkpoint_path: str) -> None:
        r"""Writes the state of the search and of the trials."""
        decided = self._decided
        state = {
            "search": self.search.state_dict(),
            "running": {trial: [self._text(t.arch), *t[1:]] for trial, t in self.running.items()},
            "passed": dict(self.passed),
            "paused": dict(self.paused),
            "failures": dict(self.failures),
            "decided": [] if decided is None else [self._text(decided.arch), *decided[1:]],
        }
        write_state(checkpoint_path, state)

    def restore(self, checkpoint_path: str) -> None:
        r"""Restores the state written by :meth:`save`.

        Raises:
            DataFileError: If the file is missing or damaged, or not of such a search.
            InvalidArchitectureError: If it is from another space.
        """
        kinds: dict[str, Any] = dict.fromkeys(("search", "running", "passed", "paused", "failures"), dict)
        state = read_state(checkpoint_path, "a saved searcher", kinds | {"decided": list})
        with foreign_file(checkpoint_path, "a saved searcher"):
            running = {trial: self._training(*row) for trial, row in state["running"].items()}
            decided = self._training(*state["decided"]) if state["decided"] else None
            passed = {str(trial): float(level) for trial, level in state["passed"].items()}
            paused = {str(text): str(trial) for text, trial in state["paused"].items()}
            failures = Counter({str(text): int(count) for text, count in state["failures"].items()})
        self.search.load_state_dict(state["search"])
        self.running, self.passed, self.paused = running, passed, paused
        self.failures, self._decided = failures, decided
        self._idle = False

    def _training(self, text: str, level: float, start: float | None, price: float) -> Training[Any]:
        return Training(self.search.space.from_str(text), float(level), start, float(price))


@experimental
class BudgetedScheduler(TrialScheduler):  # type: ignore[misc]
    r"""Pauses and stops trials at the levels of their trainings, and resumes those that are promoted.

    It has no state: its searcher decides.

    Args:
        searcher: The searcher of the same experiment.

    Raises:
        MissingExtraError: At import, if Ray Tune is not installed.
    """

    _supports_buffered_results = False

    def __init__(self, searcher: BudgetedSearcher) -> None:
        super().__init__()
        self.searcher = searcher

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        r"""Does nothing."""

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        r"""Does nothing: Ray tells the searcher if it gives the trial up."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        r"""Returns whether the trial goes on, pauses or stops."""
        return self.searcher.report(trial.trial_id, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        r"""Does nothing: Ray tells the searcher too."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        r"""Does nothing: Ray tells the searcher too."""

    def choose_trial_to_run(self, tune_controller: Any) -> Any | None:
        r"""Returns a trial that waits for a worker, or a paused one that is promoted.

        Where nothing is left to train, paused trials are stopped, so that the experiment ends.
        """
        trials = tune_controller.get_trials()
        for trial in trials:
            if trial.status == Trial.PENDING:
                return trial
        searcher = self.searcher
        if searcher.decided() is not None:
            waiting = searcher.waiting()
            if waiting is not None:
                # A trial that is still writing its checkpoint is chosen when it is done.
                found = next((t for t in trials if t.trial_id == waiting and t.status == Trial.PAUSED), None)
                if found is not None:
                    searcher.take(waiting)
                return found
            if tune_controller.search_alg.is_finished():
                logger.warning("num_samples is reached with %g of the budget left; use -1", searcher.search.left)
                searcher.give_back()
        if searcher.decided() is None and not searcher.search.pending:
            for trial in [t for t in trials if t.status == Trial.PAUSED]:
                tune_controller.stop_trial(trial)
        return None

    def debug_string(self) -> str:
        r"""Returns a line for the console."""
        search = self.searcher.search
        return f"Budget: {search.spent:g} of {search.budget:g} spent, {len(self.searcher.paused)} paused"

    def save(self, checkpoint_path: str) -> None:
        r"""Writes nothing: the searcher has the state."""

    def restore(self, checkpoint_path: str) -> None:
        r"""Reads nothing."""
