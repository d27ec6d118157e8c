r"""Times the two forms of the cell encoder, and whole spaces predicted by the trained predictors.

PyG's message passing on the same cells with the same weights is the peer of the padded form.

Run: ``python benchmarks/cell_encoder.py [--threads 1] [--cells 2048] [--labels 100]``
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from _timing import machine, seconds

from pyg_nas_np.features import shared_features
from pyg_nas_np.nn import CellEncoder
from pyg_nas_np.predictors import GCNPredictor, GNNPredictor, MLPEnsemblePredictor, Predictor, WLPredictor
from pyg_nas_np.spaces import CellSpace, NASBench101Space, NASBench201Space
from pyg_nas_np.spaces.dense import to_batch

SPACES = (NASBench201Space(), NASBench101Space())
PREDICTORS = (GNNPredictor, GCNPredictor, MLPEnsemblePredictor, WLPredictor)


def encoders(space: CellSpace[Any], cells: int) -> None:
    r"""Forward, and forward with backward, of both forms."""
    graphs = space.dense(space.sample_indices(cells, torch.Generator().manual_seed(0)))
    batch = to_batch(graphs, len(space.op_names))
    net = CellEncoder(len(space.op_names))
    forms = {
        "padded": lambda: net.forward_dense(graphs),
        "message passing": lambda: net(batch.x, batch.edge_index, batch.batch, batch_size=cells),
    }
    for step in ("forward", "forward and backward"):
        times = {}
        for name, form in forms.items():
            if step == "forward":
                with torch.no_grad():
                    times[name] = min(seconds(form, repeats=5))
            else:
                times[name] = min(seconds(lambda form=form: form().sum().backward(), repeats=5))
        ratio = times["message passing"] / times["padded"]
        shown = ", ".join(f"{name} {1e3 * value:.1f} ms" for name, value in times.items())
        print(f"{space.name:<12} {cells} cells, {step:<21} {shown}, ratio {ratio:.2f}x", flush=True)


def whole_space(kind: type[Predictor], space: CellSpace[Any], labels: int) -> None:
    r"""Fit on random scores, and prediction of every architecture with uncertainty; meta-features are ready."""
    index = space.sample_indices(labels, torch.Generator().manual_seed(0))
    model, z = kind(space), torch.randn(labels, generator=torch.Generator().manual_seed(0)).double()
    model.space_ = space
    everything = torch.arange(len(space))
    inputs: dict[bool, Any] = {False: (index,), True: (everything,)}
    if kind is WLPredictor:
        inputs = {False: index, True: everything}
    elif kind is GNNPredictor:
        table = shared_features(space).table()
        inputs = {False: (index, table[index]), True: (everything, table)}
    (fit,) = seconds(model._fit, inputs[False], z, repeats=1)
    (predict,) = seconds(model._predict, inputs[True], True, repeats=1)
    print(
        f"{space.name:<12} {kind.__name__:<22} fit {labels} {fit:6.2f} s, predict {len(space):,} {predict:6.2f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cells", type=int, default=2048)
    parser.add_argument("--labels", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for space in SPACES:
        encoders(space, arguments.cells)
    for space in SPACES:
        for kind in PREDICTORS:
            whole_space(kind, space, arguments.labels)
    print(machine())


if __name__ == "__main__":
    main()
