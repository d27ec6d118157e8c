from __future__ import annotations

import csv
import gzip
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pyg_nas_np.datasets.nasbench101 import NASBench101
from pyg_nas_np.spaces.nasbench101 import NASBench101Space
from pyg_nas_np.utils import DataFileError

SCRIPT = Path(__file__).parents[2] / "datasets" / "convert_nasbench101.py"
HEADER = "module_hash,n_vertices,adj_upper_rowmajor,interior_ops"
CELL = "09fc2d10bdd6225e167a6f81a22a3f06,3,111,1"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("convert_nasbench101", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_best_of_three_table_becomes_a_data_set(tmp_path: Path, script: ModuleType, shared_data: Path) -> None:
    source = shared_data / "nasbench101" / "nb101_20001.csv.gz"
    script.main([source, source.with_name("naslib_zen.csv")], tmp_path / "raw" / "nasbench101.csv.gz")
    dataset = NASBench101(str(tmp_path))
    assert dataset.source.name == "compact-table"
    assert dataset.metric == "valid_accuracy_best_of_3@108"
    labelled = dataset.arch_index[dataset.label_mask]
    assert labelled.tolist() == list(range(20_001))
    y = dataset.y[dataset.label_mask]
    assert y.mean().item() == pytest.approx(0.9104, abs=5e-5)
    assert (y.min().item(), y.max().item()) == (pytest.approx(0.0951, abs=5e-5), pytest.approx(0.9491, abs=5e-5))
    assert (y < 0.5).double().mean().item() == pytest.approx(0.0013, abs=5e-5)
    with gzip.open(source, "rt") as file:
        exact = [float(row["val_acc_108"]) for row in csv.DictReader(file)]
    assert torch.equal(y, torch.tensor(exact))
    assert int(dataset.metrics["zen_score"].mask.sum()) == 10_249
    from scipy.stats import spearmanr

    for name, rho in (("valid_accuracy@4", 0.456), ("valid_accuracy@12", 0.620), ("valid_accuracy@36", 0.879)):
        other = dataset.metrics[name].mean()[labelled]
        assert spearmanr(other, y).statistic == pytest.approx(rho, abs=6e-4)
    parameters = dataset.space.batch_num_parameters()[labelled]
    assert spearmanr(parameters, y).statistic == pytest.approx(0.446, abs=6e-4)
    dataset.verify()


def test_means_and_retrainings_stay_apart(tmp_path: Path, script: ModuleType, shared_data: Path) -> None:
    space = NASBench101Space()
    folder = shared_data / "nasbench101"
    means = script.convert(folder / "nb101_orig_mean3_4v91.csv", space)
    again = script.convert(folder / "ecnas_4v91_retrained_3x4budgets.csv", space)
    larger = script.convert(folder / "ecnas_5v700_108epochs_3repeats.csv", space)
    assert sorted(means) == sorted(f"{s}_accuracy@{b}" for s in ("train", "valid", "test") for b in (4, 12, 36, 108))
    assert all(name.startswith("retrained_") for name in [*again, *larger])
    assert int(means["test_accuracy@108"].mask.sum()) == 91
    assert int(again["retrained_test_accuracy@4"].mask.sum()) == 3 * 91
    assert int(larger["retrained_energy@108"].mask.sum()) == 3 * 700
    assert again["retrained_test_accuracy@108"].seeds == ("1", "2", "3")
    with pytest.raises(DataFileError, match=r"gives retrained_energy@108.*separately"):
        script.main(
            [folder / "ecnas_4v91_retrained_3x4budgets.csv", folder / "ecnas_5v700_108epochs_3repeats.csv"],
            tmp_path / "x.csv",
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a,b\n1,2\n", "none of the known tables"),
        (f"{HEADER},zen\n{CELL.replace('09', '00', 1)},1.0\n", "line 2: the cell 3:111:1 has the hash 09fc"),
        (f"{HEADER},zen\n{CELL.replace(',1', ',x')},1.0\n", "not a valid"),
        (f"{HEADER},zen\n{CELL},high\n", "line 2, column zen"),
        (f"{HEADER},zen\n{CELL},1.0\n{CELL},2.0\n", "two values of zen_score"),
        (f"{HEADER},zen,trainable_parameters\n{CELL},1.0,5\n", "line 2: the cell 3:111:1 has 2793866 parameters"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, script: ModuleType, text: str, problem: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(DataFileError, match=problem):
        script.convert(path, NASBench101Space())
