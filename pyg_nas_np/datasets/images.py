r"""Labelled images from folders, ``.npz`` files, PyTorch data sets and arrays."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pyg_nas_np.utils import DataFileError, InvalidImagesError, foreign_file, require
from pyg_nas_np.utils.files import check_size, read_bytes

logger = logging.getLogger(__name__)

Images: TypeAlias = Any
r"""A path, a PyTorch data set of ``(image, label)`` pairs, a pair of arrays, or :class:`LabelledImages`."""

MAX_PIXELS = 1 << 26
"""Largest image of a file, 67 megapixels, below the threshold of Pillow's warning."""

_PAIRS = (("x_train", "y_train"), ("x", "y"), ("images", "labels"))
_CHANNELS = (1, 2, 3, 4)


@dataclass(frozen=True)
class LabelledImages:
    r"""Images with class labels, read one by one.

    Args:
        class_names: Names of the ``K`` classes.
        labels: Class of each image, ``[n]`` int64.
        read: Returns the image at a position as RGB, ``[3, H, W]`` float32 from 0 to 1. Raises
            :class:`~pyg_nas_np.utils.InvalidImagesError` or :class:`~pyg_nas_np.utils.DataFileError` if it cannot.
        fingerprint: Returns bytes that identify the content of the image at a position.

    Raises:
        InvalidImagesError: If there is no image, or a class has none.
    """

    class_names: tuple[str, ...]
    labels: Tensor
    read: Callable[[int], Tensor]
    fingerprint: Callable[[int], bytes]

    def __post_init__(self) -> None:
        if self.labels.numel() == 0:
            raise InvalidImagesError("there are no images")
        sizes = torch.bincount(self.labels, minlength=len(self.class_names))
        empty = [name for name, size in zip(self.class_names, sizes.tolist(), strict=True) if size == 0]
        if empty:
            raise InvalidImagesError(f"class {empty[0]!r} has no image; add some or remove the class")
        if len(self.class_names) == 1:
            logger.warning("All images are of one class, %r: that is no classification task.", self.class_names[0])

    def __len__(self) -> int:
        return self.labels.numel()


def read_images(images: Images, *, max_pixels: int = MAX_PIXELS) -> LabelledImages:
    r"""Reads labelled images from any of these sources.

    - A **folder** with one folder of image files for each class (needs Pillow), or an ``.npz`` **file** with arrays
      ``x_train`` and ``y_train`` (or ``x`` and ``y``, ``images`` and ``labels``) and optionally ``classes``, their
      names;
    - a **PyTorch data set** with a length, whose items are ``(image, label)``;
    - a **pair** of images and labels: arrays ``[n, H, W]`` or ``[n, H, W, C]``, tensors ``[n, H, W]`` or
      ``[n, C, H, W]``, or lists of single images.

    Images may be grey, grey with alpha, RGB or RGBA (laid on white), of different sizes, 8-bit, 16-bit or float from
    0 to 1.

    Args:
        images: The images.
        max_pixels: Largest image of a folder, in pixels. The arrays of an ``.npz`` file may unpack to
            ``$PYG_NAS_NP_MAX_BYTES``, by default 4 GiB.

    Raises:
        InvalidImagesError: If the source is none of these, a class is empty, or labels do not fit.
        DataFileError: If a file is corrupt or too large.
        MissingExtraError: If a folder is read without Pillow.

    Example:
        >>> images = read_images((np.zeros((4, 8, 8), dtype=np.uint8), ["cat", "dog", "cat", "cat"]))
        >>> images.class_names, images.labels.tolist(), images.read(0).shape
        (('cat', 'dog'), [0, 1, 0, 0], torch.Size([3, 8, 8]))
    """
    if isinstance(images, LabelledImages):
        return images
    if isinstance(images, str | os.PathLike):
        path = Path(images)
        if path.is_dir():
            return read_folder(path, max_pixels=max_pixels)
        if path.suffix == ".npz":
            return read_npz(path)
        raise DataFileError(f"{path} is neither a folder nor an .npz file")
    if isinstance(images, tuple | list) and len(images) == 2:
        return from_arrays(*images)
    if hasattr(images, "__getitem__") and hasattr(images, "__len__"):
        return from_dataset(images)
    raise InvalidImagesError(
        f"images are a folder, an .npz file, a PyTorch data set with a length, or a pair (images, labels); got a "
        f"{type(images).__name__}"
    )


def read_folder(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> LabelledImages:
    r"""Reads a folder with one folder for each class; hidden files and files other than images are ignored.

    Args:
        path: The folder.
        max_pixels: Largest image; reading a larger one raises. Pillow has a limit of its own,
            ``PIL.Image.MAX_IMAGE_PIXELS``.

    Raises:
        DataFileError: If the folder cannot be listed.
        InvalidImagesError: If there are no class folders, or one has no image.
        MissingExtraError: If Pillow is not installed.
    """
    root = Path(path)
    pillow = require("PIL.Image", "images")
    known = set(pillow.registered_extensions())
    with foreign_file(root, "a folder of images", "check its permissions"):
        folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if not folders:
        raise InvalidImagesError(
            f"{root} has no folders; put the images of each class into a folder with the name of the class"
        )
    files, labels, other = [], [], 0
    for label, folder in enumerate(folders):
        for file in sorted(folder.rglob("*")):
            if file.is_dir() or file.name.startswith("."):
                continue
            if file.suffix.lower() in known:
                files.append(file)
                labels.append(label)
            else:
                other += 1
    if other:
        logger.info("Passed over %d files below %s that are no images", other, root)

    def read(i: int) -> Tensor:
        content = read_bytes(files[i])
        try:
            with foreign_file(files[i], "an image", "remove or replace it"), pillow.open(io.BytesIO(content)) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise DataFileError(
                        f"{files[i]} has {width} x {height} pixels, more than max_pixels={max_pixels}; shrink it, or "
                        f"raise max_pixels"
                    )
                return to_rgb(_pixels(image))
        except InvalidImagesError as error:
            raise DataFileError(f"{files[i]}: {error}") from error

    names = tuple(folder.name for folder in folders)
    return LabelledImages(
        names, torch.tensor(labels, dtype=torch.long, device="cpu"), read, lambda i: read_bytes(files[i])
    )


def read_npz(path: str | os.PathLike[str]) -> LabelledImages:
    r"""Reads the training images of an ``.npz`` file; pickled objects are refused.

    Raises:
        DataFileError: If the file is missing, corrupt, or has no such arrays.
    """
    content = read_bytes(path)
    with foreign_file(path, "an .npz file of plain arrays"):
        _check_claims(path, content)
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            found = [pair for pair in _PAIRS if all(name in file for name in pair)]
            if not found:
                raise DataFileError(f"{path} needs arrays x_train and y_train (or x and y); it has {sorted(file)}")
            x, y = (file[name] for name in found[0])
            names = [str(name) for name in file["classes"]] if "classes" in file else None
            if x.ndim == 0:
                raise DataFileError(f"{path}: '{found[0][0]}' is a single value, not images")
    try:
        return from_arrays(x, y, names)
    except InvalidImagesError as error:
        raise DataFileError(f"{path}: {error}") from error


def _check_claims(path: str | os.PathLike[str], content: bytes) -> None:
    """Refuses arrays that unpack to more than the limit, or whose headers claim more bytes than there are."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        check_size(path, sum(member.file_size for member in members))
        for member in members:
            if not member.filename.endswith(".npy"):
                continue
            with archive.open(member) as file:
                major, _ = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise DataFileError(
                    f"{path}: '{member.filename}' claims the shape {list(shape)}, which it does not hold"
                )


def from_arrays(x: Any, y: Any, class_names: Sequence[str] | None = None) -> LabelledImages:
    r"""Reads arrays, tensors or lists of images with their labels.

    Args:
        x: Images, see :func:`read_images`.
        y: One label an image: integers or strings, ``[n]`` or ``[n, 1]``.
        class_names: Names of the classes 0, 1, …; classes without an image are dropped. (default: the labels)

    Raises:
        InvalidImagesError: If there is not one label an image, or a label has no name.
    """
    labels = y.numpy(force=True) if isinstance(y, Tensor) else np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (len(x),):
        raise InvalidImagesError(f"{len(x)} images need {len(x)} labels, got labels of shape {list(labels.shape)}")
    if labels.dtype.kind not in "iuUb":
        raise InvalidImagesError(f"labels must be integers or strings, got {labels.dtype}")
    values, positions = np.unique(labels, return_inverse=True)
    if class_names is not None:
        if labels.dtype.kind == "U" or (len(values) and not 0 <= values[0] <= values[-1] < len(class_names)):
            raise InvalidImagesError(
                f"labels must be integers from 0 to {len(class_names) - 1}, one for each class name"
            )
        names = tuple(str(class_names[int(value)]) for value in values)
    else:
        names = tuple(str(value) for value in values)

    def read(i: int) -> Tensor:
        try:
            return to_rgb(x[i])
        except InvalidImagesError as error:
            raise InvalidImagesError(f"image {i}: {error}") from error

    return LabelledImages(names, torch.from_numpy(positions.astype(np.int64)), read, lambda i: _bytes(x[i]))


def from_dataset(dataset: Any) -> LabelledImages:
    r"""Reads a PyTorch data set of ``(image, label)`` pairs.

    Labels are taken from ``targets`` if the data set has them, as those of torchvision do; otherwise every item is
    loaded once. Names are taken from ``classes``.

    Raises:
        InvalidImagesError: If an item is no such pair.
    """
    targets = getattr(dataset, "targets", None)
    if targets is None or len(targets) != len(dataset):
        targets = [_pair(dataset, i)[1] for i in range(len(dataset))]
    names = getattr(dataset, "classes", None)
    single = [int(label) if isinstance(label, Tensor) else label for label in targets]
    return from_arrays(_Items(dataset), single, names)


class _Items:
    """The images of a data set."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Any:
        return _pair(self.dataset, i)[0]


def _pair(dataset: Any, i: int) -> tuple[Any, Any]:
    item = dataset[i]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise InvalidImagesError(f"item {i} of the data set is a {type(item).__name__}, not a pair (image, label)")
    return item[0], item[1]


def to_rgb(image: Any) -> Tensor:
    r"""Returns one image as RGB, ``[3, H, W]`` float32 from 0 to 1.

    Args:
        image: An array ``[H, W]`` or ``[H, W, C]``, a tensor ``[H, W]`` or ``[C, H, W]``, or an image of Pillow.

    Raises:
        InvalidImagesError: If it has another shape, no pixel, or values that are none of 8-bit, 16-bit and 0 to 1.

    Example:
        >>> to_rgb(np.full((2, 2), 65535, dtype=np.uint16)).unique()
        tensor([1.])
    """
    pixels = image if isinstance(image, np.ndarray | Tensor) else _pixels(image)
    channels_first = isinstance(pixels, Tensor)
    array = pixels.numpy(force=True) if isinstance(pixels, Tensor) else pixels
    if array.ndim == 2:
        array, channels_first = array[:, :, None], False
    if array.ndim != 3 or 0 in array.shape or array.shape[0 if channels_first else 2] not in _CHANNELS:
        form = "[C, H, W]" if channels_first else "[H, W, C]"
        raise InvalidImagesError(
            f"an image must have shape [H, W] or {form} with 1 to 4 channels, got {[*image.shape]}"
        )
    values = torch.from_numpy(_fractions(array))
    values = values if channels_first else values.permute(2, 0, 1)
    if values.size(0) in (2, 4):
        colour, alpha = values[:-1], values[-1:]
        values = colour * alpha + (1.0 - alpha)
    return values.expand(3, -1, -1).contiguous()


def _fractions(array: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Values from 0 to 1."""
    if array.dtype == np.bool_:
        return array.astype(np.float32)
    if array.dtype in (np.uint8, np.uint16):
        return array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)
    if array.dtype.kind != "f":
        raise InvalidImagesError(f"pixels must be uint8, uint16 or float, got {array.dtype}; convert them")
    values = array.astype(np.float32)
    if not bool(np.isfinite(values).all()):
        raise InvalidImagesError("a pixel is NaN or infinite")
    low, high = float(values.min()), float(values.max())
    if low < 0.0 or high > 1.0:
        raise InvalidImagesError(
            f"float pixels must lie between 0 and 1, got {low:g} to {high:g}; undo the normalisation, or pass uint8"
        )
    return values


def _pixels(image: Any) -> np.ndarray[Any, Any]:
    """Pixels of an image of Pillow, palettes and exotic modes resolved."""
    mode = getattr(image, "mode", None)
    if mode is None:
        try:
            return np.asarray(image)
        except ValueError as error:
            raise InvalidImagesError(f"a {type(image).__name__} is not an image ({error})") from error
    if mode.startswith("I"):  # 16-bit grey; "I" itself is how older versions read it
        return np.asarray(image).clip(0, 65535).astype(np.uint16)
    if mode in ("1", "L", "LA", "RGB", "RGBA"):
        return np.asarray(image)
    return np.asarray(image.convert("RGBA" if mode in ("P", "PA", "La", "RGBa") else "RGB"))


def _bytes(image: Any) -> bytes:
    pixels = image if isinstance(image, np.ndarray | Tensor) else _pixels(image)
    array = pixels.numpy(force=True) if isinstance(pixels, Tensor) else pixels
    head = f"{type(pixels).__name__} {array.dtype} {array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).digest()
