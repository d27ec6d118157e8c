"""One command tells what to train next."""

from __future__ import annotations

import csv

import pytest
import typer

from pyg_nas_np.cli.search_own import parse_limits


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


FAST = ("--predictor", "gp")


def test_a_batch_of_a_declared_space(run, own, tmp_path):
    out = tmp_path / "next.csv"
    args = ("--labels", own.measured(), "--target", "acc", "--space", own.space(), "--batch", 4, "--output", out)
    code, text, err = run("search", *args, *FAST)
    assert code == 0, err
    assert "Train next, after 30 measurements" in text
    assert "Best so far" in text
    rows = read(out)
    assert list(rows[0]) == ["depth", "width", "act", "dropout", "acc"]
    assert len(rows) == 4
    assert {row["acc"] for row in rows} == {""}
    # The labels say that deep, wide networks with GELU are good.
    assert sum(int(row["depth"]) for row in rows) / 4 >= 6
    assert all(0.0 <= float(row["dropout"]) <= 0.3 for row in rows)


def test_proposals_that_are_in_training_are_not_made_again(run, own, tmp_path):
    """The rows of the last batch are in the file, without a label yet."""
    out = tmp_path / "next.csv"
    args = ("search", "--target", "acc", "--space", own.space(), "--batch", 3, "--output", out, "--ignore", "run")
    assert run(*args, "--labels", own.measured(), *FAST)[0] == 0
    first = read(out)
    pending = [{name: value for name, value in row.items() if value} for row in first]
    code, text, err = run(*args, "--labels", own.write("all.csv", own.labelled(30) + pending), *FAST)
    assert code == 0, err
    assert "3 rows without a label, taken to be in training" in text
    assert not {tuple(row.values()) for row in first} & {tuple(row.values()) for row in read(out)}


def test_the_first_batch_needs_a_space_only(run, own, tmp_path):
    code, text, err = run("search", "--space", own.space(), "--batch", 5, "--output", tmp_path / "n.csv")
    assert code == 0, err
    assert "Nothing is measured yet" in text
    rows = read(tmp_path / "n.csv")
    assert len({tuple(row.values()) for row in rows}) == 5
    assert list(rows[0])[-1] == "label"


def test_the_first_batch_of_a_list(run, own, tmp_path):
    args = ("--candidates", own.pool(), "--ignore", "name", "--batch", 2, "--target", "acc")
    code, _, err = run("search", *args, "--output", tmp_path / "n.csv")
    assert code == 0, err
    names = {f"c{i}" for i in range(66)}
    assert {row["name"] for row in read(tmp_path / "n.csv")} <= names
    code, _, err = run("search", "--target", "acc")
    assert (code, "nothing to choose from" in err) == (2, True), err


def test_a_list_of_candidates_with_a_cost_and_a_limit(run, own, tmp_path):
    args = ("--labels", own.measured(), "--target", "acc", "--candidates", own.pool(), "--batch", 3)
    args = (*args, "--cost", "params", "--limit", "params=70000", "--output", tmp_path / "n.csv")
    code, text, err = run("search", *args, *FAST)
    assert code == 0, err
    assert "candidates have params <= 70,000" in text
    rows = read(tmp_path / "n.csv")
    assert len(rows) == 3
    assert all(float(row["params"]) <= 70000 for row in rows)
    assert {row["name"] for row in rows} <= {f"c{i}" for i in range(66)}


def test_of_a_long_list_the_best_predicted_are_searched(run, own, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("pyg_nas_np.cli.own_files.LONG_BYTES", 10)
    monkeypatch.setattr("pyg_nas_np.cli.search_own.SHORTLIST", 12)
    args = ("--labels", own.measured(), "--target", "acc", "--candidates", own.pool(), "--batch", 3)
    code, text, err = run("search", *args, "--limit", "params=300000", "--output", tmp_path / "n.csv", *FAST)
    assert code == 0, err
    assert "66 candidates were read part by part" in text
    assert "of 12 candidates have params <= 300,000" in text
    rows = read(tmp_path / "n.csv")
    assert list(rows[0]) == ["name", "depth", "width", "act", "dropout", "params", "acc"]
    assert all(float(row["params"]) <= 300000 for row in rows)


def test_limits_on_a_parameter_and_on_a_learned_cost(run, own, tmp_path):
    args = ("--labels", own.measured(), "--target", "acc", "--space", own.space(), "--batch", 2, *FAST)
    limits = ("--limit", "depth=4", "--limit", "params=200000")
    code, text, err = run("search", *args, *limits, "--output", tmp_path / "n.csv")
    assert code == 0, err
    assert "No candidate has params: predicted from 30 measured ones" in text
    assert all(int(row["depth"]) <= 4 for row in read(tmp_path / "n.csv"))


@pytest.mark.parametrize("method", ["bananas", "random", "evolution", "local"])
def test_every_method_proposes(run, own, tmp_path, method):
    args = ("search", "--labels", own.measured(), "--target", "acc", "--batch", 2, "--method", method, *FAST)
    for more in (("--space", own.space()), ("--candidates", own.pool())):
        code, _, err = run(*args, *more, "--output", tmp_path / "n.csv")
        assert code == 0, err
        assert len(read(tmp_path / "n.csv")) == 2


def test_an_inferred_space_is_searched_and_shown(run, own):
    code, text, err = run("search", "--labels", own.measured(), "--target", "acc", "--ignore", "params", *FAST)
    assert code == 0, err
    assert "Space, inferred from the files" in text
    assert "depth" in text


def test_a_search_goes_on_from_its_state(run, own, tmp_path):
    state = tmp_path / "s.pt"
    args = ("search", "--labels", own.measured(), "--target", "acc", "--space", own.space(), *FAST, "--state", state)
    tables = []
    for _ in range(2):
        code, _, err = run(*args, "--batch", 2, "--output", tmp_path / "n.csv")
        assert code == 0, err
        tables.append(read(tmp_path / "n.csv"))
    assert not {tuple(row.values()) for row in tables[0]} & {tuple(row.values()) for row in tables[1]}
    code, _, err = run("search", "--labels", own.measured(), "--target", "acc", "--state", tmp_path / "t.pt")
    assert (code, "needs --space" in err) == (2, True), err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--limit", "params"), "is not a column and its largest value"),
        (("--limit", "params=few"), "is not a column and its largest value"),
        (("--limit", "params=1"), "none of 66 candidates has params <= 1"),
        (("--limit", "para=1"), "no column 'para' of costs; did you mean 'params'"),
        (("--cost", "para"), "no column 'para' of costs; did you mean 'params'"),
        (("--queries", 5), "for files of your own"),
    ],
)
def test_wrong_options(run, own, args, message):
    code, _, err = run(
        "search", "--labels", own.measured(), "--target", "acc", "--candidates", own.pool(), *args, *FAST
    )
    text = " ".join(err.replace("│", " ").split())
    assert (code, message in text or "simulates" in text) == (2, True), err


def test_a_list_that_was_measured_through(run, own):
    rows = own.labelled(30)
    pool = [{key: row[key] for key in ("depth", "width", "act", "dropout", "params")} for row in rows[:4]]
    args = ("--labels", own.measured(), "--target", "acc", "--candidates", own.write("p.csv", pool), "--ignore", "run")
    code, _, err = run("search", *args, *FAST)
    text = " ".join(err.replace("│", " ").split())
    assert (code, "every candidate was measured or is in training" in text) == (2, True), err


def test_limits_are_names_and_numbers():
    assert parse_limits(["a=b=2", "params=5e6"]) == {"a=b": 2.0, "params": 5e6}
    with pytest.raises(typer.BadParameter, match="largest value"):
        parse_limits(["params=nan"])
