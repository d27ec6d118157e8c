from __future__ import annotations

import subprocess
import sys
import textwrap
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

optuna.logging.set_verbosity(optuna.logging.WARNING)
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
    assert isinstance(ConvNPSampler(SPACE)._predictor, ConvNPPredictor)


WORKER = """
    import sys
    import optuna
    from pyg_nas_np.predictors import RidgePredictor
    from pyg_nas_np.integrations.optuna import ConvNPSampler, suggest_arch
    from pyg_nas_np.spaces import NASBench201Space

    kind, path = sys.argv[1:]
    if kind == "journal":
        backend = optuna.storages.journal.JournalFileBackend(path)
        storage = optuna.storages.JournalStorage(backend)
    else:
        storage = f"sqlite:///{path}"
    space = NASBench201Space()
    sampler = ConvNPSampler(space, RidgePredictor(), n_startup_trials=4)
    study = optuna.load_study(study_name="shared", storage=storage, sampler=sampler)
    study.optimize(lambda trial: float(space.flops(suggest_arch(trial, space))), n_trials=8)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_two_processes_share_one_study(kind, tmp_path):
    path = tmp_path / kind
    if kind == "journal":
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    else:
        storage = f"sqlite:///{path}"
    study = optuna.create_study(study_name="shared", storage=storage, direction="maximize")
    command = [sys.executable, "-c", textwrap.dedent(WORKER), kind, str(path)]
    root = Path(__file__).resolve().parents[3]
    workers = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors
    trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 16
    # Two that draw at the very same moment may meet; the rest must not.
    assert len({trial.params["arch"] for trial in trials}) >= 12
    assert study.best_value > Y.quantile(0.99)
