from __future__ import annotations

import sys

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
    module = sys.modules["pyg_nas_np.cli.convert"]
    monkeypatch.setattr(module, "open_benchmark", lambda *_: pytest.fail("work was done"))
    for target in (tmp_path, "x.txt", "/proc/none/x.csv"):
        code, _, err = run("convert", target)
        assert (code, "OUTPUT" in err) == (2, True), err
