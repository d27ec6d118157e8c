r"""Made-up search spaces with made-up labels: do they teach an encoder what most spaces have in common?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.spaces import GraphSpace, Operation, OperationGraph
from pyg_nas_np.utils import seeded

Nodes = list[tuple[str, dict[str, float]]]
Edges = list[tuple[int, int]]

MERIT = {
    "conv": 1.0, "separable_conv": 0.9, "mbconv": 1.0, "attention": 1.0, "message": 0.9, "recurrent": 0.8,
    "mixing": 0.6, "linear": 0.6, "norm": 0.4, "activation": 0.3, "mul": 0.2, "pool": 0.0, "identity": 0.2,
}  # fmt: skip
"""Mean merit of an operation by its role; that of a kind of one space is drawn around it."""

MERIT_STD = 0.5
"""Standard deviation of the merits of kinds around those of their roles."""


class SyntheticSpace(NamedTuple):
    r"""Graphs of a made-up space with labels.

    Args:
        space: The graphs, a pool of ``n``; parameters and multiply-accumulates are costs of some spaces.
        y: Labels, larger is better, ``[n]`` float64.
        form: A key of :data:`FORMS`.
    """

    space: GraphSpace
    y: Tensor
    form: str


class _Dice:
    """Draws from one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def below(self, count: int) -> int:
        return int(torch.randint(count, (1,), generator=self.generator))

    def between(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)

    def normal(self, mean: float = 0.0, std: float = 1.0) -> float:
        return mean + std * float(torch.randn((), generator=self.generator))

    def chance(self, share: float) -> bool:
        return float(torch.rand((), generator=self.generator)) < share

    def some(self, options: list[Any], low: int, high: int) -> list[Any]:
        order = torch.randperm(len(options), generator=self.generator).tolist()
        return [options[i] for i in order[: min(self.between(low, high), len(options))]]

    def one(self, options: list[Any]) -> Any:
        return options[self.below(len(options))]


def _chain(dice: _Dice) -> Callable[[], tuple[Nodes, Edges]]:
    """Stages of convolutions, as of mobile networks: layers that may be left out, kernels, widths, expansions."""
    kinds = dice.some(["conv", "mbconv", "separable_conv", "pool", "identity"], 2, 4)
    kernels, widths = dice.some([1.0, 3.0, 5.0, 7.0], 1, 3), dice.some([16.0, 24.0, 32.0, 64.0, 96.0, 128.0], 1, 4)
    expansions, longest = dice.some([1.0, 2.0, 3.0, 4.0, 6.0], 1, 3), dice.between(4, 14)
    shortest = longest if dice.chance(0.4) else dice.between(2, longest)
    skips = dice.chance(0.5)

    def draw() -> tuple[Nodes, Edges]:
        nodes: Nodes = [("input", {})]
        edges: Edges = []
        for layer in range(dice.between(shortest, longest)):
            kind = dice.one(kinds)
            width = sorted(widths)[min(layer * len(widths) // longest, len(widths) - 1)]
            attributes = {"width": dice.one(widths) if dice.chance(0.3) else width}
            if kind not in ("pool", "identity"):
                attributes["kernel"] = dice.one(kernels)
            if kind == "mbconv":
                attributes["expansion"] = dice.one(expansions)
            nodes.append((kind, attributes))
            edges.append((len(nodes) - 2, len(nodes) - 1))
            if skips and layer > 1 and dice.chance(0.3):
                edges.append((len(nodes) - 3, len(nodes) - 1))
        nodes.append(("output", {}))
        return nodes, [*edges, (len(nodes) - 2, len(nodes) - 1)]

    return draw


def _cell(dice: _Dice) -> Callable[[], tuple[Nodes, Edges]]:
    """A small graph of operations between an input and an output; some nodes lie on no way."""
    vocabulary = [("conv", 1.0), ("conv", 3.0), ("conv", 5.0), ("separable_conv", 3.0), ("separable_conv", 5.0),
                  ("pool", 3.0), ("identity", 0.0)]  # fmt: skip
    kinds, most = dice.some(vocabulary, 3, 6), dice.between(3, 7)
    fixed, density = dice.chance(0.5), 0.25 + 0.5 * float(torch.rand((), generator=dice.generator))

    def draw() -> tuple[Nodes, Edges]:
        count = most if fixed else dice.between(1, most)
        inner: Nodes = []
        for _ in range(count):
            kind, kernel = dice.one(kinds)
            inner.append((kind, {"kernel": kernel} if kernel else {}))
        edges = [(dice.below(i), i) for i in range(1, count + 1)]
        edges += [(u, v) for v in range(2, count + 1) for u in range(v) if dice.chance(density / 2)]
        out = count + 1
        used = {u for u, _ in edges}
        ends = [i for i in range(1, out) if i not in used or dice.chance(density / 3)]
        return [("input", {}), *inner, ("output", {})], sorted({*edges, *((i, out) for i in ends)})

    return draw


def _transformer(dice: _Dice) -> Callable[[], tuple[Nodes, Edges]]:
    """Layers of mixing over positions and of perceptrons, with heads, widths and inner sizes of their own."""
    mixers = dice.some(["attention", "mixing", "separable_conv", "linear"], 1, 3)
    widths, heads = dice.some([64.0, 128.0, 256.0, 512.0], 1, 3), dice.some([1.0, 2.0, 4.0, 8.0, 12.0], 1, 4)
    inner = dice.some([64.0, 128.0, 512.0, 1024.0, 2048.0], 1, 4)
    longest = dice.between(2, 10)
    shortest = longest if dice.chance(0.4) else dice.between(1, longest)
    uniform = dice.chance(0.5)

    def draw() -> tuple[Nodes, Edges]:
        width = dice.one(widths)
        nodes: Nodes = [("input", {}), ("embedding", {"width": width})]
        edges: Edges = [(0, 1)]
        for _ in range(dice.between(shortest, longest)):
            width = width if uniform else dice.one(widths)
            kind, last = dice.one(mixers), len(nodes) - 1
            mixer = {"width": width, "heads": dice.one(heads)} if kind == "attention" else {"width": width}
            nodes += [(kind, mixer), ("add", {}), ("linear", {"width": width, "inner": dice.one(inner)}), ("add", {})]
            edges += [(last, last + 1), (last, last + 2), (last + 1, last + 2), (last + 2, last + 3),
                      (last + 2, last + 4), (last + 3, last + 4)]  # fmt: skip
        nodes.append(("output", {}))
        return nodes, [*edges, (len(nodes) - 2, len(nodes) - 1)]

    return draw


def _layers(dice: _Dice) -> Callable[[], tuple[Nodes, Edges]]:
    """A stack of one kind of layer with its norm and activation, as of graph or recurrent networks."""
    kinds = dice.some(["message", "recurrent", "linear", "conv"], 1, 2)
    widths, activations = dice.some([16.0, 32.0, 64.0, 128.0, 256.0], 2, 4), ["activation", "mul", "identity"]
    normed, skips, longest = dice.chance(0.5), dice.some(["none", "add", "concat"], 1, 3), dice.between(2, 8)

    def draw() -> tuple[Nodes, Edges]:
        width, kind, skip, act = dice.one(widths), dice.one(kinds), dice.one(skips), dice.one(activations)
        norm = normed and dice.chance(0.5)
        nodes: Nodes = [("input", {})]
        edges: Edges = []
        for _ in range(dice.between(1, longest)):
            before = len(nodes) - 1
            for part, attributes in ((kind, {"width": width}), *([("norm", {})] if norm else []), (act, {})):
                nodes.append((part, attributes))
                edges.append((len(nodes) - 2, len(nodes) - 1))
            if skip != "none":
                nodes.append((skip, {}))
                edges += [(len(nodes) - 2, len(nodes) - 1), (before, len(nodes) - 1)]
        nodes.append(("output", {}))
        return nodes, [*edges, (len(nodes) - 2, len(nodes) - 1)]

    return draw


FORMS: dict[str, Callable[[_Dice], Callable[[], tuple[Nodes, Edges]]]] = {
    "chains": _chain,
    "cells": _cell,
    "transformers": _transformer,
    "layers": _layers,
}
"""What the graphs of a space look like."""


def _price(kind: str, attributes: dict[str, float]) -> float:
    """Parameters of an operation, as far as they can be told from the node alone."""
    width, kernel = attributes.get("width", 64.0), attributes.get("kernel", 1.0)
    if kind in ("pool", "identity", "add", "concat", "mul", "activation", "input", "output"):
        return 0.0
    if kind == "separable_conv":
        return width * (kernel**2 + width)
    if kind == "mbconv":
        return attributes.get("expansion", 1.0) * width * (2.0 * width + kernel**2)
    if "inner" in attributes:
        return 2.0 * width * attributes["inner"]
    return {"attention": 4.0, "recurrent": 8.0, "mixing": 0.1, "norm": 0.05}.get(kind, kernel**2) * width**2


class _Truth:
    """The label of a graph: sizes with saturation, merits of operations and of pairs, depth, noise and failures."""

    def __init__(self, dice: _Dice) -> None:
        self.dice = dice
        self.merits: dict[tuple[str, float], float] = {}
        self.pairs: dict[tuple[str, str], float] = {}
        self.size = abs(dice.normal(0.7, 0.5)) * (1.0 if dice.chance(0.85) else -0.5)
        self.depth, self.best_depth = abs(dice.normal(0.0, 0.5)), dice.normal(1.0, 1.0)
        self.operations, self.interaction = abs(dice.normal(0.8, 0.4)), abs(dice.normal(0.0, 0.4))
        self.shortcut, self.width = dice.normal(0.2, 0.3), abs(dice.normal(0.2, 0.3))
        self.noise, self.failing = 0.05 + 0.3 * abs(dice.normal()), 0.1 if dice.chance(0.3) else 0.0
        self.bend = abs(dice.normal(0.0, 1.0))

    def parts(self, nodes: Nodes, edges: Edges) -> list[float]:
        """Logarithm of the size, depth, merit, interaction, shortcuts, width; of nodes on a way through alone."""
        alive = _alive(len(nodes), edges)
        levels = [0.0] * len(nodes)
        shortest = [0.0] * len(nodes)
        before: dict[int, list[int]] = {}
        for u, v in edges:
            if u in alive and v in alive:
                before.setdefault(v, []).append(u)
        for v in sorted(before):
            own = float(nodes[v][0] not in ("identity", "add", "concat", "output"))
            levels[v] = own + max(levels[u] for u in before[v])
            shortest[v] = own + min(shortest[u] for u in before[v])
        merits = [self._merit(*nodes[i]) for i in alive if nodes[i][0] in MERIT]
        pairs = [self._pair(nodes[u][0], nodes[v][0]) for v in before for u in before[v]]
        size = math.log(1e3 + sum(_price(*nodes[i]) for i in alive))
        mean = sum(merits) / max(len(merits), 1)
        total = math.copysign(math.log1p(abs(sum(merits))), sum(merits))
        widths = [attributes["width"] for i in alive if (attributes := nodes[i][1]).get("width", 0.0) > 0.0]
        return [
            size,
            -abs(levels[-1] ** 0.5 - 2.0 - self.best_depth),
            0.5 * mean + 0.5 * total,
            sum(pairs) / max(len(pairs), 1),
            levels[-1] - shortest[-1],
            math.log(sum(widths) / len(widths)) if widths else 0.0,
        ]

    def _merit(self, kind: str, attributes: dict[str, float]) -> float:
        key = kind, attributes.get("kernel", 0.0)
        if key not in self.merits:
            larger = 0.1 * max(key[1] - 1.0, 0.0) ** 0.5
            self.merits[key] = self.dice.normal(MERIT[kind] + larger, MERIT_STD)
        return self.merits[key]

    def _pair(self, first: str, second: str) -> float:
        return self.pairs.setdefault((first, second), self.dice.normal())

    def labels(self, parts: Tensor) -> Tensor:
        """``[n, 6]`` → ``[n]``."""
        scaled = (parts - parts.mean(dim=0)) / parts.std(dim=0).clamp_min(1e-6)
        slopes = [self.size, self.depth, self.operations, self.interaction, self.shortcut, self.width]
        y = scaled @ torch.tensor(slopes, dtype=torch.float64)
        y = (y - y.mean()) / y.std().clamp_min(1e-6)
        # Better ones gain less and less.
        y = -torch.expm1(-self.bend * y) / self.bend if self.bend > 0.05 else y
        y = y.clamp_min(-6.0)
        generator = self.dice.generator
        y = y + self.noise * torch.randn(y.numel(), generator=generator, dtype=torch.float64)
        failed = torch.rand(y.numel(), generator=generator) < self.failing
        return torch.where(failed, y.min() - 1.0, y)


def _alive(count: int, edges: Edges) -> list[int]:
    """Nodes on a way from the first to the last; edges lead to later nodes."""
    ahead, behind = {0}, {count - 1}
    for u, v in sorted(edges, key=lambda edge: edge[1]):
        if u in ahead:
            ahead.add(v)
    for u, v in sorted(edges, reverse=True):
        if v in behind:
            behind.add(u)
    return sorted(ahead & behind)


def synthetic_spaces(
    num: int, size: int = 400, *, seed: int = 0, forms: tuple[str, ...] = tuple(FORMS)
) -> Iterator[SyntheticSpace]:
    r"""Draws spaces: chains of stages, cells, transformers and stacks of layers, each with a vocabulary of its own.

    Labels are a weighted sum of standardised parts, bent so that better ones gain less: the logarithm of the size
    (which larger ones are better in 85 % of the spaces), the distance from a best depth, merits of the operations
    (drawn around those of their roles, :data:`MERIT`), merits of pairs in a row, shortcuts, and width. Noise and, in
    30 % of the spaces, failures are added. In 70 % of the spaces parameters are a known cost.

    Args:
        num: Number of spaces.
        size: Graphs in each, ``n``; equal ones are left out.
        seed: Seed of everything.
        forms: Keys of :data:`FORMS`, in turn.

    Raises:
        ValueError: If a form is unknown, or a number is not positive.
    """
    if unknown := [form for form in forms if form not in FORMS]:
        raise ValueError(f"forms names {unknown[0]!r}; there are {', '.join(FORMS)}")
    if num < 1 or size < 2:
        raise ValueError(f"num must be at least 1 and size at least 2, got {num} and {size}")
    for number in range(num):
        dice = _Dice(seeded((seed * 1_000_003 + number) % (1 << 31)))
        form = forms[number % len(forms)]
        draw, truth = FORMS[form](dice), _Truth(dice)
        found: dict[OperationGraph, list[float]] = {}
        prices = []
        for _ in range(size):
            nodes, edges = draw()
            graph = OperationGraph.of(nodes, edges)
            if graph not in found:
                found[graph] = truth.parts(nodes, edges)
                prices.append(math.exp(found[graph][0]))
        known = {"params": prices} if dice.chance(0.7) else {}
        operations = [Operation(name) for name in sorted({node.op for graph in found for node in graph.nodes})]
        space = GraphSpace(list(found), operations, costs=known, name=f"synthetic-{seed}-{number}")
        yield SyntheticSpace(space, truth.labels(torch.tensor(list(found.values()), dtype=torch.float64)), form)
