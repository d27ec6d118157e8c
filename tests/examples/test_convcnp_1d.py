r"""The ConvCNP example runs, and so does the snippet of the page that shows it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("convcnp_1d", ROOT / "examples" / "convcnp_1d.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("task", ["gp", "sawtooth"])
def test_trains_and_draws(example, task, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    state = torch.get_rng_state()
    example.main(["--task", task, "--steps", "3", "--output", str(tmp_path / "fit.png")])
    out = capsys.readouterr().out
    before, after = map(float, re.search(r"target: (\S+) before, (\S+) after", out).groups())
    assert before != after
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")
    assert ("Gaussian process" in out) == (task == "gp")
    assert torch.equal(torch.get_rng_state(), state)


def test_oracle_beats_its_own_prior(example):
    tasks = example.draw_tasks("gp", 20, torch.Generator().manual_seed(0))
    prior = torch.distributions.Normal(0.0, (1 + example.NOISE**2) ** 0.5).log_prob(tasks.y_target).mean()
    assert example.gp_oracle(tasks) > float(prior) + 1.0


def test_snippets_of_the_page_run(capsys):
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "set_conv.md").read_text(), flags=re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(compile(snippet, "docs/set_conv.md", "exec"), {})
    assert capsys.readouterr().out == "torch.Size([5, 16])\ntorch.Size([2, 65, 8]) torch.Size([5, 2])\n"
