from __future__ import annotations

import pytest
import torch

from pyg_nas_np.convnp.cell_bank import LEVEL, SCORE_SLOPE, SLOPE, CellBank, bank_groups, bank_moments
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.features.space import SCORES_SHARE
from pyg_nas_np.predictors.labels import robust_scores
from pyg_nas_np.spaces import NASBench201Space

GROUPS = {"first": [0, 1], "second": [2], "networks": [3, 4, 5]}


def data(n: int = 40, columns: int = 6):
    x = torch.randn(n, columns, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(n, generator=torch.Generator().manual_seed(1))
    return x, robust_scores((x[:, 0].sin() + 0.5 * x[:, 3] + 0.3 * noise).double()).float()


def fitted(groups=GROUPS, n: int = 40, columns: int = 6, **kwargs) -> CellBank:
    return CellBank(groups, **({"max_iter": 20, "num_trees": 40} | kwargs)).fit(*data(n, columns))


@pytest.mark.parametrize(
    ("extra", "members"),
    [
        ({}, ["additive", "networks", "trees"]),
        ({"trend": [6]}, ["additive", "networks", "trend", "trees"]),
        ({"tables": [6, 7]}, ["additive", "networks", "trees"]),
        ({"trend": [6], "tables": [7]}, ["additive", "networks", "trend", "trees"]),
        ({"trend": [6], "scores": [7]}, ["additive", "networks", "trend", "trees"]),
        ({"tables": [6], "scores": [7]}, ["additive", "networks", "trees"]),
    ],
)
def test_members_are_those_that_the_groups_allow(extra, members):
    bank = fitted(GROUPS | extra, columns=8)
    assert bank.members == members
    assert bank.context.shape == (40, len(members), 2)
    moments = bank.predict(data(7, 8)[0])
    assert moments.shape == (7, len(members), 2)
    assert moments.dtype == torch.float32
    assert moments.isfinite().all()


def test_predictions_on_the_context_are_leave_one_out():
    x, z = data()
    bank = fitted()
    inside = bank.predict(x)
    for k, name in enumerate(bank.members):
        held_out = (bank.context[:, k, 0] - z).square().mean()
        assert held_out > 1.5 * (inside[:, k, 0] - z).square().mean(), name
    # A member's stated spread is about its error.
    spread = bank.context[:, 2, 1].exp()
    assert float(spread[0]) == pytest.approx(float((bank.context[:, 2, 0] - z).square().mean().sqrt()), rel=1e-3)


SCORED = SCORE_SLOPE * (SCORES_SHARE - (1 - SCORES_SHARE))
"""Slope along scores that fall along the trend."""


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {"trend": SLOPE}),
        ({"tables": [7]}, dict.fromkeys(("additive", "networks", "trend", "trees"), -LEVEL)),
        ({"scores": [7]}, dict.fromkeys(("networks", "trend"), -SCORED)),
    ],
)
def test_trend_tables_and_scores_are_prior_means(given, wanted):
    """Without labels that say otherwise, predictions follow the tables, or some members the scores or the trend."""
    x = torch.zeros(30, 8)
    x[:, 6] = torch.linspace(-2, 2, 30)
    x[:, 7] = -x[:, 6]
    bank = CellBank(GROUPS | {"trend": [6]} | given, num_trees=10)
    context = torch.randn(2, 8, generator=torch.Generator().manual_seed(0)) * 0.01
    bank.fit(context, torch.tensor([0.01, -0.01]))
    moments = bank.predict(x)[..., 0]
    slopes = {name: float(moments[-1, k] - moments[0, k]) / 4 for k, name in enumerate(bank.members)}
    for name, slope in slopes.items():
        assert slope == pytest.approx(wanted.get(name, 0.0), abs=0.05), name
    assert float(bank.prior(x)[0]) == pytest.approx(-2 * wanted.get("trees", 0.0))


def test_a_related_table_helps_every_member():
    x, z = data(120, 6)
    table = z + 0.2 * torch.randn(120, generator=torch.Generator().manual_seed(2))
    x = torch.cat([x, table.unsqueeze(1)], dim=1)

    def errors(groups):
        bank = CellBank(groups, max_iter=20).fit(x[:15], z[:15])
        held_out = (bank.context[..., 0] - z[:15].unsqueeze(1)).square().mean(dim=0)
        return (bank.predict(x[15:])[..., 0] - z[15:].unsqueeze(1)).square().mean(dim=0), held_out

    # The context's errors say so too.
    for alone, helped in zip(errors(GROUPS), errors(GROUPS | {"tables": [6]}), strict=True):
        assert bool((helped < 0.5 * alone).all())


def test_moments_are_those_of_a_bank():
    x, z = data()
    context, target = bank_moments(GROUPS, max_iter=20, num_trees=40)(x[:30], z[:30], x[30:])
    bank = CellBank(GROUPS, max_iter=20, num_trees=40).fit(x[:30], z[:30])
    torch.testing.assert_close(context, bank.context)
    torch.testing.assert_close(target, bank.predict(x[30:]))


def test_groups_of_spaces(toy_space):
    assert list(bank_groups(shared_descriptors(NASBench201Space()))) == [
        "live",
        "paths",
        "strings",
        "networks",
        "trend",
    ]
    groups = shared_descriptors(toy_space).groups
    assert bank_groups(shared_descriptors(toy_space)) == dict(groups)


def test_differences_from_auxiliary_labels_are_shrunk_where_labels_are_few():
    x, z = data(30, 7)
    groups = GROUPS | {"tables": [6]}
    bold, careful = (CellBank(groups, max_iter=20, shrinkage=shrinkage).fit(x, z) for shrinkage in (0.0, 30.0))
    prior = bold.prior(x).float().unsqueeze(1)
    for ours, theirs in ((careful.predict(x), bold.predict(x)), (careful.context, bold.context)):
        torch.testing.assert_close(ours[..., 0] - prior, 0.5 * (theirs[..., 0] - prior))
    # There is nothing to be cautious about without a table.
    plain = [CellBank(GROUPS, max_iter=20, shrinkage=shrinkage).fit(x, z).context for shrinkage in (0.0, 30.0)]
    torch.testing.assert_close(*plain)
    with pytest.raises(ValueError, match="shrinkage must be at least 0, got -1"):
        CellBank(GROUPS, shrinkage=-1)


def test_all_members_but_one_see_scores_by_encoders():
    groups = {"a": [0], "networks": [1, 2], "trend": [3], "encoded": [4]}
    bank = CellBank(groups)
    assert [member for member, kernels in bank.recipes.items() if "encoded" in kernels] == ["networks", "trend"]
    assert bank.split_columns[-1] == 4
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    moments = bank.fit(x[:12], x[:12, 4]).predict(x[12:])
    errors = (moments[:, :, 0] - x[12:, 4:]).square().mean(dim=0)
    assert errors[0] > errors[1:].max()
