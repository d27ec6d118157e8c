r"""The contract of every benchmark, on a space of 15,625 cells and on sources made up here."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from pyg_nas_np.datasets import ArchitectureDataset, Check, Metric, NASBench201, Source, SourceInfo
from pyg_nas_np.features import MetaFeatures
from pyg_nas_np.spaces import NASBench201Space
from pyg_nas_np.utils import DataFileError, MissingLabelsError, VerificationError


class Toy(ArchitectureDataset):
    """Labels come from ``raw/*.txt``, each holding one number that all labels are multiplied by."""

    default_metrics = ("first@1", "second@1")
    label_help = "Write raw/first.txt."
    space = NASBench201Space()

    def sources(self):
        return [
            Source(SourceInfo.from_path(path.stem, path), lambda path=path: self.read(path))
            for path in sorted(Path(self.raw_dir).glob("*.txt"))
        ]

    def read(self, path):
        if path.read_text() == "broken":
            raise DataFileError(f"{path} is broken")
        values = torch.arange(15625.0) * float(path.read_text())
        values[5] = float("nan")
        return {f"{path.stem}@1": Metric.from_values(values.reshape(-1, 1, 1), ("1",), (1,), "percent")}

    def fetch(self):
        path = Path(self.raw_dir) / "first.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("3")
        return self.sources()[0]

    def published(self):
        return [
            Check("graphs", 15625, len(self.space), 0),
            Check("label 1", 1, float(self.metrics[self.metric].mean()[1]), 0),
        ]


def put(root, **labels):
    (root / "raw").mkdir(exist_ok=True)
    for name, factor in labels.items():
        (root / "raw" / f"{name}.txt").write_text(str(factor))


def test_graphs_without_labels(tmp_path, caplog):
    dataset = Toy(tmp_path)
    assert "Write raw/first.txt" in caplog.text
    assert len(dataset) == 15625
    assert dataset.source.name == "graphs-only"
    assert not dataset.label_mask.any()
    assert dataset[3].y.isnan().all()
    with pytest.raises(MissingLabelsError, match="first@1"):
        Toy(tmp_path, metric="first@1")


def test_items_follow_the_official_order(tmp_path):
    put(tmp_path, first=1)
    dataset = Toy(tmp_path)
    item = dataset[6111]
    assert dataset.space.index(dataset.space.decode(item)) == 6111
    assert (item.arch_index.item(), item.y.item(), item.num_parameters.item()) == (6111, 6111.0, 1073466)
    assert dataset.y[5].isnan()
    assert not dataset.label_mask[5]
    part = dataset[torch.tensor([7, 3, 9])]
    assert part.arch_index.tolist() == [7, 3, 9]
    assert part.y.tolist() == [7.0, 3.0, 9.0]
    assert part.arch(1) == dataset.space[3]
    assert part[1].arch_index.item() == 3


def test_batching_keeps_arch_index(tmp_path):
    put(tmp_path, first=1)
    batch = next(iter(DataLoader(Toy(tmp_path)[10:20], batch_size=10)))
    assert batch.arch_index.tolist() == list(range(10, 20))
    assert batch.num_graphs == 10
    assert batch[4].arch_index.item() == 14


def test_sources_are_merged_and_reported(tmp_path):
    put(tmp_path, first=1, second=2)
    dataset = Toy(tmp_path)
    assert (dataset.metric, dataset.source.name) == ("first@1", "first")
    assert dataset.source_of("second@1").name == "second"
    assert Toy(tmp_path, metric="second@1").y[2] == 4
    only = Toy(tmp_path, source="second")
    assert list(only.metrics) == ["second@1"]
    assert only.metric == "second@1"
    with pytest.raises(MissingLabelsError, match="present: first, second"):
        Toy(tmp_path, source="third")
    assert not Toy(tmp_path, source="graphs-only").metrics


def test_new_and_changed_sources_are_processed_again(tmp_path):
    Toy(tmp_path)
    put(tmp_path, first=1)
    assert Toy(tmp_path).y[2] == 2
    put(tmp_path, first=10.0)
    assert Toy(tmp_path).y[2] == 20
    (tmp_path / "raw" / "first.txt").unlink()
    assert Toy(tmp_path).y[2] == 20  # processed files outlive the raw one


def test_download_is_asked_for(tmp_path):
    assert not Toy(tmp_path).metrics
    assert Toy(tmp_path, download=True).y[2] == 6


def test_failed_processing_leaves_nothing(tmp_path):
    put(tmp_path, first="broken")
    with pytest.raises(DataFileError, match="broken"):
        Toy(tmp_path)
    assert not list((tmp_path / "processed").glob("*.pt"))
    assert (tmp_path / "raw" / "first.txt").read_text() == "broken"


def test_damaged_source_report_is_rebuilt(tmp_path):
    put(tmp_path, first=1)
    Toy(tmp_path)
    (tmp_path / "processed" / "sources.json").write_text("{")
    assert Toy(tmp_path).y[2] == 2
    assert json.loads((tmp_path / "processed" / "sources.json").read_text())["sources"][0]["name"] == "first"


def test_meta_features_run_vectorised(tmp_path):
    put(tmp_path, first=1)
    features = MetaFeatures(Toy.space)
    dataset = Toy(tmp_path, pre_transform=features)
    assert list(dataset[0].meta.shape) == [1, len(features.feature_names)]
    expected = features(Toy.space.encode(Toy.space[77])).meta
    assert torch.allclose(dataset[77].meta, expected, atol=1e-5)


def test_pre_filter_and_transform(tmp_path):
    put(tmp_path, first=1)

    def mark(data):
        data.seen = torch.ones(1)
        return data

    dataset = Toy(tmp_path, pre_filter=lambda d: int(d.arch_index) % 1000 == 7, pre_transform=mark)
    assert dataset.arch_index.tolist() == list(range(7, 15625, 1000))
    assert dataset.y.tolist() == list(range(7, 15625, 1000))
    assert dataset[3].seen == 1


def test_splits_use_labelled_architectures(tmp_path):
    put(tmp_path, first=1)
    dataset = Toy(tmp_path)
    split = dataset.split(50, 10, seed=2)
    assert 5 not in torch.cat(split).tolist()
    assert split.test.numel() == 15624 - 60
    by_class = dataset.split(50, by="class", seed=2)
    assert not torch.isin(dataset.equivalence_class[by_class.test], dataset.equivalence_class[by_class.train]).any()
    assert set(dataset.split_by_budget([10, 20])) == {10, 20}
    with pytest.raises(ValueError, match="by must be"):
        dataset.split(10, by="hash")


def test_verify_lists_what_differs(tmp_path):
    put(tmp_path, first=1)
    assert len(Toy(tmp_path).verify()) == 2
    put(tmp_path, first=2.5)
    with pytest.raises(VerificationError, match=r"label 1: expected 1, found 2\.5"):
        Toy(tmp_path).verify()


def test_a_graph_knows_its_origin_and_does_not_carry_it(loss_dataset):
    graph = loss_dataset[7]
    assert graph.origin == (loss_dataset.space, False)
    assert loss_dataset[5:][2].origin is graph.origin
    assert graph.clone().origin is copy.deepcopy(graph).origin is copy.copy(graph).origin is graph.origin
    assert pickle.loads(pickle.dumps(graph)).origin is None
    assert len(pickle.dumps(graph)) < 10_000
    assert "origin" not in " ".join(graph.keys())
    batch = Batch.from_data_list([graph, loss_dataset[8]])
    assert batch.origin is None
    assert batch[0].origin is None
    assert next(iter(DataLoader(loss_dataset[:4], batch_size=2, num_workers=0))).num_graphs == 2


def test_direction_of_the_labels(loss_dataset, tmp_path):
    assert not loss_dataset.maximize
    assert not loss_dataset[3:9].maximize
    assert NASBench201(str(tmp_path), source="graphs-only").maximize


def test_positions_outside_are_named(loss_dataset):
    part = loss_dataset[10:15]
    assert int(part[-1].arch_index) == 14
    assert part.arch(-1) == part.arch(4) == part.space[14]
    for position in (5, -6, "x"):
        for call in (part.__getitem__, part.arch):
            with pytest.raises(IndexError, match=f"no position {position!r} among the 5 graphs"):
                call(position)
    assert len(list(part)) == 5
