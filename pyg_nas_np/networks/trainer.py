r"""Training of the networks of architectures on the user's images: a single one, or the best of a ranking."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import DataLoader, TensorDataset

from pyg_nas_np.datasets.images import LabelledImages, read_images
from pyg_nas_np.networks.cells import make_network, network_of
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.utils import InvalidImagesError, InvalidLabelsError, drawing_from, fixed_defaults

TrainingImages: TypeAlias = Any
"""``(images, labels)`` as tensors or arrays (see :func:`as_images`), a loader of such batches, or a path or data set
for :func:`~pyg_nas_np.datasets.images.read_images`; all images have one size."""


class TrainingResult(NamedTuple):
    r"""A trained network.

    Args:
        arch: The architecture.
        module: The classifier, in evaluation mode; it takes images as returned by :func:`as_images`.
        accuracy: Validation accuracy after every epoch, a fraction.
        loss: Mean training loss of every epoch.
        seconds: Time of the training.
    """

    arch: Any
    module: ImageClassifier
    accuracy: tuple[float, ...]
    loss: tuple[float, ...]
    seconds: float


class ImageClassifier(lightning.LightningModule):
    r"""Trains a network as in NAS-Bench-201: SGD with Nesterov momentum .9 and a cosine schedule to zero.

    It logs ``train_loss`` and ``val_acc`` after every epoch, for callbacks such as
    :class:`~pyg_nas_np.integrations.lightning.CurveStopping`.

    Args:
        network: Maps normalised images ``[B, C, H, W]`` to logits ``[B, K]``.
        mean: Mean of each channel, ``[C]``. (default: images are normalised already)
        std: Standard deviation of each channel, ``[C]``; 0 counts as 1.
        lr: Initial learning rate.
        weight_decay: Of SGD.
        crop: Whether training images are shifted by up to an eighth of their side.
        flip: Whether half of the training images are mirrored; wrong for digits and letters.
        seed: Seed of shifts and mirrors.

    Example:
        >>> from pyg_nas_np.networks.cells import NASBench201Network
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> module = ImageClassifier(NASBench201Network(NASBench201Space()[0], channels=4, num_cells=1))
        >>> module(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 10])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        *,
        lr: float = 0.1,
        weight_decay: float = 5e-4,
        crop: bool = True,
        flip: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        mean = torch.zeros(1, dtype=torch.float32) if mean is None else mean
        std = torch.ones(1, dtype=torch.float32) if std is None else std
        self.register_buffer("mean", mean.reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.where(std > 0, std, 1.0).reshape(1, -1, 1, 1))
        self.lr, self.weight_decay, self.crop, self.flip = lr, weight_decay, crop, flip
        self.accuracy: list[float] = []
        self.losses: list[float] = []
        self._generator = torch.Generator().manual_seed(seed)

    def forward(self, images: Tensor) -> Tensor:
        r"""Returns the logits ``[B, K]`` of images ``[B, C, H, W]``, not normalised, as in training."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits

    def on_train_epoch_start(self) -> None:
        r"""Resets the mean of the loss."""
        self._sum, self._count = 0.0, 0

    def training_step(self, batch: Sequence[Tensor], batch_index: int) -> Tensor:
        r"""Returns the cross entropy of a batch of augmented images."""
        images, labels = batch
        loss = cross_entropy(self(self._augment(images)), labels)
        self._sum, self._count = self._sum + float(loss.detach()) * len(images), self._count + len(images)
        return loss

    def on_train_epoch_end(self) -> None:
        r"""Logs the mean loss."""
        self.losses.append(self._sum / max(1, self._count))
        self.log("train_loss", self.losses[-1])

    def on_validation_epoch_start(self) -> None:
        r"""Resets the counts."""
        self._right, self._seen = 0, 0

    def validation_step(self, batch: Sequence[Tensor], batch_index: int) -> None:
        r"""Counts correct predictions."""
        images, labels = batch
        self._right += int((self(images).argmax(dim=1) == labels).sum())
        self._seen += len(images)

    def on_validation_epoch_end(self) -> None:
        r"""Logs the accuracy."""
        self.accuracy.append(self._right / max(1, self._seen))
        self.log("val_acc", self.accuracy[-1])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        r"""Returns SGD and a cosine over all steps."""
        optimizer = torch.optim.SGD(
            self.parameters(), self.lr, momentum=0.9, nesterov=True, weight_decay=self.weight_decay
        )
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _augment(self, images: Tensor) -> Tensor:
        count, _, height, width = images.shape
        if self.crop:
            # Every image is a separate window of the padded batch; one gather reads all of them.
            border = max(1, min(height, width) // 8)
            padded = pad(images, (border, border, border, border))
            shift = torch.randint(2 * border + 1, (2, count, 1), generator=self._generator, device="cpu").to(
                images.device
            )
            rows = shift[0] + torch.arange(height, device=images.device)
            columns = shift[1] + torch.arange(width, device=images.device)
            number = torch.arange(count, device=images.device)[:, None, None]
            images = padded[number, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        if self.flip:
            mirror = (
                torch.rand(count, generator=self._generator, dtype=torch.float32, device="cpu").to(images.device) < 0.5
            )
            images = torch.where(mirror[:, None, None, None], images.flip(3), images)
        return images


@fixed_defaults
def train_network(
    space: CellSpace[Any],
    arch: Any,
    train: TrainingImages,
    validation: TrainingImages,
    *,
    epochs: int = 12,
    num_classes: int | None = None,
    batch_size: int = 64,
    lr: float = 0.1,
    weight_decay: float = 5e-4,
    crop: bool = True,
    flip: bool = True,
    seed: int = 0,
    accelerator: str = "auto",
    callbacks: Sequence[Callback] = (),
    progress: bool = False,
    **skeleton: Any,
) -> TrainingResult:
    r"""Trains the network of an architecture from scratch.

    Args:
        space: A space of :data:`~pyg_nas_np.networks.cells.NETWORKS`.
        arch: The architecture.
        train: The training images with labels ``0 ... K - 1``; a loader of batches ``(images, labels)`` with images as
            :func:`as_images` returns them; or a folder, an ``.npz`` file or a PyTorch data set
            (:func:`~pyg_nas_np.datasets.images.read_images`) with images of one size, taken as RGB.
        validation: Validation images, likewise; the accuracy is recorded after every epoch.
        epochs: Passes over the training images.
        num_classes: Number of classes ``K``; needed with a loader. (default: those of the training labels)
        batch_size: Images per step; not used with loaders.
        lr: Initial learning rate.
        weight_decay: Of SGD.
        crop: Whether training images are shifted by up to an eighth of their side.
        flip: Whether half of the training images are mirrored; switch it off for digits and letters.
        seed: Seed of weights, order and augmentation; equal seeds give equal networks on one machine.
        accelerator: Of Lightning's trainer.
        callbacks: Of Lightning's trainer.
        progress: Whether to show Lightning's progress bar.
        **skeleton: Sizes of the network (:func:`~pyg_nas_np.networks.cells.make_network`). (default: the benchmark's,
            with a momentum of batch norms for short trainings)

    Raises:
        InvalidImagesError: If images have another shape or type than :func:`as_images` takes, training and validation
            images differ in shape, or there are NaN or infinite values.
        InvalidLabelsError: If there is not one integer label per image, there are fewer than two classes, or a label is
            out of range.
        ValueError: If :obj:`epochs`, :obj:`batch_size` or :obj:`lr` is not positive, or a loader comes without
            :obj:`num_classes`.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> images = torch.rand(32, 1, 8, 8) + torch.arange(32).reshape(-1, 1, 1, 1) % 2
        >>> data = (images, torch.arange(32) % 2)
        >>> result = train_network(space, space[11], data, data, epochs=3, channels=4, num_cells=1, batch_size=8)
        >>> len(result.accuracy), result.module(images).shape
        (3, torch.Size([32, 2]))
    """
    if epochs < 1 or batch_size < 1 or not lr > 0:
        raise ValueError(f"epochs, batch_size and lr must be positive, got {epochs}, {batch_size} and {lr}")
    loaders, shape, statistics, known = _loaders(train, validation, num_classes, batch_size, seed)
    with drawing_from(torch.Generator().manual_seed(seed)):
        network = make_network(space, arch, known, **{"in_channels": shape[0], **network_of(space).short, **skeleton})
    options: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "crop": crop, "flip": flip, "seed": seed}
    module = ImageClassifier(network, *statistics, **options)
    started = time.perf_counter()
    with _quiet():
        trainer = lightning.Trainer(
            accelerator=accelerator,
            devices=1,
            max_epochs=epochs,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=progress,
            callbacks=list(callbacks),
        )
        trainer.fit(module, *loaders)
    seconds = time.perf_counter() - started
    return TrainingResult(arch, module.cpu().eval(), tuple(module.accuracy), tuple(module.losses), seconds)


def train_top_k(
    space: CellSpace[Any],
    ranking: Sequence[Any],
    train: TrainingImages,
    validation: TrainingImages,
    *,
    k: int = 3,
    **options: Any,
) -> list[TrainingResult]:
    r"""Trains the first architectures of a ranking and returns them best first, by their last validation accuracy.

    Args:
        space: The space.
        ranking: Architectures, most promising first; duplicates are skipped.
        train: Training images, see :func:`train_network`.
        validation: Validation images.
        k: Number of architectures to train.
        **options: Further arguments of :func:`train_network`.

    Raises:
        ValueError: If :obj:`k` is not positive or the ranking is empty.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> data = (torch.rand(16, 1, 8, 8), torch.arange(16) % 2)
        >>> ranking = [space[0], space[0], space[7]]
        >>> found = train_top_k(space, ranking, data, data, k=2, epochs=1, channels=4, num_cells=1)
        >>> sorted(space.index(result.arch) for result in found)
        [0, 7]
    """
    if k < 1 or not len(ranking):
        raise ValueError(f"k must be positive and the ranking not empty, got k={k} and {len(ranking)} architectures")
    # Checked before the first training, not after hours.
    chosen = [space.check(arch) for arch in dict.fromkeys(ranking)][:k]
    results = [train_network(space, arch, train, validation, **options) for arch in chosen]
    return sorted(results, key=lambda result: -result.accuracy[-1])


@fixed_defaults
def as_images(images: Any) -> Tensor:
    r"""Returns images as a float tensor ``[N, C, H, W]``.

    Args:
        images: A tensor or array ``[N, C, H, W]``, ``[N, H, W, C]`` with 1 or 3 channels, or ``[N, H, W]``, of floats
            or of bytes, which are divided by 255.

    Raises:
        InvalidImagesError: If it has another shape or type, or NaN or infinite values.

    Example:
        >>> import numpy as np
        >>> as_images(np.zeros((5, 28, 28), dtype=np.uint8)).shape, as_images(torch.zeros(5, 32, 32, 3)).shape
        (torch.Size([5, 1, 28, 28]), torch.Size([5, 3, 32, 32]))
    """
    try:
        tensor = torch.as_tensor(images)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidImagesError(f"images must be a tensor or an array, got {type(images).__name__}") from error
    if tensor.dim() == 3:
        tensor = tensor.unsqueeze(1)
    if tensor.dim() != 4 or tensor.numel() == 0:
        raise InvalidImagesError(f"images must be [N, C, H, W], [N, H, W, C] or [N, H, W], got {list(tensor.shape)}")
    if tensor.size(1) not in (1, 3) and tensor.size(3) in (1, 3):
        tensor = tensor.permute(0, 3, 1, 2).contiguous()
    if tensor.dtype == torch.uint8:
        return tensor.float() / 255
    if not tensor.is_floating_point():
        raise InvalidImagesError(
            f"images must be floats or bytes, got {tensor.dtype}; scale them to floats from 0 to 1"
        )
    finite = tensor.isfinite().flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise InvalidImagesError(f"image {int((~finite).nonzero()[0])} holds NaN or infinite values")
    return tensor.float()


def _loaders(
    train: TrainingImages, validation: TrainingImages, num_classes: int | None, batch_size: int, seed: int
) -> tuple[tuple[DataLoader[Any], DataLoader[Any]], tuple[int, ...], tuple[Tensor, ...], int]:
    """The two loaders, the shape of an image, the statistics for the normalisation, and the number of classes."""
    given: list[tuple[Tensor, Tensor]] = []
    names: list[tuple[str, ...]] = []
    for part in (train, validation):
        if isinstance(part, DataLoader):
            given.append(_pair(*next(iter(part))))
        elif isinstance(part, tuple | list) and len(part) == 2:
            given.append(_pair(*part))
        else:
            read = read_images(part)
            given.append(_stacked(read))
            names.append(read.class_names)
    if len(names) == 2 and names[0] != names[1]:
        odd = sorted(set(names[0]) ^ set(names[1]))
        raise InvalidLabelsError(f"class {odd[0]!r} is in one of training and validation images only")
    if num_classes is None:
        if isinstance(train, DataLoader):
            raise ValueError("a loader does not tell the number of classes; pass num_classes")
        num_classes = int(given[0][1].max()) + 1
        if int(given[0][1].unique().numel()) < 2:
            raise InvalidLabelsError(f"all training labels are {int(given[0][1][0])}; at least two classes are needed")
    if num_classes < 2:
        raise InvalidLabelsError(f"at least two classes are needed, got num_classes={num_classes}")
    for _, labels in given:
        if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
            wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
            raise InvalidLabelsError(f"label {wrong} is not one of the {num_classes} classes 0 ... {num_classes - 1}")
    shape = tuple(given[0][0].shape[1:])
    if tuple(given[1][0].shape[1:]) != shape:
        raise InvalidImagesError(
            f"training images are {list(shape)}, validation images {list(given[1][0].shape[1:])}; resize one of them"
        )
    loaders = []
    for part, pair in zip((train, validation), given, strict=True):
        if isinstance(part, DataLoader):
            loaders.append(part)
            continue
        learns = part is train and not loaders
        loaders.append(
            DataLoader(
                TensorDataset(*pair),
                batch_size=min(batch_size, len(pair[1])) if learns else 256,
                shuffle=learns,
                # A batch of one has no statistics; the order changes, so no image is dropped permanently.
                drop_last=learns,
                generator=torch.Generator().manual_seed(seed),
            )
        )
    statistics = () if isinstance(train, DataLoader) else _statistics(given[0][0])
    return (loaders[0], loaders[1]), shape, statistics, num_classes


def _pair(images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    found = as_images(images)
    try:
        classes = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidLabelsError(f"labels must be a tensor or an array, got {type(labels).__name__}") from error
    if classes.is_floating_point() or classes.dtype == torch.bool or classes.dim() != 1:
        raise InvalidLabelsError(f"labels must be integers [N], got {classes.dtype} {list(classes.shape)}")
    if len(classes) != len(found):
        raise InvalidLabelsError(f"there are {len(found)} images, but {len(classes)} labels")
    return found, classes.long()


def _stacked(images: LabelledImages) -> tuple[Tensor, Tensor]:
    pixels = [images.read(i) for i in range(len(images))]
    odd = next((image.shape for image in pixels if image.shape != pixels[0].shape), None)
    if odd is not None:
        raise InvalidImagesError(
            f"images are of different sizes, {list(pixels[0].shape[1:])} and {list(odd[1:])}; resize them to one"
        )
    return torch.stack(pixels), images.labels


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    return images.mean((0, 2, 3)), images.std((0, 2, 3), unbiased=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Lightning's advice on workers and devices, which does not apply to tensors in memory."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        log.setLevel(level)
