from __future__ import annotations

import json.decoder

import pytest

from pyg_nas_np.utils import MissingExtraError, require


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts modules of a package 'thirdparty' on the path."""

    def install(**modules):
        folder = tmp_path / "thirdparty"
        folder.mkdir()
        for name, source in {"__init__": "", **modules}.items():
            (folder / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)

    return install


@pytest.fixture(autouse=True)
def forget_thirdparty(monkeypatch):
    import sys

    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "thirdparty"]:
        del sys.modules[name]


def test_returns_the_module_of_the_full_dotted_name():
    assert require("json", "data") is json
    assert require("json.decoder", "data") is json.decoder


@pytest.mark.parametrize("module", ["thirdparty", "thirdparty.sub.module"])
def test_a_missing_package_is_named_with_its_extra(module):
    with pytest.raises(MissingExtraError, match=r"'thirdparty' .* pip install 'pyg-nas-np\[search\]'") as caught:
        require(module, "search")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_package_that_lacks_its_own_dependency_is_not_called_missing(installed):
    installed(broken="import a_dependency_that_nobody_has")
    with pytest.raises(ModuleNotFoundError, match="a_dependency_that_nobody_has") as caught:
        require("thirdparty.broken", "search")
    assert not isinstance(caught.value, MissingExtraError)


def test_an_installed_package_of_an_older_version_is_not_called_missing(installed):
    installed()
    with pytest.raises(ModuleNotFoundError, match=r"thirdparty\.newer") as caught:
        require("thirdparty.newer", "search")
    assert not isinstance(caught.value, MissingExtraError)


@pytest.mark.parametrize(
    ("source", "error"),
    [("import thirdparty.", SyntaxError), ("from thirdparty import gone", ImportError), ("1/0", ZeroDivisionError)],
)
def test_a_module_that_fails_to_load_keeps_its_own_error(installed, source, error):
    installed(broken=source)
    with pytest.raises(error) as caught:
        require("thirdparty.broken", "search")
    assert not isinstance(caught.value, MissingExtraError)
