from __future__ import annotations

import pytest
import torch

from pyg_nas_np.metad2a.database import FeatureSets
from pyg_nas_np.metad2a.generator import MetaD2AGenerator
from pyg_nas_np.spaces.graph_codec import MobileNetV3GraphCodec, NASBench201GraphCodec, is_flow_graph

FORM = NASBench201GraphCodec()


def data_set(seed, classes=3):
    draw = torch.Generator().manual_seed(seed)
    return FeatureSets.from_datasets([[torch.randn(2 + i, 16, generator=draw) for i in range(classes)]])


@pytest.fixture(scope="module")
def generator():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MetaD2AGenerator(FORM, 16, hidden_channels=8)


def test_generates_distinct_cells(generator):
    cells = generator.generate(data_set(0), 400, generator=torch.Generator().manual_seed(0))
    assert len(set(cells)) == 400
    again = generator.generate(data_set(0), 400, generator=torch.Generator().manual_seed(0))
    assert cells == again


@pytest.mark.parametrize("limits", [{"parameters": 2e5}, {"flops": 3e7}, {"parameters": 1e6, "flops": 3e7}])
def test_keeps_the_limits(generator, limits):
    cells = generator.generate(data_set(0), 100, limits=limits, generator=torch.Generator().manual_seed(0))
    assert len(set(cells)) == 100
    costs = {"parameters": FORM.space.batch_num_parameters(cells), "flops": FORM.space.batch_flops(cells)}
    assert all(bool((costs[name] <= limit).all()) for name, limit in limits.items())


def test_limits_that_few_or_no_cells_keep(generator):
    # Only cells without any convolution: 3^6.
    assert len(generator.generate(data_set(0), 1000, limits={"parameters": 73306})) == 3**6
    assert generator.generate(data_set(0), 10, limits={"parameters": 1.0}) == []


def test_other_costs_filter(generator):
    def convolutions(archs):
        return torch.tensor([sum("conv" in op for op in arch.ops) for arch in archs])

    cells = generator.generate(data_set(0), 50, limits={"convolutions": 2}, costs={"convolutions": convolutions})
    assert len(cells) == 50
    assert int(convolutions(cells).max()) == 2


@pytest.mark.parametrize(("limits", "message"), [({"energy": 1.0}, "'energy'"), ({"flops": 0.0}, "must be positive")])
def test_refuses_limits(generator, limits, message):
    with pytest.raises(ValueError, match=message):
        generator.generate(data_set(0), 5, limits=limits)


def test_refuses_several_data_sets(generator):
    two = FeatureSets.from_datasets([[torch.zeros(1, 16)], [torch.ones(1, 16)]])
    with pytest.raises(ValueError, match="one data set at a time, got 2"):
        generator.generate(two, 5)


def test_positions_run_over_the_space(generator):
    low, high = FORM.space.batch_flops().aminmax()
    place = generator.positions({"flops": torch.stack([low, high])})
    torch.testing.assert_close(place, torch.tensor([[1.0, 0.0], [1.0, 1.0]]), atol=1e-5, rtol=0)


def test_learns_which_cells_suit_which_data_set():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MetaD2AGenerator(FORM, 16, hidden_channels=16)
    sets = [data_set(0), data_set(1)]
    types = FORM.types(torch.tensor([6111, 12]))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    draw = torch.Generator().manual_seed(0)
    for _ in range(100):
        v = torch.cat([model.set_encoder(s.features, s.class_ptr, s.dataset_ptr) for s in sets])
        loss = model.loss(v, types, generator=draw)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    for own, one in enumerate(sets):
        p = model.log_prob(one, types[own : own + 1]).exp()
        assert float(p) > 0.5
        assert model.codec.types(model.generate(one, 1, generator=draw)).tolist() == types[own : own + 1].tolist()


def test_loss_parts(generator):
    v, types = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), FORM.types(torch.arange(4))
    loss = generator.loss(v, types, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss.total, loss.reconstruction + 0.005 * loss.divergence)
    weight = torch.tensor([1.0, 0.0, 0.0, 0.0])
    one = generator.loss(v, types, weight=weight, generator=torch.Generator().manual_seed(0))
    mean, log_variance = generator.code(v[:1])
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_variance).exp()),
        torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean)),
    ).sum()
    torch.testing.assert_close(one.divergence, kl)


def test_graphs_of_both_modes(generator):
    draw = torch.Generator().manual_seed(0)
    bound = generator.generate_graphs(data_set(0), 30, generator=draw)
    assert bool(FORM.contains(bound).all())
    free = generator.generate_graphs(data_set(0), 300, constrained=False, generator=draw)
    assert free.ops.shape == (300, 8)
    assert 0 <= float(is_flow_graph(free).float().mean()) < 1


def test_mobilenetv3():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MetaD2AGenerator(MobileNetV3GraphCodec(), 16, hidden_channels=8)
    archs = model.generate(data_set(0), 40, limits={"flops": 4e8}, generator=torch.Generator().manual_seed(0))
    assert len(set(archs)) == 40
    assert int(model.codec.space.batch_flops(archs).max()) <= 4e8


def test_positions_of_a_space_that_cannot_be_listed():
    model = MetaD2AGenerator(MobileNetV3GraphCodec(), 16, hidden_channels=8)
    low, high = model.codec.extremes()
    place = model.positions({"flops": model.codec.space.batch_flops([low, high])})
    torch.testing.assert_close(place, torch.tensor([[1.0, 0.0], [1.0, 1.0]]), atol=1e-5, rtol=0)


def test_constrained_loss_is_the_likelihood_of_generation():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MetaD2AGenerator(MobileNetV3GraphCodec(), 16, hidden_channels=8, noise=0.0)
    types = model.codec.types(model.codec.space.sample(3, torch.Generator().manual_seed(0)))
    v = model.set_encoder(*[getattr(data_set(0), name) for name in ("features", "class_ptr", "dataset_ptr")])
    bound = model.loss(v.expand(3, -1), types, constrained=True)
    expected = -model.log_prob(data_set(0)[[0, 0, 0]], types)
    torch.testing.assert_close(bound.reconstruction, expected.mean())
    assert float(model.loss(v.expand(3, -1), types).reconstruction) > float(bound.reconstruction)


def test_reset_parameters_draws_others(generator):
    model = MetaD2AGenerator(FORM, 16, hidden_channels=8)
    before = model.encode(data_set(0))[0]
    model.reset_parameters()
    assert not torch.allclose(before, model.encode(data_set(0))[0])
