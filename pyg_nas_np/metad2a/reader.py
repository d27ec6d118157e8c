r"""The public database of MetaD2A's predictor: 4,630 accuracies on 20-class subsets of ImageNet-32."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from pyg_nas_np.metad2a.backbone import class_vectors
from pyg_nas_np.metad2a.database import CLASSES_FILE, FeatureSets, MetaD2ADatabase, number, parse, read_rows
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.utils import DataFileError, fixed_defaults

FILES = ("predictor_db.csv", "tasks.csv", "imagenet_class_ids.csv")
_CLASSES = 20


def open_database(folder: str | os.PathLike[str], space: CellSpace[Any]) -> MetaD2ADatabase:
    r"""Reads a folder in the format of :meth:`MetaD2ADatabase.save` or of :func:`read_database`.

    Raises:
        DataFileError: If a file is missing or corrupt.
    """
    own = (Path(folder) / CLASSES_FILE).exists()
    return MetaD2ADatabase.load(folder, space) if own else read_database(folder, space)


@fixed_defaults
def read_database(folder: str | os.PathLike[str], space: CellSpace[Any]) -> MetaD2ADatabase:
    r"""Reads the database from three files of the user.

    - ``predictor_db.csv``: columns ``arch_str``, ``task`` (a row of ``tasks.csv``), ``acc`` (percent) and ``split``
      (``train`` or ``val``);
    - ``tasks.csv``: ``task`` and ``class_0`` … ``class_19``, ImageNet classes in the order of the ILSVRC
      development kit, from 1;
    - ``imagenet_class_ids.csv``: the ``wnid`` of each ``class_id``.

    A ``task`` of these files is a data set of twenty classes. The feature vector of a class is its row in the
    classifier of :class:`~pyg_nas_np.metad2a.backbone.EfficientNetLite0`, so no image of ImageNet is needed.
    Classifiers order classes by WordNet id, the development kit does not; the third file maps one order to the other.

    Args:
        folder: The folder of the files.
        space: The search space; that of MetaD2A's file is NAS-Bench-201.

    Returns:
        The database; the names of the classes are their WordNet ids.

    Raises:
        DataFileError: If a file is missing or corrupt; the message names file and line.
        MissingExtraError: If the packages of the extra ``backbone`` are not installed.
    """
    results, tasks, ids = (Path(folder) / name for name in FILES)
    wnid: dict[int, str] = {}
    for where, row in read_rows(ids, ("wnid", "class_id")):
        wnid[number(int, row["class_id"], where)] = row["wnid"]
    vectors = class_vectors()
    if len(set(wnid.values())) != vectors.size(0):
        raise DataFileError(f"{ids} must name {vectors.size(0)} different classes, found {len(set(wnid.values()))}")
    order = {name: rank for rank, name in enumerate(sorted(wnid.values()))}
    members: list[list[str]] = []
    for where, row in read_rows(tasks, ["task", *(f"class_{i}" for i in range(_CLASSES))]):
        if number(int, row["task"], where) != len(members):
            raise DataFileError(f"{where}: tasks must be numbered from 0, expected {len(members)}, got {row['task']}")
        numbers = [number(int, row[f"class_{i}"], where) for i in range(_CLASSES)]
        if unknown := [value for value in numbers if value not in wnid]:
            raise DataFileError(f"{where}: there is no class {unknown[0]} in {ids.name}")
        if len(set(numbers)) < _CLASSES:
            raise DataFileError(f"{where}: the {_CLASSES} classes must be different")
        members.append([wnid[value] for value in numbers])
    rows = read_rows(results, ("arch_str", "task", "acc", "split"))
    arch, dataset, accuracy, held_out = [], [], [], []
    for where, row in rows:
        arch.append(parse(space, row["arch_str"], where))
        dataset.append(number(int, row["task"], where))
        accuracy.append(number(float, row["acc"], where))
        held_out.append(row["split"] == "val")
        if not 0 <= dataset[-1] < len(members):
            raise DataFileError(f"{where}: there is no task {dataset[-1]} in {tasks.name}")
        if not 0 <= accuracy[-1] <= 100:
            raise DataFileError(f"{where}: accuracy {row['acc']:.40} is not in percent")
        if row["split"] not in ("train", "val"):
            raise DataFileError(f"{where}: split must be 'train' or 'val', got {row['split']!r}")
    # Classes without a tuple are dropped.
    names = sorted({name for names in members for name in names})
    position = {name: i for i, name in enumerate(names)}
    features = vectors[torch.tensor([order[name] for name in names])]
    pool = FeatureSets(features, torch.arange(len(names) + 1), torch.tensor([0, len(names)]))
    return MetaD2ADatabase(
        space,
        pool,
        torch.tensor([position[name] for names in members for name in names]),
        torch.arange(len(members) + 1) * _CLASSES,
        torch.tensor(dataset),
        torch.tensor(arch),
        torch.tensor(accuracy, dtype=torch.float64),
        torch.tensor(held_out),
        tuple(names),
    )
