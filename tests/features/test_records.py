from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.features import RecordFeatures, shared_features
from pyg_nas_np.features.records import FAR, numbered_lists, shared_domains
from pyg_nas_np.spaces import Categorical, Float, Integer, ParameterSpace, Repeat


def space(**options) -> ParameterSpace:
    return ParameterSpace(
        depth=Integer(2, 20),
        rate=Float(1e-5, 1e-1),
        act=Categorical(["relu", "gelu", "tanh"]),
        residual=Categorical([False, True]),
        momentum=Float(0.0, 1.0, when={"act": "relu"}),
        layers=Repeat({"kernel": [3, 5, 7], "op": ["conv", "pool", "skip"]}, 1, 3),
        **options,
    )


def draw(of: ParameterSpace, n: int = 50, seed: int = 0):
    return of.sample(n, torch.Generator().manual_seed(seed), replace=True)


def test_columns_of_a_small_space():
    features = RecordFeatures(space())
    assert features.feature_groups["act"] == [
        features.feature_names.index(f"act={c}") for c in ("relu", "gelu", "tanh")
    ]
    groups = features.feature_groups
    names = {group: [features.feature_names[i] for i in columns] for group, columns in groups.items()}
    assert names["depth"] == ["depth"]
    assert names["residual"] == ["residual"]
    # Momentum is active where the activation is relu: one column says both.
    assert names["momentum"] == ["momentum", "act=relu"]
    assert {"layers[0].kernel", "layers[2].kernel", "layers[2].kernel is active"} <= set(names["layers.kernel"])
    assert {"total of layers.kernel", "slope of layers.kernel", "last of layers.kernel"} <= set(names["layers.kernel"])
    assert "first of layers.kernel" not in names["layers.kernel"]  # the first position
    assert {"layers[1].op=conv", "count of pool in layers.op"} <= set(names["layers.op"])
    assert names["layers"] == ["number of layers"]
    assert features.has_lists
    blocks = [[features.feature_names[i] for i in block] for block in features.blocks]
    assert ["layers[2].op=conv", "layers[2].op=pool", "layers[2].op=skip", "layers[2].kernel is active"] in blocks
    assert len(blocks) == 5 + 6
    covered = {i for block in features.blocks for i in block} | set(features.summaries)
    assert covered == set(range(len(features.feature_names)))


def test_values_by_hand():
    """The pool is what columns are standardised by."""
    pool = [
        {"width": 10, "act": "a", "layers": [{"n": 1}, {"n": 100}]},
        {"width": 30, "act": "b", "layers": [{"n": 10}]},
        {"width": 20, "act": "a", "layers": [{"n": 10}, {"n": 10}]},
    ]
    declared = {
        "width": Integer(10, 30),
        "act": Categorical(["a", "b"]),
        "layers": Repeat({"n": Integer(1, 100)}, 1, 2),
    }
    features = RecordFeatures(ParameterSpace(declared, pool=pool))
    space = features.space
    table = features.table([space.check(record) for record in pool]).double()
    column = {name: table[:, i] for i, name in enumerate(features.feature_names)}

    def scores(*values: float):
        x = torch.tensor(values, dtype=torch.float64)
        return (x - x.mean()) / x.std(unbiased=False)

    expected = {
        "width": scores(10, 30, 20),
        "act": scores(0, 1, 0),
        "layers[0].n": scores(0, 1, 1),  # logarithms: the range spans two decades
        "total of layers.n": scores(math.log(101), math.log(10), math.log(20)),
        "slope of layers.n": scores(1, 0, 0),
        "number of layers": scores(2, 1, 2),
    }
    for name, values in expected.items():
        # Where columns are equal the first stands for all.
        assert any(torch.allclose(c, values, atol=1e-6) for c in column.values()), name
    # A layer that is not there stands at the mean of those that are.
    second = features.feature_names.index("layers[1].n")
    torch.testing.assert_close(table[:, second], torch.tensor([1.0, 0.0, -1.0]).double())


def test_ordered_and_numeric_categories_are_numbers():
    space = ParameterSpace(size=Categorical(["s", "m", "l"], ordered=True), width=[1, 10, 1000], code=["1", "2", "3"])
    features = RecordFeatures(space)
    assert features.feature_names == ["size", "width", "code=1", "code=2", "code=3"]
    table = features.table(
        [space.check({"size": s, "width": w, "code": "1"}) for s, w in zip("sml", (1, 10, 1000), strict=True)]
    )
    steps = table.diff(dim=0)
    assert float(steps[0, 0]) == pytest.approx(float(steps[1, 0]))
    assert float(steps[1, 1]) == pytest.approx(2 * float(steps[0, 1]), rel=1e-5)


def test_rare_choices_are_not_far():
    pool = [{"a": "x" if i else "z", "b": i} for i in range(200)] + [{"a": "y", "b": i} for i in range(200)]
    features = RecordFeatures(ParameterSpace(a=Categorical(["x", "y", "z"]), b=Integer(0, 199), pool=pool))
    x, y, z = features.table([features.space.check({"a": a, "b": 5}) for a in "xyz"]).double()
    assert float((x - z).norm()) == pytest.approx(float((x - y).norm()), rel=1e-6)


def test_numbered_parameters_are_summarised_as_a_list():
    numbered = ParameterSpace({f"width_{i}": Integer(1, 9) for i in (10, 2, 1)} | {"rate": Float(0.0, 1.0)})
    features = RecordFeatures(numbered)
    assert features.has_lists
    assert "slope of width_#" in features.feature_names
    table = features.table([numbered.check({"width_1": 1, "width_2": 5, "width_10": 9, "rate": 0.5})])
    assert float(table[0, features.feature_names.index("slope of width_#")]) > 1.0
    assert numbered_lists({"a1": Integer(0, 3), "a2": Integer(0, 3)}) == {}
    mixed = {"a1": Integer(0, 3), "a2": Integer(0, 3), "a3": Categorical(["x", "y"])}
    assert numbered_lists(mixed) == {}
    stages = {f"s{i}_b{j}": Integer(0, 3) for i, j in ((2, 1), (1, 2), (1, 1))}
    assert numbered_lists(stages) == {"s#_b#": ["s1_b1", "s1_b2", "s2_b1"]}


def test_shared_domains_have_counts():
    ops = ["none", "skip", "conv"]
    space = ParameterSpace(first=ops, second=ops, third=["a", "b"], fourth=[False, True], fifth=[True, False])
    features = RecordFeatures(space)
    assert not features.has_lists
    assert [features.feature_names[i] for i in features.feature_groups["counts"]] == [
        f"count of {op} in all" for op in ops
    ]
    assert list(shared_domains(space.parameters).values()) == [["first", "second"]]


def test_what_the_space_does_not_know_stays_finite():
    rows = [{"rate": 10.0 ** -(i % 5), "act": "relu" if i % 2 else "gelu", "n": i % 7} for i in range(20)]
    space = ParameterSpace.from_records(rows)
    features = RecordFeatures(space)
    table = features.table([space.check({"rate": -3.0, "act": "swish", "n": 10**9})])
    assert bool(table.isfinite().all())
    assert float(table.abs().max()) <= FAR


@given(st.permutations(range(30)))
@settings(max_examples=10)
def test_rows_do_not_know_of_each_other(order):
    features = shared_features(SPACE)
    archs = draw(SPACE, 30)
    whole = features.table(archs)
    torch.testing.assert_close(features.table([archs[i] for i in order]), whole[list(order)], rtol=0, atol=0)


SPACE = space()
POOL = [{f"n_{i}": int(v) for i, v in enumerate(row)} for row in np.random.default_rng(0).integers(1, 400, (60, 3))]


@given(st.floats(0.01, 1000.0), st.booleans())
@settings(max_examples=20)
def test_units_change_nothing(unit, log):
    def table(factor: float):
        pool = [{name: factor * value for name, value in record.items()} for record in POOL]
        high = max(value for record in pool for value in record.values())
        low = min(value for record in pool for value in record.values())
        space = ParameterSpace({name: Float(low, high, log=log) for name in POOL[0]}, pool=pool)
        features = RecordFeatures(space)
        return features.feature_names, features.table(space.pool)

    names, expected = table(1.0)
    others, scaled = table(unit)
    assert others == names
    torch.testing.assert_close(scaled, expected, rtol=1e-4, atol=1e-4)


@given(st.permutations(["alpha", "beta", "gamma"]), st.permutations(["x", "y", "z"]))
@settings(max_examples=10)
def test_names_change_nothing(names, choices):
    generator = np.random.default_rng(0)
    rows = [(int(generator.integers(9)), int(generator.integers(3)), int(generator.integers(3))) for _ in range(40)]

    def table(names, choices):
        pool = [dict(zip(names, (a, choices[b], choices[c]), strict=True)) for a, b, c in rows]
        kinds = (Integer(0, 8), Categorical(choices), Categorical(choices))
        space = ParameterSpace(dict(zip(names, kinds, strict=True)), pool=pool)
        return RecordFeatures(space).table([space.check(record) for record in pool])

    torch.testing.assert_close(table(names, choices), table(["a", "b", "c"], ["1", "2", "3"]))


def test_other_defaults_change_nothing(foreign_defaults):
    expected = RecordFeatures(SPACE).table(draw(SPACE))
    with foreign_defaults():
        table = RecordFeatures(space()).table(draw(SPACE))
    assert table.dtype == torch.float32
    torch.testing.assert_close(table, expected)
