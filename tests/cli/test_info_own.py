"""One command says what is in a file."""

from __future__ import annotations

import json

from pyg_nas_np.spaces import ParameterSpace


def words(text):
    return " ".join(text.split())


def test_a_file_is_described_before_its_label_is_known(run, own):
    code, out, err = run("info", own.measured())
    assert code == 0, err
    assert "name one by --target: run, depth, width, act, dropout, params, acc" in words(out)
    assert f"Try: pyg-nas-np info {own.folder / 'measured.csv'} --target acc" in words(out)


def test_the_command_that_is_suggested_fits_losses(run, own):
    rows = [{"depth": row["depth"], "act": row["act"], "val_loss": 100 - own.label(row)} for row in own.rows[:20]]
    code, out, _ = run("info", own.write("l.csv", rows))
    assert code == 0
    assert "--target val_loss --minimize" in words(out)


def test_every_column_is_said_what_it_was_taken_for(run, own):
    code, out, err = run("info", own.measured(), "--target", "acc", "--candidates", own.pool(), "--ignore", "run")
    assert code == 0, err
    assert "Integer(2, 8, step=2)" in out
    assert "the label, the largest is best" in out
    assert "30 labels of 30 configurations: acc from" in words(out)
    assert "66 candidates: pool.csv" in words(out)
    suggested = words(out).partition("Try: pyg-nas-np ")[2]
    # What is suggested works.
    code, _, err = run(*suggested.split(), "--predictor", "ridge")
    assert code == 0, err


def test_an_export_needs_no_target(run, own):
    rows = [{"params_depth": row["depth"], "value": own.label(row), "state": "COMPLETE"} for row in own.rows[:20]]
    code, out, err = run("info", own.write("t.csv", rows))
    assert code == 0, err
    assert "Optuna trials_dataframe" in out
    assert "not used" in out
    assert words(out).endswith(f"Try: pyg-nas-np rank --labels {own.folder / 't.csv'}")


def test_the_inferred_space_can_be_declared(run, own, tmp_path):
    path = tmp_path / "space.json"
    code, _, err = run("info", own.measured(), "--target", "acc", "--ignore", "run", "--write-space", path)
    assert code == 0, err
    assert json.loads(path.read_text())["name"] == "space"
    space = ParameterSpace.from_file(path)
    assert list(space.parameters) == ["depth", "width", "act", "dropout", "params"]
    code, _, err = run("rank", "--labels", own.measured(), "--target", "acc", "--space", path, "--sample", 5)
    assert code == 0, err
    code, _, err = run("info", own.measured(), "--target", "acc", "--write-space", tmp_path / "space.txt")
    assert (code, "--write-space" in err) == (2, True)


def test_lists_of_numbered_columns_are_shown_and_cannot_be_declared(run, own, tmp_path):
    rows = [{"w_0": 8 * (1 + i % 3), "w_1": 8 * (1 + i % 4), "w_2": 8 * (1 + i % 5), "acc": i} for i in range(20)]
    args = ("info", own.write("w.csv", rows), "--target", "acc")
    code, out, err = run(*args)
    assert code == 0, err
    assert "taken for the list of layers 'w'" in out
    code, _, err = run(*args, "--write-space", tmp_path / "s.json")
    assert (code, "was gathered from numbered columns" in " ".join(err.replace("│", " ").split())) == (2, True), err
    assert not (tmp_path / "s.json").exists()


def test_bad_files_and_targets(run, own, tmp_path):
    for args in (("none.csv",), (own.measured(), "--target", "ac")):
        code, _, err = run("info", *args)
        assert (code, err.startswith("error: ")) == (2, True), err
