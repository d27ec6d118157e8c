r"""Training of the encoder on measured tables of many spaces; a separate module, because Lightning imports slowly."""

from __future__ import annotations

import copy
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from pyg_nas_np.convnp.encoder import SEEN, Encoders, PriorEncoder, short_fingerprints, write_encoders
from pyg_nas_np.convnp.training import check_checkpoint
from pyg_nas_np.features.operation_inputs import EncoderInputs, shared_operation_inputs
from pyg_nas_np.nn.operation_encoder import OperationEncoder
from pyg_nas_np.predictors.labels import robust_scores
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.base import Archs
from pyg_nas_np.utils import InvalidLabelsError, as_device, drawing_from, experimental
from pyg_nas_np.utils.defaults import fixed_defaults

MAX_ROWS = 20_000
"""Architectures of a table that take part."""

WITHOUT_SIZES = 0.25
"""Share of the batches without sizes: own spaces often know none."""


class MeasuredTable(NamedTuple):
    r"""Labels of architectures of one space.

    Args:
        name: Of the table.
        family: Tables of one family count as one: they are drawn as often as those of another family together.
        space: A space whose architectures are graphs.
        archs: ``n`` architectures, or official indices.
        y: Their labels, ``[n]``.
        maximize: Whether larger labels are better.
    """

    name: str
    family: str
    space: SearchSpace[Any]
    archs: Archs
    y: Tensor
    maximize: bool = True


class _Read(NamedTuple):
    """A table as the encoder sees it."""

    inputs: EncoderInputs
    scores: Tensor


def fingerprints_of(tables: Sequence[MeasuredTable]) -> dict[str, Tensor]:
    r"""Returns what tells the graphs of each family, for :class:`~pyg_nas_np.convnp.encoder.Encoders`."""
    found: dict[str, list[Tensor]] = defaultdict(list)
    for table in tables:
        found[table.family].append(shared_operation_inputs(table.space).fingerprints(table.archs))
    return {family: short_fingerprints(torch.cat(parts)) for family, parts in found.items()}


def tables_without(tables: Sequence[MeasuredTable], left_out: Sequence[str]) -> list[MeasuredTable]:
    r"""Returns the tables from which an encoder may learn that is to be judged on others.

    Left out are the families named, and every table with the same cells as one of theirs
    (:data:`~pyg_nas_np.convnp.encoder.SEEN`).

    Args:
        tables: All tables.
        left_out: Families.

    Raises:
        ValueError: If there is no such family, or nothing is left.
    """
    families = {table.family for table in tables}
    if unknown := [name for name in left_out if name not in families]:
        raise ValueError(f"left_out names {unknown[0]!r}; families: {', '.join(sorted(families))}")
    prints = {table.name: fingerprints_of([table])[table.family] for table in (tables if left_out else ())}
    judged = [prints[table.name] for table in tables if table.family in left_out]

    def is_foreign(table: MeasuredTable) -> bool:
        own = prints[table.name]
        return all(int(torch.isin(own, other).sum()) <= SEEN * min(own.numel(), other.numel()) for other in judged)

    rest = [table for table in tables if table.family not in left_out and (not left_out or is_foreign(table))]
    if not rest:
        raise ValueError(f"no table is left without {', '.join(left_out)} and spaces with the same cells")
    return rest


class PairwiseTraining(lightning.LightningModule):
    r"""Minimises the logistic loss of the order of pairs within a table; AdamW with a cosine schedule to zero.

    Args:
        encoder: The encoder.
        lr: Peak learning rate.
        max_steps: Length of the schedule.
    """

    def __init__(self, encoder: OperationEncoder, *, lr: float = 2e-3, max_steps: int = 2000) -> None:
        super().__init__()
        self.encoder, self.lr, self.max_steps = encoder, lr, max_steps

    def training_step(self, batch: Sequence[tuple[EncoderInputs, Tensor]], batch_idx: int) -> Tensor:
        r"""Returns the mean loss over tables."""
        losses = [pairwise_loss(self.encoder(*inputs).score, scores) for inputs, scores in batch]
        loss = torch.stack(losses).mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=1)
        return loss

    def configure_optimizers(self) -> Any:
        r"""AdamW with a short linear warm-up."""
        optimizer = torch.optim.AdamW(self.encoder.parameters(), lr=self.lr, weight_decay=1e-3)
        warm = max(1, self.max_steps // 30)

        def factor(step: int) -> float:
            return min(1.0, (step + 1) / warm) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / self.max_steps)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def pairwise_loss(predicted: Tensor, scores: Tensor) -> Tensor:
    r"""Returns the mean logistic loss over pairs of different scores.

    Args:
        predicted: ``[n]``.
        scores: ``[n]``.

    Example:
        >>> pairwise_loss(torch.tensor([9.0, -9.0]), torch.tensor([1.0, 0.0])).item() < 1e-6
        True
    """
    sign = (scores.unsqueeze(1) - scores.unsqueeze(0)).sign().to(predicted.dtype)
    loss = nn.functional.softplus(-(predicted.unsqueeze(1) - predicted.unsqueeze(0)) * sign)
    return (loss * sign.abs()).sum() / sign.abs().sum().clamp_min(1.0)


class _Draws(IterableDataset[list[tuple[EncoderInputs, Tensor]]]):
    """Batches from tables, families in equal shares; each step has its own seed, so that a resumed training goes on."""

    def __init__(self, tables: Mapping[str, list[_Read]], steps: int, batch_size: int, seed: int) -> None:
        self.tables, self.steps, self.batch_size, self.seed = tables, steps, batch_size, seed
        self.first = 0

    def __iter__(self) -> Iterator[list[tuple[EncoderInputs, Tensor]]]:
        families = list(self.tables.values())
        for step in range(self.first, self.steps):
            generator = torch.Generator(device="cpu").manual_seed((self.seed * 1_000_003 + step) % (1 << 31))

            def below(count: int, generator: torch.Generator = generator) -> int:
                return int(torch.randint(count, (1,), generator=generator))

            parts = []
            for _ in range(2):
                family = families[below(len(families))]
                table = family[below(len(family))]
                size = min(self.batch_size // 2, table.scores.numel())
                rows = torch.randint(table.scores.numel(), (size,), generator=generator)
                inputs = table.inputs.select(rows)
                if float(torch.rand((), generator=generator)) < WITHOUT_SIZES:
                    inputs = inputs._replace(sizes=torch.zeros_like(inputs.sizes))
                parts.append((inputs, table.scores[rows]))
            yield parts


@experimental
def pretrain_encoder(
    tables: Sequence[MeasuredTable],
    path: str | os.PathLike[str] | None = None,
    *,
    left_out: Sequence[str] = (),
    members: int = 2,
    max_steps: int = 1500,
    max_minutes: float = math.inf,
    batch_size: int = 192,
    seed: int = 0,
    encoder: Mapping[str, Any] | None = None,
    start: PriorEncoder | None = None,
    accelerator: str = "auto",
    root: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> PriorEncoder:
    r"""Trains encoders that score graphs of operations of spaces they have never seen.

    Args:
        tables: Measured tables of any spaces with graphs.
        path: Where the weights are written (``.safetensors``). (default: nowhere)
        left_out: Families on which the result will be judged: they, and tables with the same cells under another name,
            are not seen (:func:`tables_without`).
        members: Number of encoders, whose scores are averaged.
        max_steps: Gradient steps of each.
        max_minutes: Each stops earlier after this time.
        batch_size: Architectures per step.
        seed: Seed of weights and batches.
        encoder: Arguments of :class:`~pyg_nas_np.nn.OperationEncoder`.
        start: Encoders to train further, one a member; it is not changed. (default: new ones)
        accelerator: Where to train: ``"cpu"``, ``"cuda"``, or ``"auto"`` for CUDA where there is a device. Checkpoints
            and weights hold no device.
        root: Folder of checkpoints; training resumes from it. (default: nothing is kept)
        progress: Whether to show a progress bar.

    Raises:
        InvalidLabelsError: If a table has not one label an architecture, or a label is NaN or infinite.
        ValueError: If there is no family to leave out of a name, nothing is left to learn from, or :obj:`start` has
            another number of encoders.
        DeviceUnavailableError: If this machine has no such device.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space, index = NASBench201Space(), torch.arange(50)
        >>> table = MeasuredTable("flops", "nasbench201", space, index, space.batch_flops(index))
        >>> prior = pretrain_encoder([table], members=1, max_steps=2, progress=False)
        >>> prior.scores(space, index).shape
        torch.Size([50])
    """
    if start is not None and (len(start.encoders) != members or encoder):
        raise ValueError(
            f"start has {len(start.encoders)} encoders of its own form; give members={len(start.encoders)}"
        )
    chosen, device = tables_without(tables, left_out), as_device(accelerator)
    read: dict[str, list[_Read]] = defaultdict(list)
    for table in chosen:
        read[table.family].append(_read(table, seed))
    started = time.monotonic()
    folders = [None if root is None else Path(root) / f"member-{member}" for member in range(members)]
    encoders = [
        _trained(
            _new_encoder(encoder or {}, seed * 1009 + member)
            if start is None
            else copy.deepcopy(start.encoders[member]),
            read,
            folder,
            max_steps,
            max_minutes,
            batch_size,
            seed * 1009 + member,
            device.type,
            progress,
        )
        for member, folder in enumerate(folders)
    ]
    known = {} if start is None else start.card
    card = {
        "tables": [*known.get("tables", ()), *(table.name for table in chosen)],
        "families": sorted({*known.get("families", ()), *(table.family for table in chosen)}),
        "left_out": list(left_out),
        "architectures": sum(part.scores.numel() for parts in read.values() for part in parts),
        "members": members,
        "steps": max_steps,
        "batch_size": batch_size,
        "seed": seed,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "torch": torch.__version__,
    }
    prior = PriorEncoder(encoders, card)
    if path is not None:
        write_encoders(path, Encoders([prior], fingerprints_of(chosen)))
    return prior


def _new_encoder(config: Mapping[str, Any], seed: int) -> OperationEncoder:
    with drawing_from(torch.Generator(device="cpu").manual_seed(seed)):
        return OperationEncoder(**config)


def _trained(
    model: OperationEncoder,
    read: Mapping[str, list[_Read]],
    folder: Path | None,
    max_steps: int,
    max_minutes: float,
    batch_size: int,
    seed: int,
    accelerator: str,
    progress: bool,
) -> OperationEncoder:
    training = PairwiseTraining(model.train(), max_steps=max_steps)
    draws = _Draws(read, max_steps, batch_size, seed)
    callbacks: list[lightning.Callback] = []
    if max_minutes < math.inf:
        callbacks.append(Timer(duration=timedelta(minutes=max_minutes)))
    resumed = None
    if folder is not None:
        callbacks.append(
            ModelCheckpoint(folder, filename="last", every_n_train_steps=200, enable_version_counter=False)
        )
        if (folder / "last.ckpt").exists():
            resumed = folder / "last.ckpt"
            draws.first = check_checkpoint(resumed, training)
    trainer = lightning.Trainer(
        accelerator=accelerator,
        max_steps=max_steps,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=folder is not None,
        enable_model_summary=False,
        enable_progress_bar=progress,
        callbacks=callbacks,
    )
    loader = DataLoader(draws, batch_size=None)
    trainer.fit(training, loader, ckpt_path=None if resumed is None else str(resumed), weights_only=True)
    return model.cpu().eval()


@fixed_defaults
def _read(table: MeasuredTable, seed: int) -> _Read:
    y = torch.as_tensor(table.y).to("cpu", torch.float64)
    inputs = shared_operation_inputs(table.space)(table.archs)
    if y.shape != (inputs.sizes.size(0),):
        raise InvalidLabelsError(f"table {table.name!r} has {list(y.shape)} labels for {inputs.sizes.size(0)} graphs")
    if not bool(y.isfinite().all()):
        bad = int((~y.isfinite()).nonzero()[0])
        raise InvalidLabelsError(f"label {bad} of table {table.name!r} is {float(y[bad])}; leave such rows out")
    if y.numel() > MAX_ROWS:
        rows = torch.randperm(y.numel(), generator=torch.Generator().manual_seed(seed))[:MAX_ROWS].sort().values
        inputs, y = inputs.select(rows), y[rows]
    return _Read(inputs, robust_scores(y if table.maximize else -y).float())
