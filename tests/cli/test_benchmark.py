from __future__ import annotations

import csv
import math
import re
import statistics
import sys

import pytest
import torch

from pyg_nas_np.cli import benchmark as module
from pyg_nas_np.cli import main


@pytest.fixture
def run(monkeypatch, capsys, labelled_root):
    def call(*args) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pyg-nas-np", "benchmark", "--root", str(labelled_root), *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, " ".join(out.err.replace("│", " ").split())

    return call


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


COMMON = ("--predictor", "ridge", "--predictor", "gp-rbf", "--context", 40, "--context", 15)


def test_summary_is_that_of_the_runs(run, tmp_path):
    code, out, _ = run(*COMMON, "--seeds", 2, "--output", tmp_path)
    assert code == 0
    runs, summary = read(tmp_path / "runs.csv"), read(tmp_path / "summary.csv")
    assert len(runs) == 8
    assert [(row["context"], row["predictor"]) for row in summary] == [
        ("15", "ridge"),
        ("15", "gp-rbf"),
        ("40", "ridge"),
        ("40", "gp-rbf"),
    ]
    for row in summary:
        taus = [float(r["kendall_tau"]) for r in runs if all(r[key] == row[key] for key in ("context", "predictor"))]
        assert float(row["kendall_tau"]) == pytest.approx(statistics.mean(taus))
        assert float(row["kendall_tau_se"]) == pytest.approx(statistics.stdev(taus) / math.sqrt(2))
        assert f"{statistics.mean(taus):.3f}±{statistics.stdev(taus) / math.sqrt(2):.3f}" in out
        assert row["seeds"] == "2"
    assert "2 seeds" in out


def test_runs_are_not_repeated(run, tmp_path, monkeypatch):
    assert run("--predictor", "ridge", "--context", 15, "--seeds", 1, "--output", tmp_path)[0] == 0
    before = read(tmp_path / "runs.csv")
    measured = []
    evaluate = module.evaluate

    def counting(predictor, *args):
        measured.append(type(predictor).__name__)
        return evaluate(predictor, *args)

    monkeypatch.setattr(module, "evaluate", counting)
    assert run("--predictor", "ridge", "--context", 15, "--seeds", 2, "--output", tmp_path)[0] == 0
    assert measured == ["RidgePredictor"]
    after = read(tmp_path / "runs.csv")
    assert after[:1] == before
    assert [row["seed"] for row in after] == ["0", "1"]
    # Another split is another benchmark; the first one's runs stay.
    assert run("--predictor", "ridge", "--context", 15, "--seeds", 1, "--split", "class", "--output", tmp_path)[0] == 0
    assert len(measured) == 2
    assert len(read(tmp_path / "runs.csv")) == 3
    assert [row["split"] for row in read(tmp_path / "summary.csv")] == ["class"]


def test_losses_are_minimised(run, loss_root, tmp_path):
    common = ("--root", loss_root, "--metric", "valid_loss@200", "--predictor", "ridge", "--context", 40, "--seeds", 1)
    code, out, _ = run(*common, "--output", tmp_path)
    assert code == 0
    assert "the smallest is best" in " ".join(out.split())
    assert run(*common, "--output", tmp_path, "--maximize")[0] == 0
    runs = {row["best"]: row for row in read(tmp_path / "runs.csv")}
    assert set(runs) == {"smallest", "largest"}
    # The best cells, with the most parameters, are easier to find than the many with none.
    assert float(runs["smallest"]["kendall_tau"]) > 0.6
    assert float(runs["smallest"]["regret_at_10"]) < 10


def test_one_seed_has_no_error(run):
    code, out, _ = run("--predictor", "ridge", "--context", 15, "--seeds", 1)
    assert code == 0
    assert "±" not in out
    assert "nan" not in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--predictor", "oracle"], "'oracle' is none of convnp"),
        (["--split", "hash"], "'hash' is neither"),
        (["--context", 0], "--context"),
        (["--seeds", 0], "--seeds"),
        (["--benchmark", "nasbench301"], "'nasbench301' is none of"),
        (["--predictor", "ridge", "--context", 20_000], "n_train=20000"),
    ],
)
def test_wrong_arguments_end_with_a_message(run, args, message):
    code, _, err = run(*args)
    assert code == 2
    assert message in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("predictor,tau\nridge,1\n", "has other columns"),
        (",".join((*module.KEY, *module.SCORES)) + "\n0,nasbench201\n", "line 2: 2 cells, the header has"),
    ],
)
def test_foreign_runs_are_refused_and_kept(run, tmp_path, text, message):
    (tmp_path / "runs.csv").write_text(text)
    code, _, err = run("--predictor", "ridge", "--context", 15, "--output", tmp_path)
    assert code == 2
    assert message in err
    assert (tmp_path / "runs.csv").read_text() == text


def test_predictors_are_compared_on_own_labels(invoke, own, tmp_path):
    args = ("benchmark", "--labels", own.measured(), "--target", "acc", "--predictor", "gp", "--predictor", "ridge")
    args = (*args, "--seeds", 3, "--context", 20, "--output", tmp_path / "o")
    code, text, err = invoke(*args)
    assert code == 0, err
    assert "measured.csv: acc, the largest is best, tested on the rest of 30 labels, 3 seeds" in " ".join(text.split())
    said = re.search(r"Best from 20 labels: (gp|ridge), tau ([\d.]+), ahead of (gp|ridge) by ([\d.]+) ± ([\d.]+)", text)
    rows = read(tmp_path / "o" / "summary.csv")
    taus = {row["predictor"]: float(row["kendall_tau"]) for row in rows}
    assert said[1] == max(taus, key=taus.get)
    assert float(said[4]) == pytest.approx(abs(taus["gp"] - taus["ridge"]), abs=1e-3)
    # Three overlapping draws say less than three independent ones: Nadeau and Bengio's correction.
    runs = read(tmp_path / "o" / "runs.csv")
    values = torch.tensor([float(row["kendall_tau"]) for row in runs if row["predictor"] == "gp"], dtype=torch.float64)
    error = next(float(row["kendall_tau_se"]) for row in rows if row["predictor"] == "gp")
    assert error == pytest.approx(float(values.std() * (1 / 3 + 10 / 20) ** 0.5))
    # Nothing is computed twice; changed labels are another table.
    before = (tmp_path / "o" / "runs.csv").read_bytes()
    assert invoke(*args)[0] == 0
    assert (tmp_path / "o" / "runs.csv").read_bytes() == before
    own.measured(29)
    assert invoke(*args)[0] == 0
    assert len(read(tmp_path / "o" / "runs.csv")) == 12


def test_own_labels_that_are_too_few_to_compare_on(invoke, own):
    args = ("benchmark", "--labels", own.measured(), "--target", "acc", "--predictor", "ridge")
    code, _, err = invoke(*args, "--context", 28)
    assert (code, "leave fewer than 4 to test" in " ".join(err.split())) == (2, True), err
    code, text, _ = invoke(*args, "--predictor", "gp", "--seeds", 1, "--context", 15)
    assert (code, "in a single draw" in text) == (0, True)
    code, _, err = invoke(*args, "--dataset", "cifar10")
    assert (code, "for files of your own" in " ".join(err.replace("│", " ").split())) == (2, True), err
