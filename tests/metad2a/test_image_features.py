from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pyg_nas_np.metad2a import ImageFeatures
from pyg_nas_np.utils import InvalidImagesError


class Mean(nn.Module):
    """The mean colour, and how many images it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        self.sizes.append(images.size(0))
        return self.weight * images.mean(dim=(2, 3))


IMAGES = torch.rand(10, 3, 9, 7, generator=torch.Generator().manual_seed(0))
LABELS = [1, 0, 1, 1, 2, 1, 0, 1, 1, 1]


def features(network: nn.Module, tmp_path: Path, **changes: Any) -> ImageFeatures:
    return ImageFeatures(network, **{"size": 8, "images_per_class": None, "cache": tmp_path} | changes)


def test_classes_are_told_apart_and_keep_their_images(tmp_path: Path) -> None:
    sets = features(Mean(), tmp_path, size=36)((IMAGES, LABELS))
    assert sets.class_ptr.tolist() == [0, 2, 9, 10]
    expected = IMAGES[[1, 6]].mean(dim=(2, 3))
    found = sets.features[:2][sets.features[:2, 0].argsort()]
    torch.testing.assert_close(found, expected[expected[:, 0].argsort()], atol=0.02, rtol=0)


def test_drawing_is_seeded_and_bounded(tmp_path: Path) -> None:
    first, again, other = (
        features(Mean(), tmp_path / str(i), images_per_class=2, seed=seed)((IMAGES, LABELS))
        for i, seed in enumerate([0, 0, 1])
    )
    assert first.class_ptr.tolist() == [0, 2, 4, 5]
    assert torch.equal(first.features, again.features)
    assert not torch.equal(first.features, other.features)


def test_batches_do_not_matter(tmp_path: Path) -> None:
    network = Mean()
    one = features(network, tmp_path / "a", batch_size=3)((IMAGES, LABELS))
    assert network.sizes == [3, 3, 3, 1]
    torch.testing.assert_close(one.features, features(network, tmp_path / "b")((IMAGES, LABELS)).features)


def test_the_same_images_are_computed_once(tmp_path: Path) -> None:
    network = Mean()
    first = features(network, tmp_path)((IMAGES, LABELS))
    again = features(network, tmp_path)((IMAGES.clone(), LABELS))
    assert len(network.sizes) == 1
    assert torch.equal(first.features, again.features)
    assert torch.equal(first.class_ptr, again.class_ptr)


def test_whatever_changes_the_features_computes_them_again(tmp_path: Path) -> None:
    network = Mean()
    features(network, tmp_path)((IMAGES, LABELS))
    features(network, tmp_path)((IMAGES + 1e-6, LABELS)) if bool((IMAGES < 0.9999).all()) else None
    features(network, tmp_path)((IMAGES, [*LABELS[:-1], 0]))
    features(network, tmp_path, size=4)((IMAGES, LABELS))
    nn.init.constant_(network.weight, 2.0)
    features(network, tmp_path)((IMAGES, LABELS))
    assert len(network.sizes) == len(list(tmp_path.iterdir())) >= 4


def test_a_damaged_cache_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = Mean()
    first = features(network, tmp_path)((IMAGES, LABELS))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:20])
    assert torch.equal(features(network, tmp_path)((IMAGES, LABELS)).features, first.features)
    assert "Computing features again" in caplog.text
    assert len(network.sizes) == 2


def test_maps_of_features_are_averaged(tmp_path: Path) -> None:
    sets = features(nn.Conv2d(3, 5, 3), tmp_path)((IMAGES, LABELS))
    assert sets.num_features == 5


def test_a_network_in_training_stays_there(tmp_path: Path) -> None:
    network = Mean().train()
    features(network, tmp_path)((IMAGES, LABELS))
    assert network.training


def test_bad_images_are_skipped_only_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = IMAGES.clone()
    images[6] = -1.0
    with pytest.raises(InvalidImagesError, match="image 6: float pixels"):
        features(Mean(), tmp_path)((images, LABELS))
    assert not list(tmp_path.iterdir())
    sets = features(Mean(), tmp_path, on_corrupt="skip")((images, LABELS))
    assert sets.class_ptr.tolist() == [0, 1, 8, 9]
    assert "Skipped an image: image 6" in caplog.text
    images[4] = -1.0
    with pytest.raises(InvalidImagesError, match="no image of class '2' can be read"):
        features(Mean(), tmp_path, on_corrupt="skip")((images, LABELS))


def test_wrong_networks_and_settings_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"backbone must return \[10, F\], got \[10, 3, 64\]"):
        features(nn.Flatten(2), tmp_path)((IMAGES, LABELS))
    for name in ("size", "images_per_class", "batch_size"):
        with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
            features(Mean(), tmp_path, **{name: 0})
    with pytest.raises(ValueError, match="on_corrupt must be one of raise, skip, got 'ignore'"):
        features(Mean(), tmp_path, on_corrupt="ignore")


def test_the_default_describes_images_by_their_classes(tmp_path: Path, shared_data: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the backbone extra is not installed")
    with np.load(shared_data / "images" / "cifar10_300_100.npz") as file:
        x, y = file["x_train"][::60], file["y_train"][::60]
    sets = ImageFeatures(size=64, images_per_class=3, cache=tmp_path)((x, y))
    assert sets.num_features == 1280
    assert repr(ImageFeatures(cache=tmp_path)).startswith("ImageFeatures(EfficientNetLite0, size=128")


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    images = torch.rand(6, 3, 8, 8), torch.arange(6) % 2
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    describe = ImageFeatures(network, size=8, cache=tmp_path)
    before = describe(images)
    with torch.no_grad():
        network[0].weight.mul_(2)
    assert not torch.equal(describe(images).features, before.features)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())
    found = ImageFeatures(network, size=8, cache=tmp_path / "file")((torch.rand(2, 3, 8, 8), [0, 1]))
    assert found.num_classes == 2
    assert "Features are not kept" in caplog.text


def test_defaults_of_the_process_do_not_matter(
    tmp_path: Path, other_defaults: Callable[[], AbstractContextManager[None]]
) -> None:
    images = torch.rand(6, 3, 8, 8), torch.arange(6) % 2
    network = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    expected = ImageFeatures(network, size=8, cache=tmp_path / "a")(images)
    with other_defaults():
        found = ImageFeatures(network, size=8, cache=tmp_path / "b")(images)
    torch.testing.assert_close(found.features, expected.features)
