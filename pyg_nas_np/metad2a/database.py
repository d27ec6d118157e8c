r"""Data sets as sets of classes, and what architectures reached on them."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from pyg_nas_np.datasets.splits import Split
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.utils import (
    DataFileError,
    InvalidArchitectureError,
    InvalidFeaturesError,
    InvalidLabelsError,
    atomic_path,
    read_tensors,
)

logger = logging.getLogger(__name__)

FORMAT = "pyg_nas_np.meta_dataset/1"
CLASSES_FILE, RESULTS_FILE = "classes.safetensors", "results.csv"


@dataclass(frozen=True)
class FeatureSets:
    r"""``T`` data sets as sets of classes, each class a set of feature vectors; nothing is padded.

    Shapes:
        - **features:** ``[N, F]`` float32, one row an image (or a class prototype).
        - **class_ptr:** ``[K + 1]`` int64, where the rows of each class start.
        - **task_ptr:** ``[T + 1]`` int64, where the classes of each data set start.

    Raises:
        InvalidFeaturesError: If a pointer is not one, a class or data set is empty, or a feature is not finite.

    Example:
        >>> sets = FeatureSets.from_tasks([[torch.zeros(3, 4), torch.ones(2, 4)], [torch.ones(1, 4)]])
        >>> sets
        FeatureSets(tasks=2, classes=3, rows=6, features=4)
        >>> sets[1].features
        tensor([[1., 1., 1., 1.]])
    """

    features: Tensor
    class_ptr: Tensor
    task_ptr: Tensor

    def __post_init__(self) -> None:
        if self.features.dim() != 2:
            raise InvalidFeaturesError(f"features must have shape [N, F], got {list(self.features.shape)}")
        _check_pointer("class_ptr", self.class_ptr, self.features.size(0), "class")
        _check_pointer("task_ptr", self.task_ptr, self.num_classes, "data set")
        if not bool(self.features.isfinite().all()):
            row = int((~self.features.isfinite()).any(dim=1).nonzero()[0, 0])
            raise InvalidFeaturesError(f"row {row} of features holds a value that is NaN or infinite; leave it out")

    @classmethod
    def from_tasks(cls, tasks: Sequence[Sequence[Tensor]]) -> FeatureSets:
        r"""Concatenates data sets.

        Args:
            tasks: For each data set the features of its classes, ``[n, F]`` each.

        Raises:
            InvalidFeaturesError: If there is no data set, one has no class, or a class is empty or of another width.
        """
        classes = [rows for task in tasks for rows in task]
        if not classes:
            raise InvalidFeaturesError("there is no class; give at least one data set with one class")
        width = classes[0].size(-1)
        for i, rows in enumerate(classes):
            if rows.dim() != 2 or rows.size(1) != width:
                raise InvalidFeaturesError(f"class {i} must have shape [n, {width}], got {list(rows.shape)}")
        return cls(
            torch.cat(classes).float(),
            torch.tensor([0, *(rows.size(0) for rows in classes)]).cumsum(0),
            torch.tensor([0, *(len(task) for task in tasks)]).cumsum(0),
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
        return self.task_ptr.numel() - 1

    def __getitem__(self, index: int | Sequence[int] | Tensor) -> FeatureSets:
        r"""Returns the data sets at :obj:`index`, in that order; one may be taken more than once."""
        chosen = torch.as_tensor([index] if isinstance(index, int) else index, device=self.task_ptr.device)
        if chosen.numel() == 0 or int(chosen.min()) < -len(self) or int(chosen.max()) >= len(self):
            raise IndexError(f"index must name some of {len(self)} data sets, got {chosen.tolist()}")
        classes, task_ptr = _members(self.task_ptr, chosen % len(self))
        rows, class_ptr = _members(self.class_ptr, classes)
        return FeatureSets(self.features[rows], class_ptr, task_ptr)

    def prototypes(self) -> FeatureSets:
        r"""Returns the same data sets with each class reduced to the mean of its rows."""
        sizes = self.class_ptr.diff()
        owner = torch.arange(self.num_classes, device=sizes.device).repeat_interleave(sizes)
        total = self.features.new_zeros(self.num_classes, self.num_features).index_add(0, owner, self.features)
        ptr = torch.arange(self.num_classes + 1, device=sizes.device)
        return FeatureSets(total / sizes.unsqueeze(1), ptr, self.task_ptr)

    def to(self, device: torch.device | str) -> FeatureSets:
        r"""Returns the data sets on a device."""
        return FeatureSets(self.features.to(device), self.class_ptr.to(device), self.task_ptr.to(device))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(tasks={len(self)}, classes={self.num_classes}, rows={self.features.size(0)}, "
            f"features={self.num_features})"
        )


@dataclass(frozen=True, eq=False)
class MetaD2ADatabase:
    r"""What architectures reached on many data sets: (task, architecture, accuracy) tuples, and the tasks' classes.

    A task is a list of classes out of a common pool, so that the features of a class are held once, however many tasks
    it belongs to.

    Args:
        space: The search space.
        classes: The pool of ``C`` classes as one data set.
        task_classes: Classes of each of ``T`` tasks, one task behind the other, int64.
        task_ptr: Where the classes of each task start, ``[T + 1]`` int64.
        task: Task of each of ``n`` tuples, ``[n]`` int64.
        arch: Official index of its architecture, ``[n]`` int64.
        accuracy: What it reached, in percent, ``[n]`` float64.
        held_out: Whether the source keeps a tuple for validation, ``[n]`` bool.
        class_names: Names of the classes. (default: their numbers)

    Raises:
        InvalidFeaturesError: If a task is empty, or names a class twice or one that does not exist.
        InvalidLabelsError: If an accuracy is not one, or names a task or an architecture that does not exist.
    """

    space: SearchSpace[Any]
    classes: FeatureSets
    task_classes: Tensor
    task_ptr: Tensor
    task: Tensor
    arch: Tensor
    accuracy: Tensor
    held_out: Tensor
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_pointer("task_ptr", self.task_ptr, self.task_classes.numel(), "task")
        count = self.classes.num_classes
        if int(self.task_classes.min()) < 0 or int(self.task_classes.max()) >= count:
            raise InvalidFeaturesError(f"task_classes must lie between 0 and {count - 1}, the classes that exist")
        owner = torch.arange(self.num_tasks).repeat_interleave(self.task_ptr.diff())
        pair, times = (owner * count + self.task_classes).unique(return_counts=True)
        if bool((times > 1).any()):
            twice = int(pair[times > 1][0])
            raise InvalidFeaturesError(f"task {twice // count} names class {twice % count} more than once")
        if not self.task.shape == self.arch.shape == self.accuracy.shape == self.held_out.shape == (len(self),):
            raise InvalidLabelsError("task, arch, accuracy and held_out must be vectors of one length")
        wrong = ~((self.accuracy >= 0) & (self.accuracy <= 100))
        if bool(wrong.any()):
            first = int(wrong.nonzero()[0, 0])
            raise InvalidLabelsError(f"accuracy must be in percent, got {float(self.accuracy[first])} at tuple {first}")
        for name, values, limit in (("task", self.task, self.num_tasks), ("arch", self.arch, len(self.space))):
            if len(self) and not 0 <= int(values.min()) <= int(values.max()) < limit:
                raise InvalidLabelsError(f"{name} must lie between 0 and {limit - 1}")
        if self.class_names and len(self.class_names) != count:
            raise InvalidFeaturesError(f"there are {len(self.class_names)} class_names for {count} classes")

    def __len__(self) -> int:
        return self.accuracy.numel()

    @property
    def num_tasks(self) -> int:
        r"""Number of tasks, ``T``."""
        return self.task_ptr.numel() - 1

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> MetaD2ADatabase:
        r"""Returns the tuples at :obj:`index` (a slice, integers or a mask), with all tasks."""
        rows = index if isinstance(index, slice) else torch.as_tensor(index)
        task, arch, accuracy, held = self.task[rows], self.arch[rows], self.accuracy[rows], self.held_out[rows]
        return replace(self, task=task, arch=arch, accuracy=accuracy, held_out=held)

    def sets(self, tasks: Sequence[int] | Tensor) -> FeatureSets:
        r"""Returns the features of tasks, in the order given."""
        classes, task_ptr = self.members(tasks)
        rows, class_ptr = _members(self.classes.class_ptr, classes)
        return FeatureSets(self.classes.features[rows], class_ptr, task_ptr)

    def members(self, tasks: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns the classes of tasks, one task behind the other, and where those of each start."""
        positions, task_ptr = _members(self.task_ptr, torch.as_tensor(tasks))
        return self.task_classes[positions], task_ptr

    def official_split(self) -> Split:
        r"""Returns the split that the source made: training tuples, and the held-out ones for validation.

        In MetaD2A's database most held-out tasks and architectures occur in training too, though never together.

        Raises:
            InvalidLabelsError: If the source holds nothing out.
        """
        if not bool(self.held_out.any()):
            raise InvalidLabelsError("the database has no official split; take split_by_task()")
        none = torch.empty(0, dtype=torch.long)
        return Split((~self.held_out).nonzero().flatten(), self.held_out.nonzero().flatten(), none)

    def split_by_task(self, folds: int = 5, fold: int = 0, *, seed: int = 0) -> Split:
        r"""Splits the tuples such that no class list of the test occurs in training.

        Args:
            folds: Number of parts that the class lists are dealt to.
            fold: The part that is tested.
            seed: Seed of the deal.

        Raises:
            ValueError: If there are fewer class lists with tuples than :obj:`folds`, or no such fold.
        """
        lists: dict[tuple[int, ...], int] = {}
        key = torch.full((self.num_tasks,), -1)
        for task in self.task.unique().tolist():
            members = self.task_classes[int(self.task_ptr[task]) : int(self.task_ptr[task + 1])]
            key[task] = lists.setdefault(tuple(members.sort().values.tolist()), len(lists))
        if not 2 <= folds <= len(lists) or not 0 <= fold < folds:
            raise ValueError(
                f"folds must be from 2 to the {len(lists)} class lists, and fold below it; got {folds}, {fold}"
            )
        part = torch.randperm(len(lists), generator=torch.Generator().manual_seed(seed)) % folds
        tested = part[key[self.task]] == fold
        none = torch.empty(0, dtype=torch.long)
        return Split((~tested).nonzero().flatten(), none, tested.nonzero().flatten())

    # -- files ------------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> None:
        r"""Writes ``classes.safetensors`` (tasks and features) and ``results.csv`` (tuples), each atomically."""
        path = Path(folder)
        tensors = {
            "features": self.classes.features,
            "class_ptr": self.classes.class_ptr,
            "task_classes": self.task_classes,
            "task_ptr": self.task_ptr,
        }
        metadata = {"format": FORMAT, "space": self.space.name, "class_names": json.dumps(self.class_names)}
        with atomic_path(path / CLASSES_FILE) as tmp:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp, metadata)
        self.save_results(path)

    def save_results(self, folder: str | os.PathLike[str]) -> None:
        r"""Writes ``results.csv`` alone."""
        with atomic_path(Path(folder) / RESULTS_FILE) as tmp, open(tmp, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["arch", "task", "accuracy", "held_out"])
            columns = (self.arch, self.task, self.accuracy, self.held_out)
            for arch, task, accuracy, held in zip(*(column.tolist() for column in columns), strict=True):
                writer.writerow([self.space.to_str(self.space[arch]), task, repr(accuracy), int(held)])

    @classmethod
    def load(cls, folder: str | os.PathLike[str], space: SearchSpace[Any]) -> MetaD2ADatabase:
        r"""Reads what :meth:`save` or :func:`build_database` wrote.

        Raises:
            DataFileError: If a file is missing, corrupt or of another format.
            InvalidArchitectureError: If it is of another space.
        """
        path = Path(folder) / CLASSES_FILE
        metadata, tensors = read_tensors(path, FORMAT)
        if metadata["space"] != space.name:
            raise InvalidArchitectureError(f"{path} is about {metadata['space']}, not about {space.name}")
        classes = FeatureSets(
            tensors["features"], tensors["class_ptr"], torch.tensor([0, tensors["class_ptr"].numel() - 1])
        )
        rows = read_rows(Path(folder) / RESULTS_FILE, ("arch", "task", "accuracy", "held_out"))
        arch = [parse(space, row["arch"], where) for where, row in rows]
        task = [number(int, row["task"], where) for where, row in rows]
        accuracy = [number(float, row["accuracy"], where) for where, row in rows]
        held_out = [number(int, row["held_out"], where) for where, row in rows]
        return cls(
            space,
            classes,
            tensors["task_classes"],
            tensors["task_ptr"],
            torch.tensor(task, dtype=torch.long),
            torch.tensor(arch, dtype=torch.long),
            torch.tensor(accuracy, dtype=torch.float64),
            torch.tensor(held_out, dtype=torch.bool),
            tuple(json.loads(metadata["class_names"])),
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.space.name}, tuples={len(self)}, tasks={self.num_tasks}, "
            f"classes={self.classes.num_classes})"
        )


def build_database(
    folder: str | os.PathLike[str],
    space: SearchSpace[Any],
    classes: Sequence[Tensor],
    train: Callable[[Any, tuple[int, ...]], float],
    *,
    num_tuples: int,
    classes_per_task: int = 20,
    class_names: Sequence[str] = (),
    seed: int = 0,
) -> MetaD2ADatabase:
    r"""Builds a database: draws tasks from a pool of classes and architectures from a space, and has each pair trained.

    Every result is on disk before the next training starts. A call with the same arguments continues where an earlier
    one stopped, and one with a larger :obj:`num_tuples` extends it.

    Args:
        folder: Where the database is kept.
        space: The search space.
        classes: Features of each class of the pool, ``[n, F]`` each, as of
            :class:`~pyg_nas_np.metad2a.ImageFeatures`.
        train: Trains an architecture on the classes of the given positions and returns its validation accuracy in
            percent.
        num_tuples: Number of pairs.
        classes_per_task: Number of classes that a task has, drawn without replacement.
        class_names: Names of the classes.
        seed: Seed of the draws.

    Returns:
        The database.

    Raises:
        ValueError: If there are fewer classes than a task has.
        InvalidLabelsError: If :obj:`train` returns no accuracy; what was measured before is kept.
        DataFileError: If the folder holds the database of other arguments.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> pool = [torch.randn(5, 8) for _ in range(30)]
        >>> with TemporaryDirectory() as folder:
        ...     build_database(folder, NASBench201Space(), pool, lambda arch, task: 70.0, num_tuples=3)
        MetaD2ADatabase(nasbench201, tuples=3, tasks=3, classes=30)
    """
    if not 1 <= classes_per_task <= len(classes):
        raise ValueError(f"classes_per_task must be from 1 to the {len(classes)} classes, got {classes_per_task}")
    path = Path(folder)
    planned = _plan(space, classes, num_tuples, classes_per_task, tuple(class_names), seed)
    done = MetaD2ADatabase.load(path, space) if (path / CLASSES_FILE).exists() else planned[:0]
    if len(done) > num_tuples:
        planned = _plan(space, classes, len(done), classes_per_task, tuple(class_names), seed)
    if not _continues(done, planned):
        raise DataFileError(f"{path} holds a database of other classes, seed or settings; choose another folder")
    accuracy = planned.accuracy.clone()
    accuracy[: len(done)] = done.accuracy
    replace(planned, accuracy=accuracy)[: len(done)].save(path)
    todo = range(len(done), num_tuples)
    # disable=None: no bar where the output is not a terminal.
    for i in tqdm(todo, desc="training", disable=None):
        start, stop = int(planned.task_ptr[i]), int(planned.task_ptr[i + 1])
        value = float(train(space[int(planned.arch[i])], tuple(planned.task_classes[start:stop].tolist())))
        if not (math.isfinite(value) and 0 <= value <= 100):
            raise InvalidLabelsError(f"train returned {value} for tuple {i}; an accuracy in percent is needed")
        accuracy[i] = value
        replace(planned, accuracy=accuracy)[: i + 1].save_results(path)
        logger.info("Tuple %d of %d: %.2f %%", i + 1, num_tuples, value)
    return replace(planned, accuracy=accuracy)[:num_tuples]


def _check_pointer(name: str, ptr: Tensor, total: int, member: str) -> None:
    if ptr.dim() != 1 or ptr.numel() < 2 or ptr.is_floating_point():
        raise InvalidFeaturesError(f"{name} must be a vector of at least two integers, got {list(ptr.shape)}")
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


def _plan(
    space: SearchSpace[Any],
    classes: Sequence[Tensor],
    count: int,
    classes_per_task: int,
    class_names: tuple[str, ...],
    seed: int,
) -> MetaD2ADatabase:
    """The pairs to be trained, with accuracies of zero; a longer plan begins like a shorter one."""
    generator = torch.Generator().manual_seed(seed)
    tasks, archs = [], []
    for _ in range(count):
        tasks.append(torch.randperm(len(classes), generator=generator)[:classes_per_task])
        archs.append(space.sample_indices(1, generator))
    return MetaD2ADatabase(
        space,
        FeatureSets.from_tasks([classes]),
        torch.cat(tasks),
        torch.arange(count + 1) * classes_per_task,
        torch.arange(count),
        torch.cat(archs),
        torch.zeros(count, dtype=torch.float64),
        torch.zeros(count, dtype=torch.bool),
        class_names,
    )


def _continues(done: MetaD2ADatabase, planned: MetaD2ADatabase) -> bool:
    """Whether what is done is the beginning of what is planned."""
    count = len(done)
    tasks = min(done.num_tasks, planned.num_tasks)
    stop = int(planned.task_ptr[tasks])
    return (
        done.class_names == planned.class_names
        and torch.equal(done.classes.features, planned.classes.features)
        and torch.equal(done.task_ptr[: tasks + 1], planned.task_ptr[: tasks + 1])
        and torch.equal(done.task_classes[:stop], planned.task_classes[:stop])
        and torch.equal(done.arch, planned.arch[:count])
        and torch.equal(done.task, planned.task[:count])
    )


def read_rows(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    r"""Returns the rows of a CSV file with at least these columns, each with the words for where it is."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", strict=True)
            rows: list[dict[str, str]] = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(f"{path} is missing, truncated or corrupt ({error})") from error
    if absent := [name for name in columns if name not in (reader.fieldnames or ())]:
        raise DataFileError(f"{path} has no column {absent[0]!r}; expected {', '.join(columns)}")
    for line, row in enumerate(rows, start=2):
        if "" in row or None in row.values():
            raise DataFileError(f"{path}, line {line}: expected {len(reader.fieldnames or ())} cells")
    return [(f"{path}, line {line}", row) for line, row in enumerate(rows, start=2)]


def number(kind: type[int] | type[float], text: str, where: str) -> Any:
    r"""Returns a cell as a number, or says where it is none."""
    try:
        return kind(text)
    except ValueError as error:
        raise DataFileError(f"{where}: {text!r} is not {'an integer' if kind is int else 'a number'}") from error


def parse(space: SearchSpace[Any], text: str, where: str) -> int:
    r"""Returns the official index of an architecture's string, or says where it is none."""
    try:
        return space.index(space.from_str(text))
    except InvalidArchitectureError as error:
        raise DataFileError(f"{where}: {error}") from error
