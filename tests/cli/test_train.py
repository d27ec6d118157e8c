from __future__ import annotations

import sys

import pytest
from safetensors.torch import load_file

from pyg_nas_np.cli import main
from pyg_nas_np.cli import train as module
from pyg_nas_np.convnp.weights import read_card, read_weights


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*args) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pyg-nas-np", "train", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, " ".join(out.err.replace("│", " ").split())

    return call


def test_trains_writes_and_prints_the_card(run, tmp_path, monkeypatch, toy_space):
    monkeypatch.setitem(module.SPACES, "toy", type(toy_space))
    weights = tmp_path / "new" / "toy.safetensors"
    options = ("--num-tasks", 8, "--max-steps", 2, "--seed", 5, "--root", tmp_path / "run")
    code, out, _ = run("toy", "--output", weights, *options)
    assert code == 0
    card = read_card(weights)
    assert (card["space"], card["seed"], card["steps"], card["tables"]) == ("toy", 5, 2, "none")
    for key, value in card.items():
        assert key in out
        assert str(value) in out
    read_weights(weights, toy_space)
    # Training goes on from what the folder holds.
    longer = tmp_path / "longer.safetensors"
    options = ("--num-tasks", 8, "--max-steps", 4, "--seed", 5, "--root", tmp_path / "run")
    assert run("toy", "--output", longer, *options)[0] == 0
    assert read_card(longer)["steps"] == 4


def test_seed_decides_the_weights(run, tmp_path, monkeypatch, toy_space):
    monkeypatch.setitem(module.SPACES, "toy", type(toy_space))
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        path = tmp_path / f"{name}.safetensors"
        assert run("toy", "--output", path, "--num-tasks", 8, "--max-steps", 1, "--seed", seed)[0] == 0
        found.append(load_file(path))
    assert all(found[0][key].equal(found[1][key]) for key in found[0])
    assert not all(found[0][key].equal(found[2][key]) for key in found[0])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nasbench301", "--output", "w.safetensors"], "'nasbench301' is none of nasbench201"),
        (["nasbench201", "--output", "w.pt"], "'w.pt' must end in .safetensors"),
        (["nasbench201", "--output", "w.safetensors", "--max-minutes", "0"], "0 is not positive"),
        (["nasbench201", "--output", "w.safetensors", "--max-steps", "0"], "--max-steps"),
        (["nasbench201"], "--output"),
    ],
)
def test_wrong_arguments_end_with_a_message(run, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*args)
    assert code == 2
    assert message in err
    assert not list(tmp_path.iterdir())
