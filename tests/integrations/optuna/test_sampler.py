from __future__ import annotations

import math
import threading

import pytest
import torch

from pyg_nas_np.convnp import ConvNPPredictor
from pyg_nas_np.predictors import GPPredictor, RidgePredictor
from pyg_nas_np.search import PredictorSearch
from pyg_nas_np.spaces import (
    Float,
    Integer,
    NASBench201Space,
    OperationGraph,
    ParameterSpace,
    Repeat,
    SampledGraphSpace,
)
from pyg_nas_np.utils import InvalidArchitectureError

optuna = pytest.importorskip("optuna")
from optuna.trial import TrialState, create_trial  # noqa: E402

from pyg_nas_np.integrations.optuna import ConvNPSampler, arch_of, suggest_arch, suggest_candidate  # noqa: E402
from pyg_nas_np.integrations.optuna import sampler as sampler_module  # noqa: E402
from pyg_nas_np.integrations.optuna.sampler import CLAIM  # noqa: E402

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


# -- studies without a space ------------------------------------------------------------------------------------------


def fast(*args, **options):
    return ConvNPSampler(*args, predictor=RidgePredictor(), **options)


def conditional(trial):
    """The smallest value is -2."""
    loss = (trial.suggest_int("depth", 2, 12) - 7) ** 2 / 25
    loss += (math.log10(trial.suggest_float("lr", 1e-5, 1e-1, log=True)) + 3) ** 2
    loss += trial.suggest_float("drop", 0.0, 0.5, step=0.1)
    if trial.suggest_categorical("block", ["conv", "mbconv", None]) == "mbconv":
        loss -= trial.suggest_int("expand", 1, 6) / 3
    else:
        trial.suggest_int("kernel", 1, 7, step=2)
    return loss


def repeated(study):
    drawn = [tuple(sorted(trial.params.items(), key=str)) for trial in study.get_trials(deepcopy=False)]
    return len(drawn) - len(set(drawn))


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1.0), ("maximize", -1.0)])
def test_an_ordinary_study_needs_no_space(direction, sign):
    study = optuna.create_study(direction=direction, sampler=ConvNPSampler(n_startup_trials=8))
    study.optimize(lambda trial: sign * conditional(trial), n_trials=25)
    values = sorted(sign * value for value in (trial.value for trial in study.trials[:8]))
    assert sign * study.best_value < min(values[0], -1.0)
    assert study.best_params["block"] == "mbconv"
    assert repeated(study) == 0


def recorded_independents(monkeypatch):
    """Names of the parameters that no proposal holds."""
    names = []
    original = ConvNPSampler.sample_independent

    def recorded(self, study, trial, name, wanted):
        names.append(name)
        return original(self, study, trial, name, wanted)

    monkeypatch.setattr(ConvNPSampler, "sample_independent", recorded)
    return names


def test_proposals_hold_what_a_trial_suggests(monkeypatch):
    study = optuna.create_study(sampler=fast(n_startup_trials=10))
    study.optimize(conditional, n_trials=30)
    independent = recorded_independents(monkeypatch)
    study.optimize(conditional, n_trials=5)
    assert independent == []


def test_small_studies_are_used_up_before_they_repeat():
    def few(trial):
        if trial.suggest_categorical("block", ["conv", None]) is None:
            return trial.suggest_int("a", 1, 4)
        return trial.suggest_int("b", 1, 4) + 10

    study = optuna.create_study(sampler=fast(n_startup_trials=4))
    study.optimize(few, n_trials=8)
    assert repeated(study) == 0
    # Then something must be repeated.
    study.optimize(few, n_trials=2)
    assert repeated(study) == 2


def test_threads_repeat_nothing_without_a_space():
    def integers(trial):
        total = trial.suggest_int("a", 1, 4) + trial.suggest_categorical("b", [1, 2, 3])
        return total + (trial.suggest_int("c", 1, 3) if total > 4 else 0)

    study = optuna.create_study(sampler=fast(n_startup_trials=4))
    study.optimize(integers, n_trials=2)
    study.optimize(integers, n_trials=14, n_jobs=4)
    assert repeated(study) == 0


def test_ranges_may_change_from_trial_to_trial():
    def growing(trial):
        width = trial.suggest_int("width", 1, 3 + trial.number)
        rate = trial.suggest_float("rate", 0.0, 1.0 / (1 + trial.number))
        return width + rate

    study = optuna.create_study(direction="maximize", sampler=fast(n_startup_trials=4))
    study.optimize(growing, n_trials=12)
    for trial in study.trials:
        assert 1 <= trial.params["width"] <= 3 + trial.number
        assert trial.params["rate"] <= 1.0 / (1 + trial.number)


def test_values_of_any_state_are_read_as_they_ended(monkeypatch):
    def failing(trial):
        value = conditional(trial)
        if trial.number % 4 == 1:
            raise optuna.TrialPruned
        if trial.number % 4 == 2:
            raise RuntimeError
        return math.nan if trial.number % 4 == 3 else value

    study = optuna.create_study(sampler=fast(n_startup_trials=4))
    study.optimize(failing, n_trials=16, catch=RuntimeError)
    assert repeated(study) == 0
    seen, tell = [], PredictorSearch.tell
    monkeypatch.setattr(PredictorSearch, "tell", lambda self, archs, y: (seen.append(len(y)), tell(self, archs, y))[1])
    conditional(study.ask())
    assert seen == [4]


def test_a_trial_that_failed_early_blocks_nothing_else():
    """Its few parameters are those of many other trials."""

    def objective(trial):
        trial.suggest_categorical("block", ["only", "other"])
        if trial.number < 4:
            raise RuntimeError
        return trial.suggest_float("x", 0.0, 1.0)

    study = optuna.create_study(sampler=fast(n_startup_trials=2))
    study.optimize(objective, n_trials=10, catch=RuntimeError)
    assert [trial.state for trial in study.trials[4:]] == [TrialState.COMPLETE] * 6
    assert {trial.params["block"] for trial in study.trials} == {"only", "other"}


def test_running_trials_are_believed():
    study = optuna.create_study(sampler=fast(n_startup_trials=4))
    study.optimize(conditional, n_trials=8)
    trials = [study.ask() for _ in range(4)]
    for trial in trials:
        conditional(trial)
    encoding = study.sampler._encoding_of(study.trials)
    waiting = [sampler_module._held(trial, encoding) for trial in study.trials[-4:]]
    assert all(held.arch is not None and held.y is None and not held.ended for held in waiting)
    assert repeated(study) == 0


@pytest.mark.parametrize("space", [None, "declared"])
def test_what_is_enqueued_in_part_is_completed(space, monkeypatch):
    if space == "declared":
        space = ParameterSpace(
            depth=Integer(2, 12),
            lr=Float(1e-5, 1e-1, log=True),
            drop=Float(0.0, 0.5, step=0.1),
            block=["conv", "mbconv", None],
            expand=Integer(1, 6, when={"block": "mbconv"}),
            kernel=Integer(1, 7, step=2, when={"block": ("conv", None)}),
        )
    study = optuna.create_study(sampler=fast(space, n_startup_trials=6))
    # Whether a random start meets every block is chance.
    for block in ("mbconv", "conv") * 2:
        study.enqueue_trial({"block": block})
    study.optimize(conditional, n_trials=25)
    independent = recorded_independents(monkeypatch)
    study.enqueue_trial({"block": "conv", "depth": 2})
    study.enqueue_trial({"block": "mbconv", "lr": 0.1, "never heard of": 3})
    study.enqueue_trial({"depth": 7, "lr": 1e-3, "drop": 0.0, "block": "mbconv", "expand": 6})
    study.optimize(conditional, n_trials=3)
    first, second, third = (trial.params for trial in study.trials[-3:])
    assert (first["block"], first["depth"]) == ("conv", 2)
    assert "kernel" in first
    assert (second["block"], second["lr"]) == ("mbconv", 0.1)
    assert "expand" in second
    assert third == {"depth": 7, "lr": 1e-3, "drop": 0.0, "block": "mbconv", "expand": 6}
    assert not independent


def test_several_objectives_are_refused_without_a_space():
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=fast())
    study.add_trial(create_trial(values=[1.0, 2.0], params={"x": 1},
                                 distributions={"x": optuna.distributions.IntDistribution(0, 3)}))  # fmt: skip
    with pytest.raises(ValueError, match="one objective, this one has 2"):
        study.ask().suggest_int("x", 0, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"acquisition": "pi"}, "acquisition must be one of"),
        ({"beta": -1.0}, "beta must be at least 0"),
        ({"n_startup_trials": 0}, "initial must be at least 1"),
        ({"candidates": []}, "candidates"),
        ({"candidates": [{"a": 1}, {"a": "x", "b": 3}]}, "mixes"),
    ],
)
def test_wrong_options_are_refused_before_any_trial(options, message):
    with pytest.raises(ValueError, match=message):
        ConvNPSampler(**options)


# -- declared spaces and pools ----------------------------------------------------------------------------------------

LAYERS = ParameterSpace(
    lr=Float(1e-4, 1e-1, log=True),
    layers=Repeat({"kernel": [3, 5, 7], "width": Integer(16, 128, step=16)}, 1, 5),
)


def wide(trial):
    arch = suggest_arch(trial, LAYERS)
    return sum(abs(layer["width"] - 64) for layer in arch["layers"]) / 16 + abs(len(arch["layers"]) - 3)


def test_a_declared_space_may_have_lists_of_layers():
    study = optuna.create_study(sampler=fast(LAYERS, n_startup_trials=6))
    study.optimize(wide, n_trials=14)
    assert repeated(study) == 0
    best = arch_of(study.best_trial, LAYERS)
    assert LAYERS.is_valid(best)
    assert len(best["layers"]) == study.best_params["layers_length"]
    study.optimize(lambda trial: wide(trial) + trial.suggest_float("not declared", 0, 1), n_trials=1)
    assert "not declared" in study.trials[-1].params
    with pytest.raises(InvalidArchitectureError, match="has no architecture of"):
        arch_of(create_trial(value=1.0), LAYERS)


def test_a_study_of_another_space_is_refused():
    study = optuna.create_study(sampler=fast(LAYERS))
    study.optimize(wide, n_trials=1)
    other = ParameterSpace(lr=Float(1e-3, 1e-1, log=True))
    study.sampler = fast(other)
    with pytest.raises(ValueError, match=r"draws 'lr' from .* use one study for one space"):
        suggest_arch(study.ask(), other)


def draw_chain(generator):
    widths = (2 ** torch.randint(3, 8, (3,), generator=generator)).tolist()
    layers = [("linear", {"width": width}) for width in widths]
    return OperationGraph.of([("input", {}), *layers, ("output", {})], [(0, 1), (1, 2), (2, 3), (3, 4)])


def test_graphs_without_an_index_are_user_attributes():
    space = SampledGraphSpace(draw_chain)

    def widths(trial):
        return sum(value for node in suggest_arch(trial, space).nodes for _, value in node.attributes)

    study = optuna.create_study(sampler=fast(space, n_startup_trials=3))
    wanted = space.sample(1, torch.Generator().manual_seed(9))[0]
    study.enqueue_trial({}, user_attrs={"arch": space.to_str(wanted)})
    study.optimize(widths, n_trials=8)
    texts = [trial.user_attrs["arch"] for trial in study.trials]
    assert texts[0] == space.to_str(wanted)
    assert len(set(texts)) == 8
    assert space.to_str(arch_of(study.best_trial, space)) in texts


POOL = [{"width": width, "depth": depth} for width in (8, 16, 32) for depth in (1, 2, 3, 4)]


def test_a_pool_is_used_up_before_it_repeats():
    pool = POOL + POOL[:3]

    def objective(trial):
        arch = suggest_candidate(trial, pool)
        return arch["width"] * arch["depth"]

    study = optuna.create_study(sampler=fast(candidates=pool, n_startup_trials=3))
    study.optimize(objective, n_trials=12, n_jobs=2)
    assert len({tuple(pool[trial.params["arch"]].values()) for trial in study.trials}) == 12
    study.optimize(objective, n_trials=1)


@pytest.mark.parametrize("kind", ["graphs", "modules", "indices"])
def test_a_pool_of_anything(kind):
    chains = [draw_chain(torch.Generator().manual_seed(seed)) for seed in range(12)]
    modules = [torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 2)) for width in range(4, 16)]
    for module in modules:
        module.example_input_array = torch.zeros(1, 4)
    pool = {"graphs": chains, "modules": modules, "indices": torch.arange(20, 32)}[kind]
    sampler = fast(SPACE if kind == "indices" else None, candidates=pool, n_startup_trials=3)
    study = optuna.create_study(sampler=sampler)

    def objective(trial):
        suggest_candidate(trial, pool)
        return float(trial.params["arch"])

    study.optimize(objective, n_trials=7)
    assert repeated(study) == 0


def open_storage(url):
    if url.startswith("sqlite"):
        # Several processes may wait for the one that writes.
        return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(url))


def work(url, space, objective, count):
    torch.set_num_threads(1)
    study = optuna.load_study(study_name="own", storage=open_storage(url), sampler=fast(space, n_startup_trials=4))
    study.optimize(objective, n_trials=count)


def conditional_integers(trial):
    if trial.suggest_categorical("block", ["conv", None]) is None:
        return trial.suggest_int("a", 1, 8)
    return trial.suggest_int("b", 1, 8) + trial.suggest_int("c", 0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite:///{}/study.db", "{}/study.log"], ids=["sqlite", "journal"])
@pytest.mark.parametrize(("space", "objective"), [(SPACE, objective), (None, conditional_integers)])
def test_processes_repeat_nothing(storage, space, objective, tmp_path, processes):
    url = storage.format(tmp_path)
    study = optuna.create_study(
        study_name="own", storage=open_storage(url), sampler=fast(space, n_startup_trials=4), direction="maximize"
    )
    if space is None:
        study.optimize(objective, n_trials=2)
    before = len(study.trials)
    workers = [processes.Process(target=work, args=(url, space, objective, 8)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    assert len(study.trials) == before + 16
    assert repeated(study) == 0
