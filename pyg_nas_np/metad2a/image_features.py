r"""From images to per-class feature sets, by a fixed network, cached on disk."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from tqdm import tqdm

from pyg_nas_np.datasets.images import MAX_PIXELS, Images, LabelledImages, read_images
from pyg_nas_np.metad2a.backbone import EfficientNetLite0
from pyg_nas_np.metad2a.database import FeatureSets
from pyg_nas_np.utils import (
    DataFileError,
    InvalidFeaturesError,
    InvalidImagesError,
    cache_dir,
    read_tensors,
    seeded,
    write_tensors,
)

logger = logging.getLogger(__name__)

FORMAT = "pyg_nas_np.image_features/1"

Corrupt = Literal["raise", "skip"]


class ImageFeatures:
    r"""Describes data sets of images by the features of a fixed network.

    Some images of each class are drawn, resized to squares and passed through the network in batches. The features are
    cached under a key of the images' content, the network's weights and the settings, so that the same images are never
    processed twice.

    Args:
        backbone: The network: any module that maps RGB images ``[N, 3, size, size]`` from 0 to 1 to ``[N, F]`` or
            ``[N, F, h, w]`` (then averaged over space). (default:
            :class:`~pyg_nas_np.metad2a.backbone.EfficientNetLite0`)
        size: Side of the squares, in pixels.
        images_per_class: Largest number of images drawn from each class; :obj:`None` for all.
        seed: Seed of the draw.
        batch_size: Number of images in a batch; on a CPU, ten take .6 of the time of fifty, because they fit its cache.
        on_corrupt: What to do with an image that cannot be read: ``"raise"``, or ``"skip"`` it and log its name.
        max_pixels: Largest image of a folder; larger ones count as corrupt.
        cache: Folder of the cache. (default: ``image_features`` in :func:`~pyg_nas_np.utils.cache_dir`)

    Raises:
        ValueError: If a number is not positive or :obj:`on_corrupt` is unknown.
        MissingExtraError: If the default network's packages, the extra ``backbone``, are not installed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())  # any module
        >>> images = torch.rand(10, 3, 32, 32), torch.arange(10) % 2
        >>> with TemporaryDirectory() as folder:
        ...     ImageFeatures(network, size=16, images_per_class=4, cache=folder)(images)
        FeatureSets(datasets=1, classes=2, rows=8, features=12)
    """

    def __init__(
        self,
        backbone: nn.Module | None = None,
        *,
        size: int = 128,
        images_per_class: int | None = 20,
        seed: int = 0,
        batch_size: int = 10,
        on_corrupt: Corrupt = "raise",
        max_pixels: int = MAX_PIXELS,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        for name, value in (
            ("size", size),
            ("max_pixels", max_pixels),
            ("images_per_class", images_per_class),
            ("batch_size", batch_size),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        if on_corrupt not in get_args(Corrupt):
            raise ValueError(f"on_corrupt must be one of {', '.join(get_args(Corrupt))}, got {on_corrupt!r}")
        self.backbone = EfficientNetLite0() if backbone is None else backbone
        self.size = size
        self.images_per_class = images_per_class
        self.seed = seed
        self.batch_size = batch_size
        self.on_corrupt = on_corrupt
        self.max_pixels = max_pixels
        self.cache = cache_dir() / "image_features" if cache is None else Path(cache)

    def __call__(self, images: Images) -> FeatureSets:
        r"""Describes one data set.

        Args:
            images: A folder with one folder of images for each class, an ``.npz`` file, a PyTorch data set, or a pair
                of images and labels; see :func:`~pyg_nas_np.datasets.images.read_images`.

        Returns:
            The features as one data set, classes in the order of their names (folders) or labels.

        Raises:
            InvalidImagesError: If the images cannot be used, or no image of a class can be read.
            DataFileError: If a file is corrupt, unless :obj:`on_corrupt` is ``"skip"``.
        """
        found = read_images(images, max_pixels=self.max_pixels)
        chosen = self._draw(found.labels, len(found.class_names))
        path = self.cache / f"{self._key(found, chosen)}.safetensors"
        if (kept := _read(path)) is not None:
            return kept
        features, labels = self._compute(found, chosen)
        sizes = torch.bincount(labels, minlength=len(found.class_names))
        if bool((sizes == 0).any()):
            name = found.class_names[int((sizes == 0).nonzero()[0, 0])]
            raise InvalidImagesError(f"no image of class {name!r} can be read")
        class_ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        result = FeatureSets(features, class_ptr, torch.tensor([0, sizes.numel()], device="cpu"))
        try:
            write_tensors(path, {"features": result.features, "class_ptr": result.class_ptr}, {"format": FORMAT})
        except OSError as error:
            logger.warning("Features are not kept: %s", error)
        return result

    def _draw(self, labels: Tensor, count: int) -> list[int]:
        """Positions of the images to describe, class by class."""
        generator = seeded(self.seed)
        chosen: list[int] = []
        for label in range(count):
            members = (labels == label).nonzero().flatten()
            order = torch.randperm(members.numel(), generator=generator, device="cpu")[: self.images_per_class]
            chosen += members[order].tolist()
        return chosen

    def _backbone_digest(self) -> bytes:
        # Computed at every call, because weights may change in place.
        digest = hashlib.sha256(f"{type(self.backbone).__qualname__} {self.backbone!r}".encode())
        for name, value in (*self.backbone.named_parameters(), *self.backbone.named_buffers()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.digest()

    def _key(self, images: LabelledImages, chosen: list[int]) -> str:
        digest = hashlib.sha256(self._backbone_digest())
        digest.update(f"{self.size} {self.on_corrupt} {self.max_pixels}".encode())
        for i in chosen:
            digest.update(int(images.labels[i]).to_bytes(4, "little"))
            try:
                content = images.fingerprint(i)
            except DataFileError:
                if self.on_corrupt == "raise":
                    raise
                content = b""
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    @torch.no_grad()
    def _compute(self, images: LabelledImages, chosen: list[int]) -> tuple[Tensor, Tensor]:
        first = next(self.backbone.parameters(), None)
        device = torch.device("cpu") if first is None else first.device
        training = self.backbone.training
        self.backbone.eval()
        parts, labels = [], []
        try:
            # disable=None: no bar if the output is not a terminal.
            with tqdm(total=len(chosen), unit="image", desc="features", disable=None) as bar:
                for start in range(0, len(chosen), self.batch_size):
                    batch = chosen[start : start + self.batch_size]
                    pixels = {i: image for i in batch if (image := self._square(images, i)) is not None}
                    if pixels:
                        stacked = torch.stack([*pixels.values()]).to(device, memory_format=torch.channels_last)
                        parts.append(self._describe(stacked).cpu().float())
                        labels += images.labels[[*pixels]].tolist()
                    bar.update(len(batch))
        finally:
            self.backbone.train(training)
        features = torch.cat(parts) if parts else torch.empty(0, 1, dtype=torch.float32, device="cpu")
        return features, torch.tensor(labels, dtype=torch.long, device="cpu")

    def _square(self, images: LabelledImages, i: int) -> Tensor | None:
        try:
            image = images.read(i)
        except (DataFileError, InvalidImagesError) as error:
            if self.on_corrupt == "raise":
                raise
            logger.warning("Skipped an image: %s", error)
            return None
        shape = (self.size, self.size)
        return interpolate(image.unsqueeze(0), shape, mode="bilinear", antialias=True).squeeze(0).clamp(0, 1)

    def _describe(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.backbone(pixels)
        if features.dim() == 4:
            features = features.mean(dim=(2, 3))
        if features.dim() != 2 or features.size(0) != pixels.size(0):
            raise ValueError(f"backbone must return [{pixels.size(0)}, F], got {list(features.shape)}")
        return features

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({type(self.backbone).__name__}, size={self.size}, "
            f"images_per_class={self.images_per_class}, seed={self.seed})"
        )


def _read(path: Path) -> FeatureSets | None:
    """The features in a cache file, unless it is absent or damaged."""
    if not path.exists():
        return None
    try:
        _, state = read_tensors(path, FORMAT)
        if state.keys() != {"features", "class_ptr"}:
            raise DataFileError(f"{path} holds {', '.join(sorted(state)) or 'nothing'}")
        return FeatureSets(
            state["features"], state["class_ptr"], torch.tensor([0, state["class_ptr"].numel() - 1], device="cpu")
        )
    except (DataFileError, InvalidFeaturesError) as error:
        logger.warning("Computing features again: %s", error)
        return None
