from __future__ import annotations

import math

import lightning
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from pyg_nas_np.networks import trainer
from pyg_nas_np.networks.cells import NASBench201Network
from pyg_nas_np.networks.trainer import ImageClassifier, as_images, train_network, train_top_k
from pyg_nas_np.spaces import NASBench101Space, NASBench201Space
from pyg_nas_np.utils import InvalidArchitectureError, InvalidImagesError, InvalidLabelsError

SPACE = NASBench201Space()
TINY = {"channels": 4, "num_cells": 1, "batch_size": 16}


def stripes(count=96, side=8, channels=1, seed=0):
    """Class 0 has horizontal stripes, class 1 vertical ones, class 2 none; noise on top."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    wave = (torch.arange(side) % 2).float()
    plain = torch.full((side, side), 0.5)
    images = torch.stack([wave[:, None].expand(side, side), wave.expand(side, side), plain])[labels]
    images = images[:, None].expand(count, channels, side, side)
    return images + 0.3 * torch.randn(images.shape, generator=generator), labels


TRAIN, VALID = stripes(), stripes(48, seed=1)


def test_a_network_learns_what_can_be_learned():
    result = train_network(SPACE, SPACE[6111], TRAIN, VALID, epochs=5, **TINY)
    assert len(result.accuracy) == len(result.loss) == 5
    assert result.accuracy[-1] >= 0.9
    assert result.loss[-1] < result.loss[0]
    assert result.seconds > 0
    assert result.arch == SPACE[6111]
    # The module takes images as they were given, and what it says is what was recorded.
    assert not result.module.training
    with torch.no_grad():
        right = (result.module(VALID[0]).argmax(1) == VALID[1]).double().mean().item()
    assert right == pytest.approx(result.accuracy[-1])


def test_labels_matter():
    shuffled = TRAIN[1][torch.randperm(96, generator=torch.Generator().manual_seed(0))]
    result = train_network(SPACE, SPACE[6111], (TRAIN[0], shuffled), VALID, epochs=2, **TINY)
    assert result.accuracy[-1] < 0.8


def test_a_dead_cell_stays_at_chance():
    result = train_network(SPACE, SPACE.from_digits("333000"), TRAIN, VALID, epochs=2, **TINY)
    assert result.accuracy[-1] == pytest.approx(1 / 3)


def test_seed_decides_everything_and_disturbs_nothing():
    before = torch.get_rng_state()
    runs = [train_network(SPACE, SPACE[11], TRAIN, VALID, epochs=2, seed=seed, **TINY) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert runs[0].loss == runs[1].loss
    assert runs[0].accuracy == runs[1].accuracy
    assert runs[0].loss != runs[2].loss


def test_arrays_and_loaders_give_what_tensors_give():
    images, labels = (TRAIN[0] * 50 + 100).clamp(0, 255).byte(), TRAIN[1]
    grey = train_network(SPACE, SPACE[11], (images[:, 0].numpy(), labels.numpy()), VALID, epochs=1, **TINY)
    tensors = train_network(SPACE, SPACE[11], (images, labels.int()), VALID, epochs=1, **TINY)
    assert grey.loss == pytest.approx(tensors.loss, rel=1e-3)

    def loader(pair):
        return DataLoader(TensorDataset(*pair), batch_size=16)

    loaded = train_network(SPACE, SPACE[11], loader(TRAIN), loader(VALID), epochs=1, num_classes=3, **TINY)
    assert loaded.module(VALID[0]).shape == (48, 3)
    with pytest.raises(ValueError, match="a loader does not tell the number of classes; pass num_classes"):
        train_network(SPACE, SPACE[11], loader(TRAIN), loader(VALID))


def test_files_give_what_arrays_give(tmp_path):
    images, labels = (stripes(channels=3)[0] * 50 + 100).clamp(0, 255).byte(), TRAIN[1]
    pairs = {}
    for name in ("train", "valid"):
        pairs[name] = tmp_path / f"{name}.npz"
        np.savez(pairs[name], x=images.permute(0, 2, 3, 1).numpy(), y=labels.numpy())
    read = train_network(SPACE, SPACE[11], pairs["train"], pairs["valid"], epochs=1, **TINY)
    arrays = train_network(SPACE, SPACE[11], (images, labels), (images, labels), epochs=1, **TINY)
    assert read.loss == pytest.approx(arrays.loss, rel=1e-3)
    assert read.accuracy == pytest.approx(arrays.accuracy, abs=1 / 48)  # one image
    np.savez(pairs["valid"], x=images.permute(0, 2, 3, 1).numpy(), y=labels.clamp(max=1).numpy())
    with pytest.raises(InvalidLabelsError, match="class '2' is in one of training and validation images only"):
        train_network(SPACE, SPACE[11], pairs["train"], pairs["valid"])
    sizes = TensorDataset(torch.zeros(4, 3, 8, 8), torch.arange(4) % 2)
    mixed = [(image[:, : 8 - i % 2], int(label)) for i, (image, label) in enumerate(sizes)]
    with pytest.raises(InvalidImagesError, match=r"different sizes, \[8, 8\] and \[7, 8\]"):
        train_network(SPACE, SPACE[11], mixed, mixed)


def test_cells_of_nasbench101_are_trained_too():
    space = NASBench101Space()
    data, valid = stripes(channels=3), stripes(48, channels=3, seed=1)
    result = train_network(
        space, space.from_str("3:111:3"), data, valid, epochs=4, channels=8, num_modules=1, batch_size=16
    )
    assert result.accuracy[-1] > 0.6


def test_the_best_of_a_ranking_come_best_first(monkeypatch):
    trained = []

    def fake(space, arch, train, validation, **options):
        trained.append(arch)
        return trainer.TrainingResult(arch, None, (0.9, options["accuracies"][arch]), (), 0.0)

    monkeypatch.setattr(trainer, "train_network", fake)
    ranking = [SPACE[i] for i in (3, 3, 1, 4, 1, 5)]
    accuracies = {SPACE[3]: 0.5, SPACE[1]: 0.7, SPACE[4]: 0.6, SPACE[5]: 1.0}
    found = train_top_k(SPACE, ranking, TRAIN, VALID, k=3, accuracies=accuracies)
    assert trained == [SPACE[3], SPACE[1], SPACE[4]]
    assert [result.arch for result in found] == [SPACE[1], SPACE[4], SPACE[3]]


def test_rankings_are_checked_before_anything_is_trained(monkeypatch):
    monkeypatch.setattr(trainer, "train_network", lambda *args, **options: pytest.fail("trained"))
    with pytest.raises(InvalidArchitectureError):
        train_top_k(SPACE, [SPACE[0], "cell"], TRAIN, VALID)
    with pytest.raises(ValueError, match="k must be positive and the ranking not empty, got k=0 and 1"):
        train_top_k(SPACE, [SPACE[0]], TRAIN, VALID, k=0)
    with pytest.raises(ValueError, match="got k=3 and 0 architectures"):
        train_top_k(SPACE, [], TRAIN, VALID)


def test_callbacks_see_the_curve_and_may_stop_it():
    class Stop(lightning.Callback):
        def on_validation_end(self, trainer, module):
            assert {"val_acc"} <= trainer.callback_metrics.keys()
            trainer.should_stop = True

    result = train_network(SPACE, SPACE[11], TRAIN, VALID, epochs=5, callbacks=[Stop()], **TINY)
    assert len(result.accuracy) == 1


def test_augmentation_shifts_and_mirrors():
    images = torch.arange(64.0).reshape(1, 1, 8, 8).repeat(500, 1, 1, 1)
    network = NASBench201Network(SPACE[0], channels=4, num_cells=1, in_channels=1)
    still = ImageClassifier(network, crop=False, flip=False)
    assert still._augment(images) is images
    mirrored = ImageClassifier(network, crop=False)._augment(images)
    same = (mirrored == images).flatten(1).all(1)
    assert 200 < int(same.sum()) < 300
    assert torch.equal(mirrored[~same], images[~same].flip(3))
    shifted = ImageClassifier(network, flip=False)._augment(images)
    assert shifted.shape == images.shape
    padded = torch.nn.functional.pad(images[0, 0], (1, 1, 1, 1))
    windows = torch.stack([padded[i : i + 8, j : j + 8] for i in range(3) for j in range(3)])
    which = (shifted[:, 0, None] == windows).flatten(2).all(2)
    assert bool((which.sum(1) == 1).all())
    assert bool((which.sum(0) > 20).all())


def test_constant_channels_are_not_divided_by_zero():
    images = TRAIN[0].repeat(1, 2, 1, 1)
    images[:, 1] = 7.0
    result = train_network(SPACE, SPACE[11], (images, TRAIN[1]), (images, TRAIN[1]), epochs=1, **TINY)
    assert math.isfinite(result.loss[0])


def test_forms_of_images():
    assert as_images(np.zeros((4, 9, 9, 3))).shape == (4, 3, 9, 9)
    assert as_images(torch.zeros(4, 1, 9, 9).half()).dtype == torch.float32
    assert float(as_images(np.full((1, 2, 2), 255, dtype=np.uint8)).max()) == 1.0


def corrupted():
    images = TRAIN[0].clone()
    images[7, 0, 3, 3] = math.nan
    return images


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ((corrupted(), TRAIN[1]), "image 7 holds NaN or infinite values"),
        ((torch.zeros(4, 4), TRAIN[1]), r"\[N, H, W\], got \[4, 4\]"),
        ((torch.zeros(0, 1, 8, 8), TRAIN[1]), r"got \[0, 1, 8, 8\]"),
        ((TRAIN[0].long(), TRAIN[1]), r"floats or bytes, got torch\.int64"),
        (("images", TRAIN[1]), "must be a tensor or an array, got str"),
        (5, "a folder, an .npz file, a PyTorch data set with a length, or a pair .images, labels."),
        (stripes(side=10), r"training images are \[1, 10, 10\], validation images \[1, 8, 8\]"),
    ],
)
def test_wrong_images_are_named(train, message):
    with pytest.raises(InvalidImagesError, match=message):
        train_network(SPACE, SPACE[0], train, VALID)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.ones(96, dtype=torch.long), "all training labels are 1; at least two classes"),
        (TRAIN[1].float(), r"labels must be integers \[N\], got torch\.float32"),
        (TRAIN[1][:, None], r"got torch\.int64 \[96, 1\]"),
        (TRAIN[1][:-1], "there are 96 images, but 95 labels"),
        (TRAIN[1] - 1, r"label -1 is not one of the 2 classes 0 \.\.\. 1"),
        (TRAIN[1].clamp(max=1), "label 2 is not one of the 2 classes"),
        ("labels", "must be a tensor or an array, got str"),
    ],
)
def test_wrong_labels_are_named(labels, message):
    with pytest.raises(InvalidLabelsError, match=message):
        train_network(SPACE, SPACE[0], (TRAIN[0], labels), VALID)
    with pytest.raises(InvalidLabelsError, match="at least two classes are needed, got num_classes=1"):
        train_network(SPACE, SPACE[0], TRAIN, VALID, num_classes=1)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"lr": 0.0}, {"lr": math.nan}])
def test_wrong_options_are_named(wrong):
    with pytest.raises(ValueError, match="epochs, batch_size and lr must be positive"):
        train_network(SPACE, SPACE[0], TRAIN, VALID, **wrong)


def test_defaults_of_the_process_do_not_matter(other_defaults):
    options = {"epochs": 1, "channels": 4, "num_cells": 1, "batch_size": 32, "accelerator": "cpu"}
    space = NASBench201Space()
    expected = train_network(space, space[11], TRAIN, TRAIN, **options)
    with other_defaults():
        found = train_network(space, space[11], TRAIN, TRAIN, **options)
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    for one, other in zip(found.module.parameters(), expected.module.parameters(), strict=True):
        assert one.dtype == other.dtype == torch.float32
