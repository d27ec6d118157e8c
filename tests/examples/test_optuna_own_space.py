"""The example of a study without a declared space, as a script, because its processes import it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna")
ROOT = Path(__file__).resolve().parents[2]


def test_two_processes_search_one_space(tmp_path):
    journal = tmp_path / "study.log"
    done = subprocess.run(
        [sys.executable, "examples/optuna_own_space.py", "--trials", "14", "--journal", str(journal)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "14 trials, 14 of them distinct" in done.stdout
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name=None, storage=storage)
    assert all(("expand" in t.params) == (t.params["block"] == "mbconv") for t in study.trials)
