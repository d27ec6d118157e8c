"""What was measured and what there is to choose from, as architectures of one space."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.datasets.own_task import columns_of, read_own_task
from pyg_nas_np.spaces import Categorical, Float, Integer, ParameterSpace
from pyg_nas_np.utils import InvalidArchitectureError, InvalidLabelsError, InvalidSpaceError

ROWS = [{"depth": d, "act": a, "acc": d + (a == "gelu")} for d in range(1, 7) for a in ("relu", "gelu")]
SPACE = ParameterSpace(depth=Integer(1, 10), act=["relu", "gelu"])


def test_both_tables_make_one_space():
    pool = [{"name": "x", "act": "silu", "depth": 10}]
    task = read_own_task(ROWS, pool, target="acc")
    assert task.space.parameters["depth"] == Integer(1, 10)
    assert task.space.parameters["act"] == Categorical(("gelu", "relu", "silu"))
    assert task.pool == [{"depth": 10, "act": "silu"}]
    assert task.columns == {"depth": [10], "act": ["silu"], "name": ["x"]}
    assert task.y.tolist() == [row["acc"] for row in ROWS]
    assert task.maximize


def test_labels_of_candidates_are_means_of_repeats():
    task = read_own_task(
        [*ROWS, {"depth": 1, "act": "relu", "acc": 3}], [ROWS[0], {"depth": 9, "act": "relu"}], target="acc"
    )
    assert task.pool_labels[0] == 2.0
    assert math.isnan(task.pool_labels[1])


def test_the_data_set_has_labels_and_costs():
    rows = [{**row, "params": row["depth"] ** 2} for row in ROWS]
    task = read_own_task(
        rows, [{"depth": 3, "act": "relu", "params": 9}], target="acc", costs=["params"], minimize=True
    )
    data = task.dataset()
    assert len(data) == 12
    assert not data.maximize
    torch.testing.assert_close(data.y, task.y)
    assert task.space.costs(data.archs)["params"].tolist() == [row["params"] for row in rows]
    assert task.costs["params"].tolist() == [9.0]
    assert "params" not in task.space.parameters


@pytest.mark.parametrize(
    ("ours", "theirs", "known", "learned"),
    [(True, True, True, False), (False, True, True, False), (True, False, False, True)],
)
def test_costs_are_known_or_to_be_learned(ours, theirs, known, learned):
    rows = [{**row, **({"ms": 2.0 * row["depth"]} if ours else {})} for row in ROWS]
    pool = [{"depth": d, "act": "relu", **({"ms": 1.0 * d} if theirs else {})} for d in (2, 7)]
    task = read_own_task(rows, pool, target="acc", costs=["ms"])
    assert ("ms" in task.costs, "ms" in task.measured_costs) == (known, learned)
    assert "ms" not in task.space.parameters


def test_a_cost_that_the_space_declares_is_a_parameter_too():
    task = read_own_task(ROWS, target="acc", space=SPACE, costs=["depth"])
    assert list(task.space.parameters) == ["depth", "act"]
    assert task.space.costs(task.archs)["depth"].tolist() == [row["depth"] for row in ROWS]
    assert task.sampled(5).costs["depth"].shape == (5,)


def test_wrong_costs():
    with pytest.raises(InvalidSpaceError, match="did you mean 'depth'"):
        read_own_task(ROWS, target="acc", costs=["dept"])
    rows = [{**row, "ms": "slow"} for row in ROWS]
    with pytest.raises(InvalidSpaceError, match="the cost 'slow' is not a number"):
        read_own_task(rows, [{"depth": 2, "act": "relu"}], target="acc", costs=["ms"])


def test_samples_were_not_measured_and_the_space_may_be_used_up():
    task = read_own_task(ROWS, target="acc", space=SPACE)
    sampled = task.sampled(100)
    assert len(sampled.pool) == 8
    assert not set(sampled.pool) & set(task.archs)
    assert sampled.columns["depth"] == [arch["depth"] for arch in sampled.pool]
    small = ParameterSpace(depth=Integer(1, 6), act=["relu", "gelu"])
    with pytest.raises(InvalidSpaceError, match="nothing left to choose"):
        read_own_task(ROWS, target="acc", space=small).sampled(3)


def test_rows_without_a_label_are_candidates_or_in_training():
    rows = [*ROWS, {"depth": 9, "act": "relu", "acc": None}]
    assert read_own_task(rows, target="acc").pool == [{"depth": 9, "act": "relu"}]
    assert read_own_task(rows, target="acc", in_training=True).pool == [{"depth": 9, "act": "relu"}]
    task = read_own_task(rows, target="acc", in_training=True, space=SPACE)
    assert (task.pool, task.waiting) == ([], [{"depth": 9, "act": "relu"}])


def test_metrics_of_the_labelled_are_no_parameters_but_conditional_ones_are():
    rows = [
        {"opt": o, "momentum": m if o == "sgd" else None, "loss": 1.0 / (1 + m), "acc": m}
        for o in ("sgd", "adam")
        for m in (0.1, 0.2, 0.3, 0.4)
    ]
    task = read_own_task([*rows, {"opt": "adam"}], target="acc")
    assert list(task.space.parameters) == ["opt", "momentum"]
    assert any("loss" in note for note in task.notes)


def test_before_anything_is_measured():
    task = read_own_task(None, [{"id": "a", "depth": 2}, {"id": "b", "depth": 4}], ignore=["id"])
    assert (len(task.pool), len(task.y), task.target) == (2, 0, "label")
    assert task.columns["id"] == ["a", "b"]
    task = read_own_task(None, [{"id": "a", "depth": 2, "act": "relu"}], space=SPACE, target="acc", minimize=True)
    assert (task.pool, task.target, task.maximize) == ([{"depth": 2, "act": "relu"}], "acc", False)
    assert read_own_task(None, space=SPACE).pool == []
    with pytest.raises(InvalidSpaceError, match="nothing to choose from"):
        read_own_task(None)


def test_rows_that_do_not_fit_are_named():
    with pytest.raises(InvalidArchitectureError, match="measured row 2: depth: 99 is not between"):
        read_own_task([ROWS[0], {**ROWS[1], "depth": 99}, *ROWS[2:]], target="acc", space=SPACE)
    with pytest.raises(InvalidArchitectureError, match="candidate 1: act: 'silu' is not one of"):
        read_own_task(ROWS, [{"depth": 2, "act": "silu"}], target="acc", space=SPACE)


def test_every_missing_column_is_named_at_once():
    rows = [{**row, "seconds": 1.5 * i, "learning_rate": 0.1 * (i % 3)} for i, row in enumerate(ROWS)]
    with pytest.raises(InvalidSpaceError) as error:
        read_own_task(rows, [{"depth": 2, "act": "relu", "lerning_rate": 0.1}], target="acc")
    assert "no column 'seconds', 'learning_rate'" in str(error.value)
    assert "'learning_rate' may be their 'lerning_rate'" in str(error.value)
    assert "--ignore seconds --ignore learning_rate" in str(error.value)


def test_the_digest_changes_with_labels_and_configurations_only():
    first = read_own_task(ROWS, target="acc").digest
    assert read_own_task([{**row} for row in ROWS], target="acc").digest == first
    assert read_own_task(ROWS[1:], target="acc").digest != first
    assert read_own_task([{**row, "acc": row["acc"] + 1} for row in ROWS], target="acc").digest != first


def test_a_shortlist_takes_prefixes_and_lists_of_layers():
    rows = [{"w_0": 8 * (1 + i % 3), "w_1": 8 * (1 + i % 4), "w_2": 8 * (1 + i % 5), "acc": i} for i in range(20)]
    pool = [{"w_0": 8, "w_1": 8, "w_2": 16}]
    task = read_own_task(rows, pool, target="acc")
    table = {"config/w_0": [16], "config/w_1": [24], "config/w_2": [8], "name": ["x"]}
    short = task.shortlisted(table, 1000, [7])
    assert short.space.to_row(short.pool[0]) == {"w_0": 16, "w_1": 24, "w_2": 8}
    assert (short.total, short.rows, short.columns["name"]) == (1000, [7], ["x"])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10), st.sampled_from(["relu", "gelu"])), min_size=1, max_size=8))
def test_columns_read_back_are_the_architectures(pairs):
    archs = [SPACE.check({"depth": depth, "act": act}) for depth, act in pairs]
    columns = columns_of(SPACE, archs)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    assert [SPACE.check(row) for row in rows] == archs


def test_inactive_parameters_are_empty_cells():
    space = ParameterSpace(opt=["sgd", "adam"], momentum=Float(0.0, 1.0, when={"opt": "sgd"}))
    archs = [space.check({"opt": "adam"}), space.check({"opt": "sgd", "momentum": 0.5})]
    assert columns_of(space, archs) == {"opt": ["adam", "sgd"], "momentum": [None, 0.5]}


# -- scores and tables without any label ------------------------------------------------------------------------------


SCORED = [{**row, "swap": row["depth"] ** 2 if i % 4 else None, "grad": -row["depth"]} for i, row in enumerate(ROWS)]
UNLABELLED = [{**row, "acc": None} for row in SCORED]


@pytest.mark.parametrize("space", [None, SPACE])
def test_scores_are_no_parameters_and_may_be_missing(space):
    pool = [{"depth": 7, "act": "relu", "swap": 50.0, "grad": -7}, {"depth": 8, "act": "gelu", "swap": None}]
    task = read_own_task(SCORED, pool, target="acc", space=space, scores=["swap", "-grad"])
    assert list(task.space.parameters) == ["depth", "act"]
    scores = task.space.scores([*task.pool, *task.archs[:2]])
    nan = math.nan
    wanted = {"swap": [50.0, nan, nan, 1.0], "-grad": [7.0, nan, 1.0, 1.0]}
    for name, column in wanted.items():
        torch.testing.assert_close(scores[name], torch.tensor(column, dtype=torch.float64), equal_nan=True)
    assert task.costs == {}
    assert task.dataset().space is task.space
    # Known of one of the tables only.
    measured = [{name: value for name, value in row.items() if name != "grad"} for row in SCORED]
    for labels, candidates in ((ROWS, pool), (measured, [{"depth": 7, "act": "relu"}])):
        found = read_own_task(labels, candidates, target="acc", space=space, scores=["swap"])
        assert not bool(found.space.scores([*found.pool, *found.archs])["swap"].isnan().all())
        assert not any("not used" in note and "swap" in note for note in found.notes)


def test_rows_without_any_label_are_the_candidates():
    task = read_own_task(UNLABELLED, target="acc", unmeasured=True, scores=["swap"], ignore=["grad"], minimize=True)
    assert (len(task.pool), len(task.y), task.target, task.maximize) == (12, 0, "acc", False)
    assert list(task.space.parameters) == ["depth", "act"]
    task = read_own_task(UNLABELLED, [{"depth": 3, "act": "relu"}], target="acc", unmeasured=True, space=SPACE)
    assert task.pool == [{"depth": 3, "act": "relu"}]
    trials = {"params_depth": [1, 2], "value": [None, None], "state": ["FAIL", "RUNNING"]}
    assert read_own_task(trials, unmeasured=True).pool == [{"depth": 1}, {"depth": 2}]
    with pytest.raises(InvalidLabelsError, match="no row has a label in column 'acc'"):
        read_own_task(UNLABELLED, target="acc")


@pytest.mark.parametrize("space", [None, SPACE])
def test_costs_and_scores_are_known_before_anything_is_measured(space):
    pool = [{"depth": d, "act": a, "ms": d * 2.0, "swap": d} for d in (1, 2, 3) for a in ("relu", "gelu")]
    task = read_own_task(None, pool, space=space, costs=["ms"], scores=["swap"])
    assert list(task.space.parameters) == ["depth", "act"]
    assert task.costs["ms"].tolist() == [2.0, 2.0, 4.0, 4.0, 6.0, 6.0]
    assert task.space.scores(task.pool)["swap"].tolist() == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (SCORED, {"scores": ["swop"]}, "no column 'swop' of scores; did you mean 'swap'"),
        (SCORED, {"scores": ["act"]}, "column 'act': the score 'relu' is not a number"),
        (SCORED, {"scores": ["-acc"]}, "'acc' is the label; a score is known before training"),
        (SCORED, {"scores": ["swap"], "costs": ["swap"]}, "'swap' is named twice as a cost or score"),
        (SCORED, {"scores": ["swap", "-swap"]}, "'swap' is named twice as a cost or score"),
        (UNLABELLED, {"scores": ["acc"], "unmeasured": True}, "'acc' is the label; a score is known before"),
        (UNLABELLED, {"scores": ["swop"], "unmeasured": True}, "no column 'swop' of scores; did you mean 'swap'"),
        (UNLABELLED, {"costs": ["swop"], "unmeasured": True}, "no column 'swop' of costs; did you mean 'swap'"),
    ],
)
def test_unusable_scores_are_refused(labels, options, message):
    with pytest.raises(InvalidSpaceError, match=message):
        read_own_task(labels, target="acc", **options)
