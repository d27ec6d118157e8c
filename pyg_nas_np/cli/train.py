r"""The command that meta-trains the neural process for a search space."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional, get_args

import typer
from rich.table import Table

from pyg_nas_np.cli.tables import console
from pyg_nas_np.convnp.weights import read_card
from pyg_nas_np.nn.convnp import Form
from pyg_nas_np.spaces.registry import SPACES, space_by_name


def train(
    space: Annotated[str, typer.Argument(help=f"One of {', '.join(SPACES)}.")],
    output: Annotated[Path, typer.Option(help="Weights to write, .safetensors.")],
    root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of tasks, logs and checkpoints; training resumes from it. (default: none is kept)"),
    ] = None,
    num_tasks: Annotated[int, typer.Option(min=1, help="Tasks to synthesise.")] = 3000,
    max_steps: Annotated[int, typer.Option(min=1, help="Gradient steps.")] = 2000,
    max_minutes: Annotated[float, typer.Option(help="Stop earlier after this time.")] = 60.0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that synthesise tasks.")] = 0,
    devices: Annotated[int, typer.Option(min=1, help="Processes that train.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of weights and tasks.")] = 0,
    form: Annotated[str, typer.Option(help=f"Form of the process, one of {', '.join(get_args(Form))}.")] = "hybrid",
    heads: Annotated[int, typer.Option(min=1, help="Kernels a layer, or grids.")] = 8,
    grid_dim: Annotated[int, typer.Option(min=1, max=2, help="Coordinates of each grid (form on-grid).")] = 1,
    latent_channels: Annotated[int, typer.Option(min=0, help="Latent channels of a cell (form on-grid).")] = 0,
    objective: Annotated[str, typer.Option(help="'ml', or 'elbo' for a process with latent channels.")] = "ml",
) -> None:
    """Meta-train the neural process for a search space, on synthesised tasks; no measured label is used."""
    if space not in SPACES:
        raise typer.BadParameter(f"'{space}' is none of {', '.join(SPACES)}", param_hint="SPACE")
    if output.suffix != ".safetensors":
        raise typer.BadParameter(f"'{output.name}' must end in .safetensors", param_hint="--output")
    if not max_minutes > 0:
        raise typer.BadParameter(f"{max_minutes:g} is not positive", param_hint="--max-minutes")
    if form not in get_args(Form):
        raise typer.BadParameter(f"'{form}' is none of {', '.join(get_args(Form))}", param_hint="--form")
    # Importing Lightning takes seconds, which no other command should wait for.
    from pyg_nas_np.convnp.training import pretrain

    pretrain(
        space_by_name(space),
        output,
        num_tasks=num_tasks,
        max_steps=max_steps,
        max_minutes=max_minutes,
        num_workers=workers,
        devices=devices,
        seed=seed,
        root=root,
        process={"form": form, "heads": heads, "grid_dim": grid_dim, "latent_channels": latent_channels},
        objective=objective,  # type: ignore[arg-type]
        progress=console.is_terminal,
    )
    table = Table(title=str(output), title_justify="left", show_header=False)
    for key, value in read_card(output).items():
        table.add_row(key, str(value))
    console.print(table)
