r"""A callback for Lightning that stops trainings early."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from pyg_nas_np.curves.early_stopping import Decision, EarlyStopping
from pyg_nas_np.utils import InvalidCurvesError

logger = logging.getLogger(__name__)


class CurveStopping(Callback):
    r"""Stops a training whose predicted final value will hardly beat the best finished one.

    One callback belongs to one training; the rule is shared by the trainings of a search. A training that comes to the
    rule's last epoch is reported to it. The callback looks at the monitored metric after every validation.

    Args:
        rule: The rule with its memory.
        monitor: Name of the logged metric.
        architecture: Numbers that describe the architecture, the same names for every training.
        hyperparameters: Numbers that describe the training, likewise.

    Raises:
        InvalidCurvesError: During the training, if the metric was not logged.

    Example:
        >>> rule = EarlyStopping(epochs=20, direction="up", burn_in=10)
        >>> callback = CurveStopping(rule, "val_acc", hyperparameters={"lr": 0.1})
        >>> # Trainer(max_epochs=20, callbacks=[callback]).fit(module)
    """

    def __init__(
        self,
        rule: EarlyStopping,
        monitor: str,
        *,
        architecture: Mapping[str, float] | None = None,
        hyperparameters: Mapping[str, float] | None = None,
    ) -> None:
        self.rule, self.monitor = rule, monitor
        self.architecture, self.hyperparameters = architecture, hyperparameters
        self.values: list[float] = []
        self.decision: Decision | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        r"""Takes the metric, decides, and reports a training that is complete."""
        if trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            have = ", ".join(sorted(trainer.callback_metrics)) or "none"
            raise InvalidCurvesError(f"the metric '{self.monitor}' was not logged; logged: {have}")
        total = len(self.rule.finished.epochs)
        if len(self.values) == total:
            return
        self.values.append(float(trainer.callback_metrics[self.monitor]))
        if len(self.values) == total:
            self.rule.finish(self.values, self.architecture, self.hyperparameters)
            return
        self.decision = self.rule.decide(self.values, self.architecture, self.hyperparameters)
        # All ranks stop or none does.
        if trainer.strategy.reduce_boolean_decision(self.decision.stop, all=False):
            logger.info("stopped after %d epochs: %s", len(self.values), self.decision.reason)
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the values so far, for checkpoints."""
        return {"values": list(self.values)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        r"""Restores the values."""
        self.values = list(state_dict["values"])
