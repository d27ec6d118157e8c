r"""Times the meta-features of every cell of the three spaces, and networkx on a sample of the same cells.

Run: ``python benchmarks/features.py [--threads 1] [--sample 200]``
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any

import networkx as nx
import numpy as np
import torch

from pyg_nas_np.features import MetaFeatures
from pyg_nas_np.spaces import CellSpace, NASBench101Space, NASBench201Space, NASBenchGraphSpace


def with_networkx(space: CellSpace[Any], index: int) -> dict[str, float]:
    """What a loop over cells would do: operations on listed paths, bigrams, degrees, spectrum, costs."""
    arch = space[index]
    data = space.encode(arch)
    ops = data.x.argmax(dim=1).tolist()
    graph = nx.DiGraph(data.edge_index.t().tolist())
    graph.remove_nodes_from([v for v in list(graph) if space.op_names[ops[v]] in space.zero_ops])
    source, sink = ops.index(0), ops.index(1)
    paths = list(nx.all_simple_paths(graph, source, sink)) if source in graph and sink in graph else []
    live = graph.subgraph({v for path in paths for v in path})
    row: dict[str, float] = {"paths": len(paths), "depth": max(map(len, paths), default=1) - 1}
    for op, name in enumerate(space.op_names[2:], start=2):
        counts = [sum(ops[v] == op for v in path) for path in paths] or [0]
        row |= {f"min_{name}": min(counts), f"max_{name}": max(counts), f"mean_{name}": float(np.mean(counts))}
    row |= {f"{a}>{b}": count for (a, b), count in Counter((ops[u], ops[v]) for u, v in live.edges).items()}
    row |= {"degree": max((d for _, d in live.in_degree), default=0), "params": space.num_parameters(arch)}
    if paths:
        spectrum = np.linalg.eigvalsh(nx.normalized_laplacian_matrix(live.to_undirected()).toarray())
        row |= {f"eigenvalue_{i}": float(value) for i, value in enumerate(spectrum)}
    return row | {"flops": space.flops(arch)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sample", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for space in (NASBench201Space(), NASBenchGraphSpace(), NASBench101Space()):
        # Loading the space is not part of the figure.
        space.dense(torch.arange(1))
        space.batch_flops(torch.arange(1))
        features = MetaFeatures(space)
        start = time.perf_counter()
        table = features.table()
        seconds = time.perf_counter() - start
        rate = len(space) / seconds
        print(f"{space.name}: {len(space):,} cells x {table.size(1)} features in {seconds:.2f} s, {rate:,.0f} cells/s")
        start = time.perf_counter()
        rows = [with_networkx(space, i) for i in range(arguments.sample)]
        peer = len(rows) / (time.perf_counter() - start)
        print(f"  a loop with networkx: {peer:,.0f} cells/s, ratio {rate / peer:,.0f}x")
        start = time.perf_counter()
        features.table(torch.arange(len(space) - 1, -1, -1))
        print(f"  looked up again: {1e3 * (time.perf_counter() - start):.1f} ms")


if __name__ == "__main__":
    main()
