"""Networks as graphs of operations, without weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from pyg_nas_np.spaces import trace
from pyg_nas_np.spaces.module_trace import ATTRIBUTES, Traced
from pyg_nas_np.utils import InvalidArchitectureError


class Block(nn.Module):
    """A residual block with a batch norm, a grouped convolution and a concatenation."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.down = nn.Conv2d(2 * channels, channels, 1, stride=2)

    def forward(self, x):
        y = functional.relu(self.norm(self.conv(x)), inplace=True)
        y += x
        return self.down(torch.cat([x, y], dim=1)).flatten(1)


class Chooser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


def names(traced: Traced) -> list[str]:
    return [node.op for node in traced.graph.nodes]


def test_a_residual_block():
    block = Block()
    traced = trace(block, torch.randn(1, 8, 6, 6))
    assert sorted(names(traced)) == sorted(["input", "conv2d", "batch_norm", "relu", "add", "cat", "conv2d", "output"])
    position = {op: names(traced).index(op) for op in ("input", "conv2d", "add", "cat", "output")}
    assert (position["input"], position["add"]) in traced.graph.edges
    assert (position["input"], position["cat"]) in traced.graph.edges
    conv = dict(traced.graph.nodes[position["conv2d"]].attributes)
    assert conv == {
        "kernel": 3, "stride": 1, "dilation": 1, "groups": 2, "in_channels": 8, "channels": 8, "elements": 288,
        "parameters": 288, "macs": 36 * 8 * 4 * 9,
    }  # fmt: skip
    assert set(conv) <= set(ATTRIBUTES)
    assert traced.num_parameters == sum(p.numel() for p in block.parameters())
    assert block.training
    assert int(block.norm.num_batches_tracked) == 0


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (Block(), (torch.randn(2, 8, 6, 6),)),
        (nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), (torch.randn(2, 5, 16),)),
        (
            nn.Sequential(nn.Conv1d(3, 4, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)),
            (torch.randn(2, 3, 9),),
        ),
    ],
    ids=["block", "transformer", "sequence"],
)
def test_multiply_accumulates_are_those_of_the_flop_counter(module, inputs):
    # In evaluation mode the counter sees nothing of a fused transformer layer.
    with FlopCounterMode(display=False) as counter:
        module.train()(*inputs)
    assert 2 * trace(module, inputs).macs == counter.get_total_flops()


def test_attention_is_one_node_and_dropout_none():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    traced = trace(layer, torch.empty(2, 5, 16))
    assert names(traced).count("multi_head_attention_forward") == 1
    assert "dropout" not in names(traced)
    attention = traced.graph.nodes[names(traced).index("multi_head_attention_forward")]
    assert dict(attention.attributes)["heads"] == 4


def test_no_weight_is_allocated_or_touched():
    with torch.device("meta"):
        huge = nn.Sequential(nn.Linear(1 << 20, 1 << 20), nn.Linear(1 << 20, 4))
    assert trace(huge, torch.empty(1, 1 << 20, device="meta")).num_parameters > 1 << 40
    small = nn.Linear(2, 2)
    before = small.weight.clone()
    trace(small, torch.empty(1, 2))
    assert torch.equal(small.weight, before)


def test_shared_parameters_count_once():
    layer = nn.Linear(4, 4)
    traced = trace(nn.Sequential(layer, nn.ReLU(), layer), torch.empty(1, 4))
    assert traced.num_parameters == 20


def test_inputs_by_name_and_several_outputs():
    class Two(nn.Module):
        def forward(self, first, second):
            return {"sum": first + second, "product": (first * second,)}

    traced = trace(Two(), {"second": torch.empty(2, 3), "first": torch.empty(2, 3)})
    assert sorted(names(traced)) == ["add", "input", "input", "mul", "output"]


def test_python_control_flow_on_shapes_is_followed():
    class Pyramid(nn.Module):
        def forward(self, x):
            while x.shape[-1] > 2:
                x = functional.avg_pool2d(x, 2)
            return x

    assert names(trace(Pyramid(), torch.empty(1, 1, 16, 16))).count("avg_pool2d") == 3


@pytest.mark.parametrize(
    ("module", "inputs", "message"),
    [
        (
            nn.Sequential(nn.ReLU(), Chooser()),
            torch.empty(1, 3),
            r"submodule '1' of Sequential .* its values, not shapes",
        ),
        (
            nn.Sequential(nn.Linear(3, 3), nn.Linear(4, 3)),
            torch.empty(1, 3),
            r"submodule '1' .* check that example_inputs",
        ),
        (nn.Linear(3, 3), (torch.empty(1, 3), torch.empty(1, 3)), "check that example_inputs"),
        (nn.Linear(3, 3), "image", "hold no tensor"),
        ("resnet", torch.empty(1, 3), "a str is not a torch.nn.Module"),
    ],
)
def test_what_cannot_be_traced_is_named(module, inputs, message):
    with pytest.raises(InvalidArchitectureError, match=message):
        trace(module, inputs)


def test_an_output_that_ignores_the_input_is_told():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.zeros(3)

    with pytest.raises(InvalidArchitectureError, match="no output of Constant depends"):
        trace(Constant(), torch.empty(1))


def test_a_failed_trace_leaves_the_training_mode():
    module = Chooser()
    with pytest.raises(InvalidArchitectureError):
        trace(module, torch.empty(1, 3))
    assert module.training
    assert module.layer.training


def test_traces_lead_back_from_json():
    traced = trace(Block(), torch.empty(1, 8, 6, 6))
    assert Traced.from_json(traced.to_json()) == traced
    for text in ("", "{}", traced.to_json()[:-9]):
        with pytest.raises(InvalidArchitectureError):
            Traced.from_json(text)


def test_other_defaults_change_nothing(foreign_defaults):
    traced = trace(nn.Linear(4, 2, device="cpu", dtype=torch.float32), torch.empty(1, 4, device="cpu"))
    with foreign_defaults():
        again = trace(
            nn.Linear(4, 2, device="cpu", dtype=torch.float32), torch.empty(1, 4, device="cpu", dtype=torch.float32)
        )
    assert again == traced
