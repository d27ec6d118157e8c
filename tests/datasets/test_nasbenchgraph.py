r"""Golden values: formats.md of the project's references, section 8.3."""

from __future__ import annotations

import importlib.util
import logging
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch_geometric.loader import DataLoader

from pyg_nas_np.datasets import NASBenchGraph, nasbenchgraph
from pyg_nas_np.datasets.compact import write_compact
from pyg_nas_np.spaces.nasbenchgraph import DATASETS, NASBenchGraphSpace
from pyg_nas_np.utils import (
    ChecksumError,
    DataFileError,
    ForbiddenPickleError,
    InvalidArchitectureError,
    MissingLabelsError,
    VerificationError,
)

ROW = {"valid_perf": 0.5, "perf": 0.25, "latency": 0.004, "para": 1.5}

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("nas_bench_graph") is None, reason="nas-bench-graph (extra 'data') is not installed"
)


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setattr(nasbenchgraph, "_PACKAGE", "no_such_package_of_labels")


def drop(root: Path, content: object, name: str = "cora.bench") -> Path:
    path = root / "raw" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    return path


# -- the released tables ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("nasbenchgraph"))


@needs_package
@pytest.mark.parametrize("name", DATASETS)
def test_released_table_agrees_with_its_published_statistics(root, name):
    dataset = NASBenchGraph(root, name)
    assert dataset.source.name == "nas-bench-graph"
    assert len(dataset) == 26206
    assert int(dataset.label_mask.sum()) == (2021 if name == "proteins" else 26206)
    names = [check.name for check in dataset.verify()]
    assert "Spearman of validation and test" in names
    assert "best test accuracy" in names


@needs_package
def test_golden_rows(root):
    dataset = NASBenchGraph(root, "cora")
    for key, valid, test, millions in [(0, 0.773333, 0.797, 1.736711), (81111, 0.786667, 0.759667, 0.634119)]:
        i = dataset.space.index(dataset.space.from_str(str(key)))
        row = {name: metric.mean()[i].item() for name, metric in dataset.metrics.items()}
        assert row["valid_accuracy"] == pytest.approx(valid, abs=1e-6) == dataset[i].y.item()
        assert row["test_accuracy"] == pytest.approx(test, abs=1e-6)
        assert row["parameters"] == pytest.approx(millions, abs=1e-6) == dataset[i].num_parameters.item() / 1e6
    best = dataset.metrics["test_accuracy"].mean().argmax().item()
    assert dataset.space.key(dataset.arch(best)) == 77016


@needs_package
def test_proteins_is_labelled_where_its_operations_allow(root):
    dataset = NASBenchGraph(root, "proteins", metric="test_accuracy")
    allowed = {"gcn", "sage", "arma", "fc", "skip"}
    expected = torch.tensor([set(arch.ops) <= allowed for arch in dataset.space.enumerate()])
    assert torch.equal(dataset.label_mask, expected)
    best = int(dataset.y.nan_to_num().argmax())
    assert dataset.space.key(dataset.arch(best)) == 85414
    assert dataset.y[best].item() == pytest.approx(0.792634, abs=1e-6)
    split = dataset.split(100, 20)
    assert split.train.numel() + split.valid.numel() + split.test.numel() == 2021
    assert not dataset[split.train].y.isnan().any()


@needs_package
def test_the_package_is_read_but_not_imported(root, tmp_path, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "nas_bench_graph"]:
        monkeypatch.delitem(sys.modules, module)
    assert NASBenchGraph(str(tmp_path), "photo").source.name == "nas-bench-graph"
    assert "nas_bench_graph" not in sys.modules


@needs_package
def test_metrics_name_their_units_and_splits(root):
    metrics = NASBenchGraph(root, "cora").metrics
    assert {name: (m.unit, m.split) for name, m in metrics.items()} == {
        "valid_accuracy": ("fraction", "val"),
        "test_accuracy": ("fraction", "test"),
        "latency": ("seconds", ""),
        "parameters": ("megaparameters", ""),
    }
    assert all(m.seeds == ("mean of 3",) and m.epochs == (400,) for m in metrics.values())


# -- graphs -----------------------------------------------------------------------------------------------------------


def test_graphs_follow_the_space(tmp_path, no_package):
    dataset = NASBenchGraph(str(tmp_path), "arxiv", source="graphs-only")
    space = NASBenchGraphSpace("arxiv")
    for i in (0, 13881, 26205):
        graph = dataset[i]
        assert graph.arch_index.item() == i
        assert dataset.arch(i) == space[i] == space.decode(graph)
        assert graph.num_parameters.item() == space.num_parameters(space[i])
        assert graph.flops.item() == space.flops(space[i])
        assert graph.y.isnan().all()
    batch = next(iter(DataLoader(dataset[[3, 5]], batch_size=2)))
    assert batch.arch_index.tolist() == [3, 5]
    assert batch.num_nodes == 12


def test_tasks_share_one_root(tmp_path):
    cora, arxiv = (NASBenchGraph(str(tmp_path), name, source="graphs-only") for name in ("cora", "arxiv"))
    assert repr(cora) == "NASBenchGraph(26206, dataset='cora')"
    assert not torch.equal(cora.num_parameters, arxiv.num_parameters)
    again = NASBenchGraph(str(tmp_path), "cora", source="graphs-only")
    assert torch.equal(again.num_parameters, cora.num_parameters)


def test_unknown_task(tmp_path):
    with pytest.raises(ValueError, match=r"dataset must be one of cora, .*, got 'Cora'"):
        NASBenchGraph(str(tmp_path), "Cora")


# -- label sources ----------------------------------------------------------------------------------------------------


def test_without_labels_the_message_names_the_extra(tmp_path, no_package, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = NASBenchGraph(str(tmp_path), "cora")
    assert dataset.source.name == "graphs-only"
    assert "pyg-nas-np[data]" in caplog.text
    assert not dataset.label_mask.any()
    assert [check.name for check in dataset.verify()] == ["architectures"]
    with pytest.raises(MissingLabelsError, match=r"pyg-nas-np\[data\]"):
        NASBenchGraph(str(tmp_path), "cora", metric="test_accuracy")
    with pytest.raises(MissingLabelsError, match="'nas-bench-graph' is not present"):
        NASBenchGraph(str(tmp_path), "cora", source="nas-bench-graph")


def test_a_dropped_file_comes_first_and_replaces_processed_labels(tmp_path, no_package):
    NASBenchGraph(str(tmp_path), "cora")
    drop(tmp_path, {0: ROW, 81111: {**ROW, "valid_perf": 0.75}})
    dataset = NASBenchGraph(str(tmp_path), "cora")
    assert dataset.source.name == "bench"
    labelled = dataset.label_mask.nonzero().flatten().tolist()
    assert [dataset.space.key(dataset.arch(i)) for i in labelled] == [0, 81111]
    assert dataset.y[labelled].tolist() == [0.5, 0.75]
    with pytest.raises(VerificationError, match="labelled architectures, valid_accuracy: expected 26206, found 2"):
        dataset.verify()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({0: ROW})[:-5], "corrupt or not"),
        (b"", "corrupt or not"),
        ([ROW], "non-empty dict of architectures, found list"),
        ({}, "non-empty dict"),
        ({"0": ROW}, "integer keys"),
        ({0.5: ROW}, "integer keys"),
        ({0: {"perf": 0.5}}, "'valid_perf'"),
        ({0: {**ROW, "perf": "high"}}, "could not convert"),
        ({0: 0.5}, "not a map of integer keys to dicts"),
        ({0: ROW, 1: {**ROW, "perf": float("nan")}}, "perf of architecture 1 is nan"),
        ({0: ROW, 88888: ROW}, "88888 is not the key"),
    ],
)
def test_bad_files_are_refused_and_leave_nothing_behind(tmp_path, no_package, content, message):
    path = drop(tmp_path, content)
    before = path.read_bytes()
    with pytest.raises(DataFileError, match=message):
        NASBenchGraph(str(tmp_path), "cora")
    assert path.read_bytes() == before
    left = {file.name for file in (tmp_path / "processed").rglob("*") if file.is_file()}
    assert not left


class Harmful:
    def __reduce__(self):
        return print, ("executed",)


def test_forbidden_global(tmp_path, no_package, capsys):
    drop(tmp_path, {0: Harmful()})
    with pytest.raises(ForbiddenPickleError, match=r"builtins\.print"):
        NASBenchGraph(str(tmp_path), "cora")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
@needs_package
def test_compact_table_round_trip(tmp_path, root, suffix):
    original = NASBenchGraph(root, "proteins")
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / f"nasbenchgraph-proteins.{suffix}"
    write_compact(path, original.arch_names(), original.metrics)
    dataset = NASBenchGraph(str(tmp_path), "proteins")
    assert dataset.source.name == "compact-table"
    for name, metric in original.metrics.items():
        assert torch.equal(dataset.metrics[name].values.nan_to_num(-1), metric.values.nan_to_num(-1))
        assert (dataset.metrics[name].unit, dataset.metrics[name].split) == (metric.unit, metric.split)
    dataset.verify()


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ("arch,speed/mean of 3/400\n0,1\n", DataFileError, "unknown metric 'speed'"),
        ("arch,valid_accuracy/mean of 3/400\n88888,0.5\n", InvalidArchitectureError, "88888 is not the key"),
        ("arch,valid_accuracy/mean of 3/400\n0012|gcn,0.5\n", InvalidArchitectureError, "not a decimal key"),
        ("arch,valid_accuracy/mean of 3/400\n0,0.5\n0,0.5\n", DataFileError, "more than one row"),
    ],
)
def test_bad_compact_tables(tmp_path, no_package, table, error, message):
    drop(tmp_path, table.encode(), "nasbenchgraph-cora.csv")
    with pytest.raises(error, match=message):
        NASBenchGraph(str(tmp_path), "cora")


@needs_package
def test_another_version_of_the_package_is_refused(tmp_path, monkeypatch):
    changed = drop(tmp_path, {0: ROW}, "changed")
    monkeypatch.setattr(nasbenchgraph, "_packaged_file", lambda dataset: changed)
    with pytest.raises(ChecksumError, match="damaged or another version"):
        NASBenchGraph(str(tmp_path), "cora")


@needs_package
def test_unknown_metric(root):
    with pytest.raises(MissingLabelsError, match="available: latency, parameters, test_accuracy, valid_accuracy"):
        NASBenchGraph(root, "cora", metric="train_accuracy")
