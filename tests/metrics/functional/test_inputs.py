from __future__ import annotations

import pytest
import torch

from pyg_nas_np.metrics.functional.inputs import check_finite, check_gaussian, check_vectors, resolve_k, result_dtype
from pyg_nas_np.utils import InvalidLabelsError

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("preds", "target", "message"),
    [
        (torch.zeros(3), torch.zeros(4), r"preds \[3\], target \[4\]"),
        (torch.zeros(3, 1), torch.zeros(3, 1), r"vectors of one length, got preds \[3, 1\]"),
        (torch.tensor(1.0), torch.tensor(1.0), "vectors of one length"),
        (torch.zeros(1), torch.zeros(1), "at least 2 values"),
        (torch.tensor([1.0, NAN, NAN]), torch.zeros(3), r"preds is NaN at position 1 \(2 of 3\)"),
        (torch.zeros(3), torch.tensor([1.0, 2.0, NAN]), "target is NaN at position 2"),
    ],
)
def test_vectors(preds, target, message):
    with pytest.raises(InvalidLabelsError, match=message):
        check_vectors(minimum=2, preds=preds, target=target)


def test_valid_vectors_pass():
    check_vectors(minimum=2, preds=torch.tensor([1, 2]), target=torch.tensor([INF, 0.0]))
    check_finite(target=torch.tensor([1.0]))


def test_infinite():
    with pytest.raises(InvalidLabelsError, match=r"target is infinite at position \[1\]"):
        check_finite(target=torch.tensor([1.0, -INF]))


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_standard_deviation_must_be_positive(bad):
    with pytest.raises(InvalidLabelsError, match=f"std must be positive, got {bad} at position 1"):
        check_gaussian(torch.zeros(2), torch.tensor([1.0, bad]), torch.zeros(2))


@pytest.mark.parametrize(("k", "count", "expected"), [(1, 5, 1), (5, 5, 5), (0.01, 20, 1), (0.5, 7, 4), (1.0, 7, 7)])
def test_k(k, count, expected):
    assert resolve_k(k, count) == expected


@pytest.mark.parametrize("k", [0, 6, -1, 0.0, 1.5, -0.1, True, "3", NAN])
def test_k_out_of_range(k):
    with pytest.raises(ValueError, match="k must be an int from 1 to 5"):
        resolve_k(k, 5)


def test_result_dtype():
    assert result_dtype(torch.zeros(1), torch.zeros(1, dtype=torch.float64)) == torch.float64
    assert result_dtype(torch.zeros(1, dtype=torch.float16), torch.zeros(1, dtype=torch.long)) == torch.float32
