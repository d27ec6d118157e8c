r"""From a data set to architectures: the meta-predictor, the generator, and what the networks themselves say.

    python benchmarks/metad2a.py --data ../shared/data
    python benchmarks/metad2a.py --parts predictor generator

Parts: ``predictor`` (correlation with measured accuracies of held-out tuples and data sets, with baselines),
``generator`` (validity, uniqueness, novelty; true accuracy of what it generates; time), ``networks`` (scores of
untrained networks; short trainings on data sets that no part of the method has seen), ``mobilenetv3`` (predictor and
generator of the sub-networks of Once-for-All). Rows go to
``results/metad2a_PART.csv``.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import _metad2a_generator
import _metad2a_mobilenetv3
import _metad2a_networks
import _metad2a_predictor
from _timing import RESULTS, machine

from pyg_nas_np.utils import atomic_path

PARTS: dict[str, Any] = {
    "predictor": _metad2a_predictor,
    "generator": _metad2a_generator,
    "networks": _metad2a_networks,
    "mobilenetv3": _metad2a_mobilenetv3,
}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV files")
    for part in PARTS.values():
        part.add_arguments(parser)
    args = parser.parse_args()
    for name in args.parts:
        rows = PARTS[name].run(args)
        if rows:
            write(args.results / f"metad2a_{name}.csv", rows)
    print(machine())


if __name__ == "__main__":
    main()
