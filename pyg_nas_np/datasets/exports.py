r"""Tables that other tools export, told by the names of their columns: Optuna, Ray Tune, MLflow, W&B, scikit-learn."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyg_nas_np.spaces.inference import Columns, columns_of, parsed
from pyg_nas_np.spaces.parameters import is_missing, plain
from pyg_nas_np.utils.errors import DataFileError, InvalidLabelsError
from pyg_nas_np.utils.imports import require

PREFIXES = ("", "params_", "config/", "params.", "param_", "config.")
"""What tools write in front of the name of a parameter,"""
METRIC_PREFIXES = ("", "values_", "metrics.", "mean_test_", "summary.")
"""and of a metric."""

_URL = re.compile(r"(?P<storage>[a-z][a-z0-9+]*://[^#]*)(?:#(?P<study>.+))?")


@dataclass(frozen=True)
class Export:
    r"""What the columns of a table are.

    Attributes:
        title: Which tool wrote it; empty of a table of plain columns.
        columns: Every column.
        parameters: Columns of parameters → what the parameters are called.
        metrics: Columns that may be labels; of plain columns :obj:`None`, any may.
        noise: Column of a metric → column of its standard deviation.
        maximize: Whether larger values of a metric are better, as far as the table tells.
        state: Column that tells how the training of each row ended, where there is one.
        finished: States with which the metrics of a row are labels.
    """

    title: str
    columns: Columns
    parameters: dict[str, str]
    metrics: list[str] | None
    noise: dict[str, str] = field(default_factory=dict)
    maximize: dict[str, bool] = field(default_factory=dict)
    state: str | None = None
    finished: Collection[str] = ()


def recognised(columns: Columns) -> Export:
    r"""Tells which tool exported a table.

    Example:
        >>> recognised({"params_lr": [0.1], "value": [0.9], "state": ["COMPLETE"]}).title
        'Optuna trials_dataframe'
        >>> recognised({"lr": [0.1], "accuracy": [0.9]}).title
        ''
    """
    return next(filter(None, (read(columns) for read in _READERS)), None) or Export(
        "", columns, {name: name for name in columns}, None
    )


# -- tools ------------------------------------------------------------------------------------------------------------


def _optuna(columns: Columns) -> Export | None:
    metrics = [name for name in columns if name == "value" or name.startswith("values_")]
    parameters = _prefixed(columns, "params_")
    if not metrics or not parameters:
        return None
    state = "state" if "state" in columns else None
    return Export("Optuna trials_dataframe", columns, parameters, metrics, state=state, finished=("COMPLETE",))


_RAY_BOOKKEEPING = re.compile(
    r"time_\w+|timesteps\w*|episodes\w*|iterations_since_restore|training_iteration|timestamp|date|done|pid|hostname|"
    r"node_ip|trial_id|experiment_\w+|logdir|should_checkpoint|checkpoint_\w+|warmup_time|hist_stats.*|error.*"
)


def _ray(columns: Columns) -> Export | None:
    parameters = _prefixed(columns, "config/")
    if not parameters:
        return None
    rest = [name for name in columns if name not in parameters and not _RAY_BOOKKEEPING.fullmatch(name)]
    return Export("Ray Tune results", columns, parameters, [name for name in rest if _numeric(columns[name])])


def _mlflow(columns: Columns) -> Export | None:
    parameters, metrics = _prefixed(columns, "params."), _prefixed(columns, "metrics.")
    if not parameters or not metrics:
        return None
    # MLflow writes all parameters as text.
    typed = {
        name: parsed([None if is_missing(cell) or cell == "None" else str(cell) for cell in column])
        for name, column in columns.items()
        if name in parameters
    }
    state = "status" if "status" in columns else None
    every = {**columns, **typed}
    return Export("MLflow search_runs", every, parameters, list(metrics), state=state, finished=("FINISHED",))


def _sklearn(columns: Columns) -> Export | None:
    parameters = _prefixed(columns, "param_")
    metrics = [name for name in columns if name.startswith("mean_test_")]
    if not parameters or not metrics:
        return None
    noise = {name: other for name in metrics if (other := f"std_{name.removeprefix('mean_')}") in columns}
    # Scores of scikit-learn are larger where they are better; losses come as negative numbers.
    best = dict.fromkeys(metrics, True)
    return Export("scikit-learn cv_results_", columns, parameters, metrics, noise, best)


_WANDB_INNER = ("_step", "_runtime", "_timestamp", "_wandb")
_WANDB_SHOWN = (
    *("ID", "Name", "State", "Notes", "User", "Tags", "Created", "Runtime", "Sweep", "Group", "Job Type", "Commit"),
    *("Updated", "End Time", "Description", "Hostname", "Host", "OS", "Python version", "Python executable", "Command"),
    *("GPU Type", "GPU Count", "CPU Count", "GitHub", "Git repository", "Created Timestamp", "Relative Time (Process)"),
)


def _wandb(columns: Columns) -> Export | None:
    if {"config", "summary"} <= columns.keys():
        return _wandb_nested(columns)
    shown = [name for name in columns if name in _WANDB_SHOWN]
    inner = [name for name in columns if name.split("/")[0] in _WANDB_INNER]
    if len(inner) < 2 and not (len(shown) >= 3 and {"State", "Created", "Runtime"} & set(shown)):
        return None
    parameters = {name: name for name in columns if name not in (*shown, *inner)}
    # Of a run's configuration and its summary, the columns tell nothing apart.
    state = next((name for name in ("State", "state") if name in columns), None)
    parameters.pop(state or "", None)
    return Export("Weights & Biases runs", columns, parameters, None, state=state, finished=("finished", "Finished"))


def _wandb_nested(columns: Columns) -> Export | None:
    """The script that W&B's manual gives writes dictionaries into the columns ``config`` and ``summary``."""
    config, summary = (_unfolded(columns[name], f"{name}.") for name in ("config", "summary"))
    if not config or summary is None:
        return None
    metrics = [name for name, column in summary.items() if not name.startswith("summary._") and _numeric(column)]
    rest = {name: column for name, column in columns.items() if name not in ("config", "summary")}
    parameters = {name: name.removeprefix("config.") for name in config}
    state = next((name for name in ("State", "state") if name in columns), None)
    every = {**config, **summary, **rest}
    return Export("Weights & Biases runs", every, parameters, metrics, state=state, finished=("finished",))


def _unfolded(cells: Sequence[Any], prefix: str) -> Columns | None:
    """Dictionaries, or their text, as columns; None for anything else."""
    try:
        # Evaluates literals only.
        rows = [ast.literal_eval(cell) if isinstance(cell, str) else cell for cell in cells]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    if not all(isinstance(row, Mapping) for row in rows):
        return None
    return {prefix + name: column for name, column in (columns_of(rows) or {}).items()}


_READERS: tuple[Callable[[Columns], Export | None], ...] = (_optuna, _ray, _mlflow, _sklearn, _wandb)


def _prefixed(columns: Collection[str], prefix: str) -> dict[str, str]:
    return {name: name.removeprefix(prefix) for name in columns if name.startswith(prefix) and name != prefix}


def _numeric(column: Sequence[Any]) -> bool:
    values = [plain(value) for value in column if not is_missing(value)]
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


# -- Optuna's own objects ---------------------------------------------------------------------------------------------


def is_study(source: Any) -> bool:
    r"""Whether something is an Optuna study, or the address of one."""
    if isinstance(source, str):
        return _URL.fullmatch(source) is not None
    return hasattr(source, "get_trials") and hasattr(source, "directions")


def read_study(source: Any) -> Export:
    r"""Reads the trials of an Optuna study.

    Args:
        source: An ``optuna.Study``, or the address of a storage, ``sqlite:///study.db``; ``sqlite:///study.db#name``
            where it has several studies.

    Raises:
        DataFileError: If the storage cannot be read, or has no such study.
        InvalidLabelsError: If the study has no trial with a parameter.
        MissingExtraError: If Optuna is not installed.
    """
    study = _load_study(source) if isinstance(source, str) else source
    trials = study.get_trials(deepcopy=False)
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    if not names:
        raise InvalidLabelsError(f"study {study.study_name!r} has no trial with a parameter; run one")
    maximize = [direction.name == "MAXIMIZE" for direction in study.directions]
    metrics = (
        ["value"] if len(maximize) == 1 else [f"values_{name}" for name in study.metric_names or range(len(maximize))]
    )
    columns: Columns = {"number": [trial.number for trial in trials], "state": [trial.state.name for trial in trials]}
    columns |= {f"params_{name}": [trial.params.get(name) for trial in trials] for name in names}
    for i, metric in enumerate(metrics):
        # A pruned trial has its last intermediate value as its value.
        columns[metric] = [trial.values[i] if trial.values and i < len(trial.values) else None for trial in trials]
    attributes = dict.fromkeys(name for trial in trials for name in trial.user_attrs)
    columns |= {f"user_attrs_{name}": [trial.user_attrs.get(name) for trial in trials] for name in attributes}
    return Export(
        f"Optuna study {study.study_name!r}",
        columns,
        _prefixed(columns, "params_"),
        metrics,
        maximize=dict(zip(metrics, maximize, strict=True)),
        state="state",
        finished=("COMPLETE",),
    )


def _load_study(address: str) -> Any:
    optuna = require("optuna", "search")
    match = _URL.fullmatch(address)
    assert match is not None
    storage, name = match["storage"], match["study"]
    file = storage.partition(":///")[2].partition("?")[0]
    # Optuna would make an empty database.
    if storage.startswith("sqlite") and not Path(file).is_file():
        raise DataFileError(f"{os.fspath(file)!r} is missing; check the path in {address!r}")
    try:
        names = list(optuna.get_all_study_names(storage))
    except Exception as error:
        raise DataFileError(f"{storage} cannot be read as an Optuna storage ({error}); check the address") from error
    if name is None and len(names) > 1:
        raise DataFileError(f"{storage} has several studies; add one of {', '.join('#' + other for other in names)}")
    if not names or (name is not None and name not in names):
        what = "no study" if name is None else f"no study {name!r}"
        raise DataFileError(f"{storage} has {what}; its studies are: {', '.join(names) or '(none)'}")
    return optuna.load_study(study_name=name or names[0], storage=storage)
