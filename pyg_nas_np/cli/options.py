r"""Checks of options that several commands share; what is wrong is found before the work."""

from __future__ import annotations

import importlib.util
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.markup import escape

from pyg_nas_np.cli.tables import console
from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.spaces import CellSpace

SEED_LIMIT = 2**63 - 1
"""Largest seed of a :class:`torch.Generator` that is an int64 too."""

MinimizeOption = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option(
        "--minimize/--maximize",
        show_default=False,
        help="Whether smaller labels are better: losses, errors, times. (default: as the metric says)",
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, max=SEED_LIMIT, help="Seed of everything random.")]


def say(text: str) -> None:
    r"""Prints a line as it is: brackets in paths and names are not markup."""
    console.print(escape(text), highlight=False)


def can_draw(name: str) -> bool:
    r"""Returns whether pictures can be drawn; if not, says that this one is left out."""
    if importlib.util.find_spec("matplotlib") is not None:
        return True
    say(f"Left out {name}: matplotlib is not installed. Install it with: pip install 'pyg-nas-np[viz]'")
    return False


def given(ctx: typer.Context, names: Iterable[str]) -> list[str]:
    r"""Returns those of some options that stand on the command line, as they are written there."""
    standing = (name for name in names if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE")
    return [f"--{name.replace('_', '-')}" for name in standing]


def finite(value: float | None) -> float | None:
    r"""Checks a number of the command line, as the callback of an option: ranges let NaN pass.

    Raises:
        typer.BadParameter: If it is NaN or infinite.
    """
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def direction(minimize: bool | None) -> bool | None:
    r"""Returns what predictors call ``maximize``; :obj:`None` leaves it to the data set."""
    return None if minimize is None else not minimize


def check_predictors(names: Iterable[str], split: str) -> list[str]:
    r"""Returns names of predictors, each once.

    Args:
        names: As given.
        split: How a benchmark is split, which is checked too.

    Raises:
        typer.BadParameter: If a predictor or the split is not known.
    """
    chosen = list(dict.fromkeys(names))
    if unknown := [name for name in chosen if name not in PREDICTORS]:
        raise typer.BadParameter(f"'{unknown[0]}' is none of {', '.join(PREDICTORS)}", param_hint="--predictor")
    if split not in ("index", "class"):
        raise typer.BadParameter(f"'{split}' is neither 'index' nor 'class'", param_hint="--split")
    return chosen


def check_priors(names: Iterable[str]) -> None:
    r"""Checks that predictors can rank without a label.

    Raises:
        typer.BadParameter: If one cannot.
    """
    able = [name for name, maker in PREDICTORS.items() if getattr(maker, "has_prior", False)]
    if unable := [name for name in names if name not in able]:
        raise typer.BadParameter(
            f"'{unable[0]}' needs labels; without any take {' or '.join(able)}", param_hint="--predictor"
        )


def check_output(path: Path, suffix: str = "", *, folder: bool = False, option: str = "--output") -> None:
    r"""Checks that a file, or files in a folder, can be written; folders that are missing are made later.

    Args:
        path: The file or folder.
        suffix: How its name must end.
        folder: Whether it is a folder.
        option: Name of the option, for the message.

    Raises:
        typer.BadParameter: If not.
    """
    if suffix and path.suffix != suffix:
        raise typer.BadParameter(f"'{path.name}' must end in {suffix}", param_hint=option)
    parent = path.absolute() if folder else path.absolute().parent
    # Files are written under a longer name first.
    names = [path.name if folder else f".{path.name}.{16 * '0'}"]
    try:
        if not folder and path.exists() and not path.is_file():
            raise typer.BadParameter(f"{path} exists and is not a file", param_hint=option)
        while not parent.exists() and parent != parent.parent:
            names.append(parent.name)
            parent = parent.parent
        with tempfile.TemporaryFile(dir=parent):
            pass
        for name in names:
            # Fails where the name is too long.
            (parent / name).exists()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise typer.BadParameter(f"{path} cannot be written ({reason}: {parent})", param_hint=option) from error


def parse_arch(space: CellSpace[Any], text: str) -> Any:
    r"""Returns the architecture of an official index or of a string of the space.

    Raises:
        typer.BadParameter: If there is no such index.
        InvalidArchitectureError: If the string does not follow the format.
    """
    if not (text.isascii() and text.isdecimal()):
        return space.from_str(text)
    try:
        return space[int(text)]
    except (IndexError, ValueError) as error:
        shown = text if len(text) <= 20 else f"{text[:20]}…"
        raise typer.BadParameter(f"there is no architecture {shown} in {space.name} ({error})") from error
