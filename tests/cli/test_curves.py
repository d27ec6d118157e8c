"""The commands on learning curves, end to end."""

from __future__ import annotations

import csv
import sys

import numpy as np
import pytest

from pyg_nas_np.cli import main

pytest.importorskip("matplotlib")


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*args):
        monkeypatch.setattr(sys, "argv", ["pyg-nas-np", "curves", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Sixty trainings of ten epochs; the last eight are still running."""
    path = tmp_path_factory.mktemp("curves") / "runs.csv"
    rng = np.random.default_rng(0)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["config", "epoch", "value", "lr"])
        for run in range(60):
            height, rate = rng.uniform(0.4, 0.9), rng.uniform(0.2, 0.6)
            for epoch in range(1, 11 if run < 52 else 5):
                noise = 0.002 * rng.normal()
                writer.writerow([f"run{run}", epoch, height * (1 - np.exp(-rate * epoch)) + noise, rate])
    return path


COMMON = ("--direction", "up", "--hyperparameter", "lr", "--regressor", "ols")


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_fit(run, table, tmp_path):
    code, out, _ = run("fit", table, *COMMON, "--training", 30, "--fraction", 0.5, "--output", tmp_path)
    assert code == 0
    assert "22 curves after 5 of 10 values" in out
    written = rows(tmp_path / "curves_fit.csv")
    assert len(written) == 22
    gaps = [abs(float(row["predicted"]) - float(row["final"])) for row in written]
    assert np.median(gaps) < 0.05
    assert (tmp_path / "curves_fit.png").stat().st_size > 5000


def test_predict(run, table, tmp_path):
    code, out, _ = run("predict", table, *COMMON, "--output", tmp_path)
    assert code == 0
    assert "8 running trainings; best of 52 finished" in out
    written = rows(tmp_path / "curves_predict.csv")
    predicted = [float(row["predicted"]) for row in written]
    assert predicted == sorted(predicted, reverse=True)
    assert {row["config"] for row in written} == {f"run{i}" for i in range(52, 60)}
    assert (tmp_path / "curves_predict.png").stat().st_size > 5000


def test_simulate(run, table, tmp_path):
    code, out, _ = run("simulate", table, *COMMON, "--burn-in", 15, "--orderings", 3, "--output", tmp_path)
    assert code == 0
    assert "52 trainings in 3 orders" in out
    written = rows(tmp_path / "curves_simulate.csv")
    assert len(written) == 3
    assert all(float(row["speedup"]) > 1.2 for row in written)
    assert (tmp_path / "curves_simulate.png").stat().st_size > 5000


def test_published_table(run, shared_data):
    path = shared_data / "curves" / "baker2017" / "lstm_ptb.csv"
    code, out, _ = run("fit", path, "--regressor", "ols")
    assert code == 0
    assert "180 curves after 15 of 60 values" in out


def test_bad_input(run, table, tmp_path):
    cases = [
        (("fit", table), "a long table needs 'up' or 'down'"),
        (("fit", table, "--direction", "max"), "neither 'up' nor 'down'"),
        (("fit", table, "--direction", "down"), "is the direction 'down' right"),
        (("fit", table, "--direction", "up", "--regressor", "magic"), "'magic' is none of"),
        (("fit", table, "--direction", "up", "--value", "loss"), "has no column 'loss'"),
        (("fit", table, *COMMON, "--training", 52), "one to test at least"),
        (("fit", table, *COMMON, "--training", 30, "--fraction", 2), "fraction"),
        (("simulate", table, *COMMON, "--burn-in", 52), "not more than the burn-in of 52"),
        (("simulate", table, *COMMON, "--burn-in", 15, "--delta", 0.1), "delta"),
        (("fit", tmp_path / "nowhere.csv", *COMMON), "is missing; check the path"),
    ]
    for arguments, message in cases:
        code, out, err = run(*arguments)
        assert code == 2, arguments
        assert message in " ".join((out + err).replace("│", " ").split()), arguments
    finished = tmp_path / "finished.csv"
    finished.write_text("config,epoch,value\n" + "".join(f"{c},{e},{e}\n" for c in "abcd" for e in (1, 2)))
    code, _, err = run("predict", finished, "--direction", "up")
    assert code == 2
    assert "nothing is to be predicted" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "--draws", 0), "0 is not in the range"),
        (("fit", "--draws", 10**9), "is not in the range"),
        (("fit", "--seed", 2**64), "is not in the range"),
        (("fit", "--seed", -1), "-1 is not in the range"),
        (("fit", "--training", 30, "--fraction", "nan"), "fraction must lie in (0, 1]"),
        (("fit", "--training", 2), "2 is not in the range"),
        (("simulate", "--orderings", 0), "0 is not in the range"),
        (("simulate", "--checks", 0), "0 is not in the range"),
        (("simulate", "--nth-best", 0), "0 is not in the range"),
        (("simulate", "--burn-in", 0), "0 is not in the range"),
        (("simulate", "--burn-in", 15, "--delta", "nan"), "delta must lie in [0.5, 1)"),
    ],
    ids=str,
)
def test_numbers_out_of_range(run, table, arguments, message):
    code, out, err = run(arguments[0], table, *COMMON, *arguments[1:])
    assert code == 2
    assert message in " ".join((out + err).replace("│", " ").split())


def test_an_output_that_cannot_be_written_is_found_first(run, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        code, out, err = run("fit", tmp_path / "no-table.csv", *COMMON, "--output", tmp_path / name)
        assert code == 2
        assert "--output" in " ".join((out + err).replace("│", " ").split())


def test_brackets_are_printed_as_they_are(run, table, tmp_path):
    marked = tmp_path / "[/x][red]"
    lines = table.read_text().replace("run59,", "[/run],")
    (tmp_path / "marked.csv").write_text(lines)
    code, out, err = run("predict", tmp_path / "marked.csv", *COMMON, "--output", marked)
    assert code == 0, err
    assert "[/run]" in out
    assert "[/x][red]" in "".join(out.split())


def test_what_is_no_table(run, tmp_path):
    code, _, err = run("fit", tmp_path, "--direction", "up")
    assert code == 2
    assert "is not a regular file" in " ".join(err.split())
    (tmp_path / "long.csv").write_text("a" * 200_000 + ",b\n")
    code, _, err = run("fit", tmp_path / "long.csv", "--direction", "up")
    assert code == 2
    assert "more than 131072 characters" in " ".join(err.split())
