r"""What bad input, damaged files, payloads, kills and parallel workers do to the library.

    python benchmarks/robustness.py
    python benchmarks/robustness.py --mutations 2000 --kills 5 --trials 0 --only rank search fit

Cases are inputs that cannot be right. A case is *named* where it ends with an error that this package raised on purpose
(on the command line: status 2 and a message without traceback), *raw* with any other error, *hang* after a minute, and
*silent* where nothing is said. The aims are 0 raw, 0 hang, 0 silent; 0 errors of foreign kinds for damaged files; 0
payloads run; 0 files damaged by ``kill -9``; 0 repeated proposals. Needs the packages of the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from _timing import machine
from torch_geometric.data import Batch, Data

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from conftest import ToySpace, _mutations
from test_foreign_files import make_loaders, payloads

from pyg_nas_np import ops
from pyg_nas_np.cli import main as run_command
from pyg_nas_np.cli.app import _is_users
from pyg_nas_np.cli.tables import write_csv
from pyg_nas_np.curves import EarlyStopping, SequentialRegression, replay
from pyg_nas_np.curves.data import LearningCurves
from pyg_nas_np.datasets import Metric, NASBench201
from pyg_nas_np.datasets.compact import write_compact
from pyg_nas_np.metad2a.image_features import ImageFeatures
from pyg_nas_np.metad2a.predictor import MetaD2APredictor
from pyg_nas_np.metad2a.reader import open_database
from pyg_nas_np.metad2a.search import MetaD2A
from pyg_nas_np.metrics import functional as metrics
from pyg_nas_np.predictors import (
    EnsemblePredictor,
    GNNPredictor,
    GPPredictor,
    MLPEnsemblePredictor,
    Predictor,
    RandomForestPredictor,
    RidgePredictor,
)
from pyg_nas_np.predictors.attribution import attribute
from pyg_nas_np.predictors.evaluation import evaluate
from pyg_nas_np.search import BananasSearch, LocalSearch, PredictorSearch, RandomSearch, RegularizedEvolution, simulate
from pyg_nas_np.spaces import NASBench101Space, NASBench201Space
from pyg_nas_np.utils import NASError, read_tensors, write_tensors
from pyg_nas_np.utils.table_files import read_csv

PATIENCE = 60
"""Seconds after which a case counts as hanging."""

OUTCOMES = ("named", "raw", "hang", "silent")
NAN, INF = float("nan"), float("inf")


class Case(NamedTuple):
    r"""A call that cannot be right.

    Args:
        entry: Command or function that it enters by.
        name: What is wrong.
        call: The call; returns an outcome, or nothing where an exception tells.
    """

    entry: str
    name: str
    call: Callable[[], Any]


class Hang(BaseException):
    pass


def _too_long(*_: object) -> None:
    raise Hang


def outcome(case: Case) -> tuple[str, str]:
    r"""Runs a case: its outcome, and what was said."""
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(PATIENCE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            told = case.call()
    except Hang:
        return "hang", ""
    except Exception as error:
        # What scikit-learn says of its estimators is clear enough.
        ours = isinstance(error, NASError) or type(error).__module__.startswith("sklearn.")
        named = ours or on_purpose(error)
        return "named" if named else "raw", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    return told if case.entry in COMMANDS else ("silent", repr(told)[:200])


def on_purpose(error: Exception) -> bool:
    r"""Whether our code has refused a value, as for the command line; a wrong type counts too."""
    kinds = (ValueError, TypeError, IndexError, LookupError, OverflowError)
    if not isinstance(error, kinds):
        return isinstance(error, OSError)
    return _is_users(ValueError(str(error)).with_traceback(error.__traceback__))


# -- the command line -------------------------------------------------------------------------------------------------

COMMANDS = ("rank", "search", "benchmark", "score", "generate", "convert", "verify", "info", "curves", "train", "app")


def command(*arguments: object, process: bool = False) -> tuple[str, str]:
    r"""Runs the command line, in this process or in one of its own: the outcome, and what was said."""
    if process:
        code = "from pyg_nas_np.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
        status, said = done.returncode, done.stderr
    else:
        old, out, err = sys.argv, io.StringIO(), io.StringIO()
        sys.argv = ["pyg-nas-np", *map(str, arguments)]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                run_command()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        finally:
            sys.argv = old
        said = err.getvalue()
    if status == 0:
        return "silent", said
    return ("named" if status == 2 and "Traceback" not in said and len(said.strip()) > 20 else "raw"), said


WORDS = ("x", "", "[/x]", "\N{GRINNING FACE}", "../..")
NUMBERS = ("-1", "x", "", "1.5", "nan", "9" * 40, "[/x]")
REALS = ("x", "", "nan", "inf", "-inf", "-1", "[/x]")


def command_cases(root: Path, folder: Path) -> Iterator[Case]:
    r"""Bad values for every option of every command, and bad files for those that name files."""
    cell = str(NASBench201Space()[0])
    (folder / "file").touch()
    (folder / "text.csv").write_text("nothing, here\n")
    (folder / "binary.csv").write_bytes(bytes(range(256)) * 9)
    os.mkfifo(folder / "pipe")
    files = {
        "missing": folder / "none [/x].csv",
        "folder": folder,
        "device": "/dev/zero",
        "pipe": folder / "pipe",
        "empty": folder / "file",
        "other columns": folder / "text.csv",
        "binary": folder / "binary.csv",
    }
    outputs = {"below a file": folder / "file" / "x", "no folder": "/proc/none/x", "long": folder / ("x" * 300)}
    labels = {
        "no row": "arch,label\n",
        "text": f"arch,label\n{cell},good\n",
        "nan": f"arch,label\n{cell},nan\n",
        "infinite": f"arch,label\n{cell},inf\n",
        "no label": f"arch,label\n{cell},\n",
        "no architecture": "arch,label\n,1\n",
        "another space": "arch,label\n2:1:,1\n",
        "markup": "arch,label\n[/x],1\n",
        "repeated column": f"arch,label,label\n{cell},1,2\n",
        "more cells": f"arch,label\n{cell},1,2\n",
        "decimal comma": f'arch;label\n{cell};"1,5"\n',
        "huge field": "arch,label\n" + "x" * 200_000 + ",1\n",
        "UTF-16 without mark": f"arch,label\n{cell},1\n".encode("utf-16-le"),
        "quote left open": f'arch,label\n"{cell},1\n',
    }
    for name, content in labels.items():
        path = folder / f"labels {name}.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        labels[name] = path

    given = ("--root", root)
    curves = folder / "curves.csv"
    rng = np.random.default_rng(0)
    rows = [(f"c{c}", e, (1 - np.exp(-e * rng.uniform(0.3, 0.6)))) for c in range(12) for e in range(1, 7)]
    write_csv(curves, ["config", "epoch", "value"], rows)
    table = (curves, "--direction", "up", "--regressor", "ols")
    tables = {
        "no direction": (curves,),
        "wrong direction": (curves, "--direction", "down"),
        "few curves": (*table, "--training", 12),
        "absent column": (*table, "--value", "[/x]"),
        "text as number": (*table, "--hyperparameter", "config"),
    }

    def options(entry: str, base: tuple[object, ...], values: dict[str, tuple[str, ...]]) -> Iterator[Case]:
        for option, bad in values.items():
            for value in bad:
                arguments = (*entry.split(), *base, option, value)
                yield Case(entry.split()[0], f"{option} {value[:12]!r}", lambda a=arguments: command(*a))

    def paths(entry: str, base: tuple[object, ...], option: str | None, bad: dict[str, Any]) -> Iterator[Case]:
        for name, path in bad.items():
            arguments = (*entry.split(), *base, *((option,) if option else ()), path)
            yield Case(entry.split()[0], f"{option or 'argument'}: {name}", lambda a=arguments: command(*a))

    roots = {"file": folder / "file", "no folder": "/proc/none/x", "device": "/dev/null"}
    shared = {"--benchmark": WORDS, "--dataset": WORDS, "--metric": WORDS}
    yield from options("rank", given, shared | {"--predictor": WORDS, "--split": WORDS, "--bogus": ("1",)})
    yield from options("rank", given, dict.fromkeys(("--context", "--top-k", "--seed"), NUMBERS))
    yield from options("rank", given, {"--context": ("0", "15625", "20000"), "--top-k": ("0", "-3")})
    yield from paths("rank", given, "--labels", files | labels)
    yield from paths("rank", given, "--output", outputs)
    yield from paths("rank", given, "--report", outputs | {"folder": folder, "dot": "."})
    yield from paths("rank", (), "--root", roots)
    ridge = (*given, "--predictor", "ridge")
    choices = dict.fromkeys(("--method", "--predictor", "--scale", "--acquisition", "--cost"), WORDS)
    yield from options("search", given, shared | choices)
    yield from options("search", ridge, dict.fromkeys(("--queries", "--batch", "--initial", "--seed"), NUMBERS))
    yield from options(
        "search", ridge, {"--queries": ("0", "99999"), "--batch": ("0", "100000000"), "--initial": ("0",)}
    )
    yield from paths("search", ridge, "--labels", files | labels)
    yield from paths("search", ridge, "--output", outputs | {"folder": folder})
    yield from paths(
        "search", ridge, "--state", outputs | {name: files[name] for name in ("folder", "empty", "binary")}
    )
    yield from options("benchmark", given, shared | {"--predictor": WORDS, "--split": WORDS})
    yield from options("benchmark", ridge, dict.fromkeys(("--context", "--seeds"), NUMBERS))
    yield from options("benchmark", ridge, {"--context": ("0", "20000"), "--seeds": ("0",)})
    yield from paths("benchmark", ridge, "--output", outputs)
    whole = dict.fromkeys(("--random", "--batch", "--size", "--repeats", "--seed"), NUMBERS)
    yield from options("score", ("0",), whole | {"--space": WORDS, "--score": WORDS, "--swap-mean": REALS})
    yield from options("score", ("0",), {"--batch": ("1", "100000000"), "--size": ("3",), "--repeats": ("0",)})
    texts = {text[:5]: text for text in ("x", "", "[/x]", "99999999", "9" * 5000, "-1x", "|||", "--seed=1")}
    yield from paths("score", (), None, texts)
    yield from paths("score", (), "--file", files)
    yield from paths("score", ("0",), "--images", files)
    yield from paths("score", ("0",), "--output", outputs | {"folder": folder})
    yield from paths("generate", (), None, files)
    images = folder / "images.npz"
    np.savez(images, x_train=rng.integers(0, 255, (8, 8, 8, 3), dtype=np.uint8), y_train=np.arange(8) % 2)
    whole = dict.fromkeys(("--top-k", "--candidates", "--images-per-class", "--seed"), (*NUMBERS, "-3"))
    yield from options("generate", (images,), whole | {"--temperature": REALS, "--space": WORDS})
    yield from options(
        "generate", (images,), {"--limit": (*WORDS, "parameters=x", "x=1", "parameters=nan", "flops=-1")}
    )
    yield from paths("generate", (images,), "--output", outputs)
    yield from options("convert", (folder / "t.csv", *given), shared)
    yield from paths("convert", (), None, outputs | {"folder": folder, "suffix": folder / "x.txt"})
    yield from options("verify", (), {"--benchmark": WORDS, "--dataset": WORDS, "--metric": ("x",)})
    yield from paths("verify", (), "--root", roots)
    yield from options("info", (), {"--bogus": ("1",)})
    for which in ("fit", "predict", "simulate"):
        yield from paths(f"curves {which}", ("--direction", "up"), None, files)
        yield from options(f"curves {which}", table, {"--regressor": WORDS, "--direction": WORDS, "--draws": NUMBERS})
        yield from paths(f"curves {which}", table, "--output", outputs)
    yield from options("curves fit", table, {"--fraction": (*REALS, "2"), "--training": NUMBERS, "--seed": NUMBERS})
    for name, arguments in tables.items():
        yield Case("curves", name, lambda a=arguments: command("curves", "fit", *a))
    whole = dict.fromkeys(("--nth-best", "--burn-in", "--orderings", "--checks"), NUMBERS)
    yield from options("curves simulate", table, whole | {"--delta": (*REALS, "2"), "--offset": REALS})
    yield from options("train process", ("x", "--output", folder / "w.safetensors"), {"--seed": ("0",)})
    base = ("nasbench201", "--output", folder / "w.safetensors")
    names = ("--num-tasks", "--max-steps", "--workers", "--devices", "--seed", "--heads", "--grid-dim")
    yield from options("train process", base, dict.fromkeys(names, NUMBERS) | {"--max-minutes": REALS, "--form": WORDS})
    yield from options(
        "train process", base, {"--objective": WORDS, "--devices": ("2000",), "--latent-channels": NUMBERS}
    )
    yield from paths("train process", ("nasbench201",), "--output", outputs | {"suffix": folder / "x.pt"})
    for which in ("metad2a-generator", "metad2a-predictor"):
        weights = ("--output", folder / "w.safetensors")
        yield from paths(f"train {which}", weights, None, files)
        yield from options(f"train {which}", (folder, *weights), {"--space": WORDS, "--seed": NUMBERS})
        yield from paths(f"train {which}", (folder,), "--output", outputs | {"suffix": folder / "x.pt"})
    for arguments in (("bogus",), ("--bogus",), ("curves", "bogus"), ("train", "bogus")):
        yield Case("app", " ".join(arguments), lambda a=arguments: command(*a))
    for arguments in (("rank", "--top-k", "-3"), ("rank", "--labels", folder / "[/x]"), ("score", "9" * 9)):
        yield Case("app", f"process: {arguments[:2]}", lambda a=arguments: command(*a, process=True))


# -- the Python interface ---------------------------------------------------------------------------------------------


def python_cases(root: Path, folder: Path) -> Iterator[Case]:
    r"""Bad arguments for the functions that users call first."""
    space, other = NASBench201Space(), NASBench101Space()
    index = torch.arange(0, 15625, 500)
    y = space.batch_flops(index).double()
    one = space.encode(space[3])
    dataset = NASBench201(str(root))
    fitted = RidgePredictor(space).fit(index, y)
    broken = Data(x=torch.full_like(one.x, NAN), edge_index=one.edge_index)
    (folder / "file.py").touch()

    archs: dict[str, Any] = {
        "nothing": None, "a number": 5, "text": "x", "a set": {1}, "a table": {"a": 1}, "none": [None],
        "negative": torch.tensor([-1]), "too large": torch.tensor([15625]), "fractions": torch.tensor([0.5]),
        "two dimensions": torch.zeros(1, 1, dtype=torch.long), "booleans": torch.tensor([True]),
        "complex": torch.tensor([1j]), "strings": np.array(["x"]), "objects": np.array([object()]),
        "NaN": np.array([NAN]),
        "another space": [other[5]], "a string of another space": ["2:1:"], "mixed": [one, "x"],
        "a graph without features": [Data()], "NaN in a graph": [broken],
        "another width": [Data(x=torch.eye(3), edge_index=one.edge_index)],
        "edges out of range": [Data(x=one.x, edge_index=one.edge_index + 50)],
        "no edges": [Data(x=one.x)], "an empty graph": [Data(x=one.x[:0], edge_index=one.edge_index[:, :0])],
        "a broken batch": Batch.from_data_list([broken]),
    }  # fmt: skip
    labels: dict[str, Any] = {
        "nothing": [], "too few": [1.0], "NaN": [NAN] * 32, "infinite": [INF] * 32, "text": ["x"] * 32,
        "words": "x" * 32,
        "two dimensions": torch.ones(32, 2), "complex": torch.ones(32) * 1j, "a table": {}, "none": [None] * 32,
        "huge": [10**400] * 32, "nested": [[1.0], 2.0] * 16, "dates": np.zeros(32, "datetime64[s]"), "a number": 5.0,
        "masked": np.ma.array(np.ones(32), mask=True),
    }  # fmt: skip
    for kind in (RidgePredictor, GPPredictor):
        for name, x in archs.items():
            count = len(x) if hasattr(x, "__len__") else 1
            yield Case("fit", f"{kind.__name__}: {name}", lambda x=x, k=kind, n=count: k(space).fit(x, [1.0] * n))
        for name, labels_ in labels.items():
            yield Case("fit", f"{kind.__name__}, y: {name}", lambda y=labels_, k=kind: k(space).fit(index, y))
    for name, x in archs.items():
        yield Case("predict", name, lambda x=x: fitted.predict(x))
    yield from (
        Case("fit", name, call)
        for name, call in {
            "no space": lambda: RidgePredictor().fit(index, y),
            "no labels": lambda: RidgePredictor(space).fit(index),
            "unknown scale": lambda: RidgePredictor(space, labels="x").fit(index, y),
            "robust of losses": lambda: RidgePredictor(space, labels="robust").fit(index, -y),
            "unknown kernel": lambda: GPPredictor(space, kernel="x").fit(index, y),
            "no steps": lambda: GPPredictor(space, max_iter=-1).fit(index, y),
            "no trees": lambda: RandomForestPredictor(space, n_estimators=0).fit(index, y),
            "no members": lambda: MLPEnsemblePredictor(space, members=0, steps=1).fit(index, y),
            "negative steps": lambda: MLPEnsemblePredictor(space, members=1, steps=-1).fit(index, y),
            "no channels": lambda: GNNPredictor(space, members=1, steps=1, channels=0).fit(index, y),
            "no predictors": lambda: EnsemblePredictor(space, predictors={}).fit(index, y),
            "seed": lambda: MLPEnsemblePredictor(space, members=1, steps=1, random_state=2**64).fit(index, y),
        }.items()
    )
    yield from (
        Case("predict", name, call)
        for name, call in {
            "not fitted": lambda: RidgePredictor(space).predict(index),
            "not fitted scores": lambda: RidgePredictor(space).predict_scores(index),
            "not fitted save": lambda: RidgePredictor(space).save(folder / "x"),
            "save into a file": lambda: fitted.save(folder / "file.py" / "x"),
            "load missing": lambda: Predictor.load(folder / "none"),
            "load a folder": lambda: Predictor.load(folder),
            "load a device": lambda: Predictor.load("/dev/zero"),
            "score without labels": lambda: fitted.score(index),
            "score NaN": lambda: fitted.score(index, y * NAN),
            "attribute few": lambda: attribute(fitted, num_cells=2),
            "attribute no repeats": lambda: attribute(fitted, num_cells=50, repeats=0),
            "attribute unfitted": lambda: attribute(RidgePredictor(space)),
            "evaluate NaN": lambda: evaluate(
                RidgePredictor(), dataset, dataset.split(20), torch.full((15625,), torch.nan)
            ),
        }.items()
    )

    def told(search: Any) -> Any:
        search.tell(index[:12], y[:12])
        return search

    for kind in (RandomSearch, LocalSearch, RegularizedEvolution):
        yield from (
            Case("search API", f"{kind.__name__}: {name}", call)
            for name, call in {
                "ask 0": lambda k=kind: k(space).ask(0),
                "ask -1": lambda k=kind: k(space).ask(-1),
                "ask 1.5": lambda k=kind: k(space).ask(1.5),
                "ask x": lambda k=kind: k(space).ask("x"),
                "no candidates": lambda k=kind: k(space, candidates=[]),
                "candidates outside": lambda k=kind: k(space, candidates=torch.tensor([20000])),
                "tell too few": lambda k=kind: k(space).tell(index, y[:3]),
                "tell NaN": lambda k=kind: k(space).tell(index, y * NAN),
                "tell outside": lambda k=kind: k(space).tell(torch.tensor([-1]), [1.0]),
                "tell another space": lambda k=kind: k(space).tell([other[4]], [1.0]),
                "discard outside": lambda k=kind: k(space).discard(torch.tensor([15625])),
                "best of nothing": lambda k=kind: k(space).best,
                "empty state": lambda k=kind: k(space).load_state_dict({}),
                "no state": lambda k=kind: k(space).load_state_dict(None),
                "state of another": lambda k=kind: k(space).load_state_dict(
                    PredictorSearch(space, fitted).state_dict()
                ),
                "resume missing": lambda k=kind: k(space).resume(folder / "none"),
                "save into a file": lambda k=kind: k(space).save(folder / "file.py" / "x"),
                "seed": lambda k=kind: k(space, seed=2**64),
                "seed x": lambda k=kind: k(space, seed="x"),
                "simulate short table": lambda k=kind: simulate(k(space), torch.ones(5), 3),
                "simulate no labels": lambda k=kind: simulate(k(space), torch.full((15625,), NAN), 3),
                "simulate no queries": lambda k=kind: simulate(k(space), dataset, 0),
                "simulate -1": lambda k=kind: simulate(k(space), dataset, -1),
                "simulate batch 0": lambda k=kind: simulate(k(space), dataset, 5, batch=0),
            }.items()
        )
    for name, bad in {
        "acquisition": "x", "beta": -1.0, "initial": 0, "cost": "x", "proposals": 0,
    }.items():  # fmt: skip
        yield Case("search API", f"{name}={bad}", lambda n=name, b=bad: PredictorSearch(space, fitted, **{n: b}))
    yield Case("search API", "beta=nan", lambda: PredictorSearch(space, fitted, beta=NAN))
    yield Case("search API", "other space", lambda: PredictorSearch(other, fitted))
    yield Case("search API", "no front", lambda: told(PredictorSearch(space, fitted)).pareto_front)
    yield Case("search API", "bananas members", lambda: BananasSearch(space, RidgePredictor, initial=0))

    values = np.linspace(0, 1, 60).reshape(6, 10)
    good = LearningCurves(values, "up")
    yield from (
        Case("curves API", name, call)
        for name, call in {
            "one dimension": lambda: LearningCurves(values[0], "up"),
            "no epochs": lambda: LearningCurves(values[:, :0], "up"),
            "direction": lambda: LearningCurves(values, "sideways"),
            "text": lambda: LearningCurves([["a", "b"]], "up"),
            "unordered epochs": lambda: LearningCurves(values, "up", epochs=range(10, 0, -1)),
            "too few epochs": lambda: LearningCurves(values, "up", epochs=[1, 2]),
            "too few names": lambda: LearningCurves(values, "up", configs=["a"]),
            "too few features": lambda: LearningCurves(values, "up", architecture={"a": [1.0]}),
            "NaN features": lambda: LearningCurves(values, "up", hyperparameters={"a": [NAN] * 6}),
            "unknown regressor": lambda: SequentialRegression("x").fit(good),
            "no draws": lambda: SequentialRegression("ols", draws=0).fit(good),
            "unknown features": lambda: SequentialRegression("ols", features=["x"]).fit(good),
            "fit on nothing": lambda: SequentialRegression("ols").fit(good[:0]),
            "fit on one": lambda: SequentialRegression("ols").fit(good[:1]),
            "fit on a matrix": lambda: SequentialRegression("ols").fit(values),
            "not fitted": lambda: SequentialRegression("ols").predict(good, 3),
            "prefix 0": lambda: SequentialRegression("ols").fit(good).predict(good, 0),
            "prefix -1": lambda: SequentialRegression("ols").fit(good).predict(good, -1),
            "prefix 11": lambda: SequentialRegression("ols").fit(good).predict(good, 11),
            "fraction": lambda: good.prefix(2.0),
            "fraction NaN": lambda: good.prefix(NAN),
            "delta": lambda: EarlyStopping(10, "up", delta=2.0),
            "delta NaN": lambda: EarlyStopping(10, "up", delta=NAN),
            "offset": lambda: EarlyStopping(10, "up", offset=NAN),
            "n-th best": lambda: EarlyStopping(10, "up", nth_best=0),
            "burn-in": lambda: EarlyStopping(10, "up", burn_in=0),
            "no epochs of rule": lambda: EarlyStopping(0, "up"),
            "direction of rule": lambda: EarlyStopping(10, "x"),
            "replay order": lambda: replay(good, np.arange(9), EarlyStopping(10, "up", burn_in=3), 3),
            "replay checks": lambda: replay(good, np.arange(6), EarlyStopping(10, "up", burn_in=3), 0),
        }.items()
    )
    yield from (
        Case("datasets", name, call)
        for name, call in {
            "data set": lambda: NASBench201(str(root), "svhn"),
            "metric": lambda: NASBench201(str(root), metric="x"),
            "source": lambda: NASBench201(str(root), source="x"),
            "root is a file": lambda: NASBench201(str(folder / "file.py")),
            "index": lambda: dataset[20000],
            "index -": lambda: dataset[-20000],
            "index x": lambda: dataset["x"],
            "position": lambda: dataset.arch(20000),
            "split 0": lambda: dataset.split(0),
            "split -1": lambda: dataset.split(-1),
            "split all": lambda: dataset.split(15625),
            "split huge": lambda: dataset.split(10**30),
            "split valid": lambda: dataset.split(5, -1),
            "split by": lambda: dataset.split(5, by="x"),
            "split seed": lambda: dataset.split(5, seed=2**64),
            "split 1.5": lambda: dataset.split(1.5),
            "budgets": lambda: dataset.split_by_budget([]),
            "budget 0": lambda: dataset.split_by_budget([0, 5]),
            "positions -1": lambda: dataset.positions_of([-1]),
            "positions 20000": lambda: dataset.positions_of([20000]),
            "positions 1.5": lambda: dataset.positions_of([1.5]),
            "positions left out": lambda: dataset[5:].positions_of([1]),
            "source of": lambda: dataset.metrics["valid_accuracy@200"].mean(7),
            "metric shape": lambda: Metric.from_values(torch.ones(2, 2, 2), ("a",), (1,), "percent"),
            "metric infinite": lambda: Metric.from_values(torch.ones(2, 1, 1) * INF, ("a",), (1,), "percent"),
            "compact suffix": lambda: write_compact(folder / "x.txt", ["a"], {}),
            "keep none": lambda: NASBench201(str(folder / "k"), source="graphs-only", pre_filter=lambda g: False),
        }.items()
    )
    features = ImageFeatures
    yield from (
        Case("metad2a", name, call)
        for name, call in {
            "no images": lambda: MetaD2A().describe(folder / "none"),
            "a file": lambda: MetaD2A().describe(folder / "file.py"),
            "a number": lambda: MetaD2A().describe(5),
            "images per class": lambda: features(images_per_class=0),
            "seed": lambda: features(seed=2**64)(folder),
            "no database": lambda: open_database(folder / "none", space),
            "empty database": lambda: open_database(folder / "empty database", space),
            "a file as database": lambda: open_database(folder / "file.py", space),
            "model of no space": lambda: MetaD2APredictor(ToySpace()).model(ToySpace()),
            "not fitted": lambda: MetaD2APredictor(space).predict(index),
            "fit to a number": lambda: MetaD2APredictor(space).fit(5),
        }.items()
    )
    x, v, p = torch.rand(5, 2), torch.rand(5, 3), torch.tensor([0, 5])
    bad_ops: dict[str, Callable[[], Any]] = {
        "rows": lambda: ops.set_conv(x, v[:4], x, 0.5, p, p),
        "width": lambda: ops.set_conv(x, v, x[:, :1], 0.5, p, p),
        "lengthscale": lambda: ops.set_conv(x, v, x, -1.0, p, p),
        "lengthscale 0": lambda: ops.set_conv(x, v, x, 0.0, p, p),
        "lengthscale NaN": lambda: ops.set_conv(x, v, x, NAN, p, p),
        "lengthscale shape": lambda: ops.set_conv(x, v, x, torch.ones(7), p, p),
        "kernel": lambda: ops.set_conv(x, v, x, 0.5, p, p, kernel="x"),
        "pointers short": lambda: ops.set_conv(x, v, x, 0.5, p[:1], p),
        "pointers end": lambda: ops.set_conv(x, v, x, 0.5, torch.tensor([0, 9]), p),
        "pointers order": lambda: ops.set_conv(x, v, x, 0.5, torch.tensor([0, 4, 2, 5]), torch.tensor([0, 1, 2, 5])),
        "pointers kind": lambda: ops.set_conv(x, v, x, 0.5, p.double(), p),
        "sets": lambda: ops.set_conv(x, v, x, 0.5, p, torch.tensor([0, 2, 5])),
        "integers": lambda: ops.set_conv(x.long(), v, x, 0.5, p, p),
        "mixed kinds": lambda: ops.set_conv(x.double(), v, x, 0.5, p, p),
        "complex": lambda: ops.set_conv(x, v * 1j, x, 0.5, p, p),
        "arrays": lambda: ops.set_conv(x.numpy(), v, x, 0.5, p, p),
        "one dimension": lambda: ops.set_conv(x[:, 0], v, x, 0.5, p, p),
        "backend": lambda: ops.backend("x").__enter__(),
    }
    yield from (Case("ops", name, call) for name, call in bad_ops.items())
    a, nan = torch.rand(9), torch.full((9,), NAN)
    for function in (
        metrics.kendall_tau,
        metrics.spearman_rho,
        metrics.n_at_k,
        metrics.regret_at_k,
        metrics.precision_at_k,
    ):
        name = function.__name__
        yield Case("metrics", f"{name}: lengths", lambda f=function: f(a, a[:5]))
        yield Case("metrics", f"{name}: NaN", lambda f=function: f(nan, a))
        yield Case("metrics", f"{name}: empty", lambda f=function: f(a[:0], a[:0]))
        yield Case("metrics", f"{name}: shape", lambda f=function: f(a.view(3, 3), a.view(3, 3)))
        if "k" in function.__code__.co_varnames[:3]:
            for k in (0, -1, 10, 1.5, NAN, "x"):
                yield Case("metrics", f"{name}: k={k}", lambda f=function, k=k: f(a, a, k))
        else:
            yield Case("metrics", f"{name}: constant", lambda f=function: f(a * 0, a))
    yield Case("metrics", "nll: std 0", lambda: metrics.gaussian_nll(a, a * 0, a))
    yield Case("metrics", "crps: std < 0", lambda: metrics.gaussian_crps(a, -a - 1, a))
    yield Case("metrics", "coverage: level", lambda: metrics.interval_coverage(a, a + 1, a, 1.5))
    for name, call in {
        "from_str": lambda: space.from_str("x"), "from_str empty": lambda: space.from_str(""),
        "index 15625": lambda: space[15625], "index -1": lambda: space[-15626],
        "check": lambda: space.check(5), "sample -1": lambda: space.sample(-1),
        "dense": lambda: space.dense(torch.tensor([-1])),
        "decode": lambda: space.decode(Data()), "101 from_str": lambda: other.from_str("9:9:9"),
        "sample too many": lambda: space.sample(10**6), "index of another": lambda: space.index(other[3]),
    }.items():  # fmt: skip
        yield Case("spaces", name, call)


# -- files ------------------------------------------------------------------------------------------------------------


def mutate(total: int, folder: Path) -> Iterator[tuple[str, Counter[str], list[str]]]:
    r"""Reads damaged copies of a sound file of every format: by loader, how many were refused, read, or raised more."""
    loaders = make_loaders(ToySpace(), folder / "graph")
    for name, loader in loaders.items():
        counts: Counter[str] = Counter()
        foreign = []
        path = folder / loader.name
        loader.write(path)
        for damaged in _mutations(path.read_bytes(), seed=7, count=-(-total // len(loaders))):
            path.write_bytes(damaged)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    loader.read(path)
                    counts["read"] += 1
                except NASError:
                    counts["refused"] += 1
                except Exception as error:
                    counts["foreign"] += 1
                    foreign.append(repr(error)[:200])
        yield name, counts, foreign


def run_payloads(folder: Path) -> tuple[int, int, int]:
    r"""Gives every loader files that would run code: files read, formats, payloads run."""
    loaders, marker, run, tried = make_loaders(ToySpace(), folder / "graph"), folder / "owned", 0, 0
    contents = payloads(marker)
    for content in contents.values():
        for loader in loaders.values():
            path = folder / loader.name
            path.write_bytes(content)
            with contextlib.suppress(NASError):
                loader.read(path)
            tried += 1
            run += marker.exists()
            if marker.exists():
                marker.rmdir()
    return tried, len(contents), run


def kill(number: int, folder: Path) -> tuple[int, Counter[str]]:
    r"""Kills processes while they write the same file again and again: how many, and damaged files by kind."""
    space = ToySpace()
    index = torch.arange(0, 128, 4)
    fitted = GPPredictor(space, max_iter=2).fit(index, space.batch_flops(index))
    search = RandomSearch(space)
    search.tell(search.ask(40), torch.arange(40.0))
    tensors = {"a": torch.ones(300_000)}
    rows = [[str(i), i] for i in range(20_000)]
    compact = Metric.from_values(torch.ones(20_000, 1, 1), ("777",), (200,), "percent")
    names = [str(i) for i in range(20_000)]
    kinds: dict[str, tuple[Path, Callable[[Path], Any], Callable[[Path], Any]]] = {
        "predictor": (folder / "p.pt", fitted.save, lambda path: Predictor.load(path, space)),
        "search": (folder / "s.pt", search.save, lambda path: RandomSearch(space).resume(path)),
        "weights": (folder / "w.safetensors", lambda path: write_tensors(path, tensors, {}), read_tensors),
        "table": (folder / "t.csv", lambda path: write_csv(path, ["a", "b"], rows), lambda path: _rows(path, 20_000)),
        "compact table": (
            folder / "c.csv",
            lambda path: write_compact(path, names, {"m": compact}),
            lambda path: _rows(path, 20_000),
        ),
        "data set": (
            folder / "d",
            lambda path: NASBench201(str(path), source="graphs-only", force_reload=True),
            lambda path: NASBench201(str(path), source="graphs-only")[15624],
        ),
    }
    damaged: Counter[str] = Counter()
    rng = random.Random(0)
    for turn in range(number):
        kind, (path, write, read) = list(kinds.items())[turn % len(kinds)]
        write(path)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                while True:
                    write(path)
            os._exit(0)
        time.sleep(rng.uniform(0.02, 0.6))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        try:
            read(path)
        except Exception as error:
            damaged[f"{kind}: {error!r}"[:200]] += 1
    return number, damaged


def _rows(path: Path, count: int) -> None:
    if len(read_csv(path).rows) != count:
        raise ValueError("rows are missing")


# -- all of it --------------------------------------------------------------------------------------------------------


def labelled(root: Path) -> Path:
    r"""Writes labels of NAS-Bench-201 that need no measured table."""
    space = NASBench201Space()
    values = space.batch_num_parameters().double() / 1e4 + torch.arange(15625) / 1e3
    metric = Metric.from_values(values.reshape(-1, 1, 1), ("777",), (200,), "percent", "x-valid")
    names = [str(arch) for arch in space.enumerate()]
    write_compact(root / "raw" / "nasbench201-cifar10.csv", names, {"valid_accuracy@200": metric})
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="entry points to try. (default: all)")
    parser.add_argument("--mutations", type=int, default=10_000, help="damaged files")
    parser.add_argument("--kills", type=int, default=30, help="processes killed while they write")
    parser.add_argument("--trials", type=int, default=12, help="trials of each setting of parallel_trials.py")
    parser.add_argument("--verbose", action="store_true", help="print every case and what it said")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/robustness.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table: list[tuple[str, str, int]] = []

    def report(subject: str, counts: dict[str, int]) -> None:
        table.extend((subject, name, count) for name, count in counts.items())
        print(f"{subject:<44}" + "  ".join(f"{name} {count}" for name, count in counts.items()), flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PYG_NAS_NP_CACHE"] = str(folder / "cache")
        work = folder / "work"
        for part in (work, folder / "python", folder / "files", folder / "killed"):
            part.mkdir()
        root = labelled(folder / "root")
        NASBench201(str(root))
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for cases in (command_cases(root, work), python_cases(root, folder / "python")):
            for case in cases:
                if arguments.only and case.entry not in arguments.only:
                    continue
                started = time.perf_counter()
                result, said = outcome(case)
                found[case.entry][result] += 1
                if result != "named" or arguments.verbose:
                    seconds = time.perf_counter() - started
                    print(
                        f"  {result}: {case.entry}, {case.name} ({seconds:.1f} s): {' '.join(said.split())[-300:]}",
                        flush=True,
                    )
        for entry, counts in found.items():
            report(entry, {name: counts[name] for name in OUTCOMES})
        whole = sum(found.values(), Counter())
        report("all cases", {name: whole[name] for name in OUTCOMES} | {"cases": whole.total()})
        if arguments.mutations:
            whole = Counter()
            for loader, counts, foreign in mutate(arguments.mutations, folder / "files"):
                report(f"mutated: {loader}", {name: counts[name] for name in ("refused", "read", "foreign")})
                for error in dict.fromkeys(foreign):
                    print(f"  foreign: {error}")
                whole += counts
            report(
                "all mutated files", {n: whole[n] for n in ("refused", "read", "foreign")} | {"files": whole.total()}
            )
            tried, formats, run = run_payloads(folder / "files")
            report("payloads", {"files": tried, "formats": formats, "run": run})
        if arguments.kills:
            killed, damaged = kill(arguments.kills, folder / "killed")
            report("kills", {"processes": killed, "damaged": damaged.total()})
            for error in damaged:
                print(f"  damaged: {error}")
    if arguments.trials:
        # Needs Optuna.
        from parallel_trials import measure

        for kind, processes, threads in (("memory", 1, 1), ("memory", 1, 4), ("journal", 2, 1), ("journal", 4, 1)):
            row = measure(kind, processes, threads, arguments.trials)
            counts = {"trials": int(str(row["trials"])), "repeated": int(str(row["repeated"]))}
            report(f"proposals: {kind}, {processes} processes, {threads} threads", counts)
    print(machine())
    if not arguments.only:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        with open(arguments.output, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("subject", "figure", "count"))
            writer.writerows(table)


if __name__ == "__main__":
    main()
