"""Spaces of configurations: conformance, properties of random declarations, files, costs, bad input."""

from __future__ import annotations

import json
import math
import pickle
import re
import sys
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.spaces import Categorical, Configuration, Costs, Float, Integer, ParameterSpace, Repeat
from pyg_nas_np.spaces.configuration import Level
from pyg_nas_np.spaces.registry import declared_space
from pyg_nas_np.spaces.testing import SpaceTestCase, seeded
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, InvalidSpaceError


def conditional():
    return ParameterSpace(
        depth=Integer(6, 24),
        lr=Float(1e-5, 1e-1, log=True),
        optimizer=["sgd", "adam"],
        momentum=Float(0.0, 0.99, when={"optimizer": "sgd"}),
        nesterov=Categorical([False, True], when={"optimizer": ["sgd"]}),
        layers=Repeat(
            {
                "op": ["conv", "pool", "attention"],
                "kernel": Categorical([3, 5, 7], ordered=True, when={"op": ["conv", "pool"]}),
                "heads": Integer(1, 16, log=True, when={"op": "attention"}),
            },
            0,
            8,
        ),
    )


class TestConditional(SpaceTestCase):
    # What a condition switches off is forgotten.
    symmetric = False

    def make_space(self):
        return conditional()


class TestCategories(SpaceTestCase):
    def make_space(self):
        return ParameterSpace({f"op_{i}": ["none", "skip", "conv1", "conv3", "pool"] for i in range(6)})


class TestGrid(SpaceTestCase):
    def make_space(self):
        return ParameterSpace(a=Integer(0, 40, step=2), b=Float(0.1, 0.9, step=0.1), c=[True, False, None])


class TestPriced(SpaceTestCase):
    symmetric = False

    def make_space(self):
        return ParameterSpace(width=Integer(8, 512, log=True), act=["relu", "gelu"], costs={"width": "width"})


class TestInferred(SpaceTestCase):
    symmetric = False

    def make_space(self):
        rows = conditional().records(conditional().sample(40, seeded(5)))
        return ParameterSpace.from_records(rows)


class TestHuge(SpaceTestCase):
    symmetric = False

    def make_space(self):
        return ParameterSpace(
            layers=Repeat({"width": Integer(16, 1024, step=16), "kernel": [3, 5, 7]}, 4, 30), seed=Integer(0, 10**30)
        )


# -- random declarations ----------------------------------------------------------------------------------------------

CHOICES = st.lists(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=4)), min_size=1, max_size=5, unique=True
).filter(lambda values: len(set(values)) == len(values))


@st.composite
def integers(draw):
    low, step, count = draw(st.integers(-50, 50)), draw(st.integers(1, 7)), draw(st.integers(0, 60))
    return Integer(low, low + step * count, step, log=low > 0 and draw(st.booleans()))


@st.composite
def floats(draw):
    low = draw(st.floats(-100, 100, allow_nan=False))
    width = draw(st.floats(0, 1000, allow_nan=False))
    step = draw(st.one_of(st.none(), st.floats(0.01, 3)))
    return Float(low, low + width, step, log=low > 1e-6 and draw(st.booleans()))


VALUES = st.one_of(integers(), floats(), st.builds(Categorical, CHOICES, ordered=st.booleans()))


@st.composite
def levels(draw, repeats=True):
    parameters = {}
    for i in range(draw(st.integers(1, 5))):
        parameter = draw(VALUES)
        parents = [name for name, known in parameters.items() if isinstance(known, Categorical) and not known.when]
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            allowed = draw(st.lists(st.sampled_from(parameters[parent].choices), min_size=1, unique=True))
            parameter = type(parameter)(
                *(getattr(parameter, key) for key in parameter.__match_args__ if key not in ("when", "optional")),
                when={parent: allowed},
                optional=draw(st.booleans()),
            )
        parameters[f"p{i}"] = parameter
    if repeats and draw(st.booleans()):
        low = draw(st.integers(0, 3))
        parameters["layers"] = Repeat(draw(levels(repeats=False)), low, low + draw(st.integers(1, 3)))
    return parameters


@settings(max_examples=80, deadline=None)
@given(levels(), st.integers(0, 1000))
def test_members_survive_every_form_and_every_edit(parameters, seed):
    space = ParameterSpace(parameters)
    generator = seeded(seed)
    archs = space.sample(4, generator, replace=True)
    for arch in archs:
        assert space.check(arch) is arch
        assert space.check(arch.to_dict()) == arch
        assert space.from_str(space.to_str(arch)) == arch
        assert space.to_str(space.from_str(space.to_str(arch))) == space.to_str(arch)
        assert pickle.loads(pickle.dumps(arch)) == arch
        neighbors = space.neighbors(arch)
        assert len(set(neighbors)) == len(neighbors)
        assert arch not in neighbors
        edited = [*neighbors[:20], space.mutate(arch, generator), space.crossover(arch, archs[0], generator)]
        for other in edited:
            assert space.is_valid(other), space.is_valid(other).reason
            assert space.check(space.to_str(other) and other.to_dict()) == other
        assert space.crossover(arch, arch, generator) == arch
        assert (space.mutate(arch, generator) != arch) == bool(neighbors)


@settings(max_examples=80, deadline=None)
@given(levels())
def test_declarations_lead_back(parameters):
    space = ParameterSpace(parameters)
    again = ParameterSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again.parameters == space.parameters
    assert again.name == space.name == ParameterSpace(parameters).name
    assert again.sample(3, seeded(), replace=True) == space.sample(3, seeded(), replace=True)


@settings(max_examples=60, deadline=None)
@given(levels())
def test_counted_spaces_can_be_drawn_to_the_last_configuration(parameters):
    space = ParameterSpace(parameters)
    if space.size is None or space.size > 300:
        return
    everything = space.sample(space.size, seeded())
    assert len(set(everything)) == space.size
    with pytest.raises(ValueError, match=str(space.size + 1)):
        space.sample(space.size + 1, seeded())


@settings(max_examples=60, deadline=None)
@given(levels(), st.integers(0, 99))
def test_inferred_spaces_hold_what_they_were_inferred_from(parameters, seed):
    space = ParameterSpace(parameters)
    records = space.records(space.sample(12, seeded(seed), replace=True))
    try:
        inferred = ParameterSpace.from_records(records)
    except InvalidSpaceError as error:
        if re.search("no column varies|mixes|has no layer", str(error)):
            return
        raise
    assert [inferred.check(record) for record in records]
    assert len(inferred.pool) <= len(set(map(str, records)))
    assert declared_space(json.loads(json.dumps(inferred.declaration()))).pool == inferred.pool
    for arch in inferred.sample(4, seeded(seed), replace=True):
        assert inferred.from_str(inferred.to_str(arch)) == arch
        assert all(map(inferred.is_valid, inferred.neighbors(arch)))
        assert inferred.is_valid(inferred.mutate(arch, seeded(seed)))
    assert inferred.describe()


# -- drawing ----------------------------------------------------------------------------------------------------------


def test_each_parameter_is_drawn_uniformly():
    space = ParameterSpace(
        op=["a", "b", "c"], lr=Float(1e-4, 1.0, log=True), n=Integer(0, 9), w=Integer(1, 1000, log=True), s=Float(0, 1)
    )
    records = space.records(space.sample(6000, seeded(), replace=True))
    for name, bins in (("op", 3), ("n", 10)):
        counts = Counter(record[name] for record in records)
        assert len(counts) == bins
        assert all(abs(count - 6000 / bins) < 5 * math.sqrt(6000 / bins) for count in counts.values())
    for place in (
        [math.log(r["lr"] / 1e-4) / math.log(1e4) for r in records],
        [r["s"] for r in records],
        [math.log(r["w"] / 0.5) / math.log(1000.5 / 0.5) for r in records],
    ):
        assert abs(sum(place) / len(place) - 0.5) < 0.03
        assert 0.28 < torch.tensor(place).std() < 0.31


def test_a_condition_is_met_as_often_as_it_is_drawn():
    archs = conditional().sample(2000, seeded(), replace=True)
    assert all(("momentum" in arch) == (arch["optimizer"] == "sgd") for arch in archs)
    assert 850 < sum("momentum" in arch for arch in archs) < 1150
    layers = [layer for arch in archs for layer in arch["layers"]]
    assert all(("heads" in layer) == (layer["op"] == "attention") != ("kernel" in layer) for layer in layers)


def test_huge_spaces_are_drawn_without_repetition():
    space = TestHuge().make_space()
    assert space.size > 10**80
    assert len(set(space.sample(500, seeded()))) == 500


def test_mutation_changes_one_parameter():
    space = conditional()
    for seed, arch in enumerate(space.sample(50, seeded())):
        mutant = space.mutate(arch, seeded(seed))
        changed = {name for name in space.parameters if arch.get(name) != mutant.get(name)}
        assert len(changed - {"momentum", "nesterov"}) <= 1
        assert len(changed) == 1 or "optimizer" in changed


def test_neighbors_differ_in_one_parameter_in_the_order_of_the_parameters():
    space = ParameterSpace(a=Integer(0, 4), b=["x", "y", "z"], layers=Repeat({"k": [3, 5]}, 1, 2))
    arch = space.check({"a": 0, "b": "x", "layers": [{"k": 3}]})
    assert [arch.to_dict() for arch in space.neighbors(arch)] == [
        {"a": 1, "b": "x", "layers": [{"k": 3}]},
        {"a": 0, "b": "y", "layers": [{"k": 3}]},
        {"a": 0, "b": "z", "layers": [{"k": 3}]},
        {"a": 0, "b": "x", "layers": [{"k": 5}]},
        {"a": 0, "b": "x", "layers": [{"k": 3}, {"k": 3}]},
    ]


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"depth": 5}, "depth: 5 is not between 6 and 24"),
        ({"depth": 6.5}, "depth: 6.5 is not a whole number"),
        ({"depth": True}, "depth: True is not a finite number"),
        ({"depth": "6"}, "depth: '6' is not a finite number"),
        ({"lr": float("inf")}, "lr: inf is not a finite number"),
        ({"lr": None}, "'lr' is missing; the parameters are depth, lr"),
        ({"optimizer": "lion"}, "optimizer: 'lion' is not one of"),
        ({"optimizer": "adam"}, "'momentum' is not active where optimizer='adam'; leave it out"),
        ({"optimizer": ["sgd"]}, "optimizer:"),
        ({"width": 3}, "'width' is not one of the parameters depth, lr"),
        ({"layers": 3}, "layers: 3 is not a list of layers"),
        ({"layers": "abc"}, "layers: 'abc' is not a list of layers"),
        ({"layers": [{"op": "conv", "kernel": 3}] * 9}, "layers: 9 layers are not between 0 and 8"),
        ({"layers": [{"op": "conv", "kernel": 3}, {"op": "conv", "kernel": 4}]}, "layers: layer 1: kernel: 4 is not"),
        ({"layers": [{"op": "conv"}]}, "layers: layer 0: 'kernel' is missing"),
        ({"layers": [3]}, "layers: layer 0: a configuration is a mapping"),
    ],
)
def test_what_is_wrong_is_named(change, reason):
    space = conditional()
    good = {"depth": 6, "lr": 0.01, "optimizer": "sgd", "momentum": 0.5, "nesterov": True, "layers": []}
    assert space.is_valid(good)
    validity = space.is_valid({**good, **change})
    assert not validity
    assert reason in validity.reason
    with pytest.raises(InvalidArchitectureError):
        space.check({**good, **change})


def test_values_are_read_in_plain_form():
    numpy = pytest.importorskip("numpy")
    space = ParameterSpace(n=Integer(0, 9), f=Float(0, 1, step=0.1), c=Categorical([1, "two", None, True - 0.5]))
    arch = space.check({"n": numpy.int64(3), "f": torch.tensor(0.3, dtype=torch.float64), "c": numpy.str_("TWO")})
    assert space.to_str(arch) == '{"n":3,"f":0.3,"c":"two"}'
    assert space.to_str(space.check({"c": float("nan"), "f": 0, "n": 3.0})) == '{"n":3,"f":0.0,"c":null}'
    assert space.to_str(space.check(Configuration({"n": 3.0, "f": -0.0, "c": 1}))) == '{"n":3,"f":0.0,"c":1}'


def test_strings_that_are_no_json_are_refused():
    space = ParameterSpace(a=[1, 2])
    for text in ("", "{", '{"a":1}}', "[" * 100_000, '{"a":NaN}', "1", "null"):
        with pytest.raises(InvalidArchitectureError):
            space.from_str(text)


# -- declarations -----------------------------------------------------------------------------------------------------

TOML = """
name = "my-vit"
[parameters]
depth = { low = 6, high = 24 }
lr = { low = 1e-5, high = 1e-1, log = true }
optimizer = ["sgd", "adam"]
momentum = { low = 0.0, high = 0.99, when = { optimizer = "sgd" } }
[parameters.layers]
min_length = 2
max_length = 8
parameters = { kernel = [3, 5, 7], width = { low = 16, high = 256, step = 16, log = true } }
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TOML is read from Python 3.11 on")
def test_toml_declares_a_conditional_space_in_ten_lines(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(TOML)
    assert len(TOML.strip().splitlines()) == 10
    space = ParameterSpace.from_file(path)
    assert space.name == "my-vit"
    assert (
        space.parameters
        == ParameterSpace(
            depth=Integer(6, 24),
            lr=Float(1e-5, 1e-1, log=True),
            optimizer=["sgd", "adam"],
            momentum=Float(0, 0.99, when={"optimizer": "sgd"}),
            layers=Repeat({"kernel": [3, 5, 7], "width": Integer(16, 256, 16, log=True)}, 2, 8),
        ).parameters
    )


def test_json_is_read_too_and_damage_is_named(tmp_path):
    path = tmp_path / "space.json"
    path.write_text(json.dumps(conditional().to_dict()))
    assert ParameterSpace.from_file(path).parameters == conditional().parameters
    path.write_text('{"parameters": {"a": [1, 1]}}')
    with pytest.raises(InvalidSpaceError, match=r"space.json: parameter 'a': choice 1 occurs twice"):
        ParameterSpace.from_file(path)
    for content in (b"{", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(DataFileError, match=r"space.json"):
            ParameterSpace.from_file(path)
    with pytest.raises(DataFileError):
        ParameterSpace.from_file(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({}, "a table 'parameters'"),
        ([], "a table 'parameters'"),
        ({"parameters": {}}, "at least one parameter"),
        ({"parameters": {"a": [1]}, "costs": 1}, "'costs' is not a key"),
        ({"parameters": {"a": [1]}, "name": 3}, "must be a string"),
        ({"parameters": {"a": 3}}, "parameter 'a': 3 is not a parameter"),
        ({"parameters": {"a": {"type": "real", "low": 1, "high": 2}}}, "parameter 'a' has type 'real'"),
        ({"parameters": {"a": {"type": [], "low": 1, "high": 2}}}, "parameter 'a' has type"),
        ({"parameters": {"a": {"low": 1}}}, "parameter 'a': the key 'high' of integer is missing"),
        ({"parameters": {"a": {"low": 1, "high": 2, "hihg": 2}}}, "'hihg' is not a key of integer"),
        ({"parameters": {"a": {"low": 1, "high": 2, "log": "yes"}}}, "log must be true or false"),
        ({"parameters": {"a": {"low": "x", "high": 2}}}, "low of Integer must be a whole number"),
        ({"parameters": {"a": {"parameters": {"b": {}}, "min_length": 1, "max_length": 2}}}, "'a.b'"),
        ({"parameters": {"a": {"parameters": 3, "min_length": 1, "max_length": 2}}}, "parameters by name"),
    ],
)
def test_declarations_that_are_wrong_are_named(declared, message):
    with pytest.raises(InvalidSpaceError, match=message):
        ParameterSpace.from_dict(declared)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ParameterSpace(), "at least one parameter"),
        (lambda: ParameterSpace({"a": [1]}, a=[2]), "'a' is given twice"),
        (lambda: ParameterSpace({"": [1]}), "must be a string"),
        (lambda: ParameterSpace({3: [1]}), "must be a string"),
        (lambda: ParameterSpace(a=Integer(1, 2, when={"b": 1})), "names 'b', which is not one of a"),
        (lambda: ParameterSpace(a=Integer(1, 2, when={"a": 1})), "depend on themselves"),
        (
            lambda: ParameterSpace(a=Integer(1, 2, when={"b": 1}), b=Integer(1, 2, when={"a": 1})),
            "depend on themselves",
        ),
        (lambda: ParameterSpace(a=["x", "y"], b=Integer(1, 2, when={"a": "z"})), "can never hold: 'z' is not one of"),
        (
            lambda: ParameterSpace(
                a=["x", "y"], b=Categorical([1, 2], when={"a": "x"}), c=Integer(0, 1, when={"a": "y", "b": 1})
            ),
            "conditions of 'c' contradict each other: no value of 'a'",
        ),
        (
            lambda: ParameterSpace(a=Repeat({"k": [1]}, 1, 2), b=Integer(1, 2, when={"a": 1})),
            "names 'a', which is a list of layers",
        ),
        (lambda: ParameterSpace(a=[1, 2], costs={"c": "flops"}), "'flops' is neither a numeric parameter"),
        (lambda: ParameterSpace(a=["x"], costs={"c": "a"}), "'a' is neither a numeric parameter"),
        (lambda: ParameterSpace(a=[1, 2], costs={"c": 3}), "must be a column or a function"),
        (lambda: ParameterSpace(a=[1, 2], scores={"c": "-swap"}), "score 'c': 'swap' is neither a numeric parameter"),
        (lambda: ParameterSpace(a=[1, 2], scores={"c": 3}), "score 'c' must be a column or a function"),
        (lambda: ParameterSpace(a=[1, 2], costs={"c": "a"}, scores={"d": "-a"}), "'a' is named twice"),
        (lambda: ParameterSpace(a=[1, 2], b=[1, 2], costs={"c": "a"}, scores={"c": "b"}), "'c' is named twice"),
    ],
)
def test_contradictions_are_named(make, message):
    with pytest.raises(InvalidSpaceError, match=message):
        make()


# -- costs and pool ---------------------------------------------------------------------------------------------------


def test_costs_come_from_functions_parameters_and_the_pool():
    pool = [{"width": 8, "act": "relu", "latency": 3.5}, {"width": 16, "act": "gelu", "latency": None}]
    space = ParameterSpace(
        width=Integer(8, 64, step=8),
        act=["relu", "gelu"],
        costs={"params": lambda arch: arch["width"] ** 2, "w": "width", "latency": "latency"},
        pool=pool,
    )
    assert isinstance(space, Costs)
    costs = space.costs([*space.pool, space.check({"width": 64, "act": "relu"})])
    assert list(costs) == ["params", "w", "latency"]
    assert costs["params"].tolist() == [64, 256, 4096]
    assert costs["w"].tolist() == [8, 16, 64]
    torch.testing.assert_close(
        costs["latency"], torch.tensor([3.5, math.nan, math.nan], dtype=torch.float64), equal_nan=True
    )
    other = space.check({"width": 40, "act": "relu", "latency": 9.0})
    assert other == {"width": 40, "act": "relu"}
    assert space.costs([other, pickle.loads(pickle.dumps(other))])["latency"].tolist() == [9.0, 9.0]
    repeated = ParameterSpace(a=[1, 2], costs={"c": "ms"}, pool=[{"a": 1}, {"a": 1, "ms": 4}, {"a": 1, "ms": 5}])
    assert repeated.costs(repeated.pool)["c"].tolist() == [4.0]
    assert repeated.pool[0].costs == {"ms": 4.0}
    assert space.costs([])["w"].shape == (0,)
    assert ParameterSpace(a=[1]).costs([]) == {}


def test_scores_come_as_costs_do_and_larger_is_better():
    pool = [{"a": 1, "swap": 3.0, "grad_norm": 5.0}, {"a": 2, "swap": None, "grad_norm": math.inf}, {"a": 3, "swap": 1}]
    space = ParameterSpace(
        a=Integer(1, 9), scores={"swap": "swap", "grad": "-grad_norm", "guess": lambda arch: arch["a"]}, pool=pool
    )
    nan = math.nan
    wanted = {"swap": [3.0, nan, 1.0], "grad": [-5.0, -math.inf, nan], "guess": [1.0, 2.0, 3.0]}
    for archs in (space.pool, space.check_table({"a": [1, 2, 3]})):
        found = space.scores(archs)
        assert list(found) == list(wanted)
        for name, column in wanted.items():
            expected = torch.tensor(column, dtype=torch.float64)
            torch.testing.assert_close(found[name], expected, equal_nan=True)
    assert space.costs(space.pool) == {}
    assert space.scores([space.check({"a": 1, "swap": 7})])["swap"].tolist() == [7.0]
    assert ParameterSpace(a=[1]).scores([]) == {}
    assert space.declaration() is None
    declared = ParameterSpace(a=Integer(1, 9), scores={"swap": "swap", "grad": "-grad_norm"}, pool=pool)
    again = declared_space(declared.declaration())
    assert again.scores(again.pool)["grad"].tolist()[0] == -5.0
    inferred = ParameterSpace.from_records(pool, scores={"swap": "swap", "grad": "-grad_norm"})
    assert list(inferred.parameters) == ["a"]
    assert inferred.left_out == {"swap": "it is a score", "grad_norm": "it is a score"}
    assert inferred.scores(inferred.pool)["swap"].tolist()[0] == 3.0


def test_the_pool_is_the_reference():
    pool = [{"a": i % 7} for i in range(20)]
    space = ParameterSpace(a=Integer(0, 9), pool=pool)
    assert [arch["a"] for arch in space.reference(100)] == list(range(7))
    assert len(set(space.reference(5, seeded()))) == 5
    with pytest.raises(InvalidArchitectureError, match="row 1 of the pool"):
        ParameterSpace(a=Integer(0, 9), pool=[{"a": 1}, {"a": 10}])


def test_configurations_equal_dictionaries_of_their_values():
    arch = conditional().sample(1, seeded())[0]
    assert arch == arch.to_dict()
    assert arch != {}
    assert eval(repr(arch)) == arch
    assert len(arch) == len(arch.to_dict())


def test_a_configuration_is_checked_once_by_each_space(monkeypatch):
    narrow, wide = ParameterSpace(depth=Integer(1, 3)), ParameterSpace(depth=Integer(1, 9))
    read, seen = Level.read, []
    monkeypatch.setattr(Level, "read", lambda self, record: seen.append(self) or read(self, record))
    arch = wide.check({"depth": 7})
    assert wide.check(arch) is arch
    assert len(seen) == 1
    with pytest.raises(InvalidArchitectureError, match="depth"):
        narrow.check(arch)
    with pytest.raises(InvalidArchitectureError, match="depth"):
        narrow.check(arch)
    copied = pickle.loads(pickle.dumps(arch))
    assert copied == arch
    assert copied.checked_by is None
