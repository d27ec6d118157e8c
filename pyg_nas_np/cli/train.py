r"""The command that meta-trains the neural process for a search space."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.table import Table

from pyg_nas_np.cli.tables import console
from pyg_nas_np.predictors.weights import read_card
from pyg_nas_np.spaces.registry import SPACES, space_by_name


def train(
    space: Annotated[str, typer.Argument(help=f"One of {', '.join(SPACES)}.")],
    output: Annotated[Path, typer.Option(help="Weights to write, .safetensors.")],
    root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of tasks, logs and checkpoints; training resumes from it. [default: none is kept]"),
    ] = None,
    num_tasks: Annotated[int, typer.Option(min=1, help="Tasks to synthesise.")] = 3000,
    max_steps: Annotated[int, typer.Option(min=1, help="Gradient steps.")] = 2000,
    max_minutes: Annotated[float, typer.Option(help="Stop earlier after this time.")] = 60.0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that synthesise tasks.")] = 0,
    devices: Annotated[int, typer.Option(min=1, help="Processes that train.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of weights and tasks.")] = 0,
) -> None:
    """Meta-train the neural process for a search space, on synthesised tasks; no measured label is used."""
    if space not in SPACES:
        raise typer.BadParameter(f"'{space}' is none of {', '.join(SPACES)}", param_hint="SPACE")
    if output.suffix != ".safetensors":
        raise typer.BadParameter(f"'{output.name}' must end in .safetensors", param_hint="--output")
    if not max_minutes > 0:
        raise typer.BadParameter(f"{max_minutes:g} is not positive", param_hint="--max-minutes")
    # Importing Lightning takes seconds, which no other command should wait for.
    from pyg_nas_np.predictors.pretraining import pretrain

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
        progress=console.is_terminal,
    )
    table = Table(title=str(output), title_justify="left", show_header=False)
    for key, value in read_card(output).items():
        table.add_row(key, str(value))
    console.print(table)
