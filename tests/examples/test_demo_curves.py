"""The demo of searches within a budget, with short trainings."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "demo_curves.py"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo_curves", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_runs(demo, tmp_path, capsys):
    full, journal = demo.main(["--budget", "3", "--levels", "1", "3", "--output", str(tmp_path)])
    assert 0.0 < full <= 1.0
    assert journal.search.spent <= 3.0 + 1e-9
    assert {training.level for training in journal.trainings} == {1.0, 3.0}
    assert "<svg" in (tmp_path / "report.html").read_text()
    out = capsys.readouterr().out
    assert "full trainings:  1 of 3" in out
    assert "best accuracy" in out


def test_a_training_that_pauses_is_the_same(demo):
    arch, data = demo.SPACE.sample(1, demo.seeded(3))[0], demo.digits(0)
    paused = demo.Run(arch, data, 5)
    paused.to(1)
    assert paused.to(3) == pytest.approx(demo.Run(arch, data, 5).to(3), abs=0.01)
