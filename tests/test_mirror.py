"""Every module has its file of tests, and every file of tests its module."""

from __future__ import annotations

from pathlib import Path

import pyg_nas_np

PACKAGE = Path(pyg_nas_np.__file__).parent
TESTS = Path(__file__).parent

WITHOUT_MODULE = {
    "datasets/test_convert_nasbench101.py": "a script of the folder datasets/ at the top",
    "examples/test_convcnp_1d.py": "a script of examples/",
    "examples/test_demo_curves.py": "a script of examples/",
    "examples/test_demo_own_files.py": "a script of examples/",
    "examples/test_gallery.py": "the scripts of examples/gallery/",
    "examples/test_optuna_own_space.py": "a script of examples/",
    "examples/test_optunahub.py": "the folders of examples/optunahub/",
    "examples/test_rank_pretrained.py": "a script of examples/",
    "test_defaults.py": "the whole package",
    "test_docs.py": "the pages of docs/",
    "test_doctests.py": "the whole package",
    "test_foreign_files.py": "the whole package",
    "test_mirror.py": "the whole package",
    "test_package.py": "the whole package",
    "test_pinned.py": "the weight files",
    "test_readme.py": "the whole package",
    "test_walks.py": "the whole package",
}
"""Files of tests that belong to no module, and what they test."""


def expected() -> set[str]:
    # An __init__.py only gathers names, which test_package.py tries.
    modules = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return {(path.parent / f"test_{path.name.lstrip('_')}").as_posix() for path in modules}


def test_tests_mirror_the_package():
    found = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}
    assert sorted(expected() - found) == [], "modules without tests"
    assert sorted(found - expected() - WITHOUT_MODULE.keys()) == [], "tests without a module"
    assert sorted(WITHOUT_MODULE.keys() - found) == [], "exceptions that nobody needs"
