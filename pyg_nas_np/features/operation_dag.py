r"""Algorithms on batches of operation graphs: levels, live part, contraction, paths.

All loop over the depth of the graphs, never over graphs or nodes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.spaces.operations import IDENTITY, INPUT, OUTPUT, ZERO, OperationGraphs


class Level(NamedTuple):
    r"""Nodes at one distance from the sources, and the edges that end there.

    Shapes:
        - **nodes:** ``[n]`` int64.
        - **source:** ``[e]`` int64, nodes of earlier levels.
        - **target:** ``[e]`` int64, positions in :attr:`nodes`.
    """

    nodes: Tensor
    source: Tensor
    target: Tensor


def levels(edge_index: Tensor, size: int) -> list[Level]:
    r"""Splits nodes by their longest distance from a node without predecessors.

    Args:
        edge_index: ``[2, E]`` int64, without cycles.
        size: Number of nodes.

    Example:
        >>> [level.nodes.tolist() for level in levels(torch.tensor([[0, 0, 1], [1, 2, 2]]), 4)]
        [[0, 3], [1], [2]]
    """
    source, target = edge_index
    missing = torch.bincount(target, minlength=size)
    by_source = source.argsort(stable=True)
    ends = torch.cat([missing.new_zeros(1), torch.bincount(source, minlength=size).cumsum(0)])
    level = torch.zeros(size, dtype=torch.long)
    ready, depth = (missing == 0).nonzero().flatten(), 0
    while ready.numel():
        level[ready] = depth
        count = ends[ready + 1] - ends[ready]
        start = torch.repeat_interleave(ends[ready] - (count.cumsum(0) - count), count)
        reached = target[by_source[start + torch.arange(start.numel())]]
        missing.index_add_(0, reached, torch.full_like(reached, -1))
        reached = reached.unique()
        ready, depth = reached[missing[reached] == 0], depth + 1
    order = level.argsort(stable=True)
    position = torch.empty_like(order)
    counts = torch.bincount(level, minlength=depth)
    position[order] = torch.arange(size) - (counts.cumsum(0) - counts)[level[order]]
    by_target = level[target].argsort(stable=True)
    edges = torch.bincount(level[target], minlength=depth).tolist()
    nodes = order.split(counts.tolist())
    parts = by_target.split(edges)
    return [Level(own, source[part], position[target[part]]) for own, part in zip(nodes, parts, strict=True)]


def ends(graphs: OperationGraphs) -> tuple[Tensor, Tensor]:
    r"""Which nodes are inputs and outputs, bool ``[N]`` each: those of these kinds, where a graph has none, the sources
    and sinks."""
    size = graphs.op.numel()
    found = []
    for kind, side in ((INPUT, 1), (OUTPUT, 0)):
        named = graphs.of_kind(kind)
        free = torch.bincount(graphs.edge_index[side], minlength=size) == 0
        has_named = torch.zeros(graphs.num_graphs, dtype=torch.bool).index_put(
            (graphs.batch[named],), torch.tensor(True)
        )
        found.append(torch.where(has_named[graphs.batch], named, free))
    return found[0], found[1]


class LiveGraphs(NamedTuple):
    r"""The live part of graphs: what information from an input to an output can pass through, identities contracted.

    Shapes:
        - **graphs:** The batch; dead nodes and contracted ones have no edges any more.
        - **live:** ``[N]`` bool, nodes on a way from an input to an output, contracted ones included.
        - **kept:** ``[N]`` bool, live nodes that are not contracted.
        - **inputs**, **outputs:** ``[N]`` bool, the live ends.
        - **levels:** Of the remaining edges.
    """

    graphs: OperationGraphs
    live: Tensor
    kept: Tensor
    inputs: Tensor
    outputs: Tensor
    levels: list[Level]


def live_graphs(graphs: OperationGraphs) -> LiveGraphs:
    r"""Removes what no information passes through, and joins the neighbors of identities with one predecessor.

    Recurrent edges neither keep a node alive nor are they removed between live nodes.
    """
    inputs, outputs = ends(graphs)
    passes = ~graphs.of_kind(ZERO)
    source, target = graphs.edge_index
    whole = levels(graphs.edge_index, graphs.op.numel())
    # What only recurrent edges feed is fed all the same.
    state = torch.zeros_like(inputs).index_fill(0, graphs.recurrent_index[1], True)
    forward, backward = (inputs | state) & passes, outputs & passes
    for level in whole[1:]:
        fed = torch.zeros(level.nodes.numel(), dtype=torch.long).index_add(
            0, level.target, forward[level.source].long()
        )
        forward[level.nodes] |= (fed > 0) & passes[level.nodes]
    used = torch.zeros_like(outputs).index_fill(0, graphs.recurrent_index[0], True)
    backward |= used & passes
    for level in reversed(whole[1:]):
        hit = level.source[backward[level.nodes[level.target]]]
        backward[hit] |= passes[hit]
    live = forward & backward
    alive = live[source] & live[target]
    source, target = source[alive], target[alive]
    fan_in = torch.bincount(target, minlength=live.numel())
    contracted = live & graphs.of_kind(IDENTITY) & (fan_in == 1) & ~inputs & ~outputs
    contracted &= ~state & ~used
    behind = torch.arange(live.numel())
    into = contracted[target]
    behind[target[into]] = source[into]
    while not torch.equal(behind, further := behind[behind]):
        behind = further
    edges = torch.stack([behind[source[~into]], target[~into]])
    again = live[graphs.recurrent_index].all(dim=0)
    rest = graphs._replace(edge_index=edges, recurrent_index=graphs.recurrent_index[:, again])
    kept = live & ~contracted
    return LiveGraphs(rest, live, kept, inputs & live, outputs & live, levels(edges, live.numel()))


class Paths(NamedTuple):
    r"""Sums of node weights along all ways from an input to an output of each graph.

    Shapes:
        - **log_count:** ``[B]``, logarithm of their number; ``-inf`` where there is none.
        - **minimum, maximum, mean:** ``[B, W]`` over the ways; 0 where there is none.
    """

    log_count: Tensor
    minimum: Tensor
    maximum: Tensor
    mean: Tensor


def path_sums(live: LiveGraphs, weights: Tensor) -> Paths:
    r"""Minimum, maximum and mean over all ways of the sums of node weights, without listing the ways.

    One dynamic program over the levels, in logarithms of the numbers of ways, which may exceed any float.

    Args:
        live: The live parts of ``B`` graphs.
        weights: ``[N, W]`` float64 weights of the nodes.
    """
    width = weights.size(1)
    inf = torch.inf
    ways = torch.where(live.inputs, 0.0, -inf).to(torch.float64)
    # A way is longest where its negative is shortest.
    both = torch.cat([weights, -weights], dim=1)
    shortest = torch.where(live.inputs.unsqueeze(1), both, inf)
    mean = torch.where(live.inputs.unsqueeze(1), weights, 0.0)
    for nodes, source, target in live.levels[1:]:
        before = shortest.new_full((nodes.numel(), 2 * width), inf)
        before.scatter_reduce_(0, target.unsqueeze(1).expand(-1, 2 * width), shortest[source], "amin")
        shortest[nodes] = torch.minimum(shortest[nodes], before + both[nodes])
        total = _logsumexp(ways[source], target, ways[nodes])
        share = (ways[source] - total[target]).exp().nan_to_num(0.0, 0.0, 0.0)
        reached = (total > -inf).unsqueeze(1)
        sums = torch.zeros(nodes.numel(), width, dtype=torch.float64)
        sums.index_add_(0, target, share.unsqueeze(1) * mean[source])
        mean[nodes] = torch.where(reached, sums + weights[nodes], 0.0)
        ways[nodes] = total
    out = live.outputs.nonzero().flatten()
    owner, graphs = live.graphs.batch[out], live.graphs.num_graphs
    count = _logsumexp(ways[out], owner, torch.full((graphs,), -inf, dtype=torch.float64))
    least = shortest.new_full((graphs, 2 * width), inf)
    least.scatter_reduce_(0, owner.unsqueeze(1).expand(-1, 2 * width), shortest[out], "amin")
    least = torch.where((count > -inf).unsqueeze(1), least, 0.0)
    share = (ways[out] - count[owner]).exp().nan_to_num(0.0, 0.0, 0.0)
    average = torch.zeros(graphs, width, dtype=torch.float64).index_add(0, owner, share.unsqueeze(1) * mean[out])
    return Paths(count, least[:, :width], 0.0 - least[:, width:], average)


def _logsumexp(values: Tensor, index: Tensor, start: Tensor) -> Tensor:
    """Logarithm of ``exp(start)`` plus the sums of ``exp(values)`` by index."""
    largest = start.scatter_reduce(0, index, values, "amax")
    safe = largest.masked_fill(largest == -torch.inf, 0.0)
    return safe + (start - safe).exp().index_add(0, index, (values - safe[index]).exp()).log()


class Strings(NamedTuple):
    r"""What every way through every graph spells.

    Shapes:
        - **owner:** ``[P]`` int64, graph of each way.
        - **symbols:** ``[P, L]`` int64, padded with -1.
    """

    owner: Tensor
    symbols: Tensor


def path_strings(live: LiveGraphs, symbol: Tensor, log_count: Tensor, max_paths: int, max_length: int) -> Strings:
    r"""Lists the ways through the graphs that have at most :obj:`max_paths` of at most :obj:`max_length` symbols.

    Args:
        live: The live parts of ``B`` graphs.
        symbol: ``[N]`` int64, what each node spells; nothing where it is negative.
        log_count: ``[B]``, logarithm of the number of ways.
        max_paths: Graphs with more ways than this spell nothing.
        max_length: Longer ways are cut off.
    """
    batch = live.graphs.batch
    few = (log_count > -torch.inf) & (log_count < math.log(max_paths + 0.5))
    source, target = live.graphs.edge_index
    order = source.argsort(stable=True)
    first = torch.cat([source.new_zeros(1), torch.bincount(source, minlength=batch.numel()).cumsum(0)])
    node = (live.inputs & few[batch]).nonzero().flatten()
    text, length = torch.full((node.numel(), max_length), -1), torch.zeros_like(node)
    owners, texts = [batch[:0]], [text[:0]]
    while node.numel():
        write = ((symbol[node] >= 0) & (length < max_length)).nonzero().flatten()
        text[write, length[write]] = symbol[node[write]]
        length[write] += 1
        done = live.outputs[node]
        owners.append(batch[node[done]])
        texts.append(text[done])
        count = first[node + 1] - first[node]
        way = torch.repeat_interleave(torch.arange(node.numel()), count)
        step = torch.arange(way.numel()) - (count.cumsum(0) - count)[way]
        node = target[order[first[node][way] + step]]
        text, length = text[way], length[way]
    return Strings(torch.cat(owners), torch.cat(texts))


def mixed(labels: Tensor) -> Tensor:
    r"""Scrambles 64-bit numbers, so that sums of them stand for multisets."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        labels = (labels ^ (labels >> shift)) * factor
    return labels ^ (labels >> 31)
