"""Tables as users have them: plain columns, candidates, what is said of them, and tables that are refused."""

from __future__ import annotations

import gzip
import math

import pytest
import torch

from pyg_nas_np.datasets import read_measurements, read_pool
from pyg_nas_np.spaces import ParameterSpace
from pyg_nas_np.utils import DataFileError, InvalidLabelsError, InvalidSpaceError

CSV = "depth,act,acc,host\n2,relu,0.8,a\n4,gelu,,b\n6,relu,0.9,c\n"
RECORDS = [{"depth": 2, "act": "relu"}, {"depth": 4, "act": "gelu"}, {"depth": 6, "act": "relu"}]
ROWS = [{"depth": d, "act": a, "acc": 0.1 * d} for d in (2, 4, 6) for a in ("relu", "gelu")]


def notes_of(rows, target="acc", **options):
    return read_measurements(rows, target, **options).notes[1:]


def test_plain_columns_in_every_form(tmp_path):
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    (tmp_path / "own.csv").write_text(CSV)
    (tmp_path / "own.tsv").write_text(CSV.replace(",", "\t"))
    (tmp_path / "own.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    frame = pandas.read_csv(tmp_path / "own.csv")
    frame.to_parquet(tmp_path / "own.parquet")
    frame.set_index("host", drop=False).rename_axis(None).to_parquet(tmp_path / "indexed.parquet")
    rows = frame.to_dict("records")
    files = [tmp_path / name for name in ("own.csv", "own.tsv", "own.csv.gz", "own.parquet", "indexed.parquet")]
    for source in (*files, frame, rows, frame.to_dict("list"), pyarrow.Table.from_pandas(frame)):
        found = read_measurements(source, "acc", ignore=["host"])
        assert found.records == RECORDS
        assert found.labelled.tolist() == [True, False, True]
        assert found.labels[found.labelled].tolist() == [0.8, 0.9]
        assert found.labels.dtype == torch.float64
        assert (found.columns, found.rows) == ({"host": ["a", "b", "c"]}, [0, 1, 2])
        assert (found.target, found.maximize, found.noise) == ("acc", None, None)
        assert found.notes == ["plain columns: 2 parameters (depth, act), label 'acc'", "1 of 3 rows without a label"]
        assert len(found) == 3
    assert read_measurements(frame, "acc", minimize=True).maximize is False


def test_rows_without_a_label_are_candidates():
    rows = [*ROWS, {"depth": 8, "act": "gelu", "acc": None, "host": "h"}, {"depth": 2, "act": "relu"}]
    found = read_measurements(rows, "acc", ignore=["host"]).unlabelled
    assert found.records == [{"depth": 8, "act": "gelu"}, {"depth": 2, "act": "relu"}]
    assert found.measured.tolist() == [False, True]
    assert (found.rows, found.columns) == ([6, 7], {"host": ["h", None]})


@pytest.mark.parametrize("cell", ["", "n/a", "NaN", "NA", "None", "null", "-", "?"])
def test_how_files_write_that_there_is_no_label(tmp_path, cell):
    (tmp_path / "own.csv").write_text(CSV.replace("gelu,", f"gelu,{cell}"))
    assert read_measurements(tmp_path / "own.csv", "acc").labelled.tolist() == [True, False, True]
    assert read_measurements([{"a": i, "y": y} for i, y in enumerate((1, cell, 2))], "y").labelled.sum() == 2


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("high", r"own.csv, line 3, column 'acc': 'high' is not a finite number; leave the cell empty"),
        ("92.5%", r"line 3, column 'acc': '92.5%' is not a finite number; write percentages without the sign"),
        ('"0,93"', r"line 3, column 'acc': '0,93' is not a finite number; write decimals with a point"),
        ("inf", r"line 3, column 'acc': inf is not a finite number; leave the cell empty"),
        ("1_0", r"line 3, column 'acc': '1_0' is not a finite number"),
        ("1e999", r"line 3, column 'acc': inf is not a finite number"),
    ],
)
def test_cells_that_are_no_labels(tmp_path, cell, message):
    (tmp_path / "own.csv").write_text(CSV.replace("gelu,", f"gelu,{cell}"))
    with pytest.raises(InvalidLabelsError, match=message):
        read_measurements(tmp_path / "own.csv", "acc")


@pytest.mark.parametrize(
    ("rows", "target", "error", "message"),
    [
        (ROWS, "accc", InvalidLabelsError, "no column 'accc' of labels; did you mean 'acc'"),
        (ROWS, "ACC", InvalidLabelsError, "did you mean 'acc'"),
        (ROWS, "loss", InvalidLabelsError, "no column 'loss' of labels; the columns are depth, act, acc"),
        (ROWS, None, InvalidLabelsError, "several columns that may be labels; name one as target: depth, act, acc"),
        (ROWS, "act", InvalidLabelsError, "row 0, column 'act': 'relu' is not a finite number"),
        ([{"a": 1, "y": True}], "y", InvalidLabelsError, "row 0, column 'y': True is not"),
        ([{"a": 1, "y": 10**400}], "y", InvalidLabelsError, "row 0, column 'y': 1000"),
        ([{"a": 1, "y": [1]}], "y", InvalidLabelsError, "row 0, column 'y': \\[1\\] is not"),
        ([{"a": 1, "y": None}, {"a": 2, "y": math.nan}], "y", InvalidLabelsError, "no row has a label in column 'y'"),
        ([{"a": 1, "y": 3}, {"a": 2, "y": 3}], "y", InvalidLabelsError, "all labels in column 'y' are 3"),
        ([{"a": 1, "y": 3}, {"a": 1.0, "y": 4}], "y", InvalidSpaceError, "no column varies beside 'y'.*are a"),
        ([{"y": 3}, {"y": 4}], "y", InvalidSpaceError, "no column varies"),
        ([], "y", InvalidLabelsError, "the table has no row"),
        ({"a": [1, 2], "y": [1]}, "y", InvalidSpaceError, "differ in length"),
        (7, "y", InvalidLabelsError, "a int is not a table of measurements; give a path"),
    ],
)
def test_tables_that_are_refused(rows, target, error, message):
    with pytest.raises(error, match=message):
        read_measurements(rows, target)


def test_files_that_are_refused(tmp_path):
    (tmp_path / "own.csv").write_text("")
    with pytest.raises(DataFileError, match=r"own.csv is empty"):
        read_measurements(tmp_path / "own.csv", "acc")
    (tmp_path / "own.csv").write_text("a,acc\n")
    with pytest.raises(DataFileError, match="has a header but no rows"):
        read_measurements(tmp_path / "own.csv", "acc")
    with pytest.raises(DataFileError, match=r"none.csv is missing"):
        read_measurements(tmp_path / "none.csv", "acc")
    with pytest.raises(InvalidSpaceError, match="no column 'hots' to ignore; did you mean 'host'"):
        read_measurements([{**row, "host": "h"} for row in ROWS], "acc", ignore=["hots"])


def test_columns_of_two_types_are_said_or_refused(tmp_path):
    (tmp_path / "own.csv").write_text("width,acc\n64,0.1\nauto,0.2\n128,0.3\n")
    found = read_measurements(tmp_path / "own.csv", "acc")
    assert found.notes[1:] == ["column 'width' has numbers and text ('auto'); all its values are taken for categories"]
    with pytest.raises(InvalidSpaceError, match=r"column 'width' mixes number \(64\) and text \('auto'\)"):
        ParameterSpace.from_records(read_measurements({"width": [64, "auto"], "acc": [1, 2]}, "acc").records)


def test_repeats_are_kept_and_told():
    rows = [{"a": 1, "y": 1.0}, {"a": 1.0, "y": 3.0}, {"a": 2, "y": 5.0}, {"a": 3, "y": 1}, {"a": 3, "y": 1}]
    assert len(read_measurements(rows, "y")) == 5
    assert notes_of(rows, "y") == [
        "2 architectures measured more than once, 4 rows, kept; standard deviation of repeats 1"
    ]


@pytest.mark.parametrize(
    ("labels", "suspicious"),
    [
        ([0.91, 0.93, 0.89, 92.0, 94.0], True),
        ([0.91, 93.0, 92.0, 94.0], False),
        ([10.0, 91.0, 93.0, 92.0], False),
        ([0.1, 1.0, 10.0, 100.0], False),
        ([0.001, 0.002, 1.0, 90.0, 300.0], False),
        ([-0.9, 0.9, 92.0, 94.0], False),
    ],
)
def test_labels_in_two_units_are_told(labels, suspicious):
    notes = notes_of([{"a": i, "y": y} for i, y in enumerate(labels)], "y")
    assert any("two units" in note for note in notes) == suspicious
    if suspicious:
        assert notes == [
            "labels seem to have two units: 3 labels up to 0.93, 2 from 92 on; write all of column 'y' in one"
        ]


LIKE = read_measurements(ROWS, "acc")


def test_candidates_are_matched_by_name(tmp_path):
    pool = read_pool({"act": ["relu", "gelu"], "depth": [8, 2.0]}, LIKE)
    assert pool.records == [{"depth": 8, "act": "relu"}, {"depth": 2.0, "act": "gelu"}]
    assert pool.measured.tolist() == [False, True]
    assert pool.notes == ["1 candidate was measured already"]
    (tmp_path / "pool.csv").write_text("host,config/act,config/depth\na,relu,8\n")
    pool = read_pool(tmp_path / "pool.csv", LIKE)
    assert pool.records == [{"depth": 8, "act": "relu"}]
    assert pool.columns == {"host": ["a"]}
    assert pool.notes == ["not used: host"]
    assert read_pool(tmp_path / "pool.csv", LIKE, ignore=["host"]).notes == []
    trials = {"params_depth": [2, 4], "params_act": ["relu", "gelu"], "value": [1, 2]}
    assert read_pool(trials, read_measurements(trials)).measured.tolist() == [True, True]
    plain = read_pool([{"depth": 2, "act": "relu"}], read_measurements(trials))
    assert plain.measured.tolist() == [True]


def test_what_differs_between_two_files_is_told():
    assert read_pool({"depth": [400, 800], "act": ["silu", "silu"]}, LIKE).notes == [
        "'act' is 'silu' in 2 rows, which no label has"
    ]
    assert len(read_pool({"depth": [600, 800], "act": ["silu", "silu"]}, LIKE).notes) == 2
    fractions = read_measurements([{"p": p, "y": p} for p in (0.1, 0.3)], "y")
    assert read_pool({"p": [30.0, 40.0]}, fractions).notes == [
        "'p' goes from 0.1 to 0.3 where there are labels and from 30 to 40 in the candidates; is it in another unit?"
    ]
    assert read_pool({"p": [0.0, 29.0]}, fractions).notes == []
    percent = read_measurements([{"p": p, "y": p} for p in (10, 30)], "y")
    assert "another unit" in read_pool({"p": [0.0, 0.1, None]}, percent).notes[0]
    with pytest.raises(InvalidSpaceError, match="column 'depth' has 2 where there are labels and '2px' in the cand"):
        read_pool({"depth": ["2px"], "act": ["relu"]}, LIKE)


def test_candidates_without_a_parameter_are_refused():
    with pytest.raises(InvalidSpaceError, match="no column 'depth' of that parameter; did you mean 'deph'"):
        read_pool({"deph": [1], "act": ["relu"]}, LIKE)
    with pytest.raises(InvalidSpaceError, match="no column 'x' to ignore"):
        read_pool({"depth": [1], "act": ["relu"]}, LIKE, ignore=["x"])
    # A name of rows and a constant are no parameters.
    rows = [{**row, "id": f"run {i}", "data": "cifar10"} for i, row in enumerate(ROWS + ROWS)]
    pool = read_pool([{"depth": 2, "act": "relu"}], read_measurements(rows, "acc"))
    assert pool.records == [{"depth": 2, "act": "relu"}]
    assert pool.measured.tolist() == [True]


def test_defaults_of_pytorch_change_nothing(foreign_defaults):
    rows = [*ROWS, {"depth": 8, "act": "gelu", "acc": None}]
    with foreign_defaults():
        found = read_measurements(rows, "acc")
        pool = read_pool(rows, found)
        measured = found.unlabelled.measured
    assert (found.labels.dtype, found.labels.device.type) == (torch.float64, "cpu")
    assert (pool.measured.tolist(), measured.tolist()) == ([True] * 6 + [False], [False])
