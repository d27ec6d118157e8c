r"""The records of the official NAS-Bench-101 files, decoded in batches.

A record is a JSON array ``[hash, epochs, adjacency, operations, metrics]`` whose last item is a base64-encoded protobuf
message. The hash identifies the cell, and the cell determines the text of a record from ``json.dumps`` up to its
metrics. Any other record is checked item by item and rewritten in that format. Messages with equal tags and lengths
share a layout: one of them is decoded field by field, the others through its offsets.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pyg_nas_np.datasets.tfrecord import RecordBatch, protobuf_fields, read_records, windows
from pyg_nas_np.spaces.nasbench101 import NASBench101Arch, NASBench101Space
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, open_regular

logger = logging.getLogger(__name__)

BUDGETS = (4, 12, 36, 108)
REPEATS = 3
QUANTITIES = ("training_time", "train_accuracy", "valid_accuracy", "test_accuracy")
"""Fields 2 to 5 of an evaluation, in this order."""

Table = npt.NDArray[np.float32]


class ForeignCellError(DataFileError, InvalidArchitectureError):
    r"""A record is for a cell outside the space, or not for the cell whose hash it states."""


class _Templates(NamedTuple):
    r"""Text of the records of each cell between the number of epochs and the metrics.

    Args:
        text: ``[423624, widest]`` characters.
        width: ``[423624]``.
    """

    text: npt.NDArray[np.uint8]
    width: npt.NDArray[np.int64]

    def of(self, index: int) -> str:
        r"""Returns the text of one cell."""
        return self.text[index, : self.width[index]].tobytes().decode()


class _Batch(NamedTuple):
    r"""Records in canonical spelling.

    Args:
        source: The records of the file.
        path: The file.
        buffer: The bytes of the records.
        cell: Index of each record's cell, ``[n]``.
        budget: Its number of epochs, ``[n]``.
        begin: Start of its metrics, ``[n]``.
        stop: End of its metrics, ``[n]``.
        regular: Whether the record has the canonical spelling, ``[n]``; otherwise the other entries are invalid.
    """

    source: RecordBatch
    path: Path
    buffer: npt.NDArray[np.uint8]
    cell: npt.NDArray[np.int64]
    budget: npt.NDArray[np.int64]
    begin: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    regular: npt.NDArray[np.bool_]

    def fail(self, row: int, problem: str, kind: type[DataFileError] = DataFileError) -> NoReturn:
        r"""Raises an error that names the record."""
        raise kind(f"{self.path}: {self.source.where(row)} {problem}")


def read_measurements(path: Path, space: NASBench101Space) -> dict[int, Table]:
    r"""Reads an official file.

    Args:
        path: ``nasbench_only108.tfrecord``, ``nasbench_full.tfrecord``, or a file of the same format.
        space: The space that defines the indices.

    Returns:
        For each training budget in the file ``[423624, 3 repeats, 2, 4]`` float32: halfway and final values of
        :obj:`QUANTITIES`, NaN where there is no record. The repeat is the order of appearance.

    Raises:
        DataFileError: If the file is truncated or damaged, or a record does not follow the format.
        ForeignCellError: If a record is for a cell outside the space, or states the hash of another cell.
    """
    templates = _templates(space)
    parameters = space.batch_num_parameters().numpy()
    tables: dict[int, Table] = {}
    seen: dict[int, npt.NDArray[np.uint8]] = {}
    deviating = 0
    # disable=None: no bar where the output is not a terminal.
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
    with tqdm(total=size, unit="B", unit_scale=True, desc=path.name, disable=None) as bar:
        for records in read_records(path):
            batch = _canonical(records, path, space, templates)
            values, stated, broken = _metrics(batch)
            if broken:
                # json.dumps escapes the line breaks that some base64 encoders insert.
                batch = _canonical(records, path, space, templates, respell=broken)
                values, stated, broken = _metrics(batch)
            if broken:
                batch.fail(broken[0], "has metrics that are not base64")
            deviating += int((stated != parameters[batch.cell]).sum())
            for budget in np.unique(batch.budget).tolist():
                rows = np.flatnonzero(batch.budget == budget)
                cells = batch.cell[rows]
                if budget not in tables:
                    tables[budget] = np.full((len(space), REPEATS, 2, len(QUANTITIES)), np.nan, dtype=np.float32)
                    seen[budget] = np.zeros(len(space), dtype=np.uint8)
                repeat = _repeats(cells, seen[budget])
                if (repeat >= REPEATS).any():
                    row = int(rows[np.argmax(repeat >= REPEATS)])
                    batch.fail(row, f"is repeat {REPEATS + 1} of its cell at {budget} epochs, at most {REPEATS} exist")
                tables[budget][cells, repeat] = values[rows]
            bar.update(int((records.length + 16).sum()))
    if deviating:
        logger.warning("%s: %d records state another number of parameters than their cell has.", path, deviating)
    _tell_gaps(path, seen)
    return dict(sorted(tables.items()))


def _tell_gaps(path: Path, seen: dict[int, npt.NDArray[np.uint8]]) -> None:
    r"""Warns if cells have fewer records than others: checksums cannot detect a file that ends between two records."""
    cells = np.logical_or.reduce([count > 0 for count in seen.values()]) if seen else np.zeros(0, dtype=np.bool_)
    expected, found = REPEATS * len(seen) * int(cells.sum()), sum(int(count.sum()) for count in seen.values())
    if found < expected or not cells.all():
        logger.warning(
            "%s holds %d records of %d cells; %d trainings at each of %d budgets would be %d, and the space has %d "
            "cells. If it should be complete, it has been cut between two records.",
            path, found, int(cells.sum()), REPEATS, len(seen), expected, len(cells),
        )  # fmt: skip


# -- spelling -------------------------------------------------------------------------------------------------------

# '["', 32 hexadecimal digits, '", '
_HEAD = 37
_NIBBLE = np.full(256, 255, dtype=np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdef", dtype=np.uint8)] = np.arange(16)


def _templates(space: NASBench101Space) -> _Templates:
    cells = space.dense()
    adjacency, ops = cells.adjacency.numpy(), cells.ops.numpy()
    codes = (np.maximum(ops, 0) * 5 ** np.arange(ops.shape[1])).sum(1) * 8 + cells.num_nodes.numpy()
    _, first, labelling = np.unique(codes, return_index=True, return_inverse=True)
    ends = [f'", "{",".join(space[i].ops)}", "'.encode() for i in first.tolist()]
    lengths = np.array([len(end) for end in ends])
    padded = np.frombuffer(b"".join(end.ljust(lengths.max()) for end in ends), dtype=np.uint8).reshape(len(ends), -1)
    text = np.zeros((len(ops), 3 + ops.shape[1] ** 2 + lengths.max()), dtype=np.uint8)
    text[:, :3] = np.frombuffer(b', "', dtype=np.uint8)
    for size in range(2, ops.shape[1] + 1):
        rows = np.flatnonzero(cells.num_nodes.numpy() == size)
        bits, split = adjacency[rows, :size, :size].reshape(len(rows), -1), 3 + size * size
        text[rows, 3:split] = bits + np.uint8(ord("0"))
        text[rows, split : split + padded.shape[1]] = padded[labelling[rows]]
    return _Templates(text, 3 + cells.num_nodes.numpy() ** 2 + lengths[labelling])


def _canonical(
    records: RecordBatch, path: Path, space: NASBench101Space, templates: _Templates, respell: Sequence[int] = ()
) -> _Batch:
    r"""Rewrites all irregular records, and those in :obj:`respell`, in the canonical spelling."""
    batch = _match(records, path, records.buffer, records.start, records.length, space, templates)
    batch.regular[list(respell)] = False
    if batch.regular.all():
        return batch
    pieces, end = [records.buffer], len(records.buffer)
    start, length = records.start.copy(), records.length.copy()
    for row in np.flatnonzero(~batch.regular).tolist():
        pieces.append(np.frombuffer(_respell(batch, row, space, templates), dtype=np.uint8))
        start[row], length[row] = end, len(pieces[-1])
        end += len(pieces[-1])
    batch = _match(records, path, np.concatenate(pieces), start, length, space, templates)
    if not batch.regular.all():
        batch.fail(int(np.argmin(batch.regular)), "cannot be read")
    return batch


def _match(
    records: RecordBatch,
    path: Path,
    buffer: npt.NDArray[np.uint8],
    start: npt.NDArray[np.int64],
    length: npt.NDArray[np.int64],
    space: NASBench101Space,
    templates: _Templates,
) -> _Batch:
    r"""Reads cell and budget of the records, and locates the metrics of those that match the template of their cell."""
    regular = length > _HEAD + templates.width.min()
    # Shorter records are read from the start of the buffer; they are irregular in any case.
    head = (
        windows(buffer, np.where(regular, start, 0), _HEAD + 3)
        if regular.any()
        else np.zeros((len(start), 40), np.uint8)
    )
    for column, text in ((0, b'["'), (_HEAD - 3, b'", ')):
        regular &= (head[:, column : column + len(text)] == np.frombuffer(text, dtype=np.uint8)).all(1)
    nibbles = _NIBBLE[head[:, 2:34]]
    index = space.index_bytes((nibbles[:, 0::2] << np.uint8(4)) | (nibbles[:, 1::2] & np.uint8(15)))
    regular &= (index >= 0) & (nibbles < 16).all(1)
    budget, begin = np.zeros((2, len(start)), dtype=np.int64)
    for epochs in BUDGETS:
        digits = np.frombuffer(str(epochs).encode(), dtype=np.uint8)
        rows = (head[:, _HEAD : _HEAD + len(digits)] == digits).all(1)
        budget[rows], begin[rows] = epochs, start[rows] + _HEAD + len(digits)
    stop = start + length - 2
    width = templates.width[index]
    regular &= (budget > 0) & (begin + width < stop)
    for size in np.unique(width[regular]).tolist():
        rows = np.flatnonzero(regular & (width == size))
        found = windows(buffer, begin[rows], size)
        regular[rows] = (found == templates.text[index[rows], :size]).all(1)
    last = np.where(regular, stop, 0)
    regular &= (buffer[last] == ord('"')) & (buffer[last + 1] == ord("]"))
    return _Batch(records, path, buffer, index, budget, begin + width, stop, regular)


def _respell(batch: _Batch, row: int, space: NASBench101Space, templates: _Templates) -> bytes:
    r"""Checks a record item by item, and writes it as :func:`json.dumps` would for the canonical form of its cell."""
    try:
        items = json.loads(batch.source.payload(row))
    except (ValueError, RecursionError) as error:
        batch.fail(row, f"is not JSON ({error})")
    if not isinstance(items, list) or [type(item) for item in items] != [str, int, str, str, str]:
        batch.fail(
            row,
            f"must be an array [hash, epochs, adjacency, operations, metrics] of text and one integer: {items!r:.80}",
        )
    digest, epochs, adjacency, operations, metrics = items
    try:
        index = int(space.index_hashes([digest])[0])
    except InvalidArchitectureError:
        batch.fail(row, f"is for a cell outside the space: no cell has the hash {digest[:40]}", ForeignCellError)
    if epochs not in BUDGETS:
        batch.fail(row, f"states {epochs} epochs, the budgets are {', '.join(map(str, BUDGETS))}")
    template = templates.of(index)
    if template != f', "{adjacency}", "{operations}", "':
        _check_cell(batch, row, digest, adjacency, operations)
    if not (code := "".join(metrics.split())):
        batch.fail(row, "has metrics that are not base64")
    return f'["{digest}", {epochs}{template}{code}"]'.encode()


def _check_cell(batch: _Batch, row: int, digest: str, adjacency: str, operations: str) -> None:
    r"""Checks that a cell in another vertex order than the canonical one has the hash that its record states."""
    size = math.isqrt(len(adjacency))
    if size**2 != len(adjacency) or not 2 <= size <= 7 or set(adjacency) - {"0", "1"}:
        batch.fail(row, f"has the adjacency '{adjacency[:60]}', expected V * V characters 0 or 1 with V of 2 to 7")
    labels, names = operations.split(","), NASBench101Space.op_names
    if unknown := [label for label in labels if label not in names]:
        batch.fail(row, f"has the unknown operation '{unknown[0][:40]}'; operations: {', '.join(names)}")
    if len(labels) != size:
        batch.fail(row, f"has {size} vertices and {len(labels)} operations")
    if _stated_hash(adjacency, operations) != digest:
        batch.fail(row, f"states the hash {digest}, which its cell does not have", ForeignCellError)


@lru_cache(1 << 10)
def _stated_hash(adjacency: str, operations: str) -> str | None:
    labels = operations.split(",")
    matrix = np.array([int(bit) for bit in adjacency], dtype=np.int8).reshape(len(labels), -1)
    try:
        return NASBench101Space().canonical(NASBench101Arch.from_matrix(matrix, labels, prune=False))
    except InvalidArchitectureError:
        return None


# -- metrics --------------------------------------------------------------------------------------------------------

_SIXBIT = np.full(256, 1 << 6, dtype=np.uint16)
_SIXBIT[np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", dtype=np.uint8)] = np.arange(
    64
)
# Two characters at a time, by their little-endian number; twelve bits where both are valid.
_TWELVEBIT = (_SIXBIT[:, None] | (_SIXBIT << 6)).reshape(-1)
_TWELVEBIT[((_SIXBIT[:, None] | _SIXBIT) >> 6).reshape(-1) > 0] = 1 << 12


def _metrics(batch: _Batch) -> tuple[Table, npt.NDArray[np.int64], list[int]]:
    r"""Returns the measurements ``[n, 2, 4]``, the stated numbers of parameters ``[n]``, and the rows not in base64."""
    begin, stop = batch.begin, batch.stop
    # Both last characters of base64 may be padding.
    padding = (batch.buffer[stop - 1] == ord("=")).astype(np.int64)
    padding += (padding == 1) & (batch.buffer[stop - 2] == ord("="))
    kind = (stop - begin) * 4 + padding
    values = np.empty((len(begin), 2, len(QUANTITIES)), dtype=np.float32)
    parameters = np.empty(len(begin), dtype=np.int64)
    broken: list[int] = []
    for key in np.unique(kind).tolist():
        rows = np.flatnonzero(kind == key)
        width, pad = divmod(key, 4)
        if width % 4:
            broken += rows.tolist()
            continue
        messages, valid = _from_base64(windows(batch.buffer, begin[rows], width), pad)
        if not valid.all():
            broken += rows[~valid].tolist()
            rows, messages = rows[valid], messages[valid]
        while rows.size:
            try:
                layout = _layout(messages[0].tobytes())
            except DataFileError as error:
                batch.fail(int(rows[0]), f"has unreadable metrics: {error}")
            # Records of one layout differ in values only.
            alike = (((messages ^ messages[0]) & layout.fixed) == 0).all(1)
            same, owner = (messages, rows) if alike.all() else (messages[alike], rows[alike])
            offsets = np.array(layout.evaluations).reshape(-1, 1) + np.arange(8)
            doubles = same.take(offsets.reshape(-1), axis=1).view("<f8")
            values[owner] = doubles.reshape(-1, 2, len(QUANTITIES))
            varint = same[:, slice(*layout.parameters)].astype(np.int64) & 0x7F
            parameters[owner] = (varint << (7 * np.arange(varint.shape[1]))).sum(1)
            rows, messages = rows[~alike], messages[~alike]
    return values, parameters, sorted(broken)


def _from_base64(code: npt.NDArray[np.uint8], pad: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    r"""Decodes rows of equal length in place of their padding; also tells which rows are valid."""
    code[:, code.shape[1] - pad :] = ord("A")
    halves = _TWELVEBIT.take(code.view("<u2"))
    valid = np.ones(len(code), dtype=np.bool_)
    if halves.max() >= 1 << 12:
        valid = np.all(halves < 1 << 12, axis=1)
    front, back = halves[:, 0::2], halves[:, 1::2]
    decoded = np.empty((len(code), 3 * front.shape[1]), dtype=np.uint8)
    decoded[:, 0::3] = front >> 4
    decoded[:, 1::3] = front << 4 | back >> 8
    decoded[:, 2::3] = back
    return decoded[:, : decoded.shape[1] - pad], valid


class _Layout(NamedTuple):
    r"""Positions of the values in a ``ModelMetrics`` message.

    Args:
        evaluations: Offsets of the doubles of :obj:`QUANTITIES`, halfway and final.
        parameters: First and last-but-one byte of the varint of the parameters.
        fixed: The bits that are equal in all messages of this layout.
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
