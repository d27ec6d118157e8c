r"""End to end, through the same function that the installed command runs."""

from __future__ import annotations

import csv
import sys

import pytest

from pyg_nas_np.cli import main
from pyg_nas_np.spaces import NASBench201Space

SPACE = NASBench201Space()


@pytest.fixture
def run(monkeypatch, capsys, labelled_root):
    def call(*args) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pyg-nas-np", "search", "--root", str(labelled_root), *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return call


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("method", ["predictor", "bananas", "random", "evolution", "local"])
def test_simulated_searches(run, tmp_path, method):
    code, out, _ = run(
        *("--queries", 14, "--method", method, "--predictor", "ridge", "--scale", "rank", "--batch", 2),
        *("--initial", 8, "--output", tmp_path / "trace.csv"),
    )
    assert code == 0
    rows = read(tmp_path / "trace.csv")
    assert [int(row["query"]) for row in rows] == list(range(1, 15))
    assert len({row["index"] for row in rows}) == 14
    ranks = [int(row["best_rank"]) for row in rows]
    assert ranks == sorted(ranks, reverse=True)
    assert float(rows[-1]["best"]) == max(float(row["label"]) for row in rows)
    assert "measured=14" in out
    assert "rank of 15,625" in out


def test_a_simulated_search_goes_on_from_its_state(run, tmp_path):
    options = ["--predictor", "ridge", "--scale", "rank", "--initial", 5]
    assert run("--queries", 12, *options, "--output", tmp_path / "whole.csv")[0] == 0
    for queries in (7, 12):
        code, _, _ = run("--queries", queries, *options, "--state", tmp_path / "s.pt", "--output", tmp_path / "two.csv")
        assert code == 0
    assert read(tmp_path / "two.csv") == read(tmp_path / "whole.csv")


def test_two_objectives_print_the_front(run):
    code, out, _ = run("--queries", 8, "--predictor", "ridge", "--scale", "rank", "--initial", 5, "--cost", "flops")
    assert code == 0
    assert "Pareto front" in out


def test_own_measurements_give_the_next_batches(run, tmp_path):
    own, proposals, state = tmp_path / "own.csv", tmp_path / "next.csv", tmp_path / "s.pt"
    options = ["--predictor", "ridge", "--initial", 4, "--batch", 4, "--state", state, "--output", proposals]
    assert run(*options)[0] == 0
    asked = []
    for step in range(3):
        fresh = [row["arch"] for row in read(proposals)]
        assert len(fresh) == 4
        assert not set(fresh) & set(asked)
        asked += fresh
        lines = [f"{arch},{80 + SPACE.index(SPACE.from_str(arch)) / 1e3}" for arch in asked]
        own.write_text("arch,label\n" + "\n".join(lines) + "\n")
        code, out, _ = run("--labels", own, *options)
        assert code == 0
        assert f"after {4 * (step + 1)} measurements" in out
        assert "Best so far" in out
    assert all(row["label"] == "" for row in read(proposals))


def test_losses_are_minimised(run, loss_root, tmp_path):
    common = (
        "--root",
        loss_root,
        "--metric",
        "valid_loss@200",
        "--queries",
        20,
        "--predictor",
        "ridge",
        "--initial",
        8,
    )
    for options, sign in (((), -1), (("--maximize",), 1)):
        assert run(*common, *options, "--output", tmp_path / "t.csv")[0] == 0
        rows = read(tmp_path / "t.csv")
        best = [sign * float(row["best"]) for row in rows]
        assert best == sorted(best)
        assert best[-1] == max(sign * float(row["label"]) for row in rows)


def test_outputs_are_checked_before_the_work(run, tmp_path, monkeypatch):
    monkeypatch.setattr("pyg_nas_np.cli.search.open_benchmark", lambda *_: pytest.fail("work was done"))
    for option in ("--output", "--state"):
        for path in (tmp_path, ".", "/proc/none/x", tmp_path / ("x" * 300)):
            code, _, err = run(option, path)
            assert (code, option in err) == (2, True), err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--method", "magic"], "'magic' is none of predictor"),
        (["--predictor", "magic"], "'magic' is none of convnp"),
        (["--scale", "magic"], "'magic' is none of auto"),
        (["--predictor", "ridge", "--acquisition", "magic"], "'magic' is none of ucb"),
        (["--predictor", "ridge", "--cost", "magic"], "cost must be"),
        (["--predictor", "ridge", "--batch", "0"], "--batch"),
        (["--predictor", "ridge", "--batch", str(10**8)], "--batch"),
        (["--queries", "0"], "--queries"),
        (["--queries", "15626"], "15626 is more than the 15,625 architectures with labels"),
        (["--initial", "0"], "--initial"),
        (["--seed", str(2**64)], "--seed"),
        (["--queries", "5", "--labels", "own.csv"], "--labels are your own"),
    ],
)
def test_wrong_arguments_end_with_one_line(run, args, message):
    code, _, err = run(*args)
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())


def test_a_state_of_another_method_is_refused(run, tmp_path):
    assert run("--method", "random", "--state", tmp_path / "s.pt")[0] == 0
    code, _, err = run("--method", "local", "--state", tmp_path / "s.pt")
    assert code == 2
    assert "RandomSearch" in err
