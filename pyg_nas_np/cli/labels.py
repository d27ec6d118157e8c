r"""The user's own measurements as a CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyg_nas_np.cli.tables import plain_text
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.utils import DataFileError, InvalidLabelsError, NASError
from pyg_nas_np.utils.table_files import read_csv


def read_own_labels(space: CellSpace[Any], path: Path) -> tuple[Tensor, Tensor]:
    r"""Reads a CSV with the columns ``arch`` (a string of the space) and ``label``.

    Returns:
        Official indices int64 and labels float64, ``[n]`` each.

    Raises:
        DataFileError: If a column is missing, there is no row, or an architecture is not one of the space.
        InvalidLabelsError: If a label is not a number.
    """
    table = read_csv(path, ("arch", "label"))
    table.require(("arch", "label"))
    place = table.place("label")
    index, y = [], []
    for row, text in enumerate(table.column("arch")):
        try:
            y.append(table.number(row, place))
        except DataFileError as error:
            raise InvalidLabelsError(str(error)) from None
        try:
            index.append(space.index(space.from_str(plain_text(text))))
        except NASError as error:
            raise DataFileError(f"{table.where(row)}: {error}") from error
    return torch.tensor(index, device="cpu"), torch.tensor(y, dtype=torch.float64, device="cpu")
