"""A search within a budget and its trainings in one file."""

from __future__ import annotations

import math

import pytest

from pyg_nas_np.cli.search_budget_journal import Journal, stored_space
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.spaces import ParameterSpace
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError

SPACE = ParameterSpace({"depth": [1, 2, 3, 4], "width": [8, 16, 32]}, name="own")


def journal(path, space=SPACE, levels=(4, 12), budget=3.0, **more):
    search = BudgetedSearch(space, Fidelity("epochs", levels, continued=True), budget, initial=4, **more)
    return Journal(search, path)


def finish(made, training):
    arch = SPACE.from_str(training.arch)
    made.tell(arch, training.level, arch["depth"] + arch["width"] / 32 - 1 / training.level)


def test_what_is_saved_comes_back(tmp_path):
    path = tmp_path / "s.pt"
    made = journal(path)
    for _ in range(4):
        finish(made, made.ask(1)[0])
    waiting = made.ask(1)[0]
    made.save()
    again = journal(path)
    assert again.trainings == made.trainings
    assert again.search.spent == made.search.spent
    assert [training.level for training in again.search.pending] == [waiting.level]
    assert stored_space(path).declaration() == SPACE.declaration()


def test_the_states_of_trainings(tmp_path):
    made = journal(tmp_path / "s.pt")
    while asked := made.ask(1):
        finish(made, asked[0])
    counts = made.counts()
    assert made.search.spent <= 3.0 + 1e-9
    assert sum(counts.values()) == len(made.trainings)
    assert {"stopped", "went on", "finished"} == set(counts)
    assert [d.order for d in made.trainings] == list(range(1, len(made.trainings) + 1))
    assert any(d.mean is not None and d.std > 0 for d in made.trainings)


def test_diverged_and_released(tmp_path):
    made = journal(tmp_path / "s.pt")
    first, second = made.ask(2)
    made.tell(SPACE.from_str(first.arch), first.level, math.inf)
    spent = made.search.spent
    made.release(second.number)
    assert made.search.spent == pytest.approx(spent - second.price)
    assert [made.state_of(d) for d in (first, second)] == ["diverged", "released"]
    for number in (first.number, second.number, 0, 99):
        with pytest.raises(ValueError, match="is not running"):
            made.release(number)


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"space": ParameterSpace({"depth": [1, 2]}, name="own")}, InvalidArchitectureError, "another declaration"),
        ({"levels": (4, 13)}, DataFileError, "fidelity"),
        ({"maximize": False}, DataFileError, "maximize"),
        ({"budget": 0.1}, DataFileError, "raise --budget"),
    ],
)
def test_states_of_other_searches(tmp_path, more, error, said):
    made = journal(tmp_path / "s.pt")
    made.ask(2)
    made.save()
    with pytest.raises(error, match=said):
        journal(tmp_path / "s.pt", **more)


def test_the_budget_may_be_raised(tmp_path):
    made = journal(tmp_path / "s.pt")
    made.ask(1)
    made.save()
    assert journal(tmp_path / "s.pt", budget=9.0).search.left == pytest.approx(9.0 - made.search.spent)


def test_damaged_files(tmp_path):
    (tmp_path / "s.pt").write_bytes(b"no state")
    with pytest.raises(DataFileError, match="start a new search"):
        journal(tmp_path / "s.pt")
