"""A database that is made, so that tests need no files."""

from __future__ import annotations

import torch

from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.metad2a import FeatureSets, MetaD2ADatabase
from pyg_nas_np.spaces import space_by_name

SPACE = space_by_name("nasbench201")


def make_database(count: int = 120, classes: int = 20, size: int = 4) -> MetaD2ADatabase:
    """Tuples whose accuracies follow from the first feature of their classes and a descriptor of their cell."""
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(classes, 8, generator=generator)
    datasets = torch.stack([torch.randperm(classes, generator=generator)[:size] for _ in range(count)])
    arch = torch.randint(len(SPACE), (count,), generator=generator)
    ease = torch.nn.functional.normalize(pool, dim=1)[:, 0]
    accuracy = 60 + 8 * ease[datasets].mean(dim=1) + 3 * shared_descriptors(SPACE).table(arch)[:, -1]
    return MetaD2ADatabase(
        SPACE,
        FeatureSets.from_datasets([pool.split(1)]),
        datasets.flatten(),
        torch.arange(count + 1) * size,
        torch.arange(count),
        arch,
        accuracy.double(),
        torch.zeros(count, dtype=torch.bool),
    )
