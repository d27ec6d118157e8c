r"""The example on networks of other packages runs where they are installed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("source", ["transformers", "timm"])
def test_it_predicts_times(source, capsys):
    pytest.importorskip(source, exc_type=ImportError)
    spec = importlib.util.spec_from_file_location("rank_pretrained", ROOT / "examples" / "rank_pretrained.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(["--source", source, "--count", "10", "--measured", "5"])
    out = capsys.readouterr().out
    assert f"10 networks of {source}, 5 measured" in out
    assert re.search(r"Spearman correlation on the 5 others: -?[01]\.\d{3}", out)
