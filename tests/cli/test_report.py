from __future__ import annotations

import re
import sys
from html.parser import HTMLParser

import pytest
import torch

from pyg_nas_np import NASBench201
from pyg_nas_np.cli import main
from pyg_nas_np.cli.ranking import HeldOut, Ranking
from pyg_nas_np.cli.report import DRAWN_CELLS, FRONT_ROWS, write_report
from pyg_nas_np.predictors import Architectures, RidgePredictor
from pyg_nas_np.predictors.evaluation import evaluate

VOID = {"meta", "wbr"}


class Page(HTMLParser):
    """Collects headings, table rows and attributes; every tag must be closed in order."""

    def __init__(self, path):
        super().__init__()
        self.open, self.headings, self.tables, self.attributes, self.text = [], [], [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append(-1)
        if tag == "tr":
            self.tables[-1] += 1

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def assert_self_contained(page):
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img", page.source)
    assert not [name for name, _ in page.attributes if name in ("src", "href", "xlink:href") or name.startswith("on")]
    assert "default-src 'none'" in page.source
    # A number that could not be computed would be drawn nowhere.
    assert not re.search(r"\bnan\b|\binf\b", page.source, re.IGNORECASE)


@pytest.fixture(scope="module")
def ranking(labelled_root):
    data = NASBench201(str(labelled_root), source="compact-table")
    parts = data.split(40, by="index", seed=0)
    ridge = RidgePredictor()
    scores, mean, std = evaluate(ridge, data, parts)
    label = "accuracy <percent>"
    tested = HeldOut(*(values[parts.test] for values in (mean, std, data.y)), "the others")
    archs, costs = Architectures(data.space, data.arch_index), {"parameters": data.space.batch_num_parameters()}
    return Ranking(archs, ridge, "ridge", mean, std, data.y, parts.train, label, tested, {"ridge": scores}, costs)


@pytest.fixture(scope="module")
def path(ranking, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "out" / "report.html"
    write_report(path, ranking, "A <b>title</b>", {"Source": "<i>table</i>"}, top_k=7)
    return path


def test_page_shows_everything(ranking, path):
    page = Page(path)
    assert_self_contained(page)
    assert page.headings == [
        "Scores",
        "Best 7 of 15,625 architectures",
        "Top cells",
        "Predicted and measured",
        "What the predictions follow",
        "Pareto front against parameters",
    ]
    # Scores, ranking, groups, single features, front.
    assert page.tables[:2] == [1, 7]
    assert page.tables[2] == 8
    assert page.tables[3] == 12
    assert 1 <= page.tables[4] <= FRONT_ROWS
    assert "<b>" not in page.source
    assert "<i>" not in page.source
    assert "accuracy &lt;percent&gt;" in page.source
    assert sum(1 for text in page.text if text.startswith("Rank ")) == DRAWN_CELLS
    best = int(ranking.mean.argmax())
    assert f"{float(ranking.mean[best]):.3f} ± {float(ranking.std[best]):.3f}" in page.source
    assert f"{ranking.scores['ridge'].kendall_tau:.3f}" in page.text
    assert path.stat().st_size < 300_000
    assert list(path.parent.iterdir()) == [path]


def test_front_is_that_of_predictions(ranking, path):
    """No other cell with at most as many parameters is predicted to be better than a row of the front."""
    section = path.read_text(encoding="utf-8").split("Pareto front")[1]
    cost = ranking.archs.space.batch_num_parameters()
    rows = re.findall(r"<tr><td>([\d,]+)</td><td>([-\d.]+) ±", section)
    assert len(rows) >= 2
    for parameters, mean in rows:
        affordable = cost <= int(parameters.replace(",", ""))
        assert float(ranking.mean[affordable].max()) == pytest.approx(float(mean), abs=6e-4)
    assert len({parameters for parameters, _ in rows}) == len(rows)


def test_page_is_reproducible(ranking, path, tmp_path):
    write_report(tmp_path / "again.html", ranking, "A <b>title</b>", {"Source": "<i>table</i>"}, top_k=7)
    assert (tmp_path / "again.html").read_bytes() == path.read_bytes()


def test_labels_without_scale_still_give_a_page(ranking, tmp_path):
    archs, seen = ranking.archs, torch.arange(5)
    ridge = RidgePredictor().fit(archs[seen], torch.ones(5))
    mean, std = ridge.predict(archs, return_std=True)
    y = torch.full((len(archs),), float("nan"))
    y[seen] = 1.0
    costs = ranking.costs
    write_report(tmp_path / "r.html", Ranking(archs, ridge, "ridge", mean, std, y, seen, "label", costs=costs), "t", {})
    assert_self_contained(Page(tmp_path / "r.html"))


def test_rank_writes_the_page(labelled_root, tmp_path, monkeypatch, capsys):
    space = NASBench201(str(labelled_root)).space
    own = tmp_path / "own & mine.csv"
    own.write_text("arch,label\n" + "".join(f"{space[i]},{50 + i}\n" for i in range(12)))
    common = ["pyg-nas-np", "rank", "--root", str(labelled_root), "--predictor", "ridge", "--top-k", "4"]
    for name, options in (("all.html", ["--context", "30"]), ("own.html", ["--labels", str(own)])):
        monkeypatch.setattr(sys, "argv", [*common, "--report", str(tmp_path / name), *options])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        assert "Wrote" in capsys.readouterr().out
        assert_self_contained(Page(tmp_path / name))
    page = Page(tmp_path / "own.html")
    assert "Scores" not in page.headings
    assert "own & mine.csv" in page.text
    assert any("nothing is left to test it on" in text for text in page.text)
