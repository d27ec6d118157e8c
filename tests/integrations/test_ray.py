"""The stopper and the searcher, used as Ray Tune uses them."""

from __future__ import annotations

import logging
import pickle

import pytest
import torch

from pyg_nas_np.curves import EarlyStopping, SequentialRegression
from pyg_nas_np.predictors import RidgePredictor
from pyg_nas_np.search import PredictorSearch, RandomSearch
from pyg_nas_np.spaces import Float, Integer, OperationGraph, ParameterSpace, Repeat, SampledGraphSpace
from pyg_nas_np.utils import InvalidArchitectureError, InvalidCurvesError, InvalidLabelsError

pytest.importorskip("ray.tune")

from pyg_nas_np.integrations.ray import ArchSearcher, CurveStopper, arch_of

EPOCHS = 8


def make_stopper(**kwargs):
    return CurveStopper(EarlyStopping(EPOCHS, "up", SequentialRegression("ols"), burn_in=5), "acc", **kwargs)


def report(stopper, trial, height, epochs=range(1, EPOCHS + 1), **extra):
    """Epochs until the trial stops or ends."""
    for epoch in epochs:
        result = {"acc": height * (1 - 0.6**epoch), "training_iteration": epoch, "config": {"lr": height}, **extra}
        if stopper(trial, result):
            return epoch
    return max(epochs)


def grown(**kwargs):
    stopper = make_stopper(**kwargs)
    for i in range(5):
        assert report(stopper, f"burn-in {i}", 0.5 + 0.07 * i) == EPOCHS
    return stopper


def test_it_stops_the_hopeless_only():
    stopper = grown(hyperparameters=("lr",))
    assert report(stopper, "bad", 0.4) < EPOCHS
    assert stopper.decisions["bad"].stop
    assert "p = " in stopper.decisions["bad"].reason
    assert report(stopper, "good", 0.9) == EPOCHS
    assert len(stopper.rule.finished) == 6
    assert not stopper.running
    assert not stopper.stop_all()


def test_it_can_be_saved_with_the_experiment():
    stopper = grown()
    assert report(stopper, "fits the predictor", 0.4) < EPOCHS
    report(stopper, "half", 0.85, range(1, 4))
    restored = pickle.loads(pickle.dumps(stopper))
    assert restored.running == stopper.running
    assert report(restored, "half", 0.85, range(4, EPOCHS + 1)) == EPOCHS
    assert report(restored, "bad", 0.4) < EPOCHS


def test_a_trial_that_starts_again_overwrites():
    stopper = grown()
    report(stopper, "again", 0.2, range(1, 2))
    assert report(stopper, "again", 0.9) == EPOCHS
    assert stopper.rule.finished.final[-1] == pytest.approx(0.9 * (1 - 0.6**EPOCHS))


def test_gaps_and_other_epochs_stop_nothing(caplog):
    stopper = grown()
    with caplog.at_level(logging.WARNING):
        assert report(stopper, "gap", 0.1, (2, 3, 4)) == 4
    assert len(caplog.records) == 1
    assert stopper.decisions["gap"].reason == "an epoch was left out"
    assert report(stopper, "longer", 0.1, range(EPOCHS + 1, EPOCHS + 4)) == EPOCHS + 3


def test_what_is_missing_is_named():
    with pytest.raises(InvalidCurvesError, match="did not report 'acc'; it reported loss"):
        make_stopper()("a", {"loss": 1.0})
    with pytest.raises(InvalidCurvesError, match="has not all of depth as numbers"):
        report(make_stopper(architecture=("depth",)), "a", 0.5)


# -- the searcher -----------------------------------------------------------------------------------------------------


def run(searcher, space, count, first=0):
    """Trials one after the other; the measurement is the number of FLOPs."""
    for i in range(first, first + count):
        config = searcher.suggest(f"trial {i}")
        searcher.on_trial_complete(f"trial {i}", {"flops": float(space.flops(space[config["arch"]]))})


def test_trials_teach_the_search(toy_space):
    searcher = ArchSearcher(PredictorSearch(toy_space, RidgePredictor(), initial=4), "flops", "max")
    run(searcher, toy_space, 9)
    assert searcher.search.y.numel() == len(set(searcher.search.index.tolist())) == 9
    expected = PredictorSearch(toy_space, RidgePredictor(), initial=4)
    for _ in range(9):
        archs = expected.ask()
        expected.tell(archs, toy_space.batch_flops(archs))
    assert searcher.search.index.tolist() == expected.index.tolist()


def test_running_trials_are_pending_and_failed_ones_given_up(toy_space):
    searcher = ArchSearcher(RandomSearch(toy_space), "flops", "max")
    first, second, third = (searcher.suggest(name)["arch"] for name in "abc")
    assert len({first, second, third}) == 3
    assert len(searcher.search.pending) == 3
    searcher.on_trial_complete("a", {"flops": 1.0})
    searcher.on_trial_complete("b", error=True)
    searcher.on_trial_complete("c", {"flops": float("nan")})
    searcher.on_trial_complete("unknown", {"flops": 3.0})
    assert searcher.search.index.tolist() == [first]
    assert not searcher.search.pending
    searcher.suggest("d")
    with pytest.raises(InvalidLabelsError, match="trial d did not report 'flops'; it reported acc"):
        searcher.on_trial_complete("d", {"acc": 1.0})
    assert not searcher.search.pending


def test_the_experiment_ends_when_all_is_tried(toy_space):
    searcher = ArchSearcher(RandomSearch(toy_space, candidates=torch.arange(3)), "flops", "max")
    run(searcher, toy_space, 3)
    assert searcher.suggest("one more") == searcher.FINISHED


def test_constants_travel_and_distributions_are_refused(toy_space):
    searcher = ArchSearcher(RandomSearch(toy_space), name="cell")
    assert searcher.set_search_properties("flops", "max", {"epochs": 3})
    config = searcher.suggest("a")
    assert config.keys() == {"epochs", "cell"}
    searcher.on_trial_complete("a", {"flops": 2.0})
    assert searcher.search.y.tolist() == [2.0]
    from ray import tune

    with pytest.raises(ValueError, match=r"param_space\['lr'\] is a distribution"):
        searcher.set_search_properties("flops", "max", {"lr": tune.uniform(0, 1)})
    with pytest.raises(ValueError, match="mode is 'min', the search wants 'max'"):
        searcher.set_search_properties("flops", "min", {})


def test_a_saved_searcher_goes_on(toy_space, tmp_path):
    searcher = ArchSearcher(RandomSearch(toy_space), "flops", "max")
    run(searcher, toy_space, 4)
    searcher.suggest("running")
    searcher.save(str(tmp_path / "searcher.pt"))
    again = ArchSearcher(RandomSearch(toy_space, seed=9), "flops", "max")
    again.restore(str(tmp_path / "searcher.pt"))
    again.on_trial_complete("running", {"flops": 5.0})
    searcher.on_trial_complete("running", {"flops": 5.0})
    assert again.search.index.tolist() == searcher.search.index.tolist()
    assert again.suggest("next") == searcher.suggest("next")


def draw_chain(generator):
    """Two layers of random widths."""
    widths = (2 ** torch.randint(3, 8, (2,), generator=generator)).tolist()
    layers = [("linear", {"width": width}) for width in widths]
    return OperationGraph.of([("input", {}), *layers, ("output", {})], [(0, 1), (1, 2), (2, 3)])


PARAMETERS = ParameterSpace(
    lr=Float(1e-4, 1e-1, log=True),
    optimizer=["sgd", "adam"],
    momentum=Float(0.0, 0.9, when={"optimizer": "sgd"}),
    layers=Repeat({"kernel": [3, 5], "width": Integer(8, 64, step=8)}, 1, 4),
)
GRAPHS = SampledGraphSpace(draw_chain)


@pytest.mark.parametrize("space", [PARAMETERS, GRAPHS], ids=["parameters", "graphs"])
def test_any_space_is_searched_saved_and_restored(space, tmp_path):
    def searcher(seed):
        made = ArchSearcher(PredictorSearch(space, RidgePredictor(), initial=3, proposals=64, seed=seed), "loss", "max")
        made.set_search_properties("loss", "max", {"epochs": 3})
        return made

    first = searcher(0)
    seen = []
    for i in range(6):
        config = first.suggest(f"trial {i}")
        assert config["epochs"] == 3
        seen.append(arch_of(config, space))
        if i < 5:
            first.on_trial_complete(f"trial {i}", {"loss": float(i)})
    assert len(set(seen)) == 6
    assert list(first.search.measured) == seen[:5]
    assert first.search.pending == seen[5:]
    first.save(str(tmp_path / "searcher.pt"))
    again = searcher(9)
    again.restore(str(tmp_path / "searcher.pt"))
    for one in (first, again):
        one.on_trial_complete("trial 5", {"loss": 9.0})
    assert list(again.search.measured) == list(first.search.measured)
    assert again.suggest("next") == first.suggest("next")


def test_configurations_are_entries_and_graphs_text():
    config = ArchSearcher(RandomSearch(PARAMETERS)).suggest("a")
    assert {"lr", "optimizer", "layers"} <= config.keys() <= {*PARAMETERS.parameters}
    assert ("momentum" in config) == (config["optimizer"] == "sgd")
    assert all(layer.keys() == {"kernel", "width"} for layer in config["layers"])
    config = ArchSearcher(RandomSearch(GRAPHS), name="net").suggest("a")
    assert GRAPHS.from_str(config["net"]) == arch_of(config, GRAPHS, "net")
    with pytest.raises(InvalidArchitectureError, match="has no architecture of graphs at 'arch'"):
        arch_of(config, GRAPHS)
    with pytest.raises(InvalidArchitectureError, match="'lr' is missing"):
        arch_of({"optimizer": "adam"}, PARAMETERS)


def test_constants_do_not_hide_parameters():
    searcher = ArchSearcher(RandomSearch(PARAMETERS))
    with pytest.raises(ValueError, match=r"param_space\['lr'\] would hide a parameter"):
        searcher.set_search_properties("loss", "max", {"lr": 0.1})


@pytest.fixture
def cluster():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_two_workers_of_a_real_experiment(cluster, tmp_path):
    from ray import tune

    space = ParameterSpace(depth=Integer(1, 9), lr=Float(1e-4, 1e-1, log=True), act=["relu", "gelu"])
    search = PredictorSearch(space, RidgePredictor(space), initial=2)

    def train(config):
        return {"acc": -abs(config["depth"] - 5) - config["lr"]}

    tuner = tune.Tuner(
        train,
        tune_config=tune.TuneConfig(
            num_samples=4, max_concurrent_trials=2, search_alg=ArchSearcher(search, metric="acc", mode="max")
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    )
    found = tuner.fit()
    assert len(found) == 4
    assert len({arch_of(result.config, space) for result in found}) == 4
    assert sorted(search.y.tolist()) == pytest.approx(sorted(result.metrics["acc"] for result in found))
