r"""The user's own measurements as a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.utils import DataFileError, InvalidLabelsError, NASError


def read_own_labels(space: CellSpace[Any], path: Path) -> tuple[Tensor, Tensor]:
    r"""Reads a CSV with the columns ``arch`` (a string of the space) and ``label``.

    Returns:
        Official indices int64 and labels, ``[n]`` each.

    Raises:
        DataFileError: If a column is missing, there is no row, or an architecture is not one of the space.
        InvalidLabelsError: If a label is not a number.
    """
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"arch", "label"} <= rows[0].keys():
        raise DataFileError(f"{path} must have a header with 'arch' and 'label' and at least one row")
    index, y = [], []
    for line, row in enumerate(rows, start=2):
        try:
            y.append(float(row["label"]))
        except (TypeError, ValueError):
            raise InvalidLabelsError(f"{path}, line {line}: label {row['label']!r} is not a number") from None
        try:
            index.append(space.index(space.from_str(row["arch"] or "")))
        except NASError as error:
            raise DataFileError(f"{path}, line {line}: {error}") from error
    return torch.tensor(index), torch.tensor(y)
