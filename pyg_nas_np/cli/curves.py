r"""Commands on learning curves: fit, predict, simulate."""

from __future__ import annotations

import functools
import inspect
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Optional

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table
from scipy.stats import kendalltau

from pyg_nas_np.cli.curve_plots import plot_predictions, plot_running, plot_stops
from pyg_nas_np.cli.options import can_draw, check_output, finite, say
from pyg_nas_np.cli.tables import console, write_csv
from pyg_nas_np.curves import EarlyStopping, LastSeenValue, SequentialRegression, replay
from pyg_nas_np.curves.data import LearningCurves
from pyg_nas_np.curves.readers import read_baker, read_long, read_naap440
from pyg_nas_np.curves.regressors import KINDS
from pyg_nas_np.utils import InvalidCurvesError
from pyg_nas_np.utils.table_files import read_header

app = typer.Typer(help="Predict where learning curves end, and stop hopeless trainings.", no_args_is_help=True)

TableArgument = Annotated[
    Path,
    typer.Argument(
        help="Long CSV or Parquet (one row a configuration and epoch), or a published table (acc_1, …; NAAP-440)."
    ),
]
DirectionOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="'up' where more is better, 'down' where less is. Needed for long tables."),
]
ConfigOption = Annotated[str, typer.Option(help="Column of the configurations.")]
EpochOption = Annotated[str, typer.Option(help="Column of the epochs.")]
ValueOption = Annotated[str, typer.Option(help="Column of the values.")]
ArchitectureOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="Column with numbers that describe the architecture; repeat."),
]
HyperparameterOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="Column with numbers that describe the training; repeat."),
]
RegressorOption = Annotated[str, typer.Option(help=f"One of {', '.join(KINDS)}.")]
DrawsOption = Annotated[int, typer.Option(help="Settings of the random search.")]
SeedOption = Annotated[int, typer.Option(help="Seed.")]
OutputOption = Annotated[Optional[Path], typer.Option(help="Folder for the table and the figure.")]  # noqa: UP045


RANGES = {
    "draws": (1, 100_000),
    "seed": (0, 2**32 - 1),
    "training": (3, 2**31),
    "nth_best": (1, 2**31),
    "burn_in": (3, 2**31),
    "orderings": (1, 100_000),
    "checks": (1, 2**31),
}
"""Of the options that are whole numbers; floating-point ones are checked where they are used."""


class Given(NamedTuple):
    r"""What every command works on.

    Args:
        table: The file.
        curves: Its curves.
        model: The predictor, not fitted.
    """

    table: Path
    curves: LearningCurves
    model: SequentialRegression


def _load(
    table: TableArgument,
    direction: DirectionOption = None,
    regressor: RegressorOption = "gp",
    draws: DrawsOption = 100,
    seed: SeedOption = 0,
    config: ConfigOption = "config",
    epoch: EpochOption = "epoch",
    value: ValueOption = "value",
    architecture: ArchitectureOption = None,
    hyperparameter: HyperparameterOption = None,
) -> Given:
    if regressor not in KINDS:
        raise typer.BadParameter(f"'{regressor}' is none of {', '.join(KINDS)}", param_hint="--regressor")
    curves = _read(table, direction, config, epoch, value, architecture, hyperparameter)
    return Given(table, curves, SequentialRegression(regressor, draws=draws, random_state=seed))


def reads_curves(command: Callable[..., None]) -> Callable[..., None]:
    r"""Puts the arguments and options of :func:`_load` in place of the first parameter of a command."""
    shared = dict(inspect.signature(_load).parameters)
    own = list(inspect.signature(command).parameters.values())[1:]

    @functools.wraps(command)
    def wrapper(**options: Any) -> None:
        # Typer does not know of the limits of options that it reads from a signature made by hand.
        for name, (low, high) in RANGES.items():
            if name in options and not low <= options[name] <= high:
                hint = "--" + name.replace("_", "-")
                raise typer.BadParameter(f"{options[name]} is not in the range {low} to {high}", param_hint=hint)
        if (output := options.get("output")) is not None:
            for suffix in (".csv", ".png"):
                check_output(output / f"curves_{command.__name__}{suffix}")
        given = _load(**{name: options.pop(name) for name in shared})
        command(given, **options)

    # Typer makes the command line from these two.
    wrapper.__signature__ = inspect.Signature([*shared.values(), *own])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {**_load.__annotations__, **command.__annotations__, "return": None}
    del wrapper.__annotations__["given"]
    return wrapper


def _check_output(folder: Path | None) -> None:
    """Finds out before the work whether its results can be written."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise typer.BadParameter(f"{folder} cannot be written to: {error.strerror}", param_hint="--output") from error


def _draw(output: Path, name: str, plot: Callable[[Path], None]) -> None:
    """The picture beside a table that is written already."""
    written = [f"{name}.csv"]
    if can_draw(f"{name}.png"):
        plot(output / f"{name}.png")
        written.append(f"{name}.png")
    say(f"Wrote {' and '.join(written)} to {output}")


def _read(
    path: Path,
    direction: str | None,
    config: str,
    epoch: str,
    value: str,
    architecture: list[str] | None,
    hyperparameter: list[str] | None,
) -> LearningCurves:
    if direction not in (None, "up", "down"):
        raise typer.BadParameter(f"'{direction}' is neither 'up' nor 'down'", param_hint="--direction")
    header = [] if path.suffix == ".parquet" else read_header(path)
    if any(re.fullmatch(r"(acc|ep)_\d+", name) for name in header):
        curves = read_baker(path)
    elif "e1Accuracy" in header:
        curves = read_naap440(path)
    elif direction is None:
        raise typer.BadParameter("a long table needs 'up' or 'down'", param_hint="--direction")
    else:
        curves = read_long(
            path,
            direction,  # type: ignore[arg-type]
            config=config,
            epoch=epoch,
            value=value,
            architecture=architecture or (),
            hyperparameters=hyperparameter or (),
        )
    if direction is not None and direction != curves.direction:
        raise InvalidCurvesError(f"{path} is a published table whose direction is '{curves.direction}'")
    if curves.looks_reversed:
        raise InvalidCurvesError(
            f"nine in ten curves of {path} end worse than they began: is the direction '{curves.direction}' right?"
        )
    return curves


@app.command()
@reads_curves
def fit(
    given: Given,
    fraction: Annotated[
        float, typer.Option(min=0, max=1, callback=finite, help="Share of the curve that is seen.")
    ] = 0.25,
    training: Annotated[int, typer.Option(min=3, help="Curves to fit on; the others are tested.")] = 100,
    output: OutputOption = None,
) -> None:
    """Fit on some finished curves, and score the predictions for the others."""
    table, curves, model = given
    curves = curves.unique()
    curves = curves[curves.finished]
    if not 3 <= training < len(curves):
        raise InvalidCurvesError(
            f"{training} curves to fit on and one to test at least are needed, {len(curves)} of {table} are finished"
        )
    order = np.random.default_rng(model.random_state).permutation(len(curves))
    train, test = curves[order[:training]], curves[order[training:]]
    tau = curves.prefix(fraction)
    shown = Table(title=f"{len(test)} curves after {tau} of {len(curves.epochs)} values", title_justify="left")
    for column in ("predictor", "R²", "Kendall's tau", "sd of the residuals", "within 90 %"):
        shown.add_column(column, justify="right")
    mean = std = np.empty(0)
    for name, predictor in (("last value", LastSeenValue()), (model.regressor, model)):
        mean, std = predictor.fit(train).predict(test, tau, return_std=True)
        inside = float(np.mean(np.abs(mean - test.final) <= 1.645 * std))
        tau_b = float(kendalltau(mean, test.final).statistic)
        r2 = predictor.score(test, tau)
        shown.add_row(name, f"{r2:.3f}", f"{tau_b:.3f}", f"{float(np.std(mean - test.final)):.4g}", f"{inside:.2f}")
    console.print(shown)
    if output is not None:
        rows = zip(test.configs, mean.tolist(), std.tolist(), test.final.tolist(), strict=True)
        write_csv(output / "curves_fit.csv", ["config", "predicted", "std", "final"], rows)
        title = f"{table.stem}: {model.regressor}, {fraction:.0%} seen"
        _draw(output, "curves_fit", lambda path: plot_predictions(path, mean, std, test.final, title))


@app.command()
@reads_curves
def predict(
    given: Given,
    output: OutputOption = None,
) -> None:
    """Predict where the running curves of a table end, from those that are finished."""
    table, curves, model = given
    lost = ~curves.mask.any(1)
    if lost.any():
        console.print(f"{int(lost.sum())} configurations without a finite value are left out")
    curves = curves[~lost & ~curves.diverged]
    running = curves[~curves.finished]
    if not len(running):
        raise InvalidCurvesError(
            f"every curve of {table} reaches epoch {curves.epochs[-1]}: nothing is to be predicted"
        )
    mean, std = model.fit(curves).predict(running, return_std=True)
    best = float((curves.sign * curves.final[curves.finished]).max() * curves.sign)
    shown = Table(
        title=f"{len(running)} running trainings; best of {int(curves.finished.sum())} finished: {best:.4g}",
        title_justify="left",
    )
    for column in ("configuration", "epochs", "now", "predicted end"):
        shown.add_column(column, justify="right", overflow="fold")
    now = running.observed(int(running.lengths.max()))[:, -1]
    rows = []
    for i in (-curves.sign * mean).argsort(kind="stable").tolist():
        rows.append([running.configs[i], int(running.lengths[i]), float(now[i]), float(mean[i]), float(std[i])])
        shown.add_row(escape(running.configs[i]), str(rows[-1][1]), f"{now[i]:.4g}", f"{mean[i]:.4g} ± {std[i]:.2g}")
    console.print(shown)
    if output is not None:
        write_csv(output / "curves_predict.csv", ["config", "epochs", "now", "predicted", "std"], rows)
        title = f"{table.stem}: {model.regressor}"
        _draw(output, "curves_predict", lambda path: plot_running(path, curves, mean, std, title))


@app.command()
@reads_curves
def simulate(
    given: Given,
    delta: Annotated[
        float,
        typer.Option(min=0, max=1, callback=finite, help="Stop when the chance of not beating the best reaches this."),
    ] = 0.95,
    offset: Annotated[
        float, typer.Option(min=0, callback=finite, help="Keep what ends within this of the best.")
    ] = 0.0,
    nth_best: Annotated[int, typer.Option(min=1, help="Compare with the n-th best.")] = 1,
    burn_in: Annotated[int, typer.Option(min=1, help="Trainings that are finished first.")] = 40,
    orderings: Annotated[int, typer.Option(min=1, max=100_000, help="Random orders of the configurations.")] = 10,
    checks: Annotated[int, typer.Option(min=1, help="Times at which a training is judged.")] = 20,
    output: OutputOption = None,
) -> None:
    """Replay recorded trainings with early stopping: what it would have saved and lost."""
    table, curves, model = given
    curves = curves.unique()
    curves = curves[curves.finished]
    if len(curves) <= burn_in:
        raise InvalidCurvesError(
            f"{len(curves)} curves of {table} are finished, not more than the burn-in of {burn_in}; lower --burn-in"
        )
    rows, spent, order = [], np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    for number in range(orderings):
        order = np.random.default_rng([model.random_state, number]).permutation(len(curves))
        rule = EarlyStopping(
            curves.epochs, curves.direction, model, delta=delta, offset=offset, nth_best=nth_best, burn_in=burn_in
        )
        result = replay(curves, order, rule, checks)
        spent = result.epochs
        rows.append([number, result.speedup, result.regret, curves.configs[result.best]])
    speed, regret = np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
    shown = Table(title=f"{len(curves)} trainings in {orderings} orders, Δ = {delta}", title_justify="left")
    for column in ("", "median", "lowest", "highest"):
        shown.add_column(column, justify="right")
    for label, values in (("speed-up", speed), ("regret", regret)):
        shown.add_row(label, f"{np.median(values):.3f}", f"{values.min():.3f}", f"{values.max():.3f}")
    console.print(shown)
    console.print(f"The best configuration was kept in {int((regret == 0).sum())} of {orderings} orders")
    if output is not None:
        write_csv(output / "curves_simulate.csv", ["ordering", "speedup", "regret", "best"], rows)
        title = f"{table.stem}: stopped in red, Δ = {delta}"
        _draw(output, "curves_simulate", lambda path: plot_stops(path, curves[order], spent, title))
