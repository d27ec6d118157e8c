r"""The records of the official NAS-Bench-101 files, decoded in batches.

A record is a JSON array ``[hash, epochs, adjacency, operations, metrics]`` whose last item is a base64-encoded protobuf
message. Records written by ``json.dumps`` are taken apart by the positions of their quotes; any other spelling is first
rewritten into that form. Messages with equal bytes on the places of tags and lengths share their layout: one of them is
decoded field by field, the others through its offsets.
"""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from pyg_nas_np.datasets.tfrecord import RecordBatch, frame, protobuf_fields, read_records, windows
from pyg_nas_np.spaces.dense import DenseGraphs
from pyg_nas_np.spaces.nasbench101 import NASBench101Space
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError

logger = logging.getLogger(__name__)

BUDGETS = (4, 12, 36, 108)
REPEATS = 3
QUANTITIES = ("training_time", "train_accuracy", "valid_accuracy", "test_accuracy")
"""Fields 2 to 5 of an evaluation, in this order."""

Table = npt.NDArray[np.float32]


class ForeignCellError(DataFileError, InvalidArchitectureError):
    r"""A record is for a cell outside the space, or not for the cell whose hash it states."""


class _Batch(NamedTuple):
    r"""Records in canonical spelling, with the positions of their eight quotes, ``[n, 8]``."""

    source: RecordBatch
    path: Path
    buffer: npt.NDArray[np.uint8]
    quotes: npt.NDArray[np.int64]

    def text(self, row: int, item: int) -> str:
        r"""The string between quotes ``2 * item`` and ``2 * item + 1``, shortened for messages."""
        begin, end = self.quotes[row, 2 * item : 2 * item + 2].tolist()
        return self.buffer[begin + 1 : min(end, begin + 61)].tobytes().decode(errors="replace")

    def fail(self, row: int, problem: str, kind: type[DataFileError] = DataFileError) -> NoReturn:
        raise kind(f"{self.path}: {self.source.where(row)} {problem}")


def read_measurements(path: Path, space: NASBench101Space) -> dict[int, Table]:
    r"""Reads an official file.

    Args:
        path: ``nasbench_only108.tfrecord``, ``nasbench_full.tfrecord``, or a file of the same format.
        space: The space that gives the indices.

    Returns:
        For each training budget in the file ``[423624, 3 repeats, 2, 4]`` float32: halfway and final values of
        :obj:`QUANTITIES`, NaN where there is no record. The repeat is the order of appearance.

    Raises:
        DataFileError: If the file is truncated or damaged, or a record does not follow the format.
        ForeignCellError: If a record is for a cell outside the space, or states the hash of another cell.
    """
    cells = space.dense()
    adjacency, ops = cells.adjacency.numpy(), cells.ops.numpy().astype(np.int8)
    parameters = space.batch_num_parameters().numpy()
    tables: dict[int, Table] = {}
    seen: dict[int, npt.NDArray[np.uint8]] = {}
    deviating = 0
    # disable=None: no bar where the output is not a terminal.
    with tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name, disable=None) as bar:
        for records in read_records(path):
            batch = _canonical(records, path)
            index = _indices(batch, space)
            _check_cells(batch, index, adjacency, ops, space)
            budgets = _epochs(batch)
            values, stated = _metrics(batch)
            deviating += int((stated != parameters[index]).sum())
            for budget in np.unique(budgets).tolist():
                rows = np.flatnonzero(budgets == budget)
                if budget not in tables:
                    tables[budget] = np.full((len(space), REPEATS, 2, len(QUANTITIES)), np.nan, dtype=np.float32)
                    seen[budget] = np.zeros(len(space), dtype=np.uint8)
                repeat = _repeats(index[rows], seen[budget])
                if (repeat >= REPEATS).any():
                    row = int(rows[np.argmax(repeat >= REPEATS)])
                    batch.fail(row, f"is repeat {REPEATS + 1} of its cell at {budget} epochs, at most {REPEATS} exist")
                tables[budget][index[rows], repeat] = values[rows]
            bar.update(int((records.length + 16).sum()))
    if deviating:
        logger.warning("%s: %d records state another number of parameters than their cell has.", path, deviating)
    return dict(sorted(tables.items()))


def encode_record(digest: str, epochs: int, matrix: npt.NDArray[np.int8], ops: list[str], metrics: bytes) -> bytes:
    r"""Returns one framed record as the official files hold it; for tests, benchmarks and converters."""
    adjacency = "".join(str(int(bit)) for row in matrix for bit in row)
    text = json.dumps([digest, epochs, adjacency, ",".join(ops), base64.b64encode(metrics).decode()])
    return frame(text.encode())


# -- spelling -------------------------------------------------------------------------------------------------------


def _canonical(records: RecordBatch, path: Path) -> _Batch:
    buffer, start, length = records.buffer, records.start, records.length
    quotes, regular = _quotes(buffer, start, length)
    if not regular.all():
        pieces, end = [buffer], len(buffer)
        start, length = start.copy(), length.copy()
        for row in np.flatnonzero(~regular).tolist():
            payload = _respell(records, path, row)
            pieces.append(np.frombuffer(payload, dtype=np.uint8))
            start[row], length[row] = end, len(payload)
            end += len(payload)
        buffer = np.concatenate(pieces)
        quotes, regular = _quotes(buffer, start, length)
        if not regular.all():
            row = int(np.argmin(regular))
            raise DataFileError(f"{path}: {records.where(row)} holds characters that no field of the format has")
    return _Batch(records, path, buffer, quotes)


def _respell(records: RecordBatch, path: Path, row: int) -> bytes:
    try:
        items = json.loads(records.payload(row))
    except ValueError as error:
        raise DataFileError(f"{path}: {records.where(row)} is not JSON ({error})") from error
    kinds = [type(item) for item in items] if isinstance(items, list) else []
    if kinds != [str, int, str, str, str]:
        raise DataFileError(
            f"{path}: {records.where(row)} must be an array [hash, epochs, adjacency, operations, metrics], found "
            f"{str(items)[:60]}"
        )
    *front, metrics = items
    return json.dumps([*front, "".join(metrics.split())]).encode()


def _quotes(
    buffer: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], length: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    r"""Finds the quotes ``[n, 8]`` of the records, and which records have the canonical spelling."""
    count = len(start)
    order = np.argsort(start, kind="stable")
    found, owner = _inside(np.flatnonzero(buffer == ord('"')), start[order], length[order])
    escapes = _inside(np.flatnonzero(buffer == ord("\\")), start[order], length[order])[1]
    eight = (np.bincount(owner, minlength=count) == 8) & (np.bincount(escapes, minlength=count) == 0)
    quotes = np.zeros((count, 8), dtype=np.int64)
    quotes[order[eight]] = found[eight[owner]].reshape(-1, 8)
    regular = np.zeros(count, dtype=np.bool_)
    regular[order[eight]] = True
    # Where a record has other quotes, its first ones are compared; it is irregular anyway.
    after = np.minimum(quotes[:, 7] + 1, len(buffer) - 1)
    regular &= (quotes[:, 0] == start + 1) & (buffer[start] == ord("["))
    regular &= quotes[:, 1] == quotes[:, 0] + 33
    regular &= (quotes[:, 7] + 2 == start + length) & (buffer[after] == ord("]"))
    for left, right in ((1, 2), (3, 4), (5, 6)):
        comma, blank = buffer[quotes[:, left] + 1], buffer[quotes[:, right] - 1]
        regular &= (comma == ord(",")) & (blank == ord(" "))
    regular &= (quotes[:, 4] == quotes[:, 3] + 3) & (quotes[:, 6] == quotes[:, 5] + 3)
    regular &= buffer[quotes[:, 1] + 2] == ord(" ")
    return quotes, regular


def _inside(
    position: npt.NDArray[np.int64], start: npt.NDArray[np.int64], length: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    r"""Keeps the positions inside a payload (not in the frame between two) and tells in which."""
    owner = np.searchsorted(start, position, side="right") - 1
    keep = (owner >= 0) & (position < (start + length)[owner])
    return position[keep], owner[keep]


# -- fields ---------------------------------------------------------------------------------------------------------

_NIBBLE = np.full(256, 255, dtype=np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdef", dtype=np.uint8)] = np.arange(16)

_SIXBIT = np.full(256, 1 << 6, dtype=np.uint16)
_SIXBIT[np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", dtype=np.uint8)] = np.arange(
    64
)
# Two characters at a time, by their little-endian number; twelve bits where both are valid.
_TWELVEBIT = (_SIXBIT[:, None] | (_SIXBIT << 6)).reshape(-1)
_TWELVEBIT[((_SIXBIT[:, None] | _SIXBIT) >> 6).reshape(-1) > 0] = 1 << 12


def _indices(batch: _Batch, space: NASBench101Space) -> npt.NDArray[np.int64]:
    nibbles = _NIBBLE[windows(batch.buffer, batch.quotes[:, 0] + 1, 32)]
    index = space.index_bytes((nibbles[:, 0::2] << np.uint8(4)) | (nibbles[:, 1::2] & np.uint8(15)))
    index[(nibbles == 255).any(1)] = -1
    if (index < 0).any():
        row = int(np.argmax(index < 0))
        batch.fail(row, f"is for a cell outside the space: no cell has the hash {batch.text(row, 0)}", ForeignCellError)
    return index


def _epochs(batch: _Batch) -> npt.NDArray[np.int64]:
    begin, stop = batch.quotes[:, 1] + 3, batch.quotes[:, 2] - 2
    epochs = np.zeros(len(begin), dtype=np.int64)
    for width in np.unique(stop - begin).tolist():
        rows = np.flatnonzero(stop - begin == width)
        digits = windows(batch.buffer, begin[rows], max(width, 0)).astype(np.int64) - ord("0")
        number = np.zeros(len(rows), dtype=np.int64)
        for column in digits.T[:4]:
            number = 10 * number + np.where((column >= 0) & (column < 10), column, -10_000)
        epochs[rows] = number if 0 < width < 4 else -1
    known = np.isin(epochs, BUDGETS)
    if not known.all():
        row = int(np.argmin(known))
        text = bytes(batch.buffer[begin[row] : max(stop[row], begin[row])]).decode(errors="replace")
        batch.fail(row, f"states {text[:20]!r} epochs, the budgets are {', '.join(map(str, BUDGETS))}")
    return epochs


def _check_cells(
    batch: _Batch,
    index: npt.NDArray[np.int64],
    adjacency: npt.NDArray[np.bool_],
    ops: npt.NDArray[np.int8],
    space: NASBench101Space,
) -> None:
    r"""Checks that each record describes the cell whose hash it states."""
    count = len(index)
    begin, width = batch.quotes[:, 2] + 1, batch.quotes[:, 3] - batch.quotes[:, 2] - 1
    stated = np.zeros((count, *adjacency.shape[1:]), dtype=np.bool_)
    size = np.zeros(count, dtype=np.int64)
    for vertices in range(2, stated.shape[1] + 1):
        rows = np.flatnonzero(width == vertices**2)
        bits = windows(batch.buffer, begin[rows], vertices**2)
        good = ((bits == ord("0")) | (bits == ord("1"))).all(1)
        size[rows[good]] = vertices
        stated[rows, :vertices, :vertices] = (bits == ord("1")).reshape(-1, vertices, vertices)
    if (size == 0).any():
        row = int(np.argmin(size))
        batch.fail(row, f"has the adjacency '{batch.text(row, 1)}', expected V * V characters 0 or 1 with V of 2 to 7")
    labels = _operations(batch, size)
    foreign = np.flatnonzero((stated != adjacency[index]).any((1, 2)) | (labels != ops[index]).any(1))
    if not foreign.size:
        return
    # A cell may be written in another order than the canonical one; then its hash decides.
    looped = np.tril(stated[foreign]).any((1, 2))
    graphs = DenseGraphs(*(torch.from_numpy(a) for a in (stated[foreign], labels[foreign], size[foreign])))
    wrong = looped | (space.index_digests(space.hash_dense(graphs)) != index[foreign])
    if wrong.any():
        row = int(foreign[np.argmax(wrong)])
        batch.fail(row, f"states the hash {batch.text(row, 0)}, which its cell does not have", ForeignCellError)


def _operations(batch: _Batch, size: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    names = NASBench101Space.op_names
    distinct: dict[bytes, int] = {}
    raw, begin, end = batch.buffer.tobytes(), (batch.quotes[:, 4] + 1).tolist(), batch.quotes[:, 5].tolist()
    which = [distinct.setdefault(raw[a:b], len(distinct)) for a, b in zip(begin, end, strict=True)]
    table = np.full((len(distinct), 7), -1, dtype=np.int8)
    counts = np.zeros(len(distinct), dtype=np.int64)
    for row, text in enumerate(distinct):
        labels = text.decode(errors="replace").split(",")
        if unknown := [label for label in labels if label not in names]:
            batch.fail(which.index(row), f"has the unknown operation '{unknown[0]}'; operations: {', '.join(names)}")
        table[row, : len(labels)] = [names.index(label) for label in labels[:7]]
        counts[row] = len(labels)
    if (counts[which] != size).any():
        row = int(np.argmax(counts[which] != size))
        batch.fail(row, f"has {size[row]} vertices and {counts[which[row]]} operations")
    return table[which]


def _metrics(batch: _Batch) -> tuple[Table, npt.NDArray[np.int64]]:
    r"""Returns the measurements ``[n, 2, 4]`` and the stated numbers of parameters ``[n]``."""
    begin, stop = batch.quotes[:, 6] + 1, batch.quotes[:, 7]
    # Both last characters of base64 may be padding.
    padding = (batch.buffer[stop - 1] == ord("=")).astype(np.int64)
    padding += (padding == 1) & (batch.buffer[stop - 2] == ord("="))
    kind = (stop - begin) * 4 + padding
    values = np.empty((len(begin), 2, len(QUANTITIES)), dtype=np.float32)
    parameters = np.empty(len(begin), dtype=np.int64)
    for key in np.unique(kind).tolist():
        rows = np.flatnonzero(kind == key)
        width, pad = divmod(key, 4)
        if width == 0 or width % 4:
            batch.fail(int(rows[0]), "has metrics that are not base64")
        messages, valid = _from_base64(windows(batch.buffer, begin[rows], width), pad)
        if not valid.all():
            batch.fail(int(rows[np.argmin(valid)]), "has metrics that are not base64")
        left = np.arange(len(rows))
        while left.size:
            sample = messages[left[0]]
            try:
                layout = _layout(sample.tobytes())
            except DataFileError as error:
                batch.fail(int(rows[left[0]]), f"has unreadable metrics: {error}")
            # Records of one layout differ in values only.
            alike = (((messages[left] ^ sample) & layout.fixed) == 0).all(1)
            chosen = messages[left[alike]]
            offsets = np.array(layout.evaluations).reshape(-1, 1) + np.arange(8)
            doubles = chosen.take(offsets.reshape(-1), axis=1).view("<f8")
            values[rows[left[alike]]] = doubles.reshape(-1, 2, len(QUANTITIES))
            varint = chosen[:, slice(*layout.parameters)].astype(np.int64) & 0x7F
            parameters[rows[left[alike]]] = (varint << (7 * np.arange(varint.shape[1]))).sum(1)
            left = left[~alike]
    return values, parameters


def _from_base64(code: npt.NDArray[np.uint8], pad: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    r"""Decodes rows of equal length in place of their padding; also tells which rows are valid."""
    code[:, code.shape[1] - pad :] = ord("A")
    halves = _TWELVEBIT.take(code.view("<u2"))
    quads = halves[:, 0::2].astype(np.uint32) << np.uint32(12) | halves[:, 1::2]
    decoded = quads.byteswap().view(np.uint8).reshape(len(code), -1, 4)[:, :, 1:].reshape(len(code), -1)
    valid: npt.NDArray[np.bool_] = np.all(halves < 1 << 12, axis=1)
    return decoded[:, : decoded.shape[1] - pad], valid


class _Layout(NamedTuple):
    r"""Where a ``ModelMetrics`` message keeps its values.

    Args:
        evaluations: Offsets of the doubles of :obj:`QUANTITIES`, halfway and final.
        parameters: First and last-but-one byte of the varint of the parameters.
        fixed: The bits that another message of this layout has alike.
    """

    evaluations: tuple[list[int], list[int]]
    parameters: tuple[int, int]
    fixed: npt.NDArray[np.uint8]


def _layout(message: bytes) -> _Layout:
    fixed = np.full(len(message), 0xFF, dtype=np.uint8)
    evaluations: list[list[int]] = []
    parameters = (0, 0)
    for outer in protobuf_fields(message):
        if outer.wire_type == 0:
            fixed[outer.start : outer.stop] = 0x80
        elif outer.number != 1 or outer.wire_type != 2:
            fixed[outer.start : outer.stop] = 0
        if outer.number == 2 and outer.wire_type == 0:
            parameters = (outer.start, outer.stop)
        if outer.number == 1 and outer.wire_type == 2:
            offsets = {}
            for inner in protobuf_fields(message, outer.start, outer.stop):
                fixed[inner.start : inner.stop] = 0x80 if inner.wire_type == 0 else 0
                if inner.wire_type == 1:
                    offsets[inner.number] = inner.start
            evaluations.append([offsets.get(number, -1) for number in (2, 3, 4, 5)])
    if len(evaluations) != 3:
        raise DataFileError(f"{len(evaluations)} evaluations, expected 3 (start, halfway, end)")
    if min(min(offsets) for offsets in evaluations[1:]) < 0:
        raise DataFileError("an evaluation lacks its time or one of its accuracies")
    if parameters == (0, 0):
        raise DataFileError("the number of parameters is missing")
    return _Layout((evaluations[1], evaluations[2]), parameters, fixed)


def _repeats(index: npt.NDArray[np.int64], seen: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    r"""Numbers the records of each cell by appearance, and counts them in ``seen``."""
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    sizes = np.diff(first, append=len(ordered))
    repeat = np.empty(len(index), dtype=np.int64)
    repeat[order] = np.arange(len(ordered)) - np.repeat(first, sizes) + seen[ordered]
    seen[ordered[first]] = np.minimum(seen[ordered[first]] + sizes, 255)
    return repeat
