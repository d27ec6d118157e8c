r"""The benchmarks that the command line knows, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple, Optional

import typer

from pyg_nas_np.datasets import ArchitectureDataset, NASBench101, NASBench201, NASBenchGraph
from pyg_nas_np.utils import cache_dir


class Benchmark(NamedTuple):
    r"""A benchmark and its image or graph data sets; the first one is the default."""

    cls: Callable[..., ArchitectureDataset]
    datasets: tuple[str, ...]


BENCHMARKS = {
    "nasbench201": Benchmark(NASBench201, ("cifar10", "cifar100", "ImageNet16-120")),
    "nasbench101": Benchmark(NASBench101, ("cifar10",)),
    "nasbench-graph": Benchmark(
        NASBenchGraph, ("cora", "citeseer", "pubmed", "cs", "physics", "photo", "computers", "arxiv", "proteins")
    ),
}


BenchmarkOption = Annotated[str, typer.Option(help=f"One of {', '.join(BENCHMARKS)}.")]
DatasetOption = Annotated[Optional[str], typer.Option(help="Image or graph data set. (default: the first)")]  # noqa: UP045
RootOption = Annotated[Optional[Path], typer.Option(help="Folder of the data set. (default: in the cache)")]  # noqa: UP045
MetricOption = Annotated[Optional[str], typer.Option(help="Metric to predict. (default: the benchmark's)")]  # noqa: UP045
DownloadOption = Annotated[bool, typer.Option(help="Download the official file where nothing else has labels.")]


def open_benchmark(
    name: str, dataset: str | None, root: Path | None, metric: str | None = None, download: bool = False
) -> ArchitectureDataset:
    r"""Opens a benchmark.

    Args:
        name: Key of :data:`BENCHMARKS`.
        dataset: One of its data sets. (default: its first)
        root: Folder. (default: one in the cache)
        metric: The metric to predict. (default: the benchmark's)
        download: Whether the official file may be downloaded.
    """
    if name not in BENCHMARKS:
        raise typer.BadParameter(f"'{name}' is none of {', '.join(BENCHMARKS)}", param_hint="--benchmark")
    benchmark = BENCHMARKS[name]
    dataset = benchmark.datasets[0] if dataset is None else dataset
    if dataset not in benchmark.datasets:
        raise typer.BadParameter(f"'{dataset}' is none of {', '.join(benchmark.datasets)}", param_hint="--dataset")
    folder = str(cache_dir() / "datasets" / name if root is None else root)
    if len(benchmark.datasets) == 1:
        return benchmark.cls(folder, metric=metric, download=download)
    return benchmark.cls(folder, dataset, metric=metric, download=download)
