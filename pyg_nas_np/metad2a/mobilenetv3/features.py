r"""Hand-designed features of a sub-network of Once-for-All."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyg_nas_np.spaces.base import Archs
from pyg_nas_np.spaces.graph_codec import MobileNetV3GraphCodec
from pyg_nas_np.spaces.mobilenetv3 import EXPANSIONS, KERNELS, LAYERS, MAX_DEPTH, NUM_STAGES, MobileNetV3Space
from pyg_nas_np.utils import fixed_defaults


class MobileNetV3Features:
    r"""Features of the sub-networks of a :class:`~pyg_nas_np.spaces.MobileNetV3Space`.

    The space is too large for the statistics of :class:`~pyg_nas_np.features.MetaFeatures`; all scales follow from the
    bounds of the space instead. The groups, in the order of their columns:

    - **bias**: one;
    - **stages**: logarithms of parameters and of multiply-accumulates, then for each stage its depth, the sum of its
      kernels and that of its expansions, each from -1 (smallest sub-network) to 1 (largest);
    - **products**: products of any two of these, squares included;
    - **layers**: kernel and expansion of each of twenty layers, one-hot; zeros beyond the depth of a stage.

    Args:
        space: The search space. (default: all resolutions)

    Example:
        >>> features = MobileNetV3Features()
        >>> {name: len(columns) for name, columns in features.groups.items()}
        {'bias': 1, 'stages': 17, 'products': 153, 'layers': 120}
        >>> features.table([features.space.from_str("r224" + "|k7e6-k7e6-k7e6-k7e6" * 5)])[0, :4]
        tensor([1., 1., 1., 1.], dtype=torch.float64)
    """

    @fixed_defaults
    def __init__(self, space: MobileNetV3Space | None = None) -> None:
        self.space: MobileNetV3Space = space or MobileNetV3Space()

        self._bounds = self._stages(MobileNetV3GraphCodec(self.space).extremes())

    @property
    def groups(self) -> Mapping[str, list[int]]:
        r"""Columns of each group."""
        stages = self._bounds.size(1)
        layers = NUM_STAGES * MAX_DEPTH * (len(KERNELS) + len(EXPANSIONS))
        sizes = {"bias": 1, "stages": stages, "products": stages * (stages + 1) // 2, "layers": layers}
        stops = list(itertools.accumulate(sizes.values()))
        return {name: list(range(stop - size, stop)) for (name, size), stop in zip(sizes.items(), stops, strict=True)}

    @property
    def num_columns(self) -> int:
        r"""Number of columns."""
        return sum(map(len, self.groups.values()))

    @fixed_defaults
    def table(self, archs: Archs) -> Tensor:
        r"""Returns the features of sub-networks, ``[B, num_columns]`` float64."""
        low, high = self._bounds
        stages = 2 * (self._stages(archs) - low) / (high - low) - 1
        first, second = torch.triu_indices(stages.size(1), stages.size(1))
        codes = self.space.codes(archs)[1]
        chosen = [one_hot(digit, 3) * (codes >= 0).unsqueeze(3) for digit in (codes % 9 // 3, codes % 3)]
        layers = torch.cat(chosen, dim=3).flatten(1)
        bias = stages.new_ones(stages.size(0), 1)
        return torch.cat([bias, stages, stages[:, first] * stages[:, second], layers], dim=1)

    def _stages(self, archs: Archs) -> Tensor:
        codes = self.space.codes(archs)[1]
        active = codes >= 0
        kernels, expansions = torch.tensor(LAYERS, dtype=torch.float64)[codes].unbind(dim=3)
        costs = torch.stack([self.space.batch_num_parameters(archs), self.space.batch_flops(archs)], dim=1)
        sums = [(active * value).sum(dim=2).double() for value in (torch.ones_like(kernels), kernels, expansions)]
        return torch.cat([costs.double().log(), *sums], dim=1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space!r})"


def mobilenetv3_features(space: MobileNetV3Space) -> MobileNetV3Features:
    r"""Returns the features of a space, one object for all spaces of the same resolutions."""
    return _features(space.resolutions)


@lru_cache(maxsize=32)
def _features(resolutions: tuple[int, ...]) -> MobileNetV3Features:
    return MobileNetV3Features(MobileNetV3Space(resolutions))
