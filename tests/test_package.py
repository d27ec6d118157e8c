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
from pyg_nas_np import ConvNPPredictor
print(json.dumps({
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
