from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.datasets import FeatureSets
from pyg_nas_np.utils import InvalidFeaturesError


@given(
    st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=4),
    st.data(),
)
@settings(max_examples=30, deadline=None)
def test_selecting_data_sets_is_joining_them_in_that_order(tasks: list[list[int]], data: st.DataObject) -> None:
    given_ = [[torch.randn(n, 3) for n in task] for task in tasks]
    chosen = data.draw(st.lists(st.integers(0, len(tasks) - 1), min_size=1, max_size=5))
    selected = FeatureSets.from_tasks(given_)[chosen]
    expected = FeatureSets.from_tasks([given_[i] for i in chosen])
    assert torch.equal(selected.features, expected.features)
    assert torch.equal(selected.class_ptr, expected.class_ptr)
    assert torch.equal(selected.task_ptr, expected.task_ptr)


def test_prototypes_are_class_means() -> None:
    first, second = torch.randn(3, 2), torch.randn(1, 2)
    prototypes = FeatureSets.from_tasks([[first], [second]]).prototypes()
    torch.testing.assert_close(prototypes.features, torch.stack([first.mean(dim=0), second[0]]))
    assert prototypes.class_ptr.tolist() == [0, 1, 2]
    assert len(prototypes) == 2


def test_bad_sets_are_named() -> None:
    rows, ptr = torch.zeros(3, 2), torch.tensor([0, 3])
    one = torch.tensor([0, 1])
    for features, class_ptr, task_ptr, message in [
        (torch.zeros(3), ptr, one, r"features must have shape \[N, F\], got \[3\]"),
        (rows, torch.tensor([0, 2]), one, "class_ptr must run from 0 to 3, got 0 to 2"),
        (rows, torch.tensor([0, 3, 3]), torch.tensor([0, 2]), "class 1 is empty"),
        (rows, ptr, torch.tensor([0, 1, 1]), "data set 1 is empty"),
        (rows, ptr.float(), one, "class_ptr must be a vector of at least two integers"),
        (rows.index_fill(0, torch.tensor([1]), torch.nan), ptr, one, "row 1 of features"),
    ]:
        with pytest.raises(InvalidFeaturesError, match=message):
            FeatureSets(features, class_ptr, task_ptr)
    with pytest.raises(InvalidFeaturesError, match="there is no class"):
        FeatureSets.from_tasks([])
    with pytest.raises(InvalidFeaturesError, match=r"class 1 must have shape \[n, 2\]"):
        FeatureSets.from_tasks([[rows, torch.zeros(3, 4)]])
    with pytest.raises(InvalidFeaturesError, match="data set 1 is empty"):
        FeatureSets.from_tasks([[rows], []])
    with pytest.raises(IndexError, match="index must name some of 1 data sets"):
        FeatureSets(rows, ptr, one)[1]
