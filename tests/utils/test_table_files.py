from __future__ import annotations

import contextlib
import gzip
import os

import pytest

from pyg_nas_np.utils import DataFileError
from pyg_nas_np.utils.table_files import read_csv, read_header, read_parquet

PLAIN = "arch,label\na,1.5\nb,2\n"
ROWS = [["a", "1.5"], ["b", "2"]]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(PLAIN.encode(), id="plain"),
        pytest.param(PLAIN.encode("utf-8-sig"), id="byte order mark"),
        pytest.param(PLAIN.encode("utf-16"), id="UTF-16"),
        pytest.param(b"\xfe\xff" + PLAIN.encode("utf-16-be"), id="UTF-16, big-endian"),
        pytest.param(PLAIN.replace(",", ";").encode(), id="semicolons"),
        pytest.param(PLAIN.replace(",", "\t").encode(), id="tabs"),
        pytest.param(PLAIN.replace(",", ", ").encode(), id="spaces after commas"),
        pytest.param(PLAIN.replace(",", " , ").encode(), id="spaces around commas"),
        pytest.param(PLAIN.replace("arch,label", "Arch,LABEL").encode(), id="capital headers"),
        pytest.param(PLAIN.replace("\n", "\r\n").encode(), id="Windows"),
        pytest.param(PLAIN.replace("\n", "\r").encode(), id="old Macintosh"),
        pytest.param(PLAIN.replace("\n", "\n\n").encode() + b"\n\n", id="blank lines"),
        pytest.param(PLAIN.replace("a,1.5", '"a","1.5"').encode(), id="quotes"),
        pytest.param(gzip.compress(PLAIN.encode()), id="gzip"),
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    table = read_csv(path, ["arch", "label"])
    assert (table.header, table.rows) == (["arch", "label"], ROWS)
    assert read_header(path, ["arch", "label"]) == ["arch", "label"]
    assert [table.number(i, table.place("label")) for i in range(2)] == [1.5, 2.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"arch,label\n", "has a header but no rows"),
        (b"arch,label,label\na,1,2\n", r"column 'label' occurs twice \(columns 2 and 3\); leave one out"),
        (b"arch,label,LABEL\na,1,2\n", "column 'label' occurs twice"),
        (b"arch,label\na,1\nb\n", "line 3: 1 cells, the header has 2"),
        (b"arch,label\na,1,2\n", "line 2: 3 cells, the header has 2"),
        (b'arch,label\n"a\nb",1\nc\n', "line 4: 1 cells"),
        (b"arch,label\na,1\nb\xff,2\n", r"line 3: the text is not UTF-8 .*; save it as UTF-8"),
        (PLAIN.encode("utf-16-le"), "UTF-16 without a byte order mark; save it as UTF-8"),
        (
            b"arch,label\n" + b"a" * 140_000 + b",1\n",
            "line 2: a field has more than 131072 characters.*field_size_limit",
        ),
        (gzip.compress(PLAIN.encode(), mtime=0)[:-9], "corrupt or not a CSV file"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + b"\xff" * 40, "corrupt or not a CSV file"),
    ],
)
def test_what_is_refused_names_file_and_reason(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=rf"(?s)t\.csv.*{message}"):
        read_csv(path, ["arch", "label"])


@pytest.mark.parametrize(
    ("cell", "hint"), [("x", "$"), ("1_0", "$"), ('"91,5"', "write decimals with a point"), ("", "")]
)
def test_a_cell_that_is_no_number(tmp_path, cell, hint):
    path = tmp_path / "t.csv"
    path.write_text(f"arch,label\n\na,{cell}\n")
    table = read_csv(path)
    with pytest.raises(DataFileError, match=rf"t\.csv, line 3, column 'label': .* is not a number.*{hint}"):
        table.number(0, 1)
    with pytest.raises(DataFileError, match="no column 'cost'; its columns are: arch, label"):
        table.require(["arch", "cost"])


def test_a_bomb_is_stopped_by_an_adjustable_limit(tmp_path, monkeypatch):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"arch,label\n" + b"a,1\n" * 100_000))
    assert len(read_csv(path).rows) == 100_000
    monkeypatch.setenv("PYG_NAS_NP_MAX_BYTES", "50000")
    with pytest.raises(DataFileError, match=r"unpacks to .* the limit is 50000; .*PYG_NAS_NP_MAX_BYTES"):
        read_csv(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for reader in (read_csv, read_header):
        with pytest.raises(DataFileError, match="not a regular file"):
            reader(tmp_path / "pipe.csv")


@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_an_error_of_one_kind(tmp_path, mutations, packed):
    path = tmp_path / "t.csv"
    content = b"".join([b"arch,label\n", *(b"cell%d,%d.5\n" % (i, i) for i in range(40))])
    for damaged in mutations(gzip.compress(content, mtime=0) if packed else content):
        path.write_bytes(damaged)
        with contextlib.suppress(DataFileError):
            table = read_csv(path, ["arch", "label"])
            table.require(["arch", "label"])
            for row in range(len(table.rows)):
                table.number(row, table.place("label"))


def test_parquet(tmp_path, mutations):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    parquet.write_table(arrow.table({"arch": ["a", "b"], "label": [1.5, None]}), path)
    assert read_parquet(path).column_names == ["arch", "label"]
    content = path.read_bytes()
    for damaged in mutations(content):
        path.write_bytes(damaged)
        with contextlib.suppress(DataFileError):
            read_parquet(path)
    parquet.write_table(arrow.table([[1], [2]], names=["a", "a"]), path)
    with pytest.raises(DataFileError, match="column 'a' occurs twice"):
        read_parquet(path)
