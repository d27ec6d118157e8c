r"""Rankings of all architectures of a benchmark: from labels of its own, or from the user's."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from rich.markup import escape
from rich.table import Table

from pyg_nas_np.cli.labels import read_own_labels
from pyg_nas_np.cli.options import can_draw, say
from pyg_nas_np.cli.plots import plot_ranking
from pyg_nas_np.cli.ranking import HeldOut, Ranking
from pyg_nas_np.cli.tables import console, score_table, write_csv, write_scores
from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.datasets import ArchitectureDataset
from pyg_nas_np.datasets.splits import Split
from pyg_nas_np.features import shared_features
from pyg_nas_np.predictors import Architectures
from pyg_nas_np.predictors.evaluation import Evaluation, evaluate
from pyg_nas_np.predictors.labels import rank_gauss
from pyg_nas_np.utils import MissingLabelsError


def rank_draw(
    data: ArchitectureDataset, names: list[str], context: int, split: str, seed: int, maximize: bool | None
) -> Ranking:
    r"""Ranks by labels of the benchmark that are drawn at random; the others are tested.

    Args:
        data: The whole benchmark.
        names: Predictors to compare; the first one ranks.
        context: Number of labels to fit on; without any, the others are tested in standard scores.
        split: ``"index"`` or ``"class"``.
        seed: Seed of the draw.
        maximize: Whether larger labels are better. (default: as the benchmark says)

    Raises:
        MissingLabelsError: If the benchmark has no labels.
    """
    if not bool(data.label_mask.any()):
        raise MissingLabelsError(f"{data.space.name} has no labels to rank by. {data.label_help}")
    unit = data.metrics[data.metric].unit
    label, y = f"{data.metric} ({unit})", data.y
    if context:
        parts = data.split(context, by=split, seed=seed)  # type: ignore[arg-type]
    else:
        known = data.label_mask.nonzero().flatten()
        parts, label = Split(known[:0], known[:0], known), f"standard score of {data.metric}"
        y = data.y.double().index_put((known,), rank_gauss(data.y[known].double()))
    fitted = {name: PREDICTORS[name](maximize=maximize) for name in names}
    best = "smallest" if not (data.maximize if maximize is None else maximize) else "largest"
    tested = parts.test.numel()
    say(
        f"{data_name(data)}: {len(data):,} architectures, {context or 'no'} labels ({data.metric}, {unit}, from "
        f"{data.source.name}, the {best} is best), {tested:,} tested (split by {split}, seed {seed})"
    )
    # All predictors share one table of features; the first must not pay for it alone.
    shared_features(data.space).table()
    scores: dict[str, Evaluation] = {}
    scores[names[0]], mean, std = evaluate(fitted[names[0]], data, parts, y)
    for name in names[1:]:
        scores[name] = evaluate(fitted[name], data, parts, y)[0]
    how = f"{tested:,} architectures with known labels that no predictor was fitted to"
    return Ranking(
        _archs(data),
        fitted[names[0]],
        names[0],
        *(mean, std, data.y, parts.train),
        label,
        HeldOut(mean[parts.test], std[parts.test], y[parts.test], how),
        scores,
        {"parameters": data.space.batch_num_parameters(data.arch_index)},
    )


def rank_by_own_labels(data: ArchitectureDataset, path: Path, name: str, maximize: bool | None) -> Ranking:
    r"""Ranks by the user's own measurements; of several of one architecture, the mean is shown.

    Args:
        data: The whole benchmark.
        path: CSV with the columns ``arch`` and ``label``.
        name: The predictor.
        maximize: Whether larger labels are better. (default: as the benchmark says)

    Raises:
        DataFileError: If the file cannot be read, or names no architecture of the benchmark.
        InvalidLabelsError: If a label is not a number.
    """
    index, y = read_own_labels(data.space, path)
    seen = data.positions_of(index)
    fitted = PREDICTORS[name](maximize=maximize).fit(data[seen], y)
    mean, std = fitted.predict(data, return_std=True)
    say(f"{len(data):,} architectures ranked by {name} from {seen.numel()} labels in {path}")
    total = torch.zeros(len(data), dtype=torch.float64, device="cpu").index_add_(0, seen, y)
    known = total / torch.bincount(seen, minlength=len(data))
    costs = {"parameters": data.space.batch_num_parameters(data.arch_index)}
    return Ranking(_archs(data), fitted, name, mean, std, known, seen.unique(), "label", costs=costs)


def show(ranking: Ranking, title: str, top_k: int, output: Path | None) -> None:
    r"""Prints the best architectures and the scores, and writes the files.

    Args:
        ranking: The ranking.
        title: What was ranked.
        top_k: Architectures to print.
        output: Folder of the files. (default: none)
    """
    console.print(best_table(ranking, top_k))
    if ranking.scores and ranking.tested is not None:
        count = ranking.tested.y.numel()
        console.print(score_table(ranking.scores, f"{len(ranking.scores)} predictors on {count:,} architectures"))
    if output is None:
        return
    written = ["ranking.csv"]
    write_ranking(output / "ranking.csv", ranking)
    if ranking.scores and ranking.tested is not None:
        written.append("scores.csv")
        write_scores(output / "scores.csv", ranking.scores)
        tau = ranking.scores[ranking.name].kendall_tau
        if can_draw("ranking.png"):
            written.append("ranking.png")
            plot_ranking(output / "ranking.png", ranking, f"{ranking.name} on {title}: Kendall's tau {tau:.3f}")
    say(f"Wrote {', '.join(written)} to {output}")


def data_name(data: ArchitectureDataset) -> str:
    r"""Returns the name of a benchmark with that of its data set."""
    return " ".join(filter(None, (data.space.name, str(getattr(data, "dataset", "")))))


def best_table(ranking: Ranking, top_k: int) -> Table:
    r"""Returns the best architectures as a table for the terminal."""
    y, ids = ranking.y, ranking.ids[1]
    shown = ranking.order[:top_k]
    table = Table(title=f"Best {len(shown)} architectures by {escape(ranking.name)}", title_justify="left")
    for column in ("rank", "index", "predicted", "measured", "true rank"):
        table.add_column(column, justify="right")
    table.add_column("architecture", overflow="fold")
    for position, (i, name) in enumerate(zip(shown.tolist(), ranking.names(shown), strict=True), start=1):
        known = not math.isnan(float(y[i]))
        table.add_row(
            str(position),
            str(int(ids[i])),
            f"{ranking.mean[i]:.3f} ± {ranking.std[i]:.3f}",
            f"{y[i]:.3f}" if known else "–",
            str(int(ranking.true_ranks[i])) if known else "–",
            escape(name),
        )
    return table


def write_ranking(path: Path, ranking: Ranking) -> None:
    r"""Writes all architectures, the best first."""
    order = ranking.order
    in_context = torch.zeros(len(ranking), dtype=torch.bool, device="cpu")
    in_context[ranking.seen] = True
    rows = zip(
        range(1, len(ranking) + 1),
        ranking.ids[1][order].tolist(),
        ranking.names(order),
        ranking.mean[order].tolist(),
        ranking.std[order].tolist(),
        ["" if math.isnan(v) else v for v in ranking.y[order].tolist()],
        in_context[order].int().tolist(),
        strict=True,
    )
    write_csv(path, ["rank", "index", "arch", "predicted", "std", "measured", "in_context"], rows)


def _archs(data: ArchitectureDataset) -> Architectures:
    return Architectures(data.space, data.arch_index)
