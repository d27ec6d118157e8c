from __future__ import annotations

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.cli.labels import read_own_labels
from pyg_nas_np.cli.score import _read_column
from pyg_nas_np.cli.tables import _cell, plain_text, write_csv
from pyg_nas_np.utils.table_files import read_csv

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''@x", "-", "=", "-1e", "- 5"]
PLAIN = ["a", "", "a=b", "'tis", "|none~0|", "-5", "+3.5", "-1e-3", "-.5", "-inf", "3-4"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_not_run(text):
    written = _cell(text)
    assert written == f"'{text}"
    assert plain_text(written) == text


@pytest.mark.parametrize("value", [*PLAIN, -5, -1.5, float("-inf"), True, None])
def test_numbers_and_other_text_stay_as_they_are(value):
    assert _cell(value) == value
    assert not isinstance(value, str) or plain_text(value) == value


@given(st.text())
def test_reading_undoes_writing(text):
    assert plain_text(_cell(text)) == text


def test_files_are_read_back(tmp_path, toy_space, monkeypatch):
    path = tmp_path / "new" / "=x.csv"
    write_csv(path, ["arch", "=label"], [["=1+1", -1.5], ["+x, y", 2]])
    with open(path, newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["arch", "'=label"], ["'=1+1", "-1.5"], ["'+x, y", "2"]]
    assert [plain_text(cell) for cell in read_csv(path).column("arch")] == ["=1+1", "+x, y"]

    class Signed(type(toy_space)):
        def to_str(self, arch):
            return "-" + super().to_str(arch)

        def from_str(self, text):
            assert text[0] == "-"
            return super().from_str(text[1:])

    space = Signed()
    write_csv(path, ["arch", "label"], [[space.to_str(space[5]), 1e9 + 0.25]])
    index, y = read_own_labels(space, path)
    assert (index.tolist(), y.tolist()) == ([5], [1e9 + 0.25])
    assert _read_column(space, path) == [space[5]]
