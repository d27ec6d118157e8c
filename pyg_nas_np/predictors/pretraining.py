r"""Meta-training of the neural process; apart, because importing Lightning takes a second."""

from __future__ import annotations

import math
import os
import time
from datetime import timedelta
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Timer
from torch import Tensor

from pyg_nas_np.features import shared_features
from pyg_nas_np.nn.convnp import ConvNP
from pyg_nas_np.predictors.convnp import base_moments
from pyg_nas_np.predictors.gp import feature_columns
from pyg_nas_np.predictors.labels import rank_gauss
from pyg_nas_np.predictors.weights import write_weights
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.tasks import SyntheticTasks, TaskBatch, additive_gp_prior
from pyg_nas_np.tasks.datamodule import SyntheticTaskModule


class MetaTraining(lightning.LightningModule):
    r"""Maximises the predictive density of the targets; AdamW with a cosine schedule to zero.

    Args:
        model: The process.
        lr: Peak learning rate.
        max_steps: Length of the schedule.
    """

    def __init__(self, model: ConvNP, *, lr: float = 1e-3, max_steps: int = 2000) -> None:
        super().__init__()
        self.model = model
        self.lr, self.max_steps = lr, max_steps

    def training_step(self, batch: TaskBatch, batch_idx: int) -> Tensor:
        r"""Returns the mean negative log density of the target scores."""
        assert batch.z_target is not None
        mean, std = self.model(batch)
        loss: Tensor = (0.5 * ((batch.z_target - mean) / std).square() + std.log()).mean() + 0.5 * math.log(2 * math.pi)
        self.log("train/nll", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def configure_optimizers(self) -> Any:
        r"""AdamW with a short linear warm-up."""
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.lr, weight_decay=1e-4)
        warm = max(1, self.max_steps // 20)

        def factor(step: int) -> float:
            rising = min(1.0, (step + 1) / warm)
            return rising * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / self.max_steps)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def pretrain(
    space: SearchSpace[Any],
    path: str | os.PathLike[str] | None = None,
    *,
    num_tasks: int = 3000,
    max_steps: int = 2000,
    max_minutes: float = 60.0,
    batch_size: int = 8,
    num_workers: int = 0,
    seed: int = 0,
    progress: bool = True,
) -> ConvNP:
    r"""Meta-trains a process for a search space on synthesised tasks alone; no measured label is used.

    Args:
        space: The space; any implementation of :class:`~pyg_nas_np.spaces.SearchSpace`.
        path: Where the weights are written (``.safetensors``). (default: nowhere)
        num_tasks: Tasks that are synthesised.
        max_steps: Gradient steps.
        max_minutes: Stops earlier after this time.
        batch_size: Tasks a step.
        num_workers: Processes that synthesise tasks; the weights do not depend on it.
        seed: Seed of weights and tasks; equal seeds give equal weights on one machine.
        progress: Whether to show a progress bar.
    """
    features = shared_features(space)
    table = features.table()
    columns = feature_columns(space)
    largest = min(200, table.size(0) // 2)
    tasks = SyntheticTasks(
        table,
        additive_gp_prior(columns),
        rank_gauss,
        base_moments(columns, max_iter=30),
        num_context=(min(4, largest), largest),
        num_target=min(128, table.size(0) - largest),
        batch_size=batch_size,
        seed=seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ConvNP(table.size(1))
    started = time.monotonic()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=progress,
        callbacks=[Timer(duration=timedelta(minutes=max_minutes))],
    )
    training = MetaTraining(model, max_steps=max_steps)
    num_batches = max(1, num_tasks // batch_size)
    trainer.fit(
        training,
        SyntheticTaskModule(tasks, num_batches=num_batches, num_workers=num_workers, seed=seed, progress=progress),
    )
    model.eval()
    if path is not None:
        card: dict[str, Any] = {
            "space": space.name,
            "priors": "additive Gaussian processes over feature groups",
            "tables": "none",
            "seed": seed,
            "tasks": num_batches * batch_size,
            "steps": trainer.global_step,
            "batch_size": batch_size,
            "minutes": round((time.monotonic() - started) / 60, 1),
            "final_nll": round(float(trainer.callback_metrics["train/nll"]), 3),
            "torch": torch.__version__,
        }
        write_weights(path, model, space, card)
    return model
