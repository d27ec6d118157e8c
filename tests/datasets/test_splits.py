from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.datasets.splits import budget_splits, class_split, index_split


@given(st.integers(3, 60), st.data())
def test_index_split_partitions_the_candidates(count, data):
    n_train = data.draw(st.integers(1, count - 1))
    n_valid = data.draw(st.integers(0, count - n_train - 1))
    candidates = torch.arange(count) * 7
    split = index_split(candidates, n_train, n_valid, seed=data.draw(st.integers(0, 99)))
    assert [t.numel() for t in split] == [n_train, n_valid, count - n_train - n_valid]
    assert torch.equal(torch.cat(split).sort().values, candidates)


@given(st.lists(st.integers(0, 9), min_size=4, max_size=60), st.integers(0, 99))
def test_class_split_keeps_twins_out_of_the_test(classes, seed):
    labels = torch.tensor(classes)
    split = class_split(torch.arange(len(classes)), labels, 2, 1, seed=seed)
    assert split.train.numel() == 2
    assert not torch.isin(labels[split.test], labels[torch.cat([split.train, split.valid])]).any()
    assert not torch.isin(labels[split.valid], labels[split.train]).any()


def test_splits_of_one_seed_are_nested():
    candidates = torch.arange(100)
    small, large = index_split(candidates, 5, 10, seed=3), index_split(candidates, 50, 10, seed=3)
    assert torch.equal(small.train, large.train[:5])
    assert torch.equal(small.valid, large.valid)
    assert not torch.equal(small.train, index_split(candidates, 5, 10, seed=4).train)


def test_budget_splits_share_the_test_set():
    splits = budget_splits(torch.arange(100), [10, 20, 50], seed=1)
    assert [s.train.numel() for s in splits.values()] == [10, 20, 50]
    assert all(torch.equal(s.test, splits[50].test) for s in splits.values())
    assert torch.equal(splits[10].train, splits[50].train[:10])
    by_class = budget_splits(torch.arange(100), [10, 20], torch.arange(100) // 4, seed=1)
    assert not torch.isin(by_class[10].test // 4, by_class[20].train // 4).any()


@pytest.mark.parametrize(("n_train", "n_valid"), [(0, 0), (-1, 0), (10, 0), (5, 5), (5, -1)])
def test_impossible_sizes(n_train, n_valid):
    with pytest.raises(ValueError, match=f"n_train={n_train} and n_valid={n_valid}"):
        index_split(torch.arange(10), n_train, n_valid)


def test_budgets_must_be_positive():
    with pytest.raises(ValueError, match="at least one"):
        budget_splits(torch.arange(10), [])
    with pytest.raises(ValueError, match="positive"):
        budget_splits(torch.arange(10), [0, 5])


def test_numbers_are_whole_and_seeds_fit():
    with pytest.raises(ValueError, match=r"n_train must be a whole number, got 1\.5"):
        index_split(torch.arange(9), 1.5)
    with pytest.raises(ValueError, match="a seed must be"):
        index_split(torch.arange(9), 2, seed=2**64)
