from __future__ import annotations

import csv
import json
import sys
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from pyg_nas_np.cli import main
from pyg_nas_np.cli import train as module
from pyg_nas_np.convnp.cell_bank import bank_moments
from pyg_nas_np.convnp.weights import read_card, read_weights
from pyg_nas_np.metad2a import FeatureSets, MetaD2ADatabase
from pyg_nas_np.metad2a.generator_weights import read_generator
from pyg_nas_np.metad2a.mobilenetv3.predictor import SubNetworkModel
from pyg_nas_np.metad2a.predictor_weights import read_performance_model
from pyg_nas_np.spaces import MobileNetV3Space, space_by_name


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*args) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pyg-nas-np", "train", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, " ".join(out.err.replace("│", " ").split())

    return call


@pytest.fixture(autouse=True)
def small_banks(monkeypatch):
    """The base predictors are most of the time of these tests."""
    moments = partial(bank_moments, max_iter=5, num_trees=10)
    monkeypatch.setattr("pyg_nas_np.convnp.training.bank_moments", moments)


def test_trains_writes_and_prints_the_card(run, tmp_path, monkeypatch, toy_space):
    monkeypatch.setitem(module.SPACES, "toy", type(toy_space))
    weights = tmp_path / "new" / "toy.safetensors"
    options = ("--num-tasks", 8, "--max-steps", 2, "--seed", 5, "--root", tmp_path / "run")
    code, out, err = run("process", "toy", "--output", weights, *options)
    assert code == 0
    card = read_card(weights)
    assert (card["space"], card["seed"], card["steps"], card["tables"]) == ("toy", 5, 2, "none")
    for key, value in card.items():
        assert key in out
        assert str(value) in out
    read_weights(weights, toy_space)
    # Training goes on from what the folder holds.
    longer = tmp_path / "longer.safetensors"
    options = ("--num-tasks", 8, "--max-steps", 4, "--seed", 5, "--root", tmp_path / "run", "--accelerator", "cpu")
    code, _, err = run("process", "toy", "--output", longer, *options)
    assert code == 0, err
    assert read_card(longer)["steps"] == 4


def test_seed_decides_the_weights(run, tmp_path, monkeypatch, toy_space):
    monkeypatch.setitem(module.SPACES, "toy", type(toy_space))
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        path = tmp_path / f"{name}.safetensors"
        assert run("process", "toy", "--output", path, "--num-tasks", 8, "--max-steps", 1, "--seed", seed)[0] == 0
        found.append(load_file(path))
    assert all(found[0][key].equal(found[1][key]) for key in found[0])
    assert not all(found[0][key].equal(found[2][key]) for key in found[0])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["process", "nasbench301", "--output", "w.safetensors"], "'nasbench301' is none of nasbench201"),
        (["process", "nasbench201", "--output", "w.pt"], "'w.pt' must end in .safetensors"),
        (["process", "nasbench201", "--output", "w.safetensors", "--max-minutes", "0"], "0 is not positive"),
        (["process", "nasbench201", "--output", "w.safetensors", "--max-steps", "0"], "--max-steps"),
        (["process", "nasbench201", "--output", "w.safetensors", "--max-minutes", "inf"], "--max-minutes"),
        (["process", "nasbench201", "--output", "w.safetensors", "--max-minutes", "nan"], "--max-minutes"),
        (["process", "nasbench201", "--output", "w.safetensors", "--seed", str(2**64)], "--seed"),
        (["process", "nasbench201", "--output", "w.safetensors", "--seed", "-1"], "--seed"),
        (["process", "nasbench201", "--output", "w.safetensors", "--devices", "2000"], "--devices"),
        (["process", "nasbench201", "--output", "w.safetensors", "--workers", "2000"], "--workers"),
        (["process", "nasbench201", "--output", "w.safetensors", "--accelerator", "tpu"], "is none of auto, cpu, cuda"),
        (["process", "nasbench201", "--output", "/proc/none/w.safetensors"], "cannot be written"),
        (["process", "nasbench201", "--output", "w.safetensors", "--root", "/proc/none"], "cannot be written"),
        (["process", "nasbench201"], "--output"),
        (["metad2a-generator", "nowhere", "--output", "w.safetensors"], "nowhere"),
        (["metad2a-generator", "/tmp", "--output", "w.safetensors", "--space", "nasbench101"], "is none of"),
        (["metad2a-predictor", "/tmp", "--output", "w.pt"], "must end in .safetensors"),
    ],
)
def test_wrong_arguments_end_with_a_message(run, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*args)
    assert code == 2
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def database(tmp_path):
    """Data sets of three classes, 40 tuples."""
    space, draw = space_by_name("nasbench201"), torch.Generator().manual_seed(0)
    classes = torch.stack([torch.randperm(15, generator=draw)[:3] for _ in range(20)])
    data = MetaD2ADatabase(
        space,
        FeatureSets.from_datasets([torch.randn(15, 16, generator=draw).split(1)]),
        classes.flatten(),
        torch.arange(21) * 3,
        torch.arange(40) % 20,
        torch.randint(len(space), (40,), generator=draw),
        50 + 10 * torch.rand(40, generator=draw, dtype=torch.float64),
        torch.zeros(40, dtype=torch.bool),
    )
    data.save(tmp_path / "[red]db")
    return tmp_path / "[red]db"


@pytest.fixture
def table(tmp_path):
    """Measured sub-networks in the form of DyNAS-T."""
    space = MobileNetV3Space((224,))
    archs = space.sample(60, torch.Generator().manual_seed(0))
    costs = zip(space.batch_num_parameters(archs).tolist(), space.batch_flops(archs).tolist(), strict=True)
    with open(tmp_path / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch_json", "params", "macs", "top1_mean", "n_meas", "top1_min", "top1_max"])
        for arch, (params, macs) in zip(archs, costs, strict=True):
            y = 50 + macs / 2e7
            writer.writerow([json.dumps(space.to_dict(arch)), params, macs, y, 1, y, y])
    return tmp_path / "table.csv"


def test_generator_of_a_database(run, tmp_path, database):
    paths = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for path in paths:
        code, out, _ = run("metad2a-generator", database, "--output", path, "--steps", 2)
        assert code == 0
        assert "[red]db" in out  # no markup
    assert read_card(paths[0])["tuples"] == 40
    one, two = (read_generator(path, space_by_name("nasbench201")).state_dict() for path in paths)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_predictor_of_a_database(run, tmp_path, database):
    path = tmp_path / "w.safetensors"
    assert run("metad2a-predictor", database, "--output", path, "--epochs", 1)[0] == 0
    assert read_card(path)["tuples"] == 40
    assert read_performance_model(path, space_by_name("nasbench201")).network.in_channels == 16


def test_predictor_of_a_table(run, tmp_path, table):
    path = tmp_path / "w.safetensors"
    assert run("metad2a-predictor", table, "--output", path)[0] == 0
    assert read_card(path)["sub-networks"] == 60
    assert isinstance(read_performance_model(path, MobileNetV3Space()), SubNetworkModel)


def test_generator_of_a_table(run, tmp_path, table, monkeypatch):
    real = module.train_sub_network_generator
    small = {"rounds": 0, "pool_size": 10, "hidden_channels": 8}
    monkeypatch.setattr(module, "class_vectors", lambda: torch.randn(20, 8))
    monkeypatch.setattr(module, "train_sub_network_generator", lambda *a, **k: real(*a, **small, **k))
    path = tmp_path / "w.safetensors"
    assert run("metad2a-generator", table, "--output", path, "--steps", 2)[0] == 0
    card = read_card(path)
    assert (card["data"], card["steps"], card["sharpness"]) == ("table.csv", 2, 10.0)
    assert read_generator(path, MobileNetV3Space()).in_channels == 8
