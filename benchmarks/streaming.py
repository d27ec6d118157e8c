r"""Rows a second and memory of ranking a Parquet pool that is read part by part, beside scikit-learn on the same file.

Run: ``python benchmarks/streaming.py [--rows 10000000] [--threads 2]``; writes ``benchmarks/results/streaming.csv``.
Pools of single parameters and of lists of layers are made in a temporary folder. Each method has a process of its own,
is fitted to the same 50 labels, predicts mean and standard deviation of every row (the forest the mean only), and keeps
the best 100. ``seconds`` are those of the pass over the pool, without the fit; on a machine that others use too, look
at the rows a second of one core.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _timing import RESULTS, Report, Result, in_child, run_child

from pyg_nas_np import ConvNPPredictor
from pyg_nas_np.predictors.streaming import rank_pool

LABELS = 50
K = 100
GROUP = 1 << 18
"""Rows of a group of the file."""
LAYERS = 6
ACTIVATIONS = ["relu", "gelu", "silu"]
OPERATIONS = ["conv", "pool", "skip"]


def draw(pool: str, n: int, seed: int) -> dict[str, np.ndarray]:
    """Columns of random configurations."""
    rng = np.random.default_rng(seed)
    columns = {
        "depth": rng.integers(2, 25, n),
        "width": rng.choice([64, 128, 192, 256, 384, 512], n),
        "heads": rng.choice([2, 4, 8, 16], n),
        "activation": np.array(ACTIVATIONS)[rng.integers(0, 3, n)],
        "dropout": rng.uniform(0.0, 0.5, n).round(3),
        "lr": 10.0 ** rng.uniform(-5, -1, n),
        "residual": rng.random(n) < 0.5,
    }
    if pool == "layers":
        for i in range(LAYERS):
            columns[f"channels_{i}"] = rng.choice([16, 32, 64, 128], n)
            columns[f"op_{i}"] = np.array(OPERATIONS)[rng.integers(0, 3, n)]
    return columns


def truth(columns: dict[str, np.ndarray]) -> np.ndarray:
    """A smooth function of the parameters."""
    y = np.log(columns["depth"] * columns["width"]) - (np.log10(columns["lr"]) + 3) ** 2 - 2 * columns["dropout"]
    y += columns["residual"] * columns["depth"] / 24 + 0.3 * (columns["activation"] == "gelu")
    for i in range(LAYERS):
        if f"op_{i}" in columns:
            y += 0.2 * (columns[f"op_{i}"] == "conv") * np.log2(columns[f"channels_{i}"])
    return y


def write_pool(path: Path, pool: str, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for seed, start in enumerate(range(0, rows, GROUP), start=1):
        table = pa.table(draw(pool, min(GROUP, rows - start), seed))
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def labelled(pool: str) -> tuple[list[dict[str, object]], list[float]]:
    columns = draw(pool, LABELS, 0)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]
    return rows, truth(columns).tolist()


def ours(args: argparse.Namespace) -> Result:
    torch.set_num_threads(args.threads)
    predictor = ConvNPPredictor().fit(*labelled(args.pool))
    start, used = time.perf_counter(), time.process_time()
    ranking = rank_pool(predictor, args.path, K)
    found = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used, "rows": len(ranking)}
    return found | {"median": ranking.distribution.quantile(0.5), "true": _quality(ranking.best.to_pandas())}


def peer(args: argparse.Namespace) -> Result:
    """The same pass with a pipeline of scikit-learn."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    torch.set_num_threads(args.threads)
    rows, y = labelled(args.pool)
    frame = pd.DataFrame(rows)
    texts = [name for name in frame if frame[name].map(type).eq(str).any()]
    encode = make_column_transformer(
        (OneHotEncoder(sparse_output=False, handle_unknown="ignore"), texts), remainder=StandardScaler()
    )
    if args.method == "gp":
        width = encode.fit_transform(frame).shape[1]
        kernel = ConstantKernel() * Matern(np.ones(width), nu=2.5) + WhiteKernel()
        model = make_pipeline(encode, GaussianProcessRegressor(kernel, normalize_y=True, random_state=0))
    else:
        model = make_pipeline(encode, RandomForestRegressor(100, n_jobs=args.threads, random_state=0))
    model.fit(frame, y)
    options = {"return_std": True} if args.method == "gp" else {}
    start, used, best, count = time.perf_counter(), time.process_time(), None, 0
    for batch in pq.ParquetFile(args.path).iter_batches(1 << 14):
        part = pa.Table.from_batches([batch]).to_pandas()
        found = model.predict(part, **options)
        part["predicted"] = found[0] if options else found
        best = part if best is None else pd.concat([best, part])
        best = best.nlargest(K, "predicted")
        count += len(part)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    return {"seconds": seconds, "cpu": used, "rows": count, "true": _quality(best)}


def _quality(best) -> float:
    """Mean true value of the best rows."""
    return float(truth({name: best[name].to_numpy() for name in best}).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--peer-rows", type=int, default=1_000_000, help="rows of the pool that peers rank")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pools", nargs="+", default=["flat", "layers"])
    parser.add_argument("--step")
    parser.add_argument("--pool")
    parser.add_argument("--path")
    parser.add_argument("--method")
    args = parser.parse_args()
    if args.step:
        return run_child({"ours": ours, "peer": peer}, args)
    torch.set_num_threads(args.threads)
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        for pool in args.pools:
            for count in sorted({args.peer_rows, args.rows}):
                path = Path(folder) / f"{pool}-{count}.parquet"
                write_pool(path, pool, count)
                common = {"pool": pool, "path": path, "threads": args.threads}
                methods = ["convnp"] if count > args.peer_rows else ["convnp", "gp", "forest"]
                for method in methods:
                    step = "ours" if method == "convnp" else "peer"
                    found = in_child(step, **common, method=method)
                    rate = found["rows"] / found["seconds"]
                    busy = found["rows"] / found["cpu"]
                    note = f"{rate:,.0f} rows/s, {busy:,.0f} a core; the best {K} are {found['true']:.3f} in truth"
                    aim = count / 20_000 if method == "convnp" else None
                    report.add(f"{pool}, {count:,} rows, {method}", found, aim, note)
                path.unlink()
    report.write(RESULTS / "streaming.csv")


if __name__ == "__main__":
    main()
