"""One command searches within a budget of trainings."""

from __future__ import annotations

import csv
import shlex
import sys

import pytest

from pyg_nas_np.cli.search_budget_journal import Journal
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.spaces import ParameterSpace
from pyg_nas_np.utils.files import only_user


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def call(run, own, tmp_path):
    space = own.space()

    def made(*more, state="s.pt", budget=3, fidelity="epochs=4,12", space=space):
        args = ("--budget", budget, "--state", tmp_path / state, "--fidelity", fidelity, "--target", "acc")
        return run("search", *args, *(() if space is None else ("--space", space)), *more)

    return made


def state_of(tmp_path, own, budget=3):
    search = BudgetedSearch(ParameterSpace.from_file(own.space()), Fidelity("epochs", (4, 12)), budget)
    return Journal(search, tmp_path / "s.pt")


def test_proposals_are_filled_in_and_given_back(call, own, tmp_path):
    out = tmp_path / "next.csv"
    code, text, err = call("--batch", 3, "--output", out)
    assert code == 0, err
    assert "Spent 1 of 3 full trainings, 2 left; 3 running" in text
    rows = read(out)
    assert list(rows[0]) == ["depth", "width", "act", "dropout", "trial", "start", "price", "epochs", "acc"]
    assert {(row["epochs"], row["acc"]) for row in rows} == {("4.0", "")}
    labels = write(tmp_path / "labels.csv", [{**rows[0], "acc": 0.5}, {**rows[1], "acc": "nan"}, rows[2]])
    code, text, err = call("--labels", labels, "--batch", 1)
    assert code == 0, err
    assert "2 new labels, 0 were told before" in text
    assert "1 of the new ones diverged" in text
    assert "1 stopped, 1 diverged, 2 running" in text
    # The same file again, and a repeat of a label with another value.
    labels = write(labels, [{**rows[0], "acc": 0.5}, {**rows[0], "acc": 0.7}, {**rows[1], "acc": "nan"}])
    code, text, err = call("--labels", labels, "--release", 3, "--report", tmp_path / "r.html")
    assert code == 0, err
    assert "1 new labels, 2 were told before" in text
    assert "1 trainings have several different labels, which are averaged" in text
    assert "1 released" in text
    assert "<svg" in (tmp_path / "r.html").read_text()
    assert state_of(tmp_path, own).search.measured[2].numel() == 3


def test_a_command_spends_the_budget(call, own, tmp_path):
    out, script = tmp_path / "all.csv", tmp_path / "train.py"
    script.write_text("import sys\nprint(float(sys.argv[1]) - 1 / float(sys.argv[2]))")
    command = f"{shlex.quote(sys.executable)} -S {shlex.quote(str(script))} {{depth}} {{level}}"
    code, text, err = call("--run", command, "--workers", 2, "--initial", 4, "--output", out)
    assert code == 0, err
    assert "Best so far" in text
    assert "left" in err, "the progress bar"
    rows = read(out)
    assert sum(float(row["price"]) for row in rows) <= 3.0 + 1e-9
    assert all(float(row["acc"]) == float(row["depth"]) - 1 / float(row["epochs"]) for row in rows)


def test_the_search_ends_where_little_is_to_gain(call, tmp_path):
    script = tmp_path / "train.py"
    script.write_text("import sys\nprint(float(sys.argv[1]) + float(sys.argv[2]) - 1 / float(sys.argv[3]))")
    command = f"{shlex.quote(sys.executable)} -S {shlex.quote(str(script))} {{depth}} {{dropout}} {{level}}"
    report = tmp_path / "r.html"
    options = ("--run", command, "--initial", 4, "--least-gain", 1e6, "--report", report)
    code, text, err = call(*options, budget=9)
    assert code == 0, err
    assert "A better network than the best is affordable with p = " in " ".join(text.split())
    assert "train one more?" in report.read_text(encoding="utf-8")
    spent = float(text.split("Spent ")[1].split()[0])
    assert spent < 8, text
    code, _, err = call("--least-gain", "inf")
    assert (code, "inf is not a finite number" in err) == (2, True), err


def test_trainings_may_have_different_prices(call, run, own, tmp_path):
    pool = write(tmp_path / "pool.csv", own.rows)
    out = tmp_path / "next.csv"
    rows = {(row["depth"], row["width"], row["act"], str(row["dropout"])): row["params"] for row in own.rows}
    options = ("--candidates", pool, "--cost", "params", "--batch", 3, "--output", out, "--report", tmp_path / "r.html")
    code, text, err = call(*options, budget=1e7)
    assert code == 0, err
    assert "of 1e+07 params" in text
    assert "Price in params." in (tmp_path / "r.html").read_text(encoding="utf-8")
    for row in read(out):
        full = rows[int(row["depth"]), int(row["width"]), row["act"], row["dropout"]]
        assert float(row["price"]) == pytest.approx(full / 3)
    code, _, err = call("--candidates", pool, budget=1e7)
    assert (code, "its budget is in params; go on with --cost params" in " ".join(err.split())) == (2, True), err
    code, _, err = call("--cost", "width", "--batch", 1, "--output", out, budget=1e4, state="w.pt")
    assert code == 0, err
    row = read(out)[0]
    assert float(row["price"]) == pytest.approx(int(row["width"]) / 3)
    args = ("--budget", 1e9, "--fidelity", "epochs=12,200", "--state", tmp_path / "n.pt", "--benchmark", "nasbench201")
    code, _, err = run("search", *args, "--cost", "flops", "--output", out)
    assert code == 0, err
    assert float(read(out)[0]["price"]) > 1e5
    code, _, err = call("--cost", "act", state="a.pt")
    assert (code, "parameter 'act' is no number" in " ".join(err.split())) == (2, True), err
    code, _, err = call("--cost", "seconds", state="b.pt")
    assert (code, "got 'seconds'" in " ".join(err.split())) == (2, True), err


def test_an_inferred_space_stays_the_same(call, own, tmp_path):
    rows = [{**row, "epochs": 4, "acc": own.label(row)} for row in own.rows[:12]]
    labels = write(tmp_path / "labels.csv", rows)
    code, text, err = call("--labels", labels, "--ignore", "params", space=None)
    assert code == 0, err
    assert "12 new labels" in text
    labels = write(labels, [*rows, {**own.rows[20], "width": "wide", "epochs": 4, "acc": 0.5}])
    code, _, err = call("--labels", labels, "--ignore", "params", space=None)
    assert code == 2
    assert "labels.csv, line " in " ".join(err.split())


def test_candidates_and_a_benchmark(call, run, own, tmp_path):
    pool = write(tmp_path / "pool.csv", own.rows[:2])
    code, text, err = call("--candidates", pool, "--batch", 9)
    assert code == 0, err
    assert "2 running" in text
    args = ("--budget", 2, "--fidelity", "epochs=12,200", "--state", tmp_path / "n.pt", "--benchmark", "nasbench201")
    out = tmp_path / "next.csv"
    assert run("search", *args, "--output", out)[0] == 0
    row = read(out)[0]
    assert list(row) == ["arch", "trial", "start", "price", "epochs", "label"]
    code, text, err = run("search", *args, "--labels", write(tmp_path / "m.csv", [{**row, "label": 80.0}]))
    assert code == 0, err
    assert "1 new labels" in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--queries", 5), "is for searches without --budget"),
        (("--method", "random"), "is for searches without --budget"),
        (("--prices", "2,1"), "must not fall"),
        (("--run", "train {dept}"), "none of level"),
        (("--release", 1), "is not running"),
        (("--report", "r.txt"), "must end in .html"),
        (("--labels", "gone.csv"), "gone.csv"),
        (("--labels", "sqlite:///a.db"), "must be a CSV"),
    ],
)
def test_wrong_options(call, tmp_path, more, said):
    code, _, err = call(*more)
    assert code == 2
    assert said in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "s.pt").exists()


def test_options_that_need_a_budget(run, own, tmp_path):
    code, _, err = run("search", "--space", own.space(), "--fidelity", "epochs=4,12")
    assert code == 2
    assert "needs --budget" in err
    code, _, err = run("search", "--space", own.space(), "--budget", 3, "--fidelity", "epochs=4,12")
    assert code == 2
    assert "--state" in err
    code, _, err = run("search", "--space", own.space(), "--budget", 3, "--state", tmp_path / "s.pt")
    assert code == 2
    assert "--fidelity" in err


@pytest.mark.parametrize(
    ("more", "said"), [({"fidelity": "epochs=4,13"}, "fidelity"), ({"budget": 0.1}, "raise --budget")]
)
def test_states_of_other_searches(call, more, said):
    assert call("--batch", 2)[0] == 0
    code, _, err = call(**more)
    assert code == 2
    assert said in err


def test_two_processes_may_not_search_with_one_state(call, tmp_path):
    with only_user(tmp_path / "s.pt"):
        code, _, err = call("--batch", 1)
    assert code == 2
    assert "s.pt is in use by another process" in err
    assert not (tmp_path / "s.pt").exists()
    assert call("--batch", 1)[0] == 0
