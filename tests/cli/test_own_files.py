"""Which call is about the user's own files, and what is said of these."""

from __future__ import annotations

import importlib
import importlib.util

import pytest

from pyg_nas_np.cli.own_files import LINE, is_long, name_of, show_space
from pyg_nas_np.spaces import Integer, ParameterSpace


def test_options_tell_own_files_from_benchmarks(run, own):
    for args in (("--dataset", "cifar10"), ("--context", 5), ("--benchmark", "nasbench101")):
        code, _, err = run("rank", "--labels", own.measured(), "--target", "acc", *args)
        text = " ".join(err.replace("│", " ").split())
        assert (code, f"Invalid value for {args[0]}: is for a benchmark, --target for files of your own" in text) == (
            2,
            True,
        ), err


def test_labels_are_needed(run, own):
    code, _, err = run("benchmark", "--target", "acc")
    assert (code, "--labels" in err) == (2, True)
    code, _, err = run("rank", "--target", "acc")
    assert (code, "nothing to choose from; give measurements, candidates or a space" in " ".join(err.split())) == (
        2,
        True,
    )


def test_a_file_of_a_benchmark_is_told_by_its_columns(run, own):
    # As before there were own spaces: strings of NAS-Bench-201.
    code, _, err = run("rank", "--labels", own.write("a.csv", [{"arch": "x", "label": 1}]), "--predictor", "ridge")
    assert (code, "a.csv, line 2" in err) == (2, True), err
    # With a target, the same columns are anybody's.
    code, _, err = run("rank", "--labels", own.write("a.csv", [{"arch": "x", "label": 1}]), "--target", "label")
    assert (code, "at least two different ones" in " ".join(err.split())) == (2, True), err


def test_missing_and_damaged_files(run, own, tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    (tmp_path / "bad.toml").write_text("[parameters\n")
    args = ("rank", "--labels", own.measured(), "--target", "acc")
    for more, name in (
        (("--candidates", tmp_path / "none.csv"), "none.csv"),
        (("--candidates", tmp_path / "bad.parquet"), "bad.parquet"),
        (("--space", tmp_path / "bad.toml"), "bad.toml"),
        (("--labels", tmp_path / "none.csv"), "none.csv"),
    ):
        code, _, err = run(*args, *more)
        assert (code, name in "".join(err.split()), "Traceback" in err) == (2, True, False), err


def test_an_output_that_cannot_be_written_is_found_first(run, own, tmp_path, monkeypatch):
    for name in ("rank", "search"):
        monkeypatch.setattr(
            importlib.import_module(f"pyg_nas_np.cli.{name}"), "open_own", lambda *_: pytest.fail("work was done")
        )
    (tmp_path / "file").touch()
    for command, option in (("rank", "--output"), ("rank", "--report"), ("search", "--output")):
        path = tmp_path / "file" / "below"
        code, _, err = run(command, "--labels", own.measured(), "--target", "acc", option, path)
        assert (code, option in err) == (2, True), err


def test_exports_of_other_tools_need_no_option(run, own, tmp_path):
    rows = [
        {
            "number": i,
            "value": own.label(row),
            "datetime_start": "2026-01-01",
            **{f"params_{name}": value for name, value in row.items() if name != "params"},
            "state": "COMPLETE",
        }
        for i, row in enumerate(own.rows[:30])
    ]
    code, text, err = run("rank", "--labels", own.write("trials.csv", rows), "--predictor", "gp", "--sample", 20)
    assert code == 0, err
    assert "Optuna trials_dataframe: 4 parameters params_*, label 'value'" in text


def test_a_study_in_a_storage(run, own, tmp_path):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url, direction="minimize", study_name="s")
    study.optimize(lambda trial: (trial.suggest_float("lr", 1e-4, 1e-1, log=True) - 0.01) ** 2, 12)
    code, text, err = run("rank", "--labels", url, "--predictor", "gp", "--sample", 20)
    assert code == 0, err
    assert "the smallest is best" in text


def test_names_for_people_have_no_passwords(tmp_path):
    assert name_of("mysql://me:secret@host/trials") == "mysql://host/trials"
    assert name_of("a/b/measured.csv") == "measured.csv"


def test_folders_and_large_files_are_long(tmp_path, monkeypatch):
    file = tmp_path / "pool.csv"
    file.write_text("depth\n1\n")
    assert is_long(tmp_path)
    assert not is_long(file)
    assert not is_long(None)
    assert not is_long(tmp_path / "none.csv")
    monkeypatch.setattr("pyg_nas_np.cli.own_files.RANKED_BYTES", 3)
    assert is_long(file, ranked=True) == (importlib.util.find_spec("pyarrow") is not None)
    assert not is_long(file)
    monkeypatch.setattr("pyg_nas_np.cli.own_files.LONG_BYTES", 3)
    assert is_long(file)


def test_very_many_choices_are_cut_short(capsys):
    show_space(ParameterSpace(depth=Integer(1, 4), layers=[f"kind-{i}" for i in range(500)]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  depth   Integer(1, 4)"
    assert len(lines) == 2
    assert len(lines[1]) == LINE + 2
    assert lines[1].endswith("…")
