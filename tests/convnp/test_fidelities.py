from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.base import clone

from pyg_nas_np.convnp.fidelities import FidelityPredictor
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.spaces import Integer, NASBench201Space, ParameterSpace
from pyg_nas_np.utils import InvalidFidelityError, InvalidLabelsError, seeded

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
