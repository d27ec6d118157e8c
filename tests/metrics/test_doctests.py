from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import pyg_nas_np.metrics

MODULES = [module.name for module in pkgutil.walk_packages(pyg_nas_np.metrics.__path__, "pyg_nas_np.metrics.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted > 0 or hasattr(module, "__path__")
