"""Every module imports, and every example in a docstring gives the output that it shows."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import pyg_nas_np
from pyg_nas_np.utils import MissingExtraError

# The compiled kernels lie beside the modules and look like one, but are a plain C library.
WALK = pkgutil.walk_packages(pyg_nas_np.__path__, "pyg_nas_np.")
MODULES = ["pyg_nas_np", *sorted(m.name for m in WALK if not m.name.endswith("libpyg_nas_np_cpu"))]


class Runner(doctest.DocTestRunner):
    """Skips where an example needs an extra that is not installed."""

    def report_unexpected_exception(self, out, test, example, exc_info):
        if isinstance(exc_info[1], MissingExtraError):
            pytest.skip(f"{test.name}: {exc_info[1]}")
        super().report_unexpected_exception(out, test, example, exc_info)


def load(name):
    try:
        return importlib.import_module(name)
    except MissingExtraError as error:
        pytest.skip(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "pyg_nas_np").partition(".")[0] == "pyg_nas_np":
            raise
        pytest.skip(f"{name} needs '{error.name}', which is not installed")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    module = load(name)
    # An example that writes into the working folder leaves nothing in the repository.
    monkeypatch.chdir(tmp_path)
    reports = []
    runner = Runner(verbose=False)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test, out=reports.append)
    assert not reports, "".join(reports)
    assert runner.summarize(verbose=False).failed == 0


def test_the_walk_meets_the_examples():
    """A runner that finds nothing would pass as well."""
    assert len(MODULES) == len(set(MODULES))
    found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module("pyg_nas_np.utils.files"))
    assert any(test.examples for test in found)


def test_a_wrong_example_is_reported():
    reports = []
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    Runner(verbose=False).run(wrong, out=reports.append)
    assert "Expected:\n    3" in "".join(reports)


def test_an_example_without_its_extra_is_skipped():
    source = ">>> from pyg_nas_np.utils import require\n>>> require('a_package_that_nobody_has', 'viz')\n"
    needs_extra = doctest.DocTestParser().get_doctest(source, {}, "plot", None, None)
    with pytest.raises(pytest.skip.Exception, match=r"plot: .*pyg-nas-np\[viz\]"):
        Runner(verbose=False).run(needs_extra, out=lambda _: None)
