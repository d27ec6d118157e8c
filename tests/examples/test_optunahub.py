"""The package folders of ``examples/optunahub`` as OptunaHub loads them."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

optuna = pytest.importorskip("optuna")

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "optunahub"
PACKAGES = ["samplers/convnp", "pruners/learning_curve"]


def loaded(package: str, file: str = "__init__.py") -> ModuleType:
    """By OptunaHub itself where it is installed."""
    if file == "__init__.py" and importlib.util.find_spec("optunahub") is not None:
        hub = pytest.importorskip("optunahub")
        module = hub.load_local_module(package, registry_root=str(FOLDER))
        assert isinstance(module, ModuleType)
        return module
    spec = importlib.util.spec_from_file_location(f"example_{package.replace('/', '_')}", FOLDER / package / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("package", PACKAGES)
def test_the_folder_has_what_the_registry_asks_for(package):
    folder = FOLDER / package
    assert {file.name for file in folder.iterdir() if file.is_file()} == {
        "__init__.py", "LICENSE", "README.md", "example.py", "requirements.txt",
    }  # fmt: skip
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    head = re.match(r"---\n(.*?)\n---\n", (folder / "README.md").read_text(), flags=re.DOTALL)
    assert head is not None
    keys = [line.partition(":")[0] for line in head[1].splitlines()]
    assert keys == ["author", "title", "description", "tags", "optuna_versions", "license"]


@pytest.mark.parametrize("package", PACKAGES)
def test_its_example_runs(package, monkeypatch):
    module = loaded(package)
    monkeypatch.setitem(sys.modules, "optunahub", SimpleNamespace(load_module=lambda name: loaded(name)))
    example = loaded(package, "example.py")
    if package == PACKAGES[0]:
        study = optuna.create_study(direction="maximize", sampler=module.ConvNPSampler(seed=0))
        study.optimize(example.objective, n_trials=14)
        assert study.best_value > -10
    else:
        study = optuna.create_study(direction="maximize", pruner=module.CurvePruner())
        study.optimize(example.objective, n_trials=5)
        assert len(study.trials) == 5
