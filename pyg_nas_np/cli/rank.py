r"""The command that ranks all architectures of a benchmark from a few labels."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Optional

import torch
import typer
from rich.markup import escape
from rich.table import Table

from pyg_nas_np.cli.benchmarks import (
    BenchmarkOption,
    DatasetOption,
    DownloadOption,
    MetricOption,
    RootOption,
    open_benchmark,
)
from pyg_nas_np.cli.labels import read_own_labels
from pyg_nas_np.cli.options import MinimizeOption, SeedOption, check_output, direction, say
from pyg_nas_np.cli.plots import plot_ranking
from pyg_nas_np.cli.report import Ranking, write_report
from pyg_nas_np.cli.tables import console, score_table, write_csv
from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.datasets import ArchitectureDataset, Split
from pyg_nas_np.features import shared_features
from pyg_nas_np.predictors.evaluation import Evaluation, evaluate
from pyg_nas_np.utils import MissingLabelsError, require


def rank(
    benchmark: BenchmarkOption = "nasbench201",
    dataset: DatasetOption = None,
    context: Annotated[int, typer.Option(min=1, help="Number of labels to fit on.")] = 50,
    seed: SeedOption = 0,
    predictor: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help=f"One of {', '.join(PREDICTORS)}; repeat to compare, the first one ranks. (default: convnp)"),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, max=10_000, help="Architectures to print.")] = 10,
    split: Annotated[str, typer.Option(help="'index', or 'class' to leave twins of the labelled out.")] = "class",
    labels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="CSV with your own measurements, columns 'arch' and 'label', instead of the benchmark's."),
    ] = None,
    metric: MetricOption = None,
    minimize: MinimizeOption = None,
    root: RootOption = None,
    output: Annotated[Optional[Path], typer.Option(help="Folder for ranking.csv, scores.csv and ranking.png.")] = None,  # noqa: UP045
    report: Annotated[Optional[Path], typer.Option(help="Self-contained HTML page to write.")] = None,  # noqa: UP045
    download: DownloadOption = False,
) -> None:
    """Rank all architectures of a benchmark from a few labels, and score the ranking."""
    started = time.perf_counter()
    names = predictor or ["convnp"]
    unknown = [name for name in names if name not in PREDICTORS]
    if unknown:
        raise typer.BadParameter(f"'{unknown[0]}' is none of {', '.join(PREDICTORS)}", param_hint="--predictor")
    if split not in ("index", "class"):
        raise typer.BadParameter(f"'{split}' is neither 'index' nor 'class'", param_hint="--split")
    written = () if output is None else ("ranking.csv",) if labels else ("ranking.csv", "scores.csv", "ranking.png")
    for name in written:
        assert output is not None
        check_output(output / name)
    if "ranking.png" in written:
        require("matplotlib.figure", "viz")
    if report is not None:
        check_output(report, option="--report")
    data = open_benchmark(benchmark, dataset, root, metric, download)
    if labels is not None:
        ranking = _rank_own(data, labels, names[0], direction(minimize))
        setting = {"Label": "your own", "Source": labels.name}
    else:
        ranking = _rank_draw(data, names, context, split, seed, direction(minimize))
        setting = {"Label": ranking.label, "Source": data.source.name, "Split": f"by {split}, seed {seed}"}
    console.print(_top_table(ranking, top_k))
    if ranking.scores:
        title = f"{len(ranking.scores)} predictors on {ranking.tested.numel():,} architectures"
        console.print(score_table(ranking.scores, title))
    if output is not None:
        _write_ranking(output / "ranking.csv", ranking)
        if ranking.scores:
            rows = [[name, *e.to_dict().values()] for name, e in ranking.scores.items()]
            write_csv(output / "scores.csv", ["predictor", *next(iter(ranking.scores.values())).to_dict()], rows)
            title = f"{names[0]} on {_name(data)}, {context} labels: "
            title += f"Kendall's tau {ranking.scores[names[0]].kendall_tau:.3f}"
            parts = Split(ranking.seen, torch.empty(0, dtype=torch.long), ranking.tested)
            plot_ranking(
                output / "ranking.png",
                *(ranking.mean, ranking.std, ranking.y, parts, ranking.label, title),
                maximize=ranking.maximize,
            )
        say(f"Wrote {', '.join(written)} to {output}")
    if report is not None:
        head = {
            "Architectures": f"{len(data):,}",
            "Labels given": f"{ranking.seen.numel():,}",
            "Ranked by": ranking.name,
            "Best": "the largest label" if ranking.maximize else "the smallest label",
        }
        write_report(report, ranking, f"{_name(data)}: predicted ranking", head | setting, top_k=top_k)
        say(f"Wrote {report}")
    console.print(f"{time.perf_counter() - started:.1f} s in all")


def _rank_draw(
    data: ArchitectureDataset, names: list[str], context: int, split: str, seed: int, maximize: bool | None
) -> Ranking:
    """Ranks by labels of the benchmark that are drawn at random; the others are tested."""
    if not bool(data.label_mask.any()):
        raise MissingLabelsError(f"{data.space.name} has no labels to rank by. {data.label_help}")
    parts = data.split(context, by=split, seed=seed)  # type: ignore[arg-type]
    unit = data.metrics[data.metric].unit
    fitted = {name: PREDICTORS[name](maximize=maximize) for name in names}
    best = "smallest" if not (data.maximize if maximize is None else maximize) else "largest"
    say(
        f"{_name(data)}: {len(data):,} architectures, {context} labels ({data.metric}, {unit}, from "
        f"{data.source.name}, the {best} is best), {parts.test.numel():,} tested (split by {split}, seed {seed})"
    )
    # All predictors share one table of features; the first must not pay for it alone.
    shared_features(data.space).table()
    scores: dict[str, Evaluation] = {}
    scores[names[0]], mean, std = evaluate(fitted[names[0]], data, parts)
    for name in names[1:]:
        scores[name] = evaluate(fitted[name], data, parts)[0]
    label = f"{data.metric} ({unit})"
    return Ranking(data, fitted[names[0]], names[0], mean, std, data.y, parts.train, label, parts.test, scores)


def _rank_own(data: ArchitectureDataset, path: Path, name: str, maximize: bool | None) -> Ranking:
    """Ranks by the user's own measurements; of several of one architecture, the mean is shown."""
    index, y = read_own_labels(data.space, path)
    seen = data.positions_of(index)
    fitted = PREDICTORS[name](maximize=maximize).fit(data[seen], y)
    mean, std = fitted.predict(data, return_std=True)
    say(f"{len(data):,} architectures ranked by {name} from {seen.numel()} labels in {path}")
    total = torch.zeros(len(data), dtype=torch.float64).index_add_(0, seen, y)
    known = total / torch.bincount(seen, minlength=len(data))
    return Ranking(data, fitted, name, mean, std, known, seen.unique(), "label")


def _name(data: ArchitectureDataset) -> str:
    return " ".join(filter(None, (data.space.name, str(getattr(data, "dataset", "")))))


def _top_table(ranking: Ranking, top_k: int) -> Table:
    data, y = ranking.data, ranking.y
    shown = ranking.order[:top_k].tolist()
    table = Table(title=f"Best {len(shown)} architectures by {escape(ranking.name)}", title_justify="left")
    for column in ("rank", "index", "predicted", "measured", "true rank"):
        table.add_column(column, justify="right")
    table.add_column("architecture", overflow="fold")
    for position, i in enumerate(shown, start=1):
        known = not math.isnan(float(y[i]))
        table.add_row(
            str(position),
            str(int(data.arch_index[i])),
            f"{ranking.mean[i]:.3f} ± {ranking.std[i]:.3f}",
            f"{y[i]:.3f}" if known else "–",
            str(int(ranking.true_ranks[i])) if known else "–",
            escape(data.space.to_str(data.arch(i))),
        )
    return table


def _write_ranking(path: Path, ranking: Ranking) -> None:
    data, order = ranking.data, ranking.order
    in_context = torch.zeros(len(data), dtype=torch.bool)
    in_context[ranking.seen] = True
    rows = zip(
        range(1, len(data) + 1),
        data.arch_index[order].tolist(),
        [data.space.to_str(arch) for arch in data.space.resolve(data.arch_index[order])],
        ranking.mean[order].tolist(),
        ranking.std[order].tolist(),
        ["" if math.isnan(v) else v for v in ranking.y[order].tolist()],
        in_context[order].int().tolist(),
        strict=True,
    )
    write_csv(path, ["rank", "index", "arch", "predicted", "std", "measured", "in_context"], rows)
