r"""No file from outside runs code, hangs, or makes a loader raise what does not name the file.

``PYG_NAS_NP_MUTATIONS`` is the number of damaged copies of each file that its loader is tried on.
"""

from __future__ import annotations

import ast
import bz2
import contextlib
import csv
import gzip
import importlib
import inspect
import io
import json
import os
import pickle
import pkgutil
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import pyg_nas_np
from pyg_nas_np import datasets
from pyg_nas_np.cli.labels import read_own_labels
from pyg_nas_np.convnp.encoder import Encoders, PriorEncoder, read_encoders, write_encoders
from pyg_nas_np.convnp.training import MetaTraining, check_checkpoint
from pyg_nas_np.convnp.weights import read_card, read_weights, write_weights
from pyg_nas_np.curves import readers
from pyg_nas_np.datasets import nats
from pyg_nas_np.datasets._nasbench101_records import read_measurements
from pyg_nas_np.datasets.compact import read_compact
from pyg_nas_np.datasets.mobilenetv3 import DEVICES, read_accuracies, read_latencies
from pyg_nas_np.datasets.nasbench101 import _read_naslib
from pyg_nas_np.datasets.nasbenchgraph import NASBenchGraph
from pyg_nas_np.datasets.tfrecord import frame, read_records
from pyg_nas_np.nn import ConvNP, OperationEncoder
from pyg_nas_np.predictors import Fidelity, GPPredictor, MLPEnsemblePredictor, Predictor, RidgePredictor
from pyg_nas_np.search import BudgetedSearch, LocalSearch, RandomSearch
from pyg_nas_np.spaces import MobileNetV3Space, NASBench101Space, NASBench201Space
from pyg_nas_np.spaces.inference import read_columns
from pyg_nas_np.utils import NASError, load_pickle, read_state, read_tensors, write_state, write_tensors
from pyg_nas_np.utils.files import read_bytes
from pyg_nas_np.utils.state_files import read_metadata
from pyg_nas_np.utils.table_files import read_batches, read_csv, read_header, read_parquet
from tests.datasets.conftest import encode_record

ROOT = Path(pyg_nas_np.__file__).parent


class Loader(NamedTuple):
    write: Callable[[Path], Any]
    """Writes a sound file."""
    read: Callable[[Path], Any]
    name: str = "file"
    step: int = 1
    """Only every so many mutations are tried; no multiple of 2, so that all kinds of damage are among them."""


def _text(content: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(content)


def _nats_record() -> dict[str, Any]:
    run = {
        "epochs": 12,
        "train_acc1es": {i: 50.0 + i for i in range(12)},
        "train_losses": dict.fromkeys(range(12), np.float64(1.0)),
        "eval_acc1es": {f"{split}@11": 50.0 for split in ("x-valid", "ori-test", "x-test")},
        "eval_losses": {f"{split}@11": 1.0 for split in ("x-valid", "ori-test", "x-test")},
        "train_times": dict.fromkeys(range(12), 1.0),
        "latency": [0.01],
    }
    results = {
        "arch_index": 0,
        "arch_str": STRINGS[0],
        "dataset_seed": {"cifar100": [777]},
        "all_results": {("cifar100", 777): run},
    }
    long = {**run, "epochs": 200}
    # The reader of the single file notices records by their type.
    return OrderedDict([("12", results), ("200", {**results, "all_results": {("cifar100", 777): long}})])


CELLS = NASBench101Space()
STRINGS = [str(arch) for arch in NASBench201Space().enumerate()]
RECORD = _nats_record()


def _naslib() -> bytes:
    quantities = ("training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
    run = {f"{when}_{name}": 0.5 for when in ("halfway", "final") for name in quantities}
    return pickle.dumps({digest: ({}, {108: [run] * 3}) for digest in CELLS.batch_canonical(torch.arange(4))})


def _official_record(index: int) -> bytes:
    """One cell of the official NAS-Bench-101 file; its message is written by hand, field by field."""
    arch = CELLS[index]
    points = b""
    for number in range(3):
        values = (54.0 * number, 0.5, 0.5, 0.5, 0.5)
        body = b"".join(struct.pack("<Bd", 8 * field + 1, value) for field, value in enumerate(values, start=1))
        points += b"\x0a" + bytes([len(body)]) + body
    return encode_record(CELLS.canonical(arch), 108, arch.matrix, list(arch.ops), points + b"\x10\x01")


def _config(arch: Any) -> str:
    layers = [[*stage, *[(3, 3)] * 4][:4] for stage in arch.stages]
    kernels, expansions = ([layer[i] for stage in layers for layer in stage] for i in range(2))
    return json.dumps({"d": list(arch.depths), "ks": kernels, "e": expansions, "r": arch.resolution})


def _write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


SUB_NETWORKS = MobileNetV3Space()
ARCHS = SUB_NETWORKS.sample(3, torch.Generator().manual_seed(0))


def _sub_networks(path: Path) -> None:
    header = ("arch_json", "params", "macs", "top1_mean", "n_meas", "top1_min", "top1_max")
    costs = ((_config(a), SUB_NETWORKS.num_parameters(a), SUB_NETWORKS.flops(a)) for a in ARCHS)
    _write_rows(path, header, [(*cost, 75.0, 2, 74.0, 76.0) for cost in costs])


def _latencies(path: Path) -> None:
    _write_rows(path, ("arch", *DEVICES), [(_config(arch), *(1.0 + i for i in range(len(DEVICES)))) for arch in ARCHS])


def _read_single(path: Path) -> Any:
    tables = nats._Tables(STRINGS)
    with nats._open_bz2(path) as file:
        load_pickle(file, allowed=nats._allowed(nats._streaming_dict("cifar100", tables)), label=str(path))
    return tables.metrics()


@pytest.fixture(scope="module")
def loaders(toy_space, tmp_path_factory) -> dict[str, Loader]:
    return make_loaders(toy_space, tmp_path_factory.mktemp("graph"))


def make_loaders(toy_space: Any, folder: Path) -> dict[str, Loader]:
    """Every loader with a sound file of its own; benchmarks/robustness.py tries them too."""
    y, cells = toy_space.batch_flops(), NASBench201Space()
    index = torch.arange(0, 128, 8)
    search, local = RandomSearch(toy_space), LocalSearch(toy_space)
    for one in (search, local):
        one.tell(one.ask(4), [1.0, 2.0, 3.0, 4.0])
        one.ask(2)
    model = ConvNP(_probe_width(toy_space), num_base=3, channels=8, heads=2)
    training = MetaTraining(model)
    checkpoint = {
        "state_dict": training.state_dict(), "global_step": 1, "epoch": 0, "loops": {}, "callbacks": {},
        "optimizer_states": [], "lr_schedulers": [], "pytorch-lightning_version": "2.6",
    }  # fmt: skip
    encoders = Encoders(
        [PriorEncoder([OperationEncoder(channels=4, num_layers=1)], {"members": 1, "families": []})], {}
    )
    fidelity = Fidelity("epochs", (1, 4))
    budgeted = BudgetedSearch(toy_space, fidelity, budget=9)
    budgeted.ask(2)
    graph = NASBenchGraph(str(folder), "cora", source="graphs-only")
    bench = {i: {"valid_perf": 0.5, "perf": np.float64(0.5), "latency": 0.1, "para": 1.5} for i in range(3)}
    infos = {"arch2infos": {0: {"less": RECORD["12"], "full": RECORD["200"]}}}

    def fitted(predictor: Predictor) -> Loader:
        predictor.fit(toy_space.batch_encode(index), y[index])
        return Loader(predictor.save, lambda path: Predictor.load(path, toy_space))

    def lightning_folder(path: Path) -> Any:
        folder = path.parent / "version_0"
        folder.mkdir(exist_ok=True)
        (folder / "metrics.csv").write_bytes(path.read_bytes())
        return readers.read_lightning_logs([folder], "acc", "up")

    def hparams(path: Path) -> Any:
        return readers._hparams(path)

    names = lambda found: [int(name) for name in found]  # noqa: E731
    units = lambda name: ("percent", "")  # noqa: E731
    return {
        "Predictor.load": fitted(RidgePredictor(toy_space)),
        "Predictor.load of a GP": fitted(GPPredictor(toy_space, max_iter=2)),
        "Predictor.load of networks": fitted(MLPEnsemblePredictor(toy_space, members=1, steps=2, folds=0)),
        "Resumable.resume of a random search": Loader(search.save, lambda path: RandomSearch(toy_space).resume(path)),
        "Resumable.resume of a local search": Loader(local.save, lambda path: LocalSearch(toy_space).resume(path)),
        "Resumable.resume of a budgeted search": Loader(
            budgeted.save, lambda path: BudgetedSearch(toy_space, fidelity, budget=9).resume(path)
        ),
        "read_encoders": Loader(lambda path: write_encoders(path, encoders), read_encoders),
        "read_weights": Loader(
            lambda path: write_weights(path, model, toy_space, {}), lambda path: read_weights(path, toy_space)
        ),
        "read_metadata": Loader(lambda path: write_tensors(path, {"a": torch.ones(2)}, {}), read_metadata),
        "read_card": Loader(lambda path: write_weights(path, model, toy_space, {}), read_card),
        "check_checkpoint": Loader(
            lambda path: write_state(path, checkpoint), lambda path: check_checkpoint(path, training)
        ),
        "read_state": Loader(lambda path: write_state(path, {"a": 1}), lambda path: read_state(path, "it", {"a": int})),
        "read_tensors": Loader(lambda path: write_tensors(path, {"a": torch.ones(2)}, {}), read_tensors),
        "read_own_labels": Loader(
            _text("arch,label\n" + "".join(f"{STRINGS[i]},{i}\n" for i in range(3))),
            lambda path: read_own_labels(cells, path),
        ),
        "read_compact": Loader(
            _text("arch,acc@9/1/9\n0,1.5\n1,2\n"), lambda path: read_compact(path, names_checked(names), 10, units)
        ),
        "read_compact of Parquet": Loader(
            _parquet, lambda path: read_compact(path, names_checked(names), 10, units), "file.parquet"
        ),
        "read_csv": Loader(_text("a,b\n1,2\n"), read_csv),
        "read_header": Loader(_text("a,b\n1,2\n"), read_header),
        "read_parquet": Loader(_parquet, read_parquet, "file.parquet"),
        "read_batches": Loader(_parquet, lambda path: list(read_batches(path, 1)), "file.parquet"),
        "read_batches of CSV": Loader(_text("a,b\n1,x\n2,y\n"), lambda path: list(read_batches(path, 1))),
        "read_columns": Loader(_text("a,b\n1,2\n"), read_columns),
        "read_columns of Parquet": Loader(_parquet, read_columns, "file.parquet"),
        "read_measurements of the user": Loader(
            _text("params_a,value,state\n1,.5,COMPLETE\n2,.6,COMPLETE\n3,,FAIL\n"), datasets.read_measurements
        ),
        "read_baker": Loader(_text("net,depth,acc_1,acc_2\nx,3,.1,.2\ny,4,.2,.3\n"), readers.read_baker),
        "read_naap440": Loader(
            _text("ModelId,IsTest,e1Accuracy,e2Accuracy\n1,0,.1,.2\n2,1,.2,.3\n"), readers.read_naap440
        ),
        "read_nasbench201_curves": Loader(
            _text('arch_i,arch_str,snip,val_accs\n0,|x|,1.0,"[1.0, 2.0]"\n'), readers.read_nasbench201_curves
        ),
        "read_long": Loader(
            _text("config,epoch,value\na,1,.5\na,2,.6\nb,1,.4\n"), lambda path: readers.read_long(path, "up")
        ),
        "read_lightning_logs": Loader(_text("epoch,step,acc\n0,1,.5\n1,2,.6\n"), lightning_folder),
        "_hparams": Loader(_text("lr: 0.1\nlayers: [1, 2]\n"), hparams),
        "read_accuracies": Loader(_sub_networks, read_accuracies),
        "read_latencies": Loader(_latencies, read_latencies),
        "read_records": Loader(
            lambda path: path.write_bytes(frame(b"one") + frame(b"three")), lambda path: list(read_records(path))
        ),
        "read_measurements": Loader(
            lambda path: path.write_bytes(b"".join(map(_official_record, range(3)))),
            lambda path: read_measurements(path, CELLS),
            # It fills tables of the whole space, 0.1 s a read.
            step=9,
        ),
        "_read_naslib": Loader(
            lambda path: path.write_bytes(_naslib()), lambda path: _read_naslib(path, CELLS)
        ),
        "_read_bench": Loader(lambda path: path.write_bytes(pickle.dumps(bench)), graph._read_bench),
        "read_simple": Loader(
            lambda path: path.write_bytes(bz2.compress(pickle.dumps(RECORD))),
            lambda path: nats._read_file(path, "cifar100"),
        ),
        "read_single": Loader(
            lambda path: path.write_bytes(bz2.compress(pickle.dumps({"arch2infos": {0: RECORD}}, protocol=4))),
            _read_single,
        ),
        "read_torch": Loader(lambda path: torch.save(infos, path), nats._load_torch_pickle),
        "read_torch, old": Loader(
            lambda path: torch.save(infos, path, _use_new_zipfile_serialization=False), nats._load_torch_pickle
        ),
        "read_bytes": Loader(_text("x"), read_bytes),
    }  # fmt: skip


def names_checked(names: Callable[[Any], list[int]]) -> Callable[[Any], list[int]]:
    def index(found: Any) -> list[int]:
        if not all(name.isascii() and name.isdigit() and int(name) < 10 for name in found):
            raise NASError("outside the space")
        return names(found)

    return index


def _parquet(path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"arch": ["0", "1"], "acc@9/1/9": [1.5, None]}), path)


def _probe_width(space: Any) -> int:
    from pyg_nas_np.convnp.predictor import process_inputs
    from pyg_nas_np.features import shared_descriptors

    return len(process_inputs(shared_descriptors(space)))


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def payloads(marker: Path) -> dict[str, bytes]:
    code = pickle.dumps(Payload(marker))
    found = {
        "pickle": code,
        "pickle 2": pickle.dumps(Payload(marker), 2),
        "bz2": bz2.compress(code),
        "gz": gzip.compress(code),
    }
    for name, zipped in (("torch", True), ("old torch", False)):
        buffer = io.BytesIO()
        torch.save({"format": "x", "state": Payload(marker)}, buffer, _use_new_zipfile_serialization=zipped)
        found[name] = buffer.getvalue()
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([Payload(marker)], dtype=object))
    found["npz"] = buffer.getvalue()
    found["yaml"] = f"!!python/object/apply:os.mkdir ['{marker}']".encode()
    return found


def test_sound_files_are_read(loaders, tmp_path):
    for loader in loaders.values():
        path = tmp_path / loader.name
        loader.write(path)
        loader.read(path)


def test_no_loader_runs_a_payload(loaders, tmp_path):
    marker = tmp_path / "owned"
    for content in payloads(marker).values():
        for name, loader in loaders.items():
            path = tmp_path / loader.name
            path.write_bytes(content)
            try:
                loader.read(path)
            except NASError:
                pass
            else:
                # Any text has a first line.
                assert name in ("read_bytes", "read_header"), f"{name} accepted a payload"
            assert not marker.exists(), name
    pickle.loads(payloads(marker)["pickle"])
    assert marker.exists(), "the payload is harmless, so that the test shows nothing"


# The command line, kernels of an extra, optional libraries, and the C library of an installation in place.
NOT_IMPORTED = ("__main__", "triton_kernels", ".ray", ".ray_budget", ".ray_data", ".syne_tune", "libpyg_nas_np_cpu")


def test_every_loader_is_tried(loaders):
    """Finds what reads a path; a new loader must join the list above, or say here who tries it."""
    elsewhere = {
        "read_images", "read_folder", "read_npz",  # tests/datasets/test_images.py
        "read_generator", "read_performance_model", "read_scalars",  # tests/metad2a
        "read_database", "read_rows", "MetaD2ADatabase.load",  # tests/metad2a
        "ProcessedDataset.load",  # tests/datasets/test_processed.py
        "ArchSearcher.restore",  # reads by read_state
        "read_table",  # reads by read_csv
        "load_pickle",  # tests/utils/test_pickles.py
        "read_json",  # take the path for their messages only
    }  # fmt: skip
    tried = {name.partition(" of ")[0].partition(",")[0] for name in loaders} | elsewhere
    missing = []
    for info in pkgutil.walk_packages([str(ROOT)], "pyg_nas_np."):
        if info.name.endswith(NOT_IMPORTED):
            continue
        module = importlib.import_module(info.name)
        functions = [(name, item) for name, item in vars(module).items() if inspect.isfunction(item)]
        for owner, kind in vars(module).items():
            if inspect.isclass(kind) and kind.__module__ == module.__name__:
                methods = ((n, getattr(m, "__func__", m)) for n, m in vars(kind).items())
                functions += [(f"{owner}.{n}", m) for n, m in methods if inspect.isfunction(m)]
        for name, function in functions:
            short = name.rpartition(".")[2]
            if function.__module__ != module.__name__ or short.startswith("_"):
                continue
            takes_file = {"path", "folder", "folders", "file", "checkpoint_path"} & inspect.signature(
                function
            ).parameters.keys()
            if takes_file and (short.startswith("read_") or short in ("load", "resume", "restore", "load_pickle")):
                missing += [f"{module.__name__}.{name}"] if name not in tried else []
    assert not missing


def test_nothing_is_unpickled_but_by_the_guards():
    guards = {"utils/pickles.py", "utils/state_files.py"}
    # The first is verified by SHA-256 and read without pickles; the others read what they have just written, on another
    # worker of the same cluster or here.
    verified = {
        ("metad2a/backbone.py", "torch.load(path, weights_only=True)"),
        ("integrations/ray_data.py", "pickle.loads(part[_RANKING])"),
        *(("spaces/testing.py", f"pickle.loads(pickle.dumps({name}))") for name in ("space", "arch")),
    }
    unsafe = {
        "torch.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "pandas.read_pickle",
        "yaml.load", "fs.torch_load", "marshal.load", "marshal.loads", "shelve.open", "torch.jit.load",
    }  # fmt: skip
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call):
                called, text = ast.unparse(node.func), ast.unparse(node)
                if called in unsafe and name not in guards:
                    assert (name, text) in verified, f"{name}:{node.lineno} calls {text}"
                if called in ("np.load", "numpy.load"):
                    assert "allow_pickle=False" in text, f"{name}:{node.lineno} calls {text}"
                assert "weights_only=False" not in text, f"{name}:{node.lineno}"


@pytest.mark.timeout(3600)
def test_damage_raises_named_errors_only(loaders, mutations, tmp_path):
    for name, loader in loaders.items():
        path = tmp_path / loader.name
        loader.write(path)
        for number, damaged in enumerate(islice(mutations(path.read_bytes(), seed=1), 0, None, loader.step)):
            path.write_bytes(damaged)
            with contextlib.suppress(NASError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    loader.read(path)
                except NASError:
                    raise
                except Exception as error:
                    kept = Path(os.environ.get("PYG_NAS_NP_KEEP", tmp_path)) / f"{number}-{path.name}"
                    kept.write_bytes(damaged)
                    raise AssertionError(f"{name}: mutation {number} ({kept}) raised {error!r}") from error


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.timeout(120)
def test_pipes_and_devices_do_not_hang(loaders, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, loader in loaders.items():
        # This one copies the file into a folder.
        if name == "read_lightning_logs":
            continue
        for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path / "absent", tmp_path):
            if name == "_hparams" and path.name == "absent":
                continue
            with pytest.raises(NASError):
                loader.read(path)
