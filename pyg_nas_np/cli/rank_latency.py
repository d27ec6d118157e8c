r"""Latencies of the candidates on the user's device, from a file of a few measurements."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from pyg_nas_np.cli.options import finite, say
from pyg_nas_np.cli.ranking import Latencies
from pyg_nas_np.convnp import DeviceTable, LatencyPredictor
from pyg_nas_np.datasets.own_task import OwnTask
from pyg_nas_np.spaces.inference import read_columns, rows_of
from pyg_nas_np.spaces.parameters import is_missing
from pyg_nas_np.utils import InvalidLabelsError, InvalidSpaceError

COLUMN = "latency"
"""Column of the latencies on the user's device."""

LatencyOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="CSV or Parquet of measured latencies: the columns of the candidates, 'latency' on your device (empty "
        "where not measured), and a column for each other device, if there are any."
    ),
]
LatencyLimitOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(callback=finite, help="Largest latency that is allowed, in the unit of --latency."),
]


def check_latency(latency: Path | None, limit: float | None, *, own: bool) -> None:
    r"""Checks that the options of latencies fit together.

    Raises:
        typer.BadParameter: If a limit is not positive or has no latencies, or latencies are given for a benchmark.
    """
    if latency is not None and not own:
        raise typer.BadParameter("is for files of your own, not for a benchmark", param_hint="--latency")
    if limit is None:
        return
    if latency is None:
        raise typer.BadParameter("needs measured latencies (--latency)", param_hint="--latency-limit")
    if limit <= 0:
        raise typer.BadParameter(f"{limit:g} is not positive", param_hint="--latency-limit")


def predict_latencies(task: OwnTask, path: Path, limit: float | None = None) -> Latencies:
    r"""Predicts the latencies of the candidates of a task, and says from what.

    Args:
        task: The task, with candidates.
        path: The file of latencies, see :data:`LatencyOption`.
        limit: The largest latency that is allowed.

    Raises:
        DataFileError: If the file cannot be read.
        InvalidSpaceError: If the file has no column of latencies, or a parameter of the space is missing.
        InvalidLabelsError: If a latency is no positive number, or none is measured.
        InvalidArchitectureError: If a row is no architecture of the space.
    """
    columns = read_columns(path)
    if COLUMN not in columns:
        raise InvalidSpaceError(f"{path.name} has no column {COLUMN!r}; its columns are {', '.join(columns)}")
    kept = {*task.space.table_parameters, *task.space.known_columns}
    parameters = {name: c for name, c in columns.items() if name in kept}
    archs = [task.space.check(row) for row in rows_of(parameters)]
    y = _numbers(path, COLUMN, columns[COLUMN])
    shown = [i for i, value in enumerate(y) if not math.isnan(value)]
    if not shown:
        raise InvalidLabelsError(f"{path.name}, column {COLUMN!r}: nothing is measured; measure about ten")
    others = {
        name: _numbers(path, name, column)
        for name, column in columns.items()
        if name not in parameters and name != COLUMN and _is_device(column)
    }
    devices = DeviceTable(others, archs) if others else None
    predictor = LatencyPredictor(task.space).fit([archs[i] for i in shown], [y[i] for i in shown], devices)
    known = f" and {len(archs):,} rows of {', '.join(others)}" if others else ""
    say(f"Latency: predicted from {len(shown)} measurements{known}")
    low, median, high = predictor.predict_quantiles(task.pool, (0.05, 0.5, 0.95)).unbind(dim=1)
    if limit is None:
        return Latencies(median, low, high)
    within = predictor.probability_within(task.pool, limit)
    say(f"{int((within >= 0.5).sum()):,} of {len(within):,} candidates are likely to stay within {limit:g}")
    return Latencies(median, low, high, limit, within)


def _is_device(column: Any) -> bool:
    known = [value for value in column if not is_missing(value)]
    return bool(known) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)


def _numbers(path: Path, name: str, column: Any) -> list[float]:
    for row, value in enumerate(column, start=1):
        if not is_missing(value) and (isinstance(value, bool | str | list) or not value > 0):
            raise InvalidLabelsError(
                f"{path.name}, row {row}, column {name!r}: the latency {value!r} is not a positive number; correct it, "
                f"or leave the cell empty"
            )
    return [math.nan if is_missing(value) else float(value) for value in column]
