"""The benchmarks by name."""

from __future__ import annotations

import pytest
import typer

from pyg_nas_np.cli.benchmarks import BENCHMARKS, open_benchmark
from pyg_nas_np.datasets import NASBench201


def test_a_benchmark_with_its_first_data_set_and_a_metric(labelled_root):
    dataset = open_benchmark("nasbench201", None, labelled_root, "valid_accuracy@200")
    assert isinstance(dataset, NASBench201)
    assert (len(dataset), dataset.metric) == (15625, "valid_accuracy@200")


@pytest.mark.parametrize(
    ("name", "dataset", "message"),
    [
        ("nasbench301", None, "'nasbench301' is none of nasbench201"),
        ("nasbench201", "cora", "'cora' is none of cifar10"),
    ],
)
def test_unknown_names_are_refused_with_those_that_there_are(name, dataset, message, tmp_path):
    with pytest.raises(typer.BadParameter, match=message):
        open_benchmark(name, dataset, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_options_name_every_data_set_of_a_benchmark(monkeypatch, tmp_path):
    for name, benchmark in BENCHMARKS.items():
        opened = []
        monkeypatch.setitem(
            BENCHMARKS, name, benchmark._replace(cls=lambda *args, opened=opened, **_: opened.append(args))
        )
        for dataset in (None, *benchmark.datasets):
            open_benchmark(name, dataset, tmp_path)
        rest = [(one,) if len(benchmark.datasets) > 1 else () for one in benchmark.datasets]
        assert opened == [(str(tmp_path), *one) for one in (rest[0], *rest)]
