"""The pruner, on in-memory, database and journal storage, and shared by two processes."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

optuna = pytest.importorskip("optuna")

from optuna.storages import InMemoryStorage, JournalStorage  # noqa: E402
from optuna.storages.journal import JournalFileBackend  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

from pyg_nas_np.curves import LastSeenValue, SequentialRegression  # noqa: E402
from pyg_nas_np.integrations.optuna import CurvePruner  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.ERROR)
STEPS = 15


def make_pruner(**kwargs):
    kwargs = {"predictor": SequentialRegression("ols"), "burn_in": 8, "refit_every": 4, **kwargs}
    return CurvePruner(**kwargs)


def curve(height, step):
    return height * (1 - 0.75 ** (step + 1))


def objective(trial, sign=1.0):
    height = trial.suggest_float("height", 0.3, 0.9)
    trial.suggest_categorical("optimizer", ["adam", "sgd"])
    for step in range(STEPS):
        trial.report(sign * curve(height, step), step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return sign * curve(height, STEPS - 1)


def make_study(direction="maximize", pruner=None, storage=None, **kwargs):
    sampler = optuna.samplers.RandomSampler(seed=0)
    pruner = make_pruner() if pruner is None else pruner
    return optuna.create_study(direction=direction, sampler=sampler, pruner=pruner, storage=storage, **kwargs)


def states(study):
    return [t.state for t in study.trials]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_it_prunes_the_hopeless_only(direction):
    sign = 1.0 if direction == "maximize" else -1.0
    study = make_study(direction)
    study.optimize(lambda trial: objective(trial, sign), n_trials=40)
    assert set(states(study)[:8]) == {TrialState.COMPLETE}
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert len(pruned) > 15
    assert max(t.last_step for t in pruned) < STEPS - 1
    heights = [t.params["height"] for t in study.trials]
    assert study.best_params["height"] == max(heights)


def storages(tmp_path):
    return {
        "memory": InMemoryStorage(),
        "database": f"sqlite:///{tmp_path}/study.db",
        "journal": JournalStorage(JournalFileBackend(str(tmp_path / "study.log"))),
    }


@pytest.mark.parametrize("kind", ["memory", "database", "journal"])
def test_storages_agree(kind, tmp_path):
    study = make_study(storage=storages(tmp_path)[kind])
    study.optimize(objective, n_trials=14)
    reference = make_study()
    reference.optimize(objective, n_trials=14)
    assert [(t.state, t.last_step) for t in study.trials] == [(t.state, t.last_step) for t in reference.trials]


def test_a_pruner_without_memory_decides_alike():
    """A fresh pruner for every decision sees what a worker that joins late sees."""
    study = make_study(pruner=optuna.pruners.NopPruner())
    study.optimize(objective, n_trials=14)
    for refit_every in (1, 4):
        veteran = make_pruner(refit_every=refit_every)
        for _ in range(3):
            trial = study.ask()
            height = trial.suggest_float("height", 0.3, 0.9)
            trial.suggest_categorical("optimizer", ["adam", "sgd"])
            for step in range(4):
                trial.report(curve(height, step), step)
                frozen = study._storage.get_trial(trial._trial_id)
                fresh = pickle.loads(pickle.dumps(make_pruner(refit_every=refit_every)))
                assert veteran.decide(study, frozen) == fresh.decide(study, frozen)
            study.tell(trial, curve(height, STEPS - 1))


WORKER = """
import sys
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
sys.path.insert(0, sys.argv[2])
from test_pruner import make_pruner, objective

kind, path = sys.argv[1], sys.argv[3]
storage = path if kind == "database" else JournalStorage(JournalFileBackend(path))
study = optuna.load_study(
    study_name="shared", storage=storage, sampler=optuna.samplers.RandomSampler(seed=int(sys.argv[4])),
    pruner=make_pruner(),
)
study.optimize(objective, n_trials=12)
"""


@pytest.mark.parametrize("kind", ["journal", "database"])
def test_two_processes_share_a_study(kind, tmp_path, pytestconfig):
    from pathlib import Path

    path = f"sqlite:///{tmp_path}/study.db" if kind == "database" else str(tmp_path / "study.log")
    study = make_study(storage=path if kind == "database" else storages(tmp_path)["journal"], study_name="shared")
    here = str(Path(__file__).parent)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, kind, here, path, str(seed)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=pytestconfig.rootpath,
        )
        for seed in (1, 2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors
    assert len(study.trials) == 24
    assert set(states(study)) == {TrialState.COMPLETE, TrialState.PRUNED}
    assert states(study).count(TrialState.PRUNED) >= 4
    assert study.best_params["height"] == max(t.params["height"] for t in study.trials)


def report(study, values):
    trial = study.ask()
    trial.suggest_float("height", 0.3, 0.9)
    trial.suggest_categorical("optimizer", ["adam", "sgd"])
    for step, value in values.items():
        trial.report(value, step)
    return study._storage.get_trial(trial._trial_id)


@pytest.fixture
def grown():
    study = make_study(pruner=optuna.pruners.NopPruner())
    study.optimize(objective, n_trials=12)
    return study


def test_why_it_does_not_prune(grown):
    pruner = make_pruner()
    assert pruner.decide(make_study(), report(make_study(), {})).reason == "no value yet"
    assert pruner.decide(make_study(), report(make_study(), {0: 0.1})).reason.startswith("0 of 8 trials")
    assert pruner.decide(grown, report(grown, {STEPS - 1: 0.1})).reason == "already at the last step"
    assert "other steps" in pruner.decide(make_grown_by_twos(), report(grown, {1: 0.1})).reason
    nan = report(grown, {0: 0.01, 1: float("nan")})
    assert pruner.decide(grown, nan).reason == "the latest value is not finite"
    assert pruner.prune(grown, report(grown, {0: 0.01, 1: 0.02, 2: 0.03}))
    assert not make_pruner(min_steps=4).prune(grown, report(grown, {0: 0.01, 1: 0.02, 2: 0.03}))


def make_grown_by_twos():
    study = make_study(pruner=optuna.pruners.NopPruner())
    for number in range(10):
        trial = study.ask()
        for step in range(0, 10, 2):
            trial.report(curve(0.5 + 0.03 * number, step), step)
        study.tell(trial, 0.5)
    return study


def test_several_objectives_are_refused():
    study = optuna.create_study(directions=["maximize", "minimize"])
    trial = study.ask()
    with pytest.raises(ValueError, match="single objective, but the study has 2"):
        make_pruner().prune(study, study._storage.get_trial(trial._trial_id))


class Always(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return True


def test_wrapping(grown):
    good = report(grown, {0: 0.5, 1: 0.6})
    assert not make_pruner().prune(grown, good)
    assert make_pruner(wrapped_pruner=Always()).prune(grown, good)
    patient = optuna.pruners.PatientPruner(make_pruner(), patience=1)
    bad = report(grown, {0: 0.03, 1: 0.02, 2: 0.01, 3: 0.005})
    assert patient.prune(grown, bad)
    assert not patient.prune(grown, report(grown, {0: 0.01, 1: 0.02, 2: 0.03, 3: 0.04}))


def test_predicted_values(grown):
    pruner = make_pruner()
    trial = report(grown, {step: curve(0.6, step) for step in range(5)})
    assert pruner.predicted_value(grown, trial) == pytest.approx(curve(0.6, STEPS - 1), abs=0.05)
    assert pruner.predicted_value(make_study(), trial) == pytest.approx(curve(0.6, 4))
    with pytest.raises(ValueError, match="has reported nothing"):
        pruner.predicted_value(grown, report(grown, {}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delta": 2.0}, "delta"),
        ({"burn_in": 1}, "burn_in"),
        ({"min_steps": 0}, "min_steps"),
        ({"refit_every": 0}, "refit_every"),
        ({"nth_best": 0}, "nth_best"),
        ({"offset": -0.1}, "offset"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        CurvePruner(predictor=LastSeenValue(), **arguments)
