"""The pair, in studies on small networks for handwritten digits, and with scripted labels."""

from __future__ import annotations

import math
import os
import pickle
import signal
import threading
import time

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.spaces import Integer, NASBench201Space, OperationGraph, ParameterSpace, SampledGraphSpace
from pyg_nas_np.utils import InvalidFidelityError, InvalidLabelsError

optuna = pytest.importorskip("optuna")
from optuna.storages import JournalStorage, RDBStorage  # noqa: E402
from optuna.storages.journal import JournalFileBackend  # noqa: E402
from optuna.trial import TrialState, create_trial  # noqa: E402

from pyg_nas_np.integrations.optuna import BudgetedPruner, BudgetedSampler, arch_of, suggest_training  # noqa: E402
from pyg_nas_np.integrations.optuna import budget as budget_module  # noqa: E402
from pyg_nas_np.integrations.optuna.budget import CLAIM, FAILURES  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.WARNING)
SPACE = ParameterSpace(depth=Integer(1, 9), width=Integer(8, 64, step=8))
CELLS = NASBench201Space()
EPOCHS = Fidelity("epochs", (2, 10))
ON = Fidelity("epochs", (1, 3, 9), continued=True)


def label(arch, epoch):
    return (1 - 0.7**epoch) / (1 + abs(arch["depth"] - 5) + arch["width"] / 64)


def objective(trial, space=SPACE, label=label):
    arch, level, start, _ = suggest_training(trial, space)
    y = None
    for epoch in range(int(start or 0) + 1, int(level) + 1):
        y = label(arch, epoch)
        trial.report(y, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return y


def sampler(budget=3.0, space=SPACE, fidelity=EPOCHS, **options):
    return BudgetedSampler(space, fidelity, budget, **{"initial": 6, "screen": 2, **options})


def make(budget=3.0, space=SPACE, fidelity=EPOCHS, direction="maximize", storage=None, **options):
    return optuna.create_study(
        study_name="budget", storage=storage, load_if_exists=True, direction=direction, pruner=BudgetedPruner(),
        sampler=sampler(budget, space, fidelity, **options),
    )  # fmt: skip


def trainings(study, space=SPACE):
    """Architecture, level and start of all trials that train."""
    return [
        (arch_of(trial, space), trial.user_attrs["level"], trial.user_attrs["start"])
        for trial in study.trials
        if "level" in trial.user_attrs
    ]


def price(rows, fidelity=EPOCHS):
    at = fidelity.levels.index
    return sum(fidelity.price(at(level), None if start is None else at(start)) for _, level, start in rows)


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1.0), ("minimize", -1.0)])
def test_a_study_ends_by_itself_within_the_budget(direction, sign):
    study = make(4.0, direction=direction)
    study.optimize(lambda trial: objective(trial, label=lambda arch, epoch: sign * label(arch, epoch)))
    rows = trainings(study)
    assert [level for _, level, _ in rows][:7] == [2.0] * 6 + [10.0]
    assert len(set(rows)) == len(rows)
    search = study.sampler.search(study)
    assert search.spent == pytest.approx(price(rows))
    assert 3.0 < search.spent <= 4.0 + 1e-9
    assert search.pending == []
    # Only trainings to the last level are complete, so that the best trial is one of them.
    complete = study.get_trials(states=[TrialState.COMPLETE])
    assert len(complete) == [level for _, level, _ in rows].count(10.0)
    assert (arch_of(study.best_trial, SPACE), study.best_value) == search.best
    assert abs(study.best_params["depth"] - 5) <= 1
    assert set(study.best_params) == {"depth", "width"}
    # One trial found nothing left to train.
    assert sum(trial.system_attrs[CLAIM] is None for trial in study.trials) == 1
    assert study.trials[-1].state == TrialState.PRUNED


def test_continued_trainings_are_promoted_at_the_difference():
    study = make(4.0, fidelity=ON)
    study.optimize(objective)
    rows = trainings(study)
    promoted = [(arch, start) for arch, _, start in rows if start is not None]
    assert promoted
    for arch, start in promoted:
        assert any(other == arch and level >= start for other, level, _ in rows)
    search = study.sampler.search(study)
    assert search.spent == pytest.approx(price(rows, ON))
    assert search.spent <= 4.0 + 1e-9
    archs, levels, _ = search.measured
    told = list(zip(archs, levels.tolist(), strict=True))
    assert len(set(told)) == len(told)
    # Levels that a training passes are labels too.
    assert {level for arch, level in told if arch == search.best[0]} == {1.0, 3.0, 9.0}


def chain(generator):
    widths = (2 ** torch.randint(3, 8, (2,), generator=generator)).tolist()
    layers = [("linear", {"width": width}) for width in widths]
    return OperationGraph.of([("input", {}), *layers, ("output", {})], [(0, 1), (1, 2), (2, 3)])


@pytest.mark.parametrize("space", [CELLS, SampledGraphSpace(chain)], ids=["index", "text"])
def test_spaces_without_parameters(space):
    flops = space.batch_flops if space is CELLS else lambda archs: [len(space.to_str(arch)) for arch in archs]
    study = make(3.0, space)
    study.optimize(lambda trial: objective(trial, space, lambda arch, epoch: float(flops([arch])[0]) * epoch))
    rows = trainings(study, space)
    assert len(set(rows)) == len(rows)
    assert study.sampler.search(study).spent == pytest.approx(price(rows))
    assert study.sampler.search(study).best[0] == arch_of(study.best_trial, space)


def test_real_networks_on_digits():
    x, y = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
    x = x.float() / 16
    space = ParameterSpace(depth=Integer(0, 2), width=Integer(4, 64, step=4), rate=[0.003, 0.03, 0.3])
    saved = {}

    def train(trial):
        training = suggest_training(trial, space)
        arch, name = training.arch, space.to_str(training.arch)
        torch.manual_seed(0)
        hidden = [layer for _ in range(arch["depth"]) for layer in (nn.LazyLinear(arch["width"]), nn.ReLU())]
        net = nn.Sequential(*hidden, nn.LazyLinear(10))
        net(x[:2])
        optimizer = torch.optim.SGD(net.parameters(), lr=arch["rate"], momentum=0.9)
        if training.start is not None:
            net_state, optimizer_state = saved[name, training.start]
            net.load_state_dict(net_state)
            optimizer.load_state_dict(optimizer_state)
        for epoch in range(int(training.start or 0) + 1, 10):
            for rows in torch.arange(1200).split(100):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
            saved[name, epoch] = net.state_dict(), optimizer.state_dict()
            accuracy = float((net(x[1200:]).argmax(1) == y[1200:]).float().mean())
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    study = make(4.0, space, ON)
    study.optimize(train)
    assert study.best_value > 0.85
    assert study.best_trial.last_step == 9
    assert 3.0 < study.sampler.search(study).spent <= 4.0 + 1e-9


# -- several workers --------------------------------------------------------------------------------------------------


def journal(path):
    return JournalStorage(JournalFileBackend(str(path)))


def work(path, name, barrier=None):
    study = make(3.0, storage=journal(path))

    def slow(arch, epoch):
        time.sleep(0.002)
        return label(arch, epoch)

    def named(trial):
        trial.set_user_attr("worker", name)
        return objective(trial, label=slow)

    barrier.wait()
    study.optimize(named)


@pytest.mark.slow
def test_two_processes_repeat_nothing_and_keep_the_budget(tmp_path, processes):
    path = tmp_path / "journal"
    make(3.0, storage=journal(path))
    barrier = processes.Barrier(2)
    workers = [processes.Process(target=work, args=(path, i, barrier)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    study = make(3.0, storage=journal(path))
    rows = trainings(study)
    assert len(set(rows)) == len(rows)
    search = study.sampler.search(study)
    assert search.spent == pytest.approx(price(rows))
    assert 2.0 < search.spent <= 3.0 + 1e-9
    assert {trial.user_attrs.get("worker") for trial in study.trials if "level" in trial.user_attrs} == {0, 1}
    study.optimize(objective)
    assert len(trainings(study)) == len(rows)


def test_threads_share_a_sampler():
    study = make(4.0)
    study.optimize(objective, n_jobs=3)
    rows = trainings(study)
    assert len(set(rows)) == len(rows)
    assert 3.0 < study.sampler.search(study).spent <= 4.0 + 1e-9
    copied = pickle.loads(pickle.dumps(study.sampler))
    assert copied.search(study).spent == study.sampler.search(study).spent


def hang(url, ready):
    storage = RDBStorage(url, heartbeat_interval=1, grace_period=2) if "sqlite" in url else journal(url)

    def forever(trial):
        suggest_training(trial, SPACE)
        trial.report(0.3, 1)
        time.sleep(2)  # Optuna misses only heartbeats that there were.
        ready.set()
        time.sleep(600)

    make(3.0, storage=storage).optimize(forever)


@pytest.mark.parametrize("kind", ["heartbeat", "by hand"])
def test_a_killed_worker_frees_its_training(kind, tmp_path, processes):
    url = f"sqlite:///{tmp_path}/study.db" if kind == "heartbeat" else str(tmp_path / "journal")
    ready = processes.Event()
    worker = processes.Process(target=hang, args=(url, ready))
    worker.start()
    assert ready.wait(60)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(30)
    storage = RDBStorage(url, heartbeat_interval=1, grace_period=2) if kind == "heartbeat" else journal(url)
    study = make(3.0, storage=storage)
    [dead] = trainings(study)
    assert [training.arch for training in study.sampler.search(study).pending] == [dead[0]]
    assert study.sampler.search(study).spent == pytest.approx(0.2)
    if kind == "heartbeat":
        time.sleep(3)
    else:
        study.tell(0, state=TrialState.FAIL)
        search = study.sampler.search(study)
        assert (search.pending, search.spent) == ([], pytest.approx(0.0))
    study.optimize(objective)
    assert study.trials[0].state == TrialState.FAIL
    search = study.sampler.search(study)
    assert search.pending == []
    assert 2.0 < search.spent <= 3.0 + 1e-9


def test_a_worker_that_died_before_its_decision_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(budget_module, "PATIENCE_SECONDS", 0.1)
    study = make(2.5)
    study._storage.create_new_trial(study._study_id)
    study.optimize(objective)
    assert study.trials[0].state == TrialState.RUNNING
    assert len(trainings(study)) > 3


@pytest.mark.parametrize(("count", "budget"), [(1, 9.0), (2, 1.0)], ids=["architecture", "budget"])
def test_an_overtaken_worker_decides_again(count, budget, monkeypatch):
    monkeypatch.setattr(budget_module, "PATIENCE_SECONDS", 0.1)
    options = {
        "candidates": SPACE.sample(count, torch.Generator().manual_seed(1)),
        "fidelity": Fidelity("epochs", (9,)),
    }
    study = make(budget, **options)
    rival = optuna.load_study(
        study_name="budget", storage=study._storage, sampler=sampler(budget, **options), pruner=BudgetedPruner()
    )
    decide, asked = study.sampler._decision, []

    def slow(study, trial, others, attempt):
        found = decide(study, trial, others, attempt)
        asked.append(attempt if asked else rival.ask())
        return found

    monkeypatch.setattr(study.sampler, "_decision", slow)
    mine = study.ask()
    assert asked[1:] == [1]
    assert mine.number < asked[0].number
    assert suggest_training(asked[0], SPACE).price == 1.0
    with pytest.raises(optuna.TrialPruned):
        suggest_training(mine, SPACE)


def test_a_worker_that_lives_after_all_is_refused_by_optuna():
    study = make(3.0)
    trial = study.ask()
    suggest_training(trial, SPACE)
    study.tell(trial.number, state=TrialState.FAIL)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        trial.report(0.5, 2)
    assert len(study.sampler.search(study).measured[0]) == 0


def test_what_a_freed_training_measured_is_kept_and_paid():
    study = make(4.0, fidelity=ON, initial=1)
    study.optimize(objective, n_trials=1)
    trial = study.ask()
    arch, level, start, _ = suggest_training(trial, SPACE)
    assert (level, start) == (9.0, 1.0)
    trial.report(0.5, 3)
    study.tell(trial, state=TrialState.FAIL)
    search = study.sampler.search(study)
    assert search.spent == pytest.approx(3 / 9)
    assert search.measured[1].tolist() == [1.0, 3.0]
    again = suggest_training(study.ask(), SPACE)
    assert again[:3] == (arch, 9.0, 3.0)
    assert again.price == pytest.approx(6 / 9)


def test_an_architecture_that_always_fails_counts_as_diverged():
    one = [SPACE.check({"depth": 3, "width": 8}), SPACE.check({"depth": 5, "width": 8})]
    study = make(9.0, candidates=one)

    def failing(trial):
        if suggest_training(trial, SPACE).arch == one[0]:
            raise MemoryError
        return objective(trial)

    study.optimize(failing, catch=MemoryError)
    failed = study.get_trials(states=[TrialState.FAIL])
    assert len(failed) == FAILURES
    assert study.sampler.search(study).best[0] == one[1]


def test_a_worker_waits_while_a_running_training_may_be_promoted():
    study = make(9.0, candidates=[SPACE.check({"depth": 3, "width": 8})])
    running = study.ask()
    assert suggest_training(running, SPACE).level == 2.0
    waiting = threading.Thread(target=study.optimize, args=(objective,), daemon=True)
    waiting.start()
    time.sleep(0.5)
    assert waiting.is_alive()
    running.report(0.1, 2)
    study.tell(running, state=TrialState.PRUNED)
    waiting.join(30)
    assert [level for _, level, _ in trainings(study)] == [2.0, 10.0]


# -- what users do ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_diverged_trainings_end_at_once_and_are_never_repeated(bad):
    reports = []

    def broken(trial):
        level = suggest_training(trial, SPACE).level
        if trial.number == 0:
            for epoch in range(1, int(level) + 1):
                reports.append(epoch)
                trial.report(bad, epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned
        return objective(trial)

    study = make(3.0)
    study.optimize(broken)
    assert reports == [1]
    rows = trainings(study)
    assert [arch for arch, _, _ in rows].count(rows[0][0]) == 1
    search = study.sampler.search(study)
    assert math.isnan(float(search.measured[2][0]))
    assert search.spent == pytest.approx(price(rows))
    assert math.isfinite(study.best_value)


def test_reports_twice_are_the_first():
    study = make(3.0)
    trial = study.ask()
    suggest_training(trial, SPACE)
    trial.report(0.5, 2)
    with pytest.warns(UserWarning, match="already reported"):
        trial.report(0.7, 2)
    assert trial.should_prune()
    # A label counts as soon as it is reported, and before the trial ends.
    search = study.sampler.search(study)
    assert (search.measured[2].tolist(), search.pending) == ([0.5], [])


def test_wrong_reports_are_named():
    study = make(3.0, initial=1)
    trial = study.ask()
    suggest_training(trial, SPACE)
    trial.report(0.5, 1)
    assert not trial.should_prune()
    trial.report(0.5, 3)
    with pytest.raises(InvalidLabelsError, match="trial 0 reports at step 3, but left out 2, the level"):
        trial.should_prune()
    trial.report(0.5, 2)
    assert trial.should_prune()
    study.tell(trial, state=TrialState.PRUNED)
    full = study.ask()
    assert suggest_training(full, SPACE).level == 10.0
    full.report(0.5, 10)
    assert not full.should_prune()
    full.report(0.5, 11)
    with pytest.raises(InvalidLabelsError, match="trial 1 reports at step 11, beyond the last level 10"):
        full.should_prune()


def test_a_cheap_training_must_not_be_complete():
    study = make(3.0)
    with pytest.raises(InvalidLabelsError, match="trial 0 returned its label at epochs 2, and Optuna would compare it"):
        study.optimize(lambda trial: label(suggest_training(trial, SPACE).arch, 2))


def test_the_value_of_a_complete_trial_is_its_label():
    study = make(3.0, initial=1)
    study.optimize(objective, n_trials=1)
    study.optimize(lambda trial: label(suggest_training(trial, SPACE).arch, 10), n_trials=1)
    assert study.sampler.search(study).best[1] == study.best_value


def test_trials_of_others_are_labels_at_no_price():
    study = make(3.0)
    distributions = study.sampler.infer_relative_search_space(study, None)
    given = {"params": {"depth": 2, "width": 16}, "distributions": distributions}
    study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={1: 0.1, 2: 0.2}, **given))
    study.add_trial(create_trial(value=0.9, intermediate_values={2: 0.3}, **given))
    study.add_trial(create_trial(value=0.9, params={}, distributions={}))
    study.add_trial(create_trial(state=TrialState.FAIL, **given))
    search = study.sampler.search(study)
    assert (search.measured[1].tolist(), search.measured[2].tolist()) == ([2.0, 10.0], [0.2, 0.9])
    assert search.spent == 0.0
    study.optimize(objective)
    assert not any(arch == SPACE.check({"depth": 2, "width": 16}) for arch, _, _ in trainings(study))


def test_enqueued_architectures_are_trained_to_the_end(caplog):
    study = make(1.3)
    optuna.logging.enable_propagation()
    study.enqueue_trial({"depth": 4, "width": 24})
    study.enqueue_trial({"depth": 4, "width": 32})
    study.optimize(objective)
    optuna.logging.disable_propagation()
    assert trainings(study)[0] == (SPACE.check({"depth": 4, "width": 24}), 10.0, None)
    assert study.trials[1].state == TrialState.PRUNED
    assert "trial 1 was enqueued, but is pruned" in caplog.text
    assert study.sampler.search(study).spent <= 1.3
    study.enqueue_trial({"depth": 4})
    with pytest.raises(ValueError, match=r"which is no whole architecture of .*; give all its parameters"):
        study.optimize(objective)
    assert study.trials[-1].state == TrialState.FAIL


def test_a_raised_budget_goes_on():
    study = make(2.0)
    study.optimize(objective)
    before = len(trainings(study))
    study.sampler = sampler(4.0)
    study.optimize(objective)
    rows = trainings(study)
    assert len(rows) > before
    assert len(set(rows)) == len(rows)
    assert 3.0 < study.sampler.search(study).spent <= 4.0 + 1e-9


def test_the_first_trainings_are_those_of_a_search():
    study = make(2.0, candidates=SPACE.sample(9, torch.Generator().manual_seed(1)), initial=4)
    study.optimize(objective, n_trials=5)
    rows = trainings(study)
    assert [level for _, level, _ in rows] == [2.0] * 4 + [10.0]
    assert rows[4][0] == max((arch for arch, _, _ in rows[:4]), key=lambda arch: label(arch, 2))
    assert isinstance(study.sampler.search(study), BudgetedSearch)


def test_other_studies_are_refused():
    study = optuna.create_study(sampler=sampler())
    with pytest.raises(ValueError, match=r"needs pruner=BudgetedPruner\(\) to end trainings at their levels.*Median"):
        study.ask()
    assert study.trials[0].state == TrialState.FAIL
    study = optuna.create_study(directions=["maximize"] * 2, sampler=sampler(), pruner=BudgetedPruner())
    with pytest.raises(ValueError, match="needs one objective, this study has 2"):
        study.ask()
    study = make(3.0)
    study.optimize(objective, n_trials=2)
    study.sampler = sampler(fidelity=Fidelity("epochs", (3, 10)))
    with pytest.raises(ValueError, match=r"trial 0 has the levels \[2.0, 10.0\], the sampler \[3.0, 10.0\]"):
        study.ask()
    study.sampler = sampler(space=ParameterSpace(depth=Integer(1, 10), width=Integer(8, 64, step=8)))
    with pytest.raises(ValueError, match="use one study for one space"):
        study.ask()


def test_wrong_arguments_are_named():
    with pytest.raises(InvalidFidelityError, match=r"share of data 0.25 cannot be a step of Optuna.*percent"):
        sampler(fidelity=Fidelity("share of data", (0.25, 1)))
    with pytest.raises(ValueError, match="budget must be positive, got 0"):
        sampler(0)
    trial = optuna.create_study().ask()
    with pytest.raises(ValueError, match=r"create its study with sampler=BudgetedSampler"):
        suggest_training(trial, SPACE)
    assert not trial.should_prune()


def test_an_asked_trial_without_budget_is_pruned():
    study = make(0.5)
    with pytest.raises(optuna.TrialPruned, match="the budget is spent"):
        suggest_training(study.ask(), SPACE)
