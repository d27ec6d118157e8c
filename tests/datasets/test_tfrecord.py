from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.datasets import tfrecord
from pyg_nas_np.datasets.tfrecord import crc32c, frame, masked, protobuf_fields, read_records
from pyg_nas_np.utils import DataFileError


def row(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)[None]


def bitwise_crc(data: bytes) -> int:
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def test_golden_checksums() -> None:
    assert crc32c(row(b"123456789"))[0] == 0xE3069283
    assert masked(crc32c(row(b"123456789")))[0] == 0xC78AB0E5
    assert masked(crc32c(row(struct.pack("<Q", 413))))[0] == 0x9687E765


@given(st.integers(0, 40), st.integers(1, 5), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_checksums_of_many_rows(length: int, count: int, random: object) -> None:
    rows = [random.randbytes(length) for _ in range(count)]  # type: ignore[attr-defined]
    array = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(count, length)
    assert crc32c(array).tolist() == [bitwise_crc(data) for data in rows]


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=30), st.sampled_from([1, 7, 64, 1 << 20]))
@settings(max_examples=40, deadline=None)
def test_records_survive_any_block_size(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], block: int
) -> None:
    path = tmp_path_factory.mktemp("records") / "x.tfrecord"
    path.write_bytes(b"".join(map(frame, payloads)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfrecord, "_BLOCK", block)
        batches = list(read_records(path))
    assert [batch.payload(i) for batch in batches for i in range(len(batch.start))] == payloads
    assert [batch.first for batch in batches] == np.cumsum([0, *(len(b.start) for b in batches)]).tolist()[:-1]


@pytest.mark.parametrize("block", [64, 1 << 20])
def test_every_damaged_bit_is_found(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord, "_BLOCK", block)
    content = b"".join(frame(bytes([65 + i]) * 9) for i in range(3))
    path = tmp_path / "x.tfrecord"
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        record = position // 25
        with pytest.raises(DataFileError, match=f"record {record} at byte {25 * record}"):
            list(read_records(path))


@pytest.mark.parametrize("block", [10, 1 << 20])
def test_every_truncation_is_found(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord, "_BLOCK", block)
    content = frame(b"first") + frame(b"second")
    path = tmp_path / "x.tfrecord"
    for stop in range(len(content)):
        path.write_bytes(content[:stop])
        if stop == 21:  # exactly one record
            assert sum(len(batch.start) for batch in read_records(path)) == 1
            continue
        with pytest.raises(
            DataFileError, match="empty" if stop == 0 else f"truncated: record {int(stop > 21)} at byte"
        ):
            list(read_records(path))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tfrecord"
    path.write_bytes(b"this is a text file, not a TFRecord file")
    with pytest.raises(DataFileError, match="no TFRecord file"):
        list(read_records(path))


def test_protobuf_fields_of_every_wire_type() -> None:
    message = b"\x0a\x03abc" + b"\x10\xac\x02" + b"\x19" + struct.pack("<d", 1.5) + b"\x25" + b"\x01\x02\x03\x04"
    fields = list(protobuf_fields(message))
    assert [(f.number, f.wire_type) for f in fields] == [(1, 2), (2, 0), (3, 1), (4, 5)]
    assert message[fields[0].start : fields[0].stop] == b"abc"
    assert fields[1].varint(message) == 300


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"\x0a\x05abc", "past the end"),
        (b"\x19\x00", "past the end"),
        (b"\x10", "varint"),
        (b"\x10\x80", "varint"),
        (b"\x10" + b"\x80" * 12, "varint"),
        (b"\x0b", "wire type 3"),
    ],
)
def test_broken_protobuf_is_refused(message: bytes, problem: str) -> None:
    with pytest.raises(DataFileError, match=problem):
        list(protobuf_fields(message))
