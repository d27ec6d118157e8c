"""Default methods of the protocol, on a space that this package does not know (``tests/conftest.py``)."""

from __future__ import annotations

import tracemalloc

import pytest
import torch

from pyg_nas_np.spaces import CellSpace, Validity
from pyg_nas_np.spaces.base import draw_indices
from pyg_nas_np.utils import InvalidArchitectureError


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# -- the set ----------------------------------------------------------------------------------------------------------


def test_incomplete_spaces_cannot_be_made():
    class Half(CellSpace[str]):
        def __len__(self):
            return 1

    with pytest.raises(TypeError, match="abstract"):
        Half()


def test_enumerate_follows_the_index(toy_space):
    cells = list(toy_space.enumerate())
    assert len(set(cells)) == len(toy_space) == len(cells)
    assert [toy_space.index(cell) for cell in cells] == list(range(128))
    # Python iterates over anything with __getitem__ until IndexError.
    assert list(toy_space) == cells


def test_repr_tells_class_and_size(toy_space):
    assert repr(toy_space) == "ToySpace(128)"


def test_membership_is_validity(toy_space):
    assert toy_space[5] in toy_space
    assert ("conv", "fly", 0) not in toy_space
    assert 5 not in toy_space
    assert None not in toy_space


def test_check_returns_the_architecture_or_says_what_is_wrong(toy_space):
    assert toy_space.check(toy_space[77]) == toy_space[77]
    message = r"\('conv', 'fly', 0\) is not a valid toy architecture: unknown operation 'fly'"
    with pytest.raises(InvalidArchitectureError, match=message):
        toy_space.check(("conv", "fly", 0))


def test_validity_is_its_truth_value():
    assert Validity(True)
    assert not Validity(False, "cyclic")
    assert Validity(False, "cyclic").reason == "cyclic"


# -- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 17, 128])
def test_samples_are_distinct_and_follow_the_generator(toy_space, n):
    index = toy_space.sample_indices(n, seeded(3))
    assert index.dtype == torch.long
    assert index.shape == (n,)
    assert index.unique().numel() == n
    assert toy_space.sample(n, seeded(3)) == [toy_space[i] for i in index.tolist()]


def test_samples_with_replacement_are_uniform(toy_space):
    index = toy_space.sample_indices(128 * 400, seeded(0), replace=True)
    counts = torch.bincount(index, minlength=128)
    # Chi-square with 127 degrees of freedom: mean 127, standard deviation 16.
    assert float(((counts - 400.0) ** 2 / 400).sum()) < 127 + 5 * 16
    assert len(toy_space.sample(300, seeded(0), replace=True)) == 300


@pytest.mark.parametrize("size", [128, 1 << 20])
def test_draws_from_tabulated_spaces_keep_their_values(size):
    # Published benchmark results name draws by their seed.
    expected = torch.randperm(size, generator=seeded(3))[:50].tolist()
    assert draw_indices(size, 50, seeded(3)) == expected


@pytest.mark.parametrize("size", [(1 << 20) + 1, 10**8, 2**48 + 1, 2**63 - 1, 2**64, 543966387314312146275])
def test_draws_from_huge_spaces_are_distinct_uniform_and_follow_the_generator(size):
    drawn = draw_indices(size, 4000, seeded(0))
    assert drawn == draw_indices(size, 4000, seeded(0))
    assert len(set(drawn)) == 4000
    counts = torch.bincount(torch.tensor([16 * index // size for index in drawn]), minlength=16)
    # Chi-square with 15 degrees of freedom: mean 15, standard deviation 5.5.
    assert counts.numel() == 16
    assert float(((counts - 250.0) ** 2 / 250).sum()) < 15 + 5 * 5.5


def test_most_of_a_large_space_can_be_drawn():
    size = (1 << 20) + 3
    for n in (size // 2 - 1, size):
        drawn = torch.tensor(draw_indices(size, n, seeded(0)))
        assert drawn.unique().numel() == n
        assert 0 <= int(drawn.min()) <= int(drawn.max()) < size


def test_few_architectures_of_a_huge_space_take_little_memory(toy_space):
    class Huge(type(toy_space)):
        def __len__(self):
            return 10**12

    tracemalloc.start()
    try:
        # A permutation would take eight terabytes, and its allocation fail.
        index = Huge().sample_indices(100, seeded(0))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert index.unique().numel() == 100
    assert int(index.max()) > 10**11


def test_an_explicit_generator_leaves_the_global_one_alone(toy_space):
    before = torch.get_rng_state()
    toy_space.sample(5, seeded(0))
    toy_space.sample(5, seeded(0), replace=True)
    toy_space.mutate(toy_space[0], seeded(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_impossible_sample_sizes(toy_space):
    with pytest.raises(ValueError, match="n must not be negative, got -1"):
        toy_space.sample(-1)
    with pytest.raises(ValueError, match="n=129 distinct architectures from a space of 128; pass replace=True"):
        toy_space.sample(129)


# -- editing ----------------------------------------------------------------------------------------------------------


def test_mutation_draws_every_neighbor_equally_often(toy_space):
    generator, arch = seeded(1), toy_space[42]
    drawn = [toy_space.mutate(arch, generator) for _ in range(600)]
    assert set(drawn) == set(toy_space.neighbors(arch))
    assert all(150 < drawn.count(neighbor) < 250 for neighbor in toy_space.neighbors(arch))
    assert toy_space.mutate(arch, seeded(1)) == drawn[0]


def test_crossover_is_refused_by_name_where_there_is_none(toy_space):
    with pytest.raises(NotImplementedError, match=r"ToySpace has no natural crossover; use mutate\(\)"):
        toy_space.crossover(toy_space[0], toy_space[1])


# -- many architectures -----------------------------------------------------------------------------------------------


def test_the_three_forms_of_many_architectures_agree(toy_space):
    index = torch.tensor([3, 3, 127, 0])
    cells = [toy_space[i] for i in index.tolist()]
    assert list(toy_space.resolve(index)) == cells
    assert list(toy_space.resolve(index.to(torch.uint8))) == cells
    assert toy_space.resolve(cells) is cells
    assert toy_space.resolve(None) == list(toy_space.enumerate())
    for method in (toy_space.batch_num_parameters, toy_space.batch_flops):
        assert torch.equal(method(index), method(cells))
        assert torch.equal(method(index), method()[index])
    assert (
        toy_space.batch_canonical(index) == toy_space.batch_canonical(cells) == [toy_space.canonical(c) for c in cells]
    )


def test_many_and_one_agree(toy_space):
    assert toy_space.batch_num_parameters().tolist() == [toy_space.num_parameters(c) for c in toy_space.enumerate()]
    assert toy_space.batch_flops().tolist() == [toy_space.flops(c) for c in toy_space.enumerate()]
    batch = toy_space.batch_encode()
    assert batch.num_graphs == 128
    for graph, cell in zip(batch.to_data_list(), toy_space.enumerate(), strict=True):
        alone = toy_space.encode(cell)
        assert torch.equal(graph.x, alone.x)
        assert torch.equal(graph.edge_index, alone.edge_index)


def test_no_architectures_at_all(toy_space):
    none = torch.empty(0, dtype=torch.long)
    assert list(toy_space.resolve(none)) == []
    assert toy_space.batch_encode(none).num_graphs == 0
    assert toy_space.batch_canonical(none) == []


def test_encode_is_one_hot_over_the_operation_names(toy_space):
    data = toy_space.encode(("conv", "zero", 0b101))
    assert data.x.argmax(dim=1).tolist() == [toy_space.op_names.index(op) for op in ("input", "conv", "zero", "output")]
    assert torch.equal(data.x.sum(dim=1), torch.ones(4))
    assert set(map(tuple, data.edge_index.t().tolist())) == {(0, 1), (1, 3), (2, 3), (0, 2), (0, 3)}


def test_indices_come_back_unchanged(toy_space):
    for index in (torch.tensor([0, 127, 5]), torch.empty(0, dtype=torch.long), torch.tensor([1], dtype=torch.int32)):
        assert toy_space.check_indices(index) is index


@pytest.mark.parametrize(
    ("index", "shown"),
    [
        (torch.tensor([1.0]), r"torch\.float32 \[1\]"),
        (torch.tensor([True, False]), r"torch\.bool \[2\]"),
        (torch.tensor([[1]]), r"torch\.int64 \[1, 1\]"),
        (torch.tensor(1), r"torch\.int64 \[\]"),
    ],
)
def test_indices_of_another_kind(toy_space, index, shown):
    with pytest.raises(TypeError, match=f"one-dimensional integer tensor, got {shown}"):
        toy_space.check_indices(index)
    with pytest.raises(TypeError):
        toy_space.batch_flops(index)


@pytest.mark.parametrize(("index", "first"), [([0, -1], -1), ([128], 128), ([5, 200, 300], 200)])
def test_indices_outside_the_space_are_named(toy_space, index, first):
    with pytest.raises(IndexError, match=f"index {first} is outside the 128 architectures of toy"):
        toy_space.resolve(torch.tensor(index))
