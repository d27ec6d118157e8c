from __future__ import annotations

import csv
import gzip
import json
import shutil

import pytest
import torch
from torch_geometric.loader import DataLoader

from pyg_nas_np.datasets import OFAMobileNetV3
from pyg_nas_np.datasets.mobilenetv3 import DEVICES, read_accuracies, read_latencies
from pyg_nas_np.spaces import MobileNetV3Space
from pyg_nas_np.utils import DataFileError, MissingLabelsError, VerificationError

SPACE = MobileNetV3Space((224,))
ARCHS = SPACE.sample(6, torch.Generator().manual_seed(0))
HEADER = ["arch_json", "params", "macs", "top1_mean", "n_meas", "top1_min", "top1_max", "sources"]


def padded(arch, noise=3):
    """The form of the tables: four entries a stage, those beyond its depth arbitrary."""
    config = {"d": list(arch.depths), "ks": [], "e": [], "r": arch.resolution}
    for stage in arch.stages:
        layers = [*stage, *[(noise, noise)] * 4][:4]
        config["ks"] += [k for k, _ in layers]
        config["e"] += [e for _, e in layers]
    return json.dumps(config)


def row(arch, mean, count=1, low=None, high=None, noise=3):
    low, high = mean if low is None else low, mean if high is None else high
    return [padded(arch, noise), SPACE.num_parameters(arch), SPACE.flops(arch), mean, count, low, high, "a.csv"]


def write(path, rows, header=HEADER):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "raw" / "mine.csv", [row(arch, 70.0 + i) for i, arch in enumerate(ARCHS)])
    return tmp_path


def test_rows_of_one_subnet_are_merged(tmp_path):
    short = SPACE.from_str("r224|k3e3-k3e3|" + "|".join(["k5e4-k5e4"] * 4))
    rows = [row(short, 74.0, 3, 73.5, 74.5), row(ARCHS[0], 76.0), row(short, 75.0, 1, noise=4)]
    table = read_accuracies(write(tmp_path / "t.csv.gz", rows))
    assert table.archs == (short, ARCHS[0])
    assert table.values[:, 0].tolist() == [74.25, 76.0]
    assert table.lowest[:, 0].tolist() == [73.5, 76.0]
    assert table.highest[:, 0].tolist() == [75.0, 76.0]
    assert table.n_meas.tolist() == [4, 1]


def test_the_measured_accuracies(shared_data, tmp_path):
    (tmp_path / "raw").mkdir()
    shutil.copy(shared_data / "ofa_mbv3" / "dynast_ofa_mbv3_w1.0_imagenet_top1.csv", tmp_path / "raw")
    dataset = OFAMobileNetV3(str(tmp_path))
    assert len(dataset.verify()) == 4
    assert len(dataset) == 2162
    assert int(dataset._data.num_parameters.min()) >= 3_415_000
    assert int(dataset._data.num_parameters.max()) <= 7_365_000
    assert 122.5e6 < int(dataset._data.flops.min()) < 123.5e6
    assert 505e6 < int(dataset._data.flops.max()) < 507e6
    assert int((dataset._data.n_meas > 1).sum()) >= 100
    table = read_accuracies(dataset.source.location)
    spread = (table.highest - table.lowest)[:, 0]
    assert bool((spread >= 0).all())
    assert dataset.arch(17) == table.archs[17] == dataset.space.decode(dataset[17])


def test_the_measured_latencies(shared_data, tmp_path):
    (tmp_path / "raw").mkdir()
    shutil.copy(shared_data / "ofa_mbv3" / "help_ofa_latency_12dev.csv.gz", tmp_path / "raw" / "latency.csv.gz")
    dataset = OFAMobileNetV3(str(tmp_path), "v100_32")
    dataset.verify()
    assert len(dataset) == 5000
    assert float(dataset.y[0]) == pytest.approx(11.6353)
    assert dataset.arch(0).resolution == 204
    assert float(read_latencies(dataset.source.location).values.min()) > 3
    with pytest.raises(MissingLabelsError, match=r"no table in .* has 'top1'\. Put the DyNAS-T table"):
        OFAMobileNetV3(str(tmp_path))


def test_graphs_carry_what_was_measured(root):
    dataset = OFAMobileNetV3(str(root))
    assert repr(dataset) == "OFAMobileNetV3(6, metric='top1')"
    assert dataset.y.tolist() == [70.0 + i for i in range(6)]
    for i, (graph, arch) in enumerate(zip(dataset, ARCHS, strict=True)):
        assert dataset.space.decode(graph) == dataset.arch(i) == arch
        assert graph.y.tolist() == [70.0 + i]
        assert (graph.num_parameters.item(), graph.flops.item()) == (SPACE.num_parameters(arch), SPACE.flops(arch))
        assert graph.n_meas.tolist() == [1]
    part = dataset[torch.tensor([4, 1])]
    assert part.y.tolist() == [74.0, 71.0]
    assert part.arch(0) == ARCHS[4]
    batch = next(iter(DataLoader(dataset, batch_size=6)))
    assert batch.num_graphs == 6
    assert batch.y.tolist() == dataset.y.tolist()


def test_processed_files_are_read_again_and_renewed(root):
    first = OFAMobileNetV3(str(root))
    (root / "raw" / "mine.csv").rename(root / "elsewhere.csv")
    assert OFAMobileNetV3(str(root)).y.tolist() == first.y.tolist()
    write(root / "raw" / "other.csv", [row(ARCHS[0], 77.0)])
    assert OFAMobileNetV3(str(root)).y.tolist() == [77.0]


def test_filters_and_transforms(root):
    def mark(graph):
        graph.marked = torch.ones(1)
        return graph

    dataset = OFAMobileNetV3(str(root), pre_filter=lambda graph: float(graph.y) > 72.5, pre_transform=mark)
    assert dataset.y.tolist() == [73.0, 74.0, 75.0]
    assert [dataset.arch(i) for i in range(3)] == ARCHS[3:]
    assert dataset[0].marked.tolist() == [1.0]
    with pytest.raises(ValueError, match="pre_filter kept 0 of 6"):
        OFAMobileNetV3(str(root), pre_filter=lambda graph: False, force_reload=True)


def test_another_table_is_not_the_published_one(root):
    with pytest.raises(VerificationError, match="sub-networks: expected 2162, found 6"):
        OFAMobileNetV3(str(root)).verify()


def test_latencies_of_equal_subnets_are_averaged(tmp_path):
    rows = [[0, padded(ARCHS[0]), *range(12)], [1, padded(ARCHS[0]), *range(2, 14)]]
    table = read_latencies(write(tmp_path / "l.csv", rows, ["index", "arch", *DEVICES]))
    assert table.values.tolist() == [[float(i) for i in range(1, 13)]]
    assert table.n_meas.tolist() == [2]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([], HEADER, "has a header but no rows"),
        ([row(ARCHS[0], 70.0)[:-1]], HEADER, "line 2: 7 cells, the header has 8"),
        ([["x"]], ["arch_json"], "has no column 'params'"),
        ([row(ARCHS[0], 70.0), ["{}", *row(ARCHS[0], 70.0)[1:]]], HEADER, "line 3: .* must be a mapping"),
        ([row(ARCHS[0], "good")], HEADER, "line 2, column 'top1_mean': 'good' is not a number"),
        ([row(ARCHS[0], "nan")], HEADER, "line 2: a value is NaN or infinite"),
        (
            [[padded(ARCHS[0]), 5, *row(ARCHS[0], 70.0)[2:]]],
            HEADER,
            "line 2: params is 5, the network of width 1.0 has",
        ),
        ([row(ARCHS[0], 70.0, 0)], HEADER, "n_meas must be positive"),
        ([row(ARCHS[0], 70.0, 2, 71.0, 72.0)], HEADER, "top1_min <= top1_mean"),
    ],
)
def test_damaged_tables_are_named(tmp_path, rows, header, message):
    path = write(tmp_path / "table.csv", rows, header)
    with pytest.raises(DataFileError, match=message):
        read_accuracies(path)


def test_truncated_archives_leave_nothing_behind(root):
    packed = gzip.compress((root / "raw" / "mine.csv").read_bytes())
    (root / "raw" / "mine.csv").unlink()
    (root / "raw" / "mine.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataFileError, match="corrupt or not"):
        OFAMobileNetV3(str(root))
    assert not list((root / "processed").rglob("subnets.pt"))


def test_unknown_metrics_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"metric must be one of top1, 2080ti_1.*got 'top5'"):
        OFAMobileNetV3(str(tmp_path), "top5")
