import warnings

import pytest
import torch
from torch.testing import assert_close

from pyg_nas_np.convnp.devices import DeviceBasis, DeviceTable
from pyg_nas_np.predictors import Architectures
from pyg_nas_np.spaces import Categorical, Integer, NASBench201Space, ParameterSpace
from pyg_nas_np.utils import InvalidLabelsError

SPACE = ParameterSpace(depth=Integer(1, 9), act=Categorical(["relu", "gelu"]))
ARCHS = [SPACE.check({"depth": d, "act": a}) for d in range(1, 10) for a in ("relu", "gelu")]
DEPTH = torch.tensor([float(arch["depth"]) for arch in ARCHS])
GELU = torch.tensor([float(arch["act"] == "gelu") for arch in ARCHS])
LATENCIES = {"phone": DEPTH + GELU, "laptop": DEPTH**0.5, "board": 3 * DEPTH * (1 + GELU)}


def test_measured_latencies_are_kept_and_others_predicted():
    shown = [i for i in range(18) if i % 3]
    basis = DeviceBasis().fit(
        DeviceTable({n: y[shown] for n, y in LATENCIES.items()}, [ARCHS[i] for i in shown]), SPACE
    )
    values, errors = basis(Architectures(SPACE, ARCHS))
    logs = torch.stack(list(LATENCIES.values()), dim=1).double().log()
    assert_close(values[shown], logs[shown] - logs[shown].mean(dim=0))
    assert bool((errors[shown] == 0).all())
    assert bool((errors[::3] > 0).all())
    away = values[::3] - (logs[::3] - logs[shown].mean(dim=0))
    assert float(away.square().mean()) < 0.3 * float(logs.var(dim=0).mean())


def test_a_missing_latency_is_predicted():
    partial = LATENCIES | {"phone": LATENCIES["phone"].clone().index_fill(0, torch.tensor([4]), torch.nan)}
    basis = DeviceBasis().fit(DeviceTable(partial, ARCHS), SPACE)
    values, errors = basis(Architectures(SPACE, ARCHS))
    assert bool(values.isfinite().all())
    assert errors[4, 0] > 0
    assert errors[4, 1] == 0
    assert errors[5, 0] == 0


def test_suggested_architectures_differ():
    basis = DeviceBasis().fit(DeviceTable(LATENCIES, ARCHS), SPACE)
    chosen = basis.suggest(Architectures(SPACE, ARCHS), 4).tolist()
    assert len(set(chosen)) == 4
    assert len({ARCHS[i]["act"] for i in chosen}) == 2
    assert len(set(basis.suggest(Architectures(SPACE, ARCHS[:3]), 10).tolist())) == 3


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (DeviceTable({}, ARCHS), "no device"),
        (DeviceTable({"phone": DEPTH[:3]}, ARCHS), "'phone' has 3 latencies for 18"),
        (DeviceTable({"phone": DEPTH - 1}, ARCHS), "'phone', row 0: the latency 0 is not positive"),
        (DeviceTable({"phone": DEPTH / 0}, ARCHS), "inf is not positive and finite"),
        (DeviceTable({"phone": DEPTH.where(DEPTH < 2, torch.nan)}, ARCHS), "'phone' has 2 latencies, at least 5"),
        (DeviceTable({"phone": ["fast"] * 18}, ARCHS), "'phone' must be numbers"),
        (DeviceTable({"phone": DEPTH}), "no official order"),
        (
            DeviceTable(
                {"a": DEPTH.where(DEPTH < 5, torch.nan), "b": DEPTH.where(DEPTH >= 5, torch.nan)},
                ARCHS,
            ),
            "the devices a, b have no common row",
        ),
    ],
)
def test_bad_tables(table, message):
    with pytest.raises(InvalidLabelsError, match=message):
        DeviceBasis().fit(table, SPACE)


def test_another_unit_is_named():
    with pytest.warns(UserWarning, match="device 'board': latencies are about .* times those of all other devices"):
        DeviceTable(LATENCIES | {"board": 3000 * DEPTH}, ARCHS).resolve(SPACE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DeviceTable(LATENCIES | {"board": 100 * DEPTH}, ARCHS).resolve(SPACE)


def test_state_of_a_space_with_indices():
    space = NASBench201Space()
    flops = space.batch_flops().double() + 1e6
    basis = DeviceBasis().fit(DeviceTable({"a": flops, "b": flops + 1e7, "c": flops + 1e8}), space)
    again = DeviceBasis.from_state(basis.state_dict())
    some = Architectures(space, torch.tensor([7, 6111]))
    assert_close(again(some), basis(some))
