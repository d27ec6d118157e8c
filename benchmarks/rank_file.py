r"""Time of ``pyg-nas-np rank`` on the user's own CSV files by their length, beside a script of pandas and scikit-learn.

Run: ``python benchmarks/rank_file.py [--rows 10000 100000 1000000]``; writes ``benchmarks/results/rank_file.csv``.
50 labels, candidates as those of ``streaming.py``: single parameters and lists of layers. The command prints the best
ten, the cross-validated scores and what the predictions follow; the script fits a Gaussian process (ARD Matern on
encoded columns), predicts mean and standard deviation of every row, and sorts them. Both run once on 100 rows before,
so that imports do not count.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _timing import RESULTS, Report, Result, in_child, run_child
from streaming import GROUP, LABELS, draw, truth


def write(path: Path, pool: str, rows: int, seed: int, labels: bool = False) -> None:
    import pandas as pd

    for part, start in enumerate(range(0, rows, GROUP)):
        columns = draw(pool, min(GROUP, rows - start), seed + part)
        if labels:
            columns["accuracy"] = truth(columns)
        pd.DataFrame(columns).to_csv(path, index=False, mode="a" if part else "w", header=not part)


def ours(args: argparse.Namespace) -> Result:
    from pyg_nas_np.cli.app import main

    def rank(candidates: str) -> None:
        sys.argv = ["pyg-nas-np", "rank", "--labels", args.labels, "--candidates", candidates, "--target", "accuracy"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            main()

    return _timed(rank, args)


def peer(args: argparse.Namespace) -> Result:
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    def rank(candidates: str) -> None:
        frame = pd.read_csv(args.labels)
        y = frame.pop("accuracy")
        texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
        encode = make_column_transformer(
            (OneHotEncoder(sparse_output=False, handle_unknown="ignore"), texts), remainder=StandardScaler()
        )
        kernel = ConstantKernel() * Matern(np.ones(encode.fit_transform(frame).shape[1]), nu=2.5) + WhiteKernel()
        model = make_pipeline(encode, GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)).fit(frame, y)
        parts = []
        for part in pd.read_csv(candidates, chunksize=1 << 14):
            part["predicted"], part["std"] = model.predict(part[list(frame)], return_std=True)
            parts.append(part)
        pd.concat(parts).sort_values("predicted", ascending=False).head(10).to_string()

    return _timed(rank, args)


def _timed(rank, args: argparse.Namespace) -> Result:
    torch.set_num_threads(args.threads)
    rank(args.few)
    start, used = time.perf_counter(), time.process_time()
    rank(args.path)
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    for name in ("step", "labels", "few", "path"):
        parser.add_argument(f"--{name}")
    args = parser.parse_args()
    if args.step:
        return run_child({"ours": ours, "peer": peer}, args)
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        for pool in ("flat", "layers"):
            files = {name: Path(folder) / f"{pool}-{name}.csv" for name in ("labels", "few", "path")}
            write(files["labels"], pool, LABELS, 0, labels=True)
            write(files["few"], pool, 100, 1)
            for rows in args.rows:
                write(files["path"], pool, rows, 2)
                for step, title in (("ours", "rank"), ("peer", "script")):
                    found = in_child(step, args.repeats, **files, threads=args.threads)
                    note = f"{found['cpu']:.2f} s of one core, {1e6 * found['cpu'] / rows:.0f} µs a row"
                    report.add(f"{pool}, {rows:,} rows, {title}", found, None, note)
    report.write(RESULTS / "rank_file.csv")


if __name__ == "__main__":
    main()
