from __future__ import annotations

import csv
import sys

import numpy as np
import pytest
import torch

from pyg_nas_np.cli import main
from pyg_nas_np.networks.zero_cost import SCORES
from pyg_nas_np.spaces import NASBench101Space, NASBench201Space

SPACE = NASBench201Space()
FAST = ("--repeats", 1, "--batch", 4, "--size", 8)


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*args) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pyg-nas-np", "score", *map(str, args)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out = capsys.readouterr()
        return code, out.out, " ".join(out.err.replace("│", " ").split())

    return call


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_strings_indices_files_and_random_draws_are_scored(run, tmp_path):
    (tmp_path / "archs.csv").write_text(f"arch,label\n{SPACE[7]},1\n11,2\n")
    output = tmp_path / "scores.csv"
    code, out, _ = run(SPACE[3], 7, "--file", tmp_path / "archs.csv", "--random", 2, "--output", output, *FAST)
    assert code == 0
    assert "5 architectures of nasbench201 by synflow" in out
    rows = read(output)
    assert list(rows[0]) == [*SCORES, "arch"]
    drawn = SPACE.sample(2, torch.Generator().manual_seed(0))
    assert {row["arch"] for row in rows} == {str(SPACE[i]) for i in (3, 7, 11)} | set(map(str, drawn))
    flow = [float(row["synflow"]) for row in rows]
    assert flow == sorted(flow, reverse=True)
    for row in rows:
        assert row["arch"] in "".join(out.split())
        assert float(row["params"]) == SPACE.num_parameters(SPACE.from_str(row["arch"]))


def test_the_last_score_orders_and_the_seed_decides(run, tmp_path):
    tables = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        output = tmp_path / f"{name}.csv"
        options = ("--score", "naswot", "--score", "params", "--seed", seed, "--output", output)
        assert run(6111, 11, 0, *options, *FAST)[0] == 0
        tables.append(read(output))
    assert tables[0] == tables[1] != tables[2]
    assert [row["arch"] for row in tables[0]] == [str(SPACE[i]) for i in (6111, 11, 0)]
    assert list(tables[0][0]) == ["naswot", "params", "arch"]


def test_images_of_a_file_are_seen(run, tmp_path):
    images = tmp_path / "images.npz"
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 11), dtype=np.uint8)
    np.savez(images, x_train=pixels, y_train=np.arange(6) % 2)
    outputs = []
    for options in ((), ("--images", images)):
        output = tmp_path / f"{len(options)}.csv"
        assert run(11, "--score", "naswot", *options, "--output", output, *FAST)[0] == 0
        outputs.append(float(read(output)[0]["naswot"]))
    assert outputs[0] != outputs[1]
    code, _, err = run(11, "--images", images, "--batch", 7)
    assert (code, "has 6 images, fewer than --batch 7" in err) == (2, True)


def test_cells_of_nasbench101(run):
    code, out, _ = run("2:1:", "--space", "nasbench101", "--score", "params", "--score", "swap", *FAST)
    assert code == 0
    assert f"{NASBench101Space().num_parameters(NASBench101Space().from_str('2:1:')):,}" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "name architectures, a --file of them, or how many at --random"),
        (("0", "--space", "mobilenetv3"), "'mobilenetv3' is none of nasbench201, nasbench101"),
        (("0", "--score", "zen"), "'zen' is none of params"),
        (("|none~0|",), "is not of the form"),
        (("0", "--images", "nowhere"), "nowhere is neither a folder nor an .npz file"),
        (("99999999",), "there is no architecture 99999999 in nasbench201"),
        (("9" * 5000,), "there is no architecture 99999999999999999999…"),
        (("²",), "is not of the form"),
        (("0", "--seed", 2**64), "--seed"),
        (("0", "--seed", "-1"), "--seed"),
        (("0", "--batch", 10**8), "--batch"),
        (("0", "--batch", 65536, "--size", 4096), "take fewer or smaller ones"),
        (("0", "--swap-mean", "nan"), "--swap-mean"),
        (("0", "--swap-mean", "inf"), "--swap-mean"),
        (("0", "--output", "/proc/none/scores.csv"), "cannot be written"),
        (("0", "--output", "."), "is not a file"),
        (("--random", 10**9), "--random"),
    ],
)
def test_wrong_arguments_end_with_a_message(run, args, message):
    code, _, err = run(*args)
    assert code == 2
    assert message in err


def test_wrong_files_are_named(run, tmp_path):
    path = tmp_path / "archs.csv"
    for text, message in (
        ("cell\nx\n", "has no column 'arch'"),
        ("arch\n1\nx\n", "line 3: 'x' is not of the form"),
        ("arch\n99999\n", "line 2: there is no architecture 99999"),
    ):
        path.write_text(text)
        code, _, err = run("--file", path)
        assert code == 2
        assert message in err


@pytest.mark.parametrize("score", SCORES)
def test_every_score_alone(run, score):
    assert run("0", "11", "--score", score, *FAST)[0] == 0


def test_brackets_in_names_are_no_markup(run, tmp_path):
    path = tmp_path / "[/x]" / "[red].csv"
    code, out, _ = run("0", "--score", "params", "--output", path, *FAST)
    assert code == 0
    assert "[/x]" in "".join(out.split())
    assert read(path)[0]["arch"] == str(SPACE[0])
