from __future__ import annotations

import gzip
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.datasets import Metric
from pyg_nas_np.datasets.compact import find_compact, read_compact, write_compact
from pyg_nas_np.utils import DataFileError

NAMES = ["a", "b", "c", "d"]
HEADER = "arch,acc@9/1/9\n"


def read(path):
    return read_compact(path, lambda names: [NAMES.index(n) for n in names], 4, lambda name: ("percent", "x-valid"))


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_round_trip(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    values = torch.rand(4, 2, 3)
    values[1] = math.nan
    values[2, 1, 0] = math.nan
    metric = Metric.from_values(values, ("777", "888"), (1, 2, 9), "percent", "x-valid")
    path = tmp_path / f"table{suffix}"
    write_compact(path, NAMES, {"acc@9": metric})
    again = read(path)["acc@9"]
    assert torch.equal(again.values.nan_to_num(-1), metric.values.nan_to_num(-1))
    assert (again.seeds, again.epochs, again.unit, again.split) == (metric.seeds, metric.epochs, "percent", "x-valid")
    assert find_compact(tmp_path, "table") == path
    assert find_compact(tmp_path, "other") is None
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_every_float32_survives_csv(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("compact") / "t.csv"
    metric = Metric.from_values(torch.full((4, 1, 1), value), ("1",), (9,), "percent")
    write_compact(path, NAMES, {"acc@9": metric})
    assert torch.equal(read(path)["acc@9"].values, metric.values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("hash,acc@9/1/9\na,1\n", "first line"),
        ("arch\na\n", "first line"),
        ("arch,acc@9\na,1\n", "metric/seed/epoch"),
        ("arch,acc@9/1/x\na,1\n", "metric/seed/epoch"),
        (HEADER, "no rows"),
        (HEADER + "a,1\nb\n", "line 3: 1 cells"),
        (HEADER + "a,1\nb,high\n", "line 3, column 'acc@9/1/9': 'high'"),
        (HEADER + "a,1\nb,2\na,3\n", "architecture a has more than one row"),
        (HEADER + "a,inf\n", "infinite"),
    ],
)
def test_malformed_tables_name_the_place(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataFileError, match=message):
        read(path)


def test_truncated_files(tmp_path):
    path = tmp_path / "bad.csv.gz"
    path.write_bytes(gzip.compress((HEADER + "a,1\n" * 500).encode())[:-20])
    with pytest.raises(DataFileError, match="corrupt or not"):
        read(path)
    path = tmp_path / "bad.parquet"
    pytest.importorskip("pyarrow")
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(DataFileError, match="corrupt or not"):
        read(path)


def test_unknown_suffix_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"\.parquet"):
        write_compact(tmp_path / "t.xlsx", NAMES, {})
    assert not list(tmp_path.iterdir())
