from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.predictors.inputs import as_architectures
from pyg_nas_np.spaces import Float, Integer, OperationGraph, ParameterSpace, Repeat, SampledGraphSpace
from pyg_nas_np.utils import InvalidSpaceError

optuna = pytest.importorskip("optuna")
from optuna.trial import TrialState, create_trial  # noqa: E402

from pyg_nas_np.integrations.optuna._encodings import (  # noqa: E402
    IndexEncoding,
    PoolEncoding,
    RecordEncoding,
    StudyEncoding,
    TextEncoding,
    encoding_of,
)

optuna.logging.set_verbosity(optuna.logging.WARNING)
SPACE = ParameterSpace(
    depth=Integer(2, 24),
    lr=Float(1e-5, 1e-1, log=True),
    drop=Float(0.0, 0.55, step=0.1),
    size=Integer(16, 500, step=16, log=True),
    optimizer=["sgd", "adam"],
    momentum=Float(0.0, 0.99, when={"optimizer": "sgd"}),
    seed=Integer(0, 9, optional=True),
    width=Repeat({"width": Integer(8, 64)}, 3, 3),
    layers=Repeat({"kernel": [3, 5], "se": [False, True], "ratio": Float(0.1, 0.5, when={"se": True})}, 0, 4),
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw_chain(generator):
    widths = (2 ** torch.randint(3, 8, (2,), generator=generator)).tolist()
    layers = [("linear", {"width": width}) for width in widths]
    return OperationGraph.of([("input", {}), *layers, ("output", {})], [(0, 1), (1, 2), (2, 3)])


def trial_of(params, distributions, state=TrialState.COMPLETE, **more):
    return create_trial(params=params, distributions=distributions, value=0.0, state=state, **more)


def test_a_space_is_encoded_by_what_it_can_do(toy_space):
    assert isinstance(encoding_of(SPACE, "arch"), RecordEncoding)
    assert isinstance(encoding_of(toy_space, "arch"), IndexEncoding)
    assert isinstance(encoding_of(SampledGraphSpace(draw_chain), "arch"), TextEncoding)


def test_configurations_are_told_by_plain_parameters():
    encoding = RecordEncoding(SPACE)
    names = [*encoding.distributions]
    assert names[:9] == [
        "depth", "lr", "drop", "size", "optimizer", "momentum", "seed_used", "seed", "width_0",
    ]  # fmt: skip
    assert names[11:15] == ["layers_length", "layers_0_kernel", "layers_0_se", "layers_0_ratio"]
    assert len(names) == 12 + 4 * 3
    # Optuna's grids end at their bounds and have no logarithms.
    assert encoding.distributions["drop"] == optuna.distributions.FloatDistribution(0.0, 0.5, step=0.1)
    assert encoding.distributions["size"] == optuna.distributions.IntDistribution(16, 496, step=16)


def test_configurations_lead_back():
    encoding = RecordEncoding(SPACE)
    for arch in SPACE.sample(60, seeded()):
        values = encoding.write(arch)
        assert encoding.read(values) == arch
        assert all(encoding.distributions[name]._contains(
            encoding.distributions[name].to_internal_repr(value)) for name, value in values.items())  # fmt: skip
        fixed = optuna.trial.FixedTrial(values)
        assert encoding.suggest(fixed) == arch
        assert fixed.params.keys() == values.keys()


def test_incomplete_and_wrong_values_are_no_architecture(toy_space):
    encoding = RecordEncoding(SPACE)
    values = encoding.write(SPACE.sample(1, seeded())[0])
    assert encoding.read({name: value for name, value in values.items() if name != "lr"}) is None
    assert encoding.read({**values, "depth": 99}) is None
    assert encoding.read({}) is IndexEncoding(toy_space, "arch").read({}) is None
    assert TextEncoding(SampledGraphSpace(draw_chain), "arch").read({"arch": "no graph"}) is None


def test_what_is_given_is_completed():
    encoding = RecordEncoding(SPACE)
    first, second = (encoding.write(arch) for arch in SPACE.sample(2, seeded(1)))
    given = {"optimizer": "sgd", "layers_length": 1, "momentum": 0.25}
    arch = encoding.completed(given, {**second, **first, "layers_0_kernel": 5, "layers_0_se": False})
    assert (arch["optimizer"], arch["momentum"]) == ("sgd", 0.25)
    assert arch["layers"] == ({"kernel": 5, "se": False},)
    assert encoding.completed({"depth": 3}, {}) is None


def test_two_parameters_with_one_name_are_refused():
    space = ParameterSpace(a_length=[1, 2], a=Repeat({"b": [1, 2]}, 1, 2))
    with pytest.raises(InvalidSpaceError, match=r"two parameters of .* would be 'a_length' in a trial; rename one"):
        RecordEncoding(space)


def test_fixed_parameters_count_until_the_trial_has_ended(toy_space):
    encoding = IndexEncoding(toy_space, "arch")
    for value, known in ((5, {"arch": 5}), (5.0, {"arch": 5}), (500, {}), ("x", {}), (None, {})):
        fixed = {"fixed_params": {"arch": value, "other": 1}}
        assert encoding.values(create_trial(state=TrialState.WAITING, system_attrs=fixed)) == known
        assert encoding.values(create_trial(state=TrialState.FAIL, system_attrs=fixed)) == {}


def test_equal_candidates_have_the_first_position():
    records = [{"w": 1, "d": 2}, {"w": 2, "d": 2}, {"w": 1, "d": 2}]
    encoding = PoolEncoding(as_architectures(records), "arch")
    assert encoding.write(encoding.read({"arch": 2})) == {"arch": 0}
    assert encoding.distributions == {"arch": optuna.distributions.IntDistribution(0, 2)}


def test_text_is_a_user_attribute():
    space = SampledGraphSpace(draw_chain)
    encoding = TextEncoding(space, "net")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    arch = encoding.suggest(trial)
    assert space.from_str(trial.user_attrs["net"]) == arch == encoding.suggest(trial)
    frozen = study.trials[0]
    assert encoding.read(encoding.values(frozen)) == arch
    # Any sampler of Optuna draws architectures by their seeds.
    study.enqueue_trial({"net": frozen.params["net"]})
    assert encoding.suggest(study.ask()) == arch


# -- studies without a space ------------------------------------------------------------------------------------------

ANY = [None, 1, 1.5, "a", True, float("nan")]


def define_by_run(trial):
    trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    trial.suggest_categorical("any", ANY)
    trial.suggest_categorical("kernel", [3, 5, 7])
    if trial.suggest_categorical("block", ["conv", "mbconv"]) == "mbconv":
        trial.suggest_int("expand", 1, 6)
        trial.suggest_categorical("act", [None, "relu"])
    for i in range(trial.suggest_int("depth", 1, 3)):
        trial.suggest_int(f"width_{i}", 8, 8 * (2 + trial.number), step=8)
    return 0.0


def run(objective, num_trials=40):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=num_trials)
    return study


def test_a_study_tells_its_space():
    trials = run(define_by_run).trials
    encoding = StudyEncoding(trials)
    parameters = encoding.space.parameters
    assert parameters["lr"] == Float(1e-4, 1e-1, log=True)
    assert parameters["expand"].when == parameters["act"].when == {"block": ("mbconv",)}
    assert parameters["act"].choices == ("None", "'relu'")
    assert parameters["kernel"].choices == (3, 5, 7)
    assert parameters["width_2"].when == {"depth": (3,)}
    # Ranges that change from trial to trial are joined.
    assert parameters["width_0"] == Integer(8, 8 * 41, 8)


def test_trials_lead_back():
    trials = run(define_by_run).trials
    encoding = StudyEncoding(trials)
    for trial in trials:
        values = encoding.values(trial)
        assert values.keys() == trial.params.keys()
        assert encoding.write(encoding.read(values)) == values
        back = encoding.params(values, trial)
        assert all(back[name] is value or back[name] == value for name, value in trial.params.items())


def test_a_choice_may_be_any_object():
    class Block:
        def __repr__(self):
            return "Block()"

    blocks = [Block(), Block(), (1, 2), {"a": 1}]

    def objective(trial):
        trial.suggest_categorical("block", blocks)
        return 0.0

    with pytest.warns(UserWarning, match="for persistent storage"):
        trials = run(objective, 12).trials
    encoding = StudyEncoding(trials)
    assert encoding.space.parameters["block"].choices == ("Block() (0)", "Block() (1)", "(1, 2)", "{'a': 1}")
    for trial in trials:
        assert encoding.params(encoding.values(trial), trial)["block"] is trial.params["block"]


def test_what_a_study_leaves_open_is_completed():
    encoding = StudyEncoding(run(define_by_run).trials)
    others = {
        name: value for arch in encoding.space.sample(30, seeded()) for name, value in encoding.write(arch).items()
    }
    for block in ("conv", "mbconv"):
        arch = encoding.completed({"block": block, "depth": 2}, others)
        assert ("expand" in arch) == (block == "mbconv")
        assert "width_1" in arch
        assert "width_2" not in arch


@given(st.data())
def test_any_define_by_run_study_leads_back(data):
    """Programs with numbers, choices and branches: every trial is an architecture of the inferred space."""
    names = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True))
    kinds = {name: data.draw(st.sampled_from(["int", "float", "log", "step", "choice"])) for name in names}
    parents = {name: data.draw(st.sampled_from([None, *names[:i]])) for i, name in enumerate(names)}
    choices = data.draw(st.lists(st.sampled_from([None, True, 0, 2.5, "x", "y"]), min_size=1, max_size=4))

    def objective(trial):
        values = {}
        for name in names:
            parent = parents[name]
            if parent is not None and not (parent in values and hash(values[parent]) % 2):
                continue
            values[name] = {
                "int": lambda name: trial.suggest_int(name, -3, 4),
                "float": lambda name: trial.suggest_float(name, -1.0, 1.0),
                "log": lambda name: trial.suggest_float(name, 1e-3, 1.0, log=True),
                "step": lambda name: trial.suggest_float(name, 0.0, 1.0, step=0.3),
                "choice": lambda name: trial.suggest_categorical(name, choices),
            }[kinds[name]](name)
        return 0.0

    trials = run(objective, 8).trials
    encoding = StudyEncoding(trials)
    for trial in trials:
        values = encoding.values(trial)
        assert encoding.write(encoding.read(values)) == values
        assert encoding.params(values, trial) == trial.params
    for arch in encoding.space.sample(5, seeded(), replace=True):
        assert encoding.read(encoding.write(arch)) == arch
