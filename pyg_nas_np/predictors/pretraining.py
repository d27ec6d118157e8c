r"""Meta-training of the neural process and its weight files."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Timer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pyg_nas_np.features import shared_features
from pyg_nas_np.nn.convnp import ConvNP
from pyg_nas_np.predictors.labels import rank_gauss
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.tasks import SyntheticTaskModule, SyntheticTasks, TaskBatch, additive_gp_prior
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, MissingWeightsError, atomic_path

logger = logging.getLogger(__name__)

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
FORMAT = "pyg_nas_np.convnp/1"


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
        r"""Hyperparameters of the bank move on a logarithmic scale and take larger steps."""
        bank = list(self.model.bank.parameters())
        rest = [p for name, p in self.model.named_parameters() if not name.startswith("bank.")]
        groups = [{"params": rest}, {"params": bank, "lr": 5 * self.lr, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, weight_decay=1e-4)
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
    max_steps: int = 2000,
    max_minutes: float = 60.0,
    batch_size: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> ConvNP:
    r"""Meta-trains a process for a search space on synthesised tasks alone; no measured label is used.

    Args:
        space: The space; any implementation of :class:`~pyg_nas_np.spaces.SearchSpace`.
        path: Where the weights are written (``.safetensors``). (default: nowhere)
        max_steps: Gradient steps.
        max_minutes: Stops earlier after this time.
        batch_size: Tasks a step.
        seed: Seed of weights and tasks; equal seeds give equal weights on one machine.
        progress: Whether to show a progress bar.
    """
    features = shared_features(space)
    table = features.table()
    largest = min(200, table.size(0) // 2)
    tasks = SyntheticTasks(
        table,
        additive_gp_prior(features.feature_groups),
        rank_gauss,
        num_context=(min(4, largest), largest),
        num_target=min(128, table.size(0) - largest),
        batch_size=batch_size,
        seed=seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ConvNP(table.size(1), list(features.feature_groups.values()))
    started = time.monotonic()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=progress,
        callbacks=[Timer(duration={"seconds": 60 * max_minutes})],
    )
    training = MetaTraining(model, max_steps=max_steps)
    trainer.fit(training, SyntheticTaskModule(tasks))
    model.eval()
    if path is not None:
        card = {
            "space": space.name,
            "priors": "additive Gaussian processes over feature groups",
            "tables": "none",
            "seed": seed,
            "steps": trainer.global_step,
            "batch_size": batch_size,
            "minutes": round((time.monotonic() - started) / 60, 1),
            "final_nll": round(float(trainer.callback_metrics["train/nll"]), 3),
            "torch": torch.__version__,
        }
        write_weights(path, model, space, card)
    return model


def write_weights(
    path: str | os.PathLike[str], model: ConvNP, space: SearchSpace[Any], card: dict[str, Any]
) -> None:
    r"""Writes weights as safetensors, with the names of the features that they expect, atomically."""
    features = shared_features(space)
    metadata = {
        "format": FORMAT,
        "space": space.name,
        "feature_names": json.dumps(features.feature_names),
        "card": json.dumps(card),
    }
    tensors = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    with atomic_path(path) as tmp:
        save_file(tensors, tmp, metadata)


def read_weights(path: str | os.PathLike[str], space: SearchSpace[Any]) -> ConvNP:
    r"""Reads weights for a space.

    Raises:
        DataFileError: If the file is corrupt or of another format.
        InvalidArchitectureError: If the weights are for another space, or for other features of it.
    """
    features = shared_features(space)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DataFileError(f"{os.fspath(path)} is corrupt or not a safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise DataFileError(f"{os.fspath(path)} has format {metadata.get('format')!r}, expected {FORMAT!r}")
    if metadata["space"] != space.name or json.loads(metadata["feature_names"]) != features.feature_names:
        raise InvalidArchitectureError(
            f"{os.fspath(path)} was trained for other features of {metadata['space']}; train again with pretrain()"
        )
    model = ConvNP(len(features.feature_names), list(features.feature_groups.values()))
    model.load_state_dict(state)
    return model.eval()


@lru_cache(maxsize=8)
def shipped_model(space: SearchSpace[Any]) -> ConvNP:
    r"""Returns the process whose weights the package ships for a space.

    Raises:
        MissingWeightsError: If it ships none.
    """
    path = WEIGHTS / f"convnp-{space.name}.safetensors"
    if not path.exists():
        have = ", ".join(sorted(p.stem.removeprefix("convnp-") for p in WEIGHTS.glob("convnp-*.safetensors"))) or "none"
        raise MissingWeightsError(
            f"no weights are shipped for the space '{space.name}' (shipped: {have}). Train them once with "
            f"pyg_nas_np.pretrain(space, path) and pass ConvNPPredictor(weights=path)"
        )
    return read_weights(path, space)
