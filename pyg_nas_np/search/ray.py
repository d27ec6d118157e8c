r"""A stopper for Ray Tune that predicts where the learning curve of a trial ends."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from pyg_nas_np.search.early_stopping import Decision, EarlyStopping
from pyg_nas_np.utils import InvalidCurvesError, require

logger = logging.getLogger(__name__)

Stopper: Any = require("ray.tune", "ray").Stopper


class CurveStopper(Stopper):  # type: ignore[misc]
    r"""Stops a trial when its predicted final value will hardly beat the best finished trial.

    Ray Tune calls a stopper where the experiment runs, with the results of all its trials, so that one rule learns from
    all of them: pass ``RunConfig(stop=CurveStopper(...))``. A trial that comes to the rule's last epoch teaches it.
    Ray saves the stopper with the experiment, and a restored experiment goes on with what it knew.

    The epoch of a result is its ``training_iteration``. A trial that goes back to a checkpoint overwrites its later
    epochs; one that has left out an epoch of the rule runs to its end, with a warning.

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
        r"""Takes a result and says whether its trial stops; :attr:`decisions` holds the reason."""
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
