"""What the columns of the user's own table are taken for, and the tables that are refused."""

from __future__ import annotations

import json
import math

import pytest

from pyg_nas_np.spaces import Categorical, Float, InferredSpace, Integer, ParameterSpace, Repeat
from pyg_nas_np.spaces.inference import read_records, records_of
from pyg_nas_np.spaces.registry import declared_space
from pyg_nas_np.spaces.testing import seeded
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, InvalidSpaceError


def infer(columns, **options):
    return ParameterSpace.from_records(columns, **options)


def test_every_form_of_a_table_gives_the_same_space(tmp_path):
    pandas = pytest.importorskip("pandas")
    columns = {"depth": [2, 4, 6], "act": ["relu", "gelu", "relu"], "lr": [0.1, 0.2, 0.3], "bias": [True, False, True]}
    frame = pandas.DataFrame(columns)
    frame.to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "other.csv").write_bytes(frame.to_csv(index=False, sep=";").encode("utf-16"))
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    wanted = infer(rows)
    assert wanted.parameters == {
        "depth": Integer(2, 6, step=2),
        "act": Categorical(["gelu", "relu"]),
        "lr": Float(0.1, 0.3),
        "bias": Categorical([False, True]),
    }
    for table in (columns, frame, str(tmp_path / "table.csv"), tmp_path / "other.csv", tuple(rows)):
        space = infer(table)
        assert isinstance(space, InferredSpace)
        assert space.name == wanted.name
        assert space.pool == wanted.pool
        assert space.records(space.pool) == rows


@pytest.mark.parametrize(
    ("values", "parameter"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 12], Integer(1, 12)),
        ([16, 32, 64, 128, 256, 512], Integer(16, 512, step=16, log=True)),
        ([1e-4, 1e-3, 1e-2, 1e-1], Float(1e-4, 1e-1, log=True)),
        ([0.0, 0.1, 0.2, 0.5], Float(0.0, 0.5)),
        ([-1000, 1, 10], Integer(-1000, 10, step=1)),
        ([1.0, 2.0, 4.0], Integer(1, 4)),
        ([True, False], Categorical([False, True])),
        (["b", "a", "b"], Categorical(["a", "b"])),
        (["3", "5"], Categorical(["3", "5"])),
    ],
)
def test_types_are_told_from_values(values, parameter):
    assert infer({"x": values}).parameters == {"x": parameter}


def test_what_says_nothing_is_left_out_and_told():
    columns = {
        "id": list(range(10)),
        "note": [f"run {i}" for i in range(10)],
        "seed": [7] * 10,
        "empty": [None] * 10,
        "depth": [3, 4] * 5,
        "acc": [0.1 * i for i in range(10)],
    }
    space = infer(columns, ignore=["acc"])
    assert list(space.parameters) == ["depth"]
    assert space.left_out == {
        "acc": "it was to be ignored",
        "id": "it numbers the rows",
        "note": "it has another text in every row",
        "seed": "it is always 7",
        "empty": "it is empty",
    }
    assert "seed was left out: it is always 7" in space.describe()
    assert space.is_valid({"depth": 3})
    assert space.is_valid({"depth": 3, "seed": 8, "acc": None})


def test_numbered_columns_are_a_list_of_layers():
    columns = {f"width_{i}": [16, 32, 64, 16] for i in range(12)}
    space = infer({**columns, "act": ["relu", "gelu"] * 2})
    assert space.parameters["width"] == Repeat({"width": Integer(16, 64, step=16)}, 12, 12)
    assert "width_0 ... width_11 were taken for the list of layers 'width'" in space.describe()
    record = {**dict.fromkeys(columns, 32), "act": "relu"}
    assert space.check(record) == space.check({"width": [32] * 12, "act": "relu"})
    assert space.check(record)["width"][3] == {"width": 32}


def test_layers_with_several_parameters_and_of_varying_number():
    columns = {
        "depth": [1, 2, 3, 3, 2],
        "layer1_op": ["conv", "pool", "conv", "conv", "pool"],
        "layer1_kernel": [3, None, 5, 3, None],
        "layer2_op": [None, "conv", "pool", "conv", "conv"],
        "layer2_kernel": [None, 3, None, 3, 5],
        "layer3_op": [None, None, "pool", "pool", None],
        "layer3_kernel": [None, None, None, None, None],
        "x": [1, 2, 3, 5, 7],
    }
    space = infer(columns)
    inner = {"op": Categorical(["conv", "pool"]), "kernel": Integer(3, 5, step=2, when={"op": ("conv",)})}
    assert space.parameters["layer"] == Repeat(inner, 1, 3)
    assert space.left_out == {"depth": "it is the number of layers of 'layer'"}
    assert space.records(space.pool)[1]["layer"] == [{"op": "pool"}, {"op": "conv", "kernel": 3}]


@pytest.mark.parametrize(
    "columns",
    [
        {"a_0": [1, 2], "a_1": [3, 4]},  # too few
        {"a_0": [1, 2], "a_1": [3, 4], "a_3": [5, 6]},  # one is missing
        {"a_0": [1, 2], "a_1": ["x", "y"], "a_2": [5, 6]},  # not alike
        {"a_0": ["p", "q"], "a_1": ["x", "y"], "a_2": ["u", "v"]},  # nothing in common
        {"a_0": [1, 2], "a_1": [None, 3], "a_2": [5, 6]},  # a hole
        {"a_5": [1, 2], "a_6": [3, 4], "a_7": [5, 6]},  # do not start at 0 or 1
        {"a_0": [1, 2], "a_1": [3, 4], "a_2": [5, 6], "a": [1, 2]},  # the name is taken
    ],
)
def test_other_numbered_columns_stay_columns(columns):
    assert list(infer(columns).parameters) == list(columns)


def test_lists_in_records_are_layers():
    rows = [{"blocks": [{"k": 3}, {"k": 5}], "w": [8, 16, 16]}, {"blocks": [{"k": 7}], "w": [16]}]
    assert infer(rows).parameters == {
        "blocks": Repeat({"k": Integer(3, 7, step=2)}, 1, 2),
        "w": Repeat({"w": Integer(8, 16, step=8)}, 1, 3),
    }


def test_conditions_are_told_from_empty_cells():
    columns = {
        "opt": ["sgd", "adam", "sgd", "lion", "adam", "sgd"],
        "momentum": [0.9, math.nan, 0.5, None, None, 0.0],
        "nesterov": [True, None, False, None, None, None],
        "stray": [1, 2, None, 4, 5, 6],
    }
    space = infer(columns)
    assert space.parameters["momentum"].when == {"opt": ("sgd",)}
    assert space.parameters["nesterov"].optional
    assert space.parameters["stray"].optional
    assert not space.parameters["momentum"].optional


def test_columns_can_be_declared():
    columns = {"code": [1, 2, 3], "size": ["s", "m", "l"], "w_0": [1, 2, 3], "w_1": [1, 2, 3], "w_2": [4, 5, 6]}
    declared = {
        "code": Categorical([1, 2, 3]),
        "size": Categorical(["s", "m", "l"], ordered=True),
        "w": Integer(1, 64, log=True),
    }
    space = infer(columns, parameters=declared)
    assert space.parameters["code"] == declared["code"]
    assert space.parameters["size"] == declared["size"]
    assert space.parameters["w"] == Repeat({"w": Integer(1, 64, log=True)}, 3, 3)
    # A column that is declared by itself is not one of a list.
    assert "w_0" in infer(columns, parameters={"w_0": [1, 2, 3]}).parameters


def test_costs_are_no_parameters():
    space = infer({"depth": [1, 2, 2], "params": [10, 20, 20.0]}, costs={"num_parameters": "params"})
    assert list(space.parameters) == ["depth"]
    assert space.costs(space.pool)["num_parameters"].tolist() == [10, 20]
    assert space.left_out == {"params": "it is a cost"}


def test_values_outside_of_what_was_seen_are_taken_and_never_proposed():
    space = infer({"depth": [2, 4, 6, 8], "act": ["relu", "gelu"] * 2, "lr": [0.5, 0.1, 0.2, 0.3]})
    arch = space.check({"depth": 99.5, "act": "silu", "lr": -3})
    assert arch.to_dict() == {"depth": 99.5, "act": "silu", "lr": -3.0}
    assert space.from_str(space.to_str(arch)) == arch
    for other in (*space.sample(50, seeded(), replace=True), space.crossover(arch, arch, seeded())):
        assert space.is_valid(other)
    for other in space.sample(50, seeded(), replace=True):
        assert other["depth"] in (2, 4, 6, 8)
        assert other["act"] in ("relu", "gelu")
    assert space.neighbors(arch)
    assert space.mutate(arch, seeded()) != arch
    for wrong in ({"depth": "many"}, {"act": ["relu"]}, {"lr": math.inf}, {"lr": None}):
        assert not space.is_valid({"depth": 2, "act": "relu", "lr": 0.1, **wrong})


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ([], {}, "no configuration"),
        ({}, {}, "no configuration"),
        ([{}], {}, "no configuration"),
        (3, {}, "int is not a table"),
        ([1, 2], {}, "list is not a table"),
        ({"a": [1, 1]}, {}, "no column varies"),
        ({"a": [1]}, {}, "no column varies"),
        ({"a": [1, 2], "b": [1]}, {}, "differ in length"),
        ({"a": 3}, {}, "must be a list of values"),
        ({"a": [1, "auto", 2]}, {}, r"column 'a' mixes number \(1\) and text \('auto'\)"),
        ({"a": [1, True]}, {}, "column 'a' mixes boolean"),
        ({"a": [1, {2}]}, {}, "column 'a' has the value \\{2\\}"),
        ({"a": [1, math.inf]}, {}, "column 'a' has the value inf"),
        ({"a": [1, 2]}, {"ignore": ["b"]}, "no column 'b' to ignore; the columns are a"),
        ({"a": [1, 2]}, {"parameters": {"b": [1]}}, "no column 'b'; the columns are a"),
        ({"a": [1, 2]}, {"costs": {"c": "b"}}, "'b' is neither a numeric parameter"),
    ],
)
def test_tables_that_are_refused(table, options, message):
    with pytest.raises(InvalidSpaceError, match=message):
        infer(table, **options)


def test_declared_choices_must_be_those_of_the_table():
    space = infer({"a": [1, "auto", 2]}, parameters={"a": [1, 2, "auto"]})
    assert space.check({"a": "auto"}) == {"a": "auto"}
    with pytest.raises(InvalidArchitectureError, match="row 1 of the pool"):
        infer({"a": [1, "auto", 2]}, parameters={"a": Integer(1, 2)})


def test_columns_of_a_frame_that_occur_twice_are_refused():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(InvalidSpaceError, match="'a' occurs twice"):
        records_of(pandas.DataFrame([[1, 2]], columns=["a", "a"]))
    frame = pandas.DataFrame(
        {"a": pandas.array([1, None, 3], dtype="Int64"), "d": pandas.to_datetime(["2020-01-01"] * 3)}
    )
    assert infer(frame, ignore=["d"]).parameters["a"].optional
    with pytest.raises(InvalidSpaceError, match="no number, text or boolean"):
        infer(pandas.DataFrame({"d": pandas.to_datetime(["2020-01-01", "2021-01-01"])}))


def test_cells_of_a_csv_file_are_typed_column_by_column(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(",n,x,b,t,m\n0,1,0.5,true,1_000,3\n1,,nan,False,a,x\n")
    assert read_records(path) == [
        {"n": 1, "x": 0.5, "b": True, "t": "1_000", "m": "3"},
        {"n": None, "x": None, "b": False, "t": "a", "m": "x"},
    ]
    path.write_text("""k;ops;bad\n"[3, 5]";"['a', 'b']";"[1"\n[];"['b']";[2]\n""")
    assert read_records(path) == [
        {"k": [3, 5], "ops": ["a", "b"], "bad": "[1"},
        {"k": [], "ops": ["b"], "bad": "[2]"},
    ]
    assert infer(path).parameters["ops"] == Repeat({"ops": Categorical(["a", "b"])}, 1, 2)
    with pytest.raises(DataFileError, match=r"none.csv"):
        infer(tmp_path / "none.csv")


def test_inferred_spaces_survive_being_written_as_plain_types():
    columns = {
        "w_0": [8, 16, 16],
        "w_1": [None, 16, 8],
        "w_2": [None, None, 8],
        "act": ["relu", "gelu", "silu"],
        "c": [1] * 3,
    }
    space = infer(columns)
    again = declared_space(json.loads(json.dumps(space.declaration())))
    assert again.parameters == space.parameters
    assert again.name == space.name
    assert again.pool == space.pool
    assert again.describe() == space.describe()
    row = {"w_0": 64, "w_1": 8, "w_2": None, "act": "tanh", "c": 1}
    assert again.check(row) == space.check(row)
    for wrong in ({}, {"table": {}}, {**space.to_dict(), "table": {"lists": {"a": 1}, "left_out": {}}}):
        with pytest.raises(InvalidSpaceError):
            InferredSpace.from_dict(wrong)
