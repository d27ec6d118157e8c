"""The page about a search within a budget."""

from __future__ import annotations

import math

import pytest

from pyg_nas_np.cli.budget_report import label_of, predicted_of, steps_of, write_budget_report
from pyg_nas_np.cli.search_budget_journal import Journal, ProposedTraining
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.spaces import ParameterSpace

SPACE = ParameterSpace(depth=[1, 2, 3, 4], act=["<relu>", "gelu"])


@pytest.fixture
def journal(tmp_path):
    fidelity = Fidelity("epochs", (4, 12), continued=True)
    return Journal(BudgetedSearch(SPACE, fidelity, 3, initial=4), tmp_path / "s.pt")


def test_an_empty_search(journal, tmp_path):
    write_budget_report(tmp_path / "r.html", journal, "accuracy")
    text = (tmp_path / "r.html").read_text()
    assert "There is no label yet" in text
    assert "<svg" not in text


def test_curves_and_trainings(journal, tmp_path):
    while asked := journal.ask(1):
        arch = SPACE.from_str(asked[0].arch)
        journal.tell(arch, asked[0].level, math.nan if asked[0].number == 2 else arch["depth"] - 1 / asked[0].level)
    write_budget_report(tmp_path / "r.html", journal, "accuracy <%>")
    text = (tmp_path / "r.html").read_text()
    assert text.count("<svg") == 2
    assert f"depth {journal.search.best[0]['depth']}, act " in text
    assert text.count("<tr>") == 1 + len(journal.trainings)
    for state in journal.counts():
        assert f"<td>{state}</td>" in text
    assert "<relu>" not in text
    assert "<%>" not in text


def test_cells_of_the_table():
    training = ProposedTraining(1, "2026-01-01T00:00:00+00:00", "{}", 4.0, None, 0.1)
    assert (steps_of(training), predicted_of(training), label_of(training)) == ("0 → 4", "", "")
    training = ProposedTraining(1, "2026-01-01T00:00:00+00:00", "{}", 12.0, 4.0, 0.1, 0.5, 0.01, math.nan)
    assert (steps_of(training), predicted_of(training), label_of(training)) == ("4 → 12", "0.5 ± 0.01", "diverged")
