from __future__ import annotations

import pytest
import torch

from pyg_nas_np.convnp.bank import WARM_FROM, Bank, expected, mixture
from pyg_nas_np.convnp.cell_bank import CellBank
from pyg_nas_np.convnp.general_bank import GeneralBank
from pyg_nas_np.features.space import Families
from pyg_nas_np.predictors.labels import robust_scores
from pyg_nas_np.utils.testing import PRETENDED, PretendedDevice

GROUPS = {"first": [0, 1], "second": [2], "networks": [3, 4, 5]}
FLAT = Families([[0], [1], [2, 3]], [4], [], [], [5], structured=False)
DEEP = Families([[0], [1], [2, 3]], [4], [[6, 7], [8]], [9, 10, 11], [5], structured=True)


def new_bank(kind: str, num_trees: int = 40) -> Bank:
    if kind == "cells":
        return CellBank(GROUPS, max_iter=20, num_trees=num_trees)
    return GeneralBank(FLAT if kind == "flat" else DEEP, max_iter=20, num_trees=num_trees)


def data(n: int = 40):
    x = torch.randn(n, 12, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(n, generator=torch.Generator().manual_seed(1))
    return x, robust_scores((x[:, 0].sin() + 0.5 * x[:, 3] + 0.3 * noise).double()).float()


each = pytest.mark.parametrize("kind", ["cells", "flat", "structured"])


@each
def test_trees_vote_as_the_forest_does(kind):
    x, z = data()
    bank = new_bank(kind).fit(x, z)
    inputs = x[:, bank.split_columns]
    expected = torch.from_numpy(
        bank.trees.model.fit(inputs.numpy(), z.double().numpy()).predict(inputs.numpy())
    ).float()
    torch.testing.assert_close(bank.predict(x)[:, bank.members.index("trees"), 0], expected)


@each
def test_predictions_on_a_device_are_those_of_the_cpu(kind):
    x, z = data()
    bank = new_bank(kind).fit(x, z)
    with PretendedDevice():
        there = bank.on(PRETENDED)
        moments = there.predict(x.to(PRETENDED))
        assert moments.device == there.prior(x.to(PRETENDED)).device == PRETENDED
        torch.testing.assert_close(moments.cpu(), bank.predict(x))
    assert bank.on(torch.device("cpu")) is bank


@each
def test_leave_one_out_moments_are_close_to_those_of_a_bank_without_the_point(kind):
    x, z = data(30)
    bank = new_bank(kind, num_trees=200).fit(x, z)
    rest = torch.arange(30) != 4
    alone = new_bank(kind, num_trees=200).fit(x[rest], z[rest], bank.state_dict()).predict(x[4:5])
    torch.testing.assert_close(bank.context[4, :-1], alone[0, :-1], rtol=1e-2, atol=1e-2)
    # The trees are others, and see fewer points each.
    assert float(bank.context[4, -1, 0]) == pytest.approx(float(alone[0, -1, 0]), abs=0.3)


@each
def test_hyperparameters_and_context_restore_the_bank(kind):
    x, z = data()
    bank = new_bank(kind).fit(x, z)
    again = new_bank(kind).fit(x, z, bank.state_dict())
    test = data(9)[0] + 0.1
    torch.testing.assert_close(again.predict(test), bank.predict(test), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again.context, bank.context, rtol=1e-5, atol=1e-5)
    assert [*bank.state_dict(), "trees"] == bank.members


@each
def test_samples_are_standardised_and_coherent(kind):
    bank = new_bank(kind).fit(*data())
    test = data(8)[0] + 0.3
    both = torch.cat([test, test])
    draws = torch.cat([bank.sample(both, 100, torch.Generator().manual_seed(seed)) for seed in range(10)])
    assert draws.shape == (1000, 16)
    torch.testing.assert_close(draws[:, :8], draws[:, 8:], rtol=1e-3, atol=1e-3)
    assert float(draws.mean(dim=0).abs().max()) < 0.15
    assert draws.std(dim=0).tolist() == pytest.approx([1.0] * 16, abs=0.2)


@each
def test_two_equal_and_constant_points(kind):
    x, _ = data(3)
    for rows, scores in (
        (x[:2], torch.tensor([1.0, -1.0])),
        (x[[0, 0, 1]], torch.tensor([1.0, 0.5, -1.0])),
        (x, torch.zeros(3)),
    ):
        bank = new_bank(kind, num_trees=20).fit(rows, scores)
        assert bank.context.isfinite().all()
        assert bank.predict(data(6)[0]).isfinite().all()


def test_a_mixture_has_the_variance_of_and_between_its_members():
    moments = torch.tensor([[[0.0, 0.0], [3.0, 0.0], [0.0, 0.0]]])
    mean, std = mixture(moments)
    assert mean.tolist() == pytest.approx([1.0])
    assert std.tolist() == pytest.approx([3.0**0.5])


def test_expected_scores_have_variance_one_and_wide_ends():
    trend = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    for slope in (0.5, 0.9):
        mean, std = expected(trend, slope)
        assert float((mean.square() + std.square()).mean()) == pytest.approx(1.0, abs=0.01)
        assert bool(std[trend.abs() > 2].min() > std[trend.abs() < 1].max())
    mean, std = expected(torch.zeros(3))
    assert mean.tolist() == [0.0] * 3
    assert std.tolist() == [1.0] * 3


@each
def test_a_bank_starts_from_another_one_where_fits_take_long(kind):
    x, z = data(WARM_FROM + 5)
    before = new_bank(kind).fit(x[:-1], z[:-1])
    cold, warm = new_bank(kind).fit(x, z), new_bank(kind).fit(x, z, start=before)
    for name, gp in cold.gps.items():
        losses = [
            gp.negative_log_posterior(gp.statistics(x), gp._residuals(x, z), bank.gps[name].theta)[0]
            for bank in (warm, cold)
        ]
        # Both stop after a few iterations; the warm one is further.
        assert losses[0] < losses[1] + 0.01
        assert not torch.equal(warm.gps[name].theta, gp.theta)
    served = [tree for tree, _ in warm.trees.trees if any(tree is other for other, _ in before.trees.trees)]
    assert 0 < len(served) < len(warm.trees.trees)
    few = slice(0, WARM_FROM - 1)
    warm, cold = new_bank(kind).fit(x[few], z[few], start=before), new_bank(kind).fit(x[few], z[few])
    assert all(torch.equal(warm.gps[name].theta, gp.theta) for name, gp in cold.gps.items())


def test_a_bank_of_other_columns_is_no_start():
    x, z = data(WARM_FROM)
    other = CellBank({**GROUPS, "second": [2, 6]}, max_iter=20, num_trees=5).fit(x, z)
    cold, warm = new_bank("cells", 5).fit(x, z), new_bank("cells", 5).fit(x, z, start=other)
    assert all(torch.equal(warm.gps[name].theta, gp.theta) for name, gp in cold.gps.items())
