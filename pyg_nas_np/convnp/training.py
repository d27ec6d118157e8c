r"""Meta-training of the process; a separate module, because importing Lightning takes a second."""

from __future__ import annotations

import importlib.util
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import lightning
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from pyg_nas_np.convnp.cell_bank import CellBank, bank_groups, bank_moments
from pyg_nas_np.convnp.datamodule import SyntheticTaskModule
from pyg_nas_np.convnp.predictor import process_inputs
from pyg_nas_np.convnp.priors import MixturePrior, TablePrior, space_prior
from pyg_nas_np.convnp.synthetic import SyntheticTasks
from pyg_nas_np.convnp.weights import write_weights
from pyg_nas_np.features import RandomNetworks, shared_descriptors
from pyg_nas_np.nn import TaskBatch
from pyg_nas_np.nn.convnp import ConvNP
from pyg_nas_np.predictors.labels import robust_scores
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.utils import (
    DataFileError,
    DeviceUnavailableError,
    as_device,
    check_count,
    drawing_from,
    read_state,
)
from pyg_nas_np.utils.state_files import check_state

Accelerator = Literal["auto", "cpu", "cuda"]
"""``"auto"``: CUDA where there is a device, the CPU elsewhere; the operators have kernels for these two."""

Objective = Literal["ml", "elbo"]
"""``"ml"``: the predictive density, estimated by samples of the latent if there is one; ``"elbo"``: its lower bound."""

POOL_CELLS = 1 << 16
"""Tasks are drawn from at most this many architectures of a space."""

_CHECKPOINT = {
    "state_dict": dict,
    "global_step": int,
    "epoch": int,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "pytorch-lightning_version": str,
}

NOISE_SHARE = 0.5
"""Share of the tasks with noise of known sizes, where the process has a channel for it."""

OTHER_SEED = 1
"""Seed of the random networks in the prior of tasks; predictors use seed 0."""


class MetaTraining(lightning.LightningModule):
    r"""Maximises the predictive density of the targets; AdamW with a cosine schedule to zero.

    Args:
        model: The process.
        lr: Peak learning rate.
        max_steps: Length of the schedule.
        objective: See :data:`Objective`; ``"elbo"`` needs a process with a latent path.
        num_samples: Samples of the latent in a step.
        seed: Seed of these samples.

    Raises:
        ValueError: If the objective is unknown, or needs a latent path that the process lacks.
    """

    def __init__(
        self,
        model: ConvNP,
        *,
        lr: float = 1e-3,
        max_steps: int = 2000,
        objective: Objective = "ml",
        num_samples: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if objective not in get_args(Objective):
            raise ValueError(f"objective must be one of {', '.join(get_args(Objective))}, got {objective!r}")
        if objective == "elbo" and not model.latent_channels:
            raise ValueError(f"objective='elbo' needs a process with a latent path, got {model!r}")
        self.model = model
        self.lr, self.max_steps, self.objective = lr, max_steps, objective
        self.num_samples, self.seed = num_samples, seed

    def training_step(self, batch: TaskBatch, batch_idx: int) -> Tensor:
        r"""Returns the mean loss over targets."""
        # Seeded by the step, so that a resumed training draws the same samples.
        seed = self.seed + 1_000_003 * self.global_step + self.global_rank
        generator = torch.Generator().manual_seed(seed % (1 << 31))
        loss = negative_log_density(self.model, batch, self.objective, self.num_samples, generator)
        self.log("train/nll", loss, prog_bar=True, batch_size=len(batch))
        # Spawned workers return nothing but metrics to their parent.
        self.log("train/steps", self.global_step + 1.0, logger=False, batch_size=len(batch))
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        r"""Moves a checkpoint to the CPU, so that it resumes on any device."""
        checkpoint.update(move_data_to_device(checkpoint, "cpu"))

    def configure_optimizers(self) -> Any:
        r"""AdamW with a short linear warm-up."""
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.lr, weight_decay=1e-4)
        warm = max(1, self.max_steps // 20)

        def factor(step: int) -> float:
            rising = min(1.0, (step + 1) / warm)
            return rising * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / self.max_steps)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def negative_log_density(
    model: ConvNP,
    batch: TaskBatch,
    objective: Objective = "ml",
    num_samples: int = 8,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Returns the mean negative log density of the target scores, or of its bound.

    Args:
        model: The process.
        batch: Tasks with target scores.
        objective: See :data:`Objective`.
        num_samples: Samples of the latent, if the process has one.
        generator: Source of the samples, on any device.
    """
    assert batch.z_target is not None
    targets = batch.z_target
    if not model.latent_channels:
        return -_log_density(model(batch), targets).mean()
    counts = batch.ptr_target.diff()
    owner = batch.per_target(torch.arange(len(batch), device=counts.device))

    def per_task(values: Tensor) -> Tensor:
        return values.new_zeros(len(batch)).index_add(0, owner, values)

    if objective == "ml":
        densities = [per_task(_log_density(model(batch, None, generator), targets)) for _ in range(num_samples)]
        return -((torch.logsumexp(torch.stack(densities), dim=0) - math.log(num_samples)) / counts).mean()
    prior = model.latent(batch)
    posterior = model.latent(batch.with_targets_as_context())
    densities = [per_task(_log_density(model(batch, posterior, generator), targets)) for _ in range(num_samples)]
    (mean, log_std), (other, other_log_std) = posterior, prior
    ratio = (2.0 * (log_std - other_log_std)).exp() + ((mean - other) / other_log_std.exp()).square()
    divergence = (0.5 * (ratio - 1.0) + other_log_std - log_std).flatten(1).sum(dim=1)
    return -((torch.stack(densities).mean(dim=0) - divergence) / counts).mean()


def _log_density(moments: tuple[Tensor, Tensor], z: Tensor) -> Tensor:
    mean, std = moments
    return -0.5 * ((z - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)


def space_tasks(
    space: CellSpace[Any],
    *,
    batch_size: int = 8,
    noise_share: float = 0.0,
    seed: int = 0,
    labels: Mapping[str, Tensor] | None = None,
    target: str = "",
) -> SyntheticTasks:
    r"""Returns the stream of tasks that a process for a space is trained on.

    Args:
        space: The space.
        batch_size: Tasks per step.
        noise_share: Share of the tasks whose context has noise of known sizes.
        seed: Seed of the stream.
        labels: Auxiliary labels of the whole space, name (``dataset/metric``) → ``[A]``, as a further prior of tasks.
            (default: none; no measured label is used)
        target: Data set that will be predicted.
    """
    descriptors = shared_descriptors(space)
    rows = None
    if len(space) > POOL_CELLS:
        rows = space.sample_indices(POOL_CELLS, torch.Generator().manual_seed(seed)).sort().values
    table = descriptors.table(rows)
    prior = space_prior(table, bank_groups(descriptors), RandomNetworks(space, seed=OTHER_SEED).table(rows))
    if labels:
        tables = TablePrior(labels if rows is None else {name: y[rows] for name, y in labels.items()}, target)
        prior = MixturePrior([prior, tables, tables])
    largest = min(300, table.size(0) // 2)
    return SyntheticTasks(
        table,
        process_inputs(descriptors),
        prior,
        robust_scores,
        bank_moments(bank_groups(descriptors)),
        num_context=(min(3, largest), largest),
        num_target=min(128, table.size(0) - largest),
        batch_size=batch_size,
        noise_share=noise_share,
        seed=seed,
    )


def pretrain(
    space: CellSpace[Any],
    path: str | os.PathLike[str] | None = None,
    *,
    num_tasks: int = 3000,
    max_steps: int = 2000,
    max_minutes: float = 60.0,
    batch_size: int = 8,
    num_workers: int = 0,
    accelerator: Accelerator = "auto",
    devices: int = 1,
    seed: int = 0,
    model: ConvNP | None = None,
    process: Mapping[str, Any] | None = None,
    objective: Objective = "ml",
    noise_share: float | None = None,
    labels: Mapping[str, Tensor] | None = None,
    target: str = "",
    root: str | os.PathLike[str] | None = None,
    callbacks: Sequence[lightning.Callback] = (),
    progress: bool = True,
) -> ConvNP:
    r"""Meta-trains a process for a search space on synthesised tasks; no measured label is used unless given.

    Args:
        space: The space; any implementation of :class:`~pyg_nas_np.spaces.CellSpace`.
        path: Where the weights are written (``.safetensors``). (default: nowhere)
        num_tasks: Tasks that are synthesised.
        max_steps: Gradient steps.
        max_minutes: Stops earlier after this time.
        batch_size: Tasks per step.
        num_workers: Number of workers that synthesise tasks; the weights do not depend on it.
        accelerator: Where the process is trained, see :data:`Accelerator`. Tasks are synthesised on the CPU, the result
            is there, and a checkpoint of one device resumes on another.
        devices: Number of workers that train, each on a part of the tasks (Lightning's DDP): CUDA devices, or
            processes of the CPU.
        seed: Seed of weights and tasks; equal seeds give equal weights on one machine's CPU.
        model: A process to train. (default: a new one)
        process: Arguments of the new :class:`~pyg_nas_np.nn.ConvNP`, such as its form. (default: the hybrid form)
        objective: See :data:`Objective`.
        noise_share: Share of the tasks whose context has noise of known sizes. (default: :data:`NOISE_SHARE` for a
            process with a channel for it, such as ``process={"noise_channel": True}``, and none for others)
        labels: Auxiliary labels of the whole space, name (``dataset/metric``) → ``[A]``, as a further prior of tasks.
        target: Data set that will be predicted; none of :obj:`labels` may be of it.
        root: Folder of tasks, logs and checkpoints. If it holds a checkpoint, training resumes from it.
            (default: nothing is kept)
        callbacks: Additional callbacks of the trainer.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If the accelerator is unknown, or :obj:`noise_share` is not between 0 and 1.
        DeviceUnavailableError: If this machine has no CUDA device, or fewer than :obj:`devices`.
        InvalidLabelsError: If some of :obj:`labels` are of :obj:`target`.
        DataFileError: If the checkpoint in :obj:`root` is damaged, or of another process.
    """
    kind = _device_type(accelerator, devices)
    if noise_share is None:
        channel = (process or {}).get("noise_channel", False) if model is None else model.noise_channel
        noise_share = NOISE_SHARE if channel else 0.0
    tasks = space_tasks(space, batch_size=batch_size, noise_share=noise_share, seed=seed, labels=labels, target=target)
    descriptors = shared_descriptors(space)
    if model is None:
        with drawing_from(torch.Generator(device="cpu").manual_seed(seed)):
            model = ConvNP(
                len(tasks.inputs), num_base=len(CellBank(bank_groups(descriptors)).members), **(process or {})
            )
    started = time.monotonic()
    folder = None if root is None else Path(root)
    callbacks = [*callbacks, Timer(duration=timedelta(minutes=max_minutes))]
    if folder is not None:
        every = max(1, max_steps // 20)
        callbacks.append(
            ModelCheckpoint(folder, filename="last", every_n_train_steps=every, enable_version_counter=False)
        )
    trainer = lightning.Trainer(
        accelerator=kind,
        devices=devices,
        strategy="ddp_spawn" if devices > 1 else "auto",
        use_distributed_sampler=False,
        max_steps=max_steps,
        gradient_clip_val=1.0,
        logger=_loggers(folder),
        log_every_n_steps=10,
        enable_checkpointing=folder is not None,
        enable_model_summary=False,
        enable_progress_bar=progress,
        callbacks=callbacks,
    )
    training = MetaTraining(model, max_steps=max_steps, objective=objective, seed=seed)
    num_batches = max(1, num_tasks // batch_size)
    checkpoint = None if folder is None else folder / "last.ckpt"
    resumed = checkpoint is not None and checkpoint.exists()
    if checkpoint is not None and resumed:
        check_checkpoint(checkpoint, training)
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) if folder is None and devices > 1 else folder
        pool = SyntheticTaskModule(
            tasks,
            num_batches=num_batches,
            num_workers=num_workers,
            seed=seed,
            path=None if kept is None else kept / "tasks.pt",
            progress=progress,
        )
        if devices > 1:
            # Workers do not know the stream, so the file is checked against it here.
            pool.prepare_data()
            pool.setup("fit")
        trainer.fit(training, pool, ckpt_path=str(checkpoint) if resumed else None, weights_only=True)
    model.cpu().eval()
    if path is not None and trainer.is_global_zero:
        # There are no metrics if the resumed training was already complete.
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        nll = metrics.get("train/nll")
        card: dict[str, Any] = {
            "space": space.name,
            "priors": "additive GPs, random networks, random trees, trend; warped, with heteroscedastic noise",
            "tables": ", ".join(labels or ()) or "none",
            "target": target,
            "objective": objective,
            "noise_share": noise_share,
            "seed": seed,
            "accelerator": kind,
            "tasks": num_batches * batch_size,
            "steps": int(metrics.get("train/steps", trainer.global_step)),
            "batch_size": batch_size,
            "minutes": round((time.monotonic() - started) / 60, 1),
            "final_nll": None if nll is None else round(nll, 3),
            "torch": torch.__version__,
        }
        write_weights(path, model, space, card)
    return model


def check_checkpoint(path: Path, training: lightning.LightningModule) -> int:
    r"""Checks that a training can resume from a checkpoint, before Lightning reads it, and returns its step.

    Raises:
        DataFileError: If the file is damaged, holds anything but tensors and plain types, or is of another process.
    """
    what, cure = "a checkpoint of this training", "delete it to start anew"
    # The best value of a callback is infinite at first; weights are always finite.
    state = read_state(path, what, _CHECKPOINT, finite=False, cure=cure)
    check_state(state["state_dict"], path, what, {}, cure=cure)
    for name, own in training.state_dict().items():
        given = state["state_dict"].get(name)
        if not isinstance(given, Tensor) or given.shape != own.shape:
            raise DataFileError(f"{path} is of another process: '{name}' differs; {cure}")
    if extra := sorted(state["state_dict"].keys() - training.state_dict().keys()):
        raise DataFileError(f"{path} is of another process: it has '{extra[0]}'; {cure}")
    return int(state["global_step"])


def _device_type(accelerator: Accelerator, devices: int) -> str:
    if accelerator not in get_args(Accelerator):
        raise ValueError(f"accelerator must be one of {', '.join(get_args(Accelerator))}, got {accelerator!r}")
    kind = as_device(accelerator).type
    if kind == "cuda" and check_count("devices", devices) > torch.cuda.device_count():
        raise DeviceUnavailableError(
            f"devices={devices} were asked for, but PyTorch finds {torch.cuda.device_count()} CUDA devices; ask for "
            f"fewer, or for processes of the CPU with accelerator='cpu'"
        )
    return kind


def _loggers(folder: Path | None) -> Any:
    if folder is None:
        return False
    loggers: list[Any] = [CSVLogger(folder, name="", version="logs")]
    if importlib.util.find_spec("tensorboard") is not None:
        loggers.append(TensorBoardLogger(folder, name="", version="logs"))
    return loggers
