"""Labels of several fidelities in one file."""

from __future__ import annotations

import math

import pytest

from pyg_nas_np.cli.search_budget_labels import (
    Label,
    architectures_of,
    labels_of,
    new_labels,
    parse_fidelity,
    read_table,
    records_of,
)
from pyg_nas_np.spaces import ParameterSpace
from pyg_nas_np.utils import DataFileError, InvalidFidelityError, InvalidLabelsError

SPACE = ParameterSpace(depth=[1, 2, 3], act=["relu", "gelu"])
EPOCHS = parse_fidelity("epochs=4,12", None, False)


def table(tmp_path, *lines, header="depth,act,epochs,label"):
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return read_table(path)


@pytest.mark.parametrize(
    ("text", "prices", "said"),
    [
        ("epochs", None, "as epochs=4,12,200"),
        ("epochs=", None, "must be numbers"),
        ("epochs=4,x", None, "'4,x'"),
        ("epochs=12,4", None, "must increase"),
        ("=4,12", None, "needs a name"),
        ("epochs=4,12", "1", "one price a level"),
        ("epochs=4,12", "-1,2", "must be positive"),
        ("epochs=4,12", "2,1", "must not fall"),
        ("epochs=4,nan", None, "must be positive"),
    ],
)
def test_wrong_fidelities(text, prices, said):
    with pytest.raises(InvalidFidelityError, match=said):
        parse_fidelity(text, prices, False)


def test_prices_in_any_unit():
    assert parse_fidelity("epochs=4,12", "30, 60", True).prices == (0.5, 1.0)


def test_labels_missing_and_diverged(tmp_path):
    found = labels_of(
        SPACE, table(tmp_path, "1,relu,4,0.5", "2,gelu,4,", "3,relu,4,nan", "3,gelu,12,inf"), EPOCHS, "label"
    )
    assert [(label.arch["depth"], label.level) for label in found] == [(1, 4.0), (3, 4.0), (3, 12.0)]
    assert found[0].value == 0.5
    assert all(math.isnan(label.value) for label in found[1:])


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("1,relu,40,0.5", InvalidLabelsError, "line 3.*none of the levels 4, 12"),
        ("1,relu,,0.5", DataFileError, "line 3, column 'epochs'"),
        ("1,relu,4,good", DataFileError, "line 3, column 'label'"),
        ("9,relu,4,0.5", DataFileError, "line 3.*depth"),
    ],
)
def test_wrong_rows(tmp_path, line, error, said):
    with pytest.raises(error, match=said):
        labels_of(SPACE, table(tmp_path, "1,relu,4,0.5", line), EPOCHS, "label")


def test_missing_columns(tmp_path):
    with pytest.raises(DataFileError, match="no column 'epochs'"):
        labels_of(SPACE, table(tmp_path, "1,relu,0.5", header="depth,act,label"), EPOCHS, "label")


def test_parquet_is_refused(tmp_path):
    (tmp_path / "labels.parquet").write_bytes(b"PAR1" + bytes(20) + b"PAR1")
    with pytest.raises(DataFileError, match="Parquet"):
        read_table(tmp_path / "labels.parquet")


def test_columns_of_proposals_are_no_parameters(tmp_path):
    found = table(tmp_path, "1,relu,7,0,0.3,4,0.5", header="depth,act,trial,start,price,epochs,label")
    assert records_of(found, ["epochs", "label"]) == [{"depth": 1, "act": "relu"}]
    assert architectures_of(SPACE, found) == [SPACE.check({"depth": 1, "act": "relu"})]


def test_each_label_is_told_once():
    read = [Label("a", 4.0, 0.5), Label("a", 4.0, math.nan), Label("a", 4.0, math.nan), Label("a", 12.0, 0.5)]
    assert len(new_labels([], read)) == 3
    assert new_labels(read, read) == []
