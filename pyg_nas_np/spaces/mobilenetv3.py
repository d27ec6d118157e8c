r"""The MobileNetV3 space of Once-for-All: mobile networks of five stages, too large to enumerate."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_nas_np.spaces.base import Archs, CellSpace, Layer, Stage, Validity
from pyg_nas_np.spaces.dense import DenseGraphs, from_batch
from pyg_nas_np.utils import InvalidArchitectureError, SpaceTooLargeError
from pyg_nas_np.utils.defaults import fixed_defaults

KERNELS = (3, 5, 7)
EXPANSIONS = (3, 4, 6)
DEPTHS = (2, 3, 4)
RESOLUTIONS = tuple(range(128, 225, 4))
"""Sides of the images that the super-network was trained on."""

LAYERS = tuple((kernel, expansion) for kernel in KERNELS for expansion in EXPANSIONS)
"""The nine choices of a layer, ``(kernel, expansion)``; their positions are the digits of an index."""

NUM_STAGES, MAX_DEPTH = 5, 4
_OFFSETS = (0, 81, 810)  # where the stages of two, three and four layers begin among all
_STAGE_CODES = 7371

# Of the super-network of width 1.0: channels of the first block and of the stages, strides of the stages' first layers,
# and which stages have squeeze-and-excitation.
WIDTHS = (16, 24, 40, 80, 112, 160)
STRIDES = (2, 2, 2, 1, 2)
SQUEEZE = (False, True, False, True, True)
_LAST, _MIX, _CLASSES = 960, 1280, 1000

_STRING = re.compile(r"r(\d+)((?:\|k\de\d(?:-k\de\d)*)*)")


@dataclass(frozen=True, slots=True)
class MobileNetV3Arch:
    r"""A sub-network.

    Args:
        stages: Five stages of two to four layers; a layer is ``(kernel, expansion)``.
        resolution: Side of its images in pixels.
    """

    stages: tuple[tuple[tuple[int, int], ...], ...]
    resolution: int = 224

    @property
    def depths(self) -> tuple[int, ...]:
        r"""Number of layers of each stage."""
        return tuple(len(stage) for stage in self.stages)

    def __str__(self) -> str:
        stages = ("-".join(f"k{kernel}e{expansion}" for kernel, expansion in stage) for stage in self.stages)
        return "|".join([f"r{self.resolution}", *stages])


class MobileNetV3Space(CellSpace[MobileNetV3Arch]):
    r"""The sub-networks of `Once-for-All <https://arxiv.org/abs/1908.09791>`_ on MobileNetV3 at width 1.0.

    Each of five stages has two to four layers (inverted bottlenecks), each with a kernel of 3, 5 or 7 and an
    expansion of 3, 4 or 6; images have one of 25 sides. These are 5.4e20 architectures:

    - **Indices are computed, not looked up.** :meth:`__getitem__` and :meth:`index` are exact for every architecture,
      with Python's integers; the resolution is the highest digit, followed by the stages. Tensors can hold only indices
      of 64 bits.
    - **Operations on the whole space raise** :class:`~pyg_nas_np.utils.SpaceTooLargeError`: ``len``,
      :meth:`sample_indices`, and :obj:`None` for the whole space. Use :attr:`size` and :meth:`sample`.

    The graph is a chain: input, a node ``r<side>`` that scales the image, one node ``s<stage>k<kernel>e<expansion>``
    per layer, output. Shortcuts within a stage follow from the chain and are not edges. The string lists the nodes,
    ``r224|k3e4-k5e3|…`` with five stages.

    Parameters and multiply-accumulates are those of the network with 1,000 classes: convolutions, batch norms (two
    parameters a channel), squeeze-and-excitation with its biases, and the classifier; MACs count weights only.

    Args:
        resolutions: The resolutions of the space. (default: all of :data:`RESOLUTIONS`)

    Raises:
        ValueError: If :obj:`resolutions` is empty, not ascending, or not among :data:`RESOLUTIONS`.

    Example:
        >>> space = MobileNetV3Space(resolutions=(224,))
        >>> arch = space.from_str("r224|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3")
        >>> space.num_parameters(arch), space.flops(arch), space.index(arch)
        (3410792, 121278672, 0)
        >>> space.size == 7371**5
        True
    """

    name = "mobilenetv3"
    op_names: ClassVar[tuple[str, ...]] = (
        "input",
        "output",
        *(f"r{side}" for side in RESOLUTIONS),
        *(f"s{stage}k{kernel}e{expansion}" for stage in range(NUM_STAGES) for kernel, expansion in LAYERS),
    )

    described_ops: ClassVar[Mapping[str, tuple[str, Mapping[str, float]]]] = MappingProxyType(
        {f"r{side}": ("identity", {}) for side in RESOLUTIONS}
        | {
            f"s{stage}k{kernel}e{expansion}": (
                "mbconv",
                {"kernel": float(kernel), "expansion": float(expansion), "stage": float(stage)},
            )
            for stage in range(NUM_STAGES)
            for kernel, expansion in LAYERS
        }
    )

    def __init__(self, resolutions: Sequence[int] = RESOLUTIONS) -> None:
        self.resolutions = tuple(resolutions)
        if not self.resolutions or any(a >= b for a, b in pairwise(self.resolutions)):
            raise ValueError(f"resolutions must be ascending, got {self.resolutions}")
        if unknown := sorted(set(self.resolutions) - set(RESOLUTIONS)):
            raise ValueError(f"resolution {unknown[0]} is not one of 128, 132, ..., 224")

    # -- the set ----------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        r"""Number of architectures; ``len`` cannot return one beyond 64 bits."""
        count: int = _STAGE_CODES**NUM_STAGES
        return len(self.resolutions) * count

    def __len__(self) -> int:
        raise SpaceTooLargeError(
            f"{self.name} has {self.size:.1e} architectures, too many for a table of all; "
            f"use size, sample() and index(), or list the architectures that you mean"
        )

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: int) -> MobileNetV3Arch:
        rest = operator.index(index)
        if not 0 <= rest < self.size:
            raise IndexError(f"index {rest} is outside the {self.size} architectures of {self.name}")
        stages = []
        for _ in range(NUM_STAGES):
            rest, code = divmod(rest, _STAGE_CODES)
            stages.append(_stage(code))
        return MobileNetV3Arch(tuple(stages[::-1]), self.resolutions[rest])

    def index(self, arch: MobileNetV3Arch) -> int:
        r"""Returns the position of an architecture, a Python integer of up to 70 bits."""
        rank = self.resolutions.index(self.check(arch).resolution)
        for stage in arch.stages:
            code = 0
            for layer in stage:
                code = 9 * code + LAYERS.index(layer)
            rank = _STAGE_CODES * rank + _OFFSETS[len(stage) - 2] + code
        return rank

    def sample(
        self, n: int, generator: torch.Generator | None = None, *, replace: bool = False
    ) -> list[MobileNetV3Arch]:
        r"""Draws :obj:`n` architectures uniformly, stage by stage; most stages have four layers."""
        if n < 0:
            raise ValueError(f"n must not be negative, got {n}")
        if not replace and n > self.size:
            raise ValueError(f"cannot draw n={n} distinct architectures from a space of {self.size}")
        drawn: list[MobileNetV3Arch] = []
        while len(drawn) < n:
            count = n - len(drawn)
            codes = torch.randint(_STAGE_CODES, (count, NUM_STAGES), generator=generator, device="cpu").tolist()
            sides = torch.randint(len(self.resolutions), (count,), generator=generator, device="cpu").tolist()
            drawn += [
                MobileNetV3Arch(tuple(_stage(code) for code in row), self.resolutions[side])
                for row, side in zip(codes, sides, strict=True)
            ]
            if not replace:
                drawn = list(dict.fromkeys(drawn))
        return drawn

    # -- editing ----------------------------------------------------------------------------------------------------

    def neighbors(self, arch: MobileNetV3Arch) -> list[MobileNetV3Arch]:
        r"""Returns the architectures that differ in one decision.

        These have another kernel or expansion in one layer, one stage without its last layer or with one of nine
        further layers, or the next smaller or larger resolution.
        """
        self.check(arch)
        found = []
        for number, stage in enumerate(arch.stages):
            edited: list[tuple[tuple[int, int], ...]] = []
            for position, (kernel, expansion) in enumerate(stage):
                layers = [(k, expansion) for k in KERNELS if k != kernel]
                layers += [(kernel, e) for e in EXPANSIONS if e != expansion]
                edited += [(*stage[:position], layer, *stage[position + 1 :]) for layer in layers]
            if len(stage) > DEPTHS[0]:
                edited.append(stage[:-1])
            if len(stage) < DEPTHS[-1]:
                edited += [(*stage, layer) for layer in LAYERS]
            for new in edited:
                stages = (*arch.stages[:number], new, *arch.stages[number + 1 :])
                found.append(MobileNetV3Arch(stages, arch.resolution))
        here = self.resolutions.index(arch.resolution)
        around = self.resolutions[max(0, here - 1) : here] + self.resolutions[here + 1 : here + 2]
        return found + [MobileNetV3Arch(arch.stages, side) for side in around]

    @fixed_defaults
    def crossover(
        self, first: MobileNetV3Arch, second: MobileNetV3Arch, generator: torch.Generator | None = None
    ) -> MobileNetV3Arch:
        r"""Takes every stage, and the resolution, from either parent with equal probability."""
        take = (torch.rand(NUM_STAGES + 1, generator=generator) < 0.5).tolist()
        pairs = zip(self.check(first).stages, self.check(second).stages, take[:NUM_STAGES], strict=True)
        stages = tuple(a if t else b for a, b, t in pairs)
        return MobileNetV3Arch(stages, first.resolution if take[NUM_STAGES] else second.resolution)

    # -- other forms ------------------------------------------------------------------------------------------------

    def to_str(self, arch: MobileNetV3Arch) -> str:
        r"""Returns ``r<side>`` and five stages, ``r224|k3e4-k5e3|…``."""
        return str(self.check(arch))

    def from_str(self, text: str) -> MobileNetV3Arch:
        r"""Parses the string form, or the JSON of :meth:`from_dict`."""
        if text.lstrip().startswith("{"):
            try:
                return self.from_dict(json.loads(text))
            except json.JSONDecodeError as error:
                raise InvalidArchitectureError(f"{text!r} is not JSON: {error}") from error
        match = _STRING.fullmatch(text)
        if match is None:
            raise InvalidArchitectureError(f"{text!r} is not of the form r224|k3e4-k5e3|... with five stages")
        stages = tuple(
            tuple((int(layer[1]), int(layer[3])) for layer in stage.split("-"))
            for stage in match.group(2).split("|")[1:]
        )
        return self.check(MobileNetV3Arch(stages, int(match.group(1))))

    def to_dict(self, arch: MobileNetV3Arch) -> dict[str, Any]:
        r"""Returns ``d``, ``ks``, ``e`` and ``r`` as in public tables; ``ks`` and ``e`` of active layers only.

        Example:
            >>> space = MobileNetV3Space()
            >>> space.from_dict(space.to_dict(space[12345])) == space[12345]
            True
        """
        self.check(arch)
        layers = [layer for stage in arch.stages for layer in stage]
        kernels, expansions = [k for k, _ in layers], [e for _, e in layers]
        return {"d": list(arch.depths), "ks": kernels, "e": expansions, "r": arch.resolution}

    def from_dict(self, config: Mapping[str, Any]) -> MobileNetV3Arch:
        r"""Reads the format of public tables.

        Args:
            config: ``d`` five depths; ``ks`` kernels and ``e`` expansions, of the active layers or four per stage, of
                which those beyond its depth are ignored; ``r`` the resolution, also as a list of one. (default: 224)

        Raises:
            InvalidArchitectureError: If a key is missing, a length is wrong, or a value is outside the space.
        """
        try:
            depths, kernels, expansions = (list(config[key]) for key in ("d", "ks", "e"))
            side = config.get("r", 224)
        except (KeyError, TypeError, AttributeError):
            raise InvalidArchitectureError(f"{config!r} must be a mapping with 'd', 'ks' and 'e'") from None
        if len(depths) != NUM_STAGES or any(depth not in DEPTHS for depth in depths):
            raise InvalidArchitectureError(f"d must be five depths among 2, 3 and 4, got {depths}")
        padded = len(kernels) == NUM_STAGES * MAX_DEPTH
        if len(kernels) != len(expansions) or (not padded and len(kernels) != sum(depths)):
            raise InvalidArchitectureError(
                f"ks and e must have 20 entries, or {sum(depths)} for the active layers of d={depths}; "
                f"got {len(kernels)} and {len(expansions)}"
            )
        layers = list(zip(kernels, expansions, strict=True))
        stages, start = [], 0
        for depth in depths:
            stages.append(tuple(layers[start : start + depth]))
            start += MAX_DEPTH if padded else depth
        if isinstance(side, list | tuple) and len(side) == 1:
            side = side[0]
        return self.check(MobileNetV3Arch(tuple(stages), side))

    def is_valid(self, arch: Any) -> Validity:
        r"""Returns whether :obj:`arch` has five stages of two to four valid layers, and a resolution of this space."""
        if not isinstance(arch, MobileNetV3Arch):
            return Validity(False, f"expected a MobileNetV3Arch, got {type(arch).__name__}")
        if len(arch.stages) != NUM_STAGES:
            return Validity(False, f"it has {len(arch.stages)} stages instead of 5")
        for number, stage in enumerate(arch.stages):
            if len(stage) not in DEPTHS:
                return Validity(False, f"stage {number} has {len(stage)} layers, not 2, 3 or 4")
            if wrong := [layer for layer in stage if layer not in LAYERS]:
                return Validity(
                    False, f"stage {number} has the layer {wrong[0]}; kernels are {KERNELS}, expansions {EXPANSIONS}"
                )
        if arch.resolution not in self.resolutions:
            return Validity(False, f"resolution {arch.resolution} is not one of {self.resolutions}")
        return Validity(True)

    def canonical(self, arch: MobileNetV3Arch) -> str:
        r"""Returns the string form, because no two architectures are equivalent."""
        return self.to_str(arch)

    # -- graphs -----------------------------------------------------------------------------------------------------

    def stages(self, arch: MobileNetV3Arch) -> tuple[Stage, ...]:
        r"""Returns the stem, the five stages and the classifier; kinds are kernels, sizes are expansions."""
        middle = []
        for number, stage in enumerate(arch.stages):
            title = f"stage {number + 1}{', SE' if SQUEEZE[number] else ''}"
            note = f"{WIDTHS[number + 1]} channels{f', stride {STRIDES[number]}' if STRIDES[number] > 1 else ''}"
            layers = [Layer(f"{kernel}×{kernel} · e{e}", KERNELS.index(kernel), e) for kernel, e in stage]
            middle.append(Stage(title, note, tuple(layers)))
        side = arch.resolution
        first = Stage("", "", (Layer(f"image {side} × {side} · stem", None, 9),))
        return (first, *middle, Stage("", "", (Layer("pooling · classifier", None, 9),)))

    @fixed_defaults
    def dense(self, archs: Archs = None) -> DenseGraphs:
        r"""Returns the chains, padded to 23 nodes: input, resolution, layers, output."""
        sides, layers = self.codes(archs)
        count, width = layers.size(0), 3 + NUM_STAGES * MAX_DEPTH
        stage = torch.arange(NUM_STAGES).repeat_interleave(MAX_DEPTH)
        ids = 2 + len(RESOLUTIONS) + len(LAYERS) * stage + layers.flatten(1)
        active = layers.flatten(1) >= 0
        num_layers = active.sum(dim=1)
        ops = torch.full((count, width), -1)
        ops[:, 0], ops[:, 1] = 0, 2 + (sides - RESOLUTIONS[0]) // 4
        rows, columns = active.nonzero(as_tuple=True)
        ops[rows, 1 + active.cumsum(dim=1)[rows, columns]] = ids[rows, columns]
        ops[torch.arange(count), 2 + num_layers] = 1
        follows = torch.diag_embed(torch.ones(width - 1, dtype=torch.bool), 1)
        adjacency = follows & (ops[:, None, :] >= 0)
        return DenseGraphs(adjacency, ops, 3 + num_layers)

    def decode(self, data: Data) -> MobileNetV3Arch:
        r"""Reads an architecture back from its chain, whatever the order of the nodes."""
        return self._decode(from_batch(data.x, data.edge_index), data.x.size(1))[0]

    def batch_decode(self, batch: Batch) -> list[MobileNetV3Arch]:
        r"""Reads many architectures back from their chains, whatever the order of the nodes.

        Raises:
            InvalidArchitectureError: If a graph is not one of this space.
        """
        return self._decode(from_batch(batch.x, batch.edge_index, batch.batch, batch.num_graphs), batch.x.size(1))

    def _decode(self, graphs: DenseGraphs, width: int) -> list[MobileNetV3Arch]:
        if width != len(self.op_names):
            raise InvalidArchitectureError(f"x has {width} columns, {self.name} has {len(self.op_names)} operations")
        successors: list[list[list[int]]] = [[[] for _ in range(count)] for count in graphs.num_nodes.tolist()]
        for graph, source, target in graphs.adjacency.nonzero().tolist():
            successors[graph][source].append(target)
        names = [
            [self.op_names[op] for op in ops[: len(of)]]
            for ops, of in zip(graphs.ops.tolist(), successors, strict=True)
        ]
        return [self._read_chain(*graph) for graph in zip(names, successors, strict=True)]

    def _read_chain(self, names: list[str], successors: list[list[int]]) -> MobileNetV3Arch:
        chain = [names.index("input")] if "input" in names else []
        while chain and len(successors[chain[-1]]) == 1 and len(chain) < len(names):
            chain.append(successors[chain[-1]][0])
        ordered = [names[node] for node in chain]
        is_chain = len(set(chain)) == len(names) and sum(map(len, successors)) == len(names) - 1
        if not is_chain or ordered[-1] != "output" or not ordered[1].startswith("r"):
            raise InvalidArchitectureError(
                f"the graph over {', '.join(names)} is not a chain from input over a resolution and layers to output"
            )
        layers = ordered[2:-1]
        if any(not layer.startswith("s") for layer in layers) or layers != sorted(layers, key=lambda op: op[1]):
            raise InvalidArchitectureError(f"the layers {', '.join(layers)} do not follow the order of the stages")
        stages: list[list[tuple[int, int]]] = [[] for _ in range(NUM_STAGES)]
        for layer in layers:
            stages[int(layer[1])].append((int(layer[3]), int(layer[5])))
        return self.check(MobileNetV3Arch(tuple(tuple(stage) for stage in stages), int(ordered[1][1:])))

    # -- costs ------------------------------------------------------------------------------------------------------

    def batch_num_parameters(self, archs: Archs = None) -> Tensor:
        r"""Exact trainable parameters with 1,000 classes, int64 ``[B]``."""
        return self._costs(archs)[0]

    def batch_flops(self, archs: Archs = None) -> Tensor:
        r"""Exact multiply-accumulates of one image at the architecture's resolution, int64 ``[B]``."""
        return self._costs(archs)[1]

    @fixed_defaults
    def _costs(self, archs: Archs) -> tuple[Tensor, Tensor]:
        sides, layers = self.codes(archs)
        active = layers >= 0
        kernels, expansions = torch.tensor(KERNELS)[layers // 3], torch.tensor(EXPANSIONS)[layers % 3]
        side = (sides + 1) // 2
        stem, first = 27 * WIDTHS[0], 9 * WIDTHS[0] + WIDTHS[0] ** 2
        params = torch.full_like(sides, stem + first + 2 * 3 * WIDTHS[0])
        macs = (stem + first) * side**2
        for stage, (source, width) in enumerate(pairwise(WIDTHS)):
            for position in range(MAX_DEPTH):
                entering = source if position == 0 else width
                inner = entering * expansions[:, stage, position]  # always divisible by eight
                after = (side + STRIDES[stage] - 1) // STRIDES[stage] if position == 0 else side
                spatial = kernels[:, stage, position] ** 2 * inner
                squeezed = 2 * inner * _divisible(inner // 4) if SQUEEZE[stage] else 0
                biases = inner + _divisible(inner // 4) if SQUEEZE[stage] else 0
                weights = entering * inner + spatial + squeezed + inner * width
                here = active[:, stage, position]
                params += here * (weights + biases + 4 * inner + 2 * width)
                macs += here * (entering * inner * side**2 + (spatial + inner * width) * after**2 + squeezed)
                side = after
        end = WIDTHS[-1] * _LAST
        params += end + 2 * _LAST + _LAST * _MIX + _MIX * _CLASSES + _CLASSES
        macs += end * side**2 + _LAST * _MIX + _MIX * _CLASSES
        return params, macs

    @fixed_defaults
    def codes(self, archs: Archs = None) -> tuple[Tensor, Tensor]:
        r"""Returns resolutions ``[B]`` and positions of layers in :data:`LAYERS` ``[B, 5, 4]``, -1 beyond the depth."""
        known = [self.check(arch) for arch in self.resolve(archs)]
        sides = torch.tensor([arch.resolution for arch in known], dtype=torch.long)
        digits = [[[*map(LAYERS.index, stage), -1, -1][:MAX_DEPTH] for stage in arch.stages] for arch in known]
        return sides, torch.tensor(digits, dtype=torch.long).reshape(-1, NUM_STAGES, MAX_DEPTH)

    def __repr__(self) -> str:
        sides = (
            str(self.resolutions[0])
            if len(self.resolutions) == 1
            else f"{self.resolutions[0]}...{self.resolutions[-1]}"
        )
        return f"{type(self).__name__}({self.size:.1e}, resolutions={sides})"


def _stage(code: int) -> tuple[tuple[int, int], ...]:
    depth = 2 + sum(code >= offset for offset in _OFFSETS[1:])
    code -= _OFFSETS[depth - 2]
    return tuple(LAYERS[code // 9**position % 9] for position in reversed(range(depth)))


def _divisible(channels: Tensor) -> Tensor:
    """Rounds to a multiple of eight, as the network does, never down by more than a tenth."""
    rounded = (channels + 4).div(8, rounding_mode="floor").clamp_min(1) * 8
    return rounded + 8 * (10 * rounded < 9 * channels)
