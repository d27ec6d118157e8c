"""Runs the command line inside the test process."""

from __future__ import annotations

import sys

import pytest

from pyg_nas_np.cli import main


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pyg-nas-np", *map(str, args)])
        # Typer ends a successful command with status 0.
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return call
