r"""The command that goes from images to architectures."""

from __future__ import annotations

import colorsys
import json
import math
import re
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import torch
import typer
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from pyg_nas_np.cli import svg
from pyg_nas_np.cli.options import SeedOption, check_output, finite, say
from pyg_nas_np.cli.score import image_batch
from pyg_nas_np.cli.stages import draw_stages
from pyg_nas_np.cli.tables import console, write_csv
from pyg_nas_np.metad2a.generator import MOST
from pyg_nas_np.metad2a.image_features import ImageFeatures
from pyg_nas_np.metad2a.predictor import MetaD2APredictor
from pyg_nas_np.metad2a.search import Candidate, MetaD2A
from pyg_nas_np.networks.cells import NETWORKS
from pyg_nas_np.networks.zero_cost import SCORES, score_archs
from pyg_nas_np.spaces import CellSpace, space_by_name
from pyg_nas_np.spaces.graph_codec import GRAPH_CODECS
from pyg_nas_np.utils import atomic_path

_STYLE = (
    "<style>text{font:11px system-ui,sans-serif;fill:#222}.edge{stroke:#777;stroke-width:1.4;fill:none}"
    ".head{fill:#777}rect.op{fill:#e6e6e6;stroke:#555}svg{background:#fff}</style>"
)
SEEN = 16
"""Images that zero-cost scores see."""

_HUE = re.compile(r"hsl\((\d+) 60% var\(--op\)\)")
_HEADER = ["rank", "predicted", "std", "parameters", "flops", "arch"]


def generate(
    images: Annotated[Path, typer.Argument(help="Folder with a folder of images for each class, or an .npz file.")],
    space: Annotated[str, typer.Option(help=f"One of {', '.join(GRAPH_CODECS)}.")] = next(iter(GRAPH_CODECS)),
    top_k: Annotated[int, typer.Option(min=1, max=MOST, help="Architectures to show.")] = 10,
    candidates: Annotated[int, typer.Option(min=1, max=MOST, help="Different architectures to generate.")] = 500,
    limit: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Largest cost, 'parameters=1e6' or 'flops=1e8'; repeat for both."),
    ] = None,
    images_per_class: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Images of each class that are looked at.")
    ] = 20,
    temperature: Annotated[float, typer.Option(help="Below 1 prefers what is likely, above 1 spreads.")] = 1.0,
    score: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help=f"Zero-cost score on {SEEN} of the images that joins the ranking: {', '.join(SCORES)}; repeat."
        ),
    ] = None,
    prior: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            min=0.0,
            callback=finite,
            help="Weight of the prior trend and the scores beside the predictions. (default: chosen by space)",
        ),
    ] = None,
    seed: SeedOption = 0,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for architectures.csv, architectures.json and a drawing of each."),
    ] = None,
) -> None:
    """Generate architectures for a data set of images and rank them; nothing is trained."""
    if space not in GRAPH_CODECS:
        raise typer.BadParameter(f"'{space}' is none of {', '.join(GRAPH_CODECS)}", param_hint="--space")
    if not 0 < temperature < math.inf:
        raise typer.BadParameter(f"{temperature} is not a positive number", param_hint="--temperature")
    scores = list(dict.fromkeys(score or ()))
    if unknown := [name for name in scores if name not in SCORES]:
        raise typer.BadParameter(f"'{unknown[0]}' is none of {', '.join(SCORES)}", param_hint="--score")
    if scores and space not in NETWORKS:
        raise typer.BadParameter(
            f"there are no networks of {space}, only of {', '.join(NETWORKS)}", param_hint="--score"
        )
    if output is not None:
        for name in ("architectures.csv", "architectures.json", f"architecture-{top_k:02d}.svg"):
            check_output(output / name)
    budget = dict(_limit(text) for text in limit or ())
    chosen = space_by_name(space)
    predictor = MetaD2APredictor(chosen)
    method = MetaD2A(features=ImageFeatures(images_per_class=images_per_class, seed=seed), predictor=predictor)
    started = time.perf_counter()
    sets = method.describe(images)
    described = time.perf_counter()
    batch = image_batch(images, SEEN, 32, seed) if scores else torch.empty(0)

    def scored(name: str, archs: Sequence[Any]) -> Tensor:
        return score_archs(chosen, archs, batch, scores=(name,), repeats=4, seed=seed).column(name)

    found = method.search(
        sets,
        chosen,
        max(candidates, top_k),
        top_k,
        budget,
        scores={name: partial(scored, name) for name in scores},
        prior=prior,
        temperature=temperature,
        seed=seed,
    )
    done = time.perf_counter()
    rows = _rows(chosen, found)
    console.print(_table(rows, f"Best {len(rows)} of {candidates} {space} architectures for {images.name}"))
    say(
        f"{sets.num_classes} classes, {sets.features.size(0)} images described in {described - started:.1f} s; "
        f"generated and ranked in {done - described:.1f} s. {predictor.model(chosen).note}"
    )
    if output is not None:
        write_csv(output / "architectures.csv", _HEADER, rows)
        with atomic_path(output / "architectures.json") as tmp:
            records = [dict(zip(_HEADER, row, strict=True)) for row in rows]
            tmp.write_text(
                json.dumps({"space": space, "images": images.name, "architectures": records}, indent=1), "utf-8"
            )
        for rank, candidate in enumerate(found, start=1):
            with atomic_path(output / f"architecture-{rank:02d}.svg") as tmp:
                tmp.write_text(_drawing(chosen, candidate.arch), "utf-8")
        say(f"Wrote architectures.csv, architectures.json and {len(found)} drawings to {output}")


def _limit(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not of the form parameters=1e6", param_hint="--limit") from None


def _rows(space: CellSpace[Any], found: list[Candidate[Any]]) -> list[list[Any]]:
    archs = [candidate.arch for candidate in found]
    costs = zip(space.batch_num_parameters(archs).tolist(), space.batch_flops(archs).tolist(), strict=True)
    return [
        [rank, round(c.accuracy, 3), round(c.std, 3), parameters, flops, space.to_str(c.arch)]
        for rank, (c, (parameters, flops)) in enumerate(zip(found, costs, strict=True), start=1)
    ]


def _table(rows: list[list[Any]], title: str) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for column in ("rank", "predicted", "parameters", "FLOPs"):
        table.add_column(column, justify="right")
    table.add_column("architecture", overflow="fold")
    for rank, mean, std, parameters, flops, arch in rows:
        table.add_row(
            str(rank), f"{mean:.2f} ± {std:.2f}", f"{parameters / 1e6:.3f} M", f"{flops / 1e6:.1f} M", escape(arch)
        )
    return table


def _drawing(space: CellSpace[Any], arch: Any) -> str:
    """A drawing that is a file of its own: with a name space, a background and plain colours."""
    stages = space.stages(arch)
    drawn = draw_stages(stages, space.to_str(arch)) if stages else svg.cell(space, arch)
    head, _, rest = _HUE.sub(_plain, drawn).partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg">{_STYLE}{rest}\n'


def _plain(hue: re.Match[str]) -> str:
    """The colour in six digits: outside of browsers few programs know variables or hues."""
    red, green, blue = colorsys.hls_to_rgb(int(hue.group(1)) / 360, 0.84, 0.6)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
