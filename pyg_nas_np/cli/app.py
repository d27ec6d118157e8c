r"""The command line: its commands, and how their errors end."""

from __future__ import annotations

import dis
import errno
import importlib
import io
import logging
import sys
import traceback
import warnings
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from pyg_nas_np.utils import NASError

COMMANDS = {
    "rank": (
        "pyg_nas_np.cli.rank:rank",
        "Rank your own candidates from your own labels, or all architectures of a benchmark from a few.",
    ),
    "search": (
        "pyg_nas_np.cli.search:search",
        "Propose what to train next, or simulate a whole search on a benchmark.",
    ),
    "generate": (
        "pyg_nas_np.cli.generate:generate",
        "Generate architectures for a data set of images and rank them; nothing is trained.",
    ),
    "score": (
        "pyg_nas_np.cli.score:score",
        "Score architectures without training: SWAP, NASWOT, synaptic flow, parameters, FLOPs.",
    ),
    "info": (
        "pyg_nas_np.cli.info:info",
        "Show what is in your file, or versions, optional packages, shipped weights and benchmarks.",
    ),
    "convert": (
        "pyg_nas_np.cli.convert:convert",
        "Convert your own measurements, or the labels of a benchmark, from whatever source into one plain table.",
    ),
    "verify": (
        "pyg_nas_np.cli.verify:verify",
        "Check that your own labels vary and repeats agree, or compare a benchmark with its published statistics.",
    ),
    "benchmark": (
        "pyg_nas_np.cli.benchmark:compare",
        "Compare predictors on your own labels or a benchmark's: mean ± standard error of their scores over draws.",
    ),
    "curves": ("pyg_nas_np.cli.curves:app", "Predict where learning curves end, and stop hopeless trainings."),
    "train": ("pyg_nas_np.cli.train:app", "Train what the package ships weights of."),
}
"""Where each command lives, and the first line of its help."""


class _Late(TyperCommand):
    """Stands for a command until it runs, so that the help of all commands imports none of them."""

    def __init__(self, name: str, target: str, summary: str) -> None:
        super().__init__(name, help=summary)
        self._target = target

    def load(self) -> Any:
        """The command itself, or the group."""
        module, _, attribute = self._target.partition(":")
        loaded = getattr(importlib.import_module(module), attribute)
        parent = typer.Typer(add_completion=False)
        if isinstance(loaded, typer.Typer):
            parent.add_typer(loaded, name=self.name)
        else:
            parent.command(self.name)(loaded)
        return typer.main.get_group(parent).commands[str(self.name)]

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        return self.load().make_context(*args, **kwargs)


class _Commands(TyperGroup):
    """Ends every command that fails with one line: what is wrong with the input, or that it is a bug."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (target, summary) in COMMANDS.items():
            self.add_command(_Late(name, target, summary))

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                # A message of PyTorch to the programmers of PyG.
                warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _failed("interrupted", 130) from None
        except Exception as error:
            # What Typer itself deals with; the classes have moved between its versions.
            if isinstance(error, typer.Abort) or hasattr(error, "exit_code"):
                raise
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise
            if ctx.params.get("debug"):
                traceback.print_exception(error)
            if _is_users(error):
                raise _failed(str(error), 2) from None
            again = "" if ctx.params.get("debug") else "; for the traceback, repeat it as: pyg-nas-np --debug ..."
            told = " ".join(f"{type(error).__name__}: {error}".split())
            raise _failed(f"this is a bug of pyg-nas-np ({told[:300]}){again}", 1) from None


def _is_users(error: Exception) -> bool:
    """Whether an error is about the input: one of ours, of the system, or a value that our code has refused."""
    if isinstance(error, NASError | OSError):
        return True
    if not isinstance(error, ValueError | IndexError):
        return False
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    # What Python or another library raises because it cannot work with a value says nothing to the user.
    raised = last.tb_frame.f_code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raised and str(last.tb_frame.f_globals.get("__name__")).partition(".")[0] == "pyg_nas_np"


def _failed(message: str, code: int) -> typer.Exit:
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "red"), message), highlight=False)
    return typer.Exit(code)


app = typer.Typer(
    cls=_Commands,
    help="Rank neural architectures from a few measured ones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _setup(
    verbose: Annotated[bool, typer.Option(help="Show progress messages.")] = False,
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    for stream in (sys.stdout, sys.stderr):
        # Names of files need not be text, and terminals need not know every letter.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(show_path=False)],
    )


def main() -> None:
    """Runs the command line; errors of the user end it with one line and status 2, bugs with status 1."""
    app()
