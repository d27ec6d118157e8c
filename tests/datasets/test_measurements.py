"""Tables as users have them: plain ones, exports of other tools, and tables that are refused."""

from __future__ import annotations

import pytest

from pyg_nas_np.datasets import read_measurements, read_pool
from pyg_nas_np.utils import InvalidLabelsError, InvalidSpaceError


def test_plain_columns(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("depth,act,acc,host\n2,relu,0.8,a\n4,gelu,,b\n6,relu,0.9,c\n")
    found = read_measurements(path, "acc", ignore=["host"])
    assert found.records == [{"depth": 2, "act": "relu"}, {"depth": 4, "act": "gelu"}, {"depth": 6, "act": "relu"}]
    assert found.labelled.tolist() == [True, False, True]
    assert found.columns == {"host": ["a", "b", "c"]}
    pool = read_pool([{"act": "relu", "depth": 2}, {"act": "gelu", "depth": 8}], found)
    assert pool.records == [{"depth": 2, "act": "relu"}, {"depth": 8, "act": "gelu"}]
    assert pool.measured.tolist() == [True, False]


def test_columns_that_are_not_there(tmp_path):
    rows = [{"depth": 2, "acc": 0.8}]
    with pytest.raises(InvalidLabelsError, match="did you mean 'acc'"):
        read_measurements(rows, "accc")
    with pytest.raises(InvalidLabelsError, match="Name one as target: depth, acc"):
        read_measurements(rows)
    with pytest.raises(InvalidSpaceError, match="no column 'x' to ignore; the columns are depth, acc"):
        read_measurements(rows, "acc", ignore=["x"])
