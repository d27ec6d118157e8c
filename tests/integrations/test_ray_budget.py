"""The pair, used as Ray Tune uses it, and in experiments on small networks for handwritten digits."""

from __future__ import annotations

import math
import os
import signal
import time

import pytest
import torch

from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.spaces import Integer, ParameterSpace
from pyg_nas_np.utils import DataFileError, InvalidLabelsError, NASError

pytest.importorskip("ray.tune", reason="Ray Tune is not installed (extra 'ray')")

from pyg_nas_np.integrations.ray_budget import FAILURES, BudgetedScheduler, BudgetedSearcher, arch_of

SPACE = ParameterSpace(depth=Integer(0, 2), width=Integer(4, 64, step=4), rate=[0.003, 0.03, 0.3])
ON = Fidelity("epochs", (1, 3, 9), continued=True)
NEW = Fidelity("epochs", (2, 8))


def make(budget=4.0, fidelity=ON, **options):
    return BudgetedSearch(SPACE, fidelity, budget, **{"initial": 4, "screen": 2, **options})


def searcher(*args, **kwargs):
    return BudgetedSearcher(make(*args, **kwargs), "accuracy", "max")


def train(config):
    """A network on digits, epoch by epoch, from its checkpoint if there is one."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    import torch
    from ray import tune
    from sklearn.datasets import load_digits
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
    x = x.float() / 16
    hidden = [layer for _ in range(config["depth"]) for layer in (nn.LazyLinear(config["width"]), nn.ReLU())]
    net = nn.Sequential(*hidden, nn.LazyLinear(10))
    net(x[:2])
    done = 0
    if (checkpoint := tune.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder) / "net.pt", weights_only=True)
        net.load_state_dict(state["net"])
        done = state["epoch"]
    optimizer = torch.optim.SGD(net.parameters(), lr=config["rate"], momentum=0.9)
    if meet := config.get("meet"):
        # Ray takes back a worker that starts more slowly than another one ends its training.
        Path(meet, str(os.getpid())).touch()
        while len(list(Path(meet).iterdir())) < 2:
            time.sleep(0.05)
    for epoch in range(done + 1, int(config["level"]) + 1):
        for rows in torch.arange(1200).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
        if (kill := config.get("kill")) and epoch == 2 and not Path(kill).exists():
            Path(kill).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        accuracy = float((net(x[1200:]).argmax(1) == y[1200:]).float().mean())
        with TemporaryDirectory() as folder:
            torch.save({"net": net.state_dict(), "epoch": epoch}, Path(folder) / "net.pt")
            saved = tune.Checkpoint.from_directory(folder)
            tune.report({"accuracy": accuracy, "epochs": epoch, "began": done}, checkpoint=saved)


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def fit(searcher, path, param_space=None, callbacks=(), **options):
    from ray import tune

    return tune.Tuner(
        train,
        param_space=param_space or {},
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=BudgetedScheduler(searcher),
            **{"num_samples": -1, "max_concurrent_trials": 2, "reuse_actors": True, **options},
        ),
        run_config=tune.RunConfig(
            storage_path=str(path),
            name="budget",
            verbose=0,
            callbacks=list(callbacks),
            failure_config=tune.FailureConfig(max_failures=1),
        ),
    ).fit()


@pytest.mark.slow
def test_two_workers_pause_and_promote(cluster, tmp_path):
    from ray import tune

    running = []

    class Count(tune.Callback):
        def on_step_end(self, iteration, trials, **info):
            running.append(sum(trial.status == "RUNNING" for trial in trials))

    pair = searcher()
    (tmp_path / "meet").mkdir()
    found = fit(pair, tmp_path, {"meet": str(tmp_path / "meet")}, callbacks=[Count()])
    search = pair.search
    assert max(running) == 2
    assert not found.errors
    assert 3.0 < search.spent <= 4.0 + 1e-9
    assert (search.pending, pair.running, pair.paused) == ([], {}, {})
    archs, levels, y = search.measured
    rows = list(zip(archs, levels.tolist(), strict=True))
    assert len(set(rows)) == len(rows)
    # An architecture is one trial, whatever levels it was trained to.
    trials = [arch_of(result.config, SPACE) for result in found]
    assert len(set(trials)) == len(trials)
    assert set(trials) == {*archs}
    reached = {arch: max(level for other, level in rows if other == arch) for arch in trials}
    assert {arch_of(r.config, SPACE): float(r.metrics["training_iteration"]) for r in found} == reached
    # Some went on from their checkpoints, and nothing was trained twice.
    frames = [result.metrics_dataframe for result in found]
    assert any((frame["began"] > 0).any() for frame in frames)
    for frame in frames:
        assert frame["epochs"].tolist() == [*range(1, len(frame) + 1)]
    assert search.best[1] == float(y[levels == 9].max()) > 0.5


@pytest.mark.slow
def test_without_continuation_a_promotion_is_a_new_trial(cluster, tmp_path):
    pair = searcher(3.0, NEW)
    found = fit(pair, tmp_path)
    assert not found.errors
    assert 2.0 < pair.search.spent <= 3.0 + 1e-9
    archs, levels, _ = pair.search.measured
    ran = [(arch_of(result.config, SPACE), result.config["level"]) for result in found]
    assert sorted(map(str, ran)) == sorted(map(str, zip(archs, levels.tolist(), strict=True)))
    assert all(result.metrics["began"] == 0 for result in found)


@pytest.mark.slow
def test_a_killed_worker_is_resumed_by_ray(cluster, tmp_path):
    pair = searcher(2.0)
    found = fit(pair, tmp_path, param_space={"kill": str(tmp_path / "killed")})
    assert (tmp_path / "killed").exists()
    assert not found.errors
    assert 1.0 < pair.search.spent <= 2.0 + 1e-9
    assert pair.search.pending == []
    assert pair.failures == {}


@pytest.mark.slow
def test_a_sample_limit_ends_the_experiment(cluster, tmp_path, caplog):
    pair = searcher(9.0)
    found = fit(pair, tmp_path, num_samples=3)
    assert len(found) == 3
    assert (pair.search.pending, pair.paused) == ([], {})


@pytest.mark.slow
def test_a_restored_experiment_goes_on(cluster, tmp_path):
    from ray import tune

    stopped = tmp_path / "stopped"

    class Stop(tune.Callback):
        reports = 0

        def on_trial_result(self, *args, **kwargs):
            self.reports += 1
            if self.reports == 7 and not stopped.exists():
                stopped.touch()
                raise OSError("no disk")

    with pytest.raises(Exception, match="no disk"):
        fit(searcher(), tmp_path, callbacks=[Stop()])
    restored = tune.Tuner.restore(str(tmp_path / "budget"), train)
    again = restored._local_tuner._tune_config.search_alg
    found = restored.fit()
    assert not found.errors
    assert 3.0 < again.search.spent <= 4.0 + 1e-9
    assert (again.search.pending, again.running, again.paused) == ([], {}, {})


# -- the protocol, without Ray running --------------------------------------------------------------------------------


def result(epoch, accuracy=0.5, **more):
    return {"training_iteration": epoch, "accuracy": accuracy, **more}


def test_trials_are_paused_promoted_and_stopped():
    pair = searcher(initial=3)
    first, second = pair.suggest("a"), pair.suggest("b")
    assert first["level"] == second["level"] == 9.0
    assert arch_of(first, SPACE) != arch_of(second, SPACE)
    assert pair.report("a", result(1, 0.7)) == "PAUSE"
    assert pair.suggest("c") is not None
    # The better one is promoted at once, on its own worker.
    assert pair.report("b", result(1, 0.8)) == "CONTINUE"
    assert pair.running["b"].level == 9.0
    assert pair.report("b", result(2)) == "CONTINUE"
    assert pair.report("b", result(3, 0.9)) == "CONTINUE"
    assert pair.report("b", result(9, 0.95)) == "STOP"
    assert pair.search.measured[1].tolist() == [1.0, 1.0, 3.0, 9.0]
    pair.on_trial_complete("b", result(9, 0.95))
    assert pair.search.best == (arch_of(second, SPACE), 0.95)
    assert pair.paused == {SPACE.to_str(arch_of(first, SPACE)): "a"}
    # What has no training to run neither goes on nor counts.
    assert pair.report("a", result(2, 0.99)) == "PAUSE"
    assert pair.report("unknown", result(2, 0.99)) == "STOP"
    assert len(pair.search.measured[1]) == 4


def test_no_more_trainings_than_workers():
    pair = searcher()
    assert pair.set_max_concurrency(2)
    assert [pair.suggest(name) is not None for name in ("a", "b", "c")] == [True, True, False]
    assert pair.report("a", result(1)) == "PAUSE"
    assert pair.suggest("c") is not None
    assert len(pair.search.pending) == 2


def test_the_experiment_ends_with_the_budget():
    pair = searcher(0.5)
    assert pair.suggest("a") == pair.FINISHED


def test_failed_trials_free_their_training_until_they_count_as_diverged():
    pair = searcher(candidates=[SPACE.sample(1, torch.Generator().manual_seed(0))[0]])
    for i in range(FAILURES):
        assert pair.suggest(str(i)) is not None
        assert pair.suggest("more") is None
        pair.on_trial_complete(str(i), error=True)
        assert pair.search.pending == []
    assert math.isnan(float(pair.search.measured[2]))
    assert pair.suggest("again") == pair.FINISHED


def test_labels_before_a_failure_are_paid():
    pair = searcher(initial=1)
    pair.suggest("a")
    assert pair.report("a", result(1)) == "CONTINUE"
    assert pair.running["a"][1:3] == (9.0, 1.0)
    for epoch in (2, 3, 2, 3, 4):
        assert pair.report("a", result(epoch)) == "CONTINUE"
    assert pair.search.measured[1].tolist() == [1.0, 3.0]
    pair.on_trial_complete("a", error=True)
    assert pair.search.spent == pytest.approx(3 / 9)
    assert not pair.failures["a"]
    # Its trial is gone, so that a new one runs what is left.
    assert pair.suggest("b") is not None
    assert pair.running["b"][1:] == (9.0, 3.0, pytest.approx(6 / 9))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_diverged_trials_stop(bad):
    pair = searcher(fidelity=NEW)
    arch = arch_of(pair.suggest("a"), SPACE)
    assert pair.report("a", result(1, bad)) == "STOP"
    pair.on_trial_complete("a", result(1, bad))
    assert pair.search.pending == []
    assert all(training.arch != arch for training in pair.search.ask(9))


def test_wrong_reports_are_named():
    pair = searcher(fidelity=NEW)
    pair.suggest("a")
    with pytest.raises(InvalidLabelsError, match="trial a did not report 'accuracy'; it reported training_iteration"):
        pair.report("a", {"training_iteration": 1})
    assert pair.report("a", result(1)) == "CONTINUE"
    assert pair.report("a", result(1)) == "CONTINUE"
    with pytest.raises(InvalidLabelsError, match="reports at training_iteration 3, but left out 2, the level"):
        pair.report("a", result(3))
    with pytest.raises(InvalidLabelsError, match=r"trial a ended at training_iteration 1, before its level 2"):
        pair.on_trial_complete("a", result(1))
    pair.on_trial_complete("a", error=True)
    assert pair.search.pending == []
    pair.suggest("b")
    pair.on_trial_complete("b", result(2, 0.25, done=True))
    assert pair.search.measured[2].tolist() == [0.25]


def test_wrong_names_are_refused():
    with pytest.raises(ValueError, match=r"config\['level'\] is the level to train to; rename the parameter"):
        BudgetedSearcher(BudgetedSearch(ParameterSpace(level=Integer(1, 9)), ON, 3.0))
    with pytest.raises(ValueError, match=r"param_space\['level'\] would hide the level"):
        searcher().set_search_properties("accuracy", "max", {"level": 3})
    with pytest.raises(ValueError, match="mode is 'min', the search wants 'max'"):
        BudgetedSearcher(make(), "accuracy", "min")


def test_a_saved_searcher_goes_on(tmp_path):
    pair = searcher()
    for name in "abc":
        pair.suggest(name)
    assert pair.report("a", result(1)) == "PAUSE"
    pair.decided()
    pair.on_trial_complete("c", error=True)
    pair.save(str(tmp_path / "searcher.pt"))
    again = searcher(seed=9)
    again.restore(str(tmp_path / "searcher.pt"))
    assert (again.running, again.paused, again.failures) == (pair.running, pair.paused, pair.failures)
    assert again.decided() == pair.decided()
    assert again.search.pending == pair.search.pending
    assert again.suggest("d") == pair.suggest("d")


def test_damaged_files_are_refused(tmp_path, mutations):
    pair = searcher(initial=3)
    for name in ("a", "b"):
        pair.suggest(name)
    assert pair.report("a", result(1)) == "PAUSE"
    path = tmp_path / "searcher.pt"
    pair.save(str(path))
    again = searcher()
    refused = 0
    for content in mutations(path.read_bytes()):
        path.write_bytes(content)
        try:
            again.restore(str(path))
        except NASError:
            refused += 1
    assert refused
    with pytest.raises(DataFileError, match="missing"):
        again.restore(str(tmp_path / "missing"))
