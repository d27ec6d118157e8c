from __future__ import annotations

import importlib
import pickle
import pydoc
import sys
from pathlib import Path

import pytest

from pyg_nas_np.utils import lazy

INIT = '''
r"""A room."""
from typing import TYPE_CHECKING

from pyg_nas_np.utils.lazy import attach

if TYPE_CHECKING:
    from thirdroom.broken import Missing
    from thirdroom.tools import Tool, use

__all__ = ["Missing", "Tool", "use"]

attach(__name__)
'''
TOOLS = '''
class Tool:
    """A tool with a purpose."""

def use(): return "used"
hidden = 1
'''


@pytest.fixture
def room(tmp_path, monkeypatch):
    folder = tmp_path / "thirdroom"
    folder.mkdir()
    (folder / "__init__.py").write_text(INIT)
    (folder / "tools.py").write_text(TOOLS)
    (folder / "broken.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("thirdroom")
    lazy._sources.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "thirdroom"]:
        del sys.modules[name]


def test_a_module_is_imported_with_its_first_name(room):
    assert "thirdroom.tools" not in sys.modules
    assert {"Missing", "Tool", "use"} <= set(dir(room))
    assert "thirdroom.tools" not in sys.modules
    assert room.use() == "used"
    assert room.use is vars(room)["use"] is sys.modules["thirdroom.tools"].use


def test_a_module_can_be_asked_for_by_its_name(room):
    assert room.tools is sys.modules["thirdroom.tools"]


def test_stars_pickles_and_help(room):
    assert pickle.loads(pickle.dumps(room.Tool)) is room.Tool
    room.Missing = None
    names: dict[str, object] = {}
    exec("from thirdroom import *", names)
    assert names["Tool"] is room.Tool
    assert "A tool with a purpose." in pydoc.render_doc(room)


def test_only_listed_names_are_given(room):
    for name in ("hidden", "attachment", "_Tool", "__wrapped__"):
        with pytest.raises(AttributeError, match=f"module 'thirdroom' has no attribute '{name}'"):
            getattr(room, name)
    with pytest.raises(ImportError, match="cannot import name 'hidden'"):
        exec("from thirdroom import hidden")


def test_what_a_module_lacks_is_said_when_its_name_is_asked_for(room):
    with pytest.raises(ModuleNotFoundError, match="a_package_that_nobody_has"):
        _ = room.Missing


def test_a_package_without_its_source_says_so(room):
    Path(room.__file__).unlink()
    with pytest.raises(ImportError, match=r"the source of thirdroom is missing.*ship its \.py files"):
        _ = room.Tool
