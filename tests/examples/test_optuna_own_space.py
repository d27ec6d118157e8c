"""The example of a study without a declared space."""

from __future__ import annotations

from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_two_processes_search_one_space(tmp_path, capsys, monkeypatch, processes):
    # Its processes import it.
    monkeypatch.syspath_prepend(EXAMPLES)
    import optuna_own_space as example

    monkeypatch.setattr(example.multiprocessing, "get_context", lambda _: processes)
    journal = tmp_path / "study.log"
    example.main(["--trials", "14", "--journal", str(journal)])
    assert "14 trials, 14 of them distinct" in capsys.readouterr().out
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name=None, storage=storage)
    assert all(("expand" in t.params) == (t.params["block"] == "mbconv") for t in study.trials)
