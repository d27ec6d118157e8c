"""The demo of own files, with few networks."""

from __future__ import annotations

import csv
import importlib.util
import random
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "demo_own_files.py"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo_own_files", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_writes_what_was_trained_and_what_was_not(demo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "EPOCHS", 1)
    demo.main(["--output", str(tmp_path), "--trained", "6", "--candidates", "9"])
    with open(tmp_path / "measured.csv", newline="") as file:
        measured = list(csv.DictReader(file))
    with open(tmp_path / "candidates.csv", newline="") as file:
        candidates = list(csv.DictReader(file))
    assert (len(measured), len(candidates)) == (6, 9)
    assert all(0 <= float(row["accuracy"]) <= 100 for row in measured)
    assert all((row["momentum"] == "") == (row["optimizer"] == "adam") for row in measured + candidates)
    (tmp_path / "ranking.csv").write_bytes((tmp_path / "candidates.csv").read_bytes())
    demo.main(["--output", str(tmp_path), "--check"])
    assert "of the five ranked first" in capsys.readouterr().out


def test_a_configuration_is_read_as_it_was_written(demo, tmp_path):
    rng = random.Random(1)
    configs = [demo.draw(rng) for _ in range(20)]
    demo.write(tmp_path / "r.csv", configs)
    assert demo.read(tmp_path / "r.csv") == configs


def test_parameters_are_those_of_the_network(demo):
    config = demo.draw(random.Random(2))
    assert demo.parameters(config) == sum(parameter.numel() for parameter in demo.network(config).parameters())
