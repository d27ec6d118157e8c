from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_nas_np.datasets import tfrecord
from pyg_nas_np.datasets._nasbench101_records import ForeignCellError, read_measurements
from pyg_nas_np.datasets.tfrecord import frame
from pyg_nas_np.spaces.nasbench101 import NASBench101Arch, NASBench101Space
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError
from tests.datasets.conftest import encode_record

space = NASBench101Space()


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(values: np.ndarray, budget: int, parameters: int, extra: bytes = b"", count: int = 3) -> bytes:
    parts = []
    for row, epoch in zip(values[:count], (0.0, budget / 2, budget), strict=False):
        body = b"".join(struct.pack("<Bd", 8 * n + 1, v) for n, v in enumerate((epoch, *row), start=1)) + extra
        parts.append(b"\x0a" + varint(len(body)) + body)
    return b"".join(parts) + b"\x10" + varint(parameters) + struct.pack("<Bd", 0x19, 99.0)


def measurements(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    seconds, accuracies = rng.uniform(1, 4000, (3, 1)), rng.integers(0, 9985, (3, 3)) / 9984
    return np.concatenate([seconds, accuracies], axis=1).astype(np.float32).astype(float)


def record(index: int, budget: int = 108, seed: int = 0, **kwargs: object) -> bytes:
    arch = kwargs.pop("arch", space[index])
    body = message(measurements(seed), budget, space.num_parameters(arch), **kwargs)  # type: ignore[arg-type]
    return encode_record(space.canonical(space[index]), budget, arch.matrix, list(arch.ops), body)  # type: ignore[attr-defined]


def items(index: int = 0) -> list[object]:
    arch = space[index]
    body = base64.b64encode(message(measurements(0), 108, 1)).decode()
    adjacency = "".join(map(str, arch.matrix.reshape(-1).tolist()))
    return [space.canonical(arch), 108, adjacency, ",".join(arch.ops), body]


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(*records: bytes) -> Path:
        path = tmp_path / "nasbench.tfrecord"
        path.write_bytes(b"".join(records))
        return path

    return _write


def test_measurements_are_read_exactly(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small blocks, so that cells and their repeats fall into different batches.
    monkeypatch.setattr(tfrecord, "_BLOCK", 4096)
    chosen = torch.randperm(len(space), generator=torch.Generator().manual_seed(0))[:60].tolist()
    chosen += [6992, 16569, 138614, 423623]
    runs = [(i, budget, repeat) for i in chosen for budget in (4, 12, 36, 108) for repeat in range(3)]
    path = write(*(record(i, budget, seed=i * 1000 + budget * 4 + repeat) for i, budget, repeat in runs))
    tables = read_measurements(path, space)
    assert list(tables) == [4, 12, 36, 108]
    for i, budget, repeat in runs:
        expected = measurements(i * 1000 + budget * 4 + repeat)[1:]
        assert np.array_equal(tables[budget][i, repeat], expected.astype(np.float32))
    assert all(int((~np.isnan(table)).sum()) == 64 * 3 * 2 * 4 for table in tables.values())


def test_repeats_are_numbered_by_appearance_and_missing_ones_stay_empty(write: Write) -> None:
    path = write(record(5, seed=1), record(9, seed=2), record(5, seed=3))
    table = read_measurements(path, space)[108]
    assert np.array_equal(table[5, :2], np.stack([measurements(1)[1:], measurements(3)[1:]]).astype(np.float32))
    assert np.isnan(table[5, 2]).all()
    assert np.isnan(table[9, 1:]).all()
    assert int((~np.isnan(table[:, 0, 1, 0])).sum()) == 2


@pytest.mark.parametrize(
    "respell",
    [
        lambda row: json.dumps(row, indent=1),
        lambda row: json.dumps(row, separators=(",", ":")),
        lambda row: json.dumps([*row[:4], base64.encodebytes(base64.b64decode(row[4])).decode()]),
        lambda row: "".join(f"\\u{ord(c):04x}" if c == "o" else c for c in json.dumps(row)),
    ],
)
def test_other_spellings_of_the_same_record(write: Write, respell: Callable[[list[object]], str]) -> None:
    path = write(record(3, seed=4), frame(respell(items()).encode()), record(7, seed=5))
    table = read_measurements(path, space)[108]
    assert np.array_equal(table[0, 0], measurements(0)[1:].astype(np.float32))
    assert np.array_equal(table[3, 0], measurements(4)[1:].astype(np.float32))
    assert np.array_equal(table[7, 0], measurements(5)[1:].astype(np.float32))


def test_unknown_fields_and_checkpoint_paths_are_skipped(write: Write) -> None:
    path_field = b"\x32\x05model"
    unknown = b"\x38\x96\x01" + b"\x45abcd" + b"\x52\x02\x19\x21"
    path = write(
        record(0, seed=1),
        record(0, seed=2, extra=path_field),
        record(1, seed=3, extra=unknown),
        record(1, seed=4, extra=unknown + path_field),
    )
    table = read_measurements(path, space)[108]
    for (i, repeat), seed in zip([(0, 0), (0, 1), (1, 0), (1, 1)], (1, 2, 3, 4), strict=True):
        assert np.array_equal(table[i, repeat], measurements(seed)[1:].astype(np.float32))


def test_cells_in_another_vertex_order_are_accepted(write: Write) -> None:
    readme = NASBench101Arch("111010000010001100011", "1333p")
    index = space.index(readme)
    assert space[index] != readme
    table = read_measurements(write(record(index, seed=6, arch=readme)), space)[108]
    assert np.array_equal(table[index, 0], measurements(6)[1:].astype(np.float32))


def test_other_parameter_counts_are_reported(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    read_measurements(write(frame(json.dumps(items()).encode())), space)
    assert "1 records state another number of parameters" in caplog.text


def change(position: int, value: object) -> bytes:
    row = items()
    row[position] = value
    return frame(json.dumps(row).encode())


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (frame(b"not json"), "is not JSON"),
        (frame(b"\xff\xfe"), "is not JSON"),
        (frame(b""), "is not JSON"),
        (frame(b"[" * 100_000), "is not JSON"),
        (frame(b'["one", "two"]'), r"must be an array \[hash"),
        (frame(b'{"a": 1}'), r"must be an array \[hash"),
        (change(1, "108"), r"must be an array \[hash"),
        (change(1, 108.0), r"must be an array \[hash"),
        (change(1, True), r"must be an array \[hash"),
        (change(1, 107), "states 107 epochs"),
        (change(1, -4), "states -4 epochs"),
        (change(1, 10**9), "states 1000000000 epochs"),
        (change(2, "01x0"), "has the adjacency '01x0'"),
        (change(2, "010"), "has the adjacency '010'"),
        (change(3, "input,conv5x5,output"), "unknown operation 'conv5x5'"),
        (change(3, "input,output"), "has 7 vertices and 2 operations"),
        (change(3, ",".join(["input"] * 9)), "has 7 vertices and 9 operations"),
        (change(4, "abc"), "not base64"),
        (change(4, "ab=c"), "not base64"),
        (change(4, "äbcd"), "not base64"),
        (change(4, ""), "not base64"),
        (change(4, base64.b64encode(b"\x0a\x7f").decode()), "past the end"),
        (change(4, base64.b64encode(message(measurements(0), 108, 1, count=2)).decode()), "2 evaluations, expected 3"),
        (change(4, base64.b64encode(b"\x0a\x00" * 3 + b"\x10\x01").decode()), "lacks its time"),
        (change(0, "f" * 31), "outside the space"),
    ],
)
def test_bad_records_are_named(write: Write, bad: bytes, problem: str) -> None:
    good = record(0)
    with pytest.raises(DataFileError, match=problem) as caught:
        read_measurements(write(good, good, bad), space)
    assert f"record 2 at byte {2 * len(good)}" in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (change(0, "f" * 32), f"no cell has the hash {'f' * 32}"),
        (change(0, "F" * 32), f"no cell has the hash {'F' * 32}"),
        (change(0, "00005C142E6F48AC74FDCF73E3439874"), "no cell has the hash 00005C"),
        (change(0, "043721b9c7fe8c5fad811d47d83132ec"), "which its cell does not have"),
        (change(2, "0" * 49), "which its cell does not have"),
        (change(2, "1" * 49), "which its cell does not have"),
    ],
)
def test_foreign_cells_are_named(write: Write, bad: bytes, problem: str) -> None:
    good = record(3)
    with pytest.raises(ForeignCellError, match=problem) as caught:
        read_measurements(write(good, bad), space)
    assert isinstance(caught.value, InvalidArchitectureError)
    assert f"record 1 at byte {len(good)}" in str(caught.value)


def test_a_fourth_repeat_is_an_error(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    good = record(0)
    for block in (1 << 20, 600):
        monkeypatch.setattr(tfrecord, "_BLOCK", block)
        with pytest.raises(DataFileError, match=f"record 3 at byte {3 * len(good)} is repeat 4"):
            read_measurements(write(*[good] * 4), space)
