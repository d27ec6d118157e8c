r"""Whether a process that is shared by all spaces adds to the mean of the bank, where it is trained on other families.

    python benchmarks/universal_head.py
    python benchmarks/universal_head.py --trust
    python benchmarks/universal_head.py --report-only

Tasks are contexts of 5 to 100 random labels, with 128 targets, of the tables of ``universal.py`` and of FCNet and
HPOBench, whose configurations are no graphs. The bank of each is fitted with the scores of the encoder that has not
seen the table. A :class:`~pyg_nas_np.nn.ConvNP` is trained on the tasks of all families but one (and those with the
same cells), and asked about this one. The forms of it (:data:`FORMS`):

- *bounded*: hybrid, sees what all spaces have: these scores (0 without graphs), the moments of the four members and
  their leave-one-out errors. It may shift the mean of the bank by a tenth of a standard deviation.
- *free*: the same with shifts of up to one standard deviation, so that it can learn how far scores are to be trusted.
- *end to end*: free, and sees embeddings of the graphs by an :class:`~pyg_nas_np.nn.OperationEncoder` that is trained
  with it. Gradients reach the encoder through the set convolutions. It starts from the encoder that has not seen the
  family.
- *alone*: end to end without the bank: encoder and set convolutions are all there is.

Encoders have seen the tables of the families that the process is trained on, so that it learns to trust them too much;
there are too few families to train the process on others than the encoders. Rows of ``results/universal_head.csv``:
Kendall's tau of the bank's mean, and of each form. An interrupted run goes on: tasks are kept in ``--tasks``, and
families whose rows are in the results are not trained for again.

With ``--trust``, the *free* form alone is trained, and asked how far it follows the scores of the encoder beyond what
the bank does: the slope, over the targets of a task, of its shift of the bank's mean along the encoder's score, beside
the slope of the bank's true errors, which it cannot see. Rows of ``results/universal_head_trust.csv``.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _own_tables import DEVELOPMENT
from _rows import Row, append, read
from _timing import RESULTS, machine
from torch import Tensor, nn
from torch.nn.functional import softplus
from universal import measured

from pyg_nas_np import ConvNPPredictor
from pyg_nas_np.convnp.encoder import Encoders, PriorEncoder, read_encoders
from pyg_nas_np.convnp.encoder_training import MeasuredTable
from pyg_nas_np.convnp.weights import WEIGHTS
from pyg_nas_np.features.operation_inputs import EncoderInputs, shared_operation_inputs
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.nn import ConvNP, OperationEncoder, Task, TaskBatch
from pyg_nas_np.spaces.described import has_graphs
from pyg_nas_np.utils import atomic_path

SAME = {"micro": "nb201"}
"""Families whose cells are those of another one."""

SIZES = {"5 to 12": (0, 12), "13 to 30": (12, 30), "31 to 100": (30, 100)}
TASKS, ROWS, TARGETS, MEMBERS, STEPS, BATCH, CHANNELS = 1445, 2300, 128, 4, 500, 6, 32
WITHOUT_GRAPHS = ("hpolib", "hpobench")

FORMS: dict[str, dict[str, Any]] = {
    "bounded": {},
    "free": {"max_shift": 1.0},
    "end to end": {"max_shift": 1.0, "encoder": True},
    "alone": {"form": "off-grid", "encoder": True},
}
FIELDS = ("family", "table", "labels", "task", "bank", *FORMS)

TRUST = ("family", "table", "labels", "task", "encoder", "free", "learned", "right")

Drawn = dict[str, Any]
Graphs = dict[str, EncoderInputs]


def pool_of(table: MeasuredTable) -> Tensor:
    r"""Rows of a table that take part, at most :data:`ROWS`."""
    return torch.randperm(table.y.numel(), generator=torch.Generator().manual_seed(1))[:ROWS]


def rows_of(table: MeasuredTable, index: Tensor) -> Any:
    return table.archs[index] if isinstance(table.archs, Tensor) else [table.archs[i] for i in index]


def draw(table: MeasuredTable, generator: torch.Generator) -> Drawn | None:
    r"""One task of a table; :obj:`None` where all its labels are equal."""
    pool = pool_of(table)
    log_size = math.log(5) + float(torch.rand((), generator=generator)) * math.log(20)
    labels = min(round(math.exp(log_size)), pool.numel() // 2)
    order = torch.randperm(pool.numel(), generator=generator)[: labels + TARGETS]
    context, target = pool[order[:labels]], pool[order[labels:]]
    predictor = ConvNPPredictor(table.space, maximize=table.maximize, stacking=False)
    predictor.fit(rows_of(table, context), table.y[context])
    if not predictor.transform_.informative:
        return None
    inputs = predictor._inputs(predictor._known(rows_of(table, target)))[1]
    bank, sign = predictor.bank_, 1.0 if table.maximize else -1.0
    moments = [bank.context, bank.predict(inputs)]
    # A bank without random networks or trend has fewer members; their mean stands for the missing ones.
    moments = [torch.cat([m, *[m.mean(dim=1, keepdim=True)] * (MEMBERS - m.size(1))], dim=1) for m in moments]
    better, known = sign * table.y[target], (sign * table.y[context]).numpy()
    ranks = known.argsort()
    scores = np.interp(better.numpy(), known[ranks], predictor.z_.numpy()[ranks])
    encoded = [
        part[:, -1:] if predictor.encoded_ is not None else part.new_zeros(len(part), 1)
        for part in (predictor.x_, inputs)
    ]
    task = Task(encoded[0], predictor.z_, encoded[1], *moments, torch.from_numpy(scores).float())
    return {"family": table.family, "table": table.name, "task": tuple(task), "order": order, "better": better}


class EndToEnd(nn.Module):
    r"""A process, with an encoder whose embeddings it sees beside the scores.

    Args:
        form: One of :data:`FORMS`.
        prior: Where the encoder starts.
    """

    def __init__(self, form: str, prior: PriorEncoder) -> None:
        super().__init__()
        arguments = dict(FORMS[form])
        self.encoder: OperationEncoder | None = None
        if arguments.pop("encoder", False):
            self.encoder = copy.deepcopy(prior.encoders[0]).train()
        width = 1 if self.encoder is None else 1 + self.encoder.config["out_channels"]
        self.process = ConvNP(width, num_base=MEMBERS, channels=CHANNELS, heads=4, dim=4, **arguments)

    def forward(self, drawn: Sequence[Drawn], graphs: Graphs) -> tuple[TaskBatch, Tensor, Tensor]:
        batch = TaskBatch.from_tasks([Task(*(self._task(one, graphs))) for one in drawn])
        return batch, *self.process(batch)

    def _task(self, drawn: Drawn, graphs: Graphs) -> tuple[Tensor, ...]:
        task: tuple[Tensor, ...] = drawn["task"]
        if self.encoder is None:
            return task
        seen = torch.cat([task[0], task[2]])
        if drawn["table"] in graphs:
            embedding = self.encoder(*graphs[drawn["table"]].select(drawn["order"])).embedding
        else:
            embedding = seen.new_zeros(len(seen), self.encoder.config["out_channels"])
        context, target = torch.cat([seen, embedding], dim=1).split([len(task[0]), len(task[2])])
        return context, task[1], target, *task[3:]

    def groups(self) -> list[dict[str, Any]]:
        r"""The encoder starts trained, and learns more slowly."""
        parts = [{"params": self.process.parameters(), "lr": 1e-3}]
        return parts if self.encoder is None else [*parts, {"params": self.encoder.parameters(), "lr": 2e-4}]


def train(form: str, tasks: Sequence[Drawn], graphs: Graphs, prior: PriorEncoder, seed: int = 0) -> EndToEnd:
    r"""A process for all spaces: the order of pairs of targets, and a tenth of the negative log density."""
    families: dict[str, list[Drawn]] = defaultdict(list)
    for task in tasks:
        families[task["family"]].append(task)
    torch.manual_seed(seed)
    model = EndToEnd(form, prior)
    optimizer = torch.optim.AdamW(model.groups(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    generator = torch.Generator().manual_seed(seed)
    parts = list(families.values())
    for _ in range(STEPS):
        chosen = [parts[int(torch.randint(len(parts), (1,), generator=generator))] for _ in range(BATCH)]
        drawn = [part[int(torch.randint(len(part), (1,), generator=generator))] for part in chosen]
        batch, mean, std = model(drawn, graphs)
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
def judge(model: EndToEnd, task: Drawn, graphs: Graphs) -> float:
    return float(kendall_tau(model([task], graphs)[1], task["better"], undefined=0.0))


def bank(task: Drawn) -> float:
    return float(kendall_tau(Task(*task["task"]).target_moments[..., 0].mean(dim=1), task["better"], undefined=0.0))


def slope(values: Tensor, along: Tensor) -> float:
    r"""Least-squares slope of values along scores; 0 where these are equal."""
    centred = along - along.mean()
    return float((values * centred).sum() / centred.square().sum().clamp_min(1e-6))


@torch.no_grad()
def trust(model: EndToEnd, task: Drawn) -> dict[str, float]:
    r"""How far a process follows the scores of the encoder beyond the bank, and how far it should have."""
    known = Task(*task["task"])
    score, base = known.x_target[:, 0], known.target_moments[..., 0].mean(dim=1)
    mean = model([task], {})[1]
    assert known.z_target is not None
    return {
        "encoder": float(kendall_tau(score, task["better"], undefined=0.0)),
        "free": float(kendall_tau(mean, task["better"], undefined=0.0)),
        "learned": slope(mean - base, score),
        "right": slope(known.z_target - base, score),
    }


def report_trust(results: Path) -> None:
    r"""Mean slopes by family and number of labels, and their correlation over the tasks of a family."""
    rows = read(results)
    head = "learned | right | correlation"
    print("| family | encoder | " + " | ".join(f"{size}: {head}" for size in SIZES) + " |")
    print("|---|--:" + "|--:|--:|--:" * len(SIZES) + "|")
    for family in sorted({row["family"] for row in rows}):
        own = [row for row in rows if row["family"] == family]
        cells = [f"{sum(float(row['encoder']) for row in own) / len(own):.3f}"]
        for low, high in SIZES.values():
            part = [row for row in own if low < int(row["labels"]) <= high]
            pairs = torch.tensor([[float(row[name]) for row in part] for name in ("learned", "right")])
            cells += [f"{value:+.3f}" for value in (*pairs.mean(dim=1).tolist(), float(pairs.corrcoef()[0, 1]))]
        print(f"| {family} | " + " | ".join(cells) + " |")


def compared(rows: Sequence[Row], form: str) -> dict[str, float]:
    r"""On how many families a form is better and worse than the bank, and the mean change of tau over families."""
    gains: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        gains[row["family"]].append(float(row[form]) - float(row["bank"]))
    parts = [torch.tensor(part) for part in gains.values()]
    errors = torch.stack([part.mean() * math.sqrt(part.numel()) / part.std() for part in parts])
    change = float(torch.stack([part.mean() for part in parts]).mean())
    return {
        "better": int((errors > 1).sum()),
        "worse": int((errors < -1).sum()),
        "families": len(parts),
        "change": change,
    }


def report(results: Path) -> None:
    r"""Mean differences to the bank by family and number of labels, with standard errors over tasks.

    The file beside the results says on how many families each form is better and worse by more than one standard error.
    """
    rows = read(results)
    forms = results.with_stem(f"{results.stem}_forms")
    forms.unlink(missing_ok=True)
    print("| form | better | worse | families | change |\n|---|--:|--:|--:|--:|")
    for form in FORMS:
        row = {"form": form} | compared(rows, form)
        append(forms, list(row), row)
        print("| {form} | {better} | {worse} | {families} | {change:+.4f} |".format(**row))
    for form in FORMS:
        print(f"\n{form}\n\n| family | " + " | ".join(SIZES) + " |\n|---" + "|--:" * len(SIZES) + "|")
        means: dict[str, list[float]] = defaultdict(list)
        for family in sorted({row["family"] for row in rows}):
            cells = []
            for title, (low, high) in SIZES.items():
                gains = [
                    float(row[form]) - float(row["bank"])
                    for row in rows
                    if row["family"] == family and low < int(row["labels"]) <= high
                ]
                values = torch.tensor(gains)
                means[title].append(float(values.mean()))
                cells.append(f"{float(values.mean()):+.4f} ± {float(values.std()) / math.sqrt(len(gains)):.4f}")
            print(f"| {family} | " + " | ".join(cells) + " |")
        print("| mean over families | " + " | ".join(f"{sum(v) / len(v):+.4f}" for v in means.values()) + " |")
    print(machine())


def all_tables(data: Path) -> list[MeasuredTable]:
    r"""The tables with graphs, and those of configurations without."""
    found = list(measured(data))
    for family in WITHOUT_GRAPHS:
        for name, load in DEVELOPMENT[family].items():
            table = load()
            found.append(MeasuredTable(name, family, table.space, table.archs, table.y, table.maximize))
    return found


def prior_without(encoders: Encoders, family: str) -> PriorEncoder:
    r"""The encoder of the most families that has not seen one."""
    fit = [prior for prior in encoders.priors if family not in prior.card["families"]]
    return max(fit, key=lambda prior: len(prior.card["families"]))


def all_tasks(tables: Sequence[MeasuredTable], path: Path) -> list[Drawn]:
    r"""The tasks: :data:`TASKS` of them, of which the file keeps those that are drawn."""
    families: dict[str, list[MeasuredTable]] = defaultdict(list)
    for table in tables:
        families[table.family].append(table)
    generator = torch.Generator().manual_seed(0)
    tasks: list[Drawn] = []
    if path.exists():
        kept = torch.load(path, weights_only=True)
        tasks = kept["tasks"]
        generator.set_state(kept["generator"])
    path.parent.mkdir(parents=True, exist_ok=True)
    while len(tasks) < TASKS:
        family = list(families.values())[int(torch.randint(len(families), (1,), generator=generator))]
        task = draw(family[int(torch.randint(len(family), (1,), generator=generator))], generator)
        tasks += [] if task is None else [task]
        if len(tasks) % 100 == 0 or len(tasks) == TASKS:
            with atomic_path(path) as part:
                torch.save({"tasks": tasks, "generator": generator.get_state()}, part)
    return tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=Path, default=Path("out/universal/tasks.pt"), help="where tasks are kept")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of measured tables")
    parser.add_argument("--trust", action="store_true", help="ask the free form alone how far it follows the encoder")
    parser.add_argument("--report-only", action="store_true", help="run nothing, print the table")
    parser.add_argument("--results", type=Path, help="(default: in benchmarks/results)")
    args = parser.parse_args()
    results = args.results or RESULTS / f"universal_head{'_trust' if args.trust else ''}.csv"
    torch.set_num_threads(1)
    if args.report_only:
        (report_trust if args.trust else report)(results)
        return
    tables = all_tables(args.data)
    tasks = all_tasks(tables, args.tasks)
    print(f"{len(tasks)} tasks", flush=True)
    graphs = {
        table.name: shared_operation_inputs(table.space)(rows_of(table, pool_of(table)))
        for table in tables
        if has_graphs(table.space)
    }
    encoders = read_encoders(WEIGHTS / "universal.safetensors")
    judged = {row["family"] for row in read(results)}
    for family in sorted({SAME.get(task["family"], task["family"]) for task in tasks}):
        own = [SAME.get(task["family"], task["family"]) == family for task in tasks]
        mine = [number for number, one in enumerate(own) if one]
        if family in judged or (args.trust and not any(tasks[number]["table"] in graphs for number in mine)):
            continue
        others = [task for task, one in zip(tasks, own, strict=True) if not one]
        models = {
            form: train(form, others, graphs, prior_without(encoders, family))
            for form in (["free"] if args.trust else FORMS)
        }
        rows = []
        for number in mine:
            task = tasks[number]
            row = {"family": task["family"], "table": task["table"], "task": number, "labels": task["task"][1].numel()}
            if args.trust:
                rows.append(row | trust(models["free"], task))
            else:
                taus = {form: judge(model, task, graphs) for form, model in models.items()}
                rows.append(row | {"bank": bank(task)} | taus)
        # Only now, so that a family has all its rows or none.
        for row in rows:
            append(results, TRUST if args.trust else FIELDS, row)
        print(family, flush=True)
    (report_trust if args.trust else report)(results)


if __name__ == "__main__":
    main()
