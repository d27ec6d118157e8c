r"""Hand-designed, vectorised descriptors of graphs of described operations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.features.operation_dag import LiveGraphs, Paths, live_graphs, path_strings, path_sums
from pyg_nas_np.features.tables import Columns, chunked, informative, mostly_whole, reference_sample
from pyg_nas_np.spaces import Costs, OperationView
from pyg_nas_np.spaces.base import Archs
from pyg_nas_np.spaces.operations import ADD, IDENTITY, INPUT, OUTPUT, Operation, OperationGraphs
from pyg_nas_np.utils import fixed_defaults, map_chunks

REFERENCE = 1 << 12
"""Graphs by which columns are chosen and standardised."""

CHUNK = 1 << 9
"""Graphs per step."""

MAX_LABELS = 64
"""Operations and kinds that are counted: the most frequent ones of the reference."""

MAX_UNITS = 32
"""Up to so many operations, pairs along edges and strings are made of operations, beyond of kinds."""

MAX_PATHS, MAX_LENGTH, MAX_STRINGS = 32, 24, 128
"""Ways of a graph, and their length, up to which they are spelled out; most frequent strings that are counted."""

HISTOGRAMS = frozenset({"bigrams", "strings"})

DEPTH = "depth"
"""Name of the column that holds the length of the longest way through the live part."""

_ENDS = (INPUT, OUTPUT)


class Vocabulary(NamedTuple):
    r"""What is counted in graphs of a space, taken from a reference sample.

    Args:
        labels: Names and kinds of operations.
        units: Names or kinds, one an operation, that pairs and strings are made of.
        by_kind: Whether the units are kinds.
        attributes: Name, whether it is on a log scale, and offset and scale of each numeric attribute.
    """

    labels: tuple[str, ...]
    units: tuple[str, ...]
    by_kind: bool
    attributes: tuple[tuple[str, bool, float, float], ...]

    @classmethod
    def of(cls, graphs: OperationGraphs) -> Vocabulary:
        r"""Takes the vocabulary from graphs."""
        names: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        for op, count in zip(graphs.operations, _counts(graphs.op, len(graphs.operations)), strict=True):
            if count and op.kind not in _ENDS:
                names[op.name] += count
                kinds[op.kind] += count
        # Ties are broken by name, so that the order of the vocabulary does not matter.
        labels = sorted({**names, **kinds}, key=lambda label: (-max(names[label], kinds[label]), label))[:MAX_LABELS]
        by_kind = len(names) > MAX_UNITS
        units = sorted(kinds if by_kind else names, key=lambda unit: (-(kinds if by_kind else names)[unit], unit))
        scales = [_scale(name, graphs.attributes[:, i]) for i, name in enumerate(graphs.attribute_names)]
        attributes = sorted(scale for scale in scales if scale is not None)
        return cls(tuple(sorted(labels)), tuple(sorted(units[:MAX_UNITS])), by_kind, tuple(attributes))

    def membership(self, operations: Sequence[Operation]) -> Tensor:
        r"""Which labels each operation has, float64 ``[len(operations), len(labels)]``."""
        rows = [[float(label in (op.name, op.kind)) for label in self.labels] for op in operations]
        return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(self.labels))

    def unit_ids(self, operations: Sequence[Operation]) -> Tensor:
        r"""Unit of each operation; after the units follow the input, the output and any other."""
        ids = {unit: i for i, unit in enumerate(self.units)}
        size = len(ids)
        ends = {INPUT: size, OUTPUT: size + 1}
        found = [ends.get(op.kind, ids.get(op.kind if self.by_kind else op.name, size + 2)) for op in operations]
        return torch.tensor(found, dtype=torch.long)

    def values(self, graphs: OperationGraphs) -> Tensor:
        r"""Attributes in units of their deviation over the reference's nodes, float64 ``[N, A]``; NaN where absent."""
        columns = []
        for name, log, _, scale in self.attributes:
            if name not in graphs.attribute_names:
                columns.append(torch.full((graphs.op.numel(),), torch.nan, dtype=torch.float64))
                continue
            value = graphs.attributes[:, graphs.attribute_names.index(name)]
            columns.append((value.clamp_min(1e-12).log2() if log else value) / scale)
        return torch.stack(columns, dim=1) if columns else torch.empty(graphs.op.numel(), 0, dtype=torch.float64)


def _scale(name: str, values: Tensor) -> tuple[str, bool, float, float] | None:
    values = values[~values.isnan()]
    if values.numel() == 0 or bool((values == values[0]).all()):
        return None
    log = float(values.min()) > 0 and float(values.max()) >= 8 * float(values.min())
    values = values.log2() if log else values
    return name, log, float(values.mean()), float(values.std(correction=0).clamp_min(1e-9))


def _counts(ids: Tensor, size: int) -> list[int]:
    counts: list[int] = torch.bincount(ids, minlength=size).tolist()
    return counts


class Described:
    r"""A batch of graphs with what several groups of descriptors share, computed once.

    Args:
        graphs: ``B`` graphs.
        vocabulary: What is counted.
        costs: Their costs by name, ``[B]`` each.
    """

    def __init__(self, graphs: OperationGraphs, vocabulary: Vocabulary, costs: Mapping[str, Tensor]) -> None:
        self.graphs = graphs
        self.vocabulary = vocabulary
        self.costs = costs
        self.batch = graphs.batch

    @cached_property
    def live(self) -> LiveGraphs:
        r"""Their live parts."""
        return live_graphs(self.graphs)

    @cached_property
    def labels(self) -> Tensor:
        r"""Labels of the nodes, float64 ``[N, L]``."""
        return self.vocabulary.membership(self.graphs.operations)[self.graphs.op]

    @cached_property
    def values(self) -> Tensor:
        r"""Scaled attributes of the nodes, float64 ``[N, A]``, NaN where absent."""
        return self.vocabulary.values(self.graphs)

    @cached_property
    def weights(self) -> Tensor:
        r"""What is summed along ways: operations that do something, labels, attributes; float64 ``[N, 1 + L + A]``."""
        work = self.live.live & ~self.graphs.of_kind(*_ENDS, IDENTITY, ADD)
        return torch.cat([work.double().unsqueeze(1), self.labels, self.values.nan_to_num(0.0)], dim=1)

    @cached_property
    def paths(self) -> Paths:
        r"""Sums of :attr:`weights` along the ways through the graphs."""
        return path_sums(self.live, self.weights)

    def total(self, values: Tensor) -> Tensor:
        r"""Sums of the nodes' values, ``[N, W]``, by graph, ``[B, W]``."""
        return values.new_zeros(self.graphs.num_graphs, values.size(1)).index_add_(0, self.batch, values)


Group = tuple[list[str], Tensor]
"""Names of ``D`` columns and their values ``[B, D]``."""


def ops(batch: Described) -> Group:
    r"""How often each operation and each kind occurs, in all and in the live part."""
    live = batch.labels * batch.live.live.unsqueeze(1)
    names = [f"{part}_{label}" for part in ("count", "live") for label in batch.vocabulary.labels]
    return names, batch.total(torch.cat([batch.labels, live], dim=1))


def attributes(batch: Described) -> Group:
    r"""Sums and means of each attribute by operation over the live part; mean, extremes and spread over all nodes."""
    known = batch.values.isfinite() & batch.live.live.unsqueeze(1)
    values = torch.where(known, batch.values, 0.0)
    names, columns = [], []
    for column, (name, *_) in enumerate(batch.vocabulary.attributes):
        member = batch.labels * known[:, column : column + 1]
        count, total = batch.total(member), batch.total(batch.labels * values[:, column : column + 1])
        names += [f"{part}_{name}_{label}" for part in ("sum", "mean") for label in batch.vocabulary.labels]
        columns += [total, total / count.clamp_min(1.0)]
        one, value = known[:, column].double().unsqueeze(1), values[:, column : column + 1]
        size = batch.total(one).clamp_min(1.0)
        mean = batch.total(value) / size
        spread = (batch.total((value - mean[batch.batch]).square() * one) / size).sqrt()
        owner, given = batch.batch[known[:, column]], value[known[:, column], 0]
        extremes = [
            mean.new_zeros(mean.size(0)).scatter_reduce_(0, owner, given, kind, include_self=False)
            for kind in ("amin", "amax")
        ]
        names += [f"{part}_{name}" for part in ("mean", "spread", "min", "max")]
        columns += [mean, spread, *(extreme.unsqueeze(1) for extreme in extremes)]
    return names, torch.cat(columns, dim=1) if columns else torch.empty(batch.graphs.num_graphs, 0)


def paths(batch: Described) -> Group:
    r"""Least, largest and mean sum over all ways from an input to an output, of operations and of attributes."""
    stats = batch.paths
    parts = ["work", *batch.vocabulary.labels, *(f"sum_{name}" for name, *_ in batch.vocabulary.attributes)]
    names = [f"path_{kind}_{part}" for kind in ("min", "max", "mean") for part in parts]
    alive = stats.log_count > -torch.inf
    extra = torch.stack([~alive, alive & (stats.minimum[:, 0] == 0)], dim=1).double()
    return [*names, "dead", "bypass"], torch.cat([stats.minimum, stats.maximum, stats.mean, extra], dim=1)


def shape(batch: Described) -> Group:
    r"""Size, number of ways, degrees and width, of the whole and of the live part."""
    graphs, live = batch.graphs, batch.live
    size = graphs.op.numel()

    def per_graph(nodes: Tensor) -> Tensor:
        return torch.bincount(batch.batch[nodes], minlength=graphs.num_graphs).double()

    kept = per_graph(live.kept)
    degrees = [torch.bincount(live.graphs.edge_index[side], minlength=size).double() for side in (1, 0)]
    columns = {
        # The first, because on chains others are equal to it.
        DEPTH: torch.zeros_like(kept),
        "nodes": graphs.ptr.diff().double(),
        "edges": per_graph(graphs.edge_index[0]),
        "live_nodes": kept,
        "live_edges": per_graph(live.graphs.edge_index[0]),
        "log_nodes": kept.log1p(),
        "log_paths": batch.paths.log_count.clamp_min(0.0),
        "inputs": per_graph(live.inputs),
        "outputs": per_graph(live.outputs),
        "recurrent_edges": per_graph(graphs.recurrent_index[0]),
    }
    for name, degree in zip(("in", "out"), degrees, strict=True):
        columns[f"{name}_degree_max"] = kept.new_zeros(kept.numel()).scatter_reduce_(0, batch.batch, degree, "amax")
        columns[f"{name}_branches"] = per_graph(degree > 1)
        columns[f"{name}_degree_mean"] = batch.total(degree.unsqueeze(1))[:, 0] / kept.clamp_min(1.0)
    columns["width"] = torch.zeros_like(kept)
    for depth, level in enumerate(live.levels):
        count = per_graph(level.nodes[live.kept[level.nodes]])
        columns["width"] = torch.maximum(columns["width"], count)
        columns[DEPTH] = torch.where(count > 0, float(depth), columns[DEPTH])
    return list(columns), torch.stack(list(columns.values()), dim=1)


def bigrams(batch: Described) -> Group:
    r"""How many live edges lead from each operation (or kind) to each other, the ends included."""
    units = (*batch.vocabulary.units, INPUT, OUTPUT, "other")
    size = len(units)
    unit = batch.vocabulary.unit_ids(batch.graphs.operations)[batch.graphs.op]
    source, target = batch.live.graphs.edge_index
    pair = unit[source] * size + unit[target]
    counts = torch.bincount(batch.batch[source] * size**2 + pair, minlength=batch.graphs.num_graphs * size**2)
    return [f"edge_{a}>{b}" for a in units for b in units], counts.view(-1, size**2).double()


GROUPS = {"ops": ops, "attributes": attributes, "paths": paths, "shape": shape, "bigrams": bigrams}


class _Statistics(NamedTuple):
    vocabulary: Vocabulary
    strings: tuple[tuple[int, ...], ...]
    columns: Columns


class OperationFeatures:
    r"""Named, standardised descriptors of the graphs of a space of described operations.

    The groups of columns, in their order:

    - **ops**: how often each operation and each kind occurs, in all and in the live part;
    - **attributes**: sums and means of each numeric attribute by operation; mean, spread and extremes over the graph;
    - **paths**: least, largest and mean sum over all input-output ways of operations and attributes; whether there is a
      way at all, and one that does nothing;
    - **shape**: nodes, edges, ways, depth, width, degrees, ends;
    - **bigrams**: pairs of operations along live edges (by kind where there are many operations);
    - **strings**: what ways through branching graphs spell, where they are few;
    - **cost**: logarithms of the costs that the space knows.

    A node is live if it lies on a way from an input to an output without an operation of kind ``zero``; operations of
    kind ``identity`` are contracted before edges are counted. Attributes that span a factor of 8 or more are on a log
    scale. Everything is invariant under renumbering of the nodes, and no way is listed but in **strings**.

    What is counted, mean and standard deviation come from the whole space, or from 4,096 graphs of it. Columns that are
    constant there, or equal to an earlier column of the same group, are left out.

    Args:
        space: The search space.
        standardize: Whether columns have mean 0 and (mean) standard deviation 1 over the reference, or are raw.

    Raises:
        ValueError: If no descriptor varies over the space.

    Example:
        >>> from pyg_nas_np.spaces import GraphSpace, OperationGraph
        >>> def chain(*widths):
        ...     nodes = [("linear", {"width": width}) for width in widths]
        ...     return OperationGraph.of(nodes, [(i, i + 1) for i in range(len(widths) - 1)])
        >>> features = OperationFeatures(GraphSpace([chain(8), chain(8, 64), chain(64, 64)]), standardize=False)
        >>> column = features.feature_names.index("count_linear")
        >>> features.table()[:, column]
        tensor([1., 2., 2.])
    """

    def __init__(self, space: OperationView[Any], *, standardize: bool = True) -> None:
        self.space = space
        self.standardize = standardize

    @property
    def feature_names(self) -> list[str]:
        r"""Names of the ``F`` columns."""
        return list(self._statistics.columns.names)

    @property
    def feature_groups(self) -> Mapping[str, list[int]]:
        r"""Positions of the columns of each group."""
        return {name: list(columns) for name, columns in self._statistics.columns.groups.items()}

    def table(self, archs: Archs = None) -> Tensor:
        r"""Descriptors of many architectures.

        Args:
            archs: Architectures; where the space has an index also official indices, or :obj:`None` for all.

        Returns:
            ``[B, F]`` float32.
        """
        if mostly_whole(self.space, archs):
            # A copy, because the caller may write into what every predictor of the space reads.
            return self._whole.clone() if archs is None else self._whole[archs]
        return self._compute(list(self.space.resolve(archs)))

    @cached_property
    def _whole(self) -> Tensor:
        return self._compute(list(self.space.resolve(None)))

    def _compute(self, rows: Sequence[Any]) -> Tensor:
        stats = self._statistics

        def finish(part: Sequence[Any]) -> Tensor:
            batch = self._described(part, stats.vocabulary)
            return stats.columns.scale(_raw(batch, stats.strings)[1], self.standardize)

        parts = map_chunks(fixed_defaults(finish), chunked(rows, CHUNK))
        return torch.cat(parts) if parts else torch.empty(0, len(stats.columns.names), dtype=torch.float32)

    @cached_property
    def _statistics(self) -> _Statistics:
        return self._fit()

    @fixed_defaults
    def _fit(self) -> _Statistics:
        rows = reference_sample(self.space, REFERENCE)
        vocabulary = Vocabulary.of(self.space.operation_graphs(rows))
        batches = [self._described(part, vocabulary) for part in chunked(rows, CHUNK)]
        strings = _frequent_strings(batches)
        tables = map_chunks(fixed_defaults(lambda batch: _raw(batch, strings)), batches)
        columns = informative(tables[0][0], torch.cat([values for _, values in tables]), HISTOGRAMS)
        if not columns.keep:
            raise ValueError(f"all graphs of {self.space!r} are alike; there is nothing to tell them apart")
        return _Statistics(vocabulary, strings, columns)

    def _described(self, archs: Sequence[Any], vocabulary: Vocabulary) -> Described:
        costs = self.space.costs(archs) if isinstance(self.space, Costs) else {}
        return Described(self.space.operation_graphs(archs), vocabulary, costs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space!r}, standardize={self.standardize})"


def _raw(batch: Described, strings: Sequence[tuple[int, ...]]) -> tuple[list[tuple[str, str]], Tensor]:
    """Name and group of every column, and the columns, ``[B, F']`` float64, constant ones included."""
    names: list[tuple[str, str]] = []
    columns = []
    for group, block in GROUPS.items():
        block_names, values = block(batch)
        names += [(name, group) for name in block_names]
        columns.append(values.double())
    if strings:
        units = (*batch.vocabulary.units, INPUT, OUTPUT, "other")
        names += [("path_" + ">".join(units[unit] for unit in text), "strings") for text in strings]
        columns.append(_string_counts(batch, strings))
    for name, cost in batch.costs.items():
        names.append((f"log_{name}", "cost"))
        columns.append(cost.double().clamp_min(0.0).log1p().unsqueeze(1))
    return names, torch.cat(columns, dim=1)


def _spelled(batch: Described) -> tuple[list[int], list[tuple[int, ...]]]:
    """What each way spells, with its graph."""
    unit = batch.vocabulary.unit_ids(batch.graphs.operations)[batch.graphs.op]
    symbol = unit.masked_fill(batch.graphs.of_kind(*_ENDS), -1)
    # Ways as long as this are all different.
    log_count = batch.paths.log_count.masked_fill(batch.paths.maximum[:, 0] > MAX_LENGTH, torch.inf)
    found = path_strings(batch.live, symbol, log_count, MAX_PATHS, MAX_LENGTH)
    return found.owner.tolist(), [tuple(s for s in row if s >= 0) for row in found.symbols.tolist()]


def _frequent_strings(batches: Sequence[Described]) -> tuple[tuple[int, ...], ...]:
    """The strings of several graphs; none where graphs do not branch, or branch too much."""
    log_counts = torch.cat(map_chunks(fixed_defaults(lambda batch: batch.paths.log_count), batches))
    if float(log_counts.max()) <= 0.0 or float(log_counts.median()) > math.log(MAX_PATHS):
        return ()
    graphs: Counter[tuple[int, ...]] = Counter()
    for batch in batches:
        owners, texts = _spelled(batch)
        graphs.update(text for _, text in set(zip(owners, texts, strict=True)))
    frequent = sorted((text for text, count in graphs.items() if count > 1), key=lambda text: (-graphs[text], text))
    return tuple(frequent[:MAX_STRINGS])


def _string_counts(batch: Described, strings: Sequence[tuple[int, ...]]) -> Tensor:
    column = {text: i for i, text in enumerate(strings)}
    owners, texts = _spelled(batch)
    cells = [(owner, column[text]) for owner, text in zip(owners, texts, strict=True) if text in column]
    counts = torch.zeros(batch.graphs.num_graphs, len(strings), dtype=torch.float64)
    if cells:
        rows, columns = torch.tensor(cells, dtype=torch.long).t()
        counts.index_put_((rows, columns), torch.ones(len(cells), dtype=torch.float64), accumulate=True)
    return counts


def shared_operation_features(space: OperationView[Any]) -> OperationFeatures:
    r"""Returns the standardised descriptors of a space, kept with it."""
    return space.keep(OperationFeatures)
