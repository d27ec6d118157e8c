from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from pyg_nas_np.datasets._nasbench101_records import ForeignCellError
from pyg_nas_np.datasets.nasbench101 import NASBench101, units
from pyg_nas_np.spaces.nasbench101 import NASBench101Space
from pyg_nas_np.utils import ChecksumError, DataFileError, ForbiddenPickleError, MissingLabelsError
from tests.datasets.conftest import encode_record

space = NASBench101Space()


class Unverified(NASBench101):
    r"""Reads synthetic files."""

    checksums: ClassVar[dict[str, str]] = {}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> NASBench101:
    return NASBench101(str(tmp_path_factory.mktemp("graphs")))


def synthetic(path: Path, indices: list[int], budgets: tuple[int, ...] = (108,), repeats: int = 3) -> None:
    import struct

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in indices:
        arch = space[index]
        for budget in budgets:
            for repeat in range(repeats):
                accuracy = index / 1e6 + budget / 1e3 + repeat / 100
                bodies = [
                    b"".join(
                        struct.pack("<Bd", 8 * n + 1, v)
                        for n, v in enumerate((0, 60.0 * half, *[accuracy * half] * 3), 1)
                    )
                    for half in (0.0, 0.5, 1.0)
                ]
                message = b"".join(b"\x0a" + bytes([len(body)]) + body for body in bodies) + b"\x10\x05"
                rows.append(encode_record(space.canonical(arch), budget, arch.matrix, list(arch.ops), message))
    path.write_bytes(b"".join(rows))


def test_graphs_without_labels(graphs: NASBench101) -> None:
    assert len(graphs) == 423_624
    assert graphs.source.name == "graphs-only"
    assert not graphs.label_mask.any()
    assert graphs.num_features == 5
    assert all(check.ok for check in graphs.verify())
    for index in (0, 6992, 16569, 423623):
        data = graphs[index]
        assert space.decode(data) == space[index] == graphs.arch(index)
        assert int(data.arch_index) == index
        assert int(data.num_parameters) == space.num_parameters(space[index])
        assert int(data.flops) == space.flops(space[index])
    picked = graphs[torch.tensor([423623, 5])]
    batch = next(iter(DataLoader(picked, batch_size=2)))
    assert batch.arch_index.tolist() == [423623, 5]


def test_official_file_with_all_budgets(tmp_path: Path) -> None:
    synthetic(tmp_path / "raw" / "nasbench_only108.tfrecord", [1])
    synthetic(tmp_path / "raw" / "nasbench_full.tfrecord", [0, 7, 423623], (4, 12, 36, 108), repeats=2)
    dataset = Unverified(str(tmp_path))
    assert dataset.source.name == "tfrecord-full"
    assert sorted(dataset.metrics) == sorted(
        f"{quantity}@{budget}"
        for quantity in ("training_time", "train_accuracy", "valid_accuracy", "test_accuracy")
        for budget in (4, 12, 36, 108)
    )
    metric = dataset.metrics["valid_accuracy@36"]
    assert tuple(metric.values.shape) == (423_624, 3, 2)
    assert (metric.epochs, metric.unit, metric.split) == ((18, 36), "fraction", "valid")
    assert dataset.metrics["training_time@4"].unit == "seconds"
    assert metric.mask[7].tolist() == [[True, True], [True, True], [False, False]]
    expected = 7 / 1e6 + 36 / 1e3 + 0.01
    assert metric.values[7, 1].tolist() == pytest.approx([expected / 2, expected], abs=1e-6)
    assert dataset.label_mask.sum() == 3
    assert dataset[7].y.item() == pytest.approx(7 / 1e6 + 0.108 + 0.005, abs=1e-6)

    again = Unverified(str(tmp_path), metric="test_accuracy@4", source="tfrecord-full")
    assert again[0].y.item() == pytest.approx(0.009, abs=1e-6)
    other = Unverified(str(tmp_path), source="tfrecord-only108")
    assert other.source.name == "tfrecord-only108"
    assert other.arch_index[other.label_mask].tolist() == [1]


def test_wrong_checksum_leaves_nothing_behind(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "nasbench_only108.tfrecord"
    synthetic(raw, [1])
    content = raw.read_bytes()
    with pytest.raises(ChecksumError, match="4c39c3936e36a852"):
        NASBench101(str(tmp_path))
    assert raw.read_bytes() == content
    assert not [p for p in (tmp_path / "processed").glob("**/*") if p.suffix in (".pt", ".json")]


def test_damaged_file_leaves_nothing_behind(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "nasbench_only108.tfrecord"
    synthetic(raw, [1, 2])
    content = raw.read_bytes()[:-3]
    raw.write_bytes(content)
    with pytest.raises(DataFileError, match="truncated: record 5"):
        Unverified(str(tmp_path))
    assert raw.read_bytes() == content
    assert not list((tmp_path / "processed").glob("*.pt"))


def test_naslib_pickle(tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "raw").mkdir()
    target = tmp_path / "raw" / "my_sample.pkl"
    target.write_bytes((shared_data / "nasbench101" / "nb101_dummy.pkl").read_bytes())
    dataset = NASBench101(str(tmp_path))
    assert dataset.source.name == "naslib-pickle"
    labelled = dataset.arch_index[dataset.label_mask]
    assert labelled.tolist() == list(range(422_933, 422_963))
    with open(target, "rb") as file:
        content = pickle.load(file)
    for index, (digest, (fixed, runs)) in zip(space.index_hashes(list(content)).tolist(), content.items(), strict=True):
        assert space.canonical(space[index]) == digest
        assert np.array_equal(space[index].matrix, fixed["module_adjacency"])
        assert list(space[index].ops) == list(fixed["module_operations"])
        assert int(dataset[index].num_parameters) == fixed["trainable_parameters"]
        for repeat, run in enumerate(runs[108]):
            halves = dataset.metrics["test_accuracy@108"].values[index, repeat].tolist()
            assert halves == [run["halfway_test_accuracy"], run["final_test_accuracy"]]
            seconds = dataset.metrics["training_time@108"].values[index, repeat, 1].item()
            assert seconds == run["final_training_time"]


class Intruder:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("true",)


@pytest.mark.parametrize(
    ("content", "error", "problem"),
    [
        (pickle.dumps(Intruder()), ForbiddenPickleError, "system"),
        (pickle.dumps([1]), DataFileError, "dict of cells"),
        (pickle.dumps({"f" * 32: ({}, {108: []})}), ForeignCellError, "f" * 32),
        (pickle.dumps({7: ({}, {108: []})}), ForeignCellError, "'7' is not an MD5"),
        (pickle.dumps({"043721b9c7fe8c5fad811d47d83132ec": 5}), DataFileError, "not a table of the format of NASLib"),
        (pickle.dumps({"043721b9c7fe8c5fad811d47d83132ec": ({}, {108: [{}]})}), DataFileError, "halfway_training_time"),
        (pickle.dumps({"043721b9c7fe8c5fad811d47d83132ec": ({}, {5: []})}), DataFileError, "0 runs at 5 epochs"),
        (pickle.dumps({"a": 1})[:-4], DataFileError, "corrupt or not"),
    ],
)
def test_bad_pickles_are_refused(tmp_path: Path, content: bytes, error: type[Exception], problem: str) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "nasbench_only108.pkl").write_bytes(content)
    with pytest.raises(error, match=problem):
        NASBench101(str(tmp_path))


def test_compact_table_with_a_fallback_target(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "raw").mkdir()
    rows = [f"{space.canonical(space[i])},{accuracy},0.5" for i, accuracy in ((3, 0.903), (6992, 0.8))]
    header = "arch,valid_accuracy_best_of_3@108/best of 3/108,valid_accuracy@4/one of 3/4"
    (tmp_path / "raw" / "nasbench101.csv").write_text("\n".join([header, *rows]) + "\n")
    dataset = NASBench101(str(tmp_path))
    assert dataset.metric == "valid_accuracy_best_of_3@108"
    assert "No source provides valid_accuracy@108" in caplog.text
    assert dataset.arch_index[dataset.label_mask].tolist() == [3, 6992]
    assert dataset[3].y.item() == pytest.approx(0.903)
    assert dataset.metrics["valid_accuracy@4"].seeds == ("one of 3",)
    assert NASBench101(str(tmp_path), metric="valid_accuracy@4")[3].y.item() == 0.5
    with pytest.raises(MissingLabelsError, match=r"valid_accuracy@108.*available"):
        NASBench101(str(tmp_path), metric="valid_accuracy@108")


def test_compact_table_with_a_foreign_cell(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "nasbench101.csv").write_text(f"arch,valid_accuracy@108/1/108\n{'0' * 32},0.9\n")
    with pytest.raises(ValueError, match="0" * 32):
        NASBench101(str(tmp_path))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_download_only_when_allowed(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "nasbench_only108.tfrecord"
    synthetic(tmp_path / "served" / name, [0, 1])
    monkeypatch.setattr(NASBench101, "url", server)
    monkeypatch.setattr(
        NASBench101, "checksums", {name: hashlib.sha256((tmp_path / "served" / name).read_bytes()).hexdigest()}
    )
    root = str(tmp_path / "root")
    assert NASBench101(root).source.name == "graphs-only"
    dataset = NASBench101(root, download=True)
    assert dataset.source.name == "tfrecord-only108"
    assert int(dataset.label_mask.sum()) == 2
    (tmp_path / "served" / name).unlink()
    assert NASBench101(root, download=True).source.name == "tfrecord-only108"


@pytest.mark.parametrize(
    ("name", "unit", "split"),
    [
        ("train_accuracy@4", "fraction", "train"),
        ("training_time@108", "seconds", ""),
        ("valid_accuracy_best_of_3@108", "fraction", "valid"),
        ("retrained_test_accuracy@36", "fraction", "test"),
        ("retrained_energy@36", "kilowatt-hours", ""),
        ("zen_score@0", "score", ""),
    ],
)
def test_units(name: str, unit: str, split: str) -> None:
    assert units(name) == (unit, split)
