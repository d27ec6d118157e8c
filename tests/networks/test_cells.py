from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyg_nas_np.networks.cells import NASBench101Network, NASBench201Network, make_network
from pyg_nas_np.spaces import NASBench101Arch, NASBench101Space, NASBench201Space, NASBenchGraphSpace
from pyg_nas_np.utils import InvalidArchitectureError, drawing_from

SPACE_201, SPACE_101 = NASBench201Space(), NASBench101Space()
DEAD = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|none~0|none~1|none~2|"
RICH = "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"

GOLDEN_101 = {
    "7:100110100001001010101:3p331": 8_555_530,
    "7:100000100001000111101:11313": 5_878_154,
    "2:1:": 882_570,
    "3:101:p": 882_570,
    "3:111:p": 1_756_298,
    "3:101:3": 10_177_674,
    "3:111:3": 11_051_402,
    "7:100000101001001110101:p3p3p": 5_095_946,
    "7:100000110000011100111:1p33p": 2_490_930,
    "7:111010000010001100011:1333p": 2_694_282,
    "7:111100000010001001101:31p33": 2_694_282,
}


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@torch.no_grad()
def macs(network, size):
    """Multiply-accumulates of convolutions and linear layers on one image, by hooks on the shapes."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        per_value = module.weight[0].numel()
        total += per_value * output[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network.eval()(torch.zeros(1, 3, size, size, device=network.classifier.weight.device))
    return total


@pytest.mark.parametrize(
    ("dataset", "classes", "size"), [("cifar10", 10, 32), ("cifar100", 100, 32), ("ImageNet16-120", 120, 16)]
)
def test_costs_of_nasbench201_are_those_of_the_formulas(dataset, classes, size):
    space = NASBench201Space(dataset)
    dead = [cell for cell in space.sample(400, torch.Generator().manual_seed(1)) if cell.ops[3:] == ("none",) * 3][:3]
    cells = [*space.sample(25, torch.Generator().manual_seed(0)), *dead, space.from_str(DEAD), space[6111], space[0]]
    assert dead
    for cell in cells:
        network = NASBench201Network(cell, classes)
        assert parameters(network) == space.num_parameters(cell)
        # The benchmark counts the biases of the classifier.
        assert macs(network, size) + classes == space.flops(cell)


def test_parameters_of_nasbench101_are_the_published_ones():
    for cell, expected in GOLDEN_101.items():
        with torch.device("meta"):
            assert parameters(NASBench101Network(cell)) == expected


def test_costs_of_nasbench101_are_those_of_the_formulas():
    cells = SPACE_101.sample(30, torch.Generator().manual_seed(0))
    for cell, expected, flops in zip(
        cells, SPACE_101.batch_num_parameters(cells), SPACE_101.batch_flops(cells), strict=True
    ):
        with torch.device("meta"):
            network = NASBench101Network(cell)
        assert parameters(network) == expected
        if flops < 2e9:
            assert macs(network.to_empty(device="cpu"), 32) == flops


@settings(max_examples=15)
@given(st.integers(0, 15624), st.integers(0, 423_623), st.integers(5, 9), st.integers(16, 19))
def test_reduced_skeletons_map_images_to_logits(first, second, channels, size):
    images = torch.randn(3, 1, size, size, generator=torch.Generator().manual_seed(0))
    with drawing_from(torch.Generator().manual_seed(first + second)):
        networks = (
            NASBench201Network(SPACE_201[first], 4, channels=channels, num_cells=1, in_channels=1),
            NASBench101Network(SPACE_101[second], 4, channels=channels, num_modules=1, in_channels=1),
        )
    for network in networks:
        logits = network.eval()(images)
        assert logits.shape == (3, 4)
        assert bool(logits.isfinite().all())
        # Images do not see each other in evaluation mode.
        # Untrained ones may have logits of hundreds.
        scale = 1.0 + float(logits.abs().max())
        torch.testing.assert_close(network(images[:1]), logits[:1], rtol=1e-5, atol=1e-5 * scale)


def test_a_cell_of_nasbench201_computes_its_definition():
    torch.manual_seed(0)
    network = NASBench201Network(RICH, channels=4, num_cells=1).eval()
    cell = network.body[0]
    x = torch.randn(2, 4, 8, 8)
    first = cell.ops["0-1"](x)
    second = cell.ops["0-2"](x) + nn.functional.avg_pool2d(first, 3, 1, 1, count_include_pad=False)
    assert torch.allclose(cell(x), x + cell.ops["2-3"](second), atol=1e-6)
    norm, weight = cell.ops["0-1"][2], cell.ops["0-1"][1].weight
    by_hand = norm(nn.functional.conv2d(x.relu(), weight, padding=1))
    torch.testing.assert_close(first, by_hand)


def test_a_cell_of_nasbench101_truncates_concatenates_and_adds():
    # Vertices 1 and 2 share 5 channels as 3 and 2; vertex 1 also feeds vertex 2; the input is added to the output.
    torch.manual_seed(0)
    arch = NASBench101Arch.from_matrix(
        [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]], ["input", "conv3x3-bn-relu", "maxpool3x3", "output"]
    )
    cell = NASBench101Network(arch, channels=5, num_modules=1).eval().body[0]
    x = torch.randn(2, 5, 8, 8)
    first = cell.ops[0](cell.projections["1"](x))
    assert first.size(1) == 3
    second = nn.functional.max_pool2d(first[:, :2] + cell.projections["2"](x), 3, 1, 1)
    assert torch.allclose(cell(x), torch.cat([first, second], 1) + cell.projections["3"](x), atol=1e-6)


def test_dead_cells_give_the_same_logits_for_every_image():
    network = NASBench201Network(DEAD, channels=4, num_cells=1).eval()
    logits = network(torch.randn(3, 3, 16, 16))
    torch.testing.assert_close(logits[0], logits[1])
    # Its classifier can be trained all the same.
    nn.functional.cross_entropy(network(torch.randn(3, 3, 16, 16)), torch.tensor([0, 1, 2])).backward()
    assert network.classifier.bias.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "network", [NASBench201Network(RICH, channels=4, num_cells=1), NASBench101Network("3:111:1", channels=8)]
)
def test_reset_draws_by_the_seed_and_forgets_statistics(network):
    def states(seed):
        torch.manual_seed(seed)
        network.reset_parameters()
        return {key: value.clone() for key, value in network.state_dict().items()}

    first = states(0)
    network.train()(torch.randn(4, 3, 16, 16))
    again, other = states(0), states(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_convolutions_of_nasbench101_keep_the_scale():
    torch.manual_seed(0)
    network = NASBench101Network("3:111:3")
    conv = network.body[0].ops[0][0]
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert network.stem[1].momentum == 0.003
    assert NASBench101Network("3:111:3", channels=8, norm_momentum=0.1).stem[1].momentum == 0.1


def test_repr_says_what_was_built():
    assert repr(NASBench201Network(RICH, 7, channels=4, num_cells=1)) == (
        f"NASBench201Network('{RICH}', 7, channels=4, num_cells=1)"
    )
    assert repr(NASBench101Network("2:1:", channels=8)) == "NASBench101Network('2:1:', 10, channels=8, num_modules=3)"


def test_make_network_goes_by_the_space():
    network = make_network(SPACE_101, SPACE_101.from_str("2:1:"), 3, channels=8, num_modules=1)
    assert isinstance(network, NASBench101Network)
    with pytest.raises(ValueError, match="no network for the cells of nasbenchgraph"):
        make_network(NASBenchGraphSpace(), NASBenchGraphSpace()[0])
    with pytest.raises(ValueError, match="nasbench101 has no size 'num_cells'; it has channels, num_modules"):
        make_network(SPACE_101, "2:1:", num_cells=1)


@pytest.mark.parametrize("arch", ["|none~0|", SPACE_101.from_str("2:1:"), None, 5])
def test_cells_of_elsewhere_are_refused_201(arch):
    with pytest.raises(InvalidArchitectureError):
        NASBench201Network(arch)


@pytest.mark.parametrize("arch", ["7:1:", SPACE_201[0], None, NASBench101Arch("000", "3")])
def test_cells_of_elsewhere_are_refused_101(arch):
    with pytest.raises(InvalidArchitectureError):
        NASBench101Network(arch)


def test_wrong_sizes_and_images_are_named():
    with pytest.raises(ValueError, match="num_cells must be at least 1, got 0"):
        NASBench201Network(RICH, num_cells=0)
    with pytest.raises(ValueError, match=r"channels must be at least 5.*got 4"):
        NASBench101Network("2:1:", channels=4)
    network = NASBench201Network(RICH, channels=4, num_cells=1)
    for shape in ([2, 1, 32, 32], [3, 32, 32], [2, 3, 3, 32]):
        with pytest.raises(ValueError, match=r"images must have shape \[B, 3, H, W\] with at least 4 x 4 pixels"):
            network(torch.zeros(shape))
