"""Chains of layers as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.curves.readers import read_baker
from pyg_nas_np.search.layer_strings import ARITY, Layer, format_net, image_size, net_depth, parse_net
from pyg_nas_np.utils import InvalidArchitectureError

LAYERS = st.sampled_from([kind for kind in ARITY if kind != "SM"]).flatmap(
    lambda kind: st.tuples(*[st.integers(1, 512)] * ARITY[kind]).map(lambda numbers: Layer(kind, numbers))
)


@given(st.lists(LAYERS, max_size=8))
def test_there_and_back(layers):
    net = (*layers, Layer("SM", (10,)))
    assert parse_net(format_net(net)) == net


def test_published_nets(shared_data):
    curves = read_baker(shared_data / "curves" / "baker2017" / "metaqnn_cifar10.csv")
    nets = [parse_net(config) for config in curves.configs]
    assert [format_net(net) for net in nets] == list(curves.configs)
    assert [net_depth(net) for net in nets] == curves.architecture["depth"].tolist()
    assert all(1 <= image_size(net[:-1]) <= 32 for net in nets)


def test_sizes():
    assert image_size(parse_net("[C(64,3,2), P(3,2), SM(10)]")[:-1], 28) == 7
    assert image_size(parse_net("[FC(32), SM(10)]")[:-1]) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("C(1,1,1), SM(10)", "in brackets"),
        ("[]", "only softmax"),
        ("[C(64,3,1)]", "only softmax"),
        ("[SM(10), SM(10)]", "only softmax"),
        ("[SM(10), GAP(10)]", "only softmax"),
        ("[X(1), SM(10)]", r"'X\(1\)' is none of"),
        ("[C(64,3), SM(10)]", r"'C\(64,3\)' is none of"),
        ("[C(0,3,1), SM(10)]", r"'C\(0,3,1\)' is none of"),
        ("[C(64,3,1) SM(10)]", "a comma is missing"),
        ("[conv, SM(10)]", "no layer at character 1"),
    ],
)
def test_malformed(text, message):
    with pytest.raises(InvalidArchitectureError, match=message):
        parse_net(text)
