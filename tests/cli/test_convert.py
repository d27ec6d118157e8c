from __future__ import annotations

import importlib

import pytest


def test_it_writes_a_table_and_names_what_is_missing(run, labelled_root, tmp_path):
    target = tmp_path / "out.csv.gz"
    args = ("--root", labelled_root, "--metric", "valid_accuracy@200")
    assert run("convert", target, *args)[0] == 0
    assert target.exists()
    code, _, err = run("convert", tmp_path / "x.csv", "--root", labelled_root, "--metric", "loss")
    assert code == 2
    assert "loss not available" in err


def test_nothing_is_computed_for_a_table_that_cannot_be_written(run, tmp_path, monkeypatch):
    module = importlib.import_module("pyg_nas_np.cli.convert")
    monkeypatch.setattr(module, "open_benchmark", lambda *_: pytest.fail("work was done"))
    for target in (tmp_path, "x.txt", "/proc/none/x.csv"):
        code, _, err = run("convert", target)
        assert (code, "OUTPUT" in err) == (2, True), err


def test_exports_become_plain_tables(run, own, tmp_path):
    rows = [
        {"params_depth": row["depth"], "params_act": row["act"], "value": own.label(row), "state": "COMPLETE"}
        for row in own.rows[:20]
    ]
    code, out, err = run("convert", tmp_path / "plain.csv", "--labels", own.write("trials.csv", rows))
    assert code == 0, err
    assert "2 parameters and value of 20 rows" in " ".join(out.split())
    lines = (tmp_path / "plain.csv").read_text().splitlines()
    assert lines[0] == "depth,act,value"
    assert lines[1] == f"{rows[0]['params_depth']},{rows[0]['params_act']},{rows[0]['value']}"
    code, _, err = run("convert", tmp_path / "plain.parquet", "--labels", tmp_path / "trials.csv")
    assert (code, "must end in one of .csv" in " ".join(err.split())) == (2, True), err
