r"""What is wrong with an output is found before the work."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from pyg_nas_np.cli.options import can_draw, check_output, check_predictors, check_priors, parse_arch, say
from pyg_nas_np.spaces import NASBench201Space
from pyg_nas_np.utils import InvalidArchitectureError

SPACE = NASBench201Space()


def test_new_folders_are_not_made_yet(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b" / "c.csv")
    check_output(tmp_path / "a" / "b", folder=True)
    assert not list(tmp_path.iterdir())


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_output(Path("c.csv"))
    check_output(Path("a/c.csv"))
    check_output(Path("out"), folder=True)


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, options, message in (
        (tmp_path / "file" / "x.csv", {}, "cannot be written"),
        (tmp_path / "file", {"folder": True}, "cannot be written"),
        (tmp_path, {}, "is not a file"),
        (Path("/dev/null"), {}, "is not a file"),
        (tmp_path / "x.pt", {"suffix": ".safetensors"}, "must end in .safetensors"),
    ):
        with pytest.raises(typer.BadParameter, match=message):
            check_output(path, **options)  # type: ignore[arg-type]


def test_architectures_are_indices_or_strings() -> None:
    assert parse_arch(SPACE, "7") == SPACE[7] == parse_arch(SPACE, str(SPACE[7]))
    with pytest.raises(typer.BadParameter, match="there is no architecture 15625"):
        parse_arch(SPACE, "15625")
    with pytest.raises(InvalidArchitectureError):
        parse_arch(SPACE, "٣")


def test_brackets_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    say("[/x] [red]y[/red]")
    assert capsys.readouterr().out.strip() == "[/x] [red]y[/red]"


def test_names_of_predictors_and_splits():
    assert check_predictors(["gp", "convnp", "gp"], "class") == ["gp", "convnp"]
    with pytest.raises(typer.BadParameter, match="'oracle' is none of convnp"):
        check_predictors(["gp", "oracle"], "index")
    with pytest.raises(typer.BadParameter, match="'half' is neither 'index' nor 'class'"):
        check_predictors(["gp"], "half")


def test_some_predictors_rank_without_labels() -> None:
    check_priors(["convnp", "bank"])
    with pytest.raises(typer.BadParameter, match="'gp-rbf' needs labels; without any take convnp or bank"):
        check_priors(["bank", "gp-rbf"])


def test_without_matplotlib_a_picture_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not can_draw("ranking.png")
    assert "Left out ranking.png: matplotlib is not installed." in capsys.readouterr().out
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert can_draw("ranking.png")
    assert not capsys.readouterr().out
