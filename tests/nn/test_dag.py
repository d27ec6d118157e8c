from __future__ import annotations

import pytest
import torch

from pyg_nas_np.nn.dag import DAGDecoder, DAGEncoder
from pyg_nas_np.spaces.dense import DenseGraphs
from pyg_nas_np.spaces.graph_codec import MobileNetV3GraphCodec, NASBench201GraphCodec, is_flow_graph

FORM = NASBench201GraphCodec()


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def encode_by_hand(encoder, graphs, i):
    """One graph, one vertex at a time, as the paper states it."""
    adjacency, ops, count = graphs.adjacency[i], graphs.ops[i], int(graphs.num_nodes[i])
    ends = []
    for direction, order in enumerate((range(count), range(count - 1, -1, -1))):
        states = {}
        for v in order:
            sources = [u for u in states if (adjacency[u, v] if direction == 0 else adjacency[v, u])]
            h = torch.zeros(1, encoder.channels)
            for u in sources:
                number = torch.zeros(1, encoder.num_vertices)
                number[0, u] = 1.0
                joined = torch.cat([states[u], number], dim=1)
                module = encoder.messages[direction]
                h = h + torch.sigmoid(module.gate(joined)) * module.mapper(joined)
            x = torch.zeros(1, encoder.num_types)
            x[0, ops[v]] = 1.0
            states[v] = encoder.units[direction](x, h)
        ends.append(states[count - 1 if direction == 0 else 0])
    return encoder.join(torch.cat(ends, dim=1))[0]


def random_graphs(count, size, draw):
    """DAGs of different sizes."""
    num_nodes = torch.randint(2, size + 1, (count,), generator=draw)
    real = torch.arange(size) < num_nodes.unsqueeze(1)
    adjacency = (torch.rand(count, size, size, generator=draw) < 0.5).triu(1) & real.unsqueeze(1) & real.unsqueeze(2)
    ops = torch.randint(0, 5, (count, size), generator=draw).masked_fill(~real, -1)
    return DenseGraphs(adjacency, ops, num_nodes)


class TestEncoder:
    def test_equals_the_definition_on_graphs_of_any_size(self):
        graphs = random_graphs(12, 6, torch.Generator().manual_seed(0))
        encoder = seeded(lambda: DAGEncoder(5, 6, channels=8, out_channels=3))
        expected = torch.stack([encode_by_hand(encoder, graphs, i) for i in range(12)])
        torch.testing.assert_close(encoder(graphs), expected)

    def test_does_not_mix_graphs(self):
        encoder = seeded(lambda: DAGEncoder(7, 8, channels=8))
        graphs = FORM.graphs(torch.arange(5))
        torch.testing.assert_close(encoder(graphs)[3:4], encoder(graphs.select(torch.tensor([3]))))

    def test_tells_operations_and_edges_apart(self):
        encoder = seeded(lambda: DAGEncoder(7, 8, channels=8))
        assert encoder(FORM.graphs(torch.arange(300))).unique(dim=0).size(0) == 300

    def test_gradients_reach_every_weight(self):
        encoder = seeded(lambda: DAGEncoder(7, 8, channels=8))
        encoder(FORM.graphs(torch.arange(5))).square().sum().backward()
        assert all(bool(p.grad.abs().sum() > 0) for p in encoder.parameters())

    def test_reset_parameters_draws_others(self):
        encoder = seeded(lambda: DAGEncoder(7, 8, channels=8))
        graphs = FORM.graphs(torch.arange(2))
        before = encoder(graphs)
        encoder.reset_parameters()
        assert not torch.allclose(before, encoder(graphs))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"ops": torch.full((1, 8), 7)}, "type 7"),
            ({"adjacency": torch.ones(1, 8, 8, dtype=torch.bool)}, "leads back"),
        ],
    )
    def test_refuses_other_graphs(self, change, message):
        encoder = DAGEncoder(7, 8, channels=4)
        with pytest.raises(ValueError, match=message):
            encoder(FORM.graphs(torch.tensor([0]))._replace(**change))

    def test_refuses_larger_graphs(self):
        with pytest.raises(ValueError, match="built for 4 vertices"):
            DAGEncoder(7, 4)(FORM.graphs(torch.tensor([0])))


@pytest.fixture(scope="module")
def decoder():
    return seeded(lambda: DAGDecoder(FORM, in_channels=4, channels=12))


class TestDecoder:
    @torch.no_grad()
    def test_probabilities_of_the_space_sum_to_one(self, decoder):
        log_prob = decoder.log_prob(torch.ones(15625, 4), FORM.types(), temperature=0.5)
        assert float(log_prob.double().exp().sum()) == pytest.approx(1, abs=1e-4)

    @torch.no_grad()
    def test_samples_follow_the_probabilities(self, decoder):
        draw = torch.Generator().manual_seed(0)
        types = decoder.sample(torch.ones(20000, 4), temperature=0.05, generator=draw)
        assert bool(FORM.obeys(types).all())
        kinds, counts = types.unique(dim=0, return_counts=True)
        expected = decoder.log_prob(torch.ones(kinds.size(0), 4), kinds, temperature=0.05).exp()
        often = counts > 200
        assert int(often.sum()) > 3
        torch.testing.assert_close(counts[often] / 20000, expected[often], rtol=0.25, atol=0.005)

    def test_distinct_samples_carry_their_probability(self, decoder):
        draw = torch.Generator().manual_seed(0)
        types, log_prob = decoder.sample_distinct(torch.ones(4), 700, 2.0, draw)
        assert types.unique(dim=0).size(0) == 700
        assert bool(FORM.obeys(types).all())
        with torch.no_grad():
            expected = decoder.log_prob(torch.ones(700, 4), types, 2.0).double()
        torch.testing.assert_close(log_prob, expected, atol=1e-4, rtol=1e-4)

    def test_the_first_distinct_sample_follows_the_probabilities(self, decoder):
        """Sampling without replacement starts like any sampling; the second draw leaves the first one out."""
        draw = torch.Generator().manual_seed(1)
        pairs = torch.stack([decoder.sample_distinct(torch.ones(4), 2, 0.05, draw).types for _ in range(300)])
        with torch.no_grad():
            kinds, counts = pairs[:, 0].unique(dim=0, return_counts=True)
            p = decoder.log_prob(torch.ones(kinds.size(0), 4), kinds, 0.05).exp()
        top = int(counts.argmax())
        assert float(counts[top]) / 300 == pytest.approx(float(p[top]), abs=0.1)
        # P(second = top) = sum over first ≠ top of p(first) * p(top) / (1 - p(first)).
        second = (pairs[:, 1] == kinds[top]).all(dim=1).float().mean()
        others = torch.arange(kinds.size(0)) != top
        expected = (p[others] * p[top] / (1 - p[others])).sum()
        assert float(second) == pytest.approx(float(expected), abs=0.1)

    def test_distinct_samples_end_with_the_space(self, decoder):
        assert decoder.sample_distinct(torch.ones(4), 20000).types.unique(dim=0).size(0) == 15625

    def test_large_spaces(self):
        codec = MobileNetV3GraphCodec()
        decoder = seeded(lambda: DAGDecoder(codec, in_channels=4, channels=8))
        types = decoder.sample_distinct(torch.ones(4), 50, generator=torch.Generator().manual_seed(0)).types
        assert len(set(codec.archs(types))) == 50
        assert bool(codec.obeys(decoder.sample(torch.ones(20, 4))).all())

    def test_learns_one_graph_with_its_edges(self):
        decoder = seeded(lambda: DAGDecoder(FORM, in_channels=4, channels=16))
        types, z = FORM.types(torch.tensor([6111])).expand(4, -1), torch.ones(4, 4)
        optimizer = torch.optim.Adam(decoder.parameters(), 1e-2)
        first = float(decoder.loss(z, types).mean().detach())
        for _ in range(100):
            optimizer.zero_grad()
            loss = decoder.loss(z, types).mean()
            loss.backward()
            optimizer.step()
        assert float(loss.detach()) < 0.05 * first
        draw = torch.Generator().manual_seed(0)
        assert bool((decoder.sample(torch.ones(20, 4), generator=draw) == types[0]).all(dim=1).float().mean() > 0.8)
        free = decoder.sample_free(torch.ones(50, 4), generator=draw)
        assert float(is_flow_graph(free).float().mean()) > 0.8
        assert float(FORM.contains(free).float().mean()) > 0.8
        torch.testing.assert_close(free.adjacency[FORM.contains(free)][0], FORM.adjacency)

    def test_free_graphs_end_where_nothing_follows(self, decoder):
        graphs = decoder.sample_free(torch.ones(200, 4), generator=torch.Generator().manual_seed(0))
        assert bool((graphs.ops[:, -1] == 1).all())
        assert bool(graphs.adjacency[:, :-1].any(dim=2).all())
        assert not bool(graphs.adjacency.tril().any())

    def test_seeds_decide(self, decoder):
        runs = [decoder.sample(torch.ones(9, 4), generator=torch.Generator().manual_seed(3)) for _ in range(2)]
        assert torch.equal(*runs)

    @pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
    def test_refuses_a_temperature(self, decoder, temperature):
        for call in (decoder.sample, decoder.sample_free):
            with pytest.raises(ValueError, match="temperature"):
                call(torch.ones(1, 4), temperature)

    def test_refuses_other_latents(self, decoder):
        with pytest.raises(ValueError, match=r"\[num_graphs, 4\]"):
            decoder.sample(torch.ones(2, 5))
        with pytest.raises(ValueError, match="one vector"):
            decoder.sample_distinct(torch.ones(2, 4), 3)
        with pytest.raises(ValueError, match="at least 1"):
            decoder.sample_distinct(torch.ones(4), 0)
