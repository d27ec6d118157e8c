"""Runs the command line inside the test process."""

from __future__ import annotations

import itertools
import json
import sys

import pytest
import torch
from sklearn.ensemble import ExtraTreesRegressor

from pyg_nas_np.cli import main
from pyg_nas_np.predictors import attribution


@pytest.fixture(scope="module", autouse=True)
def few_trees():
    """Pages tell what predictions follow; how well is tested with the predictors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attribution, "ExtraTreesRegressor", lambda _, **options: ExtraTreesRegressor(10, **options))
        yield


@pytest.fixture
def run(invoke):
    return invoke


@pytest.fixture
def invoke(monkeypatch, capsys):
    def call(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pyg-nas-np", *map(str, args)])
        # Typer ends a successful command with status 0.
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return call


class OwnFiles:
    """Tables of a made-up space, whose labels rise with depth and width and fall with dropout."""

    def __init__(self, folder):
        self.folder = folder
        generator = torch.Generator().manual_seed(0)
        grid = list(itertools.product((2, 4, 6, 8), (64, 128, 256), ("relu", "gelu"), (0.0, 0.1, 0.2, 0.3)))
        order = torch.randperm(len(grid), generator=generator).tolist()
        self.rows = [dict(zip(("depth", "width", "act", "dropout"), grid[i], strict=True)) for i in order]
        for row in self.rows:
            row["params"] = row["depth"] * row["width"] ** 2

    @staticmethod
    def label(row):
        return 70 + row["depth"] + 2 * (row["act"] == "gelu") + row["width"] / 64 - 10 * row["dropout"]

    def labelled(self, count=30, **more):
        return [
            {"run": f"r{i}", **row, "acc": self.label(row), **{name: make(row) for name, make in more.items()}}
            for i, row in enumerate(self.rows[:count])
        ]

    def write(self, name, rows):
        path = self.folder / name
        names = list(dict.fromkeys(key for row in rows for key in row))
        lines = [",".join("" if row.get(key) is None else str(row[key]) for key in names) for row in rows]
        path.write_text("\n".join([",".join(names), *lines]) + "\n")
        return path

    def measured(self, count=30, **more):
        return self.write("measured.csv", self.labelled(count, **more))

    def pool(self, start=30):
        return self.write("pool.csv", [{"name": f"c{i}", **row} for i, row in enumerate(self.rows[start:])])

    def space(self):
        path = self.folder / "space.json"
        parameters = {
            "depth": {"low": 2, "high": 8, "step": 2},
            "width": [64, 128, 256],
            "act": ["relu", "gelu"],
            "dropout": {"low": 0.0, "high": 0.3},
        }
        path.write_text(json.dumps({"name": "own", "parameters": parameters}))
        return path


@pytest.fixture
def own(tmp_path):
    return OwnFiles(tmp_path)
