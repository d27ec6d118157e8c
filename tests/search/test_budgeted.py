from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.spaces import Integer, NASBench201Space, ParameterSpace
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, InvalidFidelityError, InvalidLabelsError, seeded

EPOCHS = Fidelity("epochs", (12, 200))
SPACE = ParameterSpace(depth=Integer(1, 20), width=Integer(1, 20), kernel=Integer(1, 5))


def label(arch: Any, level: float = 200) -> float:
    y = -((arch["depth"] - 13) ** 2) - 0.5 * (arch["width"] - 7) ** 2 - 3 * (arch["kernel"] - 3) ** 2
    return y + (0.0 if level == 200 else math.sin(31 * y) * 5)


def search(budget: float = 10.0, **options: Any) -> BudgetedSearch:
    return BudgetedSearch(SPACE, options.pop("fidelity", EPOCHS), budget, **{"initial": 12, **options})


def run(search: BudgetedSearch, steps: int = 10_000, batch: int = 1) -> BudgetedSearch:
    for _ in range(steps):
        trainings = search.ask(batch)
        if not trainings:
            break
        for arch, level, _, _ in trainings:
            search.tell([arch], level, [label(arch, level)])
    return search


@pytest.mark.parametrize("continued", [False, True])
@pytest.mark.parametrize("budget", [1.1, 1.5, 2.3])
def test_cheap_trainings_leave_enough_for_a_full_one(budget: float, continued: bool) -> None:
    levels = Fidelity("epochs", (2, 10), continued=continued)
    done = run(search(budget, fidelity=levels, initial=6, first=1))
    assert done.spent <= budget + 1e-9
    assert done.best[1] <= 0.0
    # What is left would not have paid for another one.
    assert done.left < 1.0


@pytest.fixture(scope="module")
def done() -> BudgetedSearch:
    """A search that has ended, to look at."""
    return run(search())


def test_finds_nearly_the_best_within_the_budget(done: BudgetedSearch) -> None:
    assert done.spent <= 10.0 + 1e-9
    assert done.left < 1.0
    assert done.best[1] >= -2.0
    levels = done.measured[1].tolist()
    assert levels[:12] == [12.0] * 12
    assert levels.count(200.0) >= 5


def test_smaller_labels_may_be_better() -> None:
    mirrored = search(maximize=False)
    while trainings := mirrored.ask():
        for arch, level, _, _ in trainings:
            mirrored.tell([arch], level, [-label(arch, level)])
    assert mirrored.best[1] <= 2.0


def test_a_resumed_search_goes_on_as_the_original(tmp_path: Path) -> None:
    first = run(search(), steps=18)
    first.ask()
    first.save(tmp_path / "state.pt")
    again = search().resume(tmp_path / "state.pt")
    assert (again.spent, again.pending) == (first.spent, first.pending)
    for one in (first, again):
        for arch, level, _, _ in one.pending:
            one.tell([arch], level, [label(arch, level)])
        run(one, steps=6)
    assert [*again.measured[0]] == [*first.measured[0]]
    assert again.measured[1].tolist() == first.measured[1].tolist()
    assert pickle.loads(pickle.dumps(first)).spent == first.spent


def test_a_state_with_diverged_trainings_is_restored(tmp_path: Path) -> None:
    first = search()
    [training] = first.ask()
    first.tell([training.arch], 12, [math.nan])
    first.save(tmp_path / "state.pt")
    again = search().resume(tmp_path / "state.pt")
    assert math.isnan(float(again.measured[2]))


def test_states_of_other_searches_are_refused(tmp_path: Path) -> None:
    run(search(), steps=3).save(tmp_path / "state.pt")
    with pytest.raises(DataFileError, match="fidelity"):
        search(fidelity=Fidelity("epochs", (13, 200))).resume(tmp_path / "state.pt")
    with pytest.raises(DataFileError, match="maximize"):
        search(maximize=False).resume(tmp_path / "state.pt")
    with pytest.raises(InvalidArchitectureError, match="the state is from"):
        BudgetedSearch(NASBench201Space(), EPOCHS, 5.0).resume(tmp_path / "state.pt")
    state = run(search(), steps=3).state_dict() | {"positions": [0, 0]}
    untouched = run(search(), steps=2)
    with pytest.raises(DataFileError):
        untouched.load_state_dict(state)
    assert len(untouched.measured[0]) == 2


def test_several_workers_get_different_trainings() -> None:
    busy = search(budget=20.0)
    trainings = busy.ask(20)
    assert len({(training.arch, training.level) for training in trainings}) == 20
    for arch, level, _, _ in reversed(trainings):
        busy.tell([arch], level, [label(arch, level)])
    more = busy.ask(6)
    assert len({(training.arch, training.level) for training in more}) == 6
    assert len(busy.pending) == 6


def test_a_dead_worker_frees_its_training() -> None:
    dying = run(search(), steps=12)
    [training] = dying.ask()
    spent = dying.spent
    dying.release([training.arch], training.level, paid=0.25)
    assert dying.spent == pytest.approx(spent - 0.75 * training.price)
    assert dying.pending == []
    assert dying.ask()[0][:2] == training[:2]
    with pytest.raises(ValueError, match="is not pending at epochs 12; release what"):
        dying.release([training.arch], 12)
    with pytest.raises(ValueError, match="share of the price between 0 and 1, got 2"):
        dying.release([training.arch], 200, paid=2)


def test_own_choices_are_paid_and_pending() -> None:
    own = search(1.1)
    arch = SPACE.sample(1, seeded(5))
    [training] = own.reserve(arch, 200)
    assert training == own.pending[0] == (arch[0], 200.0, None, 1.0)
    assert own.left == pytest.approx(0.1)
    with pytest.raises(ValueError, match="at epochs 200 is pending or measured, or has diverged"):
        own.reserve(arch, 200)
    with pytest.raises(ValueError, match=r"at epochs 200 costs 1, but 0\.1 is left; raise the budget"):
        own.reserve(SPACE.sample(1, seeded(6)), 200)
    with pytest.raises(InvalidLabelsError, match="epochs 13 of the label"):
        own.reserve(arch, 13)
    own.tell(arch, 200, [3.0])
    assert own.best == (arch[0], 3.0)
    assert own.left == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_diverged_trainings_are_never_proposed_again(bad: float) -> None:
    worst = run(search(), steps=12)
    [training] = worst.ask()
    assert training.level == 200
    worst.tell([training.arch], 200, [bad])
    with pytest.raises(InvalidLabelsError, match="no training reached epochs 200 yet"):
        _ = worst.best
    run(worst)
    asked = [*worst.measured[0]]
    assert asked.count(training.arch) == 2
    assert math.isfinite(worst.best[1])


def test_a_stopped_training_is_never_the_best() -> None:
    cheap = search()
    cheap.tell(SPACE.sample(3, seeded(0)), 12, [1e6, 2e6, 3e6])
    with pytest.raises(InvalidLabelsError, match="no training reached epochs 200"):
        _ = cheap.best


def test_labels_twice_late_and_unasked_cost_nothing() -> None:
    late = search()
    [training] = late.ask()
    other = SPACE.sample(1, seeded(9))
    late.tell(other, [200], [1.0])
    late.tell(other, 12, [0.5])
    late.tell([training.arch] * 2, 12, [1.0, 1.1])
    assert late.spent == pytest.approx(0.06)
    assert len(late.measured[0]) == 4
    run(late)


@pytest.mark.parametrize(
    ("level", "y", "match"),
    [
        (201, [1.0], "epochs 201 of the label at position 0 is none of the levels 12, 200"),
        (12, [1.0, 2.0], "there are 2 labels for 1"),
        ([12, 12], [1.0], "there are 2 labels for 1"),
        (12, ["a"], "labels must be numbers"),
    ],
)
def test_bad_labels_change_nothing(level: Any, y: Any, match: str) -> None:
    asked = search()
    [training] = asked.ask()
    with pytest.raises(InvalidLabelsError, match=match):
        asked.tell([training.arch], level, y)
    assert len(asked.pending) == 1


def test_continued_trainings_pay_the_difference_and_report_on_the_way() -> None:
    levels = Fidelity("epochs", (1, 4, 20), continued=True)
    curves = search(6.0, fidelity=levels)
    paid: dict[Any, float] = {}
    while trainings := curves.ask():
        for arch, level, start, price in trainings:
            paid[arch] = paid.get(arch, 0.0) + price
            assert paid[arch] == pytest.approx(level / 20)
            for passed in (1, 4, 20):
                if (start or 0) < passed <= level:
                    curves.tell([arch], passed, [label(arch, 200) + (20 - passed)])
    assert curves.spent == pytest.approx(sum(paid.values()))
    assert curves.spent <= 6.0 + 1e-9


def test_prices_by_architecture() -> None:
    priced = search(60.0, price=lambda archs: torch.tensor([float(arch["width"]) for arch in archs]))
    run(priced)
    archs, levels, _ = priced.measured
    expected = sum(arch["width"] * (1.0 if level == 200 else 0.06) for arch, level in zip(archs, levels, strict=True))
    assert priced.spent == pytest.approx(expected)
    with pytest.raises(ValueError, match="prices must be positive numbers"):
        search(price=lambda archs: torch.full((len(archs),), -1.0)).ask()
    with pytest.raises(ValueError, match="cost must be a function or one of none, got 'seconds'"):
        search(price="seconds")


def test_ends_early_where_little_is_to_gain(done: BudgetedSearch) -> None:
    hasty = run(search(least_gain=5.0))
    assert hasty.spent < done.spent
    assert hasty.prospect().gain < 5.0


def test_ends_where_every_candidate_is_trained() -> None:
    few = BudgetedSearch(SPACE, EPOCHS, math.inf, candidates=SPACE.sample(5, seeded(0)))
    assert len({arch for arch, level in zip(*run(few).measured[:2], strict=True) if level == 200}) == 5
    assert few.ask() == []
    assert few.prospect() == (0.0, 0.0)


def test_prospects_shrink_with_the_margin_and_the_trainings(done: BudgetedSearch) -> None:
    begun = search()
    assert begun.prospect() == (1.0, math.inf)
    for training in begun.ask(12):
        begun.tell([training.arch], 200, [label(training.arch)])
    chances = [begun.prospect(margin).probability for margin in (0.0, 1.0, 10.0, 1e6)]
    assert chances == sorted(chances, reverse=True)
    assert 0.0 < chances[0] <= 1.0
    assert chances[-1] < 0.2
    assert begun.prospect() == begun.prospect()
    assert done.prospect().gain < begun.prospect().gain
    with pytest.raises(ValueError, match="margin must be at least 0, got -1"):
        begun.prospect(-1.0)


def test_prospects_do_not_depend_on_the_direction() -> None:
    up, down = search(), search(maximize=False)
    for training in up.ask(12):
        up.tell([training.arch], 200, [label(training.arch)])
        down.tell([training.arch], 200, [-label(training.arch)])
    for a, b in zip(up.prospect(1.0), down.prospect(1.0), strict=True):
        assert a == pytest.approx(b, rel=0.2, abs=0.02)


def test_a_budget_below_one_training_buys_nothing() -> None:
    assert search(0.5).ask() == []


def test_large_spaces_are_searched_by_proposals() -> None:
    space = ParameterSpace({f"p{i}": Integer(0, 99) for i in range(6)})
    large = BudgetedSearch(space, EPOCHS, 5.0, initial=10, proposals=50)
    while trainings := large.ask():
        for arch, level, _, _ in trainings:
            large.tell([arch], level, [float(arch["p0"])])
    assert large.best[1] > 50


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"budget": 0.0}, "budget must be positive, got 0"),
        ({"budget": math.nan}, "budget must be positive, got nan"),
        ({"initial": 0}, "initial must be at least 1, got 0"),
        ({"screen": 1.5}, "screen must be a whole number"),
        ({"beta": -1.0}, "beta must be at least 0, got -1"),
        ({"least_gain": math.inf}, "least_gain must be at least 0, got inf"),
    ],
)
def test_numbers_out_of_range(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        search(**arguments)


def test_a_fidelity_is_needed() -> None:
    with pytest.raises(InvalidFidelityError, match=r"must be a Fidelity\('epochs', \(12, 200\)\), got 'epochs'"):
        BudgetedSearch(SPACE, "epochs", 5.0)  # type: ignore[arg-type]
