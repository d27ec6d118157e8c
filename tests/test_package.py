"""What ``import pyg_nas_np`` gives, and what it costs."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pyg_nas_np
from pyg_nas_np.utils import lazy

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["pyg_nas_np", *(m.name for m in pkgutil.walk_packages(pyg_nas_np.__path__, "pyg_nas_np.") if m.ispkg)]


@pytest.fixture(scope="module")
def report():
    """Imports the package in a fresh interpreter, after PyTorch Geometric, and records what happens meanwhile."""
    code = """
import json, sys
import numpy, torch, torch_geometric.data

events, before = [], set(sys.modules)
states = [numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
sys.addaudithook(lambda name, _: events.append(name))
import pyg_nas_np
after = [numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
room = pyg_nas_np.spaces.NASBench201Space.__module__
from pyg_nas_np import ConvNPPredictor
print(json.dumps({
    "room": room,
    "modules": sorted(set(sys.modules) - before),
    "events": sorted(set(events)),
    "same_random_state": states == after,
    "predictor": ConvNPPredictor.__module__,
}))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    # Anything else on the standard output would be a print.
    return json.loads(done.stdout)


def test_the_predictor_is_one_import_away(report):
    assert report["predictor"].startswith("pyg_nas_np.convnp")
    assert pyg_nas_np.ConvNPPredictor.__name__ == "ConvNPPredictor"


@pytest.mark.parametrize(
    "module",
    ["lightning", "pytorch_lightning", "matplotlib", "optuna", "pyarrow", "tensorflow", "torchmetrics", "xgboost"],
)
def test_import_leaves_heavy_packages_alone(report, module):
    assert [name for name in report["modules"] if name.partition(".")[0] == module] == []


def test_import_touches_neither_network_nor_processes(report):
    # Names of audit events; creating a socket alone (as urllib3 does to look for IPv6) reaches nobody.
    reaching = (
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostby",
        "socket.sendto",
        "urllib.",
        "ftplib.",
        "http.",
    )
    assert [event for event in report["events"] if event.startswith(reaching)] == []
    assert [event for event in report["events"] if event.startswith(("subprocess.", "os.system", "os.exec"))] == []


def test_import_seeds_nothing(report):
    assert report["same_random_state"]


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_exist(package):
    module = importlib.import_module(package)
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(module, name) is not None


def test_import_alone_loads_no_other_library():
    code = "import sys, pyg_nas_np; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert "pyg_nas_np" in loaded
    assert loaded.isdisjoint({"networkx", "numpy", "scipy", "sklearn", "torch", "torch_geometric", "typer"})


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_listed_and_comes_from_where_the_list_says(package):
    module = importlib.import_module(package)
    sources = lazy._sources(package)
    if not sources:
        pytest.skip(f"{package} imports its names at once")
    at_once = {name for name in vars(module) if name in module.__all__} - sources.keys()
    assert sources.keys() | at_once == set(module.__all__)
    assert set(module.__all__) <= set(dir(module))
    for name, source in sources.items():
        assert getattr(module, name) is getattr(importlib.import_module(source), name)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_late_name_is_hidden_by_a_module(package):
    module = importlib.import_module(package)
    modules = {info.name for info in pkgutil.iter_modules(module.__path__)}
    assert modules.isdisjoint(lazy._sources(package)), "such names have to be imported at once"


def test_stars_bring_the_public_names():
    names: dict[str, object] = {}
    exec("from pyg_nas_np.search import *", names)
    search = importlib.import_module("pyg_nas_np.search")
    assert {name: getattr(search, name) for name in search.__all__}.items() <= names.items()


def test_rooms_are_attributes_of_the_package(report):
    assert report["room"] == "pyg_nas_np.spaces.nasbench201"


def test_metric_classes_come_from_their_modules():
    from pyg_nas_np import metrics

    for name in metrics.__all__:
        module = importlib.import_module(getattr(metrics, name).__module__)
        assert module.__name__ in ("pyg_nas_np.metrics.ranking", "pyg_nas_np.metrics.calibration")
        assert getattr(module, name) is getattr(metrics, name)


def test_a_name_that_does_not_exist():
    for package in ("pyg_nas_np", "pyg_nas_np.metrics"):
        with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'ConvNP'"):
            _ = importlib.import_module(package).ConvNP
        with pytest.raises(ImportError, match="cannot import name 'ConvNP'"):
            exec(f"from {package} import ConvNP")


def test_version_is_that_of_the_project_file():
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert pyg_nas_np.__version__ == declared[1]


def test_version_is_that_of_the_installation():
    try:
        installed = importlib.metadata.version("pyg-nas-np")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is on the path, but not installed")
    assert pyg_nas_np.__version__ == installed
