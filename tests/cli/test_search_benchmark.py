"""Searches on benchmarks; the command is tried in test_search.py."""

from __future__ import annotations

import csv

import torch

from pyg_nas_np import NASBench201
from pyg_nas_np.cli.search_benchmark import print_trace, propose, write_trace
from pyg_nas_np.search import RandomSearch, simulate


def test_measurements_are_told_once(toy_space, tmp_path):
    search = RandomSearch(toy_space)
    path = tmp_path / "m.csv"
    path.write_text("arch,label\nconv pool 5,93.5\nconv conv 0,-1\n")
    for _ in range(2):
        propose(search, path, 3, tmp_path / "next.csv")
    assert search.y.tolist() == [93.5, -1.0]
    with open(tmp_path / "next.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert all(toy_space.is_valid(toy_space.from_str(row["arch"])) for row in rows)


def test_a_trace_has_every_measurement(labelled_root, tmp_path, capsys):
    data = NASBench201(str(labelled_root), source="compact-table")
    search = RandomSearch(data.space, candidates=data.arch_index)
    trace = simulate(search, data, 6, batch=2)
    print_trace(data, search, trace)
    assert "best so far" in capsys.readouterr().out
    write_trace(tmp_path / "t.csv", data.space, trace, data)
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == trace.indices.tolist()
    assert len({row["arch"] for row in rows}) == 6
    assert torch.tensor([float(row["best"]) for row in rows]).diff().min() >= 0
