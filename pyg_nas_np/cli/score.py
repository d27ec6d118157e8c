r"""The command that scores architectures without training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Optional

import torch
import typer
from rich.markup import escape
from rich.table import Table
from torch import Tensor
from torch.nn.functional import interpolate

from pyg_nas_np.cli.options import SeedOption, check_output, parse_arch, say
from pyg_nas_np.cli.tables import console, plain_text, write_csv
from pyg_nas_np.datasets.images import read_images
from pyg_nas_np.networks.cells import NETWORKS
from pyg_nas_np.networks.zero_cost import SCORES, score_archs
from pyg_nas_np.spaces import CellSpace, space_by_name
from pyg_nas_np.utils import DataFileError, InvalidImagesError, NASError
from pyg_nas_np.utils.table_files import read_csv

MAX_VALUES = 1 << 28
"""Largest batch of images, in values (1 GiB)."""


def score(
    archs: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[ARCH]...", help="Architectures: strings of the space, or official indices."),
    ] = None,
    space: Annotated[str, typer.Option(help=f"One of {', '.join(NETWORKS)}.")] = next(iter(NETWORKS)),
    file: Annotated[Optional[Path], typer.Option(help="CSV with a column 'arch' of more architectures.")] = None,  # noqa: UP045
    random: Annotated[int, typer.Option(min=0, max=1_000_000, help="Architectures to draw at random.")] = 0,
    score: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help=f"One of {', '.join(SCORES)}; repeat. The last one orders the table. (default: all)"),
    ] = None,
    images: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder with a folder for each class, or .npz. (default: noise)"),
    ] = None,
    batch: Annotated[int, typer.Option(min=2, max=65_536, help="Images that the networks see.")] = 16,
    size: Annotated[int, typer.Option(min=4, max=4096, help="Side to which images are resized.")] = 32,
    repeats: Annotated[int, typer.Option(min=1, max=100_000, help="Draws of weights that SWAP averages over.")] = 32,
    swap_mean: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Thousands of parameters that swap-reg prefers. (default: the space's largest)"),
    ] = None,
    seed: SeedOption = 0,
    output: Annotated[Optional[Path], typer.Option(help="CSV to write.")] = None,  # noqa: UP045
) -> None:
    """Score architectures without training: SWAP, NASWOT, synaptic flow, parameters, FLOPs."""
    if space not in NETWORKS:
        raise typer.BadParameter(f"'{space}' is none of {', '.join(NETWORKS)}", param_hint="--space")
    names = list(dict.fromkeys(score or SCORES))
    if unknown := [name for name in names if name not in SCORES]:
        raise typer.BadParameter(f"'{unknown[0]}' is none of {', '.join(SCORES)}", param_hint="--score")
    if swap_mean is not None and not 0 < swap_mean < math.inf:
        raise typer.BadParameter(f"{swap_mean} is not a positive number", param_hint="--swap-mean")
    if batch * 3 * size**2 > MAX_VALUES:
        raise typer.BadParameter(
            f"{batch} images of {size} x {size} are more than {MAX_VALUES:,} values; take fewer or smaller ones",
            param_hint="--batch",
        )
    if output is not None:
        check_output(output)
    chosen = space_by_name(space)
    found = [parse_arch(chosen, text) for text in archs or ()]
    found += [] if file is None else _read_column(chosen, file)
    found += chosen.sample(random, torch.Generator().manual_seed(seed))
    found = list(dict.fromkeys(found))
    if not found:
        raise typer.BadParameter("name architectures, a --file of them, or how many at --random", param_hint="ARCH")
    seen = None if images is None else image_batch(images, batch, size, seed)
    if seen is None:
        seen = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))
    table = score_archs(
        chosen,
        found,
        seen,
        scores=names,
        repeats=repeats,
        swap_mean=swap_mean,
        seed=seed,
        progress=console.is_terminal,
    )
    order = table.column(names[-1]).argsort(descending=True, stable=True).tolist()
    rows = [[*table.values[i].tolist(), chosen.to_str(found[i])] for i in order]
    shown = Table(title=f"{len(found)} architectures of {space} by {names[-1]}", title_justify="left")
    shown.add_column("rank", justify="right")
    for name in names:
        shown.add_column(name, justify="right")
    shown.add_column("architecture", overflow="fold")
    for rank, row in enumerate(rows, start=1):
        shown.add_row(
            str(rank),
            *(_shown(name, value) for name, value in zip(names, row[:-1], strict=True)),
            escape(str(row[-1])),
        )
    console.print(shown)
    if output is not None:
        write_csv(output, [*names, "arch"], rows)
        say(f"Wrote {output}")


def _read_column(space: CellSpace[Any], path: Path) -> list[Any]:
    table = read_csv(path, ("arch",))
    found = []
    for row, text in enumerate(table.column("arch")):
        try:
            found.append(parse_arch(space, plain_text(text)))
        except (NASError, typer.BadParameter) as error:
            raise DataFileError(f"{table.where(row)}: {error}") from error
    return found


def image_batch(path: Path, count: int, size: int, seed: int) -> Tensor:
    r"""Returns images drawn at random, of one size and standardised, ``[count, 3, size, size]``.

    Args:
        path: Folder or file of images.
        count: Number of images.
        size: Side to which they are resized.
        seed: Seed of the draw.

    Raises:
        InvalidImagesError: If there are fewer.
    """
    images = read_images(path)
    if len(images) < count:
        raise InvalidImagesError(f"{path} has {len(images)} images, fewer than --batch {count}")
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    resized = [
        interpolate(images.read(i)[None], (size, size), mode="bilinear", align_corners=False, antialias=True)
        for i in drawn
    ]
    batch = torch.cat(resized)
    std = batch.std((0, 2, 3), keepdim=True)
    return (batch - batch.mean((0, 2, 3), keepdim=True)) / torch.where(std > 0, std, 1.0)


def _shown(name: str, value: float) -> str:
    return f"{value:,.0f}" if name in ("params", "flops") else f"{value:.6g}"
