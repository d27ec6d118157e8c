r"""Commands that train what the package ships weights of: `process`, `metad2a-generator`, `metad2a-predictor`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Optional, get_args

import typer
from rich.markup import escape
from rich.table import Table

from pyg_nas_np.cli.options import SeedOption, check_output, finite
from pyg_nas_np.cli.tables import console
from pyg_nas_np.convnp.weights import read_card
from pyg_nas_np.datasets.mobilenetv3 import read_accuracies
from pyg_nas_np.metad2a.backbone import class_vectors
from pyg_nas_np.metad2a.database import MetaD2ADatabase
from pyg_nas_np.metad2a.generator_training import train_generator
from pyg_nas_np.metad2a.generator_weights import write_generator
from pyg_nas_np.metad2a.mobilenetv3.generator_training import train_sub_network_generator
from pyg_nas_np.metad2a.mobilenetv3.predictor import write_sub_network_model
from pyg_nas_np.metad2a.mobilenetv3.predictor_training import train_sub_network_model
from pyg_nas_np.metad2a.predictor_training import train_performance_model
from pyg_nas_np.metad2a.predictor_weights import write_performance_model
from pyg_nas_np.metad2a.reader import open_database
from pyg_nas_np.nn.convnp import Form
from pyg_nas_np.spaces.graph_codec import GRAPH_CODECS
from pyg_nas_np.spaces.registry import SPACES, space_by_name

app = typer.Typer(help="Train what the package ships weights of.", no_args_is_help=True)

DEFAULT_SPACE = next(iter(GRAPH_CODECS))
MAX_PROCESSES = 128
MAX_STEPS = 1_000_000_000
MAX_MINUTES = 525_600.0
"""A year."""

SourceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE", exists=True, help="Folder of a MetaD2A database, or .csv table of measured sub-networks."
    ),
]
SpaceOption = Annotated[str, typer.Option(help=f"Space of a database, one of {', '.join(GRAPH_CODECS)}.")]


@app.command()
def process(
    space: Annotated[str, typer.Argument(help=f"One of {', '.join(SPACES)}.")],
    output: Annotated[Path, typer.Option(help="Weights to write, .safetensors.")],
    root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of tasks, logs and checkpoints; training resumes from it. (default: none is kept)"),
    ] = None,
    num_tasks: Annotated[int, typer.Option(min=1, max=10_000_000, help="Tasks to synthesise.")] = 3000,
    max_steps: Annotated[int, typer.Option(min=1, max=MAX_STEPS, help="Gradient steps.")] = 2000,
    max_minutes: Annotated[float, typer.Option(min=0, max=MAX_MINUTES, help="Stop earlier after this time.")] = 60.0,
    workers: Annotated[int, typer.Option(min=0, max=MAX_PROCESSES, help="Processes that synthesise tasks.")] = 0,
    accelerator: Annotated[
        str, typer.Option(help="Where to train: 'cpu', 'cuda', or 'auto' for CUDA if any.")
    ] = "auto",
    devices: Annotated[
        int, typer.Option(min=1, max=MAX_PROCESSES, help="CUDA devices, or processes of the CPU, that train.")
    ] = 1,
    seed: SeedOption = 0,
    form: Annotated[str, typer.Option(help=f"Form of the process, one of {', '.join(get_args(Form))}.")] = "hybrid",
    heads: Annotated[int, typer.Option(min=1, max=1024, help="Kernels a layer, or grids.")] = 8,
    grid_dim: Annotated[int, typer.Option(min=1, max=2, help="Coordinates of each grid (form on-grid).")] = 1,
    latent_channels: Annotated[
        int, typer.Option(min=0, max=4096, help="Latent channels of a cell (form on-grid).")
    ] = 0,
    objective: Annotated[str, typer.Option(help="'ml', or 'elbo' for a process with latent channels.")] = "ml",
) -> None:
    """Meta-train the neural process for a search space, on synthesised tasks; no measured label is used."""
    if space not in SPACES:
        raise typer.BadParameter(f"'{space}' is none of {', '.join(SPACES)}", param_hint="SPACE")
    check_output(output, ".safetensors")
    if root is not None:
        check_output(root, folder=True, option="--root")
    if not max_minutes > 0:
        raise typer.BadParameter(f"{max_minutes:g} is not positive", param_hint="--max-minutes")
    if form not in get_args(Form):
        raise typer.BadParameter(f"'{form}' is none of {', '.join(get_args(Form))}", param_hint="--form")
    # Importing Lightning takes seconds, which no other command should wait for.
    from pyg_nas_np.convnp.training import Accelerator, Objective, pretrain

    if accelerator not in get_args(Accelerator):
        choices = ", ".join(get_args(Accelerator))
        raise typer.BadParameter(f"'{accelerator}' is none of {choices}", param_hint="--accelerator")
    if objective not in get_args(Objective):
        raise typer.BadParameter(f"'{objective}' is none of {', '.join(get_args(Objective))}", param_hint="--objective")
    if objective == "elbo" and not latent_channels:
        raise typer.BadParameter("'elbo' is for a process with --latent-channels", param_hint="--objective")
    pretrain(
        space_by_name(space),
        output,
        num_tasks=num_tasks,
        max_steps=max_steps,
        max_minutes=max_minutes,
        num_workers=workers,
        accelerator=accelerator,  # type: ignore[arg-type]
        devices=devices,
        seed=seed,
        root=root,
        process={"form": form, "heads": heads, "grid_dim": grid_dim, "latent_channels": latent_channels},
        objective=objective,  # type: ignore[arg-type]
        progress=console.is_terminal,
    )
    _show(output)


@app.command()
def metad2a_generator(
    source: SourceArgument,
    output: Annotated[Path, typer.Option(help="Weights to write, .safetensors.")],
    space: SpaceOption = DEFAULT_SPACE,
    steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_STEPS, help="Gradient steps. (default: 1000, of a table 2000)")
    ] = None,
    sharpness: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            min=0,
            max=100,
            callback=finite,
            help="How much accurate architectures are preferred. (default: 1, of a table 10)",
        ),
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """Train the generator of MetaD2A."""
    check_output(output, ".safetensors")
    given = {"steps": steps, "sharpness": sharpness}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if source.is_dir():
        model, card = train_generator(_open_database(source, space), seed=seed, **options)
    else:
        model, card = train_sub_network_generator(read_accuracies(source), class_vectors(), seed=seed, **options)
    write_generator(output, model, {"data": source.name, **card})
    _show(output)


@app.command()
def metad2a_predictor(
    source: SourceArgument,
    output: Annotated[Path, typer.Option(help="Weights to write, .safetensors.")],
    space: SpaceOption = DEFAULT_SPACE,
    epochs: Annotated[int, typer.Option(min=1, max=MAX_STEPS, help="Passes of the network over a database.")] = 25,
    seed: SeedOption = 0,
) -> None:
    """Meta-train the predictor of MetaD2A."""
    check_output(output, ".safetensors")
    if source.is_dir():
        started, database = time.perf_counter(), _open_database(source, space)
        model = train_performance_model(database, epochs=epochs, seed=seed)
        card = {"data": source.name, "tuples": len(database), "epochs": epochs, "seed": seed}
        card["seconds"] = round(time.perf_counter() - started)
        write_performance_model(output, model, database.space, card)
    else:
        fitted, card = train_sub_network_model(read_accuracies(source))
        write_sub_network_model(output, fitted, {"data": source.name, **card})
    _show(output)


def _open_database(folder: Path, space: str) -> MetaD2ADatabase:
    if space not in GRAPH_CODECS:
        raise typer.BadParameter(f"'{space}' is none of {', '.join(GRAPH_CODECS)}", param_hint="--space")
    return open_database(folder, space_by_name(space))


def _show(path: Path) -> None:
    """Prints the card of a weight file."""
    table = Table(title=escape(str(path)), title_justify="left", show_header=False)
    for key, value in read_card(path).items():
        table.add_row(escape(key), escape(str(value)))
    console.print(table)
