from __future__ import annotations

import csv
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from pyg_nas_np.convnp import ConvNPPredictor
from pyg_nas_np.predictors import GPPredictor, RidgePredictor
from pyg_nas_np.search import PredictorSearch
from pyg_nas_np.spaces import NASBench201Space

optuna = pytest.importorskip("optuna")
from optuna.trial import TrialState, create_trial  # noqa: E402

from pyg_nas_np.integrations.optuna import ConvNPSampler, arch_of, suggest_arch  # noqa: E402
from pyg_nas_np.integrations.optuna import sampler as sampler_module  # noqa: E402
from pyg_nas_np.integrations.optuna.sampler import CLAIM  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.WARNING)
ROOT = Path(__file__).resolve().parents[3]
SPACE = NASBench201Space()
Y = SPACE.batch_flops().double() + torch.arange(15625) / 1e5


def objective(trial, sign=1.0):
    return sign * float(Y[SPACE.index(suggest_arch(trial, SPACE))])


def index_of(trial):
    return SPACE.index(arch_of(trial, SPACE))


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1.0), ("minimize", -1.0)])
def test_a_study_finds_the_best_and_repeats_nothing(direction, sign):
    study = optuna.create_study(direction=direction, sampler=ConvNPSampler(SPACE, GPPredictor(), n_startup_trials=6))
    study.optimize(lambda trial: objective(trial, sign), n_trials=20)
    drawn = [index_of(trial) for trial in study.trials]
    assert len(set(drawn)) == 20
    assert Y[index_of(study.best_trial)] > Y.quantile(0.999)


def test_trials_are_those_of_a_search():
    study = optuna.create_study(
        direction="maximize", sampler=ConvNPSampler(SPACE, RidgePredictor(), n_startup_trials=4)
    )
    study.optimize(objective, n_trials=8)
    told = study.trials
    running = study.ask()
    suggest_arch(running, SPACE)
    search = PredictorSearch(SPACE, RidgePredictor(), initial=4)
    index = torch.tensor([index_of(trial) for trial in told])
    search.tell(index, Y[index])
    first = search.ask()[0]
    # Equal predictions are drawn among; compare what the predictor thinks.
    scores = search.predictor.predict_scores(SPACE.batch_encode())
    bound = scores[0] + 1.5 * scores[1]
    assert bound[running.params["arch"]] == bound[SPACE.index(first)]


def test_a_new_sampler_goes_on_where_the_old_one_stopped():
    def run(renew):
        study = optuna.create_study(sampler=ConvNPSampler(SPACE, RidgePredictor(), n_startup_trials=3))
        for _ in range(8):
            if renew:
                study.sampler = ConvNPSampler(SPACE, RidgePredictor(), n_startup_trials=3)
            study.optimize(objective, n_trials=1)
        return [index_of(trial) for trial in study.trials]

    assert run(True) == run(False)


def test_workers_that_start_together_get_different_architectures():
    study = optuna.create_study(sampler=ConvNPSampler(SPACE, RidgePredictor(), n_startup_trials=4))
    study.optimize(objective, n_trials=6)
    trials = [study.ask() for _ in range(4)]
    # The last one draws first, as if the others were slow.
    drawn = [SPACE.index(suggest_arch(trial, SPACE)) for trial in reversed(trials)]
    assert len(set(drawn) | {index_of(t) for t in study.trials if t.state == TrialState.COMPLETE}) == 10


def test_failed_and_pruned_trials_are_neither_repeated_nor_believed():
    study = optuna.create_study(
        direction="maximize", sampler=ConvNPSampler(SPACE, RidgePredictor(), n_startup_trials=1)
    )
    distribution = optuna.distributions.IntDistribution(0, 15624)

    def add(index, state, value=None):
        params = {"params": {"arch": index}, "distributions": {"arch": distribution}}
        values = {"intermediate_values": {1: 1e9}} if state == TrialState.PRUNED else {}
        study.add_trial(create_trial(state=state, value=value, **params, **values))

    for index in range(0, 3000, 100):
        add(index, TrialState.COMPLETE, float(Y[index]))
    study.optimize(objective, n_trials=1)
    expected = index_of(study.trials[-1])
    fresh = optuna.create_study(direction="maximize", sampler=study.sampler)
    fresh.add_trials(study.trials[:-1])
    study = fresh
    add(expected, TrialState.FAIL)
    add(7, TrialState.PRUNED, 1e9)
    add(8, TrialState.COMPLETE, float("inf"))
    study.optimize(objective, n_trials=4)
    assert not {expected, 7, 8} & {index_of(trial) for trial in study.trials[-4:]}


def test_other_parameters_are_left_to_another_sampler():
    def both(trial):
        rate = trial.suggest_float("rate", 1e-3, 1.0, log=True)
        return objective(trial) * rate * trial.suggest_categorical("sign", [-1, 1])

    fixed = optuna.samplers.PartialFixedSampler({"rate": 0.5}, optuna.samplers.RandomSampler())
    sampler = ConvNPSampler(SPACE, RidgePredictor(), n_startup_trials=2, independent_sampler=fixed)
    study = optuna.create_study(sampler=sampler)
    study.optimize(both, n_trials=5)
    assert {trial.params["rate"] for trial in study.trials} == {0.5}
    assert all("arch" in trial.params for trial in study.trials)


def test_an_exhausted_space_repeats(toy_space):
    study = optuna.create_study(sampler=ConvNPSampler(toy_space, RidgePredictor(), n_startup_trials=200))
    study.optimize(lambda trial: toy_space.index(suggest_arch(trial, toy_space)), n_trials=130)
    assert len({trial.params["arch"] for trial in study.trials}) == 128


def test_unsuitable_studies_are_refused(toy_space):
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=ConvNPSampler(SPACE, RidgePredictor()))
    with pytest.raises(ValueError, match="one objective, this one has 2"):
        suggest_arch(study.ask(), SPACE)
    study = optuna.create_study(sampler=ConvNPSampler(SPACE, RidgePredictor()))
    study.optimize(objective, n_trials=1)
    study.sampler = ConvNPSampler(toy_space, RidgePredictor())
    with pytest.raises(ValueError, match="use one study for one space"):
        suggest_arch(study.ask(), toy_space)
    with pytest.raises(ValueError, match="initial must be at least 1"):
        ConvNPSampler(SPACE, n_startup_trials=0)


def test_the_default_predictor_is_the_neural_process():
    assert isinstance(ConvNPSampler(SPACE)._searches[True].predictor, ConvNPPredictor)


def measured(study):
    """Architectures of a study, in the order of its trials."""
    return [trial.params["arch"] for trial in study.get_trials(deepcopy=False)]


def test_threads_repeat_nothing_and_fit_on_their_own(toy_space):
    fitted = []

    class Recording(RidgePredictor):
        def fit(self, archs, y, **kwargs):
            fitted.append(len(set(archs.index.tolist())) == len(y) == len(archs))
            return super().fit(archs, y, **kwargs)

    study = optuna.create_study(sampler=ConvNPSampler(toy_space, Recording(), n_startup_trials=4))
    study.optimize(lambda trial: toy_space.index(suggest_arch(trial, toy_space)) % 17, n_trials=60, n_jobs=4)
    drawn = measured(study)
    assert len(drawn) == len(set(drawn)) == 60
    assert fitted
    assert all(fitted)


def test_threads_use_a_space_up_before_they_repeat(toy_space):
    study = optuna.create_study(sampler=ConvNPSampler(toy_space, RidgePredictor(), n_startup_trials=200))
    study.optimize(lambda trial: toy_space.index(suggest_arch(trial, toy_space)), n_trials=132, n_jobs=4)
    drawn = measured(study)
    assert len(set(drawn)) == 128
    assert len(drawn) == 132


def proposal(study, trial):
    """What a trial proposes first."""
    sampler, frozen = study.sampler, study._storage.get_trial(trial._trial_id)
    return sampler._propose(study, frozen, sampler._encoding, {}, 0)["arch"]


def held(study, trial):
    found = sampler_module._held(study._storage.get_trial(trial._trial_id), study.sampler._encoding)
    return None if found is None else found.values["arch"]


class Rival:
    """A second worker: does something just before the next read of the trials."""

    def __init__(self, monkeypatch, study, act):
        original = type(study._storage).get_all_trials
        pending = [act]

        def get_all_trials(storage, *args, **kwargs):
            claimed = any(CLAIM in t.system_attrs for t in original(storage, *args, **kwargs))
            if pending and claimed:
                pending.pop()()
            return original(storage, *args, **kwargs)

        monkeypatch.setattr(type(study._storage), "get_all_trials", get_all_trials)


@pytest.mark.parametrize(
    ("mine", "kept", "keeps"),
    [
        ("later", True, False),  # The other one has been told that it is alone.
        ("later", False, False),
        ("earlier", True, False),
        ("earlier", False, True),  # The other one reads this claim next, and gives way.
    ],
)
def test_of_two_equal_claims_one_is_kept(toy_space, monkeypatch, mine, kept, keeps):
    study = optuna.create_study(sampler=ConvNPSampler(toy_space, RidgePredictor()))
    first, second = study.ask(), study.ask()
    me, other = (second, first) if mine == "later" else (first, second)
    # The proposal is known beforehand, because it depends on the study and on the number of the trial.
    expected = proposal(study, me)

    def act():
        study._storage.set_trial_system_attr(other._trial_id, CLAIM, [{"arch": expected}, kept])
        if not kept:
            threading.Timer(0.2, study._storage.set_trial_system_attr, (other._trial_id, CLAIM, None)).start()

    Rival(monkeypatch, study, act)
    drawn = me.suggest_int("arch", 0, 127)
    assert (drawn == expected) == keeps
    assert study._storage.get_trial(me._trial_id).system_attrs[CLAIM] == [{"arch": drawn}, True]


def test_a_worker_that_died_undecided_holds_nobody_up(toy_space, monkeypatch):
    monkeypatch.setattr(sampler_module, "PATIENCE_SECONDS", 0.1)
    study = optuna.create_study(sampler=ConvNPSampler(toy_space, RidgePredictor()))
    alive, dead = study.ask(), study.ask()
    expected = proposal(study, alive)
    Rival(
        monkeypatch,
        study,
        lambda: study._storage.set_trial_system_attr(dead._trial_id, CLAIM, [{"arch": expected}, False]),
    )
    assert alive.suggest_int("arch", 0, 127) != expected
    # Its architecture is free again once its trial is known to have failed.
    assert held(study, dead) == expected
    study.tell(dead, state=TrialState.FAIL)
    assert held(study, dead) is None


def test_a_claim_holds_between_ask_and_suggest(toy_space):
    """A trial that has drawn but not suggested yet is known to others by its claim alone."""
    study = optuna.create_study(sampler=ConvNPSampler(toy_space, RidgePredictor()))
    trials = [study.ask() for _ in range(100)]
    claims = [study.sampler.sample_relative(study, study._storage.get_trial(t._trial_id), space_of(study))
              for t in trials]  # fmt: skip
    assert len({claim["arch"] for claim in claims}) == 100


def space_of(study):
    return study.sampler.infer_relative_search_space(study, study.get_trials(deepcopy=False)[0])


def test_enqueued_architectures_are_measured_once(toy_space):
    study = optuna.create_study(sampler=ConvNPSampler(toy_space, RidgePredictor(), n_startup_trials=200))
    for index in range(0, 120, 2):
        study.enqueue_trial({"arch": index})
    study.enqueue_trial({"arch": "neither a number"})
    waiting = study.get_trials(states=(TrialState.WAITING,))[-1]
    assert sampler_module._held(waiting, study.sampler._encoding) is None
    fresh = optuna.create_study(sampler=study.sampler)
    for index in range(0, 120, 2):
        fresh.enqueue_trial({"arch": index})
    fresh.optimize(lambda trial: toy_space.index(suggest_arch(trial, toy_space)), n_trials=128)
    assert sorted(measured(fresh)) == list(range(128))
    assert measured(fresh)[:60] == list(range(0, 120, 2))


def test_a_retried_trial_draws_anew(toy_space):
    """Optuna's retries copy system attributes, a claim among them, into a new trial."""
    study = optuna.create_study(sampler=ConvNPSampler(toy_space, RidgePredictor()))
    study.add_trial(
        create_trial(state=TrialState.WAITING, system_attrs={CLAIM: [{"arch": 5}, True], "failed_trial": 0})
    )
    study.optimize(lambda trial: toy_space.index(suggest_arch(trial, toy_space)), n_trials=1)
    assert study.trials[0].system_attrs[CLAIM] == [study.trials[0].params, True]


def test_a_pruner_that_hides_trials_does_not_matter(toy_space):
    """Hyperband shows samplers the trials of one bracket at a time."""
    study = optuna.create_study(
        sampler=ConvNPSampler(toy_space, RidgePredictor(), n_startup_trials=200),
        pruner=optuna.pruners.HyperbandPruner(1, 9),
    )
    study.optimize(lambda trial: toy_space.index(suggest_arch(trial, toy_space)), n_trials=128)
    assert len(set(measured(study))) == 128


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_processes_repeat_nothing(storage, tmp_path):
    # The script of the benchmark, shorter.
    command = [sys.executable, str(ROOT / "benchmarks" / "parallel_trials.py"), "--trials", "16"]
    command += ["--settings", f"{storage}:2", "--output", str(tmp_path / "table.csv")]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader((tmp_path / "table.csv").read_text().splitlines())
    assert (row["storage"], row["processes"], row["trials"], row["repeated"]) == (storage, "2", "16", "0")
