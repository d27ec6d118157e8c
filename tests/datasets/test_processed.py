from __future__ import annotations

import functools
import io
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.transforms import Compose, Constant

from pyg_nas_np.datasets import ArchitectureDataset, Metric, Source, SourceInfo
from pyg_nas_np.datasets.processed import describe
from pyg_nas_np.features import MetaFeatures
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError


class Measured(ArchitectureDataset):
    """128 cells whose label is their index times the number in ``raw/labels.txt``."""

    default_metrics = ("acc@1",)
    label_help = "Write raw/labels.txt."

    def __init__(self, root, space, **kwargs):
        self._space = space
        super().__init__(str(root), **kwargs)

    @property
    def space(self):
        return self._space

    def sources(self):
        path = Path(self.raw_dir) / "labels.txt"
        return [Source(SourceInfo.from_path("labels", path), lambda: self.read(path))] if path.exists() else []

    def read(self, path):
        values = torch.arange(128.0) * float(path.read_text())
        values[5::11] = float("nan")
        return {"acc@1": Metric.from_values(values.reshape(-1, 1, 1), ("1",), (1,), "percent")}

    def published(self):
        return []


@pytest.fixture
def root(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "labels.txt").write_text("1")
    return tmp_path


class Keep:
    def __init__(self, start, step=1):
        self.start, self.step = start, step

    def __call__(self, graph):
        return int(graph.arch_index) >= self.start and int(graph.arch_index) % self.step == 0


class Mark:
    def __init__(self, value):
        self.value = value

    def __call__(self, graph):
        graph.mark = torch.full((1,), float(self.value))
        return graph


# -- what processed files were made with -------------------------------------------------------------------------------


def test_another_filter_or_transform_processes_again(root, toy_space):
    assert Measured(root, toy_space, pre_filter=Keep(100)).arch_index.tolist() == list(range(100, 128))
    assert Measured(root, toy_space, pre_filter=Keep(64, 2)).arch_index.tolist() == list(range(64, 128, 2))
    assert len(Measured(root, toy_space)) == 128
    assert Measured(root, toy_space, pre_transform=Mark(1))[3].mark == 1
    assert Measured(root, toy_space, pre_transform=Mark(2))[3].mark == 2
    assert "mark" not in Measured(root, toy_space)[3]
    meta = Measured(root, toy_space, pre_transform=MetaFeatures(toy_space, standardize=False))
    assert torch.equal(meta[7].meta[0], MetaFeatures(toy_space, standardize=False).table()[7])
    other = Measured(root, toy_space, pre_transform=MetaFeatures(toy_space), pre_filter=Keep(100))
    assert torch.equal(other[7].meta[0], MetaFeatures(toy_space).table()[107])


def test_the_same_is_not_processed_again(root, toy_space, monkeypatch):
    for kwargs in ({}, {"pre_filter": Keep(9)}, {"pre_transform": Mark(1)}, {"pre_filter": lambda g: g.num_nodes > 2}):
        Measured(root, toy_space, **kwargs)
        with monkeypatch.context() as patch:
            patch.setattr(Measured, "process", lambda self: pytest.fail("processed again"))
            Measured(root, toy_space, **kwargs)


def test_labels_that_outlived_their_raw_file_are_kept(root, toy_space):
    y = Measured(root, toy_space).y
    (root / "raw" / "labels.txt").unlink()
    part = Measured(root, toy_space, pre_filter=Keep(64))
    assert torch.equal(part.y.nan_to_num(-1), y[64:].nan_to_num(-1))
    assert part.source.name == "labels"


def test_another_version_processes_again(root, toy_space, monkeypatch):
    Measured(root, toy_space)
    monkeypatch.setattr("pyg_nas_np.datasets.processed.VERSION", "0.0.0")
    monkeypatch.setattr(Measured, "process", lambda self: pytest.fail("processed again"))
    with pytest.raises(pytest.fail.Exception, match="processed again"):
        Measured(root, toy_space)


def scaled(factor):
    return lambda graph: graph.num_nodes * factor > 3


def test_descriptions_tell_by_value():
    same = [
        (Keep(3), Keep(3)),
        (scaled(2), scaled(2)),
        (functools.partial(scaled, 2), functools.partial(scaled, 2)),
        (Compose([Constant()]), Compose([Constant()])),
        (Mark(torch.ones(2)), Mark(torch.ones(2))),
    ]
    other = [
        (Keep(3), Keep(4)),
        (Keep(3), Mark(3)),
        (scaled(2), scaled(3)),
        (functools.partial(scaled, 2), functools.partial(scaled, 3)),
        (Compose([Constant()]), Compose([Constant(), Constant()])),
        (Constant(1.0), Constant(2.0)),
        (Mark(torch.ones(2)), Mark(torch.zeros(2))),
        (None, Keep(3)),
    ]
    for one, two in same:
        assert describe(one) == describe(two)
    for one, two in other:
        assert describe(one) != describe(two)


def test_a_transform_must_keep_the_index(root, toy_space):
    def lose(graph):
        del graph.arch_index
        return graph

    with pytest.raises(ValueError, match="must keep the attribute 'arch_index'"):
        Measured(root, toy_space, pre_transform=lose)


# -- damage ------------------------------------------------------------------------------------------------------------


def damage(path):
    yield b""
    yield path.read_bytes()[:-100]
    yield b"something else"
    buffer = io.BytesIO()
    torch.save({"data": {"x": torch.ones(3)}, "slices": {}}, buffer)
    yield buffer.getvalue()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    yield bytes(content)


@pytest.mark.parametrize("name", ["graphs.pt", "metrics.pt", "sources.json"])
def test_damaged_files_are_made_again(root, toy_space, name, caplog):
    whole = Measured(root, toy_space)
    path = root / "processed" / name
    for content in list(damage(path)):
        path.write_bytes(content)
        caplog.clear()
        again = Measured(root, toy_space)
        # A changed description is that of another processing, which is nothing to warn of.
        assert "it is made again" in caplog.text or name == "sources.json"
        assert torch.equal(again.y.nan_to_num(-1), whole.y.nan_to_num(-1))
        assert torch.equal(again[100].x, whole[100].x)
    path.unlink()
    assert len(Measured(root, toy_space)) == 128


@pytest.mark.parametrize("name", ["metrics.pt", "sources.json"])
def test_damaged_labels_whose_source_is_gone_are_refused(root, toy_space, name):
    Measured(root, toy_space)
    (root / "raw" / "labels.txt").unlink()
    path = root / "processed" / name
    if name == "sources.json":
        path.unlink()
    else:
        path.write_bytes(b"cut")
    for kwargs in ({}, {"force_reload": True}, {"pre_filter": Keep(3)}):
        with pytest.raises(DataFileError, match=r"processed.* are gone\. Write raw/labels\.txt\."):
            Measured(root, toy_space, **kwargs)
    assert not Measured(root, toy_space, source="graphs-only").metrics


def test_graphs_are_made_again_without_raw_files(root, toy_space):
    whole = Measured(root, toy_space)
    (root / "raw" / "labels.txt").unlink()
    (root / "processed" / "graphs.pt").write_bytes(b"cut")
    again = Measured(root, toy_space)
    assert torch.equal(again.y.nan_to_num(-1), whole.y.nan_to_num(-1))


def test_files_of_another_processing_do_not_pass(root, toy_space, tmp_path_factory):
    Measured(root, toy_space, pre_filter=Keep(100))
    kept = (root / "processed" / "graphs.pt").read_bytes()
    Measured(root, toy_space)
    (root / "processed" / "graphs.pt").write_bytes(kept)
    assert len(Measured(root, toy_space)) == 128


def test_no_mutated_file_is_accepted(root, toy_space, mutations):
    whole = Measured(root, toy_space)
    for name in ("graphs.pt", "metrics.pt", "sources.json"):
        path = root / "processed" / name
        content = path.read_bytes()
        manifest = whole._manifest()
        for damaged in mutations(content):
            path.write_bytes(damaged)
            try:
                whole._load_processed()
            except DataFileError:
                continue
            assert damaged == content or (name == "sources.json" and whole._manifest().checksums == manifest.checksums)
        path.write_bytes(content)


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_no_file_of_a_shared_root_runs_code(root, toy_space, tmp_path_factory):
    marker = tmp_path_factory.mktemp("x") / "owned"
    Measured(root, toy_space)
    files = [*(root / "processed").iterdir(), *(root / "processed" / f"pre_{k}.pt" for k in ("transform", "filter"))]
    for path in files:
        for write in (
            lambda path: torch.save(Payload(marker), path),
            lambda path: torch.save(Payload(marker), path, _use_new_zipfile_serialization=False),
            lambda path: path.write_bytes(pickle.dumps(Payload(marker))),
        ):
            write(path)
            assert len(Measured(root, toy_space)) == 128
            write(path)
            with pytest.raises(DataFileError, match="corrupt or not"):
                Measured(root, toy_space).load(str(root / "raw" / shutil.copy(path, root / "raw" / "copy.pt")))
    assert not marker.exists()


# -- positions and indices ---------------------------------------------------------------------------------------------

SELECTIONS = st.one_of(
    st.permutations(range(128)),
    st.lists(st.booleans(), min_size=128, max_size=128).filter(lambda mask: sum(mask) > 40).map(torch.tensor),
    st.slices(128).filter(lambda part: len(range(128)[part]) > 40),
    st.lists(st.integers(0, 127), min_size=60, max_size=200),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), by=st.sampled_from(["index", "class"]), seed=st.integers(0, 5))
def test_splits_of_any_part_name_its_own_cells(toy_space, tmp_path_factory, data, by, seed):
    kept = data.draw(st.sampled_from([(0, 1), (0, 2), (30, 1)]))
    folder = tmp_path_factory.getbasetemp() / f"positions-{kept[0]}-{kept[1]}"
    (folder / "raw").mkdir(parents=True, exist_ok=True)
    if not (folder / "raw" / "labels.txt").exists():
        (folder / "raw" / "labels.txt").write_text("1")
    whole = Measured(folder, toy_space, pre_filter=Keep(*kept) if kept != (0, 1) else None)
    selection = data.draw(SELECTIONS)
    if isinstance(selection, slice):
        part = whole[selection]
    else:
        values = torch.as_tensor(selection)
        part = whole[values[: len(whole)]] if values.dtype == torch.bool else whole[values % len(whole)]
    if part.arch_index[part.label_mask].unique().numel() < 12:
        return
    split = part.split(5, 3, by=by, seed=seed)
    index, labelled = part.arch_index, part.label_mask
    for positions in split:
        assert bool(labelled[positions].all())
        # A graph and its label belong together, whatever the order.
        for position in positions[:4].tolist():
            assert int(part[position].arch_index) == int(index[position])
            assert float(part[position].y) == float(index[position])
            assert part.arch(position) == toy_space[int(index[position])]
    units = index if by == "index" else whole.equivalence_class[index]
    sides = [set(units[positions].tolist()) for positions in split]
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & sides[2]
    positions = part.positions_of(index)
    assert torch.equal(index[positions], index)
    if index.unique().numel() == index.numel():
        # The order of a data set does not change which cells are drawn.
        back = part[index.argsort()].split(5, 3, by=by, seed=seed)
        assert torch.equal(part[index.argsort()].arch_index[back.train], index[split.train])


def test_positions_of_what_is_not_there(root, toy_space):
    part = Measured(root, toy_space, pre_filter=Keep(64))
    assert part.positions_of([64, 100]).tolist() == [0, 36]
    assert part.positions_of(torch.empty(0, dtype=torch.long)).tolist() == []
    with pytest.raises(InvalidArchitectureError, match=r"architecture 3 \(.*\) is not among the 64 of this data set"):
        part.positions_of([64, 3])
    with pytest.raises(IndexError, match="128"):
        part.positions_of([128])


def test_a_copy_splits_by_its_own_positions(root, toy_space):
    copy = Measured(root, toy_space)[60:100].copy()
    split = copy.split(5, by="index")
    assert int(torch.cat(split).max()) < 40
    assert float(copy[int(split.train[0])].y) == float(copy.arch_index[split.train[0]])


# -- graphs ------------------------------------------------------------------------------------------------------------


def test_a_graph_pickles_alone(root, toy_space):
    dataset = Measured(root, toy_space)
    for graph in (dataset[3], dataset[10:20][2], dataset.copy()[3], next(iter(dataset))):
        assert isinstance(graph, Data)
        assert all(value.untyped_storage().nbytes() <= 1024 for _, value in graph if isinstance(value, torch.Tensor))
        assert len(pickle.dumps(graph)) < 10_000


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_default_dtype_and_device_change_nothing(root, toy_space, dtype):
    expected = Measured(root, toy_space)
    shutil.rmtree(root / "processed")
    # Made on the device "meta", a tensor has no values: whoever reads one fails.
    torch.set_default_dtype(dtype)
    try:
        for _ in range(2):
            dataset = Measured(root, toy_space)
            assert dataset.y.dtype == torch.float32
            assert torch.equal(dataset.y.nan_to_num(-1), expected.y.nan_to_num(-1))
            assert dataset.metrics["acc@1"].values.dtype == torch.float32
            assert torch.equal(dataset.split(9).train, expected.split(9).train)
            assert dataset[5].num_parameters.dtype == expected[5].num_parameters.dtype
    finally:
        torch.set_default_dtype(torch.float32)
    torch.set_default_device("meta")
    try:
        dataset = Measured(root, toy_space)
        assert dataset.y.device.type == dataset[3].x.device.type == "cpu"
        assert torch.equal(dataset[[3, 1]].positions_of([1, 3]), torch.tensor([1, 0], device="cpu"))
        split = dataset[10:].split(9, 3, by="index")
        assert split.test.device.type == "cpu"
    finally:
        torch.set_default_device(None)


def test_the_manifest_can_be_read_by_people(root, toy_space):
    Measured(root, toy_space, pre_filter=Keep(3))
    content = json.loads((root / "processed" / "sources.json").read_text())
    assert content["made_with"]["pre_filter"].startswith("Keep:")
    assert content["made_with"]["pre_transform"] == "None"
    assert "toy" in content["made_with"]["space"]
    assert content["sources"][0]["metrics"] == ["acc@1"]
    assert sorted(content["checksums"]) == ["graphs.pt", "metrics.pt"]
