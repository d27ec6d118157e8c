r"""TFRecord files without TensorFlow: framing, CRC-32C checksums and the protobuf wire format.

A file is a sequence of records, each ``u64 length | u32 masked CRC of the length | payload | u32 masked CRC of the
payload``, little-endian. All checksums are verified; records of equal length are verified together, column by column.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pyg_nas_np.utils import DataFileError, open_regular

_LENGTH = struct.Struct("<Q")
_HEADER = struct.Struct("<QI")
_FRAME = _HEADER.size + 4
_BLOCK = 1 << 24
MAX_RECORD = 1 << 27
"""Largest record in bytes. Those of NAS-Bench-101 have two thousand."""


def _tables() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    r"""Effect of a byte, of the high and of the low half of a four-byte word on the state of the CRC."""
    byte = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        byte = np.where(byte & 1, (byte >> 1) ^ np.uint32(0x82F63B78), byte >> 1)

    def two_bytes(state: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        for _ in range(2):
            state = byte[state & 0xFF] ^ (state >> np.uint32(8))
        return state

    high = two_bytes(np.arange(1 << 16, dtype=np.uint32))
    return byte, high, two_bytes(high)


_BYTE_TABLE, _HIGH_TABLE, _LOW_TABLE = _tables()


class RecordBatch(NamedTuple):
    r"""Consecutive records of a file.

    Args:
        buffer: A piece of the file, uint8.
        start: Start of the payloads in :obj:`buffer`, int64 ``[n]``.
        length: Their lengths, int64 ``[n]``.
        first: Number of the first record in the file, from 0.
        offset: Position of :obj:`buffer` in the file.
    """

    buffer: npt.NDArray[np.uint8]
    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    first: int
    offset: int

    def where(self, row: int) -> str:
        r"""Name of a record of the batch in messages: its number and its position in the file."""
        return _where(self.first + row, self.offset + int(self.start[row]) - _HEADER.size)

    def payload(self, row: int) -> bytes:
        r"""Returns the payload of one record."""
        start = int(self.start[row])
        return self.buffer[start : start + int(self.length[row])].tobytes()


def crc32c(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    r"""Returns the CRC-32C (Castagnoli) of every row of ``[n, length]`` bytes, ``[n]``.

    Example:
        >>> hex(crc32c(np.frombuffer(b"123456789", dtype=np.uint8)[None])[0])
        '0xe3069283'
    """
    count, length = rows.shape
    state, low = np.full((2, count), 0xFFFFFFFF, dtype=np.uint32)
    index = np.empty(count, dtype=np.intp)
    even = length - length % 4
    for word in np.ascontiguousarray(np.ascontiguousarray(rows[:, :even]).view("<u4").T):
        state ^= word
        np.bitwise_and(state, 0xFFFF, out=index, casting="unsafe")
        # mode="clip" avoids the bounds check and its buffer.
        _LOW_TABLE.take(index, out=low, mode="clip")
        np.right_shift(state, 16, out=index, casting="unsafe")
        _HIGH_TABLE.take(index, out=state, mode="clip")
        state ^= low
    for column in rows[:, even:].T:
        state = _BYTE_TABLE[(state ^ column) & 0xFF] ^ (state >> np.uint32(8))
    return ~state


def masked(crc: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    r"""Returns a CRC masked as in TFRecord files."""
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def windows(buffer: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.uint8]:
    r"""Copies ``buffer[s : s + width]`` for every ``s`` of :obj:`start` into the rows of ``[n, width]``."""
    if len(start) == 0 or width == 0:
        return np.empty((len(start), width), dtype=np.uint8)
    return np.lib.stride_tricks.sliding_window_view(buffer, width)[start]


def frame(payload: bytes) -> bytes:
    r"""Returns a payload as one record of a TFRecord file."""
    length = struct.pack("<Q", len(payload))
    return length + _masked_crc(length) + payload + _masked_crc(payload)


def read_records(path: str | os.PathLike[str]) -> Iterator[RecordBatch]:
    r"""Streams the records of a file in batches of some 16 MiB, all checksums verified.

    Raises:
        DataFileError: If the file is empty or ends inside a record, or if a length or payload does not match its
            checksum; the message names the record and its byte offset.
    """
    # The checksums of a batch are computed while the caller processes the previous one.
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[RecordBatch, Future[None]]] = deque()
        for batch in _batches(path):
            waiting.append((batch, pool.submit(_check_payloads, path, batch)))
            if len(waiting) > 1:
                yield _checked(*waiting.popleft())
        while waiting:
            yield _checked(*waiting.popleft())


def _checked(batch: RecordBatch, check: Future[None]) -> RecordBatch:
    check.result()
    return batch


def _batches(path: str | os.PathLike[str]) -> Iterator[RecordBatch]:
    first, offset, carry = 0, 0, b""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise DataFileError(f"{os.fspath(path)} is empty")
        while offset < size:
            if not (block := file.read(_BLOCK)):
                raise DataFileError(f"{os.fspath(path)} became shorter while it was read, from {size} bytes")
            data = carry + block
            begins, used = _frames(path, data, first, offset, size)
            if used:
                buffer = np.frombuffer(data, dtype=np.uint8)
                yield RecordBatch(buffer, begins[:-1] + _HEADER.size, np.diff(begins) - _FRAME, first, offset)
            first, offset, carry = first + len(begins) - 1, offset + used, data[used:]


def _frames(
    path: str | os.PathLike[str], data: bytes, first: int, offset: int, size: int
) -> tuple[npt.NDArray[np.int64], int]:
    r"""Finds the complete records of a block: their starts (and the end of the last one), and their total size."""
    begins = [0]
    position, stop = 0, len(data)
    last = stop - _HEADER.size
    unpack = _LENGTH.unpack_from
    while position <= last:
        end = position + unpack(data, position)[0] + _FRAME
        if end > stop:
            break
        position = end
        begins.append(position)
    # A damaged length makes all later positions wrong; its checksum identifies it.
    complete = begins if position <= last else begins[:-1]
    headers = windows(np.frombuffer(data, dtype=np.uint8), np.array(complete, dtype=np.int64), _HEADER.size)
    stored = np.ascontiguousarray(headers[:, _LENGTH.size :]).view("<u4")[:, 0]
    wrong = masked(crc32c(headers[:, : _LENGTH.size])) != stored
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataFileError(
            f"{os.fspath(path)}: the length of {_where(first + row, offset + begins[row])} does not match its CRC: the "
            f"file is damaged or no TFRecord file"
        )
    # The incomplete last record must be completed by the rest of the file.
    rest = stop - position
    needed = _FRAME if rest < _HEADER.size else _HEADER.unpack_from(data, position)[0] + _FRAME
    if rest and needed > MAX_RECORD:
        raise DataFileError(
            f"{os.fspath(path)}: {_where(first + len(begins) - 1, offset + position)} claims {needed} bytes, more than "
            f"tfrecord.MAX_RECORD = {MAX_RECORD}"
        )
    if rest and offset + position + needed > size:
        raise DataFileError(
            f"{os.fspath(path)} is truncated: {_where(first + len(begins) - 1, offset + position)} needs {needed} "
            f"bytes, the file ends after {size - offset - position}"
        )
    return np.array(begins), position


def _check_payloads(path: str | os.PathLike[str], batch: RecordBatch) -> None:
    wrong: list[int] = []
    for length in np.unique(batch.length).tolist():
        rows = np.flatnonzero(batch.length == length)
        # The stored checksum follows its payload.
        records = windows(batch.buffer, batch.start[rows], length + 4)
        stored = np.ascontiguousarray(records[:, length:]).view("<u4")[:, 0]
        bad = masked(crc32c(records[:, :length])) != stored
        wrong += rows[bad].tolist()
    if wrong:
        raise DataFileError(
            f"{os.fspath(path)}: the payload of {batch.where(min(wrong))} does not match its CRC: the file is damaged"
        )


def _masked_crc(data: bytes) -> bytes:
    return masked(crc32c(np.frombuffer(data, dtype=np.uint8)[None])).astype("<u4").tobytes()


def _where(record: int, offset: int) -> str:
    return f"record {record} at byte {offset}"


class Field(NamedTuple):
    r"""One field of a protobuf message: its number, wire type, and the position of its value."""

    number: int
    wire_type: int
    start: int
    stop: int

    def varint(self, message: bytes) -> int:
        r"""Reads the value as an unsigned varint."""
        return _varint(message, self.start, self.stop)[0]


def protobuf_fields(message: bytes, start: int = 0, stop: int | None = None) -> Iterator[Field]:
    r"""Yields all fields of a protobuf message, in their order.

    Args:
        message: The bytes.
        start: Start of the message.
        stop: End of the message. (default: the end of the bytes)

    Raises:
        DataFileError: If a field reaches past the end, or has an unknown wire type.

    Example:
        >>> list(protobuf_fields(b"\x10\x96\x01"))
        [Field(number=2, wire_type=0, start=1, stop=3)]
    """
    end = len(message) if stop is None else stop
    while start < end:
        tag, start = _varint(message, start, end)
        wire_type = tag & 7
        if wire_type == 0:
            value, after = start, _varint(message, start, end)[1]
        elif wire_type == 2:
            length, value = _varint(message, start, end)
            after = value + length
        elif wire_type in (1, 5):
            value, after = start, start + (8 if wire_type == 1 else 4)
        else:
            raise DataFileError(f"protobuf field {tag >> 3} at byte {start} has the unknown wire type {wire_type}")
        if after > end:
            raise DataFileError(f"protobuf field {tag >> 3} at byte {start} reaches past the end of its message")
        yield Field(tag >> 3, wire_type, value, after)
        start = after


def _varint(message: bytes, start: int, stop: int) -> tuple[int, int]:
    value = 0
    for position in range(start, min(stop, start + 10)):
        value |= (message[position] & 0x7F) << (7 * (position - start))
        if message[position] < 0x80:
            return value, position + 1
    raise DataFileError(f"protobuf varint at byte {start} does not end")
