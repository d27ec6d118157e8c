r"""The command line: its commands, and how their errors end."""

from __future__ import annotations

import dis
import errno
import io
import logging
import sys
import traceback
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text
from typer.core import TyperGroup

from pyg_nas_np.cli import curves, train
from pyg_nas_np.cli.benchmark import compare
from pyg_nas_np.cli.convert import convert
from pyg_nas_np.cli.generate import generate
from pyg_nas_np.cli.info import info
from pyg_nas_np.cli.rank import rank
from pyg_nas_np.cli.score import score
from pyg_nas_np.cli.search import search
from pyg_nas_np.cli.verify import verify
from pyg_nas_np.utils import NASError


class _Commands(TyperGroup):
    """Ends every command that fails with one line: what is wrong with the input, or that it is a bug."""

    def invoke(self, ctx: Any) -> Any:
        try:
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

app.add_typer(curves.app, name="curves")
app.add_typer(train.app, name="train")


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


for command in (rank, search, generate, score, info, convert, verify):
    app.command()(command)
app.command("benchmark")(compare)


def main() -> None:
    """Runs the command line; errors of the user end it with one line and status 2, bugs with status 1."""
    app()
