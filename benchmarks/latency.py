r"""Latencies on an unseen device from 5, 10 and 20 measurements: leave-device-out on two spaces of 27 devices each.

    python benchmarks/latency.py --draws 10
    python benchmarks/latency.py --report-only

Tables: FBNet's space and NAS-Bench-201 without cells whose output is dead (constants at deployment), as HELP published
them (Lee et al., 2021, github.com/HayeonLee/HELP, MIT), in milliseconds. Of the known devices, 4,000 (FBNet) and 900
(NAS-Bench-201) architectures are given, HELP's numbers; the measured ones are among them, and the 1,000 that are ranked
are not. So no ranked architecture was measured on any device.

Protocols: ``device``: all others are known; ``family``: all others but those of the same name with another batch
size; ``help``: HELP's nine training and four validation devices are known, for its test devices.

Methods: ``latency`` is :class:`~pyg_nas_np.convnp.LatencyPredictor` on random measurements, ``latency-suggest`` on
those of :meth:`DeviceBasis.suggest <pyg_nas_np.convnp.DeviceBasis.suggest>` among 500 random ones; ``linear`` linear
regression of the latency on the counts of operations; ``ridge`` and ``xgboost`` see the columns that
``latency`` sees, log latencies on the known devices.

A device is a look-up table if linear regression of its latencies on the operation at each position, with counts of
those alive in a cell, explains .999999 of their variance over the whole table; these are reported apart. Settings were
looked at on five devices of each table (DEVELOPED), which are reported apart too; some are among HELP's test devices.

Every (space, protocol, device, method, n, draw) is one row of ``results/latency.csv``, written as it comes; what is
there is not run again. Spearman's correlation, mean absolute percentage error, coverage of 90 % intervals. Standard
errors are those of means over devices.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _rows
import numpy as np
import torch
from _own_tables import DATA
from _timing import RESULTS, machine
from scipy.stats import spearmanr
from sklearn.linear_model import LinearRegression, RidgeCV

from pyg_nas_np.convnp import DeviceBasis, DeviceTable, LatencyPredictor
from pyg_nas_np.features import shared_features
from pyg_nas_np.predictors import Architectures
from pyg_nas_np.spaces import Categorical, NASBench201Space, ParameterSpace, Repeat

Floats = np.ndarray[Any, Any]

COUNTS = (5, 10, 20)
RANKED = 1000
OFFERED = 500
DEVELOPED = {
    "fbnet": ("1080ti_1", "1080ti_64", "essential_ph_1", "eyeriss", "gold_6226"),
    "nasbench201": ("1080ti_1", "1080ti_32", "eyeriss", "gold_6226", "pixel2"),
}
"""Devices on which forms of the model were compared."""
AIM = 0.95
ADDITIVE = 0.999999
FIELDS = ("space", "protocol", "device", "method", "n", "draw", "spearman", "mape", "coverage")
METHODS = ("latency", "latency-suggest", "linear", "ridge", "xgboost")

BLOCKS = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
CELL = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")

_SHARED = ("silver_4114", "silver_4210r", "samsung_a50", "pixel3", "essential_ph_1", "samsung_s7", "gold_6240")
HELP_KNOWN = {
    "fbnet": (*(f"{gpu}_{batch}" for gpu in ("1080ti", "titanx") for batch in (1, 32, 64)), *_SHARED),
    "nasbench201": (*(f"{gpu}_{batch}" for gpu in ("1080ti", "titanx") for batch in (1, 32, 256)), *_SHARED),
}
HELP = {
    "fbnet": {"raspi4": 0.887, "eyeriss": 0.943, "fpga": 0.892},
    "nasbench201": {
        "titan_rtx_256": 0.987,
        "gold_6226": 0.989,
        "pixel2": 0.802,
        "raspi4": 0.890,
        "eyeriss": 0.940,
        "fpga": 0.985,
    },
}
"""Rank correlations of HELP with 10 measurements: Tables 2 and 3 of the paper, as in the README of its repository."""


@dataclass(frozen=True)
class Space:
    r"""Latencies ``[A, D]`` in milliseconds of ``A`` architectures on named devices, and plain columns.

    Attributes:
        name: Name of the space.
        archs: The architectures.
        latencies: ``[A, D]``.
        devices: Their names.
        counts: Counts of each operation, ``[A, K]``.
        additive: Columns in which a look-up table is linear, ``[A, C]``.
        given: Architectures of the known devices' tables.
    """

    name: str
    archs: Architectures
    latencies: Floats
    devices: list[str]
    counts: Floats
    additive: Floats
    given: int

    def split(self) -> tuple[Floats, Floats]:
        r"""Rows of the known devices' tables, and rows to rank."""
        order = np.random.default_rng(0).permutation(len(self.latencies))
        return np.sort(order[: self.given]), np.sort(order[self.given :][:RANKED])

    def look_ups(self) -> dict[str, float]:
        r"""Share of variance of each device that a look-up table explains."""
        return {
            device: float(LinearRegression().fit(self.additive, y).score(self.additive, y))
            for device, y in zip(self.devices, self.latencies.T, strict=True)
        }


def table(path: Path) -> tuple[list[dict[str, str]], list[str], Floats]:
    r"""Rows, devices and latencies of a table."""
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    devices = [name for name in rows[0] if name not in ("id", "ops", "index", "arch")]
    return rows, devices, np.array([[float(row[device]) for device in devices] for row in rows])


def fbnet() -> Space:
    rows, devices, latencies = table(DATA / "fbnet_latency" / "fbnet_latency.csv.gz")
    codes = np.array([[int(op) for op in row["ops"].split()] for row in rows])
    space = ParameterSpace({"layers": Repeat({"block": Categorical(BLOCKS)}, codes.shape[1], codes.shape[1])})
    archs = [space.check({"layers": [{"block": BLOCKS[op]} for op in code]}) for code in codes.tolist()]
    hot = np.eye(len(BLOCKS))[codes]
    flat = hot.reshape(len(rows), -1)
    return Space("fbnet", Architectures(space, archs), latencies, devices, hot.sum(axis=1), flat, 4000)


def nasbench201() -> Space:
    rows, devices, latencies = table(DATA.parent / "nasbench201" / "latency_27dev.csv.gz")
    space = NASBench201Space()
    names = [[token.partition("~")[0] for token in row["arch"].replace("|+|", "|").split("|")[1:-1]] for row in rows]
    hot = np.eye(len(CELL))[[[CELL.index(name) for name in cell] for cell in names]]
    features = shared_features(space)
    columns = [i for i, name in enumerate(features.feature_names) if name.startswith("live_")]
    live = features.table()[:, columns].double().numpy()
    paths = features.table()[:, features.feature_names.index("live_paths")]
    alive = (paths > paths.min()).numpy()
    additive = np.concatenate([hot.reshape(len(rows), -1), live], axis=1)[alive]
    archs = Architectures(space, torch.from_numpy(np.flatnonzero(alive)))
    return Space("nasbench201", archs, latencies[alive], devices, hot.sum(axis=1)[alive], additive, 900)


SPACES: dict[str, Callable[[], Space]] = {"fbnet": fbnet, "nasbench201": nasbench201}


def known_devices(space: Space, protocol: str, device: str) -> list[str]:
    r"""Devices that are known when one is left out."""
    if protocol == "help":
        return list(HELP_KNOWN[space.name])
    family = device.rpartition("_")[0] if device.rpartition("_")[2].isdecimal() else device
    batches = {f"{family}_{batch}" for batch in (1, 32, 64, 256)} if protocol == "family" else {device}
    return [name for name in space.devices if name != device and name not in batches]


def run(space: Space, protocol: str, device: str, args: argparse.Namespace, done: set[tuple[str, ...]]) -> None:
    r"""Runs what is missing of one left-out device."""
    cells = [
        (method, n, draw)
        for method in (args.methods if protocol == "device" else [m for m in args.methods if m == "latency"])
        for n in COUNTS
        for draw in range(1 if method == "latency-suggest" else args.draws)
        if (space.name, protocol, device, method, str(n), str(draw)) not in done
    ]
    if not cells:
        return
    given, ranked = space.split()
    columns = [space.devices.index(name) for name in known_devices(space, protocol, device)]
    known = {space.devices[j]: space.latencies[given, j] for j in columns}
    basis = DeviceBasis().fit(DeviceTable(known, space.archs[torch.from_numpy(given)]), space.archs.space)
    y = space.latencies[:, space.devices.index(device)]
    rows = np.concatenate([given, ranked])
    seen = np.zeros((len(y), len(columns)))
    seen[rows] = basis(space.archs[torch.from_numpy(rows)])[0].numpy()
    for method, n, draw in cells:
        generator = np.random.default_rng(1000 + draw)
        shown = generator.choice(given, n, replace=False)
        if method == "latency-suggest":
            offered = np.sort(generator.choice(given, OFFERED, replace=False))
            shown = offered[basis.suggest(space.archs[torch.from_numpy(offered)], n).numpy()]
        predicted, coverage = predict(method, space, basis, seen, shown, ranked, y)
        row = dict(zip(FIELDS, (space.name, protocol, device, method, n, draw), strict=False))
        row["spearman"] = float(spearmanr(predicted, y[ranked])[0]) if np.ptp(predicted) > 0 else 0.0
        row |= {"mape": float(np.abs(predicted / y[ranked] - 1).mean()), "coverage": coverage}
        _rows.append(args.results, FIELDS, row)


def predict(
    method: str, space: Space, basis: DeviceBasis, seen: Floats, shown: Floats, ranked: Floats, y: Floats
) -> tuple[Floats, float]:
    r"""Predicted latencies of the ranked, and the share of 90 % intervals that hold."""
    if method.startswith("latency"):
        predictor = LatencyPredictor(space.archs.space).fit(space.archs[torch.from_numpy(shown)], y[shown], basis)
        low, mean, high = predictor.predict_quantiles(space.archs[torch.from_numpy(ranked)]).numpy().T
        return mean, float(((low <= y[ranked]) & (y[ranked] <= high)).mean())
    if method == "linear":
        return LinearRegression().fit(space.counts[shown], y[shown]).predict(space.counts[ranked]), math.nan
    if method == "ridge":
        model: Any = RidgeCV(np.logspace(-4, 4, 17))
    else:
        from xgboost import XGBRegressor

        model = XGBRegressor(n_estimators=100, max_depth=3, learning_rate=0.1, n_jobs=1)
    return np.exp(model.fit(seen[shown], np.log(y[shown])).predict(seen[ranked])), math.nan


# -- report -----------------------------------------------------------------------------------------------------------


def report(rows: list[_rows.Row], spaces: Iterable[Space]) -> str:
    r"""The tables."""
    return "\n".join(line for space in spaces for line in _lines(space, [r for r in rows if r["space"] == space.name]))


def _lines(space: Space, rows: list[_rows.Row]) -> Iterator[str]:
    explained = space.look_ups()
    fresh = [device for device in space.devices if device not in DEVELOPED[space.name]]
    groups = {
        "measured devices": [d for d in fresh if explained[d] < ADDITIVE],
        "look-up tables": [d for d in fresh if explained[d] >= ADDITIVE],
        "development devices": list(DEVELOPED[space.name]),
    }
    for group, devices in groups.items():
        if not devices:
            continue
        ran = {row["device"] for row in rows if row["protocol"] == "device"}.intersection(devices)
        yield f"\n## {space.name}: {len(ran)} of {len(devices)} {group}\n"
        yield (
            "| protocol | method | " + " | ".join(f"Spearman at {n} | MAPE at {n}" for n in COUNTS) + " | cover 90 % |"
        )
        yield "|---|---|" + "---:|" * (2 * len(COUNTS) + 1)
        for protocol, method in (*(("device", m) for m in METHODS), ("family", "latency")):
            of = [r for r in rows if r["protocol"] == protocol and r["method"] == method and r["device"] in devices]
            if of:
                yield f"| {protocol} | {method} | {_cells(of)} |"
    yield f"\n## {space.name}: each device, 10 measurements, share of variance that a look-up table explains\n"
    yield "| device | look-up | latency | family left out | HELP's devices | HELP | suggested | linear | xgboost |"
    yield "|---|" + "---:|" * 8
    for device in space.devices:
        own = [r for r in rows if r["device"] == device and r["n"] == "10"]
        parts = [
            ("device", "latency"),
            ("family", "latency"),
            ("help", "latency"),
            ("device", "latency-suggest"),
            ("device", "linear"),
            ("device", "xgboost"),
        ]
        found = [_mean(r["spearman"] for r in own if (r["protocol"], r["method"]) == part) for part in parts]
        published = HELP[space.name].get(device)
        shown = [f"{v:.3f}" if v is not None else "" for v in (*found[:3], published, *found[3:])]
        yield f"| {device} | {explained[device]:.6f} | {' | '.join(shown)} |"
    tested = [r for r in rows if (r["protocol"], r["n"]) == ("help", "10")]
    ours = [_mean(r["spearman"] for r in tested if r["device"] == device) for device in HELP[space.name]]
    if all(value is not None for value in ours):
        theirs = statistics.mean(HELP[space.name].values())
        yield f"\nHELP's test and known devices, 10 measurements: {_mean(ours):.3f}, HELP {theirs:.3f} (published)."


def _cells(rows: list[_rows.Row]) -> str:
    parts = []
    for n in COUNTS:
        for key, digits, factor in (("spearman", 3, 1), ("mape", 1, 100)):
            by_device: dict[str, list[float]] = {}
            for row in rows:
                if row["n"] == str(n):
                    by_device.setdefault(row["device"], []).append(factor * float(row[key]))
            means = [statistics.mean(values) for values in by_device.values()]
            error = statistics.stdev(means) / len(means) ** 0.5 if len(means) > 1 else 0.0
            unit = " %" if key == "mape" else ""
            parts.append(f"{statistics.mean(means):.{digits}f} ± {error:.{digits}f}{unit}" if means else "")
    covered = [float(r["coverage"]) for r in rows if r["n"] == "10" and r["coverage"] != "nan"]
    return " | ".join([*parts, f"{statistics.mean(covered):.2f}" if covered else ""])


def _mean(values: Iterable[Any]) -> float | None:
    found = [float(value) for value in values]
    return statistics.mean(found) if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", choices=list(SPACES), default=list(SPACES))
    parser.add_argument("--devices", type=int, default=0, help="only the first ones of each table; 0: all")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument(
        "--protocols", nargs="+", choices=["device", "family", "help"], default=["device", "help", "family"]
    )
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--report-only", action="store_true", help="run nothing, print the tables")
    parser.add_argument("--results", type=Path, default=RESULTS / "latency.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    spaces = [SPACES[name]() for name in args.spaces]
    for protocol in () if args.report_only else args.protocols:
        for space in spaces:
            done = {tuple(row[field] for field in FIELDS[:6]) for row in _rows.read(args.results)}
            for device in space.devices[: args.devices or None]:
                if protocol != "help" or device in HELP[space.name]:
                    run(space, protocol, device, args, done)
    text = f"{report(_rows.read(args.results), spaces)}\n\nAim: Spearman {AIM} at 10. {machine()}\n"
    print(text)
    args.results.with_suffix(".md").write_text(text.lstrip())


if __name__ == "__main__":
    main()
