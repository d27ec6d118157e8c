from __future__ import annotations

import csv
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

import pyg_nas_np.cli.generate as command
from pyg_nas_np.cli import app
from pyg_nas_np.metad2a import MetaD2A
from pyg_nas_np.metad2a.database import FeatureSets
from pyg_nas_np.metad2a.generator_weights import shipped_generator
from pyg_nas_np.spaces import space_by_name

runner = CliRunner()


class Fewest:
    """Stands for the meta-predictor: prefers few convolutions."""

    def fit(self, *_):
        return self

    def predict(self, graphs, return_std):
        mean = -graphs.x[:, 4:6].reshape(-1, 16).sum(dim=1)
        return mean, mean.abs() + 1


@pytest.fixture
def images(tmp_path, monkeypatch):
    import torch

    width = shipped_generator(space_by_name("nasbench201")).in_channels

    class Features:
        def __init__(self, **_):
            pass

        def __call__(self, path):
            with np.load(path) as file:
                labels = torch.from_numpy(file["y_train"])
            return FeatureSets.from_datasets([[torch.full((3, width), float(k)) for k in labels.unique()]])

    monkeypatch.setattr(command, "ImageFeatures", Features)
    monkeypatch.setattr(command, "MetaD2A", lambda features, predictor: MetaD2A(features=features, predictor=Fewest()))
    path = tmp_path / "images.npz"
    np.savez(path, x_train=np.zeros((6, 8, 8), np.uint8), y_train=np.arange(6) % 3)
    return path


def test_writes_table_and_drawings(images, tmp_path):
    out = tmp_path / "out"
    options = ["--top-k", "4", "--candidates", "60", "--limit", "parameters=1e6", "--output", str(out)]
    result = runner.invoke(app, ["generate", str(images), *options], catch_exceptions=False)
    assert result.exit_code == 0
    assert "Best 4 of 60 nasbench201 architectures for images.npz" in result.output
    assert "3 classes, 9 images" in result.output
    with open(out / "architectures.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    space = space_by_name("nasbench201")
    for row in rows:
        arch = space.from_str(row["arch"])
        assert int(row["parameters"]) == space.num_parameters(arch) <= 1e6
        assert float(row["predicted"]) == -sum(op.startswith("nor_conv") for op in arch.ops)
    listed = json.loads((out / "architectures.json").read_text())
    assert [a["arch"] for a in listed["architectures"]] == [row["arch"] for row in rows]
    drawings = sorted(out.glob("*.svg"))
    assert [path.name for path in drawings] == [f"architecture-0{i}.svg" for i in range(1, 5)]
    root = ElementTree.fromstring(drawings[0].read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall("{http://www.w3.org/2000/svg}rect")) == 8


def test_drawings_need_no_variables(images, tmp_path):
    """Outside of browsers, few programs know CSS variables or hues."""
    options = ["--top-k", "1", "--candidates", "5", "--output", str(tmp_path)]
    assert runner.invoke(app, ["generate", str(images), *options], catch_exceptions=False).exit_code == 0
    text = (tmp_path / "architecture-01.svg").read_text()
    assert "var(" not in text
    assert "hsl(" not in text
    assert len(re.findall(r"fill:#[0-9a-f]{6}\"", text)) == 6


def test_mobilenetv3(images, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "MetaD2A", MetaD2A)
    out = tmp_path / "out"
    options = ["--space", "mobilenetv3", "--top-k", "3", "--candidates", "40", "--limit", "flops=2.5e8"]
    result = runner.invoke(app, ["generate", str(images), *options, "--output", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "Best 3 of 40 mobilenetv3 architectures for images.npz" in result.output
    assert "the images do not change the order" in " ".join(result.output.split())
    space = space_by_name("mobilenetv3")
    listed = json.loads((out / "architectures.json").read_text())["architectures"]
    predicted = [row["predicted"] for row in listed]
    assert predicted == sorted(predicted, reverse=True)
    for rank, row in enumerate(listed, start=1):
        arch = space.from_str(row["arch"])
        assert row["flops"] == space.flops(arch) <= 2.5e8
        root = ElementTree.fromstring((out / f"architecture-{rank:02d}.svg").read_text())
        assert len(root.findall("{http://www.w3.org/2000/svg}rect")) == 2 + sum(arch.depths)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--space", "nasbench101"], "is none of"),
        (["--limit", "parameters=many"], "not of the form"),
        (["--temperature", "nan"], "--temperature"),
        (["--candidates", str(10**12)], "--candidates"),
        (["--seed", str(2**64)], "--seed"),
        (["--output", "/proc/none"], "cannot be written"),
        (["--score", "swop"], "'swop' is none of"),
        (["--score", "swap", "--space", "mobilenetv3"], "there are no networks of mobilenetv3"),
        (["--prior", "-1"], "--prior"),
        (["--prior", "nan"], "--prior"),
    ],
)
def test_refuses_options(images, options, message):
    result = runner.invoke(app, ["generate", str(images), *options])
    assert result.exit_code == 2
    assert message in result.output


def test_brackets_in_names_are_no_markup(images, tmp_path):
    odd = images.rename(tmp_path / "[red].npz")
    options = ["--top-k", "1", "--candidates", "5", "--output", str(tmp_path / "[/y]")]
    result = runner.invoke(app, ["generate", str(odd), *options], catch_exceptions=False)
    assert result.exit_code == 0
    assert "[red].npz" in result.output
    assert (tmp_path / "[/y]" / "architectures.json").exists()


def test_scores_on_the_images_join_the_ranking(images, tmp_path):
    np.savez(images, x_train=np.random.default_rng(0).integers(0, 255, (30, 8, 8), np.uint8), y_train=np.arange(30) % 3)
    listed = {}
    for name, options in {"plain": [], "scored": ["--score", "synflow", "--prior", "9"]}.items():
        out = ["--output", str(tmp_path / name), "--top-k", "12", "--candidates", "12"]
        result = runner.invoke(app, ["generate", str(images), *options, *out], catch_exceptions=False)
        assert result.exit_code == 0
        listed[name] = json.loads((tmp_path / name / "architectures.json").read_text())["architectures"]
    archs = {name: [row["arch"] for row in rows] for name, rows in listed.items()}
    assert sorted(archs["plain"]) == sorted(archs["scored"])
    assert archs["plain"] != archs["scored"]
    # Fewest convolutions are predicted to be the best, what synaptic flow and the trend contradict.
    halves = {name: sum(row["predicted"] for row in rows[:6]) for name, rows in listed.items()}
    assert halves["plain"] > halves["scored"]
