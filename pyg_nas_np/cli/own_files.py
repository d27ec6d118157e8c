r"""The user's own files on the command line: the options that name them, and what is said of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.markup import escape

from pyg_nas_np.cli.options import given, say
from pyg_nas_np.cli.tables import console
from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.datasets.own_task import OwnTask, read_own_task
from pyg_nas_np.predictors.streaming import PREDICTED, STD, plain_columns, rank_pool, spread_rows
from pyg_nas_np.spaces import ParameterSpace
from pyg_nas_np.utils.table_files import read_header

LabelsOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Your measurements: CSV or Parquet with any columns, an export of Optuna, Ray Tune, MLflow, W&B or "
        "scikit-learn, or an Optuna storage URL. With --benchmark: CSV with the columns 'arch' and 'label'."
    ),
]
CandidatesOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="CSV or Parquet of what to choose from. (default: rows of --labels without a label, or the space)"
    ),
]
TargetOption = Annotated[Optional[str], typer.Option(help="Column of the labels. (default: if there is only one)")]  # noqa: UP045
IgnoreOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="Column that is neither a parameter nor the label; repeat."),
]
SpaceOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="TOML or JSON that declares the search space. (default: inferred from the files)"),
]
CostOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="Column of a cost, such as parameters or latency; repeat. (default: none)"),
]

ScoreOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        help="Column of a zero-cost score, larger is better; with a minus before the name smaller is; repeat."
    ),
]

LONG_BYTES = 32 << 20
"""Size of a file of candidates from which on it is read part by part: it would fill the memory."""

RANKED_BYTES = 1 << 20
"""The same where candidates are only ranked, if pyarrow is installed: parts by columns take a tenth of the time."""

SPREAD = 2000
"""Candidates of a long file that its space is inferred from and features are standardised by."""

LINE = 150
"""Characters that are printed of a parameter."""

OWN = ("candidates", "target", "ignore", "space", "sample", "limit")
"""Options that only own files have."""

BENCHMARK = ("benchmark", "dataset", "root", "metric", "download", "context", "split", "queries")
"""Options that only benchmarks have."""


def is_own(ctx: typer.Context, labels: str | None, shared: Sequence[str] = ()) -> bool:
    r"""Returns whether a command works on the user's own space rather than on a benchmark.

    Options tell; where only ``--labels`` is given, the columns of the file: a file with ``arch`` and ``label`` is one
    for a benchmark.

    Args:
        ctx: The call.
        labels: File of labels.
        shared: Options of :data:`BENCHMARK` that the command has for own files too.

    Raises:
        typer.BadParameter: If options of both are given.
    """
    own, benchmark = given(ctx, OWN), given(ctx, [name for name in BENCHMARK if name not in shared])
    if own and benchmark:
        raise typer.BadParameter(f"is for a benchmark, {own[0]} for files of your own", param_hint=benchmark[0])
    if own or benchmark or labels is None:
        return bool(own)
    if labels.lower().endswith((".parquet", ".pq")) or "://" in labels:
        return True
    return not {"arch", "label"} <= set(read_header(labels, ("arch", "label")))


def open_own(
    labels: str | None,
    candidates: Path | None,
    target: str | None,
    ignore: list[str] | None,
    space: Path | None,
    costs: list[str] | None,
    minimize: bool | None,
    *,
    scores: list[str] | None = None,
    unmeasured: bool = False,
    search: bool = False,
) -> OwnTask:
    r"""Opens the user's files, and says what was taken for what.

    Args:
        labels: The measurements.
        candidates: What to choose from.
        target: Column of the labels.
        ignore: Columns that are not used.
        space: Declaration of the space.
        costs: Columns of costs.
        minimize: Whether smaller labels are better.
        scores: Columns of zero-cost scores.
        unmeasured: Whether there may be no label.
        search: Whether rows without a label are in training where a space is declared.

    Raises:
        typer.BadParameter: If there are no labels, and they may not be missing.
    """
    if labels is None and not unmeasured:
        raise typer.BadParameter("names the file of your measurements and is needed", param_hint="--labels")
    long = is_long(candidates, ranked=not search)
    task = read_own_task(
        labels,
        spread_rows(candidates, SPREAD) if candidates is not None and long else candidates,
        target=target,
        ignore=ignore or (),
        minimize=minimize,
        space=space,
        costs=costs or (),
        scores=scores or (),
        in_training=search,
        unmeasured=unmeasured,
    )
    best = "largest" if task.maximize else "smallest"
    parts = []
    if labels is not None:
        parts.append(f"{name_of(labels)}: {len(task.y)} labels ({task.target}, the {best} is best)")
    if task.pool:
        origin = "rows without a label" if candidates is None else f"candidates in {candidates.name}"
        parts.append(origin if long else f"{len(task.pool):,} {origin}")
    if task.waiting:
        parts.append(f"{len(task.waiting):,} rows without a label, taken to be in training")
    say("; ".join(parts) if parts else f"Nothing is measured yet: the first proposals are drawn from {space}")
    if long:
        console.print(f"  by {len(task.pool):,} candidates at equal distances:", highlight=False, style="dim")
    for note in task.notes:
        console.print(f"  {escape(note)}", highlight=False, style="dim")
    if space is None:
        console.print("Space, inferred from the files (--space declares it):", highlight=False)
        show_space(task.space)
    return task


def show_space(space: ParameterSpace) -> None:
    r"""Prints what the parameters of a space are, one a line; very many choices are cut short."""
    for line in space.describe().splitlines():
        shown = line if len(line) <= LINE else f"{line[: LINE - 1]}…"
        console.print(f"  {escape(shown)}", highlight=False, style="dim")


def is_long(candidates: Path | None, *, ranked: bool = False) -> bool:
    r"""Whether a table of candidates is read part by part: a folder, or a large file.

    Args:
        candidates: The file or folder.
        ranked: Whether they are only ranked.
    """
    if candidates is None:
        return False
    by_columns = ranked and importlib.util.find_spec("pyarrow") is not None
    limit = min(RANKED_BYTES, LONG_BYTES) if by_columns else LONG_BYTES
    return candidates.is_dir() or (candidates.is_file() and candidates.stat().st_size > limit)


def streamed(task: OwnTask, candidates: Path, predictor: str, keep: int) -> OwnTask:
    r"""Returns the task with the best of very many candidates, and says how the predictions of all are distributed.

    Args:
        task: The task, with some of the candidates.
        candidates: Parquet or CSV file, or folder of Parquet files.
        predictor: Name of the predictor.
        keep: How many candidates.
    """
    fitted = PREDICTORS[predictor](task.space, maximize=task.maximize).fit(task.archs, task.y)
    found = rank_pool(fitted, candidates, keep)
    levels = (0.01, 0.1, 0.5, 0.9, 0.99)
    quantiles = ", ".join(f"{level:.0%} {found.distribution.quantile(level):.5g}" for level in levels)
    say(f"{len(found):,} candidates were read part by part. Quantiles of predicted {task.target}: {quantiles}")
    best = found.best.drop_columns([PREDICTED, STD])
    return task.shortlisted(plain_columns(best, candidates), len(found), (found.rows + 1).tolist())


def name_of(labels: str) -> str:
    r"""Returns the name of a file or storage for people; passwords in URLs are left out.

    Example:
        >>> name_of("out/measured.csv"), name_of("mysql://me:secret@host/trials")
        ('measured.csv', 'mysql://host/trials')
    """
    scheme, separator, rest = labels.partition("://")
    if not separator:
        return Path(labels).name
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
