from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.base import clone

from pyg_nas_np.convnp import ConvNPPredictor
from pyg_nas_np.convnp import fidelities as module
from pyg_nas_np.convnp.fidelities import Below, FidelityBank, FidelityPredictor, Measured
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.spaces import Integer, NASBench201Space, ParameterSpace
from pyg_nas_np.utils import DataFileError, InvalidFidelityError, InvalidLabelsError, seeded
from pyg_nas_np.utils.testing import PRETENDED, PretendedDevice

EPOCHS = Fidelity("epochs", (12, 200))
SPACE = NASBench201Space()
CELLS = torch.randperm(len(SPACE), generator=seeded(0))
FULL = SPACE.batch_flops().double().log()
LOW = FULL + 0.3 * torch.randn(len(SPACE), generator=seeded(1), dtype=torch.float64)


def fitted(low: int, full: int, **options: object) -> FidelityPredictor:
    cells, top = CELLS[:low], CELLS[:full]
    predictor = FidelityPredictor(SPACE, fidelity=EPOCHS, **options)
    levels = [12] * low + [200] * full
    return predictor.fit(torch.cat([cells, top]), torch.cat([LOW[cells], FULL[top]]), fidelity=levels)


@pytest.mark.parametrize("alone", [False, True])
def test_cheap_labels_help(alone: bool) -> None:
    test = CELLS[200:700]
    alone_tau = kendall_tau(fitted(0, 6, alone=alone).predict(test), FULL[test])
    assert kendall_tau(fitted(60, 6, alone=alone).predict(test), FULL[test]) > alone_tau + 0.05


@pytest.mark.parametrize("full", [0, 1])
def test_without_full_trainings_it_ranks_by_the_level_below(full: int) -> None:
    predictor, test = fitted(40, full), CELLS[200:400]
    below = FidelityPredictor(SPACE).fit(CELLS[:40], LOW[CELLS[:40]])
    assert predictor.missing_ == 1
    assert kendall_tau(predictor.predict(test), below.predict(test)) == pytest.approx(1.0)
    assert bool((predictor.predict_scores(test)[1] >= 0.7 * below.predict_scores(test)[1]).all())


@pytest.mark.parametrize("alone", [False, True])
def test_what_changes_between_lower_levels_goes_on(alone: bool) -> None:
    space = ParameterSpace(depth=Integer(1, 30), width=Integer(1, 30))
    archs = space.sample(140, seeded(0))
    size, other = torch.tensor([[arch["depth"], arch["width"]] for arch in archs], dtype=torch.float64).t()
    # What is deeper starts worse and ends better; half of the way is left.
    y = [other + slope * size for slope in (-1.0, 0.0, 1.0)]
    predictor = FidelityPredictor(space, fidelity=Fidelity("epochs", (2, 20, 200)), alone=alone)
    predictor.fit([*archs[:40], *archs[:40]], torch.cat([y[0][:40], y[1][:40]]), fidelity=[2] * 40 + [20] * 40)
    assert kendall_tau(predictor.predict(archs[40:]), y[2][40:]) > kendall_tau(y[1][40:], y[2][40:]) + 0.1


def test_predictions_on_a_device_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    space = ParameterSpace(depth=Integer(1, 30), width=Integer(1, 30))
    archs = space.sample(60, seeded(0))
    y = torch.tensor([arch["depth"] - 0.02 * arch["width"] ** 2 for arch in archs[:30]])
    predictor = ConvNPPredictor(space, fidelity=EPOCHS, device="cpu").fit(
        archs[:30], y, fidelity=[12] * 15 + [200] * 15
    )
    assert isinstance(predictor.bank_, FidelityBank)
    expected = predictor.predict(archs, return_std=True)
    monkeypatch.setattr("pyg_nas_np.convnp.predictor.as_device", lambda _: PRETENDED)
    with PretendedDevice() as device:
        found = predictor.predict(archs, return_std=True)
    assert device.count > 100
    torch.testing.assert_close(found, expected)


def test_cheap_labels_that_tell_nothing_are_ignored() -> None:
    noise = torch.randn(len(SPACE), generator=seeded(3), dtype=torch.float64)
    cells, test = CELLS[:30], CELLS[200:500]
    predictor = FidelityPredictor(SPACE, fidelity=EPOCHS)
    predictor.fit(torch.cat([CELLS[:60], cells]), torch.cat([noise[CELLS[:60]], FULL[cells]]), [12] * 60 + [200] * 30)
    plain = FidelityPredictor(SPACE).fit(cells, FULL[cells])
    taus = [kendall_tau(p.predict(test), FULL[test]) for p in (predictor, plain)]
    assert taus[0] > taus[1] - 0.03


def test_the_weight_follows_held_out_labels() -> None:
    bank = fitted(60, 20).levels_[-1].bank
    assert 0.5 < bank.weight < 1.0
    reversed_labels = FidelityPredictor(SPACE, fidelity=EPOCHS)
    cells, noise = CELLS[:60], torch.randn(60, generator=seeded(5), dtype=torch.float64)
    labels = torch.cat([noise, FULL[CELLS[:20]]])
    reversed_labels.fit(torch.cat([cells, CELLS[:20]]), labels, fidelity=[12] * 60 + [200] * 20)
    assert reversed_labels.levels_[-1].bank.weight < bank.weight


def test_labels_below_have_places_and_numbers() -> None:
    levels = Fidelity("epochs", (1, 10, 100, 1000))
    measured = [
        (0, torch.zeros(3, 2), Measured([4, 7, 9], torch.arange(3.0), torch.zeros(3))),
        (1, torch.ones(2, 2), Measured([9, 4], torch.ones(2), torch.zeros(2))),
    ]
    below = Below(levels, 2, measured)
    assert [round(below.place(position), 6) for position in range(4)] == [-1.0, -0.5, 0.0, 0.5]
    x, z, variances = below.joined(torch.zeros(1, 6), torch.ones(1), None)
    assert (x.shape, z.shape, variances) == ((6, 6), (6,), None)
    # The highest label of each architecture stands first.
    assert x[:3, -2].tolist() == [2.0, 0.0, 1.0]
    assert x[:, -1].tolist() == [-0.5, -0.5, -1.0, -1.0, -1.0, 0.0]


def test_few_of_many_lower_labels_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 10)
    predictor = fitted(30, 5, alone=True)
    assert len(predictor.levels_[-1].bank.gp.x) == 15
    assert bool(predictor.predict(CELLS[:50]).isfinite().all())


def test_samples_and_known_cells() -> None:
    predictor = fitted(40, 10)
    bank, level = predictor.levels_[-1].bank, predictor.levels_[-1]
    inputs = level.x[:6]
    draws = bank.sample(inputs, 200, seeded(0))
    assert draws.shape == (200, 6)
    assert float(draws.std()) == pytest.approx(1.0, abs=0.2)


def test_files_of_another_model_of_levels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = FidelityPredictor._state
    monkeypatch.setattr(FidelityPredictor, "_state", lambda self: {"missing": 0, "levels": state(self)["joint levels"]})
    fitted(10, 3, alone=True).save(tmp_path / "p.pt")
    with pytest.raises(DataFileError, match="fit and save it again"):
        FidelityPredictor.load(tmp_path / "p.pt", SPACE)


def test_one_level_is_that_of_full_trainings() -> None:
    cells = CELLS[:30]
    a = FidelityPredictor(SPACE, fidelity=EPOCHS).fit(cells, FULL[cells])
    b = FidelityPredictor(SPACE).fit(cells, FULL[cells])
    torch.testing.assert_close(a.predict(CELLS[:50]), b.predict(CELLS[:50]))


def test_labels_with_a_large_known_spread_count_less() -> None:
    cells, y = CELLS[:30], FULL[CELLS[:30]].clone()
    y[0] = y.max() + 3.0
    plain = FidelityPredictor(SPACE, alone=True).fit(cells, y)
    spread = torch.zeros(30, dtype=torch.float64)
    spread[0] = 3.0
    noisy = FidelityPredictor(SPACE, alone=True).fit(cells, y, y_std=spread)
    assert float(noisy.predict(cells[:1])) < float(plain.predict(cells[:1]))


def test_outlook_says_what_a_label_would_remove() -> None:
    predictor = fitted(40, 10, alone=True)
    mean, std, shares = predictor.outlook(CELLS[:60])
    torch.testing.assert_close((mean, std), predictor.predict_scores(CELLS[:60]))
    assert shares.shape == (60, 2)
    assert bool((shares[:40, 0] == 0).all())
    assert bool(((shares[40:, 0] > 0) & (shares[40:, 0] < 1)).all())
    assert bool((shares[:, 1] == 1).all())
    only_low = fitted(40, 0, alone=True).outlook(CELLS[:60])[2]
    assert bool(((only_low[40:, 0] > 0) & (only_low[40:, 0] < 1)).all())


def test_three_levels_and_a_gap() -> None:
    levels = Fidelity("epochs", (4, 12, 36, 108))
    cells = CELLS[:30]
    predictor = FidelityPredictor(SPACE, fidelity=levels, alone=True)
    y = torch.cat([LOW[cells], FULL[cells[:12]], FULL[cells[:6]]])
    predictor.fit(torch.cat([cells, cells[:12], cells[:6]]), y, fidelity=[4] * 30 + [36] * 12 + [108] * 6)
    shares = predictor.outlook(CELLS[100:120])[2]
    assert bool((shares[:, 1] == 0).all())
    assert bool((shares[:, 0] < shares[:, 2]).all())


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("full", [0, 8])
def test_saved_and_loaded(tmp_path: Path, alone: bool, full: int) -> None:
    predictor = fitted(20, full, alone=alone)
    predictor.save(tmp_path / "p.pt")
    loaded = FidelityPredictor.load(tmp_path / "p.pt", SPACE)
    assert loaded.fidelity == EPOCHS
    torch.testing.assert_close(loaded.predict(CELLS[:50]), predictor.predict(CELLS[:50]))
    loaded.save(tmp_path / "again.pt")


def test_configurations_are_saved_by_their_text(tmp_path: Path) -> None:
    space = ParameterSpace(depth=Integer(1, 20), width=Integer(1, 20))
    archs = space.sample(40, seeded(0))
    y = [float(arch["depth"]) for arch in archs]
    predictor = FidelityPredictor(space, fidelity=EPOCHS).fit(
        [*archs, *archs[:10]], [*y, *y[:10]], fidelity=[12] * 40 + [200] * 10
    )
    predictor.save(tmp_path / "p.pt")
    loaded = FidelityPredictor.load(tmp_path / "p.pt")
    torch.testing.assert_close(loaded.predict(archs), predictor.predict(archs))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"fidelity": [12, 13]}, "epochs 13 of the label at position 1"),
        ({"fidelity": [12]}, "there are 1 labels for 2"),
        ({"y_std": [0.1, -1.0]}, "y_std must not be negative, got -1 at position 1"),
        ({"y_std": [0.1, float("nan")]}, "y_std: 1 of 2 labels are missing"),
        ({"y": [0.1, float("nan")]}, "1 of 2 labels are missing"),
    ],
)
def test_bad_labels_leave_the_predictor_as_it_was(arguments: dict, match: str) -> None:
    predictor = fitted(10, 3, alone=True)
    before = predictor.predict(CELLS[:5])
    with pytest.raises(InvalidLabelsError, match=match):
        predictor.fit(CELLS[:2], **{"y": [1.0, 2.0], **arguments})
    torch.testing.assert_close(predictor.predict(CELLS[:5]), before)


def test_levels_without_a_fidelity_are_refused() -> None:
    with pytest.raises(InvalidFidelityError, match="does not know them"):
        FidelityPredictor(SPACE).fit(CELLS[:2], [1.0, 2.0], fidelity=[12, 200])
    with pytest.raises(InvalidFidelityError, match="has no levels"):
        FidelityPredictor(SPACE).fit(CELLS[:2], [1.0, 2.0]).outlook(CELLS[:2])


def test_clones_have_the_same_fidelity() -> None:
    assert clone(FidelityPredictor(SPACE, fidelity=EPOCHS)).fidelity == EPOCHS
