r"""Own search spaces: what ranks configurations from a few labels, beside the usual peers.

    python benchmarks/own_spaces.py --draws 10
    python benchmarks/own_spaces.py --further --draws 3
    python benchmarks/own_spaces.py --report-only

Protocol: every table holds each configuration once (repeats averaged, equal networks kept once), at most 2,300 of them;
n random ones are labelled and up to 2,000 others ranked. Every method gets the same scores of the labels
(:class:`~pyg_nas_np.predictors.labels.LabelTransform`). Peers see what a user would write down: numbers (logarithms
where they span decades), one-hot categories, lists of layers padded with zeros; ``size`` the costs alone. Features are
standardised over the configurations of the table. ``botorch-mixed`` sees categories as such.

Every (table, method, n, draw) is one row of ``results/own_spaces.csv``, written as it comes; what is there is not run
again. Kendall's tau; regret of the first pick as a share of the range of the labels; true rank of the best of the ten
first picks; coverage of 90 % intervals; negative log density of the labels inside the range of the labelled, on the
scale of the scores; seconds of fitting and predicting on one core. The tables also go to ``.md``, the plot to ``.png``.

``convnp`` on tables with graphs asks an encoder that was trained on other spaces, never on one with the same cells
(``benchmarks/universal.py``); ``bank`` is the same without it.

A family mean is the mean over families of tables of the mean within a family, of development tables and of further
ones, on which nothing was chosen. Differences between two methods are those of equal draws, and so are their standard
errors. The best single peer of n has the largest family mean there, of the peers that ran on every family.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import _rows
import numpy as np
import torch
from _own_tables import DEVELOPED, FAMILIES, LOADERS, Floats, PlainColumns, Table
from _timing import RESULTS, machine
from torch import Tensor

from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.features import shared_features
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.predictors import Predictor
from pyg_nas_np.predictors.labels import LabelTransform
from pyg_nas_np.spaces import Categorical, Integer, OperationView, ParameterSpace, Repeat
from pyg_nas_np.utils import atomic_path

BUDGETS = (10, 20, 50, 100, 200)
TARGETS = 2000
AIMS = {10: 0.59, 20: 0.67, 50: 0.745, 100: 0.79, 200: 0.80}
RECORDS = {10: 0.50, 20: 0.575, 50: 0.69}
"""Aims of the family means: of the bank, and of it without graphs and sizes."""
MARGIN = 0.03
COVERAGE = (0.87, 0.93)
SECONDS = 3.0
"""Further aims: above the best peer, coverage of 90 % intervals, 100 labels and 10,000 candidates on one core."""

Prediction = tuple[Tensor, Tensor | None]


# -- methods ----------------------------------------------------------------------------------------------------------


class Inputs(NamedTuple):
    r"""A table, its rows as a user would write them down ``[n, F]``, the same with codes of categories in the last
    columns (and their number), and its sizes ``[n, S]``."""

    table: Table
    plain: Floats
    mixed: tuple[Floats, int]
    sizes: Floats


def sklearn_gp(x: Floats, z: Floats, target: Floats) -> Prediction:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    kernel = ConstantKernel() * Matern(np.ones(x.shape[1]), (1e-2, 1e3), nu=2.5) + WhiteKernel(0.1)
    mean, std = GaussianProcessRegressor(kernel, random_state=0).fit(x, z).predict(target, return_std=True)
    return torch.from_numpy(mean), torch.from_numpy(std)


def random_forest(x: Floats, z: Floats, target: Floats) -> Prediction:
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(300, random_state=0).fit(x, z)
    trees = torch.from_numpy(np.stack([tree.predict(target) for tree in forest.estimators_]))
    return trees.mean(dim=0), trees.std(dim=0)


def xgboost(x: Floats, z: Floats, target: Floats) -> Prediction:
    from xgboost import XGBRegressor

    model = XGBRegressor(
        n_estimators=300, learning_rate=0.05, max_depth=5, subsample=0.8, colsample_bytree=0.8, n_jobs=1
    )
    return torch.from_numpy(model.fit(x, z).predict(target)).double(), None


def botorch(x: Floats, z: Floats, target: Floats) -> Prediction:
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Normalize
    from gpytorch.mlls import ExactMarginalLogLikelihood

    inputs, scores = torch.from_numpy(x), torch.from_numpy(z).unsqueeze(1)
    model = SingleTaskGP(inputs, scores, input_transform=Normalize(x.shape[1]))
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    with torch.no_grad():
        found = model.posterior(torch.from_numpy(target), observation_noise=True)
    return found.mean.squeeze(1), found.variance.sqrt().squeeze(1)


def botorch_mixed(x: Floats, z: Floats, target: Floats, categories: int = 0) -> Prediction:
    r"""The last columns are codes of categories."""
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import MixedSingleTaskGP
    from gpytorch.mlls import ExactMarginalLogLikelihood

    inputs, scores = torch.from_numpy(x), torch.from_numpy(z).unsqueeze(1)
    model = MixedSingleTaskGP(inputs, scores, cat_dims=[*range(x.shape[1] - categories, x.shape[1])])
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    with torch.no_grad():
        found = model.posterior(torch.from_numpy(target), observation_noise=True)
    return found.mean.squeeze(1), found.variance.sqrt().squeeze(1)


def ridge(x: Floats, z: Floats, target: Floats) -> Prediction:
    from sklearn.linear_model import BayesianRidge

    mean, std = BayesianRidge().fit(x, z).predict(target, return_std=True)
    return torch.from_numpy(mean), torch.from_numpy(std)


PEERS: dict[str, Callable[[Floats, Floats, Floats], Prediction]] = {
    "sklearn-gp": sklearn_gp,
    "rf": random_forest,
    "xgb": xgboost,
    "botorch": botorch,
}
ALONE = "convnp-records"
"""The same predictor that sees no graph and no size."""

BANK = "bank"
"""The same predictor without the encoder that was trained on other spaces; run on tables with graphs."""

OURS = ("convnp", BANK, ALONE)
MIXED, SIZE = "botorch-mixed", "size"
OWN = {"convnp": "convnp", BANK: "bank", ALONE: "convnp"} | {
    name: name for name in ("gp", "random-forest", "xgboost", "ridge")
}
METHODS = (*OWN, *PEERS, MIXED, SIZE)
SLOW = ("sklearn-gp", "botorch", MIXED)


def predict(method: str, inputs: Inputs, train: Tensor, target: Tensor, z: Tensor) -> Prediction | None:
    r"""Means and standard deviations of the scores of the targets; :obj:`None` where the method does not apply."""
    rows, others = train.numpy(), target.numpy()
    if method in PEERS:
        return PEERS[method](inputs.plain[rows], z.numpy(), inputs.plain[others])
    if method == MIXED:
        x, categories = inputs.mixed
        return botorch_mixed(x[rows], z.numpy(), x[others], categories) if categories else None
    if method == SIZE:
        return ridge(inputs.sizes[rows], z.numpy(), inputs.sizes[others]) if inputs.sizes.shape[1] else None
    table = inputs.table
    if method == BANK and not isinstance(table.space, OperationView):
        return None
    space = table.records if method == ALONE else table.space
    predictor: Predictor = PREDICTORS[OWN[method]](space, maximize=table.maximize)
    predictor.fit([table.archs[i] for i in rows], table.y[train])
    return predictor.predict_scores([table.archs[i] for i in others])


# -- one cell ---------------------------------------------------------------------------------------------------------


def measure(method: str, inputs: Inputs, n: int, draw: int) -> dict[str, float] | None:
    r"""Scores of one method from n random labels."""
    table = inputs.table
    order = torch.randperm(len(table.archs), generator=torch.Generator().manual_seed(draw))
    train, target = order[:n], order[n : n + TARGETS]
    transform = LabelTransform(maximize=table.maximize)
    z = transform.fit(table.y[train])
    start = time.perf_counter()
    found = predict(method, inputs, train, target, z)
    if found is None:
        return None
    seconds = time.perf_counter() - start
    mean, std = found[0].double(), found[1]
    better = table.y[target] if table.maximize else -table.y[target]
    picks = mean.argsort(descending=True)
    best = better[picks[:10]].max()
    scores = {
        "tau": float(kendall_tau(mean, better, undefined=0.0)),
        "regret": float((better.max() - better[picks[0]]) / (better.max() - better.min())),
        "best10": float((better > best).sum() + 1),
        "seconds": seconds,
    }
    if std is not None:
        std = std.double().clamp_min(1e-6)
        ends = torch.stack([transform.inverse(mean + side * 1.6449 * std)[0] for side in (-1, 1)]).sort(dim=0).values
        scores["coverage"] = float(((table.y[target] >= ends[0]) & (table.y[target] <= ends[1])).double().mean())
        truth, inside = scores_of(transform, table.y[target])
        deviation = (truth - mean)[inside] / std[inside]
        nll = 0.5 * deviation.square() + std[inside].log() + 0.5 * math.log(2 * math.pi)
        scores["nll"] = float(nll.mean())
    return scores


def scores_of(transform: LabelTransform, y: Tensor) -> tuple[Tensor, Tensor]:
    r"""Scores of new labels by the fitted map, and which of them lie inside its range."""
    labels, order = transform.inverse(transform.scores)[0].sort()
    scores = transform.scores[order]
    inside = (y >= labels[0]) & (y <= labels[-1])
    return torch.from_numpy(np.interp(y.numpy(), labels.numpy(), scores.numpy())), inside


FIELDS = ("table", "method", "n", "draw", "tau", "regret", "best10", "coverage", "nll", "seconds")


def run(args: argparse.Namespace) -> None:
    r"""Measures what is not in the file yet, one draw of everything after the other."""

    @cache
    def inputs(name: str) -> Inputs:
        table = LOADERS[name]()
        features = shared_features(table.space)
        sizes = features.table(table.archs)[:, features.feature_groups.get("sizes", [])]
        columns = PlainColumns(table)
        return Inputs(table, columns.rows, columns.mixed(), sizes.double().numpy())

    done = {(row["table"], row["method"], int(row["n"]), int(row["draw"])) for row in _rows.read(args.results)}
    deadline = time.monotonic() + 60 * args.minutes
    for draw in range(args.draws):
        for name in args.tables:
            for n in args.budgets:
                for method in args.methods:
                    slow = method in SLOW and (n > args.slow_until or draw >= args.slow_draws)
                    if slow or (name, method, n, draw) in done or 2 * n > len(inputs(name).table.archs):
                        continue
                    if time.monotonic() > deadline:
                        print("stopped by --minutes; run again to go on", flush=True)
                        return
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # of peers that do not converge
                        scores = measure(method, inputs(name), n, draw)
                    if scores is None:
                        continue
                    _rows.append(args.results, FIELDS, {"table": name, "method": method, "n": n, "draw": draw} | scores)
                    print(f"{name} {method} n={n} draw={draw}: tau {scores['tau']:.3f}", flush=True)


# -- summaries --------------------------------------------------------------------------------------------------------

Draws = dict[tuple[str, str, int], dict[int, float]]
"""(table, method, n) → draw → value."""


def draws_of(rows: Iterable[Mapping[str, str]], metric: str) -> Draws:
    r"""Values of a metric; of ranks the logarithms."""
    values: Draws = defaultdict(dict)
    for row in rows:
        if row[metric]:
            value = float(row[metric])
            value = math.log(value) if metric == "best10" else value
            values[row["table"], row["method"], int(row["n"])][int(row["draw"])] = value
    return values


def family_mean(tables: Mapping[str, float]) -> tuple[float, int]:
    r"""Mean over families of the means of their tables, and the number of families."""
    families: dict[str, list[float]] = defaultdict(list)
    for name, value in tables.items():
        families[FAMILIES[name]].append(value)
    return statistics.fmean(statistics.fmean(values) for values in families.values()), len(families)


def family_means(draws: Draws, tables: Collection[str]) -> dict[tuple[str, int], tuple[float, int]]:
    r"""(method, n) → mean over families, and their number."""
    means: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for (table, method, n), values in draws.items():
        if table in tables:
            means[method, n][table] = statistics.fmean(values.values())
    return {key: family_mean(values) for key, values in means.items()}


def differences(draws: Draws, table: str, n: int, peer: str, own: str = "convnp") -> list[float]:
    r"""Own minus peer in their common draws."""
    mine, other = draws.get((table, own, n), {}), draws.get((table, peer, n), {})
    return [mine[draw] - other[draw] for draw in mine.keys() & other.keys()]


def gap_of(draws: Draws, table: str, n: int, peer: str) -> tuple[float, float] | None:
    r"""Mean difference from a peer with its standard error; :obj:`None` without three draws."""
    found = differences(draws, table, n, peer)
    return (statistics.fmean(found), statistics.stdev(found) / math.sqrt(len(found))) if len(found) > 2 else None


def grid(title: str, budgets: Sequence[int], rows: Mapping[str, Sequence[str]], corner: str = "method") -> list[str]:
    r"""A Markdown table with a column a budget."""
    lines = ["", title, "", f"| {corner} | " + " | ".join(map(str, budgets)) + " |", "|---" * (1 + len(budgets)) + "|"]
    return lines + [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items() if any(cells)]


def report(rows: list[dict[str, str]]) -> str:
    r"""Markdown tables: family means beside the aims, margins over peers, every table."""
    budgets = sorted({int(row["n"]) for row in rows})
    methods = [method for method in METHODS if any(row["method"] == method for row in rows)]
    known = {row["table"] for row in rows}
    parts = {
        "development": [name for name in LOADERS if name in known and name in DEVELOPED],
        "further": [name for name in LOADERS if name in known and name not in DEVELOPED],
    }
    lines: list[str] = []
    taus = draws_of(rows, "tau")
    for part, tables in parts.items():
        for metric in ("tau", "regret", "best10", "coverage", "nll", "seconds"):
            means = family_means(taus if metric == "tau" else draws_of(rows, metric), tables)
            shown: dict[str, list[str]] = {}
            for method in methods:
                cells = [means.get((method, n)) for n in budgets]
                unit = math.exp if metric == "best10" else float
                shown[method] = [f"{unit(cell[0]):.3f} ({cell[1]})" if cell else "" for cell in cells]
            if metric == "tau" and part == "development":
                for title, aims in (("aim", AIMS), ("aim, records alone", RECORDS)):
                    shown[title] = [f"{aims[n]:.3f}" if n in aims else "" for n in budgets]
            lines += grid(f"{metric}, family mean over the {part} tables (families)", budgets, shown)
        for title, peers in (("peers", [*PEERS, MIXED, SIZE]), ("peers and plain predictors", methods)):
            lines += grid(
                f"convnp beside {title}, {part} tables", budgets, margins(taus, tables, budgets, peers), "measure"
            )
    for part, tables in parts.items():
        if gains := encoder_gains(taus, tables, budgets):
            lines += grid(f"convnp minus bank, what the encoder brings, {part} tables", budgets, gains, "family")
    shown = {}
    for name in [*parts["development"], *parts["further"]]:
        shown[name] = []
        for n in budgets:
            best = best_peer(taus, name, n, (*PEERS, MIXED, SIZE))
            if best is None or (name, "convnp", n) not in taus:
                shown[name].append("")
                continue
            ours, theirs = (statistics.fmean(taus[name, method, n].values()) for method in ("convnp", best))
            gap = gap_of(taus, name, n, best)
            shown[name].append(f"{ours:.3f}, {theirs:.3f} {best}" + (f" (± {gap[1]:.3f})" if gap else ""))
    title = "tau of convnp, and of the best peer of each table, chosen in hindsight (± error of the difference)"
    lines += grid(title, budgets, shown, "table")
    return "\n".join(lines)


def encoder_gains(taus: Draws, tables: Sequence[str], budgets: Sequence[int]) -> dict[str, list[str]]:
    r"""Differences to the bank on equal draws, by family: their mean and its standard error over tables and draws."""
    shown: dict[str, list[str]] = {}
    means: dict[int, list[float]] = defaultdict(list)
    for family in dict.fromkeys(FAMILIES[name] for name in tables):
        cells = []
        for n in budgets:
            gaps = [differences(taus, name, n, BANK) for name in tables if FAMILIES[name] == family]
            gaps = [values for values in gaps if len(values) >= 2]
            if not gaps:
                cells.append("")
                continue
            mean = statistics.fmean(statistics.fmean(values) for values in gaps)
            error = math.sqrt(sum(statistics.variance(values) / len(values) for values in gaps)) / len(gaps)
            means[n].append(mean)
            cells.append(f"{mean:+.3f} ± {error:.3f}")
        if any(cells):
            shown[family] = cells
    if shown:
        shown["mean over families"] = [f"{statistics.fmean(means[n]):+.4f}" if means[n] else "" for n in budgets]
    return shown


def margins(taus: Draws, tables: Sequence[str], budgets: Sequence[int], peers: Sequence[str]) -> dict[str, list[str]]:
    r"""Beside the best single peer of each n, and beside the best one of each table."""
    means = family_means(taus, tables)
    shown: dict[str, list[str]] = {"best single peer": [], f"margin (aim {MARGIN})": [], "below by an error": []}
    for n in budgets:
        _, families = means.get(("convnp", n), (0.0, 0))
        whole = {
            peer: means[peer, n][0]
            for peer in peers
            if peer not in OURS and (peer, n) in means and means[peer, n][1] == families
        }
        single = max(whole, key=lambda peer: whole[peer], default=None)
        # On the tables and draws of both.
        found = {name: differences(taus, name, n, single) for name in tables} if single else {}
        both = {name: statistics.fmean(values) for name, values in found.items() if values}
        gaps = {}
        for name in tables:
            top = best_peer(taus, name, n, [peer for peer in peers if peer not in OURS])
            if top and (gap := gap_of(taus, name, n, top)):
                gaps[name] = gap
        below = [f"{name} {mean:+.3f} ± {error:.3f}" for name, (mean, error) in gaps.items() if mean < -error]
        cells = (
            f"{single} {whole[single]:.3f}" if single else "",
            f"{family_mean(both)[0]:+.3f}" if both else "",
            ": ".join([f"{len(below)} of {len(gaps)}", "; ".join(below)][: 1 + bool(below)]) if gaps else "",
        )
        for name, cell in zip(shown, cells, strict=True):
            shown[name].append(cell)
    return shown


def best_peer(taus: Draws, table: str, n: int, peers: Iterable[str]) -> str | None:
    r"""The peer with the largest mean on a table, chosen in hindsight."""
    means = {peer: statistics.fmean(taus[table, peer, n].values()) for peer in peers if (table, peer, n) in taus}
    return max(means, key=lambda peer: means[peer], default=None)


def plot(rows: list[dict[str, str]], path: Path) -> None:
    r"""Family means of tau and of coverage against the number of labels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullLocator

    figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    further = frozenset(LOADERS) - DEVELOPED
    budgets = sorted({int(row["n"]) for row in rows})
    # The bank has other families than the rest; the further tables were measured without the encoder alone.
    shown = [
        row | {"method": "convnp"} if row["method"] == BANK else row
        for row in rows
        if row["method"] != BANK or row["table"] not in DEVELOPED
    ]
    for axis, metric, tables, title in (
        (axes[0], "tau", DEVELOPED, "Kendall's tau, development tables"),
        (axes[1], "tau", further, "Kendall's tau, further tables, no encoder"),
        (axes[2], "coverage", DEVELOPED, "coverage of 90 % intervals, development tables"),
    ):
        found = family_means(draws_of(shown, metric), tables)
        for i, method in enumerate(METHODS):
            mine = sorted((n, value) for (m, n), (value, _) in found.items() if m == method)
            own = method in OURS
            style: dict[str, Any] = {"color": f"C{i % 10}", "linestyle": "-" if method in OWN else "--"}
            if own:
                style = {"color": "black", "linewidth": 2, "linestyle": {"convnp": "-", BANK: "--"}.get(method, ":")}
            if mine:
                axis.semilogx(*zip(*mine, strict=True), marker="o", markersize=3, label=method, **style)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("labels")
        axis.set_xticks(budgets, [str(n) for n in budgets])
        axis.xaxis.set_minor_locator(NullLocator())
    axes[0].plot(list(AIMS), list(AIMS.values()), "_", color="black", markersize=14, label="aim")
    axes[2].axhspan(*COVERAGE, color="grey", alpha=0.2, linewidth=0)
    handles = {line.get_label(): line for axis in axes for line in axis.get_lines()}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=7, fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=80, format="png")


def pool_seconds() -> float:
    r"""Processor seconds for 100 labels and 10,000 candidates of a space of layers: features, fit and predictions."""
    space = ParameterSpace(
        width=Integer(16, 256, step=16), layers=Repeat({"kernel": Categorical([3, 5, 7]), "ratio": Integer(1, 6)}, 8, 8)
    )
    archs = space.sample(10_000, torch.Generator().manual_seed(0))
    y = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = time.process_time()
    PREDICTORS["convnp"](space, maximize=True).fit(archs[:100], y).predict_scores(archs)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=list(LOADERS), help="default: the development tables")
    parser.add_argument("--further", action="store_true", help="the further tables instead")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS))
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--slow-draws", type=int, default=3, help="draws of scikit-learn's and BoTorch's processes")
    parser.add_argument("--slow-until", type=int, default=50, help="labels of scikit-learn's and BoTorch's processes")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop starting cells after this time")
    parser.add_argument("--report-only", action="store_true", help="run nothing, print the tables and draw the plot")
    parser.add_argument("--results", type=Path, default=RESULTS / "own_spaces.csv")
    args = parser.parse_args()
    args.tables = args.tables or [name for name in LOADERS if (name in DEVELOPED) != args.further]
    torch.set_num_threads(1)
    if not args.report_only:
        run(args)
    rows = _rows.read(args.results)
    text = f"{report(rows)}\n\n100 labels and 10,000 candidates: {pool_seconds():.2f} s (aim {SECONDS}). {machine()}\n"
    print(text)
    args.results.with_suffix(".md").write_text(text.lstrip())
    plot(rows, args.results.with_suffix(".png"))


if __name__ == "__main__":
    main()
