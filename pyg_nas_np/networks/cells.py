r"""The networks of cells: the macro skeletons of NAS-Bench-201 and NAS-Bench-101 as modules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pyg_nas_np.spaces import CellSpace, NASBench101Arch, NASBench101Space, NASBench201Arch, NASBench201Space
from pyg_nas_np.spaces.nasbench201 import EDGES


class CellNetwork(nn.Module):
    r"""A network made of copies of a cell."""

    small: ClassVar[Mapping[str, Any]]
    """Sizes of the skeleton for zero-cost scores."""

    short: ClassVar[Mapping[str, Any]]
    """Sizes for short trainings that differ from the benchmark's."""

    largest: ClassVar[str]
    """String of the architecture with the most parameters."""


class NASBench201Network(CellNetwork):
    r"""The network that `NAS-Bench-201 <https://arxiv.org/abs/2001.00326>`_ trains for a cell.

    A stem, three stages of :obj:`num_cells` equal cells at :obj:`channels`, twice and four times as many channels, a
    residual block that halves the image before the second and the third stage, and a linear classifier over the mean of
    the pixels. With the default arguments and 10, 100 or 120 classes its parameters equal
    :meth:`~pyg_nas_np.spaces.NASBench201Space.num_parameters`. As in the benchmark, operations whose output is unused
    are part of the network.

    Args:
        arch: The cell, or its official string.
        num_classes: Number of classes.
        channels: Channels of the first stage; 16 in the benchmark.
        num_cells: Cells per stage; 5 in the benchmark.
        in_channels: Channels of the images.

    Shapes:
        - **input:** images ``[B, in_channels, H, W]``, at least 4 x 4 pixels (the benchmark: 32 x 32, or 16 x 16 for
          ImageNet16-120).
        - **output:** logits ``[B, num_classes]``.

    Raises:
        InvalidArchitectureError: If :obj:`arch` is not a cell of NAS-Bench-201.
        ValueError: If a size is smaller than 1.

    Example:
        >>> space = NASBench201Space("cifar100")
        >>> network = NASBench201Network(space[11], num_classes=100)
        >>> sum(p.numel() for p in network.parameters()) == space.num_parameters(space[11])
        True
        >>> NASBench201Network(space[11], 100, channels=4, num_cells=1)(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 100])
    """

    small: ClassVar[Mapping[str, Any]] = {"channels": 3, "num_cells": 1}
    short: ClassVar[Mapping[str, Any]] = {}
    largest: ClassVar[str] = (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    )

    def __init__(
        self,
        arch: NASBench201Arch | str,
        num_classes: int = 10,
        *,
        channels: int = 16,
        num_cells: int = 5,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        _check_sizes(num_classes=num_classes, channels=channels, num_cells=num_cells, in_channels=in_channels)
        space = NASBench201Space()
        self.arch = space.from_str(arch) if isinstance(arch, str) else space.check(arch)
        self.num_classes, self.channels = num_classes, channels
        self.num_cells, self.in_channels = num_cells, in_channels
        self.stem = _conv_bn(in_channels, channels, 3)
        body: list[nn.Module] = []
        width = channels
        for stage in range(3):
            if stage:
                body.append(_ResidualBlock(width, 2 * width))
                width *= 2
            body += [_Cell201(self.arch, width) for _ in range(num_cells)]
        self.body = nn.Sequential(*body)
        self.tail = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
        self.classifier = nn.Linear(width, num_classes)

    def reset_parameters(self) -> None:
        r"""Draws new weights by PyTorch's defaults, as in the benchmark."""
        _reset_children(self)

    def forward(self, images: Tensor) -> Tensor:
        r"""Returns the logits.

        Raises:
            ValueError: If the images do not have the shape that the network was built for.
        """
        _check_images(images, self.in_channels)
        out: Tensor = self.classifier(self.tail(self.body(self.stem(images))).mean((2, 3)))
        return out

    def __repr__(self) -> str:
        sizes = f"{self.num_classes}, channels={self.channels}, num_cells={self.num_cells}"
        return f"{type(self).__name__}('{self.arch}', {sizes})"


class NASBench101Network(CellNetwork):
    r"""The network that `NAS-Bench-101 <https://arxiv.org/abs/1902.09635>`_ trains for a cell.

    A stem, three stacks of :obj:`num_modules` equal cells at :obj:`channels`, twice and four times as many channels, a
    2 x 2 max-pool before the second and the third stack, and a linear classifier over the mean of the pixels. With
    the default arguments its parameters equal :meth:`~pyg_nas_np.spaces.NASBench101Space.num_parameters`.

    Within a cell, the channels of the output are split between its inputs, which are concatenated. Every other vertex
    has as many channels as its widest successor; a sum uses the first channels of wider summands.

    Args:
        arch: The cell, or its string ``V:edges:labels``.
        num_classes: Number of classes.
        channels: Channels of the first stack; 128 in the benchmark, at least 5, one for each possible input of the
            output.
        num_modules: Cells per stack; 3 in the benchmark.
        in_channels: Channels of the images.
        norm_momentum: Momentum of the running statistics of batch norms, in PyTorch's notation. The benchmark's, .003
            (.997 in its framework), needs a thousand steps; use .1 for a short training.

    Shapes:
        - **input:** images ``[B, in_channels, H, W]``, at least 4 x 4 pixels (the benchmark: 32 x 32).
        - **output:** logits ``[B, num_classes]``.

    Raises:
        InvalidArchitectureError: If :obj:`arch` is not a cell of NAS-Bench-101.
        ValueError: If a size is too small.

    Example:
        >>> network = NASBench101Network("3:111:1")
        >>> sum(p.numel() for p in network.parameters())
        2793866
        >>> NASBench101Network("3:111:1", channels=8, num_modules=1)(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    small: ClassVar[Mapping[str, Any]] = {"channels": 8, "num_modules": 1}
    short: ClassVar[Mapping[str, Any]] = {"norm_momentum": 0.1}
    largest: ClassVar[str] = "7:110101001001000100101:33333"

    def __init__(
        self,
        arch: NASBench101Arch | str,
        num_classes: int = 10,
        *,
        channels: int = 128,
        num_modules: int = 3,
        in_channels: int = 3,
        norm_momentum: float = 0.003,
    ) -> None:
        super().__init__()
        _check_sizes(num_classes=num_classes, channels=channels, num_modules=num_modules, in_channels=in_channels)
        if channels < 5:
            raise ValueError(
                f"channels must be at least 5, one for each vertex that may feed the output, got {channels}"
            )
        space = NASBench101Space()
        self.arch = space.from_str(arch) if isinstance(arch, str) else space.check(arch)
        self.num_classes, self.channels = num_classes, channels
        self.num_modules, self.in_channels = num_modules, in_channels
        self.stem = _conv_bn_relu(in_channels, channels, 3)
        body: list[nn.Module] = []
        source = width = channels
        for stack in range(3):
            if stack:
                body.append(nn.MaxPool2d(2))
                width *= 2
            for _ in range(num_modules):
                body.append(_Cell101(self.arch, source, width))
                source = width
        self.body = nn.Sequential(*body)
        self.classifier = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = norm_momentum
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws new weights as in the benchmark: convolutions by He et al. (2015), biases of zero."""
        _reset_children(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        nn.init.xavier_uniform_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        r"""Returns the logits.

        Raises:
            ValueError: If the images do not have the shape that the network was built for.
        """
        _check_images(images, self.in_channels)
        out: Tensor = self.classifier(self.body(self.stem(images)).mean((2, 3)))
        return out

    def __repr__(self) -> str:
        sizes = f"{self.num_classes}, channels={self.channels}, num_modules={self.num_modules}"
        return f"{type(self).__name__}('{self.arch}', {sizes})"


NETWORKS: dict[str, type[CellNetwork]] = {
    NASBench201Space.name: NASBench201Network,
    NASBench101Space.name: NASBench101Network,
}
"""Networks by the name of the space of their cells."""


def network_of(space: CellSpace[Any]) -> type[CellNetwork]:
    r"""Returns the class of the networks for the cells of a space.

    Raises:
        ValueError: If there is none.
    """
    if space.name not in NETWORKS:
        raise ValueError(f"there is no network for the cells of {space.name}; there is one for {', '.join(NETWORKS)}")
    return NETWORKS[space.name]


def make_network(space: CellSpace[Any], arch: Any, num_classes: int = 10, **skeleton: Any) -> nn.Module:
    r"""Builds the network of an architecture.

    Args:
        space: NAS-Bench-201 or NAS-Bench-101.
        arch: The architecture.
        num_classes: Number of classes.
        **skeleton: Further arguments of the network's class. (default: the benchmark's sizes)

    Raises:
        ValueError: If there is no network for the space, or it has no such size.

    Example:
        >>> space = NASBench201Space()
        >>> make_network(space, space[0], num_classes=2, channels=4, num_cells=1).num_classes
        2
    """
    network: Callable[..., nn.Module] = network_of(space)
    known = list(inspect.signature(network).parameters)[2:]
    if unknown := sorted(skeleton.keys() - set(known)):
        raise ValueError(f"the network of {space.name} has no size '{unknown[0]}'; it has {', '.join(known)}")
    return network(arch, num_classes, **skeleton)


class _Cell201(nn.Module):
    """Four nodes; a node is the sum of its edges."""

    def __init__(self, arch: NASBench201Arch, channels: int) -> None:
        super().__init__()
        self.into: list[list[tuple[int, str]]] = [[], [], [], []]
        self.ops = nn.ModuleDict()
        for (source, target), op in zip(EDGES, arch.ops, strict=True):
            if op == "none":
                continue
            key = f"{source}-{target}"
            self.ops[key] = _op201(op, channels)
            self.into[target].append((source, key))

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for edges in self.into[1:]:
            terms = [self.ops[key](nodes[source]) for source, key in edges]
            # A node without inputs is zero; its outgoing edges are computed nevertheless.
            nodes.append(sum(terms[1:], terms[0]) if terms else torch.zeros_like(x))
        return nodes[3]


def _op201(op: str, channels: int) -> nn.Module:
    if op == "skip_connect":
        return nn.Identity()
    if op == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return _relu_conv_bn(channels, channels, 3 if op == "nor_conv_3x3" else 1)


class _ResidualBlock(nn.Module):
    """Halves the image and changes the channels."""

    def __init__(self, source: int, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _relu_conv_bn(source, channels, 3, stride=2), _relu_conv_bn(channels, channels, 3)
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, stride=2), nn.Conv2d(source, channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        # The convolution rounds odd sides up, so the pooled shortcut must too.
        padded = nn.functional.pad(x, (0, x.size(3) % 2, 0, x.size(2) % 2))
        out: Tensor = self.residual(x) + self.shortcut(padded)
        return out


class _Cell101(nn.Module):
    """A cell of NAS-Bench-101 from ``source`` to ``channels`` channels."""

    def __init__(self, arch: NASBench101Arch, source: int, channels: int) -> None:
        super().__init__()
        matrix = arch.matrix.astype(bool)
        last = arch.num_vertices - 1
        self.widths = _vertex_channels(matrix, channels)
        self.into = [[s for s in range(1, t) if matrix[s, t]] for t in range(last)]
        self.feeds = [t for t in range(1, last) if matrix[t, last]]
        # Vertex ``last`` stands for an edge from input to output.
        self.projections = nn.ModuleDict(
            {str(t): _conv_bn_relu(source, self.widths[t], 1) for t in range(1, last + 1) if matrix[0, t]}
        )
        self.ops = nn.ModuleList(_op101(letter, self.widths[t]) for t, letter in enumerate(arch.labels, start=1))

    def forward(self, x: Tensor) -> Tensor:
        states = [x]
        for t, op in enumerate(self.ops, start=1):
            terms = [states[s][:, : self.widths[t]] for s in self.into[t]]
            if str(t) in self.projections:
                terms.append(self.projections[str(t)](x))
            states.append(op(sum(terms[1:], terms[0])))
        last = str(len(states))
        out = [torch.cat([states[t] for t in self.feeds], dim=1)] if self.feeds else []
        if last in self.projections:
            out.append(self.projections[last](x))
        return sum(out[1:], out[0])


def _vertex_channels(matrix: Any, channels: int) -> list[int]:
    """Channels of every vertex; 0 for the input, where they are not used."""
    last = len(matrix) - 1
    sharing = [t for t in range(1, last) if matrix[t, last]]
    widths = [0] * last + [channels]
    for position, t in enumerate(sharing):
        share, rest = divmod(channels, len(sharing))
        widths[t] = share + (position < rest)
    for t in range(last - 1, 0, -1):
        if not matrix[t, last]:
            widths[t] = max(widths[s] for s in range(t + 1, last) if matrix[t, s])
    return widths


def _op101(letter: str, channels: int) -> nn.Module:
    if letter == "p":
        return nn.MaxPool2d(3, stride=1, padding=1)
    return _conv_bn_relu(channels, channels, int(letter))


def _conv(source: int, channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(source, channels, kernel, stride, padding=kernel // 2, bias=False)


def _conv_bn(source: int, channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(_conv(source, channels, kernel), nn.BatchNorm2d(channels))


def _relu_conv_bn(source: int, channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), _conv(source, channels, kernel, stride), nn.BatchNorm2d(channels))


def _conv_bn_relu(source: int, channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(*_conv_bn(source, channels, kernel), nn.ReLU())


def _reset_children(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            module.reset_parameters()


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


def _check_images(images: Tensor, channels: int) -> None:
    if images.dim() != 4 or images.size(1) != channels or min(images.shape[2:]) < 4:
        raise ValueError(
            f"images must have shape [B, {channels}, H, W] with at least 4 x 4 pixels, got {list(images.shape)}"
        )
