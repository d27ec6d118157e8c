from __future__ import annotations

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyg_nas_np.networks.cells import NASBench201Network
from pyg_nas_np.networks.zero_cost import (
    SCORES,
    count_patterns,
    naswot,
    regularised_swap,
    score_archs,
    swap,
    synflow,
)
from pyg_nas_np.spaces import NASBench101Space, NASBench201Space, NASBenchGraphSpace
from pyg_nas_np.utils import InvalidArchitectureError, InvalidImagesError

SPACE = NASBench201Space()
DEAD = SPACE.from_digits("333000")
IMAGES = torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(digits="323213"):
    torch.manual_seed(0)
    return NASBench201Network(SPACE.from_digits(digits), channels=3, num_cells=1)


def signs(network, images):
    """All values after ReLUs, by running the network with the modules replaced."""
    seen = []

    class Noting(nn.Module):
        def forward(self, x):
            seen.append((x > 0).flatten(1))
            return x.relu()

    network = copy.deepcopy(network).train()
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, Noting())
    with torch.no_grad():
        network(images)
    return torch.cat(seen, dim=1)


@given(st.integers(1, 140), st.integers(1, 60), st.integers(0, 100))
def test_patterns_are_counted_for_any_number_of_images(size, values, seed):
    few = torch.randint(0, 2, (size, 7), generator=seeded(seed)).bool()
    columns = few[:, torch.randint(7, (values,), generator=seeded(seed + 1))]
    expected = columns.unique(dim=1).size(1)
    assert count_patterns([columns]) == expected
    assert count_patterns([columns[:, : values // 2], columns[:, values // 2 :], columns[:, :1]]) == expected


def test_swap_counts_distinct_columns_after_relus():
    network, probe = small(), small()
    with torch.no_grad():
        generator = seeded(7)
        for module in probe.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.normal_(generator=generator)
    assert swap(network, IMAGES, generator=seeded(7)) == signs(probe, IMAGES).unique(dim=1).size(1)


def test_swap_averages_draws_and_leaves_the_network_alone():
    network = small()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    both = swap(network, IMAGES, repeats=2, generator=seeded(3))
    generator = seeded(3)
    singles = [swap(network, IMAGES, generator=generator) for _ in range(2)]
    assert both == pytest.approx(sum(singles) / 2)
    naswot(network, IMAGES)
    synflow(network, (3, 12, 12))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert network.training
    # Neither do the hooks stay, nor the gradients.
    assert not any(module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_swap_knows_no_labels_no_scale_and_its_limits():
    network = small()
    value = swap(network, IMAGES, generator=seeded())
    assert value <= 2 ** IMAGES.size(0)
    assert swap(network, IMAGES[torch.tensor([3, 1, 0, 2, 5, 4])], generator=seeded()) == pytest.approx(value, abs=2)
    # A dead cell leaves only what lies before the last stage's cell.
    assert swap(small("000000"), IMAGES, generator=seeded()) < value


def test_regularised_swap_is_the_formula():
    assert regularised_swap(50.0, 30_000, 40.0, 20.0) == pytest.approx(50 * math.exp(-100 / 20))
    assert regularised_swap(50.0, 30_000, 40.0, 20.0, log=True) == pytest.approx(math.log(50) - 5)
    assert regularised_swap(0.0, 30_000, 40.0, 20.0) == 0.0
    with pytest.raises(ValueError, match=r"width must be positive, got 0\.0"):
        regularised_swap(50.0, 1, 1.0, 0.0)
    with pytest.raises(ValueError, match=r"psi must be positive, got 0\.0"):
        regularised_swap(0.0, 1, 1.0, 1.0, log=True)
    with pytest.raises(ValueError, match="psi must be at least 0"):
        regularised_swap(-1.0, 1, 1.0, 1.0)


def test_naswot_is_the_determinant_of_agreements():
    network = small()
    pattern = signs(network, IMAGES)
    agree = (pattern[:, None] == pattern[None]).sum(-1).double() + torch.eye(len(IMAGES))
    assert naswot(network, IMAGES) == pytest.approx(torch.logdet(agree).item())


def test_equal_images_leave_naswot_finite():
    value = naswot(small(), IMAGES[:1].repeat(4, 1, 1, 1))
    assert math.isfinite(value)
    assert value < naswot(small(), IMAGES[:4])


def test_synflow_is_the_sum_over_paths():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    first, second = network[1].weight.detach().abs().double(), network[3].weight.detach().abs().double()
    flow = (second @ first).sum().item()
    # Each layer passes the whole flow.
    assert synflow(network, (1, 2, 2)) == pytest.approx(math.log1p(2 * flow), rel=1e-6)


def test_synflow_ignores_batch_norm_and_signs():
    network = small()
    value = synflow(network, (3, 12, 12))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.neg_()
    network.stem[1].running_var.fill_(100.0)
    assert synflow(network, (3, 12, 12)) == pytest.approx(value)
    assert math.isfinite(synflow(small("000000"), (3, 12, 12)))


def test_counts():
    network = NASBench201Network(SPACE[11])
    assert sum(p.numel() for p in network.parameters()) == SPACE.num_parameters(SPACE[11])
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 3, 32, 32))
    # The benchmark counts multiply-accumulates, and the biases of its classifier.
    assert counter.get_total_flops() // 2 + 10 == SPACE.flops(SPACE[11])
    assert not network.training
    assert not network.stem[0]._forward_hooks


@settings(max_examples=4)
@given(st.lists(st.integers(0, 15624), min_size=1, max_size=2, unique=True))
def test_rows_do_not_depend_on_company_or_names_on_order(numbers):
    cells = [SPACE[i] for i in numbers]
    table = score_archs(SPACE, [DEAD, *cells], IMAGES, repeats=2)
    assert table.names == SCORES
    assert table.values.shape == (1 + len(cells), len(SCORES))
    assert bool(table.values.isfinite().all())
    alone = score_archs(SPACE, cells[-1:], IMAGES, repeats=2, scores=("swap-reg", "naswot", "swap"))
    for name in alone.names:
        torch.testing.assert_close(alone.column(name), table.column(name)[-1:])
    assert torch.equal(table.column("params").long(), SPACE.batch_num_parameters([DEAD, *cells]))
    assert torch.equal(table.column("flops").long(), SPACE.batch_flops([DEAD, *cells]))


def test_a_table_leaves_the_random_state_alone_and_follows_its_seed():
    before = torch.get_rng_state()
    first = score_archs(SPACE, [SPACE[5]], repeats=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.values, score_archs(SPACE, [SPACE[5]], repeats=1).values)
    assert not torch.equal(first.values, score_archs(SPACE, [SPACE[5]], repeats=1, seed=1).values)


def test_other_skeletons_and_spaces():
    space = NASBench101Space()
    cells = [space.from_str("2:1:"), space.from_str("3:111:3")]
    table = score_archs(space, cells, IMAGES[:, :1], repeats=1, num_classes=3, progress=True)
    assert table.column("params").tolist() == [882_570, 11_051_402]
    assert bool((table.values[1] >= table.values[0]).all())
    wide = score_archs(space, cells, IMAGES[:, :1], repeats=1, channels=16)
    assert bool((wide.column("swap") >= table.column("swap")).all())
    assert score_archs(space, [], IMAGES).values.shape == (0, 6)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="'zen' is no score; scores: params, flops, swap"):
        score_archs(SPACE, [SPACE[0]], scores=("zen",))
    with pytest.raises(ValueError, match="no network for the cells of nasbenchgraph"):
        score_archs(NASBenchGraphSpace(), [NASBenchGraphSpace()[0]])
    with pytest.raises(InvalidArchitectureError, match="expected a NASBench201Arch"):
        score_archs(SPACE, ["|none~0|"], IMAGES)
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        swap(small(), IMAGES, repeats=0)
    with pytest.raises(ValueError, match="Flatten has no ReLU module on feature maps"):
        swap(nn.Flatten(), IMAGES)
    with pytest.raises(ValueError, match="Flatten has neither convolutions nor linear layers"):
        synflow(nn.Flatten(), (3, 4, 4))


@pytest.mark.parametrize("score", [swap, naswot])
def test_wrong_images_are_named(score):
    for images in (IMAGES[0], IMAGES[:1], (IMAGES * 10).byte()):
        with pytest.raises(InvalidImagesError, match=r"float tensor \[S, C, H, W\] of at least two, got torch\."):
            score(small(), images)
    broken = IMAGES.clone()
    broken[2, 0, 0, 0] = math.nan
    with pytest.raises(InvalidImagesError, match="image 2 holds NaN"):
        score(small(), broken)
    with pytest.raises(ValueError, match=r"images must have shape \[B, 3, H, W\]"):
        score(small(), IMAGES[:, :1])


def test_defaults_of_the_process_do_not_matter(other_defaults):
    space = NASBench201Space()
    archs = [space[11], space[6111]]
    expected = score_archs(space, archs, IMAGES, repeats=2, seed=3)
    with other_defaults():
        found = score_archs(space, archs, IMAGES, repeats=2, seed=3)
    assert found.values.dtype == torch.float64
    torch.testing.assert_close(found.values, expected.values)


def test_threads_with_one_seed_agree():
    space = NASBench201Space()
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: score_archs(space, [space[11]], IMAGES, scores=("synflow",)), range(8)))
    for table in tables:
        torch.testing.assert_close(table.values, tables[0].values)
