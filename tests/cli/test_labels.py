"""The user's own measurements."""

from __future__ import annotations

import pytest

from pyg_nas_np.cli.labels import read_own_labels
from pyg_nas_np.utils import DataFileError, InvalidLabelsError


@pytest.fixture
def read(toy_space, tmp_path):
    def read(text):
        path = tmp_path / "labels.csv"
        path.write_text(text)
        return read_own_labels(toy_space, path)

    return read


def test_official_indices_and_labels_in_the_order_of_the_file(read):
    index, y = read("note,Arch,Label\nx,conv pool 5,93.5\ny,conv conv 0,-1\n")
    assert index.tolist() == [13, 0]
    assert y.tolist() == [93.5, -1.0]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("arch,y\nconv pool 5,1\n", DataFileError, "no column 'label'"),
        ("arch,label\n", DataFileError, "has a header but no rows"),
        ("arch,label\nconv pool 5,1\nconv pool 9,2\n", DataFileError, "labels.csv, line 3: 'conv pool 9' is not"),
        ("arch,label\nconv pool 5,good\n", InvalidLabelsError, "labels.csv, line 2, column 'label': 'good'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(read, text, error, message):
    with pytest.raises(error, match=message):
        read(text)
