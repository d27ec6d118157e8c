r"""Q-learning over chains of layers (MetaQNN), with early stopping of its trainings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pyg_nas_np.curves.data import Floats
from pyg_nas_np.curves.early_stopping import EarlyStopping
from pyg_nas_np.curves.hyperband import Run
from pyg_nas_np.search.layer_strings import Layer, Net, format_net, image_size, net_depth
from pyg_nas_np.utils import InvalidArchitectureError

State = Hashable


class LayerGrammar(ABC):
    r"""Which layers may follow a chain of layers; a chain is complete when it ends in a softmax."""

    @abstractmethod
    def actions(self, net: Net) -> Sequence[Layer]:
        r"""Returns the layers that may follow, in a fixed order."""

    def state(self, net: Net) -> State:
        r"""Returns the state of the agent: last layer, depth and the binned size of the representation."""
        if not net:
            return ("start",)
        size = image_size(net)
        return (net[-1], net_depth(net), 2 if size >= 8 else 1 if size >= 4 else 0)


class MetaQNNGrammar(LayerGrammar):
    r"""The chains of `Baker et al., 2017 <https://arxiv.org/abs/1611.02167>`_, in the notation of their CIFAR-10 table.

    Pools need a representation of at least their size and do not follow each other. A chain may end at every depth and
    must end at the largest.

    Args:
        max_depth: Largest number of convolutions and pools.
        filters: Numbers of filters.
        sizes: Sizes of convolutions.
        pools: Sizes and strides of pools.
        classes: Classes of the data.
        image_size: Side of the images.

    Example:
        >>> grammar = MetaQNNGrammar(max_depth=1, filters=(64,), sizes=(3,), pools=())
        >>> [str(layer) for layer in grammar.actions(())]
        ['C(64,3,1)', 'GAP(10)', 'SM(10)']
    """

    def __init__(
        self,
        max_depth: int = 18,
        filters: Sequence[int] = (64, 128, 256, 512),
        sizes: Sequence[int] = (1, 3, 5),
        pools: Sequence[tuple[int, int]] = ((5, 3), (3, 2), (2, 2)),
        classes: int = 10,
        image_size: int = 32,
    ) -> None:
        if max_depth < 1:
            raise ValueError(f"max_depth must be at least 1 but is {max_depth}")
        self.max_depth, self.image_size = max_depth, image_size
        self.convolutions = [Layer("C", (n, size, 1)) for n in filters for size in sizes]
        self.pools = [Layer("P", pool) for pool in pools]
        self.average, self.softmax = Layer("GAP", (classes,)), Layer("SM", (classes,))

    def actions(self, net: Net) -> Sequence[Layer]:
        r"""Returns the layers that may follow."""
        if net and net[-1].kind == "SM":
            return []
        if net and net[-1].kind == "GAP":
            return [self.softmax]
        ends = [self.average, self.softmax]
        if len(net) >= self.max_depth:
            return ends
        size = image_size(net, self.image_size)
        after_pool = bool(net) and net[-1].kind == "P"
        return [*self.convolutions, *(p for p in self.pools if p.numbers[0] <= size and not after_pool), *ends]


class TabularGrammar(LayerGrammar):
    r"""Exactly the chains of a table: a layer may follow if some net of the table continues with it.

    Args:
        nets: The nets.

    Raises:
        InvalidArchitectureError: If there is no net.
    """

    def __init__(self, nets: Iterable[Net]) -> None:
        self.following: dict[Net, list[Layer]] = {}
        for net in nets:
            for i, layer in enumerate(net):
                known = self.following.setdefault(net[:i], [])
                if layer not in known:
                    known.append(layer)
        if not self.following:
            raise InvalidArchitectureError("a table of layer chains needs at least one net")

    def actions(self, net: Net) -> Sequence[Layer]:
        r"""Returns the layers that may follow."""
        return self.following.get(net, [])


class Trial(NamedTuple):
    r"""One net that the agent built.

    Args:
        net: The net, as text.
        epsilon: Exploration rate at that time.
        reward: Its final value, predicted if it was stopped.
        epochs: Number of epochs trained; 0 if it had been built before.
        stopped: Whether it was stopped early.
    """

    net: str
    epsilon: float
    reward: float
    epochs: int
    stopped: bool


@dataclass
class QLearningResult:
    r"""Result and cost of a search.

    Args:
        trials: All nets in the order in which they were built.
        best: The best net that was trained to the end; where every net was stopped, the one of the best prediction.
        value: Its final value, or the predicted one.
        epochs: Epochs that were trained in all.
    """

    trials: list[Trial] = field(repr=False)
    best: str
    value: float
    epochs: int


SCHEDULE = ((1.0, 1500), (0.9, 100), (0.8, 100), (0.7, 100), (0.6, 150), (0.5, 150), (0.4, 150), (0.3, 150),
            (0.2, 150), (0.1, 150))  # fmt: skip
"""Exploration rates of the MetaQNN paper and how many nets are built with each."""


def epsilon_schedule(total: int) -> list[tuple[float, int]]:
    r"""Returns the paper's schedule scaled from 2,700 to :obj:`total` nets.

    Example:
        >>> epsilon_schedule(100)[:2], sum(count for _, count in epsilon_schedule(100))
        ([(1.0, 56), (0.9, 3)], 100)
    """
    whole = sum(count for _, count in SCHEDULE)
    ends = np.cumsum([count for _, count in SCHEDULE]) * total / whole
    counts = np.diff(np.rint(ends).astype(int), prepend=0).tolist()
    return [(epsilon, count) for (epsilon, _), count in zip(SCHEDULE, counts, strict=True) if count]


class QLearningSearch:
    r"""Builds nets layer by layer with ε-greedy Q-learning and experience replay (MetaQNN).

    A state is the last layer with its depth and the size of its representation. An action is the next layer. The only
    reward is the net's final value, at the end. Q-values are initialised to :obj:`initial`. After each net,
    :obj:`replay` nets from memory are replayed, each from its last layer backwards. A net that is built again gets its
    known reward without training. Larger rewards must be better, as for an accuracy.

    With :obj:`stopping`, trainings end early where the rule says so, and the reward of such a net is its predicted
    final value (Baker et al., 2017, section 4.2).

    Args:
        grammar: Which layers may follow.
        schedule: Exploration rates with numbers of nets. (default: the paper's 2,700)
        learning_rate: Of the Q-values.
        discount: Of later rewards; 1 in the paper.
        replay: Number of nets replayed after each net.
        initial: Initial Q-value.
        stopping: Rule of early stopping.
        random_state: Seed.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        grammar: LayerGrammar,
        schedule: Sequence[tuple[float, int]] = SCHEDULE,
        *,
        learning_rate: float = 0.01,
        discount: float = 1.0,
        replay: int = 100,
        initial: float = 0.5,
        stopping: EarlyStopping | None = None,
        random_state: int = 0,
    ) -> None:
        if not 0.0 < learning_rate <= 1.0 or not 0.0 <= discount <= 1.0 or replay < 0:
            raise ValueError(
                f"learning_rate must lie in (0, 1], discount in [0, 1] and replay must not be negative, but they are "
                f"{learning_rate}, {discount} and {replay}"
            )
        if not schedule or any(not 0.0 <= epsilon <= 1.0 or count < 1 for epsilon, count in schedule):
            raise ValueError(f"the schedule needs rates in [0, 1] and positive counts, got {list(schedule)}")
        if stopping is not None and stopping.finished.direction != "up":
            raise ValueError("rewards grow with quality: a stopping rule of direction 'up' is needed")
        self.grammar, self.schedule, self.stopping = grammar, list(schedule), stopping
        self.learning_rate, self.discount, self.replay, self.initial = learning_rate, discount, replay, initial
        self.random = np.random.default_rng(random_state)
        self.values: dict[tuple[State, Layer], float] = {}

    def build(self, epsilon: float) -> Net:
        r"""Builds one net; each layer is random with probability :obj:`epsilon`, otherwise the best known one."""
        net: Net = ()
        while actions := self.grammar.actions(net):
            if self.random.random() < epsilon:
                choice = int(self.random.integers(len(actions)))
            else:
                state = self.grammar.state(net)
                values = np.array([self.values.get((state, action), self.initial) for action in actions])
                choice = int(self.random.choice(np.flatnonzero(values == values.max())))
            net = (*net, actions[choice])
        return net

    def learn(self, net: Net, reward: float) -> None:
        r"""Updates the Q-values of the net's layers, last one first."""
        target = reward
        for i in range(len(net) - 1, -1, -1):
            key = self.grammar.state(net[:i]), net[i]
            old = self.values.get(key, self.initial)
            self.values[key] = old + self.learning_rate * (target - old)
            state = self.grammar.state(net[:i])
            best = max(self.values.get((state, action), self.initial) for action in self.grammar.actions(net[:i]))
            target = self.discount * best

    def search(self, start: Callable[[str], Run], epochs: int) -> QLearningResult:
        r"""Builds, trains and learns.

        Args:
            start: Starts the training of a net, given as text.
            epochs: Epochs of a full training.
        """
        trials: list[Trial] = []
        known: dict[Net, float] = {}
        whole: dict[str, float] = {}
        for epsilon, count in self.schedule:
            for _ in range(count):
                net = self.build(epsilon)
                if net in known:
                    trials.append(Trial(format_net(net), epsilon, known[net], 0, format_net(net) not in whole))
                else:
                    values, reward = self._train(start(format_net(net)), epochs)
                    known[net] = reward
                    if len(values) >= epochs:
                        whole[format_net(net)] = reward
                    trials.append(Trial(format_net(net), epsilon, reward, len(values), len(values) < epochs))
                self.learn(net, known[net])
                memory = list(known)
                for i in self.random.integers(len(memory), size=self.replay).tolist():
                    self.learn(memory[i], known[memory[i]])
        ranked = whole or {format_net(net): reward for net, reward in known.items()}
        best = max(ranked, key=lambda text: ranked[text])
        return QLearningResult(trials, best, ranked[best], sum(trial.epochs for trial in trials))

    def _train(self, run: Run, epochs: int) -> tuple[Floats, float]:
        if self.stopping is None:
            values = np.asarray(run.train_to(epochs), dtype=np.float64)
            return values, _reward(values)
        for epoch in range(1, epochs + 1):
            values = np.asarray(run.train_to(epoch), dtype=np.float64)
            if epoch < epochs and (decision := self.stopping.decide(values)).stop:
                predicted = decision.predicted
                return values, _reward(values) if np.isnan(predicted) else predicted
        self.stopping.finish(values)
        return values, _reward(values)


def _reward(values: Floats) -> float:
    # A diverged training has reward 0.
    return float(values[-1]) if np.isfinite(values[-1]) else 0.0
