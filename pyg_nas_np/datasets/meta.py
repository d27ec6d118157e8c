r"""Data sets as sets of classes, and what architectures reached on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyg_nas_np.utils import InvalidFeaturesError


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
