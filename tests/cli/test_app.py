from __future__ import annotations

import importlib
import json
import subprocess
import sys
import warnings

import pytest
import torch

from pyg_nas_np.cli.app import COMMANDS, _is_users, _Late
from pyg_nas_np.datasets.splits import class_split
from pyg_nas_np.utils import DataFileError

# A command that fails where it opens its data.
MODULE = importlib.import_module("pyg_nas_np.cli.rank")


@pytest.mark.parametrize(
    "args",
    [
        ("--benchmark", "nasbench301"),
        ("--dataset", "svhn"),
        ("--predictor", "oracle"),
        ("--split", "hash"),
        ("--metric", "test_accuracy@7"),
        ("--context", "-3"),
        ("--top-k", "-3"),
        ("--seed", str(2**64)),
        ("--context", "20000"),
    ],
)
def test_bad_arguments_end_with_a_message(run, labelled_root, args):
    code, _, err = run("rank", "--root", labelled_root, *args)
    assert code == 2
    assert args[0 if args[0] in ("--context", "--top-k", "--seed") and args[1] != "20000" else 1] in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "error",
    [
        ValueError("min() arg is an empty sequence"),
        RuntimeError("Overflow when unpacking long long"),
        KeyError("x"),
        EOFError(),
        ZeroDivisionError("[/x]"),
    ],
)
def test_bugs_are_called_bugs(run, monkeypatch, error):
    def broken(*_):
        # Raised by a function of Python, as by a bug.
        next(iter(()), None)
        (_ for _ in ()).throw(error)

    monkeypatch.setattr(MODULE, "open_benchmark", broken)
    code, _, err = run("rank")
    assert code == 1
    assert err.startswith("error: this is a bug of pyg-nas-np")
    assert type(error).__name__ in err
    assert "pyg-nas-np --debug" in err
    assert "Traceback" not in err
    code, _, err = run("--debug", "rank")
    assert code == 1
    assert "Traceback" in err
    assert "in broken" in err


def test_what_python_refuses_is_a_bug_and_what_we_refuse_is_none():
    found = {}
    for body in ("min([])", "raise ValueError('no')", "int('x')", "raise IndexError('no')", "[][1]", "raise KeyError"):
        space = {"__name__": "pyg_nas_np.some.room"}
        exec(f"def f(): {body}", space)
        with pytest.raises(Exception) as caught:  # noqa: PT011
            space["f"]()
        found[body] = _is_users(caught.value)
    assert [body for body, users in found.items() if users] == ["raise ValueError('no')", "raise IndexError('no')"]
    assert not _is_users(ValueError("not raised"))


def test_refused_values_are_no_bugs(run, monkeypatch):
    for error in (FileNotFoundError(2, "No such file", "x"), DataFileError("x is damaged")):

        def refuses(*_, error=error):
            raise error

        monkeypatch.setattr(MODULE, "open_benchmark", refuses)
        code, _, err = run("rank")
        assert (code, "bug" in err, "x" in err) == (2, False, True)
    monkeypatch.setattr(MODULE, "open_benchmark", lambda *_: class_split(torch.arange(3), torch.arange(3), 9))
    code, _, err = run("rank")
    assert (code, err.startswith("error: n_train=9")) == (2, True)


def test_an_interrupt_says_so(run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(MODULE, "open_benchmark", interrupted)
    code, _, err = run("rank")
    assert (code, err.strip()) == (130, "error: interrupted")


def test_the_help_of_all_commands_imports_none_of_them():
    code = """
import json, sys
from pyg_nas_np.cli import main
try:
    main()
except SystemExit:
    print(json.dumps(sorted(sys.modules)))
"""
    command = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    shown, _, modules = done.stdout.rstrip().rpartition("\n")
    assert all(name in shown for name in COMMANDS)
    loaded = set(json.loads(modules))
    assert loaded.isdisjoint({"numpy", "scipy", "torch"})
    assert loaded.isdisjoint(target.partition(":")[0] for target, _ in COMMANDS.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_listed_with_the_first_line_of_its_help(name):
    target, summary = COMMANDS[name]
    command = _Late(name, target, summary).load()
    assert command.name == name
    assert command.help.splitlines()[0] == summary


def test_a_misspelt_command_is_told_the_right_one(run):
    code, _, err = run("serch")
    assert code == 2
    assert "'search'" in err


def test_a_user_is_not_told_what_is_deprecated_in_pytorch(run, monkeypatch):
    def warn(*_args, **_options):
        warnings.warn("`torch.jit.script` is deprecated.", FutureWarning, stacklevel=1)
        warnings.warn("your labels look odd", UserWarning, stacklevel=1)
        raise DataFileError("no data")

    monkeypatch.setattr(MODULE, "open_benchmark", warn)
    with pytest.warns(UserWarning, match="odd") as told:
        assert run("rank")[0] == 2
    assert [str(one.message) for one in told] == ["your labels look odd"]
