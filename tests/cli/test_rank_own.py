"""One command ranks the user's own candidates from their own labels."""

from __future__ import annotations

import csv

import pytest
import torch

from pyg_nas_np.cli import rank_own as rank_own_module
from pyg_nas_np.cli.rank_own import OURS, learned_costs, rank_own
from pyg_nas_np.cli.ranking import HeldOut
from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.datasets.own_task import read_own_task


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_candidates_are_ranked_with_all_their_columns(run, own, tmp_path):
    out = tmp_path / "out"
    code, text, err = run(
        *("rank", "--labels", own.measured(), "--candidates", own.pool(), "--target", "acc", "--output", out),
        *("--predictor", "gp", "--predictor", "ridge", "--cost", "params", "--report", out / "r.html", "--top-k", 3),
    )
    assert code == 0, err
    assert text.startswith("measured.csv: 30 labels (acc, the largest is best); 66 candidates in pool.csv\n")
    assert "act      Categorical(('gelu', 'relu'))" in text
    assert "Best 3 of 66 candidates by gp" in text
    assert "The predictions follow" in text
    assert "better than all that was measured" in text
    rows = read(out / "ranking.csv")
    assert list(rows[0]) == [*OURS, "depth", "width", "act", "dropout", "params", "name"]
    assert len(rows) == 66
    assert [int(row["rank"]) for row in rows] == list(range(1, 67))
    predicted = [float(row["predicted"]) for row in rows]
    assert predicted == sorted(predicted, reverse=True)
    assert all(float(row["std"]) > 0 for row in rows)
    assert 0 < sum(float(row["probability_best"]) for row in rows) <= 1.0 + 1e-9
    by_name = {f"c{i}": row for i, row in enumerate(own.rows[30:])}
    assert all(by_name[row["name"]]["width"] == int(row["width"]) for row in rows)
    truth = [own.label(by_name[row["name"]]) for row in rows]
    assert sum(truth[:20]) / 20 > sum(truth[-20:]) / 20 + 4
    assert [row["predictor"] for row in read(out / "scores.csv")] == ["gp", "ridge"]
    assert (out / "ranking.png").read_bytes()[:4] == b"\x89PNG"
    page = (out / "r.html").read_text(encoding="utf-8")
    for words in ("Best 3 of 66", "What the predictions follow", "Pareto front against params", "best with p"):
        assert words in page
    assert {file.name for file in out.iterdir()} == {"ranking.csv", "scores.csv", "ranking.png", "r.html"}


def test_without_matplotlib_everything_but_the_picture_is_written(run, own, tmp_path, monkeypatch):
    monkeypatch.setattr(rank_own_module, "can_draw", lambda name: False)
    given = ("--labels", own.measured(), "--candidates", own.pool(), "--target", "acc", "--predictor", "ridge")
    code, _, err = run("rank", *given, "--output", tmp_path / "o", "--report", tmp_path / "r.html")
    assert code == 0, err
    assert {file.name for file in (tmp_path / "o").iterdir()} == {"ranking.csv", "scores.csv"}
    assert "<svg" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_losses_are_ranked_from_the_smallest(run, own, tmp_path):
    labels = own.measured(loss=lambda row: 100 - own.label(row))
    args = ("--candidates", own.pool(), "--target", "loss", "--ignore", "acc", "--predictor", "gp")
    code, text, err = run("rank", "--labels", labels, *args, "--minimize", "--output", tmp_path / "o")
    assert code == 0, err
    assert "(loss, the smallest is best)" in text
    rows = read(tmp_path / "o" / "ranking.csv")
    predicted = [float(row["predicted"]) for row in rows]
    assert predicted == sorted(predicted)
    assert int(rows[0]["depth"]) == 8


def test_rows_without_a_label_are_the_candidates(run, own, tmp_path):
    rows = own.labelled(30, loss=lambda row: 1.0 / own.label(row))
    rows += [{"run": f"r{30 + i}", **row} for i, row in enumerate(own.rows[30:])]
    code, text, err = run(
        *("rank", "--labels", own.write("all.csv", rows), "--target", "acc", "--predictor", "gp"),
        *("--output", tmp_path / "o"),
    )
    assert code == 0, err
    assert "66 rows without a label" in text
    # A metric of the trained only is no parameter.
    assert "not used, because rows without a label have none: loss" in text
    ranking = read(tmp_path / "o" / "ranking.csv")
    assert len(ranking) == 66
    assert {row["measured"] for row in ranking} == {""}


def test_without_candidates_the_space_is_sampled(run, own, tmp_path):
    args = ("rank", "--labels", own.measured(), "--target", "acc", "--predictor", "gp", "--output", tmp_path / "o")
    code, text, err = run(*args, "--space", own.space(), "--sample", 40)
    assert code == 0, err
    assert "40 configurations were drawn from the space (--sample)" in text
    assert "not used, because the space does not declare it: run, params" in text
    rows = read(tmp_path / "o" / "ranking.csv")
    assert len(rows) == 40
    assert {row["width"] for row in rows} <= {"64", "128", "256"}
    measured = {(row["depth"], row["width"], row["act"], float(row["dropout"])) for row in own.rows[:30]}
    assert not measured & {(int(r["depth"]), int(r["width"]), r["act"], float(r["dropout"])) for r in rows}


def test_a_pool_that_holds_the_measured_says_so(run, own, tmp_path):
    args = ("--candidates", own.pool(start=20), "--target", "acc", "--predictor", "gp", "--output", tmp_path / "o")
    code, text, err = run("rank", "--labels", own.measured(), *args)
    assert code == 0, err
    assert "10 candidates were measured already" in text
    rows = read(tmp_path / "o" / "ranking.csv")
    assert len(rows) == 76
    known = [row for row in rows if row["measured"]]
    assert len(known) == 10
    for row in known:
        config = {**row, "depth": int(row["depth"]), "width": int(row["width"]), "dropout": float(row["dropout"])}
        assert float(row["measured"]) == pytest.approx(own.label(config))


def test_repeats_with_different_labels_count_and_are_told(run, own):
    rows = own.labelled(30)
    rows += [{**row, "run": f"again{i}", "acc": row["acc"] + 0.5} for i, row in enumerate(rows[:4])]
    code, text, err = run(
        *("rank", "--labels", own.write("m.csv", rows), "--candidates", own.pool(), "--target", "acc"),
        *("--predictor", "gp"),
    )
    assert code == 0, err
    assert "34 labels" in text
    assert "4 architectures measured more than once" in " ".join(text.split())


def test_columns_of_our_names_are_replaced(run, own, tmp_path):
    """The ranking of yesterday is the pool of today."""
    args = ("rank", "--labels", own.measured(), "--target", "acc", "--predictor", "gp", "--output", tmp_path / "o")
    assert run(*args, "--candidates", own.pool())[0] == 0
    first = read(tmp_path / "o" / "ranking.csv")
    code, _, err = run(*args, "--candidates", (tmp_path / "o" / "ranking.csv").rename(tmp_path / "again.csv"))
    assert code == 0, err
    second = read(tmp_path / "o" / "ranking.csv")
    assert list(second[0]) == list(first[0])
    assert {row["name"] for row in second} == {row["name"] for row in first}


def test_a_cost_of_the_measured_only_is_predicted(run, own, tmp_path):
    labels = own.measured(latency=lambda row: row["depth"] * row["width"] / 100)
    code, text, err = run(
        *("rank", "--labels", labels, "--candidates", own.pool(), "--target", "acc", "--predictor", "gp"),
        *("--cost", "latency", "--cost", "params", "--output", tmp_path / "o", "--report", tmp_path / "r.html"),
    )
    assert code == 0, err
    assert "No candidate has latency: predicted from 30 measured ones" in text
    rows = read(tmp_path / "o" / "ranking.csv")
    pairs = [(float(row["predicted_latency"]), int(row["depth"]) * int(row["width"]) / 100) for row in rows]
    assert all(abs(a - b) < 4 for a, b in pairs)
    assert "Pareto front against latency" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_long_pools_are_read_part_by_part(run, own, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    args = ("rank", "--labels", own.measured(), "--target", "acc", "--predictor", "gp", "--cost", "params")
    pool = own.pool()
    assert run(*args, "--candidates", pool, "--output", tmp_path / "whole")[0] == 0
    monkeypatch.setattr("pyg_nas_np.cli.own_files.LONG_BYTES", 10)
    code, text, err = run(*args, "--candidates", pool, "--output", tmp_path / "parts")
    assert code == 0, err
    assert "66 candidates were read part by part. Quantiles of predicted acc: 1%" in " ".join(text.split())
    whole, parts = (read(tmp_path / name / "ranking.csv") for name in ("whole", "parts"))
    assert [row["name"] for row in parts] == [row["name"] for row in whole]
    assert list(parts[0]) == [*OURS, "name", "depth", "width", "act", "dropout", "params"]
    assert run(*args, "--candidates", pool, "--keep", 12, "--output", tmp_path / "few")[0] == 0
    assert [row["name"] for row in read(tmp_path / "few" / "ranking.csv")] == [row["name"] for row in whole[:12]]


def test_rows_of_a_long_pool_are_those_of_its_file(run, own, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("pyg_nas_np.cli.own_files.RANKED_BYTES", 10)
    pool = own.write("pool.csv", [{k: v for k, v in row.items() if k != "name"} for row in own.rows[30:]])
    args = ("rank", "--labels", own.measured(), "--target", "acc", "--predictor", "gp", "--top-k", 3)
    code, text, err = run(*args, "--candidates", pool, "--output", tmp_path)
    assert code == 0, err
    lines = read(pool)
    shown = [cells[2].strip() for line in text.splitlines() if len(cells := line.split("│")) > 3]
    best = read(tmp_path / "ranking.csv")[:3]
    assert [lines[int(row) - 1] for row in shown[:3]] == [{k: row[k] for k in lines[0]} for row in best]


def test_a_long_pool_is_ranked_by_the_prior_and_may_have_rare_categories(run, own, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("pyg_nas_np.cli.own_files.RANKED_BYTES", 10)
    monkeypatch.setattr("pyg_nas_np.cli.own_files.SPREAD", 5)
    rows = [{**row} for row in own.rows[30:]]
    rows[1]["act"], rows[3]["width"] = "mish", 1e5
    pool = own.write("pool.csv", rows)
    code, _, err = run("rank", "--labels", own.measured(), "--candidates", pool, "--target", "acc", "--predictor", "gp")
    assert code == 0, err
    code, text, err = run("rank", "--candidates", pool, "--ignore", "name", "--cost", "params")
    assert code == 0, err
    assert "ranked by what larger params" in " ".join(text.split())


BAD = [
    ("--target", "ac", "there is no column 'ac' of labels; did you mean 'act' or 'acc'?"),
    ("--ignore", "rum", "there is no column 'rum' to ignore; did you mean 'run'"),
    ("--cost", "param", "there is no column 'param' of costs; did you mean 'params'"),
]


@pytest.mark.parametrize(("option", "value", "message"), BAD)
def test_unknown_columns_are_named_with_what_is_meant(run, own, option, value, message):
    given = {"--target": "acc", option: value}
    args = [word for pair in given.items() for word in pair]
    code, _, err = run("rank", "--labels", own.measured(), "--candidates", own.pool(), *args)
    assert (code, message in " ".join(err.split())) == (2, True), err


def bad(own, change, *, pool=False):
    rows = [{**row} for row in (own.rows[30:] if pool else own.labelled(30))]
    change(rows)
    return own.write("pool.csv" if pool else "measured.csv", rows)


def drop(name):
    return lambda rows: [row.pop(name) for row in rows]


def rename(old, new):
    return lambda rows: [row.update({new: row.pop(old)}) for row in rows]


def fill(name, value):
    return lambda rows: [row.update({name: value}) for row in rows]


def first(name, value):
    return lambda rows: rows[0].update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("acc"), "there is no column 'acc' of labels"),
        (fill("acc", 3), "at least two different ones are needed"),
        (first("acc", "good"), "column 'acc': 'good' is not a finite number"),
        (first("acc", "inf"), "is not a finite number"),
        (
            lambda rows: [row.clear() or row.update({"depth": 2, "acc": i}) for i, row in enumerate(rows)],
            "no column var",
        ),
    ],
)
def test_bad_labels_are_refused_in_one_line(run, own, tmp_path, change, message):
    code, _, err = run("rank", "--labels", bad(own, change), "--target", "acc", "--output", tmp_path / "o")
    assert (code, message in " ".join(err.split()), "Traceback" in err) == (2, True, False), err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("width"), "the candidates have no column 'width'; leave out what is no parameter: --ignore width"),
        (rename("dropout", "drop_out"), "have no column 'dropout'; 'dropout' may be their 'drop_out'"),
        (fill("depth", "deep"), "column 'depth' has 2 where there are labels and 'deep' in the candidates"),
    ],
)
def test_candidates_that_do_not_fit_are_refused_in_one_line(run, own, tmp_path, change, message):
    pool, labels = bad(own, change, pool=True), own.write("m.csv", sorted(own.labelled(30), key=lambda r: r["depth"]))
    args = ("rank", "--labels", labels, "--candidates", pool, "--target", "acc", "--output", tmp_path / "o")
    code, _, err = run(*args)
    assert (code, message in " ".join(err.split()), "Traceback" in err) == (2, True, False), err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (first("act", "silu"), "'act' is 'silu' in 1 row, which no label has"),
        (lambda rows: [row.update(width=row["width"] * 1e6) for row in rows], "is it in another unit?"),
    ],
)
def test_what_looks_odd_in_candidates_is_told(run, own, change, message):
    pool = bad(own, change, pool=True)
    code, text, err = run(
        "rank", "--labels", own.measured(), "--candidates", pool, "--target", "acc", "--predictor", "gp"
    )
    assert code == 0, err
    assert message in " ".join(text.split())


def test_mixed_types_are_told(run, own):
    labels = bad(own, lambda rows: [row.update(width="wide") for row in rows[:3]])
    args = ("rank", "--labels", labels, "--candidates", own.pool(), "--target", "acc", "--predictor", "gp")
    code, _, err = run(*args)
    # Text among the labelled and numbers among the candidates: no guess is made.
    assert (code, "Traceback" in err, "'width'" in err) == (2, False, True), err
    code, text, err = run(*args[:3], "--target", "acc", "--predictor", "gp", "--sample", 10)
    assert code == 0, err
    assert "column 'width' has numbers and text ('wide')" in " ".join(text.split())


def test_the_label_must_be_named_where_several_can_be(run, own):
    code, _, err = run("rank", "--labels", own.measured(), "--candidates", own.pool())
    assert (code, "name one as target" in " ".join(err.split())) == (2, True), err


def test_few_labels_rank_without_a_test(run, own):
    args = ("--target", "acc", "--ignore", "run")
    code, text, err = run("rank", "--labels", own.measured(3), "--candidates", own.pool(), *args)
    assert code == 0, err
    assert "too few to tell how good the ranking is" in text


def test_predictors_of_cells_say_what_they_need(run, own):
    args = ("rank", "--labels", own.measured(), "--candidates", own.pool(), "--target", "acc", "--predictor", "wl")
    code, _, err = run(*args)
    assert (code, "gives no cells" in " ".join(err.split())) == (2, True), err


def test_rows_outside_a_declared_space_are_named(run, own):
    labels = bad(own, first("depth", 80))
    args = ("rank", "--labels", labels, "--space", own.space(), "--target", "acc")
    code, _, err = run(*args)
    assert (code, "measured row 1: depth: 80 is not between 2 and 8" in " ".join(err.split())) == (2, True), err
    labels = bad(own, rename("depth", "dpth"))
    code, _, err = run(*args)
    assert (code, "no column 'depth', which own declares; did you mean 'dpth'" in " ".join(err.split())) == (2, True)


def test_held_out_predictions_and_scores_belong_together(own):
    task = read_own_task(own.measured(), own.pool(), target="acc")
    ranking = rank_own(task, task.pool, ["gp", "ridge"], 0)
    assert isinstance(ranking.tested, HeldOut)
    assert ranking.tested.mean.shape == (30,)
    assert ranking.scores["gp"].kendall_tau > 0.7
    assert ranking.chance.shape == (66,)
    assert bool((ranking.std > 0).all())
    assert torch.equal(ranking.order, ranking.mean.argsort(descending=True, stable=True))


def test_costs_that_are_partly_empty_are_learned_from_the_rest(own):
    labels = own.measured(latency=lambda row: row["depth"] if row["width"] > 64 else None)
    task = read_own_task(labels, own.pool(), target="acc", costs=["latency"])
    fitted = learned_costs(task, PREDICTORS["gp"])
    assert fitted["latency"].labels_.numel() == sum(row["width"] > 64 for row in own.rows[:30])


def test_without_labels_sizes_and_scores_rank(run, own, tmp_path):
    out, pool = tmp_path / "out", own.pool()
    args = ("--cost", "params", "--score", "-dropout", "--ignore", "name", "--output", out, "--report", out / "r.html")
    code, text, err = run("rank", "--candidates", pool, *args, "--top-k", 2)
    assert code == 0, err
    assert text.startswith("66 candidates in pool.csv\n")
    assert "No label is known: ranked by what larger params, -dropout promise, in standard scores" in text
    assert "standard score of label" in text.replace("\n", " ")
    assert "that was measured" not in text
    rows = read(out / "ranking.csv")
    assert len(rows) == 66
    assert float(rows[0]["dropout"]) < float(rows[-1]["dropout"])
    assert int(rows[0]["params"]) > int(rows[-1]["params"])
    assert abs(sum(float(row["predicted"]) for row in rows)) < 10
    page = (out / "r.html").read_text(encoding="utf-8")
    assert "none: ranked by the prior, in standard scores" in page
    assert "No label is known. The prior ranks" in page
    assert (out / "ranking.png").exists()


def test_a_file_without_any_label_is_ranked_by_the_prior(run, own, tmp_path):
    rows = [{**row, "loss": None} for row in own.rows]
    args = ("--labels", own.write("none.csv", rows), "--target", "loss", "--minimize", "--cost", "params")
    code, text, err = run("rank", *args, "--output", tmp_path / "o")
    assert code == 0, err
    assert "none.csv: 0 labels (loss, the smallest is best); 96 rows without a label" in text
    assert "promise, the other way round because smaller labels are better" in text.replace("\n", " ")
    ranking = read(tmp_path / "o" / "ranking.csv")
    assert float(ranking[0]["predicted"]) < 0 < float(ranking[-1]["predicted"])
    assert int(ranking[0]["params"]) == max(row["params"] for row in own.rows)


def test_where_nothing_is_known_all_are_alike(run, own):
    code, text, err = run("rank", "--space", own.space(), "--sample", 20)
    assert code == 0, err
    assert "all candidates are alike. Name columns by --cost or --score" in text.replace("\n", " ")


def test_predictors_that_need_labels_say_so(run, own):
    code, _, err = run("rank", "--candidates", own.pool(), "--predictor", "gp")
    assert code == 2
    assert "'gp' needs labels; without any take convnp or bank" in " ".join(err.replace("│", " ").split())
    code, _, err = run("rank", "--context", 0, "--predictor", "ridge")
    assert code != 0


def test_scores_join_the_labels(run, own, tmp_path):
    labels = own.measured(swap=lambda row: own.label(row) ** 3)
    pool = own.write("pool.csv", [{**row, "swap": own.label(row) ** 3} for row in own.rows[30:]])
    code, text, err = run(
        *("rank", "--labels", labels, "--candidates", pool, "--target", "acc", "--ignore", "params", "--ignore", "run"),
        *("--score", "swap", "--output", tmp_path / "o"),
    )
    assert code == 0, err
    assert "swap was left out: it is a score" in text
    ranking = read(tmp_path / "o" / "ranking.csv")
    best = max(own.label(row) for row in own.rows[30:])
    assert float(ranking[0]["swap"]) > 0.97 * best**3
