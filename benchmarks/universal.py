r"""Trains the encoders that the package ships, and judges each on the families that it has not seen.

    python benchmarks/universal.py --write pyg_nas_np/weights/universal.safetensors
    python benchmarks/universal.py --report-only
    python benchmarks/universal.py --synthetic 64 --results benchmarks/results/universal_synthetic.csv

Tables: those of ``benchmarks/own_spaces.py`` on which its bank was developed (with graphs), NAS-Bench-101 (20,001
cells), NAS-Bench-201 (three data sets), NAS-Bench-Graph (nine). One encoder learns from all, and one without each
family and all tables with the same cells under another name
(:func:`~pyg_nas_np.convnp.encoder_training.tables_without`). The file holds all of them: predictors take the one that
has not seen the space they are asked about (:meth:`~pyg_nas_np.convnp.encoder.Encoders.unbiased`). An interrupted
training goes on from the checkpoints in ``--output``.

Every table and seed is a row of ``results/universal.csv``: Kendall's tau without any label of its space, beside that of
the mean of the sizes that are known. The printed table has means over seeds, and standard deviations between them. The
package ships seed 0. With ``--synthetic``, made-up spaces (:mod:`_synthetic_spaces`) are one more family of the
training.
"""

from __future__ import annotations

import argparse
import csv
from functools import cache
from pathlib import Path
from statistics import fmean, stdev

import torch
from _own_tables import DEVELOPMENT
from _synthetic_spaces import synthetic_spaces
from _timing import RESULTS, machine
from predictors import AUXILIARY

from pyg_nas_np.convnp.encoder import Encoders, read_encoders, write_encoders
from pyg_nas_np.convnp.encoder_training import MeasuredTable, fingerprints_of, pretrain_encoder, tables_without
from pyg_nas_np.features.operation_inputs import SIZES, shared_operation_inputs
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.spaces import OperationView

CELLS = {"nb201-c10-test": "nb201", "nb201-c100": "nb201", "nb201-in16": "nb201", "nb101": "nb101"} | {
    name: "graph" for name in AUXILIARY if name.startswith("graph-")
}
"""Tables of the benchmarks' cells, with their families."""

JUDGED = 4000
"""Architectures of a table that are ranked."""


@cache
def measured(data: Path) -> list[MeasuredTable]:
    r"""All tables, each as the encoder reads it."""
    found = []
    for family, loaders in DEVELOPMENT.items():
        for name, load in loaders.items():
            table = load()
            # The same cells as those of the library's own table, with a part of its rows.
            if isinstance(table.space, OperationView) and family != "nb201":
                found.append(MeasuredTable(name, family, table.space, table.archs, table.y, table.maximize))
    for name, family in CELLS.items():
        own = AUXILIARY[name](data)
        found.append(MeasuredTable(name, family, own.dataset.space, own.dataset.arch_index, own.y.double()))
    return found


def made_up(count: int, seed: int) -> list[MeasuredTable]:
    r"""Tables of synthesised spaces, one family."""
    spaces = synthetic_spaces(count, seed=seed) if count else ()
    return [MeasuredTable(one.space.name, "synthetic", one.space, torch.arange(one.y.numel()), one.y) for one in spaces]


def train(tables: list[MeasuredTable], output: Path, seed: int, more: list[MeasuredTable]) -> Encoders:
    r"""One encoder for all tables, and one for each part of them that is left where a family may not be seen."""
    parts = {"": tuple(table.name for table in tables)}
    for family in dict.fromkeys(table.family for table in tables):
        left = tuple(table.name for table in tables_without(tables, [family]))
        if left not in parts.values():
            parts[family] = left
    priors = [
        pretrain_encoder(
            [*tables, *more],
            left_out=[family] if family else [],
            seed=seed,
            root=output / (f"without-{family}" if family else "all"),
            progress=False,
        )
        for family in parts
    ]
    return Encoders(priors, fingerprints_of(tables))


def judge(tables: list[MeasuredTable], encoders: Encoders, results: Path, seed: int) -> None:
    r"""Ranks every table without a label, by the encoder that has not seen its space; keeps rows of other seeds."""
    rows = [row for row in read_rows(results) if row["seed"] != str(seed)]
    for table in tables:
        prior = encoders.unbiased(table.space)
        if prior is None:
            continue
        chosen = torch.randperm(table.y.numel(), generator=torch.Generator().manual_seed(0))[:JUDGED]
        archs = table.archs[chosen] if isinstance(table.archs, torch.Tensor) else [table.archs[i] for i in chosen]
        y = table.y[chosen] if table.maximize else -table.y[chosen]
        sizes = shared_operation_inputs(table.space)(archs).sizes
        known, score = sizes[:, : len(SIZES) - 1].sum(dim=1), prior.scores(table.space, archs)
        both = score + known / known.std().clamp_min(1e-6)
        rows.append(
            {
                "table": table.name,
                "family": table.family,
                "seed": str(seed),
                "tau": round(float(kendall_tau(score, y)), 4),
                "tau_of_sizes": round(float(kendall_tau(known, y)), 4) if bool((known != known[0]).any()) else "",
                "tau_of_both": round(float(kendall_tau(both, y)), 4),
                "seen": " ".join(prior.card["families"]),
            }
        )
    with results.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(results: Path) -> list[dict[str, str]]:
    r"""The rows that earlier runs have left."""
    if not results.exists():
        return []
    with results.open(newline="") as file:
        return list(csv.DictReader(file))


def report(rows: list[dict[str, str]]) -> None:
    r"""Prints means over seeds, and the standard deviation between seeds where there are several."""
    print("| table | seeds | tau without a label | of its sizes | of both | trained on |\n|---|--:|--:|--:|--:|---|")
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(row["table"], []).append(row)
    for table, group in groups.items():
        cells = []
        for name in ("tau", "tau_of_sizes", "tau_of_both"):
            values = [float(row[name]) for row in group if row[name]]
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 and name != "tau_of_sizes" else ""
            cells.append(f"{fmean(values):.3f}{spread}" if values else "")
        print(f"| {table} | {len(group)} | {' | '.join(cells)} | {group[0]['seen']} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("out/universal"), help="folder of checkpoints")
    parser.add_argument("--write", type=Path, default=Path("out/universal/universal.safetensors"), help="the file")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of measured tables")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--synthetic", type=int, default=0, help="number of synthesised spaces in the training")
    parser.add_argument("--judge-only", action="store_true", help="train nothing, judge the file")
    parser.add_argument("--report-only", action="store_true", help="run nothing, print the table")
    parser.add_argument("--results", type=Path, default=RESULTS / "universal.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.report_only:
        tables = measured(args.data)
        if not args.judge_only:
            args.output.mkdir(parents=True, exist_ok=True)
            write_encoders(args.write, train(tables, args.output, args.seed, made_up(args.synthetic, args.seed)))
        judge(tables, read_encoders(args.write), args.results, args.seed)
    report(read_rows(args.results))
    print(machine())


if __name__ == "__main__":
    main()
