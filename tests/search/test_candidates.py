from __future__ import annotations

import pytest
import torch

from pyg_nas_np.search.candidates import Candidates
from pyg_nas_np.spaces import Integer, NASBench201Space, OperationGraph, ParameterSpace, SampledGraphSpace


def test_keys_are_indices_where_there_are_some() -> None:
    space = NASBench201Space()
    pool = Candidates(space, torch.tensor([5, 3, 3]))
    assert pool._keys([space[5]]) == [5]
    assert pool._size == 2
    assert set(pool._random(9, set())) == {3, 5}


def test_small_spaces_without_an_index_are_listed() -> None:
    pool = Candidates(ParameterSpace(a=Integer(1, 3), b=Integer(1, 2)))
    assert pool._size == 6
    written = pool._written(pool._random(2, set()))
    assert pool._written(pool._read(written)) == written


def test_no_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match="candidates is empty; give at least one"):
        Candidates(NASBench201Space(), [])


def test_a_space_that_is_used_up_is_left_alone() -> None:
    drawn: list[int] = []

    def draw(generator: torch.Generator) -> OperationGraph:
        drawn.append(int(torch.randint(8, (), generator=generator)))
        return OperationGraph.of([("input", {}), ("linear", {"width": drawn[-1]}), ("output", {})], [(0, 1), (1, 2)])

    pool = Candidates(SampledGraphSpace(draw))
    drawn.clear()
    assert len(pool._random(2000, set())) == 8
    assert len(drawn) < 5000
