r"""Seeded train/validation/test splits over architectures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.utils import check_count, seeded


class Split(NamedTuple):
    r"""Three disjoint int64 tensors of positions in a data set; official indices if it is the whole space."""

    train: Tensor
    valid: Tensor
    test: Tensor


def index_split(candidates: Tensor, n_train: int, n_valid: int = 0, *, seed: int = 0) -> Split:
    r"""Draws training and validation architectures uniformly; all other candidates are the test part.

    Splits of one seed are nested: a smaller :obj:`n_train` gives a prefix of a larger one.

    Args:
        candidates: Indices of the labelled architectures, int64 ``[L]``.
        n_train: Number of training architectures.
        n_valid: Number of validation architectures.
        seed: Seed of the permutation.

    Raises:
        ValueError: If the sizes are negative or leave nothing to test.
    """
    n_train, n_valid = check_count("n_train", n_train, -1), check_count("n_valid", n_valid, -1)
    if n_train < 1 or n_valid < 0 or n_train + n_valid >= candidates.numel():
        raise ValueError(
            f"n_train={n_train} and n_valid={n_valid} must be positive (n_valid may be 0) and leave at least one of "
            f"the {candidates.numel()} labelled architectures for testing"
        )
    generator = seeded(seed)
    order = candidates[torch.randperm(candidates.numel(), generator=generator, device="cpu")]
    # Validation is taken from the other end of the permutation, so that it does not depend on n_train.
    stop = order.numel() - n_valid
    return Split(order[:n_train], order[stop:], order[n_train:stop].sort().values)


def class_split(candidates: Tensor, classes: Tensor, n_train: int, n_valid: int = 0, *, seed: int = 0) -> Split:
    r"""Like :func:`index_split`, but no test architecture shares an equivalence class with training or validation.

    Equivalents of training architectures are excluded from validation and test, those of validation ones from the test.

    Args:
        candidates: Indices of the labelled architectures, int64 ``[L]``.
        classes: Equivalence class of every architecture of the space, int64 ``[A]``.
        n_train: Number of training architectures.
        n_valid: Number of validation architectures before equivalents are excluded.
        seed: Seed of the permutation.
    """
    train, valid, test = index_split(candidates, n_train, n_valid, seed=seed)
    valid = valid[~torch.isin(classes[valid], classes[train])]
    test = test[~torch.isin(classes[test], torch.cat([classes[train], classes[valid]]))]
    return Split(train, valid, test)


def budget_splits(
    candidates: Tensor, budgets: Sequence[int], classes: Tensor | None = None, *, seed: int = 0
) -> dict[int, Split]:
    r"""Splits for growing label budgets: nested training sets, one common test set.

    Args:
        candidates: Indices of the labelled architectures, int64 ``[L]``.
        budgets: Numbers of training labels.
        classes: Split by these classes instead of by index. (default: by index)
        seed: Seed of the permutation.

    Returns:
        For each budget its split; the test set is that of the largest budget.

    Raises:
        ValueError: If :obj:`budgets` is empty.
    """
    if not budgets:
        raise ValueError("budgets must name at least one number of labels")
    largest = max(budgets)
    if classes is None:
        whole = index_split(candidates, largest, seed=seed)
    else:
        whole = class_split(candidates, classes, largest, seed=seed)
    if min(budgets) < 1:
        raise ValueError(f"budgets must be positive, got {min(budgets)}")
    return {n: Split(whole.train[:n], whole.valid, whole.test) for n in budgets}
