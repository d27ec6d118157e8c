r"""Every Python block of the site's pages and of the data cards runs, page by page; links lead somewhere.

Blocks of a page share their names, as a reader types them one after the other. A comment ``% needs: MODULE`` above one
names an optional module without which it is skipped.
"""

from __future__ import annotations

import csv
import importlib.util
import re
import sys
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

site_pages = pytest.importorskip("site_pages", reason="Sphinx is not installed (extra 'docs')")

WRITTEN = {DOCS / page for page in site_pages.COPIES.values()}
PAGES = sorted(
    path
    for path in [*DOCS.rglob("*.md"), *(ROOT / name for name in site_pages.COPIES)]
    if path.suffix == ".md" and path not in WRITTEN and "_build" not in path.parts and "gallery" not in path.parts
)
BLOCK = re.compile(r"(?:^% needs: (\S+)\n)?^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
RESULTS = re.compile(r"^```\{results\} (\S+)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
WITH_BLOCKS = [path for path in PAGES if BLOCK.search(path.read_text())]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_are_blocks():
    assert len(WITH_BLOCKS) >= 8


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name)
def test_blocks_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    missing = set()
    for number, (needs, code) in enumerate(BLOCK.findall(page.read_text())):
        if needs and importlib.util.find_spec(needs) is None:
            missing.add(needs)
            continue
        exec(compile(code, f"{name(page)}, block {number}", "exec"), names)
        assert capsys.readouterr().out or "print(" not in code
    if missing:
        pytest.skip(f"the rest ran; not installed: {', '.join(sorted(missing))}")


LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=name)
def test_links_lead_somewhere(page):
    """Sphinx checks references on the site; these are files in the repository, as seen on a forge."""
    for target in LINK.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme in ("https", "http", "mailto"), target
            assert parts.scheme == "mailto" or "." in parts.netloc, target
        elif parts.path:
            path = (page.parent / parts.path).resolve()
            assert path.exists() or path in WRITTEN or path.is_relative_to(DOCS / "api") or \
                path.is_relative_to(DOCS / "how" / "figures"), f"{name(page)} → {target}"  # fmt: skip


def test_every_module_has_a_page():
    """The API pages cover what users may import; nothing public is left out by its place."""
    modules = site_pages.public_modules()
    for path in (ROOT / "pyg_nas_np").rglob("[a-z]*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.stem != "triton_kernels" and not any(part.startswith("_") for part in path.parts[-3:]):
            assert module in modules


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[a](../datasets/nasbench201.md)", "[a](cards/nasbench201.md)"),
        ("[a](../datasets/nasbench201.md#files)", "[a](cards/nasbench201.md#files)"),
        ("[a](https://pyg.org)", "[a](https://pyg.org)"),
        ("[a](#there)", "[a](#there)"),
        ("[a](set_conv.md)", "[a](set_conv.md)"),
        ("![a](../benchmarks/results/own_spaces.png)", "![a](../benchmarks/results/own_spaces.png)"),
        ("[a](../pyg_nas_np/datasets/compact.py)", "a (`pyg_nas_np/datasets/compact.py`)"),
    ],
)
def test_links_between_files_of_the_repository_become_links_between_pages(text, wanted):
    page = DOCS / "a.md"
    assert site_pages.moved(text, page, page) == wanted


@pytest.fixture(scope="module")
def tables():
    return pytest.importorskip("result_tables")


class TestResultTables:
    rows: ClassVar[list[dict[str, str]]] = [
        {"method": "gp", "n": "10", "tau": "0.5", "note": ""},
        {"method": "gp", "n": "10", "tau": "0.7", "note": ""},
        {"method": "gp", "n": "5", "tau": "0.25", "note": ""},
        {"method": "rf", "n": "10", "tau": "", "note": ""},
        {"method": "rf", "n": "10", "tau": "0.1", "note": ""},
    ]

    def test_pivot_takes_means_and_sorts_columns_as_numbers(self, tables):
        found = tables.pivot(self.rows, ["method"], "n", "tau")
        assert found[0] == ["method", "5", "10"]
        assert [[line[0], *(round(float(c), 9) if c else c for c in line[1:])] for line in found[1:]] == [
            ["gp", 0.25, 0.6],
            ["rf", "", 0.1],
        ]

    def test_empty_columns_are_left_out(self, tables):
        assert tables.listed(self.rows, [])[0] == ["method", "n", "tau"]

    def test_cells_have_four_digits(self, tables):
        assert [tables.shown(c) for c in ("0.123456", "1270872", "12345.6", "gp", "0.0")] == [
            "0.1235", "1,270,872", "12,346", "gp", "0",
        ]  # fmt: skip

    @pytest.mark.parametrize("page", PAGES, ids=name)
    def test_every_table_of_the_pages_has_its_columns_and_rows(self, page, tables):
        for file, text in RESULTS.findall(page.read_text()):
            options = dict(re.findall(r"^:(\w+): (.+)$", text, flags=re.MULTILINE))
            assert options.keys() <= tables.Results.option_spec.keys()
            read = {key: tables.Results.option_spec[key](value) for key, value in options.items()}
            with (tables.RESULTS / file).open(newline="") as rows:
                lines = tables.selected(list(csv.DictReader(rows)), read)
            assert len(lines) > 1, file
            assert len(list(tables.table(lines).findall(tables.nodes.row))) == len(lines)

    def test_cells_are_shown_in_four_digits(self, tables):
        cells = ["0.123456", "12345.6", "3", "1e9", "inf", "nan", "convnp", ""]
        assert [tables.shown(cell) for cell in cells] == ["0.1235", "12,346", "3", "1,000,000,000", *cells[4:]]

    def test_unknown_columns_and_empty_tables_are_named(self, tables):
        with pytest.raises(LookupError, match="no column tau_of_bank among method, n, tau, note"):
            tables.selected(self.rows, {"rows": ["method"], "value": ["tau_of_bank"]})
        with pytest.raises(LookupError, match="no row with method=mlp"):
            tables.selected(self.rows, {"where": ["method=mlp"]})

    def test_means_count_their_rows(self, tables):
        assert tables.means(self.rows[:3], ["method"], ["tau"])[1][:2] == ["gp", "3"]
