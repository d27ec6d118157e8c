r"""Whether a channel of the known noise adds to a process whose bank knows it.

    python benchmarks/known_noise.py --train
    python benchmarks/known_noise.py --train --form off-grid
    python benchmarks/known_noise.py --report-only

Processes for NAS-Bench-201 are trained as the shipped one (800 synthesised tasks, 1,500 steps), but half of the tasks
have labels with noise of known sizes (:func:`~pyg_nas_np.convnp.priors.known_noise`), with and without
``noise_channel``. All see the same tasks. The bank of the hybrid form knows the noise; the off-grid form has no bank,
so that the channel is all that it is told. They are asked about

- 240 synthesised tasks of another seed, half of them with noise;
- NAS-Bench-201 (validation accuracy after 200 epochs, means over seeds; three data sets) from 10, 30 and 100 random
  labels: *none*: the means; *seeds*: each the mean of one to three seeds, with their standard deviation; *half*: half
  of the labels with added noise of the standard deviation of the function; *wide*: added noise whose standard
  deviations are log-uniform from .02 to 2. The unit is the interquartile range by 1.349; added noise is Gaussian.

Rows of ``results/known_noise.csv``: mean negative log density of the scores of 1,000 other cells without noise (128
in synthesised tasks), and Kendall's tau, by the bank's mixture, by each process, and for the hybrid form by the shipped
process and by the one without the channel whose bank does not know the noise either (``untold``; real tables only).
"""

from __future__ import annotations

import argparse
import math
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from _rows import append, read
from _timing import RESULTS, machine
from torch import Tensor

from pyg_nas_np import ConvNPPredictor, pretrain
from pyg_nas_np.convnp.bank import mixture
from pyg_nas_np.convnp.training import space_tasks
from pyg_nas_np.convnp.weights import read_weights, shipped_model
from pyg_nas_np.datasets import NASBench201
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.nn import ConvNP
from pyg_nas_np.nn.convnp import Form
from pyg_nas_np.predictors.labels import LabelTransform
from pyg_nas_np.spaces import NASBench201Space
from pyg_nas_np.utils import cache_dir

SYNTHESISED = "synthesised"
DATASETS = ("cifar10", "cifar100", "ImageNet16-120")
KINDS = ("none", "seeds", "half", "wide")
SIZES, TARGETS, DRAWS, BATCHES, SHARE, HELD_OUT = (10, 30, 100), 1000, 10, 30, 0.5, 1000
NAMES = ("bank", "without", "with", "shipped", "untold")
SCORES = ("nll", "tau")
KEY = ("form", "seed", "tasks", "table", "noise", "labels", "draw")
FIELDS = (*KEY, *(f"{score}_{name}" for name in NAMES for score in SCORES))

Moments = tuple[Tensor, Tensor]


def train(folder: Path, form: Form, seed: int) -> None:
    r"""Both processes, on the same tasks."""
    for name in ("without", "with"):
        path = folder / f"{form}-{name}-{seed}.safetensors"
        root = path.with_suffix("")
        tasks, drawn = root / "tasks.pt", folder / f"hybrid-without-{seed}" / "tasks.pt"
        if drawn.exists() and not tasks.exists():
            root.mkdir(parents=True, exist_ok=True)
            shutil.copy(drawn, tasks)
        if not path.exists():
            pretrain(
                NASBench201Space(),
                path,
                num_tasks=800,
                max_steps=1500,
                max_minutes=600,
                process={"form": form, "noise_channel": name == "with"},
                noise_share=SHARE,
                seed=seed,
                root=root,
                progress=False,
            )
            print(path, flush=True)


def scores_of(moments: Moments, z: Tensor) -> tuple[float, float]:
    r"""Mean negative log density, and Kendall's tau."""
    mean, std = (value.double() for value in moments)
    density = 0.5 * ((z - mean) / std).square() + std.log() + 0.5 * math.log(2 * math.pi)
    return float(density.mean()), float(kendall_tau(mean, z.double(), undefined=0.0))


def row_of(found: dict[str, Moments], z: Tensor) -> dict[str, float]:
    pairs = {name: scores_of(moments, z) for name, moments in found.items()}
    return {f"{score}_{name}": value for name, pair in pairs.items() for score, value in zip(SCORES, pair, strict=True)}


@torch.no_grad()
def synthesised(models: dict[str, ConvNP]) -> Iterator[dict[str, Any]]:
    r"""Rows of tasks that are drawn as those of the training, by another seed."""
    stream = space_tasks(NASBench201Space(), noise_share=SHARE, seed=HELD_OUT)
    for number in range(BATCHES):
        batch = stream.batch(number)
        assert batch.z_target is not None
        every = {"bank": mixture(batch.target_moments)} | {name: model(batch) for name, model in models.items()}
        for b in range(len(batch)):
            own = slice(int(batch.ptr_target[b]), int(batch.ptr_target[b + 1]))
            context = slice(int(batch.ptr_context[b]), int(batch.ptr_context[b + 1]))
            noisy = batch.noise is not None and bool(batch.noise[context].any())
            found = {name: (mean[own], std[own]) for name, (mean, std) in every.items()}
            key = {"tasks": SYNTHESISED, "table": SYNTHESISED, "noise": "known" if noisy else "none"}
            sizes = {"labels": context.stop - context.start, "draw": number * len(batch) + b}
            yield key | sizes | row_of(found, batch.z_target[own])


def labels_of(kind: str, seeds: Tensor, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    r"""Labels ``[n]`` and their known standard deviations, of cells with measurements ``[A, S]``, NaN where none."""
    means, count = seeds.nanmean(dim=1), rows.numel()
    quartiles = torch.quantile(means, torch.tensor([0.25, 0.75], dtype=means.dtype))
    unit = float(quartiles[1] - quartiles[0]) / 1.349
    draw = torch.rand(count, generator=generator, dtype=torch.float64)
    if kind == "none":
        return means[rows], torch.zeros(count, dtype=torch.float64)
    if kind == "seeds":
        deviations = (seeds - means.unsqueeze(1)).square()
        measured = seeds.isfinite().sum(dim=1)
        own = (deviations.nansum(dim=1) / (measured - 1).clamp_min(1)).sqrt()
        # Of few repeats, a deviation that is zero by chance would be taken for certainty.
        own = own.clamp_min(float(own[measured > 1].median()))
        order = torch.rand(count, seeds.size(1), generator=generator)
        order = order.masked_fill(seeds[rows].isnan(), 2.0).argsort(dim=1)
        taken = (1 + (draw * measured[rows]).floor()).long()
        kept = torch.arange(seeds.size(1)) < taken.unsqueeze(1)
        values = seeds[rows].gather(1, order).masked_fill(~kept, 0.0).sum(dim=1) / taken
        return values, own[rows] / taken.sqrt()
    std = unit * ((draw < 0.5).double() if kind == "half" else 0.02 * 100.0**draw)
    return means[rows] + std * torch.randn(count, generator=generator, dtype=torch.float64), std


@torch.no_grad()
def tabulated(models: dict[str, ConvNP], names: Sequence[str] = DATASETS) -> Iterator[dict[str, Any]]:
    r"""Rows of NAS-Bench-201."""
    root = str(cache_dir() / "benchmarks" / "nasbench201")
    for name in names:
        dataset = NASBench201(root, name)  # type: ignore[arg-type]
        seeds = dataset.metrics["valid_accuracy@200"].values[:, :, -1].double()
        truth = seeds.nanmean(dim=1)
        for number, (kind, size, draw) in enumerate((k, n, d) for k in KINDS for n in SIZES for d in range(DRAWS)):
            generator = torch.Generator().manual_seed(number)
            # The same cells for every kind of noise.
            order = torch.randperm(len(truth), generator=torch.Generator().manual_seed(1000 * size + draw))
            context, target = order[:size], order[size : size + TARGETS]
            y, std = labels_of(kind, seeds, context, generator)
            z = LabelTransform().fit(truth[order[: size + TARGETS]])[size:]
            told = ConvNPPredictor(dataset.space, stacking=False)
            told.fit(context, y.clamp(0.0, 100.0), y_std=std)
            inputs = told._inputs(told._known(target))[1]
            found = {"bank": mixture(told.bank_.predict(inputs))}
            for one, model in models.items():
                told.model_ = model
                found[one] = told.predict_scores(target)
            if models["without"].form == "hybrid":
                untold = ConvNPPredictor(dataset.space, stacking=False).fit(context, y.clamp(0.0, 100.0))
                untold.model_ = models["without"]
                found["untold"] = untold.predict_scores(target)
            key = {"tasks": "NAS-Bench-201", "table": name, "noise": kind, "labels": size, "draw": draw}
            yield key | row_of(found, z)


def report(results: Path) -> None:
    r"""Means, and the mean paired difference by the channel, with its standard error over tasks."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for row in read(results):
        labels = "" if row["tasks"] == SYNTHESISED else row["labels"]
        groups[row["form"], row["tasks"], row["noise"], labels].append(row)
    print("| form | tasks | noise | labels | score | " + " | ".join(NAMES) + " | with - without |")
    print("|---|---|---|--:|---|" + "--:|" * (len(NAMES) + 1))
    for key, rows in groups.items():
        for score in SCORES:
            cells = []
            for name in NAMES:
                values = [float(row[f"{score}_{name}"]) for row in rows if row[f"{score}_{name}"]]
                cells.append(f"{sum(values) / len(values):.4f}" if values else "")
            gains = torch.tensor([float(row[f"{score}_with"]) - float(row[f"{score}_without"]) for row in rows])
            cells.append(f"{gains.mean():+.4f} ± {float(gains.std()) / math.sqrt(len(rows)):.4f}")
            print(f"| {' | '.join([*key, score, *cells])} |")
    print(machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help="train the two processes first")
    parser.add_argument("--report-only", action="store_true", help="run nothing, print the table")
    parser.add_argument("--form", choices=("hybrid", "off-grid"), default="hybrid")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--output", type=Path, default=Path("out/known_noise"), help="folder of trained processes")
    parser.add_argument("--results", type=Path, default=RESULTS / "known_noise.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.report_only:
        report(args.results)
        return
    if args.train:
        train(args.output, args.form, args.seed)
    space = NASBench201Space()
    models = {
        name: read_weights(args.output / f"{args.form}-{name}-{args.seed}.safetensors", space)
        for name in ("without", "with")
    }
    if args.form == "hybrid":
        models["shipped"] = shipped_model(space)
    done = {(row["form"], row["seed"], row["table"]) for row in read(args.results)}
    parts = {SYNTHESISED: synthesised(models)} | {name: tabulated(models, [name]) for name in DATASETS}
    for name, rows in parts.items():
        if (args.form, str(args.seed), name) not in done:
            for row in list(rows):
                append(args.results, FIELDS, {"form": args.form, "seed": args.seed} | row)
            print(name, flush=True)
    report(args.results)


if __name__ == "__main__":
    main()
