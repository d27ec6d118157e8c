from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.features import RandomNetworks, random_networks, shared_networks
from pyg_nas_np.features.dag import INPUT, OUTPUT, live_part, topological
from pyg_nas_np.features.random_networks import draw_weights, evaluate_networks, shared_states
from pyg_nas_np.spaces.dense import DenseGraphs

CONV, POOL, SAME, ZERO = 2, 3, 4, 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(space, **kwargs) -> RandomNetworks:
    return RandomNetworks(space, **({"num_functions": 32, "rank": 12} | kwargs))


@pytest.fixture(scope="module")
def averaging_space(toy_space):
    """The toy space, its pooling known to average."""
    return type("Averaging", (type(toy_space),), {"averaging_ops": ("pool",)})()


@st.composite
def renumbered_cells(draw):
    """A random acyclic graph, dead parts included, in an order that is not topological."""
    size = draw(st.integers(2, 6))
    bits = draw(st.lists(st.booleans(), min_size=size * size, max_size=size * size))
    inner = draw(st.lists(st.sampled_from([CONV, POOL, SAME, ZERO]), min_size=size - 2, max_size=size - 2))
    order = torch.tensor(draw(st.permutations(range(size))))
    adjacency = torch.tensor(bits).view(size, size).triu(1)
    ops = torch.tensor([INPUT, *inner, OUTPUT])
    return DenseGraphs(adjacency[order][:, order].unsqueeze(0), ops[order].unsqueeze(0), torch.tensor([size]))


def evaluate_plainly(graphs: DenseGraphs, weights, network: int, linear_ops: list[int]) -> torch.Tensor:
    """One network on one cell, by recursion from the output along the edges as they are."""
    adjacency, ops = graphs.adjacency[0], graphs.ops[0]
    per_block = weights.out.size(2)
    width, hidden = weights.start.size(2) // per_block, weights.out.size(1) // per_block
    block, place = divmod(network, per_block)
    own, read = slice(place * width, (place + 1) * width), slice(place * hidden, (place + 1) * hidden)

    def received(v: int) -> torch.Tensor:
        sources = adjacency[:, v].nonzero().flatten().tolist()
        return sum((state(u) for u in sources), torch.zeros(width))

    def state(v: int) -> torch.Tensor:
        op = int(ops[v])
        if op == INPUT:
            return weights.start[block, 0, own]
        if op == ZERO:
            return torch.zeros(width)
        out = received(v) @ weights.ops[op, block, own, own]
        return out if op in linear_ops else out.relu()

    end = int((ops == OUTPUT).nonzero()[0])
    units = torch.tanh(received(end) @ weights.hidden[block, own, read] + weights.bias[block, 0, read])
    return units @ weights.out[block, read, place]


@given(graphs=renumbered_cells(), width=st.sampled_from([1, 3, 20]))
@settings(max_examples=60)
def test_networks_equal_plain_recursion_on_any_numbering(averaging_space, graphs, width):
    weights = draw_weights(averaging_space, 3, width, generator(1))
    linear = [SAME, POOL]
    values = evaluate_networks(live_part(topological(graphs), [ZERO]), weights, linear)
    expected = [evaluate_plainly(graphs, weights, k, linear) for k in range(values.size(1))]
    torch.testing.assert_close(values[0], torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_nodes_share_a_state_if_they_apply_one_operation_to_the_same_states(toy_space):
    live = live_part(topological(toy_space.dense()), [ZERO])
    adjacency, ops = live.adjacency, live.ops

    def expression(cell: int, v: int) -> tuple:
        sources = adjacency[cell, :, v].nonzero().flatten().tolist()
        return int(ops[cell, v]), *sorted(expression(cell, u) for u in sources)

    state, cells = shared_states(live)
    start = 0
    for v, new in enumerate(cells):
        # Padding and output nodes, whose states nobody reads, are one.
        written = [expression(i, v) if ops[i, v] not in (-1, OUTPUT) else None for i in range(len(ops))]
        numbers = {}
        for number, text in zip(state[:, v].tolist(), written, strict=True):
            assert numbers.setdefault(text, number) == number
        assert sorted(numbers.values()) == list(range(start, start + len(new)))
        assert state[new, v].tolist() == list(range(start, start + len(new)))
        start += len(new)
    assert start < ops.numel() / 4


def test_related_operations_share_weights_and_averaging_ones_are_close_to_the_identity(averaging_space):
    weights = draw_weights(averaging_space, 400, 4, generator(), spread=0.0)
    blocks = weights.ops.view(6, -1, 12, 4, 12, 4).diagonal(dim1=2, dim2=4)  # [ops, G, 4, 4, k]
    flat = blocks.permute(0, 1, 4, 2, 3).reshape(6, -1, 16)
    eye = torch.eye(4).flatten()
    assert torch.equal(flat[SAME], eye.expand_as(flat[SAME]))
    assert float((flat[POOL].mean(dim=0) - 0.7 * eye).abs().max()) < 0.05
    # A gain of .7 on He's variance.
    assert float(flat[CONV].std()) == pytest.approx(0.7 * (2 / 4) ** 0.5, rel=0.05)
    # Without roles, pooling is one more weighted operation.
    plain = draw_weights(type(averaging_space).__mro__[1](), 400, 4, generator(), spread=0.0)
    pairs = torch.stack([plain.ops[op][plain.ops[op] != 0] for op in (CONV, POOL)])
    assert float(torch.corrcoef(pairs)[0, 1]) == pytest.approx(0.85, abs=0.03)


@given(seed=st.integers(0, 1000))
@settings(max_examples=5)
def test_renumbered_cells_have_the_same_coordinates(toy_space, seed):
    class Renumbered(type(toy_space)):
        def dense(self, archs=None):
            adjacency, ops, num_nodes = super().dense(archs)
            order = torch.randperm(4, generator=generator(seed))
            return DenseGraphs(adjacency[:, order][:, :, order], ops[:, order], num_nodes)

    expected, found = small(toy_space).table(), small(Renumbered()).table()
    torch.testing.assert_close(found @ found.t(), expected @ expected.t(), rtol=1e-3, atol=1e-4)


def test_cells_with_equal_live_parts_have_equal_rows(toy_space):
    live = live_part(topological(toy_space.dense()), [ZERO])
    keys = torch.cat([live.adjacency.flatten(1).long(), live.ops], dim=1)
    groups, owner = keys.unique(dim=0, return_inverse=True)
    assert groups.size(0) < 128
    table = small(toy_space).table()
    first = torch.stack([table[owner == g][0] for g in range(groups.size(0))])
    torch.testing.assert_close(table, first[owner], rtol=1e-5, atol=1e-6)
    # Cells that compute something else lie elsewhere; that an identity changes nothing, the networks know too.
    assert groups.size(0) / 2 < first.round(decimals=3).unique(dim=0).size(0) < groups.size(0)


def test_a_cell_without_a_live_path_gives_what_the_output_makes_of_nothing(toy_space):
    weights = draw_weights(toy_space, 16, 3, generator())
    dead = toy_space.index(("zero", "zero", 0))
    graphs = live_part(topological(toy_space.dense(torch.tensor([dead]))), [ZERO])
    values = evaluate_networks(graphs, weights, [SAME])
    units = weights.bias.tanh()
    torch.testing.assert_close(values[0], torch.bmm(units, weights.out).flatten())
    assert small(toy_space).table(torch.tensor([dead])).isfinite().all()


def test_coordinates_span_the_standardised_values_of_the_networks(toy_space):
    networks = small(toy_space, rank=1000)
    table = networks.table()
    values = networks._values(torch.arange(128), networks._basis.weights).double()
    scaled = (values - values.mean(dim=0)) / values.std(dim=0)
    expected = scaled @ scaled.t() / scaled.square().sum(dim=1).mean()
    torch.testing.assert_close((table @ table.t()).double(), expected, rtol=1e-3, atol=1e-4)
    assert float(table.mean(dim=0).abs().max()) < 1e-5
    assert float(table.square().sum(dim=1).mean()) == pytest.approx(1, rel=1e-4)
    # The leading axes carry most: a small rank keeps them, in the same order.
    spread = table.var(dim=0)
    assert bool((spread.diff() <= 1e-6).all())
    few = small(toy_space, rank=3).table()
    share = (spread[:3].sum() / spread.sum()).sqrt()
    torch.testing.assert_close(few * share, table[:, :3], rtol=1e-3, atol=1e-4)


def test_networks_are_seeded(toy_space):
    table = small(toy_space, seed=3).table()
    assert torch.equal(table, small(toy_space, seed=3).table())
    assert not torch.allclose(table, small(toy_space, seed=4).table())
    state = torch.get_rng_state()
    small(toy_space).table()
    assert torch.equal(torch.get_rng_state(), state)


def test_chunks_do_not_change_coordinates(toy_space, monkeypatch):
    whole = small(toy_space, widths=(3, 5)).table()
    monkeypatch.setattr(random_networks, "CHUNK", 7)
    monkeypatch.setattr(random_networks, "ROWS", 3)
    torch.testing.assert_close(small(toy_space, widths=(3, 5)).table(), whole, rtol=1e-4, atol=1e-5)


def test_rows_in_any_form(toy_space):
    rows = torch.tensor([5, 3, 3, 127])
    networks = small(toy_space)
    few = networks.table(rows)  # computed on its own
    assert few.shape == (4, networks.num_coordinates)
    torch.testing.assert_close(networks.table([toy_space[int(i)] for i in rows]), few)
    torch.testing.assert_close(networks.table()[rows], few, rtol=1e-4, atol=1e-5)
    half = torch.arange(127, 63, -1)
    assert torch.equal(networks.table(half), networks.table()[half])  # looked up
    assert torch.equal(networks.table(), networks.table())
    assert small(toy_space).table([]).shape == (0, networks.num_coordinates)


def test_what_was_asked_for_before_has_no_say(toy_space):
    """Coordinates depend in their last bit on what is computed beside them: the same question has the same answer."""
    rows = torch.tensor([3, 17, 64])
    networks = small(toy_space)
    fresh = networks.table(rows)
    networks.table()
    networks.table(torch.arange(40))
    assert torch.equal(networks.table(rows), fresh)  # the same code on the same rows


def test_unknown_architectures_are_refused(toy_space):
    with pytest.raises(IndexError, match="128"):
        small(toy_space).table(torch.tensor([3, 128]))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_functions": 1, "widths": (2, 3)},
        {"num_functions": 0},
        {"rank": 0},
        {"widths": ()},
        {"widths": (3, 0)},
    ],
)
def test_impossible_sizes(toy_space, kwargs):
    with pytest.raises(ValueError, match="must reach the number of widths"):
        small(toy_space, **kwargs)


def test_one_table_a_space(toy_space):
    assert shared_networks(toy_space) is shared_networks(toy_space)
    assert "num_functions=32, widths=(3,)" in repr(small(toy_space))
