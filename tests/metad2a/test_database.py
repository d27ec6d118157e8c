from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.metad2a import FeatureSets, MetaD2ADatabase, build_database
from pyg_nas_np.metad2a.database import CLASSES_FILE, RESULTS_FILE
from pyg_nas_np.spaces import CellSpace, NASBench201Space
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, InvalidFeaturesError, InvalidLabelsError, NASError


@given(
    st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=4),
    st.data(),
)
@settings(max_examples=30, deadline=None)
def test_selecting_data_sets_is_joining_them_in_that_order(datasets: list[list[int]], data: st.DataObject) -> None:
    given_ = [[torch.randn(n, 3) for n in dataset] for dataset in datasets]
    chosen = data.draw(st.lists(st.integers(0, len(datasets) - 1), min_size=1, max_size=5))
    selected = FeatureSets.from_datasets(given_)[chosen]
    expected = FeatureSets.from_datasets([given_[i] for i in chosen])
    assert torch.equal(selected.features, expected.features)
    assert torch.equal(selected.class_ptr, expected.class_ptr)
    assert torch.equal(selected.dataset_ptr, expected.dataset_ptr)


def test_prototypes_are_class_means() -> None:
    first, second = torch.randn(3, 2), torch.randn(1, 2)
    prototypes = FeatureSets.from_datasets([[first], [second]]).prototypes()
    torch.testing.assert_close(prototypes.features, torch.stack([first.mean(dim=0), second[0]]))
    assert prototypes.class_ptr.tolist() == [0, 1, 2]
    assert len(prototypes) == 2


def test_bad_sets_are_named() -> None:
    rows, ptr = torch.zeros(3, 2), torch.tensor([0, 3])
    one = torch.tensor([0, 1])
    for features, class_ptr, dataset_ptr, message in [
        (torch.zeros(3), ptr, one, r"features must be float32 of shape \[N, F\], got torch.float32 \[3\]"),
        (rows, torch.tensor([0, 2]), one, "class_ptr must run from 0 to 3, got 0 to 2"),
        (rows, torch.tensor([0, 3, 3]), torch.tensor([0, 2]), "class 1 is empty"),
        (rows, ptr, torch.tensor([0, 1, 1]), "data set 1 is empty"),
        (rows, ptr.float(), one, "class_ptr must be a vector of at least two integers"),
        (rows.index_fill(0, torch.tensor([1]), torch.nan), ptr, one, "row 1 of features"),
    ]:
        with pytest.raises(InvalidFeaturesError, match=message):
            FeatureSets(features, class_ptr, dataset_ptr)
    with pytest.raises(InvalidFeaturesError, match="there is no class"):
        FeatureSets.from_datasets([])
    with pytest.raises(InvalidFeaturesError, match=r"class 1 must have shape \[n, 2\]"):
        FeatureSets.from_datasets([[rows, torch.zeros(3, 4)]])
    with pytest.raises(InvalidFeaturesError, match="data set 1 is empty"):
        FeatureSets.from_datasets([[rows], []])
    with pytest.raises(IndexError, match="index must name some of 1 data sets"):
        FeatureSets(rows, ptr, one)[1]


# -- databases ------------------------------------------------------------------------------------------------------


def pool(count: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1 + i % 3, 4, generator=generator) for i in range(count)]


def build(folder: Path, space: CellSpace[Any], num_tuples: int, **changes: Any) -> MetaD2ADatabase:
    def train(arch: Any, classes: tuple[int, ...]) -> float:
        return 5.0 * sum(classes) + space.index(arch) / 1000

    arguments = {"classes": pool(), "train": train, "num_tuples": num_tuples, "classes_per_dataset": 3} | changes
    return build_database(folder, space, **arguments)


def test_building_asks_for_every_pair_once(tmp_path: Path, toy_space: CellSpace[Any]) -> None:
    database = build(tmp_path, toy_space, 5)
    datasets = database.dataset_classes.view(5, 3)
    torch.testing.assert_close(database.accuracy, 5.0 * datasets.sum(dim=1) + database.arch.double() / 1000)
    sets = database.sets(database.dataset[[2, 0]])
    expected = FeatureSets.from_datasets([[pool()[i] for i in datasets[dataset]] for dataset in (2, 0)])
    assert torch.equal(sets.features, expected.features)
    assert torch.equal(sets.class_ptr, expected.class_ptr)


def test_building_continues_after_an_interruption(tmp_path: Path, toy_space: CellSpace[Any]) -> None:
    whole = build(tmp_path / "whole", toy_space, 5)
    asked = []

    def train(arch: Any, classes: tuple[int, ...]) -> float:
        asked.append(arch)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return 5.0 * sum(classes) + toy_space.index(arch) / 1000

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "part", toy_space, 4, train=train)
    assert len(MetaD2ADatabase.load(tmp_path / "part", toy_space)) == 2
    resumed = build(tmp_path / "part", toy_space, 5, train=train)
    assert len(asked) == 3 + 3
    assert torch.equal(resumed.accuracy, whole.accuracy)
    # A shorter request returns the beginning, and loses nothing.
    assert len(build(tmp_path / "part", toy_space, 1)) == 1
    assert len(MetaD2ADatabase.load(tmp_path / "part", toy_space)) == 5


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"classes": pool(5)}, {"classes_per_dataset": 2}, {"class_names": "abcdef"}]
)
def test_other_arguments_do_not_continue_a_database(
    tmp_path: Path, toy_space: CellSpace[Any], changes: dict[str, Any]
) -> None:
    build(tmp_path, toy_space, 2)
    with pytest.raises(DataFileError, match="holds a database of other classes, seed or settings"):
        build(tmp_path, toy_space, 3, **changes)


def test_a_training_without_accuracy_is_told_and_the_rest_kept(tmp_path: Path, toy_space: CellSpace[Any]) -> None:
    values = iter([50.0, float("nan")])
    with pytest.raises(InvalidLabelsError, match="train returned nan for tuple 1"):
        build(tmp_path, toy_space, 3, train=lambda arch, classes: next(values))
    assert MetaD2ADatabase.load(tmp_path, toy_space).accuracy.tolist() == [50.0]


def test_a_task_has_no_more_classes_than_the_pool(tmp_path: Path, toy_space: CellSpace[Any]) -> None:
    with pytest.raises(ValueError, match="classes_per_dataset must be from 1 to the 6 classes, got 7"):
        build(tmp_path, toy_space, 3, classes_per_dataset=7)


def test_files_give_the_same_database_back(tmp_path: Path, toy_space: CellSpace[Any]) -> None:
    database = replace(build(tmp_path / "a", toy_space, 4), held_out=torch.tensor([True, False, False, True]))
    database.save(tmp_path / "b")
    again = MetaD2ADatabase.load(tmp_path / "b", toy_space)
    for name in ("dataset_classes", "dataset_ptr", "dataset", "arch", "accuracy", "held_out"):
        assert torch.equal(getattr(again, name), getattr(database, name))
    assert torch.equal(again.classes.features, database.classes.features)
    assert repr(again) == "MetaD2ADatabase(toy, tuples=4, datasets=4, classes=6)"


def test_damaged_files_are_told(tmp_path: Path, toy_space: CellSpace[Any]) -> None:
    build(tmp_path, toy_space, 2)
    with pytest.raises(InvalidArchitectureError, match="is about toy, not about nasbench201"):
        MetaD2ADatabase.load(tmp_path, NASBench201Space())
    results = tmp_path / RESULTS_FILE
    text = results.read_text()
    results.write_text(text.replace("arch,", "cell,"))
    with pytest.raises(DataFileError, match="has no column 'arch'"):
        MetaD2ADatabase.load(tmp_path, toy_space)
    classes = tmp_path / CLASSES_FILE
    classes.write_bytes(classes.read_bytes()[:50])
    with pytest.raises(DataFileError, match=r"missing|corrupt or not a safetensors file"):
        MetaD2ADatabase.load(tmp_path, toy_space)


def test_splits_by_task_share_no_class_list(tmp_path: Path, toy_space: CellSpace[Any]) -> None:
    database = build(tmp_path, toy_space, 40)
    lists = [frozenset(row.tolist()) for row in database.dataset_classes.view(40, 3)]
    assert len(set(lists)) < 40  # some lists occur twice
    tested = []
    for fold in range(5):
        train, _, test = database.split_by_dataset(5, fold, seed=1)
        assert not {lists[i] for i in train} & {lists[i] for i in test}
        tested += test.tolist()
    assert sorted(tested) == list(range(40))
    with pytest.raises(ValueError, match="folds must be from 2"):
        database.split_by_dataset(5, 5)
    with pytest.raises(InvalidLabelsError, match="no official split"):
        database.official_split()


def test_bad_databases_are_named(tmp_path: Path, toy_space: CellSpace[Any]) -> None:
    database = build(tmp_path, toy_space, 4)
    for changes, error, message in [
        (
            {"dataset_classes": torch.zeros(12, dtype=torch.long)},
            InvalidFeaturesError,
            "data set 0 names class 0 more than",
        ),
        (
            {"dataset_classes": database.dataset_classes + 1},
            InvalidFeaturesError,
            "dataset_classes must lie between 0 and 5",
        ),
        ({"accuracy": torch.full((4,), 101.0)}, InvalidLabelsError, "got 101.0 at tuple 0"),
        ({"accuracy": torch.zeros(3)}, InvalidLabelsError, "vectors of one length"),
        ({"dataset": database.dataset + 1}, InvalidLabelsError, "dataset must lie between 0 and 3"),
        ({"arch": torch.full((4,), 128)}, InvalidLabelsError, "arch must lie between 0 and 127"),
        ({"class_names": ("a",)}, InvalidFeaturesError, "1 class_names for 6 classes"),
    ]:
        with pytest.raises(error, match=message):
            replace(database, **changes)


def test_mutated_databases_raise_named_errors(tmp_path: Path, mutations: Callable[..., Iterator[bytes]]) -> None:
    space = NASBench201Space()
    build(tmp_path, space, 5)
    for name in (CLASSES_FILE, RESULTS_FILE):
        content = (tmp_path / name).read_bytes()
        for changed in mutations(content, count=150):
            (tmp_path / name).write_bytes(changed)
            with suppress(NASError):
                MetaD2ADatabase.load(tmp_path, space)
        (tmp_path / name).write_bytes(content)
    assert len(MetaD2ADatabase.load(tmp_path, space)) == 5
