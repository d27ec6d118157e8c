r"""Whether a process that is shared by all spaces adds to the mean of the bank, where it is trained on other families.

    python benchmarks/universal_head.py --minutes 20
    python benchmarks/universal_head.py --report-only

Tasks are contexts of 5 to 100 random labels of the tables of ``universal.py``, with 128 targets. The bank of each is
fitted with the scores of the encoder that has not seen the table. One :class:`~pyg_nas_np.nn.ConvNP` in the hybrid form
sees what all spaces have: these scores, the moments of the four members and their leave-one-out errors. It is trained
on the tasks of all families but one (and those with the same cells), and asked about this one. The encoders of the
other families have seen it, which can only be of use to the process. Rows of ``results/universal_head.csv``: Kendall's
tau of the bank's mean, of the process, and of its weights alone.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _rows import append, read
from _timing import RESULTS, machine
from torch import Tensor
from torch.nn.functional import softplus
from universal import measured

from pyg_nas_np import ConvNPPredictor
from pyg_nas_np.convnp.encoder_training import MeasuredTable
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.nn import ConvNP, Task, TaskBatch

SAME = {"micro": "nb201"}
"""Families whose cells are those of another one."""

SIZES = {"5 to 12": (0, 12), "13 to 30": (12, 30), "31 to 100": (30, 100)}
ROWS, TARGETS, MEMBERS, STEPS, BATCH = 2300, 128, 4, 600, 6
FIELDS = ("family", "table", "labels", "task", "tau_of_bank", "tau_of_process", "tau_of_weights")

Drawn = dict[str, Any]


def draw(table: MeasuredTable, generator: torch.Generator) -> Drawn | None:
    r"""One task of a table; :obj:`None` where all its labels are equal."""
    pool = torch.randperm(table.y.numel(), generator=torch.Generator().manual_seed(1))[:ROWS]
    log_size = math.log(5) + float(torch.rand((), generator=generator)) * math.log(20)
    labels = min(round(math.exp(log_size)), pool.numel() // 2)
    order = pool[torch.randperm(pool.numel(), generator=generator)]
    context, target = order[:labels], order[labels : labels + TARGETS]

    def rows(index: Tensor) -> Any:
        return table.archs[index] if isinstance(table.archs, Tensor) else [table.archs[i] for i in index]

    predictor = ConvNPPredictor(table.space, maximize=table.maximize, stacking=False)
    predictor.fit(rows(context), table.y[context])
    if not predictor.transform_.informative:
        return None
    inputs = predictor._inputs(predictor._known(rows(target)))[1]
    bank, sign = predictor.bank_, 1.0 if table.maximize else -1.0
    moments = [bank.context, bank.predict(inputs)]
    # A bank without random networks or trend has fewer members; their mean stands for the missing ones.
    moments = [torch.cat([m, *[m.mean(dim=1, keepdim=True)] * (MEMBERS - m.size(1))], dim=1) for m in moments]
    better, known = sign * table.y[target], (sign * table.y[context]).numpy()
    ranks = known.argsort()
    scores = np.interp(better.numpy(), known[ranks], predictor.z_.numpy()[ranks])
    task = Task(predictor.x_[:, -1:], predictor.z_, inputs[:, -1:], *moments, torch.from_numpy(scores).float())
    return {"family": table.family, "table": table.name, "task": tuple(task), "better": better}


def train(tasks: Sequence[Drawn], seed: int = 0) -> ConvNP:
    r"""A process for all spaces: the order of pairs of targets, and a tenth of the negative log density."""
    families: dict[str, list[Drawn]] = defaultdict(list)
    for task in tasks:
        families[task["family"]].append(task)
    torch.manual_seed(seed)
    model = ConvNP(1, num_base=MEMBERS, channels=32, heads=4, dim=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    generator = torch.Generator().manual_seed(seed)
    parts = list(families.values())
    for _ in range(STEPS):
        chosen = [parts[int(torch.randint(len(parts), (1,), generator=generator))] for _ in range(BATCH)]
        drawn = [part[int(torch.randint(len(part), (1,), generator=generator))] for part in chosen]
        batch = TaskBatch.from_tasks([Task(*task["task"]) for task in drawn])
        mean, std = model(batch)
        assert batch.z_target is not None
        density = (0.5 * ((batch.z_target - mean) / std).square() + std.log()).mean()
        loss = pairs(mean, batch.z_target, batch.ptr_target) + 0.1 * density
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def pairs(mean: Tensor, scores: Tensor, ptr: Tensor) -> Tensor:
    r"""The mean logistic loss of the order of targets, a mean over tasks."""
    losses = []
    for m, z in zip(mean.split(ptr.diff().tolist()), scores.split(ptr.diff().tolist()), strict=True):
        sign = (z.unsqueeze(1) - z.unsqueeze(0)).sign()
        loss = softplus(-3.0 * (m.unsqueeze(1) - m.unsqueeze(0)) * sign) * sign.abs()
        losses.append(loss.sum() / sign.abs().sum().clamp_min(1.0))
    return torch.stack(losses).mean()


@torch.no_grad()
def judge(model: ConvNP, task: Drawn) -> dict[str, float]:
    batch = TaskBatch.from_tasks([Task(*task["task"])])
    means = batch.target_moments[..., 0]
    ranked = {
        "tau_of_bank": means.mean(dim=1),
        "tau_of_process": model(batch)[0],
        "tau_of_weights": (means * model.weights(batch)).sum(dim=1),
    }
    return {name: float(kendall_tau(mean, task["better"], undefined=0.0)) for name, mean in ranked.items()}


def report(results: Path) -> None:
    r"""Mean differences to the bank by family and number of labels, with standard errors over tasks."""
    rows = read(results)
    print("| family | " + " | ".join(SIZES) + " |\n|---" + "|--:" * len(SIZES) + "|")
    means: dict[str, list[float]] = defaultdict(list)
    for family in sorted({row["family"] for row in rows}):
        cells = []
        for title, (low, high) in SIZES.items():
            gains = [
                float(row["tau_of_process"]) - float(row["tau_of_bank"])
                for row in rows
                if row["family"] == family and low < int(row["labels"]) <= high
            ]
            values = torch.tensor(gains)
            means[title].append(float(values.mean()))
            cells.append(f"{float(values.mean()):+.4f} ± {float(values.std()) / math.sqrt(len(gains)):.4f}")
        print(f"| {family} | " + " | ".join(cells) + " |")
    print("| mean over families | " + " | ".join(f"{sum(v) / len(v):+.4f}" for v in means.values()) + " |")
    print(machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="time for drawing tasks")
    parser.add_argument("--tasks", type=Path, default=Path("out/universal/tasks.pt"), help="where tasks are kept")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of measured tables")
    parser.add_argument("--report-only", action="store_true", help="run nothing, print the table")
    parser.add_argument("--results", type=Path, default=RESULTS / "universal_head.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.report_only:
        report(args.results)
        return
    tasks: list[Drawn] = torch.load(args.tasks, weights_only=True) if args.tasks.exists() else []
    if not tasks:
        families: dict[str, list[MeasuredTable]] = defaultdict(list)
        for table in measured(args.data):
            families[table.family].append(table)
        generator = torch.Generator().manual_seed(0)
        deadline = time.monotonic() + 60 * args.minutes
        while time.monotonic() < deadline:
            family = list(families.values())[int(torch.randint(len(families), (1,), generator=generator))]
            task = draw(family[int(torch.randint(len(family), (1,), generator=generator))], generator)
            tasks += [] if task is None else [task]
        args.tasks.parent.mkdir(parents=True, exist_ok=True)
        torch.save(tasks, args.tasks)
    print(f"{len(tasks)} tasks", flush=True)
    args.results.unlink(missing_ok=True)
    for family in sorted({SAME.get(task["family"], task["family"]) for task in tasks}):
        own = [SAME.get(task["family"], task["family"]) == family for task in tasks]
        model = train([task for task, mine in zip(tasks, own, strict=True) if not mine])
        for number, (task, mine) in enumerate(zip(tasks, own, strict=True)):
            if mine:
                labels = task["task"][1].numel()
                row = {"family": task["family"], "table": task["table"], "labels": labels, "task": number}
                append(args.results, FIELDS, row | judge(model, task))
    report(args.results)


if __name__ == "__main__":
    main()
