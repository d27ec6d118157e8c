r"""Readers of the official NAS-Bench-201 and NATS-Bench files (topology space).

Three layouts contain the same records: the folder ``NATS-tss-v1_0-3ffb9-simple`` (one pickle per architecture,
streamed), the single pickle ``NATS-tss-v1_0-3ffb9.pickle.pbz2`` (streamed: every architecture is reduced as soon as it
has been unpickled), and ``NAS-Bench-201-v1_1-096897.pth`` (held in memory while it is read; upstream states about 28
GB).
"""

from __future__ import annotations

import bz2
import io
import logging
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from pyg_nas_np.datasets.metric import Metric
from pyg_nas_np.utils import (
    ChecksumError,
    DataFileError,
    file_digest,
    foreign_file,
    load_pickle,
    numpy_scalar_globals,
    open_regular,
)
from pyg_nas_np.utils.files import LimitedReader, check_size
from pyg_nas_np.utils.pickles import latin1_bytes

logger = logging.getLogger(__name__)

SIMPLE_FOLDER = "NATS-tss-v1_0-3ffb9-simple"
SINGLE_PICKLE = "NATS-tss-v1_0-3ffb9.pickle.pbz2"
TORCH_FILE = "NAS-Bench-201-v1_1-096897.pth"

_MD5_SUFFIX = {SINGLE_PICKLE: "3ffb9", TORCH_FILE: "096897"}
_STREAM_BYTES = 1 << 40
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C

# The training run, its split and our name. "valid" runs of CIFAR-10 train on half of the images, so that their
# validation accuracy is leak-free; CIFAR-100 and ImageNet16-120 have one run whose test images are split in two.
_RUNS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "cifar10": (
        ("cifar10-valid", "x-valid", "valid"),
        ("cifar10", "ori-test", "test"),
        ("cifar10", "train", "train"),
        ("cifar10-valid", "train", "valid_run_train"),
        ("cifar10-valid", "ori-test", "valid_run_test"),
    ),
    "cifar100": (
        ("cifar100", "x-valid", "valid"),
        ("cifar100", "x-test", "test"),
        ("cifar100", "train", "train"),
        ("cifar100", "ori-test", "valid_and_test"),
    ),
    "ImageNet16-120": (
        ("ImageNet16-120", "x-valid", "valid"),
        ("ImageNet16-120", "x-test", "test"),
        ("ImageNet16-120", "train", "train"),
        ("ImageNet16-120", "ori-test", "valid_and_test"),
    ),
}
BUDGETS = (12, 200)
SEEDS = (111, 777, 888, 999)

Arrays = dict[str, NDArray[np.float32]]
"""Per metric, the values of one architecture, ``[seed, epoch]``, NaN where nothing was measured."""


def check_md5_suffix(path: Path) -> None:
    r"""Compares the end of a file's MD5 with the part that upstream publishes in its name.

    Upstream publishes only these five or six hexadecimal digits (20 or 24 bits). They detect a damaged download, but do
    not prove the origin of a file. The readers do not rely on it: they run nothing that a file names.

    Raises:
        ChecksumError: If they differ.
    """
    suffix = _MD5_SUFFIX[path.name]
    digest = file_digest(path, "md5")
    if not digest.endswith(suffix):
        raise ChecksumError(
            f"{path} has MD5 {digest}, which must end in {suffix}, as its name says: the file is damaged or "
            f"another one. Get it again."
        )
    logger.info(
        "%s: the MD5 ends in %s, as its name says. These %d bits tell damage; they do not prove an official file.",
        path,
        suffix,
        4 * len(suffix),
    )


def read_simple(folder: Path, dataset: str, strings: list[str]) -> dict[str, Metric]:
    r"""Reads the folder of one pickle per architecture; architectures without a file stay unlabelled.

    Args:
        folder: ``NATS-tss-v1_0-3ffb9-simple``.
        dataset: ``"cifar10"``, ``"cifar100"`` or ``"ImageNet16-120"``.
        strings: Official strings of all architectures, in order.

    Raises:
        DataFileError: If there is no architecture file, or one is damaged or describes another architecture.
    """
    files = sorted(folder.glob("[0-9]*.pickle.pbz2"))
    if not files:
        raise DataFileError(f"{folder} holds no file like 000000.pickle.pbz2")
    numbers = [(f, f.name.partition(".")[0]) for f in files]
    outside = [f for f, number in numbers if not number.isdecimal() or len(number) > 9 or int(number) >= len(strings)]
    if outside:
        raise DataFileError(f"{outside[0]} is outside the {len(strings)} architectures of the space")
    work = partial(_read_file, dataset=dataset)
    # Decompression dominates and runs in C per file, so multiprocessing pays off from a few hundred files on.
    workers = min(os.cpu_count() or 1, 8) if len(files) > 200 else 0
    with _mapper(workers) as mapper:
        tables = _Tables(strings)
        for record in tqdm(mapper(work, files), total=len(files), desc="NATS-Bench", disable=len(files) < 200):
            tables.add(*record)
        return tables.metrics()


def read_single(path: Path, dataset: str, strings: list[str]) -> dict[str, Metric]:
    r"""Reads the single bz2 pickle, reducing each architecture as it arrives.

    Raises:
        ChecksumError: If the MD5 does not end as the file name says.
        DataFileError: If the file is damaged.
    """
    check_md5_suffix(path)
    tables = _Tables(strings)
    # Records are reduced as they arrive, so the whole file is never in memory.
    with _open_bz2(path, _STREAM_BYTES) as file:
        load_pickle(file, allowed=_allowed(_streaming_dict(dataset, tables)), label=str(path))
    return tables.metrics()


def read_torch(path: Path, dataset: str, strings: list[str]) -> dict[str, Metric]:
    r"""Reads the official ``.pth`` without executing anything that its pickle names.

    Raises:
        ChecksumError: If the MD5 does not end as the file name says.
        DataFileError: If the file is damaged.
    """
    check_md5_suffix(path)
    state = _load_torch_pickle(path)
    tables = _Tables(strings)
    with foreign_file(path, "NAS-Bench-201's file of records"):
        for info in state["arch2infos"].values():
            tables.add(*_reduce({12: info["less"], 200: info["full"]}, dataset))
    return tables.metrics()


def _load_torch_pickle(path: Path) -> Any:
    # torch.save writes pickle protocol 2, which encodes sets and bytes as calls.
    allowed = _allowed(OrderedDict) | {("__builtin__", "set"): set, ("_codecs", "encode"): latin1_bytes}
    with open_regular(path) as file, foreign_file(path, "a file of torch.save"):
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                name = next((n for n in archive.namelist() if n.endswith("data.pkl")), None)
                if name is None:
                    raise DataFileError(f"{path} is a zip archive without data.pkl")
                check_size(path, archive.getinfo(name).file_size)
                return load_pickle(io.BytesIO(archive.read(name)), allowed=allowed, label=str(path))
        file.seek(0)
        if load_pickle(file, label=str(path)) != _TORCH_MAGIC:
            raise DataFileError(f"{path} was not written by torch.save")
        for _ in ("protocol", "system"):
            load_pickle(file, label=str(path))
        return load_pickle(file, allowed=allowed, label=str(path))


def _allowed(ordered_dict: Any) -> dict[tuple[str, str], Any]:
    return {("collections", "OrderedDict"): ordered_dict, **numpy_scalar_globals()}


@contextmanager
def _open_bz2(path: Path, limit: int | None = None) -> Iterator[IO[bytes]]:
    with open_regular(path) as packed, foreign_file(path, "a bz2 file"), bz2.open(packed) as file:
        yield io.BufferedReader(LimitedReader(file, path, limit))


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    if not workers:
        yield map
        return
    with ProcessPoolExecutor(workers) as pool:
        yield partial(pool.map, chunksize=32)


def _read_file(path: Path, dataset: str) -> tuple[int, str, Arrays]:
    with _open_bz2(path) as file:
        content = io.BytesIO(file.read())
    record = load_pickle(content, allowed=_allowed(OrderedDict), label=str(path))
    with foreign_file(path, "a record of NATS-Bench"):
        return _reduce({12: record["12"], 200: record["200"]}, dataset)


def _streaming_dict(dataset: str, tables: _Tables) -> type[dict[Any, Any]]:
    class StreamingDict(dict[Any, Any]):
        r"""Replaces the ``OrderedDict`` of an architecture: tabulates the numbers and frees the rest at once."""

        def __setitem__(self, key: Any, value: Any) -> None:
            super().__setitem__(key, value)
            if key in ("12", "200") and "12" in self and "200" in self:
                with foreign_file("a record of the file", "one of NATS-Bench"):
                    tables.add(*_reduce({12: self["12"], 200: self["200"]}, dataset))
                # The unpickler's memo keeps every container alive; emptied ones cost little.
                for run in (run for budget in self.values() for run in budget["all_results"].values()):
                    for part in run.values():
                        if isinstance(part, dict):
                            part.clear()
                    run.clear()

    return StreamingDict


def _reduce(budgets: Mapping[int, Any], dataset: str) -> tuple[int, str, Arrays]:
    """Keeps the measurements of one architecture: ``(index, string, arrays)``."""
    arrays: Arrays = {}
    index, string = -1, ""
    for budget, results in budgets.items():
        index, string = int(results["arch_index"]), str(results["arch_str"])
        for run_name in dict.fromkeys(run for run, _, _ in _RUNS[dataset]):
            for seed in results["dataset_seed"].get(run_name, ()):
                run = results["all_results"][run_name, seed]
                if int(run["epochs"]) != budget:
                    raise DataFileError(f"architecture {index}: a {budget}-epoch run of {run_name} has {run['epochs']}")
                for metric, epoch, value in _measurements(run, run_name, budget, dataset):
                    if not 1 <= epoch <= budget:
                        raise DataFileError(f"architecture {index}: {metric} has epoch {epoch} of {budget}")
                    if metric not in arrays:
                        arrays[metric] = np.full((len(SEEDS), budget), np.nan, dtype=np.float32)
                    arrays[metric][SEEDS.index(int(seed)), epoch - 1] = value
    return index, string, arrays


def _measurements(run: Any, run_name: str, budget: int, dataset: str) -> Iterator[tuple[str, int, float]]:
    """Yields ``(metric, completed epochs, value)``."""
    for owner, split, name in _RUNS[dataset]:
        if owner != run_name:
            continue
        for quantity, source in (("accuracy", "acc1es"), ("loss", "losses")):
            metric = f"{name}_{quantity}@{budget}"
            if split == "train":
                yield from ((metric, int(e) + 1, value) for e, value in run[f"train_{source}"].items())
            else:
                values = run[f"eval_{source}"]
                prefix = f"{split}@"
                yield from ((metric, int(k[len(prefix) :]) + 1, v) for k, v in values.items() if k.startswith(prefix))
    if run_name == _RUNS[dataset][0][0]:
        yield f"training_time@{budget}", budget, sum(run["train_times"].values())
        if run["latency"]:
            yield f"latency@{budget}", budget, float(np.mean(run["latency"]))


class _Tables:
    """Collects architectures into one table per metric."""

    def __init__(self, strings: list[str]) -> None:
        self._strings = strings
        self._tables: Arrays = {}

    def add(self, index: int, string: str, arrays: Arrays) -> None:
        expected = self._strings[index] if 0 <= index < len(self._strings) else None
        if string != expected:
            raise DataFileError(f"architecture {index} is stored as {string!r}, the official order has {expected!r}")
        for name, array in arrays.items():
            if name not in self._tables:
                self._tables[name] = np.full((len(self._strings), *array.shape), np.nan, dtype=np.float32)
            self._tables[name][index] = array

    def metrics(self) -> dict[str, Metric]:
        if not self._tables:
            raise DataFileError("no architecture of the file has results for this data set")
        metrics = {}
        for name, table in self._tables.items():
            measured = ~np.isnan(table)
            seeds, epochs = (np.flatnonzero(measured.any(axis=axes)) for axes in ((0, 2), (0, 1)))
            values = torch.from_numpy(table[:, seeds][:, :, epochs])
            names = tuple(str(SEEDS[s]) for s in seeds)
            metrics[name] = Metric.from_values(values, names, tuple(int(e) + 1 for e in epochs), *units(name))
        return metrics


UNITS = {
    "accuracy": "percent",
    "error": "percent of errors",
    "loss": "nats",
    "time": "seconds",
    "latency": "seconds",
    "energy": "cost",
    "parameters": "cost",
    "params": "cost",
    "flops": "cost",
}
"""Unit by the last word of a metric's name."""


def units(name: str) -> tuple[str, str]:
    r"""Returns the unit and the official split of one of this benchmark's metrics."""
    quantity = name.partition("@")[0]
    splits = {"test": "ori-test or x-test", "valid_and_test": "ori-test", "valid_run_test": "ori-test"}
    splits |= {"train": "train", "valid_run_train": "train", "valid": "x-valid"}
    role, _, kind = quantity.rpartition("_")
    return UNITS.get(kind, ""), splits.get(role, "")
