"""Latencies on the user's device beside a ranking."""

from __future__ import annotations

import csv

import pytest
from scipy.stats import spearmanr


def latency_of(row):
    return 0.5 * row["depth"] * row["width"] ** 0.5 + 1


def measured_latencies(own, count=10, devices=True, **more):
    rows = []
    for i, row in enumerate(own.rows):
        known = {"phone": row["depth"] + row["width"] / 50, "board": row["depth"] * row["width"] ** 0.6 / 4 + 2}
        shown = {"latency": latency_of(row) if i < count else None, **(known if devices else {}), **more}
        rows.append({**row, **shown, "note": f"n{i}"})
    return own.write("latency.csv", rows if devices else rows[:count])


def ranked(run, own, *args):
    own_args = ("--labels", own.measured(), "--candidates", own.pool(), "--target", "acc", "--cost", "params")
    return run("rank", *own_args, "--predictor", "ridge", *args)


def test_latencies_stand_in_table_file_and_report(run, own, tmp_path):
    out = tmp_path / "o"
    args = ("--latency", measured_latencies(own), "--latency-limit", 20, "--output", out, "--report", out / "r.html")
    code, text, err = ranked(run, own, *args)
    assert code == 0, err
    assert "Latency: predicted from 10 measurements and 96 rows of phone, board" in text
    assert "candidates are likely to stay within 20" in text
    with open(out / "ranking.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    truth = [latency_of({"depth": int(row["depth"]), "width": int(row["width"])}) for row in rows]
    predicted = [float(row["predicted_latency"]) for row in rows]
    assert spearmanr(predicted, truth)[0] > 0.9
    for row, value in zip(rows, predicted, strict=True):
        assert float(row["latency_5_percent"]) < value < float(row["latency_95_percent"])
        assert (float(row["probability_within"]) >= 0.5) == (value <= 20)
    page = (out / "r.html").read_text(encoding="utf-8")
    assert "within 20 with p" in page
    assert "latency (90 % interval)" in page


def test_without_other_devices_and_limit(run, own, tmp_path):
    path = measured_latencies(own, 20, devices=False)
    code, text, err = ranked(run, own, "--latency", path, "--output", tmp_path / "o")
    assert code == 0, err
    assert "Latency: predicted from 20 measurements\n" in text
    header = (tmp_path / "o" / "ranking.csv").read_text().splitlines()[0]
    assert "predicted_latency" in header
    assert "probability_within" not in header


@pytest.mark.parametrize(
    ("limit", "message"), [("0", "0 is not positive"), ("-3", "-3 is not positive"), ("nan", "not a finite number")]
)
def test_bad_limits(run, own, limit, message):
    code, _, err = ranked(run, own, "--latency", measured_latencies(own), "--latency-limit", limit)
    assert code == 2
    assert message in " ".join(err.split())


def test_options_that_do_not_fit(run, own):
    code, _, err = ranked(run, own, "--latency-limit", "3")
    assert code == 2
    assert "needs measured latencies" in " ".join(err.split())
    code, _, err = run("rank", "--latency", measured_latencies(own))
    assert code == 2
    assert "not for a benchmark" in " ".join(err.split())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"depth": 2, "width": 64, "act": "relu", "dropout": 0.0, "params": 1, "ms": 3.0}], "no column 'latency'"),
        ([{"depth": 2, "width": 64, "act": "relu", "dropout": 0.0, "params": 1, "latency": -3.0}], "row 1, column"),
        ([{"depth": 2, "width": 64, "act": "relu", "dropout": 0.0, "params": 1, "latency": "slow"}], "'slow' is not"),
        (
            [{"depth": 2, "width": 64, "act": "relu", "dropout": 0.0, "params": 1, "latency": None}],
            "nothing is measured",
        ),
    ],
)
def test_bad_files(run, own, tmp_path, rows, message):
    code, _, err = ranked(run, own, "--latency", own.write("latency.csv", rows), "--output", tmp_path / "o")
    assert code == 2
    assert message in " ".join(err.split())
    assert not (tmp_path / "o" / "ranking.csv").exists()
