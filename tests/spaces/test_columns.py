"""Configurations by columns are those by rows: values, features, costs, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.features import RecordFeatures, shared_features
from pyg_nas_np.predictors.inputs import as_architectures
from pyg_nas_np.spaces import Categorical, Float, Integer, ParameterSpace, Repeat
from pyg_nas_np.spaces.columns import Layers, encode_records, numbers, table_columns
from pyg_nas_np.spaces.inference import columns_of
from pyg_nas_np.utils import InvalidArchitectureError, InvalidSpaceError

SPACE = ParameterSpace(
    depth=Integer(2, 20, step=2),
    rate=Float(1e-5, 1e-1, log=True),
    drop=Float(0.0, 0.5, step=0.1),
    act=Categorical(["relu", "gelu", "tanh"]),
    width=Categorical([16, 32, 64]),
    residual=Categorical([False, True]),
    norm=Categorical(["batch", None]),
    momentum=Float(0.0, 1.0, when={"act": ("relu", "tanh")}),
    nesterov=Categorical([False, True], when={"act": "relu", "residual": True}, optional=True),
    layers=Repeat({"kernel": [3, 5, 7], "op": ["conv", "pool"], "groups": Integer(1, 4, when={"op": "conv"})}, 1, 3),
    skip=Repeat({"at": Integer(0, 9)}, 0, 2),
)


def drawn(n=40, seed=0, space=SPACE):
    return space.sample(n, torch.Generator().manual_seed(seed), replace=True)


def columns(archs):
    found = columns_of([arch.to_dict() for arch in archs])
    assert found is not None
    return found


def forms(table):
    """The same columns as lists, NumPy arrays and columns of Arrow."""
    yield table
    yield {name: np.array([*cells, None], dtype=object)[:-1] for name, cells in table.items()}
    pyarrow = pytest.importorskip("pyarrow")
    arrow = pyarrow.table({name: pyarrow.array(cells) for name, cells in table.items()})
    yield {name: arrow.column(name) for name in table}
    yield {name: pyarrow.concat_tables([arrow.slice(0, 7), arrow.slice(7)]).column(name) for name in table}
    texts = [name for name in table if pyarrow.types.is_string(arrow.column(name).type)]
    yield {name: arrow.column(name).dictionary_encode() if name in texts else arrow.column(name) for name in table}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        ours, theirs = found[name], wanted[name]
        if isinstance(theirs, Layers):
            np.testing.assert_array_equal(ours.lengths, theirs.lengths)
            for inner in theirs.codes:
                np.testing.assert_allclose(ours.codes[inner], theirs.codes[inner], rtol=1e-12)
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@given(st.integers(0, 1000), st.integers(0, 30))
def test_codes_by_columns_are_those_by_rows(seed, n):
    archs = drawn(n, seed) if n else []
    if not archs:
        return
    wanted = encode_records(SPACE.parameters, SPACE.records(archs))
    for form in forms(columns(archs)):
        table = SPACE.check_table(form)
        assert_same(table.codes, wanted)
        assert list(table) == archs
        assert [table[i] for i in range(len(table))] == archs


def test_features_and_costs_are_the_same():
    space = ParameterSpace(
        SPACE.parameters,
        costs={"size": "momentum", "depth": "depth", "twice": lambda arch: 2.0 * arch["depth"], "ms": "ms"},
        pool=[{**arch.to_dict(), "ms": float(i)} for i, arch in enumerate(drawn(20))],
    )
    archs = [*space.pool[:6], *drawn(24, seed=1)]
    table = space.check_table({**columns(archs), "ms": [None if i % 2 else 0.5 for i in range(30)]})
    told = [space.check({**arch.to_dict(), **({} if i % 2 else {"ms": 0.5})}) for i, arch in enumerate(archs)]
    assert space.costs(table)["ms"][1] == 1.0
    for name, cost in space.costs(told).items():
        torch.testing.assert_close(space.costs(table)[name], cost, equal_nan=True)
    torch.testing.assert_close(shared_features(space).table(table), shared_features(space).table(told))


def test_parts_are_tables_too():
    archs = drawn()
    for form in forms(columns(archs)):
        part = SPACE.check_table(form)[5:25:2]
        assert list(part) == archs[5:25:2]
        assert part[-1] == archs[23]
        features = RecordFeatures(SPACE)
        torch.testing.assert_close(features.table(part), features.table(archs[5:25:2]))


def test_a_space_that_was_inferred_takes_what_it_has_not_seen():
    rows = [
        {
            "id": f"run {i}",
            "const": 1,
            "w_0": 8,
            "w_1": 16 if i % 2 else None,
            "w_2": 8 if i % 4 == 1 else None,
            "act": a,
            "n": n,
        }
        for i, (a, n) in enumerate([("relu", 1), ("gelu", 2), ("relu", 4), ("gelu", 9)] * 3)
    ]
    space = ParameterSpace.from_records(rows)
    assert isinstance(space.parameters["w"], Repeat)
    new = [{**rows[1], "act": "silu", "n": 100}, {**rows[2], "w_1": 4}, {**rows[0], "n": 0.5}]
    for part in (rows, new):
        wanted = encode_records(space.parameters, space.records([space.check(row) for row in part]))
        table = space.check_table(columns_of(part))
        assert_same(table.codes, wanted)
        assert list(table) == [space.check(row) for row in part]
        without = {name: cells for name, cells in columns_of(part).items() if name not in ("id", "const")}
        assert_same(space.check_table(without).codes, wanted)
    assert space.check_table(columns_of(new)).codes["act"].tolist() == [-1.0, 1.0, 1.0]


def test_longer_lists_than_a_space_has_seen_and_text_for_a_number():
    space = ParameterSpace.from_records([{"k": [1, 2], "a": 1}, {"k": [1], "a": 2}, {"k": [2, 2], "a": 5}])
    long = {"k": [[1, 2, 3, 4], [1]], "a": [1, 2]}
    features = RecordFeatures(space)
    table = features.table(space.check_table(long))
    torch.testing.assert_close(
        table, features.table([space.check({"k": [1, 2, 3, 4], "a": 1}), space.check({"k": [1], "a": 2})])
    )
    assert bool(table.isfinite().all())
    coded = ParameterSpace.from_records([{"k": 1, "a": 1}, {"k": 5, "a": 2}], parameters={"k": [1, 5]})
    assert bool(RecordFeatures(coded).table([coded.check({"k": "x", "a": 1})]).isfinite().all())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"depth": 3}, "depth: 3 is not on the steps"),
        ({"depth": 30}, "depth: 30 is not between"),
        ({"depth": "deep"}, "depth: 'deep' is not a finite number"),
        ({"depth": None}, "'depth' is missing"),
        ({"rate": float("inf")}, "rate: inf is not a finite number"),
        ({"act": "silu"}, "act: 'silu' is not one of"),
        ({"act": ["relu"]}, "act: .* is not one of"),
        ({"width": 17}, "width: 17 is not one of"),
        ({"act": "gelu", "momentum": 0.5, "nesterov": None}, "'momentum' is not active where act='gelu'"),
        ({"act": "relu", "momentum": None}, "'momentum' is missing"),
        ({"layers": []}, "layers: 0 layers are not between 1 and 3"),
        ({"layers": "conv"}, "layers: 'conv' is not a list"),
        ({"layers": [{"kernel": 3, "op": "pool", "groups": 1}]}, "layers: layer 0: 'groups' is not active"),
        ({"layers": [{"kernel": 3, "op": "conv", "groups": 9}]}, "layers: layer 0: groups: 9 is not between"),
        ({"layers": [{"kernel": 3, "op": "conv"}]}, "layers: layer 0: 'groups' is missing"),
        ({"layers": [{"kernel": 3, "op": "pool", "x": 1}]}, "layers: layer 0: 'x' is not one of"),
        ({"layers": None}, "'layers' is missing"),
        ({"extra": 1}, "'extra' is not one of the parameters"),
    ],
)
def test_rows_that_are_refused_are_named(change, reason):
    archs = [arch.to_dict() for arch in drawn(8)]
    row = 0 if "extra" in change else 5
    archs[row] = {**archs[row], **change}
    with pytest.raises(InvalidArchitectureError, match=f"row {row}: .*{reason}"):
        SPACE.check_table(columns_of(archs))


def test_columns_that_are_refused():
    with pytest.raises(InvalidSpaceError, match="differ in length"):
        SPACE.check_table({"depth": [1, 2], "act": ["relu"]})
    pandas = pytest.importorskip("pandas")
    with pytest.raises(InvalidSpaceError, match="'a' occurs twice"):
        table_columns(pandas.DataFrame([[1, 2]], columns=["a", "a"]))


def test_predictors_take_tables_by_columns():
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    space = ParameterSpace(depth=Integer(1, 8), act=["relu", "gelu"])
    rows = [arch.to_dict() for arch in drawn(12, space=space)]
    frame = pandas.DataFrame(rows)
    arrow = pyarrow.Table.from_pandas(frame.set_index(frame.index + 3))
    for x in (
        frame,
        arrow,
        arrow.to_batches()[0],
        columns_of(rows),
        space.check_table(columns_of(rows)),
        {"depth": frame["depth"].to_numpy(), "act": frame["act"].to_numpy()},
    ):
        archs = as_architectures(x, space)
        assert list(archs) == rows
        assert list(archs[3:5]) == rows[3:5]
        assert list(archs[torch.tensor([7, 1])]) == [rows[7], rows[1]]
    other = ParameterSpace(depth=Integer(1, 9), act=["relu", "gelu"])
    with pytest.raises(InvalidArchitectureError, match="works on"):
        as_architectures(space.check_table(columns_of(rows)), other)


def test_numbers_of_a_column():
    assert numbers(["1", 2, None, True]).tolist()[1] == 2.0
    pyarrow = pytest.importorskip("pyarrow")
    np.testing.assert_array_equal(numbers(pyarrow.array([1, None])), [1.0, np.nan])
