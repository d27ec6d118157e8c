r"""Data sets as sets of classes, and accuracies of architectures on them."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pyg_nas_np.datasets.splits import Split
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.utils import (
    DataFileError,
    InvalidArchitectureError,
    InvalidFeaturesError,
    InvalidLabelsError,
    atomic_path,
    fixed_defaults,
    foreign_file,
    read_tensors,
    write_tensors,
)
from pyg_nas_np.utils.files import read_bytes
from pyg_nas_np.utils.state_files import read_json

logger = logging.getLogger(__name__)

FORMAT = "pyg_nas_np.metad2a_database/1"
CLASSES_FILE, RESULTS_FILE = "classes.safetensors", "results.csv"


@dataclass(frozen=True)
class FeatureSets:
    r"""``T`` data sets as sets of classes, each class a set of feature vectors; nothing is padded.

    Shapes:
        - **features:** ``[N, F]`` float32, one row an image (or a class prototype).
        - **class_ptr:** ``[K + 1]`` int64, where the rows of each class start.
        - **dataset_ptr:** ``[T + 1]`` int64, where the classes of each data set start.

    Raises:
        InvalidFeaturesError: If a pointer is not one, a class or data set is empty, or a feature is not finite.

    Example:
        >>> sets = FeatureSets.from_datasets([[torch.zeros(3, 4), torch.ones(2, 4)], [torch.ones(1, 4)]])
        >>> sets
        FeatureSets(datasets=2, classes=3, rows=6, features=4)
        >>> sets[1].features
        tensor([[1., 1., 1., 1.]])
    """

    features: Tensor
    class_ptr: Tensor
    dataset_ptr: Tensor

    @fixed_defaults
    def __post_init__(self) -> None:
        if self.features.dim() != 2 or self.features.dtype != torch.float32:
            found = f"{self.features.dtype} {list(self.features.shape)}"
            raise InvalidFeaturesError(f"features must be float32 of shape [N, F], got {found}")
        _check_pointer("class_ptr", self.class_ptr, self.features.size(0), "class")
        _check_pointer("dataset_ptr", self.dataset_ptr, self.num_classes, "data set")
        if not bool(self.features.isfinite().all()):
            row = int((~self.features.isfinite()).any(dim=1).nonzero()[0, 0])
            raise InvalidFeaturesError(f"row {row} of features holds a value that is NaN or infinite; leave it out")

    @classmethod
    @fixed_defaults
    def from_datasets(cls, datasets: Sequence[Sequence[Tensor]]) -> FeatureSets:
        r"""Concatenates data sets.

        Args:
            datasets: For each data set the features of its classes, ``[n, F]`` each.

        Raises:
            InvalidFeaturesError: If there is no data set, one has no class, or a class is empty or of another width.
        """
        classes = [rows for dataset in datasets for rows in dataset]
        if not classes:
            raise InvalidFeaturesError("there is no class; give at least one data set with one class")
        width = classes[0].size(-1)
        for i, rows in enumerate(classes):
            if rows.dim() != 2 or rows.size(1) != width:
                raise InvalidFeaturesError(f"class {i} must have shape [n, {width}], got {list(rows.shape)}")
        return cls(
            torch.cat(classes).float(),
            torch.tensor([0, *(rows.size(0) for rows in classes)]).cumsum(0),
            torch.tensor([0, *(len(dataset) for dataset in datasets)]).cumsum(0),
        )

    @property
    def num_classes(self) -> int:
        r"""Number of classes of all data sets, ``K``."""
        return self.class_ptr.numel() - 1

    @property
    def num_features(self) -> int:
        r"""Number of features, ``F``."""
        return int(self.features.size(1))

    def __len__(self) -> int:
        return self.dataset_ptr.numel() - 1

    @fixed_defaults
    def __getitem__(self, index: int | Sequence[int] | Tensor) -> FeatureSets:
        r"""Returns the data sets at :obj:`index`, in that order; one may be taken more than once."""
        chosen = torch.as_tensor([index] if isinstance(index, int) else index, device=self.dataset_ptr.device)
        if chosen.numel() == 0 or int(chosen.min()) < -len(self) or int(chosen.max()) >= len(self):
            raise IndexError(f"index must name some of {len(self)} data sets, got {chosen.tolist()}")
        classes, dataset_ptr = _members(self.dataset_ptr, chosen % len(self))
        rows, class_ptr = _members(self.class_ptr, classes)
        return FeatureSets(self.features[rows], class_ptr, dataset_ptr)

    @fixed_defaults
    def prototypes(self) -> FeatureSets:
        r"""Returns the same data sets with each class reduced to the mean of its rows."""
        sizes = self.class_ptr.diff()
        owner = torch.arange(self.num_classes, device=sizes.device).repeat_interleave(sizes)
        total = self.features.new_zeros(self.num_classes, self.num_features).index_add(0, owner, self.features)
        ptr = torch.arange(self.num_classes + 1, device=sizes.device)
        return FeatureSets(total / sizes.unsqueeze(1), ptr, self.dataset_ptr)

    def to(self, device: torch.device | str) -> FeatureSets:
        r"""Returns the data sets on a device."""
        return FeatureSets(self.features.to(device), self.class_ptr.to(device), self.dataset_ptr.to(device))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(datasets={len(self)}, classes={self.num_classes}, rows={self.features.size(0)}, "
            f"features={self.num_features})"
        )


@dataclass(frozen=True, eq=False)
class MetaD2ADatabase:
    r"""Accuracies of architectures on many data sets: (data set, architecture, accuracy) tuples.

    A data set is a list of classes of a common pool. The features of a class are held once, however many data sets it
    belongs to.

    Args:
        space: The search space.
        classes: The pool of ``C`` classes as one data set.
        dataset_classes: Classes of each of ``T`` data sets, concatenated, int64.
        dataset_ptr: Where the classes of each data set start, ``[T + 1]`` int64.
        dataset: Data set of each of ``n`` tuples, ``[n]`` int64.
        arch: Official index of its architecture, ``[n]`` int64.
        accuracy: Its accuracy in percent, ``[n]`` float64.
        held_out: Whether the source holds a tuple out for validation, ``[n]`` bool.
        class_names: Names of the classes. (default: their numbers)

    Raises:
        InvalidFeaturesError: If a data set is empty, or names a class twice or one that does not exist.
        InvalidLabelsError: If an accuracy is not one, or names a data set or an architecture that does not exist.
    """

    space: CellSpace[Any]
    classes: FeatureSets
    dataset_classes: Tensor
    dataset_ptr: Tensor
    dataset: Tensor
    arch: Tensor
    accuracy: Tensor
    held_out: Tensor
    class_names: tuple[str, ...] = ()

    @fixed_defaults
    def __post_init__(self) -> None:
        _check_pointer("dataset_ptr", self.dataset_ptr, self.dataset_classes.numel(), "dataset")
        count = self.classes.num_classes
        if int(self.dataset_classes.min()) < 0 or int(self.dataset_classes.max()) >= count:
            raise InvalidFeaturesError(f"dataset_classes must lie between 0 and {count - 1}, the classes that exist")
        owner = torch.arange(self.num_datasets).repeat_interleave(self.dataset_ptr.diff())
        pair, times = (owner * count + self.dataset_classes).unique(return_counts=True)
        if bool((times > 1).any()):
            twice = int(pair[times > 1][0])
            raise InvalidFeaturesError(f"data set {twice // count} names class {twice % count} more than once")
        if not self.dataset.shape == self.arch.shape == self.accuracy.shape == self.held_out.shape == (len(self),):
            raise InvalidLabelsError("dataset, arch, accuracy and held_out must be vectors of one length")
        wrong = ~((self.accuracy >= 0) & (self.accuracy <= 100))
        if bool(wrong.any()):
            first = int(wrong.nonzero()[0, 0])
            raise InvalidLabelsError(f"accuracy must be in percent, got {float(self.accuracy[first])} at tuple {first}")
        for name, values, limit in (("dataset", self.dataset, self.num_datasets), ("arch", self.arch, len(self.space))):
            if len(self) and not 0 <= int(values.min()) <= int(values.max()) < limit:
                raise InvalidLabelsError(f"{name} must lie between 0 and {limit - 1}")
        if self.class_names and len(self.class_names) != count:
            raise InvalidFeaturesError(f"there are {len(self.class_names)} class_names for {count} classes")

    def __len__(self) -> int:
        return self.accuracy.numel()

    @property
    def num_datasets(self) -> int:
        r"""Number of data sets, ``T``."""
        return self.dataset_ptr.numel() - 1

    @fixed_defaults
    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> MetaD2ADatabase:
        r"""Returns the tuples at :obj:`index` (a slice, integers or a mask), with all data sets."""
        rows = index if isinstance(index, slice) else torch.as_tensor(index)
        dataset, arch, accuracy, held = self.dataset[rows], self.arch[rows], self.accuracy[rows], self.held_out[rows]
        return replace(self, dataset=dataset, arch=arch, accuracy=accuracy, held_out=held)

    @fixed_defaults
    def sets(self, datasets: Sequence[int] | Tensor) -> FeatureSets:
        r"""Returns the features of data sets, in the order given."""
        classes, dataset_ptr = self.members(datasets)
        rows, class_ptr = _members(self.classes.class_ptr, classes)
        return FeatureSets(self.classes.features[rows], class_ptr, dataset_ptr)

    @fixed_defaults
    def members(self, datasets: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns the classes of data sets, concatenated, and where those of each start."""
        positions, dataset_ptr = _members(self.dataset_ptr, torch.as_tensor(datasets))
        return self.dataset_classes[positions], dataset_ptr

    @fixed_defaults
    def official_split(self) -> Split:
        r"""Returns the split that the source made: training tuples, and the held-out ones for validation.

        In MetaD2A's database most held-out data sets and architectures occur in training too, though never together.

        Raises:
            InvalidLabelsError: If the source holds nothing out.
        """
        if not bool(self.held_out.any()):
            raise InvalidLabelsError("the database has no official split; take split_by_dataset()")
        none = torch.empty(0, dtype=torch.long)
        return Split((~self.held_out).nonzero().flatten(), self.held_out.nonzero().flatten(), none)

    @fixed_defaults
    def split_by_dataset(self, folds: int = 5, fold: int = 0, *, seed: int = 0) -> Split:
        r"""Splits the tuples such that no class list of the test part occurs in the training part.

        Args:
            folds: Number of folds of the class lists.
            fold: The test fold.
            seed: Seed of the assignment to folds.

        Raises:
            ValueError: If there are fewer class lists with tuples than :obj:`folds`, or no such fold.
        """
        lists: dict[tuple[int, ...], int] = {}
        key = torch.full((self.num_datasets,), -1)
        for dataset in self.dataset.unique().tolist():
            members = self.dataset_classes[int(self.dataset_ptr[dataset]) : int(self.dataset_ptr[dataset + 1])]
            key[dataset] = lists.setdefault(tuple(members.sort().values.tolist()), len(lists))
        if not 2 <= folds <= len(lists) or not 0 <= fold < folds:
            raise ValueError(
                f"folds must be from 2 to the {len(lists)} class lists, and fold below it; got {folds}, {fold}"
            )
        part = torch.randperm(len(lists), generator=torch.Generator().manual_seed(seed)) % folds
        tested = part[key[self.dataset]] == fold
        none = torch.empty(0, dtype=torch.long)
        return Split((~tested).nonzero().flatten(), none, tested.nonzero().flatten())

    # -- files ------------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> None:
        r"""Writes ``classes.safetensors`` (data sets and features) and ``results.csv`` (tuples), each atomically."""
        path = Path(folder)
        tensors = {
            "features": self.classes.features,
            "class_ptr": self.classes.class_ptr,
            "dataset_classes": self.dataset_classes,
            "dataset_ptr": self.dataset_ptr,
        }
        metadata = {"format": FORMAT, "space": self.space.name, "class_names": json.dumps(self.class_names)}
        write_tensors(path / CLASSES_FILE, tensors, metadata)
        self.save_results(path)

    def save_results(self, folder: str | os.PathLike[str]) -> None:
        r"""Writes ``results.csv`` alone."""
        with atomic_path(Path(folder) / RESULTS_FILE) as tmp, open(tmp, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["arch", "dataset", "accuracy", "held_out"])
            columns = (self.arch, self.dataset, self.accuracy, self.held_out)
            for arch, dataset, accuracy, held in zip(*(column.tolist() for column in columns), strict=True):
                writer.writerow([self.space.to_str(self.space[arch]), dataset, repr(accuracy), int(held)])

    @classmethod
    @fixed_defaults
    def load(cls, folder: str | os.PathLike[str], space: CellSpace[Any]) -> MetaD2ADatabase:
        r"""Reads what :meth:`save` or :func:`build_database` wrote.

        Raises:
            DataFileError: If a file is missing, corrupt or of another format.
            InvalidArchitectureError: If it is of another space.
        """
        path = Path(folder) / CLASSES_FILE
        metadata, tensors = read_tensors(path, FORMAT, ("space", "class_names"))
        if metadata["space"] != space.name:
            raise InvalidArchitectureError(f"{path} is about {metadata['space']}, not about {space.name}")
        names = ("features", "class_ptr", "dataset_classes", "dataset_ptr")
        if tensors.keys() != set(names):
            raise DataFileError(f"{path} must hold {', '.join(names)}, it holds {', '.join(sorted(tensors))}")
        if tensors["dataset_classes"].dtype != torch.long or tensors["dataset_classes"].dim() != 1:
            raise DataFileError(f"{path}: dataset_classes must be a vector of int64")
        class_names = read_json(metadata, "class_names", list, path)
        rows = read_rows(Path(folder) / RESULTS_FILE, ("arch", "dataset", "accuracy", "held_out"))
        try:
            return cls(
                space,
                FeatureSets(
                    tensors["features"], tensors["class_ptr"], torch.tensor([0, tensors["class_ptr"].numel() - 1])
                ),
                tensors["dataset_classes"],
                tensors["dataset_ptr"],
                torch.tensor([number(int, row["dataset"], where) for where, row in rows], dtype=torch.long),
                torch.tensor([parse(space, row["arch"], where) for where, row in rows], dtype=torch.long),
                torch.tensor([number(float, row["accuracy"], where) for where, row in rows], dtype=torch.float64),
                torch.tensor([flag(row["held_out"], where) for where, row in rows], dtype=torch.bool),
                tuple(map(str, class_names)),
            )
        except (InvalidFeaturesError, InvalidLabelsError) as error:
            raise DataFileError(f"{folder} is not a database: {error}") from error

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.space.name}, tuples={len(self)}, datasets={self.num_datasets}, "
            f"classes={self.classes.num_classes})"
        )


def build_database(
    folder: str | os.PathLike[str],
    space: CellSpace[Any],
    classes: Sequence[Tensor],
    train: Callable[[Any, tuple[int, ...]], float],
    *,
    num_tuples: int,
    classes_per_dataset: int = 20,
    class_names: Sequence[str] = (),
    seed: int = 0,
) -> MetaD2ADatabase:
    r"""Builds a database: draws pairs of data set and architecture, and trains each of them.

    Data sets are drawn from a pool of classes, architectures from a space.

    Every result is written before the next training starts. A call with the same arguments resumes an earlier one; a
    call with a larger :obj:`num_tuples` extends it.

    Args:
        folder: Folder of the database.
        space: The search space.
        classes: Features of each class of the pool, ``[n, F]`` each, as of
            :class:`~pyg_nas_np.metad2a.ImageFeatures`.
        train: Trains an architecture on the classes of the given positions and returns its validation accuracy in
            percent.
        num_tuples: Number of pairs.
        classes_per_dataset: Number of classes that a data set has, drawn without replacement.
        class_names: Names of the classes.
        seed: Seed of the draws.

    Returns:
        The database.

    Raises:
        ValueError: If there are fewer classes than a data set has.
        InvalidLabelsError: If :obj:`train` returns no accuracy; what was measured before is kept.
        DataFileError: If the folder holds the database of other arguments.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> pool = [torch.randn(5, 8) for _ in range(30)]
        >>> with TemporaryDirectory() as folder:
        ...     build_database(folder, NASBench201Space(), pool, lambda arch, dataset: 70.0, num_tuples=3)
        MetaD2ADatabase(nasbench201, tuples=3, datasets=3, classes=30)
    """
    if not 1 <= classes_per_dataset <= len(classes):
        raise ValueError(f"classes_per_dataset must be from 1 to the {len(classes)} classes, got {classes_per_dataset}")
    path = Path(folder)
    planned = _plan(space, classes, num_tuples, classes_per_dataset, tuple(class_names), seed)
    done = MetaD2ADatabase.load(path, space) if (path / CLASSES_FILE).exists() else planned[:0]
    if len(done) > num_tuples:
        planned = _plan(space, classes, len(done), classes_per_dataset, tuple(class_names), seed)
    if not _continues(done, planned):
        raise DataFileError(f"{path} holds a database of other classes, seed or settings; choose another folder")
    accuracy = planned.accuracy.clone()
    accuracy[: len(done)] = done.accuracy
    replace(planned, accuracy=accuracy)[: len(done)].save(path)
    todo = range(len(done), num_tuples)
    # disable=None: no bar if the output is not a terminal.
    for i in tqdm(todo, desc="training", disable=None):
        start, stop = int(planned.dataset_ptr[i]), int(planned.dataset_ptr[i + 1])
        value = float(train(space[int(planned.arch[i])], tuple(planned.dataset_classes[start:stop].tolist())))
        if not (math.isfinite(value) and 0 <= value <= 100):
            raise InvalidLabelsError(f"train returned {value} for tuple {i}; an accuracy in percent is needed")
        accuracy[i] = value
        replace(planned, accuracy=accuracy)[: i + 1].save_results(path)
        logger.info("Tuple %d of %d: %.2f %%", i + 1, num_tuples, value)
    return replace(planned, accuracy=accuracy)[:num_tuples]


def _check_pointer(name: str, ptr: Tensor, total: int, member: str) -> None:
    if ptr.dim() != 1 or ptr.numel() < 2 or ptr.dtype != torch.long:
        raise InvalidFeaturesError(
            f"{name} must be a vector of at least two integers (int64), got {ptr.dtype} {list(ptr.shape)}"
        )
    if int(ptr[0]) != 0 or int(ptr[-1]) != total:
        raise InvalidFeaturesError(f"{name} must run from 0 to {total}, got {int(ptr[0])} to {int(ptr[-1])}")
    if int(ptr.diff().min()) < 1:
        empty = int((ptr.diff() < 1).nonzero()[0, 0])
        raise InvalidFeaturesError(f"{member} {empty} is empty ({name}); leave it out")


def _members(ptr: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the members of the chosen sets, and the pointer of the selection."""
    sizes = ptr.diff()[chosen]
    new = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    shift = (ptr[chosen] - new[:-1]).repeat_interleave(sizes)
    return shift + torch.arange(int(new[-1]), device=ptr.device), new


@fixed_defaults
def _plan(
    space: CellSpace[Any],
    classes: Sequence[Tensor],
    count: int,
    classes_per_dataset: int,
    class_names: tuple[str, ...],
    seed: int,
) -> MetaD2ADatabase:
    """The pairs to train, with accuracies of zero; a longer plan starts with the pairs of a shorter one."""
    generator = torch.Generator().manual_seed(seed)
    datasets, archs = [], []
    for _ in range(count):
        datasets.append(torch.randperm(len(classes), generator=generator)[:classes_per_dataset])
        archs.append(space.sample_indices(1, generator))
    return MetaD2ADatabase(
        space,
        FeatureSets.from_datasets([classes]),
        torch.cat(datasets),
        torch.arange(count + 1) * classes_per_dataset,
        torch.arange(count),
        torch.cat(archs),
        torch.zeros(count, dtype=torch.float64),
        torch.zeros(count, dtype=torch.bool),
        class_names,
    )


def _continues(done: MetaD2ADatabase, planned: MetaD2ADatabase) -> bool:
    """Whether the finished pairs are the first ones of the plan."""
    count = len(done)
    datasets = min(done.num_datasets, planned.num_datasets)
    stop = int(planned.dataset_ptr[datasets])
    return (
        done.class_names == planned.class_names
        and torch.equal(done.classes.features, planned.classes.features)
        and torch.equal(done.dataset_ptr[: datasets + 1], planned.dataset_ptr[: datasets + 1])
        and torch.equal(done.dataset_classes[:stop], planned.dataset_classes[:stop])
        and torch.equal(done.arch, planned.arch[:count])
        and torch.equal(done.dataset, planned.dataset[:count])
    )


def read_rows(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    r"""Returns the rows of a CSV file with at least these columns, each with its location as text.

    Raises:
        DataFileError: If the file is missing, not a regular file, corrupt, or a column is missing or repeated.
    """
    rows: list[tuple[str, dict[str, str]]] = []
    content = read_bytes(path)
    with foreign_file(path, "a CSV file"):
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), restkey="", strict=True)
        header = reader.fieldnames or ()
        if absent := [name for name in columns if name not in header]:
            raise DataFileError(f"{path} has no column {absent[0]!r}; expected {', '.join(columns)}")
        if repeated := [name for name in columns if header.count(name) > 1]:
            raise DataFileError(f"{path} has the column {repeated[0]!r} more than once")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if "" in row or None in row.values():
                raise DataFileError(f"{where}: expected {len(header)} cells")
            rows.append((where, row))
    return rows


def number(kind: type[int] | type[float], text: str, where: str) -> Any:
    r"""Returns a cell as a 64-bit number; the error of an invalid one names its location."""
    try:
        value = kind(text)
    except ValueError as error:
        shown = "an integer" if kind is int else "a number"
        raise DataFileError(f"{where}: {text[:40]!r} is not {shown}") from error
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise DataFileError(f"{where}: {text[:40]!r} is out of range")
    return value


def flag(text: str, where: str) -> bool:
    r"""Returns a cell that is 0 or 1; the error of any other names its location."""
    if text not in ("0", "1"):
        raise DataFileError(f"{where}: {text[:40]!r} is neither 0 nor 1")
    return text == "1"


def parse(space: CellSpace[Any], text: str, where: str) -> int:
    r"""Returns the official index of an architecture's string; the error of an invalid one names its location."""
    try:
        return space.index(space.from_str(text))
    except InvalidArchitectureError as error:
        raise DataFileError(f"{where}: {error}") from error
