from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from pyg_nas_np.datasets import read_images
from pyg_nas_np.datasets.images import from_arrays, to_rgb
from pyg_nas_np.utils import DataFileError, InvalidImagesError, MissingExtraError, NASError

Image = pytest.importorskip("PIL.Image", reason="the images extra is not installed")

RAMP = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, count in (("b", 1), ("a", 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.fromarray(RAMP).save(tmp_path / name / f"{i}.png")
    return tmp_path


# -- pixels ---------------------------------------------------------------------------------------------------------


def test_every_form_of_an_image_means_the_same() -> None:
    expected = torch.from_numpy(RAMP).permute(2, 0, 1) / 255.0
    deep = (RAMP.astype(np.uint16) * 257).astype(np.uint16)
    for image in (
        RAMP,
        deep,
        RAMP / 255.0,
        torch.from_numpy(RAMP).permute(2, 0, 1),
        expected,
        Image.fromarray(RAMP),
        Image.fromarray(RAMP).convert("RGBA"),
        np.dstack([RAMP, np.full((2, 2), 255, dtype=np.uint8)]),
    ):
        rgb = to_rgb(image)
        assert rgb.dtype == torch.float32
        torch.testing.assert_close(rgb, expected)


@pytest.mark.parametrize("grey", [RAMP[:, :, 0], RAMP[:, :, :1], Image.fromarray(RAMP[:, :, 0])])
def test_grey_becomes_three_equal_channels(grey: Any) -> None:
    rgb = to_rgb(grey)
    assert rgb.shape == (3, 2, 2)
    torch.testing.assert_close(rgb[0], torch.from_numpy(RAMP[:, :, 0]) / 255.0)
    assert torch.equal(rgb[0], rgb[2])


def test_transparent_pixels_are_white() -> None:
    image = np.zeros((1, 2, 4), dtype=np.uint8)
    image[0, 1, 3] = 255
    assert to_rgb(image)[0].tolist() == [[1.0, 0.0]]
    assert to_rgb(image[:, :, 2:])[0].tolist() == [[1.0, 0.0]]  # grey with alpha


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "YCbCr", "I;16", "I", "LA", "F"])
def test_exotic_modes_of_pillow_are_read(mode: str) -> None:
    if mode.startswith("I"):
        image = Image.fromarray(np.full((2, 3), 65535, dtype=np.uint16))
        image = image.convert("I") if mode == "I" else image
    else:
        image = Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode)
    rgb = to_rgb(image)
    assert rgb.shape == (3, 2, 3)
    torch.testing.assert_close(rgb, torch.ones(3, 2, 3), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros(4, dtype=np.uint8), r"must have shape \[H, W\] or \[H, W, C\] with 1 to 4 channels, got \[4\]"),
        (np.zeros((0, 4), dtype=np.uint8), r"got \[0, 4\]"),
        (np.zeros((3, 4, 5), dtype=np.uint8), r"got \[3, 4, 5\]"),
        (torch.zeros(5, 4, 3), r"\[C, H, W\] with 1 to 4 channels, got \[5, 4, 3\]"),
        (np.zeros((2, 2), dtype=np.int64), "must be uint8, uint16 or float, got int64"),
        (np.full((2, 2), 255.0), "must lie between 0 and 1, got 255 to 255; undo the normalisation"),
        (np.full((2, 2), -0.5), "must lie between 0 and 1, got -0.5"),
        (np.full((2, 2), np.nan), "NaN or infinite"),
    ],
)
def test_bad_pixels_are_told(image: Any, message: str) -> None:
    with pytest.raises(InvalidImagesError, match=message):
        to_rgb(image)


# -- sources --------------------------------------------------------------------------------------------------------


def test_folders_are_classes(folder: Path) -> None:
    (folder / "a" / "notes.txt").write_text("no image")
    (folder / ".hidden").mkdir()
    (folder / "b" / "deeper").mkdir()
    Image.fromarray(RAMP[:, :, 0]).save(folder / "b" / "deeper" / "9.JPG")
    images = read_images(folder)
    assert images.class_names == ("a", "b")
    assert images.labels.tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(images.read(0), to_rgb(RAMP))


def test_bad_folders_are_told(folder: Path, tmp_path: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(InvalidImagesError, match="class 'empty' has no image"):
        read_images(folder)
    with pytest.raises(InvalidImagesError, match="has no folders; put the images of each class into a folder"):
        read_images(folder / "a")
    with pytest.raises(DataFileError, match="neither a folder nor an"):
        read_images(folder / "a" / "0.png")


def test_corrupt_files_are_named(folder: Path) -> None:
    (folder / "a" / "0.png").write_bytes((folder / "a" / "1.png").read_bytes()[:40])
    (folder / "b" / "0.png").write_bytes(b"")
    images = read_images(folder)
    for i, name in ((0, "a/0.png"), (2, "b/0.png")):
        with pytest.raises(DataFileError, match=f"{name} is corrupt or not an image"):
            images.read(i)


def test_folders_need_pillow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str, extra: str) -> None:
        raise MissingExtraError(module, extra)

    monkeypatch.setattr("pyg_nas_np.datasets.images.require", absent)
    with pytest.raises(MissingExtraError, match=r"pyg-nas-np\[images\]"):
        read_images(folder)


def test_npz_files_hold_images_labels_and_names(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x_train=np.stack([RAMP] * 3), y_train=[2, 0, 2], classes=np.array(["cat", "dog", "owl"]))
    images = read_images(path)
    assert images.class_names == ("cat", "owl")
    assert images.labels.tolist() == [1, 0, 1]
    torch.testing.assert_close(images.read(2), to_rgb(RAMP))


def test_bad_npz_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, pictures=RAMP)
    with pytest.raises(DataFileError, match=r"needs arrays x_train and y_train .*; it has \['pictures'\]"):
        read_images(path)
    np.savez(path, x=np.stack([RAMP] * 3), y=[0])
    with pytest.raises(DataFileError, match=r"x.npz: 3 images need 3 labels, got labels of shape \[1\]"):
        read_images(path)
    np.savez(path, x=np.array([{}], dtype=object), y=[0])
    with pytest.raises(DataFileError, match=r"corrupt or not an \.npz file of plain arrays"):
        read_images(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataFileError, match=r"corrupt or not an \.npz file of plain arrays"):
        read_images(path)
    with pytest.raises(DataFileError, match="missing"):
        read_images(tmp_path / "absent.npz")


def test_pytorch_data_sets_are_read() -> None:
    x, y = torch.rand(4, 3, 5, 5), torch.tensor([1, 0, 1, 1])
    images = read_images(TensorDataset(x, y))
    assert images.labels.tolist() == [1, 0, 1, 1]
    torch.testing.assert_close(images.read(3), x[3])


def test_targets_spare_loading_every_image() -> None:
    class Lazy:
        targets = (0, 1, 1)
        classes = ("cat", "dog")

        def __len__(self) -> int:
            return 3

        def __getitem__(self, i: int) -> Any:
            assert i == 2
            return Image.fromarray(RAMP), 1

    images = read_images(Lazy())
    assert images.class_names == ("cat", "dog")
    torch.testing.assert_close(images.read(2), to_rgb(RAMP))


def test_images_of_many_sizes_come_as_lists() -> None:
    images = read_images(([RAMP, RAMP[:1, :1]], ["b", "a"]))
    assert images.class_names == ("a", "b")
    assert images.read(1).shape == (3, 1, 1)
    assert images.fingerprint(0) != images.fingerprint(1)


def test_one_class_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    read_images((np.zeros((2, 4, 4), dtype=np.uint8), [7, 7]))
    assert "of one class, '7': that is no classification task" in caplog.text


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (3, "got a int"),
        ((np.zeros((2, 4, 4)), [0]), r"2 images need 2 labels, got labels of shape \[1\]"),
        ((np.zeros((2, 4, 4)), [0.5, 1.0]), "labels must be integers or strings, got float64"),
        ((np.zeros((0, 4, 4)), np.zeros(0, dtype=int)), "there are no images"),
        ([1, 2, 3], "item 0 of the data set is a int, not a pair"),
    ],
)
def test_other_input_is_told(images: Any, message: str) -> None:
    with pytest.raises(InvalidImagesError, match=message):
        read_images(images)


def test_every_label_needs_its_name() -> None:
    with pytest.raises(InvalidImagesError, match="labels must be integers from 0 to 1"):
        from_arrays(np.zeros((2, 4, 4)), [0, 2], ["a", "b"])


def test_a_bad_image_is_named_by_its_position() -> None:
    images = read_images((np.full((2, 4, 4), 7.0), [0, 1]))
    with pytest.raises(InvalidImagesError, match="image 1: float pixels must lie between 0 and 1"):
        images.read(1)


def test_pipes_and_devices_are_refused_without_waiting(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        os.mkfifo(tmp_path / name / "image.png")
    images = read_images(tmp_path)
    for use in (images.read, images.fingerprint):
        with pytest.raises(DataFileError, match="not a regular file"):
            use(0)
    with pytest.raises(DataFileError):
        read_images(Path("/dev/zero"))


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"no image at all"])
def test_truncated_images_are_told(tmp_path, content):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "image.png").write_bytes(content)
    with pytest.raises(DataFileError, match="corrupt or not an image"):
        read_images(tmp_path).read(0)


def test_large_images_need_leave(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("L", (30, 20)).save(tmp_path / "a" / "image.png")
    with pytest.raises(DataFileError, match="has 30 x 20 pixels, more than max_pixels=599"):
        read_images(tmp_path, max_pixels=599).read(0)
    assert read_images(tmp_path, max_pixels=600).read(0).shape == (3, 20, 30)


def test_bombs_are_refused_by_their_header(tmp_path):
    """A picture of 30,000 x 30,000 pixels whose file has but a header."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT")
    with pytest.raises(DataFileError, match=r"DecompressionBomb|more than max_pixels"):
        read_images(tmp_path).read(0)


def test_headers_that_claim_too_much_are_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "zeros.npz", x=np.zeros((1000, 32, 32), np.uint8), y=np.arange(1000) % 2)
    assert len(read_images(tmp_path / "zeros.npz")) == 1000
    monkeypatch.setenv("PYG_NAS_NP_MAX_BYTES", "1000000")
    with pytest.raises(DataFileError, match="PYG_NAS_NP_MAX_BYTES"):
        read_images(tmp_path / "zeros.npz")
    monkeypatch.delenv("PYG_NAS_NP_MAX_BYTES")
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 8, 8)})
    with zipfile.ZipFile(tmp_path / "claims.npz", "w") as archive:
        archive.writestr("x.npy", array.getvalue())
        archive.writestr("y.npy", array.getvalue())
    with pytest.raises(DataFileError, match="claims the shape"):
        read_images(tmp_path / "claims.npz")


def test_damaged_archives_raise_named_errors(tmp_path, mutations):
    path = tmp_path / "images.npz"
    np.savez(path, x=np.zeros((4, 8, 8), np.uint8), y=np.arange(4) % 2)
    for content in mutations(path.read_bytes(), count=200):
        path.write_bytes(content)
        with suppress(NASError):
            read_images(path)
