r"""Syne Tune: a scheduler over architectures."""

from __future__ import annotations

import math
from typing import Any, Generic

from pyg_nas_np.search.base import Search
from pyg_nas_np.spaces.base import ArchT
from pyg_nas_np.utils import InvalidLabelsError, require

_scheduler: Any = require("syne_tune.optimizer.scheduler", "syne-tune")
TrialScheduler: Any = _scheduler.TrialScheduler


class ArchScheduler(TrialScheduler, Generic[ArchT]):  # type: ignore[misc]
    r"""Proposes the architectures of Syne Tune's trials by any search of this package.

    ``config[name]`` of a trial is its architecture as text, so that a training script takes it as one argument; it
    reads it by ``space.from_str``. Every result of a trial but its last is ignored. Architectures of running trials are
    pending; those of trials that fail, or whose result is NaN or infinite, are discarded. The experiment ends when
    every architecture was tried.

    Args:
        search: The search, for example :class:`~pyg_nas_np.search.PredictorSearch`; its direction is that of the
            metric.
        metric: Key of the result to optimise.
        name: Key of ``config`` for the architecture.
        constants: Further entries of ``config``, the same in all trials.

    Raises:
        MissingExtraError: At import, if Syne Tune is not installed.
        ValueError: If a constant has the name of the architecture.
        InvalidLabelsError: When a trial ends, if its result lacks the metric.

    Example:
        >>> from syne_tune.optimizer.schedulers.ask_tell_scheduler import AskTellScheduler
        >>> from pyg_nas_np.search import RandomSearch
        >>> from pyg_nas_np.spaces import Integer, ParameterSpace
        >>> space = ParameterSpace(depth=Integer(1, 4), width=Integer(8, 64, step=8))
        >>> trials = AskTellScheduler(ArchScheduler(RandomSearch(space), "accuracy"))
        >>> trial = trials.ask()
        >>> arch = space.from_str(trial.config["arch"])
        >>> trials.tell(trial, {"accuracy": float(arch["depth"])})
    """

    def __init__(self, search: Search[ArchT], metric: str, *, name: str = "arch", **constants: Any) -> None:
        # Syne Tune would draw a seed from NumPy's global state; the search has its own.
        super().__init__(random_seed=0)
        if name in constants:
            raise ValueError(f"the constant {name!r} would hide the architecture; choose another name= for it")
        self.search, self.metric, self.name, self.constants = search, metric, name, constants

    def suggest(self) -> Any:
        r"""Returns the ``config`` of a new trial; :obj:`None` if every architecture was tried."""
        proposed = self.search.ask()
        if not proposed:
            return None
        config = {**self.constants, self.name: self.search.space.to_str(proposed[0])}
        return _scheduler.TrialSuggestion.start_suggestion(config)

    def on_trial_complete(self, trial: Any, result: dict[str, Any]) -> None:
        r"""Takes the last result of a trial."""
        archs = [self.search.space.from_str(trial.config[self.name])]
        if self.metric not in result:
            self.search.discard(archs)
            raise InvalidLabelsError(
                f"trial {trial.trial_id} did not report {self.metric!r}; it reported {', '.join(sorted(result))}"
            )
        value = float(result[self.metric])
        if math.isfinite(value):
            self.search.tell(archs, [value])
        else:
            self.search.discard(archs)

    def on_trial_error(self, trial: Any) -> None:
        r"""Discards the architecture of a trial that failed."""
        self.search.discard([self.search.space.from_str(trial.config[self.name])])

    def metric_names(self) -> list[str]:
        r"""Returns the metric."""
        return [self.metric]

    def metric_mode(self) -> str:
        r"""Returns ``"max"`` or ``"min"``, the direction of the search."""
        return "max" if self.search.maximize else "min"
