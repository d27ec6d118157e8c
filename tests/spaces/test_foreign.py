"""Spaces of Optuna and ConfigSpace, taken over with their conditions or refused clearly."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from pyg_nas_np.spaces import Categorical, Float, Integer, ParameterSpace
from pyg_nas_np.spaces.testing import SpaceTestCase, seeded
from pyg_nas_np.utils import InvalidSpaceError

# -- Optuna -----------------------------------------------------------------------------------------------------------


def study(num_trials=40, objective=None):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def define_by_run(trial):
        trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        trial.suggest_int("width", 16, 128, step=16)
        if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "sgd":
            trial.suggest_float("momentum", 0.0, 0.9)
        return 0.0

    made = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    made.optimize(objective or define_by_run, n_trials=num_trials)
    return made


class TestStudy(SpaceTestCase):
    symmetric = False

    def make_space(self):
        return ParameterSpace.from_optuna(study())


def test_a_study_tells_its_conditions_and_is_the_pool():
    made = study()
    space = ParameterSpace.from_optuna(made)
    assert space.parameters == {
        "lr": Float(1e-4, 1e-1, log=True),
        "width": Integer(16, 128, 16),
        "optimizer": Categorical(["sgd", "adam"]),
        "momentum": Float(0.0, 0.9, when={"optimizer": "sgd"}),
    }
    assert [arch.to_dict() for arch in space.pool] == [trial.params for trial in made.trials]


def test_layers_of_a_loop_depend_on_their_number():
    def loop(trial):
        for i in range(trial.suggest_int("depth", 1, 3)):
            trial.suggest_int(f"width_{i}", 8, 64)
        return 0.0

    space = ParameterSpace.from_optuna(study(60, loop))
    assert space.parameters["width_2"].when == {"depth": (3,)}
    assert space.parameters["width_1"].when == {"depth": (2, 3)}
    assert space.parameters["width_0"].when == {}
    for arch in space.sample(20, seeded()):
        assert len(arch) == 1 + arch["depth"]


def test_ranges_that_change_are_joined_and_kinds_that_change_are_refused():
    def growing(trial):
        trial.suggest_int("n", 1, 4 + trial.number)
        trial.suggest_float("x", 0.0, 1.0)
        return 0.0

    assert ParameterSpace.from_optuna(study(3, growing)).parameters["n"] == Integer(1, 6)
    optuna = pytest.importorskip("optuna")
    made = study(0)
    for value, distribution in (
        (1, optuna.distributions.IntDistribution(1, 2)),
        (1.0, optuna.distributions.FloatDistribution(1, 2)),
    ):
        made.add_trial(optuna.create_trial(params={"a": value}, distributions={"a": distribution}, value=0.0))
    with pytest.raises(InvalidSpaceError, match=r"'a' is .* in one trial and"):
        ParameterSpace.from_optuna(made)


def test_distributions_and_what_is_none():
    optuna = pytest.importorskip("optuna")
    d = optuna.distributions
    given = {"a": d.CategoricalDistribution([None, 1, "x"]), "b": d.FloatDistribution(0, 1, step=0.25)}
    assert ParameterSpace.from_optuna(given).parameters["b"].size == 5
    with pytest.raises(InvalidSpaceError, match="has no trial"):
        ParameterSpace.from_optuna(optuna.create_study())
    with pytest.raises(InvalidSpaceError, match="'a' is a dict"):
        ParameterSpace.from_optuna({"a": {}})


# -- ConfigSpace ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cs():
    return pytest.importorskip("ConfigSpace")


def declared(cs):
    return cs.ConfigurationSpace(
        name="mine",
        space={
            "lr": cs.Float("lr", (1e-4, 1e-1), log=True),
            "depth": (1, 4),
            "act": ["relu", "gelu", "silu"],
            "size": cs.Categorical("size", ["s", "m", "l"], ordered=True),
            "slope": (0.0, 1.0),
            "heads": (1, 8),
            "c": 3,
        },
    )


class TestConfigSpace(SpaceTestCase):
    symmetric = False

    def make_space(self):
        cs = pytest.importorskip("ConfigSpace")
        space = declared(cs)
        space.add(cs.EqualsCondition(space["slope"], space["act"], "relu"))
        space.add(
            cs.AndConjunction(
                cs.GreaterThanCondition(space["heads"], space["size"], "s"),
                cs.NotEqualsCondition(space["heads"], space["act"], "silu"),
            )
        )
        return ParameterSpace.from_configspace(space)


def test_conditions_are_translated(cs):
    source = declared(cs)
    source.add(cs.EqualsCondition(source["slope"], source["act"], "relu"))
    source.add(
        cs.AndConjunction(
            cs.GreaterThanCondition(source["heads"], source["size"], "s"),
            cs.InCondition(source["heads"], source["depth"], [2, 4]),
        )
    )
    space = ParameterSpace.from_configspace(source)
    assert space.name == "mine"
    assert space.parameters["lr"] == Float(1e-4, 1e-1, log=True)
    assert space.parameters["size"] == Categorical(["s", "m", "l"], ordered=True)
    assert space.parameters["slope"].when == {"act": ("relu",)}
    assert space.parameters["heads"].when == {"size": ("m", "l"), "depth": (2, 4)}
    assert space.parameters["c"] == Categorical([3])
    for configuration in source.sample_configuration(50):
        assert space.is_valid(dict(configuration)), space.is_valid(dict(configuration)).reason


def test_or_of_one_parameter_is_translated_and_of_several_refused(cs):
    source = declared(cs)
    source.add(
        cs.OrConjunction(
            cs.LessThanCondition(source["heads"], source["depth"], 2),
            cs.EqualsCondition(source["heads"], source["depth"], 4),
        )
    )
    assert ParameterSpace.from_configspace(source).parameters["heads"].when == {"depth": (1, 4)}
    source = declared(cs)
    source.add(
        cs.OrConjunction(
            cs.EqualsCondition(source["heads"], source["act"], "relu"),
            cs.EqualsCondition(source["heads"], source["depth"], 4),
        )
    )
    with pytest.raises(InvalidSpaceError, match="several parameters by 'or'"):
        ParameterSpace.from_configspace(source)


def test_what_cannot_be_taken_over_is_refused(cs):
    source = declared(cs)
    source.add(cs.EqualsCondition(source["heads"], source["lr"], 1e-3))
    with pytest.raises(InvalidSpaceError, match="too many values; make 'lr' categorical"):
        ParameterSpace.from_configspace(source)
    source = declared(cs)
    source.add(cs.ForbiddenEqualsClause(source["act"], "gelu"))
    with pytest.raises(InvalidSpaceError, match="forbidden clauses"):
        ParameterSpace.from_configspace(source)


# -- NePS -------------------------------------------------------------------------------------------------------------


@dataclass
class Domain:
    """As of NePS 0.17, whose package is too large to install for its names."""

    lower: float = 0
    upper: float = 1
    log: bool = False
    choices: tuple[object, ...] = ()


@pytest.fixture
def neps():
    kinds = ("Integer", "Float", "Categorical", "IntegerFidelity", "Operation")
    return SimpleNamespace(**{kind: type(kind, (Domain,), {}) for kind in kinds})


def test_a_neps_space(neps):
    attributes = {
        "depth": neps.Integer(1, 12),
        "lr": neps.Float(1e-4, 1e-1, log=True),
        "act": neps.Categorical(choices=("relu", "gelu")),
        "epochs": neps.IntegerFidelity(1, 50),
        "seed": 3,
    }
    space = ParameterSpace.from_neps(SimpleNamespace(get_attrs=lambda: attributes))
    assert space.parameters == {
        "depth": Integer(1, 12),
        "lr": Float(1e-4, 1e-1, log=True),
        "act": Categorical(("relu", "gelu")),
    }
    assert ParameterSpace.from_neps(attributes, name="mine").name == "mine"


def test_neps_spaces_that_cannot_be_taken_over(neps):
    with pytest.raises(
        InvalidSpaceError, match="parameter 'block' is a Operation; only integers, floats and categories"
    ):
        ParameterSpace.from_neps({"block": neps.Operation()})
    with pytest.raises(InvalidSpaceError, match="parameter 'depth': "):
        ParameterSpace.from_neps({"depth": neps.Integer(5, 1)})
    nested = neps.Categorical(choices=(neps.Integer(1, 2), "a"))
    with pytest.raises(InvalidSpaceError, match="parameter 'block'"):
        ParameterSpace.from_neps({"block": nested})
