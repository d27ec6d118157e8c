"""The pruner, on in-memory, database and journal storage, and shared by two processes."""

from __future__ import annotations

import logging
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

optuna = pytest.importorskip("optuna")

from optuna.distributions import CategoricalDistribution, FloatDistribution  # noqa: E402
from optuna.storages import InMemoryStorage, JournalStorage  # noqa: E402
from optuna.storages.journal import JournalFileBackend  # noqa: E402
from optuna.trial import TrialState, create_trial  # noqa: E402

from pyg_nas_np.curves import CurveConvNP, LastSeenValue, SequentialRegression  # noqa: E402
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


def work(storage, seed):
    study = optuna.load_study(
        study_name="shared", storage=storage, sampler=optuna.samplers.RandomSampler(seed=seed), pruner=make_pruner()
    )
    study.optimize(objective, n_trials=12)


@pytest.mark.parametrize("kind", ["journal", "database"])
def test_two_processes_share_a_study(kind, tmp_path, processes):
    study = make_study(storage=storages(tmp_path)[kind], study_name="shared")
    workers = [processes.Process(target=work, args=(storages(tmp_path)[kind], seed)) for seed in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
        assert worker.exitcode == 0
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


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_by_default_it_prunes_from_the_third_complete_trial_on(direction):
    sign = 1.0 if direction == "maximize" else -1.0
    study = make_study(direction, CurvePruner())
    study.optimize(lambda trial: objective(trial, sign), n_trials=30)
    found = states(study)
    assert found[:3] == [TrialState.COMPLETE] * 3
    assert found.count(TrialState.PRUNED) >= 15
    heights = [trial.params["height"] for trial in study.trials]
    assert study.best_params["height"] == max(heights)
    # Another pruner has only the storage, and decides alike.
    trial = report(study, {step: sign * curve(0.5, step) for step in range(6)})
    assert CurvePruner().decide(study, trial) == study.pruner.decide(study, trial)


def test_pruned_trials_are_data_of_the_default_only():
    study = make_study(pruner=CurvePruner())
    make_complete(study, *({step: curve(height, step) for step in range(STEPS)} for height in (0.6, 0.75, 0.9)))
    trial = report(study, {0: 0.1, 1: 0.2, 2: 0.3})
    pruners = [CurvePruner(), make_pruner(burn_in=3)]
    before = [pruner.decide(study, trial) for pruner in pruners]
    study.add_trial(
        create_trial(
            state=TrialState.PRUNED,
            intermediate_values={step: curve(0.5, step) for step in range(9)},
            params={"height": 0.5},
            distributions={"height": FloatDistribution(0.3, 0.9)},
        )
    )
    after = [pruner.decide(study, trial) for pruner in pruners]
    assert after[0].predicted != before[0].predicted
    assert after[1] == before[1]
    # One without the shared parameters is left out.
    study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={0: 0.3, 1: 0.4, 5: 0.5}))
    assert pruners[0].decide(study, trial) == after[0]


# -- what other trials may have done ----------------------------------------------------------------------------------


def make_complete(study, *histories):
    for history in histories:
        params, distributions = {"height": 0.5}, {"height": optuna.distributions.FloatDistribution(0.3, 0.9)}
        study.add_trial(
            create_trial(value=0.5, intermediate_values=history, params=params, distributions=distributions)
        )


ODD = {
    "resumed": {step: curve(0.6, step) for step in range(7, STEPS)},
    "only the end": {STEPS - 1: 0.6},
    "gaps": {step: curve(0.6, step) for step in (0, 3, 4, 9, STEPS - 1)},
    "starts with NaN": {step: curve(0.6, step) if step > 3 else float("nan") for step in range(STEPS)},
    "NaN inside": {step: curve(0.6, step) if step != 3 else float("nan") for step in range(STEPS)},
    "infinite": {step: curve(0.6, step) if step != 5 else float("inf") for step in range(STEPS)},
    "starts late": {step + 5: curve(0.6, step) for step in range(STEPS)},
    "float steps": {float(step): curve(0.6, step) for step in range(STEPS)},
    "between steps": {**{step + 0.5: 0.1 for step in range(5)}, STEPS - 1: 0.6},
    "out of order": {step: curve(0.6, step) for step in reversed(range(STEPS))},
    "nothing": {},
}


@pytest.mark.parametrize("history", ODD.values(), ids=ODD)
def test_one_odd_trial_does_not_matter(grown, history):
    make_complete(grown, history)
    for refit_every in (1, 20):
        pruner = make_pruner(refit_every=refit_every)
        assert pruner.prune(grown, report(grown, {0: 0.01, 1: 0.02, 2: 0.03}))
        assert not pruner.prune(grown, report(grown, {step: curve(0.95, step) for step in range(3)}))


@pytest.mark.parametrize("history", ODD.values(), ids=ODD)
def test_a_running_trial_may_be_odd(grown, history):
    before_the_end = {step: value for step, value in history.items() if step < STEPS - 1}
    trial = create_trial(state=TrialState.RUNNING, intermediate_values=before_the_end)
    decision = make_pruner().decide(grown, trial)
    assert decision.reason
    assert not math.isinf(decision.predicted)


def test_a_study_of_resumed_trials_says_why_it_does_not_prune(caplog):
    study = make_study()
    make_complete(study, *({step: curve(0.5 + i / 50, step) for step in range(5, STEPS)} for i in range(10)))
    make_complete(study, *({step: curve(0.5 + i / 40, step) for step in range(STEPS)} for i in range(10)))
    # The first steps are known of ten trials: enough for one predictor. Of three they are not enough for another.
    assert make_pruner().prune(study, report(study, {0: 0.01, 1: 0.02}))
    study = make_study()
    make_complete(study, *({step: curve(0.5 + i / 50, step) for step in range(5, STEPS)} for i in range(3)))
    make_complete(study, *({step: curve(0.5 + i / 40, step) for step in range(STEPS)} for i in range(3)))
    few = make_pruner(burn_in=6, predictor=CurveConvNP(steps=1))
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            decision = few.decide(study, report(study, {0: 0.01, 1: 0.02}))
    assert decision.reason == (
        "the trials cannot be judged: CurveConvNP needs 6 finished curves with a value among their first 2, but only "
        "3 of 6 have one"
    )
    assert len(caplog.records) == 1


def test_parameters_and_steps_may_be_anything(grown):
    trial = create_trial(
        state=TrialState.RUNNING,
        params={"rate": 0.1},
        distributions={"rate": FloatDistribution(0.0, 1.0)},
        intermediate_values={math.nan: 0.1, math.inf: 0.2, 0.5: 0.3},
    )
    assert make_pruner().decide(grown, trial).reason == "no value yet"
    assert (
        make_pruner()._parameters(
            [
                trial,
                create_trial(params={"rate": "x"}, value=0.0, distributions={"rate": CategoricalDistribution(["x"])}),
            ]
        )
        == {}
    )


def test_a_mistake_of_the_predictor_is_not_hidden(grown, monkeypatch):
    pruner = make_pruner()
    monkeypatch.setattr(SequentialRegression, "fit", lambda self, curves: curves.misspelt)
    with pytest.raises(AttributeError, match="misspelt"):
        pruner.decide(grown, report(grown, {0: 0.01, 1: 0.02}))


def test_numbers_that_a_regressor_cannot_work_with_prune_nothing(grown):
    make_complete(grown, {step: 1e300 * (-1) ** step if step < STEPS - 1 else 0.6 for step in range(STEPS)})
    decision = make_pruner(refit_every=1).decide(grown, report(grown, {0: 0.01, 1: 0.02}))
    assert not decision.stop
    assert decision.reason.startswith(("the trials cannot be judged", "the prediction is not finite"))


def test_a_reason_is_logged_once_a_study(caplog):
    pruner = make_pruner(burn_in=10)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            study = make_study("minimize", pruner)
            study.optimize(objective, n_trials=14)
            assert set(states(study)) == {TrialState.COMPLETE}
    assert len(caplog.records) == 2
    assert "the direction is likely wrong; nothing is pruned" in caplog.records[0].message


VALUES = st.floats(allow_nan=True, allow_infinity=True)
HISTORIES = st.dictionaries(st.integers(0, 6), VALUES, max_size=7)


@settings(max_examples=150)
@given(
    st.lists(HISTORIES, max_size=12),
    HISTORIES,
    st.sampled_from(["maximize", "minimize"]),
    st.sampled_from(["ols", "gp", "svr-rbf"]),
)
def test_no_history_makes_it_raise(histories, running, direction, regressor):
    study = optuna.create_study(direction=direction)
    make_complete(study, *histories)
    trial = create_trial(state=TrialState.RUNNING, intermediate_values=running)
    pruner = make_pruner(predictor=SequentialRegression(regressor, draws=2), burn_in=3)
    decision = pruner.decide(study, trial)
    assert decision.reason
    assert not decision.stop or math.isfinite(decision.predicted)
    # The same storage, the same decision, whatever the pruner has seen before.
    assert repr(pruner.decide(study, trial)) == repr(decision)


def test_threads_decide_alike(grown):
    rising = [report(grown, {step: curve(0.3 + i / 30, step) for step in range(2 + i % 5)}) for i in range(20)]
    expected = [make_pruner().decide(grown, trial) for trial in rising]
    shared = make_pruner()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: shared.decide(grown, rising[i % 20]), range(200)))
    assert all(decision == expected[i % 20] for i, decision in enumerate(found))


def test_two_studies_of_one_name_are_not_confused():
    """One pruner, two storages: what was fitted in the first must not judge the second."""
    pruner, decisions = make_pruner(), []
    for scale in (1.0, 0.1):
        study = make_study(pruner=pruner, study_name="same")
        make_complete(study, *({s: scale * curve(0.5 + i / 50, s) for s in range(STEPS)} for i in range(10)))
        trial = report(study, {step: 0.5 * curve(0.6, step) for step in range(3)})
        decisions.append(pruner.decide(study, trial))
        assert decisions[-1] == make_pruner().decide(study, trial)
    assert [decision.stop for decision in decisions] == [True, False]
