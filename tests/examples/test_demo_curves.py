"""The demo of the pruner, with few networks."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("optuna")
pytest.importorskip("matplotlib")
SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "demo_curves.py"


def test_it_runs(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("demo_curves", SCRIPT)
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    settings = ["--trials", "9", "--epochs", "4", "--burn-in", "5", "--delta", "0.5"]
    plain, pruned = demo.main([*settings, "--output", str(tmp_path / "demo.png")])
    assert plain.epochs == 36
    assert pruned.epochs < 36
    # The networks are the same in both.
    assert [t.params for t in plain.study.trials] == [t.params for t in pruned.study.trials]
    assert plain.study.trials[0].intermediate_values == pruned.study.trials[0].intermediate_values
    assert (tmp_path / "demo.png").stat().st_size > 5000
    assert "saved: " in capsys.readouterr().out
