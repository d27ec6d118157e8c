r"""A callback for Lightning that stops trainings early."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.trainer.states import TrainerFn

from pyg_nas_np.curves.early_stopping import Decision, EarlyStopping
from pyg_nas_np.utils import InvalidCurvesError

logger = logging.getLogger(__name__)


class CurveStopping(Callback):
    r"""Stops a training that is unlikely to beat the best finished one, according to its predicted final value.

    The rule is shared by the trainings of a search. Trainings that reach the rule's last epoch are reported to it.

    **The curve has one value per epoch**: that of the validation after the epoch's last batch. Epochs are counted from
    1; only values of the rule's epochs are used. Sanity checks, validations within an epoch and those outside of
    ``fit`` are not part of the curve. If validations are rarer, the rule must have their epochs: with
    ``check_val_every_n_epoch=5``, for example ``EarlyStopping(range(5, 101, 5), "up")``.

    A ``fit`` that starts at the first step starts a new curve. A resumed one continues the curve of its checkpoint, or
    that of an earlier ``fit`` of the same trainer.

    In distributed training the metric is averaged over the ranks, so all ranks have the same curve and stop together.
    Each rank has its own rule, which must exist throughout the search: strategies that spawn a process for each
    training, such as ``ddp_spawn``, raise an error.

    Args:
        rule: The rule with its memory.
        monitor: Name of the logged metric.
        architecture: Numbers that describe the architecture, the same names for every training.
        hyperparameters: Numbers that describe the training, likewise.

    Raises:
        InvalidCurvesError: During the training, if the metric was not logged, if there was no validation at the end of
            an epoch of the rule, or if the strategy spawns processes.

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
        self.curve: dict[int, float] = {}
        self.decision: Decision | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        r"""Raises for strategies with which the rule would be updated in a process that ends with the training."""
        if stage == "fit" and isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
            raise InvalidCurvesError(
                f"{type(trainer.strategy).__name__} trains in processes of its own here, and the stopping rule would "
                f"forget what it learns there; use strategy='ddp', which runs the whole script on each device"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        r"""Starts a new curve, unless the training is resumed."""
        if trainer.global_step == 0:
            self.curve, self.decision = {}, None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        r"""Takes the metric at the end of an epoch, decides, and reports complete trainings."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            have = ", ".join(sorted(trainer.callback_metrics)) or "none"
            raise InvalidCurvesError(f"the metric '{self.monitor}' was not logged; logged: {have}")
        now, epochs = trainer.current_epoch + 1, self.rule.finished.epochs
        if not trainer.is_last_batch or now not in epochs:
            return
        # A copy, because the reduction is in place.
        metric = trainer.callback_metrics[self.monitor].detach().to(pl_module.device, copy=True)
        value = trainer.strategy.reduce(metric if metric.is_floating_point() else metric.float(), reduce_op="mean")
        # A training that resumed from an earlier checkpoint overwrites its later epochs.
        self.curve = {epoch: old for epoch, old in self.curve.items() if epoch < now} | {now: float(value)}
        expected = epochs[: epochs.index(now) + 1]
        if tuple(self.curve) != expected:
            raise InvalidCurvesError(
                f"the rule expects a validation at the end of the epochs {list(expected)}, but only "
                f"{list(self.curve)} are known; resume from a checkpoint that holds this callback's state, or give the "
                f"rule the epochs that are validated"
            )
        values = list(self.curve.values())
        if now == epochs[-1]:
            self.rule.finish(values, self.architecture, self.hyperparameters)
            return
        self.decision = self.rule.decide(values, self.architecture, self.hyperparameters)
        # Either all ranks stop or none.
        if trainer.strategy.reduce_boolean_decision(self.decision.stop, all=False):
            logger.info("stopped after epoch %d: %s", now, self.decision.reason)
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        r"""Checks that there was a validation at the end of an epoch of the rule."""
        now = trainer.current_epoch + 1
        if trainer.is_last_batch and now in self.rule.finished.epochs and now not in self.curve:
            raise InvalidCurvesError(
                f"the rule expects a value for epoch {now}, but there was no validation after its last batch "
                f"(check_val_every_n_epoch={trainer.check_val_every_n_epoch}, "
                f"val_check_interval={trainer.val_check_interval}); validate at its end, or give the rule "
                f"the epochs that are validated"
            )

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the curve so far, for checkpoints."""
        return {"curve": dict(self.curve)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        r"""Restores the curve."""
        self.curve = {int(epoch): float(value) for epoch, value in state_dict["curve"].items()}
