r"""Own search spaces: what ranks configurations from a few labels, beside the usual peers.

    python benchmarks/own_spaces.py --draws 10

Protocol: every table holds each configuration once (repeats averaged, equal networks kept once), at most 2,300 of them;
n random ones are labelled and up to 2,000 others ranked. Every method gets the same scores of the labels
(:class:`~pyg_nas_np.predictors.labels.LabelTransform`). Peers see what a user would write down: numbers (logarithms
where they span decades), one-hot categories, lists of layers padded with zeros; ``size`` the costs alone. Features are
standardised over the configurations of the table.

Every (table, method, n, draw) is one row of ``results/own_spaces.csv``, written as it comes; what is there is not run
again. Kendall's tau; regret of the first pick as a share of the range of the labels; true rank of the best of the ten
first picks; coverage of 90 % intervals; negative log density of the labels inside the range of the labelled, on the
scale of the scores; seconds of fitting and predicting on one core.

A family mean is the mean over families of tables of the mean within a family. Tables under ``--further`` are printed,
but nothing was chosen on them.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import _rows
from _own_tables import DEVELOPED, FAMILIES, LOADERS, Floats, PlainColumns, Table
from _timing import RESULTS, machine
from torch import Tensor

from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.features import shared_features
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.predictors import Predictor
from pyg_nas_np.predictors.labels import LabelTransform
from pyg_nas_np.utils import atomic_path

BUDGETS = (10, 20, 50, 100)
TARGETS = 2000
AIMS = {10: 0.59, 20: 0.67, 50: 0.745, 100: 0.79}
RECORDS = {10: 0.50, 20: 0.575, 50: 0.69}
"""Aims of the family means: of the bank, and of it without graphs and sizes."""

Prediction = tuple[Tensor, Tensor | None]


# -- methods ----------------------------------------------------------------------------------------------------------


class Inputs(NamedTuple):
    r"""A table, its rows as a user would write them down ``[n, F]``, and its sizes ``[n, S]``."""

    table: Table
    plain: Floats
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

OWN = {"convnp": "convnp", ALONE: "convnp"} | {name: name for name in ("gp", "random-forest", "xgboost", "ridge")}


def predict(method: str, inputs: Inputs, train: Tensor, target: Tensor, z: Tensor) -> Prediction | None:
    r"""Means and standard deviations of the scores of the targets; :obj:`None` where the method does not apply."""
    rows, others = train.numpy(), target.numpy()
    if method in PEERS:
        return PEERS[method](inputs.plain[rows], z.numpy(), inputs.plain[others])
    if method == "size":
        return ridge(inputs.sizes[rows], z.numpy(), inputs.sizes[others]) if inputs.sizes.shape[1] else None
    table = inputs.table
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
        return Inputs(table, PlainColumns(table).rows, sizes.double().numpy())

    done = {(row["table"], row["method"], int(row["n"]), int(row["draw"])) for row in _rows.read(args.results)}
    deadline = time.monotonic() + 60 * args.minutes
    for draw in range(args.draws):
        for name in args.tables:
            for n in args.budgets:
                for method in args.methods:
                    slow = method in ("sklearn-gp", "botorch") and (n > args.slow_until or draw >= args.slow_draws)
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

Means = dict[tuple[str, str, int], float]


def table_means(rows: Iterable[Mapping[str, str]], metric: str) -> Means:
    r"""(table, method, n) → mean over the draws; of ranks the geometric mean."""
    values: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for row in rows:
        if row[metric]:
            values[row["table"], row["method"], int(row["n"])].append(float(row[metric]))
    if metric == "best10":
        return {key: math.exp(sum(map(math.log, found)) / len(found)) for key, found in values.items()}
    return {key: sum(found) / len(found) for key, found in values.items()}


def family_means(means: Means, tables: Iterable[str]) -> dict[tuple[str, int], tuple[float, int]]:
    r"""(method, n) → mean over families, and their number."""
    parts: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (table, method, n), value in means.items():
        if table in tables:
            parts[method, n][FAMILIES[table]].append(value)
    return {key: (sum(sum(v) / len(v) for v in f.values()) / len(f), len(f)) for key, f in parts.items()}


def report(rows: list[dict[str, str]]) -> str:
    r"""Markdown tables: family means beside the aims, every table, wins over the best peer of each table."""
    development = {name for tables in DEVELOPMENT.values() for name in tables}
    budgets = sorted({int(row["n"]) for row in rows})
    methods = [m for m in (*OWN, *PEERS, "size") if any(row["method"] == m for row in rows)]
    lines = []
    for metric in ("tau", "regret", "best10", "coverage", "nll", "seconds"):
        found = family_means(table_means(rows, metric), development)
        lines += ["", f"{metric}, family mean over the development tables (families)", ""]
        lines += ["| method | " + " | ".join(map(str, budgets)) + " |", "|---" * (1 + len(budgets)) + "|"]
        for method in methods:
            cells = [
                f"{found[method, n][0]:.3f} ({found[method, n][1]})" if (method, n) in found else "" for n in budgets
            ]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        if metric == "tau":
            for title, aims in (("aim", AIMS), ("aim, records alone", RECORDS)):
                lines.append(
                    f"| {title} | " + " | ".join(f"{aims[n]:.3f}" if n in aims else "" for n in budgets) + " |"
                )
    means = table_means(rows, "tau")
    lines += ["", "tau of convnp, and of the best peer of each table, chosen in hindsight", ""]
    lines += ["| table | " + " | ".join(map(str, budgets)) + " |", "|---" * (1 + len(budgets)) + "|"]
    for name in LOADERS:
        cells = []
        for n in budgets:
            peers = {m: means[name, m, n] for m in (*PEERS, "size") if (name, m, n) in means}
            ours = means.get((name, "convnp", n))
            best = max(peers, key=lambda m: peers[m], default=None)
            cells.append("" if ours is None or best is None else f"{ours:.3f}, {peers[best]:.3f} {best}")
        if any(cells):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(rows: list[dict[str, str]], path: Path) -> None:
    r"""Family means of tau and coverage against the number of labels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    development = {name for tables in DEVELOPMENT.values() for name in tables}
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for axis, metric, label in zip(
        axes, ("tau", "coverage"), ("Kendall's tau", "coverage of 90 % intervals"), strict=True
    ):
        found = family_means(table_means(rows, metric), development)
        for i, method in enumerate((*OWN, *PEERS, "size")):
            mine = sorted((n, value) for (m, n), (value, _) in found.items() if m == method)
            style = {"color": "black", "linewidth": 2.5} if method == "convnp" else {"color": f"C{i}", "linewidth": 1}
            if mine:
                axis.semilogx(*zip(*mine, strict=True), marker="o", markersize=3, label=method, **style)
        axis.set(xlabel="labels", ylabel=label)
    axes[0].plot(list(AIMS), list(AIMS.values()), "k_", label="aim")
    axes[1].axhline(0.9, color="grey", linestyle=":")
    axes[0].legend(fontsize=7)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=80, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    development = [name for tables in DEVELOPMENT.values() for name in tables]
    parser.add_argument("--tables", nargs="+", choices=list(LOADERS), default=development)
    parser.add_argument("--further", action="store_true", help="the tables on which nothing was chosen as well")
    parser.add_argument("--methods", nargs="+", choices=[*OWN, *PEERS, "size"], default=[*OWN, *PEERS, "size"])
    parser.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS))
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--slow-draws", type=int, default=3, help="draws of scikit-learn's GP and BoTorch")
    parser.add_argument("--slow-until", type=int, default=50, help="labels of scikit-learn's GP and BoTorch at most")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop starting cells after this time")
    parser.add_argument("--results", type=Path, default=RESULTS / "own_spaces.csv")
    args = parser.parse_args()
    if args.further:
        args.tables = list(dict.fromkeys([*args.tables, *(name for tables in FURTHER.values() for name in tables)]))
    torch.set_num_threads(1)
    run(args)
    rows = _rows.read(args.results)
    print(report(rows))
    print(machine())
    plot(rows, args.results.with_suffix(".png"))


if __name__ == "__main__":
    main()
