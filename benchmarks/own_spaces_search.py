r"""Searches of own spaces: how near to the best of a table 20, 50 and 100 trials come, beside the usual peers.

    python benchmarks/own_spaces_search.py --seeds 20 --methods convnp random tpe
    python benchmarks/own_spaces_search.py --report-only

Protocol: a trial reads the label of a row of a table of ``own_spaces.py``; no row is measured twice. All methods of a
seed start from the same ten random rows, then propose one row at a time and see every label before the next. Ours and
``botorch`` choose among the rows that are left. The others propose any point of the declared space; the trial is the
nearest row that is left (Euclidean distance of the standardised columns of :class:`PlainColumns`), and the method is
told the row's own parameters with its label, so that it neither repeats a trial nor learns a wrong label. Peers get raw
labels and transform them as they do by default; settings are their defaults (so ``smac`` refits its forest at every
eighth trial). Choices that are numbers are declared to peers as ordered (by their position), lists of layers as a
length and parameters that are active up to it; ``gp-sampler`` has no conditions, there layers beyond the length have
their first values.

The regret is (best - found) / (best - median) of the table: a random row has 1 or so, whatever outliers a table has. It
is 0 once the best row is found, where a search stops. Budgets are at most half of the rows.

Every (table, method, seed) is one row of ``results/own_spaces_search.csv``, written as it comes; what is there is not
run again. The column ``trace`` has the trials at which the regret fell, with the regret. A family mean is the mean over
families of tables of the mean within a family. Seeds from 100 on are for tuning, on the development tables alone. The
tables also go to ``.md``, the plot to ``.png``.
"""

from __future__ import annotations

import argparse
import logging
import math
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import _rows
import numpy as np
import torch
from _own_tables import DEVELOPED, FAMILIES, LOADERS, PlainColumns, Table, is_number
from _timing import RESULTS, machine
from torch import Tensor

from pyg_nas_np.convnp import ConvNPPredictor
from pyg_nas_np.search import PredictorSearch
from pyg_nas_np.spaces import Categorical, Integer, Repeat
from pyg_nas_np.utils import atomic_path

BUDGETS = (20, 50, 100)
INITIAL = 10
"""Random rows at which all methods of a seed start."""

LEAST = 3
"""Searches that a curve needs."""

FIELDS = ("table", "method", "seed", "trials", "trace", "seconds")

Flat = dict[str, Any]
"""A configuration of single values; layers are numbered."""


# -- methods ----------------------------------------------------------------------------------------------------------


class Method(ABC):
    r"""Proposes rows of a table.

    Args:
        table: The table.
        seed: Seed.
        rows: The first rows.
        y: Their labels.
    """

    def __init__(self, table: Table, seed: int, rows: Sequence[int], y: Sequence[float]) -> None:
        self.table, self.seed = table, seed
        self.sign = 1.0 if table.maximize else -1.0
        self.free = np.ones(len(table.archs), dtype=bool)
        self.start()
        for row, label in zip(rows, y, strict=True):
            self.tell(row, label)

    def start(self) -> None:  # noqa: B027
        r"""Prepares what the seed and the table determine."""

    @abstractmethod
    def ask(self) -> int:
        r"""Returns a row that is free."""

    def tell(self, row: int, y: float) -> None:
        r"""Takes the label of a row."""
        self.free[row] = False


class Random(Method):
    def start(self) -> None:
        self.generator = np.random.default_rng(self.seed)

    def ask(self) -> int:
        return int(self.generator.choice(np.flatnonzero(self.free)))


class Own(Method):
    r"""The search of the library.

    Args:
        given: Of :class:`Method`.
        alone: Whether graphs and sizes are hidden.
        encoder: Of :class:`~pyg_nas_np.convnp.ConvNPPredictor`.
        options: Of :class:`~pyg_nas_np.search.PredictorSearch`.
    """

    def __init__(self, *given: Any, alone: bool = False, encoder: str | None = "universal", **options: Any) -> None:
        self.alone, self.encoder, self.options = alone, encoder, options
        super().__init__(*given)

    def start(self) -> None:
        table = self.table
        self.row_of = {arch: row for row, arch in enumerate(table.archs)}
        self.search = PredictorSearch(
            table.records if self.alone else table.space,
            ConvNPPredictor(stacking=False, encoder=self.encoder),
            candidates=table.archs,
            maximize=table.maximize,
            seed=self.seed,
            **{"initial": INITIAL, **self.options},
        )

    def ask(self) -> int:
        return self.row_of[self.search.ask()[0]]

    def tell(self, row: int, y: float) -> None:
        super().tell(row, y)
        self.search.tell([self.table.archs[row]], [y])


class BoTorch(Method):
    r"""``SingleTaskGP`` on the plain columns and ``qLogNoisyExpectedImprovement`` over all rows that are left."""

    def start(self) -> None:
        self.x = torch.from_numpy(PlainColumns(self.table).rows)
        low, high = self.x.min(dim=0).values, self.x.max(dim=0).values
        self.x = (self.x - low) / (high - low)
        self.rows: list[int] = []
        self.y: list[float] = []

    def tell(self, row: int, y: float) -> None:
        super().tell(row, y)
        self.rows.append(row)
        self.y.append(self.sign * y)

    def ask(self) -> int:
        from botorch.acquisition import qLogNoisyExpectedImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from gpytorch.mlls import ExactMarginalLogLikelihood

        torch.manual_seed(self.seed)
        x, y = self.x[self.rows], torch.tensor(self.y, dtype=torch.float64).unsqueeze(1)
        model = SingleTaskGP(x, y)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        improvement = qLogNoisyExpectedImprovement(model, x, prune_baseline=True)
        free = np.flatnonzero(self.free)
        with torch.no_grad():
            merit = torch.cat([improvement(part.unsqueeze(1)) for part in self.x[free].split(256)])
        return int(free[int(merit.argmax())])


class Proposer(Method):
    r"""A method that proposes configurations; the nearest free row is measured."""

    def start(self) -> None:
        self.columns = PlainColumns(self.table)
        self.axes = axes_of(self.table)
        self.flat = [self.flattened(record) for record in self.table.space.records(self.table.archs)]

    @abstractmethod
    def propose(self) -> Flat:
        r"""Returns a point of the space."""

    def ask(self) -> int:
        point = self.columns([self.nested(self.propose())])
        distance = np.square(self.columns.rows - point).sum(axis=1)
        return int(np.where(self.free, distance, np.inf).argmin())

    def flattened(self, record: Mapping[str, Any]) -> Flat:
        r"""The active values; numbers among choices by their position."""
        found: Flat = {}
        for name, axis in self.axes.items():
            if axis.position is None:
                value = record[axis.source]
            elif axis.position < len(record[axis.source]):
                value = record[axis.source][axis.position][axis.field]
            else:
                continue
            value = len(value) if axis.field is None and isinstance(axis.parameter, Repeat) else value
            found[name] = axis.choices.index(value) if axis.ordered else value
        return found

    def nested(self, flat: Flat) -> dict[str, Any]:
        r"""Inverse of :meth:`flattened`; values beyond the length of a list are left out."""
        record: dict[str, Any] = {}
        for name, axis in self.axes.items():
            value = axis.choices[flat[name]] if axis.ordered and name in flat else flat.get(name)
            if isinstance(axis.parameter, Repeat):
                record[axis.source] = [{} for _ in range(value)]
            elif axis.position is None:
                record[axis.source] = value
            else:
                layers = record.setdefault(axis.source, [{} for _ in range(axis.layers)])
                if axis.position < len(layers):
                    layers[axis.position][axis.field] = value
        return record


class Axis:
    r"""A parameter of a flat configuration."""

    def __init__(self, parameter: Any, source: str, field: str | None = None, position: int | None = None) -> None:
        self.parameter, self.source, self.field, self.position = parameter, source, field, position
        stepped = isinstance(parameter, Integer) and parameter.step > 1
        self.ordered = stepped or (isinstance(parameter, Categorical) and is_number(parameter))
        """Whether methods see the positions of sorted numbers."""
        choices = parameter.values() if stepped else getattr(parameter, "choices", ())
        self.choices = sorted(choices) if self.ordered else list(choices)
        self.layers = 0
        """Layers of the list, if their number is fixed."""
        self.when: tuple[str, int] | None = None
        """The axis of a length, and which length it must exceed."""

    @property
    def bounds(self) -> tuple[Any, Any]:
        if isinstance(self.parameter, Repeat):
            return self.parameter.min_length, self.parameter.max_length
        return (0, len(self.choices) - 1) if self.ordered else (self.parameter.low, self.parameter.high)

    @property
    def log(self) -> bool:
        return not self.ordered and bool(getattr(self.parameter, "log", False))

    @property
    def first(self) -> Any:
        return self.bounds[0] if not self.choices or self.ordered else self.choices[0]


def axes_of(table: Table) -> dict[str, Axis]:
    r"""Flat parameters of a table, lengths before their layers."""
    axes: dict[str, Axis] = {}
    for name, parameter in table.space.parameters.items():
        if not isinstance(parameter, Repeat):
            axes[name] = Axis(parameter, name)
            continue
        length = f"{name}.length"
        fixed = parameter.min_length == parameter.max_length
        if not fixed:
            axes[length] = Axis(parameter, name)
        for i in range(parameter.max_length):
            for field, inner in parameter.parameters.items():
                axis = axes[f"{name}.{i}.{field}"] = Axis(inner, name, field, i)
                axis.layers = parameter.max_length if fixed else 0
                axis.when = None if i < parameter.min_length else (length, i)
    return axes


class Optuna(Proposer):
    r"""A sampler of Optuna.

    Args:
        given: Of :class:`Method`.
        sampler: Makes the sampler from a seed.
        padded: Whether every parameter is suggested at all times.
    """

    def __init__(self, *given: Any, sampler: Callable[..., Any], padded: bool = False) -> None:
        self.sampler, self.padded = sampler, padded
        super().__init__(*given)

    def start(self) -> None:
        import optuna

        super().start()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        direction = "maximize" if self.table.maximize else "minimize"
        self.study = optuna.create_study(direction=direction, sampler=self.sampler(seed=self.seed))
        self.distributions = {name: self.distribution(axis) for name, axis in self.axes.items()}

    def distribution(self, axis: Axis) -> Any:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if axis.choices and not axis.ordered:
            return CategoricalDistribution(axis.choices)
        low, high = axis.bounds
        if isinstance(low, float):
            return FloatDistribution(low, high, log=axis.log)
        return IntDistribution(low, high, log=axis.log)

    def propose(self) -> Flat:
        import optuna

        trial = self.study.ask()
        point: Flat = {}
        for name, axis in self.axes.items():
            if self.padded or axis.when is None or point[axis.when[0]] > axis.when[1]:
                point[name] = trial._suggest(name, self.distributions[name])
        # What is measured is the row, not the point; failed trials are not learned from.
        self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return point

    def tell(self, row: int, y: float) -> None:
        import optuna

        super().tell(row, y)
        params = self.flat[row]
        if self.padded:
            params = {name: params.get(name, axis.first) for name, axis in self.axes.items()}
        distributions = {name: self.distributions[name] for name in params}
        self.study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=y))


def tpe(**options: Any) -> Any:
    import optuna

    return optuna.samplers.TPESampler(**options)


def gp_sampler(**options: Any) -> Any:
    import optuna

    return optuna.samplers.GPSampler(deterministic_objective=True, warn_independent_sampling=False, **options)


class SMAC(Proposer):
    r"""SMAC's random forest on a space with conditions."""

    def start(self) -> None:
        from ConfigSpace import Categorical as Choice
        from ConfigSpace import ConfigurationSpace, Float, GreaterThanCondition
        from ConfigSpace import Integer as Whole

        super().start()
        self.declared = ConfigurationSpace(seed=self.seed)
        for name, axis in self.axes.items():
            if axis.choices and not axis.ordered:
                self.declared.add(Choice(name, axis.choices))
            else:
                kind = Float if isinstance(axis.bounds[0], float) else Whole
                self.declared.add(kind(name, axis.bounds, log=axis.log))
        for name, axis in self.axes.items():
            if axis.when is not None:
                length, least = axis.when
                self.declared.add(GreaterThanCondition(self.declared[name], self.declared[length], least))
        self.known: list[tuple[int, float]] = []
        self.facade: Any = None

    def row_configuration(self, row: int) -> Any:
        from ConfigSpace import Configuration

        return Configuration(self.declared, values=self.flat[row])

    def begin(self) -> None:
        from smac import HyperparameterOptimizationFacade as Facade
        from smac import Scenario

        self.folder = tempfile.TemporaryDirectory()
        scenario = Scenario(
            self.declared,
            deterministic=True,
            n_trials=10_000,
            seed=self.seed,
            output_directory=Path(self.folder.name),
            use_default_config=False,
        )
        first = [self.row_configuration(row) for row, _ in self.known]
        self.facade = Facade(
            scenario,
            lambda config, seed=0: 0.0,
            initial_design=Facade.get_initial_design(scenario, n_configs=0, additional_configs=first),
            intensifier=Facade.get_intensifier(scenario, max_config_calls=1),
            logging_level=False,
            overwrite=True,
        )
        for row, y in self.known:
            self.report(row, y)

    def report(self, row: int, y: float) -> None:
        from smac.runhistory import TrialInfo, TrialValue

        self.facade.tell(TrialInfo(self.row_configuration(row), seed=0), TrialValue(cost=-self.sign * y), save=False)

    def propose(self) -> Flat:
        if self.facade is None:
            self.begin()
        return dict(self.facade.ask().config)

    def tell(self, row: int, y: float) -> None:
        super().tell(row, y)
        self.known.append((row, y))
        if self.facade is not None:
            self.report(row, y)


METHODS: dict[str, Callable[..., Method]] = {
    "convnp": Own,
    "bank": partial(Own, encoder=None),
    "convnp-records": partial(Own, alone=True),
    "random": Random,
    "tpe": partial(Optuna, sampler=tpe),
    "gp-sampler": partial(Optuna, sampler=gp_sampler, padded=True),
    "smac": SMAC,
    "botorch": BoTorch,
}

VARIANTS: dict[str, Callable[..., Method]] = {
    "ucb-0.7": partial(Own, beta=0.7),
    "ucb-2.5": partial(Own, beta=2.5),
    "ei": partial(Own, acquisition="ei"),
    "mean": partial(Own, acquisition="mean"),
    "thompson": partial(Own, acquisition="thompson"),
}
"""For tuning."""


# -- one search -------------------------------------------------------------------------------------------------------


@cache
def table_of(name: str) -> Table:
    return LOADERS[name]()


def regrets(table: Table) -> Tensor:
    r"""Regret of every row, ``[n]``; 0 for the best, 1 for the median."""
    merit = table.y if table.maximize else -table.y
    return (merit.max() - merit) / (merit.max() - merit.median())


def search(method: str, table: Table, seed: int, trials: int) -> list[tuple[int, float]]:
    r"""Runs one search; returns the trials (from 1) at which the regret fell, with the regret."""
    regret = regrets(table)
    order = torch.randperm(len(table.archs), generator=torch.Generator().manual_seed(seed))[:INITIAL].tolist()
    make = {**METHODS, **VARIANTS}[method]
    found = make(table, seed, order, table.y[order].tolist())
    trace: list[tuple[int, float]] = []
    for trial in range(1, trials + 1):
        if trial <= INITIAL:
            row = order[trial - 1]
        else:
            row = found.ask()
            found.tell(row, float(table.y[row]))
        if not trace or regret[row] < trace[-1][1]:
            trace.append((trial, float(regret[row])))
        if trial >= INITIAL and trace[-1][1] == 0.0:
            break
    return trace


def trials_of(table: Table, most: int) -> int:
    r"""The largest budget for a table; 0 if there is none."""
    return max((budget for budget in BUDGETS if budget <= most and 2 * budget <= len(table.archs) + 4), default=0)


def run(args: argparse.Namespace) -> None:
    r"""Runs what is not in the file yet, one seed of everything after the other."""
    done = {(row["table"], row["method"], int(row["seed"])): int(row["trials"]) for row in _rows.read(args.results)}
    deadline = time.monotonic() + 60 * args.minutes
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name in args.tables:
            for method in args.methods:
                trials = trials_of(table_of(name), args.trials)
                if done.get((name, method, seed), 0) >= trials:
                    continue
                if time.monotonic() > deadline:
                    print("stopped by --minutes; run again to go on", flush=True)
                    return
                start = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of peers
                    trace = search(method, table_of(name), seed, trials)
                _rows.append(
                    args.results,
                    FIELDS,
                    {
                        "table": name,
                        "method": method,
                        "seed": seed,
                        "trials": trials,
                        "trace": " ".join(f"{trial}:{regret:.4g}" for trial, regret in trace),
                        "seconds": time.perf_counter() - start,
                    },
                )
                print(f"{name} {method} seed={seed}: regret {trace[-1][1]:.3f} at {trace[-1][0]}", flush=True)


# -- summaries --------------------------------------------------------------------------------------------------------


def curve(row: Mapping[str, str]) -> np.ndarray[Any, Any]:
    r"""Regret after every trial of a search, ``[trials]``."""
    values = np.empty(int(row["trials"]))
    for part in row["trace"].split():
        trial, regret = part.split(":")
        values[int(trial) - 1 :] = float(regret)
    return values


Cells = dict[tuple[str, str, int], np.ndarray[Any, Any]]
"""(table, method, seed) → regrets."""


def family_mean(cells: Iterable[tuple[str, float]]) -> float:
    r"""Mean over families of the means of their tables, of (table, value)."""
    tables: dict[str, list[float]] = defaultdict(list)
    for table, value in cells:
        tables[table].append(value)
    families: dict[str, list[float]] = defaultdict(list)
    for table, values in tables.items():
        families[FAMILIES[table]].append(sum(values) / len(values))
    return sum(sum(values) / len(values) for values in families.values()) / len(families)


def report(cells: Cells, seconds: Mapping[tuple[str, str], list[float]], names: Sequence[str]) -> str:
    r"""Markdown: family means; ours on the same searches as each peer; every table."""
    methods = [m for m in (*METHODS, *VARIANTS) if any(method == m for _, method, _ in cells)]
    lines = []
    for title, tables in (
        ("development tables", [name for name in names if name in DEVELOPED]),
        ("further tables", [name for name in names if name not in DEVELOPED]),
    ):
        mine = {key: values for key, values in cells.items() if key[0] in tables}
        if not mine:
            continue
        lines += ["", f"mean regret, family mean over the {title}; in brackets convnp on the same searches", ""]
        lines += [
            "| method | " + " | ".join(f"{b} trials" for b in BUDGETS) + " | tables | seeds | s / search |",
            "|---" * (4 + len(BUDGETS)) + "|",
        ]
        for method in methods:
            own = [key for key in mine if key[1] == method]
            if not own:
                continue
            texts = []
            for budget in BUDGETS:
                long = [key for key in own if len(mine[key]) >= budget]
                both = [key for key in long if len(mine.get((key[0], "convnp", key[2]), ())) >= budget]
                text = f"{family_mean((k[0], mine[k][budget - 1]) for k in long):.3f}" if long else ""
                if both and method != "convnp":
                    ours = family_mean((k[0], mine[k[0], "convnp", k[2]][budget - 1]) for k in both)
                    text += f" ({ours:.3f})"
                texts.append(text)
            counts = [sum(key[0] == name for key in own) for name in tables if any(key[0] == name for key in own)]
            seeds = str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
            taken = [value for name in tables for value in seconds.get((name, method), [])]
            lines.append(
                f"| {method} | " + " | ".join(texts) + f" | {len(counts)} | {seeds} | {sum(taken) / len(taken):.1f} |"
            )
    # Where there is no graph, there is no encoder to leave out.
    with_bank = {name for name, method, _ in cells if method == "bank"}
    without = {key: "bank" if key[0] in with_bank else "convnp" for key in cells}
    for title, method_of in (("convnp", dict.fromkeys(cells, "convnp")), ("without the encoder", without)):
        tpe_keys = [key for key in cells if key[1] == "tpe" and len(cells[key]) >= 50 and key[0] in DEVELOPED]
        pairs = [(key, (key[0], method_of[key], key[2])) for key in tpe_keys]
        pairs = [pair for pair in pairs if len(cells.get(pair[1], ())) >= 50]
        if pairs:
            ours, theirs = (family_mean((pair[i][0], cells[pair[i]][49]) for pair in pairs) for i in (1, 0))
            text = (
                f"{title} / tpe at 50 trials on {len(pairs)} searches: {ours:.3f} / {theirs:.3f} = {ours / theirs:.2f}"
            )
            lines += ["", f"{text} (aim 0.5)"]
    equal = [key for key in cells if key[1] == "convnp" and (key[0], "bank", key[2]) in cells and key[0] in DEVELOPED]
    for budget in BUDGETS if equal else ():
        both = [(cells[key], cells[key[0], "bank", key[2]], key[0]) for key in equal]
        both = [pair for pair in both if min(len(pair[0]), len(pair[1])) >= budget]
        ours, bank = (family_mean((pair[2], pair[i][budget - 1]) for pair in both) for i in (0, 1))
        lines += [
            "",
            f"at {budget} trials, {len(both)} equal searches: {ours:.3f} with the encoder, {bank:.3f} without",
        ]
    lines += ["", "mean regret of every table", ""]
    lines += [
        "| table | " + " | ".join(f"{method}@{b}" for method in methods for b in BUDGETS) + " |",
        "|---" * (1 + len(BUDGETS) * len(methods)) + "|",
    ]
    for name in names:
        texts = []
        for method in methods:
            found = [values for (table, m, _), values in cells.items() if (table, m) == (name, method)]
            for budget in BUDGETS:
                long = [values[budget - 1] for values in found if len(values) >= budget]
                texts.append(f"{sum(long) / len(long):.3f}" if long else "")
        if any(texts):
            lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def plot(cells: Cells, names: Sequence[str], path: Path) -> None:
    r"""Mean regret against the number of trials, of the searches that convnp ran too, one panel a family; quartiles of
    convnp and tpe."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    families = list(dict.fromkeys(FAMILIES[name] for name in names if any(key[0] == name for key in cells)))
    columns = min(4, len(families))
    height = math.ceil(len(families) / columns)
    figure, axes = plt.subplots(
        height, columns, figsize=(3.2 * columns, 2.5 * height), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(families) :]:
        axis.set_axis_off()
    for axis, family in zip(axes.flat, families, strict=False):
        for i, method in enumerate(METHODS):
            found = [
                values
                for (table, m, seed), values in cells.items()
                if m == method and FAMILIES[table] == family and (table, "convnp", seed) in cells
            ]
            if len(found) < LEAST:
                continue
            length = min(len(values) for values in found)
            values = np.stack([values[:length] for values in found])
            trials = np.arange(INITIAL, length + 1)
            style = {"color": "black", "linewidth": 2.0} if method == "convnp" else {"color": f"C{i}", "linewidth": 1.0}
            axis.plot(trials, values.mean(axis=0)[INITIAL - 1 :], label=method, **style)
            if method in ("convnp", "tpe"):
                low, high = np.quantile(values[:, INITIAL - 1 :], (0.25, 0.75), axis=0)
                axis.fill_between(trials, low, high, color=style["color"], alpha=0.12, linewidth=0)
        axis.set_title(family, fontsize=9)
        axis.set_ylim(0, None)
        axis.tick_params(labelsize=8)
    figure.supxlabel("trials", fontsize=9)
    figure.supylabel("regret (0: best of the table, 1: median)", fontsize=9)
    handles = {line.get_label(): line for axis in axes.flat for line in axis.get_lines()}
    order = [method for method in METHODS if method in handles]
    figure.legend([handles[m] for m in order], order, loc="outside upper center", ncols=len(order), fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=80, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*METHODS, *VARIANTS]
    development = [name for name in LOADERS if name in DEVELOPED]
    parser.add_argument("--tables", nargs="+", choices=list(LOADERS), default=development)
    parser.add_argument("--methods", nargs="+", choices=every, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0, help="first seed; those from 100 on are for tuning")
    parser.add_argument("--trials", type=int, default=BUDGETS[-1], help="trials of a search at most")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no search after this time")
    parser.add_argument("--report-only", action="store_true", help="run nothing, print the table and draw the plot")
    parser.add_argument("--results", type=Path, default=RESULTS / "own_spaces_search.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    if not args.report_only:
        run(args)
    rows = _rows.read(args.results)
    if not rows:
        raise SystemExit(f"{args.results} holds no searches")
    # A search that was run again with more trials comes later.
    cells = {(row["table"], row["method"], int(row["seed"])): curve(row) for row in rows}
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        seconds[row["table"], row["method"]].append(float(row["seconds"]))
    names = [name for name in LOADERS if any(key[0] == name for key in cells)]
    text = f"{report(cells, seconds, names)}\n\n{machine()}\n"
    print(text)
    args.results.with_suffix(".md").write_text(text.lstrip())
    plot(cells, names, args.results.with_suffix(".png"))


if __name__ == "__main__":
    main()
