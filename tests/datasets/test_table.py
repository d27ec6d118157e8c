"""The user's own measurements: labels, repeats, missing values, splits, checks, and tables that are refused."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch_geometric.loader import DataLoader

from pyg_nas_np.datasets import TableDataset
from pyg_nas_np.features import shared_features
from pyg_nas_np.predictors.inputs import as_architectures, labels_of
from pyg_nas_np.spaces import Categorical, Integer, NASBench201Space, ParameterSpace
from pyg_nas_np.spaces.testing import seeded
from pyg_nas_np.utils import (
    DataFileError,
    InvalidArchitectureError,
    InvalidLabelsError,
    InvalidSpaceError,
    VerificationError,
)

SPACE = ParameterSpace(depth=Integer(1, 8), act=["relu", "gelu"])


def rows(count=40, noise=0.1):
    generator = seeded()
    archs = SPACE.sample(count, generator, replace=True)
    jitter = torch.randn(count, generator=generator, dtype=torch.float64, device="cpu").tolist()
    return [
        {
            **arch.to_dict(),
            "acc": 10.0 * arch["depth"] + noise * e,
            "ms": None if i % 4 == 0 else 0.5 * i,
            "host": f"h{i}",
        }
        for i, (arch, e) in enumerate(zip(archs, jitter, strict=True))
    ]


def table(**options):
    return TableDataset(SPACE, rows(), ["acc", "ms"], **{"ignore": ["host"], **options})


def test_items_are_rows():
    dataset = table()
    assert len(dataset) == 40
    for i, row in enumerate(rows()):
        item = dataset[i]
        assert item.row.tolist() == [i]
        assert item.y.tolist() == pytest.approx([row["acc"]], rel=1e-6)
        assert SPACE.from_str(item.arch) == dataset.archs[i] == {"depth": row["depth"], "act": row["act"]}
    batch = next(iter(DataLoader(dataset, batch_size=8)))
    assert batch.y.shape == (8,)
    assert len(batch.arch) == 8


def test_metrics_keep_missing_values():
    dataset = table(metric="ms", maximize={"ms": False})
    assert not dataset.maximize
    assert table(maximize={"ms": False}).maximize
    assert dataset.label_mask.tolist() == [i % 4 != 0 for i in range(40)]
    assert dataset[dataset.label_mask].y.isfinite().all()
    assert math.isnan(dataset[0].y)
    assert set(dataset.metrics) == {"acc", "ms"}


def test_every_form_of_a_table_gives_the_same(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows())
    frame.to_csv(tmp_path / "table.csv", index=False)
    wanted = table()
    for given in (frame, frame.to_dict("list"), tmp_path / "table.csv", str(tmp_path / "table.csv")):
        other = TableDataset(SPACE, given, ["acc", "ms"], ignore=["host"])
        assert other.archs == wanted.archs
        torch.testing.assert_close(other.metrics["ms"], wanted.metrics["ms"], equal_nan=True)


def test_a_space_is_inferred_from_what_is_no_target():
    dataset = TableDataset(None, rows(), ["acc", "ms"])
    assert dataset.space.parameters == {
        "depth": Integer(1, 8),
        "act": Categorical(["gelu", "relu"]),
    }
    assert dataset.archs == table().archs


def test_features_and_graphs_are_x():
    dataset = table(features=lambda archs: torch.tensor([[float(arch["depth"])] for arch in archs]))
    assert dataset[3].x.tolist() == [[dataset.archs[3]["depth"]]]
    space = NASBench201Space()
    cells = [{"arch": space.to_str(space[i]), "acc": float(i)} for i in (5, 700, 5)]
    dataset = TableDataset(space, cells, "acc")
    assert torch.equal(dataset[1].edge_index, space.encode(space[700]).edge_index)
    assert torch.equal(dataset[1].x, space.encode(space[700]).x)
    by_index = TableDataset(space, {"n": [5, 700, 5], "acc": [1, 2, 3]}, "acc", column="n")
    assert by_index.archs == dataset.archs
    assert by_index.group.tolist() == [0, 1, 0]


def test_equal_graphs_are_repeats():
    space = NASBench201Space()
    keys = space.batch_canonical(torch.arange(400))
    first, second = next((keys.index(key), i) for i, key in enumerate(keys) if keys.index(key) != i)
    dataset = TableDataset(space, {"arch": [first, second, 399], "acc": [1, 2, 3]}, "acc")
    assert dataset.group.tolist() == [0, 0, 1]


def test_repeats_are_on_one_side_of_every_split():
    dataset = table()
    parts = [dataset.split(6, 4, seed=seed) for seed in range(5)]
    parts += list(dataset.split_by_budget([3, 6]).values())
    part = dataset[dataset.label_mask][10:]
    for whole, split in [(dataset, s) for s in parts] + [(part, part.split(5, 3))]:
        sides = [{whole.archs[i] for i in side} for side in split]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]
        assert not sides[0] & sides[1]
        assert len(split.train)
        assert len(split.test)


def test_labels_that_are_missing_are_in_no_split():
    dataset = table(metric="ms")
    for side in dataset.split(5, 3):
        assert dataset[side].y.isfinite().all()


def test_a_predictor_takes_it_as_it_is():
    dataset = table(metric="ms")
    part = dataset[dataset.label_mask]
    archs = as_architectures(part)
    assert archs.space is SPACE
    assert list(archs) == part.archs
    torch.testing.assert_close(labels_of(part), part.y)


def test_it_can_be_pickled():
    dataset = pickle.loads(pickle.dumps(table()[5:9]))
    assert dataset.archs == table().archs[5:9]
    assert dataset[0].arch == table()[5].arch


def test_checks_find_repeats_that_disagree():
    good = [{**row, "ms": 0.5 * row["depth"]} for row in rows()]
    assert [check.name for check in TableDataset(SPACE, good, ["acc", "ms"], ignore=["host"]).verify()] == [
        "acc: distinct labels beyond one",
        "acc: spread of repeats in that of all",
        "ms: distinct labels beyond one",
        "ms: spread of repeats in that of all",
    ]
    mixed = rows()
    for row in mixed[::2]:
        row["acc"] /= 100
    with pytest.raises(VerificationError, match="acc: spread of repeats"):
        TableDataset(SPACE, mixed, "acc", ignore=["ms", "host"]).verify()
    with pytest.raises(VerificationError, match="acc: distinct labels"):
        TableDataset(SPACE, {"depth": [1, 2], "act": ["relu"] * 2, "acc": [3, 3]}, "acc").verify()


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({"depth": 9}, {}, InvalidArchitectureError, "row 0: .*depth: 9 is not between"),
        ({"extra": 1}, {}, InvalidArchitectureError, "row 0: .*'extra' is not one of the parameters"),
        ({"acc": "high"}, {}, InvalidLabelsError, "row 0, column 'acc': 'high' is not a finite number"),
        ({"acc": math.inf}, {}, InvalidLabelsError, "row 0, column 'acc': inf"),
        ({"acc": True}, {}, InvalidLabelsError, "row 0, column 'acc': True"),
        ({}, {"targets": "loss"}, InvalidLabelsError, "no column 'loss' of labels; the columns are depth, act, acc"),
        ({}, {"targets": []}, InvalidLabelsError, "is not one of the targets"),
        ({}, {"metric": "ms"}, InvalidLabelsError, "'ms' is not one of the targets acc"),
        ({}, {"space": NASBench201Space()}, InvalidArchitectureError, "no column 'arch' of architectures"),
    ],
)
def test_tables_that_are_wrong_are_refused(change, options, error, message):
    given = [{"depth": 1, "act": "relu", "acc": 1.0, **change}, {"depth": 2, "act": "gelu", "acc": 2.0}]
    arguments = {"space": SPACE, "table": given, "targets": "acc", **options}
    with pytest.raises(error, match=message):
        TableDataset(**arguments)


def test_what_is_no_table_is_refused(tmp_path):
    for nothing, message in (([], "has no row"), ({}, "has no row"), (3, "is not a table"), (None, "is not a table")):
        with pytest.raises(InvalidLabelsError, match=message):
            TableDataset(SPACE, nothing, "acc")
    with pytest.raises(InvalidSpaceError):
        TableDataset(None, {"acc": [1, 2]}, "acc")
    with pytest.raises(DataFileError):
        TableDataset(SPACE, tmp_path / "none.csv", "acc")
    space = NASBench201Space()
    with pytest.raises(InvalidArchitectureError, match="row 1:"):
        TableDataset(space, {"arch": [1, len(space)], "acc": [1, 2]}, "acc")


def test_defaults_of_pytorch_change_nothing():
    def everything():
        dataset = table()
        return dataset[3].y.tolist(), dataset[3].row.tolist(), [side.tolist() for side in dataset.split(5, 3)]

    wanted = everything()
    with torch.device("meta"):
        assert everything() == wanted


def test_exports_of_other_tools_are_tables_too(tmp_path):
    trials = {
        "params_depth": [1, 2, 4, None],
        "params_act": ["relu", "gelu", "relu", None],
        "value": [0.1, 0.2, 0.3, None],
        "state": ["COMPLETE", "COMPLETE", "PRUNED", "RUNNING"],
    }
    dataset = TableDataset(SPACE, trials)
    assert dataset.rows.tolist() == [0, 1, 2]
    assert dataset.metric == "value"
    assert dataset.maximize
    assert dataset.label_mask.tolist() == [True, True, False]
    assert dataset.archs[2] == {"depth": 4, "act": "relu"}
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize")
    study.optimize(lambda trial: trial.suggest_int("depth", 1, 10**6), n_trials=3)
    assert not TableDataset(None, study).maximize
    assert TableDataset(None, study, maximize=True).maximize


def test_items_have_the_descriptors_that_predictors_see():
    dataset = table()
    assert torch.equal(dataset._data.x, shared_features(SPACE).table(dataset.archs))
    own = table(features=lambda archs: torch.tensor([[float(arch["depth"])] for arch in archs]))
    assert own[3].x.tolist() == [[rows()[3]["depth"]]]
