from __future__ import annotations

import numpy as np
import pytest
import torch

from pyg_nas_np import ConvNPPredictor
from pyg_nas_np.convnp import BankPredictor
from pyg_nas_np.convnp.bank import mixture
from pyg_nas_np.convnp.bank_predictor import bank_of
from pyg_nas_np.convnp.general_bank import SCORE_SLOPE, SIZE_SLOPE, GeneralBank
from pyg_nas_np.features.space import Families
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.predictors import Predictor
from pyg_nas_np.predictors.labels import robust_scores
from pyg_nas_np.spaces import Categorical, Float, Integer, ParameterSpace, Repeat
from pyg_nas_np.utils import InvalidArchitectureError

FLAT = Families([[0], [1], [2, 3]], [4], [], [], [5], structured=False)
DEEP = Families([[0], [1], [2, 3]], [4], [[6, 7], [8]], [9, 10, 11], [5], structured=True)
each = pytest.mark.parametrize("families", [FLAT, DEEP], ids=["flat", "structured"])


def data(n: int = 40):
    x = torch.randn(n, 12, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(n, generator=torch.Generator().manual_seed(1))
    return x, robust_scores((x[:, 0].sin() + 0.5 * x[:, 2] + 0.3 * x[:, 5] + 0.2 * noise).double()).float()


def fitted(families: Families, n: int = 40) -> GeneralBank:
    return GeneralBank(families, max_iter=20, num_trees=40).fit(*data(n))


def test_members_follow_the_structure():
    assert GeneralBank(FLAT).members == ["product", "plain product", "parameter product", "trees"]
    assert GeneralBank(DEEP).members == ["additive", "product", "network product", "trees"]
    assert GeneralBank(FLAT).split_columns == [0, 1, 2, 3]
    assert GeneralBank(DEEP).split_columns == [0, 1, 2, 3, 4, 6, 7, 8, 5, 9, 10, 11]
    kernels = GeneralBank(DEEP).recipes
    assert list(kernels["additive"]) == [
        "parameters",
        "summaries",
        "record",
        "graph 0",
        "graph 1",
        "networks",
        "sizes",
    ]
    assert list(kernels["network product"]) == ["all", "networks"]
    # Tied: two hyperparameters a family, and a noise.
    assert sum(len(kernel.priors) for kernel in kernels["additive"].values()) == 2 * 5 + 2


@pytest.mark.parametrize(
    "families",
    [
        FLAT._replace(sizes=[], summaries=[]),
        Families([], [], [], [], [0, 1], structured=False),
        Families([], [], [[0, 1]], [2], [], structured=True),
        DEEP._replace(parameters=[], summaries=[]),
    ],
)
def test_whatever_a_space_tells_is_enough(families):
    bank = fitted(families, 12)
    assert bank.predict(data(5)[0]).shape == (5, 4, 2)
    assert bool(bank.context.isfinite().all())


def test_nothing_to_learn_from_is_said():
    with pytest.raises(ValueError, match="no column varies"):
        GeneralBank(Families([], [], [], [], [], structured=False))


@each
def test_moments_of_context_and_targets(families):
    bank = fitted(families)
    assert bank.context.shape == (40, 4, 2)
    x = torch.randn(400, 12, generator=torch.Generator().manual_seed(5))
    mean, std = mixture(bank.predict(x))
    truth = x[:, 0].sin() + 0.5 * x[:, 2] + 0.3 * x[:, 5]
    assert float(kendall_tau(mean, truth)) > 0.5
    assert bool((std > 0).all())


def test_without_labels_that_say_otherwise_larger_is_better():
    x = torch.zeros(30, 12)
    x[:, 5] = torch.linspace(-2, 2, 30)
    context = torch.randn(2, 12, generator=torch.Generator().manual_seed(0)) * 0.01
    bank = GeneralBank(DEEP, num_trees=10).fit(context, torch.tensor([0.01, -0.01]))
    moments = bank.predict(x)[..., 0]
    slopes = {name: float(moments[-1, k] - moments[0, k]) / 4 for k, name in enumerate(bank.members)}
    assert slopes["additive"] == pytest.approx(SIZE_SLOPE, abs=0.05)
    assert slopes["product"] == pytest.approx(SIZE_SLOPE, abs=0.05)
    assert slopes["network product"] == pytest.approx(0.0, abs=0.05)


def test_the_labels_set_slope_and_sign():
    x, _ = data(40)
    bank = GeneralBank(DEEP, num_trees=10).fit(x, -x[:, 5])
    assert float(kendall_tau(bank.predict(data(200)[0])[:, 0, 0], -data(200)[0][:, 5])) > 0.8


@pytest.mark.parametrize("families", [FLAT, DEEP, DEEP._replace(graph=[], networks=[])])
def test_scores_are_a_prior_mean_that_the_labels_correct(families):
    families = families._replace(scores=[12])
    x = torch.zeros(30, 13)
    x[:, 12] = torch.linspace(-2, 2, 30)
    context = torch.randn(2, 13, generator=torch.Generator().manual_seed(0)) * 0.01
    moments = GeneralBank(families, num_trees=10).fit(context, torch.tensor([0.01, -0.01])).predict(x)[..., 0]
    wanted = torch.tensor([SCORE_SLOPE, SCORE_SLOPE, *([0.0, 0.0] if families.graph else [SCORE_SLOPE] * 2)])
    torch.testing.assert_close((moments[-1] - moments[0]) / 4, wanted, rtol=0.0, atol=0.1)
    x = torch.randn(60, 13, generator=torch.Generator().manual_seed(1))
    bank = GeneralBank(families, num_trees=10).fit(x[:30], -x[:30, 12])
    for member in (0, 1):
        assert float(kendall_tau(bank.predict(x[30:])[:, member, 0], -x[30:, 12])) > 0.8
    assert bank.trees.x.shape[1] == len(bank.split_columns)
    assert (12 in bank.split_columns) is not bool(families.graph)


# -- as a predictor ---------------------------------------------------------------------------------------------------

LAYERED = ParameterSpace(
    width=Integer(8, 512, log=True),
    act=Categorical(["relu", "gelu", "tanh"]),
    rate=Float(1e-4, 1e-1, log=True, when={"act": ("relu", "gelu")}),
    layers=Repeat({"kernel": [3, 5, 7], "op": ["conv", "pool"]}, 2, 4),
    costs={"params": lambda arch: arch["width"] * len(arch["layers"])},
)
SIMPLE = ParameterSpace(depth=Integer(1, 12), rate=Float(1e-4, 1e-1, log=True), act=["relu", "gelu", "tanh"])


def truth(arch) -> float:
    depth = len(arch["layers"]) if "layers" in arch else arch["depth"] / 3
    return 80 + 3 * depth + 2 * (arch["act"] == "gelu") + 0.1 * np.log(arch.get("rate", 1.0))


@pytest.mark.parametrize("space", [LAYERED, SIMPLE], ids=["layered", "simple"])
@pytest.mark.parametrize("kind", [ConvNPPredictor, BankPredictor])
def test_works_at_once_on_any_space(space, kind, tmp_path):
    archs = space.sample(150, torch.Generator().manual_seed(0))
    y = torch.tensor([truth(arch) for arch in archs])
    model = kind(space).fit(archs[:40], y[:40])
    mean, std = model.predict(archs[40:], return_std=True)
    assert float(kendall_tau(mean, y[40:])) > 0.7
    assert bool((std > 0).all())
    model.save(tmp_path / "model.pt")
    loaded = Predictor.load(tmp_path / "model.pt", space)
    torch.testing.assert_close(loaded.predict(archs[40:]), mean, rtol=1e-4, atol=1e-3)


def test_quantiles_and_samples_on_configurations():
    archs = LAYERED.sample(60, torch.Generator().manual_seed(0))
    y = torch.tensor([truth(arch) for arch in archs])
    model = ConvNPPredictor(LAYERED).fit(archs[:30], y[:30])
    quantiles = model.predict_quantiles(archs)
    assert bool((quantiles.diff(dim=1) > 0).all())
    draws = model.sample(archs, 64, torch.Generator().manual_seed(0))
    assert draws.shape == (64, 60)
    assert float(kendall_tau(draws.mean(dim=0), model.predict(archs))) > 0.8


def test_names_and_order_of_parameters_change_nothing():
    archs = SIMPLE.sample(60, torch.Generator().manual_seed(0))
    y = torch.tensor([truth(arch) for arch in archs])
    pool = [arch.to_dict() for arch in archs]
    renamed = {"depth": "zeta", "rate": "alpha", "act": "mu"}
    space = ParameterSpace(SIMPLE.parameters, pool=pool)
    other = ParameterSpace(
        {renamed[name]: parameter for name, parameter in reversed(SIMPLE.parameters.items())},
        pool=[{renamed[name]: value for name, value in record.items()} for record in pool],
    )
    first, second = (BankPredictor(s).fit(s.pool[:20], y[:20]).predict(s.pool) for s in (space, other))
    # Trees draw their splits by the order of columns.
    assert float(kendall_tau(first, second)) > 0.95


def test_records_without_a_space():
    records = [arch.to_dict() for arch in SIMPLE.sample(60, torch.Generator().manual_seed(0))]
    y = [truth(record) for record in records]
    model = ConvNPPredictor().fit(records[:30], y[:30])
    assert model.score(records[30:], y[30:]) > 0.6


def test_weights_are_for_cells(tmp_path):
    archs = SIMPLE.sample(10, torch.Generator().manual_seed(0))
    with pytest.raises(InvalidArchitectureError, match="gives no cells"):
        ConvNPPredictor(SIMPLE, weights=tmp_path / "none").fit(archs, torch.arange(10.0))


def test_all_members_but_one_see_scores_by_encoders():
    families = Families([[0], [1]], [0, 1], [[2]], [], [], structured=True, encoded=[3])
    bank = GeneralBank(families)
    seeing = [member for member, kernels in bank.recipes.items() if "encoded" in kernels]
    assert seeing == [member for member in bank.recipes if member != "additive"]
    assert 3 in bank.split_columns
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    without = GeneralBank(families._replace(encoded=()))
    # Labels that follow the score alone.
    errors = [
        float((own.fit(x[:12], x[:12, 3]).predict(x[12:])[:, :, 0].mean(dim=1) - x[12:, 3]).square().mean())
        for own in (bank, without)
    ]
    assert errors[0] < 0.6 * errors[1]
    assert bank_of(bank.columns).members == bank.members
