from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_nas_np.nn.set_transformer import ISAB, MAB, PMA, SAB, pad_sets

sizes = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def ragged(sizes: list[int], channels: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    return torch.randn(int(ptr[-1]), channels, generator=torch.Generator().manual_seed(seed)), ptr


def shuffled(ptr: Tensor, seed: int) -> Tensor:
    """A permutation that keeps every member in its set."""
    generator = torch.Generator().manual_seed(seed)
    starts = zip(ptr[:-1].tolist(), ptr.diff().tolist(), strict=True)
    return torch.cat([start + torch.randperm(size, generator=generator) for start, size in starts])


@given(sizes, st.integers(0, 99))
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("block", [SAB(5, 8), ISAB(5, 8, num_points=3)])
def test_attention_follows_the_order_of_the_members(block: SAB | ISAB, sizes: list[int], seed: int) -> None:
    x, ptr = ragged(sizes, 5)
    order = shuffled(ptr, seed)
    torch.testing.assert_close(block(x[order], ptr), block(x, ptr)[order])


@given(sizes, st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_pooling_ignores_the_order_of_the_members(sizes: list[int], seed: int) -> None:
    pool = PMA(8, num_seeds=2)
    x, ptr = ragged(sizes, 8)
    torch.testing.assert_close(pool(x[shuffled(ptr, seed)], ptr), pool(x, ptr))


@given(sizes)
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("block", [SAB(8, 8), ISAB(8, 8, num_points=3), PMA(8)])
def test_sets_do_not_see_each_other(block: SAB | ISAB | PMA, sizes: list[int]) -> None:
    x, ptr = ragged(sizes, 8)
    together = block(x, ptr)
    alone = [block(part, torch.tensor([0, part.size(0)])) for part in x.split(sizes)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_attention_is_the_formula_of_the_paper() -> None:
    block = MAB(3, 4, 6, heads=2).double()
    query, key = torch.randn(2, 3).double(), torch.randn(5, 4).double()
    q, k, v = block.query(query), block.key(key), block.value(key)
    parts = []
    for head in (slice(0, 3), slice(3, 6)):
        weights = (q[:, head] @ k[:, head].T / math.sqrt(6)).softmax(dim=1)
        parts.append(q[:, head] + weights @ v[:, head])
    o = torch.cat(parts, dim=1)
    expected = o + block.out(o).relu()
    torch.testing.assert_close(block(query, key, torch.tensor([0, 2]), torch.tensor([0, 5])), expected)


def test_gradients_are_exact() -> None:
    block = SAB(2, 4, heads=2).double()
    x, ptr = ragged([1, 3], 2)
    assert torch.autograd.gradcheck(lambda x: block(x, ptr), x.double().requires_grad_())


def test_reset_draws_new_weights() -> None:
    for block in (MAB(4, 4, 4), SAB(4, 4), ISAB(4, 4), PMA(4)):
        before = [parameter.clone() for parameter in block.parameters()]
        block.reset_parameters()
        assert all(not torch.equal(a, b) for a, b in zip(before, block.parameters(), strict=True))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="heads must divide channels=6, got 4"):
        MAB(3, 3, 6, heads=4)


@pytest.mark.parametrize("ptr", [[0, 2, 2, 3], [0, 2], [1, 3], [0]])
def test_pointers_must_fit(ptr: list[int]) -> None:
    with pytest.raises(ValueError, match="ptr must rise strictly from 0 to the 3 members"):
        pad_sets(torch.zeros(3, 1), torch.tensor(ptr))
