from __future__ import annotations

import math

import pytest

from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.utils import InvalidFidelityError, InvalidLabelsError


def test_prices_are_proportional_to_the_levels_unless_given() -> None:
    assert Fidelity("epochs", (12, 200)).prices == (0.06, 1.0)
    assert Fidelity("image size", (16, 32), prices=(30, 120)).prices == (0.25, 1.0)


def test_a_continued_training_pays_the_difference() -> None:
    epochs = Fidelity("epochs", (5, 10, 20), continued=True)
    assert [epochs.price(2, start) for start in (None, 0, 1)] == [1.0, 0.75, 0.5]
    assert Fidelity("epochs", (5, 10, 20)).price(2, 0) == 1.0


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"name": "", "levels": (1, 2)}, "needs a name"),
        ({"name": "epochs", "levels": ()}, "no levels of epochs"),
        ({"name": "epochs", "levels": (200, 12)}, "12 follows 200; give the cheapest first"),
        ({"name": "epochs", "levels": (12, 12)}, "must increase"),
        ({"name": "epochs", "levels": (0, 12)}, "must be positive, got 0"),
        ({"name": "epochs", "levels": (1, math.nan)}, "must be positive, got nan"),
        ({"name": "epochs", "levels": ("a",)}, "sequence of numbers"),
        ({"name": "epochs", "levels": 12}, "sequence of numbers"),
        ({"name": "epochs", "levels": (1, 2), "prices": (1,)}, "2 levels 1, 2 and 1 prices"),
        ({"name": "epochs", "levels": (1, 2), "prices": (-1, 1)}, "must be positive, got -1"),
        ({"name": "epochs", "levels": (1, 2), "prices": (2, 1)}, "must not fall, but 1 follows 2"),
    ],
)
def test_contradictions_name_value_and_cure(arguments: dict, match: str) -> None:
    with pytest.raises(InvalidFidelityError, match=match):
        Fidelity(**arguments)


def test_positions_of_levels() -> None:
    epochs = Fidelity("epochs", (4, 12, 36))
    assert epochs.positions([36, 4, 12]).tolist() == [2, 0, 1]
    with pytest.raises(
        InvalidLabelsError, match="epochs 108 of the label at position 1 is none of the levels 4, 12, 36"
    ):
        epochs.positions([4, 108])
    with pytest.raises(InvalidLabelsError, match="epochs of the labels: there are 1 labels for 2"):
        epochs.positions([4], 2)


def test_plain_types_make_the_same() -> None:
    given = Fidelity("share of data", (0.1, 1.0), continued=True)
    assert Fidelity(**given.to_dict()) == given


NAN = math.nan


def test_curves_are_labels_at_the_levels_that_they_reach() -> None:
    epochs = Fidelity("epochs", (1, 3, 5))
    row, y, position = epochs.labels_of_curves([[0.1, 0.2, 0.3, 0.4], [0.5, NAN, NAN, NAN], [NAN, 0.6, 0.7, NAN]])
    assert row.tolist() == [0, 1, 0, 2]
    assert position.tolist() == [0, 0, 1, 1]
    assert y.tolist() == [0.1, 0.5, 0.3, 0.7]


@pytest.mark.parametrize(
    ("levels", "curves", "error", "match"),
    [
        ((1, 2.5), [[0.1]], InvalidFidelityError, "2.5 of epochs is none"),
        ((1, 2), [[0.1], [0.1, 0.2]], InvalidLabelsError, "rows of numbers of equal length"),
        ((1, 2), [0.1, 0.2], InvalidLabelsError, r"shape \[2\]; one row of values for each of 2"),
        ((1, 2), [[0.1]], InvalidLabelsError, r"shape \[1, 1\]; one row of values for each of 2"),
        ((1, 2), [[0.1, 0.2], [0.1, math.inf]], InvalidLabelsError, "position 1 is infinite"),
        ((2, 3), [[0.1, 0.2], [0.1, NAN]], InvalidLabelsError, "position 1 has no value at epochs 2, 3; name a level"),
    ],
)
def test_unusable_curves_are_named(levels: tuple, curves: list, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Fidelity("epochs", levels).labels_of_curves(curves, 2)
